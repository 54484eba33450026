//! Topic administration on each real Kafka and on the embedded broker, with the same results.

use std::collections::BTreeMap;
use std::sync::Arc;

use kwal_client::error::{ErrorKind, Outcome};
use kwal_client::record::Record;
use kwal_client::{
    Client, ClientBuilder, ConfigSource, ConfigValue, ControllerClient, DeleteBefore, Finding, OffsetAt,
    Severity, TopicDifference,
};
use kwal_protocol::error_code::ErrorCode;
use kwal_testkit::{Dialect, EmbeddedCluster};
use kwal_tests::kafka::{ClusterConfig, Kafka, Node, Version};
use tokio::task::yield_now;

macro_rules! everywhere {
    ($($test:ident),* $(,)?) => {
        $(async fn $test(kafka: &'static Kafka) {
            cases::$test(&kafka.bootstrap()[0]).await;
        })*

        kwal_tests::suite! { shared: [$($test),*], own: [] }

        mod embedded {
            $(#[tokio::test]
            async fn $test() {
                for dialect in [super::Dialect::kafka_4_3(), super::Dialect::kafka_3_9()] {
                    let cluster = super::EmbeddedCluster::builder().dialect(dialect).start().await.unwrap();
                    super::cases::$test(&cluster.bootstrap()[0]).await;
                }
            })*
        }
    };
}

everywhere![
    topics_created,
    topics_ensured,
    partitions_created,
    settings_altered,
    records_deleted,
    epochs_and_the_cluster,
    audits,
];

mod own_brokers {
    use super::*;

    kwal_tests::suite! { shared: [], own: [three_brokers, short_expiration_times] }

    async fn three_brokers(version: Version) {
        let kafka = Kafka::start(version, &ClusterConfig { nodes: 3, ..ClusterConfig::default() });
        let (client, controller) = connect(&kafka.bootstrap()).await;
        assert_eq!(controller.describe_cluster().await.unwrap().brokers.len(), 3);
        let good = |name: &str, replicas: i16| {
            let create = controller.create_topic(name, 2, replicas).config("min.insync.replicas", "2");
            create.config("retention.ms", "-1")
        };
        good("good", 3).await.unwrap();
        assert_eq!(controller.audit("good").await.unwrap(), []);
        // The other brokers learn of new partitions and altered configs a moment later.
        controller.create_partitions("good", 4).await.unwrap();
        client.partition_client("good", 3).await.unwrap().produce(one()).await.unwrap();
        let alter = controller.alter_topic_configs("good").append("cleanup.policy", "compact");
        alter.set("unclean.leader.election.enable", "true").await.unwrap();
        until(&controller, "good", |configs| configs["cleanup.policy"].value.as_deref() != Some("delete"))
            .await;
        let found = settings(&controller.audit("good").await.unwrap());
        assert_eq!(found, ["unclean.leader.election.enable", "cleanup.policy"]);

        good("two", 2).await.unwrap();
        assert_eq!(
            settings(&controller.audit("two").await.unwrap()),
            ["replication factor", "min.insync.replicas"]
        );
        let create = controller.create_topic("assigned", -1, -1).config("min.insync.replicas", "2");
        let created = create.assignment(vec![vec![2, 3, 1], vec![3, 1, 2]]).await.unwrap();
        assert_eq!((created.partitions, created.replication_factor), (2, 3));

        // While a broker is down, its replicas are missing, and appends still succeed.
        let node = Arc::clone(kafka.cluster().unwrap().node(3));
        tokio::task::spawn_blocking(move || Node::stop(&node)).await.unwrap().unwrap();
        let finding = loop {
            let findings = controller.audit("assigned").await.unwrap();
            if let Some(found) = findings.into_iter().find(|finding| finding.setting == "in-sync replicas") {
                break found;
            }
            yield_now().await;
        };
        assert_eq!((finding.severity, &finding.brokers[..]), (Severity::Warning, &[3][..]), "{finding}");
        client.partition_client("assigned", 0).await.unwrap().produce(one()).await.unwrap();
    }

