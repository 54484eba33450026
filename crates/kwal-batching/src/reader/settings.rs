//! How a reader reads, and what it does where it cannot.

use std::time::Duration;

use kwal_client::{Fetch, GetOffset, Isolation, OffsetAt, PartitionClient, Position};

/// Where a reader begins.
///
/// Made from an [`OffsetAt`], a [`Position`] that was kept, if there is one, or an offset.
///
/// ```
/// use kwal_batching::reader::Start;
/// use kwal_client::{OffsetAt, Position};
///
/// assert_eq!(Start::from(17), Start::Position(Position::from(17)));
/// assert_eq!(Start::from(OffsetAt::Earliest), Start::At(OffsetAt::Earliest));
/// assert_eq!(Start::from(None), Start::At(OffsetAt::Earliest));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Start {
    /// At an offset that the leader looks up when the reader is opened. A time after the last record is the
    /// end of the log, and so is the largest timestamp of an empty one. If the first record is deleted before
    /// it was read, [`OffsetAt::Earliest`] is the next one.
    At(OffsetAt),
    /// At a position that was kept, which the first read verifies. A bare offset is not verified; once a
    /// batch has been read, the position of the reader has an epoch, and is.
    Position(Position),
}

impl From<OffsetAt> for Start {
    fn from(at: OffsetAt) -> Self {
        Self::At(at)
    }
}

impl From<Position> for Start {
    fn from(position: Position) -> Self {
        Self::Position(position)
    }
}

impl From<Option<Position>> for Start {
    /// The position that was kept; without one, the start of the log.
    fn from(kept: Option<Position>) -> Self {
        kept.map_or(Self::At(OffsetAt::Earliest), Self::Position)
    }
}

impl From<i64> for Start {
    /// A bare offset: what is there now is read.
    fn from(offset: i64) -> Self {
        Self::Position(Position::from(offset))
    }
}

/// What a reader does if its position is not in the log: before its start, since retention or
/// `delete_records` removed what was there, or beyond its end.
///
/// What it passes by this policy is in its [`Summary`](super::Summary). A position that is known to be of a
/// lost suffix is [`LogTruncated`](kwal_client::error::ErrorKind::LogTruncated) with every policy.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum OutOfRange {
    /// Fails: [`Trimmed`](kwal_client::error::ErrorKind::Trimmed) or
    /// [`BeyondEnd`](kwal_client::error::ErrorKind::BeyondEnd).
    #[default]
    Fail,
    /// Goes on at the first offset of the log.
    FromStart,
    /// Goes on at the end of the log.
    FromEnd,
}

/// What a reader does with a batch that cannot be read: a wrong checksum, malformed records, a codec that is
/// not built in.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Unreadable {
    /// Fails: [`Corrupt`](kwal_client::error::ErrorKind::Corrupt) with the offsets of the batch.
    #[default]
    Fail,
    /// Leaves the whole batch out and goes on after it, if its header says where that is. Each batch is then
    /// decoded once more than otherwise, before it is handed over.
    Skip,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) isolation: Isolation,
    pub(crate) max_bytes: i32,
    pub(crate) max_wait: Duration,
    pub(crate) deadline: Option<Duration>,
    pub(crate) out_of_range: OutOfRange,
    pub(crate) unreadable: Unreadable,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            max_bytes: 1 << 20,
            max_wait: Duration::from_millis(500),
            deadline: None,
            out_of_range: OutOfRange::default(),
            unreadable: Unreadable::default(),
        }
    }
}

impl Settings {
    pub(crate) fn fetch<'a>(&self, partition: &'a PartitionClient, from: Position) -> Fetch<'a> {
        let Self { isolation, max_bytes, max_wait, deadline, .. } = *self;
        let fetch = partition.fetch(from).isolation(isolation).max_bytes(max_bytes).max_wait(max_wait);
        match deadline {
            Some(deadline) => fetch.deadline(deadline),
            None => fetch,
        }
    }

    pub(crate) fn get_offset<'a>(&self, partition: &'a PartitionClient, at: OffsetAt) -> GetOffset<'a> {
        self.get_offset_of(partition, at, self.isolation)
    }

    pub(crate) fn get_offset_of<'a>(
        &self,
        partition: &'a PartitionClient,
        at: OffsetAt,
        isolation: Isolation,
    ) -> GetOffset<'a> {
        let lookup = partition.get_offset(at).isolation(isolation);
        match self.deadline {
            Some(deadline) => lookup.deadline(deadline),
            None => lookup,
        }
    }
}

/// The settings that both builders have.
macro_rules! setters {
    () => {
        /// Sets which records of transactions are read. Default: all of them. With
        /// [`Isolation::ReadCommitted`](kwal_client::Isolation::ReadCommitted), reading ends at the last
        /// stable offset, before which no transaction is open.
        pub fn isolation(mut self, isolation: kwal_client::Isolation) -> Self {
            self.settings.isolation = isolation;
            self
        }

        /// Sets how many bytes one fetch may have: see [`Fetch::max_bytes`](kwal_client::Fetch::max_bytes).
        /// Default 1 MiB. Up to two fetches are in memory: that which is being read, and the next one.
        pub fn max_bytes(mut self, bytes: i32) -> Self {
            self.settings.max_bytes = bytes;
            self
        }

        /// Sets how long the broker lets one fetch wait at the end of the log. Default 500 ms.
        pub fn max_wait(mut self, wait: std::time::Duration) -> Self {
            self.settings.max_wait = wait;
            self
        }

        /// Sets what is done if the position is not in the log. Default: fail.
        pub fn out_of_range(mut self, policy: crate::reader::OutOfRange) -> Self {
            self.settings.out_of_range = policy;
            self
        }

        /// Sets what is done with a batch that cannot be read. Default: fail.
        pub fn unreadable(mut self, policy: crate::reader::Unreadable) -> Self {
            self.settings.unreadable = policy;
            self
        }

        /// Sets the time limit of each request: each fetch, and each lookup. Default:
        /// [`Deadlines::operation`](kwal_client::Deadlines::operation).
        pub fn deadline(mut self, deadline: std::time::Duration) -> Self {
            self.settings.deadline = Some(deadline);
            self
        }
    };
}

pub(crate) use setters;
