//! InitProducerId: allocates a producer id and epoch (KIP-98, KIP-360).
//!
//! Without a transactional id the response always has a new id. Version 6 is in the schema of Kafka 4.3, but
//! its brokers do not support it yet.

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Requests a producer id (`InitProducerIdRequest.json`).
    pub struct InitProducerIdRequest {
        /// The transactional id; null for a producer without transactions.
        0+ transactional_id: Option<String> [nullable 0+] = Some(String::new()),
        /// The time after which the coordinator aborts an open transaction, in milliseconds.
        ///
        /// It only applies with a transactional id.
        0+ transaction_timeout_ms: i32,
        /// The producer id to keep; −1 to request one (KIP-360).
        3+ producer_id: i64 = -1,
        /// The current epoch; −1 without a producer id (KIP-360).
        3+ producer_epoch: i16 = -1,
        /// Whether the producer participates in two-phase commits (KIP-939).
        6+ enable2_pc: bool,
        /// Whether a prepared transaction is kept (KIP-939).
        6+ keep_prepared_txn: bool,
    }

    /// The producer id and its epoch (`InitProducerIdResponse.json`).
    pub struct InitProducerIdResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        0+ throttle_time_ms: i32 [ignorable],
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The producer id; −1 on an error.
        0+ producer_id: i64 = -1,
        /// The producer epoch; −1 on an error.
        0+ producer_epoch: i16,
        /// The producer id of the prepared transaction; −1 if not set (KIP-939).
        6+ ongoing_txn_producer_id: i64 = -1,
        /// The epoch of the prepared transaction; −1 if not set (KIP-939).
        6+ ongoing_txn_producer_epoch: i16 = -1,
    }
}
