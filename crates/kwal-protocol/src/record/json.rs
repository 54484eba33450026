//! Batches as JSON (feature `serde`).

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::Error as _};
use serde_json::Value;

use super::{
    control::{ControlRecord, ControlType},
    header::{BatchHeader, NO_TIMESTAMP, TimestampType},
    headers::{Header, Headers},
    raw::{RawBatch, RawRecord},
};
use crate::compression::CompressionError;

impl Serialize for RawBatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let header = &self.header;
        if header.magic < BatchHeader::MAGIC {
            return MessageOut::new(self).map_err(S::Error::custom)?.serialize(serializer);
        }
        let batch = BatchOut {
            position: self.position,
            size_in_bytes: header.size_in_bytes(),
            magic: header.magic,
            crc: header.crc,
            base_offset: header.base_offset,
            batch_length: header.batch_length,
            partition_leader_epoch: header.partition_leader_epoch,
            attributes: header.attributes,
            compression: header.compression().map_err(S::Error::custom)?.name(),
            timestamp_type: header.timestamp_type().name(),
            transactional: header.is_transactional(),
            control: header.is_control(),
            delete_horizon_ms: header.delete_horizon_ms(),
            last_offset_delta: header.last_offset_delta,
            base_timestamp: header.base_timestamp,
            max_timestamp: header.max_timestamp,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            count: self.records.len(),
            last_offset: header.last_offset(),
            last_sequence: header.last_sequence(),
            records: self.records.iter().map(|record| RecordOut::new(self, record)).collect(),
        };
        batch.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawBatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        if json.get("magic").is_some_and(|magic| *magic == 0 || *magic == 1) {
            let message: MessageIn = serde_json::from_value(json).map_err(de::Error::custom)?;
            return message.into_raw().map_err(de::Error::custom);
        }
        let batch: BatchIn = serde_json::from_value(json).map_err(de::Error::custom)?;
        let count = i32::try_from(batch.records.len()).map_err(de::Error::custom)?;
        Ok(Self {
            position: batch.position,
            header: BatchHeader {
                base_offset: batch.base_offset,
                batch_length: batch.batch_length,
                partition_leader_epoch: batch.partition_leader_epoch,
                magic: batch.magic,
                crc: batch.crc,
                attributes: batch.attributes,
                last_offset_delta: batch.last_offset_delta,
                base_timestamp: batch.base_timestamp,
                max_timestamp: batch.max_timestamp,
                producer_id: batch.producer_id,
                producer_epoch: batch.producer_epoch,
                base_sequence: batch.base_sequence,
                count,
            },
            records: batch.records.into_iter().map(RawRecord::from).collect(),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchOut<'a> {
    position: usize,
    size_in_bytes: i64,
    magic: i8,
    crc: u32,
    base_offset: i64,
    batch_length: i32,
    partition_leader_epoch: i32,
    attributes: i16,
    compression: &'static str,
    timestamp_type: &'static str,
    transactional: bool,
    control: bool,
    delete_horizon_ms: Option<i64>,
    last_offset_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    count: usize,
    last_offset: i64,
    last_sequence: i32,
    records: Vec<RecordOut<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordOut<'a> {
    offset: i64,
    timestamp: i64,
    sequence: i32,
    key: Option<Hex<'a>>,
    value: Option<Hex<'a>>,
    headers: Vec<HeaderOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_record: Option<ControlOut>,
    attributes: i8,
    timestamp_delta: i64,
    offset_delta: i32,
}

impl<'a> RecordOut<'a> {
    fn new(batch: &RawBatch, record: &'a RawRecord) -> Self {
        let control = if batch.header.is_control() { record.control().ok() } else { None };
        Self {
            offset: batch.offset(record),
            timestamp: batch.timestamp_ms(record),
            sequence: batch.sequence(record),
            key: record.key.as_deref().map(Hex),
            value: record.value.as_deref().map(Hex),
            headers: record.headers.iter().map(HeaderOut).collect(),
            control_record: control.map(ControlOut::from),
            attributes: record.attributes,
            timestamp_delta: record.timestamp_delta,
            offset_delta: record.offset_delta,
        }
    }
}

/// A message of magic 0 or 1, or a wrapper.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MessageOut<'a> {
    position: usize,
    size_in_bytes: i64,
    magic: i8,
    crc: u32,
    offset: i64,
    message_size: i32,
    attributes: i16,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    compression: &'static str,
    timestamp_type: &'static str,
    base_offset: i64,
    last_offset: i64,
    max_timestamp: i64,
    records: Vec<MessageRecordOut<'a>>,
}

impl<'a> MessageOut<'a> {
    fn new(batch: &'a RawBatch) -> Result<Self, CompressionError> {
        let header = &batch.header;
        let record = |record: &'a RawRecord| MessageRecordOut {
            offset: batch.offset(record),
            timestamp: batch.timestamp_ms(record),
            key: record.key.as_deref().map(Hex),
            value: record.value.as_deref().map(Hex),
        };
        Ok(Self {
            position: batch.position,
            size_in_bytes: header.size_in_bytes(),
            magic: header.magic,
            crc: header.crc,
            offset: header.last_offset(),
            message_size: header.batch_length,
            attributes: header.attributes,
            timestamp: (header.magic != 0).then_some(header.base_timestamp),
            compression: header.compression()?.name(),
            timestamp_type: header.timestamp_type().name(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            max_timestamp: header.max_timestamp,
            records: batch.records.iter().map(record).collect(),
        })
    }
}

