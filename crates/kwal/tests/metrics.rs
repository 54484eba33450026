//! Metrics, on the embedded cluster: each is recorded where it should be, and documented.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use kwal::{
    Client, ClientBuilder, ErrorKind, PartitionClient, Record,
    client::{Limits, OffsetAt},
    consumer,
    producer::BatchProducer,
    record::Compression,
};
use kwal_client::metrics::{ALL, Kind, Metric};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{EmbeddedCluster, Fault, Hazard, Storm};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit, set_default_local_recorder,
};
use metrics_util::{
    MetricKind,
    debugging::{DebugValue, DebuggingRecorder, Snapshotter},
};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const GUIDE: &str = include_str!("../src/guide/metrics.md");

/// What was recorded on this thread.
struct Figures {
    snapshotter: Snapshotter,
    /// By name and labels. A snapshot of the recorder takes what it returns, gauges included.
    seen: RefCell<BTreeMap<(String, Vec<String>), Figure>>,
}

#[derive(Clone, Debug, Default)]
struct Figure {
    kind: Option<MetricKind>,
    unit: Option<Unit>,
    meaning: String,
    /// The sum of what was counted, or of the changes of a gauge.
    sum: f64,
    /// The values of a histogram.
    values: Vec<f64>,
}

impl Figures {
    fn of(recorder: &DebuggingRecorder) -> Self {
        Self { snapshotter: recorder.snapshotter(), seen: RefCell::default() }
    }

    fn all(&self) -> BTreeMap<(String, Vec<String>), Figure> {
        let mut seen = self.seen.borrow_mut();
        for (key, unit, meaning, value) in self.snapshotter.snapshot().into_vec() {
            let (kind, key) = key.into_parts();
            let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let figure = seen.entry((key.name().to_owned(), labels)).or_default();
            (figure.kind, figure.unit) = (Some(kind), unit);
            figure.meaning = meaning.map(|meaning| meaning.to_string()).unwrap_or_default();
            match value {
                DebugValue::Counter(count) => figure.sum += count as f64,
                DebugValue::Gauge(change) => figure.sum += *change,
                DebugValue::Histogram(values) => figure.values.extend(values.iter().map(|value| **value)),
            }
        }
        seen.clone()
    }

    /// Returns what was recorded under a name with these labels.
    #[track_caller]
    fn get(&self, name: &str, labels: &[&str]) -> Figure {
        let mut found = self.all();
        let key = (name.to_owned(), labels.iter().map(|label| (*label).to_owned()).collect());
        found.remove(&key).unwrap_or_else(|| panic!("{name} {labels:?} is not among {:?}", found.keys()))
    }

    /// Returns the sum of a counter or a gauge; 0 if it was not registered.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let key = (name.to_owned(), labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>());
        self.all().get(&key).map_or(0.0, |figure| figure.sum)
    }

    /// Returns the names and labels of gauges that are not zero.
    fn gauges_left(&self) -> Vec<(String, Vec<String>)> {
        let all = self.all().into_iter();
        let gauges = all.filter(|(_, figure)| figure.kind == Some(MetricKind::Gauge) && figure.sum != 0.0);
        gauges.map(|(key, _)| key).collect()
    }
}

const WAL: [&str; 2] = ["topic=wal", "partition=0"];

fn cluster() -> EmbeddedCluster {
    EmbeddedCluster::builder().topic("wal", 2).start_in_memory().unwrap()
}

fn builder(cluster: &EmbeddedCluster) -> ClientBuilder {
    ClientBuilder::new(cluster.bootstrap()).connector(cluster.connector()).seed(7)
}

async fn open(cluster: &EmbeddedCluster) -> (Client, PartitionClient) {
    let client = builder(cluster).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    (client, partition)
}

fn records(values: &[&str]) -> Vec<Record> {
    values.iter().map(|value| Record::new("key", (*value).to_owned())).collect()
}

