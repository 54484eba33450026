//! Streams through a SOCKS5 proxy.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use fast_socks5::{
    AuthenticationMethod, Socks5Command, SocksError,
    client::{Config, Socks5Stream},
    util::target_addr::TargetAddr,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;

use crate::{
    BoxFuture, Connect, HostPort, InvalidAddress, Socks5Error, Socks5Reply, Stream, Tcp, TransportError,
};

/// Connects through a SOCKS5 proxy (RFC 1928), without a login or with user and password (RFC 1929).
///
/// - Host names are sent to the proxy, which resolves them; IP addresses are sent as addresses.
/// - The proxy is reached by TCP, unless [another transport](Self::over) is given.
/// - Each message is sent in one write, because some proxies reject a request that arrives in pieces.
/// - The error is [`TransportError::Socks5`], which names broker and proxy. It distinguishes a proxy that
///   cannot be reached, a login that is required or rejected, and a broker that the proxy cannot reach.
///
/// User and password are sent in clear text, unless the underlying transport encrypts. The stream is never
/// [encrypted](Stream::is_encrypted), because the proxy can read it. Use TLS over it:
///
/// ```
/// use kwal_transport::{Connect, HostPort, Socks5, Socks5Error, TransportError};
#[cfg_attr(feature = "tls-ring", doc = "use kwal_transport::{Tls, tls};")]
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
/// # let proxy: HostPort = nobody.into();
/// # /*
/// let proxy = "proxy.internal:1080".parse()?;
/// # */
/// let socks5 = Socks5::new(proxy).login("orders", "a secret")?;
#[cfg_attr(
    feature = "tls-ring",
    doc = "let tls = Tls::new(tls::ring().webpki_roots().build()?).over(socks5.clone());"
)]
///
/// let error = socks5.connect(&"kafka.internal:9093".parse()?).await.unwrap_err();
/// let TransportError::Socks5 { source: Socks5Error::Proxy { source }, .. } = error else {
///     panic!("{error}")
/// };
/// assert!(source.is_refused());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Socks5 {
    proxy: HostPort,
    login: Option<(String, String)>,
    base: Arc<dyn Connect>,
}

impl Socks5 {
    /// Connects through the proxy at this address, without a login.
    pub fn new(proxy: HostPort) -> Self {
        Self { proxy, login: None, base: Arc::new(Tcp::default()) }
    }

