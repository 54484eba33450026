//! C9: producers live within the memory budget of their client, and give back what they took.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use kwal_batching::producer::BatchProducer;
use kwal_client::{Limits, PartitionClient, Permit, error::ErrorKind};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, record::Compression};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::time::sleep;

use crate::support::{Rng, broker, builder, large, poll_once, record, send, settle, sizes, timed, values};

const SECOND: Duration = Duration::from_secs(1);
/// What appends may hold: three quarters of the memory of the client.
const MEMORY: usize = 48 << 10;

async fn open_with(broker: &EmbeddedCluster, memory: usize, compression: Compression) -> PartitionClient {
    let client = builder(broker).limits(Limits::default().memory(memory / 3 * 4)).build().await.unwrap();
    let partition = client.partition_client("wal", 0).compression(compression).await.unwrap();
    partition.produce(vec![record("warm")]).await.unwrap();
    partition
}

async fn open_with_memory(broker: &EmbeddedCluster) -> PartitionClient {
    open_with(broker, MEMORY, Compression::None).await
}

fn lz4() -> Compression {
    if cfg!(feature = "compression-lz4") { Compression::Lz4 } else { Compression::None }
}

/// Reserves all memory that appends may hold, which has to be free.
#[track_caller]
fn reserve_all(partition: &PartitionClient) -> Permit {
    partition.try_reserve(MEMORY).expect("the memory is free")
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_share_64_kib() {
    for compression in [Compression::None, lz4()] {
        let broker = broker();
        let partition = open_with(&broker, MEMORY, compression).await;
        let producer = BatchProducer::builder(partition.clone()).window(2).build();
        let callers = (0..1_000).map(|caller| {
            let producer = producer.clone();
            tokio::spawn(async move {
                let mut rng = Rng(caller);
                for i in 0..3 {
                    let value = format!("{caller}-{i}-{}", "x".repeat(rng.below(2_000) as usize));
                    let appended = match rng.below(3) {
                        0 => {
                            producer
                                .reserve()
                                .bytes(value.len() + 36)
                                .await
                                .unwrap()
                                .send(record(value))
                                .await
                        }
                        _ => producer.produce(record(value)).await,
                    };
                    assert!(appended.unwrap().batch.wire_bytes <= MEMORY);
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        assert_eq!(values(&broker).len(), 3_001);
        let stats = producer.stats();
        assert!(stats.waited > 1_000, "{stats:?}");
        assert!(stats.mean_records() > 5.0, "they share batches: {stats:?}");
        drop(reserve_all(&partition));
    }
}

/// On several threads, where permits are given back and taken at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_on_many_threads_share_16_kib() {
    let broker = broker();
    let partition = open_with(&broker, 12 << 10, lz4()).await;
    let producer = BatchProducer::builder(partition.clone()).window(3).max_bytes(3_000).build();
    let callers = (0..200).map(|caller| {
        let producer = producer.clone();
        tokio::spawn(async move {
            for i in 0..5 {
                producer.produce(record(format!("{caller}-{i}-{}", "x".repeat(500)))).await.unwrap();
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!(values(&broker).len(), 1_001);
    assert!(partition.try_reserve(12 << 10).is_some(), "the memory is free");
}

#[tokio::test(start_paused = true)]
async fn an_open_batch_holds_memory_for_what_is_in_it() {
    let broker = broker();
    let partition = open_with_memory(&broker).await;
    let producer = BatchProducer::new(partition.clone());
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let first = send(&producer, [0]).await;
    let mut gathered = Vec::new();
    for _ in 0..10 {
        gathered.push(producer.reserve().bytes(1_100).await.unwrap().send(large(1_000)));
    }
    // Its records, and twice that at most, since it grows by doubling.
    let held = (0..64).take_while(|units| partition.try_reserve(MEMORY - (units << 10)).is_none()).count();
    assert!((10..=21).contains(&held), "{held} KiB");
    for ack in first.into_iter().chain(gathered) {
        ack.await.unwrap();
    }
    drop(reserve_all(&partition));
}

#[tokio::test(start_paused = true)]
async fn memory_is_given_back_whatever_becomes_of_a_batch() {
    let faults = [
        None,
        Some(Fault::LoseReply),
        Some(Fault::Error(ErrorCode::INVALID_RECORD)),
        Some(Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR)),
        Some(Fault::BlackHole),
    ];
    for compression in [Compression::None, lz4()] {
        let broker = broker();
        let partition = open_with(&broker, MEMORY, compression).await;
        let producer = BatchProducer::builder(partition.clone()).max_bytes(5_000).window(2).build();
        let mut rng = Rng(5);
        for fault in faults {
            for is_awaited in [true, false] {
                if let Some(fault) = fault {
                    broker.on(ApiKey::PRODUCE, fault);
                }
                let mut acks = Vec::new();
                for _ in 0..8 {
                    // A slot for less than it takes: the rest is a debt.
                    let noise = (0..1_500).map(|_| b' ' + rng.below(90) as u8).collect::<Vec<_>>();
                    acks.push(producer.reserve().bytes(100).await.unwrap().send(record(noise)));
                }
                let waiting = producer.produce(record("waiting"));
                match is_awaited {
                    true => drop(futures::future::join(join_all(acks), waiting).await),
                    false => drop((acks, waiting)),
                }
                sleep(100 * SECOND).await;
                drop(reserve_all(&partition));
                let places: Vec<_> = std::iter::from_fn(|| partition.try_reserve(1)).collect();
                assert_eq!(places.len(), 48, "one for each KiB");
            }
        }
    }
}

/// A slot for a record that is larger than what was reserved.
#[tokio::test(start_paused = true)]
async fn a_slot_may_be_overdrawn_and_the_debt_is_paid_first() {
    let broker = broker();
    let partition = open_with_memory(&broker).await;
    let producer = BatchProducer::new(partition.clone());
    let rest = partition.reserve(MEMORY - 2_048).await.unwrap();
    let slot = producer.reserve().bytes(100).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let ack = slot.send(large(20_000));
    // More than there is, until here.
    assert!(partition.try_reserve(1).is_none());
    drop(rest);
    assert!(partition.try_reserve(MEMORY - 20_480 + 1).is_none());
    assert!(partition.try_reserve(MEMORY - 20_480).is_some());
    let (all, took) = timed(partition.reserve(MEMORY)).await;
    assert_eq!(took, SECOND);
    drop(all.unwrap());
    assert_eq!(ack.await.unwrap().offset, Some(1));
    drop(reserve_all(&partition));
}

#[tokio::test(start_paused = true)]
async fn an_input_larger_than_the_budget_goes_alone() {
    let broker = broker();
    let partition = open_with_memory(&broker).await;
    let producer = BatchProducer::builder(partition.clone()).max_bytes(2_000).build();
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let small = |value: usize| producer.produce(record(value.to_string()));
    let mut calls = Vec::new();
    for value in 0..9 {
        let mut call = Box::pin(match value {
            3 | 7 => producer.produce(large(100_000)),
            _ => small(value),
        });
        assert!(poll_once(&mut call).await.is_pending());
        calls.push(call);
    }
    for (index, result) in join_all(calls).await.into_iter().enumerate() {
        assert_eq!(result.unwrap().offset, Some(1 + index as i64));
    }
    let sizes = sizes(&broker);
    assert_eq!(sizes.iter().sum::<i32>(), 10);
    let lengths: Vec<_> = values(&broker).iter().map(String::len).collect();
    assert_eq!(lengths, [4, 1, 1, 1, 100_000, 1, 1, 1, 100_000, 1]);
    drop(reserve_all(&partition));
}

#[tokio::test(start_paused = true)]
async fn callers_that_wait_for_memory_are_accepted_in_the_order_in_which_they_came() {
    let broker = broker();
    let partition = open_with_memory(&broker).await;
    let producer = Arc::new(BatchProducer::builder(partition.clone()).window(3).build());
    let mut rng = Rng(11);
    let mut callers = Vec::new();
    for value in 0..300 {
        let len = rng.below(4_000) as usize;
        let mut produce = Box::pin({
            let producer = Arc::clone(&producer);
            async move { producer.produce(record(format!("{value} {}", "x".repeat(len)))).await }
        });
        assert!(poll_once(&mut produce).await.is_pending());
        callers.push(tokio::spawn(produce));
    }
    assert!(producer.stats().waiting > 200);
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    let values = values(&broker);
    let order: Vec<_> = values[1..].iter().map(|value| value.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(order, (0..300).map(|value| value.to_string()).collect::<Vec<_>>());
    drop(reserve_all(&partition));
}

/// One that wants little does not pass one that waits for much.
#[tokio::test(start_paused = true)]
async fn nobody_passes_a_caller_that_waits() {
    let broker = broker();
    let partition = open_with_memory(&broker).await;
    let producer = BatchProducer::new(partition.clone());
    let half = partition.reserve(MEMORY / 2).await.unwrap();
    let mut much = Box::pin(producer.produce(large(MEMORY - 1_000)));
    assert!(poll_once(&mut much).await.is_pending());
    let mut little = Box::pin(producer.produce(record("little")));
    assert!(poll_once(&mut little).await.is_pending());
    let mut slot = Box::pin(producer.reserve().bytes(10).into_future());
    assert!(poll_once(&mut slot).await.is_pending());
    settle().await;
    assert_eq!((producer.stats().waiting, producer.stats().batches), (3, 0));
    drop(half);
    let (much, little, slot) = futures::future::join3(much, little, slot).await;
    assert_eq!((much.unwrap().offset, little.unwrap().offset), (Some(1), Some(2)));
    drop(slot.unwrap());
    drop(reserve_all(&partition));
}

/// What lingers is all that holds memory: it goes.
#[tokio::test(start_paused = true)]
async fn a_batch_does_not_linger_while_somebody_waits_for_its_memory() {
    let broker = broker();
    let partition = open_with_memory(&broker).await;
    let producer = BatchProducer::builder(partition.clone()).linger(20 * SECOND).build();
    let acks: Vec<_> = join_all((0..4).map(|_| producer.produce(large(MEMORY / 5)))).await;
    assert!(acks.iter().all(Result::is_ok));
    let calls = join_all((0..20).map(|_| producer.produce(large(MEMORY / 5))));
    let (results, took) = timed(calls).await;
    assert!(results.iter().all(Result::is_ok));
    // Only the last ones have room.
    assert_eq!(took, 20 * SECOND);
    drop(reserve_all(&partition));
}

/// The places of the partition client are shared, too.
#[tokio::test(start_paused = true)]
async fn slots_are_as_many_as_there_are_places() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let producer = BatchProducer::new(partition.clone());
    let mut slots = Vec::new();
    for _ in 0..64 {
        slots.push(producer.reserve().deadline(Duration::ZERO).await.unwrap());
    }
    let (error, took) = timed(producer.reserve().deadline(SECOND)).await;
    assert!(matches!(error.unwrap_err().kind(), ErrorKind::DeadlineExceeded { .. }));
    assert_eq!(took, SECOND);
    let mut waiting = Box::pin(producer.produce(record("waiting")));
    assert!(poll_once(&mut waiting).await.is_pending());
    // All of them go in two batches, which need two places.
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let acks: Vec<_> =
        slots.into_iter().enumerate().map(|(value, slot)| slot.send(record(value.to_string()))).collect();
    let (results, waited) = futures::future::join(join_all(acks), waiting).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(waited.unwrap().offset, Some(64));
    assert_eq!(producer.stats().batches, 2);
    let places: Vec<_> = std::iter::from_fn(|| partition.try_reserve(1)).collect();
    assert_eq!(places.len(), 64);
}
