//! Texts of bytes, times and numbers.

use std::{fmt::Write as _, ops::Range};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kwal_protocol::text::escape;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Bytes in JSON: a string if they are UTF-8, otherwise `{"base64": "…"}`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct JsonBytes(pub(crate) Vec<u8>);

impl JsonBytes {
    pub(crate) fn of(bytes: Option<&[u8]>) -> Option<Self> {
        bytes.map(|bytes| Self(bytes.to_vec()))
    }
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Shape<T> {
    Text(T),
    Encoded(Encoded),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    base64: String,
}

impl Serialize for JsonBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => Shape::Text(text),
            Err(_) => Shape::Encoded(Encoded { base64: BASE64_STANDARD.encode(&self.0) }),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;

        let shape = Shape::<String>::deserialize(deserializer)
            .map_err(|_| D::Error::custom("expected a string or {\"base64\": \"…\"}"))?;
        match shape {
            Shape::Text(text) => Ok(Self(text.into_bytes())),
            Shape::Encoded(Encoded { base64 }) => {
                BASE64_STANDARD.decode(&base64).map(Self).map_err(D::Error::custom)
            }
        }
    }
}

/// Bytes as text on one line, escaped where [`escape`] says so, and `\xff` for bytes that are not UTF-8.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match escape(c) {
                Some(escaped) => line.extend(escaped),
                None => line.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
    line
}

/// Milliseconds since the epoch as RFC 3339 in UTC; the number if that is no time, and `-` if it is −1.
pub(crate) fn time_text(ms: i64) -> String {
    if ms == -1 {
        return "-".to_owned();
    }
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| ms.to_string())
}

/// The text of what may be unknown.
pub(crate) fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A number with its noun.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    match (count, noun) {
        (1, _) => format!("1 {noun}"),
        (_, "batch") => format!("{count} batches"),
        _ => format!("{count} {noun}s"),
    }
}

/// Offsets from the first to the last one.
pub(crate) fn range(offsets: &Range<i64>) -> String {
    match offsets.end.saturating_sub(offsets.start) {
        ..=0 => "none".to_owned(),
        1 => offsets.start.to_string(),
        _ => format!("{} to {}", offsets.start, offsets.end - 1),
    }
}

/// How many of something were done a second.
pub(crate) fn per_second(amount: u64, seconds: f64) -> f64 {
    amount as f64 / seconds.max(1e-9)
}

/// A size in bytes, with three digits.
pub(crate) fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_json_come_back() {
        for (bytes, json) in [
            (&b"text \"quoted\""[..], r#""text \"quoted\"""#),
            (b"", r#""""#),
            (b"\xff\x00", r#"{"base64":"/wA="}"#),
        ] {
            let bytes = JsonBytes(bytes.to_vec());
            assert_eq!(serde_json::to_string(&bytes).unwrap(), json);
            assert_eq!(serde_json::from_str::<JsonBytes>(json).unwrap(), bytes);
        }
        for wrong in [r#"{"base64":"*"}"#, r#"{"base64":"","x":1}"#, "1", "[]"] {
            assert!(serde_json::from_str::<JsonBytes>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_stays_one() {
        assert_eq!(escaped(b"a\n\x1b[0m\xffb\xc3\xa9"), "a\\n\\u{1b}[0m\\xffbé");
        let hidden = "\u{202e}x\u{200b}\u{2066}\u{61c}\u{feff}\u{2028}";
        assert_eq!(escaped(hidden.as_bytes()), "\\u{202e}x\\u{200b}\\u{2066}\\u{61c}\\u{feff}\\u{2028}");
        assert_eq!(escaped(br#""C:\x""#), r#""C:\x""#);
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time_text(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!((time_text(-1), time_text(i64::MAX)), ("-".to_owned(), i64::MAX.to_string()));
    }

    #[test]
    fn numbers_have_nouns() {
        assert_eq!((plural(1, "batch"), plural(2, "batch")), ("1 batch".to_owned(), "2 batches".to_owned()));
        assert_eq!(
            (range(&(3..3)), range(&(3..4)), range(&(3..6))),
            ("none".into(), "3".into(), "3 to 5".into())
        );
    }
}
