//! LZ4 frames (version 1.6 of the format), Kafka's framing since KIP-57.
//!
//! Kafka writes independent blocks of 64 KiB, without checksums and content size. Larger blocks, linked
//! blocks, checksums and sizes, as other clients write them, are accepted as well. Bytes after the first
//! frame are ignored, as in Kafka, even if they are another frame. Blocks are decompressed straight into one
//! buffer; the usual stream decoder copies each of them once more.

use std::borrow::Cow;

use lz4_flex::block::{self, CompressTable, DecompressError};
use twox_hash::XxHash32;

use super::{
    codec::{Compression, CompressionError},
    output::Output,
};

/// The memory of the compressor, reused: it is cleared for every block.
#[derive(Default)]
pub(super) struct Encoder {
    small: Option<CompressTable>,
    large: Option<CompressTable>,
}

impl Encoder {
    /// Writes one frame of independent 64 KiB blocks to the front of `out`; returns its length.
    ///
    /// Incompressible blocks are stored.
    pub(super) fn compress(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, CompressionError> {
        // Each block may be written with extra space.
        let room = block::get_maximum_output_size(BLOCK_LEN.min(input.len()));
        let blocks = input.len().div_ceil(BLOCK_LEN);
        let bound = HEADER.len() + blocks * 4 + input.len() + room + END_MARK.len();
        if out.len() < bound {
            out.resize(bound, 0);
        }
        out[..HEADER.len()].copy_from_slice(&HEADER);
        let mut len = HEADER.len();
        let table = if input.len() < BLOCK_LEN {
            self.small.get_or_insert_with(CompressTable::small)
        } else {
            self.large.get_or_insert_with(CompressTable::large)
        };
        for block in input.chunks(BLOCK_LEN) {
            let (size, data) = out[len..].split_at_mut(4);
            let compressed = block::compress_into_with_table(block, data, table).map_err(corrupt)?;
            let (written, stored) = if compressed < block.len() {
                (compressed, 0)
            } else {
                data[..block.len()].copy_from_slice(block);
                (block.len(), STORED)
            };
            size.copy_from_slice(&(written as u32 | stored).to_le_bytes());
            len += 4 + written;
        }
        out[len..len + END_MARK.len()].copy_from_slice(&END_MARK);
        Ok(len + END_MARK.len())
    }
}

/// The origin of the frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Checksums {
    /// Valid according to the format.
    Right,
    /// From messages of magic 0, whose writer computed the header checksum over too many bytes (KIP-57).
    ///
    /// It is ignored.
    WrongInHeader,
}

/// Decompresses the frame at the front of `input`.
pub(super) fn decompress(
    input: &[u8],
    checksums: Checksums,
    out: &mut Output,
) -> Result<(), CompressionError> {
    let mut input = Input(input);
    let frame = Frame::read(&mut input, checksums)?;
    out.expect(frame.bound(input), input.0.len())?;
    frame.decompress(&mut input, out)
}

/// The flags of a frame that determine how its blocks are read.
struct Frame {
    /// The largest output of a block.
    block_max: usize,
    linked: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
}

impl Frame {
    fn read(input: &mut Input<'_>, checksums: Checksums) -> Result<Self, CompressionError> {
        if input.u32()? != MAGIC {
            return Err(corrupt("it does not start with the magic number of a frame"));
        }
        let descriptor = input.0;
        let [flags, sizes] = input.array()?;
        if flags & FLAGS_VERSION_MASK != FLAGS_VERSION || flags & FLAGS_RESERVED != 0 {
            return Err(corrupt("its frame has an unknown version"));
        }
        if flags & FLAGS_DICTIONARY != 0 {
            return Err(corrupt("its frame requires a dictionary"));
        }
        let block_max = match sizes {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return Err(corrupt("the block size of its frame is unknown")),
        };
        let content_size = match flags & FLAGS_CONTENT_SIZE {
            0 => None,
            _ => Some(u64::from_le_bytes(input.array()?)),
        };
        let descriptor = &descriptor[..descriptor.len() - input.0.len()];
        let [checksum] = input.array()?;
        if checksums == Checksums::Right && checksum != (XxHash32::oneshot(0, descriptor) >> 8) as u8 {
            return Err(corrupt("the checksum of its frame header is wrong"));
        }
        Ok(Self {
            block_max,
            linked: flags & FLAGS_INDEPENDENT == 0,
            block_checksums: flags & FLAGS_BLOCK_CHECKSUMS != 0,
            content_checksum: flags & FLAGS_CONTENT_CHECKSUM != 0,
            content_size,
        })
    }

