//! What happened, in order.

use std::{fmt, ops::Range, time::Duration};

use super::value::{Escaped, Value};

/// The calls of clients, their results, and the final logs.
///
/// A test records it and has it [checked](Self::check).
///
/// One call records one event. Record events in the order in which they happen: appends when they are
/// submitted, outcomes and reads when the caller has them, excuses for losses once they have happened, and
/// the logs last. Times count from any common start; [`Recorder`](super::Recorder) takes them from tokio's
/// clock.
///
/// [`Display`](fmt::Display) writes a history as text, one event per line, and [`FromStr`](std::str::FromStr)
/// reads it, so that programs in any language can have theirs checked:
///
/// ```
/// use kwal_testkit::check::{Expect, History};
///
/// let history: History = "
///     ## seconds, what happened
///     0      writer w0 wal-0 deadline=60
///     0.5    submit a0 w0 hello kafka
///     0.625  acked a0 0
///     1      log wal-0 0 2 @0 hello kafka
/// ".parse()?;
/// assert!(history.check(&Expect::default()).holds());
/// assert_eq!(history.to_string().parse::<History>()?, history);
/// # Ok::<(), kwal_testkit::check::ParseError>(())
/// ```
///
/// | line | [`Event`] |
/// | --- | --- |
/// | `writer w0 wal-0 deadline=60 exclusive=me continue` | [`Writer`](Event::Writer), with its topic and partition; the other words are optional |
/// | `submit a0 w0 x y`, `queue …`, `start …` | [`Submit`](Event::Submit) of records with these values, for each [`SubmitOrder`] |
/// | `acked a0 5`, `not-appended a0`, `unknown a0`, `dropped a0`, `withdrawn a0` | [`AppendOutcome`](Event::Completed), with the base offset for the first |
/// | `fenced w0`, `lost w0`, `barrier w0 5` | [`Fenced`](Event::Fenced), [`Lost`](Event::Lost), [`Barrier`](Event::Barrier) at an offset |
/// | `reader r0 wal-0 5 bare` | [`Reader`](Event::Reader) from an offset; `bare` without leader epochs |
/// | `read r0 8 @5 x y @7 z` | [`Read`](Event::Read): the next offset, then the records, from each `@` on at consecutive offsets |
/// | `read-failed r0 out-of-range`, `read-failed r0 truncated 5`, `read-failed r0 recreated`, `read-failed r0 other` | [`ReadFailure`](Event::ReadFailed) |
/// | `seek r0 5` | [`Seek`](Event::Seek) |
/// | `call c0 10 fetch`, `returned c0` | [`Call`](Event::Call) with its deadline in seconds, [`Returned`](Event::Returned) |
/// | `truncated wal-0 5`, `deleted wal-0 5`, `recreated wal-0` | [`Truncated`](Event::Truncated), [`Deleted`](Event::Deleted), [`Recreated`](Event::Recreated) |
/// | `log wal-0 0 8 empty=2..4 @0 x y @4 z …` | [`Log`](Event::Log): its start and end, the offsets without a record (the end is exclusive), the records |
///
/// The ids of writers, appends, readers and calls are chosen by the recorder. Values are percent-encoded, the
/// empty one is `""`. Empty lines and lines that begin with `#` are skipped.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct History {
    now: Duration,
    events: Vec<(Duration, Event)>,
    /// The next id of a writer, append, reader and call.
    next: [u64; 4],
}

impl History {
    /// Creates an empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time of the events that are recorded next.
    pub fn at(&mut self, now: Duration) -> &mut Self {
        self.now = now;
        self
    }

    /// Returns the events so far, each with its time.
    pub fn events(&self) -> &[(Duration, Event)] {
        &self.events
    }

    /// Records an event.
    pub fn push(&mut self, event: Event) {
        match &event {
            Event::Writer { id, .. } => self.met(0, id.0),
            Event::Submit { append, .. } => self.met(1, append.0),
            Event::Reader { id, .. } => self.met(2, id.0),
            Event::Call { id, .. } => self.met(3, id.0),
            _ => {}
        }
        self.events.push((self.now, event));
    }

    fn met(&mut self, kind: usize, number: u64) {
        self.next[kind] = self.next[kind].max(number.saturating_add(1));
    }

    /// A partition client for appends is opened. `("wal", 0)` suffices without further properties.
    pub fn writer(&mut self, writer: impl Into<Writer>) -> WriterId {
        let id = WriterId(self.next[0]);
        self.push(Event::Writer { id, writer: writer.into() });
        id
    }

