//! FindCoordinator: finds the coordinator of a group or a transactional id.
//!
//! From version 4 on, a request can contain several keys (KIP-699).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Requests coordinators (`FindCoordinatorRequest.json`).
    pub struct FindCoordinatorRequest {
        /// The group or transactional id.
        0-3 key: String,
        /// The type of the keys: 0 groups, 1 transactional ids, 2 share groups.
        1+ key_type: i8,
        /// The groups or transactional ids.
        4+ coordinator_keys: Vec<String>,
    }

    /// The coordinators (`FindCoordinatorResponse.json`).
    pub struct FindCoordinatorResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        1+ throttle_time_ms: i32 [ignorable],
        /// The error code, or `NONE`.
        0-3 error_code: ErrorCode,
        /// The error message of the broker.
        1-3 error_message: Option<String> [nullable 1-3, ignorable] = Some(String::new()),
        /// The id of the broker.
        0-3 node_id: i32,
        /// The host name.
        0-3 host: String,
        /// The port.
        0-3 port: i32,
        /// The coordinators by key.
        4+ coordinators: Vec<Coordinator>,
    }

    /// The coordinator of one key.
    pub struct Coordinator {
        /// The group or transactional id.
        4+ key: String,
        /// The id of the broker.
        4+ node_id: i32,
        /// The host name.
        4+ host: String,
        /// The port.
        4+ port: i32,
        /// The error code, or `NONE`.
        4+ error_code: ErrorCode,
        /// The error message of the broker.
        4+ error_message: Option<String> [nullable 4+, ignorable] = Some(String::new()),
    }
}
