//! Who asks for offsets and topics, and deletes records.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use kwal_client::{
    Client, OffsetAt, PartitionClient,
    error::{Error, ErrorKind},
};
use tokio::time::{Instant, sleep};

use super::{Scene, TOPIC, root};
use crate::support::chain;

/// At work with the first client.
pub(super) async fn work(scene: Arc<Scene>, client: Client, until: Instant, mut rng: Rng) {
    while Instant::now() < until {
        sleep(Duration::from_millis(rng.u64(..3_000))).await;
        let partition = rng.i32(0..scene.plan.partitions);
        let Some(partition) = scene.open(&client, partition).await else { return };
        match rng.u8(..8) {
            0 => drop(scene.timed("list-topics", client.list_topics()).await),
            1 if !scene.plan.is_lossy() => {
                drop(scene.timed("epoch", partition.offset_for_leader_epoch(0)).await)
            }
            2 if scene.plan.deletes => delete(&scene, &partition, &mut rng).await,
            _ => ask(&scene, &partition).await,
        }
    }
}

/// The end of the log is behind all that was acknowledged.
async fn ask(scene: &Scene, partition: &PartitionClient) {
    let acked = scene.acked_end(0, partition.partition());
    match scene.timed("latest", partition.get_offset(OffsetAt::Latest)).await {
        Ok(end) => {
            scene.meet("offsets told");
            if end < acked && !scene.plan.is_lossy() {
                let (topic, partition) = (TOPIC, partition.partition());
                scene.problem(format!(
                    "{topic}-{partition} is said to end at {end}, and had been appended to up to {acked}"
                ));
            }
        }
        Err(error) => failed(scene, &error),
    }
}

async fn delete(scene: &Scene, partition: &PartitionClient, rng: &mut Rng) {
    let before = rng.u64(..=scene.acked_end(0, partition.partition()).unsigned_abs()) as i64;
    match scene.timed("delete", partition.delete_records(before)).await {
        Ok(start) if start >= before => scene.meet("records deleted"),
        Ok(start) => {
            scene.problem(format!("records before {before} were deleted, and the log begins at {start}"))
        }
        Err(error) => failed(scene, &error),
    }
}

fn failed(scene: &Scene, error: &Error) {
    match root(error) {
        ErrorKind::Closed | ErrorKind::InvalidInput { .. } => {
            scene.problem(format!("a call failed: {}", chain(error)));
        }
        _ => scene.meet("offsets not told"),
    }
}
