//! The one place where randomness enters the client.

use std::sync::{Arc, Mutex, PoisonError};

use fastrand::Rng;

/// The client's random number generator. Every user forks its own, so that users do not disturb one another's
/// sequence.
///
/// Not for secrets: those come from the operating system.
#[derive(Clone, Debug)]
pub(crate) struct Random(Arc<Mutex<Rng>>);

impl Random {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(Arc::new(Mutex::new(seed.map_or_else(Rng::new, Rng::with_seed))))
    }

    pub(crate) fn fork(&self) -> Rng {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fork()
    }
}
