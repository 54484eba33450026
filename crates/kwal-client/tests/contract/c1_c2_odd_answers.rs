//! C1 and C2 with brokers that answer what cannot be true, or less than Kafka does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kwal_client::{
    PartitionClient,
    error::{Error, ErrorKind, InvalidField, Outcome},
};
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{
        InitProducerIdRequest, ProducePartitionResponse, ProduceRequest, ProduceResponse, RecordError,
    },
    wire::Uuid,
};
use kwal_testkit::{EmbeddedCluster, Fault, FaultTarget};
use tokio::time::sleep;

use crate::support::{Wire, broker, log, open, open_over, record, source, timed};

const REFUSED_IDS: [ErrorCode; 2] = [ErrorCode::UNKNOWN_PRODUCER_ID, ErrorCode::INVALID_PRODUCER_ID_MAPPING];

/// Rewrites what responses to appends say about the partition.
fn rewrite(wire: &Wire, mut change: impl FnMut(&mut ProducePartitionResponse) + Send + 'static) {
    wire.edit::<ProduceRequest>(move |response| change(&mut response.responses[0].partition_responses[0]));
}

#[track_caller]
fn assert_field(error: &Error, field: &'static str, value: i64) {
    assert!(matches!(error.kind(), ErrorKind::MalformedResponse), "{error:?}");
    let invalid: &InvalidField = source(error);
    assert_eq!((invalid.field, invalid.value), (field, value));
}

/// An id that a broker does not take is replaced by a new one, and is not used again by anybody.
#[tokio::test(start_paused = true)]
async fn a_refused_producer_id_is_replaced_and_the_batch_appended() {
    for code in REFUSED_IDS {
        for appended_before in [0, 2] {
            let broker = broker();
            let wire = Wire::to(&broker);
            let client = wire.client().await;
            let partition = client.partition_client("wal", 0).await.unwrap();
            for _ in 0..appended_before {
                partition.produce(record("a")).await.unwrap();
            }
            broker.on_times(ApiKey::PRODUCE, 2, Fault::Error(code));
            let produced = partition.produce(record("b")).await.unwrap();
            assert_eq!((produced.base_offset, produced.attempts), (Some(appended_before), 3), "{code}");
            let stamps = wire.stamps();
            let [refused, again, new] = stamps[appended_before as usize..] else { panic!("{stamps:?}") };
            assert!(refused.0 != again.0 && again.0 != new.0 && refused.0 != new.0, "{stamps:?}");
            assert_eq!(((again.1, again.2), (new.1, new.2)), ((0, 0), (0, 0)));
            // The next append goes on with it, and so does the next partition client.
            partition.produce(record("c")).await.unwrap();
            drop(partition);
            let partition = client.partition_client("wal", 0).await.unwrap();
            partition.produce(record("d")).await.unwrap();
            assert_eq!(wire.stamps().split_off(stamps.len()), [(new.0, 0, 1), (new.0, 0, 2)]);
            assert_eq!(log(&broker).len() as i64, appended_before + 3);
        }
    }
}

/// Metadata that was restored from a backup gives out ids that partitions know already.
#[tokio::test(start_paused = true)]
async fn a_producer_id_that_somebody_else_has_is_replaced() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let other = open_over(&wire).await;
    for _ in 0..9 {
        other.produce(record("a")).await.unwrap();
    }
    let id = wire.stamps()[0].0;
    let again = AtomicUsize::new(0);
    wire.edit::<InitProducerIdRequest>(move |response| {
        if again.fetch_add(1, Ordering::Relaxed) < 2 {
            response.producer_id = id;
        }
    });
    let partition = open_over(&wire).await;
    let produced = partition.produce(record("b")).await.unwrap();
    assert_eq!((produced.base_offset, produced.attempts), (Some(9), 2));
    assert_eq!(other.produce(record("c")).await.unwrap().base_offset, Some(10));
    // A batch in doubt stays under its id.
    wire.edit::<InitProducerIdRequest>(move |response| response.producer_id = id);
    let partition = open_over(&wire).await;
    broker.on(ApiKey::PRODUCE, Fault::Drop);
    let error = partition.produce(record("d")).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    wire.clear_edits();
    partition.produce(record("e")).await.unwrap();
    assert_eq!(log(&broker)[9..], ["b", "c", "e"]);
}

