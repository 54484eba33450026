//! Correct histories with one mistake are reported for that mistake.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use kwal_testkit::check::{
    AppendId, AppendOutcome, Event, Expect, History, Log, Producer, ReadFailure, Rule, SubmitOrder, Value,
    WriterId,
};

use crate::{
    generator::{Workload, generate},
    reading::READING,
};

pub(crate) type Events = Vec<(Duration, Event)>;

/// A mutation: `None` if this history has no place for it.
pub(crate) type Mutation = fn(&mut Events, &mut Rng) -> Option<()>;

const MUTATIONS: &[(&str, Rule, Mutation)] = &[
    ("drop an acked record from the log", Rule::Durable, |events, rng| {
        let (_, base, values) = pick(acked(events), rng)?;
        let log = log_with(events, &values[0])?;
        log.records.retain(|(offset, _)| *offset != base);
        Some(())
    }),
    ("drop the barrier from the log", Rule::Durable, |events, rng| {
        let offsets = events.iter().filter_map(|(_, event)| match event {
            Event::Barrier { writer, offset, .. } => Some((*writer, *offset)),
            _ => None,
        });
        let (writer, offset) = pick(offsets.collect(), rng)?;
        let partition = partition_of(events, writer);
        let log =
            logs(events).find(|log| (log.partition.topic.clone(), log.partition.partition) == partition)?;
        log.records.retain(|(at, _)| *at != offset);
        Some(())
    }),
    ("shift an acknowledged offset", Rule::Offset, |events, rng| {
        let (append, ..) = pick(acked(events), rng)?;
        match end_of(events, append)? {
            (_, AppendOutcome::Acked { base_offset }) => *base_offset += if rng.bool() { 1 } else { -1 },
            _ => return None,
        }
        Some(())
    }),
    ("put a record on the log once more", Rule::Once, |events, rng| {
        let (_, _, values) = pick(acked(events), rng)?;
        append_to_log(log_with(events, &values[0])?, &values[..1]);
        Some(())
    }),
    ("put a batch of unknown outcome on the log once more", Rule::Once, |events, rng| {
        let outcomes = outcomes(events);
        let unknown = appends(events)
            .into_iter()
            .filter(|(append, ..)| matches!(outcomes.get(append), Some(AppendOutcome::Unknown)));
        let (.., values) = pick(unknown.collect(), rng)?;
        append_to_log(log_with(events, &values[0])?, &values);
        Some(())
    }),
    ("tear a batch in two", Rule::Whole, |events, rng| {
        let batches = acked(events).into_iter().filter(|(_, _, values)| values.len() > 1);
        let (_, base, values) = pick(batches.collect(), rng)?;
        let log = log_with(events, &values[0])?;
        let last = log.records.iter().position(|(offset, _)| *offset == base + values.len() as i64 - 1)?;
        let far = rng.usize(..log.records.len());
        if values.contains(&log.records[far].1) {
            return None;
        }
        let value = log.records[far].1.clone();
        log.records[far].1 = std::mem::replace(&mut log.records[last].1, value);
        Some(())
    }),
    ("leave half of a batch", Rule::Whole, |events, rng| {
        let outcomes = outcomes(events);
        let batches = appends(events).into_iter().filter(|(append, _, values)| {
            values.len() > 1
                && matches!(outcomes.get(append), Some(AppendOutcome::Unknown | AppendOutcome::Dropped))
        });
        let (_, _, values) = pick(batches.collect(), rng)?;
        let log = log_with(events, &values[0])?;
        log.records.retain(|(_, value)| *value != values[1]);
        Some(())
    }),
    ("swap two batches, on the log and in their acknowledgements", Rule::Order, |events, rng| {
        let one = acked(events)
            .into_iter()
            .filter(|(append, _, values)| values.len() == 1 && is_fixed(events, *append));
        let mut by_writer: BTreeMap<WriterId, Vec<_>> = BTreeMap::new();
        for (append, base, values) in one {
            by_writer.entry(writer_of(events, append)?).or_default().push((append, base, values));
        }
        let appends = pick(by_writer.into_values().filter(|appends| appends.len() > 1).collect(), rng)?;
        let index = rng.usize(1..appends.len());
        let [(a, a_base, a_values), (b, b_base, b_values)] = &appends[index - 1..=index] else { return None };
        let log = log_with(events, &a_values[0])?;
        for (offset, value) in &mut log.records {
            match *offset {
                offset if offset == *a_base => *value = b_values[0].clone(),
                offset if offset == *b_base => *value = a_values[0].clone(),
                _ => {}
            }
        }
        *end_of(events, *a)?.1 = AppendOutcome::Acked { base_offset: *b_base };
        *end_of(events, *b)?.1 = AppendOutcome::Acked { base_offset: *a_base };
        Some(())
    }),
    ("land after a later one", Rule::Order, |events, rng| {
        let absent = absent(events, |outcome| matches!(outcome, AppendOutcome::Unknown));
        let (append, values) = pick(absent, rng)?;
        append_to_log(behind_later(events, append)?, &values);
        Some(())
    }),
    ("fail one of those in flight, and not those after it", Rule::NoHole, |events, rng| {
        let all = acked(events);
        let mut candidates = Vec::new();
        for (append, base, values) in &all {
            let ended = end_of(events, *append)?.0;
            let begun = submitted(events, *append);
            let behind = all.iter().any(|(other, ..)| {
                *other > *append
                    && is_fixed(events, *other)
                    && writer_of(events, *other) == writer_of(events, *append)
                    && submitted(events, *other) > begun
                    && submitted(events, *other) < Some(ended)
            });
            if behind && is_fixed(events, *append) && !goes_on(events, *append) {
                candidates.push((*append, *base, values.clone()));
            }
        }
        let (append, base, values) = pick(candidates, rng)?;
        *end_of(events, append)?.1 =
            if rng.bool() { AppendOutcome::NotAppended } else { AppendOutcome::Unknown };
        let log = log_with(events, &values[0])?;
        log.records.retain(|(_, value)| !values.contains(value));
        log.empty.push(base..base + values.len() as i64);
        log.empty.sort_by_key(|empty| empty.start);
        Some(())
    }),
    ("resurrect what was not appended", Rule::NotAppended, |events, rng| {
        let (append, values) =
            pick(absent(events, |outcome| matches!(outcome, AppendOutcome::NotAppended)), rng)?;
        append_to_log(log_of(events, append)?, &values);
        Some(())
    }),
    ("append what was given up in time", Rule::Withdrawn, |events, rng| {
        let (append, values) =
            pick(absent(events, |outcome| matches!(outcome, AppendOutcome::Withdrawn)), rng)?;
        append_to_log(log_of(events, append)?, &values);
        Some(())
    }),
    ("resolve as appended what is not there", Rule::Resolved, |events, rng| {
        let answer = pick(answers(events), rng).filter(|answer| answer.is_none())?;
        *answer = Some(rng.i64(0..1_000));
        Some(())
    }),
    ("resolve as not there what is", Rule::Resolved, |events, rng| {
        let answer = pick(answers(events), rng).filter(|answer| answer.is_some())?;
        *answer = None;
        Some(())
    }),
    ("resolve to the offset before", Rule::Resolved, |events, rng| {
        let answer = pick(answers(events), rng)?.as_mut()?;
        *answer -= 1;
        Some(())
    }),
    ("close and forget a failure", Rule::Closed, |events, rng| {
        let failed = pick(closes(events), rng).filter(|failed| **failed > 0)?;
        *failed += 1_000;
        Some(())
    }),
    ("close and leave an append behind", Rule::Closed, |events, rng| {
        let closed = events.iter().filter_map(|(at, event)| match event {
            Event::Close { writer } => Some((*at, *writer)),
            _ => None,
        });
        let (at, writer) = pick(closed.collect(), rng)?;
        let event = events
            .iter()
            .position(|(_, event)| matches!(event, Event::Close { writer: of } if *of == writer))?;
        let records = vec!["left".into()];
        let submit =
            Event::Submit { append: AppendId(1_000_000), writer, order: SubmitOrder::Fixed, records };
        events.insert(event, (at, submit));
        Some(())
    }),
    ("end after the deadline", Rule::Deadline, |events, rng| {
        let all = appends(events).into_iter().filter(|(append, ..)| {
            let writer = writer_of(events, *append);
            events.iter().any(|(_, event)| {
                matches!(event, Event::Writer { id, writer: facts } if Some(*id) == writer && facts.deadline.is_some())
            })
        });
        let (append, ..) = pick(all.collect(), rng)?;
        let at = submitted(events, append)? + Duration::from_secs(91);
        let end = events
            .iter_mut()
            .find(|(_, event)| matches!(event, Event::Completed { append: of, .. } if *of == append))?;
        end.0 = at;
        Some(())
    }),
    ("append after the barrier of the next", Rule::OneWriter, |events, rng| {
        let barriers = barriers(events);
        let earlier = barriers.iter().filter(|(partition, _, offset)| {
            barriers.iter().any(|(other, _, later)| other == partition && later > offset)
        });
        let (_, writer, _) = pick(earlier.cloned().collect(), rng)?;
        new_append(events, writer, |_| AppendOutcome::Unknown)
    }),
    ("append on an earlier epoch after a barrier", Rule::OneWriter, |events, rng| {
        let fenced = barrier_batches(events).into_iter().filter(|(.., producer)| producer.epoch > 0);
        let (partition, .., Producer { id, epoch }) = pick(fenced.collect(), rng)?;
        let plain = events.iter().filter_map(|(_, event)| match event {
            Event::Writer { id, writer } if writer.exclusive.is_none() => Some(*id),
            _ => None,
        });
        let plain = plain.filter(|writer| partition_of(events, *writer) == partition);
        let writer = pick(plain.collect(), rng)?;
        new_append(events, writer, |_| AppendOutcome::Unknown)?;
        let log = log_in(events, &partition)?;
        let end = log.offsets.end;
        log.producers.push((end - 1..end, Producer { id, epoch: rng.i16(..epoch) }));
        Some(())
    }),
    ("the batch of a barrier is of another producer", Rule::OneWriter, |events, rng| {
        let (partition, offset, _) = pick(barrier_batches(events), rng)?;
        let named = events.iter().any(|(_, event)| {
            matches!(event, Event::Barrier { writer, offset: at, producer: Some(_) }
                if *at == offset && partition_of(events, *writer) == partition)
        });
        let log = log_in(events, &partition).filter(|_| named)?;
        let (_, producer) = log.producers.iter_mut().find(|(offsets, _)| offsets.contains(&offset))?;
        *producer = Producer { id: producer.id + 500, epoch: 0 };
        Some(())
    }),
    ("put a barrier on the log once more", Rule::Once, |events, rng| {
        let (partition, offset, producer) = pick(barrier_batches(events), rng)?;
        let log = log_in(events, &partition)?;
        let (_, mark) = log.records.iter().find(|(at, _)| *at == offset)?.clone();
        append_to_log(log, &[mark]);
        let end = log.offsets.end;
        log.producers.push((end - 1..end, producer));
        Some(())
    }),
    ("append after it was fenced", Rule::Ended, |events, rng| {
        let fenced = events.iter().filter_map(|(_, event)| match event {
            Event::Fenced { writer } => Some(*writer),
            _ => None,
        });
        let writer = pick(fenced.collect(), rng)?;
        new_append(events, writer, |base_offset| AppendOutcome::Acked { base_offset })
    }),
    ("pass over one when reading", Rule::ReadEvery, |events, rng| {
        let records = pick(reads(events), rng)?.0;
        records.remove(rng.usize(..records.len()));
        Some(())
    }),
    ("pass over one between two reads", Rule::ReadEvery, |events, rng| {
        let (records, _) = pick(reads(events), rng)?;
        records.remove(0);
        Some(())
    }),
    ("read one twice", Rule::ReadOnce, |events, rng| {
        let records = pick(reads(events), rng)?.0;
        let index = rng.usize(..records.len());
        records.insert(index, records[index].clone());
        Some(())
    }),
    ("go back by one", Rule::ReadOnce, |events, rng| {
        let (records, next) = pick(reads(events), rng)?;
        *next = records.last()?.0;
        Some(())
    }),
    ("read another one", Rule::ReadTrue, |events, rng| {
        let records = pick(reads(events), rng)?.0;
        let index = rng.usize(..records.len());
        records[index].1 = match records.len() {
            1 => Value::from("another"),
            len => records[(index + 1) % len].1.clone(),
        };
        Some(())
    }),
    ("tell of a loss", Rule::FalseAlarm, |events, rng| {
        let readers = events.iter().filter_map(|(_, event)| match event {
            Event::Reader { id, .. } => Some(*id),
            _ => None,
        });
        let reader = pick(readers.collect(), rng)?;
        let failure = ReadFailure::Truncated { diverged_at: 0 };
        let event = events
            .iter()
            .rposition(|(_, event)| matches!(event, Event::Read { reader: of, .. } if *of == reader))?;
        let at = events[event].0;
        events.insert(event + 1, (at, Event::ReadFailed { reader, failure }));
        Some(())
    }),
    ("put a stranger on the log", Rule::Asked, |events, rng| {
        let log = pick(logs(events).collect(), rng)?;
        append_to_log(log, &["stranger".into()]);
        Some(())
    }),
    ("leave an offset without a record", Rule::Asked, |events, rng| {
        let log = pick(logs(events).collect(), rng)?;
        log.offsets.end += 1;
        Some(())
    }),
    ("forget a log", Rule::History, |events, _| {
        events.pop();
        Some(())
    }),
    ("forget a submission", Rule::History, |events, rng| {
        let (append, ..) = pick(acked(events), rng)?;
        events.retain(|(_, event)| !matches!(event, Event::Submit { append: of, .. } if *of == append));
        Some(())
    }),
];

