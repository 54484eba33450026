//! Hazards of logs: deleted and compacted records, and transactions of other producers.

use kwal_protocol::record::{BatchBuilder, BatchHeader, Compression, Headers, OwnedRecord};

use super::{Repair, Run};
use crate::check::{Writer, WriterId};

/// A producer of transactions in one partition.
#[derive(Debug)]
pub(super) struct OtherProducer {
    topic: String,
    partition: i32,
    /// Its id in the history, if that is recorded.
    writer: Option<WriterId>,
    /// The number of its records.
    records: i32,
    /// Whether it appends to an open transaction.
    is_open: bool,
}

impl Run<'_> {
    /// Deletes the first records of a partition, up to its high watermark.
    ///
    /// All replicas have them, or else one that lags would start again at the log start, and as leader accept
    /// duplicates of producers that it does not know.
    pub(super) fn trim(&mut self) -> bool {
        let Some((topic, partition)) = self.log_with(|policy| policy.deletes) else { return false };
        let start = self.cluster.start_offset(&topic, partition).unwrap_or_default();
        let replicas = self.cluster.replicas(&topic, partition).unwrap_or_default();
        let ends = replicas.iter().map(|broker| self.cluster.replica_end_offset(*broker, &topic, partition));
        let end = ends.chain([self.cluster.high_watermark(&topic, partition)]).map(Result::unwrap_or_default);
        let all = u64::try_from(end.min().unwrap_or_default() - start).unwrap_or_default();
        // Rarely everything.
        let most = if self.rng.u8(..4) == 0 { all } else { all / 4 };
        let before = start + self.rng.u64(..=most) as i64;
        before > start && self.cluster.delete_records(&topic, partition, before).is_ok()
    }

    /// Removes records below the last stable offset, the end of the log included.
    pub(super) fn compact(&mut self) -> bool {
        let Some((topic, partition)) = self.log_with(|policy| policy.compacts) else { return false };
        let start = self.cluster.start_offset(&topic, partition).unwrap_or_default();
        let stable = self.cluster.last_stable_offset(&topic, partition).unwrap_or_default();
        let Ok(readable @ 1..) = u64::try_from(stable - start) else { return false };
        let below = match self.rng.u8(..3) {
            0 => stable,
            _ => start + self.rng.u64(1..=readable) as i64,
        };
        let (salt, extent) = (self.rng.u64(..), Extent::from(self.rng.u8(..4)));
        let from = start + self.rng.u64(..(below - start).unsigned_abs()) as i64;
        if extent == Extent::All && self.rng.bool() {
            self.forget_ended(&topic, partition);
        }
        let keep = |record: &OwnedRecord| match extent {
            _ if record.offset >= below => true,
            Extent::Records => !mixed(salt, record.offset).is_multiple_of(3),
            Extent::Blocks => mixed(salt, record.offset / 16).is_multiple_of(2),
            Extent::Range => record.offset < from,
            Extent::All => false,
        };
        let remove = |header: &BatchHeader| match header.is_control() {
            _ if header.next_offset() > below => false,
            // As in Kafka, markers stay as long as there are records of their transaction.
            true => extent == Extent::All,
            false => extent != Extent::Records || mixed(salt, header.base_offset).is_multiple_of(2),
        };
        self.cluster.note(format!("{topic}-{partition} is compacted below {below}: {extent:?}"));
        self.cluster.compact_batches(&topic, partition, keep, remove).is_ok()
    }

    /// Appends a batch of another producer, whose transaction begins or is open.
    pub(super) fn append_in_transaction(&mut self) -> bool {
        let Some((topic, partition)) = self.log_with(|_| true) else { return false };
        let open = self.producers.iter().filter(|(_, producer)| {
            producer.is_open && producer.topic == topic && producer.partition == partition
        });
        let open: Vec<_> = open.map(|(id, _)| *id).collect();
        let continued = if self.rng.bool() { self.one_of(&open).copied() } else { None };
        let producer_id = continued.unwrap_or_else(|| self.begin_transaction(topic, partition));
        self.append(producer_id)
    }

    fn begin_transaction(&mut self, topic: String, partition: i32) -> i64 {
        let producer_id = self.cluster.new_producer_id();
        let writer = Writer::new((topic.as_str(), partition)).without_ids().on_failure_continue();
        let recorder = self.cluster.recorder();
        let writer = recorder.map(|recorder| recorder.now().writer(writer.transactional()));
        let producer = OtherProducer { topic, partition, writer, records: 0, is_open: true };
        self.producers.insert(producer_id, producer);
        // Others hang until the storm is over.
        if self.rng.u8(..6) > 0 {
            let (pause, committed) = (self.up_to(5_000), self.rng.bool());
            self.repair_after(pause, Repair::EndTransaction { producer_id, committed });
        }
        producer_id
    }

    fn append(&mut self, producer_id: i64) -> bool {
        let count = self.rng.i32(1..=4);
        let Some(producer) = self.producers.get_mut(&producer_id) else { return false };
        let sequence = producer.records;
        producer.records += count;
        let values: Vec<_> =
            (sequence..sequence + count).map(|number| format!("txn{producer_id}.{number}")).collect();
        let mut batch = BatchBuilder::new(Compression::None);
        let now = self.cluster.now_ms();
        for value in &values {
            batch.push(now, Some(value.as_bytes()), Some(value.as_bytes()), &Headers::new());
        }
        let Ok(batch) = batch.finish() else { return false };
        let recorder = self.cluster.recorder();
        let append = recorder.as_ref().zip(producer.writer);
        let append = append.map(|(recorder, writer)| recorder.now().submit(writer, &values));
        let (topic, partition) = (producer.topic.as_str(), producer.partition);
        let placed = self.cluster.append_in_transaction(topic, partition, (producer_id, 0), sequence, &batch);
        if let Ok(offset) = placed {
            let note = format!(
                "producer {producer_id} appends to {topic}-{partition} in a transaction, at {offset}"
            );
            self.cluster.note(note);
        }
        if let (Some(recorder), Some(append)) = (recorder, append) {
            // No acknowledgement waits for the replicas.
            match placed.is_ok() {
                true => recorder.now().unknown(append),
                false => recorder.now().not_appended(append),
            }
        }
        placed.is_ok()
    }

    /// Ends a transaction that is open according to the log.
    ///
    /// That can be one that ended before, if an election lost its marker.
    pub(super) fn end_transaction(&mut self, producer_id: i64, committed: bool) {
        let Some(producer) = self.producers.get_mut(&producer_id) else { return };
        producer.is_open = false;
        let (topic, partition) = (producer.topic.as_str(), producer.partition);
        let open = self.cluster.open_transactions(topic, partition).unwrap_or_default();
        if open.iter().all(|(id, _)| *id != producer_id) {
            return;
        }
        // Readers may get its records only after this.
        if let (Some(recorder), Some(writer)) = (self.cluster.recorder(), producer.writer) {
            recorder.now().transaction_ended(writer, committed);
        }
        let how = if committed { "committed" } else { "aborted" };
        self.cluster
            .note(format!("the transaction of producer {producer_id} in {topic}-{partition} is {how}"));
        // The topic may be gone by now.
        let _ = self.cluster.end_transaction(topic, partition, (producer_id, 0), committed);
    }

    /// Aborts all transactions of this storm.
    pub(super) fn abort_all(&mut self) {
        let producers: Vec<_> = self.producers.keys().copied().collect();
        producers.into_iter().for_each(|producer| self.end_transaction(producer, false));
    }

    /// Makes a partition forget the producers of transactions that ended, as if they had been idle for long.
    fn forget_ended(&self, topic: &str, partition: i32) {
        for (id, producer) in &self.producers {
            if !producer.is_open && producer.topic == topic && producer.partition == partition {
                // The partition exists.
                let _ = self.cluster.forget_producer(topic, partition, *id);
            }
        }
    }

    /// Returns a partition of a topic whose policy is `wanted`, and which is not internal.
    fn log_with(&mut self, wanted: impl Fn(Policy) -> bool) -> Option<(String, i32)> {
        let mut partitions = super::partitions(self.cluster);
        partitions.retain(|(topic, _)| {
            let policy = self.cluster.cleanup_policy(topic);
            !topic.starts_with("__")
                && policy.is_some_and(|(deletes, compacts)| wanted(Policy { deletes, compacts }))
        });
        self.one_of(&partitions).cloned()
    }
}

/// What happens to old records of a topic.
struct Policy {
    deletes: bool,
    compacts: bool,
}

/// What a compaction removes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Extent {
    /// Single records.
    Records,
    /// Blocks of records, and so whole batches.
    Blocks,
    /// Everything from some offset on.
    Range,
    /// Everything.
    All,
}

impl From<u8> for Extent {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Records,
            1 => Self::Blocks,
            2 => Self::Range,
            _ => Self::All,
        }
    }
}

/// Returns a number that is the same for an offset in all replicas.
fn mixed(salt: u64, offset: i64) -> u64 {
    fastrand::Rng::with_seed(salt ^ offset.unsigned_abs()).u64(..)
}
