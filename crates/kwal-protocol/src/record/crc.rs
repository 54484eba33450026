//! CRC-32C, the checksum of a batch, and the combination of two checksums.

/// The polynomial, reflected: bit 31 is the coefficient of x⁰.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// Computes the CRC-32C of `bytes`, with the instructions of the processor.
#[inline]
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// Continues the checksum of earlier bytes with `bytes`.
#[inline]
pub fn append(first: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(first, bytes)
}

/// The transformation of a checksum when more bytes follow: see [`combine`].
///
/// It only depends on the number of those bytes, so it is worth keeping.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shift(u32);

impl Shift {
    /// Creates the shift for `len` more bytes.
    pub fn by(len: usize) -> Self {
        // Eight zero bits per byte: x to the power of 8 × len, composed from the squares in the table.
        let (mut bits, mut power, mut k) = (len, ONE, 3);
        while bits != 0 {
            if bits & 1 == 1 {
                power = multiply(power, SQUARES[k]);
            }
            bits >>= 1;
            k += 1;
        }
        Self(power)
    }
}

/// Combines the checksums of two consecutive pieces; `shift` is for the length of the second.
#[inline]
pub fn combine(first: u32, second: u32, shift: Shift) -> u32 {
    multiply(first, shift.0) ^ second
}

/// x, x², x⁴, x⁸ …, enough for eight times any length.
const SQUARES: [u32; usize::BITS as usize + 3] = {
    let mut squares = [ONE >> 1; usize::BITS as usize + 3];
    let mut k = 1;
    while k < squares.len() {
        squares[k] = multiply(squares[k - 1], squares[k - 1]);
        k += 1;
    }
    squares
};

/// Returns the product modulo the polynomial.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let (mut product, mut bit) = (0, ONE);
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
        bit >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From RFC 3720, appendix B.4.
    #[test]
    fn known_sums() {
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(checksum(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(checksum(&rising), 0x46dd_794e);
    }

    #[test]
    fn combined_is_as_in_one_go() {
        let bytes: Vec<u8> = (0..70_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for len in [0, 1, 2, 40, 41, 300, 4096, 65_537, bytes.len()] {
            for cut in [0, 1, 40, len / 2, len].into_iter().filter(|&cut| cut <= len) {
                let (first, second) = bytes[..len].split_at(cut);
                let combined = combine(checksum(first), checksum(second), Shift::by(second.len()));
                assert_eq!(combined, checksum(&bytes[..len]), "{cut} of {len}");
            }
        }
        // The crate's own implementation, which is much slower, for a length too large to allocate.
        let (a, b, len) = (0x1234_5678, 0x9abc_def0, (1 << 31) + 12_345);
        assert_eq!(combine(a, b, Shift::by(len)), crc32c::crc32c_combine(a, b, len));
    }
}
