//! Mistakes of readers and replays in correct histories, see `mutations.rs`.

use std::collections::BTreeMap;

use fastrand::Rng;
use kwal_testkit::check::{AppendId, Covered, Event, Log, ReadFailure, ReaderId, Rule, Value};

use crate::mutations::{Events, Mutation, acked, logs, partition_of, pick, writer_of};

pub(crate) const READING: &[(&str, Rule, Mutation)] = &[
    ("tell that the log was trimmed", Rule::FalseAlarm, |events, rng| {
        fail(events, rng, |position| ReadFailure::Trimmed { log_start: position + 1 })
    }),
    ("tell that the log ends before", Rule::FalseAlarm, |events, rng| {
        fail(events, rng, |position| ReadFailure::BeyondEnd { end: position - 1 })
    }),
    ("tell of an epoch that nobody knows", Rule::FalseAlarm, |events, rng| {
        fail(events, rng, |_| ReadFailure::EpochUnknown)
    }),
    ("return an aborted record", Rule::Committed, |events, rng| {
        let mut found = Vec::new();
        let aborted: Vec<Log> = logs(events).map(|log| log.clone()).collect();
        let mut positions = committed_readers(events);
        for (index, (_, event)) in events.iter().enumerate() {
            let Event::Read { reader, next_offset, .. } = event else { continue };
            let Some((partition, position)) = positions.get_mut(reader) else { continue };
            let passed = std::mem::replace(position, *next_offset)..*next_offset;
            let log = aborted.iter().find(|log| log.partition.partition == *partition)?;
            let within = log.aborted.iter().filter(|aborted| passed.contains(&aborted.start));
            found.extend(within.map(|aborted| (index, aborted.start, log.clone())));
        }
        let (index, offset, log) = pick(found, rng)?;
        let Event::Read { records, .. } = &mut events[index].1 else { return None };
        let place = records.partition_point(|(at, _)| *at < offset);
        records.insert(place, log.records.iter().find(|(at, _)| *at == offset)?.clone());
        Some(())
    }),
    ("pass the last stable offset", Rule::Committed, |events, rng| {
        let readers = committed_readers(events);
        let reads = events.iter().filter_map(|(_, event)| match event {
            Event::Read { reader, next_offset, .. } if *next_offset > 0 => {
                Some((readers.get(reader)?.0, *next_offset))
            }
            _ => None,
        });
        let (partition, next) = pick(reads.collect(), rng)?;
        logs(events).find(|log| log.partition.partition == partition)?.last_stable = Some(next - 1);
        Some(())
    }),
    ("end a replay early", Rule::Replay, |events, rng| {
        let covered = pick(replays(events), rng).filter(|covered| !covered.offsets.is_empty())?;
        covered.offsets.end -= 1;
        covered.gaps.clear();
        Some(())
    }),
    ("count a record that a replay did not give", Rule::Replay, |events, rng| {
        pick(replays(events), rng)?.records += 1;
        Some(())
    }),
    ("call a record a gap", Rule::Replay, |events, rng| {
        let covered = pick(replays(events), rng).filter(|covered| covered.records > 0)?;
        covered.gaps = vec![covered.offsets.clone()];
        Some(())
    }),
    ("open a replay that ends before what was acknowledged", Rule::Replay, |events, rng| {
        let opened = events.iter().enumerate().filter_map(|(index, (_, event))| match event {
            Event::ReplayOpened { end: 1.., given: false, .. } => Some(index),
            _ => None,
        });
        let index = pick(opened.collect(), rng)?;
        let acked: Vec<_> = acked(&events[..index].to_vec());
        let Event::ReplayOpened { reader, end, .. } = &mut events[index].1 else { return None };
        let (reader, low) = (*reader, rng.i64(..*end));
        let committed = committed_readers(events);
        let partition = events.iter().find_map(|(_, event)| match event {
            Event::Reader { id, reader: facts } if *id == reader => Some(facts.partition.partition),
            _ => None,
        })?;
        let before = events[..index].iter().rposition(|(_, event)| match event {
            Event::Read { reader: of, .. } | Event::Seek { reader: of, .. } => *of == reader,
            Event::Reader { id, .. } => *id == reader,
            _ => false,
        })?;
        let on_it = |(append, base, _): &(AppendId, i64, Vec<Value>)| {
            let ended = events[..before]
                .iter()
                .any(|(_, event)| matches!(event, Event::Completed { append: of, .. } if of == append));
            let of = writer_of(events, *append).map(|writer| partition_of(events, writer).1);
            ended && *base >= low && of == Some(partition)
        };
        if committed.contains_key(&reader) || !acked.iter().any(on_it) {
            return None;
        }
        let Event::ReplayOpened { end, .. } = &mut events[index].1 else { return None };
        *end = low;
        Some(())
    }),
];

/// Inserts an error after a read, by its position.
fn fail(events: &mut Events, rng: &mut Rng, failure: impl Fn(i64) -> ReadFailure) -> Option<()> {
    let reads = events.iter().enumerate().filter_map(|(index, (at, event))| match event {
        Event::Read { reader, next_offset: next @ 1.., .. } => Some((index, *at, *reader, *next)),
        _ => None,
    });
    let (index, at, reader, position) = pick(reads.collect(), rng)?;
    events.insert(index + 1, (at, Event::ReadFailed { reader, failure: failure(position) }));
    Some(())
}

/// The readers with READ_COMMITTED, the index of their partition, and where they start.
fn committed_readers(events: &Events) -> BTreeMap<ReaderId, (i32, i64)> {
    let readers = events.iter().filter_map(|(_, event)| match event {
        Event::Reader { id, reader } if reader.committed => {
            Some((*id, (reader.partition.partition, reader.offset)))
        }
        _ => None,
    });
    readers.collect()
}

/// What replays say they covered.
fn replays(events: &mut Events) -> Vec<&mut Covered> {
    let replays = events.iter_mut().filter_map(|(_, event)| match event {
        Event::ReplayEnded { covered, .. } => Some(covered),
        _ => None,
    });
    replays.collect()
}
