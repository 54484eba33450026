//! One connection to a broker: the handle that callers hold, and how it is opened.
//!
//! A task owns stream and protocol state ([`driver`]); callers own a [`Connection`] and, for each request, a
//! oneshot. So a caller that is dropped never leaves half a frame on the stream. A [`Recipient`] takes its
//! responses in the task of the connection instead, without a task of its own that wakes for each.

mod connect;
mod driver;
mod history;
mod inbox;
mod offered;
mod reauth;
mod request;
mod shared;

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use kwal_protocol::connection::{
    ConnectionConfig, ConnectionError, EncodedRequest, NegotiatedVersions, RawResponse,
};
use kwal_protocol::sasl::Mechanism;
use kwal_transport::{HostPort, Stream};
use tokio::{
    runtime,
    sync::{oneshot, watch},
    time::{Instant, sleep_until},
};

pub(crate) use self::{
    connect::Connector,
    history::History,
    request::{CallOptions, FailureReason, Recipient, RequestFailed},
    shared::{Room, WaitPermit},
};
use self::{
    driver::Driver,
    reauth::{Reauthentication, SessionLifetime},
    request::{Caller, CallerEnd, Submitted},
    shared::{LastHandle, Shared},
};
use crate::{
    metrics::{ConnectionMetrics, RequestTiming},
    trouble::Troubles,
    versions::ClientRequest,
};

/// How many requests may wait for the task, and how many may be in flight. Further callers wait themselves.
const QUEUE: usize = 64;

/// A handle to make requests on one connection. The connection is closed with the last handle.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<Handle>);

/// What all handles of a connection share.
#[derive(Debug)]
struct Handle {
    shared: LastHandle,
    versions: Arc<NegotiatedVersions>,
    /// Of the session, if it ends.
    lifetime: watch::Receiver<Option<SessionLifetime>>,
}

/// The other end of a connection.
#[derive(Debug)]
struct Peer {
    name: HostPort,
    history: Arc<History>,
    troubles: Arc<Troubles>,
    /// `None` if the transport chose it.
    address: Option<SocketAddr>,
    /// The end of a throttle that began on the connection before.
    paused_until: Option<Instant>,
    metrics: ConnectionMetrics,
}

impl Connection {
    /// Does the handshake on a fresh stream. If the future is dropped, the connection is closed.
    async fn open(
        stream: Stream,
        config: ConnectionConfig,
        sasl: Option<(Box<dyn Mechanism>, Reauthentication)>,
        runtime: &runtime::Handle,
        peer: Peer,
    ) -> Result<Self, Option<ConnectionError>> {
        let (ready, is_ready) = oneshot::channel();
        let (publish, lifetime) = watch::channel(None);
        let shared = Arc::new(Shared::default());
        let last_handle = LastHandle(Arc::clone(&shared));
        shared.throttle(peer.paused_until);
        let ends = driver::Ends { ready, publish, peer, shared };
        Driver::spawn(stream, config, sasl, runtime, ends);
        match is_ready.await {
            Ok(Ok(versions)) => Ok(Self(Arc::new(Handle { shared: last_handle, versions, lifetime }))),
            Ok(Err(error)) => Err(Some(error)),
            Err(_) => Err(None),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared.0
    }

    pub(crate) fn versions(&self) -> &NegotiatedVersions {
        &self.0.versions
    }

    /// Whether requests are still accepted.
    pub(crate) fn is_open(&self) -> bool {
        self.shared().is_open()
    }

    /// Whether both are handles of the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The end of the last throttle, which may be over. A connection that takes the place of this one has to
    /// wait for it, too.
    pub(crate) fn throttled_until(&self) -> Option<Instant> {
        self.shared().throttled_until()
    }

    /// Returns how much longer the connection is throttled, if it is.
    pub(crate) fn throttled_for(&self) -> Option<Duration> {
        let left = self.throttled_until()?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Returns how many requests are on it, a moment ago.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared().in_flight()
    }

    /// Closes the connection. Requests that have no response yet fail.
    pub(crate) fn close(&self) {
        self.shared().close();
    }

    /// Returns how long the broker may wait before it answers the next request, at most the wanted time: it
    /// must not delay reauthentication, nor last beyond the end of the session.
    pub(crate) fn wait(&self, wanted: Duration) -> Arc<WaitPermit> {
        let lifetime = *self.0.lifetime.borrow();
        self.shared().wait(wanted, |taken| match lifetime {
            Some(lifetime) => lifetime.longest_wait(Instant::now(), taken),
            None => wanted,
        })
    }

    /// Whether the broker may still wait for a request whose caller has left. Further ones are held back.
    pub(crate) fn has_abandoned(&self) -> bool {
        self.shared().has_abandoned()
    }

    /// Waits in turn for room in the queue; `None` if the connection is closed.
    pub(crate) async fn room(&self) -> Option<Room> {
        self.shared().room().await
    }

    /// Puts a request on the queue, if that has room, without waiting. The recipient gets the response.
    ///
    /// While others wait for room, there is none without having waited for it as well.
    ///
    /// It may be called from a recipient that is taking another response.
    pub(crate) fn submit<R: ClientRequest>(
        &self,
        request: EncodedRequest,
        deadline: Option<Instant>,
        recipient: Arc<dyn Recipient>,
        token: u64,
        room: Option<Room>,
    ) -> Result<(), NotSubmitted> {
        let timing = RequestTiming::begin(&request);
        let caller = Caller::recipient(R::throttle_time, timing, deadline, recipient, token);
        self.shared().try_submit(Submitted { request, caller }, room)
    }

    /// Sends a request and waits for the response.
    ///
    /// If the future is dropped before the request has been written, it is not sent; later, the response is
    /// discarded when it arrives. While the broker waits on behalf of such a caller, further requests are
    /// held back, and a second one makes this connection the last for those in flight.
    pub(crate) async fn call<R: ClientRequest>(
        &self,
        request: EncodedRequest,
        options: CallOptions,
    ) -> Result<RawResponse, RequestFailed> {
        let deadline = options.deadline;
        let request = match options.limit {
            Some(limit) => request.with_timeout(limit),
            None => request,
        };
        let timing = RequestTiming::begin(&request);
        let (caller, received, caller_end) = Caller::new(R::throttle_time, timing, options);
        if self.shared().submit(Submitted { request, caller }).await.is_err() {
            let reason = FailureReason::Connection(ConnectionError::Closed);
            return Err(RequestFailed { reason, sent: false, was_next: false });
        }
        tokio::select! {
            biased;
            response = received => {
                let reason = FailureReason::Shutdown;
                response.unwrap_or(Err(RequestFailed { reason, sent: true, was_next: false }))
            }
            failed = cut_off(deadline, &caller_end) => Err(failed),
        }
    }
}

/// Why a connection does not take a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NotSubmitted {
    /// The queue has no room.
    Full,
    Closed,
}

/// Completes at the deadline if the response is arriving. Otherwise there is nothing that the caller does not
/// know.
async fn cut_off(deadline: Option<Instant>, response: &CallerEnd) -> RequestFailed {
    let Some(deadline) = deadline else { return pending().await };
    sleep_until(deadline).await;
    match response.progress() {
        Some(progress) => {
            RequestFailed { reason: FailureReason::Incomplete(progress), sent: true, was_next: false }
        }
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
