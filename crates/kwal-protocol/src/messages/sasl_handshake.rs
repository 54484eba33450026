//! SaslHandshake: names the SASL mechanism. After version 1 the exchange itself goes in SaslAuthenticate (KIP-152);
//! after version 0 it goes in bare frames, which nobody should use any more.

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Names the mechanism (`SaslHandshakeRequest.json`).
    pub struct SaslHandshakeRequest {
        /// The name of the mechanism.
        0+ mechanism: String,
    }

    /// Whether the broker offers it, and which it offers (`SaslHandshakeResponse.json`).
    pub struct SaslHandshakeResponse {
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// The mechanisms that the broker offers.
        0+ mechanisms: Vec<String>,
    }
}
