//! A partition client to be opened.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use kwal_protocol::{api::ApiKey, compression::CompressionError, record::Compression};
use kwal_transport::BoxFuture;
use tracing::Span;

use super::PartitionClient;
use crate::{
    cluster::Cluster,
    error::{CallContext, Error},
    producer::{Acks, Encoding, Exclusive, OnFailure, Producer, Producers, Settings, take_over},
    producer_id::EpochOwner,
    request::{call_span, within},
    routing::{Deadline, Partition},
    validate,
};

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
    settings: Settings,
    exclusive: Option<String>,
    renewal: Option<Duration>,
    probe: Option<Duration>,
    deadline: Option<Duration>,
    producers: Producers,
}

impl OpenPartition {
    pub(crate) fn new(cluster: Arc<Cluster>, producers: Producers, topic: String, index: i32) -> Self {
        Self {
            cluster,
            topic,
            index,
            settings: Settings::default(),
            exclusive: None,
            renewal: None,
            probe: None,
            deadline: None,
            producers,
        }
    }

    /// Sets how the batches of [`produce`](PartitionClient::produce) are compressed. Default: not at all.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.encoding.compression = compression;
        self
    }

    /// Sets the compression level: 1 to 9 for gzip, −131072 to 22 for zstd; the others have none. Default: 6
    /// and 3. Opening fails with [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for a
    /// level that the codec does not have.
    pub fn compression_level(mut self, level: i32) -> Self {
        self.settings.encoding.level = Some(level);
        self
    }

    /// Sets whether batches carry a producer id and sequence number, by which brokers detect duplicates
    /// (KIP-98). Default: yes.
    ///
    /// Without, a batch in doubt is never sent again: the call ends with
    /// [`Outcome::Unknown`](crate::error::Outcome::Unknown), which nothing resolves, and one batch is in
    /// flight at a time. Only for brokers without producer ids.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.settings.idempotent = idempotent;
        self
    }

    /// Sets which replicas have to have a batch before it is acknowledged. Default: all that are in sync.
    /// Opening fails with [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for
    /// [`Acks::Leader`] unless [`idempotent`](Self::idempotent) is off.
    pub fn acks(mut self, acks: Acks) -> Self {
        self.settings.acks = acks;
        self
    }

    /// Sets how many batches may be in flight at a time, 1 to 5. Default: 5, the most that brokers recognise
    /// when they are sent again (KIP-98). Opening fails with
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for other numbers.
    ///
    /// It is one at a time without [`idempotent`](Self::idempotent), until the first acknowledgement of a
    /// producer id and epoch, and after a minute without one: a partition that does not know the id takes any
    /// sequence number.
    pub fn max_in_flight(mut self, batches: usize) -> Self {
        self.settings.max_in_flight = batches;
        self
    }

    /// Sets what becomes of the appends behind one that has failed. Default: those that were submitted before
    /// its error was returned fail with it.
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.settings.on_failure = on_failure;
        self
    }

    /// Takes over the log: from then on, no earlier holder of the name can append to it.
    ///
    /// The name stands for a role, such as the primary of a database. Whoever opens the partition by it
    /// becomes its holder, and ends those before: their appends fail with
    /// [`Fenced`](crate::error::ErrorKind::Fenced), those that are in flight or sent again included. So a
    /// process that was stopped, cut off or taken for dead cannot write to the log when it comes back. It
    /// takes neither transactions nor anything of readers: they see every record at once, also with
    /// READ_COMMITTED.
    ///
    /// Opening requests the next epoch of the name from its coordinator, appends a
    /// [barrier](crate::record::Barrier), and reads it back. [`PartitionClient::holder`] has its offset. What
    /// lies before it is all that earlier holders will ever have written. So recovery is: become the holder,
    /// replay to the barrier, go on. A fetch can return records after the barrier as well, of a later holder
    /// or of writers without the name: to follow the log from there, begin at the barrier's offset + 1, and
    /// not at the `next_offset` of the last fetch.
    ///
    /// ```no_run
    /// use kwal_client::{Client, error::Error, record::Barrier};
    ///
    /// # async fn serve(_: &kwal_client::PartitionClient) {}
    /// async fn lead(client: &Client, mut next: i64) -> Result<Error, Error> {
    ///     let wal = client.partition_client("wal", 0).exclusive("orders").await?;
    ///     let barrier = wal.holder().expect("it was opened by a name").barrier;
    ///     while next < barrier {
    ///         let fetched = wal.fetch(next).await?;
    ///         for record in fetched.records() {
    ///             let record = record?;
    ///             if record.offset < barrier && Barrier::parse(&record).is_none() {
    ///                 println!("apply {:?}", record.value);
    ///             }
    ///         }
    ///         next = fetched.next_offset;
    ///     }
    ///     tokio::select! {
    ///         () = serve(&wal) => Ok(wal.fenced().await),
    ///         why = wal.fenced() => Ok(why), // step down
    ///     }
    /// }
    /// ```
    ///
    /// All else works as without a name. After a doubt, and at each [renewal](Self::renewal), the coordinator
    /// raises the epoch, and never this client itself. The name has 1 to 255 bytes and no control characters;
    /// [`idempotent`](Self::idempotent) and [`Acks::All`] cannot be changed.
    ///
    /// # What it takes
    /// * Kafka 2.5, or 3.0 without ZooKeeper; otherwise
    ///   [`Unsupported`](crate::error::ErrorKind::Unsupported).
    /// * The topic `__transaction_state`, which brokers create when it is first needed. If they cannot, it is
    ///   [`NoTransactionLog`](crate::error::ErrorKind::NoTransactionLog).
    ///   [`audit`](crate::ControllerClient::audit) checks all settings that are named here.
    /// * On brokers with an authorizer, `Read` and `Write` on the topic, and `Write` on the transactional id.
    ///   That is `{name}/{topic}/{partition}`, so an ACL can be for all partitions of a name:
    ///
    /// ```text
    /// kafka-acls.sh --bootstrap-server localhost:9092 --add --allow-principal User:orders \
    ///     --operation Write --transactional-id orders/ --resource-pattern-type prefixed
    /// ```
    ///
    /// # Limits
    /// * **It elects nobody.** Of two processes that both open the partition by the name, the later one has
    ///   the log, and by opening it again the other one takes it back. Who opens it is decided elsewhere.
    /// * **Others are not fenced**: partition clients without a name or with another one, and other programs.
    ///   Keep them away by ACLs. Readers can [check](crate::Fetched::batches) that the log has one writer.
    ///   If somebody appends under the very producer id and epoch that a new holder gets, as by a tool that
    ///   copies batches, opening fails with [`EpochTaken`](crate::error::ErrorKind::EpochTaken).
    /// * **The coordinator forgets a name** that was neither opened nor renewed for
    ///   `transactional.id.expiration.ms` (7 days); appends do not count. So a holder renews it daily, also
    ///   while it appends nothing, as long as it has a handle. The next holder of a forgotten name gets
    ///   another producer id, and first fences those of the barriers on the log.
    /// * **If the log has no barrier any more** then, because of retention or
    ///   [`delete_records`](PartitionClient::delete_records), nothing shows which producer id to fence. The
    ///   earlier holder is fenced only when it renews the name, or would append after a silence. That takes
    ///   one that appends for all these days and does not reach the coordinator, or one on the last epoch of
    ///   its producer id. So keep the last barrier on the log, or what follows it. The same goes for the
    ///   fence of another producer id, which lies before the barrier: a replica that begins after it does not
    ///   know it when it becomes the leader.
    /// * **A partition forgets everything** when it is restarted after all its records were deleted. Earlier
    ///   holders can append again then, until the new one does: delete records up to the last one, and not
    ///   with it.
    /// * **A partition forgets that an epoch was fenced** `producer.id.expiration.ms` (1 day) after the last
    ///   batch of the new holder, by the timestamps of records: so do not back-date them. For this reason a
    ///   holder that was silent for half of its [renewal](Self::renewal), as one that was stopped, renews the
    ///   name before it appends. Its clock is the monotonic one of the system, which does not go on while
    ///   the whole machine is suspended: a process that may come back from that after half a day has to step
    ///   down by itself.
    /// * **Epochs are used up** after 32,767 openings, renewals and doubts of one producer id. Then the
    ///   coordinator gives out another one: a new holder goes on with it, a holder that renews is fenced.
    /// * **A holder that gets another producer id** by a renewal, for whatever reason, is fenced: nobody
    ///   knows who had the name in the meantime. It may also be fenced without another holder if the
    ///   coordinator moves while it raises the epoch and the response is lost: the new one takes the epoch
    ///   before for that of somebody else.
    /// * **Opening reads the log backward**, to the last append of a holder and its barrier. On a large log
    ///   that never had a barrier it reads all of it, and does so at every attempt until something is
    ///   appended: allow more time by [`deadline`](Self::deadline).
    /// * **An unclean election can lose the barrier** like any other record.
    ///
    /// # Errors
    /// In addition to those of opening without a name: `Unsupported`, `NoTransactionLog` and `EpochTaken`, as
    /// above; [`Fenced`](crate::error::ErrorKind::Fenced) if another process has taken over at the same time;
    /// [`Broker`](crate::error::ErrorKind::Broker) with TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    /// [`DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded) if there is no coordinator, or the log
    /// is not read in time. After an error of [`Outcome::Unknown`](crate::error::Outcome::Unknown), the
    /// earlier holder may be fenced already: open it again.
    pub fn exclusive(mut self, name: impl Into<String>) -> Self {
        self.exclusive = Some(name.into());
        self
    }

    /// Sets how often an [exclusive](Self::exclusive) writer renews its name. Default: daily. At least a
    /// second.
    ///
    /// A renewal requests the next epoch from the coordinator, with the own producer id and epoch. It appends
    /// nothing. It waits for batches in flight, and later appends wait for it. If it fails, appends go on and
    /// it is tried again after a 24th of the interval. But a holder without an acknowledgement or a renewal
    /// for half of the interval does not append before one succeeds: somebody may have taken over meanwhile,
    /// and the partition have forgotten it.
    ///
    /// So it has to be well below `transactional.id.expiration.ms` (7 days), at most twice
    /// `producer.id.expiration.ms` (1 day), and well above twice the time that a request to the coordinator
    /// takes.
    pub fn renewal(mut self, interval: Duration) -> Self {
        self.renewal = Some(interval);
        self
    }

    /// Sets how often an [exclusive](Self::exclusive) writer looks whether another holder has taken over.
    /// Default: never. At least 100 ms.
    ///
    /// A probe asks the leader for the epoch that it knows (DescribeProducers, KIP-664; Kafka 2.8), so that a
    /// process steps down soon although it appends nothing: see [`PartitionClient::fenced`]. No append is
    /// fenced by it earlier or later. It takes the right `Read` on the topic. A probe that fails changes
    /// nothing.
    pub fn probe(mut self, interval: Duration) -> Self {
        self.probe = Some(interval);
        self
    }

    /// Sets the time limit of opening it. Default: [`Deadlines::operation`](crate::Deadlines::operation).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Returns how the log is to be held exclusively, if it is.
    fn check_exclusive(&self) -> Result<Option<Exclusive>, Error> {
        let Self { topic, index, settings, exclusive, renewal, probe, .. } = self;
        let invalid =
            |reason: &str| Err(CallContext::partition(ApiKey::PRODUCE, topic, *index).invalid_input(reason));
        let Some(name) = exclusive.clone() else {
            return match (renewal, probe) {
                (None, None) => Ok(None),
                _ => invalid("renewal and probe are of exclusive writers: set exclusive(name) as well"),
            };
        };
        validate::exclusive_name(&name)?;
        if !settings.idempotent {
            return invalid(
                "exclusive: a writer without producer id cannot be told from others; leave idempotent on",
            );
        }
        if settings.acks != Acks::All {
            return invalid("acks: exclusive(name) takes all in-sync replicas; leave it at Acks::All");
        }
        for (setting, time, least) in
            [("renewal", *renewal, Exclusive::LEAST_RENEWAL), ("probe", *probe, Exclusive::LEAST_PROBE)]
        {
            if let Some(time) = time.filter(|time| *time < least) {
                return invalid(&format!("{setting}: {time:?} is less than {least:?}"));
            }
        }
        Ok(Some(Exclusive { name, renewal: renewal.unwrap_or(Exclusive::RENEWAL), probe: *probe }))
    }

    fn span(&self) -> Span {
        call_span!("open", &self.topic, self.index)
    }

    async fn run(self) -> Result<PartitionClient, Error> {
        let exclusive = self.check_exclusive()?;
        let Self { cluster, topic, index, mut settings, deadline, producers, .. } = self;
        validate::topic_name(&topic)?;
        if index < 0 {
            return Err(Error::invalid_input(format!("partition {index} of topic {topic} is negative")));
        }
        let call = CallContext::partition(ApiKey::PRODUCE, &topic, index);
        if !(1..=Settings::MOST_IN_FLIGHT).contains(&settings.max_in_flight) {
            let (batches, most) = (settings.max_in_flight, Settings::MOST_IN_FLIGHT);
            return Err(call.invalid_input(format!(
                "max_in_flight: {batches} is not 1 to {most}, the most batches that brokers recognise when they are sent again"
            )));
        }
        if settings.idempotent && settings.acks != Acks::All {
            return Err(call.invalid_input("acks: the leader alone needs idempotent(false)"));
        }
        let Encoding { compression, level } = settings.encoding;
        let checked = match compression.is_built_in() {
            true => compression.check_level(level),
            false => Err(CompressionError::NotBuiltIn { codec: compression }),
        };
        if let Err(error) = checked {
            return Err(call.invalid_input(format!("compression: {error}")));
        }
        let deadline = Deadline::after(deadline.unwrap_or(cluster.config.deadlines.operation));
        let partition = Arc::new(Partition::find(cluster, topic, index, deadline).await?);
        let hold = match &exclusive {
            Some(exclusive) => {
                settings.epochs = EpochOwner::Coordinator { renewal: exclusive.renewal };
                Some(take_over(&partition, exclusive, deadline).await?)
            }
            None => None,
        };
        let producer = Producer::open(Arc::clone(&partition), settings, hold)?;
        producers.add(&producer)?;
        Ok(PartitionClient { partition, producer })
    }
}

impl IntoFuture for OpenPartition {
    type Output = Result<PartitionClient, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    /// Makes it a future, for what takes futures and not requests: `join_all`, `try_join_all`, `select!`,
    /// `pin!`, `tokio::spawn`.
    fn into_future(self) -> Self::IntoFuture {
        within(self.span(), Box::pin(self.run()))
    }
}
