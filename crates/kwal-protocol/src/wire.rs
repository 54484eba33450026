//! The encoding of each type of Kafka's schemas, classic and compact (KIP-482).

use std::{fmt, iter, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;

use crate::{
    error::{DecodeError, DecodeErrorKind, EncodeError},
    reader::Reader,
    record::BatchHeader,
    writer::{Inserted, Writer},
};

/// A version of an API, with its encoding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Version {
    /// The number on the wire.
    pub number: i16,
    /// Whether lengths are compact and structures end with tagged fields (KIP-482).
    pub flexible: bool,
}

/// A value that can be encoded in a version of an API.
pub trait Wire: Sized {
    /// Appends the value. The writer remembers errors.
    fn write(&self, writer: &mut Writer, version: Version);

    /// Reads the value.
    ///
    /// # Errors
    /// [`DecodeError`] at the offending byte.
    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError>;

    /// Whether this is the null of a nullable type.
    fn is_null(&self) -> bool {
        false
    }
}

/// A type that has an encoding for null. `Option<T>` means *nullable* and nothing else.
pub trait Nullable: Wire {
    /// Appends null.
    fn write_null(writer: &mut Writer, version: Version);

    /// Appends the value where null is possible.
    fn write_present(&self, writer: &mut Writer, version: Version) {
        self.write(writer, version);
    }

    /// Reads a value or null.
    ///
    /// # Errors
    /// As [`Wire::read`].
    fn read_nullable(reader: &mut Reader<'_>, version: Version) -> Result<Option<Self>, DecodeError>;
}

impl<T: Nullable> Wire for Option<T> {
    fn write(&self, writer: &mut Writer, version: Version) {
        match self {
            Some(value) => value.write_present(writer, version),
            None => T::write_null(writer, version),
        }
    }

    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        T::read_nullable(reader, version)
    }

    fn is_null(&self) -> bool {
        self.is_none()
    }
}

/// Reads a value that must not be null.
fn present<T: Nullable>(reader: &mut Reader<'_>, version: Version) -> Result<T, DecodeError> {
    let at = reader.position();
    T::read_nullable(reader, version)?.ok_or_else(|| DecodeErrorKind::UnexpectedNull.at(at))
}

macro_rules! integers {
    ($($ty:ty),*) => { $(
        impl Wire for $ty {
            #[inline]
            fn write(&self, writer: &mut Writer, _: Version) {
                writer.put_slice(&self.to_be_bytes());
            }

            #[inline]
            fn read(reader: &mut Reader<'_>, _: Version) -> Result<Self, DecodeError> {
                reader.array().map(Self::from_be_bytes)
            }
        }
    )* };
}
integers!(i8, i16, i32, i64, u16);

impl Wire for bool {
    fn write(&self, writer: &mut Writer, _: Version) {
        writer.put_slice(&[u8::from(*self)]);
    }

    /// Any byte other than 0 is true, as in Kafka.
    fn read(reader: &mut Reader<'_>, _: Version) -> Result<Self, DecodeError> {
        reader.array::<1>().map(|[byte]| byte != 0)
    }
}

/// Writes a string that is not null.
pub(crate) fn write_str(text: &str, writer: &mut Writer, version: Version) {
    // Kafka applies the limit of the classic form to the compact one as well.
    match i16::try_from(text.len()) {
        Err(_) => writer.refuse(EncodeError::TooLong(text.len())),
        Ok(_) if version.flexible => writer.put_length(text.len() + 1),
        Ok(len) => len.write(writer, version),
    }
    writer.put_slice(text.as_bytes());
}

impl Wire for String {
    fn write(&self, writer: &mut Writer, version: Version) {
        write_str(self, writer, version);
    }

    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        present(reader, version)
    }
}

impl Nullable for String {
    fn write_null(writer: &mut Writer, version: Version) {
        match version.flexible {
            true => writer.put_uvarint(0),
            false => (-1i16).write(writer, version),
        }
    }

