//! C7: a replay reads what was on the log when it was opened, and ends.

use std::time::Duration;

use futures::StreamExt;
use kwal_batching::reader::{self, Start, replay};
use kwal_client::{GapReason, Isolation, OffsetAt, Position, error::ErrorKind, record::Record};
use kwal_protocol::{
    api::ApiKey,
    messages::{FetchRequest, ListOffsetsRequest},
    record::Compression,
};
use kwal_testkit::wire::Wire;
use time::OffsetDateTime;

use crate::support::{
    append, batch, broker, drain, emptied, gaps, marker, open, open_over, records_of, timed, transactional,
};

#[tokio::test(start_paused = true)]
async fn it_reads_what_was_there_when_it_was_opened() {
    let broker = broker();
    let partition = open(&broker).await;
    append(&partition, 0..3).await;
    append(&partition, 3..4).await;
    let mut replay = replay(&partition, OffsetAt::Earliest).await.unwrap();
    assert_eq!((replay.progress().position, replay.progress().end), (0, 4));
    append(&partition, 4..6).await;
    assert_eq!(drain(&mut replay).await, [0, 1, 2, 3]);
    assert!(replay.next_batch().await.unwrap().is_none(), "it stays at its end");
    let progress = replay.progress();
    assert_eq!((progress.position, progress.end), (4, 4));
    let sizes = broker.log("wal", 0).unwrap().iter().take(2).map(|batch| batch.size_in_bytes() as u64).sum();
    assert_eq!((progress.bytes, replay.summary().bytes), (sizes, sizes));
    let summary = replay.summary();
    assert_eq!((summary.offsets.clone(), summary.records, &summary.beyond), (0..4, 4, &None));
    assert_eq!(gaps(summary), []);
    let position = replay.position();
    assert_eq!((position.topic_id, position.offset), (partition.topic_id(), 4));
    assert!(position.leader_epoch.is_some());
}

