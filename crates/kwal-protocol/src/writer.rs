//! Encoding into one frame: small values in one buffer, large ones shared.

use std::{collections::VecDeque, io::IoSlice, iter, ops::Range};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{error::EncodeError, varint};

/// Shared bytes shorter than this are copied: one write of one buffer beats a longer `writev`.
const SPLICE_FROM: usize = 4096;

/// The size of the length in front of a frame.
const PREFIX: usize = 4;

/// What is allocated at first: enough for most messages, an append of a small record included.
const CAPACITY: usize = 512;

/// The bytes that usually follow shared ones: tagged fields, and the next ones of the same message.
const TAIL: usize = 64;

/// An encoder of one message.
///
/// Writing a field cannot fail: the first error is remembered and returned instead of the [`Frame`]. Small
/// values are appended to one buffer; large [`Bytes`] are spliced in without a copy.
#[derive(Debug)]
pub struct Writer {
    /// [`PREFIX`] bytes for the length, then the small values.
    head: BytesMut,
    /// Shared bytes, each with its position in `head`; positions are ascending.
    shared: VecDeque<(usize, Bytes)>,
    shared_len: usize,
    fault: Option<EncodeError>,
}

impl Writer {
    /// Creates an empty body, without the length in front.
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// Creates an empty body with room for so many bytes, a piece if it is going to be copied, and what
    /// usually follows that.
    pub(crate) fn with_room(bytes: usize, piece: &Bytes) -> Self {
        let copied = if piece.len() < SPLICE_FROM { piece.len() } else { 0 };
        Self::with_capacity(PREFIX + bytes + copied + TAIL)
    }

    fn with_capacity(capacity: usize) -> Self {
        let mut head = BytesMut::with_capacity(capacity);
        head.put_slice(&[0; PREFIX]);
        Self { head, shared: VecDeque::new(), shared_len: 0, fault: None }
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.head.capacity()
    }

    /// Returns the number of bytes written, shared ones included.
    pub fn len(&self) -> usize {
        self.head.len() - PREFIX + self.shared_len
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a copy of `bytes`.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.head.put_slice(bytes);
    }

    /// Appends `bytes`: spliced in if they are large, copied if they are small.
    pub fn put_shared(&mut self, bytes: Bytes) {
        self.put_pieces([&bytes]);
    }

    /// Appends pieces one after the other, each as by [`put_shared`](Self::put_shared), and makes room for
    /// all of them and for what may follow at once.
    pub(crate) fn put_pieces<const N: usize>(&mut self, pieces: [&Bytes; N]) {
        let is_small = |piece: &Bytes| piece.len() < SPLICE_FROM;
        let small: usize = pieces.iter().filter(|piece| is_small(piece)).map(|piece| piece.len()).sum();
        self.head.reserve(small + TAIL);
        for piece in pieces {
            if is_small(piece) {
                self.head.put_slice(piece);
            } else {
                self.shared_len += piece.len();
                self.shared.push_back((self.head.len(), piece.clone()));
            }
        }
    }

    /// Appends a piece, with others inserted into it if there are any.
    ///
    /// All are spliced in as they are but for the small ones, as by [`put_shared`](Self::put_shared).
    pub(crate) fn put_with_inserted(&mut self, piece: &Bytes, inserted: Option<&[Inserted]>) {
        match inserted {
            None => self.put_pieces([piece]),
            Some(inserted) => self.put_inserted(piece, inserted),
        }
    }

    fn put_inserted(&mut self, piece: &Bytes, inserted: &[Inserted]) {
        self.shared.reserve(inserted.len() + 1);
        if piece.len() < SPLICE_FROM {
            self.head.reserve(piece.len() + TAIL);
        }
        let mut begin = 0;
        for Inserted { at, bytes } in inserted {
            self.put_part(piece, begin..*at);
            self.put_pieces([bytes]);
            begin = *at;
        }
        self.put_part(piece, begin..piece.len());
    }

