//! Produce, reserve, encode, close: the calls that append.

use std::{future::IntoFuture, time::Duration};

use kwal_protocol::record::EncodedBatch;
use kwal_transport::BoxFuture;
use tracing::{Span, field::Empty};

use super::PartitionClient;
use crate::{
    error::{Error, InDoubt},
    producer::{Permit, Produced, Resolve},
    record::Record,
    request::{call_span, request, within},
};

impl PartitionClient {
    /// Appends records as one batch: all of them or none, one after the other.
    ///
    /// `Ok` means that every in-sync replica has them (acks = all). Until then, lost responses, leader
    /// changes, reconnects and throttling are retried with the same batch, and the broker drops duplicates:
    /// it is on the log once.
    ///
    /// Batches lie on the log in submission order, which is that of the first polls: from then on a batch
    /// waits in turn for memory ([`Limits::memory`](crate::Limits::memory)), is encoded, and its place is
    /// fixed. Up to [five](crate::OpenPartition::max_in_flight) are in flight at a time.
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

    /// Waits until a batch of so many bytes may be appended: for memory
    /// ([`Limits::memory`](crate::Limits::memory)) and for a place among the 64 appends of this partition
    /// client that may be submitted and not completed.
    ///
    /// It is [`produce`](Self::produce) in two steps. The permit is used by a plain call, which fixes the
    /// place of the batch on the log; so the order is that of the calls, and several batches are under way
    /// without a task for each:
    ///
    /// ```no_run
    /// # async fn append(partition: kwal_client::PartitionClient) -> Result<(), kwal_client::error::Error> {
    /// use kwal_client::record::Record;
    ///
    /// let mut appends = Vec::new();
    /// for value in ["one", "two", "three"] {
    ///     let batch = partition.encode([Record::new("key", value)])?;
    ///     let permit = partition.reserve(batch.size_in_bytes()).await?;
    ///     appends.push(permit.submit(batch));
    /// }
    /// for append in appends {
    ///     println!("appended at offsets {:?}", append.await?.offsets());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn reserve(&self, bytes: usize) -> Reserve<'_> {
        Reserve { partition: self, bytes, deadline: None }
    }

    /// Encodes records as one batch, with the [compression](crate::OpenPartition::compression) of this
    /// partition client. It works on the thread of the caller, and may take as long as the compression does.
    ///
    /// # Errors
    /// Those of [`produce`](Self::produce) that have to do with the records.
    pub fn encode(&self, records: impl AsRef<[Record]>) -> Result<EncodedBatch, Error> {
        self.producer.encode_records(records.as_ref())
    }

    /// Finds out whether a batch in doubt is on the log, for good.
    ///
    /// `in_doubt` is from [`Error::in_doubt`] of an append that ended with
    /// [`Outcome::Unknown`](crate::error::Outcome::Unknown): of this partition client, or of another one,
    /// also of another process. `fence` is a record that readers of the log skip.
    ///
    /// Whether the batch may still be appended depends on what follows it. If a later batch of the same
    /// producer id was acknowledged to this partition client, the log is read, and the fence is not used.
    /// Otherwise the fence is appended, as a batch of its own: on a later epoch of the producer id, so that
    /// brokers reject every batch of an earlier one from then on (KIP-98). Then the log is read from the last
    /// offset that was acknowledged before the batch up to the fence.
    ///
    /// The batch of another partition client is fenced on the last epoch of its producer id. If that client
    /// is still open, its next append fails with [`ErrorKind::Fenced`](crate::error::ErrorKind::Fenced): so
    /// resolve a batch by the partition client that it is from, as long as there is one. The same happens to
    /// a partition client that was opened since and goes on with that producer id. Of several fences of one
    /// producer id, in this way, only the first is on the log.
    ///
    /// A batch of an [exclusive](crate::OpenPartition::exclusive) writer is resolved by the holder of its
    /// name: by the writer itself, or after another one has taken over, by that one, with the handle that was
    /// kept. An earlier holder gets `Fenced`, with the same handle, and the batch stays in doubt. Partition
    /// clients without the name get [`InvalidInput`](crate::error::ErrorKind::InvalidInput).
    ///
    /// The result is final, and resolving the batch again returns the same, with these exceptions. Brokers
    /// forget a producer id, and that it was fenced, `producer.id.expiration.ms` (a day) after its last
    /// batch. [`InDoubt::after`] is `None` if nothing was acknowledged before: then a batch that was appended
    /// and deleted again before the call counts as not applied. And an unclean election can lose what is
    /// acknowledged, the fence like any other record.
    ///
    /// It takes the rights `Read` and `Write` on the topic.
    ///
    /// ```no_run
    /// # use kwal_client::{PartitionClient, error::Error};
    /// # async fn append(partition: PartitionClient) -> Result<(), Error> {
    /// use kwal_client::{Resolution, record::Record};
    ///
    /// let records = vec![Record::new("key", "value")];
    /// let offsets = loop {
    ///     let error = match partition.produce(&records).await {
    ///         Ok(produced) => break produced.offsets(),
    ///         Err(error) => error,
    ///     };
    ///     let Some(in_doubt) = error.in_doubt() else { return Err(error) };
    ///     let fence = Record::new(None::<&str>, None::<&str>).header("fence", ""); // readers skip it
    ///     // If it fails, the batch is still in doubt, and the error has the same handle.
    ///     match partition.resolve(in_doubt, fence).await? {
    ///         Resolution::Appended(offsets) => break Some(offsets),
    ///         Resolution::NotApplied => {}
    ///     }
    /// };
    /// # drop(offsets);
    /// # Ok(())
    /// # }
    /// ```
    pub fn resolve(&self, in_doubt: &InDoubt, fence: Record) -> Resolve<'_> {
        self.producer.resolve(in_doubt, fence)
    }

    /// Takes no more appends, and waits until those that were submitted are completed. See [`Close`].
    pub fn close(&self) -> Close<'_> {
        Close { partition: self, deadline: None }
    }
}

