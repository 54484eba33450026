//! The task of a connection, and the only place where a socket meets the protocol.
//!
//! It ends when the connection is closed, or when the last [`Connection`](super::Connection) handle is
//! dropped: then no caller waits for a response. Where the broker ends sessions after a time, the task
//! authenticates again before that.
//!
//! A request takes two polls of the task: one writes it, with all others that are ready, and one reads the
//! response. Each reads first, since a response may ask for a pause, then takes requests and writes.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Buf;
use kwal_protocol::connection::{
    Computed, Connection, ConnectionConfig, ConnectionError, CorrelationId, Event, NegotiatedVersions,
    PendingRequest, RawResponse, SendError,
};
use kwal_protocol::sasl::Mechanism;
use kwal_protocol::writer::Frame;
use kwal_transport::Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    runtime::Handle,
    sync::{oneshot, watch},
    task::{JoinError, JoinSet, unconstrained},
    time::{Instant, Sleep, sleep_until},
};
use tracing::{Instrument, debug, debug_span, warn};

use super::{
    Caller, FailureReason, Peer, QUEUE, RequestFailed, Shared, Submitted,
    inbox::Inbox,
    offered::Offered,
    reauth::{Reauthentication, SessionLifetime},
    shared::Signals,
};
use crate::trouble::Throttled;

/// No further request is taken while so many bytes wait to be written.
const HIGH_WATER: usize = 1 << 20;
/// So often the task goes on before it lets other tasks run.
const TURNS: usize = 64;
/// With so many requests that the broker may wait for and nobody else does, a connection takes no more.
const MOST_ABANDONED: usize = 2;

/// The task's ends of what it shares with the handles.
pub(super) struct Ends {
    pub(super) ready: oneshot::Sender<Result<Arc<NegotiatedVersions>, ConnectionError>>,
    pub(super) publish: watch::Sender<Option<SessionLifetime>>,
    pub(super) peer: Peer,
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Driver {
    connection: Connection<Caller>,
    stream: Stream,
    inbox: Inbox,
    /// The request that is being written, or will be as soon as the stream accepts bytes.
    writing: Option<(CorrelationId, Frame)>,
    /// Whether everything written has been flushed, which encrypting streams need.
    flushed: bool,
    /// How long a write may make no progress.
    stall: Duration,
    /// When the write that waits for the stream has made no progress for so long.
    stalled_at: Option<Instant>,
    timer: Timer,
    /// The longest throttle time that is obeyed.
    max_throttle: Duration,
    /// From the first response with a throttle time to the first without one.
    throttled: Option<Throttled>,
    /// Taken from the queue, and not sent while the broker waits for what nobody wants any more.
    held: Option<Submitted>,
    ready: Option<oneshot::Sender<Result<Arc<NegotiatedVersions>, ConnectionError>>>,
    /// `None` for a connection that does not authenticate.
    reauthentication: Option<Arc<Reauthentication>>,
    lifetime: watch::Sender<Option<SessionLifetime>>,
    peer: Peer,
    is_ready: bool,
    /// Whether a request has been answered.
    is_useful: bool,
    /// Whether no handle is left.
    done: bool,
    /// Whether no more requests are taken, and the connection is closed when those in flight are answered.
    expired: bool,
    /// How many requests the broker may wait for although their callers have left.
    abandoned: usize,
    shared: Arc<Shared>,
    /// What the connection waits for apart from its peer. Aborted with it.
    tasks: JoinSet<TaskResult>,
}

/// The result of a task.
enum TaskResult {
    Computed(Computed),
    /// Credentials to authenticate again with; `None` if the session ended before there were any.
    Reauthenticate(Option<Box<dyn Mechanism>>),
}

impl Driver {
    /// Spawns the task of a connection.
    pub(super) fn spawn(
        stream: Stream,
        config: ConnectionConfig,
        sasl: Option<(Box<dyn Mechanism>, Reauthentication)>,
        runtime: &Handle,
        ends: Ends,
    ) {
        let span = debug_span!("connection", peer = stream.peer());
        let (stall, max_throttle) = (config.request_timeout, config.max_throttle);
        let now = Instant::now().into_std();
        let (connection, reauthentication) = match sasl {
            Some((mechanism, reauthentication)) => {
                (Connection::with_sasl(config, mechanism, now), Some(Arc::new(reauthentication)))
            }
            None => (Connection::new(config, now), None),
        };
        let driver = Self {
            connection,
            stream,
            inbox: Inbox::default(),
            writing: None,
            flushed: true,
            stall,
            stalled_at: None,
            timer: Timer::default(),
            max_throttle,
            throttled: None,
            held: None,
            ready: Some(ends.ready),
            reauthentication,
            lifetime: ends.publish,
            peer: ends.peer,
            is_ready: false,
            is_useful: false,
            done: false,
            expired: false,
            abandoned: 0,
            shared: ends.shared,
            tasks: JoinSet::new(),
        };
        runtime.spawn(driver.run().instrument(span));
    }

