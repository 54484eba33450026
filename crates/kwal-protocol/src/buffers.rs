//! Buffers that are used again: for batches, frames and what is decompressed.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;

/// Large buffers that are used again. Clones share them.
///
/// Memory fresh from the system costs more than the bytes that are copied into it: the system clears each
/// page on its first use. So buffers of 32 KiB and more are kept when nobody needs them any longer, and
/// [lent](Self::lend) again. Smaller ones are allocated and freed as ever.
///
/// ```
/// use kwal_protocol::buffers::Buffers;
///
/// let buffers = Buffers::new(1 << 20);
/// let mut buffer = buffers.lend(100_000);
/// buffer.extend_from_slice(&[7; 100_000]);
/// let bytes = buffers.share(buffer);
/// let slice = bytes.slice(..10);
/// drop(bytes);
/// // The buffer is still in use.
/// assert_eq!((buffers.kept_bytes(), slice.len()), (0, 10));
/// drop(slice);
/// assert!(buffers.kept_bytes() >= 100_000);
/// assert!(buffers.lend(90_000).is_empty());
/// assert_eq!(buffers.kept_bytes(), 0);
/// ```
///
/// # Bounds
/// What is kept and what is shared never exceed the limit together, unless what is shared does so alone: then
/// nothing is kept. At most 256 buffers are kept. The oldest go first. [`sweep`](Self::sweep) frees those
/// that have not been used for a while, and dropping the last clone frees all of them.
///
/// # Shared bytes
/// A buffer comes back when the last slice of its [`Bytes`] is dropped: they own it, so it cannot be lent
/// while any of them is left.
#[derive(Clone)]
pub struct Buffers(Arc<Shared>);

struct Shared {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Empty buffers, the oldest first.
    kept: VecDeque<Kept>,
    /// The sum of their capacities.
    kept_bytes: usize,
    /// The sum of the capacities of buffers that are shared.
    shared_bytes: usize,
    /// The number of sweeps.
    sweeps: u64,
}

struct Kept {
    buffer: Vec<u8>,
    /// The number of sweeps before it was given back.
    since: u64,
}

impl Buffers {
    /// The capacity from which on a buffer is kept.
    pub const SMALLEST: usize = 32 << 10;
    /// So many buffers are kept at most.
    const MOST: usize = 256;

    /// Creates an empty pool with a limit in bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, state: Mutex::default() }))
    }

    /// Returns an empty buffer with at least this capacity: one that is kept, or a new one.
    ///
    /// A new one may have up to an eighth more, so that it also fits other batches of about this size; one
    /// that is kept may have twice as much. If the system does not have the memory, the buffer has none, and
    /// allocates when it is written to.
    pub fn lend(&self, capacity: usize) -> Vec<u8> {
        let capacity = rounded(capacity);
        let freed = if capacity >= Self::SMALLEST {
            let state = &mut *self.0.state();
            if let Some(buffer) = state.take(capacity) {
                return buffer;
            }
            state.evict(self.0.limit.saturating_sub(capacity), Self::MOST)
        } else {
            Vec::new()
        };
        // The memory of those that did not fit is free first.
        drop(freed);
        let mut buffer = Vec::new();
        // An error leaves it empty.
        let _ = buffer.try_reserve_exact(capacity);
        buffer
    }

    /// Returns the content as bytes that own the buffer. It comes back when the last slice is dropped.
    pub fn share(&self, buffer: Vec<u8>) -> Bytes {
        if buffer.capacity() < Self::SMALLEST {
            return Bytes::from(buffer);
        }
        let freed = {
            let state = &mut *self.0.state();
            state.shared_bytes += buffer.capacity();
            state.evict(self.0.limit, Self::MOST)
        };
        drop(freed);
        Bytes::from_owner(Owner { buffer, home: Arc::downgrade(&self.0) })
    }

    /// Returns a copy of `bytes`, in a buffer that comes back when the last slice is dropped.
    pub fn copy(&self, bytes: &[u8]) -> Bytes {
        if bytes.len() < Self::SMALLEST {
            return Bytes::copy_from_slice(bytes);
        }
        let mut buffer = self.lend(bytes.len());
        buffer.extend_from_slice(bytes);
        self.share(buffer)
    }

    /// Takes back a buffer that was not shared, or takes any other one.
    pub fn give_back(&self, buffer: Vec<u8>) {
        if buffer.capacity() < Self::SMALLEST {
            return;
        }
        let freed = self.0.state().keep(buffer, self.0.limit);
        drop(freed);
    }

    /// Frees the buffers that have been kept since the last call. Returns whether any are left, or shared.
    ///
    /// Called once in a while, it gives memory back that is not used any more.
    pub fn sweep(&self) -> bool {
        let (freed, is_used) = {
            let state = &mut *self.0.state();
            let old = state.kept.iter().take_while(|kept| kept.since < state.sweeps).count();
            let freed: Vec<_> = state.kept.drain(..old).collect();
            state.kept_bytes -= freed.iter().map(|kept| kept.buffer.capacity()).sum::<usize>();
            state.sweeps += 1;
            (freed, state.kept_bytes + state.shared_bytes > 0)
        };
        drop(freed);
        is_used
    }

    /// Returns how many bytes the buffers take that nobody uses.
    pub fn kept_bytes(&self) -> usize {
        self.0.state().kept_bytes
    }

    /// Returns how many bytes the buffers take that are shared.
    pub fn shared_bytes(&self) -> usize {
        self.0.state().shared_bytes
    }
}

