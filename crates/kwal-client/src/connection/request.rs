//! A request on its way between its caller and the task of the connection.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use kwal_protocol::connection::{ConnectionError, EncodedRequest, RawResponse, ResponseProgress};
use tokio::{sync::oneshot, time::Instant};

use super::shared::WaitPermit;
use crate::{memory::Reservation, metrics::RequestTiming};

/// How a request is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallOptions {
    /// Replaces the time limit of a request with which the broker waits.
    pub(crate) limit: Option<Duration>,
    /// When the call ends. A request that a throttle holds back for longer is not sent.
    pub(crate) deadline: Option<Instant>,
    /// For how long the broker may wait.
    pub(crate) permit: Option<Arc<WaitPermit>>,
    /// The memory for the response. It is corrected to the size of the response when that arrives, whether or
    /// not the caller is polled, and held until then also if the caller leaves.
    pub(crate) memory: Option<Arc<Reservation>>,
}

/// A request on its way to the task.
#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) request: EncodedRequest,
    pub(super) caller: Caller,
}

/// Takes responses in the task of the connection.
///
/// It is called exactly once for each request that it submitted, also when the connection ends, or its task
/// is dropped with its runtime. The task holds no lock meanwhile, so that a recipient may submit further
/// requests.
pub(crate) trait Recipient: fmt::Debug + Send + Sync {
    /// Takes the response to a request, or the reason why there is none. Must not block.
    fn respond(&self, token: u64, result: Result<RawResponse, RequestFailed>);

    /// Whether nobody waits for the response any more: an unsent request is then withdrawn.
    fn is_gone(&self, token: u64) -> bool;
}

/// The caller of a request, as the task sees it.
#[derive(Debug)]
pub(super) struct Caller {
    /// Reads the throttle time of the response, which is obeyed also if the caller is gone by then.
    pub(super) throttle_time: fn(&RawResponse) -> Duration,
    pub(super) timing: RequestTiming,
    pub(super) deadline: Option<Instant>,
    memory: Option<Arc<Reservation>>,
    reply: Reply,
}

/// Where a response goes.
#[derive(Debug)]
enum Reply {
    /// To a task that waits for this response alone.
    Waiting {
        response: oneshot::Sender<Result<RawResponse, RequestFailed>>,
        ticket: TaskEnd,
    },
    Recipient(Promise),
}

impl Caller {
    /// Creates the two ends of a request.
    pub(super) fn new(
        throttle_time: fn(&RawResponse) -> Duration,
        timing: RequestTiming,
        CallOptions { deadline, permit, memory, .. }: CallOptions,
    ) -> (Self, oneshot::Receiver<Result<RawResponse, RequestFailed>>, CallerEnd) {
        let (response, received) = oneshot::channel();
        let ticket = Arc::new(Ticket { permit, state: Mutex::default() });
        let reply = Reply::Waiting { response, ticket: TaskEnd(Arc::clone(&ticket)) };
        (Self { throttle_time, timing, deadline, memory, reply }, received, CallerEnd(ticket))
    }

    /// Creates a caller that takes its response in the task of the connection.
    pub(super) fn recipient(
        throttle_time: fn(&RawResponse) -> Duration,
        timing: RequestTiming,
        deadline: Option<Instant>,
        recipient: Arc<dyn Recipient>,
        token: u64,
    ) -> Self {
        let promise = Promise { recipient: Some(recipient), token, submitted: false };
        Self { throttle_time, timing, deadline, memory: None, reply: Reply::Recipient(promise) }
    }

    /// Forgets the request, which was not submitted.
    pub(super) fn forget(self) {
        if let Reply::Recipient(mut promise) = self.reply {
            promise.recipient = None;
        }
    }

    /// Whether nobody waits for the response any more.
    pub(super) fn is_gone(&self) -> bool {
        match &self.reply {
            Reply::Waiting { response, .. } => response.is_closed(),
            Reply::Recipient(promise) => promise.is_gone(),
        }
    }

    /// Completes when nobody waits for the response any more, unless it goes to a recipient.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.reply {
            Reply::Waiting { response, .. } => response.poll_closed(cx),
            Reply::Recipient(_) => Poll::Pending,
        }
    }

    /// When a recipient no longer waits, also if it does not say so.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        match &self.reply {
            Reply::Waiting { .. } => None,
            Reply::Recipient(_) => self.deadline,
        }
    }

    /// Notes that the request is the connection's: from here on, the broker may get it.
    pub(super) fn submitted(&mut self) {
        match &mut self.reply {
            Reply::Waiting { ticket, .. } => ticket.0.state().submitted = true,
            Reply::Recipient(promise) => promise.submitted = true,
        }
    }

    /// Takes the memory that a response of so many bytes needs, which the broker has announced.
    pub(super) fn announced(&self, len: usize) {
        if let Some(memory) = &self.memory {
            memory.grow(len);
        }
    }

    pub(super) fn arriving(&self, progress: ResponseProgress) {
        if let Reply::Waiting { ticket, .. } = &self.reply {
            ticket.0.state().progress = Some(progress);
        }
    }

    pub(super) fn respond(self, response: RawResponse) {
        if let Some(memory) = &self.memory {
            memory.correct(response.frame().len());
        }
        self.complete(Ok(response));
    }

    pub(super) fn fail(self, reason: FailureReason, sent: bool) {
        self.end(RequestFailed { reason, sent, was_next: false });
    }

    pub(super) fn end(self, failed: RequestFailed) {
        self.complete(Err(failed));
    }

    fn complete(self, result: Result<RawResponse, RequestFailed>) {
        match self.reply {
            Reply::Waiting { response, .. } => drop(response.send(result)),
            Reply::Recipient(mut promise) => promise.keep(result),
        }
    }
}

/// The response that a recipient is promised. It gets a failure if this is dropped.
#[derive(Debug)]
struct Promise {
    /// `None` once the promise is kept.
    recipient: Option<Arc<dyn Recipient>>,
    token: u64,
    /// Whether the broker may get the request.
    submitted: bool,
}

impl Promise {
    fn is_gone(&self) -> bool {
        self.recipient.as_ref().is_none_or(|recipient| recipient.is_gone(self.token))
    }

    fn keep(&mut self, result: Result<RawResponse, RequestFailed>) {
        if let Some(recipient) = self.recipient.take() {
            recipient.respond(self.token, result);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let (reason, sent) = (FailureReason::Shutdown, self.submitted);
        self.keep(Err(RequestFailed { reason, sent, was_next: false }));
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
    /// Nobody waited for the response any more before the request was sent.
    Withdrawn,
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
            permit.abandon();
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
            permit.end_abandoned();
        }
    }
}
