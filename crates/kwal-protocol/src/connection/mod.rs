//! One connection to a broker, without the socket: framing, correlation, the handshake, deadlines.
//!
//! ```text
//!           send                                        poll_event
//!   calls ────────►┌──────────┐ poll_transmit             ▲ Ready, Reply, Closed
//!                  │ outgoing ├──────────────► bytes      │
//!                  └──────────┘ in state Ready,    ┌──────┴────┐ handle_input
//!                               not throttled      │ in flight │◄───────────── bytes
//!                                                  └───────────┘
//! ```
//! Brokers answer the requests of one connection in order, so what is in flight is a queue, and a reply with another
//! correlation id than the oldest request's ends the connection. Nothing is encoded or decoded here but the handshake:
//! [`Session::encode`] makes a [`Call`], [`Reply::decode`] reads a [`Reply`], both on the caller's side.
//!
//! # The handshake
//! A connection starts in the state *versions*: ApiVersions is asked in the newest version known here. A broker that does
//! not know it says so in version 0 (KIP-511) and is asked again, in the version that it names or else in version 0. Then the
//! connection is *ready*.
//!
//! Between these two a connection *authenticates*, if it was given a [`Mechanism`]; and it goes back there from *ready* when a
//! session is to be renewed on the same connection ([`Connection::reauthenticate`], KIP-368). While it authenticates, calls
//! stay in `outgoing` as they do under throttling; those in flight are answered first, then the exchange goes through
//! the same slot as ApiVersions, ahead of all calls. What takes a mechanism long to compute is handed out as an event.

mod authentication;
mod error;
mod handshake;
mod session;

pub use authentication::{Computation, Computed};
pub use error::{ConnectionError, Misbehaviour, OtherProtocol, Stage};
pub use session::{Call, CallError, Reply, Session};

use std::{
    collections::VecDeque,
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};

use self::authentication::Authentication;
use self::handshake::{VersionsReply, check_software, other_protocol, read_versions, versions_call};
use crate::{
    api::{ApiKey, Body},
    messages::{ApiVersionsRequest, ApiVersionsResponse},
    sasl::Mechanism,
    wire::Version,
    writer::Frame,
};

/// One connection to a broker, without the socket.
///
/// * `handle_…`: what the outside brings.
/// * [`send`](Self::send), [`throttle`](Self::throttle), [`close`](Self::close): what the owner wants.
/// * [`poll_transmit`](Self::poll_transmit), [`poll_event`](Self::poll_event), [`poll_timeout`](Self::poll_timeout): what
///   it wants of the outside; drain them, in this order, after every call of the other two kinds.
///
/// Nothing here waits, and nothing asks for the time: it comes in as `now`, which must never go back.
///
/// A write that makes no progress is the owner's to notice: a request's time starts only when its bytes have left.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use bytes::{BufMut, BytesMut};
/// use kwal_protocol::{
///     api::{ApiKey, Body, encode_response},
///     connection::{Connection, ConnectionConfig, Event},
///     messages::{ApiVersion, ApiVersionsResponse, MetadataRequest, MetadataResponse},
/// };
///
/// let now = Instant::now();
/// let mut connection = Connection::new(ConnectionConfig::default(), now);
///
/// // The first thing that it wants to send is ApiVersions; this is what a broker may answer.
/// let (id, _frame) = connection.poll_transmit().unwrap();
/// connection.handle_transmitted(now, id);
/// let mut inbox = BytesMut::new();
/// let metadata = ApiVersion { api_key: ApiKey::METADATA, min_version: 0, max_version: 12 };
/// let told = ApiVersionsResponse { api_keys: vec![metadata], ..Default::default() };
/// inbox.put(encode_response(&told, 4, id.0)?);
/// assert_eq!(connection.handle_input(now, &mut inbox)?, 4); // nothing more than the next length
/// let Some(Event::Ready(session)) = connection.poll_event() else { panic!() };
///
/// // Now calls can be encoded, anywhere, and sent.
/// let call = session.encode(&MetadataRequest::default(), MetadataRequest::VERSIONS)?;
/// assert_eq!(call.version().number, 12);
/// let id = connection.send(now, call)?;
/// let (sent, _frame) = connection.poll_transmit().unwrap();
/// assert_eq!(sent, id);
/// connection.handle_transmitted(now, id);
/// assert_eq!(connection.poll_timeout(), Some(now + Duration::from_secs(10)));
///
/// inbox.put(encode_response(&MetadataResponse::default(), 12, id.0)?);
/// connection.handle_input(now, &mut inbox)?;
/// let Some(Event::Reply(answered, reply)) = connection.poll_event() else { panic!() };
/// assert_eq!(answered, id);
/// assert_eq!(reply.decode::<MetadataRequest>()?, MetadataResponse::default());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    config: ConnectionConfig,
    state: State,
    /// A request of the handshake that is to go out, ahead of all calls.
    handshake: Option<Outgoing>,
    /// Calls not handed out yet, in their order; held back unless the state is ready and nothing throttles.
    outgoing: VecDeque<Outgoing>,
    outgoing_bytes: usize,
    /// Requests handed out that wait for a reply, in their order.
    in_flight: VecDeque<InFlight>,
    /// When the first of them is overdue.
    overdue_at: Option<Instant>,
    events: VecDeque<Event>,
    next_id: i32,
    throttled_until: Option<Instant>,
    /// To authenticate with once the versions are known.
    mechanism: Option<Box<dyn Mechanism>>,
    /// What the handshake taught.
    session: Option<Arc<Session>>,
    /// Whether the peer has shown that it speaks Kafka.
    heard: bool,
    /// Whether the broker has shown that it lets this client in: answered a call, or authenticated it.
    admitted: bool,
}

