//! One storm: clients at work on a cluster where everything goes wrong, all of it by seed, and what has come of it.
//!
//! ```text
//!   Plan::of(seed) ─► three brokers ◄── Storm
//!                        ▲    │
//!     writers, readers, ─┘    └─► what excuses a loss, the logs ─► Recorder ─► verdict
//!     others  └────────────────── what they were told ──────────────┘
//! ```

mod others;
mod plan;
mod reader;
mod writer;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use kwal_client::{
    Client, ClientBuilder, PartitionClient,
    error::{Error, ErrorKind},
};
use kwal_testkit::{
    EmbeddedCluster, Journal, StormReport,
    check::{CallId, History, Log, Recorder, Verdict},
};
use tokio::{
    runtime::Builder,
    time::{Instant, sleep},
};

pub(crate) use self::plan::Plan;
use self::{reader::Tailer, writer::Appender};
use crate::support::chain;

/// What has come of a storm.
#[derive(Debug)]
pub(crate) struct Report {
    /// What the checker says.
    pub(crate) verdict: Verdict,
    /// What else was wrong, of which the history does not speak: a client that is of no use afterwards, an answer that
    /// cannot be.
    pub(crate) problems: Vec<String>,
    pub(crate) history: History,
    /// Empty unless the [plan](Plan::journal) asks for it.
    pub(crate) journal: Journal,
    /// How often what was met, by [`MEETINGS`].
    pub(crate) met: BTreeMap<&'static str, u64>,
    pub(crate) storm: StormReport,
}

impl Report {
    pub(crate) fn holds(&self) -> bool {
        self.verdict.holds() && self.problems.is_empty()
    }
}

/// What the clients meet. It would prove little if it were always fine weather, or always foul.
pub(crate) const MEETINGS: &[&str] = &[
    "appends ok at once",
    "appends ok after retries",
    "appends not appended",
    "appends failed behind others",
    "appends unknown",
    "appends given up",
    "appends given up before their place was fixed",
    "large appends",
    "writers told of a loss",
    "partitions opened",
    "fetches with records",
    "fetches without",
    "fetches failed",
    "fetches given up",
    "fetches out of range",
    "topics made again",
    "offsets told",
    "offsets not told",
    "records deleted",
    "logs read to the end",
];

/// Lets a storm of this seed pass.
pub(crate) fn storm(seed: u64) -> Report {
    Plan::of(seed).run()
}

impl Plan {
    pub(crate) fn run(&self) -> Report {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(self.pass())
    }

