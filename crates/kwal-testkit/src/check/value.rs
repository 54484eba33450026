//! The identity of a record in a history.

use std::{fmt, sync::Arc};

use bytes::Bytes;

/// The identity of a record in a [`History`](super::History), unique among the appended records.
///
/// Usually it is the record's value or key, as bytes. Numbers are converted to decimal digits, so that a
/// record appended as `7` is recognised when it is read as `"7"`. Of more than 64 bytes, the first 24, the
/// length and a hash are kept.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Value(Arc<[u8]>);

impl Value {
    fn new(bytes: &[u8]) -> Self {
        if bytes.len() <= MAX_LEN {
            return Self(bytes.into());
        }
        let mut short = bytes[..KEPT].to_vec();
        short.extend_from_slice(format!("~{}~{:016x}", bytes.len(), hash(bytes)).as_bytes());
        Self(short.into())
    }

    /// Creates the identity of the barrier of an exclusive writer from its mark.
    ///
    /// Use it for every record that is a barrier, in logs and reads: the history need not know the writer,
    /// because one that fails to take over leaves its barrier on the log. All other values have to be
    /// submitted.
    ///
    /// ```
    /// use kwal_testkit::check::Value;
    ///
    /// assert_eq!(Value::barrier(b"7f").to_string(), "~barrier~7f");
    /// ```
    pub fn barrier(mark: &[u8]) -> Self {
        Self::new(&[BARRIER, mark].concat())
    }

    pub(super) fn is_barrier(&self) -> bool {
        self.0.starts_with(BARRIER)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Parses the output of [`Display`](fmt::Display).
    pub(super) fn parse(text: &str) -> Option<Self> {
        unescape(text).map(|bytes| Self::new(&bytes))
    }
}

/// Percent-encoded, including the characters with a meaning in the text of a history.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({self})")
    }
}

impl<T: AsRef<[u8]> + ?Sized> From<&T> for Value {
    fn from(bytes: &T) -> Self {
        Self::new(bytes.as_ref())
    }
}

macro_rules! from_bytes {
    ($($bytes:ty),*) => { $(
        impl From<$bytes> for Value {
            fn from(bytes: $bytes) -> Self {
                Self::from(&bytes)
            }
        }
    )* };
}

macro_rules! from_number {
    ($($number:ty),*) => { $(
        impl From<$number> for Value {
            fn from(number: $number) -> Self {
                Self::from(&number.to_string())
            }
        }
    )* };
}

from_bytes!(String, Vec<u8>, Bytes);
from_number!(i32, i64, u32, u64, usize);

/// Bytes as one word of a line.
pub(super) struct Escaped<'a>(pub(super) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(EMPTY);
        }
        let mut rest = self.0;
        while let Some(byte) = rest.first() {
            let plain = rest.iter().take_while(|byte| is_plain(**byte)).count();
            if plain == 0 {
                write!(f, "%{byte:02x}")?;
                rest = &rest[1..];
            } else {
                f.write_str(str::from_utf8(&rest[..plain]).map_err(|_| fmt::Error)?)?;
                rest = &rest[plain..];
            }
        }
        Ok(())
    }
}

/// Parses the output of [`Escaped`].
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
    if text == EMPTY {
        return Some(Vec::new());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            byte if is_plain(byte) => byte,
            _ => return None,
        });
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// What the identities of barriers begin with.
const BARRIER: &[u8] = b"~barrier~";
const MAX_LEN: usize = 64;
const KEPT: usize = 24;
const EMPTY: &str = "\"\"";

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'%' | b'@' | b'"' | b'#')
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// FNV-1a, which is the same on every machine.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive_as_text() {
        let long = [b'x'; 1000];
        let all: Vec<u8> = (0..=255).collect();
        for bytes in
            [&b""[..], b"a", b"%", b"a b", "gr\u{fc}n".as_bytes(), b"\0\xff@#\"", &long, &all, &all[..64]]
        {
            let value = Value::from(bytes);
            let text = value.to_string();
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
            assert_eq!(Value::parse(&text), Some(value), "{text}");
        }
    }

    #[test]
    fn other_text_is_not_a_value() {
        for text in ["", "%", "%1", "%zz", "a b", "a@b", "#", "\"", "gr\u{fc}n", "%\u{fc}"] {
            assert_eq!(Value::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn long_values_are_shortened_and_stay_distinct() {
        let (one, mut other) = (vec![b'x'; 100_000], vec![b'x'; 100_000]);
        other[70_000] = b'y';
        let (one, other) = (Value::from(one), Value::from(other));
        assert_ne!(one, other);
        assert_eq!(one.to_string(), "xxxxxxxxxxxxxxxxxxxxxxxx~100000~fd931f27c2d26fa5");
    }

    #[test]
    fn numbers_are_their_digits() {
        assert_eq!(Value::from(7_u64), Value::from("7"));
        assert_eq!(Value::from(-7), Value::from(b"-7"));
    }
}
