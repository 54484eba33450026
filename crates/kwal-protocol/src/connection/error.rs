use std::{fmt, io, sync::Arc, time::Duration};

use super::{limits::hint, request::CorrelationId};
use crate::{
    api::{ApiKey, Versions},
    error::{DecodeError, EncodeError},
    error_code::ErrorCode,
    sasl::SaslError,
    text::Printable,
};

/// The reason why a request was rejected, or why the connection is closed.
///
/// It is cheap to clone, because it goes to every pending request.
/// [`PendingRequest::handed_out`](super::PendingRequest::handed_out) tells whether such a request may have
/// reached the broker.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The request was rejected: the handshake is not complete. The connection stays open.
    #[error("the connection is not ready: its handshake is not complete")]
    NotReady,
    /// The request was rejected: too many requests are pending. The connection stays open.
    #[error("the connection has {limit} pending requests, which is its limit")]
    TooManyInFlight {
        /// [`ConnectionConfig::max_in_flight`](super::ConnectionConfig::max_in_flight).
        limit: usize,
    },
    /// The client software name or version is not one that brokers accept.
    #[error(
        "{field} {value:?} must consist of letters, digits, '-' and '.', and start and end with a letter or digit"
    )]
    InvalidSoftware {
        /// The field of [`ConnectionConfig`](super::ConnectionConfig).
        field: &'static str,
        /// The value of the field.
        value: String,
    },
    /// A request of the handshake cannot be encoded: the client id is too long.
    #[error("{api} cannot be encoded")]
    Encode {
        /// The API.
        api: ApiKey,
        /// The field at fault.
        source: EncodeError,
    },
    /// The owner of the connection closed it.
    #[error("the connection was closed")]
    Closed,
    /// The peer ended the stream.
    #[error("the peer closed the connection {stage}{}", .stage.hint())]
    PeerClosed {
        /// The stage of the connection.
        stage: Stage,
    },
    /// The stream failed.
    #[error("the connection was lost {stage}")]
    Io {
        /// The stage of the connection.
        stage: Stage,
        /// The IO error.
        source: Arc<io::Error>,
    },
    /// The handshake exceeded its time limit.
    #[error("the handshake timed out after {after:.1?} {stage}{}", .stage.hint())]
    HandshakeTimedOut {
        /// The stage of the connection.
        stage: Stage,
        /// The time limit.
        after: Duration,
    },
    /// A request exceeded its time limit, although it was the oldest one in flight: no response, or a part of
    /// it, and then too little for the time limit.
    ///
    /// The connection is closed with everything in flight, because the stream cannot skip a response.
    #[error("{}", timed_out(.api, *.version, *.after, *.progress))]
    RequestTimedOut {
        /// The API of the request.
        api: ApiKey,
        /// Its version.
        version: i16,
        /// The time limit.
        after: Duration,
        /// How much of the response had arrived, if anything had.
        progress: Option<ResponseProgress>,
    },
    /// The peer announced a frame that exceeds the limit. No memory was reserved for it.
    #[error(
        "the response to {api} version {version} has {len} bytes, the limit is {max}{}", hint(*.api, *.max)
    )]
    FrameTooLarge {
        /// The API of the request.
        api: ApiKey,
        /// Its version.
        version: i16,
        /// The length announced, in bytes.
        len: usize,
        /// The limit for this API, see
        /// [`ConnectionConfig::max_frame_len`](super::ConnectionConfig::max_frame_len).
        max: usize,
    },
    /// The first bytes belong to another protocol.
    #[error("{0}")]
    NotKafka(OtherProtocol),
    /// The peer violated the protocol.
    #[error("the peer violated the protocol: {0}")]
    PeerMisbehaved(Misbehaviour),
    /// A response of the handshake cannot be decoded.
    #[error("the response to {api} version {version} cannot be decoded")]
    Malformed {
        /// The API.
        api: ApiKey,
        /// The version of the response.
        version: i16,
        /// The decoding error; its position does not count the length of the frame.
        source: DecodeError,
    },
    /// The broker answered a request of the handshake with an error.
    #[error("the broker rejected {api} version {version}: {code}{}", wants_no_sasl(.api, .code))]
    Refused {
        /// The API.
        api: ApiKey,
        /// The requested version.
        version: i16,
        /// The error code of the broker.
        code: ErrorCode,
    },
    /// The broker does not offer the mechanism.
    #[error("the broker does not offer SASL {mechanism}, it offers {}", Printable(&.offered.join(", ")))]
    MechanismRefused {
        /// The requested mechanism.
        mechanism: String,
        /// The mechanisms that the broker offers.
        offered: Vec<String>,
    },
    /// The broker did not accept the credentials.
    #[error("the broker rejected the SASL {mechanism} authentication: {}", Printable(.message.as_deref().unwrap_or("it gave no reason")))]
    AuthenticationFailed {
        /// The mechanism.
        mechanism: String,
        /// The error code of the broker.
        code: ErrorCode,
        /// The error message of the broker.
        message: Option<String>,
    },
    /// The mechanism failed.
    #[error("SASL {mechanism} failed")]
    Sasl {
        /// The mechanism.
        mechanism: String,
        /// The error of the mechanism.
        source: SaslError,
    },
    /// The mechanism exceeded the limit of messages.
    #[error("SASL {mechanism} exceeded the limit of messages")]
    EndlessExchange {
        /// The mechanism.
        mechanism: String,
    },
    /// The broker does not support SaslHandshake 1 or SaslAuthenticate, which exist since Kafka 1.0.
    #[error("the broker does not support {api}, which SASL requires: does this listener use SASL?")]
    NoAuthentication {
        /// The API that it does not support.
        api: ApiKey,
    },
    /// The broker and this crate have no version of ApiVersions in common, so versions cannot be negotiated.
    #[error("the broker supports ApiVersions {theirs}, this client {ours}")]
    NoCommonVersion {
        /// The versions that this crate supports.
        ours: Versions,
        /// The versions that the broker names.
        theirs: Versions,
    },
}

