//! OffsetForLeaderEpoch: finds the end offsets of leader epochs (KIP-101, KIP-320).
//!
//! Clients detect with it that the log has diverged from the records they have read.

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Requests the end offsets of leader epochs (`OffsetForLeaderEpochRequest.json`).
    pub struct OffsetForLeaderEpochRequest {
        /// The id of the follower; −1 for a client, −2 for a debugging client.
        3+ replica_id: i32 [ignorable] = -2,
        /// The queries by topic.
        0+ topics: Vec<OffsetForLeaderTopic>,
    }

    /// The queries of one topic.
    pub struct OffsetForLeaderTopic {
        /// The name of the topic.
        0+ topic: String,
        /// The partitions.
        0+ partitions: Vec<OffsetForLeaderPartition>,
    }

    /// The query of one partition.
    pub struct OffsetForLeaderPartition {
        /// The partition.
        0+ partition: i32,
        /// The leader epoch known to the client; −1 if unknown.
        ///
        /// A leader of another epoch rejects it (KIP-320).
        2+ current_leader_epoch: i32 [ignorable] = -1,
        /// The requested epoch.
        0+ leader_epoch: i32,
    }

    /// The end offsets (`OffsetForLeaderEpochResponse.json`).
    pub struct OffsetForLeaderEpochResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        2+ throttle_time_ms: i32 [ignorable],
        /// The results by topic.
        0+ topics: Vec<OffsetForLeaderTopicResult>,
    }

    /// The results of one topic.
    pub struct OffsetForLeaderTopicResult {
        /// The name of the topic.
        0+ topic: String,
        /// The partitions.
        0+ partitions: Vec<EpochEndOffset>,
    }

    /// The end offset in one partition.
    pub struct EpochEndOffset {
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The partition.
        0+ partition: i32,
        /// The largest epoch that is not above the requested one; −1 if there is no such epoch.
        1+ leader_epoch: i32 [ignorable] = -1,
        /// The offset after the last record of that epoch; −1 if unknown.
        0+ end_offset: i64 = -1,
    }
}
