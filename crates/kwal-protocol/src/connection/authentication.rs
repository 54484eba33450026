//! Authentication: SaslHandshake names the mechanism, SaslAuthenticate carries its messages (KIP-43, KIP-152). It comes
//! after ApiVersions, and again when a session is renewed (KIP-368): then nothing else may be sent from the one to the
//! last of the other, and what was sent before is answered first.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Connection, ConnectionError, Event, Origin, State,
    request::{CallError, EncodedRequest},
    versions::NegotiatedVersions,
};
use crate::{
    api::{ApiKey, Body, Request, Versions, decode_response_header},
    error::DecodeError,
    error_code::ErrorCode,
    messages::{
        SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    },
    sasl::{Mechanism, SaslError, Step},
    wire::Version,
};

/// After version 0 the messages would travel in bare frames.
const HANDSHAKE: Versions = Versions::new(1, 1);
/// More messages than any mechanism has.
const MAX_ROUNDS: u8 = 16;

/// An authentication under way.
#[derive(Debug)]
pub(super) struct Authentication {
    /// `None` while it computes, elsewhere.
    mechanism: Option<Box<dyn Mechanism>>,
    name: String,
    phase: Phase,
    rounds: u8,
    pub(super) deadline: Option<Instant>,
    /// How long it may take, from when what was in flight has been answered; of the first one the deadline stands already.
    limit: Duration,
    /// What the broker said last: for how long the session is good.
    lifetime_ms: i64,
    /// Whether the connection was in use before, so that calls are taken and held meanwhile.
    pub(super) again: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// What was sent before is to be answered first.
    Draining,
    /// The mechanism was named, in this version.
    Handshake(Version),
    /// A message of the mechanism was sent, in this version.
    Exchange(Version),
    /// The mechanism computes its next message.
    Computing,
}

impl Authentication {
    fn new(mechanism: Box<dyn Mechanism>, limit: Duration) -> Self {
        Self {
            name: mechanism.name().to_owned(),
            mechanism: Some(mechanism),
            phase: Phase::Draining,
            rounds: 0,
            deadline: None,
            limit,
            lifetime_ms: 0,
            again: false,
        }
    }
}

/// What a mechanism has to compute before it can go on ([`Step::Compute`]): it may take a second of a processor.
#[derive(Debug)]
pub struct Computation(Box<dyn Mechanism>);

impl Computation {
    /// Does it, where nothing else waits: on a thread for work that blocks, say. The result is for
    /// [`Connection::handle_computed`].
    pub fn run(mut self) -> Computed {
        let step = self.0.compute();
        Computed { mechanism: self.0, step }
    }
}

/// What came of a [`Computation`].
#[derive(Debug)]
pub struct Computed {
    mechanism: Box<dyn Mechanism>,
    step: Result<Step, SaslError>,
}

