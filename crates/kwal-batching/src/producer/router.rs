//! Several producers, one for each partition of a topic.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use kwal_client::{Client, error::Error};
use tokio::time::Instant;

use super::{
    BatchProducer, Stats, Undelivered,
    aggregator::{Aggregator, Records},
    murmur2,
};
use crate::request::request;

/// Several producers, one for each partition of a topic, and the choice between them.
///
/// The caller says which. By a key ([`for_key`](Self::for_key)): its partition is the one that Kafka's Java
/// producer chooses, so that programs in both languages agree where the records of a key are. Or by its
/// number ([`partition`](Self::partition)). Order is that of a partition: records with the same key stay in
/// order.
///
/// The producers are independent otherwise: each has its own batches, order and failures. They share the
/// memory budget of their client. Cloning is cheap.
///
/// ```
/// # kwal_testkit::doctest(9111, async {
/// # use kwal_client::Client;
/// # let client = Client::connect(["localhost:9111"]).await?;
/// # client.controller_client().await?.create_topic("wal", 5, 1).await?;
/// use kwal_batching::producer::Router;
/// use kwal_client::record::Record;
///
/// let wal = Router::open(&client, "wal").await?;
/// for (key, value) in [("account-17", "+100"), ("account-3", "+5"), ("account-17", "-30")] {
///     let producer = wal.for_key(key.as_bytes());
///     let appended = producer.produce(Record::new(key, value)).await?;
///     println!("{key}: {}/{:?}", producer.partition().partition(), appended.offset);
/// }
/// # let place = wal.for_key(b"account-17").partition();
/// # assert_eq!((place.partition(), wal.producers().len()), (4, 5));
/// # assert_eq!(place.get_offset(kwal_client::OffsetAt::Latest).await?, 2);
///
/// // Records without a key have no partition of their own.
/// let second = wal.partition(1).expect("there are five");
/// second.produce(Record::new(None::<&str>, "started")).await?;
///
/// assert_eq!(wal.stats().appended, 4);
/// assert!(wal.close().await.is_empty()); // everything is on the log
/// # Ok(()) });
/// ```
///
/// With settings of your own, or as the exclusive writer of all partitions:
///
/// ```
/// # kwal_testkit::doctest(9112, async {
/// # let client = kwal_client::Client::connect(["localhost:9112"]).await?;
/// # client.controller_client().await?.create_topic("wal", 5, 1).await?;
/// use kwal_batching::producer::{BatchProducer, Router};
/// use kwal_protocol::record::Compression;
///
/// let mut producers = Vec::new();
/// for partition in 0..5 {
///     let partition = client.partition_client("wal", partition).compression(Compression::Lz4).await?;
///     producers.push(BatchProducer::builder(partition).max_bytes(500_000).build());
/// }
/// let wal = Router::new(producers)?;
/// # assert_eq!(wal.partition(4).map(|producer| producer.partition().partition()), Some(4));
/// # assert!(wal.partition(5).is_none() && wal.partition(-1).is_none());
/// # Ok(()) });
/// ```
pub struct Router<A: Aggregator = Records> {
    /// One a partition, in order, and at least one.
    producers: Arc<[BatchProducer<A>]>,
}

impl Router {
    /// Opens every partition of a topic, and creates a producer with the default settings for each.
    pub fn open<'a>(client: &'a Client, topic: &'a str) -> OpenRouter<'a> {
        OpenRouter { client, topic, deadline: None }
    }
}

impl<A: Aggregator> Router<A> {
    /// Creates a router over the producers of all partitions of a topic, in order.
    ///
    /// How many there are decides where the records of a key go. So they have to be as many as the topic has
    /// partitions, for others to find them there; and when partitions are added to the topic, keys move, as
    /// they do for Java's producer.
    ///
    /// # Errors
    /// [`InvalidInput`](kwal_client::error::ErrorKind::InvalidInput) if there are none, or they are not those
    /// of partitions 0, 1, 2, … of one topic.
    pub fn new(producers: impl IntoIterator<Item = BatchProducer<A>>) -> Result<Self, Error> {
        let producers: Arc<[_]> = producers.into_iter().collect();
        let [first, ..] = &*producers else {
            return Err(Error::invalid_input("a router takes the producers of a topic, and there are none"));
        };
        let (topic, topic_id) = (first.partition().topic(), first.partition().topic_id());
        for (index, producer) in producers.iter().enumerate() {
            let partition = producer.partition();
            if partition.topic() != topic || i32::try_from(index) != Ok(partition.partition()) {
                return Err(Error::invalid_input(format!(
                    "a router takes the producers of all partitions of a topic, in order: that of {topic}/{index} is expected, and not that of {}/{}",
                    partition.topic(),
                    partition.partition()
                )));
            }
            if partition.topic_id() != topic_id {
                return Err(Error::invalid_input(format!(
                    "a router takes the producers of one topic: that of {topic}/{index} was opened before or after the topic was deleted and created again"
                )));
            }
        }
        Ok(Self { producers })
    }

    /// Returns the producer for a key: that of partition `toPositive(murmur2(key)) % partitions`, as Kafka's
    /// Java producer chooses it. Equal keys have the same one.
    ///
    /// The key is the bytes of [`Record::key`](kwal_client::record::Record::key). It is for the choice alone:
    /// a record goes to the partition of the producer that it is given to, whatever its key is.
    pub fn for_key(&self, key: &[u8]) -> &BatchProducer<A> {
        &self.producers[murmur2::partition(key, self.producers.len())]
    }

    /// Returns the producer of a partition; `None` if there is no such partition.
    pub fn partition(&self, partition: i32) -> Option<&BatchProducer<A>> {
        self.producers.get(usize::try_from(partition).ok()?)
    }

