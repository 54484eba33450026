//! The state machine of a connection, in memory and with a virtual clock.

use std::{
    collections::VecDeque,
    error::Error as _,
    io::{self, IoSlice},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::{unhex, vectors};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kwal_protocol::{
    api::{ApiKey, Body, Versions, decode_request_header, encode_response},
    connection::{
        CallError, Connection, ConnectionConfig, ConnectionError, CorrelationId, EncodedRequest, Event,
        Misbehaviour, NegotiatedVersions, OtherProtocol, RawResponse, ResponseProgress, SendError, Stage,
    },
    error::{DecodeErrorKind, EncodeError},
    error_code::ErrorCode,
    messages::{
        ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FetchPartitionResponse, FetchRequest,
        FetchResponse, FetchTopicResponse, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
        MetadataResponse, ProduceRequest,
    },
    writer::Frame,
};
use proptest::prelude::*;

/// A connection with its owner: frames are written at once, and events are collected.
struct Owner {
    connection: Connection<usize>,
    now: Instant,
    inbox: BytesMut,
    sent: VecDeque<(CorrelationId, Bytes)>,
    events: VecDeque<Event<usize>>,
    /// The correlation ids of the requests sent; the token of a request is its index.
    ids: Vec<CorrelationId>,
    /// The result of the last input.
    wants: usize,
}

impl Owner {
    fn new(config: ConnectionConfig) -> Self {
        let now = start();
        let mut this = Self {
            connection: Connection::new(config, now),
            now,
            inbox: BytesMut::new(),
            sent: VecDeque::new(),
            events: VecDeque::new(),
            ids: Vec::new(),
            wants: 0,
        };
        this.drain();
        this
    }

    /// After a handshake with a broker that supports everything that this crate does.
    fn ready(config: ConnectionConfig) -> (Self, Arc<NegotiatedVersions>) {
        let mut this = Self::new(config);
        let versions = this.shake_hands();
        (this, versions)
    }

    fn shake_hands(&mut self) -> Arc<NegotiatedVersions> {
        let (id, _) = self.sent.pop_front().unwrap();
        self.answer(&everything(), 4, id);
        match self.events.pop_front() {
            Some(Event::Ready(versions)) => versions,
            other => panic!("not ready but {other:?}"),
        }
    }

    fn drain(&mut self) {
        while let Some((id, mut frame)) = self.connection.poll_transmit() {
            self.sent.push_back((id, frame.copy_to_bytes(frame.remaining())));
            self.connection.handle_transmitted(self.now, id);
        }
        while let Some(event) = self.connection.poll_event() {
            self.events.push_back(event);
        }
    }

    fn answer<B: Body>(&mut self, body: &B, version: i16, id: CorrelationId) {
        self.input(&response(body, version, id));
    }

    fn input(&mut self, bytes: &[u8]) {
        self.inbox.put(bytes);
        if let Ok(wants) = self.connection.handle_input(self.now, &mut self.inbox) {
            self.wants = wants;
        }
        self.drain();
    }

    fn send(&mut self, request: EncodedRequest) -> Result<CorrelationId, ConnectionError> {
        let token = self.ids.len();
        let sent = self.connection.send(self.now, request, token);
        self.drain();
        match sent {
            Ok(id) => {
                self.ids.push(id);
                Ok(id)
            }
            Err(SendError { error, token: returned }) => {
                assert_eq!(returned, token);
                Err(error)
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.connection.handle_timeout(self.now);
        self.drain();
    }

    fn closed(&mut self) -> ConnectionError {
        assert!(self.connection.is_closed());
        assert_eq!(self.connection.poll_timeout(), None);
        match self.events.pop_back() {
            Some(Event::Closed(error)) => error,
            other => panic!("not closed but {other:?}"),
        }
    }

    fn response(&mut self) -> (CorrelationId, RawResponse) {
        match self.events.pop_front() {
            Some(Event::Response(token, response)) => {
                let id = self.ids[token];
                assert_eq!(response.correlation_id(), id);
                (id, response)
            }
            other => panic!("no response but {other:?}"),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "some instant is needed to count from")]
fn start() -> Instant {
    Instant::now()
}

/// A broker that supports everything that this crate does.
fn everything() -> ApiVersionsResponse {
    let range = |key: &ApiKey| {
        let versions = key.versions().unwrap();
        ApiVersion { api_key: *key, min_version: versions.oldest, max_version: versions.newest }
    };
    ApiVersionsResponse { api_keys: ApiKey::ALL.iter().rev().map(range).collect(), ..Default::default() }
}

fn response<B: Body>(body: &B, version: i16, id: CorrelationId) -> Bytes {
    let mut frame = encode_response(body, version, id.0).unwrap();
    frame.copy_to_bytes(frame.remaining())
}

fn metadata(versions: &NegotiatedVersions) -> EncodedRequest {
    versions.encode(&MetadataRequest::default(), MetadataRequest::VERSIONS).unwrap()
}

fn fetch(versions: &NegotiatedVersions) -> EncodedRequest {
    versions.encode(&FetchRequest::default(), FetchRequest::VERSIONS).unwrap()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn requests_versions_first() {
    let mut owner =
        Owner::new(ConnectionConfig { client_id: Some("me".to_owned()), ..ConnectionConfig::default() });
    let (id, frame) = owner.sent[0].clone();
    let frame = frame.slice(4..);
    let (header, reader) = decode_request_header(&frame).unwrap();
    assert_eq!((header.request_api_key, header.request_api_version), (ApiKey::API_VERSIONS, 4));
    assert_eq!((header.correlation_id, header.client_id.as_deref()), (id.0, Some("me")));
    let body = frame.slice(reader.position()..);
    let request = ApiVersionsRequest::decode(&body, ApiVersionsRequest::version(4).unwrap()).unwrap();
    assert_eq!(request.client_software_name, "kwal");
    assert_eq!(request.client_software_version, env!("CARGO_PKG_VERSION"));

    let versions = owner.shake_hands();
    assert!(owner.connection.is_ready());
    assert_eq!(owner.wants, 4);
    assert_eq!(versions.versions(ApiKey::FETCH), Some(Versions::new(0, 18)));
    assert_eq!(versions.versions(ApiKey(77)), None);
    assert_eq!(versions.apis().count(), ApiKey::ALL.len());
}

/// The lists of real brokers, in every version of the response: old versions are reached by fallback.
#[test]
fn accepts_the_lists_of_brokers_in_every_version() {
    let mut count = 0;
    for vector in vectors("special") {
        if vector["case"] != "apiversions-broker-list" {
            continue;
        }
        let version = vector["version"].as_i64().unwrap() as i16;
        let mut owner = Owner::new(ConnectionConfig::default());
        let (mut id, _) = owner.sent.pop_front().unwrap();
        if version < 4 {
            owner.answer(&refusal(Some(version)), 0, id);
            assert!(owner.events.is_empty());
            let (next, frame) = owner.sent.pop_front().unwrap();
            let (header, _) =
                decode_request_header(&frame.slice(4..)).map(|(h, r)| (h, r.position())).unwrap();
            assert_eq!((header.request_api_version, header.correlation_id), (version, next.0));
            assert_ne!(next, id);
            id = next;
        }
        let body = unhex(&vector["hex"]);
        owner.input(&[&(4 + body.len() as i32).to_be_bytes()[..], &id.0.to_be_bytes(), &body].concat());
        let Some(Event::Ready(versions)) = owner.events.pop_front() else { panic!("{:?}", owner.connection) };
        let newest = match vector["gen"].as_str().unwrap() {
            "3.9.2" => 17,
            _ => 18,
        };
        assert_eq!(versions.negotiate(ApiKey::FETCH, Versions::new(4, 18)), Ok(newest));
        assert_eq!(versions.supported_features().is_empty(), version < 3);
        assert_eq!(versions.finalized_features().is_empty(), version < 3);
        assert_eq!(versions.finalized_features_epoch() == -1, version < 3);
        count += 1;
    }
    assert_eq!(count, 10);
}

/// The responses of real brokers to an unknown version, byte by byte.
#[test]
fn falls_back_to_the_version_of_the_broker() {
    let mut count = 0;
    for vector in vectors("special") {
        let mut owner = Owner::new(ConnectionConfig::default());
        let (id, _) = owner.sent.pop_front().unwrap();
        let answer =
            |body: &[u8]| [&(4 + body.len() as i32).to_be_bytes()[..], &id.0.to_be_bytes(), body].concat();
        match vector["case"].as_str().unwrap() {
            "apiversions-unsupported" => {
                // These brokers support version 4, the newest here; an older broker reports its own at the
                // same position.
                let mut body = unhex(&vector["hex"]).to_vec();
                owner.input(&answer(&body));
                assert_eq!(
                    owner.closed().to_string(),
                    "the peer violated the protocol: it rejected ApiVersions version 4, but claims to support 4"
                );
                owner = Owner::new(ConnectionConfig::default());
                owner.sent.clear();
                *body.last_mut().unwrap() = 3;
                owner.input(&answer(&body));
                assert_eq!(owner.sent[0].1[6..8], [0, 3]);
            }
            "apiversions-unsupported-old" => {
                owner.input(&answer(&unhex(&vector["hex"])));
                assert_eq!(owner.sent[0].1[6..8], [0, 0]);
            }
            _ => continue,
        }
        count += 1;
    }
    assert_eq!(count, 9);
}

/// The rejection of a version, with the newest supported one if it is named.
fn refusal(newest: Option<i16>) -> ApiVersionsResponse {
    let range = |max_version| ApiVersion { api_key: ApiKey::API_VERSIONS, min_version: 0, max_version };
    ApiVersionsResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION,
        api_keys: newest.map(range).into_iter().collect(),
        ..Default::default()
    }
}

#[test]
fn the_fallback_of_versions_ends() {
    let mut owner = Owner::new(ConnectionConfig::default());
    for _ in 0..2 {
        let (id, _) = owner.sent.pop_front().unwrap();
        owner.answer(&refusal(None), 0, id);
    }
    assert_eq!(
        owner.closed().to_string(),
        format!("the broker rejected ApiVersions version 0: {}", ErrorCode::UNSUPPORTED_VERSION)
    );
    assert!(owner.sent.is_empty());

    let mut owner = Owner::new(ConnectionConfig::default());
    let (id, _) = owner.sent.pop_front().unwrap();
    let future = ApiVersion { api_key: ApiKey::API_VERSIONS, min_version: 7, max_version: 9 };
    owner.answer(&ApiVersionsResponse { api_keys: vec![future], ..refusal(None) }, 0, id);
    assert_eq!(owner.closed().to_string(), "the broker supports ApiVersions 7 to 9, this client 0 to 4");
}

#[test]
fn other_errors_of_the_handshake_are_reported() {
    let mut owner = Owner::new(ConnectionConfig::default());
    let (id, _) = owner.sent.pop_front().unwrap();
    let refused = ApiVersionsResponse { error_code: ErrorCode::INVALID_REQUEST, ..Default::default() };
    owner.answer(&refused, 4, id);
    let error = owner.closed();
    assert!(matches!(error, ConnectionError::Refused { code: ErrorCode::INVALID_REQUEST, version: 4, .. }));

    let mut owner = Owner::new(ConnectionConfig::default());
    owner.input(&[0, 0, 0, 6, 0, 0, 0, 0, 0, 0]);
    let error = owner.closed();
    assert_eq!(error.to_string(), "the response to ApiVersions version 4 cannot be decoded");
    let source = error.source().unwrap().to_string();
    assert_eq!(source, "the input ends too early at byte 6 in apiKeys");
}

#[test]
fn the_configuration_is_checked_before_anything_is_sent() {
    for name in ["", "-kwal", "kwal.", "kw al", "kwäl"] {
        let config = ConnectionConfig { client_software_name: name.to_owned(), ..Default::default() };
        let mut owner = Owner::new(config);
        assert!(owner.sent.is_empty());
        assert_eq!(
            owner.closed().to_string(),
            format!(
                "client_software_name {name:?} must consist of letters, digits, '-' and '.', and start \
                 and end with a letter or digit"
            )
        );
    }
    let mut owner =
        Owner::new(ConnectionConfig { client_id: Some("x".repeat(40_000)), ..Default::default() });
    let error = owner.closed();
    assert_eq!(error.to_string(), "ApiVersions cannot be encoded");
    assert!(matches!(error, ConnectionError::Encode { source: EncodeError::TooLong(40_000), .. }));
}

/// The whole conversation, split at every byte, byte by byte, and in exactly the requested pieces.
#[test]
fn input_may_come_in_any_pieces() {
    let conversation = |id: i32| {
        let answer = MetadataResponse { cluster_id: Some("wal".to_owned()), ..Default::default() };
        let fetched = FetchResponse { session_id: 7, ..Default::default() };
        [
            &response(&everything(), 4, CorrelationId(id))[..],
            &response(&answer, 13, CorrelationId(id + 1)),
            &response(&fetched, 18, CorrelationId(id + 2)),
        ]
        .concat()
    };
    let stream = conversation(0);
    let handshake = response(&everything(), 4, CorrelationId(0)).len();
    let check = |pieces: &mut dyn FnMut(&mut Owner, &[u8])| {
        let mut owner = Owner::new(ConnectionConfig::default());
        owner.wants = 4;
        pieces(&mut owner, &stream[..handshake]);
        let Some(Event::Ready(versions)) = owner.events.pop_front() else { panic!("not ready") };
        owner.send(metadata(&versions)).unwrap();
        owner.send(fetch(&versions)).unwrap();
        pieces(&mut owner, &stream[handshake..]);
        let (first, reply) = owner.response();
        assert_eq!(reply.decode::<MetadataRequest>().unwrap().cluster_id.as_deref(), Some("wal"));
        let (second, reply) = owner.response();
        assert_eq!(reply.decode::<FetchRequest>().unwrap().session_id, 7);
        assert_eq!((first, second), (CorrelationId(1), CorrelationId(2)));
        assert!(owner.inbox.is_empty() && owner.wants == 4 && owner.events.is_empty());
    };
    for cut in 0..stream.len() {
        check(&mut |owner, bytes| {
            let (front, back) = bytes.split_at(cut.min(bytes.len()));
            owner.input(front);
            owner.input(back);
        });
    }
    check(&mut |owner, bytes| bytes.chunks(1).for_each(|byte| owner.input(byte)));
    check(&mut |owner, mut bytes| {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(owner.wants);
            owner.input(piece);
            bytes = rest;
        }
    });
}

#[test]
fn requests_are_rejected_until_ready_and_beyond_the_limit() {
    let (_, versions) = Owner::ready(ConnectionConfig::default());
    let mut owner = Owner::new(ConnectionConfig { max_in_flight: 2, ..Default::default() });
    let error = owner.send(metadata(&versions)).unwrap_err();
    assert_eq!(error.to_string(), "the connection is not ready: its handshake is not complete");

    owner.shake_hands();
    let first = owner.send(metadata(&versions)).unwrap();
    owner.connection.throttle(owner.now, SECOND);
    owner.send(metadata(&versions)).unwrap();
    let error = owner.send(metadata(&versions)).unwrap_err();
    assert_eq!(error.to_string(), "the connection has 2 pending requests, which is its limit");
    owner.answer(&MetadataResponse::default(), 13, first);
    owner.send(metadata(&versions)).unwrap();
    assert_eq!(owner.connection.in_flight(), 2);
}

#[test]
fn the_newest_common_version_is_negotiated() {
    let mut owner = Owner::new(ConnectionConfig::default());
    let (id, _) = owner.sent.pop_front().unwrap();
    let api_keys = vec![
        ApiVersion { api_key: ApiKey::METADATA, min_version: 0, max_version: 99 },
        ApiVersion { api_key: ApiKey::FETCH, min_version: 4, max_version: 11 },
        ApiVersion { api_key: ApiKey::INIT_PRODUCER_ID, min_version: 0, max_version: 1 },
    ];
    owner.answer(&ApiVersionsResponse { api_keys, ..Default::default() }, 4, id);
    let Some(Event::Ready(versions)) = owner.events.pop_front() else { panic!("not ready") };

    let version = |ours| versions.encode(&FetchRequest::default(), ours).map(|call| call.version().number);
    assert_eq!(version(Versions::new(0, 18)).unwrap(), 11);
    assert_eq!(version(Versions::new(4, 6)).unwrap(), 6);
    let error = version(Versions::new(12, 18)).unwrap_err();
    assert_eq!(error.to_string(), "the broker supports Fetch in versions 4 to 11, this client in 12 to 18");
    // Versions unknown to the codec are not negotiated either.
    let call = versions.encode(&MetadataRequest::default(), Versions::new(0, i16::MAX)).unwrap();
    assert_eq!((call.key(), call.version().number), (ApiKey::METADATA, 13));
    let error = versions.encode(&ListOffsetsRequest::default(), Versions::new(1, 11)).unwrap_err();
    assert_eq!(error.to_string(), "the broker does not support ListOffsets");
    let request = InitProducerIdRequest { producer_id: 7, ..Default::default() };
    let error = versions.encode(&request, Versions::new(0, 5)).unwrap_err();
    assert!(matches!(error, CallError::Encode { version: 1, source: EncodeError::NotInVersion { .. }, .. }));
}

#[test]
fn responses_come_in_order_and_decode_as_their_api() {
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let first = owner.send(metadata(&versions)).unwrap();
    let second = owner.send(fetch(&versions)).unwrap();
    assert_eq!(owner.sent.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [first, second]);
    for (id, frame) in &owner.sent {
        assert_eq!(i32::from_be_bytes(frame[8..12].try_into().unwrap()), id.0);
        assert_eq!(i32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
    }
    owner.answer(&MetadataResponse::default(), 13, first);
    let (id, reply) = owner.response();
    assert_eq!((id, reply.key(), reply.version().number), (first, ApiKey::METADATA, 13));
    let error = reply.decode::<FetchRequest>().unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::OtherApi { expected: 1, is: 3 });

    let longer = [&response(&FetchResponse::default(), 18, second)[4..], &[0]].concat();
    owner.input(&[&(longer.len() as i32).to_be_bytes()[..], &longer].concat());
    let (_, reply) = owner.response();
    let error = reply.decode::<FetchRequest>().unwrap_err();
    assert_eq!((error.kind, error.at), (DecodeErrorKind::TrailingBytes(1), reply.frame().len() - 1));
}

#[test]
fn a_large_response_shares_the_memory_of_the_inbox() {
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let id = owner.send(fetch(&versions)).unwrap();
    let records = Some(Bytes::from(vec![7; 20_000]));
    let partition = FetchPartitionResponse { records, ..Default::default() };
    let topic = FetchTopicResponse { partitions: vec![partition], ..Default::default() };
    let bytes = response(&FetchResponse { responses: vec![topic], ..Default::default() }, 18, id);
    owner.inbox.reserve(bytes.len());
    let place = owner.inbox.as_ptr() as usize;
    owner.input(&bytes);
    assert_eq!(owner.response().1.frame().as_ptr() as usize, place + 4);
}

#[test]
fn a_request_without_response_is_not_in_flight() {
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let silent = ProduceRequest { acks: 0, ..Default::default() };
    let silent = versions.encode(&silent, ProduceRequest::VERSIONS).unwrap();
    assert!(!silent.expects_reply() && metadata(&versions).expects_reply());
    owner.send(silent).unwrap();
    let id = owner.send(metadata(&versions)).unwrap();
    assert_eq!((owner.sent.len(), owner.connection.in_flight()), (2, 1));
    owner.answer(&MetadataResponse::default(), 13, id);
    assert_eq!(owner.response().0, id);
    assert_eq!(owner.connection.poll_timeout(), None);
}

#[test]
fn protocol_violations_close_the_connection() {
    let misbehaved = |input: &[u8]| {
        let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
        owner.send(metadata(&versions)).unwrap();
        owner.input(input);
        let ConnectionError::PeerMisbehaved(what) = owner.closed() else { panic!("another error") };
        let again = owner.connection.handle_input(owner.now, &mut owner.inbox).unwrap_err();
        assert!(matches!(again, ConnectionError::PeerMisbehaved(same) if same == what));
        assert!(owner.connection.poll_event().is_none(), "closed once");
        what
    };
    assert_eq!(misbehaved(&[0, 0, 0, 3]), Misbehaviour::FrameLength(3));
    assert_eq!(misbehaved(&[0, 0, 0, 0]), Misbehaviour::FrameLength(0));
    assert_eq!(misbehaved(&[255, 255, 255, 255]), Misbehaviour::FrameLength(-1));
    // Reported ahead of the rest of the frame.
    let (expected, got) = (CorrelationId(1), CorrelationId(7));
    assert_eq!(
        misbehaved(&[0, 0, 9, 9, 0, 0, 0, 7]),
        Misbehaviour::CorrelationId { api: ApiKey::METADATA, expected, got }
    );

    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let id = owner.send(metadata(&versions)).unwrap();
    let reply = response(&MetadataResponse::default(), 13, id);
    owner.input(&[&reply[..], &reply].concat());
    assert_eq!(
        owner.closed().to_string(),
        "the peer violated the protocol: it sent data while no request was in flight"
    );
    assert_eq!(owner.response().0, id, "the first response is valid");
}

#[test]
fn a_large_frame_is_rejected_by_its_length() {
    let (mut owner, versions) =
        Owner::ready(ConnectionConfig { max_frame_len: 1000, ..ConnectionConfig::default() });
    owner.send(metadata(&versions)).unwrap();
    owner.send(fetch(&versions)).unwrap();
    owner.input(&1000i32.to_be_bytes());
    assert_eq!(owner.wants, 1000);
    owner.input(&[&1i32.to_be_bytes()[..], &[0; 996]].concat());
    owner.input(&1001i32.to_be_bytes());
    assert_eq!(
        owner.closed().to_string(),
        "the response to Fetch version 18 has 1001 bytes, the limit is 1000: request less, or raise the limit"
    );
}

#[test]
fn each_response_has_a_limit_of_its_own() {
    let longer = |mut owner: Owner, limit: usize| {
        let len = i32::try_from(limit).unwrap();
        owner.input(&len.to_be_bytes());
        assert!(!owner.connection.is_closed(), "{limit}");
        assert_eq!(owner.wants, limit);
        owner.inbox.clear();
        owner.input(&(len + 1).to_be_bytes());
        match owner.closed() {
            error @ ConnectionError::FrameTooLarge { len, max, .. } => {
                assert_eq!((len, max), (limit + 1, limit));
                error.to_string()
            }
            error => panic!("{error:?}"),
        }
    };
    let config = ConnectionConfig::default();
    let text = longer(Owner::new(config.clone()), 64 << 10);
    assert_eq!(text, "the response to ApiVersions version 4 has 65537 bytes, the limit is 65536");
    let sent = |config, request: fn(&NegotiatedVersions) -> EncodedRequest| {
        let (mut owner, versions) = Owner::ready(config);
        owner.send(request(&versions)).unwrap();
        owner
    };
    let text = longer(sent(config.clone(), metadata), 16 << 20);
    assert!(text.ends_with("the limit is 16777216: request less"), "{text}");
    let list_offsets = |versions: &NegotiatedVersions| {
        versions.encode(&ListOffsetsRequest::default(), ListOffsetsRequest::VERSIONS).unwrap()
    };
    longer(sent(config.clone(), list_offsets), 4 << 20);
    let text = longer(sent(config, fetch), 128 << 20);
    assert!(text.ends_with("the limit is 134217728: request less, or raise the limit"), "{text}");
    // A lower limit of the owner applies to all.
    let low = ConnectionConfig { max_frame_len: 2000, ..ConnectionConfig::default() };
    longer(Owner::new(low.clone()), 2000);
    let text = longer(sent(low, metadata), 2000);
    assert!(text.ends_with("the limit is 2000: request less, or raise the limit"), "{text}");
    let high = ConnectionConfig { max_frame_len: 1 << 30, ..ConnectionConfig::default() };
    longer(Owner::new(high.clone()), 64 << 10);
    longer(sent(high.clone(), metadata), 16 << 20);
    longer(sent(high, fetch), 1 << 30);
}

#[test]
fn a_small_response_keeps_nothing_else_in_memory() {
    for (len, is_shared) in [(4, false), (16 << 10, false), ((16 << 10) + 1, true), (1 << 20, true)] {
        let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
        let id = owner.send(fetch(&versions)).unwrap();
        owner.inbox = BytesMut::with_capacity(2 << 20);
        let start = owner.inbox.as_ptr() as usize;
        let frame = [&id.0.to_be_bytes()[..], &vec![7; len - 4]].concat();
        owner.input(&[&(len as u32).to_be_bytes()[..], &frame].concat());
        let (_, response) = owner.response();
        assert_eq!(response.frame()[..], frame);
        let at = response.frame().as_ptr() as usize;
        assert_eq!((start..start + (2 << 20)).contains(&at), is_shared, "{len}");
    }
}

#[test]
fn other_protocols_are_recognised() {
    let answer = |input: &[u8]| {
        let mut owner = Owner::new(ConnectionConfig::default());
        owner.input(input);
        match owner.closed() {
            ConnectionError::NotKafka(other) => other,
            error => panic!("{error}"),
        }
    };
    assert_eq!(answer(&[0x15, 3, 1, 0, 2, 2, 46]), OtherProtocol::Tls);
    assert_eq!(answer(&[0x15, 3, 3, 0]), OtherProtocol::Tls);
    assert_eq!(answer(b"HTTP/1.1 400 Bad Request\r\n"), OtherProtocol::Http);
    assert_eq!(answer(b"SSH-2.0-OpenSSH_9.6\r\n"), OtherProtocol::Text("SSH-2.0-OpenSSH_9.6\r\n".to_owned()));
    let error = ConnectionError::NotKafka(answer(b"-ERR unknown command, with args beginning with: "));
    assert_eq!(
        error.to_string(),
        "the peer does not speak Kafka, its data starts with \"-ERR unknown command, with args beginnin\": is this the \
         right port?"
    );
}

#[test]
fn the_end_of_the_stream_reports_the_stage() {
    let mut owner = Owner::new(ConnectionConfig::default());
    owner.connection.handle_eof();
    owner.drain();
    assert_eq!(
        owner.closed().to_string(),
        "the peer closed the connection while waiting for the response to ApiVersions version 4: is the peer a Kafka \
         broker of 0.10 or later, and this a listener without TLS?"
    );

    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    owner.send(fetch(&versions)).unwrap();
    owner.connection.handle_io_error(io::Error::other("reset"));
    owner.drain();
    let error = owner.closed();
    assert_eq!(
        error.to_string(),
        "the connection was lost while waiting for the response to Fetch version 18"
    );
    assert_eq!(error.source().unwrap().to_string(), "reset");

    // Kafka does this on a listener with SASL, which answers ApiVersions to any client.
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    owner.send(metadata(&versions)).unwrap();
    owner.connection.handle_eof();
    owner.drain();
    let error = owner.closed();
    assert!(matches!(error, ConnectionError::PeerClosed { stage: Stage::FirstCall { .. } }));
    assert_eq!(
        error.to_string(),
        "the peer closed the connection while waiting for the response to Metadata version 13: does this listener require SASL?"
    );

    let (mut owner, _) = Owner::ready(ConnectionConfig::default());
    owner.connection.handle_eof();
    owner.drain();
    let error = owner.closed();
    assert!(matches!(error, ConnectionError::PeerClosed { stage: Stage::Ready { awaited: None } }));
    assert_eq!(error.to_string(), "the peer closed the connection while no request was in flight");
}

/// The frames that are ready, without handing them out.
fn peek<T>(connection: &Connection<T>) -> Vec<Vec<u8>> {
    let bytes = |frame: &Frame| {
        let mut pieces = [IoSlice::new(&[]); 8];
        let used = frame.chunks_vectored(&mut pieces);
        pieces[..used].iter().flat_map(|piece| piece.to_vec()).collect()
    };
    connection.peek_transmit().map(bytes).collect()
}

#[test]
fn frames_are_looked_at_before_they_are_handed_out() {
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let now = owner.now;
    let connection = &mut owner.connection;
    for token in 0..3 {
        connection.send(now, metadata(&versions), token).unwrap();
    }
    let ready = peek(connection);
    let (_, mut first) = connection.poll_transmit().unwrap();
    assert_eq!((ready.len(), &ready[0][..]), (3, &first.copy_to_bytes(first.remaining())[..]));
    assert_eq!(peek(connection), ready[1..]);
    connection.throttle(now, SECOND);
    assert_eq!(peek(connection).len(), 0, "held back");
    connection.handle_timeout(now + SECOND);
    assert_eq!(peek(connection), ready[1..]);
    connection.withdraw(|token| *token == 1);
    assert_eq!(peek(connection), ready[2..]);
    connection.close(ConnectionError::Closed);
    assert_eq!(peek(connection).len(), 0);
    let handed_out: Vec<_> = connection.drain_pending().map(|pending| pending.handed_out).collect();
    assert_eq!(handed_out, [true, false], "looking is not sending");
    // The handshake is alone.
    let handshake = Connection::<()>::new(ConnectionConfig::default(), now);
    assert_eq!(peek(&handshake).len(), 1);
}

#[test]
fn pending_requests_are_returned_after_the_end() {
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let out = owner.send(metadata(&versions)).unwrap();
    owner.connection.throttle(owner.now, SECOND);
    let call = fetch(&versions);
    let size = call.size_in_bytes();
    let held = owner.send(call).unwrap();
    assert_eq!(owner.connection.outgoing_bytes(), size);
    assert_eq!(owner.connection.drain_pending().count(), 0, "the connection is open");
    assert_eq!(owner.connection.in_flight(), 2);
    owner.connection.close(ConnectionError::Closed);
    assert!(owner.connection.poll_transmit().is_none());
    owner.drain();
    let pending: Vec<_> = owner.connection.drain_pending().collect();
    let pending = pending.iter().map(|request| (owner.ids[request.token], request.handed_out));
    assert_eq!(pending.collect::<Vec<_>>(), [(out, true), (held, false)]);
    assert_eq!((owner.connection.in_flight(), owner.connection.outgoing_bytes()), (0, 0));
    assert_eq!(owner.connection.drain_pending().count(), 0);
    assert!(matches!(owner.closed(), ConnectionError::Closed));
    let error = owner.send(metadata(&versions)).unwrap_err();
    assert_eq!(error.to_string(), "the connection was closed");
    // The first reason stays.
    owner.connection.handle_eof();
    assert!(owner.connection.poll_event().is_none());
}

#[test]
fn the_handshake_has_a_deadline_as_a_whole() {
    let mut owner = Owner::new(ConnectionConfig { handshake_timeout: 3 * SECOND, ..Default::default() });
    assert_eq!(owner.connection.poll_timeout(), Some(owner.now + 3 * SECOND));
    owner.wait(2 * SECOND);
    let (id, _) = owner.sent.pop_front().unwrap();
    owner.answer(&refusal(Some(2)), 0, id);
    assert_eq!(owner.connection.poll_timeout(), Some(owner.now + SECOND));
    owner.wait(SECOND);
    assert_eq!(
        owner.closed().to_string(),
        "the handshake timed out after 3.0s while waiting for the response to ApiVersions version 2: is the peer a Kafka \
         broker of 0.10 or later, and this a listener without TLS?"
    );
}

#[test]
fn the_deadline_of_a_request_starts_when_it_is_written() {
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let now = owner.now;
    let connection = &mut owner.connection;
    let id = connection.send(now, metadata(&versions), 0).unwrap();
    connection.poll_transmit().unwrap();
    assert_eq!(connection.poll_timeout(), None, "nothing has left");
    connection.handle_transmitted(now + 2 * SECOND, id);
    connection.handle_transmitted(now + 5 * SECOND, id);
    assert_eq!(connection.poll_timeout(), Some(now + 12 * SECOND));
    owner.wait(12 * SECOND - Duration::from_nanos(1));
    assert!(owner.connection.is_ready());
    owner.wait(Duration::from_nanos(1));
    assert_eq!(owner.closed().to_string(), "no response to Metadata version 13 within 10s");
}

/// A broker is not late with a request that it has not read: it processes one at a time.
#[test]
fn the_time_of_a_request_starts_when_earlier_ones_are_answered() {
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let begin = owner.now;
    let slow = owner.send(fetch(&versions).with_timeout(60 * SECOND)).unwrap();
    owner.send(metadata(&versions)).unwrap();
    let last = owner.connection.send(begin, metadata(&versions), 0).unwrap();
    owner.connection.poll_transmit().unwrap();
    assert_eq!(owner.connection.poll_timeout(), Some(begin + 60 * SECOND));
    owner.wait(59 * SECOND);
    owner.answer(&FetchResponse::default(), 17, slow);
    assert_eq!(owner.connection.poll_timeout(), Some(begin + 69 * SECOND));
    owner.wait(9 * SECOND);
    let second = CorrelationId(slow.0 + 1);
    owner.answer(&MetadataResponse::default(), 13, second);
    assert_eq!(owner.connection.poll_timeout(), None, "the last one has not left");
    owner.connection.handle_transmitted(owner.now + SECOND, last);
    assert_eq!(owner.connection.poll_timeout(), Some(begin + 79 * SECOND));
}

#[test]
fn a_throttle_holds_requests_and_pauses_deadlines() {
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let begin = owner.now;
    owner.send(metadata(&versions)).unwrap();
    owner.sent.clear();
    owner.wait(4 * SECOND);
    owner.connection.throttle(owner.now, 20 * SECOND);
    owner.connection.throttle(owner.now, 5 * SECOND); // the longer one counts
    let held = owner.send(fetch(&versions)).unwrap();
    assert!(owner.sent.is_empty());
    // 6 s were left.
    assert_eq!(owner.connection.poll_timeout(), Some(begin + 24 * SECOND));
    assert_eq!(owner.connection.throttled_until(), Some(begin + 24 * SECOND));
    owner.wait(10 * SECOND);
    owner.connection.throttle(owner.now, 11 * SECOND); // one second more
    owner.wait(10 * SECOND);
    assert!(owner.sent.is_empty());
    owner.wait(SECOND);
    assert_eq!(owner.sent[0].0, held);
    assert_eq!(owner.connection.poll_timeout(), Some(begin + 31 * SECOND));
    owner.wait(6 * SECOND);
    assert!(matches!(owner.closed(), ConnectionError::RequestTimedOut { api: ApiKey::METADATA, .. }));
}

#[test]
fn a_request_written_during_a_throttle_gets_its_time_after_it() {
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let now = owner.now;
    let connection = &mut owner.connection;
    let id = connection.send(now, metadata(&versions), 0).unwrap();
    connection.poll_transmit().unwrap();
    connection.throttle(now, 7 * SECOND);
    connection.handle_transmitted(now + SECOND, id);
    assert_eq!(connection.poll_timeout(), Some(now + 17 * SECOND));
}

/// The throttle time of the handshake's response applies as well (KIP-219).
#[test]
fn a_broker_may_throttle_from_the_start() {
    let mut owner = Owner::new(ConnectionConfig::default());
    let (id, _) = owner.sent.pop_front().unwrap();
    owner.answer(&ApiVersionsResponse { throttle_time_ms: 1500, ..everything() }, 4, id);
    let Some(Event::Ready(versions)) = owner.events.pop_front() else { panic!("not ready") };
    owner.send(metadata(&versions)).unwrap();
    assert!(owner.sent.is_empty());
    owner.wait(Duration::from_millis(1500));
    assert_eq!(owner.sent.len(), 1);
}

/// A peer can ask for 24 days.
#[test]
fn a_throttle_is_cut_to_the_longest_that_is_allowed() {
    let config = ConnectionConfig { max_throttle: 30 * SECOND, ..ConnectionConfig::default() };
    let (mut owner, versions) = Owner::ready(config.clone());
    for pause in [Duration::from_millis(i32::MAX as u64), Duration::MAX, 31 * SECOND] {
        owner.connection.throttle(owner.now, pause);
        assert_eq!(owner.connection.throttled_until(), Some(owner.now + 30 * SECOND));
    }
    owner.send(metadata(&versions)).unwrap();
    owner.wait(30 * SECOND);
    assert_eq!(owner.sent.len(), 1);
    // That of the handshake, too.
    let mut owner = Owner::new(config);
    let (id, _) = owner.sent.pop_front().unwrap();
    owner.answer(&ApiVersionsResponse { throttle_time_ms: i32::MAX, ..everything() }, 4, id);
    assert_eq!(owner.connection.throttled_until(), Some(owner.now + 30 * SECOND));
}

#[test]
fn bytes_of_its_response_restart_the_time_of_a_request() {
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let id = owner.send(fetch(&versions)).unwrap();
    let frame = [&100_000u32.to_be_bytes()[..], &id.0.to_be_bytes(), &[0; 99_996]].concat();
    let mut pieces = frame.chunks(10_000);
    let mut last = None;
    for piece in pieces.by_ref().take(9) {
        owner.wait(9 * SECOND);
        owner.input(piece);
        owner.connection.handle_progress(owner.now);
        assert_eq!(owner.connection.poll_timeout(), Some(owner.now + 10 * SECOND));
        last = owner.connection.arriving();
    }
    assert_eq!(last, Some(ResponseProgress { arrived: 89_996, len: 100_000 }));
    // Silence is not.
    owner.connection.handle_progress(owner.now);
    owner.wait(10 * SECOND);
    assert_eq!(
        owner.closed().to_string(),
        "the response to Fetch version 18 stalled for 10s: 89996 of 100000 bytes arrived"
    );
}

#[test]
fn single_bytes_do_not_hold_a_connection_for_ever() {
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let id = owner.send(fetch(&versions)).unwrap();
    owner.input(&[&100_000u32.to_be_bytes()[..], &id.0.to_be_bytes()].concat());
    owner.connection.handle_progress(owner.now);
    owner.wait(9 * SECOND);
    owner.input(&[0]);
    owner.connection.handle_progress(owner.now);
    owner.wait(SECOND);
    assert!(matches!(owner.closed(), ConnectionError::RequestTimedOut { progress: Some(_), .. }));

    // A short response, byte by byte, ends as well.
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let id = owner.send(metadata(&versions)).unwrap();
    owner.input(&[&4_000_000u32.to_be_bytes()[..], &id.0.to_be_bytes()].concat());
    let begun = owner.now;
    while owner.connection.is_ready() {
        owner.wait(9 * SECOND);
        if owner.connection.is_ready() {
            owner.input(&[0; 4_000]);
            owner.connection.handle_progress(owner.now);
        }
        assert!(owner.now - begun <= 1002 * 10 * SECOND);
        if owner.connection.arriving().is_none_or(|progress| progress.arrived + 4_000 >= progress.len) {
            break;
        }
    }
    assert!(owner.now - begun > 100 * SECOND);
}

#[test]
fn each_response_has_a_time_and_a_progress_of_its_own() {
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    let first = owner.send(fetch(&versions)).unwrap();
    owner.send(metadata(&versions)).unwrap();
    let frame = response(&FetchResponse::default(), 17, first);
    let (head, tail) = frame.split_at(9);
    owner.input(head);
    owner.connection.handle_progress(owner.now);
    owner.wait(9 * SECOND);
    owner.input(tail);
    assert_eq!(owner.connection.arriving(), None);
    owner.connection.handle_progress(owner.now);
    assert_eq!(owner.connection.poll_timeout(), Some(owner.now + 10 * SECOND));
    owner.wait(10 * SECOND);
    assert!(matches!(
        owner.closed(),
        ConnectionError::RequestTimedOut { api: ApiKey::METADATA, progress: None, .. }
    ));
}

#[test]
fn requests_that_are_not_handed_out_can_be_withdrawn() {
    let (mut owner, versions) = Owner::ready(ConnectionConfig::default());
    owner.send(metadata(&versions)).unwrap();
    assert_eq!(owner.connection.oldest(), Some(&0));
    owner.connection.throttle(owner.now, SECOND);
    for _ in 1..=4 {
        owner.send(metadata(&versions)).unwrap();
    }
    let one = owner.connection.outgoing_bytes() / 4;
    assert_eq!(owner.connection.withdraw(|token| token % 2 == 0), [2, 4], "0 has been handed out");
    assert_eq!((owner.connection.in_flight(), owner.connection.outgoing_bytes()), (3, 2 * one));
    owner.sent.clear();
    owner.wait(SECOND);
    assert_eq!(owner.sent.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [owner.ids[1], owner.ids[3]]);
    assert_eq!(owner.connection.withdraw(|_| true), [0; 0]);
}

/// A listener that has let this client in before does not want SASL.
#[test]
fn an_admitted_client_gets_no_hint_about_sasl() {
    for (admitted, hint) in [(false, ": does this listener require SASL?"), (true, "")] {
        let (mut owner, versions) = Owner::ready(ConnectionConfig { admitted, ..Default::default() });
        owner.send(metadata(&versions)).unwrap();
        owner.connection.handle_eof();
        owner.drain();
        assert_eq!(
            owner.closed().to_string(),
            format!(
                "the peer closed the connection while waiting for the response to Metadata version 13{hint}"
            )
        );
    }
}

/// Brokers that limit connections close further ones as soon as they have accepted them.
#[test]
fn a_further_connection_that_is_closed_at_once_hints_at_a_limit() {
    for (admitted, hint) in
        [(false, "is the peer a Kafka broker"), (true, "does the broker limit connections")]
    {
        let mut owner = Owner::new(ConnectionConfig { admitted, ..Default::default() });
        owner.connection.handle_eof();
        owner.drain();
        let text = owner.closed().to_string();
        assert!(text.contains(hint), "{text}");
    }
}

#[test]
fn times_without_end_do_not_overflow() {
    let config = ConnectionConfig {
        request_timeout: Duration::MAX,
        handshake_timeout: Duration::MAX,
        ..ConnectionConfig::default()
    };
    let (mut owner, versions) = Owner::ready(config);
    owner.send(metadata(&versions)).unwrap();
    assert_eq!(owner.connection.poll_timeout(), None);
    owner.send(metadata(&versions).with_timeout(SECOND)).unwrap();
    owner.connection.throttle(owner.now, Duration::from_millis(i32::MAX as u64));
    assert!(owner.connection.is_ready());
}

/// An operation on a connection.
#[derive(Clone, Debug)]
enum Op {
    Send {
        timeout_ms: u16,
        silent: bool,
    },
    /// Takes a frame to write, and reports that it has been written.
    Transmit {
        leaves: bool,
    },
    /// Answers the oldest request taken, in pieces of this size.
    Answer {
        piece: usize,
    },
    Garbage(Vec<u8>),
    Wait {
        ms: u16,
    },
    Throttle {
        ms: u16,
    },
    Eof,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1u16..3000, proptest::bool::weighted(0.2))
            .prop_map(|(timeout_ms, silent)| Op::Send { timeout_ms, silent }),
        8 => proptest::bool::weighted(0.8).prop_map(|leaves| Op::Transmit { leaves }),
        6 => (1usize..40).prop_map(|piece| Op::Answer { piece }),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(Op::Garbage),
        6 => (0u16..1500).prop_map(|ms| Op::Wait { ms }),
        2 => (0u16..2000).prop_map(|ms| Op::Throttle { ms }),
        1 => Just(Op::Eof),
    ]
}

/// The expected state of a request in flight, modelled by elapsed time instead of deadlines.
#[derive(Debug)]
struct Expected {
    id: CorrelationId,
    timeout: Duration,
    /// Unpaused time since the request was written and the oldest one.
    passed: Option<Duration>,
}

#[derive(Debug)]
struct Model {
    connection: Connection<usize>,
    /// The correlation ids of the requests sent; the token of a request is its index.
    ids: Vec<CorrelationId>,
    now: Instant,
    paused_until: Instant,
    /// Not handed out.
    queued: VecDeque<(CorrelationId, bool, Duration)>,
    in_flight: VecDeque<Expected>,
    answered: Vec<CorrelationId>,
    replies: Vec<CorrelationId>,
    closed: Option<ConnectionError>,
    inbox: BytesMut,
}

impl Model {
    fn new() -> (Self, Arc<NegotiatedVersions>) {
        let (owner, versions) =
            Owner::ready(ConnectionConfig { max_in_flight: 8, ..ConnectionConfig::default() });
        let (now, connection, ids) = (owner.now, owner.connection, owner.ids);
        let this = Self {
            connection,
            ids,
            now,
            paused_until: now,
            queued: VecDeque::new(),
            in_flight: VecDeque::new(),
            answered: Vec::new(),
            replies: Vec::new(),
            closed: None,
            inbox: BytesMut::new(),
        };
        (this, versions)
    }

    fn run(&mut self, versions: &NegotiatedVersions, op: Op) {
        match op {
            Op::Send { timeout_ms, silent } => self.send(versions, timeout_ms, silent),
            Op::Transmit { leaves } => self.transmit(leaves),
            Op::Answer { piece } => {
                let Some(expected) = self.in_flight.front() else { return };
                let id = expected.id;
                let answer = response(&MetadataResponse::default(), 13, id);
                if self.closed.is_none() && self.inbox.is_empty() {
                    self.in_flight.pop_front();
                    self.answered.push(id);
                }
                for piece in answer.chunks(piece) {
                    self.input(piece);
                }
            }
            Op::Garbage(bytes) => self.input(&bytes),
            Op::Wait { ms } => self.wait(Duration::from_millis(ms.into())),
            Op::Throttle { ms } => {
                let pause = Duration::from_millis(ms.into());
                self.connection.throttle(self.now, pause);
                self.paused_until = self.paused_until.max(self.now + pause);
            }
            Op::Eof => self.connection.handle_eof(),
        }
        self.check();
    }

    fn send(&mut self, versions: &NegotiatedVersions, timeout_ms: u16, silent: bool) {
        let timeout = Duration::from_millis(timeout_ms.into());
        let call = match silent {
            true => {
                let request = ProduceRequest { acks: 0, ..Default::default() };
                versions.encode(&request, ProduceRequest::VERSIONS).unwrap()
            }
            false => metadata(versions),
        };
        let token = self.ids.len();
        match self.connection.send(self.now, call.with_timeout(timeout), token) {
            Ok(id) => {
                self.ids.push(id);
                self.queued.push_back((id, silent, timeout));
            }
            Err(SendError { error, token: returned }) => {
                assert_eq!(returned, token);
                match error {
                    ConnectionError::TooManyInFlight { .. } => {
                        assert_eq!(self.queued.len() + self.in_flight.len(), 8);
                    }
                    _ => assert!(self.connection.is_closed()),
                }
            }
        }
    }

    fn transmit(&mut self, leaves: bool) {
        let ready = peek(&self.connection);
        let Some((id, mut frame)) = self.connection.poll_transmit() else {
            assert!(ready.is_empty());
            let held = self.queued.is_empty() || self.paused_until > self.now || self.connection.is_closed();
            // A throttle ends with the next call that has the time.
            assert!(held || self.connection.poll_timeout().is_some_and(|at| at <= self.now));
            return;
        };
        assert!(self.paused_until <= self.now, "handed out in a pause");
        let (next, silent, timeout) = self.queued.pop_front().unwrap();
        assert_eq!(id, next);
        let bytes = frame.copy_to_bytes(frame.remaining());
        assert_eq!(bytes[8..12], id.0.to_be_bytes());
        assert_eq!(ready[0], bytes);
        assert_eq!(ready[1..], peek(&self.connection));
        let passed = leaves.then_some(Duration::ZERO);
        if leaves {
            self.connection.handle_transmitted(self.now, id);
        }
        if !silent {
            self.in_flight.push_back(Expected { id, timeout, passed });
        }
    }

    fn input(&mut self, bytes: &[u8]) {
        self.inbox.put(bytes);
        match self.connection.handle_input(self.now, &mut self.inbox) {
            Ok(wants) => assert!((1..=128 << 20).contains(&wants)),
            Err(_) => assert!(self.connection.is_closed()),
        }
    }

    fn wait(&mut self, time: Duration) {
        let pause = self.paused_until.saturating_duration_since(self.now).min(time);
        self.now += time;
        if let Some(call) = self.in_flight.front_mut() {
            call.passed = call.passed.map(|passed| passed + time - pause);
        }
        self.connection.handle_timeout(self.now);
        let overdue = |call: &Expected| call.passed.is_some_and(|passed| passed >= call.timeout);
        assert!(self.connection.is_closed() || !self.in_flight.iter().any(overdue), "{:?}", self.in_flight);
        let next = self.connection.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "it wants to be woken again at once");
    }

    fn check(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            assert!(self.closed.is_none(), "an event after the end");
            match event {
                Event::Response(token, response) => {
                    assert_eq!(response.correlation_id(), self.ids[token]);
                    self.replies.push(self.ids[token]);
                }
                Event::Closed(error) => {
                    self.closed = Some(error);
                    self.drain();
                }
                other => panic!("{other:?} again"),
            }
        }
        assert_eq!(self.closed.is_some(), self.connection.is_closed());
        if let Some(ConnectionError::RequestTimedOut { .. }) = self.closed {
            let call = &self.in_flight[0];
            assert!(call.passed.unwrap() >= call.timeout, "{call:?}");
        }
        if self.closed.is_none() {
            assert_eq!(self.connection.drain_pending().count(), 0, "the connection is open");
            assert_eq!(self.connection.in_flight(), self.queued.len() + self.in_flight.len());
            if self.inbox.is_empty() {
                assert_eq!(self.replies, self.answered);
            }
        }
        assert!(self.answered.starts_with(&self.replies) || self.closed.is_some());
    }

    /// Every request without a response is returned, in order, and whether it has been handed out.
    fn drain(&mut self) {
        let pending: Vec<_> = self.connection.drain_pending().collect();
        let pending = pending.iter().map(|request| (self.ids[request.token], request.handed_out));
        let in_flight = self.in_flight.iter().map(|request| (request.id, true));
        let queued = self.queued.iter().map(|(id, ..)| (*id, false));
        assert_eq!(pending.collect::<Vec<_>>(), in_flight.chain(queued).collect::<Vec<_>>());
        assert_eq!((self.connection.in_flight(), self.connection.outgoing_bytes()), (0, 0));
    }
}

proptest! {
    #[test]
    fn matches_the_model_after_any_operations(ops in proptest::collection::vec(op(), 0..60)) {
        let (mut model, versions) = Model::new();
        for op in ops {
            model.run(&versions, op);
        }
        model.connection.close(ConnectionError::Closed);
        model.check();
    }

    /// During and after the handshake: any bytes, in any pieces.
    #[test]
    fn garbage_is_rejected(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1usize..50, known in any::<bool>()) {
        let mut owner = Owner::new(ConnectionConfig::default());
        if known {
            let versions = owner.shake_hands();
            owner.send(metadata(&versions)).unwrap();
        }
        for piece in bytes.chunks(piece) {
            owner.input(piece);
        }
    }

    /// A well-formed frame with any content, as the response to ApiVersions.
    #[test]
    fn any_response_to_the_handshake_is_decoded_or_rejected(body in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut owner = Owner::new(ConnectionConfig::default());
        let frame = [&(4 + body.len() as i32).to_be_bytes()[..], &[0; 4], &body].concat();
        owner.input(&frame);
        prop_assert!(owner.connection.is_ready() || owner.connection.is_closed() || owner.sent.len() == 2);
    }
}
