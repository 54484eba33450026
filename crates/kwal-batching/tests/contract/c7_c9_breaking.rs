//! C7 to C9: attempts to break what readers promise.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use kwal_batching::reader::{OutOfRange, Unreadable, follow, replay};
use kwal_client::{
    Isolation, Limits, OffsetAt, PartitionClient, Position,
    error::{Error, ErrorKind},
    record::Record,
};
use kwal_protocol::{
    api::{ApiKey, Versions},
    messages::{AbortedTransaction, FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest},
    record::{BatchHeader, Compression},
};
use kwal_testkit::{EmbeddedCluster, Fault, FaultTarget, wire::Wire};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    Rng, append, batch, broker, builder, corrupt, emptied, marker, open, open_over, records_of,
    transactional, with_header,
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_marker_that_cannot_be_decoded_is_skipped_if_the_caller_says_so() {
    for unreadable in [Unreadable::Fail, Unreadable::Skip] {
        let broker = broker();
        let partition = open(&broker).await;
        append(&partition, 0..2).await;
        transactional(&broker, 40, 0, 2..4);
        // A control record without its key.
        let bad = with_header(batch(&["x"], Compression::None), |header| {
            header.attributes |= BatchHeader::TRANSACTIONAL | BatchHeader::CONTROL;
            (header.producer_id, header.producer_epoch) = (50, 0);
        });
        broker.append_raw("wal", 0, bad).unwrap();
        marker(&broker, 40, true);
        append(&partition, 6..8).await;
        let open = follow(&partition, 0).isolation(Isolation::ReadCommitted).unreadable(unreadable);
        let mut stream = open.await.unwrap();
        let mut offsets = Vec::new();
        while offsets.len() < 6 {
            match timeout(60 * SECOND, stream.next_batch()).await.unwrap() {
                Ok(batch) => offsets.extend(records_of(&batch)),
                Err(error) => {
                    assert_eq!(unreadable, Unreadable::Fail);
                    assert_eq!(corrupt(&error), Some(4..5));
                    assert_eq!(stream.skip_unreadable(), Some(4..5));
                }
            }
        }
        assert_eq!(offsets, [0, 1, 2, 3, 6, 7]);
    }
}

/// What is on a log.
#[derive(Default)]
struct Model {
    /// All records, by offset.
    records: BTreeMap<i64, bool>,
    end: i64,
}

/// Appends something: records, transactions, empty batches, holes, markers.
fn grow(broker: &EmbeddedCluster, model: &mut Model, rng: &mut Rng, open: &mut BTreeMap<i64, Vec<i64>>) {
    let first = model.end;
    let count = 1 + rng.below(4) as i64;
    let range = first..first + count;
    match rng.below(10) {
        0..=3 => {
            let values: Vec<_> = range.clone().map(|offset| offset.to_string()).collect();
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            let codec = [Compression::None, Compression::Lz4][rng.below(2) as usize];
            broker.append_raw("wal", 0, batch(&values, codec).freeze()).unwrap();
            model.records.extend(range.clone().map(|offset| (offset, true)));
            model.end = range.end;
        }
        4 | 5 => {
            let producer = 40 + rng.below(3) as i64;
            transactional(broker, producer, 0, range.clone());
            model.records.extend(range.clone().map(|offset| (offset, true)));
            open.entry(producer).or_default().extend(range.clone());
            model.end = range.end;
        }
        6 => {
            broker.append_raw("wal", 0, emptied(count as i32)).unwrap();
            model.end = range.end;
        }
        7 => {
            // A hole, then a record.
            let mut bytes = batch(&[&(first + count).to_string()], Compression::None);
            bytes[..8].copy_from_slice(&count.to_be_bytes());
            broker.append_raw("wal", 0, bytes.freeze()).unwrap();
            model.records.insert(first + count, true);
            model.end = first + count + 1;
        }
        _ => {
            let Some((&producer, _)) = open.iter().nth(rng.below(3) as usize) else { return };
            let offsets = open.remove(&producer).unwrap();
            let committed = rng.below(2) == 0;
            marker(broker, producer, committed);
            if !committed {
                offsets.iter().for_each(|offset| {
                    model.records.insert(*offset, false);
                });
            }
            model.end += 1;
        }
    }
}

