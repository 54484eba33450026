//! How inputs become records of the open batch.

use std::{error::Error as StdError, ops::Range};

use kwal_client::{PartitionClient, error::Error, record::Record};
use kwal_protocol::record::{BatchBuilder, BuildError, Checkpoint, Headers};
use time::OffsetDateTime;

use crate::size::{BATCH, RECORD, at_most};

/// Turns inputs into records: one each, more, or several inputs packed into one.
///
/// It runs where an input is handed over, in the order in which the inputs are accepted, and while nothing
/// else can be accepted: it is to be short, and must not block or call the producer. What it shares between
/// inputs is in the batch, so that an input that fails, or that panics, is undone without a trace: the others
/// of the batch are not affected.
///
/// ```
/// # kwal_testkit::doctest(9106, async {
/// # use kwal_client::{Client, OffsetAt};
/// # let client = Client::connect(["localhost:9106"]).await?;
/// # client.controller_client().await?.create_topic("wal", 1, 1).await?;
/// # let partition = client.partition_client("wal", 0).await?;
/// use std::error::Error;
///
/// use kwal_batching::producer::{Aggregator, BatchProducer, Sink};
///
/// /// Lines, as many as come together in one record of some KiB. The tag of each is where it begins in it.
/// struct Lines;
///
/// impl Aggregator for Lines {
///     type Input = str;
///     type Tag = usize;
///
///     fn size_hint(&self, line: &str) -> usize {
///         line.len() + 1
///     }
///
///     fn add(&self, line: &str, sink: &mut Sink<'_>) -> Result<usize, Box<dyn Error + Send + Sync>> {
///         if line.contains('\n') {
///             return Err("that is more than one line".into());
///         }
///         let packed = sink.packed();
///         let begin = packed.len();
///         packed.extend_from_slice(line.as_bytes());
///         packed.push(b'\n');
///         if packed.len() >= 16 << 10 {
///             sink.end_packed(); // otherwise it grows with the batch, up to its `max_bytes`
///         }
///         Ok(begin)
///     }
/// }
///
/// let lines = BatchProducer::builder(partition).aggregator(Lines).build();
/// let produce = |line: &'static str| lines.produce(line);
/// let (first, second, third) = tokio::join!(produce("a"), produce("b"), produce("c"));
/// // The log was idle, so the first one did not wait for others.
/// let (first, second, third) = (first?, second?, third?);
/// assert_eq!((first.offset, first.tag), (Some(0), 0));
/// assert_eq!((second.offset, second.tag, third.offset, third.tag), (Some(1), 0, Some(1), 2));
/// assert!(lines.produce("a\nb").await.is_err());
/// # Ok(()) });
/// ```
pub trait Aggregator: Send + Sync + 'static {
    /// What is handed over.
    type Input: ?Sized;
    /// What an input needs besides its offset to be found again, as its index in a record; `()` if nothing.
    type Tag: Send;

    /// Returns about how many bytes of records the input becomes. Memory is reserved for so many before it is
    /// added; what it exceeds them by is taken as a debt. An input that becomes more than twice
    /// [`max_input_bytes`](super::BatchProducerBuilder::max_input_bytes) by it is not added at all.
    fn size_hint(&self, input: &Self::Input) -> usize;

    /// Adds an input to the open batch: at least one record, or a part of the one that is being packed.
    ///
    /// It may be called again for the same input: if that did not fit any more, the call is undone, and made
    /// for the next batch.
    ///
    /// # Errors
    /// The input is not accepted, and its caller gets the error: as it is if it is an [`Error`] of the
    /// client, otherwise its text in an [`InvalidInput`](kwal_client::error::ErrorKind::InvalidInput).
    fn add(
        &self,
        input: &Self::Input,
        sink: &mut Sink<'_>,
    ) -> Result<Self::Tag, Box<dyn StdError + Send + Sync>>;
}

