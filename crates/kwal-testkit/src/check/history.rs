//! What happened, in order.

use std::time::Duration;

use super::{
    types::{
        AppendId, AppendOutcome, CallId, Covered, Log, Producer, ReadFailure, Reader, ReaderId, SubmitOrder,
        TopicPartition, Writer, WriterId,
    },
    value::Value,
};

/// The calls of clients, their results, and the final logs.
///
/// A test records it and has it [checked](Self::check).
///
/// One call records one event. Record events in the order in which they happen: appends when they are
/// submitted, outcomes and reads when the caller has them, excuses for losses once they have happened, and
/// the logs last. Times count from any common start; [`Recorder`](super::Recorder) takes them from tokio's
/// clock.
///
/// [`Display`](std::fmt::Display) writes a history as text, one event per line, and
/// [`FromStr`](std::str::FromStr) reads it, so that programs in any language can have theirs checked:
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
/// | `writer w0 wal-0 deadline=60 exclusive=me continue without-ids leader-acks transactional batched` | [`Writer`](Event::Writer), with its topic and partition; the other words are optional |
/// | `submit a0 w0 x y`, `queue …`, `start …` | [`Submit`](Event::Submit) of records with these values, for each [`SubmitOrder`] |
/// | `acked a0 5`, `acked a0 somewhere`, `not-appended a0`, `unknown a0`, `dropped a0`, `withdrawn a0` | [`AppendOutcome`](Event::Completed), with the base offset for the first |
/// | `resolve a0`, `resolved a0 5`, `resolved a0 absent` | [`Resolve`](Event::Resolve), [`Resolved`](Event::Resolved) with the base offset or without |
/// | `close w0`, `closed w0 2` | [`Close`](Event::Close), [`Closed`](Event::Closed) with the number of errors |
/// | `flush c0 w0 after=a5`, `flushed c0`, `flush-failed c0` | [`Flush`](Event::Flush) by a call, with the last append that may have failed before; [`Flushed`](Event::Flushed) |
/// | `drain c0 w0 after=a5`, `drained c0 absent=x unknown=y` | [`Drain`](Event::Drain) by a call, [`Drained`](Event::Drained) with the records that were not delivered |
/// | `fenced w0`, `lost w0`, `barrier w0 5 as=1000/3` | [`Fenced`](Event::Fenced), [`Lost`](Event::Lost), [`Barrier`](Event::Barrier) at an offset, with its producer id and epoch if known |
/// | `committed w0`, `aborted w0` | [`TransactionEnded`](Event::TransactionEnded) |
/// | `reader r0 wal-0 5 bare committed from=r1` | [`Reader`](Event::Reader) from an offset; `bare` without leader epochs, `committed` with READ_COMMITTED, at the position of another reader |
/// | `read r0 8 @5 x y @7 z` | [`Read`](Event::Read): the next offset, then the records, from each `@` on at consecutive offsets |
/// | `fetched r0` | [`Fetched`](Event::Fetched) |
/// | `read-failed r0 out-of-range`, `read-failed r0 truncated 5`, `read-failed r0 trimmed 5`, `read-failed r0 beyond-end 5`, `read-failed r0 recreated`, `read-failed r0 epoch-unknown`, `read-failed r0 other` | [`ReadFailure`](Event::ReadFailed) |
/// | `seek r0 5` | [`Seek`](Event::Seek) |
/// | `replay r0 8`, `replay r0 8 given` | [`ReplayOpened`](Event::ReplayOpened) with its end |
/// | `replayed r0 0..8 5 gap=3..4 gap=6..8` | [`ReplayEnded`](Event::ReplayEnded) with what it covered: offsets, number of records, gaps |
/// | `call c0 10 fetch`, `returned c0` | [`Call`](Event::Call) with its deadline in seconds, [`Returned`](Event::Returned) |
/// | `truncated wal-0 5`, `unreplicated wal-0 5`, `deleted wal-0 5`, `recreated wal-0`, `rewound wal-0`, `stale-end wal-0 5` | [`Truncated`](Event::Truncated), [`Unreplicated`](Event::Unreplicated), [`Deleted`](Event::Deleted), [`Recreated`](Event::Recreated), [`EpochRewound`](Event::EpochRewound), [`StaleEnd`](Event::StaleEnd) |
/// | `log wal-0 0 8 empty=2..4 by=4..6:1000/3 aborted=4..6 stable=7 @0 x y @4 z …` | [`Log`](Event::Log): its start and end, the offsets without a record (the end is exclusive), the producers of batches, the aborted batches, the last stable offset, the records |
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

    /// The append succeeded, and where it is on the log was not reported.
    pub fn acked_at_unknown_offset(&mut self, append: AppendId) {
        self.push(Event::Completed { append, outcome: AppendOutcome::AckedAtUnknownOffset });
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

    /// A caller asks what became of an append of unknown outcome.
    pub fn resolve(&mut self, append: AppendId) {
        self.push(Event::Resolve { append });
    }

    /// The answer: the offset of the first record of the append; `None` if it is not on the log and never
    /// will be.
    pub fn resolved(&mut self, append: AppendId, base_offset: Option<i64>) {
        self.push(Event::Resolved { append, base_offset });
    }

    /// A caller closes a writer.
    pub fn close(&mut self, writer: WriterId) {
        self.push(Event::Close { writer });
    }

    /// The writer is closed, and so many errors of appends were returned.
    pub fn closed(&mut self, writer: WriterId, failed: usize) {
        self.push(Event::Closed { writer, failed });
    }

    /// A call begins to flush a [batched](Writer::batched) writer. None of its appends after this one has
    /// failed yet.
    pub fn flush(&mut self, call: CallId, writer: WriterId, after: Option<AppendId>) {
        self.push(Event::Flush { call, writer, after });
    }

    /// A flush has returned, with an error of an append or without.
    pub fn flushed(&mut self, call: CallId, failed: bool) {
        self.push(Event::Flushed { call, failed });
    }

    /// A call begins to close a [batched](Writer::batched) writer. None of its appends after this one has
    /// failed yet.
    pub fn drain(&mut self, call: CallId, writer: WriterId, after: Option<AppendId>) {
        self.push(Event::Drain { call, writer, after });
    }

    /// The writer is closed, and has returned the records that are not on the log, and those that may be.
    pub fn drained(
        &mut self,
        call: CallId,
        absent: impl IntoIterator<Item = impl Into<Value>>,
        unknown: impl IntoIterator<Item = impl Into<Value>>,
    ) {
        let absent = absent.into_iter().map(Into::into).collect();
        let unknown = unknown.into_iter().map(Into::into).collect();
        self.push(Event::Drained { call, absent, unknown });
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
        self.push(Event::Barrier { writer, offset, producer: None });
    }

    /// As [`barrier`](Self::barrier), with the producer of the barrier.
    pub fn barrier_as(&mut self, writer: WriterId, offset: i64, producer: impl Into<Producer>) {
        self.push(Event::Barrier { writer, offset, producer: Some(producer.into()) });
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

    /// A reader that fetches ahead got a response, see [`Event::Fetched`]. Record it before the reads of it.
    pub fn fetched(&mut self, reader: ReaderId) {
        self.push(Event::Fetched { reader });
    }

    /// The reader got an error in place of records.
    pub fn read_failed(&mut self, reader: ReaderId, failure: ReadFailure) {
        self.push(Event::ReadFailed { reader, failure });
    }

    /// The caller moves the reader to another offset.
    pub fn seek(&mut self, reader: ReaderId, offset: i64) {
        self.push(Event::Seek { reader, offset });
    }

    /// A replay of a reader is opened that will end at this offset, which was looked up.
    pub fn replay(&mut self, reader: ReaderId, end: i64) {
        self.push(Event::ReplayOpened { reader, end, given: false });
    }

    /// A replay of a reader is opened that will end at this offset, which the caller gave.
    pub fn replay_to(&mut self, reader: ReaderId, end: i64) {
        self.push(Event::ReplayOpened { reader, end, given: true });
    }

    /// The replay of a reader has ended, and says what it covered.
    pub fn replayed(&mut self, reader: ReaderId, covered: Covered) {
        self.push(Event::ReplayEnded { reader, covered });
    }

    /// The transaction of a writer ended: that of all its appends since the one before, or that one again.
    pub fn transaction_ended(&mut self, writer: WriterId, committed: bool) {
        self.push(Event::TransactionEnded { writer, committed });
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

    /// Records from this offset on that not all replicas in sync had may be lost, see
    /// [`Event::Unreplicated`].
    pub fn unreplicated(&mut self, partition: impl Into<TopicPartition>, offset: i64) {
        self.push(Event::Unreplicated { partition: partition.into(), offset });
    }

    /// The records before this offset were deleted.
    pub fn deleted(&mut self, partition: impl Into<TopicPartition>, before: i64) {
        self.push(Event::Deleted { partition: partition.into(), before });
    }

    /// The topic was deleted and created again.
    pub fn recreated(&mut self, partition: impl Into<TopicPartition>) {
        self.push(Event::Recreated { partition: partition.into() });
    }

    /// The leader epoch of a partition went back.
    pub fn epoch_rewound(&mut self, partition: impl Into<TopicPartition>) {
        self.push(Event::EpochRewound { partition: partition.into() });
    }

    /// A broker that does not know yet that it was deposed has returned this end of the log.
    pub fn stale_end(&mut self, partition: impl Into<TopicPartition>, end: i64) {
        self.push(Event::StaleEnd { partition: partition.into(), end });
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
    /// A caller asked what became of an append whose outcome is unknown. Without
    /// [`Resolved`](Self::Resolved), it got no answer.
    Resolve {
        /// The append.
        append: AppendId,
    },
    /// The answer to the last [`Resolve`](Self::Resolve) of an append, which is final.
    Resolved {
        /// The append.
        append: AppendId,
        /// The offset of its first record; `None` if it is not on the log and never will be.
        base_offset: Option<i64>,
    },
    /// A caller closed a writer. It appends nothing that is submitted later.
    Close {
        /// The writer.
        writer: WriterId,
    },
    /// A writer is closed: everything that was submitted earlier has ended.
    Closed {
        /// The writer.
        writer: WriterId,
        /// How many appends failed meanwhile, according to the writer.
        failed: usize,
    },
    /// A caller waits until everything has ended that a [batched](Writer::batched) writer has accepted.
    /// Without [`Flushed`](Self::Flushed), it did not wait that long.
    Flush {
        /// The call.
        call: CallId,
        /// The writer.
        writer: WriterId,
        /// The last append of the writer that may have failed before; `None` if none can have.
        after: Option<AppendId>,
    },
    /// A flush returned: everything that was accepted before it has ended.
    Flushed {
        /// The call.
        call: CallId,
        /// Whether it returned the error of an append.
        failed: bool,
    },
    /// A caller closed a [batched](Writer::batched) writer. It accepts nothing more. Without
    /// [`Drained`](Self::Drained), the caller did not wait for what was accepted.
    Drain {
        /// The call.
        call: CallId,
        /// The writer.
        writer: WriterId,
        /// The last append of the writer that may have failed before; `None` if none can have.
        after: Option<AppendId>,
    },
    /// A batched writer is closed, and has returned what was not delivered: of the appends that had not ended
    /// when it was first closed, all that it has not appended.
    Drained {
        /// The call.
        call: CallId,
        /// The records that are not on the log, and never will be.
        absent: Vec<Value>,
        /// The records that may be on the log.
        unknown: Vec<Value>,
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
        /// Its producer, if known: those of the writer's appends have the same id, and no lower epoch.
        producer: Option<Producer>,
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
    /// A reader that fetches ahead got a response, which it hands over in one or several reads. It sends the
    /// next fetch now.
    ///
    /// So what it hands over up to its next response was not fetched before its previous one, and may have
    /// been fetched before anything since then, such as a loss. A reader without these events fetches nothing
    /// before it is asked for it: what it gets was not fetched before its previous event.
    Fetched {
        /// The reader.
        reader: ReaderId,
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
    /// The transaction of a [transactional](Writer::transactional) writer ended.
    ///
    /// All its appends since its last transaction belong to it; if there are none, its last transaction ended
    /// again, since its marker was lost.
    TransactionEnded {
        /// The writer.
        writer: WriterId,
        /// Whether it was committed. Otherwise it was aborted.
        committed: bool,
    },
    /// A replay of a reader was opened, at the position of the reader.
    ReplayOpened {
        /// The reader.
        reader: ReaderId,
        /// Where it will end.
        end: i64,
        /// Whether the caller gave the end. Otherwise it is the end of the log, and nothing that was
        /// acknowledged before the previous event of the reader lies after it.
        given: bool,
    },
    /// The last [replay](Self::ReplayOpened) of a reader ended.
    ReplayEnded {
        /// The reader.
        reader: ReaderId,
        /// What it covered.
        covered: Covered,
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
    /// This happens by an unclean election. Excuses the loss of records submitted earlier. Use 0 if the
    /// offset is unknown.
    Truncated {
        /// The partition.
        partition: TopicPartition,
        /// The first offset that was lost.
        offset: i64,
    },
    /// A replica lost its records from an offset on, of which not all replicas in sync had one.
    ///
    /// This happens by any election. Excuses the loss of records submitted earlier with
    /// [`leader_acks`](Writer::leader_acks), and of no others.
    Unreplicated {
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
    /// The leader epoch of a partition went back, as after a restore of the cluster's metadata.
    ///
    /// Excuses errors about epochs.
    EpochRewound {
        /// The partition.
        partition: TopicPartition,
    },
    /// A broker that does not know yet that it was deposed has returned an end of the log, which clients
    /// cannot distinguish from the true one.
    ///
    /// Excuses a replay that ends there, and an error that the log does.
    StaleEnd {
        /// The partition.
        partition: TopicPartition,
        /// The end.
        end: i64,
    },
    /// The contents of a log.
    ///
    /// The last one of a partition counts; appends that end after it are not expected in it.
    Log(Log),
}
