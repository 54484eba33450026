//! The settings of topics and of the broker: those that Kafka 4.3 or 3.9 knows, their defaults, and what the embedded broker makes
//! of them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{AlterableConfig, ConfigSynonym, CreatedConfig, DescribedConfig},
    record::Compression,
};

/// The settings of one topic.
#[derive(Clone, Debug)]
pub(crate) struct TopicConfig {
    /// What the topic has of its own.
    set: BTreeMap<&'static str, String>,
    /// The same as it was given.
    given: BTreeMap<&'static str, String>,
    /// `compression.type`, unless that is the producer's.
    pub(crate) compression: Option<Compression>,
    /// `max.message.bytes`: the size of a batch, in bytes.
    pub(crate) max_message_bytes: usize,
    /// `message.timestamp.type` is `LogAppendTime`.
    pub(crate) log_append_time: bool,
    /// `message.timestamp.before.max.ms`.
    pub(crate) timestamp_before_max: i64,
    /// `message.timestamp.after.max.ms`.
    pub(crate) timestamp_after_max: i64,
    /// `cleanup.policy` has `compact`: records need a key.
    pub(crate) compacted: bool,
    /// `cleanup.policy` has `delete`: the beginning may be cut off.
    pub(crate) deletes: bool,
    /// `min.insync.replicas`.
    pub(crate) min_isr: usize,
    /// `unclean.leader.election.enable`.
    pub(crate) unclean_elections: bool,
}

/// Why settings are not taken: the code, and the words that Kafka has for it.
pub(crate) type ConfigRefusal = (ErrorCode, String);

