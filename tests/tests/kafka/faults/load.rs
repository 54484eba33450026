//! Appends to the partitions of a topic that go on during a fault, and are judged by the log.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use kwal_client::error::{Error, ErrorKind, InDoubt, Outcome};
use kwal_client::record::Record;
use kwal_client::{ClientBuilder, Deadlines, PartitionClient, Produced, Resolution};
use kwal_testkit::check::{Expect, Log, Recorder, Ticket, Value, Writer, WriterId};
use kwal_tests::kafka::Kafka;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::network::Network;

/// How many appends of one partition client may be in flight.
pub(super) const WINDOW: usize = 5;
/// A deadline that no fault exceeds.
const PATIENT: Duration = Duration::from_secs(60);
/// A deadline that most faults exceed.
const HASTY: Duration = Duration::from_secs(3);
/// How much later than it happened an event may be recorded, on a machine that is busy with brokers.
const GRACE: Duration = Duration::from_millis(500);

/// Who appends to a partition. Each partition has its own client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shape {
    /// So many callers of `produce`, each with one append at a time.
    Callers(u32),
    /// One that reserves and submits, with twice as many appends at a time as may be in flight.
    Pipelined,
}

const SHAPES: [Shape; 3] = [Shape::Callers(1), Shape::Callers(32), Shape::Pipelined];

/// A topic with a partition for each shape and deadline, all with the same leader, and the appends to them.
pub(super) struct Scenario {
    name: &'static str,
    pub(super) network: Network,
    topic: String,
    recorder: Recorder,
    done: Arc<AtomicBool>,
    loads: Vec<Load>,
}

struct Load {
    shape: Shape,
    deadline: Duration,
    appender: Arc<Appender>,
    acked: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

/// What the appends to a partition have come to.
#[derive(Debug, Default)]
struct Report {
    /// Further attempts of acknowledged appends.
    retries: u32,
    longest_gap: Duration,
    failures: Vec<Failure>,
    /// What became of the appends whose outcome was unknown, by value.
    resolutions: Vec<(String, Resolution)>,
}

#[derive(Debug)]
struct Failure {
    at: Instant,
    value: String,
    outcome: Outcome,
    error: Error,
}

impl Scenario {
    /// Creates the topic on all brokers, the first of `replicas` being the leader, and begins to append.
    pub(super) async fn start(
        kafka: &Kafka,
        name: &'static str,
        replicas: &[i32],
        configs: &[(&str, &str)],
        request: Duration,
    ) -> Self {
        let network = Network::new();
        let recorder = Recorder::new();
        let topic = kafka.topic_name(name);
        let done = Arc::new(AtomicBool::new(false));
        let mut loads = Vec::new();
        for deadline in [PATIENT, HASTY] {
            let deadlines = Deadlines::default().operation(deadline).request(request);
            let client =
                ClientBuilder::new(kafka.bootstrap()).connector(network.clone()).deadlines(deadlines);
            let client = client.build().await.unwrap();
            if loads.is_empty() {
                let controller = client.controller_client().await.unwrap();
                let assignment = vec![replicas.to_vec(); 2 * SHAPES.len()];
                let create = controller.create_topic(&topic, -1, -1).assignment(assignment);
                configs
                    .iter()
                    .fold(create, |create, (name, value)| create.config(*name, *value))
                    .await
                    .unwrap();
            }
            for shape in SHAPES {
                let number = i32::try_from(loads.len()).unwrap();
                let partition = client.partition_client(&topic, number).deadline(PATIENT).await.unwrap();
                let writer = Writer::new((&*topic, number)).deadline(deadline);
                let writer = recorder.now().writer(writer);
                let appender = Appender::new(partition, &recorder, writer, Arc::clone(&done));
                loads.push(Load {
                    shape,
                    deadline,
                    acked: appender.acked.subscribe(),
                    task: tokio::spawn(Arc::clone(&appender).run(shape)),
                    appender,
                });
            }
        }
        Self { name, network, topic, recorder, done, loads }
    }

    /// Waits until every partition has so many more acknowledged appends.
    pub(super) async fn progress(&mut self, by: u64) {
        let waits = self.loads.iter_mut().map(async |load| {
            let target = *load.acked.borrow_and_update() + by;
            // An appender that has panicked is reported at the end.
            _ = load.acked.wait_for(|acked| *acked >= target).await;
        });
        join_all(waits).await;
    }

