//! Storms by the thousand: whatever fails in a cluster of three brokers, the results that clients got agree
//! with the logs.
//!
//! ```sh
//! KWAL_SIM_SEEDS=100000 cargo test -p kwal-client --test storm    # more of them
//! KWAL_SIM_SEEDS=1000..9000 cargo test -p kwal-client --test storm    # others
//! KWAL_SIM_SEED=7 cargo test -p kwal-client --test storm          # one of them
//! KWAL_SIM_ALL=1 cargo test -p kwal-client --test storm           # goes on after one that fails
//! ```

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod run;
#[allow(dead_code, reason = "the contract tests use all of it")]
#[path = "../contract/support.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{self, Write},
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use kwal_batching::{producer, reader as consumer};
use kwal_testkit::{Hazard, StormReport};

use crate::run::{COUNTERS, Plan, Report, storm};

/// The number of storms by default.
const SEEDS: u64 = 1_000;

#[test]
fn the_contract_holds_in_every_storm() {
    let one = env::var("KWAL_SIM_SEED").ok().map(|seed| seed.parse().unwrap());
    if let Some(seed) = one {
        let report = storm(seed);
        print(&format!("seed {seed}: {}\n{:?}", report.storm, report.counts));
        return assert!(report.holds(), "{}", describe(seed));
    }
    let seeds = env::var("KWAL_SIM_SEEDS").unwrap_or_else(|_| SEEDS.to_string());
    let (from, to) = seeds.split_once("..").unwrap_or(("0", &seeds));
    let seeds: Range<u64> = from.parse().unwrap()..to.parse().unwrap();
    let goes_on = env::var_os("KWAL_SIM_ALL").is_some();
    let sum = all(seeds.clone(), goes_on).unwrap_or_else(|seed| panic!("{}", describe(seed)));
    print(&format!("the storms of the seeds {seeds:?}: {}", sum.storm));
    print(&format!("{:?}", sum.counts));
    let fault_counts = sum.storm.fault_counts;
    assert!(
        fault_counts.produces > 0 && fault_counts.fetches > 0 && fault_counts.handshakes > 0,
        "{}",
        sum.storm
    );
    assert!(
        fault_counts.without_brokers > 0 && fault_counts.producer_ids > 0 && fault_counts.connections > 0,
        "{}",
        sum.storm
    );
    // What is rare need not be in a few.
    if seeds.end.saturating_sub(seeds.start) >= SEEDS {
        for what in COUNTERS {
            assert!(sum.counts.contains_key(what), "not in any storm: {what}");
        }
        for hazard in HAZARDS {
            assert!(sum.storm.count(*hazard) > 0, "not in any storm: {hazard:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..12 {
        let texts = move || {
            let Report { history, journal, .. } = Plan::of(seed).journal(JOURNAL).run();
            [history.to_string(), journal.to_string()]
        };
        // On separate threads, whose hash seeds differ.
        let [one, two] = [thread::spawn(texts), thread::spawn(texts)].map(|run| run.join().unwrap());
        for (one, two) in one.iter().zip(&two) {
            let differs = one.lines().zip(two.lines()).enumerate().find(|(_, (one, two))| one != two);
            assert!(one == two, "seed {seed} differs, first in {differs:?}");
        }
    }
}

/// Compares with a history that was recorded, perhaps on another machine. A change of the client's behaviour
/// shows in the difference.
#[test]
fn the_same_seed_gives_the_same_history_on_every_machine() {
    let report = Plan::short(SHORT).journal(JOURNAL).run();
    assert!(report.holds(), "{:?}\n{}", report.problems, report.verdict);
    let recorded = format!(
        "# Results of the client calls in the storm of seed {SHORT}\n{}\n# Journal of the cluster\n{}",
        report.history, report.journal
    );
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/storm/short.txt");
    if env::var_os("UPDATE_SNAPSHOT").is_some() {
        fs::write(path, &recorded).unwrap();
    }
    let stored = fs::read_to_string(path).unwrap();
    let differs = recorded.lines().zip(stored.lines()).enumerate().find(|(_, (new, old))| new != old);
    assert!(
        recorded == stored,
        "the history has changed, first in (line - 1, (new, old)): {differs:?}; if that is intended, run \
         UPDATE_SNAPSHOT=1 cargo test -p kwal-client --test storm, and read the difference"
    );
}

/// The sums over all storms.
#[derive(Debug, Default)]
struct Sum {
    counts: BTreeMap<&'static str, u64>,
    storm: StormReport,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        for (what, count) in &report.counts {
            *self.counts.entry(what).or_default() += count;
        }
        self.storm.add(&report.storm);
    }
}

/// Runs the storms of all seeds, on as many threads as there are cores. Returns the lowest seed whose storm
/// fails, if any. `goes_on` until the last seed, and reports all that fail.
fn all(seeds: Range<u64>, goes_on: bool) -> Result<Sum, u64> {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(u64::MAX);
    let sum = Mutex::new(Sum::default());
    let running = Mutex::new(BTreeSet::new());
    let work = |_alive: Sender<()>| {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let end = if goes_on { seeds.end } else { seeds.end.min(failed.load(Ordering::Relaxed)) };
            if seed >= end {
                return;
            }
            running.lock().unwrap().insert(seed);
            let report = storm(seed);
            running.lock().unwrap().remove(&seed);
            if !report.holds() {
                failed.fetch_min(seed, Ordering::Relaxed);
                let problem = report.problems.first().cloned();
                let violation = report.verdict.violations().first().map(ToString::to_string);
                let problem = problem.or(violation).unwrap_or_default();
                print(&format!("the storm of seed {seed} fails: {problem}"));
            }
            sum.lock().unwrap().add(&report);
        }
    };
    thread::scope(|scope| {
        let (alive, done) = mpsc::channel();
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let alive = alive.clone();
            scope.spawn(|| work(alive));
        }
        drop(alive);
        let mut before = BTreeSet::new();
        while done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let now = running.lock().unwrap().clone();
            for seed in now.intersection(&before) {
                print(&format!("the storm of seed {seed} does not end"));
            }
            before = now;
        }
    });
    match failed.into_inner() {
        u64::MAX => Ok(sum.into_inner().unwrap()),
        seed => Err(seed),
    }
}

