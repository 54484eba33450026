//! C4: every call of a producer ends within its deadline, and says what became of the inputs.

use std::{ops::Range, time::Duration};

use futures::future::join_all;
use kwal_batching::producer::{Ack, BatchProducer, Undelivered};
use kwal_client::{
    Client, Deadlines, Limits, OnFailure, Resolution,
    error::{Error, ErrorKind, Outcome, Progress},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::time::sleep;

use crate::support::{
    Held, appends, broker, builder, large, open, open_over, open_warm, polled, record, send, settle, timed,
    values,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

#[track_caller]
fn late(error: &Error, expected: Outcome) -> Progress {
    let ErrorKind::DeadlineExceeded { progress, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!(error.outcome(), expected);
    *progress
}

#[track_caller]
fn closed(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

/// Returns the values of the records of what was not delivered, and its outcomes.
fn left(undelivered: &[Undelivered]) -> (Vec<String>, Vec<Outcome>) {
    let records = undelivered.iter().flat_map(Undelivered::records);
    let values = records.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap());
    (values.collect(), undelivered.iter().map(|undelivered| undelivered.error.outcome()).collect())
}

#[tokio::test(start_paused = true)]
async fn an_input_whose_time_is_over_may_still_be_appended() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition);
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(5 * SECOND));
    // One in flight, and one that is gathered.
    let (first, second) = (producer.produce(record("1")), producer.produce(record("2")));
    let both = futures::future::join(timed(first.deadline(2 * SECOND)), timed(second.deadline(3 * SECOND)));
    let ((first, one), (second, two)) = both.await;
    assert_eq!((one, two), (2 * SECOND, 3 * SECOND));
    for result in [first, second] {
        assert_eq!(late(&result.unwrap_err(), Outcome::Unknown), Progress::Response);
    }
    assert_eq!(producer.produce(record("3")).await.unwrap().offset, Some(3));
    assert_eq!(values(&broker), ["warm", "1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn the_default_is_the_deadline_of_operations_from_the_first_record_of_a_batch_on() {
    for on_failure in [OnFailure::Stop, OnFailure::Continue] {
        let broker = broker();
        let deadlines = Deadlines::default().operation(20 * SECOND);
        let client = builder(&broker).deadlines(deadlines).build().await.unwrap();
        let partition = client.partition_client("wal", 0).on_failure(on_failure).await.unwrap();
        partition.produce(vec![record("warm")]).await.unwrap();
        let producer = BatchProducer::new(partition);
        broker.on_all(ApiKey::PRODUCE, Fault::BlackHole);
        let first = producer.produce(record("1"));
        let behind = async {
            sleep(SECOND).await;
            let one = send(&producer, [2]).await.remove(0);
            sleep(SECOND).await;
            (timed(one).await, timed(producer.produce(record("3"))).await)
        };
        let ((first, took), ((one, one_took), (two, _))) = futures::future::join(timed(first), behind).await;
        assert_eq!(took, 20 * SECOND);
        late(&first.unwrap_err(), Outcome::Unknown);
        match on_failure {
            OnFailure::Stop => {
                assert!(matches!(one.unwrap_err().kind(), ErrorKind::PrecedingAppendFailed));
                assert_eq!(one_took, 18 * SECOND);
            }
            _ => {
                late(&one.unwrap_err(), Outcome::Unknown);
                assert_eq!(one_took, 19 * SECOND);
            }
        }
        drop(two);
        broker.clear_faults();
    }
}

/// With a permit for all of the memory held by somebody else.
#[tokio::test(start_paused = true)]
async fn inputs_that_wait_for_memory_are_not_applied_at_their_deadlines() {
    let broker = broker();
    let client = builder(&broker).limits(Limits::default().memory(64 << 10)).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let producer = BatchProducer::new(partition.clone());
    let all = partition.reserve(48 << 10).await.unwrap();
    let (result, took) = timed(producer.produce(record("1")).deadline(3 * SECOND)).await;
    assert_eq!((late(&result.unwrap_err(), Outcome::NotApplied), took), (Progress::Memory, 3 * SECOND));
    let (result, took) = timed(producer.reserve().deadline(4 * SECOND)).await;
    assert_eq!((late(&result.unwrap_err(), Outcome::NotApplied), took), (Progress::Memory, 4 * SECOND));
    // Also those that are not the first in the queue.
    let (one, two) = (producer.produce(record("2")), producer.reserve().into_future());
    let ((one, one_took), (two, two_took)) = futures::future::join(timed(one), timed(two)).await;
    assert_eq!((one_took, two_took), (60 * SECOND, 60 * SECOND));
    late(&one.unwrap_err(), Outcome::NotApplied);
    late(&two.unwrap_err(), Outcome::NotApplied);
    // What an input waited for counts.
    let waiting = async {
        sleep(2 * SECOND).await;
        drop(all);
    };
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(5 * SECOND));
    let produce = producer.produce(record("3")).deadline(3 * SECOND);
    let ((result, took), ()) = futures::future::join(timed(produce), waiting).await;
    assert_eq!((late(&result.unwrap_err(), Outcome::Unknown), took), (Progress::Response, 3 * SECOND));
    sleep(5 * SECOND).await;
    assert_eq!(values(&broker), ["3"]);
    assert_eq!(producer.stats().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn no_time_at_all_is_time_for_what_needs_none() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition);
    let slot = producer.reserve().deadline(Duration::ZERO).await.unwrap();
    producer.flush().deadline(Duration::ZERO).await.unwrap();
    drop(slot);
    assert!(producer.close().deadline(Duration::ZERO).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn deadlines_that_no_clock_shows_do_not_end() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition);
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(9 * SECOND));
    let produce = producer.produce(record("1")).deadline(Duration::MAX);
    let flush = producer.flush().deadline(Duration::MAX).into_future();
    let reserve = producer.reserve().deadline(Duration::MAX).into_future();
    let ((produced, flushed, slot), took) = timed(futures::future::join3(produce, flush, reserve)).await;
    assert_eq!(took, 9 * SECOND);
    assert_eq!((produced.unwrap().offset, flushed.unwrap()), (Some(1), ()));
    drop(slot.unwrap());
    assert!(producer.close().deadline(Duration::MAX).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn flush_is_a_barrier_on_what_was_accepted_before_it() {
    let broker = broker();
    let (wire, _client, partition) = open_warm(&broker).await;
    for (window, max_records) in [(1, 1_000), (1, 2), (3, 1_000)] {
        let producer =
            BatchProducer::builder(partition.clone()).window(window).max_records(max_records).build();
        assert_eq!(timed(producer.flush()).await.1, Duration::ZERO);
        let before = values(&broker).len();
        broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
        let acks = send(&producer, 0..7).await;
        let mut flush = Box::pin(producer.flush().into_future());
        assert!(polled(&mut flush, 1).await.is_none());
        // It does not wait for these.
        broker.on_all(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
        let later = send(&producer, 7..30).await;
        let (result, took) = timed(flush).await;
        result.unwrap();
        assert!(took >= SECOND, "{took:?}");
        assert!(values(&broker).len() >= before + 7);
        for ack in acks {
            assert_eq!(timed(ack).await.1, Duration::ZERO);
        }
        // They are in other batches only if these are full.
        assert_eq!(producer.stats().in_flight > 0, max_records == 2);
        join_all(later).await;
        broker.clear_faults();
    }
    assert!(appends(&wire) > 6);
}

/// Hands records over, in batches of two: the first one is appended and the second one rejected, once the
/// responses are released.
async fn rejected_second(
    broker: &EmbeddedCluster,
    values: Range<usize>,
) -> (Client, BatchProducer, Held, Vec<Ack>) {
    let (wire, client, partition) = open_warm(broker).await;
    let producer = BatchProducer::builder(partition).max_records(2).build();
    let held = Held::new(&wire);
    broker.on(ApiKey::PRODUCE, Fault::Pass);
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    let acks = send(&producer, values).await;
    (client, producer, held, acks)
}

#[tokio::test(start_paused = true)]
async fn flush_reports_the_first_failure_when_all_have_ended() {
    let broker = broker();
    let (_client, producer, held, acks) = rejected_second(&broker, 0..9).await;
    let mut flush = Box::pin(producer.flush().into_future());
    assert!(polled(&mut flush, 1).await.is_none());
    held.release();
    assert_eq!(flush.await.unwrap_err().code(), Some(ErrorCode::INVALID_RECORD));
    assert_eq!((producer.stats().in_flight, producer.stats().gathering), (0, 0));
    assert_eq!(join_all(acks).await.iter().filter(|result| result.is_ok()).count(), 1);
    // The errors are known now.
    producer.flush().await.unwrap();
    producer.produce(record("after")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn flush_ends_at_its_deadline_and_takes_nothing_back() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition);
    broker.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    let acks = send(&producer, 0..3).await;
    let (result, took) = timed(producer.flush().deadline(3 * SECOND)).await;
    assert_eq!((late(&result.unwrap_err(), Outcome::Unknown), took), (Progress::Response, 3 * SECOND));
    let (result, took) = timed(producer.flush()).await;
    // The batch has its own.
    late(&result.unwrap_err(), Outcome::Unknown);
    assert_eq!(took, 57 * SECOND);
    for ack in acks {
        ack.await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_everything_and_accepts_nothing_more() {
    let broker = broker();
    let (_wire, client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::builder(partition.clone()).max_records(3).build();
    let slot = producer.reserve().await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let acks = send(&producer, 0..10).await;
    let (undelivered, took) = timed(producer.clone().close()).await;
    assert_eq!((undelivered.len(), took), (0, SECOND));
    for (index, ack) in acks.into_iter().enumerate() {
        assert_eq!(ack.await.unwrap().offset, Some(1 + index as i64));
    }
    closed(&producer.produce(record("late")).await.unwrap_err());
    closed(&producer.reserve().await.unwrap_err());
    closed(&slot.send(record("late")).await.unwrap_err());
    producer.flush().await.unwrap();
    assert_eq!(timed(producer.close()).await.1, Duration::ZERO);
    // The partition client is not.
    partition.produce(vec![record("direct")]).await.unwrap();
    assert_eq!(BatchProducer::new(partition).produce(record("new")).await.unwrap().offset, Some(12));
    assert!(client.close().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn close_returns_what_is_left_at_its_deadline_with_its_outcome() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition.clone());
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(9 * SECOND));
    let first = send(&producer, [0]).await.remove(0);
    let behind = send(&producer, 1..4).await;
    let (undelivered, took) = timed(producer.close().deadline(3 * SECOND)).await;
    assert_eq!(took, 3 * SECOND);
    let expected: Vec<_> = ["0", "1", "2", "3"].map(str::to_owned).into();
    assert_eq!(left(&undelivered), (expected.clone(), vec![Outcome::Unknown, Outcome::NotApplied]));
    for undelivered in &undelivered {
        late(&undelivered.error, undelivered.error.outcome());
    }
    for ack in behind {
        let (result, took) = timed(ack).await;
        assert_eq!(
            (late(&result.unwrap_err(), Outcome::NotApplied), took),
            (Progress::Queue, Duration::ZERO)
        );
    }
    // What was in flight is in doubt for its caller as well, and can be resolved.
    let (result, took) = timed(first).await;
    let error = result.unwrap_err();
    assert_eq!((late(&error, Outcome::Unknown), took), (Progress::Response, Duration::ZERO));
    let in_doubt = undelivered[0].error.in_doubt().unwrap();
    assert_eq!(in_doubt.record_count, 1);
    assert_eq!(error.in_doubt().unwrap().part, Some(0..1));
    assert_eq!(partition.resolve(in_doubt, record("fence")).await.unwrap(), Resolution::Appended(1..2));
    // Again: the same.
    let (again, took) = timed(producer.close()).await;
    assert_eq!((left(&again).0, took), (expected, Duration::ZERO));
    assert_eq!(values(&broker), ["warm", "0", "fence"]);
    // They can be handed over by another one.
    for undelivered in again.into_iter().filter(|each| each.error.outcome() == Outcome::NotApplied) {
        let permit = partition.reserve(undelivered.batch.size_in_bytes()).await.unwrap();
        permit.submit(undelivered.batch).await.unwrap();
    }
    assert_eq!(values(&broker), ["warm", "0", "fence", "1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn close_returns_what_failed_meanwhile() {
    let broker = broker();
    let (_client, producer, held, acks) = rejected_second(&broker, 0..20).await;
    let mut close = Box::pin(producer.close().into_future());
    assert!(polled(&mut close, 1).await.is_none());
    held.release();
    let undelivered = close.await;
    let expected: Vec<_> = (1..20).map(|value| value.to_string()).collect();
    let (left, outcomes) = left(&undelivered);
    assert_eq!(left, expected);
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::NotApplied));
    assert_eq!(undelivered[0].error.code(), Some(ErrorCode::INVALID_RECORD));
    let results = join_all(acks).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(values(&broker), ["warm", "0"]);
}

#[tokio::test(start_paused = true)]
async fn callers_that_wait_end_when_the_producer_is_closed() {
    let broker = broker();
    let client = builder(&broker).limits(Limits::default().memory(64 << 10)).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let producer = BatchProducer::new(partition.clone());
    let all = partition.reserve(48 << 10).await.unwrap();
    let waiting = (0..5).map(|value| producer.produce(record(value.to_string())));
    let reserving = (0..5).map(|_| producer.reserve().into_future());
    let close = async {
        settle().await;
        assert_eq!(producer.stats().waiting, 10);
        assert!(producer.close().await.is_empty());
    };
    let waits = futures::future::join3(join_all(waiting), join_all(reserving), close);
    let ((produced, slots, ()), took) = timed(waits).await;
    assert_eq!(took, Duration::from_millis(1));
    produced.iter().for_each(|result| closed(result.as_ref().unwrap_err()));
    slots.iter().for_each(|result| closed(result.as_ref().unwrap_err()));
    assert_eq!(producer.stats().waiting, 0);
    drop(all);
}

/// Results are delivered also when nothing can be sent any more.
#[test]
fn what_is_left_when_the_runtime_shuts_down_ends() {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (other, callers) = (runtime(), runtime());
    let (broker, producer, acks): (_, _, Vec<Ack>) = other.block_on(async {
        let broker = broker();
        let (wire, client, partition) = open_warm(&broker).await;
        let producer = BatchProducer::new(partition);
        broker.on(ApiKey::PRODUCE, Fault::BlackHole);
        let acks = send(&producer, 0..3).await;
        settle().await;
        drop((wire, client));
        (broker, producer, acks)
    });
    let waiting = producer.produce(record("waiting"));
    let slot = callers.block_on(producer.reserve().into_future()).unwrap();
    let mut waiting = Box::pin(waiting);
    assert!(callers.block_on(polled(&mut waiting, 1)).is_none());
    drop(other);
    callers.block_on(async {
        let ((results, waited), took) = timed(futures::future::join(join_all(acks), waiting)).await;
        assert_eq!(took, Duration::ZERO);
        let outcomes = [Outcome::Unknown, Outcome::NotApplied, Outcome::NotApplied];
        for (result, outcome) in results.into_iter().zip(outcomes) {
            let error = result.unwrap_err();
            // Behind one that failed.
            let is_expected = matches!(error.kind(), ErrorKind::Closed | ErrorKind::PrecedingAppendFailed);
            assert!(is_expected, "{error:?}");
            assert_eq!(error.outcome(), outcome);
        }
        assert_eq!(waited.unwrap_err().outcome(), Outcome::NotApplied);
        for _ in 0..2 {
            closed(&producer.produce(record("late")).await.unwrap_err());
        }
        closed(&slot.send(record("late")).await.unwrap_err());
        closed(&producer.reserve().await.unwrap_err());
        assert!(!producer.close().await.iter().any(|undelivered| undelivered.records().is_empty()));
        producer.flush().await.unwrap();
    });
    assert_eq!(values(&broker), ["warm"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_closed_ends_its_producers() {
    let broker = broker();
    let (_wire, client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition);
    producer.produce(record("1")).await.unwrap();
    let slot = producer.reserve().await.unwrap();
    assert!(client.close().await.is_empty());
    for _ in 0..3 {
        closed(&producer.produce(record("late")).await.unwrap_err());
        closed(&producer.reserve().await.unwrap_err());
    }
    closed(&slot.send(record("late")).await.unwrap_err());
    producer.flush().await.unwrap();
    assert_eq!(timed(producer.close()).await.1, Duration::ZERO);
}

/// What is checked at once is not accepted, and affects nobody.
#[tokio::test(start_paused = true)]
async fn inputs_that_no_broker_takes_are_rejected_at_once() {
    let broker = broker();
    let client = builder(&broker).limits(Limits::default().batch(10_000)).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let producer = BatchProducer::new(partition);
    let mut old = record("old");
    old.timestamp = time::OffsetDateTime::from_unix_timestamp(-1).unwrap();
    let calls = (0..30).map(|value| {
        producer.produce(match value % 3 {
            0 => record(value.to_string()),
            1 => old.clone(),
            _ => large(10_000 + value),
        })
    });
    for (index, result) in join_all(calls).await.into_iter().enumerate() {
        match (index % 3, result) {
            (0, result) => assert_eq!(result.unwrap().offset, Some(index as i64 / 3)),
            (1, Err(error)) => {
                assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
                assert_eq!(error.outcome(), Outcome::NotApplied);
            }
            (_, Err(error)) => {
                assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { .. }), "{error:?}");
                assert_eq!(error.outcome(), Outcome::NotApplied);
            }
            (_, Ok(appended)) => panic!("{appended:?}"),
        }
    }
    let error = producer.reserve().bytes(10_001).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { .. }), "{error:?}");
    assert_eq!((producer.stats().failed, producer.stats().appended), (0, 10));
}

/// The driver is on the runtime of the client: results arrive although that of the callers is another one.
#[test]
fn callers_may_be_on_another_runtime() {
    let runtime = |threads| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads).enable_all().build().unwrap()
    };
    let (one, other) = (runtime(1), runtime(2));
    let (broker, producer) = one.block_on(async {
        let broker = broker();
        let producer = BatchProducer::new(open(&broker).await);
        (broker, producer)
    });
    let callers: Vec<_> = (0..20)
        .map(|caller| {
            let producer = producer.clone();
            other.spawn(async move {
                for i in 0..20 {
                    producer.produce(record(format!("{caller}-{i}"))).await.unwrap();
                }
            })
        })
        .collect();
    other.block_on(async {
        for caller in callers {
            caller.await.unwrap();
        }
    });
    let ack = one.block_on(send(&producer, [1])).remove(0);
    assert!(other.block_on(ack).is_ok());
    assert_eq!(values(&broker).len(), 401);
}

/// A batch behind others has what is left of its time when it is sent.
#[tokio::test(start_paused = true)]
async fn a_batch_that_has_gathered_for_long_ends_in_time() {
    let broker = broker();
    let wire = kwal_testkit::wire::Wire::new(broker.connector());
    let (_client, partition) = open_over(&broker, &wire).await;
    partition.produce(vec![record("warm")]).await.unwrap();
    let producer = BatchProducer::new(partition);
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(9 * SECOND));
    broker.on_all(ApiKey::PRODUCE, Fault::DelayRequest(HOUR));
    let first = send(&producer, [0]).await.remove(0);
    sleep(4 * SECOND).await;
    let second = timed(producer.produce(record("1")));
    let late_comer = async {
        sleep(3 * SECOND).await;
        timed(producer.produce(record("2"))).await
    };
    let ((second, second_took), (third, third_took)) = futures::future::join(second, late_comer).await;
    first.await.unwrap();
    assert_eq!((second_took, third_took), (60 * SECOND, 57 * SECOND));
    for result in [second, third] {
        late(&result.unwrap_err(), Outcome::Unknown);
    }
    broker.clear_faults();
}
