//! The client of one partition: appends, reads, offsets. An operation a file.

mod delete_records;
mod fetch;
mod fetched;
mod leader_epoch;
mod offsets;
mod order;

use std::{fmt, future::IntoFuture, sync::Arc, time::Duration};

use kwal_protocol::{
    api::{ApiKey, Body},
    compression::CompressionError,
    record::Compression,
    wire::Uuid,
};
use kwal_transport::BoxFuture;

pub use self::{
    delete_records::{DeleteBefore, DeleteRecords},
    fetch::Fetch,
    fetched::{Fetched, FetchedRecords},
    leader_epoch::{EpochEndOffset, OffsetForLeaderEpoch},
    offsets::{GetOffset, OffsetAt},
};
use crate::{
    cluster::Cluster,
    error::{CallContext, Error},
    pool::Purpose,
    producer::{Encoding, Produced, Producer},
    record::Record,
    routing::{self, Deadline, Operation, Partition, Target},
    validate,
};

/// Appends to one partition and reads from it.
///
/// Made by [`Client::partition_client`](crate::Client::partition_client). Cloning is cheap; clones share
/// producer id and order of appends.
///
/// An append is `Ok` only when every in-sync replica has it; it is on the log at most once, whatever is
/// retried; appends lie on the log in submission order without a hole; every call ends within its
/// [deadline](crate::Deadlines); every future can be dropped at any time.
///
/// A partition client is meant to be kept. Its appends use one connection to the leader and its fetches
/// another, each shared with other partition clients beyond
/// [`Limits::max_connections_per_broker`](crate::Limits::max_connections_per_broker), so that an append never
/// waits for a long poll. They are opened when they are needed: a client that only reads has no connection
/// for appends, and no producer id.
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
        let id = self.partition.topic_id;
        (!id.is_zero()).then_some(id)
    }

    /// Appends records as one batch: all of them or none, one after the other.
    ///
    /// `Ok` means that every in-sync replica has them (acks = all). Until then, lost responses, leader
    /// changes, reconnects and throttling are retried with the same batch, and the broker drops duplicates:
    /// it is on the log once.
    ///
    /// Batches lie on the log in submission order, which is that of the first polls: from then on a batch
    /// waits in turn for memory ([`Limits::memory`](crate::Limits::memory)), is encoded, and its place is
    /// fixed. One batch of a partition is sent after the other.
    ///
    /// ```no_run
    /// # async fn append(partition: kwal_client::PartitionClient) -> Result<(), kwal_client::error::Error> {
    /// use kwal_client::record::Record;
    ///
    /// let records = vec![Record::new("key", "value"), Record::new("key", "another value")];
    /// // `records` stays with the caller. It may also be moved.
    /// let produced = partition.produce(&records).await?;
    /// assert_eq!(produced.record_count, 2);
    /// println!("appended at offsets {:?}", produced.offsets());
    /// # Ok(())
    /// # }
    /// ```
    pub fn produce<'a, R>(&'a self, records: R) -> Produce<'a, R>
    where
        R: AsRef<[Record]> + Send + 'a,
    {
        Produce { partition: self, records, deadline: None }
    }

    /// Runs an operation on the leader.
    async fn call<O: Operation>(&self, operation: &O, deadline: Deadline) -> Result<O::Output, Error> {
        let target = Target::Leader(&self.partition, Purpose::General);
        let call = self.partition.call(O::Request::KEY);
        Ok(routing::call(&self.partition.cluster, target, call, operation, deadline).await?)
    }

    /// Returns the deadline of a call that begins now.
    fn deadline(&self, after: Option<Duration>) -> Deadline {
        Deadline::after(after.unwrap_or(self.partition.cluster.config.deadlines.operation))
    }
}

/// An append. Nothing happens until it is awaited.
///
/// # Errors
/// [`Error::outcome`] is whether the batch may be on the log.
/// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for no records and for a timestamp
/// before 1970; [`ErrorKind::BatchTooLarge`](crate::error::ErrorKind::BatchTooLarge);
/// [`ErrorKind::PrecedingAppendFailed`](crate::error::ErrorKind::PrecedingAppendFailed) if one submitted
/// earlier failed; [`ErrorKind::DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded). After
/// [`ErrorKind::Fenced`](crate::error::ErrorKind::Fenced) and
/// [`ErrorKind::DataLoss`](crate::error::ErrorKind::DataLoss) this client cannot append any more.
///
/// # Cancellation safety
/// If it is dropped before its place is fixed, the batch is not appended. Later, it is appended all the same,
/// and appends submitted after it follow it.
///
/// Appends take their turns in the order of their first polls. A future that is polled once and then neither
/// polled nor dropped keeps its turn while it waits for memory, and those after it wait. So poll it until it
/// completes, or spawn it.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct Produce<'a, R> {
    partition: &'a PartitionClient,
    records: R,
    deadline: Option<Duration>,
}

