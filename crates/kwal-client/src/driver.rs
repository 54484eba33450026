//! The one task that a connection has, and the only place where a socket meets the protocol.
//!
//! The task owns stream and [`Connection`]; callers own a [`Link`] and, for each call, a oneshot. So dropping a caller never
//! leaves half a frame behind. The task ends when the connection does, or when the last link is dropped: then nobody waits for
//! an answer any more.
//!
//! Where a session ends after a time, the task renews it before that; a [`Link`] tells how long a broker may wait with an
//! answer, so that it is not held up.

use std::{
    future::pending,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use kwal_protocol::connection::{
    Computed, Connection, ConnectionConfig, ConnectionError, CorrelationId, EncodedRequest, Event,
    NegotiatedVersions, PendingRequest, RawResponse, SendError,
};
use kwal_protocol::sasl::Mechanism;
use kwal_protocol::writer::Frame;
use kwal_transport::Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{Instant, Sleep, sleep_until},
};
use tracing::{Instrument, debug, debug_span};

use crate::renewal::{Renewals, Term};

/// How many calls may wait to be taken by the task, and how many may be under way; further callers wait themselves.
const QUEUE: usize = 64;
/// No further call is taken while so many bytes wait to be written.
const HIGH_WATER: usize = 1 << 20;
/// The least room for a read.
const CHUNK: usize = 16 << 10;
/// How much room a peer gets by merely announcing a frame; beyond that it grows with the bytes that come.
const CREDIT: usize = 1 << 20;

/// A way to make calls on one connection.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    calls: mpsc::Sender<Submitted>,
    throttle: Arc<watch::Sender<Option<Instant>>>,
    session: Arc<NegotiatedVersions>,
    /// Of the session, if it ends.
    term: watch::Receiver<Option<Term>>,
    /// For how long the broker may wait with the answers to what is under way, in all.
    waits: Arc<Mutex<Duration>>,
}

/// How long a broker may wait with an answer. It counts until it is dropped: requests of one connection wait one after the
/// other.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) time: Duration,
    waits: Arc<Mutex<Duration>>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) -= self.time;
    }
}

#[derive(Debug)]
struct Submitted {
    call: EncodedRequest,
    reply: oneshot::Sender<Result<RawResponse, Failed>>,
}

/// A call without a reply.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Why; `None` if the task is gone without a word, with its runtime.
    pub(crate) error: Option<ConnectionError>,
    /// Whether it may have reached the broker.
    pub(crate) sent: bool,
}

impl Link {
    /// Does the handshake on a fresh stream. Dropped before it is done, the connection is closed.
    pub(crate) async fn open(
        stream: Stream,
        config: ConnectionConfig,
        sasl: Option<(Box<dyn Mechanism>, Renewals)>,
        runtime: &Handle,
    ) -> Result<Self, Option<ConnectionError>> {
        let (calls, queue) = mpsc::channel(QUEUE);
        let (ready, is_ready) = oneshot::channel();
        let (throttle, throttled) = watch::channel(None);
        let span = debug_span!("connection", peer = stream.peer());
        let stall = config.request_timeout;
        let (term, told) = watch::channel(None);
        let now = Instant::now().into_std();
        let (connection, renewals) = match sasl {
            Some((mechanism, renewals)) => {
                (Connection::with_sasl(config, mechanism, now), Some(Arc::new(renewals)))
            }
            None => (Connection::new(config, now), None),
        };
        let (read, write) = tokio::io::split(stream);
        let driver = Driver {
            connection,
            read,
            write,
            inbox: BytesMut::with_capacity(CHUNK),
            wanted: CHUNK,
            writing: None,
            flushed: true,
            stall,
            ready: Some(ready),
            renewals,
            term,
            tasks: JoinSet::new(),
        };
        runtime.spawn(driver.run(queue, throttled).instrument(span));
        match is_ready.await {
            Ok(Ok(session)) => {
                let waits = Arc::default();
                Ok(Self { calls, throttle: Arc::new(throttle), session, term: told, waits })
            }
            Ok(Err(error)) => Err(Some(error)),
            Err(_) => Err(None),
        }
    }

    pub(crate) fn session(&self) -> &NegotiatedVersions {
        &self.session
    }

    /// Whether calls are still taken.
    pub(crate) fn is_open(&self) -> bool {
        !self.calls.is_closed()
    }

    /// Lets no request leave for as long as the broker has asked for (KIP-219).
    pub(crate) fn throttle(&self, pause: Duration) {
        let until = Instant::now() + pause;
        self.throttle.send_if_modified(|current| {
            let later = current.is_none_or(|current| current < until);
            if later {
                *current = Some(until);
            }
            later
        });
    }

