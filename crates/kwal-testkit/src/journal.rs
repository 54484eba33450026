//! The journal: what happened in a cluster, in order, for people and for programs.

use std::{collections::VecDeque, fmt, time::Duration};

use kwal_protocol::api::ApiKey;

use crate::{check::TopicPartition, fault::Fault};

/// What happened in a cluster, the oldest entry first.
///
/// The cluster keeps it if the [builder](crate::EmbeddedClusterBuilder::journal) enables it. On a
/// single-threaded runtime with a paused clock, the same seeds give the same journal, byte for byte.
///
/// ```
/// use kwal_testkit::EmbeddedCluster;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), kwal_testkit::Error> {
/// let builder = EmbeddedCluster::builder().brokers(3).topic("wal", 1).journal(1000);
/// let cluster = builder.start_in_memory()?;
/// cluster.stop(1)?;
/// cluster.note("this is the moment");
/// assert_eq!(
///     cluster.journal().to_string(),
///     "     0.000 topic wal is made\n     0.000 broker 1 stops\n     \
///      0.000 wal-0 is led by 2 in epoch 1, in sync 2 3\n     0.000 this is the moment\n",
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Journal {
    entries: VecDeque<Entry>,
    /// How many entries are kept.
    room: usize,
}

/// An entry of the journal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The time since the cluster was started, by tokio's clock.
    pub at: Duration,
    /// What happened.
    pub event: JournalEvent,
}

/// Something that happened in a cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum JournalEvent {
    /// A client has connected.
    Opened {
        /// The connection; connections of a cluster are numbered from 1.
        connection: u64,
        /// The broker.
        broker: i32,
        /// The fault that applies to it.
        fault: Fault,
    },
    /// A connection has ended, closed by either side.
    Closed {
        /// The connection.
        connection: u64,
        /// The broker.
        broker: i32,
    },
    /// A request has arrived.
    Request {
        /// The connection.
        connection: u64,
        /// The broker.
        broker: i32,
        /// The API.
        api: ApiKey,
        /// The version.
        version: i16,
        /// The correlation id.
        correlation_id: i32,
        /// The fault that applies to it.
        fault: Fault,
        /// A summary of the request.
        summary: String,
    },
    /// A response is ready.
    Response {
        /// The connection of the request.
        connection: u64,
        /// The broker.
        broker: i32,
        /// The API of the request.
        api: ApiKey,
        /// The correlation id of the request.
        correlation_id: i32,
        /// A summary of the response.
        summary: String,
    },
    /// The leader, the leader epoch or the replicas in sync of a partition changed.
    LeaderAndIsr {
        /// The partition.
        partition: TopicPartition,
        /// The leader, if there is one.
        leader: Option<i32>,
        /// The leader epoch.
        leader_epoch: i32,
        /// The replicas in sync.
        isr: Vec<i32>,
    },
    /// A replica has truncated records that its new leader does not have.
    Truncated {
        /// The partition.
        partition: TopicPartition,
        /// The broker of the replica.
        broker: i32,
        /// The first offset that is gone.
        from: i64,
    },
    /// An election has lost records that all replicas in sync had.
    DataLoss {
        /// The partition.
        partition: TopicPartition,
        /// The first offset that is gone.
        from: i64,
    },
    /// Records at the beginning of a partition were deleted.
    Deleted {
        /// The partition.
        partition: TopicPartition,
        /// The first offset that is left.
        before: i64,
    },
    /// A topic was deleted and created again.
    Recreated {
        /// The topic.
        topic: String,
        /// The number of its partitions.
        partitions: i32,
    },
    /// Anything else.
    Note(String),
}

impl Journal {
    /// Returns the entries, the oldest first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(crate) fn new(room: usize) -> Self {
        Self { entries: VecDeque::new(), room }
    }

    /// Returns whether entries are kept at all.
    pub(crate) fn is_kept(&self) -> bool {
        self.room > 0
    }

    pub(crate) fn push(&mut self, at: Duration, event: JournalEvent) {
        if self.entries.len() >= self.room {
            self.entries.pop_front();
        }
        if self.room > 0 {
            self.entries.push_back(Entry { at, event });
        }
    }
}

/// One entry per line.
impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.iter().try_for_each(|entry| writeln!(f, "{entry}"))
    }
}

/// The time in seconds, then the event.
///
/// A request is written as `2 c7 #12 > Produce 13 …`: broker 2, connection 7, correlation id 12. A response
/// is written as `2 c7 #12 < …`.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6}.{:03} {}", self.at.as_secs(), self.at.subsec_millis(), self.event)
    }
}

impl fmt::Display for JournalEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { connection, broker, fault: Fault::Pass } => {
                write!(f, "{broker} c{connection} opened")
            }
            Self::Opened { connection, broker, fault } => {
                write!(f, "{broker} c{connection} opened ({fault:?})")
            }
            Self::Closed { connection, broker } => write!(f, "{broker} c{connection} closed"),
            Self::Request { connection, broker, api, version, correlation_id, fault, summary } => {
                write!(f, "{broker} c{connection} #{correlation_id} > {api} {version}")?;
                if !summary.is_empty() {
                    write!(f, " {summary}")?;
                }
                match fault {
                    Fault::Pass => Ok(()),
                    fault => write!(f, " ({fault:?})"),
                }
            }
            Self::Response { connection, broker, api, correlation_id, summary } => {
                write!(f, "{broker} c{connection} #{correlation_id} < {api} {summary}")
            }
            Self::LeaderAndIsr { partition, leader, leader_epoch, isr } => {
                match leader {
                    Some(leader) => {
                        write!(f, "{partition} is led by {leader} in epoch {leader_epoch}, in sync")?
                    }
                    None => write!(f, "{partition} has no leader in epoch {leader_epoch}, in sync")?,
                }
                isr.iter().try_for_each(|broker| write!(f, " {broker}"))
            }
            Self::Truncated { partition, broker, from } => {
                write!(f, "{partition} at {broker} is truncated at {from}")
            }
            Self::DataLoss { partition, from } => {
                write!(f, "{partition} has lost replicated records from {from} on")
            }
            Self::Deleted { partition, before } => {
                write!(f, "{partition} begins at {before} now")
            }
            Self::Recreated { topic, .. } => write!(f, "{topic} was deleted and created again"),
            Self::Note(text) => f.write_str(text),
        }
    }
}
