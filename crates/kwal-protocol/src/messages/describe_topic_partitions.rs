//! DescribeTopicPartitions: describes topics, paginated, with eligible leader replicas (KIP-966).

use crate::{error_code::ErrorCode, macros::message, wire::Uuid};

message! {
    /// Requests topics, starting at a cursor (`DescribeTopicPartitionsRequest.json`).
    pub struct DescribeTopicPartitionsRequest {
        /// The requested topics; empty for all.
        0+ topics: Vec<DescribeTopicPartitionsTopic>,
        /// The maximum number of partitions in the page.
        0+ response_partition_limit: i32 = 2000,
        /// The start of the page; null for the first one.
        0+ cursor: Option<Cursor> [nullable 0+] = None,
    }

    /// A requested topic.
    pub struct DescribeTopicPartitionsTopic {
        /// The name of the topic.
        0+ name: String,
    }

    /// A position between two pages.
    pub struct Cursor {
        /// The name of the topic.
        0+ topic_name: String,
        /// The partition.
        0+ partition_index: i32,
    }

    /// A page of topics (`DescribeTopicPartitionsResponse.json`).
    pub struct DescribeTopicPartitionsResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        0+ throttle_time_ms: i32 [ignorable],
        /// The topics of the page.
        0+ topics: Vec<DescribeTopicPartitionsTopicResult>,
        /// The start of the next page; null on the last one.
        0+ next_cursor: Option<Cursor> [nullable 0+] = None,
    }

    /// A topic.
    pub struct DescribeTopicPartitionsTopicResult {
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The name of the topic; null if the client is not authorized to see it.
        0+ name: Option<String> [nullable 0+] = Some(String::new()),
        /// The id of the topic (KIP-516).
        0+ topic_id: Uuid [ignorable],
        /// Whether the topic is internal.
        0+ is_internal: bool [ignorable],
        /// The partitions of the topic.
        0+ partitions: Vec<DescribeTopicPartitionsPartition>,
        /// The authorized operations on the topic, one bit each (KIP-430); `i32::MIN` if not requested.
        0+ topic_authorized_operations: i32 = i32::MIN,
    }

    /// A partition.
    pub struct DescribeTopicPartitionsPartition {
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The partition.
        0+ partition_index: i32,
        /// The leader; −1 if the partition has no leader, or it is unknown.
        0+ leader_id: i32,
        /// The leader epoch; −1 if unknown.
        0+ leader_epoch: i32 [ignorable] = -1,
        /// The replicas.
        0+ replica_nodes: Vec<i32>,
        /// The replicas that are in sync.
        0+ isr_nodes: Vec<i32>,
        /// The eligible leader replicas, which are not in sync; null if unknown (KIP-966).
        0+ eligible_leader_replicas: Option<Vec<i32>> [nullable 0+] = None,
        /// The last known eligible leader replicas; null if unknown (KIP-966).
        0+ last_known_elr: Option<Vec<i32>> [nullable 0+] = None,
        /// The replicas that are offline.
        0+ offline_replicas: Vec<i32> [ignorable],
    }
}