/// Idle ids may be refused as well.
#[tokio::test(start_paused = true)]
async fn idle_producer_ids_that_are_refused_are_given_up() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let open = async || client.partition_client("wal", 0).await.unwrap();
    let clients = [open().await, open().await, open().await];
    for partition in &clients {
        partition.produce(record("a")).await.unwrap();
    }
    drop(clients);
    let idle: Vec<_> = wire.stamps().iter().map(|stamp| stamp.0).collect();
    broker.on_times(ApiKey::PRODUCE, 3, Fault::Error(ErrorCode::UNKNOWN_PRODUCER_ID));
    let produced = open().await.produce(record("b")).await.unwrap();
    assert_eq!((produced.base_offset, produced.attempts), (Some(3), 4));
    let refused: Vec<_> = wire.stamps()[3..6].iter().map(|stamp| stamp.0).collect();
    assert!(idle.iter().all(|id| refused.contains(id)), "{refused:?} of {idle:?}");
    for _ in 0..3 {
        open().await.produce(record("c")).await.unwrap();
    }
    assert_eq!(wire.count(ApiKey::INIT_PRODUCER_ID), 4);
}

/// The earlier attempt may be on the log, and the broker have forgotten the id since then. Under a new id it
/// would not recognize the batch.
#[tokio::test(start_paused = true)]
async fn a_batch_in_doubt_is_not_sent_under_a_new_producer_id() {
    for code in REFUSED_IDS {
        let lost = [Fault::LoseReply, Fault::Drop, Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT)];
        for first in lost {
            let broker = broker();
            let wire = Wire::to(&broker);
            let client = wire.client().await;
            let partition = client.partition_client("wal", 0).await.unwrap();
            broker.on(ApiKey::PRODUCE, first);
            broker.on(ApiKey::PRODUCE, Fault::Error(code));
            let error = partition.produce(record("a")).await.unwrap_err();
            assert_eq!((error.outcome(), error.code()), (Outcome::Unknown, Some(code)), "{first:?}");
            assert!(log(&broker).len() <= 1, "{first:?}");
            let stamps = wire.stamps();
            assert!(stamps.len() == 2 && stamps[0] == stamps[1], "{stamps:?}");
            // The refused id is gone all the same.
            partition.produce(record("b")).await.unwrap();
            drop(partition);
            client.partition_client("wal", 0).await.unwrap().produce(record("c")).await.unwrap();
            let [b, c] = wire.stamps()[2..] else { panic!("{:?}", wire.stamps()) };
            assert!(b.0 != stamps[0].0 && c.0 == b.0, "{b:?} {c:?} after {stamps:?}");
        }
    }
}

/// What was missing before a batch under a refused id says nothing of its place under a new one.
#[tokio::test(start_paused = true)]
async fn a_gap_under_a_refused_producer_id_is_no_loss_under_a_new_one() {
    for code in REFUSED_IDS {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        partition.produce(record("a")).await.unwrap();
        broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        broker.on(ApiKey::PRODUCE, Fault::Error(code));
        broker.on_all(ApiKey::PRODUCE, Fault::Drop);
        let deadline = Duration::from_secs(5);
        let error = partition.produce(record("b")).deadline(deadline).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
        assert_eq!(error.outcome(), Outcome::Unknown);
        broker.clear_faults();
        partition.produce(record("c")).await.unwrap();
        assert_eq!(log(&broker), ["a", "c"]);
    }
}