    async fn run(mut self) {
        if let Some(error) = poll_fn(|cx| self.poll(cx)).await {
            self.end(error);
        }
    }

    /// Does what there is to do, and completes with the reason why the connection is closed; without one if
    /// nobody waits for it to be ready.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<ConnectionError>> {
        for turn in 0..TURNS {
            // Before anything is sent: a response may ask for a pause.
            let (events, closed) = self.handle_events();
            if let Some(error) = closed {
                return Poll::Ready(Some(error));
            }
            if self.ready.as_mut().is_some_and(|ready| ready.poll_closed(cx).is_ready()) {
                debug!("closing, no caller waits for it any more");
                return Poll::Ready(None);
            }
            // What nobody wants any more is not sent.
            if turn == 0 || events > 0 {
                self.withdraw();
            }
            self.look();
            // A caller that waits for a response has a handle, so there is none.
            if self.done || self.expired && self.connection.in_flight() <= self.abandoned {
                debug!("no longer needed");
                return Poll::Ready(Some(ConnectionError::Closed));
            }
            if self.connection.is_closed() || self.poll_inputs(cx) {
                continue;
            }
            let in_flight = self.connection.in_flight();
            self.peer.metrics.in_flight(in_flight);
            if self.shared.park(cx.waker(), self.takes(), in_flight) {
                return Poll::Pending;
            }
        }
        // Other tasks get their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Handles the events of the connection. Returns their number, and the last of all.
    fn handle_events(&mut self) -> (usize, Option<ConnectionError>) {
        let mut count = 0;
        while let Some(event) = self.connection.poll_event() {
            count += 1;
            match event {
                Event::Ready(versions) => {
                    debug!("ready");
                    self.is_ready = true;
                    self.peer.metrics.opened();
                    self.resume_throttle();
                    self.done |= self.ready.take().is_none_or(|ready| ready.send(Ok(versions)).is_err());
                }
                Event::Authenticated(lifetime) => self.authenticated(lifetime),
                Event::Compute(computation) => {
                    self.tasks.spawn_blocking(|| TaskResult::Computed(computation.run()));
                }
                Event::Response(caller, response) => self.respond(caller, response),
                Event::Closed(error) => return (count, Some(error)),
            }
        }
        (count, None)
    }

    /// Withdraws the requests that nobody waits for any more.
    fn withdraw(&mut self) {
        for caller in self.connection.withdraw(Caller::is_gone) {
            caller.fail(FailureReason::Withdrawn, false);
        }
        if let Some(held) = self.held.take_if(|held| held.caller.is_gone()) {
            held.caller.fail(FailureReason::Withdrawn, false);
        }
    }

    /// Does what the handles want.
    fn look(&mut self) {
        let Signals { close, unused, abandoned } = self.shared.look();
        self.abandoned = abandoned;
        self.done |= unused;
        if close {
            debug!("closed by the client");
            self.connection.close(ConnectionError::Closed);
        }
        if abandoned >= MOST_ABANDONED && !self.expired {
            debug!(abandoned, "no more requests, the broker waits for some that nobody wants any more");
            self.expire();
        }
        if abandoned == 0
            && let Some(held) = self.held.take()
        {
            self.submit(held);
        }
    }

    /// Takes all requests that there is room for, so that they can be written at once.
    fn take_requests(&mut self) {
        for _ in 0..QUEUE {
            let Some(request) = self.takes().then(|| self.shared.take()).flatten() else { break };
            self.take(request);
        }
        if self.writing.is_none() {
            self.writing = self.connection.poll_transmit();
        }
    }

