//! A record on its way into the log.

use bytes::Bytes;
use kwal_protocol::record::Headers;
use time::OffsetDateTime;

/// A record to be appended.
///
/// ```
/// use kwal_client::record::Record;
///
/// let record = Record::new("key", "value").header("trace", "42").header("none", None::<&str>);
/// assert_eq!(record.key.as_deref(), Some(&b"key"[..]));
/// assert_eq!(record.headers.len(), 2);
/// assert_eq!(Record::new(None::<&str>, "value").key, None);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The key, if there is one. Empty and absent are not the same.
    pub key: Option<Bytes>,
    /// The value; absent it is a tombstone on a compacted topic.
    pub value: Option<Bytes>,
    /// Names and values, in order; a name may come twice and a value may be null.
    pub headers: Headers,
    /// When the record was made. Kafka keeps milliseconds since the epoch: what is finer is cut off, downwards. A topic with
    /// `message.timestamp.type=LogAppendTime` puts the broker's time in its place.
    ///
    /// On other topics, brokers also reckon by it for how long a writer has been silent. A writer whose last batch has only
    /// records of more than `producer.id.expiration.ms` ago (a day by default) is forgotten the next time they look, every ten
    /// minutes, and an append that is under way then and has to be repeated may be on the log twice. Records of the past
    /// belong into a topic with `LogAppendTime`, their own time in the value or a header.
    pub timestamp: OffsetDateTime,
}

impl Record {
    /// A record of this moment, without headers.
    pub fn new(key: impl IntoPayload, value: impl IntoPayload) -> Self {
        Self {
            key: key.into_payload(),
            value: value.into_payload(),
            headers: Headers::default(),
            timestamp: OffsetDateTime::now_utc(),
        }
    }

    /// The same with one more header at the end.
    #[must_use]
    pub fn header(
        mut self,
        key: impl kwal_protocol::record::IntoHeaderBytes,
        value: impl kwal_protocol::record::IntoHeaderValue,
    ) -> Self {
        self.headers.push(key, value);
        self
    }

    /// The timestamp as it stands on the wire: milliseconds since the epoch, rounded down.
    pub fn timestamp_ms(&self) -> i64 {
        // A date of four or six digits in milliseconds is far inside of an i64.
        i64::try_from(self.timestamp.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX)
    }
}

/// What can be a key or a value: bytes in any of the usual forms, or an [`Option`] of them.
pub trait IntoPayload {
    /// The bytes, or none.
    fn into_payload(self) -> Option<Bytes>;
}

macro_rules! payloads {
    ($($ty:ty),*) => { $(
        impl IntoPayload for $ty {
            fn into_payload(self) -> Option<Bytes> {
                Some(Bytes::from(self))
            }
        }
    )* };
}
payloads!(Bytes, Vec<u8>, String);

impl IntoPayload for &str {
    fn into_payload(self) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(self.as_bytes()))
    }
}

impl IntoPayload for &[u8] {
    fn into_payload(self) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(self))
    }
}

impl<const N: usize> IntoPayload for &[u8; N] {
    fn into_payload(self) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(self))
    }
}

impl<T: IntoPayload> IntoPayload for Option<T> {
    fn into_payload(self) -> Option<Bytes> {
        self.and_then(T::into_payload)
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn timestamps_are_rounded_down_on_both_sides_of_the_epoch() {
        let mut record = Record::new("k", "v");
        for (nanos, ms) in
            [(0, 0), (999_999, 0), (1_000_000, 1), (-1, -1), (-1_000_000, -1), (-1_000_001, -2)]
        {
            record.timestamp = OffsetDateTime::UNIX_EPOCH + Duration::nanoseconds(nanos);
            assert_eq!(record.timestamp_ms(), ms, "{nanos} ns");
        }
    }
}
