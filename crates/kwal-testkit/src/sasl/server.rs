//! Which requests a connection may send, and when (KIP-43, KIP-152, KIP-368).

use std::time::{Duration, Instant};

use bytes::Bytes;
use kwal_protocol::{
    api::{ApiKey, Body, Request, decode_request_header, encode_response},
    error_code::ErrorCode,
    messages::{
        SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    },
};

use super::{
    config::Sasl,
    mechanism::{Exchange, Step},
};
use crate::{
    cluster::{Action, CloseReason, Cluster, Connected, Now, ReplyMode, decode},
    fault::Fault,
};

/// The server side of authentication of one connection.
#[derive(Debug, Default)]
pub(crate) struct SaslServer {
    state: State,
    /// The authenticated identity, which must not change.
    identity: Option<Identity>,
}

#[derive(Debug, Default)]
enum State {
    /// Not authenticated, and no mechanism chosen.
    #[default]
    Unauthenticated,
    /// A mechanism is chosen.
    Authenticating(Exchange),
    /// All requests may pass until the session ends.
    Authenticated { until: Option<Instant> },
    /// Authentication failed: the connection is closed once the response is sent.
    Failed,
}

#[derive(Debug)]
struct Identity {
    mechanism: String,
    principal: String,
    /// When the last re-authentication began.
    renewed: Option<Instant>,
}

impl SaslServer {
    /// Handles a request that must not reach the broker. `None` if the broker is to serve it.
    pub(crate) fn intercept(
        &mut self,
        sasl: Option<&Sasl>,
        cluster: &mut Cluster,
        from: Connected,
        now: Now,
        frame: &Bytes,
    ) -> Option<Action> {
        let Ok((header, reader)) = decode_request_header(frame) else { return None };
        let request = SaslRequest {
            api: header.request_api_key,
            version: header.request_api_version,
            id: header.correlation_id,
            body: frame.slice(reader.position()..),
        };
        let of_sasl = matches!(request.api, ApiKey::SASL_HANDSHAKE | ApiKey::SASL_AUTHENTICATE);
        match (&self.state, sasl) {
            (_, None) if !of_sasl => return None,
            (State::Unauthenticated, Some(_)) if request.api == ApiKey::API_VERSIONS => return None,
            (State::Authenticated { until }, _) if until.is_some_and(|until| until < now.monotonic) => {
                return Some(close("the session has expired"));
            }
            (State::Authenticated { .. }, _) if !of_sasl => return None,
            (State::Failed, _) => return Some(close("authentication has failed before")),
            _ => {}
        }
        cluster.count(from, request.api);
        if !of_sasl {
            let during = match self.state {
                State::Authenticating(_) => "a request during authentication",
                _ => "a request before authentication",
            };
            return Some(close(during));
        }
        if !cluster.settings.dialect.answers(request.api, request.version) {
            return Some(Action::Close(CloseReason::Unsupported {
                api: request.api,
                version: request.version,
            }));
        }
        let fault = cluster.meet(from, (request.api, request.version, request.id), &request.body);
        let request = match fault {
            Fault::WrongCorrelationId => SaslRequest { id: request.id.wrapping_add(1), ..request },
            _ => request,
        };
        let action = match fault {
            Fault::BlackHole => Action::Ignore,
            Fault::Drop => Action::Close(CloseReason::Fault(fault)),
            Fault::Error(code) => {
                if sasl.is_some() && !matches!(self.state, State::Authenticated { .. }) {
                    self.state = State::Failed;
                }
                request.error_response(code, None)
            }
            _ => {
                let action = self.handle(sasl, now, &request);
                // The client cannot tell the difference.
                let fault = match fault {
                    Fault::DelayRequest(delay) => Fault::DelayReply(delay),
                    fault => fault,
                };
                cluster.deliver(from, fault, action)
            }
        };
        cluster.record_close(from, &action);
        Some(action)
    }

