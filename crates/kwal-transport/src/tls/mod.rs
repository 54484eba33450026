//! TLS over any other transport.
//!
//! [`Tls`] is a [`Connect`] over another one. It takes rustls' [`ClientConfig`], made by the caller or by a
//! [`TlsBuilder`] from roots and certificates in PEM; see [`with_provider`], and `ring` and `aws_lc_rs` with
//! their features.

mod builder;
mod stream;

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
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
/// The version of rustls whose types are in the API of this module.
pub use rustls;

/// Connects by TLS 1.2 or 1.3 over another transport; [`Tcp`], unless [another](Self::over) is given.
///
/// - The peer's certificate has to be for the requested host, which in Kafka is the advertised one. An IP
///   address has to be in it as an IP address. A trailing dot of a name is ignored, and so is the interface
///   of an IPv6 address (`%eth0`).
/// - Names are sent in clear text (SNI, RFC 6066 section 3), IP addresses are not.
/// - The error of a failed handshake is [`TransportError::Tls`]. With TLS 1.3 a peer rejects a client
///   certificate, or a missing one, after the client's side of the handshake is complete: then the first read
///   fails with it, as [`TransportError::within`] the [`std::io::Error`].
/// - Data is written in as few TLS records as possible, also by vectored writes. Flush after writing.
/// - Shutting the stream down notifies the peer (`close_notify`). Dropping it does not, because Kafka does
///   not need it. A peer that closes without it causes an error, [`TlsError::Truncated`].
///
/// As with every [`Connect`], the caller limits the time.
///
/// ```
/// use kwal_transport::tls::{TlsConfig, rustls::ClientConfig};
/// use kwal_transport::{Connect, HostPort, Tls, memory::MemoryNetwork};
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
    /// Creates TLS over TCP.
    pub fn new(config: impl TlsConfig) -> Self {
        Self { config: Arc::new(config), base: Arc::new(Tcp::default()) }
    }

    /// Uses another transport than TCP.
    pub fn over(mut self, base: impl Connect) -> Self {
        self.base = Arc::new(base);
        self
    }

    /// Checks the configuration before any connection is opened: see [`TlsConfig::check`].
    ///
    /// # Errors
    /// Whatever has to be changed.
    ///
    /// # Cancellation safety
    /// Cancel safe.
    pub async fn check(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let config = Arc::clone(&self.config);
        tokio::task::spawn_blocking(move || config.check()).await?
    }

    /// Connects to one address of `to`, or to whichever the transport below chooses.
    async fn connect_host(&self, to: &HostPort, at: Option<SocketAddr>) -> Result<Stream, TransportError> {
        let failed = |source| TransportError::Tls { to: to.clone(), source };
        // Errors of this side are detected before connecting.
        let name = server_name(&to.host).map_err(failed)?;
        let config =
            self.config.client_config(to).await.map_err(|source| failed(TlsError::Config { source }))?;
        let client_certificate = config.client_auth_cert_resolver.has_certs();
        let stream = match at {
            Some(address) => self.base.connect_at(to, address).await?,
            None => self.base.connect(to).await?,
        };
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
        Box::pin(self.connect_host(to, None))
    }

    fn addresses<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Vec<SocketAddr>, TransportError>> {
        Box::pin(async move {
            // A name that no certificate can have is the clearer error.
            server_name(&to.host).map_err(|source| TransportError::Tls { to: to.clone(), source })?;
            self.base.addresses(to).await
        })
    }

    fn connect_at<'a>(
        &'a self,
        to: &'a HostPort,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(self.connect_host(to, Some(address)))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("base", &self.base).finish_non_exhaustive()
    }
}

/// Provides the configuration for a connection.
///
/// It can be one for all (`Arc<ClientConfig>`), the current content of files ([`TlsBuilder`]), or the result
/// of an async function. It is requested for each new connection, so certificates can change without a
/// restart. The same `Arc` resumes TLS sessions; a new one starts new sessions, which takes a little longer.
pub trait TlsConfig: Send + Sync + 'static {
    /// Returns the configuration for a connection to `to`.
    ///
    /// Its error becomes the source of [`TlsError::Config`]. Its time counts as part of connecting, and it is
    /// dropped with it.
    fn client_config<'a>(
        &'a self,
        to: &'a HostPort,
    ) -> BoxFuture<'a, Result<Arc<ClientConfig>, Box<dyn std::error::Error + Send + Sync>>>;

    /// Returns why no connection could succeed, before any is opened: a missing file, no roots. It may block,
    /// and contacts nobody.
    ///
    /// A client calls it once, when it is built. Errors after that may pass, as while files are replaced.
    ///
    /// # Errors
    /// Whatever has to be changed. None, unless it is implemented.
    fn check(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }
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

