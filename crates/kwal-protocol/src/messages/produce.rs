//! Produce: appends record batches to partitions.
//!
//! From version 3 on, each partition takes exactly one batch, of magic 2. Zstandard requires version 7.

use crate::{
    error_code::ErrorCode,
    macros::message,
    wire::{Spliced, Uuid},
};

message! {
    /// Appends one record batch to each partition (`ProduceRequest.json`).
    pub struct ProduceRequest {
        /// The transactional id; null for a producer without transactions.
        3+ transactional_id: Option<String> [nullable 3+] = None,
        /// The replicas that must have the batch: −1 all in sync, 1 the leader, 0 for no response.
        0+ acks: i16,
        /// How long the broker waits for the replicas, in milliseconds.
        0+ timeout_ms: i32,
        /// The batches by topic.
        0+ topic_data: Vec<ProduceTopic>,
    }

    /// The batches of one topic.
    pub struct ProduceTopic {
        /// The name of the topic.
        0-12 name: String [ignorable],
        /// The id of the topic (KIP-516).
        13+ topic_id: Uuid [ignorable],
        /// The batches by partition.
        0+ partition_data: Vec<ProducePartition>,
    }

    /// The batch of one partition.
    pub struct ProducePartition {
        /// The partition.
        0+ index: i32,
        /// The record batch.
        0+ records: Option<Spliced> [nullable 0+] = None,
    }

    /// The results (`ProduceResponse.json`). With acks = 0 there is no response.
    pub struct ProduceResponse {
        /// The results by topic.
        0+ responses: Vec<ProduceTopicResponse>,
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        1+ throttle_time_ms: i32 [ignorable],
        /// The addresses of the leaders named above (KIP-951).
        10+ node_endpoints: Vec<ProduceNodeEndpoint> [tag 0],
    }

    /// The results of one topic.
    pub struct ProduceTopicResponse {
        /// The name of the topic.
        0-12 name: String [ignorable],
        /// The id of the topic (KIP-516).
        13+ topic_id: Uuid [ignorable],
        /// The results by partition.
        0+ partition_responses: Vec<ProducePartitionResponse>,
    }

    /// The result of one partition.
    pub struct ProducePartitionResponse {
        /// The partition.
        0+ index: i32,
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The offset of the first record of the batch.
        0+ base_offset: i64,
        /// The log append time of the records, in milliseconds since the epoch.
        ///
        /// −1 if the topic keeps the producer's.
        2+ log_append_time_ms: i64 [ignorable] = -1,
        /// The log start offset; −1 if unknown.
        5+ log_start_offset: i64 [ignorable] = -1,
        /// The records that caused the batch to be rejected (KIP-467).
        8+ record_errors: Vec<RecordError> [ignorable],
        /// The error message of the broker.
        8+ error_message: Option<String> [nullable 8+, ignorable] = None,
        /// The current leader, if it is another broker (KIP-951).
        10+ current_leader: ProduceLeader [tag 0],
    }

    /// A record that caused its batch to be rejected (KIP-467).
    pub struct RecordError {
        /// The index of the record in the batch.
        8+ batch_index: i32,
        /// The broker's error message for the record.
        8+ batch_index_error_message: Option<String> [nullable 8+] = None,
    }

    /// The current leader of a partition (KIP-951).
    pub struct ProduceLeader {
        /// The leader; −1 if the partition has no leader, or it is unknown.
        10+ leader_id: i32 = -1,
        /// The leader epoch; −1 if unknown.
        10+ leader_epoch: i32 = -1,
    }

    /// The address of a broker named as leader (KIP-951).
    pub struct ProduceNodeEndpoint {
        /// The id of the broker.
        10+ node_id: i32,
        /// The host name.
        10+ host: String,
        /// The port.
        10+ port: i32,
        /// The rack; null if it is not set.
        10+ rack: Option<String> [nullable 10+] = None,
    }
}
