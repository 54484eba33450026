use std::iter::FusedIterator;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    headers::{Header, HeaderView, Headers},
    reader::Reader,
};
use crate::error::DecodeErrorKind;

/// A record, borrowed from its batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RecordView<'a> {
    /// The offset in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch, or [`NO_TIMESTAMP`](super::NO_TIMESTAMP).
    ///
    /// That of the batch if the broker set it.
    pub timestamp_ms: i64,
    /// The epoch of the leader that appended its batch; −1 before magic 2, where batches have none.
    pub leader_epoch: i32,
    /// The sequence number, −1 without a producer id.
    pub sequence: i32,
    /// An unused byte; before magic 2, the attributes of the message.
    pub attributes: i8,
    /// The timestamp minus the batch's base, as on the wire; 0 before magic 2.
    pub timestamp_delta: i64,
    /// The offset minus the batch's base, as on the wire; 0 before magic 2.
    pub offset_delta: i32,
    /// The key: null, empty or any bytes.
    pub key: Option<&'a [u8]>,
    /// The value: null (a tombstone in a compacted topic), empty or any bytes.
    pub value: Option<&'a [u8]>,
    pub(super) headers: HeadersIter<'a>,
}

impl<'a> RecordView<'a> {
    /// Returns the headers, in order. They were checked with the record, so there are no errors.
    #[inline]
    pub const fn headers(&self) -> HeadersIter<'a> {
        self.headers
    }

    /// Returns the time as a date; `None` if the record has no timestamp, or it is out of range.
    #[cfg(feature = "time")]
    pub fn timestamp(&self) -> Option<time::OffsetDateTime> {
        timestamp(self.timestamp_ms)
    }

    /// Returns a copy that does not keep the batch in memory.
    ///
    /// It takes one allocation for all bytes, and one for the list of headers.
    pub fn to_detached(&self) -> OwnedRecord {
        let (key_len, value_len) = (self.key.map_or(0, <[u8]>::len), self.value.map_or(0, <[u8]>::len));
        let mut bytes = BytesMut::with_capacity(key_len + value_len + self.headers.bytes.len());
        bytes.put_slice(self.key.unwrap_or_default());
        bytes.put_slice(self.value.unwrap_or_default());
        bytes.put_slice(self.headers.bytes);
        let bytes = bytes.freeze();
        let headers = HeadersIter { left: self.headers.left, bytes: &bytes[key_len + value_len..] };
        OwnedRecord {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            leader_epoch: self.leader_epoch,
            key: self.key.map(|_| bytes.slice(..key_len)),
            value: self.value.map(|_| bytes.slice(key_len..key_len + value_len)),
            headers: headers.to_slices(&bytes),
        }
    }

    /// Returns an owned record whose parts are slices of `bytes`, which this one is a view of:
    /// [`Records::bytes`](super::Records::bytes). Parts that are not in there are copied.
    ///
    /// It allocates nothing but the list of headers, if there are any.
    #[inline]
    pub fn to_slices(&self, bytes: &Bytes) -> OwnedRecord {
        OwnedRecord {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            leader_epoch: self.leader_epoch,
            key: self.key.map(|key| slice(bytes, key)),
            value: self.value.map(|value| slice(bytes, value)),
            headers: self.headers.to_slices(bytes),
        }
    }
}

/// A record that owns its parts.
///
/// Key, value and headers are slices of the buffer of the batch, usually a whole response, and keep it in
/// memory. To keep a few small records for long, use [`into_detached`](Self::into_detached).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnedRecord {
    /// The offset in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch, or [`NO_TIMESTAMP`](super::NO_TIMESTAMP).
    pub timestamp_ms: i64,
    /// The epoch of the leader that appended its batch; −1 before magic 2, where batches have none.
    pub leader_epoch: i32,
    /// The key: null, empty or any bytes.
    pub key: Option<Bytes>,
    /// The value: null (a tombstone in a compacted topic), empty or any bytes.
    pub value: Option<Bytes>,
    /// The headers, in order.
    pub headers: Headers,
}

