//! What one write offers to the stream: the frame that is being written, and those that are ready.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Buf;
use kwal_protocol::{connection::Connection, writer::Frame};
use kwal_transport::Stream;
use tokio::io::AsyncWrite;

use super::Caller;

/// A write has at most so many pieces. An append has three: head, records, tail.
const PIECES: usize = 32;
/// So many if the first frame has more: an append of large values, each of which is a piece of its own.
const MANY_PIECES: usize = 256;

/// The frames that the next write offers.
///
/// Only the first one has been handed out. A stream that encrypts may keep bytes of it although it accepts
/// none, so it stays the first one until it has been written. Those after it still count as unsent: they can
/// be withdrawn, and a response that asks for a pause holds them back.
pub(super) struct Offered<'a> {
    pub(super) first: &'a Frame,
    pub(super) connection: &'a Connection<Caller>,
}

impl<'a> Offered<'a> {
    /// Writes a part of the frames in one write. Returns how many bytes were written.
    pub(super) fn poll_write(self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let first = self.first.chunk();
        let is_all =
            first.len() == self.first.remaining() && self.connection.peek_transmit().next().is_none();
        // The kernel has less to do for one piece.
        let is_vectored = stream.is_write_vectored() && !is_all;
        let stream = Pin::new(stream);
        let written = match (is_vectored, self.has_many()) {
            (true, false) => self.poll_write_vectored::<PIECES>(stream, cx),
            (true, true) => self.poll_write_vectored::<MANY_PIECES>(stream, cx),
            (false, _) => stream.poll_write(cx, first),
        };
        written.map(|written| match written? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        })
    }

    fn poll_write_vectored<const N: usize>(
        self,
        stream: Pin<&mut Stream>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut pieces = [IoSlice::new(&[]); N];
        let (used, _) = self.pieces(&mut pieces);
        stream.poll_write_vectored(cx, &pieces[..used])
    }

    /// Returns how many frames a write offers after the first one.
    pub(super) fn further(self, stream: &Stream) -> usize {
        match (stream.is_write_vectored(), self.has_many()) {
            (true, false) => self.pieces(&mut [IoSlice::new(&[]); PIECES]).1,
            (true, true) => self.pieces(&mut [IoSlice::new(&[]); MANY_PIECES]).1,
            (false, _) => 0,
        }
    }

    /// Whether the first frame has more pieces than a write usually has.
    fn has_many(&self) -> bool {
        self.first.max_chunks() > PIECES
    }

    /// Collects the pieces of the frames. Returns how many there are, and of how many frames after the first.
    fn pieces(self, pieces: &mut [IoSlice<'a>]) -> (usize, usize) {
        let mut used = self.first.chunks_vectored(pieces);
        let mut further = 0;
        for frame in self.connection.peek_transmit() {
            let room = &mut pieces[used..];
            if room.is_empty() {
                break;
            }
            used += frame.chunks_vectored(room);
            further += 1;
        }
        (used, further)
    }
}
