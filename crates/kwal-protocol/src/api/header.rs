//! The headers of requests and responses.

use super::{body::Body, key::ApiKey, versions::Versions};
use crate::{macros::message, wire::Version};

message! {
    /// The header of a request (`RequestHeader.json`).
    pub struct RequestHeader {
        /// The API of the request.
        0+ request_api_key: ApiKey,
        /// The version of the body that follows.
        0+ request_api_version: i16,
        /// The correlation id, which the response repeats.
        0+ correlation_id: i32,
        /// The client id, which appears in the broker's logs, metrics and quotas.
        ///
        /// It has the classic form of a string in the flexible header too.
        1+ client_id: Option<String> [nullable 1+, classic] = Some(String::new()),
    }

    /// The header of a response (`ResponseHeader.json`).
    pub struct ResponseHeader {
        /// The correlation id of the request.
        0+ correlation_id: i32,
    }
}

impl RequestHeader {
    /// All versions of the header.
    pub const VERSIONS: Versions = Versions::new(0, 2);

    /// Returns the version of the header for a version of a request.
    pub const fn version_for(body: Version) -> Version {
        Self::version(if body.flexible { 2 } else { 1 })
    }

    /// Returns the encoding of a version of the header.
    pub const fn version(number: i16) -> Version {
        Version { number, flexible: number >= 2 }
    }
}

impl ResponseHeader {
    /// All versions of the header.
    pub const VERSIONS: Versions = Versions::new(0, 1);

    /// Returns the version of the header for a version of a response.
    pub const fn version_for<B: Body>(body: Version) -> Version {
        Self::version((body.flexible && !B::PLAIN_HEADER) as i16)
    }

    /// Returns the encoding of a version of the header.
    pub const fn version(number: i16) -> Version {
        Version { number, flexible: number >= 1 }
    }
}
