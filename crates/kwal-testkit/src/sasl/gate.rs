//! What a connection may ask, and when (KIP-43, KIP-152, KIP-368).

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
    Sasl,
    exchange::{Exchange, Verdict},
};
use crate::{
    cluster::{Answer, CloseReason, Cluster, Connected, Manner, Now},
    fault::Fault,
};

/// Stands between a connection and its broker.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: State,
    /// Whom the connection has shown itself to be, by which mechanism: it must not change.
    known: Option<Known>,
}

#[derive(Debug, Default)]
enum State {
    /// Nobody is known, and no mechanism was named.
    #[default]
    Closed,
    /// A mechanism was named.
    Exchange(Exchange),
    /// All may pass, until the session ends.
    Open { until: Option<Instant> },
    /// Was refused: nothing more is read.
    Over,
}

#[derive(Debug)]
struct Known {
    mechanism: String,
    principal: String,
    /// When the last renewal began.
    renewed: Option<Instant>,
}

impl Gate {
    /// What comes of a request instead of being served; `None` if it is to be served.
    pub(crate) fn stop(
        &mut self,
        cluster: &mut Cluster,
        from: Connected,
        now: Now,
        frame: &Bytes,
    ) -> Option<Answer> {
        let Ok((header, reader)) = decode_request_header(frame) else { return None };
        let asked = Asked {
            api: header.request_api_key,
            version: header.request_api_version,
            id: header.correlation_id,
            body: frame.slice(reader.position()..),
        };
        let sasl = cluster.settings.sasl.clone();
        let of_sasl = matches!(asked.api, ApiKey::SASL_HANDSHAKE | ApiKey::SASL_AUTHENTICATE);
        match (&self.state, &sasl) {
            (_, None) if !of_sasl => return None,
            (State::Closed, Some(_)) if asked.api == ApiKey::API_VERSIONS => return None,
            (State::Open { until }, _) if until.is_some_and(|until| until < now.monotonic) => {
                return Some(close("the session is over"));
            }
            (State::Open { .. }, _) if !of_sasl => return None,
            (State::Over, _) => return Some(close("it was refused before")),
            _ => {}
        }
        cluster.count(from, asked.api);
        if !of_sasl {
            let during = match self.state {
                State::Exchange(_) => "a request in the middle of an authentication",
                _ => "a request before authentication",
            };
            return Some(close(during));
        }
        if !cluster.settings.dialect.answers(asked.api, asked.version) {
            return Some(Answer::Close(CloseReason::Unsupported { api: asked.api, version: asked.version }));
        }
        let fault = cluster.meet(from, (asked.api, asked.version, asked.id), &asked.body);
        let asked = match fault {
            Fault::WrongCorrelationId => Asked { id: asked.id.wrapping_add(1), ..asked },
            _ => asked,
        };
        let answer = match fault {
            Fault::BlackHole => Answer::Ignore,
            Fault::Drop => Answer::Close(CloseReason::Fault(fault)),
            Fault::Error(code) => {
                if sasl.is_some() && !matches!(self.state, State::Open { .. }) {
                    self.state = State::Over;
                }
                asked.refuse(code, None)
            }
            _ => {
                let answer = self.handle(sasl.as_ref(), now, &asked);
                // Nobody else would see the difference.
                let fault = match fault {
                    Fault::DelayRequest(delay) => Fault::DelayReply(delay),
                    fault => fault,
                };
                cluster.deliver(from, fault, answer)
            }
        };
        cluster.tell_end(from, &answer);
        Some(answer)
    }

