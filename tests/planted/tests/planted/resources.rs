//! Memory, room and pauses.

use std::time::Duration;

use kwal_client::{Limits, PartitionClient};
use kwal_protocol::{api::ApiKey, record::Compression};
use kwal_testkit::{EmbeddedCluster, Fault};

use crate::{
    fixture::{Appender, Fixture},
    support::settle,
};

const PAUSE: Duration = Duration::from_secs(5);

async fn limited(fixture: &Fixture, limits: Limits) -> PartitionClient {
    fixture.builder().limits(limits).build().await.unwrap().partition_client("wal", 0).await.unwrap()
}

/// More are given up than there is room for.
pub(crate) async fn many_dropped() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    for value in 0..100 {
        drop(wal.begin(&[&value.to_string()]).await);
        settle().await;
    }
    fixture.expect(wal.append(&["the last"]).await.is_some(), "appends that were given up keep their room");
    fixture
}

/// Some appends are under way; those that have to wait for room are given up.
async fn withdrawn(fixture: &Fixture, wal: &Appender, under_way: usize, bytes: usize) {
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(PAUSE));
    let value = |number: usize| format!("{number:0bytes$}");
    let mut appends = Vec::new();
    for number in 0..under_way {
        appends.push(wal.submit(&[&value(number)]).await);
    }
    for number in under_way..under_way + 3 {
        let waiting = wal.wait(&[&value(number)]).await;
        settle().await;
        waiting.withdraw();
    }
    for append in appends {
        append.await.unwrap();
    }
}

pub(crate) async fn budget_used_up() -> Fixture {
    let fixture = Fixture::one();
    let partition = limited(&fixture, Limits::default().memory(64 << 10)).await;
    let wal = fixture.appends(partition, Duration::from_secs(60));
    withdrawn(&fixture, &wal, 3, 20 << 10).await;
    fixture
}

pub(crate) async fn queue_full() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    withdrawn(&fixture, &wal, 64, 10).await;
    fixture
}

pub(crate) async fn many_partition_clients() -> Fixture {
    let fixture = Fixture::one();
    let client =
        fixture.builder().limits(Limits::default().max_connections_per_broker(2)).build().await.unwrap();
    let mut open = Vec::new();
    for number in 0..20 {
        let wal = fixture.open_at(&client, number % 2).await;
        wal.append(&[&number.to_string()]).await;
        wal.partition.fetch(0).await.unwrap();
        open.push(wal);
    }
    fixture.expect(fixture.cluster.connections().open <= 5, "there are more connections than may be");
    fixture
}

pub(crate) async fn unpacks_to_much() -> Fixture {
    let fixture = Fixture::one();
    let client = fixture.client().await;
    let partition = client.partition_client("wal", 0).compression(Compression::Lz4).await.unwrap();
    let wal = fixture.appends(partition, Duration::from_secs(60));
    wal.append(&[&"x".repeat(1 << 20)]).await;
    let reader = limited(&fixture, Limits::default().decompressed(1 << 19)).await;
    let fetched = reader.fetch(0).await.unwrap();
    fixture.expect(
        fetched.records().collect::<Result<Vec<_>, _>>().is_err(),
        "a batch unpacks to more than the limit",
    );
    fixture
}

pub(crate) async fn large_response() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    wal.append(&[&"x".repeat(100_000)]).await;
    let reader = limited(&fixture, Limits::default().frame(50_000)).await;
    fixture.expect(reader.fetch(0).await.is_err(), "a response is larger than the limit");
    fixture
}

/// For longer than a request may take: a client that knows of it does not count that time.
pub(crate) async fn throttled_for_long() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Throttle(5 * PAUSE));
    wal.append(&["a"]).await;
    let attempts = wal.append(&["b"]).await.map(|produced| produced.attempts);
    fixture.expect(attempts == Some(1), "an append was sent into a pause, and sent again");
    fixture
}

pub(crate) async fn reader_over_its_quota() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    for value in ["a", "b", "c", "d"] {
        wal.append(&[&value.repeat(50_000)]).await;
    }
    fixture.cluster.limit_fetch(None, Some(10_000));
    for offset in 0..4 {
        let fetched = wal.partition.fetch(offset).max_bytes(60_000).await;
        let next = fetched.map_or(offset, |fetched| fetched.next_offset);
        fixture.expect(next == offset + 1, "a reader over its quota gets nothing");
    }
    fixture
}

/// The first of several attempts.
pub(crate) async fn one_without_an_answer() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::BlackHole);
    let attempts = wal.append(&["a"]).await.map(|produced| produced.attempts);
    fixture.expect(attempts == Some(2), "a request without an answer took all the time there was");
    fixture
}

pub(crate) async fn lookup() -> Fixture {
    let fixture = Fixture::start(EmbeddedCluster::builder().auto_create_topics(true));
    let _ = fixture.client().await.partition_client("typo", 0).await;
    fixture.expect(fixture.cluster.topics() == ["wal"], "a topic was made by looking it up");
    fixture
}
