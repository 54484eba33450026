//! One storm: clients use a cluster in which everything fails, all of it by seed, and the checker judges the
//! history.
//!
//! ```text
//!   Plan::of(seed) ─► three brokers ◄── Storm
//!                        ▲    │
//!     writers, callers, ─┘    └─► excused losses, final logs ─► Recorder ─► verdict
//!     readers, others └────────── results of their calls ───────────┘
//! ```

mod addresses;
mod callers;
mod doubts;
mod gathering;
mod holders;
mod kind;
mod ledger;
mod others;
mod plan;
mod reader;
mod replayer;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use kwal_client::{
    Client, ClientBuilder, OpenPartition, PartitionClient,
    error::{Error, ErrorKind},
    record::{Barrier, Record},
};
use kwal_protocol::record::OwnedRecord;
use kwal_testkit::{
    EmbeddedCluster, Hazard, Journal, StormReport,
    check::{CallId, Expect, History, Log, Recorder, Ticket, Value, Verdict, Writer, WriterId},
};
use time::OffsetDateTime;
use tokio::{
    runtime::Builder,
    time::{Instant, sleep},
};

pub(crate) use self::plan::Plan;
use self::{
    addresses::TwoAddresses, callers::Callers, doubts::Doubt, plan::STARTED_AT, reader::Tailer,
    replayer::Replayer, writer::Appender,
};
use crate::support::chain;

/// The result of a storm.
#[derive(Debug)]
pub(crate) struct Report {
    /// The verdict of the checker.
    pub(crate) verdict: Verdict,
    /// Problems that the history does not show: a client that cannot be used afterwards, an impossible
    /// response.
    pub(crate) problems: Vec<String>,
    pub(crate) history: History,
    /// Empty unless the [plan](Plan::journal) asks for it.
    pub(crate) journal: Journal,
    /// How often each event of [`COUNTERS`] happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) storm: StormReport,
}

impl Report {
    pub(crate) fn holds(&self) -> bool {
        self.verdict.holds() && self.problems.is_empty()
    }
}

/// The events that all storms together have to include: without them, they would prove little.
pub(crate) const COUNTERS: &[&str] = &[
    "appends ok at the first attempt",
    "appends ok after retries",
    "appends not applied",
    "appends failed after an earlier one",
    "appends with unknown outcome",
    "appends dropped",
    "appends dropped before submission",
    "large appends",
    "inputs appended",
    "inputs appended after retries",
    "inputs not applied",
    "inputs failed after an earlier one",
    "inputs with unknown outcome",
    "inputs given up",
    "inputs dropped",
    "inputs dropped before the first poll",
    "inputs never accepted",
    "inputs that an aggregator rejects",
    "inputs handed over in bursts",
    "places dropped",
    "results held",
    "results read as a stream",
    "flushes",
    "flushes with an error",
    "flushes given up",
    "batch producers opened",
    "batch producers closed",
    "batch producers closed again",
    "batch producers closed with inputs left",
    "closes given up",
    "batch producers dropped with inputs",
    "appends by permit",
    "permits dropped",
    "partition clients closed",
    "appends ended by a close",
    "resolved as appended",
    "resolved as not applied",
    "resolutions failed",
    "writers fenced",
    "takeovers",
    "takeovers under another producer id",
    "takeovers failed",
    "takeovers that were overtaken",
    "holders fenced",
    "holders that learned of it by waiting",
    "holders renewed",
    "resolved by the wrong name",
    "losses reported to writers",
    "partitions opened",
    "fetches with records",
    "fetches without records",
    "fetches failed",
    "fetches dropped",
    "fetches of committed records",
    "fetches from positions",
    "fetches out of range",
    "fetches before the log start",
    "fetches beyond the end",
    "fetches of unknown epochs",
    "fetches of truncated logs",
    "positions kept",
    "positions resumed",
    "topics recreated",
    "offsets looked up",
    "offset lookups failed",
    "records deleted",
    "replays opened",
    "replays of committed records",
    "replays that end before open transactions",
    "replays ended",
    "replays followed",
    "streams opened",
    "streams resumed",
    "reads dropped",
    "readers moved by their policy",
    "log truncations",
    "logs read to the end",
    "logs replayed to the end",
    CLOSED_AT_ONCE,
];

const CLOSED_AT_ONCE: &str = "connections closed by the first address of a name";

