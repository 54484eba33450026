//! In-memory streams, within one process.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{io::duplex, sync::mpsc};

use crate::{BoxFuture, Connect, HostPort, InvalidAddress, Stream, TransportError};

/// Creates the two ends of a connection: bytes written to one are read from the other, in order.
///
/// Each direction buffers up to `buffer` bytes (at least one); a writer waits while the buffer is full. Small
/// buffers cause partial writes and reads. After one end is dropped, the other reads the remaining bytes, and
/// its writes fail with [`BrokenPipe`](std::io::ErrorKind::BrokenPipe).
///
/// ```
/// use kwal_transport::memory;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (mut here, mut there) = memory::pair(1024);
/// here.write_all(b"ping").await?;
/// drop(here);
/// let mut read = Vec::new();
/// there.read_to_end(&mut read).await?;
/// assert_eq!(read, b"ping");
/// # Ok(())
/// # }
/// ```
pub fn pair(buffer: usize) -> (Stream, Stream) {
    named_pair(buffer, "memory", "memory")
}

/// An in-memory network: listeners by address, and a [`Connect`] that reaches them.
///
/// Clones share the network. It behaves like TCP: connecting without a listener is
/// [refused](TransportError::Refused), connections wait in a backlog until they are accepted, and an address
/// has at most one listener. It has no clock, no randomness and no task. Addresses are compared as text:
/// `localhost` and `127.0.0.1` are two hosts.
///
/// ```
/// use kwal_transport::{Connect, HostPort, memory::MemoryNetwork};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = MemoryNetwork::default();
/// let mut listener = network.listen(HostPort::new("broker-1", 9092))?;
///
/// let mut client = network.connect(listener.address()).await?;
/// let mut server = listener.accept().await;
/// client.write_all(b"ping").await?;
/// let mut read = [0; 4];
/// server.read_exact(&mut read).await?;
/// assert_eq!(&read, b"ping");
///
/// assert!(network.connect(&HostPort::new("broker-2", 9092)).await.unwrap_err().is_refused());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryNetwork {
    buffer: usize,
    listeners: Arc<Mutex<Listeners>>,
}

impl MemoryNetwork {
    /// Creates a network whose connections buffer up to `buffer` bytes in each direction, as in [`pair`].
    ///
    /// The default is 64 KiB.
    pub fn with_buffer(buffer: usize) -> Self {
        Self { buffer, listeners: Arc::default() }
    }

    /// Listens at `at` until the [`Listener`] is dropped; port 0 selects a free port.
    ///
    /// # Errors
    /// [`InUse`](TransportError::InUse) while the address has a listener.
    pub fn listen(&self, mut at: HostPort) -> Result<Listener, TransportError> {
        if at.host.is_empty() {
            return Err(InvalidAddress::no_host(&at).into());
        }
        let mut listeners = lock(&self.listeners);
        if at.port == 0 {
            let free = DYNAMIC_PORTS.map(|port| HostPort { host: at.host.clone(), port });
            let Some(address) = free.into_iter().find(|address| !listeners.contains_key(address)) else {
                return Err(TransportError::NoFreePort { host: at.host });
            };
            at = address;
        }
        let Entry::Vacant(place) = listeners.entry(at.clone()) else {
            return Err(TransportError::InUse { at });
        };
        let (knock, arrivals) = mpsc::channel(BACKLOG);
        place.insert(knock);
        drop(listeners);
        Ok(Listener { address: at, arrivals, network: Arc::clone(&self.listeners) })
    }

    async fn connect_listener(&self, to: &HostPort) -> Result<Stream, TransportError> {
        let refused = || TransportError::Refused { to: to.clone() };
        let knock = lock(&self.listeners).get(to).cloned().ok_or_else(refused)?;
        let (client, server) = named_pair(self.buffer, &format!("{to} (memory)"), "memory");
        knock.send(server).await.map_err(|_| refused())?;
        Ok(client)
    }
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self::with_buffer(64 * 1024)
    }
}

impl Connect for MemoryNetwork {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(self.connect_listener(to))
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut addresses: Vec<HostPort> = lock(&self.listeners).keys().cloned().collect();
        addresses.sort();
        f.debug_struct("MemoryNetwork").field("buffer", &self.buffer).field("listeners", &addresses).finish()
    }
}

/// Accepts the connections to one address of a [`MemoryNetwork`].
///
/// Dropping it frees the address and closes the connections that were not accepted; accepted ones stay open.
pub struct Listener {
    address: HostPort,
    arrivals: mpsc::Receiver<Stream>,
    network: Arc<Mutex<Listeners>>,
}

impl Listener {
    /// Returns the address; its port is never 0.
    pub fn address(&self) -> &HostPort {
        &self.address
    }

