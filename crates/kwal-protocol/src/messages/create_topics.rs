//! CreateTopics: creates topics, on the controller. A broker of a KRaft cluster forwards the request.

use crate::{error_code::ErrorCode, macros::message, wire::Uuid};

message! {
    /// Creates topics (`CreateTopicsRequest.json`).
    pub struct CreateTopicsRequest {
        /// The topics to create.
        0+ topics: Vec<CreatableTopic>,
        /// How long the broker waits for the topics to be created, in milliseconds.
        0+ timeout_ms: i32 = 60000,
        /// Whether the request is only validated.
        1+ validate_only: bool,
    }

    /// A topic to create.
    pub struct CreatableTopic {
        /// The name of the topic.
        0+ name: String,
        /// The number of partitions; −1 for the broker's default, or with assignments.
        0+ num_partitions: i32,
        /// The replication factor; −1 for the broker's default, or with assignments.
        0+ replication_factor: i16,
        /// The replicas of each partition; empty if the controller assigns them.
        0+ assignments: Vec<CreatableAssignment>,
        /// The configs that differ from the defaults.
        0+ configs: Vec<CreatableConfig>,
    }

    /// The replicas of a partition.
    pub struct CreatableAssignment {
        /// The partition.
        0+ partition_index: i32,
        /// The brokers; the first is the preferred leader.
        0+ broker_ids: Vec<i32>,
    }

    /// A config of the new topic.
    pub struct CreatableConfig {
        /// The name of the config.
        0+ name: String,
        /// The value; null if it is sensitive or not set.
        0+ value: Option<String> [nullable 0+] = Some(String::new()),
    }

    /// The results (`CreateTopicsResponse.json`).
    pub struct CreateTopicsResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        2+ throttle_time_ms: i32 [ignorable],
        /// The results by topic.
        0+ topics: Vec<CreateTopicsResult>,
    }

    /// The result of one topic.
    pub struct CreateTopicsResult {
        /// The name of the topic.
        0+ name: String,
        /// The id of the topic (KIP-516).
        7+ topic_id: Uuid [ignorable],
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The error message of the broker.
        1+ error_message: Option<String> [nullable 0+, ignorable] = Some(String::new()),
        /// The number of partitions; −1 for the broker's default, or with assignments.
        5+ num_partitions: i32 [ignorable] = -1,
        /// The replication factor; −1 for the broker's default, or with assignments.
        5+ replication_factor: i16 [ignorable] = -1,
        /// The configs of the topic; null if the client is not authorized to see them.
        5+ configs: Option<Vec<CreatedConfig>> [nullable 5+, ignorable] = Some(Vec::new()),
        /// The reason why the configs are missing, or `NONE`.
        5+ topic_config_error_code: ErrorCode [tag 0, ignorable],
    }

    /// A config of the created topic.
    pub struct CreatedConfig {
        /// The name of the config.
        5+ name: String,
        /// The value; null if it is sensitive or not set.
        5+ value: Option<String> [nullable 5+] = Some(String::new()),
        /// Whether the config is read-only.
        5+ read_only: bool,
        /// The source of the value: 1 topic, 2 and 4 broker, 3 cluster, 5 default; −1 if unknown.
        5+ config_source: i8 [ignorable] = -1,
        /// Whether the config is sensitive.
        5+ is_sensitive: bool,
    }
}
