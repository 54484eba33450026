//! Streams over TCP.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tracing::debug;

use crate::{Attempt, BoxFuture, Connect, HostPort, InvalidAddress, Stream, TransportError};

/// Connects over TCP.
///
/// - `TCP_NODELAY` is set, so that small requests are sent at once.
/// - Keepalive is on, see [`Keepalive`].
/// - A name is resolved for each connection, and its addresses are tried one after the other in the
///   resolver's order. Each but the last is limited by [`address_timeout`](Self::address_timeout). The error
///   lists every address with its reason.
/// - A caller that tries [addresses](Connect::addresses) itself, as a client does, so that one which accepts
///   and then fails is left for the next, has each of several limited in the same way.
///
/// There is no overall time limit: the caller drops the future (a client has one deadline for name,
/// connection and handshake together).
///
/// # Cancellation safety
/// A dropped future closes its socket. A name lookup in progress ends on its own thread, and its result is
/// ignored.
///
/// ```
/// use std::time::Duration;
/// use kwal_transport::{Keepalive, Tcp};
///
/// let tcp = Tcp::default()
///     .keepalive(Keepalive { idle: Duration::from_secs(30), ..Keepalive::default() })
///     .address_timeout(Duration::from_secs(1));
/// assert_ne!(tcp, Tcp::default());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    keepalive: Option<Keepalive>,
    address_timeout: Duration,
}

/// When the system probes a silent peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// The idle time before the first probe. Default: 60 s.
    ///
    /// This is below the idle limits of common firewalls and load balancers (4 minutes and more).
    pub idle: Duration,
    /// The time between probes, where the system has this setting. Default: 15 s.
    ///
    /// The system determines how many unanswered probes close the connection.
    pub interval: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), interval: Duration::from_secs(15) }
    }
}

impl Default for Tcp {
    fn default() -> Self {
        Self { keepalive: Some(Keepalive::default()), address_timeout: Duration::from_secs(2) }
    }
}

impl Tcp {
    /// Sets the keepalive; `None` turns it off.
    ///
    /// Both times are rounded down to seconds, with a minimum of 1 s and a maximum of 32,767 s (nine hours),
    /// which is Linux's.
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.keepalive = keepalive.into();
        self
    }

    /// Sets the time limit for one address while there are others to try. Default: 2 s.
    ///
    /// The last address, which may be the only one, is not limited.
    pub fn address_timeout(mut self, limit: Duration) -> Self {
        self.address_timeout = limit;
        self
    }

    async fn connect_host(&self, to: &HostPort) -> Result<Stream, TransportError> {
        let addresses = self.resolve(to).await?;
        let (stream, address) = self.connect_first(to, &addresses).await?;
        Ok(named(stream, to, address))
    }

    async fn resolve(&self, to: &HostPort) -> Result<Vec<SocketAddr>, TransportError> {
        if to.host.is_empty() {
            return Err(InvalidAddress::no_host(to).into());
        }
        let found = lookup_host((to.host.as_str(), to.port))
            .await
            .map_err(|source| TransportError::Resolve { host: to.host.clone(), source })?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        match addresses.is_empty() {
            true => Err(TransportError::NoAddress { host: to.host.clone() }),
            false => Ok(addresses),
        }
    }

    /// Connects to the first of `addresses` that answers.
    async fn connect_first(
        &self,
        to: &HostPort,
        addresses: &[SocketAddr],
    ) -> Result<(TcpStream, SocketAddr), TransportError> {
        let Some((&last, others)) = addresses.split_last() else {
            return Err(TransportError::NoAddress { host: to.host.clone() });
        };
        let mut attempts = Vec::new();
        let mut failed = |address, error: io::Error| {
            debug!(%to, %address, %error, "address failed");
            attempts.push(Attempt { address, error });
        };
        for &address in others {
            match self.connect_one_of(address).await {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => failed(address, error),
            }
        }
        match self.connect_address(last).await {
            Ok(stream) => Ok((stream, last)),
            Err(error) => {
                failed(last, error);
                Err(TransportError::Connect { to: to.clone(), attempts })
            }
        }
    }

    /// Connects to one of several addresses.
    async fn connect_one_of(&self, address: SocketAddr) -> io::Result<TcpStream> {
        match timeout(self.address_timeout, self.connect_address(address)).await {
            Ok(result) => result,
            Err(_) => {
                let text = format!("no answer within {:?}", self.address_timeout);
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }

    async fn connect_address(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        if let Some(keepalive) = self.keepalive {
            SockRef::from(&stream).set_tcp_keepalive(&keepalive.to_socket())?;
        }
        Ok(stream)
    }
}

impl Connect for Tcp {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(self.connect_host(to))
    }

    fn addresses<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Vec<SocketAddr>, TransportError>> {
        Box::pin(self.resolve(to))
    }

    /// Limited by [`address_timeout`](Self::address_timeout).
    fn connect_at<'a>(
        &'a self,
        to: &'a HostPort,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(async move {
            match self.connect_one_of(address).await {
                Ok(stream) => Ok(named(stream, to, address)),
                Err(error) => {
                    let attempts = vec![Attempt { address, error }];
                    Err(TransportError::Connect { to: to.clone(), attempts })
                }
            }
        })
    }
}

