//! Memory, connections and throttling.

use std::time::Duration;

use futures::future::join_all;
use kwal_client::{
    Limits, OffsetAt, PartitionClient,
    error::{ErrorKind, Progress},
    record::Record,
};
use kwal_protocol::{api::ApiKey, record::Compression};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout},
};

use crate::{
    fixture::{Appender, Fixture, MINUTE},
    support::{Wire, settle},
};

const PAUSE: Duration = Duration::from_secs(5);
/// Longer than a request may take.
const LONG_THROTTLE: Duration = Duration::from_secs(25);

async fn open_limited(fixture: &Fixture, limits: Limits) -> PartitionClient {
    fixture.builder().limits(limits).build().await.unwrap().partition_client("wal", 0).await.unwrap()
}

/// More appends are dropped than the queue has places.
pub(crate) async fn many_appends_dropped() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    for value in 0..100 {
        drop(wal.begin(&[&value.to_string()]).await);
        settle().await;
    }
    fixture.expect(wal.append(&["the last"]).await.is_some(), "dropped appends keep their permits");
    fixture
}

/// More permits are used for batches that they are too small for than the queue has places.
pub(crate) async fn permits_too_small() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    let batch = wal.partition.encode([Record::new(None::<&str>, "too large")]).unwrap();
    for _ in 0..100 {
        let Ok(permit) = wal.partition.reserve(1).await else { break };
        permit.submit(batch.clone()).await.unwrap_err();
    }
    fixture.expect(wal.append(&["a"]).await.is_some(), "permits of rejected batches are not given back");
    fixture
}

/// A permit is larger than the batch that uses it.
pub(crate) async fn permit_larger_than_batch() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = open_limited(&fixture, Limits::default().memory(64 << 10)).await;
    let wal = fixture.appender(partition.clone(), MINUTE);
    let permit = partition.reserve(40 << 10).await.unwrap();
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(PAUSE));
    let append = wal.submit_with(permit, "a");
    let second = partition.reserve(40 << 10).deadline(PAUSE / 5).await;
    fixture
        .expect(second.is_ok(), "what a permit had too much is not given back before the end of the append");
    append.await.unwrap();
    fixture
}

/// Submits some appends. Further ones have to wait, and are withdrawn.
async fn withdraw_waiting_appends(fixture: &Fixture, wal: &Appender, submitted: usize, bytes: usize) {
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(PAUSE));
    let value = |number: usize| format!("{number:0bytes$}");
    let mut appends = Vec::new();
    for number in 0..submitted {
        appends.push(wal.submit(&[&value(number)]).await);
    }
    for number in submitted..submitted + 3 {
        let waiting = wal.begin_queued(&[&value(number)]).await;
        settle().await;
        waiting.withdraw();
    }
    for append in appends {
        append.await.unwrap();
    }
}

pub(crate) async fn memory_budget_exhausted() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = open_limited(&fixture, Limits::default().memory(64 << 10)).await;
    let wal = fixture.appender(partition, MINUTE);
    withdraw_waiting_appends(&fixture, &wal, 3, 20 << 10).await;
    fixture
}

/// The values of an append take what there is.
pub(crate) async fn large_values_in_flight() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = open_limited(&fixture, Limits::default().memory(64 << 10)).await;
    let wal = fixture.appender(partition.clone(), MINUTE);
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(PAUSE));
    let append = wal.submit(&[&"x".repeat(40 << 10)]).await;
    settle().await;
    let permit = partition.try_reserve(20 << 10);
    fixture.expect(permit.is_none(), "values that are shared do not count in the budget");
    append.await.unwrap();
    fixture
}

/// A client is open for long after it has used a large buffer.
pub(crate) async fn idle_after_a_large_batch() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    sleep(MINUTE).await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let values: Vec<_> = (0..50).map(|number| format!("{number:01000}")).collect();
    wal.append(&values.iter().map(String::as_str).collect::<Vec<_>>()).await;
    sleep(MINUTE).await;
    fixture.expect(tasks() <= before, "buffers that nobody uses are kept");
    fixture
}

