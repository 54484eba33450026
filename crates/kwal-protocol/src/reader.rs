//! Decoding from one frame.

use bytes::Bytes;

use crate::{
    error::{DecodeError, DecodeErrorKind},
    varint,
};

/// A cursor over one frame, which neither panics nor reads past the end.
///
/// [`finish`](Self::finish) checks that nothing is left. Values read as [`Bytes`] are slices of the frame,
/// not copies, and keep the frame alive.
///
/// An element of an array can take far more memory than bytes on the wire. So all values read from a frame
/// together may take at most 8 times its length and 64 KiB, by their size in memory, and never more than 64
/// MiB; beyond that is [`DecodeErrorKind::TooMuchMemory`]. Slices of the frame do not count.
#[derive(Debug)]
pub struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    end: usize,
    /// How much memory the values that are still to be read may take, in bytes.
    memory: usize,
}

/// The memory for each byte of a frame. Kafka's responses about many partitions without data need up to 6, in
/// the first versions of Fetch nearly 8.
const MEMORY_PER_BYTE: usize = 8;
/// The memory for the values of any frame, in which a few large structures may have their defaults.
const MEMORY_OF_ANY: usize = 64 << 10;
/// The most memory, for frames of which most is records. Half a million partitions take as much in Metadata.
const MEMORY_MAX: usize = 64 << 20;
/// What the allocator needs for each value of variable size.
const PER_ALLOCATION: usize = 16;

impl<'a> Reader<'a> {
    /// Creates a reader at the first byte of `frame`.
    pub fn new(frame: &'a Bytes) -> Self {
        let memory =
            frame.len().saturating_mul(MEMORY_PER_BYTE).saturating_add(MEMORY_OF_ANY).min(MEMORY_MAX);
        Self { frame, at: 0, end: frame.len(), memory }
    }

    /// Returns the position: the number of bytes before it in the frame.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Returns the number of bytes left.
    pub fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// Reads the next `N` bytes.
    ///
    /// # Errors
    /// [`DecodeErrorKind::UnexpectedEnd`] if there are fewer, as in all methods below.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.frame[self.at..self.end].first_chunk() {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(self.fault(DecodeErrorKind::UnexpectedEnd)),
        }
    }

    /// Reads the next `len` bytes, borrowed: for values that are copied anyway.
    pub fn slice(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let start = self.take(len)?;
        Ok(&self.frame[start..start + len])
    }

    /// Reads the next `len` bytes as a slice of the frame, without a copy.
    pub fn bytes(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        let start = self.take(len)?;
        Ok(self.frame.slice(start..start + len))
    }

    /// Skips the next `len` bytes.
    pub fn skip(&mut self, len: usize) -> Result<(), DecodeError> {
        self.take(len).map(drop)
    }

    /// Reads a value of the next `len` bytes, exactly.
    ///
    /// # Errors
    /// Those of `read`; what `read` leaves over is [`DecodeErrorKind::TrailingBytes`].
    pub fn exactly<T>(
        &mut self,
        len: usize,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        if len > self.remaining() {
            return Err(self.fault(DecodeErrorKind::UnexpectedEnd));
        }
        let end = std::mem::replace(&mut self.end, self.at + len);
        let value = read(self)?;
        match self.remaining() {
            0 => self.end = end,
            left => return Err(self.fault(DecodeErrorKind::TrailingBytes(left))),
        }
        Ok(value)
    }

    /// Accounts for a value of variable size, before it is allocated.
    #[inline]
    pub(crate) fn allocate(&mut self, count: usize, size: usize) -> Result<(), DecodeError> {
        let bytes = if count == 0 { 0 } else { count.saturating_mul(size).saturating_add(PER_ALLOCATION) };
        match self.memory.checked_sub(bytes) {
            Some(left) => {
                self.memory = left;
                Ok(())
            }
            None => Err(self.fault(DecodeErrorKind::TooMuchMemory(bytes))),
        }
    }

    /// Reads an unsigned varint, used for lengths and tags in flexible versions (KIP-482).
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        match varint::get_u32(&self.frame[self.at..self.end]) {
            Ok((value, len)) => {
                self.at += len;
                Ok(value)
            }
            Err(kind) => Err(self.fault(kind)),
        }
    }

    /// Checks that all bytes have been read.
    ///
    /// # Errors
    /// [`DecodeErrorKind::TrailingBytes`] if some are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.fault(DecodeErrorKind::TrailingBytes(left))),
        }
    }

    /// Returns an error at the current position.
    pub fn fault(&self, kind: DecodeErrorKind) -> DecodeError {
        kind.at(self.at)
    }

    fn take(&mut self, len: usize) -> Result<usize, DecodeError> {
        if len > self.remaining() {
            return Err(self.fault(DecodeErrorKind::UnexpectedEnd));
        }
        let start = self.at;
        self.at += len;
        Ok(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_to_the_end_and_not_beyond() {
        let frame = Bytes::from_static(&[1, 2, 3, 4, 5, 6]);
        let mut reader = Reader::new(&frame);
        assert_eq!(reader.array::<2>(), Ok([1, 2]));
        let inner = reader.exactly(2, |reader| {
            assert_eq!(reader.slice(3), Err(DecodeErrorKind::UnexpectedEnd.at(2)));
            reader.slice(2)
        });
        assert_eq!(inner, Ok(&[3u8, 4][..]));
        assert_eq!(reader.array::<3>(), Err(DecodeErrorKind::UnexpectedEnd.at(4)));
        assert_eq!(reader.bytes(1).unwrap(), Bytes::from_static(&[5]));
        assert_eq!(reader.skip(2), Err(DecodeErrorKind::UnexpectedEnd.at(5)));
        assert_eq!(reader.finish(), Err(DecodeErrorKind::TrailingBytes(1).at(5)));

        let mut reader = Reader::new(&frame);
        assert_eq!(reader.exactly(7, |_| Ok(())), Err(DecodeErrorKind::UnexpectedEnd.at(0)));
        let left = reader.exactly(3, |reader| reader.skip(1));
        assert_eq!(left, Err(DecodeErrorKind::TrailingBytes(2).at(1)));
    }

    #[test]
    fn memory_is_a_multiple_of_the_frame() {
        for (len, memory) in [(0, 64 << 10), (1000, 73_536), (8 << 20, 64 << 20), (20 << 20, 64 << 20)] {
            let frame = Bytes::from(vec![0; len]);
            let mut reader = Reader::new(&frame);
            reader.allocate(0, 1).unwrap();
            reader.allocate(memory / 2 - 16, 1).unwrap();
            reader.allocate(1, memory / 2 - 16).unwrap();
            let full = Err(DecodeErrorKind::TooMuchMemory(17).at(0));
            assert_eq!(reader.allocate(1, 1), full, "{len}");
            assert_eq!(reader.allocate(usize::MAX, 2), Err(DecodeErrorKind::TooMuchMemory(usize::MAX).at(0)));
        }
    }

    #[test]
    fn bytes_are_slices_of_the_frame() {
        let frame = Bytes::from(vec![7; 100]);
        let mut reader = Reader::new(&frame);
        reader.array::<10>().unwrap();
        assert_eq!(reader.bytes(50).unwrap().as_ptr(), frame[10..].as_ptr());
    }
}
