//! The settings with their defaults and allowed values.

use std::borrow::Cow;

pub(super) struct Known {
    pub(super) name: &'static str,
    /// The name of the broker setting that is its default; empty if there is none.
    pub(super) broker: &'static str,
    pub(super) default: &'static str,
    pub(super) kind: Kind,
}

/// A setting of the broker that is not a default of topics.
pub(super) struct Own {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    pub(super) kind: Kind,
    pub(super) read_only: bool,
}

pub(super) enum Kind {
    /// An integer within these bounds.
    Number(i64, i64),
    /// A fraction from 0 to 1.
    Ratio,
    /// `true` or `false`.
    Bool,
    /// One of these.
    One(&'static [&'static str]),
    /// A list of these, separated by commas.
    Some(&'static [&'static str]),
    /// A list of anything, separated by commas.
    Words,
    /// Any text.
    Text,
}

impl Kind {
    /// Returns the value in normal form, or Kafka's message if it is not allowed.
    pub(super) fn read<'a>(&self, name: &str, value: &'a str) -> Result<Cow<'a, str>, String> {
        let value = value.trim();
        let mut invalid = value;
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
                    invalid = part;
                    one_of(choices)
                }
                None => return Ok(parts(value).join(",").into()),
            },
            Self::Words => return Ok(parts(value).join(",").into()),
            Self::One(_) | Self::Text => return Ok(value.into()),
        };
        Err(format!("Invalid value {invalid} for configuration {name}: {wrong}"))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self, Self::Some(_) | Self::Words)
    }

    /// Returns the value for `config_type`.
    pub(super) fn config_type(&self) -> i8 {
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

/// Returns the elements of a list without repetitions.
pub(super) fn parts(list: &str) -> Vec<&str> {
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

pub(super) const KNOWN: &[Known] = &[
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

/// Without a default: Kafka uses other units or another setting.
pub(super) const WITHOUT_DEFAULT: &[&str] = &["flush.ms", "retention.ms", "segment.jitter.ms", "segment.ms"];

/// What Kafka 3.9 has in place of, or in addition to, these.
pub(super) const OLD: &[Known] = &[
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

pub(super) const OWN: &[Own] = &[
    own("broker.session.timeout.ms", "9000", Kind::Number(0, INT), true),
    own("default.replication.factor", "1", Kind::Number(1, INT), true),
    own("fetch.max.bytes", "57671680", Kind::Number(1024, INT), true),
    own("max.connections.per.ip", "2147483647", Kind::Number(0, INT), false),
    own("producer.id.expiration.check.interval.ms", "600000", Kind::Number(1, INT), true),
    own("producer.id.expiration.ms", "86400000", Kind::Number(1, INT), false),
    own("replica.fetch.max.bytes", "1048576", Kind::Number(0, INT), true),
    own("replica.lag.time.max.ms", "30000", Kind::Number(0, LONG), true),
    own("transaction.max.timeout.ms", "900000", Kind::Number(1, INT), true),
    own("transaction.remove.expired.transaction.cleanup.interval.ms", "3600000", Kind::Number(1, INT), true),
    own("transaction.state.log.min.isr", "2", Kind::Number(1, INT), true),
    own("transaction.state.log.num.partitions", "50", Kind::Number(1, INT), true),
    own("transaction.state.log.replication.factor", "3", Kind::Number(1, 32_767), true),
    own("transactional.id.expiration.ms", "604800000", Kind::Number(1, INT), true),
];
