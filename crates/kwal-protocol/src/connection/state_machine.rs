mod time;

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};

use super::{
    authentication::{Authentication, Computed, Progress},
    config::ConnectionConfig,
    error::{ConnectionError, Misbehaviour, ResponseProgress, SendError, Stage},
    event::Event,
    handshake::{ApiVersionsResult, check_software, encode_api_versions, other_protocol, read_versions},
    inbox::{Input, take_frame},
    pending::{InFlight, Origin, Outgoing, PendingRequest},
    request::{CorrelationId, EncodedRequest},
    response::RawResponse,
    versions::NegotiatedVersions,
};
use crate::{
    api::Body,
    messages::{ApiVersionsRequest, ApiVersionsResponse},
    sasl::Mechanism,
    writer::Frame,
};

/// One connection to a broker, without the socket.
///
/// * Commands of the owner: [`send`](Self::send), [`throttle`](Self::throttle), [`close`](Self::close).
/// * Input from outside: `handle_…`.
/// * Output: [`poll_transmit`](Self::poll_transmit), [`poll_event`](Self::poll_event),
///   [`poll_timeout`](Self::poll_timeout). Drain them, in this order, after every command and every input.
///
/// No method blocks, and none reads a clock: the time is the argument `now`, which must never go back.
///
/// Each request carries a token of the caller's type `T`, such as a channel for the response. It is returned
/// with the response, or by [`drain_pending`](Self::drain_pending) after the connection is closed. `T = ()`
/// needs no bookkeeping.
///
/// The owner has to notice a write that makes no progress: the time of a request only starts when it has been
/// written.
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
/// // The first request is ApiVersions; this is a possible response.
/// let (id, _frame) = connection.poll_transmit().unwrap();
/// connection.handle_transmitted(now, id);
/// let mut inbox = BytesMut::new();
/// let metadata = ApiVersion { api_key: ApiKey::METADATA, min_version: 0, max_version: 12 };
/// let response = ApiVersionsResponse { api_keys: vec![metadata], ..Default::default() };
/// inbox.put(encode_response(&response, 4, id.0)?);
/// assert_eq!(connection.handle_input(now, &mut inbox)?, 4); // only the next length is missing
/// let Some(Event::Ready(versions)) = connection.poll_event() else { panic!() };
///
/// // Now requests can be encoded, on any thread, and sent with a token.
/// let request = versions.encode(&MetadataRequest::default(), MetadataRequest::VERSIONS)?;
/// assert_eq!(request.version().number, 12);
/// let id = connection.send(now, request, "all topics")?;
/// let (sent, _frame) = connection.poll_transmit().unwrap();
/// assert_eq!(sent, id);
/// assert_eq!(connection.handle_transmitted(now, id), Some(&mut "all topics"));
/// assert_eq!(connection.poll_timeout(), Some(now + Duration::from_secs(10)));
///
/// inbox.put(encode_response(&MetadataResponse::default(), 12, id.0)?);
/// connection.handle_input(now, &mut inbox)?;
/// let Some(Event::Response(token, response)) = connection.poll_event() else { panic!() };
/// assert_eq!(token, "all topics");
/// assert_eq!(response.decode::<MetadataRequest>()?, MetadataResponse::default());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connection<T = ()> {
    config: ConnectionConfig,
    state: State,
    /// The next request of the handshake; it goes out ahead of all requests of the owner.
    handshake: Option<Outgoing<T>>,
    /// Requests not handed out yet, in order.
    ///
    /// Held back unless the state is ready and the connection is not throttled.
    outgoing: VecDeque<Outgoing<T>>,
    outgoing_bytes: usize,
    /// Requests handed out and not answered yet, in order.
    in_flight: VecDeque<InFlight<T>>,
    /// The deadline of the oldest request in flight, once its time has started.
    overdue_at: Option<Instant>,
    /// The part of its response that has arrived, if any.
    arriving: Option<ResponseProgress>,
    /// The bytes of it when its time was last restarted.
    counted: usize,
    events: VecDeque<Event<T>>,
    next_id: i32,
    throttled_until: Option<Instant>,
    /// For the first authentication, which starts when the versions are known.
    mechanism: Option<Box<dyn Mechanism>>,
    /// Known after the first stage of the handshake.
    versions: Option<Arc<NegotiatedVersions>>,
    /// Whether the peer has sent a plausible Kafka frame.
    heard: bool,
    /// Whether the broker has authenticated this client or answered a request of the owner.
    admitted: bool,
}

