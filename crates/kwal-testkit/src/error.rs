//! Errors of the embedded cluster.

use std::io;

use kwal_protocol::{
    error_code::ErrorCode,
    record::{BatchError, BuildError},
};
use kwal_transport::{HostPort, TransportError};

/// Why the embedded cluster cannot do what a test requests.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The TCP port is not available.
    #[error("cannot listen at {at}")]
    Listen {
        /// The address.
        at: HostPort,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The address in the memory network is not available.
    #[error("cannot listen in memory")]
    ListenInMemory(#[source] TransportError),
    /// A topic cannot be created.
    #[error("topic {topic:?} cannot be created ({code:?}): {message}")]
    CreateTopic {
        /// The name of the topic.
        topic: String,
        /// The code that a CreateTopics response would have.
        code: ErrorCode,
        /// The reason.
        message: String,
    },
    /// The broker has no such setting, or it does not accept the value.
    #[error("invalid broker setting: {message}")]
    InvalidSetting {
        /// The reason.
        message: String,
    },
    /// The topic does not exist, or has no such partition.
    #[error("topic {topic:?} has no partition {partition}")]
    UnknownPartition {
        /// The name of the topic.
        topic: String,
        /// The index of the partition.
        partition: i32,
    },
    /// The broker does not exist.
    #[error("broker {broker} does not exist")]
    UnknownBroker {
        /// The id of the broker.
        broker: i32,
    },
    /// A broker cannot lead: it is not alive, or its replica is not in sync.
    #[error("broker {broker} cannot lead: it is not alive or not in sync")]
    CannotLead {
        /// The id of the broker.
        broker: i32,
    },
    /// A leader epoch does not go back to this one.
    #[error("leader epoch {epoch} is not an earlier one: the partition is in epoch {current}")]
    NotEarlier {
        /// The requested leader epoch.
        epoch: i32,
        /// The current one.
        current: i32,
    },
    /// The broker leads the partition, so its replica cannot be out of sync.
    #[error("broker {broker} is the leader, so it cannot be out of sync")]
    IsLeader {
        /// The id of the broker.
        broker: i32,
    },
    /// A batch cannot be decoded.
    #[error("a batch cannot be decoded")]
    Batch(#[from] BatchError),
    /// A batch cannot be encoded.
    #[error("a batch cannot be encoded")]
    Build(#[from] BuildError),
    /// A raw batch does not start at or after the end of the log.
    #[error("a raw batch has the offsets {first} to {last} relative to the end of the log")]
    InvalidOffsets {
        /// Its first offset, relative to the end of the log.
        first: i64,
        /// Its last offset, relative to the end of the log.
        last: i64,
    },
}
