//! Checks what readers got against the logs.

use std::{collections::BTreeMap, ops::Range};

use super::{
    facts::{Facts, Loss, Partition, ReaderFacts, Step},
    logs::{Judged, is_empty, record_at},
    replays::OpenReplay,
    types::{AppendOutcome, Log, ReadFailure},
    value::Value,
    verdict::{Rule, VerdictBuilder},
};

pub(super) fn judge<'a>(facts: &Facts<'a>, judged: &Judged, verdict: &mut VerdictBuilder<'a>) {
    let mut resumed: BTreeMap<usize, Start> = BTreeMap::new();
    for (index, reader) in facts.readers.iter().enumerate() {
        let partition = &facts.partitions[reader.partition];
        let Some((log_event, log)) = partition.log else { continue };
        let Some(missing) = &judged.missing[reader.partition] else { continue };
        let position = Some(reader.reader.offset);
        let since = reader.event;
        let start = resumed.remove(&index);
        let (behind, diverged) = start.as_ref().map_or((0, None), |start| (start.behind, start.diverged));
        let mut judge = Judge {
            facts,
            partition,
            log_event,
            log,
            missing,
            reader,
            verdict,
            position,
            since,
            sent: None,
            behind,
            read_to: if start.is_some() { reader.reader.offset } else { 0 },
            diverged,
            replay: None,
        };
        judge.check_start(start);
        let mut heirs = facts.readers.iter().enumerate().filter(|(_, heir)| heir.resumes == Some(index));
        let mut heir = heirs.next();
        for (event, step) in &reader.steps {
            while let Some((index, _)) = heir.filter(|(_, heir)| heir.event < *event) {
                resumed.insert(index, judge.start());
                heir = heirs.next();
            }
            match step {
                Step::Replay(end, given) => judge.replay(*event, *end, *given),
                Step::Replayed(covered) => judge.replayed(*event, covered),
                Step::Read(records, next) => judge.read(*event, records, *next),
                Step::Fetched => judge.fetched(*event),
                Step::Failed(failure) => judge.failed(*event, *failure),
                Step::Seek(offset) => judge.move_to(Some(*offset)),
            }
            judge.since = *event;
        }
        while let Some((index, _)) = heir {
            resumed.insert(index, judge.start());
            heir = heirs.next();
        }
    }
    for writer in &facts.writers {
        let partition = &facts.partitions[writer.partition];
        if let Some(event) = writer.lost.filter(|_| !partition.may_lose(writer.writer)) {
            verdict.violated(Rule::FalseAlarm, [(event, None)], || {
                format!("{} got an error about a loss, and no loss is recorded", writer.id)
            });
        }
    }
}

/// What a reader knows that starts at the position of another one.
struct Start {
    position: Option<i64>,
    behind: usize,
    diverged: Option<Diverged>,
}

/// Checks one reader.
pub(super) struct Judge<'a, 'b, 'c> {
    pub(super) facts: &'b Facts<'a>,
    pub(super) partition: &'b Partition<'a>,
    log_event: usize,
    pub(super) log: &'a Log,
    /// The offsets of acknowledged records that are missing.
    missing: &'b [i64],
    pub(super) reader: &'b ReaderFacts<'a>,
    verdict: &'b mut VerdictBuilder<'c>,
    /// Its position, if known.
    pub(super) position: Option<i64>,
    /// What it gets was not requested before this event: its previous one, unless it fetches ahead.
    pub(super) since: usize,
    /// The fetches of a reader that fetches ahead.
    sent: Option<Sent>,
    /// The index on the log of the record after the last one that it got.
    behind: usize,
    /// Up to where it has read.
    read_to: i64,
    /// Lost records that it has seen since the last error.
    diverged: Option<Diverged>,
    pub(super) replay: Option<OpenReplay>,
}

/// The events before which the fetches of a reader were not sent.
#[derive(Clone, Copy)]
struct Sent {
    /// That of the response at hand.
    current: usize,
    /// That of the next one.
    next: usize,
}

#[derive(Clone, Copy)]
struct Diverged {
    /// The first of them.
    offset: i64,
    /// The event by which it saw them.
    seen: usize,
    /// The event by which the last of them was lost.
    lost: usize,
    recreated: bool,
}

