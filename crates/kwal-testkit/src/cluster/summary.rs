//! Short descriptions of requests and responses, for people who read a journal.

use std::{any::Any, fmt::Write as _};

use bytes::Bytes;
use kwal_protocol::{
    api::{ApiKey, Request},
    error_code::ErrorCode,
    messages::{
        ApiVersionsResponse, DeleteRecordsRequest, DeleteRecordsResponse, FetchRequest, FetchResponse,
        FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse,
        ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse,
    },
    record::BatchHeader,
    wire::Uuid,
};

use super::{request::decode, state::Cluster};

/// A summary of a request.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// The partitions that it names.
    pub(super) partitions: Vec<(String, i32)>,
    pub(super) text: String,
}

impl Cluster {
    /// Summarizes a request; empty if it cannot be decoded.
    pub(super) fn summary(&self, api: ApiKey, version: i16, body: &Bytes) -> Summary {
        match api {
            ApiKey::PRODUCE => self.summarize_as::<ProduceRequest>(version, body, Self::summarize_produce),
            ApiKey::FETCH => self.summarize_as::<FetchRequest>(version, body, Self::summarize_fetch),
            ApiKey::LIST_OFFSETS => {
                self.summarize_as::<ListOffsetsRequest>(version, body, Self::summarize_offsets)
            }
            ApiKey::OFFSET_FOR_LEADER_EPOCH => {
                self.summarize_as::<OffsetForLeaderEpochRequest>(version, body, Self::summarize_epochs)
            }
            ApiKey::DELETE_RECORDS => {
                self.summarize_as::<DeleteRecordsRequest>(version, body, Self::summarize_deletion)
            }
            ApiKey::METADATA => self.summarize_as::<MetadataRequest>(version, body, |_, request, summary| {
                let named = request.topics.as_deref().unwrap_or_default().iter();
                let names: Vec<_> = named.map(|topic| topic.name.as_deref().unwrap_or("by id")).collect();
                summary.text = names.join(" ");
            }),
            ApiKey::INIT_PRODUCER_ID => {
                self.summarize_as::<InitProducerIdRequest>(version, body, |_, request, summary| {
                    let name = request.transactional_id.as_deref().unwrap_or("no name");
                    summary.text = format!("{name} {}/{}", request.producer_id, request.producer_epoch);
                })
            }
            ApiKey::FIND_COORDINATOR => {
                self.summarize_as::<FindCoordinatorRequest>(version, body, |_, request, summary| {
                    summary.text = format!("{}{}", request.key, request.coordinator_keys.join(" "));
                })
            }
            _ => Summary::default(),
        }
    }

    fn summarize_as<R: Request>(
        &self,
        version: i16,
        body: &Bytes,
        write: impl FnOnce(&Self, &R, &mut Summary),
    ) -> Summary {
        let mut summary = Summary::default();
        if let Ok(format) = R::version(version)
            && let Ok(request) = decode::<R>(body, format)
        {
            write(self, &request, &mut summary);
        }
        summary
    }

    fn summarize_produce(&self, request: &ProduceRequest, summary: &mut Summary) {
        let _ = write!(summary.text, "acks={}", request.acks);
        for topic in &request.topic_data {
            for data in &topic.partition_data {
                let name = self.name_of(&topic.name, topic.topic_id);
                let _ = write!(summary.text, " {name}-{}", data.index);
                summary.partitions.push((name, data.index));
                let records = data.records.clone().unwrap_or_default().into_bytes();
                if let Ok(header) = BatchHeader::parse(&records) {
                    let BatchHeader { producer_id, producer_epoch, base_sequence, count, .. } = header;
                    let _ = write!(summary.text, " {producer_id}/{producer_epoch}:{base_sequence}x{count}");
                }
            }
        }
    }

    fn summarize_fetch(&self, request: &FetchRequest, summary: &mut Summary) {
        for topic in &request.topics {
            for requested in &topic.partitions {
                let name = self.name_of(&topic.topic, topic.topic_id);
                let _ = write!(summary.text, "{name}-{} @{} ", requested.partition, requested.fetch_offset);
                summary.partitions.push((name, requested.partition));
            }
        }
        let _ = write!(summary.text, "{} bytes in {} ms", request.min_bytes, request.max_wait_ms);
    }

    fn summarize_offsets(&self, request: &ListOffsetsRequest, summary: &mut Summary) {
        for topic in &request.topics {
            for requested in &topic.partitions {
                summary.names(&topic.name, requested.partition_index, requested.timestamp);
            }
        }
    }

