//! Decodes the records section of a batch.

use std::iter::FusedIterator;

use bytes::Bytes;

use super::{
    error::{BatchError, BatchErrorKind},
    header::{BatchHeader, sequence},
    legacy,
    reader::Reader,
    view::{HeadersIter, OwnedRecord, RecordView},
};
use crate::error::{DecodeError, DecodeErrorKind};

/// The records of one batch, decompressed but not decoded yet.
///
/// `&records` is an iterator of borrowed [`RecordView`]s, which does not allocate. `records` is one of
/// [`OwnedRecord`]s, whose keys and values are slices of the same buffer. A [`RecordCursor`] lends each
/// record before it is made an owned one.
#[derive(Clone, Debug)]
pub struct Records {
    header: BatchHeader,
    position: usize,
    count: u32,
    body: Bytes,
    /// Before magic 2: added to the offsets in the messages.
    shift: i64,
}

impl Records {
    pub(super) const fn new(header: BatchHeader, position: usize, count: u32, body: Bytes) -> Self {
        Self { header, position, count, body, shift: 0 }
    }

    /// Messages of magic 0 or 1, which have been checked.
    pub(super) const fn of_messages(
        header: BatchHeader,
        position: usize,
        count: u32,
        body: Bytes,
        shift: i64,
    ) -> Self {
        Self { header, position, count, body, shift }
    }

    /// Returns the header of the batch.
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Returns the number of records in the header; before magic 2, the number of messages.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Returns the records section, decompressed; before magic 2, the messages.
    pub const fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// Returns an iterator over the borrowed records.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { records: self, walk: Walk::new(self) }
    }

    #[cold]
    fn error(&self, kind: BatchErrorKind) -> BatchError {
        BatchError { kind, position: self.position, base_offset: Some(self.header.base_offset) }
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<RecordView<'a>, BatchError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

impl IntoIterator for Records {
    type Item = Result<OwnedRecord, BatchError>;
    type IntoIter = OwnedRecords;

    fn into_iter(self) -> OwnedRecords {
        OwnedRecords(RecordCursor::new(self))
    }
}

/// An iterator over the borrowed records of a batch. It ends after an error.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    records: &'a Records,
    walk: Walk,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        self.walk.next(self.records)
    }
}

impl FusedIterator for RecordIter<'_> {}

/// An iterator over the owned records of a batch. It ends after an error.
#[derive(Clone, Debug)]
pub struct OwnedRecords(RecordCursor);

impl Iterator for OwnedRecords {
    type Item = Result<OwnedRecord, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.0.advance()? {
            Ok((record, bytes)) => Ok(record.to_slices(bytes)),
            Err(error) => Err(error),
        })
    }
}

impl FusedIterator for OwnedRecords {}

/// Decodes the records of a batch one after the other, each in a single pass.
///
/// It owns the records as [`OwnedRecords`] does, and lends each one: what is not kept costs no reference to
/// the buffer.
///
/// ```
/// use kwal_protocol::record::{BatchBuilder, Batches, Compression, Headers, RecordCursor};
///
/// let mut builder = BatchBuilder::new(Compression::None);
/// for value in [&b"small"[..], b"much larger"] {
///     builder.push(1_700_000_000_000, None, Some(value), &Headers::new());
/// }
/// let batch = Batches::new(builder.finish()?.to_bytes()).next().unwrap()?;
///
/// let (mut cursor, mut kept) = (RecordCursor::new(batch.records(1 << 20)?), Vec::new());
/// while let Some((record, bytes)) = cursor.advance().transpose()? {
///     if record.value.is_some_and(|value| value.len() > 5) {
///         kept.push(record.to_slices(bytes));
///     }
/// }
/// assert_eq!((kept.len(), kept[0].offset), (1, 1));
/// assert!(cursor.is_at_end());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RecordCursor {
    records: Records,
    walk: Walk,
}

impl RecordCursor {
    /// Begins at the first record.
    pub const fn new(records: Records) -> Self {
        let walk = Walk::new(&records);
        Self { records, walk }
    }

    /// Returns the next record, and the bytes that it is a view of, for [`RecordView::to_slices`]; `None`
    /// after the last one, and after an error.
    ///
    /// # Errors
    /// The record is malformed; the batch has fewer records than its header says, or bytes after the last.
    #[inline(always)]
    pub fn advance(&mut self) -> Option<Result<(RecordView<'_>, &Bytes), BatchError>> {
        Some(match self.walk.next(&self.records)? {
            Ok(record) => Ok((record, &self.records.body)),
            Err(error) => Err(error),
        })
    }

    /// Returns what [`advance`](Self::advance) would return, and stays where it is.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub fn peek(&self) -> Option<Result<RecordView<'_>, BatchError>> {
        self.walk.clone().next(&self.records)
    }

    /// Whether there is nothing left, neither a record nor an error. Nothing is decoded.
    #[inline]
    pub const fn is_at_end(&self) -> bool {
        self.walk.left == 0 && self.walk.at == self.records.body.len()
    }
}

/// Returns the time of a record: the batch's if the broker set it, otherwise base plus delta.
#[inline]
pub(super) const fn timestamp_ms(batch: &BatchHeader, delta: i64) -> i64 {
    if batch.magic >= BatchHeader::MAGIC && batch.attributes & BatchHeader::LOG_APPEND_TIME != 0 {
        batch.max_timestamp
    } else {
        batch.base_timestamp.wrapping_add(delta)
    }
}

