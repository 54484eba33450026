//! The findings of an audit.

use std::fmt;

use crate::controller::ConfigSource;

/// Something that endangers a log, or could not be checked.
///
/// ```text
/// error: min.insync.replicas: 1 (the default), should be 2 of 3 replicas. An append is acknowledged as soon as the leader …
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
    Unknown,
    /// Nothing is lost by it; it may surprise.
    Info,
    /// Records may be deleted or refused, or one failure stops the appends.
    Warning,
    /// Acknowledged records may be lost or doubled by one failure, or appends or reads cannot succeed at all.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
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

pub(super) struct Partitions<'a>(pub(super) &'a [i32]);

impl fmt::Display for Partitions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition{} {}", if self.0.len() == 1 { "" } else { "s" }, List(self.0))
    }
}
