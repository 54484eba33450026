//! C1 and C2: an append that is `Ok` is on the log, once; one that failed has a clear outcome.

use std::{sync::Arc, time::Duration};

use kwal_client::{
    Limits, PartitionClient,
    error::{ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{EmbeddedCluster, Fault};
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::support::{
    HOUR, Wire, WireMode, assert_took, broker, deadlines, large, log, open, open_over, record, settle, timed,
};

/// The leader may have appended the batch before it responds with one of these.
const UNKNOWN_OUTCOME: [ErrorCode; 6] = [
    ErrorCode::NOT_LEADER_OR_FOLLOWER,
    ErrorCode::REQUEST_TIMED_OUT,
    ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode::KAFKA_STORAGE_ERROR,
    ErrorCode::NETWORK_EXCEPTION,
];

/// A leader that responds with one of these has not appended the batch.
const REJECTED: [ErrorCode; 5] = [
    ErrorCode::INVALID_RECORD,
    ErrorCode::INVALID_TIMESTAMP,
    ErrorCode::CORRUPT_MESSAGE,
    ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
    ErrorCode::TOPIC_AUTHORIZATION_FAILED,
];

/// Asserts that all appends have the same producer id, epoch and sequence.
#[track_caller]
fn assert_same(stamps: &[(i64, i16, i32)], count: usize) {
    assert_eq!(stamps.len(), count);
    assert!(stamps.iter().all(|stamp| *stamp == stamps[0]), "{stamps:?}");
}

#[tokio::test(start_paused = true)]
async fn every_append_waits_for_all_replicas_that_are_in_sync() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    for idempotent in [true, false] {
        let partition = client.partition_client("wal", 0).idempotent(idempotent).await.unwrap();
        partition.produce(record("a")).await.unwrap();
    }
    let seen = wire.seen(ApiKey::PRODUCE);
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.acks == Some(-1)), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_ok_is_at_the_reported_offsets() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    let two = [record("a"), record("b")].concat();
    assert_eq!(partition.produce(two).await.unwrap().offsets(), Some(0..2));
    let produced = partition.produce(record("c")).await.unwrap();
    assert_eq!((produced.offsets(), produced.attempts, produced.log_start_offset), (Some(2..3), 1, Some(0)));
    assert_eq!(produced.wire_bytes, broker.log("wal", 0).unwrap()[1].size_in_bytes());
    assert_eq!(produced.log_append_time_ms, None);
    assert_eq!(log(&broker), ["a", "b", "c"]);
    let [(id, 0, 0), (same, 0, 2)] = wire.stamps()[..] else { panic!("{:?}", wire.stamps()) };
    assert_eq!(id, same);
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_response_was_lost_is_retried_and_on_the_log_once() {
    for lost in 1..4 {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        partition.produce(record("a")).await.unwrap();
        broker.on_times(ApiKey::PRODUCE, lost, Fault::LoseReply);
        let produced = partition.produce(record("b")).await.unwrap();
        assert_eq!((produced.base_offset, produced.attempts as usize), (Some(1), lost + 1));
        assert_eq!(partition.produce(record("c")).await.unwrap().base_offset, Some(2));
        assert_eq!(log(&broker), ["a", "b", "c"]);
        assert_same(&wire.stamps()[1..lost + 2], lost + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_never_arrived_is_retried() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    broker.on_times(ApiKey::PRODUCE, 2, Fault::Drop);
    assert_eq!(partition.produce(record("a")).await.unwrap().attempts, 3);
    assert_eq!(log(&broker), ["a"]);
    assert_same(&wire.stamps(), 3);
}

#[tokio::test(start_paused = true)]
async fn codes_that_may_follow_the_append_are_retried() {
    for code in UNKNOWN_OUTCOME {
        for fault in [Fault::ErrorAfter(code), Fault::Error(code)] {
            let broker = broker();
            let wire = Wire::to(&broker);
            let partition = open_over(&wire).await;
            broker.on(ApiKey::PRODUCE, fault);
            let produced = partition.produce(record("a")).await.unwrap();
            assert_eq!((produced.base_offset, produced.attempts), (Some(0), 2), "{fault:?}");
            partition.produce(record("b")).await.unwrap();
            assert_eq!(log(&broker), ["a", "b"], "{fault:?}");
            assert_same(&wire.stamps()[..2], 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn codes_that_may_follow_the_append_are_outcome_unknown_at_the_deadline() {
    // An unknown code is not retried, and the outcome is unknown as well.
    let mut codes = UNKNOWN_OUTCOME.to_vec();
    codes.extend([ErrorCode::UNKNOWN_SERVER_ERROR, ErrorCode(9999), ErrorCode::DUPLICATE_SEQUENCE_NUMBER]);
    for code in codes {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        broker.on_all(ApiKey::PRODUCE, Fault::ErrorAfter(code));
        let (error, took) = timed(partition.produce(record("a"))).await;
        let error = error.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
        assert_eq!(error.code(), Some(code), "{error:?}");
        assert!(took <= deadlines().operation, "{code} took {took:?}");
        let stamps = wire.stamps();
        assert_same(&stamps, stamps.len());

        // The next one uses the next epoch, so that the one in doubt can no longer be appended.
        broker.clear_faults();
        partition.produce(record("b")).await.unwrap();
        assert_eq!(*wire.stamps().last().unwrap(), (stamps[0].0, stamps[0].1 + 1, 0));
        assert_eq!(log(&broker), ["a", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_in_doubt_that_arrives_late_is_rejected() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    broker.on_all(ApiKey::PRODUCE, Fault::DelayRequest(HOUR));
    let (error, took) = timed(partition.produce(record("late"))).await;
    let error = error.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
    assert_took(took, deadlines().operation);
    let id = wire.stamps()[0].0;
    assert!(wire.stamps()[1..].iter().all(|stamp| *stamp == (id, 0, 1)), "{:?}", wire.stamps());

    broker.clear_faults();
    let before = wire.count(ApiKey::PRODUCE);
    partition.produce(record("b")).await.unwrap();
    partition.produce(record("c")).await.unwrap();
    let mut stamps = wire.stamps().split_off(before);
    // The first attempt may have been queued after the late one, on the same connection.
    stamps.dedup();
    assert_eq!(stamps, [(id, 1, 0), (id, 1, 1)]);
    assert_eq!(log(&broker), ["a", "b", "c"]);
    sleep(2 * HOUR).await;
    assert_eq!(log(&broker), ["a", "b", "c"], "the late one was rejected");
    partition.produce(record("d")).await.unwrap();
    assert_eq!(log(&broker), ["a", "b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_arrives_after_the_append_is_ok_changes_nothing() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    // The first attempt is delayed beyond the time limit of a request; the second one succeeds.
    broker.on(ApiKey::PRODUCE, Fault::DelayRequest(Duration::from_secs(30)));
    let (produced, took) = timed(partition.produce(record("a"))).await;
    assert_eq!(produced.unwrap().attempts, 2);
    assert!(took >= deadlines().request && took < deadlines().request + Duration::from_secs(1), "{took:?}");
    for value in ["b", "c"] {
        partition.produce(record(value)).await.unwrap();
    }
    sleep(HOUR).await;
    assert_eq!(log(&broker), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_append_is_not_applied_and_its_sequence_number_is_used_again() {
    for code in REJECTED {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        broker.on(ApiKey::PRODUCE, Fault::Error(code));
        let (error, took) = timed(partition.produce(record("a"))).await;
        let error = error.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Broker { code: found, .. } if *found == code), "{error:?}");
        assert_eq!((error.outcome(), error.is_retriable()), (Outcome::NotApplied, false));
        assert_eq!((took, wire.count(ApiKey::PRODUCE)), (Duration::ZERO, 1), "{code} is final");
        partition.produce(record("b")).await.unwrap();
        assert_same(&wire.stamps(), 2);
        assert_eq!(log(&broker), ["b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_too_large_for_the_topic_is_reported_with_its_size() {
    let broker = EmbeddedCluster::builder()
        .topic_with("wal", 1, &[("max.message.bytes", "1000")])
        .start_in_memory()
        .unwrap();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    let error = partition.produce(large(2000)).await.unwrap_err();
    let ErrorKind::BatchTooLarge { size: 2000..2200, records: 1, limit: None, .. } = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert!(error.to_string().contains("max.message.bytes"), "{error}");
    partition.produce(record("b")).await.unwrap();
    assert_same(&wire.stamps(), 2);
    assert_eq!(log(&broker), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn an_append_waits_for_enough_replicas() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    let code = ErrorCode::NOT_ENOUGH_REPLICAS;
    broker.on_times(ApiKey::PRODUCE, 3, Fault::Error(code));
    assert_eq!(partition.produce(record("a")).await.unwrap().attempts, 4);
    assert_same(&wire.stamps(), 4);

    broker.on_all(ApiKey::PRODUCE, Fault::Error(code));
    let (error, took) = timed(partition.produce(record("b"))).await;
    let error = error.unwrap_err();
    assert_took(took, deadlines().operation);
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
    assert_eq!((error.outcome(), error.code()), (Outcome::NotApplied, Some(code)), "{error:?}");
    assert!(error.is_retriable());

    broker.clear_faults();
    partition.produce(record("c")).await.unwrap();
    assert_eq!(log(&broker), ["a", "c"]);
    let stamps = wire.stamps();
    assert_eq!(*stamps.last().unwrap(), (stamps[0].0, 0, 1), "the sequence number is used again");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_stays_not_applied_when_no_further_attempt_gets_through() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let (error, ()) = tokio::join!(partition.produce(record("a")), async {
        settle().await;
        wire.set(WireMode::Unreachable);
        broker.disconnect_all();
    });
    let error = error.unwrap_err();
    assert_eq!((error.outcome(), wire.count(ApiKey::PRODUCE)), (Outcome::NotApplied, 1), "{error:?}");
    wire.set(WireMode::Passing);
    partition.produce(record("b")).await.unwrap();
    assert_same(&wire.stamps(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_sequence_numbers_an_append_in_doubt_is_not_retried() {
    let mut faults: Vec<_> = UNKNOWN_OUTCOME.into_iter().map(Fault::ErrorAfter).collect();
    faults.extend(UNKNOWN_OUTCOME.into_iter().map(Fault::Error));
    faults.extend([Fault::LoseReply, Fault::Drop, Fault::DelayReply(HOUR), Fault::WrongCorrelationId]);
    for fault in faults {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_without_idempotence(&wire).await;
        broker.on(ApiKey::PRODUCE, fault);
        let error = partition.produce(record("a")).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
        assert_eq!(wire.count(ApiKey::PRODUCE), 1, "{fault:?}");
        partition.produce(record("b")).await.unwrap();
        assert!(log(&broker).iter().filter(|value| *value == "a").count() <= 1, "{fault:?}");
        assert_eq!(wire.stamps(), [(-1, -1, -1); 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_sequence_numbers_a_rejection_is_retried() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_without_idempotence(&wire).await;
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    assert_eq!(partition.produce(record("a")).await.unwrap().attempts, 2);
    // Nothing has been written if the connection cannot be opened.
    broker.stop(1).unwrap();
    settle().await;
    let (produced, ()) = tokio::join!(partition.produce(record("b")), async {
        sleep(Duration::from_secs(3)).await;
        broker.restart(1).unwrap();
    });
    assert_eq!(produced.unwrap().attempts, 1);
    assert_eq!(log(&broker), ["a", "b"]);
    assert_eq!(wire.count(ApiKey::INIT_PRODUCER_ID), 0);
}

/// Kafka has no timestamps before 1970, and −1 means none.
#[tokio::test(start_paused = true)]
async fn a_timestamp_before_1970_is_rejected_before_anything_is_sent() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let millisecond = time::Duration::MILLISECOND;
    let at = |since: time::Duration| {
        let mut records = [record("a"), record("b"), record("c")].concat();
        records[1].timestamp = OffsetDateTime::UNIX_EPOCH + since;
        records
    };
    for idempotent in [true, false] {
        let partition = client.partition_client("wal", 0).idempotent(idempotent).await.unwrap();
        for since in
            [-millisecond, -2 * millisecond, -time::Duration::NANOSECOND, -time::Duration::days(365 * 200)]
        {
            let (error, took) = timed(partition.produce(at(since))).await;
            let error = error.unwrap_err();
            let ErrorKind::InvalidInput { reason, .. } = error.kind() else { panic!("{error:?}") };
            assert!(reason.contains("record 1 has a timestamp before 1970"), "{reason}");
            assert_eq!((error.outcome(), took), (Outcome::NotApplied, Duration::ZERO));
        }
        assert_eq!((wire.count(ApiKey::PRODUCE), wire.count(ApiKey::INIT_PRODUCER_ID)), (0, 0));
    }
    let partition = client.partition_client("wal", 0).await.unwrap();
    for since in [time::Duration::ZERO, millisecond] {
        partition.produce(at(since)).await.unwrap();
    }
    let timestamps: Vec<_> =
        broker.records("wal", 0).unwrap().iter().map(|record| record.timestamp_ms).collect();
    assert_eq!((timestamps[1], timestamps[4]), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_fenced_client_cannot_append_any_more() {
    for code in [ErrorCode::INVALID_PRODUCER_EPOCH, ErrorCode::PRODUCER_FENCED] {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        broker.on(ApiKey::PRODUCE, Fault::Error(code));
        for _ in 0..3 {
            let error = partition.produce(record("a")).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Fenced), "{error:?}");
            assert_eq!(error.outcome(), Outcome::NotApplied);
        }
        assert_eq!(wire.count(ApiKey::PRODUCE), 1);
        assert!(partition.fetch(0).await.is_ok(), "it can still read");
        // An append that was in doubt when it was fenced may be on the log.
        let other = open_over(&wire).await;
        broker.on(ApiKey::PRODUCE, Fault::LoseReply);
        broker.on(ApiKey::PRODUCE, Fault::Error(code));
        let error = other.produce(record("b")).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Fenced), "{error:?}");
        assert_eq!(error.outcome(), Outcome::Unknown);
    }
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_acknowledged_records_ends_the_client() {
    let cluster = EmbeddedCluster::builder().seed(5).brokers(2).topic_assigned("wal", &[&[1, 2]]);
    let cluster = cluster.start_in_memory().unwrap();
    let wire = Wire::to(&cluster);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    cluster.set_lag("wal", 0, 2, HOUR).unwrap();
    cluster.shrink_isr("wal", 0, 2).unwrap();
    partition.produce([record("b"), record("c")].concat()).await.unwrap();
    cluster.kill(1).unwrap();
    cluster.elect_unclean("wal", 0, 2).unwrap();
    // Somebody else has filled the offsets.
    let other = open_over(&wire).await;
    for _ in 0..3 {
        other.produce(record("x")).await.unwrap();
    }
    let sent = wire.count(ApiKey::PRODUCE);
    for _ in 0..3 {
        let error = partition.produce(record("d")).await.unwrap_err();
        let ErrorKind::DataLoss { epoch: 0, sequence: 1, offsets: Some(lost), .. } = error.kind() else {
            panic!("{error:?}")
        };
        assert_eq!((lost.clone(), error.outcome()), (1..3, Outcome::NotApplied));
    }
    assert_eq!(wire.count(ApiKey::PRODUCE), sent, "nothing is sent after it");
    // Another client has its own id.
    open_over(&wire).await.produce(record("e")).await.unwrap();
    assert_eq!(log(&cluster), ["a", "x", "x", "x", "e"]);
}

/// A leader that has what it acknowledged and rejects what follows has lost nothing.
#[tokio::test(start_paused = true)]
async fn a_rejected_sequence_after_a_batch_that_is_there_is_left_for_the_next_epoch() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    assert_eq!(partition.produce(record("b")).await.unwrap().attempts, 2);
    partition.produce(record("c")).await.unwrap();
    let id = wire.stamps()[0].0;
    assert_eq!(wire.stamps(), [(id, 0, 0), (id, 0, 1), (id, 1, 0), (id, 1, 1)]);
    assert_eq!(log(&broker), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn an_append_during_a_restart_is_on_the_log_once() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    for round in 0..5_u64 {
        let (produced, ()) = tokio::join!(partition.produce(record(round.to_string())), async {
            broker.stop(1).unwrap();
            sleep(Duration::from_secs(round * 3)).await;
            broker.restart(1).unwrap();
        });
        assert_eq!(produced.unwrap().base_offset, Some(round as i64));
        broker.disconnect_all();
    }
    assert_eq!(log(&broker), ["0", "1", "2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_batch_leaves_the_records_with_the_caller() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let limits = Limits::default().batch(10_000);
    let client = wire.builder().limits(limits).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let records = vec![Record::new("a key", "a").header("name", "value"), Record::new(None::<&str>, "b")];
    let before = records.clone();

    // Rejected by the broker.
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    let error = partition.produce(&records).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::INVALID_RECORD));
    // Too large for the topic, and for the client.
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::MESSAGE_TOO_LARGE));
    let error = partition.produce(&records).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { limit: None, .. }), "{error:?}");
    let too_large = large(10_000);
    let error = partition.produce(&too_large).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { limit: Some(10_000), .. }), "{error:?}");
    assert_eq!(too_large[0].value.as_ref().unwrap().len(), 10_000);
    // Not acknowledged within the deadline, and dropped before the first poll.
    broker.on_all(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let error = partition.produce(&records).deadline(Duration::from_secs(3)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
    drop(partition.produce(&records));
    broker.clear_faults();
    assert_eq!(records, before);
    assert!(log(&broker).is_empty());

    // The same records in every form that a caller may have them in.
    assert_eq!(partition.produce(&records).await.unwrap().offsets(), Some(0..2));
    assert_eq!(partition.produce(&records[..]).await.unwrap().offsets(), Some(2..4));
    assert_eq!(partition.produce(Arc::<[Record]>::from(&records[1..])).await.unwrap().offsets(), Some(4..5));
    assert_eq!(partition.produce([records[0].clone()]).await.unwrap().offsets(), Some(5..6));
    assert_eq!(partition.produce(records).await.unwrap().offsets(), Some(6..8));
    assert_eq!(log(&broker), ["a", "b", "a", "b", "b", "a", "a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_look_up_without_a_response_is_repeated() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(record("a")).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::Drop);
    for _ in 0..3 {
        broker.on(ApiKey::FETCH, Fault::BlackHole);
    }
    partition.produce(record("b")).await.unwrap();
    assert_eq!(log(&broker), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn without_sequence_numbers_a_batch_goes_out_without_the_stamp_that_it_has() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_without_idempotence(&wire).await;
    for sequence in [0, 7, 0] {
        let batch = partition.encode(record("a")).unwrap().stamp(12, 0, sequence);
        partition.reserve(batch.size_in_bytes()).await.unwrap().submit(batch).await.unwrap();
    }
    assert_eq!(wire.stamps(), [(-1, -1, -1); 3]);
    assert_eq!(log(&broker), ["a"; 3]);
}

async fn open_without_idempotence(wire: &Wire) -> PartitionClient {
    wire.client().await.partition_client("wal", 0).idempotent(false).await.unwrap()
}
