//! A lock after which foreign code is called, such as wakers and recorders, which may lock the same again.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::MutexGuard,
};

/// Whose state is locked.
pub(crate) trait Owner {
    /// What is locked.
    type State;

    /// Unlocks the state, then does what is left to be done.
    fn unlock(&self, state: MutexGuard<'_, Self::State>);
}

/// The state, locked.
pub(crate) struct Locked<'a, O: Owner> {
    /// `None` while it is dropped.
    state: Option<MutexGuard<'a, O::State>>,
    owner: &'a O,
}

impl<'a, O: Owner> Locked<'a, O> {
    pub(crate) fn new(owner: &'a O, state: MutexGuard<'a, O::State>) -> Self {
        Self { state: Some(state), owner }
    }
}

impl<O: Owner> Deref for Locked<'_, O> {
    type Target = O::State;

    fn deref(&self) -> &O::State {
        self.state.as_ref().expect("it is locked until it is dropped")
    }
}

impl<O: Owner> DerefMut for Locked<'_, O> {
    fn deref_mut(&mut self) -> &mut O::State {
        self.state.as_mut().expect("it is locked until it is dropped")
    }
}

impl<O: Owner> Drop for Locked<'_, O> {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            self.owner.unlock(state);
        }
    }
}

impl<O: Owner<State: fmt::Debug>> fmt::Debug for Locked<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