    /// Whether requests are taken from the queue.
    fn takes(&self) -> bool {
        let is_little = self.connection.in_flight() < QUEUE && self.connection.outgoing_bytes() < HIGH_WATER;
        self.is_ready && !self.expired && is_little && self.held.is_none()
    }

    fn take(&mut self, request: Submitted) {
        match self.abandoned {
            0 => self.submit(request),
            _ => self.held = Some(request),
        }
    }

    /// Handles what comes from outside. Returns false if nothing has to be done until something wakes the
    /// task.
    fn poll_inputs(&mut self, cx: &mut Context<'_>) -> bool {
        // Reads never wait for writes: a broker that is busy answering may not read.
        if let Poll::Ready(read) = pin!(self.stream.read_buf(self.inbox.room())).poll(cx) {
            self.received(read);
            return true;
        }
        // Only now: what the broker has closed or throttled takes no more.
        self.take_requests();
        if self.poll_write(cx) {
            return true;
        }
        if !self.tasks.is_empty()
            && let Poll::Ready(Some(result)) = self.tasks.poll_join_next(cx)
        {
            self.finished(result);
            return true;
        }
        if let Some(held) = self.held.take_if(|held| held.caller.poll_gone(cx).is_ready()) {
            held.caller.fail(FailureReason::Withdrawn, false);
            return true;
        }
        self.poll_timer(cx)
    }