/// How a [`Connection`] behaves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectionConfig {
    /// What the client calls itself: shows in the broker's logs, metrics and quotas. `None` sends null.
    pub client_id: Option<String>,
    /// The name of the client library, for the broker's metrics (KIP-511): letters, digits, `-` and `.`, the first and the
    /// last a letter or digit.
    pub client_software_name: String,
    /// The version of the client library; of the same characters.
    pub client_software_version: String,
    /// The largest frame that is taken, in bytes. 128 MiB by default: more than a broker takes itself with its own defaults
    /// (`socket.request.max.bytes`, 100 MiB), and more than the 50 MiB that Kafka's consumers ask for at once.
    pub max_frame_len: usize,
    /// How many calls may wait, handed out or not, 1000 by default. A broker works on one of them at a time.
    pub max_in_flight: usize,
    /// How long the reply to a call may take, 10 s by default; [`Call::with_timeout`] goes before it. A broker works on one
    /// request of a connection at a time, so the time of each starts when its bytes have left and those ahead of it are
    /// answered. It stands still while the connection is throttled.
    pub request_timeout: Duration,
    /// How long the whole handshake may take, 10 s by default.
    pub handshake_timeout: Duration,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            client_id: None,
            client_software_name: "kwal".to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
            max_frame_len: 128 << 20,
            max_in_flight: 1000,
            request_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// What a connection has to tell.
#[derive(Debug)]
pub enum Event {
    /// The broker knows who is there; before [`Ready`](Self::Ready), and again after each
    /// [`Connection::reauthenticate`]. For how long the session is good from now, if not for ever (KIP-368).
    Authenticated(Option<Duration>),
    /// The mechanism has to compute something that may take a second: run it elsewhere, and hand the result to
    /// [`Connection::handle_computed`]. The handshake's time goes on.
    Compute(Computation),
    /// The handshake is done; calls may be encoded and sent.
    Ready(Arc<Session>),
    /// The reply to a call.
    Reply(CorrelationId, Reply),
    /// The end, told once and last: no call that has no reply will get one. Which of them may have reached the broker:
    /// [`Connection::was_handed_out`].
    Closed(ConnectionError),
}

/// The number that ties a reply to its request, on one connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct CorrelationId(pub i32);

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug)]
enum State {
    /// ApiVersions has been asked in this version.
    Versions { asked: i16, deadline: Option<Instant> },
    /// A SASL exchange is under way; entered from the one above and from the one below.
    Authenticating(Authentication),
    /// Calls go out as they come.
    Ready,
    /// Nothing goes any more. Who asks is told why.
    Closed(ConnectionError),
}

#[derive(Debug)]
struct Outgoing {
    id: CorrelationId,
    call: Call,
    origin: Origin,
}

/// Whom a reply is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    Handshake,
    Owner,
}

#[derive(Debug)]
struct InFlight {
    id: CorrelationId,
    key: ApiKey,
    version: Version,
    origin: Origin,
    /// `None` for the handshake, which has a limit as a whole.
    timeout: Option<Duration>,
    /// Whether the last byte has left.
    has_left: bool,
}

