//! C4: the error of a deadline says how far the call got, with which broker, and why not further before.

use std::time::Duration;

use kwal_client::{
    Limits,
    error::{Error, ErrorKind, Outcome, Progress},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{EmbeddedCluster, Fault};

use crate::support::{Wire, WireMode, broker, large, open, open_over, record, settle};

const LIMIT: Duration = Duration::from_secs(2);

#[track_caller]
fn progress(error: &Error) -> Progress {
    match error.kind() {
        ErrorKind::DeadlineExceeded { after: LIMIT, progress, .. } => *progress,
        _ => panic!("{error}"),
    }
}

/// Asserts how far a call got, with which broker, and what it had failed with before.
#[track_caller]
fn assert_stood(error: &Error, expected: Progress, broker: Option<&str>, before: Option<&str>) {
    assert_eq!(progress(error), expected, "{error}");
    assert_eq!(error.context().broker.as_deref(), broker, "{error}");
    let text = error.to_string();
    assert!(text.contains(&expected.to_string()), "{text}");
    match before {
        Some(before) => assert!(text.contains(before), "{text}"),
        None => assert!(error.cause().is_none(), "{text}"),
    }
}

const BROKER: &str = "broker 1 (broker-1:9092)";

#[tokio::test(start_paused = true)]
async fn an_append_into_a_black_hole() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("first")).await.unwrap();
    wire.set(WireMode::Deaf);
    let error = partition.produce(record("a")).deadline(LIMIT).await.unwrap_err();
    assert_stood(&error, Progress::Response, Some(BROKER), None);
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(
        error.to_string(),
        "Produce of wal/0 at broker 1 (broker-1:9092): not completed within 2s: it was waiting for the response; outcome \
         unknown: the batch may be on the log or may still reach it, so resolve it before appending it again; in doubt: \
         producer id 1000, epoch 0, sequence 1, 1 record, after offset 0"
    );
    // The connection is the same, and its queue does not move.
    let error = partition.produce(record("b")).deadline(LIMIT).await.unwrap_err();
    assert_stood(&error, Progress::Queue, None, None);
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

#[tokio::test(start_paused = true)]
async fn an_append_after_a_connection_was_lost_into_a_black_hole() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    broker.on(ApiKey::PRODUCE, Fault::BlackHole);
    let error = partition.produce(record("a")).deadline(LIMIT).await.unwrap_err();
    assert_stood(
        &error,
        Progress::Response,
        Some(BROKER),
        Some("; the last attempt failed: NOT_ENOUGH_REPLICAS (19)"),
    );
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_opens_a_connection() {
    let cluster = EmbeddedCluster::builder().brokers(2).topic("wal", 2).start_in_memory().unwrap();
    let wire = Wire::to(&cluster);
    let client = wire.client().await;
    let leader = cluster.leader("wal", 0).unwrap().unwrap();
    let name = format!("broker {leader} (broker-{leader}:9092)");
    wire.set_at(&format!("broker-{leader}"), WireMode::Unreachable);
    let partition = client.partition_client("wal", 0).deadline(LIMIT).await.unwrap();
    let error = partition.get_offset(kwal_client::OffsetAt::Latest).deadline(LIMIT).await.unwrap_err();
    assert_stood(&error, Progress::Connection, Some(&name), None);
    let error = partition.produce(record("a")).deadline(LIMIT).await.unwrap_err();
    assert_stood(&error, Progress::Connection, Some(&name), None);
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_looks_up_a_leader() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    wire.set(WireMode::Unreachable);
    let error = client.partition_client("wal", 0).deadline(LIMIT).await.unwrap_err();
    assert_eq!(progress(&error), Progress::Lookup, "{error}");
    assert!(error.context().broker.as_deref().unwrap().contains(BROKER), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_append_that_gets_no_producer_id() {
    let broker = broker();
    let partition = open(&broker).await;
    for _ in 0..10 {
        broker.on(ApiKey::INIT_PRODUCER_ID, Fault::BlackHole);
    }
    let error = partition.produce(record("a")).deadline(LIMIT).await.unwrap_err();
    assert_stood(&error, Progress::ProducerId, Some(BROKER), None);
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_not_submitted() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let limits = Limits::default().memory(100_000);
    let client = wire.builder().limits(limits).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    wire.set(WireMode::Deaf);
    let holds = tokio::spawn({
        let partition = partition.clone();
        async move { partition.produce(large(60_000)).await }
    });
    settle().await;
    let (memory, queue) = tokio::join!(
        partition.produce(large(60_000)).deadline(LIMIT).into_future(),
        partition.produce(large(60_000)).deadline(LIMIT).into_future(),
    );
    assert_stood(&memory.unwrap_err(), Progress::Memory, None, None);
    assert_stood(&queue.unwrap_err(), Progress::Queue, None, None);
    holds.abort();
}

#[tokio::test(start_paused = true)]
async fn a_call_without_time_for_another_attempt() {
    let broker = broker();
    let partition = open(&broker).await;
    for _ in 0..1_000 {
        broker.on(ApiKey::LIST_OFFSETS, Fault::Error(ErrorCode::LEADER_NOT_AVAILABLE));
    }
    let error = partition.get_offset(kwal_client::OffsetAt::Latest).deadline(LIMIT).await.unwrap_err();
    assert_stood(
        &error,
        Progress::Pause,
        Some(BROKER),
        Some("the last attempt failed: LEADER_NOT_AVAILABLE (5)"),
    );
}
