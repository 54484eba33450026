//! What an audit returns.

use std::fmt;

use kwal_protocol::text::Printable;

use crate::controller::ConfigSource;

/// A risk to a log, or a rule that could not be checked.
///
/// ```text
/// error: min.insync.replicas: 1, the default; should be 2 of 3 replicas. An append is acknowledged …
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The subject: a config by its name in Kafka's documentation, `replication factor`, `in-sync replicas`,
    /// `leader` or `topic configs`.
    pub setting: &'static str,
    /// The ids of the brokers, for a broker config or for replicas that are out of sync; otherwise empty.
    pub brokers: Vec<i32>,
    /// The value now; `None` if it is unknown.
    pub found: Option<String>,
    /// Where the value comes from, for a config.
    pub source: Option<ConfigSource>,
    /// The value that a write-ahead log needs.
    pub wanted: String,
    /// What happens as it is, and what to do, in one to three short sentences.
    pub why: String,
}

/// The severity of a [`Finding`]. `Error` is the greatest.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Severity {
    /// The rule could not be checked: the value may be right or wrong.
    Unknown,
    /// No record is lost, but the behaviour may surprise.
    Info,
    /// Records may be deleted or rejected, or one failure stops appends.
    Warning,
    /// One failure may lose or duplicate acknowledged records, or appends or reads fail now.
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
            brokers => write!(f, " of brokers {}", Ids(brokers))?,
        }
        if let Some(found) = &self.found {
            write!(f, ": {}", Printable(found))?;
        }
        if let Some(source) = self.source {
            write!(f, ", {source}")?;
        }
        write!(f, "; should be {}. {}", self.wanted, self.why)
    }
}

/// Displays the first [`MAX_LISTED`] ids and counts the others.
struct Ids<'a>(&'a [i32]);

impl fmt::Display for Ids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, id) in self.0.iter().take(MAX_LISTED).enumerate() {
            write!(f, "{}{id}", if i == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(MAX_LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Displays the indexes of some partitions.
pub(super) struct Partitions<'a>(pub(super) &'a [i32]);

impl fmt::Display for Partitions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition{} {}", if self.0.len() == 1 { "" } else { "s" }, Ids(self.0))
    }
}

const MAX_LISTED: usize = 8;