    /// Waits for the next connection.
    ///
    /// # Cancellation safety
    /// Dropping the future loses no connection.
    pub async fn accept(&mut self) -> Stream {
        match self.arrivals.recv().await {
            Some(stream) => stream,
            // The network holds the sender until this listener is dropped.
            None => pending().await,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        lock(&self.network).remove(&self.address);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The number of connections in the backlog; beyond it, connecting waits.
const BACKLOG: usize = 128;

/// The ephemeral ports of IANA (RFC 6335, section 6).
const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

type Listeners = HashMap<HostPort, mpsc::Sender<Stream>>;

/// Code that holds the lock cannot panic half way through a change, so a poisoned lock is still consistent.
fn lock(listeners: &Mutex<Listeners>) -> MutexGuard<'_, Listeners> {
    listeners.lock().unwrap_or_else(PoisonError::into_inner)
}

fn named_pair(buffer: usize, server: &str, client: &str) -> (Stream, Stream) {
    let (here, there) = duplex(buffer.max(1));
    (Stream::new(here, server), Stream::new(there, client))
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_full_buffer_accepts_a_part_and_then_blocks_writers() {
        for buffer in [0, 1, 5] {
            let (mut here, mut there) = pair(buffer);
            assert!(here.is_write_vectored());
            let held = buffer.max(1);
            assert_eq!(here.write(b"0123456789").await.unwrap(), held);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(pin!(here.write(b"more")).poll(&mut cx).is_pending());

            let mut read = vec![0; held];
            there.read_exact(&mut read).await.unwrap();
            assert_eq!(read, b"0123456789"[..held]);
            assert_eq!(here.write(b"x").await.unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn closing_lets_the_other_end_read_the_rest() {
        let (mut here, there) = pair(16);
        let mut there = there;
        here.write_all(b"last words").await.unwrap();
        drop(here);
        let mut read = Vec::new();
        there.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"last words");
        let error = there.write_all(b"hello?").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn refuses_without_a_listener_and_frees_an_address() {
        let network = MemoryNetwork::default();
        let at = HostPort::new("broker", 9092);
        let error = network.connect(&at).await.unwrap_err();
        assert!(error.is_refused());
        assert_eq!(
            error.to_string(),
            "cannot connect to broker:9092: nothing listens there on the in-memory network"
        );

        let listener = network.listen(at.clone()).unwrap();
        assert!(matches!(network.listen(at.clone()), Err(TransportError::InUse { at: used }) if used == at));
        let mut waiting = network.connect(&at).await.unwrap();
        drop(listener);
        assert_eq!(waiting.read(&mut [0; 1]).await.unwrap(), 0, "closed, as it was never accepted");
        assert!(network.connect(&at).await.unwrap_err().is_refused());

        let mut listener = network.listen(at.clone()).unwrap();
        let _client = network.clone().connect(&at).await.unwrap();
        let mut accepted = listener.accept().await;
        drop(listener);
        accepted.write_all(b"still here").await.unwrap();
    }

    #[tokio::test]
    async fn streams_name_the_requested_address() {
        let network = MemoryNetwork::default();
        let mut listener = network.listen(HostPort::new("::1", 9092)).unwrap();
        let client = network.connect(&HostPort::new("[::1]", 9092)).await.unwrap();
        assert_eq!(client.peer(), "[::1]:9092 (memory)");
        assert_eq!(listener.accept().await.peer(), "memory");
    }

    #[tokio::test]
    async fn port_0_takes_the_lowest_free_port() {
        let network = MemoryNetwork::default();
        let any = HostPort::new("broker", 0);
        let first = network.listen(any.clone()).unwrap();
        assert_eq!(first.address(), &HostPort::new("broker", 49152));
        let second = network.listen(any.clone()).unwrap();
        assert_eq!(second.address().port, 49153);
        drop(first);
        assert_eq!(network.listen(any).unwrap().address().port, 49152);

        assert!(matches!(network.listen(HostPort::new("", 0)), Err(TransportError::InvalidAddress(_))));
    }

    #[tokio::test]
    async fn connecting_waits_for_the_backlog_and_can_be_cancelled() {
        let network = MemoryNetwork::with_buffer(1);
        let mut listener = network.listen(HostPort::new("broker", 9092)).unwrap();
        let at = listener.address().clone();
        let mut clients = Vec::new();
        for _ in 0..BACKLOG {
            clients.push(network.connect(&at).await.unwrap());
        }
        let mut cx = Context::from_waker(Waker::noop());
        let mut waiting = network.connect(&at);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drop(waiting);

        let mut waiting = network.connect(&at);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        listener.accept().await;
        assert!(matches!(waiting.as_mut().poll(&mut cx), Poll::Ready(Ok(_))));
    }
}
