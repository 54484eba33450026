//! Judges a log by what its holders have reported.

use std::collections::{BTreeMap, BTreeSet};

use kwal_client::record::Barrier;
use kwal_client::{Client, OffsetAt};
use kwal_protocol::messages::{FetchRequest, IsolationLevel};
use kwal_tests::holder::{Event, Holder};
use kwal_tests::kafka::Kafka;
use serde_json::json;

use super::processes::{Held, held};
use super::{NAME, connect, transactional_id};
use crate::fidelity::log::{FETCH, LATEST, LIST_OFFSETS, Log};
use crate::raw::Broker;
use crate::segments::same_as_kafka;

/// A record and the producer of its batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
    /// How many records its batch has.
    pub(super) records: usize,
    pub(super) value: String,
    /// Whether it is a barrier or a fence.
    pub(super) is_barrier: bool,
}

/// Checks a log that only these processes have appended to, in the order in which they took over. Nobody may
/// be appending.
///
/// What is on it is read by kwal and from the segment files of `node`, which have to agree. Returns the
/// records in the segment files.
pub(super) async fn judge(
    kafka: &Kafka,
    node: u16,
    topic: &str,
    holders: &[&Holder],
) -> BTreeMap<i64, Entry> {
    let client = connect(kafka).await;
    let (start, read) = read(&client, topic).await;
    let stored = stored(&same_as_kafka(kafka, &kafka.segments(node, topic, 0)).await);
    let kept: BTreeMap<i64, Entry> =
        stored.clone().into_iter().filter(|(offset, _)| *offset >= start).collect();
    assert_eq!(read, kept, "read by kwal and in the segment files of node {node}");
    committed_readers_see_all(kafka, topic, start, &read).await;

    let unique: BTreeSet<_> = data(&stored).map(|(_, entry)| &entry.value).collect();
    assert_eq!(unique.len(), data(&stored).count(), "a record is on the log twice: {stored:?}");
    for (index, holder) in holders.iter().enumerate() {
        acknowledged_once(holder, &stored);
        let earlier: Vec<_> = holders[..index].iter().map(|holder| (holder, held(holder))).collect();
        let Held { producer_id, epoch, barrier, .. } = held(holder);
        if let Some(entry) = stored.get(&barrier) {
            assert!(entry.is_barrier && entry.records == 1, "{entry:?}");
            assert_eq!((entry.producer_id, entry.epoch), (producer_id, epoch));
        }
        for (offset, entry) in stored.range(barrier + 1..) {
            for (earlier, held) in &earlier {
                let is_label = entry.value.starts_with(&format!("{}-", earlier.job().label));
                let is_producer = entry.producer_id == held.producer_id
                    && (producer_id != held.producer_id || entry.epoch < epoch);
                assert!(!is_label && !is_producer, "behind the barrier {barrier}: {offset}: {entry:?}");
            }
        }
    }
    stored
}

/// Checks that all records that were acknowledged to a process are at their offsets, and none that certainly
/// was not appended is on the log.
fn acknowledged_once(holder: &Holder, stored: &BTreeMap<i64, Entry>) {
    let first = stored.first_key_value().map_or(0, |(offset, _)| *offset);
    let values: BTreeSet<_> = stored.values().map(|entry| &*entry.value).collect();
    for event in holder.events() {
        match event {
            // The file was deleted.
            Event::Acked { offset: Some(offset), .. } if *offset < first => {}
            Event::Acked { value, offset: None, .. } => {
                assert!(first > 0 || values.contains(&**value), "{value} was acknowledged");
            }
            Event::Acked { value, offset: Some(offset), .. } => {
                let found = stored.get(offset).map(|entry| &entry.value);
                assert_eq!(found, Some(value), "acknowledged at {offset}");
                assert!(*offset > held(holder).barrier, "{value} before the barrier");
            }
            Event::Failed { value, failure } => {
                let is_appended = values.contains(&**value);
                assert!(!is_appended || !failure.is_not_applied, "{value} was appended: {failure:?}");
            }
            _ => {}
        }
    }
}

/// Returns the records without barriers.
pub(super) fn data(entries: &BTreeMap<i64, Entry>) -> impl Iterator<Item = (&i64, &Entry)> {
    entries.iter().filter(|(_, entry)| !entry.is_barrier)
}

