//! Fetch: batches from an offset on.

use std::ops::Range;

use bytes::Bytes;
use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        DivergingEpoch, FetchLeader, FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse,
        FetchTopic,
    },
    record::{Batch, BatchError, BatchErrorKind, BatchHeader, Batches},
};

use super::{
    Isolation,
    order::{in_order, out_of_order},
};
use crate::{
    error::{ErrorKind, InvalidField},
    position::Position,
    routing::{Rejection, Route, millis, only_partition},
};

/// Where a fetch begins and how much it asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchFrom {
    pub(crate) position: Position,
    pub(crate) isolation: Isolation,
    pub(crate) min_bytes: i32,
    pub(crate) max_bytes: i32,
    /// [`Limits::frame`](crate::Limits::frame).
    pub(crate) frame: usize,
}

/// More than a response has beside records and the topic's name, in bytes.
const OVERHEAD: usize = 256;

/// The whole batches of a response, in offset order.
#[derive(Debug)]
pub(crate) struct FetchedBatches {
    pub(crate) batches: Vec<Batch>,
    /// The offset after them; the requested one if they all lie before it.
    pub(crate) next_offset: i64,
    /// Why the bytes, if there are any, have nothing from the requested offset on.
    pub(crate) unread: Option<BatchError>,
}

impl FetchFrom {
    pub(crate) fn request(&self, route: &Route<'_>) -> FetchRequest {
        // A response that the client would refuse is not asked for.
        let room = self.frame.saturating_sub(OVERHEAD + route.topic.len());
        let max_bytes = self.max_bytes.min(i32::try_from(room).unwrap_or(i32::MAX)).max(1);
        FetchRequest {
            max_wait_ms: millis(route.long_poll),
            min_bytes: self.min_bytes,
            max_bytes,
            isolation_level: self.isolation.level(),
            topics: vec![FetchTopic {
                topic: route.topic.to_owned(),
                topic_id: route.topic_id,
                partitions: vec![FetchPartition {
                    partition: route.partition,
                    current_leader_epoch: route.leader_epoch,
                    fetch_offset: self.position.offset,
                    last_fetched_epoch: match is_verified_by_fetch(route) {
                        true => self.position.epoch(),
                        false => -1,
                    },
                    partition_max_bytes: max_bytes,
                    ..FetchPartition::default()
                }],
            }],
            ..FetchRequest::default()
        }
    }

    /// Returns the requested partition of a response.
    pub(crate) fn partition(
        &self,
        route: &Route<'_>,
        response: FetchResponse,
    ) -> Result<FetchPartitionResponse, Rejection> {
        let FetchResponse { throttle_time_ms, error_code, responses, node_endpoints, .. } = response;
        Rejection::check(error_code)?;
        if throttle_time_ms > 0 && responses.is_empty() {
            return Err(Rejection::Throttled);
        }
        let found = only_partition(
            responses,
            |topic| route.is_topic(&topic.topic, topic.topic_id),
            |topic| topic.partitions,
            |found| found.partition_index == route.partition,
        )?;
        match found.error_code {
            ErrorCode::NONE => self.check_diverging(route, found),
            ErrorCode::OFFSET_OUT_OF_RANGE => Err(Rejection::Kind(self.out_of_range(route))),
            code => {
                let FetchLeader { leader_id, leader_epoch } = found.current_leader;
                let endpoints = node_endpoints.iter().map(|found| (found.node_id, &*found.host, found.port));
                let leader = route.leader_update(code, (leader_id, leader_epoch), endpoints);
                Err(Rejection::Code { code, message: None, leader })
            }
        }
    }

    /// Checks that the log has what was read before the position.
    fn check_diverging(
        &self,
        route: &Route<'_>,
        found: FetchPartitionResponse,
    ) -> Result<FetchPartitionResponse, Rejection> {
        let DivergingEpoch { epoch, end_offset } = found.diverging_epoch;
        if (epoch, end_offset) == (-1, -1) || !is_verified_by_fetch(route) {
            return Ok(found);
        }
        InvalidField::not_negative("diverging_epoch.end_offset", end_offset)?;
        match diverged_at(self.position, epoch, end_offset) {
            Some(diverged_at) => {
                Err(Rejection::Kind(ErrorKind::LogTruncated { position: self.position, diverged_at }))
            }
            // Nothing diverges there.
            None => Err(InvalidField { field: "diverging_epoch.epoch", value: epoch.into() }.into()),
        }
    }

