//! Readers of a log whose records are deleted while they read.

use std::collections::BTreeMap;
use std::ops::Range;

use kwal_batching::reader::{OutOfRange, Replay, follow, replay};
use kwal_client::error::ErrorKind;
use kwal_client::record::Record;
use kwal_client::{OffsetAt, PartitionClient};
use kwal_tests::kafka::{Kafka, Version};

use super::{append, connect, read_up_to, take};

kwal_tests::suite! {
    own: [trimmed],
}

const RECORDS: i64 = 1_000;
/// How many records each batch has.
const BATCH: i64 = 5;

async fn trimmed(version: Version) {
    let kafka = Kafka::shared(version);
    tokio::join!(
        is_reported(kafka),
        begins_at_the_start(kafka),
        begins_at_the_end(kafka),
        deleted_all_along(kafka, version),
    );
}

/// Appends batches of records whose values are their offsets.
async fn log(kafka: &Kafka, what: &str) -> PartitionClient {
    let topic = kafka.topic(what, 1, &[]).await;
    let partition = connect(kafka).await.partition_client(topic, 0).await.unwrap();
    fill(&partition, 0..RECORDS).await;
    partition
}

async fn fill(partition: &PartitionClient, offsets: Range<i64>) {
    for first in offsets.step_by(BATCH as usize) {
        let records = (first..first + BATCH).map(|offset| Record::new("key", offset.to_string()));
        let produced = partition.produce(records.collect::<Vec<_>>()).await.unwrap();
        assert_eq!(produced.base_offset, Some(first));
    }
}

/// Without a policy, a reader that the log start has overtaken ends. What it returned before is without a
/// hole.
async fn is_reported(kafka: &Kafka) {
    let partition = log(kafka, "trimmed").await;
    let mut replay = replay(&partition, 0).max_bytes(500).await.unwrap();
    let mut read = some_of(&mut replay).await;
    partition.delete_records(702).await.unwrap();
    let error = loop {
        match replay.next_batch().await {
            Ok(batch) => take(&batch.unwrap(), &mut read),
            Err(error) => break error,
        }
    };
    let position = replay.position().offset;
    let ErrorKind::Trimmed { offset, log_start, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!((*offset, *log_start), (position, 702), "{error:?}");
    assert_eq!(read, values(0..position));
    for _ in 0..2 {
        let again = replay.next_batch().await.unwrap_err();
        assert!(matches!(again.kind(), ErrorKind::Trimmed { .. }), "{again:?}");
    }
    // A position is refused likewise, and a stream.
    let error = partition.fetch(replay.position()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Trimmed { log_start: 702, .. }), "{error:?}");
    let mut stream = follow(&partition, replay.position()).await.unwrap();
    let error = stream.next_batch().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Trimmed { log_start: 702, .. }), "{error:?}");
    // The log start itself is in range.
    let mut stream = follow(&partition, log_start.to_owned()).await.unwrap();
    assert_eq!(read_up_to(&mut stream, RECORDS).await, values(702..RECORDS));
}

/// It goes on at the log start, in the middle of a batch. At last everything is deleted.
async fn begins_at_the_start(kafka: &Kafka) {
    let partition = log(kafka, "from-start").await;
    let replay = replay(&partition, 0).max_bytes(500).out_of_range(OutOfRange::FromStart);
    let mut replay = replay.await.unwrap();
    let mut read = some_of(&mut replay).await;
    for before in [303, 601] {
        partition.delete_records(before).await.unwrap();
        let position = replay.position().offset;
        while replay.position().offset < before + 20 {
            take(&replay.next_batch().await.unwrap().unwrap(), &mut read);
        }
        assert!(read.range(before..).count() as i64 >= 20 && position < before);
    }
    partition.delete_records(RECORDS).await.unwrap();
    while let Some(batch) = replay.next_batch().await.unwrap() {
        take(&batch, &mut read);
    }
    accounts(&replay, &read);
    assert_eq!(replay.position().offset, RECORDS);
    // And the stream after it has nothing to skip.
    let mut stream = replay.follow();
    append(&partition, RECORDS.to_string()).await;
    assert_eq!(read_up_to(&mut stream, RECORDS + 1).await, values(RECORDS..RECORDS + 1));
}