    /// Ends the appends and compares their results with the log.
    pub(super) async fn finish(self, kafka: &Kafka) {
        let Self { name, network, topic, recorder, done, loads } = self;
        done.store(true, Ordering::Relaxed);
        let mut lines = Vec::new();
        for (number, mut load) in (0..).zip(loads) {
            (&mut load.task).await.unwrap();
            // After the last resolution.
            for _ in 0..2 * WINDOW {
                load.appender.produce().await;
            }
            let java = kafka.java();
            let end = java.offset(&topic, number, "latest").await;
            let records = java.consume(&topic, number, 0, Some(end)).await.into_iter();
            let records = records.map(|record| (record.offset, record.value.unwrap()));
            let log = Log::new((&*topic, number), 0..end, records);
            let what = format!("{name}, {:?} with {:?}", load.shape, load.deadline);
            let report = load.appender.report.lock().unwrap();
            report.check(&what, &load, &network, number);
            report.compare(&what, &log);
            recorder.now().log(log);
            lines.push(format!(
                "{:?}/{:?}: {} acked, {report}",
                load.shape,
                load.deadline,
                *load.acked.borrow()
            ));
        }
        let verdict = recorder.now().check(&Expect::default().grace(GRACE));
        assert!(verdict.holds(), "{name}: {verdict}");
        let version = kafka.version().unwrap();
        let lines = lines.join("\n        ");
        kwal_tests::report(format_args!("{version}, {name}: {}\n        {lines}", verdict.tally()));
    }
}

impl Report {
    fn succeeded(&mut self, last: &Mutex<Instant>, attempts: u32) {
        let now = Instant::now();
        let gap = now - std::mem::replace(&mut *last.lock().unwrap(), now);
        self.longest_gap = self.longest_gap.max(gap);
        self.retries += attempts - 1;
    }

    fn unknown(&self) -> Vec<&Failure> {
        self.failures.iter().filter(|failure| failure.outcome == Outcome::Unknown).collect()
    }

    /// Checks the errors, and what was in flight.
    fn check(&self, what: &str, load: &Load, network: &Network, number: i32) {
        for failure in &self.failures {
            let is_fatal = matches!(failure.error.kind(), ErrorKind::DataLoss { .. } | ErrorKind::Fenced);
            assert!(!is_fatal, "{what}: {failure:#?}");
        }
        if load.deadline == PATIENT {
            assert!(self.failures.is_empty(), "{what}: {:#?}", self.failures);
            // One that was not sent when the connection broke waits for the next connection.
            let was_hit = self.retries > 0 || self.longest_gap > Duration::from_secs(1);
            assert!(was_hit, "{what}: no append was hit: {self}");
            let most = network.most_in_flight(number);
            let expected = if load.shape == Shape::Callers(1) { 1 } else { WINDOW };
            assert_eq!(most, expected, "{what}: in flight");
        }
        let unknown = self.unknown();
        for failure in &unknown {
            // A batch that was never sent is not in doubt.
            assert!(network.has_sent(&failure.value), "{what}: not sent: {failure:#?}");
        }
        let ended_together = most_within(&unknown, load.deadline - GRACE);
        assert!(ended_together <= WINDOW, "{what}: {ended_together} at once: {unknown:#?}");
    }

    /// Checks that the log agrees with every resolution.
    fn compare(&self, what: &str, log: &Log) {
        assert_eq!(self.resolutions.len(), self.unknown().len(), "{what}");
        for (value, resolution) in &self.resolutions {
            let value = Value::from(&**value);
            let found = log.records.iter().filter(|(_, record)| *record == value);
            let found: Vec<i64> = found.map(|(offset, _)| *offset).collect();
            let resolved: Vec<i64> = match resolution {
                Resolution::Appended(offsets) => offsets.clone().collect(),
                Resolution::NotApplied => Vec::new(),
            };
            assert_eq!(found, resolved, "{what}: {value}: {resolution:?}");
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { retries, longest_gap, failures, resolutions } = self;
        let is_appended = |(_, resolution): &&(String, Resolution)| *resolution != Resolution::NotApplied;
        let appended = resolutions.iter().filter(is_appended).count();
        let (failed, unknown) = (failures.len(), resolutions.len());
        write!(
            f,
            "{retries} retries, {failed} failed, {unknown} unknown ({appended} appended), gap {longest_gap:.1?}"
        )
    }
}

/// Returns how many of the failures ended within any span of time.
fn most_within(failures: &[&Failure], span: Duration) -> usize {
    let within = |first: &Failure| {
        failures.iter().filter(|failure| (first.at..first.at + span).contains(&failure.at)).count()
    };
    failures.iter().map(|first| within(first)).max().unwrap_or(0)
}

/// Appends to one partition.
struct Appender {
    partition: PartitionClient,
    recorder: Recorder,
    writer: WriterId,
    /// Of the records that resolutions append.
    fences: WriterId,
    done: Arc<AtomicBool>,
    next: AtomicU64,
    acked: watch::Sender<u64>,
    last: Mutex<Instant>,
    report: Mutex<Report>,
}

/// How long one caller pauses after an append. Leaves time to the brokers and to the other tests.
const PACE: Duration = Duration::from_millis(10);

impl Appender {
    fn new(
        partition: PartitionClient,
        recorder: &Recorder,
        writer: WriterId,
        done: Arc<AtomicBool>,
    ) -> Arc<Self> {
        let fences = recorder.now().writer((partition.topic(), partition.partition()));
        Arc::new(Self {
            partition,
            recorder: recorder.clone(),
            writer,
            fences,
            done,
            next: AtomicU64::new(0),
            acked: watch::Sender::new(0),
            last: Mutex::new(Instant::now()),
            report: Mutex::default(),
        })
    }