    /// Appends a part of some bytes.
    fn put_part(&mut self, bytes: &Bytes, part: Range<usize>) {
        match part.len() {
            ..SPLICE_FROM => self.head.put_slice(&bytes[part]),
            _ => self.put_pieces([&bytes.slice(part)]),
        }
    }

    /// Appends an unsigned varint.
    pub fn put_uvarint(&mut self, value: u32) {
        varint::put_u32(&mut self.head, value);
    }

    /// Appends a tagged field: tag, size, and what `write` appends.
    pub(crate) fn put_tagged(&mut self, tag: u32, write: impl FnOnce(&mut Self)) {
        self.put_uvarint(tag);
        let mut value = Self::new();
        write(&mut value);
        self.fault = self.fault.or(value.fault);
        self.put_length(value.len());
        self.append(value);
    }

    /// Appends a length as an unsigned varint; [`EncodeError::TooLong`] if it does not fit.
    pub(crate) fn put_length(&mut self, len: usize) {
        match u32::try_from(len) {
            Ok(len) => self.put_uvarint(len),
            Err(_) => self.refuse(EncodeError::TooLong(len)),
        }
    }

    /// Remembers the first error; the message is discarded then.
    pub(crate) fn refuse(&mut self, fault: EncodeError) {
        self.fault.get_or_insert(fault);
    }

    /// Returns the encoded bytes, in one piece and without a length in front.
    ///
    /// # Errors
    /// As [`into_frame`](Self::into_frame).
    pub fn into_bytes(self) -> Result<Bytes, EncodeError> {
        let mut frame = self.into_frame()?;
        frame.advance(PREFIX);
        Ok(frame.copy_to_bytes(frame.remaining()))
    }

    /// Returns the encoded bytes as a frame, with its length in front.
    ///
    /// # Errors
    /// The first error of any field; [`EncodeError::TooLong`] above 2 GiB.
    pub fn into_frame(mut self) -> Result<Frame, EncodeError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let len = i32::try_from(self.len()).map_err(|_| EncodeError::TooLong(self.len()))?;
        self.head[..PREFIX].copy_from_slice(&len.to_be_bytes());
        Ok(Frame { head: self.head, shared: self.shared, sent: 0, shared_len: self.shared_len })
    }

    fn append(&mut self, other: Self) {
        let start = self.head.len() - PREFIX;
        self.head.put_slice(&other.head[PREFIX..]);
        self.shared_len += other.shared_len;
        self.shared.extend(other.shared.into_iter().map(|(at, bytes)| (start + at, bytes)));
    }
}

/// Bytes that belong between others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Inserted {
    /// Their position among the others. Positions ascend.
    pub(crate) at: usize,
    pub(crate) bytes: Bytes,
}

