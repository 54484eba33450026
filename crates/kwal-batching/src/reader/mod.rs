//! Readers of a partition: [`replay()`] reads it from somewhere to its end, [`follow`] reads on without one.
//!
//! # Which one
//!
//! | to | use |
//! | --- | --- |
//! | recover a state, count, copy, check: read what is there, and end | [`replay()`] |
//! | keep a state up to date | [`follow`], or [`Replay::follow`] after the recovery |
//! | recover as the holder of an exclusive log | [`replay()`] with [`end`](OpenReplay::end) at the barrier |
//! | look at one place, answer a query, read in an order of one's own | [`fetch`](kwal_client::PartitionClient::fetch) |
//!
//! Each is read in three ways: `next_batch` returns batches whose records are decoded on demand;
//! `for_each_batch` borrows them and allocates nothing per record, which is the fastest; as a
//! [`Stream`](futures_core::Stream) of owned records they are the most convenient.
//!
//! # What they promise
//!
//! * Records come in offset order, once each. The position moves by the headers of batches, so that markers
//!   of transactions and what compaction emptied never stop a reader.
//! * The end of a replay is what the leader reports when it is opened, or the caller's. A replay ends, also
//!   if the last offsets have no records; if the log is deleted or truncated under it, it fails.
//! * What was read is verified: if the log lost it, as in an unclean election, that is
//!   [`LogTruncated`](kwal_client::error::ErrorKind::LogTruncated) with the first offset that differs; if the
//!   topic was deleted and created again, [`TopicRecreated`](kwal_client::error::ErrorKind::TopicRecreated).
//!   What was fetched before that happened is handed over first: it was on that log. A
//!   [`Position`](kwal_client::Position) that was kept is verified by another process as well.
//! * Nothing is moved or left out silently. [`OutOfRange`] and [`Unreadable`] are policies that the caller
//!   states, and a [`Summary`] accounts for every offset.
//! * One fetch is ahead: it is sent before the last one is decoded, so that the next batch is there when it
//!   is wanted. None of it is handed over after an error.
//!
//! # Errors
//!
//! One that [is retriable](kwal_client::error::Error::is_retriable) comes after the deadline of a request, at
//! most two of them if a fetch was ahead. It loses nothing: the next call goes on where reading is. A stream
//! at the end of the log repeats its long polls without a limit, and that is no error. Any other error is
//! kept: every further call returns it, and a stream of records ends after it. Only after
//! [`Corrupt`](kwal_client::error::ErrorKind::Corrupt) can the same reader go on, by `skip_unreadable`. In
//! every other case the caller decides where another reader begins.
//!
//! ```
//! use kwal_batching::reader::{self, RecordStream};
//! use kwal_client::{PartitionClient, Position, error::{Error, ErrorKind}};
//!
//! /// Goes back to a snapshot of the state after records were lost that the state has. `snapshots` are the
//! /// positions of those that are kept, the oldest first.
//! async fn go_back(
//!     wal: &PartitionClient,
//!     error: Error,
//!     snapshots: &[Position],
//! ) -> Result<(Position, RecordStream), Error> {
//!     let ErrorKind::LogTruncated { diverged_at, .. } = *error.kind() else { return Err(error) };
//!     // The newest one without anything of what was lost. Its position is verified again.
//!     let kept = snapshots.iter().rfind(|kept| kept.offset <= diverged_at);
//!     let kept = *kept.ok_or(error)?;
//!     Ok((kept, reader::follow(wal, kept).await?))
//! }
//! ```
//!
//! # Cancellation
//!
//! Every future here is cancel safe: it can be dropped at any await, as in `select!` or by a timeout. A batch
//! or a record is either handed over or kept for the next call, and the fetch that was waited for goes on.
//! Until the reader is used again or dropped, its fetch keeps its part of the memory budget: drop a reader
//! that is given up.
//!
//! # What is kept in memory
//!
//! A reader holds up to two fetches of [`max_bytes`](OpenStream::max_bytes), 1 MiB by default: that which is
//! being read, and the next one. Until they are handed to the reader they count against the memory budget of
//! the client ([`Limits::memory`](kwal_client::Limits::memory)); if that has no room, nothing is fetched
//! ahead.
//!
//! Records are slices of the response of their fetch; those of a compressed batch, of its decompressed bytes.
//! So *one record that is kept keeps the whole response*, up to 1 MiB for a value of a few bytes.
//! [`into_detached`](kwal_protocol::record::OwnedRecord::into_detached) copies a record out of it:
//!
//! ```
//! # kwal_testkit::doctest(9103, async {
//! # use kwal_client::{Client, OffsetAt, record::Record};
//! # let client = Client::connect(["localhost:9103"]).await?;
//! # client.controller_client().await?.create_topic("wal", 1, 1).await?;
//! # let partition = client.partition_client("wal", 0).await?;
//! # for value in ["a", "b", "c"] {
//! #     partition.produce(vec![Record::new("key", value)]).await?;
//! # }
//! use futures::StreamExt;
//! use kwal_batching::reader;
//!
//! let mut latest = None;
//! let mut replay = reader::replay(&partition, OffsetAt::Earliest).await?;
//! while let Some(record) = replay.next().await {
//!     let record = record?;
//!     if record.key.as_deref() == Some(b"key") {
//!         // For as long as the process lives: without the response that it came in.
//!         latest = Some(record.into_detached());
//!     }
//! }
//! assert_eq!(latest.unwrap().offset, 2);
//! # Ok(()) });
//! ```
//!
//! # Progress
//!
//! ```
//! # kwal_testkit::doctest(9104, async {
//! # use kwal_client::{Client, OffsetAt, record::Record};
//! # let client = Client::connect(["localhost:9104"]).await?;
//! # client.controller_client().await?.create_topic("wal", 1, 1).await?;
//! # let partition = client.partition_client("wal", 0).await?;
//! # for value in ["a", "b", "c", "d"] {
//! #     partition.produce(vec![Record::new(None::<&str>, value)]).await?;
//! # }
//! use kwal_batching::reader;
//!
//! let mut replay = reader::replay(&partition, OffsetAt::Earliest).end(3).await?;
//! let first = replay.progress().position;
//! let mut shown = Vec::new();
//! while let Some(batch) = replay.next_batch().await? {
//!     batch.for_each(|record| drop(record))?;
//!     let progress = replay.progress();
//!     shown.push(100 * (progress.position - first) / (progress.end - first));
//! }
//! assert_eq!(shown, [33, 66, 100]);
//! # Ok(()) });
//! ```

mod cursor;
mod driver;
mod epochs;
mod open;
mod replay;
mod round;
mod settings;
mod stream;
mod summary;

pub use self::{
    replay::{OpenReplay, Replay, replay},
    settings::{OutOfRange, Start, Unreadable},
    stream::{OpenStream, RecordStream, follow},
    summary::{Progress, Summary, WithoutRecords},
};
