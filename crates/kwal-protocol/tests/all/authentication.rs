//! A connection that authenticates, and reauthenticates while it is in use (KIP-368).

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use kwal_protocol::{
    api::{ApiKey, Body, Request, decode_request_header, encode_response},
    connection::{
        Computation, Connection, ConnectionConfig, ConnectionError, CorrelationId, Event, NegotiatedVersions,
        Stage,
    },
    error_code::ErrorCode,
    messages::{
        ApiVersion, ApiVersionsResponse, MetadataRequest, MetadataResponse, SaslAuthenticateRequest,
        SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    },
    sasl::{Mechanism, Plain, SaslError, Step},
};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

/// A mechanism of three messages, each of which has to be answered with its number.
#[derive(Debug, Default)]
struct Counting(u8);

impl Mechanism for Counting {
    fn name(&self) -> &str {
        "COUNTING"
    }

    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<Step, SaslError> {
        if challenge != (self.0 > 0).then_some(&[self.0][..]) {
            return Err(SaslError::Challenge {
                mechanism: "COUNTING".into(),
                what: "not the next number".into(),
            });
        }
        self.0 += 1;
        Ok(if self.0 <= 3 { Step::Send(Bytes::copy_from_slice(&[self.0])) } else { Step::Done })
    }
}

/// A mechanism that computes its first message.
#[derive(Debug)]
struct Slow;

impl Mechanism for Slow {
    fn name(&self) -> &str {
        "SLOW"
    }

    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<Step, SaslError> {
        Ok(if challenge.is_none() { Step::Compute } else { Step::Done })
    }

    fn compute(&mut self) -> Result<Step, SaslError> {
        Ok(Step::Send(Bytes::from_static(b"computed")))
    }
}

/// A mechanism that never ends.
#[derive(Debug)]
struct Endless;

impl Mechanism for Endless {
    fn name(&self) -> &str {
        "ENDLESS"
    }

    fn respond(&mut self, _: Option<&[u8]>) -> Result<Step, SaslError> {
        Ok(Step::Send(Bytes::new()))
    }
}

/// A connection and its broker; frames arrive at the broker at once.
struct Pair {
    connection: Connection,
    now: Instant,
    inbox: BytesMut,
    /// Requests at the broker: API and body.
    received: VecDeque<(CorrelationId, ApiKey, Bytes)>,
    events: VecDeque<Event>,
}

impl Pair {
    #[allow(clippy::disallowed_methods, reason = "some instant is needed to count from")]
    fn new(mechanism: Option<Box<dyn Mechanism>>) -> Self {
        let now = Instant::now();
        let config = ConnectionConfig { handshake_timeout: 5 * SECOND, ..ConnectionConfig::default() };
        let connection = match mechanism {
            Some(mechanism) => Connection::with_sasl(config, mechanism, now),
            None => Connection::new(config, now),
        };
        let (inbox, received, events) = Default::default();
        let mut this = Self { connection, now, inbox, received, events };
        this.transmit();
        this.answer(&versions());
        this
    }

    fn transmit(&mut self) {
        while let Some((id, mut frame)) = self.connection.poll_transmit() {
            let bytes = frame.copy_to_bytes(frame.remaining()).slice(4..);
            let (header, reader) = decode_request_header(&bytes).unwrap();
            self.received.push_back((id, header.request_api_key, bytes.slice(reader.position()..)));
            self.connection.handle_transmitted(self.now, id);
        }
        while let Some(event) = self.connection.poll_event() {
            self.events.push_back(event);
        }
    }

    /// Answers the oldest request, which is one of `B`'s.
    fn answer<B: Body>(&mut self, body: &B) {
        let (id, key, _) = self.received.pop_front().expect("the broker has a request");
        assert_eq!(key, B::KEY);
        let version = match B::KEY {
            ApiKey::API_VERSIONS => 4,
            ApiKey::SASL_HANDSHAKE => 1,
            key => key.versions().unwrap().newest,
        };
        let mut frame = encode_response(body, version, id.0).unwrap();
        self.inbox.extend_from_slice(&frame.copy_to_bytes(frame.remaining()));
        let _ = self.connection.handle_input(self.now, &mut self.inbox);
        self.transmit();
    }

    /// Decodes the body of the oldest request.
    fn read<R: Request>(&self, version: i16) -> R {
        let (_, key, body) = self.received.front().expect("the broker has a request");
        assert_eq!(*key, R::KEY);
        R::decode(body, R::version(version).unwrap()).unwrap()
    }

