//! C4: every call ends within its deadline, whatever a broker does.

use std::{future::Future, pin::Pin, time::Duration};

use kwal_client::{
    Client, ControllerClient, Deadlines, OffsetAt, PartitionClient, RetryPolicy,
    error::{Error, ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, messages::MetadataRequest};
use kwal_testkit::Fault;
use tokio::time::sleep;

use crate::support::{
    HOUR, Wire, WireMode, assert_took, broker, builder, chain, deadlines, in_doubt, large, log, open_over,
    record, timed,
};

/// The handles of a client.
struct Calls {
    client: Client,
    controller: ControllerClient,
    partition: PartitionClient,
}

type Call = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

impl Calls {
    async fn over(wire: &Wire) -> Self {
        let client = wire.client().await;
        let controller = client.controller_client().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        Self { client, controller, partition }
    }

    /// Returns every call, and whether its outcome may be unknown.
    fn all(&self) -> Vec<(&'static str, bool, Call)> {
        macro_rules! call {
            ($name:literal, $changes:literal, |$this:ident| $future:expr) => {{
                let $this = Self {
                    client: self.client.clone(),
                    controller: self.controller.clone(),
                    partition: self.partition.clone(),
                };
                ($name, $changes, Box::pin(async move { $future.await.map(drop) }) as Call)
            }};
        }
        vec![
            call!("partition_client", false, |this| this.client.partition_client("wal", 1)),
            call!("partition_client of a topic not met before", false, |this| {
                this.client.partition_client("other", 0)
            }),
            call!("list_topics", false, |this| this.client.list_topics()),
            call!("create_topic", true, |this| this.controller.create_topic("new", 1, 1)),
            call!("delete_topic", true, |this| this.controller.delete_topic("gone")),
            call!("produce", true, |this| this.partition.produce(record("a"))),
            call!("produce much", true, |this| this.partition.produce(large(300_000))),
            call!("fetch", false, |this| this.partition.fetch(0)),
            call!("fetch_records", false, |this| this.partition.fetch_records(0, 1..1_000_000, 1_000)),
            call!("fetch with a long wait", false, |this| this.partition.fetch(0).max_wait(HOUR)),
            call!("get_offset", false, |this| this.partition.get_offset(OffsetAt::Latest)),
        ]
    }
}

/// Asserts that every call ends at its deadline after a fault. Those in `may_succeed` may also succeed or
/// fail earlier.
async fn every_call_ends(fault: impl AsyncFn(&kwal_testkit::EmbeddedCluster, &Wire), may_succeed: &[&str]) {
    let count = {
        let broker = broker();
        Calls::over(&Wire::to(&broker)).await.all().len()
    };
    for index in 0..count {
        let broker = broker();
        broker.create_topic("other", 1).unwrap();
        broker.create_topic("gone", 1).unwrap();
        let wire = Wire::to(&broker);
        let calls = Calls::over(&wire).await;
        fault(&broker, &wire).await;
        let (name, changes, call) = calls.all().swap_remove(index);
        let (result, took) = timed(call).await;
        if may_succeed.contains(&name) {
            assert!(took <= deadlines().operation, "{name} took {took:?}");
            continue;
        }
        let error = result.expect_err(name);
        assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains("broker-1:9092"), "{name}: {error}");
        assert!(error.is_retriable(), "{name}");
        assert_took(took, deadlines().operation);
        assert!(changes || error.outcome() == Outcome::NotApplied, "{name}: {error:?}");
    }
}

/// Calls that succeed with what the client already knows.
const KNOWN: [&str; 1] = ["partition_client"];

#[tokio::test(start_paused = true)]
async fn calls_end_if_a_broker_reads_and_does_not_respond() {
    every_call_ends(async |_, wire| wire.set(WireMode::Deaf), &KNOWN).await;
}

#[tokio::test(start_paused = true)]
async fn calls_end_if_a_broker_does_not_respond_on_new_connections_either() {
    let fault = async |broker: &kwal_testkit::EmbeddedCluster, wire: &Wire| {
        wire.set(WireMode::Deaf);
        broker.disconnect_all();
    };
    every_call_ends(fault, &KNOWN).await;
}

#[tokio::test(start_paused = true)]
async fn calls_end_if_a_broker_stops_reading() {
    every_call_ends(async |_, wire| wire.set(WireMode::Stalled), &KNOWN).await;
}

