//! Setting topics up and looking after them: topics, partitions, settings, records to be deleted, leader epochs, the cluster.

use std::time::Duration;

use kwal_client::{
    ClientBuilder, ConfigSource, ControllerClient, Deadlines, DeleteBefore, EpochEndOffset, TopicDifference,
    error::{ErrorKind, Outcome},
};
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{DescribeConfigsRequest, MetadataRequest, OffsetForLeaderEpochRequest},
};
use kwal_testkit::{Dialect, EmbeddedCluster, Fault};

use crate::support::{
    Wire, WireMode, assert_took, broker, builder, chain, deadlines, open, open_over, polled, record, settle,
    timed,
};

async fn controller(broker: &EmbeddedCluster) -> ControllerClient {
    builder(broker).build().await.unwrap().controller_client().await.unwrap()
}

async fn controller_over(wire: &Wire) -> ControllerClient {
    wire.client().await.controller_client().await.unwrap()
}

fn partitions(broker: &EmbeddedCluster, topic: &str) -> usize {
    (0..).take_while(|partition| broker.start_offset(topic, *partition).is_ok()).count()
}

/// The value of a setting of `wal`, and where it comes from.
async fn config(controller: &ControllerClient, name: &str) -> (String, ConfigSource) {
    let configs = controller.describe_topic_configs("wal").only([name]).await.unwrap();
    (configs[name].value.clone().unwrap(), configs[name].source)
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_before_anything_is_sent() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let controller = controller_over(&wire).await;
    let partition = wire.client().await.partition_client("wal", 0).await.unwrap();
    let before = wire.connections();
    let create = |partitions, replicas| controller.create_topic("new", partitions, replicas);
    let assign = |assignment: &[&[i32]]| {
        let brokers: Vec<_> = assignment.iter().map(|brokers| brokers.to_vec()).collect();
        create(-1, -1).assignment(brokers)
    };
    let grow = |total| controller.create_partitions("wal", total);
    let alter = || controller.alter_topic_configs("wal");
    let errors = [
        create(0, 1).await.unwrap_err(),
        create(-2, 1).await.unwrap_err(),
        create(1, 0).await.unwrap_err(),
        create(1, -2).await.unwrap_err(),
        assign(&[]).await.unwrap_err(),
        assign(&[&[]]).await.unwrap_err(),
        assign(&[&[1, 1]]).await.unwrap_err(),
        assign(&[&[1], &[1, 2]]).await.unwrap_err(),
        assign(&[&[-1]]).await.unwrap_err(),
        create(2, 1).assignment(vec![vec![1]]).await.unwrap_err(),
        create(1, 2).assignment(vec![vec![1]]).await.unwrap_err(),
        create(1, 1).config("a", "1").config("a", "1").await.unwrap_err(),
        create(1, 1).config("", "1").await.unwrap_err(),
        controller.ensure_topic("a b", 1, 1).await.unwrap_err(),
        controller.ensure_topic("new", 0, 1).await.unwrap_err(),
        controller.ensure_topic("new", 1, 1).config("a", "1").config("a", "2").await.unwrap_err(),
        controller.create_partitions("", 3).await.unwrap_err(),
        grow(0).await.unwrap_err(),
        grow(-1).await.unwrap_err(),
        grow(3).assignment(vec![]).await.unwrap_err(),
        grow(4).assignment(vec![vec![1], vec![1, 2]]).await.unwrap_err(),
        controller.describe_topic_configs("..").await.unwrap_err(),
        controller.describe_topic_configs("wal").only([""; 0]).await.unwrap_err(),
        controller.alter_topic_configs("..").set("a", "1").await.unwrap_err(),
        alter().await.unwrap_err(),
        alter().set("a", "1").delete("a").await.unwrap_err(),
        controller.audit("").await.unwrap_err(),
        partition.delete_records(-1).await.unwrap_err(),
        partition.offset_for_leader_epoch(-1).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
    }
    assert_eq!(wire.connections(), before);
    for api in Dialect::default().apis().filter(|api| api.changes_something()) {
        assert_eq!(broker.requests(api), 0, "{api}");
    }
    assert_eq!(broker.topics(), ["wal"]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_created_as_assigned_or_only_checked() {
    let broker = broker();
    let controller = controller(&broker).await;
    let assigned = || controller.create_topic("a", 2, 1).assignment(vec![vec![1], vec![1]]);
    let checked = assigned().validate_only(true).await.unwrap();
    assert_eq!((checked.id, checked.partitions, checked.replication_factor), (None, 2, 1));
    assert_eq!(broker.topics(), ["wal"]);
    let created = assigned().timeout(Duration::from_secs(20)).await.unwrap();
    assert_eq!((created.id, created.partitions, created.replication_factor), (broker.topic_id("a"), 2, 1));
    let error = controller.create_topic("b", -1, -1).assignment(vec![vec![7]]).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::INVALID_REPLICA_ASSIGNMENT));
    assert!(error.to_string().contains("broker 7, but no such broker"), "{error}");
    let defaults = controller.create_topic("b", -1, -1).await.unwrap();
    assert_eq!((defaults.partitions, defaults.replication_factor), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_longer_wait_of_the_broker_is_waited_for() {
    let broker = broker();
    let controller = controller(&broker).await;
    let wait = deadlines().request * 3;
    let create = |name: &str| controller.create_topic(name, 1, 1);
    broker.on(ApiKey::CREATE_TOPICS, Fault::DelayReply(wait));
    let (created, took) = timed(create("a").timeout(wait)).await;
    assert_eq!((created.unwrap().partitions, took), (1, wait));
    assert_eq!(broker.requests(ApiKey::CREATE_TOPICS), 1);
    broker.on(ApiKey::CREATE_TOPICS, Fault::DelayReply(wait));
    let error = create("b").await.unwrap_err();
    assert_eq!(
        error.code(),
        Some(ErrorCode::TOPIC_ALREADY_EXISTS),
        "given up after a request's time, and repeated"
    );
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_ensured_once_and_compared_after_that() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let controller = controller_over(&wire).await;
    let ensure = || {
        let ensure = controller.ensure_topic("new", 3, 1).config("retention.ms", "-1");
        ensure.config("cleanup.policy", "compact, delete")
    };
    let ensured = ensure().await.unwrap();
    assert!(ensured.created && ensured.differences.is_empty(), "{ensured:?}");
    let like = (ensured.id, ensured.partitions, ensured.replication_factor);
    assert_eq!(like, (broker.topic_id("new"), 3, 1));
    let again = ensure().await.unwrap();
    assert_eq!((again.created, again.differences, again.id), (false, vec![], ensured.id));
    assert_eq!(wire.count(ApiKey::CREATE_TOPICS), 1, "who may only look can ensure too");

    let other = controller.ensure_topic("new", 2, 3).config("retention.ms", "5").config("nope", "1");
    let other =
        other.config("max.message.bytes", "1048588").config("min.insync.replicas", "2").await.unwrap();
    let differ = |name: &str, requested: &str, found: Option<(&str, ConfigSource)>| TopicDifference::Config {
        name: name.to_owned(),
        requested: requested.to_owned(),
        found: found.map(|(value, source)| (Some(value.to_owned()), source)),
    };
    let expected = [
        TopicDifference::Partitions { requested: 2, found: 3 },
        TopicDifference::ReplicationFactor { requested: 3, found: 1 },
        differ("retention.ms", "5", Some(("-1", ConfigSource::Topic))),
        differ("nope", "1", None),
        differ("min.insync.replicas", "2", Some(("1", ConfigSource::Default))),
    ];
    assert_eq!(other.differences, expected);
    let texts: Vec<_> = other.differences.iter().map(ToString::to_string).collect();
    let says = [
        "3 partitions instead of 2",
        "1 replicas instead of 3",
        "retention.ms is -1 (set for the topic) instead of 5",
        "nope is unknown to the broker and should be 1",
        "min.insync.replicas is 1 (the default) instead of 2",
    ];
    assert_eq!(texts, says);
    assert!(controller.ensure_topic("new", -1, -1).await.unwrap().differences.is_empty(), "whatever it has");
    assert_eq!(partitions(&broker, "new"), 3, "left as it is");
}

#[tokio::test(start_paused = true)]
async fn of_two_who_ensure_at_once_one_creates_and_both_have_it() {
    let broker = broker();
    let (one, other) = (controller(&broker).await, controller(&broker).await);
    // Both have looked and found nothing before either creates.
    broker.on_times(ApiKey::CREATE_TOPICS, 2, Fault::DelayRequest(Duration::from_millis(100)));
    let other = other.ensure_topic("new", 3, 1);
    let (one, other) = tokio::join!(one.ensure_topic("new", 2, 1).into_future(), other.into_future());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(broker.requests(ApiKey::CREATE_TOPICS), 2);
    assert_ne!(one.created, other.created);
    assert_eq!(one.id, other.id);
    let found = if one.created { &other } else { &one };
    assert_eq!(found.differences.len(), 1, "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_whose_creation_was_answered_into_the_void_is_found() {
    let broker = broker();
    let controller = controller(&broker).await;
    broker.on(ApiKey::CREATE_TOPICS, Fault::LoseReply);
    let ensured = controller.ensure_topic("new", 2, 1).config("retention.ms", "-1").await.unwrap();
    assert_eq!((ensured.created, ensured.differences.len(), ensured.partitions), (false, 0, 2));
    // A broker that is behind still tells of it when it is gone.
    broker.on(ApiKey::METADATA, Fault::Pass);
    broker.on_all(ApiKey::DESCRIBE_CONFIGS, Fault::Error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    let error = controller.ensure_topic("new", 2, 1).config("retention.ms", "-1").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnknownTopic { .. }), "{error:?}");
    broker.clear_faults();
}

#[tokio::test(start_paused = true)]
async fn partitions_are_added_and_can_be_used() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let controller = client.controller_client().await.unwrap();
    client.partition_client("wal", 0).await.unwrap();
    controller.create_partitions("wal", 5).validate_only(true).await.unwrap();
    assert_eq!(partitions(&broker, "wal"), 2);
    controller.create_partitions("wal", 3).await.unwrap();
    client.partition_client("wal", 2).await.unwrap().produce(record("a")).await.unwrap();
    controller.create_partitions("wal", 5).assignment(vec![vec![1], vec![1]]).await.unwrap();
    assert_eq!(partitions(&broker, "wal"), 5);
    for (topic, total, code) in [
        ("wal", 5, ErrorCode::INVALID_PARTITIONS),
        ("wal", 4, ErrorCode::INVALID_PARTITIONS),
        ("nobody", 4, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
    ] {
        let (result, took) = timed(controller.create_partitions(topic, total)).await;
        let error = result.unwrap_err();
        assert_eq!((error.code(), error.outcome()), (Some(code), Outcome::NotApplied), "{error}");
        assert_eq!(took, Duration::ZERO, "the controller knows");
        assert!(!error.is_retriable());
    }
}

#[tokio::test(start_paused = true)]
async fn partitions_whose_creation_was_answered_into_the_void_count_as_created() {
    let broker = broker();
    let controller = controller(&broker).await;
    for fault in [Fault::LoseReply, Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT)] {
        let total = partitions(&broker, "wal") as i32 + 1;
        broker.on(ApiKey::CREATE_PARTITIONS, fault);
        controller.create_partitions("wal", total).await.unwrap();
        assert_eq!(partitions(&broker, "wal") as i32, total, "{fault:?}");
    }
    // Somebody else has added more meanwhile: what became of this call cannot be told.
    broker.on(ApiKey::CREATE_PARTITIONS, Fault::Drop);
    let begun = controller.create_partitions("wal", 5).into_future();
    let meanwhile = async {
        settle().await;
        controller.create_partitions("wal", 9).await.unwrap();
    };
    let (result, ()) = tokio::join!(begun, meanwhile);
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::INVALID_PARTITIONS), Outcome::Unknown));
}