    /// How long a broker may wait with the answer to the next request, of the time that is wanted: it must not hold the
    /// renewal of the session up, nor run past the session's end.
    pub(crate) fn wait(&self, wanted: Duration) -> Wait {
        let term = *self.term.borrow();
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let time = match term {
            Some(term) => wanted.min(term.room(Instant::now(), *waits)),
            None => wanted,
        };
        // It goes over the wire in milliseconds.
        let time = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        *waits += time;
        drop(waits);
        Wait { time, waits: Arc::clone(&self.waits) }
    }

    /// Makes a call. Dropped before it is taken it is not made; later, the reply is thrown away when it comes.
    pub(crate) async fn call(&self, call: EncodedRequest) -> Result<RawResponse, Failed> {
        let (reply, answered) = oneshot::channel();
        if self.calls.send(Submitted { call, reply }).await.is_err() {
            return Err(Failed { error: Some(ConnectionError::Closed), sent: false });
        }
        answered.await.unwrap_or(Err(Failed { error: None, sent: true }))
    }
}

struct Driver {
    connection: Connection<oneshot::Sender<Result<RawResponse, Failed>>>,
    read: ReadHalf<Stream>,
    write: WriteHalf<Stream>,
    inbox: BytesMut,
    /// How many more bytes the next frame wants.
    wanted: usize,
    writing: Option<(CorrelationId, Frame)>,
    /// Whether everything written has been flushed, which streams that encrypt need.
    flushed: bool,
    /// How long a write may make no progress.
    stall: Duration,
    ready: Option<oneshot::Sender<Result<Arc<NegotiatedVersions>, ConnectionError>>>,
    /// Of a connection that has authenticated.
    renewals: Option<Arc<Renewals>>,
    term: watch::Sender<Option<Term>>,
    /// What the connection waits for besides its peer. They end with it.
    tasks: JoinSet<Done>,
}

/// What came of a task.
enum Done {
    Computed(Computed),
    /// What to renew the session with, `None` if it is over before there is anything.
    Renew(Option<Box<dyn Mechanism>>),
}

