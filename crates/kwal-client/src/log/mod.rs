//! What is asked of the leader about the log of a partition, by appends and reads alike.

mod fetch;
mod leader_epoch;
mod offsets;
mod order;

use std::ops::Range;

use kwal_protocol::api::Body;

pub(crate) use self::{
    fetch::{FetchFrom, FetchedBatches},
    leader_epoch::EpochEnd,
    offsets::ListOffset,
    order::Order,
};
pub use self::{leader_epoch::EpochEndOffset, offsets::OffsetAt};
use crate::{
    error::{Error, ErrorKind},
    pool::Purpose,
    routing::{self, Deadline, Operation, Partition, Target},
};

/// Runs an operation on the leader.
pub(crate) async fn call<O: Operation>(
    partition: &Partition,
    operation: &O,
    deadline: Deadline,
) -> Result<O::Output, Error> {
    let target = Target::Leader(partition, Purpose::General);
    let call = partition.call(O::Request::KEY);
    Ok(routing::call(&partition.cluster, target, call, operation, deadline).await?)
}

/// Returns the offset after the last record that all in-sync replicas have.
pub(crate) async fn end_offset(partition: &Partition, deadline: Deadline) -> Result<i64, Error> {
    call(partition, &ListOffset { at: OffsetAt::Latest }, deadline).await
}

/// Returns the first offset of the log and the one after its last record.
pub(crate) async fn range(partition: &Partition, deadline: Deadline) -> Result<Range<i64>, Error> {
    let start = call(partition, &ListOffset { at: OffsetAt::Earliest }, deadline).await?;
    Ok(start..end_offset(partition, deadline).await?)
}

/// Adds the offsets of the log to an error that is certain without them, if they can be had within the time
/// of a request.
pub(crate) async fn with_range(partition: &Partition, mut error: Error, deadline: Deadline) -> Error {
    if let ErrorKind::OffsetOutOfRange { log, .. } = error.kind_mut() {
        let request = Deadline::after(partition.cluster.config.deadlines.request);
        *log = range(partition, deadline.min(request)).await.ok();
    }
    error
}
