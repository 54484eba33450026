//! Produce: one batch, and where it was appended.

use bytes::Bytes;
use kwal_protocol::{
    error_code::ErrorCode,
    messages::{ProduceLeader, ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic},
    record::EncodedBatch,
    wire::Spliced,
};

use super::Produced;
use crate::{
    error::ErrorKind,
    metadata::{LeaderUpdate, address},
    routing::{Operation, Rejection, Route, leader_has_moved, only_partition},
};

/// Appends a batch, which has its producer id and sequence number already.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) batch: EncodedBatch,
    /// Which attempt it is, for the result.
    pub(super) attempt: u32,
}

impl Operation for Append {
    type Request = ProduceRequest;
    type Output = Produced;

    fn request(&self, route: &Route<'_>) -> ProduceRequest {
        let head = Bytes::copy_from_slice(&self.batch.header_bytes());
        ProduceRequest {
            acks: -1,
            timeout_ms: route.timeout_ms(),
            topic_data: vec![ProduceTopic {
                name: route.topic.to_owned(),
                topic_id: route.topic_id,
                partition_data: vec![ProducePartition {
                    index: route.partition,
                    records: Some(Spliced::new(head, self.batch.body().clone())),
                }],
            }],
            ..ProduceRequest::default()
        }
    }

    fn response(&self, route: &Route<'_>, response: ProduceResponse) -> Result<Produced, Rejection> {
        let ProduceResponse { responses, node_endpoints, .. } = response;
        let partition = only_partition(
            responses,
            |topic| topic.partition_responses,
            |partition| partition.index == route.partition,
        )?;
        let known = |offset: i64| (offset >= 0).then_some(offset);
        match partition.error_code {
            ErrorCode::NONE => Ok(Produced {
                base_offset: partition.base_offset,
                record_count: self.batch.record_count(),
                log_append_time_ms: known(partition.log_append_time_ms),
                log_start_offset: known(partition.log_start_offset),
                wire_bytes: self.batch.size_in_bytes(),
                attempts: self.attempt,
            }),
            ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => {
                Err(Rejection::Kind(ErrorKind::BatchTooLarge {
                    size: self.batch.size_in_bytes(),
                    records: self.batch.record_count(),
                    limit: None,
                }))
            }
            code => {
                let ProduceLeader { leader_id, leader_epoch } = partition.current_leader;
                let endpoint = node_endpoints.iter().find(|endpoint| endpoint.node_id == leader_id);
                let leader = leader_has_moved(code).then(|| LeaderUpdate {
                    topic_id: route.topic_id,
                    leader: leader_id,
                    leader_epoch,
                    address: endpoint.and_then(|endpoint| address(&endpoint.host, endpoint.port)),
                });
                let message = partition.error_message.filter(|message| !message.is_empty());
                Err(Rejection::Code { code, message, leader })
            }
        }
    }
}
