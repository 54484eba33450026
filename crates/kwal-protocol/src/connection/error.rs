use std::{fmt, io, sync::Arc, time::Duration};

use super::request::CorrelationId;
use crate::{
    api::{ApiKey, Versions},
    error::{DecodeError, EncodeError},
    error_code::ErrorCode,
    sasl::SaslError,
};

/// Why a call was not taken, or why the connection is closed.
///
/// It is cheap to clone, because it goes to every pending request. Whether such a request may have reached the broker:
/// [`PendingRequest::handed_out`](super::PendingRequest::handed_out).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The call was not taken: the handshake is not done. The connection goes on.
    #[error("the connection is not ready: its handshake is not done yet")]
    NotReady,
    /// The call was not taken: so many are waiting already. The connection goes on.
    #[error("{limit} calls of this connection are waiting for their replies already")]
    TooManyInFlight {
        /// [`ConnectionConfig::max_in_flight`](super::ConnectionConfig::max_in_flight).
        limit: usize,
    },
    /// What the client calls itself is not what brokers accept.
    #[error(
        "{field} {value:?} is not made of letters, digits, '-' and '.' with a letter or digit at both ends"
    )]
    InvalidSoftware {
        /// The field of [`ConnectionConfig`](super::ConnectionConfig).
        field: &'static str,
        /// What it holds.
        value: String,
    },
    /// A request of the handshake cannot be written: the client id is too long.
    #[error("{api} cannot be written")]
    Encode {
        /// The API.
        api: ApiKey,
        /// What is wrong with it.
        source: EncodeError,
    },
    /// The owner of the connection closed it.
    #[error("the connection was closed")]
    Closed,
    /// The peer ended the stream.
    #[error("the peer closed the connection {stage}{}", .stage.hint())]
    PeerClosed {
        /// Where the connection stood.
        stage: Stage,
    },
    /// The stream broke.
    #[error("the connection broke {stage}")]
    Io {
        /// Where the connection stood.
        stage: Stage,
        /// What the stream said.
        source: Arc<io::Error>,
    },
    /// The handshake took too long.
    #[error("the handshake was not done within {after:.1?}, {stage}{}", .stage.hint())]
    HandshakeTimedOut {
        /// Where the connection stood.
        stage: Stage,
        /// The limit.
        after: Duration,
    },
    /// A request got no reply in time, though it was the first in line. As the stream cannot pass over a reply, the connection
    /// is closed with all that is in flight.
    #[error("{api} version {version} got no reply within {after:?}")]
    RequestTimedOut {
        /// The request that is overdue.
        api: ApiKey,
        /// Its version.
        version: i16,
        /// Its limit.
        after: Duration,
    },
    /// The peer announced a frame that is larger than the limit. Nothing was reserved for it.
    #[error(
        "the reply to {api} version {version} is {len} bytes long, the limit is {max}: ask for less, or raise the limit"
    )]
    FrameTooLarge {
        /// The request it answers.
        api: ApiKey,
        /// Its version.
        version: i16,
        /// The length announced, in bytes.
        len: usize,
        /// [`ConnectionConfig::max_frame_len`](super::ConnectionConfig::max_frame_len).
        max: usize,
    },
    /// The first bytes are those of another protocol.
    #[error("{0}")]
    NotKafka(OtherProtocol),
    /// The peer did what the protocol does not allow.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(Misbehaviour),
    /// A reply of the handshake cannot be read.
    #[error("the reply to {api} version {version} cannot be read")]
    Malformed {
        /// The API.
        api: ApiKey,
        /// The version of the reply.
        version: i16,
        /// What is wrong with it, counted from behind the frame's length.
        source: DecodeError,
    },
    /// The broker answered a request of the handshake with an error.
    #[error("the broker refused {api} version {version}: {code}{}", wants_no_sasl(.api, .code))]
    Refused {
        /// The API.
        api: ApiKey,
        /// The version asked.
        version: i16,
        /// What the broker said.
        code: ErrorCode,
    },
    /// The broker does not offer the mechanism.
    #[error("the broker does not offer SASL {mechanism}, it offers {}", .offered.join(", "))]
    MechanismRefused {
        /// The mechanism asked for.
        mechanism: String,
        /// Those that the broker offers.
        offered: Vec<String>,
    },
    /// The broker did not accept who is there.
    #[error("the broker refused to authenticate by SASL {mechanism}: {}", .message.as_deref().unwrap_or("it did not say why"))]
    AuthenticationFailed {
        /// The mechanism.
        mechanism: String,
        /// The broker's code.
        code: ErrorCode,
        /// Its words.
        message: Option<String>,
    },
    /// The mechanism cannot go on.
    #[error("SASL {mechanism} failed")]
    Sasl {
        /// The mechanism.
        mechanism: String,
        /// Why.
        source: SaslError,
    },
    /// The mechanism does not come to an end.
    #[error("SASL {mechanism} does not come to an end")]
    EndlessExchange {
        /// The mechanism.
        mechanism: String,
    },
    /// The broker does not speak what authentication needs: SaslHandshake 1 and SaslAuthenticate, since Kafka 1.0.
    #[error("the broker has no {api} to authenticate with: is this listener one for SASL?")]
    NoAuthentication {
        /// What it lacks.
        api: ApiKey,
    },
    /// The broker and this crate have no version of ApiVersions in common, so nothing can be agreed upon.
    #[error("the broker speaks ApiVersions {theirs}, and this client {ours}")]
    NoCommonVersion {
        /// What this crate speaks.
        ours: Versions,
        /// What the broker named.
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

/// Kafka's answer to SaslHandshake on a listener where nobody has to authenticate.
fn wants_no_sasl(api: &ApiKey, code: &ErrorCode) -> &'static str {
    match (*api, *code) {
        (ApiKey::SASL_HANDSHAKE, ErrorCode::ILLEGAL_SASL_STATE) => ": is this listener one for SASL?",
        _ => "",
    }
}