/// Lets all tasks run until each of them waits.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn appends_and_fetches_are_counted_and_gauges_return_to_zero() {
    let recorder = DebuggingRecorder::new();
    let _guard = set_default_local_recorder(&recorder);
    let figures = Figures::of(&recorder);
    let cluster = cluster();
    let (client, partition) = open(&cluster).await;
    let appended = partition.produce(records(&["a"])).await.unwrap();
    let wire = appended.wire_bytes + partition.produce(records(&["b", "c"])).await.unwrap().wire_bytes;
    let fetched = partition.fetch(0).await.unwrap();

    let (produce, fetch) = (["api=Produce", "broker=1"], ["api=Fetch", "broker=1"]);
    assert_eq!(figures.sum("kwal_requests_total", &produce), 2.0);
    assert_eq!(figures.sum("kwal_requests_total", &fetch), 1.0);
    assert!(figures.sum("kwal_request_bytes_total", &produce) > wire as f64);
    assert!(figures.sum("kwal_response_bytes_total", &fetch) > wire as f64);
    assert_eq!(figures.get("kwal_request_duration_seconds", &produce).values.len(), 2);
    assert_eq!(figures.get("kwal_request_queue_seconds", &produce).values, [0.0, 0.0]);
    assert_eq!(figures.sum("kwal_appended_records_total", &WAL), 3.0);
    assert_eq!(figures.sum("kwal_appended_bytes_total", &WAL), wire as f64);
    assert_eq!(figures.get("kwal_append_duration_seconds", &WAL).values, [0.0, 0.0]);
    assert_eq!(figures.sum("kwal_fetched_records_total", &WAL), 3.0);
    assert_eq!(figures.sum("kwal_fetched_bytes_total", &WAL), fetched.wire_bytes as f64);
    assert_eq!((wire, figures.sum("kwal_memory_limit_bytes", &[])), (fetched.wire_bytes, 268_435_456.0));

    // A long poll is in flight, and holds memory.
    let waits = tokio::spawn({
        let partition = partition.clone();
        async move { partition.fetch(3).max_wait(2 * SECOND).await }
    });
    settle().await;
    assert_eq!(figures.sum("kwal_requests_in_flight", &["broker=1", "purpose=fetch"]), 1.0);
    assert_eq!(figures.sum("kwal_memory_used_bytes", &["side=reads"]), f64::from(1 << 20));
    waits.await.unwrap().unwrap();
    assert_eq!(figures.sum("kwal_requests_in_flight", &["broker=1", "purpose=fetch"]), 0.0);
    assert_eq!(figures.get("kwal_request_duration_seconds", &fetch).values, [0.0, 2.0]);

    for purpose in ["general", "produce", "fetch"] {
        let labels = ["broker=1", &format!("purpose={purpose}")];
        assert_eq!(figures.sum("kwal_connections_open", &labels), 1.0, "{purpose}");
        assert_eq!(figures.sum("kwal_connections_closed_total", &labels), 0.0, "{purpose}");
    }
    drop((partition, client));
    settle().await;
    assert!(figures.gauges_left().is_empty(), "{:?}", figures.gauges_left());
    for purpose in ["general", "produce", "fetch"] {
        let labels = ["broker=1", &format!("purpose={purpose}")];
        assert_eq!(figures.sum("kwal_connections_opened_total", &labels), 1.0, "{purpose}");
        assert_eq!(figures.sum("kwal_connections_closed_total", &labels), 1.0, "{purpose}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_and_failures_are_counted_by_their_reasons() {
    let recorder = DebuggingRecorder::new();
    let _guard = set_default_local_recorder(&recorder);
    let figures = Figures::of(&recorder);
    let cluster = cluster();
    let (_client, partition) = open(&cluster).await;
    partition.produce(records(&["a"])).await.unwrap();
    let moved = "error=NOT_LEADER_OR_FOLLOWER";
    for api in [ApiKey::PRODUCE, ApiKey::FETCH] {
        cluster.on_times(api, 2, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    }
    partition.produce(records(&["b"])).await.unwrap();
    partition.fetch(0).await.unwrap();
    assert_eq!(figures.sum("kwal_retries_total", &["api=Produce", moved]), 2.0);
    assert_eq!(figures.sum("kwal_retries_total", &["api=Fetch", moved]), 2.0);
    assert!(figures.all().keys().all(|(name, _)| !name.ends_with("failures_total")), "they succeeded");

    let denied = "error=TOPIC_AUTHORIZATION_FAILED";
    for api in [ApiKey::PRODUCE, ApiKey::LIST_OFFSETS] {
        cluster.on(api, Fault::Error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    }
    partition.produce(records(&["c"])).await.unwrap_err();
    partition.get_offset(OffsetAt::Latest).await.unwrap_err();
    assert_eq!(figures.sum("kwal_call_failures_total", &["api=ListOffsets", denied]), 1.0);
    assert_eq!(figures.sum("kwal_append_failures_total", &[WAL[0], WAL[1], denied]), 1.0);
    assert_eq!(figures.sum("kwal_call_failures_total", &["api=Produce", denied]), 0.0, "it is counted once");
    assert_eq!(figures.sum("kwal_appends_in_doubt_total", &WAL), 0.0);

    cluster.pause(1).unwrap();
    let error = partition.produce(records(&["d"])).deadline(2 * SECOND).await.unwrap_err();
    assert!(error.in_doubt().is_some(), "{error}");
    let late = [WAL[0], WAL[1], "error=DeadlineExceeded"];
    assert_eq!(figures.sum("kwal_append_failures_total", &late), 1.0);
    assert_eq!(figures.sum("kwal_appends_in_doubt_total", &WAL), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_is_recorded_and_what_waits_for_it() {
    let recorder = DebuggingRecorder::new();
    let _guard = set_default_local_recorder(&recorder);
    let figures = Figures::of(&recorder);
    let cluster = cluster();
    let (_client, partition) = open(&cluster).await;
    cluster.on(ApiKey::PRODUCE, Fault::Throttle(25 * SECOND));
    partition.produce(records(&["a"])).await.unwrap();
    partition.produce(records(&["b"])).await.unwrap();
    assert_eq!(figures.get("kwal_throttle_seconds", &["broker=1"]).values, [25.0]);
    let produce = ["api=Produce", "broker=1"];
    assert_eq!(figures.get("kwal_request_queue_seconds", &produce).values, [0.0, 25.0]);
    assert_eq!(figures.get("kwal_request_duration_seconds", &produce).values, [0.0, 0.0]);
    assert_eq!(figures.get("kwal_append_duration_seconds", &WAL).values, [0.0, 25.0]);
}

#[tokio::test(start_paused = true)]
async fn connections_that_fail_and_break_are_counted() {
    let recorder = DebuggingRecorder::new();
    let _guard = set_default_local_recorder(&recorder);
    let figures = Figures::of(&recorder);
    let cluster = cluster();
    let (_client, partition) = open(&cluster).await;
    partition.produce(records(&["a"])).await.unwrap();
    let produce = ["broker=1", "purpose=produce"];
    assert_eq!(figures.sum("kwal_connections_open", &produce), 1.0);
    cluster.kill(1).unwrap();
    partition.get_offset(OffsetAt::Latest).deadline(SECOND).await.unwrap_err();
    assert_eq!(figures.sum("kwal_connections_open", &produce), 0.0);
    assert_eq!(figures.sum("kwal_connections_closed_total", &produce), 1.0);
    let failures = figures.all().into_iter().filter(|((name, _), _)| name == "kwal_connect_failures_total");
    let failures: Vec<_> = failures.map(|((_, labels), figure)| (labels, figure.sum)).collect();
    assert!(!failures.is_empty() && failures.iter().all(|(_, count)| *count >= 1.0), "{failures:?}");
    cluster.restart(1).unwrap();
    partition.produce(records(&["b"])).await.unwrap();
    assert_eq!(figures.sum("kwal_connections_opened_total", &produce), 2.0);
    assert_eq!(figures.sum("kwal_connections_open", &produce), 1.0);
}

#[tokio::test(start_paused = true)]
async fn the_lag_of_a_reader_follows_its_position() {
    let recorder = DebuggingRecorder::new();
    let _guard = set_default_local_recorder(&recorder);
    let figures = Figures::of(&recorder);
    let lag = || figures.sum("kwal_reader_lag_records", &WAL);
    let cluster = cluster();
    let (_client, partition) = open(&cluster).await;
    for _ in 0..3 {
        partition.produce(records(&["a", "b"])).await.unwrap();
    }
    let mut stream = consumer::follow(&partition, 0).await.unwrap();
    for left in [4, 2, 0] {
        stream.next_batch().await.unwrap();
        assert_eq!((lag(), stream.lag()), (f64::from(left), left.into()));
    }
    // A second reader counts as long as it is there.
    let mut behind = consumer::follow(&partition, 0).await.unwrap();
    behind.next_batch().await.unwrap();
    assert_eq!((lag(), behind.lag()), (4.0, 4));
    drop(behind);
    assert_eq!(lag(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn batches_of_a_producer_are_measured() {
    let recorder = DebuggingRecorder::new();
    let _guard = set_default_local_recorder(&recorder);
    let figures = Figures::of(&recorder);
    let cluster = cluster();
    let client = builder(&cluster).build().await.unwrap();
    let codec = if cfg!(feature = "compression-lz4") { Compression::Lz4 } else { Compression::None };
    let partition = client.partition_client("wal", 0).compression(codec).await.unwrap();
    let wal = BatchProducer::new(partition);
    let all = records(&["x".repeat(100).as_str(); 100]);
    let appends = all.iter().map(|record| wal.produce(record));
    let appended = futures::future::try_join_all(appends).await.unwrap();
    assert_eq!(figures.get("kwal_batch_records", &WAL).values, [1.0, 99.0]);
    let bytes = figures.get("kwal_batch_bytes", &WAL).values;
    assert_eq!(bytes, [appended[0].batch.wire_bytes as f64, appended[1].batch.wire_bytes as f64]);
    assert_eq!(figures.get("kwal_batch_gather_seconds", &WAL).values.len(), 2);
    if codec != Compression::None {
        let ratios = figures.get("kwal_batch_compression_ratio", &WAL).values;
        assert!(ratios.len() == 2 && ratios[1] > 5.0, "{ratios:?}");
    }
}

/// Whatever can be recorded is in the table of metrics, and whatever is in the table is recorded.
#[tokio::test(start_paused = true)]
async fn what_is_recorded_is_the_table_of_metrics() {
    let recorder = DebuggingRecorder::new();
    let _guard = set_default_local_recorder(&recorder);
    let figures = Figures::of(&recorder);
    let cluster = cluster();
    let limits = Limits::default().memory(64 << 10).batch(40 << 10);
    let client = builder(&cluster).limits(limits).build().await.unwrap();
    let first = client.partition_client("wal", 0).exclusive("writer").await.unwrap();
    // Memory for one of them.
    let large = || vec![Record::new("key", vec![7; 30_000])];
    let (one, other) = tokio::join!(first.produce(large()), first.produce(large()));
    one.unwrap();
    other.unwrap();
    let _second = client.partition_client("wal", 0).exclusive("writer").await.unwrap();
    let error = first.produce(records(&["too late"])).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
    assert_eq!(figures.sum("kwal_fenced_total", &WAL), 1.0);
    assert_eq!(figures.sum("kwal_memory_waits_total", &["side=appends"]), 1.0);
    let partition = client.partition_client("wal", 1).await.unwrap();
    let codec = if cfg!(feature = "compression-lz4") { Compression::Lz4 } else { Compression::None };
    let compressed = client.partition_client("wal", 1).compression(codec).await.unwrap();
    BatchProducer::new(compressed).produce(Record::new("key", "value")).await.unwrap();
    consumer::follow(&partition, 0).await.unwrap().next_batch().await.unwrap();
    cluster.on(ApiKey::LIST_OFFSETS, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    partition.get_offset(OffsetAt::Latest).await.unwrap();
    cluster.kill(1).unwrap();
    partition.get_offset(OffsetAt::Latest).deadline(SECOND).await.unwrap_err();

    let mut expected: BTreeMap<_, _> = ALL.iter().map(|metric| (metric.name, metric)).collect();
    assert_eq!(expected.len(), ALL.len(), "names are unique");
    if codec == Compression::None {
        expected.remove("kwal_batch_compression_ratio");
    }
    let mut seen = BTreeSet::new();
    for ((name, labels), Figure { kind, unit, meaning, .. }) in figures.all() {
        let metric = expected.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not in the table"));
        let names: Vec<_> = labels.iter().map(|label| label.split('=').next().unwrap()).collect();
        let same = match metric.kind {
            Kind::Counter => MetricKind::Counter,
            Kind::Gauge => MetricKind::Gauge,
            Kind::Histogram => MetricKind::Histogram,
        };
        assert_eq!((names.as_slice(), kind, unit), (metric.labels, Some(same), Some(metric.unit)), "{name}");
        assert_eq!(meaning, metric.meaning);
        seen.insert(name);
    }
    let missing: Vec<_> = expected.keys().filter(|name| !seen.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?} are not recorded");
}

/// The table of the guide is that of the code.
#[test]
fn the_guide_lists_all_metrics() {
    let rows = GUIDE.lines().filter(|line| line.starts_with("| `kwal_"));
    let documented: Vec<_> = rows.map(|row| row.split(" | ").take(5).collect::<Vec<_>>()).collect();
    let row = |Metric { name, kind, unit, labels, meaning }: &Metric| {
        let kind = format!("{kind:?}").to_lowercase();
        let unit = match unit {
            Unit::Count => "–".to_owned(),
            unit => unit.as_str().to_owned(),
        };
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let labels = if labels.is_empty() { "–".to_owned() } else { labels };
        [format!("| `{name}`"), kind, unit, labels, (*meaning).to_owned()]
    };
    let expected: Vec<_> = ALL.iter().map(row).collect();
    for (documented, expected) in documented.iter().zip(&expected) {
        assert_eq!(documented, expected);
    }
    assert_eq!(documented.len(), expected.len());
}

/// A recorder that asks for states whenever it is called.
struct Asker(Arc<Asking>);

#[derive(Default)]
struct Asking {
    clients: Mutex<Option<(Client, PartitionClient)>>,
    asked: AtomicUsize,
}

impl Asking {
    fn called(&self) {
        let clients = self.clients.lock().unwrap().clone();
        if let Some((client, partition)) = clients {
            drop((client.state(), partition.state()));
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl CounterFn for Asking {
    fn increment(&self, _: u64) {
        self.called();
    }

    fn absolute(&self, _: u64) {
        self.called();
    }
}

impl GaugeFn for Asking {
    fn increment(&self, _: f64) {
        self.called();
    }

    fn decrement(&self, _: f64) {
        self.called();
    }

    fn set(&self, _: f64) {
        self.called();
    }
}

impl HistogramFn for Asking {
    fn record(&self, _: f64) {
        self.called();
    }
}

impl Recorder for Asker {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.0.called();
    }

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.0.called();
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.0.called();
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        self.0.called();
        Counter::from_arc(Arc::clone(&self.0))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.called();
        Gauge::from_arc(Arc::clone(&self.0))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.called();
        Histogram::from_arc(Arc::clone(&self.0))
    }
}

/// A recorder may ask for states, whenever it is called: nothing is locked.
#[test]
fn a_recorder_may_ask_for_states() {
    let (done, is_done) = mpsc::channel();
    // It might wait for itself.
    thread::spawn(move || done.send(ask_for_states()));
    let asked = is_done.recv_timeout(60 * SECOND).expect("it ends");
    assert!(asked > 100, "{asked}");
}

#[tokio::main(flavor = "current_thread")]
async fn ask_for_states() -> usize {
    tokio::time::pause();
    let asking = Arc::new(Asking::default());
    let recorder = Asker(Arc::clone(&asking));
    let _guard = set_default_local_recorder(&recorder);
    let cluster = cluster();
    let limits = Limits::default().memory(64 << 10).batch(40 << 10);
    let client = builder(&cluster).limits(limits).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let producer = BatchProducer::new(partition.clone());
    *asking.clients.lock().unwrap() = Some((client.clone(), partition.clone()));
    // Memory for one of them.
    let large = || vec![Record::new("key", vec![7; 30_000])];
    let (one, other) = tokio::join!(partition.produce(large()), partition.produce(large()));
    one.unwrap();
    other.unwrap();
    producer.produce(Record::new("key", "value")).await.unwrap();
    consumer::follow(&partition, 0).await.unwrap().next_batch().await.unwrap();
    cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    partition.produce(records(&["a"])).await.unwrap();
    cluster.kill(1).unwrap();
    partition.produce(records(&["b"])).deadline(SECOND).await.unwrap_err();
    *asking.clients.lock().unwrap() = None;
    asking.asked.load(Ordering::Relaxed)
}

/// Whatever fails, is dropped or is cut off with its runtime.
#[test]
fn after_a_storm_gauges_return_to_zero_and_counts_are_those_of_the_log() {
    for seed in 0..2 {
        let recorder = DebuggingRecorder::new();
        let _guard = set_default_local_recorder(&recorder);
        let figures = Figures::of(&recorder);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (acknowledged, on_log) = runtime.block_on(work_in_a_storm(seed, seed % 2 == 0));
        drop(runtime);
        assert!(figures.gauges_left().is_empty(), "{seed}: {:?}", figures.gauges_left());
        let counted = figures.sum("kwal_appended_records_total", &WAL);
        assert!(acknowledged > 0 && f64::from(acknowledged) <= counted, "{seed}: {acknowledged} {counted}");
        assert!(counted <= on_log as f64, "{seed}: {counted} {on_log}");
        let all = figures.all();
        let sum = |name: &str| -> f64 {
            all.iter().filter(|((found, _), _)| found == name).map(|(_, figure)| figure.sum).sum()
        };
        let (opened, closed) = (sum("kwal_connections_opened_total"), sum("kwal_connections_closed_total"));
        assert!(opened > 3.0 && opened == closed, "{seed}: {opened} {closed}");
    }
}

/// Appends and reads, and drops some of both. Returns how many records were acknowledged, and how many are
/// on the log.
async fn work_in_a_storm(seed: u64, is_closed: bool) -> (u32, usize) {
    let time = 10 * SECOND;
    let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 1).seed(seed).start_in_memory().unwrap();
    let client = builder(&cluster).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let until = Instant::now() + time;
    let appends = async {
        let mut acknowledged = 0;
        while Instant::now() < until {
            let limit = Duration::from_millis(1 + acknowledged % 7 * 100);
            // Some are dropped while they are under way.
            let append = partition.produce(records(&["a"])).deadline(5 * SECOND);
            if let Ok(Ok(_)) = timeout(limit, append.into_future()).await {
                acknowledged += 1;
            }
            sleep(Duration::from_millis(5)).await;
        }
        acknowledged
    };
    let reads = async {
        while Instant::now() < until {
            sleep(Duration::from_millis(5)).await;
            let Ok(mut stream) = consumer::follow(&partition, OffsetAt::Earliest).await else { continue };
            for _ in 0..20 {
                let _ = timeout(Duration::from_millis(50), stream.next_batch()).await;
            }
        }
    };
    let storm = Storm::new(seed).with(Hazard::RefusedConnections).with(Hazard::ConnectionLimits);
    let (acknowledged, (), report) = tokio::join!(appends, reads, storm.run(&cluster, time));
    report.unwrap();
    if is_closed {
        client.close().await;
    } else {
        // Is under way when the runtime ends.
        let (fetch, end) = (partition.clone(), cluster.end_offset("wal", 0).unwrap());
        tokio::spawn(async move { fetch.fetch(end).max_wait(HOUR).await });
        settle().await;
    }
    (u32::try_from(acknowledged).unwrap(), cluster.records("wal", 0).unwrap().len())
}
