use std::{fmt, time::Duration};

use bytes::Buf;

use crate::{
    api::{ApiKey, Request, Versions, encode_request},
    error::EncodeError,
    wire::Version,
    writer::Frame,
};

/// An encoded request; its correlation id is written when it is sent.
#[derive(Debug)]
pub struct EncodedRequest {
    pub(super) frame: Frame,
    pub(super) key: ApiKey,
    pub(super) version: Version,
    pub(super) expects_reply: bool,
    pub(super) timeout: Option<Duration>,
}

impl EncodedRequest {
    pub(super) fn new<R: Request>(
        request: &R,
        number: i16,
        client_id: Option<&str>,
    ) -> Result<Self, CallError> {
        let encode = |source| CallError::Encode { api: R::KEY, version: number, source };
        let version = R::version(number).map_err(encode)?;
        let frame = encode_request(request, number, 0, client_id).map_err(encode)?;
        Ok(Self { frame, key: R::KEY, version, expects_reply: request.expects_reply(), timeout: None })
    }

    /// Sets a time limit for this request instead of that of the [configuration](super::ConnectionConfig).
    ///
    /// A request with which the broker itself waits, such as a long poll, needs more time.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The API of the request.
    pub fn key(&self) -> ApiKey {
        self.key
    }

    /// The negotiated version, in which the request is encoded.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the broker sends a response. It sends none to a Produce request with acks = 0.
    pub fn expects_reply(&self) -> bool {
        self.expects_reply
    }

    /// The size of the whole frame in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.frame.remaining()
    }
}

/// A request that cannot be encoded for this broker.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The two sides have no version of the API in common.
    #[error("{}", unsupported(.api, .ours, .theirs))]
    Unsupported {
        /// The API.
        api: ApiKey,
        /// The versions that the client supports.
        ours: Versions,
        /// The versions that the broker supports; `None` if it does not have the API at all.
        theirs: Option<Versions>,
    },
    /// The request cannot be encoded in the negotiated version.
    #[error("{api} cannot be encoded")]
    Encode {
        /// The API.
        api: ApiKey,
        /// The negotiated version.
        version: i16,
        /// The field at fault.
        source: EncodeError,
    },
}

fn unsupported(api: &ApiKey, ours: &Versions, theirs: &Option<Versions>) -> String {
    match theirs {
        Some(theirs) => format!("the broker supports {api} in versions {theirs}, this client in {ours}"),
        None => format!("the broker does not support {api}"),
    }
}

/// The number that associates a response with its request, on one connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct CorrelationId(pub i32);

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
