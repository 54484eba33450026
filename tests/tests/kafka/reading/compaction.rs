//! Compacted logs: holes between records, and tails that the cleaner has emptied or removed.

use std::fs::{OpenOptions, metadata, remove_file};
use std::sync::Arc;
use std::time::Duration;

use kwal_batching::reader::{follow, replay};
use kwal_protocol::record::{BatchBuilder, Compression, EncodedBatch};
use kwal_tests::kafka::Kafka;

use super::judge::{Truth, stored};
use super::{ISOLATIONS, append, connect, open, read_to_end, read_up_to};
use crate::fidelity::log::{Log, NO_HEADERS, TIME};
use crate::fidelity::world::until;

/// Settings with which the cleaner removes at once what it may.
const CLEAN: [(&str, &str); 4] = [
    ("segment.ms", "1000"),
    ("min.cleanable.dirty.ratio", "0.001"),
    ("min.compaction.lag.ms", "0"),
    ("delete.retention.ms", "0"),
];

/// The time between two segments.
const ROUND: i64 = 10_000;

/// The cleaner leaves the last record of each key.
pub(super) async fn holes(kafka: &Kafka) {
    let topic = kafka.topic("holes", 1, &[&[("cleanup.policy", "compact")], &CLEAN[..]].concat()).await;
    let mut log = open(kafka, &topic).await;
    let mut appended = 0;
    // The batches have holes inside, are empty, or are gone with all around them.
    for round in 0..4_i64 {
        for number in 0..40 {
            let keys = [format!("every {}", number % 5), format!("{number} of each round")];
            let mut records: Vec<_> = keys.iter().map(|key| Some(&**key)).collect();
            let kept = format!("kept {round} {number}");
            if number % 9 == 0 {
                records.push(Some(&kept));
            }
            let compression = if number % 2 == 0 { Compression::None } else { Compression::Lz4 };
            let records = batch(compression, TIME + round * ROUND, &records);
            appended += i64::from(records.header().count);
            is_appended(&mut log, records).await;
        }
    }
    cleaned(kafka, &topic, |size| size < 6_000).await;
    let truth = Truth::of(kafka, &topic).await;
    let partition = connect(kafka).await.partition_client(&topic, 0).await.unwrap();
    for isolation in ISOLATIONS {
        // Also from within holes.
        for from in (0..appended).step_by(7) {
            truth.replay(&partition, from, isolation).await;
        }
    }
}

/// The cleaner removes all records at the end, and keeps an empty batch there.
pub(super) async fn an_emptied_tail(kafka: &Kafka) {
    let (topic, mut log) = with_emptied_tail(kafka, "emptied").await;
    let truth = Truth::of(kafka, &topic).await;
    let last = truth.batches().last().unwrap();
    assert_eq!((last.offsets.end, last.records.len()), (7, 0), "{last:?}");
    let partition = connect(kafka).await.partition_client(&topic, 0).await.unwrap();
    for isolation in ISOLATIONS {
        for from in 0..=7 {
            truth.replay(&partition, from, isolation).await;
        }
    }
    goes_on_after_it(kafka, &topic, &mut log).await;
}

/// A log as brokers before KAFKA-17076 leave it: nothing is left of the end.
pub(super) async fn a_tail_that_is_gone(kafka: &Kafka) {
    let (topic, _) = with_emptied_tail(kafka, "gone").await;
    let file = kafka.segments(1, &topic, 0).remove(0);
    let node = Arc::clone(kafka.cluster().unwrap().node(1));
    let cut = move || {
        node.stop()?;
        // The size of the first batch.
        OpenOptions::new().write(true).open(&file).unwrap().set_len(FIRST).unwrap();
        for index in ["index", "timeindex"] {
            _ = remove_file(file.with_extension(index));
        }
        node.start()
    };
    tokio::task::spawn_blocking(cut).await.unwrap().unwrap();
    let mut log = open(kafka, &topic).await;
    until("the end is known", async || (log.end().await == 7).then_some(())).await;
    let batches = stored(kafka, 1, &topic, 0).await;
    assert_eq!(batches.last().unwrap().offsets, 0..1, "{batches:?}");
    assert_eq!(batches.len(), 1, "{batches:?}");
    let partition = connect(kafka).await.partition_client(&topic, 0).await.unwrap();
    for isolation in ISOLATIONS {
        for from in [0, 1, 4] {
            let replay = replay(&partition, from).isolation(isolation).max_wait(SOON);
            let mut replay = replay.await.unwrap();
            let read = read_to_end(&mut replay).await;
            assert_eq!(read.len(), usize::from(from == 0));
            let summary = replay.summary();
            assert_eq!(summary.offsets, from..7);
            assert_eq!(summary.without_records.empty, 7 - from.max(1).unsigned_abs(), "{summary:?}");
        }
    }
    let mut stream = follow(&partition, 1).max_wait(SOON).await.unwrap();
    assert_eq!(read_up_to(&mut stream, 7).await.len(), 0);
    assert!(stream.caught_up() && stream.lag() == 0, "{stream:?}");
    goes_on_after_it(kafka, &topic, &mut log).await;
}

