//! What a write-ahead log needs of a topic and its brokers, rule by rule.

use std::{collections::BTreeMap, fmt};

use kwal_protocol::messages::MetadataPartition;

use super::{
    because,
    finding::{Finding, Partitions, Severity},
};
use crate::{
    config::{Deadlines, Limits},
    controller::{ConfigSource, ConfigValue},
    error::Error,
};

/// The rules, and the findings so far.
#[derive(Debug)]
pub(super) struct Rules {
    limits: Limits,
    deadlines: Deadlines,
    findings: Vec<Finding>,
}

/// Returns the names of the broker configs that the rules are about.
pub(super) fn broker_configs() -> Vec<String> {
    BROKER_SETTINGS.iter().map(|(name, ..)| (*name).to_owned()).collect()
}

impl Rules {
    pub(super) fn new(limits: Limits, deadlines: Deadlines) -> Self {
        Self { limits, deadlines, findings: Vec::new() }
    }

    /// Returns the findings, the gravest first.
    pub(super) fn into_findings(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        self.findings
    }

    fn add(
        &mut self,
        severity: Severity,
        setting: &'static str,
        found: impl Into<String>,
        wanted: impl Into<String>,
        why: impl Into<String>,
    ) -> &mut Finding {
        self.findings.push(Finding {
            severity,
            setting,
            brokers: Vec::new(),
            found: Some(found.into()),
            source: None,
            wanted: wanted.into(),
            why: why.into(),
        });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    fn not_checked(
        &mut self,
        setting: &'static str,
        brokers: Vec<i32>,
        wanted: impl Into<String>,
        why: impl Into<String>,
    ) {
        let (wanted, why) = (wanted.into(), why.into());
        let severity = Severity::Unknown;
        self.findings.push(Finding { severity, setting, brokers, found: None, source: None, wanted, why });
    }

    /// How many there are of each record, and how many an append waits for.
    pub(super) fn replicas(
        &mut self,
        partitions: &[MetadataPartition],
        configs: Option<&BTreeMap<String, ConfigValue>>,
    ) {
        let factor = |partition: &MetadataPartition| partition.replica_nodes.len();
        let fewest = partitions.iter().map(factor).min().unwrap_or_default();
        let of_these = |which: &dyn Fn(&MetadataPartition) -> bool| {
            let these = partitions.iter().filter(|partition| which(partition));
            let these: Vec<_> = these.map(|partition| partition.partition_index).collect();
            let all = these.len() == partitions.len();
            (!these.is_empty())
                .then(|| if all { "all partitions".to_owned() } else { Partitions(&these).to_string() })
        };
        if let Some(these) = of_these(&|partition| partition.leader_id < 0) {
            let why = "Nothing can be appended to it or read from it.";
            self.add(Severity::Error, "leader", format!("missing in {these}"), "there", why);
        }
        if let Some(these) = of_these(&|partition| factor(partition) == fewest).filter(|_| fewest < 3) {
            let (severity, why) = match fewest {
                0 | 1 => (
                    Severity::Error,
                    "Every record is on one broker alone: if its disk is lost, so is the log.",
                ),
                _ => (
                    Severity::Warning,
                    "While one broker is down there is one copy left, so either appends stop or they are acknowledged with \
                     a single copy.",
                ),
            };
            self.add(severity, "replication factor", format!("{fewest} in {these}"), "3", why);
        }
        let least = configs.and_then(|configs| number(configs.get("min.insync.replicas")?));
        let least = least.and_then(|least| usize::try_from(least).ok());
        let lacking = |partition: &MetadataPartition| {
            least.is_some_and(|least| partition.isr_nodes.len() < least) && partition.leader_id >= 0
        };
        if let Some(these) = of_these(&lacking) {
            let why = "Appends are refused as long as fewer replicas are in sync than `min.insync.replicas` demands.";
            let found = format!("fewer than {} in {these}", least.unwrap_or_default());
            self.add(Severity::Error, "in-sync replicas", found, "all", why);
        }
        let behind = |partition: &MetadataPartition| {
            partition.isr_nodes.len() < factor(partition) && partition.leader_id >= 0 && !lacking(partition)
        };
        if let Some(these) = of_these(&behind) {
            let why = "Brokers are down or behind: until they are back, one failure more costs more than it should.";
            self.add(Severity::Warning, "in-sync replicas", format!("not all in {these}"), "all", why);
        }
        if let (Some(least), Some(configs)) = (least, configs) {
            self.least_in_sync(least, fewest, configs);
        }
    }

    fn least_in_sync(&mut self, least: usize, fewest: usize, configs: &BTreeMap<String, ConfigValue>) {
        let (severity, why) = if least > fewest {
            let why = "More replicas have to be in sync than the topic has: no append can succeed.";
            (Severity::Error, why)
        } else if least <= 1 {
            let why = "An append is acknowledged as soon as the leader alone has it; if that broker is lost then, so are \
                       acknowledged records.";
            (Severity::Error, why)
        } else if least == fewest {
            (Severity::Warning, "As soon as one broker with a replica is down, no append succeeds.")
        } else {
            return;
        };
        let name = "min.insync.replicas";
        let finding = self.add(severity, name, least.to_string(), "2 of 3 replicas", why);
        finding.source = configs.get(name).map(|config| config.source);
    }

    /// What is deleted from the topic, and what it refuses.
    pub(super) fn topic(&mut self, configs: Result<&BTreeMap<String, ConfigValue>, &Error>) {
        let configs = match configs {
            Ok(configs) => configs,
            Err(error) => {
                return self.not_checked("the settings of the topic", Vec::new(), "readable", because(error));
            }
        };
        let topic = TopicSettings { configs };
        if topic.number("min.insync.replicas").is_none() {
            self.missing(&topic, "min.insync.replicas", "2 of 3 replicas");
        }
        match topic.text("unclean.leader.election.enable") {
            Some("false") => {}
            Some(value) => {
                let why = "After a failure a replica that lacks acknowledged records may become the leader, and they are lost.";
                self.of_topic(&topic, Severity::Error, "unclean.leader.election.enable", value, "false", why);
            }
            None => self.missing(&topic, "unclean.leader.election.enable", "false"),
        }
        let policy = topic.text("cleanup.policy");
        let has = |name: &str| policy.is_some_and(|policy| policy.split(',').any(|one| one.trim() == name));
        if has("compact") {
            let why = "Of the records with the same key only the last is kept, and records without a key are refused.";
            let found = policy.unwrap_or_default();
            self.of_topic(&topic, Severity::Error, "cleanup.policy", found, "delete", why);
        }
        if policy.is_none() {
            self.missing(&topic, "cleanup.policy", "delete");
        }
        // Whatever it is that could not be told may delete.
        let deletes = has("delete") || policy.is_none();
        let by_age = deletes && self.retention(&topic);
        self.message_size(&topic);
        self.timestamps(&topic, by_age);
    }

    /// Answers whether records are deleted by their age.
    fn retention(&mut self, topic: &TopicSettings<'_>) -> bool {
        let wanted = "-1, with `delete_records` for what is no longer needed";
        let mut by_age = false;
        match topic.number("retention.ms") {
            Some(..0) => {}
            Some(ms) => {
                by_age = true;
                let why = "Records that are older are deleted, whether somebody still needs them or not.";
                self.of_topic(topic, Severity::Warning, "retention.ms", &Millis(ms).to_string(), wanted, why);
            }
            None => self.missing(topic, "retention.ms", wanted),
        }
        match topic.number("retention.bytes") {
            Some(..0) => {}
            Some(bytes) => {
                let why = "The oldest records are deleted when a partition is larger, whether somebody still needs them or not.";
                self.of_topic(topic, Severity::Warning, "retention.bytes", &bytes.to_string(), wanted, why);
            }
            None => self.missing(topic, "retention.bytes", wanted),
        }
        by_age
    }

    fn message_size(&mut self, topic: &TopicSettings<'_>) {
        let name = "max.message.bytes";
        let written = self.limits.batch;
        let read = self.limits.frame.min(self.limits.decompressed);
        let wanted = format!("{written}, or `Limits::batch` what it is");
        let Some(bytes) = topic.number(name) else { return self.missing(topic, name, &wanted) };
        let allowed = usize::try_from(bytes).unwrap_or_default();
        let found = bytes.to_string();
        if allowed < written {
            let why = format!(
                "The client makes batches of up to {written} bytes, and larger ones than this are refused."
            );
            self.of_topic(topic, Severity::Info, name, &found, &wanted, &why);
        }
        if allowed > read {
            let wanted = format!("at most {read}, or `Limits::frame` and `Limits::decompressed` larger");
            let why =
                "Another writer may append a batch that this client cannot read, and its reading ends there.";
            self.of_topic(topic, Severity::Error, name, &found, &wanted, why);
        }
    }

    fn timestamps(&mut self, topic: &TopicSettings<'_>, by_age: bool) {
        let name = "message.timestamp.type";
        match topic.text(name) {
            Some("LogAppendTime") => return,
            Some(value) if by_age => {
                let why = "The age of a record counts from the time that its writer gave it: a clock that is wrong has \
                           records deleted early, or never.";
                let wanted = "LogAppendTime, or `retention.ms` -1";
                self.of_topic(topic, Severity::Warning, name, value, wanted, why);
            }
            Some(_) => {}
            None => self.missing(topic, name, "LogAppendTime, or `retention.ms` -1"),
        }
        let both = "message.timestamp.difference.max.ms";
        for (name, side) in
            [("message.timestamp.before.max.ms", "behind"), ("message.timestamp.after.max.ms", "ahead")]
        {
            let named = topic.number(name).map(|ms| (name, ms));
            // Before Kafka 3.6 there is one bound for both sides.
            match named.or_else(|| topic.number(both).map(|ms| (both, ms))) {
                Some((name, ms @ ..HOUR)) => {
                    let why = format!("A writer whose clock is further {side} has its appends refused.");
                    let found = Millis(ms).to_string();
                    self.of_topic(topic, Severity::Warning, name, &found, "at least an hour", &why);
                }
                Some((name, ms)) if side == "behind" && ms < i64::MAX => {
                    let why =
                        "Records with older timestamps are refused, such as those copied from another log.";
                    let found = Millis(ms).to_string();
                    self.of_topic(topic, Severity::Info, name, &found, &i64::MAX.to_string(), why);
                }
                Some(_) => {}
                None => self.missing(topic, name, "at least an hour"),
            }
        }
    }

    /// For how long brokers remember writers. Those that say the same are told together.
    pub(super) fn brokers(&mut self, brokers: &[Broker]) {
        for (name, least, why, wanted) in BROKER_SETTINGS {
            let mut all: Vec<(Remembered, Vec<i32>)> = Vec::new();
            for broker in brokers {
                let remembered = broker.remembered(name, least);
                match all.iter_mut().find(|(known, _)| *known == remembered) {
                    Some((_, brokers)) => brokers.push(broker.id),
                    None => all.push((remembered, vec![broker.id])),
                }
            }
            for (remembered, brokers) in all {
                match remembered {
                    Remembered::LongEnough => {}
                    Remembered::TooShort(ms, source) => {
                        let operation =
                            i64::try_from(self.deadlines.operation.as_millis()).unwrap_or(i64::MAX);
                        let (severity, why) = match name == PRODUCER_EXPIRY && ms <= operation {
                            true => (Severity::Error, FORGOTTEN_WITHIN_A_CALL),
                            false => (Severity::Warning, why),
                        };
                        let finding = self.add(severity, name, Millis(ms).to_string(), wanted, why);
                        (finding.source, finding.brokers) = (Some(source), brokers);
                    }
                    Remembered::NotTold(reason) => self.not_checked(name, brokers, wanted, reason),
                }
            }
        }
    }

    fn of_topic(
        &mut self,
        topic: &TopicSettings<'_>,
        severity: Severity,
        name: &'static str,
        found: &str,
        wanted: &str,
        why: &str,
    ) {
        let source = topic.configs.get(name).map(|config| config.source);
        self.add(severity, name, found, wanted, why).source = source;
    }

    /// A setting of the topic that was not told, or in a way that is not understood.
    fn missing(&mut self, topic: &TopicSettings<'_>, name: &'static str, wanted: &str) {
        let why = if topic.configs.contains_key(name) { NOT_UNDERSTOOD } else { NOT_THERE };
        self.not_checked(name, Vec::new(), wanted, why);
    }
}

/// What a broker tells of its settings.
#[derive(Debug)]
pub(super) struct Broker {
    pub(super) id: i32,
    pub(super) configs: Result<BTreeMap<String, ConfigValue>, Error>,
}

/// For how long a broker remembers a writer.
#[derive(Debug, Eq, PartialEq)]
enum Remembered {
    LongEnough,
    /// For so many milliseconds.
    TooShort(i64, ConfigSource),
    NotTold(String),
}

impl Broker {
    fn remembered(&self, name: &str, least: i64) -> Remembered {
        let config = match &self.configs {
            Ok(configs) => configs.get(name),
            Err(error) => return Remembered::NotTold(because(error)),
        };
        match (config, config.and_then(number)) {
            (Some(_), Some(ms)) if ms >= least => Remembered::LongEnough,
            (Some(config), Some(ms)) => Remembered::TooShort(ms, config.source),
            (Some(_), None) => Remembered::NotTold(NOT_UNDERSTOOD.to_owned()),
            (None, _) => Remembered::NotTold(NOT_THERE.to_owned()),
        }
    }
}

const NOT_THERE: &str = "The broker does not tell this setting; it may be too old to have it.";
const NOT_UNDERSTOOD: &str = "The broker tells a value that is not understood.";

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

const PRODUCER_EXPIRY: &str = "producer.id.expiration.ms";
const FORGOTTEN_WITHIN_A_CALL: &str = "The broker forgets a writer within the time for which this client repeats an append \
     (`Deadlines::operation`): a repeated batch may be on the log twice.";

/// Name, least value, why, and the least value in words.
const BROKER_SETTINGS: [(&str, i64, &str, &str); 2] = [
    (
        PRODUCER_EXPIRY,
        DAY,
        "A writer whose last batch is older, by the times of its records, is forgotten: neither a repeated batch nor a writer \
         that was fenced is recognised after that.",
        "at least 86400000 (1 day)",
    ),
    (
        "transactional.id.expiration.ms",
        7 * DAY,
        "The name of an exclusive writer that nobody has asked for in so long is forgotten, and who asks for it next does not \
         fence the writer before.",
        "at least 604800000 (7 days)",
    ),
];

/// The settings of the topic that are looked at.
struct TopicSettings<'a> {
    configs: &'a BTreeMap<String, ConfigValue>,
}

impl TopicSettings<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.configs.get(name)?.value.as_deref().map(str::trim)
    }

    fn number(&self, name: &str) -> Option<i64> {
        number(self.configs.get(name)?)
    }
}

fn number(config: &ConfigValue) -> Option<i64> {
    config.value.as_deref()?.trim().parse().ok()
}

/// A time in milliseconds, and in words where it is a round one.
struct Millis(i64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        write!(f, "{ms}")?;
        let units = [(DAY, "day"), (HOUR, "hour"), (60_000, "minute"), (1_000, "second")];
        let round = units.into_iter().find(|(unit, _)| ms >= *unit && ms % unit == 0);
        match round {
            Some((unit, name)) if ms < i64::from(i32::MAX) * 100 => {
                let count = ms / unit;
                write!(f, " ({count} {name}{})", if count == 1 { "" } else { "s" })
            }
            _ => Ok(()),
        }
    }
}
