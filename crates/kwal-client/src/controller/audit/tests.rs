//! Each rule with the text of its findings.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kwal_protocol::messages::MetadataPartition;

use super::{
    check::{broker_configs, check},
    finding::{Finding, Severity},
    rules::{BROKER_RULES, Broker, PARTITION_RULES, TOPIC_RULES, Topic},
};
use crate::{
    config::{Deadlines, Limits},
    controller::{ConfigSource, ConfigValue, configs::ConfigKind},
};

fn config(value: &str, source: ConfigSource) -> ConfigValue {
    ConfigValue {
        value: Some(value.to_owned()),
        source,
        is_read_only: false,
        is_sensitive: false,
        synonyms: Vec::new(),
        kind: ConfigKind::Text,
    }
}

fn configs(values: &[(&str, &str)], source: ConfigSource) -> BTreeMap<String, ConfigValue> {
    values.iter().map(|(name, value)| ((*name).to_owned(), config(value, source))).collect()
}

/// A topic without findings: two partitions with three replicas.
fn topic() -> Topic {
    let values = [
        ("min.insync.replicas", "2"),
        ("unclean.leader.election.enable", "false"),
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("max.message.bytes", "20000000"),
        ("message.timestamp.type", "CreateTime"),
        ("message.timestamp.before.max.ms", "9223372036854775807"),
        ("message.timestamp.after.max.ms", "3600000"),
    ];
    Topic {
        partitions: vec![partition(0, 1, 3, 3), partition(1, 2, 3, 3)],
        configs: Ok(configs(&values, ConfigSource::Topic)),
        limits: Limits::default(),
    }
}

fn partition(index: i32, leader: i32, replicas: i32, in_sync: i32) -> MetadataPartition {
    MetadataPartition {
        partition_index: index,
        leader_id: leader,
        replica_nodes: (1..=replicas).collect(),
        isr_nodes: (1..=in_sync).collect(),
        ..MetadataPartition::default()
    }
}

/// A broker without findings.
fn broker(id: i32) -> Broker {
    let values = [
        ("producer.id.expiration.ms", "86400000"),
        ("transactional.id.expiration.ms", "604800000"),
        ("transaction.state.log.replication.factor", "3"),
        ("transaction.state.log.min.isr", "2"),
    ];
    Broker {
        id,
        configs: Ok(configs(&values, ConfigSource::StaticBroker)),
        operation: Deadlines::default().operation,
        brokers: 3,
    }
}

fn change(configs: &mut Result<BTreeMap<String, ConfigValue>, String>, changes: &[(&str, Option<&str>)]) {
    let configs = configs.as_mut().unwrap();
    for (name, value) in changes {
        match value {
            Some(value) => {
                let source = configs.get(*name).map_or(ConfigSource::Default, |config| config.source);
                configs.insert((*name).to_owned(), config(value, source));
            }
            None => {
                configs.remove(*name);
            }
        }
    }
}

fn topic_with(changes: &[(&str, Option<&str>)]) -> Topic {
    let mut topic = topic();
    change(&mut topic.configs, changes);
    topic
}

fn broker_with(id: i32, changes: &[(&str, Option<&str>)]) -> Broker {
    let mut broker = broker(id);
    change(&mut broker.configs, changes);
    broker
}

fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(Finding::to_string).collect()
}

/// Returns the text of each finding up to what is wanted.
fn heads(findings: &[Finding]) -> Vec<String> {
    let head = |text: String| text.split_once("; should be ").unwrap().0.to_owned();
    texts(findings).into_iter().map(head).collect()
}

struct PartitionCase {
    /// Leader, replication factor and number of in-sync replicas of each partition.
    partitions: &'static [(i32, i32, i32)],
    /// The text of each finding up to what is wanted.
    findings: &'static [&'static str],
}