/// Reads a random log in random ways, and compares what came with the log.
async fn random_log(seed: u64) {
    let mut rng = Rng(seed);
    let fetch = [17, 12, 11, 5, 4][rng.below(5) as usize];
    let cluster = EmbeddedCluster::builder().seed(seed).brokers(3).topic("wal", 1);
    let broker = cluster.cap(ApiKey::FETCH, Versions::new(0, fetch)).start_in_memory().unwrap();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = open_over(&broker, &wire).await;
    let (mut model, mut transactions) = (Model::default(), BTreeMap::new());
    for _ in 0..10 + rng.below(30) {
        grow(&broker, &mut model, &mut rng, &mut transactions);
        if rng.below(8) == 0 {
            drop(broker.move_leader("wal", 0, 1 + rng.below(3) as i32));
            sleep(10 * MS).await;
        }
    }
    sleep(SECOND).await;
    let isolation = [Isolation::ReadUncommitted, Isolation::ReadCommitted][rng.below(2) as usize];
    let stable = match isolation {
        Isolation::ReadUncommitted => model.end,
        _ => broker.last_stable_offset("wal", 0).unwrap(),
    };
    let is_due = |model: &Model, offset: i64| {
        model.records.get(&offset).copied().unwrap_or(false)
            || isolation == Isolation::ReadUncommitted && model.records.contains_key(&offset)
    };
    let what = format!("seed {seed}, Fetch {fetch}, {isolation:?}");
    for target in [Fault::LoseReply, Fault::Drop, Fault::Throttle(100 * MS)] {
        broker.on_all(FaultTarget::api(ApiKey::FETCH).chance(0.05), target);
    }
    let start = rng.below(stable.max(1) as u64) as i64;
    let given =
        if rng.below(2) == 0 { Some(start + rng.below((model.end - start + 1) as u64) as i64) } else { None };
    let max_bytes = [1, 150, 400, 1 << 20][rng.below(4) as usize];
    let open = replay(&partition, start)
        .isolation(isolation)
        .max_bytes(max_bytes)
        .max_wait(100 * MS)
        .unreadable([Unreadable::Fail, Unreadable::Skip][rng.below(2) as usize]);
    let open = match given {
        Some(end) => open.end(end),
        None => open,
    };
    let mut replay = open.await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let end = given.unwrap_or(model.end).min(stable);
    assert_eq!(replay.progress().end, end, "{what}");
    let mut read = Vec::new();
    let mut rounds = 0;
    loop {
        rounds += 1;
        assert!(rounds < 5_000, "{what}: {read:?}");
        // A position that is kept in between is one that can be used.
        if rng.below(4) == 0 {
            let position: Position = replay.position().to_string().parse().unwrap();
            let fetched = partition.fetch(position).max_wait(Duration::ZERO).await;
            fetched.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        let limit = MS * rng.below(40) as u32;
        let cancelled = rng.below(3) == 0;
        let limit = if cancelled { limit } else { 100 * SECOND };
        let is_over = match rng.below(4) {
            0 => match timeout(limit, replay.next()).await {
                Ok(Some(record)) => {
                    let record = record.unwrap();
                    assert_eq!(record.value.unwrap(), record.offset.to_string().as_bytes(), "{what}");
                    read.push(record.offset);
                    false
                }
                Ok(None) => true,
                Err(_) => false,
            },
            1 => {
                let mut left = rng.below(3);
                let each = replay.for_each_batch(|batch| {
                    if left == 0 {
                        return Err(None);
                    }
                    left -= 1;
                    read.extend(records_of(batch));
                    Ok::<_, Option<Error>>(())
                });
                match timeout(limit, each).await {
                    Ok(Ok(())) => true,
                    Ok(Err(None)) | Err(_) => false,
                    Ok(Err(Some(error))) => panic!("{what}: {error}"),
                }
            }
            _ => match timeout(limit, replay.next_batch()).await {
                Ok(Ok(Some(batch))) => {
                    read.extend(records_of(&batch));
                    false
                }
                Ok(Ok(None)) => true,
                Ok(Err(error)) => panic!("{what}: {error}"),
                Err(_) => false,
            },
        };
        if is_over {
            break;
        }
    }
    let expected: Vec<_> = (start..end).filter(|offset| is_due(&model, *offset)).collect();
    assert_eq!(read, expected, "{what}: {start}..{end} of {}", model.end);
    check_summary(replay.summary(), start..end.max(start), &read, &what);
    assert_eq!(replay.position().offset, end.max(start), "{what}");

    // Followed: what comes then.
    let mut stream = replay.follow();
    for _ in 0..5 + rng.below(20) {
        grow(&broker, &mut model, &mut rng, &mut transactions);
    }
    for producer in std::mem::take(&mut transactions).into_keys() {
        marker(&broker, producer, true);
        model.end += 1;
    }
    if rng.below(2) == 0 {
        drop(broker.move_leader("wal", 0, 1 + rng.below(3) as i32));
    }
    append_one(&broker, &mut model);
    let begun = wire.requests(ApiKey::FETCH);
    while stream.position().offset < model.end {
        match rng.below(2) {
            0 => read.push(timeout(100 * SECOND, stream.next()).await.expect(&what).unwrap().unwrap().offset),
            _ => read
                .extend(records_of(&timeout(100 * SECOND, stream.next_batch()).await.expect(&what).unwrap())),
        }
    }
    let expected: Vec<_> = (start..model.end).filter(|offset| is_due(&model, *offset)).collect();
    assert_eq!(read, expected, "{what}: followed");
    assert!(stream.caught_up(), "{what}");
    check_summary(stream.summary(), start..model.end, &read, &what);
    assert!(wire.requests(ApiKey::FETCH) - begun < 500, "{what}");
    broker.clear_faults();
    let begun = wire.requests(ApiKey::FETCH);
    assert!(timeout(10 * SECOND, stream.next_batch()).await.is_err());
    let requests = wire.requests(ApiKey::FETCH) - begun;
    assert!(requests <= 110, "{what}: {requests}");
}

fn append_one(broker: &EmbeddedCluster, model: &mut Model) {
    broker.append_raw("wal", 0, batch(&[&model.end.to_string()], Compression::None).freeze()).unwrap();
    model.records.insert(model.end, true);
    model.end += 1;
}

fn check_summary(summary: &kwal_batching::reader::Summary, offsets: Range<i64>, read: &[i64], what: &str) {
    assert_eq!(summary.offsets, offsets, "{what}");
    assert_eq!(summary.records, read.len() as u64, "{what}");
    let total = summary.records + summary.without_records.total();
    assert_eq!(total, (offsets.end - offsets.start) as u64, "{what}: {summary:?}");
    let mut last = offsets.start;
    for gap in &summary.gaps {
        assert!(gap.offsets.start >= last && gap.offsets.end <= offsets.end, "{what}: {summary:?}");
        assert!(!read.iter().any(|offset| gap.offsets.contains(offset)), "{what}: {summary:?}");
        assert!(gap.reason.is_expected(), "{what}: {summary:?}");
        last = gap.offsets.end;
    }
}

#[tokio::test(start_paused = true)]
async fn random_logs_are_read_as_they_are() {
    let seeds = std::env::var("BREAK_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40);
    for seed in 0..seeds {
        random_log(seed).await;
    }
}

/// Changes numbers of answers about reading.
fn lie(wire: &Wire, rng: &Arc<Mutex<Option<Rng>>>) {
    fn extreme(rng: &mut Rng) -> i64 {
        [0, -1, i64::MIN, i64::MAX, 5, 1 << 40, i64::MAX - 1][rng.below(7) as usize]
    }
    let numbers = Arc::clone(rng);
    wire.rewrite::<FetchRequest>(move |response| {
        let mut rng = numbers.lock().unwrap();
        let Some(rng) = rng.as_mut() else { return };
        for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            match rng.below(16) {
                0 => partition.high_watermark = extreme(rng),
                1 => partition.last_stable_offset = extreme(rng),
                2 => partition.log_start_offset = extreme(rng),
                3 => partition.diverging_epoch.epoch = extreme(rng) as i32,
                4 => partition.diverging_epoch.end_offset = extreme(rng),
                5 => {
                    partition.diverging_epoch.epoch = extreme(rng) as i32;
                    partition.diverging_epoch.end_offset = extreme(rng);
                }
                6 => {
                    let aborted = AbortedTransaction { producer_id: 40, first_offset: extreme(rng) };
                    partition.aborted_transactions = Some(vec![aborted; 3]);
                }
                7 => partition.aborted_transactions = None,
                8 => partition.records = None,
                9 => {
                    if let Some(records) = &mut partition.records {
                        let keep = rng.below(records.len() as u64 + 1) as usize;
                        *records = records.slice(..keep);
                    }
                }
                10 => {
                    if let Some(records) = partition.records.take() {
                        let mut bytes = records.to_vec();
                        // Base offset, size, epoch, and deltas of the first batch: with a checksum that fits.
                        if bytes.len() > BatchHeader::LEN {
                            let place = [0, 8, 12, 23, 57][rng.below(5) as usize];
                            let value = extreme(rng).to_be_bytes();
                            let width = if place == 0 { 8 } else { 4 };
                            bytes[place..place + width].copy_from_slice(&value[8 - width..]);
                            let len = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize + 12;
                            if len <= bytes.len() && len > 21 {
                                let crc = crc32c::crc32c(&bytes[21..len]);
                                bytes[17..21].copy_from_slice(&crc.to_be_bytes());
                            }
                        }
                        partition.records = Some(bytes.into());
                    }
                }
                _ => {}
            }
        }
    });
    let numbers = Arc::clone(rng);
    wire.rewrite::<ListOffsetsRequest>(move |response| {
        let mut rng = numbers.lock().unwrap();
        let Some(rng) = rng.as_mut() else { return };
        for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            if rng.below(6) == 0 {
                partition.offset = extreme(rng);
            }
        }
    });
    let numbers = Arc::clone(rng);
    wire.rewrite::<OffsetForLeaderEpochRequest>(move |response| {
        let mut rng = numbers.lock().unwrap();
        let Some(rng) = rng.as_mut() else { return };
        for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            match rng.below(4) {
                0 => partition.leader_epoch = extreme(rng) as i32,
                1 => partition.end_offset = extreme(rng),
                _ => {}
            }
        }
    });
}

