//! Record batches: the content of a `records` field of Produce and Fetch, and of a log segment.
//!
//! A batch (magic 2, KIP-98) is [61 bytes of header](BatchHeader) and a section of records, which is
//! compressed as a whole:
//!
//! ```text
//!  baseOffset   batchLength  partitionLeaderEpoch  magic  crc   attributes … count   records
//!  8 bytes      4            4                     1      4     40                   the rest
//!                                                         └──── checksum over ─────────────┘
//! ```
//!
//! * Reading: [`Batches`] finds the batches and verifies their checksums, [`Batch::records`] decompresses,
//!   and [`Records`] yields borrowed [`RecordView`]s or [`OwnedRecord`]s that share the buffer.
//!   [`BatchHeader::next_offset`] is the offset at which to continue; control batches and batches emptied by
//!   compaction advance it too.
//! * Writing: [`BatchBuilder`] encodes each record once. The result is an [`EncodedBatch`], which is
//!   [stamped](EncodedBatch::stamp) with producer id, epoch and sequence number without reading the records
//!   again.
//! * Messages of magic 0 and 1, from brokers before 0.11, are read the same way: see [`Batch::magic`].
//! * Transactions: [`CommittedBatches`] filters aborted records out, [`Batch::control`] decodes the markers.
//! * [`RawBatch`] is a batch with all fields public, for tools, brokers and tests.

mod batches;
mod builder;
mod control;
pub mod crc;
mod encoded;
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
    builder::{BatchBuilder, Checkpoint},
    control::{ControlRecord, ControlType, EndTransaction},
    encoded::EncodedBatch,
    error::{BatchError, BatchErrorKind, BuildError, NotForwardable},
    header::{BatchHeader, NO_TIMESTAMP, TimestampType},
    headers::{Header, HeaderView, Headers, IntoHeaderBytes, IntoHeaderValue},
    raw::{RawBatch, RawRecord},
    records::{OwnedRecords, RecordCursor, RecordIter, Records},
    transactions::{AbortedTransactions, CommittedBatches},
    view::{HeadersIter, OwnedRecord, RecordView},
};
pub use crate::compression::Compression;
