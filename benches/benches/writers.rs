//! Measures what it costs to append the records of many callers, one record each: processor time, records per
//! second, latency and memory of kwal's batch producer, the floor and the batch producers of other clients.
//!
//! ```sh
//! cargo bench -p kwal-benches --bench writers                       # kwal and the floor, on the sink
//! PEERS=1 cargo bench -p kwal-benches --bench writers               # and rskafka and rdkafka
//! PEERS=1 BROKERS=3 cargo bench -p kwal-benches --bench writers     # and on three nodes of Apache Kafka
//! PEERS=1 KAFKA_CONNECT=… cargo bench -p kwal-benches --bench writers
//! ```
//!
//! Each caller appends a record of its own, waits until it is acknowledged, and appends the next one. The
//! sink is a process that answers at once, and counts and sums what arrives, which has to be the same for
//! all. Each run is a process of its own, on a runtime of one thread or of two workers, whose processor time
//! (user and system, all threads) is measured after an eighth of the records. The clients take turns; ratios
//! are of runs in the same turn, and medians.
//!
//! The floor is no client: callers encode into one open batch under one lock, and wait on a completion that
//! all records of the batch share; one task sends it and reads the response. rskafka's `BatchProducer` gets
//! batches of up to 1 MB, and waits for its linger time; rdkafka's `FutureProducer` has producer ids. A
//! record of kwal and of rskafka owns its value, so their callers make it anew, which the floor does not.
//!
//! It fails unless
//! * a single caller's median latency is within 5 % of that of `PartitionClient::produce`;
//! * with 1,000 callers, a record takes at most 1.5 times the processor time of the floor, and the process at
//!   most 64 MB of memory;
//! * on brokers, 64 and 512 callers append at least 1.5 times as many records per second as with rskafka and
//!   5 ms of linger, at no higher mean latency.
//!
//! On brokers, kwal appends with 1, 2 and 5 batches in flight, also with 1 ms and 10 ms more of round trip.
//!
//! `PEERS=1` builds the other clients from `benches/peers`, which takes some minutes and a C compiler.
//! `PEERS` can also name the program that was built before. `WORKLOADS=brokers,1KiB` selects those whose name
//! contains one of the words. `KWAL_LONG=1` takes three times as many turns. Linux only.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use kwal::client::{ClientBuilder, ControllerClient, OffsetAt, PartitionClient};
use kwal_benches::{
    Table, median,
    programs::{self, Brokers, Sink, run_program},
    replay::{Content, TOPIC, sum},
    writers::{self, Measured, Task},
};
use kwal_protocol::compression::Compression;
use time::OffsetDateTime;
use tokio::runtime::{self, Runtime};

const TURNS: usize = 7;
/// Pairs of turns of one caller.
const PAIRS: usize = 200;
/// The most that a median may be in relation to a direct append.
const MOST_LATENCY: f64 = 1.05;
/// The most processor time of a record in relation to the floor, and of memory.
const MOST_CPU: f64 = 1.5;
const MOST_MEMORY: u64 = 64_000_000;
/// The least records per second in relation to rskafka.
const LEAST_RATE: f64 = 1.5;

const FLOOR: &str = "floor";
const KWAL: &str = "kwal";
const RSKAFKA: &str = "rskafka, 5 ms";
const PROGRAM: &str = env!("CARGO_BIN_EXE_write-log");

fn main() -> ExitCode {
    kwal_benches::exit_code("writers", run())
}

fn run() -> Result<bool, Box<dyn Error>> {
    let mut bench = Bench {
        turns: if env::var_os("KWAL_LONG").is_some() { 3 * TURNS } else { TURNS },
        only: env::var("WORKLOADS").unwrap_or_default(),
        peers: programs::peers(Path::new(env!("CARGO_TARGET_TMPDIR")))?,
        misses: Vec::new(),
    };
    bench.on_sink()?;
    let started = env::var("BROKERS").ok().map(|nodes| Brokers::start(&nodes)).transpose()?;
    let named = env::var("KAFKA_CONNECT").ok().filter(|brokers| !brokers.is_empty());
    let named = named.map(|brokers| brokers.split(',').map(str::to_owned).collect());
    if let Some(bootstrap) = started.as_ref().map(|brokers| brokers.bootstrap.clone()).or(named) {
        bench.on_brokers(&bootstrap)?;
    }
    for miss in &bench.misses {
        eprintln!("writers: {miss}");
    }
    Ok(bench.misses.is_empty())
}

struct Bench {
    turns: usize,
    /// Words of the names of workloads.
    only: String,
    /// The program of the other clients.
    peers: Option<PathBuf>,
    /// Expectations that were not met.
    misses: Vec<String>,
}

