//! What is wrong with a batch, read or built.

use std::fmt;

use crate::{
    compression::{Compression, CompressionError},
    error::DecodeError,
};

/// A batch that cannot be read, and where it stands.
///
/// Batches before it were whole. What comes after it cannot be told: its size may be what is wrong.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the batch at byte {position}{} cannot be read", Offset(.base_offset))]
pub struct BatchError {
    /// What is wrong.
    #[source]
    pub kind: BatchErrorKind,
    /// The first byte of the batch, counted from the start of the field that holds it.
    pub position: usize,
    /// The batch's base offset; `None` if it was not read.
    pub base_offset: Option<i64>,
}

/// What is wrong with the batch of a [`BatchError`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchErrorKind {
    /// The length field leaves no room for what every format begins with.
    #[error("its length field says {0}, less than anything can have")]
    Length(i32),
    /// The batch is shorter than its header.
    #[error("it has {0} bytes, fewer than its header takes")]
    TooShort(usize),
    /// A format that there is not.
    #[error("its magic {0} is not one that can be read")]
    Magic(i8),
    /// The bytes are not those that were written.
    #[error("its checksum is {computed:#010x} instead of {stored:#010x}")]
    Checksum {
        /// What the batch says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// A wrapper of magic 0 or 1 that should have messages in it has none.
    #[error("its codec says that there are messages in it, and there are none")]
    NoMessages,
    /// A message in a wrapper of magic 0 or 1 is a wrapper too.
    #[error("message {index} in it is compressed once more")]
    Nested {
        /// Which one, counted from 0.
        index: u32,
    },
    /// A wrapper of magic 1 has not the offset of the last message in it.
    #[error("its offset {offset} is below {last}, that of the last message in it")]
    WrapperOffset {
        /// The wrapper's.
        offset: i64,
        /// The last message's.
        last: i64,
    },
    /// A codec that there was only later.
    #[error("its codec {codec} is none of magic {magic}")]
    CodecOfLaterMagic {
        /// What the batch is in.
        magic: i8,
        /// What it claims to be compressed with.
        codec: Compression,
    },
    /// The offsets of a wrapper's messages are too far apart for a [`RawBatch`](super::RawBatch).
    #[error("its offsets {first} and {other} are too far apart")]
    OffsetsApart {
        /// The first message's.
        first: i64,
        /// That of another, or of the wrapper.
        other: i64,
    },
    /// It is a control batch, and its record is malformed.
    #[error("its control record is malformed")]
    Control(#[source] DecodeError),
    /// It cannot be decompressed.
    #[error("its records cannot be decompressed")]
    Compression(#[from] CompressionError),
    /// The number of records is negative.
    #[error("it claims to have {0} records")]
    Count(i32),
    /// The bytes end before all records that the header counts were there.
    #[error("it ends after {found} of {count} records")]
    RecordsMissing {
        /// What the header says.
        count: u32,
        /// What there is.
        found: u32,
    },
    /// Something comes after the last record that the header counts.
    #[error("{0} bytes are left over after its last record")]
    BytesLeft(usize),
    /// A record is malformed.
    #[error("record {index} is malformed")]
    Record {
        /// Which one, counted from 0.
        index: u32,
        /// What is wrong with it; the byte is counted from the first of the uncompressed records.
        #[source]
        error: DecodeError,
    },
}

/// Records that do not make a batch.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There are none, and brokers refuse a batch without records.
    #[error("a batch needs at least one record")]
    Empty,
    /// The batch, or a record of it, does not fit its length field.
    #[error("the batch would be larger than 2 GiB")]
    TooLarge,
    /// More records than their count can say.
    #[error("a batch cannot have more than 2147483647 records")]
    TooManyRecords,
    /// More than one record, headers or a codec, which a message of magic 0 or 1 cannot have or which is only read.
    #[error("a message of magic {magic} is one record, without headers and codec")]
    NoMessage {
        /// What was to be written.
        magic: i8,
    },
    /// It cannot be compressed.
    #[error("the records cannot be compressed")]
    Compression(#[from] CompressionError),
}

/// Why a batch cannot be sent on as it is: see [`EncodedBatch::from_fetched`](super::EncodedBatch::from_fetched).
///
/// Its records can be sent in a new batch, where they are what they look like: all but those of a control batch.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotForwardable {
    /// It is in an older format; brokers take batches of magic 2 only.
    #[error("the batch at offset {base_offset} is a message of magic {magic}, and brokers take magic 2 only")]
    Magic {
        /// Its base offset.
        base_offset: i64,
        /// What it is in.
        magic: i8,
    },
    /// It is a control batch, which brokers write and take from nobody.
    #[error("the batch at offset {base_offset} is a control batch, which brokers write themselves")]
    Control {
        /// Its base offset.
        base_offset: i64,
    },
    /// It belongs to a transaction of its sender.
    #[error("the batch at offset {base_offset} belongs to a transaction of another producer")]
    Transactional {
        /// Its base offset.
        base_offset: i64,
    },
    /// It has not one record for each offset: compaction took some out of it, perhaps all.
    #[error(
        "the batch at offset {base_offset} has {count} records on {offsets} offsets; brokers take one on each"
    )]
    Holes {
        /// Its base offset.
        base_offset: i64,
        /// How many records are left.
        count: i32,
        /// How many offsets it takes.
        offsets: i64,
    },
    /// Its times were set by the broker it was fetched from, which brokers take from nobody.
    #[error("the batch at offset {base_offset} has the time at which a broker appended it")]
    LogAppendTime {
        /// Its base offset.
        base_offset: i64,
    },
    /// Its codec is one that Kafka does not have.
    #[error("the batch at offset {base_offset} is compressed with an unknown codec")]
    Codec {
        /// Its base offset.
        base_offset: i64,
        /// Which one.
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
