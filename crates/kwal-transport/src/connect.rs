//! The trait that opens streams, and the stream.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{HostPort, TransportError};

/// Opens byte streams to brokers.
///
/// Implement it for transports that this crate does not have; their errors go into [`TransportError::other`].
///
/// ```
/// use kwal_transport::{BoxFuture, Connect, HostPort, Stream, Tcp, TransportError};
///
/// /// Reaches every broker through one forwarded port.
/// #[derive(Debug)]
/// struct Forwarded {
///     through: HostPort,
/// }
///
/// impl Connect for Forwarded {
///     fn connect<'a>(&'a self, _: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
///         Box::pin(async { Tcp::default().connect(&self.through).await })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let forwarded = Forwarded { through: server.local_addr()?.into() };
/// let stream = forwarded.connect(&"kafka.internal:9092".parse()?).await?;
/// assert_eq!(stream.peer(), server.local_addr()?.to_string());
/// # Ok(())
/// # }
/// ```
pub trait Connect: fmt::Debug + Send + Sync + 'static {
    /// Opens a stream to `to`.
    ///
    /// An implementation need not limit its time: the caller does, by dropping the future.
    ///
    /// # Cancellation safety
    /// Dropping the future at any point cancels the attempt and leaves no resources behind.
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>>;

    /// Returns the addresses of `to`, in the order in which to try them with
    /// [`connect_at`](Self::connect_at).
    ///
    /// An address that accepts a connection need not lead to a broker that works. A client that knows all
    /// addresses goes on to the next one also when the protocol fails.
    ///
    /// Empty, which is the default: the transport does not know them, and [`connect`](Self::connect) is all
    /// there is. A connector over another one passes the call on, unless the other end resolves the name.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), if the name has no address.
    fn addresses<'a>(&'a self, _to: &'a HostPort) -> BoxFuture<'a, Result<Vec<SocketAddr>, TransportError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Opens a stream to `to` at one of its [addresses](Self::addresses). Default: as
    /// [`connect`](Self::connect), since there are none.
    ///
    /// # Cancellation safety
    /// As [`connect`](Self::connect).
    fn connect_at<'a>(
        &'a self,
        to: &'a HostPort,
        _address: SocketAddr,
    ) -> BoxFuture<'a, Result<Stream, TransportError>> {
        self.connect(to)
    }
}

impl<C: Connect + ?Sized> Connect for Arc<C> {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        (**self).connect(to)
    }

    fn addresses<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Vec<SocketAddr>, TransportError>> {
        (**self).addresses(to)
    }

    fn connect_at<'a>(
        &'a self,
        to: &'a HostPort,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Stream, TransportError>> {
        (**self).connect_at(to, address)
    }
}

/// A boxed future that can move between threads: the return type of an object-safe `async fn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connected, bidirectional stream of bytes, over any transport.
///
/// Vectored writes are passed on if the transport supports them. Dropping the stream closes it.
pub struct Stream {
    io: Box<dyn ReadWrite>,
    peer: Box<str>,
    encrypted: bool,
}

impl Stream {
    /// Wraps a transport that is assumed not to encrypt; `peer` names the other end in logs and errors.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, peer: impl Into<String>) -> Self {
        Self { io: Box::new(io), peer: peer.into().into_boxed_str(), encrypted: false }
    }

    /// Marks the transport as encrypted up to the authenticated peer, so that passwords may be sent.
    pub fn encrypted(mut self) -> Self {
        self.encrypted = true;
        self
    }

    /// Whether the stream is [encrypted](Self::encrypted), as those over TLS are.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Returns a description of the other end, for example `kafka-1:9092 (10.0.0.7:9092)`.
    pub fn peer(&self) -> &str {
        &self.peer
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("peer", &self.peer)
            .field("encrypted", &self.encrypted)
            .finish_non_exhaustive()
    }
}

trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

#[cfg(test)]
mod tests {
    use std::{io::IoSlice, sync::Mutex};

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn streams_and_connectors_move_between_threads() {
        fn send<T: Send>() {}
        fn shared<T: Send + Sync + ?Sized>() {}
        send::<Stream>();
        shared::<dyn Connect>();
    }

    #[tokio::test]
    async fn vectored_writes_reach_the_carrier_as_they_are() {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let mut stream = Stream::new(Recorder { vectored: true, calls: Arc::clone(&calls) }, "recorder");
        assert!(stream.is_write_vectored());
        let parts = [IoSlice::new(b"head"), IoSlice::new(b"batch"), IoSlice::new(b"tail")];
        assert_eq!(stream.write_vectored(&parts).await.unwrap(), 13);
        assert_eq!(*calls.lock().unwrap(), [vec![4, 5, 4]]);

        let plain = Stream::new(Recorder { vectored: false, calls }, "recorder");
        assert!(!plain.is_write_vectored());
        assert_eq!(format!("{plain:?}"), "Stream { peer: \"recorder\", encrypted: false, .. }");
    }

    /// Records the lengths of the slices of each write.
    struct Recorder {
        vectored: bool,
        calls: Arc<Mutex<Vec<Vec<usize>>>>,
    }

    impl AsyncRead for Recorder {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Recorder {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.calls.lock().unwrap().push(vec![buf.len()]);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let lengths: Vec<usize> = bufs.iter().map(|buf| buf.len()).collect();
            let written = lengths.iter().sum();
            self.calls.lock().unwrap().push(lengths);
            Poll::Ready(Ok(written))
        }

        fn is_write_vectored(&self) -> bool {
            self.vectored
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
