//! The output buffer of decompression.

use bytes::{Bytes, BytesMut};

use super::codec::{Compression, CompressionError};

/// The output buffer: the bytes decompressed so far, followed by space with meaningless content.
///
/// It grows with the output: at first to the size plausible for the input, later to twice the output so far,
/// and never beyond the limit. Old and new buffer together do not exceed the limit either: where they would,
/// decompression has to [begin again](Self::begin_again) with the new one alone.
pub(super) struct Output {
    bytes: BytesMut,
    len: usize,
    limit: usize,
    codec: Compression,
    /// The size of the buffer to begin again with.
    larger: Option<usize>,
}

impl Output {
    /// Creates an empty output that reuses a buffer.
    pub(super) const fn new(codec: Compression, bytes: BytesMut, limit: usize) -> Self {
        Self { bytes, len: 0, limit, codec, larger: None }
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
    ///
    /// # Errors
    /// If decompression has to begin again.
    pub(super) fn expect(&mut self, expected: usize, input: usize) -> Result<usize, CompressionError> {
        self.grow(expected.min(input.saturating_mul(EAGER_RATIO).max(EAGER_LEN)))?;
        Ok(expected.min(self.end() - self.len))
    }

    /// Returns the output so far and the `len` bytes of space after it, fewer at the limit.
    ///
    /// The space is only zero if it is new.
    ///
    /// # Errors
    /// If decompression has to begin again.
    pub(super) fn room(&mut self, len: usize) -> Result<(&[u8], &mut [u8]), CompressionError> {
        if self.end() - self.len < len {
            self.grow(len.max(self.len))?;
        }
        let end = self.end();
        let (before, room) = self.bytes[..end].split_at_mut(self.len);
        let len = len.min(room.len());
        Ok((&*before, &mut room[..len]))
    }

    /// Returns all the space available, at least one byte.
    ///
    /// # Errors
    /// At the limit, and if decompression has to begin again.
    pub(super) fn any_room(&mut self) -> Result<&mut [u8], CompressionError> {
        if self.len == self.limit {
            return Err(self.too_large());
        }
        if self.len == self.end() {
            self.grow(self.len.max(EAGER_LEN))?;
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

    fn grow(&mut self, more: usize) -> Result<(), CompressionError> {
        let len = self.len.saturating_add(more).min(self.limit);
        if len <= self.bytes.len() {
            return Ok(());
        }
        if self.len == 0 {
            self.bytes = BytesMut::new();
        } else if self.bytes.len() + len > self.limit {
            self.larger = Some(len);
            return Err(self.too_large());
        }
        // Not resized: the bytes after the output are meaningless and need not be copied.
        let mut grown = BytesMut::zeroed(len);
        grown[..self.len].copy_from_slice(&self.bytes[..self.len]);
        self.bytes = grown;
        Ok(())
    }

    /// Discards the output if that is why decompression failed. Returns whether it has to begin again.
    pub(super) fn begin_again(&mut self) -> bool {
        let Some(len) = self.larger.take() else { return false };
        self.replace(len);
        true
    }

    fn replace(&mut self, len: usize) {
        self.len = 0;
        self.bytes = BytesMut::new();
        self.bytes = BytesMut::zeroed(len);
    }

    /// Discards the output if its buffer is too large to be kept, and too large for a copy beside it. Returns
    /// whether decompression has to begin again.
    pub(super) fn is_oversized(&mut self) -> bool {
        let (len, size) = (self.len, self.bytes.len());
        let is_oversized = len <= size / 2 && size + len > self.limit.max(EAGER_LEN);
        if is_oversized {
            self.replace(len);
        }
        is_oversized
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