impl PartitionCase {
    fn topic(&self) -> Topic {
        let partitions = (0..).zip(self.partitions);
        let partitions = partitions
            .map(|(index, (leader, replicas, in_sync))| partition(index, *leader, *replicas, *in_sync))
            .collect();
        Topic { partitions, ..topic() }
    }
}

struct ConfigCase {
    /// The configs that differ from the good ones. Without a value, the broker does not return the config.
    changes: &'static [(&'static str, Option<&'static str>)],
    /// The text of each finding up to what is wanted.
    findings: &'static [&'static str],
}

const PARTITION_CASES: &[PartitionCase] = &[
    PartitionCase { partitions: &[(1, 3, 3), (2, 3, 3)], findings: &[] },
    PartitionCase { partitions: &[(1, 4, 4), (2, 3, 3)], findings: &[] },
    PartitionCase {
        partitions: &[(1, 3, 3), (-1, 3, 0)],
        findings: &["error: leader: missing in partition 1"],
    },
    PartitionCase {
        partitions: &[(-1, 3, 0), (-1, 3, 0)],
        findings: &["error: leader: missing in all partitions"],
    },
    PartitionCase {
        partitions: &[(1, 1, 1), (2, 1, 1)],
        findings: &[
            "error: replication factor: 1 in all partitions",
            "error: min.insync.replicas: 2, set for the topic",
        ],
    },
    PartitionCase {
        partitions: &[(1, 3, 3), (2, 1, 1)],
        findings: &[
            "error: replication factor: 1 in partition 1",
            "error: min.insync.replicas: 2, set for the topic",
        ],
    },
    PartitionCase {
        partitions: &[(1, 2, 2), (2, 2, 2)],
        findings: &[
            "warning: replication factor: 2 in all partitions",
            "warning: min.insync.replicas: 2, set for the topic",
        ],
    },
    PartitionCase {
        partitions: &[(1, 2, 2), (2, 3, 3)],
        findings: &[
            "warning: replication factor: 2 in partition 0",
            "warning: min.insync.replicas: 2, set for the topic",
        ],
    },
    PartitionCase {
        partitions: &[(1, 3, 1), (2, 3, 3)],
        findings: &["error: in-sync replicas of brokers 2, 3: missing in partition 0"],
    },
    PartitionCase {
        partitions: &[(1, 3, 2), (2, 3, 1)],
        findings: &[
            "error: in-sync replicas of brokers 2, 3: missing in partition 1",
            "warning: in-sync replicas of broker 3: missing in partition 0",
        ],
    },
    PartitionCase {
        partitions: &[(1, 3, 2), (2, 3, 2)],
        findings: &["warning: in-sync replicas of broker 3: missing in all partitions"],
    },
    PartitionCase {
        partitions: &[(1, 5, 3), (2, 4, 3)],
        findings: &[
            "warning: in-sync replicas of broker 5: missing in partition 0",
            "warning: in-sync replicas of broker 4: missing in all partitions",
        ],
    },
    PartitionCase {
        partitions: &[(1, 2, 1), (2, 3, 3)],
        findings: &[
            "error: in-sync replicas of broker 2: missing in partition 0",
            "warning: replication factor: 2 in partition 0",
            "warning: min.insync.replicas: 2, set for the topic",
        ],
    },
];

