//! Offsets that have no records to read, and why.

use std::ops::Range;

use kwal_protocol::{
    messages::AbortedTransaction,
    record::{AbortedTransactions, Batch, BatchError, BatchHeader},
};

/// Offsets that have no records to read.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Gap {
    /// The offsets.
    pub offsets: Range<i64>,
    /// Why.
    pub reason: GapReason,
}

/// Why offsets have no records to read.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum GapReason {
    /// A control batch, such as the marker that ends a transaction.
    Control,
    /// A batch of a transaction that was aborted: with [`ReadCommitted`](super::Isolation::ReadCommitted).
    Aborted,
    /// Compaction removed all records of a batch, or the whole batch.
    Empty,
    /// Deleted by retention or `delete_records`, and passed by a reader whose policy says so. A fetch does
    /// not pass it.
    Trimmed,
    /// On the log, and passed by a reader whose policy is to go on at the end of the log. A fetch does not
    /// pass it.
    Passed,
    /// A batch that cannot be read, and was passed by a reader whose policy or caller says so. A fetch does
    /// not pass it.
    Unreadable,
}

impl GapReason {
    /// Whether there was nothing to read: no record was missed that was appended and is not aborted.
    pub fn is_expected(self) -> bool {
        matches!(self, Self::Control | Self::Aborted | Self::Empty)
    }
}

impl Gap {
    /// Offsets that have no records to read.
    pub fn new(offsets: Range<i64>, reason: GapReason) -> Self {
        Self { offsets, reason }
    }
}

/// Batches of a response that have been looked through.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    /// Those that are not aborted.
    pub(crate) batches: Vec<Batch>,
    pub(crate) gaps: Vec<Gap>,
    /// The offset after them; the requested one if they all lie before it.
    pub(crate) next_offset: i64,
    /// The leader epoch of the last of them; `None` if there is none, or it has none.
    pub(crate) leader_epoch: Option<i32>,
    /// Why the batches after them are left for the next fetch, and the offsets of the first of those.
    pub(crate) unread: Option<(BatchError, Range<i64>)>,
}

impl Sorted {
    /// Looks through batches that are in offset order, from an offset on.
    ///
    /// It ends at a control batch that cannot be decoded, if that decides which batches were aborted.
    pub(crate) fn new(batches: Vec<Batch>, from: i64, aborted: Option<&[AbortedTransaction]>) -> Self {
        let mut aborted = aborted.map(AbortedTransactions::new);
        let mut sorted = Self { next_offset: from, ..Self::default() };
        sorted.batches.reserve(batches.len());
        for batch in batches {
            let is_aborted = match aborted.as_mut().map_or(Ok(false), |aborted| aborted.covers(&batch)) {
                Ok(is_aborted) => is_aborted,
                Err(error) => {
                    sorted.unread = Some((error, batch.base_offset()..batch.next_offset()));
                    break;
                }
            };
            let (header, next) = (batch.header(), batch.next_offset());
            let is_current = header.magic == BatchHeader::MAGIC;
            // Before magic 2, headers do not have the first offset.
            let first =
                if is_current { header.base_offset.max(sorted.next_offset) } else { sorted.next_offset };
            sorted.gap(sorted.next_offset..first, GapReason::Empty);
            let reason = match () {
                () if batch.is_control() => Some(GapReason::Control),
                () if is_aborted => Some(GapReason::Aborted),
                () if is_current && header.count == 0 => Some(GapReason::Empty),
                () => None,
            };
            if let Some(reason) = reason {
                sorted.gap(first..next, reason);
            }
            sorted.next_offset = next.max(sorted.next_offset);
            sorted.leader_epoch =
                (header.partition_leader_epoch >= 0).then_some(header.partition_leader_epoch);
            if !is_aborted {
                sorted.batches.push(batch);
            }
        }
        sorted
    }

