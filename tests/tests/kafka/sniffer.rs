//! Which connections a client has made, and which requests it has sent, as seen on its way to the brokers.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use kwal_protocol::api::ApiKey;
use kwal_transport::{BoxFuture, Connect, HostPort, Stream, Tcp, TransportError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// TCP that counts the requests by their API.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sniffer {
    tcp: Tcp,
    sent: Arc<Mutex<HashMap<i16, usize>>>,
    connections: Arc<AtomicUsize>,
}

impl Sniffer {
    /// How many connections have been made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many requests of this API have been sent, if not by TLS.
    pub(crate) fn sent(&self, api: ApiKey) -> usize {
        self.sent.lock().unwrap().get(&api.0).copied().unwrap_or(0)
    }
}

impl Connect for Sniffer {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(async {
            let stream = self.tcp.connect(to).await?;
            self.connections.fetch_add(1, Ordering::Relaxed);
            let peer = stream.peer().to_owned();
            let sent = Arc::clone(&self.sent);
            Ok(Stream::new(Sniffed { stream, sent, frames: Frames::default() }, peer))
        })
    }
}

struct Sniffed {
    stream: Stream,
    sent: Arc<Mutex<HashMap<i16, usize>>>,
    frames: Frames,
}

/// Where in its frames a stream of requests is.
#[derive(Default)]
pub(crate) struct Frames {
    /// The first bytes of a frame: its length and the API.
    head: Vec<u8>,
    /// How many more the frame has.
    rest: usize,
}

impl Frames {
    /// Goes on by some bytes; tells the API of each frame that begins among them.
    pub(crate) fn pass(&mut self, mut bytes: &[u8], mut begun: impl FnMut(ApiKey)) {
        while let Some((first, others)) = bytes.split_first() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head.push(*first);
            bytes = others;
            if let [a, b, c, d, high, low] = self.head[..] {
                self.rest = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap() - 2;
                self.head.clear();
                begun(ApiKey(i16::from_be_bytes([high, low])));
            }
        }
    }

    /// Whether the last frame is whole.
    pub(crate) fn are_whole(&self) -> bool {
        self.rest == 0 && self.head.is_empty()
    }
}

impl AsyncRead for Sniffed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        let Self { frames, sent, .. } = &mut *self;
        frames.pass(&bytes[..wrote], |api| *sent.lock().unwrap().entry(api.0).or_default() += 1);
        Poll::Ready(Ok(wrote))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
