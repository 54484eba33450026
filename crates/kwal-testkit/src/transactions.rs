//! The transactions of a replica (KIP-98).

use std::collections::BTreeMap;

use kwal_protocol::{messages::AbortedTransaction, record::BatchHeader};

/// The transactions of one replica.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transactions {
    /// The first offset of each open transaction, by producer id.
    open: BTreeMap<i64, i64>,
    /// Ended transactions, by the offset of their markers.
    ended: Vec<Ended>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    producer_id: i64,
    first_offset: i64,
    marker: i64,
    committed: bool,
}

impl Transactions {
    /// Updates the state for a batch on the log.
    ///
    /// `committed` is the result of a transaction if the batch is its marker.
    pub(crate) fn note(&mut self, header: &BatchHeader, committed: Option<bool>) {
        if let Some(committed) = committed {
            if let Some(first_offset) = self.open.remove(&header.producer_id) {
                let (producer_id, marker) = (header.producer_id, header.base_offset);
                self.ended.push(Ended { producer_id, first_offset, marker, committed });
            }
        } else if header.is_transactional() && !header.is_control() {
            self.open.entry(header.producer_id).or_insert(header.base_offset);
        }
    }

    /// Returns the last stable offset.
    ///
    /// No earlier record is in a transaction that is open, or whose marker is not replicated.
    pub(crate) fn last_stable(&self, high_watermark: i64) -> i64 {
        let open = self.open.values().copied();
        let fresh = self.ended.iter().rev().take_while(|ended| ended.marker >= high_watermark);
        open.chain(fresh.map(|ended| ended.first_offset))
            .min()
            .map_or(high_watermark, |first| first.min(high_watermark))
    }

    /// Returns the aborted transactions with records in a range of offsets, whose end is exclusive.
    pub(crate) fn aborted(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        let overlaps = |ended: &&Ended| !ended.committed && ended.marker >= from && ended.first_offset < to;
        let aborted = self.ended.iter().filter(overlaps);
        aborted
            .map(|ended| AbortedTransaction {
                producer_id: ended.producer_id,
                first_offset: ended.first_offset,
            })
            .collect()
    }

    /// Returns the producers of open transactions, by ascending id, and the first offset of each.
    pub(crate) fn open(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.open.iter().map(|(producer_id, first_offset)| (*producer_id, *first_offset))
    }

    /// Returns whether the batch of a producer at an offset is in an aborted transaction.
    pub(crate) fn is_aborted(&self, producer_id: i64, offset: i64) -> bool {
        let of_batch = |ended: &&Ended| {
            ended.producer_id == producer_id && (ended.first_offset..ended.marker).contains(&offset)
        };
        self.ended.iter().find(of_batch).is_some_and(|ended| !ended.committed)
    }

    /// Returns the first offset of a producer's open transaction.
    pub(crate) fn begun_at(&self, producer_id: i64) -> Option<i64> {
        self.open.get(&producer_id).copied()
    }

    /// Removes the transaction whose marker was at an offset, with all its records.
    pub(crate) fn forget_marker(&mut self, offset: i64) {
        self.ended.retain(|ended| ended.marker != offset);
    }

    /// Removes the transactions that ended before an offset.
    pub(crate) fn forget_before(&mut self, offset: i64) {
        self.ended.retain(|ended| ended.marker >= offset);
    }
}
