//! Entries of many fragments: of 40 MiB, of several writers at a time, and on a compacted topic.

use bytes::Bytes;
use futures::future::join_all;
use kwal_batching::entry::{Entry, Item, Reader, Reason, Writer};
use kwal_batching::reader::{Replay, replay};
use kwal_client::error::Outcome;
use kwal_client::record::Record;
use kwal_client::{ClientBuilder, OffsetAt, PartitionClient};
use kwal_protocol::error_code::ErrorCode;
use kwal_tests::kafka::Kafka;

kwal_tests::suite! {
    shared: [forty_mebibytes, several_writers, compacted],
}

async fn open(kafka: &Kafka, topic: &str) -> PartitionClient {
    let client = ClientBuilder::new(kafka.bootstrap()).build().await.unwrap();
    client.partition_client(topic, 0).await.unwrap()
}

fn value(seed: u64, len: usize) -> Bytes {
    let mut value = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut value);
    value.into()
}

/// Reads all entries, and why others are incomplete.
async fn read(reader: &mut Reader<Replay>) -> (Vec<Entry>, Vec<Reason>) {
    let (mut entries, mut reasons) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next().await.unwrap() {
        match item {
            Item::Entry(entry) => entries.push(entry),
            Item::Incomplete(incomplete) => reasons.push(incomplete.reason),
            item => panic!("{item:?}"),
        }
    }
    (entries, reasons)
}

/// The topic has the default `max.message.bytes`, and the client has its default limits.
async fn forty_mebibytes(kafka: &'static Kafka) {
    let topic = kafka.topic("entry", 1, &[]).await;
    let partition = open(kafka, &topic).await;
    let writer = Writer::new(partition.clone());
    let large = Record::new("key", value(1, 40 << 20)).header("a", "b");
    let appended = writer.append(large.clone()).await.unwrap();
    assert_eq!((appended.first, appended.last, appended.fragments), (Some(0), Some(41), 42));
    writer.append(Record::new("key", "small")).await.unwrap();
    let mut reader = Reader::new(replay(&partition, OffsetAt::Earliest).await.unwrap());
    let (entries, reasons) = read(&mut reader).await;
    assert_eq!((entries.len(), reasons), (2, vec![]));
    assert!(entries[0].value == large.value);
    assert_eq!((&entries[0].key, &entries[0].headers), (&large.key, &large.headers));
    assert_eq!((entries[0].timestamp_ms, entries[0].last), (large.timestamp_ms(), 41));
    assert_eq!((entries[1].value.as_deref(), entries[1].first), (Some(&b"small"[..]), 42));

    // The beginning is removed, and a reader resumes after it.
    partition.delete_records(20).await.unwrap();
    let mut cut = Reader::new(replay(&partition, OffsetAt::Earliest).await.unwrap());
    let (entries, reasons) = read(&mut cut).await;
    assert_eq!((entries.len(), &reasons[..]), (1, &[Reason::CutOff][..]));
    let checkpoint = reader.checkpoint();
    let mut resumed = Reader::new(replay(&partition, checkpoint.from).await.unwrap()).resume(&checkpoint);
    writer.append(Record::new("key", value(2, 3 << 20))).await.unwrap();
    let (entries, reasons) = read(&mut resumed).await;
    assert_eq!((entries.len(), reasons), (0, vec![]));
    let mut stream = resumed.follow();
    let Some(Item::Entry(entry)) = stream.next().await.unwrap() else { panic!("{stream:?}") };
    assert!(entry.value == Some(value(2, 3 << 20)));
}

async fn several_writers(kafka: &'static Kafka) {
    const WRITERS: u64 = 4;
    const ENTRIES: u64 = 6;
    let topic = kafka.topic("entries", 1, &[]).await;
    let appends = (0..WRITERS).map(async |index| {
        let writer = Writer::new(open(kafka, &topic).await).fragment_bytes(20_000);
        for number in 0..ENTRIES {
            let seed = index * ENTRIES + number;
            writer.append(Record::new("key", value(seed, 15_000 * (1 + seed as usize)))).await.unwrap();
        }
    });
    join_all(appends).await;
    let partition = open(kafka, &topic).await;
    let mut reader = Reader::new(replay(&partition, OffsetAt::Earliest).await.unwrap());
    let (entries, reasons) = read(&mut reader).await;
    assert_eq!((reasons, reader.unfinished().count()), (vec![], 0));
    assert!(entries.is_sorted_by_key(|entry| entry.last));
    let is_interleaved = |entry: &Entry| entry.last - entry.first >= i64::from(entry.fragments);
    assert!(entries.iter().any(is_interleaved));
    let mut found: Vec<_> = entries.into_iter().map(|entry| entry.value.unwrap()).collect();
    let mut expected: Vec<_> =
        (0..WRITERS * ENTRIES).map(|seed| value(seed, 15_000 * (1 + seed as usize))).collect();
    found.sort();
    expected.sort();
    assert!(found == expected);
}

/// Nothing of an entry gets onto a log that would be compacted.
async fn compacted(kafka: &'static Kafka) {
    let topic = kafka.topic("compacted", 1, &[("cleanup.policy", "compact")]).await;
    let partition = open(kafka, &topic).await;
    let writer = Writer::new(partition.clone());
    let error = writer.append(Record::new("key", value(1, 3 << 20))).await.unwrap_err();
    assert_eq!((error.outcome(), error.code()), (Outcome::NotApplied, Some(ErrorCode::INVALID_RECORD)));
    assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), 0);
    assert_eq!(writer.append(Record::new("key", "small")).await.unwrap().first, Some(0));
}
