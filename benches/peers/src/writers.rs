//! Many callers that append one record at a time each, by the batch producers of other clients.

#[path = "../../src/writers/closed_loop.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod closed_loop;
#[path = "../../src/writers/task.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod task;

use std::{sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use rskafka::{
    client::{
        ClientBuilder,
        partition::{Compression, UnknownTopicHandling},
        producer::{BatchProducer, BatchProducerBuilder, aggregator::RecordAggregator},
    },
    record::Record,
};

use self::closed_loop::{Caller, Failure, Key, run};
pub use self::{closed_loop::Measured, task::Task};

/// The size of a batch from which on it is sent at once, as long as the linger time is: what brokers accept.
const BATCH: usize = 1_000_000;

/// rskafka's `BatchProducer`, which has no producer ids, and waits for its linger time even if nothing is in
/// flight. All replicas acknowledge.
///
/// # Errors
/// The client's own.
pub fn rskafka(task: &Task) -> Result<Measured, Failure> {
    let open = async |task: &Task| {
        let client = ClientBuilder::new(task.bootstrap.clone()).build().await?;
        let partition = client.partition_client(&task.topic, 0, UnknownTopicHandling::Retry).await?;
        let producer = BatchProducerBuilder::new(partition.into())
            .with_linger(task.linger())
            .with_compression(Compression::NoCompression)
            .build(RecordAggregator::new(BATCH));
        Ok(Arc::new(producer))
    };
    run(task, open, |producer, key| Rskafka { producer: Arc::clone(producer), key })
}

struct Rskafka {
    producer: Arc<BatchProducer<RecordAggregator>>,
    key: Key,
}

impl Caller for Rskafka {
    async fn append(&mut self, value: &[u8]) -> Result<(), Failure> {
        let record = Record {
            key: Some(self.key.to_vec()),
            value: Some(value.to_vec()),
            headers: Default::default(),
            timestamp: chrono::Utc::now(),
        };
        self.producer.produce(record).await?;
        Ok(())
    }
}

/// rdkafka's `FutureProducer`, with producer ids and acknowledgements of all replicas.
///
/// # Errors
/// The client's own.
pub fn rdkafka(task: &Task) -> Result<Measured, Failure> {
    let open = async |task: &Task| {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", task.bootstrap.join(","))
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", task.linger_ms.to_string())
            .set("max.in.flight.requests.per.connection", task.window.to_string())
            .create()?;
        Ok((producer, Arc::from(&*task.topic)))
    };
    run(task, open, |(producer, topic): &(FutureProducer, Arc<str>), key| Rdkafka {
        producer: producer.clone(),
        topic: Arc::clone(topic),
        key,
    })
}

struct Rdkafka {
    producer: FutureProducer,
    topic: Arc<str>,
    key: Key,
}

/// How long a record may wait for a place in the queue.
const QUEUE: Duration = Duration::from_secs(30);

impl Caller for Rdkafka {
    async fn append(&mut self, value: &[u8]) -> Result<(), Failure> {
        let record = FutureRecord::to(&self.topic).partition(0).key(&self.key).payload(value);
        self.producer.send(record, QUEUE).await.map_err(|(error, _)| error)?;
        Ok(())
    }
}