impl<R> Produce<'_, R> {
    /// Sets the time limit of this call. Default: [`Deadlines::operation`](crate::Deadlines::operation).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl<'a, R> IntoFuture for Produce<'a, R>
where
    R: AsRef<[Record]> + Send + 'a,
{
    type Output = Result<Produced, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    /// Makes it a future, for what takes futures and not requests: `join_all`, `try_join_all`, `select!`,
    /// `pin!`, `tokio::spawn`.
    fn into_future(self) -> Self::IntoFuture {
        let Self { partition, records, deadline } = self;
        Box::pin(async move {
            let deadline = partition.deadline(deadline);
            partition.producer.produce(records, deadline).await
        })
    }
}

/// A partition client to be opened: configure it, then await it.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput), before anything is sent, for a name
/// that no topic can have, a negative partition, and a codec or level that there is not;
/// [`ErrorKind::UnknownTopic`](crate::error::ErrorKind::UnknownTopic) and
/// [`ErrorKind::UnknownPartition`](crate::error::ErrorKind::UnknownPartition) after
/// [`Deadlines::unknown_topic`](crate::Deadlines::unknown_topic);
/// [`ErrorKind::DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded) if there is no leader for the
/// whole deadline; [`ErrorKind::Broker`](crate::error::ErrorKind::Broker) for other rejections.
///
/// # Cancellation safety
/// Cancel safe.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct OpenPartition {
    cluster: Arc<Cluster>,
    topic: String,
    index: i32,
    encoding: Encoding,
    idempotent: bool,
    deadline: Option<Duration>,
}

impl OpenPartition {
    pub(crate) fn new(cluster: Arc<Cluster>, topic: String, index: i32) -> Self {
        let encoding = Encoding { compression: Compression::None, level: None };
        Self { cluster, topic, index, encoding, idempotent: true, deadline: None }
    }

    /// Sets how the batches of [`produce`](PartitionClient::produce) are compressed. Default: not at all.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.encoding.compression = compression;
        self
    }

    /// Sets the compression level: 1 to 9 for gzip, −131072 to 22 for zstd; the others have none. Default: 6
    /// and 3. Opening fails with [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for a
    /// level that the codec does not have.
    pub fn compression_level(mut self, level: i32) -> Self {
        self.encoding.level = Some(level);
        self
    }

    /// Sets whether batches carry a producer id and sequence number, by which brokers detect duplicates
    /// (KIP-98). Default: yes.
    ///
    /// Without, a batch in doubt is never sent again: the call ends with
    /// [`Outcome::Unknown`](crate::error::Outcome::Unknown). Only for brokers without producer ids.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Sets the time limit of opening it. Default: [`Deadlines::operation`](crate::Deadlines::operation).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    async fn run(self) -> Result<PartitionClient, Error> {
        let Self { cluster, topic, index, encoding, idempotent, deadline } = self;
        validate::topic_name(&topic)?;
        if index < 0 {
            return Err(Error::invalid_input(format!("partition {index} of topic {topic} is negative")));
        }
        let Encoding { compression, level } = encoding;
        let checked = match compression.is_built_in() {
            true => compression.check_level(level),
            false => Err(CompressionError::NotBuiltIn { codec: compression }),
        };
        if let Err(error) = checked {
            let call = CallContext::partition(ApiKey::PRODUCE, &topic, index);
            return Err(call.invalid_input(format!("compression: {error}")));
        }
        let deadline = Deadline::after(deadline.unwrap_or(cluster.config.deadlines.operation));
        let partition = Arc::new(Partition::find(cluster, topic, index, deadline).await?);
        let producer = Producer::open(Arc::clone(&partition), idempotent, encoding)?;
        Ok(PartitionClient { partition, producer })
    }
}

impl IntoFuture for OpenPartition {
    type Output = Result<PartitionClient, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    /// Makes it a future, for what takes futures and not requests: `join_all`, `try_join_all`, `select!`,
    /// `pin!`, `tokio::spawn`.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
