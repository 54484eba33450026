//! DescribeProducers: which producer ids a partition knows, and where they stand (KIP-664).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Asks leaders for the producers of partitions (`DescribeProducersRequest.json`).
    pub struct DescribeProducersRequest {
        /// The partitions asked for, by topic.
        0+ topics: Vec<DescribeProducersTopic>,
    }

    /// The partitions of a topic that are asked for.
    pub struct DescribeProducersTopic {
        /// The name of the topic.
        0+ name: String,
        /// The partitions.
        0+ partition_indexes: Vec<i32>,
    }

    /// The producers of each partition (`DescribeProducersResponse.json`).
    pub struct DescribeProducersResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        0+ throttle_time_ms: i32,
        /// The producers, by topic.
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
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// What went wrong, in the broker's words.
        0+ error_message: Option<String> [nullable 0+] = None,
        /// The producers that the partition knows.
        0+ active_producers: Vec<ProducerDescription>,
    }

    /// A producer id and where it stands.
    pub struct ProducerDescription {
        /// The producer id.
        0+ producer_id: i64,
        /// Its epoch.
        0+ producer_epoch: i32,
        /// The sequence number of its last record; −1 if there is none.
        0+ last_sequence: i32 = -1,
        /// The timestamp of its last batch; −1 if there is none.
        0+ last_timestamp: i64 = -1,
        /// The epoch of the coordinator that wrote its last marker.
        0+ coordinator_epoch: i32,
        /// Where its open transaction begins; −1 if there is none.
        0+ current_txn_start_offset: i64 = -1,
    }
}
