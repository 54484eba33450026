//! Records to append, and barriers among those that were read.

mod barrier;

use bytes::Bytes;
use kwal_protocol::record::{Headers, OwnedRecord};
use time::OffsetDateTime;

pub(crate) use self::barrier::transactional_id;
pub use self::barrier::{AnyRecord, Barrier};

/// A record to append.
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
    /// Names and values, in order. Names may repeat and values may be null.
    pub headers: Headers,
    /// When the record was created. Kafka stores whole milliseconds since the epoch, rounded down. A topic
    /// with `message.timestamp.type=LogAppendTime` replaces it with the broker's time.
    ///
    /// A time before 1970 is [rejected](crate::error::ErrorKind::InvalidInput) before anything is sent: Kafka
    /// has no such timestamps, and takes −1 for none.
    ///
    /// Brokers expire idle producer ids by record timestamps. If the newest timestamp of a batch is older
    /// than `producer.id.expiration.ms` (1 day), the producer may be forgotten, and a retry in flight at that
    /// moment may be appended twice. Use `LogAppendTime` for back-dated records and keep the original time in
    /// the value or a header.
    pub timestamp: OffsetDateTime,
}

impl Record {
    /// Creates a record with the current time and without headers.
    pub fn new(key: impl IntoPayload, value: impl IntoPayload) -> Self {
        Self {
            key: key.into_payload(),
            value: value.into_payload(),
            headers: Headers::default(),
            timestamp: OffsetDateTime::now_utc(),
        }
    }

    /// Appends a header.
    #[must_use]
    pub fn header(
        mut self,
        key: impl kwal_protocol::record::IntoHeaderBytes,
        value: impl kwal_protocol::record::IntoHeaderValue,
    ) -> Self {
        self.headers.push(key, value);
        self
    }

    /// Returns the timestamp as it is on the wire: milliseconds since the epoch, rounded down.
    pub fn timestamp_ms(&self) -> i64 {
        // Seconds are rounded down, so the milliseconds are added also before the epoch.
        self.timestamp.unix_timestamp() * 1_000 + i64::from(self.timestamp.millisecond())
    }
}

/// A record that was read, to append it again. Without a timestamp, it gets the current time.
impl From<OwnedRecord> for Record {
    fn from(record: OwnedRecord) -> Self {
        let timestamp = record.timestamp().unwrap_or_else(OffsetDateTime::now_utc);
        let OwnedRecord { key, value, headers, .. } = record;
        Self { key, value, headers, timestamp }
    }
}

/// A key or a value: bytes in any of the usual forms, or an [`Option`] of them.
pub trait IntoPayload {
    /// Converts it to bytes, or none.
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
    fn a_record_that_was_read_can_be_appended_again() {
        let timestamp_ms = 1_700_000_000_123;
        let headers = Headers::from([("a", "b")]);
        let (key, value) = (Some(Bytes::from("k")), None);
        let read = OwnedRecord { offset: 7, timestamp_ms, leader_epoch: 3, key, value, headers };
        let again = Record::from(read.clone());
        assert_eq!((again.timestamp_ms(), &again.key, &again.value), (timestamp_ms, &read.key, &None));
        assert_eq!(again.headers, read.headers);
        let without = Record::from(OwnedRecord { timestamp_ms: -1, ..read });
        assert!(without.timestamp_ms() > timestamp_ms);
    }

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