    async fn short_expiration_times(version: Version) {
        let properties =
            [("producer.id.expiration.ms", "60000"), ("transactional.id.expiration.ms", "3600000")];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let kafka = Kafka::start(version, &ClusterConfig { properties, ..ClusterConfig::default() });
        let (_, controller) = connect(&kafka.bootstrap()).await;
        controller.create_topic("wal", 1, 1).await.unwrap();
        let findings = controller.audit("wal").await.unwrap();
        for (name, severity, value) in [
            ("producer.id.expiration.ms", Severity::Error, "60000 (1 minute)"),
            ("transactional.id.expiration.ms", Severity::Warning, "3600000 (1 hour)"),
        ] {
            let found = findings.iter().find(|finding| finding.setting == name).unwrap();
            assert_eq!((found.severity, found.found.as_deref()), (severity, Some(value)), "{found}");
            assert_eq!((&found.brokers[..], found.source), (&[1][..], Some(ConfigSource::StaticBroker)));
        }
    }
}

mod cases {
    use super::*;

    pub(super) async fn topics_created(address: &str) {
        let (client, controller) = connect(&[address.to_owned()]).await;
        let topic = unique("created");
        let create = || controller.create_topic(&topic, -1, -1).assignment(vec![vec![1], vec![1]]);
        let checked = create().validate_only(true).await.unwrap();
        assert_eq!((checked.id, checked.partitions, checked.replication_factor), (None, 2, 1));
        let created = create().config("retention.ms", "-1").await.unwrap();
        assert_eq!((created.partitions, created.replication_factor), (2, 1));
        assert!(created.id.is_some());
        client.partition_client(&topic, 1).await.unwrap().produce(one()).await.unwrap();
        let other = unique("other");
        for (create, code) in [
            (controller.create_topic(&topic, 1, 1), ErrorCode::TOPIC_ALREADY_EXISTS),
            (controller.create_topic(&other, 1, 30), ErrorCode::INVALID_REPLICATION_FACTOR),
            (controller.create_topic(&other, 1, 1).config("nope", "1"), ErrorCode::INVALID_CONFIG),
            (
                controller.create_topic(&other, -1, -1).assignment(vec![vec![77]]),
                ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            ),
        ] {
            let error = create.await.unwrap_err();
            assert_eq!((error.code(), error.outcome()), (Some(code), Outcome::NotApplied), "{error}");
            assert!(error.to_string().contains("message of the broker: "), "{error}");
        }
        controller.delete_topic(&topic).await.unwrap();
        let error = controller.delete_topic(&topic).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    }

    pub(super) async fn topics_ensured(address: &str) {
        let (_, controller) = connect(&[address.to_owned()]).await;
        let topic = unique("ensured");
        let ensure = || controller.ensure_topic(&topic, 2, 1).config("retention.ms", "-1");
        let (one, other) = tokio::join!(ensure().into_future(), ensure().into_future());
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(
            !(one.created && other.created) && one.differences.is_empty() && other.differences.is_empty()
        );
        assert_eq!(one.id, other.id);
        let again = ensure().config("cleanup.policy", " delete ").await.unwrap();
        assert_eq!((again.created, &again.differences[..], again.id), (false, &[][..], one.id));
        let differs = controller.ensure_topic(&topic, 3, 2).config("retention.ms", "7").await.unwrap();
        let expected = [
            TopicDifference::Partitions { requested: 3, found: 2 },
            TopicDifference::ReplicationFactor { requested: 2, found: 1 },
            TopicDifference::Config {
                name: "retention.ms".to_owned(),
                requested: "7".to_owned(),
                found: Some((Some("-1".to_owned()), ConfigSource::Topic)),
            },
        ];
        assert_eq!(differs.differences, expected);
    }