    /// Records are submitted as one batch whose place in the order is [fixed](SubmitOrder::Fixed).
    ///
    /// If the client may make it wait for memory first, use [`queue`](Self::queue); if several threads submit
    /// at the same time, use [`start`](Self::start).
    pub fn submit(
        &mut self,
        writer: WriterId,
        records: impl IntoIterator<Item = impl Into<Value>>,
    ) -> AppendId {
        self.append(writer, SubmitOrder::Fixed, records)
    }

    /// Records are to be appended as one batch, which is [queued](SubmitOrder::Queued).
    pub fn queue(
        &mut self,
        writer: WriterId,
        records: impl IntoIterator<Item = impl Into<Value>>,
    ) -> AppendId {
        self.append(writer, SubmitOrder::Queued, records)
    }

    /// An append begins whose place in the order is [open](SubmitOrder::Unordered) until it ends.
    pub fn start(
        &mut self,
        writer: WriterId,
        records: impl IntoIterator<Item = impl Into<Value>>,
    ) -> AppendId {
        self.append(writer, SubmitOrder::Unordered, records)
    }

    fn append(
        &mut self,
        writer: WriterId,
        order: SubmitOrder,
        records: impl IntoIterator<Item = impl Into<Value>>,
    ) -> AppendId {
        let append = AppendId(self.next[1]);
        let records = records.into_iter().map(Into::into).collect();
        self.push(Event::Submit { append, writer, order, records });
        append
    }

    /// The append succeeded: its first record is on the log at this offset.
    pub fn acked(&mut self, append: AppendId, base_offset: i64) {
        self.push(Event::Completed { append, outcome: AppendOutcome::Acked { base_offset } });
    }

    /// The append failed and is not on the log.
    pub fn not_appended(&mut self, append: AppendId) {
        self.push(Event::Completed { append, outcome: AppendOutcome::NotAppended });
    }

    /// The append failed and may be on the log.
    pub fn unknown(&mut self, append: AppendId) {
        self.push(Event::Completed { append, outcome: AppendOutcome::Unknown });
    }

    /// The caller dropped the append; it may be on the log.
    pub fn dropped(&mut self, append: AppendId) {
        self.push(Event::Completed { append, outcome: AppendOutcome::Dropped });
    }

    /// The caller dropped the append before its place was fixed, so it is not on the log.
    pub fn withdrawn(&mut self, append: AppendId) {
        self.push(Event::Completed { append, outcome: AppendOutcome::Withdrawn });
    }

    /// The writer learned that another writer has fenced it.
    pub fn fenced(&mut self, writer: WriterId) {
        self.push(Event::Fenced { writer });
    }

    /// The writer learned that acknowledged records are lost.
    pub fn lost(&mut self, writer: WriterId) {
        self.push(Event::Lost { writer });
    }

    /// The writer is exclusive from here on: its barrier is at this offset.
    pub fn barrier(&mut self, writer: WriterId, offset: i64) {
        self.push(Event::Barrier { writer, offset });
    }

    /// Reading begins. `("wal", 0, 5)` suffices for a reader with leader epochs that starts at offset 5.
    pub fn reader(&mut self, reader: impl Into<Reader>) -> ReaderId {
        let id = ReaderId(self.next[2]);
        self.push(Event::Reader { id, reader: reader.into() });
        id
    }

    /// The reader got records, possibly none, and its position is `next_offset` now.
    pub fn read(
        &mut self,
        reader: ReaderId,
        records: impl IntoIterator<Item = (i64, impl Into<Value>)>,
        next_offset: i64,
    ) {
        let records = records.into_iter().map(|(offset, value)| (offset, value.into())).collect();
        self.push(Event::Read { reader, records, next_offset });
    }

    /// The reader got an error in place of records.
    pub fn read_failed(&mut self, reader: ReaderId, failure: ReadFailure) {
        self.push(Event::ReadFailed { reader, failure });
    }

    /// The caller moves the reader to another offset.
    pub fn seek(&mut self, reader: ReaderId, offset: i64) {
        self.push(Event::Seek { reader, offset });
    }

    /// A call begins that has to return within a deadline. For appends, set the deadline of their [`Writer`].
    pub fn call(&mut self, what: impl Into<Value>, deadline: Duration) -> CallId {
        let id = CallId(self.next[3]);
        self.push(Event::Call { id, what: what.into(), deadline });
        id
    }

    /// A call returned, with any result.
    pub fn returned(&mut self, call: CallId) {
        self.push(Event::Returned { call });
    }