const TOPIC_CASES: &[ConfigCase] = &[
    ConfigCase { changes: &[], findings: &[] },
    ConfigCase {
        changes: &[("min.insync.replicas", Some("4"))],
        findings: &["warning: min.insync.replicas: 4, set for the topic"],
    },
    ConfigCase {
        changes: &[("min.insync.replicas", Some("3"))],
        findings: &["warning: min.insync.replicas: 3, set for the topic"],
    },
    ConfigCase {
        changes: &[("min.insync.replicas", Some("1"))],
        findings: &["error: min.insync.replicas: 1, set for the topic"],
    },
    ConfigCase { changes: &[("min.insync.replicas", None)], findings: &["unknown: min.insync.replicas"] },
    ConfigCase {
        changes: &[("unclean.leader.election.enable", Some("true"))],
        findings: &["error: unclean.leader.election.enable: true, set for the topic"],
    },
    ConfigCase {
        changes: &[("unclean.leader.election.enable", None)],
        findings: &["unknown: unclean.leader.election.enable"],
    },
    ConfigCase {
        changes: &[("cleanup.policy", Some("compact"))],
        findings: &["error: cleanup.policy: compact, set for the topic"],
    },
    ConfigCase {
        changes: &[("cleanup.policy", Some("delete, compact"))],
        findings: &["error: cleanup.policy: delete, compact, set for the topic"],
    },
    ConfigCase {
        changes: &[
            ("cleanup.policy", Some("compact")),
            ("retention.ms", Some("5")),
            ("retention.bytes", None),
        ],
        findings: &["error: cleanup.policy: compact, set for the topic"],
    },
    ConfigCase {
        changes: &[("cleanup.policy", Some("")), ("retention.ms", Some("5")), ("retention.bytes", None)],
        findings: &[],
    },
    ConfigCase {
        changes: &[("cleanup.policy", None), ("retention.bytes", Some("5"))],
        findings: &["warning: retention.bytes: 5, set for the topic", "unknown: cleanup.policy"],
    },
    ConfigCase {
        changes: &[("retention.ms", Some("604800000"))],
        findings: &[
            "warning: retention.ms: 604800000 (7 days), set for the topic",
            "warning: message.timestamp.type: CreateTime, set for the topic",
        ],
    },
    ConfigCase {
        changes: &[("retention.ms", Some("604800000")), ("message.timestamp.type", Some("LogAppendTime"))],
        findings: &["warning: retention.ms: 604800000 (7 days), set for the topic"],
    },
    ConfigCase { changes: &[("retention.ms", None)], findings: &["unknown: retention.ms"] },
    ConfigCase { changes: &[("retention.ms", Some("soon"))], findings: &["unknown: retention.ms"] },
    ConfigCase {
        changes: &[("retention.bytes", Some("0"))],
        findings: &["warning: retention.bytes: 0, set for the topic"],
    },
    ConfigCase { changes: &[("retention.bytes", None)], findings: &["unknown: retention.bytes"] },
    ConfigCase {
        changes: &[("max.message.bytes", Some("1048587"))],
        findings: &["info: max.message.bytes: 1048587, set for the topic"],
    },
    ConfigCase { changes: &[("max.message.bytes", Some("1048588"))], findings: &[] },
    ConfigCase { changes: &[("max.message.bytes", Some("16777215"))], findings: &[] },
    ConfigCase { changes: &[("max.message.bytes", Some("134217728"))], findings: &[] },
    ConfigCase {
        changes: &[("max.message.bytes", Some("134217729"))],
        findings: &["error: max.message.bytes: 134217729, set for the topic"],
    },
    ConfigCase { changes: &[("max.message.bytes", Some("much"))], findings: &["unknown: max.message.bytes"] },
    ConfigCase { changes: &[("max.message.bytes", None)], findings: &["unknown: max.message.bytes"] },
    ConfigCase {
        changes: &[("message.timestamp.type", None)],
        findings: &["unknown: message.timestamp.type"],
    },
    ConfigCase {
        changes: &[("message.timestamp.before.max.ms", Some("3599999"))],
        findings: &["warning: message.timestamp.before.max.ms: 3599999, set for the topic"],
    },
    ConfigCase {
        changes: &[("message.timestamp.before.max.ms", Some("3600000"))],
        findings: &["info: message.timestamp.before.max.ms: 3600000 (1 hour), set for the topic"],
    },
    ConfigCase {
        changes: &[("message.timestamp.before.max.ms", None)],
        findings: &["unknown: message.timestamp.before.max.ms"],
    },
    ConfigCase {
        changes: &[("message.timestamp.after.max.ms", Some("1000"))],
        findings: &["warning: message.timestamp.after.max.ms: 1000 (1 second), set for the topic"],
    },
    ConfigCase {
        changes: &[("message.timestamp.after.max.ms", None)],
        findings: &["unknown: message.timestamp.after.max.ms"],
    },
    ConfigCase {
        changes: &[
            ("message.timestamp.before.max.ms", None),
            ("message.timestamp.after.max.ms", None),
            ("message.timestamp.difference.max.ms", Some("60000")),
        ],
        findings: &[
            "warning: message.timestamp.difference.max.ms: 60000 (1 minute), the default",
            "warning: message.timestamp.difference.max.ms: 60000 (1 minute), the default",
        ],
    },
    ConfigCase {
        changes: &[
            ("message.timestamp.before.max.ms", None),
            ("message.timestamp.after.max.ms", None),
            ("message.timestamp.difference.max.ms", Some("9223372036854775807")),
        ],
        findings: &[],
    },
    ConfigCase {
        changes: &[
            ("message.timestamp.type", Some("LogAppendTime")),
            ("message.timestamp.before.max.ms", Some("1")),
            ("message.timestamp.after.max.ms", None),
        ],
        findings: &[],
    },
];