    /// Returns what it means that the broker does not have the offset, or not the epoch.
    fn out_of_range(&self, route: &Route<'_>) -> ErrorKind {
        let Position { offset, .. } = self.position;
        let leader_epoch = route.leader_epoch;
        match is_verified_by_fetch(route) && leader_epoch >= 0 && self.position.epoch() > leader_epoch {
            true => ErrorKind::EpochUnknown { position: self.position, leader_epoch },
            false => ErrorKind::OffsetOutOfRange { offset, log: None },
        }
    }

    /// Returns the offsets that the header of a corrupt batch names, if reading can go on after them: not
    /// those of the batch after it, if the response has that.
    fn claimed(&self, bytes: &Bytes, position: usize) -> Option<Range<i64>> {
        let header = bytes.get(position..)?.get(..BatchHeader::LEN)?;
        let header = BatchHeader::parse(header).ok()?;
        let first = header.base_offset;
        let mut end = header.last_offset().checked_add(1)?;
        let size = usize::try_from(header.batch_length).unwrap_or_default() + BatchHeader::LOG_OVERHEAD;
        let after = position.saturating_add(size).min(bytes.len());
        // Its offset is not covered by its checksum, but a wrong one is out of order or a hole.
        if let Some(Ok(next)) = Batches::new(bytes.slice(after..)).next()
            && next.magic() == BatchHeader::MAGIC
            && next.base_offset() > first
        {
            end = end.min(next.base_offset());
        }
        (first >= 0 && first < end && end > self.position.offset).then_some(first..end)
    }

    /// Splits the bytes of a response into batches.
    pub(crate) fn batches(&self, bytes: Bytes) -> Result<FetchedBatches, Rejection> {
        let mut next = 0;
        let mut batches = Vec::new();
        for batch in Batches::new(bytes.clone()) {
            match batch {
                Ok(batch) => {
                    // A response that is not in order is not read at all: a batch before this one may have
                    // taken the place of what belongs there.
                    next = in_order(&batch, next).map_err(|source| Rejection::Corrupt(source, None))?;
                    batches.push(batch);
                }
                // The batches before it can be read. The next fetch begins with it and reports it.
                Err(_) if !batches.is_empty() => break,
                Err(source) => {
                    let offsets = self.claimed(&bytes, source.position);
                    return Err(Rejection::Corrupt(source, offsets));
                }
            }
        }
        let offset = self.position.offset;
        let unread = (next <= offset).then(|| self.unread(&batches, &bytes)).flatten();
        Ok(FetchedBatches { batches, next_offset: next.max(offset), unread })
    }

    /// Returns why bytes have no batch from the requested offset on; `None` if there are no bytes.
    fn unread(&self, batches: &[Batch], bytes: &[u8]) -> Option<BatchError> {
        match batches.last() {
            Some(batch) => Some(out_of_order(batch, self.position.offset)),
            None if bytes.is_empty() => None,
            None => Some(BatchError {
                kind: BatchErrorKind::CutOff(bytes.len()),
                position: 0,
                base_offset: bytes.first_chunk().map(|offset| i64::from_be_bytes(*offset)),
            }),
        }
    }
}

/// The first version that compares the epoch of what was read before the offset with the log (KIP-595).
const VERIFIES: i16 = 12;

/// Whether the broker itself verifies the position.
pub(crate) fn is_verified_by_fetch(route: &Route<'_>) -> bool {
    route.version >= VERIFIES
}

/// Returns the first offset that is known to differ from what was read before a position, given where an
/// epoch ends on the leader's log: the largest one that is not above the position's. `None` if nothing
/// differs.
pub(crate) fn diverged_at(position: Position, epoch: i32, end_offset: i64) -> Option<i64> {
    let Position { leader_epoch, offset, .. } = position;
    match leader_epoch? {
        same if same == epoch => (end_offset < offset).then_some(end_offset),
        // The last record before the offset is not there.
        newer if newer > epoch => Some(end_offset.min(offset.saturating_sub(1)).max(0)),
        _ => None,
    }
}
