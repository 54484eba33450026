//! Logs with transactions: markers at the end, hanging ones, and several producers at once.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kwal_batching::reader::{follow, replay};
use kwal_client::{Isolation, OffsetAt, PartitionClient, Position};
use kwal_protocol::messages::ProduceRequest;
use kwal_protocol::record::{BatchBuilder, Compression, EncodedBatch};
use kwal_tests::kafka::{Kafka, Version};
use tokio::time::timeout;

use super::judge::Truth;
use super::{ISOLATIONS, append, connect, now_ms, open, read_to_end, read_up_to, value, world};
use crate::fidelity::log::{Log, NO_HEADERS, PRODUCE};

kwal_tests::suite! {
    own: [markers_at_the_end, interleaved],
}

/// The last offsets are those of markers, or of markers and aborted records.
async fn markers_at_the_end(version: Version) {
    let kafka = Kafka::shared(version);
    let mut world = world(kafka);
    for tail in [&[true][..], &[false], &[false, true, false]] {
        let mut log = world.log("markers", &[]).await;
        let name = world.name("name");
        let mut transaction = world.transaction(&mut log, &name).await;
        world.append_in_transaction(&mut transaction, &mut log, batch("first", 2, Compression::None)).await;
        world.end(&mut transaction, &mut log, true).await;
        for commit in tail {
            world
                .append_in_transaction(&mut transaction, &mut log, batch("tail", 3, Compression::None))
                .await;
            world.end(&mut transaction, &mut log, *commit).await;
        }
        let end = log.end().await;
        let truth = Truth::of(kafka, &log.topic).await;
        assert!(truth.batches().last().unwrap().marker.is_some());
        let partition = connect(kafka).await.partition_client(&log.topic, 0).await.unwrap();
        for isolation in ISOLATIONS {
            // At last there is nothing but a marker.
            for from in 0..end {
                truth.replay(&partition, from, isolation).await;
            }
        }
        let mut streams = Vec::new();
        for isolation in ISOLATIONS {
            let mut replay = replay(&partition, 0).isolation(isolation).await.unwrap();
            read_to_end(&mut replay).await;
            streams.push(replay.follow());
        }
        assert_eq!(append(&partition, "next").await, end);
        for mut stream in streams {
            let read = read_up_to(&mut stream, end + 1).await;
            assert_eq!(read.into_iter().collect::<Vec<_>>(), [(end, "next".to_owned())]);
        }
    }
}

/// A transaction that no coordinator knows, and which therefore does not end.
pub(super) async fn hanging(kafka: &Kafka) {
    let topic = kafka.topic("hanging", 1, &[]).await;
    let mut log = open(kafka, &topic).await;
    let partition = connect(kafka).await.partition_client(&topic, 0).await.unwrap();
    append(&partition, "before").await;
    append(&partition, "before").await;
    let id = log.producer_id().await;
    let records = batch("hanging", 2, Compression::None).stamp(id, 0, 0).with_transactional(true);
    let name = Some("unknown".to_owned());
    let request = ProduceRequest { transactional_id: name, ..log.produce(records.to_bytes(), -1) };
    assert_eq!(log.produce_by(&request, PRODUCE).await, "OK, offset 2, log start 0");
    append(&partition, "after").await;
    append(&partition, "after").await;

    let truth = Truth::of(kafka, &topic).await;
    for (isolation, end, beyond) in
        [(Isolation::ReadUncommitted, 6, None), (Isolation::ReadCommitted, 2, Some(2..6))]
    {
        assert_eq!(partition.get_offset(OffsetAt::Latest).isolation(isolation).await.unwrap(), end);
        assert_eq!(partition.get_offset(OffsetAt::Earliest).isolation(isolation).await.unwrap(), 0);
        let mut replay = replay(&partition, 0).isolation(isolation).await.unwrap();
        let read = read_to_end(&mut replay).await;
        assert_eq!((replay.summary().offsets.clone(), &replay.summary().beyond), (0..end, &beyond));
        truth.check(&replay, &read, isolation);
    }
    // Nothing lies between a position beyond the end and the end.
    let mut beyond = replay(&partition, 4).isolation(Isolation::ReadCommitted).await.unwrap();
    assert_eq!(read_to_end(&mut beyond).await.len(), 0);
    assert_eq!(beyond.summary().beyond, Some(2..6));

    let mut committed = follow(&partition, 0).isolation(Isolation::ReadCommitted).await.unwrap();
    assert_eq!(read_up_to(&mut committed, 2).await.len(), 2);
    let waited = timeout(Duration::from_secs(1), committed.next_batch()).await;
    assert!(waited.is_err(), "beyond the last stable offset: {waited:?}");
    kafka.java().abort_transaction(&topic, 0, id, 0).await;
    let read = read_up_to(&mut committed, 6).await;
    assert_eq!(read.into_keys().collect::<Vec<_>>(), [4, 5]);
    let truth = Truth::of(kafka, &topic).await;
    assert_eq!(truth.aborted(), 1);
    for isolation in ISOLATIONS {
        truth.replay(&partition, 0, isolation).await;
    }
}