impl Inserted {
    /// Returns the pieces of bytes into which others are inserted, in their order.
    pub(crate) fn pieces<'a>(bytes: &'a [u8], inserted: &'a [Self]) -> impl Iterator<Item = &'a [u8]> {
        let begins = iter::once(0).chain(inserted.iter().map(|piece| piece.at));
        let ends = inserted.iter().map(Some).chain(iter::once(None));
        begins.zip(ends).flat_map(|(begin, next)| match next {
            Some(Self { at, bytes: piece }) => [&bytes[begin..*at], piece],
            None => [&bytes[begin..], &[]],
        })
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

/// A complete frame, length included, ready to be sent.
///
/// It is a [`Buf`] whose [`chunks_vectored`](Buf::chunks_vectored) alternates between the small buffer and
/// the shared bytes, so that a vectored write sends it without joining them.
#[derive(Debug)]
pub struct Frame {
    head: BytesMut,
    shared: VecDeque<(usize, Bytes)>,
    /// The number of bytes of `head` that have been sent; sent shared bytes are removed.
    sent: usize,
    shared_len: usize,
}

impl Frame {
    /// The position of the correlation id in a request: after the length, the API key and the version.
    const CORRELATION_ID: usize = 8;

    /// Returns how many pieces it has at most: those of the small buffer, and shared bytes.
    pub fn max_chunks(&self) -> usize {
        2 * self.shared.len() + 1
    }

    /// Writes the correlation id into the header of a request.
    pub(crate) fn set_correlation_id(&mut self, id: i32) {
        if let Some(place) = self.head.get_mut(Self::CORRELATION_ID..Self::CORRELATION_ID + 4) {
            place.copy_from_slice(&id.to_be_bytes());
        }
    }

    /// The part of the head before the next shared bytes.
    fn head_piece(&self) -> &[u8] {
        let end = self.shared.front().map_or(self.head.len(), |(at, _)| *at);
        &self.head[self.sent..end]
    }
}

impl Buf for Frame {
    fn remaining(&self) -> usize {
        self.head.len() - self.sent + self.shared_len
    }

    fn chunk(&self) -> &[u8] {
        match (self.head_piece(), self.shared.front()) {
            ([], Some((_, bytes))) => bytes,
            (piece, _) => piece,
        }
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining(), "cannot advance by {count} of {}", self.remaining());
        while count > 0 {
            let piece = self.head_piece().len();
            if piece > 0 {
                let step = piece.min(count);
                self.sent += step;
                count -= step;
            } else if let Some((_, bytes)) = self.shared.front_mut() {
                let step = bytes.len().min(count);
                bytes.advance(step);
                self.shared_len -= step;
                count -= step;
                if bytes.is_empty() {
                    self.shared.pop_front();
                }
            }
        }
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        let mut at = self.sent;
        let mut push = |piece: &'a [u8]| {
            if !piece.is_empty() && used < out.len() {
                out[used] = IoSlice::new(piece);
                used += 1;
            }
        };
        for (place, bytes) in &self.shared {
            push(&self.head[at..*place]);
            push(bytes);
            at = *place;
        }
        push(&self.head[at..]);
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced() -> Frame {
        let mut writer = Writer::new();
        writer.put_slice(&[1; 10]);
        writer.put_shared(Bytes::from(vec![2; SPLICE_FROM]));
        writer.put_shared(Bytes::from(vec![3; SPLICE_FROM]));
        writer.put_shared(Bytes::from(vec![4; 3]));
        writer.into_frame().unwrap()
    }

    fn expected() -> Vec<u8> {
        let len = 10 + 2 * SPLICE_FROM + 3;
        [&(len as i32).to_be_bytes()[..], &[1; 10], &[2; SPLICE_FROM], &[3; SPLICE_FROM], &[4; 3]].concat()
    }

    #[test]
    fn chunks_are_the_frame_in_order() {
        for step in [1, 7, 14, 4096, 5000, 100_000] {
            let mut frame = spliced();
            let mut out = Vec::new();
            while frame.has_remaining() {
                let chunk = frame.chunk();
                let chunk = &chunk[..chunk.len().min(step)];
                out.extend_from_slice(chunk);
                let len = chunk.len();
                frame.advance(len);
            }
            assert_eq!(out, expected(), "step {step}");
        }
    }

    #[test]
    fn vectored_chunks_form_the_frame() {
        let frame = spliced();
        let mut slices = [IoSlice::new(&[]); 8];
        let used = frame.chunks_vectored(&mut slices);
        assert_eq!((used, frame.max_chunks()), (4, 5));
        assert_eq!(slices[..used].concat_bytes(), expected());
        let mut few = [IoSlice::new(&[]); 2];
        assert_eq!(frame.chunks_vectored(&mut few), 2);
    }

    trait Concat {
        fn concat_bytes(&self) -> Vec<u8>;
    }

    impl Concat for [IoSlice<'_>] {
        fn concat_bytes(&self) -> Vec<u8> {
            self.iter().flat_map(|slice| slice.to_vec()).collect()
        }
    }
}
