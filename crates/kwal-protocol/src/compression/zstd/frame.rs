//! The format of frames and blocks, without decompression.

use std::borrow::Cow;

use crate::compression::codec::{Compression, CompressionError};

/// A complete frame whose blocks are not decompressed.
pub(super) struct Frame<'a> {
    /// From the magic number to the last byte.
    pub(super) bytes: &'a [u8],
    /// Without the header.
    #[cfg(not(feature = "compression-zstd"))]
    pub(super) body: &'a [u8],
    #[cfg(not(feature = "compression-zstd"))]
    pub(super) window: u64,
    #[cfg(not(feature = "compression-zstd"))]
    pub(super) checksum: bool,
    pub(super) content_size: Option<u64>,
    /// An upper bound of the output of its blocks.
    pub(super) bound: usize,
}

impl<'a> Frame<'a> {
    /// Takes a frame off the front of `input`; `None` for a skippable one.
    pub(super) fn read(input: &mut &'a [u8]) -> Result<Option<Self>, CompressionError> {
        let all = *input;
        let magic = take(input).map(u32::from_le_bytes)?;
        if magic & SKIPPABLE_MASK == SKIPPABLE {
            let len = take(input).map(u32::from_le_bytes)?;
            *input = input.get(len as usize..).ok_or_else(ended)?;
            return Ok(None);
        }
        if magic != MAGIC {
            return Err(corrupt("it does not start with the magic number of a frame"));
        }
        let [flags] = take(input)?;
        if flags & FLAG_RESERVED != 0 {
            return Err(corrupt("its frame has an unknown version"));
        }
        let single = flags & FLAG_SINGLE_SEGMENT != 0;
        let window = if single { None } else { Some(window(take(input)?)) };
        let dictionary = match flags & 3 {
            0 => 0,
            1 => take(input).map(u8::from_le_bytes)?.into(),
            2 => take(input).map(u16::from_le_bytes)?.into(),
            _ => take(input).map(u32::from_le_bytes)?,
        };
        if dictionary != 0 {
            return Err(corrupt("its frame requires a dictionary"));
        }
        let content_size = match flags >> 6 {
            0 if !single => None,
            0 => Some(take(input).map(u8::from_le_bytes)?.into()),
            1 => Some(u64::from(take(input).map(u16::from_le_bytes)?) + 256),
            2 => Some(take(input).map(u32::from_le_bytes)?.into()),
            _ => Some(take(input).map(u64::from_le_bytes)?),
        };
        let window = window.or(content_size).unwrap_or_default();
        #[cfg(not(feature = "compression-zstd"))]
        let body = *input;
        let mut bound = take_blocks(input, window)?;
        if let Some(size) = content_size {
            bound = bound.min(usize::try_from(size).unwrap_or(usize::MAX));
        }
        let checksum = flags & FLAG_CHECKSUM != 0;
        if checksum {
            take::<4>(input)?;
        }
        Ok(Some(Self {
            bytes: &all[..all.len() - input.len()],
            #[cfg(not(feature = "compression-zstd"))]
            body: &body[..body.len() - input.len()],
            #[cfg(not(feature = "compression-zstd"))]
            window,
            #[cfg(not(feature = "compression-zstd"))]
            checksum,
            content_size,
            bound,
        }))
    }
}

/// Returns the window size of a descriptor.
const fn window([descriptor]: [u8; 1]) -> u64 {
    let base = 1u64 << (10 + (descriptor >> 3));
    base + base / 8 * (descriptor & 7) as u64
}

/// Takes the blocks of a frame off the front of `input`; returns an upper bound of their output.
fn take_blocks(input: &mut &[u8], window: u64) -> Result<usize, CompressionError> {
    let block_max = window.min(BLOCK_MAX as u64) as usize;
    let mut bound = 0;
    loop {
        let [a, b, c] = take(input)?;
        let header = u32::from_le_bytes([a, b, c, 0]);
        let size = (header >> 3) as usize;
        let (len, gives) = match header >> 1 & 3 {
            0 => (size, size),
            1 => (1, size),
            2 => (size, block_max),
            _ => return Err(corrupt("a block has an unknown type")),
        };
        if size > block_max {
            return Err(corrupt("a block is larger than its frame allows"));
        }
        *input = input.get(len..).ok_or_else(ended)?;
        bound += gives;
        if header & 1 != 0 {
            return Ok(bound);
        }
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], CompressionError> {
    let (array, rest) = input.split_first_chunk().ok_or_else(ended)?;
    *input = rest;
    Ok(*array)
}

#[cold]
pub(super) fn corrupt(reason: impl Into<Cow<'static, str>>) -> CompressionError {
    CompressionError::Corrupt { codec: Compression::Zstd, reason: reason.into() }
}

#[cold]
fn ended() -> CompressionError {
    corrupt("it ends too early")
}

pub(super) const MAGIC: u32 = 0xfd2f_b528;
const SKIPPABLE: u32 = 0x184d_2a50;
const SKIPPABLE_MASK: u32 = 0xffff_fff0;
const FLAG_SINGLE_SEGMENT: u8 = 0x20;
const FLAG_RESERVED: u8 = 0x08;
pub(super) const FLAG_CHECKSUM: u8 = 0x04;
const BLOCK_MAX: usize = 128 << 10;