/// Makes the stream that names host and address as its peer.
fn named(stream: TcpStream, to: &HostPort, address: SocketAddr) -> Stream {
    let (name, address) = (to.to_string(), address.to_string());
    let peer = if name == address { name } else { format!("{name} ({address})") };
    debug!(peer, "connected");
    Stream::new(stream, peer)
}

impl Keepalive {
    fn to_socket(self) -> TcpKeepalive {
        // Systems expect whole seconds, and reject 0 and what is too long: on Linux more than nine hours.
        let (second, longest) = (Duration::from_secs(1), Duration::from_secs(i16::MAX as u64));
        let socket = TcpKeepalive::new().with_time(self.idle.clamp(second, longest));
        #[cfg(any(
            target_os = "android",
            target_os = "freebsd",
            target_os = "ios",
            target_os = "linux",
            target_os = "macos",
            target_os = "netbsd",
            target_os = "windows",
        ))]
        let socket = socket.with_interval(self.interval.clamp(second, longest));
        socket
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use tokio::{
        io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn sets_nodelay_and_keepalive() {
        let (_listener, address) = listen("127.0.0.1:0").await;
        let stream = Tcp::default().connect_address(address).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(15));

        let brief = Keepalive { idle: Duration::ZERO, interval: Duration::from_millis(2_900) };
        let stream = Tcp::default().keepalive(brief).connect_address(address).await.unwrap();
        let socket = SockRef::from(&stream);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(1));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(2));

        let longest = Keepalive { idle: Duration::MAX, interval: Duration::MAX };
        let stream = Tcp::default().keepalive(longest).connect_address(address).await.unwrap();
        assert_eq!(SockRef::from(&stream).tcp_keepalive_time().unwrap(), Duration::from_secs(32_767));
        assert_eq!(SockRef::from(&stream).tcp_keepalive_interval().unwrap(), Duration::from_secs(32_767));

        let stream = Tcp::default().keepalive(None).connect_address(address).await.unwrap();
        assert!(!SockRef::from(&stream).keepalive().unwrap());
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn carries_bytes_and_names_its_peer() {
        let (listener, address) = listen("127.0.0.1:0").await;
        let to = HostPort::new("localhost", address.port());
        let mut stream = Tcp::default().connect(&to).await.unwrap();
        assert_eq!(stream.peer(), format!("{to} ({address})"));
        assert!(stream.is_write_vectored());

        let (mut server, _) = listener.accept().await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"ping");
        server.write_all(b"pong").await.unwrap();
        drop(server);
        read.clear();
        stream.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"pong");
    }

    #[tokio::test]
    async fn connects_to_an_ipv6_literal() {
        let (_listener, address) = listen((Ipv6Addr::LOCALHOST, 0)).await;
        let to: HostPort = format!("[::1]:{}", address.port()).parse().unwrap();
        let stream = Tcp::default().connect(&to).await.unwrap();
        assert_eq!(stream.peer(), to.to_string());
    }

    #[tokio::test]
    async fn tries_the_next_address_when_one_refuses() {
        let refusing = free_address().await;
        let (_listener, answering) = listen("127.0.0.1:0").await;
        let to = HostPort::new("kafka", answering.port());
        let (stream, address) = Tcp::default().connect_first(&to, &[refusing, answering]).await.unwrap();
        assert_eq!(address, answering);
        assert_eq!(stream.peer_addr().unwrap(), answering);
    }

    #[cfg(target_os = "linux")] // what a full backlog does is each system's own
    #[tokio::test]
    async fn leaves_a_silent_address_for_the_next() {
        // No connection is accepted and the backlog is full, so further attempts get no answer.
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        silent.listen(0).unwrap();
        let silent_address = silent.local_addr().unwrap().as_socket().unwrap();
        let _waiting = TcpStream::connect(silent_address).await.unwrap();

        let (_listener, answering) = listen("127.0.0.1:0").await;
        let to = HostPort::new("kafka", answering.port());
        let tcp = Tcp::default().address_timeout(Duration::from_millis(50));
        let (_, address) = tcp.connect_first(&to, &[silent_address, answering]).await.unwrap();
        assert_eq!(address, answering);

        let refusing = free_address().await;
        let error = tcp.connect_first(&to, &[silent_address, refusing]).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("{silent_address}: no answer within 50ms; {refusing}: ")), "{text}");
        assert!(!error.is_refused());
    }

    #[tokio::test]
    async fn each_address_of_a_name_can_be_connected_to_by_itself() {
        let (_listener, answering) = listen("127.0.0.1:0").await;
        let to = HostPort::new("localhost", answering.port());
        let addresses = Tcp::default().addresses(&to).await.unwrap();
        assert!(addresses.contains(&answering), "{addresses:?}");
        let stream = Tcp::default().connect_at(&to, answering).await.unwrap();
        assert_eq!(stream.peer(), format!("{to} ({answering})"));
        let refusing = free_address().await;
        let error = Tcp::default().connect_at(&to, refusing).await.unwrap_err();
        assert!(error.is_refused() && error.to_string().contains(&refusing.to_string()), "{error}");

        let impossible = HostPort::new("x".repeat(64), 9092);
        let error = Tcp::default().addresses(&impossible).await.unwrap_err();
        assert!(matches!(error, TransportError::Resolve { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn lists_every_address_that_failed() {
        let addresses = [free_address().await, free_address().await];
        let to = HostPort::new("kafka", 9092);
        let error = Tcp::default().connect_first(&to, &addresses).await.unwrap_err();
        assert!(error.is_refused(), "{error}");
        let TransportError::Connect { to: said, attempts } = &error else { panic!("{error:?}") };
        assert_eq!(*said, to);
        assert_eq!(attempts.iter().map(|attempt| attempt.address).collect::<Vec<_>>(), addresses);
        for address in addresses {
            assert!(error.to_string().contains(&address.to_string()), "{error}");
        }
    }

    #[tokio::test]
    async fn an_unknown_name_differs_from_a_refused_connection() {
        // Too long for a label, so no name server is queried.
        let impossible = HostPort::new("x".repeat(64), 9092);
        let error = Tcp::default().connect(&impossible).await.unwrap_err();
        assert!(matches!(&error, TransportError::Resolve { host, .. } if *host == impossible.host));
        assert!(!error.is_refused());

        let error = Tcp::default().connect(&free_address().await.into()).await.unwrap_err();
        assert!(error.is_refused(), "{error}");

        let error = Tcp::default().connect(&HostPort::new("", 9092)).await.unwrap_err();
        assert!(matches!(error, TransportError::InvalidAddress(_)), "{error:?}");

        let error = Tcp::default().connect_first(&HostPort::new("kafka", 9092), &[]).await.unwrap_err();
        assert!(matches!(error, TransportError::NoAddress { .. }), "{error:?}");
    }

    async fn listen(address: impl tokio::net::ToSocketAddrs) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address where nothing listens.
    async fn free_address() -> SocketAddr {
        listen("127.0.0.1:0").await.1
    }
}
