//! Fetch: reads record batches from a leader, waiting for them if asked to. From version 13 on topics go by id
//! instead of name.

use bytes::Bytes;

use super::isolation_level::IsolationLevel;
use crate::{error_code::ErrorCode, macros::message, wire::Uuid};

message! {
    /// Asks a leader for the batches from an offset on (`FetchRequest.json`).
    pub struct FetchRequest {
        /// The follower that asks; −1 for a client.
        0-14 replica_id: i32 = -1,
        /// How long the broker may wait for `min_bytes`, in milliseconds.
        0+ max_wait_ms: i32,
        /// How many bytes are worth an answer.
        0+ min_bytes: i32,
        /// How many bytes the answer should have at the most; a first batch larger than that comes all the
        /// same (KIP-74).
        3+ max_bytes: i32 [ignorable] = i32::MAX,
        /// Whether records of open and aborted transactions are seen (KIP-98).
        4+ isolation_level: IsolationLevel [ignorable],
        /// The fetch session, 0 for none (KIP-227).
        7+ session_id: i32 [ignorable],
        /// The epoch of the fetch session; −1 for a fetch without one.
        7+ session_epoch: i32 [ignorable] = -1,
        /// What to read, by topic.
        0+ topics: Vec<FetchTopic>,
        /// What to take out of the fetch session (KIP-227).
        7+ forgotten_topics_data: Vec<ForgottenTopic>,
        /// The rack of the client, for fetching from a near follower (KIP-392).
        11+ rack_id: String [ignorable],
        /// The id of the cluster, null if not known.
        12+ cluster_id: Option<String> [tag 0, nullable 12+, ignorable] = None,
        /// Which follower asks (KIP-903).
        15+ replica_state: ReplicaState [tag 1],
    }

    /// What to read of one topic.
    pub struct FetchTopic {
        /// The name of the topic.
        0-12 topic: String [ignorable],
        /// The id of the topic (KIP-516).
        13+ topic_id: Uuid [ignorable],
        /// What to read, by partition.
        0+ partitions: Vec<FetchPartition>,
    }

    /// What to read of one partition.
    pub struct FetchPartition {
        /// The partition.
        0+ partition: i32,
        /// The leader epoch that the asker knows, −1 if none: an older or newer leader refuses (KIP-320).
        9+ current_leader_epoch: i32 [ignorable] = -1,
        /// The first offset wanted.
        0+ fetch_offset: i64,
        /// The leader epoch of the last record that the asker has, −1 if none; the answer says whether the
        /// log has parted from it (KIP-595).
        12+ last_fetched_epoch: i32 = -1,
        /// Where the follower's log starts; −1 for a client.
        5+ log_start_offset: i64 [ignorable] = -1,
        /// How many bytes of this partition the answer should have at the most.
        0+ partition_max_bytes: i32,
        /// The directory of the follower (KIP-853).
        17+ replica_directory_id: Uuid [tag 0, ignorable],
        /// The high watermark that the follower knows (KIP-1166).
        18+ high_watermark: i64 [tag 1, ignorable] = i64::MAX,
    }

    /// Partitions to take out of a fetch session (KIP-227).
    pub struct ForgottenTopic {
        /// The name of the topic.
        7-12 topic: String [ignorable],
        /// The id of the topic (KIP-516).
        13+ topic_id: Uuid [ignorable],
        /// The partitions.
        7+ partitions: Vec<i32>,
    }

    /// Which follower asks (KIP-903).
    pub struct ReplicaState {
        /// The follower that asks; −1 for a client.
        15+ replica_id: i32 = -1,
        /// The epoch of the follower; −1 for a client.
        15+ replica_epoch: i64 = -1,
    }

    /// The batches of each partition (`FetchResponse.json`).
    pub struct FetchResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        1+ throttle_time_ms: i32 [ignorable],
        /// What went wrong, or `NONE`.
        7+ error_code: ErrorCode [ignorable],
        /// The fetch session, 0 for none (KIP-227).
        7+ session_id: i32,
        /// What was read, by topic.
        0+ responses: Vec<FetchTopicResponse>,
        /// Where the leaders named above listen (KIP-951).
        16+ node_endpoints: Vec<FetchNodeEndpoint> [tag 0],
    }

    /// What was read of one topic.
    pub struct FetchTopicResponse {
        /// The name of the topic.
        0-12 topic: String [ignorable],
        /// The id of the topic (KIP-516).
        13+ topic_id: Uuid [ignorable],
        /// What was read, by partition.
        0+ partitions: Vec<FetchPartitionResponse>,
    }

    /// What was read of one partition.
    pub struct FetchPartitionResponse {
        /// The partition.
        0+ partition_index: i32,
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// The offset behind the last record that all in-sync replicas have.
        0+ high_watermark: i64,
        /// The offset before which no transaction is open; −1 if not known.
        4+ last_stable_offset: i64 [ignorable] = -1,
        /// Where the log starts; −1 if not known.
        5+ log_start_offset: i64 [ignorable] = -1,
        /// The aborted transactions that begin in what was read; null unless read-committed was asked for.
        4+ aborted_transactions: Option<Vec<AbortedTransaction>> [nullable 4+, ignorable] = Some(Vec::new()),
        /// The follower to read from instead; −1 for none (KIP-392).
        11+ preferred_read_replica: i32 = -1,
        /// Record batches; the last one may be cut off. See [`Batches`](crate::record::Batches).
        0+ records: Option<Bytes> [nullable 0+] = None,
        /// Where the log parts from what the asker has (KIP-595).
        12+ diverging_epoch: DivergingEpoch [tag 0],
        /// Who leads the partition now, where the broker asked does not (KIP-951).
        12+ current_leader: FetchLeader [tag 1],
        /// The snapshot to fetch instead (the metadata log only).
        12+ snapshot_id: SnapshotId [tag 2],
    }

    /// A transaction that was aborted: its records from `first_offset` on, up to its marker, do not count.
    pub struct AbortedTransaction {
        /// The producer id.
        4+ producer_id: i64,
        /// The first offset of the transaction.
        4+ first_offset: i64,
    }

    /// Where the log parts from what the asker has: the largest epoch that both know, and its end
    /// (KIP-595).
    pub struct DivergingEpoch {
        /// The epoch; −1 for none.
        12+ epoch: i32 = -1,
        /// Its end; −1 for none.
        12+ end_offset: i64 = -1,
    }

    /// Who leads the partition now (KIP-951).
    pub struct FetchLeader {
        /// The leader; −1 if there is none or it is not known.
        12+ leader_id: i32 = -1,
        /// The epoch of the leader; −1 if not known.
        12+ leader_epoch: i32 = -1,
    }

    /// The snapshot to fetch instead (the metadata log only).
    pub struct SnapshotId {
        /// Its end; −1 for none.
        0+ end_offset: i64 = -1,
        /// The epoch; −1 for none.
        0+ epoch: i32 = -1,
    }

    /// Where a broker named as leader listens (KIP-951).
    pub struct FetchNodeEndpoint {
        /// The id of the broker.
        16+ node_id: i32,
        /// Its host name.
        16+ host: String,
        /// Its port.
        16+ port: i32,
        /// Its rack, null if it has none.
        16+ rack: Option<String> [nullable 16+] = None,
    }
}
