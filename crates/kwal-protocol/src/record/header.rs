//! The header of a batch.

use crate::{
    compression::{Compression, CompressionError},
    error::{DecodeError, DecodeErrorKind},
};

/// The 61 bytes in front of the records of a batch (magic 2, KIP-98), field by field.
///
/// A message of magic 0 or 1 has fewer fields: the offset, the size, the checksum (CRC-32), the attributes,
/// and in magic 1 the timestamp. The others have the values of a batch without a producer id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchHeader {
    /// The offset that the deltas of the records are relative to. Set by the broker, outside of the checksum.
    pub base_offset: i64,
    /// The number of bytes after this field: the size of the batch minus 12.
    pub batch_length: i32,
    /// The epoch of the leader that appended the batch, −1 from a producer; outside of the checksum.
    pub partition_leader_epoch: i32,
    /// The version of the format.
    pub magic: i8,
    /// The CRC-32C of everything after this field.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control, delete horizon; the other bits are unused.
    pub attributes: i16,
    /// The last offset minus the first; after compaction it may be beyond the last record.
    pub last_offset_delta: i32,
    /// The base of the timestamp deltas in milliseconds since the epoch, or the delete horizon.
    pub base_timestamp: i64,
    /// The newest timestamp, or the time of every record if the broker set it on append.
    pub max_timestamp: i64,
    /// The producer id, −1 without one.
    pub producer_id: i64,
    /// The producer epoch, −1 without a producer id.
    pub producer_epoch: i16,
    /// The sequence number of the first record, −1 without a producer id.
    pub base_sequence: i32,
    /// The number of records.
    ///
    /// It is 0 in a batch that compaction emptied, and −1 in a wrapper of magic 0 or 1, which does not
    /// contain it.
    pub count: i32,
}

impl BatchHeader {
    /// The size of the header in bytes.
    pub const LEN: usize = 61;
    /// The number of bytes that `batch_length` does not count.
    pub const LOG_OVERHEAD: usize = 12;
    /// The magic of this format.
    pub const MAGIC: i8 = 2;
    /// The start of the bytes that the checksum covers.
    pub(crate) const CRC_START: usize = 21;

    /// The bits of the attributes for the codec.
    pub const COMPRESSION_MASK: i16 = 0x07;
    /// The bit of the attributes for timestamps set by the broker.
    pub const LOG_APPEND_TIME: i16 = 1 << 3;
    /// The bit of the attributes for a batch of a transaction.
    pub const TRANSACTIONAL: i16 = 1 << 4;
    /// The bit of the attributes for records that are for clients and not for applications.
    pub const CONTROL: i16 = 1 << 5;
    /// The bit of the attributes for a base timestamp that is a delete horizon (KIP-534).
    pub const DELETE_HORIZON: i16 = 1 << 6;