/// Records as they are: the input is a [`Record`], and becomes one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Records;

impl Aggregator for Records {
    type Input = Record;
    type Tag = ();

    #[inline]
    fn size_hint(&self, record: &Record) -> usize {
        at_most(record)
    }

    #[inline]
    fn add(&self, record: &Record, sink: &mut Sink<'_>) -> Result<(), Box<dyn StdError + Send + Sync>> {
        Ok(sink.push(record)?)
    }
}

/// The records of a batch, and the one that is being packed.
#[derive(Debug)]
pub(super) struct Contents {
    builder: BatchBuilder,
    packed: Option<Packed>,
}

/// The value of a record that several inputs may be part of.
#[derive(Debug)]
struct Packed {
    timestamp_ms: i64,
    value: Vec<u8>,
}

impl Contents {
    pub(super) fn new(builder: BatchBuilder) -> Self {
        Self { builder, packed: None }
    }

    /// Returns the size of the uncompressed batch so far: at most, if a record is being packed.
    pub(super) fn size(&self) -> usize {
        let packed = self.packed.as_ref().map_or(0, |packed| RECORD + packed.value.len());
        self.builder.size_in_bytes() + packed
    }

    /// Returns the size of the records so far, without what the one that is being packed has besides its
    /// value: the next input needs that itself if it goes alone.
    pub(super) fn size_of_records(&self) -> usize {
        let packed = self.packed.as_ref().map_or(0, |packed| packed.value.len());
        self.builder.size_in_bytes() - BATCH + packed
    }

    /// Returns the number of records, with the one that is being packed.
    pub(super) fn len(&self) -> usize {
        self.builder.len() + usize::from(self.packed.is_some())
    }

    /// Whether a record is being packed.
    pub(super) fn is_packing(&self) -> bool {
        self.packed.is_some()
    }

    pub(super) fn reserve(&mut self, bytes: usize) {
        self.builder.reserve(bytes);
    }

    /// Adds an input. If that fails, panics, or `fits` says that the batch is too large then, it is undone.
    /// Returns which records the input is in.
    pub(super) fn add<T>(
        &mut self,
        partition: &PartitionClient,
        add: impl FnOnce(&mut Sink<'_>) -> Result<T, Box<dyn StdError + Send + Sync>>,
        fits: impl FnOnce(&Self) -> bool,
    ) -> Result<Added<T>, Box<dyn StdError + Send + Sync>> {
        let packed = self.packed.as_ref().map(|packed| packed.value.len());
        let checkpoint = self.builder.checkpoint();
        let undo = Undo { contents: self, checkpoint, packed, ended: None, is_armed: true };
        let mut sink = Sink { undo, partition, records: None, failed: None };
        let tag = add(&mut sink)?;
        let Sink { mut undo, records, failed, .. } = sink;
        // Whether the aggregator has passed it on or not.
        if let Some(error) = failed {
            return Err(error.into());
        }
        let records = records.ok_or("the aggregator made no record of it")?;
        if !fits(undo.contents) {
            return Ok(Added::Full);
        }
        undo.is_armed = false;
        Ok(Added::Here { records: to_u32(records.start)..to_u32(records.end), tag })
    }

    /// Returns the batch, with the record that was being packed.
    pub(super) fn into_builder(mut self) -> BatchBuilder {
        self.end_packed();
        self.builder
    }

    /// Returns the value that was completed.
    fn end_packed(&mut self) -> Option<Packed> {
        let packed = self.packed.take()?;
        self.builder.push(packed.timestamp_ms, None, Some(&packed.value), &Headers::new());
        Some(packed)
    }
}

/// A batch has at most `i32::MAX` records.
fn to_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// What became of an input.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Added<T> {
    /// It is in these records of the batch.
    Here { records: Range<u32>, tag: T },
    /// It does not fit, and is not in the batch.
    Full,
}

