//! Addresses, listeners, and the tasks that accept connections.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, TcpListener as StdListener},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use kwal_transport::{
    HostPort, Stream,
    memory::{self, MemoryNetwork},
};
use tokio::{net::TcpListener, runtime::Handle, task::JoinHandle, time::sleep};

use crate::{
    error::Error,
    serve::{Shared, serve},
};

/// Where brokers listen.
#[derive(Clone, Debug)]
pub(crate) enum Bind {
    /// From this port of 127.0.0.1 on, or at free ports if it is 0.
    Tcp(u16),
    /// At `broker-1:9092`, `broker-2:9092` and so on.
    Memory(MemoryNetwork),
    /// The first at an address, the others at the following ports.
    MemoryAt(MemoryNetwork, HostPort),
}

impl Bind {
    pub(crate) fn network(&self) -> Option<&MemoryNetwork> {
        match self {
            Self::Tcp(_) => None,
            Self::Memory(network) | Self::MemoryAt(network, _) => Some(network),
        }
    }

    /// Listens at the address of a broker.
    pub(crate) fn listen(&self, broker: i32, runtime: &Handle) -> Result<Acceptor, Error> {
        let nth = |first: u16| first.saturating_add(u16::try_from(broker - 1).unwrap_or(u16::MAX));
        let address = match self {
            Self::Tcp(0) => HostPort::new(Ipv4Addr::LOCALHOST.to_string(), 0),
            Self::Tcp(first) => HostPort::new(Ipv4Addr::LOCALHOST.to_string(), nth(*first)),
            Self::Memory(_) => HostPort::new(format!("broker-{broker}"), 9092),
            Self::MemoryAt(_, first) => HostPort::new(first.host.clone(), nth(first.port)),
        };
        self.listen_at(address, runtime)
    }

    /// Listens at an address.
    pub(crate) fn listen_at(&self, at: HostPort, runtime: &Handle) -> Result<Acceptor, Error> {
        if let Some(network) = self.network() {
            return network.listen(at).map(Acceptor::Memory).map_err(Error::ListenInMemory);
        }
        let _within = runtime.enter();
        let listener = StdListener::bind((at.host.as_str(), at.port)).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        listener.map(Acceptor::Tcp).map_err(|source| Error::Listen { at, source })
    }
}

/// Accepts connections at one address.
#[derive(Debug)]
pub(crate) enum Acceptor {
    Tcp(TcpListener),
    Memory(memory::Listener),
}

impl Acceptor {
    pub(crate) fn address(&self) -> Result<HostPort, Error> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(HostPort::from).map_err(|source| {
                Error::Listen { at: HostPort::new(Ipv4Addr::LOCALHOST.to_string(), 0), source }
            }),
            Self::Memory(listener) => Ok(listener.address().clone()),
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                stream.set_nodelay(true)?;
                Poll::Ready(Ok(Stream::new(stream, peer.to_string())))
            }
            // Dropping the future loses no connection.
            Self::Memory(listener) => pin!(listener.accept()).poll(cx).map(Ok),
        }
    }
}

/// The listeners of all brokers.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<BTreeMap<i32, Listener>>);

#[derive(Debug)]
struct Listener {
    address: HostPort,
    accepting: Option<Accepting>,
}

/// A task that accepts connections. Dropping it frees the address at once, before the task has ended.
#[derive(Debug)]
struct Accepting {
    acceptor: Arc<Mutex<Option<Acceptor>>>,
    task: JoinHandle<()>,
}

impl Listeners {
    /// Accepts connections to a broker.
    pub(crate) fn open(
        &self,
        broker: i32,
        address: HostPort,
        acceptor: Acceptor,
        shared: &Arc<Shared>,
        runtime: &Handle,
    ) {
        let acceptor = Arc::new(Mutex::new(Some(acceptor)));
        let task = runtime.spawn(accept_all(Arc::clone(shared), broker, Arc::clone(&acceptor)));
        self.lock().insert(broker, Listener { address, accepting: Some(Accepting { acceptor, task }) });
    }

    /// Refuses connections to a broker.
    pub(crate) fn close(&self, broker: i32) {
        if let Some(listener) = self.lock().get_mut(&broker) {
            listener.accepting = None;
        }
    }

    pub(crate) fn close_all(&self) {
        self.lock().values_mut().for_each(|listener| listener.accepting = None);
    }

    pub(crate) fn remove(&self, broker: i32) {
        self.lock().remove(&broker);
    }

    pub(crate) fn is_open(&self, broker: i32) -> bool {
        self.lock().get(&broker).is_some_and(|listener| listener.accepting.is_some())
    }

    /// Returns the address of each broker, whether it is up or not.
    pub(crate) fn addresses(&self) -> Vec<(i32, HostPort)> {
        self.lock().iter().map(|(broker, listener)| (*broker, listener.address.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.task.abort();
    }
}

async fn accept_all(shared: Arc<Shared>, broker: i32, acceptor: Arc<Mutex<Option<Acceptor>>>) {
    loop {
        shared.until_running(broker).await;
        let accepted =
            std::future::poll_fn(|cx| match &mut *acceptor.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(acceptor) => acceptor.poll_accept(cx).map(Some),
                None => Poll::Ready(None),
            });
        match accepted.await {
            None => return,
            Some(Ok(stream)) => {
                if let Some((id, fault)) = shared.with(|cluster| cluster.open(broker)) {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move { serve(&shared, id, fault, stream).await });
                }
            }
            Some(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot take a connection");
                sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

/// Accepting usually fails because no file descriptors are left.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
