//! Carries the frames of one connection.

use std::{
    collections::VecDeque,
    io,
    sync::{Mutex, PoisonError},
};

use bytes::{Buf, Bytes, BytesMut};
use kwal_protocol::api::{ApiKey, decode_request_header};
use kwal_transport::{HostPort, Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, copy, sink, split},
    time::sleep,
};

use super::{
    frame::{Decision, Direction, Frame, LENGTH},
    state::{Inner, WireMode},
};

/// Passes frames on in both directions until one side ends.
pub(super) async fn relay(
    inner: &Inner,
    connection: u64,
    to: &HostPort,
    client: Stream,
    broker: Stream,
) -> io::Result<()> {
    let (from_client, mut to_client) = split(client);
    let (from_broker, mut to_broker) = split(broker);
    let (mut from_client, mut from_broker) = (Frames::new(from_client), Frames::new(from_broker));
    let relay = Relay { inner, connection, to, sent: Mutex::default() };
    let end = tokio::select! {
        biased;
        end = relay.requests(&mut from_client, &mut to_broker) => end?,
        end = relay.responses(&mut from_broker, &mut to_client) => end?,
    };
    match end {
        End::Closed => Ok(()),
        End::Opaque => {
            to_broker.write_all_buf(&mut from_client.buffer).await?;
            tokio::select! {
                end = copy(&mut from_client.stream, &mut to_broker) => end?,
                end = copy(&mut from_broker.stream, &mut to_client) => end?,
            };
            Ok(())
        }
    }
}

/// Why frames are no longer carried.
enum End {
    /// One side has closed the connection, or a hook has cut it.
    Closed,
    /// The client does not speak Kafka in the clear.
    Opaque,
}

struct Relay<'a> {
    inner: &'a Inner,
    connection: u64,
    to: &'a HostPort,
    /// The requests without a response so far.
    sent: Mutex<VecDeque<Sent>>,
}

#[derive(Clone, Copy)]
struct Sent {
    correlation_id: i32,
    api: ApiKey,
    version: i16,
}

impl Relay<'_> {
    async fn requests(&self, client: &mut Frames, broker: &mut WriteHalf<Stream>) -> io::Result<End> {
        let mut modes = self.inner.modes.subscribe();
        let mut first = true;
        loop {
            let mode = modes.borrow_and_update().of(self.to);
            match mode {
                WireMode::Passing => {}
                WireMode::Stalled => {
                    if modes.changed().await.is_err() {
                        return Ok(End::Closed);
                    }
                    continue;
                }
                WireMode::Deaf | WireMode::Unreachable => {
                    copy(&mut client.stream, &mut sink()).await?;
                    return Ok(End::Closed);
                }
            }
            let frame = tokio::select! {
                biased;
                _ = modes.changed() => continue,
                frame = client.next(first) => frame?,
            };
            let frame = match frame {
                Next::Frame(frame) => frame,
                Next::Opaque => return Ok(End::Opaque),
                Next::End => return Ok(End::Closed),
            };
            first = false;
            // What is no request is the broker's to refuse.
            let passage = match self.sent_by(&frame) {
                Some(sent) => self.decide(Direction::Request, sent, frame).await,
                None => Passage::Whole(frame),
            };
            if !passage.carry_out(broker).await? {
                return Ok(End::Closed);
            }
        }
    }

    async fn responses(&self, broker: &mut Frames, client: &mut WriteHalf<Stream>) -> io::Result<End> {
        loop {
            let Next::Frame(frame) = broker.next(false).await? else { return Ok(End::Closed) };
            let passage = match self.answered_by(&frame) {
                Some(sent) => self.decide(Direction::Response, sent, frame).await,
                None => Passage::Whole(frame),
            };
            if !passage.carry_out(client).await? {
                return Ok(End::Closed);
            }
        }
    }

    /// Notes a request.
    fn sent_by(&self, frame: &Bytes) -> Option<Sent> {
        let (header, _) = decode_request_header(frame).ok()?;
        let sent = Sent {
            correlation_id: header.correlation_id,
            api: header.request_api_key,
            version: header.request_api_version,
        };
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push_back(sent);
        Some(sent)
    }

    /// The request of a response. Brokers answer in order, so those sent earlier have no response.
    fn answered_by(&self, frame: &Bytes) -> Option<Sent> {
        let correlation_id = i32::from_be_bytes(*frame.first_chunk()?);
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let index = sent.iter().position(|sent| sent.correlation_id == correlation_id)?;
        sent.drain(..=index).next_back()
    }

    /// Has the hooks decide about a frame, and waits for as long as they say.
    async fn decide(&self, direction: Direction, sent: Sent, bytes: Bytes) -> Passage {
        let Sent { correlation_id, api, version } = sent;
        let (connection, to) = (self.connection, self.to.clone());
        // From before the hooks run, so that no release is missed.
        let mut released = self.inner.released.subscribe();
        let frame = Frame { connection, to, api, version, correlation_id, bytes };
        let (decision, bytes) = self.inner.decide(direction, frame);
        match decision {
            Decision::Pass | Decision::Replace(_) => {}
            Decision::Delay(pause) => sleep(pause).await,
            // The sender lives as long as this borrow.
            Decision::Hold => _ = released.changed().await,
            Decision::Discard => return Passage::None,
            Decision::Cut(len) => return Passage::Cut(bytes, len),
        }
        Passage::Whole(bytes)
    }
}

/// What of a frame passes.
enum Passage {
    Whole(Bytes),
    None,
    /// Only so many bytes, the length included; then the connection is closed.
    Cut(Bytes, usize),
}

impl Passage {
    /// Returns whether the connection stays open.
    async fn carry_out(self, to: &mut WriteHalf<Stream>) -> io::Result<bool> {
        let (frame, len) = match self {
            Self::Whole(frame) => (frame, usize::MAX),
            Self::Cut(frame, len) => (frame, len),
            Self::None => return Ok(true),
        };
        let size = u32::try_from(frame.len()).map_err(io::Error::other)?;
        let stays = len == usize::MAX;
        let size = size.to_be_bytes();
        to.write_all_buf(&mut Buf::take(Buf::chain(&size[..], frame), len)).await?;
        to.flush().await?;
        Ok(stays)
    }
}

/// Reads frames. Cancelling [`next`](Self::next) loses nothing.
struct Frames {
    stream: ReadHalf<Stream>,
    buffer: BytesMut,
}

/// What is read next.
enum Next {
    /// A frame without its length.
    Frame(Bytes),
    /// Bytes that are not the beginning of a frame.
    Opaque,
    /// The stream has ended.
    End,
}

impl Frames {
    fn new(stream: ReadHalf<Stream>) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    async fn next(&mut self, first: bool) -> io::Result<Next> {
        loop {
            let mut wanted = LENGTH;
            if let Some(len) = self.buffer.first_chunk() {
                let len = u32::from_be_bytes(*len) as usize;
                if first && len > LONGEST {
                    return Ok(Next::Opaque);
                }
                wanted = LENGTH.saturating_add(len);
                if self.buffer.len() >= wanted {
                    self.buffer.advance(LENGTH);
                    return Ok(Next::Frame(self.buffer.split_to(len).freeze()));
                }
            }
            self.buffer.reserve((wanted - self.buffer.len()).min(READ_BUFFER));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(Next::End);
            }
        }
    }
}

/// No first request is longer. The first bytes of a TLS handshake are more, read as a length.
const LONGEST: usize = 256 << 20;
/// How many bytes are reserved for one read.
const READ_BUFFER: usize = 1 << 20;
