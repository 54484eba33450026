//! Durations that are as long as possible: no call panics, and each does its work.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::{io, time::Duration};

use kwal_client::{
    Client, ClientBuilder, Deadlines, OffsetAt, RetryPolicy,
    error::ErrorKind,
    record::Record,
    sasl::{Sasl, Token},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, messages::SaslAuthenticateRequest};
use kwal_testkit::{EmbeddedCluster, Fault, FaultTarget, wire::Wire};
use tokio::time::{Instant, sleep};

const MAX: Duration = Duration::MAX;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A client whose settings are all as long as possible.
fn builder(cluster: &EmbeddedCluster) -> ClientBuilder {
    let deadlines = Deadlines::default().operation(MAX).request(MAX).connect(MAX).unknown_topic(MAX);
    ClientBuilder::new(cluster.bootstrap())
        .connector(cluster.connector())
        .seed(7)
        .deadlines(deadlines)
        .retry(RetryPolicy::default().initial(MAX).max(MAX))
}

fn record(value: &str) -> Vec<Record> {
    vec![Record::new(None::<&str>, value)]
}

/// One call of each kind of the controller client.
async fn administer(client: &Client) {
    let controller = client.controller_client().await.unwrap();
    let created = controller.create_topic("other", 1, 1).timeout(MAX).deadline(MAX).await.unwrap();
    assert_eq!(created.partitions, 1);
    controller.create_partitions("other", 2).timeout(MAX).deadline(MAX).await.unwrap();
    assert_eq!(controller.ensure_topic("other", 2, 1).deadline(MAX).await.unwrap().differences, []);
    controller.alter_topic_configs("other").set("retention.ms", "-1").deadline(MAX).await.unwrap();
    let configs =
        controller.describe_topic_configs("other").only(["retention.ms"]).deadline(MAX).await.unwrap();
    assert_eq!(configs["retention.ms"].value.as_deref(), Some("-1"));
    assert_eq!(controller.describe_cluster().deadline(MAX).await.unwrap().brokers.len(), 1);
    controller.audit("other").deadline(MAX).await.unwrap();
    controller.delete_topic("other").deadline(MAX).await.unwrap();
    assert_eq!(client.list_topics().deadline(MAX).await.unwrap().len(), 1);
}

