//! Produce: appends record batches to partitions. Since version 3 each partition takes exactly one batch of magic
//! 2; zstd needs version 7.

use crate::{
    error_code::ErrorCode,
    macros::message,
    wire::{Spliced, Uuid},
};

message! {
    /// Appends one record batch to each of some partitions (`ProduceRequest.json`).
    pub struct ProduceRequest {
        /// The transactional id, null if there is none.
        3+ transactional_id: Option<String> [nullable 3+] = None,
        /// How many replicas must have the batch before the answer: −1 all in sync, 1 the leader, 0 none
        /// and no answer.
        0+ acks: i16,
        /// How long the broker waits for the replicas, in milliseconds.
        0+ timeout_ms: i32,
        /// The batches by topic.
        0+ topic_data: Vec<ProduceTopic>,
    }

    /// The batches for one topic.
    pub struct ProduceTopic {
        /// The name of the topic.
        0-12 name: String [ignorable],
        /// The id of the topic (KIP-516).
        13+ topic_id: Uuid [ignorable],
        /// The batches by partition.
        0+ partition_data: Vec<ProducePartition>,
    }

    /// The batch for one partition.
    pub struct ProducePartition {
        /// The partition.
        0+ index: i32,
        /// The record batch.
        0+ records: Option<Spliced> [nullable 0+] = None,
    }

    /// Where the batches were put, or why not (`ProduceResponse.json`). With acks = 0 there is no answer at
    /// all.
    pub struct ProduceResponse {
        /// The answers by topic.
        0+ responses: Vec<ProduceTopicResponse>,
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        1+ throttle_time_ms: i32 [ignorable],
        /// Where the leaders named above listen (KIP-951).
        10+ node_endpoints: Vec<ProduceNodeEndpoint> [tag 0],
    }

    /// The answers for one topic.
    pub struct ProduceTopicResponse {
        /// The name of the topic.
        0-12 name: String [ignorable],
        /// The id of the topic (KIP-516).
        13+ topic_id: Uuid [ignorable],
        /// The answers by partition.
        0+ partition_responses: Vec<ProducePartitionResponse>,
    }

    /// The answer for one partition.
    pub struct ProducePartitionResponse {
        /// The partition.
        0+ index: i32,
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// The offset of the first record of the batch.
        0+ base_offset: i64,
        /// The time that the broker gave to the records, in milliseconds since the epoch; −1 where the
        /// topic keeps the producer's.
        2+ log_append_time_ms: i64 [ignorable] = -1,
        /// Where the log starts; −1 if not known.
        5+ log_start_offset: i64 [ignorable] = -1,
        /// The records that made the batch be refused (KIP-467).
        8+ record_errors: Vec<RecordError> [ignorable],
        /// What went wrong, in the broker's words.
        8+ error_message: Option<String> [nullable 8+, ignorable] = None,
        /// Who leads the partition now, where the broker asked does not (KIP-951).
        10+ current_leader: ProduceLeader [tag 0],
    }

    /// A record that made its batch be refused (KIP-467).
    pub struct RecordError {
        /// The index of the record in the batch.
        8+ batch_index: i32,
        /// What is wrong with the record, in the broker's words.
        8+ batch_index_error_message: Option<String> [nullable 8+] = None,
    }

    /// Who leads the partition now (KIP-951).
    pub struct ProduceLeader {
        /// The leader; −1 if there is none or it is not known.
        10+ leader_id: i32 = -1,
        /// The epoch of the leader; −1 if not known.
        10+ leader_epoch: i32 = -1,
    }

    /// Where a broker named as leader listens (KIP-951).
    pub struct ProduceNodeEndpoint {
        /// The id of the broker.
        10+ node_id: i32,
        /// Its host name.
        10+ host: String,
        /// Its port.
        10+ port: i32,
        /// Its rack, null if it has none.
        10+ rack: Option<String> [nullable 10+] = None,
    }
}
