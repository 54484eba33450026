//! Record batches: what a `records` field of Produce and Fetch holds, and a log segment.
//!
//! A batch (magic 2, KIP-98) is [61 bytes of header](BatchHeader) and a block of records, compressed as a whole or not at all:
//!
//! ```text
//!  baseOffset   batchLength  partitionLeaderEpoch  magic  crc   attributes … count   records
//!  8 bytes      4            4                     1      4     40                   the rest
//!                                                         └──── checksum over ─────────────┘
//! ```
//!
//! * Reading: [`Batches`] finds the batches and compares their checksums, [`Batch::records`] decompresses, [`Records`] gives
//!   [`RecordView`]s that borrow, or [`OwnedRecord`]s that share the buffer. [`BatchHeader::next_offset`] is where to go on,
//!   whatever is in the batch: control batches and those that compaction emptied move the position too.
//! * Writing: [`BatchBuilder`] writes each record once, [`EncodedBatch`] is the result, into which producer id, epoch and
//!   sequence are [stamped](EncodedBatch::stamp) without going over the records again.
//! * What brokers before 0.11 wrote, messages of magic 0 and 1, is read the same way: see [`Batch::magic`].
//! * Transactions: [`CommittedBatches`] leaves out what was aborted, [`Batch::control`] reads the markers.
//! * [`RawBatch`] is a batch with every field laid open, for tools, brokers and tests.

mod batches;
mod builder;
mod control;
pub mod crc;
mod error;
mod header;
mod headers;
#[cfg(feature = "serde")]
mod json;
mod legacy;
mod raw;
mod reader;
mod records;
mod transactions;
mod view;

pub use self::{
    batches::{Batch, Batches},
    builder::{BatchBuilder, EncodedBatch},
    control::{ControlRecord, ControlType, EndTransaction},
    error::{BatchError, BatchErrorKind, BuildError, NotForwardable},
    header::{BatchHeader, NO_TIMESTAMP, TimestampType},
    headers::{Header, HeaderView, Headers, IntoHeaderBytes, IntoHeaderValue},
    raw::{RawBatch, RawRecord},
    records::{OwnedRecords, RecordIter, Records},
    transactions::{AbortedTransactions, CommittedBatches},
    view::{HeadersIter, OwnedRecord, RecordView},
};
pub use crate::compression::Compression;