impl TopicConfig {
    /// Takes settings over the broker's and the defaults; says what is wrong with one.
    pub(crate) fn new<'a>(
        given: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
        broker: &BrokerConfig,
    ) -> Result<Self, String> {
        let (mut set, mut originals) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in given {
            let known = broker.find(name).ok_or_else(|| format!("Unknown topic config name: {name}"))?;
            let Some(value) = value else {
                return Err(format!("the topic config {name} has no value"));
            };
            originals.insert(known.name, value.to_owned());
            let value = known.kind.read(known.name, value)?;
            set.insert(known.name, value.into_owned());
        }
        let text = |name| {
            let found = broker.find(name).map(|known| known.in_force(&set, broker).0);
            found.unwrap_or_default()
        };
        let number = |name| text(name).parse::<i64>().unwrap_or_default();
        let cleanup = |policy| text("cleanup.policy").split(',').any(|one| one == policy);
        Ok(Self {
            max_message_bytes: number("max.message.bytes") as usize,
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            timestamp_before_max: number("message.timestamp.before.max.ms"),
            timestamp_after_max: number("message.timestamp.after.max.ms"),
            compacted: cleanup("compact"),
            deletes: cleanup("delete"),
            min_isr: number("min.insync.replicas") as usize,
            unclean_elections: text("unclean.leader.election.enable") == "true",
            compression: match text("compression.type") {
                "uncompressed" => Some(Compression::None),
                name => Compression::ALL.into_iter().find(|codec| codec.name() == name),
            },
            given: originals,
            set,
        })
    }

    /// These settings with some changed (KIP-339).
    pub(crate) fn altered(
        &self,
        changes: &[AlterableConfig],
        broker: &BrokerConfig,
    ) -> Result<Self, ConfigRefusal> {
        let mut names = BTreeSet::new();
        if !changes.iter().all(|change| names.insert(&change.name)) {
            return Err((ErrorCode::INVALID_REQUEST, "Error due to duplicate config keys".to_owned()));
        }
        let lacking = |change: &&AlterableConfig| change.config_operation != DELETE && change.value.is_none();
        let lacking: Vec<_> = changes.iter().filter(lacking).map(|change| change.name.as_str()).collect();
        if !lacking.is_empty() {
            let message = format!("Null value not supported for : {}", lacking.join(","));
            return Err((ErrorCode::INVALID_REQUEST, message));
        }
        let mut set: BTreeMap<Cow<'_, str>, String> =
            self.set.iter().map(|(name, value)| (Cow::Borrowed(*name), value.clone())).collect();
        for change in changes {
            let (name, value) = (change.name.as_str(), change.value.as_deref().unwrap_or_default());
            match change.config_operation {
                SET => drop(set.insert(name.into(), value.to_owned())),
                DELETE => drop(set.remove(name)),
                APPEND | SUBTRACT => {
                    let list = self.list_changed(change, value, broker)?;
                    set.insert(name.into(), list);
                }
                // Kafka stumbles over it.
                _ => return Err((ErrorCode::UNKNOWN_SERVER_ERROR, "an unknown operation".to_owned())),
            }
        }
        let given = set.iter().map(|(name, value)| (&**name, Some(value.as_str())));
        Self::new(given, broker).map_err(|message| (ErrorCode::INVALID_CONFIG, message))
    }

    /// A list with some elements more or fewer. Like Kafka it begins with the topic's own or the default, whatever the broker
    /// has.
    fn list_changed(
        &self,
        change: &AlterableConfig,
        value: &str,
        broker: &BrokerConfig,
    ) -> Result<String, ConfigRefusal> {
        let name = change.name.as_str();
        let verb = if change.config_operation == APPEND { "APPEND" } else { "SUBTRACT" };
        let Some(known) = broker.find(name).filter(|known| known.kind.is_list()) else {
            let message = format!("Can't {verb} to key {name} because its type is not LIST.");
            return Err((ErrorCode::INVALID_CONFIG, message));
        };
        let now = self.set.get(known.name).map_or(known.default, String::as_str);
        let mut list = parts(now);
        for part in parts(value) {
            list.retain(|one| *one != part || change.config_operation == APPEND);
            if change.config_operation == APPEND && !list.contains(&part) {
                list.push(part);
            }
        }
        Ok(list.join(","))
    }

    /// All settings as CreateTopics tells them.
    pub(crate) fn created(&self, broker: &BrokerConfig) -> Vec<CreatedConfig> {
        let describe = |known: &Known| {
            let (value, config_source) = known.in_force(&self.given, broker);
            CreatedConfig {
                name: known.name.to_owned(),
                value: Some(value.to_owned()),
                read_only: false,
                config_source,
                is_sensitive: false,
            }
        };
        broker.known().map(describe).collect()
    }

    /// All settings as DescribeConfigs tells them.
    pub(crate) fn describe(&self, broker: &BrokerConfig) -> Vec<DescribedConfig> {
        let describe = |known: &Known| {
            let (value, config_source) = known.in_force(&self.set, broker);
            let own = self.set.get(known.name).map(|value| synonym(known.name, value, FROM_TOPIC));
            DescribedConfig {
                synonyms: own.into_iter().chain(known.broker_synonyms(broker)).collect(),
                ..described(known.name, Some(value), config_source, known.kind.config_type())
            }
        };
        broker.known().map(describe).collect()
    }
}

/// The settings of the broker that were given when it was made.
#[derive(Clone, Debug, Default)]
pub(crate) struct BrokerConfig {
    set: BTreeMap<&'static str, String>,
    /// The settings are those of before Kafka 4.
    pub(crate) is_old: bool,
}

