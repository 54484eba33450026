//! Splits the bytes of a `records` field into batches.

use std::iter::FusedIterator;

use bytes::{Bytes, BytesMut};

use super::{
    crc,
    error::{BatchError, BatchErrorKind},
    header::{BatchHeader, TimestampType},
    legacy::{self, Messages},
    records::Records,
};
use crate::compression::{Compression, Decompressor};

/// An iterator over the batches of a `records` field, as in a Fetch response or a log segment.
///
/// A truncated last batch ends the iteration without an error, because brokers cut at the fetch limit:
/// complete batches are returned, and [`torn`](Self::torn) is the size of the rest. Any other fault is an
/// error and ends the iteration. Each batch is returned after its checksum has been verified. Nothing is
/// copied.
///
/// Messages of magic 0 and 1, which occur in old logs, are returned as batches too: see [`Batch::magic`].
///
/// ```
/// use bytes::Bytes;
/// use kwal_protocol::{compression::Compression, record::{BatchBuilder, Batches, Headers}};
///
/// let mut builder = BatchBuilder::new(Compression::None);
/// builder.push(1_700_000_000_000, None, Some(b"hello"), &Headers::new());
/// let batch = builder.finish()?;
/// let two = [batch.to_bytes(), batch.at(1, 0).to_bytes()].concat();
/// let cut = Bytes::from(two).slice(..100);
///
/// let mut batches = Batches::new(cut);
/// let batch = batches.next().unwrap()?;
/// assert_eq!(batch.next_offset(), 1);
/// for record in &batch.records(1 << 20)? {
///     assert_eq!(record?.value, Some(&b"hello"[..]));
/// }
/// assert!(batches.next().is_none());
/// assert_eq!(batches.torn(), 100 - batch.size_in_bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batches {
    bytes: Bytes,
    consumed: usize,
    done: bool,
}

impl Batches {
    /// Creates an iterator over the content of a `records` field.
    pub const fn new(bytes: Bytes) -> Self {
        Self { bytes, consumed: 0, done: false }
    }

    /// Returns the number of bytes of the batches so far.
    ///
    /// After the last batch, and without an error, the rest is truncated.
    pub const fn consumed(&self) -> usize {
        self.consumed
    }

    /// Returns the number of bytes after the batches so far.
    pub const fn torn(&self) -> usize {
        self.bytes.len() - self.consumed
    }