    /// Whether nothing more is to be read once the answer is out.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn handle(&mut self, sasl: Option<&Sasl>, now: Now, asked: &Asked) -> Answer {
        let Some(sasl) = sasl else { return asked.out_of_turn() };
        match (std::mem::replace(&mut self.state, State::Over), asked.api) {
            (State::Closed, ApiKey::SASL_HANDSHAKE) => self.name(sasl, now, asked),
            (State::Open { until: Some(_) }, ApiKey::SASL_HANDSHAKE) if self.may_renew(now) => {
                self.name(sasl, now, asked)
            }
            (open @ State::Open { .. }, _) => {
                self.state = open;
                asked.out_of_turn()
            }
            (State::Exchange(exchange), ApiKey::SASL_AUTHENTICATE) => {
                self.exchange(sasl, now, asked, exchange)
            }
            _ => close("out of turn for authentication"),
        }
    }

    /// At most once a second.
    fn may_renew(&self, now: Now) -> bool {
        let renewed = self.known.as_ref().and_then(|known| known.renewed);
        renewed.is_none_or(|renewed| now.monotonic >= renewed + Duration::from_secs(1))
    }

    fn name(&mut self, sasl: &Sasl, now: Now, asked: &Asked) -> Answer {
        let request: SaslHandshakeRequest = match asked.read() {
            Ok(request) => request,
            Err(reason) => return Answer::Close(reason),
        };
        let mechanisms = sasl.offered();
        let changed = self.known.as_ref().is_some_and(|known| known.mechanism != request.mechanism);
        let exchange = match mechanisms.contains(&request.mechanism) && !changed {
            true => Exchange::begin(&request.mechanism),
            false => None,
        };
        if let Some(known) = &mut self.known {
            known.renewed = Some(now.monotonic);
        }
        match exchange {
            Some(exchange) => {
                self.state = State::Exchange(exchange);
                asked.answer(&SaslHandshakeResponse { mechanisms, ..Default::default() }, Duration::ZERO)
            }
            None => {
                let error_code = ErrorCode::UNSUPPORTED_SASL_MECHANISM;
                asked.answer(&SaslHandshakeResponse { error_code, mechanisms }, sasl.failure_delay)
            }
        }
    }

    fn exchange(&mut self, sasl: &Sasl, now: Now, asked: &Asked, mut exchange: Exchange) -> Answer {
        let request: SaslAuthenticateRequest = match asked.read() {
            Ok(request) => request,
            Err(reason) => return Answer::Close(reason),
        };
        let verdict = exchange.take(sasl, &request.auth_bytes);
        let words = match verdict {
            Verdict::Challenge(auth_bytes) => {
                self.state = State::Exchange(exchange);
                let challenge = SaslAuthenticateResponse { auth_bytes, ..Default::default() };
                return asked.answer(&challenge, Duration::ZERO);
            }
            Verdict::Known { principal, auth_bytes, lifetime } => {
                let before = self.known.as_ref().filter(|known| known.principal != principal);
                match before {
                    Some(Known { principal: other, .. }) => {
                        format!(
                            "Cannot change principals during re-authentication from {other} to {principal}"
                        )
                    }
                    None => {
                        let lifetime = [lifetime, sasl.max_session].into_iter().flatten().min();
                        self.state = State::Open { until: lifetime.map(|time| now.monotonic + time) };
                        let renewed = self.known.take().and_then(|known| known.renewed);
                        let mechanism = exchange.mechanism().to_owned();
                        self.known = Some(Known { mechanism, principal, renewed });
                        let ms =
                            lifetime.map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
                        let known = SaslAuthenticateResponse {
                            auth_bytes,
                            session_lifetime_ms: ms,
                            ..Default::default()
                        };
                        return asked.answer(&known, Duration::ZERO);
                    }
                }
            }
            Verdict::Refused(words) => words,
        };
        let error_code = ErrorCode::SASL_AUTHENTICATION_FAILED;
        let refusal =
            SaslAuthenticateResponse { error_code, error_message: Some(words), ..Default::default() };
        asked.answer(&refusal, sasl.failure_delay)
    }
}

fn close(why: &'static str) -> Answer {
    Answer::Close(CloseReason::Sasl(why))
}

/// A request.
struct Asked {
    api: ApiKey,
    version: i16,
    id: i32,
    body: Bytes,
}

impl Asked {
    fn read<R: Request>(&self) -> Result<R, CloseReason> {
        let (api, version) = (self.api, self.version);
        let Ok(format) = R::version(version) else {
            return Err(CloseReason::Unsupported { api, version });
        };
        R::decode(&self.body, format).map_err(|error| CloseReason::Body { api, version, error })
    }

    fn answer<B: Body>(&self, response: &B, delay: Duration) -> Answer {
        match encode_response(response, self.version, self.id) {
            Ok(frame) => Answer::Reply { frame, delay, manner: Manner::Whole, mute: Duration::ZERO },
            Err(error) => Answer::Close(CloseReason::Response { api: self.api, error }),
        }
    }

    fn refuse(&self, error_code: ErrorCode, error_message: Option<String>) -> Answer {
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

    /// What a listener says on which nobody authenticates, and one on which everybody has.
    fn out_of_turn(&self) -> Answer {
        let words = "SaslAuthenticate request received after successful authentication".to_owned();
        self.refuse(ErrorCode::ILLEGAL_SASL_STATE, Some(words))
    }
}
