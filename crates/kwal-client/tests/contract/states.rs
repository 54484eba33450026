//! What a program sees of the client in its state: snapshots for troubleshooting.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use kwal_client::{Client, ConnectionState, PartitionClient, Purpose, error::ErrorKind};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, messages::MetadataRequest};
use kwal_testkit::{EmbeddedCluster, Fault, Hazard, Storm};
use tokio::time::{Instant, sleep};
use tracing::{
    Dispatch, Event, Metadata, Subscriber, span,
    subscriber::{DefaultGuard, set_default},
};

use crate::support::{Wire, broker, builder, hold, large, open, record, settle, submit};

const SECOND: Duration = Duration::from_secs(1);

/// The lines that describe a partition client.
fn lines(partition: &PartitionClient) -> Vec<String> {
    partition.state().to_string().lines().map(|line| line.trim().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_partition_client_says_where_it_stands() {
    let broker = broker();
    let partition = open(&broker).await;
    let state = partition.state();
    let leader = state.leader.clone().unwrap();
    assert_eq!((state.topic.as_str(), state.partition, state.topic_id), ("wal", 0, partition.topic_id()));
    assert_eq!((leader.id, leader.epoch), (1, Some(0)));
    assert_eq!(leader.address, Some(broker.address(1).unwrap()));
    assert_eq!((state.producer_id, state.producer_epoch, state.exclusive), (None, None, None));
    assert!(state.last_acknowledged.is_none() && state.last_error.is_none() && state.ended.is_none());
    let address = broker.address(1).unwrap();
    assert_eq!(
        lines(&partition),
        [
            format!("partition 0 of wal: leader is broker 1 ({address}), leader epoch 0"),
            "no producer id".to_owned(),
            "appends: 0 in flight (0 B), 0 waiting, 0 in doubt; none acknowledged yet".to_owned(),
        ]
    );

    partition.produce(record("a")).await.unwrap();
    partition.produce([record("b"), record("c")].concat()).await.unwrap();
    let state = partition.state();
    let last = state.last_acknowledged.unwrap();
    assert_eq!((last.offsets, last.sequence, last.leader_epoch), (Some(1..3), Some(1), Some(0)));
    assert_eq!(state.producer_epoch, Some(0));
    let id = state.producer_id.unwrap();
    assert_eq!(
        lines(&partition)[1..],
        [
            format!("producer id {id}, epoch 0"),
            "appends: 0 in flight (0 B), 0 waiting, 0 in doubt; last acknowledged: offsets 1..3, sequence number 1, \
             leader epoch 0"
                .to_owned(),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn it_shows_what_is_in_flight_what_waits_and_what_is_in_doubt() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("first")).await.unwrap();
    broker.pause(1).unwrap();
    let appends = submit(&partition, &["0", "1", "2", "3", "4", "5", "6"]).await;
    settle().await;
    let state = partition.state();
    assert_eq!((state.in_flight, state.waiting, state.in_doubt), (5, 2, 0));
    assert!(state.in_flight_bytes > 5 * 61, "{state:?}");
    let memory = client.state().memory;
    assert_eq!((memory.limit, memory.appends, memory.reads, memory.waiting), (256 << 20, 7 << 10, 0, 0));
    let produce = |connection: &&ConnectionState| connection.purpose == Purpose::Produce;
    let brokers = client.state().brokers;
    let produce = brokers[0].connections.iter().find(produce).unwrap();
    assert_eq!((produce.in_flight, produce.partitions, produce.throttled_for), (5, 1, None));

    // The time of a request is over: the broker may have appended them.
    sleep(11 * SECOND).await;
    let state = partition.state();
    assert_eq!((state.in_flight, state.waiting, state.in_doubt), (0, 7, 5));
    let error = state.last_error.unwrap();
    assert!(lines(&partition).last().unwrap().starts_with("last error: "), "{error}");
    broker.resume(1).unwrap();
    for append in appends {
        append.await.unwrap();
    }
    let state = partition.state();
    assert_eq!((state.in_flight, state.waiting, state.in_doubt), (0, 0, 0));
    assert!(state.last_error.is_none());
    assert_eq!(client.state().memory.appends, 0);
}

#[tokio::test(start_paused = true)]
async fn it_shows_how_long_the_broker_throttles() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::Throttle(25 * SECOND));
    partition.produce(record("a")).await.unwrap();
    sleep(5 * SECOND).await;
    assert_eq!(partition.state().throttled_for, Some(20 * SECOND));
    assert_eq!(lines(&partition).last().unwrap(), "throttled for another 20.0s");
    let state = client.state().to_string();
    assert!(state.contains("produce 0 in flight, throttled for another 20.0s"), "{state}");
    sleep(20 * SECOND).await;
    assert_eq!(partition.state().throttled_for, None);
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_writer_says_so_until_its_end() {
    let broker = broker();
    let first = hold(&broker).await;
    assert_eq!(first.state().exclusive.as_deref(), Some("writer"));
    assert!(lines(&first)[1].ends_with("exclusive as writer"), "{:?}", lines(&first));
    let _second = hold(&broker).await;
    assert!(first.state().ended.is_none(), "nothing is requested for it");
    first.produce(record("too late")).await.unwrap_err();
    let ended = first.state().ended.unwrap();
    assert!(matches!(ended.kind(), ErrorKind::Fenced), "{ended}");
    assert_eq!(ended.to_string(), first.fenced().await.to_string());
    assert!(lines(&first).last().unwrap().starts_with("ended: "), "{:?}", lines(&first));
}

#[tokio::test(start_paused = true)]
async fn a_client_shows_brokers_connections_and_memory() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let address = broker.address(1).unwrap();
    let lines = || client.state().to_string().lines().map(str::to_owned).collect::<Vec<_>>();
    let cluster = client.cluster_id().unwrap();
    assert_eq!(lines()[0], format!("cluster {cluster}, controller is broker 1"));
    assert!(lines()[2].starts_with("    memory: 0 B of 256.0 MiB: appends 0 B, reads 0 B"), "{:?}", lines());

    partition.produce(large(100_000)).await.unwrap();
    partition.fetch(0).await.unwrap();
    let state = client.state();
    assert_eq!(state.brokers.len(), 1);
    assert_eq!((state.brokers[0].id, &state.brokers[0].address), (Some(1), &address));
    let purposes = state.brokers[0].connections.iter().map(|connection| connection.purpose);
    assert!(purposes.eq([Purpose::General, Purpose::Produce, Purpose::Fetch]), "{state}");
    let connections = "general 0 in flight; produce 0 in flight; fetch 0 in flight";
    assert_eq!(lines()[1], format!("    broker 1 ({address}): {connections}"));

    // A long poll is in flight, and holds memory for what may come.
    let fetch = tokio::spawn({
        let partition = partition.clone();
        async move { partition.fetch(1).max_wait(10 * SECOND).await }
    });
    settle().await;
    let state = client.state();
    assert_eq!((state.brokers[0].connections[2].in_flight, state.memory.reads), (1, 1 << 20));
    fetch.await.unwrap().unwrap();
    assert_eq!((client.state().brokers[0].connections[2].in_flight, client.state().memory.reads), (0, 0));

    broker.kill(1).unwrap();
    settle().await;
    partition.get_offset(kwal_client::OffsetAt::Latest).deadline(SECOND).await.unwrap_err();
    let state = client.state();
    assert!(state.brokers[0].connections.is_empty(), "{state}");
    assert!(state.brokers[0].last_error.is_some(), "{state}");
    assert!(lines()[1].starts_with(&format!(
        "    broker 1 ({address}): not connected; the last attempt to connect failed: "
    )));

    drop(partition);
    assert!(client.close().deadline(SECOND).await.is_empty());
    assert!(client.state().brokers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_created_again_has_no_leader_here() {
    let broker = broker();
    let partition = open(&broker).await;
    broker.recreate_topic("wal").unwrap();
    let error = partition.fetch(0).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TopicRecreated { .. }), "{error}");
    assert!(partition.state().leader.is_none(), "{}", partition.state());
    assert!(lines(&partition)[0].ends_with("leader unknown"));
}

#[tokio::test(start_paused = true)]
async fn the_last_error_is_that_of_the_attempt() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(record("a")).await.unwrap();
    broker.on_all(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let append = submit(&partition, &["b"]).await.remove(0);
    settle().await;
    assert_eq!(partition.state().last_error.unwrap().code(), Some(ErrorCode::NOT_ENOUGH_REPLICAS));
    broker.clear_faults();
    append.await.unwrap();
    assert!(partition.state().last_error.is_none());
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn states_are_serialized_as_plain_data() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::Throttle(SECOND / 2));
    partition.produce(record("a")).await.unwrap();
    let state: serde_json::Value = serde_json::to_value(partition.state()).unwrap();
    let id = partition.topic_id().unwrap().to_string();
    assert_eq!(state["leader"]["address"], broker.address(1).unwrap().to_string());
    assert_eq!(state["topic_id"], id);
    assert_eq!(state["last_acknowledged"]["offsets"], serde_json::json!({ "start": 0, "end": 1 }));
    assert_eq!(state["throttled_for"], 0.5);
    assert_eq!(state["last_error"], serde_json::Value::Null);
    let state: serde_json::Value = serde_json::to_value(client.state()).unwrap();
    assert_eq!(state["brokers"][0]["connections"][1]["purpose"], "produce");
    assert_eq!(state["memory"]["limit"], 256 << 20);
}

