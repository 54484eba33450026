//! Gzip (RFC 1952), one member per batch.
//!
//! Several consecutive members are accepted as well, because some clients write them. Bytes after the last
//! member that are not the start of another one are ignored, as in Kafka.

use std::borrow::Cow;

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status, crc32::crc32};

use super::{
    codec::{Compression, CompressionError},
    output::Output,
};

/// Kafka's default.
pub(super) const DEFAULT_LEVEL: i32 = 6;

/// A deflate stream, reused.
pub(super) struct Encoder {
    deflate: Deflate,
    level: i32,
}

impl Encoder {
    pub(super) fn new(level: i32) -> Self {
        Self { deflate: Deflate::new(level, false, WINDOW_BITS), level }
    }

    pub(super) const fn level(&self) -> i32 {
        self.level
    }

    /// Writes one member to the front of `out`; returns its length.
    pub(super) fn compress(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, CompressionError> {
        // The largest output of the fastest level for incompressible data: nine bits per byte.
        let bound = HEADER.len() + input.len() + input.len() / 8 + 64 + TRAILER_LEN;
        if out.len() < bound {
            out.resize(bound, 0);
        }
        out[..HEADER.len()].copy_from_slice(&HEADER);
        self.deflate.reset();
        let (mut read, mut len) = (0, HEADER.len());
        loop {
            let status = self.deflate.compress(&input[read..], &mut out[len..], DeflateFlush::Finish);
            let status = status.map_err(|error| corrupt(error.as_str()))?;
            read = self.deflate.total_in() as usize;
            len = HEADER.len() + self.deflate.total_out() as usize;
            if status == Status::StreamEnd {
                break;
            }
            out.resize(out.len() + out.len() / 2, 0);
        }
        out.resize(out.len().max(len + TRAILER_LEN), 0);
        out[len..len + 4].copy_from_slice(&crc32(0, input).to_le_bytes());
        out[len + 4..len + 8].copy_from_slice(&(input.len() as u32).to_le_bytes());
        Ok(len + TRAILER_LEN)
    }
}

/// An inflate stream, reused.
pub(super) struct Decoder(Inflate);

impl Decoder {
    pub(super) fn new() -> Self {
        Self(Inflate::new(false, WINDOW_BITS))
    }

    /// Decompresses all members in `input`, at least one.
    pub(super) fn decompress(&mut self, input: &[u8], out: &mut Output) -> Result<(), CompressionError> {
        let mut body = after_header(input)?;
        loop {
            let rest = self.member(body, out)?;
            if rest.len() < SHORTEST_MEMBER {
                return Ok(());
            }
            match after_header(rest) {
                Ok(next) => body = next,
                Err(_) => return Ok(()),
            }
        }
    }

    /// Decompresses the member whose header precedes `rest`; returns the input after it.
    fn member<'a>(&mut self, mut rest: &'a [u8], out: &mut Output) -> Result<&'a [u8], CompressionError> {
        let start = out.len();
        // A member ends with its length, and usually it is the only one.
        let expected = rest.last_chunk().map_or(0, |len| u32::from_le_bytes(*len) as usize);
        out.expect(expected, rest.len())?;
        self.0.reset(false);
        loop {
            let full = out.left() == 0;
            // Even with a full buffer the end of the stream may still have to be read.
            let mut spare = [0];
            let room = if full { &mut spare[..] } else { out.any_room()? };
            let had = room.len();
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let status = self.0.decompress(rest, room, InflateFlush::Finish);
            let status = status.map_err(|error| corrupt(self.0.error_message().unwrap_or(error.as_str())))?;
            let (read, written) =
                ((self.0.total_in() - read) as usize, (self.0.total_out() - written) as usize);
            rest = &rest[read..];
            if full && written != 0 {
                return Err(out.too_large());
            }
            out.advance(written);
            match status {
                Status::StreamEnd => break,
                // There is space for more output, so the input is truncated.
                _ if written < had => return Err(ended()),
                _ => {}
            }
        }
        let (sum, rest) = rest.split_first_chunk().ok_or_else(ended)?;
        let (len, rest) = rest.split_first_chunk().ok_or_else(ended)?;
        let content = out.since(start);
        if u32::from_le_bytes(*len) != content.len() as u32 {
            return Err(corrupt("its length differs from that in its trailer"));
        }
        if u32::from_le_bytes(*sum) != crc32(0, content) {
            return Err(corrupt("the checksum of its content is wrong"));
        }
        Ok(rest)
    }
}

/// Skips the header at the front of `input`, with name, comment and extra field.
fn after_header(input: &[u8]) -> Result<&[u8], CompressionError> {
    let (header, mut rest) = input.split_first_chunk::<{ HEADER.len() }>().ok_or_else(ended)?;
    if header[..2] != HEADER[..2] {
        return Err(corrupt("it does not start with the magic number of gzip"));
    }
    let flags = header[3];
    // Reserved flags are ignored, as in Kafka.
    if header[2] != DEFLATE {
        return Err(corrupt("its method of compression is unknown"));
    }
    if flags & FLAG_EXTRA != 0 {
        let (len, after) = rest.split_first_chunk().ok_or_else(ended)?;
        rest = after.get(u16::from_le_bytes(*len).into()..).ok_or_else(ended)?;
    }
    for flag in [FLAG_NAME, FLAG_COMMENT] {
        if flags & flag != 0 {
            let end = rest.iter().position(|&byte| byte == 0).ok_or_else(ended)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & FLAG_HEADER_CRC != 0 {
        let header = &input[..input.len() - rest.len()];
        let (sum, after) = rest.split_first_chunk().ok_or_else(ended)?;
        if u16::from_le_bytes(*sum) != crc32(0, header) as u16 {
            return Err(corrupt("the checksum of its header is wrong"));
        }
        rest = after;
    }
    Ok(rest)
}

#[cold]
fn corrupt(reason: &'static str) -> CompressionError {
    CompressionError::Corrupt { codec: Compression::Gzip, reason: Cow::Borrowed(reason) }
}

#[cold]
fn ended() -> CompressionError {
    corrupt("it ends too early")
}

const DEFLATE: u8 = 8;
/// Magic number and method; no flags, no time, no level, no operating system.
const HEADER: [u8; 10] = [0x1f, 0x8b, DEFLATE, 0, 0, 0, 0, 0, 0, 0];
/// Checksum and length.
const TRAILER_LEN: usize = 8;
/// Header, an empty deflate stream, and trailer.
const SHORTEST_MEMBER: usize = HEADER.len() + 2 + TRAILER_LEN;
/// 32 KiB, the largest window.
const WINDOW_BITS: u8 = 15;
const FLAG_HEADER_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