#[derive(Serialize)]
struct MessageRecordOut<'a> {
    offset: i64,
    timestamp: i64,
    key: Option<Hex<'a>>,
    value: Option<Hex<'a>>,
}

struct HeaderOut<'a>(&'a Header);

impl Serialize for HeaderOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            key: &'a str,
            value: Option<Hex<'a>>,
        }
        let fields = Fields { key: &self.0.key(), value: self.0.value.as_deref().map(Hex) };
        fields.serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ControlOut {
    r#type: &'static str,
    key_version: i16,
    key_type: i16,
    #[serde(skip_serializing_if = "Option::is_none")]
    coordinator_epoch: Option<i32>,
}

impl From<ControlRecord> for ControlOut {
    fn from(record: ControlRecord) -> Self {
        let (key_version, coordinator_epoch) = match record {
            ControlRecord::EndTransaction(end) => (end.key_version, Some(end.coordinator_epoch)),
            ControlRecord::Other { key_version, .. } => (key_version, None),
        };
        let ControlType(key_type) = record.control_type();
        let r#type = record.control_type().name().unwrap_or("UNKNOWN");
        Self { r#type, key_version, key_type, coordinator_epoch }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchIn {
    #[serde(default)]
    position: usize,
    #[serde(default)]
    crc: u32,
    #[serde(default)]
    batch_length: i32,
    #[serde(default = "magic")]
    magic: i8,
    base_offset: i64,
    partition_leader_epoch: i32,
    attributes: i16,
    last_offset_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    records: Vec<RecordIn>,
}

const fn magic() -> i8 {
    BatchHeader::MAGIC
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordIn {
    #[serde(default)]
    attributes: i8,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<Unhex>,
    value: Option<Unhex>,
    headers: Vec<HeaderIn>,
}

impl From<RecordIn> for RawRecord {
    fn from(record: RecordIn) -> Self {
        let header = |header: HeaderIn| Header::new(header.key, header.value.map(|Unhex(bytes)| bytes));
        Self {
            attributes: record.attributes,
            timestamp_delta: record.timestamp_delta,
            offset_delta: record.offset_delta,
            key: record.key.map(|Unhex(bytes)| bytes),
            value: record.value.map(|Unhex(bytes)| bytes),
            headers: record.headers.into_iter().map(header).collect::<Headers>(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageIn {
    #[serde(default)]
    position: usize,
    magic: i8,
    #[serde(default)]
    crc: u32,
    offset: i64,
    #[serde(default)]
    message_size: i32,
    attributes: i16,
    timestamp: Option<i64>,
    records: Vec<MessageRecordIn>,
}

impl MessageIn {
    fn into_raw(self) -> Result<RawBatch, String> {
        let timestamp = match (self.magic, self.timestamp) {
            (0, _) => NO_TIMESTAMP,
            (_, Some(timestamp)) => timestamp,
            (_, None) => return Err("missing field `timestamp`".to_owned()),
        };
        let base_offset = self.records.first().map_or(self.offset, |record| record.offset);
        let delta = |offset: i64| {
            let delta = i32::try_from(i128::from(offset) - i128::from(base_offset));
            delta.map_err(|_| format!("the offsets {base_offset} and {offset} are too far apart"))
        };
        let header = BatchHeader {
            base_offset,
            batch_length: self.message_size,
            magic: self.magic,
            crc: self.crc,
            attributes: self.attributes,
            last_offset_delta: delta(self.offset)?,
            base_timestamp: timestamp,
            max_timestamp: timestamp,
            count: i32::try_from(self.records.len()).map_err(|error| error.to_string())?,
            ..BatchHeader::default()
        };
        let record = |record: MessageRecordIn| {
            Ok(RawRecord {
                timestamp_delta: record.timestamp.wrapping_sub(timestamp),
                offset_delta: delta(record.offset)?,
                key: record.key.map(|Unhex(bytes)| bytes),
                value: record.value.map(|Unhex(bytes)| bytes),
                ..RawRecord::default()
            })
        };
        let records = self.records.into_iter().map(record).collect::<Result<_, String>>()?;
        Ok(RawBatch { position: self.position, header, records })
    }
}

#[derive(Deserialize)]
struct MessageRecordIn {
    offset: i64,
    timestamp: i64,
    key: Option<Unhex>,
    value: Option<Unhex>,
}

#[derive(Deserialize)]
struct HeaderIn {
    key: String,
    value: Option<Unhex>,
}

impl TimestampType {
    /// Returns Kafka's name of the timestamp type.
    const fn name(self) -> &'static str {
        match self {
            Self::CreateTime => "CREATE_TIME",
            Self::LogAppendTime => "LOG_APPEND_TIME",
            Self::NoTimestamp => "NO_TIMESTAMP_TYPE",
        }
    }
}

/// Bytes in lower-case hex.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Bytes from hex.
struct Unhex(Bytes);

impl<'de> Deserialize<'de> for Unhex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
        let byte = |pair: &[u8]| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes = text.as_bytes().chunks(2).map(byte).collect::<Option<Bytes>>();
        bytes.map(Self).ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&text), &"bytes in hex"))
    }
}
