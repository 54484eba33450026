//! Gathers the facts of a history about each partition, writer, append and reader.

mod waits;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    time::Duration,
};

pub(super) use self::waits::{Wait, WaitResult};
use super::{
    history::{Event, History},
    text::Seconds,
    types::{
        AppendId, AppendOutcome, CallId, Covered, Log, Producer, ReadFailure, Reader, ReaderId, SubmitOrder,
        TopicPartition, Writer, WriterId,
    },
    value::Value,
    verdict::{Rule, VerdictBuilder},
};

/// The facts of a history, in order of events. Everything refers to everything else by index.
#[derive(Default)]
pub(super) struct Facts<'a> {
    pub(super) partitions: Vec<Partition<'a>>,
    pub(super) writers: Vec<WriterFacts<'a>>,
    pub(super) appends: Vec<Append<'a>>,
    pub(super) readers: Vec<ReaderFacts<'a>>,
    /// The number of records of all appends together.
    pub(super) records: usize,
    /// The append of a record, and the record's index in it.
    owners: HashMap<&'a [u8], (usize, usize)>,
    known: Known<'a>,
}

/// Where in the facts the ids of a history are.
#[derive(Default)]
struct Known<'a> {
    partitions: BTreeMap<&'a TopicPartition, usize>,
    writers: HashMap<WriterId, usize>,
    appends: HashMap<AppendId, usize>,
    readers: HashMap<ReaderId, usize>,
    /// The writer, and the place among its waits.
    waits: HashMap<CallId, (usize, usize)>,
    calls: BTreeMap<CallId, Call<'a>>,
}

struct Call<'a> {
    what: &'a Value,
    event: usize,
    at: Duration,
    deadline: Duration,
}

impl Call<'_> {
    fn within_deadline(
        &self,
        took: Duration,
        verb: &str,
        returned: Option<usize>,
        verdict: &mut VerdictBuilder<'_>,
    ) {
        if took > self.deadline.saturating_add(verdict.expect.grace) {
            let events = [Some(self.event), returned].into_iter().flatten().map(|event| (event, None));
            verdict.violated(Rule::Deadline, events, || {
                format!("{} {verb} {} s of {} s", self.what, Seconds(took), Seconds(self.deadline))
            });
        }
    }
}

pub(super) struct Partition<'a> {
    pub(super) name: &'a TopicPartition,
    /// The log and its event.
    pub(super) log: Option<(usize, &'a Log)>,
    pub(super) losses: Vec<Loss>,
    /// Losses of records that not all replicas in sync had.
    pub(super) unreplicated: Vec<Loss>,
    /// Records before this offset were deleted.
    pub(super) deleted: i64,
    /// The same up to each of the events that deleted some.
    deletions: Vec<(usize, i64)>,
    /// The event by which its leader epoch first went back.
    pub(super) rewound: Option<usize>,
    /// Ends that a deposed leader has returned, with their events.
    stale_ends: Vec<(usize, i64)>,
    pub(super) barriers: Vec<Barrier>,
    /// Whether any writer was transactional.
    pub(super) has_transactions: bool,
    /// Whether any writer was exclusive.
    pub(super) has_holders: bool,
    pub(super) appends: Vec<usize>,
    /// The first event that cannot be judged without the log.
    needs_log: Option<usize>,
    /// The offset after everything that was acknowledged up to an event.
    acked_ends: Vec<(usize, i64)>,
}

impl Partition<'_> {
    /// Returns the last event after `since` that may have lost the record at an offset.
    pub(super) fn lost(&self, since: usize, offset: i64) -> Option<&Loss> {
        last_loss(&self.losses, since, offset)
    }

    /// Whether records of a writer may have been lost.
    pub(super) fn may_lose(&self, writer: &Writer) -> bool {
        !self.losses.is_empty() || writer.leader_acks && !self.unreplicated.is_empty()
    }

    /// Returns the last event after `since` that may have lost the record of a writer at an offset.
    pub(super) fn lost_by(&self, writer: &Writer, since: usize, offset: i64) -> Option<&Loss> {
        let unreplicated = writer.leader_acks.then(|| last_loss(&self.unreplicated, since, offset));
        self.lost(since, offset).or_else(|| unreplicated.flatten())
    }

    /// Returns whether a deposed leader has returned this end up to an event.
    pub(super) fn is_stale(&self, end: i64, by: usize) -> bool {
        self.stale_ends.iter().any(|(event, stale)| *event < by && *stale == end)
    }

    /// Returns the offset after everything that was acknowledged up to an event.
    pub(super) fn acked_end(&self, by: usize) -> i64 {
        highest(&self.acked_ends, by)
    }

    /// Returns the offset before which records were deleted up to an event.
    pub(super) fn deleted_by(&self, by: usize) -> i64 {
        highest(&self.deletions, by)
    }
}

