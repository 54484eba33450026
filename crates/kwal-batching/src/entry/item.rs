//! What a reader returns: entries, and reports of those that are incomplete.

use std::fmt;

use bytes::Bytes;
use kwal_client::{Position, record::AnyRecord};
use kwal_protocol::record::{HeaderView, Headers, OwnedRecord};

use super::header::{EntryId, MalformedFragment};

/// What a [`Reader`](super::Reader) returns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Item {
    /// An entry that is whole.
    Entry(Entry),
    /// An entry that is not, and is never returned.
    Incomplete(Incomplete),
}

/// An entry as it was appended.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// The key: null, empty or any bytes.
    pub key: Option<Bytes>,
    /// The value: null, empty or any bytes.
    ///
    /// That of an entry of one record is a slice of the response that it came in, as a reader of records
    /// returns it. That of a larger one is a buffer of its own.
    pub value: Option<Bytes>,
    /// The headers, in order, without those of the fragments.
    pub headers: Headers,
    /// Milliseconds since the epoch, or [`NO_TIMESTAMP`](kwal_protocol::record::NO_TIMESTAMP). Of the first
    /// record, if there are several.
    pub timestamp_ms: i64,
    /// The offset of its first record.
    pub first: i64,
    /// The offset of its last record: where it is in the order of entries. Records of others may lie between
    /// the two.
    pub last: i64,
    /// How many records it is.
    pub fragments: u32,
    /// Where reading goes on after its last record. To resume, keep the
    /// [checkpoint](super::Reader::checkpoint), which takes unfinished entries into account.
    pub position: Position,
}

impl Entry {
    pub(super) fn of_one(record: OwnedRecord, position: Position) -> Self {
        let OwnedRecord { offset, timestamp_ms, key, value, headers, .. } = record;
        Self { key, value, headers, timestamp_ms, first: offset, last: offset, fragments: 1, position }
    }
}

impl AnyRecord for Entry {
    fn parts(&self) -> (Option<&[u8]>, Option<&[u8]>, impl ExactSizeIterator<Item = HeaderView<'_>>) {
        (self.key.as_deref(), self.value.as_deref(), self.headers.iter().map(HeaderView::from))
    }
}

/// An entry that cannot be returned whole. It is reported once, and what comes of it later is skipped.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Incomplete {
    /// Which entry; `None` if its headers do not say so.
    pub entry: Option<EntryId>,
    /// Why.
    pub reason: Reason,
    /// The offset of the first record of it that was read.
    pub first: i64,
    /// The offset of the last record of it that was read until it was reported.
    pub last: i64,
    /// The length of its value, in bytes, as its headers say.
    pub length: u64,
    /// How many bytes of its value were read.
    pub arrived: u64,
}

/// Why an entry is not whole.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// Its end has not been read. Only [`unfinished`](super::Reader::unfinished),
    /// [`give_up`](super::Reader::give_up), and a reader that a policy moves back return this reason.
    Unfinished,
    /// It never will be finished: its writer began another entry, or is shut out by the barrier of another
    /// [holder](kwal_client::OpenPartition::exclusive) of the log.
    Abandoned,
    /// Its first fragments were not read: retention or `delete_records` removed them, or reading began in the
    /// middle of it.
    CutOff,
    /// It differs from what was appended.
    Corrupt(Corruption),
    /// A record has the header [`kwal.entry`](super::Fragment::ENTRY) and is not a fragment.
    Malformed(MalformedFragment),
    /// It is larger than [`max_entry_bytes`](super::Reader::max_entry_bytes), or than
    /// [`memory`](super::Reader::memory).
    TooLarge,
    /// It was given up, as the oldest one that was unfinished: for [`memory`](super::Reader::memory), for
    /// [`max_unfinished`](super::Reader::max_unfinished) or for [`max_span`](super::Reader::max_span).
    Evicted,
}

/// How an entry differs from what was appended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Corruption {
    /// The CRC-32C is not that of its value.
    Checksum,
    /// The fragments do not have as many bytes as their headers say.
    Length,
    /// The headers of two fragments contradict each other.
    Headers,
    /// A fragment is there twice.
    Duplicate,
    /// A fragment is missing. It may be in a batch that was skipped because it cannot be read.
    Missing,
}

/// The entry, its offsets, and why it is not whole.
impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, reason, first, last, length, arrived } = self;
        match entry {
            Some(entry) => write!(f, "entry {entry}, ")?,
            None => f.write_str("an entry, ")?,
        }
        write!(f, "offsets {first} to {last}, {arrived} of {length} bytes: {reason}")
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished => f.write_str("its end was not read"),
            Self::Abandoned => f.write_str("its writer did not finish it"),
            Self::CutOff => f.write_str("its beginning is not on the log any more, or was not read"),
            Self::Corrupt(corruption) => corruption.fmt(f),
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::TooLarge => f.write_str("it is larger than `max_entry_bytes` or `memory`"),
            Self::Evicted => f.write_str("it was unfinished for too long, or others took its memory"),
        }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checksum => "its checksum is wrong",
            Self::Length => "its length is not what its headers say",
            Self::Headers => "the headers of its fragments contradict each other",
            Self::Duplicate => "one of its fragments is there twice",
            Self::Missing => "one of its fragments is missing",
        })
    }
}
