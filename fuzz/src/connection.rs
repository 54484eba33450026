//! A connection under arbitrary operations.

use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use bytes::{Buf, BytesMut};
use kwal_protocol::{
    api::{Body, encode_response},
    connection::{Connection, ConnectionConfig, ConnectionError, CorrelationId, Event},
    messages::{ApiVersion, ApiVersionsResponse, MetadataRequest, MetadataResponse},
    api::ApiKey,
};

/// What is done to a connection.
#[derive(Debug, Arbitrary)]
pub enum Op {
    /// A call of its owner.
    Send,
    /// The next frame leaves, whole.
    Transmit,
    /// The broker answers the oldest request that has left and has no answer.
    Answer,
    /// Some of what the broker has answered arrives.
    Deliver(u16),
    /// Something arrives that nobody has asked for.
    Garbage(Vec<u8>),
    /// Time passes, in milliseconds.
    Wait(u16),
    /// A broker asked for a pause, in milliseconds.
    Throttle(u16),
    /// The stream ends.
    Eof,
    /// The owner closes it.
    Close,
}

/// No input makes it panic, grow without bounds, or answer another call than the oldest.
pub fn connection_ops(ops: Vec<Op>) {
    let mut now = Instant::now();
    let config = ConnectionConfig { max_frame_len: 1 << 16, max_in_flight: 8, ..ConnectionConfig::default() };
    let mut connection = Connection::new(config, now);
    let (mut session, mut closed) = (None, false);
    // What the broker holds: requests that came, and answers that have not arrived yet.
    let (mut asked, mut wire, mut inbox) = (Vec::new(), Vec::new(), BytesMut::new());
    let mut calls: std::collections::VecDeque<CorrelationId> = Default::default();
    for op in ops {
        match op {
            Op::Send => {
                let Some(session) = &session else { continue };
                let session: &std::sync::Arc<kwal_protocol::connection::Session> = session;
                let call = session.encode(&MetadataRequest::default(), MetadataRequest::VERSIONS).expect("was told");
                if let Ok(id) = connection.send(now, call) {
                    assert!(!closed);
                    calls.push_back(id);
                }
            }
            Op::Transmit => {
                if let Some((id, mut frame)) = connection.poll_transmit() {
                    let bytes = frame.copy_to_bytes(frame.remaining());
                    assert_eq!(bytes[..4], ((bytes.len() - 4) as u32).to_be_bytes());
                    asked.push((id, i16::from_be_bytes([bytes[4], bytes[5]])));
                    connection.handle_transmitted(now, id);
                }
            }
            Op::Answer => {
                if asked.is_empty() {
                    continue;
                }
                let (id, key) = asked.remove(0);
                let mut frame = match ApiKey(key) {
                    ApiKey::API_VERSIONS => {
                        let metadata = ApiVersion { api_key: ApiKey::METADATA, min_version: 0, max_version: 12 };
                        let told = ApiVersionsResponse { api_keys: vec![metadata], ..Default::default() };
                        encode_response(&told, 4, id.0).expect("well-formed")
                    }
                    _ => encode_response(&MetadataResponse::default(), 12, id.0).expect("well-formed"),
                };
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
            Op::Eof => connection.handle_eof(),
            Op::Close => connection.close(ConnectionError::Closed),
        }
        while let Some(event) = connection.poll_event() {
            assert!(!closed, "{event:?} after the end");
            match event {
                Event::Ready(told) => session = Some(told),
                Event::Reply(id, _) => assert_eq!(calls.pop_front(), Some(id)),
                Event::Closed(_) => closed = true,
            }
        }
        assert_eq!(closed, connection.is_closed());
        assert!(connection.in_flight() <= 9);
        assert!(inbox.len() <= wire.len() + (1 << 20));
    }
}
