//! What a reader has to see of a log, by its segment files and by Java's consumer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use kwal_batching::reader::{Replay, Summary, replay};
use kwal_client::{Gap, GapReason, Isolation, PartitionClient};
use kwal_tests::kafka::Kafka;
use kwal_tests::message::Message;
use serde_json::json;

use super::{ISOLATIONS, read_to_end};
use crate::segments::same_as_kafka;

/// A batch in a segment file, by DumpLogSegments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Stored {
    pub(super) offsets: Range<i64>,
    pub(super) leader_epoch: i32,
    pub(super) producer_id: i64,
    pub(super) is_transactional: bool,
    /// Whether it ends a transaction, and then whether it commits it.
    pub(super) marker: Option<bool>,
    /// The offsets and values of the records that are not markers.
    pub(super) records: Vec<(i64, String)>,
}

/// What a reader finds in a range of offsets.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Content {
    pub(super) records: BTreeMap<i64, String>,
    /// The offsets of transaction markers.
    pub(super) control: BTreeSet<i64>,
    /// The offsets of batches of aborted transactions.
    pub(super) aborted: BTreeSet<i64>,
    /// The other offsets.
    pub(super) empty: BTreeSet<i64>,
}

/// What is on partition 0 of a topic, by DumpLogSegments and by Java's consumer.
#[derive(Debug)]
pub(super) struct Truth {
    batches: Vec<Stored>,
    /// By isolation, as in [`ISOLATIONS`].
    java: [BTreeMap<i64, String>; 2],
}

impl Truth {
    pub(super) async fn of(kafka: &Kafka, topic: &str) -> Self {
        let [uncommitted, committed] = ISOLATIONS;
        let (batches, uncommitted, committed) = tokio::join!(
            stored(kafka, 1, topic, 0),
            read_by_java(kafka, topic, uncommitted),
            read_by_java(kafka, topic, committed)
        );
        Self { batches, java: [uncommitted, committed] }
    }

    /// Replays from an offset to the end, and checks what comes.
    pub(super) async fn replay(&self, partition: &PartitionClient, from: i64, isolation: Isolation) {
        let mut replay = replay(partition, from).isolation(isolation).await.unwrap();
        let read = read_to_end(&mut replay).await;
        self.check(&replay, &read, isolation);
    }

    /// Checks what a replay to its end has returned, and its summary.
    pub(super) fn check(&self, replay: &Replay, read: &BTreeMap<i64, String>, isolation: Isolation) {
        let summary = replay.summary();
        let offsets = summary.offsets.clone();
        let content = Content::of(&self.batches, offsets.clone(), isolation);
        assert_eq!(*read, content.records, "{isolation:?}: {summary:?}");
        assert_eq!(*read, self.by_java(offsets.clone(), isolation), "{isolation:?}: {summary:?}");
        content.is_covered_by(summary);
        assert_eq!((replay.progress().position, replay.progress().end), (offsets.end, offsets.end));
    }

    /// Returns the records that Java's consumer reads in a range of offsets.
    pub(super) fn by_java(&self, offsets: Range<i64>, isolation: Isolation) -> BTreeMap<i64, String> {
        let java = &self.java[usize::from(isolation == Isolation::ReadCommitted)];
        java.range(offsets).map(|(offset, value)| (*offset, value.clone())).collect()
    }

    pub(super) fn batches(&self) -> &[Stored] {
        &self.batches
    }

    /// Returns how many batches of aborted transactions there are.
    pub(super) fn aborted(&self) -> usize {
        let is_aborted = |(index, batch): &(usize, &Stored)| {
            batch.marker.is_none() && is_aborted(batch, &self.batches[*index..])
        };
        self.batches.iter().enumerate().filter(is_aborted).count()
    }
}

/// Returns the batches in the segment files of a partition on a node, by DumpLogSegments.
pub(super) async fn stored(kafka: &Kafka, node: u16, topic: &str, partition: i32) -> Vec<Stored> {
    batches(&same_as_kafka(kafka, &kafka.segments(node, topic, partition)).await)
}

