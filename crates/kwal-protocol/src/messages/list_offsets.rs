//! ListOffsets: lists offsets by timestamp, or the ends of the log.
//!
//! A new leader answers only when its high watermark is up to date (KIP-207).

use super::isolation_level::IsolationLevel;
use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Requests the offset for a timestamp from a leader (`ListOffsetsRequest.json`).
    pub struct ListOffsetsRequest {
        /// The id of the follower; −1 for a client.
        0+ replica_id: i32,
        /// Whether the records of open and aborted transactions are visible (KIP-98).
        2+ isolation_level: IsolationLevel,
        /// The queries by topic.
        0+ topics: Vec<ListOffsetsTopic>,
        /// How long the broker may search remote storage, in milliseconds (KIP-1075).
        10+ timeout_ms: i32 [ignorable],
    }

    /// The queries of one topic.
    pub struct ListOffsetsTopic {
        /// The name of the topic.
        0+ name: String,
        /// The partitions.
        0+ partitions: Vec<ListOffsetsPartition>,
    }

    /// The query of one partition.
    pub struct ListOffsetsPartition {
        /// The partition.
        0+ partition_index: i32,
        /// The leader epoch known to the client; −1 if unknown.
        ///
        /// A leader of another epoch rejects it (KIP-320).
        4+ current_leader_epoch: i32 [ignorable] = -1,
        /// A timestamp in milliseconds since the epoch, or a special value.
        ///
        /// −1 is the end of the log, −2 its start, −3 the record with the largest timestamp, −4 the start of
        /// the local log, −5 the end of remote storage, −6 the earliest offset not yet in remote storage.
        0+ timestamp: i64,
        /// The maximum number of offsets.
        0-0 max_num_offsets: i32 = 1,
    }

    /// The offsets (`ListOffsetsResponse.json`).
    pub struct ListOffsetsResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        2+ throttle_time_ms: i32 [ignorable],
        /// The results by topic.
        0+ topics: Vec<ListOffsetsTopicResponse>,
    }

    /// The results of one topic.
    pub struct ListOffsetsTopicResponse {
        /// The name of the topic.
        0+ name: String,
        /// The partitions.
        0+ partitions: Vec<ListOffsetsPartitionResponse>,
    }

    /// The result of one partition.
    pub struct ListOffsetsPartitionResponse {
        /// The partition.
        0+ partition_index: i32,
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The offsets.
        0-0 old_style_offsets: Vec<i64>,
        /// The timestamp of the record; −1 if no record matches, or it is unknown.
        1+ timestamp: i64 = -1,
        /// The offset; −1 if no record matches.
        1+ offset: i64 = -1,
        /// The leader epoch of the record; −1 if unknown.
        4+ leader_epoch: i32 = -1,
    }
}