/// A loss cannot hide behind a new id: what is acknowledged under it has to follow what was before.
#[tokio::test(start_paused = true)]
async fn a_loss_is_noticed_under_a_new_producer_id_too() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    for _ in 0..3 {
        partition.produce(record("a")).await.unwrap();
    }
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::UNKNOWN_PRODUCER_ID));
    rewrite(&wire, |partition| partition.base_offset -= 2);
    let error = partition.produce(record("b")).await.unwrap_err();
    let ErrorKind::DataLoss { offsets, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!((offsets, error.outcome()), (&Some(1..3), Outcome::Unknown));
    // It is final, and its id is not used by the next partition client.
    wire.clear_edits();
    let error = partition.produce(record("c")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DataLoss { .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    drop(partition);
    client.partition_client("wal", 0).await.unwrap().produce(record("d")).await.unwrap();
    let stamps = wire.stamps();
    assert!(stamps[..5].iter().all(|stamp| stamp.0 != stamps[5].0), "{stamps:?}");
}

/// Nothing else shows it: the leader is the one from before, on the same connection, and others have filled
/// up what was lost.
#[tokio::test(start_paused = true)]
async fn a_loss_is_noticed_when_the_producer_id_is_unknown() {
    for code in REFUSED_IDS {
        let broker = EmbeddedCluster::builder().brokers(2).topic("wal", 1).start_in_memory().unwrap();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        let leader = broker.leader("wal", 0).unwrap().unwrap();
        broker.shrink_isr("wal", 0, 3 - leader).unwrap();
        for value in ["a", "b"] {
            partition.produce(record(value)).await.unwrap();
        }
        broker.elect_unclean("wal", 0, 3 - leader).unwrap();
        sleep(Duration::from_secs(1)).await;
        broker.move_leader("wal", 0, leader).unwrap();
        let others = open(&broker).await;
        for value in ["x", "y", "z"] {
            others.produce(record(value)).await.unwrap();
        }
        broker.on(ApiKey::PRODUCE, Fault::Error(code));
        let error = partition.produce(record("c")).await.unwrap_err();
        let ErrorKind::DataLoss { offsets: Some(offsets), .. } = error.kind() else { panic!("{error:?}") };
        assert_eq!((offsets.clone(), error.outcome()), (0..2, Outcome::NotApplied));
        assert_eq!(log(&broker), ["x", "y", "z"]);
    }
}

/// An id goes back to the pool together with what was acknowledged to it.
#[tokio::test(start_paused = true)]
async fn a_loss_between_two_partition_clients_is_noticed() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let open = async || client.partition_client("wal", 0).await.unwrap();
    open().await.produce([record("a"), record("b")].concat()).await.unwrap();
    rewrite(&wire, |partition| partition.base_offset -= 1);
    let error = open().await.produce(record("c")).await.unwrap_err();
    let ErrorKind::DataLoss { offsets: Some(offsets), .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!(*offsets, 1..2);
}

#[tokio::test(start_paused = true)]
async fn a_base_offset_that_cannot_be_true_is_malformed_and_the_outcome_unknown() {
    for base_offset in [-2, i64::MIN, i64::MAX, i64::MIN + 1] {
        for idempotent in [true, false] {
            let broker = broker();
            let wire = Wire::to(&broker);
            let client = wire.client().await;
            let partition = client.partition_client("wal", 0).idempotent(idempotent).await.unwrap();
            rewrite(&wire, move |partition| partition.base_offset = base_offset);
            let error = partition.produce(record("a")).await.unwrap_err();
            assert_field(&error, "base_offset", base_offset);
            assert_eq!((error.outcome(), wire.count(ApiKey::PRODUCE)), (Outcome::Unknown, 1));
            // It stays usable, in the next epoch.
            wire.clear_edits();
            partition.produce(record("b")).await.unwrap();
            assert_eq!(log(&broker), ["a", "b"]);
            let [first, second] = wire.stamps()[..] else { panic!("{:?}", wire.stamps()) };
            let expected = if idempotent { (first.0, 1, 0) } else { first };
            assert_eq!(second, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_offset_that_was_acknowledged_before_is_a_data_loss() {
    // Repeated, lower, and inside of the batch before.
    for (base_offset, lost) in [(3, 3..5), (0, 0..5), (4, 4..5)] {
        for idempotent in [true, false] {
            let broker = broker();
            let wire = Wire::to(&broker);
            let client = wire.client().await;
            let partition = client.partition_client("wal", 0).idempotent(idempotent).await.unwrap();
            partition.produce([record("a"), record("b"), record("c")].concat()).await.unwrap();
            partition.produce([record("d"), record("e")].concat()).await.unwrap();
            rewrite(&wire, move |partition| partition.base_offset = base_offset);
            let error = partition.produce(record("f")).await.unwrap_err();
            let ErrorKind::DataLoss { offsets, .. } = error.kind() else { panic!("{error:?}") };
            assert_eq!((offsets, error.outcome()), (&Some(lost.clone()), Outcome::Unknown));
            wire.clear_edits();
            let sent = wire.count(ApiKey::PRODUCE);
            let error = partition.produce(record("g")).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::DataLoss { .. }), "{error:?}");
            assert_eq!((error.outcome(), wire.count(ApiKey::PRODUCE)), (Outcome::NotApplied, sent));
            assert!(partition.fetch(0).await.is_ok(), "it can still read");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn other_numbers_of_a_success_are_checked_too() {
    let changes: [(fn(&mut ProducePartitionResponse), _); 2] = [
        (|partition| partition.log_append_time_ms = -2, "log_append_time_ms"),
        (|partition| partition.log_start_offset = -2, "log_start_offset"),
    ];
    for (change, field) in changes {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        rewrite(&wire, change);
        let error = partition.produce(record("a")).await.unwrap_err();
        assert_field(&error, field, -2);
        assert_eq!(error.outcome(), Outcome::Unknown);
    }
    // A throttle time that is negative is none.
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    wire.edit::<ProduceRequest>(|response| response.throttle_time_ms = i32::MIN);
    for i in 0..3 {
        assert_eq!(partition.produce(record("a")).await.unwrap().base_offset, Some(i));
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_offsets_that_exist_are_not_exceeded() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    rewrite(&wire, |partition| partition.base_offset += i64::MAX - 3);
    let two = || [record("a"), record("b")].concat();
    assert_eq!(partition.produce(two()).await.unwrap().offsets(), Some(i64::MAX - 3..i64::MAX - 1));
    // The offset after these would not exist.
    let error = partition.produce(two()).await.unwrap_err();
    assert_field(&error, "base_offset", i64::MAX - 1);
}

/// Some services acknowledge an append without its offset.
#[tokio::test(start_paused = true)]
async fn an_append_at_an_unknown_offset_is_ok_without_offsets() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    rewrite(&wire, |partition| partition.base_offset = -1);
    for value in ["b", "c"] {
        let produced = partition.produce(record(value)).await.unwrap();
        assert_eq!((produced.base_offset, produced.offsets(), produced.attempts), (None, None, 1));
    }
    wire.clear_edits();
    assert_eq!(partition.produce(record("d")).await.unwrap().offsets(), Some(3..4));
    assert_eq!(log(&broker), ["a", "b", "c", "d"]);
    // What was acknowledged with an offset still counts.
    rewrite(&wire, |partition| partition.base_offset = 3);
    let error = partition.produce(record("e")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DataLoss { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_sequence_number_of_a_retry_is_an_append_at_an_unknown_offset() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::LoseReply);
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::DUPLICATE_SEQUENCE_NUMBER));
    let produced = partition.produce([record("b"), record("c")].concat()).await.unwrap();
    assert_eq!((produced.offsets(), produced.record_count, produced.attempts), (None, 2, 2));
    // The sequence goes on.
    assert_eq!(partition.produce(record("d")).await.unwrap().offsets(), Some(3..4));
    assert_eq!(log(&broker), ["a", "b", "c", "d"]);
    let id = wire.stamps()[0].0;
    assert_eq!(wire.stamps(), [(id, 0, 0), (id, 0, 1), (id, 0, 1), (id, 0, 3)]);
    // After an attempt that certainly appended nothing it is another producer's batch.
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::DUPLICATE_SEQUENCE_NUMBER));
    let error = partition.produce(record("e")).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::DUPLICATE_SEQUENCE_NUMBER));
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn an_answer_about_something_else_is_malformed_and_the_outcome_unknown() {
    let change = |text: &'static str, apply: fn(&mut ProduceResponse)| (text, apply);
    let changes = [
        change("another topic id", |response| response.responses[0].topic_id = Uuid([7; 16])),
        change("no topic id", |response| response.responses[0].topic_id = Uuid::default()),
        change("another partition", |response| response.responses[0].partition_responses[0].index = 1),
        change("a negative partition", |response| response.responses[0].partition_responses[0].index = -1),
        change("no topic", |response| response.responses.clear()),
        change("no partition", |response| response.responses[0].partition_responses.clear()),
        change("the partition twice", |response| {
            let topic = &mut response.responses[0];
            topic.partition_responses.push(topic.partition_responses[0].clone());
        }),
        change("another partition before it", |response| {
            let topic = &mut response.responses[0];
            let other = ProducePartitionResponse { index: 1, ..topic.partition_responses[0].clone() };
            topic.partition_responses.insert(0, other);
        }),
        change("the topic twice", |response| response.responses.push(response.responses[0].clone())),
    ];
    for (text, change) in changes {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        wire.edit::<ProduceRequest>(change);
        let error = partition.produce(record("a")).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::MalformedResponse), "{text}: {error:?}");
        assert_eq!((error.outcome(), wire.count(ApiKey::PRODUCE)), (Outcome::Unknown, 1), "{text}");
        wire.clear_edits();
        partition.produce(record("b")).await.unwrap();
        assert_eq!(log(&broker), ["a", "b"], "{text}");
    }
}

/// The records that are at fault can be left out, because none of the batch is on the log.
#[tokio::test(start_paused = true)]
async fn a_rejected_batch_names_the_records_that_are_at_fault() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    rewrite(&wire, |partition| {
        let error = |batch_index, message: Option<&str>| RecordError {
            batch_index,
            batch_index_error_message: message.map(str::to_owned),
        };
        partition.record_errors =
            vec![error(2, None), error(1, Some("no\nkey")), error(3, None), error(-1, None)];
        partition.error_message = Some("some records are not valid".to_owned());
    });
    let mut records = [record("a"), record("b"), record("c")].concat();
    let error = partition.produce(&records).await.unwrap_err();
    assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::INVALID_RECORD), Outcome::NotApplied));
    let found: Vec<_> = error.record_errors().iter().map(|e| (e.index, e.message.as_deref())).collect();
    assert_eq!(found, [(1, Some("no\nkey")), (2, None)]);
    let text = error.to_string();
    assert!(
        text.contains("some records are not valid") && text.contains("; record 1: no\\nkey; record 2"),
        "{text}"
    );
    for rejected in error.record_errors().iter().rev() {
        records.remove(rejected.index);
    }
    wire.clear_edits();
    partition.produce(records).await.unwrap();
    assert_eq!(log(&broker), ["a"]);
    // Without any, and in the error of an append that was not sent because of it.
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_TIMESTAMP));
    let error = partition.produce(record("d")).await.unwrap_err();
    assert_eq!(error.record_errors(), []);
}

