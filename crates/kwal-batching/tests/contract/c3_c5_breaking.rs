//! C3 to C5: attempts to break what batch producers promise.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use kwal_batching::{
    entry::Writer,
    producer::{Aggregator, BatchProducer, Sink},
};
use kwal_client::{
    Deadlines, Limits,
    error::{ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{Fault, wire::Wire};
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::support::{
    Held, broker, builder, large, open, open_over, open_warm, poll_once, record, send, settle, values,
};

/// A place for less than the input takes is enough also when there is no more memory.
#[tokio::test(start_paused = true)]
async fn a_slot_takes_a_larger_input_than_it_is_for_when_memory_is_full() {
    let broker = broker();
    let client = builder(&broker).limits(Limits::default().memory(64 << 10)).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let producer = BatchProducer::new(partition.clone());
    let slot = producer.reserve().await.unwrap();
    let rest: Vec<_> = std::iter::from_fn(|| partition.try_reserve(1)).collect();
    assert!(rest.len() < 60, "it is memory that is full");
    let ack = slot.send(large(20_000));
    drop(rest);
    assert_eq!(ack.await.unwrap().offset, Some(0));
    assert_eq!(producer.produce(record("after")).await.unwrap().offset, Some(1));
}

/// The order of `produce` is that of the first polls, also when a task has used up its budget.
#[tokio::test(start_paused = true)]
async fn callers_that_wait_keep_their_order_beyond_the_budget_of_a_task() {
    let broker = broker();
    let partition = open(&broker).await;
    let producer = BatchProducer::new(partition.clone());
    let places: Vec<_> = std::iter::from_fn(|| partition.try_reserve(1)).collect();
    // The task has done as much as tokio lets it do at a time.
    while tokio::task::consume_budget().now_or_never().is_some() {}
    let mut first = producer.produce(record("first"));
    assert!(poll_once(&mut first).await.is_pending());
    let later = producer.clone();
    let later = tokio::spawn(async move { later.produce(record("later")).await.unwrap() });
    settle().await;
    drop(places);
    first.await.unwrap();
    later.await.unwrap();
    assert_eq!(values(&broker), ["first", "later"]);
}

/// A waker that calls a function.
struct Call<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Call<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// Returns a waker that calls a function, wherever it is woken.
fn calls(function: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Call(function)))
}

fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

const REJECTED: Fault = Fault::Error(ErrorCode::INVALID_RECORD);

/// Nothing is locked where somebody is woken: whatever the waker does with the producer.
#[test]
fn wakers_may_use_the_producer() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let broker = broker();
            let partition = open(&broker).await;
            let producer = BatchProducer::new(partition.clone());
            let count = Arc::new(AtomicUsize::new(0));
            let waker = calls({
                let (producer, count) = (producer.clone(), Arc::clone(&count));
                move || {
                    count.fetch_add(1, Ordering::Relaxed);
                    let _ = producer.stats();
                    drop(poll(&mut producer.flush().into_future(), Waker::noop()));
                }
            });
            // One that waits for a place, and one for an acknowledgement.
            let slot = producer.reserve().await.unwrap();
            let places: Vec<_> = std::iter::from_fn(|| partition.try_reserve(1)).collect();
            let mut waits = producer.reserve().into_future();
            assert!(poll(&mut waits, &waker).is_pending());
            let mut produce = producer.produce(record("second"));
            assert!(poll(&mut produce, &waker).is_pending());
            let mut ack = slot.send(record("first"));
            assert!(poll(&mut ack, &waker).is_pending());
            settle().await;
            assert!(poll(&mut ack, &waker).is_ready());
            // A permit that is not needed gives its place back in the call.
            drop(places);
            let Poll::Ready(Ok(first)) = poll(&mut waits, &waker) else { panic!("there is room") };
            assert!(poll(&mut produce, &waker).is_pending());
            let slot = producer.reserve().await.unwrap();
            let places: Vec<_> = std::iter::from_fn(|| partition.try_reserve(1)).collect();
            let mut waits = partition.reserve(1).into_future();
            assert!(poll(&mut waits, &waker).is_pending());
            let acks = [first.send(record("third")), slot.send(record("fourth"))];
            drop(places);
            for ack in acks {
                ack.await.unwrap();
            }
            drop(waits);
            let ack = producer.reserve().await.unwrap().send(record("fifth"));
            let mut close = producer.close().into_future();
            assert!(poll(&mut close, &waker).is_pending());
            ack.await.unwrap();
            settle().await;
            assert!(poll(&mut close, &waker).is_ready());
            assert!(count.load(Ordering::Relaxed) >= 4);
            assert_eq!(values(&broker), ["first", "second", "third", "fourth", "fifth"]);
        });
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(20)).expect("it is stuck");
}