/// Several producers append to one log, in transactions that are committed or aborted, and outside of any.
async fn interleaved(version: Version) {
    let kafka = Kafka::shared(version);
    let seed = fastrand::u64(..);
    kwal_tests::report(format_args!("{version}: transactions of several producers, seed {seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = world(kafka);
    let mut log = world.log("interleaved", &[]).await;
    let mut open = Vec::new();
    for number in 0..4 {
        let name = world.name(&format!("producer {number}"));
        open.push((world.transaction(&mut log, &name).await, false));
    }
    let rounds = if kwal_tests::long() { 1_000 } else { 120 };
    for round in 0..rounds {
        let number = random.usize(..=open.len());
        let compression = if random.bool() { Compression::Lz4 } else { Compression::None };
        let batch = batch(&format!("{round}"), random.u8(1..4), compression);
        let Some((transaction, is_open)) = open.get_mut(number) else {
            log.append(batch).await;
            continue;
        };
        if *is_open && random.u8(..3) == 0 {
            world.end(transaction, &mut log, random.bool()).await;
            *is_open = false;
        } else {
            world.append_in_transaction(transaction, &mut log, batch).await;
            *is_open = true;
        }
    }
    for (transaction, is_open) in &mut open {
        if *is_open {
            world.end(transaction, &mut log, random.bool()).await;
        }
    }
    all_agree(kafka, &mut log).await;
}

/// Readers that begin at any offset, and get any number of batches at a time, agree with the segment files
/// and with Java.
async fn all_agree(kafka: &Kafka, log: &mut Log) {
    let end = log.end().await;
    let truth = Truth::of(kafka, &log.topic).await;
    assert!(truth.aborted() > 0, "no transaction was aborted");
    let partition = connect(kafka).await.partition_client(&log.topic, 0).await.unwrap();
    for isolation in ISOLATIONS {
        truth.replay(&partition, 0, isolation).await;
        for (from, max_bytes) in (0..end).step_by(7).zip([1, 500, 1 << 20].into_iter().cycle()) {
            let replay = replay(&partition, from).isolation(isolation).max_bytes(max_bytes);
            let mut replay = replay.await.unwrap();
            let read = read_to_end(&mut replay).await;
            truth.check(&replay, &read, isolation);
        }
        let mut stream = follow(&partition, 0).isolation(isolation).max_bytes(1_000).await.unwrap();
        let all = truth.by_java(0..end, isolation);
        assert_eq!(read_up_to(&mut stream, end).await, all);
        assert!(stream.caught_up() && stream.lag() == 0, "{stream:?}");
        for mid in (1..end).step_by(11) {
            assert_eq!(resumed(&partition, isolation, mid).await, all, "resumed at {mid}");
        }
    }
}

/// Reads one part by batch and the next one record by record, each from where the one before was.
async fn resumed(partition: &PartitionClient, isolation: Isolation, mid: i64) -> BTreeMap<i64, String> {
    let mut first = replay(partition, 0).isolation(isolation).end(mid).await.unwrap();
    let mut read = read_to_end(&mut first).await;
    let position: Position = first.position().to_string().parse().unwrap();
    assert_eq!(position.offset, mid);
    let mut records = replay(partition, position).isolation(isolation).await.unwrap();
    for record in records.by_ref().take(5).try_collect::<Vec<_>>().await.unwrap() {
        assert_eq!(read.insert(record.offset, value(&record)), None, "twice");
    }
    let rest = replay(partition, records.position()).isolation(isolation).await.unwrap();
    for record in rest.try_collect::<Vec<_>>().await.unwrap() {
        assert_eq!(read.insert(record.offset, value(&record)), None, "twice");
    }
    read
}

/// Returns a batch of so many records.
fn batch(value: &str, count: u8, compression: Compression) -> EncodedBatch {
    let time = now_ms();
    let mut batch = BatchBuilder::new(compression);
    for index in 0..count {
        batch.push(time, Some(&[b'a' + index]), Some(format!("{value}-{index}").as_bytes()), NO_HEADERS);
    }
    batch.finish().unwrap()
}
