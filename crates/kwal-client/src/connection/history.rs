//! What the connections to an address have shown, for later ones to the same address.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// What the connections to a host and port have shown, for later ones.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Whether the listener has authenticated this client or answered one of its requests.
    admitted: AtomicBool,
    /// Whether a throttle time beyond the limit has been reported.
    long_throttle: AtomicBool,
    /// The address of the host that led to the last connection.
    address: Mutex<Option<SocketAddr>>,
}

impl History {
    pub(super) fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Relaxed)
    }

    pub(super) fn admitted(&self) {
        self.admitted.store(true, Ordering::Relaxed);
    }

    /// Whether this is the first throttle time beyond the limit.
    pub(super) fn is_first_long_throttle(&self) -> bool {
        !self.long_throttle.swap(true, Ordering::Relaxed)
    }

    /// Moves the address that led to the last connection to the front: those before it failed then.
    pub(super) fn sort(&self, addresses: &mut [SocketAddr]) {
        let known = *self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = addresses.iter().position(|address| Some(*address) == known) {
            addresses[..=index].rotate_right(1);
        }
    }

    pub(super) fn connected(&self, address: SocketAddr) {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_worked_comes_first_and_the_others_keep_their_order() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let history = History::default();
        let sorted = |history: &History| {
            let mut addresses = [1, 2, 3, 4].map(address);
            history.sort(&mut addresses);
            addresses.map(|address| address.port())
        };
        assert_eq!(sorted(&history), [1, 2, 3, 4]);
        history.connected(address(3));
        assert_eq!(sorted(&history), [3, 1, 2, 4]);
        // The name has other addresses by now.
        history.connected(address(9));
        assert_eq!(sorted(&history), [1, 2, 3, 4]);
    }
}
