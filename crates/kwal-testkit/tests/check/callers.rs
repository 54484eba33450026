//! Many callers of one batched writer: what breaks a rule, and mistakes in correct histories.

use fastrand::Rng;
use kwal_testkit::check::{
    AppendId, AppendOutcome, Event, Expect, Rule, SubmitOrder, Tally, Value, WriterId,
};

use crate::{
    generator::callers::generate,
    mutations::{
        Events, Mutation, absent, acked, append_to_log, end_of, log_of, log_with, new_append, outcomes, pick,
        rebuilt, writer_of,
    },
};

/// What each history breaks. `w1` is a batched writer of `wal-0`.
pub(crate) const CALLERS: &[(&str, Option<Rule>, &str)] = &[
    (
        "flushed",
        None,
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 call c0 6 flush\n1 flush c0 w1\n2 flushed c0\n2 acked a0 0\n\
         2 returned c0\n3 log wal-0 0 1 @0 x",
    ),
    (
        "flushed before it had ended",
        Some(Rule::Flushed),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 flush c0 w1\n2 flushed c0\n3 acked a0 0\n4 log wal-0 0 1 @0 x",
    ),
    (
        "flushed, and it is dropped and missing",
        Some(Rule::Flushed),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 dropped a0\n1 flush c0 w1\n2 flushed c0\n4 log wal-0 0 0",
    ),
    (
        "flushed, and it was dropped and may have failed before",
        None,
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 dropped a0\n1 flush c0 w1 after=a0\n2 flushed c0\n\
         4 log wal-0 0 0",
    ),
    (
        "flushed, and it was dropped and deleted",
        None,
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 dropped a0\n1 flush c0 w1\n2 flushed c0\n3 deleted wal-0 1\n\
         4 log wal-0 1 1",
    ),
    (
        "flushed without its error",
        Some(Rule::Flushed),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 flush c0 w1\n2 not-appended a0\n2 flushed c0\n4 log wal-0 0 0",
    ),
    (
        "flushed, and its caller gets the error late, after that of a later one",
        None,
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 submit a1 w1 y\n1 not-appended a1\n1 flush c0 w1 after=a1\n\
         2 not-appended a0\n2 flushed c0\n4 log wal-0 0 0",
    ),
    (
        "flushed without the error of one that may have failed before, and no later one had",
        Some(Rule::Flushed),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 submit a1 w1 y\n1 flush c0 w1 after=a1\n\
         2 not-appended a0\n2 flushed c0\n2 dropped a1\n4 log wal-0 0 0",
    ),
    (
        "flushed without the error of one that was accepted after a failure",
        Some(Rule::Flushed),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 not-appended a0\n1 submit a1 w1 y\n1 flush c0 w1 after=a0\n\
         2 not-appended a1\n2 flushed c0\n4 log wal-0 0 0",
    ),
    (
        "flushed without an error that has nothing to do with a later one",
        Some(Rule::Flushed),
        "0 writer w1 wal-0 batched continue\n1 submit a0 w1 x\n1 submit a1 w1 y\n1 not-appended a1\n\
         1 flush c0 w1 after=a1\n2 not-appended a0\n2 flushed c0\n4 log wal-0 0 0",
    ),
    (
        "flushed with an error without a reason",
        Some(Rule::Flushed),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 flush c0 w1\n2 acked a0 0\n2 flush-failed c0\n\
         4 log wal-0 0 1 @0 x",
    ),
    (
        "flushed with an error, before anything was accepted",
        Some(Rule::Flushed),
        "0 writer w1 wal-0 batched\n1 flush c0 w1\n2 flush-failed c0\n4 log wal-0 0 0",
    ),
    (
        "not waited for a flush",
        None,
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 flush c0 w1\n3 not-appended a0\n4 log wal-0 0 0",
    ),
    (
        "closed",
        None,
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 submit a1 w1 y\n1 submit a2 w1 z\n2 drain c0 w1\n3 acked a0 0\n\
         3 not-appended a2\n3 drained c0 absent=z unknown=y\n4 unknown a1\n5 log wal-0 0 1 @0 x",
    ),
    (
        "closed, and one that is not on the log is left out",
        Some(Rule::Undelivered),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n2 drain c0 w1\n3 not-appended a0\n3 drained c0\n5 log wal-0 0 0",
    ),
    (
        "closed, and one in flight is left out",
        Some(Rule::Undelivered),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n2 drain c0 w1\n3 drained c0\n4 acked a0 0\n5 log wal-0 0 1 @0 x",
    ),
    (
        "closed, and one that was dropped is left out",
        Some(Rule::Undelivered),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 dropped a0\n2 drain c0 w1\n3 drained c0\n5 log wal-0 0 0",
    ),
    (
        "closed, with what was delivered before",
        Some(Rule::Undelivered),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 acked a0 0\n2 drain c0 w1\n3 drained c0 unknown=x\n\
         5 log wal-0 0 1 @0 x",
    ),
    (
        "closed, with what had failed before",
        Some(Rule::Undelivered),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 not-appended a0\n2 drain c0 w1\n3 drained c0 absent=x\n\
         5 log wal-0 0 0",
    ),
    (
        "closed, and what is said not to be on the log is",
        Some(Rule::Undelivered),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n1 dropped a0\n2 drain c0 w1\n3 drained c0 absent=x\n\
         5 log wal-0 0 1 @0 x",
    ),
    (
        "closed, with one twice",
        Some(Rule::Undelivered),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n2 drain c0 w1\n3 drained c0 absent=x unknown=x\n\
         3 not-appended a0\n5 log wal-0 0 0",
    ),
    (
        "closed, with a record of another writer",
        Some(Rule::Undelivered),
        "0 writer w1 wal-0 batched\n1 submit a0 w0 x\n2 drain c0 w1\n3 drained c0 absent=x\n3 not-appended a0\n\
         5 log wal-0 0 0",
    ),
    (
        "closed once more, with what has failed since",
        None,
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n2 drain c0 w1\n3 drained c0 unknown=x\n4 not-appended a0\n\
         5 drain c1 w1 after=a0\n5 drained c1 absent=x\n6 log wal-0 0 0",
    ),
    (
        "accepted after the close",
        Some(Rule::Ended),
        "0 writer w1 wal-0 batched\n2 drain c0 w1\n2 submit a0 w1 x\n3 acked a0 0\n3 drained c0\n5 log wal-0 0 1 @0 x",
    ),
    (
        "a flush that ends as a close",
        Some(Rule::History),
        "0 writer w1 wal-0 batched\n2 flush c0 w1\n3 drained c0\n5 log wal-0 0 0",
    ),
    (
        "accepted before an error was returned, at the same time",
        Some(Rule::NoHole),
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n2 submit a1 w1 y\n2 not-appended a0\n3 acked a1 0\n\
         5 log wal-0 0 1 @0 y",
    ),
    (
        "accepted after an error was returned, at the same time",
        None,
        "0 writer w1 wal-0 batched\n1 submit a0 w1 x\n2 not-appended a0\n2 submit a1 w1 y\n3 acked a1 0\n\
         5 log wal-0 0 1 @0 y",
    ),
];