/// Where a connection stood when something happened to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Stage {
    /// The broker's versions were asked for.
    Versions {
        /// The version of ApiVersions that was asked.
        version: i16,
    },
    /// An authentication was under way.
    Authentication,
    /// The handshake was done, without SASL, and the first call had no reply yet: brokers that want SASL end the connection
    /// here.
    FirstCall {
        /// Its API.
        api: ApiKey,
        /// Its version.
        version: i16,
    },
    /// The handshake was done, and calls were answered.
    Ready {
        /// The oldest request without a reply, with its version.
        awaited: Option<(ApiKey, i16)>,
    },
}

impl Stage {
    /// What is usually behind a connection that ends here.
    fn hint(&self) -> &'static str {
        match self {
            Self::Versions { .. } => {
                ": is it a Kafka broker of 0.10 or later, and this listener not one for TLS?"
            }
            Self::Authentication => ": are the credentials right, and is this listener one for SASL?",
            Self::FirstCall { .. } => ": does this listener want SASL?",
            Self::Ready { .. } => "",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Versions { version } => {
                write!(f, "while {} version {version} waited for its reply", ApiKey::API_VERSIONS)
            }
            Self::Authentication => f.write_str("while it authenticated"),
            Self::FirstCall { api, version } | Self::Ready { awaited: Some((api, version)) } => {
                write!(f, "while {api} version {version} waited for its reply")
            }
            Self::Ready { awaited: None } => f.write_str("while nothing waited for a reply"),
        }
    }
}

/// What the peer did that the protocol does not allow.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// A length that leaves no room for a correlation id, or is negative.
    #[error("a frame of {0} bytes cannot be a reply")]
    FrameLength(i32),
    /// Bytes, and nothing was asked.
    #[error("it sent bytes that nothing had asked for")]
    Unasked,
    /// A reply to something else than the oldest request; brokers answer in order.
    #[error("the reply to {api} carries the correlation id {got}, and {expected} was next")]
    CorrelationId {
        /// The oldest request.
        api: ApiKey,
        /// The correlation id of that.
        expected: CorrelationId,
        /// What came.
        got: CorrelationId,
    },
    /// It refused a version and named the same or a newer one instead.
    #[error("it refused ApiVersions version {asked}, and says that it speaks {named}")]
    Versions {
        /// The version refused.
        asked: i16,
        /// The version to ask then.
        named: i16,
    },
}

/// What the peer seems to speak instead.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OtherProtocol {
    /// A TLS record.
    #[error("the peer speaks TLS, not plain Kafka: connect with TLS, or to another listener")]
    Tls,
    /// The status line of HTTP.
    #[error("the peer speaks HTTP, not Kafka: is it the right port?")]
    Http,
    /// Some other protocol of printable characters; its beginning.
    #[error("the peer does not speak Kafka, its answer begins {0:?}: is it the right port?")]
    Text(String),
}
