//! Tokens for OAUTHBEARER as Kafka's own unsecured validator takes them.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;
use time::OffsetDateTime;

/// A JSON Web Token without a signature (RFC 7519, section 6) for `subject`. It ends `seconds` from now, or has ended if
/// that is negative.
pub fn unsecured_token(subject: &str, seconds: i64) -> String {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let encode = |part: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
    let issued = now.min(now + seconds) - 60;
    let header = encode(json!({ "alg": "none" }));
    let claims = encode(json!({ "sub": subject, "iat": issued, "exp": now + seconds }));
    format!("{header}.{claims}.")
}