    /// Returns an upper bound of the output by the sizes of the blocks; the header's claim is not trusted.
    fn bound(&self, mut input: Input<'_>) -> usize {
        let mut bound = 0;
        while let Ok(Some(block)) = self.block(&mut input) {
            bound += self.block_bound(&block);
        }
        bound
    }

    fn block_bound(&self, block: &Block<'_>) -> usize {
        if block.stored { block.data.len() } else { self.block_max.min(block.data.len() * MAX_RATIO) }
    }

    fn block<'a>(&self, input: &mut Input<'a>) -> Result<Option<Block<'a>>, CompressionError> {
        let size = input.u32()?;
        if size == 0 {
            return Ok(None);
        }
        let data = input.bytes((size & !STORED) as usize)?;
        let checksum = if self.block_checksums { Some(input.u32()?) } else { None };
        Ok(Some(Block { data, stored: size & STORED != 0, checksum }))
    }

    fn decompress(&self, input: &mut Input<'_>, out: &mut Output) -> Result<(), CompressionError> {
        let start = out.len();
        while let Some(block) = self.block(input)? {
            if block.checksum.is_some_and(|checksum| checksum != XxHash32::oneshot(0, block.data)) {
                return Err(corrupt("the checksum of a block is wrong"));
            }
            let (before, room) = out.room(self.block_bound(&block))?;
            let full = room.len();
            if block.stored {
                if block.data.len() > self.block_max {
                    return Err(corrupt("a block is larger than its frame allows"));
                }
                if full < block.data.len() {
                    return Err(out.too_large());
                }
                room.copy_from_slice(block.data);
                out.advance(block.data.len());
                continue;
            }
            let result = if self.linked {
                let window = &before[start..];
                let window = &window[window.len().saturating_sub(WINDOW_LEN)..];
                block::decompress_into_with_dict(block.data, room, window)
            } else {
                block::decompress_into(block.data, room)
            };
            match result {
                Ok(len) => out.advance(len),
                Err(DecompressError::OutputTooSmall { .. }) if full < self.block_bound(&block) => {
                    return Err(out.too_large());
                }
                Err(error) => return Err(corrupt(error)),
            }
        }
        let content = out.since(start);
        if self.content_size.is_some_and(|size| size != content.len() as u64) {
            return Err(corrupt("its length differs from that in its frame"));
        }
        if self.content_checksum && input.u32()? != XxHash32::oneshot(0, content) {
            return Err(corrupt("the checksum of its content is wrong"));
        }
        Ok(())
    }
}

struct Block<'a> {
    data: &'a [u8],
    stored: bool,
    checksum: Option<u32>,
}

/// The rest of the input.
#[derive(Clone, Copy)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], CompressionError> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or_else(|| corrupt("it ends too early"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CompressionError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, CompressionError> {
        self.array().map(u32::from_le_bytes)
    }
}

#[cold]
fn corrupt(reason: impl ToString) -> CompressionError {
    CompressionError::Corrupt { codec: Compression::Lz4, reason: Cow::Owned(reason.to_string()) }
}

