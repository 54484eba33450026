//! C3, C8: a topic that is created again while batches are in flight. Brokers before Kafka 4.1 know topics in
//! appends by name alone, and append what follows to the new one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kwal_client::{
    Append, OnFailure, OpenPartition, PartitionClient, Produced,
    error::{Error, ErrorKind, Outcome},
};
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::MetadataRequest,
    record::{BatchBuilder, Compression, Headers},
};
use kwal_testkit::{Dialect, EmbeddedCluster, Fault, FaultTarget, wire::Decision};
use tokio::time::Instant;

use crate::support::{Wire, log, record, settle, source, submit};

/// Three brokers that know topics in appends by name, unless the dialect is a newer one.
fn cluster(dialect: Dialect) -> EmbeddedCluster {
    EmbeddedCluster::builder().brokers(3).topic("wal", 1).dialect(dialect).start_in_memory().unwrap()
}

/// Opens the partition, and appends a first batch.
async fn open(wire: &Wire, settings: impl FnOnce(OpenPartition) -> OpenPartition) -> PartitionClient {
    let partition = settings(wire.client().await.partition_client("wal", 0)).await.unwrap();
    partition.produce(record("first")).await.unwrap();
    partition
}

/// Has the next append wait for a replica.
fn hold_back_replica(cluster: &EmbeddedCluster) {
    let leader = cluster.leader("wal", 0).unwrap().unwrap();
    let follower = cluster.replicas("wal", 0).unwrap().into_iter().find(|replica| *replica != leader);
    cluster.set_lag("wal", 0, follower.unwrap(), Duration::from_secs(3600)).unwrap();
}

/// Creates the topic again, and has another producer append more to it than there was.
fn recreate_with_records(cluster: &EmbeddedCluster) {
    cluster.recreate_topic("wal").unwrap();
    let mut batch = BatchBuilder::new(Compression::None);
    for _ in 0..10 {
        batch.push(0, None, Some(b"other"), &Headers::new());
    }
    cluster.append_raw("wal", 0, batch.finish().unwrap().to_bytes()).unwrap();
}

fn assert_recreated(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::TopicRecreated { .. }), "{error:?}");
    assert_eq!((error.outcome(), error.is_retriable()), (Outcome::Unknown, false));
}

/// Checks that the first append failed because the topic was created again, and all others because of it.
fn assert_all_failed(results: Vec<Result<Produced, Error>>) {
    let mut errors = results.into_iter().map(Result::unwrap_err);
    assert_recreated(&errors.next().unwrap());
    for error in errors {
        assert!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), "{error:?}");
        let cause: &Error = source(&error);
        assert!(matches!(cause.kind(), ErrorKind::TopicRecreated { .. }), "{error:?}");
        assert_eq!((error.outcome(), error.is_retriable()), (Outcome::Unknown, false));
    }
}

async fn results(appends: Vec<Append>) -> Vec<Result<Produced, Error>> {
    let mut results = Vec::new();
    for append in appends {
        results.push(append.await);
    }
    results
}

