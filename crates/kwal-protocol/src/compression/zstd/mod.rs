//! Zstandard (RFC 8878), one frame per batch.
//!
//! With the feature `compression-zstd` the C library compresses and decompresses. Without it,
//! `decompression-zstd` decompresses in pure Rust, several times slower. This module finds the limits of
//! frames and blocks for both, so that neither allocates memory by the claim of a header. Several consecutive
//! frames are accepted, and skippable ones too.

mod frame;
#[cfg(feature = "compression-zstd")]
mod native;
#[cfg(all(feature = "decompression-zstd", not(feature = "compression-zstd")))]
mod pure;

#[cfg(feature = "compression-zstd")]
pub(super) use self::native::{DEFAULT_LEVEL, Decoder, Encoder};
#[cfg(all(feature = "decompression-zstd", not(feature = "compression-zstd")))]
pub(super) use self::pure::Decoder;

use self::frame::{Frame, corrupt};
use super::{codec::CompressionError, output::Output};

/// Decompresses all frames in `input`, at least one.
pub(super) fn decompress(
    decoder: &mut Decoder,
    mut input: &[u8],
    out: &mut Output,
) -> Result<(), CompressionError> {
    loop {
        if let Some(frame) = Frame::read(&mut input)? {
            let start = out.len();
            let room = out.expect(frame.bound, frame.bytes.len())?;
            decoder.frame(&frame, room, out)?;
            if frame.content_size.is_some_and(|size| size != (out.len() - start) as u64) {
                return Err(corrupt("its length differs from that in its frame"));
            }
        }
        if input.is_empty() {
            return Ok(());
        }
    }
}
