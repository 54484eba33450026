//! C3: inputs lie on the log in the order in which they were handed over, without a hole.

use std::{
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use kwal_batching::producer::{Ack, BatchProducer, BatchProducerBuilder};
use kwal_client::{
    OnFailure, PartitionClient,
    error::{Error, ErrorKind, Outcome},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, record::Compression};
use kwal_testkit::{EmbeddedCluster, Fault, FaultTarget, wire::Wire};
use tokio::time::sleep;

use crate::support::{
    Held, Rng, appends, broker, builder, large, open, open_warm, poll_once, record, send, settle, values,
};

const REJECTED: Fault = Fault::Error(ErrorCode::INVALID_RECORD);

/// Asserts that inputs failed since one before them did.
#[track_caller]
fn follows(result: Result<impl std::fmt::Debug, Error>) {
    let error = result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), "{error:?}");
    assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::INVALID_RECORD), Outcome::NotApplied));
    assert!(error.is_retriable());
}

#[track_caller]
fn rejected(result: Result<impl std::fmt::Debug, Error>) {
    assert_eq!(result.unwrap_err().code(), Some(ErrorCode::INVALID_RECORD));
}

async fn slot(producer: &BatchProducer, value: usize) -> Ack {
    send(producer, [value]).await.remove(0)
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|value| value.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_order_is_that_of_the_calls() {
    let faults = [
        Fault::LoseReply,
        Fault::Drop,
        Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        Fault::DelayReply(Duration::from_secs(15)),
        Fault::WrongCorrelationId,
    ];
    // As many as there are places for, so that nobody waits for one.
    for (window, max_records, count) in [(1, 1_000, 400), (5, 1_000, 400), (1, 3, 150), (5, 1, 50)] {
        let broker = broker();
        let producer = BatchProducer::builder(open(&broker).await).window(window);
        let producer = producer.max_records(max_records).build();
        for fault in faults {
            broker.on(ApiKey::PRODUCE, fault);
        }
        // They are reserved in another order, and the calls are in that of their first polls.
        let mut slots = Vec::new();
        for _ in 0..count / 10 {
            slots.push(producer.reserve().await.unwrap());
        }
        let mut rng = Rng(1);
        let mut acks = Vec::new();
        for value in 0..count {
            let ack = match value % 10 {
                0 if !slots.is_empty() => {
                    let index = rng.below(slots.len() as u64) as usize;
                    slots.swap_remove(index).send(record(value.to_string()))
                }
                _ => {
                    let mut produce = Box::pin({
                        let producer = producer.clone();
                        async move { producer.produce(record(value.to_string())).await }
                    });
                    let Poll::Pending = poll_once(&mut produce).await else { panic!("it is not sent yet") };
                    acks.push((value, produce.boxed()));
                    continue;
                }
            };
            acks.push((value, ack.boxed()));
            if rng.below(20) == 0 {
                settle().await;
            }
        }
        // The order of the polls does not matter from here on.
        while !acks.is_empty() {
            let (value, ack) = acks.swap_remove(rng.below(acks.len() as u64) as usize);
            assert_eq!(ack.await.unwrap().offset, Some(value as i64));
        }
        assert_eq!(values(&broker), numbers(0..count));
    }
}

/// Starts a broker whose topic takes batches of so many bytes.
fn broker_of(max_message_bytes: &str) -> EmbeddedCluster {
    let settings = [("max.message.bytes", max_message_bytes)];
    EmbeddedCluster::builder().topic_with("wal", 1, &settings).start_in_memory().unwrap()
}

/// With the limit of the topic, an input that exceeds it is its own error. Without, all behind it fail.
#[tokio::test(start_paused = true)]
async fn an_input_that_the_topic_does_not_take_fails_alone() {
    let limit = 2_000;
    let broker = broker_of("2000");
    let wire = Wire::new(broker.connector());
    for compression in [Compression::None, Compression::Lz4] {
        let limits = |builder: BatchProducerBuilder| builder.max_bytes(limit).max_input_bytes(limit);
        let client = builder(&broker).connector(wire.clone()).build().await.unwrap();
        let partition = client.partition_client("wal", 0).compression(compression).await.unwrap();
        let producer = limits(BatchProducer::builder(partition)).build();
        producer.produce(record("first")).await.unwrap();
        let held = Held::new(&wire);
        let mut acks = Vec::new();
        // Of all sizes around the limit, and up to one that is not even encoded.
        let sizes = (limit - 74..limit - 64).chain([limit, 3 * limit, 1 << 20]);
        for (value, size) in sizes.enumerate() {
            acks.extend(send(&producer, [value]).await);
            acks.push(producer.reserve().await.unwrap().send(large(size)));
        }
        held.release();
        let mut appended = Vec::new();
        for (index, ack) in acks.into_iter().enumerate() {
            let is_large = index % 2 == 1;
            match ack.await {
                Ok(_) if is_large => appended.push(limit - 74 + index / 2),
                Ok(_) => {}
                Err(error) => {
                    let ErrorKind::BatchTooLarge {
                        size, limit: Some(2_000), is_input: true, records: 1, ..
                    } = error.kind()
                    else {
                        panic!("{index}: {error:?}")
                    };
                    assert!(is_large && *size > limit, "{index}: {error}");
                    assert_eq!((error.outcome(), error.is_retriable()), (Outcome::NotApplied, false));
                    assert!(error.to_string().contains("`max_input_bytes`"), "{error}");
                }
            }
        }
        // What makes a batch of exactly so many bytes: the header, and a record whose lengths take two each.
        let largest = limit - 61 - 9;
        assert_eq!(appended, (limit - 74..=largest).collect::<Vec<_>>(), "{compression:?}");
        assert_eq!(producer.stats().failed, 0);
    }
    let broker = broker_of("2000");
    let (wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::builder(partition).max_bytes(limit).build();
    let held = Held::new(&wire);
    let first = slot(&producer, 0).await;
    let too_large = producer.reserve().await.unwrap().send(large(limit));
    let behind = slot(&producer, 1).await;
    held.release();
    first.await.unwrap();
    let error = too_large.await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { limit: None, .. }), "{error:?}");
    let error = behind.await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), "{error:?}");
}