/// Reads the whole log by kwal. Returns its start as well.
pub(super) async fn read(client: &Client, topic: &str) -> (i64, BTreeMap<i64, Entry>) {
    let partition = client.partition_client(topic, 0).await.unwrap();
    let start = partition.get_offset(OffsetAt::Earliest).await.unwrap();
    let end = partition.get_offset(OffsetAt::Latest).await.unwrap();
    let mut entries = BTreeMap::new();
    let mut next = start;
    while next < end {
        let fetched = partition.fetch(next).await.unwrap();
        for batch in fetched.batches() {
            let header = *batch.header();
            let records = batch.records(1 << 20).unwrap();
            for record in &records {
                let record = record.unwrap();
                let barrier = Barrier::parse(&record);
                if let Some(barrier) = &barrier {
                    assert_eq!(barrier.name, NAME);
                    assert_eq!(record.key, Some(transactional_id(topic).as_bytes()));
                }
                let entry = Entry {
                    producer_id: header.producer_id,
                    epoch: header.producer_epoch,
                    records: usize::try_from(header.count).unwrap(),
                    value: String::from_utf8(record.value.unwrap().to_vec()).unwrap(),
                    is_barrier: barrier.is_some(),
                };
                if record.offset >= start {
                    entries.insert(record.offset, entry);
                }
            }
        }
        next = fetched.next_offset;
    }
    (start, entries)
}

/// Returns the records in the lines of a dump.
pub(super) fn stored(lines: &[String]) -> BTreeMap<i64, Entry> {
    let mut entries = BTreeMap::new();
    let mut batch = "";
    for line in lines {
        if !line.starts_with("| ") {
            batch = line;
            continue;
        }
        let entry = Entry {
            producer_id: field(batch, "producerId").parse().unwrap(),
            epoch: field(batch, "producerEpoch").parse().unwrap(),
            records: field(batch, "count").parse().unwrap(),
            value: line.split_once(" payload: ").unwrap().1.to_owned(),
            is_barrier: field(line, "headerKeys") == "[kwal.barrier,kwal.producer-id,kwal.epoch,kwal.mark]",
        };
        let twice = entries.insert(field(line, "offset").parse().unwrap(), entry);
        assert_eq!(twice, None, "{line}");
    }
    entries
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let mut words = line.split_whitespace();
    words.find(|word| word.strip_suffix(':') == Some(name)).unwrap_or_else(|| panic!("{name} in {line}"));
    words.next().unwrap()
}

/// Checks that no transaction delays readers with READ_COMMITTED, Java's among them.
async fn committed_readers_see_all(kafka: &Kafka, topic: &str, start: i64, read: &BTreeMap<i64, Entry>) {
    let mut log = open(kafka, topic).await;
    no_transaction_is_open(&mut log, start).await;
    let consume = json!({
        "topic": topic, "partition": 0, "from": start, "config": { "isolation.level": "read_committed" },
    });
    let consumed = kafka.java().call("consume", consume).await.unwrap();
    let consumed: Vec<i64> =
        consumed.as_array().unwrap().iter().map(|record| record["offset"].as_i64().unwrap()).collect();
    assert_eq!(consumed, read.keys().copied().collect::<Vec<_>>());
}

/// Checks that readers with READ_COMMITTED see as much as others: the log has no open transaction and no
/// aborted one.
pub(super) async fn no_transaction_is_open(log: &mut Log, from: i64) {
    let request =
        FetchRequest { isolation_level: IsolationLevel::READ_COMMITTED, ..log.fetch_request(from, 1 << 20) };
    let response = log.connection.call(&request, FETCH).await.responses.remove(0).partitions.remove(0);
    assert!(!response.error_code.is_error(), "{response:?}");
    assert_eq!(response.last_stable_offset, response.high_watermark);
    assert_eq!(response.aborted_transactions.map_or(0, |aborted| aborted.len()), 0);
    let mut request = log.list_offsets(LATEST);
    request.isolation_level = IsolationLevel::READ_COMMITTED;
    let committed = log.connection.call(&request, LIST_OFFSETS).await;
    // Others may have appended since.
    assert!(committed.topics[0].partitions[0].offset >= response.high_watermark, "{committed:?}");
}

/// Connects to the leader without a client.
pub(super) async fn open(kafka: &Kafka, topic: &str) -> Log {
    let mut connection = Broker::leading(&kafka.bootstrap()[0], topic).await;
    let id = connection.topic_id(topic).await;
    Log { connection, topic: topic.to_owned(), id, partition: 0 }
}