#[tokio::test(start_paused = true)]
async fn what_the_new_topic_acknowledges_is_not_acknowledged() {
    let cluster = cluster(Dialect::kafka_3_9());
    let wire = Wire::to(&cluster);
    let partition = open(&wire, |open| open).await;
    hold_back_replica(&cluster);
    let appends = submit(&partition, &["a", "b", "c", "d"]).await;
    settle().await;
    recreate_with_records(&cluster);
    assert_all_failed(results(appends).await);
    let log = log(&cluster);
    assert_eq!((log.len(), &log[10..]), (13, &["b", "c", "d"].map(str::to_owned)[..]), "on the new topic");
    // And nothing more comes to it.
    let error = partition.produce(record("e")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TopicRecreated { .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert_eq!(cluster.records("wal", 0).unwrap().len(), 13);
}

/// Those that are independent of each other cannot be told apart either.
#[tokio::test(start_paused = true)]
async fn nor_if_failures_stop_nothing() {
    let cluster = cluster(Dialect::kafka_3_9());
    let wire = Wire::to(&cluster);
    let partition = open(&wire, |open| open.on_failure(OnFailure::Continue)).await;
    hold_back_replica(&cluster);
    let appends = submit(&partition, &["a", "b", "c", "d"]).await;
    settle().await;
    recreate_with_records(&cluster);
    for result in results(appends).await {
        let error = result.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
    }
}

/// Brokers that lag still name the former topic. The leader does not know that one any more.
#[tokio::test(start_paused = true)]
async fn metadata_that_lags_confirms_nothing() {
    let cluster = cluster(Dialect::kafka_3_9());
    let wire = Wire::to(&cluster);
    let partition = open(&wire, |open| open).await;
    hold_back_replica(&cluster);
    let appends = submit(&partition, &["a", "b", "c"]).await;
    settle().await;
    let (former, lags_until) = (partition.topic_id().unwrap(), Instant::now() + Duration::from_secs(5));
    wire.edit::<MetadataRequest>(move |response| {
        for topic in response.topics.iter_mut().filter(|_| Instant::now() < lags_until) {
            topic.topic_id = former;
        }
    });
    recreate_with_records(&cluster);
    assert_all_failed(results(appends).await);
    assert!(Instant::now() >= lags_until);
    assert_eq!(cluster.records("wal", 0).unwrap().len(), 12, "nothing is sent again");
}

/// Metadata has named the new topic before the acknowledgement arrives: it may be about either.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_after_metadata_has_named_another_topic_is_in_doubt() {
    for idempotent in [true, false] {
        let cluster = cluster(Dialect::kafka_3_9());
        let wire = Wire::to(&cluster);
        let partition = open(&wire, |open| open.idempotent(idempotent)).await;
        let is_held = Arc::new(AtomicBool::new(true));
        wire.on_response({
            let is_held = Arc::clone(&is_held);
            move |frame| match frame.api == ApiKey::PRODUCE && is_held.load(Ordering::Relaxed) {
                true => Decision::Hold,
                false => Decision::Pass,
            }
        });
        let appends = submit(&partition, &["a"]).await;
        settle().await;
        cluster.recreate_topic("wal").unwrap();
        let error = partition.fetch(0).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TopicRecreated { .. }), "{error:?}");
        is_held.store(false, Ordering::Relaxed);
        wire.release();
        let error = results(appends).await.remove(0).unwrap_err();
        assert_recreated(&error);
        assert_eq!(error.in_doubt().is_some(), idempotent);
    }
}

/// A broker that denies an append after it has made it, as when its leadership moves and comes back.
#[tokio::test(start_paused = true)]
async fn what_the_same_topic_acknowledges_is_acknowledged_once_that_is_certain() {
    for code in [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::NOT_LEADER_OR_FOLLOWER] {
        for (dialect, attempts) in [(Dialect::kafka_3_9(), [2, 2, 2]), (Dialect::kafka_4_3(), [2, 1, 1])] {
            let cluster = cluster(dialect);
            let wire = Wire::to(&cluster);
            let partition = open(&wire, |open| open).await;
            cluster.on(FaultTarget::api(ApiKey::PRODUCE), Fault::ErrorAfter(code));
            let appends = submit(&partition, &["a", "b", "c"]).await;
            let results = results(appends).await.into_iter().map(Result::unwrap);
            let found: Vec<_> = results.map(|produced| (produced.base_offset, produced.attempts)).collect();
            let expected: Vec<_> = (1..).map(Some).zip(attempts).collect();
            assert_eq!(found, expected, "{code}");
            assert_eq!(log(&cluster), ["first", "a", "b", "c"]);
        }
    }
}

/// A broker that has not heard of it still has the former topic. If no other one can be asked, that is no
/// proof that the topic was created once more.
#[tokio::test(start_paused = true)]
async fn a_broker_that_lags_does_not_bring_a_former_topic_back() {
    let cluster = cluster(Dialect::kafka_4_3());
    let wire = Wire::to(&cluster);
    let client = wire.client().await;
    let former = client.partition_client("wal", 0).await.unwrap();
    former.produce(record("a")).await.unwrap();
    cluster.hold_metadata(3).unwrap();
    cluster.recreate_topic("wal").unwrap();
    let error = former.produce(record("a")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TopicRecreated { .. }), "{error:?}");
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("b")).await.unwrap();
    for broker in [1, 2] {
        cluster.kill(broker).unwrap();
    }
    let error = partition.produce(record("c")).deadline(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
    for broker in [1, 2] {
        cluster.restart(broker).unwrap();
    }
    cluster.release_metadata(3).unwrap();
    partition.produce(record("d")).await.unwrap();
    assert_eq!(log(&cluster), ["b", "d"]);
}
