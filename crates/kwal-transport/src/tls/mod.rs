//! TLS over any other way to a peer.
//!
//! [`Tls`] is a [`Connect`] over another. It takes rustls' [`ClientConfig`], made by the caller or by a [`TlsBuilder`] from
//! roots and certificates in PEM; see [`with_provider`], and `ring` and `aws_lc_rs` behind their features.

mod builder;
mod stream;

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, ClientConfig,
    pki_types::{ServerName, UnixTime},
};
use tokio_rustls::TlsConnector;
use tracing::debug;

use self::stream::TlsStream;
use crate::{Alert, BoxFuture, Connect, HostPort, Stream, Tcp, TlsError, TransportError};

#[cfg(feature = "tls-aws-lc-rs")]
pub use builder::aws_lc_rs;
#[cfg(feature = "tls-ring")]
pub use builder::ring;
pub use builder::{PemOrigin, TlsBuilder, TlsConfigError, with_provider};
/// The version of rustls whose types are in this module's interface.
pub use rustls;

/// Connects by TLS 1.2 or 1.3 over another way to the peer; [`Tcp`], unless [another](Self::over) is given.
///
/// - The peer's certificate has to be for the host that is connected to: with Kafka the one that the broker advertises.
///   An IP address has to stand in it as an IP address. A dot at the end of a name is passed over, and so is the
///   interface behind an IPv6 address (`%eth0`).
/// - The name goes to the peer in the clear (SNI, RFC 6066 section 3), IP addresses do not.
/// - A failed handshake is [`TransportError::Tls`], which says what is wrong and with whom. With TLS 1.3 a peer refuses a
///   client's certificate, or the lack of one, when the handshake is over for the client: then the first read fails
///   with it, as [`TransportError::within`] the [`std::io::Error`].
/// - What is written goes out in as few TLS records as it fits into, also vectored writes. Flush after writing.
/// - Shutting the stream down tells the peer (`close_notify`). Dropping it does not, as Kafka needs no such word.
///   A peer that closes without it is an error, [`TlsError::Truncated`].
///
/// As with every [`Connect`], who calls limits the time.
///
/// ```
/// use kwal_transport::{Connect, HostPort, Tls, memory::MemoryNetwork, tls::{TlsConfig, rustls::ClientConfig}};
/// use std::sync::Arc;
///
/// # #[derive(Debug, thiserror::Error)]
/// # #[error("the vault is sealed")]
/// # struct Sealed;
/// async fn config_from_the_vault() -> Result<Arc<ClientConfig>, Sealed> {
///     Err(Sealed)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = MemoryNetwork::default();
/// let listener = network.listen("kafka:9093".parse()?)?;
/// // Called for each connection, so certificates can change.
/// let tls = Tls::new(config_from_the_vault).over(network);
/// let error = tls.connect(listener.address()).await.unwrap_err();
/// assert_eq!(error.to_string(), "TLS with kafka:9093 failed");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tls {
    config: Arc<dyn TlsConfig>,
    base: Arc<dyn Connect>,
}

impl Tls {
    /// TLS over TCP.
    pub fn new(config: impl TlsConfig) -> Self {
        Self { config: Arc::new(config), base: Arc::new(Tcp::default()) }
    }

    /// TLS over something else.
    pub fn over(mut self, base: impl Connect) -> Self {
        self.base = Arc::new(base);
        self
    }

    async fn connect_host(&self, to: &HostPort) -> Result<Stream, TransportError> {
        let failed = |source| TransportError::Tls { to: to.clone(), source };
        // What is wrong on this side is found before the peer is bothered.
        let name = server_name(&to.host).map_err(failed)?;
        let config =
            self.config.client_config(to).await.map_err(|source| failed(TlsError::Config { source }))?;
        let client_certificate = config.client_auth_cert_resolver.has_certs();
        let stream = self.base.connect(to).await?;
        let peer = stream.peer().to_owned();
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| failed(in_handshake(error, client_certificate)))?;
        debug!(peer, version = ?stream.get_ref().1.protocol_version(), "TLS");
        Ok(Stream::new(TlsStream::new(stream, to.clone(), client_certificate), peer).encrypted())
    }
}

impl Connect for Tls {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(self.connect_host(to))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("base", &self.base).finish_non_exhaustive()
    }
}

