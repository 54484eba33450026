//! Corner cases that no other group has: deadlines out of order, results that outlive their client, extreme
//! settings.

use std::time::Duration;

use kwal_client::{
    Deadlines, Limits, OffsetAt,
    error::{ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::Fault;
use tokio::time::sleep;

use crate::support::{Wire, WireMode, broker, deadlines, log, open_over, polled, record, settle, timed};

const SECOND: Duration = Duration::from_secs(1);

/// C4: an append with less time than the one in flight before it does not wait for that one.
#[tokio::test(start_paused = true)]
async fn a_short_deadline_behind_a_long_one_is_exact() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(5 * SECOND));
    let first = tokio::spawn({
        let partition = partition.clone();
        async move { partition.produce(record("first")).await }
    });
    settle().await;
    // Dropped appends expire as well.
    assert!(polled(partition.produce(record("dropped")).deadline(2 * SECOND), 1).await.is_none());
    let patient = tokio::spawn({
        let partition = partition.clone();
        async move { timed(partition.produce(record("patient"))).await }
    });
    settle().await;
    let (error, took) = timed(partition.produce(record("short")).deadline(SECOND)).await;
    let error = error.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { after: SECOND, .. }), "{error:?}");
    assert_eq!((error.outcome(), took), (Outcome::NotApplied, SECOND));
    // It was submitted before the error of "dropped", which leaves no hole either.
    let (error, _) = patient.await.unwrap();
    let error = error.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    // This one is submitted after both errors.
    partition.produce(record("last")).await.unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(log(&broker), ["first", "last"]);
}

/// What was fetched keeps its bytes, but no connection.
#[tokio::test(start_paused = true)]
async fn fetched_records_keep_no_connection_open() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("a")).await.unwrap();
    let fetched = partition.fetch(0).await.unwrap();
    drop((partition, client));
    settle().await;
    assert_eq!(wire.open().0, 0);
    assert_eq!(fetched.records().count(), 1);
}

/// The topic was created by this call, or by another one: that stays unknown when it cannot be described.
#[tokio::test(start_paused = true)]
async fn ensuring_a_topic_that_may_have_been_created_is_unknown() {
    for is_lost in [true, false] {
        let broker = broker();
        let wire = Wire::to(&broker);
        let controller = wire.client().await.controller_client().await.unwrap();
        match is_lost {
            true => {
                broker.on(ApiKey::CREATE_TOPICS, Fault::LoseReply);
                // Lookups before the attempt, between the attempts, and after them.
                broker.on(ApiKey::METADATA, Fault::Pass);
                broker.on(ApiKey::METADATA, Fault::Pass);
            }
            false => {
                broker.on(ApiKey::METADATA, Fault::Pass);
                broker.on(ApiKey::CREATE_TOPICS, Fault::Error(ErrorCode::TOPIC_ALREADY_EXISTS));
            }
        }
        broker.on_all(ApiKey::METADATA, Fault::Error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
        let error = controller.ensure_topic("new", 1, 1).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED), "{error:?}");
        let outcome = if is_lost { Outcome::Unknown } else { Outcome::NotApplied };
        assert_eq!(error.outcome(), outcome, "{error:?}");
    }
}

/// A deadline that ends an attempt before anything of it was sent leaves no doubt.
#[tokio::test(start_paused = true)]
async fn a_change_that_was_never_sent_is_not_applied() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let controller = client.controller_client().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let error = controller.create_topic("new", 1, 1).deadline(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error:?}");
    wire.set(WireMode::Unreachable);
    broker.disconnect_all();
    settle().await;
    for limit in [SECOND, 3 * deadlines().connect] {
        for error in [
            controller.create_topic("new", 1, 1).deadline(limit).await.map(drop).unwrap_err(),
            controller.delete_topic("wal").deadline(limit).await.unwrap_err(),
            partition.delete_records(0).deadline(limit).await.map(drop).unwrap_err(),
            partition.produce(record("a")).deadline(limit).await.map(drop).unwrap_err(),
        ] {
            assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
            assert_eq!(error.outcome(), Outcome::NotApplied, "{error:?}");
        }
    }
}

/// "No limit" is a time that cannot be added to a clock.
#[tokio::test(start_paused = true)]
async fn deadlines_without_end() {
    let (max, default) = (Duration::MAX, Deadlines::default());
    for deadlines in [
        default.operation(max),
        default.request(max),
        default.connect(max),
        default.unknown_topic(max),
        default.operation(max).request(max).connect(max).unknown_topic(max),
    ] {
        let broker = broker();
        let wire = Wire::to(&broker);
        let client = wire.builder().deadlines(deadlines).build().await.unwrap();
        let opened = tokio::spawn({
            let client = client.clone();
            async move { client.partition_client("later", 0).deadline(max).await.map(drop) }
        });
        sleep(3 * SECOND).await;
        broker.create_topic("later", 1).unwrap();
        opened.await.unwrap().unwrap();
        let controller = client.controller_client().await.unwrap();
        controller.create_topic("new", 1, 1).timeout(max).await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        broker.on(ApiKey::PRODUCE, Fault::LoseReply);
        partition.produce(record("a")).deadline(max).await.unwrap();
        partition.fetch(0).max_wait(max).await.unwrap();
        partition.get_offset(OffsetAt::Latest).await.unwrap();
        partition.fetch(1_000).await.unwrap_err();
        controller.audit("wal").await.unwrap();
    }
}

/// C9: what many small records take besides their payload counts before anything is reserved or encoded.
#[tokio::test(start_paused = true)]
async fn records_without_payload_are_not_free() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let limits = Limits::default().memory(1).batch(10_000);
    let client = wire.builder().limits(limits).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    assert!(polled(partition.produce(record("holds all the memory")), 1).await.is_none());
    let empty = Record::new(None::<&str>, None::<&str>);
    let (error, took) = timed(partition.produce(vec![empty.clone(); 2_000])).await;
    let error = error.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { limit: Some(10_000), .. }), "{error:?}");
    assert_eq!(took, Duration::ZERO);
    partition.produce(vec![empty; 1_000]).await.unwrap();
}
