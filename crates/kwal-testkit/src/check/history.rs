//! What happened, in the order in which it happened.

use std::{fmt, ops::Range, time::Duration};

use super::value::{Escaped, Value};

/// What clients called and were told, and what lay on the logs in the end: what a test records, to have it
/// [checked](Self::check).
///
/// One call records one event. Events are recorded in the order in which they happen: appends when they are submitted,
/// outcomes and reads when the caller has them, what excuses a loss once it has happened, and the logs last. Times are counted
/// from any start, the same for all; [`Recorder`](super::Recorder) takes them from tokio's clock.
///
/// [`Display`](fmt::Display) writes a history as text, one event a line, and [`FromStr`](std::str::FromStr) reads it, so that
/// programs in any language can have theirs checked:
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
/// | `writer w0 wal-0 deadline=60 exclusive=me continue` | [`Writer`](Event::Writer), with its topic and partition; the last three if it has them |
/// | `submit a0 w0 x y`, `queue …`, `start …` | [`Submit`](Event::Submit) of records with these identities, for each [`SubmitOrder`] |
/// | `acked a0 5`, `not-appended a0`, `unknown a0`, `dropped a0`, `withdrawn a0` | [`AppendOutcome`](Event::Completed), with the base offset for the first |
/// | `fenced w0`, `lost w0`, `barrier w0 5` | [`Fenced`](Event::Fenced), [`Lost`](Event::Lost), [`Barrier`](Event::Barrier) at an offset |
/// | `reader r0 wal-0 5 bare` | [`Reader`](Event::Reader) from an offset; the last word if it has no leader epoch |
/// | `read r0 8 @5 x y @7 z` | [`Read`](Event::Read): the next offset, then the records, from each `@` on at consecutive offsets |
/// | `read-failed r0 out-of-range`, `read-failed r0 truncated 5`, `read-failed r0 recreated`, `read-failed r0 other` | [`ReadFailure`](Event::ReadFailed) |
/// | `seek r0 5` | [`Seek`](Event::Seek) |
/// | `call c0 10 fetch`, `returned c0` | [`Call`](Event::Call) with its deadline in seconds, [`Returned`](Event::Returned) |
/// | `truncated wal-0 5`, `deleted wal-0 5`, `recreated wal-0` | [`Truncated`](Event::Truncated), [`Deleted`](Event::Deleted), [`Recreated`](Event::Recreated) |
/// | `log wal-0 0 8 empty=2..4 @0 x y @4 z …` | [`Log`](Event::Log): its start and end, the offsets without a record (from the first up to the one behind the last), the records |
///
/// Numbers of writers, appends, readers and calls are the recorder's choice. Values are written as in a URL, the empty one as
/// `""`. Empty lines and those that begin with `#` are passed over.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct History {
    now: Duration,
    events: Vec<(Duration, Event)>,
    /// The number that the next writer, append, reader and call get.
    next: [u64; 4],
}

impl History {
    /// Nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time of what is recorded next.
    pub fn at(&mut self, now: Duration) -> &mut Self {
        self.now = now;
        self
    }

    /// What happened so far, each with its time.
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

    /// A partition client for appends is opened. `("wal", 0)` will do if it has nothing particular.
    pub fn writer(&mut self, writer: impl Into<Writer>) -> WriterId {
        let id = WriterId(self.next[0]);
        self.push(Event::Writer { id, writer: writer.into() });
        id
    }

    /// Records are submitted as one batch: their place is [fixed](SubmitOrder::Fixed). If the client may have it wait for room
    /// first, it is [`queue`](Self::queue); if several tasks on several threads call it, [`start`](Self::start).
    pub fn submit(
        &mut self,
        writer: WriterId,
        records: impl IntoIterator<Item = impl Into<Value>>,
    ) -> AppendId {
        self.append(writer, SubmitOrder::Fixed, records)
    }

    /// Records are to be appended as one batch, when it is their [turn](SubmitOrder::Queued).
    pub fn queue(
        &mut self,
        writer: WriterId,
        records: impl IntoIterator<Item = impl Into<Value>>,
    ) -> AppendId {
        self.append(writer, SubmitOrder::Queued, records)
    }

    /// An append begins whose place is [open](SubmitOrder::Unordered) until it ends.
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

    /// The append is on the log, its first record at this offset.
    pub fn acked(&mut self, append: AppendId, base_offset: i64) {
        self.push(Event::Completed { append, outcome: AppendOutcome::Acked { base_offset } });
    }

    /// The append failed, and is not on the log.
    pub fn not_appended(&mut self, append: AppendId) {
        self.push(Event::Completed { append, outcome: AppendOutcome::NotAppended });
    }

    /// The append failed, and may be on the log.
    pub fn unknown(&mut self, append: AppendId) {
        self.push(Event::Completed { append, outcome: AppendOutcome::Unknown });
    }

