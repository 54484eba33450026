//! A partition client to be opened.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use kwal_protocol::{api::ApiKey, compression::CompressionError, record::Compression};
use kwal_transport::BoxFuture;

use super::PartitionClient;
use crate::{
    cluster::Cluster,
    error::{CallContext, Error},
    producer::{Acks, Encoding, OnFailure, Producer, Producers, Settings},
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
    deadline: Option<Duration>,
    producers: Producers,
}

impl OpenPartition {
    pub(crate) fn new(cluster: Arc<Cluster>, producers: Producers, topic: String, index: i32) -> Self {
        Self { cluster, topic, index, settings: Settings::default(), deadline: None, producers }
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

    /// Sets the time limit of opening it. Default: [`Deadlines::operation`](crate::Deadlines::operation).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    async fn run(self) -> Result<PartitionClient, Error> {
        let Self { cluster, topic, index, settings, deadline, producers } = self;
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
        let producer = Producer::open(Arc::clone(&partition), settings)?;
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
        Box::pin(self.run())
    }
}