/// Five records, of which the fourth is from the future.
#[tokio::test(start_paused = true)]
async fn a_record_from_the_future_is_named() {
    let hour = time::Duration::HOUR;
    let limit = hour.whole_milliseconds().to_string();
    let configs = [("message.timestamp.after.max.ms", limit.as_str())];
    let broker = EmbeddedCluster::builder().topic_with("wal", 1, &configs).start_in_memory().unwrap();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    let mut records = [record("a"), record("b"), record("c"), record("d"), record("e")].concat();
    records[3].timestamp += 2 * hour;
    let error = partition.produce(&records).await.unwrap_err();
    assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::INVALID_TIMESTAMP), Outcome::NotApplied));
    let found: Vec<_> = error.record_errors().iter().map(|rejected| rejected.index).collect();
    assert_eq!(found, [3]);
    // The id, which has appended nothing yet, is not given up for it.
    records.remove(3);
    assert_eq!(partition.produce(&records).await.unwrap().offsets(), Some(0..4));
    assert_eq!(wire.stamps()[0], wire.stamps()[1]);
}

/// Opens a partition whose broker gives out an id that cannot be one, `times` times.
async fn open_with_ids(wire: &Wire, id: i64, epoch: i16, times: usize) -> PartitionClient {
    let left = Arc::new(AtomicUsize::new(times));
    wire.edit::<InitProducerIdRequest>(move |response| {
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            (response.producer_id, response.producer_epoch) = (id, epoch);
        }
    });
    open_over(wire).await
}