    fn ready(&mut self) -> Arc<NegotiatedVersions> {
        match self.events.pop_front() {
            Some(Event::Ready(versions)) => versions,
            other => panic!("not ready but {other:?}"),
        }
    }

    fn authenticated(&mut self) -> Option<Duration> {
        match self.events.pop_front() {
            Some(Event::Authenticated(lifetime)) => lifetime,
            other => panic!("not authenticated but {other:?}"),
        }
    }

    fn closed(&mut self) -> ConnectionError {
        match self.events.pop_front() {
            Some(Event::Closed(error)) => error,
            other => panic!("not closed but {other:?}"),
        }
    }

    fn computation(&mut self) -> Computation {
        match self.events.pop_front() {
            Some(Event::Compute(computation)) => computation,
            other => panic!("nothing to compute but {other:?}"),
        }
    }

    fn call(&mut self, versions: &NegotiatedVersions) -> CorrelationId {
        let call = versions.encode(&MetadataRequest::default(), MetadataRequest::VERSIONS).unwrap();
        let id = self.connection.send(self.now, call, ()).unwrap();
        self.transmit();
        id
    }
}

fn versions() -> ApiVersionsResponse {
    let api_keys = ApiKey::ALL
        .iter()
        .map(|key| {
            let versions = key.versions().unwrap();
            ApiVersion { api_key: *key, min_version: versions.oldest, max_version: versions.newest }
        })
        .collect();
    ApiVersionsResponse { api_keys, ..Default::default() }
}

fn challenge(bytes: &'static [u8]) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse { auth_bytes: Bytes::from_static(bytes), ..Default::default() }
}

fn plain() -> Option<Box<dyn Mechanism>> {
    Some(Box::new(Plain::new("alice", "secret").unwrap()))
}

#[test]
fn ready_comes_after_authentication() {
    let mut pair = Pair::new(plain());
    assert!(!pair.connection.is_ready());
    assert_eq!(pair.read::<SaslHandshakeRequest>(1).mechanism, "PLAIN");
    pair.answer(&SaslHandshakeResponse::default());
    assert_eq!(&pair.read::<SaslAuthenticateRequest>(2).auth_bytes[..], b"\0alice\0secret");
    pair.answer(&SaslAuthenticateResponse { session_lifetime_ms: 60_000, ..Default::default() });
    assert_eq!(pair.authenticated(), Some(60 * SECOND));
    let versions = pair.ready();
    pair.call(&versions);
    pair.answer(&MetadataResponse::default());
    assert!(matches!(pair.events.pop_front(), Some(Event::Response(..))));
}

#[test]
fn a_mechanism_may_take_several_messages() {
    let mut pair = Pair::new(Some(Box::new(Counting::default())));
    pair.answer(&SaslHandshakeResponse::default());
    for bytes in [b"\x01", b"\x02", b"\x03"] {
        assert_eq!(&pair.read::<SaslAuthenticateRequest>(2).auth_bytes[..], bytes);
        pair.answer(&challenge(bytes));
    }
    assert_eq!(pair.authenticated(), None);
    pair.ready();
}

#[test]
fn long_computations_are_handed_to_the_owner() {
    let mut pair = Pair::new(None);
    let versions = pair.ready();
    pair.connection.reauthenticate(pair.now, Box::new(Slow), 5 * SECOND).unwrap();
    pair.transmit();
    pair.answer(&SaslHandshakeResponse::default());
    let computation = pair.computation();
    pair.call(&versions);
    assert!(pair.received.is_empty(), "nothing is sent meanwhile");
    assert_eq!(pair.connection.poll_timeout(), Some(pair.now + 5 * SECOND), "and its time goes on");
    pair.connection.handle_computed(computation.run());
    pair.transmit();
    assert_eq!(&pair.read::<SaslAuthenticateRequest>(2).auth_bytes[..], b"computed");
    pair.answer(&SaslAuthenticateResponse::default());
    pair.authenticated();
    pair.answer(&MetadataResponse::default());
    assert!(matches!(pair.events.pop_front(), Some(Event::Response(..))));
}

#[test]
fn a_late_computation_does_nothing() {
    let mut pair = Pair::new(Some(Box::new(Slow)));
    pair.answer(&SaslHandshakeResponse::default());
    let computation = pair.computation();
    pair.now += 5 * SECOND;
    pair.connection.handle_timeout(pair.now);
    pair.transmit();
    assert!(matches!(pair.closed(), ConnectionError::HandshakeTimedOut { stage: Stage::Authentication, .. }));
    pair.connection.handle_computed(computation.run());
    pair.transmit();
    assert!(pair.received.is_empty() && pair.events.is_empty());
}

