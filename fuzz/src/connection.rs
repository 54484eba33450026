//! A connection under arbitrary operations.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use arbitrary::Arbitrary;
use bytes::{Buf, Bytes, BytesMut};
use kwal_protocol::{
    api::{ApiKey, Body, encode_response},
    connection::{
        Computation, Connection, ConnectionConfig, ConnectionError, CorrelationId, Event, NegotiatedVersions,
    },
    messages::{
        ApiVersion, ApiVersionsResponse, MetadataRequest, MetadataResponse, SaslAuthenticateResponse,
        SaslHandshakeResponse,
    },
    sasl::{Mechanism, Plain, SaslError, Step},
    writer::Frame,
};

/// An operation on a connection.
#[derive(Debug, Arbitrary)]
pub enum Op {
    /// The owner sends a request.
    Send,
    /// The next frame is written completely.
    Transmit,
    /// The broker answers the oldest request that it has.
    Answer,
    /// Some bytes of the responses arrive.
    Deliver(u16),
    /// Arbitrary bytes arrive.
    Garbage(Vec<u8>),
    /// Time passes, in milliseconds.
    Wait(u16),
    /// The broker throttles, in milliseconds.
    Throttle(u16),
    /// The connection reauthenticates.
    Reauthenticate,
    /// The same with a mechanism that has to compute first.
    ReauthenticateSlowly,
    /// The requested computation runs.
    Compute,
    /// The stream ends.
    Eof,
    /// The owner closes the connection.
    Close,
}

/// No input causes a panic, unbounded growth, or a response to another request than the oldest.
pub fn connection_ops(ops: Vec<Op>) {
    let mut now = Instant::now();
    let config = ConnectionConfig { max_frame_len: 1 << 16, max_in_flight: 8, ..ConnectionConfig::default() };
    let mut connection = Connection::new(config, now);
    let (mut versions, mut closed) = (None, false);
    // The state of the broker: requests received, and responses that have not arrived yet.
    let (mut received, mut wire, mut inbox) = (Vec::new(), Vec::new(), BytesMut::new());
    // The tokens of the pending requests, in ascending order.
    let (mut pending, mut next) = (VecDeque::new(), 0_u64);
    let mut computations = VecDeque::new();
    for op in ops {
        match op {
            Op::Send => {
                let Some(versions) = &versions else { continue };
                let versions: &Arc<NegotiatedVersions> = versions;
                // The arbitrary bytes may have been a response to ApiVersions that lists nothing.
                let request = MetadataRequest::default();
                let Ok(request) = versions.encode(&request, MetadataRequest::VERSIONS) else { continue };
                match connection.send(now, request, next) {
                    Ok(_) => {
                        assert!(!closed);
                        pending.push_back(next);
                        next += 1;
                    }
                    Err(refused) => assert_eq!(refused.token, next),
                }
            }
            Op::Transmit => {
                let ready = connection.peek_transmit().next().map(Buf::remaining);
                let next = connection.poll_transmit();
                assert_eq!(ready, next.as_ref().map(|(_, frame)| frame.remaining()));
                if let Some((id, mut frame)) = next {
                    let bytes = frame.copy_to_bytes(frame.remaining());
                    assert_eq!(bytes[..4], ((bytes.len() - 4) as u32).to_be_bytes());
                    received.push((id, i16::from_be_bytes([bytes[4], bytes[5]])));
                    connection.handle_transmitted(now, id);
                }
            }
            Op::Answer => {
                if received.is_empty() {
                    continue;
                }
                let (id, key) = received.remove(0);
                let mut frame = answer(ApiKey(key), id);
                wire.extend_from_slice(&frame.copy_to_bytes(frame.remaining()));
            }
            Op::Deliver(len) => {
                let len = usize::from(len).min(wire.len());
                inbox.extend(wire.drain(..len));
                let _ = connection.handle_input(now, &mut inbox);
            }
            Op::Garbage(bytes) => {
                inbox.extend_from_slice(&bytes);
                let _ = connection.handle_input(now, &mut inbox);
            }
            Op::Wait(ms) => {
                now += Duration::from_millis(ms.into());
                connection.handle_timeout(now);
            }
            Op::Throttle(ms) => connection.throttle(now, Duration::from_millis(ms.into())),
            Op::Reauthenticate => {
                let plain = Plain::new("alice", "secret").expect("well-formed");
                let _ = connection.reauthenticate(now, Box::new(plain), Duration::from_secs(10));
            }
            Op::ReauthenticateSlowly => {
                let _ = connection.reauthenticate(now, Box::new(Slow), Duration::from_secs(10));
            }
            Op::Compute => {
                if let Some(computation) = computations.pop_front() {
                    connection.handle_computed(Computation::run(computation));
                }
            }
            Op::Eof => connection.handle_eof(),
            Op::Close => connection.close(ConnectionError::Closed),
        }
        while let Some(event) = connection.poll_event() {
            assert!(!closed, "{event:?} after the end");
            match event {
                Event::Authenticated(_) => {}
                Event::Compute(computation) => computations.push_back(computation),
                Event::Ready(negotiated) => versions = Some(negotiated),
                Event::Response(token, _) => assert_eq!(pending.pop_front(), Some(token)),
                Event::Closed(_) => {
                    closed = true;
                    let drained: Vec<_> = connection.drain_pending().collect();
                    assert!(drained.is_sorted_by_key(|request| !request.handed_out));
                    assert!(drained.iter().map(|request| request.token).eq(pending.drain(..)));
                }
            }
        }
        assert_eq!(closed, connection.is_closed());
        assert!(connection.in_flight() <= 9);
        assert!(inbox.len() <= wire.len() + (1 << 20));
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
        Ok(Step::Send(Bytes::new()))
    }
}

/// The response of a broker that supports Metadata and SASL.
fn answer(key: ApiKey, id: CorrelationId) -> Frame {
    let speaks = |api_key, max_version| ApiVersion { api_key, min_version: 0, max_version };
    match key {
        ApiKey::API_VERSIONS => {
            let api_keys = vec![
                speaks(ApiKey::METADATA, 12),
                speaks(ApiKey::SASL_HANDSHAKE, 1),
                speaks(ApiKey::SASL_AUTHENTICATE, 2),
            ];
            encode_response(&ApiVersionsResponse { api_keys, ..Default::default() }, 4, id.0)
        }
        ApiKey::SASL_HANDSHAKE => encode_response(&SaslHandshakeResponse::default(), 1, id.0),
        ApiKey::SASL_AUTHENTICATE => encode_response(&SaslAuthenticateResponse::default(), 2, id.0),
        _ => encode_response(&MetadataResponse::default(), 12, id.0),
    }
    .expect("well-formed")
}