impl Connection {
    /// Starts the handshake: the first request is there to be [transmitted](Self::poll_transmit) at once, unless the
    /// configuration is wrong; then the connection is closed at once.
    pub fn new(config: ConnectionConfig, now: Instant) -> Self {
        Self::start(config, None, now)
    }

    /// The same on a listener that wants to know who is there: authenticates before the connection is ready.
    pub fn with_sasl(config: ConnectionConfig, mechanism: Box<dyn Mechanism>, now: Instant) -> Self {
        Self::start(config, Some(mechanism), now)
    }

    fn start(config: ConnectionConfig, mechanism: Option<Box<dyn Mechanism>>, now: Instant) -> Self {
        let newest = ApiVersionsRequest::VERSIONS.newest;
        let deadline = now.checked_add(config.handshake_timeout);
        let mut this = Self {
            config,
            state: State::Versions { asked: newest, deadline },
            handshake: None,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            in_flight: VecDeque::new(),
            overdue_at: None,
            events: VecDeque::new(),
            next_id: 0,
            throttled_until: None,
            mechanism,
            session: None,
            heard: false,
            admitted: false,
        };
        if let Err(error) = this.ask_versions(newest) {
            this.close(error);
        }
        this
    }

    /// Queues a call. Calls leave in the order in which they were queued.
    ///
    /// # Errors
    /// The call is not taken, and nothing of it is sent: [`ConnectionError::NotReady`] before [`Event::Ready`],
    /// [`ConnectionError::TooManyInFlight`], or why the connection is closed.
    pub fn send(&mut self, now: Instant, call: Call) -> Result<CorrelationId, ConnectionError> {
        self.end_throttle(now);
        match &self.state {
            State::Versions { .. } | State::Authenticating(Authentication { again: false, .. }) => {
                return Err(ConnectionError::NotReady);
            }
            State::Closed(error) => return Err(error.clone()),
            State::Authenticating(_) | State::Ready => {}
        }
        let limit = self.config.max_in_flight;
        if self.in_flight() >= limit {
            return Err(ConnectionError::TooManyInFlight { limit });
        }
        self.outgoing_bytes += call.size_in_bytes();
        let outgoing = self.number(call, Origin::Owner);
        let id = outgoing.id;
        self.outgoing.push_back(outgoing);
        Ok(id)
    }

    /// Closes the connection, for the reason given, unless it is closed already. Replies that are there are still told.
    pub fn close(&mut self, error: ConnectionError) {
        if self.is_closed() {
            return;
        }
        self.state = State::Closed(error.clone());
        self.handshake = None;
        self.throttled_until = None;
        self.events.push_back(Event::Closed(error));
    }

    /// Takes every whole frame off the front of `inbox`, and says how many bytes are missing to the end of the next length or
    /// frame: never more than [`max_frame_len`](ConnectionConfig::max_frame_len). A frame is not copied: it is split off and
    /// shares the memory of `inbox`.
    ///
    /// The peer only claims these bytes. Who must not be made to hold memory for nothing reserves at most as many as have
    /// arrived already, or some tens of kilobytes.
    ///
    /// # Errors
    /// Why the connection is closed, by this input or before; [`Event::Closed`] tells the same.
    pub fn handle_input(&mut self, now: Instant, inbox: &mut BytesMut) -> Result<usize, ConnectionError> {
        self.end_throttle(now);
        loop {
            if let State::Closed(error) = &self.state {
                return Err(error.clone());
            }
            match self.next_frame(inbox) {
                Ok(Input::Wants(missing)) => return Ok(missing),
                Ok(Input::Frame(frame)) => {
                    if let Err(error) = self.handle_frame(now, frame) {
                        self.close(error);
                    }
                }
                Err(error) => self.close(error),
            }
        }
    }

    /// The peer has ended the stream: closes the connection with [`ConnectionError::PeerClosed`], which tells the stage.
    pub fn handle_eof(&mut self) {
        self.close(ConnectionError::PeerClosed { stage: self.stage() });
    }

    /// The stream broke: closes the connection with [`ConnectionError::Io`], which tells the stage.
    pub fn handle_io_error(&mut self, error: io::Error) {
        self.close(ConnectionError::Io { stage: self.stage(), source: Arc::new(error) });
    }

