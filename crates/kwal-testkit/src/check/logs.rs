//! Checks the logs against the results of appends.

mod holders;
mod writers;

use std::{collections::BTreeSet, ops::Range};

use self::holders::producer_at;
use super::{
    facts::{Append, Facts, Loss, Partition},
    types::{AppendOutcome, Log, Writer},
    value::Value,
    verdict::{Rule, VerdictBuilder},
};

/// What the logs show about the appends.
pub(super) struct Judged {
    /// The offset of each record of all appends.
    places: Vec<Option<i64>>,
    /// For each partition, the offsets of acknowledged records that are missing, in order.
    ///
    /// `None` if its log cannot be judged.
    pub(super) missing: Vec<Option<Vec<i64>>>,
}

pub(super) fn judge<'a>(facts: &Facts<'a>, verdict: &mut VerdictBuilder<'a>) -> Judged {
    let missing = facts.partitions.iter().map(|_| None).collect();
    let mut judged = Judged { places: vec![None; facts.records], missing };
    for (index, partition) in facts.partitions.iter().enumerate() {
        let Some((event, log)) = partition.log else { continue };
        if !is_sound(event, log, verdict) {
            continue;
        }
        let mut judge =
            Judge { facts, partition, event, log, judged: &mut judged, verdict, missing: Vec::new() };
        judge.barriers();
        judge.epochs();
        judge.producers();
        judge.records(index);
        judge.appends();
        judge.gaps();
        judge.missing.sort_unstable();
        judge.twice_acked();
        let missing = std::mem::take(&mut judge.missing);
        for writer in facts.writers.iter().filter(|writer| writer.partition == index) {
            judge.order(writer);
            if !writer.writer.on_failure_continue {
                judge.no_hole(writer);
            }
            if !writer.writer.without_ids {
                judge.loss_ends(writer);
            }
            judge.rising(writer);
        }
        judged.missing[index] = Some(missing);
    }
    for writer in &facts.writers {
        let Some(ended) = writer.ended else { continue };
        for append in writer.appends.iter().map(|index| &facts.appends[*index]) {
            if append.event > ended && (append.is_acked() || judged.is_on_log(append)) {
                let log =
                    facts.partitions[append.partition].log.map(|(event, _)| (event, judged.base(append)));
                verdict.violated(Rule::Ended, append.events().chain([(ended, None)]).chain(log), || {
                    format!("{} was appended by {}, which had ended before", append.id, writer.id)
                });
            }
        }
    }
    judged
}

impl Judged {
    pub(super) fn places(&self, append: &Append<'_>) -> &[Option<i64>] {
        &self.places[append.first..append.first + append.records.len()]
    }

    pub(super) fn is_on_log(&self, append: &Append<'_>) -> bool {
        self.base(append).is_some()
    }

    /// Returns the base offset, derived from the first record that is found.
    pub(super) fn base(&self, append: &Append<'_>) -> Option<i64> {
        let mut places = self.places(append).iter().enumerate();
        places.find_map(|(index, place)| Some(place.as_ref()?.saturating_sub(index as i64)))
    }
}

/// Returns whether a log is consistent.
///
/// Offsets ascend, are within the log, and hold no record where the log says that there is none.
fn is_sound<'a>(event: usize, log: &'a Log, verdict: &mut VerdictBuilder<'a>) -> bool {
    let rising = log.records.is_sorted_by(|(a, _), (b, _)| a < b);
    let ends = [log.records.first(), log.records.last()];
    let within = ends.into_iter().flatten().all(|(offset, _)| log.offsets.contains(offset));
    let apart = log.empty.iter().all(|empty| empty.start <= empty.end)
        && log.empty.is_sorted_by(|a, b| a.end <= b.start)
        && log.empty.iter().all(|empty| records_in(log, empty).is_empty());
    let batches = || log.producers.iter().map(|(offsets, _)| offsets);
    let batches = batches().all(|batch| batch.start < batch.end)
        && log.producers.is_sorted_by(|(a, _), (b, _)| a.end <= b.start);
    let aborted = log.aborted.iter().all(|aborted| aborted.start < aborted.end)
        && log.aborted.is_sorted_by(|a, b| a.end <= b.start);
    let problem = match (rising, within, apart, batches && aborted) {
        (false, ..) => "the offsets of the records do not ascend",
        (_, false, ..) => "there are records outside the log",
        (.., false, _) => "the offsets without a record hold one, or are out of order",
        (.., false) => "the batches of producers or of aborted transactions are out of order",
        _ => return true,
    };
    verdict.violated(Rule::History, [(event, None)], || format!("the log of {}: {problem}", log.partition));
    false
}

