//! C10: a throttle time delays the next requests of its connection, and nothing else.

use std::time::Duration;

use kwal_client::{
    Client, ControllerClient, OffsetAt, PartitionClient,
    error::{ErrorKind, Outcome},
};
use kwal_protocol::{
    api::{ApiKey, Body, Versions},
    messages::{
        CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeClusterRequest, DescribeConfigsRequest, FetchRequest, IncrementalAlterConfigsRequest,
        InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
        ProduceRequest,
    },
};
use kwal_testkit::{Dialect, EmbeddedCluster, Fault};
use tokio::time::{Instant, sleep, timeout};
use tracing::Level;

use crate::{
    c1_c7_versions::SUPPORTED,
    recording::Recording,
    support::{
        Wire, broker, deadlines, large, log, open, open_over, open_two_that_share, record, settle, timed,
    },
};

const PAUSE: Duration = Duration::from_secs(25);

#[tokio::test(start_paused = true)]
async fn a_throttled_response_is_used_and_delays_the_next_request() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    broker.on(ApiKey::PRODUCE, Fault::Throttle(PAUSE));
    let begun = Instant::now();
    let (produced, took) = timed(partition.produce(record("a"))).await;
    assert_eq!((produced.unwrap().attempts, took), (1, Duration::ZERO), "the response is used at once");
    let (produced, took) = timed(partition.produce(record("b"))).await;
    assert_eq!((produced.unwrap().attempts, took), (1, PAUSE));
    assert_eq!(log(&broker), ["a", "b"]);
    let left: Vec<_> = wire.seen(ApiKey::PRODUCE).iter().map(|seen| seen.at - begun).collect();
    assert_eq!(left, [Duration::ZERO, PAUSE], "nothing is sent twice, and nothing too early");
}