impl OwnedRecord {
    /// Returns the time as a date; `None` if the record has no timestamp, or it is out of range.
    #[cfg(feature = "time")]
    pub fn timestamp(&self) -> Option<time::OffsetDateTime> {
        timestamp(self.timestamp_ms)
    }

    /// Copies all bytes into a buffer of its own, so that the response is no longer kept in memory.
    pub fn into_detached(self) -> Self {
        let parts = || {
            let headers =
                self.headers.iter().flat_map(|header| [Some(header.key_bytes()), header.value.as_ref()]);
            [self.key.as_ref(), self.value.as_ref()].into_iter().chain(headers)
        };
        let mut bytes = BytesMut::with_capacity(parts().flatten().map(Bytes::len).sum());
        parts().flatten().for_each(|part| bytes.put_slice(part));
        let mut bytes = bytes.freeze();
        let mut take = |part: &Bytes| bytes.split_to(part.len());
        Self {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            leader_epoch: self.leader_epoch,
            key: self.key.as_ref().map(&mut take),
            value: self.value.as_ref().map(&mut take),
            headers: self
                .headers
                .iter()
                .map(|h| (take(h.key_bytes()), h.value.as_ref().map(&mut take)))
                .collect(),
        }
    }
}

/// An iterator over the borrowed headers of a record.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HeadersIter<'a> {
    left: u32,
    /// Contains `left` well-formed headers and nothing else.
    bytes: &'a [u8],
}

impl<'a> HeadersIter<'a> {
    /// Checks `count` headers at the front of `reader` and takes them off.
    #[inline]
    pub(super) fn read(reader: &mut Reader<'a>, count: u32) -> Result<Self, DecodeErrorKind> {
        let bytes = reader.0;
        for _ in 0..count {
            reader.header()?;
        }
        let bytes = &bytes[..bytes.len() - reader.0.len()];
        Ok(Self { left: count, bytes })
    }

    #[inline]
    fn to_slices(self, bytes: &Bytes) -> Headers {
        if self.left == 0 { Headers::new() } else { self.slices(bytes) }
    }

    #[inline(never)]
    fn slices(self, bytes: &Bytes) -> Headers {
        let own = |header: HeaderView<'_>| {
            Header::new(slice(bytes, header.key), header.value.map(|value| slice(bytes, value)))
        };
        self.map(own).collect()
    }
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = HeaderView<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader(self.bytes);
        let header = reader.header().ok();
        self.bytes = reader.0;
        header
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        // Each header takes at least two bytes, so the hint is bounded by the input.
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for HeadersIter<'_> {}
impl FusedIterator for HeadersIter<'_> {}

/// Returns `part` as a slice of `bytes`, or as a copy if it is not in there.
#[inline]
fn slice(bytes: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() {
        return Bytes::new();
    }
    let start = (part.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
    match bytes.len().checked_sub(start) {
        Some(rest) if part.len() <= rest => bytes.slice(start..start + part.len()),
        _ => Bytes::copy_from_slice(part),
    }
}

#[cfg(feature = "time")]
fn timestamp(ms: i64) -> Option<time::OffsetDateTime> {
    if ms == super::header::NO_TIMESTAMP {
        return None;
    }
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()
}

#[cfg(all(test, feature = "time"))]
mod tests {
    use super::{super::header::NO_TIMESTAMP, timestamp};

    #[test]
    fn times_out_of_range_are_not_dates() {
        assert_eq!(timestamp(0), Some(time::OffsetDateTime::UNIX_EPOCH));
        assert_eq!(timestamp(1_700_000_000_123).unwrap().unix_timestamp_nanos(), 1_700_000_000_123_000_000);
        assert_eq!(timestamp(-2).unwrap().unix_timestamp_nanos(), -2_000_000);
        for odd in [NO_TIMESTAMP, i64::MIN, i64::MAX] {
            assert_eq!(timestamp(odd), None, "{odd}");
        }
    }
}