/// Undoes what an input added, unless it is disarmed.
#[derive(Debug)]
struct Undo<'a> {
    contents: &'a mut Contents,
    checkpoint: Checkpoint,
    /// The length of the value that was being packed before.
    packed: Option<usize>,
    /// That value, if it was completed since.
    ended: Option<Packed>,
    is_armed: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.is_armed {
            return;
        }
        let Self { contents, checkpoint, packed, ended, .. } = self;
        contents.builder.rollback(*checkpoint);
        let before = ended.take().or_else(|| contents.packed.take());
        contents.packed = packed.and_then(|len| {
            let mut before = before?;
            before.value.truncate(len);
            Some(before)
        });
    }
}

/// The open batch, for the records of one input.
#[derive(Debug)]
pub struct Sink<'a> {
    undo: Undo<'a>,
    partition: &'a PartitionClient,
    /// The records that the input is in.
    records: Option<Range<usize>>,
    /// Why it cannot be accepted.
    failed: Option<Error>,
}

impl Sink<'_> {
    /// Adds a record. A record that is being packed is completed first.
    ///
    /// # Errors
    /// If no broker takes it: its timestamp is before 1970, or no batch could hold it. The input cannot go on
    /// with other records: it is not accepted.
    #[inline]
    pub fn push(&mut self, record: &Record) -> Result<(), Error> {
        let timestamp_ms = record.timestamp_ms();
        if timestamp_ms < 0 {
            let checked = self.partition.check_record(record);
            return checked.map_err(|error| self.fail(error));
        }
        if self.undo.contents.packed.is_some() {
            self.end_packed();
        }
        let builder = &mut self.undo.contents.builder;
        let index = builder.len();
        builder.push_shared(timestamp_ms, record.key.as_deref(), record.value.as_ref(), &record.headers);
        if builder.len() == index {
            return Err(self.too_large());
        }
        self.note(index);
        Ok(())
    }

    /// Notes that the input cannot be accepted, whatever else it adds.
    #[cold]
    fn fail(&mut self, error: Error) -> Error {
        self.failed.get_or_insert(error).clone()
    }

    #[cold]
    fn too_large(&mut self) -> Error {
        self.fail(self.partition.invalid_append(BuildError::TooLarge.to_string()))
    }

    /// Returns the value of the record that is being packed, to append to it; it begins one if there is none.
    /// Inputs accepted later go on with the same record, until one of them completes it, or the batch is
    /// closed. The record has neither key nor headers, and the time at which it was begun.
    ///
    /// What earlier inputs wrote is there to be read. Change nothing of it: that is not undone if this input
    /// fails.
    pub fn packed(&mut self) -> &mut Vec<u8> {
        let index = self.undo.contents.builder.len();
        self.note(index);
        let begin = || {
            let now = OffsetDateTime::now_utc();
            let timestamp_ms = now.unix_timestamp() * 1_000 + i64::from(now.millisecond());
            // Kafka has no such timestamps.
            Packed { timestamp_ms: timestamp_ms.max(0), value: Vec::new() }
        };
        &mut self.undo.contents.packed.get_or_insert_with(begin).value
    }

    /// Completes the record that is being packed, if there is one: the next input begins another.
    pub fn end_packed(&mut self) {
        let index = self.undo.contents.len();
        let ended = self.undo.contents.end_packed();
        if self.undo.contents.len() < index {
            drop(self.too_large());
        }
        // The one from before comes first. Those that this input began itself need not come back.
        if self.undo.packed.is_some() && self.undo.ended.is_none() {
            self.undo.ended = ended;
        }
    }

    /// Returns the size of the uncompressed batch so far, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.undo.contents.size()
    }

    /// Notes that the input is in a record.
    #[inline]
    fn note(&mut self, index: usize) {
        let first = self.records.as_ref().map_or(index, |records| records.start);
        self.records = Some(first..index + 1);
    }
}

#[cfg(test)]
mod tests;