#[test]
fn a_listener_without_sasl_is_reported() {
    let mut pair = Pair::new(plain());
    let error_code = ErrorCode::ILLEGAL_SASL_STATE;
    pair.answer(&SaslHandshakeResponse { error_code, ..Default::default() });
    let text = pair.closed().to_string();
    assert!(
        text.ends_with("not valid in the current state of authentication: does this listener use SASL?"),
        "{text}"
    );
}

#[test]
fn rejections_carry_the_brokers_message() {
    let mut pair = Pair::new(plain());
    pair.answer(&SaslHandshakeResponse {
        error_code: ErrorCode::UNSUPPORTED_SASL_MECHANISM,
        mechanisms: vec!["GSSAPI".to_owned(), "SCRAM-SHA-512".to_owned()],
    });
    let text = pair.closed().to_string();
    assert_eq!(text, "the broker does not offer SASL PLAIN, it offers GSSAPI, SCRAM-SHA-512");

    let mut pair = Pair::new(plain());
    pair.answer(&SaslHandshakeResponse::default());
    pair.answer(&SaslAuthenticateResponse {
        error_code: ErrorCode::SASL_AUTHENTICATION_FAILED,
        error_message: Some("Authentication failed: Invalid username or password".to_owned()),
        ..Default::default()
    });
    let error = pair.closed();
    assert!(error.to_string().ends_with("Invalid username or password"), "{error}");
    assert!(!format!("{error:?}").contains("secret"));

    let mut pair = Pair::new(plain());
    pair.answer(&SaslHandshakeResponse::default());
    pair.answer(&challenge(b"why?"));
    assert!(matches!(pair.closed(), ConnectionError::Sasl { .. }));

    let mut pair = Pair::new(Some(Box::new(Endless)));
    pair.answer(&SaslHandshakeResponse::default());
    while !pair.connection.is_closed() {
        pair.answer(&challenge(b""));
    }
    assert!(matches!(pair.closed(), ConnectionError::EndlessExchange { .. }));
}

#[test]
fn the_first_authentication_is_part_of_the_handshakes_time() {
    let mut pair = Pair::new(plain());
    pair.now += 5 * SECOND;
    pair.connection.handle_timeout(pair.now);
    pair.transmit();
    assert!(matches!(pair.closed(), ConnectionError::HandshakeTimedOut { stage: Stage::Authentication, .. }));
}

#[test]
fn a_broker_without_sasl_is_reported() {
    let mut pair = Pair::new(None);
    pair.ready();
    // The same with a mechanism, and a broker that only lists Metadata.
    let config = ConnectionConfig::default();
    pair.connection = Connection::with_sasl(config, plain().unwrap(), pair.now);
    pair.transmit();
    let metadata = ApiVersion { api_key: ApiKey::METADATA, min_version: 0, max_version: 12 };
    pair.answer(&ApiVersionsResponse { api_keys: vec![metadata], ..Default::default() });
    assert!(matches!(pair.closed(), ConnectionError::NoAuthentication { api: ApiKey::SASL_HANDSHAKE }));
}

#[test]
fn requests_in_flight_are_answered_first_and_later_ones_wait() {
    let mut pair = Pair::new(None);
    let versions = pair.ready();
    let before = pair.call(&versions);
    pair.connection.reauthenticate(pair.now, plain().unwrap(), 5 * SECOND).unwrap();
    assert!(pair.connection.reauthenticate(pair.now, plain().unwrap(), 5 * SECOND).is_err(), "one at a time");
    let held = pair.call(&versions);
    assert_eq!(pair.received.len(), 1, "nothing is sent while a request is in flight");
    assert!(pair.connection.outgoing_bytes() > 0, "the request is not handed out");

    pair.answer(&MetadataResponse::default());
    assert!(
        matches!(pair.events.pop_front(), Some(Event::Response((), response)) if response.correlation_id() == before)
    );
    pair.answer(&SaslHandshakeResponse::default());
    assert_eq!(pair.received.len(), 1);
    pair.answer(&SaslAuthenticateResponse { session_lifetime_ms: 1000, ..Default::default() });
    assert_eq!(pair.authenticated(), Some(SECOND));
    assert_eq!(pair.received.front().unwrap().0, held);
    pair.answer(&MetadataResponse::default());
    assert!(
        matches!(pair.events.pop_front(), Some(Event::Response((), response)) if response.correlation_id() == held)
    );
}