impl BrokerConfig {
    /// The settings that topics have, by name.
    fn known(&self) -> impl Iterator<Item = &'static Known> + use<> {
        let old: &[Known] = if self.is_old { OLD } else { &[] };
        let replaced = |known: &&Known| !old.iter().any(|old| old.name == known.name);
        let mut all: Vec<_> = KNOWN.iter().filter(replaced).chain(old).collect();
        all.sort_by_key(|known| known.name);
        all.into_iter()
    }

    fn find(&self, name: &str) -> Option<&'static Known> {
        self.known().find(|known| known.name == name)
    }

    /// Sets one; says what is wrong with it.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let of_topics = self.known().filter(|known| !known.broker.is_empty());
        let of_topics = of_topics.map(|known| (known.broker, &known.kind));
        let own = OWN.iter().map(|own| (own.name, &own.kind));
        let Some((name, kind)) = of_topics.chain(own).find(|(known, _)| *known == name) else {
            return Err(format!("the embedded broker has no setting {name}"));
        };
        let value = kind.read(name, value)?;
        self.set.insert(name, value.into_owned());
        Ok(())
    }

    /// A setting that is a number and that topics do not have.
    pub(crate) fn number(&self, name: &str) -> i64 {
        let default = || OWN.iter().find(|own| own.name == name).map_or("", |own| own.default);
        self.set.get(name).map_or_else(default, String::as_str).parse().unwrap_or_default()
    }

    /// The same of a time in milliseconds.
    pub(crate) fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(u64::try_from(self.number(name)).unwrap_or_default())
    }

    /// All settings as DescribeConfigs tells them; `computed` are those that follow from what the broker is.
    pub(crate) fn describe(&self, computed: &[(&'static str, String)]) -> Vec<DescribedConfig> {
        let computed = computed.iter().map(|(name, value)| DescribedConfig {
            read_only: true,
            synonyms: vec![synonym(name, value, FROM_BROKER)],
            ..described(
                name,
                Some(value),
                FROM_BROKER,
                if *value == "true" || *value == "false" { 1 } else { 3 },
            )
        });
        let of_topics = self.known().filter(|known| !known.broker.is_empty()).map(|known| DescribedConfig {
            synonyms: known.broker_synonyms(self).collect(),
            ..described(
                known.broker,
                Some(self.set.get(known.broker).map_or(known.default, String::as_str)),
                if self.set.contains_key(known.broker) { FROM_BROKER } else { FROM_DEFAULT },
                known.kind.config_type(),
            )
        });
        let own = OWN.iter().map(|own| {
            let set = self.set.get(own.name);
            let synonyms = set.map(|value| synonym(own.name, value, FROM_BROKER));
            DescribedConfig {
                read_only: own.read_only,
                synonyms: synonyms
                    .into_iter()
                    .chain([synonym(own.name, own.default, FROM_DEFAULT)])
                    .collect(),
                ..described(
                    own.name,
                    Some(set.map_or(own.default, String::as_str)),
                    if set.is_some() { FROM_BROKER } else { FROM_DEFAULT },
                    own.kind.config_type(),
                )
            }
        });
        let secret = DescribedConfig {
            is_sensitive: true,
            ..described("ssl.keystore.password", None, FROM_DEFAULT, TYPE_PASSWORD)
        };
        let mut all: Vec<_> = computed.chain(of_topics).chain(own).chain([secret]).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

fn described(name: &str, value: Option<&str>, config_source: i8, config_type: i8) -> DescribedConfig {
    DescribedConfig {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        is_default: config_source == FROM_DEFAULT,
        config_source,
        config_type,
        documentation: None,
        ..DescribedConfig::default()
    }
}

fn synonym(name: &str, value: &str, source: i8) -> ConfigSynonym {
    ConfigSynonym { name: name.to_owned(), value: Some(value.to_owned()), source }
}

/// What IncrementalAlterConfigs does to a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// What `config_source` says of a setting.
const FROM_TOPIC: i8 = 1;
const FROM_BROKER: i8 = 4;
const FROM_DEFAULT: i8 = 5;

/// What `config_type` says of a secret.
const TYPE_PASSWORD: i8 = 9;

struct Known {
    name: &'static str,
    /// What the broker calls it, if it can set it for all topics.
    broker: &'static str,
    default: &'static str,
    kind: Kind,
}

impl Known {
    /// The value that counts, and where it comes from.
    fn in_force<'a>(
        &self,
        set: &'a BTreeMap<&'static str, String>,
        broker: &'a BrokerConfig,
    ) -> (&'a str, i8) {
        if let Some(own) = set.get(self.name) {
            return (own, FROM_TOPIC);
        }
        match broker.set.get(self.broker) {
            Some(value) => (value, FROM_BROKER),
            None => (self.default, FROM_DEFAULT),
        }
    }

    fn broker_synonyms<'a>(&'a self, broker: &'a BrokerConfig) -> impl Iterator<Item = ConfigSynonym> + 'a {
        let set = broker.set.get(self.broker).map(|value| synonym(self.broker, value, FROM_BROKER));
        let has_default = !self.broker.is_empty() && !WITHOUT_DEFAULT.contains(&self.name);
        let default = has_default.then(|| synonym(self.broker, self.default, FROM_DEFAULT));
        set.into_iter().chain(default)
    }
}

/// A setting of the broker that topics do not have.
struct Own {
    name: &'static str,
    default: &'static str,
    kind: Kind,
    read_only: bool,
}

enum Kind {
    /// A whole number from the first to the second.
    Number(i64, i64),
    /// A fraction from 0 to 1.
    Ratio,
    /// `true` or `false`.
    Bool,
    /// One of these.
    One(&'static [&'static str]),
    /// Some of these, between commas, or none.
    Some(&'static [&'static str]),
    /// Any words, between commas.
    Words,
    /// Anything.
    Text,
}