#[test]
fn one_mistake_is_reported() {
    let mutations: Vec<_> = MUTATIONS.iter().chain(READING).collect();
    let mut tried = vec![0; mutations.len()];
    for seed in 0..40 {
        let history = generate(seed, Workload { losses: false, batch: 3, steps: 400 });
        for ((name, rule, mutation), tried) in mutations.iter().copied().zip(&mut tried) {
            let mut events = history.events().to_vec();
            if mutation(&mut events, &mut Rng::with_seed(seed)).is_some() {
                *tried += 1;
                let verdict = rebuilt(events).check(&Expect::default());
                assert!(verdict.count(*rule) > 0, "{name}, seed {seed}, is not convicted: {verdict}");
            }
        }
    }
    for ((name, ..), tried) in mutations.into_iter().zip(tried) {
        assert!(tried > 10, "{name} was possible {tried} times only");
    }
}

/// A reader has seen records that are lost, and gets no error.
#[test]
fn an_unreported_loss_is_a_violation() {
    let mut tried = 0;
    for seed in 0..400 {
        let history = generate(seed, Workload { losses: true, batch: 3, steps: 600 });
        for (index, (_, event)) in history.events().iter().enumerate() {
            let Event::ReadFailed { reader, failure: ReadFailure::Truncated { diverged_at } } = event else {
                continue;
            };
            let (before, after) = (&history.events()[..index], &history.events()[index + 1..]);
            // Those of readers that fetch ahead are in `ahead.rs`.
            if before.iter().any(|(_, event)| matches!(event, Event::Fetched { reader: of } if of == reader))
            {
                continue;
            }
            // A later loss still hides an earlier one.
            if after
                .iter()
                .any(|(_, event)| matches!(event, Event::Truncated { .. } | Event::Recreated { .. }))
            {
                continue;
            }
            // The records that the reader got, `None` for an error.
            let of_reader = |(_, event): &(Duration, Event)| match event {
                Event::Read { reader: of, records, .. } if of == reader => Some(Some(records.clone())),
                Event::ReadFailed { reader: of, .. } if of == reader => Some(None),
                _ => None,
            };
            let since = before.iter().rev().filter_map(of_reader).map_while(|read| read);
            let partition = history.events().iter().find_map(|(_, event)| match event {
                Event::Reader { id, reader: facts } if id == reader => Some(&facts.partition),
                _ => None,
            });
            let log = after.iter().find_map(|(_, event)| match event {
                Event::Log(log) if Some(&log.partition) == partition => Some(log),
                _ => None,
            });
            // Offsets that are empty now show nothing.
            let shows = |at: i64| {
                log.is_some_and(|log| {
                    at >= log.offsets.end || log.records.iter().any(|(offset, _)| *offset == at)
                })
            };
            let saw = since.flatten().any(|(offset, _)| offset >= *diverged_at && shows(offset));
            // The first response may have been on its way, so it takes two.
            let answers =
                after.iter().filter_map(of_reader).map_while(|read| read).filter(|read| !read.is_empty());
            if !saw || answers.count() < 2 {
                continue;
            }
            let mut events = history.events().to_vec();
            events.drain(index..index + 2);
            tried += 1;
            let verdict = rebuilt(events).check(&Expect::default());
            assert!(verdict.count(Rule::Truncation) > 0, "seed {seed}, event {index}: {verdict}");
        }
    }
    assert!(tried > 10, "it was possible {tried} times only");
}

