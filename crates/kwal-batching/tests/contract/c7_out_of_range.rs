//! C7: a position that is not in the log is an error, or moved by a policy that the caller states.

use std::time::Duration;

use kwal_batching::reader::{OutOfRange, follow, replay};
use kwal_client::{GapReason, OffsetAt, error::ErrorKind};
use tokio::time::timeout;

use crate::support::{append, broker, drain, gaps, open, records_of, settle};

/// A log of offsets 4 to 9 in batches of two.
async fn trimmed(broker: &kwal_testkit::EmbeddedCluster) -> kwal_client::PartitionClient {
    let partition = open(broker).await;
    for offset in 0..5 {
        append(&partition, 2 * offset..2 * offset + 2).await;
    }
    broker.delete_records("wal", 0, 4).unwrap();
    partition
}

#[tokio::test(start_paused = true)]
async fn a_position_before_the_log_start() {
    let broker = broker();
    let partition = trimmed(&broker).await;
    for from in [0, 3] {
        let mut stream = follow(&partition, from).await.unwrap();
        for _ in 0..2 {
            let error = stream.next_batch().await.unwrap_err();
            let ErrorKind::Trimmed { offset, log_start: 4, .. } = *error.kind() else { panic!("{error:?}") };
            assert_eq!((offset, stream.position().offset), (from, from));
        }
        let mut stream = follow(&partition, from).out_of_range(OutOfRange::FromStart).await.unwrap();
        assert_eq!(records_of(&stream.next_batch().await.unwrap()), [4, 5]);
        assert_eq!(gaps(stream.summary()), [(from..4, GapReason::Trimmed)]);

        let mut stream = follow(&partition, from).out_of_range(OutOfRange::FromEnd).await.unwrap();
        assert!(timeout(Duration::from_secs(1), stream.next_batch()).await.is_err());
        assert_eq!(gaps(stream.summary()), [(from..4, GapReason::Trimmed), (4..10, GapReason::Passed)]);
        assert!(stream.caught_up());
    }
}

#[tokio::test(start_paused = true)]
async fn a_position_beyond_the_end() {
    let broker = broker();
    let partition = trimmed(&broker).await;
    for from in [11, i64::MAX] {
        let mut stream = follow(&partition, from).await.unwrap();
        for _ in 0..2 {
            let error = stream.next_batch().await.unwrap_err();
            let ErrorKind::BeyondEnd { offset, end: 10, .. } = *error.kind() else { panic!("{error:?}") };
            assert_eq!((offset, stream.position().offset), (from, from));
        }
        let mut stream = follow(&partition, from).out_of_range(OutOfRange::FromStart).await.unwrap();
        assert_eq!(records_of(&stream.next_batch().await.unwrap()), [4, 5]);
        assert_eq!((stream.summary().offsets.clone(), gaps(stream.summary())), (4..6, vec![]));
        let mut stream = follow(&partition, from).out_of_range(OutOfRange::FromEnd).await.unwrap();
        assert!(timeout(Duration::from_secs(1), stream.next_batch()).await.is_err());
        assert_eq!((stream.position().offset, stream.summary().offsets.clone()), (10, 10..10));
        // A replay from there reads the whole log, or nothing. It never ends silently.
        let mut whole = replay(&partition, from).out_of_range(OutOfRange::FromStart).await.unwrap();
        assert_eq!(drain(&mut whole).await, [4, 5, 6, 7, 8, 9]);
        let mut nothing = replay(&partition, from).out_of_range(OutOfRange::FromEnd).await.unwrap();
        assert_eq!(drain(&mut nothing).await, [0; 0]);
        let error = replay(&partition, from).await.unwrap().next_batch().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::BeyondEnd { .. }), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_deletion_passes() {
    for (policy, before) in [
        (OutOfRange::Fail, 8),
        (OutOfRange::FromStart, 8),
        (OutOfRange::FromStart, 9),
        (OutOfRange::FromStart, 12),
        (OutOfRange::FromEnd, 8),
        (OutOfRange::FromEnd, 12),
    ] {
        let broker = broker();
        let partition = trimmed(&broker).await;
        let open = replay(&partition, 4).out_of_range(policy).max_bytes(1);
        let mut replay = open.await.unwrap();
        append(&partition, 10..14).await;
        assert_eq!(records_of(&replay.next_batch().await.unwrap().unwrap()), [4, 5]);
        settle().await;
        broker.delete_records("wal", 0, before).unwrap();
        // What had been fetched ahead by then is read.
        assert_eq!(records_of(&replay.next_batch().await.unwrap().unwrap()), [6, 7]);
        // So is that which was sent when it was deleted.
        let rest = drain(&mut replay).await;
        assert_eq!(replay.position().offset, 10);
        gaps(replay.summary());
        let mut stream = replay.follow();
        let mut followed = Vec::new();
        while let Ok(batch) = timeout(Duration::from_secs(5), stream.next_batch()).await {
            followed.extend(records_of(&batch.unwrap()));
        }
        assert!(rest.iter().all(|offset| (8..10).contains(offset)));
        let first = if policy == OutOfRange::FromEnd && before > 10 { 14 } else { before.max(10) };
        assert_eq!(followed, (first..14).collect::<Vec<_>>(), "{policy:?} {before}");
        assert_eq!(stream.summary().offsets, 4..14);
        gaps(stream.summary());
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_whose_end_was_deleted_too_fails() {
    let broker = broker();
    let partition = trimmed(&broker).await;
    let mut replay = replay(&partition, 4).await.unwrap();
    append(&partition, 10..14).await;
    broker.delete_records("wal", 0, 12).unwrap();
    for _ in 0..2 {
        let error = replay.next_batch().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Trimmed { offset: 4, log_start: 12, .. }), "{error:?}");
    }
    assert_eq!((replay.position().offset, replay.summary().records), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn the_start_of_the_log_is_found_again_if_it_is_deleted_before_it_was_read() {
    let broker = broker();
    let partition = open(&broker).await;
    for offset in 0..5 {
        append(&partition, offset..offset + 1).await;
    }
    for policy in [OutOfRange::Fail, OutOfRange::FromEnd] {
        let mut replay = replay(&partition, OffsetAt::Earliest).out_of_range(policy).await.unwrap();
        let start = broker.start_offset("wal", 0).unwrap() + 1;
        broker.delete_records("wal", 0, start).unwrap();
        assert_eq!(drain(&mut replay).await, (start..5).collect::<Vec<_>>());
        assert_eq!((replay.summary().offsets.clone(), gaps(replay.summary())), (start..5, vec![]));
    }
    // That is not so of an offset, and of a reader that has begun.
    let mut stream = follow(&partition, OffsetAt::Earliest).max_bytes(1).await.unwrap();
    stream.next_batch().await.unwrap();
    broker.delete_records("wal", 0, 5).unwrap();
    let error = loop {
        match stream.next_batch().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error.kind(), ErrorKind::Trimmed { log_start: 5, .. }), "{error:?}");
}
