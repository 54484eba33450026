//! What endangers a log: the settings of a topic and its brokers, held against what a write-ahead log needs.

use std::{collections::BTreeMap, fmt};

use kwal_protocol::{error_code::ErrorCode, messages::MetadataPartition};
use tokio::time::Instant;

use crate::{
    client::check_topic,
    config::{Deadlines, Limits},
    controller::{ConfigSource, ConfigValue, ControllerClient, Resource},
    error::Error,
};

/// Something that endangers a log, or could not be checked.
///
/// ```text
/// danger: min.insync.replicas: 1 (the default), should be 2 of 3 replicas. An append is acknowledged as soon as the leader …
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// How grave it is.
    pub severity: Severity,
    /// What it is about: a setting as Kafka's documentation names it, or `replication factor`, `in-sync replicas`, `leader`.
    pub setting: &'static str,
    /// The brokers, if it is a setting of theirs and not of the topic.
    pub brokers: Vec<i32>,
    /// What it is now; `None` if that could not be found out.
    pub found: Option<String>,
    /// Where that comes from, of a setting.
    pub source: Option<ConfigSource>,
    /// What it should be.
    pub wanted: String,
    /// Why, in a sentence or two.
    pub why: String,
}

/// How grave a [`Finding`] is; the gravest is the largest.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Severity {
    /// It could not be found out: it may be right or wrong.
    NotChecked,
    /// Nothing is lost by it; it may surprise.
    Notice,
    /// Records may be deleted or refused, or one failure stops the appends.
    Warning,
    /// Acknowledged records may be lost or doubled by one failure, or appends or reads cannot succeed at all.
    Danger,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotChecked => "not checked",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Danger => "danger",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.setting)?;
        match &self.brokers[..] {
            [] => {}
            [broker] => write!(f, " of broker {broker}")?,
            brokers => write!(f, " of brokers {}", List(brokers))?,
        }
        match (&self.found, self.source) {
            (Some(found), Some(source)) => write!(f, ": {found} ({source}),")?,
            (Some(found), None) => write!(f, ": {found},")?,
            (None, _) => f.write_str(":")?,
        }
        write!(f, " should be {}. {}", self.wanted, self.why)
    }
}

impl ControllerClient {
    /// Looks for what endangers a log in this topic: how it is replicated, what is deleted from it and when, what it refuses,
    /// and for how long its brokers remember writers. The gravest findings come first; a topic that is as a write-ahead log
    /// should be has none.
    ///
    /// | what | is found |
    /// | --- | --- |
    /// | replication factor | below 3; partitions without a leader, and such with replicas that are not in sync now |
    /// | `min.insync.replicas` | 1; as many as there are replicas, or more |
    /// | `unclean.leader.election.enable` | true |
    /// | `cleanup.policy` | with `compact` |
    /// | `retention.ms`, `retention.bytes` | anything but −1, where the policy deletes |
    /// | `max.message.bytes` | smaller than this client's [`Limits::batch`](crate::Limits::batch); larger than what it reads |
    /// | `message.timestamp.type` | `CreateTime`, where records are deleted by age |
    /// | `message.timestamp.before.max.ms`, `….after.max.ms` | bounds of less than an hour; any bound on the past |
    /// | `producer.id.expiration.ms` of each broker | less than a day |
    /// | `transactional.id.expiration.ms` of each broker | less than a week |
    ///
    /// What a broker does not have, or this client may not see, is a finding too: [`Severity::NotChecked`]. Brokers' settings
    /// take the right to describe the configs of the cluster.
    ///
    /// `replica.fetch.max.bytes` is not among them: replicas fetch a batch that is larger than it all the same (KIP-74).
    ///
    /// ```no_run
    /// # async fn look(controller: kwal_client::ControllerClient) -> Result<(), kwal_client::error::Error> {
    /// for finding in controller.audit("wal").await? {
    ///     eprintln!("{finding}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] after [`Deadlines::unknown_topic`](crate::Deadlines::unknown_topic);
    /// [`Error::DeadlineExceeded`] if topic and cluster cannot be described in time. A broker that does not answer within
    /// [`Deadlines::request`](crate::Deadlines::request) is a finding.
    ///
    /// # Cancellation
    /// Nothing is lost by dropping it.
    pub async fn audit(&self, topic: impl Into<String>) -> Result<Vec<Finding>, Error> {
        let topic = topic.into();
        check_topic(&topic)?;
        let deadline = self.deadline();
        let layout = self.layout(&topic, deadline).await?;
        let configs = match self.configs(Resource::Topic(&topic), None, deadline).await {
            Err(error) if is_denied(&error) => Err(error),
            configs => Ok(configs?),
        };
        let cluster = self.describe_cluster_until(deadline).await?;
        let names = BROKER_SETTINGS.map(|(name, ..)| name.to_owned());
        let mut brokers = Vec::with_capacity(cluster.brokers.len());
        for broker in cluster.brokers {
            // One that is down does not keep the others from being asked.
            let until = deadline.min(Instant::now() + self.cluster.config.deadlines.request);
            let told = self.configs(Resource::Broker(broker.id), Some(&names), until).await;
            brokers.push(Broker { id: broker.id, told });
        }
        let config = &self.cluster.config;
        let mut audit = Audit { limits: config.limits, deadlines: config.deadlines, findings: Vec::new() };
        audit.replicas(&layout.partitions, configs.as_ref().ok());
        match &configs {
            Ok(configs) => audit.topic(configs),
            Err(error) => {
                audit.not_checked("the settings of the topic", Vec::new(), "readable", because(error))
            }
        }
        audit.brokers(&brokers);
        audit.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Ok(audit.findings)
    }
}

