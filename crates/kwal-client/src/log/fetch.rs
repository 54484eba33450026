//! Fetch: batches from an offset on.

use bytes::Bytes;
use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        FetchLeader, FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopic,
        IsolationLevel,
    },
    record::{Batch, BatchError, BatchErrorKind, Batches},
};

use super::order::{in_order, out_of_order};
use crate::{
    error::ErrorKind,
    routing::{Rejection, Route, millis, only_partition},
};

/// Where a fetch begins and how much it asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchFrom {
    pub(crate) offset: i64,
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
            isolation_level: IsolationLevel::READ_UNCOMMITTED,
            topics: vec![FetchTopic {
                topic: route.topic.to_owned(),
                topic_id: route.topic_id,
                partitions: vec![FetchPartition {
                    partition: route.partition,
                    current_leader_epoch: route.leader_epoch,
                    fetch_offset: self.offset,
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
            ErrorCode::NONE => Ok(found),
            ErrorCode::OFFSET_OUT_OF_RANGE => {
                Err(Rejection::Kind(ErrorKind::OffsetOutOfRange { offset: self.offset, log: None }))
            }
            code => {
                let FetchLeader { leader_id, leader_epoch } = found.current_leader;
                let endpoints = node_endpoints.iter().map(|found| (found.node_id, &*found.host, found.port));
                let leader = route.leader_update(code, (leader_id, leader_epoch), endpoints);
                Err(Rejection::Code { code, message: None, leader })
            }
        }
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
                    next = in_order(&batch, next).map_err(Rejection::Corrupt)?;
                    batches.push(batch);
                }
                // The batches before it can be read. The next fetch begins with it and reports it.
                Err(_) if !batches.is_empty() => break,
                Err(source) => return Err(Rejection::Corrupt(source)),
            }
        }
        let unread = (next <= self.offset).then(|| self.unread(&batches, &bytes)).flatten();
        Ok(FetchedBatches { batches, next_offset: next.max(self.offset), unread })
    }

    /// Returns why bytes have no batch from the requested offset on; `None` if there are no bytes.
    fn unread(&self, batches: &[Batch], bytes: &[u8]) -> Option<BatchError> {
        match batches.last() {
            Some(batch) => Some(out_of_order(batch, self.offset)),
            None if bytes.is_empty() => None,
            None => Some(BatchError {
                kind: BatchErrorKind::CutOff(bytes.len()),
                position: 0,
                base_offset: bytes.first_chunk().map(|offset| i64::from_be_bytes(*offset)),
            }),
        }
    }
}