/// Runs the storm of a seed.
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
        let shared = Arc::new(Shared {
            plan: self.clone(),
            cluster,
            recorder,
            begun: Instant::now(),
            counts: Mutex::default(),
            acked: Mutex::default(),
            problems: Mutex::default(),
            doubts: Mutex::default(),
            fences: Mutex::default(),
            fenced: Mutex::default(),
            takeovers: AtomicU64::new(0),
            taking_over: AtomicU64::new(0),
            held_by: AtomicI64::new(-1),
            over: AtomicBool::new(false),
            closed_at_once: Arc::default(),
        });
        let mut rng = Rng::with_seed(self.seed);
        let mut appenders = Vec::new();
        let (mut tailers, mut replayers) = (Vec::new(), Vec::new());
        let mut clients = Vec::new();
        for number in 0..self.clients {
            let client = shared.client(number).await;
            for partition in 0..self.partitions {
                let rng = Rng::with_seed(rng.u64(..));
                appenders.push(Appender::open(&shared, &client, number, partition, rng).await);
            }
            clients.push(client);
        }
        let reading = shared.client(READER).await;
        for partition in 0..self.partitions {
            let pair = [&clients[partition as usize % clients.len()], &reading];
            for by_position in [false, true] {
                let rng = Rng::with_seed(rng.u64(..));
                tailers.push(Tailer::open(&shared, pair, partition, by_position, rng).await);
            }
            let rng = Rng::with_seed(rng.u64(..));
            replayers.push(Replayer::open(&shared, pair, partition, rng).await);
        }
        for number in 0..self.contenders {
            let number = FIRST_CONTENDER + number;
            let client = shared.client(number).await;
            let rng = Rng::with_seed(rng.u64(..));
            appenders.push(Appender::open(&shared, &client, number, self.partitions, rng).await);
            clients.push(client);
        }
        if let Some(client) = clients.last().filter(|_| self.contenders > 0) {
            let mut rng = Rng::with_seed(rng.u64(..));
            let by_position = rng.bool();
            tailers.push(Tailer::open(&shared, [client, &reading], self.partitions, by_position, rng).await);
        }
        let mut callers = Vec::new();
        if let Some(partition) = self.callers {
            let number = if partition < self.partitions { 0 } else { FIRST_CONTENDER + self.contenders };
            let client = match partition < self.partitions {
                true => clients[0].clone(),
                false => shared.client(number).await,
            };
            let rng = Rng::with_seed(self.seed ^ 0x6a74_6865_7265_7273);
            callers.push(Callers::open(&shared, &client, number, partition, rng).await);
            clients.extend((partition == self.partitions).then_some(client));
        }
        clients.push(reading);
        let mut storm = StormReport::default();
        for phase in 0..self.phases {
            if phase > 0 {
                shared.pause().await;
            }
            let writers = (&mut appenders, &mut callers);
            let readers = (&mut tailers, &mut replayers);
            storm.add(&shared.run_phase(phase, writers, readers, &clients[0], &mut rng).await);
        }
        shared.check_after_storm((&mut appenders, &mut callers), &clients[0], &mut rng).await;
        drop((tailers, replayers, callers));
        shared.close_all(appenders, clients).await;
        // Delayed requests arrive by now.
        sleep(LONG).await;
        shared.report(storm)
    }
}

/// The number of the first client that takes over.
const FIRST_CONTENDER: u64 = 10;
/// The number of the client that only reads.
const READER: u64 = 20;
/// Longer than any call and any delayed request takes.
const LONG: Duration = Duration::from_secs(100);
const TOPIC: &str = "wal";

/// State shared by all tasks of a storm.
struct Shared {
    plan: Plan,
    cluster: EmbeddedCluster,
    recorder: Recorder,
    begun: Instant,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// The offset after the last acknowledged append, by client and partition.
    acked: Mutex<BTreeMap<(u64, i32), i64>>,
    problems: Mutex<Vec<String>>,
    /// Appends of unknown outcome that can be resolved.
    doubts: Mutex<Vec<Doubt>>,
    /// The writer that the checker takes for that of all fences of a partition, and how many there are.
    fences: Mutex<BTreeMap<i32, (WriterId, u64)>>,
    /// Partitions whose writers may have been fenced, because others have resolved their appends.
    fenced: Mutex<BTreeSet<i32>>,
    /// How many takeovers have begun.
    takeovers: AtomicU64,
    /// How many of them are under way.
    taking_over: AtomicU64,
    /// The producer id of the last holder, −1 before the first one.
    held_by: AtomicI64,
    /// The storm is over, and every call has to succeed.
    over: AtomicBool,
    /// How many connections were closed by the first addresses of names.
    closed_at_once: Arc<AtomicU64>,
}

impl Shared {
    async fn client(&self, number: u64) -> Client {
        let brokers = self.cluster.connector();
        let builder = ClientBuilder::new(self.cluster.bootstrap());
        let builder = match self.plan.two_addresses {
            true => builder.connector(TwoAddresses { brokers, closed: Arc::clone(&self.closed_at_once) }),
            false => builder.connector(brokers),
        };
        let builder = builder.seed(self.plan.seed.wrapping_add(number)).client_id(format!("client-{number}"));
        builder.deadlines(self.plan.deadlines).limits(self.plan.limits).build().await.unwrap()
    }

