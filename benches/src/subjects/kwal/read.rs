//! Reads by kwal.

use futures::{StreamExt, future};
use kwal::{
    PartitionClient,
    client::OffsetAt,
    consumer::{self, Replay},
};

use super::partitions;
use crate::shared::{Failure, Measured, Meter, Task};

/// Reads all partitions at the same time.
async fn each_partition<F: Future<Output = Result<Meter, Failure>>>(
    task: &Task,
    read: impl Fn(PartitionClient, Meter) -> F,
) -> Result<Measured, Failure> {
    let mut partitions = partitions(task).await?;
    if task.partitions == 1
        && let Some(partition) = partitions.pop()
    {
        return read(partition, task.reading()).await?.finish();
    }
    let mut all = Meter::new();
    all.resume()?;
    let reads = partitions.into_iter().map(|partition| read(partition, Meter::new()));
    for meter in future::try_join_all(reads).await? {
        all.merge(&meter);
    }
    all.finish()
}

async fn replay(partition: &PartitionClient, step: i32) -> Result<Replay, kwal::Error> {
    let replay = consumer::replay(partition, OffsetAt::Earliest);
    match step {
        0 => replay.await,
        step => replay.max_bytes(step).await,
    }
}

/// Reads by borrowed records.
pub(crate) async fn borrowed(task: &Task) -> Result<Measured, Failure> {
    each_partition(task, async |partition, mut meter| {
        let mut replay = replay(&partition, task.step).await?;
        replay
            .for_each_batch(|batch| {
                batch.for_each(|record| meter.value(record.value.unwrap_or_default()))?;
                meter.step()
            })
            .await?;
        Ok(meter)
    })
    .await
}

/// Reads by owned records.
pub(crate) async fn owned(task: &Task) -> Result<Measured, Failure> {
    each_partition(task, async |partition, mut meter| {
        let mut replay = replay(&partition, task.step).await?;
        while let Some(record) = replay.next().await {
            meter.value(record?.value.as_deref().unwrap_or_default());
            meter.step()?;
        }
        Ok(meter)
    })
    .await
}

/// Reads by one fetch after the other, and borrowed records.
pub(crate) async fn fetches(task: &Task) -> Result<Measured, Failure> {
    each_partition(task, async |partition, mut meter| {
        let end = partition.get_offset(OffsetAt::Latest).await?;
        let mut next = 0;
        while next < end {
            let fetch = partition.fetch(next);
            let fetched = if task.step == 0 { fetch.await? } else { fetch.max_bytes(task.step).await? };
            fetched.for_each(|record| meter.value(record.value.unwrap_or_default()))?;
            next = fetched.next_offset;
            meter.step()?;
        }
        Ok(meter)
    })
    .await
}
