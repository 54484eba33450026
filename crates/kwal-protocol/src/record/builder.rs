//! Encodes records into a batch.

use bytes::Bytes;

use super::{
    encoded::EncodedBatch,
    error::BuildError,
    header::{BatchHeader, NO_TIMESTAMP},
    headers::HeaderView,
};
use crate::{
    compression::{Compression, Compressor},
    varint,
    writer::Inserted,
};

/// Collects records into a batch; each is encoded once.
///
/// ```
/// use kwal_protocol::{compression::Compression, record::{BatchBuilder, Headers}};
///
/// let mut builder = BatchBuilder::new(Compression::None);
/// builder.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &Headers::new());
/// builder.push(1_700_000_000_001, None, None, &Headers::from([("trace", "4711")]));
/// let batch = builder.finish()?;
///
/// assert_eq!(batch.record_count(), 2);
/// assert_eq!(batch.max_timestamp(), 1_700_000_000_001);
/// assert_eq!(batch.to_bytes().len(), batch.size_in_bytes());
/// # Ok::<(), kwal_protocol::record::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    compression: Compression,
    level: Option<i32>,
    records: Vec<u8>,
    /// Values that are not copied, each with its position in `records`.
    shared: Vec<Inserted>,
    /// The sum of their lengths.
    shared_len: usize,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    /// The error that [`finish`](Self::finish) returns; further records are not encoded.
    fault: Option<BuildError>,
}

/// The state of a [`BatchBuilder`] before further records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    records: usize,
    shared: usize,
    shared_len: usize,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    has_fault: bool,
}

impl BatchBuilder {
    /// Values of so many bytes are worth a piece of a vectored write of their own.
    pub const SHARE_FROM: usize = 16 << 10;

    /// Creates an empty batch with this compression.
    pub const fn new(compression: Compression) -> Self {
        Self {
            compression,
            level: None,
            records: Vec::new(),
            shared: Vec::new(),
            shared_len: 0,
            count: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            fault: None,
        }
    }

    /// Creates an empty batch with capacity for `bytes` bytes of uncompressed records.
    pub fn with_capacity(compression: Compression, bytes: usize) -> Self {
        Self { records: Vec::with_capacity(bytes), ..Self::new(compression) }
    }

    /// Creates an empty batch that reuses memory; [`finish_with`](Self::finish_with) returns it.
    pub fn with_capacity_of(compressor: &mut Compressor, compression: Compression, bytes: usize) -> Self {
        let records = compressor.take_records(compression, bytes);
        Self { records, ..Self::new(compression) }
    }

    /// Compresses at this level instead of the [default](Compression::default_level) of the codec.
    ///
    /// [`finish`](Self::finish) returns an error if the codec does not have the level.
    #[must_use]
    pub const fn level(mut self, level: i32) -> Self {
        self.level = Some(level);
        self
    }

