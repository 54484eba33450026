//! C6 with holders of one name that take over at any moment, whatever fails.
//!
//! A seed decides what happens; the same seed is the same history.
//!
//! ```text
//! KWAL_SIM_SEEDS=10000 cargo test -p kwal-client --test contract c6_stress    # more of them
//! KWAL_SIM_SEED=7 cargo test -p kwal-client --test contract c6_stress         # one of them, with its history
//! ```

mod judge;
mod ledger;

use std::{env, panic, sync::mpsc, thread, time::Duration};

use fastrand::Rng;
use kwal_client::ClientBuilder;
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{
    EmbeddedCluster, Fault, FaultTarget,
    wire::{Wire, WireMode},
};
use tokio::{
    runtime::{Builder, Handle},
    task::JoinHandle,
    time::{sleep, timeout},
};

use self::ledger::{Ledger, Takeover};
use crate::support::HOUR;

/// The number of seeds by default.
const SEEDS: u64 = 150;
/// What a seed may take by the clock of the machine. One that takes longer spins.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a client may connect in a seed: more than ten times what it takes.
const MOST_ATTEMPTS: usize = 1_000;
/// How many requests a client may send, with a renewal every few minutes for days.
const MOST_REQUESTS: u64 = 30_000;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const ID: &str = "writer/wal/0";

#[test]
fn no_holder_appends_after_the_barrier_of_the_next_one() {
    if let Ok(seed) = env::var("KWAL_SIM_SEED") {
        let (history, faults) = limited(seed.parse().unwrap());
        println!("{}", history.join("\n"));
        return assert_eq!(faults, [""; 0]);
    }
    let seeds = env::var("KWAL_SIM_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let goes_on = env::var_os("KWAL_SIM_ALL").is_some();
    let mut failed = Vec::new();
    for seed in 0..seeds {
        let (_, faults) = limited(seed);
        if !faults.is_empty() {
            eprintln!("to run it alone: KWAL_SIM_SEED={seed}\n{}", faults.join("\n"));
            failed.push(seed);
        }
        assert!(goes_on || failed.is_empty());
    }
    assert_eq!(failed, [0; 0]);
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in [6, 22] {
        assert_eq!(limited(seed), limited(seed));
    }
}

/// Runs a seed, with a time limit. Returns its history and its faults.
fn limited(seed: u64) -> (Vec<String>, Vec<String>) {
    let (sender, receiver) = mpsc::channel();
    let running = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        sender.send(runtime.block_on(async { Stress::new(seed).run().await })).unwrap();
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("seed {seed} does not end"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            eprintln!("seed {seed} panicked");
            panic::resume_unwind(running.join().unwrap_err())
        }
    }
}

/// What may happen in a seed.
#[derive(Clone, Copy)]
struct Hazards {
    forgets: bool,
    is_unclean: bool,
    takes_days: bool,
    faults: bool,
}

struct Stress {
    seed: u64,
    rng: Rng,
    hazards: Hazards,
    brokers: i32,
    cluster: EmbeddedCluster,
    ledger: Ledger,
    tasks: Vec<JoinHandle<()>>,
    wires: Vec<Wire>,
    /// The broker that is not there, and whether it is paused.
    down: Option<(i32, bool)>,
}

