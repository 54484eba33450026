//! C4 and C11: topics, leaders and the controller are looked up, and a lookup changes nothing.

use std::time::Duration;

use futures::future::join_all;
use kwal_client::{ClientBuilder, error::ErrorKind};
use kwal_protocol::{
    api::{ApiKey, Versions},
    error_code::ErrorCode,
    messages::{InitProducerIdRequest, MetadataBroker, MetadataRequest},
    record::Compression,
};
use kwal_testkit::{EmbeddedCluster, Fault};
use kwal_transport::{HostPort, memory::MemoryNetwork};
use tokio::time::sleep;

use crate::support::{
    Wire, broker, builder, deadlines, log, open_over, polled, record, replicate, settle, timed,
};

#[tokio::test(start_paused = true)]
async fn a_lookup_never_creates_a_topic() {
    for newest in 4..=13 {
        let broker = EmbeddedCluster::builder()
            .auto_create_topics(true)
            .cap(ApiKey::METADATA, Versions::new(0, newest))
            .start_in_memory()
            .unwrap();
        let client = builder(&broker).build().await.unwrap();
        let (result, took) = timed(client.partition_client("missing", 0)).await;
        let error = result.unwrap_err();
        let ErrorKind::UnknownTopic { waited, .. } = error.kind() else { panic!("{error:?}") };
        let topic = error.context().topic.as_deref();
        assert_eq!((topic, *waited, took), (Some("missing"), deadlines().unknown_topic, *waited));
        assert!(!error.is_retriable());
        assert_eq!(client.list_topics().await.unwrap(), []);
        assert_eq!(broker.topics(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_partition_is_retried_for_the_time_of_an_unknown_topic() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let (result, took) = timed(client.partition_client("wal", 2)).await;
    let error = result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnknownPartition { partitions: 2, .. }), "{error:?}");
    assert_eq!(error.context().partition, Some(2));
    assert_eq!(took, deadlines().unknown_topic);
    assert_eq!(error.to_string(), "topic wal has no partition 2, only 0 to 1 (no broker knew it for 5.0s)");
    assert!(!error.is_retriable());
}

#[tokio::test(start_paused = true)]
async fn a_topic_created_during_the_lookup_is_found() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let opening = tokio::spawn(client.partition_client("late", 0).into_future());
    sleep(deadlines().unknown_topic * 9 / 10).await;
    broker.create_topic("late", 1).unwrap();
    opening.await.unwrap().unwrap().produce(record("a")).await.unwrap();

    // A topic that an earlier lookup did not find is found as well.
    client.partition_client("later", 0).await.unwrap_err();
    broker.create_topic("later", 1).unwrap();
    client.partition_client("later", 0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_is_unknown_to_appends_and_reads() {
    for old in [false, true] {
        let broker = EmbeddedCluster::builder().topic("wal", 1);
        let broker = match old {
            true => broker.dialect(kwal_testkit::Dialect::kafka_2_8()),
            false => broker,
        };
        let broker = broker.start_in_memory().unwrap();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        broker.delete_topic("wal");
        let (result, took) = timed(partition.fetch(0)).await;
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::UnknownTopic { .. }), "{error:?}");
        assert_eq!(took, deadlines().unknown_topic);
        let (result, took) = timed(partition.produce(record("a"))).await;
        result.unwrap_err();
        assert_eq!(took, deadlines().unknown_topic);
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_leader_is_retried() {
    // Version 13 has an error code for the whole response, earlier ones have one for each topic.
    for newest in [13, 12, 4] {
        let broker = EmbeddedCluster::builder()
            .topic("wal", 1)
            .cap(ApiKey::METADATA, Versions::new(0, newest))
            .start_in_memory()
            .unwrap();
        let client = builder(&broker).build().await.unwrap();
        broker.on_times(ApiKey::METADATA, 3, Fault::Error(ErrorCode::LEADER_NOT_AVAILABLE));
        client.partition_client("wal", 0).await.unwrap().produce(record("a")).await.unwrap();
        assert_eq!(broker.faults_left(), 0);
        assert_eq!(log(&broker), ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_lookups_share_one_metadata_request() {
    let broker = broker();
    broker.create_topic("wide", 100).unwrap();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    assert_eq!(wire.count(ApiKey::METADATA), 1);
    broker.on(ApiKey::METADATA, Fault::DelayReply(Duration::from_secs(1)));
    let opening = (0..100).map(|partition| client.partition_client("wide", partition).into_future());
    let partitions: Vec<_> = join_all(opening).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(wire.count(ApiKey::METADATA), 2);

    // If all partitions of a leader move, one refresh is enough for all of them.
    broker.on_times(ApiKey::PRODUCE, 100, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    let appends =
        join_all(partitions.iter().map(|partition| partition.produce(record("a")).into_future())).await;
    assert!(appends.iter().all(|produced| produced.as_ref().unwrap().attempts == 2));
    assert_eq!(wire.count(ApiKey::METADATA), 3);
}

#[tokio::test(start_paused = true)]
async fn if_the_caller_that_refreshes_is_dropped_another_one_refreshes() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    broker.on(ApiKey::METADATA, Fault::DelayReply(Duration::from_secs(9)));
    let first = tokio::spawn(client.partition_client("wal", 0).into_future());
    settle().await;
    let second = tokio::spawn(client.partition_client("wal", 1).into_future());
    settle().await;
    first.abort();
    let (partition, took) = timed(second).await;
    partition.unwrap().unwrap();
    assert!(took < Duration::from_secs(9), "{took:?}");
    for polls in 1..5 {
        let client = wire.client().await;
        polled(client.partition_client("wal", 0), polls).await;
        client.partition_client("wal", 0).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn calls_follow_the_leader() {
    let network = MemoryNetwork::default();
    // Two brokers with the same topic id.
    let start = |name: &str| {
        let address = HostPort::new(name, 9092);
        EmbeddedCluster::builder().seed(5).topic("wal", 1).start_in(&network, address).unwrap()
    };
    let (one, two) = (start("one"), start("two"));
    let wire = Wire::to(&one);
    let lead = |leader: i32| {
        wire.edit::<MetadataRequest>(move |response| {
            let broker = |node_id, host: &str| MetadataBroker {
                node_id,
                host: host.to_owned(),
                port: 9092,
                ..MetadataBroker::default()
            };
            response.brokers = vec![broker(1, "one"), broker(2, "two")];
            for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                partition.leader_id = leader;
            }
        });
    };
    lead(1);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    partition.fetch(0).await.unwrap();
    assert_eq!((log(&one).len(), log(&two).len()), (1, 0));

    lead(2);
    replicate(&one, &two, 0);
    one.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    let before = wire.count(ApiKey::METADATA);
    assert_eq!(partition.produce(record("b")).await.unwrap().attempts, 2);
    assert_eq!(wire.count(ApiKey::METADATA), before + 1);
    assert_eq!((log(&one).len(), log(&two).len()), (1, 2));
    assert_eq!(two.requests(ApiKey::FETCH), 1, "it looks up the last acknowledged batch");
    partition.fetch(0).await.unwrap();
    assert_eq!(two.requests(ApiKey::FETCH), 2, "reads use the leader that appends have found");
    assert_eq!(wire.stamps()[1], wire.stamps()[2], "the same batch");

    // A broker that was killed is noticed by its closed connections. The brokers give out ids on their own.
    wire.edit::<InitProducerIdRequest>(|response| response.producer_id += 1);
    let partition = open_over(&wire).await;
    partition.fetch(0).await.unwrap();
    lead(1);
    two.stop(1).unwrap();
    let before = wire.count(ApiKey::METADATA);
    partition.produce(record("c")).await.unwrap();
    partition.fetch(0).await.unwrap();
    assert_eq!(log(&one), ["a", "c"]);
    assert_eq!(wire.count(ApiKey::METADATA), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_moved_is_found_at_its_new_address() {
    let network = MemoryNetwork::default();
    let start = |name: &str| {
        let address = HostPort::new(name, 9092);
        EmbeddedCluster::builder().seed(5).topic("wal", 1).start_in(&network, address).unwrap()
    };
    let old = start("old");
    let addresses = vec!["old:9092".to_owned(), "new:9092".to_owned()];
    let client = ClientBuilder::new(addresses).connector(network.clone()).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    drop(old);
    let new = start("new");
    partition.produce(record("a")).await.unwrap();
    assert_eq!(log(&new), ["a"]);
    assert_eq!(client.brokers()[0].1.to_string(), "new:9092");
}

#[tokio::test(start_paused = true)]
async fn a_new_address_is_used_even_if_the_old_one_still_responds() {
    let network = MemoryNetwork::default();
    let start = |name: &str| {
        let address = HostPort::new(name, 9092);
        EmbeddedCluster::builder().seed(5).topic("wal", 1).start_in(&network, address).unwrap()
    };
    let (old, new) = (start("old"), start("new"));
    let wire = Wire::to(&old);
    let partition = open_over(&wire).await;
    wire.edit::<MetadataRequest>(|response| response.brokers[0].host = "new".to_owned());
    old.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    partition.produce(record("a")).await.unwrap();
    assert_eq!((log(&old).len(), log(&new).len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn calls_follow_the_controller() {
    let network = MemoryNetwork::default();
    let start = |name: &str| {
        let address = HostPort::new(name, 9092);
        EmbeddedCluster::builder().start_in(&network, address).unwrap()
    };
    let (one, two) = (start("one"), start("two"));
    let wire = Wire::to(&one);
    let client = wire.client().await;
    let controller = client.controller_client().await.unwrap();
    wire.edit::<MetadataRequest>(|response| {
        let two = MetadataBroker { node_id: 2, host: "two".to_owned(), port: 9092, ..Default::default() };
        response.brokers.push(two);
        response.controller_id = 2;
    });
    one.on(ApiKey::CREATE_TOPICS, Fault::Error(ErrorCode::NOT_CONTROLLER));
    controller.create_topic("a", 1, 1).await.unwrap();
    assert_eq!((one.topics().len(), two.topics().len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn invalid_names_are_rejected_before_anything_is_sent() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let controller = client.controller_client().await.unwrap();
    let before = wire.count(ApiKey::METADATA);
    for name in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
        let errors = [
            client.partition_client(name, 0).await.unwrap_err(),
            controller.create_topic(name, 1, 1).await.unwrap_err(),
            controller.delete_topic(name).await.unwrap_err(),
        ];
        assert!(
            errors.iter().all(|error| matches!(error.kind(), ErrorKind::InvalidInput { .. })),
            "{errors:?}"
        );
    }
    let error = client.partition_client("wal", -1).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
    assert_eq!(error.to_string(), "partition -1 of topic wal is negative");
    assert_eq!(wire.count(ApiKey::METADATA), before);
    assert_eq!(wire.count(ApiKey::CREATE_TOPICS) + wire.count(ApiKey::DELETE_TOPICS), 0);
}

#[tokio::test(start_paused = true)]
async fn a_compression_level_that_the_codec_lacks_is_rejected_before_anything_is_sent() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let before = wire.all().len();
    for (codec, level, levels) in [
        (Compression::Gzip, 0, "its levels are 1 to 9"),
        (Compression::Gzip, 10, "its levels are 1 to 9"),
        (Compression::Gzip, -1, "its levels are 1 to 9"),
        (Compression::Zstd, 23, "its levels are -131072 to 22"),
        (Compression::Zstd, i32::MIN, "its levels are -131072 to 22"),
        (Compression::Snappy, 1, "it has no levels"),
        (Compression::Lz4, i32::MAX, "it has no levels"),
        (Compression::None, 3, "it has no levels"),
    ] {
        let open = client.partition_client("wal", 0).compression_level(level).compression(codec);
        let error = open.await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
        let expected = match codec.is_built_in() {
            true => format!("wal/0: compression: {codec} has no level {level}: {levels}"),
            false => format!(
                "wal/0: compression: {codec} is not built in: enable the cargo feature `compression-{codec}`"
            ),
        };
        assert_eq!(error.to_string(), expected);
        assert!(!error.is_retriable());
    }
    assert_eq!(wire.all().len(), before);
    let lowest_and_highest = [(Compression::Gzip, 9), (Compression::Zstd, -131_072), (Compression::Zstd, 22)];
    for (codec, level) in lowest_and_highest.into_iter().filter(|(codec, _)| codec.is_built_in()) {
        let open = client.partition_client("wal", 0).compression(codec).compression_level(level);
        open.await.unwrap().produce(record("a")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn topics_are_created_listed_and_deleted() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let controller = client.controller_client().await.unwrap();
    let created = controller.create_topic("a", 3, 1).config("retention.ms", "-1").await.unwrap();
    assert_eq!((created.partitions, created.replication_factor, created.id), (3, 1, broker.topic_id("a")));
    let checked = controller.create_topic("b", 1, 1).validate_only(true).await.unwrap();
    assert_eq!(checked.partitions, 1);
    let listed = client.list_topics().await.unwrap();
    let names: Vec<_> = listed.iter().map(|topic| (topic.name.as_str(), topic.partitions)).collect();
    assert_eq!(names, [("a", 3), ("wal", 2)]);
    let error = controller.create_topic("a", 1, 1).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TOPIC_ALREADY_EXISTS));
    controller.delete_topic("a").await.unwrap();
    let (result, took) = timed(controller.delete_topic("a")).await;
    assert_eq!(result.unwrap_err().code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    assert_eq!(took, Duration::ZERO);
    assert_eq!(broker.topics(), ["wal"]);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_list_topics_is_not_an_empty_list() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    broker.on(ApiKey::METADATA, Fault::Error(ErrorCode::LEADER_NOT_AVAILABLE));
    assert_eq!(client.list_topics().await.unwrap().len(), 1);
    broker.on(ApiKey::METADATA, Fault::Error(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
    let error = client.list_topics().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_response_a_topic_that_exists_is_outcome_unknown() {
    use kwal_client::error::Outcome;
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let controller = client.controller_client().await.unwrap();
    let error = controller.create_topic("wal", 1, 1).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied);
    broker.on(ApiKey::CREATE_TOPICS, Fault::LoseReply);
    let error = controller.create_topic("a", 1, 1).await.unwrap_err();
    assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::TOPIC_ALREADY_EXISTS), Outcome::Unknown));
    broker.on(ApiKey::DELETE_TOPICS, Fault::LoseReply);
    let error = controller.delete_topic("a").await.unwrap_err();
    let code = Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!((error.code(), error.outcome()), (code, Outcome::Unknown));
    // The controller has moved and is looked up again.
    broker.on(ApiKey::CREATE_TOPICS, Fault::Error(ErrorCode::NOT_CONTROLLER));
    controller.create_topic("b", 1, 1).await.unwrap();
}
