//! The rules: what a write-ahead log needs of a topic and its brokers.
//!
//! To add a rule, add an entry to [`PARTITION_RULES`], [`TOPIC_RULES`] or [`BROKER_RULES`] and a case to the
//! tests, which fail for a rule without one. Findings of the same severity keep the order of the rules.

use std::{collections::BTreeMap, time::Duration};

use kwal_protocol::messages::MetadataPartition;

use self::{
    Condition::{Millis, Number, Text},
    Phrase::{Computed, Fixed},
};
use super::finding::Severity::{self, Error, Info, Warning};
use crate::{config::Limits, controller::ConfigValue};

/// A rule about the partitions of a topic. Those that violate it share one finding.
pub(super) struct PartitionRule {
    pub(super) setting: &'static str,
    /// Whether a partition violates the rule.
    pub(super) condition: fn(&Topic, &MetadataPartition) -> bool,
    /// The brokers that violate it there, if the rule is about brokers.
    pub(super) brokers: fn(&MetadataPartition) -> Vec<i32>,
    pub(super) severity: Severity,
    /// What is found in those partitions: the finding adds which ones they are.
    pub(super) found: Phrase<Topic>,
    pub(super) wanted: Phrase<Topic>,
    pub(super) why: &'static str,
}

/// A rule about one config of a [`Topic`] or a [`Broker`].
pub(super) struct ConfigRule<S> {
    /// The name of the config.
    pub(super) setting: &'static str,
    /// Whether the config has an effect. If not, it is not checked.
    pub(super) applies: fn(&S) -> bool,
    /// Whether the value violates the rule.
    pub(super) condition: Condition<S>,
    pub(super) severity: Severity,
    pub(super) wanted: Phrase<S>,
    pub(super) why: &'static str,
}

/// A condition on the value of a config, by the type of the value.
pub(super) enum Condition<S> {
    Text(fn(&S, &str) -> bool),
    Number(fn(&S, i64) -> bool),
    /// A number of milliseconds. The finding also shows it in a larger unit.
    Millis(fn(&S, i64) -> bool),
}