#[tokio::test(start_paused = true)]
async fn its_end_is_not_that_of_a_fetch() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = open_over(&broker, &wire).await;
    append(&partition, 0..3).await;
    // A new leader's high watermark is too low for a while. Its fetches end there.
    for (high_watermark, expected) in [(0, 3), (100, 3)] {
        wire.rewrite::<FetchRequest>(move |response| {
            response.responses[0].partitions[0].high_watermark = high_watermark;
        });
        let mut replay = replay(&partition, 0).await.unwrap();
        assert_eq!(drain(&mut replay).await, [0, 1, 2]);
        assert_eq!(replay.progress().end, expected);
        wire.clear_rewrites();
    }
    // An empty fetch is not the end either.
    let mut empty = 2;
    wire.rewrite::<FetchRequest>(move |response| {
        if empty > 0 {
            empty -= 1;
            let partition = &mut response.responses[0].partitions[0];
            (partition.high_watermark, partition.records) = (0, None);
        }
    });
    let mut replay = replay(&partition, 0).await.unwrap();
    assert_eq!(drain(&mut replay).await, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn it_ends_whatever_the_last_offsets_are() {
    for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
        for tail in ["marker", "aborted", "emptied", "hole"] {
            let broker = broker();
            let partition = open(&broker).await;
            append(&partition, 0..2).await;
            let committed = isolation == Isolation::ReadCommitted;
            let expected = match tail {
                "marker" => {
                    transactional(&broker, 40, 0, 2..4);
                    assert_eq!(marker(&broker, 40, true), 4);
                    vec![(4..5, GapReason::Control)]
                }
                "aborted" => {
                    transactional(&broker, 40, 0, 2..4);
                    assert_eq!(marker(&broker, 40, false), 4);
                    let aborted = committed.then_some((2..4, GapReason::Aborted));
                    aborted.into_iter().chain([(4..5, GapReason::Control)]).collect()
                }
                "emptied" => {
                    broker.append_raw("wal", 0, emptied(3)).unwrap();
                    vec![(2..5, GapReason::Empty)]
                }
                _ => {
                    // The one after the hole is emptied too.
                    broker
                        .append_raw(
                            "wal",
                            0,
                            crate::support::with_header(bytes::BytesMut::from(&emptied(1)[..]), |header| {
                                header.base_offset = 2
                            }),
                        )
                        .unwrap();
                    vec![(2..5, GapReason::Empty)]
                }
            };
            let end = broker.end_offset("wal", 0).unwrap();
            assert_eq!(end, 5, "{tail}");
            let mut replay = replay(&partition, 0).isolation(isolation).await.unwrap();
            let (records, took) = timed(drain(&mut replay)).await;
            let all: Vec<_> = match tail {
                "marker" => (0..4).collect(),
                "aborted" if !committed => (0..4).collect(),
                _ => (0..2).collect(),
            };
            assert_eq!((records, took), (all, Duration::ZERO), "{tail}");
            assert_eq!((replay.position().offset, gaps(replay.summary())), (5, expected), "{tail}");

            // And goes on after them.
            append(&partition, 5..7).await;
            let mut stream = replay.follow();
            assert_eq!(records_of(&stream.next_batch().await.unwrap()), [5, 6]);
            assert!(stream.caught_up());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_ends_at_the_last_stable_offset_and_says_what_lies_beyond() {
    let broker = broker();
    let partition = open(&broker).await;
    append(&partition, 0..2).await;
    // A hanging transaction, and what came after it.
    transactional(&broker, 40, 0, 2..4);
    append(&partition, 4..7).await;
    let mut committed = replay(&partition, 0).isolation(Isolation::ReadCommitted).await.unwrap();
    assert_eq!(drain(&mut committed).await, [0, 1]);
    assert_eq!((committed.progress().end, &committed.summary().beyond), (2, &Some(2..7)));
    let mut all = replay(&partition, 0).await.unwrap();
    assert_eq!(drain(&mut all).await, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(all.summary().beyond, None);

    // The same with an end that was asked for, in and out of reach.
    for (end, reached, beyond) in [(1, 1, None), (2, 2, None), (6, 2, Some(2..6)), (7, 2, Some(2..7))] {
        let open = replay(&partition, 0).isolation(Isolation::ReadCommitted).end(end);
        let mut replay = open.await.unwrap();
        drain(&mut replay).await;
        assert_eq!((replay.position().offset, replay.summary().beyond.clone()), (reached, beyond));
    }
    // A position beyond it is on the log. There is nothing to replay.
    let mut replay = replay(&partition, 5).isolation(Isolation::ReadCommitted).await.unwrap();
    assert!(replay.next_batch().await.unwrap().is_none());
    assert_eq!(replay.position().offset, 5);
    // It follows when the transaction ends.
    marker(&broker, 40, false);
    let mut stream = replay.follow();
    assert_eq!(records_of(&stream.next_batch().await.unwrap()), [5, 6]);
    let mut stream = committed.follow();
    assert_eq!(records_of(&stream.next_batch().await.unwrap()), [4, 5, 6]);
    assert_eq!(gaps(stream.summary()), [(2..4, GapReason::Aborted), (7..8, GapReason::Control)]);
}

#[tokio::test(start_paused = true)]
async fn a_given_end_cuts_batches_and_following_goes_on_with_the_rest() {
    for by_record in [false, true] {
        for (from, end) in [(0, 5), (3, 4), (2, 8), (0, 0), (9, 9), (4, 9), (0, 6)] {
            let broker = broker();
            let partition = open(&broker).await;
            append(&partition, 0..3).await;
            append(&partition, 3..6).await;
            append(&partition, 6..9).await;
            let mut replay = replay(&partition, from).end(end).await.unwrap();
            let mut offsets = Vec::new();
            if by_record {
                while let Some(record) = replay.next().await {
                    offsets.push(record.unwrap().offset);
                    assert_eq!(replay.position().offset, *offsets.last().unwrap() + 1);
                }
                assert!(replay.next().await.is_none());
            } else {
                offsets = drain(&mut replay).await;
            }
            assert_eq!(offsets, (from..end).collect::<Vec<_>>());
            assert_eq!(replay.position().offset, end);
            assert_eq!(
                (replay.summary().offsets.clone(), replay.summary().records),
                (from..end, (end - from) as u64)
            );

            append(&partition, 9..11).await;
            let mut stream = replay.follow();
            let mut followed = Vec::new();
            while !stream.caught_up() {
                if by_record {
                    followed.push(stream.next().await.unwrap().unwrap().offset);
                } else {
                    followed.extend(records_of(&stream.next_batch().await.unwrap()));
                }
            }
            // Its end was known as of the last fetch.
            while followed.len() < (11 - end) as usize {
                followed.extend(records_of(&stream.next_batch().await.unwrap()));
            }
            assert_eq!(followed, (end..11).collect::<Vec<_>>());
            assert_eq!(gaps(stream.summary()), []);
            assert_eq!(stream.summary().offsets, from..11);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_to_replay_ends_at_once() {
    let broker = broker();
    let partition = open(&broker).await;
    let later = OffsetAt::Timestamp(OffsetDateTime::now_utc() + Duration::from_secs(3600));
    let starts = [
        Start::from(OffsetAt::Earliest),
        OffsetAt::Latest.into(),
        OffsetAt::MaxTimestamp.into(),
        later.into(),
    ];
    for (end, more) in [(0, &[Start::from(0)][..]), (3, &[Start::from(3), Start::from(Position::from(3))])] {
        for from in
            starts.iter().chain(more).filter(|from| end == 0 || **from != starts[0] && **from != starts[2])
        {
            let mut replay = replay(&partition, *from).await.unwrap();
            let (batch, took) = timed(replay.next_batch()).await;
            assert!(batch.unwrap().is_none() && took == Duration::ZERO, "{from:?}");
            assert_eq!(replay.summary().offsets, end..end);
        }
        if end == 0 {
            append(&partition, 0..3).await;
        }
    }
    let record = replay(&partition, OffsetAt::MaxTimestamp).await.unwrap().next().await.unwrap().unwrap();
    assert!(record.offset < 3);
}

#[tokio::test(start_paused = true)]
async fn it_begins_at_a_time() {
    let broker = broker();
    let partition = open(&broker).await;
    let time = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
    for offset in 0..5_u32 {
        let timestamp = time + Duration::from_secs(10) * offset;
        let record = Record { timestamp, ..Record::new(None::<&str>, offset.to_string()) };
        partition.produce(vec![record]).await.unwrap();
    }
    for (seconds, first) in [(-5, 0), (0, 0), (1, 1), (20, 2), (39, 4), (40, 4), (41, 5)] {
        let at = OffsetAt::Timestamp(time + time::Duration::seconds(seconds));
        let mut replay = replay(&partition, at).await.unwrap();
        assert_eq!(drain(&mut replay).await, (first..5).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn input_that_cannot_be_is_an_error() {
    let broker = broker();
    let partition = open(&broker).await;
    append(&partition, 0..3).await;
    for open in [
        replay(&partition, -1),
        replay(&partition, i64::MIN),
        replay(&partition, 2).end(1),
        replay(&partition, i64::MAX).end(0),
        replay(&partition, OffsetAt::Earliest).end(-1),
    ] {
        let error = open.await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
    }
    for end in [4, i64::MAX] {
        let error = replay(&partition, 0).end(end).await.unwrap_err();
        let ErrorKind::BeyondEnd { offset, end: 3, .. } = *error.kind() else { panic!("{error:?}") };
        assert_eq!(offset, end);
    }
    let error = reader::follow(&partition, -1).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
    let mut replay = replay(&partition, 0).max_bytes(0).await.unwrap();
    for _ in 0..2 {
        let error = replay.next_batch().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
    }
    // A start that was looked up may lie after the end that was given.
    broker.delete_records("wal", 0, 2).unwrap();
    let mut replay = reader::replay(&partition, OffsetAt::Earliest).end(1).await.unwrap();
    assert!(replay.next_batch().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn records_come_once_each_however_they_are_read() {
    let broker = broker();
    let partition = open(&broker).await;
    let mut end = 0;
    for count in [1, 4, 2, 7, 3, 5] {
        append(&partition, end..end + count).await;
        end += count;
        broker.append_raw("wal", 0, emptied(2)).unwrap();
        end += 2;
    }
    let expected: Vec<_> = broker.records("wal", 0).unwrap().iter().map(|record| record.offset).collect();
    // A number of records one by one, then a batch.
    for one_by_one in 0..9 {
        for max_bytes in [1, 300, 1 << 20] {
            let mut replay = replay(&partition, 0).max_bytes(max_bytes).await.unwrap();
            let mut offsets = Vec::new();
            let mut is_open = true;
            while is_open {
                for _ in 0..one_by_one {
                    offsets.extend(replay.next().await.map(|record| record.unwrap().offset));
                    let at = replay.position().offset;
                    assert!(offsets.last().is_none_or(|last| at > *last), "{at}");
                }
                let batch = replay.next_batch().await.unwrap();
                is_open = batch.is_some();
                offsets.extend(batch.iter().flat_map(records_of));
            }
            assert_eq!(offsets, expected);
            assert_eq!(gaps(replay.summary()).len(), 6);
            let sizes = broker.log("wal", 0).unwrap();
            let sizes = sizes.iter().filter(|batch| batch.header().count > 0);
            assert_eq!(replay.summary().bytes, sizes.map(|batch| batch.size_in_bytes() as u64).sum::<u64>());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn holes_within_batches_are_counted() {
    let broker = broker();
    let partition = open(&broker).await;
    append(&partition, 0..6).await;
    append(&partition, 6..9).await;
    broker.compact("wal", 0, |record| !matches!(record.offset, 0 | 2 | 5 | 6)).unwrap();
    for (from, end, expected) in [(0, 9, &[1, 3, 4, 7, 8][..]), (2, 4, &[3]), (1, 3, &[1]), (5, 7, &[])] {
        let mut by_batch = replay(&partition, from).end(end).await.unwrap();
        assert_eq!(drain(&mut by_batch).await, expected);
        assert_eq!(by_batch.summary().records, expected.len() as u64);
        assert_eq!(gaps(by_batch.summary()), []);
        let by_record = replay(&partition, from).end(end).await.unwrap();
        let records: Vec<_> = by_record.map(|record| record.unwrap().offset).collect().await;
        assert_eq!(records, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_leader_is_asked_for_the_end_until_it_is_sure() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = open_over(&broker, &wire).await;
    append(&partition, 0..3).await;
    let mut unsure = 3;
    wire.rewrite::<ListOffsetsRequest>(move |response| {
        if unsure > 0 {
            unsure -= 1;
            response.topics[0].partitions[0].error_code =
                kwal_protocol::error_code::ErrorCode::OFFSET_NOT_AVAILABLE;
        }
    });
    let mut replay = replay(&partition, 0).await.unwrap();
    assert_eq!(drain(&mut replay).await, [0, 1, 2]);
    assert!(wire.requests(ApiKey::LIST_OFFSETS) >= 4);
}

#[tokio::test(start_paused = true)]
async fn the_largest_offset_can_be_asked_for() {
    let broker = broker();
    let partition = open(&broker).await;
    append(&partition, 0..1).await;
    let mut replay = replay(&partition, i64::MAX).await.unwrap();
    let error = replay.next_batch().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BeyondEnd { offset: i64::MAX, end: 1, .. }), "{error:?}");
    // A batch with the largest offsets that there can be.
    let last = crate::support::with_header(batch(&["a"], Compression::None), |header| {
        header.base_offset = i64::MAX - 2;
    });
    assert_eq!(broker.append_raw("wal", 0, last).unwrap(), i64::MAX);
    let mut replay = reader::replay(&partition, 1).await.unwrap();
    let record = replay.next().await.unwrap().unwrap();
    assert_eq!(record.offset, i64::MAX - 1);
    assert_eq!(gaps(replay.summary()), [(1..i64::MAX - 1, GapReason::Empty)]);
    assert!(replay.next().await.is_none());
    assert_eq!(replay.follow().lag(), 0);
}