/// A request that [`Connection::send`](super::Connection::send) rejected, with its token.
#[derive(Clone)]
pub struct SendError<T> {
    /// The reason.
    pub error: ConnectionError,
    /// The token of the request.
    pub token: T,
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> std::error::Error for SendError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

/// A hint for Kafka's answer to SaslHandshake on a listener without SASL.
fn wants_no_sasl(api: &ApiKey, code: &ErrorCode) -> &'static str {
    match (*api, *code) {
        (ApiKey::SASL_HANDSHAKE, ErrorCode::ILLEGAL_SASL_STATE) => ": does this listener use SASL?",
        _ => "",
    }
}

fn timed_out(api: &ApiKey, version: i16, after: Duration, progress: Option<ResponseProgress>) -> String {
    match progress {
        None => format!("no response to {api} version {version} within {after:?}"),
        Some(progress) => {
            format!("the response to {api} version {version} stalled for {after:?}: {progress}")
        }
    }
}

/// How much of a response has arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResponseProgress {
    /// The bytes that have arrived.
    pub arrived: usize,
    /// All its bytes, as the broker announced them.
    pub len: usize,
}

impl fmt::Display for ResponseProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes arrived", self.arrived, self.len)
    }
}

/// The stage of a connection at the time of an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Stage {
    /// ApiVersions was in flight.
    Versions {
        /// The requested version of ApiVersions.
        version: i16,
    },
    /// ApiVersions was in flight to a peer that has [admitted](super::ConnectionConfig::admitted) this client
    /// before.
    ///
    /// Brokers that limit connections close further ones at this stage.
    FurtherConnection {
        /// The requested version of ApiVersions.
        version: i16,
    },
    /// An authentication was in progress.
    Authentication,
    /// The handshake was complete, without SASL, and the first request had no response yet.
    ///
    /// Brokers that require SASL close the connection at this stage.
    FirstCall {
        /// The API of the request.
        api: ApiKey,
        /// Its version.
        version: i16,
    },
    /// The connection was ready, and earlier requests had been answered.
    Ready {
        /// The oldest request without a response, with its version.
        awaited: Option<(ApiKey, i16)>,
    },
}

impl Stage {
    /// The usual cause of a connection that ends at this stage.
    fn hint(&self) -> &'static str {
        match self {
            Self::Versions { .. } => {
                ": is the peer a Kafka broker of 0.10 or later, and this a listener without TLS?"
            }
            Self::FurtherConnection { .. } => {
                ": does the broker limit connections (`max.connections.per.ip`, `max.connections`)?"
            }
            Self::Authentication => ": are the credentials correct, and does this listener use SASL?",
            Self::FirstCall { .. } => ": does this listener require SASL?",
            Self::Ready { .. } => "",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Versions { version } | Self::FurtherConnection { version } => {
                write!(f, "while waiting for the response to {} version {version}", ApiKey::API_VERSIONS)
            }
            Self::Authentication => f.write_str("during authentication"),
            Self::FirstCall { api, version } | Self::Ready { awaited: Some((api, version)) } => {
                write!(f, "while waiting for the response to {api} version {version}")
            }
            Self::Ready { awaited: None } => f.write_str("while no request was in flight"),
        }
    }
}

/// A violation of the protocol by the peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// A length that is negative, or too short for a correlation id.
    #[error("a frame of {0} bytes cannot be a response")]
    FrameLength(i32),
    /// Bytes arrived while no request was in flight.
    #[error("it sent data while no request was in flight")]
    Unasked,
    /// The response is not that of the oldest request, though brokers answer in order.
    #[error("the response to {api} has the correlation id {got} instead of {expected}")]
    CorrelationId {
        /// The oldest request.
        api: ApiKey,
        /// The correlation id of the oldest request.
        expected: CorrelationId,
        /// The correlation id of the response.
        got: CorrelationId,
    },
    /// It rejected a version, and named the same or a newer one instead.
    #[error("it rejected ApiVersions version {asked}, but claims to support {named}")]
    Versions {
        /// The rejected version.
        asked: i16,
        /// The version it named.
        named: i16,
    },
}

/// The protocol that the peer seems to use instead.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OtherProtocol {
    /// A TLS record.
    #[error("the peer speaks TLS: connect with TLS, or to a listener without it")]
    Tls,
    /// The status line of HTTP.
    #[error("the peer speaks HTTP, not Kafka: is this the right port?")]
    Http,
    /// Some other protocol of printable characters, with its first bytes.
    #[error("the peer does not speak Kafka, its data starts with {0:?}: is this the right port?")]
    Text(String),
}