/// The position of an iterator: nothing is left after an error.
#[derive(Clone, Debug)]
struct Walk {
    at: usize,
    /// How many more records there should be.
    left: u32,
}

impl Walk {
    const fn new(records: &Records) -> Self {
        Self { at: 0, left: records.count }
    }

    /// Always inlined, so that a caller uses the fields and no record is moved.
    #[inline(always)]
    fn next<'a>(&mut self, records: &'a Records) -> Option<Result<RecordView<'a>, BatchError>> {
        if self.left == 0 {
            return self.end(records).map(Err);
        }
        if records.header.magic != BatchHeader::MAGIC {
            return Some(self.next_message(records));
        }
        let rest = &records.body[self.at..];
        let mut reader = Reader(rest);
        // The error is found by decoding once more, so that records which are valid do not pay for it.
        let Ok(record) = reader.record(&records.header) else { return Some(Err(self.fail(records))) };
        self.at += rest.len() - reader.0.len();
        self.left -= 1;
        Some(Ok(record))
    }

    /// The same for the formats before magic 2.
    #[cold]
    fn next_message<'a>(&mut self, records: &'a Records) -> Result<RecordView<'a>, BatchError> {
        match legacy::view(&records.body[self.at..], &records.header, records.shift) {
            Ok((view, size)) => {
                self.at += size;
                self.left -= 1;
                Ok(view)
            }
            Err(error) => {
                let error = DecodeError { at: self.at + error.at, ..error };
                Err(self.malformed(records, error))
            }
        }
    }

    /// Returns the error of leftover bytes, once.
    #[cold]
    fn end(&mut self, records: &Records) -> Option<BatchError> {
        let left = records.body.len() - self.at;
        self.at += left;
        (left > 0).then(|| records.error(BatchErrorKind::BytesLeft(left)))
    }

    /// Returns the error of the next record.
    #[cold]
    #[inline(never)]
    fn fail(&mut self, records: &Records) -> BatchError {
        let len = records.body.len();
        if self.at == len {
            let kind =
                BatchErrorKind::RecordsMissing { count: records.count, found: records.count - self.left };
            self.left = 0;
            return records.error(kind);
        }
        let mut reader = Reader(&records.body[self.at..]);
        let (kind, field) = match reader.record(&records.header) {
            Ok(_) => (DecodeErrorKind::UnexpectedEnd, ""),
            Err(fault) => fault,
        };
        self.malformed(records, DecodeError { kind, at: len - reader.0.len(), field })
    }

    fn malformed(&mut self, records: &Records, error: DecodeError) -> BatchError {
        let index = records.count - self.left;
        *self = Self { at: records.body.len(), left: 0 };
        records.error(BatchErrorKind::Record { index, error })
    }
}

/// The fault and its field.
type Fault = (DecodeErrorKind, &'static str);

impl<'a> Reader<'a> {
    /// Decodes a record. After an error the reader stays near the fault.
    #[inline(always)]
    fn record(&mut self, batch: &BatchHeader) -> Result<RecordView<'a>, Fault> {
        let length = self.length().map_err(|kind| (kind, "length"))?;
        if length > self.0.len() {
            return Err((DecodeErrorKind::UnexpectedEnd, "length"));
        }
        let (record, rest) = self.0.split_at(length);
        let mut reader = Reader(record);
        let result = reader.fields(batch);
        // After an error the rest of the record stays, so that the position of the fault is known.
        self.0 = if result.is_ok() { rest } else { &self.0[length - reader.0.len()..] };
        result
    }

    #[inline(always)]
    fn fields(&mut self, batch: &BatchHeader) -> Result<RecordView<'a>, Fault> {
        let Some((&attributes, rest)) = self.0.split_first() else {
            return Err((DecodeErrorKind::UnexpectedEnd, "attributes"));
        };
        self.0 = rest;
        let timestamp_delta = self.i64().map_err(|kind| (kind, "timestampDelta"))?;
        let offset_delta = self.i32().map_err(|kind| (kind, "offsetDelta"))?;
        let key = self.nullable().map_err(|kind| (kind, "key"))?;
        let value = self.nullable().map_err(|kind| (kind, "value"))?;
        let headers = self.headers().map_err(|kind| (kind, "headers"))?;
        if !self.0.is_empty() {
            return Err((DecodeErrorKind::TrailingBytes(self.0.len()), "length"));
        }
        Ok(RecordView {
            offset: batch.base_offset.wrapping_add(offset_delta.into()),
            timestamp_ms: timestamp_ms(batch, timestamp_delta),
            leader_epoch: batch.partition_leader_epoch,
            sequence: sequence(batch.base_sequence, offset_delta),
            attributes: attributes as i8,
            timestamp_delta,
            offset_delta,
            key,
            value,
            headers,
        })
    }

    #[inline]
    fn headers(&mut self) -> Result<HeadersIter<'a>, DecodeErrorKind> {
        let count = self.length()?;
        if count == 0 {
            return Ok(HeadersIter::default());
        }
        // Each header takes at least two bytes.
        if count > self.0.len() / 2 {
            return Err(DecodeErrorKind::UnexpectedEnd);
        }
        HeadersIter::read(self, count as u32)
    }
}