    async fn pass(&self) -> Report {
        let cluster = self.cluster();
        let recorder = Recorder::new();
        cluster.record_losses(&recorder);
        let scene = Arc::new(Scene {
            plan: self.clone(),
            cluster,
            recorder,
            begun: Instant::now(),
            met: Mutex::default(),
            acked: Mutex::default(),
            problems: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let mut rng = Rng::with_seed(self.seed);
        let mut appenders = Vec::new();
        let mut tailers = Vec::new();
        let mut clients = Vec::new();
        for number in 0..self.clients {
            let client = scene.client(number).await;
            for partition in 0..self.partitions {
                let rng = Rng::with_seed(rng.u64(..));
                appenders.push(Appender::take(&scene, &client, number, partition, rng).await);
            }
            clients.push(client);
        }
        for partition in 0..self.partitions {
            let client = &clients[partition as usize % clients.len()];
            tailers.push(Tailer::take(&scene, client, partition, Rng::with_seed(rng.u64(..))).await);
        }
        let mut storm = StormReport::default();
        for phase in 0..self.phases {
            if phase > 0 {
                scene.lull().await;
            }
            storm.add(&scene.run_phase(phase, &mut appenders, &mut tailers, &clients[0], &mut rng).await);
        }
        scene.calm(&mut appenders, &clients[0]).await;
        drop((appenders, tailers, clients));
        // What was late arrives now at the latest.
        sleep(LONG).await;
        scene.report(storm)
    }
}

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(100);
const TOPIC: &str = "wal";

/// What all have in common.
struct Scene {
    plan: Plan,
    cluster: EmbeddedCluster,
    recorder: Recorder,
    begun: Instant,
    met: Mutex<BTreeMap<&'static str, u64>>,
    /// Up to where each client has appended to each partition.
    acked: Mutex<BTreeMap<(u64, i32), i64>>,
    problems: Mutex<Vec<String>>,
    /// The storm is, and everything has to work.
    over: AtomicBool,
}

impl Scene {
    async fn client(&self, number: u64) -> Client {
        let builder = ClientBuilder::new(self.cluster.bootstrap()).connector(self.cluster.connector());
        let builder = builder.seed(self.plan.seed.wrapping_add(number)).client_id(format!("client-{number}"));
        builder.deadlines(self.plan.deadlines).limits(self.plan.limits).build().await.unwrap()
    }

    /// Writers and readers work while a storm rages; then what is under way ends.
    async fn run_phase(
        self: &Arc<Self>,
        phase: u64,
        appenders: &mut Vec<Appender>,
        tailers: &mut Vec<Tailer>,
        client: &Client,
        rng: &mut Rng,
    ) -> StormReport {
        let until = Instant::now() + self.plan.time;
        let appending: Vec<_> =
            appenders.drain(..).map(|appender| tokio::spawn(appender.work(until))).collect();
        let tailing: Vec<_> = tailers.drain(..).map(|tailer| tokio::spawn(tailer.work(until))).collect();
        let others =
            tokio::spawn(others::work(Arc::clone(self), client.clone(), until, Rng::with_seed(rng.u64(..))));
        let storm = self.plan.storm(phase).run(&self.cluster, self.plan.time).await.unwrap();
        for appender in appending {
            appenders.push(appender.await.unwrap());
        }
        for tailer in tailing {
            tailers.push(tailer.await.unwrap());
        }
        others.await.unwrap();
        storm
    }

    /// Nothing happens for so long that the brokers forget who has written.
    async fn lull(&self) {
        sleep(LONG).await;
        for partition in 0..self.plan.partitions {
            self.cluster.forget_producers(TOPIC, partition).unwrap();
        }
        self.cluster.note("the producers are forgotten");
    }

    /// The storm is over: everybody can append, and read what there is.
    async fn calm(self: &Arc<Self>, appenders: &mut [Appender], client: &Client) {
        sleep(LONG).await;
        self.over.store(true, Ordering::Relaxed);
        for appender in appenders {
            appender.append_at_last().await;
        }
        for partition in 0..self.plan.partitions {
            reader::read_to_the_end(self, client, partition).await;
        }
    }

    /// Opens a partition, again and again.
    async fn open(&self, client: &Client, partition: i32) -> Option<PartitionClient> {
        let begun = Instant::now();
        loop {
            let opening = client.partition_client(TOPIC, partition).compression(self.plan.compression);
            match self.timed("open", opening).await {
                Ok(opened) => {
                    self.meet("partitions opened");
                    return Some(opened);
                }
                // No storm keeps everybody away for so long.
                Err(error) if self.is_over() || begun.elapsed() > LONG => {
                    self.problem(format!("partition {partition} cannot be opened: {}", chain(&error)));
                    return None;
                }
                Err(_) => {}
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Records that a call is made and returns, or is given up.
    async fn timed<T>(&self, what: &str, call: impl IntoFuture<Output = T>) -> T {
        let id = self.recorder.now().call(what, self.plan.deadlines.operation);
        let _returned = Returned { recorder: &self.recorder, id };
        call.await
    }

    /// The offset behind all that was acknowledged to a client. Others may have been told of more: a broker that has not heard
    /// yet that it leads no more tells the end of what it knows, unless it is asked by one who has.
    fn acked_end(&self, client: u64, partition: i32) -> i64 {
        lock(&self.acked).get(&(client, partition)).copied().unwrap_or_default()
    }

    fn is_acked(&self, client: u64, partition: i32, end: i64) {
        let mut acked = lock(&self.acked);
        let known = acked.entry((client, partition)).or_default();
        *known = end.max(*known);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn meet(&self, what: &'static str) {
        debug_assert!(MEETINGS.contains(&what), "{what}");
        *lock(&self.met).entry(what).or_default() += 1;
    }

    fn problem(&self, problem: String) {
        lock(&self.problems).push(format!("{:>9.3?} {problem}", self.begun.elapsed()));
    }

    fn report(&self, storm: StormReport) -> Report {
        for partition in 0..self.plan.partitions {
            let cluster = &self.cluster;
            let start = cluster.start_offset(TOPIC, partition).unwrap();
            let end = cluster.end_offset(TOPIC, partition).unwrap();
            let records = cluster.records(TOPIC, partition).unwrap();
            let records = records.into_iter().map(|record| (record.offset, record.value.unwrap_or_default()));
            self.recorder.now().log(Log::new((TOPIC, partition), start..end, records));
        }
        let history = self.recorder.now().clone();
        Report {
            verdict: history.check(&Plan::expect()),
            history,
            problems: lock(&self.problems).clone(),
            journal: self.cluster.journal(),
            met: lock(&self.met).clone(),
            storm,
        }
    }
}

/// Says of a call that it is over, however it ends.
struct Returned<'a> {
    recorder: &'a Recorder,
    id: CallId,
}

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        self.recorder.now().returned(self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns what happened first, before appends failed because of it.
fn root(error: &Error) -> &ErrorKind {
    match (error.kind(), std::error::Error::source(error).and_then(|source| source.downcast_ref())) {
        (ErrorKind::PrecedingAppendFailed, Some(cause)) => root(cause),
        (kind, _) => kind,
    }
}
