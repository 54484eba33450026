//! Storms of the client by the thousand: whatever goes wrong in a cluster of three brokers, what the clients were told agrees
//! with what is on the logs.
//!
//! ```sh
//! KWAL_SIM_SEEDS=100000 cargo test -p kwal-client --test storm    # more of them
//! KWAL_SIM_SEED=7 cargo test -p kwal-client --test storm          # one of them
//! ```

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod run;

use std::{
    collections::BTreeMap,
    env,
    io::{self, Write},
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use kwal_testkit::{Damage, Hazard};

use crate::run::{MEETINGS, Plan, Report, storm};

/// How many storms there are if nobody says.
const SEEDS: u64 = 200;

#[test]
fn whatever_goes_wrong_the_contract_holds() {
    let one = env::var("KWAL_SIM_SEED").ok().map(|seed| seed.parse().unwrap());
    if let Some(seed) = one {
        let report = storm(seed);
        tell(&format!("seed {seed}: {}\n{:?}", report.damage, report.met));
        return assert!(report.holds(), "{}", story(seed));
    }
    let seeds = env::var("KWAL_SIM_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let sum = all(0..seeds).unwrap_or_else(|seed| panic!("{}", story(seed)));
    tell(&format!("{seeds} storms: {}", sum.damage));
    tell(&format!("{:?}", sum.met));
    for what in MEETINGS {
        assert!(sum.met.contains_key(what), "in none of the storms: {what}");
    }
    let hits = sum.damage.hits;
    assert!(hits.produces > 0 && hits.fetches > 0 && hits.handshakes > 0, "{}", sum.damage);
    for hazard in HAZARDS {
        assert!(sum.damage.count(*hazard) > 0, "in none of the storms: {hazard:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 0..12 {
        let texts = move || {
            let Report { history, journal, .. } = Plan::of(seed).journal(JOURNAL).run();
            [history.to_string(), journal.to_string()]
        };
        // Each on a thread of its own, as what is random there differs.
        let [one, two] = [thread::spawn(texts), thread::spawn(texts)].map(|run| run.join().unwrap());
        for (one, two) in one.iter().zip(&two) {
            let differs = one.lines().zip(two.lines()).enumerate().find(|(_, (one, two))| one != two);
            assert!(one == two, "seed {seed} differs, first in {differs:?}");
        }
    }
}

/// What all storms have met together.
#[derive(Debug, Default)]
struct Sum {
    met: BTreeMap<&'static str, u64>,
    damage: Damage,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        for (what, count) in &report.met {
            *self.met.entry(what).or_default() += count;
        }
        self.damage.add(&report.damage);
    }
}

/// Lets the storms of all seeds pass, on as many threads as there are cores; or answers the lowest that does not hold.
fn all(seeds: Range<u64>) -> Result<Sum, u64> {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(u64::MAX);
    let sum = Mutex::new(Sum::default());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end.min(failed.load(Ordering::Relaxed)) {
                        return;
                    }
                    let report = storm(seed);
                    if !report.holds() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                    sum.lock().unwrap().add(&report);
                }
            });
        }
    });
    match failed.into_inner() {
        u64::MAX => Ok(sum.into_inner().unwrap()),
        seed => Err(seed),
    }
}

/// All that there is to know of a storm. It is the same once more.
fn story(seed: u64) -> String {
    let plan = Plan::of(seed).journal(JOURNAL);
    let Report { verdict, problems, history, journal, .. } = plan.run();
    let problems = problems.join("\n");
    format!(
        "the storm of seed {seed} does not hold; alone it is\n    KWAL_SIM_SEED={seed} cargo test -p kwal-client --test storm\n\n\
         {plan:?}\n\nwhat the clients were told\n{history}\nwhat happened in the cluster\n{journal}\n{problems}\n{verdict}"
    )
}

/// Says something that is to be seen also when tests are not asked for what they print.
fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Enough for any of them.
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
];
