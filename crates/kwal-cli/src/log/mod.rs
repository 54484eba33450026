//! A log batch by batch, and what is doubtful about it.

mod check;
mod content;
mod partition;
mod segment;

use std::ops::Range;

use kwal::record::{Batch, BatchHeader};

pub(crate) use self::{
    check::{Checker, Doubt, Noted, is_of_other},
    content::{Content, Kind, is_fence},
    partition::PartitionLog,
    segment::SegmentFile,
};

/// What comes next on a log.
#[derive(Debug)]
pub(crate) enum Item {
    /// A batch with a valid checksum, and its position in a file.
    Batch { batch: Batch, position: Option<u64> },
    /// A batch that cannot be read, as far as it is known.
    Unreadable(Unreadable),
    /// The end of a file, which is no whole batch.
    Torn { position: u64, bytes: u64 },
}

/// A batch that cannot be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// The offsets that it covers, as far as its header can be believed.
    pub(crate) offsets: Option<Range<i64>>,
    /// Its header, if it is known.
    pub(crate) header: Option<BatchHeader>,
    /// Its position in a file.
    pub(crate) position: Option<u64>,
    /// What is wrong with it.
    pub(crate) problem: String,
}
