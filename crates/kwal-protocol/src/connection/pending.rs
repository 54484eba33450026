use std::time::Duration;

use super::{
    limits::{largest_handshake, largest_response},
    request::{CorrelationId, EncodedRequest},
};
use crate::{api::ApiKey, wire::Version};

/// A request without a response on a closed connection.
///
/// [`Connection::drain_pending`](super::Connection::drain_pending) returns it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PendingRequest<T> {
    /// The token given to [`Connection::send`](super::Connection::send).
    pub token: T,
    /// Whether the request has been handed out, so that the broker may have received it.
    ///
    /// [`Connection::poll_transmit`](super::Connection::poll_transmit) hands it out. If this is false, it has
    /// not reached the broker.
    pub handed_out: bool,
}

#[derive(Debug)]
pub(super) struct Outgoing<T> {
    pub(super) id: CorrelationId,
    pub(super) request: EncodedRequest,
    pub(super) origin: Origin<T>,
}

/// The sender of a request, which gets the response.
#[derive(Debug)]
pub(super) enum Origin<T> {
    Handshake,
    Owner(T),
}

impl<T> Origin<T> {
    pub(super) fn into_token(self) -> Option<T> {
        match self {
            Self::Handshake => None,
            Self::Owner(token) => Some(token),
        }
    }
}

#[derive(Debug)]
pub(super) struct InFlight<T> {
    pub(super) id: CorrelationId,
    pub(super) key: ApiKey,
    pub(super) version: Version,
    pub(super) origin: Origin<T>,
    /// `None` for the handshake, which has a time limit as a whole.
    pub(super) timeout: Option<Duration>,
    /// Whether the last byte has been written.
    pub(super) is_written: bool,
}

impl<T> InFlight<T> {
    /// Returns how long the response may be, in bytes.
    pub(super) fn largest_response(&self, max_frame_len: usize) -> usize {
        match self.origin {
            Origin::Handshake => largest_handshake(max_frame_len),
            Origin::Owner(_) => largest_response(self.key, max_frame_len),
        }
    }
}
