//! A batch with every field laid open, for tools, brokers and tests.

use bytes::Bytes;

use super::{
    batches::Batch,
    builder::{EncodedBatch, Fields},
    control::ControlRecord,
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

/// A batch whose fields are all there to be looked at and set.
///
/// [`BatchBuilder`](super::BatchBuilder) makes what a producer makes; this makes anything: holes, control records, times
/// of a broker. With the feature `serde` it is JSON, named as Kafka names the fields, with the keys and values in hex and
/// what follows from the fields (`lastOffset`, `compression`, the offset of a record …) beside them; reading passes over
/// what follows.
///
/// A message of magic 0 or 1 has what its [`BatchHeader`] says it has, and one record; only reading gives it more, those that
/// are compressed in it. Its base offset is then that of the first record, and the last offset its own.
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
    /// Where it was found, in bytes; means nothing for writing.
    pub position: usize,
    /// What stands before the records. Writing sets the length, the checksum and the number of records itself.
    pub header: BatchHeader,
    /// The records.
    pub records: Vec<RawRecord>,
}

impl RawBatch {
    /// Lays a batch open; keys and values are slices of it, or of what it was decompressed to.
    ///
    /// # Errors
    /// Those of [`Batch::records`] and of its records.
    pub fn from_batch(batch: &Batch, limit: usize) -> Result<Self, BatchError> {
        let records = batch.records(limit)?;
        if batch.magic() != BatchHeader::MAGIC {
            return Self::from_messages(batch, &records);
        }
        let raw = |record: RecordView<'_>| {
            let owned = record.slice_of(records.bytes());
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
            let owned = record.slice_of(records.bytes());
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

    /// The bytes of the batch, compressed as its attributes say.
    ///
    /// # Errors
    /// If it does not fit in its length field, or its codec is unknown or not built in. Messages of magic 0 and 1 that are
    /// compressed are only read.
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
            if !fields.write(record.headers.iter(), &mut records) {
                return Err(BuildError::TooLarge);
            }
        }
        let count = i32::try_from(self.records.len()).map_err(|_| BuildError::TooManyRecords)?;
        let header = BatchHeader { count, ..self.header };
        let compression = header.compression()?;
        Ok(EncodedBatch::new(header, compression, None, records, &mut Compressor::new())?.to_bytes())
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

    /// The offset of one of its records.
    pub const fn offset(&self, record: &RawRecord) -> i64 {
        self.header.base_offset.wrapping_add(record.offset_delta as i64)
    }

    /// The time of one of its records, in milliseconds since the epoch.
    pub const fn timestamp_ms(&self, record: &RawRecord) -> i64 {
        timestamp_ms(&self.header, record.timestamp_delta)
    }

    /// The sequence number of one of its records, −1 if it has none.
    pub const fn sequence(&self, record: &RawRecord) -> i32 {
        sequence(self.header.base_sequence, record.offset_delta)
    }
}

/// A record of a [`RawBatch`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RawRecord {
    /// A byte that nobody uses.
    pub attributes: i8,
    /// The timestamp less the batch's base.
    pub timestamp_delta: i64,
    /// The offset less the batch's base.
    pub offset_delta: i32,
    /// Null, empty or anything.
    pub key: Option<Bytes>,
    /// Null, empty or anything.
    pub value: Option<Bytes>,
    /// The headers, in their order.
    pub headers: Headers,
}

impl RawRecord {
    /// What it says if its batch is a control batch.
    ///
    /// # Errors
    /// Those of [`ControlRecord::decode`].
    pub fn control(&self) -> Result<ControlRecord, DecodeError> {
        ControlRecord::from_key_and_value(self.key.as_deref(), self.value.as_deref())
    }
}