/// The magic number of a frame.
const MAGIC: u32 = 0x184d_2204;
/// The header of Kafka's frames: independent blocks of 64 KiB, nothing optional.
const HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, FLAGS_VERSION | FLAGS_INDEPENDENT, 0x40, 0x82];
/// The end mark, a block of size 0.
const END_MARK: [u8; 4] = [0; 4];
const BLOCK_LEN: usize = 64 << 10;
/// The distance that a linked block can reach back.
const WINDOW_LEN: usize = 64 << 10;
/// The largest output for one byte of a block.
const MAX_RATIO: usize = 255;
/// The bit of a block's size for a block that is not compressed.
const STORED: u32 = 1 << 31;
const FLAGS_VERSION_MASK: u8 = 0xc0;
const FLAGS_VERSION: u8 = 0x40;
const FLAGS_INDEPENDENT: u8 = 0x20;
const FLAGS_BLOCK_CHECKSUMS: u8 = 0x10;
const FLAGS_CONTENT_SIZE: u8 = 0x08;
const FLAGS_CONTENT_CHECKSUM: u8 = 0x04;
const FLAGS_RESERVED: u8 = 0x02;
const FLAGS_DICTIONARY: u8 = 0x01;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use bytes::Bytes;
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::{super::samples::input, *};

    fn compress(input: &[u8]) -> Result<Bytes, CompressionError> {
        Compression::Lz4.compress(input)
    }

    fn decompress(input: &[u8], limit: usize) -> Result<Bytes, CompressionError> {
        Compression::Lz4.decompress(input, limit)
    }

    #[test]
    fn compressed_data_round_trips() {
        for len in [0, 1, 12, 13, 1000, BLOCK_LEN - 1, BLOCK_LEN, BLOCK_LEN + 1, 300_000] {
            let input = input(len);
            let compressed = compress(&input).unwrap();
            assert_eq!(compressed[..7], HEADER);
            assert_eq!(decompress(&compressed, len).unwrap(), input, "{len}");
            let mut independent = Vec::new();
            let mut decoder = lz4_flex::frame::FrameDecoder::new(&compressed[..]);
            std::io::copy(&mut decoder, &mut independent).unwrap();
            assert_eq!(independent, input, "{len}");
        }
    }

    #[test]
    fn every_kind_of_frame_is_read() {
        let input = input(700_000);
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
                for checks in [false, true] {
                    let info = FrameInfo::new()
                        .block_mode(mode)
                        .block_size(size)
                        .block_checksums(checks)
                        .content_checksum(checks)
                        .content_size(checks.then_some(input.len() as u64));
                    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                    encoder.write_all(&input).unwrap();
                    let frame = encoder.finish().unwrap();
                    assert_eq!(decompress(&frame, input.len()).unwrap(), input);
                    let limit = input.len() - 1;
                    let too_large = CompressionError::TooLarge { codec: Compression::Lz4, limit };
                    assert_eq!(decompress(&frame, limit), Err(too_large));
                }
            }
        }
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let input = input(2000);
        let info = FrameInfo::new().block_checksums(true).content_checksum(true).content_size(Some(2000));
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&input).unwrap();
        let checked = encoder.finish().unwrap();
        for frame in [&checked[..], &compress(&input).unwrap()] {
            for len in 0..frame.len() {
                assert!(
                    matches!(decompress(&frame[..len], 1 << 20), Err(CompressionError::Corrupt { .. })),
                    "{len}"
                );
            }
        }
        for bit in 0..checked.len() * 8 {
            let mut flipped = checked.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decompress(&flipped, 1 << 20).is_err(), "{bit}");
        }
    }

    /// As in Kafka's `Lz4BlockInputStream`.
    #[test]
    fn only_the_first_frame_is_read() {
        let first = compress(&input(2000)).unwrap();
        for more in [&b"x"[..], &[0; 8], &compress(&input(300)).unwrap(), &first[..5]] {
            assert_eq!(decompress(&[&first[..], more].concat(), 2000).unwrap(), input(2000), "{more:?}");
        }
    }

    #[test]
    fn a_claimed_size_reserves_no_memory() {
        // One frame whose header claims 2⁶³ bytes of content and 4 MiB blocks.
        let mut frame = HEADER[..4].to_vec();
        frame.extend([FLAGS_VERSION | FLAGS_INDEPENDENT | FLAGS_CONTENT_SIZE, 0x70]);
        frame.extend((1u64 << 63).to_le_bytes());
        frame.push((XxHash32::oneshot(0, &frame[4..]) >> 8) as u8);
        frame.extend(3u32.to_le_bytes());
        frame.extend([0x10, b'x', 0]);
        frame.extend(END_MARK);
        let mut input = Input(&frame);
        let header = Frame::read(&mut input, Checksums::Right).unwrap();
        assert_eq!(header.bound(input), 3 * MAX_RATIO);
        assert!(decompress(&frame, usize::MAX).is_err());
    }
}