/// Whether an input is accepted does not depend on what else is in the batch.
#[tokio::test(start_paused = true)]
async fn the_size_of_an_input_is_that_of_its_own_batch() {
    let limit = 300;
    for is_gathered in [false, true] {
        let broker = broker();
        let (wire, _client, partition) = open_warm(&broker).await;
        let producer = BatchProducer::builder(partition).max_input_bytes(limit).build();
        let held = Held::new(&wire);
        let first = slot(&producer, 0).await;
        // Offsets and times in a batch take more bytes the further they are from its first record.
        let others = if is_gathered { send(&producer, 1..100).await } else { Vec::new() };
        let mut late = large(limit - 61 - 9);
        late.timestamp += Duration::from_secs(1_000);
        let (exact, mut larger) = (late.clone(), late);
        larger.value = Some(vec![b'x'; limit - 61 - 8].into());
        let exact = producer.reserve().await.unwrap().send(exact);
        let larger = producer.reserve().await.unwrap().send(larger);
        let behind = slot(&producer, 100).await;
        held.release();
        for ack in [first, exact, behind].into_iter().chain(others) {
            ack.await.unwrap();
        }
        let error = larger.await.unwrap_err();
        let ErrorKind::BatchTooLarge { size: 301, .. } = error.kind() else { panic!("{error:?}") };
    }
}