/// Readers that are lied to neither panic nor hang nor spin, and never hand out anything twice.
async fn lied_to(seed: u64) {
    let mut rng = Rng(seed);
    let fetch = [17, 11, 4][rng.below(3) as usize];
    let compacted = rng.below(2) == 0;
    let policy = if compacted { "compact" } else { "delete" };
    let cluster = EmbeddedCluster::builder().seed(seed).topic_with("wal", 1, &[("cleanup.policy", policy)]);
    let broker = cluster.cap(ApiKey::FETCH, Versions::new(0, fetch)).start_in_memory().unwrap();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = open_over(&broker, &wire).await;
    let (mut model, mut transactions) = (Model::default(), BTreeMap::new());
    for _ in 0..30 {
        grow(&broker, &mut model, &mut rng, &mut transactions);
    }
    let lies = Arc::new(Mutex::new(Some(rng.fork())));
    lie(&wire, &lies);
    let isolation = [Isolation::ReadUncommitted, Isolation::ReadCommitted][rng.below(2) as usize];
    let policy = [OutOfRange::Fail, OutOfRange::FromStart, OutOfRange::FromEnd][rng.below(3) as usize];
    let unreadable = [Unreadable::Fail, Unreadable::Skip][rng.below(2) as usize];
    let from =
        [Position::from(0), Position { topic_id: None, leader_epoch: Some(0), offset: rng.below(20) as i64 }]
            [rng.below(2) as usize];
    let what = format!("seed {seed}, Fetch {fetch}, {isolation:?}, {policy:?}, {unreadable:?}");
    let open = replay(&partition, from)
        .isolation(isolation)
        .out_of_range(policy)
        .unreadable(unreadable)
        .max_bytes([1, 200, 1 << 20][rng.below(3) as usize])
        .max_wait(100 * MS)
        .deadline(5 * SECOND);
    let begun = Instant::now();
    let before = wire.requests(ApiKey::FETCH) + wire.requests(ApiKey::LIST_OFFSETS);
    let check_requests = |calls: u64, begun: Instant| {
        let requests = wire.requests(ApiKey::FETCH) + wire.requests(ApiKey::LIST_OFFSETS) - before;
        let most = 100 + 20 * calls + 40 * (begun.elapsed().as_millis() as u64 / 100);
        assert!(requests <= most, "{what}: {requests} requests in {:?} and {calls} calls", begun.elapsed());
    };
    let Ok(mut replay) = open.await else { return };
    let mut calls = 0;
    for _ in 0..200 {
        calls += 1;
        let before = replay.position().offset;
        let result = timeout(30 * SECOND, async {
            match rng.below(2) {
                0 => {
                    let record = replay.next().await;
                    record.map(|record| record.map(|record| (record.offset, record.offset + 1)))
                }
                _ => match replay.next_batch().await {
                    Ok(None) => None,
                    Ok(Some(batch)) => {
                        let offsets = batch.offsets();
                        drop(batch.for_each(|record| assert!(offsets.contains(&record.offset))));
                        Some(Ok((offsets.start, offsets.end)))
                    }
                    Err(error) => Some(Err(error)),
                },
            }
        })
        .await;
        check_requests(calls, begun);
        match result {
            Err(_) => break,
            Ok(None) => break,
            Ok(Some(Ok((first, end)))) => {
                // A reset to the start is a new beginning.
                let is_reset = policy != OutOfRange::Fail && replay.summary().offsets.start != from.offset;
                assert!(first >= before || is_reset, "{what}: {first} at {before}");
                assert!(replay.position().offset >= end.min(replay.progress().end), "{what}");
            }
            Ok(Some(Err(error))) => {
                if replay.skip_unreadable().is_none() && !error.is_retriable() {
                    break;
                }
            }
        }
    }
    drop(format!("{:?} {:?}", replay.summary(), replay.progress()));
    let mut stream = replay.follow();
    for _ in 0..20 {
        calls += 1;
        let result = timeout(10 * SECOND, stream.next_batch()).await;
        check_requests(calls, begun);
        let _ = (stream.lag(), stream.caught_up(), stream.position());
        if let Ok(Err(error)) = result
            && stream.skip_unreadable().is_none()
            && !error.is_retriable()
        {
            break;
        }
    }
    // A new reader is not affected.
    *lies.lock().unwrap() = None;
    let mut replay = kwal_batching::reader::replay(&partition, 0).await.unwrap();
    let mut read = Vec::new();
    while let Some(batch) = replay.next_batch().await.unwrap() {
        read.extend(records_of(&batch));
    }
    assert_eq!(read, model.records.keys().copied().collect::<Vec<_>>(), "{what}");
}