#[derive(Debug)]
enum State {
    /// ApiVersions has been sent in the version `requested`.
    Versions { requested: i16, deadline: Option<Instant> },
    /// A SASL exchange is in progress; entered from the state above and from the one below.
    Authenticating(Authentication),
    /// Requests are handed out as they come.
    Ready,
    /// Nothing is sent or received any more, for this reason.
    Closed(ConnectionError),
}

impl<T> Connection<T> {
    /// Starts the handshake: the first request can be [transmitted](Self::poll_transmit) at once.
    ///
    /// If the configuration is invalid, the connection is closed from the start.
    pub fn new(config: ConnectionConfig, now: Instant) -> Self {
        Self::start(config, None, now)
    }

    /// Starts the handshake on a listener that requires SASL: authenticates before the connection is ready.
    pub fn with_sasl(config: ConnectionConfig, mechanism: Box<dyn Mechanism>, now: Instant) -> Self {
        Self::start(config, Some(mechanism), now)
    }

    fn start(config: ConnectionConfig, mechanism: Option<Box<dyn Mechanism>>, now: Instant) -> Self {
        let newest = ApiVersionsRequest::VERSIONS.newest;
        let deadline = now.checked_add(config.handshake_timeout);
        let admitted = config.admitted;
        let mut this = Self {
            config,
            state: State::Versions { requested: newest, deadline },
            handshake: None,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            in_flight: VecDeque::new(),
            overdue_at: None,
            arriving: None,
            counted: 0,
            events: VecDeque::new(),
            next_id: 0,
            throttled_until: None,
            mechanism,
            versions: None,
            heard: false,
            admitted,
        };
        if let Err(error) = this.request_versions(newest) {
            this.close(error);
        }
        this
    }

    /// Queues a request. Requests are handed out in the order in which they were queued.
    ///
    /// The token is returned with the response. A request without response (Produce with acks = 0) drops its
    /// token when it is handed out.
    ///
    /// # Errors
    /// The request is rejected and nothing of it is sent: [`ConnectionError::NotReady`] until
    /// [`Event::Ready`], [`ConnectionError::TooManyInFlight`], or the reason why the connection is closed.
    /// [`SendError`] contains the token.
    pub fn send(
        &mut self,
        now: Instant,
        request: EncodedRequest,
        token: T,
    ) -> Result<CorrelationId, SendError<T>> {
        self.end_throttle(now);
        if let Err(error) = self.check_accepts() {
            return Err(SendError { error, token });
        }
        self.outgoing_bytes += request.size_in_bytes();
        let outgoing = self.number(request, Origin::Owner(token));
        let id = outgoing.id;
        self.outgoing.push_back(outgoing);
        Ok(id)
    }

    fn check_accepts(&self) -> Result<(), ConnectionError> {
        match &self.state {
            State::Versions { .. } | State::Authenticating(Authentication { again: false, .. }) => {
                return Err(ConnectionError::NotReady);
            }
            State::Closed(error) => return Err(error.clone()),
            State::Authenticating(_) | State::Ready => {}
        }
        let limit = self.config.max_in_flight;
        match self.in_flight() >= limit {
            true => Err(ConnectionError::TooManyInFlight { limit }),
            false => Ok(()),
        }
    }

    /// Closes the connection for the given reason, unless it is already closed.
    ///
    /// Responses received so far stay events.
    pub fn close(&mut self, error: ConnectionError) {
        if self.is_closed() {
            return;
        }
        self.state = State::Closed(error.clone());
        self.handshake = None;
        self.throttled_until = None;
        self.events.push_back(Event::Closed(error));
    }

