//! The settings of a topic: those that Kafka 4.3 knows, their defaults, and what the embedded broker makes of them.

use std::collections::BTreeMap;

use kwal_protocol::messages::CreatedConfig;

/// The settings of one topic.
#[derive(Clone, Debug)]
pub(crate) struct TopicConfig {
    /// What is not the default.
    set: BTreeMap<&'static str, String>,
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
}

impl TopicConfig {
    /// Takes settings over the defaults; says what is wrong with one.
    pub(crate) fn new<'a>(
        given: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Self, String> {
        let mut set = BTreeMap::new();
        for (name, value) in given {
            let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
                return Err(format!("Unknown topic config name: {name}"));
            };
            let Some(value) = value else {
                return Err(format!("the topic config {name} has no value"));
            };
            if !known.kind.takes(value) {
                return Err(format!("Invalid value {value} for configuration {name}"));
            }
            set.insert(known.name, value.to_owned());
        }
        let text = |name| set.get(name).map_or_else(|| default(name), String::as_str);
        let number = |name| text(name).trim().parse::<i64>().unwrap_or_default();
        Ok(Self {
            max_message_bytes: number("max.message.bytes") as usize,
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            timestamp_before_max: number("message.timestamp.before.max.ms"),
            timestamp_after_max: number("message.timestamp.after.max.ms"),
            compacted: text("cleanup.policy").split(',').any(|policy| policy.trim() == "compact"),
            set,
        })
    }

    /// All settings as CreateTopics tells them.
    pub(crate) fn describe(&self) -> Vec<CreatedConfig> {
        let describe = |known: &Known| CreatedConfig {
            name: known.name.to_owned(),
            value: Some(self.set.get(known.name).map_or(known.default, String::as_str).to_owned()),
            read_only: false,
            config_source: if self.set.contains_key(known.name) { FROM_TOPIC } else { FROM_DEFAULT },
            is_sensitive: false,
        };
        KNOWN.iter().map(describe).collect()
    }
}

/// What `config_source` says of a setting.
const FROM_TOPIC: i8 = 1;
const FROM_DEFAULT: i8 = 5;

struct Known {
    name: &'static str,
    default: &'static str,
    kind: Kind,
}

enum Kind {
    /// A whole number from the first to the second.
    Number(i64, i64),
    /// A fraction from 0 to 1.
    Ratio,
    /// One of these.
    One(&'static [&'static str]),
    /// Some of these, between commas.
    Some(&'static [&'static str]),
    Text,
}

impl Kind {
    fn takes(&self, value: &str) -> bool {
        match self {
            Self::Number(min, max) => {
                value.trim().parse().is_ok_and(|number: i64| *min <= number && number <= *max)
            }
            Self::Ratio => value.trim().parse().is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio)),
            Self::One(choices) => choices.contains(&value),
            Self::Some(choices) => value.split(',').all(|part| choices.contains(&part.trim())),
            Self::Text => true,
        }
    }
}

const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
const BOOL: Kind = Kind::One(&["true", "false"]);

const fn known(name: &'static str, default: &'static str, kind: Kind) -> Known {
    Known { name, default, kind }
}

const KNOWN: &[Known] = &[
    known("cleanup.policy", "delete", Kind::Some(&["delete", "compact"])),
    known("compression.gzip.level", "-1", Kind::Number(-1, 9)),
    known("compression.lz4.level", "9", Kind::Number(1, 17)),
    known(
        "compression.type",
        "producer",
        Kind::One(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
    ),
    known("compression.zstd.level", "3", Kind::Number(-131_072, 22)),
    known("delete.retention.ms", "86400000", Kind::Number(0, LONG)),
    known("file.delete.delay.ms", "60000", Kind::Number(0, LONG)),
    known("flush.messages", "9223372036854775807", Kind::Number(1, LONG)),
    known("flush.ms", "9223372036854775807", Kind::Number(0, LONG)),
    known("follower.replication.throttled.replicas", "", Kind::Text),
    known("index.interval.bytes", "4096", Kind::Number(0, INT)),
    known("leader.replication.throttled.replicas", "", Kind::Text),
    known("local.retention.bytes", "-2", Kind::Number(-2, LONG)),
    known("local.retention.ms", "-2", Kind::Number(-2, LONG)),
    known("max.compaction.lag.ms", "9223372036854775807", Kind::Number(1, LONG)),
    known("max.message.bytes", "1048588", Kind::Number(0, INT)),
    known("message.timestamp.after.max.ms", "3600000", Kind::Number(0, LONG)),
    known("message.timestamp.before.max.ms", "9223372036854775807", Kind::Number(0, LONG)),
    known("message.timestamp.type", "CreateTime", Kind::One(&["CreateTime", "LogAppendTime"])),
    known("min.cleanable.dirty.ratio", "0.5", Kind::Ratio),
    known("min.compaction.lag.ms", "0", Kind::Number(0, LONG)),
    known("min.insync.replicas", "1", Kind::Number(1, INT)),
    known("preallocate", "false", BOOL),
    known("remote.log.copy.disable", "false", BOOL),
    known("remote.log.delete.on.disable", "false", BOOL),
    known("remote.storage.enable", "false", BOOL),
    known("retention.bytes", "-1", Kind::Number(-1, LONG)),
    known("retention.ms", "604800000", Kind::Number(-1, LONG)),
    known("segment.bytes", "1073741824", Kind::Number(1_048_576, INT)),
    known("segment.index.bytes", "10485760", Kind::Number(4, INT)),
    known("segment.jitter.ms", "0", Kind::Number(0, LONG)),
    known("segment.ms", "604800000", Kind::Number(1, LONG)),
    known("unclean.leader.election.enable", "false", BOOL),
];

fn default(name: &str) -> &'static str {
    KNOWN.iter().find(|known| known.name == name).map_or("", |known| known.default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed() {
        for known in KNOWN {
            assert!(known.kind.takes(known.default), "{} = {}", known.name, known.default);
        }
        let config = TopicConfig::new([]).unwrap();
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.timestamp_after_max, 3_600_000);
        assert!(!config.log_append_time && !config.compacted);
        assert_eq!(config.describe().len(), KNOWN.len());
    }

    #[test]
    fn what_is_given_counts_and_is_told() {
        let config = TopicConfig::new([
            ("max.message.bytes", Some("1000")),
            ("cleanup.policy", Some("delete, compact")),
            ("message.timestamp.type", Some("LogAppendTime")),
        ]);
        let config = config.unwrap();
        assert!(config.log_append_time && config.compacted);
        assert_eq!(config.max_message_bytes, 1000);
        let told: Vec<_> =
            config.describe().into_iter().filter(|c| c.config_source == FROM_TOPIC).map(|c| c.name).collect();
        assert_eq!(told, ["cleanup.policy", "max.message.bytes", "message.timestamp.type"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (name, value, says) in [
            ("max.mesage.bytes", Some("1"), "Unknown topic config name: max.mesage.bytes"),
            ("retention.ms", None, "the topic config retention.ms has no value"),
            ("retention.ms", Some("-2"), "Invalid value -2 for configuration retention.ms"),
            ("retention.ms", Some("soon"), "Invalid value soon for configuration retention.ms"),
            ("preallocate", Some("yes"), "Invalid value yes for configuration preallocate"),
            (
                "min.cleanable.dirty.ratio",
                Some("2"),
                "Invalid value 2 for configuration min.cleanable.dirty.ratio",
            ),
            ("cleanup.policy", Some("keep"), "Invalid value keep for configuration cleanup.policy"),
        ] {
            assert_eq!(TopicConfig::new([(name, value)]).unwrap_err(), says);
        }
    }
}
