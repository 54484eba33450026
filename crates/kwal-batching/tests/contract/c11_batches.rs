//! C11: an idle log gets a record at once; a busy one gathers, and nothing waits longer than it has to.

use std::time::Duration;

use futures::future::join_all;
use kwal_batching::producer::{Acks, BatchProducer};
use kwal_protocol::api::ApiKey;
use kwal_testkit::{Fault, wire::Wire};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::support::{Held, appends, broker, builder, open_warm, record, send, settle, sizes, timed, values};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn spawn(producer: &BatchProducer, value: usize) -> JoinHandle<Option<i64>> {
    let producer = producer.clone();
    tokio::spawn(async move { producer.produce(record(value.to_string())).await.unwrap().offset })
}

#[tokio::test(start_paused = true)]
async fn an_idle_log_gets_a_record_at_once() {
    let broker = broker();
    let (wire, _client, partition) = open_warm(&broker).await;
    for window in [1, 5] {
        let producer = BatchProducer::builder(partition.clone()).window(window).build();
        for _ in 0..10 {
            let before = appends(&wire);
            let (appended, took) = timed(producer.produce(record("value"))).await;
            let appended = appended.unwrap();
            assert_eq!(
                (took, appended.queued, appended.wire),
                (Duration::ZERO, Duration::ZERO, Duration::ZERO)
            );
            assert_eq!(appends(&wire), before + 1);
            // Also if nobody polls the result.
            let ack = producer.reserve().await.unwrap().send(record("value"));
            settle().await;
            assert_eq!((appends(&wire), producer.stats().in_flight), (before + 2, 0));
            drop(ack);
        }
    }
    assert_eq!(sizes(&broker), [1; 41]);
}

