//! OAUTHBEARER tokens that Kafka's unsecured validator accepts.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;
use time::OffsetDateTime;

/// Creates a JSON Web Token without a signature (RFC 7519, section 6) for `subject`. It expires `seconds`
/// from now; negative values create an expired one.
pub fn unsecured_token(subject: &str, seconds: i64) -> String {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let encode = |part: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
    let issued = now.min(now + seconds) - 60;
    let header = encode(json!({ "alg": "none" }));
    let claims = encode(json!({ "sub": subject, "iat": issued, "exp": now + seconds }));
    format!("{header}.{claims}.")
}
