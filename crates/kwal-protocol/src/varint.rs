//! Variable-length integers: unsigned in flexible messages (KIP-482), zig-zag in record batches.
//!
//! Each byte carries seven bits, the lowest group first; its high bit is set if more bytes follow. A 32-bit
//! value takes one to five bytes, a 64-bit one up to ten. Bits beyond the width are rejected, and forms
//! longer than necessary are accepted.

use crate::error::DecodeErrorKind;

/// The maximum length of an unsigned 32-bit varint in bytes.
pub const MAX_LEN_U32: usize = 5;
/// The maximum length of a 64-bit varint in bytes.
pub const MAX_LEN_U64: usize = 10;

/// Returns the number of bytes that [`put_u64`] writes for `value`.
#[inline]
pub const fn len_u64(value: u64) -> usize {
    // One byte per started group of seven bits; zero takes one too. 9/64 approximates 1/7: exact up to 64
    // bits.
    (((63 - (value | 1).leading_zeros()) * 9 + 73) / 64) as usize
}

/// Returns the number of bytes that [`put_u32`] writes for `value`.
#[inline]
pub const fn len_u32(value: u32) -> usize {
    len_u64(value as u64)
}

/// Returns the length of the zig-zag form of a 32-bit value in bytes.
#[inline]
pub const fn len_i32(value: i32) -> usize {
    len_u32(zigzag_i32(value))
}

/// Returns the length of the zig-zag form of a 64-bit value in bytes.
#[inline]
pub const fn len_i64(value: i64) -> usize {
    len_u64(zigzag_i64(value))
}

/// Maps small magnitudes to small numbers: 0, −1, 1, −2 … become 0, 1, 2, 3 ….
#[inline]
pub const fn zigzag_i32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

/// Maps small magnitudes to small numbers: 0, −1, 1, −2 … become 0, 1, 2, 3 ….
#[inline]
pub const fn zigzag_i64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag_i32`].
#[inline]
pub const fn unzigzag_u32(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

/// The inverse of [`zigzag_i64`].
#[inline]
pub const fn unzigzag_u64(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends an unsigned varint.
#[inline]
pub fn put_u64(out: &mut impl bytes::BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends an unsigned varint.
#[inline]
pub fn put_u32(out: &mut impl bytes::BufMut, value: u32) {
    put_u64(out, u64::from(value));
}

/// Appends a zig-zag varint.
#[inline]
pub fn put_i32(out: &mut impl bytes::BufMut, value: i32) {
    put_u64(out, u64::from(zigzag_i32(value)));
}

/// Appends a zig-zag varint (Kafka's varlong).
#[inline]
pub fn put_i64(out: &mut impl bytes::BufMut, value: i64) {
    put_u64(out, zigzag_i64(value));
}

/// Reads an unsigned 32-bit varint off the front of `bytes`; returns it and its length.
///
/// # Errors
/// [`DecodeErrorKind::UnexpectedEnd`] if `bytes` ends inside it, [`DecodeErrorKind::VarintOverflow`] if it
/// does not fit.
#[inline]
pub fn get_u32(bytes: &[u8]) -> Result<(u32, usize), DecodeErrorKind> {
    match bytes.first() {
        Some(&byte) if byte < 0x80 => Ok((u32::from(byte), 1)),
        _ => get_long::<MAX_LEN_U32>(bytes, 0x0f).map(|(value, len)| (value as u32, len)),
    }
}

/// Reads an unsigned 64-bit varint off the front of `bytes`; returns it and its length.
///
/// # Errors
/// As [`get_u32`].
#[inline]
pub fn get_u64(bytes: &[u8]) -> Result<(u64, usize), DecodeErrorKind> {
    match bytes.first() {
        Some(&byte) if byte < 0x80 => Ok((u64::from(byte), 1)),
        _ => get_long::<MAX_LEN_U64>(bytes, 0x01),
    }
}

/// Reads a zig-zag 32-bit varint off the front of `bytes`; returns it and its length.
///
/// # Errors
/// As [`get_u32`].
#[inline]
pub fn get_i32(bytes: &[u8]) -> Result<(i32, usize), DecodeErrorKind> {
    get_u32(bytes).map(|(value, len)| (unzigzag_u32(value), len))
}

/// Reads a zig-zag 64-bit varint (Kafka's varlong) off the front of `bytes`; returns it and its length.
///
/// # Errors
/// As [`get_u32`].
#[inline]
pub fn get_i64(bytes: &[u8]) -> Result<(i64, usize), DecodeErrorKind> {
    get_u64(bytes).map(|(value, len)| (unzigzag_u64(value), len))
}

/// `last` masks the bits that the last of `MAX` bytes may have.
#[inline(never)]
fn get_long<const MAX: usize>(bytes: &[u8], last: u8) -> Result<(u64, usize), DecodeErrorKind> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(MAX).enumerate() {
        if i == MAX - 1 && byte & !last != 0 {
            return Err(DecodeErrorKind::VarintOverflow);
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Ok((value, i + 1));
        }
    }
    Err(DecodeErrorKind::UnexpectedEnd)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the protocol buffers encoding page and the limits of every length.
    #[test]
    fn known_forms() {
        for (value, bytes) in [
            (0u64, &[0u8][..]),
            (1, &[1]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (150, &[0x96, 0x01]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (u64::from(u32::MAX), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            let mut out = Vec::new();
            put_u64(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(len_u64(value), bytes.len());
            assert_eq!(get_u64(bytes), Ok((value, bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(get_u64(&bytes[..cut]), Err(DecodeErrorKind::UnexpectedEnd));
            }
        }
        for (value, bytes) in [(0, [0u8]), (-1, [1]), (1, [2]), (-64, [0x7f])] {
            assert_eq!(get_i32(&bytes), Ok((value, 1)));
            assert_eq!(get_i64(&bytes), Ok((i64::from(value), 1)));
            assert_eq!(len_i32(value), 1);
        }
    }

    #[test]
    fn extremes_survive() {
        for value in [i64::MIN, i64::MAX, i64::from(i32::MIN), i64::from(i32::MAX), -65, 64] {
            let mut out = Vec::new();
            put_i64(&mut out, value);
            assert_eq!(out.len(), len_i64(value));
            assert_eq!(get_i64(&out), Ok((value, out.len())));
        }
        for value in [i32::MIN, i32::MAX, -1, 0] {
            let mut out = Vec::new();
            put_i32(&mut out, value);
            assert_eq!(out.len(), len_i32(value));
            assert_eq!(get_i32(&out), Ok((value, out.len())));
        }
    }

    #[test]
    fn too_wide_is_rejected_and_too_long_is_accepted() {
        assert_eq!(get_u32(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(DecodeErrorKind::VarintOverflow));
        assert_eq!(get_u32(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), Err(DecodeErrorKind::VarintOverflow));
        assert_eq!(get_u64(&[0xff; 10]), Err(DecodeErrorKind::VarintOverflow));
        assert_eq!(get_u32(&[0x81, 0x00]), Ok((1, 2)));
        assert_eq!(get_u32(&[0x80, 0x80, 0x80, 0x80, 0x00]), Ok((0, 5)));
    }
}