    pub(super) async fn partitions_created(address: &str) {
        let (client, controller) = connect(&[address.to_owned()]).await;
        let topic = unique("grown");
        controller.create_topic(&topic, 1, 1).await.unwrap();
        controller.create_partitions(&topic, 3).validate_only(true).await.unwrap();
        controller.create_partitions(&topic, 2).await.unwrap();
        client.partition_client(&topic, 1).await.unwrap().produce(one()).await.unwrap();
        controller.create_partitions(&topic, 3).assignment(vec![vec![1]]).await.unwrap();
        client.partition_client(&topic, 2).await.unwrap().produce(one()).await.unwrap();
        let error = controller.create_partitions(&topic, 3).await.unwrap_err();
        let code = Some(ErrorCode::INVALID_PARTITIONS);
        assert_eq!((error.code(), error.outcome()), (code, Outcome::NotApplied), "{error}");
        let error = controller.create_partitions(unique("unknown"), 3).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), "{error}");
    }

    pub(super) async fn settings_altered(address: &str) {
        let (client, controller) = connect(&[address.to_owned()]).await;
        let topic = unique("altered");
        controller.create_topic(&topic, 1, 1).config("retention.ms", "-1").await.unwrap();
        let partition = client.partition_client(&topic, 0).await.unwrap();
        let alter = || controller.alter_topic_configs(&topic);
        alter().set("retention.bytes", "5").validate_only(true).await.unwrap();
        let changes = alter().set("retention.bytes", " 1000 ").append("cleanup.policy", "compact");
        changes.delete("retention.ms").set("max.message.bytes", "100").await.unwrap();
        let is = |configs: &BTreeMap<String, ConfigValue>, name: &str, value: &str, source| {
            configs[name].value.as_deref() == Some(value) && configs[name].source == source
        };
        until(&controller, &topic, |configs| {
            is(configs, "retention.bytes", "1000", ConfigSource::Topic)
                && is(configs, "cleanup.policy", "delete,compact", ConfigSource::Topic)
                && is(configs, "retention.ms", "604800000", ConfigSource::Default)
        })
        .await;
        let large = vec![Record::new("key", vec![b'x'; 1000])];
        let error = loop {
            // The partition applies altered configs a moment later.
            match partition.produce(large.clone()).await {
                Ok(_) => yield_now().await,
                Err(error) => break error,
            }
        };
        assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { limit: None, .. }), "{error:?}");
        alter().subtract("cleanup.policy", "compact").delete("max.message.bytes").await.unwrap();
        until(&controller, &topic, |configs| is(configs, "cleanup.policy", "delete", ConfigSource::Topic))
            .await;
        let error = alter().set("retention.ms", "soon").await.unwrap_err();
        assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::INVALID_CONFIG), Outcome::NotApplied));
        let some = controller.describe_topic_configs(&topic).only(["retention.bytes"]).await.unwrap();
        assert_eq!(some.len(), 1);
        assert_eq!(some["retention.bytes"].synonyms.last().unwrap().name, "log.retention.bytes");
    }

    pub(super) async fn records_deleted(address: &str) {
        let (client, controller) = connect(&[address.to_owned()]).await;
        let topic = unique("pruned");
        controller.create_topic(&topic, 1, 1).await.unwrap();
        let partition = client.partition_client(&topic, 0).await.unwrap();
        for _ in 0..5 {
            partition.produce(one()).await.unwrap();
        }
        for (before, start) in [(0, 0), (3, 3), (2, 3)] {
            assert_eq!(partition.delete_records(before).await.unwrap(), start);
            assert_eq!(partition.get_offset(OffsetAt::Earliest).await.unwrap(), start);
        }
        let error = partition.delete_records(6).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::BeyondEnd { offset: 6, end: 5, .. }), "{error:?}");
        assert_eq!(partition.delete_records(DeleteBefore::HighWatermark).await.unwrap(), 5);
        assert_eq!(partition.produce(one()).await.unwrap().base_offset, Some(5));
        let compacted = unique("compacted");
        controller.create_topic(&compacted, 1, 1).config("cleanup.policy", "compact").await.unwrap();
        let compacted = client.partition_client(compacted, 0).await.unwrap();
        // After an append, the broker knows that it leads: otherwise the first attempt could end in doubt.
        compacted.produce(one()).await.unwrap();
        let error = compacted.delete_records(0).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NotDeletable), "{error:?}");
    }

    pub(super) async fn epochs_and_the_cluster(address: &str) {
        let (client, controller) = connect(&[address.to_owned()]).await;
        let topic = unique("epochs");
        controller.create_topic(&topic, 1, 1).await.unwrap();
        let partition = client.partition_client(&topic, 0).await.unwrap();
        partition.produce(one()).await.unwrap();
        let end = partition.offset_for_leader_epoch(0).await.unwrap().unwrap();
        assert_eq!((end.leader_epoch, end.end_offset), (0, 1));
        assert_eq!(partition.offset_for_leader_epoch(1).await.unwrap(), None);
        let description = controller.describe_cluster().await.unwrap();
        assert_eq!(description.cluster_id, client.cluster_id());
        let brokers: Vec<_> =
            description.brokers.into_iter().map(|broker| (broker.id, broker.address)).collect();
        assert_eq!(brokers, client.brokers());
        assert!(
            brokers.iter().any(|(id, _)| Some(*id) == description.controller),
            "{:?}",
            description.controller
        );
    }

    /// Audits a topic for each bad setting. The topics have one replica, which is a finding of its own.
    pub(super) async fn audits(address: &str) {
        let (client, controller) = connect(&[address.to_owned()]).await;
        let mut replication = vec!["replication factor", "min.insync.replicas"];
        if client.brokers().len() == 1 {
            replication.push("transaction.state.log.replication.factor");
        }
        let good = [("retention.ms", "-1"), ("min.insync.replicas", "1")];
        for (name, value, found) in [
            ("retention.ms", "-1", &[][..]),
            ("min.insync.replicas", "2", &[]),
            ("max.message.bytes", "1048588", &[]),
            ("unclean.leader.election.enable", "true", &["unclean.leader.election.enable"]),
            ("cleanup.policy", "compact", &["cleanup.policy"]),
            ("cleanup.policy", "compact,delete", &["cleanup.policy"]),
            ("retention.ms", "86400000", &["retention.ms", "message.timestamp.type"]),
            ("retention.bytes", "1000000", &["retention.bytes"]),
            ("max.message.bytes", "1000000", &["max.message.bytes"]),
            ("message.timestamp.before.max.ms", "1000", &["message.timestamp.before.max.ms"]),
            ("message.timestamp.after.max.ms", "1000", &["message.timestamp.after.max.ms"]),
            ("message.timestamp.type", "LogAppendTime", &[]),
        ] {
            let topic = unique("audited");
            let mut create = controller.create_topic(&topic, 1, 1).config(name, value);
            for (other, value) in good.into_iter().filter(|(other, _)| *other != name) {
                create = create.config(other, value);
            }
            create.await.unwrap();
            let findings = controller.audit(&topic).await.unwrap();
            let mut expected = [&replication[..], found].concat();
            expected.sort_unstable();
            let mut reported = settings(&findings);
            reported.sort_unstable();
            assert_eq!(reported, expected, "{name} = {value}: {findings:#?}");
        }
    }
}

async fn connect(bootstrap: &[String]) -> (Client, ControllerClient) {
    let client = ClientBuilder::new(bootstrap.to_vec()).build().await.unwrap();
    let controller = client.controller_client().await.unwrap();
    (client, controller)
}

fn one() -> Vec<Record> {
    vec![Record::new("key", "value")]
}

fn settings(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.setting).collect()
}

/// Describes the configs of a topic until the broker has applied a change.
async fn until(
    controller: &ControllerClient,
    topic: &str,
    is_applied: impl Fn(&BTreeMap<String, ConfigValue>) -> bool,
) {
    while !is_applied(&controller.describe_topic_configs(topic).await.unwrap()) {
        yield_now().await;
    }
}

fn unique(what: &str) -> String {
    format!("{what}-{:016x}", fastrand::u64(..))
}
