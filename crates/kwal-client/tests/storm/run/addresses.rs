//! Names with two addresses, of which the first one leads nowhere.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use kwal_transport::{BoxFuture, Connect, HostPort, Stream, TransportError, memory};

/// Reaches brokers whose names have two addresses each. The first one accepts connections and closes them.
#[derive(Debug)]
pub(super) struct TwoAddresses {
    pub(super) brokers: Arc<dyn Connect>,
    /// How many connections the first addresses have closed.
    pub(super) closed: Arc<AtomicU64>,
}

impl Connect for TwoAddresses {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        self.brokers.connect(to)
    }

    fn addresses<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Vec<SocketAddr>, TransportError>> {
        Box::pin(async { Ok(vec![first(to), SocketAddr::from(([192, 0, 2, 2], to.port))]) })
    }

    fn connect_at<'a>(
        &'a self,
        to: &'a HostPort,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Stream, TransportError>> {
        if address != first(to) {
            return self.brokers.connect(to);
        }
        self.closed.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(memory::pair(1).0) })
    }
}

fn first(to: &HostPort) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], to.port))
}
