//! Partition clients that wait.

use std::time::Duration;

use tokio::time::sleep;

use super::partitions;
use crate::{
    kwal_records,
    shared::{Failure, Measured, Meter, Task, memory},
};

/// How long they wait.
const IDLE: Duration = Duration::from_secs(5);

/// Opens all partitions, appends a record to each, and measures how long the clients need to wait. `bytes` is
/// the memory that they take.
pub(crate) async fn idle(task: &Task) -> Result<Measured, Failure> {
    // The first one has what all share.
    drop(partitions(&Task { partitions: 1, ..task.clone() }).await?);
    let before = memory()?;
    let partitions = partitions(task).await?;
    for partition in &partitions {
        partition.produce(kwal_records(task.values(0))).await?;
    }
    let mut meter = Meter::new();
    meter.resume()?;
    sleep(IDLE).await;
    meter.batch(task.partitions as u64, memory()?.saturating_sub(before), 0);
    let measured = meter.finish();
    drop(partitions);
    measured
}