#[tokio::test(start_paused = true)]
async fn calls_end_if_a_broker_becomes_unreachable() {
    let fault = async |broker: &kwal_testkit::EmbeddedCluster, wire: &Wire| {
        wire.set(WireMode::Unreachable);
        broker.disconnect_all();
    };
    every_call_ends(fault, &KNOWN).await;
}

#[tokio::test(start_paused = true)]
async fn calls_end_if_a_broker_is_stopped() {
    every_call_ends(async |broker, _| broker.stop(1).unwrap(), &KNOWN).await;
}

#[tokio::test(start_paused = true)]
async fn calls_end_if_a_broker_responds_to_the_handshake_alone() {
    let fault = async |broker: &kwal_testkit::EmbeddedCluster, _: &Wire| {
        for api in ApiKey::ALL {
            if *api != ApiKey::API_VERSIONS {
                broker.on_all(*api, Fault::BlackHole);
            }
        }
    };
    every_call_ends(fault, &KNOWN).await;
}

#[tokio::test(start_paused = true)]
async fn calls_end_if_a_broker_drops_every_request() {
    let fault = async |broker: &kwal_testkit::EmbeddedCluster, _: &Wire| {
        for api in ApiKey::ALL {
            broker.on_all(*api, Fault::Drop);
        }
        broker.disconnect_all();
    };
    every_call_ends(fault, &KNOWN).await;
}

#[tokio::test(start_paused = true)]
async fn calls_end_if_a_partition_has_no_leader() {
    for old in [false, true] {
        let broker = kwal_testkit::EmbeddedCluster::builder().topic("wal", 1);
        let broker = match old {
            true => broker.dialect(kwal_testkit::Dialect::kafka_2_8()),
            false => broker,
        };
        let broker = broker.start_in_memory().unwrap();
        let wire = Wire::to(&broker);
        wire.edit::<MetadataRequest>(|response| {
            for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                partition.leader_id = -1;
                partition.error_code = ErrorCode::LEADER_NOT_AVAILABLE;
            }
        });
        let client = wire.client().await;
        let (result, took) = timed(client.partition_client("wal", 0)).await;
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
        assert_eq!(error.code(), Some(ErrorCode::LEADER_NOT_AVAILABLE));
        assert_took(took, deadlines().operation);

        // As soon as there is a leader, it continues.
        let opening = tokio::spawn(client.partition_client("wal", 0).into_future());
        sleep(Duration::from_secs(20)).await;
        wire.clear_edits();
        let (partition, took) = timed(opening).await;
        assert!(took <= Duration::from_secs(1), "{took:?}");

        // An append ends at its deadline as well when the leader disappears.
        let partition = partition.unwrap().unwrap();
        wire.edit::<MetadataRequest>(|response| {
            for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                partition.leader_id = -1;
            }
        });
        broker.on_all(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        let (result, took) = timed(partition.produce(record("a"))).await;
        assert_eq!(result.unwrap_err().code(), Some(ErrorCode::LEADER_NOT_AVAILABLE));
        assert_took(took, deadlines().operation);
        assert_eq!(wire.count(ApiKey::PRODUCE), 1, "there is no leader to send it to");
    }
}

