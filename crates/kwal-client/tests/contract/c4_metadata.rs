//! C4: metadata that is wrong, says less than before or contradicts that of other brokers does not stop calls
//! and closes no connection.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use futures::future::join_all;
use kwal_client::{Client, ClientBuilder, OffsetAt, PartitionClient, error::ErrorKind};
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{
        FetchLeader, FetchRequest, MetadataBroker, MetadataPartition, MetadataRequest, MetadataResponse,
        MetadataTopicResponse, ProduceLeader, ProduceRequest,
    },
    wire::Uuid,
};
use kwal_testkit::{
    EmbeddedCluster, EmbeddedClusterBuilder, Fault,
    wire::{Decision, Wire, WireMode},
};
use tokio::time::sleep;

use crate::support::{chain, deadlines, record, timed};

pub(crate) const BROKERS: [i32; 3] = [1, 2, 3];
/// Enough for a few attempts.
pub(crate) const MOMENT: Duration = Duration::from_secs(3);

/// Changes the metadata that a broker sends.
trait Edit: FnMut(i32, &mut MetadataResponse) + Send {}

impl<F: FnMut(i32, &mut MetadataResponse) + Send> Edit for F {}

/// A cluster of three brokers with the topic `wal`, whose metadata can be changed on its way.
pub(crate) struct Edited {
    pub(crate) cluster: EmbeddedCluster,
    pub(crate) wire: Wire,
    edit: Arc<Mutex<Box<dyn Edit>>>,
}

impl Edited {
    pub(crate) fn start(partitions: i32) -> Self {
        Self::start_as(EmbeddedCluster::builder().topic("wal", partitions))
    }

    pub(crate) fn start_as(builder: EmbeddedClusterBuilder) -> Self {
        let cluster = builder.seed(5).brokers(3).start_in_memory().unwrap();
        let wire = Wire::new(cluster.connector());
        let edit: Arc<Mutex<Box<dyn Edit>>> = Arc::new(Mutex::new(Box::new(|_, _| {})));
        let addresses = BROKERS.map(|id| (cluster.address(id).unwrap(), id));
        wire.on_response({
            let edit = Arc::clone(&edit);
            move |frame| match frame.response::<MetadataRequest>() {
                Some(mut response) => {
                    let by =
                        addresses.iter().find(|(address, _)| *address == frame.to).map_or(0, |(_, id)| *id);
                    (edit.lock().unwrap())(by, &mut response);
                    frame.replace_response::<MetadataRequest>(&response)
                }
                None => Decision::Pass,
            }
        });
        Self { cluster, wire, edit }
    }

    /// Changes every metadata response. The edit gets the id of the broker that sent it.
    pub(crate) fn edit(&self, edit: impl FnMut(i32, &mut MetadataResponse) + Send + 'static) {
        *self.edit.lock().unwrap() = Box::new(edit);
    }

    /// Changes the partitions of all topics in the metadata of one broker; of all for `None`.
    pub(crate) fn edit_partitions(
        &self,
        of: Option<i32>,
        edit: impl Fn(&mut MetadataPartition) + Send + 'static,
    ) {
        self.edit(move |by, response| {
            if of.is_none_or(|of| of == by) {
                response.topics.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(&edit);
            }
        });
    }

    pub(crate) fn pass(&self) {
        self.edit(|_, _| {});
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        ClientBuilder::new(self.cluster.bootstrap()).connector(self.wire.clone()).seed(7)
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().build().await.unwrap()
    }

    /// Builds a client, which needs an answer of the first bootstrap address or of another one.
    async fn client_until_built(&self) -> Client {
        loop {
            match self.builder().build().await {
                Ok(client) => return client,
                Err(error) => assert!(error.is_retriable(), "{error:?}"),
            }
        }
    }

    pub(crate) async fn open(&self) -> PartitionClient {
        self.client().await.partition_client("wal", 0).await.unwrap()
    }

    pub(crate) fn leader(&self) -> i32 {
        self.cluster.leader("wal", 0).unwrap().unwrap()
    }

    /// Moves the leader of partition 0 to another replica, and returns that one.
    pub(crate) fn move_leader(&self) -> i32 {
        let to = self.others(self.leader())[0];
        self.cluster.move_leader("wal", 0, to).unwrap();
        to
    }

    pub(crate) fn others(&self, broker: i32) -> Vec<i32> {
        BROKERS.into_iter().filter(|id| *id != broker).collect()
    }

    pub(crate) fn produce_requests(&self, broker: i32) -> u64 {
        self.cluster.requests_to(broker, ApiKey::PRODUCE).unwrap()
    }
}

