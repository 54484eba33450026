//! Authentication by SaslHandshake and SaslAuthenticate (KIP-43, KIP-152).
//!
//! SaslHandshake selects the mechanism, SaslAuthenticate carries its messages.
//!
//! It follows ApiVersions, and is repeated when a session is renewed (KIP-368). Requests sent earlier are
//! answered first, and no other request may be sent from the first to the last message of the exchange.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    error::ConnectionError,
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

/// After version 0 the messages would travel in bare frames, outside of Kafka requests.
const HANDSHAKE: Versions = Versions::new(1, 1);
/// More messages than any mechanism has.
const MAX_ROUNDS: u8 = 16;

/// An authentication in progress.
#[derive(Debug)]
pub(super) struct Authentication {
    /// `None` while it computes, elsewhere.
    mechanism: Option<Box<dyn Mechanism>>,
    name: String,
    phase: Phase,
    rounds: u8,
    pub(super) deadline: Option<Instant>,
    /// Time limit from when all requests in flight have been answered.
    ///
    /// The first authentication has a deadline already.
    limit: Duration,
    /// The session lifetime in the broker's last response.
    lifetime_ms: i64,
    /// Whether the connection was ready already, so that requests are accepted and held back meanwhile.
    pub(super) again: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Requests sent earlier have to be answered first.
    Draining,
    /// SaslHandshake has been sent, in this version.
    Handshake(Version),
    /// A message of the mechanism has been sent, in this version.
    Exchange(Version),
    /// The mechanism computes its next message.
    Computing,
}

/// What the connection has to do next for an authentication.
pub(super) enum Progress {
    /// Nothing.
    Wait,
    /// Send this request ahead of all requests of the owner.
    Send(EncodedRequest),
    /// Have the owner run this.
    Compute(Computation),
    /// The broker has authenticated the client; the session may have a limited lifetime.
    Done { lifetime: Option<Duration> },
}

/// A computation that a mechanism needs in order to continue ([`Step::Compute`]).
///
/// It may take a second of processor time.
#[derive(Debug)]
pub struct Computation(Box<dyn Mechanism>);

impl Computation {
    /// Runs the computation.
    ///
    /// Pass the result to [`Connection::handle_computed`](super::Connection::handle_computed).
    ///
    /// It blocks, so run it where nothing else waits, for example on a thread for blocking work.
    pub fn run(mut self) -> Computed {
        let step = self.0.compute();
        Computed { mechanism: self.0, step }
    }
}

/// The result of a [`Computation`].
#[derive(Debug)]
pub struct Computed {
    mechanism: Box<dyn Mechanism>,
    step: Result<Step, SaslError>,
}

impl Authentication {
    /// The first authentication of a connection, which has to end at `deadline`.
    pub(super) fn first(mechanism: Box<dyn Mechanism>, deadline: Option<Instant>) -> Self {
        Self { deadline, again: false, ..Self::again(mechanism, Duration::ZERO) }
    }

    /// A reauthentication, whose time starts when it begins.
    pub(super) fn again(mechanism: Box<dyn Mechanism>, limit: Duration) -> Self {
        Self {
            name: mechanism.name().to_owned(),
            mechanism: Some(mechanism),
            phase: Phase::Draining,
            rounds: 0,
            deadline: None,
            limit,
            lifetime_ms: 0,
            again: true,
        }
    }

