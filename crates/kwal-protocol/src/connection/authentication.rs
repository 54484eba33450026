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
    session::{Call, CallError, Session},
};
use crate::{
    api::{ApiKey, Body, Request, Versions, decode_response_header},
    error::DecodeError,
    error_code::ErrorCode,
    messages::{
        SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    },
    sasl::{Mechanism, Step},
    wire::Version,
};

/// After version 0 the messages would travel in bare frames.
const HANDSHAKE: Versions = Versions::new(1, 1);
/// More messages than any mechanism has.
const MAX_ROUNDS: u8 = 16;

/// An authentication under way.
#[derive(Debug)]
pub(super) struct Authentication {
    mechanism: Box<dyn Mechanism>,
    phase: Phase,
    rounds: u8,
    pub(super) deadline: Option<Instant>,
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
}

impl Connection {
    /// Authenticates again, on a connection that is ready (KIP-368): with a new exchange, since the old one is over. Calls
    /// are taken meanwhile, and held; those in flight are answered first. [`Event::Authenticated`] tells the end.
    ///
    /// It must be over before the session is: brokers close a connection whose session has expired, without a word.
    /// The handshake's limit, [`handshake_timeout`](super::ConnectionConfig::handshake_timeout), counts from when the last
    /// call in flight has been answered.
    ///
    /// # Errors
    /// [`ConnectionError::NotReady`] while a handshake or an authentication is under way; why the connection is closed.
    pub fn reauthenticate(
        &mut self,
        now: Instant,
        mechanism: Box<dyn Mechanism>,
    ) -> Result<(), ConnectionError> {
        match &self.state {
            State::Ready => {}
            State::Closed(error) => return Err(error.clone()),
            _ => return Err(ConnectionError::NotReady),
        }
        self.state = State::Authenticating(Authentication {
            mechanism,
            phase: Phase::Draining,
            rounds: 0,
            deadline: None,
            again: true,
        });
        self.begin_when_drained(now);
        Ok(())
    }

    /// Goes from the versions to the first authentication.
    pub(super) fn authenticate(
        &mut self,
        now: Instant,
        mechanism: Box<dyn Mechanism>,
        deadline: Option<Instant>,
    ) {
        let phase = Phase::Draining;
        self.state =
            State::Authenticating(Authentication { mechanism, phase, rounds: 0, deadline, again: false });
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
            authentication.deadline = now.checked_add(self.config.handshake_timeout);
        }
        let request = SaslHandshakeRequest { mechanism: authentication.mechanism.name().to_owned() };
        match self.hand_in(&request, HANDSHAKE) {
            Ok(version) => self.set_phase(Phase::Handshake(version)),
            Err(error) => self.close(error),
        }
    }

    /// Takes a reply of the exchange.
    pub(super) fn handle_authentication(&mut self, frame: &Bytes) -> Result<(), ConnectionError> {
        let State::Authenticating(authentication) = &mut self.state else { return Ok(()) };
        let mechanism = authentication.mechanism.name().to_owned();
        let challenge = match authentication.phase {
            Phase::Draining => return Ok(()),
            Phase::Handshake(version) => {
                let told: SaslHandshakeResponse = read(version, frame)?;
                match told.error_code {
                    ErrorCode::NONE => None,
                    ErrorCode::UNSUPPORTED_SASL_MECHANISM => {
                        let offered = told.mechanisms;
                        return Err(ConnectionError::MechanismRefused { mechanism, offered });
                    }
                    code => {
                        let api = ApiKey::SASL_HANDSHAKE;
                        return Err(ConnectionError::Refused { api, version: version.number, code });
                    }
                }
            }
            Phase::Exchange(version) => {
                let told: SaslAuthenticateResponse = read(version, frame)?;
                if told.error_code.is_error() {
                    let code = told.error_code;
                    return Err(ConnectionError::AuthenticationFailed {
                        mechanism,
                        code,
                        message: told.error_message.filter(|message| !message.is_empty()),
                    });
                }
                Some(told)
            }
        };
        let bytes = challenge.as_ref().map(|told| &told.auth_bytes[..]);
        let step = match authentication.mechanism.respond(bytes) {
            Ok(step) => step,
            Err(source) => return Err(ConnectionError::Sasl { mechanism, source }),
        };
        authentication.rounds += 1;
        match (step, challenge) {
            (Step::Send(auth_bytes), _) if authentication.rounds <= MAX_ROUNDS => {
                let request = SaslAuthenticateRequest { auth_bytes };
                let version = self.hand_in(&request, SaslAuthenticateRequest::VERSIONS)?;
                self.set_phase(Phase::Exchange(version));
                Ok(())
            }
            (Step::Send(_), _) => Err(ConnectionError::EndlessExchange { mechanism }),
            (Step::Done, told) => {
                let lifetime_ms = told.map_or(0, |told| told.session_lifetime_ms);
                self.authenticated(lifetime_ms);
                Ok(())
            }
        }
    }

    fn authenticated(&mut self, lifetime_ms: i64) {
        let first = matches!(&self.state, State::Authenticating(authentication) if !authentication.again);
        self.state = State::Ready;
        let lifetime = u64::try_from(lifetime_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        self.events.push_back(Event::Authenticated(lifetime));
        if let (true, Some(session)) = (first, &self.session) {
            self.events.push_back(Event::Ready(Arc::clone(session)));
        }
    }

    fn set_phase(&mut self, to: Phase) {
        if let State::Authenticating(Authentication { phase, .. }) = &mut self.state {
            *phase = to;
        }
    }

    /// Puts a request of the exchange where it goes out ahead of all calls; answers the version agreed upon.
    fn hand_in<R: Request>(&mut self, request: &R, ours: Versions) -> Result<Version, ConnectionError> {
        let Some(session) = self.session.clone() else { return Err(ConnectionError::NotReady) };
        let call = encode(&session, request, ours)?;
        let version = call.version();
        self.handshake = Some(self.number(call, Origin::Handshake));
        Ok(version)
    }
}

fn encode<R: Request>(session: &Session, request: &R, ours: Versions) -> Result<Call, ConnectionError> {
    session.encode(request, ours).map_err(|fault| match fault {
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