    /// Removes the requests without a response from a closed connection, in the order they were sent.
    ///
    /// It yields nothing while the connection is open.
    pub fn drain_pending(&mut self) -> impl Iterator<Item = PendingRequest<T>> + '_ {
        let (in_flight, outgoing) = match self.is_closed() {
            true => (self.in_flight.len(), self.outgoing.len()),
            false => (0, 0),
        };
        if self.is_closed() {
            self.outgoing_bytes = 0;
        }
        let pending = |handed_out| move |token| PendingRequest { token, handed_out };
        let in_flight = self.in_flight.drain(..in_flight).filter_map(|request| request.origin.into_token());
        let outgoing = self.outgoing.drain(..outgoing).filter_map(|request| request.origin.into_token());
        in_flight.map(pending(true)).chain(outgoing.map(pending(false)))
    }

    /// Withdraws requests that have not been handed out: those whose token `is_withdrawn` selects, in order.
    /// They have not reached the broker and never will.
    pub fn withdraw(&mut self, is_withdrawn: impl Fn(&T) -> bool) -> Vec<T> {
        let mut withdrawn = Vec::new();
        let is_owned = |outgoing: &Outgoing<T>| match &outgoing.origin {
            Origin::Owner(token) => is_withdrawn(token),
            Origin::Handshake => false,
        };
        // Mostly there are none.
        if !self.outgoing.iter().any(is_owned) {
            return withdrawn;
        }
        for outgoing in std::mem::take(&mut self.outgoing) {
            match outgoing.origin {
                Origin::Owner(token) if is_withdrawn(&token) => {
                    self.outgoing_bytes -= outgoing.request.size_in_bytes();
                    withdrawn.push(token);
                }
                origin => self.outgoing.push_back(Outgoing { origin, ..outgoing }),
            }
        }
        withdrawn
    }

    /// The token of the oldest request in flight; `None` also if that belongs to the handshake.
    pub fn oldest(&self) -> Option<&T> {
        match &self.in_flight.front()?.origin {
            Origin::Owner(token) => Some(token),
            Origin::Handshake => None,
        }
    }

    /// Takes every complete frame off the front of `inbox` and returns how many more bytes are needed.
    ///
    /// These are the bytes missing to the end of the next length or frame, never more than
    /// [`max_frame_len`](ConnectionConfig::max_frame_len) allows. Frames of more than 16 KiB are not copied:
    /// each is split off `inbox` and shares its memory. So read no further than to the end of a large frame,
    /// or its response keeps the start of the next one in memory.
    ///
    /// The length is only claimed by the peer. To keep a peer from reserving memory that it does not use,
    /// reserve at most as many bytes as have arrived already, or some tens of kilobytes.
    ///
    /// # Errors
    /// The reason why the connection is closed, by this input or earlier; [`Event::Closed`] carries the same
    /// error.
    pub fn handle_input(&mut self, now: Instant, inbox: &mut BytesMut) -> Result<usize, ConnectionError> {
        self.end_throttle(now);
        loop {
            if let State::Closed(error) = &self.state {
                return Err(error.clone());
            }
            match self.next_frame(inbox) {
                Ok(Input::Incomplete { missing }) => return Ok(missing),
                Ok(Input::Frame(frame)) => {
                    if let Err(error) = self.handle_frame(now, frame) {
                        self.close(error);
                    }
                }
                Err(error) => self.close(error),
            }
        }
    }

    /// Handles the end of the stream: closes the connection with [`ConnectionError::PeerClosed`].
    pub fn handle_eof(&mut self) {
        self.close(ConnectionError::PeerClosed { stage: self.stage() });
    }

    /// Handles an IO error of the stream: closes the connection with [`ConnectionError::Io`].
    pub fn handle_io_error(&mut self, error: io::Error) {
        self.close(ConnectionError::Io { stage: self.stage(), source: Arc::new(error) });
    }

    /// Hands out the next frame to write, with its correlation id.
    ///
    /// From here on the request may have reached the broker.
    pub fn poll_transmit(&mut self) -> Option<(CorrelationId, Frame)> {
        if self.is_closed() || self.throttled_until.is_some() {
            return None;
        }
        let Outgoing { id, request, origin } = match (self.handshake.take(), &self.state) {
            (Some(request), _) => request,
            (None, State::Ready) => {
                let outgoing = self.outgoing.pop_front()?;
                self.outgoing_bytes -= outgoing.request.size_in_bytes();
                outgoing
            }
            (None, _) => return None,
        };
        if request.expects_reply {
            let timeout = match origin {
                Origin::Handshake => None,
                Origin::Owner(_) => Some(request.timeout.unwrap_or(self.config.request_timeout)),
            };
            let EncodedRequest { key, version, .. } = request;
            self.in_flight.push_back(InFlight { id, key, version, origin, timeout, is_written: false });
        }
        Some((id, request.frame))
    }

    /// The frames that [`poll_transmit`](Self::poll_transmit) would hand out next, in order.
    ///
    /// They are not handed out yet. An owner that writes several frames at once looks at them here, and takes
    /// those of which the stream has accepted a part.
    pub fn peek_transmit(&self) -> impl Iterator<Item = &Frame> {
        let is_open = !self.is_closed() && self.throttled_until.is_none();
        let handshake = self.handshake.iter().filter(move |_| is_open);
        let is_ready = is_open && matches!(self.state, State::Ready);
        let outgoing = self.outgoing.iter().take_while(move |_| is_ready);
        handshake.chain(outgoing).map(|outgoing| &outgoing.request.frame)
    }

    /// Returns the next event, in order.
    pub fn poll_event(&mut self) -> Option<Event<T>> {
        self.events.pop_front()
    }

    /// Authenticates again, with a new exchange, on a connection that is ready (KIP-368).
    ///
    /// Meanwhile requests are accepted and held back; those in flight are answered first.
    /// [`Event::Authenticated`] reports the end.
    ///
    /// It has to end before the session expires: brokers close a connection with an expired session without
    /// notice. `limit` is the time limit from when the last request in flight has been answered; after it the
    /// connection is closed with [`ConnectionError::HandshakeTimedOut`].
    ///
    /// # Errors
    /// [`ConnectionError::NotReady`] during a handshake or an authentication, or the reason why the
    /// connection is closed.
    pub fn reauthenticate(
        &mut self,
        now: Instant,
        mechanism: Box<dyn Mechanism>,
        limit: Duration,
    ) -> Result<(), ConnectionError> {
        match &self.state {
            State::Ready => {}
            State::Closed(error) => return Err(error.clone()),
            _ => return Err(ConnectionError::NotReady),
        }
        self.state = State::Authenticating(Authentication::again(mechanism, limit));
        if let Err(error) = self.begin_when_drained(now) {
            self.close(error);
        }
        Ok(())
    }

    /// Handles the result of [`Event::Compute`]. If the connection is closed by then, this does nothing.
    pub fn handle_computed(&mut self, computed: Computed) {
        let step = |authentication: &mut Authentication, versions: &_| {
            authentication.handle_computed(versions, computed)
        };
        if let Err(error) = self.authentication(step) {
            self.close(error);
        }
    }

    /// Whether the handshake is complete, so that requests are accepted. They may be held back for a while.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready | State::Authenticating(Authentication { again: true, .. }))
    }

    /// Whether the connection is closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    /// The number of pending requests, handed out or not.
    pub fn in_flight(&self) -> usize {
        self.outgoing.len() + self.in_flight.len()
    }

    /// The size of the requests not handed out yet, in bytes.
    ///
    /// A throttle or an authentication holds them back.
    pub fn outgoing_bytes(&self) -> usize {
        self.outgoing_bytes
    }

    /// The stage that the connection is in.
    fn stage(&self) -> Stage {
        match self.state {
            State::Versions { requested: version, .. } => match self.config.admitted {
                true => Stage::FurtherConnection { version },
                false => Stage::Versions { version },
            },
            State::Authenticating(_) => Stage::Authentication,
            State::Ready | State::Closed(_) => {
                match self.in_flight.front().map(|request| (request.key, request.version.number)) {
                    Some((api, version)) if !self.admitted => Stage::FirstCall { api, version },
                    awaited => Stage::Ready { awaited },
                }
            }
        }
    }

    fn number(&mut self, mut request: EncodedRequest, origin: Origin<T>) -> Outgoing<T> {
        let id = CorrelationId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        request.frame.set_correlation_id(id.0);
        Outgoing { id, request, origin }
    }

    /// Takes the next frame off `inbox` if it is complete.
    ///
    /// Its first bytes are checked before the rest has arrived.
    fn next_frame(&mut self, inbox: &mut BytesMut) -> Result<Input, ConnectionError> {
        let Some(prefix) = inbox.first_chunk::<4>() else {
            return Ok(Input::Incomplete { missing: 4 - inbox.len() });
        };
        if !self.heard
            && let Some(other) = other_protocol(inbox)
        {
            return Err(ConnectionError::NotKafka(other));
        }
        let misbehaved = |what| Err(ConnectionError::PeerMisbehaved(what));
        let Some(oldest) = self.in_flight.front() else { return misbehaved(Misbehaviour::Unasked) };
        let max = oldest.largest_response(self.config.max_frame_len);
        let signed = i32::from_be_bytes(*prefix);
        let Some(len) = usize::try_from(signed).ok().filter(|len| *len >= 4) else {
            return misbehaved(Misbehaviour::FrameLength(signed));
        };
        if len > max {
            let (api, version) = (oldest.key, oldest.version.number);
            return Err(ConnectionError::FrameTooLarge { api, version, len, max });
        }
        if let Some(id) = inbox[4..].first_chunk() {
            let (api, expected, got) = (oldest.key, oldest.id, CorrelationId(i32::from_be_bytes(*id)));
            if got != expected {
                return misbehaved(Misbehaviour::CorrelationId { api, expected, got });
            }
        }
        self.heard = true;
        match (4 + len).checked_sub(inbox.len()) {
            None | Some(0) => {
                inbox.advance(4);
                Ok(Input::Frame(take_frame(inbox, len)))
            }
            Some(missing) => {
                self.arriving = Some(ResponseProgress { arrived: len - missing, len });
                Ok(Input::Incomplete { missing })
            }
        }
    }

    /// Handles the response to the oldest request.
    fn handle_frame(&mut self, now: Instant, frame: Bytes) -> Result<(), ConnectionError> {
        let Some(InFlight { id, key, version, origin, .. }) = self.in_flight.pop_front() else {
            return Err(ConnectionError::PeerMisbehaved(Misbehaviour::Unasked));
        };
        (self.overdue_at, self.arriving, self.counted) = (None, None, 0);
        self.start_time(now);
        match (origin, &self.state) {
            (Origin::Handshake, State::Versions { requested, .. }) => {
                match read_versions(*requested, &frame)? {
                    ApiVersionsResult::Versions(response) => self.negotiated(now, response)?,
                    ApiVersionsResult::Repeat(version) => self.request_versions(version)?,
                }
            }
            (Origin::Handshake, _) => {
                self.authentication(|authentication, versions| {
                    authentication.handle_response(versions, &frame)
                })?;
            }
            (Origin::Owner(token), _) => {
                self.admitted = true;
                self.events.push_back(Event::Response(token, RawResponse { frame, id, key, version }));
                self.begin_when_drained(now)?;
            }
        }
        Ok(())
    }

    fn request_versions(&mut self, version: i16) -> Result<(), ConnectionError> {
        let ConnectionConfig { client_id, client_software_name, client_software_version, .. } = &self.config;
        check_software("client_software_name", client_software_name)?;
        check_software("client_software_version", client_software_version)?;
        let request = ApiVersionsRequest {
            client_software_name: client_software_name.clone(),
            client_software_version: client_software_version.clone(),
        };
        let request = encode_api_versions(&request, version, client_id.as_deref())?;
        if let State::Versions { requested, .. } = &mut self.state {
            *requested = version;
        }
        self.handshake = Some(self.number(request, Origin::Handshake));
        Ok(())
    }

    /// Goes on to authenticate or to be ready.
    fn negotiated(&mut self, now: Instant, response: ApiVersionsResponse) -> Result<(), ConnectionError> {
        if let Ok(pause) = u64::try_from(response.throttle_time_ms) {
            self.throttle(now, Duration::from_millis(pause));
        }
        let client_id = self.config.client_id.as_deref().map(Arc::from);
        let versions = Arc::new(NegotiatedVersions::new(client_id, response));
        self.versions = Some(Arc::clone(&versions));
        match self.mechanism.take() {
            Some(mechanism) => {
                let deadline = self.handshake_deadline();
                self.state = State::Authenticating(Authentication::first(mechanism, deadline));
                self.begin_when_drained(now)?;
            }
            None => {
                self.state = State::Ready;
                self.events.push_back(Event::Ready(versions));
            }
        }
        Ok(())
    }

    /// Begins an authentication as soon as nothing else is in flight.
    fn begin_when_drained(&mut self, now: Instant) -> Result<(), ConnectionError> {
        // What is sent while the broker throttles waits for the end of the pause.
        let start = self.throttled_until.map_or(now, |until| until.max(now));
        match self.in_flight.is_empty() {
            true => self.authentication(|authentication, versions| authentication.begin(start, versions)),
            false => Ok(()),
        }
    }

    /// Runs a step of the authentication, if one is in progress, and does what it leads to.
    fn authentication(
        &mut self,
        step: impl FnOnce(&mut Authentication, &NegotiatedVersions) -> Result<Progress, ConnectionError>,
    ) -> Result<(), ConnectionError> {
        let (State::Authenticating(authentication), Some(versions)) = (&mut self.state, &self.versions)
        else {
            return Ok(());
        };
        match step(authentication, versions)? {
            Progress::Wait => {}
            Progress::Send(request) => self.handshake = Some(self.number(request, Origin::Handshake)),
            Progress::Compute(computation) => self.events.push_back(Event::Compute(computation)),
            Progress::Done { lifetime } => {
                let is_first = !authentication.again;
                self.admitted = true;
                self.events.push_back(Event::Authenticated(lifetime));
                if is_first {
                    self.events.push_back(Event::Ready(Arc::clone(versions)));
                }
                self.state = State::Ready;
            }
        }
        Ok(())
    }
}