    /// Appends a record; returns its index in the batch, which is added to the base offset.
    ///
    /// `timestamp_ms` is milliseconds since the epoch, or [`NO_TIMESTAMP`]. `headers` can be a
    /// `&`[`Headers`](super::Headers), those of a [`RecordView`](super::RecordView), or pairs of slices; they
    /// are iterated twice. If the batch becomes too large, or the timestamp is another negative number, which
    /// Kafka's producer does not write either, [`finish`](Self::finish) returns an error.
    #[inline]
    pub fn push<'h, H>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
    ) -> u32
    where
        H: IntoIterator<IntoIter: Clone, Item: Into<HeaderView<'h>>>,
    {
        self.push_with(timestamp_ms, key, value, None, headers)
    }

    /// The same as [`push`](Self::push), for a value that may become a part of the batch without a copy.
    ///
    /// The batch shares the value if it is not going to be compressed and the value has
    /// [16 KiB or more](Self::SHARE_FROM). Its bytes on the wire are the same.
    #[inline]
    pub fn push_shared<'h, H>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&Bytes>,
        headers: H,
    ) -> u32
    where
        H: IntoIterator<IntoIter: Clone, Item: Into<HeaderView<'h>>>,
    {
        let shared = value.filter(|value| Self::shares(self.compression, value.len()));
        self.push_with(timestamp_ms, key, value.map(|value| &value[..]), shared, headers)
    }

    /// Whether a batch of this compression would share a value of so many bytes.
    #[inline]
    pub const fn shares(compression: Compression, len: usize) -> bool {
        len >= Self::SHARE_FROM && matches!(compression, Compression::None)
    }

    // A call for each record would show: see `append-batch` of the benchmark `client_counts`.
    #[inline(always)]
    fn push_with<'h, H>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        shared: Option<&Bytes>,
        headers: H,
    ) -> u32
    where
        H: IntoIterator<IntoIter: Clone, Item: Into<HeaderView<'h>>>,
    {
        let index = self.count;
        if index == 0 {
            self.base_timestamp = timestamp_ms;
            self.max_timestamp = timestamp_ms;
        } else {
            self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        }
        let fields = Fields {
            attributes: 0,
            timestamp_delta: timestamp_ms.wrapping_sub(self.base_timestamp),
            offset_delta: index as i32,
            key,
            value,
        };
        if self.fault.is_none() {
            if index == i32::MAX as u32 {
                self.fault = Some(BuildError::TooManyRecords);
            } else if timestamp_ms < NO_TIMESTAMP {
                self.fault = Some(BuildError::Timestamp { index, timestamp_ms });
            } else {
                let headers = headers.into_iter();
                let written = match shared {
                    None => fields.write(headers, &mut self.records, self.shared_len),
                    Some(value) => self.write_around(&fields, headers, value),
                };
                match written {
                    true => self.count += 1,
                    false => self.fault = Some(BuildError::TooLarge),
                }
            }
        }
        index
    }

    /// Appends the record without its value, which is shared.
    #[cold]
    fn write_around<'h, H>(&mut self, fields: &Fields<'_>, headers: H, value: &Bytes) -> bool
    where
        H: Iterator<Item: Into<HeaderView<'h>>> + Clone,
    {
        let Some(at) = fields.write_around(headers, &mut self.records, self.shared_len) else { return false };
        self.shared.push(Inserted { at, bytes: value.clone() });
        self.shared_len += value.len();
        true
    }

    /// Returns the state of the batch, to go [back](Self::rollback) to.
    pub const fn checkpoint(&self) -> Checkpoint {
        let Self { count, base_timestamp, max_timestamp, fault, .. } = self;
        Checkpoint {
            records: self.records.len(),
            shared: self.shared.len(),
            shared_len: self.shared_len,
            count: *count,
            base_timestamp: *base_timestamp,
            max_timestamp: *max_timestamp,
            has_fault: fault.is_some(),
        }
    }

    /// Removes the records that were added since a [`checkpoint`](Self::checkpoint) of this batch.
    ///
    /// ```
    /// use kwal_protocol::{compression::Compression, record::{BatchBuilder, Headers}};
    ///
    /// let mut builder = BatchBuilder::new(Compression::None);
    /// builder.push(1_700_000_000_000, None, Some(b"one"), &Headers::new());
    /// let (checkpoint, size) = (builder.checkpoint(), builder.size_in_bytes());
    /// builder.push(1_700_000_000_000, None, Some(&[0; 1000]), &Headers::new());
    /// if builder.size_in_bytes() > 1000 {
    ///     builder.rollback(checkpoint);
    /// }
    /// assert_eq!((builder.len(), builder.size_in_bytes()), (1, size));
    /// ```
    ///
    /// A checkpoint of records that the batch no longer has changes nothing.
    pub fn rollback(&mut self, checkpoint: Checkpoint) {
        let Checkpoint { records, shared, shared_len, count, base_timestamp, max_timestamp, has_fault } =
            checkpoint;
        if records > self.records.len() || shared > self.shared.len() || count > self.count {
            return;
        }
        self.records.truncate(records);
        self.shared.truncate(shared);
        self.shared_len = shared_len;
        (self.count, self.base_timestamp, self.max_timestamp) = (count, base_timestamp, max_timestamp);
        if !has_fault {
            self.fault = None;
        }
    }

    /// Makes room for so many more bytes of records.
    pub fn reserve(&mut self, bytes: usize) {
        self.records.reserve(bytes);
    }

    /// Returns the number of records.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether the batch has no records.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the size of the uncompressed batch so far, in bytes.
    pub const fn size_in_bytes(&self) -> usize {
        BatchHeader::LEN + self.records.len() + self.shared_len
    }

    /// Compresses the batch and computes its checksum.
    ///
    /// As in Kafka's producer, the base timestamp is that of the first record, the maximum is the newest, and
    /// offsets start at 0.
    ///
    /// # Errors
    /// If the batch has no records or is too large, a timestamp is below [`NO_TIMESTAMP`], or the codec is
    /// not built in or does not have the level.
    pub fn finish(self) -> Result<EncodedBatch, BuildError> {
        self.finish_with(&mut Compressor::new())
    }

    /// The same as [`finish`](Self::finish), reusing the memory of earlier batches.
    ///
    /// # Errors
    /// Those of [`finish`](Self::finish).
    pub fn finish_with(self, compressor: &mut Compressor) -> Result<EncodedBatch, BuildError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.count == 0 {
            return Err(BuildError::Empty);
        }
        let header = BatchHeader {
            attributes: self.compression.id().into(),
            last_offset_delta: (self.count - 1) as i32,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            count: self.count as i32,
            ..BatchHeader::default()
        };
        let Self { compression, level, records, shared, .. } = self;
        EncodedBatch::new(header, compression, level, (records, shared), compressor)
    }
}

