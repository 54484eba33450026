//! The mistakes that storms soon find by themselves, where nobody has to know beforehand what does harm.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use kwal_client::{Bug, plant};
use kwal_testkit::check::Rule;

use crate::run::storm;

/// How many storms each has to be found in.
const SEEDS: u64 = 400;

/// By which rule each is found.
const FOUND: &[(Bug, Rule)] = &[
    (Bug::AcksOfOne, Rule::Durable),
    (Bug::LastOffsetForFirst, Rule::Offset),
    (Bug::RetryWithoutSequence, Rule::Once),
    (Bug::RetryUnderNewSequence, Rule::Once),
    (Bug::RetryInNewEpoch, Rule::Once),
    (Bug::EpochKept, Rule::Durable),
    (Bug::BatchForEachRecord, Rule::Whole),
    (Bug::TwoInFlight, Rule::NoHole),
    (Bug::HoleBehindFailure, Rule::NoHole),
    (Bug::AttemptWithoutDeadline, Rule::Deadline),
    (Bug::PauseBeyondDeadline, Rule::Deadline),
    (Bug::DeadlineTakenForRefusal, Rule::NotAppended),
    (Bug::DroppedNotSent, Rule::NoHole),
    (Bug::DroppedCutOff, Rule::NoHole),
    (Bug::CutTakenForEnd, Rule::ReadEvery),
    (Bug::FirstBatchWhole, Rule::ReadOnce),
    (Bug::ThrottleTakenForFailure, Rule::Once),
    (Bug::FirstPartitionForAll, Rule::Asked),
];

#[test]
fn storms_find_mistakes_by_themselves() {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((bug, rule)) = FOUND.get(next.fetch_add(1, Ordering::Relaxed)) {
                    plant(Some(*bug));
                    let by = (0..SEEDS).find(|seed| storm(*seed).verdict.count(*rule) > 0);
                    found.lock().unwrap().insert(*bug, by);
                }
                plant(None);
            });
        }
    });
    let found = found.into_inner().unwrap();
    for (bug, rule) in FOUND {
        match found[bug] {
            Some(seed) => {
                println!(
                    "{:24} {:4} {rule}: in the storm of seed {seed}, of {SEEDS}",
                    format!("{bug:?}"),
                    bug.breaks()
                )
            }
            None => panic!("{bug:?} is not found in {SEEDS} storms"),
        }
    }
    for seed in 0..=found.into_values().flatten().max().unwrap_or_default() {
        let report = storm(seed);
        assert!(report.holds(), "nothing is planted, seed {seed}: {:?} {}", report.problems, report.verdict);
    }
}
