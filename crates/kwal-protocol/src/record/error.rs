//! Errors of reading and building batches.

use std::fmt;

use crate::{
    compression::{Compression, CompressionError},
    error::DecodeError,
};

/// A batch that cannot be read, with its position.
///
/// Earlier batches are valid. Later ones cannot be found, because the size of this one may be wrong.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the batch at byte {position}{} cannot be read", Offset(.base_offset))]
pub struct BatchError {
    /// What is wrong.
    #[source]
    pub kind: BatchErrorKind,
    /// The position of the batch in the field that contains it.
    pub position: usize,
    /// The base offset of the batch; `None` if it could not be read.
    pub base_offset: Option<i64>,
}

/// The kinds of [`BatchError`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchErrorKind {
    /// The length field is below the minimum of any format.
    #[error("its length field is {0}, below the minimum")]
    Length(i32),
    /// The batch is shorter than its header.
    #[error("it has {0} bytes, fewer than its header")]
    TooShort(usize),
    /// A format that does not exist.
    #[error("its magic {0} is not supported")]
    Magic(i8),
    /// The checksum does not match the bytes.
    #[error("its checksum is {computed:#010x} instead of {stored:#010x}")]
    Checksum {
        /// The checksum in the batch.
        stored: u32,
        /// The checksum of its bytes.
        computed: u32,
    },
    /// A wrapper of magic 0 or 1 contains no messages.
    #[error("it is a wrapper without messages")]
    NoMessages,
    /// A message in a wrapper of magic 0 or 1 is a wrapper itself.
    #[error("message {index} in it is a wrapper itself")]
    Nested {
        /// The index of the message, starting at 0.
        index: u32,
    },
    /// The offset of a wrapper of magic 1 is not that of its last message.
    #[error("its offset {offset} is below {last}, that of the last message in it")]
    WrapperOffset {
        /// The offset of the wrapper.
        offset: i64,
        /// The offset of the last message.
        last: i64,
    },
    /// A codec that does not exist in this format.
    #[error("its codec {codec} does not exist in magic {magic}")]
    CodecOfLaterMagic {
        /// The format of the batch.
        magic: i8,
        /// The codec it names.
        codec: Compression,
    },
    /// The offsets of a wrapper's messages are too far apart for a [`RawBatch`](super::RawBatch).
    #[error("its offsets {first} and {other} are too far apart")]
    OffsetsApart {
        /// The offset of the first message.
        first: i64,
        /// The offset of another message, or of the wrapper.
        other: i64,
    },
    /// The record of a control batch is malformed.
    #[error("its control record is malformed")]
    Control(#[source] DecodeError),
    /// The batch cannot be decompressed.
    #[error("its records cannot be decompressed")]
    Compression(#[from] CompressionError),
    /// The number of records is negative.
    #[error("its number of records is {0}")]
    Count(i32),
    /// The bytes end before the number of records in the header is reached.
    #[error("it ends after {found} of {count} records")]
    RecordsMissing {
        /// The number in the header.
        count: u32,
        /// The number of records present.
        found: u32,
    },
    /// Bytes follow the last record that the header counts.
    #[error("{0} bytes are left over after its last record")]
    BytesLeft(usize),
    /// The bytes end inside the batch.
    #[error("it is cut off after {0} bytes")]
    CutOff(usize),
    /// Its offsets do not follow those of the batches before it, or there are none.
    #[error("its offsets are {first} to {last}, expected {next} or higher")]
    Offsets {
        /// The first offset that it covers.
        first: i64,
        /// The last offset that it covers.
        last: i64,
        /// The lowest offset that is in order.
        next: i64,
    },
    /// The offset of a record does not follow that of the one before it, or is not one of the batch.
    #[error("a record in it has the offset {offset}, expected {next} or higher, up to {last}")]
    RecordOffset {
        /// The offset of the record.
        offset: i64,
        /// The lowest offset that is in order.
        next: i64,
        /// The last offset that the batch covers.
        last: i64,
    },
    /// A record is malformed.
    #[error("record {index} is malformed")]
    Record {
        /// The index of the record, starting at 0.
        index: u32,
        /// The decoding error; its position is relative to the first uncompressed record.
        #[source]
        error: DecodeError,
    },
}

/// Records that cannot form a batch.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The batch has no records; brokers reject such a batch.
    #[error("a batch needs at least one record")]
    Empty,
    /// The batch, or a record of it, exceeds its length field.
    #[error("the batch would be larger than 2 GiB")]
    TooLarge,
    /// The number of records exceeds its field.
    #[error("a batch cannot have more than 2147483647 records")]
    TooManyRecords,
    /// A timestamp before 1970, which is also not [`NO_TIMESTAMP`](super::NO_TIMESTAMP). Kafka has none.
    #[error("record {index} has the timestamp {timestamp_ms} ms, before 1970")]
    Timestamp {
        /// The index of the record.
        index: u32,
        /// Its timestamp, in milliseconds since the epoch.
        timestamp_ms: i64,
    },
    /// Several records, headers or a codec, which an encoded message of magic 0 or 1 cannot have.
    #[error("a message of magic {magic} is one record, without headers and codec")]
    NoMessage {
        /// The requested format.
        magic: i8,
    },
    /// The batch cannot be compressed.
    #[error("the records cannot be compressed")]
    Compression(#[from] CompressionError),
}

/// The reason why a batch cannot be forwarded unchanged.
///
/// See [`EncodedBatch::from_fetched`](super::EncodedBatch::from_fetched). The records can be appended in a
/// new batch, except for those of a control batch.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotForwardable {
    /// The batch has an older format; brokers only accept batches of magic 2.
    #[error(
        "the batch at offset {base_offset} is a message of magic {magic}, but brokers only accept magic 2"
    )]
    Magic {
        /// The base offset.
        base_offset: i64,
        /// The format of the batch.
        magic: i8,
    },
    /// The batch is a control batch, which only brokers write.
    #[error("the batch at offset {base_offset} is a control batch, which only brokers write")]
    Control {
        /// The base offset.
        base_offset: i64,
    },
    /// The batch belongs to a transaction of its producer.
    #[error("the batch at offset {base_offset} belongs to a transaction of another producer")]
    Transactional {
        /// The base offset.
        base_offset: i64,
    },
    /// The batch lacks the record of some offset, because compaction removed it.
    #[error(
        "the batch at offset {base_offset} has {count} records for {offsets} offsets, but brokers require one for each"
    )]
    Holes {
        /// The base offset.
        base_offset: i64,
        /// The number of records left.
        count: i32,
        /// The number of offsets covered.
        offsets: i64,
    },
    /// The timestamps were set by the broker; brokers reject such a batch.
    #[error("the batch at offset {base_offset} has timestamps set by a broker")]
    LogAppendTime {
        /// The base offset.
        base_offset: i64,
    },
    /// The codec is not one of Kafka's.
    #[error("the batch at offset {base_offset} is compressed with an unknown codec")]
    Codec {
        /// The base offset.
        base_offset: i64,
        /// The id of the codec.
        source: CompressionError,
    },
}

/// ` with the base offset <offset>`, or nothing.
struct Offset<'a>(&'a Option<i64>);

impl fmt::Display for Offset<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, " with the base offset {offset}"),
            None => Ok(()),
        }
    }
}
