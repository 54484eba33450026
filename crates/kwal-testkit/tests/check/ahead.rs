//! Mistakes of readers that fetch ahead: they hand over what they can only have fetched after a loss.

use kwal_testkit::check::{Event, Expect, History, Log, ReadFailure, ReaderId, Rule};

use crate::{
    generator::{Workload, generate},
    mutations::rebuilt,
};

/// The steps of a reader that fetches ahead, with their indices in the history.
fn steps(history: &History, reader: ReaderId) -> Vec<(usize, &Event)> {
    let events = history.events().iter().map(|(_, event)| event).enumerate();
    let of_reader = |event: &Event| match event {
        Event::Fetched { reader: of }
        | Event::Read { reader: of, .. }
        | Event::ReadFailed { reader: of, .. } => *of == reader,
        _ => false,
    };
    events.filter(|(_, event)| of_reader(event)).collect()
}

/// The readers of a history that fetch ahead.
fn readers(history: &History) -> impl Iterator<Item = ReaderId> + '_ {
    history.events().iter().filter_map(|(_, event)| match event {
        Event::Reader { id, .. } if steps(history, *id).iter().any(|(_, step)| is_response(step)) => {
            Some(*id)
        }
        _ => None,
    })
}

fn is_response(step: &Event) -> bool {
    matches!(step, Event::Fetched { .. })
}

fn has_records(step: &Event) -> bool {
    matches!(step, Event::Read { records, .. } if !records.is_empty())
}

fn generated(seed: u64) -> History {
    generate(seed, Workload { losses: true, batch: 3, steps: 600 })
}

/// Where the last loss of a log happened. Earlier ones it may hide.
fn last_loss(history: &History, log: &Log) -> Option<usize> {
    history.events().iter().rposition(|(_, event)| match event {
        Event::Truncated { partition, .. } | Event::Recreated { partition } => *partition == log.partition,
        _ => false,
    })
}

/// The log of the partition of a reader.
fn log_of(history: &History, reader: ReaderId) -> Option<&Log> {
    let events = || history.events().iter().map(|(_, event)| event);
    let partition = events().find_map(|event| match event {
        Event::Reader { id, reader: facts } if *id == reader => Some(&facts.partition),
        _ => None,
    })?;
    events().find_map(|event| match event {
        Event::Log(log) if log.partition == *partition => Some(log),
        _ => None,
    })
}

/// Whether a reader got a record that is lost, since another one is there now.
fn got_lost(step: &Event, log: &Log) -> bool {
    let Event::Read { records, .. } = step else { return false };
    records.iter().any(|(offset, value)| {
        let there = log.records.iter().find(|(at, _)| at == offset);
        there.is_some_and(|(_, there)| there != value)
    })
}

/// What is read after a loss can be the rest of what was fetched before it. With two more responses in
/// between, it was fetched after the loss, when no broker had it any more.
#[test]
fn lost_records_of_a_later_response_are_a_violation() {
    let mut tried = 0;
    for seed in 0..400 {
        let history = generated(seed);
        let right = history.check(&Expect::default());
        assert!(right.holds(), "seed {seed}: {right}");
        for reader in readers(&history) {
            let Some(log) = log_of(&history, reader) else { continue };
            let Some(loss) = last_loss(&history, log) else { continue };
            let after = steps(&history, reader).into_iter().filter(|(index, _)| *index > loss);
            for (index, _) in after.filter(|(_, step)| got_lost(step, log)) {
                let mut events = history.events().to_vec();
                let response = (events[index].0, Event::Fetched { reader });
                events.splice(index..index, [response.clone(), response]);
                tried += 1;
                let verdict = rebuilt(events).check(&Expect::default());
                assert!(verdict.count(Rule::ReadTrue) > 0, "seed {seed}, event {index}: {verdict}");
            }
        }
    }

    assert!(tried > 10, "it was possible {tried} times only");
}

/// A reader has handed over records that are lost, and then reads on from the log as it is now.
#[test]
fn reading_on_after_a_loss_is_a_violation() {
    let mut tried = 0;
    for seed in 0..1_000 {
        let history = generated(seed);
        for reader in readers(&history) {
            let Some(log) = log_of(&history, reader) else { continue };
            let Some(loss) = last_loss(&history, log) else { continue };
            let steps = steps(&history, reader);
            for (place, (index, step)) in steps.iter().enumerate() {
                let Event::ReadFailed { failure, .. } = step else { continue };
                if *index < loss || !matches!(failure, ReadFailure::Truncated { .. } | ReadFailure::Recreated)
                {
                    continue;
                }
                let is_read = |step: &&Event| !matches!(step, Event::ReadFailed { .. });
                let earlier = steps[..place].iter().rev().map(|(_, step)| *step).take_while(is_read);
                let saw = earlier.into_iter().any(|step| got_lost(step, log));
                // The fetches of the first two responses may have been sent before the loss.
                let mut later = steps[place + 1..].iter().map(|(_, step)| *step).take_while(is_read);
                let is_late = later.by_ref().filter(|step| is_response(step)).nth(1).is_some();
                if !saw || !is_late || !later.any(has_records) {
                    continue;
                }
                let mut events = history.events().to_vec();
                // With the seek after it.
                events.drain(index..=&(index + 1));
                tried += 1;
                let verdict = rebuilt(events).check(&Expect::default());
                assert!(verdict.count(Rule::Truncation) > 0, "seed {seed}, event {index}: {verdict}");
            }
        }
    }

    assert!(tried > 10, "it was possible {tried} times only");
}
