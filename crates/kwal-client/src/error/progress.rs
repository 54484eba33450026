//! How far a call got before its deadline ended.

use std::fmt;

/// How far a call got before its deadline ended: what it was waiting for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// Nothing was started: the deadline ended before the first attempt.
    NotStarted,
    /// An append waited for earlier ones of its partition client, or for one of its 64 places, which appends
    /// and permits hold.
    Queue,
    /// An append or a fetch waited for memory, which others held: [`Limits::memory`](crate::Limits::memory).
    Memory,
    /// The leader of the partition, or the controller, was looked up in metadata.
    Lookup,
    /// A connection to the broker was opened.
    Connection,
    /// The batch that was acknowledged last was looked up at the leader.
    LastAcknowledged,
    /// A producer id was requested.
    ProducerId,
    /// The coordinator of the transactional id of an [exclusive](crate::OpenPartition::exclusive) writer was
    /// looked for.
    Coordinator,
    /// The log was taken over: the last barrier was searched for, or the new one was appended and read back.
    Takeover,
    /// The request was sent, or waited on the connection for earlier ones, and no response had arrived.
    Response,
    /// The last attempt had failed, and the next one could not begin in time.
    Pause,
    /// The append was given to the client's runtime, which did not run its tasks until the deadline.
    Runtime,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStarted => "there was no time for an attempt",
            Self::Queue => "it was waiting for earlier appends or permits of this partition client",
            Self::Memory => {
                "it was waiting for memory that other appends or fetches hold (`Limits::memory` is the budget of the client)"
            }
            Self::Lookup => "it was looking up the broker to send it to",
            Self::Connection => "it was opening a connection",
            Self::LastAcknowledged => "it was looking up the last acknowledged batch at the leader",
            Self::ProducerId => "it was waiting for a producer id",
            Self::Coordinator => "it was looking for the coordinator of the transactional id",
            Self::Takeover => {
                "it was taking over the log: where the last barrier is far from the end, or there is none, all after it has to \
                 be read, so allow more time by `.deadline(…)`"
            }
            Self::Response => "it was waiting for the response",
            Self::Pause => "there was no time for another attempt",
            Self::Runtime => "the runtime of the client does not run its tasks: is a task blocking it, or was the process stopped?",
        })
    }
}