/// What a broker says can neither forge a line nor fill a screen.
#[tokio::test(start_paused = true)]
async fn the_id_of_a_cluster_stays_on_its_line() {
    let broker = broker();
    let wire = Wire::to(&broker);
    wire.edit::<MetadataRequest>(|response| {
        response.cluster_id = Some(format!("a\r\nERROR: \u{1b}[31m\u{202e}{}", "x".repeat(30_000)));
    });
    let text = wire.client().await.state().to_string();
    assert!(text.starts_with("cluster a\\r\\nERROR: \\u{1b}[31m\\u{202e}xxx"), "{text:?}");
    assert!(text.len() < 1_000 && text.lines().count() == 3, "{text:?}");
}

/// A subscriber may ask for states, at whatever event: nothing is locked.
#[test]
fn a_subscriber_may_ask_for_states() {
    let asked = within_a_minute(|| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let asking = Asking::new();
            let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap();
            let client = builder(&cluster).build().await.unwrap();
            let partition = client.partition_client("wal", 0).exclusive("writer").await.unwrap();
            asking.set(&client, &partition);
            // Each former leader names its successor.
            for leader in [2, 3, 1] {
                cluster.move_leader("wal", 0, leader).unwrap();
                partition.produce(record("a")).await.unwrap();
                cluster.move_leader("wal", 0, leader % 3 + 1).unwrap();
                partition.fetch(0).await.unwrap();
            }
            cluster.on(ApiKey::METADATA, Fault::Error(ErrorCode::REBOOTSTRAP_REQUIRED));
            cluster.move_leader("wal", 0, 3).unwrap();
            client.list_topics().await.unwrap();
            partition.produce(record("b")).await.unwrap();
            let storm = Storm::new(7).with(Hazard::RefusedConnections).with(Hazard::CoordinatorFaults);
            let until = Instant::now() + 30 * SECOND;
            let appends = async {
                while Instant::now() < until {
                    let _ = partition.produce(record("c")).deadline(3 * SECOND).await;
                    let _ = partition.fetch(0).deadline(3 * SECOND).await;
                    sleep(SECOND / 50).await;
                }
            };
            let (done, ()) = tokio::join!(storm.run(&cluster, 30 * SECOND), appends);
            done.unwrap();
            client.close().await;
            asking.count()
        })
    });
    assert!(asked > 1_000, "{asked}");
}