/// A part of a finding's text.
pub(super) enum Phrase<S> {
    Fixed(&'static str),
    Computed(fn(&S) -> String),
}

/// The topic to check.
pub(super) struct Topic {
    pub(super) partitions: Vec<MetadataPartition>,
    /// The configs by name, or why they are unknown.
    pub(super) configs: Result<BTreeMap<String, ConfigValue>, String>,
    /// The limits of this client.
    pub(super) limits: Limits,
}

/// A broker to check.
pub(super) struct Broker {
    pub(super) id: i32,
    /// The configs by name, or why they are unknown.
    pub(super) configs: Result<BTreeMap<String, ConfigValue>, String>,
    /// How long this client retries an append.
    pub(super) operation: Duration,
    /// How many brokers the cluster has, including those that are down as far as they are known.
    pub(super) brokers: usize,
}

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Kafka's default of `max.message.bytes`.
const DEFAULT_MAX_MESSAGE: usize = 1_048_588;

/// The units in which milliseconds are shown, the largest first.
pub(super) const UNITS: [(i64, &str); 4] =
    [(DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (SECOND, "second")];

/// Configs that brokers before Kafka 3.6 have by another name.
pub(super) const OLDER_NAMES: [(&str, &str); 2] = [
    ("message.timestamp.before.max.ms", "message.timestamp.difference.max.ms"),
    ("message.timestamp.after.max.ms", "message.timestamp.difference.max.ms"),
];

pub(super) const PARTITION_RULES: &[PartitionRule] = &[
    PartitionRule {
        setting: "leader",
        condition: |_, partition| !has_leader(partition),
        brokers: none,
        severity: Error,
        found: Fixed("missing"),
        wanted: Fixed("a live broker"),
        why: "Nothing can be appended or read there. Restart the brokers that hold its replicas.",
    },
    PartitionRule {
        setting: "replication factor",
        condition: |topic, partition| replicas(partition) == topic.replicas() && topic.replicas() <= 1,
        brokers: none,
        severity: Error,
        found: Computed(|topic| topic.replicas().to_string()),
        wanted: Fixed("3"),
        why: "Every record is on one broker only: if its disk fails, the log is lost. \
              Reassign the partitions to 3 brokers.",
    },
    PartitionRule {
        setting: "replication factor",
        condition: |topic, partition| replicas(partition) == topic.replicas() && topic.replicas() == 2,
        brokers: none,
        severity: Warning,
        found: Computed(|topic| topic.replicas().to_string()),
        wanted: Fixed("3"),
        why: "While one broker is down, either appends stop or they are acknowledged with a single copy. \
              Reassign the partitions to 3 brokers.",
    },
    PartitionRule {
        setting: "in-sync replicas",
        condition: |topic, partition| {
            has_leader(partition) && in_sync(partition) < topic.min_in_sync(replicas(partition))
        },
        brokers: out_of_sync,
        severity: Error,
        found: Fixed("missing"),
        wanted: Computed(|topic| {
            let most = topic.partitions.iter().map(replicas).max().unwrap_or_default();
            format!("all, and at least {}", topic.min_in_sync(most))
        }),
        why: "Appends are rejected until `min.insync.replicas` replicas are in sync. \
              Restart the brokers that are down.",
    },
    PartitionRule {
        setting: "in-sync replicas",
        condition: |topic, partition| {
            let replicas = replicas(partition);
            has_leader(partition) && (topic.min_in_sync(replicas)..replicas).contains(&in_sync(partition))
        },
        brokers: out_of_sync,
        severity: Warning,
        found: Fixed("missing"),
        wanted: Fixed("all"),
        why: "A broker is down or lags behind: one more failure may stop appends or lose records. \
              Restart or repair it.",
    },
];

pub(super) const TOPIC_RULES: &[ConfigRule<Topic>] = &[
    ConfigRule {
        setting: "min.insync.replicas",
        applies: always,
        condition: Number(|topic, min| min.min(topic.replicas()) <= 1),
        severity: Error,
        wanted: Fixed("2 of 3 replicas"),
        why: "An append is acknowledged as soon as the leader has it, as brokers take the smaller of this \
              and the replication factor: if that broker fails then, acknowledged records are lost.",
    },
    ConfigRule {
        setting: "min.insync.replicas",
        applies: always,
        condition: Number(|topic, min| topic.replicas() > 1 && min >= topic.replicas()),
        severity: Warning,
        wanted: Fixed("2 of 3 replicas"),
        why: "It is not below the replication factor: while one broker is down, every append fails. \
              Lower it, or add replicas.",
    },
    ConfigRule {
        setting: "unclean.leader.election.enable",
        applies: always,
        condition: Text(|_, enable| enable != "false"),
        severity: Error,
        wanted: Fixed("false"),
        why: "After a failure, a replica without the newest records may become leader: \
              acknowledged records are lost.",
    },
    ConfigRule {
        setting: "cleanup.policy",
        applies: always,
        condition: Text(|_, policy| has_policy(policy, "compact")),
        severity: Error,
        wanted: Fixed("delete"),
        why: "Compaction keeps only the last record of each key and rejects records without a key.",
    },
    ConfigRule {
        setting: "retention.ms",
        applies: Topic::may_delete,
        condition: Millis(|_, age| age >= 0),
        severity: Warning,
        wanted: Fixed("-1"),
        why: "Older records are deleted even if they are still needed. Delete with `delete_records` instead.",
    },
    ConfigRule {
        setting: "retention.bytes",
        applies: Topic::may_delete,
        condition: Number(|_, bytes| bytes >= 0),
        severity: Warning,
        wanted: Fixed("-1"),
        why: "The oldest records of a larger partition are deleted even if they are still needed. \
              Delete with `delete_records` instead.",
    },
    ConfigRule {
        setting: "max.message.bytes",
        applies: always,
        condition: Number(|topic, max| max < saturating(topic.appended())),
        severity: Info,
        wanted: Computed(|topic| format!("at least {}, or `Limits::batch` lowered to it", topic.appended())),
        why: "This client builds batches up to `Limits::batch`, \
              and the broker rejects those that are larger.",
    },
    ConfigRule {
        setting: "max.message.bytes",
        applies: always,
        condition: Number(|topic, max| max > saturating(topic.readable())),
        severity: Error,
        wanted: Computed(|topic| {
            format!(
                "at most {}, or `Limits::frame` and `Limits::decompressed` raised to it",
                topic.readable()
            )
        }),
        why: "Another producer may append a batch that this client cannot read: reads fail at that batch.",
    },
    ConfigRule {
        setting: "message.timestamp.type",
        applies: always,
        condition: Text(|topic, kind| kind != "LogAppendTime" && topic.deletes_by_age()),
        severity: Warning,
        wanted: Fixed("LogAppendTime, or `retention.ms` -1"),
        why: "The age of a record counts from its producer's clock: \
              if that is wrong, records are deleted early or never.",
    },
    ConfigRule {
        setting: "message.timestamp.before.max.ms",
        applies: Topic::checks_timestamps,
        condition: Millis(|_, bound| bound < HOUR),
        severity: Warning,
        wanted: Fixed("at least 3600000 (1 hour)"),
        why: "Appends of a producer whose clock is further behind are rejected.",
    },
    ConfigRule {
        setting: "message.timestamp.before.max.ms",
        applies: Topic::checks_timestamps,
        condition: Millis(|_, bound| (HOUR..i64::MAX).contains(&bound)),
        severity: Info,
        wanted: Fixed("9223372036854775807"),
        why: "Records with older timestamps are rejected, such as copies from another log.",
    },
    ConfigRule {
        setting: "message.timestamp.after.max.ms",
        applies: Topic::checks_timestamps,
        condition: Millis(|_, bound| bound < HOUR),
        severity: Warning,
        wanted: Fixed("at least 3600000 (1 hour)"),
        why: "Appends of a producer whose clock is further ahead are rejected.",
    },
];

pub(super) const BROKER_RULES: &[ConfigRule<Broker>] = &[
    ConfigRule {
        setting: "producer.id.expiration.ms",
        applies: always,
        condition: Millis(|broker, age| age < DAY && broker.forgets_during_append(age)),
        severity: Error,
        wanted: Fixed("at least 86400000 (1 day)"),
        why: "The broker may forget a producer while this client retries (`Deadlines::operation`): \
              a batch may be appended twice, or although its writer was fenced.",
    },
    ConfigRule {
        setting: "producer.id.expiration.ms",
        applies: always,
        condition: Millis(|broker, age| age < DAY && !broker.forgets_during_append(age)),
        severity: Warning,
        wanted: Fixed("at least 86400000 (1 day)"),
        why: "A producer whose last batch is older, by its timestamps, is forgotten: \
              after that, neither duplicates nor fenced producers are detected. \
              Exclusive writers need a `renewal` of at most twice this.",
    },
    ConfigRule {
        setting: "transactional.id.expiration.ms",
        applies: always,
        condition: Millis(|_, age| age <= DAY),
        severity: Warning,
        wanted: Fixed("at least 604800000 (7 days)"),
        why: "The name of an exclusive writer is forgotten before its daily renewal, and then the writer is \
              fenced. Appends do not count as use.",
    },
    ConfigRule {
        setting: "transactional.id.expiration.ms",
        applies: always,
        condition: Millis(|_, age| (DAY + 1..7 * DAY).contains(&age)),
        severity: Warning,
        wanted: Fixed("at least 604800000 (7 days)"),
        why: "An exclusive writer that cannot renew its name for that long, which it does daily, is fenced. \
              Appends do not count as use.",
    },
    ConfigRule {
        setting: "transaction.state.log.replication.factor",
        applies: always,
        condition: Number(|broker, factor| factor > saturating(broker.brokers)),
        severity: Error,
        wanted: Computed(|broker| format!("at most {}, as there are brokers", broker.brokers)),
        why: "Without as many brokers, `__transaction_state` is not created, and no log can be held with \
              `exclusive`. Lower it, or add brokers.",
    },
    ConfigRule {
        setting: "transaction.state.log.replication.factor",
        applies: always,
        condition: Number(|_, factor| factor <= 1),
        severity: Warning,
        wanted: Fixed("3"),
        why: "The name of an exclusive writer is kept by one broker: while that is down, nobody can renew it \
              or take over. If `__transaction_state` exists, reassign it as well.",
    },
    ConfigRule {
        setting: "transaction.state.log.min.isr",
        applies: Broker::replicates_transactions,
        condition: Number(|_, min| min <= 1),
        severity: Warning,
        wanted: Fixed("2 of 3 replicas"),
        why: "If a broker fails, a coordinator may forget an epoch and give it out again: taking over with \
              `exclusive` then fails once (`EpochTaken`).",
    },
    ConfigRule {
        setting: "transaction.state.log.min.isr",
        applies: Broker::replicates_transactions,
        condition: Number(|broker, min| {
            min > 1 && broker.transaction_replicas().is_some_and(|all| min >= all)
        }),
        severity: Warning,
        wanted: Fixed("2 of 3 replicas"),
        why: "It is not below the replication factor: while one broker is down, no exclusive writer can renew \
              its name or take over.",
    },
];

fn always<S>(_: &S) -> bool {
    true
}

fn none(_: &MetadataPartition) -> Vec<i32> {
    Vec::new()
}

/// Returns the brokers whose replicas are not in sync.
fn out_of_sync(partition: &MetadataPartition) -> Vec<i32> {
    let missing = partition.replica_nodes.iter().filter(|broker| !partition.isr_nodes.contains(broker));
    missing.copied().collect()
}

fn has_leader(partition: &MetadataPartition) -> bool {
    partition.leader_id >= 0
}

fn replicas(partition: &MetadataPartition) -> i64 {
    saturating(partition.replica_nodes.len())
}

fn in_sync(partition: &MetadataPartition) -> i64 {
    saturating(partition.isr_nodes.len())
}

fn has_policy(policies: &str, policy: &str) -> bool {
    policies.split(',').any(|one| one.trim() == policy)
}

fn saturating(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

impl Topic {
    fn config(&self, name: &str) -> Option<&ConfigValue> {
        self.configs.as_ref().ok()?.get(name)
    }

    /// Returns the replication factor; the lowest, if partitions differ.
    fn replicas(&self) -> i64 {
        self.partitions.iter().map(replicas).min().unwrap_or_default()
    }

    /// Returns how many of so many replicas have to be in sync, or 0 if `min.insync.replicas` is unknown.
    fn min_in_sync(&self, replicas: i64) -> i64 {
        let min = self.config("min.insync.replicas").and_then(ConfigValue::number).unwrap_or_default();
        min.min(replicas)
    }

    /// Whether brokers delete records by age or size. An unknown policy may do so.
    fn may_delete(&self) -> bool {
        let policy = self.config("cleanup.policy").and_then(ConfigValue::text);
        policy.is_none_or(|policies| has_policy(policies, "delete"))
    }

    fn deletes_by_age(&self) -> bool {
        let age = self.config("retention.ms").and_then(ConfigValue::number);
        self.may_delete() && age.is_some_and(|age| age >= 0)
    }

    /// Whether brokers compare the timestamps of records with their own clock.
    fn checks_timestamps(&self) -> bool {
        self.config("message.timestamp.type").and_then(ConfigValue::text) != Some("LogAppendTime")
    }

    /// Returns the size of the largest batch that this client is meant to append: [`Limits::batch`] if it was
    /// set. Its default is more than Kafka's, so that it suits every topic, and demands nothing of them.
    fn appended(&self) -> usize {
        match self.limits.batch == Limits::default().batch {
            true => DEFAULT_MAX_MESSAGE,
            false => self.limits.batch,
        }
    }

    /// Returns the size of the largest batch that this client can read for sure.
    fn readable(&self) -> usize {
        self.limits.frame.min(self.limits.decompressed)
    }
}

impl Broker {
    fn config(&self, name: &str) -> Option<&ConfigValue> {
        self.configs.as_ref().ok()?.get(name)
    }

    /// Returns the replication factor with which `__transaction_state` is created.
    fn transaction_replicas(&self) -> Option<i64> {
        self.config("transaction.state.log.replication.factor")?.number()
    }

    /// Whether it makes a difference how many replicas of `__transaction_state` have to be in sync.
    fn replicates_transactions(&self) -> bool {
        self.transaction_replicas().is_none_or(|replicas| replicas > 1)
    }

    /// Whether a producer that is forgotten after `age` may be forgotten between two attempts of one append.
    fn forgets_during_append(&self, age: i64) -> bool {
        i64::try_from(self.operation.as_millis()).map_or(true, |operation| age <= operation)
    }
}

impl ConfigValue {
    pub(super) fn text(&self) -> Option<&str> {
        self.value.as_deref().map(str::trim)
    }

    pub(super) fn number(&self) -> Option<i64> {
        self.text()?.parse().ok()
    }
}
