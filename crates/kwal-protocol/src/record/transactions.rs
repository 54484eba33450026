//! The filter of READ_COMMITTED (KIP-98).
//!
//! The response to such a fetch contains everything below the last stable offset, and a list of the aborted
//! transactions in it: producer id and first offset. From that offset on, the transactional batches of that
//! producer belong to the transaction, up to the marker that ends it.

use std::{cmp::Reverse, collections::BinaryHeap, collections::HashSet, iter::FusedIterator};

use super::{
    batches::{Batch, Batches},
    control::{ControlRecord, ControlType},
    error::{BatchError, BatchErrorKind},
};
use crate::messages::AbortedTransaction;

/// An iterator over batches that skips those of aborted transactions.
///
/// Everything else is returned, control batches included. [`next_offset`](Self::next_offset) also advances
/// over the batches that were skipped.
///
/// ```
/// use kwal_protocol::{
///     messages::AbortedTransaction,
///     record::{BatchBuilder, Batches, CommittedBatches, Compression, Headers},
/// };
///
/// let mut builder = BatchBuilder::new(Compression::None);
/// builder.push(0, None, Some(b"x"), &Headers::new());
/// let batch = builder.finish()?.with_transactional(true);
/// let (aborted, committed) = (batch.stamp(7, 0, 0).at(0, 0), batch.stamp(8, 0, 0).at(1, 0));
/// let records = [aborted.to_bytes(), committed.to_bytes()].concat();
///
/// let list = [AbortedTransaction { producer_id: 7, first_offset: 0 }];
/// let mut batches = CommittedBatches::new(Batches::new(records.into()), &list);
/// assert_eq!(batches.next().unwrap()?.header().producer_id, 8);
/// assert!(batches.next().is_none());
/// assert_eq!(batches.next_offset(), Some(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CommittedBatches<I = Batches> {
    batches: I,
    aborted: AbortedTransactions,
    next_offset: Option<i64>,
    done: bool,
}

impl<I> CommittedBatches<I> {
    /// Creates an iterator over batches in log order, with the list of their response in any order.
    pub fn new(batches: I, aborted: &[AbortedTransaction]) -> Self {
        Self { batches, aborted: AbortedTransactions::new(aborted), next_offset: None, done: false }
    }

    /// Returns the offset at which to continue reading, skipped batches included.
    ///
    /// `None` before the first batch.
    pub const fn next_offset(&self) -> Option<i64> {
        self.next_offset
    }

    /// Returns the remaining batches, unfiltered.
    pub const fn batches(&self) -> &I {
        &self.batches
    }
}

impl<I: Iterator<Item = Result<Batch, BatchError>>> Iterator for CommittedBatches<I> {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let next = self.batches.next().map(|batch| {
                let batch = batch?;
                Ok((self.aborted.covers(&batch)?, batch))
            });
            match next {
                Some(Ok((is_aborted, batch))) => {
                    self.next_offset = Some(batch.next_offset());
                    if !is_aborted {
                        return Some(Ok(batch));
                    }
                }
                Some(Err(error)) => {
                    self.done = true;
                    return Some(Err(error));
                }
                None => self.done = true,
            }
        }
        None
    }
}

impl<I: Iterator<Item = Result<Batch, BatchError>>> FusedIterator for CommittedBatches<I> {}

/// Decides which batches belong to aborted transactions; used by [`CommittedBatches`].
#[derive(Clone, Debug)]
pub struct AbortedTransactions {
    /// Transactions not reached yet: first offset and producer id, the next one on top.
    ahead: BinaryHeap<Reverse<(i64, i64)>>,
    /// The producers whose aborted transaction is open at this point of the log.
    open: HashSet<i64>,
}

impl AbortedTransactions {
    /// Creates it from the list of a Fetch response, in any order.
    pub fn new(list: &[AbortedTransaction]) -> Self {
        let ahead = list.iter().map(|aborted| Reverse((aborted.first_offset, aborted.producer_id)));
        Self { ahead: ahead.collect(), open: HashSet::new() }
    }

    /// Whether the records of this batch were aborted. Call it once per batch, in log order.
    ///
    /// # Errors
    /// If it is a control batch that cannot be decoded.
    pub fn covers(&mut self, batch: &Batch) -> Result<bool, BatchError> {
        let producer_id = batch.header().producer_id;
        if producer_id < 0 {
            return Ok(false);
        }
        while let Some(&Reverse((first_offset, aborted))) = self.ahead.peek()
            && first_offset <= batch.last_offset()
        {
            self.open.insert(aborted);
            self.ahead.pop();
        }
        if batch.is_control() {
            if batch.control()?.is_some_and(|record| record.control_type() == ControlType::ABORT) {
                self.open.remove(&producer_id);
            }
            return Ok(false);
        }
        Ok(batch.is_transactional() && self.open.contains(&producer_id))
    }
}

