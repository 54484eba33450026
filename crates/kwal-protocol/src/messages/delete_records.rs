//! DeleteRecords: deletes the records before an offset (KIP-107).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Deletes the records before an offset (`DeleteRecordsRequest.json`).
    pub struct DeleteRecordsRequest {
        /// The offsets by topic.
        0+ topics: Vec<DeleteRecordsTopic>,
        /// How long the broker waits for the replicas, in milliseconds.
        0+ timeout_ms: i32,
    }

    /// The offsets of one topic.
    pub struct DeleteRecordsTopic {
        /// The name of the topic.
        0+ name: String,
        /// The partitions.
        0+ partitions: Vec<DeleteRecordsPartition>,
    }

    /// The offset of one partition.
    pub struct DeleteRecordsPartition {
        /// The partition.
        0+ partition_index: i32,
        /// The first offset to keep; −1 for the high watermark.
        0+ offset: i64,
    }

    /// The new log start offsets (`DeleteRecordsResponse.json`).
    pub struct DeleteRecordsResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        0+ throttle_time_ms: i32,
        /// The results by topic.
        0+ topics: Vec<DeleteRecordsTopicResult>,
    }

    /// The result of one topic.
    pub struct DeleteRecordsTopicResult {
        /// The name of the topic.
        0+ name: String,
        /// The partitions.
        0+ partitions: Vec<DeleteRecordsPartitionResult>,
    }

    /// The result of one partition.
    pub struct DeleteRecordsPartitionResult {
        /// The partition.
        0+ partition_index: i32,
        /// The new log start offset; −1 on an error.
        0+ low_watermark: i64,
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
    }
}
