//! CreatePartitions: gives topics more partitions (KIP-195).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Gives topics more partitions (`CreatePartitionsRequest.json`).
    pub struct CreatePartitionsRequest {
        /// The topics.
        0+ topics: Vec<CreatePartitionsTopic>,
        /// How long the broker waits until the partitions are there, in milliseconds.
        0+ timeout_ms: i32,
        /// Whether only to check that it could be done.
        0+ validate_only: bool,
    }

    /// A topic that is to have more partitions.
    pub struct CreatePartitionsTopic {
        /// The name of the topic.
        0+ name: String,
        /// How many partitions it is to have.
        0+ count: i32,
        /// Who holds the new partitions; null to let the controller decide.
        0+ assignments: Option<Vec<CreatePartitionsAssignment>> [nullable 0+] = Some(Vec::new()),
    }

    /// The brokers that hold a new partition.
    pub struct CreatePartitionsAssignment {
        /// The brokers; the first one is the preferred leader.
        0+ broker_ids: Vec<i32>,
    }

    /// What became of each topic (`CreatePartitionsResponse.json`).
    pub struct CreatePartitionsResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        0+ throttle_time_ms: i32,
        /// What became of the topics.
        0+ results: Vec<CreatePartitionsTopicResult>,
    }

    /// What became of one topic.
    pub struct CreatePartitionsTopicResult {
        /// The name of the topic.
        0+ name: String,
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// What went wrong, in the broker's words.
        0+ error_message: Option<String> [nullable 0+] = None,
    }
}