#[tokio::test(start_paused = true)]
async fn building_fails_at_once_if_no_broker_can_be_reached() {
    let broker = broker();
    let address = broker.bootstrap().remove(0);
    let addresses = vec!["nowhere:1".to_owned(), address.clone(), "[::1]:9".to_owned()];
    broker.stop(1).unwrap();
    let build = kwal_client::ClientBuilder::new(addresses).connector(broker.connector()).build();
    let (result, took) = timed(build).await;
    let error = result.unwrap_err();
    assert_eq!(took, Duration::ZERO, "building does not wait for brokers");
    let ErrorKind::NoBroker { attempts, .. } = error.kind() else { panic!("{error:?}") };
    let tried: Vec<_> = attempts.iter().map(|(broker, _)| broker.as_str()).collect();
    assert_eq!(tried, ["nowhere:1", &address, "[::1]:9"]);
    assert!(error.is_retriable());
    for address in tried {
        assert!(error.to_string().contains(&format!("cannot connect to {address}")), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_bootstrap_broker_that_responds_is_enough() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let addresses = vec!["nowhere:1".to_owned(), broker.bootstrap().remove(0)];
    let client = kwal_client::ClientBuilder::new(addresses).connector(wire).build().await.unwrap();
    assert_eq!(client.brokers(), [(1, broker.address(1).unwrap())]);
    client.partition_client("wal", 0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn building_ends_at_the_deadline_of_connecting_and_of_the_operation() {
    let connect = deadlines().connect;
    for mode in [WireMode::Deaf, WireMode::Stalled, WireMode::Unreachable] {
        let broker = broker();
        let wire = Wire::to(&broker);
        wire.set(mode);
        let (result, took) = timed(wire.builder().build()).await;
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoBroker { .. }), "{mode:?}: {error:?}");
        assert_eq!(took, connect, "{mode:?}");

        let short = deadlines().operation(connect / 5);
        let (result, took) = timed(wire.builder().deadlines(short).build()).await;
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{mode:?}: {error:?}");
        assert_eq!(took, connect / 5, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_handshake_may_take_the_time_limit_of_connecting() {
    let broker = broker();
    let almost = deadlines().connect - Duration::from_millis(1);
    broker.on(ApiKey::API_VERSIONS, Fault::DelayReply(almost));
    let (client, took) = timed(builder(&broker).build()).await;
    client.unwrap();
    assert_eq!(took, almost);

    broker.on(ApiKey::API_VERSIONS, Fault::DelayReply(deadlines().connect + Duration::from_millis(1)));
    let (error, took) = timed(builder(&broker).build()).await;
    let error = error.unwrap_err();
    assert_eq!(took, deadlines().connect);
    assert!(chain(&error).contains("the handshake timed out after 10"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_of_a_request_starts_when_it_was_written() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    let almost = deadlines().request - Duration::from_millis(1);
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(almost));
    let (produced, took) = timed(partition.produce(record("a"))).await;
    assert_eq!((produced.unwrap().attempts, took), (1, almost));

    // The wait of a long poll is added to the time limit.
    let wait = Duration::from_secs(20);
    let (fetched, took) = timed(partition.fetch(1).max_wait(wait)).await;
    assert_eq!((fetched.unwrap().batches().len(), took), (0, wait));
    assert_eq!(wire.count(ApiKey::FETCH), 1);

    broker.on(ApiKey::PRODUCE, Fault::DelayReply(deadlines().request + Duration::from_millis(1)));
    let produced = partition.produce(record("b")).await.unwrap();
    assert_eq!(produced.attempts, 2);
    assert_eq!(log(&broker), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_accepts_no_bytes_is_replaced() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    let before = wire.connections();
    wire.set(WireMode::Stalled);
    let append = tokio::spawn(async move { partition.produce(large(300_000)).await });
    sleep(deadlines().request + Duration::from_millis(100)).await;
    assert_eq!(wire.connections(), before);
    wire.set(WireMode::Passing);
    assert_eq!(append.await.unwrap().unwrap().attempts, 2);
    assert_eq!((wire.connections(), log(&broker).len()), (before + 1, 2));
}

#[tokio::test(start_paused = true)]
async fn the_broker_stops_waiting_before_the_client() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    let wait = wire.seen(ApiKey::PRODUCE)[0].timeout_ms.unwrap();
    let limit = deadlines().request.as_millis() as i32;
    assert!((limit / 2..limit).contains(&wait), "{wait}");
}

#[tokio::test(start_paused = true)]
async fn the_deadlines_that_were_set_are_used() {
    let set = Deadlines::default()
        .operation(Duration::from_secs(7))
        .request(Duration::from_secs(2))
        .connect(Duration::from_secs(3))
        .unknown_topic(Duration::from_secs(1));
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.builder().deadlines(set).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let (result, took) = timed(client.partition_client("unknown", 0)).await;
    assert!(matches!(result.unwrap_err().kind(), ErrorKind::UnknownTopic { .. }));
    assert_eq!(took, set.unknown_topic);

    broker.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    let (result, took) = timed(partition.produce(record("a"))).await;
    let error = result.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert!(took <= set.operation && took > set.operation - Duration::from_secs(1), "{took:?}");
    let sent = wire.seen(ApiKey::PRODUCE);
    assert!(sent[1].at - sent[0].at >= set.request && sent[1].at - sent[0].at < set.request * 3 / 2);
}

#[tokio::test(start_paused = true)]
async fn opening_has_one_deadline_for_all_its_steps() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    // First there is no leader for a while, then no producer id.
    wire.edit::<MetadataRequest>(|response| {
        for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.leader_id = -1;
        }
    });
    let opening = tokio::spawn(timed(client.partition_client("wal", 0)));
    sleep(deadlines().operation - Duration::from_secs(5)).await;
    wire.clear_edits();
    broker.on_all(ApiKey::INIT_PRODUCER_ID, Fault::BlackHole);
    let (_, took) = opening.await.unwrap();
    assert!(took <= deadlines().operation, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_append_queued_after_a_slow_one_ends_at_its_own_deadline() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    broker.on_all(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let mut appends = Vec::new();
    for i in 0..100 {
        let partition = partition.clone();
        appends.push(tokio::spawn(async move { timed(partition.produce(record(i.to_string()))).await }));
        sleep(Duration::from_secs(1)).await;
    }
    for (i, append) in appends.into_iter().enumerate() {
        let (result, took) = append.await.unwrap();
        let error = result.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied);
        assert!(took <= deadlines().operation, "append {i} took {took:?}");
    }
    broker.clear_faults();
    partition.produce(record("after")).await.unwrap();
    assert_eq!(log(&broker), ["after"]);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_call_is_exact() {
    // Within the first attempt, and after several.
    for limit in [deadlines().request / 2, deadlines().request * 5 / 2] {
        macro_rules! check {
            ($($name:literal |$calls:ident| $call:expr;)*) => { $(
                let cluster = broker();
                cluster.create_topic("other", 1).unwrap();
                let wire = Wire::to(&cluster);
                let $calls = Calls::over(&wire).await;
                wire.set(WireMode::Deaf);
                let (result, took) = timed($call.deadline(limit)).await;
                let error = result.map(drop).expect_err($name);
                let ErrorKind::DeadlineExceeded { after, .. } = error.kind() else {
                    panic!("{}: {error:?}", $name)
                };
                assert_eq!((*after, took), (limit, limit), "{}", $name);
            )* };
        }
        check! {
            "partition_client" |calls| calls.client.partition_client("other", 0);
            "list_topics" |calls| calls.client.list_topics();
            "create_topic" |calls| calls.controller.create_topic("new", 1, 1);
            "delete_topic" |calls| calls.controller.delete_topic("wal");
            "ensure_topic" |calls| calls.controller.ensure_topic("new", 1, 1);
            "create_partitions" |calls| calls.controller.create_partitions("wal", 3);
            "describe_topic_configs" |calls| calls.controller.describe_topic_configs("wal");
            "alter_topic_configs" |calls| calls.controller.alter_topic_configs("wal").delete("retention.ms");
            "describe_cluster" |calls| calls.controller.describe_cluster();
            "audit" |calls| calls.controller.audit("wal");
            "produce" |calls| calls.partition.produce(record("a"));
            "resolve" |calls| calls.partition.resolve(&in_doubt(), Record::new("fence", None::<&str>));
            "fetch" |calls| calls.partition.fetch(0);
            "get_offset" |calls| calls.partition.get_offset(OffsetAt::Latest);
            "delete_records" |calls| calls.partition.delete_records(0);
            "offset_for_leader_epoch" |calls| calls.partition.offset_for_leader_epoch(0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_call_may_be_longer_than_that_of_the_client() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let short = deadlines().operation(Duration::from_secs(5));
    let client = wire.builder().deadlines(short).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(8)));
    let (produced, took) = timed(partition.produce(record("a")).deadline(Duration::from_secs(9))).await;
    assert_eq!((produced.unwrap().attempts, took), (1, Duration::from_secs(8)));
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(8)));
    let (error, took) = timed(partition.produce(record("b"))).await;
    assert_eq!((error.unwrap_err().outcome(), took), (Outcome::Unknown, Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn settings_of_zero_are_rejected_before_anything_is_sent() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let (zero, retry) = (Duration::ZERO, RetryPolicy::default());
    for (name, builder) in [
        ("RetryPolicy::initial", wire.builder().retry(retry.initial(zero))),
        ("RetryPolicy::max", wire.builder().retry(retry.max(zero))),
        ("RetryPolicy::initial", wire.builder().retry(retry.initial(zero).max(zero))),
        ("Deadlines::operation", wire.builder().deadlines(deadlines().operation(zero))),
        ("Deadlines::request", wire.builder().deadlines(deadlines().request(zero))),
        ("Deadlines::connect", wire.builder().deadlines(deadlines().connect(zero))),
    ] {
        let error = builder.build().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
        assert_eq!(error.to_string(), format!("{name} is zero"));
    }
    assert_eq!(wire.connections(), 0);
    let shortest = retry.initial(Duration::from_nanos(1)).max(Duration::from_nanos(1));
    wire.builder().retry(shortest).build().await.unwrap();
}