#[tokio::test(start_paused = true)]
async fn readers_that_are_lied_to_neither_panic_nor_spin() {
    let seeds = std::env::var("BREAK_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        lied_to(seed).await;
    }
}

/// A stream over clean leader changes, restarts, epochs without records, trims and compaction: never a loss.
async fn no_false_alarm(seed: u64) {
    let mut rng = Rng(seed);
    let fetch = [17, 12, 11, 4][rng.below(4) as usize];
    let cluster = EmbeddedCluster::builder().seed(seed).brokers(3);
    let cluster = cluster.topic_with("wal", 1, &[("cleanup.policy", "compact,delete")]);
    let broker = cluster.cap(ApiKey::FETCH, Versions::new(0, fetch)).start_in_memory().unwrap();
    let partition: PartitionClient = open(&broker).await;
    let (mut model, mut transactions) = (Model::default(), BTreeMap::new());
    let mut stream = follow(&partition, OffsetAt::Earliest)
        .out_of_range(OutOfRange::FromStart)
        .max_bytes([1, 200, 1 << 20][rng.below(3) as usize])
        .await
        .unwrap();
    let mut kept = vec![stream.position()];
    let what = format!("seed {seed}, Fetch {fetch}");
    for _ in 0..150 {
        match rng.below(16) {
            0..=4 => grow(&broker, &mut model, &mut rng, &mut transactions),
            5 | 6 => {
                drop(broker.move_leader("wal", 0, 1 + rng.below(3) as i32));
            }
            7 => {
                let id = 1 + rng.below(3) as i32;
                broker.stop(id).unwrap();
                sleep(20 * MS).await;
                broker.restart(id).unwrap();
                sleep(20 * MS).await;
            }
            8 => {
                let keep = rng.below(5) + 1;
                let before =
                    if rng.below(2) == 0 { model.end } else { rng.below(model.end as u64 + 1) as i64 };
                broker
                    .compact_batches(
                        "wal",
                        0,
                        |record| record.offset >= before || (record.offset as u64).is_multiple_of(keep),
                        |_| true,
                    )
                    .unwrap();
            }
            9 if rng.below(3) == 0 => {
                let before = rng.below(model.end as u64 + 1) as i64;
                broker.delete_records("wal", 0, before).unwrap();
            }
            10 => {
                // What was kept is still good, or trimmed.
                let position = kept[rng.below(kept.len() as u64) as usize];
                let position: Position = position.to_string().parse().unwrap();
                match partition.fetch(position).max_wait(Duration::ZERO).await {
                    Ok(_) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::Trimmed { .. }) => {}
                    Err(error) => panic!("{what}: {position}: {error}"),
                }
            }
            _ => {
                let limit = MS * rng.below(800) as u32;
                let result = match rng.below(2) {
                    0 => timeout(limit, stream.next()).await.map(|record| record.unwrap().map(drop)),
                    _ => timeout(limit, stream.next_batch()).await.map(|batch| {
                        batch.map(|batch| {
                            kept.push(batch.position());
                            batch.for_each(|record| kept.push(batch.position_after(record.offset))).unwrap();
                        })
                    }),
                };
                match result {
                    Ok(Err(error)) if !error.is_retriable() => panic!("{what}: {error}"),
                    _ => kept.push(stream.position()),
                }
            }
        }
        sleep(MS).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_nothing_is_never_reported_as_truncated() {
    let seeds = std::env::var("BREAK_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40);
    for seed in 0..seeds {
        no_false_alarm(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_slow_consumer_among_a_hundred_holds_up_nobody() {
    let broker = EmbeddedCluster::builder().topic("wide", 100).start_in_memory().unwrap();
    let limits = Limits::default().memory(128 << 10).max_connections_per_broker(1);
    let client = builder(&broker).limits(limits).build().await.unwrap();
    let partitions =
        join_all((0..100).map(|index| client.partition_client("wide", index).into_future())).await;
    let partitions: Vec<_> = partitions.into_iter().map(Result::unwrap).collect();
    for partition in &partitions {
        for _ in 0..20 {
            partition.produce(vec![Record::new(None::<&str>, vec![b'x'; 4 << 10])]).await.unwrap();
        }
    }
    let begun = Instant::now();
    let reads = partitions.iter().enumerate().map(|(index, partition)| async move {
        let mut replay = replay(partition, 0).await.unwrap();
        while let Some(batch) = replay.next_batch().await.unwrap() {
            batch.for_each(|_| ()).unwrap();
            if index % 10 == 0 {
                sleep(10 * SECOND).await;
            }
        }
        assert_eq!(replay.summary().records, 20);
        (index, begun.elapsed())
    });
    let ended = join_all(reads).await;
    let slowest = ended.iter().filter(|(index, _)| index % 10 > 0).map(|(_, took)| *took).max().unwrap();
    assert!(slowest < 5 * SECOND, "{slowest:?}");
}