/// Acknowledged records of a writer are lost, and it appends all the same.
#[test]
fn a_writer_that_continues_after_a_loss_is_a_violation() {
    let mut tried = 0;
    for seed in 0..100 {
        let history = generate(seed, Workload { losses: true, batch: 3, steps: 600 });
        for (index, (_, event)) in history.events().iter().enumerate() {
            let Event::Lost { writer } = event else { continue };
            let mut events = history.events().to_vec();
            events.remove(index);
            let acked: Vec<_> = acked(&events);
            let mut acked =
                acked.into_iter().filter(|(append, ..)| writer_of(&events, *append) == Some(*writer));
            let partition = partition_of(&events, *writer);
            let mut logs = history.events().iter().filter_map(|(_, event)| match event {
                Event::Log(log) => Some(log),
                _ => None,
            });
            let log =
                logs.find(|log| (log.partition.topic.clone(), log.partition.partition) == partition).unwrap();
            // Deleted and compacted records show nothing.
            let shows = acked.any(|(_, base, values)| {
                base >= log.offsets.start
                    && !log.empty.iter().any(|empty| empty.contains(&base))
                    && !log.records.iter().any(|(_, value)| values.contains(value))
            });
            if !shows {
                continue;
            }
            tried += 1;
            new_append(&mut events, *writer, |_| AppendOutcome::Unknown).unwrap();
            let verdict = rebuilt(events).check(&Expect::default());
            assert!(verdict.count(Rule::LossEnds) > 0, "seed {seed}, event {index}: {verdict}");
        }
    }
    assert!(tried > 10, "it was possible {tried} times only");
}