    fn read_nullable(reader: &mut Reader<'_>, version: Version) -> Result<Option<Self>, DecodeError> {
        let at = reader.position();
        let Some(len) = length(reader, version, |reader| i16::read(reader, version).map(i32::from))? else {
            return Ok(None);
        };
        if len > i16::MAX as usize {
            return Err(DecodeErrorKind::InvalidValue(len as i64).at(at));
        }
        let at = reader.position();
        reader.allocate(len, 1)?;
        match std::str::from_utf8(reader.slice(len)?) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(fault) => Err(DecodeErrorKind::InvalidUtf8.at(at + fault.valid_up_to())),
        }
    }
}

impl Wire for Bytes {
    fn write(&self, writer: &mut Writer, version: Version) {
        write_length(self.len(), writer, version);
        writer.put_pieces([self]);
    }

    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        present(reader, version)
    }
}

impl Nullable for Bytes {
    fn write_null(writer: &mut Writer, version: Version) {
        write_null_length(writer, version);
    }

    fn read_nullable(reader: &mut Reader<'_>, version: Version) -> Result<Option<Self>, DecodeError> {
        match length(reader, version, |reader| i32::read(reader, version))? {
            Some(len) => reader.bytes(len).map(Some),
            None => Ok(None),
        }
    }
}

/// Bytes in several pieces that form one value: a record batch whose new header precedes a shared body.
///
/// When it is written, each piece is spliced or copied depending on its size; when it is read, all bytes are
/// in the first piece. Two values are equal if their joined bytes are.
///
/// ```
/// use bytes::Bytes;
/// use kwal_protocol::wire::Spliced;
///
/// let batch = Spliced::new(Bytes::from_static(b"header "), Bytes::from_static(b"and body"));
/// assert_eq!(batch, Spliced::from(Bytes::from_static(b"header and body")));
/// assert_eq!(batch.len(), 15);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Spliced {
    first: First,
    /// Without what is inserted.
    second: Bytes,
    inserted: Option<Arc<[Inserted]>>,
    len: usize,
}

/// The first piece.
#[derive(Clone, Debug)]
enum First {
    Shared(Bytes),
    /// The header of a batch, which takes no allocation.
    Header([u8; BatchHeader::LEN]),
}

impl First {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Header(bytes) => bytes,
        }
    }
}

impl Default for First {
    fn default() -> Self {
        Self::Shared(Bytes::new())
    }
}

impl Spliced {
    /// Joins two pieces.
    pub const fn new(first: Bytes, second: Bytes) -> Self {
        let len = first.len() + second.len();
        Self { first: First::Shared(first), second, inserted: None, len }
    }

    /// Joins the header of a batch and its records, with others inserted into them.
    pub(crate) fn batch(
        header: [u8; BatchHeader::LEN],
        records: Bytes,
        inserted: Option<Arc<[Inserted]>>,
    ) -> Self {
        let more: usize =
            inserted.iter().flat_map(|pieces| pieces.iter()).map(|piece| piece.bytes.len()).sum();
        let len = header.len() + records.len() + more;
        Self { first: First::Header(header), second: records, inserted, len }
    }

    /// The pieces in their order.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let rest = Inserted::pieces(&self.second, self.inserted.as_deref().unwrap_or_default());
        iter::once(self.first.as_slice()).chain(rest)
    }

    /// Returns the number of bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes in one piece. Nothing is copied if one piece is empty, as after reading.
    pub fn into_bytes(self) -> Bytes {
        match self.first {
            First::Shared(first) if first.len() == self.len => return first,
            _ => {}
        }
        if self.second.len() == self.len {
            return self.second;
        }
        let mut bytes = Vec::with_capacity(self.len);
        self.pieces().for_each(|piece| bytes.extend_from_slice(piece));
        bytes.into()
    }
}

impl From<Bytes> for Spliced {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes, Bytes::new())
    }
}

impl PartialEq for Spliced {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.pieces().flatten().eq(other.pieces().flatten())
    }
}

impl Eq for Spliced {}