/// Returns the name that the certificate has to be for.
fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    // fe80::1%eth0 names an interface of this machine, which is irrelevant for the peer.
    let address = host.split_once('%').map_or(host, |(address, _)| address);
    if let Ok(address) = address.parse::<IpAddr>() {
        return Ok(ServerName::IpAddress(address.into()));
    }
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::InvalidHost { host: host.to_owned() })
}

/// Converts an error of the handshake.
fn in_handshake(error: std::io::Error, client_certificate: bool) -> TlsError {
    use std::io::ErrorKind::*;
    match error.kind() {
        // rustls returns its own errors as data, and the end of the stream as this kind.
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => TlsError::ClosedInHandshake,
        _ => match error.downcast::<rustls::Error>() {
            Ok(error) => explain(error, client_certificate, true),
            Err(source) => TlsError::Io { source },
        },
    }
}

/// Converts rustls' error.
fn explain(error: rustls::Error, client_certificate: bool, handshake: bool) -> TlsError {
    use rustls::Error;
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => TlsError::Alert { alert: Alert(alert.into()), client_certificate },
        Error::PeerIncompatible(_) => TlsError::Incompatible { source: error.into() },
        // A peer that does not speak TLS sends other data, or echoes the start of the handshake.
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
        error => TlsError::Certificate { source: fault(&error).into() },
    }
}

/// Returns why a certificate of this side cannot be used.
fn reason(error: rustls::Error) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        rustls::Error::InvalidCertificate(error) => fault(&error).into(),
        error => error.into(),
    }
}

/// Returns what is wrong with a certificate and what to do about it.
fn fault(error: &CertificateError) -> Cow<'static, str> {
    Cow::Borrowed(match error {
        CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. } => {
            match WEAK_ALGORITHMS.iter().find(|(id, _)| signature_algorithm_id.starts_with(id)) {
                Some((_, name)) => {
                    let text =
                        format!("it is signed with {name}, which is not secure: issue it again with SHA-256");
                    return text.into();
                }
                None => {
                    "the algorithm of its signature is not supported: issue it again with ECDSA or RSA, and SHA-256"
                }
            }
        }
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the algorithm of its signature is not supported for the key of its CA: issue it again with SHA-256"
        }
        CertificateError::BadSignature => {
            "its signature is wrong, or made with an RSA key of fewer than 2048 bits"
        }
        CertificateError::BadEncoding => "it is damaged",
        CertificateError::Revoked => "it was revoked: renew it",
        CertificateError::UnhandledCriticalExtension => UNKNOWN_EXTENSION,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers: issue it with `serverAuth` in its extended key usage"
        }
        CertificateError::ApplicationVerificationFailure => "the program's own verifier rejected it",
        CertificateError::Other(other) => return other_fault(&other.to_string()),
        error => return format!("it is not valid ({})", first_word(&format!("{error:?}"))).into(),
    })
}

/// The object ids of signature algorithms that are broken (RFC 3279), in DER.
const WEAK_ALGORITHMS: [(&[u8], &str); 3] = [
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", "SHA-1"),
    (b"\x06\x07\x2a\x86\x48\xce\x3d\x04\x01", "SHA-1"),
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", "MD5"),
];

const UNKNOWN_EXTENSION: &str = "it has a critical extension that is not known: issue it again without";

/// Explains what webpki calls by the name of an enum variant, and rustls has no name for.
fn other_fault(name: &str) -> Cow<'static, str> {
    Cow::Borrowed(match name {
        "CaUsedAsEndEntity" => {
            "it is the certificate of a CA (basic constraints CA:TRUE) and not one of a server: issue one with CA:FALSE for the \
             broker, signed by that CA"
        }
        "EndEntityUsedAsCa" => {
            "it was issued by a certificate that is not one of a CA: its basic constraints need CA:TRUE"
        }
        "UnsupportedCertVersion" => {
            "it is of X.509 version 1: issue it as version 3, with the broker's host in its subject alternative names"
        }
        "UnsupportedCriticalExtension" => UNKNOWN_EXTENSION,
        "NameConstraintViolation" => "its CA may not issue certificates for this name (name constraints)",
        "PathLenConstraintViolated" | "MaximumPathDepthExceeded" => "its chain of CAs is longer than allowed",
        name => return format!("it is not valid ({})", first_word(name)).into(),
    })
}

/// Returns the name at the start of a text, without what follows in brackets.
fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default()
}

/// Returns the names without rustls' decoration, as in `DnsName("kafka")`.
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