impl Driver {
    async fn run(
        mut self,
        mut calls: mpsc::Receiver<Submitted>,
        mut throttle: watch::Receiver<Option<Instant>>,
    ) {
        let mut timer = pin!(sleep_until(Instant::now()));
        let mut stalled = pin!(sleep_until(Instant::now() + self.stall));
        let mut is_ready = false;
        let mut done = false;
        let mut expired = false;
        loop {
            // Asked before anything leaves: who has set a pause and then made a call relies on their order.
            if throttle.has_changed().unwrap_or_default() {
                self.pause(*throttle.borrow_and_update());
            }
            if self.writing.is_none() {
                self.writing = self.connection.poll_transmit();
                if self.writing.is_some() {
                    stalled.as_mut().reset(Instant::now() + self.stall);
                }
            }
            while let Some(event) = self.connection.poll_event() {
                match event {
                    Event::Ready(session) => {
                        debug!("ready");
                        is_ready = true;
                        done |= self.ready.take().is_none_or(|ready| ready.send(Ok(session)).is_err());
                    }
                    Event::Authenticated(lifetime) => self.authenticated(lifetime),
                    Event::Compute(computation) => {
                        self.tasks.spawn_blocking(|| Done::Computed(computation.run()));
                    }
                    Event::Response(reply, response) => drop(reply.send(Ok(response))),
                    Event::Closed(error) => return self.end(error, calls).await,
                }
            }
            // Who waits for a reply has a link, so nobody does.
            if done || expired && self.connection.in_flight() == 0 {
                debug!("closing, nobody needs it any more");
                return;
            }
            let deadline = self.connection.poll_timeout().map(Instant::from_std);
            let deadline = deadline.filter(|_| !planted!(RequestWithoutDeadline));
            let is_writing = self.writing.is_some();
            let has_room =
                self.connection.in_flight() < QUEUE && self.connection.outgoing_bytes() < HIGH_WATER;
            tokio::select! {
                biased;
                () = given_up(&mut self.ready) => {
                    debug!("closing, nobody waits for it to be ready any more");
                    return;
                }
                // Reads never wait for writes: a broker that is busy answering may not read.
                read = receive(&mut self.read, &mut self.inbox, self.wanted) => self.received(read),
                wrote = send(&mut self.write, &mut self.writing), if is_writing || !self.flushed => {
                    self.sent(wrote, stalled.as_mut());
                }
                Some(task) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    expired |= self.finished(task, &mut calls);
                }
                call = calls.recv(), if is_ready && !expired && has_room => match call {
                    Some(call) => self.submit(call),
                    None => done = true,
                },
                () = wake_at(timer.as_mut(), deadline) => {
                    self.connection.handle_timeout(Instant::now().into_std());
                }
                () = &mut stalled, if is_writing => self.connection.handle_io_error(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("the broker took no bytes for {:?}", self.stall),
                )),
                Ok(()) = throttle.changed() => self.pause(*throttle.borrow_and_update()),
            }
        }
    }

    /// The session is good for so long from now.
    fn authenticated(&mut self, lifetime: Option<Duration>) {
        debug!(?lifetime, "authenticated");
        let term = match (&self.renewals, lifetime) {
            (Some(renewals), Some(lifetime)) => {
                let term = renewals.plan(lifetime);
                let renewals = Arc::clone(renewals);
                self.tasks.spawn(async move { Done::Renew(renewals.mechanism(term).await) });
                Some(term)
            }
            _ => None,
        };
        self.term.send_replace(term);
    }

    /// Goes on with what a task has brought. Answers whether the session has expired, so that no more calls are taken.
    fn finished(&mut self, task: Result<Done, JoinError>, calls: &mut mpsc::Receiver<Submitted>) -> bool {
        match task {
            Ok(Done::Computed(computed)) => self.connection.handle_computed(computed),
            Ok(Done::Renew(Some(mechanism))) => {
                let limit = self.renewals.as_ref().map_or(Duration::ZERO, |renewals| renewals.limit);
                let now = Instant::now().into_std();
                if let Err(error) = self.connection.reauthenticate(now, mechanism, limit) {
                    debug!(%error, "the session cannot be renewed");
                }
            }
            // What is under way will be answered. What is not goes to another connection, which says why there is none.
            Ok(Done::Renew(None)) => {
                debug!("the session is over, closing");
                calls.close();
                while let Ok(Submitted { reply, .. }) = calls.try_recv() {
                    drop(reply.send(Err(Failed { error: Some(ConnectionError::Closed), sent: false })));
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

    fn pause(&mut self, until: Option<Instant>) {
        let now = Instant::now();
        if let Some(pause) = until.and_then(|until| until.checked_duration_since(now)) {
            debug!(?pause, "throttled");
            self.connection.throttle(now.into_std(), pause);
        }
    }

    fn received(&mut self, read: io::Result<usize>) {
        match read {
            Ok(0) => self.connection.handle_eof(),
            Ok(_) => match self.connection.handle_input(Instant::now().into_std(), &mut self.inbox) {
                Ok(wanted) => self.wanted = wanted,
                // The connection is closed by it, and says so as an event.
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

    fn submit(&mut self, Submitted { call, reply }: Submitted) {
        // A caller that is gone by now has not been promised anything.
        if reply.is_closed() {
            return;
        }
        let sent = self.connection.send(Instant::now().into_std(), call, reply);
        if let Err(SendError { error, token: reply }) = sent {
            drop(reply.send(Err(Failed { error: Some(error), sent: false })));
        }
    }

    /// Tells everybody who waits.
    async fn end(mut self, error: ConnectionError, mut calls: mpsc::Receiver<Submitted>) {
        debug!(%error, "closed");
        if let (Some(renewals), ConnectionError::AuthenticationFailed { .. } | ConnectionError::Sasl { .. }) =
            (&self.renewals, &error)
        {
            renewals.sasl.refused();
        }
        if let Some(ready) = self.ready.take() {
            drop(ready.send(Err(error.clone())));
        }
        for PendingRequest { token: reply, handed_out: sent } in self.connection.drain_pending() {
            drop(reply.send(Err(Failed { error: Some(error.clone()), sent })));
        }
        calls.close();
        while let Some(Submitted { reply, .. }) = calls.recv().await {
            drop(reply.send(Err(Failed { error: Some(error.clone()), sent: false })));
        }
    }
}

/// Reads what there is, with room for what is wanted as far as the peer has earned it. Safe to be dropped.
async fn receive(read: &mut ReadHalf<Stream>, inbox: &mut BytesMut, wanted: usize) -> io::Result<usize> {
    inbox.reserve(wanted.clamp(CHUNK, CREDIT.max(inbox.len())));
    read.read_buf(inbox).await
}

/// Writes a piece of the frame, or flushes when there is none; answers how many bytes. Safe to be dropped.
async fn send(
    write: &mut WriteHalf<Stream>,
    writing: &mut Option<(CorrelationId, Frame)>,
) -> io::Result<usize> {
    match writing {
        Some((_, frame)) => match write.write_buf(frame).await {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            result => result,
        },
        None => write.flush().await.map(|()| 0),
    }
}

/// When who has asked for the connection does not want it any more.
async fn given_up(ready: &mut Option<oneshot::Sender<Result<Arc<NegotiatedVersions>, ConnectionError>>>) {
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
