//! What a test can do wrong, or the machine refuse.

use std::io;

use kwal_protocol::{
    error_code::ErrorCode,
    record::{BatchError, BuildError},
};
use kwal_transport::{HostPort, TransportError};

/// Why the embedded cluster cannot do what a test asks of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The TCP port cannot be had.
    #[error("cannot listen at {at}")]
    Listen {
        /// Where.
        at: HostPort,
        /// What the operating system says.
        source: io::Error,
    },
    /// The place in the memory network cannot be had.
    #[error("cannot listen in memory")]
    ListenInMemory(#[source] TransportError),
    /// A topic cannot be made.
    #[error("the topic {topic:?} cannot be made ({code:?}): {message}")]
    CreateTopic {
        /// Its name.
        topic: String,
        /// What a CreateTopics response would say.
        code: ErrorCode,
        /// In words.
        message: String,
    },
    /// The broker cannot have such a setting.
    #[error("the broker cannot be set so: {message}")]
    InvalidSetting {
        /// What is wrong with it.
        message: String,
    },
    /// There is no such topic, or it has no such partition.
    #[error("there is no partition {partition} of a topic {topic:?}")]
    UnknownPartition {
        /// The name of the topic.
        topic: String,
        /// The index of the partition.
        partition: i32,
    },
    /// There is no such broker.
    #[error("there is no broker {broker}")]
    UnknownBroker {
        /// The number of the broker.
        broker: i32,
    },
    /// A broker cannot lead: it is not alive, or its replica is not in sync.
    #[error("broker {broker} cannot lead: it is not alive, or not in sync")]
    CannotLead {
        /// The number of the broker.
        broker: i32,
    },
    /// A broker leads, so its replica cannot be out of sync.
    #[error("broker {broker} leads, so it is in sync")]
    IsLeader {
        /// The number of the broker.
        broker: i32,
    },
    /// A batch cannot be read.
    #[error("a batch cannot be read")]
    Batch(#[from] BatchError),
    /// A batch cannot be written.
    #[error("a batch cannot be written")]
    Build(#[from] BuildError),
    /// A batch to be placed would not lie behind the end of the log.
    #[error("the batch takes the offsets {first} to {last}, counted from the end of the log")]
    InvalidOffsets {
        /// The first, counted from the end of the log.
        first: i64,
        /// The last, counted from the end of the log.
        last: i64,
    },
}
