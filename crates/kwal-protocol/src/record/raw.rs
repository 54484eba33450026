//! A batch with every field laid open, for tools, brokers and tests.

use bytes::Bytes;

use super::{
    Batch, BatchError, BatchHeader, BuildError, EncodedBatch, Headers, RecordView, builder::Fields,
    control::ControlRecord, header::sequence, records::timestamp_ms,
};
use crate::error::DecodeError;

/// A batch whose fields are all there to be looked at and set.
///
/// [`BatchBuilder`](super::BatchBuilder) makes what a producer makes; this makes anything: holes, control records, times
/// of a broker. With the feature `serde` it is JSON, named as Kafka names the fields, with the keys and values in hex and
/// what follows from the fields (`lastOffset`, `compression`, the offset of a record …) beside them; reading passes over
/// what follows.
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

    /// The bytes of the batch, compressed as its attributes say.
    ///
    /// # Errors
    /// If it does not fit in its length field, or its codec is unknown or not built in.
    pub fn encode(&self) -> Result<Bytes, BuildError> {
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
        Ok(EncodedBatch::new(header, compression, records)?.to_bytes())
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
