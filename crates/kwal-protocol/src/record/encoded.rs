//! A complete batch, as it is sent.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    batches::Batch,
    crc::{self, Shift},
    error::{BuildError, NotForwardable},
    header::{BatchHeader, TimestampType},
};
use crate::{
    compression::{Compression, Compressor},
    varint,
    wire::{Spliced, Version, write_length},
    writer::{Inserted, Writer},
};

/// A complete batch: its header and its records, compressed if requested.
///
/// Clones are cheap: they share the records. All fields of the header can be set without reading the records
/// again, unless they are a few.
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    /// The checksum is not set.
    header: BatchHeader,
    /// Without what is inserted.
    body: Bytes,
    /// Values that are shared with the caller.
    inserted: Option<Arc<[Inserted]>>,
    body_len: usize,
    body_sum: BodySum,
    uncompressed_size: usize,
    memory: usize,
}

/// How the checksum of a batch is computed from that of its header.
#[derive(Clone, Copy, Debug)]
enum BodySum {
    /// By reading the body, which takes less time than to combine checksums if it is small.
    Read,
    /// By combining it with that of the body, which is not read again when the header changes.
    Combine { sum: u32, shift: Shift },
}

/// From this size on, checksums are combined.
const COMBINE_FROM: usize = 2048;

impl EncodedBatch {
    /// Compresses records and computes their checksum; only the length of `header` is set.
    ///
    /// Only records that are not compressed have values that are shared.
    pub(super) fn new(
        header: BatchHeader,
        compression: Compression,
        level: Option<i32>,
        (records, shared): (Vec<u8>, Vec<Inserted>),
        compressor: &mut Compressor,
    ) -> Result<Self, BuildError> {
        let shared_len: usize = shared.iter().map(|value| value.bytes.len()).sum();
        let uncompressed_size = records.len() + shared_len;
        compression.check_level(level)?;
        let (body, memory) = if compression == Compression::None {
            let memory = records.capacity();
            (compressor.share_records(records), memory)
        } else {
            let body = compressor.compress(compression, level, &records)?;
            compressor.keep_records(records);
            let memory = body.len();
            (body, memory)
        };
        let body_len = body.len() + shared_len;
        let batch_length = i32::try_from(body_len + (BatchHeader::LEN - BatchHeader::LOG_OVERHEAD));
        let batch_length = batch_length.map_err(|_| BuildError::TooLarge)?;
        let mut batch = Self {
            header: BatchHeader { batch_length, crc: 0, ..header },
            body_sum: BodySum::Read,
            body,
            inserted: (!shared.is_empty()).then(|| shared.into()),
            body_len,
            uncompressed_size,
            memory: memory + shared_len,
        };
        if body_len >= COMBINE_FROM {
            let sum = batch.pieces().fold(0, crc::append);
            batch.body_sum = BodySum::Combine { sum, shift: Shift::by(body_len) };
        }
        Ok(batch)
    }

