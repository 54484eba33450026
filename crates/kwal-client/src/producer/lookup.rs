//! Finds batches on the log, by their headers: the last acknowledged one, and one in doubt.

use std::{ops::Range, time::Duration};

use kwal_protocol::{
    api::{ApiKey, Body},
    error_code::{ErrorCode, Recovery},
    messages::{FetchRequest, FetchResponse},
    record::{Batch, BatchHeader},
};
use tokio::time::sleep;

use super::state::Found;
use crate::{
    config::Deadlines,
    error::{Error, ErrorKind},
    log::{self, EpochEnd, FetchFrom, FetchedBatches, Isolation, ListOffset, OffsetAt},
    pool::Purpose,
    position::Position,
    producer_id::{Acknowledged, Identity, Stamp},
    routing::{self, Deadline, Leader, Operation, Partition, Rejection, Route, Target, Trace, Tracker},
};

/// Looks up the last acknowledged batch on the log of a leader, in one attempt: a retriable error says
/// nothing about the batch. Each of its requests has its own time limit, and there are at most six.
///
/// `acknowledged_in` is the leader epoch in which it was acknowledged, −1 if that is not known. A loss that a
/// single leader reports is not certain yet: it may have been deposed.
pub(super) async fn look_up(
    partition: &Partition,
    leader: Leader,
    last: &Acknowledged,
    acknowledged_in: i32,
    tracker: &Tracker,
) -> Result<Found, Error> {
    // Without an offset there is nothing to compare.
    let Some(base_offset) = last.base_offset else { return Ok(Found::Present) };
    let log = LeaderLog { partition, leader, tracker };
    match log.has(last, base_offset).await? {
        true => Ok(Found::Present),
        false => Ok(Found::Lost { from: Some(log.first_lost(base_offset, acknowledged_in).await?) }),
    }
}

/// Scans the log for the batch with a stamp. Returns its base offset; `None` if it is not in the range.
///
/// # Errors
/// [`ErrorKind::Trimmed`] or [`ErrorKind::BeyondEnd`] if the log does not have the whole range any more: a
/// part that was not read was deleted at the start, or lost at the end; [`ErrorKind::OffsetOutOfRange`] if it
/// cannot be found out which.
pub(super) async fn find(
    partition: &Partition,
    stamp: Stamp,
    records: usize,
    range: Range<i64>,
    deadline: Deadline,
) -> Result<Option<i64>, Error> {
    find_batch(partition, |batch| Ok(has_stamp(batch, stamp, records)), range, deadline).await
}

/// Scans the log for the first batch of a producer id in an epoch, as [`find`].
pub(super) async fn find_epoch(
    partition: &Partition,
    identity: Identity,
    range: Range<i64>,
    deadline: Deadline,
) -> Result<Option<i64>, Error> {
    let is_of_epoch = |batch: &Batch| {
        let header = batch.header();
        Ok((header.producer_id, header.producer_epoch) == (identity.id, identity.epoch))
    };
    find_batch(partition, is_of_epoch, range, deadline).await
}

/// Scans the log for the first batch that is the one, as [`find`]. It ends with the error of `is_it`, too.
pub(super) async fn find_batch(
    partition: &Partition,
    mut is_it: impl FnMut(&Batch) -> Result<bool, Error>,
    range: Range<i64>,
    deadline: Deadline,
) -> Result<Option<i64>, Error> {
    let call = partition.call(ApiKey::FETCH);
    // The log ended after the start of the range once.
    if range.start > range.end {
        let error = call.error(ErrorKind::OffsetOutOfRange { offset: range.start, log: None });
        return Err(log::with_range(partition, error, deadline).await);
    }
    let (mut offset, mut stuck) = (range.start, 0);
    while offset < range.end {
        let scanned = match scan(partition, offset, deadline).await {
            Ok(scanned) => scanned,
            Err(error) => return Err(log::with_range(partition, error, deadline).await),
        };
        let FetchedBatches { batches, next_offset, unread } = scanned;
        // The first records of a batch may have been deleted: it is on the log all the same.
        let is_in_range =
            |batch: &&Batch| batch.base_offset() < range.end && batch.last_offset() >= range.start;
        for batch in batches.iter().filter(is_in_range) {
            if is_it(batch)? {
                return Ok(Some(batch.base_offset()));
            }
        }
        if next_offset > offset {
            (offset, stuck) = (next_offset, 0);
            continue;
        }
        // And it ended at the end of the range.
        let end = log::end_offset(partition, deadline).await?;
        if end <= offset {
            return Err(call.error(ErrorKind::BeyondEnd { offset, end }));
        }
        stuck += 1;
        if stuck == log::STUCK_ROUNDS {
            let error = unread.map_or_else(|| ErrorKind::MalformedResponse.into(), Error::from);
            return Err(error.with_context(call.context()));
        }
        log::pause(partition, deadline).await;
    }
    Ok(None)
}

