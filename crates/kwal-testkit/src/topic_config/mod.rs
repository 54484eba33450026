//! The settings of topics and brokers in Kafka 4.3 and 3.9, their defaults, and what the embedded broker
//! derives from them.

mod known;

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

use self::known::{KNOWN, Known, OLD, OWN, WITHOUT_DEFAULT, parts};

/// The settings of one topic.
#[derive(Clone, Debug)]
pub(crate) struct TopicConfig {
    /// The topic's own values, in normal form.
    set: BTreeMap<&'static str, String>,
    /// The topic's own values, as they were given.
    given: BTreeMap<&'static str, String>,
    /// `compression.type`, unless it is `producer`.
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
    /// `cleanup.policy` has `delete`: records may be deleted.
    pub(crate) deletes: bool,
    /// `min.insync.replicas`.
    pub(crate) min_isr: usize,
    /// `unclean.leader.election.enable`.
    pub(crate) unclean_elections: bool,
}

/// Why settings are rejected: the code, and Kafka's message.
pub(crate) type ConfigRefusal = (ErrorCode, String);

impl TopicConfig {
    /// Combines given settings with those of the broker and the defaults, or returns what is wrong.
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

    /// Returns these settings with changes (KIP-339).
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
                // Kafka fails here.
                _ => return Err((ErrorCode::UNKNOWN_SERVER_ERROR, "an unknown operation".to_owned())),
            }
        }
        let given = set.iter().map(|(name, value)| (&**name, Some(value.as_str())));
        Self::new(given, broker).map_err(|message| (ErrorCode::INVALID_CONFIG, message))
    }

    /// Returns a list with elements added or removed.
    ///
    /// Like Kafka, it starts from the topic's own value or the default, and ignores the broker's.
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

    /// Returns all settings for CreateTopics.
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

    /// Returns all settings for DescribeConfigs.
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

/// The settings of the broker that were given at its start.
#[derive(Clone, Debug, Default)]
pub(crate) struct BrokerConfig {
    set: BTreeMap<&'static str, String>,
    /// Whether the settings are those of Kafka 3.
    pub(crate) is_old: bool,
}

impl BrokerConfig {
    /// Returns the settings of topics, by name.
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

    /// Sets a setting, or returns what is wrong.
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

    /// Returns a numeric setting of the broker itself.
    pub(crate) fn number(&self, name: &str) -> i64 {
        let default = || OWN.iter().find(|own| own.name == name).map_or("", |own| own.default);
        self.set.get(name).map_or_else(default, String::as_str).parse().unwrap_or_default()
    }

    /// Returns a setting in milliseconds.
    pub(crate) fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(u64::try_from(self.number(name)).unwrap_or_default())
    }

    /// Returns all settings for DescribeConfigs; `computed` are those that describe the broker.
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

/// Operations of IncrementalAlterConfigs.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Values of `config_source`.
const FROM_TOPIC: i8 = 1;
const FROM_BROKER: i8 = 4;
const FROM_DEFAULT: i8 = 5;

/// The `config_type` of a secret.
const TYPE_PASSWORD: i8 = 9;

impl Known {
    /// Returns the effective value and its source.
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
    fn given_settings_apply_and_are_described() {
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
        let described_configs = config.describe(&broker);
        let of = |source| {
            let of = described_configs.iter().filter(move |config| config.config_source == source);
            of.map(|config| (config.name.as_str(), config.value.as_deref().unwrap())).collect::<Vec<_>>()
        };
        let own = [
            ("cleanup.policy", "delete,compact"),
            ("max.message.bytes", "1000"),
            ("message.timestamp.type", "LogAppendTime"),
        ];
        assert_eq!(of(FROM_TOPIC), own);
        assert_eq!(of(FROM_BROKER), [("retention.ms", "9")]);
        let size = described_configs.iter().find(|config| config.name == "max.message.bytes").unwrap();
        let values: Vec<_> = size.synonyms.iter().map(|synonym| synonym.value.as_deref().unwrap()).collect();
        assert_eq!(values, ["1000", "2000", "1048588"]);
        assert_eq!(TopicConfig::new([], &broker).unwrap().max_message_bytes, 2000);
    }

    #[test]
    fn wrong_settings_are_rejected() {
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
