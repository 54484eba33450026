//! A request on its way between its caller and the task of the connection.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kwal_protocol::connection::{ConnectionError, EncodedRequest, RawResponse, ResponseProgress};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::duration::whole_millis;

/// What all handles of a connection share with its task.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Tells the task to close the connection.
    pub(super) close: Notify,
    /// Tells the task that a caller has left while the broker still waits on its behalf.
    pub(super) abandoned: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How long the broker may wait before it answers all requests in flight.
    wait_budget: Duration,
    /// How many requests the broker may wait for although their callers have left.
    abandoned: usize,
    throttled_until: Option<Instant>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests that the broker may wait for have lost their callers.
    pub(super) fn abandoned(&self) -> usize {
        self.state().abandoned
    }

    /// The end of the last throttle, which may be over.
    pub(super) fn throttled_until(&self) -> Option<Instant> {
        self.state().throttled_until
    }

    pub(super) fn throttle(&self, until: Option<Instant>) {
        self.state().throttled_until = until;
    }

    /// Takes a part of the time that the broker may wait. `longest` returns how much may be taken, given what
    /// has been.
    pub(super) fn wait(
        self: &Arc<Self>,
        wanted: Duration,
        longest: impl FnOnce(Duration) -> Duration,
    ) -> Arc<WaitPermit> {
        let mut state = self.state();
        let time = whole_millis(wanted.min(longest(state.wait_budget)));
        state.wait_budget = state.wait_budget.saturating_add(time);
        drop(state);
        Arc::new(WaitPermit { time, shared: Arc::clone(self) })
    }
}

/// A permission for the broker to wait before it answers. It counts until the broker has answered: the
/// requests of one connection wait one after the other.
#[derive(Debug)]
pub(crate) struct WaitPermit {
    pub(crate) time: Duration,
    shared: Arc<Shared>,
}

impl Drop for WaitPermit {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.wait_budget = state.wait_budget.saturating_sub(self.time);
    }
}

/// How a request is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallOptions {
    /// Replaces the time limit of a request with which the broker waits.
    pub(crate) limit: Option<Duration>,
    /// When the call ends. A request that a throttle holds back for longer is not sent.
    pub(crate) deadline: Option<Instant>,
    /// For how long the broker may wait.
    pub(crate) permit: Option<Arc<WaitPermit>>,
}

#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) request: EncodedRequest,
    pub(super) caller: Caller,
}

/// The caller of a request, as the task sees it.
#[derive(Debug)]
pub(super) struct Caller {
    /// Reads the throttle time of the response, which is obeyed also if the caller is gone by then.
    pub(super) throttle_time: fn(&RawResponse) -> Duration,
    pub(super) deadline: Option<Instant>,
    response: oneshot::Sender<Result<RawResponse, RequestFailed>>,
    ticket: TaskEnd,
}

impl Caller {
    /// Creates the two ends of a request.
    pub(super) fn new(
        throttle_time: fn(&RawResponse) -> Duration,
        deadline: Option<Instant>,
        permit: Option<Arc<WaitPermit>>,
    ) -> (Self, oneshot::Receiver<Result<RawResponse, RequestFailed>>, CallerEnd) {
        let (response, received) = oneshot::channel();
        let ticket = Arc::new(Ticket { permit, state: Mutex::default() });
        let caller = Self { throttle_time, deadline, response, ticket: TaskEnd(Arc::clone(&ticket)) };
        (caller, received, CallerEnd(ticket))
    }

    /// Whether nobody waits for the response any more.
    pub(super) fn is_gone(&self) -> bool {
        self.response.is_closed()
    }

    /// Completes when nobody waits for the response any more.
    pub(super) async fn gone(&mut self) {
        self.response.closed().await;
    }

    /// Notes that the request is the connection's: from here on, the broker may get it.
    pub(super) fn submitted(&self) {
        self.ticket.0.state().submitted = true;
    }

    pub(super) fn arriving(&self, progress: Option<ResponseProgress>) {
        self.ticket.0.state().progress = progress;
    }

    pub(super) fn respond(self, response: RawResponse) {
        drop(self.response.send(Ok(response)));
    }

    pub(super) fn fail(self, reason: FailureReason, sent: bool) {
        self.end(RequestFailed { reason, sent, was_next: false });
    }

    pub(super) fn end(self, failed: RequestFailed) {
        drop(self.response.send(Err(failed)));
    }
}

/// A request that got no response.
#[derive(Debug)]
pub(crate) struct RequestFailed {
    pub(crate) reason: FailureReason,
    /// Whether it may have reached the broker.
    pub(crate) sent: bool,
    /// Whether the broker had answered all requests before it when the connection ended.
    pub(crate) was_next: bool,
}

/// Why a request got no response.
#[derive(Clone, Debug)]
pub(crate) enum FailureReason {
    Connection(ConnectionError),
    /// The broker throttles the connection for so long, which is longer than the call has.
    Throttled(Duration),
    /// The call ended while the response was arriving.
    Incomplete(ResponseProgress),
    /// The task ended with its runtime.
    Shutdown,
}

/// What the two ends of a request know of each other.
#[derive(Debug)]
struct Ticket {
    /// For a request that the broker may wait for.
    permit: Option<Arc<WaitPermit>>,
    state: Mutex<TicketState>,
}

#[derive(Debug, Default)]
struct TicketState {
    submitted: bool,
    /// The task is through with it.
    ended: bool,
    /// The caller has left before that, and the broker waits on its behalf.
    abandoned: bool,
    progress: Option<ResponseProgress>,
}

impl Ticket {
    fn state(&self) -> MutexGuard<'_, TicketState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The caller's end of a request: leaves it when it is dropped.
#[derive(Debug)]
pub(super) struct CallerEnd(Arc<Ticket>);

impl CallerEnd {
    /// How much of the response has arrived.
    pub(super) fn progress(&self) -> Option<ResponseProgress> {
        self.0.state().progress
    }
}

impl Drop for CallerEnd {
    fn drop(&mut self) {
        let Some(permit) = &self.0.permit else { return };
        let mut state = self.0.state();
        if state.submitted && !state.ended {
            state.abandoned = true;
            permit.shared.state().abandoned += 1;
            permit.shared.abandoned.notify_one();
        }
    }
}

/// The task's end of a request.
#[derive(Debug)]
struct TaskEnd(Arc<Ticket>);

impl Drop for TaskEnd {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ended = true;
        if let (true, Some(permit)) = (state.abandoned, &self.0.permit) {
            permit.shared.state().abandoned -= 1;
        }
    }
}