/// A pool that keeps nothing.
impl Default for Buffers {
    fn default() -> Self {
        Self::new(0)
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { kept_bytes, shared_bytes, .. } = *self.0.state();
        f.debug_struct("Buffers")
            .field("limit", &self.0.limit)
            .field("kept_bytes", &kept_bytes)
            .field("shared_bytes", &shared_bytes)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Removes the smallest buffer that has this capacity and not twice as much; of several, the newest,
    /// whose memory is more likely to be in a cache.
    fn take(&mut self, capacity: usize) -> Option<Vec<u8>> {
        let mut found: Option<(usize, usize)> = None;
        for (index, kept) in self.kept.iter().enumerate().rev() {
            let has = kept.buffer.capacity();
            if has == capacity {
                found = Some((has, index));
                break;
            }
            let fits = has > capacity && has / 2 <= capacity;
            if fits && found.is_none_or(|(least, _)| has < least) {
                found = Some((has, index));
            }
        }
        let (has, index) = found?;
        self.kept_bytes -= has;
        self.kept.remove(index).map(|kept| kept.buffer)
    }

    /// Keeps a buffer as the newest one if the limit allows it. Returns what goes.
    fn keep(&mut self, mut buffer: Vec<u8>, limit: usize) -> Vec<Kept> {
        let (capacity, since) = (buffer.capacity(), self.sweeps);
        if capacity > limit.saturating_sub(self.shared_bytes) {
            return vec![Kept { buffer, since }];
        }
        let freed = self.evict(limit - capacity, Buffers::MOST - 1);
        buffer.clear();
        self.kept_bytes += capacity;
        self.kept.push_back(Kept { buffer, since });
        freed
    }

    /// Removes the oldest until at most `most` are left, and these and what is shared are within `limit`.
    fn evict(&mut self, limit: usize, most: usize) -> Vec<Kept> {
        let mut freed = Vec::new();
        while self.kept.len() > most || self.kept_bytes.saturating_add(self.shared_bytes) > limit {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= oldest.buffer.capacity();
            freed.push(oldest);
        }
        freed
    }
}

/// Owns a buffer that is shared, and gives it back.
struct Owner {
    buffer: Vec<u8>,
    home: Weak<Shared>,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let buffer = mem::take(&mut self.buffer);
        let freed = {
            let state = &mut *home.state();
            state.shared_bytes -= buffer.capacity();
            state.keep(buffer, home.limit)
        };
        drop(freed);
    }
}