impl Judge<'_, '_, '_> {
    pub(super) fn violated(
        &mut self,
        rule: Rule,
        event: usize,
        offset: i64,
        message: impl FnOnce() -> String,
    ) {
        let events = [(event, Some(offset)), (self.log_event, Some(offset))];
        self.verdict.violated(rule, events, message);
    }

    /// Returns what a reader knows that starts at the position now.
    fn start(&self) -> Start {
        Start { position: self.position, behind: self.behind, diverged: self.diverged }
    }

    /// Checks that it starts at the position of the reader that it resumes.
    fn check_start(&mut self, start: Option<Start>) {
        let (id, at) = (self.reader.id, self.reader.reader.offset);
        if let Some(position) = start.and_then(|start| start.position).filter(|position| *position != at) {
            self.violated(Rule::History, self.reader.event, at, || {
                format!("{id} starts at {at}, and the position that it resumes is {position}")
            });
        }
    }

    fn fetched(&mut self, event: usize) {
        let current = self.sent.map_or(self.since, |sent| sent.next);
        self.sent = Some(Sent { current, next: event });
    }

    fn read(&mut self, event: usize, records: &[(i64, Value)], next: i64) {
        let id = self.reader.id;
        self.since = self.sent.map_or(self.since, |sent| sent.current);
        if self.diverged.is_some() {
            // No record was fetched before it was submitted.
            let owners = records.iter().filter_map(|(_, value)| self.facts.owner(value));
            let submitted = owners.map(|(append, _)| self.facts.appends[append].event).max();
            self.since = self.since.max(submitted.unwrap_or_default());
        }
        if let Some(replay) = &mut self.replay {
            replay.read = Some(replay.read.unwrap_or_default() + records.len() as u64);
        }
        if !records.is_empty() || self.position != Some(next) {
            self.check_continues(event);
        }
        let first = records.first().map_or(next, |(offset, _)| *offset);
        let mut cursor = self.position.unwrap_or(first);
        for (offset, value) in records {
            if *offset < cursor {
                self.violated(Rule::ReadOnce, event, *offset, || {
                    format!("{id} got {value} at {offset}, and its position was {cursor}")
                });
                continue;
            }
            self.check_skipped(event, cursor, *offset);
            self.seen(event, *offset, value);
            cursor = offset.saturating_add(1);
        }
        if next < cursor {
            self.violated(Rule::ReadOnce, event, next, || {
                format!("{id} went back to {next}, and its position was {cursor}")
            });
        } else {
            self.check_skipped(event, cursor, next);
        }
        let end = self.log.offsets.end;
        if next > end && event < self.log_event && self.partition.lost(self.since, end).is_none() {
            self.violated(Rule::ReadEvery, event, end, || {
                format!("the position of {id} is {next}, and the log ends at {end}")
            });
        }
        self.check_stable(event, next);
        self.read_to = self.read_to.max(next);
        self.position = Some(next);
    }

    /// Checks that a reader of committed records does not pass the last stable offset.
    fn check_stable(&mut self, event: usize, next: i64) {
        let Some(stable) = self.log.last_stable.filter(|stable| next > *stable) else { return };
        // By the loss of a marker, it can go back.
        let lost = self.partition.losses.iter().any(|loss| loss.event > self.since);
        let moved = self.position != Some(next);
        if self.reader.reader.committed && moved && event < self.log_event && !lost {
            let id = self.reader.id;
            self.violated(Rule::Committed, event, stable, || {
                format!("the position of {id} is {next}, and the last stable offset is {stable}")
            });
        }
    }

    /// Returns whether it has to get a record that is on the log, according to its transaction.
    pub(super) fn is_required(&self, event: usize, offset: i64, value: &Value) -> bool {
        if !self.reader.reader.committed {
            return true;
        }
        let transaction = self.facts.owner(value).map(|(append, _)| &self.facts.appends[append]);
        let transaction = transaction.filter(|append| self.facts.writers[append.writer].writer.transactional);
        let committed = transaction.is_none_or(|append| {
            append.transaction.iter().all(|(_, committed)| *committed)
                && append.transaction.iter().any(|(end, _)| *end < event)
        });
        committed && !is_within(&self.log.aborted, offset)
    }

    /// Checks that a reader of committed records may get a record.
    fn check_committed(&mut self, event: usize, offset: i64, value: &Value) {
        if !self.reader.reader.committed {
            return;
        }
        let append = self.facts.owner(value).map(|(append, _)| &self.facts.appends[append]);
        let transaction = append.filter(|append| self.facts.writers[append.writer].writer.transactional);
        let problem = match transaction.map(|append| &append.transaction) {
            Some(ends) if ends.iter().any(|(end, committed)| *committed && *end < event) => return,
            Some(ends) if ends.iter().any(|(end, _)| *end < event) => "was aborted",
            Some(_) => "is open",
            None if is_within(&self.log.aborted, offset) && record_at(self.log, offset) == Some(value) => {
                "was aborted"
            }
            None => return,
        };
        let id = self.reader.id;
        self.violated(Rule::Committed, event, offset, || {
            format!("{id} got {value} at {offset}, whose transaction {problem}")
        });
    }

    /// Checks that no record between two offsets was skipped.
    pub(super) fn check_skipped(&mut self, event: usize, from: i64, to: i64) {
        if from >= to {
            return;
        }
        let records = &self.log.records;
        let first = records.partition_point(|(offset, _)| *offset < from);
        let on_log = records[first..].iter().take_while(|(offset, _)| *offset < to);
        let on_log = on_log.filter(|(offset, value)| self.is_required(event, *offset, value));
        let on_log = on_log.map(|(offset, _)| *offset);
        let first = self.missing.partition_point(|offset| *offset < from);
        let missing = self.missing[first..].iter().copied().take_while(|offset| *offset < to);
        let missing = missing.filter(|offset| record_at(self.log, *offset).is_none());
        let passed =
            on_log.chain(missing).filter(|offset| self.partition.lost(self.since, *offset).is_none());
        let (count, first) =
            passed.fold((0_usize, i64::MAX), |(count, first), offset| (count + 1, first.min(offset)));
        if count > 0 {
            let id = self.reader.id;
            self.violated(Rule::ReadEvery, event, first, || {
                format!("{id} skipped {count} records from {from} to {to}, the first at {first}")
            });
        }
    }

    /// Checks that a record is, or was, on the log.
    fn seen(&mut self, event: usize, offset: i64, value: &Value) {
        self.check_committed(event, offset, value);
        // Usually it is the one after the last.
        let expected = self.log.records.get(self.behind);
        if expected.is_some_and(|(at, there)| *at == offset && there == value) {
            self.behind += 1;
            return;
        }
        self.behind = self.log.records.partition_point(|(at, _)| *at <= offset);
        let on_log = record_at(self.log, offset);
        if on_log == Some(value) {
            return;
        }
        let lost = self.partition.lost(self.since, offset);
        // Only a loss excuses that another record is there now. Where there is no record now, there may have
        // been one.
        let excused = lost.is_some()
            || on_log.is_none()
                && (offset < self.log.offsets.start
                    || is_empty(self.log, offset)
                    || self.missing.binary_search(&offset).is_ok()
                    || offset >= self.log.offsets.end && event > self.log_event);
        if excused && self.may_have_been(offset, value, lost) {
            // Offsets that were deleted or compacted show nothing.
            if let Some(loss) = lost.filter(|_| on_log.is_some() || offset >= self.log.offsets.end) {
                self.note(event, offset, loss);
            }
            return;
        }
        let id = self.reader.id;
        self.violated(Rule::ReadTrue, event, offset, || match on_log {
            Some(there) => format!("{id} got {value} at {offset}, where the log has {there}"),
            None => format!("{id} got {value} at {offset}, where the log never had it"),
        });
    }

    /// Returns whether a record may have been at an offset, according to the outcome of its append.
    fn may_have_been(&self, offset: i64, value: &Value, lost: Option<&Loss>) -> bool {
        let Some((append, record)) = self.facts.owner(value) else {
            return value.is_barrier() && self.partition.has_holders
                || self.partition.barriers.iter().any(|barrier| barrier.offset == offset);
        };
        let append = &self.facts.appends[append];
        match append.outcome() {
            // One that was acknowledged only after a loss may have been lost by it, and appended again
            // elsewhere.
            Some(AppendOutcome::Acked { base_offset }) => {
                let acked = append.end.map_or(0, |(event, ..)| event);
                base_offset.saturating_add(record as i64) == offset
                    || lost.is_some_and(|loss| append.event < loss.event && loss.event < acked)
            }
            Some(AppendOutcome::NotAppended | AppendOutcome::Withdrawn) => false,
            Some(AppendOutcome::AckedAtUnknownOffset | AppendOutcome::Unknown | AppendOutcome::Dropped)
            | None => true,
        }
    }

    /// Notes that it has seen a lost record.
    fn note(&mut self, seen: usize, offset: i64, loss: &Loss) {
        let diverged =
            self.diverged.get_or_insert(Diverged { offset, seen, lost: loss.event, recreated: false });
        if offset < diverged.offset {
            (diverged.offset, diverged.seen) = (offset, seen);
        }
        if loss.event >= diverged.lost {
            (diverged.lost, diverged.recreated) = (loss.event, loss.recreated);
        }
    }

    /// Checks that it does not continue after a loss without having got an error.
    fn check_continues(&mut self, event: usize) {
        let Some(diverged) = self.diverged.filter(|diverged| self.since > diverged.lost) else { return };
        self.diverged = None;
        // After a rewind, the epochs of what was lost are given to other records.
        let is_rewound = self.partition.rewound.is_some_and(|rewound| rewound < event);
        if (self.reader.reader.without_epoch || is_rewound) && !diverged.recreated {
            return;
        }
        let Diverged { offset, seen, lost, .. } = diverged;
        let id = self.reader.id;
        let events = [(seen, Some(offset)), (lost, None), (event, None), (self.log_event, Some(offset))];
        self.verdict.violated(Rule::Truncation, events, || {
            format!("{id} continues without an error, and the records that it got from {offset} on were lost")
        });
    }

    fn failed(&mut self, event: usize, failure: ReadFailure) {
        let id = self.reader.id;
        let losses = &self.partition.losses;
        match failure {
            ReadFailure::Other => {}
            ReadFailure::OutOfRange => {
                // A replica that becomes the leader need not know of what was deleted before.
                let start = self.log.offsets.start.max(self.partition.deleted_by(event));
                let position = self.position.filter(|position| {
                    let end = self.partition.acked_end(self.since);
                    (start..=end).contains(position)
                });
                if let Some(position) = position.filter(|_| losses.is_empty() && event < self.log_event) {
                    self.violated(Rule::FalseAlarm, event, position, || {
                        format!("{id} got an error that {position} is out of range, and it never was")
                    });
                }
                self.move_to(None);
            }
            ReadFailure::Trimmed { log_start } => self.trimmed(event, log_start),
            ReadFailure::BeyondEnd { end } => {
                let position = self.position.filter(|position| {
                    let known = self.partition.acked_end(self.since).max(self.read_to);
                    *position <= end || losses.is_empty() && *position <= known
                });
                let excused = event > self.log_event || self.partition.is_stale(end, event);
                if let Some(position) = position.filter(|position| !excused || *position <= end) {
                    self.violated(Rule::FalseAlarm, event, position, || {
                        format!("{id} got an error that {position} is after the end {end}, and it never was")
                    });
                }
                self.move_to(None);
            }
            ReadFailure::EpochUnknown => {
                let recreated = losses.iter().any(|loss| loss.recreated);
                if self.partition.rewound.is_none_or(|rewound| rewound > event) && !recreated {
                    let position = self.position.unwrap_or_default();
                    self.violated(Rule::FalseAlarm, event, position, || {
                        format!("{id} got an error about an unknown epoch, and no epoch went back")
                    });
                }
            }
            ReadFailure::Truncated { diverged_at } => {
                let position = self.position.unwrap_or(i64::MAX);
                // The end of a replay was there as well.
                let known = position.max(self.replay.as_ref().map_or(0, |replay| replay.end));
                let lost = losses.iter().any(|loss| loss.offset < known);
                if !lost && self.partition.rewound.is_none() {
                    self.violated(Rule::FalseAlarm, event, diverged_at, || {
                        format!("{id} got an error about a loss, and no loss is recorded")
                    });
                }
                let is_rewound = self.partition.rewound.is_some_and(|rewound| rewound < event);
                if let Some(diverged) = self
                    .diverged
                    .filter(|diverged| diverged.lost < event && diverged.offset < diverged_at && !is_rewound)
                {
                    let Diverged { offset, seen, .. } = diverged;
                    let events = [(seen, Some(offset)), (event, None), (self.log_event, Some(offset))];
                    self.verdict.violated(Rule::Truncation, events, || {
                        format!("{id} got an error about a loss from {diverged_at} on, and the record that it got at {offset} was lost, too")
                    });
                }
                self.move_to(Some(diverged_at));
            }
            ReadFailure::Recreated => {
                if !losses.iter().any(|loss| loss.recreated) {
                    let position = self.position.unwrap_or_default();
                    self.violated(Rule::FalseAlarm, event, position, || {
                        format!(
                            "{id} got an error that the topic was created again, and that is not recorded"
                        )
                    });
                }
                self.move_to(None);
            }
        }
    }

    /// Checks that a reader that is before the log start was told so, and by right.
    fn trimmed(&mut self, event: usize, log_start: i64) {
        let id = self.reader.id;
        let deleted = self.partition.deleted_by(event).max(self.log.offsets.start);
        let within = self.position.filter(|position| *position >= log_start);
        if within.is_some() || log_start > deleted && event < self.log_event {
            let position = self.position.unwrap_or(log_start);
            self.violated(Rule::FalseAlarm, event, position, || {
                format!(
                    "{id} got an error that the log starts at {log_start}, and its position was {position}"
                )
            });
        }
        self.move_to(Some(log_start));
    }

    fn move_to(&mut self, position: Option<i64>) {
        self.position = position;
        self.diverged = None;
    }
}

/// Returns whether an offset is in one of some ranges, which ascend.
fn is_within(ranges: &[Range<i64>], offset: i64) -> bool {
    let index = ranges.partition_point(|range| range.end <= offset);
    ranges.get(index).is_some_and(|range| range.contains(&offset))
}
