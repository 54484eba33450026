//! DescribeLogDirs: what lies in the log directories of a broker (KIP-113).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Asks a broker what lies in its log directories (`DescribeLogDirsRequest.json`).
    pub struct DescribeLogDirsRequest {
        /// The topics asked for; null for all.
        0+ topics: Option<Vec<DescribableLogDirTopic>> [nullable 0+] = Some(Vec::new()),
    }

    /// The partitions of a topic that are asked for.
    pub struct DescribableLogDirTopic {
        /// The name of the topic.
        0+ topic: String,
        /// The partitions.
        0+ partitions: Vec<i32>,
    }

    /// What lies there (`DescribeLogDirsResponse.json`).
    pub struct DescribeLogDirsResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        0+ throttle_time_ms: i32,
        /// What went wrong, or `NONE`.
        3+ error_code: ErrorCode [ignorable],
        /// The log directories.
        0+ results: Vec<DescribeLogDirsResult>,
    }

    /// A log directory.
    pub struct DescribeLogDirsResult {
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// The path of the directory.
        0+ log_dir: String,
        /// What lies there, by topic.
        0+ topics: Vec<LogDirTopic>,
        /// The size of the volume in bytes; −1 if not known (KIP-827).
        4+ total_bytes: i64 [ignorable] = -1,
        /// How much of it can be used; −1 if not known (KIP-827).
        4+ usable_bytes: i64 [ignorable] = -1,
        /// Whether no new partitions are put there (KIP-1066).
        5+ is_cordoned: bool [ignorable],
    }

    /// What lies there of one topic.
    pub struct LogDirTopic {
        /// The name of the topic.
        0+ name: String,
        /// The partitions.
        0+ partitions: Vec<LogDirPartition>,
    }

    /// What lies there of one partition.
    pub struct LogDirPartition {
        /// The partition.
        0+ partition_index: i32,
        /// How many bytes its segments have.
        0+ partition_size: i64,
        /// How far the replica is behind the high watermark, or a replica to come behind the one that it
        /// replaces.
        0+ offset_lag: i64,
        /// Whether it is a replica to come, which is being moved here.
        0+ is_future_key: bool,
    }
}
