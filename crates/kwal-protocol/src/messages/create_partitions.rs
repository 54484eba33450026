//! CreatePartitions: creates more partitions of topics (KIP-195).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Creates more partitions of topics (`CreatePartitionsRequest.json`).
    pub struct CreatePartitionsRequest {
        /// The topics.
        0+ topics: Vec<CreatePartitionsTopic>,
        /// How long the broker waits for the partitions to be created, in milliseconds.
        0+ timeout_ms: i32,
        /// Whether the request is only validated.
        0+ validate_only: bool,
    }

    /// A topic to which partitions are added.
    pub struct CreatePartitionsTopic {
        /// The name of the topic.
        0+ name: String,
        /// The new number of partitions.
        0+ count: i32,
        /// The replicas of the new partitions; null if the controller assigns them.
        0+ assignments: Option<Vec<CreatePartitionsAssignment>> [nullable 0+] = Some(Vec::new()),
    }

    /// The replicas of a new partition.
    pub struct CreatePartitionsAssignment {
        /// The brokers; the first is the preferred leader.
        0+ broker_ids: Vec<i32>,
    }

    /// The results (`CreatePartitionsResponse.json`).
    pub struct CreatePartitionsResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        0+ throttle_time_ms: i32,
        /// The results by topic.
        0+ results: Vec<CreatePartitionsTopicResult>,
    }

    /// The result of one topic.
    pub struct CreatePartitionsTopicResult {
        /// The name of the topic.
        0+ name: String,
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The error message of the broker.
        0+ error_message: Option<String> [nullable 0+] = None,
    }
}
