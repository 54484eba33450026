use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client;

use super::explain;
use crate::{HostPort, Stream, TlsError, TransportError};

/// Converts rustls' errors.
pub(super) struct TlsStream {
    io: client::TlsStream<Stream>,
    to: HostPort,
    client_certificate: bool,
    /// Whether the peer has sent data after the handshake.
    heard: bool,
}

impl TlsStream {
    pub(super) fn new(io: client::TlsStream<Stream>, to: HostPort, client_certificate: bool) -> Self {
        Self { io, to, client_certificate, heard: false }
    }

    fn read_failed(&self, error: io::Error) -> io::Error {
        use io::ErrorKind::*;
        let kind = error.kind();
        let source = match kind {
            UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe if !self.heard => {
                TlsError::ClosedAfterHandshake { client_certificate: self.client_certificate }
            }
            UnexpectedEof => TlsError::Truncated,
            _ => match error.downcast::<rustls::Error>() {
                Ok(error) => explain(error, self.client_certificate, false),
                Err(error) => return error,
            },
        };
        io::Error::new(kind, TransportError::Tls { to: self.to.clone(), source })
    }

    /// A peer that rejects the client sends an alert and closes.
    ///
    /// A write then fails with a broken pipe, and the alert is still to be read.
    fn write_failed(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        match Pin::new(&mut self.io).poll_fill_buf(cx) {
            Poll::Ready(Err(reason)) => self.read_failed(reason),
            _ => self.read_failed(error),
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match ready!(Pin::new(&mut self.io).poll_read(cx, buf)) {
            Ok(()) => {
                self.heard |= buf.filled().len() > before;
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(self.read_failed(error))),
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.io).poll_write(cx, buf));
        Poll::Ready(result.map_err(|error| self.write_failed(cx, error)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs));
        Poll::Ready(result.map_err(|error| self.write_failed(cx, error)))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.io).poll_flush(cx));
        Poll::Ready(result.map_err(|error| self.write_failed(cx, error)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
