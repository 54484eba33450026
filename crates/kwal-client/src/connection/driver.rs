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
    sync::{Notify, mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{Instant, Sleep, sleep_until},
};
use tracing::{Instrument, debug, debug_span};

use super::{
    Caller, QUEUE, Submitted,
    inbox::Inbox,
    reauth::{Reauthentication, SessionLifetime},
};

/// No further request is taken while so many bytes wait to be written.
const HIGH_WATER: usize = 1 << 20;

/// The task's ends of what it shares with the handles.
pub(super) struct Ends {
    pub(super) ready: oneshot::Sender<Result<Arc<NegotiatedVersions>, ConnectionError>>,
    pub(super) publish: watch::Sender<Option<SessionLifetime>>,
    pub(super) queue: mpsc::Receiver<Submitted>,
    pub(super) close: Arc<Notify>,
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
    queue: mpsc::Receiver<Submitted>,
    ready: Option<oneshot::Sender<Result<Arc<NegotiatedVersions>, ConnectionError>>>,
    /// `None` for a connection that does not authenticate.
    reauthentication: Option<Arc<Reauthentication>>,
    lifetime: watch::Sender<Option<SessionLifetime>>,
    close: Arc<Notify>,
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
        let stall = config.request_timeout;
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
            queue: ends.queue,
            ready: Some(ends.ready),
            reauthentication,
            lifetime: ends.publish,
            close: ends.close,
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
            if self.writing.is_none() {
                self.writing = self.connection.poll_transmit();
                if self.writing.is_some() {
                    stalled.as_mut().reset(Instant::now() + self.stall);
                }
            }
            // A caller that waits for a response has a handle, so there is none.
            if done || expired && self.connection.in_flight() == 0 {
                debug!("closing, no longer needed");
                return;
            }
            let deadline = self.connection.poll_timeout().map(Instant::from_std);
            let is_writing = self.writing.is_some();
            let has_room =
                self.connection.in_flight() < QUEUE && self.connection.outgoing_bytes() < HIGH_WATER;
            tokio::select! {
                biased;
                () = abandoned(&mut self.ready) => {
                    debug!("closing, no caller waits for it any more");
                    return;
                }
                () = self.close.notified() => {
                    debug!("closed by the client");
                    self.connection.close(ConnectionError::Closed);
                }
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
                request = self.queue.recv(), if is_ready && !expired && has_room => match request {
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
                self.queue.close();
                while let Ok(Submitted { caller, .. }) = self.queue.try_recv() {
                    caller.fail(ConnectionError::Closed, false);
                }
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

    fn received(&mut self, read: io::Result<usize>) {
        match read {
            Ok(0) => self.connection.handle_eof(),
            Ok(_) => {
                let now = Instant::now().into_std();
                // An error closes the connection, which is reported as an event.
                if let Err(error) = self.inbox.take(|bytes| self.connection.handle_input(now, bytes)) {
                    debug!(%error, "the peer violated the protocol");
                }
            }
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
        if caller.response.is_closed() {
            return;
        }
        let sent = self.connection.send(Instant::now().into_std(), request, caller);
        if let Err(SendError { error, token: caller }) = sent {
            caller.fail(error, false);
        }
    }

    /// Hands a response to its caller, and obeys the throttle time in it (KIP-219), also if the caller is
    /// gone.
    fn respond(&mut self, caller: Caller, response: RawResponse) {
        let pause = (caller.throttle_time)(&response);
        if !pause.is_zero() {
            debug!(api = %response.key(), ?pause, "throttled by the broker");
            self.connection.throttle(Instant::now().into_std(), pause);
        }
        drop(caller.response.send(Ok(response)));
    }

    /// Reports the end to every caller.
    async fn end(mut self, error: ConnectionError) {
        debug!(%error, "closed");
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
        for PendingRequest { token: caller, handed_out } in self.connection.drain_pending() {
            caller.fail(error.clone(), handed_out);
        }
        self.queue.close();
        while let Some(Submitted { caller, .. }) = self.queue.recv().await {
            caller.fail(error.clone(), false);
        }
    }
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

/// Completes when the caller that opens the connection is gone.
async fn abandoned(ready: &mut Option<oneshot::Sender<Result<Arc<NegotiatedVersions>, ConnectionError>>>) {
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
