//! The order of what is read: batches by their headers, records by their offsets.

use kwal_protocol::record::{Batch, BatchError, BatchErrorKind, BatchHeader};

/// Checks that a batch covers offsets, from `next` on. Returns the one after them.
///
/// Between batches there may be holes, where compaction removed others.
pub(crate) fn in_order(batch: &Batch, next: i64) -> Result<i64, BatchError> {
    let (first, last) = covered(batch);
    match first >= next && last >= first && last < i64::MAX {
        true => Ok(last + 1),
        false => Err(out_of_order(batch, next)),
    }
}

pub(crate) fn out_of_order(batch: &Batch, next: i64) -> BatchError {
    let (first, last) = covered(batch);
    BatchError {
        kind: BatchErrorKind::Offsets { first, last, next },
        position: batch.position(),
        base_offset: Some(batch.base_offset()),
    }
}

/// Returns the first and the last offset that a batch covers, as far as its header has them: before magic 2
/// that is the last one alone.
fn covered(batch: &Batch) -> (i64, i64) {
    let last = batch.last_offset();
    let first = if batch.magic() == BatchHeader::MAGIC { batch.base_offset() } else { last };
    (first, last)
}

/// Checks that records come in offset order. The batches themselves do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    /// The lowest offset that the next record may have.
    next: i64,
    /// The highest one: the last offset of the batch.
    last: i64,
    position: usize,
    base_offset: i64,
}

impl Order {
    pub(crate) fn after(next: i64) -> Self {
        Self { next, ..Self::default() }
    }

    pub(crate) fn begin(&mut self, batch: &Batch) {
        self.position = batch.position();
        self.base_offset = batch.base_offset();
        // Before magic 2, headers have neither the first offset nor a reliable last one.
        if batch.magic() == BatchHeader::MAGIC {
            (self.next, self.last) = (batch.base_offset(), batch.last_offset());
        } else {
            self.last = i64::MAX - 1;
        }
    }

    #[inline]
    pub(crate) fn check(&mut self, offset: i64) -> Result<(), BatchError> {
        if !(self.next..=self.last).contains(&offset) {
            return Err(self.error(offset));
        }
        self.next = offset + 1;
        Ok(())
    }

    #[cold]
    fn error(&self, offset: i64) -> BatchError {
        let Self { next, last, position, base_offset } = *self;
        let kind = BatchErrorKind::RecordOffset { offset, next, last };
        BatchError { kind, position, base_offset: Some(base_offset) }
    }
}