#[test]
fn the_time_of_a_reauthentication_starts_when_it_begins() {
    let mut pair = Pair::new(None);
    let versions = pair.ready();
    pair.call(&versions);
    pair.connection.reauthenticate(pair.now, plain().unwrap(), 5 * SECOND).unwrap();
    pair.now += 8 * SECOND;
    pair.connection.handle_timeout(pair.now);
    pair.answer(&MetadataResponse::default());
    assert_eq!(pair.connection.poll_timeout(), Some(pair.now + 5 * SECOND));
    pair.now += 5 * SECOND;
    pair.connection.handle_timeout(pair.now);
    pair.transmit();
    pair.events.pop_front();
    assert!(matches!(pair.closed(), ConnectionError::HandshakeTimedOut { .. }));
}

/// A throttle holds the exchange back, so its time is no part of the limit.
#[test]
fn the_time_of_a_reauthentication_is_paused_while_the_broker_throttles() {
    for throttled_before in [true, false] {
        let mut pair = Pair::new(None);
        let versions = pair.ready();
        pair.call(&versions);
        pair.connection.reauthenticate(pair.now, plain().unwrap(), 5 * SECOND).unwrap();
        if throttled_before {
            pair.connection.throttle(pair.now, 30 * SECOND);
        }
        pair.answer(&MetadataResponse::default());
        pair.connection.throttle(pair.now, 30 * SECOND);
        pair.events.clear();
        pair.now += 30 * SECOND;
        pair.connection.handle_timeout(pair.now);
        pair.transmit();
        pair.now += 4 * SECOND;
        pair.answer(&SaslHandshakeResponse::default());
        pair.answer(&SaslAuthenticateResponse::default());
        assert_eq!(pair.authenticated(), None, "throttled before: {throttled_before}");
    }
}

#[derive(Clone, Debug)]
enum Op {
    Send,
    Transmit,
    Answer,
    Reauthenticate,
    Wait(u16),
    Throttle(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Send),
        8 => Just(Op::Transmit),
        8 => Just(Op::Answer),
        2 => Just(Op::Reauthenticate),
        2 => (0u16..400).prop_map(Op::Wait),
        1 => (0u16..300).prop_map(Op::Throttle),
    ]
}

proptest! {
    /// During the exchange no request of the owner is at the broker, and all responses come in order.
    #[test]
    fn an_exchange_is_never_mixed_with_calls(ops in proptest::collection::vec(op(), 0..120)) {
        let mut pair = Pair::new(None);
        let versions = pair.ready();
        let mut calls = VecDeque::new();
        for op in ops {
            match op {
                Op::Send => {
                    let call = versions.encode(&MetadataRequest::default(), MetadataRequest::VERSIONS).unwrap();
                    calls.push_back(pair.connection.send(pair.now, call, ()).unwrap());
                }
                Op::Transmit => pair.transmit(),
                Op::Answer => match pair.received.front().map(|received| received.1) {
                    Some(ApiKey::METADATA) => pair.answer(&MetadataResponse::default()),
                    Some(ApiKey::SASL_HANDSHAKE) => pair.answer(&SaslHandshakeResponse::default()),
                    Some(_) => {
                        let number = pair.read::<SaslAuthenticateRequest>(2).auth_bytes;
                        pair.answer(&SaslAuthenticateResponse { auth_bytes: number, ..Default::default() });
                    }
                    None => {}
                },
                Op::Reauthenticate => drop(pair.connection.reauthenticate(pair.now, Box::new(Counting::default()), 5 * SECOND)),
                Op::Wait(ms) => {
                    // Short enough that nothing is overdue.
                    pair.now += Duration::from_millis(ms.into());
                    for (id, ..) in &pair.received {
                        pair.connection.handle_transmitted(pair.now, *id);
                    }
                }
                Op::Throttle(ms) => pair.connection.throttle(pair.now, Duration::from_millis(ms.into())),
            }
            let of_sasl = |received: &(CorrelationId, ApiKey, Bytes)| received.1 != ApiKey::METADATA;
            prop_assert!(!pair.received.iter().any(of_sasl) || pair.received.len() == 1, "{:?}", pair.received);
            while let Some(event) = pair.events.pop_front() {
                match event {
                    Event::Response((), response) => {
                        prop_assert_eq!(calls.pop_front(), Some(response.correlation_id()));
                    }
                    Event::Authenticated(_) => {}
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
