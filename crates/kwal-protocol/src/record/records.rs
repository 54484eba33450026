//! From the records section of a batch to its records, borrowed or owned.

use std::iter::FusedIterator;

use bytes::{BufMut, Bytes, BytesMut};

use super::{BatchError, BatchErrorKind, BatchHeader, Header, HeaderView, Headers, header::sequence, legacy};
use crate::{
    error::{DecodeError, DecodeErrorKind},
    varint,
};

/// The records of one batch, uncompressed, not yet looked at.
///
/// `&records` is an iterator of [`RecordView`], which borrow and for which nothing is allocated; `records` itself one of
/// [`OwnedRecord`], whose keys and values are slices of the same buffer.
#[derive(Clone, Debug)]
pub struct Records {
    header: BatchHeader,
    position: usize,
    count: u32,
    body: Bytes,
    /// Before magic 2: what is added to the offsets in there.
    shift: i64,
}

impl Records {
    pub(super) const fn new(header: BatchHeader, position: usize, count: u32, body: Bytes) -> Self {
        Self { header, position, count, body, shift: 0 }
    }

    /// Messages of magic 0 or 1, which were all looked at.
    pub(super) const fn of_messages(
        header: BatchHeader,
        position: usize,
        count: u32,
        body: Bytes,
        shift: i64,
    ) -> Self {
        Self { header, position, count, body, shift }
    }

    /// The header of the batch they are in.
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// How many there are, by the batch's header; before magic 2, by counting them.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The records section, uncompressed; before magic 2, the messages.
    pub const fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// The records one by one, borrowed.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { records: self, walk: Walk::default() }
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
        OwnedRecords { records: self, walk: Walk::default() }
    }
}

/// The records of a batch, borrowed. After an error nothing more comes.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    records: &'a Records,
    walk: Walk,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.walk.next(self.records)
    }
}

impl FusedIterator for RecordIter<'_> {}

/// The records of a batch, owned. After an error nothing more comes.
#[derive(Clone, Debug)]
pub struct OwnedRecords {
    records: Records,
    walk: Walk,
}

impl Iterator for OwnedRecords {
    type Item = Result<OwnedRecord, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.walk.next(&self.records)? {
            Ok(view) => Ok(view.slice_of(&self.records.body)),
            Err(error) => Err(error),
        })
    }
}

impl FusedIterator for OwnedRecords {}

/// A record, borrowed from the batch it is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RecordView<'a> {
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch, [`NO_TIMESTAMP`](super::NO_TIMESTAMP) if it has none; the batch's if the broker set it.
    pub timestamp_ms: i64,
    /// The producer's number for it, −1 if there is none.
    pub sequence: i32,
    /// A byte that nobody uses; before magic 2, the attributes of the message.
    pub attributes: i8,
    /// The timestamp less the batch's base, as it is on the wire; 0 before magic 2.
    pub timestamp_delta: i64,
    /// The offset less the batch's base, as it is on the wire; 0 before magic 2.
    pub offset_delta: i32,
    /// Null, empty or anything.
    pub key: Option<&'a [u8]>,
    /// Null (which deletes the key in a compacted topic), empty or anything.
    pub value: Option<&'a [u8]>,
    pub(super) headers: HeadersIter<'a>,
}

