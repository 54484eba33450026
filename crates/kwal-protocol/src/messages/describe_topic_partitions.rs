//! DescribeTopicPartitions: topics page by page, with their eligible leader replicas (KIP-966).

use crate::{error_code::ErrorCode, macros::message, wire::Uuid};

message! {
    /// Asks for topics, from a cursor on (`DescribeTopicPartitionsRequest.json`).
    pub struct DescribeTopicPartitionsRequest {
        /// The topics asked for; empty for all.
        0+ topics: Vec<DescribeTopicPartitionsTopic>,
        /// How many partitions the page should have at the most.
        0+ response_partition_limit: i32 = 2000,
        /// Where to go on; null to begin.
        0+ cursor: Option<Cursor> [nullable 0+] = None,
    }

    /// A topic asked for.
    pub struct DescribeTopicPartitionsTopic {
        /// The name of the topic.
        0+ name: String,
    }

    /// A place between two pages.
    pub struct Cursor {
        /// The name of the topic.
        0+ topic_name: String,
        /// The partition.
        0+ partition_index: i32,
    }

    /// A page of topics (`DescribeTopicPartitionsResponse.json`).
    pub struct DescribeTopicPartitionsResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        0+ throttle_time_ms: i32 [ignorable],
        /// The topics of the page.
        0+ topics: Vec<DescribeTopicPartitionsTopicResult>,
        /// Where the next page begins; null on the last one.
        0+ next_cursor: Option<Cursor> [nullable 0+] = None,
    }

    /// A topic as the broker knows it.
    pub struct DescribeTopicPartitionsTopicResult {
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// The name of the topic; null where the broker does not tell.
        0+ name: Option<String> [nullable 0+] = Some(String::new()),
        /// The id of the topic (KIP-516).
        0+ topic_id: Uuid [ignorable],
        /// Whether the topic belongs to Kafka itself.
        0+ is_internal: bool [ignorable],
        /// The partitions of the topic.
        0+ partitions: Vec<DescribeTopicPartitionsPartition>,
        /// What the client may do with the topic, a bit an operation (KIP-430); `i32::MIN` if not asked
        /// for.
        0+ topic_authorized_operations: i32 = i32::MIN,
    }

    /// A partition as the broker knows it.
    pub struct DescribeTopicPartitionsPartition {
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// The partition.
        0+ partition_index: i32,
        /// The leader; −1 if there is none or it is not known.
        0+ leader_id: i32,
        /// The epoch of the leader; −1 if not known.
        0+ leader_epoch: i32 [ignorable] = -1,
        /// The brokers that hold the partition.
        0+ replica_nodes: Vec<i32>,
        /// Those of them that are in sync.
        0+ isr_nodes: Vec<i32>,
        /// The brokers that may be elected though they are not in sync; null if not known (KIP-966).
        0+ eligible_leader_replicas: Option<Vec<i32>> [nullable 0+] = None,
        /// The last ones that were known to be; null if not known (KIP-966).
        0+ last_known_elr: Option<Vec<i32>> [nullable 0+] = None,
        /// Those of them that are offline.
        0+ offline_replicas: Vec<i32> [ignorable],
    }
}