/// The fields of a record on the wire, without its headers.
pub(super) struct Fields<'a> {
    pub(super) attributes: i8,
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
}

impl Fields<'_> {
    /// Appends the record, unless `out` and what is shared would exceed the size of a batch.
    #[inline]
    pub(super) fn write<'h, H>(&self, headers: H, out: &mut Vec<u8>, shared_len: usize) -> bool
    where
        H: Iterator<Item: Into<HeaderView<'h>>> + Clone,
    {
        let value = self.value.unwrap_or_default();
        let Some(header_count) = self.write_front(headers.clone(), out, shared_len, value.len()) else {
            return false;
        };
        out.extend_from_slice(value);
        put_headers(header_count, headers, out);
        true
    }

    /// Appends the record without its value. Returns the position of the value in `out`.
    fn write_around<'h, H>(&self, headers: H, out: &mut Vec<u8>, shared_len: usize) -> Option<usize>
    where
        H: Iterator<Item: Into<HeaderView<'h>>> + Clone,
    {
        let header_count = self.write_front(headers.clone(), out, shared_len, 0)?;
        let at = out.len();
        put_headers(header_count, headers, out);
        Some(at)
    }

    /// Appends what precedes the value, and makes room for the rest, with so many bytes of the value. Returns
    /// the number of headers.
    #[inline]
    fn write_front<'h, H>(
        &self,
        headers: H,
        out: &mut Vec<u8>,
        shared_len: usize,
        value_len: usize,
    ) -> Option<usize>
    where
        H: Iterator<Item: Into<HeaderView<'h>>>,
    {
        let (mut header_count, mut headers_len) = (0usize, 0usize);
        for header in headers {
            let header = header.into();
            let len = len_bytes(Some(header.key)).saturating_add(len_bytes(header.value));
            headers_len = headers_len.saturating_add(len);
            header_count += 1;
        }
        let mut front = Front::new();
        front.put_byte(self.attributes as u8);
        front.put(varint::zigzag_i64(self.timestamp_delta));
        front.put(u64::from(varint::zigzag_i32(self.offset_delta)));
        let behind = match self.key {
            Some(key) => {
                front.put((key.len() as u64) << 1);
                key.len().saturating_add(len_bytes(self.value))
            }
            None => {
                front.put_byte(NULL);
                front.put_bytes_len(self.value);
                self.value.map_or(0, <[u8]>::len)
            }
        };
        let length = front.len() + len_length(header_count);
        let length = length.saturating_add(behind).saturating_add(headers_len);
        if length.saturating_add(out.len()).saturating_add(shared_len) > MAX_RECORDS - varint::MAX_LEN_U32 {
            return None;
        }
        let left_out = self.value.map_or(0, <[u8]>::len) - value_len;
        out.reserve(length - left_out + varint::MAX_LEN_U32 + Front::SIZE);
        front.append_to(out, length);
        if let Some(key) = self.key {
            out.extend_from_slice(key);
            match self.value {
                Some(value) => put_length(out, value.len()),
                None => out.push(NULL),
            }
        }
        Some(header_count)
    }
}