/// Who appends, and how.
#[derive(Clone)]
struct Subject {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    subject: &'static str,
    linger_ms: u64,
    window: usize,
    delay_us: u64,
    /// It appends one record in so many.
    slower: u64,
}

impl Subject {
    fn ours(name: &str, subject: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            program: PROGRAM.into(),
            arguments: Vec::new(),
            subject,
            linger_ms: 0,
            // That of the client.
            window: 0,
            delay_us: 0,
            slower: 1,
        }
    }

    fn peer(program: &Path, subject: &'static str, linger_ms: u64) -> Self {
        Self {
            name: format!("{subject}, {linger_ms} ms"),
            program: program.to_owned(),
            arguments: vec!["write".to_owned()],
            linger_ms,
            window: 5,
            slower: 5,
            ..Self::ours("", subject)
        }
    }

    fn window(window: usize, delay_us: u64) -> Self {
        Self { window, delay_us, ..Self::ours(&format!("kwal, window {window}"), KWAL) }
    }

    fn run(&self, workload: &Workload, bootstrap: &[String], topic: &str) -> Result<Run, Box<dyn Error>> {
        let task = Task {
            subject: self.subject.to_owned(),
            topic: topic.to_owned(),
            bootstrap: bootstrap.to_vec(),
            callers: workload.callers,
            records: workload.records / self.slower,
            size: workload.size,
            threads: workload.threads,
            linger_ms: self.linger_ms,
            window: self.window,
            delay_us: self.delay_us,
        };
        let arguments = self.arguments.iter().cloned().chain(task.arguments());
        Ok(Run { measured: run_program(&self.program, arguments)?.parse()?, task })
    }
}

/// A run that has ended.
struct Run {
    task: Task,
    measured: Measured,
}

/// What the callers do.
struct Workload {
    name: String,
    callers: u64,
    size: usize,
    /// All together.
    records: u64,
    /// Workers of the runtime; 0 is one that runs on the main thread.
    threads: usize,
}

impl Bench {
    fn is_selected(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.split(',').any(|word| name.contains(word))
    }

    fn on_sink(&mut self) -> Result<(), Box<dyn Error>> {
        let content = Content { records: 1, size: 1, codec: Compression::None, batches: 0 };
        let mut sink = Sink::start(env!("CARGO_BIN_EXE_replay-sink"), content)?;
        if self.is_selected("1 caller") {
            self.one_caller(&sink)?;
            sink.appended()?;
        }
        let workload = |callers, size, shown, records, threads| {
            let runtime = if threads == 0 { "one thread" } else { "two workers" };
            Workload { name: format!("{callers} × {shown}, {runtime}"), callers, size, records, threads }
        };
        let workloads = [0, 2].into_iter().flat_map(|threads| {
            [
                workload(1, 100, "100B", 10_000, threads),
                workload(1_000, 100, "100B", 500_000, threads),
                workload(1_000, 1_024, "1KiB", 300_000, threads),
            ]
        });
        let workloads: Vec<_> = workloads.filter(|workload| self.is_selected(&workload.name)).collect();
        let mut table = Table::new(HEADINGS);
        for workload in workloads {
            let mut subjects = vec![Subject::ours(FLOOR, FLOOR), Subject::ours(KWAL, KWAL)];
            if workload.callers == 1 {
                subjects.push(Subject::ours("kwal, no batches", "kwal-direct"));
            }
            if let Some(peers) = &self.peers {
                let peer = |subject, linger_ms| Subject::peer(peers, subject, linger_ms);
                subjects.extend([peer("rskafka", 0), peer("rdkafka", 0)]);
                if workload.callers > 1 {
                    subjects.extend([peer("rskafka", 5), peer("rdkafka", 5)]);
                }
            }
            let turns = turns(self.turns, &subjects, |subject| {
                let run = subject.run(&workload, std::slice::from_ref(&sink.address), TOPIC)?;
                check(&run.task, sink.appended()?)?;
                Ok(run.measured)
            })?;
            rows(&mut table, &workload.name, &subjects, &turns, FLOOR);
            if workload.callers > 1 {
                self.judge_cost(&workload, &turns);
            }
        }
        println!("sink: medians of {} turns\n{table}", self.turns);
        Ok(())
    }