const MUTATIONS: &[(&str, Rule, Mutation)] = &[
    ("give one the offset of its neighbour", Rule::Offset, |events, rng| {
        let (append, base, _) = pick(acked(events), rng)?;
        let (other, beside, _) = acked(events).into_iter().find(|(_, other, _)| *other == base + 1)?;
        *end_of(events, append)?.1 = AppendOutcome::Acked { base_offset: beside };
        *end_of(events, other)?.1 = AppendOutcome::Acked { base_offset: base };
        Some(())
    }),
    ("swap two, on the log and in their results", Rule::Order, |events, rng| {
        let (append, base, values) = pick(acked(events), rng)?;
        let (other, beside, _) = acked(events).into_iter().find(|(_, other, _)| *other == base + 1)?;
        if writer_of(events, append) != writer_of(events, other) {
            return None;
        }
        let log = log_with(events, &values[0])?;
        log.records.swap(base as usize, beside as usize);
        log.records[base as usize].0 = base;
        log.records[beside as usize].0 = beside;
        *end_of(events, append)?.1 = AppendOutcome::Acked { base_offset: beside };
        *end_of(events, other)?.1 = AppendOutcome::Acked { base_offset: base };
        Some(())
    }),
    ("put one that was dropped on the log once more", Rule::Once, |events, rng| {
        let (.., value) = pick(dropped(events), rng)?;
        append_to_log(log_with(events, &value)?, &[value]);
        Some(())
    }),
    ("resurrect one that failed", Rule::NotAppended, |events, rng| {
        let (append, values) =
            pick(absent(events, |outcome| matches!(outcome, AppendOutcome::NotAppended)), rng)?;
        append_to_log(log_of(events, append)?, &values);
        Some(())
    }),
    ("append one that was accepted before an error was returned", Rule::NoHole, |events, rng| {
        let (append, _) = pick(absent(events, |outcome| matches!(outcome, AppendOutcome::NotAppended)), rng)?;
        let writer = writer_of(events, append)?;
        let index = events
            .iter()
            .position(|(_, event)| matches!(event, Event::Completed { append: of, .. } if *of == append))?;
        let at = events[index].0;
        let base_offset = append_new_to_log(events, writer)?;
        events.insert(index, (at, new_submit(writer)));
        let outcome = AppendOutcome::Acked { base_offset };
        events.insert(index + 2, (at, Event::Completed { append: NEW, outcome }));
        Some(())
    }),
    ("accept one after the close", Rule::Ended, |events, rng| {
        let writers = events.iter().filter_map(|(_, event)| match event {
            Event::Drain { writer, .. } => Some(*writer),
            _ => None,
        });
        let writer = pick(writers.collect(), rng)?;
        new_append(events, writer, |base_offset| AppendOutcome::Acked { base_offset })
    }),
    ("flush without waiting", Rule::Flushed, |events, rng| {
        let (begun, ..) = pick(flushes(events, false), rng)?;
        let waited_for = acked(events).into_iter().filter(|(append, ..)| {
            let submitted = events
                .iter()
                .position(|(_, event)| matches!(event, Event::Submit { append: of, .. } if of == append));
            submitted.is_some_and(|submitted| submitted < begun)
                && writer_of(events, *append) == writer_of_flush(events, begun)
        });
        let (append, ..) = pick(waited_for.collect(), rng)?;
        let index = events
            .iter()
            .position(|(_, event)| matches!(event, Event::Completed { append: of, .. } if *of == append))?;
        let (_, event) = events.remove(index);
        let log = events.len() - 1;
        let at = events[log].0;
        events.insert(log, (at, event));
        Some(())
    }),
    ("flush and hide a failure", Rule::Flushed, |events, rng| {
        let (begun, ended) = pick(flushes(events, true), rng)?;
        let (since, writer) = (events[begun].0, writer_of_flush(events, begun)?);
        let failed = events[begun..ended].iter().any(|(at, event)| {
            matches!(event, Event::Completed { append, outcome: AppendOutcome::NotAppended }
                if *at > since && writer_of(events, *append) == Some(writer) && submitted(events, *append) < begun)
        });
        match &mut events[ended].1 {
            Event::Flushed { failed: has_failed, .. } if failed => *has_failed = false,
            _ => return None,
        }
        Some(())
    }),
    ("flush with an error without a reason", Rule::Flushed, |events, rng| {
        let (begun, ended) = pick(flushes(events, false), rng)?;
        let (writer, outcomes) = (writer_of_flush(events, begun), outcomes(events));
        let all_acked = events[..begun].iter().all(|(_, event)| match event {
            Event::Submit { append, writer: of, .. } if Some(*of) == writer => {
                matches!(outcomes.get(append), Some(AppendOutcome::Acked { .. }))
            }
            _ => true,
        });
        match &mut events[ended].1 {
            Event::Flushed { failed, .. } if all_acked => *failed = true,
            _ => return None,
        }
        Some(())
    }),
    ("flush and lose one that was dropped", Rule::Flushed, |events, rng| {
        let dropped = dropped(events).into_iter().filter(|(append, writer, _)| {
            flushes(events, false).into_iter().any(|(begun, _)| {
                let Event::Flush { after, .. } = &events[begun].1 else { return false };
                writer_of_flush(events, begun) == Some(*writer)
                    && submitted(events, *append) < begun
                    && after.is_none_or(|after| after < *append)
            })
        });
        let (.., value) = pick(dropped.collect(), rng)?;
        log_with(events, &value)?.records.retain(|(_, on_log)| *on_log != value);
        Some(())
    }),
    ("close and forget one", Rule::Undelivered, |events, rng| {
        let outcomes = outcomes(events);
        let values = values_of(events);
        let returned = events.iter_mut().flat_map(|(_, event)| match event {
            Event::Drained { absent, unknown, .. } => vec![absent, unknown],
            _ => Vec::new(),
        });
        let is_known = |value: &Value| {
            let append = values.iter().find(|(of, _)| of == value).map(|(_, append)| append);
            append.is_some_and(|append| {
                matches!(outcomes.get(append), Some(AppendOutcome::NotAppended | AppendOutcome::Acked { .. }))
            })
        };
        let returned = returned.filter(|values| values.iter().any(is_known));
        let list = pick(returned.collect(), rng)?;
        let index = list.iter().position(is_known)?;
        list.remove(index);
        Some(())
    }),
    ("close and return one that was delivered", Rule::Undelivered, |events, rng| {
        let (append, _, values) = pick(acked(events), rng)?;
        let (writer, ended) = (writer_of(events, append)?, position_of_end(events, append)?);
        let call = events[ended..].iter().find_map(|(_, event)| match event {
            Event::Drain { call, writer: of, .. } if *of == writer => Some(*call),
            _ => None,
        })?;
        let unknown = events.iter_mut().find_map(|(_, event)| match event {
            Event::Drained { call: of, unknown, .. } if *of == call => Some(unknown),
            _ => None,
        })?;
        unknown.push(values[0].clone());
        Some(())
    }),
    ("close and return a stranger", Rule::Undelivered, |events, rng| {
        pick(drained(events), rng)?.0.push("stranger".into());
        Some(())
    }),
    ("close and return one twice", Rule::Undelivered, |events, rng| {
        let full = drained(events).into_iter().filter(|(absent, _)| !absent.is_empty());
        let (absent, unknown) = pick(full.collect(), rng)?;
        unknown.push(absent[0].clone());
        Some(())
    }),
    ("close and say that what is on the log is not", Rule::Undelivered, |events, rng| {
        let on_log: Vec<_> = crate::mutations::logs(events).flat_map(|log| log.records.clone()).collect();
        let is_on_log = |value: &Value| on_log.iter().any(|(_, on_log)| on_log == value);
        let full = drained(events).into_iter().filter(|(_, unknown)| unknown.iter().any(is_on_log));
        let (absent, unknown) = pick(full.collect(), rng)?;
        let index = unknown.iter().position(is_on_log)?;
        absent.push(unknown.remove(index));
        Some(())
    }),
];

