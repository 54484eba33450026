//! C3, C4: a router sends each record to the partition that its caller names, by key or by number, and its
//! calls for all partitions end within one deadline.

use std::time::Duration;

use kwal_batching::producer::{BatchProducer, Router, Stats};
use kwal_client::{
    Client, Deadlines, Limits,
    error::{Error, ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{EmbeddedCluster, Fault, FaultTarget};
use tokio::time::timeout;

use crate::support::{builder, polled, settle, timed};

const PARTITIONS: i32 = 5;

fn cluster() -> EmbeddedCluster {
    let cluster = EmbeddedCluster::builder().topic("wal", PARTITIONS).topic("other", 3);
    cluster.start_in_memory().unwrap()
}

async fn open(cluster: &EmbeddedCluster) -> (Client, Router) {
    let client = builder(cluster).build().await.unwrap();
    let router = Router::open(&client, "wal").await.unwrap();
    (client, router)
}

fn record(value: &str) -> Record {
    Record::new(None::<&str>, value.to_owned())
}

fn values(cluster: &EmbeddedCluster, partition: i32) -> Vec<String> {
    let records = cluster.records("wal", partition).unwrap().into_iter();
    records.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()).collect()
}

/// Returns partition and error of what was not delivered.
fn partitions(undelivered: &[kwal_batching::producer::Undelivered]) -> Vec<(i32, Outcome)> {
    let partition = |error: &Error| error.context().partition.unwrap();
    undelivered.iter().map(|each| (partition(&each.error), each.error.outcome())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_key_has_the_partition_of_javas_producer_and_keeps_its_order() {
    let cluster = cluster();
    let (_client, router) = open(&cluster).await;
    // By Kafka's own class: see the vectors of the hash.
    for (key, partition) in [("account", 1), ("account-17", 4), ("größer", 2), ("21", 0), ("", 1)] {
        for number in 0..3 {
            let producer = router.for_key(key.as_bytes());
            assert_eq!(producer.partition().partition(), partition, "{key:?}");
            let appended = producer.produce(Record::new(key, format!("{key} {number}"))).await.unwrap();
            assert_eq!(appended.batch.base_offset, appended.offset);
        }
    }
    let of = |keys: &[&str]| -> Vec<_> {
        keys.iter().flat_map(|key| (0..3).map(move |number| format!("{key} {number}"))).collect()
    };
    assert_eq!(values(&cluster, 0), of(&["21"]));
    assert_eq!(values(&cluster, 1), of(&["account", ""]));
    assert_eq!(values(&cluster, 2), of(&["größer"]));
    assert_eq!(values(&cluster, 3), of(&[]));
    assert_eq!(values(&cluster, 4), of(&["account-17"]));
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_chosen_by_its_number() {
    let cluster = cluster();
    let (_client, router) = open(&cluster).await;
    for partition in 0..PARTITIONS {
        let producer = router.partition(partition).unwrap();
        // Whatever key it has.
        producer.produce(Record::new("account", partition.to_string())).await.unwrap();
        assert_eq!(values(&cluster, partition), [partition.to_string()]);
    }
    for none in [-1, PARTITIONS, i32::MAX, i32::MIN] {
        assert!(router.partition(none).is_none());
    }
    let numbers = router.producers().iter().map(|producer| producer.partition().partition());
    assert!(numbers.eq(0..PARTITIONS));
    let shown = format!("{router:?}");
    assert!(
        shown.starts_with("Router { topic: \"wal\", partitions: 5, stats: Stats { appended: 5, "),
        "{shown}"
    );
}

#[tokio::test(start_paused = true)]
async fn producers_that_are_not_those_of_all_partitions_in_order_are_an_error() {
    let cluster = cluster();
    let client = builder(&cluster).build().await.unwrap();
    let in_order = "a router takes the producers of all partitions of a topic, in order: ";
    let cases: [(&[(&str, i32)], &str); 6] = [
        (&[], "a router takes the producers of a topic, and there are none"),
        (&[("wal", 1)], "that of wal/0 is expected, and not that of wal/1"),
        (&[("wal", 0), ("wal", 0)], "that of wal/1 is expected, and not that of wal/0"),
        (&[("wal", 0), ("wal", 2), ("wal", 1)], "that of wal/1 is expected, and not that of wal/2"),
        (&[("wal", 0), ("wal", 1), ("wal", 3)], "that of wal/2 is expected, and not that of wal/3"),
        (&[("wal", 0), ("other", 1)], "that of wal/1 is expected, and not that of other/1"),
    ];
    for (given, text) in cases {
        let mut producers = Vec::new();
        for (topic, partition) in given {
            producers.push(BatchProducer::new(client.partition_client(*topic, *partition).await.unwrap()));
        }
        let error = Router::new(producers).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
        let shown = error.to_string();
        assert_eq!(shown.strip_prefix(in_order).unwrap_or(&shown), text);
    }

    // A topic that was deleted and created again is another one.
    let first = BatchProducer::new(client.partition_client("wal", 0).await.unwrap());
    cluster.recreate_topic("wal").unwrap();
    let later = builder(&cluster).build().await.unwrap();
    let second = BatchProducer::new(later.partition_client("wal", 1).await.unwrap());
    let error = Router::new([first, second]).unwrap_err();
    let expected = "a router takes the producers of one topic: that of wal/1 was opened before or after the topic was deleted and created again";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test(start_paused = true)]
async fn it_opens_all_partitions_of_a_topic_and_no_others() {
    let cluster = cluster();
    let client = builder(&cluster).build().await.unwrap();
    // What the client knows already may be outdated.
    let before = Router::open(&client, "other").await.unwrap();
    assert_eq!(before.producers().len(), 3);
    client.controller_client().await.unwrap().create_partitions("other", 4).await.unwrap();
    settle().await;
    let after = Router::open(&client, "other").await.unwrap();
    assert_eq!((before.producers().len(), after.producers().len()), (3, 4));

    // One request for their number, and one for their leaders.
    let requests = cluster.requests(ApiKey::METADATA);
    assert_eq!(Router::open(&client, "wal").await.unwrap().producers().len(), 5);
    assert_eq!(cluster.requests(ApiKey::METADATA) - requests, 2);

    let error = Router::open(&client, "wall").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnknownTopic { .. }), "{error}");
    let error = Router::open(&client, "a wall").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    assert!(!cluster.topics().contains(&"wall".to_owned()));

    cluster.pause(cluster.brokers()[0]).unwrap();
    let deadline = Duration::from_secs(3);
    let (result, took) = timed(Router::open(&client, "wal").deadline(deadline)).await;
    let error = result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error}");
    assert_eq!(took, deadline);
}

/// The number of partitions is learnt in time, and the partitions are not.
#[tokio::test(start_paused = true)]
async fn opening_ends_at_one_deadline() {
    for deadline in [None, Some(Duration::from_secs(4))] {
        let cluster = cluster();
        let deadlines = Deadlines::default().operation(Duration::from_secs(5));
        let client = builder(&cluster).deadlines(deadlines).build().await.unwrap();
        cluster.on(ApiKey::METADATA, Fault::DelayReply(Duration::from_secs(3)));
        cluster.on_all(FaultTarget::api(ApiKey::METADATA), Fault::BlackHole);
        let open = Router::open(&client, "wal");
        let open = if let Some(deadline) = deadline { open.deadline(deadline) } else { open };
        let (result, took) = timed(open).await;
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error}");
        assert_eq!(took, deadline.unwrap_or(Duration::from_secs(5)));
        assert_eq!(cluster.faults_left(), 1, "the first request was answered");
    }
}

