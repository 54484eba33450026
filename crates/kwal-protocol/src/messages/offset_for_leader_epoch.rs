//! OffsetForLeaderEpoch: where the records of a leader epoch end, to find out whether a log has parted from what
//! one has read of it (KIP-101, KIP-320).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Asks where leader epochs end (`OffsetForLeaderEpochRequest.json`).
    pub struct OffsetForLeaderEpochRequest {
        /// The follower that asks; −1 for a client, −2 for somebody who only looks.
        3+ replica_id: i32 [ignorable] = -2,
        /// What to look up, by topic.
        0+ topics: Vec<OffsetForLeaderTopic>,
    }

    /// What to look up in one topic.
    pub struct OffsetForLeaderTopic {
        /// The name of the topic.
        0+ topic: String,
        /// The partitions.
        0+ partitions: Vec<OffsetForLeaderPartition>,
    }

    /// What to look up in one partition.
    pub struct OffsetForLeaderPartition {
        /// The partition.
        0+ partition: i32,
        /// The leader epoch that the asker knows, −1 if none: an older or newer leader refuses (KIP-320).
        2+ current_leader_epoch: i32 [ignorable] = -1,
        /// The epoch to look up.
        0+ leader_epoch: i32,
    }

    /// Where they end (`OffsetForLeaderEpochResponse.json`).
    pub struct OffsetForLeaderEpochResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        2+ throttle_time_ms: i32 [ignorable],
        /// What was found, by topic.
        0+ topics: Vec<OffsetForLeaderTopicResult>,
    }

    /// What was found in one topic.
    pub struct OffsetForLeaderTopicResult {
        /// The name of the topic.
        0+ topic: String,
        /// The partitions.
        0+ partitions: Vec<EpochEndOffset>,
    }

    /// Where the epoch ends in one partition.
    pub struct EpochEndOffset {
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// The partition.
        0+ partition: i32,
        /// The largest epoch that is not above the one asked for; −1 if there is none.
        1+ leader_epoch: i32 [ignorable] = -1,
        /// The offset behind the last record of that epoch; −1 if not known.
        0+ end_offset: i64 = -1,
    }
}
