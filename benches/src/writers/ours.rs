//! kwal: its batch producer, and its partition client without one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kwal::{
    client::{ClientBuilder, PartitionClient},
    producer::BatchProducer,
    record::{Headers, Record},
    transport::Tcp,
};
use time::OffsetDateTime;

use super::{
    closed_loop::{Caller, Failure, Key},
    task::Task,
};
use crate::Delayed;

/// Opens the partition client.
pub(super) async fn partition(task: &Task) -> Result<PartitionClient, Failure> {
    let builder = ClientBuilder::new(task.bootstrap.clone());
    let builder = match Duration::from_micros(task.delay_us) {
        Duration::ZERO => builder,
        delay => builder.connector(Delayed::new(Arc::new(Tcp::default()), delay)),
    };
    Ok(builder.build().await?.partition_client(&task.topic, 0).await?)
}

/// Opens a batch producer with the settings of the task.
pub(super) async fn producer(task: &Task) -> Result<BatchProducer, Failure> {
    let builder = BatchProducer::builder(partition(task).await?).linger(task.linger());
    Ok(match task.window {
        0 => builder,
        window => builder.window(window),
    }
    .build())
}

/// A caller of the batch producer.
pub(super) struct Batched {
    pub(super) producer: BatchProducer,
    pub(super) key: Bytes,
}

impl Batched {
    pub(super) fn new(producer: &BatchProducer, key: Key) -> Self {
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
pub(super) struct Direct {
    partition: PartitionClient,
    key: Bytes,
}

impl Direct {
    pub(super) fn new(partition: &PartitionClient, key: Key) -> Self {
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
