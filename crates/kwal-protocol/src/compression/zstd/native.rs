//! The C library.

use zstd_safe::{CCtx, DCtx, compress_bound, get_error_name, is_error_kind, zstd_sys::ZSTD_ErrorCode};

use super::frame::{Frame, corrupt};
use crate::compression::{codec::CompressionError, output::Output};

/// Kafka's default.
pub(crate) const DEFAULT_LEVEL: i32 = 3;

/// A context, reused.
pub(crate) struct Encoder(CCtx<'static>);

impl Encoder {
    pub(crate) fn new() -> Self {
        Self(CCtx::create())
    }

    /// Writes one frame to the front of `out`; returns its length.
    pub(crate) fn compress(
        &mut self,
        level: i32,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, CompressionError> {
        let bound = compress_bound(input.len());
        if out.len() < bound {
            out.resize(bound, 0);
        }
        self.0.compress(&mut out[..], input, level).map_err(|code| corrupt(get_error_name(code)))
    }
}

/// A context, reused.
pub(crate) struct Decoder(DCtx<'static>);

impl Decoder {
    pub(crate) fn new() -> Self {
        Self(DCtx::create())
    }

    /// Decompresses in one call, so that the output is the window.
    ///
    /// The context then allocates no window of its own, however large a frame claims it to be.
    pub(super) fn frame(
        &mut self,
        frame: &Frame<'_>,
        mut want: usize,
        out: &mut Output,
    ) -> Result<(), CompressionError> {
        loop {
            let (_, room) = out.room(want)?;
            let had = room.len();
            match self.0.decompress(room, frame.bytes) {
                Ok(len) => {
                    out.advance(len);
                    return Ok(());
                }
                Err(code) if !is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall) => {
                    return Err(corrupt(get_error_name(code)));
                }
                Err(_) if had >= frame.bound => return Err(corrupt("it is longer than its frame claims")),
                Err(_) if had >= out.left() => return Err(out.too_large()),
                // The output did not fit. Each attempt starts over, so grow by a large factor.
                Err(_) => want = had.saturating_mul(8).min(frame.bound),
            }
        }
    }
}