impl Wire for Spliced {
    fn write(&self, writer: &mut Writer, version: Version) {
        write_length(self.len(), writer, version);
        match &self.first {
            First::Shared(first) => writer.put_pieces([first]),
            First::Header(header) => writer.put_slice(header),
        }
        writer.put_with_inserted(&self.second, self.inserted.as_deref());
    }

    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        present(reader, version)
    }
}

impl Nullable for Spliced {
    fn write_null(writer: &mut Writer, version: Version) {
        write_null_length(writer, version);
    }

    fn read_nullable(reader: &mut Reader<'_>, version: Version) -> Result<Option<Self>, DecodeError> {
        Ok(Bytes::read_nullable(reader, version)?.map(Self::from))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, writer: &mut Writer, version: Version) {
        write_length(self.len(), writer, version);
        for element in self {
            element.write(writer, version);
        }
    }

    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        present(reader, version)
    }
}

impl<T: Wire> Nullable for Vec<T> {
    fn write_null(writer: &mut Writer, version: Version) {
        write_null_length(writer, version);
    }

    fn read_nullable(reader: &mut Reader<'_>, version: Version) -> Result<Option<Self>, DecodeError> {
        let at = reader.position();
        let Some(len) = length(reader, version, |reader| i32::read(reader, version))? else {
            return Ok(None);
        };
        // Every element takes at least one byte.
        if len > reader.remaining() {
            return Err(DecodeErrorKind::UnexpectedEnd.at(at));
        }
        reader.allocate(len, size_of::<T>())?;
        let mut elements = Self::with_capacity(len);
        for _ in 0..len {
            elements.push(T::read(reader, version)?);
        }
        Ok(Some(elements))
    }
}

/// Reads the length in front of a value, `None` for null.
fn length(
    reader: &mut Reader<'_>,
    version: Version,
    classic: impl FnOnce(&mut Reader<'_>) -> Result<i32, DecodeError>,
) -> Result<Option<usize>, DecodeError> {
    if version.flexible {
        return Ok(reader.uvarint()?.checked_sub(1).map(|len| len as usize));
    }
    let at = reader.position();
    match classic(reader)? {
        -1 => Ok(None),
        len => match usize::try_from(len) {
            Ok(len) => Ok(Some(len)),
            Err(_) => Err(DecodeErrorKind::NegativeLength(len.into()).at(at)),
        },
    }
}

pub(crate) fn write_length(len: usize, writer: &mut Writer, version: Version) {
    match i32::try_from(len) {
        Err(_) => writer.refuse(EncodeError::TooLong(len)),
        Ok(_) if version.flexible => writer.put_length(len + 1),
        Ok(len) => len.write(writer, version),
    }
}

fn write_null_length(writer: &mut Writer, version: Version) {
    match version.flexible {
        true => writer.put_uvarint(0),
        false => (-1i32).write(writer, version),
    }
}

/// A 128-bit identifier of a topic or a directory. Zero means that there is no id.
///
/// `Display` and `FromStr` use Kafka's text form: URL-safe base64 without padding, 22 characters.
///
/// ```
/// use kwal_protocol::wire::Uuid;
///
/// let id: Uuid = "AAAAAAAAAAAAAAAAAAAAAQ".parse().unwrap();
/// assert_eq!(id, Uuid(1u128.to_be_bytes()));
/// assert_eq!(id.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
/// assert!(Uuid::ZERO.is_zero());
/// ```
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The absent id.
    pub const ZERO: Self = Self([0; 16]);

    /// Whether this is [`Uuid::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl Wire for Uuid {
    fn write(&self, writer: &mut Writer, _: Version) {
        writer.put_slice(&self.0);
    }

    fn read(reader: &mut Reader<'_>, _: Version) -> Result<Self, DecodeError> {
        reader.array().map(Self)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Uuid {
    type Err = InvalidUuid;

    fn from_str(text: &str) -> Result<Self, InvalidUuid> {
        let mut id = [0; 16];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut id) {
            Ok(16) => Ok(Self(id)),
            _ => Err(InvalidUuid),
        }
    }
}

/// A text that is not a valid id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not 22 characters of URL-safe base64")]
pub struct InvalidUuid;
