//! The headers of requests and responses.

use super::{body::Body, key::ApiKey, versions::Versions};
use crate::{
    macros::message,
    wire::{Nullable, Version, Wire, write_str},
    writer::Writer,
};

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

    /// Writes the header of a request of this version, as [`Wire::write`] does of one that owns its client
    /// id.
    pub(super) fn write_with(
        key: ApiKey,
        body: Version,
        correlation_id: i32,
        client_id: Option<&str>,
        writer: &mut Writer,
    ) {
        let classic = Self::version(1);
        key.write(writer, classic);
        body.number.write(writer, classic);
        correlation_id.write(writer, classic);
        match client_id {
            Some(id) => write_str(id, writer, classic),
            None => String::write_null(writer, classic),
        }
        if Self::version_for(body).flexible {
            // No tagged fields.
            writer.put_uvarint(0);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_borrowed_client_id_makes_the_same_header() {
        for flexible in [false, true] {
            for client_id in [None, Some(""), Some("me"), Some("ä")] {
                let body = Version { number: 13, flexible };
                let mut borrowed = Writer::new();
                RequestHeader::write_with(ApiKey::PRODUCE, body, 7, client_id, &mut borrowed);
                let header = RequestHeader {
                    request_api_key: ApiKey::PRODUCE,
                    request_api_version: 13,
                    correlation_id: 7,
                    client_id: client_id.map(str::to_owned),
                };
                let mut owned = Writer::new();
                header.write(&mut owned, RequestHeader::version_for(body));
                assert_eq!(borrowed.into_bytes(), owned.into_bytes());
            }
        }
    }
}
