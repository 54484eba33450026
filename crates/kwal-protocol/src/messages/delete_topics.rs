//! DeleteTopics: deletes topics, by name or, from version 6 on, by id.

use crate::{error_code::ErrorCode, macros::message, wire::Uuid};

message! {
    /// Deletes topics (`DeleteTopicsRequest.json`).
    pub struct DeleteTopicsRequest {
        /// The topics to delete.
        6+ topics: Vec<DeleteTopic>,
        /// The names of the topics to delete.
        0-5 topic_names: Vec<String> [ignorable],
        /// How long the broker waits until the topics are gone, in milliseconds.
        0+ timeout_ms: i32,
    }

    /// A topic to delete, by name or by id.
    pub struct DeleteTopic {
        /// The name of the topic; null where the id counts.
        6+ name: Option<String> [nullable 6+] = None,
        /// The id of the topic; zero where the name counts.
        6+ topic_id: Uuid,
    }

    /// What became of each topic (`DeleteTopicsResponse.json`).
    pub struct DeleteTopicsResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        1+ throttle_time_ms: i32 [ignorable],
        /// What became of the topics.
        0+ responses: Vec<DeleteTopicResult>,
    }

    /// What became of one topic.
    pub struct DeleteTopicResult {
        /// The name of the topic; null where an unknown id was given.
        0+ name: Option<String> [nullable 6+] = Some(String::new()),
        /// The id of the topic (KIP-516).
        6+ topic_id: Uuid [ignorable],
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// What went wrong, in the broker's words.
        5+ error_message: Option<String> [nullable 5+, ignorable] = None,
    }
}
