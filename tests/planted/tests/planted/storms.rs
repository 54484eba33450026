//! Mutations that storms detect soon, without a scene made for them.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use kwal_client::{Mutation, activate};
use kwal_testkit::check::Rule;

use crate::run::storm;

/// The number of storms in which each has to be detected.
const SEEDS: u64 = 400;

/// The rule by which each is detected.
const FOUND: &[(Mutation, Rule)] = &[
    (Mutation::AcksOfOne, Rule::Durable),
    (Mutation::LastOffsetForFirst, Rule::Offset),
    (Mutation::RetryWithoutSequence, Rule::Once),
    (Mutation::RetryUnderNewSequence, Rule::Once),
    (Mutation::RetryInNewEpoch, Rule::Once),
    (Mutation::EpochNotBumped, Rule::Durable),
    (Mutation::BatchForEachRecord, Rule::Whole),
    (Mutation::ResentOutOfOrder, Rule::Order),
    (Mutation::HoleAfterFailure, Rule::NoHole),
    (Mutation::HoleBehindRefused, Rule::NoHole),
    (Mutation::AttemptWithoutDeadline, Rule::Deadline),
    (Mutation::PauseBeyondDeadline, Rule::Deadline),
    (Mutation::DeadlineTakenForRejection, Rule::NotAppended),
    (Mutation::DroppedNotSent, Rule::NoHole),
    (Mutation::DroppedAborted, Rule::NoHole),
    (Mutation::LookUpOfWrongOffset, Rule::FalseAlarm),
    (Mutation::PartialBatchTakenForEnd, Rule::ReadEvery),
    (Mutation::FirstBatchWhole, Rule::ReadOnce),
    (Mutation::ThrottleTakenForFailure, Rule::Once),
    (Mutation::FirstPartitionForAll, Rule::Asked),
];

#[test]
fn storms_detect_mutations() {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((mutation, rule)) = FOUND.get(next.fetch_add(1, Ordering::Relaxed)) {
                    activate(Some(*mutation));
                    let by = (0..SEEDS).find(|seed| storm(*seed).verdict.count(*rule) > 0);
                    found.lock().unwrap().insert(*mutation, by);
                }
                activate(None);
            });
        }
    });
    let found = found.into_inner().unwrap();
    for (mutation, rule) in FOUND {
        match found[mutation] {
            Some(seed) => {
                println!(
                    "{:27} {:4} {rule}: in the storm of seed {seed}, of {SEEDS}",
                    format!("{mutation:?}"),
                    mutation.contract()
                )
            }
            None => panic!("{mutation:?} is not detected in {SEEDS} storms"),
        }
    }
    for seed in 0..=found.into_values().flatten().max().unwrap_or_default() {
        let report = storm(seed);
        assert!(
            report.holds(),
            "no mutation is active, seed {seed}: {:?} {}",
            report.problems,
            report.verdict
        );
    }
}
