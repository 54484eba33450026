//! The task of a connection, and the only place where a socket meets the protocol.
//!
//! It ends when the connection is closed, or when the last [`Connection`](super::Connection) handle is
//! dropped: then no caller waits for a response. Where the broker ends sessions after a time, the task
//! authenticates again before that.

use std::{
    future::{pending, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
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
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{Instant, Sleep, sleep_until},
};
use tracing::{Instrument, debug, debug_span, warn};

use super::{
    Caller, FailureReason, Peer, QUEUE, RequestFailed, Shared, Submitted,
    inbox::Inbox,
    reauth::{Reauthentication, SessionLifetime},
};

/// No further request is taken while so many bytes wait to be written.
const HIGH_WATER: usize = 1 << 20;
/// With so many requests that the broker may wait for and nobody else does, a connection takes no more.
const MOST_ABANDONED: usize = 2;

/// The task's ends of what it shares with the handles.
pub(super) struct Ends {
    pub(super) ready: oneshot::Sender<Result<Arc<NegotiatedVersions>, ConnectionError>>,
    pub(super) publish: watch::Sender<Option<SessionLifetime>>,
    pub(super) queue: mpsc::Receiver<Submitted>,
    pub(super) peer: Peer,
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Driver {
    connection: Connection<Caller>,
    stream: Stream,
    inbox: Inbox,
    writing: Option<(CorrelationId, Frame)>,
    /// Whether everything written has been flushed, which encrypting streams need.
    flushed: bool,
    /// How long a write may make no progress.
    stall: Duration,
    /// The longest throttle time that is obeyed.
    max_throttle: Duration,
    queue: mpsc::Receiver<Submitted>,
    /// Taken from the queue, and not sent while the broker waits for what nobody wants any more.
    held: Option<Submitted>,
    ready: Option<oneshot::Sender<Result<Arc<NegotiatedVersions>, ConnectionError>>>,
    /// `None` for a connection that does not authenticate.
    reauthentication: Option<Arc<Reauthentication>>,
    lifetime: watch::Sender<Option<SessionLifetime>>,
    peer: Peer,
    /// Whether a request has been answered.
    is_useful: bool,
    shared: Arc<Shared>,
    /// What the connection waits for apart from its peer. Aborted with it.
    tasks: JoinSet<TaskResult>,
}

/// Bytes that were read or written.
enum Moved {
    In(io::Result<usize>),
    Out(io::Result<usize>),
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
            max_throttle,
            queue: ends.queue,
            held: None,
            ready: Some(ends.ready),
            reauthentication,
            lifetime: ends.publish,
            peer: ends.peer,
            is_useful: false,
            shared: ends.shared,
            tasks: JoinSet::new(),
        };
        runtime.spawn(driver.run().instrument(span));
    }

    async fn run(mut self) {
        let mut timer = pin!(sleep_until(Instant::now()));
        let mut stalled = pin!(sleep_until(Instant::now() + self.stall));
        let mut is_ready = false;
        let mut done = false;
        let mut expired = false;
        loop {
            // Before anything is sent: a response may ask for a pause.
            while let Some(event) = self.connection.poll_event() {
                match event {
                    Event::Ready(versions) => {
                        debug!("ready");
                        is_ready = true;
                        self.resume_throttle();
                        done |= self.ready.take().is_none_or(|ready| ready.send(Ok(versions)).is_err());
                    }
                    Event::Authenticated(lifetime) => self.authenticated(lifetime),
                    Event::Compute(computation) => {
                        self.tasks.spawn_blocking(|| TaskResult::Computed(computation.run()));
                    }
                    Event::Response(caller, response) => self.respond(caller, response),
                    Event::Closed(error) => return self.end(error).await,
                }
            }
            // What nobody wants any more is not sent.
            drop(self.connection.withdraw(Caller::is_gone));
            let abandoned = self.shared.abandoned();
            if abandoned >= MOST_ABANDONED && !expired {
                debug!(abandoned, "no more requests, the broker waits for some that nobody wants any more");
                self.close_queue();
                expired = true;
            }
            if abandoned == 0
                && let Some(held) = self.held.take()
            {
                self.submit(held);
            }
            if self.writing.is_none() {
                self.writing = self.connection.poll_transmit();
                if self.writing.is_some() {
                    stalled.as_mut().reset(Instant::now() + self.stall);
                }
            }
            // A caller that waits for a response has a handle, so there is none.
            if done || expired && self.connection.in_flight() <= abandoned {
                debug!("no longer needed");
                return self.end(ConnectionError::Closed).await;
            }
            let deadline = self.connection.poll_timeout().map(Instant::from_std);
            let is_writing = self.writing.is_some();
            let has_room =
                self.connection.in_flight() < QUEUE && self.connection.outgoing_bytes() < HIGH_WATER;
            let takes = is_ready && !expired && has_room && self.held.is_none();
            tokio::select! {
                biased;
                () = unwanted(&mut self.ready) => {
                    debug!("closing, no caller waits for it any more");
                    return;
                }
                () = self.shared.close.notified() => {
                    debug!("closed by the client");
                    self.connection.close(ConnectionError::Closed);
                }
                // What that means is decided above.
                () = self.shared.abandoned.notified() => {}
                () = gone(&mut self.held) => self.held = None,
                // Reads never wait for writes: a broker that is busy answering may not read.
                moved = poll_fn(|cx| {
                    let read = pin!(self.stream.read_buf(self.inbox.room())).poll(cx);
                    if let Poll::Ready(read) = read {
                        return Poll::Ready(Moved::In(read));
                    }
                    if !is_writing && self.flushed {
                        return Poll::Pending;
                    }
                    pin!(send(&mut self.stream, &mut self.writing)).poll(cx).map(Moved::Out)
                }) => match moved {
                    Moved::In(read) => self.received(read),
                    Moved::Out(wrote) => self.sent(wrote, stalled.as_mut()),
                },
                Some(result) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    expired |= self.finished(result);
                }
                request = self.queue.recv(), if takes => match request {
                    Some(request) if self.shared.abandoned() > 0 => self.held = Some(request),
                    Some(request) => self.submit(request),
                    None => done = true,
                },
                () = wake_at(timer.as_mut(), deadline) => {
                    self.connection.handle_timeout(Instant::now().into_std());
                }
                () = &mut stalled, if is_writing => self.connection.handle_io_error(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("the broker accepted no bytes for {:?}", self.stall),
                )),
            }
        }
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

    /// Continues with the result of a task. Returns whether the session has expired, so that no more requests
    /// are taken.
    fn finished(&mut self, result: Result<TaskResult, JoinError>) -> bool {
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
                self.close_queue();
                return true;
            }
            // It panicked, or the runtime is shutting down.
            Err(error) => {
                debug!(%error, "closing");
                self.connection.close(ConnectionError::Closed);
            }
        }
        false
    }

    /// Takes no more requests. Those that wait go to another connection.
    fn close_queue(&mut self) {
        self.queue.close();
        let held = self.held.take();
        let queued = std::iter::from_fn(|| self.queue.try_recv().ok());
        for Submitted { caller, .. } in held.into_iter().chain(queued) {
            caller.fail(FailureReason::Connection(ConnectionError::Closed), false);
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
                    if let Some(caller) = self.connection.oldest().filter(|caller| !caller.is_gone()) {
                        caller.arriving(self.connection.arriving());
                        self.connection.handle_progress(now);
                    }
                }
                Err(error) => debug!(%error, "the peer violated the protocol"),
            },
            Err(error) => self.connection.handle_io_error(error),
        }
    }

    fn sent(&mut self, wrote: io::Result<usize>, stalled: Pin<&mut Sleep>) {
        match wrote {
            Ok(count) => {
                self.flushed = count == 0;
                if count > 0 {
                    stalled.reset(Instant::now() + self.stall);
                }
                if let Some((id, _)) = self.writing.take_if(|(_, frame)| !frame.has_remaining()) {
                    self.connection.handle_transmitted(Instant::now().into_std(), id);
                }
            }
            Err(error) => self.connection.handle_io_error(error),
        }
    }

    fn submit(&mut self, Submitted { request, caller }: Submitted) {
        // The caller is gone, so nothing was promised to it.
        if caller.is_gone() {
            return;
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
        self.peer.history.admitted();
        if let (false, Some(address)) = (self.is_useful, self.peer.address) {
            self.peer.history.useful(address);
        }
        self.is_useful = true;
        let pause = (caller.throttle_time)(&response);
        if !pause.is_zero() {
            debug!(api = %response.key(), ?pause, "throttled by the broker");
            if pause > self.max_throttle && self.peer.history.is_first_long_throttle() {
                let (peer, limit) = (self.stream.peer(), self.max_throttle);
                warn!(
                    peer,
                    ?pause,
                    ?limit,
                    "the broker demands a pause longer than Deadlines::throttle, which is cut to it; is its quota meant so?"
                );
            }
            self.throttle(pause);
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
    async fn end(mut self, error: ConnectionError) {
        debug!(%error, "closed");
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
        if let Some(Submitted { caller, .. }) = self.held.take() {
            caller.fail(reason.clone(), false);
        }
        self.queue.close();
        while let Some(Submitted { caller, .. }) = self.queue.recv().await {
            caller.fail(reason.clone(), false);
        }
    }
}

/// Whether a call ends before a pause does. It is not worth the wait.
fn ends_before(caller: &Caller, until: Instant) -> bool {
    caller.deadline.is_some_and(|deadline| deadline <= until)
}

/// Writes a part of the frame, or flushes if there is none. Returns how many bytes were written. Cancel safe.
async fn send(stream: &mut Stream, writing: &mut Option<(CorrelationId, Frame)>) -> io::Result<usize> {
    match writing {
        Some((_, frame)) => match stream.write_buf(frame).await {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            result => result,
        },
        None => stream.flush().await.map(|()| 0),
    }
}

/// Completes when the caller of a request that is held back is gone.
async fn gone(held: &mut Option<Submitted>) {
    match held {
        Some(Submitted { caller, .. }) => caller.gone().await,
        None => pending().await,
    }
}

/// Completes when the caller that opens the connection is gone.
async fn unwanted(ready: &mut Option<oneshot::Sender<Result<Arc<NegotiatedVersions>, ConnectionError>>>) {
    match ready {
        Some(ready) => ready.closed().await,
        None => pending().await,
    }
}

async fn wake_at(mut timer: Pin<&mut Sleep>, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => {
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            timer.await;
        }
        None => pending().await,
    }
}
