//! Taking values off the front of one frame.

use bytes::Bytes;

use crate::{
    error::{DecodeError, DecodeErrorKind},
    varint,
};

/// A cursor over one frame: it cannot panic, cannot overrun, and [`finish`](Self::finish) insists on nothing being left.
///
/// What is read as [`Bytes`] is a slice of the frame, not a copy, and keeps the frame alive.
#[derive(Debug)]
pub struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `frame`.
    pub fn new(frame: &'a Bytes) -> Self {
        Self { frame, at: 0, end: frame.len() }
    }

    /// How many bytes have been read, from the start of the frame.
    pub fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// The next `N` bytes.
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

    /// The next `len` bytes, borrowed: for what is copied anyway.
    pub fn slice(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let start = self.take(len)?;
        Ok(&self.frame[start..start + len])
    }

    /// The next `len` bytes as a slice of the frame; nothing is copied.
    pub fn bytes(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        let start = self.take(len)?;
        Ok(self.frame.slice(start..start + len))
    }

    /// The next `len` bytes as a reader of their own; positions still count from the start of the frame.
    pub fn sub(&mut self, len: usize) -> Result<Self, DecodeError> {
        let start = self.take(len)?;
        Ok(Self { frame: self.frame, at: start, end: start + len })
    }

    /// An unsigned varint, as flexible versions use them for lengths and tags (KIP-482).
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        match varint::get_u32(&self.frame[self.at..self.end]) {
            Ok((value, len)) => {
                self.at += len;
                Ok(value)
            }
            Err(kind) => Err(self.fault(kind)),
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeErrorKind::TrailingBytes`] if anything is left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.fault(DecodeErrorKind::TrailingBytes(left))),
        }
    }

    /// An error at the current position.
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