fn records_in<'a>(log: &'a Log, offsets: &Range<i64>) -> &'a [(i64, Value)] {
    let from = log.records.partition_point(|(offset, _)| *offset < offsets.start);
    let to = log.records.partition_point(|(offset, _)| *offset < offsets.end);
    log.records.get(from..to).unwrap_or_default()
}

/// Returns whether everything that a writer has appended is still there. Otherwise a record that is missing
/// now may have been on the log, and been lost, deleted or compacted since.
pub(super) fn is_whole(partition: &Partition<'_>, log: &Log, writer: &Writer) -> bool {
    !partition.may_lose(writer) && log.offsets.start == 0 && log.empty.is_empty()
}

/// Returns the record at an offset.
pub(super) fn record_at(log: &Log, offset: i64) -> Option<&Value> {
    let index = log.records.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
    Some(&log.records[index].1)
}

/// Returns whether the log says that an offset holds no record.
pub(super) fn is_empty(log: &Log, offset: i64) -> bool {
    let index = log.empty.partition_point(|empty| empty.end <= offset);
    log.empty.get(index).is_some_and(|empty| empty.contains(&offset))
}

/// Returns whether the record at an offset may have been deleted.
pub(super) fn is_deleted(partition: &Partition<'_>, log: &Log, offset: i64) -> bool {
    (0..log.offsets.start.min(partition.deleted)).contains(&offset)
}

/// Checks one log.
struct Judge<'a, 'b, 'c> {
    facts: &'b Facts<'a>,
    partition: &'b Partition<'a>,
    event: usize,
    log: &'a Log,
    judged: &'b mut Judged,
    verdict: &'b mut VerdictBuilder<'c>,
    /// The offsets of acknowledged records that are missing.
    missing: Vec<i64>,
}