#[tokio::test(start_paused = true)]
async fn records_gather_while_a_batch_is_in_flight() {
    let broker = broker();
    let (wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition);
    for round in 1..4 {
        broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
        let first = spawn(&producer, 0);
        settle().await;
        let later: Vec<_> = (1..51).map(|value| spawn(&producer, value)).collect();
        settle().await;
        let stats = producer.stats();
        assert_eq!((stats.in_flight, stats.gathering, stats.waiting), (1, 50, 0));
        assert_eq!(appends(&wire), 2 * round);
        let (_, took) = timed(join_all(later)).await;
        assert_eq!(took, SECOND - 2 * MILLI, "they go when there is room in the window");
        first.await.unwrap();
        assert_eq!(appends(&wire), 2 * round + 1);
    }
    assert_eq!(sizes(&broker), [1, 1, 50, 1, 50, 1, 50]);
    let stats = producer.stats();
    assert_eq!((stats.batches, stats.records, stats.most_records, stats.most_in_flight), (6, 153, 50, 1));
    assert_eq!(stats.queued.longest, SECOND - MILLI);
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_back_together_share_a_batch() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::new(partition);
    let callers = (0..20).map(|caller| {
        let producer = producer.clone();
        tokio::spawn(async move {
            for i in 0..50 {
                producer.produce(record(format!("{caller}-{i}"))).await.unwrap();
            }
        })
    });
    let begun = Instant::now();
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // The first one goes alone, and is back before the others go.
    assert_eq!(sizes(&broker), [vec![1, 1], vec![20; 49], vec![19]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_batch_lingers_at_least_as_long_as_it_is_told_to() {
    let broker = broker();
    let (wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::builder(partition).linger(10 * MILLI).build();
    for round in 1..4 {
        let begun = Instant::now();
        let acks = send(&producer, 0..3).await;
        sleep(9 * MILLI).await;
        let late = send(&producer, 3..5).await;
        assert_eq!(appends(&wire), round);
        for ack in acks.into_iter().chain(late) {
            let appended = ack.await.unwrap();
            assert_eq!((begun.elapsed(), appended.queued), (10 * MILLI, 10 * MILLI));
        }
        // It begins with the first record of a batch.
        sleep(7 * MILLI).await;
    }
    assert_eq!(sizes(&broker), [1, 5, 5, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_behind_others_for_its_linger_does_not_wait_again() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::builder(partition).linger(10 * MILLI).build();
    for delay in [SECOND, 3 * MILLI] {
        broker.on(ApiKey::PRODUCE, Fault::DelayReply(delay));
        let first = send(&producer, [0]).await;
        sleep(10 * MILLI).await;
        // In flight until then.
        settle().await;
        let (begun, second) = (Instant::now(), send(&producer, [1]).await);
        for ack in first.into_iter().chain(second) {
            ack.await.unwrap();
        }
        assert_eq!(begun.elapsed(), (delay - MILLI).max(10 * MILLI));
    }
    assert_eq!(sizes(&broker), [1, 1, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_does_not_linger() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let by_records = BatchProducer::builder(partition.clone()).linger(SECOND).max_records(3).build();
    let (results, took) = timed(join_all(send(&by_records, 0..6).await)).await;
    assert_eq!((results.iter().filter(|result| result.is_ok()).count(), took), (6, Duration::ZERO));
    // Eight bytes each, and a header of 61.
    for rest in 0..4 {
        let by_bytes = BatchProducer::builder(partition.clone()).linger(SECOND).max_bytes(61 + 3 * 8 + rest);
        let by_bytes = by_bytes.build();
        let mut acks = send(&by_bytes, 0..4).await;
        let last = acks.pop().unwrap();
        let (results, took) = timed(join_all(acks)).await;
        assert_eq!((results.iter().filter(|result| result.is_ok()).count(), took), (3, Duration::ZERO));
        let (result, took) = timed(last).await;
        assert_eq!((result.unwrap().batch.record_count, took), (1, SECOND));
        // Exactly full.
        let (results, took) = timed(join_all(send(&by_bytes, 0..3).await)).await;
        assert_eq!((results.len(), took), (3, if rest == 0 { Duration::ZERO } else { SECOND }));
    }
    assert_eq!(sizes(&broker), [vec![1, 3, 3], [3, 1, 3].repeat(4)].concat());
}

#[tokio::test(start_paused = true)]
async fn flush_close_and_the_end_of_the_last_handle_override_a_linger() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let lingering = || BatchProducer::builder(partition.clone()).linger(20 * SECOND).build();
    let producer = lingering();
    let acks = send(&producer, 0..3).await;
    let (result, took) = timed(producer.flush()).await;
    assert_eq!((result.unwrap(), took), ((), Duration::ZERO));
    assert_eq!(timed(join_all(acks)).await.1, Duration::ZERO);
    // What comes after it lingers again.
    let acks = send(&producer, 3..5).await;
    assert_eq!(timed(join_all(acks)).await.1, 20 * SECOND);
    let acks = send(&producer, 5..7).await;
    let (undelivered, took) = timed(producer.close()).await;
    assert_eq!((undelivered.len(), took), (0, Duration::ZERO));
    assert_eq!(timed(join_all(acks)).await.1, Duration::ZERO);
    let producer = lingering();
    let acks = send(&producer, 7..9).await;
    drop(producer);
    let (results, took) = timed(join_all(acks)).await;
    assert_eq!((results.iter().filter(|result| result.is_ok()).count(), took), (2, Duration::ZERO));
    assert_eq!(sizes(&broker), [1, 3, 2, 2, 2]);
}

/// What does not end by itself leaves time to append it.
#[tokio::test(start_paused = true)]
async fn a_linger_is_at_most_half_of_the_deadline() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::builder(partition).linger(Duration::MAX).build();
    let (appended, took) = timed(producer.produce(record("value"))).await;
    assert_eq!((appended.unwrap().offset, took), (Some(1), 30 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn so_many_batches_are_in_flight_as_the_window_allows() {
    for (window, most, expected) in
        [(0, 5, 1), (1, 5, 1), (2, 5, 2), (5, 5, 5), (9, 5, 5), (5, 2, 2), (3, 1, 1)]
    {
        let broker = broker();
        let wire = Wire::new(broker.connector());
        let client = builder(&broker).connector(wire.clone()).build().await.unwrap();
        let partition = client.partition_client("wal", 0).max_in_flight(most).await.unwrap();
        partition.produce(vec![record("warm")]).await.unwrap();
        let producer = BatchProducer::builder(partition).window(window).build();
        let held = Held::new(&wire);
        let acks = send(&producer, 0..20).await;
        settle().await;
        let stats = producer.stats();
        assert_eq!((stats.in_flight, stats.gathering), (expected, 20 - expected), "window {window}");
        assert_eq!(appends(&wire), 1 + expected);
        held.release();
        for (index, ack) in acks.into_iter().enumerate() {
            assert_eq!(ack.await.unwrap().offset, Some(1 + index as i64));
        }
        let expected = [vec![1; 1 + expected as usize], vec![20 - expected as i32]].concat();
        assert_eq!(sizes(&broker), expected, "window {window}");
        assert_eq!(producer.stats().most_in_flight as usize, expected.len() - 2);
    }
}

#[tokio::test(start_paused = true)]
async fn full_batches_may_exceed_the_window() {
    let broker = broker();
    let (wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::builder(partition).max_records(2).build();
    let held = Held::new(&wire);
    let acks = send(&producer, 0..20).await;
    settle().await;
    let stats = producer.stats();
    assert_eq!((stats.in_flight, stats.gathering, appends(&wire)), (5, 11, 1 + 5));
    held.release();
    for (index, ack) in acks.into_iter().enumerate() {
        assert_eq!(ack.await.unwrap().offset, Some(1 + index as i64));
    }
    assert_eq!(sizes(&broker), [vec![1, 1], vec![2; 9], vec![1]].concat());
}

/// The limits are on the batch as it is on the wire.
#[tokio::test(start_paused = true)]
async fn batches_are_as_large_as_the_limits_allow() {
    let broker = broker();
    let (wire, _client, partition) = open_warm(&broker).await;
    for (max_records, max_bytes) in [(7, 1_000_000), (1_000, 300), (1_000, 77), (1_000, 0), (0, 1_000)] {
        let producer = BatchProducer::builder(partition.clone());
        let producer = producer.max_records(max_records).max_bytes(max_bytes).build();
        let held = Held::new(&wire);
        let before = broker.log("wal", 0).unwrap().len();
        let acks = send(&producer, 100..150).await;
        settle().await;
        held.release();
        for ack in acks {
            let appended = ack.await.unwrap();
            assert!(appended.batch.record_count <= max_records.max(1));
            assert!(appended.batch.wire_bytes <= max_bytes || appended.batch.record_count == 1);
        }
        let batches = broker.log("wal", 0).unwrap().split_off(before);
        let counts: Vec<_> = batches.iter().map(|batch| batch.header().count as usize).collect();
        // A record takes ten bytes.
        let most = (max_bytes.saturating_sub(61) / 10).min(max_records).max(1);
        assert_eq!(counts.iter().sum::<usize>(), 50);
        let (last, full) = counts[1..].split_last().unwrap();
        assert!(full.iter().all(|count| *count == most) && *last <= most, "{counts:?}, at most {most}");
    }
}

#[tokio::test(start_paused = true)]
async fn results_come_in_the_order_in_which_they_were_added() {
    use futures::StreamExt;
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::builder(partition).max_records(3).build();
    let mut acks = Acks::new();
    assert!(acks.is_empty() && acks.next().await.is_none());
    for value in 0..20 {
        acks.push(producer.reserve().await.unwrap().send(record(value.to_string())));
    }
    assert_eq!(acks.len(), 20);
    let offsets: Vec<_> = acks.by_ref().map(|appended| appended.unwrap().offset.unwrap()).collect().await;
    assert_eq!(offsets, (1..21).collect::<Vec<_>>());
    // It goes on.
    acks.push(producer.reserve().await.unwrap().send(record("20")));
    assert_eq!(acks.next().await.unwrap().unwrap().offset, Some(21));
    assert!(acks.next().await.is_none());
    assert_eq!(values(&broker)[1..], (0..21).map(|value| value.to_string()).collect::<Vec<_>>());
}

/// The sums of what is counted agree with what is on the log, whatever happens.
#[tokio::test(start_paused = true)]
async fn statistics_are_consistent() {
    use kwal_protocol::error_code::ErrorCode;
    let broker = broker();
    let (wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::builder(partition).max_records(8).window(2).build();
    let (mut appended, mut failed) = (0, 0);
    for round in 0..20 {
        match round % 4 {
            1 => broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD)),
            2 => broker.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND)),
            3 => broker.on(ApiKey::PRODUCE, Fault::LoseReply),
            _ => {}
        }
        let callers: Vec<_> = (0..30)
            .map(|value| {
                let producer = producer.clone();
                tokio::spawn(async move { producer.produce(record(value.to_string())).await })
            })
            .collect();
        settle().await;
        let stats = producer.stats();
        assert!(stats.in_flight <= 5 && stats.gathering <= 30);
        for caller in callers {
            match caller.await.unwrap() {
                Ok(_) => appended += 1,
                Err(_) => failed += 1,
            }
        }
        let stats = producer.stats();
        assert_eq!((stats.in_flight, stats.gathering, stats.waiting), (0, 0, 0));
        assert_eq!((stats.appended, stats.failed), (appended, failed), "round {round}");
        assert_eq!((stats.queued.count, stats.wire.count), (stats.batches, stats.batches));
        assert!(stats.queued.longest <= stats.queued.total && stats.queued.mean() <= stats.queued.longest);
        assert!(stats.wire.longest <= stats.wire.total && stats.wire.mean() <= stats.wire.longest);
        assert!(stats.wire_bytes == stats.uncompressed_bytes && stats.most_records <= 8);
        assert!(stats.records <= appended + failed);
    }
    assert!(appended > 300 && failed > 50, "{appended}, {failed}");
    let on_the_log = broker.records("wal", 0).unwrap().len() as u64 - 1;
    assert_eq!(on_the_log, appended);
    let stats = producer.stats();
    let mean = stats.records as f64 / stats.batches as f64;
    assert!((stats.mean_records() - mean).abs() < f64::EPSILON);
    assert!(stats.batches <= appends(&wire));
    assert!(stats.wire.longest >= SECOND);
}