/// An append. Nothing happens until it is awaited.
///
/// # Errors
/// [`Error::outcome`] is whether the batch may be on the log.
/// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for no records and for a timestamp
/// before 1970; [`ErrorKind::BatchTooLarge`](crate::error::ErrorKind::BatchTooLarge);
/// [`ErrorKind::PrecedingAppendFailed`](crate::error::ErrorKind::PrecedingAppendFailed) if one submitted
/// earlier failed, and its caller had not got the error yet;
/// [`ErrorKind::DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded). After
/// [`ErrorKind::Fenced`](crate::error::ErrorKind::Fenced) and
/// [`ErrorKind::DataLoss`](crate::error::ErrorKind::DataLoss) this client cannot append any more.
///
/// # Cancellation safety
/// If it is dropped before its place is fixed, the batch is not appended. Later, it is appended all the same,
/// and appends submitted after it follow it.
///
/// Appends take their turns in the order of their first polls. A future that is polled once and then neither
/// polled nor dropped keeps its turn while it waits for memory, and those after it wait. So poll it until it
/// completes, or spawn it; or use [`reserve`](PartitionClient::reserve), which fixes the place by a plain
/// call.
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
        let span = call_span!(
            "append", partition.topic(), partition.partition();
            messaging.batch.message_count = records.as_ref().len(),
            messaging.kafka.offset = Empty,
            attempts = Empty
        );
        let call = Box::pin(async move {
            let deadline = partition.deadline(deadline);
            partition.producer.produce(records, deadline).await
        });
        if span.is_disabled() {
            return call;
        }
        let append = span.clone();
        let call = Box::pin(async move {
            let produced = call.await?;
            append.record("messaging.kafka.offset", produced.base_offset);
            append.record("attempts", produced.attempts);
            Ok(produced)
        });
        within(span, call)
    }
}

request! {
    /// A permit to be waited for. Nothing happens until it is awaited.
    ///
    /// # Errors
    /// [`ErrorKind::BatchTooLarge`](crate::error::ErrorKind::BatchTooLarge) for more than
    /// [`Limits::batch`](crate::Limits::batch); [`ErrorKind::Closed`](crate::error::ErrorKind::Closed);
    /// [`ErrorKind::DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded).
    ///
    /// # Cancellation safety
    /// Cancel safe. Those that wait get memory in the order of their first polls, and dropping one loses its
    /// place among them.
    pub struct Reserve<'a> -> Result<Permit, Error> {
        partition: &'a PartitionClient,
        bytes: usize,
    }
}

impl Reserve<'_> {
    fn span(&self) -> Span {
        call_span!("reserve", self.partition.topic(), self.partition.partition(); bytes = self.bytes)
    }

    async fn run(self) -> Result<Permit, Error> {
        let Self { partition, bytes, deadline } = self;
        partition.producer.permit(bytes, partition.deadline(deadline), partition.operation_deadline()).await
    }
}

request! {
    /// The end of appends. Nothing happens until it is awaited.
    ///
    /// From the first poll on, nothing more is accepted: neither by this partition client nor by its clones,
    /// and permits that are left fail with [`ErrorKind::Closed`](crate::error::ErrorKind::Closed). What was
    /// submitted is completed as ever, until the deadline: then what is left ends, and the future of each
    /// append returns its error.
    ///
    /// It returns the errors of all appends that failed since the first of its calls, in the order in which
    /// they did; each with its [outcome](Error::outcome) and, if the batch may be on the log, with its
    /// [handle](Error::in_doubt). Empty means that everything is on the log. Reads go on working.
    ///
    /// # Cancellation safety
    /// If it is dropped, nothing more is accepted all the same, and what was submitted is completed. It can
    /// be called again.
    pub struct Close<'a> -> Vec<Error> {
        partition: &'a PartitionClient,
    }
}

impl Close<'_> {
    fn span(&self) -> Span {
        call_span!("close", self.partition.topic(), self.partition.partition())
    }

    async fn run(self) -> Vec<Error> {
        let Self { partition, deadline } = self;
        partition.producer.close(partition.deadline(deadline)).await
    }
}
