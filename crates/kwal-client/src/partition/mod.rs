//! The client of one partition: appends, reads, offsets. An operation a file.

mod append;
mod batching;
mod delete_records;
mod fetch;
mod fetched;
mod leader_epoch;
mod offsets;
mod open;
mod read_error;

use std::{fmt, sync::Arc, time::Duration};

use kwal_protocol::wire::Uuid;

pub use self::{
    append::{Close, Produce, Reserve},
    delete_records::{DeleteBefore, DeleteRecords},
    fetch::{Fetch, FetchAhead},
    fetched::{BatchRecords, Fetched, FetchedBatch, FetchedRecords},
    leader_epoch::OffsetForLeaderEpoch,
    offsets::GetOffset,
    open::OpenPartition,
};
use crate::{
    error::Error,
    log,
    producer::{Holder, Producer},
    routing::{Deadline, Operation, Partition},
    state::PartitionState,
};

/// Appends to one partition and reads from it.
///
/// Made by [`Client::partition_client`](crate::Client::partition_client). Cloning is cheap; clones share
/// producer id and order of appends.
///
/// An append is `Ok` only when every in-sync replica has it; it is on the log at most once, whatever is
/// retried; appends lie on the log in submission order without a hole, with several in flight; every call
/// ends within its [deadline](crate::Deadlines); every future can be dropped at any time.
///
/// An append whose outcome is unknown has a handle, [`Error::in_doubt`], which [`resolve`](Self::resolve)
/// settles. Records that were acknowledged and are not on the log any more, as after an unclean election, are
/// noticed before the next batch is sent: [`DataLoss`](crate::error::ErrorKind::DataLoss).
///
/// It appends to the topic that it was opened for, and not to another one of the same name: once metadata
/// names another topic id, every call fails with [`TopicRecreated`](crate::error::ErrorKind::TopicRecreated).
/// Brokers before Kafka 4.1 know topics in appends by name alone, so what is in flight when a topic is
/// created again, or submitted before anything has shown that, lands on the new one. If the leader has
/// rejected an append in between, as a broker does that deletes a log, what it acknowledges next is verified
/// before it counts. Otherwise nothing but the offset shows it: one that was acknowledged before is a
/// [`DataLoss`](crate::error::ErrorKind::DataLoss), and a higher one, as after others have filled the new
/// topic, shows nothing until the next call that needs metadata. Do not create a log again under the same
/// name while it has writers.
///
/// A partition client is meant to be kept. Its appends use one connection to the leader and its fetches
/// another, each shared with other partition clients beyond
/// [`Limits::max_connections_per_broker`](crate::Limits::max_connections_per_broker), so that an append never
/// waits for a long poll, nor [does a fetch](Fetch#shared-connections). They are opened when they are needed:
/// a client that only reads has no connection for appends, and no producer id.
///
/// It follows the leader. A move is noticed when a call reaches the former leader; nothing is requested in
/// the background. That broker rejects an append, ends a long poll and reports the new leader (KIP-951, since
/// Kafka 3.7), or metadata is refreshed. If it does not answer at all, the call goes elsewhere when its
/// connection breaks, the request exceeds its [time limit](crate::Deadlines::request), or the cluster no
/// longer lists the broker.
///
/// Leader epochs do not go back (KIP-320): a broker that lags misleads no call. Only when the leader itself
/// denies that it leads, and the others name an older epoch, is that one right, as after metadata was
/// restored from a backup.
#[derive(Clone)]
pub struct PartitionClient {
    partition: Arc<Partition>,
    producer: Producer,
}

impl fmt::Debug for PartitionClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Partition { topic, index, topic_id, .. } = &*self.partition;
        f.debug_struct("PartitionClient")
            .field("topic", topic)
            .field("partition", index)
            .field("topic_id", topic_id)
            .finish_non_exhaustive()
    }
}

impl PartitionClient {
    /// Returns the topic.
    pub fn topic(&self) -> &str {
        &self.partition.topic
    }

    /// Returns the partition's index.
    pub fn partition(&self) -> i32 {
        self.partition.index
    }

    /// Returns the id of the topic (KIP-516) when this client was opened; `None` if the brokers are too old
    /// for topic ids.
    pub fn topic_id(&self) -> Option<Uuid> {
        self.partition.topic_id()
    }

    /// Returns who holds the log as an [exclusive](OpenPartition::exclusive) writer: this partition client,
    /// unless it was [fenced](Self::fenced) since, which this does not show. `None` if it was opened without
    /// a name.
    pub fn holder(&self) -> Option<Holder> {
        self.producer.holder()
    }

    /// Returns what this partition client and its clones are doing now, for a log, a health check, or people
    /// who look for a fault: `println!("{}", partition.state())` prints a few lines.
    ///
    /// It is a snapshot: by the time that it is read, it may be out of date. Nothing is requested for it, and
    /// nothing is waited for but locks that are held for a moment.
    pub fn state(&self) -> PartitionState {
        self.producer.snapshot()
    }

    /// Waits until this partition client can append nothing any more, and returns why:
    /// [`Fenced`](crate::error::ErrorKind::Fenced), so that a process can step down when another one has
    /// taken over the log; [`DataLoss`](crate::error::ErrorKind::DataLoss);
    /// [`Closed`](crate::error::ErrorKind::Closed). It completes at once if that is so already.
    ///
    /// That another holder has taken over is learnt from an append, from a
    /// [renewal](OpenPartition::renewal), or from a [probe](OpenPartition::probe).
    ///
    /// # Cancellation safety
    /// Cancel safe.
    pub async fn fenced(&self) -> Error {
        self.producer.ended().await
    }

    /// Runs an operation on the leader.
    async fn call<O: Operation>(&self, operation: &O, deadline: Deadline) -> Result<O::Output, Error> {
        log::call(&self.partition, operation, deadline).await
    }

    /// Returns the deadline of a call that begins now.
    fn deadline(&self, after: Option<Duration>) -> Deadline {
        Deadline::after(after.unwrap_or_else(|| self.operation_deadline()))
    }
}