/// Cases of one broker of three.
const BROKER_CASES: &[ConfigCase] = &[
    ConfigCase { changes: &[], findings: &[] },
    ConfigCase {
        changes: &[("producer.id.expiration.ms", Some("60000"))],
        findings: &["error: producer.id.expiration.ms of broker 2: 60000 (1 minute), set for the broker"],
    },
    ConfigCase {
        changes: &[("producer.id.expiration.ms", Some("60001"))],
        findings: &["warning: producer.id.expiration.ms of broker 2: 60001, set for the broker"],
    },
    ConfigCase {
        changes: &[("producer.id.expiration.ms", Some("86399999"))],
        findings: &["warning: producer.id.expiration.ms of broker 2: 86399999, set for the broker"],
    },
    ConfigCase {
        changes: &[("producer.id.expiration.ms", None)],
        findings: &["unknown: producer.id.expiration.ms of broker 2"],
    },
    ConfigCase {
        changes: &[("producer.id.expiration.ms", Some("never"))],
        findings: &["unknown: producer.id.expiration.ms of broker 2"],
    },
    ConfigCase {
        changes: &[("transactional.id.expiration.ms", Some("86400000"))],
        findings: &[
            "warning: transactional.id.expiration.ms of broker 2: 86400000 (1 day), set for the broker",
        ],
    },
    ConfigCase {
        changes: &[("transactional.id.expiration.ms", Some("86400001"))],
        findings: &["warning: transactional.id.expiration.ms of broker 2: 86400001, set for the broker"],
    },
    ConfigCase {
        changes: &[("transactional.id.expiration.ms", Some("604799999"))],
        findings: &["warning: transactional.id.expiration.ms of broker 2: 604799999, set for the broker"],
    },
    ConfigCase {
        changes: &[("transactional.id.expiration.ms", None)],
        findings: &["unknown: transactional.id.expiration.ms of broker 2"],
    },
    ConfigCase {
        changes: &[("transaction.state.log.replication.factor", Some("4"))],
        findings: &["error: transaction.state.log.replication.factor of broker 2: 4, set for the broker"],
    },
    ConfigCase {
        changes: &[("transaction.state.log.replication.factor", Some("2"))],
        findings: &["warning: transaction.state.log.min.isr of broker 2: 2, set for the broker"],
    },
    ConfigCase {
        changes: &[
            ("transaction.state.log.replication.factor", Some("2")),
            ("transaction.state.log.min.isr", Some("1")),
        ],
        findings: &["warning: transaction.state.log.min.isr of broker 2: 1, set for the broker"],
    },
    // What has one replica has one in sync.
    ConfigCase {
        changes: &[
            ("transaction.state.log.replication.factor", Some("1")),
            ("transaction.state.log.min.isr", Some("1")),
        ],
        findings: &["warning: transaction.state.log.replication.factor of broker 2: 1, set for the broker"],
    },
    ConfigCase {
        changes: &[("transaction.state.log.replication.factor", Some("1"))],
        findings: &["warning: transaction.state.log.replication.factor of broker 2: 1, set for the broker"],
    },
    ConfigCase {
        changes: &[("transaction.state.log.replication.factor", None)],
        findings: &["unknown: transaction.state.log.replication.factor of broker 2"],
    },
    ConfigCase {
        changes: &[("transaction.state.log.min.isr", Some("3"))],
        findings: &["warning: transaction.state.log.min.isr of broker 2: 3, set for the broker"],
    },
    ConfigCase {
        changes: &[("transaction.state.log.min.isr", None)],
        findings: &["unknown: transaction.state.log.min.isr of broker 2"],
    },
];