/// Returns the batches in the lines of a dump.
pub(super) fn batches(lines: &[String]) -> Vec<Stored> {
    let mut batches: Vec<Stored> = Vec::new();
    for line in lines {
        if !line.starts_with("| ") {
            batches.push(Stored {
                offsets: number(line, "baseOffset")..number(line, "lastOffset") + 1,
                leader_epoch: i32::try_from(number(line, "partitionLeaderEpoch")).unwrap(),
                producer_id: number(line, "producerId"),
                is_transactional: field(line, "isTransactional") == "true",
                marker: None,
                records: Vec::new(),
            });
            continue;
        }
        let batch = batches.last_mut().unwrap();
        match line.split_once("endTxnMarker: ") {
            Some((_, marker)) => batch.marker = Some(marker.starts_with("COMMIT")),
            None => {
                let value = line.split_once(" payload: ").unwrap().1.to_owned();
                batch.records.push((number(line, "offset"), value));
            }
        }
    }
    batches
}

impl Content {
    /// Returns what batches have in a range of offsets.
    pub(super) fn of(batches: &[Stored], offsets: Range<i64>, isolation: Isolation) -> Self {
        let mut content = Self { empty: offsets.clone().collect(), ..Self::default() };
        for (index, batch) in batches.iter().enumerate() {
            let covered = batch.offsets.clone().filter(|offset| offsets.contains(offset));
            if batch.marker.is_some() {
                content.control.extend(covered);
            } else if isolation == Isolation::ReadCommitted && is_aborted(batch, &batches[index..]) {
                content.aborted.extend(covered);
            } else {
                let records = batch.records.iter().filter(|(offset, _)| offsets.contains(offset));
                content.records.extend(records.cloned());
            }
        }
        let Self { records, control, aborted, empty } = &mut content;
        empty.retain(|offset| {
            !records.contains_key(offset) && !control.contains(offset) && !aborted.contains(offset)
        });
        content
    }

    /// Checks that a summary accounts for it.
    pub(super) fn is_covered_by(&self, summary: &Summary) {
        let Summary { records, without_records, .. } = summary;
        let counts = [without_records.control, without_records.aborted, without_records.empty];
        let expected = [&self.control, &self.aborted, &self.empty].map(|offsets| offsets.len() as u64);
        assert_eq!(counts, expected, "{summary:?}");
        assert_eq!(*records, self.records.len() as u64, "{summary:?}");
        assert_eq!(without_records.total(), counts.iter().sum::<u64>(), "{summary:?}");
        for Gap { offsets, reason, .. } in &summary.gaps {
            let all = match reason {
                GapReason::Control => &self.control,
                GapReason::Aborted => &self.aborted,
                _ => &self.empty,
            };
            assert!(offsets.clone().all(|offset| all.contains(&offset)), "{reason:?} {offsets:?}: {all:?}");
        }
    }
}

/// Returns whether the next marker of the producer aborts its transaction.
fn is_aborted(batch: &Stored, rest: &[Stored]) -> bool {
    let mut markers = rest.iter().filter(|other| other.producer_id == batch.producer_id);
    batch.is_transactional && markers.find_map(|other| other.marker) == Some(false)
}

/// Returns the records that Java's consumer reads up to the end.
async fn read_by_java(kafka: &Kafka, topic: &str, isolation: Isolation) -> BTreeMap<i64, String> {
    let level = match isolation {
        Isolation::ReadCommitted => "read_committed",
        _ => "read_uncommitted",
    };
    let consume =
        json!({ "topic": topic, "partition": 0, "from": 0, "config": { "isolation.level": level } });
    let read = kafka.java().call("consume", consume).await.unwrap();
    let read: Vec<Message> = serde_json::from_value(read).unwrap();
    let read = read.into_iter();
    read.map(|record| (record.offset, String::from_utf8(record.value.unwrap()).unwrap())).collect()
}

/// Returns the first offset at which two copies of a log differ, in the first one.
pub(super) fn diverges_at(before: &[Stored], after: &[Stored]) -> i64 {
    let differs = |(index, batch): &(usize, &Stored)| after.get(*index) != Some(batch);
    before.iter().enumerate().find(differs).expect("a lost batch").1.offsets.start
}

fn number(line: &str, name: &str) -> i64 {
    field(line, name).parse().unwrap()
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let mut words = line.split_whitespace();
    words.find(|word| word.strip_suffix(':') == Some(name)).unwrap_or_else(|| panic!("{name} in {line}"));
    words.next().unwrap()
}
