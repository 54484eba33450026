//! The memory that decompression works with, lent to one reader at a time.

use std::{
    mem,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kwal_protocol::compression::Decompressor;

/// So many are kept. More readers than that at a time make their own.
const MOST: usize = 4;

/// Decompressors that nobody uses.
#[derive(Debug, Default)]
pub(crate) struct Decompressors(Mutex<Vec<Decompressor>>);

impl Decompressors {
    /// Lends one, that of an earlier reader if there is one.
    pub(crate) fn lend(self: &Arc<Self>) -> LentDecompressor {
        let decompressor = self.idle().pop().unwrap_or_default();
        LentDecompressor { decompressor, owner: Arc::clone(self) }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Decompressor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A decompressor that is given back on drop.
#[derive(Debug)]
pub(crate) struct LentDecompressor {
    decompressor: Decompressor,
    owner: Arc<Decompressors>,
}

impl Deref for LentDecompressor {
    type Target = Decompressor;

    fn deref(&self) -> &Decompressor {
        &self.decompressor
    }
}

impl DerefMut for LentDecompressor {
    fn deref_mut(&mut self) -> &mut Decompressor {
        &mut self.decompressor
    }
}

impl Drop for LentDecompressor {
    fn drop(&mut self) {
        let mut idle = self.owner.idle();
        if idle.len() < MOST {
            idle.push(mem::take(&mut self.decompressor));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_kept() {
        let decompressors = Arc::new(Decompressors::default());
        let lent: Vec<_> = (0..2 * MOST).map(|_| decompressors.lend()).collect();
        assert_eq!(decompressors.idle().len(), 0);
        drop(lent);
        assert_eq!(decompressors.idle().len(), MOST);
        let lent = decompressors.lend();
        assert_eq!(decompressors.idle().len(), MOST - 1);
        drop(lent);
        assert_eq!(decompressors.idle().len(), MOST);
    }
}
