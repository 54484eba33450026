//! C4 for each administrative operation: topics, partitions, configs, deletion of records, leader epochs, the
//! cluster.

use std::time::Duration;

use kwal_client::{
    ConfigSource, ControllerClient, DeleteBefore, EpochEndOffset, TopicDifference,
    error::{Error, ErrorKind, Outcome},
};
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{MetadataRequest, OffsetForLeaderEpochRequest},
};
use kwal_testkit::{Dialect, EmbeddedCluster, Fault};

use crate::support::{
    Wire, assert_took, broker, builder, deadlines, open, open_over, record, settle, source, timed,
};

async fn controller(broker: &EmbeddedCluster) -> ControllerClient {
    builder(broker).build().await.unwrap().controller_client().await.unwrap()
}

async fn controller_over(wire: &Wire) -> ControllerClient {
    wire.client().await.controller_client().await.unwrap()
}

pub(crate) fn partitions(broker: &EmbeddedCluster, topic: &str) -> usize {
    (0..).take_while(|partition| broker.start_offset(topic, *partition).is_ok()).count()
}

/// Returns the value of a config of `wal` and its source.
async fn config(controller: &ControllerClient, name: &str) -> (String, ConfigSource) {
    let configs = controller.describe_topic_configs("wal").only([name]).await.unwrap();
    (configs[name].value.clone().unwrap(), configs[name].source)
}

#[tokio::test(start_paused = true)]
async fn invalid_input_is_rejected_before_anything_is_sent() {
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
async fn a_topic_is_created_as_assigned_or_only_validated() {
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
async fn a_longer_timeout_of_the_broker_extends_the_time_limit() {
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
async fn a_topic_is_ensured_once_and_compared_afterwards() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let controller = controller_over(&wire).await;
    let ensure = || {
        let ensure = controller.ensure_topic("new", 3, 1).config("retention.ms", "-1");
        ensure.config("cleanup.policy", "compact, delete")
    };
    let ensured = ensure().await.unwrap();
    assert!(ensured.created && ensured.differences.is_empty(), "{ensured:?}");
    let layout = (ensured.id, ensured.partitions, ensured.replication_factor);
    assert_eq!(layout, (broker.topic_id("new"), 3, 1));
    let again = ensure().await.unwrap();
    assert_eq!((again.created, again.differences, again.id), (false, vec![], ensured.id));
    assert_eq!(
        wire.count(ApiKey::CREATE_TOPICS),
        1,
        "a client without the right to create may ensure an existing topic"
    );

    let other = controller.ensure_topic("new", 2, 3).config("retention.ms", "5").config("nope", "1");
    let other =
        other.config("max.message.bytes", "1048588").config("min.insync.replicas", "2").await.unwrap();
    let difference =
        |name: &str, requested: &str, found: Option<(&str, ConfigSource)>| TopicDifference::Config {
            name: name.to_owned(),
            requested: requested.to_owned(),
            found: found.map(|(value, source)| (Some(value.to_owned()), source)),
        };
    let expected = [
        TopicDifference::Partitions { requested: 2, found: 3 },
        TopicDifference::ReplicationFactor { requested: 3, found: 1 },
        difference("retention.ms", "5", Some(("-1", ConfigSource::Topic))),
        difference("nope", "1", None),
        difference("min.insync.replicas", "2", Some(("1", ConfigSource::Default))),
    ];
    assert_eq!(other.differences, expected);
    let texts: Vec<_> = other.differences.iter().map(ToString::to_string).collect();
    let expected = [
        "3 partitions instead of 2",
        "1 replica instead of 3",
        "retention.ms is -1 (set for the topic) instead of 5",
        "nope is unknown to the broker and should be 1",
        "min.insync.replicas is 1 (the default) instead of 2",
    ];
    assert_eq!(texts, expected);
    assert!(
        controller.ensure_topic("new", -1, -1).await.unwrap().differences.is_empty(),
        "-1 accepts any number"
    );
    assert_eq!(partitions(&broker, "new"), 3, "the topic is not changed");
}

#[tokio::test(start_paused = true)]
async fn of_two_concurrent_ensure_calls_one_creates_and_both_return_the_topic() {
    let broker = broker();
    let (one, other) = (controller(&broker).await, controller(&broker).await);
    // Both find no topic before either of them creates it.
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
async fn a_topic_is_found_after_the_response_to_its_creation_was_lost() {
    let broker = broker();
    let controller = controller(&broker).await;
    broker.on(ApiKey::CREATE_TOPICS, Fault::LoseReply);
    let ensured = controller.ensure_topic("new", 2, 1).config("retention.ms", "-1").await.unwrap();
    assert_eq!((ensured.created, ensured.differences.len(), ensured.partitions), (false, 0, 2));
    // A broker with stale metadata still describes a topic that was deleted.
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
        assert_eq!(took, Duration::ZERO, "the controller is authoritative, so there is no retry");
        assert!(!error.is_retriable());
    }
}

#[tokio::test(start_paused = true)]
async fn partitions_count_as_created_after_the_response_was_lost() {
    let broker = broker();
    let controller = controller(&broker).await;
    for fault in [Fault::LoseReply, Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT)] {
        let total = partitions(&broker, "wal") as i32 + 1;
        broker.on(ApiKey::CREATE_PARTITIONS, fault);
        controller.create_partitions("wal", total).await.unwrap();
        assert_eq!(partitions(&broker, "wal") as i32, total, "{fault:?}");
    }
    // Another client has added more in the meantime, so the outcome of this call is unknown.
    broker.on(ApiKey::CREATE_PARTITIONS, Fault::Drop);
    let begun = controller.create_partitions("wal", 5).into_future();
    let other_client = async {
        settle().await;
        controller.create_partitions("wal", 9).await.unwrap();
    };
    let (result, ()) = tokio::join!(begun, other_client);
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::INVALID_PARTITIONS), Outcome::Unknown));
}