    /// Reads the next batch; `None` if the rest is not a complete batch.
    fn read(&mut self) -> Result<Option<Batch>, BatchError> {
        let position = self.consumed;
        let rest = &self.bytes[position..];
        let Some((offset, length)) =
            rest.first_chunk::<8>().zip(rest.get(8..).and_then(|rest| rest.first_chunk()))
        else {
            return Ok(None);
        };
        let base_offset = i64::from_be_bytes(*offset);
        let length = i32::from_be_bytes(*length);
        let error = |kind| BatchError { kind, position, base_offset: Some(base_offset) };
        let size = match usize::try_from(length) {
            Ok(length) if length >= legacy::MIN_SIZE as usize => length + BatchHeader::LOG_OVERHEAD,
            _ => return Err(error(BatchErrorKind::Length(length))),
        };
        let Some(&magic) = rest.get(legacy::MAGIC_AT) else { return Ok(None) };
        // In Kafka's order: an unknown magic is an error even if the batch is truncated.
        let magic = magic as i8;
        if !(0..=BatchHeader::MAGIC).contains(&magic) {
            return Err(error(BatchErrorKind::Magic(magic)));
        }
        let Some(batch) = rest.get(..size) else { return Ok(None) };
        if magic != BatchHeader::MAGIC {
            let header = legacy::header(batch).map_err(error)?;
            self.consumed += size;
            return Ok(Some(Batch { header, position, bytes: self.bytes.slice(position..self.consumed) }));
        }
        let Some(header) = batch.first_chunk::<{ BatchHeader::LEN }>() else {
            return Err(error(BatchErrorKind::TooShort(size)));
        };
        let header = BatchHeader::from_bytes(header);
        let computed = crc::checksum(&batch[BatchHeader::CRC_START..]);
        if computed != header.crc {
            return Err(error(BatchErrorKind::Checksum { stored: header.crc, computed }));
        }
        self.consumed += size;
        Ok(Some(Batch { header, position, bytes: self.bytes.slice(position..self.consumed) }))
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.read().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

impl FusedIterator for Batches {}

/// A complete batch with a valid checksum. Its records have not been decoded.
#[derive(Clone, Debug)]
pub struct Batch {
    header: BatchHeader,
    position: usize,
    bytes: Bytes,
}

impl Batch {
    /// Returns the format: 2, or 0 or 1 for the messages of brokers before 0.11.
    ///
    /// Old formats have messages instead of batches. A `Batch` is then one message, or a wrapper that
    /// contains compressed messages. Its [header](Self::header) has the fields of a message and no producer.
    /// The offset of a wrapper is that of its last message; only [`records`](Self::records) returns the other
    /// offsets and their number.
    pub const fn magic(&self) -> i8 {
        self.header.magic
    }

    /// Returns the header.
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Returns the position of the batch in the field that contains it.
    pub const fn position(&self) -> usize {
        self.position
    }

    /// Returns all bytes of the batch, header included.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the size of the whole batch, header included, in bytes.
    pub const fn size_in_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the offset that the records' deltas are relative to; compaction may have removed that record.
    ///
    /// For a wrapper of [magic](Self::magic) 0 or 1 it is the last offset, and records precede it.
    pub const fn base_offset(&self) -> i64 {
        self.header.base_offset
    }

    /// Returns the last offset that the batch covers, which may be beyond its last record.
    pub const fn last_offset(&self) -> i64 {
        self.header.last_offset()
    }

    /// Returns the offset at which to continue reading, for any kind of batch.
    pub const fn next_offset(&self) -> i64 {
        self.header.next_offset()
    }

    /// Returns the producer id; `None` for a batch without one.
    ///
    /// ```
    /// use kwal_protocol::record::{BatchBuilder, Batches, Compression, Headers};
    ///
    /// let mut builder = BatchBuilder::new(Compression::None);
    /// builder.push(1_700_000_000_000, None, Some(b"hello"), &Headers::new());
    /// let batch = builder.finish()?;
    ///
    /// let parsed = Batches::new(batch.to_bytes()).next().unwrap()?;
    /// assert_eq!((parsed.producer_id(), parsed.producer_epoch()), (None, None));
    /// let parsed = Batches::new(batch.stamp(4_001, 2, 0).to_bytes()).next().unwrap()?;
    /// assert_eq!((parsed.producer_id(), parsed.producer_epoch()), (Some(4_001), Some(2)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn producer_id(&self) -> Option<i64> {
        match self.header.producer_id {
            id @ 0.. => Some(id),
            _ => None,
        }
    }

    /// Returns the producer epoch; `None` for a batch without a producer id.
    pub const fn producer_epoch(&self) -> Option<i16> {
        match self.header.producer_id {
            0.. => Some(self.header.producer_epoch),
            _ => None,
        }
    }

    /// Returns the clock that set the timestamps.
    pub const fn timestamp_type(&self) -> TimestampType {
        self.header.timestamp_type()
    }

    /// Whether the batch belongs to a transaction.
    pub const fn is_transactional(&self) -> bool {
        self.header.is_transactional()
    }

    /// Whether the records are for clients and not for applications.
    pub const fn is_control(&self) -> bool {
        self.header.is_control()
    }

    /// Returns the records: decompressed into one buffer, or slices of a batch that is not compressed.
    ///
    /// A batch that counts no records has none, whatever its codec and its bytes, as in Kafka.
    ///
    /// # Errors
    /// If the codec is unknown or not built in, the compressed bytes are corrupt or exceed `limit` bytes when
    /// decompressed, or the number of records is negative. `limit` does not apply to a batch that is not
    /// compressed.
    pub fn records(&self, limit: usize) -> Result<Records, BatchError> {
        self.records_with(&mut Decompressor::new(), limit)
    }

    /// The same as [`records`](Self::records), reusing the memory of earlier batches.
    ///
    /// # Errors
    /// Those of [`records`](Self::records).
    pub fn records_with(&self, decompressor: &mut Decompressor, limit: usize) -> Result<Records, BatchError> {
        if self.header.magic != BatchHeader::MAGIC {
            return self.messages(decompressor, limit).map_err(|kind| self.error(kind));
        }
        let count = self.header.count;
        let count = u32::try_from(count).map_err(|_| self.error(BatchErrorKind::Count(count)))?;
        if count == 0 {
            // Compaction keeps the codec of a batch that it empties, without a stream of that codec.
            return Ok(Records::new(self.header, self.position, 0, Bytes::new()));
        }
        let body = self.bytes.slice(BatchHeader::LEN..);
        let body = match self.header.compression() {
            Ok(Compression::None) => Ok(body),
            Ok(codec) => decompressor.decompress(codec, &body, limit),
            Err(error) => Err(error),
        };
        let body = body.map_err(|error| self.error(error.into()))?;
        Ok(Records::new(self.header, self.position, count, body))
    }

    /// The same for the formats before magic 2.
    #[cold]
    fn messages(&self, decompressor: &mut Decompressor, limit: usize) -> Result<Records, BatchErrorKind> {
        let decompress = |codec, value: &[u8]| {
            let decompressed = match self.header.magic {
                0 => decompressor.decompress_magic_0(codec, value, limit),
                _ => decompressor.decompress(codec, value, limit),
            };
            Ok(decompressed?)
        };
        let Messages { count, bytes, shift } = legacy::messages(&self.header, &self.bytes, decompress)?;
        Ok(Records::of_messages(self.header, self.position, count, bytes, shift))
    }

    /// Returns a copy with the fields that a broker sets on append. They are outside of the checksum.
    ///
    /// Before magic 2 this is only the offset, which for a wrapper is that of its last message.
    pub fn to_bytes_at(&self, base_offset: i64, partition_leader_epoch: i32) -> Bytes {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        if self.header.magic == BatchHeader::MAGIC {
            bytes[12..16].copy_from_slice(&partition_leader_epoch.to_be_bytes());
        }
        bytes.freeze()
    }

    fn error(&self, kind: BatchErrorKind) -> BatchError {
        BatchError { kind, position: self.position, base_offset: Some(self.header.base_offset) }
    }
}