/// Gives the configuration for a connection: one for all (`Arc<ClientConfig>`), the files as they are at the time
/// ([`TlsBuilder`]), or whatever an async function gives.
///
/// It is asked for each new connection, so certificates can change without a restart. The same `Arc` again resumes TLS
/// sessions, a new one begins them anew, which costs a little time.
pub trait TlsConfig: Send + Sync + 'static {
    /// The configuration for a connection to `to`.
    ///
    /// What it fails with becomes the source of [`TlsError::Config`]. It is within the time that connecting may take, and
    /// dropped with it.
    fn client_config<'a>(
        &'a self,
        to: &'a HostPort,
    ) -> BoxFuture<'a, Result<Arc<ClientConfig>, Box<dyn std::error::Error + Send + Sync>>>;
}

impl TlsConfig for Arc<ClientConfig> {
    fn client_config<'a>(
        &'a self,
        _: &'a HostPort,
    ) -> BoxFuture<'a, Result<Self, Box<dyn std::error::Error + Send + Sync>>> {
        Box::pin(async { Ok(Self::clone(self)) })
    }
}

impl<F, R, E> TlsConfig for F
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Result<Arc<ClientConfig>, E>> + Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn client_config<'a>(
        &'a self,
        _: &'a HostPort,
    ) -> BoxFuture<'a, Result<Arc<ClientConfig>, Box<dyn std::error::Error + Send + Sync>>> {
        Box::pin(async { self().await.map_err(Into::into) })
    }
}

/// Whom the certificate has to be for.
fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    // fe80::1%eth0 names an interface of this machine, which is nobody else's business.
    let address = host.split_once('%').map_or(host, |(address, _)| address);
    if let Ok(address) = address.parse::<IpAddr>() {
        return Ok(ServerName::IpAddress(address.into()));
    }
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::InvalidHost { host: host.to_owned() })
}

/// What an error of the handshake means.
fn in_handshake(error: std::io::Error, client_certificate: bool) -> TlsError {
    use std::io::ErrorKind::*;
    match error.kind() {
        // rustls' own come as data, and the end of the stream in its midst as this.
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => TlsError::ClosedInHandshake,
        _ => match error.downcast::<rustls::Error>() {
            Ok(error) => explain(error, client_certificate, true),
            Err(source) => TlsError::Io { source },
        },
    }
}

/// What rustls' error means.
fn explain(error: rustls::Error, client_certificate: bool, handshake: bool) -> TlsError {
    use rustls::Error;
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => TlsError::Alert { alert: Alert(alert.into()), client_certificate },
        Error::PeerIncompatible(_) => TlsError::Incompatible { source: error.into() },
        // A peer that does not speak TLS sends something else, or sends the beginning of the handshake back.
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerSentOversizedRecord
            if handshake =>
        {
            TlsError::NotTls
        }
        error => TlsError::Other { source: error.into() },
    }
}

fn certificate(error: CertificateError) -> TlsError {
    let time = |time: UnixTime| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
    match error {
        CertificateError::UnknownIssuer => TlsError::UnknownIssuer,
        CertificateError::BadSignature => TlsError::BadSignature,
        CertificateError::Expired => TlsError::Expired { not_after: None, now: None },
        CertificateError::ExpiredContext { time: now, not_after } => {
            TlsError::Expired { not_after: time(not_after), now: time(now) }
        }
        CertificateError::NotValidYet => TlsError::NotYetValid { not_before: None, now: None },
        CertificateError::NotValidYetContext { time: now, not_before } => {
            TlsError::NotYetValid { not_before: time(not_before), now: time(now) }
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            TlsError::WrongHost { host: expected.to_str().into_owned(), names: shown(presented) }
        }
        error => TlsError::Certificate { source: rustls::Error::from(error).into() },
    }
}

/// The names without the words that rustls puts around them, as in `DnsName("kafka")`.
fn shown(presented: Vec<String>) -> Vec<String> {
    let bare = |name: String| {
        let inner = ["DnsName(\"", "IpAddress("].iter().find_map(|prefix| name.strip_prefix(prefix));
        match inner {
            Some(inner) => inner.trim_end_matches(['"', ')']).to_owned(),
            None => name,
        }
    };
    presented.into_iter().map(bare).collect()
}

#[cfg(test)]
mod tests;