/// It goes on at the end. What it did not read is counted.
async fn begins_at_the_end(kafka: &Kafka) {
    let partition = log(kafka, "from-end").await;
    let stream = follow(&partition, 0).max_bytes(500).out_of_range(OutOfRange::FromEnd);
    let mut stream = stream.await.unwrap();
    let mut read = BTreeMap::new();
    while read.len() < 30 {
        take(&stream.next_batch().await.unwrap(), &mut read);
    }
    partition.delete_records(702).await.unwrap();
    let next = tokio::spawn({
        let partition = partition.clone();
        async move { fill(&partition, RECORDS..RECORDS + 50).await }
    });
    read.extend(read_up_to(&mut stream, RECORDS + 50).await);
    next.await.unwrap();
    let summary = stream.summary();
    let passed = summary.without_records.trimmed + summary.without_records.passed;
    assert_eq!(read.len() as u64 + passed, (RECORDS + 50) as u64, "{summary:?}");
    assert!(passed > 0 && read.range(702..RECORDS).count() == 0, "{summary:?}");
    assert!(read.iter().all(|(offset, value)| *value == offset.to_string()));
}

/// Records are deleted again and again while replays run. Each of them returns every record that was never
/// deleted, once.
async fn deleted_all_along(kafka: &Kafka, version: Version) {
    let partition = log(kafka, "all-along").await;
    let deleting = tokio::spawn({
        let partition = partition.clone();
        async move {
            for before in (0..RECORDS - 100).step_by(23) {
                partition.delete_records(before).await.unwrap();
            }
        }
    });
    let (mut replays, mut skipped) = (0, 0);
    while !deleting.is_finished() {
        let replay = replay(&partition, 0).max_bytes(300).out_of_range(OutOfRange::FromStart);
        let mut replay = replay.await.unwrap();
        let mut read = BTreeMap::new();
        while let Some(batch) = replay.next_batch().await.unwrap() {
            take(&batch, &mut read);
        }
        let start = partition.get_offset(OffsetAt::Earliest).await.unwrap();
        assert!(read.range(start..).map(|(offset, _)| *offset).eq(start..RECORDS), "from {start}: {read:?}");
        accounts(&replay, &read);
        replays += 1;
        skipped += replay.summary().gaps.len();
    }
    deleting.await.unwrap();
    kwal_tests::report(format_args!(
        "{version}: {replays} replays, overtaken {skipped} times by the log start"
    ));
}

/// Checks that all offsets are read or known to be deleted.
fn accounts(replay: &Replay, read: &BTreeMap<i64, String>) {
    let summary = replay.summary();
    assert_eq!(summary.offsets, 0..RECORDS);
    let trimmed: Vec<Range<i64>> = summary.gaps.iter().map(|gap| gap.offsets.clone()).collect();
    let is_trimmed = |offset: &i64| trimmed.iter().any(|gap| gap.contains(offset));
    assert!((0..RECORDS).all(|offset| read.contains_key(&offset) != is_trimmed(&offset)), "{summary:?}");
    assert!(read.iter().all(|(offset, value)| *value == offset.to_string()));
    assert_eq!(summary.records, read.len() as u64);
    assert_eq!(summary.without_records.trimmed, RECORDS as u64 - summary.records, "{summary:?}");
}

async fn some_of(replay: &mut Replay) -> BTreeMap<i64, String> {
    let mut read = BTreeMap::new();
    while read.len() < 30 {
        take(&replay.next_batch().await.unwrap().unwrap(), &mut read);
    }
    read
}

fn values(offsets: Range<i64>) -> BTreeMap<i64, String> {
    offsets.map(|offset| (offset, offset.to_string())).collect()
}
