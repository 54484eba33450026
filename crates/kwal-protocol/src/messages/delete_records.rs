//! DeleteRecords: cuts the beginning off logs (KIP-107).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Cuts the beginning off logs (`DeleteRecordsRequest.json`).
    pub struct DeleteRecordsRequest {
        /// What to delete, by topic.
        0+ topics: Vec<DeleteRecordsTopic>,
        /// How long the broker waits for the replicas, in milliseconds.
        0+ timeout_ms: i32,
    }

    /// What to delete in one topic.
    pub struct DeleteRecordsTopic {
        /// The name of the topic.
        0+ name: String,
        /// The partitions.
        0+ partitions: Vec<DeleteRecordsPartition>,
    }

    /// What to delete in one partition.
    pub struct DeleteRecordsPartition {
        /// The partition.
        0+ partition_index: i32,
        /// The first offset to keep; −1 deletes up to the high watermark.
        0+ offset: i64,
    }

    /// Where the logs start now (`DeleteRecordsResponse.json`).
    pub struct DeleteRecordsResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        0+ throttle_time_ms: i32,
        /// What became of the topics.
        0+ topics: Vec<DeleteRecordsTopicResult>,
    }

    /// What became of one topic.
    pub struct DeleteRecordsTopicResult {
        /// The name of the topic.
        0+ name: String,
        /// The partitions.
        0+ partitions: Vec<DeleteRecordsPartitionResult>,
    }

    /// What became of one partition.
    pub struct DeleteRecordsPartitionResult {
        /// The partition.
        0+ partition_index: i32,
        /// Where the log starts now; −1 on an error.
        0+ low_watermark: i64,
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
    }
}