/// Returns the offset up to an event. Both ascend.
fn highest(offsets: &[(usize, i64)], by: usize) -> i64 {
    let count = offsets.partition_point(|(event, _)| *event <= by);
    count.checked_sub(1).map_or(0, |last| offsets[last].1)
}

fn last_loss(losses: &[Loss], since: usize, offset: i64) -> Option<&Loss> {
    losses.iter().rev().find(|loss| loss.event > since && loss.offset <= offset)
}

/// Records from an offset on were lost.
pub(super) struct Loss {
    pub(super) event: usize,
    pub(super) offset: i64,
    /// The topic was created again.
    pub(super) recreated: bool,
}

pub(super) struct Barrier {
    pub(super) event: usize,
    pub(super) writer: usize,
    pub(super) offset: i64,
    pub(super) producer: Option<Producer>,
}

pub(super) struct WriterFacts<'a> {
    pub(super) id: WriterId,
    pub(super) writer: &'a Writer,
    pub(super) partition: usize,
    /// The event by which it was opened.
    pub(super) opened: usize,
    /// The event by which it learned that it is no longer the writer.
    pub(super) ended: Option<usize>,
    /// The event by which it learned that it was fenced.
    pub(super) fenced: Option<usize>,
    /// The event by which it learned of a loss.
    pub(super) lost: Option<usize>,
    pub(super) closes: Vec<Close>,
    pub(super) waits: Vec<Wait<'a>>,
    pub(super) appends: Vec<usize>,
    /// Its last transaction, as a range of its appends.
    transaction: Range<usize>,
}

/// A writer was closed.
pub(super) struct Close {
    /// The event and the time of its begin.
    pub(super) begun: (usize, Duration),
    /// The event and the time of its end, and how many appends failed meanwhile.
    pub(super) ended: Option<(usize, Duration, usize)>,
}

/// An answer to what became of an append.
pub(super) struct Resolution {
    /// The event of the question.
    pub(super) begun: usize,
    pub(super) event: usize,
    /// `None` if the append is not on the log.
    pub(super) base: Option<i64>,
}

pub(super) struct Append<'a> {
    pub(super) id: AppendId,
    pub(super) writer: usize,
    pub(super) partition: usize,
    pub(super) order: SubmitOrder,
    pub(super) records: &'a [Value],
    /// The index of its first record among those of all appends.
    pub(super) first: usize,
    /// The event that recorded it.
    pub(super) event: usize,
    pub(super) at: Duration,
    /// The event, the time and the outcome of its end.
    pub(super) end: Option<(usize, Duration, AppendOutcome)>,
    /// The event by which somebody asked last what became of it.
    resolving: Option<usize>,
    pub(super) resolutions: Vec<Resolution>,
    /// The ends of its transaction: the event, and whether it was committed.
    pub(super) transaction: Vec<(usize, bool)>,
}

impl Append<'_> {
    pub(super) fn outcome(&self) -> Option<AppendOutcome> {
        self.end.map(|(_, _, outcome)| outcome)
    }

    pub(super) fn is_acked(&self) -> bool {
        let outcome = self.outcome();
        matches!(outcome, Some(AppendOutcome::Acked { .. } | AppendOutcome::AckedAtUnknownOffset))
    }

    /// Returns the base offset that was acknowledged.
    pub(super) fn acked_at(&self) -> Option<i64> {
        match self.outcome() {
            Some(AppendOutcome::Acked { base_offset }) => Some(base_offset),
            _ => None,
        }
    }

    /// Returns the event by which its place in the order was fixed.
    pub(super) fn fixed(&self) -> usize {
        match self.order {
            SubmitOrder::Fixed | SubmitOrder::Queued => self.event,
            SubmitOrder::Unordered => self.end.map_or(usize::MAX, |(event, _, _)| event),
        }
    }

    /// Returns its events, for a violation.
    pub(super) fn events(&self) -> impl Iterator<Item = (usize, Option<i64>)> + use<> {
        let end = self.end.map(|(event, _, _)| event);
        [Some(self.event), end].into_iter().flatten().map(|event| (event, None))
    }
}