    /// The caller gave the append up; it may be on the log.
    pub fn dropped(&mut self, append: AppendId) {
        self.push(Event::Completed { append, outcome: AppendOutcome::Dropped });
    }

    /// The caller gave the append up before its place was fixed, so it is not on the log.
    pub fn withdrawn(&mut self, append: AppendId) {
        self.push(Event::Completed { append, outcome: AppendOutcome::Withdrawn });
    }

    /// The writer was told that another one has taken its place.
    pub fn fenced(&mut self, writer: WriterId) {
        self.push(Event::Fenced { writer });
    }

    /// The writer was told that acknowledged records are lost.
    pub fn lost(&mut self, writer: WriterId) {
        self.push(Event::Lost { writer });
    }

    /// The writer is the only one from here on: its barrier lies at this offset.
    pub fn barrier(&mut self, writer: WriterId, offset: i64) {
        self.push(Event::Barrier { writer, offset });
    }

    /// Reading begins. `("wal", 0, 5)` will do for a position with its leader epoch, from offset 5 on.
    pub fn reader(&mut self, reader: impl Into<Reader>) -> ReaderId {
        let id = ReaderId(self.next[2]);
        self.push(Event::Reader { id, reader: reader.into() });
        id
    }

    /// The reader got records, if only none, and stands at `next_offset` now.
    pub fn read(
        &mut self,
        reader: ReaderId,
        records: impl IntoIterator<Item = (i64, impl Into<Value>)>,
        next_offset: i64,
    ) {
        let records = records.into_iter().map(|(offset, value)| (offset, value.into())).collect();
        self.push(Event::Read { reader, records, next_offset });
    }

    /// The reader was told something instead of getting records.
    pub fn read_failed(&mut self, reader: ReaderId, failure: ReadFailure) {
        self.push(Event::ReadFailed { reader, failure });
    }

    /// The caller has the reader go on at another offset.
    pub fn seek(&mut self, reader: ReaderId, offset: i64) {
        self.push(Event::Seek { reader, offset });
    }

    /// Something is called that has to return within a deadline. Appends have that of their [`Writer`].
    pub fn call(&mut self, what: impl Into<Value>, deadline: Duration) -> CallId {
        let id = CallId(self.next[3]);
        self.push(Event::Call { id, what: what.into(), deadline });
        id
    }

    /// A call returned, whatever with.
    pub fn returned(&mut self, call: CallId) {
        self.push(Event::Returned { call });
    }

    /// What had been on the log from this offset on may be lost; see [`Event::Truncated`].
    pub fn truncated(&mut self, partition: impl Into<TopicPartition>, offset: i64) {
        self.push(Event::Truncated { partition: partition.into(), offset });
    }

    /// The records before this offset were deleted.
    pub fn deleted(&mut self, partition: impl Into<TopicPartition>, before: i64) {
        self.push(Event::Deleted { partition: partition.into(), before });
    }

    /// The topic was deleted and made again.
    pub fn recreated(&mut self, partition: impl Into<TopicPartition>) {
        self.push(Event::Recreated { partition: partition.into() });
    }

    /// What lies on the log of a partition.
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
        /// Its number in the history.
        id: WriterId,
        /// What it promised.
        writer: Writer,
    },
    /// Records were given to a writer to be appended as one batch.
    Submit {
        /// The number of the append in the history.
        append: AppendId,
        /// Whom they were given.
        writer: WriterId,
        /// What is known of its place among those of the writer.
        order: SubmitOrder,
        /// The records.
        records: Vec<Value>,
    },
    /// An append ended, as far as its caller is concerned.
    Completed {
        /// Which.
        append: AppendId,
        /// How.
        outcome: AppendOutcome,
    },
    /// A writer was told that another one has taken its place: it appends no more.
    Fenced {
        /// Which.
        writer: WriterId,
    },
    /// A writer was told that acknowledged records are lost: it appends no more.
    Lost {
        /// Which.
        writer: WriterId,
    },
    /// An exclusive writer has its barrier on the log.
    Barrier {
        /// Which.
        writer: WriterId,
        /// Where. What lies there need not have been submitted.
        offset: i64,
    },
    /// Reading began.
    Reader {
        /// The number of the reader in the history.
        id: ReaderId,
        /// What it reads.
        reader: Reader,
    },
    /// A reader got records.
    Read {
        /// Which.
        reader: ReaderId,
        /// Their offsets, and what they are.
        records: Vec<(i64, Value)>,
        /// Where it stands now.
        next_offset: i64,
    },
    /// A reader was told something.
    ReadFailed {
        /// Which.
        reader: ReaderId,
        /// How.
        failure: ReadFailure,
    },
    /// A reader is to go on elsewhere.
    Seek {
        /// Which.
        reader: ReaderId,
        /// Where.
        offset: i64,
    },
    /// Something was called that is no append.
    Call {
        /// Its number in the history.
        id: CallId,
        /// In words.
        what: Value,
        /// How long it may take.
        deadline: Duration,
    },
    /// A call returned.
    Returned {
        /// Which.
        call: CallId,
    },
    /// By an unclean election, or by a clean one with acks = 1, a log lost what lay from an offset on. Excuses the loss of what
    /// was submitted before. 0 if it is not known how much it was.
    Truncated {
        /// Whose log.
        partition: TopicPartition,
        /// The first offset that was lost.
        offset: i64,
    },
    /// Records were deleted by DeleteRecords or by retention. Excuses their absence.
    Deleted {
        /// From which log.
        partition: TopicPartition,
        /// The first offset that was kept.
        before: i64,
    },
    /// The topic was deleted and made again. Excuses the loss of what was submitted before.
    Recreated {
        /// One partition of it.
        partition: TopicPartition,
    },
    /// What lies on a log. The last one of a partition counts; what ended after it is not looked for.
    Log(Log),
}

