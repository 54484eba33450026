//! Checks what batched writers returned when they were flushed, and when they were closed.

use std::{collections::BTreeSet, time::Duration};

use super::{
    facts::{Append, Facts, Wait, WaitResult, WriterFacts},
    logs::{Judged, is_whole},
    types::{AppendOutcome, CallId, SubmitOrder},
    value::Value,
    verdict::{Rule, VerdictBuilder},
};

pub(super) fn judge<'a>(facts: &Facts<'a>, judged: &Judged, verdict: &mut VerdictBuilder<'a>) {
    for writer in facts.writers.iter().filter(|writer| !writer.waits.is_empty()) {
        let fixed = writer.appends.iter().map(|index| &facts.appends[*index]);
        let appends: Vec<_> = fixed.filter(|append| append.order == SubmitOrder::Fixed).collect();
        let mut judge = Judge { facts, judged, verdict, writer, appends };
        judge.flushes();
        judge.closes();
    }
}

/// Checks one writer.
struct Judge<'a, 'b, 'c> {
    facts: &'b Facts<'a>,
    judged: &'b Judged,
    verdict: &'b mut VerdictBuilder<'c>,
    writer: &'b WriterFacts<'a>,
    /// Its appends in the order in which they were accepted.
    appends: Vec<&'b Append<'a>>,
}

/// A flush or a close that waited for everything, and the first close of the writer.
struct Waited<'b> {
    call: CallId,
    rule: Rule,
    /// The event and the time from which on it counts what fails.
    begun: (usize, Duration),
    /// Nothing that was accepted after this event had failed then.
    after: usize,
    ended: (usize, Duration),
    events: &'b [(usize, Option<i64>)],
}

