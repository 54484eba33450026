//! Messages of magic 0 and 1 (KIP-31, KIP-32).
//!
//! Brokers before 0.11 wrote them, and newer ones until KIP-724 if so configured. They stay in the log, and
//! in Fetch responses, until they expire.
//!
//! ```text
//!  offset   size   crc   magic  attributes  timestamp       key            value
//!  8 bytes  4      4     1      1           8, in magic 1   4 and the key  4 and the value
//!                        └──── checksum over (CRC-32) ───────────────────────────┘
//! ```
//!
//! A message with a codec in its attributes is a wrapper: its compressed value is a sequence of such
//! messages, which are not wrappers themselves. In magic 0 the offsets in it are those of the partition. In
//! magic 1 they are relative, and the offset of the wrapper is that of the last message.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    error::{BatchErrorKind, BuildError},
    header::{BatchHeader, NO_TIMESTAMP, TimestampType},
    view::{HeadersIter, RecordView},
};
use crate::{
    compression::Compression,
    error::{DecodeError, DecodeErrorKind},
};

/// The size of offset and size, which the size does not count.
pub(super) const OVERHEAD: usize = 12;
/// The smallest size: a message of magic 0 without key and value.
pub(super) const MIN_SIZE: i32 = 14;
/// The position of the magic, as in a batch.
pub(super) const MAGIC_AT: usize = 16;
/// The start of the bytes that the checksum covers.
const CRC_START: usize = MAGIC_AT;

/// Converts the header of a message or a wrapper to that of a batch, if its checksum is valid.
///
/// Key and value are not checked.
pub(super) fn header(entry: &[u8]) -> Result<BatchHeader, BatchErrorKind> {
    let (message, _) = Message::head(entry).map_err(|error| error.of(0))?;
    message.check(entry)?;
    Ok(BatchHeader {
        base_offset: message.offset,
        batch_length: (entry.len() - OVERHEAD) as i32,
        magic: message.magic,
        crc: message.crc,
        attributes: message.attributes.into(),
        base_timestamp: message.timestamp,
        max_timestamp: message.timestamp,
        count: if message.is_wrapper() { -1 } else { 1 },
        ..BatchHeader::default()
    })
}

/// One message, or the messages in a wrapper.
pub(super) struct Messages {
    pub(super) count: u32,
    pub(super) bytes: Bytes,
    /// The difference between the offsets of the partition and those in `bytes`.
    pub(super) shift: i64,
}

/// Returns the message that `bytes` is, or the messages in it if it is a wrapper.
///
/// All of them are checked here, because their offsets depend on the last one.
pub(super) fn messages(
    header: &BatchHeader,
    bytes: &Bytes,
    decompress: impl FnOnce(Compression, &[u8]) -> Result<Bytes, BatchErrorKind>,
) -> Result<Messages, BatchErrorKind> {
    let codec = header.compression()?;
    if codec == Compression::None {
        return Ok(Messages { count: 1, bytes: bytes.clone(), shift: 0 });
    }
    if codec == Compression::Zstd {
        return Err(BatchErrorKind::CodecOfLaterMagic { magic: header.magic, codec });
    }
    let wrapper = Message::read(bytes).map_err(|error| error.of(0))?;
    let body = decompress(codec, wrapper.value.ok_or(BatchErrorKind::NoMessages)?)?;
    let (mut count, mut end, mut last) = (0u32, 0, None);
    // As in a log, a truncated message at the end is ignored.
    while let Some(entry) = first(&body[end..]).map_err(|error| error.behind(end).of(count))? {
        let message = Message::read(entry).map_err(|error| error.behind(end).of(count))?;
        if message.is_wrapper() {
            return Err(BatchErrorKind::Nested { index: count });
        }
        message.check(entry)?;
        last = Some(message.offset);
        end += entry.len();
        count += 1;
    }
    let last = last.ok_or(BatchErrorKind::NoMessages)?;
    let shift = match (header.magic, header.base_offset) {
        (0, _) => 0,
        // Some producers left 0 there, and it occurs in logs.
        (_, 0) => 0,
        (_, offset) if offset < last => return Err(BatchErrorKind::WrapperOffset { offset, last }),
        (_, offset) => offset.wrapping_sub(last),
    };
    Ok(Messages { count, bytes: body.slice(..end), shift })
}

/// Returns the first of messages that were checked earlier, and its size.
pub(super) fn view<'a>(
    bytes: &'a [u8],
    header: &BatchHeader,
    shift: i64,
) -> Result<(RecordView<'a>, usize), DecodeError> {
    let entry = first(bytes)?.ok_or_else(|| DecodeErrorKind::UnexpectedEnd.at(bytes.len()))?;
    let message = Message::read(entry)?;
    let of_wrapper = message.magic != 0 && header.timestamp_type() == TimestampType::LogAppendTime;
    let view = RecordView {
        offset: message.offset.wrapping_add(shift),
        timestamp_ms: if of_wrapper { header.base_timestamp } else { message.timestamp },
        leader_epoch: -1,
        sequence: -1,
        attributes: message.attributes,
        timestamp_delta: 0,
        offset_delta: 0,
        key: message.key,
        value: message.value,
        headers: HeadersIter::default(),
    };
    Ok((view, entry.len()))
}

