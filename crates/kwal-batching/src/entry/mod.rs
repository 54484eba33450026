//! Entries of any size: a [`Writer`] splits what is too large for a batch, a [`Reader`] puts it together.
//!
//! Topics have a limit for a batch, `max.message.bytes`, 1 MiB unless set, and every broker, replica and
//! reader holds a batch in memory as a whole. An entry of 40 MiB is appended in fragments instead:
//! consecutive batches of one record each, of which a reader makes one value again. An entry that fits into a
//! batch is a plain record, byte for byte, as [`produce`](kwal_client::PartitionClient::produce) appends it.
//!
//! ```
//! # kwal_testkit::doctest(9120, async {
//! # use kwal_client::{Client, OffsetAt, record::Record};
//! # let client = Client::connect(["localhost:9120"]).await?;
//! # client.controller_client().await?.create_topic("wal", 1, 1).await?;
//! # let partition = client.partition_client("wal", 0).await?;
//! use kwal_batching::{
//!     entry::{Checkpoint, Item, Reader, Writer},
//!     reader,
//! };
//!
//! let writer = Writer::new(partition.clone());
//! writer.append(Record::new("snapshot", vec![7; 3 << 20])).await?;
//! writer.append(Record::new("change", "+5")).await?;
//!
//! let mut reader = Reader::new(reader::replay(&partition, OffsetAt::Earliest).await?);
//! let mut sizes = Vec::new();
//! while let Some(item) = reader.next().await? {
//!     match item {
//!         Item::Entry(entry) => sizes.push(entry.value.map_or(0, |value| value.len())),
//!         Item::Incomplete(incomplete) => eprintln!("{incomplete}"),
//!         _ => {}
//!     }
//! }
//! assert_eq!(sizes, [3 << 20, 2]);
//! // Entries that other writers are appending just now, or have left unfinished.
//! assert_eq!(reader.unfinished().count(), 0);
//!
//! // Kept with the state, and used by another process.
//! let kept = reader.checkpoint().to_string();
//! writer.append(Record::new("change", "-3")).await?;
//! let kept: Checkpoint = kept.parse()?;
//! let mut resumed = Reader::new(reader::replay(&partition, kept.from).await?).resume(&kept);
//! let Some(Item::Entry(entry)) = resumed.next().await? else { panic!("it has no other") };
//! assert_eq!(entry.value.unwrap(), "-3");
//! // Goes on without an end.
//! let _stream = resumed.follow();
//! # Ok(()) });
//! ```
//!
//! # When to use it
//!
//! | entries | use |
//! | --- | --- |
//! | always fit into a batch | [`produce`](kwal_client::PartitionClient::produce), and the readers of [`reader`](crate::reader) |
//! | seldom do not fit: a snapshot, a large document | this |
//! | are files of gigabytes | a store of blobs, and its addresses on the log |
//!
//! Raising `max.message.bytes` is the other way, up to some MiB. Then each reader of the topic has to allow
//! for it.
//!
//! # What it promises
//!
//! * An entry is returned whole, with the bytes that were appended, once, or not at all. That is verified by
//!   a checksum over all of it.
//! * [`append`](Writer::append) is `Ok` when all fragments are on the log, durable as every append.
//! * After an error, [`outcome`](kwal_client::error::Error::outcome) is that of the entry: *not applied*
//!   means that no reader will ever return it; see [`Append`] for *unknown*. No fragment follows one that
//!   failed.
//! * Nothing is left out silently: each entry that is not whole is reported once, as an [`Incomplete`] with a
//!   [`Reason`], or is among those that are [`unfinished`](Reader::unfinished).
//! * Fragments of one writer do not interleave with each other, those of several writers do. Entries come in
//!   the order of their last records.
//! * A reader [resumes](Reader::resume) at a [`Checkpoint`] without a loss and without a repeat, also in the
//!   middle of entries.
//! * Memory is bounded on both sides: see below.
//!
//! Entries of writers without [producer ids](kwal_client::OpenPartition::idempotent) can be reported twice,
//! since a fragment of theirs may come late. The same is so if other tools copy fragments: one that comes
//! after the last fragment of its entry counts as an entry of its own, which is cut off.
//!
//! # Cancellation
//!
//! A reader's futures are cancel safe. An [`Append`] that is dropped leaves its entry on the log as far as it
//! was submitted: whole, or unfinished for ever.
//!
//! # What is kept in memory
//!
//! A writer encodes few fragments at a time, each when the client's memory budget
//! ([`Limits::memory`](kwal_client::Limits::memory)) has room for it. They are slices of the caller's value,
//! which is copied only into the batches.
//!
//! A reader copies fragments out of their responses as they arrive. It does not believe the length that
//! headers announce: an entry takes at most twice the bytes that have been read of it, and at most its
//! length. All unfinished ones together take at most [`memory`](Reader::memory), and there are at most
//! [`max_unfinished`](Reader::max_unfinished); beyond that, the oldest is given up and reported. This is
//! memory of the caller, and not a part of the client's budget.
//!
//! Reports are remembered for as long as fragments may follow, of the last 1,000 entries.
//!
//! # Exclusive writers
//!
//! The [barrier](kwal_client::record::Barrier) of a new holder ends the entries that earlier holders left
//! unfinished: they are reported as [`Abandoned`](Reason::Abandoned) before it. The barrier itself is
//! returned as an entry, as readers of records return it, and [`Barrier::parse`] recognises it.
//!
//! [`Barrier::parse`]: kwal_client::record::Barrier::parse
//!
//! # Compacted topics
//!
//! Compaction keeps the last record of each key, and would take entries apart. So fragments have no key, and
//! a topic with `cleanup.policy=compact` rejects the first of them: the append fails with INVALID_RECORD, and
//! nothing of it is on the log. Entries that fit into a batch are records like any other.
//!
//! # Format
//!
//! A fragment is a record without a key, in a batch of its own. Its value is a part of the entry's value, its
//! timestamp is that of the entry. Its headers are text, but for the value of `kwal.key`; in this order:
//!
//! | header | value | example |
//! | --- | --- | --- |
//! | [`kwal.entry`](Fragment::ENTRY) | the id of the entry: 16 random bytes of the writer as 32 hexadecimal digits in lower case, a hyphen, and the number of the entry among those that the writer split, in decimal | `00112233445566778899aabbccddeeff-7` |
//! | [`kwal.fragment`](Fragment::FRAGMENT) | the index of the fragment, a slash, and how many there are, at least 2, in decimal | `0/42` |
//! | [`kwal.length`](Fragment::LENGTH) | the length of the entry's value in bytes, in decimal | `41943040` |
//! | [`kwal.crc32c`](Fragment::CRC32C) | the CRC-32C (Castagnoli) of the entry's value, as 8 hexadecimal digits in lower case | `0000beef` |
//! | [`kwal.key`](Fragment::KEY) | only in the first fragment: the key of the entry, or null | |
//!
//! After them, the first fragment has the headers of the entry, and the others have none. Numbers have
//! neither sign nor leading zeros, so headers have one form only. A writer appends the fragments of an entry
//! in the order of their indices, and finishes one entry before it begins the next, which has a greater
//! number.
//!
//! A record that has the header `kwal.entry` and differs from this in anything is reported as
//! [`Malformed`](Reason::Malformed). A [`Writer`] takes no record with that header.

mod assembler;
mod checkpoint;
mod header;
mod item;
mod reader;
mod writer;

pub use self::{
    checkpoint::{Checkpoint, InvalidCheckpoint},
    header::{EntryId, Fragment, InvalidEntryId, MalformedFragment},
    item::{Corruption, Entry, Incomplete, Item, Reason},
    reader::{Reader, Source},
    writer::{Append, Appended, Writer},
};

/// How large the value of an entry may be unless set otherwise, where it is written and where it is read.
const DEFAULT_MAX_ENTRY_BYTES: usize = 128 << 20;
