//! The minimum work of reading batches: checksum, decompression into one buffer, every varint once.

use std::hint;

use kwal_protocol::{
    compression::{Compression, Decompressor},
    record::BatchHeader,
};

use crate::shared::Failure;

/// The start of the bytes that the checksum covers.
const CRC_START: usize = 21;
/// The most that a batch may have decompressed.
pub(crate) const LIMIT: usize = 64 << 20;

/// Splits the first whole batch off.
pub(crate) fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = bytes.get(8..).and_then(|bytes| bytes.first_chunk())?;
    bytes.split_at_checked(BatchHeader::LOG_OVERHEAD + u32::from_be_bytes(*length) as usize)
}

/// Returns the offset after the last whole batch.
///
/// # Errors
/// A batch has no header.
pub(crate) fn next_offset(mut bytes: &[u8]) -> Result<i64, Failure> {
    let mut next = 0;
    while let Some((batch, rest)) = first(bytes) {
        let base_offset = i64::from_be_bytes(field(batch, 0)?);
        next = base_offset + i64::from(i32::from_be_bytes(field(batch, 23)?)) + 1;
        bytes = rest;
    }
    Ok(next)
}

/// Verifies the checksum of a batch and calls a function with each value.
///
/// # Errors
/// The batch is not as expected.
#[inline]
pub(crate) fn walk(
    batch: &[u8],
    decompressor: &mut Decompressor,
    value: impl FnMut(&[u8]),
) -> Result<(), Failure> {
    let crc = u32::from_be_bytes(field(batch, 17)?);
    let attributes = u16::from_be_bytes(field(batch, CRC_START)?);
    let count = u32::from_be_bytes(field(batch, 57)?);
    if crc32c::crc32c(&batch[CRC_START..]) != crc {
        return Err("a batch has another checksum".into());
    }
    let body = &batch[BatchHeader::LEN..];
    match Compression::from_id(attributes as u8 & 7).ok_or("the codec is unknown")? {
        Compression::None => slices(body, count, value),
        codec => slices(&decompressor.decompress(codec, body, LIMIT)?, count, value),
    }
}

fn field<const N: usize>(batch: &[u8], at: usize) -> Result<[u8; N], &'static str> {
    batch.get(at..).and_then(|bytes| bytes.first_chunk().copied()).ok_or("a batch has a header")
}

/// Reads each varint once.
#[inline]
fn slices(bytes: &[u8], count: u32, mut value: impl FnMut(&[u8])) -> Result<(), Failure> {
    let mut at = 0;
    for _ in 0..count {
        let end = usize::try_from(varint(bytes, &mut at))?;
        let end = at + end;
        at += 1;
        hint::black_box(varint(bytes, &mut at));
        hint::black_box(varint(bytes, &mut at));
        let key = varint(bytes, &mut at);
        at += usize::try_from(key).unwrap_or_default();
        let len = usize::try_from(varint(bytes, &mut at))?;
        value(&bytes[at..at + len]);
        at = end;
    }
    Ok(())
}

#[inline]
fn varint(bytes: &[u8], at: &mut usize) -> i64 {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let byte = u64::from(bytes[*at]);
        *at += 1;
        value |= (byte & 0x7f) << shift;
        if byte < 0x80 {
            return (value >> 1) as i64 ^ -((value & 1) as i64);
        }
        shift += 7;
    }
}