/// On several threads: the order of the calls is that of a lock around them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_order_is_that_of_the_calls_on_many_threads() {
    for max_records in [2, 1_000] {
        let broker = broker();
        let producer = BatchProducer::builder(open(&broker).await).window(3).max_records(max_records).build();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let (producer, sent) = (producer.clone(), Arc::clone(&sent));
                tokio::spawn(async move {
                    let mut last = None;
                    for i in 0..300 {
                        let value = format!("{caller}-{i}");
                        let slot = producer.reserve().await.unwrap();
                        let ack = {
                            let mut sent = sent.lock().unwrap();
                            sent.push(value.clone());
                            slot.send(record(value))
                        };
                        if i % 5 == 0 {
                            ack.await.unwrap();
                        } else {
                            last = Some(ack);
                        }
                    }
                    last.unwrap().await.unwrap();
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        producer.flush().await.unwrap();
        assert_eq!(values(&broker), *sent.lock().unwrap());
    }
}

/// Opens a producer, and has a batch of these rejected while those behind it gather.
async fn one_fails(broker: &EmbeddedCluster, window: usize, fail: std::ops::Range<usize>) -> Failing {
    let (wire, client, partition) = open_warm(broker).await;
    let producer = BatchProducer::builder(partition.clone()).window(window).build();
    let held = Held::new(&wire);
    // Something in flight, so that the next ones are a batch.
    let first = slot(&producer, 0).await;
    let failed = send(&producer, fail.clone()).await;
    settle().await;
    broker.on(ApiKey::PRODUCE, REJECTED);
    Failing { first, failed, producer, held, wire, partition, _client: client }
}

struct Failing {
    first: Ack,
    failed: Vec<Ack>,
    producer: BatchProducer,
    held: Held,
    wire: Wire,
    partition: PartitionClient,
    _client: kwal_client::Client,
}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_behind_a_failure_fails_with_it() {
    for count in [1, 5] {
        let broker = broker();
        let Failing { first, failed, producer, held, wire, .. } = one_fails(&broker, 1, 1..1 + count).await;
        // The batch goes out, and its response is held.
        wire.release();
        first.await.unwrap();
        settle().await;
        assert_eq!(producer.stats().in_flight, 1);
        let behind = send(&producer, 10..20).await;
        held.release();
        settle().await;
        // All have ended by now, and nobody knows.
        let after = send(&producer, 20..25).await;
        settle().await;
        for ack in failed {
            rejected(ack.await);
        }
        for ack in behind.into_iter().chain(after) {
            follows(ack.await);
        }
        let before = appends(&wire);
        assert_eq!(slot(&producer, 30).await.await.unwrap().offset, Some(2));
        assert_eq!(appends(&wire), before + 1);
        assert_eq!(values(&broker), ["warm", "0", "30"]);
        let stats = producer.stats();
        // The last five were never accepted.
        assert_eq!((stats.appended, stats.failed), (2, count as u64 + 10));
    }
}

/// What is handed over at once when several callers fail together leaves no hole, although they are about to
/// get their error.
#[tokio::test(start_paused = true)]
async fn what_is_accepted_before_anybody_knows_of_a_failure_fails_with_it() {
    let broker = broker();
    let Failing { first, failed, producer, held, .. } = one_fails(&broker, 1, 1..4).await;
    held.release();
    first.await.unwrap();
    // As soon as it has ended: the driver waits for those that come back.
    while producer.stats().in_flight > 0 {
        tokio::task::yield_now().await;
    }
    let after = slot(&producer, 10).await;
    for ack in failed {
        rejected(ack.await);
    }
    follows(after.await);
    slot(&producer, 11).await.await.unwrap();
    assert_eq!(values(&broker), ["warm", "0", "11"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_appended_until_everybody_has_got_the_error() {
    for is_dropped in [false, true] {
        let broker = broker();
        let Failing { first, failed, producer, held, .. } = one_fails(&broker, 1, 1..5).await;
        held.release();
        first.await.unwrap();
        settle().await;
        let behind: Vec<Ack> = failed.into_iter().rev().collect();
        let left = behind.len();
        for (index, ack) in behind.into_iter().enumerate() {
            follows(slot(&producer, 10).await.await);
            if is_dropped {
                drop(ack);
            } else {
                rejected(ack.await);
            }
            if index + 1 < left {
                follows(producer.produce(record("behind")).await);
            }
        }
        assert_eq!(producer.produce(record("after")).await.unwrap().offset, Some(2));
        assert_eq!(values(&broker), ["warm", "0", "after"]);
    }
}

/// Those that failed since another one did count as well.
#[tokio::test(start_paused = true)]
async fn those_that_failed_behind_another_one_hold_up_what_follows_too() {
    let broker = broker();
    let Failing { first, failed, producer, held, wire, .. } = one_fails(&broker, 1, 1..2).await;
    wire.release();
    first.await.unwrap();
    settle().await;
    let mut behind = send(&producer, 10..12).await;
    held.release();
    settle().await;
    rejected(failed.into_iter().next().unwrap().await);
    follows(slot(&producer, 20).await.await);
    follows(behind.pop().unwrap().await);
    follows(slot(&producer, 21).await.await);
    follows(behind.pop().unwrap().await);
    slot(&producer, 22).await.await.unwrap();
    assert_eq!(values(&broker), ["warm", "0", "22"]);
}

/// Callers that append again at once, and all of them, get on.
#[tokio::test(start_paused = true)]
async fn callers_that_got_an_error_can_append_again_at_once() {
    for (window, max_records) in [(1, 1_000), (3, 4)] {
        let broker = broker();
        let (_wire, _client, partition) = open_warm(&broker).await;
        let producer = BatchProducer::builder(partition).window(window).max_records(max_records).build();
        for pass in [1, 3, 7] {
            broker.on(FaultTarget::api(ApiKey::PRODUCE).after(pass), REJECTED);
        }
        let callers = (0..30).map(|caller| {
            let producer = producer.clone();
            tokio::spawn(async move {
                let mut failures = 0;
                for i in 0..10 {
                    while let Err(error) = producer.produce(record(format!("{caller}-{i}"))).await {
                        assert_eq!(error.code(), Some(ErrorCode::INVALID_RECORD));
                        failures += 1;
                        assert!(failures < 30, "it does not get on");
                    }
                }
                failures
            })
        });
        let failures: usize =
            join_all(callers.collect::<Vec<_>>()).await.into_iter().map(|failures| failures.unwrap()).sum();
        assert!(failures >= 3, "{failures}");
        assert_eq!(broker.faults_left(), 0);
        let values = values(&broker);
        assert_eq!(values.len(), 301);
        for caller in 0..30 {
            let prefix = format!("{caller}-");
            let own: Vec<_> = values.iter().filter_map(|value| value.strip_prefix(&prefix)).collect();
            assert_eq!(own, numbers(0..10));
        }
    }
}

/// On several threads, with slots as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_on_many_threads_can_append_again_at_once() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::builder(partition).window(2).max_records(5).build();
    for pass in [1, 5, 20] {
        broker.on(FaultTarget::api(ApiKey::PRODUCE).after(pass), REJECTED);
    }
    let callers = (0..40).map(|caller| {
        let producer = producer.clone();
        tokio::spawn(async move {
            for i in 0..20 {
                let value = format!("{caller}-{i}");
                loop {
                    let appended = match caller % 2 {
                        0 => producer.produce(record(value.clone())).await,
                        _ => producer.reserve().await.unwrap().send(record(value.clone())).await,
                    };
                    let Err(error) = appended else { break };
                    assert_eq!(error.code(), Some(ErrorCode::INVALID_RECORD));
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!((values(&broker).len(), broker.faults_left()), (801, 0));
}

/// Although the first error was returned long ago.
#[tokio::test(start_paused = true)]
async fn what_is_in_flight_behind_a_failure_holds_up_what_follows() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::builder(partition).window(2).build();
    broker.on(ApiKey::PRODUCE, REJECTED);
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(5)));
    let (first, behind) = (slot(&producer, 0).await, slot(&producer, 1).await);
    rejected(first.await);
    assert_eq!(producer.stats().in_flight, 1);
    let (early, also_early) = (slot(&producer, 2).await, producer.produce(record("3")).await);
    follows(also_early);
    sleep(Duration::from_secs(6)).await;
    let late = slot(&producer, 4).await;
    follows(behind.await);
    follows(early.await);
    follows(late.await);
    slot(&producer, 5).await.await.unwrap();
    assert_eq!(values(&broker), ["warm", "5"]);
}

/// A single caller does not even have to wait.
#[tokio::test(start_paused = true)]
async fn a_single_caller_appends_again_after_each_failure() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition);
    for round in 0..10 {
        broker.on(ApiKey::PRODUCE, REJECTED);
        rejected(producer.produce(record("rejected")).await);
        assert_eq!(producer.produce(record("good")).await.unwrap().offset, Some(round + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn batches_in_flight_behind_a_failed_one_fail_with_it() {
    for window in [2, 5] {
        let broker = broker();
        let (wire, _client, partition) = open_warm(&broker).await;
        let producer = BatchProducer::builder(partition).window(window).build();
        let held = Held::new(&wire);
        broker.on(ApiKey::PRODUCE, REJECTED);
        let acks = send(&producer, 0..10).await;
        settle().await;
        assert_eq!(producer.stats().in_flight, window as u64);
        held.release();
        settle().await;
        let after = slot(&producer, 20).await;
        settle().await;
        for (index, ack) in acks.into_iter().enumerate() {
            match index {
                0 => rejected(ack.await),
                _ => follows(ack.await),
            }
        }
        follows(after.await);
        slot(&producer, 21).await.await.unwrap();
        assert_eq!(values(&broker), ["warm", "21"]);
    }
}

#[tokio::test(start_paused = true)]
async fn others_of_the_partition_client_fail_and_are_failed_alike() {
    let broker = broker();
    let Failing { first, failed, producer, held, partition, .. } = one_fails(&broker, 1, 1..3).await;
    held.release();
    first.await.unwrap();
    settle().await;
    // An append without the producer would leave a hole as well.
    follows(partition.produce(vec![record("direct")]).await);
    for ack in failed {
        rejected(ack.await);
    }
    partition.produce(vec![record("direct")]).await.unwrap();
    // And the other way round.
    broker.on(ApiKey::PRODUCE, REJECTED);
    let batch = partition.encode(vec![record("bad")]).unwrap();
    let bad = partition.reserve(batch.size_in_bytes()).await.unwrap().submit(batch);
    settle().await;
    follows(slot(&producer, 10).await.await);
    rejected(bad.await);
    slot(&producer, 11).await.await.unwrap();
    assert_eq!(values(&broker), ["warm", "0", "direct", "11"]);
}

#[tokio::test(start_paused = true)]
async fn with_continue_each_batch_is_on_its_own() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).on_failure(OnFailure::Continue).await.unwrap();
    for window in [1, 3] {
        let producer = BatchProducer::builder(partition.clone()).window(window).max_records(4).build();
        producer.produce(record("first")).await.unwrap();
        broker.on(FaultTarget::api(ApiKey::PRODUCE).after(1), REJECTED);
        broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(1)));
        let acks = send(&producer, 0..20).await;
        let mut failed = 0;
        for ack in acks {
            match ack.await {
                Ok(appended) => assert_eq!(appended.records, 1),
                error => {
                    rejected(error);
                    failed += 1;
                }
            }
        }
        assert!((1..=4).contains(&failed), "{failed}");
        // An error that nobody has got holds up nothing.
        broker.on(ApiKey::PRODUCE, REJECTED);
        let bad = slot(&producer, 30).await;
        settle().await;
        slot(&producer, 31).await.await.unwrap();
        rejected(bad.await);
    }
}

/// In doubt: the caller gets the error with the handle, and those behind it are not applied.
#[tokio::test(start_paused = true)]
async fn what_was_accepted_behind_one_in_doubt_is_not_applied() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition);
    broker.on_all(ApiKey::PRODUCE, Fault::DelayRequest(Duration::from_secs(3_600)));
    let in_doubt = slot(&producer, 0).await;
    sleep(Duration::from_secs(30)).await;
    let behind = send(&producer, 1..5).await;
    let error = in_doubt.await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert!(error.in_doubt().is_some());
    broker.clear_faults();
    for ack in behind {
        let error = ack.await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), "{error:?}");
        assert_eq!(error.outcome(), Outcome::NotApplied);
    }
    slot(&producer, 6).await.await.unwrap();
    sleep(Duration::from_secs(7_200)).await;
    assert_eq!(values(&broker), ["warm", "6"]);
}
