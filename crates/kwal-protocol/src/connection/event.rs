use std::{sync::Arc, time::Duration};

use super::{
    authentication::Computation, error::ConnectionError, response::RawResponse, versions::NegotiatedVersions,
};

/// Something that happened on a [`Connection`](super::Connection).
#[derive(Debug)]
pub enum Event<T = ()> {
    /// The broker has authenticated the client, for the lifetime given if it is limited (KIP-368).
    ///
    /// It comes ahead of [`Ready`](Self::Ready), and again after each
    /// [`Connection::reauthenticate`](super::Connection::reauthenticate).
    Authenticated(Option<Duration>),
    /// The mechanism has to compute something that may take a second.
    ///
    /// Run it elsewhere and pass the result to
    /// [`Connection::handle_computed`](super::Connection::handle_computed). The time limit of the handshake
    /// keeps running.
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
