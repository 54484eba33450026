//! What a client is doing now: snapshots for a log, a health check, and troubleshooting.

use std::{fmt, ops::Range, time::Duration};

use kwal_protocol::{text::Printable, wire::Uuid};
use kwal_transport::HostPort;

use crate::error::Error;

/// What a client is doing now: [`Client::state`](crate::Client::state).
///
/// `Display` prints a few lines for people. With the feature `serde` it can be serialized: addresses and
/// errors are then their texts, and times are seconds.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ClientState {
    /// The id of the cluster, as metadata names it.
    pub cluster_id: Option<String>,
    /// The id of the controller, as metadata names it. In a KRaft cluster it is any broker.
    pub controller: Option<i32>,
    /// The brokers of the cluster, by id. Last are the bootstrap addresses that are in use because no broker
    /// is known.
    pub brokers: Vec<BrokerState>,
    /// The memory budget.
    pub memory: MemoryState,
}

/// A broker in a [`ClientState`], and the connections to it.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BrokerState {
    /// Its id; `None` for a bootstrap address.
    pub id: Option<i32>,
    /// Its address.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text::one"))]
    pub address: HostPort,
    /// The open connections. They are opened when they are needed.
    pub connections: Vec<ConnectionState>,
    /// Why the last attempt to connect failed; `None` if it succeeded, or there was none.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text::option"))]
    pub last_error: Option<Error>,
}

/// An open connection in a [`BrokerState`].
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConnectionState {
    /// What it is used for.
    pub purpose: Purpose,
    /// How many requests are on it: in its queue, written, or waited for.
    pub in_flight: usize,
    /// How many partition clients share it; 0 for the one for short requests, which all share.
    pub partitions: usize,
    /// How much longer the broker throttles it; `None` if it does not.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text::seconds"))]
    pub throttled_for: Option<Duration>,
}

/// What a connection is used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Purpose {
    /// Short requests, over the one connection that all share.
    General,
    /// Appends of some partition clients.
    Produce,
    /// Fetches of some partition clients.
    Fetch,
}

impl Purpose {
    /// Returns its name in texts and labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::General => "general",
            Self::Produce => "produce",
            Self::Fetch => "fetch",
        }
    }
}

/// The memory budget in a [`ClientState`], in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MemoryState {
    /// [`Limits::memory`](crate::Limits::memory), in whole KiB.
    pub limit: usize,
    /// What appends hold: at most three quarters of the limit, or one batch that is larger.
    pub appends: usize,
    /// What reads hold. Responses that were larger than requested may exceed the limit for a moment.
    pub reads: usize,
    /// How many appends and reads wait for memory.
    pub waiting: usize,
}

/// What a partition client is doing now: [`PartitionClient::state`](crate::PartitionClient::state).
///
/// `Display` prints a few lines for people. With the feature `serde` it can be serialized: ids, addresses and
/// errors are then their texts, and times are seconds.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PartitionState {
    /// The topic.
    pub topic: String,
    /// Its id when the partition client was opened; `None` if the brokers are too old for topic ids.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text::option"))]
    pub topic_id: Option<Uuid>,
    /// The index of the partition.
    pub partition: i32,
    /// The leader, as metadata names it; `None` if there is none, or the topic is another one by now.
    pub leader: Option<LeaderState>,
    /// The name with which the log is held [exclusively](crate::OpenPartition::exclusive), if it is.
    pub exclusive: Option<String>,
    /// The producer id of the next batch; `None` before the first append, and with
    /// [`idempotent(false)`](crate::OpenPartition::idempotent).
    pub producer_id: Option<i64>,
    /// The epoch of the next batch.
    pub producer_epoch: Option<i16>,
    /// How many batches are in flight: submitted to the connection, and without a response.
    pub in_flight: usize,
    /// The size of their requests, in bytes.
    pub in_flight_bytes: usize,
    /// How many batches are submitted and not in flight.
    pub waiting: usize,
    /// How many of both may be on the log already, because an earlier attempt had no clear response.
    pub in_doubt: usize,
    /// The batch that was acknowledged last.
    pub last_acknowledged: Option<LastAcknowledged>,
    /// How much longer the leader throttles the connection for appends or that for fetches; `None` if it
    /// throttles neither.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text::seconds"))]
    pub throttled_for: Option<Duration>,
    /// The last error of an attempt to append, while no batch was acknowledged since.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text::option"))]
    pub last_error: Option<Error>,
    /// Why nothing can be appended any more, if that is so: what
    /// [`fenced`](crate::PartitionClient::fenced) returns.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text::option"))]
    pub ended: Option<Error>,
}

/// The leader in a [`PartitionState`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LeaderState {
    /// The id of the broker.
    pub id: i32,
    /// Its address; `None` if metadata does not name it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text::option"))]
    pub address: Option<HostPort>,
    /// The leader epoch; `None` if the brokers are too old for leader epochs.
    pub epoch: Option<i32>,
}

