//! Fetch: reads record batches from a leader, as a long poll if requested.
//!
//! From version 13 on, topics are identified by id instead of name.

use bytes::Bytes;

use super::isolation_level::IsolationLevel;
use crate::{error_code::ErrorCode, macros::message, wire::Uuid};

message! {
    /// Requests batches from a leader, starting at an offset (`FetchRequest.json`).
    pub struct FetchRequest {
        /// The id of the follower; −1 for a client.
        0-14 replica_id: i32 = -1,
        /// How long the broker may wait for `min_bytes`, in milliseconds.
        0+ max_wait_ms: i32,
        /// The minimum size of the response in bytes, for which the broker waits.
        0+ min_bytes: i32,
        /// The maximum size of the response in bytes; a larger first batch is returned all the same (KIP-74).
        3+ max_bytes: i32 [ignorable] = i32::MAX,
        /// Whether the records of open and aborted transactions are visible (KIP-98).
        4+ isolation_level: IsolationLevel [ignorable],
        /// The fetch session; 0 for a fetch without one (KIP-227).
        7+ session_id: i32 [ignorable],
        /// The epoch of the fetch session; −1 for a fetch without one.
        7+ session_epoch: i32 [ignorable] = -1,
        /// The partitions to read, by topic.
        0+ topics: Vec<FetchTopic>,
        /// The partitions to remove from the fetch session (KIP-227).
        7+ forgotten_topics_data: Vec<ForgottenTopic>,
        /// The rack of the client, for fetching from the closest replica (KIP-392).
        11+ rack_id: String [ignorable],
        /// The id of the cluster; null if unknown.
        12+ cluster_id: Option<String> [tag 0, nullable 12+, ignorable] = None,
        /// The follower that sends the request (KIP-903).
        15+ replica_state: ReplicaState [tag 1],
    }

    /// The partitions to read of one topic.
    pub struct FetchTopic {
        /// The name of the topic.
        0-12 topic: String [ignorable],
        /// The id of the topic (KIP-516).
        13+ topic_id: Uuid [ignorable],
        /// The partitions to read.
        0+ partitions: Vec<FetchPartition>,
    }

    /// A partition to read.
    pub struct FetchPartition {
        /// The partition.
        0+ partition: i32,
        /// The leader epoch known to the client; −1 if unknown.
        ///
        /// A leader of another epoch rejects it (KIP-320).
        9+ current_leader_epoch: i32 [ignorable] = -1,
        /// The offset to start at.
        0+ fetch_offset: i64,
        /// The leader epoch of the last record fetched; −1 if unknown.
        ///
        /// The response reports whether the log has diverged from it (KIP-595).
        12+ last_fetched_epoch: i32 = -1,
        /// The log start offset of the follower; −1 for a client.
        5+ log_start_offset: i64 [ignorable] = -1,
        /// The maximum size of this partition in the response, in bytes.
        0+ partition_max_bytes: i32,
        /// The directory of the follower (KIP-853).
        17+ replica_directory_id: Uuid [tag 0, ignorable],
        /// The high watermark known to the follower (KIP-1166).
        18+ high_watermark: i64 [tag 1, ignorable] = i64::MAX,
    }

    /// Partitions to remove from a fetch session (KIP-227).
    pub struct ForgottenTopic {
        /// The name of the topic.
        7-12 topic: String [ignorable],
        /// The id of the topic (KIP-516).
        13+ topic_id: Uuid [ignorable],
        /// The partitions.
        7+ partitions: Vec<i32>,
    }

    /// The follower that sends the request (KIP-903).
    pub struct ReplicaState {
        /// The id of the follower; −1 for a client.
        15+ replica_id: i32 = -1,
        /// The epoch of the follower; −1 for a client.
        15+ replica_epoch: i64 = -1,
    }

    /// The batches of each partition (`FetchResponse.json`).
    pub struct FetchResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        1+ throttle_time_ms: i32 [ignorable],
        /// The error code, or `NONE`.
        7+ error_code: ErrorCode [ignorable],
        /// The fetch session; 0 for a fetch without one (KIP-227).
        7+ session_id: i32,
        /// The results by topic.
        0+ responses: Vec<FetchTopicResponse>,
        /// The addresses of the leaders named above (KIP-951).
        16+ node_endpoints: Vec<FetchNodeEndpoint> [tag 0],
    }

    /// The results of one topic.
    pub struct FetchTopicResponse {
        /// The name of the topic.
        0-12 topic: String [ignorable],
        /// The id of the topic (KIP-516).
        13+ topic_id: Uuid [ignorable],
        /// The results by partition.
        0+ partitions: Vec<FetchPartitionResponse>,
    }

    /// The result of one partition.
    pub struct FetchPartitionResponse {
        /// The partition.
        0+ partition_index: i32,
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The high watermark: the offset after the last record that all in-sync replicas have.
        0+ high_watermark: i64,
        /// The last stable offset, below which no transaction is open; −1 if unknown.
        4+ last_stable_offset: i64 [ignorable] = -1,
        /// The log start offset; −1 if unknown.
        5+ log_start_offset: i64 [ignorable] = -1,
        /// The aborted transactions in the batches; null unless read-committed was requested.
        4+ aborted_transactions: Option<Vec<AbortedTransaction>> [nullable 4+, ignorable] = Some(Vec::new()),
        /// The replica to read from instead; −1 for the leader (KIP-392).
        11+ preferred_read_replica: i32 = -1,
        /// The record batches; the last one may be truncated. See [`Batches`](crate::record::Batches).
        0+ records: Option<Bytes> [nullable 0+] = None,
        /// The point of divergence between the log and the records fetched (KIP-595).
        12+ diverging_epoch: DivergingEpoch [tag 0],
        /// The current leader, if it is another broker (KIP-951).
        12+ current_leader: FetchLeader [tag 1],
        /// The snapshot to fetch instead (metadata log only).
        12+ snapshot_id: SnapshotId [tag 2],
    }

    /// An aborted transaction, from `first_offset` up to its marker.
    pub struct AbortedTransaction {
        /// The producer id.
        4+ producer_id: i64,
        /// The first offset of the transaction.
        4+ first_offset: i64,
    }

    /// The point of divergence: the largest common epoch and its end offset (KIP-595).
    pub struct DivergingEpoch {
        /// The epoch; −1 if not set.
        12+ epoch: i32 = -1,
        /// The end offset; −1 if not set.
        12+ end_offset: i64 = -1,
    }

    /// The current leader of a partition (KIP-951).
    pub struct FetchLeader {
        /// The leader; −1 if the partition has no leader, or it is unknown.
        12+ leader_id: i32 = -1,
        /// The leader epoch; −1 if unknown.
        12+ leader_epoch: i32 = -1,
    }

    /// The snapshot to fetch instead (metadata log only).
    pub struct SnapshotId {
        /// The end offset; −1 if not set.
        0+ end_offset: i64 = -1,
        /// The epoch; −1 if not set.
        0+ epoch: i32 = -1,
    }

    /// The address of a broker named as leader (KIP-951).
    pub struct FetchNodeEndpoint {
        /// The id of the broker.
        16+ node_id: i32,
        /// The host name.
        16+ host: String,
        /// The port.
        16+ port: i32,
        /// The rack; null if it is not set.
        16+ rack: Option<String> [nullable 16+] = None,
    }
}