pub(crate) fn rebuilt(events: Events) -> History {
    let mut history = History::new();
    for (at, event) in events {
        history.at(at).push(event);
    }
    history
}

pub(crate) fn pick<T>(mut from: Vec<T>, rng: &mut Rng) -> Option<T> {
    if from.is_empty() {
        return None;
    }
    Some(from.swap_remove(rng.usize(..from.len())))
}

/// All appends with their writers and records.
fn appends(events: &[(Duration, Event)]) -> Vec<(AppendId, WriterId, Vec<Value>)> {
    let appends = events.iter().filter_map(|(_, event)| match event {
        Event::Submit { append, writer, records, .. } => Some((*append, *writer, records.clone())),
        _ => None,
    });
    appends.collect()
}

/// The acknowledged appends with their offsets and records.
pub(crate) fn acked(events: &Events) -> Vec<(AppendId, i64, Vec<Value>)> {
    let outcomes: BTreeMap<_, _> = outcomes(events);
    let acked = appends(events).into_iter().filter_map(|(append, _, values)| match outcomes.get(&append) {
        Some(AppendOutcome::Acked { base_offset }) => Some((append, *base_offset, values)),
        _ => None,
    });
    acked.collect()
}

pub(crate) fn outcomes(events: &Events) -> BTreeMap<AppendId, AppendOutcome> {
    let outcomes = events.iter().filter_map(|(_, event)| match event {
        Event::Completed { append, outcome } => Some((*append, *outcome)),
        _ => None,
    });
    outcomes.collect()
}

