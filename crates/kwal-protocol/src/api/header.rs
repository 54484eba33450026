//! What stands before the body of a request and of a response.

use super::{body::Body, key::ApiKey, versions::Versions};
use crate::{macros::message, wire::Version};

message! {
    /// Before every request (`RequestHeader.json`).
    pub struct RequestHeader {
        /// Which API is called.
        0+ request_api_key: ApiKey,
        /// The version of the body that follows.
        0+ request_api_version: i16,
        /// Stands in the response again.
        0+ correlation_id: i32,
        /// What the client calls itself; shows in the broker's logs, metrics and quotas. It keeps the classic form of a
        /// string also in the flexible header.
        1+ client_id: Option<String> [nullable 1+, classic] = Some(String::new()),
    }

    /// Before every response (`ResponseHeader.json`).
    pub struct ResponseHeader {
        /// That of the request which is answered.
        0+ correlation_id: i32,
    }
}

impl RequestHeader {
    /// Every version of the header that Kafka knows.
    pub const VERSIONS: Versions = Versions::new(0, 2);

    /// The version of the header that goes with a version of a request.
    pub const fn version_for(body: Version) -> Version {
        Self::version(if body.flexible { 2 } else { 1 })
    }

    /// How a version of the header itself is written.
    pub const fn version(number: i16) -> Version {
        Version { number, flexible: number >= 2 }
    }
}

impl ResponseHeader {
    /// Every version of the header that Kafka knows.
    pub const VERSIONS: Versions = Versions::new(0, 1);

    /// The version of the header that goes with a version of a response.
    pub const fn version_for<B: Body>(body: Version) -> Version {
        Self::version((body.flexible && !B::PLAIN_HEADER) as i16)
    }

    /// How a version of the header itself is written.
    pub const fn version(number: i16) -> Version {
        Version { number, flexible: number >= 1 }
    }
}
