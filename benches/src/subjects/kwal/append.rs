//! Appends of batches by kwal.

use kwal::{PartitionClient, record::Record};

use super::partitions;
use crate::{
    kwal_records,
    shared::{
        Failure, Measured, Meter, Task,
        append::{self, Appender, concurrently},
    },
};

/// Appends by partition clients as they are by default: idempotent, all replicas acknowledge.
pub(crate) async fn append(task: &Task) -> Result<Measured, Failure> {
    let partitions = partitions(task).await?;
    append::run(task, Kwal { concurrent: task.partitions * task.window, partitions }).await
}

struct Kwal {
    partitions: Vec<PartitionClient>,
    concurrent: usize,
}

impl Appender for Kwal {
    type Batch = Vec<Record>;

    fn batch(&self, values: &[Vec<u8>]) -> Vec<Record> {
        kwal_records(values.to_vec())
    }

    async fn round(&mut self, batches: Vec<Vec<Record>>, meter: &mut Meter) -> Result<(), Failure> {
        concurrently(batches, self.concurrent, meter, async |index, records| {
            self.partitions[index % self.partitions.len()].produce(records).await?;
            Ok(())
        })
        .await
    }
}