    /// Writes, then flushes. Returns whether there is more to write.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some((_, first)) = &self.writing {
            let offered = Offered { first, connection: &self.connection };
            let Poll::Ready(wrote) = offered.poll_write(&mut self.stream, cx) else {
                self.stalled_at.get_or_insert_with(|| Instant::now() + self.stall);
                return false;
            };
            self.stalled_at = None;
            self.sent(wrote);
            let is_done = self.writing.is_none() && self.connection.peek_transmit().next().is_none();
            if self.connection.is_closed() || !is_done {
                return true;
            }
        }
        if !self.flushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            self.flushed = true;
            if let Err(error) = flushed {
                self.connection.handle_io_error(error);
                return true;
            }
        }
        false
    }

    /// Handles what is due. Returns whether something was.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = self.connection.poll_timeout().map(Instant::from_std);
        let stalled_at = self.stalled_at;
        let held = self.held.as_ref().and_then(|held| held.caller.ends_at());
        let Some(next) = [deadline, stalled_at, held].into_iter().flatten().min() else { return false };
        if self.timer.poll(next, cx).is_pending() {
            return false;
        }
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(deadline) {
            self.connection.handle_timeout(now.into_std());
        }
        if is_due(stalled_at) {
            let error = format!("the broker accepted no bytes for {:?}", self.stall);
            self.connection.handle_io_error(io::Error::new(io::ErrorKind::TimedOut, error));
        }
        if let Some(held) = self.held.take_if(|held| is_due(held.caller.ends_at())) {
            held.caller.fail(FailureReason::Withdrawn, false);
        }
        true
    }

    /// Plans the next authentication of a session that begins now.
    fn authenticated(&mut self, lifetime: Option<Duration>) {
        debug!(?lifetime, "authenticated");
        self.peer.history.admitted();
        let lifetime = match (&self.reauthentication, lifetime) {
            (Some(reauthentication), Some(lifetime)) => {
                let lifetime = reauthentication.plan(lifetime);
                let reauthentication = Arc::clone(reauthentication);
                self.tasks.spawn(async move {
                    TaskResult::Reauthenticate(reauthentication.mechanism(lifetime).await)
                });
                Some(lifetime)
            }
            _ => None,
        };
        self.lifetime.send_replace(lifetime);
    }

    /// Continues with the result of a task.
    fn finished(&mut self, result: Result<TaskResult, JoinError>) {
        match result {
            Ok(TaskResult::Computed(computed)) => self.connection.handle_computed(computed),
            Ok(TaskResult::Reauthenticate(Some(mechanism))) => {
                let limit = self.reauthentication.as_ref().map_or(Duration::ZERO, |renewal| renewal.limit);
                let now = Instant::now().into_std();
                if let Err(error) = self.connection.reauthenticate(now, mechanism, limit) {
                    debug!(%error, "cannot authenticate again");
                }
            }
            // Requests in flight are still answered. Queued ones go to another connection, which reports why
            // it fails.
            Ok(TaskResult::Reauthenticate(None)) => {
                debug!("the session is over, closing");
                self.expire();
            }
            // It panicked, or the runtime is shutting down.
            Err(error) => {
                debug!(%error, "closing");
                self.connection.close(ConnectionError::Closed);
            }
        }
    }

    /// Takes no more requests. Those that wait go to another connection.
    fn expire(&mut self) {
        self.expired = true;
        self.fail_queued(&FailureReason::Connection(ConnectionError::Closed));
    }

    /// Closes the queue. The requests in it fail.
    fn fail_queued(&mut self, reason: &FailureReason) {
        self.shared.close_queue();
        let queued = std::iter::from_fn(|| self.shared.take());
        for Submitted { caller, .. } in self.held.take().into_iter().chain(queued) {
            caller.fail(reason.clone(), false);
        }
    }

    fn received(&mut self, read: io::Result<usize>) {
        let now = Instant::now().into_std();
        match read {
            Ok(0) => self.connection.handle_eof(),
            // An error closes the connection, which is reported as an event.
            Ok(_) => match self.inbox.take(|bytes| self.connection.handle_input(now, bytes)) {
                Ok(()) => {
                    // A response that nobody wants any more gets no more time than any other.
                    if let Some(progress) = self.connection.arriving()
                        && let Some(caller) = self.connection.oldest()
                    {
                        caller.announced(progress.len);
                        if !caller.is_gone() {
                            caller.arriving(progress);
                            self.connection.handle_progress(now);
                        }
                    }
                }
                Err(error) => debug!(%error, "the peer violated the protocol"),
            },
            Err(error) => self.connection.handle_io_error(error),
        }
    }

    fn sent(&mut self, wrote: io::Result<usize>) {
        match wrote {
            Ok(count) => {
                self.flushed = false;
                self.accepted(Instant::now(), count);
            }
            Err(error) => {
                // The stream may have got bytes of each of them.
                let offered =
                    self.writing.as_ref().map(|(_, first)| Offered { first, connection: &self.connection });
                for _ in 0..offered.map_or(0, |offered| offered.further(&self.stream)) {
                    self.connection.poll_transmit();
                }
                self.connection.handle_io_error(error);
            }
        }
    }

    /// Hands out what the stream has begun to accept.
    fn accepted(&mut self, now: Instant, mut count: usize) {
        while let Some((id, frame)) = &mut self.writing {
            let step = count.min(frame.remaining());
            frame.advance(step);
            count -= step;
            if frame.has_remaining() {
                return;
            }
            if let Some(caller) = self.connection.handle_transmitted(now.into_std(), *id) {
                self.peer.metrics.written(now, &mut caller.timing);
            }
            self.writing = if count > 0 { self.connection.poll_transmit() } else { None };
        }
    }

    fn submit(&mut self, Submitted { request, mut caller }: Submitted) {
        if caller.is_gone() {
            return caller.fail(FailureReason::Withdrawn, false);
        }
        let now = Instant::now();
        if let Some(until) = self.throttled_until()
            && ends_before(&caller, until)
        {
            return caller.fail(FailureReason::Throttled(until - now), false);
        }
        caller.submitted();
        let sent = self.connection.send(now.into_std(), request, caller);
        if let Err(SendError { error, token: caller }) = sent {
            caller.fail(FailureReason::Connection(error), false);
        }
    }

    /// Hands a response to its caller, and obeys the throttle time in it (KIP-219), also if the caller is
    /// gone.
    fn respond(&mut self, caller: Caller, response: RawResponse) {
        self.peer.metrics.responded(&caller.timing, &response);
        self.peer.history.admitted();
        if let (false, Some(address)) = (self.is_useful, self.peer.address) {
            self.peer.history.useful(address);
        }
        self.is_useful = true;
        let pause = (caller.throttle_time)(&response);
        if !pause.is_zero() {
            debug!(api = %response.key(), ?pause, "throttled by the broker");
            self.peer.metrics.throttled(pause);
            let Peer { name, history, troubles, .. } = &self.peer;
            let throttled = self.throttled.get_or_insert_with(|| Throttled::new(troubles, name));
            throttled.pause(response.key(), pause);
            if pause > self.max_throttle && history.is_first_long_throttle() {
                let limit = self.max_throttle;
                warn!(
                    messaging.system = "kafka",
                    server.address = name.host,
                    server.port = name.port,
                    ?pause,
                    ?limit,
                    "the broker demands a pause longer than Deadlines::throttle, which is cut to it; is its quota meant so?"
                );
            }
            self.throttle(pause);
        } else if self.throttled.is_some() {
            self.throttled = None;
        }
        caller.respond(response);
    }

    /// Pauses the connection. Calls that end before the pause does are not sent.
    fn throttle(&mut self, pause: Duration) {
        let now = Instant::now();
        self.connection.throttle(now.into_std(), pause);
        let Some(until) = self.throttled_until() else { return };
        self.shared.throttle(Some(until));
        for caller in self.connection.withdraw(|caller| ends_before(caller, until)) {
            caller.fail(FailureReason::Throttled(until - now), false);
        }
        if let Some(held) = self.held.take_if(|held| ends_before(&held.caller, until)) {
            held.caller.fail(FailureReason::Throttled(until - now), false);
        }
    }

    /// Goes on with the pause that the broker demanded on the connection before this one.
    fn resume_throttle(&mut self) {
        let before = self.shared.throttled_until();
        if let Some(rest) = before.and_then(|until| until.checked_duration_since(Instant::now())) {
            self.throttle(rest);
        }
    }

    fn throttled_until(&self) -> Option<Instant> {
        let until = self.connection.throttled_until().map(Instant::from_std);
        until.filter(|until| *until > Instant::now())
    }

    /// Reports the end to every caller.
    fn end(&mut self, error: ConnectionError) {
        debug!(%error, "closed");
        // First, so that those that get a failure do not try again here.
        self.shared.close_queue();
        // Not if it was closed from here, before anything was asked.
        if let (None, false, Some(address)) = (&self.ready, self.is_useful, self.peer.address)
            && !matches!(error, ConnectionError::Closed)
        {
            self.peer.history.useless(address);
        }
        if let (
            Some(reauthentication),
            ConnectionError::AuthenticationFailed { .. } | ConnectionError::Sasl { .. },
        ) = (&self.reauthentication, &error)
        {
            reauthentication.sasl.rejected();
        }
        if let Some(ready) = self.ready.take() {
            drop(ready.send(Err(error.clone())));
        }
        let reason = FailureReason::Connection(error);
        for (index, pending) in self.connection.drain_pending().enumerate() {
            let PendingRequest { token: caller, handed_out: sent } = pending;
            caller.end(RequestFailed { reason: reason.clone(), sent, was_next: sent && index == 0 });
        }
        self.fail_queued(&reason);
    }
}

