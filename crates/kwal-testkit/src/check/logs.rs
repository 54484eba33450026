//! Checks the logs against the results of appends.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use super::{
    facts::{Append, Barrier, Facts, Partition, WriterFacts},
    history::{AppendOutcome, Log, SubmitOrder},
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
        judge.records(index);
        judge.appends();
        judge.gaps();
        judge.missing.sort_unstable();
        judge.twice_acked();
        let missing = std::mem::take(&mut judge.missing);
        for writer in facts.writers.iter().filter(|writer| writer.partition == index) {
            judge.order(&writer.appends);
            if !writer.writer.on_failure_continue {
                judge.no_hole(&writer.appends);
            }
            judge.loss_ends(writer);
        }
        judged.missing[index] = Some(missing);
    }
    for writer in &facts.writers {
        let Some(ended) = writer.ended else { continue };
        for append in writer.appends.iter().map(|index| &facts.appends[*index]) {
            if append.event > ended && (append.acked_at().is_some() || judged.is_on_log(append)) {
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
    fn places(&self, append: &Append<'_>) -> &[Option<i64>] {
        &self.places[append.first..append.first + append.records.len()]
    }

    fn is_on_log(&self, append: &Append<'_>) -> bool {
        self.base(append).is_some()
    }

    /// Returns the base offset, derived from the first record that is found.
    fn base(&self, append: &Append<'_>) -> Option<i64> {
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
    let problem = match (rising, within, apart) {
        (false, ..) => "the offsets of the records do not ascend",
        (_, false, _) => "there are records outside the log",
        (.., false) => "the offsets without a record hold one, or are out of order",
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

/// The exclusive writers of one name.
#[derive(Default)]
struct Holders {
    /// By offset: the offset, the event and the writer.
    barriers: Vec<(i64, usize, usize)>,
    /// The writers whose barrier was lost, with the event of the barrier.
    lost: BTreeMap<usize, usize>,
}

/// Why a record of an exclusive writer is misplaced.
enum Fault {
    /// A later writer's barrier is at this lower offset.
    Behind(i64, usize),
    /// Its own writer's barrier comes only after it.
    Before,
}

impl Holders {
    fn at_fault(&self, writer: usize, offset: i64) -> Option<Fault> {
        let before = &self.barriers[..self.barriers.partition_point(|(barrier, ..)| *barrier < offset)];
        let (barrier, _, holder) = match (before.last(), self.lost.get(&writer)) {
            (Some((.., holder)), _) if *holder == writer => return None,
            // The offset no longer shows which of them is the later one.
            (_, Some(had)) => before.iter().find(|(_, event, holder)| event > had && *holder != writer)?,
            (last, None) => match (last, self.barriers.iter().find(|(.., holder)| *holder == writer)?) {
                (Some(last), (own, ..)) if *own < offset => last,
                _ => return Some(Fault::Before),
            },
        };
        Some(Fault::Behind(*barrier, *holder))
    }
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

    fn is_deleted(&self, offset: i64) -> bool {
        (0..self.log.offsets.start.min(self.partition.deleted)).contains(&offset)
    }

    /// Checks that barriers are at their offsets, and that no earlier writer appended after them.
    fn barriers(&mut self) {
        let partition = self.partition;
        let mut of_name: BTreeMap<&Value, Holders> = BTreeMap::new();
        for barrier @ Barrier { event, writer, offset } in &partition.barriers {
            let Some(name) = &self.facts.writers[*writer].writer.exclusive else {
                self.finds(barrier);
                continue;
            };
            let there = self.finds(barrier);
            let holders = of_name.entry(name).or_default();
            if there {
                holders.barriers.push((*offset, *event, *writer));
            } else {
                holders.lost.insert(*writer, *event);
            }
        }
        for holders in of_name.values_mut() {
            holders.barriers.sort_unstable();
        }
        if of_name.is_empty() {
            return;
        }
        let mut reported = None;
        for (offset, value) in &self.log.records {
            let Some((index, _)) = self.facts.owner(value) else { continue };
            let writer = self.facts.appends[index].writer;
            let name = self.facts.writers[writer].writer.exclusive.as_ref();
            let Some(holders) = name.and_then(|name| of_name.get(name)) else { continue };
            let problem = match holders.at_fault(writer, *offset) {
                Some(Fault::Behind(barrier, holder)) => {
                    format!("after the barrier of {} at {barrier}", self.facts.writers[holder].id)
                }
                Some(Fault::Before) => "before its barrier".to_owned(),
                None => continue,
            };
            if reported.replace(index) != Some(index) {
                let id = self.facts.writers[writer].id;
                self.violated(Rule::OneWriter, index, Some(*offset), |append| {
                    format!("{} of {id} is at {offset}, {problem}", append.id)
                });
            }
        }
    }

    /// Checks that a barrier is on the log, unless it was lost; returns whether it counts.
    fn finds(&mut self, barrier: &Barrier) -> bool {
        let Barrier { event, offset, .. } = *barrier;
        let there = record_at(self.log, offset).map(|value| self.facts.owner(value).is_none());
        if self.partition.lost(event, offset).is_some() {
            // It may be there all the same, unless another barrier took its offset.
            let later = self.partition.barriers.iter().rev().find(|barrier| barrier.offset == offset);
            return there == Some(true) && later.is_none_or(|later| later.event == event);
        }
        if there == Some(true) || is_empty(self.log, offset) {
            return true;
        }
        self.missing.extend(there.is_none().then_some(offset));
        if event < self.event && !self.is_excused(event, offset) {
            let writer = self.facts.writers[barrier.writer].id;
            self.verdict.violated(Rule::Durable, [(event, None), (self.event, Some(offset))], || {
                format!("the barrier of {writer} is missing at {offset}")
            });
        }
        true
    }

    /// Finds the offsets of all records, and reports records that should not be there.
    fn records(&mut self, partition: usize) {
        let barriers = self.partition.barriers.iter().map(|barrier| barrier.offset);
        let mut barriers: Vec<_> = barriers.collect();
        barriers.sort_unstable();
        // Each append is reported once.
        let mut reported = vec![false; self.facts.appends.len()];
        for (offset, value) in &self.log.records {
            let Some((index, record)) = self.facts.owner(value) else {
                if barriers.binary_search(offset).is_err() {
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
                None => self.whole(*index),
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
                    if !is_empty(self.log, right) && self.partition.lost(append.event, right).is_none() {
                        self.missing.push(right);
                    }
                    if !late && !self.is_excused(append.event, right) {
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
            let excused =
                self.partition.lost(append.event, base.min(place.saturating_sub(record as i64))).is_some();
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

    /// Checks that an append without an acknowledgement is on the log completely or not at all.
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
        if !self.partition.losses.is_empty() {
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

    /// Checks that the appends of a writer, given by index in order of events, are on the log in that order.
    fn order(&mut self, appends: &[usize]) {
        let mut on_log: Vec<_> = appends
            .iter()
            .filter_map(|index| {
                let append = self.append(*index);
                let deleted = append.acked_at().filter(|base| {
                    self.is_deleted(*base) && self.partition.lost(append.event, *base).is_none()
                });
                Some((self.judged.base(append).or(deleted)?, *index))
            })
            .collect();
        on_log.sort_unstable();
        // Of the appends at higher offsets, the one whose place was fixed first.
        let mut earliest: Option<(usize, usize)> = None;
        for (offset, index) in on_log.into_iter().rev() {
            let append = &self.facts.appends[index];
            if let Some((fixed, earlier)) = earliest
                && fixed < append.event
            {
                let earlier = &self.facts.appends[earlier];
                let behind = self.judged.base(earlier).or_else(|| earlier.acked_at()).unwrap_or_default();
                let events = append.events().chain(earlier.events()).chain([(self.event, Some(offset))]);
                self.verdict.violated(Rule::Order, events, || {
                    let (id, earlier) = (append.id, earlier.id);
                    format!("{id} was submitted after {earlier} and is at {offset}, before it at {behind}")
                });
            }
            let fixed = append.fixed();
            if earliest.is_none_or(|(earliest, _)| fixed < earliest) {
                earliest = Some((fixed, index));
            }
        }
    }

    /// Checks that appends submitted after one that fails, before its error was returned, fail too.
    fn no_hole(&mut self, appends: &[usize]) {
        // A record that is missing now may have been on the log, and been lost, deleted or compacted since.
        let whole =
            self.partition.losses.is_empty() && self.log.offsets.start == 0 && self.log.empty.is_empty();
        let mut failed: Option<(Duration, usize)> = None;
        let mut absent: Option<(Duration, usize)> = None;
        for index in appends {
            let append = &self.facts.appends[*index];
            let on_log = self.judged.is_on_log(append);
            if append.order == SubmitOrder::Fixed {
                let handed_out = append.at.saturating_add(self.verdict.expect.grace);
                let behind = |failed: Option<(Duration, usize)>| failed.filter(|(at, _)| *at > handed_out);
                let acked = append.acked_at().is_some();
                let first = behind(failed).filter(|_| acked);
                let first = first.or_else(|| behind(absent).filter(|_| whole && (acked || on_log)));
                if let Some((_, first)) = first {
                    self.hole(first, *index);
                }
            }
            let Some((_, at, outcome)) = append.end else { continue };
            if append.order == SubmitOrder::Unordered {
                continue;
            }
            let latest = |known: &mut Option<(Duration, usize)>| *known = (*known).max(Some((at, *index)));
            if matches!(outcome, AppendOutcome::NotAppended | AppendOutcome::Unknown) {
                latest(&mut failed);
            }
            if matches!(outcome, AppendOutcome::NotAppended | AppendOutcome::Unknown | AppendOutcome::Dropped)
                && !on_log
            {
                latest(&mut absent);
            }
        }
    }

    /// Checks that no append of a writer follows a lost one on the log, except the one by whose offset the
    /// writer learned of the loss.
    fn loss_ends(&mut self, writer: &WriterFacts<'_>) {
        let appends = || writer.appends.iter().map(|index| &self.facts.appends[*index]);
        let ended = appends().filter_map(|append| Some((append.end?, append.event)));
        let before_loss = ended.filter(|((event, ..), _)| writer.lost.is_some_and(|lost| *event < lost));
        let last = before_loss.max_by_key(|((event, ..), _)| *event);
        let reveals = last.filter(|((_, _, outcome), _)| *outcome == AppendOutcome::Unknown);
        let reveals = reveals.map(|(_, append)| append);
        let lost = appends().filter_map(|append| {
            let base = append.acked_at()?;
            let gone = !self.judged.is_on_log(append) && !self.is_deleted(base) && !is_empty(self.log, base);
            let loss = self.partition.lost(append.event, base).filter(|_| gone)?;
            Some((append.fixed(), append, loss.event))
        });
        let Some((fixed, lost, loss)) = lost.min_by_key(|(fixed, ..)| *fixed) else { return };
        for append in appends().filter(|append| append.event > fixed && Some(append.event) != reveals) {
            let Some(base) = self.judged.base(append) else { continue };
            let events = lost.events().chain(append.events()).chain([(loss, None), (self.event, Some(base))]);
            self.verdict.violated(Rule::LossEnds, events, || {
                format!("{} is at {base}, and {} before it was acknowledged and is lost", append.id, lost.id)
            });
        }
    }

    fn hole(&mut self, failed: usize, behind: usize) {
        let (failed, behind) = (&self.facts.appends[failed], &self.facts.appends[behind]);
        let log = (self.event, self.judged.base(behind).or_else(|| behind.acked_at()));
        self.verdict.violated(Rule::NoHole, failed.events().chain(behind.events()).chain([log]), || {
            let (id, failed) = (behind.id, failed.id);
            format!("{id} was submitted after {failed} and before its error, and was appended all the same")
        });
    }
}
