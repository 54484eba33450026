//! What to do after an attempt failed: the one place where it is decided.

use kwal_protocol::{
    api::ApiKey,
    connection::ConnectionError,
    error_code::{Effect, ErrorCode, Recovery},
};
use kwal_transport::TransportError;

use super::{Error, ErrorKind, Outcome, Source};

impl Error {
    /// Returns what may make the next attempt succeed.
    pub(crate) fn recovery(&self) -> Recovery {
        match (self.kind(), self.below()) {
            (ErrorKind::Broker { code, .. }, _) => {
                self.context().api.map_or(Recovery::Fail, |api| code.meaning(api).recovery)
            }
            // Certificates, TLS or the proxy need a change, or the peer is not a broker.
            (ErrorKind::Connect, Some(Source::Transport(source))) if source.is_permanent() => Recovery::Fail,
            (ErrorKind::Connection, Some(Source::Connection(source))) => after_connection(source),
            // The issuer of the credentials may be back in a moment.
            (ErrorKind::CredentialsUnavailable, _) => Recovery::Retry,
            // The broker may be gone for good, and another one lead its partitions.
            (ErrorKind::Connect, _) => Recovery::Refresh,
            (ErrorKind::NoBroker { .. } | ErrorKind::NoBrokersListed, _) => Recovery::Retry,
            // Its deadline is over, which the pause before the next attempt notices.
            (ErrorKind::ResponseIncomplete { .. }, _) => Recovery::Retry,
            // The next response may be complete.
            (ErrorKind::UnknownBroker, _) => Recovery::Refresh,
            // Partitions that were just added are not known to all brokers at once.
            (ErrorKind::UnknownPartition { .. }, _) => Recovery::Refresh,
            // Metadata is older than the position.
            (ErrorKind::EpochUnknown { .. }, _) => Recovery::Refresh,
            _ => Recovery::Fail,
        }
    }

    /// Returns whether this attempt may have taken effect, now or later.
    pub(crate) fn effect(&self) -> Effect {
        match (self.kind(), self.outcome()) {
            (ErrorKind::Broker { code, .. }, _) => {
                self.context().api.map_or(Effect::None, |api| code.meaning(api).effect)
            }
            (_, Outcome::NotApplied) => Effect::None,
            (_, Outcome::Unknown) => Effect::Unknown,
        }
    }

    /// Returns whether another broker may help, and a retry at this one perhaps not: it belongs to another
    /// cluster, shows a wrong certificate, responds with more than a broker does, is not a broker, or has no
    /// producer id to give out.
    pub(crate) fn is_of_this_broker(&self) -> bool {
        match (self.kind(), self.below()) {
            (ErrorKind::OtherCluster { .. }, _) => true,
            (ErrorKind::Connect, Some(Source::Transport(source))) => source.is_permanent(),
            (
                ErrorKind::Connection,
                Some(Source::Connection(
                    ConnectionError::NotKafka(_)
                    | ConnectionError::Io { .. }
                    | ConnectionError::FrameTooLarge { .. },
                )),
            ) => self.recovery() == Recovery::Fail,
            // Each has ids of its own to give out. But all of them know the same rights.
            (ErrorKind::Broker { .. } | ErrorKind::MalformedResponse, _) => {
                self.context().api == Some(ApiKey::INIT_PRODUCER_ID)
                    && self.code() != Some(ErrorCode::CLUSTER_AUTHORIZATION_FAILED)
            }
            _ => false,
        }
    }
}

/// Returns what may help after a connection was closed.
fn after_connection(error: &ConnectionError) -> Recovery {
    match error {
        // The response would be as large again.
        ConnectionError::FrameTooLarge { .. } => Recovery::Fail,
        // The peer is not a broker, or TLS needs a change.
        ConnectionError::NotKafka(_) => Recovery::Fail,
        ConnectionError::Io { source, .. }
            if TransportError::within(source).is_some_and(TransportError::is_permanent) =>
        {
            Recovery::Fail
        }
        // A retry would only lock the account.
        ConnectionError::MechanismRefused { .. }
        | ConnectionError::Sasl { .. }
        | ConnectionError::EndlessExchange { .. }
        | ConnectionError::NoAuthentication { .. } => Recovery::Fail,
        ConnectionError::AuthenticationFailed { code, .. } => {
            code.meaning(ApiKey::SASL_AUTHENTICATE).recovery
        }
        ConnectionError::Refused { api: api @ ApiKey::SASL_HANDSHAKE, code, .. } => {
            code.meaning(*api).recovery
        }
        // The broker may be gone for good, and another one lead its partitions.
        _ => Recovery::Refresh,
    }
}