impl<T> Connection<T> {
    /// Authenticates again, on a connection that is ready (KIP-368): with a new exchange, since the old one is over. Calls
    /// are taken meanwhile, and held; those in flight are answered first. [`Event::Authenticated`] tells the end.
    ///
    /// It must be over before the session is: brokers close a connection whose session has expired, without a word.
    /// `limit` is how long it may take, from when the last call in flight has been answered; then the connection is closed
    /// with [`ConnectionError::HandshakeTimedOut`].
    ///
    /// # Errors
    /// [`ConnectionError::NotReady`] while a handshake or an authentication is under way; why the connection is closed.
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
        self.state = State::Authenticating(Authentication {
            deadline: None,
            again: true,
            ..Authentication::new(mechanism, limit)
        });
        self.begin_when_drained(now);
        Ok(())
    }

    /// The mechanism has computed what [`Event::Compute`] asked for. Handed in late, when the connection is closed, it does
    /// nothing.
    pub fn handle_computed(&mut self, Computed { mechanism, step }: Computed) {
        let State::Authenticating(authentication) = &mut self.state else { return };
        if authentication.phase != Phase::Computing {
            return;
        }
        authentication.mechanism = Some(mechanism);
        if let Err(error) = self.follow(step) {
            self.close(error);
        }
    }

    /// Goes from the versions to the first authentication.
    pub(super) fn authenticate(
        &mut self,
        now: Instant,
        mechanism: Box<dyn Mechanism>,
        deadline: Option<Instant>,
    ) {
        let limit = self.config.handshake_timeout;
        self.state =
            State::Authenticating(Authentication { deadline, ..Authentication::new(mechanism, limit) });
        self.begin_when_drained(now);
    }

    /// Names the mechanism as soon as nothing else is in flight.
    pub(super) fn begin_when_drained(&mut self, now: Instant) {
        if !self.in_flight.is_empty() {
            return;
        }
        let State::Authenticating(authentication) = &mut self.state else { return };
        if authentication.phase != Phase::Draining {
            return;
        }
        if authentication.again {
            authentication.deadline = now.checked_add(authentication.limit);
        }
        let request = SaslHandshakeRequest { mechanism: authentication.name.clone() };
        match self.hand_in(&request, HANDSHAKE) {
            Ok(version) => self.set_phase(Phase::Handshake(version)),
            Err(error) => self.close(error),
        }
    }

    /// Takes a reply of the exchange.
    pub(super) fn handle_authentication(&mut self, frame: &Bytes) -> Result<(), ConnectionError> {
        let State::Authenticating(authentication) = &mut self.state else { return Ok(()) };
        let mechanism = authentication.name.clone();
        let challenge = match authentication.phase {
            Phase::Draining | Phase::Computing => return Ok(()),
            Phase::Handshake(version) => {
                let response: SaslHandshakeResponse = read(version, frame)?;
                match response.error_code {
                    ErrorCode::NONE => None,
                    ErrorCode::UNSUPPORTED_SASL_MECHANISM => {
                        let offered = response.mechanisms;
                        return Err(ConnectionError::MechanismRefused { mechanism, offered });
                    }
                    code => {
                        let api = ApiKey::SASL_HANDSHAKE;
                        return Err(ConnectionError::Refused { api, version: version.number, code });
                    }
                }
            }
            Phase::Exchange(version) => {
                let response: SaslAuthenticateResponse = read(version, frame)?;
                if response.error_code.is_error() {
                    let code = response.error_code;
                    return Err(ConnectionError::AuthenticationFailed {
                        mechanism,
                        code,
                        message: response.error_message.filter(|message| !message.is_empty()),
                    });
                }
                authentication.lifetime_ms = response.session_lifetime_ms;
                Some(response.auth_bytes)
            }
        };
        let Some(exchange) = &mut authentication.mechanism else { return Ok(()) };
        let step = exchange.respond(challenge.as_deref());
        self.follow(step)
    }

    /// Takes the step that the mechanism wants to take.
    fn follow(&mut self, step: Result<Step, SaslError>) -> Result<(), ConnectionError> {
        let State::Authenticating(authentication) = &mut self.state else { return Ok(()) };
        let mechanism = || authentication.name.clone();
        match step {
            Err(source) => Err(ConnectionError::Sasl { mechanism: mechanism(), source }),
            Ok(Step::Done) => {
                self.authenticated();
                Ok(())
            }
            _ if authentication.rounds >= MAX_ROUNDS => {
                Err(ConnectionError::EndlessExchange { mechanism: mechanism() })
            }
            Ok(Step::Send(auth_bytes)) => {
                authentication.rounds += 1;
                let request = SaslAuthenticateRequest { auth_bytes };
                let version = self.hand_in(&request, SaslAuthenticateRequest::VERSIONS)?;
                self.set_phase(Phase::Exchange(version));
                Ok(())
            }
            Ok(Step::Compute) => {
                authentication.rounds += 1;
                authentication.phase = Phase::Computing;
                let computation = authentication.mechanism.take().map(Computation);
                self.events.extend(computation.map(Event::Compute));
                Ok(())
            }
        }
    }

    fn authenticated(&mut self) {
        let State::Authenticating(Authentication { lifetime_ms, again, .. }) = self.state else { return };
        self.state = State::Ready;
        let lifetime = u64::try_from(lifetime_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        self.admitted = true;
        self.events.push_back(Event::Authenticated(lifetime));
        if let (false, Some(versions)) = (again, &self.versions) {
            self.events.push_back(Event::Ready(Arc::clone(versions)));
        }
    }

    fn set_phase(&mut self, to: Phase) {
        if let State::Authenticating(Authentication { phase, .. }) = &mut self.state {
            *phase = to;
        }
    }

    /// Puts a request of the exchange where it goes out ahead of all calls; answers the version agreed upon.
    fn hand_in<R: Request>(&mut self, request: &R, ours: Versions) -> Result<Version, ConnectionError> {
        let Some(versions) = self.versions.clone() else { return Err(ConnectionError::NotReady) };
        let request = encode(&versions, request, ours)?;
        let version = request.version();
        self.handshake = Some(self.number(request, Origin::Handshake));
        Ok(version)
    }
}

fn encode<R: Request>(
    negotiated: &NegotiatedVersions,
    request: &R,
    ours: Versions,
) -> Result<EncodedRequest, ConnectionError> {
    negotiated.encode(request, ours).map_err(|fault| match fault {
        CallError::Encode { api, source, .. } => ConnectionError::Encode { api, source },
        CallError::Unsupported { api, .. } => ConnectionError::NoAuthentication { api },
    })
}

/// Reads a reply of the exchange, a frame without its length.
fn read<B: Body>(version: Version, frame: &Bytes) -> Result<B, ConnectionError> {
    let body = || -> Result<B, DecodeError> {
        let (_, mut reader) = decode_response_header::<B>(frame, version)?;
        let body = B::read(&mut reader, version)?;
        reader.finish()?;
        Ok(body)
    };
    body().map_err(|source| ConnectionError::Malformed { api: B::KEY, version: version.number, source })
}
