//! The audit of a topic: what endangers a write-ahead log is found, and what could not be checked too.

use kwal_client::{ClientBuilder, ConfigSource, ControllerClient, Finding, Limits, Severity};
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{DescribeConfigsRequest, MetadataRequest},
};
use kwal_testkit::{EmbeddedCluster, Fault};

use crate::support::{Wire, deadlines, timed};

/// The configs with which an audit finds nothing.
const GOOD: [(&str, &str); 3] =
    [("min.insync.replicas", "2"), ("retention.ms", "-1"), ("max.message.bytes", "20000000")];

/// A topic as a write-ahead log needs it, on three brokers, and one thing that is wrong with it.
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
        let builder = settings.iter().fold(builder, |builder, (name, value)| builder.setting(name, value));
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
async fn a_well_configured_topic_has_no_finding() {
    assert_eq!(Audited::new(&[], &[]).await.findings().await, []);
    let topic = [("message.timestamp.type", "LogAppendTime"), ("message.timestamp.before.max.ms", "1")];
    assert_eq!(Audited::new(&topic, &[]).await.findings().await, [], "only the clock of the broker matters");
}

#[tokio::test(start_paused = true)]
async fn each_dangerous_config_of_the_topic_is_found() {
    use Severity::{Error, Info, Warning};
    let age = ("message.timestamp.type", Warning, "CreateTime");
    type Expected<'a> = &'a [(&'a str, Severity, &'a str)];
    let cases: &[(&str, &str, Expected<'_>)] = &[
        ("min.insync.replicas", "1", &[("min.insync.replicas", Error, "1")]),
        ("min.insync.replicas", "3", &[("min.insync.replicas", Warning, "3")]),
        ("min.insync.replicas", "4", &[("min.insync.replicas", Warning, "4")]),
        ("unclean.leader.election.enable", "true", &[("unclean.leader.election.enable", Error, "true")]),
        ("cleanup.policy", "compact", &[("cleanup.policy", Error, "compact")]),
        ("cleanup.policy", "delete,compact", &[("cleanup.policy", Error, "delete,compact")]),
        ("retention.ms", "604800000", &[("retention.ms", Warning, "604800000 (7 days)"), age]),
        ("retention.bytes", "1000", &[("retention.bytes", Warning, "1000")]),
        ("max.message.bytes", "1048588", &[]),
        ("max.message.bytes", "1048587", &[("max.message.bytes", Info, "1048587")]),
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
        let own = findings.iter().filter(|finding| finding.setting == *name);
        assert!(own.clone().all(|own| own.source == Some(ConfigSource::Topic)));
        assert_eq!(own.count() == 0, expected.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn retention_is_not_a_finding_where_nothing_is_deleted() {
    for policy in ["compact", ""] {
        let audited = Audited::new(&[("cleanup.policy", policy), ("retention.ms", "5")], &[]).await;
        let settings: Vec<_> = audited.findings().await.into_iter().map(|one| one.setting).collect();
        assert_eq!(settings, if policy.is_empty() { vec![] } else { vec!["cleanup.policy"] });
    }
}

#[tokio::test(start_paused = true)]
async fn each_dangerous_config_of_the_brokers_is_found() {
    use Severity::{Error, Warning};
    for (name, value, severity, found) in [
        ("producer.id.expiration.ms", "3600000", Warning, "3600000 (1 hour)"),
        ("producer.id.expiration.ms", "60000", Error, "60000 (1 minute)"),
        ("transactional.id.expiration.ms", "86400000", Warning, "86400000 (1 day)"),
        ("transactional.id.expiration.ms", "172800000", Warning, "172800000 (2 days)"),
        ("transaction.state.log.replication.factor", "4", Error, "4"),
        ("transaction.state.log.replication.factor", "1", Warning, "1"),
        ("transaction.state.log.min.isr", "1", Warning, "1"),
        ("transaction.state.log.min.isr", "3", Warning, "3"),
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
async fn replication_problems_are_found() {
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
                (Error, "min.insync.replicas", Some("2")),
            ],
        ),
    ] {
        let assignment = replicas.iter().map(|replicas| replicas.to_vec()).collect();
        let create = audited.controller.create_topic(topic, -1, -1).assignment(assignment);
        GOOD.iter().fold(create, |create, (name, value)| create.config(*name, *value)).await.unwrap();
        assert_eq!(short(&audited.controller.audit(topic).await.unwrap()), *expected, "{topic}");
    }
    for (broker, severity, missing) in [(3, Warning, &[3][..]), (2, Error, &[2, 3])] {
        audited.broker.stop(broker).unwrap();
        let findings = audited.findings().await;
        let found = Some("missing in all partitions");
        assert_eq!(short(&findings), [(severity, "in-sync replicas", found)]);
        assert_eq!(findings[0].brokers, missing);
    }
    let findings = audited.controller.audit("one").await.unwrap();
    assert!(short(&findings).contains(&(Error, "leader", Some("missing in partition 1"))), "{findings:?}");
}

#[tokio::test(start_paused = true)]
async fn findings_name_the_partition_and_its_brokers() {
    let audited = Audited::new(&[], &[]).await;
    audited.wire.edit::<MetadataRequest>(|response| {
        let all = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        all.filter(|partition| partition.partition_index == 1).for_each(|it| it.isr_nodes.truncate(1));
    });
    let findings = audited.findings().await;
    assert_eq!(short(&findings), [(Severity::Error, "in-sync replicas", Some("missing in partition 1"))]);
    // Its leader, broker 2, is the first of its replicas.
    assert_eq!(findings[0].brokers, [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn configs_that_the_broker_does_not_report_are_findings() {
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
    assert_eq!(findings[0].setting, "retention.ms", "the most severe first");
    let text = hidden[3].to_string();
    let expected_text = "unknown: producer.id.expiration.ms of brokers 1, 2, 3; should be at least 86400000 (1 day). \
                The broker did not return this config; it may be too old to have it.";
    assert_eq!(text, expected_text);
}

#[tokio::test(start_paused = true)]
async fn configs_that_the_client_may_not_read_are_findings() {
    let audited = Audited::new(&[], &[]).await;
    audited.broker.on(ApiKey::DESCRIBE_CONFIGS, Fault::Error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    audited.broker.on_all(ApiKey::DESCRIBE_CONFIGS, Fault::Error(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
    let findings = audited.findings().await;
    let expected = [
        (Severity::Unknown, "topic configs", None),
        (Severity::Unknown, "producer.id.expiration.ms", None),
        (Severity::Unknown, "transactional.id.expiration.ms", None),
        (Severity::Unknown, "transaction.state.log.replication.factor", None),
        (Severity::Unknown, "transaction.state.log.min.isr", None),
    ];
    assert_eq!(short(&findings), expected);
    assert!(findings[0].why.contains("TOPIC_AUTHORIZATION_FAILED"), "{}", findings[0]);
    assert!(
        findings[0].why.ends_with("Allow this client `DescribeConfigs` on the topic."),
        "{}",
        findings[0]
    );
    assert!(findings[1].why.contains("CLUSTER_AUTHORIZATION_FAILED"), "{}", findings[1]);
    assert!(
        findings[1].why.ends_with("Allow this client `DescribeConfigs` on the cluster."),
        "{}",
        findings[1]
    );
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_respond_is_a_finding() {
    let audited = Audited::new(&[], &[]).await;
    // The first response is about the topic, the later ones are about the brokers.
    audited.broker.on(ApiKey::DESCRIBE_CONFIGS, Fault::Pass);
    audited.broker.on(ApiKey::DESCRIBE_CONFIGS, Fault::BlackHole);
    let (findings, took) = timed(audited.findings()).await;
    assert_eq!(took, deadlines().request);
    let expected: Vec<_> = findings.iter().map(|one| (one.severity, &one.brokers[..])).collect();
    assert_eq!(expected, [(Severity::Unknown, &[1][..]); 4]);
}

#[tokio::test(start_paused = true)]
async fn findings_depend_on_the_limits_of_the_client() {
    for (batch, found) in [(1 << 20, 0), (2 << 20, 1), (Limits::default().batch, 0)] {
        let limits = Limits::default().batch(batch);
        let audited =
            Audited::with(&[("max.message.bytes", "1048588")], &[], |client| client.limits(limits)).await;
        assert_eq!(audited.findings().await.len(), found, "{batch}");
    }
}