impl<'a> RecordView<'a> {
    /// The headers, in their order. They were looked at when the record was, so there are no errors.
    #[inline]
    pub const fn headers(&self) -> HeadersIter<'a> {
        self.headers
    }

    /// The time as a date; `None` if the record has none, or one that is no date.
    #[cfg(feature = "time")]
    pub fn timestamp(&self) -> Option<time::OffsetDateTime> {
        timestamp(self.timestamp_ms)
    }

    /// A copy that keeps nothing of the batch in memory: one allocation for all bytes, and one for the list of headers.
    pub fn to_detached(&self) -> OwnedRecord {
        let (key_len, value_len) = (self.key.map_or(0, <[u8]>::len), self.value.map_or(0, <[u8]>::len));
        let mut bytes = BytesMut::with_capacity(key_len + value_len + self.headers.bytes.len());
        bytes.put_slice(self.key.unwrap_or_default());
        bytes.put_slice(self.value.unwrap_or_default());
        bytes.put_slice(self.headers.bytes);
        let bytes = bytes.freeze();
        let headers = HeadersIter { left: self.headers.left, bytes: &bytes[key_len + value_len..] };
        OwnedRecord {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.map(|_| bytes.slice(..key_len)),
            value: self.value.map(|_| bytes.slice(key_len..key_len + value_len)),
            headers: headers.slice_of(&bytes),
        }
    }

    /// The same with slices of `body`, which is what it was read from.
    #[inline]
    pub(super) fn slice_of(&self, body: &Bytes) -> OwnedRecord {
        OwnedRecord {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.map(|key| slice(body, key)),
            value: self.value.map(|value| slice(body, value)),
            headers: self.headers.slice_of(body),
        }
    }
}

/// A record that owns its parts.
///
/// Key, value and headers are slices of the buffer that the batch is in, usually a whole response: as long as one of them
/// is there, so is the buffer. For a few small records to be kept for long there is [`into_detached`](Self::into_detached).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnedRecord {
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch, [`NO_TIMESTAMP`](super::NO_TIMESTAMP) if it has none.
    pub timestamp_ms: i64,
    /// Null, empty or anything.
    pub key: Option<Bytes>,
    /// Null (which deletes the key in a compacted topic), empty or anything.
    pub value: Option<Bytes>,
    /// The headers, in their order.
    pub headers: Headers,
}

impl OwnedRecord {
    /// The time as a date; `None` if the record has none, or one that is no date.
    #[cfg(feature = "time")]
    pub fn timestamp(&self) -> Option<time::OffsetDateTime> {
        timestamp(self.timestamp_ms)
    }

    /// The same with all bytes copied into a buffer of its own, so that it no longer keeps its whole response in memory.
    pub fn into_detached(self) -> Self {
        let parts = || {
            let headers =
                self.headers.iter().flat_map(|header| [Some(header.key_bytes()), header.value.as_ref()]);
            [self.key.as_ref(), self.value.as_ref()].into_iter().chain(headers)
        };
        let mut bytes = BytesMut::with_capacity(parts().flatten().map(Bytes::len).sum());
        parts().flatten().for_each(|part| bytes.put_slice(part));
        let mut bytes = bytes.freeze();
        let mut take = |part: &Bytes| bytes.split_to(part.len());
        Self {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_ref().map(&mut take),
            value: self.value.as_ref().map(&mut take),
            headers: self
                .headers
                .iter()
                .map(|h| (take(h.key_bytes()), h.value.as_ref().map(&mut take)))
                .collect(),
        }
    }
}

/// The headers of a record, borrowed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HeadersIter<'a> {
    left: u32,
    /// Holds `left` well-formed headers and nothing else.
    bytes: &'a [u8],
}

impl<'a> HeadersIter<'a> {
    /// Checks `count` headers at the front of `reader` and takes them off.
    #[inline]
    fn read(reader: &mut Reader<'a>, count: u32) -> Result<Self, DecodeErrorKind> {
        let bytes = reader.0;
        for _ in 0..count {
            reader.header()?;
        }
        let bytes = &bytes[..bytes.len() - reader.0.len()];
        Ok(Self { left: count, bytes })
    }

    #[inline]
    fn slice_of(self, body: &Bytes) -> Headers {
        if self.left == 0 {
            return Headers::new();
        }
        let own = |header: HeaderView<'_>| {
            Header::new(slice(body, header.key), header.value.map(|value| slice(body, value)))
        };
        self.map(own).collect()
    }
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = HeaderView<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader(self.bytes);
        let header = reader.header().ok();
        self.bytes = reader.0;
        header
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        // Each takes two bytes at least, so this is no more than the input can pay for.
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for HeadersIter<'_> {}
impl FusedIterator for HeadersIter<'_> {}