impl Kind {
    /// The value as it is told, or what is wrong with it, in Kafka's words.
    fn read<'a>(&self, name: &str, value: &'a str) -> Result<Cow<'a, str>, String> {
        let value = value.trim();
        let mut blamed = value;
        let wrong = match self {
            Self::Number(min, max) => match value.parse::<i64>() {
                Ok(number) if number < *min => format!("Value must be at least {min}"),
                Ok(number) if number > *max && *max < INT => format!("Value must be no more than {max}"),
                Ok(number) if number <= *max => return Ok(value.into()),
                _ => format!("Not a number of type {}", if *max <= INT { "INT" } else { "LONG" }),
            },
            Self::Ratio => match value.parse::<f64>() {
                Ok(ratio) if ratio < 0.0 => "Value must be at least 0".to_owned(),
                Ok(ratio) if ratio > 1.0 => "Value must be no more than 1".to_owned(),
                Ok(ratio) if ratio.is_finite() => return Ok(value.into()),
                _ => "Not a number of type DOUBLE".to_owned(),
            },
            Self::Bool => match value.to_ascii_lowercase() {
                lower if lower == "true" || lower == "false" => return Ok(lower.into()),
                _ => "Expected value to be either true or false".to_owned(),
            },
            Self::One(choices) if !choices.contains(&value) => one_of(choices),
            Self::Some(choices) => match parts(value).iter().find(|part| !choices.contains(part)) {
                Some(part) => {
                    blamed = part;
                    one_of(choices)
                }
                None => return Ok(parts(value).join(",").into()),
            },
            Self::Words => return Ok(parts(value).join(",").into()),
            Self::One(_) | Self::Text => return Ok(value.into()),
        };
        Err(format!("Invalid value {blamed} for configuration {name}: {wrong}"))
    }

    fn is_list(&self) -> bool {
        matches!(self, Self::Some(_) | Self::Words)
    }

    /// What `config_type` says of it.
    fn config_type(&self) -> i8 {
        match self {
            Self::Bool => 1,
            Self::One(_) | Self::Text => 2,
            Self::Number(_, ..=INT) => 3,
            Self::Number(..) => 5,
            Self::Ratio => 6,
            Self::Some(_) | Self::Words => 7,
        }
    }
}

fn one_of(choices: &[&str]) -> String {
    format!("String must be one of: {}", choices.join(", "))
}

/// The elements of a list, each once.
fn parts(list: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts
}

const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;

const fn known(name: &'static str, broker: &'static str, default: &'static str, kind: Kind) -> Known {
    Known { name, broker, default, kind }
}