    /// Returns whether the connection is to be closed once the response is sent.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Failed)
    }

    fn handle(&mut self, sasl: Option<&Sasl>, now: Now, request: &SaslRequest) -> Action {
        let Some(sasl) = sasl else { return request.out_of_turn() };
        match (std::mem::replace(&mut self.state, State::Failed), request.api) {
            (State::Unauthenticated, ApiKey::SASL_HANDSHAKE) => self.name(sasl, now, request),
            (State::Authenticated { until: Some(_) }, ApiKey::SASL_HANDSHAKE) if self.may_renew(now) => {
                self.name(sasl, now, request)
            }
            (open @ State::Authenticated { .. }, _) => {
                self.state = open;
                request.out_of_turn()
            }
            (State::Authenticating(exchange), ApiKey::SASL_AUTHENTICATE) => {
                self.exchange(sasl, now, request, exchange)
            }
            _ => close("an unexpected authentication request"),
        }
    }

    /// Re-authentication is allowed once per second.
    fn may_renew(&self, now: Now) -> bool {
        let renewed = self.identity.as_ref().and_then(|known| known.renewed);
        renewed.is_none_or(|renewed| now.monotonic >= renewed + Duration::from_secs(1))
    }

    fn name(&mut self, sasl: &Sasl, now: Now, request: &SaslRequest) -> Action {
        let body: SaslHandshakeRequest = match request.read() {
            Ok(body) => body,
            Err(reason) => return Action::Close(reason),
        };
        let mechanisms = sasl.offered();
        let changed = self.identity.as_ref().is_some_and(|known| known.mechanism != body.mechanism);
        let exchange = match mechanisms.contains(&body.mechanism) && !changed {
            true => Exchange::begin(&body.mechanism),
            false => None,
        };
        if let Some(known) = &mut self.identity {
            known.renewed = Some(now.monotonic);
        }
        match exchange {
            Some(exchange) => {
                self.state = State::Authenticating(exchange);
                request.answer(&SaslHandshakeResponse { mechanisms, ..Default::default() }, Duration::ZERO)
            }
            None => {
                let error_code = ErrorCode::UNSUPPORTED_SASL_MECHANISM;
                request.answer(&SaslHandshakeResponse { error_code, mechanisms }, sasl.failure_delay)
            }
        }
    }

    fn exchange(&mut self, sasl: &Sasl, now: Now, request: &SaslRequest, mut exchange: Exchange) -> Action {
        let body: SaslAuthenticateRequest = match request.read() {
            Ok(body) => body,
            Err(reason) => return Action::Close(reason),
        };
        let step = exchange.take(sasl, &body.auth_bytes);
        let words = match step {
            Step::Challenge(auth_bytes) => {
                self.state = State::Authenticating(exchange);
                let challenge = SaslAuthenticateResponse { auth_bytes, ..Default::default() };
                return request.answer(&challenge, Duration::ZERO);
            }
            Step::Authenticated { principal, auth_bytes, lifetime } => {
                let before = self.identity.as_ref().filter(|known| known.principal != principal);
                match before {
                    Some(Identity { principal: other, .. }) => {
                        format!(
                            "Cannot change principals during re-authentication from {other} to {principal}"
                        )
                    }
                    None => {
                        let lifetime = [lifetime, sasl.max_session].into_iter().flatten().min();
                        self.state =
                            State::Authenticated { until: lifetime.map(|time| now.monotonic + time) };
                        let renewed = self.identity.take().and_then(|known| known.renewed);
                        let mechanism = exchange.mechanism().to_owned();
                        self.identity = Some(Identity { mechanism, principal, renewed });
                        let ms =
                            lifetime.map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
                        let known = SaslAuthenticateResponse {
                            auth_bytes,
                            session_lifetime_ms: ms,
                            ..Default::default()
                        };
                        return request.answer(&known, Duration::ZERO);
                    }
                }
            }
            Step::Rejected(words) => words,
        };
        let error_code = ErrorCode::SASL_AUTHENTICATION_FAILED;
        let refusal =
            SaslAuthenticateResponse { error_code, error_message: Some(words), ..Default::default() };
        request.answer(&refusal, sasl.failure_delay)
    }
}

fn close(why: &'static str) -> Action {
    Action::Close(CloseReason::Sasl(why))
}

/// A request.
struct SaslRequest {
    api: ApiKey,
    version: i16,
    id: i32,
    body: Bytes,
}

impl SaslRequest {
    fn read<R: Request>(&self) -> Result<R, CloseReason> {
        let (api, version) = (self.api, self.version);
        let Ok(format) = R::version(version) else {
            return Err(CloseReason::Unsupported { api, version });
        };
        decode::<R>(&self.body, format).map_err(|error| CloseReason::Body { api, version, error })
    }

    fn answer<B: Body>(&self, response: &B, delay: Duration) -> Action {
        match encode_response(response, self.version, self.id) {
            Ok(frame) => Action::Reply { frame, delay, mode: ReplyMode::Whole, mute: Duration::ZERO },
            Err(error) => Action::Close(CloseReason::Response { api: self.api, error }),
        }
    }

    fn error_response(&self, error_code: ErrorCode, error_message: Option<String>) -> Action {
        match self.api {
            ApiKey::SASL_HANDSHAKE => {
                self.answer(&SaslHandshakeResponse { error_code, ..Default::default() }, Duration::ZERO)
            }
            _ => {
                let refusal = SaslAuthenticateResponse { error_code, error_message, ..Default::default() };
                self.answer(&refusal, Duration::ZERO)
            }
        }
    }

    /// The response where nobody has to authenticate, and after authentication.
    fn out_of_turn(&self) -> Action {
        let words = "SaslAuthenticate request received after successful authentication".to_owned();
        self.error_response(ErrorCode::ILLEGAL_SASL_STATE, Some(words))
    }
}
