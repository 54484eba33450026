//! The records of control batches: transaction markers (KIP-98), and those of Kafka's controllers.

use std::fmt;

use super::view::RecordView;
use crate::error::{DecodeError, DecodeErrorKind};

/// A record of a [control batch](super::BatchHeader::is_control).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ControlRecord {
    /// The end of a transaction: `EndTxnMarker.json`.
    EndTransaction(EndTransaction),
    /// A record that clients skip.
    Other {
        /// The version of the key.
        key_version: i16,
        /// The type of the record.
        control_type: ControlType,
    },
}

/// The end of a transaction of the producer that the batch names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EndTransaction {
    /// The version of the key.
    pub key_version: i16,
    /// Whether the transaction was committed, otherwise aborted.
    pub committed: bool,
    /// The epoch of the coordinator that wrote the marker.
    pub coordinator_epoch: i32,
}

impl ControlRecord {
    /// Decodes a record of a control batch. Versions above the known ones only append fields.
    ///
    /// # Errors
    /// If the key, or the value of a transaction marker, is null, too short or of a negative version.
    pub fn decode(record: &RecordView<'_>) -> Result<Self, DecodeError> {
        Self::from_key_and_value(record.key, record.value)
    }

    /// Decodes the key and the value of a record of a control batch.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    pub fn from_key_and_value(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Self, DecodeError> {
        let key = Field { name: "key", bytes: key };
        let key_version = key.version()?;
        let control_type = ControlType(i16::from_be_bytes(key.array(2)?));
        let committed = match control_type {
            ControlType::ABORT => false,
            ControlType::COMMIT => true,
            _ => return Ok(Self::Other { key_version, control_type }),
        };
        let value = Field { name: "value", bytes: value };
        let coordinator_epoch = i32::from_be_bytes(value.array(2)?);
        value.version()?;
        Ok(Self::EndTransaction(EndTransaction { key_version, committed, coordinator_epoch }))
    }

    /// Returns the type of the record.
    pub const fn control_type(&self) -> ControlType {
        match self {
            Self::EndTransaction(end) => end.control_type(),
            Self::Other { control_type, .. } => *control_type,
        }
    }
}

impl EndTransaction {
    /// Commit or abort.
    pub const fn control_type(&self) -> ControlType {
        if self.committed { ControlType::COMMIT } else { ControlType::ABORT }
    }

    /// Encodes the key and the value of the record, in version 0.
    pub fn to_key_and_value(&self) -> ([u8; 4], [u8; 6]) {
        let mut key = [0; 4];
        key[2..].copy_from_slice(&self.control_type().0.to_be_bytes());
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        (key, value)
    }
}

/// The type of a control record.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct ControlType(pub i16);

impl ControlType {
    /// A transaction was aborted.
    pub const ABORT: Self = Self(0);
    /// A transaction was committed.
    pub const COMMIT: Self = Self(1);
    /// A new leader of the metadata log.
    pub const LEADER_CHANGE: Self = Self(2);
    /// The start of a snapshot of the metadata.
    pub const SNAPSHOT_HEADER: Self = Self(3);
    /// The end of a snapshot of the metadata.
    pub const SNAPSHOT_FOOTER: Self = Self(4);
    /// The version of the metadata log's protocol.
    pub const KRAFT_VERSION: Self = Self(5);
    /// The voters of the metadata log.
    pub const KRAFT_VOTERS: Self = Self(6);

    /// Returns Kafka's name of the type.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::ABORT => "ABORT",
            Self::COMMIT => "COMMIT",
            Self::LEADER_CHANGE => "LEADER_CHANGE",
            Self::SNAPSHOT_HEADER => "SNAPSHOT_HEADER",
            Self::SNAPSHOT_FOOTER => "SNAPSHOT_FOOTER",
            Self::KRAFT_VERSION => "KRAFT_VERSION",
            Self::KRAFT_VOTERS => "KRAFT_VOTERS",
            _ => return None,
        })
    }
}

impl fmt::Debug for ControlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "ControlType({})", self.0),
        }
    }
}

/// A nullable field that must be present and long enough.
struct Field<'a> {
    name: &'static str,
    bytes: Option<&'a [u8]>,
}

impl Field<'_> {
    /// The version at the front of the field.
    fn version(&self) -> Result<i16, DecodeError> {
        let version = i16::from_be_bytes(self.array(0)?);
        if version >= 0 {
            return Ok(version);
        }
        Err(DecodeError { kind: DecodeErrorKind::InvalidValue(version.into()), at: 0, field: self.name })
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], DecodeError> {
        let bytes = self.bytes.ok_or(DecodeErrorKind::UnexpectedNull);
        let array = bytes.and_then(|bytes| {
            bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(DecodeErrorKind::UnexpectedEnd)
        });
        array.map_err(|kind| DecodeError { kind, at, field: self.name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and value of `control-commit-85` in the golden vectors.
    #[test]
    fn a_transaction_marker_round_trips() {
        let (key, value) = ([0, 0, 0, 1], [0, 0, 0, 0, 0x03, 0x8a]);
        let end = EndTransaction { key_version: 0, committed: true, coordinator_epoch: 906 };
        let read = ControlRecord::from_key_and_value(Some(&key), Some(&value));
        assert_eq!(read, Ok(ControlRecord::EndTransaction(end)));
        assert_eq!(end.to_key_and_value(), (key, value));
        let longer = ControlRecord::from_key_and_value(Some(&[0, 9, 0, 0, 1]), Some(&[0, 9, 0, 0, 0, 5, 1]));
        let end = EndTransaction { key_version: 9, committed: false, coordinator_epoch: 5 };
        assert_eq!(longer, Ok(ControlRecord::EndTransaction(end)));
    }

    #[test]
    fn ignored_control_records_need_no_value() {
        let read = ControlRecord::from_key_and_value(Some(&[0, 0, 0, 77]), None).unwrap();
        assert_eq!(read, ControlRecord::Other { key_version: 0, control_type: ControlType(77) });
        assert_eq!(format!("{:?} {:?}", ControlType(77), ControlType::ABORT), "ControlType(77) ABORT");
    }

    #[test]
    fn too_short_is_refused() {
        let fault = |key, value| ControlRecord::from_key_and_value(key, value).unwrap_err().to_string();
        assert_eq!(fault(None, None), "null where a value is required at byte 0 in key");
        assert_eq!(fault(Some(&[0, 0, 0]), None), "the input ends too early at byte 2 in key");
        assert_eq!(fault(Some(&[0; 4]), None), "null where a value is required at byte 2 in value");
        assert_eq!(fault(Some(&[0; 4]), Some(&[0; 5])), "the input ends too early at byte 2 in value");
        assert_eq!(fault(Some(&[255, 255, 0, 0]), None), "-1 is not allowed here at byte 0 in key");
        assert_eq!(fault(Some(&[0; 4]), Some(&[128; 6])), "-32640 is not allowed here at byte 0 in value");
    }
}