    fn summarize_epochs(&self, request: &OffsetForLeaderEpochRequest, summary: &mut Summary) {
        for topic in &request.topics {
            for requested in &topic.partitions {
                summary.names(&topic.topic, requested.partition, requested.leader_epoch.into());
            }
        }
    }

    fn summarize_deletion(&self, request: &DeleteRecordsRequest, summary: &mut Summary) {
        for topic in &request.topics {
            for requested in &topic.partitions {
                summary.names(&topic.name, requested.partition_index, requested.offset);
            }
        }
    }

    fn name_of(&self, name: &str, id: Uuid) -> String {
        match id.is_zero() {
            true => name.to_owned(),
            false => self.names.get(&id).cloned().unwrap_or_else(|| id.to_string()),
        }
    }
}

impl Summary {
    fn names(&mut self, topic: &str, partition: i32, number: i64) {
        let gap = if self.text.is_empty() { "" } else { " " };
        let _ = write!(self.text, "{gap}{topic}-{partition} {number}");
        self.partitions.push((topic.to_owned(), partition));
    }
}

/// Summarizes a response, empty for most APIs. Topics are in the order of the request.
pub(super) fn summarize_response(response: &dyn Any) -> String {
    let mut text = Vec::new();
    if let Some(response) = response.downcast_ref::<ProduceResponse>() {
        for partition in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
            text.push(match partition.error_code {
                ErrorCode::NONE => format!("@{}", partition.base_offset),
                code => format!("{code:?}"),
            });
        }
        throttle(response.throttle_time_ms, &mut text);
    } else if let Some(response) = response.downcast_ref::<FetchResponse>() {
        for partition in response.responses.iter().flat_map(|topic| &topic.partitions) {
            let bytes = partition.records.as_ref().map_or(0, Bytes::len);
            text.push(match partition.error_code {
                ErrorCode::NONE if partition.diverging_epoch.end_offset >= 0 => {
                    format!("diverged at {}", partition.diverging_epoch.end_offset)
                }
                ErrorCode::NONE => format!("{bytes} bytes, high watermark {}", partition.high_watermark),
                code => format!("{code:?}"),
            });
        }
        throttle(response.throttle_time_ms, &mut text);
    } else if let Some(response) = response.downcast_ref::<ListOffsetsResponse>() {
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            text.push(coded(partition.error_code, partition.offset));
        }
    } else if let Some(response) = response.downcast_ref::<OffsetForLeaderEpochResponse>() {
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            text.push(coded(partition.error_code, partition.end_offset));
        }
    } else if let Some(response) = response.downcast_ref::<DeleteRecordsResponse>() {
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            text.push(coded(partition.error_code, partition.low_watermark));
        }
    } else if let Some(response) = response.downcast_ref::<MetadataResponse>() {
        let brokers: Vec<_> = response.brokers.iter().map(|broker| broker.node_id.to_string()).collect();
        text.push(format!("brokers {}", brokers.join(" ")));
        for topic in &response.topics {
            let name = topic.name.as_deref().unwrap_or("by id");
            if topic.error_code.is_error() {
                text.push(format!("{name} {:?}", topic.error_code));
            }
            for found in &topic.partitions {
                let (leader, epoch) = (found.leader_id, found.leader_epoch);
                text.push(format!("{name}-{} led by {leader} in epoch {epoch}", found.partition_index));
            }
        }
    } else if let Some(response) = response.downcast_ref::<InitProducerIdResponse>() {
        text.push(match response.error_code {
            ErrorCode::NONE => format!("{}/{}", response.producer_id, response.producer_epoch),
            code => format!("{code:?}"),
        });
    } else if let Some(response) = response.downcast_ref::<FindCoordinatorResponse>() {
        for found in &response.coordinators {
            text.push(coded(found.error_code, found.node_id.into()));
        }
        if response.coordinators.is_empty() {
            text.push(coded(response.error_code, response.node_id.into()));
        }
    } else if let Some(response) = response.downcast_ref::<ApiVersionsResponse>() {
        text.push(format!("{:?}", response.error_code));
    }
    text.join(", ")
}

fn coded(code: ErrorCode, number: i64) -> String {
    match code {
        ErrorCode::NONE => number.to_string(),
        code => format!("{code:?}"),
    }
}

fn throttle(millis: i32, text: &mut Vec<String>) {
    if millis > 0 {
        text.push(format!("throttled for {millis} ms"));
    }
}
