//! What a program sees of the client in its logs at the level `INFO`.

use std::{
    fmt::{self, Write as _},
    sync::{Arc, Mutex},
    time::Duration,
};

use kwal_client::OffsetAt;
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::Fault;
use tokio::time::sleep;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::{DefaultGuard, set_default},
};

use crate::support::{Wire, broker, open, open_over, record, timed};

const SECOND: Duration = Duration::from_secs(1);

/// The events of the current thread at `INFO` and above, one a line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

/// Ends the recording when it is dropped.
struct Recording {
    lines: Lines,
    _guard: DefaultGuard,
    /// With a single subscriber, callsites that other tests reached first would be cached as disabled.
    _another: tracing::Dispatch,
}

impl Recording {
    fn start() -> Self {
        let _another = tracing::Dispatch::new(Lines::default());
        let lines = Lines::default();
        Self { _guard: set_default(lines.clone()), lines, _another }
    }

    /// Returns the lines since the last time.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.0.lock().unwrap())
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = event.metadata().level().to_string();
        event.record(&mut Text(&mut line));
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

/// Asserts that a line has a level and contains some parts.
#[track_caller]
fn assert_line(line: &str, level: Level, parts: &[&str]) {
    assert!(line.starts_with(level.as_str()), "{line}");
    for part in parts {
        assert!(line.contains(part), "{part:?} in {line}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_retries_says_so_once_and_that_it_is_over() {
    let cluster = kwal_testkit::EmbeddedCluster::builder().brokers(3).topic("wal", 1);
    let cluster = cluster.start_in_memory().unwrap();
    let partition = open(&cluster).await;
    partition.produce(record("a")).await.unwrap();
    let log = Recording::start();
    for id in 1..=3 {
        cluster.kill(id).unwrap();
    }
    let append = tokio::spawn({
        let partition = partition.clone();
        async move { partition.produce(record("b")).await }
    });
    sleep(SECOND / 2).await;
    assert_eq!(log.take(), [""; 0]);
    sleep(20 * SECOND).await;
    let lines = log.take();
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    let parts =
        ["still retrying", "topic=\"wal\"", "partition=0", "no broker can be reached", "broker-1:9092"];
    assert_line(line, Level::WARN, &parts);
    for id in 1..=3 {
        cluster.restart(id).unwrap();
    }
    append.await.unwrap().unwrap();
    let lines = log.take();
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    assert_line(line, Level::INFO, &["succeeded after retries", "topic=\"wal\"", "partition=0"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_gives_up_says_so() {
    let broker = broker();
    let partition = open(&broker).await;
    let log = Recording::start();
    for _ in 0..1_000 {
        broker.on(ApiKey::LIST_OFFSETS, Fault::Error(ErrorCode::LEADER_NOT_AVAILABLE));
    }
    partition.get_offset(OffsetAt::Latest).deadline(20 * SECOND).await.unwrap_err();
    let lines = log.take();
    let [first, last] = &lines[..] else { panic!("{lines:#?}") };
    assert_line(first, Level::WARN, &["still retrying", "api=ListOffsets", "LEADER_NOT_AVAILABLE (5)"]);
    assert_line(last, Level::WARN, &["ended without success after retries", "api=ListOffsets"]);
}

/// An attempt that hangs after one that failed at once.
#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_says_so() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    let log = Recording::start();
    wire.set(crate::support::WireMode::Unreachable);
    broker.on(ApiKey::LIST_OFFSETS, Fault::Drop);
    let call = tokio::spawn({
        let partition = partition.clone();
        async move { partition.get_offset(OffsetAt::Latest).deadline(60 * SECOND).await }
    });
    // The first request ends after 10 s, and the attempt after it hangs on its connection.
    sleep(11 * SECOND).await;
    let lines = log.take();
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    assert_line(line, Level::WARN, &["still retrying", "no response to ListOffsets"]);
    call.abort();
}

#[tokio::test(start_paused = true)]
async fn what_succeeds_within_a_second_or_waits_for_records_says_nothing() {
    let broker = broker();
    let partition = open(&broker).await;
    let log = Recording::start();
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    partition.produce(record("a")).await.unwrap();
    broker.on(ApiKey::FETCH, Fault::Error(ErrorCode::LEADER_NOT_AVAILABLE));
    let (fetched, took) = timed(partition.fetch(1).max_wait(20 * SECOND)).await;
    fetched.unwrap();
    assert!(took >= 20 * SECOND, "{took:?}");
    assert_eq!(log.take(), [""; 0]);
}
