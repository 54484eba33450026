//! CreateTopics: makes topics. Only the controller does; a broker of a KRaft cluster passes the request on.

use crate::{error_code::ErrorCode, macros::message, wire::Uuid};

message! {
    /// Makes topics (`CreateTopicsRequest.json`).
    pub struct CreateTopicsRequest {
        /// The topics to make.
        0+ topics: Vec<CreatableTopic>,
        /// How long the broker waits until the topics are there, in milliseconds.
        0+ timeout_ms: i32 = 60000,
        /// Whether only to check that the topics could be made.
        1+ validate_only: bool,
    }

    /// A topic to make.
    pub struct CreatableTopic {
        /// The name of the topic.
        0+ name: String,
        /// How many partitions; −1 for the broker's default, or where assignments are given.
        0+ num_partitions: i32,
        /// How many replicas of each partition; −1 for the broker's default, or where assignments are
        /// given.
        0+ replication_factor: i16,
        /// Who holds which partition; empty to let the controller decide.
        0+ assignments: Vec<CreatableAssignment>,
        /// The settings that are not to be the default.
        0+ configs: Vec<CreatableConfig>,
    }

    /// The brokers that hold a partition.
    pub struct CreatableAssignment {
        /// The partition.
        0+ partition_index: i32,
        /// The brokers; the first one is the preferred leader.
        0+ broker_ids: Vec<i32>,
    }

    /// A setting of the new topic.
    pub struct CreatableConfig {
        /// The name of the setting.
        0+ name: String,
        /// Its value; null where the broker keeps it secret or there is none.
        0+ value: Option<String> [nullable 0+] = Some(String::new()),
    }

    /// What became of each topic (`CreateTopicsResponse.json`).
    pub struct CreateTopicsResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        2+ throttle_time_ms: i32 [ignorable],
        /// What became of the topics.
        0+ topics: Vec<CreateTopicsResult>,
    }

    /// What became of one topic.
    pub struct CreateTopicsResult {
        /// The name of the topic.
        0+ name: String,
        /// The id of the topic (KIP-516).
        7+ topic_id: Uuid [ignorable],
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// What went wrong, in the broker's words.
        1+ error_message: Option<String> [nullable 0+, ignorable] = Some(String::new()),
        /// How many partitions; −1 for the broker's default, or where assignments are given.
        5+ num_partitions: i32 [ignorable] = -1,
        /// How many replicas of each partition; −1 for the broker's default, or where assignments are
        /// given.
        5+ replication_factor: i16 [ignorable] = -1,
        /// The settings of the topic; null if the client may not see them.
        5+ configs: Option<Vec<CreatedConfig>> [nullable 5+, ignorable] = Some(Vec::new()),
        /// Why the settings are not told, or `NONE`.
        5+ topic_config_error_code: ErrorCode [tag 0, ignorable],
    }

    /// A setting of the topic as it is now.
    pub struct CreatedConfig {
        /// The name of the setting.
        5+ name: String,
        /// Its value; null where the broker keeps it secret or there is none.
        5+ value: Option<String> [nullable 5+] = Some(String::new()),
        /// Whether it cannot be changed.
        5+ read_only: bool,
        /// Where it comes from: 1 the topic, 2 and 4 a broker, 3 the cluster, 5 a default; −1 if not known.
        5+ config_source: i8 [ignorable] = -1,
        /// Whether it is kept secret.
        5+ is_sensitive: bool,
    }
}