/// The appends with a certain outcome that are not on a log.
pub(crate) fn absent(
    events: &mut Events,
    ended: impl Fn(AppendOutcome) -> bool,
) -> Vec<(AppendId, Vec<Value>)> {
    let outcomes = outcomes(events);
    let mut absent = Vec::new();
    for (append, _, values) in appends(events) {
        let on_log = logs(events).any(|log| log.records.iter().any(|(_, value)| *value == values[0]));
        if !on_log && outcomes.get(&append).is_some_and(|end| ended(*end)) {
            absent.push((append, values));
        }
    }
    absent
}

pub(crate) fn end_of(events: &mut Events, append: AppendId) -> Option<(Duration, &mut AppendOutcome)> {
    events.iter_mut().find_map(|(at, event)| match event {
        Event::Completed { append: of, outcome } if *of == append => Some((*at, outcome)),
        _ => None,
    })
}

fn submitted(events: &Events, append: AppendId) -> Option<Duration> {
    events.iter().find_map(|(at, event)| match event {
        Event::Submit { append: of, .. } if *of == append => Some(*at),
        _ => None,
    })
}

fn is_fixed(events: &Events, append: AppendId) -> bool {
    events.iter().any(
        |(_, event)| matches!(event, Event::Submit { append: of, order: SubmitOrder::Fixed, .. } if *of == append),
    )
}

