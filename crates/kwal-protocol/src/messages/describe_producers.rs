//! DescribeProducers: describes the active producers of partitions and their state (KIP-664).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Requests the producers of partitions from their leader (`DescribeProducersRequest.json`).
    pub struct DescribeProducersRequest {
        /// The requested partitions by topic.
        0+ topics: Vec<DescribeProducersTopic>,
    }

    /// The requested partitions of a topic.
    pub struct DescribeProducersTopic {
        /// The name of the topic.
        0+ name: String,
        /// The partitions.
        0+ partition_indexes: Vec<i32>,
    }

    /// The producers (`DescribeProducersResponse.json`).
    pub struct DescribeProducersResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        0+ throttle_time_ms: i32,
        /// The producers by topic.
        0+ topics: Vec<DescribeProducersTopicResult>,
    }

    /// The producers of one topic.
    pub struct DescribeProducersTopicResult {
        /// The name of the topic.
        0+ name: String,
        /// The partitions.
        0+ partitions: Vec<DescribeProducersPartitionResult>,
    }

    /// The producers of one partition.
    pub struct DescribeProducersPartitionResult {
        /// The partition.
        0+ partition_index: i32,
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The error message of the broker.
        0+ error_message: Option<String> [nullable 0+] = None,
        /// The active producers.
        0+ active_producers: Vec<ProducerDescription>,
    }

    /// A producer id and its state.
    pub struct ProducerDescription {
        /// The producer id.
        0+ producer_id: i64,
        /// The producer epoch.
        0+ producer_epoch: i32,
        /// The sequence number of its last record; −1 if it has no record.
        0+ last_sequence: i32 = -1,
        /// The timestamp of its last batch; −1 if it has no batch.
        0+ last_timestamp: i64 = -1,
        /// The epoch of the coordinator that wrote its last marker.
        0+ coordinator_epoch: i32,
        /// The first offset of its open transaction; −1 if no transaction is open.
        0+ current_txn_start_offset: i64 = -1,
    }
}