    /// Runs writers and readers during a storm, and waits for their calls to end.
    async fn run_phase(
        self: &Arc<Self>,
        phase: u64,
        (appenders, callers): (&mut Vec<Appender>, &mut Vec<Callers>),
        (tailers, replayers): (&mut Vec<Tailer>, &mut Vec<Replayer>),
        client: &Client,
        rng: &mut Rng,
    ) -> StormReport {
        let until = Instant::now() + self.plan.time;
        let appending: Vec<_> =
            appenders.drain(..).map(|appender| tokio::spawn(appender.work(until))).collect();
        let calling: Vec<_> = callers.drain(..).map(|callers| tokio::spawn(callers.work(until))).collect();
        let tailing: Vec<_> = tailers.drain(..).map(|tailer| tokio::spawn(tailer.work(until))).collect();
        let replaying: Vec<_> =
            replayers.drain(..).map(|replayer| tokio::spawn(replayer.work(until))).collect();
        let others =
            tokio::spawn(others::work(Arc::clone(self), client.clone(), until, Rng::with_seed(rng.u64(..))));
        let storm = self.plan.storm(phase).run(&self.cluster, self.plan.time).await.unwrap();
        for appender in appending {
            appenders.push(appender.await.unwrap());
        }
        for called in calling {
            callers.push(called.await.unwrap());
        }
        for tailer in tailing {
            tailers.push(tailer.await.unwrap());
        }
        for replayer in replaying {
            replayers.push(replayer.await.unwrap());
        }
        others.await.unwrap();
        storm
    }

    /// Waits until brokers have expired all producer ids.
    async fn pause(&self) {
        sleep(LONG).await;
        for partition in 0..self.plan.partitions {
            self.cluster.forget_producers(TOPIC, partition).unwrap();
        }
        self.cluster.note("all producer ids have expired");
    }

    /// Checks that after the storm every client can append, and every log can be read.
    async fn check_after_storm(
        self: &Arc<Self>,
        (appenders, callers): (&mut [Appender], &mut [Callers]),
        client: &Client,
        rng: &mut Rng,
    ) {
        sleep(LONG).await;
        self.over.store(true, Ordering::Relaxed);
        // Also when nothing has been appended since.
        if rng.bool() {
            doubts::resolve_all(self, appenders, rng).await;
        }
        for appender in appenders.iter_mut() {
            appender.append_after_storm().await;
        }
        for callers in callers.iter_mut() {
            callers.append_after_storm().await;
        }
        doubts::resolve_all(self, appenders, rng).await;
        for appender in appenders.iter_mut() {
            appender.append_after_storm().await;
        }
        for callers in callers.iter_mut() {
            callers.append_after_storm().await;
        }
        for partition in self.plan.all_partitions() {
            reader::read_to_the_end(self, client, partition).await;
            self.replay_to_the_end(client, partition, rng).await;
        }
    }

    /// Closes everything. Nothing is left to wait for.
    async fn close_all(&self, appenders: Vec<Appender>, clients: Vec<Client>) {
        for appender in appenders {
            appender.close_after_storm().await;
        }
        for client in clients {
            let failed = self.timed("close", client.close()).await;
            for error in failed {
                self.problem(format!("a client that was idle reports a failure: {}", chain(&error)));
            }
            if client.partition_client(TOPIC, 0).await.is_ok() {
                self.problem("a closed client opens a partition".to_owned());
            }
        }
    }

    /// Opens a partition, and retries until it succeeds.
    async fn open(&self, client: &Client, partition: i32) -> Option<PartitionClient> {
        self.open_with(client, partition, |opening| opening).await
    }

