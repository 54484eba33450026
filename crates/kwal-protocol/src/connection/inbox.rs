use bytes::{Buf, Bytes, BytesMut};

/// The front of an inbox.
pub(super) enum Input {
    Frame(Bytes),
    Incomplete { missing: usize },
}

/// The largest frame that is copied, so that its response keeps nothing else of the inbox in memory.
const COPIED: usize = 16 << 10;

/// Takes the next `len` bytes off the front of an inbox.
pub(super) fn take_frame(inbox: &mut BytesMut, len: usize) -> Bytes {
    if len > COPIED {
        return inbox.split_to(len).freeze();
    }
    let frame = Bytes::copy_from_slice(&inbox[..len]);
    inbox.advance(len);
    frame
}
