//! Messages of magic 0 and 1 (KIP-31, KIP-32): what brokers before 0.11 wrote, and newer ones too until KIP-724 if they were
//! told to. They stay in a log, and in Fetch responses, until they expire.
//!
//! ```text
//!  offset   size   crc   magic  attributes  timestamp       key            value
//!  8 bytes  4      4     1      1           8, in magic 1   4 and the key  4 and the value
//!                        └──── checksum over (CRC-32) ───────────────────────────┘
//! ```
//!
//! With a codec in its attributes it is a wrapper: its value is compressed, a run of the same messages, which are not
//! wrappers themselves. The offsets in there are those of the partition in magic 0; in magic 1 they count from anywhere, and
//! the wrapper's offset is that of the last one.

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

/// Offset and size, which the size does not count.
pub(super) const OVERHEAD: usize = 12;
/// The smallest size: a message of magic 0 with neither key nor value.
pub(super) const MIN_SIZE: i32 = 14;
/// Where the magic is, as in a batch.
pub(super) const MAGIC_AT: usize = 16;
/// Where the bytes begin that the checksum covers.
const CRC_START: usize = MAGIC_AT;

/// What a message or a wrapper says in a batch's words, if its checksum is right; not whether key and value are.
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

/// One message, or those in a wrapper.
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
    // As in a log, what is cut off at the end is passed over.
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
        // Some producers left 0 there, and logs have it.
        (_, 0) => 0,
        (_, offset) if offset < last => return Err(BatchErrorKind::WrapperOffset { offset, last }),
        (_, offset) => offset.wrapping_sub(last),
    };
    Ok(Messages { count, bytes: body.slice(..end), shift })
}

/// The first message of messages that were looked at before, and its size.
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

/// One message, as it is on the wire.
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
    /// Of bytes that are one message, by the size in it. What may be left over is passed over, as with Kafka.
    fn read(entry: &'a [u8]) -> Result<Self, DecodeError> {
        let (message, mut reader) = Self::head(entry)?;
        Ok(Self { key: reader.nullable("key")?, value: reader.nullable("value")?, ..message })
    }

    /// Without key and value, which are next.
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

/// The first message of a run, header included; `None` if it is not all there.
fn first(bytes: &[u8]) -> Result<Option<&[u8]>, DecodeError> {
    let Some(size) = bytes.get(8..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
    let size = i32::from_be_bytes(*size);
    if size < MIN_SIZE {
        return Err(DecodeError { kind: DecodeErrorKind::InvalidValue(size.into()), at: 8, field: "size" });
    }
    Ok(bytes.get(..OVERHEAD + size as usize))
}

impl DecodeError {
    /// The same fault behind so many more bytes.
    const fn behind(self, bytes: usize) -> Self {
        Self { at: self.at + bytes, ..self }
    }

    /// The fault of a message.
    const fn of(self, index: u32) -> BatchErrorKind {
        BatchErrorKind::Record { index, error: self }
    }
}

/// Goes through a message.
struct Reader<'a> {
    entry: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Any negative length is null, as with Kafka.
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