/// Reads the batches from an offset on.
async fn scan(partition: &Partition, offset: i64, deadline: Deadline) -> Result<FetchedBatches, Error> {
    let wait = Duration::from_millis(500).min(deadline.after / 2);
    let read = ReadBatches {
        from: FetchFrom { position: offset.into(), max_bytes: 1 << 20, ..first(partition) },
        wait,
    };
    let target = Target::Leader(partition, Purpose::Fetch);
    let call = partition.call(ApiKey::FETCH);
    Ok(routing::call(&partition.cluster, target, call, &read, deadline).await?.batches)
}

/// A fetch of one batch, which a broker returns whole whatever its size is (KIP-74).
fn first(partition: &Partition) -> FetchFrom {
    FetchFrom {
        position: Position::from(0),
        isolation: Isolation::ReadUncommitted,
        min_bytes: 1,
        max_bytes: 1,
        frame: partition.cluster.config.limits.frame,
    }
}

/// Whether a batch has a stamp, and as many offsets as it has records.
///
/// Compaction removes records and keeps the offsets and the sequence number of their batch.
fn has_stamp(batch: &Batch, stamp: Stamp, records: usize) -> bool {
    let header = batch.header();
    header.magic == BatchHeader::MAGIC
        && (header.producer_id, header.producer_epoch) == (stamp.identity.id, stamp.identity.epoch)
        && header.base_sequence == stamp.sequence
        && i64::try_from(records) == Ok(i64::from(header.last_offset_delta) + 1)
}

/// Whether the first batch that reaches an offset may be the one that was acknowledged there.
fn is_it(batch: &Batch, last: &Acknowledged, base_offset: i64) -> bool {
    // Messages of old formats have no producer; they are compressed and split as the broker likes.
    let is_message = batch.magic() != BatchHeader::MAGIC && last.stamp == Stamp::NONE;
    // One that begins after the offset: compaction removed what was before it.
    is_message
        || batch.base_offset() > base_offset
        || batch.base_offset() == base_offset && has_stamp(batch, last.stamp, last.records)
}

/// The log of a broker that leads the partition in an epoch. Each of its methods is one attempt.
struct LeaderLog<'a> {
    partition: &'a Partition,
    leader: Leader,
    tracker: &'a Tracker,
}

