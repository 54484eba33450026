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
#[derive(Debug)]
pub struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// Creates a reader at the first byte of `frame`.
    pub fn new(frame: &'a Bytes) -> Self {
        Self { frame, at: 0, end: frame.len() }
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

    /// Returns a reader of the next `len` bytes, whose positions also count from the start of the frame.
    pub fn sub(&mut self, len: usize) -> Result<Self, DecodeError> {
        let start = self.take(len)?;
        Ok(Self { frame: self.frame, at: start, end: start + len })
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
        let mut sub = reader.sub(2).unwrap();
        assert_eq!(sub.slice(3), Err(DecodeErrorKind::UnexpectedEnd.at(2)));
        assert_eq!(sub.slice(2), Ok(&[3u8, 4][..]));
        assert_eq!(sub.finish(), Ok(()));
        assert_eq!(reader.array::<3>(), Err(DecodeErrorKind::UnexpectedEnd.at(4)));
        assert_eq!(reader.bytes(1).unwrap(), Bytes::from_static(&[5]));
        assert_eq!(reader.finish(), Err(DecodeErrorKind::TrailingBytes(1).at(5)));
    }

    #[test]
    fn bytes_are_slices_of_the_frame() {
        let frame = Bytes::from(vec![7; 100]);
        let mut reader = Reader::new(&frame);
        reader.array::<10>().unwrap();
        assert_eq!(reader.bytes(50).unwrap().as_ptr(), frame[10..].as_ptr());
    }
}
