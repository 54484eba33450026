//! InitProducerId: hands out a producer id and epoch (KIP-98, KIP-360). Without a transactional id it always hands
//! out a new id. Version 6 is in the schema of Kafka 4.3 but not yet spoken by its brokers.

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Asks for a producer id (`InitProducerIdRequest.json`).
    pub struct InitProducerIdRequest {
        /// The transactional id, null if there is none.
        0+ transactional_id: Option<String> [nullable 0+] = Some(String::new()),
        /// After how long the coordinator aborts an open transaction, in milliseconds; used only with a
        /// transactional id.
        0+ transaction_timeout_ms: i32,
        /// The producer id to go on with; −1 to ask for one (KIP-360).
        3+ producer_id: i64 = -1,
        /// The epoch to go on from; −1 with no producer id (KIP-360).
        3+ producer_epoch: i16 = -1,
        /// Whether the producer takes part in two-phase commits (KIP-939).
        6+ enable2_pc: bool,
        /// Whether a prepared transaction is kept (KIP-939).
        6+ keep_prepared_txn: bool,
    }

    /// The producer id and its epoch (`InitProducerIdResponse.json`).
    pub struct InitProducerIdResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        0+ throttle_time_ms: i32 [ignorable],
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// The producer id; −1 on an error.
        0+ producer_id: i64 = -1,
        /// The epoch; −1 on an error.
        0+ producer_epoch: i16,
        /// The producer id of the prepared transaction; −1 for none (KIP-939).
        6+ ongoing_txn_producer_id: i64 = -1,
        /// The epoch of the prepared transaction; −1 for none (KIP-939).
        6+ ongoing_txn_producer_epoch: i16 = -1,
    }
}