/// Runs a storm again, which gives the same history, and describes it.
fn describe(seed: u64) -> String {
    let plan = Plan::of(seed).journal(JOURNAL);
    let Report { verdict, problems, history, journal, .. } = plan.run();
    let problems = problems.join("\n");
    format!(
        "the storm of seed {seed} breaks the contract; to run it alone:\n    KWAL_SIM_SEED={seed} cargo test -p kwal-client --test storm\n\n\
         {plan:?}\n\nresults of the client calls\n{history}\njournal of the cluster\n{journal}\n{problems}\n{verdict}"
    )
}

/// Prints a line that the test harness does not capture.
fn print(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Much longer than a storm takes: one that runs longer is reported.
const PATIENCE: Duration = Duration::from_secs(20);

/// The seed of the recorded storm.
const SHORT: u64 = 143;

/// More entries than any storm writes.
const JOURNAL: usize = 100_000;

const HAZARDS: &[Hazard] = &[
    Hazard::Faults,
    Hazard::Disconnects,
    Hazard::Kills,
    Hazard::Restarts,
    Hazard::Pauses,
    Hazard::Elections,
    Hazard::Shrinking,
    Hazard::Lag,
    Hazard::StaleMetadata,
    Hazard::UncleanElections,
    Hazard::Recreation,
    Hazard::EpochRewinds,
    Hazard::EmptyMetadata,
    Hazard::RefusedProducerIds,
    Hazard::RefusedConnections,
    Hazard::ConnectionLimits,
    Hazard::CoordinatorFaults,
    Hazard::CoordinatorMoves,
    Hazard::NameExpiry,
    Hazard::Trim,
    Hazard::Compaction,
    Hazard::Transactions,
];