    /// Time has passed: ends a pause, and closes the connection if the handshake or a request is overdue.
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
            self.close(ConnectionError::RequestTimedOut { api, version, after });
        }
    }

    /// The last byte of a frame has left: the time of its request starts now, or when those ahead of it are answered, or when
    /// the pause ends that a broker asked for. Said of a call that has no reply or has got it, it does nothing.
    pub fn handle_transmitted(&mut self, now: Instant, id: CorrelationId) {
        if let Some(call) = self.in_flight.iter_mut().rev().find(|call| call.id == id) {
            call.has_left = true;
            self.start_time(now);
        }
    }

    /// Starts the time of the first request in flight, unless it runs already.
    fn start_time(&mut self, now: Instant) {
        if let Some(call) = self.in_flight.front().filter(|call| call.has_left)
            && self.overdue_at.is_none()
        {
            let start = self.throttled_until.map_or(now, |until| until.max(now));
            self.overdue_at = call.timeout.and_then(|timeout| start.checked_add(timeout));
        }
    }

    /// The next frame to write, and the call it belongs to. From here on that call may have reached the broker.
    pub fn poll_transmit(&mut self) -> Option<(CorrelationId, Frame)> {
        if self.is_closed() || self.throttled_until.is_some() {
            return None;
        }
        let Outgoing { id, call, origin } = match (self.handshake.take(), &self.state) {
            (Some(request), _) => request,
            (None, State::Ready) => {
                let call = self.outgoing.pop_front()?;
                self.outgoing_bytes -= call.call.size_in_bytes();
                call
            }
            (None, _) => return None,
        };
        if call.expects_reply {
            let timeout = match origin {
                Origin::Handshake => None,
                Origin::Owner => Some(call.timeout.unwrap_or(self.config.request_timeout)),
            };
            let Call { key, version, .. } = call;
            self.in_flight.push_back(InFlight { id, key, version, origin, timeout, has_left: false });
        }
        Some((id, call.frame))
    }

    /// What there is to tell, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_closed() {
            return None;
        }
        let handshake = self.handshake_deadline();
        let held = self.handshake.is_some() || !self.outgoing.is_empty();
        let pause = self.throttled_until.filter(|_| held);
        [handshake, pause, self.overdue_at].into_iter().flatten().min()
    }

    /// The broker asked for a pause (`throttleTimeMs` of a response, KIP-219): nothing is handed out before it is over, and
    /// the time of what is in flight stands still. Of several pauses the one that ends last counts.
    pub fn throttle(&mut self, now: Instant, pause: Duration) {
        self.end_throttle(now);
        let Some(until) = now.checked_add(pause) else { return };
        let from = self.throttled_until.unwrap_or(now);
        if self.is_closed() || until <= from {
            return;
        }
        self.throttled_until = Some(until);
        self.overdue_at = self.overdue_at.and_then(|at| at.checked_add(until - from));
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has handed the call out, so that the broker may have got it. Of a call
    /// for which this is false the broker knows nothing. Also to be asked after the connection was closed.
    pub fn was_handed_out(&self, id: CorrelationId) -> bool {
        !self.outgoing.iter().any(|call| call.id == id)
    }

    /// Whether the handshake is done and calls are taken; held back they may be.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready | State::Authenticating(Authentication { again: true, .. }))
    }

    /// Whether the connection is closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    /// How many calls wait for their replies, handed out or not.
    pub fn in_flight(&self) -> usize {
        self.outgoing.len() + self.in_flight.len()
    }

    /// How many bytes of calls have not been handed out: what a pause or a handshake holds back.
    pub fn outgoing_bytes(&self) -> usize {
        self.outgoing_bytes
    }

    /// Until when nothing is handed out, if the broker asked for a pause.
    pub fn throttled_until(&self) -> Option<Instant> {
        self.throttled_until
    }

    fn handshake_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Versions { deadline, .. } => *deadline,
            State::Authenticating(authentication) => authentication.deadline,
            State::Ready | State::Closed(_) => None,
        }
    }

    /// Where the connection stands.
    fn stage(&self) -> Stage {
        match self.state {
            State::Versions { asked, .. } => Stage::Versions { version: asked },
            State::Authenticating(_) => Stage::Authentication,
            State::Ready | State::Closed(_) => {
                match self.in_flight.front().map(|call| (call.key, call.version.number)) {
                    Some((api, version)) if !self.admitted => Stage::FirstCall { api, version },
                    awaited => Stage::Ready { awaited },
                }
            }
        }
    }

    fn number(&mut self, mut call: Call, origin: Origin) -> Outgoing {
        let id = CorrelationId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        call.frame.set_correlation_id(id.0);
        Outgoing { id, call, origin }
    }

    fn end_throttle(&mut self, now: Instant) {
        if self.throttled_until.is_some_and(|until| until <= now) {
            self.throttled_until = None;
        }
    }

    /// Takes the next frame off `inbox` if it is whole. What its first bytes say is checked before the rest is waited for.
    fn next_frame(&mut self, inbox: &mut BytesMut) -> Result<Input, ConnectionError> {
        let Some(prefix) = inbox.first_chunk::<4>() else { return Ok(Input::Wants(4 - inbox.len())) };
        if !self.heard
            && let Some(other) = other_protocol(inbox, self.config.max_frame_len)
        {
            return Err(ConnectionError::NotKafka(other));
        }
        let misbehaved = |what| Err(ConnectionError::PeerMisbehaved(what));
        let Some(asked) = self.in_flight.front() else { return misbehaved(Misbehaviour::Unasked) };
        let signed = i32::from_be_bytes(*prefix);
        let Some(len) = usize::try_from(signed).ok().filter(|len| *len >= 4) else {
            return misbehaved(Misbehaviour::FrameLength(signed));
        };
        if len > self.config.max_frame_len {
            let (api, version, max) = (asked.key, asked.version.number, self.config.max_frame_len);
            return Err(ConnectionError::FrameTooLarge { api, version, len, max });
        }
        if let Some(id) = inbox[4..].first_chunk() {
            let (api, expected, got) = (asked.key, asked.id, CorrelationId(i32::from_be_bytes(*id)));
            if got != expected {
                return misbehaved(Misbehaviour::CorrelationId { api, expected, got });
            }
        }
        self.heard = true;
        match (4 + len).checked_sub(inbox.len()) {
            None | Some(0) => {
                inbox.advance(4);
                Ok(Input::Frame(inbox.split_to(len).freeze()))
            }
            Some(missing) => Ok(Input::Wants(missing)),
        }
    }

    /// Takes the reply to the oldest request.
    fn handle_frame(&mut self, now: Instant, frame: Bytes) -> Result<(), ConnectionError> {
        let Some(InFlight { id, key, version, origin, .. }) = self.in_flight.pop_front() else {
            return Err(ConnectionError::PeerMisbehaved(Misbehaviour::Unasked));
        };
        self.overdue_at = None;
        self.start_time(now);
        match (origin, &self.state) {
            (Origin::Handshake, State::Versions { asked, .. }) => match read_versions(*asked, &frame)? {
                VersionsReply::Told(told) => self.be_ready(now, told),
                VersionsReply::AskAgain(version) => self.ask_versions(version)?,
            },
            (Origin::Handshake, _) => self.handle_authentication(&frame)?,
            (Origin::Owner, _) => {
                self.admitted = true;
                self.events.push_back(Event::Reply(id, Reply { frame, key, version }));
                self.begin_when_drained(now);
            }
        }
        Ok(())
    }

    fn ask_versions(&mut self, version: i16) -> Result<(), ConnectionError> {
        let ConnectionConfig { client_id, client_software_name, client_software_version, .. } = &self.config;
        check_software("client_software_name", client_software_name)?;
        check_software("client_software_version", client_software_version)?;
        let request = ApiVersionsRequest {
            client_software_name: client_software_name.clone(),
            client_software_version: client_software_version.clone(),
        };
        let call = versions_call(&request, version, client_id.as_deref())?;
        if let State::Versions { asked, .. } = &mut self.state {
            *asked = version;
        }
        self.handshake = Some(self.number(call, Origin::Handshake));
        Ok(())
    }

    fn be_ready(&mut self, now: Instant, told: ApiVersionsResponse) {
        if let Ok(pause) = u64::try_from(told.throttle_time_ms) {
            self.throttle(now, Duration::from_millis(pause));
        }
        let client_id = self.config.client_id.as_deref().map(Arc::from);
        let session = Arc::new(Session::new(client_id, told));
        self.session = Some(Arc::clone(&session));
        match self.mechanism.take() {
            Some(mechanism) => self.authenticate(now, mechanism, self.handshake_deadline()),
            None => {
                self.state = State::Ready;
                self.events.push_back(Event::Ready(session));
            }
        }
    }
}

/// What an inbox holds at its front.
enum Input {
    Frame(Bytes),
    /// So many bytes are missing.
    Wants(usize),
}
