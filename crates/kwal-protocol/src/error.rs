//! What can be wrong with bytes, and with a value that is to become bytes.
//!
//! [`DecodeError`] is `Copy` and names the byte: with a hex dump of the frame it points at the fault. [`EncodeError`] is
//! found once, when a message is finished, not at every field.

use std::fmt;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{kind} at byte {at}{}", In(.field))]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// The offset of the fault, from the start of what was decoded.
    pub at: usize,
    /// The innermost field being read, in the schema's words; empty outside of a field.
    pub field: &'static str,
}

/// What is wrong with the bytes of a [`DecodeError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The input ends inside of a value, or a length promises more than there is.
    #[error("the input ends too early")]
    UnexpectedEnd,
    /// Bytes are left over after the last field.
    #[error("{0} bytes are left over")]
    TrailingBytes(usize),
    /// A varint has more bits than its type.
    #[error("a varint does not fit its type")]
    VarintOverflow,
    /// A length below zero that does not mean null either.
    #[error("the length {0} is negative")]
    NegativeLength(i64),
    /// Null where this version of the message does not allow it.
    #[error("null where a value is needed")]
    UnexpectedNull,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    InvalidUtf8,
    /// A tagged field whose size is not that of its value, or tags that do not rise.
    #[error("the tagged field {0} is malformed")]
    InvalidTag(u32),
    /// A response is read as that of another API than was called.
    #[error("the response of API {is} is read as one of API {expected}")]
    OtherApi {
        /// The key of the API that the reader asked for.
        expected: i16,
        /// The key of the API that was called.
        is: i16,
    },
    /// A byte that has no meaning where it stands.
    #[error("{0} is not allowed here")]
    InvalidValue(i64),
}

impl DecodeErrorKind {
    /// This fault, at a byte and in no particular field.
    pub const fn at(self, at: usize) -> DecodeError {
        DecodeError { kind: self, at, field: "" }
    }
}

/// A message that cannot be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The codec does not know this version of the message.
    #[error("version {version} is not one of {oldest} to {newest}")]
    UnknownVersion {
        /// What was asked for.
        version: i16,
        /// The oldest that the codec knows.
        oldest: i16,
        /// The newest that the codec knows.
        newest: i16,
    },
    /// A field holds something that this version cannot carry. Kafka's writer refuses it as well.
    #[error("version {version} cannot carry the field {field}")]
    NotInVersion {
        /// The field, in the schema's words.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field is null, and this version does not allow it.
    #[error("the field {field} must not be null in version {version}")]
    Null {
        /// The field, in the schema's words.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A string, an array or the whole frame is longer than its length field can say.
    #[error("{0} bytes or elements are more than their length field can say")]
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
