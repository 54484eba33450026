//! Checks the appends of each writer against each other.

use std::time::Duration;

use super::{Judge, is_empty, is_whole};
use crate::check::{
    facts::{Append, WriterFacts},
    types::{AppendOutcome, SubmitOrder},
    verdict::Rule,
};

/// How many batches of one producer may be in flight (KIP-98).
const MOST_IN_FLIGHT: usize = 5;

impl<'a> Judge<'a, '_, '_> {
    /// Checks that the appends of a writer are on the log in the order of events. Without producer ids, those
    /// of unknown outcome may be anywhere.
    pub(super) fn order(&mut self, writer: &WriterFacts<'_>) {
        let ordered = writer
            .appends
            .iter()
            .filter(|index| !writer.writer.without_ids || self.append(**index).acked_at().is_some());
        let mut on_log: Vec<_> = ordered
            .filter_map(|index| {
                let append = self.append(*index);
                let deleted = append
                    .acked_at()
                    .filter(|base| self.is_deleted(*base) && self.lost_of(append, *base).is_none());
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
    pub(super) fn no_hole(&mut self, writer: &WriterFacts<'_>) {
        let whole = is_whole(self.partition, self.log, writer.writer);
        let grace = self.verdict.expect.grace;
        // By their ends, the last of those that failed, and of those that are missing.
        let mut failed: Option<(Duration, usize, usize)> = None;
        let mut absent: Option<(Duration, usize, usize)> = None;
        for index in &writer.appends {
            let append = &self.facts.appends[*index];
            let on_log = self.judged.is_on_log(append);
            if append.order == SubmitOrder::Fixed {
                let handed_out = append.at.saturating_add(grace);
                let behind = |failed: Option<(Duration, usize, usize)>| {
                    // A batched writer records both where they happen.
                    let by_event = writer.writer.batched && grace.is_zero();
                    let is_behind = |(at, event, _): &(Duration, usize, usize)| match by_event {
                        true => *event > append.event,
                        false => *at > handed_out,
                    };
                    failed.filter(is_behind)
                };
                let acked = append.is_acked();
                let first = behind(failed).filter(|_| acked);
                let first = first.filter(|_| {
                    let is_behind = |at, event, index| behind(Some((at, event, index))).is_some();
                    !self.was_lost_with(writer, append, is_behind)
                });
                let first = first.or_else(|| behind(absent).filter(|_| whole && (acked || on_log)));
                if let Some((.., first)) = first {
                    self.hole(first, *index);
                }
            }
            let Some((event, at, outcome)) = append.end else { continue };
            if append.order == SubmitOrder::Unordered {
                continue;
            }
            let latest = |known: &mut Option<(Duration, usize, usize)>| {
                *known = (*known).max(Some((at, event, *index)));
            };
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

    /// Whether an acknowledged append was lost together with earlier ones, before those ended: all of them
    /// can have been on the log, without a hole, and the outcome of the earlier ones is unknown because of
    /// the loss.
    fn was_lost_with(
        &self,
        writer: &WriterFacts<'_>,
        append: &Append<'_>,
        is_behind: impl Fn(Duration, usize, usize) -> bool,
    ) -> bool {
        let Some(base) = append.acked_at().filter(|_| !self.judged.is_on_log(append)) else { return false };
        // Where the earlier ones can have been: from here on, so many records, lost by this event.
        let (mut from, mut records, mut lost) = (0, 0, None);
        for index in &writer.appends {
            let before = self.append(*index);
            if before.event >= append.event {
                break;
            }
            match before.end {
                Some((event, at, AppendOutcome::NotAppended | AppendOutcome::Unknown))
                    if is_behind(at, event, *index) =>
                {
                    // An earlier loss is not what removed it.
                    let mut losses = self.partition.losses.iter().rev();
                    let loss = losses
                        .find(|loss| (append.event..event).contains(&loss.event) && loss.offset <= base);
                    let is_unknown = before.outcome() == Some(AppendOutcome::Unknown);
                    let Some(loss) = loss.filter(|_| is_unknown && !self.judged.is_on_log(before)) else {
                        return false;
                    };
                    from = from.max(loss.offset);
                    lost = lost.max(Some(loss.event));
                    records += before.records.len() as i64;
                }
                Some((_, _, AppendOutcome::NotAppended | AppendOutcome::Withdrawn)) => {}
                _ if lost.is_some() => records += before.records.len() as i64,
                _ => {
                    let acked = before.acked_at().map(|base| base + before.records.len() as i64);
                    from = acked.map_or(from, |acked| from.max(acked));
                }
            }
        }
        let of_others = self.facts.appends.iter().filter(|other| {
            let is_between = other.acked_at().is_some_and(|acked| (from..base).contains(&acked));
            other.partition == append.partition
                && other.writer != append.writer
                && lost.is_some_and(|lost| other.event < lost)
                && is_between
        });
        let of_others: i64 = of_others.map(|other| other.records.len() as i64).sum();
        from.saturating_add(records).saturating_add(of_others) <= base
    }

    /// Checks that no append of a writer follows a lost one on the log. Those that are not acknowledged may,
    /// if they may have been in flight when it happened, or are the first ones after it, in flight together,
    /// by which the writer learned of it, or that it was fenced.
    pub(super) fn loss_ends(&mut self, writer: &WriterFacts<'_>) {
        let appends = || writer.appends.iter().map(|index| &self.facts.appends[*index]);
        let lost = appends().filter_map(|append| {
            let base = append.acked_at()?;
            let gone = !self.judged.is_on_log(append) && !self.is_deleted(base) && !is_empty(self.log, base);
            let loss = self.partition.lost(append.event, base).filter(|_| gone)?;
            Some((append.fixed(), append, loss.event))
        });
        let Some((fixed, lost, loss)) = lost.min_by_key(|(fixed, ..)| *fixed) else { return };
        let (mut revealing, mut until) = (0, None);
        for append in appends().filter(|append| append.event > fixed) {
            let Some(base) = self.judged.base(append) else { continue };
            if !append.is_acked() {
                if append.event < loss {
                    continue;
                }
                // Of one that is dropped, the writer learns the end later.
                let end = match append.end {
                    Some((_, _, AppendOutcome::Dropped)) => None,
                    end => Some(end.map_or(usize::MAX, |(event, ..)| event)),
                };
                until = until.or(end);
                let has_learned =
                    writer.lost.is_some() || writer.fenced.is_some_and(|fenced| append.event < fenced);
                if has_learned && revealing < MOST_IN_FLIGHT && until.is_none_or(|until| append.event < until)
                {
                    revealing += 1;
                    continue;
                }
            }
            let events = lost.events().chain(append.events()).chain([(loss, None), (self.event, Some(base))]);
            self.verdict.violated(Rule::LossEnds, events, || {
                format!("{} is at {base}, and {} before it was acknowledged and is lost", append.id, lost.id)
            });
        }
    }

    /// Checks that no append of a writer was acknowledged at an offset that was acknowledged to it before it
    /// was submitted: that shows a loss.
    pub(super) fn rising(&mut self, writer: &WriterFacts<'_>) {
        // Otherwise it is one of the other rules that is broken.
        if self.partition.losses.is_empty() && self.partition.unreplicated.is_empty() {
            return;
        }
        let acked = writer.appends.iter().filter_map(|index| {
            let append = &self.facts.appends[*index];
            Some((append.end?.0, append.acked_at()?, append))
        });
        let mut by_end: Vec<_> = acked.collect();
        by_end.sort_unstable_by_key(|(event, ..)| *event);
        let mut by_submission = by_end.clone();
        by_submission.sort_unstable_by_key(|(.., append)| append.event);
        let mut earlier = by_end.into_iter().peekable();
        let mut highest: Option<(i64, &Append<'_>)> = None;
        for (_, base, append) in by_submission {
            while let Some((_, base, before)) = earlier.next_if(|(event, ..)| *event < append.event) {
                let last = base.saturating_add(before.records.len() as i64).saturating_sub(1);
                if highest.is_none_or(|(highest, _)| highest < last) {
                    highest = Some((last, before));
                }
            }
            let Some((last, before)) = highest.filter(|(last, _)| base <= *last) else { continue };
            // It is on the log after one that is lost, which is reported already.
            if !writer.writer.without_ids && self.judged.is_on_log(append) {
                continue;
            }
            let events = before.events().chain(append.events()).chain([(self.event, Some(base))]);
            self.verdict.violated(Rule::LossEnds, events, || {
                let (id, before) = (append.id, before.id);
                format!("{id} was acknowledged at {base}, and {before} before it up to {last}")
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