/// `part` of `body`, shared; a part that is empty may be from anywhere. As [`Bytes::slice_ref`], which asks more.
#[inline]
fn slice(body: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() {
        return Bytes::new();
    }
    let start = (part.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
    body.slice(start..start.wrapping_add(part.len()))
}

/// The time of a record: the batch's if the broker set it, whatever the delta says.
#[inline]
pub(super) const fn timestamp_ms(batch: &BatchHeader, delta: i64) -> i64 {
    if batch.magic >= BatchHeader::MAGIC && batch.attributes & BatchHeader::LOG_APPEND_TIME != 0 {
        batch.max_timestamp
    } else {
        batch.base_timestamp.wrapping_add(delta)
    }
}

/// How far an iterator has come.
#[derive(Clone, Copy, Debug, Default)]
struct Walk {
    at: usize,
    index: u32,
    done: bool,
}

impl Walk {
    #[inline]
    fn next<'a>(&mut self, records: &'a Records) -> Option<Result<RecordView<'a>, BatchError>> {
        if self.index == records.count || self.done {
            return self.end(records).map(Err);
        }
        if records.header.magic != BatchHeader::MAGIC {
            return Some(self.next_message(records));
        }
        let rest = &records.body[self.at..];
        let mut reader = Reader(rest);
        match reader.record(&records.header) {
            Ok(record) => {
                self.at += rest.len() - reader.0.len();
                self.index += 1;
                Some(Ok(record))
            }
            Err(fault) => Some(Err(self.fail(records, fault, reader.0.len()))),
        }
    }

    /// The same for the formats before magic 2.
    #[cold]
    fn next_message<'a>(&mut self, records: &'a Records) -> Result<RecordView<'a>, BatchError> {
        match legacy::view(&records.body[self.at..], &records.header, records.shift) {
            Ok((view, size)) => {
                self.at += size;
                self.index += 1;
                Ok(view)
            }
            Err(error) => {
                self.done = true;
                let error = DecodeError { at: self.at + error.at, ..error };
                Err(records.error(BatchErrorKind::Record { index: self.index, error }))
            }
        }
    }

    /// What there is to say at the end: once, and only if bytes are left over.
    fn end(&mut self, records: &Records) -> Option<BatchError> {
        let left = records.body.len() - self.at;
        if self.done || left == 0 {
            return None;
        }
        self.done = true;
        Some(records.error(BatchErrorKind::BytesLeft(left)))
    }

    #[cold]
    fn fail(&mut self, records: &Records, (kind, field): Fault, left: usize) -> BatchError {
        self.done = true;
        if self.at == records.body.len() {
            let kind = BatchErrorKind::RecordsMissing { count: records.count, found: self.index };
            return records.error(kind);
        }
        let error = DecodeError { kind, at: records.body.len() - left, field };
        records.error(BatchErrorKind::Record { index: self.index, error })
    }
}

