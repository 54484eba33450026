//! FindCoordinator: which broker coordinates a group or a transactional id. From version 4 on it can be asked for
//! several at once (KIP-699).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Asks who coordinates (`FindCoordinatorRequest.json`).
    pub struct FindCoordinatorRequest {
        /// The group or transactional id.
        0-3 key: String,
        /// What the keys are: 0 groups, 1 transactional ids, 2 share groups.
        1+ key_type: i8,
        /// The groups or transactional ids.
        4+ coordinator_keys: Vec<String>,
    }

    /// Who coordinates (`FindCoordinatorResponse.json`).
    pub struct FindCoordinatorResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        1+ throttle_time_ms: i32 [ignorable],
        /// What went wrong, or `NONE`.
        0-3 error_code: ErrorCode,
        /// What went wrong, in the broker's words.
        1-3 error_message: Option<String> [nullable 1-3, ignorable] = Some(String::new()),
        /// The id of the broker.
        0-3 node_id: i32,
        /// Its host name.
        0-3 host: String,
        /// Its port.
        0-3 port: i32,
        /// Who coordinates, by key.
        4+ coordinators: Vec<Coordinator>,
    }

    /// Who coordinates one key.
    pub struct Coordinator {
        /// The group or transactional id.
        4+ key: String,
        /// The id of the broker.
        4+ node_id: i32,
        /// Its host name.
        4+ host: String,
        /// Its port.
        4+ port: i32,
        /// What went wrong, or `NONE`.
        4+ error_code: ErrorCode,
        /// What went wrong, in the broker's words.
        4+ error_message: Option<String> [nullable 4+, ignorable] = Some(String::new()),
    }
}