/// The append that a mutation adds.
const NEW: AppendId = AppendId(1_000_000);

fn new_submit(writer: WriterId) -> Event {
    Event::Submit { append: NEW, writer, order: SubmitOrder::Fixed, records: vec!["more".into()] }
}

/// Returns the offset of the new record.
fn append_new_to_log(events: &mut Events, writer: WriterId) -> Option<i64> {
    let partition = crate::mutations::partition_of(events, writer);
    let mut logs = crate::mutations::logs(events);
    let log = logs.find(|log| (log.partition.topic.clone(), log.partition.partition) == partition)?;
    let base = log.offsets.end;
    append_to_log(log, &["more".into()]);
    Some(base)
}

/// The flushes that have returned with an error or without: the indices of their events.
fn flushes(events: &Events, failed: bool) -> Vec<(usize, usize)> {
    let begun = events.iter().enumerate().filter_map(|(index, (_, event))| match event {
        Event::Flush { call, .. } => Some((index, *call)),
        _ => None,
    });
    let both = begun.filter_map(|(begun, call)| {
        let is_end = |(_, event): &(_, Event)| matches!(event, Event::Flushed { call: of, failed: has } if *of == call && *has == failed);
        Some((begun, events.iter().position(is_end)?))
    });
    both.collect()
}

