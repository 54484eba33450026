//! What is asked of the leader about the log of a partition, by appends and reads alike.

mod compaction;
mod fetch;
mod gap;
mod isolation;
mod leader_epoch;
mod offsets;
mod order;

use std::ops::Range;

use kwal_protocol::api::Body;
use tokio::time::{Instant, sleep_until};

pub(crate) use self::{
    compaction::IsCompacted,
    fetch::{FetchFrom, FetchedBatches, diverged_at, is_verified_by_fetch},
    gap::Sorted,
    leader_epoch::EpochEnd,
    offsets::ListOffset,
    order::Order,
};
pub use self::{
    gap::{Gap, GapReason},
    isolation::Isolation,
    leader_epoch::EpochEndOffset,
    offsets::OffsetAt,
};
use crate::{
    error::{Error, ErrorKind},
    pool::Purpose,
    routing::{self, Deadline, Operation, Partition, Target},
};

/// How many responses in a row may move nothing although the log goes on.
pub(crate) const STUCK_ROUNDS: u32 = 3;

/// Pauses before the next request that may show more.
pub(crate) async fn pause(partition: &Partition, deadline: Deadline) {
    let pause = partition.cluster.config.retry.initial;
    sleep_until(deadline.at.min(Instant::now() + pause)).await;
}

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
    end_offset_at(partition, Isolation::default(), deadline).await
}

/// Returns the offset up to which the log can be read.
pub(crate) async fn end_offset_at(
    partition: &Partition,
    isolation: Isolation,
    deadline: Deadline,
) -> Result<i64, Error> {
    call(partition, &ListOffset { at: OffsetAt::Latest, isolation }, deadline).await
}

/// Returns the first offset of the log and the one after its last record.
pub(crate) async fn range(partition: &Partition, deadline: Deadline) -> Result<Range<i64>, Error> {
    let start = call(partition, &ListOffset::of(OffsetAt::Earliest), deadline).await?;
    Ok(start..end_offset(partition, deadline).await?)
}

/// Says on which side of the log an offset is that is out of range, if the offsets of the log can be had
/// within the time of a request.
pub(crate) async fn with_range(partition: &Partition, mut error: Error, deadline: Deadline) -> Error {
    if let ErrorKind::OffsetOutOfRange { log, .. } = error.kind_mut() {
        let request = Deadline::after(partition.cluster.config.deadlines.request);
        *log = range(partition, deadline.min(request)).await.ok();
    }
    if let ErrorKind::OffsetOutOfRange { offset, log: Some(log) } = error.kind() {
        let (offset, log) = (*offset, log.clone());
        if offset < log.start {
            *error.kind_mut() = ErrorKind::Trimmed { offset, log_start: log.start };
        } else if offset > log.end {
            *error.kind_mut() = ErrorKind::BeyondEnd { offset, end: log.end };
        }
    }
    error
}