pub(crate) async fn queue_full() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    withdraw_waiting_appends(&fixture, &wal, 64, 10).await;
    fixture
}

/// An append needs more memory than is free while it is compressed, and much less afterwards.
pub(crate) async fn memory_scarce_while_encoding() -> Fixture {
    let fixture = Fixture::one_broker();
    let client = fixture.builder().limits(Limits::default().memory(64 << 10)).build().await.unwrap();
    let wal = fixture.open_partition(&client, 0).await;
    let compressed = client.partition_client("wal", 1).compression(Compression::Lz4).await.unwrap();
    let compressed = fixture.appender(compressed, MINUTE);
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(PAUSE));
    let append = wal.submit(&[&"x".repeat(40 << 10)]).await;
    let waiting = compressed.begin_queued(&[&"y".repeat(20 << 10)]).await;
    settle().await;
    waiting.withdraw();
    append.await.unwrap();
    fixture
}

pub(crate) async fn many_partition_clients() -> Fixture {
    let fixture = Fixture::one_broker();
    let limits = Limits::default().max_connections_per_broker(2);
    let client = fixture.builder().limits(limits).build().await.unwrap();
    let mut open = Vec::new();
    for number in 0..20 {
        let wal = fixture.open_partition(&client, number % 2).await;
        wal.append(&[&number.to_string()]).await;
        wal.partition.fetch(0).await.unwrap();
        open.push(wal);
    }
    fixture.expect(fixture.cluster.connections().open <= 5, "there are more connections than the limit");
    fixture
}

pub(crate) async fn decompressed_beyond_limit() -> Fixture {
    let fixture = Fixture::one_broker();
    let client = fixture.client().await;
    let partition = client.partition_client("wal", 0).compression(Compression::Lz4).await.unwrap();
    let wal = fixture.appender(partition, MINUTE);
    wal.append(&[&"x".repeat(1 << 20)]).await;
    let reader = open_limited(&fixture, Limits::default().decompressed(1 << 19)).await;
    let fetched = reader.fetch(0).await.unwrap();
    let records = fetched.records().collect::<Result<Vec<_>, _>>();
    fixture.expect(records.is_err(), "a batch was decompressed to more than the limit");
    fixture
}

pub(crate) async fn response_beyond_limit() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&[&"x".repeat(100_000)]).await;
    let reader = open_limited(&fixture, Limits::default().frame(50_000)).await;
    fixture.expect(reader.fetch(0).await.is_err(), "a response is larger than the limit");
    fixture
}

/// The time limit of a request is paused while the broker throttles, unless the request is sent all the same.
pub(crate) async fn long_throttle() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Throttle(LONG_THROTTLE));
    wal.append(&["a"]).await;
    let attempts = wal.append(&["b"]).await.map(|produced| produced.attempts);
    fixture.expect(attempts == Some(1), "an append was sent while the broker throttled, and sent again");
    fixture
}

/// A long poll is dropped. The broker responds to it later, and throttles.
pub(crate) async fn throttled_after_drop() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::FETCH, Fault::Throttle(LONG_THROTTLE));
    let begun = Instant::now();
    timeout(PAUSE / 5, wal.partition.fetch(0).max_wait(PAUSE)).await.unwrap_err();
    sleep(PAUSE).await;
    wal.partition.fetch(0).max_wait(Duration::ZERO).await.unwrap();
    // If it was sent earlier, it timed out, and another connection was used.
    let was_throttled = begun.elapsed() >= PAUSE + LONG_THROTTLE;
    fixture.expect(was_throttled, "a fetch was sent while the broker throttled");
    fixture
}

/// The connection is lost while the broker throttles.
pub(crate) async fn connection_lost_under_throttle() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Throttle(LONG_THROTTLE));
    let begun = Instant::now();
    wal.append(&["a"]).await;
    fixture.cluster.disconnect_all();
    settle().await;
    wal.append(&["b"]).await;
    fixture.expect(begun.elapsed() >= LONG_THROTTLE, "an append was sent while the broker throttled");
    fixture
}