fn writer_of_flush(events: &Events, index: usize) -> Option<WriterId> {
    match events[index].1 {
        Event::Flush { writer, .. } => Some(writer),
        _ => None,
    }
}

fn submitted(events: &Events, append: AppendId) -> usize {
    let is_of = |(_, event): &(_, Event)| matches!(event, Event::Submit { append: of, .. } if *of == append);
    events.iter().position(is_of).unwrap_or(usize::MAX)
}

fn position_of_end(events: &Events, append: AppendId) -> Option<usize> {
    let is_of =
        |(_, event): &(_, Event)| matches!(event, Event::Completed { append: of, .. } if *of == append);
    events.iter().position(is_of)
}

/// What closed writers returned: what is not on the log, and what may be.
fn drained(events: &mut Events) -> Vec<(&mut Vec<Value>, &mut Vec<Value>)> {
    let drained = events.iter_mut().filter_map(|(_, event)| match event {
        Event::Drained { absent, unknown, .. } => Some((absent, unknown)),
        _ => None,
    });
    drained.collect()
}

fn values_of(events: &Events) -> Vec<(Value, AppendId)> {
    let values = events.iter().filter_map(|(_, event)| match event {
        Event::Submit { append, records, .. } => Some((records[0].clone(), *append)),
        _ => None,
    });
    values.collect()
}