#[tokio::test(start_paused = true)]
async fn flush_waits_for_all_partitions_at_the_same_time() {
    let cluster = cluster();
    let (_client, router) = open(&cluster).await;
    cluster.on_all(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_millis(300)));
    let mut acks = Vec::new();
    for producer in router.producers() {
        acks.push(producer.reserve().await.unwrap().send(record("a")));
        acks.push(producer.reserve().await.unwrap().send(record("b")));
    }
    // Of each partition the first one is in flight, and the second one gathers.
    assert_eq!((router.stats().in_flight, router.stats().gathering), (5, 5));
    let (result, took) = timed(router.flush()).await;
    result.unwrap();
    assert!((Duration::from_millis(300)..Duration::from_millis(900)).contains(&took), "{took:?}");
    for ack in acks {
        polled(ack, 1).await.expect("it has ended").unwrap();
    }
    let Stats { appended, batches, records, most_records, in_flight, gathering, .. } = router.stats();
    assert_eq!((appended, batches, records, most_records, in_flight, gathering), (10, 10, 10, 1, 0, 0));
    assert_eq!(router.stats().wire.count, 10);

    // With nothing to wait for.
    assert_eq!(timed(router.flush()).await.1, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn flush_returns_the_first_error_when_all_partitions_have_ended() {
    let cluster = cluster();
    let (_client, router) = open(&cluster).await;
    let produce = || FaultTarget::api(ApiKey::PRODUCE);
    cluster.on_all(produce().partition("wal", 4), Fault::Error(ErrorCode::INVALID_RECORD));
    cluster.on_all(produce().partition("wal", 2), Fault::Error(ErrorCode::INVALID_RECORD));
    cluster.on_all(produce().partition("wal", 3), Fault::DelayReply(Duration::from_millis(500)));
    let mut acks = Vec::new();
    for producer in router.producers() {
        acks.push(producer.reserve().await.unwrap().send(record("a")));
    }
    let (result, took) = timed(router.flush()).await;
    let error = result.unwrap_err();
    assert_eq!((error.context().partition, error.outcome()), (Some(2), Outcome::NotApplied), "{error}");
    assert!(took >= Duration::from_millis(500), "{took:?}");
    for (partition, ack) in acks.into_iter().enumerate() {
        let ended = polled(ack, 1).await.expect("it has ended");
        assert_eq!(ended.is_err(), [2, 4].contains(&partition), "{partition}: {ended:?}");
    }
    assert_eq!((router.stats().appended, router.stats().failed), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn flush_ends_at_one_deadline() {
    let cluster = cluster();
    let (_client, router) = open(&cluster).await;
    cluster.on_all(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(9)));
    for producer in router.producers() {
        drop(producer.reserve().await.unwrap().send(record("a")));
    }
    let (result, took) = timed(router.flush().deadline(Duration::from_secs(2))).await;
    let error = result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error}");
    assert_eq!((error.outcome(), took), (Outcome::Unknown, Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn close_ends_all_partitions_at_one_deadline_and_returns_what_is_not_on_the_log() {
    let cluster = cluster();
    let (_client, router) = open(&cluster).await;
    for producer in router.producers() {
        producer.produce(record("before")).await.unwrap();
    }
    cluster.pause(cluster.brokers()[0]).unwrap();
    for partition in [3, 1] {
        let producer = router.partition(partition).unwrap();
        drop(producer.reserve().await.unwrap().send(record("in flight")));
        drop(producer.reserve().await.unwrap().send(record("gathers")));
    }
    let slot = router.partition(0).unwrap().reserve().await.unwrap();
    let other = router.clone();
    let (undelivered, took) = timed(router.close().deadline(Duration::from_secs(2))).await;
    assert_eq!(took, Duration::from_secs(2));
    let expected =
        [(1, Outcome::Unknown), (1, Outcome::NotApplied), (3, Outcome::Unknown), (3, Outcome::NotApplied)];
    assert_eq!(partitions(&undelivered), expected);
    let lost = undelivered.iter().flat_map(|each| each.records()).map(|record| record.value.unwrap());
    assert_eq!(lost.collect::<Vec<_>>(), ["in flight", "gathers", "in flight", "gathers"]);

    // Nothing more is accepted, by any handle.
    let error = slot.send(record("late")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
    for producer in other.producers() {
        let error = producer.produce(record("late")).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn close_that_is_dropped_accepts_nothing_more_and_can_be_called_again() {
    let cluster = cluster();
    let (_client, router) = open(&cluster).await;
    cluster.on_all(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_millis(300)));
    for producer in router.producers() {
        drop(producer.reserve().await.unwrap().send(record("a")));
    }
    assert!(polled(router.close(), 1).await.is_none());
    for producer in router.producers() {
        assert!(matches!(producer.produce(record("b")).await.unwrap_err().kind(), ErrorKind::Closed));
    }
    assert!(router.close().await.is_empty());
    for partition in 0..PARTITIONS {
        assert_eq!(values(&cluster, partition), ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_fails_or_waits_does_not_hold_up_the_others() {
    let cluster = cluster();
    let (_client, router) = open(&cluster).await;
    let slow = FaultTarget::api(ApiKey::PRODUCE).partition("wal", 1);
    cluster.on_all(slow, Fault::DelayReply(Duration::from_secs(5)));
    let waits = router.partition(1).unwrap().reserve().await.unwrap().send(record("slow"));
    for partition in [0, 2, 3, 4] {
        let produced = timed(router.partition(partition).unwrap().produce(record("fast"))).await;
        produced.0.unwrap();
        assert!(produced.1 < Duration::from_secs(1), "{:?}", produced.1);
    }
    assert_eq!(timed(waits).await.0.unwrap().offset, Some(0));
}

#[tokio::test(start_paused = true)]
async fn the_partitions_share_one_budget() {
    let cluster = cluster();
    // Appends may hold three quarters of it.
    let limits = Limits::default().memory(2 << 20).batch(1 << 20);
    let deadlines = Deadlines::default();
    let client = builder(&cluster).limits(limits).deadlines(deadlines).build().await.unwrap();
    let router = Router::open(&client, "wal").await.unwrap();
    let slot = router.partition(0).unwrap().reserve().bytes(1_000_000).await.unwrap();
    let other = router.partition(4).unwrap();
    let waits = other.reserve().bytes(1_000_000).into_future();
    tokio::pin!(waits);
    let early = timeout(Duration::from_secs(1), &mut waits).await;
    assert!(early.is_err(), "there is no memory");
    assert_eq!((router.stats().waiting, router.stats().waited), (1, 1));
    drop(slot);
    waits.await.unwrap().send(record("a")).await.unwrap();
    assert_eq!((router.stats().waiting, values(&cluster, 4)), (0, vec!["a".to_owned()]));
}