    /// Selects the mechanism, once nothing else is in flight.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        versions: &NegotiatedVersions,
    ) -> Result<Progress, ConnectionError> {
        if self.phase != Phase::Draining {
            return Ok(Progress::Wait);
        }
        if self.again {
            self.deadline = now.checked_add(self.limit);
        }
        let request = encode(versions, &SaslHandshakeRequest { mechanism: self.name.clone() }, HANDSHAKE)?;
        self.phase = Phase::Handshake(request.version());
        Ok(Progress::Send(request))
    }

    /// Handles a response of the exchange, a frame without its length.
    pub(super) fn handle_response(
        &mut self,
        versions: &NegotiatedVersions,
        frame: &Bytes,
    ) -> Result<Progress, ConnectionError> {
        let challenge = match self.phase {
            Phase::Draining | Phase::Computing => return Ok(Progress::Wait),
            Phase::Handshake(version) => {
                self.check_selected(version, decode(version, frame)?)?;
                None
            }
            Phase::Exchange(version) => {
                let response: SaslAuthenticateResponse = decode(version, frame)?;
                if response.error_code.is_error() {
                    return Err(ConnectionError::AuthenticationFailed {
                        mechanism: self.name.clone(),
                        code: response.error_code,
                        message: response.error_message.filter(|message| !message.is_empty()),
                    });
                }
                self.lifetime_ms = response.session_lifetime_ms;
                Some(response.auth_bytes)
            }
        };
        let Some(mechanism) = &mut self.mechanism else { return Ok(Progress::Wait) };
        let step = mechanism.respond(challenge.as_deref());
        self.follow(versions, step)
    }

    fn check_selected(
        &self,
        version: Version,
        response: SaslHandshakeResponse,
    ) -> Result<(), ConnectionError> {
        match response.error_code {
            ErrorCode::NONE => Ok(()),
            ErrorCode::UNSUPPORTED_SASL_MECHANISM => Err(ConnectionError::MechanismRefused {
                mechanism: self.name.clone(),
                offered: response.mechanisms,
            }),
            code => {
                let api = ApiKey::SASL_HANDSHAKE;
                Err(ConnectionError::Refused { api, version: version.number, code })
            }
        }
    }

    /// Continues with the result of a computation; does nothing unless one is running.
    pub(super) fn handle_computed(
        &mut self,
        versions: &NegotiatedVersions,
        Computed { mechanism, step }: Computed,
    ) -> Result<Progress, ConnectionError> {
        if self.phase != Phase::Computing {
            return Ok(Progress::Wait);
        }
        self.mechanism = Some(mechanism);
        self.follow(versions, step)
    }

    /// Takes the step that the mechanism returned.
    fn follow(
        &mut self,
        versions: &NegotiatedVersions,
        step: Result<Step, SaslError>,
    ) -> Result<Progress, ConnectionError> {
        let mechanism = || self.name.clone();
        match step {
            Err(source) => Err(ConnectionError::Sasl { mechanism: mechanism(), source }),
            Ok(Step::Done) => {
                let lifetime_ms = u64::try_from(self.lifetime_ms).ok().filter(|ms| *ms > 0);
                Ok(Progress::Done { lifetime: lifetime_ms.map(Duration::from_millis) })
            }
            _ if self.rounds >= MAX_ROUNDS => {
                Err(ConnectionError::EndlessExchange { mechanism: mechanism() })
            }
            Ok(Step::Send(auth_bytes)) => {
                self.rounds += 1;
                let request = SaslAuthenticateRequest { auth_bytes };
                let request = encode(versions, &request, SaslAuthenticateRequest::VERSIONS)?;
                self.phase = Phase::Exchange(request.version());
                Ok(Progress::Send(request))
            }
            Ok(Step::Compute) => {
                self.rounds += 1;
                self.phase = Phase::Computing;
                let computation = self.mechanism.take().map(Computation);
                Ok(computation.map_or(Progress::Wait, Progress::Compute))
            }
        }
    }
}

fn encode<R: Request>(
    negotiated: &NegotiatedVersions,
    request: &R,
    ours: Versions,
) -> Result<EncodedRequest, ConnectionError> {
    negotiated.encode(request, ours).map_err(|error| match error {
        CallError::Encode { api, source, .. } => ConnectionError::Encode { api, source },
        CallError::Unsupported { api, .. } => ConnectionError::NoAuthentication { api },
    })
}

/// Decodes a response of the exchange, a frame without its length.
fn decode<B: Body>(version: Version, frame: &Bytes) -> Result<B, ConnectionError> {
    let body = || -> Result<B, DecodeError> {
        let (_, mut reader) = decode_response_header::<B>(frame, version)?;
        let body = B::read(&mut reader, version)?;
        reader.finish()?;
        Ok(body)
    };
    body().map_err(|source| ConnectionError::Malformed { api: B::KEY, version: version.number, source })
}
