//! DescribeLogDirs: describes the log directories of a broker (KIP-113).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Requests the content of the log directories of a broker (`DescribeLogDirsRequest.json`).
    pub struct DescribeLogDirsRequest {
        /// The requested topics; null for all.
        0+ topics: Option<Vec<DescribableLogDirTopic>> [nullable 0+] = Some(Vec::new()),
    }

    /// The requested partitions of a topic.
    pub struct DescribableLogDirTopic {
        /// The name of the topic.
        0+ topic: String,
        /// The partitions.
        0+ partitions: Vec<i32>,
    }

    /// The log directories (`DescribeLogDirsResponse.json`).
    pub struct DescribeLogDirsResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        0+ throttle_time_ms: i32,
        /// The error code, or `NONE`.
        3+ error_code: ErrorCode [ignorable],
        /// The log directories.
        0+ results: Vec<DescribeLogDirsResult>,
    }

    /// A log directory.
    pub struct DescribeLogDirsResult {
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The path of the directory.
        0+ log_dir: String,
        /// The replicas by topic.
        0+ topics: Vec<LogDirTopic>,
        /// The size of the volume in bytes; −1 if unknown (KIP-827).
        4+ total_bytes: i64 [ignorable] = -1,
        /// The usable space of the volume in bytes; −1 if unknown (KIP-827).
        4+ usable_bytes: i64 [ignorable] = -1,
        /// Whether the directory is cordoned: no new partitions are placed there (KIP-1066).
        5+ is_cordoned: bool [ignorable],
    }

    /// The replicas of one topic.
    pub struct LogDirTopic {
        /// The name of the topic.
        0+ name: String,
        /// The partitions.
        0+ partitions: Vec<LogDirPartition>,
    }

    /// The replica of one partition.
    pub struct LogDirPartition {
        /// The partition.
        0+ partition_index: i32,
        /// The size of its segments in bytes.
        0+ partition_size: i64,
        /// The lag behind the high watermark, or of a future replica behind the current one.
        0+ offset_lag: i64,
        /// Whether this is a future replica, which is being moved to this directory.
        0+ is_future_key: bool,
    }
}