/// What is wrong, and in which field.
type Fault = (DecodeErrorKind, &'static str);

/// What is still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A record. On an error the reader is left near the fault.
    #[inline]
    fn record(&mut self, batch: &BatchHeader) -> Result<RecordView<'a>, Fault> {
        let length = self.length().map_err(|kind| (kind, "length"))?;
        if length > self.0.len() {
            return Err((DecodeErrorKind::UnexpectedEnd, "length"));
        }
        let (record, rest) = self.0.split_at(length);
        let mut reader = Reader(record);
        let result = reader.fields(batch);
        // What the record did not use up is still to be read if it failed, so that the fault's place is known.
        self.0 = if result.is_ok() { rest } else { &self.0[length - reader.0.len()..] };
        result
    }

    #[inline]
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
        // Two bytes each at least: what cannot be there is not waited for.
        if count > self.0.len() / 2 {
            return Err(DecodeErrorKind::UnexpectedEnd);
        }
        HeadersIter::read(self, count as u32)
    }

    #[inline]
    fn header(&mut self) -> Result<HeaderView<'a>, DecodeErrorKind> {
        let length = self.length()?;
        let key = self.bytes(length)?;
        Ok(HeaderView { key, value: self.nullable()? })
    }

    /// Any negative length is null, as with Kafka.
    #[inline]
    fn nullable(&mut self) -> Result<Option<&'a [u8]>, DecodeErrorKind> {
        match self.nullable_length()? {
            Ok(length) => self.bytes(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    #[inline]
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], DecodeErrorKind> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(DecodeErrorKind::UnexpectedEnd)?;
        self.0 = rest;
        Ok(bytes)
    }

    #[inline]
    fn i32(&mut self) -> Result<i32, DecodeErrorKind> {
        let value = match self.short() {
            Some(value) => value,
            None => self.long(varint::get_u32)?,
        };
        Ok(varint::unzigzag_u32(value))
    }

    #[inline]
    fn i64(&mut self) -> Result<i64, DecodeErrorKind> {
        let value = match self.short() {
            Some(value) => value.into(),
            None => self.long(varint::get_u64)?,
        };
        Ok(varint::unzigzag_u64(value))
    }

    /// A length or a count, which must not be negative.
    #[inline]
    fn length(&mut self) -> Result<usize, DecodeErrorKind> {
        match self.nullable_length()? {
            Ok(length) => Ok(length),
            Err(negative) => Err(DecodeErrorKind::NegativeLength(negative.into())),
        }
    }

    /// The same; what is negative is for the caller to judge.
    #[inline]
    fn nullable_length(&mut self) -> Result<Result<usize, i32>, DecodeErrorKind> {
        let value = match self.short() {
            Some(value) => value,
            None => self.long(varint::get_u32)?,
        };
        // The lowest bit of a zig-zag varint is its sign.
        Ok(if value & 1 == 0 { Ok((value >> 1) as usize) } else { Err(varint::unzigzag_u32(value)) })
    }

    /// A varint of one byte or two, as most are.
    #[inline]
    fn short(&mut self) -> Option<u32> {
        match *self.0 {
            [first, second, ..] => {
                if first < 0x80 {
                    self.0 = &self.0[1..];
                    return Some(first.into());
                }
                if second < 0x80 {
                    self.0 = &self.0[2..];
                    return Some(u32::from(first & 0x7f) | u32::from(second) << 7);
                }
                None
            }
            [first] if first < 0x80 => {
                self.0 = &self.0[1..];
                Some(first.into())
            }
            _ => None,
        }
    }

    #[inline]
    fn long<T>(
        &mut self,
        get: impl Fn(&[u8]) -> Result<(T, usize), DecodeErrorKind>,
    ) -> Result<T, DecodeErrorKind> {
        let (value, length) = get(self.0)?;
        self.0 = &self.0[length..];
        Ok(value)
    }
}

#[cfg(feature = "time")]
fn timestamp(ms: i64) -> Option<time::OffsetDateTime> {
    if ms == super::NO_TIMESTAMP {
        return None;
    }
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()
}

#[cfg(all(test, feature = "time"))]
mod tests {
    use super::timestamp;

    #[test]
    fn odd_times_are_no_dates() {
        assert_eq!(timestamp(0), Some(time::OffsetDateTime::UNIX_EPOCH));
        assert_eq!(timestamp(1_700_000_000_123).unwrap().unix_timestamp_nanos(), 1_700_000_000_123_000_000);
        assert_eq!(timestamp(-2).unwrap().unix_timestamp_nanos(), -2_000_000);
        for odd in [super::super::NO_TIMESTAMP, i64::MIN, i64::MAX] {
            assert_eq!(timestamp(odd), None, "{odd}");
        }
    }
}