/// Whether an error says that one may not ask, or cannot.
fn is_denied(error: &Error) -> bool {
    let denied = [ErrorCode::TOPIC_AUTHORIZATION_FAILED, ErrorCode::CLUSTER_AUTHORIZATION_FAILED];
    matches!(error, Error::Unsupported { .. }) || error.code().is_some_and(|code| denied.contains(&code))
}

/// Why a broker did not tell. Which one it was is told elsewhere, so that all that say the same are told together.
fn because(error: &Error) -> String {
    match error {
        Error::Broker { code, message: Some(message), .. } => {
            format!("The broker answers {code} ({message}).")
        }
        Error::Broker { code, message: None, .. } => format!("The broker answers {code}."),
        error => {
            let mut text = format!("It could not be asked: {error}");
            let mut cause: &dyn std::error::Error = error;
            while let Some(source) = cause.source() {
                text.push_str(": ");
                text.push_str(&source.to_string());
                cause = source;
            }
            text.push('.');
            text
        }
    }
}

/// Findings as they are made.
#[derive(Debug)]
struct Audit {
    limits: Limits,
    deadlines: Deadlines,
    findings: Vec<Finding>,
}

impl Audit {
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
        let severity = Severity::NotChecked;
        self.findings.push(Finding { severity, setting, brokers, found: None, source: None, wanted, why });
    }

    /// How many there are of each record, and how many an append waits for.
    fn replicas(
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
            self.add(Severity::Danger, "leader", format!("missing in {these}"), "there", why);
        }
        if let Some(these) = of_these(&|partition| factor(partition) == fewest).filter(|_| fewest < 3) {
            let (severity, why) = match fewest {
                0 | 1 => (
                    Severity::Danger,
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
            self.add(Severity::Danger, "in-sync replicas", found, "all", why);
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
            (Severity::Danger, why)
        } else if least <= 1 {
            let why = "An append is acknowledged as soon as the leader alone has it; if that broker is lost then, so are \
                       acknowledged records.";
            (Severity::Danger, why)
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
    fn topic(&mut self, configs: &BTreeMap<String, ConfigValue>) {
        let topic = TopicSettings { configs };
        if topic.number("min.insync.replicas").is_none() {
            self.missing(&topic, "min.insync.replicas", "2 of 3 replicas");
        }
        match topic.text("unclean.leader.election.enable") {
            Some("false") => {}
            Some(value) => {
                let why = "After a failure a replica that lacks acknowledged records may become the leader, and they are lost.";
                self.of_topic(
                    &topic,
                    Severity::Danger,
                    "unclean.leader.election.enable",
                    value,
                    "false",
                    why,
                );
            }
            None => self.missing(&topic, "unclean.leader.election.enable", "false"),
        }
        let policy = topic.text("cleanup.policy");
        let has = |name: &str| policy.is_some_and(|policy| policy.split(',').any(|one| one.trim() == name));
        if has("compact") {
            let why = "Of the records with the same key only the last is kept, and records without a key are refused.";
            let found = policy.unwrap_or_default();
            self.of_topic(&topic, Severity::Danger, "cleanup.policy", found, "delete", why);
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
            self.of_topic(topic, Severity::Notice, name, &found, &wanted, &why);
        }
        if allowed > read {
            let wanted = format!("at most {read}, or `Limits::frame` and `Limits::decompressed` larger");
            let why =
                "Another writer may append a batch that this client cannot read, and its reading ends there.";
            self.of_topic(topic, Severity::Danger, name, &found, &wanted, why);
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
                    self.of_topic(topic, Severity::Notice, name, &found, &i64::MAX.to_string(), why);
                }
                Some(_) => {}
                None => self.missing(topic, name, "at least an hour"),
            }
        }
    }

    /// For how long brokers remember writers. Those that say the same are told together.
    fn brokers(&mut self, brokers: &[Broker]) {
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
                            true => (Severity::Danger, FORGOTTEN_WITHIN_A_CALL),
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
struct Broker {
    id: i32,
    told: Result<BTreeMap<String, ConfigValue>, Error>,
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
        let config = match &self.told {
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

/// Some numbers, not too many of them.
struct List<'a>(&'a [i32]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, number) in self.0.iter().take(MOST_NAMED).enumerate() {
            write!(f, "{}{number}", if i == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(MOST_NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

const MOST_NAMED: usize = 8;

struct Partitions<'a>(&'a [i32]);

impl fmt::Display for Partitions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition{} {}", if self.0.len() == 1 { "" } else { "s" }, List(self.0))
    }
}
