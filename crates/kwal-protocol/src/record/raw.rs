//! A batch with all fields public, for tools, brokers and tests.

use bytes::Bytes;

use super::{
    batches::Batch,
    builder::Fields,
    control::ControlRecord,
    encoded::EncodedBatch,
    error::{BatchError, BatchErrorKind, BuildError},
    header::{BatchHeader, sequence},
    headers::Headers,
    legacy,
    records::{Records, timestamp_ms},
    view::RecordView,
};
use crate::{
    compression::{Compression, Compressor},
    error::DecodeError,
};

/// A batch whose fields can all be read and set.
///
/// [`BatchBuilder`](super::BatchBuilder) builds the batches of a producer; this type can represent any batch:
/// with gaps, control records, or timestamps set by a broker. With the feature `serde` it is JSON in Kafka's
/// field names, with keys and values in hex. Derived fields (`lastOffset`, `compression`, the offset of a
/// record …) are written as well, and ignored when they are read.
///
/// A message of magic 0 or 1 has the fields described at [`BatchHeader`], and one record. Only reading gives
/// more than one, those compressed in it. Its base offset is then that of the first record, and its last
/// offset is its own.
///
/// ```
/// use kwal_protocol::record::{BatchHeader, Batches, RawBatch, RawRecord};
///
/// let record = RawRecord { offset_delta: 7, value: Some("hello".into()), ..RawRecord::default() };
/// let header = BatchHeader { base_offset: 100, last_offset_delta: 9, ..BatchHeader::default() };
/// let bytes = RawBatch { position: 0, header, records: vec![record] }.encode()?;
///
/// let batch = Batches::new(bytes).next().unwrap()?;
/// assert_eq!(batch.next_offset(), 110);
/// assert_eq!(batch.records(0)?.iter().next().unwrap()?.offset, 107);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RawBatch {
    /// The position at which it was found, in bytes; ignored for writing.
    pub position: usize,
    /// The header. Writing sets the length, the checksum and the number of records itself.
    pub header: BatchHeader,
    /// The records.
    pub records: Vec<RawRecord>,
}

impl RawBatch {
    /// Decodes a batch. Keys and values are slices of it, or of the decompressed buffer.
    ///
    /// # Errors
    /// Those of [`Batch::records`] and of its records.
    pub fn from_batch(batch: &Batch, limit: usize) -> Result<Self, BatchError> {
        let records = batch.records(limit)?;
        if batch.magic() != BatchHeader::MAGIC {
            return Self::from_messages(batch, &records);
        }
        let raw = |record: RecordView<'_>| {
            let owned = record.to_slices(records.bytes());
            RawRecord {
                attributes: record.attributes,
                timestamp_delta: record.timestamp_delta,
                offset_delta: record.offset_delta,
                key: owned.key,
                value: owned.value,
                headers: owned.headers,
            }
        };
        let records = records.iter().map(|record| record.map(raw)).collect::<Result<_, _>>()?;
        Ok(Self { position: batch.position(), header: *batch.header(), records })
    }

    fn from_messages(batch: &Batch, records: &Records) -> Result<Self, BatchError> {
        let mut header = *batch.header();
        let error =
            |kind| BatchError { kind, position: batch.position(), base_offset: Some(header.base_offset) };
        let mut raw = Vec::new();
        let mut first = None;
        let delta = |first: i64, other: i64| {
            let delta = i32::try_from(i128::from(other) - i128::from(first));
            delta.map_err(|_| error(BatchErrorKind::OffsetsApart { first, other }))
        };
        for record in records {
            let record = record?;
            let owned = record.to_slices(records.bytes());
            raw.push(RawRecord {
                attributes: 0,
                timestamp_delta: record.timestamp_ms.wrapping_sub(header.base_timestamp),
                offset_delta: delta(*first.get_or_insert(record.offset), record.offset)?,
                key: owned.key,
                value: owned.value,
                headers: owned.headers,
            });
        }
        let first = first.unwrap_or(header.base_offset);
        header.last_offset_delta = delta(first, header.base_offset)?;
        header.base_offset = first;
        header.count = raw.len() as i32;
        Ok(Self { position: batch.position(), header, records: raw })
    }

    /// Encodes the batch, compressed according to its attributes.
    ///
    /// # Errors
    /// If it exceeds its length field, or its codec is unknown or not built in. Compressed messages of magic
    /// 0 and 1 are only read.
    pub fn encode(&self) -> Result<Bytes, BuildError> {
        if matches!(self.header.magic, 0 | 1) {
            return self.encode_message();
        }
        let mut records = Vec::new();
        for record in &self.records {
            let fields = Fields {
                attributes: record.attributes,
                timestamp_delta: record.timestamp_delta,
                offset_delta: record.offset_delta,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
            };
            if !fields.write(record.headers.iter(), &mut records, 0) {
                return Err(BuildError::TooLarge);
            }
        }
        let count = i32::try_from(self.records.len()).map_err(|_| BuildError::TooManyRecords)?;
        let header = BatchHeader { count, ..self.header };
        let compression = header.compression()?;
        Ok(EncodedBatch::new(header, compression, None, (records, Vec::new()), &mut Compressor::new())?
            .to_bytes())
    }

    /// The same for the formats before magic 2.
    fn encode_message(&self) -> Result<Bytes, BuildError> {
        match (&self.records[..], self.header.compression()?) {
            ([record], Compression::None) if record.headers.is_empty() => {
                legacy::encode(&self.header, record.key.as_deref(), record.value.as_deref())
            }
            _ => Err(BuildError::NoMessage { magic: self.header.magic }),
        }
    }

    /// Returns the offset of one of its records.
    pub const fn offset(&self, record: &RawRecord) -> i64 {
        self.header.base_offset.wrapping_add(record.offset_delta as i64)
    }

    /// Returns the timestamp of one of its records, in milliseconds since the epoch.
    pub const fn timestamp_ms(&self, record: &RawRecord) -> i64 {
        timestamp_ms(&self.header, record.timestamp_delta)
    }

    /// Returns the sequence number of one of its records, −1 without a producer id.
    pub const fn sequence(&self, record: &RawRecord) -> i32 {
        sequence(self.header.base_sequence, record.offset_delta)
    }
}

/// A record of a [`RawBatch`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RawRecord {
    /// An unused byte.
    pub attributes: i8,
    /// The timestamp minus the batch's base.
    pub timestamp_delta: i64,
    /// The offset minus the batch's base.
    pub offset_delta: i32,
    /// The key: null, empty or any bytes.
    pub key: Option<Bytes>,
    /// The value: null, empty or any bytes.
    pub value: Option<Bytes>,
    /// The headers, in order.
    pub headers: Headers,
}

impl RawRecord {
    /// Decodes the record as one of a control batch.
    ///
    /// # Errors
    /// Those of [`ControlRecord::decode`].
    pub fn control(&self) -> Result<ControlRecord, DecodeError> {
        ControlRecord::from_key_and_value(self.key.as_deref(), self.value.as_deref())
    }
}