impl Stress {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let hazards = Hazards {
            forgets: rng.bool(),
            is_unclean: rng.u8(..6) == 0,
            takes_days: rng.u8(..3) == 0,
            faults: rng.u8(..8) != 0,
        };
        let brokers = rng.i32(1..=3);
        // Records have the time of the machine, on which no days pass.
        let settings = [("message.timestamp.type", "LogAppendTime")];
        let builder = EmbeddedCluster::builder().seed(seed).brokers(brokers).topic_with("wal", 1, &settings);
        let cluster = builder.start_in_memory().unwrap();
        let (tasks, wires) = (Vec::new(), Vec::new());
        Self { seed, rng, hazards, brokers, cluster, ledger: Ledger::new(), tasks, wires, down: None }
    }

    /// Returns the history and the faults.
    async fn run(mut self) -> (Vec<String>, Vec<String>) {
        let tasks_before = Handle::current().metrics().num_alive_tasks();
        for _ in 0..self.rng.usize(5..60) {
            self.pause().await;
            self.step();
        }
        self.heal().await;
        self.take_over_last().await;
        self.ledger.judge(&self.cluster, self.hazards.is_unclean);
        self.ledger.drop_holders();
        sleep(HOUR).await;
        for wire in &self.wires {
            self.check_load(wire);
        }
        let tasks = Handle::current().metrics().num_alive_tasks();
        if tasks > tasks_before {
            self.ledger.fault(format!("{tasks} tasks are left, of {tasks_before}"));
        }
        self.ledger.finish()
    }

    /// Notes connections that are left, and a client that keeps connecting or sending.
    fn check_load(&self, wire: &Wire) {
        let open = wire.connections().open;
        let attempts: usize =
            (1..=self.brokers).map(|broker| wire.attempts_to(&format!("broker-{broker}"))).sum();
        let apis = [
            ApiKey::PRODUCE,
            ApiKey::FETCH,
            ApiKey::LIST_OFFSETS,
            ApiKey::METADATA,
            ApiKey::FIND_COORDINATOR,
            ApiKey::INIT_PRODUCER_ID,
            ApiKey::DESCRIBE_PRODUCERS,
        ];
        let requests: u64 = apis.into_iter().map(|api| wire.requests(api)).sum();
        if open > 0 || attempts > MOST_ATTEMPTS || requests > MOST_REQUESTS {
            self.ledger.fault(format!("{open} connections are left of {attempts}, {requests} requests"));
        }
    }

    async fn pause(&mut self) {
        let time = match self.rng.u8(..20) {
            ..8 => Duration::ZERO,
            8..14 => Duration::from_millis(self.rng.u64(..20)),
            14..18 => Duration::from_millis(self.rng.u64(..3_000)),
            18 => SECOND * self.rng.u32(..60),
            _ if self.hazards.takes_days => {
                // After a day, the partition does not know any more that what is under way is fenced.
                self.mend_wires();
                self.start_broker();
                HOUR * self.rng.u32(..40)
            }
            _ => SECOND,
        };
        sleep(time).await;
    }

    /// Begins one thing that holders do, or that happens to them.
    fn step(&mut self) {
        let deadline = Duration::from_millis(self.rng.u64(200..20_000));
        match self.rng.u8(..40) {
            ..8 => {
                for _ in 0..=u8::from(self.rng.u8(..3) == 0) {
                    self.take_over(deadline);
                }
            }
            8..20 => self.append(deadline),
            20..24 if self.hazards.faults => self.fail(),
            24..26 => {
                let to = self.rng.i32(1..=self.brokers);
                self.ledger.note(format!("leader {to}"));
                // Not every broker can lead at every moment.
                _ = self.cluster.move_leader("wal", 0, to);
            }
            26 if self.hazards.forgets => {
                self.ledger.disturb("forget".to_owned());
                self.cluster.forget_transactional_id(ID);
            }
            27 => self.cluster.disconnect_all(),
            28 | 29 => self.stop_broker(),
            30 => self.start_broker(),
            31 => self.delete(),
            32 | 33 => {
                if let Some(wire) = self.rng.choice(&self.wires) {
                    let mode = [WireMode::Unreachable, WireMode::Deaf, WireMode::Stalled];
                    wire.set(self.rng.choice(mode).unwrap());
                }
            }
            34 | 35 => self.mend_wires(),
            36 => {
                if let Some(closing) = self.ledger.end_holder(&mut self.rng) {
                    self.tasks.push(tokio::spawn(closing));
                }
            }
            37 if self.hazards.is_unclean => {
                let to = self.rng.i32(1..=self.brokers);
                self.ledger.disturb(format!("unclean election of {to}"));
                _ = self.cluster.elect_unclean("wal", 0, to);
            }
            38 => {
                let broker = self.rng.i32(1..=self.brokers);
                let lag = Duration::from_millis(self.rng.u64(..500));
                self.cluster.set_lag("wal", 0, broker, lag).unwrap();
            }
            _ => {
                if let (Some((value, in_doubt)), Some(holder)) =
                    (self.ledger.doubt(&mut self.rng), self.ledger.holder(&mut self.rng))
                {
                    self.tasks.push(tokio::spawn(self.ledger.resolve(holder, value, in_doubt, deadline)));
                }
            }
        }
    }

    fn take_over(&mut self, deadline: Duration) {
        let takes_days = self.hazards.takes_days;
        let renewal = match self.rng.u8(..3) {
            0 => None,
            _ if takes_days => Some(SECOND * self.rng.u32(300..9_000)),
            1 => Some(SECOND * self.rng.u32(1..5)),
            _ => Some(SECOND * self.rng.u32(1..500)),
        };
        let probe = (self.rng.u8(..3) == 0)
            .then(|| Duration::from_millis(self.rng.u64(100..5_000)) * if takes_days { 300 } else { 1 });
        let polls = (self.rng.u8(..4) == 0).then(|| self.rng.usize(1..60));
        let wire = Wire::new(self.cluster.connector());
        self.wires.push(wire.clone());
        let number = self.wires.len();
        let builder = self.builder(wire, number as u64);
        self.ledger.note(format!("take over {number}: {renewal:?} {probe:?} {polls:?}"));
        let ledger = self.ledger.clone();
        self.tasks.push(tokio::spawn(async move {
            if let Ok(client) = builder.build().await {
                ledger.take_over(&client, Takeover { number, renewal, probe, deadline, polls }).await;
            }
        }));
    }

    fn append(&mut self, deadline: Duration) {
        for _ in 0..self.rng.usize(1..6) {
            if let Some(holder) = self.ledger.holder(&mut self.rng) {
                self.tasks.push(tokio::spawn(self.ledger.append(holder, deadline)));
            }
        }
    }

    /// Makes the cluster answer some of the next requests wrongly, late or not at all.
    fn fail(&mut self) {
        let rng = &mut self.rng;
        let api = [
            ApiKey::PRODUCE,
            ApiKey::PRODUCE,
            ApiKey::PRODUCE,
            ApiKey::INIT_PRODUCER_ID,
            ApiKey::INIT_PRODUCER_ID,
            ApiKey::FIND_COORDINATOR,
            ApiKey::FETCH,
            ApiKey::FETCH,
            ApiKey::LIST_OFFSETS,
            ApiKey::METADATA,
            ApiKey::DESCRIBE_PRODUCERS,
        ][rng.usize(..11)];
        let time = Duration::from_millis(rng.u64(1..3_000));
        let fault = match rng.u8(..12) {
            0 | 1 => Fault::Drop,
            2 | 3 => Fault::LoseReply,
            4 => Fault::DelayRequest(time * rng.u32(1..30)),
            5 => Fault::DelayReply(time * rng.u32(1..6)),
            6 => Fault::BlackHole,
            7 => Fault::CutReply(rng.usize(..40)),
            8 => Fault::Error(ErrorCode::REQUEST_TIMED_OUT),
            9 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
            10 => Fault::Error(ErrorCode::COORDINATOR_NOT_AVAILABLE),
            _ => Fault::DelayRequest(time),
        };
        let text = format!("{api}: {fault:?}");
        match api {
            ApiKey::INIT_PRODUCER_ID => {
                self.ledger.disturb(text);
                // An epoch may be requested for long after its takeover has ended.
                if let Fault::DelayRequest(_) = fault {
                    self.ledger.excuse_fences();
                }
            }
            _ => self.ledger.note(text),
        }
        let chance = if rng.bool() { 1.0 } else { 0.5 };
        self.cluster.on_times(FaultTarget::api(api).chance(chance), rng.usize(1..4), fault);
    }

    fn stop_broker(&mut self) {
        self.start_broker();
        let (broker, is_paused) = (self.rng.i32(1..=self.brokers), self.rng.bool());
        self.ledger.disturb(format!("stop broker {broker}, paused: {is_paused}"));
        match is_paused {
            true => self.cluster.pause(broker).unwrap(),
            false => self.cluster.kill(broker).unwrap(),
        }
        self.down = Some((broker, is_paused));
    }

    fn start_broker(&mut self) {
        self.ledger.disturb("start broker".to_owned());
        match self.down.take() {
            Some((broker, true)) => self.cluster.resume(broker).unwrap(),
            Some((broker, false)) => self.cluster.restart(broker).unwrap(),
            None => {}
        }
    }

    /// Deletes records, but neither the barrier of the last holder nor a fence. Without them, a name that is
    /// forgotten as well may have a second holder: a limit of `exclusive`.
    fn delete(&mut self) {
        let start = self.cluster.start_offset("wal", 0).unwrap();
        let Some(end) = self.ledger.end_of_deletion(&self.cluster) else { return };
        if (start..=self.cluster.high_watermark("wal", 0).unwrap()).contains(&end) {
            let before = self.rng.i64(start..=end);
            self.ledger.note(format!("delete {start}..{before}"));
            // The partition may have no leader.
            _ = self.cluster.delete_records("wal", 0, before);
        }
    }

    fn mend_wires(&self) {
        self.ledger.disturb("wires pass".to_owned());
        for wire in &self.wires {
            wire.set(WireMode::Passing);
        }
    }

    /// Ends what fails, and waits for what has begun.
    async fn heal(&mut self) {
        self.cluster.clear_faults();
        self.start_broker();
        for broker in 1..=self.brokers {
            self.cluster.set_lag("wal", 0, broker, Duration::ZERO).unwrap();
        }
        self.mend_wires();
        for task in std::mem::take(&mut self.tasks) {
            match timeout(10 * MINUTE, task).await {
                Err(_) => self.ledger.fault("a task does not end".to_owned()),
                Ok(joined) => joined.unwrap(),
            }
        }
        sleep(MINUTE).await;
    }

    /// Takes over a few times more: each has to succeed, and to be the only one that can append.
    async fn take_over_last(&mut self) {
        self.append_by_all().await;
        let wire = Wire::new(self.cluster.connector());
        self.wires.push(wire.clone());
        let client = self.builder(wire, 0).build().await.unwrap();
        for number in [1_000, 1_001, 1_002] {
            if number == 1_002 {
                self.cluster.forget_transactional_id(ID);
            }
            let takeover = Takeover { number, renewal: None, probe: None, deadline: MINUTE, polls: None };
            if !self.ledger.take_over(&client, takeover).await {
                self.ledger.fault(format!("{number} could not take over"));
            }
            self.append_by_all().await;
        }
        self.ledger.resolve_all(MINUTE).await;
    }

    /// Appends by every holder, the last one first.
    async fn append_by_all(&self) {
        for holder in self.ledger.holders().into_iter().rev() {
            self.ledger.append(holder, MINUTE).await;
        }
    }

    fn builder(&self, wire: Wire, number: u64) -> ClientBuilder {
        ClientBuilder::new(self.cluster.bootstrap()).connector(wire).seed(self.seed << 8 | number)
    }
}
