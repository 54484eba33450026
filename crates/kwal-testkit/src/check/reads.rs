//! Checks what readers got against the logs.

use super::{
    facts::{Facts, Loss, Partition, ReaderFacts, Step},
    logs::{Judged, is_empty, record_at},
    types::{AppendOutcome, Log, ReadFailure},
    value::Value,
    verdict::{Rule, VerdictBuilder},
};

pub(super) fn judge<'a>(facts: &Facts<'a>, judged: &Judged, verdict: &mut VerdictBuilder<'a>) {
    for reader in &facts.readers {
        let partition = &facts.partitions[reader.partition];
        let Some((log_event, log)) = partition.log else { continue };
        let Some(missing) = &judged.missing[reader.partition] else { continue };
        let position = Some(reader.reader.offset);
        let since = reader.event;
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
            behind: 0,
            diverged: None,
        };
        for (event, step) in &reader.steps {
            match step {
                Step::Read(records, next) => judge.read(*event, records, *next),
                Step::Failed(failure) => judge.failed(*event, *failure),
                Step::Seek(offset) => judge.move_to(Some(*offset)),
            }
            judge.since = *event;
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

/// Checks one reader.
struct Judge<'a, 'b, 'c> {
    facts: &'b Facts<'a>,
    partition: &'b Partition<'a>,
    log_event: usize,
    log: &'a Log,
    /// The offsets of acknowledged records that are missing.
    missing: &'b [i64],
    reader: &'b ReaderFacts<'a>,
    verdict: &'b mut VerdictBuilder<'c>,
    /// Its position, if known.
    position: Option<i64>,
    /// Its previous event: a fetch cannot be older.
    since: usize,
    /// The index on the log of the record after the last one that it got.
    behind: usize,
    /// Lost records that it has seen since the last error.
    diverged: Option<Diverged>,
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
    fn violated(&mut self, rule: Rule, event: usize, offset: i64, message: impl FnOnce() -> String) {
        let events = [(event, Some(offset)), (self.log_event, Some(offset))];
        self.verdict.violated(rule, events, message);
    }

    fn read(&mut self, event: usize, records: &[(i64, Value)], next: i64) {
        let id = self.reader.id;
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
        self.position = Some(next);
    }

    /// Checks that no record between two offsets was skipped.
    fn check_skipped(&mut self, event: usize, from: i64, to: i64) {
        if from >= to {
            return;
        }
        let records = &self.log.records;
        let first = records.partition_point(|(offset, _)| *offset < from);
        let on_log = records[first..].iter().map(|(offset, _)| *offset).take_while(|offset| *offset < to);
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
        if self.reader.reader.without_epoch && !diverged.recreated {
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
                let position = self.position.filter(|position| {
                    let end = self.partition.acked_end(self.since);
                    (self.log.offsets.start..=end).contains(position)
                });
                if let Some(position) = position.filter(|_| losses.is_empty() && event < self.log_event) {
                    self.violated(Rule::FalseAlarm, event, position, || {
                        format!("{id} got an error that {position} is out of range, and it never was")
                    });
                }
                self.move_to(None);
            }
            ReadFailure::Truncated { diverged_at } => {
                if losses.is_empty() {
                    self.violated(Rule::FalseAlarm, event, diverged_at, || {
                        format!("{id} got an error about a loss, and no loss is recorded")
                    });
                }
                if let Some(diverged) =
                    self.diverged.filter(|diverged| diverged.lost < event && diverged.offset < diverged_at)
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

    fn move_to(&mut self, position: Option<i64>) {
        self.position = position;
        self.diverged = None;
    }
}
