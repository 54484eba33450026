//! C4 with several brokers: a fault of one does not affect calls to the others.
//!
//! The brokers are real; the wire rewrites which brokers and leaders their metadata names.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use kwal_client::{
    Client, ClientBuilder, Limits, OffsetAt, PartitionClient, RetryPolicy,
    error::{Error, ErrorKind},
};
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{MetadataBroker, MetadataRequest},
    wire::Uuid,
};
use kwal_testkit::{EmbeddedCluster, EmbeddedClusterBuilder, Fault};
use kwal_transport::{HostPort, memory::MemoryNetwork};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep},
};

use crate::support::{Wire, WireMode, chain, deadlines, record, replicate, settle, timed};

const NAMES: [&str; 3] = ["one", "two", "three"];

/// Three clusters of one broker with the same cluster id and topic id.
pub(crate) struct Three {
    network: MemoryNetwork,
    pub(crate) brokers: Vec<EmbeddedCluster>,
    pub(crate) wire: Wire,
    reported: Arc<Mutex<ReportedMetadata>>,
}

struct ReportedMetadata {
    brokers: Vec<(i32, &'static str)>,
    leader: fn(i32) -> i32,
    /// −1 for no epoch; the leader is believed then.
    epoch: i32,
}

impl Three {
    /// With the topic `wal`. Brokers 1, 2 and 3 lead its partitions in turn.
    pub(crate) fn start(partitions: i32) -> Self {
        Self::start_as(&EmbeddedCluster::builder(), partitions)
    }

    pub(crate) fn start_as(builder: &EmbeddedClusterBuilder, partitions: i32) -> Self {
        let network = MemoryNetwork::default();
        let start = |name: &&str| {
            let builder = builder.clone().seed(5).topic("wal", partitions);
            builder.start_in(&network, HostPort::new(*name, 9092)).unwrap()
        };
        let brokers: Vec<_> = NAMES.iter().map(start).collect();
        let wire = Wire::through(brokers[0].connector(), vec!["one:9092".to_owned()]);
        let known = (1..).zip(NAMES).collect();
        let reported = ReportedMetadata { brokers: known, leader: |partition| partition % 3 + 1, epoch: -1 };
        let reported = Arc::new(Mutex::new(reported));
        let this = Self { network, brokers, wire, reported };
        this.apply();
        this
    }

    fn apply(&self) {
        let reported = Arc::clone(&self.reported);
        self.wire.edit::<MetadataRequest>(move |response| {
            let reported = reported.lock().unwrap();
            let broker = |&(node_id, host): &(i32, &str)| MetadataBroker {
                node_id,
                host: host.to_owned(),
                port: 9092,
                ..MetadataBroker::default()
            };
            response.brokers = reported.brokers.iter().map(broker).collect();
            for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                partition.leader_id = (reported.leader)(partition.partition_index);
                partition.leader_epoch = reported.epoch;
            }
        });
    }

    fn builder(&self) -> ClientBuilder {
        let addresses = NAMES.iter().map(|name| format!("{name}:9092"));
        ClientBuilder::new(addresses).connector(self.wire.clone()).seed(7)
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().build().await.unwrap()
    }

    pub(crate) fn lead(&self, leader: fn(i32) -> i32) {
        self.reported.lock().unwrap().leader = leader;
    }

    pub(crate) fn set_epoch(&self, epoch: i32) {
        self.reported.lock().unwrap().epoch = epoch;
    }