/// The inputs that were dropped and are on the log.
fn dropped(events: &mut Events) -> Vec<(AppendId, WriterId, Value)> {
    let outcomes = outcomes(events);
    let dropped = values_of(events).into_iter().filter(|(value, append)| {
        outcomes.get(append) == Some(&AppendOutcome::Dropped)
            && crate::mutations::logs(events).any(|log| log.records.iter().any(|(_, on_log)| on_log == value))
    });
    let dropped: Vec<_> = dropped.collect();
    dropped
        .into_iter()
        .filter_map(|(value, append)| Some((append, writer_of(events, append)?, value)))
        .collect()
}

#[test]
fn what_is_right_passes() {
    let mut all = Tally::default();
    for seed in 0..100 {
        let history = generate(seed, 600);
        let verdict = history.check(&Expect::default());
        assert!(verdict.holds(), "seed {seed}: {verdict}\n{history}");
        let tally = verdict.tally();
        all.acked += tally.acked;
        all.not_appended += tally.not_appended;
        all.unknown += tally.unknown;
        all.dropped += tally.dropped;
        all.open += tally.open;
    }
    for count in [all.acked, all.not_appended, all.unknown, all.dropped, all.open] {
        assert!(count > 300, "it was always the same: {all}");
    }
}

#[test]
fn one_mistake_is_reported() {
    let mut tried = vec![0; MUTATIONS.len()];
    for seed in 0..60 {
        let history = generate(seed, 300);
        for ((name, rule, mutation), tried) in MUTATIONS.iter().copied().zip(&mut tried) {
            let mut events = history.events().to_vec();
            if mutation(&mut events, &mut Rng::with_seed(seed)).is_some() {
                *tried += 1;
                let verdict = rebuilt(events).check(&Expect::default());
                assert!(verdict.count(rule) > 0, "{name}, seed {seed}, is not convicted: {verdict}");
            }
        }
    }
    for ((name, ..), tried) in MUTATIONS.iter().zip(tried) {
        assert!(tried > 10, "{name} was possible {tried} times only");
    }
}
