//! Calls that look up offsets and topics, and delete records.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use kwal_client::{
    Client, OffsetAt, PartitionClient,
    error::{Error, ErrorKind},
};
use tokio::time::{Instant, sleep};

use super::{Shared, TOPIC, root};
use crate::support::chain;

/// Makes calls with the first client until a time.
pub(super) async fn work(shared: Arc<Shared>, client: Client, until: Instant, mut rng: Rng) {
    while Instant::now() < until {
        sleep(Duration::from_millis(rng.u64(..3_000))).await;
        let partition = rng.i32(0..shared.plan.partitions);
        let Some(partition) = shared.open(&client, partition).await else { return };
        match rng.u8(..8) {
            0 => drop(shared.timed("list-topics", client.list_topics()).await),
            1 if !shared.plan.is_lossy() => {
                drop(shared.timed("epoch", partition.offset_for_leader_epoch(0)).await)
            }
            2 if shared.plan.deletes => delete(&shared, &partition, &mut rng).await,
            _ => look_up_end(&shared, &partition).await,
        }
    }
}

/// Checks that the end of the log is after all acknowledged appends.
async fn look_up_end(shared: &Shared, partition: &PartitionClient) {
    let acked = shared.acked_end(0, partition.partition());
    match shared.timed("latest", partition.get_offset(OffsetAt::Latest)).await {
        Ok(end) => {
            shared.count_event("offsets looked up");
            if end < acked && !shared.plan.is_lossy() {
                let (topic, partition) = (TOPIC, partition.partition());
                shared.problem(format!(
                    "{topic}-{partition} is reported to end at {end}, but appends up to {acked} were acknowledged"
                ));
            }
        }
        Err(error) => failed(shared, &error),
    }
}

async fn delete(shared: &Shared, partition: &PartitionClient, rng: &mut Rng) {
    let before = rng.u64(..=shared.acked_end(0, partition.partition()).unsigned_abs()) as i64;
    match shared.timed("delete", partition.delete_records(before)).await {
        Ok(start) if start >= before => shared.count_event("records deleted"),
        Ok(start) => {
            shared.problem(format!("records before {before} were deleted, but the log begins at {start}"))
        }
        Err(error) => failed(shared, &error),
    }
}

fn failed(shared: &Shared, error: &Error) {
    match root(error) {
        ErrorKind::Closed | ErrorKind::InvalidInput { .. } => {
            shared.problem(format!("a call failed: {}", chain(error)));
        }
        _ => shared.count_event("offset lookups failed"),
    }
}