/// A throttle lasts longer than the call after it.
pub(crate) async fn throttled_beyond_deadline() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::FETCH, Fault::Throttle(LONG_THROTTLE));
    wal.partition.fetch(0).max_wait(Duration::ZERO).await.unwrap();
    let begun = Instant::now();
    wal.partition.fetch(0).deadline(LONG_THROTTLE / 2).await.unwrap_err();
    fixture.expect(begun.elapsed() < PAUSE, "a call waited for a throttle that it could not outlast");
    fixture
}

/// Many calls need the only broker, which is dead.
pub(crate) async fn dead_broker() -> Fixture {
    let fixture = Fixture::one_broker();
    let wire = Wire::to(&fixture.cluster);
    let client = wire.client().await;
    let mut partitions = Vec::new();
    for number in 0..40 {
        partitions.push(client.partition_client("wal", number % 2).await.unwrap());
    }
    fixture.cluster.stop(1).unwrap();
    settle().await;
    let before = wire.attempts_at("broker-1");
    let fetch = async |one: &PartitionClient| one.fetch(0).deadline(2 * PAUSE).await.map(drop);
    join_all(partitions.iter().map(fetch)).await;
    let attempts = wire.attempts_at("broker-1") - before;
    // Ten seconds, with a quarter of a second or more in between in the end.
    fixture.expect(attempts <= 50, "calls connect to a dead broker one by one");
    fixture.cluster.restart(1).unwrap();
    fixture
}

/// Long polls are dropped one after the other.
pub(crate) async fn long_polls_dropped() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    for _ in 0..20 {
        timeout(PAUSE / 50, wal.partition.fetch(0).max_wait(PAUSE)).await.unwrap_err();
    }
    let begun = Instant::now();
    let _ = wal.partition.fetch(0).max_wait(Duration::ZERO).await;
    fixture.expect(begun.elapsed() <= PAUSE, "a fetch waited for polls that nobody wanted any more");
    fixture
}

/// Fetches are dropped while a throttle holds them back.
pub(crate) async fn dropped_under_throttle() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::FETCH, Fault::Throttle(PAUSE));
    for _ in 0..10 {
        let _ = timeout(PAUSE / 50, wal.partition.fetch(0).max_wait(Duration::ZERO)).await;
    }
    sleep(2 * PAUSE).await;
    fixture.expect(fixture.cluster.requests(ApiKey::FETCH) == 1, "a fetch was sent after it was dropped");
    fixture
}

pub(crate) async fn reader_over_quota() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    for value in ["a", "b", "c", "d"] {
        wal.append(&[&value.repeat(50_000)]).await;
    }
    fixture.cluster.limit_fetch(None, Some(10_000));
    for offset in 0..4 {
        let fetched = wal.partition.fetch(offset).max_bytes(60_000).await;
        let next = fetched.map_or(offset, |fetched| fetched.next_offset);
        fixture.expect(next == offset + 1, "a reader over its quota gets no records");
    }
    fixture
}

/// The broker does not respond to the first of several attempts.
pub(crate) async fn request_without_response() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::BlackHole);
    let attempts = wal.append(&["a"]).await.map(|produced| produced.attempts);
    fixture.expect(attempts == Some(2), "a request without a response took the whole deadline");
    fixture
}

/// The broker does not respond until the deadline.
pub(crate) async fn deadline_without_response() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::LIST_OFFSETS, Fault::BlackHole);
    let error = wal.partition.get_offset(OffsetAt::Latest).deadline(PAUSE).await.unwrap_err();
    let waited_for = match error.kind() {
        ErrorKind::DeadlineExceeded { progress, .. } => Some(*progress),
        _ => None,
    };
    let stood = (waited_for, error.context().broker.is_some());
    fixture.expect(
        stood == (Some(Progress::Response), true),
        "an error of a deadline did not say how far it got",
    );
    fixture
}

pub(crate) async fn lookup_of_unknown_topic() -> Fixture {
    let fixture = Fixture::start(EmbeddedCluster::builder().auto_create_topics(true));
    let _ = fixture.client().await.partition_client("typo", 0).await;
    fixture.expect(fixture.cluster.topics() == ["wal"], "a lookup created a topic");
    fixture
}