    pub(crate) fn set_brokers(&self, brokers: &[(i32, &'static str)]) {
        self.reported.lock().unwrap().brokers = brokers.to_vec();
    }

    /// Returns the number of metadata requests to all brokers.
    pub(crate) fn metadata_requests(&self) -> u64 {
        self.brokers.iter().map(|broker| broker.requests(ApiKey::METADATA)).sum()
    }
}

async fn open_all(client: &Client, partitions: i32) -> Vec<PartitionClient> {
    join_all((0..partitions).map(async |i| client.partition_client("wal", i).await.unwrap())).await
}

async fn append_to_all(partitions: &[PartitionClient]) {
    let appends =
        join_all(partitions.iter().map(|partition| partition.produce(record("a")).into_future())).await;
    assert!(appends.iter().all(Result::is_ok), "{:?}", appends.iter().find(|produced| produced.is_err()));
}

async fn read_all(partitions: &[PartitionClient]) {
    let fetch = async |partition: &PartitionClient| partition.fetch(0).max_wait(Duration::ZERO).await;
    let reads = join_all(partitions.iter().map(fetch)).await;
    assert!(reads.iter().all(Result::is_ok), "{:?}", reads.iter().find(|fetched| fetched.is_err()));
}

#[tokio::test(start_paused = true)]
async fn connections_are_closed_with_their_partition_client_also_during_a_read() {
    let three = Three::start(3);
    let client = three.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    let other = client.partition_client("wal", 0).await.unwrap();
    append_to_all(&[partition.clone(), other.clone()]).await;
    let (before, _) = three.wire.open_at("one");
    let fetch = tokio::spawn({
        let partition = partition.clone();
        async move { partition.fetch(0).max_wait(Duration::from_secs(30)).await }
    });
    settle().await;
    assert_eq!(three.wire.open_at("one").0, before + 1);
    drop(partition);
    fetch.abort();
    settle().await;
    assert_eq!(three.wire.open_at("one").0, before - 1);
    other.produce(record("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_respond_delays_only_calls_that_need_it() {
    for mode in [WireMode::Deaf, WireMode::Stalled, WireMode::Unreachable] {
        let three = Three::start(3);
        let client = three.client().await;
        let partitions = open_all(&client, 3).await;
        append_to_all(&partitions).await;
        three.wire.set_at("two", mode);
        // The first of these may reach the silent broker, and takes a moment longer.
        let mut waits = Vec::new();
        for _ in 0..30 {
            let (topics, took) = timed(client.list_topics()).await;
            topics.unwrap();
            waits.push(took);
        }
        let moment = deadlines().request / 10;
        assert!(waits.iter().all(|took| *took <= moment), "{mode:?}: {waits:?}");
        assert!(waits.iter().filter(|took| !took.is_zero()).count() <= 1, "{mode:?}: {waits:?}");
        // It does not delay calls whose leader has moved, or an open, either.
        let append = tokio::spawn({
            let two = partitions[1].clone();
            async move { timed(two.produce(record("b"))).await }
        });
        settle().await;
        for partition in 0..3 {
            replicate(&three.brokers[partition as usize], &three.brokers[2], partition);
        }
        three.lead(|_| 3);
        three.brokers[0].on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        let (_, took) = timed(async {
            partitions[0].produce(record("b")).await.unwrap();
            partitions[2].produce(record("b")).await.unwrap();
            client.partition_client("wal", 1).await.unwrap();
        })
        .await;
        assert!(took <= Duration::from_millis(100), "{mode:?}: {took:?}");
        // A call that needs it takes the time limit of a request, and continues elsewhere.
        let (produced, took) = append.await.unwrap();
        produced.unwrap();
        assert!(took <= deadlines().request + Duration::from_millis(200), "{mode:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn if_no_known_broker_responds_the_bootstrap_addresses_are_tried_again() {
    for mode in [WireMode::Deaf, WireMode::Unreachable] {
        let three = Three::start(1);
        // The cluster is known under addresses that will be replaced.
        three.set_brokers(&[(11, "old-1"), (12, "old-2")]);
        for name in ["old-1", "old-2"] {
            three.wire.set_at(name, mode);
        }
        let stands_for = |name| {
            let address = HostPort::new(name, 9092);
            EmbeddedCluster::builder().seed(5).topic("wal", 1).start_in(&three.network, address).unwrap()
        };
        let _old = [stands_for("old-1"), stands_for("old-2")];
        let client = three.client().await;
        three.set_brokers(&[(21, "two"), (22, "three")]);
        three.lead(|_| 22);
        let (topics, took) = timed(client.list_topics()).await;
        assert_eq!(topics.unwrap().len(), 1);
        assert!(took <= Duration::from_secs(7), "{mode:?}: {took:?}");
        assert_eq!(
            three.wire.open_at("old-1").0 + three.wire.open_at("old-2").0,
            if mode == WireMode::Deaf { 2 } else { 0 }
        );
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        let brokers: Vec<_> = client.brokers().into_iter().map(|(id, _)| id).collect();
        assert_eq!(brokers, [21, 22]);
        settle().await;
        assert_eq!(
            three.wire.open_at("old-1").0 + three.wire.open_at("old-2").0,
            0,
            "their connections are closed"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn connections_to_bootstrap_addresses_are_closed_after_a_hedged_request() {
    let three = Three::start(1);
    let client = three.client().await;
    let delay = deadlines().request * 9 / 10;
    for broker in &three.brokers {
        broker.on(ApiKey::INIT_PRODUCER_ID, Fault::DelayReply(delay));
    }
    let partition = client.partition_client("wal", 0).await.unwrap();
    let (produced, took) = timed(partition.produce(record("a"))).await;
    produced.unwrap();
    assert!(took > Duration::ZERO && took < delay, "{took:?}: a bootstrap address responded first");
    settle().await;
    let open = || NAMES.map(|name| three.wire.open_at(name).0);
    assert_eq!(open(), [2, 1, 1], "a general connection to each, and one for appends to the leader");
    for broker in &three.brokers {
        broker.on(ApiKey::METADATA, Fault::DelayReply(delay));
    }
    let (topics, took) = timed(client.list_topics()).await;
    topics.unwrap();
    assert!(took > Duration::ZERO && took < delay, "{took:?}");
    settle().await;
    assert_eq!(open(), [2, 1, 1]);
    partition.produce(record("b")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn brokers_and_bootstrap_addresses_are_tried_until_the_deadline() {
    let three = Three::start(1);
    let client = three.client().await;
    for broker in &three.brokers {
        broker.stop(1).unwrap();
    }
    let listing = tokio::spawn({
        let client = client.clone();
        async move { timed(client.list_topics()).await }
    });
    let almost = deadlines().operation - Duration::from_secs(5);
    sleep(almost).await;
    three.brokers[2].restart(1).unwrap();
    let (topics, took) = listing.await.unwrap();
    topics.unwrap();
    assert!(took - almost <= RetryPolicy::default().max, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn calls_to_a_retired_broker_continue_elsewhere() {
    let three = Three::start(3);
    let client = three.client().await;
    let partitions = open_all(&client, 3).await;
    append_to_all(&partitions).await;
    read_all(&partitions).await;
    three.wire.set_at("two", WireMode::Deaf);
    let begun = Instant::now();
    let append = partitions[1].produce(record("b"));
    let fetch = partitions[1].fetch(0).max_wait(Duration::from_secs(30)).min_bytes(1000).into_future();
    let offset = partitions[1].get_offset(OffsetAt::Latest);
    let move_leader = async {
        sleep(Duration::from_secs(1)).await;
        for partition in 0..3 {
            replicate(&three.brokers[partition as usize], &three.brokers[2], partition);
        }
        three.lead(|_| 3);
        three.set_brokers(&[(1, "one"), (3, "three")]);
        client.controller_client().await.unwrap();
        three.brokers[0].on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        partitions[0].produce(record("b")).await.unwrap();
        begun.elapsed()
    };
    let (produced, offset, reported) = tokio::join!(append, offset, move_leader);
    let took = begun.elapsed();
    assert_eq!((produced.unwrap().attempts, offset.is_ok()), (2, true));
    assert!(took - reported <= Duration::from_millis(100), "{took:?} after {reported:?}");
    drop(fetch);
    settle().await;
    assert_eq!(three.wire.open_at("two").0, 0, "its connections are closed");
    // It returns and is used again.
    three.wire.set(WireMode::Passing);
    three.set_brokers(&[(1, "one"), (2, "two"), (3, "three")]);
    replicate(&three.brokers[2], &three.brokers[1], 2);
    three.lead(|_| 2);
    three.brokers[2].on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    assert_eq!(partitions[2].produce(record("c")).await.unwrap().attempts, 2);
    assert_eq!(three.brokers[1].end_offset("wal", 2).unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn connecting_to_a_retired_broker_is_given_up() {
    let three = Three::start(3);
    let client = three.client().await;
    let partitions = open_all(&client, 3).await;
    three.wire.set_at("two", WireMode::Unreachable);
    three.brokers[1].disconnect(1).unwrap();
    settle().await;
    let append = tokio::spawn({
        let two = partitions[1].clone();
        async move { timed(two.produce(record("a"))).await }
    });
    let before = Duration::from_secs(1);
    sleep(before).await;
    three.lead(|_| 3);
    three.set_brokers(&[(1, "one"), (3, "three")]);
    three.brokers[0].on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    partitions[0].produce(record("b")).await.unwrap();
    let (produced, took) = append.await.unwrap();
    produced.unwrap();
    // The metadata request may have tried the unreachable broker first.
    assert!(took - before <= deadlines().request / 10 + Duration::from_millis(200), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn many_calls_to_a_dead_broker_make_few_connections() {
    // Connections are refused, or never complete.
    for gone in [true, false] {
        let three = Three::start(1000);
        let limits = Limits::default().max_connections_per_broker(4);
        let client = three.builder().limits(limits).build().await.unwrap();
        let partitions = open_all(&client, 1000).await;
        let led_by_two: Vec<_> = partitions.iter().filter(|one| one.partition() % 3 == 1).cloned().collect();
        match gone {
            true => three.brokers[1].stop(1).unwrap(),
            false => three.wire.set_at("two", WireMode::Unreachable),
        }
        three.brokers[1].disconnect(1).unwrap();
        settle().await;
        let before = three.wire.attempts_at("two");
        let appends = tokio::spawn(async move { timed(try_append_to_all(&led_by_two)).await });
        let outage = Duration::from_secs(25);
        sleep(outage).await;
        let attempts = three.wire.attempts_at("two") - before;
        match gone {
            // One at a time, with pauses that grow to a quarter of the longest, or more.
            true => assert!(attempts <= 25 * 4 + 10, "{attempts}"),
            // One at a time, each with the time limit of connecting.
            false => assert!(attempts <= 3, "{attempts}"),
        }
        let metadata_requests = three.metadata_requests();
        assert!(metadata_requests <= 25 * 40, "{metadata_requests}");
        three.lead(|_| 3);
        let (appends, took) = appends.await.unwrap();
        assert!(appends.iter().all(Result::is_ok));
        let late = took - outage;
        // The current attempt takes its time limit, and no caller waits for another one.
        assert!(late <= if gone { Duration::from_secs(2) } else { deadlines().connect }, "{late:?}");
    }
}

async fn try_append_to_all(partitions: &[PartitionClient]) -> Vec<Result<(), Error>> {
    join_all(partitions.iter().map(async |one| one.produce(record("a")).await.map(drop))).await
}

#[tokio::test(start_paused = true)]
async fn callers_that_wait_for_a_failing_connection_share_one_attempt() {
    let three = Three::start(60);
    let limits = Limits::default().max_connections_per_broker(1);
    let short = deadlines().operation(deadlines().connect * 3 / 2);
    let client = three.builder().limits(limits).deadlines(short).build().await.unwrap();
    let partitions = open_all(&client, 60).await;
    three.wire.set_at("two", WireMode::Unreachable);
    three.brokers[1].disconnect(1).unwrap();
    settle().await;
    let led_by_two: Vec<_> = partitions.into_iter().filter(|one| one.partition() % 3 == 1).collect();
    let appends = tokio::spawn(async move { timed(try_append_to_all(&led_by_two)).await });
    settle().await;
    three.lead(|_| 3);
    let (appends, took) = appends.await.unwrap();
    assert!(appends.iter().all(Result::is_ok), "{appends:?}");
    assert!(took <= deadlines().connect + Duration::from_millis(100), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn lookups_of_different_topics_share_metadata_requests() {
    let three = Three::start(1);
    for broker in &three.brokers {
        for topic in 0..100 {
            broker.create_topic(&format!("topic-{topic}"), 1).unwrap();
        }
    }
    let client = three.client().await;
    let metadata_requests = three.metadata_requests();
    let open = |topic: i32| client.partition_client(format!("topic-{topic}"), 0).into_future();
    let partitions = join_all((0..100).map(open)).await;
    partitions.into_iter().for_each(|partition| drop(partition.unwrap()));
    assert_eq!(
        three.metadata_requests() - metadata_requests,
        2,
        "the first one, and one for all callers that arrived during it"
    );
    // Lookups of a missing topic share requests too: one is in flight at a time.
    let metadata_requests = three.metadata_requests();
    let takes = Duration::from_millis(50);
    three.brokers.iter().for_each(|broker| broker.on_all(ApiKey::METADATA, Fault::DelayReply(takes)));
    let missing = join_all((0..100).map(|_| client.partition_client("missing", 0).into_future())).await;
    assert!(missing.into_iter().all(|one| matches!(one.unwrap_err().kind(), ErrorKind::UnknownTopic { .. })));
    let (metadata_requests, most) =
        (three.metadata_requests() - metadata_requests, deadlines().unknown_topic.div_duration_f64(takes));
    assert!(metadata_requests as f64 <= most + 2.0, "{metadata_requests}");
}

#[tokio::test(start_paused = true)]
async fn another_cluster_behind_the_same_names_is_noticed() {
    let three = Three::start(1);
    let client = three.client().await;
    let was = client.cluster_id().unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    // One of the addresses belongs to another cluster now: the others are tried.
    three.brokers[1].stop(1).unwrap();
    let other = |name: &str| {
        let address = HostPort::new(name, 9092);
        EmbeddedCluster::builder().seed(6).topic("wal", 1).start_in(&three.network, address).unwrap()
    };
    let two = other("two");
    for _ in 0..20 {
        assert_eq!(client.list_topics().await.unwrap()[0].id, three.brokers[0].topic_id("wal"));
    }
    // With all addresses at another cluster, every call fails.
    for index in [0, 2] {
        three.brokers[index].stop(1).unwrap();
    }
    let others = [other("one"), other("three"), two];
    let (errors, took) = timed(async {
        [
            client.list_topics().await.unwrap_err(),
            partition.produce(record("a")).await.unwrap_err(),
            partition.fetch(0).await.unwrap_err(),
        ]
    })
    .await;
    assert!(took <= Duration::from_secs(1), "{took:?}");
    for error in &errors {
        let text = chain(error);
        assert!(text.contains(&was) && text.contains("build a new client"), "{text}");
        assert!(!error.is_retriable());
    }
    assert!(others.iter().all(|other| other.end_offset("wal", 0).unwrap() == 0));
    assert_eq!(client.cluster_id(), Some(was));
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_of_one_broker_is_reported_if_no_other_responds() {
    let three = Three::start(1);
    // The first address is not a broker: the others answer.
    three.brokers[0].stop(1).unwrap();
    let web = Web::at(&three.network, "one");
    let builder = three.builder().connector(three.network.clone());
    let client = builder.clone().build().await.unwrap();
    client.partition_client("wal", 0).await.unwrap().produce(record("a")).await.unwrap();
    assert!(web.visits() > 0);
    // None of the addresses is a broker.
    for index in [1, 2] {
        three.brokers[index].stop(1).unwrap();
    }
    let _others = [Web::at(&three.network, "two"), Web::at(&three.network, "three")];
    let (error, took) = timed(builder.build()).await;
    let error = error.unwrap_err();
    assert!(chain(&error).contains("the peer speaks HTTP, not Kafka"), "{}", chain(&error));
    assert!(!error.is_retriable() && took < Duration::from_secs(1), "{took:?}");
}

/// Responds like a web server.
struct Web(Arc<Mutex<usize>>);

impl Web {
    fn at(network: &MemoryNetwork, host: &str) -> Self {
        let mut listener = network.listen(HostPort::new(host, 9092)).unwrap();
        let visits = Arc::<Mutex<usize>>::default();
        let count = Arc::clone(&visits);
        tokio::spawn(async move {
            loop {
                let mut stream = listener.accept().await;
                *count.lock().unwrap() += 1;
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        });
        Self(visits)
    }

    fn visits(&self) -> usize {
        *self.0.lock().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_topic_id_from_one_broker_is_not_a_recreation() {
    let three = Three::start(1);
    let client = three.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    let times = Arc::new(Mutex::new(1));
    let reported = Arc::clone(&three.reported);
    let rename = {
        let times = Arc::clone(&times);
        move |response: &mut kwal_protocol::messages::MetadataResponse| {
            let (mut times, reported) = (times.lock().unwrap(), reported.lock().unwrap());
            for topic in &mut response.topics {
                for partition in &mut topic.partitions {
                    (partition.leader_id, partition.leader_epoch) = (1, reported.epoch);
                }
                if *times > 0 {
                    *times -= 1;
                    topic.topic_id = Uuid([9; 16]);
                }
            }
        }
    };
    three.wire.edit::<MetadataRequest>(rename);
    three.brokers[0].on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    assert_eq!(partition.produce(record("a")).await.unwrap().attempts, 2);
    // All brokers with the same id prove it.
    *times.lock().unwrap() = 100;
    three.brokers[0].on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    let error = partition.produce(record("b")).await.unwrap_err();
    assert!(chain(&error).contains("was deleted and created again"), "{error:?}");
}
