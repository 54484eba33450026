//! Storms of the client by the thousand: whatever goes wrong in a cluster of three brokers, what the clients were told agrees
//! with what is on the logs.
//!
//! ```sh
//! KWAL_SIM_SEEDS=100000 cargo test -p kwal-client --test storm    # more of them
//! KWAL_SIM_SEED=7 cargo test -p kwal-client --test storm          # one of them
//! ```

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod run;
#[allow(dead_code, reason = "others use it too")]
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

use kwal_testkit::{Damage, Hazard};

use crate::run::{MEETINGS, Plan, Report, storm};

/// How many storms there are if nobody says.
const SEEDS: u64 = 1_000;

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

/// As it was recorded, on another machine perhaps. What the client does differently shows in the difference.
#[test]
fn the_same_seed_is_the_same_history_on_every_machine() {
    let report = Plan::short(SHORT).journal(JOURNAL).run();
    assert!(report.holds(), "{:?}\n{}", report.problems, report.verdict);
    let told = format!(
        "# What the clients were told in the storm of seed {SHORT}\n{}\n# What happened in the cluster\n{}",
        report.history, report.journal
    );
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/storm/short.txt");
    if env::var_os("UPDATE_SNAPSHOT").is_some() {
        fs::write(path, &told).unwrap();
    }
    let stored = fs::read_to_string(path).unwrap();
    let differs = told.lines().zip(stored.lines()).enumerate().find(|(_, (new, old))| new != old);
    assert!(
        told == stored,
        "the history is another one, first here (line - 1, (new, old)): {differs:?}; if it may be, then \
         UPDATE_SNAPSHOT=1 cargo test -p kwal-client --test storm, and read the difference"
    );
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
    let under_way = Mutex::new(BTreeSet::new());
    let work = |_at_work: Sender<()>| {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end.min(failed.load(Ordering::Relaxed)) {
                return;
            }
            under_way.lock().unwrap().insert(seed);
            let report = storm(seed);
            under_way.lock().unwrap().remove(&seed);
            if !report.holds() {
                failed.fetch_min(seed, Ordering::Relaxed);
            }
            sum.lock().unwrap().add(&report);
        }
    };
    thread::scope(|scope| {
        let (at_work, done) = mpsc::channel();
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let at_work = at_work.clone();
            scope.spawn(|| work(at_work));
        }
        drop(at_work);
        let mut before = BTreeSet::new();
        while done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let now = under_way.lock().unwrap().clone();
            for seed in now.intersection(&before) {
                tell(&format!("the storm of seed {seed} does not come to an end"));
            }
            before = now;
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

/// Much longer than a storm takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The storm that is recorded.
const SHORT: u64 = 143;

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