pub(super) struct ReaderFacts<'a> {
    pub(super) id: ReaderId,
    pub(super) reader: &'a Reader,
    pub(super) partition: usize,
    pub(super) event: usize,
    /// The reader at whose position it starts, an earlier one.
    pub(super) resumes: Option<usize>,
    pub(super) steps: Vec<(usize, Step<'a>)>,
}

pub(super) enum Step<'a> {
    Read(&'a [(i64, Value)], i64),
    /// A response, of a reader that fetches ahead.
    Fetched,
    Failed(ReadFailure),
    Seek(i64),
    /// A replay was opened: its end, and whether the caller gave it.
    Replay(i64, bool),
    Replayed(&'a Covered),
}

impl<'a> Facts<'a> {
    /// Returns the append of a record, and the record's index in it.
    pub(super) fn owner(&self, value: &Value) -> Option<(usize, usize)> {
        self.owners.get(value.as_bytes()).copied()
    }

    pub(super) fn gather(history: &'a History, verdict: &mut VerdictBuilder<'a>) -> Self {
        let mut facts = Self::default();
        let records = history.events().iter().map(|(_, event)| match event {
            Event::Submit { records, .. } => records.len(),
            _ => 0,
        });
        facts.owners.reserve(records.sum());
        for (event, (at, what)) in history.events().iter().enumerate() {
            if facts.take(event, *at, what, verdict).is_none() {
                verdict.violated(Rule::History, [(event, None)], || {
                    "this refers to something that the history has not introduced".to_owned()
                });
            }
        }
        let end = history.events().last().map_or(Duration::ZERO, |(at, _)| *at);
        facts.finish(end, verdict);
        facts
    }

    /// Returns `None` if it refers to something unknown.
    fn take(
        &mut self,
        event: usize,
        at: Duration,
        what: &'a Event,
        verdict: &mut VerdictBuilder<'a>,
    ) -> Option<()> {
        match what {
            Event::Writer { id, writer } => {
                let partition = self.partition(&writer.partition);
                once(event, self.known.writers.insert(*id, self.writers.len()), verdict);
                self.partitions[partition].has_holders |= writer.exclusive.is_some();
                self.partitions[partition].has_transactions |= writer.transactional;
                self.writers.push(WriterFacts {
                    id: *id,
                    writer,
                    partition,
                    opened: event,
                    ended: None,
                    fenced: None,
                    lost: None,
                    closes: Vec::new(),
                    waits: Vec::new(),
                    appends: Vec::new(),
                    transaction: 0..0,
                });
            }
            Event::Submit { append, writer, order, records } => {
                let writer = *self.known.writers.get(writer)?;
                let (partition, first) = (self.writers[writer].partition, self.records);
                let (id, order) = (*append, *order);
                let (end, resolving, resolutions) = (None, None, Vec::new());
                let append = Append {
                    id,
                    writer,
                    partition,
                    order,
                    records,
                    first,
                    event,
                    at,
                    end,
                    resolving,
                    resolutions,
                    transaction: Vec::new(),
                };
                self.submit(append, verdict);
            }
            Event::Completed { append, outcome } => {
                let index = *self.known.appends.get(append)?;
                self.complete(event, at, index, *outcome, verdict);
            }
            Event::Resolve { append } => {
                self.appends[*self.known.appends.get(append)?].resolving = Some(event);
            }
            Event::Resolved { append, base_offset } => {
                let append = &mut self.appends[*self.known.appends.get(append)?];
                let (begun, base) = (append.resolving.take()?, *base_offset);
                append.resolutions.push(Resolution { begun, event, base });
            }
            Event::Close { writer } => {
                let writer = &mut self.writers[*self.known.writers.get(writer)?];
                writer.ended.get_or_insert(event);
                writer.closes.push(Close { begun: (event, at), ended: None });
            }
            Event::Closed { writer, failed } => {
                let writer = &mut self.writers[*self.known.writers.get(writer)?];
                writer.closes.last_mut()?.ended = Some((event, at, *failed));
            }
            Event::Flush { call, writer, after } => self.wait((event, at), *call, writer, *after, false)?,
            Event::Drain { call, writer, after } => self.wait((event, at), *call, writer, *after, true)?,
            Event::Flushed { call, failed } => {
                self.waited(event, at, call, WaitResult::Flushed(*failed))?;
            }
            Event::Drained { call, absent, unknown } => {
                self.waited(event, at, call, WaitResult::Undelivered(absent, unknown))?;
            }
            Event::Fenced { writer } => {
                let writer = &mut self.writers[*self.known.writers.get(writer)?];
                writer.ended.get_or_insert(event);
                writer.fenced.get_or_insert(event);
            }
            Event::Lost { writer } => {
                let writer = &mut self.writers[*self.known.writers.get(writer)?];
                writer.ended.get_or_insert(event);
                writer.lost.get_or_insert(event);
            }
            Event::Barrier { writer, offset, producer } => {
                let writer = *self.known.writers.get(writer)?;
                let partition = &mut self.partitions[self.writers[writer].partition];
                partition.needs_log.get_or_insert(event);
                partition.barriers.push(Barrier { event, writer, offset: *offset, producer: *producer });
            }
            Event::Reader { id, reader } => {
                let partition = self.partition(&reader.partition);
                let resumes = match &reader.resumes {
                    Some(other) => Some(*self.known.readers.get(other)?),
                    None => None,
                };
                once(event, self.known.readers.insert(*id, self.readers.len()), verdict);
                let steps = Vec::new();
                self.readers.push(ReaderFacts { id: *id, reader, partition, event, resumes, steps });
            }
            Event::Read { reader, records, next_offset } => {
                verdict.tally.read += records.len();
                self.step(event, reader, Step::Read(records, *next_offset))?;
            }
            Event::Fetched { reader } => self.step(event, reader, Step::Fetched)?,
            Event::ReadFailed { reader, failure } => self.step(event, reader, Step::Failed(*failure))?,
            Event::Seek { reader, offset } => self.step(event, reader, Step::Seek(*offset))?,
            Event::ReplayOpened { reader, end, given } => {
                self.step(event, reader, Step::Replay(*end, *given))?;
            }
            Event::ReplayEnded { reader, covered } => self.step(event, reader, Step::Replayed(covered))?,
            Event::TransactionEnded { writer, committed } => {
                let writer = &mut self.writers[*self.known.writers.get(writer)?];
                let next = writer.transaction.end..writer.appends.len();
                if !next.is_empty() {
                    writer.transaction = next;
                }
                for append in &writer.appends[writer.transaction.clone()] {
                    self.appends[*append].transaction.push((event, *committed));
                }
            }
            Event::StaleEnd { partition, end } => {
                let partition = self.partition(partition);
                self.partitions[partition].stale_ends.push((event, *end));
            }
            Event::EpochRewound { partition } => {
                let partition = self.partition(partition);
                self.partitions[partition].rewound.get_or_insert(event);
            }
            Event::Call { id, what, deadline } => {
                let call = Call { what, event, at, deadline: *deadline };
                once(event, self.known.calls.insert(*id, call), verdict);
            }
            Event::Returned { call } => {
                let call = self.known.calls.remove(call)?;
                let took = at.saturating_sub(call.at);
                call.within_deadline(took, "took", Some(event), verdict);
            }
            Event::Truncated { partition, offset } => {
                let partition = self.partition(partition);
                let loss = Loss { event, offset: *offset, recreated: false };
                self.partitions[partition].losses.push(loss);
            }
            Event::Unreplicated { partition, offset } => {
                let partition = self.partition(partition);
                let loss = Loss { event, offset: *offset, recreated: false };
                self.partitions[partition].unreplicated.push(loss);
            }
            Event::Deleted { partition, before } => {
                let partition = self.partition(partition);
                let partition = &mut self.partitions[partition];
                partition.deleted = partition.deleted.max(*before);
                partition.deletions.push((event, partition.deleted));
            }
            Event::Recreated { partition } => {
                let partition = self.partition(partition);
                self.partitions[partition].losses.push(Loss { event, offset: 0, recreated: true });
            }
            Event::Log(log) => {
                let partition = self.partition(&log.partition);
                self.partitions[partition].log = Some((event, log));
            }
        }
        Some(())
    }

    fn partition(&mut self, name: &'a TopicPartition) -> usize {
        *self.known.partitions.entry(name).or_insert_with(|| {
            self.partitions.push(Partition {
                name,
                log: None,
                losses: Vec::new(),
                unreplicated: Vec::new(),
                deleted: 0,
                deletions: Vec::new(),
                rewound: None,
                stale_ends: Vec::new(),
                has_transactions: false,
                barriers: Vec::new(),
                has_holders: false,
                appends: Vec::new(),
                needs_log: None,
                acked_ends: Vec::new(),
            });
            self.partitions.len() - 1
        })
    }

    fn submit(&mut self, append: Append<'a>, verdict: &mut VerdictBuilder<'a>) {
        let (index, event) = (self.appends.len(), append.event);
        once(event, self.known.appends.insert(append.id, index), verdict);
        for (record, value) in append.records.iter().enumerate() {
            if let Some((other, _)) = self.owners.insert(value.as_bytes(), (index, record)) {
                let other = self.appends.get(other).map_or(event, |append| append.event);
                verdict.violated(Rule::History, [(other, None), (event, None)], || {
                    format!("{value} is appended twice, so the log does not show which one it has")
                });
            }
        }
        self.records += append.records.len();
        self.writers[append.writer].appends.push(index);
        let partition = &mut self.partitions[append.partition];
        partition.appends.push(index);
        partition.needs_log.get_or_insert(event);
        self.appends.push(append);
        verdict.tally.appends += 1;
    }

    fn complete(
        &mut self,
        event: usize,
        at: Duration,
        index: usize,
        outcome: AppendOutcome,
        verdict: &mut VerdictBuilder<'a>,
    ) {
        let append = &mut self.appends[index];
        if let Some((before, _, _)) = append.end {
            verdict.violated(Rule::History, [(before, None), (event, None)], || {
                format!("{} ends twice", append.id)
            });
            return;
        }
        append.end = Some((event, at, outcome));
        let tally = &mut verdict.tally;
        *match outcome {
            AppendOutcome::Acked { .. } | AppendOutcome::AckedAtUnknownOffset => &mut tally.acked,
            AppendOutcome::NotAppended => &mut tally.not_appended,
            AppendOutcome::Unknown => &mut tally.unknown,
            AppendOutcome::Dropped | AppendOutcome::Withdrawn => &mut tally.dropped,
        } += 1;
        if let AppendOutcome::Acked { base_offset } = outcome {
            let ends = &mut self.partitions[append.partition].acked_ends;
            let behind = base_offset.saturating_add(append.records.len() as i64);
            ends.push((event, ends.last().map_or(behind, |(_, end)| behind.max(*end))));
        }
        let took = at.saturating_sub(append.at);
        self.within_deadline(index, took, "took", verdict);
    }

    fn within_deadline(&self, index: usize, took: Duration, verb: &str, verdict: &mut VerdictBuilder<'a>) {
        let append = &self.appends[index];
        let Some(deadline) = self.writers[append.writer].writer.deadline else { return };
        if took > deadline.saturating_add(verdict.expect.grace) {
            verdict.violated(Rule::Deadline, append.events(), || {
                format!("{} {verb} {} s of {} s", append.id, Seconds(took), Seconds(deadline))
            });
        }
    }

    fn step(&mut self, event: usize, reader: &ReaderId, step: Step<'a>) -> Option<()> {
        let reader = &mut self.readers[*self.known.readers.get(reader)?];
        reader.steps.push((event, step));
        self.partitions[reader.partition].needs_log.get_or_insert(event);
        Some(())
    }

    /// Reports appends and calls that should have ended, and missing logs.
    fn finish(&self, end: Duration, verdict: &mut VerdictBuilder<'a>) {
        for index in 0..self.appends.len() {
            if self.appends[index].end.is_none() {
                verdict.tally.open += 1;
                let took = end.saturating_sub(self.appends[index].at);
                self.within_deadline(index, took, "has not ended after", verdict);
            }
        }
        for call in self.known.calls.values() {
            call.within_deadline(end.saturating_sub(call.at), "has not returned after", None, verdict);
        }
        for partition in &self.partitions {
            match (partition.log, partition.needs_log) {
                (Some((_, log)), _) => verdict.tally.on_log += log.records.len(),
                (None, Some(event)) => verdict.violated(Rule::History, [(event, None)], || {
                    format!("the history has no log of {}", partition.name)
                }),
                (None, None) => {}
            }
        }
    }
}

/// Reports an id that is used twice.
fn once<T>(event: usize, known: Option<T>, verdict: &mut VerdictBuilder<'_>) {
    if known.is_some() {
        verdict.violated(Rule::History, [(event, None)], || "this id is taken".to_owned());
    }
}
