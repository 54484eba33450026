//! A broker inside a stream: it answers in the task that writes, so that no other task takes part.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kwal_protocol::{
    api::{ApiKey, decode_request_header, encode_response},
    messages::{ApiVersion, ApiVersionsResponse, MetadataResponse},
};
use kwal_transport::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The version of all requests after the handshake.
const VERSION: i16 = 12;

/// A handle of the broker that a test keeps.
#[derive(Clone, Debug)]
pub(super) struct Peer(Arc<Mutex<State>>);

#[derive(Debug)]
pub(super) struct State {
    arrived: BytesMut,
    /// The correlation ids of the requests that arrived, without those of the handshake.
    pub(super) requests: Vec<i32>,
    /// How many of them have been answered.
    pub(super) answered: usize,
    /// Whether requests are answered as they arrive.
    pub(super) is_answering: bool,
    /// The throttle time of responses.
    pub(super) throttle_ms: i32,
    /// What is left to be read.
    outgoing: BytesMut,
    /// How many bytes are accepted until writes wait.
    pub(super) accepts: usize,
    /// How many bytes one write accepts at most.
    pub(super) at_once: usize,
    /// Whether all pieces of a write are accepted at once, as by TCP.
    pub(super) is_vectored: bool,
    /// The number of bytes that each write accepted.
    pub(super) writes: Vec<usize>,
    pub(super) flushes: usize,
    pub(super) reads: usize,
    /// How reading ends once everything has been read.
    pub(super) end: Option<Result<(), io::ErrorKind>>,
    pub(super) fails_writes: Option<io::ErrorKind>,
    pub(super) is_dropped: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Peer {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            arrived: BytesMut::new(),
            requests: Vec::new(),
            answered: 0,
            is_answering: true,
            throttle_ms: 0,
            outgoing: BytesMut::new(),
            accepts: usize::MAX,
            at_once: usize::MAX,
            is_vectored: true,
            writes: Vec::new(),
            flushes: 0,
            reads: 0,
            end: None,
            fails_writes: None,
            is_dropped: false,
            reader: None,
            writer: None,
        })))
    }

    pub(super) fn stream(&self) -> Stream {
        Stream::new(Wire(self.clone()), "the peer of a test")
    }

    /// Changes or reads the state without waking the connection.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and lets the connection notice.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Answers some of the requests that are waiting.
    pub(super) fn answer(&self, count: usize) {
        self.change(|state| (0..count).for_each(|_| state.answer()));
    }

    /// Lets the connection read some bytes that belong to no response.
    pub(super) fn send(&self, bytes: &[u8]) {
        self.change(|state| state.outgoing.put(bytes));
    }
}

impl State {
    fn accept(&mut self, bytes: &[u8]) {
        self.accepts -= bytes.len();
        self.arrived.put(bytes);
        while let Some(len) = self.arrived.first_chunk().map(|len| u32::from_be_bytes(*len) as usize) {
            if self.arrived.len() < 4 + len {
                return;
            }
            self.arrived.advance(4);
            let frame = self.arrived.split_to(len).freeze();
            self.request(&frame);
        }
    }

    fn request(&mut self, frame: &Bytes) {
        let (header, _) = decode_request_header(frame).unwrap();
        let id = header.correlation_id;
        if header.request_api_key == ApiKey::API_VERSIONS {
            let versions = ApiVersion { api_key: ApiKey::METADATA, min_version: 0, max_version: VERSION };
            let response = ApiVersionsResponse { api_keys: vec![versions], ..Default::default() };
            self.outgoing.put(encode_response(&response, header.request_api_version, id).unwrap());
            return;
        }
        self.requests.push(id);
        if self.is_answering {
            self.answer();
        }
    }

    fn answer(&mut self) {
        let response = MetadataResponse { throttle_time_ms: self.throttle_ms, ..Default::default() };
        let id = self.requests[self.answered];
        self.answered += 1;
        self.outgoing.put(encode_response(&response, VERSION, id).unwrap());
    }
}

/// The stream of the connection.
#[derive(Debug)]
struct Wire(Peer);

impl Drop for Wire {
    fn drop(&mut self) {
        self.0.state().is_dropped = true;
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.state();
        let len = state.outgoing.len().min(buf.remaining());
        if len > 0 {
            buf.put_slice(&state.outgoing.split_to(len));
            state.reads += 1;
            return Poll::Ready(Ok(()));
        }
        match state.end {
            Some(end) => Poll::Ready(end.map_err(io::Error::from)),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.0.state();
        if let Some(kind) = state.fails_writes {
            return Poll::Ready(Err(kind.into()));
        }
        let most = state.accepts.min(state.at_once);
        if most == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut written = 0;
        for buf in bufs {
            let len = buf.len().min(most - written);
            state.accept(&buf[..len]);
            written += len;
        }
        state.writes.push(written);
        // What was answered can be read in the same task.
        if let Some(reader) = state.reader.take_if(|_| !state.outgoing.is_empty()) {
            reader.wake();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.state().is_vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.state().flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