/// Runs something on a thread of its own, which may hang.
fn within_a_minute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    is_done.recv_timeout(60 * SECOND).expect("it ends, and does not wait for itself")
}

/// Asks for states at each event and span of this thread.
struct Asking {
    clients: Arc<Mutex<Option<(Client, PartitionClient)>>>,
    count: Arc<AtomicUsize>,
    _guard: DefaultGuard,
    /// With a single subscriber, callsites that other tests reached first would be cached as disabled.
    _another: Dispatch,
}

impl Asking {
    fn new() -> Self {
        let (clients, count) = (Arc::<Mutex<_>>::default(), Arc::<AtomicUsize>::default());
        let asker = Asker { clients: Arc::clone(&clients), count: Arc::clone(&count) };
        let _another = Dispatch::new(Asker { clients: Arc::default(), count: Arc::default() });
        Self { clients, count, _guard: set_default(asker), _another }
    }

    fn set(&self, client: &Client, partition: &PartitionClient) {
        *self.clients.lock().unwrap() = Some((client.clone(), partition.clone()));
    }

    fn count(&self) -> usize {
        *self.clients.lock().unwrap() = None;
        self.count.load(Ordering::Relaxed)
    }
}

struct Asker {
    clients: Arc<Mutex<Option<(Client, PartitionClient)>>>,
    count: Arc<AtomicUsize>,
}

impl Asker {
    fn ask(&self) {
        let clients = self.clients.lock().unwrap().clone();
        if let Some((client, partition)) = clients {
            drop((client.state(), partition.state()));
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Subscriber for Asker {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        self.ask();
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {
        self.ask();
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        self.ask();
    }

    fn enter(&self, _: &span::Id) {
        self.ask();
    }

    fn exit(&self, _: &span::Id) {
        self.ask();
    }
}