#[tokio::test(start_paused = true)]
async fn a_throttle_delays_reads_too() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    for api in [ApiKey::FETCH, ApiKey::LIST_OFFSETS] {
        broker.on(api, Fault::Throttle(PAUSE));
        let begun = Instant::now();
        for took in [Duration::ZERO, PAUSE] {
            match api {
                ApiKey::FETCH => assert_eq!(partition.fetch(0).await.unwrap().next_offset, 1),
                _ => assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), 1),
            }
            assert_eq!(begun.elapsed(), took);
        }
        let left: Vec<_> = wire.seen(api).iter().map(|seen| seen.at - begun).collect();
        assert_eq!(left, [Duration::ZERO, PAUSE]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_over_its_quota_continues_after_the_pause() {
    let broker = broker();
    let partition = open(&broker).await;
    for _ in 0..20 {
        partition.produce(large(50_000)).await.unwrap();
    }
    broker.limit_fetch(None, Some(50_000));
    let (begun, mut next) = (Instant::now(), 0);
    while next < 20 {
        let fetched = partition.fetch(next).max_bytes(60_000).await.unwrap();
        assert_eq!(fetched.next_offset, next + 1, "a fetch is never empty");
        next = fetched.next_offset;
    }
    // 1 MB, of which half is read at once.
    assert!(begun.elapsed() > Duration::from_secs(5), "not throttled at all: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_throttle_does_not_delay_other_connections() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let one = client.partition_client("wal", 0).await.unwrap();
    let other = client.partition_client("wal", 1).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::Throttle(PAUSE));
    let begun = Instant::now();
    one.produce(record("a")).await.unwrap();
    other.produce(record("b")).await.unwrap();
    one.fetch(0).await.unwrap();
    one.get_offset(OffsetAt::Latest).await.unwrap();
    client.list_topics().await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_time_limits_of_requests_in_flight_are_paused() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let (one, other) = open_two_that_share(&wire).await;
    assert!(PAUSE > deadlines().request);
    // Both are in flight when the broker answers the first and mutes the connection for longer than the time
    // limit of a request.
    broker.on(ApiKey::PRODUCE, Fault::Throttle(PAUSE));
    let begun = Instant::now();
    let (a, b) = tokio::join!(one.produce(record("a")), other.produce(record("b")));
    assert_eq!((a.unwrap().attempts, b.unwrap().attempts), (1, 1));
    assert_eq!(begun.elapsed(), PAUSE);
    assert_eq!(broker.requests(ApiKey::PRODUCE), 2, "nothing was retried");
    let seen = wire.seen(ApiKey::PRODUCE);
    assert_eq!(seen[0].connection, seen[1].connection);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_producer_appends_everything_once() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    broker.on_all(ApiKey::PRODUCE, Fault::Throttle(Duration::from_millis(700)));
    let mut appends = Vec::new();
    for i in 0..60 {
        let partition = partition.clone();
        appends.push(tokio::spawn(async move { partition.produce(record(i.to_string())).await }));
        settle().await;
    }
    for append in appends {
        append.await.unwrap().unwrap();
    }
    assert_eq!(log(&broker), (0..60).map(|i| i.to_string()).collect::<Vec<_>>());
    assert_eq!(wire.count(ApiKey::PRODUCE), 60);
    assert_eq!(broker.requests(ApiKey::PRODUCE), 60);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_before_the_throttle_does_is_not_sent_and_fails_at_once() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let pause = deadlines().operation * 3 / 2;
    let client = wire.builder().deadlines(deadlines().throttle(pause)).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::Throttle(pause));
    partition.produce(record("a")).await.unwrap();
    broker.on(ApiKey::FETCH, Fault::Throttle(pause));
    partition.fetch(0).await.unwrap();
    broker.on(ApiKey::LIST_OFFSETS, Fault::Throttle(pause));
    partition.get_offset(OffsetAt::Latest).await.unwrap();
    sleep(pause / 9).await;
    let ((append, fetch, offset), took) = timed(async {
        let append = partition.produce(record("b")).await;
        let fetch = partition.fetch(0).await;
        (append.unwrap_err(), fetch.unwrap_err(), partition.get_offset(OffsetAt::Latest).await.unwrap_err())
    })
    .await;
    for error in [append, fetch, offset] {
        let ErrorKind::Throttled { remaining, .. } = error.kind() else { panic!("{error:?}") };
        assert_eq!(*remaining, pause * 8 / 9, "{error:?}");
        assert_eq!((error.outcome(), error.is_retriable()), (Outcome::NotApplied, true));
    }
    assert_eq!(took, Duration::ZERO);
    let counts = [ApiKey::PRODUCE, ApiKey::FETCH, ApiKey::LIST_OFFSETS].map(|api| wire.count(api));
    assert_eq!(counts, [1, 1, 1]);
    let (produced, took) = timed(partition.produce(record("c")).deadline(pause)).await;
    assert_eq!((produced.unwrap().attempts, took), (1, pause * 8 / 9));
    assert_eq!(log(&broker), ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_when_a_throttle_begins_end_too_if_they_cannot_outlast_it() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let (one, other) = open_two_that_share(&wire).await;
    broker.on(ApiKey::PRODUCE, Fault::Throttle(Duration::from_secs(10)));
    one.produce(record("a")).await.unwrap();
    // They wait on the connection when a later response, of a fetch that was in flight, prolongs the pause.
    let fetch = tokio::spawn({
        let one = one.clone();
        async move { one.fetch(1).max_wait(Duration::from_secs(2)).await }
    });
    let appends = async {
        tokio::join!(
            timed(one.produce(record("b")).deadline(Duration::from_secs(15))),
            timed(other.produce(record("c")).deadline(Duration::from_secs(5))),
        )
    };
    let ((patient, took), (impatient, at_once)) = appends.await;
    assert_eq!((patient.unwrap().attempts, took), (1, Duration::from_secs(10)));
    let error = impatient.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Throttled { .. }), "{error:?}");
    assert_eq!((error.outcome(), at_once), (Outcome::NotApplied, Duration::ZERO));
    fetch.await.unwrap().unwrap();
    assert_eq!(log(&broker), ["a", "b"]);
}

/// The protocol can express 24 days.
#[tokio::test(start_paused = true)]
async fn a_throttle_is_cut_to_the_limit_of_the_client() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let recording = Recording::at(Level::WARN);
    for (limit, deadlines) in [
        (Duration::from_secs(60), deadlines()),
        (Duration::from_secs(5), deadlines().throttle(Duration::from_secs(5))),
    ] {
        let client = wire.builder().deadlines(deadlines).build().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        wire.edit::<ProduceRequest>(|response| response.throttle_time_ms = i32::MAX);
        wire.edit::<FetchRequest>(|response| response.throttle_time_ms = i32::MAX);
        partition.produce(record("a")).await.unwrap();
        partition.fetch(0).await.unwrap();
        wire.clear_edits();
        let (produced, took) = timed(partition.produce(record("b")).deadline(limit * 2)).await;
        assert_eq!((produced.unwrap().attempts, took), (1, limit));
        partition.fetch(0).await.unwrap();
        let lines = recording.take_with("Deadlines::throttle");
        assert_eq!(lines.len(), 1, "once, however many responses say so");
    }
}