/// Appends the headers of a record, their number first.
#[inline]
fn put_headers<'h, H>(count: usize, headers: H, out: &mut Vec<u8>)
where
    H: Iterator<Item: Into<HeaderView<'h>>>,
{
    put_length(out, count);
    for header in headers {
        let header = header.into();
        put_bytes(out, Some(header.key));
        put_bytes(out, header.value);
    }
}

/// The front of a record, encoded here first.
///
/// `Vec::push` checks the capacity for every byte, and the length of the record is only known afterwards.
struct Front {
    /// Space for the length, the encoded fields, space.
    bytes: [u8; varint::MAX_LEN_U32 + Self::SIZE],
    end: usize,
}

impl Front {
    /// Record length, attributes, both deltas and the lengths of key and value take up to 31 bytes.
    const SIZE: usize = 32;

    #[inline]
    const fn new() -> Self {
        Self { bytes: [0; varint::MAX_LEN_U32 + Self::SIZE], end: varint::MAX_LEN_U32 }
    }

    /// The end of the encoded fields.
    #[inline]
    const fn len(&self) -> usize {
        self.end - varint::MAX_LEN_U32
    }

    #[inline]
    fn put_byte(&mut self, byte: u8) {
        self.bytes[self.end] = byte;
        self.end += 1;
    }

    #[inline]
    fn put(&mut self, mut value: u64) {
        // Most values take one or two bytes.
        if (0x80..0x4000).contains(&value) {
            let at = self.end;
            self.bytes[at..at + 2].copy_from_slice(&[value as u8 | 0x80, (value >> 7) as u8]);
            self.end = at + 2;
            return;
        }
        while value >= 0x80 {
            self.put_byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.put_byte(value as u8);
    }

    #[inline]
    fn put_bytes_len(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.put((bytes.len() as u64) << 1),
            None => self.put_byte(NULL),
        }
    }

    /// Appends the length and the encoded fields.
    ///
    /// Copying a fixed number of bytes and truncating is faster than copying exactly these.
    #[inline]
    fn append_to(&mut self, out: &mut Vec<u8>, length: usize) {
        let length = (length as u64) << 1;
        let start = match length {
            ..0x80 => {
                self.bytes[4] = length as u8;
                4
            }
            0x80..0x4000 => {
                self.bytes[3] = length as u8 | 0x80;
                self.bytes[4] = (length >> 7) as u8;
                3
            }
            _ => self.put_long_length(length),
        };
        let end = out.len() + self.end - start;
        out.extend_from_slice(&self.bytes[start..start + Self::SIZE]);
        out.truncate(end);
    }

    /// Writes the length so that it ends where the fields start; returns its own start.
    #[cold]
    fn put_long_length(&mut self, mut length: u64) -> usize {
        let start = varint::MAX_LEN_U32 - varint::len_u64(length);
        let mut at = start;
        while length >= 0x80 {
            self.bytes[at] = length as u8 | 0x80;
            length >>= 7;
            at += 1;
        }
        self.bytes[at] = length as u8;
        start
    }
}

/// The zig-zag varint −1.
const NULL: u8 = 1;
/// The maximum size of the records of a batch in bytes.
const MAX_RECORDS: usize = i32::MAX as usize - (BatchHeader::LEN - BatchHeader::LOG_OVERHEAD);

/// Returns the encoded size of a nullable field, its length included.
#[inline]
fn len_bytes(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| len_length(bytes.len()).saturating_add(bytes.len()))
}

/// Returns the encoded size of a length or a count; most take one byte.
#[inline]
const fn len_length(length: usize) -> usize {
    if length < 0x40 { 1 } else { varint::len_u64((length as u64) << 1) }
}

/// Appends a nullable field.
#[inline]
fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        None => out.push(NULL),
    }
}

/// Appends a length or a count that is known to fit.
#[inline]
fn put_length(out: &mut Vec<u8>, length: usize) {
    put_varint(out, (length as u64) << 1);
}