    fn gap(&mut self, offsets: Range<i64>, reason: GapReason) {
        if offsets.is_empty() {
            return;
        }
        match self.gaps.last_mut() {
            Some(last) if last.reason == reason && last.offsets.end == offsets.start => {
                last.offsets.end = offsets.end;
            }
            _ => self.gaps.push(Gap { offsets, reason }),
        }
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::record::{Batches, EndTransaction, RawBatch, RawRecord};

    use super::*;

    /// Batches, each with a base offset, a last offset, and how many records it has.
    fn batches(all: &[(i64, i64, BatchHeader)]) -> Vec<Batch> {
        let encode = |(base_offset, last, header): &(i64, i64, BatchHeader)| {
            let (key, value) =
                EndTransaction { key_version: 0, committed: false, coordinator_epoch: 0 }.to_key_and_value();
            let record = RawRecord {
                key: Some(key.to_vec().into()),
                value: Some(value.to_vec().into()),
                ..RawRecord::default()
            };
            let header = BatchHeader {
                base_offset: *base_offset,
                last_offset_delta: i32::try_from(last - base_offset).unwrap(),
                ..*header
            };
            let records = if header.count == 0 { vec![] } else { vec![record] };
            RawBatch { position: 0, header, records }.encode().unwrap()
        };
        let bytes = all.iter().flat_map(encode).collect::<Vec<_>>();
        Batches::new(bytes.into()).map(Result::unwrap).collect()
    }

    fn of_epoch(partition_leader_epoch: i32) -> BatchHeader {
        BatchHeader { partition_leader_epoch, count: 1, ..BatchHeader::default() }
    }

    fn empty(partition_leader_epoch: i32) -> BatchHeader {
        BatchHeader { count: 0, ..of_epoch(partition_leader_epoch) }
    }

    fn of_transaction(producer_id: i64) -> BatchHeader {
        BatchHeader { producer_id, attributes: BatchHeader::TRANSACTIONAL, ..of_epoch(3) }
    }

    fn marker(producer_id: i64) -> BatchHeader {
        let attributes = BatchHeader::TRANSACTIONAL | BatchHeader::CONTROL;
        BatchHeader { attributes, ..of_transaction(producer_id) }
    }

    fn gaps(sorted: &Sorted) -> Vec<(Range<i64>, GapReason)> {
        sorted.gaps.iter().map(|gap| (gap.offsets.clone(), gap.reason)).collect()
    }

    #[test]
    fn every_offset_without_records_is_in_a_gap() {
        use GapReason::{Aborted, Control, Empty};
        let all = batches(&[
            (10, 14, of_epoch(2)),
            (17, 18, empty(2)),
            (19, 19, marker(70)),
            (20, 22, of_transaction(80)),
            (23, 23, of_transaction(90)),
            (25, 25, marker(80)),
            (26, 30, of_epoch(3)),
        ]);
        let aborted = [AbortedTransaction { producer_id: 80, first_offset: 20 }];
        let sorted = Sorted::new(all.clone(), 8, Some(&aborted));
        let expected = [
            (8..10, Empty),
            (15..19, Empty),
            (19..20, Control),
            (20..23, Aborted),
            (24..25, Empty),
            (25..26, Control),
        ];
        assert_eq!(gaps(&sorted), expected);
        assert_eq!((sorted.next_offset, sorted.leader_epoch, sorted.batches.len()), (31, Some(3), 6));
        // From within a batch.
        let sorted = Sorted::new(all.clone(), 12, None);
        assert_eq!(gaps(&sorted), [(15..19, Empty), (19..20, Control), (24..25, Empty), (25..26, Control)]);
        let sorted = Sorted::new(all, 18, Some(&aborted));
        assert_eq!(gaps(&sorted)[0], (18..19, Empty));
    }

    #[test]
    fn without_batches_nothing_moves() {
        let sorted = Sorted::new(Vec::new(), 8, Some(&[]));
        assert_eq!((sorted.next_offset, sorted.leader_epoch, sorted.gaps.len()), (8, None, 0));
        // Nor with those before the offset.
        let sorted = Sorted::new(batches(&[(0, 5, empty(1))]), 8, None);
        assert_eq!((sorted.next_offset, sorted.gaps.len()), (8, 0));
    }
}