#[tokio::test(start_paused = true)]
async fn a_producer_id_that_cannot_be_one_is_not_used() {
    for (id, epoch, field, value) in [
        (-1, -1, "producer_id", -1),
        (-1, 0, "producer_id", -1),
        (i64::MIN, 0, "producer_id", i64::MIN),
        (7, -1, "producer_epoch", -1),
        (7, i16::MIN, "producer_epoch", i16::MIN.into()),
    ] {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_with_ids(&wire, id, epoch, usize::MAX).await;
        let error = partition.produce(record("a")).await.unwrap_err();
        assert_field(&error, field, value);
        assert_eq!(error.context().api, Some(ApiKey::INIT_PRODUCER_ID));
        assert!(error.context().broker.is_some(), "{error:?}");
        assert_eq!((error.outcome(), wire.count(ApiKey::PRODUCE)), (Outcome::NotApplied, 0));
        // Idempotence is not lost: a lost response does not lead to a second copy.
        wire.clear_edits();
        broker.on(ApiKey::PRODUCE, Fault::LoseReply);
        assert_eq!(partition.produce(record("b")).await.unwrap().attempts, 2);
        assert_eq!(log(&broker), ["b"]);
        assert!(wire.stamps()[0].0 >= 0, "{:?}", wire.stamps());
    }
}