/// Like [`varint::put_u64`], but faster where the capacity is already known to suffice.
#[inline]
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::record::Headers;

    #[test]
    fn other_bytes_than_a_batch_are_rejected() {
        let empty = BatchBuilder::new(Compression::None);
        assert_eq!(empty.size_in_bytes(), BatchHeader::LEN);
        assert_eq!(empty.finish().unwrap_err(), BuildError::Empty);

        let mut many = BatchBuilder::new(Compression::None);
        many.push(0, None, None, &Headers::new());
        many.count = i32::MAX as u32;
        assert_eq!(many.push(0, None, None, &Headers::new()), i32::MAX as u32);
        assert_eq!(many.finish().unwrap_err(), BuildError::TooManyRecords);
    }

    /// A record that is too large is not written, nor any record after it.
    #[test]
    fn more_than_two_gigabytes_are_refused() {
        let megabyte = vec![0; 1 << 20];
        let header = HeaderView { key: b"k", value: Some(&megabyte) };
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(0, None, Some(b"small"), &Headers::new());
        let size = builder.size_in_bytes();
        builder.push(0, None, None, iter::repeat_n(header, 2048));
        builder.push(0, None, Some(b"small"), &Headers::new());
        assert_eq!((builder.len(), builder.size_in_bytes()), (1, size));
        assert_eq!(builder.finish().unwrap_err(), BuildError::TooLarge);
    }

    #[test]
    fn a_batch_goes_back_to_a_checkpoint() {
        let mut builder = BatchBuilder::new(Compression::None);
        let empty = builder.checkpoint();
        builder.push(5, None, Some(b"a"), &Headers::new());
        let one = builder.clone().finish().unwrap().to_bytes();
        let checkpoint = builder.checkpoint();
        builder.push(9, Some(b"k"), Some(b"b"), &Headers::new());
        let two = builder.clone().finish().unwrap().to_bytes();
        builder.push(-2, None, None, &Headers::new());
        builder.rollback(checkpoint);
        assert_eq!(builder.clone().finish().unwrap().to_bytes(), one);
        builder.push(9, Some(b"k"), Some(b"b"), &Headers::new());
        assert_eq!(builder.clone().finish().unwrap().to_bytes(), two);
        builder.rollback(empty);
        assert_eq!(builder.clone().finish().unwrap_err(), BuildError::Empty);
        // It has these records no longer.
        builder.rollback(checkpoint);
        assert!(builder.is_empty());
        builder.push(7, None, Some(b"a"), &Headers::new());
        assert_eq!(builder.finish().unwrap().header().base_timestamp, 7);
    }

    #[test]
    fn timestamps_are_those_of_a_producer() {
        let mut builder = BatchBuilder::new(Compression::None);
        for timestamp in [5, 9, NO_TIMESTAMP] {
            builder.push(timestamp, None, None, &Headers::new());
        }
        let batch = builder.finish().unwrap();
        assert_eq!((batch.header().base_timestamp, batch.max_timestamp()), (5, 9));
        assert_eq!(batch.header().last_offset_delta, 2);
    }

    /// So does Kafka's producer (`MemoryRecordsBuilder`).
    #[test]
    fn timestamps_before_1970_are_refused() {
        for timestamp_ms in [-2, -1_000, i64::MIN] {
            for before in 0..2 {
                let mut builder = BatchBuilder::new(Compression::None);
                for _ in 0..before {
                    builder.push(0, None, None, &Headers::new());
                }
                builder.push(timestamp_ms, None, None, &Headers::new());
                builder.push(0, None, None, &Headers::new());
                let expected = BuildError::Timestamp { index: before, timestamp_ms };
                assert_eq!(builder.finish().unwrap_err(), expected);
            }
        }
    }

    #[test]
    fn a_codec_that_is_not_built_in_is_refused() {
        for codec in Compression::ALL.into_iter().filter(|codec| !codec.is_built_in()) {
            let mut builder = BatchBuilder::new(codec);
            builder.push(0, None, None, &Headers::new());
            assert!(matches!(builder.finish(), Err(BuildError::Compression(_))), "{codec}");
        }
    }
}
