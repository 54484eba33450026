//! The errors of decoding and encoding.
//!
//! [`DecodeError`] is `Copy` and names the byte, so that the fault can be found in a hex dump of the frame.
//! [`EncodeError`] is returned once, when a message is complete, and not by every field.

use std::fmt;

/// Malformed input.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{kind} at byte {at}{}", In(.field))]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// The offset of the fault, from the start of what was decoded.
    pub at: usize,
    /// The innermost field being read, named as in the schema; empty outside of a field.
    pub field: &'static str,
}

/// The kinds of [`DecodeError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The input ends inside a value, or a length exceeds the bytes that are present.
    #[error("the input ends too early")]
    UnexpectedEnd,
    /// Bytes are left over after the last field.
    #[error("{0} bytes are left over")]
    TrailingBytes(usize),
    /// A varint has more bits than its type.
    #[error("a varint does not fit its type")]
    VarintOverflow,
    /// A negative length that does not mean null.
    #[error("the length {0} is negative")]
    NegativeLength(i64),
    /// Null where this version of the message does not allow it.
    #[error("null where a value is required")]
    UnexpectedNull,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    InvalidUtf8,
    /// A tagged field whose size differs from that of its value, or tags that are not ascending.
    #[error("the tagged field {0} is malformed")]
    InvalidTag(u32),
    /// The values would take more memory than a message of this length may.
    ///
    /// See [`Reader`](crate::reader::Reader) for how much that is.
    #[error("{0} bytes of memory are more than a message of this length may take")]
    TooMuchMemory(usize),
    /// A response is decoded as that of another API than the request's.
    #[error("a response of API {is} was decoded as one of API {expected}")]
    OtherApi {
        /// The key of the API it was decoded as.
        expected: i16,
        /// The key of the API of the request.
        is: i16,
    },
    /// A value that is not defined at this place.
    #[error("{0} is not allowed here")]
    InvalidValue(i64),
}

impl DecodeErrorKind {
    /// Returns the error at a byte, outside of any field.
    pub const fn at(self, at: usize) -> DecodeError {
        DecodeError { kind: self, at, field: "" }
    }
}

/// A message that cannot be encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The codec does not support this version of the message.
    #[error("version {version} is not one of {oldest} to {newest}")]
    UnknownVersion {
        /// The requested version.
        version: i16,
        /// The oldest version that the codec supports.
        oldest: i16,
        /// The newest version that the codec supports.
        newest: i16,
    },
    /// A field has a value that this version cannot carry. Kafka's own encoder rejects it as well.
    #[error("version {version} cannot carry the field {field}")]
    NotInVersion {
        /// The field, named as in the schema.
        field: &'static str,
        /// The requested version.
        version: i16,
    },
    /// A field is null where this version does not allow it.
    #[error("the field {field} must not be null in version {version}")]
    Null {
        /// The field, named as in the schema.
        field: &'static str,
        /// The requested version.
        version: i16,
    },
    /// A string, an array or the whole frame exceeds the range of its length field.
    #[error("the length {0} exceeds its length field")]
    TooLong(usize),
}

/// ` in <field>`, or nothing.
struct In<'a>(&'a str);

impl fmt::Display for In<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            field => write!(f, " in {field}"),
        }
    }
}