#[test]
fn partition_rules() {
    for case in PARTITION_CASES {
        assert_eq!(heads(&check(&case.topic(), &[broker(1)])), case.findings, "{:?}", case.partitions);
    }
}

#[test]
fn topic_rules() {
    for case in TOPIC_CASES {
        let findings = check(&topic_with(case.changes), &[broker(1)]);
        assert_eq!(heads(&findings), case.findings, "{:?}", case.changes);
    }
}

#[test]
fn broker_rules() {
    for case in BROKER_CASES {
        let findings = check(&topic(), &[broker(1), broker_with(2, case.changes), broker(3)]);
        assert_eq!(heads(&findings), case.findings, "{:?}", case.changes);
    }
}

#[test]
fn every_rule_has_a_case() {
    let partitions = PARTITION_CASES.iter().flat_map(|case| check(&case.topic(), &[]));
    let topics = TOPIC_CASES.iter().flat_map(|case| check(&topic_with(case.changes), &[]));
    let brokers = BROKER_CASES.iter().flat_map(|case| check(&topic(), &[broker_with(1, case.changes)]));
    let seen: BTreeSet<_> = partitions.chain(topics).chain(brokers).map(|finding| finding.why).collect();
    let rules = PARTITION_RULES.iter().map(|rule| rule.why);
    let rules = rules.chain(TOPIC_RULES.iter().map(|rule| rule.why));
    for why in rules.chain(BROKER_RULES.iter().map(|rule| rule.why)) {
        assert!(seen.contains(why), "no case violates the rule: {why}");
    }
}

#[test]
fn every_unknown_config_of_a_topic_is_one_finding() {
    let mut topic = topic();
    topic.configs = Ok(BTreeMap::new());
    let findings = check(&topic, &[]);
    assert!(findings.iter().all(|one| one.severity == Severity::Unknown && one.found.is_none()));
    let settings: Vec<_> = findings.iter().map(|one| one.setting).collect();
    let mut expected: Vec<_> = TOPIC_RULES.iter().map(|rule| rule.setting).collect();
    expected.dedup();
    assert_eq!(settings, expected);
}

#[test]
fn unreadable_topic_configs_are_one_finding() {
    let mut topic = topic();
    topic.configs = Err("The broker rejected the request: X.".to_owned());
    topic.partitions = vec![partition(0, 1, 3, 1)];
    let expected = [
        "warning: in-sync replicas of brokers 2, 3: missing in all partitions; should be all. A broker is down or \
         lags behind: one more failure may stop appends or lose records. Restart or repair it.",
        "unknown: topic configs; should be readable. The broker rejected the request: X.",
    ];
    assert_eq!(texts(&check(&topic, &[])), expected);
}

