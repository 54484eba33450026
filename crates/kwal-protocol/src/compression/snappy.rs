//! Snappy, in the stream format of the Java library (xerial's), which is Kafka's framing.
//!
//! It is a header followed by blocks of any size. Kafka writes blocks of 32 KiB. This crate writes 64 KiB,
//! which is as far as snappy looks back, for a better ratio. A single block without framing, as some clients
//! write it, is accepted as well, and so are several consecutive streams. Up to three bytes at the end, too
//! few for the length of a block, are ignored, as in Kafka.

use std::borrow::Cow;

use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::{
    codec::{Compression, CompressionError},
    output::Output,
};

/// Writes one stream to the front of `out`; returns its length.
pub(super) fn compress(
    encoder: &mut Encoder,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<usize, CompressionError> {
    let blocks = input.len().div_ceil(BLOCK_LEN);
    let bound = HEADER.len() + blocks * (4 + max_compress_len(BLOCK_LEN.min(input.len())));
    if out.len() < bound {
        out.resize(bound, 0);
    }
    out[..HEADER.len()].copy_from_slice(&HEADER);
    let mut len = HEADER.len();
    for block in input.chunks(BLOCK_LEN) {
        let (size, data) = out[len..].split_at_mut(4);
        let written = encoder.compress(block, data).map_err(corrupt)?;
        size.copy_from_slice(&(written as u32).to_be_bytes());
        len += 4 + written;
    }
    Ok(len)
}

/// Decompresses all streams in `input`, at least one, or one block.
pub(super) fn decompress(input: &[u8], out: &mut Output) -> Result<(), CompressionError> {
    if !input.starts_with(&MAGIC) {
        return decompress_block(input, out);
    }
    let mut expected = 0usize;
    for block in Blocks(input) {
        expected = expected.saturating_add(block_len(block?)?);
    }
    out.expect(expected, input.len())?;
    Blocks(input).try_for_each(|block| decompress_block(block?, out))
}

/// Iterates over the blocks of streams.
struct Blocks<'a>(&'a [u8]);

impl<'a> Blocks<'a> {
    fn read(&mut self) -> Result<Option<&'a [u8]>, CompressionError> {
        while let Some(rest) = self.0.strip_prefix(&MAGIC) {
            let (version, rest) = rest.split_first_chunk().ok_or_else(ended)?;
            let (_compatible, rest) = rest.split_first_chunk::<4>().ok_or_else(ended)?;
            if i32::from_be_bytes(*version) < 1 {
                return Err(corrupt("its stream has an unknown version"));
            }
            self.0 = rest;
        }
        let Some((len, rest)) = self.0.split_first_chunk() else { return Ok(None) };
        let (block, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or_else(ended)?;
        self.0 = rest;
        Ok(Some(block))
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Result<&'a [u8], CompressionError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Returns the output length that a block claims, if it is possible.
fn block_len(block: &[u8]) -> Result<usize, CompressionError> {
    let len = decompress_len(block).map_err(corrupt)?;
    if block.is_empty() || len > block.len().saturating_mul(MAX_RATIO) {
        return Err(corrupt("a block claims an impossible length"));
    }
    Ok(len)
}

fn decompress_block(block: &[u8], out: &mut Output) -> Result<(), CompressionError> {
    let len = block_len(block)?;
    if len > out.left() {
        return Err(out.too_large());
    }
    let (_, room) = out.room(len)?;
    let len = Decoder::new().decompress(block, room).map_err(corrupt)?;
    out.advance(len);
    Ok(())
}

#[cold]
fn corrupt(reason: impl ToString) -> CompressionError {
    CompressionError::Corrupt { codec: Compression::Snappy, reason: Cow::Owned(reason.to_string()) }
}

#[cold]
fn ended() -> CompressionError {
    corrupt("it ends too early")
}

/// The magic bytes of a stream.
const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// The magic bytes, the version, and the minimum version of a reader.
const HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const BLOCK_LEN: usize = 64 << 10;
/// The largest output for one byte of a block: three bytes copy 64.
const MAX_RATIO: usize = 22;