    /// The same with further settings.
    async fn open_with(
        &self,
        client: &Client,
        partition: i32,
        configure: impl Fn(OpenPartition) -> OpenPartition,
    ) -> Option<PartitionClient> {
        let begun = Instant::now();
        loop {
            let opening = client.partition_client(TOPIC, partition).compression(self.plan.compression);
            match self.timed("open", configure(opening)).await {
                Ok(opened) => {
                    self.count_event("partitions opened");
                    return Some(opened);
                }
                // No storm prevents it for so long.
                Err(error) if self.is_over() || begun.elapsed() > LONG => {
                    self.problem(format!("partition {partition} cannot be opened: {}", chain(&error)));
                    return None;
                }
                Err(_) => {}
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Records the begin and the end of a call, also if it is dropped.
    async fn timed<T>(&self, what: &str, call: impl IntoFuture<Output = T>) -> T {
        self.timed_within(what, self.plan.deadlines.operation, call).await
    }

    /// The same for a call with a deadline of its own.
    async fn timed_within<T>(&self, what: &str, deadline: Duration, call: impl IntoFuture<Output = T>) -> T {
        let id = self.recorder.now().call(what, deadline);
        let _returned = Returned { recorder: &self.recorder, id };
        call.await
    }

    /// Returns the offset after the last append that was acknowledged to a client. Other clients may have
    /// more: a deposed leader that has not noticed yet reports the end of its own log, unless the request has
    /// a newer leader epoch.
    fn acked_end(&self, client: u64, partition: i32) -> i64 {
        lock(&self.acked).get(&(client, partition)).copied().unwrap_or_default()
    }

    fn is_acked(&self, client: u64, partition: i32, end: i64) {
        let mut acked = lock(&self.acked);
        let known = acked.entry((client, partition)).or_default();
        *known = end.max(*known);
    }

    /// Returns a record with the time of tokio's clock, so that the recorded history is the same every time.
    fn stamped(&self, value: String) -> Record {
        let since_epoch = Duration::from_millis(STARTED_AT) + self.begun.elapsed();
        // Compacted topics refuse records without a key.
        let key = self.plan.has(Hazard::Compaction).then(|| value.clone());
        let record = Record::new(key, value);
        Record { timestamp: OffsetDateTime::UNIX_EPOCH + since_epoch, ..record }
    }

    fn add_doubt(&self, doubt: Doubt) {
        lock(&self.doubts).push(doubt);
    }

    fn doubts(&self) -> Vec<Doubt> {
        lock(&self.doubts).clone()
    }

    /// Records that a fence may be appended from now on, as an append whose place and outcome are unknown.
    /// Returns its value, too.
    fn fence(&self, partition: i32) -> (Ticket, String) {
        let new = || (self.recorder.now().writer(Writer::new((TOPIC, partition))), 0);
        let (writer, number) = {
            let mut fences = lock(&self.fences);
            let (writer, count) = fences.entry(partition).or_insert_with(new);
            *count += 1;
            (*writer, *count)
        };
        let value = format!("fence{partition}.{number}");
        (self.recorder.start(writer, [&value]), value)
    }

    /// Notes that the writers of a partition may be fenced from now on.
    fn may_be_fenced(&self, partition: i32) {
        lock(&self.fenced).insert(partition);
    }

    fn is_fenced(&self, partition: i32) -> bool {
        lock(&self.fenced).contains(&partition)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn count_event(&self, what: &'static str) {
        debug_assert!(COUNTERS.contains(&what), "{what}");
        *lock(&self.counts).entry(what).or_default() += 1;
    }

    fn problem(&self, problem: String) {
        lock(&self.problems).push(format!("{:>9.3?} {problem}", self.begun.elapsed()));
    }

    /// Returns the log of the leader.
    fn log(&self, partition: i32) -> Log {
        let cluster = &self.cluster;
        let log = cluster.checked_log(TOPIC, partition, value).unwrap();
        let start = log.offsets.start;
        if partition < self.plan.partitions {
            return log;
        }
        cluster.log(TOPIC, partition).unwrap().iter().fold(log, |log, batch| {
            let header = batch.header();
            let offsets = batch.base_offset().max(start)..batch.next_offset();
            match header.producer_id {
                -1 => log,
                id => log.producer(offsets, (id, header.producer_epoch)),
            }
        })
    }

    fn report(&self, storm: StormReport) -> Report {
        for partition in self.plan.all_partitions() {
            self.recorder.now().log(self.log(partition));
        }
        let closed_at_once = self.closed_at_once.load(Ordering::Relaxed);
        lock(&self.counts).extend((closed_at_once > 0).then_some((CLOSED_AT_ONCE, closed_at_once)));
        let history = self.recorder.now().clone();
        Report {
            verdict: history.check(&Expect::default()),
            history,
            problems: lock(&self.problems).clone(),
            journal: self.cluster.journal(),
            counts: lock(&self.counts).clone(),
            storm,
        }
    }
}

/// Records on drop that a call has ended.
struct Returned<'a> {
    recorder: &'a Recorder,
    id: CallId,
}

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        self.recorder.now().returned(self.id);
    }
}

/// Returns the identity of a record.
fn value(record: &OwnedRecord) -> Value {
    match Barrier::parse(record) {
        Some(barrier) => Value::barrier(format!("{:032x}", u128::from_be_bytes(barrier.mark)).as_bytes()),
        None => record.value.as_deref().unwrap_or_default().into(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns what happened first, before appends failed because of it.
fn root(error: &Error) -> &ErrorKind {
    match (error.kind(), error.cause().and_then(|cause| cause.downcast_ref())) {
        (ErrorKind::PrecedingAppendFailed, Some(cause)) => root(cause),
        (kind, _) => kind,
    }
}