    /// Records from this offset on may be lost, see [`Event::Truncated`].
    pub fn truncated(&mut self, partition: impl Into<TopicPartition>, offset: i64) {
        self.push(Event::Truncated { partition: partition.into(), offset });
    }

    /// The records before this offset were deleted.
    pub fn deleted(&mut self, partition: impl Into<TopicPartition>, before: i64) {
        self.push(Event::Deleted { partition: partition.into(), before });
    }

    /// The topic was deleted and created again.
    pub fn recreated(&mut self, partition: impl Into<TopicPartition>) {
        self.push(Event::Recreated { partition: partition.into() });
    }

    /// The contents of the log of a partition.
    pub fn log(&mut self, log: Log) {
        self.push(Event::Log(log));
    }
}

/// Something that happened.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A partition client for appends was opened.
    Writer {
        /// Its id.
        id: WriterId,
        /// Its properties.
        writer: Writer,
    },
    /// Records were submitted as one batch.
    Submit {
        /// The id of the append.
        append: AppendId,
        /// The writer.
        writer: WriterId,
        /// What is known of its place in the order of the writer's appends.
        order: SubmitOrder,
        /// The records.
        records: Vec<Value>,
    },
    /// An append ended for its caller.
    Completed {
        /// The append.
        append: AppendId,
        /// Its outcome.
        outcome: AppendOutcome,
    },
    /// A writer learned that another writer has fenced it. It appends nothing more.
    Fenced {
        /// The writer.
        writer: WriterId,
    },
    /// A writer learned that acknowledged records are lost. It appends nothing more.
    Lost {
        /// The writer.
        writer: WriterId,
    },
    /// The barrier of an exclusive writer is on the log.
    Barrier {
        /// The writer.
        writer: WriterId,
        /// The offset of the barrier. The record there need not have been submitted.
        offset: i64,
    },
    /// Reading began.
    Reader {
        /// The id of the reader.
        id: ReaderId,
        /// Its properties.
        reader: Reader,
    },
    /// A reader got records.
    Read {
        /// The reader.
        reader: ReaderId,
        /// The records with their offsets.
        records: Vec<(i64, Value)>,
        /// Its position now.
        next_offset: i64,
    },
    /// A reader got an error in place of records.
    ReadFailed {
        /// The reader.
        reader: ReaderId,
        /// The error.
        failure: ReadFailure,
    },
    /// A reader was moved.
    Seek {
        /// The reader.
        reader: ReaderId,
        /// The new offset.
        offset: i64,
    },
    /// A call began, other than an append.
    Call {
        /// Its id.
        id: CallId,
        /// Its name.
        what: Value,
        /// The time within which it has to return.
        deadline: Duration,
    },
    /// A call returned.
    Returned {
        /// The call.
        call: CallId,
    },
    /// A log lost its records from an offset on.
    ///
    /// This happens by an unclean election, or by a clean one with acks = 1. Excuses the loss of records
    /// submitted earlier. Use 0 if the offset is unknown.
    Truncated {
        /// The partition.
        partition: TopicPartition,
        /// The first offset that was lost.
        offset: i64,
    },
    /// Records were deleted by DeleteRecords or retention. Excuses their absence.
    Deleted {
        /// The partition.
        partition: TopicPartition,
        /// The first offset that was kept.
        before: i64,
    },
    /// The topic was deleted and created again. Excuses the loss of records submitted earlier.
    Recreated {
        /// A partition of the topic.
        partition: TopicPartition,
    },
    /// The contents of a log.
    ///
    /// The last one of a partition counts; appends that end after it are not expected in it.
    Log(Log),
}

/// The id of a writer in a history.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WriterId(pub u64);

/// The id of an append in a history.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AppendId(pub u64);

/// The id of a reader in a history.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReaderId(pub u64);

/// The id of a call in a history.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CallId(pub u64);

macro_rules! display_id {
    ($($id:ident $letter:literal),*) => { $(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    )* };
}

display_id!(WriterId "w", AppendId "a", ReaderId "r", CallId "c");

/// A partition of a topic, written as in Kafka: `wal-0`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicPartition {
    /// The name of the topic.
    pub topic: String,
    /// The index of the partition.
    pub partition: i32,
}

