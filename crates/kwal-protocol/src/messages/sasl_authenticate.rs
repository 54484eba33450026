//! SaslAuthenticate: carries the messages of a SASL exchange (KIP-152).
//!
//! From version 1 on, the last response contains the lifetime of the session (KIP-368).

use bytes::Bytes;

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// A message of the client (`SaslAuthenticateRequest.json`).
    pub struct SaslAuthenticateRequest {
        /// The message of the mechanism.
        0+ auth_bytes: Bytes,
    }

    /// A message of the broker (`SaslAuthenticateResponse.json`).
    pub struct SaslAuthenticateResponse {
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The error message of the broker.
        0+ error_message: Option<String> [nullable 0+] = Some(String::new()),
        /// The message of the mechanism.
        0+ auth_bytes: Bytes,
        /// The lifetime of the session from now, in milliseconds; 0 if it is unlimited (KIP-368).
        1+ session_lifetime_ms: i64 [ignorable],
    }
}