/// One call of each kind of the partition client.
async fn append_and_read(client: &Client) {
    let partition = client.partition_client("wal", 0).deadline(MAX).await.unwrap();
    assert_eq!(partition.produce(record("a")).deadline(MAX).await.unwrap().base_offset, Some(0));
    assert_eq!(partition.fetch(0).max_wait(MAX).deadline(MAX).await.unwrap().next_offset, 1);
    assert_eq!(partition.fetch_records(0, 1..1000, i32::MAX).await.unwrap().1, 1);
    assert_eq!(partition.get_offset(OffsetAt::Latest).deadline(MAX).await.unwrap(), 1);
    let end = partition.offset_for_leader_epoch(0).deadline(MAX).await.unwrap().unwrap();
    assert_eq!(end.end_offset, 1);
    let error = partition.fetch(9).max_wait(MAX).deadline(MAX).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BeyondEnd { offset: 9, end: 1, .. }), "{error:?}");
    assert_eq!(partition.delete_records(1).deadline(MAX).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_call_works_with_the_longest_durations() {
    let cluster = EmbeddedCluster::builder().topic("wal", 1).start_in_memory().unwrap();
    let client = builder(&cluster).build().await.unwrap();
    let begun = Instant::now();
    administer(&client).await;
    append_and_read(&client).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// The broker may wait for the sum of all that wait on a connection.
#[tokio::test(start_paused = true)]
async fn many_fetches_wait_on_one_connection() {
    let cluster = EmbeddedCluster::builder().topic("wal", 1).start_in_memory().unwrap();
    let client = builder(&cluster).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let fetches: Vec<_> = (0..4)
        .map(|_| {
            let partition = partition.clone();
            tokio::spawn(async move { partition.fetch(0).max_wait(MAX).deadline(MAX).await })
        })
        .collect();
    sleep(Duration::from_millis(1)).await;
    assert!(fetches.iter().all(|fetch| !fetch.is_finished()));
    partition.produce(record("a")).await.unwrap();
    for fetch in fetches {
        assert_eq!(fetch.await.unwrap().unwrap().next_offset, 1);
    }
}

/// The lifetimes of a token and of a session are computed from these durations as well.
#[tokio::test(start_paused = true)]
async fn sessions_are_planned_with_the_longest_durations() {
    let session = Duration::from_secs(60);
    let accept = kwal_testkit::Sasl::new().oauthbearer(|_| Some(MAX)).max_session(session);
    let cluster = EmbeddedCluster::builder().topic("wal", 1).sasl(accept).start_in_memory().unwrap();
    let sasl = Sasl::oauth_bearer(async || Ok::<_, io::Error>(Token::new("token").expires_in(MAX)));
    let client = builder(&cluster).sasl(sasl.danger_send_unencrypted()).build().await.unwrap();
    administer(&client).await;
    append_and_read(&client).await;
    let before = cluster.requests(ApiKey::SASL_AUTHENTICATE);
    sleep(session).await;
    assert!(cluster.requests(ApiKey::SASL_AUTHENTICATE) > before, "the sessions were renewed");
    assert_eq!(client.list_topics().await.unwrap().len(), 1);
}

/// Lengths around those that overflow something: milliseconds of the protocol, of timers, points in time.
fn long() -> [Duration; 8] {
    let (second, millisecond) = (Duration::from_secs(1), Duration::from_millis(1));
    [
        Duration::from_millis(i32::MAX as u64),
        Duration::from_millis(i32::MAX as u64) + millisecond,
        Duration::from_millis(u64::MAX >> 26) + second,
        30 * YEAR + second,
        Duration::from_secs(i64::MAX as u64),
        Duration::from_millis(u64::MAX),
        Duration::from_secs(u64::MAX),
        MAX,
    ]
}

/// Over sockets, and with tokio's clock as it runs: each setting alone, and all together.
#[tokio::test]
async fn each_setting_may_be_long_on_real_connections() {
    let cluster = EmbeddedCluster::builder().topic("wal", 1).start().await.unwrap();
    for (index, long) in long().into_iter().enumerate() {
        let deadlines = Deadlines::default();
        let tcp = kwal_transport::Tcp::default()
            .address_timeout(long)
            .keepalive(kwal_transport::Keepalive { idle: long, interval: long });
        let settings = [
            (deadlines.operation(long), RetryPolicy::default()),
            (deadlines.request(long), RetryPolicy::default()),
            (deadlines.connect(long), RetryPolicy::default()),
            (deadlines.unknown_topic(long), RetryPolicy::default()),
            (deadlines, RetryPolicy::default().initial(long)),
            (deadlines, RetryPolicy::default().max(long)),
            (
                deadlines.operation(long).request(long).connect(long).unknown_topic(long),
                RetryPolicy::default().initial(long).max(long),
            ),
        ];
        for (deadlines, retry) in settings {
            let builder = ClientBuilder::new(cluster.bootstrap()).connector(tcp.clone());
            let client = builder.deadlines(deadlines).retry(retry).build().await.unwrap();
            let controller = client.controller_client().await.unwrap();
            controller.create_topic("other", 1, 1).timeout(long).deadline(long).await.unwrap();
            controller.delete_topic("other").deadline(long).await.unwrap();
            let partition = client.partition_client("wal", 0).deadline(long).await.unwrap();
            let offset = partition.produce(record("a")).deadline(long).await.unwrap().base_offset.unwrap();
            let fetched = partition.fetch(offset).max_wait(long).deadline(long).await.unwrap();
            assert_eq!(fetched.next_offset, offset + 1, "{index}");
            let wait = i32::try_from(long.as_millis()).unwrap_or(i32::MAX);
            assert_eq!(partition.fetch_records(offset, 1..1_000, wait).await.unwrap().0.len(), 1);
        }
    }
}

/// What a broker says of a session is a duration as well.
#[tokio::test(start_paused = true)]
async fn a_session_may_last_for_ever() {
    for lifetime in [i64::MAX, i64::MAX - 1, 1 << 53, i32::MAX.into()] {
        let accept = kwal_testkit::Sasl::new().user("alice", "secret").max_session(Duration::from_secs(60));
        let cluster = EmbeddedCluster::builder().topic("wal", 1).sasl(accept).start_in_memory().unwrap();
        let wire = Wire::new(cluster.connector());
        wire.rewrite::<SaslAuthenticateRequest>(move |response| response.session_lifetime_ms = lifetime);
        let sasl = Sasl::plain("alice", "secret").danger_send_unencrypted();
        let client = builder(&cluster).connector(wire).sasl(sasl).build().await.unwrap();
        append_and_read(&client).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_between_attempts_may_take_years() {
    let cluster = EmbeddedCluster::builder().topic("wal", 1).start_in_memory().unwrap();
    let client = builder(&cluster).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    for code in [ErrorCode::LEADER_NOT_AVAILABLE, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION] {
        cluster.on(ApiKey::LIST_OFFSETS, Fault::Error(code));
        let begun = Instant::now();
        assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), 0);
        let took = begun.elapsed();
        assert!(15 * YEAR <= took && took <= 30 * YEAR, "{code}: {took:?}");
    }
}

/// A failure to connect is remembered for less than the shortest pause, which `max` may shorten.
#[tokio::test(start_paused = true)]
async fn the_shorter_of_both_pauses_counts() {
    let cluster = EmbeddedCluster::builder().topic("wal", 1).start_in_memory().unwrap();
    let pause = Duration::from_millis(10);
    let retry = RetryPolicy::default().initial(MAX).max(pause);
    let client = builder(&cluster).deadlines(Deadlines::default()).retry(retry).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    cluster.on(FaultTarget::connections(), Fault::Drop);
    let begun = Instant::now();
    assert_eq!(partition.fetch(0).max_wait(Duration::ZERO).await.unwrap().next_offset, 0);
    assert!(begun.elapsed() <= pause, "{:?}", begun.elapsed());
    assert_eq!(cluster.faults_left(), 0);
}