impl Batch {
    /// Decodes a control batch; `None` if it is not one, or compaction emptied it.
    ///
    /// # Errors
    /// Those of [`records`](Self::records) and of [`ControlRecord::decode`].
    pub fn control(&self) -> Result<Option<ControlRecord>, BatchError> {
        if !self.is_control() {
            return Ok(None);
        }
        let records = self.records(CONTROL_LIMIT)?;
        let Some(record) = records.iter().next() else { return Ok(None) };
        let malformed = |error| BatchError {
            kind: BatchErrorKind::Control(error),
            position: self.position(),
            base_offset: Some(self.base_offset()),
        };
        ControlRecord::decode(&record?).map(Some).map_err(malformed)
    }
}

/// The maximum size of a decompressed control batch in bytes; in practice they are not compressed.
const CONTROL_LIMIT: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{
        BatchBuilder, BatchHeader, Compression, EndTransaction, Headers, RawBatch, RawRecord,
    };

    /// A log with one record per batch: its producer and its type.
    fn log(batches: &[(i64, Kind)]) -> Batches {
        let batch = |(offset, &(producer_id, kind)): (usize, &(i64, Kind))| {
            let flags = match kind {
                Plain => 0,
                Data => BatchHeader::TRANSACTIONAL,
                Commit | Abort => BatchHeader::TRANSACTIONAL | BatchHeader::CONTROL,
            };
            let committed = matches!(kind, Commit);
            let end = EndTransaction { key_version: 0, committed, coordinator_epoch: 1 };
            let (key, value) = end.to_key_and_value();
            let record = RawRecord {
                key: Some(key.to_vec().into()),
                value: Some(value.to_vec().into()),
                ..RawRecord::default()
            };
            let header = BatchHeader {
                base_offset: offset as i64,
                producer_id,
                attributes: flags,
                ..BatchHeader::default()
            };
            RawBatch { position: 0, header, records: vec![record] }.encode().unwrap()
        };
        Batches::new(batches.iter().enumerate().flat_map(batch).collect::<Vec<_>>().into())
    }

    #[derive(Clone, Copy)]
    enum Kind {
        Plain,
        Data,
        Commit,
        Abort,
    }
    use Kind::{Abort, Commit, Data, Plain};

    fn aborted(list: &[(i64, i64)]) -> Vec<AbortedTransaction> {
        let entry = |&(producer_id, first_offset)| AbortedTransaction { producer_id, first_offset };
        list.iter().map(entry).collect()
    }

    /// The offsets of the returned batches, without control batches.
    fn seen(batches: &[(i64, Kind)], list: &[(i64, i64)]) -> Vec<i64> {
        let mut committed = CommittedBatches::new(log(batches), &aborted(list));
        let seen = committed.by_ref().map(Result::unwrap).filter(|batch| !batch.is_control());
        let seen = seen.map(|batch| batch.base_offset()).collect();
        assert_eq!(committed.next_offset(), Some(batches.len() as i64));
        assert!(committed.next().is_none());
        seen
    }

    #[test]
    fn a_transaction_reaches_to_its_marker() {
        let log =
            [(1, Data), (2, Data), (1, Data), (1, Abort), (1, Data), (2, Commit), (1, Commit), (3, Plain)];
        assert_eq!(seen(&log, &[(1, 0)]), [1, 4, 7]);
        assert_eq!(seen(&log, &[]), [0, 1, 2, 4, 7]);
    }

    #[test]
    fn one_producer_aborts_several_times_in_any_order_of_the_list() {
        let log = [
            (1, Data),
            (1, Abort),
            (2, Data),
            (1, Data),
            (1, Commit),
            (1, Data),
            (2, Abort),
            (1, Abort),
            (2, Data),
            (2, Commit),
        ];
        for list in [[(1, 0), (2, 2), (1, 5)], [(1, 5), (2, 2), (1, 0)], [(2, 2), (1, 5), (1, 0)]] {
            assert_eq!(seen(&log, &list), [3, 8], "{list:?}");
        }
    }

    #[test]
    fn only_transactional_batches_of_that_producer_are_left_out() {
        assert_eq!(seen(&[(1, Plain), (-1, Plain), (1, Data), (1, Abort)], &[(1, 0), (-1, 0)]), [0, 1]);
    }

    /// A transaction that began earlier, one whose marker is missing, and one that begins later.
    #[test]
    fn transactions_reach_over_the_ends_of_a_fetch() {
        let log = [(1, Data), (1, Abort), (2, Data), (3, Data)];
        assert_eq!(seen(&log, &[(3, 90), (2, 2), (1, -50)]), [3]);
    }

    #[test]
    fn markers_that_cannot_be_read_are_an_error_and_the_end() {
        let header =
            BatchHeader { producer_id: 1, attributes: BatchHeader::CONTROL, ..BatchHeader::default() };
        let odd = RawBatch { position: 0, header, records: vec![RawRecord::default()] }.encode().unwrap();
        let empty = RawBatch { position: 0, header, records: Vec::new() }.encode().unwrap();
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(0, None, None, &Headers::new());
        let plain = builder.finish().unwrap().to_bytes();
        let log = [&empty[..], &odd, &plain].concat();
        let mut committed = CommittedBatches::new(Batches::new(log.into()), &[]);
        assert_eq!(committed.next().unwrap().unwrap().control(), Ok(None));
        let fault = committed.next().unwrap().unwrap_err();
        assert!(matches!(fault.kind, BatchErrorKind::Control(_)), "{fault}");
        assert!(committed.next().is_none());
    }
}
