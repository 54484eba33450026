use std::{fmt, sync::Arc, time::Duration};

use super::{Computation, ConnectionError, NegotiatedVersions, RawResponse};

/// Something that happened on a [`Connection`](super::Connection).
#[derive(Debug)]
pub enum Event<T = ()> {
    /// The broker has authenticated the client, for the given lifetime of the session, if it is limited (KIP-368).
    ///
    /// It comes ahead of [`Ready`](Self::Ready), and again after each
    /// [`Connection::reauthenticate`](super::Connection::reauthenticate).
    Authenticated(Option<Duration>),
    /// The mechanism has to compute something that may take a second.
    ///
    /// Run it elsewhere and pass the result to [`Connection::handle_computed`](super::Connection::handle_computed). The
    /// time limit of the handshake keeps running.
    Compute(Computation),
    /// The handshake is complete: requests can be encoded and sent.
    Ready(Arc<NegotiatedVersions>),
    /// The response to a request, with the token of the request.
    Response(T, RawResponse),
    /// The connection is closed. This is the last event and comes once; pending requests get no response.
    ///
    /// [`Connection::drain_pending`](super::Connection::drain_pending) returns them.
    Closed(ConnectionError),
}

/// A request without a response on a closed connection.
///
/// [`Connection::drain_pending`](super::Connection::drain_pending) returns it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PendingRequest<T> {
    /// The token given to [`Connection::send`](super::Connection::send).
    pub token: T,
    /// Whether the request has been handed out, so that the broker may have received it.
    ///
    /// [`Connection::poll_transmit`](super::Connection::poll_transmit) hands it out. If this is false, it has not reached
    /// the broker.
    pub handed_out: bool,
}

/// The number that associates a response with its request, on one connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct CorrelationId(pub i32);

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