impl From<(&str, i32)> for TopicPartition {
    fn from((topic, partition): (&str, i32)) -> Self {
        Self { topic: topic.to_owned(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", Escaped(self.topic.as_bytes()), self.partition)
    }
}

/// A partition client that appends, together with its clones.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Writer {
    /// The partition.
    pub partition: TopicPartition,
    /// The time limit of an append, from its submission; `None` without a limit.
    pub deadline: Option<Duration>,
    /// Its name, if it is exclusive.
    ///
    /// It is the only writer of that name once its [barrier](Event::Barrier) is on the log.
    pub exclusive: Option<Value>,
    /// Whether appends submitted after one that fails may succeed.
    pub on_failure_continue: bool,
}

impl Writer {
    /// Creates a writer without a deadline, not exclusive, whose appends fail if an earlier one fails.
    pub fn new(partition: impl Into<TopicPartition>) -> Self {
        Self { partition: partition.into(), deadline: None, exclusive: None, on_failure_continue: false }
    }

    /// Sets [`deadline`](Self::deadline).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets [`exclusive`](Self::exclusive).
    pub fn exclusive(mut self, name: impl Into<Value>) -> Self {
        self.exclusive = Some(name.into());
        self
    }

    /// Sets [`on_failure_continue`](Self::on_failure_continue).
    pub fn on_failure_continue(mut self) -> Self {
        self.on_failure_continue = true;
        self
    }
}

impl From<(&str, i32)> for Writer {
    fn from(partition: (&str, i32)) -> Self {
        Self::new(partition)
    }
}

/// What a history knows, at submission, of an append's place in the order of its writer's appends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SubmitOrder {
    /// After all appends recorded earlier. If one of those fails from now on, so does this one.
    Fixed,
    /// After all appends recorded earlier, but still waiting for memory.
    ///
    /// It need not fail when one of them fails.
    Queued,
    /// Fixed at some time before it ends, as when several threads submit.
    Unordered,
}

/// How an append ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AppendOutcome {
    /// It is on the log, once.
    Acked {
        /// The offset of its first record.
        base_offset: i64,
    },
    /// It is not on the log, and never will be.
    NotAppended,
    /// It is on the log, in order and at most once, or it is not.
    Unknown,
    /// The caller dropped it: as [`Unknown`](Self::Unknown).
    Dropped,
    /// The caller dropped it before its place was fixed.
    ///
    /// It is not on the log, and no other append fails with it.
    Withdrawn,
}

/// A reader of a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Reader {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset where it starts.
    pub offset: i64,
    /// Whether it fetches by offset alone.
    ///
    /// Otherwise it knows the leader epoch of its position and learns of truncations.
    pub without_epoch: bool,
}

impl Reader {
    /// Creates a reader that starts at an offset and knows the leader epoch of its position.
    pub fn new(partition: impl Into<TopicPartition>, offset: i64) -> Self {
        Self { partition: partition.into(), offset, without_epoch: false }
    }

    /// Sets [`without_epoch`](Self::without_epoch).
    pub fn without_epoch(mut self) -> Self {
        self.without_epoch = true;
        self
    }
}

impl From<(&str, i32, i64)> for Reader {
    fn from((topic, partition, offset): (&str, i32, i64)) -> Self {
        Self::new((topic, partition), offset)
    }
}

/// The error that a reader got in place of records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReadFailure {
    /// Its position is before the log start offset or after the log end offset.
    OutOfRange,
    /// The log has been truncated: from an offset on, the records are not those that the reader saw.
    ///
    /// It continues there.
    Truncated {
        /// The offset.
        diverged_at: i64,
    },
    /// The topic was created again.
    Recreated,
    /// Any other error; the position stays.
    Other,
}

/// The contents of the log of a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Log {
    /// The partition.
    pub partition: TopicPartition,
    /// From the log start offset to the log end offset.
    pub offsets: Range<i64>,
    /// Offsets that rightly hold no record, in order.
    pub empty: Vec<Range<i64>>,
    /// The records, in order.
    pub records: Vec<(i64, Value)>,
}

impl Log {
    /// Creates a log from the log start offset and the log end offset, and the records with their offsets.
    pub fn new(
        partition: impl Into<TopicPartition>,
        offsets: Range<i64>,
        records: impl IntoIterator<Item = (i64, impl Into<Value>)>,
    ) -> Self {
        let records = records.into_iter().map(|(offset, value)| (offset, value.into())).collect();
        Self { partition: partition.into(), offsets, empty: Vec::new(), records }
    }

    /// Adds offsets that rightly hold no record, because of control batches or compaction. Add them in order.
    pub fn empty(mut self, offsets: Range<i64>) -> Self {
        self.empty.push(offsets);
        self
    }
}
