//! Appends of batches.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord, Producer},
};
use rskafka::{
    client::{
        ClientBuilder,
        partition::{Compression, PartitionClient, UnknownTopicHandling},
    },
    record::Record,
};

use crate::shared::{
    Failure, Measured, Meter, Task,
    append::{self, Appender, concurrently},
};

/// How long the clients wait for the rest of a batch: never so long, since all of it is there.
const LINGER: Duration = Duration::from_millis(100);
/// No batch is as large.
const LARGE: usize = 64 << 20;

/// rskafka's `PartitionClient`.
///
/// # Errors
/// The client's own.
pub async fn rskafka(task: &Task) -> Result<Measured, Failure> {
    let client = ClientBuilder::new(task.brokers()).build().await?;
    let mut partitions = Vec::new();
    for partition in 0..task.partitions as i32 {
        partitions.push(client.partition_client(&*task.topic, partition, UnknownTopicHandling::Retry).await?);
    }
    let compression = match &*task.codec {
        "none" => Compression::NoCompression,
        "gzip" => Compression::Gzip,
        "lz4" => Compression::Lz4,
        "snappy" => Compression::Snappy,
        "zstd" => Compression::Zstd,
        other => return Err(format!("no codec {other}").into()),
    };
    let concurrent = task.partitions * task.window;
    append::run(task, Rskafka { partitions, compression, concurrent }).await
}

struct Rskafka {
    partitions: Vec<PartitionClient>,
    compression: Compression,
    concurrent: usize,
}

impl Appender for Rskafka {
    type Batch = Vec<Record>;

    fn batch(&self, values: &[Vec<u8>]) -> Vec<Record> {
        let timestamp = chrono::Utc::now();
        let record = |value: &Vec<u8>| Record {
            key: None,
            value: Some(value.clone()),
            headers: Default::default(),
            timestamp,
        };
        values.iter().map(record).collect()
    }

    async fn round(&mut self, batches: Vec<Vec<Record>>, meter: &mut Meter) -> Result<(), Failure> {
        concurrently(batches, self.concurrent, meter, async |index, records| {
            self.partitions[index % self.partitions.len()].produce(records, self.compression).await?;
            Ok(())
        })
        .await
    }
}

/// rdkafka's `FutureProducer`.
///
/// # Errors
/// The client's own.
pub async fn rdkafka(task: &Task) -> Result<Measured, Failure> {
    let large = LARGE.to_string();
    let linger = if task.records == 1 { Duration::ZERO } else { LINGER };
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &task.bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.codec", &task.codec)
        .set("linger.ms", linger.as_millis().to_string())
        .set("batch.num.messages", task.records.to_string())
        .set("batch.size", &large)
        .set("message.max.bytes", &large)
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", "1048576")
        .create()?;
    append::run(task, Rdkafka { producer, task: task.clone() }).await
}

struct Rdkafka {
    producer: FutureProducer,
    task: Task,
}

impl Appender for Rdkafka {
    type Batch = Vec<Vec<u8>>;

    fn batch(&self, values: &[Vec<u8>]) -> Vec<Vec<u8>> {
        values.to_vec()
    }

    async fn round(&mut self, batches: Vec<Vec<Vec<u8>>>, meter: &mut Meter) -> Result<(), Failure> {
        let Task { topic, partitions, window, .. } = &self.task;
        concurrently(batches, partitions * window, meter, async |index, values| {
            let mut deliveries = Vec::with_capacity(values.len());
            for value in &values {
                let record: FutureRecord<'_, [u8], [u8]> =
                    FutureRecord::to(topic).partition((index % partitions) as i32).payload(value);
                deliveries.push(self.producer.send_result(record).map_err(|(error, _)| error)?);
            }
            for delivery in deliveries {
                delivery.await?.map_err(|(error, _)| error)?;
            }
            Ok(())
        })
        .await
    }
}

impl Drop for Rdkafka {
    fn drop(&mut self) {
        let _ = self.producer.flush(LINGER);
    }
}

/// krafka's `Producer`.
///
/// # Errors
/// The client's own.
pub async fn krafka(task: &Task) -> Result<Measured, Failure> {
    let client = krafka::Kafka::builder(&*task.bootstrap).connect().await?;
    let linger = if task.records == 1 { Duration::ZERO } else { LINGER };
    let compression = match &*task.codec {
        "none" => krafka::Compression::None,
        "gzip" => krafka::Compression::Gzip,
        "lz4" => krafka::Compression::Lz4,
        "snappy" => krafka::Compression::Snappy,
        "zstd" => krafka::Compression::Zstd,
        other => return Err(format!("no codec {other}").into()),
    };
    // It counts what a record takes on the wire at most.
    let record = krafka::Record::new(&*task.topic, vec![0; task.size]).estimated_size();
    let producer = client
        .producer()
        .compression(compression)
        .batch_size(if task.records == 1 { 1 } else { task.records * record })
        .linger(linger)
        .buffer_memory(1 << 30)
        .build()
        .await?;
    append::run(task, Krafka { producer, task: task.clone() }).await
}

struct Krafka {
    producer: krafka::producer::Producer,
    task: Task,
}

impl Appender for Krafka {
    type Batch = Vec<bytes::Bytes>;

    fn batch(&self, values: &[Vec<u8>]) -> Vec<bytes::Bytes> {
        values.iter().cloned().map(bytes::Bytes::from).collect()
    }

    async fn round(&mut self, batches: Vec<Self::Batch>, meter: &mut Meter) -> Result<(), Failure> {
        let Task { topic, partitions, window, .. } = &self.task;
        concurrently(batches, partitions * window, meter, async |index, values| {
            let mut deliveries = Vec::with_capacity(values.len());
            for value in values {
                let record = krafka::Record::new(&**topic, value).partition((index % partitions) as i32);
                deliveries.push(self.producer.enqueue(record).await?);
            }
            for delivery in deliveries {
                let _ = delivery.await?;
            }
            Ok(())
        })
        .await
    }
}
