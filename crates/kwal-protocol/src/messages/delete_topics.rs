//! DeleteTopics: deletes topics, by name or, from version 6 on, by id.

use crate::{error_code::ErrorCode, macros::message, wire::Uuid};

message! {
    /// Deletes topics (`DeleteTopicsRequest.json`).
    pub struct DeleteTopicsRequest {
        /// The topics to delete.
        6+ topics: Vec<DeleteTopic>,
        /// The names of the topics to delete.
        0-5 topic_names: Vec<String> [ignorable],
        /// How long the broker waits for the topics to be deleted, in milliseconds.
        0+ timeout_ms: i32,
    }

    /// A topic to delete, by name or by id.
    pub struct DeleteTopic {
        /// The name of the topic; null if the id is given.
        6+ name: Option<String> [nullable 6+] = None,
        /// The id of the topic; zero if the name is given.
        6+ topic_id: Uuid,
    }

    /// The results (`DeleteTopicsResponse.json`).
    pub struct DeleteTopicsResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        1+ throttle_time_ms: i32 [ignorable],
        /// The results by topic.
        0+ responses: Vec<DeleteTopicResult>,
    }

    /// The result of one topic.
    pub struct DeleteTopicResult {
        /// The name of the topic; null for an unknown id.
        0+ name: Option<String> [nullable 6+] = Some(String::new()),
        /// The id of the topic (KIP-516).
        6+ topic_id: Uuid [ignorable],
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The error message of the broker.
        5+ error_message: Option<String> [nullable 5+, ignorable] = None,
    }
}