pub(crate) fn writer_of(events: &Events, append: AppendId) -> Option<WriterId> {
    events.iter().find_map(|(_, event)| match event {
        Event::Submit { append: of, writer, .. } if *of == append => Some(*writer),
        _ => None,
    })
}

fn goes_on(events: &Events, append: AppendId) -> bool {
    let writer = writer_of(events, append);
    events.iter().any(|(_, event)| {
        matches!(event, Event::Writer { id, writer: facts } if Some(*id) == writer && facts.on_failure_continue)
    })
}

pub(crate) fn partition_of(events: &Events, writer: WriterId) -> (String, i32) {
    let partition = events.iter().find_map(|(_, event)| match event {
        Event::Writer { id, writer: facts } if *id == writer => Some(facts.partition.clone()),
        _ => None,
    });
    let partition = partition.expect("writers come before what they do");
    (partition.topic, partition.partition)
}

fn barriers(events: &Events) -> Vec<((String, i32), WriterId, i64)> {
    let barriers = events.iter().filter_map(|(_, event)| match event {
        Event::Barrier { writer, offset, .. } => Some((partition_of(events, *writer), *writer, *offset)),
        _ => None,
    });
    barriers.collect()
}

/// The barriers on the logs, with their producers.
fn barrier_batches(events: &mut Events) -> Vec<((String, i32), i64, Producer)> {
    let mut found = Vec::new();
    for log in logs(events) {
        let partition = (log.partition.topic.clone(), log.partition.partition);
        for (offsets, producer) in &log.producers {
            let mut records = log.records.iter();
            let first = records.find(|(offset, _)| *offset == offsets.start);
            if first.is_some_and(|(_, value)| value.to_string().starts_with("~barrier~")) {
                found.push((partition.clone(), offsets.start, *producer));
            }
        }
    }
    found
}

