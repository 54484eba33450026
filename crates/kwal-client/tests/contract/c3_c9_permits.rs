//! C3, C9: permits to append, and what they hold.

use std::time::Duration;

use kwal_client::{
    Limits, PartitionClient, Permit,
    error::{ErrorKind, Outcome, Progress},
};
use kwal_protocol::api::ApiKey;
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::time::sleep;

use crate::support::{Wire, broker, large, log, open, record, settle, timed};

const SECOND: Duration = Duration::from_secs(1);
/// What appends may hold: three quarters of the memory of the client.
const MEMORY: usize = 96 << 10;

/// Opens partition 0 with little memory.
async fn open_with_memory(broker: &EmbeddedCluster) -> (Wire, PartitionClient) {
    let wire = Wire::to(broker);
    let client = wire.builder().limits(Limits::default().memory(MEMORY / 3 * 4)).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    (wire, partition)
}

/// Reserves all memory that appends may hold, which has to be free.
async fn reserve_all(partition: &PartitionClient) -> Permit {
    let (permit, took) = timed(partition.reserve(MEMORY)).await;
    assert_eq!(took, Duration::ZERO, "the memory is free");
    permit.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_order_is_that_of_submission_and_not_that_of_reservation() {
    let broker = broker();
    let partition = open(&broker).await;
    let mut permits = Vec::new();
    for _ in 0..3 {
        permits.push(partition.reserve(1_000).await.unwrap());
    }
    let mut appends = Vec::new();
    for value in ["one", "two", "three"] {
        let batch = partition.encode(record(value)).unwrap();
        appends.push(permits.pop().unwrap().submit(batch));
    }
    // Neither by the polls of the results.
    for (offset, append) in appends.into_iter().enumerate().rev() {
        assert_eq!(append.await.unwrap().base_offset, Some(offset as i64));
    }
    assert_eq!(log(&broker), ["one", "two", "three"]);
}

#[tokio::test(start_paused = true)]
async fn an_append_belongs_to_nobody() {
    fn is_static<T: Send + Unpin + 'static>(value: T) -> T {
        value
    }
    let broker = broker();
    let partition = open(&broker).await;
    let batch = partition.encode(record("value")).unwrap();
    let permit = is_static(partition.reserve(batch.size_in_bytes()).await.unwrap());
    drop(partition);
    let append = is_static(permit.submit(batch));
    assert_eq!(tokio::spawn(append).await.unwrap().unwrap().base_offset, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_its_permit_is_not_sent_and_the_permit_is_given_back() {
    let broker = broker();
    let (wire, partition) = open_with_memory(&broker).await;
    let batch = partition.encode(record("value")).unwrap();
    let size = batch.size_in_bytes();
    // More often than there are places.
    for _ in 0..100 {
        let permit = partition.reserve(size - 1).await.unwrap();
        assert_eq!(permit.size(), size - 1);
        let (result, took) = timed(permit.submit(batch.clone())).await;
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
        assert_eq!((error.outcome(), took), (Outcome::NotApplied, Duration::ZERO));
        assert!(error.to_string().contains(&size.to_string()), "{error}");
    }
    drop(reserve_all(&partition).await);
    assert_eq!(wire.count(ApiKey::PRODUCE), 0);
    // Nothing fails because of it.
    partition.reserve(size).await.unwrap().submit(batch).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_permit_for_more_than_a_batch_may_have_is_refused() {
    let broker = broker();
    let limits = Limits::default();
    let partition = open(&broker).await;
    let error = partition.reserve(usize::MAX).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { size: usize::MAX, .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    drop((partition.reserve(0).await.unwrap(), limits));
}

#[tokio::test(start_paused = true)]
async fn what_a_batch_needs_less_is_given_back_when_it_is_submitted() {
    let broker = broker();
    let (_wire, partition) = open_with_memory(&broker).await;
    partition.produce(record("first")).await.unwrap();
    let batch = partition.encode(record("value")).unwrap();
    let permit = reserve_all(&partition).await;
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(5 * SECOND));
    let append = permit.submit(batch);
    // One unit of a kilobyte is left to the batch.
    let (rest, took) = timed(partition.reserve(MEMORY - 1024)).await;
    assert_eq!(took, Duration::ZERO);
    drop(rest.unwrap());
    let (all, took) = timed(partition.reserve(MEMORY)).await;
    assert_eq!(took, 5 * SECOND, "the last kilobyte is given back when the append is completed");
    drop(all.unwrap());
    append.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn memory_is_given_back_after_success_and_failure_also_if_nobody_waits() {
    let broker = broker();
    let (_wire, partition) = open_with_memory(&broker).await;
    let faults = [
        None,
        Some(Fault::LoseReply),
        Some(Fault::Error(kwal_protocol::error_code::ErrorCode::INVALID_RECORD)),
        Some(Fault::ErrorAfter(kwal_protocol::error_code::ErrorCode::UNKNOWN_SERVER_ERROR)),
    ];
    for fault in faults {
        for is_awaited in [true, false] {
            if let Some(fault) = fault {
                broker.on(ApiKey::PRODUCE, fault);
            }
            let batch = partition.encode(large(MEMORY / 2)).unwrap();
            let append = partition.reserve(batch.size_in_bytes()).await.unwrap().submit(batch);
            match is_awaited {
                true => drop(append.await),
                false => drop(append),
            }
            sleep(2 * SECOND).await;
            drop(reserve_all(&partition).await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_64_places_and_a_dropped_permit_gives_its_own_back() {
    let broker = broker();
    let (_wire, partition) = open_with_memory(&broker).await;
    let mut permits = Vec::new();
    for _ in 0..63 {
        permits.push(partition.reserve(1).await.unwrap());
    }
    // The last of them is held by an append.
    broker.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    let batch = partition.encode(record("value")).unwrap();
    let last = partition.reserve(1).await.unwrap();
    assert_eq!(last.size(), 1);
    let error = partition.reserve(1).deadline(SECOND).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::DeadlineExceeded { progress: Progress::Queue, .. }),
        "{error:?}"
    );
    drop((last, permits.pop()));
    let append = partition.reserve(batch.size_in_bytes()).await.unwrap().submit(batch);
    assert!(partition.reserve(1).deadline(SECOND).await.is_ok());
    drop((append, permits));
    broker.clear_faults();
}

#[tokio::test(start_paused = true)]
async fn without_a_place_a_permit_is_waited_for_until_its_deadline() {
    let broker = broker();
    let partition = open(&broker).await;
    let mut permits = Vec::new();
    for _ in 0..64 {
        permits.push(partition.reserve(100).await.unwrap());
    }
    let (result, took) = timed(partition.reserve(100).deadline(3 * SECOND)).await;
    let error = result.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::DeadlineExceeded { progress: Progress::Queue, .. }),
        "{error:?}"
    );
    assert_eq!((error.outcome(), took), (Outcome::NotApplied, 3 * SECOND));
    // Appends without a permit of their own wait as well.
    let (result, took) = timed(partition.produce(record("value")).deadline(3 * SECOND)).await;
    assert_eq!((result.unwrap_err().outcome(), took), (Outcome::NotApplied, 3 * SECOND));
    let waiting = tokio::spawn({
        let partition = partition.clone();
        async move { partition.produce(record("waited")).await }
    });
    settle().await;
    drop(permits.pop());
    waiting.await.unwrap().unwrap();
    assert_eq!(log(&broker), ["waited"]);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_an_append_begins_when_it_is_submitted() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(record("first")).await.unwrap();
    let batch = partition.encode(record("value")).unwrap();
    let permit = partition.reserve(1_000).await.unwrap().deadline(3 * SECOND);
    sleep(60 * SECOND).await;
    broker.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    let append = permit.submit(batch);
    // Also if it is polled only later.
    sleep(SECOND).await;
    let (result, took) = timed(append).await;
    let error = result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
    assert_eq!((error.outcome(), took), (Outcome::Unknown, 2 * SECOND));
    let in_doubt = error.in_doubt().unwrap();
    assert_eq!((in_doubt.sequence, in_doubt.record_count, in_doubt.after), (1, 1, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn the_producer_id_of_a_batch_is_that_of_its_partition_client() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    let batch = partition.encode(record("value")).unwrap();
    for _ in 0..2 {
        let foreign = batch.stamp(4_711, 3, 99);
        partition.reserve(1_000).await.unwrap().submit(foreign).await.unwrap();
    }
    let without = client.partition_client("wal", 0).idempotent(false).await.unwrap();
    without.reserve(1_000).await.unwrap().submit(batch.clone()).await.unwrap();
    let stamps = wire.stamps();
    assert_eq!(stamps[..2], [(stamps[0].0, 0, 0), (stamps[0].0, 0, 1)]);
    assert_ne!(stamps[0].0, 4_711);
    assert_eq!(stamps[2], (-1, -1, -1));
}
