//! C4: the end of partition clients and clients.

use std::time::Duration;

use futures::future::join_all;
use kwal_client::{
    PartitionClient,
    error::{Error, ErrorKind, Outcome},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::Fault;

use crate::support::{HOUR, Wire, broker, log, open, open_over, record, settle, submit, timed};

const SECOND: Duration = Duration::from_secs(1);

#[track_caller]
fn assert_closed<T>(result: Result<T, Error>) {
    let Err(error) = result else { panic!("it is not closed") };
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

/// Asserts that nothing can be appended.
async fn assert_nothing_is_accepted(partition: &PartitionClient) {
    let ((), took) = timed(async {
        assert_closed(partition.produce(record("late")).await);
        assert_closed(partition.reserve(100).await);
    })
    .await;
    assert_eq!(took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_what_was_submitted_and_takes_nothing_more() {
    let broker = broker();
    let partition = open(&broker).await;
    let clone = partition.clone();
    partition.produce(record("first")).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(5 * SECOND));
    let appends = submit(&partition, &["0", "1", "2", "3", "4", "5", "6", "7"]).await;
    let batch = partition.encode(record("late")).unwrap();
    let permit = clone.reserve(1_000).await.unwrap();
    let closing = tokio::spawn({
        let partition = partition.clone();
        async move { timed(partition.close()).await }
    });
    settle().await;
    // From the first poll on.
    assert_nothing_is_accepted(&clone).await;
    assert_closed(permit.submit(batch).await);
    let (errors, took) = closing.await.unwrap();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(took, 5 * SECOND);
    for append in appends {
        append.await.unwrap();
    }
    assert_eq!(log(&broker), ["first", "0", "1", "2", "3", "4", "5", "6", "7"]);
    assert_nothing_is_accepted(&partition).await;
    // Reads go on.
    assert_eq!(clone.fetch(0).await.unwrap().records().count(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_used_after_the_end_fails() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(record("first")).await.unwrap();
    let permit = partition.reserve(1_000).await.unwrap();
    let batch = partition.encode(record("late")).unwrap();
    // A permit that is not used is nothing to wait for.
    let (errors, took) = timed(partition.close()).await;
    assert!(errors.is_empty() && took.is_zero(), "{errors:?} {took:?}");
    assert_closed(permit.submit(batch).await);
    assert_eq!(log(&broker), ["first"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_at_the_deadline_ends_with_its_outcome() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("first")).await.unwrap();
    broker.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    let appends = submit(&partition, &["0", "1", "2", "3", "4", "5", "6"]).await;
    let (errors, took) = timed(partition.close().deadline(3 * SECOND)).await;
    assert_eq!((errors.len(), took), (7, 3 * SECOND));
    for (number, error) in errors.iter().enumerate() {
        // Five were sent.
        let outcome = if number < 5 { Outcome::Unknown } else { Outcome::NotApplied };
        assert_eq!(
            (error.outcome(), error.in_doubt().is_some()),
            (outcome, number < 5),
            "{number}: {error:?}"
        );
        if let Some(in_doubt) = error.in_doubt() {
            assert_eq!(in_doubt.sequence, 1 + number as i32);
        }
    }
    // Each caller gets its own.
    let results = join_all(appends).await;
    for (result, error) in results.iter().zip(&errors) {
        let own = result.as_ref().unwrap_err();
        assert_eq!((own.to_string(), own.in_doubt()), (error.to_string(), error.in_doubt()));
    }
    let (again, took) = timed(partition.close()).await;
    assert_eq!((again.len(), took), (7, Duration::ZERO), "the same once more");
    assert_eq!(log(&broker), ["first"]);
}

#[tokio::test(start_paused = true)]
async fn errors_of_appends_that_nobody_waits_for_are_returned() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(record("first")).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    drop(submit(&partition, &["0", "1", "2"]).await);
    let errors = partition.close().await;
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert_eq!(errors[0].code(), Some(ErrorCode::INVALID_RECORD));
    assert!(matches!(errors[1].kind(), ErrorKind::PrecedingAppendFailed), "{errors:?}");
    assert_eq!(log(&broker), ["first", "0"]);
}

#[tokio::test(start_paused = true)]
async fn errors_that_were_returned_before_are_not_returned_again() {
    let broker = broker();
    let partition = open(&broker).await;
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    partition.produce(record("bad")).await.unwrap_err();
    partition.produce(record("good")).await.unwrap();
    assert!(partition.close().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn callers_that_wait_for_a_place_end_at_once() {
    let broker = broker();
    let partition = open(&broker).await;
    let mut permits = Vec::new();
    for _ in 0..64 {
        permits.push(partition.reserve(100).await.unwrap());
    }
    let wait = |what: &'static str| {
        let partition = partition.clone();
        tokio::spawn(async move {
            match what {
                "reserve" => partition.reserve(100).await.map(drop),
                _ => partition.produce(record("waits")).await.map(drop),
            }
        })
    };
    let waiting = [wait("reserve"), wait("produce"), wait("produce")];
    settle().await;
    let (errors, took) = timed(partition.close()).await;
    assert!(errors.is_empty() && took.is_zero(), "{errors:?}");
    for waiting in waiting {
        let (result, took) = timed(waiting).await;
        assert_closed(result.unwrap());
        assert_eq!(took, Duration::ZERO);
    }
    assert!(log(&broker).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_append_may_still_be_sent_again_while_the_end_is_awaited() {
    for fault in [Fault::LoseReply, Fault::Drop, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER)] {
        let broker = broker();
        let partition = open(&broker).await;
        broker.on(ApiKey::PRODUCE, fault);
        let appends = submit(&partition, &["0", "1", "2"]).await;
        assert!(partition.close().await.is_empty(), "{fault:?}");
        for append in appends {
            append.await.unwrap();
        }
        assert_eq!(log(&broker), ["0", "1", "2"], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_producer_id_is_free_for_another_partition_client_afterwards() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let one = client.partition_client("wal", 0).await.unwrap();
    one.produce(record("one")).await.unwrap();
    one.close().await;
    let other = client.partition_client("wal", 0).await.unwrap();
    other.produce(record("other")).await.unwrap();
    let stamps = wire.stamps();
    assert_eq!(stamps[1], (stamps[0].0, 0, 1), "{stamps:?}");
    assert_eq!(wire.count(ApiKey::INIT_PRODUCER_ID), 1);
    assert_nothing_is_accepted(&one).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_client_is_that_of_its_partition_clients_and_connections() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let mut open = Vec::new();
    for partition in 0..2 {
        let partition = client.partition_client("wal", partition).await.unwrap();
        partition.produce(record("first")).await.unwrap();
        partition.fetch(0).await.unwrap();
        open.push(partition);
    }
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(5 * SECOND));
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(5 * SECOND));
    let mut appends = submit(&open[0], &["0"]).await;
    appends.extend(submit(&open[1], &["1"]).await);
    let (errors, took) = timed(client.close()).await;
    assert!(errors.is_empty(), "{errors:?}");
    // At the same time.
    assert_eq!(took, 5 * SECOND);
    for append in appends {
        append.await.unwrap();
    }
    for partition in &open {
        assert_nothing_is_accepted(partition).await;
        assert_closed(partition.fetch(0).await);
    }
    assert_closed(client.partition_client("wal", 0).await);
    assert_closed(client.list_topics().await);
    settle().await;
    assert_eq!(wire.open().0, 0, "connections are open");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_client_returns_what_was_not_done() {
    let broker = broker();
    let client = Wire::to(&broker).client().await;
    let mut open = Vec::new();
    for partition in 0..2 {
        let partition = client.partition_client("wal", partition).await.unwrap();
        partition.produce(record("first")).await.unwrap();
        open.push(partition);
    }
    broker.on_all(ApiKey::PRODUCE, Fault::DelayRequest(HOUR));
    let mut appends = submit(&open[0], &["0", "1"]).await;
    appends.extend(submit(&open[1], &["2"]).await);
    let (errors, took) = timed(client.close().deadline(3 * SECOND)).await;
    assert_eq!((errors.len(), took), (3, 3 * SECOND), "{errors:?}");
    let handles: Vec<_> = errors.iter().map(|error| error.in_doubt().unwrap()).collect();
    let found: Vec<_> = handles.iter().map(|handle| (handle.partition, handle.sequence)).collect();
    assert_eq!(found, [(0, 1), (0, 2), (1, 1)]);
    for append in appends {
        append.await.unwrap_err();
    }
}
