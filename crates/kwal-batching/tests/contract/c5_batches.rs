//! C5: every future of a producer may be dropped at any await. What was accepted is appended, nothing twice.

use std::{
    collections::BTreeSet,
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use kwal_batching::producer::BatchProducer;
use kwal_client::{Limits, PartitionClient, error::ErrorKind};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::{task::yield_now, time::sleep};

use crate::support::{
    FAULTS, Held, broker, builder, open_warm, poll_once, polled, record, send, settle, sizes, values,
};

const SECOND: Duration = Duration::from_secs(1);
const REJECTED: Option<Fault> = Some(Fault::Error(ErrorCode::INVALID_RECORD));
/// What appends may hold.
const MEMORY: usize = 48 << 10;

async fn open_with_memory(broker: &EmbeddedCluster) -> PartitionClient {
    let client = builder(broker).limits(Limits::default().memory(MEMORY / 3 * 4)).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(vec![record("warm")]).await.unwrap();
    partition
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Produce,
    Ack,
    Reserve,
    Flush,
}

/// Polls a call so many times and drops it. Returns whether its input was surely accepted, or surely not.
async fn call(producer: &BatchProducer, call: Call, value: String, polls: usize) -> Option<bool> {
    match call {
        Call::Produce => {
            let result = polled(producer.produce(record(value)), polls).await;
            result.map(|result| result.is_ok())
        }
        Call::Ack => {
            let slot = producer.reserve().await.unwrap();
            let ack = slot.send(record(value));
            let result = polled(ack, polls).await;
            result.map(|result| result.is_ok())
        }
        Call::Reserve => {
            // A slot that is not used.
            drop(polled(producer.reserve(), polls).await);
            Some(false)
        }
        Call::Flush => {
            drop(polled(producer.flush(), polls).await);
            Some(false)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn calls_can_be_dropped_at_any_await() {
    for fault in FAULTS.into_iter().chain([REJECTED]) {
        let broker = broker();
        let partition = open_with_memory(&broker).await;
        let producer = BatchProducer::builder(partition.clone()).window(2).max_records(3).build();
        let (mut on_the_log, mut unknown) = (vec!["warm".to_owned()], BTreeSet::new());
        for polls in 0..8 {
            for (index, what) in
                [Call::Produce, Call::Ack, Call::Reserve, Call::Flush].into_iter().enumerate()
            {
                if let Some(fault) = fault {
                    broker.on(ApiKey::PRODUCE, fault);
                }
                // Something for it to be behind.
                let busy = send(&producer, [0; 2]).await;
                let value = format!("{polls}-{index}");
                match call(&producer, what, value.clone(), polls).await {
                    Some(true) => on_the_log.push(value),
                    Some(false) => {}
                    None => drop(unknown.insert(value)),
                }
                drop(busy);
                sleep(SECOND).await;
                broker.clear_faults();
                let appended = producer.produce(record("after")).await.unwrap();
                assert_eq!(appended.offset.unwrap() + 1, broker.end_offset("wal", 0).unwrap());
                on_the_log.push("after".to_owned());
            }
        }
        let values = values(&broker);
        let mut seen = BTreeSet::new();
        let known: Vec<_> = values
            .iter()
            .filter(|value| {
                assert!(value.len() < 3 || !value.contains('-') || seen.insert((*value).clone()), "{value}");
                **value != "0" && !unknown.contains(*value)
            })
            .cloned()
            .collect();
        assert_eq!(known, on_the_log, "{fault:?}");
        // What was accepted and did not fail is there although nobody waited for it.
        if !matches!(fault, Some(Fault::Error(ErrorCode::INVALID_RECORD))) {
            let polled = unknown.iter().filter(|value| !value.starts_with('0') || value.ends_with("-1"));
            assert!(polled.clone().all(|value| seen.contains(value)), "{unknown:?}, {values:?}");
        }
        let stats = producer.stats();
        assert_eq!((stats.in_flight, stats.gathering, stats.waiting), (0, 0, 0));
        assert_eq!(stats.appended as usize, values.len() - 1);
        assert!(partition.try_reserve(MEMORY).is_some(), "memory is missing");
    }
}

#[tokio::test(start_paused = true)]
async fn close_can_be_dropped_and_called_again() {
    for fault in FAULTS.into_iter().chain([REJECTED]) {
        for polls in 0..6 {
            let broker = broker();
            let partition = open_with_memory(&broker).await;
            let producer = BatchProducer::builder(partition.clone()).max_records(3).build();
            if let Some(fault) = fault {
                broker.on(ApiKey::PRODUCE, fault);
            }
            let acks = send(&producer, 0..10).await;
            drop(polled(producer.close(), polls).await);
            if polls > 0 {
                let error = producer.produce(record("late")).await.unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::Closed), "{error:?}");
            }
            let undelivered = producer.close().await;
            let records: usize = undelivered.iter().map(|undelivered| undelivered.records().len()).sum();
            let mut failed = 0;
            for ack in acks {
                failed += usize::from(ack.await.is_err());
            }
            // What had failed before it was closed is not returned.
            assert!(records <= failed, "{fault:?}, {polls}");
            if polls > 0 {
                assert_eq!(records, failed, "{fault:?}, {polls}");
            }
            assert_eq!(values(&broker).len(), 1 + 10 - failed);
            drop(undelivered);
            assert!(partition.try_reserve(MEMORY).is_some(), "memory is missing");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_is_sent_after_the_last_handle_is_dropped() {
    for (window, max_records, linger) in [(1, 1_000, 0), (1, 2, 0), (5, 1_000, 0), (1, 1_000, 5_000)] {
        let broker = broker();
        let (_wire, client, partition) = open_warm(&broker).await;
        let producer = BatchProducer::builder(partition).window(window).max_records(max_records);
        let producer = producer.linger(Duration::from_millis(linger)).build();
        broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
        let mut acks = send(&producer, 0..20).await;
        drop(acks.split_off(10));
        let clone = producer.clone();
        drop(producer);
        settle().await;
        drop(clone);
        for (index, ack) in acks.into_iter().enumerate() {
            assert_eq!(ack.await.unwrap().offset, Some(1 + index as i64));
        }
        sleep(SECOND).await;
        assert_eq!(values(&broker)[1..], (0..20).map(|value| value.to_string()).collect::<Vec<_>>());
        // The task of the producer has ended, and with it its partition client.
        assert!(client.close().await.is_empty());
    }
}

/// Slots keep a producer alive.
#[tokio::test(start_paused = true)]
async fn a_slot_may_outlive_all_handles() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition);
    let slot = producer.reserve().await.unwrap();
    let unused = producer.reserve().await.unwrap();
    drop(producer);
    settle().await;
    drop(unused);
    settle().await;
    assert_eq!(slot.send(record("value")).await.unwrap().offset, Some(1));
}

#[tokio::test(start_paused = true)]
async fn slots_that_are_dropped_give_back_what_they_hold() {
    let broker = broker();
    let partition = open_with_memory(&broker).await;
    let producer = BatchProducer::new(partition.clone());
    for round in 0..100 {
        let mut slots = Vec::new();
        for _ in 0..12 {
            slots.push(producer.reserve().bytes(2_000).await.unwrap());
        }
        if round % 3 == 0 {
            slots.pop().unwrap().send(record("value")).await.unwrap();
        }
    }
    assert!(partition.try_reserve(MEMORY).is_some(), "memory is missing");
    assert_eq!(sizes(&broker), vec![1; 35]);
    // All places, too.
    let places: Vec<_> = std::iter::from_fn(|| partition.try_reserve(1)).collect();
    assert_eq!(places.len(), 48);
}

/// Those that wait in the queue for memory, in the middle of it and at its head.
#[tokio::test(start_paused = true)]
async fn callers_that_leave_the_queue_hold_up_nobody() {
    for dropped in 0..4 {
        let broker = broker();
        let partition = open_with_memory(&broker).await;
        let producer = BatchProducer::new(partition.clone());
        let all = partition.reserve(MEMORY).await.unwrap();
        let mut waiting = Vec::new();
        for value in 0..4 {
            let mut produce = Box::pin(producer.produce(record(value.to_string())));
            assert!(poll_once(&mut produce).await.is_pending());
            waiting.push(produce);
        }
        let mut reserve = Box::pin(producer.reserve().into_future());
        assert!(poll_once(&mut reserve).await.is_pending());
        assert_eq!(producer.stats().waiting, 5);
        drop(waiting.remove(dropped));
        assert_eq!(producer.stats().waiting, 4);
        drop(all);
        let (results, slot) = futures::future::join(futures::future::join_all(waiting), reserve).await;
        assert!(results.iter().all(Result::is_ok));
        slot.unwrap().send(record("4")).await.unwrap();
        let expected: Vec<_> =
            (0..5).filter(|value| *value != dropped).map(|value| value.to_string()).collect();
        assert_eq!(values(&broker)[1..], expected);
        assert!(partition.try_reserve(MEMORY).is_some(), "memory is missing");
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Futures may move between tasks: the last one that polled is woken.
#[tokio::test(start_paused = true)]
async fn the_task_that_polled_last_is_woken() {
    let broker = broker();
    let (wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition);
    for is_in_flight in [true, false] {
        let held = Held::new(&wire);
        let first = send(&producer, [0]).await.remove(0);
        settle().await;
        let mut future: Box<dyn Future<Output = _> + Unpin + '_> = match is_in_flight {
            true => Box::new(first),
            false => Box::new(producer.produce(record("1"))),
        };
        let counters: Vec<_> = (0..3).map(|_| Arc::new(Counter::default())).collect();
        for counter in &counters {
            let waker = Waker::from(Arc::clone(counter));
            for _ in 0..2 {
                assert!(std::pin::Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
            }
        }
        // Without the waker of the task.
        held.release();
        settle().await;
        assert!(counters[2].0.load(Ordering::Relaxed) >= 1, "the last one is not woken");
        future.await.unwrap();
        wire.clear_hooks();
    }
}

/// A future that was polled once is in the order, whenever it is polled again.
#[tokio::test(start_paused = true)]
async fn the_first_poll_decides() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition);
    let mut polled_first = Box::pin(producer.produce(record("1")));
    let never_polled = producer.produce(record("never"));
    assert!(poll_once(&mut polled_first).await.is_pending());
    assert_eq!(producer.produce(record("2")).await.unwrap().offset, Some(2));
    yield_now().await;
    drop(never_polled);
    assert_eq!(polled_first.await.unwrap().offset, Some(1));
    assert_eq!(values(&broker), ["warm", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn futures_are_send_and_results_belong_to_nobody() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    fn is_static<T: Send + Unpin + 'static>(value: T) -> T {
        value
    }
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = is_static(BatchProducer::new(partition));
    let slot = is_static(is_send(producer.reserve().into_future()).await.unwrap());
    let ack = is_static(slot.send(record("1")));
    is_send(producer.produce(&record("2"))).await.unwrap();
    is_send(producer.flush().into_future()).await.unwrap();
    is_send(producer.close().into_future()).await;
    drop(producer);
    assert_eq!(tokio::spawn(ack).await.unwrap().unwrap().offset, Some(1));
}