    /// Decodes the header at the front of `bytes`.
    ///
    /// # Errors
    /// If there are fewer than [`LEN`](Self::LEN) bytes, or the magic is another.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some(bytes) = bytes.first_chunk::<{ Self::LEN }>() else {
            return Err(DecodeErrorKind::UnexpectedEnd.at(bytes.len()));
        };
        let header = Self::from_bytes(bytes);
        if header.magic != Self::MAGIC {
            let kind = DecodeErrorKind::InvalidValue(header.magic.into());
            return Err(DecodeError { kind, at: 16, field: "magic" });
        }
        Ok(header)
    }

    /// Encodes the header.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        bytes[16..17].copy_from_slice(&self.magic.to_be_bytes());
        bytes[17..21].copy_from_slice(&self.crc.to_be_bytes());
        bytes[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        bytes[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        bytes[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        bytes[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        bytes[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        bytes[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        bytes[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        bytes[57..61].copy_from_slice(&self.count.to_be_bytes());
        bytes
    }

    /// Decodes the header for any magic.
    pub(crate) fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self {
            base_offset: i64::from_be_bytes(array(bytes, 0)),
            batch_length: i32::from_be_bytes(array(bytes, 8)),
            partition_leader_epoch: i32::from_be_bytes(array(bytes, 12)),
            magic: i8::from_be_bytes(array(bytes, 16)),
            crc: u32::from_be_bytes(array(bytes, 17)),
            attributes: i16::from_be_bytes(array(bytes, 21)),
            last_offset_delta: i32::from_be_bytes(array(bytes, 23)),
            base_timestamp: i64::from_be_bytes(array(bytes, 27)),
            max_timestamp: i64::from_be_bytes(array(bytes, 35)),
            producer_id: i64::from_be_bytes(array(bytes, 43)),
            producer_epoch: i16::from_be_bytes(array(bytes, 51)),
            base_sequence: i32::from_be_bytes(array(bytes, 53)),
            count: i32::from_be_bytes(array(bytes, 57)),
        }
    }

    /// Returns the size of the whole batch, header included, in bytes.
    pub const fn size_in_bytes(&self) -> i64 {
        self.batch_length as i64 + Self::LOG_OVERHEAD as i64
    }

    /// Returns the last offset that the batch covers, which may be beyond its last record.
    pub const fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(self.last_offset_delta as i64)
    }

    /// Returns the offset at which to continue reading, also after empty and control batches.
    pub const fn next_offset(&self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    /// Returns the sequence number of the last offset, −1 without a producer id.
    pub const fn last_sequence(&self) -> i32 {
        sequence(self.base_sequence, self.last_offset_delta)
    }

    /// Returns the compression of the records.
    ///
    /// # Errors
    /// [`CompressionError::UnknownCodec`].
    pub fn compression(&self) -> Result<Compression, CompressionError> {
        let id = (self.attributes & Self::COMPRESSION_MASK) as u8;
        Compression::from_id(id).ok_or(CompressionError::UnknownCodec(id))
    }

    /// Returns the clock that set the timestamps.
    pub const fn timestamp_type(&self) -> TimestampType {
        if self.magic == 0 {
            TimestampType::NoTimestamp
        } else if self.attributes & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    pub const fn is_transactional(&self) -> bool {
        self.has(Self::TRANSACTIONAL)
    }

    /// Whether the records are for clients and not for applications.
    ///
    /// [`ControlRecord`](super::ControlRecord) decodes them.
    pub const fn is_control(&self) -> bool {
        self.has(Self::CONTROL)
    }

    /// Returns the time from which compaction may remove tombstones and markers (KIP-534), in milliseconds.
    pub const fn delete_horizon_ms(&self) -> Option<i64> {
        if self.has(Self::DELETE_HORIZON) { Some(self.base_timestamp) } else { None }
    }

    /// Whether a bit that is defined for magic 2 is set.
    const fn has(&self, bit: i16) -> bool {
        self.magic >= Self::MAGIC && self.attributes & bit != 0
    }
}

/// An empty batch without a producer id.
impl Default for BatchHeader {
    fn default() -> Self {
        Self {
            base_offset: 0,
            batch_length: (Self::LEN - Self::LOG_OVERHEAD) as i32,
            partition_leader_epoch: -1,
            magic: Self::MAGIC,
            crc: 0,
            attributes: 0,
            last_offset_delta: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count: 0,
        }
    }
}

/// The clock that set a timestamp: the topic's `message.timestamp.type`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, on append.
    LogAppendTime,
    /// The format has no timestamps: magic 0.
    NoTimestamp,
}

/// The timestamp of a record without one.
pub const NO_TIMESTAMP: i64 = -1;

/// Returns the sequence number `delta` after `base`: 2³¹ − 1 is followed by 0.
///
/// −1 means that there is no number.
#[inline]
pub(crate) const fn sequence(base: i32, delta: i32) -> i32 {
    if base == -1 {
        -1
    } else if base > i32::MAX.wrapping_sub(delta) {
        delta.wrapping_sub(i32::MAX.wrapping_sub(base)).wrapping_sub(1)
    } else {
        base.wrapping_add(delta)
    }
}

fn array<const N: usize>(bytes: &[u8; BatchHeader::LEN], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        let bytes: [u8; 61] = std::array::from_fn(|i| if i == 16 { 2 } else { i as u8 + 0x70 });
        assert_eq!(BatchHeader::parse(&bytes).unwrap().to_bytes(), bytes);
        assert_eq!(BatchHeader::parse(&bytes[..60]), Err(DecodeErrorKind::UnexpectedEnd.at(60)));
        let other = BatchHeader { magic: 1, ..BatchHeader::default() }.to_bytes();
        assert_eq!(
            BatchHeader::parse(&other).unwrap_err().to_string(),
            "1 is not allowed here at byte 16 in magic"
        );
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence(-1, 5), -1);
        assert_eq!(sequence(0, 5), 5);
        assert_eq!(sequence(i32::MAX, 0), i32::MAX);
        assert_eq!(sequence(i32::MAX, 1), 0);
        assert_eq!(sequence(i32::MAX - 2, 5), 2);
    }

    #[test]
    fn offsets_wrap_as_javas() {
        let header = BatchHeader { base_offset: i64::MAX, last_offset_delta: 1, ..BatchHeader::default() };
        assert_eq!(header.last_offset(), i64::MIN);
        assert_eq!(header.next_offset(), i64::MIN + 1);
    }
}