/// A broker means the client with a throttle, not the connection.
#[tokio::test(start_paused = true)]
async fn a_throttle_outlives_its_connection() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    broker.on(ApiKey::PRODUCE, Fault::Throttle(PAUSE));
    let begun = Instant::now();
    partition.produce(record("a")).await.unwrap();
    sleep(PAUSE / 5).await;
    broker.disconnect_all();
    settle().await;
    partition.produce(record("b")).await.unwrap();
    assert_eq!(begun.elapsed(), PAUSE);
    let seen = wire.seen(ApiKey::PRODUCE);
    assert_ne!(seen[0].connection, seen[1].connection);
}

/// A client of a broker that has one version of one API.
struct Setup {
    broker: EmbeddedCluster,
    wire: Wire,
    client: Client,
    controller: ControllerClient,
    partition: PartitionClient,
    /// Has not appended yet.
    other: PartitionClient,
}

impl Setup {
    async fn of_version(api: ApiKey, version: i16) -> Self {
        let dialect = Dialect::kafka_4_3().cap(api, Versions::new(version, version));
        let broker = EmbeddedCluster::builder().dialect(dialect).topic("wal", 2).topic("gone", 1);
        let broker = broker.start_in_memory().unwrap();
        let wire = Wire::to(&broker);
        let client = wire.client().await;
        let controller = client.controller_client().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        partition.fetch(0).await.unwrap();
        let other = client.partition_client("wal", 1).await.unwrap();
        Self { broker, wire, client, controller, partition, other }
    }

    /// Makes the next request on the connection that requests of an API use. Returns when it was sent.
    async fn next_request(&self, api: ApiKey) -> Instant {
        let next = match api {
            ApiKey::PRODUCE => {
                self.partition.produce(record("b")).await.unwrap();
                api
            }
            ApiKey::FETCH => {
                self.partition.fetch(0).await.unwrap();
                api
            }
            _ => {
                self.partition.get_offset(OffsetAt::Latest).await.unwrap();
                ApiKey::LIST_OFFSETS
            }
        };
        self.wire.seen(next).last().unwrap().at
    }
}

/// The field has different places in the responses, so each version of each API is tried.
#[tokio::test(start_paused = true)]
async fn a_throttle_is_obeyed_also_when_the_caller_was_dropped_before_the_response_arrived() {
    const RESPONDS_AFTER: Duration = Duration::from_secs(1);
    macro_rules! check {
        ($($request:ident |$setup:ident| $call:expr;)*) => { $(
            let api = $request::KEY;
            let (_, oldest, newest) = *SUPPORTED.iter().find(|(known, ..)| *known == api).unwrap();
            for version in oldest..=newest {
                let $setup = Setup::of_version(api, version).await;
                $setup.broker.on(api, Fault::DelayReply(RESPONDS_AFTER));
                $setup.wire.edit::<$request>(|response| {
                    response.throttle_time_ms = PAUSE.as_millis().try_into().unwrap();
                });
                let (begun, sent_before) = (Instant::now(), $setup.wire.count(api));
                let dropped = timeout(RESPONDS_AFTER / 2, $call.into_future()).await;
                assert!(dropped.is_err(), "{api} {version}");
                sleep(RESPONDS_AFTER).await;
                assert_eq!($setup.wire.count(api), sent_before + 1, "{api} {version}");
                $setup.wire.clear_edits();
                // The first version of ListOffsets has no throttle time.
                let has_throttle_time = (api, version) != (ApiKey::LIST_OFFSETS, 1);
                let due = match has_throttle_time {
                    true => RESPONDS_AFTER + PAUSE,
                    false => begun.elapsed(),
                };
                assert_eq!($setup.next_request(api).await - begun, due, "{api} {version}");
            }
        )* };
    }
    check! {
        ProduceRequest |setup| setup.partition.produce(record("b"));
        FetchRequest |setup| setup.partition.fetch(0);
        ListOffsetsRequest |setup| setup.partition.get_offset(OffsetAt::Earliest);
        MetadataRequest |setup| setup.client.list_topics();
        CreateTopicsRequest |setup| setup.controller.create_topic("new", 1, 1);
        DeleteTopicsRequest |setup| setup.controller.delete_topic("gone");
        DeleteRecordsRequest |setup| setup.partition.delete_records(1);
        InitProducerIdRequest |setup| setup.other.produce(record("b"));
        OffsetForLeaderEpochRequest |setup| setup.partition.offset_for_leader_epoch(0);
        DescribeConfigsRequest |setup| setup.controller.describe_topic_configs("wal");
        CreatePartitionsRequest |setup| setup.controller.create_partitions("wal", 3);
        IncrementalAlterConfigsRequest |setup| setup.controller.alter_topic_configs("wal").set("retention.ms", "-1");
        DescribeClusterRequest |setup| setup.controller.describe_cluster();
    }
}
