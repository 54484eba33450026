//! C2, C4 and C5: what becomes of appends, permits and producer ids when a client is closed.

use std::{
    future::IntoFuture,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use kwal_client::{
    Append, Limits, PartitionClient, Permit,
    error::{Error, ErrorKind, Outcome},
};
use kwal_protocol::{api::ApiKey, record::EncodedBatch};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::{
    runtime::{self, Runtime},
    time::Instant,
};

use crate::support::{Wire, WireMode, broker, log, open, open_over, polled, record, settle, timed};

const SECOND: Duration = Duration::from_secs(1);

/// Encodes a record and reserves what it needs.
async fn permit(partition: &PartitionClient, value: &str) -> (Permit, EncodedBatch) {
    let batch = partition.encode(record(value)).unwrap();
    (partition.reserve(batch.size_in_bytes()).await.unwrap(), batch)
}

fn is_closed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Closed) && error.outcome() == Outcome::NotApplied
}

#[tokio::test(start_paused = true)]
async fn a_permit_fails_from_the_moment_on_in_which_its_client_is_closed() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    let ((first, b), (second, c), (third, d)) =
        (permit(&partition, "b").await, permit(&partition, "c").await, permit(&partition, "d").await);
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(5 * SECOND));
    let append = first.submit(b);
    settle().await;
    // Also if nobody waits for it any more.
    assert!(polled(partition.close(), 1).await.is_none());
    let (error, took) = timed(second.submit(c)).await;
    assert!(is_closed(error.as_ref().unwrap_err()) && took.is_zero(), "{error:?} {took:?}");
    let closing = tokio::spawn({
        let partition = partition.clone();
        async move { partition.close().await }
    });
    settle().await;
    let error = third.submit(d).await.unwrap_err();
    assert!(is_closed(&error), "{error:?}");
    append.await.unwrap();
    // They were not accepted, so they are no appends that failed.
    assert!(closing.await.unwrap().is_empty());
    assert_eq!(log(&broker), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn each_of_several_ends_returns_what_failed() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("a")).await.unwrap();
    wire.set(WireMode::Deaf);
    let (permit, batch) = permit(&partition, "b").await;
    let append = permit.submit(batch);
    let begun = Instant::now();
    let (long, short, all) = tokio::join!(
        partition.close().into_future(),
        partition.close().deadline(SECOND).into_future(),
        async { client.close().deadline(2 * SECOND).await }
    );
    // The first one that ends it ends it for all.
    assert_eq!(begun.elapsed(), SECOND);
    for failed in [&long, &short, &all] {
        assert_eq!(failed.len(), 1);
        assert!(failed[0].outcome() == Outcome::Unknown && failed[0].in_doubt().is_some());
    }
    let error = append.await.unwrap_err();
    assert_eq!(error.in_doubt(), short[0].in_doubt());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_client_ends_with_its_runtime() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let runtime = multi_thread();
    let client = wire.builder().runtime(runtime.handle().clone()).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("a")).await.unwrap();
    wire.set(WireMode::Deaf);
    let (permit, batch) = permit(&partition, "b").await;
    let append = permit.submit(batch);
    let closing = tokio::spawn({
        let partition = partition.clone();
        async move { timed(partition.close().deadline(30 * SECOND)).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    runtime.shutdown_background();
    let error = append.await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    let (failed, took) = closing.await.unwrap();
    assert!(failed.len() == 1 && took < 10 * SECOND, "{failed:?} {took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_memory_ends_when_its_client_is_closed() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let limits = Limits::default().memory(1 << 20);
    let client = wire.builder().limits(limits).build().await.unwrap();
    let open = async |index| client.partition_client("wal", index).await.unwrap();
    let (partition, other) = (open(0).await, open(1).await);
    let all = other.reserve(1 << 20).await.unwrap();
    let waiting: Vec<_> = (0..3)
        .map(|i| {
            let partition = partition.clone();
            tokio::spawn(async move { partition.produce(record(i.to_string())).await })
        })
        .collect();
    settle().await;
    let begun = Instant::now();
    assert!(client.close().await.is_empty());
    for waiting in waiting {
        assert!(is_closed(&waiting.await.unwrap().unwrap_err()));
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    drop(all);
}

/// What waits for a place on one partition leaves the memory to the others.
#[tokio::test(start_paused = true)]
async fn permits_that_wait_for_a_place_hold_no_memory() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let limits = Limits::default().memory(1 << 20);
    let client = wire.builder().limits(limits).build().await.unwrap();
    let open = async |index| client.partition_client("wal", index).await.unwrap();
    let (partition, other) = (open(0).await, open(1).await);
    let mut permits = Vec::new();
    for _ in 0..64 {
        permits.push(partition.reserve(1).await.unwrap());
    }
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let partition = partition.clone();
            tokio::spawn(async move { drop(partition.reserve(100_000).await.unwrap()) })
        })
        .collect();
    settle().await;
    other.produce(record("a")).deadline(SECOND).await.unwrap();
    drop(permits);
    for waiting in waiting {
        waiting.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_closed_gives_its_producer_id_back() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    for i in 0..5 {
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record(i.to_string())).await.unwrap();
        assert!(partition.close().await.is_empty());
    }
    assert_eq!(broker.requests(ApiKey::INIT_PRODUCER_ID), 1);
    assert_eq!(log(&broker), ["0", "1", "2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_with_an_append_under_way_gives_its_producer_id_back() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    for i in 0..5 {
        let partition = client.partition_client("wal", 0).await.unwrap();
        let (permit, batch) = permit(&partition, &i.to_string()).await;
        broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
        let append = permit.submit(batch);
        drop(partition);
        append.await.unwrap();
        settle().await;
    }
    assert_eq!(broker.requests(ApiKey::INIT_PRODUCER_ID), 1);
}

/// Awaits a future on this thread, without any runtime.
fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    struct Unpark(std::thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Arc::new(Unpark(std::thread::current())).into();
    loop {
        match Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn multi_thread() -> Runtime {
    runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Submits an append that is answered a moment later.
fn submit(runtime: &Runtime, broker: &EmbeddedCluster, value: &str) -> Append {
    let submitted = runtime.block_on(async {
        let (permit, batch) = permit(&open(broker).await, value).await;
        broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND / 5));
        Some(permit.submit(batch))
    });
    submitted.unwrap()
}

#[test]
fn an_append_is_awaited_without_a_runtime() {
    let runtime = multi_thread();
    let broker = runtime.block_on(async { broker() });
    let append = submit(&runtime, &broker, "a");
    block_on(append).unwrap();
    assert_eq!(log(&broker), ["a"]);
}

#[test]
fn an_append_is_awaited_on_another_runtime_than_before() {
    let runtime = multi_thread();
    let broker = runtime.block_on(async { broker() });
    let mut append = submit(&runtime, &broker, "a");
    let another = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    another.block_on(async { assert!(polled(&mut append, 1).await.is_none()) });
    drop(another);
    runtime.block_on(append).unwrap();
    assert_eq!(log(&broker), ["a"]);
}
