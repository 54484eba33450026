//! C7: an error that would come again is kept; after another one, reading goes on where it was.

use std::time::Duration;

use futures::StreamExt;
use kwal_batching::reader::{follow, replay};
use kwal_client::{OffsetAt, RetryPolicy, error::ErrorKind};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{Fault, FaultTarget, wire::Wire};
use tokio::time::sleep;

use crate::support::{append, broker, gaps, open, open_over, records_of, settle, timed};

const DEADLINE: Duration = Duration::from_secs(7);

#[tokio::test(start_paused = true)]
async fn a_retriable_error_comes_after_the_deadline_and_reading_goes_on() {
    let broker = broker();
    let partition = open(&broker).await;
    append(&partition, 0..2).await;
    append(&partition, 2..4).await;
    for by_record in [false, true] {
        let mut stream = follow(&partition, 0).max_bytes(1).deadline(DEADLINE).await.unwrap();
        assert_eq!(records_of(&stream.next_batch().await.unwrap()), [0, 1]);
        settle().await;
        broker.on_all(ApiKey::FETCH, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        // What was fetched ahead of the fault is not lost.
        if by_record {
            assert_eq!(stream.next().await.unwrap().unwrap().offset, 2);
            assert_eq!(stream.next().await.unwrap().unwrap().offset, 3);
        } else {
            assert_eq!(records_of(&stream.next_batch().await.unwrap()), [2, 3]);
        }
        for _ in 0..3 {
            let (error, took) = if by_record {
                let (item, took) = timed(stream.next()).await;
                (item.unwrap().unwrap_err(), took)
            } else {
                let (result, took) = timed(stream.next_batch()).await;
                (result.unwrap_err(), took)
            };
            assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
            assert!(error.is_retriable());
            // That which was sent ahead fails first.
            let pause = RetryPolicy::default().max;
            assert!(took + pause > DEADLINE && took <= 2 * DEADLINE, "{took:?}");
        }
        broker.clear_faults();
        let end = broker.end_offset("wal", 0).unwrap();
        append(&partition, end..end + 1).await;
        let mut offsets = Vec::new();
        while !stream.caught_up() || stream.position().offset <= end {
            offsets.extend(records_of(&stream.next_batch().await.unwrap()));
        }
        assert_eq!(offsets, (4..end + 1).collect::<Vec<_>>());
        assert_eq!(gaps(stream.summary()), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_was_sent_long_ago_is_read_all_the_same() {
    let broker = broker();
    let partition = open(&broker).await;
    append(&partition, 0..2).await;
    append(&partition, 2..4).await;
    let mut stream = follow(&partition, 0).max_bytes(1).deadline(DEADLINE).await.unwrap();
    for offsets in [[0, 1], [2, 3]] {
        assert_eq!(records_of(&stream.next_batch().await.unwrap()), offsets);
        sleep(1_000 * DEADLINE).await;
    }
    append(&partition, 4..5).await;
    assert_eq!(records_of(&stream.next_batch().await.unwrap()), [4]);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_fetch_ahead_hands_out_nothing_of_it() {
    for code in [ErrorCode::UNKNOWN_SERVER_ERROR, ErrorCode::KAFKA_STORAGE_ERROR] {
        let broker = broker();
        let partition = open(&broker).await;
        for offset in 0..6 {
            append(&partition, offset..offset + 1).await;
        }
        // The one ahead fails, and is asked again when it is due.
        let ahead = FaultTarget::api(ApiKey::FETCH).after(2);
        broker.on(ahead, Fault::Error(code));
        let mut stream = follow(&partition, 0).max_bytes(1).await.unwrap();
        for offset in 0..6 {
            assert_eq!(records_of(&stream.next_batch().await.unwrap()), [offset]);
        }
        assert_eq!(broker.faults_left(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_final_error_is_kept_and_ends_a_stream_of_records() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (client, partition) = open_over(&broker, &wire).await;
    append(&partition, 0..2).await;
    let kept = follow(&partition, 2).await.unwrap().position();
    let mut stream = follow(&partition, 0).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().offset, 0);
    let before = broker.delete_topic("wal").unwrap();
    let now = broker.create_topic("wal", 2).unwrap();
    // What was handed to the reader before is read.
    assert_eq!(stream.next().await.unwrap().unwrap().offset, 1);
    let error = stream.next().await.unwrap().unwrap_err();
    let ErrorKind::TopicRecreated { was, is, .. } = *error.kind() else { panic!("{error:?}") };
    assert_eq!((was, is), (before, now));
    assert!(stream.next().await.is_none() && stream.next().await.is_none());
    let fetches = wire.requests(ApiKey::FETCH);
    for _ in 0..3 {
        let again = stream.next_batch().await.unwrap_err();
        assert_eq!(again.to_string(), error.to_string());
    }
    assert_eq!(wire.requests(ApiKey::FETCH), fetches);
    assert_eq!((stream.position().offset, stream.skip_unreadable()), (2, None));

    // So is a position that was kept, by a client that knows the new topic alone, and a replay to it.
    let partition = client.partition_client("wal", 0).await.unwrap();
    append(&partition, 0..3).await;
    for from in [kept, at_its_end(kept)] {
        let mut replay = replay(&partition, from).await.unwrap();
        let error = replay.next_batch().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TopicRecreated { .. }), "{error:?}");
        assert_eq!(replay.summary().records, 0);
        let error = follow(&partition, from).await.unwrap().next().await.unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TopicRecreated { .. }), "{error:?}");
    }
}

/// The same position at the end of the new log, where nothing is left to read.
fn at_its_end(position: kwal_client::Position) -> kwal_client::Position {
    kwal_client::Position { offset: 3, ..position }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_closed_ends_its_readers() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (client, partition) = open_over(&broker, &wire).await;
    append(&partition, 0..2).await;
    let mut stream = follow(&partition, OffsetAt::Latest).await.unwrap();
    client.close().await;
    for _ in 0..2 {
        let error = stream.next_batch().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed), "{error:?}");
    }
    assert!(matches!(replay(&partition, 0).await.unwrap_err().kind(), ErrorKind::Closed));
}

#[tokio::test(start_paused = true)]
async fn opening_has_the_deadline_of_a_request() {
    let broker = broker();
    let partition = open(&broker).await;
    broker.on_all(ApiKey::LIST_OFFSETS, Fault::Error(ErrorCode::LEADER_NOT_AVAILABLE));
    let (error, took) = timed(replay(&partition, 0).deadline(DEADLINE)).await;
    assert!(matches!(error.unwrap_err().kind(), ErrorKind::DeadlineExceeded { .. }));
    assert!(took <= DEADLINE, "{took:?}");
    let (error, took) = timed(follow(&partition, OffsetAt::Earliest).deadline(DEADLINE)).await;
    assert!(error.unwrap_err().is_retriable() && took <= DEADLINE, "{took:?}");
}