/// Refreshes the metadata of a client by a lookup of a topic that it has not used yet.
pub(crate) async fn refresh(edited: &Edited, client: &Client, times: usize) {
    for _ in 0..times {
        let topic = format!("other-{}", edited.cluster.topics().len());
        edited.cluster.create_topic_assigned(&topic, &[&[1]]).unwrap();
        client.partition_client(topic, 0).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_without_brokers_is_passed_over() {
    for empty in BROKERS {
        let edited = Edited::start(1);
        let client = edited.client().await;
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        edited.edit(move |by, response| {
            if by == empty {
                response.brokers.clear();
                response.controller_id = -1;
            }
        });
        let (fetched, took) = timed(async {
            let fetch = partition.fetch(1).max_wait(Duration::from_secs(5)).into_future();
            let refresh = refresh(&edited, &client, 10);
            tokio::join!(fetch, refresh).0
        })
        .await;
        assert_eq!((fetched.unwrap().next_offset, took), (1, Duration::from_secs(5)));
        assert_eq!(edited.cluster.requests(ApiKey::FETCH), 1, "its connection was not closed");
        for _ in 0..10 {
            client.list_topics().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_lists_no_brokers_yet_is_waited_for() {
    let edited = Edited::start(1);
    let client = edited.client().await;
    edited.edit(|_, response| response.brokers.clear());
    let opening = tokio::spawn(client.partition_client("wal", 0).into_future());
    let listing = tokio::spawn(async move { client.list_topics().await });
    sleep(Duration::from_secs(10)).await;
    edited.pass();
    let (opened, took) = timed(opening).await;
    opened.unwrap().unwrap().produce(record("a")).await.unwrap();
    listing.await.unwrap().unwrap();
    assert!(took <= MOMENT, "{took:?}");
    // A client that is built has nothing else to use.
    edited.edit(|_, response| response.brokers.clear());
    let error = edited.builder().build().await.unwrap_err();
    assert!(chain(&error).contains("lists no brokers") && error.is_retriable(), "{}", chain(&error));
}

/// Calls that are under way while an odd broker answers metadata requests, and those after them, use the
/// connections that there are.
async fn assert_no_reconnects(
    edited: &Edited,
    edit: impl FnMut(i32, &mut MetadataResponse) + Send + 'static,
) {
    let client = edited.client().await;
    let partitions =
        join_all((0..6).map(async |index| client.partition_client("wal", index).await.unwrap())).await;
    for partition in &partitions {
        partition.produce(record("a")).await.unwrap();
        partition.fetch(0).await.unwrap();
        partition.get_offset(OffsetAt::Latest).await.unwrap();
    }
    // All general connections are open.
    for _ in 0..20 {
        client.list_topics().await.unwrap();
    }
    let before = edited.wire.connections();
    edited.edit(edit);
    let polls = partitions.iter().map(|partition| partition.fetch(1).max_wait(Duration::from_secs(5)));
    let polls = join_all(polls.map(IntoFuture::into_future));
    let ((polls, took), ()) = tokio::join!(timed(polls), refresh(edited, &client, 20));
    assert!(polls.iter().all(Result::is_ok) && took == Duration::from_secs(5), "{took:?} {polls:?}");
    for partition in &partitions {
        assert_eq!(partition.produce(record("b")).await.unwrap().attempts, 1);
        partition.get_offset(OffsetAt::Latest).await.unwrap();
    }
    // Only the partition clients of the new topics have connected.
    let after = edited.wire.connections();
    assert_eq!(after.open, before.open);
    assert!(after.accepted - before.accepted <= 20, "{before:?} {after:?}");
}

#[tokio::test(start_paused = true)]
async fn one_broker_that_knows_less_than_the_others_closes_no_connection() {
    for odd in BROKERS {
        // It lists itself alone, or not even that.
        let edited = Edited::start(6);
        assert_no_reconnects(&edited, move |by, response| {
            if by == odd {
                response.brokers.retain(|broker| broker.node_id == odd);
            }
        })
        .await;
        let edited = Edited::start(6);
        assert_no_reconnects(&edited, move |by, response| {
            if by == odd {
                response.brokers.retain(|broker| broker.node_id != odd);
            }
        })
        .await;
        // It names other addresses.
        let edited = Edited::start(6);
        assert_no_reconnects(&edited, move |by, response| {
            if by == odd {
                response.brokers.iter_mut().for_each(|broker| broker.host = "elsewhere".to_owned());
            }
        })
        .await;
        // It has lost partitions, or their leaders.
        let edited = Edited::start(6);
        assert_no_reconnects(&edited, move |by, response| {
            for topic in response.topics.iter_mut().filter(|topic| by == odd && topic.partitions.len() > 1) {
                topic.partitions.truncate(1);
                topic.partitions[0].leader_id = -1;
            }
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_the_first_broker_does_not_list_is_found_by_another_bootstrap_address() {
    let edited = Edited::start(6);
    // The first bootstrap broker lists itself alone.
    edited.edit(|by, response| {
        if by == 1 {
            response.brokers.retain(|broker| broker.node_id == 1);
        }
    });
    let client = edited.client().await;
    for index in 0..6 {
        let partition = client.partition_client("wal", index).await.unwrap();
        let (produced, took) = timed(partition.produce(record("a"))).await;
        produced.unwrap();
        assert!(took <= MOMENT, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_two_others_no_longer_list_is_left() {
    let edited = Edited::start(6);
    let client = edited.client().await;
    let partitions =
        join_all((0..6).map(async |index| client.partition_client("wal", index).await.unwrap())).await;
    for partition in &partitions {
        partition.produce(record("a")).await.unwrap();
    }
    let connections =
        |broker: i32| edited.wire.connections_to(&edited.cluster.address(broker).unwrap().host).open;
    assert!(connections(3) > 0);
    edited.cluster.stop(3).unwrap();
    refresh(&edited, &client, 3).await;
    let brokers: Vec<_> = client.brokers().into_iter().map(|(id, _)| id).collect();
    assert_eq!((brokers, connections(3)), (vec![1, 2], 0));
    for partition in &partitions {
        partition.produce(record("b")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_that_cannot_be_true_is_passed_over() {
    let twice = |response: &mut MetadataResponse| {
        let mut again = response.brokers[0].clone();
        again.host = "elsewhere".to_owned();
        response.brokers.push(again);
    };
    let topics_twice = |response: &mut MetadataResponse| {
        let mut again = response.topics.clone();
        again.iter_mut().for_each(|topic| topic.partitions.clear());
        response.topics.extend(again);
    };
    let partitions_twice = |response: &mut MetadataResponse| {
        for topic in &mut response.topics {
            let again = MetadataPartition { leader_id: 77, leader_epoch: 99, ..topic.partitions[0].clone() };
            topic.partitions.push(again);
        }
    };
    let unanswered = |response: &mut MetadataResponse| response.topics.clear();
    let edits: [fn(&mut MetadataResponse); 4] = [twice, topics_twice, partitions_twice, unanswered];
    for edit in edits {
        for all in [false, true] {
            let edited = Edited::start(1);
            let client = edited.client().await;
            edited.edit(move |by, response| {
                if all || by != 2 {
                    edit(response);
                }
            });
            let (opened, took) = timed(client.partition_client("wal", 0)).await;
            match all {
                false => drop(opened.unwrap().produce(record("a")).await.unwrap()),
                true => {
                    let error = opened.unwrap_err();
                    assert!(matches!(error.kind(), ErrorKind::MalformedResponse), "{error:?}");
                }
            }
            assert_eq!(took, Duration::ZERO);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn topics_that_were_not_requested_are_not_kept() {
    let edited = Edited::start(1);
    edited.cluster.create_topic("other", 1).unwrap();
    edited.edit(|_, response| {
        let others = response.topics.iter().filter(|topic| topic.name.as_deref() == Some("wal"));
        let others: Vec<_> = others
            .map(|topic| MetadataTopicResponse { name: Some("other".to_owned()), ..topic.clone() })
            .collect();
        response.topics.extend(others);
    });
    let client = edited.client().await;
    client.partition_client("wal", 0).await.unwrap();
    edited.pass();
    let requests = edited.cluster.requests(ApiKey::METADATA);
    let other = client.partition_client("other", 0).await.unwrap();
    assert_eq!(edited.cluster.requests(ApiKey::METADATA), requests + 1);
    assert_eq!(other.topic_id(), edited.cluster.topic_id("other"));
}

#[tokio::test(start_paused = true)]
async fn what_one_broker_made_up_is_dropped_again() {
    let edited = Edited::start(1);
    let client = edited.client().await;
    let controller = client.controller_client().await.unwrap();
    // A controller and thousands of brokers that do not exist.
    edited.edit(|_, response| {
        response.controller_id = 77;
        let broker = |node_id| MetadataBroker {
            node_id,
            host: format!("broker-{node_id}"),
            port: 9092,
            ..Default::default()
        };
        response.brokers.extend((1000..2000).map(broker));
    });
    refresh(&edited, &client, 1).await;
    assert_eq!(client.brokers().len(), 1003);
    edited.pass();
    let (created, took) = timed(controller.create_topic("created", 1, 1)).await;
    created.unwrap();
    assert!(took <= MOMENT, "{took:?}");
    assert_eq!(client.brokers().len(), 3);
}

/// A topic is another one only if two brokers say so.
#[tokio::test(start_paused = true)]
async fn another_topic_id_of_one_broker_ends_no_call() {
    for odd in BROKERS {
        let edited = Edited::start(1);
        let client = edited.client().await;
        let partition = client.partition_client("wal", 0).await.unwrap();
        edited.edit(move |by, response| {
            if by == odd {
                response.topics.iter_mut().for_each(|topic| topic.topic_id = Uuid([9; 16]));
            }
        });
        for _ in 0..20 {
            edited.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
            partition.produce(record("a")).await.unwrap();
            edited.cluster.on(ApiKey::FETCH, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
            partition.fetch(0).await.unwrap();
        }
        edited.pass();
        edited.cluster.recreate_topic("wal").unwrap();
        let error = partition.produce(record("b")).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TopicRecreated { .. }), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_cluster_is_tried_a_few_brokers_at_a_time() {
    const CALLS: usize = 20;
    // Connections to brokers that do not exist never complete, or are refused.
    for (mode, most) in [(WireMode::Unreachable, 30), (WireMode::Passing, 5 * (CALLS + 1))] {
        let edited = Edited::start(1);
        edited.edit(|_, response| {
            let broker = |node_id| MetadataBroker {
                node_id,
                host: format!("broker-{node_id}"),
                port: 9092,
                ..Default::default()
            };
            response.brokers = (1000..21_000).map(broker).collect();
        });
        let client = edited.client().await;
        edited.wire.set(mode);
        for id in BROKERS {
            edited.wire.set_at(&edited.cluster.address(id).unwrap().host, WireMode::Passing);
        }
        let tried = |edited: &Edited| {
            let is_tried = |id: &i32| edited.wire.attempts_to(&format!("broker-{id}")) > 0;
            (1000..21_000).filter(is_tried).count()
        };
        let (topics, took) = timed(client.list_topics()).await;
        topics.unwrap();
        assert!(took <= deadlines().request, "{took:?}");
        assert_eq!(tried(&edited), 5);
        // Calls that are made together try the same few, unless those are known to be down.
        let lists = join_all((0..CALLS).map(|_| client.list_topics().into_future())).await;
        assert!(lists.iter().all(Result::is_ok), "{lists:?}");
        assert!(tried(&edited) <= most, "{}", tried(&edited));
    }
}

/// Makes a response wrong in one of many ways.
fn garble(rng: &mut Rng, by: i32, response: &mut MetadataResponse) {
    let kind = rng.u8(..10);
    match kind {
        0 => response.brokers.clear(),
        1 => response.brokers.retain(|broker| broker.node_id == by),
        2 => response.brokers.retain(|broker| broker.node_id != by),
        3 => response.brokers.iter_mut().for_each(|broker| broker.host = format!("broker-{}", by % 3 + 1)),
        4 => response.topics.clear(),
        5 => response.error_code = ErrorCode::REBOOTSTRAP_REQUIRED,
        _ => {}
    }
    for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        match kind {
            6 => partition.leader_epoch = 0,
            7 => (partition.leader_id, partition.leader_epoch) = (rng.i32(-1..5), i32::MAX),
            8 => partition.leader_id = -1,
            9 => (partition.leader_id, partition.leader_epoch) = (by, partition.leader_epoch + rng.i32(0..3)),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn appends_continue_while_one_broker_makes_up_metadata() {
    for seed in 0..10 {
        let edited = Edited::start(3);
        let mut rng = Rng::with_seed(seed);
        let odd = rng.i32(1..4);
        let mut edits = rng.fork();
        edited.edit(move |by, response| {
            if by == odd {
                garble(&mut edits, by, response);
            }
        });
        // Nothing but metadata names leaders.
        edited.wire.rewrite::<ProduceRequest>(|response| {
            for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
                partition.current_leader = ProduceLeader::default();
            }
        });
        edited.wire.rewrite::<FetchRequest>(|response| {
            for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
                partition.current_leader = FetchLeader::default();
            }
        });
        let client = edited.client_until_built().await;
        let open = |index| client.partition_client("wal", index).into_future();
        let partitions: Vec<_> = join_all((0..3).map(open)).await.into_iter().map(Result::unwrap).collect();
        let mut longest = Duration::ZERO;
        for round in 0..30 {
            for (index, partition) in (0..).zip(&partitions) {
                if rng.bool() {
                    let to = edited.others(edited.cluster.leader("wal", index).unwrap().unwrap())[0];
                    edited.cluster.move_leader("wal", index, to).unwrap();
                }
                let (produced, took) = timed(partition.produce(record(format!("{round}")))).await;
                produced.unwrap();
                longest = longest.max(took);
                let (fetched, took) = timed(partition.fetch(round)).await;
                assert_eq!(fetched.unwrap().next_offset, round + 1);
                longest = longest.max(took);
            }
        }
        assert!(longest <= MOMENT, "seed {seed}: {longest:?}");
        for index in 0..3 {
            assert_eq!(edited.cluster.end_offset("wal", index).unwrap(), 30);
        }
    }
}
