//! Splits a batch that came out larger than expected.

use kwal_client::{PartitionClient, error::Error};
use kwal_protocol::record::{Batches, EncodedBatch, Records};

/// Splits a batch by records until no part is larger than `max_bytes`, or has only one record.
pub(super) fn split(
    partition: &PartitionClient,
    batch: EncodedBatch,
    max_bytes: usize,
) -> Result<Vec<EncodedBatch>, Error> {
    let mut parts = Vec::new();
    // The first one last.
    let mut left = vec![batch];
    while let Some(batch) = left.pop() {
        if batch.size_in_bytes() <= max_bytes || batch.record_count() == 1 {
            parts.push(batch);
            continue;
        }
        let [first, second] = halves(partition, &batch)?;
        left.extend([second, first]);
    }
    Ok(parts)
}

fn halves(partition: &PartitionClient, batch: &EncodedBatch) -> Result<[EncodedBatch; 2], Error> {
    let records = decode(batch).map_err(|error| partition.invalid_append(error.to_string()))?;
    let middle = batch.record_count() / 2;
    let capacity = batch.uncompressed_size() / 2;
    let mut halves = [partition.batch_builder(capacity), partition.batch_builder(capacity)];
    for (index, record) in records.iter().enumerate() {
        let record = record.map_err(|error| partition.invalid_append(error.to_string()))?;
        let half = &mut halves[usize::from(index >= middle)];
        half.push(record.timestamp_ms, record.key, record.value, record.headers());
    }
    let [first, second] = halves;
    Ok([partition.finish(first)?, partition.finish(second)?])
}

/// Returns the records of a batch that was just encoded.
pub(super) fn decode(batch: &EncodedBatch) -> Result<Records, kwal_protocol::record::BatchError> {
    let mut batches = Batches::new(batch.to_bytes());
    let batch = batches.next().expect("it is one whole batch")?;
    batch.records(usize::MAX)
}

#[cfg(test)]
mod tests;