/// A waker that panics is that of one caller.
#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_holds_up_nobody_else() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition);
    let first = producer.reserve().await.unwrap().send(record("first"));
    let panics = calls(|| panic!("it is meant to"));
    let mut bad = producer.produce(record("bad"));
    assert!(poll(&mut bad, &panics).is_pending());
    let good = tokio::spawn({
        let producer = producer.clone();
        async move { producer.produce(record("good")).await }
    });
    first.await.unwrap();
    let appended = timeout(Duration::from_secs(5), good).await.expect("it is woken").unwrap().unwrap();
    assert_eq!(appended.offset, Some(3));
    assert_eq!(bad.await.unwrap().offset, Some(2));
    let after = timeout(Duration::from_secs(5), producer.produce(record("after"))).await;
    assert_eq!(after.expect("it is sent").unwrap().offset, Some(4));
    assert_eq!(appended.batch.attempts, 1);
}

/// What fails behind a batch counts for flush and close until it has ended.
#[tokio::test(start_paused = true)]
async fn what_fails_behind_a_batch_is_not_forgotten_on_the_way() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (client, partition) = open_over(&broker, &wire).await;
    let one = client.partition_client("wal", 0).max_in_flight(1).await.unwrap();
    partition.produce(vec![record("warm")]).await.unwrap();
    one.produce(vec![record("warm")]).await.unwrap();
    let producer = BatchProducer::builder(one).max_records(1).build();
    let held = Held::new(&wire);
    broker.on(ApiKey::PRODUCE, REJECTED);
    let failed = send(&producer, 0..1).await;
    // Behind: in batches of their own, of which each ends by itself.
    let behind = Arc::new(Mutex::new(send(&producer, 1..5).await));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let waker = calls({
        let (producer, seen) = (producer.clone(), Arc::clone(&seen));
        move || {
            let flushed = poll(&mut producer.flush().into_future(), Waker::noop());
            let closed = poll(&mut producer.close().into_future(), Waker::noop());
            let count = |closed: Vec<_>| closed.len();
            seen.lock().unwrap().push((flushed.map(|flushed| flushed.is_ok()), closed.map(count)));
        }
    });
    for ack in &mut *behind.lock().unwrap() {
        assert!(poll(ack, &waker).is_pending());
    }
    held.release();
    settle().await;
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.len(), 4);
    for (flushed, closed) in &seen[..3] {
        assert!(flushed.is_pending(), "not all has ended: {seen:?}");
        assert!(closed.is_pending(), "not all has ended: {seen:?}");
    }
    // Two failed before the producer was closed: the batch, and the first behind it.
    assert_eq!(producer.close().await.len(), 3, "{seen:?}");
    drop(failed);
}

/// Two calls of close wait for the same, and the one with less time ends it.
#[tokio::test(start_paused = true)]
async fn a_close_that_ends_what_lingers_ends_the_others_too() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::builder(partition).linger(Duration::from_secs(5)).build();
    let ack = producer.reserve().await.unwrap().send(record("lingers"));
    let mut patient = producer.close().into_future();
    assert!(poll_once(&mut patient).await.is_pending());
    assert_eq!(producer.close().deadline(Duration::ZERO).await.len(), 1);
    let patient = timeout(Duration::from_secs(1), patient).await.expect("everything has ended");
    assert_eq!(patient.len(), 1);
    assert_eq!(ack.await.unwrap_err().outcome(), Outcome::NotApplied);
}

/// Awaits a future on this thread, without a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    let thread = std::thread::current();
    let waker = calls(move || thread.unpark());
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park_timeout(Duration::from_secs(20));
    }
}

