//! One connection to a broker: the handle that callers hold, and how it is opened.
//!
//! A task owns stream and protocol state ([`driver`]); callers own a [`Connection`] and, for each request, a
//! oneshot. So a caller that is dropped never leaves half a frame on the stream.

mod connect;
mod driver;
mod inbox;
mod reauth;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kwal_protocol::connection::{
    ConnectionConfig, ConnectionError, EncodedRequest, NegotiatedVersions, RawResponse,
};
use kwal_protocol::sasl::Mechanism;
use kwal_transport::Stream;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};

pub(crate) use self::connect::connect;
use self::{
    driver::Driver,
    reauth::{Reauthentication, SessionLifetime},
};
use crate::versions::ClientRequest;

/// How many requests may wait for the task, and how many may be in flight. Further callers wait themselves.
const QUEUE: usize = 64;

/// A handle to make requests on one connection. The connection is closed with the last handle.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    requests: mpsc::Sender<Submitted>,
    close: Arc<Notify>,
    versions: Arc<NegotiatedVersions>,
    /// Of the session, if it ends.
    lifetime: watch::Receiver<Option<SessionLifetime>>,
    /// How long the broker may wait before it answers all requests in flight.
    wait_budget: Arc<Mutex<Duration>>,
}

/// A permission for the broker to wait before it answers. It counts until it is dropped: the requests of one
/// connection wait one after the other.
#[derive(Debug)]
pub(crate) struct WaitPermit {
    pub(crate) time: Duration,
    wait_budget: Arc<Mutex<Duration>>,
}

impl Drop for WaitPermit {
    fn drop(&mut self) {
        *self.wait_budget.lock().unwrap_or_else(PoisonError::into_inner) -= self.time;
    }
}

#[derive(Debug)]
struct Submitted {
    request: EncodedRequest,
    caller: Caller,
}

/// The caller of a request.
#[derive(Debug)]
struct Caller {
    /// Reads the throttle time of the response, which is obeyed also if the caller is gone by then.
    throttle_time: fn(&RawResponse) -> Duration,
    response: oneshot::Sender<Result<RawResponse, RequestFailed>>,
}

impl Caller {
    fn fail(self, error: ConnectionError, sent: bool) {
        drop(self.response.send(Err(RequestFailed { error: Some(error), sent })));
    }
}

/// A request that got no response.
#[derive(Debug)]
pub(crate) struct RequestFailed {
    /// The reason; `None` if the task ended with its runtime.
    pub(crate) error: Option<ConnectionError>,
    /// Whether it may have reached the broker.
    pub(crate) sent: bool,
}

impl Connection {
    /// Does the handshake on a fresh stream. If the future is dropped, the connection is closed.
    async fn open(
        stream: Stream,
        config: ConnectionConfig,
        sasl: Option<(Box<dyn Mechanism>, Reauthentication)>,
        runtime: &Handle,
    ) -> Result<Self, Option<ConnectionError>> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (ready, is_ready) = oneshot::channel();
        let (publish, lifetime) = watch::channel(None);
        let close = Arc::new(Notify::new());
        Driver::spawn(
            stream,
            config,
            sasl,
            runtime,
            driver::Ends { ready, publish, queue, close: Arc::clone(&close) },
        );
        match is_ready.await {
            Ok(Ok(versions)) => Ok(Self { requests, close, versions, lifetime, wait_budget: Arc::default() }),
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

    /// Closes the connection. Requests that have no response yet fail.
    pub(crate) fn close(&self) {
        self.close.notify_one();
    }

    /// Returns how long the broker may wait before it answers the next request, at most the wanted time: it
    /// must not delay reauthentication, nor last beyond the end of the session.
    pub(crate) fn wait(&self, wanted: Duration) -> WaitPermit {
        let lifetime = *self.lifetime.borrow();
        let mut budget = self.wait_budget.lock().unwrap_or_else(PoisonError::into_inner);
        let time = match lifetime {
            Some(lifetime) => wanted.min(lifetime.longest_wait(Instant::now(), *budget)),
            None => wanted,
        };
        // The protocol has milliseconds.
        let time = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        *budget += time;
        drop(budget);
        WaitPermit { time, wait_budget: Arc::clone(&self.wait_budget) }
    }

    /// Sends a request and waits for the response.
    ///
    /// If the future is dropped before the task has taken the request, it is not sent; later, the response is
    /// discarded when it arrives.
    pub(crate) async fn call<R: ClientRequest>(
        &self,
        request: EncodedRequest,
    ) -> Result<RawResponse, RequestFailed> {
        let (response, received) = oneshot::channel();
        let caller = Caller { throttle_time: R::throttle_time, response };
        if self.requests.send(Submitted { request, caller }).await.is_err() {
            return Err(RequestFailed { error: Some(ConnectionError::Closed), sent: false });
        }
        received.await.unwrap_or(Err(RequestFailed { error: None, sent: true }))
    }
}