#[tokio::test(start_paused = true)]
async fn settings_are_described_and_altered() {
    let broker = EmbeddedCluster::builder()
        .setting("log.retention.bytes", "5000")
        .topic_with("wal", 1, &[("retention.ms", "-1")])
        .start_in_memory()
        .unwrap();
    let controller = controller(&broker).await;
    let all = controller.describe_topic_configs("wal").await.unwrap();
    assert!(all.len() > 30);
    let retention = &all["retention.ms"];
    assert_eq!((retention.value.as_deref(), retention.source), (Some("-1"), ConfigSource::Topic));
    assert!(!retention.is_read_only && !retention.is_sensitive);
    let synonyms: Vec<_> = retention.synonyms.iter().map(|one| (one.name.as_str(), one.source)).collect();
    assert_eq!(synonyms, [("retention.ms", ConfigSource::Topic)]);
    let some = controller.describe_topic_configs("wal").only(["retention.bytes", "nope"]).await.unwrap();
    assert_eq!(some.keys().collect::<Vec<_>>(), ["retention.bytes"]);
    assert_eq!(some["retention.bytes"].source, ConfigSource::StaticBroker);

    let alter = || controller.alter_topic_configs("wal");
    alter().set("retention.bytes", "7").validate_only(true).await.unwrap();
    assert_eq!(config(&controller, "retention.bytes").await, ("5000".to_owned(), ConfigSource::StaticBroker));
    alter()
        .set("retention.bytes", "7")
        .append("cleanup.policy", "compact")
        .delete("retention.ms")
        .await
        .unwrap();
    assert_eq!(config(&controller, "retention.bytes").await, ("7".to_owned(), ConfigSource::Topic));
    assert_eq!(config(&controller, "cleanup.policy").await.0, "delete,compact");
    assert_eq!(config(&controller, "retention.ms").await, ("604800000".to_owned(), ConfigSource::Default));
    alter().subtract("cleanup.policy", "delete").await.unwrap();
    assert_eq!(config(&controller, "cleanup.policy").await.0, "compact");

    let error = alter().set("retention.bytes", "8").set("retention.ms", "soon").await.unwrap_err();
    assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::INVALID_CONFIG), Outcome::NotApplied));
    assert!(error.to_string().contains("Invalid value soon"), "{error}");
    assert_eq!(config(&controller, "retention.bytes").await.0, "7", "all or nothing");
}

