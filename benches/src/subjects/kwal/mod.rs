//! kwal, in the ways in which it is used, and what fills real brokers.

mod append;
mod callers;
mod idle;
mod read;

use std::{sync::Arc, time::Duration};

use futures::future;
use kwal::{Client, ClientBuilder, PartitionClient, client::OffsetAt, transport::Tcp};

pub(super) use self::{
    append::append,
    callers::{Batched, Direct, producer},
    idle::idle,
    read::{borrowed, fetches, owned},
};
use crate::{
    Delayed, kwal_records,
    shared::{Failure, Measured, Task},
};

async fn client(task: &Task) -> Result<Client, Failure> {
    let builder = ClientBuilder::new(task.brokers());
    let builder = match Duration::from_micros(task.delay_us) {
        Duration::ZERO => builder,
        delay => builder.connector(Delayed::new(Arc::new(Tcp::default()), delay)),
    };
    Ok(builder.build().await?)
}

/// Opens one partition, with the settings of the task.
pub(super) async fn partition(task: &Task, index: i32) -> Result<PartitionClient, Failure> {
    open(task, &client(task).await?, index).await
}

async fn open(task: &Task, client: &Client, index: i32) -> Result<PartitionClient, Failure> {
    Ok(client.partition_client(&task.topic, index).compression(task.codec.parse()?).await?)
}

/// Opens all partitions of a task.
async fn partitions(task: &Task) -> Result<Vec<PartitionClient>, Failure> {
    let client = client(task).await?;
    future::try_join_all((0..i32::try_from(task.partitions)?).map(|index| open(task, &client, index))).await
}

/// Creates the topic and appends the batches to each partition.
///
/// # Errors
/// The client's own.
pub(super) async fn fill(task: &Task) -> Result<(), Failure> {
    let client = client(task).await?;
    let controller = client.controller_client().await?;
    let (partitions, replicas) =
        (i32::try_from(task.partitions)?, i16::try_from(task.brokers().len().min(3))?);
    controller
        .create_topic(&task.topic, partitions, replicas)
        .config("max.message.bytes", "33554432")
        .await?;
    for partition in 0..partitions {
        let partition = open(task, &client, partition).await?;
        for batch in 0..task.batches {
            partition.produce(kwal_records(task.values(batch))).await?;
        }
    }
    Ok(())
}

/// Counts the records of all partitions.
///
/// # Errors
/// The client's own.
pub(super) async fn count(task: &Task) -> Result<Measured, Failure> {
    let mut all = 0;
    for partition in partitions(task).await? {
        all += u64::try_from(partition.get_offset(OffsetAt::Latest).await?)?;
    }
    Ok(Measured { all, ..Measured::default() })
}

/// Deletes the topic.
///
/// # Errors
/// The client's own.
pub(super) async fn delete(task: &Task) -> Result<(), Failure> {
    client(task).await?.controller_client().await?.delete_topic(&task.topic).await?;
    Ok(())
}
