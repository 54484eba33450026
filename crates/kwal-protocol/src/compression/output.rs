//! The output buffer of decompression.

use bytes::{Bytes, BytesMut};

use super::codec::{Compression, CompressionError};

/// The output buffer: the bytes decompressed so far, followed by space with meaningless content.
///
/// It grows with the output: at first to the size plausible for the input, later to twice the output so far,
/// and never beyond the limit.
pub(super) struct Output {
    bytes: BytesMut,
    len: usize,
    limit: usize,
    codec: Compression,
}

impl Output {
    /// Creates an empty output that reuses a buffer.
    pub(super) const fn new(codec: Compression, bytes: BytesMut, limit: usize) -> Self {
        Self { bytes, len: 0, limit, codec }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Returns the bytes decompressed since a position.
    pub(super) fn since(&self, start: usize) -> &[u8] {
        &self.bytes[start..self.len]
    }

    /// Reserves space for `expected` bytes, as far as `input` bytes can plausibly give them.
    ///
    /// Returns the space available.
    pub(super) fn expect(&mut self, expected: usize, input: usize) -> usize {
        self.grow(expected.min(input.saturating_mul(EAGER_RATIO).max(EAGER_LEN)));
        expected.min(self.end() - self.len)
    }

    /// Returns the output so far and the `len` bytes of space after it, fewer at the limit.
    ///
    /// The space is only zero if it is new.
    pub(super) fn room(&mut self, len: usize) -> (&[u8], &mut [u8]) {
        if self.end() - self.len < len {
            self.grow(len.max(self.len));
        }
        let end = self.end();
        let (before, room) = self.bytes[..end].split_at_mut(self.len);
        let len = len.min(room.len());
        (&*before, &mut room[..len])
    }

    /// Returns all the space available, at least one byte.
    ///
    /// # Errors
    /// At the limit.
    pub(super) fn any_room(&mut self) -> Result<&mut [u8], CompressionError> {
        if self.len == self.limit {
            return Err(self.too_large());
        }
        if self.len == self.end() {
            self.grow(self.len.max(EAGER_LEN));
        }
        let end = self.end();
        Ok(&mut self.bytes[self.len..end])
    }

    /// Adds the next `len` bytes of space to the output.
    pub(super) const fn advance(&mut self, len: usize) {
        self.len += len;
    }

    /// Returns the number of bytes left to the limit.
    pub(super) const fn left(&self) -> usize {
        self.limit - self.len
    }

    #[cold]
    pub(super) const fn too_large(&self) -> CompressionError {
        CompressionError::TooLarge { codec: self.codec, limit: self.limit }
    }

    /// A reused buffer may be larger than the limit of this output.
    fn end(&self) -> usize {
        self.bytes.len().min(self.limit)
    }

    fn grow(&mut self, more: usize) {
        let len = self.len.saturating_add(more).min(self.limit);
        if len > self.bytes.len() {
            // Not resized: the bytes after the output are meaningless and need not be copied.
            let mut grown = BytesMut::zeroed(len);
            grown[..self.len].copy_from_slice(&self.bytes[..self.len]);
            self.bytes = grown;
        }
    }

    /// Returns the output and the buffer for the next use.
    ///
    /// The buffer is usable when the output has been dropped.
    pub(super) fn finish(self) -> (Bytes, Bytes) {
        let all = self.bytes.freeze();
        // The output may be kept for long, so it must not hold more unused space than its own size.
        let fills = self.len > all.len() / 2;
        let bytes = if fills { all.slice(..self.len) } else { Bytes::copy_from_slice(&all[..self.len]) };
        (bytes, all)
    }
}

/// The space reserved at once per byte of input.
const EAGER_RATIO: usize = 16;
/// The space reserved at once in any case.
const EAGER_LEN: usize = 64 << 10;