/// The batch that was acknowledged last, in a [`PartitionState`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LastAcknowledged {
    /// The offsets of its records; `None` if the broker did not report them.
    pub offsets: Option<Range<i64>>,
    /// The sequence number of its first record; `None` with
    /// [`idempotent(false)`](crate::OpenPartition::idempotent).
    pub sequence: Option<i32>,
    /// The epoch of the leader that acknowledged it; `None` if that was another partition client, whose
    /// producer id this one goes on with, or the brokers are too old for leader epochs.
    pub leader_epoch: Option<i32>,
}

impl fmt::Display for ClientState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster_id, controller, brokers, memory } = self;
        write!(f, "cluster {}", Printable(cluster_id.as_deref().unwrap_or("without an id")))?;
        match controller {
            Some(id) => write!(f, ", controller is broker {id}")?,
            None => f.write_str(", controller unknown")?,
        }
        for broker in brokers {
            write!(f, "\n    {broker}")?;
        }
        write!(f, "\n    memory: {memory}")
    }
}

impl fmt::Display for BrokerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, address, connections, last_error } = self;
        match id {
            Some(id) => write!(f, "broker {id} ({address}): ")?,
            None => write!(f, "bootstrap broker {address}: ")?,
        }
        if connections.is_empty() {
            f.write_str("not connected")?;
        }
        for (index, connection) in connections.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{connection}")?;
        }
        match last_error {
            Some(error) => write!(f, "; the last attempt to connect failed: {}", error.reason()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { purpose, in_flight, partitions, throttled_for } = self;
        write!(f, "{purpose} {in_flight} in flight")?;
        if *partitions > 1 {
            write!(f, " for {partitions} partition clients")?;
        }
        match throttled_for {
            Some(time) => write!(f, ", throttled for another {time:.1?}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for MemoryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, appends, reads, waiting } = *self;
        let (used, limit) = (Bytes(appends + reads), Bytes(limit));
        write!(f, "{used} of {limit}: appends {}, reads {}", Bytes(appends), Bytes(reads))?;
        match waiting {
            0 => Ok(()),
            waiting => write!(f, "; {waiting} wait for it"),
        }
    }
}

impl fmt::Display for PartitionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, leader, exclusive, producer_id, producer_epoch, .. } = self;
        write!(f, "partition {partition} of {topic}: ")?;
        match leader {
            Some(leader) => leader.fmt(f)?,
            None => f.write_str("leader unknown")?,
        }
        f.write_str("\n    ")?;
        match (producer_id, producer_epoch) {
            (Some(id), Some(epoch)) => write!(f, "producer id {id}, epoch {epoch}")?,
            _ => f.write_str("no producer id")?,
        }
        if let Some(name) = exclusive {
            write!(f, ", exclusive as {}", Printable(name))?;
        }
        let Self { in_flight, waiting, in_doubt, last_acknowledged, .. } = self;
        let bytes = Bytes(self.in_flight_bytes);
        write!(
            f,
            "\n    appends: {in_flight} in flight ({bytes}), {waiting} waiting, {in_doubt} in doubt; "
        )?;
        match last_acknowledged {
            Some(last) => write!(f, "last acknowledged: {last}")?,
            None => f.write_str("none acknowledged yet")?,
        }
        let Self { throttled_for, last_error, ended, .. } = self;
        if let Some(time) = throttled_for {
            write!(f, "\n    throttled for another {time:.1?}")?;
        }
        match (ended, last_error) {
            (Some(error), _) => write!(f, "\n    ended: {error}"),
            (None, Some(error)) => write!(f, "\n    last error: {error}"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for LeaderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, address, epoch } = self;
        write!(f, "leader is broker {id}")?;
        if let Some(address) = address {
            write!(f, " ({address})")?;
        }
        match epoch {
            Some(epoch) => write!(f, ", leader epoch {epoch}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for LastAcknowledged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offsets, sequence, leader_epoch } = self;
        match offsets {
            Some(offsets) => write!(f, "offsets {offsets:?}")?,
            None => f.write_str("a batch at an unknown offset")?,
        }
        if let Some(sequence) = sequence {
            write!(f, ", sequence number {sequence}")?;
        }
        match leader_epoch {
            Some(epoch) => write!(f, ", leader epoch {epoch}"),
            None => Ok(()),
        }
    }
}

/// A number of bytes, for people.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ ..1024 => write!(f, "{bytes} B"),
            bytes if bytes < 1 << 20 => write!(f, "{:.1} KiB", bytes as f64 / 1024.0),
            bytes => write!(f, "{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        }
    }
}

/// What is serialized as its text, and times as seconds.
#[cfg(feature = "serde")]
mod text {
    use std::{fmt::Display, time::Duration};

    use serde::{Serialize, Serializer};

    pub(super) fn one<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn option<S: Serializer>(
        value: &Option<impl Display>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(ToString::to_string).serialize(serializer)
    }

    pub(super) fn seconds<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(|time| time.as_secs_f64()).serialize(serializer)
    }
}
