//! Many callers that append one record at a time each, by the batch producers of other clients.

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

use crate::shared::{
    Failure, Measured, Task,
    callers::{Caller, Key, run},
};

/// The size of a batch from which on it is sent at once, as long as the linger time is: what brokers accept.
const BATCH: usize = 1_000_000;

/// rskafka's `BatchProducer`, which has no producer ids, and waits for its linger time even if nothing is in
/// flight. All replicas acknowledge.
///
/// # Errors
/// The client's own.
pub async fn rskafka(task: &Task) -> Result<Measured, Failure> {
    let client = ClientBuilder::new(task.brokers()).build().await?;
    let partition = client.partition_client(&*task.topic, 0, UnknownTopicHandling::Retry).await?;
    let producer = BatchProducerBuilder::new(partition.into())
        .with_linger(task.linger())
        .with_compression(Compression::NoCompression)
        .build(RecordAggregator::new(BATCH));
    let producer = Arc::new(producer);
    run(task, |key| Rskafka { producer: Arc::clone(&producer), key }).await
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
pub async fn rdkafka(task: &Task) -> Result<Measured, Failure> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &task.bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", task.linger_ms.to_string())
        .create()?;
    let topic: Arc<str> = Arc::from(&*task.topic);
    run(task, |key| Rdkafka { producer: producer.clone(), topic: Arc::clone(&topic), key }).await
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