/// `produce` needs no runtime where it is polled, whatever it waits for.
#[test]
fn callers_outside_of_a_runtime_wait_as_well() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (broker, partition) = runtime.block_on(async {
        let broker = broker();
        let partition = open(&broker).await;
        (broker, partition)
    });
    let producer = BatchProducer::new(partition.clone());
    block_on(producer.produce(record("at once"))).unwrap();
    block_on(producer.produce(record("in time")).deadline(Duration::from_secs(10))).unwrap();
    let places: Vec<_> = std::iter::from_fn(|| partition.try_reserve(1)).collect();
    let late = block_on(producer.produce(record("late")).deadline(Duration::from_millis(50))).unwrap_err();
    assert_eq!((is_late(&late), late.outcome()), (true, Outcome::NotApplied));
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| block_on(producer.produce(record("in turn"))).unwrap());
        while producer.stats().waiting == 0 {
            std::thread::yield_now();
        }
        drop(places);
        assert_eq!(caller.join().unwrap().offset, Some(2));
    });
    assert_eq!(values(&broker), ["at once", "in time", "in turn"]);
    // Its runtime is gone.
    drop(runtime);
    let closed = block_on(producer.produce(record("closed")).deadline(Duration::MAX)).unwrap_err();
    assert!(matches!(closed.kind(), ErrorKind::Closed), "{closed:?}");
}

/// A record that no batch can hold is that of its input, also if the aggregator goes on without it.
#[tokio::test(start_paused = true)]
async fn an_aggregator_that_goes_on_after_an_error_spoils_no_batch() {
    /// Pushes one record that is fine, then what the input says.
    struct Careless;

    impl Aggregator for Careless {
        type Input = u8;
        type Tag = ();

        fn size_hint(&self, _: &u8) -> usize {
            100
        }

        fn add(&self, input: &u8, sink: &mut Sink<'_>) -> Result<(), Box<dyn Error + Send + Sync>> {
            let mut bad = record("bad");
            sink.push(&record(input.to_string()))?;
            match input {
                // Zeros that nobody reads take no memory.
                0 => drop(sink.push(&large_zeros())),
                1 => {
                    bad.timestamp = OffsetDateTime::UNIX_EPOCH - Duration::from_secs(1);
                    drop(sink.push(&bad));
                }
                2 => {
                    *sink.packed() = vec![0; (1 << 31) + 10];
                    sink.end_packed();
                }
                _ => {}
            }
            Ok(())
        }
    }

    let broker = broker();
    let (wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::builder(partition).aggregator(Careless).build();
    let held = Held::new(&wire);
    let mut acks = Vec::new();
    for input in [10, 11, 0, 1, 2, 12] {
        acks.push((input, producer.reserve().await.unwrap().send(input)));
    }
    held.release();
    for (input, ack) in acks {
        match (input, ack.await) {
            (10.., Ok(appended)) => assert_eq!(appended.records, 1),
            (_, Err(error)) => {
                let kind = error.kind();
                let is_its_own =
                    matches!(kind, ErrorKind::InvalidInput { .. } | ErrorKind::BatchTooLarge { .. });
                assert!(input < 10 && is_its_own, "{input}: {error:?}");
            }
            (_, result) => panic!("{input}: {result:?}"),
        }
    }
    assert_eq!(values(&broker), ["warm", "10", "11", "12"]);
}

fn is_late(error: &kwal_client::error::Error) -> bool {
    matches!(error.kind(), ErrorKind::DeadlineExceeded { .. })
}

fn large_zeros() -> Record {
    record(vec![0; (1 << 31) + 10])
}

/// Settings at their limits: nothing panics, and everything is appended.
#[tokio::test(start_paused = true)]
async fn settings_at_their_limits_append_everything() {
    let mut settings = Vec::new();
    for linger in [Duration::ZERO, Duration::MAX] {
        for window in [0, usize::MAX] {
            for max_bytes in [0, 1, 100, usize::MAX] {
                for max_records in [0, usize::MAX] {
                    settings.push((linger, window, max_bytes, max_records));
                }
            }
        }
    }
    for operation in [Duration::from_secs(60), Duration::MAX] {
        let broker = broker();
        let deadlines = Deadlines::default().operation(operation);
        let limits = Limits::default().memory(1).batch(1_000);
        let client = builder(&broker).deadlines(deadlines).limits(limits).build().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        for &(linger, window, max_bytes, max_records) in &settings {
            let producer = BatchProducer::builder(partition.clone()).linger(linger).window(window);
            let producer = producer.max_bytes(max_bytes).max_records(max_records).build();
            let callers = (0..20).map(|i| producer.produce(large(i * 20)).deadline(Duration::MAX));
            let callers = join_all(callers);
            let rest = async {
                let slot = producer.reserve().bytes(0).deadline(Duration::MAX).await.unwrap();
                let ack = slot.send(large(500));
                let error = producer.reserve().bytes(usize::MAX).await.unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { .. }), "{error:?}");
                let error = producer.produce(large(1_000)).await.unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { .. }), "{error:?}");
                producer.flush().deadline(Duration::MAX).await.unwrap();
                ack.await.unwrap();
            };
            let both = async { tokio::join!(callers, rest) };
            let both = timeout(Duration::from_secs(1_000), both).await;
            let context = || format!("{linger:?} {window} {max_bytes} {max_records}: {:?}", producer.stats());
            let (appended, ()) = both.unwrap_or_else(|_| panic!("{}", context()));
            assert!(appended.iter().all(Result::is_ok), "{appended:?}");
            let late = producer.produce(record("")).deadline(Duration::ZERO).await;
            if let Err(late) = late {
                assert!(is_late(&late), "{late:?}");
            }
            let close = producer.close().deadline(Duration::MAX).await;
            assert!(close.is_empty(), "{close:?}");
        }
    }
    let broker = broker();
    let partition = open(&broker).await;
    let writer = Writer::new(partition).fragment_bytes(0);
    let appended = writer.append(large(3_000)).deadline(Duration::MAX).await.unwrap();
    assert!(appended.fragments > 2);
}