#[tokio::test(start_paused = true)]
async fn configs_are_described_and_altered() {
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
async fn an_altered_config_applies_to_the_next_append() {
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
async fn an_unknown_topic_is_retried_as_long_as_one_that_was_just_created() {
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
    assert!(matches!(error.kind(), ErrorKind::BeyondEnd { offset: 5, end: 4, .. }), "{error:?}");
    assert_eq!((error.outcome(), error.is_retriable()), (Outcome::NotApplied, false));
    assert_eq!(partition.delete_records(DeleteBefore::HighWatermark).await.unwrap(), 4);
    let error = partition.fetch(3).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Trimmed { offset: 3, log_start: 4, .. }), "{error:?}");
    assert_eq!(partition.produce(record("e")).await.unwrap().base_offset, Some(4));
    assert_eq!(partition.fetch(4).await.unwrap().log_start_offset, Some(4));

    broker.create_topic_with("compacted", 1, &[("cleanup.policy", "compact")]).unwrap();
    let client = builder(&broker).build().await.unwrap();
    let compacted = client.partition_client("compacted", 0).await.unwrap();
    let error = compacted.delete_records(DeleteBefore::HighWatermark).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotDeletable), "{error:?}");
    assert!(!error.is_retriable() && error.outcome() == Outcome::NotApplied);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_of_records_is_retried() {
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
        // A new leader that does not know its high watermark yet.
        Fault::Error(ErrorCode::OFFSET_OUT_OF_RANGE),
    ]
    .into_iter()
    .enumerate()
    {
        let requests = broker.requests(ApiKey::DELETE_RECORDS);
        broker.on(ApiKey::DELETE_RECORDS, fault);
        let before = before as i64 + 1;
        assert_eq!(partition.delete_records(before).await.unwrap(), before, "{fault:?}");
        assert_eq!(broker.requests(ApiKey::DELETE_RECORDS), requests + 2, "{fault:?}");
    }
    broker.on(ApiKey::DELETE_RECORDS, Fault::LoseReply);
    broker.on(ApiKey::DELETE_RECORDS, Fault::Error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    let error = partition.delete_records(8).await.unwrap_err();
    let denied = Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    assert_eq!((error.code(), error.outcome()), (denied, Outcome::Unknown));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_leader_epoch_is_looked_up() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    let end = partition.offset_for_leader_epoch(0).await.unwrap().unwrap();
    assert_eq!((end.leader_epoch, end.end_offset), (0, 1));
    assert_eq!(partition.offset_for_leader_epoch(1).await.unwrap(), None, "not an epoch of the leader yet");
    for code in
        [ErrorCode::UNKNOWN_LEADER_EPOCH, ErrorCode::FENCED_LEADER_EPOCH, ErrorCode::NOT_LEADER_OR_FOLLOWER]
    {
        let before = broker.requests(ApiKey::METADATA);
        broker.on(ApiKey::OFFSET_FOR_LEADER_EPOCH, Fault::Error(code));
        assert_eq!(partition.offset_for_leader_epoch(0).await.unwrap(), Some(end), "{code}");
        assert_eq!(broker.requests(ApiKey::METADATA), before + 1, "{code}: the leader is looked up again");
    }
    // As after elections: the largest epoch that is not above the requested one.
    wire.edit::<OffsetForLeaderEpochRequest>(|response| {
        let described = &mut response.topics[0].partitions[0];
        (described.leader_epoch, described.end_offset) = (2, 40);
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
        let described = client.controller_client().await.unwrap().describe_cluster().await.unwrap();
        assert_eq!((described.cluster_id, described.controller), (client.cluster_id(), Some(1)));
        let [only] = &described.brokers[..] else { panic!("{:?}", described.brokers) };
        assert_eq!(
            (only.id, only.address.to_string(), only.rack.as_deref()),
            (1, broker.bootstrap().remove(0), None)
        );
        assert_eq!(broker.requests(ApiKey::DESCRIBE_CLUSTER), u64::from(index < 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_described_as_its_partitions_are() {
    let broker = EmbeddedCluster::builder().brokers(3).topic("wal", 2).start_in_memory().unwrap();
    let controller = controller(&broker).await;
    let described = controller.describe_topic("wal").await.unwrap();
    assert_eq!((described.name.as_str(), described.id), ("wal", broker.topic_id("wal")));
    let [first, second] = &described.partitions[..] else { panic!("{described:?}") };
    assert_eq!((first.index, first.leader, first.leader_epoch), (0, Some(1), Some(0)));
    assert_eq!((second.index, &second.replicas, &second.in_sync), (1, &vec![2, 3, 1], &vec![2, 3, 1]));

    broker.move_leader("wal", 0, 3).unwrap();
    broker.stop(1).unwrap();
    let first = controller.describe_topic("wal").await.unwrap().partitions.swap_remove(0);
    assert_eq!((first.leader, first.leader_epoch), (Some(3), Some(1)));
    assert_eq!((first.replicas, first.in_sync, first.offline), (vec![1, 2, 3], vec![2, 3], vec![1]));

    let unknown = controller.describe_topic("nothing").await.unwrap_err();
    assert!(matches!(unknown.kind(), ErrorKind::UnknownTopic { .. }), "{unknown}");
}

#[tokio::test(start_paused = true)]
async fn requests_follow_the_controller() {
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
    // It is killed, and another broker becomes the controller.
    broker.kill(2).unwrap();
    controller.create_topic("new", 1, 1).await.unwrap();
    let described = controller.describe_cluster().await.unwrap();
    assert_eq!((described.brokers.len(), described.controller), (2, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_partition_with_more_replicas_than_the_others_is_noticed() {
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
async fn a_deleted_topic_is_unknown() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    client.partition_client("wal", 0).await.unwrap();
    client.controller_client().await.unwrap().delete_topic("wal").await.unwrap();
    let error = client.partition_client("wal", 0).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnknownTopic { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_controller_other_brokers_answer_what_they_can() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let controller = controller_over(&wire).await;
    wire.edit::<MetadataRequest>(|response| response.controller_id = -1);
    broker.on(ApiKey::DESCRIBE_CLUSTER, Fault::Error(ErrorCode::NOT_CONTROLLER));
    assert_eq!(controller.describe_cluster().await.unwrap().brokers.len(), 1);
    controller.describe_topic_configs("wal").await.unwrap();
    let (result, took) = timed(controller.create_topic("new", 1, 1)).await;
    let error = result.unwrap_err();
    // No broker said so: the client says it in its own words.
    assert_eq!(error.code(), None, "{error}");
    assert!(matches!(source::<Error>(&error).kind(), ErrorKind::UnknownBroker), "{error}");
    assert!(error.to_string().ends_with("the last attempt failed: metadata names no controller"), "{error}");
    assert_took(took, deadlines().operation);
}