    /// Sets user and password, for a proxy that requires them.
    ///
    /// # Errors
    /// If one is empty or longer than 255 bytes, which the protocol does not allow.
    pub fn login(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<Self, Socks5Error> {
        let (user, password) = (user.into(), password.into());
        for (field, len) in [("user", user.len()), ("password", password.len())] {
            if !(1..=255).contains(&len) {
                return Err(Socks5Error::InvalidLogin { field, len });
            }
        }
        self.login = Some((user, password));
        Ok(self)
    }

    /// Uses another transport to the proxy than TCP.
    pub fn over(mut self, base: impl Connect) -> Self {
        self.base = Arc::new(base);
        self
    }

    /// Returns the address of the proxy.
    pub fn proxy(&self) -> &HostPort {
        &self.proxy
    }

    async fn connect_host(&self, to: &HostPort) -> Result<Stream, TransportError> {
        if to.host.is_empty() {
            return Err(InvalidAddress::no_host(to).into());
        }
        let failed = |source| TransportError::Socks5 { to: to.clone(), proxy: self.proxy.clone(), source };
        let target = match to.host.parse::<IpAddr>() {
            Ok(address) => TargetAddr::Ip(SocketAddr::new(address, to.port)),
            Err(_) if to.host.len() > 255 => {
                return Err(failed(Socks5Error::HostTooLong { len: to.host.len() }));
            }
            Err(_) => TargetAddr::Domain(to.host.clone(), to.port),
        };
        let stream = self
            .base
            .connect(&self.proxy)
            .await
            .map_err(|source| failed(Socks5Error::Proxy { source: Box::new(source) }))?;
        let peer = format!("{to} through {}", stream.peer());
        let mut exchange = Exchange { stream, unsent: Vec::new(), messages: 0, reply: None };
        self.exchange(&mut exchange, target).await.map_err(failed)?;
        debug!(peer, "connected");
        Ok(Stream::new(exchange.stream, peer))
    }

    async fn exchange(&self, exchange: &mut Exchange, target: TargetAddr) -> Result<(), Socks5Error> {
        let login = self.login.clone();
        let login = login.map(|(username, password)| AuthenticationMethod::Password { username, password });
        let mut socks = match Socks5Stream::use_stream(&mut *exchange, login, Config::default()).await {
            Ok(socks) => socks,
            Err(error) => {
                let stage = match exchange.messages {
                    0 | 1 => "during the greeting",
                    _ => "during the login",
                };
                return Err(self.explain(error, stage));
            }
        };
        socks.get_socket_mut().reply = Some(Reply::default());
        match socks.request(Socks5Command::TCPConnect, target).await {
            Ok(_) => Ok(()),
            Err(error) => Err(match exchange.reply.as_ref().and_then(Reply::refusal) {
                Some(reply) => Socks5Error::Refused { reply },
                None => self.explain(error, "during the connect request"),
            }),
        }
    }

    fn explain(&self, error: SocksError, stage: &'static str) -> Socks5Error {
        match error {
            SocksError::UnsupportedSocksVersion(version) => Socks5Error::NotSocks5 { version },
            SocksError::AuthMethodUnacceptable(method) => match (method.first(), &self.login) {
                (Some(0xff) | None, None) => Socks5Error::LoginRequired,
                (Some(0xff) | None, Some(_)) => Socks5Error::NoCommonMethod,
                (Some(&method), _) => Socks5Error::UnknownMethod { method },
            },
            // The proxy requires a login although none was offered, or rejects it.
            SocksError::AuthenticationRejected(_) if self.login.is_none() => Socks5Error::LoginRequired,
            SocksError::AuthenticationRejected(_) => Socks5Error::LoginRefused,
            error => match into_io(error) {
                Some(source) => match source.kind() {
                    io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe => Socks5Error::Closed { stage },
                    _ => Socks5Error::Io { stage, source },
                },
                None => Socks5Error::Malformed { stage },
            },
        }
    }
}

impl Connect for Socks5 {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(self.connect_host(to))
    }
}

/// Omits user and password.
impl fmt::Debug for Socks5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socks5")
            .field("proxy", &self.proxy)
            .field("login", &self.login.is_some())
            .field("base", &self.base)
            .finish()
    }
}

/// The stream during the exchange with the proxy.
///
/// Writes are collected and sent in one piece when a response is read. The reply to the request is checked
/// before fast-socks5 sees it, because fast-socks5 panics on codes that RFC 1928 does not define.
struct Exchange {
    stream: Stream,
    unsent: Vec<u8>,
    /// The number of messages sent.
    messages: usize,
    /// Whether the next response is the reply to the request.
    reply: Option<Reply>,
}

/// The start of the reply: version and code.
#[derive(Default)]
struct Reply {
    heard: Vec<u8>,
}

impl Reply {
    fn hear(&mut self, bytes: &[u8]) {
        self.heard.extend(bytes.iter().take(2 - self.heard.len()));
    }

    fn refusal(&self) -> Option<Socks5Reply> {
        match *self.heard {
            [5, code] if code != 0 => Some(Socks5Reply(code)),
            _ => None,
        }
    }
}

impl Exchange {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.drain(..written);
        }
        self.messages += 1;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Exchange {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Some(reply) = &mut self.reply {
            reply.hear(&buf.filled()[before..]);
            if reply.refusal().is_some() {
                return Poll::Ready(Err(io::ErrorKind::Other.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Exchange {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.unsent.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Returns the error of the underlying stream, if it is one.
fn into_io(error: SocksError) -> Option<io::Error> {
    use fast_socks5::util::target_addr::AddrError::*;
    match error {
        SocksError::Io(error)
        | SocksError::AddrError(
            IPv4Unreadable(error)
            | IPv6Unreadable(error)
            | PortNumberUnreadable(error)
            | DomainLenUnreadable(error)
            | DomainContentUnreadable(error),
        ) => Some(error),
        SocksError::Other(error) => error.downcast().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