impl LeaderLog<'_> {
    /// Whether the log has an acknowledged batch, or had it: retention, `delete_records` and compaction are
    /// no loss.
    async fn has(&self, last: &Acknowledged, base_offset: i64) -> Result<bool, Error> {
        let end = base_offset.saturating_add_unsigned(last.records as u64);
        for _ in 0..log::STUCK_ROUNDS {
            let Read { batches, high_watermark } = match self.read(base_offset).await {
                Ok(read) => read,
                Err(error) => return self.has_beyond_error(error, base_offset, end).await,
            };
            if let Some(source) = batches.unread {
                return Err(Error::from(source).with_context(self.partition.call(ApiKey::FETCH).context()));
            }
            if let Some(covers) = batches.batches.iter().find(|batch| batch.last_offset() >= base_offset) {
                return Ok(is_it(covers, last, base_offset));
            }
            if high_watermark < end {
                return self.has_above_high_watermark(base_offset, end).await;
            }
            sleep(self.partition.cluster.config.retry.initial).await;
        }
        // The log goes on beyond the batch and nothing is left of it or after it: compaction removed all.
        Ok(true)
    }

    /// Decides after the high watermark was found below the end of the batch: the log ends there, or the
    /// leader was elected a moment ago and does not know yet which of its records all in-sync replicas have.
    async fn has_above_high_watermark(&self, base_offset: i64, end: i64) -> Result<bool, Error> {
        // Whether an offset is out of range is decided by the end of the log and not by the high watermark.
        match self.read(end).await {
            Ok(_) => {
                let kind = ErrorKind::Broker { code: ErrorCode::OFFSET_NOT_AVAILABLE, message: None };
                Err(self.partition.call(ApiKey::FETCH).error(kind))
            }
            Err(error) => self.has_beyond_error(error, base_offset, end).await,
        }
    }

    /// Decides after the batch could not be read.
    async fn has_beyond_error(&self, error: Error, base_offset: i64, end: i64) -> Result<bool, Error> {
        if error.kind().is_out_of_range() {
            return Ok(self.call(&ListOffset::of(OffsetAt::Earliest)).await? > base_offset);
        }
        // A principal that may write and not read. Where the log ends is all that it may know.
        if error.code() == Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED) {
            return Ok(self.end().await?.is_none_or(|log_end| log_end >= end));
        }
        Err(error)
    }

    /// Returns the first offset whose records are lost, given that a batch is.
    async fn first_lost(&self, base_offset: i64, acknowledged_in: i32) -> Result<i64, Error> {
        // The former leader's records of this epoch go on where those of this log end.
        let end = self.try_call(&EpochEnd { leader_epoch: acknowledged_in }).await?.flatten();
        Ok(end.map_or(base_offset, |end| end.end_offset.min(base_offset)))
    }

    /// Returns the end of the log, whatever the high watermark is; `None` if the broker does not report it.
    async fn end(&self) -> Result<Option<i64>, Error> {
        let end = self.try_call(&EpochEnd { leader_epoch: self.leader.epoch }).await?.flatten();
        Ok(end.map(|end| end.end_offset))
    }

    /// Reads one batch.
    async fn read(&self, offset: i64) -> Result<Read, Error> {
        let from = FetchFrom { position: offset.into(), ..first(self.partition) };
        self.call(&ReadBatches { from, wait: Duration::ZERO }).await
    }

    /// Runs an operation. `None` if it fails and would again.
    async fn try_call<O: Operation>(&self, operation: &O) -> Result<Option<O::Output>, Error> {
        match self.call(operation).await {
            Ok(output) => Ok(Some(output)),
            Err(error) if error.recovery() == Recovery::Fail => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn call<O: Operation>(&self, operation: &O) -> Result<O::Output, Error> {
        let Self { partition, leader, tracker } = *self;
        let target = Target::ThisLeader(partition, leader);
        let (cluster, call) = (&partition.cluster, partition.call(O::Request::KEY));
        routing::attempt(cluster, target, call, operation, 0, &mut Trace::default(), tracker).await
    }
}

/// A fetch of batches, for their headers.
#[derive(Debug)]
struct ReadBatches {
    from: FetchFrom,
    wait: Duration,
}

/// What it got.
#[derive(Debug)]
struct Read {
    batches: FetchedBatches,
    high_watermark: i64,
}

impl Operation for ReadBatches {
    type Request = FetchRequest;
    type Output = Read;

    fn request(&self, route: &Route<'_>) -> FetchRequest {
        self.from.request(route)
    }

    fn response(&self, route: &Route<'_>, response: FetchResponse) -> Result<Read, Rejection> {
        let found = self.from.partition(route, response)?;
        let batches = self.from.batches(found.records.unwrap_or_default())?;
        Ok(Read { batches, high_watermark: found.high_watermark })
    }

    fn long_poll(&self) -> Duration {
        self.wait
    }

    fn time_limit(&self, deadlines: &Deadlines, granted: Duration) -> Option<Duration> {
        Some(deadlines.request.saturating_add(granted))
    }
}

#[cfg(test)]
mod tests;
