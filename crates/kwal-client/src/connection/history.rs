//! What the connections to an address have shown, for later ones to the same address.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
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
    addresses: Mutex<Addresses>,
}

/// What is known of the addresses of the host.
#[derive(Debug, Default)]
struct Addresses {
    /// The one that led to the last connection.
    connected: Option<SocketAddr>,
    /// The last one that led to a connection on which nothing was answered.
    useless: Option<SocketAddr>,
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

    /// Moves the address that led to the last connection to the front: those before it failed then. One that
    /// led to a useless connection goes to the end.
    pub(super) fn sort(&self, addresses: &mut [SocketAddr]) {
        let Addresses { connected, useless } = *self.addresses();
        // It is stable.
        addresses.sort_by_key(|address| match Some(*address) {
            address if address == useless => 2,
            address if address == connected => 0,
            _ => 1,
        });
    }

    pub(super) fn connected(&self, address: SocketAddr) {
        self.addresses().connected = Some(address);
    }

    /// Notes that a connection ended on which nothing had been answered after the handshake.
    pub(super) fn useless(&self, address: SocketAddr) {
        self.addresses().useless = Some(address);
    }

    /// Notes that a request was answered.
    pub(super) fn useful(&self, address: SocketAddr) {
        self.addresses().useless.take_if(|useless| *useless == address);
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
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
        history.useless(address(3));
        assert_eq!(sorted(&history), [1, 2, 4, 3]);
        history.connected(address(2));
        assert_eq!(sorted(&history), [2, 1, 4, 3]);
        history.useful(address(3));
        assert_eq!(sorted(&history), [2, 1, 3, 4]);
        // The name has other addresses by now.
        history.connected(address(9));
        assert_eq!(sorted(&history), [1, 2, 3, 4]);
    }
}
