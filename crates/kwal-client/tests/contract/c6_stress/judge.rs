//! Compares the log with what holders know of it.

use std::collections::BTreeMap;

use kwal_client::{Resolution, record::Barrier};
use kwal_protocol::record::Batch;
use kwal_testkit::EmbeddedCluster;

use super::ledger::{Entries, Ledger};

impl Ledger {
    /// Returns the offset before which the log may be deleted: that of the last barrier that a holder has on
    /// it, or of the first fence.
    pub(super) fn end_of_deletion(&self, cluster: &EmbeddedCluster) -> Option<i64> {
        let entries = self.entries();
        let log = cluster.log("wal", 0).unwrap();
        let barrier = log.iter().rfind(|batch| entries.holder_of(batch).is_some())?.base_offset();
        let fence = log.iter().find(|batch| batch.header().producer_epoch == i16::MAX);
        Some(fence.map_or(barrier, |fence| barrier.min(fence.base_offset())))
    }

    /// Notes what is wrong on the log. An unclean election may have lost anything.
    pub(super) fn judge(&self, cluster: &EmbeddedCluster, is_unclean: bool) {
        let start = cluster.start_offset("wal", 0).unwrap();
        let mut entries = self.entries();
        let seen = entries.judge_order(&cluster.log("wal", 0).unwrap());
        let mut faults = Vec::new();
        for (value, offset) in &entries.acknowledged {
            match (seen.get(value), offset) {
                _ if is_unclean => {}
                (Some(found), Some(offset)) if found == offset => {}
                (Some(_), None) => {}
                (None, Some(offset)) if *offset < start => {}
                (None, None) if start > 0 => {}
                (found, _) => faults.push(format!("{value} is acknowledged at {offset:?}, and at {found:?}")),
            }
        }
        for value in &entries.not_applied {
            if seen.contains_key(value) {
                faults.push(format!("{value} is not applied, and on the log"));
            }
        }
        for (value, resolution) in &entries.resolved {
            match (seen.get(value), resolution) {
                (Some(offset), Resolution::Appended(range)) if *offset == range.start => {}
                (None, Resolution::Appended(range)) if range.start < start || is_unclean => {}
                (None, Resolution::NotApplied) => {}
                (found, _) => faults.push(format!("{value} is resolved: {resolution:?}, and at {found:?}")),
            }
        }
        entries.faults.extend(faults);
    }
}

impl Entries {
    /// Returns the holder whose barrier a batch is.
    fn holder_of(&self, batch: &Batch) -> Option<usize> {
        let barrier = Barrier::in_batch(batch)?;
        self.barriers.get(&(barrier.producer_id, barrier.epoch)).map(|(number, _)| *number)
    }

    /// Notes values that are on the log twice, or after the barrier of a later holder. Returns their offsets.
    fn judge_order(&mut self, log: &[Batch]) -> BTreeMap<String, i64> {
        let mut seen = BTreeMap::new();
        let mut barriers: BTreeMap<usize, i64> = self.barriers.values().copied().collect();
        let mut last_barrier = -1;
        for batch in log {
            let is_fence = batch.header().producer_epoch == i16::MAX;
            if let Some(number) = self.holder_of(batch) {
                last_barrier = batch.base_offset();
                barriers.insert(number, last_barrier);
            }
            for record in &batch.records(1 << 20).unwrap() {
                let record = record.unwrap();
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                let header = batch.header();
                let (id, epoch) = (header.producer_id, header.producer_epoch);
                self.history.push(format!("{} {id}/{epoch} {value:?}", record.offset));
                // Barriers, and what fences other producer ids.
                if value.is_empty() {
                    continue;
                }
                let number: usize = value.split('-').next().unwrap().parse().unwrap();
                // The fence of a resolution is under the producer id of the append.
                if !is_fence && barriers.get(&number).is_some_and(|barrier| *barrier < last_barrier) {
                    let offset = record.offset;
                    self.faults.push(format!("{value} is at {offset}, after barrier {last_barrier}"));
                }
                let is_fence = value.ends_with('f');
                if let Some(before) = seen.insert(value, record.offset).filter(|_| !is_fence) {
                    self.faults.push(format!("{before} is at {} again", record.offset));
                }
            }
        }
        seen
    }
}
