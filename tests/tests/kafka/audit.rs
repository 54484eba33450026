//! What the audit says of a setting is what brokers do with it.

use std::sync::Arc;
use std::time::Duration;

use kwal_client::error::Error;
use kwal_client::record::Record;
use kwal_client::{Client, ClientBuilder, ControllerClient, Deadlines, Finding, Severity};
use kwal_protocol::error_code::ErrorCode;
use kwal_tests::kafka::{ClusterConfig, Kafka, Node, Version};
use time::OffsetDateTime;
use tokio::task::yield_now;

kwal_tests::suite! {
    shared: [one_replica_is_always_enough, appends_are_rejected_as_announced],
    own: [required_replicas],
}

/// Brokers take the smaller of `min.insync.replicas` and the number of replicas.
async fn one_replica_is_always_enough(kafka: &'static Kafka) {
    let (client, controller) = connect(kafka).await;
    for min in ["1", "2", "3"] {
        let topic = unique("one-replica");
        let create = controller.create_topic(&topic, 1, 1).config("min.insync.replicas", min);
        create.config("retention.ms", "-1").await.unwrap();
        append(&client, &topic, Record::new("key", "value")).await.unwrap();
        let findings = controller.audit(&topic).await.unwrap();
        let expected = [
            ("replication factor", Severity::Error, "1 in all partitions"),
            ("min.insync.replicas", Severity::Error, min),
            ("transaction.state.log.replication.factor", Severity::Warning, "1"),
        ];
        assert_eq!(short(&findings), expected, "{findings:#?}");
    }
}

async fn appends_are_rejected_as_announced(kafka: &'static Kafka) {
    let (client, controller) = connect(kafka).await;
    let now = OffsetDateTime::now_utc();
    let at =
        |hours: i64| Record { timestamp: now + time::Duration::hours(hours), ..Record::new("key", "value") };
    let keyless = || Record { timestamp: now, ..Record::new(None::<&str>, "value") };
    let (before, after) = ("message.timestamp.before.max.ms", "message.timestamp.after.max.ms");
    let append_time = ("message.timestamp.type", "LogAppendTime");
    let (no_key, time) = (Some(ErrorCode::INVALID_RECORD), Some(ErrorCode::INVALID_TIMESTAMP));
    for (settings, record, rejected) in [
        (&[("cleanup.policy", "compact")][..], keyless(), no_key),
        (&[("cleanup.policy", "compact,delete")], keyless(), no_key),
        (&[("cleanup.policy", "compact")], at(0), None),
        (&[(before, "3600000")], at(-2), time),
        (&[(before, "3600000")], at(0), None),
        (&[(after, "3600000")], at(2), time),
        (&[(after, "3600000")], at(0), None),
        (&[(before, "1"), (after, "1"), append_time], at(-2), None),
        (&[(before, "1"), (after, "1"), append_time], at(2), None),
    ] {
        let topic = unique("rejects");
        let create = controller.create_topic(&topic, 1, 1);
        settings.iter().fold(create, |create, (name, value)| create.config(*name, *value)).await.unwrap();
        let appended = append(&client, &topic, record).await;
        assert_eq!(appended.as_ref().err().and_then(Error::code), rejected, "{settings:?}: {appended:?}");
        assert_eq!(appended.is_err(), rejected.is_some(), "{settings:?}: {appended:?}");
    }
}

/// Followers fetch a batch that is larger than `replica.fetch.max.bytes`, so the audit does not look at that.
async fn required_replicas(version: Version) {
    let properties = vec![("replica.fetch.max.bytes".to_owned(), "1000".to_owned())];
    let config = ClusterConfig { nodes: 3, controllers: 1, properties, ..ClusterConfig::default() };
    let kafka = Kafka::start(version, &config);
    let (client, controller) = connect(&kafka).await;
    // The name of a topic, its replicas, and what it has in `min.insync.replicas`.
    let topics = [
        ("one-of-two", vec![1, 3], "1"),
        ("two-of-two", vec![1, 3], "2"),
        ("four-of-three", vec![1, 2, 3], "4"),
    ];
    for (topic, replicas, min) in &topics {
        let create = controller.create_topic(*topic, -1, -1).assignment(vec![replicas.clone()]);
        create.config("min.insync.replicas", *min).await.unwrap();
        append(&client, topic, Record::new("key", vec![7; 100_000])).await.unwrap();
    }
    let announced = async |topic| {
        let findings = controller.audit(topic).await.unwrap();
        findings.into_iter().find(|one| one.setting == "min.insync.replicas").map(|one| one.severity)
    };
    for (topic, severity) in [
        ("one-of-two", Severity::Error),
        ("two-of-two", Severity::Warning),
        ("four-of-three", Severity::Warning),
    ] {
        assert_eq!(announced(topic).await, Some(severity), "{topic}");
    }
    let node = Arc::clone(kafka.cluster().unwrap().node(3));
    tokio::task::spawn_blocking(move || Node::stop(&node)).await.unwrap().unwrap();
    for ((topic, ..), accepts) in topics.iter().zip([true, false, false]) {
        let severity = if accepts { Severity::Warning } else { Severity::Error };
        let missing = loop {
            let findings = controller.audit(*topic).await.unwrap();
            if let Some(found) = findings.into_iter().find(|finding| finding.setting == "in-sync replicas") {
                break found;
            }
            yield_now().await;
        };
        assert_eq!((missing.severity, &missing.brokers[..]), (severity, &[3][..]), "{topic}: {missing}");
        let appended = append(&client, topic, Record::new("key", "value")).await;
        assert_eq!(appended.is_ok(), accepts, "{topic}: {appended:?}");
        let text = appended.err().map(|error| format!("{error:?}")).unwrap_or_default();
        assert_eq!(text.contains("NOT_ENOUGH_REPLICAS"), !accepts, "{topic}: {text}");
    }
}

async fn connect(kafka: &Kafka) -> (Client, ControllerClient) {
    let deadlines = Deadlines::default().operation(Duration::from_secs(5));
    let client = ClientBuilder::new(kafka.bootstrap()).deadlines(deadlines).build().await.unwrap();
    let controller = client.controller_client().await.unwrap();
    (client, controller)
}

async fn append(client: &Client, topic: &str, record: Record) -> Result<(), Error> {
    client.partition_client(topic, 0).await?.produce(vec![record]).await.map(drop)
}

fn short(findings: &[Finding]) -> Vec<(&str, Severity, &str)> {
    findings.iter().map(|one| (one.setting, one.severity, one.found.as_deref().unwrap_or_default())).collect()
}

fn unique(what: &str) -> String {
    format!("{what}-{:016x}", fastrand::u64(..))
}