#[test]
fn brokers_share_a_finding_if_it_is_the_same() {
    let name = "producer.id.expiration.ms";
    let unreachable = |id| Broker { configs: Err("The request failed: X.".to_owned()), ..broker(id) };
    let brokers = [
        broker_with(1, &[(name, Some("3600000"))]),
        unreachable(2),
        broker_with(3, &[(name, Some("7200000"))]),
        broker_with(4, &[(name, Some("3600000"))]),
        broker_with(5, &[(name, None)]),
        broker_with(6, &[(name, Some("1000"))]),
        unreachable(7),
        broker(8),
    ];
    let findings = check(&topic(), &brokers);
    let short: Vec<_> = findings
        .iter()
        .map(|one| (one.severity, one.setting, one.found.as_deref(), &one.brokers[..]))
        .collect();
    let expected = [
        (Severity::Error, name, Some("1000 (1 second)"), &[6][..]),
        (Severity::Warning, name, Some("3600000 (1 hour)"), &[1, 4]),
        (Severity::Warning, name, Some("7200000 (2 hours)"), &[3]),
        (Severity::Unknown, name, None, &[2, 7]),
        (Severity::Unknown, name, None, &[5]),
        (Severity::Unknown, "transactional.id.expiration.ms", None, &[2, 7]),
        (Severity::Unknown, "transaction.state.log.replication.factor", None, &[2, 7]),
        (Severity::Unknown, "transaction.state.log.min.isr", None, &[2, 7]),
    ];
    assert_eq!(short, expected);
}

#[test]
fn the_settings_of_the_client_decide() {
    let mut topic = topic_with(&[("max.message.bytes", Some("1048588"))]);
    topic.limits = Limits::default().batch(1 << 20);
    assert_eq!(check(&topic, &[]), []);
    topic.limits = Limits::default().batch(2 << 20).decompressed(1 << 20);
    let expected = [
        "error: max.message.bytes: 1048588, set for the topic; should be at most 1048576, or \
         `Limits::frame` and `Limits::decompressed` raised to it. Another producer may append a batch that \
         this client cannot read: reads fail at that batch.",
        "info: max.message.bytes: 1048588, set for the topic; should be at least 2097152, or \
         `Limits::batch` lowered to it. This client builds batches up to `Limits::batch`, and the broker \
         rejects those that are larger.",
    ];
    assert_eq!(texts(&check(&topic, &[])), expected);

    let mut broker = broker_with(1, &[("producer.id.expiration.ms", Some("60000"))]);
    broker.operation = Duration::from_millis(59_999);
    assert_eq!(check(&self::topic(), &[broker])[0].severity, Severity::Warning);
}

#[test]
fn unknown_says_why() {
    let topic = topic_with(&[("retention.ms", Some("soon")), ("retention.bytes", None)]);
    let expected = [
        "unknown: retention.ms; should be -1. The broker returned no value that can be parsed.",
        "unknown: retention.bytes; should be -1. The broker did not return this config; it may be too old \
         to have it.",
    ];
    assert_eq!(texts(&check(&topic, &[])), expected);
}

#[test]
fn long_lists_are_cut() {
    let mut topic = topic();
    topic.partitions = (0..11).map(|index| partition(index, if index < 10 { -1 } else { 1 }, 3, 3)).collect();
    let brokers: Vec<_> = (1..=9).map(|id| broker_with(id, &[("producer.id.expiration.ms", None)])).collect();
    let expected = [
        "error: leader: missing in partitions 0, 1, 2, 3, 4, 5, 6, 7 and 2 more; should be a live broker. \
         Nothing can be appended or read there. Restart the brokers that hold its replicas.",
        "unknown: producer.id.expiration.ms of brokers 1, 2, 3, 4, 5, 6, 7, 8 and 1 more; should be at \
         least 86400000 (1 day). The broker did not return this config; it may be too old to have it.",
    ];
    assert_eq!(texts(&check(&topic, &brokers)), expected);
}

#[test]
fn each_broker_config_is_requested_once() {
    let expected = [
        "producer.id.expiration.ms",
        "transactional.id.expiration.ms",
        "transaction.state.log.replication.factor",
        "transaction.state.log.min.isr",
    ];
    assert_eq!(broker_configs(), expected);
}