    /// Compares a single caller's latency with that of a direct append, in this process.
    fn one_caller(&mut self, sink: &Sink) -> Result<(), Box<dyn Error>> {
        let mut table = Table::new(["one caller, p50 µs", "direct", "batch producer", "ratio", "quartiles"]);
        for (runtime, name) in [(current_thread()?, "one thread"), (two_workers()?, "two workers")] {
            for size in [100, 1_024] {
                let task = Task {
                    subject: String::new(),
                    topic: TOPIC.to_owned(),
                    bootstrap: vec![sink.address.clone()],
                    callers: 1,
                    records: 0,
                    size,
                    threads: 0,
                    linger_ms: 0,
                    window: 0,
                    delay_us: 0,
                };
                let pairs = runtime.block_on(runtime.spawn(writers::one_caller(task, PAIRS)))?;
                let pairs = pairs.map_err(|failure| failure as Box<dyn Error>)?;
                let micros =
                    |at: usize| median(pairs.iter().map(|pair| pair[at]).collect()).as_secs_f64() * 1e6;
                let mut ratios: Vec<_> =
                    pairs.iter().map(|[a, b]| b.as_secs_f64() / a.as_secs_f64()).collect();
                ratios.sort_by(f64::total_cmp);
                let [low, ratio, high] = [1, 2, 3].map(|quarters| ratios[(ratios.len() - 1) * quarters / 4]);
                table.row([
                    format!("{size}B, {name}"),
                    format!("{:.1}", micros(0)),
                    format!("{:.1}", micros(1)),
                    format!("{ratio:.3}"),
                    format!("{low:.3}–{high:.3}"),
                ]);
                if ratio > MOST_LATENCY {
                    self.misses.push(format!("1 caller, {size}B, {name}: {ratio:.3} of a direct append"));
                }
            }
        }
        println!("{table}");
        Ok(())
    }

    fn judge_cost(&mut self, Workload { name, .. }: &Workload, turns: &[Turn]) {
        let cpu = median(turns.iter().map(|turn| turn.of(KWAL, FLOOR, Measured::cpu_per_record)).collect());
        if cpu > MOST_CPU {
            self.misses.push(format!("{name}: {cpu:.2} times the processor time of the floor"));
        }
        let memory = median(turns.iter().map(|turn| turn.0[KWAL].memory).collect());
        if memory > MOST_MEMORY {
            self.misses.push(format!("{name}: {:.1} MB of memory", memory as f64 / 1e6));
        }
    }

    fn on_brokers(&mut self, bootstrap: &[String]) -> Result<(), Box<dyn Error>> {
        let topic = Topic::create(bootstrap)?;
        let mut table = Table::new(HEADINGS);
        for delay_us in [0, 1_000, 10_000] {
            for (callers, rounds) in [(64, 300), (512, 150)] {
                let mut name = format!("brokers, {callers} × 100B");
                if delay_us > 0 {
                    name += &format!(", + {} ms", delay_us / 1_000);
                }
                if !self.is_selected(&name) {
                    continue;
                }
                let records = callers * rounds;
                let workload = Workload { name, callers, size: 100, records, threads: 2 };
                let mut subjects = vec![Subject { delay_us, ..Subject::ours(KWAL, KWAL) }];
                subjects.extend([1, 2, 5].map(|window| Subject::window(window, delay_us)));
                if let Some(peers) = self.peers.as_ref().filter(|_| delay_us == 0) {
                    let peer = |subject, linger_ms| Subject {
                        slower: 1,
                        ..Subject::peer(peers, subject, linger_ms)
                    };
                    subjects.extend([peer("rskafka", 5), peer("rdkafka", 0), peer("rdkafka", 5)]);
                }
                let turns = turns(self.turns, &subjects, |subject| {
                    let before = topic.end()?;
                    let run = subject.run(&workload, bootstrap, &topic.name)?;
                    let appended = topic.end()? - before;
                    match u64::try_from(appended) == Ok(run.task.records) {
                        true => Ok(run.measured),
                        false => Err(format!("{}: {appended} records were appended", subject.name).into()),
                    }
                })?;
                let base = if subjects.len() > 4 { RSKAFKA } else { KWAL };
                rows(&mut table, &workload.name, &subjects, &turns, base);
                if base == RSKAFKA {
                    self.judge_rate(&workload, &turns);
                }
            }
        }
        println!("{}: medians of {} turns\n{table}", bootstrap.join(","), self.turns);
        topic.delete()
    }

    fn judge_rate(&mut self, Workload { name, .. }: &Workload, turns: &[Turn]) {
        let of = |figure: fn(&Measured) -> f64| {
            median(turns.iter().map(|turn| turn.of(KWAL, RSKAFKA, figure)).collect())
        };
        let (rate, mean) = (of(Measured::rate), of(|measured| measured.mean as f64));
        if rate < LEAST_RATE || mean > 1.0 {
            self.misses
                .push(format!("{name}: {rate:.2} times the records of rskafka at {mean:.2} of its mean"));
        }
    }
}

