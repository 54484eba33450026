//! SaslHandshake: selects a SASL mechanism.
//!
//! After version 1 the exchange itself uses SaslAuthenticate (KIP-152). After version 0 it uses bare frames,
//! which is obsolete.

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Selects a mechanism (`SaslHandshakeRequest.json`).
    pub struct SaslHandshakeRequest {
        /// The name of the mechanism.
        0+ mechanism: String,
    }

    /// Whether the broker offers the mechanism, and the ones it offers (`SaslHandshakeResponse.json`).
    pub struct SaslHandshakeResponse {
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The mechanisms that the broker offers.
        0+ mechanisms: Vec<String>,
    }
}