/// Encodes one message that is not a wrapper.
pub(super) fn encode(
    header: &BatchHeader,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<Bytes, BuildError> {
    let fields = [key, value].iter().flatten().map(|field| field.len()).fold(0, usize::saturating_add);
    let size = (MIN_SIZE as usize + if header.magic == 0 { 0 } else { 8 }).saturating_add(fields);
    let size = i32::try_from(size).map_err(|_| BuildError::TooLarge)?;
    let mut bytes = BytesMut::with_capacity(OVERHEAD + size as usize);
    bytes.put_i64(header.last_offset());
    bytes.put_i32(size);
    bytes.put_u32(0);
    bytes.put_i8(header.magic);
    bytes.put_i8(header.attributes as i8);
    if header.magic != 0 {
        bytes.put_i64(header.base_timestamp);
    }
    for field in [key, value] {
        bytes.put_i32(field.map_or(-1, |field| field.len() as i32));
        bytes.put_slice(field.unwrap_or_default());
    }
    let crc = crc32fast::hash(&bytes[CRC_START..]);
    bytes[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    Ok(bytes.freeze())
}

/// One message, field by field.
struct Message<'a> {
    offset: i64,
    crc: u32,
    magic: i8,
    attributes: i8,
    timestamp: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

impl<'a> Message<'a> {
    /// Decodes bytes that are one message according to its size. Leftover bytes are ignored, as in Kafka.
    fn read(entry: &'a [u8]) -> Result<Self, DecodeError> {
        let (message, mut reader) = Self::head(entry)?;
        Ok(Self { key: reader.nullable("key")?, value: reader.nullable("value")?, ..message })
    }

    /// Decodes everything in front of key and value.
    fn head(entry: &'a [u8]) -> Result<(Self, Reader<'a>), DecodeError> {
        let mut reader = Reader { entry, at: 0 };
        let offset = i64::from_be_bytes(reader.array("offset")?);
        reader.array::<4>("size")?;
        let crc = u32::from_be_bytes(reader.array("crc")?);
        let magic = i8::from_be_bytes(reader.array("magic")?);
        if !(0..BatchHeader::MAGIC).contains(&magic) {
            let kind = DecodeErrorKind::InvalidValue(magic.into());
            return Err(DecodeError { kind, at: MAGIC_AT, field: "magic" });
        }
        let attributes = i8::from_be_bytes(reader.array("attributes")?);
        let timestamp =
            if magic == 0 { NO_TIMESTAMP } else { i64::from_be_bytes(reader.array("timestamp")?) };
        Ok((Self { offset, crc, magic, attributes, timestamp, key: None, value: None }, reader))
    }

    fn check(&self, entry: &[u8]) -> Result<(), BatchErrorKind> {
        let computed = crc32fast::hash(&entry[CRC_START..]);
        if computed == self.crc {
            return Ok(());
        }
        Err(BatchErrorKind::Checksum { stored: self.crc, computed })
    }

    const fn is_wrapper(&self) -> bool {
        self.attributes as i16 & BatchHeader::COMPRESSION_MASK != 0
    }
}

/// Returns the first of several messages, header included; `None` if it is incomplete.
fn first(bytes: &[u8]) -> Result<Option<&[u8]>, DecodeError> {
    let Some(size) = bytes.get(8..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
    let size = i32::from_be_bytes(*size);
    if size < MIN_SIZE {
        return Err(DecodeError { kind: DecodeErrorKind::InvalidValue(size.into()), at: 8, field: "size" });
    }
    Ok(bytes.get(..OVERHEAD + size as usize))
}

impl DecodeError {
    /// Returns the same error for a position `bytes` bytes later.
    const fn behind(self, bytes: usize) -> Self {
        Self { at: self.at + bytes, ..self }
    }

    /// Returns the error of a message.
    const fn of(self, index: u32) -> BatchErrorKind {
        BatchErrorKind::Record { index, error: self }
    }
}

/// Decodes a message.
struct Reader<'a> {
    entry: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Any negative length is null, as in Kafka.
    fn nullable(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
        match usize::try_from(i32::from_be_bytes(self.array(field)?)) {
            Ok(length) => self.bytes(length, field).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N, field)?);
        Ok(array)
    }

    fn bytes(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let bytes = self.entry[self.at..].get(..length);
        let bytes = bytes.ok_or(DecodeError { kind: DecodeErrorKind::UnexpectedEnd, at: self.at, field })?;
        self.at += length;
        Ok(bytes)
    }
}
