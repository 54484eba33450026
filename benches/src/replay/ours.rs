//! kwal, in the ways in which it reads, and what fills a real broker.

use std::error::Error;

use futures::StreamExt;
use kwal::{
    client::{ClientBuilder, OffsetAt, PartitionClient},
    consumer,
};

use super::{Content, Measured, Task};
use crate::kwal_records;

/// Creates the topic and appends the content.
///
/// # Errors
/// The client's own.
pub async fn fill(task: &Task, content: Content) -> Result<(), Box<dyn Error>> {
    let client = ClientBuilder::new(task.bootstrap.clone()).build().await?;
    let controller = client.controller_client().await?;
    controller.create_topic(&task.topic, 1, 1).config("max.message.bytes", "16777216").await?;
    let partition = client.partition_client(&task.topic, 0).compression(content.codec).await?;
    for batch in 0..content.batches {
        partition.produce(kwal_records(content.values(batch))).await?;
    }
    Ok(())
}

/// Deletes the topic.
///
/// # Errors
/// The client's own.
pub async fn delete(task: &Task) -> Result<(), Box<dyn Error>> {
    let client = ClientBuilder::new(task.bootstrap.clone()).build().await?;
    client.controller_client().await?.delete_topic(&task.topic).await?;
    Ok(())
}

async fn open(task: &Task) -> Result<PartitionClient, Box<dyn Error>> {
    let client = ClientBuilder::new(task.bootstrap.clone()).build().await?;
    Ok(client.partition_client(&task.topic, 0).await?)
}

/// Reads the log by borrowed records.
///
/// # Errors
/// The client's own.
pub async fn borrowed(task: &Task) -> Result<Measured, Box<dyn Error>> {
    let partition = open(task).await?;
    let mut replay = consumer::replay(&partition, OffsetAt::Earliest).max_bytes(task.step).await?;
    let mut reading = task.reading();
    replay
        .for_each_batch(|batch| {
            batch.for_each(|record| reading.value(record.value.unwrap_or_default()))?;
            reading.step()
        })
        .await?;
    reading.finish()
}

/// Reads the log by owned records.
///
/// # Errors
/// The client's own.
pub async fn owned(task: &Task) -> Result<Measured, Box<dyn Error>> {
    let partition = open(task).await?;
    let mut replay = consumer::replay(&partition, OffsetAt::Earliest).max_bytes(task.step).await?;
    let mut reading = task.reading();
    while let Some(record) = replay.next().await {
        reading.value(record?.value.as_deref().unwrap_or_default());
        reading.step()?;
    }
    reading.finish()
}

/// Reads the log by one fetch after the other, and borrowed records.
///
/// # Errors
/// The client's own.
pub async fn fetches(task: &Task) -> Result<Measured, Box<dyn Error>> {
    let partition = open(task).await?;
    let end = partition.get_offset(OffsetAt::Latest).await?;
    let mut reading = task.reading();
    let mut next = 0;
    while next < end {
        let fetched = partition.fetch(next).max_bytes(task.step).await?;
        fetched.for_each(|record| reading.value(record.value.unwrap_or_default()))?;
        next = fetched.next_offset;
        reading.step()?;
    }
    reading.finish()
}