/// Two producers with one id would be one for the broker: the batch of the second would count as a duplicate
/// of the first.
#[tokio::test(start_paused = true)]
async fn a_producer_id_that_is_given_out_twice_is_used_once() {
    for refused in [false, true] {
        let broker = broker();
        let wire = Wire::to(&broker);
        let client = wire.client().await;
        let one = client.partition_client("wal", 0).await.unwrap();
        one.produce(record("a")).await.unwrap();
        let id = wire.stamps()[0].0;
        let count = AtomicUsize::new(0);
        wire.edit::<InitProducerIdRequest>(move |response| {
            // By the broker, by its bootstrap address, and for the other partition.
            if count.fetch_add(1, Ordering::Relaxed) < 3 {
                response.producer_id = id;
            }
        });
        let other = client.partition_client("wal", 0).await.unwrap();
        let error = match refused {
            true => {
                // The broker gives out the id again that it has refused.
                broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::UNKNOWN_PRODUCER_ID));
                one.produce(record("b")).await.unwrap_err()
            }
            false => other.produce(record("b")).await.unwrap_err(),
        };
        assert_field(&error, "producer_id", id);
        assert_eq!(error.outcome(), Outcome::NotApplied);
        // On another partition it does no harm.
        let third = client.partition_client("wal", 1).await.unwrap();
        third.produce(record("c")).await.unwrap();
        assert_eq!(wire.stamps().last().unwrap().0, id);
        other.produce(record("d")).await.unwrap();
        assert_eq!(log(&broker), ["a", "d"]);
    }
}

/// Each broker has ids of its own to give out, so the failure of one is no reason to wait.
#[tokio::test(start_paused = true)]
async fn if_one_broker_gives_out_no_producer_id_another_one_is_asked() {
    for code in [
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ErrorCode::UNKNOWN_SERVER_ERROR,
        ErrorCode::BROKER_NOT_AVAILABLE,
        ErrorCode::INVALID_REQUEST,
        ErrorCode(9999),
    ] {
        for seed in 0..6 {
            let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap();
            for odd in [1, 2] {
                cluster.on_all(FaultTarget::api(ApiKey::INIT_PRODUCER_ID).broker(odd), Fault::Error(code));
            }
            let wire = Wire::to(&cluster);
            let client = wire.builder().seed(seed).build().await.unwrap();
            let partition = client.partition_client("wal", 0).await.unwrap();
            let (produced, took) = timed(partition.produce(record("a"))).await;
            assert_eq!((produced.unwrap().attempts, took), (1, Duration::ZERO), "{code}, seed {seed}");
        }
        // If none does, the error names one of them.
        let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap();
        cluster.on_all(ApiKey::INIT_PRODUCER_ID, Fault::Error(code));
        let wire = Wire::to(&cluster);
        let partition = open_over(&wire).await;
        let limit = Duration::from_secs(5);
        let error = partition.produce(record("a")).deadline(limit).await.unwrap_err();
        assert_eq!((error.code(), error.outcome()), (Some(code), Outcome::NotApplied), "{error:?}");
        let text = format!("{error:?}");
        assert!(text.contains("InitProducerId of wal/0 at broker "), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_with_odd_producer_ids_is_passed_over() {
    for seed in 0..6 {
        let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap();
        let wire = Wire::to(&cluster);
        let client = wire.builder().seed(seed).build().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        let first = AtomicUsize::new(0);
        wire.edit::<InitProducerIdRequest>(move |response| {
            if first.fetch_add(1, Ordering::Relaxed) == 0 {
                response.producer_id = -1;
            }
        });
        let (produced, took) = timed(partition.produce(record("a"))).await;
        assert_eq!((produced.unwrap().attempts, took), (1, Duration::ZERO), "seed {seed}");
        assert_eq!(wire.count(ApiKey::INIT_PRODUCER_ID), 2);
    }
}

/// Rights are the same at every broker.
#[tokio::test(start_paused = true)]
async fn a_denied_producer_id_names_the_right_and_the_setting_that_does_without() {
    let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap();
    cluster.on_all(ApiKey::INIT_PRODUCER_ID, Fault::Error(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
    let wire = Wire::to(&cluster);
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    let (error, took) = timed(partition.produce(record("a"))).await;
    let error = error.unwrap_err();
    assert_eq!((error.code(), took), (Some(ErrorCode::CLUSTER_AUTHORIZATION_FAILED), Duration::ZERO));
    assert_eq!((error.outcome(), error.is_retriable()), (Outcome::NotApplied, false));
    let text = error.to_string();
    for part in ["at broker ", "`IdempotentWrite`", "`Write`", "`.idempotent(false)`"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(wire.count(ApiKey::INIT_PRODUCER_ID), 1);
    let partition = client.partition_client("wal", 0).idempotent(false).await.unwrap();
    partition.produce(record("b")).await.unwrap();
}