    /// Returns the producers of all partitions, in order.
    pub fn producers(&self) -> &[BatchProducer<A>] {
        &self.producers
    }

    /// Waits until everything that was accepted before, for any partition, has ended.
    pub fn flush(&self) -> FlushRouter<'_, A> {
        FlushRouter { router: self, deadline: None }
    }

    /// Accepts nothing more for any partition, waits for what was accepted, and returns what is not on the
    /// log.
    pub fn close(&self) -> CloseRouter<'_, A> {
        CloseRouter { router: self, deadline: None }
    }

    /// Returns the sums of what the producers have done, and are doing. What is the most or the longest is
    /// that of one partition.
    pub fn stats(&self) -> Stats {
        self.producers.iter().map(BatchProducer::stats).fold(Stats::default(), Stats::with)
    }

    /// Returns the time limit of a call: that of the first producer's client by default.
    fn deadline(&self, deadline: Option<Duration>) -> Duration {
        let first = self.producers.first().map(|first| first.partition().operation_deadline());
        deadline.or(first).unwrap_or_default()
    }
}

impl<A: Aggregator> Clone for Router<A> {
    fn clone(&self) -> Self {
        Self { producers: Arc::clone(&self.producers) }
    }
}

impl<A: Aggregator> fmt::Debug for Router<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = self.producers.first().map(|first| first.partition().topic());
        f.debug_struct("Router")
            .field("topic", &topic.unwrap_or_default())
            .field("partitions", &self.producers.len())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// All partitions of a topic, to be opened. Nothing happens until it is awaited.
///
/// The lookup never creates a topic.
///
/// # Errors
/// [`UnknownTopic`](kwal_client::error::ErrorKind::UnknownTopic);
/// [`DeadlineExceeded`](kwal_client::error::ErrorKind::DeadlineExceeded); and what opening a
/// [partition client](Client::partition_client) returns.
///
/// # Cancellation safety
/// Cancel safe.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct OpenRouter<'a> {
    client: &'a Client,
    topic: &'a str,
    deadline: Option<Duration>,
}

impl OpenRouter<'_> {
    async fn run(self) -> Result<Router, Error> {
        let Self { client, topic, deadline } = self;
        let (deadline, begun) = (deadline.unwrap_or_else(|| client.operation_deadline()), Instant::now());
        let controller = client.controller_client().await?;
        let count = controller.partition_count(topic, deadline).await?;
        let mut producers = Vec::with_capacity(count);
        // The first one makes the client know the topic; the others need no request.
        for partition in (0..).take(count) {
            let left = deadline.saturating_sub(begun.elapsed());
            let partition = client.partition_client(topic, partition).deadline(left).await?;
            producers.push(BatchProducer::new(partition));
        }
        Router::new(producers)
    }
}

request!(OpenRouter<'a> -> Result<Router, Error>);

/// A barrier on what was accepted for all partitions. Nothing happens until it is awaited.
///
/// # Errors
/// The first one in the order of partitions; see [`Flush`](super::Flush). All others have ended then, too.
///
/// # Cancellation safety
/// Cancel safe.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct FlushRouter<'a, A: Aggregator = Records> {
    router: &'a Router<A>,
    deadline: Option<Duration>,
}

impl<A: Aggregator> FlushRouter<'_, A> {
    async fn run(self) -> Result<(), Error> {
        let deadline = self.router.deadline(self.deadline);
        let each = self.router.producers.iter();
        let flushes = each.map(|producer| producer.flush().deadline(deadline).into_future());
        all(flushes).await.into_iter().fold(Ok(()), Result::and)
    }
}

request!(FlushRouter<'a, A: Aggregator> -> Result<(), Error>);

/// The end of all producers of a router. Nothing happens until it is awaited.
///
/// All are [closed](super::CloseProducer) at the same time. It returns the batches that are not known to be
/// on the log, in the order of partitions; their errors name the partition.
///
/// # Cancellation safety
/// If it is dropped, nothing more is accepted all the same, and what was accepted is sent. It can be called
/// again.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct CloseRouter<'a, A: Aggregator = Records> {
    router: &'a Router<A>,
    deadline: Option<Duration>,
}

impl<A: Aggregator> CloseRouter<'_, A> {
    async fn run(self) -> Vec<Undelivered> {
        let deadline = self.router.deadline(self.deadline);
        let each = self.router.producers.iter();
        let closes = each.map(|producer| producer.close().deadline(deadline).into_future());
        all(closes).await.into_iter().flatten().collect()
    }
}

request!(CloseRouter<'a, A: Aggregator> -> Vec<Undelivered>);

/// Begins all of them at once, and returns their outputs in order. What they wait for goes on without them,
/// so they are awaited one after the other.
async fn all<F: Future + Unpin>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut begun: Vec<_> = futures.map(Begun::Running).collect();
    poll_fn(|cx| {
        begun.iter_mut().for_each(|each| each.begin(cx));
        Poll::Ready(())
    })
    .await;
    let mut outputs = Vec::with_capacity(begun.len());
    for each in begun {
        outputs.push(match each {
            Begun::Ended(output) => output,
            Begun::Running(future) => future.await,
        });
    }
    outputs
}

/// A future that was polled once.
enum Begun<F: Future> {
    Running(F),
    Ended(F::Output),
}

impl<F: Future + Unpin> Begun<F> {
    fn begin(&mut self, cx: &mut Context<'_>) {
        if let Self::Running(future) = self
            && let Poll::Ready(output) = Pin::new(future).poll(cx)
        {
            *self = Self::Ended(output);
        }
    }
}
