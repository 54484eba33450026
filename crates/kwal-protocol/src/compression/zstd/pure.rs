//! Decompression without the C library.

use std::io::{self, Read};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder, errors::FrameDecoderError};

use super::frame::{FLAG_CHECKSUM, Frame, MAGIC, corrupt};
use crate::compression::{codec::CompressionError, output::Output};

/// A decoder, reused.
pub(crate) struct Decoder(FrameDecoder);

impl Decoder {
    pub(crate) fn new() -> Self {
        Self(FrameDecoder::new())
    }

    pub(super) fn frame(
        &mut self,
        frame: &Frame<'_>,
        _room: usize,
        out: &mut Output,
    ) -> Result<(), CompressionError> {
        let header = header(frame)?;
        let mut source = header.chain(frame.body);
        self.0.reset(&mut source).map_err(fault)?;
        loop {
            // Block by block, so that at most one is decoded beyond the limit.
            let done =
                self.0.decode_blocks(&mut source, BlockDecodingStrategy::UptoBlocks(1)).map_err(fault)?;
            while self.0.can_collect() != 0 {
                let len =
                    self.0.read(out.any_room()?).map_err(|error: io::Error| corrupt(error.to_string()))?;
                out.advance(len);
            }
            if done {
                break;
            }
        }
        if frame.checksum && self.0.get_checksum_from_data() != self.0.get_calculated_checksum() {
            return Err(corrupt("the checksum of its content is wrong"));
        }
        Ok(())
    }
}

/// Returns a new header whose window is no larger than the content can use, because the decoder allocates it.
fn header(frame: &Frame<'_>) -> Result<[u8; 6], CompressionError> {
    let window = frame.window.min(frame.bound as u64).max(1024).next_power_of_two();
    if window > WINDOW_MAX {
        return Err(corrupt(format!(
            "its window of {window} bytes is larger than {WINDOW_MAX}, for which the cargo feature \
             `compression-zstd` is needed"
        )));
    }
    let flags = if frame.checksum { FLAG_CHECKSUM } else { 0 };
    let [a, b, c, d] = MAGIC.to_le_bytes();
    Ok([a, b, c, d, flags, (window.ilog2() as u8 - 10) << 3])
}

#[cold]
fn fault(error: FrameDecoderError) -> CompressionError {
    corrupt(error.to_string())
}

/// The window that any decoder should support (RFC 8878, 3.1.1.1.2).
const WINDOW_MAX: u64 = 8 << 20;