fn current_thread() -> std::io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

fn two_workers() -> std::io::Result<Runtime> {
    runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// Compares what has arrived with what a run has appended.
fn check(task: &Task, arrived: (u64, u64)) -> Result<(), Box<dyn Error>> {
    let mut expected = (0, 0_u64);
    writers::for_each_value(task, |value| {
        expected = (expected.0 + 1, expected.1.wrapping_add(sum(value)));
    });
    if arrived == expected {
        return Ok(());
    }
    let ((records, arrived), (wanted, expected)) = (arrived, expected);
    let subject = &task.subject;
    Err(format!("{subject} appended {records} records with the sum {arrived}, not {wanted} with {expected}")
        .into())
}

/// What each subject took in a turn, by name.
struct Turn(BTreeMap<String, Measured>);

impl Turn {
    /// Returns the ratio of a figure of one subject to that of another.
    fn of(&self, subject: &str, to: &str, figure: impl Fn(&Measured) -> f64) -> f64 {
        figure(&self.0[subject]) / figure(&self.0[to])
    }
}

fn turns(
    count: usize,
    subjects: &[Subject],
    mut run: impl FnMut(&Subject) -> Result<Measured, Box<dyn Error>>,
) -> Result<Vec<Turn>, Box<dyn Error>> {
    let mut turns = Vec::new();
    for turn in 0..count {
        let mut measured = BTreeMap::new();
        for at in 0..subjects.len() {
            let subject = &subjects[(at + turn) % subjects.len()];
            measured.insert(subject.name.clone(), run(subject)?);
        }
        turns.push(Turn(measured));
    }
    Ok(turns)
}

const HEADINGS: [&str; 10] =
    ["", "", "ns of CPU", "×", "records/s", "×", "p50 µs", "p99 µs", "mean µs", "MB"];

/// The ratios are to the subject `base`.
fn rows(table: &mut Table, name: &str, subjects: &[Subject], turns: &[Turn], base: &str) {
    for (at, Subject { name: subject, .. }) in subjects.iter().enumerate() {
        let of = |figure: fn(&Measured) -> f64| {
            median(turns.iter().map(|turn| figure(&turn.0[subject])).collect())
        };
        let to = |figure: fn(&Measured) -> f64| {
            median(turns.iter().map(|turn| turn.of(subject, base, figure)).collect())
        };
        table.row([
            if at == 0 { name.to_owned() } else { String::new() },
            subject.clone(),
            format!("{:.0}", of(Measured::cpu_per_record)),
            format!("{:.2}", to(Measured::cpu_per_record)),
            format!("{:.0}", of(Measured::rate)),
            format!("{:.2}", to(Measured::rate)),
            format!("{:.0}", of(|measured| measured.median as f64 / 1e3)),
            format!("{:.0}", of(|measured| measured.p99 as f64 / 1e3)),
            format!("{:.0}", of(|measured| measured.mean as f64 / 1e3)),
            format!("{:.1}", of(|measured| measured.memory as f64 / 1e6)),
        ]);
    }
}

/// A topic of real brokers, with as many replicas as there are brokers, up to three.
struct Topic {
    runtime: Runtime,
    name: String,
    controller: ControllerClient,
    partition: PartitionClient,
}

impl Topic {
    fn create(bootstrap: &[String]) -> Result<Self, Box<dyn Error>> {
        let runtime = two_workers()?;
        let name = format!("writers-{}", OffsetDateTime::now_utc().unix_timestamp_nanos());
        let replicas = bootstrap.len().min(3);
        let (controller, partition) = runtime.block_on(async {
            let client = ClientBuilder::new(bootstrap.to_vec()).build().await?;
            let controller = client.controller_client().await?;
            let most = replicas.saturating_sub(1).max(1).to_string();
            controller
                .create_topic(&name, 1, i16::try_from(replicas)?)
                .config("min.insync.replicas", most)
                .await?;
            Ok::<_, Box<dyn Error>>((controller, client.partition_client(&name, 0).await?))
        })?;
        Ok(Self { runtime, name, controller, partition })
    }

    /// Returns the end of the log.
    fn end(&self) -> Result<i64, Box<dyn Error>> {
        Ok(self.runtime.block_on(async { self.partition.get_offset(OffsetAt::Latest).await })?)
    }

    fn delete(self) -> Result<(), Box<dyn Error>> {
        self.runtime.block_on(async { self.controller.delete_topic(&self.name).await })?;
        Ok(())
    }
}
