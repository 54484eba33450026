//! One connection to a broker: the handle that callers hold, and how it is opened.
//!
//! A task owns stream and protocol state ([`driver`]); callers own a [`Connection`] and, for each request, a
//! oneshot. So a caller that is dropped never leaves half a frame on the stream.

mod connect;
mod driver;
mod history;
mod inbox;
mod reauth;
mod request;

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use kwal_protocol::connection::{
    ConnectionConfig, ConnectionError, EncodedRequest, NegotiatedVersions, RawResponse,
};
use kwal_protocol::sasl::Mechanism;
use kwal_transport::Stream;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

pub(crate) use self::{
    connect::Connector,
    history::History,
    request::{CallOptions, FailureReason, RequestFailed, WaitPermit},
};
use self::{
    driver::Driver,
    reauth::{Reauthentication, SessionLifetime},
    request::{Caller, CallerEnd, Shared, Submitted},
};
use crate::versions::ClientRequest;

/// How many requests may wait for the task, and how many may be in flight. Further callers wait themselves.
const QUEUE: usize = 64;

/// A handle to make requests on one connection. The connection is closed with the last handle.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    requests: mpsc::Sender<Submitted>,
    shared: Arc<Shared>,
    versions: Arc<NegotiatedVersions>,
    /// Of the session, if it ends.
    lifetime: watch::Receiver<Option<SessionLifetime>>,
}

/// The other end of a connection.
#[derive(Debug)]
struct Peer {
    history: Arc<History>,
    /// `None` if the transport chose it.
    address: Option<SocketAddr>,
    /// The end of a throttle that began on the connection before.
    paused_until: Option<Instant>,
}

impl Connection {
    /// Does the handshake on a fresh stream. If the future is dropped, the connection is closed.
    async fn open(
        stream: Stream,
        config: ConnectionConfig,
        sasl: Option<(Box<dyn Mechanism>, Reauthentication)>,
        runtime: &Handle,
        peer: Peer,
    ) -> Result<Self, Option<ConnectionError>> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (ready, is_ready) = oneshot::channel();
        let (publish, lifetime) = watch::channel(None);
        let shared = Arc::new(Shared::default());
        shared.throttle(peer.paused_until);
        let ends = driver::Ends { ready, publish, queue, peer, shared: Arc::clone(&shared) };
        Driver::spawn(stream, config, sasl, runtime, ends);
        match is_ready.await {
            Ok(Ok(versions)) => Ok(Self { requests, shared, versions, lifetime }),
            Ok(Err(error)) => Err(Some(error)),
            Err(_) => Err(None),
        }
    }

    pub(crate) fn versions(&self) -> &NegotiatedVersions {
        &self.versions
    }

    /// Whether requests are still accepted.
    pub(crate) fn is_open(&self) -> bool {
        !self.requests.is_closed()
    }

    /// Whether both are handles of the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The end of the last throttle, which may be over. A connection that takes the place of this one has to
    /// wait for it, too.
    pub(crate) fn throttled_until(&self) -> Option<Instant> {
        self.shared.throttled_until()
    }

    /// Closes the connection. Requests that have no response yet fail.
    pub(crate) fn close(&self) {
        self.shared.close.notify_one();
    }

    /// Returns how long the broker may wait before it answers the next request, at most the wanted time: it
    /// must not delay reauthentication, nor last beyond the end of the session.
    pub(crate) fn wait(&self, wanted: Duration) -> Arc<WaitPermit> {
        let lifetime = *self.lifetime.borrow();
        self.shared.wait(wanted, |taken| match lifetime {
            Some(lifetime) => lifetime.longest_wait(Instant::now(), taken),
            None => wanted,
        })
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
        let CallOptions { limit, deadline, permit } = options;
        let request = match limit {
            Some(limit) => request.with_timeout(limit),
            None => request,
        };
        let (caller, received, caller_end) = Caller::new(R::throttle_time, deadline, permit);
        if self.requests.send(Submitted { request, caller }).await.is_err() {
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