impl Drop for Driver {
    /// Reports the end to callers that are left when the runtime shuts down, in the order of their requests.
    fn drop(&mut self) {
        self.shared.close_queue();
        while let Some(event) = self.connection.poll_event() {
            if let Event::Response(caller, response) = event {
                caller.respond(response);
            }
        }
        self.connection.close(ConnectionError::Closed);
        for PendingRequest { token: caller, handed_out } in self.connection.drain_pending() {
            caller.fail(FailureReason::Shutdown, handed_out);
        }
        self.fail_queued(&FailureReason::Shutdown);
    }
}

/// Whether a call ends before a pause does. It is not worth the wait.
fn ends_before(caller: &Caller, until: Instant) -> bool {
    caller.deadline.is_some_and(|deadline| deadline <= until)
}

/// A timer that is armed for the next deadline, or an earlier one that has been met.
///
/// Each request has a deadline, and most are answered long before. So the timer is not set again when the
/// next deadline is later: it fires once for the old one.
#[derive(Debug, Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// `None` once it has fired.
    armed_for: Option<Instant>,
    /// What it wakes when it fires.
    waker: Option<Waker>,
}

impl Timer {
    /// Completes at `next` or earlier.
    fn poll(&mut self, next: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(next)));
        let is_known = |waker: &Waker| waker.will_wake(cx.waker());
        if self.armed_for.is_none_or(|at| at > next) {
            sleep.as_mut().reset(next);
            self.armed_for = Some(next);
        } else if !sleep.is_elapsed() && self.waker.as_ref().is_some_and(is_known) {
            return Poll::Pending;
        }
        self.waker = Some(cx.waker().clone());
        // When it is another task's turn, it would return without having noted the waker.
        ready!(pin!(unconstrained(sleep.as_mut())).poll(cx));
        (self.armed_for, self.waker) = (None, None);
        Poll::Ready(())
    }
}
