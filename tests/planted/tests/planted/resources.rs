//! Memory, room and pauses.

use std::time::Duration;

use kwal_client::{Limits, PartitionClient};
use kwal_protocol::{api::ApiKey, record::Compression};
use kwal_testkit::{EmbeddedCluster, Fault};

use crate::{
    bench::{Appender, Bench},
    support::settle,
};

const PAUSE: Duration = Duration::from_secs(5);

async fn limited(bench: &Bench, limits: Limits) -> PartitionClient {
    bench.builder().limits(limits).build().await.unwrap().partition_client("wal", 0).await.unwrap()
}

/// More are given up than there is room for.
pub(crate) async fn many_dropped() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    for value in 0..100 {
        drop(wal.begin(&[&value.to_string()]).await);
        settle().await;
    }
    bench.expect(wal.append(&["the last"]).await.is_some(), "appends that were given up keep their room");
    bench
}

/// Some appends are under way; those that have to wait for room are given up.
async fn withdrawn(bench: &Bench, wal: &Appender, under_way: usize, bytes: usize) {
    bench.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(PAUSE));
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

pub(crate) async fn budget_used_up() -> Bench {
    let bench = Bench::one();
    let partition = limited(&bench, Limits { appends: 64 << 10, ..Limits::default() }).await;
    let wal = bench.appends(partition, Duration::from_secs(60));
    withdrawn(&bench, &wal, 3, 20 << 10).await;
    bench
}

pub(crate) async fn queue_full() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    withdrawn(&bench, &wal, 64, 10).await;
    bench
}

pub(crate) async fn many_partition_clients() -> Bench {
    let bench = Bench::one();
    let client = bench.builder().limits(Limits { lanes: 2, ..Limits::default() }).build().await.unwrap();
    let mut open = Vec::new();
    for number in 0..20 {
        let wal = bench.open_at(&client, number % 2).await;
        wal.append(&[&number.to_string()]).await;
        wal.partition.fetch(0).await.unwrap();
        open.push(wal);
    }
    bench.expect(bench.cluster.connections().open <= 5, "there are more connections than may be");
    bench
}

pub(crate) async fn unpacks_to_much() -> Bench {
    let bench = Bench::one();
    let client = bench.client().await;
    let partition = client.partition_client("wal", 0).compression(Compression::Lz4).await.unwrap();
    let wal = bench.appends(partition, Duration::from_secs(60));
    wal.append(&[&"x".repeat(1 << 20)]).await;
    let reader = limited(&bench, Limits { decompressed: 1 << 19, ..Limits::default() }).await;
    let fetched = reader.fetch(0).await.unwrap();
    bench.expect(fetched.to_records().is_err(), "a batch unpacks to more than the limit");
    bench
}

pub(crate) async fn large_response() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    wal.append(&[&"x".repeat(100_000)]).await;
    let reader = limited(&bench, Limits { frame: 50_000, ..Limits::default() }).await;
    bench.expect(reader.fetch(0).await.is_err(), "a response is larger than the limit");
    bench
}

/// For longer than a request may take: a client that knows of it does not count that time.
pub(crate) async fn throttled_for_long() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::Throttle(5 * PAUSE));
    wal.append(&["a"]).await;
    let attempts = wal.append(&["b"]).await.map(|produced| produced.attempts);
    bench.expect(attempts == Some(1), "an append was sent into a pause, and sent again");
    bench
}

pub(crate) async fn reader_over_its_quota() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    for value in ["a", "b", "c", "d"] {
        wal.append(&[&value.repeat(50_000)]).await;
    }
    bench.cluster.limit_fetch(None, Some(10_000));
    for offset in 0..4 {
        let fetched = wal.partition.fetch(offset).max_bytes(60_000).await;
        let next = fetched.map_or(offset, |fetched| fetched.next_offset);
        bench.expect(next == offset + 1, "a reader over its quota gets nothing");
    }
    bench
}

/// The first of several attempts.
pub(crate) async fn one_without_an_answer() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::BlackHole);
    let attempts = wal.append(&["a"]).await.map(|produced| produced.attempts);
    bench.expect(attempts == Some(2), "a request without an answer took all the time there was");
    bench
}

pub(crate) async fn lookup() -> Bench {
    let bench = Bench::start(EmbeddedCluster::builder().auto_create_topics(true));
    let _ = bench.client().await.partition_client("typo", 0).await;
    bench.expect(bench.cluster.topics() == ["wal"], "a topic was made by looking it up");
    bench
}
