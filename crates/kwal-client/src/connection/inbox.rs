//! The memory that a connection reads into.

use bytes::BytesMut;

/// The bytes that have arrived and are not part of a complete frame yet.
///
/// Small frames share one chunk. A larger one gets an allocation of its own size, so that a response that is
/// kept holds nothing else in memory, and nothing of it is copied. The size is only claimed by the peer: the
/// first allocation is limited by what the peer has sent before.
#[derive(Debug)]
pub(super) struct Inbox {
    bytes: BytesMut,
    /// How many more bytes the next frame or its length needs.
    missing: usize,
    /// The most that is allocated for a frame of which little has arrived.
    credit: usize,
}

/// The capacity that small frames share.
const CHUNK: usize = 16 << 10;
/// What a peer gets by announcing a frame: that of a default fetch, and a little more.
const CREDIT: usize = (1 << 20) + CHUNK;

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: BytesMut::with_capacity(CHUNK), missing: 4, credit: CREDIT }
    }
}

impl Inbox {
    /// Returns the buffer to read into, with some capacity, but never for bytes after the end of a large
    /// frame.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        let arrived = self.bytes.len();
        let whole = arrived + self.missing;
        if whole <= CHUNK {
            if !self.bytes.try_reclaim(CHUNK - arrived) {
                self.move_to(CHUNK);
            }
        } else if self.bytes.capacity() <= CHUNK || arrived == self.bytes.capacity() {
            self.move_to(whole.min(self.credit.max(2 * arrived)));
        }
        &mut self.bytes
    }

    fn move_to(&mut self, capacity: usize) {
        let mut bytes = BytesMut::with_capacity(capacity);
        bytes.extend_from_slice(&self.bytes);
        self.bytes = bytes;
    }

    /// Lets `take` remove the complete frames, and return how many bytes are missing.
    pub(super) fn take<E>(&mut self, take: impl FnOnce(&mut BytesMut) -> Result<usize, E>) -> Result<(), E> {
        let arrived = self.bytes.len();
        self.missing = take(&mut self.bytes)?;
        if self.bytes.len() < arrived {
            // The next ones are not much larger, as a rule.
            self.credit = self.credit.max(2 * arrived);
        }
        if self.bytes.is_empty() && arrived > CHUNK {
            // The allocation is that of the frame.
            self.bytes = BytesMut::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, BufMut, Bytes};

    use super::*;

    /// Reads frames with a length of four bytes. Returns them and the most that was allocated at a time.
    fn read(inbox: &mut Inbox, mut stream: &[u8], at_once: usize) -> (Vec<Bytes>, usize) {
        let (mut frames, mut most) = (Vec::new(), 0);
        while !stream.is_empty() {
            let room = inbox.room();
            most = most.max(room.capacity());
            let len = (room.capacity() - room.len()).min(at_once).min(stream.len());
            assert_ne!(len, 0, "there is always room");
            room.put(&stream[..len]);
            stream = &stream[len..];
            let take = |bytes: &mut BytesMut| {
                loop {
                    let Some(len) = bytes.first_chunk() else { return Ok::<_, ()>(4 - bytes.len()) };
                    let len = u32::from_be_bytes(*len) as usize;
                    if bytes.len() < 4 + len {
                        return Ok(4 + len - bytes.len());
                    }
                    bytes.advance(4);
                    frames.push(bytes.split_to(len).freeze());
                }
            };
            inbox.take(take).unwrap();
        }
        (frames, most)
    }

    fn frame(len: usize) -> Vec<u8> {
        [&(len as u32).to_be_bytes()[..], &vec![len as u8; len]].concat()
    }

    #[test]
    fn frames_arrive_in_pieces_of_any_size() {
        let lens =
            [0, 1, CHUNK - 4, CHUNK - 3, 3, 100_000, 5, CHUNK, 70_000, 70_001, 9, 3_000_000, 2, 3_000_000];
        let stream: Vec<_> = lens.into_iter().flat_map(frame).collect();
        for at_once in [1000, 4096, CHUNK, 1 << 20, usize::MAX] {
            let (frames, _) = read(&mut Inbox::default(), &stream, at_once);
            assert_eq!(frames.iter().map(Bytes::len).collect::<Vec<_>>(), lens, "{at_once}");
            assert!(frames.iter().all(|frame| frame.iter().all(|byte| *byte == frame.len() as u8)));
        }
        let (frames, _) = read(&mut Inbox::default(), &stream[..50_000], 1);
        assert_eq!(frames.len(), 5);
    }

    #[test]
    fn a_large_frame_has_an_allocation_of_its_own_size() {
        let stream = [frame(10), frame(500_000), frame(500_100), frame(20)].concat();
        let mut inbox = Inbox::default();
        let (frames, most) = read(&mut inbox, &stream, usize::MAX);
        assert_eq!(most, 4 + 500_100);
        for large in frames.into_iter().filter(|frame| frame.len() > CHUNK) {
            let whole = large.len();
            // The allocation of a frame that nothing else shares, with the length in front of it.
            let unique = large.try_into_mut().unwrap();
            assert_eq!(unique.capacity(), whole);
        }
    }

    #[test]
    fn memory_grows_with_what_has_arrived() {
        let len: usize = 64 << 20;
        let mut inbox = Inbox::default();
        let (_, most) = read(&mut inbox, &frame(len)[..10], usize::MAX);
        assert!(most <= CHUNK);
        assert_eq!(inbox.room().capacity(), CREDIT, "the frame is only announced");
        let (_, most) = read(&mut inbox, &vec![0; CREDIT - 10], usize::MAX);
        assert_eq!((most, inbox.room().capacity()), (CREDIT, 2 * CREDIT));
        // A peer that has sent such a frame gets room for the next one at once.
        let rest = vec![0; len + 4 - CREDIT];
        let (frames, most) = read(&mut inbox, &rest, 1 << 20);
        assert_eq!((frames.len(), most), (1, len + 4));
        read(&mut inbox, &frame(len + 1000)[..10], usize::MAX);
        assert_eq!(inbox.room().capacity(), len + 1004);
        // But not more than twice of it.
        assert_eq!(inbox.credit, 2 * (len + 4));
    }
}
