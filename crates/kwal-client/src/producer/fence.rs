//! Fences a producer id for good, whoever has it.

use kwal_protocol::{api::ApiKey, error_code::ErrorCode, record::EncodedBatch};

use super::{Produced, append::Append, lookup::find_epoch, settings::Acks};
use crate::{
    error::Error,
    log,
    pool::Purpose,
    producer_id::Identity,
    routing::{self, Deadline, Partition, Target},
};

/// Appends a fence under a producer id, on its last epoch. Returns the offset of the first such fence, which
/// is not before `start`: all in-sync replicas have it, and no batch of an earlier epoch can follow it
/// (KIP-98).
pub(super) async fn append(
    partition: &Partition,
    id: i64,
    batch: &EncodedBatch,
    start: i64,
    deadline: Deadline,
) -> Result<i64, Error> {
    let identity = Identity { id, epoch: Identity::FENCE_EPOCH };
    partition.cluster.producer_ids.remove(partition.key(), identity.id);
    let batch = batch.stamp(identity.id, identity.epoch, 0);
    let append = Append { batch, in_doubt: true, acks: Acks::All };
    let target = Target::Leader(partition, Purpose::Produce);
    let call = partition.call(ApiKey::PRODUCE);
    loop {
        match routing::call(&partition.cluster, target, call, &append, deadline).await {
            // For an earlier fence the broker returns the offset of that one, also after all in-sync replicas
            // have it.
            Ok(Produced { base_offset: Some(offset), .. }) => return Ok(offset),
            // A fence is on the log of this broker: at an offset that it does not report, or before other
            // batches of that epoch. A response of the second kind does not wait for the replicas, and a
            // broker that was deposed gives it for a fence that its successor may not have. So the fence
            // counts when it can be read below the high watermark; if it cannot, it is appended again.
            Ok(_) => {}
            Err(failed) if failed.has_code(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER) => {}
            Err(failed) => return Err(failed.into()),
        }
        let range = start..log::end_offset(partition, deadline).await?;
        if let Some(offset) = find_epoch(partition, identity, range, deadline).await? {
            return Ok(offset);
        }
        log::pause(partition, deadline).await;
    }
}