fn log_in<'a>(events: &'a mut Events, partition: &(String, i32)) -> Option<&'a mut Log> {
    logs(events).find(|log| log.partition.topic == partition.0 && log.partition.partition == partition.1)
}

pub(crate) fn logs(events: &mut Events) -> impl Iterator<Item = &mut Log> {
    events.iter_mut().filter_map(|(_, event)| match event {
        Event::Log(log) => Some(log),
        _ => None,
    })
}

pub(crate) fn log_with<'a>(events: &'a mut Events, value: &Value) -> Option<&'a mut Log> {
    logs(events).find(|log| log.records.iter().any(|(_, on_log)| on_log == value))
}

pub(crate) fn log_of(events: &mut Events, append: AppendId) -> Option<&mut Log> {
    let partition = partition_of(events, writer_of(events, append)?);
    logs(events).find(|log| (log.partition.topic.clone(), log.partition.partition) == partition)
}

pub(crate) fn append_to_log(log: &mut Log, values: &[Value]) {
    let end = log.offsets.end;
    log.records.extend((end..).zip(values.iter().cloned()));
    log.offsets.end += values.len() as i64;
}

/// The log of an append, if it also has an append that its writer submitted after it had ended.
fn behind_later(events: &mut Events, append: AppendId) -> Option<&mut Log> {
    let writer = writer_of(events, append)?;
    let ended = events
        .iter()
        .position(|(_, event)| matches!(event, Event::Completed { append: of, .. } if *of == append))?;
    let later = appends(&events[ended..]).into_iter().filter(|(_, of, _)| *of == writer);
    let later: Vec<_> = later.map(|(.., values)| values[0].clone()).collect();
    log_of(events, append).filter(|log| log.records.iter().any(|(_, value)| later.contains(value)))
}

/// A writer submits one more append, which gets the end of its log.
pub(crate) fn new_append(
    events: &mut Events,
    writer: WriterId,
    outcome: impl Fn(i64) -> AppendOutcome,
) -> Option<()> {
    let append = AppendId(1_000_000);
    let first_log = events.iter().position(|(_, event)| matches!(event, Event::Log(_)))?;
    let at = events[first_log].0;
    let partition = partition_of(events, writer);
    let log = logs(events).find(|log| (log.partition.topic.clone(), log.partition.partition) == partition)?;
    let base = log.offsets.end;
    append_to_log(log, &["more".into()]);
    let submit = Event::Submit { append, writer, order: SubmitOrder::Fixed, records: vec!["more".into()] };
    events.insert(first_log, (at, submit));
    events.insert(first_log + 1, (at, Event::Completed { append, outcome: outcome(base) }));
    Some(())
}

/// The answers to what became of appends.
fn answers(events: &mut Events) -> Vec<&mut Option<i64>> {
    let answers = events.iter_mut().filter_map(|(_, event)| match event {
        Event::Resolved { base_offset, .. } => Some(base_offset),
        _ => None,
    });
    answers.collect()
}

/// The numbers of failures that closed writers reported.
fn closes(events: &mut Events) -> Vec<&mut usize> {
    let closes = events.iter_mut().filter_map(|(_, event)| match event {
        Event::Closed { failed, .. } => Some(failed),
        _ => None,
    });
    closes.collect()
}

/// The reads that returned records.
fn reads(events: &mut Events) -> Vec<(&mut Vec<(i64, Value)>, &mut i64)> {
    let reads = events.iter_mut().filter_map(|(_, event)| match event {
        Event::Read { records, next_offset, .. } if !records.is_empty() => Some((records, next_offset)),
        _ => None,
    });
    reads.collect()
}