#[tokio::test(start_paused = true)]
async fn what_is_altered_holds_for_the_next_append() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let controller = client.controller_client().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    controller.alter_topic_configs("wal").set("max.message.bytes", "68").await.unwrap();
    let error = partition.produce(record("a")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { limit: None, .. }), "{error:?}");
    controller.alter_topic_configs("wal").delete("max.message.bytes").await.unwrap();
    partition.produce(record("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_nobody_knows_is_asked_for_as_long_as_one_that_was_just_made() {
    let broker = broker();
    let controller = controller(&broker).await;
    for (name, call) in [
        ("describe", controller.describe_topic_configs("nobody").into_future().await.err()),
        ("alter", controller.alter_topic_configs("nobody").set("retention.ms", "1").await.err()),
        ("audit", controller.audit("nobody").await.err()),
    ] {
        let error = call.unwrap();
        let ErrorKind::UnknownTopic { waited, .. } = error.kind() else { panic!("{name}: {error:?}") };
        assert_eq!(*waited, deadlines().unknown_topic, "{name}");
    }
    broker.on(ApiKey::DESCRIBE_CONFIGS, Fault::Error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    controller.describe_topic_configs("wal").await.unwrap();
    broker.on(ApiKey::INCREMENTAL_ALTER_CONFIGS, Fault::Error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    controller.alter_topic_configs("wal").set("retention.ms", "1").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn records_are_deleted_up_to_an_offset_or_all() {
    let broker = broker();
    let partition = open(&broker).await;
    for value in ["a", "b", "c", "d"] {
        partition.produce(record(value)).await.unwrap();
    }
    for (before, start) in [(0, 0), (2, 2), (1, 2)] {
        assert_eq!(partition.delete_records(before).await.unwrap(), start);
        assert_eq!(broker.start_offset("wal", 0).unwrap(), start);
    }
    let error = partition.delete_records(5).await.unwrap_err();
    let ErrorKind::OffsetOutOfRange { offset: 5, log: Some(log), .. } = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!((log.clone(), error.outcome(), error.is_retriable()), (2..4, Outcome::NotApplied, false));
    assert_eq!(partition.delete_records(DeleteBefore::HighWatermark).await.unwrap(), 4);
    assert!(matches!(partition.fetch(3).await.unwrap_err().kind(), ErrorKind::OffsetOutOfRange { .. }));
    assert_eq!(partition.produce(record("e")).await.unwrap().base_offset, 4);
    assert_eq!(partition.fetch(4).await.unwrap().log_start_offset, Some(4));

    broker.create_topic_with("compacted", 1, &[("cleanup.policy", "compact")]).unwrap();
    let client = builder(&broker).build().await.unwrap();
    let compacted = client.partition_client("compacted", 0).await.unwrap();
    let error = compacted.delete_records(DeleteBefore::HighWatermark).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotDeletable), "{error:?}");
    assert!(!error.is_retriable() && error.outcome() == Outcome::NotApplied);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_repeated_until_it_is_answered() {
    let broker = broker();
    let partition = open(&broker).await;
    for _ in 0..9 {
        partition.produce(record("a")).await.unwrap();
    }
    for (before, fault) in [
        Fault::LoseReply,
        Fault::Drop,
        Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        Fault::ErrorAfter(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT),
        Fault::Error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
    ]
    .into_iter()
    .enumerate()
    {
        let asked = broker.requests(ApiKey::DELETE_RECORDS);
        broker.on(ApiKey::DELETE_RECORDS, fault);
        let before = before as i64 + 1;
        assert_eq!(partition.delete_records(before).await.unwrap(), before, "{fault:?}");
        assert_eq!(broker.requests(ApiKey::DELETE_RECORDS), asked + 2, "{fault:?}");
    }
    broker.on(ApiKey::DELETE_RECORDS, Fault::LoseReply);
    broker.on(ApiKey::DELETE_RECORDS, Fault::Error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    let error = partition.delete_records(8).await.unwrap_err();
    let denied = Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    assert_eq!((error.code(), error.outcome()), (denied, Outcome::Unknown));
}

#[tokio::test(start_paused = true)]
async fn ends_of_leader_epochs() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    let end = partition.offset_for_leader_epoch(0).await.unwrap().unwrap();
    assert_eq!((end.leader_epoch, end.end_offset), (0, 1));
    assert_eq!(partition.offset_for_leader_epoch(1).await.unwrap(), None, "not known yet");
    for code in
        [ErrorCode::UNKNOWN_LEADER_EPOCH, ErrorCode::FENCED_LEADER_EPOCH, ErrorCode::NOT_LEADER_OR_FOLLOWER]
    {
        let asked = broker.requests(ApiKey::METADATA);
        broker.on(ApiKey::OFFSET_FOR_LEADER_EPOCH, Fault::Error(code));
        assert_eq!(partition.offset_for_leader_epoch(0).await.unwrap(), Some(end), "{code}");
        assert_eq!(broker.requests(ApiKey::METADATA), asked + 1, "{code}: the leader is found anew");
    }
    // As after elections: the floor of what is asked for.
    wire.edit::<OffsetForLeaderEpochRequest>(|response| {
        let told = &mut response.topics[0].partitions[0];
        (told.leader_epoch, told.end_offset) = (2, 40);
    });
    let EpochEndOffset { leader_epoch, end_offset, .. } =
        partition.offset_for_leader_epoch(3).await.unwrap().unwrap();
    assert_eq!((leader_epoch, end_offset), (2, 40));
}

#[tokio::test(start_paused = true)]
async fn the_cluster_is_described_by_old_brokers_too() {
    let dialects = [
        Dialect::kafka_4_3(),
        Dialect::kafka_3_9(),
        Dialect::kafka_2_8(),
        Dialect::kafka_2_8().without(ApiKey::DESCRIBE_CLUSTER),
    ];
    for (index, dialect) in dialects.into_iter().enumerate() {
        let broker = EmbeddedCluster::builder().dialect(dialect).start_in_memory().unwrap();
        let client = builder(&broker).build().await.unwrap();
        let told = client.controller_client().await.unwrap().describe_cluster().await.unwrap();
        assert_eq!((told.cluster_id, told.controller), (client.cluster_id(), Some(1)));
        let [only] = &told.brokers[..] else { panic!("{:?}", told.brokers) };
        assert_eq!(
            (only.id, only.address.to_string(), only.rack.as_deref()),
            (1, broker.bootstrap().remove(0), None)
        );
        assert_eq!(broker.requests(ApiKey::DESCRIBE_CLUSTER), u64::from(index < 3));
    }
}

/// Every call that describes or changes something, one after another on a cluster of its own.
macro_rules! calls {
    ($run:ident) => {
        $run!(CREATE_TOPICS, |this| this.controller.create_topic("new", 1, 1).into_future().await.map(drop));
        $run!(DELETE_TOPICS, |this| this.controller.delete_topic("gone").await);
        $run!(CREATE_PARTITIONS, |this| this.controller.create_partitions("wal", 3).await);
        $run!(DESCRIBE_CONFIGS, |this| this.controller.describe_topic_configs("wal").await.map(drop));
        $run!(INCREMENTAL_ALTER_CONFIGS, |this| {
            this.controller.alter_topic_configs("wal").set("retention.ms", "-1").await
        });
        $run!(DESCRIBE_CLUSTER, |this| this.controller.describe_cluster().await.map(drop));
        $run!(DELETE_RECORDS, |this| this.partition.delete_records(1).await.map(drop));
        $run!(OFFSET_FOR_LEADER_EPOCH, |this| this.partition.offset_for_leader_epoch(0).await.map(drop));
    };
}

struct Setup {
    broker: EmbeddedCluster,
    wire: Wire,
    controller: ControllerClient,
    partition: kwal_client::PartitionClient,
}

impl Setup {
    async fn new() -> Self {
        Self::with(deadlines()).await
    }

    async fn with(deadlines: Deadlines) -> Self {
        let broker = broker();
        broker.create_topic("gone", 1).unwrap();
        let wire = Wire::to(&broker);
        let client = wire.builder().deadlines(deadlines).build().await.unwrap();
        let controller = client.controller_client().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        Self { broker, wire, controller, partition }
    }

    /// Whether a call has done what it is for, and nothing else has been done.
    fn done(&self, api: ApiKey) -> bool {
        match api {
            ApiKey::CREATE_TOPICS => self.broker.topic_id("new").is_some(),
            ApiKey::DELETE_TOPICS => self.broker.topic_id("gone").is_none(),
            ApiKey::CREATE_PARTITIONS => partitions(&self.broker, "wal") == 3,
            ApiKey::DELETE_RECORDS => self.broker.start_offset("wal", 0).unwrap() == 1,
            _ => true,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_waited_for() {
    macro_rules! run {
        ($api:ident, |$this:ident| $call:expr) => {
            for (fault, wait) in [
                (Fault::Error(ErrorCode::NOT_CONTROLLER), None),
                (Fault::Error(ErrorCode::THROTTLING_QUOTA_EXCEEDED), None),
                (Fault::Drop, None),
                (Fault::DelayReply(Duration::from_secs(5)), Some(Duration::from_secs(5))),
            ] {
                let $this = Setup::new().await;
                $this.broker.on(ApiKey::$api, fault);
                let (result, took) = timed(async { $call }).await;
                result.unwrap_or_else(|error| panic!("{} {fault:?}: {}", ApiKey::$api, chain(&error)));
                assert!($this.done(ApiKey::$api), "{} {fault:?}", ApiKey::$api);
                assert!(wait.is_none_or(|wait| took == wait), "{} {fault:?}: {took:?}", ApiKey::$api);
            }
        };
    }
    calls!(run);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_answer_counts_and_the_next_request_waits() {
    const PAUSE: Duration = Duration::from_secs(25);
    macro_rules! run {
        ($api:ident, |$this:ident| $call:expr) => {
            let $this = Setup::new().await;
            $this.broker.on(ApiKey::$api, Fault::Throttle(PAUSE));
            let (result, took) = timed(async { $call }).await;
            assert_eq!(took, Duration::ZERO, "{}", ApiKey::$api);
            result.unwrap();
            assert_eq!($this.broker.requests(ApiKey::$api), 1);
            let (result, took) = timed($this.controller.describe_cluster()).await;
            assert_eq!((result.unwrap().brokers.len(), took), (1, PAUSE), "{}", ApiKey::$api);
        };
    }
    calls!(run);
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_waited_for_as_long_as_the_broker_says() {
    let Setup { broker, wire, controller, .. } = Setup::new().await;
    broker.on(ApiKey::CREATE_TOPICS, Fault::Error(ErrorCode::THROTTLING_QUOTA_EXCEEDED));
    wire.edit::<kwal_protocol::messages::CreateTopicsRequest>(|response| {
        if response.topics[0].error_code == ErrorCode::THROTTLING_QUOTA_EXCEEDED {
            response.throttle_time_ms = 7_000;
        }
    });
    let (created, took) = timed(controller.create_topic("new", 1, 1)).await;
    created.unwrap();
    assert_eq!(took, Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_answer_the_outcome_is_known_or_said_to_be_open() {
    macro_rules! run {
        ($api:ident, |$this:ident| $call:expr) => {
            let $this = Setup::new().await;
            $this.broker.on(ApiKey::$api, Fault::LoseReply);
            let result = async { $call }.await;
            assert!($this.done(ApiKey::$api), "{}", ApiKey::$api);
            match ApiKey::$api {
                // What is there may be of this call or of somebody else's.
                ApiKey::CREATE_TOPICS | ApiKey::DELETE_TOPICS => {
                    assert_eq!(result.unwrap_err().outcome(), Outcome::Unknown, "{}", ApiKey::$api);
                }
                _ => result.unwrap(),
            }
        };
    }
    calls!(run);
}

#[tokio::test(start_paused = true)]
async fn every_call_ends_at_its_deadline() {
    macro_rules! run {
        ($api:ident, |$this:ident| $call:expr) => {
            // Of many attempts, and within the first one.
            let short = deadlines().operation(deadlines().request / 2);
            for (mode, deadlines) in
                [(WireMode::Deaf, deadlines()), (WireMode::Stalled, deadlines()), (WireMode::Deaf, short)]
            {
                let $this = Setup::with(deadlines).await;
                $this.wire.set(mode);
                let (result, took) = timed(async { $call }).await;
                let error = result.unwrap_err();
                assert!(
                    matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }),
                    "{}: {error:?}",
                    ApiKey::$api
                );
                assert_took(took, deadlines.operation);
                let open = ApiKey::$api.changes_something();
                let outcome = if open { Outcome::Unknown } else { Outcome::NotApplied };
                assert_eq!(error.outcome(), outcome, "{}", ApiKey::$api);
                assert!(error.is_retriable());
            }
        };
    }
    calls!(run);
}

#[tokio::test(start_paused = true)]
async fn every_call_may_be_dropped_at_any_poll() {
    macro_rules! run {
        ($api:ident, |$this:ident| $call:expr) => {
            for cut in [false, true] {
                for polls in 1.. {
                    let $this = Setup::new().await;
                    if cut {
                        $this.broker.disconnect_all();
                        settle().await;
                    }
                    let done = polled(Box::pin(async { $call }), polls).await;
                    let what = format!("{} after {polls} polls, cut {cut}", ApiKey::$api);
                    let described = $this.controller.describe_topic_configs("wal").await;
                    assert!(described.is_ok(), "{what}");
                    assert_eq!($this.partition.produce(record("b")).await.unwrap().base_offset, 1, "{what}");
                    if let Some(result) = done {
                        result.unwrap_or_else(|error| panic!("{what}: {error}"));
                        break;
                    }
                    assert!(polls < 100, "{what}");
                }
            }
        };
    }
    calls!(run);
}

#[tokio::test(start_paused = true)]
async fn the_controller_is_followed_where_it_goes() {
    let dialect = Dialect::kafka_3_9().forwarding(false);
    let broker = EmbeddedCluster::builder().brokers(3).dialect(dialect).topic("wal", 1).start_in_memory();
    let broker = broker.unwrap();
    let controller = controller(&broker).await;
    for (total, id) in [(2, 2), (3, 3), (4, 1)] {
        broker.move_controller(id).unwrap();
        controller.create_partitions("wal", total).await.unwrap();
        assert_eq!(partitions(&broker, "wal"), total as usize);
        broker.move_controller(id % 3 + 1).unwrap();
        controller.alter_topic_configs("wal").set("retention.ms", total.to_string()).await.unwrap();
        assert_eq!(config(&controller, "retention.ms").await.0, total.to_string());
    }
    assert_eq!(controller.describe_cluster().await.unwrap().controller, Some(2));
    // It dies, and another broker takes over.
    broker.kill(2).unwrap();
    controller.create_topic("new", 1, 1).await.unwrap();
    let told = controller.describe_cluster().await.unwrap();
    assert_eq!((told.brokers.len(), told.controller), (2, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_partition_with_more_replicas_than_the_others_is_told_apart() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let controller = controller_over(&wire).await;
    wire.edit::<MetadataRequest>(|response| {
        let all = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        all.filter(|partition| partition.partition_index == 1).for_each(|it| it.replica_nodes = vec![1, 2]);
    });
    controller.ensure_topic("new", 2, 1).await.unwrap();
    for (requested, found) in [(1, 2), (2, 1), (3, 1)] {
        let ensured = controller.ensure_topic("new", 2, requested).await.unwrap();
        assert_eq!(ensured.replication_factor, 1);
        assert_eq!(ensured.differences, [TopicDifference::ReplicationFactor { requested, found }]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_deleted_is_not_known_any_more() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    client.partition_client("wal", 0).await.unwrap();
    client.controller_client().await.unwrap().delete_topic("wal").await.unwrap();
    let error = client.partition_client("wal", 0).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnknownTopic { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_controller_what_every_broker_knows_is_told_all_the_same() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let controller = controller_over(&wire).await;
    wire.edit::<MetadataRequest>(|response| response.controller_id = -1);
    broker.on(ApiKey::DESCRIBE_CLUSTER, Fault::Error(ErrorCode::NOT_CONTROLLER));
    assert_eq!(controller.describe_cluster().await.unwrap().brokers.len(), 1);
    controller.describe_topic_configs("wal").await.unwrap();
    let (result, took) = timed(controller.create_topic("new", 1, 1)).await;
    let error = result.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NOT_CONTROLLER), "{}", chain(&error));
    assert_took(took, deadlines().operation);
}

/// A topic that a write-ahead log would want, on three brokers, and then something is wrong.
mod audited {
    use kwal_client::{Finding, Limits, Severity};

    use super::*;

    const GOOD: [(&str, &str); 3] =
        [("min.insync.replicas", "2"), ("retention.ms", "-1"), ("max.message.bytes", "20000000")];

    struct Audited {
        broker: EmbeddedCluster,
        wire: Wire,
        controller: ControllerClient,
    }

    impl Audited {
        async fn new(topic: &[(&str, &str)], settings: &[(&str, &str)]) -> Self {
            Self::with(topic, settings, |builder| builder).await
        }

        async fn with(
            topic: &[(&str, &str)],
            settings: &[(&str, &str)],
            client: impl FnOnce(ClientBuilder) -> ClientBuilder,
        ) -> Self {
            let all = [&GOOD[..], topic].concat();
            let builder = EmbeddedCluster::builder().brokers(3).topic_with("wal", 2, &all);
            let builder =
                settings.iter().fold(builder, |builder, (name, value)| builder.setting(name, value));
            let broker = builder.start_in_memory().unwrap();
            let wire = Wire::to(&broker);
            let client = client(wire.builder()).build().await.unwrap();
            let controller = client.controller_client().await.unwrap();
            Self { broker, wire, controller }
        }

        async fn findings(&self) -> Vec<Finding> {
            self.controller.audit("wal").await.unwrap()
        }
    }

    fn short(findings: &[Finding]) -> Vec<(Severity, &str, Option<&str>)> {
        findings.iter().map(|one| (one.severity, one.setting, one.found.as_deref())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_topic_has_no_finding() {
        assert_eq!(Audited::new(&[], &[]).await.findings().await, []);
        let topic = [("message.timestamp.type", "LogAppendTime"), ("message.timestamp.before.max.ms", "1")];
        assert_eq!(Audited::new(&topic, &[]).await.findings().await, [], "no clock but the broker's counts");
    }

    #[tokio::test(start_paused = true)]
    async fn each_bad_setting_of_the_topic_is_found() {
        use Severity::{Error, Info, Warning};
        let age = ("message.timestamp.type", Warning, "CreateTime");
        type Expected<'a> = &'a [(&'a str, Severity, &'a str)];
        let cases: &[(&str, &str, Expected<'_>)] = &[
            ("min.insync.replicas", "1", &[("min.insync.replicas", Error, "1")]),
            ("min.insync.replicas", "3", &[("min.insync.replicas", Warning, "3")]),
            (
                "min.insync.replicas",
                "4",
                &[
                    ("in-sync replicas", Error, "fewer than 4 in all partitions"),
                    ("min.insync.replicas", Error, "4"),
                ],
            ),
            ("unclean.leader.election.enable", "true", &[("unclean.leader.election.enable", Error, "true")]),
            ("cleanup.policy", "compact", &[("cleanup.policy", Error, "compact")]),
            ("cleanup.policy", "delete,compact", &[("cleanup.policy", Error, "delete,compact")]),
            ("retention.ms", "604800000", &[("retention.ms", Warning, "604800000 (7 days)"), age]),
            ("retention.bytes", "1000", &[("retention.bytes", Warning, "1000")]),
            ("max.message.bytes", "1048588", &[("max.message.bytes", Info, "1048588")]),
            ("max.message.bytes", "2000000000", &[("max.message.bytes", Error, "2000000000")]),
            (
                "message.timestamp.before.max.ms",
                "1000",
                &[("message.timestamp.before.max.ms", Warning, "1000 (1 second)")],
            ),
            (
                "message.timestamp.before.max.ms",
                "86400000",
                &[("message.timestamp.before.max.ms", Info, "86400000 (1 day)")],
            ),
            (
                "message.timestamp.after.max.ms",
                "60000",
                &[("message.timestamp.after.max.ms", Warning, "60000 (1 minute)")],
            ),
        ];
        for (name, value, expected) in cases {
            let audited = Audited::new(&[(name, value)], &[]).await;
            let findings = audited.findings().await;
            let expected: Vec<_> =
                expected.iter().map(|(name, severity, found)| (*severity, *name, Some(*found))).collect();
            assert_eq!(short(&findings), expected, "{name} = {value}");
            for finding in &findings {
                assert!(finding.why.ends_with('.') && finding.why.len() > 30, "{finding}");
                assert!(!finding.wanted.is_empty() && finding.brokers.is_empty(), "{finding}");
            }
            let own = findings.iter().find(|finding| finding.setting == *name).unwrap();
            assert_eq!(own.source, Some(ConfigSource::Topic));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_is_deleted_retention_is_no_finding() {
        for policy in ["compact", ""] {
            let audited = Audited::new(&[("cleanup.policy", policy), ("retention.ms", "5")], &[]).await;
            let settings: Vec<_> = audited.findings().await.into_iter().map(|one| one.setting).collect();
            assert_eq!(settings, if policy.is_empty() { vec![] } else { vec!["cleanup.policy"] });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_bad_setting_of_the_broker_is_found() {
        use Severity::{Error, Warning};
        for (name, value, severity, found) in [
            ("producer.id.expiration.ms", "3600000", Warning, "3600000 (1 hour)"),
            ("producer.id.expiration.ms", "60000", Error, "60000 (1 minute)"),
            ("transactional.id.expiration.ms", "86400000", Warning, "86400000 (1 day)"),
        ] {
            let findings = Audited::new(&[], &[(name, value)]).await.findings().await;
            assert_eq!(short(&findings), [(severity, name, Some(found))]);
            assert_eq!(
                (&findings[0].brokers[..], findings[0].source),
                (&[1, 2, 3][..], Some(ConfigSource::StaticBroker))
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn how_it_is_replicated_is_found() {
        use Severity::{Error, Warning};
        let audited = Audited::new(&[], &[]).await;
        for (topic, replicas, expected) in [
            (
                "two",
                &[&[1, 2][..], &[2, 3]][..],
                &[
                    (Warning, "replication factor", Some("2 in all partitions")),
                    (Warning, "min.insync.replicas", Some("2")),
                ][..],
            ),
            (
                "one",
                &[&[1], &[3]],
                &[
                    (Error, "replication factor", Some("1 in all partitions")),
                    (Error, "in-sync replicas", Some("fewer than 2 in all partitions")),
                    (Error, "min.insync.replicas", Some("2")),
                ],
            ),
        ] {
            let assignment = replicas.iter().map(|replicas| replicas.to_vec()).collect();
            let create = audited.controller.create_topic(topic, -1, -1).assignment(assignment);
            GOOD.iter().fold(create, |create, (name, value)| create.config(*name, *value)).await.unwrap();
            assert_eq!(short(&audited.controller.audit(topic).await.unwrap()), *expected, "{topic}");
        }
        for (broker, severity, found) in
            [(3, Warning, "some missing in all partitions"), (2, Error, "fewer than 2 in all partitions")]
        {
            audited.broker.stop(broker).unwrap();
            assert_eq!(short(&audited.findings().await), [(severity, "in-sync replicas", Some(found))]);
        }
        let findings = audited.controller.audit("one").await.unwrap();
        assert!(
            short(&findings).contains(&(Error, "leader", Some("missing in partition 1"))),
            "{findings:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn partitions_are_told_apart() {
        let audited = Audited::new(&[], &[]).await;
        audited.wire.edit::<MetadataRequest>(|response| {
            let all = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            all.filter(|partition| partition.partition_index == 1).for_each(|it| it.isr_nodes.truncate(1));
        });
        let expected = (Severity::Error, "in-sync replicas", Some("fewer than 2 in partition 1"));
        assert_eq!(short(&audited.findings().await), [expected]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_seen_is_not_passed_over() {
        let audited = Audited::new(&[("retention.ms", "5")], &[]).await;
        audited.wire.edit::<DescribeConfigsRequest>(|response| {
            let hidden = ["unclean.leader.election.enable", "retention.bytes", "producer.id.expiration.ms"];
            let configs = &mut response.results[0].configs;
            configs.retain(|config| !hidden.contains(&config.name.as_str()));
            configs.iter_mut().filter(|config| config.name == "max.message.bytes").for_each(|config| {
                config.value = Some("much".to_owned());
            });
        });
        let findings = audited.findings().await;
        let hidden: Vec<_> = findings.iter().filter(|one| one.severity == Severity::Unknown).collect();
        let settings: Vec<_> = hidden.iter().map(|one| (one.setting, &one.brokers[..])).collect();
        let expected = [
            ("unclean.leader.election.enable", &[][..]),
            ("retention.bytes", &[]),
            ("max.message.bytes", &[]),
            ("producer.id.expiration.ms", &[1, 2, 3]),
        ];
        assert_eq!(settings, expected);
        assert!(hidden.iter().all(|one| one.found.is_none()));
        assert_eq!(findings[0].setting, "retention.ms", "the gravest first");
        let text = hidden[3].to_string();
        let says = "unknown: producer.id.expiration.ms of brokers 1, 2, 3; should be at least 86400000 (1 day). \
                    The broker did not return this config; it may be too old to have it.";
        assert_eq!(text, says);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_not_be_seen_is_not_passed_over() {
        let audited = Audited::new(&[], &[]).await;
        audited.broker.on(ApiKey::DESCRIBE_CONFIGS, Fault::Error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
        audited
            .broker
            .on_all(ApiKey::DESCRIBE_CONFIGS, Fault::Error(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
        let findings = audited.findings().await;
        let expected = [
            (Severity::Unknown, "topic configs", None),
            (Severity::Unknown, "producer.id.expiration.ms", None),
            (Severity::Unknown, "transactional.id.expiration.ms", None),
        ];
        assert_eq!(short(&findings), expected);
        assert!(findings[0].why.contains("TOPIC_AUTHORIZATION_FAILED"), "{}", findings[0]);
        assert!(findings[1].why.contains("CLUSTER_AUTHORIZATION_FAILED"), "{}", findings[1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_does_not_answer_is_a_finding_and_not_a_hang() {
        let audited = Audited::new(&[], &[]).await;
        // The first answer is of the topic, those behind it of the brokers.
        audited.broker.on(ApiKey::DESCRIBE_CONFIGS, Fault::Pass);
        audited.broker.on(ApiKey::DESCRIBE_CONFIGS, Fault::BlackHole);
        let (findings, took) = timed(audited.findings()).await;
        assert_eq!(took, deadlines().request);
        let expected: Vec<_> = findings.iter().map(|one| (one.severity, &one.brokers[..])).collect();
        assert_eq!(expected, [(Severity::Unknown, &[1][..]); 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_of_other_limits_finds_other_things() {
        let small = Limits::default().batch(1 << 20);
        let audited =
            Audited::with(&[("max.message.bytes", "1048588")], &[], |client| client.limits(small)).await;
        assert_eq!(audited.findings().await, []);
    }
}
