//! C4: a leader epoch is not believed for ever. It goes back once its leader denies it and no broker names a
//! newer one, as after metadata was restored from a backup.

use std::time::Duration;

use kwal_client::{ClientBuilder, OffsetAt};
use kwal_protocol::{
    api::{ApiKey, Versions},
    error_code::ErrorCode,
    messages::{ProduceNodeEndpoint, ProduceRequest},
};
use kwal_testkit::{Dialect, EmbeddedCluster, Fault};
use kwal_transport::{HostPort, memory::MemoryNetwork};

use crate::{
    c4_metadata::{BROKERS, Edited, MOMENT, refresh},
    support::{record, timed},
};

/// The highest leader epoch that the protocol can express.
const LAST: i32 = i32::MAX;

#[tokio::test(start_paused = true)]
async fn a_leader_epoch_that_went_back_is_followed_once_the_leader_denies_it() {
    for builder in [
        EmbeddedCluster::builder(),
        EmbeddedCluster::builder().dialect(Dialect::kafka_3_9()),
        EmbeddedCluster::builder().dialect(Dialect::kafka_2_8()),
    ] {
        let edited = Edited::start_as(builder.topic("wal", 1));
        edited.edit_partitions(None, |partition| partition.leader_epoch += 100);
        let client = edited.client().await;
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        // The metadata is restored from a backup.
        edited.move_leader();
        edited.pass();
        let (produced, took) = timed(partition.produce(record("b"))).await;
        produced.unwrap();
        assert!(took <= MOMENT, "{took:?}");
        let (fetched, took) = timed(partition.fetch(0)).await;
        assert_eq!((fetched.unwrap().next_offset, took), (2, Duration::ZERO));
        // A new partition client learns it as well, also if it is the first that notices.
        edited.edit_partitions(None, |partition| partition.leader_epoch += 200);
        refresh(&edited, &client, 1).await;
        let other = edited.client().await;
        let _first = other.partition_client("wal", 0).await.unwrap();
        edited.move_leader();
        edited.pass();
        let opened = other.partition_client("wal", 0).await.unwrap();
        let (fetched, took) = timed(opened.fetch(0)).await;
        assert_eq!(fetched.unwrap().next_offset, 2);
        assert!(took <= MOMENT, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_went_back_at_the_same_leader_is_followed() {
    let edited = Edited::start(1);
    edited.edit_partitions(None, |partition| partition.leader_epoch += 100);
    let partition = edited.open().await;
    edited.pass();
    // The leader rejects the epoch of the fetch, which it does not know.
    let (fetched, took) = timed(partition.fetch(0).max_wait(Duration::ZERO)).await;
    fetched.unwrap();
    assert!(took <= MOMENT, "{took:?}");
    assert_eq!(timed(partition.get_offset(OffsetAt::Latest)).await.1, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn one_stale_broker_does_not_take_a_leader_epoch_back() {
    for stale in BROKERS {
        let edited = Edited::start(1);
        // So that there are epochs before the one that the client learns.
        for _ in 0..4 {
            edited.move_leader();
        }
        let partition = edited.open().await;
        partition.produce(record("a")).await.unwrap();
        let old = edited.leader();
        let new = edited.move_leader();
        let wrong = BROKERS.into_iter().find(|id| *id != old && *id != new).unwrap();
        edited.edit_partitions(Some(stale), move |partition| {
            (partition.leader_id, partition.leader_epoch) = (wrong, 1);
        });
        // No broker reports the new leader in its response.
        edited.wire.rewrite::<ProduceRequest>(|response| {
            for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
                partition.current_leader = Default::default();
            }
        });
        let (produced, took) = timed(partition.produce(record("b"))).await;
        produced.unwrap();
        assert!(took <= MOMENT, "{took:?}");
        assert_eq!(edited.produce_requests(wrong), 0, "stale: {stale}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_one_broker_made_up_is_not_final() {
    // The leader in the last epoch there is, another broker, one that does not exist, and none.
    for named in [1, 2, 77, -1] {
        for is_refresh in [false, true] {
            let edited = Edited::start_as(EmbeddedCluster::builder());
            edited.cluster.create_topic_assigned("wal", &[&[1, 2, 3]]).unwrap();
            let client = edited.client().await;
            let known = match is_refresh {
                true => Some(client.partition_client("wal", 0).await.unwrap()),
                false => None,
            };
            let mut times = 1;
            edited.edit(move |_, response| {
                for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                    if times > 0 {
                        times -= 1;
                        (partition.leader_id, partition.leader_epoch) = (named, LAST);
                    }
                }
            });
            let (partition, took) = timed(async {
                let partition = match known {
                    Some(known) => {
                        edited.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
                        known.produce(record("a")).await.unwrap();
                        known
                    }
                    None => client.partition_client("wal", 0).await.unwrap(),
                };
                partition.produce(record("a")).await.unwrap();
                partition.fetch(0).await.unwrap();
                partition
            })
            .await;
            assert!(took <= MOMENT, "{named}, refresh: {is_refresh}: {took:?}");
            edited.move_leader();
            let (produced, took) = timed(partition.produce(record("b"))).await;
            produced.unwrap();
            assert!(took <= MOMENT, "{named}, refresh: {is_refresh}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_made_up_in_a_leader_report_is_not_final() {
    // A broker of the cluster, and one that does not exist.
    for exists in [true, false] {
        let edited = Edited::start(1);
        let partition = edited.open().await;
        partition.produce(record("a")).await.unwrap();
        let other = edited.others(edited.leader())[1];
        let address = edited.cluster.address(other).unwrap();
        let (id, host) = if exists { (other, address.host) } else { (77, "nowhere".to_owned()) };
        edited.wire.rewrite::<ProduceRequest>(move |response| {
            for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
                if partition.error_code.is_error() {
                    (partition.current_leader.leader_id, partition.current_leader.leader_epoch) = (id, LAST);
                }
            }
            let (host, port) = (host.clone(), address.port.into());
            response.node_endpoints = vec![ProduceNodeEndpoint { node_id: id, host, port, rack: None }];
        });
        edited.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        let (produced, took) = timed(partition.produce(record("b"))).await;
        produced.unwrap();
        assert!(took <= MOMENT, "{took:?}");
        assert_eq!(edited.produce_requests(other), 0, "it is asked for the last batch first");
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_created_again_is_found_without_topic_ids() {
    let builder = EmbeddedCluster::builder().cap(ApiKey::METADATA, Versions::new(0, 9));
    let edited = Edited::start_as(builder);
    edited.cluster.create_topic_assigned("wal", &[&[1, 2], &[1, 2]]).unwrap();
    let partition = edited.open().await;
    partition.produce(record("a")).await.unwrap();
    for to in [2, 1, 2] {
        edited.cluster.move_leader("wal", 0, to).unwrap();
        partition.produce(record("a")).await.unwrap();
    }
    edited.cluster.delete_topic("wal").unwrap();
    edited.cluster.create_topic_assigned("wal", &[&[3]]).unwrap();
    let opened = edited.client().await.partition_client("wal", 0).await.unwrap();
    opened.produce(record("b")).await.unwrap();
    let (fetched, took) = timed(partition.fetch(0)).await;
    assert_eq!(fetched.unwrap().next_offset, 1);
    assert!(took <= MOMENT, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_was_downgraded_is_used_with_its_own_versions() {
    let network = MemoryNetwork::default();
    let start = |dialect| {
        let builder = EmbeddedCluster::builder().seed(5).topic("wal", 1).dialect(dialect);
        builder.start_in(&network, HostPort::new("one", 9092)).unwrap()
    };
    let new = start(Dialect::kafka_4_3());
    let builder = ClientBuilder::new(["one:9092"]).connector(network.clone()).seed(7);
    let partition = builder.build().await.unwrap().partition_client("wal", 0).await.unwrap();
    partition.fetch(0).max_wait(Duration::ZERO).await.unwrap();
    drop(new);
    let old = start(Dialect::kafka_2_8());
    let (produced, took) = timed(partition.produce(record("a"))).await;
    produced.unwrap();
    partition.fetch(0).await.unwrap();
    assert!(took <= MOMENT, "{took:?}");
    assert_eq!(old.end_offset("wal", 0).unwrap(), 1);
}
