//! Where decompressed bytes go.

use bytes::{Bytes, BytesMut};

use super::codec::{Compression, CompressionError};

/// One buffer for all that is decompressed: what is there, and behind it room whose bytes mean nothing.
///
/// It grows with what arrives: at first no larger than the input can well give, later to twice what is there, and never
/// past the limit.
pub(super) struct Output {
    bytes: BytesMut,
    len: usize,
    limit: usize,
    codec: Compression,
}

impl Output {
    /// An empty one, over a buffer that may be there from an earlier use.
    pub(super) const fn new(codec: Compression, bytes: BytesMut, limit: usize) -> Self {
        Self { bytes, len: 0, limit, codec }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// What was decompressed from there on.
    pub(super) fn since(&self, start: usize) -> &[u8] {
        &self.bytes[start..self.len]
    }

    /// Makes room for what `input` bytes are said to give, `expected`, as far as they can be believed; answers for how much.
    pub(super) fn expect(&mut self, expected: usize, input: usize) -> usize {
        self.grow(expected.min(input.saturating_mul(EAGER_RATIO).max(EAGER_LEN)));
        expected.min(self.end() - self.len)
    }

    /// What is there, and room for `len` bytes behind it, which is zero only if it is new; fewer at the limit.
    pub(super) fn room(&mut self, len: usize) -> (&[u8], &mut [u8]) {
        if self.end() - self.len < len {
            self.grow(len.max(self.len));
        }
        let end = self.end();
        let (before, room) = self.bytes[..end].split_at_mut(self.len);
        let len = len.min(room.len());
        (&*before, &mut room[..len])
    }

    /// All the room there is, at least one byte.
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

    /// The next `len` bytes of the room were filled.
    pub(super) const fn advance(&mut self, len: usize) {
        self.len += len;
    }

    /// How many bytes may still come.
    pub(super) const fn left(&self) -> usize {
        self.limit - self.len
    }

    #[cold]
    pub(super) const fn too_large(&self) -> CompressionError {
        CompressionError::TooLarge { codec: self.codec, limit: self.limit }
    }

    /// A buffer from an earlier use may be larger than the limit of this one.
    fn end(&self) -> usize {
        self.bytes.len().min(self.limit)
    }

    fn grow(&mut self, more: usize) {
        let len = self.len.saturating_add(more).min(self.limit);
        if len > self.bytes.len() {
            // Not resized: what is behind the front means nothing, and need not be copied.
            let mut grown = BytesMut::zeroed(len);
            grown[..self.len].copy_from_slice(&self.bytes[..self.len]);
            self.bytes = grown;
        }
    }

    /// What was decompressed, and the buffer for the next time; it cannot be used before the former is gone.
    pub(super) fn finish(self) -> (Bytes, Bytes) {
        let all = self.bytes.freeze();
        // What is decompressed may be kept for long: not with more room than it fills itself.
        let fills = self.len > all.len() / 2;
        let bytes = if fills { all.slice(..self.len) } else { Bytes::copy_from_slice(&all[..self.len]) };
        (bytes, all)
    }
}

/// Room is made at once for as many bytes as that for each byte that has arrived.
const EAGER_RATIO: usize = 16;
/// And for these in any case.
const EAGER_LEN: usize = 64 << 10;
