//! SaslAuthenticate: carries the messages of a SASL exchange (KIP-152). From version 1 on the last answer says for
//! how long the session is good (KIP-368).

use bytes::Bytes;

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// A message of the client (`SaslAuthenticateRequest.json`).
    pub struct SaslAuthenticateRequest {
        /// The message, as the mechanism has it.
        0+ auth_bytes: Bytes,
    }

    /// A message of the broker (`SaslAuthenticateResponse.json`).
    pub struct SaslAuthenticateResponse {
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// What went wrong, in the broker's words.
        0+ error_message: Option<String> [nullable 0+] = Some(String::new()),
        /// The message, as the mechanism has it.
        0+ auth_bytes: Bytes,
        /// For how long the session is good from now, in milliseconds; 0 for ever (KIP-368).
        1+ session_lifetime_ms: i64 [ignorable],
    }
}
