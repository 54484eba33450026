//! How large a record is at most, before it is encoded.

use bytes::Bytes;
use kwal_client::record::Record;
use kwal_protocol::record::BatchHeader;

/// The size of the header of a batch (`record_set` of Kafka's message format, version 2).
pub(crate) const BATCH: usize = BatchHeader::LEN;
/// Length, attributes, timestamp delta, offset delta, lengths of key and value, number of headers; most as
/// varints.
pub(crate) const RECORD: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
/// The lengths of name and value of a header, as varints.
pub(crate) const HEADER: usize = 10;

/// Returns how many bytes a record takes at most.
#[inline]
pub(crate) fn at_most(record: &Record) -> usize {
    let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter().map(|header| HEADER + header.key_bytes().len() + len(&header.value));
    RECORD + len(&record.key) + len(&record.value) + headers.sum::<usize>()
}