const KNOWN: &[Known] = &[
    known("cleanup.policy", "log.cleanup.policy", "delete", Kind::Some(&["compact", "delete"])),
    known("compression.gzip.level", "compression.gzip.level", "-1", Kind::Number(-1, 9)),
    known("compression.lz4.level", "compression.lz4.level", "9", Kind::Number(1, 17)),
    known(
        "compression.type",
        "compression.type",
        "producer",
        Kind::One(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
    ),
    known("compression.zstd.level", "compression.zstd.level", "3", Kind::Number(-131_072, 22)),
    known("delete.retention.ms", "log.cleaner.delete.retention.ms", "86400000", Kind::Number(0, LONG)),
    known("file.delete.delay.ms", "log.segment.delete.delay.ms", "60000", Kind::Number(0, LONG)),
    known("flush.messages", "log.flush.interval.messages", "9223372036854775807", Kind::Number(1, LONG)),
    known("flush.ms", "log.flush.interval.ms", "9223372036854775807", Kind::Number(0, LONG)),
    known("follower.replication.throttled.replicas", "", "", Kind::Words),
    known("index.interval.bytes", "log.index.interval.bytes", "4096", Kind::Number(0, INT)),
    known("leader.replication.throttled.replicas", "", "", Kind::Words),
    known("local.retention.bytes", "log.local.retention.bytes", "-2", Kind::Number(-2, LONG)),
    known("local.retention.ms", "log.local.retention.ms", "-2", Kind::Number(-2, LONG)),
    known(
        "max.compaction.lag.ms",
        "log.cleaner.max.compaction.lag.ms",
        "9223372036854775807",
        Kind::Number(1, LONG),
    ),
    known("max.message.bytes", "message.max.bytes", "1048588", Kind::Number(0, INT)),
    known(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        "3600000",
        Kind::Number(0, LONG),
    ),
    known(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        "9223372036854775807",
        Kind::Number(0, LONG),
    ),
    known(
        "message.timestamp.type",
        "log.message.timestamp.type",
        "CreateTime",
        Kind::One(&["CreateTime", "LogAppendTime"]),
    ),
    known("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio", "0.5", Kind::Ratio),
    known("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms", "0", Kind::Number(0, LONG)),
    known("min.insync.replicas", "min.insync.replicas", "1", Kind::Number(1, INT)),
    known("preallocate", "log.preallocate", "false", Kind::Bool),
    known("remote.log.copy.disable", "", "false", Kind::Bool),
    known("remote.log.delete.on.disable", "", "false", Kind::Bool),
    known("remote.storage.enable", "", "false", Kind::Bool),
    known("retention.bytes", "log.retention.bytes", "-1", Kind::Number(-1, LONG)),
    known("retention.ms", "log.retention.ms", "604800000", Kind::Number(-1, LONG)),
    known("segment.bytes", "log.segment.bytes", "1073741824", Kind::Number(1_048_576, INT)),
    known("segment.index.bytes", "log.index.size.max.bytes", "10485760", Kind::Number(4, INT)),
    known("segment.jitter.ms", "log.roll.jitter.ms", "0", Kind::Number(0, LONG)),
    known("segment.ms", "log.roll.ms", "604800000", Kind::Number(1, LONG)),
    known("unclean.leader.election.enable", "unclean.leader.election.enable", "false", Kind::Bool),
];

/// The broker has none for these: it goes by hours, minutes or another setting instead.
const WITHOUT_DEFAULT: &[&str] = &["flush.ms", "retention.ms", "segment.jitter.ms", "segment.ms"];

/// What Kafka 3.9 has instead or as well.
const OLD: &[Known] = &[
    known("message.downconversion.enable", "log.message.downconversion.enable", "true", Kind::Bool),
    known("message.format.version", "log.message.format.version", "3.0-IV1", Kind::Text),
    known(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        "9223372036854775807",
        Kind::Number(0, LONG),
    ),
    known(
        "message.timestamp.difference.max.ms",
        "log.message.timestamp.difference.max.ms",
        "9223372036854775807",
        Kind::Number(0, LONG),
    ),
    known("segment.bytes", "log.segment.bytes", "1073741824", Kind::Number(14, INT)),
];

const fn own(name: &'static str, default: &'static str, kind: Kind, read_only: bool) -> Own {
    Own { name, default, kind, read_only }
}

const OWN: &[Own] = &[
    own("broker.session.timeout.ms", "9000", Kind::Number(0, INT), true),
    own("default.replication.factor", "1", Kind::Number(1, INT), true),
    own("fetch.max.bytes", "57671680", Kind::Number(1024, INT), true),
    own("producer.id.expiration.check.interval.ms", "600000", Kind::Number(1, INT), true),
    own("producer.id.expiration.ms", "86400000", Kind::Number(1, INT), false),
    own("replica.fetch.max.bytes", "1048576", Kind::Number(0, INT), true),
    own("replica.lag.time.max.ms", "30000", Kind::Number(0, LONG), true),
    own("transaction.max.timeout.ms", "900000", Kind::Number(1, INT), true),
    own("transaction.remove.expired.transaction.cleanup.interval.ms", "3600000", Kind::Number(1, INT), true),
    own("transactional.id.expiration.ms", "604800000", Kind::Number(1, INT), true),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed() {
        for known in KNOWN.iter().chain(OLD) {
            assert!(known.kind.read(known.name, known.default).is_ok(), "{} = {}", known.name, known.default);
        }
        let config = TopicConfig::new([], &BrokerConfig::default()).unwrap();
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.timestamp_after_max, 3_600_000);
        assert!(!config.log_append_time && !config.compacted && config.deletes);
        assert_eq!(config.describe(&BrokerConfig::default()).len(), KNOWN.len());
        for own in OWN {
            assert!(own.kind.read(own.name, own.default).is_ok(), "{} = {}", own.name, own.default);
        }
    }

    #[test]
    fn what_is_given_counts_and_is_told() {
        let mut broker = BrokerConfig::default();
        broker.set("message.max.bytes", "2000").unwrap();
        broker.set("log.retention.ms", "9").unwrap();
        let given = [
            ("max.message.bytes", Some(" 1000 ")),
            ("cleanup.policy", Some("delete, compact,delete")),
            ("message.timestamp.type", Some("LogAppendTime")),
        ];
        let config = TopicConfig::new(given, &broker).unwrap();
        assert!(config.log_append_time && config.compacted && config.deletes);
        assert_eq!(config.max_message_bytes, 1000);
        let told = config.describe(&broker);
        let of = |source| {
            let of = told.iter().filter(move |config| config.config_source == source);
            of.map(|config| (config.name.as_str(), config.value.as_deref().unwrap())).collect::<Vec<_>>()
        };
        let own = [
            ("cleanup.policy", "delete,compact"),
            ("max.message.bytes", "1000"),
            ("message.timestamp.type", "LogAppendTime"),
        ];
        assert_eq!(of(FROM_TOPIC), own);
        assert_eq!(of(FROM_BROKER), [("retention.ms", "9")]);
        let size = told.iter().find(|config| config.name == "max.message.bytes").unwrap();
        let values: Vec<_> = size.synonyms.iter().map(|synonym| synonym.value.as_deref().unwrap()).collect();
        assert_eq!(values, ["1000", "2000", "1048588"]);
        assert_eq!(TopicConfig::new([], &broker).unwrap().max_message_bytes, 2000);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (name, value, says) in [
            ("max.mesage.bytes", Some("1"), "Unknown topic config name: max.mesage.bytes"),
            ("retention.ms", None, "the topic config retention.ms has no value"),
            (
                "retention.ms",
                Some("-2"),
                "Invalid value -2 for configuration retention.ms: Value must be at least -1",
            ),
            (
                "retention.ms",
                Some("soon"),
                "Invalid value soon for configuration retention.ms: Not a number of type LONG",
            ),
            (
                "segment.bytes",
                Some("2147483648"),
                "Invalid value 2147483648 for configuration segment.bytes: Not a number of type INT",
            ),
            (
                "preallocate",
                Some("yes"),
                "Invalid value yes for configuration preallocate: Expected value to be either true or false",
            ),
            (
                "min.cleanable.dirty.ratio",
                Some("2"),
                "Invalid value 2 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
            ),
            (
                "cleanup.policy",
                Some("keep"),
                "Invalid value keep for configuration cleanup.policy: String must be one of: compact, delete",
            ),
        ] {
            assert_eq!(TopicConfig::new([(name, value)], &BrokerConfig::default()).unwrap_err(), says);
        }
        let unknown = BrokerConfig::default().set("log.retention.years", "1").unwrap_err();
        assert_eq!(unknown, "the embedded broker has no setting log.retention.years");
    }
}
