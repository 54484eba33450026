//! Many callers: the batch producer, and the partition client without one.

use bytes::Bytes;
use kwal::{
    PartitionClient,
    producer::BatchProducer,
    record::{Headers, Record},
};
use time::OffsetDateTime;

use super::partition;
use crate::shared::{
    Failure, Task,
    callers::{Caller, Key},
};

/// Opens a batch producer with the settings of the task.
pub(crate) async fn producer(task: &Task) -> Result<BatchProducer, Failure> {
    let builder = BatchProducer::builder(partition(task, 0).await?).linger(task.linger());
    Ok(match task.window {
        0 => builder,
        window => builder.window(window),
    }
    .build())
}

/// A caller of the batch producer.
pub(crate) struct Batched {
    producer: BatchProducer,
    key: Bytes,
}

impl Batched {
    pub(crate) fn new(producer: &BatchProducer, key: Key) -> Self {
        Self { producer: producer.clone(), key: Bytes::copy_from_slice(&key) }
    }
}

impl Caller for Batched {
    async fn append(&mut self, value: &[u8]) -> Result<(), Failure> {
        self.producer.produce(record(&self.key, value)).await?;
        Ok(())
    }
}

/// A caller of the partition client.
pub(crate) struct Direct {
    partition: PartitionClient,
    key: Bytes,
}

impl Direct {
    pub(crate) fn new(partition: &PartitionClient, key: Key) -> Self {
        Self { partition: partition.clone(), key: Bytes::copy_from_slice(&key) }
    }
}

impl Caller for Direct {
    async fn append(&mut self, value: &[u8]) -> Result<(), Failure> {
        self.partition.produce(vec![record(&self.key, value)]).await?;
        Ok(())
    }
}

fn record(key: &Bytes, value: &[u8]) -> Record {
    Record {
        key: Some(key.clone()),
        value: Some(Bytes::copy_from_slice(value)),
        headers: Headers::new(),
        timestamp: OffsetDateTime::now_utc(),
    }
}
