//! The one place where randomness enters the client.

use std::sync::{Arc, Mutex, PoisonError};

use fastrand::Rng;

/// The client's random number generator. Every user forks its own, so that users do not disturb one another's
/// sequence.
///
/// Without a given seed, that comes from the operating system: clients that start at the same moment have to
/// draw different ids.
///
/// Not for secrets: those come from the operating system.
#[derive(Clone, Debug)]
pub(crate) struct Random(Arc<Mutex<Rng>>);

impl Random {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let seed = seed.or_else(|| {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
        });
        Self(Arc::new(Mutex::new(seed.map_or_else(Rng::new, Rng::with_seed))))
    }

    /// Returns bytes that nobody else has drawn, unless by the same seed.
    pub(crate) fn id(&self) -> [u8; 16] {
        self.fork().u128(..).to_be_bytes()
    }

    pub(crate) fn fork(&self) -> Rng {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fork()
    }
}
