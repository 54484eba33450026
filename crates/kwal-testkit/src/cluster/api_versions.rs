use kwal_protocol::{
    error_code::ErrorCode,
    messages::{ApiVersionsRequest, ApiVersionsResponse},
};

use super::{
    handler::{Serve, Served},
    request::RequestContext,
    state::Cluster,
};

impl Serve for ApiVersionsRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> ApiVersionsResponse {
        ApiVersionsResponse { error_code: code, ..ApiVersionsResponse::default() }
    }

    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<ApiVersionsResponse> {
        let named = context.version < HAS_SOFTWARE_NAME
            || is_software(&self.client_software_name) && is_software(&self.client_software_version);
        if !named {
            return Served::Reply(self.error_response(cluster, ErrorCode::INVALID_REQUEST));
        }
        Served::Reply(ApiVersionsResponse {
            api_keys: cluster.settings.dialect.listed(),
            ..ApiVersionsResponse::default()
        })
    }
}

impl Cluster {
    /// Returns the response to an unknown version, and the version that it is encoded in (KIP-511).
    pub(super) fn unknown_api_versions(&self) -> (i16, ApiVersionsResponse) {
        let response = ApiVersionsResponse {
            error_code: ErrorCode::UNSUPPORTED_VERSION,
            api_keys: self.settings.dialect.listed_fallback(),
            ..ApiVersionsResponse::default()
        };
        (0, response)
    }
}

/// The first version with the client's software name.
const HAS_SOFTWARE_NAME: i16 = 3;

/// Returns whether a name has only letters, digits, `-` and `.`, and begins and ends with a letter or digit.
fn is_software(name: &str) -> bool {
    let bytes = name.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::is_software;

    #[test]
    fn software_names() {
        for name in ["kwal", "k", "apache-kafka-java", "4.3.1", "a--b"] {
            assert!(is_software(name), "{name}");
        }
        for name in ["", "-", "a-", ".a", "a b", "a_b", "ä"] {
            assert!(!is_software(name), "{name}");
        }
    }
}
