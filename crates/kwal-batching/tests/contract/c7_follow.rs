//! C7: a stream reads on without an end, and knows how far behind it is.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use kwal_batching::reader::{Start, follow};
use kwal_client::{GapReason, Isolation, OffsetAt, Position};
use kwal_protocol::{api::ApiKey, messages::FetchRequest};
use kwal_testkit::wire::Wire;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    append, broker, builder, emptied, gaps, marker, open, open_over, polled, records_of, settle, timed,
    transactional,
};

#[tokio::test(start_paused = true)]
async fn it_begins_anywhere() {
    let broker = broker();
    let partition = open(&broker).await;
    append(&partition, 0..3).await;
    append(&partition, 3..5).await;
    broker.delete_records("wal", 0, 1).unwrap();
    let after = OffsetAt::Timestamp(OffsetDateTime::now_utc() + Duration::from_secs(3600));
    for (from, first) in [
        (Start::from(OffsetAt::Earliest), 1),
        (OffsetAt::Latest.into(), 5),
        (OffsetAt::Timestamp(OffsetDateTime::UNIX_EPOCH).into(), 1),
        (after.into(), 5),
        (2.into(), 2),
        (Position::from(4).into(), 4),
        (5.into(), 5),
    ] {
        let mut stream = follow(&partition, from).await.unwrap();
        assert_eq!((stream.position().offset, stream.lag()), (first, 5 - first), "{from:?}");
        assert_eq!(stream.caught_up(), first == 5);
        let mut offsets = Vec::new();
        while !stream.caught_up() {
            offsets.extend(records_of(&stream.next_batch().await.unwrap()));
        }
        assert_eq!(offsets, (first..5).collect::<Vec<_>>(), "{from:?}");
        let waits = timeout(Duration::from_secs(600), stream.next_batch()).await;
        assert!(waits.is_err(), "there is no more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_arrives_when_it_is_appended_however_long_it_was_waited_for() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = open_over(&broker, &wire).await;
    let writer = open(&broker).await;
    let max_wait = Duration::from_secs(5);
    let mut stream = follow(&partition, OffsetAt::Latest).max_wait(max_wait).await.unwrap();
    let pause = Duration::from_secs(3602);
    let task = tokio::spawn(async move {
        let next = stream.next().await.unwrap().unwrap();
        (next.offset, stream, Instant::now())
    });
    let begun = Instant::now();
    sleep(pause).await;
    append(&writer, 0..1).await;
    let (offset, stream, at) = task.await.unwrap();
    assert_eq!((offset, at - begun), (0, pause));
    assert!(stream.caught_up());
    assert_eq!(
        wire.requests(ApiKey::FETCH),
        pause.as_secs().div_ceil(max_wait.as_secs()) + 1,
        "and one ahead"
    );
    assert_eq!(stream.summary().offsets, 0..1);
}

#[tokio::test(start_paused = true)]
async fn it_passes_what_has_no_records() {
    for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
        let broker = broker();
        let partition = open(&broker).await;
        append(&partition, 0..2).await;
        let mut stream = follow(&partition, 0).isolation(isolation).await.unwrap();
        // The marker after the last record is passed with it.
        transactional(&broker, 40, 0, 2..3);
        marker(&broker, 40, true);
        let mut offsets = Vec::new();
        for _ in 0..3 {
            offsets.push(stream.next().await.unwrap().unwrap().offset);
        }
        assert_eq!((offsets, stream.position().offset, stream.caught_up()), (vec![0, 1, 2], 4, true));

        // Then nothing but such offsets: it moves while it waits, and loses nothing when that ends.
        assert!(stream.next_batch().now_or_never().is_none());
        broker.append_raw("wal", 0, emptied(5)).unwrap();
        transactional(&broker, 41, 0, 9..10);
        marker(&broker, 41, false);
        let is_committed = isolation == Isolation::ReadCommitted;
        let waits = timeout(Duration::from_secs(2), stream.next_batch()).await;
        assert_eq!(waits.is_err(), is_committed);
        assert_eq!((stream.position().offset, stream.caught_up()), (11, true));
        append(&partition, 11..12).await;
        assert_eq!(records_of(&stream.next_batch().await.unwrap()), [11]);
        let expected = [(3..4, GapReason::Control), (4..9, GapReason::Empty)].into_iter();
        let aborted = is_committed.then_some((9..10, GapReason::Aborted));
        let expected: Vec<_> = expected.chain(aborted).chain([(10..11, GapReason::Control)]).collect();
        assert_eq!(gaps(stream.summary()), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_not_taken_in_by_a_high_watermark_that_lags() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = open_over(&broker, &wire).await;
    append(&partition, 0..4).await;
    let mut stream = follow(&partition, 0).await.unwrap();
    // A new leader: it has all records, and does not know yet that others have them too.
    let mut lagging = 3;
    wire.rewrite::<FetchRequest>(move |response| {
        if lagging > 0 {
            lagging -= 1;
            let partition = &mut response.responses[0].partitions[0];
            (partition.high_watermark, partition.records) = (0, None);
        }
    });
    assert_eq!((stream.lag(), stream.caught_up()), (4, false));
    let mut polls = 0;
    let batch = loop {
        match polled(stream.next_batch(), 1).await {
            Some(batch) => break batch.unwrap(),
            None => assert_eq!((stream.lag(), stream.caught_up()), (4, false)),
        }
        polls += 1;
        settle().await;
    };
    assert!(polls > 3, "{polls}");
    assert_eq!(records_of(&batch), [0, 1, 2, 3]);
    assert!(stream.caught_up());
}

#[tokio::test(start_paused = true)]
async fn a_lag_behind_records_that_were_lost_ends() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = open_over(&broker, &wire).await;
    append(&partition, 0..4).await;
    let mut stream = follow(&partition, 0).await.unwrap();
    let mut first = true;
    wire.rewrite::<FetchRequest>(move |response| {
        if std::mem::take(&mut first) {
            response.responses[0].partitions[0].high_watermark = 9;
        }
    });
    stream.next_batch().await.unwrap();
    assert_eq!((stream.position().offset, stream.lag()), (4, 5));
    assert!(timeout(Duration::from_secs(1), stream.next_batch()).await.is_err());
    assert_eq!((stream.position().offset, stream.lag()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn its_position_goes_on_in_another_process() {
    let broker = broker();
    let partition = open(&broker).await;
    for offset in 0..10 {
        append(&partition, 2 * offset..2 * offset + 2).await;
    }
    let mut kept = Position::from(0);
    let mut offsets = Vec::new();
    for count in [1, 3, 2, 7, 4, 3] {
        // The text that was kept is all that is left.
        let other = builder(&broker).build().await.unwrap();
        let partition = other.partition_client("wal", 0).await.unwrap();
        let from: Position = kept.to_string().parse().unwrap();
        let mut stream = follow(&partition, from).await.unwrap();
        for _ in 0..count {
            offsets.push(stream.next().await.unwrap().unwrap().offset);
            kept = stream.position();
        }
        assert_eq!(kept.leader_epoch, Some(0));
    }
    assert_eq!(offsets, (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn every_size_of_fetch_reads_the_same() {
    let broker = broker();
    let partition = open(&broker).await;
    let mut end = 0;
    for count in 1..30 {
        append(&partition, end..end + count).await;
        end += count;
    }
    for max_bytes in [1, 100, 1_000, 5_000, i32::MAX] {
        let mut stream = follow(&partition, 0).max_bytes(max_bytes).await.unwrap();
        let (offsets, took) = timed(async {
            let mut offsets = Vec::new();
            while !stream.caught_up() {
                offsets.extend(records_of(&stream.next_batch().await.unwrap()));
            }
            offsets
        })
        .await;
        assert_eq!(offsets, (0..end).collect::<Vec<_>>());
        assert_eq!(took, Duration::ZERO, "no fetch waits while there is more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_function_gets_the_batch_again() {
    let broker = broker();
    let partition = open(&broker).await;
    append(&partition, 0..2).await;
    append(&partition, 2..4).await;
    let mut stream = follow(&partition, 0).await.unwrap();
    let mut calls = Vec::new();
    for fails_at in [0, 2, 2] {
        let result: Result<std::convert::Infallible, Box<dyn std::error::Error>> = stream
            .for_each_batch(|batch| {
                calls.push(batch.offsets());
                if batch.offsets().start == fails_at { Err("no".into()) } else { Ok(()) }
            })
            .await;
        assert_eq!(result.unwrap_err().to_string(), "no");
        assert_eq!(stream.position().offset, fails_at);
    }
    assert_eq!(calls, [0..2, 0..2, 2..4, 2..4]);
    assert_eq!(records_of(&stream.next_batch().await.unwrap()), [2, 3]);
    assert_eq!((stream.summary().records, gaps(stream.summary())), (4, vec![]));
}