    /// The pieces of the body in their order.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        Inserted::pieces(&self.body, self.inserted.as_deref().unwrap_or_default())
    }

    /// Converts a fetched batch, to append it elsewhere without decompressing it.
    ///
    /// The records are kept as they are. Producer, offsets and leader epoch of the source are dropped.
    /// Records are not validated; the checksum was when the batch was [read](super::Batches).
    ///
    /// # Errors
    /// If brokers would reject the batch or misinterpret it: it has an older format, is a control batch,
    /// belongs to a transaction, has gaps after compaction, or has timestamps set by the broker.
    pub fn from_fetched(batch: &Batch) -> Result<Self, NotForwardable> {
        let header = *batch.header();
        let BatchHeader { base_offset, magic, count, last_offset_delta, .. } = header;
        let offsets = i64::from(last_offset_delta) + 1;
        if magic != BatchHeader::MAGIC {
            return Err(NotForwardable::Magic { base_offset, magic });
        }
        let compression = header.compression();
        let compression = compression.map_err(|source| NotForwardable::Codec { base_offset, source })?;
        if header.is_control() {
            return Err(NotForwardable::Control { base_offset });
        }
        if header.is_transactional() {
            return Err(NotForwardable::Transactional { base_offset });
        }
        if count <= 0 || i64::from(count) != offsets {
            return Err(NotForwardable::Holes { base_offset, count, offsets });
        }
        if header.timestamp_type() == TimestampType::LogAppendTime {
            return Err(NotForwardable::LogAppendTime { base_offset });
        }
        let bytes = batch.bytes();
        let body = bytes.slice(BatchHeader::LEN..);
        let shift = Shift::by(body.len());
        // The checksum of header and body is known: removing the header's part gives that of the body.
        let first = crc::checksum(&bytes[BatchHeader::CRC_START..BatchHeader::LEN]);
        let unsent = BatchHeader {
            batch_length: header.batch_length,
            attributes: compression.id().into(),
            last_offset_delta,
            base_timestamp: header.base_timestamp,
            max_timestamp: header.max_timestamp,
            count,
            ..BatchHeader::default()
        };
        Ok(Self {
            header: unsent,
            body_sum: BodySum::Combine { sum: crc::combine(first, header.crc, shift), shift },
            uncompressed_size: body.len(),
            body_len: body.len(),
            memory: body.len(),
            body,
            inserted: None,
        })
    }

    /// Returns the batch with producer id, epoch and the sequence number of its first record (KIP-98).
    #[must_use]
    pub fn stamp(&self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        let header = self.stamped_header(producer_id, producer_epoch, base_sequence);
        Self { header, ..self.clone() }
    }

    /// Writes the batch as the records of a request, with another header, as [`Spliced`] does.
    pub(crate) fn write_with(&self, header: &BatchHeader, writer: &mut Writer, version: Version) {
        write_length(self.size_in_bytes(), writer, version);
        writer.put_slice(&self.bytes_of(header));
        writer.put_with_inserted(&self.body, self.inserted.as_deref());
    }

    /// Returns a writer with room for so many bytes, a length, and what is copied of this batch.
    pub(crate) fn writer(&self, bytes: usize) -> Writer {
        Writer::with_room(bytes + varint::MAX_LEN_U32 + BatchHeader::LEN, &self.body)
    }

    /// Returns the header that the batch has when it is [stamped](Self::stamp), without its checksum.
    pub(crate) const fn stamped_header(
        &self,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
    ) -> BatchHeader {
        BatchHeader { producer_id, producer_epoch, base_sequence, ..self.header }
    }

    /// Returns the batch with the transactional bit set or cleared.
    #[must_use]
    pub fn with_transactional(mut self, transactional: bool) -> Self {
        self.header.attributes &= !BatchHeader::TRANSACTIONAL;
        if transactional {
            self.header.attributes |= BatchHeader::TRANSACTIONAL;
        }
        self
    }

    /// Returns the batch with the fields that a broker sets on append.
    #[must_use]
    pub fn at(mut self, base_offset: i64, partition_leader_epoch: i32) -> Self {
        self.header.base_offset = base_offset;
        self.header.partition_leader_epoch = partition_leader_epoch;
        self
    }

    /// Returns the header, with its checksum.
    pub fn header(&self) -> BatchHeader {
        BatchHeader { crc: self.checksum(&self.header.to_bytes()), ..self.header }
    }

    /// Returns the encoded header, which precedes [`body`](Self::body) on the wire.
    pub fn header_bytes(&self) -> [u8; BatchHeader::LEN] {
        self.bytes_of(&self.header)
    }

    /// Returns an encoded header, with the checksum of the batch that has it.
    fn bytes_of(&self, header: &BatchHeader) -> [u8; BatchHeader::LEN] {
        let mut bytes = header.to_bytes();
        let crc = self.checksum(&bytes);
        bytes[BatchHeader::CRC_START - 4..BatchHeader::CRC_START].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn checksum(&self, header: &[u8; BatchHeader::LEN]) -> u32 {
        let first = crc::checksum(&header[BatchHeader::CRC_START..]);
        match self.body_sum {
            BodySum::Read => self.pieces().fold(first, crc::append),
            BodySum::Combine { sum, shift } => crc::combine(first, sum, shift),
        }
    }

    /// Returns the records section, compressed if the batch is.
    ///
    /// It is copied if it has several pieces, after
    /// [`BatchBuilder::push_shared`](super::BatchBuilder::push_shared).
    pub fn body(&self) -> Bytes {
        match self.inserted {
            None => self.body.clone(),
            Some(_) => self.to_bytes().slice(BatchHeader::LEN..),
        }
    }

    /// Returns header and body in their pieces, as the records of a request. Only the header is copied.
    pub fn to_spliced(&self) -> Spliced {
        Spliced::batch(self.header_bytes(), self.body.clone(), self.inserted.clone())
    }

    /// Returns a copy of header and body in one piece.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.size_in_bytes());
        bytes.put_slice(&self.header_bytes());
        self.pieces().for_each(|piece| bytes.put_slice(piece));
        bytes.freeze()
    }

    /// Returns the number of records.
    pub const fn record_count(&self) -> usize {
        self.header.count as usize
    }

    /// Returns the size on the wire, header included, in bytes.
    pub const fn size_in_bytes(&self) -> usize {
        BatchHeader::LEN + self.body_len
    }

    /// Returns the size without compression, header included, in bytes.
    ///
    /// For a batch [`from_fetched`](Self::from_fetched) it is unknown, and the actual size is returned.
    pub const fn uncompressed_size(&self) -> usize {
        BatchHeader::LEN + self.uncompressed_size
    }

    /// Returns how many bytes of memory it holds: its buffer, and the values that it shares with the caller.
    pub const fn memory(&self) -> usize {
        BatchHeader::LEN + self.memory
    }

    /// Returns the newest timestamp, in milliseconds since the epoch.
    pub const fn max_timestamp(&self) -> i64 {
        self.header.max_timestamp
    }

    /// Returns the compression of the records.
    pub fn compression(&self) -> Compression {
        self.header.compression().unwrap_or_default()
    }
}