/// The number of a writer in a history.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WriterId(pub u64);

/// The number of an append in a history.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AppendId(pub u64);

/// The number of a reader in a history.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReaderId(pub u64);

/// The number of a call in a history.
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

/// A partition of a topic; written as Kafka does, `wal-0`.
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

/// A client of a partition that appends, with all its clones.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Writer {
    /// To which partition it appends.
    pub partition: TopicPartition,
    /// How long an append may take from when it is recorded; `None` for ever.
    pub deadline: Option<Duration>,
    /// Its name, if it is the only one of that name, once its [barrier](Event::Barrier) is on the log.
    pub exclusive: Option<Value>,
    /// What is submitted behind an append that fails may be appended all the same.
    pub on_failure_continue: bool,
}

impl Writer {
    /// One that appends to a partition: without a deadline, not exclusive, and what it has submitted behind an append that
    /// fails, fails too.
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

/// What a history knows of the place of an append among those of its writer when it records it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SubmitOrder {
    /// It is fixed: behind all that were recorded before. If one of those fails from now on, so does this one.
    Fixed,
    /// It will be behind all that were recorded before, but may wait for room still, and not be there when one of them fails.
    Queued,
    /// It is fixed at some time until the append ends; several threads may be at it.
    Unordered,
}

/// How an append ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AppendOutcome {
    /// It is on the log, once.
    Acked {
        /// Where its first record lies.
        base_offset: i64,
    },
    /// It is not on the log, and never will be.
    NotAppended,
    /// It is on the log, in its place and once at the most, or is not.
    Unknown,
    /// The caller dropped it: as [`Unknown`](Self::Unknown).
    Dropped,
    /// The caller dropped it before its place was fixed: it is not on the log, and nothing fails with it.
    Withdrawn,
}

/// What reads a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Reader {
    /// Which partition.
    pub partition: TopicPartition,
    /// Where it begins.
    pub offset: i64,
    /// It asks by offset alone, for what is there now. Else it knows the leader epoch of where it stands, and is told if what
    /// it has seen is lost.
    pub without_epoch: bool,
}

impl Reader {
    /// One that begins at an offset, and knows the leader epoch of where it stands.
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

/// What a reader is told instead of records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReadFailure {
    /// The log begins behind, or ends before where it stands.
    OutOfRange,
    /// What it has seen from an offset on is not what the log has now. It goes on from there.
    Truncated {
        /// The offset.
        diverged_at: i64,
    },
    /// The topic is another one than before.
    Recreated,
    /// Something else failed; it stands where it stood.
    Other,
}

/// What lies on the log of a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Log {
    /// Which partition.
    pub partition: TopicPartition,
    /// From the log start offset to the log end offset.
    pub offsets: Range<i64>,
    /// Offsets that rightly hold no record, in order.
    pub empty: Vec<Range<i64>>,
    /// The records, in order.
    pub records: Vec<(i64, Value)>,
}

impl Log {
    /// The log start offset and the log end offset, and the offsets of the records with what they are.
    pub fn new(
        partition: impl Into<TopicPartition>,
        offsets: Range<i64>,
        records: impl IntoIterator<Item = (i64, impl Into<Value>)>,
    ) -> Self {
        let records = records.into_iter().map(|(offset, value)| (offset, value.into())).collect();
        Self { partition: partition.into(), offsets, empty: Vec::new(), records }
    }

    /// Offsets that rightly hold no record: those of control batches, or compacted away. To be given in their order.
    pub fn empty(mut self, offsets: Range<i64>) -> Self {
        self.empty.push(offsets);
        self
    }
}