impl<'a, 'b> Judge<'a, 'b, '_> {
    fn accepted_before(&self, event: usize) -> usize {
        self.appends.partition_point(|append| append.event < event)
    }

    fn flushes(&mut self) {
        // Up to each append, the one that ended last. Nobody sees when one ends that was dropped.
        let mut latest: Vec<&Append<'_>> = Vec::with_capacity(self.appends.len());
        let at = |append: &Append<'_>| match append.end {
            Some((_, _, AppendOutcome::Dropped | AppendOutcome::Withdrawn)) => Duration::ZERO,
            Some((_, at, _)) => at,
            None => Duration::MAX,
        };
        for append in &self.appends {
            let last = latest.last().filter(|last| at(last) >= at(append));
            latest.push(last.copied().unwrap_or(append));
        }
        let failed: Vec<_> = self.appends.iter().filter(|append| !append.is_acked()).copied().collect();
        let writer = self.writer;
        for wait in writer.waits.iter().filter(|wait| !wait.closes) {
            let Some((event, ended, WaitResult::Flushed(has_failed))) = wait.ended else { continue };
            let Some(before) = self.accepted_before(wait.begun.0).checked_sub(1) else {
                if has_failed {
                    self.without_reason(wait, event);
                }
                continue;
            };
            let last = latest[before];
            if at(last) > ended.saturating_add(self.verdict.expect.grace) {
                let events = last.events().chain([(wait.begun.0, None), (event, None)]);
                self.verdict.violated(Rule::Flushed, events, || {
                    format!("{} was accepted before the flush {}, and ended after it", last.id, wait.call)
                });
            }
            let failed = failed.iter().take_while(|append| append.event < wait.begun.0);
            if has_failed {
                let may_be_reason = |append: &&&Append<'_>| match append.end {
                    Some((_, at, AppendOutcome::NotAppended | AppendOutcome::Unknown)) => at >= wait.begun.1,
                    _ => true,
                };
                if failed.clone().filter(may_be_reason).count() == 0 {
                    self.without_reason(wait, event);
                }
                continue;
            }
            let events = [(wait.begun.0, None), (event, None)];
            let (begun, after, call) = (wait.begun, wait.after, wait.call);
            let ended = (event, ended);
            let waited = Waited { call, rule: Rule::Flushed, begun, after, ended, events: &events };
            let failed: Vec<_> = failed.copied().collect();
            for append in failed {
                self.delivered(append, &waited);
            }
        }
    }

    fn without_reason(&mut self, wait: &Wait<'_>, event: usize) {
        self.verdict.violated(Rule::Flushed, [(wait.begun.0, None), (event, None)], || {
            format!("the flush {} returned an error, and nothing that it waited for has failed", wait.call)
        });
    }

    /// Checks that an append that is not acknowledged is on the log, as a flush or a close says.
    fn delivered(&mut self, append: &Append<'_>, waited: &Waited<'_>) {
        let Waited { call, rule, begun: (begun_event, begun), after, .. } = *waited;
        let grace = self.verdict.expect.grace;
        let is_missing = || {
            let partition = &self.facts.partitions[append.partition];
            let log = partition.log.filter(|(event, _)| *event > waited.ended.0);
            self.judged.missing[append.partition].is_some()
                && log.is_some_and(|(_, log)| is_whole(partition, log, self.writer.writer))
                && !self.judged.is_on_log(append)
        };
        // A caller that takes its results in order gets some of them late. A later one that has failed shows
        // that one before it had, which may be this one.
        let may_have_failed = || {
            let stops = append.event <= after && !self.writer.writer.on_failure_continue;
            let later = &self.appends[self.accepted_before(append.event.saturating_add(1))..];
            stops
                && later.iter().filter_map(|later| later.end).any(|(event, _, outcome)| {
                    let has_failed = matches!(outcome, AppendOutcome::NotAppended | AppendOutcome::Unknown);
                    has_failed && event < begun_event
                })
        };
        let ended_since = append.end.filter(|(_, at, _)| *at > begun.saturating_add(grace));
        let failed_since = ended_since.map(|(.., outcome)| outcome).filter(|outcome| {
            matches!(outcome, AppendOutcome::NotAppended | AppendOutcome::Unknown) && !may_have_failed()
        });
        let problem = match (append.outcome(), failed_since) {
            (_, Some(AppendOutcome::NotAppended)) => "has failed",
            (_, Some(AppendOutcome::Unknown)) if is_missing() => "has failed, and is not on the log",
            (Some(AppendOutcome::Unknown | AppendOutcome::Dropped), _)
                if append.event > after && is_missing() =>
            {
                "is not on the log"
            }
            _ => return,
        };
        let log = self.facts.partitions[append.partition].log.map(|(event, _)| (event, None));
        let events = append.events().chain(waited.events.iter().copied()).chain(log);
        self.verdict.violated(rule, events, || {
            format!(
                "{} was accepted before {call}, which returned as if it were on the log, and {problem}",
                append.id
            )
        });
    }

    fn closes(&mut self) {
        let writer = self.writer;
        let mut first: Option<&Wait<'_>> = None;
        for wait in writer.waits.iter().filter(|wait| wait.closes) {
            let first = *first.get_or_insert(wait);
            let Some((event, ended, WaitResult::Undelivered(absent, unknown))) = wait.ended else { continue };
            let events = [(first.begun.0, None), (wait.begun.0, None), (event, None)];
            let waited = Waited {
                call: wait.call,
                rule: Rule::Undelivered,
                begun: first.begun,
                after: first.after,
                ended: (event, ended),
                events: &events,
            };
            let mut listed = BTreeSet::new();
            for (values, is_certain) in [(absent, true), (unknown, false)] {
                for value in values {
                    self.listed(value, is_certain, &mut listed, &waited);
                }
            }
            self.not_listed(&listed, &waited);
        }
    }

    /// Checks a record that was returned.
    fn listed(&mut self, value: &Value, is_certain: bool, listed: &mut BTreeSet<usize>, waited: &Waited<'_>) {
        let owner = self.facts.owner(value).map(|(index, _)| (index, &self.facts.appends[index]));
        let own = owner.filter(|(_, append)| {
            std::ptr::eq(&self.facts.writers[append.writer], self.writer) && append.event < waited.begun.0
        });
        let Some((index, append)) = own else {
            return self.verdict.violated(Rule::Undelivered, waited.events.iter().copied(), || {
                format!("{} returned {value}, which was not accepted before", waited.call)
            });
        };
        let place = self.judged.base(append).filter(|_| is_certain);
        let has_ended = append.end.filter(|(event, ..)| *event < waited.begun.0);
        let problem = match (append.outcome(), has_ended) {
            _ if !listed.insert(index) => "and returned it before",
            (Some(AppendOutcome::Acked { .. } | AppendOutcome::AckedAtUnknownOffset), _) if is_certain => {
                "as not on the log, and it is acknowledged"
            }
            (_, Some((.., outcome)))
                if !matches!(outcome, AppendOutcome::Dropped | AppendOutcome::Withdrawn) =>
            {
                "and its caller had the result before"
            }
            _ if place.is_some() => "as not on the log",
            _ => return,
        };
        let log = self.facts.partitions[append.partition].log.map(|(event, _)| (event, place));
        let events = append.events().chain(waited.events.iter().copied()).chain(log);
        self.verdict.violated(Rule::Undelivered, events, || {
            let (call, id) = (waited.call, append.id);
            let place = place.map_or(String::new(), |place| format!("; it is at {place}"));
            format!("{call} returned {value} of {id}, {problem}{place}")
        });
    }

    /// Checks everything else that was accepted.
    fn not_listed(&mut self, listed: &BTreeSet<usize>, waited: &Waited<'_>) {
        let writer = self.writer;
        let (ended_event, ended) = waited.ended;
        for index in writer.appends.iter().filter(|index| !listed.contains(index)) {
            let append = &self.facts.appends[*index];
            if append.event > waited.begun.0 || append.order != SubmitOrder::Fixed {
                continue;
            }
            let is_late = match append.end {
                Some((_, _, AppendOutcome::Dropped | AppendOutcome::Withdrawn)) => false,
                Some((_, at, _)) => at > ended.saturating_add(self.verdict.expect.grace),
                None => true,
            };
            if is_late {
                let events = append.events().chain([(waited.begun.0, None), (ended_event, None)]);
                self.verdict.violated(Rule::Undelivered, events, || {
                    format!(
                        "{} had not ended when {} returned, which has left it out",
                        append.id, waited.call
                    )
                });
            } else if !append.is_acked() {
                self.delivered(append, waited);
            }
        }
    }
}
