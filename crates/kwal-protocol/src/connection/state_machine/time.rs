//! The times of a connection: time limits, and the pauses that the broker demands.

use std::time::{Duration, Instant};

use super::{Connection, State};
use crate::connection::{
    error::{ConnectionError, ResponseProgress},
    pending::{InFlight, Origin},
    request::CorrelationId,
};

/// Each time limit has to bring this part of a response, or the request is overdue.
const LEAST_PART: usize = 1000;

impl<T> Connection<T> {
    /// Ends a throttle that is over, and closes the connection if the handshake or a request is overdue.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.end_throttle(now);
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if is_over(self.handshake_deadline()) {
            let after = self.config.handshake_timeout;
            self.close(ConnectionError::HandshakeTimedOut { stage: self.stage(), after });
        }
        if is_over(self.overdue_at)
            && let Some(InFlight { key: api, version, timeout, .. }) = self.in_flight.front()
        {
            let (api, version, after) = (*api, version.number, timeout.unwrap_or_default());
            let progress = self.arriving;
            self.close(ConnectionError::RequestTimedOut { api, version, after, progress });
        }
    }

    /// Handles that the last byte of a frame has been written: starts the time of its request.
    ///
    /// The time starts later if earlier requests are not answered yet or the broker throttles. For a request
    /// that has no response, or has received it, this does nothing.
    ///
    /// Returns the token of the request, if it is one of the owner's and waits for its response.
    pub fn handle_transmitted(&mut self, now: Instant, id: CorrelationId) -> Option<&mut T> {
        let at = self.in_flight.iter().rposition(|request| request.id == id)?;
        self.in_flight[at].is_written = true;
        self.start_time(now);
        match &mut self.in_flight[at].origin {
            Origin::Owner(token) => Some(token),
            Origin::Handshake => None,
        }
    }

    /// Starts the time of the oldest request in flight, unless it is already running.
    pub(super) fn start_time(&mut self, now: Instant) {
        if let Some(request) = self.in_flight.front().filter(|request| request.is_written)
            && self.overdue_at.is_none()
        {
            let start = self.throttled_until.map_or(now, |until| until.max(now));
            self.overdue_at = request.timeout.and_then(|timeout| start.checked_add(timeout));
        }
    }

    /// Restarts the time of the oldest request if bytes of its response have arrived, which are a sign of
    /// life. Call it after [`handle_input`](Self::handle_input), for as long as somebody wants the response.
    ///
    /// So the time limit of a request counts silence, and a slow link is none. A peer cannot hold the
    /// connection for ever by single bytes: the time is restarted once for each thousandth of the response.
    pub fn handle_progress(&mut self, now: Instant) {
        let Some(ResponseProgress { arrived, len }) = self.arriving else { return };
        if self.overdue_at.is_some() && arrived - self.counted >= len.div_ceil(LEAST_PART) {
            self.counted = arrived;
            self.overdue_at = None;
            self.start_time(now);
        }
    }

    /// How much of the response to the oldest request has arrived, if it has begun to.
    pub fn arriving(&self) -> Option<ResponseProgress> {
        self.arriving
    }

    /// The time at which to call [`handle_timeout`](Self::handle_timeout), if nothing happens earlier.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_closed() {
            return None;
        }
        let handshake = self.handshake_deadline();
        let held = self.handshake.is_some() || !self.outgoing.is_empty();
        let pause = self.throttled_until.filter(|_| held);
        [handshake, pause, self.overdue_at].into_iter().flatten().min()
    }

    /// Pauses the connection as the broker demands (`throttleTimeMs` of a response, KIP-219).
    ///
    /// Nothing is handed out until the pause is over, and the time of requests in flight is paused, as is
    /// that of a reauthentication. Of several pauses the one that ends last applies. A pause is cut to
    /// [`max_throttle`](crate::connection::ConnectionConfig::max_throttle).
    pub fn throttle(&mut self, now: Instant, pause: Duration) {
        self.end_throttle(now);
        let Some(until) = now.checked_add(pause.min(self.config.max_throttle)) else { return };
        let from = self.throttled_until.unwrap_or(now);
        if self.is_closed() || until <= from {
            return;
        }
        self.throttled_until = Some(until);
        let later = |deadline: Option<Instant>| deadline.and_then(|at| at.checked_add(until - from));
        self.overdue_at = later(self.overdue_at);
        if let State::Authenticating(authentication) = &mut self.state
            && authentication.again
        {
            authentication.deadline = later(authentication.deadline);
        }
    }

    /// The end of the pause that the broker demanded, if one is running.
    pub fn throttled_until(&self) -> Option<Instant> {
        self.throttled_until
    }

    pub(super) fn handshake_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Versions { deadline, .. } => *deadline,
            State::Authenticating(authentication) => authentication.deadline,
            State::Ready | State::Closed(_) => None,
        }
    }

    pub(super) fn end_throttle(&mut self, now: Instant) {
        if self.throttled_until.is_some_and(|until| until <= now) {
            self.throttled_until = None;
        }
    }
}
