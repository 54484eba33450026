//! ListOffsets: looks offsets up by timestamp, or the ends of the log. KIP-207 has the leader withhold an answer
//! until its high watermark is right.

use super::isolation_level::IsolationLevel;
use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Asks a leader for the offset that belongs to a timestamp (`ListOffsetsRequest.json`).
    pub struct ListOffsetsRequest {
        /// The follower that asks; −1 for a client.
        0+ replica_id: i32,
        /// Whether records of open and aborted transactions are seen (KIP-98).
        2+ isolation_level: IsolationLevel,
        /// What to look up, by topic.
        0+ topics: Vec<ListOffsetsTopic>,
        /// How long the broker may look in remote storage, in milliseconds (KIP-1075).
        10+ timeout_ms: i32 [ignorable],
    }

    /// What to look up in one topic.
    pub struct ListOffsetsTopic {
        /// The name of the topic.
        0+ name: String,
        /// The partitions.
        0+ partitions: Vec<ListOffsetsPartition>,
    }

    /// What to look up in one partition.
    pub struct ListOffsetsPartition {
        /// The partition.
        0+ partition_index: i32,
        /// The leader epoch that the asker knows, −1 if none: an older or newer leader refuses (KIP-320).
        4+ current_leader_epoch: i32 [ignorable] = -1,
        /// A time in milliseconds since the epoch, or −1 the end of the log, −2 its start, −3 the record
        /// with the largest timestamp, −4 the start of what is local, −5 the end of what is in remote
        /// storage, −6 the start of what is still to be moved there.
        0+ timestamp: i64,
        /// How many offsets to answer at the most.
        0-0 max_num_offsets: i32 = 1,
    }

    /// The offsets found (`ListOffsetsResponse.json`).
    pub struct ListOffsetsResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        2+ throttle_time_ms: i32 [ignorable],
        /// What was found, by topic.
        0+ topics: Vec<ListOffsetsTopicResponse>,
    }

    /// What was found in one topic.
    pub struct ListOffsetsTopicResponse {
        /// The name of the topic.
        0+ name: String,
        /// The partitions.
        0+ partitions: Vec<ListOffsetsPartitionResponse>,
    }

    /// What was found in one partition.
    pub struct ListOffsetsPartitionResponse {
        /// The partition.
        0+ partition_index: i32,
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// The offsets found.
        0-0 old_style_offsets: Vec<i64>,
        /// The timestamp of the record found; −1 if none or not known.
        1+ timestamp: i64 = -1,
        /// The offset found; −1 if none.
        1+ offset: i64 = -1,
        /// The leader epoch of the record found; −1 if not known.
        4+ leader_epoch: i32 = -1,
    }
}