impl<'a> Judge<'a, '_, '_> {
    fn append(&self, index: usize) -> &Append<'a> {
        &self.facts.appends[index]
    }

    fn violated(
        &mut self,
        rule: Rule,
        append: usize,
        offset: Option<i64>,
        message: impl FnOnce(&Append<'a>) -> String,
    ) {
        let append = &self.facts.appends[append];
        let events = append.events().chain([(self.event, offset)]);
        self.verdict.violated(rule, events, || message(append));
    }

    /// Returns whether a record that was at an offset after the event `since` may be missing.
    fn is_excused(&self, since: usize, offset: i64) -> bool {
        self.is_deleted(offset) || is_empty(self.log, offset) || self.partition.lost(since, offset).is_some()
    }

    /// Returns the last event that may have lost the record of an append at an offset.
    fn lost_of(&self, append: &Append<'_>, offset: i64) -> Option<&Loss> {
        let writer = self.facts.writers[append.writer].writer;
        self.partition.lost_by(writer, append.event, offset)
    }

    fn is_deleted(&self, offset: i64) -> bool {
        is_deleted(self.partition, self.log, offset)
    }

    /// Finds the offsets of all records, and reports records that should not be there.
    fn records(&mut self, partition: usize) {
        let barriers = self.partition.barriers.iter().map(|barrier| barrier.offset);
        let mut barriers: Vec<_> = barriers.collect();
        barriers.sort_unstable();
        let mut marks = BTreeSet::new();
        // Each append is reported once.
        let mut reported = vec![false; self.facts.appends.len()];
        for (offset, value) in &self.log.records {
            let Some((index, record)) = self.facts.owner(value) else {
                if value.is_barrier() && self.partition.has_holders {
                    // A fence of an earlier producer id may have the same mark.
                    let producer = producer_at(self.log, *offset);
                    if producer.is_some() && !marks.insert((value, producer)) {
                        self.verdict.violated(Rule::Once, [(self.event, Some(*offset))], || {
                            format!("the barrier {value} is on the log again, at {offset}")
                        });
                    }
                } else if barriers.binary_search(offset).is_err() {
                    self.verdict.violated(Rule::Asked, [(self.event, Some(*offset))], || {
                        format!("{value} is at {offset} and was never submitted")
                    });
                }
                continue;
            };
            let append = &self.facts.appends[index];
            if append.partition != partition {
                let of = self.facts.partitions[append.partition].name;
                self.violated(Rule::Asked, index, Some(*offset), |_| {
                    format!("{value} is at {offset} and was submitted to {of}")
                });
                continue;
            }
            let place = &mut self.judged.places[append.first + record];
            let right = append.acked_at().map(|base| base.saturating_add(record as i64));
            let twice = place.is_some();
            if place.is_none() || right == Some(*offset) {
                *place = Some(*offset);
            }
            let broken = match append.outcome() {
                Some(AppendOutcome::NotAppended) => Rule::NotAppended,
                Some(AppendOutcome::Withdrawn) => Rule::Withdrawn,
                _ if twice => Rule::Once,
                _ => continue,
            };
            if !std::mem::replace(&mut reported[index], true) {
                self.violated(broken, index, Some(*offset), |append| match broken {
                    Rule::NotAppended => {
                        format!("{} was reported as not appended, and its record {value} is at {offset}", append.id)
                    }
                    Rule::Withdrawn => {
                        format!(
                            "{} was dropped before its place was fixed, and its record {value} is at {offset}",
                            append.id
                        )
                    }
                    _ => format!("{value} of {} is on the log again, at {offset}", append.id),
                });
            }
        }
    }

    /// Checks that acknowledged appends are at their offsets, and that every append is complete.
    fn appends(&mut self) {
        let partition = self.partition;
        for index in &partition.appends {
            let append = &self.facts.appends[*index];
            match append.acked_at() {
                Some(base) => self.acked(*index, base),
                None => {
                    self.whole(*index);
                    self.somewhere(*index);
                }
            }
        }
    }

    fn acked(&mut self, index: usize, base: i64) {
        let append = &self.facts.appends[index];
        let late = append.end.is_some_and(|(event, _, _)| event > self.event);
        let (mut lost, mut misplaced) = (None, None);
        for record in 0..append.records.len() {
            let right = base.saturating_add(record as i64);
            match self.judged.places(append)[record] {
                Some(place) if place == right => {}
                Some(place) => misplaced = misplaced.or(Some((record, place))),
                None => {
                    let is_lost = self.lost_of(append, right).is_some();
                    if !is_lost && !is_empty(self.log, right) {
                        self.missing.push(right);
                    }
                    if !late && !is_lost && !self.is_excused(append.event, right) {
                        lost = lost.or(Some((record, right)));
                    }
                }
            }
        }
        if let Some((record, offset)) = lost {
            self.violated(Rule::Durable, index, Some(offset), |append| {
                let value = &append.records[record];
                format!("{} was acknowledged, and its record {value} is missing at {offset}", append.id)
            });
        } else if let Some((record, place)) = misplaced {
            // An earlier attempt may exist on one replica only. If that replica is elected, the records
            // reappear at other offsets.
            let excused = self.lost_of(append, base.min(place.saturating_sub(record as i64))).is_some();
            let base_by_log = self.judged.base(append);
            let mut places = self.judged.places(append).iter().enumerate();
            let incomplete = places.any(|(record, place)| {
                place.is_some_and(|place| Some(place.saturating_sub(record as i64)) != base_by_log)
            });
            if incomplete {
                self.incomplete(index);
            } else if !excused {
                self.violated(Rule::Offset, index, Some(place), |append| {
                    let value = &append.records[record];
                    format!("{} was acknowledged at {base}, and its record {value} is at {place}", append.id)
                });
            }
        }
    }

    /// Checks that an append that was acknowledged without an offset is on the log, if nothing was removed.
    fn somewhere(&mut self, index: usize) {
        let append = &self.facts.appends[index];
        let late = append.end.is_some_and(|(event, _, _)| event > self.event);
        let removed = self.partition.deleted > 0 || !self.log.empty.is_empty();
        let is_lost = removed || self.lost_of(append, i64::MAX).is_some();
        if append.is_acked() && !late && !is_lost && !self.judged.is_on_log(append) {
            self.violated(Rule::Durable, index, None, |append| {
                format!("{} was acknowledged, and is missing", append.id)
            });
        }
    }

    /// Checks that an append without an acknowledged offset is on the log completely or not at all.
    fn whole(&mut self, index: usize) {
        let append = &self.facts.appends[index];
        let Some(base) = self.judged.base(append) else { return };
        let mut places = self.judged.places(append).iter().enumerate();
        let incomplete = places.any(|(record, place)| {
            let right = base.saturating_add(record as i64);
            match place {
                Some(place) => *place != right,
                None => !self.is_deleted(right) && !is_empty(self.log, right),
            }
        });
        if incomplete {
            self.incomplete(index);
        }
    }

    fn incomplete(&mut self, index: usize) {
        let offset = self.judged.base(&self.facts.appends[index]);
        let places = self.judged.places(&self.facts.appends[index]);
        let shown: Vec<_> = places
            .iter()
            .take(8)
            .map(|place| place.map_or("nowhere".to_owned(), |p| p.to_string()))
            .collect();
        let more = if places.len() > shown.len() { ", …" } else { "" };
        self.violated(Rule::Whole, index, offset, |append| {
            format!(
                "the records of {} are not at consecutive offsets, but at {}{more}",
                append.id,
                shown.join(", ")
            )
        });
    }

    /// Checks that each offset holds a record, or that there is a reason why not.
    fn gaps(&mut self) {
        self.missing.sort_unstable();
        let mut next = self.log.offsets.start;
        let mut empty = self.log.empty.iter().peekable();
        let records = self.log.records.iter().map(|(offset, _)| *offset);
        for offset in records.chain([self.log.offsets.end]) {
            while let Some(known) = empty.next_if(|known| known.start < offset) {
                self.gap(next..known.start);
                next = next.max(known.end);
            }
            self.gap(next..offset);
            next = next.max(offset.saturating_add(1));
        }
    }

    fn gap(&mut self, offsets: Range<i64>) {
        if offsets.is_empty() {
            return;
        }
        let from = self.missing.partition_point(|offset| *offset < offsets.start);
        let mut first = offsets.start;
        for missing in self.missing[from..].iter().take_while(|offset| **offset < offsets.end) {
            if *missing > first {
                break;
            }
            first = missing.saturating_add(1);
        }
        if first < offsets.end {
            self.verdict.violated(Rule::Asked, [(self.event, Some(first))], || {
                format!("some of the offsets {offsets:?} hold no record without a reason, {first} first")
            });
        }
    }

    /// Checks that no two appends were acknowledged at the same offset, where the log no longer shows it.
    fn twice_acked(&mut self) {
        if !self.partition.losses.is_empty() || !self.partition.unreplicated.is_empty() {
            return;
        }
        let twice: Vec<_> =
            self.missing.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        for offset in twice {
            if offset >= self.log.offsets.start {
                continue;
            }
            let acknowledged =
                self.partition.appends.iter().map(|index| &self.facts.appends[*index]).filter(|append| {
                    append.acked_at().is_some_and(|base| {
                        base <= offset && offset < base.saturating_add(append.records.len() as i64)
                    })
                });
            self.verdict.violated(Rule::Offset, acknowledged.flat_map(Append::events), || {
                format!("more than one append was acknowledged at {offset}")
            });
        }
    }
}