/// What failed behind an append of somebody else has callers of its own, who do not know yet.
#[tokio::test(start_paused = true)]
async fn what_failed_behind_an_append_of_others_holds_up_what_follows() {
    let broker = broker();
    let (wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition.clone());
    let held = Held::new(&wire);
    broker.on(ApiKey::PRODUCE, REJECTED);
    let batch = partition.encode(vec![record("bad")]).unwrap();
    let bad = partition.reserve(batch.size_in_bytes()).await.unwrap().submit(batch);
    let behind = send(&producer, 1..2).await.remove(0);
    held.release();
    settle().await;
    assert_eq!(bad.await.unwrap_err().code(), Some(ErrorCode::INVALID_RECORD));
    let follows = |error: kwal_client::error::Error| {
        assert!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), "{error:?}");
    };
    follows(producer.produce(record("2")).await.unwrap_err());
    follows(partition.produce(vec![record("direct")]).await.unwrap_err());
    follows(behind.await.unwrap_err());
    partition.produce(vec![record("direct")]).await.unwrap();
    producer.produce(record("3")).await.unwrap();
    assert_eq!(values(&broker), ["warm", "direct", "3"]);
}

/// A waker that panics in an append of somebody else does not take the answers of those behind it.
#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_elsewhere_takes_nobodys_answer() {
    let broker = broker();
    let (wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition.clone());
    let panics = calls(|| panic!("it is meant to"));
    let held = Held::new(&wire);
    broker.on(ApiKey::PRODUCE, REJECTED);
    let batch = partition.encode(vec![record("bad")]).unwrap();
    let mut bad = partition.reserve(batch.size_in_bytes()).await.unwrap().submit(batch);
    assert!(poll(&mut bad, &panics).is_pending());
    let behind = send(&producer, 0..3).await;
    held.release();
    settle().await;
    for ack in behind {
        let error = timeout(Duration::from_secs(5), ack).await.expect("it is woken").unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error:?}");
    }
    assert!(bad.await.is_err());
    producer.produce(record("after")).await.unwrap();
    assert_eq!(values(&broker), ["warm", "after"]);
}