    /// Appends until `done`. All callers are in one task, so their order is that of their first polls.
    async fn run(self: Arc<Self>, shape: Shape) {
        match shape {
            Shape::Callers(count) => {
                join_all((0..count).map(|_| self.call(PACE * count))).await;
            }
            Shape::Pipelined => self.pipeline().await,
        }
    }

    async fn call(&self, pace: Duration) {
        while !self.done.load(Ordering::Relaxed) {
            self.produce().await;
            sleep(pace).await;
        }
    }

    async fn produce(&self) {
        let value = self.value();
        let ticket = self.recorder.queue(self.writer, [&*value]);
        let result = self.partition.produce(vec![Record::new(None::<&str>, value.clone())]).await;
        self.completed(ticket, value, result).await;
    }

    async fn pipeline(self: &Arc<Self>) {
        let places = Arc::new(Semaphore::new(2 * WINDOW));
        let mut appends = JoinSet::new();
        while !self.done.load(Ordering::Relaxed) {
            // Several without a pause, so that they are in flight together.
            for _ in 0..WINDOW {
                let place = Arc::clone(&places).acquire_owned().await.unwrap();
                let value = self.value();
                let batch = self.partition.encode([Record::new(None::<&str>, value.clone())]).unwrap();
                let permit = self.partition.reserve(batch.size_in_bytes()).await.unwrap();
                let ticket = self.recorder.submit(self.writer, [&*value]);
                let append = permit.submit(batch);
                let this = Arc::clone(self);
                appends.spawn(async move {
                    let result = append.await;
                    // The next append need not wait for a resolution.
                    drop(place);
                    this.completed(ticket, value, result).await;
                });
            }
            sleep(PACE * WINDOW as u32).await;
        }
        appends.join_all().await;
    }

    /// Returns a value that no other append has.
    fn value(&self) -> String {
        format!("{}-{}", self.partition.partition(), self.next.fetch_add(1, Ordering::Relaxed))
    }

    async fn completed(&self, ticket: Ticket, value: String, result: Result<Produced, Error>) {
        let error = match result {
            Ok(produced) => {
                ticket.acked(produced.base_offset.unwrap());
                self.report.lock().unwrap().succeeded(&self.last, produced.attempts);
                self.acked.send_modify(|acked| *acked += 1);
                return;
            }
            Err(error) => error,
        };
        let outcome = error.outcome();
        match outcome {
            Outcome::NotApplied => ticket.not_appended(),
            Outcome::Unknown => ticket.unknown(),
        }
        let in_doubt = error.in_doubt().cloned();
        assert_eq!(in_doubt.is_some(), outcome == Outcome::Unknown, "{error:?}");
        let failure = Failure { at: Instant::now(), value: value.clone(), outcome, error };
        self.report.lock().unwrap().failures.push(failure);
        if let Some(in_doubt) = in_doubt {
            self.resolve(&in_doubt, value).await;
        }
    }

    /// Resolves an append. A fence behind an append with a short deadline may be in doubt itself; then it is
    /// resolved again.
    async fn resolve(&self, in_doubt: &InDoubt, value: String) {
        for attempt in 0.. {
            let fence = format!("fence-{value}-{attempt}");
            let ticket = self.recorder.start(self.fences, [&*fence]);
            let resolve = self.partition.resolve(in_doubt, Record::new(None::<&str>, fence));
            let result = resolve.deadline(PATIENT).await;
            // Whether the fence was needed is not known.
            ticket.unknown();
            match result {
                Ok(resolution) => return self.report.lock().unwrap().resolutions.push((value, resolution)),
                Err(error) => assert!(attempt < 10 && error.outcome() == Outcome::Unknown, "{error:?}"),
            }
        }
    }
}