/// How long brokers wait for what is not there.
const SOON: Duration = Duration::from_millis(20);

/// The size of a batch with one record that has a key of one byte and a value of five.
const FIRST: u64 = 74;

/// Returns a log of seven offsets, the first with a record, and the others without. The active segment is
/// empty.
async fn with_emptied_tail(kafka: &Kafka, what: &str) -> (String, Log) {
    let topic = kafka.topic(what, 1, &[&[("cleanup.policy", "delete")], &CLEAN[..]].concat()).await;
    let mut log = open(kafka, &topic).await;
    let id = log.producer_id().await;
    let first = |time| batch(Compression::None, time, &[Some("k")]).stamp(id, 0, 0);
    is_appended(&mut log, first(TIME)).await;
    // Compaction removes what has no key.
    for _ in 0..3 {
        is_appended(&mut log, batch(Compression::None, TIME, &[None, None])).await;
    }
    let controller = connect(kafka).await.controller_client().await.unwrap();
    controller.alter_topic_configs(&topic).set("cleanup.policy", "compact").await.unwrap();
    until("it is a compacted topic", async || {
        // Before, it is refused by its sequence number.
        let text = log.append(batch(Compression::None, TIME, &[None]).stamp(id, 0, 7)).await;
        text.starts_with("INVALID_RECORD").then_some(())
    })
    .await;
    // The broker begins a segment before it sees that it has the batch.
    is_appended(&mut log, first(TIME + ROUND)).await;
    cleaned(kafka, &topic, |size| size < 200).await;
    assert_eq!(log.end().await, 7);
    (topic, log)
}

/// Readers wait at the end, also those who begin within the hole, and go on.
async fn goes_on_after_it(kafka: &Kafka, topic: &str, log: &mut Log) {
    let partition = connect(kafka).await.partition_client(topic, 0).await.unwrap();
    let mut after_replay = replay(&partition, 0).await.unwrap();
    read_to_end(&mut after_replay).await;
    let mut streams = vec![after_replay.follow()];
    for from in [1, 3, 7] {
        streams.push(follow(&partition, from).await.unwrap());
    }
    assert_eq!(append(&partition, "next").await, log.end().await - 1);
    for mut stream in streams {
        let read = read_up_to(&mut stream, 8).await;
        assert_eq!(read.into_iter().collect::<Vec<_>>(), [(7, "next".to_owned())]);
    }
}

/// Waits until the files of partition 0 have the wanted size.
async fn cleaned(kafka: &Kafka, topic: &str, is_clean: impl Fn(u64) -> bool) {
    until("the log is clean", async || {
        let files = kafka.segments(1, topic, 0);
        // The cleaner may rename one.
        let sizes: Option<Vec<u64>> = files.iter().map(|file| Some(metadata(file).ok()?.len())).collect();
        let (_active, others) = sizes.as_deref()?.split_last()?;
        (!others.is_empty() && is_clean(others.iter().sum())).then_some(())
    })
    .await;
}

async fn is_appended(log: &mut Log, batch: EncodedBatch) {
    let text = log.append(batch).await;
    assert!(text.starts_with("OK"), "{text}");
}

/// Returns a batch with a record for each key.
fn batch(compression: Compression, time: i64, keys: &[Option<&str>]) -> EncodedBatch {
    let mut batch = BatchBuilder::new(compression);
    for key in keys {
        batch.push(time, key.map(str::as_bytes), Some(b"value"), NO_HEADERS);
    }
    batch.finish().unwrap()
}