/// Rounds a capacity up to one of eight steps between two powers of two. What is small or does not fit into
/// an address space stays as it is.
fn rounded(capacity: usize) -> usize {
    if capacity < Buffers::SMALLEST - Buffers::SMALLEST / 16 {
        return capacity;
    }
    // The leading four bits count.
    let step = 1 << (capacity.ilog2() - 3);
    capacity.checked_next_multiple_of(step).unwrap_or(capacity)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const KIB: usize = 1 << 10;

    #[test]
    fn a_buffer_comes_back_when_the_last_slice_is_dropped() {
        let buffers = Buffers::new(1 << 20);
        let mut buffer = buffers.lend(40 * KIB);
        let (place, capacity) = (buffer.as_ptr(), buffer.capacity());
        buffer.resize(40 * KIB, 7);
        let bytes = buffers.share(buffer);
        assert_eq!((buffers.kept_bytes(), buffers.shared_bytes()), (0, capacity));
        let slices = [bytes.slice(..1), bytes.slice(5_000..)];
        drop(bytes);
        for slice in slices {
            assert_eq!(buffers.kept_bytes(), 0);
            let other = buffers.lend(40 * KIB);
            assert_ne!(other.as_ptr(), place);
            assert!(slice.iter().all(|byte| *byte == 7));
        }
        assert_eq!((buffers.kept_bytes(), buffers.shared_bytes()), (capacity, 0));
        let again = buffers.lend(40 * KIB);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn small_buffers_are_not_kept() {
        let buffers = Buffers::new(1 << 20);
        let small = buffers.lend(20 * KIB);
        assert_eq!(small.capacity(), 20 * KIB);
        drop(buffers.share(small));
        buffers.give_back(vec![0; 20 * KIB]);
        drop(buffers.copy(&[1; 10]));
        assert_eq!((buffers.kept_bytes(), buffers.shared_bytes()), (0, 0));
        drop(buffers.copy(&[1; 32 * KIB]));
        assert_eq!(buffers.kept_bytes(), 32 * KIB);
    }

    #[test]
    fn the_smallest_that_fits_is_lent_and_none_of_twice_the_size() {
        let buffers = Buffers::new(1 << 20);
        for size in [40, 200, 64, 100] {
            buffers.give_back(Vec::with_capacity(size * KIB));
        }
        assert_eq!(buffers.lend(60 * KIB).capacity(), 64 * KIB);
        assert_eq!(buffers.lend(60 * KIB).capacity(), 100 * KIB);
        assert_eq!(buffers.lend(60 * KIB).capacity(), 60 * KIB);
        assert_eq!(buffers.lend(200 * KIB).capacity(), 208 * KIB);
        assert_eq!(buffers.lend(190 * KIB).capacity(), 200 * KIB);
    }

    #[test]
    fn the_oldest_go_first() {
        let buffers = Buffers::new(100 * KIB);
        buffers.give_back(Vec::with_capacity(32 * KIB));
        buffers.give_back(Vec::with_capacity(40 * KIB));
        buffers.give_back(Vec::with_capacity(50 * KIB));
        assert_eq!(buffers.kept_bytes(), 90 * KIB);
        // Too large for what is shared, and for the limit.
        let shared = buffers.share(vec![0; 60 * KIB]);
        assert_eq!(buffers.kept_bytes(), 0);
        buffers.give_back(Vec::with_capacity(50 * KIB));
        assert_eq!(buffers.kept_bytes(), 0);
        buffers.give_back(Vec::with_capacity(40 * KIB));
        assert_eq!(buffers.kept_bytes(), 40 * KIB);
        let more = buffers.share(vec![0; 60 * KIB]);
        assert_eq!((buffers.kept_bytes(), buffers.shared_bytes()), (0, 120 * KIB));
        drop(shared);
        assert_eq!((buffers.kept_bytes(), buffers.shared_bytes()), (0, 60 * KIB));
        drop(more);
        assert_eq!((buffers.kept_bytes(), buffers.shared_bytes()), (60 * KIB, 0));
        // A miss makes room.
        assert_eq!(buffers.lend(90 * KIB).capacity(), 96 * KIB);
        assert_eq!(buffers.kept_bytes(), 0);
    }

    #[test]
    fn the_number_is_limited() {
        let buffers = Buffers::new(usize::MAX);
        for _ in 0..Buffers::MOST + 10 {
            buffers.give_back(Vec::with_capacity(Buffers::SMALLEST));
        }
        assert_eq!(buffers.kept_bytes(), Buffers::MOST * Buffers::SMALLEST);
    }

    #[test]
    fn what_is_not_used_between_two_sweeps_is_freed() {
        let buffers = Buffers::new(1 << 20);
        assert!(!buffers.sweep());
        buffers.give_back(Vec::with_capacity(32 * KIB));
        buffers.give_back(Vec::with_capacity(100 * KIB));
        assert!(buffers.sweep());
        assert_eq!(buffers.kept_bytes(), 132 * KIB);
        drop(buffers.copy(&[0; 32 * KIB]));
        assert!(buffers.sweep());
        assert_eq!(buffers.kept_bytes(), 32 * KIB);
        let shared = buffers.copy(&[0; 32 * KIB]);
        // A slice that is left brings its buffer back later.
        assert!(buffers.sweep() && buffers.sweep());
        drop(shared);
        assert!(buffers.sweep());
        assert!(!buffers.sweep());
        assert_eq!(buffers.kept_bytes(), 0);
    }

    #[test]
    fn bytes_outlive_their_pool() {
        let buffers = Buffers::new(1 << 20);
        let bytes = buffers.copy(&[9; 40 * KIB]);
        drop(buffers);
        assert_eq!(bytes, vec![9; 40 * KIB]);
    }

    #[test]
    fn no_size_is_a_panic() {
        for limit in [0, 1, usize::MAX] {
            let buffers = Buffers::new(limit);
            for capacity in [0, 1, isize::MAX as usize, usize::MAX - 1, usize::MAX] {
                let buffer = buffers.lend(capacity);
                assert!(buffer.is_empty() && (buffer.capacity() >= capacity || capacity > 1));
                buffers.give_back(buffer);
            }
            buffers.give_back(Vec::with_capacity(Buffers::SMALLEST));
            drop(buffers.copy(&[3; Buffers::SMALLEST]));
            assert!(buffers.kept_bytes() <= limit);
            drop(format!("{buffers:?}"));
        }
    }

    #[test]
    fn sizes_are_rounded_by_an_eighth_at_most() {
        for capacity in (0..2_000_000).step_by(1_001) {
            let rounded = rounded(capacity);
            assert!(rounded >= capacity && rounded - capacity <= capacity / 8, "{capacity} {rounded}");
        }
        assert_eq!(rounded(Buffers::SMALLEST - 1), Buffers::SMALLEST);
        assert_eq!((rounded(1 << 20), rounded((1 << 20) + 1)), (1 << 20, 9 << 17));
        assert_eq!(rounded(usize::MAX), usize::MAX);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Lend(usize),
        Write(usize, usize),
        Share(usize),
        Slice(usize),
        DropSlice(usize),
        GiveBack(usize),
        Forget(usize),
        Sweep,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            4 => (0..300 * KIB).prop_map(Op::Lend),
            3 => (any::<usize>(), 0..200 * KIB).prop_map(|(at, len)| Op::Write(at, len)),
            4 => any::<usize>().prop_map(Op::Share),
            3 => any::<usize>().prop_map(Op::Slice),
            5 => any::<usize>().prop_map(Op::DropSlice),
            1 => any::<usize>().prop_map(Op::GiveBack),
            1 => any::<usize>().prop_map(Op::Forget),
            1 => Just(Op::Sweep),
        ];
        proptest::collection::vec(op, 0..120)
    }

    proptest! {
        /// Whatever is done, the bound holds, buffers are empty, and the bytes of a slice never change.
        #[test]
        fn the_bound_holds_and_slices_keep_their_bytes(ops in ops(), limit in 0..1_000 * KIB) {
            let buffers = Buffers::new(limit);
            let (mut lent, mut slices) = (Vec::<Vec<u8>>::new(), Vec::<(Bytes, u8)>::new());
            // The number of slices of each content, and the capacity of its buffer.
            let mut live = BTreeMap::<u8, (usize, usize)>::new();
            let mut next = 0u8;
            let at = |index: usize, len: usize| (len > 0).then(|| index % len);
            for op in ops {
                match op {
                    Op::Lend(capacity) => {
                        let buffer = buffers.lend(capacity);
                        prop_assert!(buffer.is_empty() && buffer.capacity() >= capacity);
                        lent.push(buffer);
                    }
                    Op::Write(index, len) => if let Some(index) = at(index, lent.len()) {
                        lent[index].resize(len, 0);
                    },
                    Op::Share(index) => if let Some(index) = at(index, lent.len()) {
                        let mut buffer = lent.swap_remove(index);
                        next = next.wrapping_add(1);
                        buffer.push(next);
                        buffer.fill(next);
                        live.insert(next, (1, buffer.capacity()));
                        slices.push((buffers.share(buffer), next));
                    },
                    Op::Slice(index) => if let Some(index) = at(index, slices.len()) {
                        let (bytes, content) = slices[index].clone();
                        let cut = bytes.len() / 2;
                        slices.push((bytes.slice(cut..), content));
                        live.get_mut(&content).unwrap().0 += 1;
                    },
                    Op::DropSlice(index) => if let Some(index) = at(index, slices.len()) {
                        let (_, content) = slices.swap_remove(index);
                        let entry = live.get_mut(&content).unwrap();
                        entry.0 -= 1;
                        if entry.0 == 0 {
                            live.remove(&content);
                        }
                    },
                    Op::GiveBack(index) => if let Some(index) = at(index, lent.len()) {
                        buffers.give_back(lent.swap_remove(index));
                    },
                    Op::Forget(index) => if let Some(index) = at(index, lent.len()) {
                        lent.swap_remove(index);
                    },
                    Op::Sweep => {
                        let is_used = buffers.sweep();
                        prop_assert_eq!(is_used, buffers.kept_bytes() + buffers.shared_bytes() > 0);
                    }
                }
                let large = live.values().map(|(_, capacity)| *capacity).filter(|size| *size >= Buffers::SMALLEST);
                let shared: usize = large.sum();
                prop_assert_eq!(buffers.shared_bytes(), shared);
                prop_assert!(buffers.kept_bytes() <= limit.saturating_sub(shared));
                for (bytes, content) in &slices {
                    prop_assert!(bytes.iter().all(|byte| byte == content));
                }
            }
            drop((lent, slices));
            prop_assert_eq!(buffers.shared_bytes(), 0);
            prop_assert!(buffers.kept_bytes() <= limit);
            buffers.sweep();
            prop_assert!(!buffers.sweep());
            prop_assert_eq!(buffers.kept_bytes(), 0);
        }
    }
}
