use std::{error, fmt, fs, io, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

use super::TlsConfig;
use crate::{BoxFuture, HostPort};

/// Starts a configuration with the given crypto provider.
///
/// ```
/// use kwal_transport::tls;
/// # fn provider() -> tls::rustls::crypto::CryptoProvider { rustls::crypto::ring::default_provider() }
/// let error = tls::with_provider(provider()).roots_pem("no PEM at all").build().unwrap_err();
/// let text = error.to_string();
/// assert!(text.starts_with("the PEM of the roots (given in memory) contains no certificate"), "{text}");
/// ```
pub fn with_provider(provider: impl Into<Arc<CryptoProvider>>) -> TlsBuilder {
    TlsBuilder { provider: provider.into(), roots: Vec::new(), client: None }
}

/// Starts a configuration with the crypto provider *ring*.
///
/// ```
/// use kwal_transport::{Tls, tls};
///
/// let tls = Tls::new(tls::ring().webpki_roots().build()?);
/// # Ok::<(), tls::TlsConfigError>(())
/// ```
#[cfg(feature = "tls-ring")]
pub fn ring() -> TlsBuilder {
    with_provider(rustls::crypto::ring::default_provider())
}

/// Starts a configuration with the crypto provider AWS-LC.
///
/// ```
/// use kwal_transport::{Tls, tls};
///
/// let tls = Tls::new(tls::aws_lc_rs().webpki_roots().build()?);
/// # Ok::<(), tls::TlsConfigError>(())
/// ```
#[cfg(feature = "tls-aws-lc-rs")]
pub fn aws_lc_rs() -> TlsBuilder {
    with_provider(rustls::crypto::aws_lc_rs::default_provider())
}

/// Builds a [`ClientConfig`] from roots and, for brokers that require it, a client certificate (mTLS).
///
/// Roots are added to each other. Files are read by [`build`](Self::build). Used as a [`TlsConfig`] itself,
/// it builds a configuration for each connection, so that certificates renewed on disk are used without a
/// restart.
///
#[cfg_attr(feature = "tls-ring", doc = "```")]
#[cfg_attr(not(feature = "tls-ring"), doc = "```ignore")]
/// use kwal_transport::{Tls, tls};
///
/// # mod tls_files {
/// #     use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
/// #     pub(super) fn write() -> (std::path::PathBuf, std::path::PathBuf) {
/// #         let mut params = CertificateParams::default();
/// #         params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
/// #         let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
/// #         let key = KeyPair::generate().unwrap();
/// #         let client = CertificateParams::new(["orders".to_owned()]).unwrap();
/// #         let client = client.signed_by(&key, &ca).unwrap();
/// #         let at = std::env::temp_dir().join(format!("kwal-tls-doc-{}", std::process::id()));
/// #         std::fs::create_dir_all(&at).unwrap();
/// #         std::fs::write(at.join("ca.pem"), ca.pem()).unwrap();
/// #         std::fs::write(at.join("client.pem"), client.pem() + &key.serialize_pem()).unwrap();
/// #         (at.join("ca.pem"), at.join("client.pem"))
/// #     }
/// # }
/// # let (ca, client) = tls_files::write();
/// // The PEM of the client contains its certificate and its key.
/// let builder = tls::ring().roots_pem_file(&ca).client_pem_files(&client, &client);
///
/// let once = Tls::new(builder.build()?); // fails now if a file is invalid
/// let each_time = Tls::new(builder);     // reads the files for each connection
///
/// let error = tls::ring().roots_pem_file("/nowhere/ca.pem").build().unwrap_err();
/// let text = "the roots cannot be read from /nowhere/ca.pem: check the path given to `roots_pem_file`";
/// assert_eq!(error.to_string(), text);
/// # Ok::<(), tls::TlsConfigError>(())
/// ```
#[derive(Clone)]
#[must_use = "nothing happens until it is built"]
pub struct TlsBuilder {
    provider: Arc<CryptoProvider>,
    roots: Vec<Roots>,
    client: Option<(Pem, Pem)>,
}

impl TlsBuilder {
    /// Trusts the CAs of Mozilla, as of the version of the crate `webpki-roots`.
    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
    pub fn webpki_roots(mut self) -> Self {
        self.roots.push(Roots::WebPki);
        self
    }

    /// Trusts the CAs of this machine: the system's store, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
    pub fn platform_roots(mut self) -> Self {
        self.roots.push(Roots::Platform);
        self
    }

    /// Trusts the CAs whose certificates are in this PEM, at least one.
    pub fn roots_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(Roots::Pem(Pem::Given(pem.into())));
        self
    }

    /// Trusts the CAs whose certificates are in this PEM file.
    pub fn roots_pem_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.roots.push(Roots::Pem(Pem::File(path.into())));
        self
    }

    /// Presents this certificate to brokers that request one (mTLS).
    ///
    /// `chain` is the certificate followed by those of the CAs between it and a root. `key` is its private
    /// key, unencrypted, in PKCS #8, PKCS #1 or SEC 1. Both may be the same text: other sections are ignored.
    pub fn client_pem(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.client = Some((Pem::Given(chain.into()), Pem::Given(key.into())));
        self
    }

    /// The same with files; both may be the same file.
    pub fn client_pem_files(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client = Some((Pem::File(chain.into()), Pem::File(key.into())));
        self
    }

    /// Reads the files and builds the configuration.
    ///
    /// # Errors
    /// If there are no roots, or a file or its content is invalid.
    pub fn build(&self) -> Result<Arc<ClientConfig>, TlsConfigError> {
        let mut roots = RootCertStore::empty();
        for source in &self.roots {
            source.add_to(&mut roots)?;
        }
        if roots.is_empty() {
            return Err(TlsConfigError::NoRoots);
        }
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsConfigError::Provider { source })?
            .with_root_certificates(roots);
        let Some((chain, key)) = &self.client else {
            return Ok(Arc::new(config.with_no_client_auth()));
        };
        let certificates = chain.certificates("the client certificate")?;
        let client = config.with_client_auth_cert(certificates, key.private_key()?);
        client.map(Arc::new).map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => {
                TlsConfigError::KeyMismatch { chain: chain.origin(), key: key.origin() }
            }
            error => TlsConfigError::Client {
                chain: chain.origin(),
                key: key.origin(),
                source: super::reason(error),
            },
        })
    }
}

impl TlsConfig for TlsBuilder {
    fn check(&self) -> Result<(), Box<dyn error::Error + Send + Sync>> {
        self.build()?;
        Ok(())
    }

    fn client_config<'a>(
        &'a self,
        _: &'a HostPort,
    ) -> BoxFuture<'a, Result<Arc<ClientConfig>, Box<dyn error::Error + Send + Sync>>> {
        let this = self.clone();
        Box::pin(async { Ok(tokio::task::spawn_blocking(move || this.build()).await??) })
    }
}

/// Omits the content of the PEMs.
impl fmt::Debug for TlsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = self.client.as_ref().map(|(chain, key)| (chain.origin(), key.origin()));
        f.debug_struct("TlsBuilder")
            .field("roots", &self.roots)
            .field("client", &client)
            .finish_non_exhaustive()
    }
}

/// The reason why a configuration is invalid. It contains no secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// No roots are configured, so no certificate could be accepted.
    #[error(
        "no roots are configured, so no certificate could be accepted: add the CA of the brokers by `roots_pem_file`, or public \
         ones by `platform_roots` or `webpki_roots`"
    )]
    NoRoots,
    /// A file cannot be read.
    #[error("{what} cannot be read from {}: check the path given to {}", .path.display(), Call(.what, true))]
    Read {
        /// The expected content.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The IO error.
        source: io::Error,
    },
    /// A PEM is malformed.
    #[error("the PEM of {what} ({origin}) is damaged: check what is given to {}", .origin.call(.what))]
    Pem {
        /// The expected content.
        what: &'static str,
        /// The origin of the PEM.
        origin: PemOrigin,
    },
    /// A PEM contains no certificate.
    #[error("the PEM of {what} ({origin}) contains no certificate: check what is given to {}", .origin.call(.what))]
    NoCertificate {
        /// The expected content.
        what: &'static str,
        /// The origin of the PEM.
        origin: PemOrigin,
    },
    /// A root is not a usable certificate.
    #[error("certificate {number} of the roots ({origin}) cannot be used")]
    BadRoot {
        /// Its index in the PEM, starting at 1.
        number: usize,
        /// The origin of the PEM.
        origin: PemOrigin,
        /// The reason.
        source: Box<dyn error::Error + Send + Sync>,
    },
    /// The system's store has no usable certificates.
    #[error("the system has no trusted certificates{}: install them (on Debian the package ca-certificates), or name a file by SSL_CERT_FILE", Problems(.problems))]
    NoPlatformRoots {
        /// The errors of loading it.
        problems: Vec<String>,
    },
    /// A PEM contains no private key.
    #[error("the PEM of the client's key ({origin}) contains no private key in PKCS #8, PKCS #1 or SEC 1: check what is given to {}", .origin.call(CLIENT_KEY))]
    NoKey {
        /// The origin of the PEM.
        origin: PemOrigin,
    },
    /// The private key is encrypted.
    #[error("the client's key ({origin}) is encrypted: decrypt it first, for example by `openssl pkey`")]
    EncryptedKey {
        /// The origin of the PEM.
        origin: PemOrigin,
    },
    /// The private key belongs to another certificate.
    #[error(
        "the client's key ({key}) does not belong to the client certificate ({chain}), which has to be the first of its PEM"
    )]
    KeyMismatch {
        /// The origin of the certificate.
        chain: PemOrigin,
        /// The origin of the key.
        key: PemOrigin,
    },
    /// The certificate or the key cannot be used.
    #[error("the client certificate ({chain}) and its key ({key}) cannot be used")]
    Client {
        /// The origin of the certificate.
        chain: PemOrigin,
        /// The origin of the key.
        key: PemOrigin,
        /// The reason.
        source: Box<dyn error::Error + Send + Sync>,
    },
    /// The crypto provider lacks a required feature.
    #[error("the crypto provider cannot be used for TLS 1.2 and 1.3")]
    Provider {
        /// The error.
        source: rustls::Error,
    },
}

/// The origin of a PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PemOrigin {
    /// A file.
    File(PathBuf),
    /// The program's memory.
    Memory,
}

const ROOTS: &str = "the roots";
const CLIENT_KEY: &str = "the client's key";

/// The method that a PEM was given to, by what the PEM is and whether it is a file.
struct Call<'a>(&'a str, bool);

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.0 == ROOTS, self.1) {
            (true, true) => "`roots_pem_file`",
            (true, false) => "`roots_pem`",
            (false, true) => "`client_pem_files`",
            (false, false) => "`client_pem`",
        })
    }
}

impl PemOrigin {
    fn call<'a>(&self, what: &'a str) -> Call<'a> {
        Call(what, matches!(self, Self::File(_)))
    }
}

impl fmt::Display for PemOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Memory => f.write_str("given in memory"),
        }
    }
}

#[derive(Clone)]
enum Roots {
    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
    WebPki,
    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
    Platform,
    Pem(Pem),
}

impl Roots {
    fn add_to(&self, roots: &mut RootCertStore) -> Result<(), TlsConfigError> {
        match self {
            #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
            Self::WebPki => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
            Self::Platform => {
                let found = rustls_native_certs::load_native_certs();
                // Stores contain odd certificates; an unreadable one must not exclude the others.
                let (added, _) = roots.add_parsable_certificates(found.certs);
                if added == 0 {
                    let problems = found.errors.iter().map(ToString::to_string).collect();
                    return Err(TlsConfigError::NoPlatformRoots { problems });
                }
            }
            Self::Pem(pem) => {
                for (i, certificate) in pem.certificates(ROOTS)?.into_iter().enumerate() {
                    roots.add(certificate).map_err(|error| TlsConfigError::BadRoot {
                        number: i + 1,
                        origin: pem.origin(),
                        source: super::reason(error),
                    })?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
            Self::WebPki => f.write_str("WebPki"),
            #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
            Self::Platform => f.write_str("Platform"),
            Self::Pem(pem) => pem.origin().fmt(f),
        }
    }
}

/// A text that may contain a private key, so it has no `Debug`.
#[derive(Clone)]
enum Pem {
    Given(Vec<u8>),
    File(PathBuf),
}

impl Pem {
    fn origin(&self) -> PemOrigin {
        match self {
            Self::Given(_) => PemOrigin::Memory,
            Self::File(path) => PemOrigin::File(path.clone()),
        }
    }

    fn text(&self, what: &'static str) -> Result<Vec<u8>, TlsConfigError> {
        match self {
            Self::Given(text) => Ok(text.clone()),
            Self::File(path) => {
                fs::read(path).map_err(|source| TlsConfigError::Read { what, path: path.clone(), source })
            }
        }
    }

    fn certificates(&self, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.text(what)?).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                Err(TlsConfigError::NoCertificate { what, origin: self.origin() })
            }
            Ok(certificates) => Ok(certificates),
            Err(_) => Err(TlsConfigError::Pem { what, origin: self.origin() }),
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
        let what = CLIENT_KEY;
        let text = self.text(what)?;
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
            // PKCS #8, or OpenSSL's older form (RFC 1421), whose content is unreadable.
            _ if contains(&text, b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
                || contains(&text, b"Proc-Type: 4,ENCRYPTED") =>
            {
                TlsConfigError::EncryptedKey { origin: self.origin() }
            }
            pem::Error::NoItemsFound => TlsConfigError::NoKey { origin: self.origin() },
            // The error may quote the text.
            _ => TlsConfigError::Pem { what, origin: self.origin() },
        })
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

struct Problems<'a>(&'a [String]);

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", self.0.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use base64::{Engine, engine::general_purpose::STANDARD};
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::tls::tests::{Ca, provider};

    #[test]
    fn errors_of_a_pem_are_described() {
        let ca = Ca::new();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["orders".to_owned()]).unwrap().signed_by(&key, &ca.issuer).unwrap();
        let (root, chain, key) = (ca.issuer.pem(), certificate.pem(), key.serialize_pem());
        let none = || with_provider(provider());
        let roots = || none().roots_pem(root.clone());
        roots().build().unwrap();
        roots().client_pem(chain.clone(), key.clone()).build().unwrap();
        roots().client_pem(key.clone() + &chain, chain.clone() + &key).build().unwrap();

        let other = KeyPair::generate().unwrap().serialize_pem();
        let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        let bad_root = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = &chain[..chain.len() - 30];
        for (builder, text) in [
            (
                none(),
                "no roots are configured, so no certificate could be accepted: add the CA of the brokers by `roots_pem_file`, or \
                 public ones by `platform_roots` or `webpki_roots`",
            ),
            (
                none().roots_pem(""),
                "the PEM of the roots (given in memory) contains no certificate: check what is given to `roots_pem`",
            ),
            (
                none().roots_pem(key.clone()),
                "the PEM of the roots (given in memory) contains no certificate: check what is given to `roots_pem`",
            ),
            (
                none().roots_pem(cut),
                "the PEM of the roots (given in memory) is damaged: check what is given to `roots_pem`",
            ),
            (
                roots().roots_pem(root.clone() + bad_root),
                "certificate 2 of the roots (given in memory) cannot be used",
            ),
            (
                roots().client_pem(key.clone(), key.clone()),
                "the PEM of the client certificate (given in memory) contains no certificate: check what is given to `client_pem`",
            ),
            (
                roots().client_pem(chain.clone(), chain.clone()),
                "the PEM of the client's key (given in memory) contains no private key in PKCS #8, PKCS #1 or SEC 1: check what is given to `client_pem`",
            ),
            (
                roots().client_pem(chain.clone(), &key[..100]),
                "the PEM of the client's key (given in memory) is damaged: check what is given to `client_pem`",
            ),
            (
                roots().client_pem(chain.clone(), encrypted),
                "the client's key (given in memory) is encrypted: decrypt it first, for example by `openssl pkey`",
            ),
            (
                roots().client_pem(chain.clone(), older),
                "the client's key (given in memory) is encrypted: decrypt it first, for example by `openssl pkey`",
            ),
            (
                roots().client_pem(chain.clone(), other),
                "the client's key (given in memory) does not belong to the client certificate (given in memory), which \
                 has to be the first of its PEM",
            ),
            (
                roots().client_pem(
                    chain.clone(),
                    "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                ),
                "the client certificate (given in memory) and its key (given in memory) cannot be used",
            ),
            (
                roots().roots_pem_file("/nowhere/ca.pem"),
                "the roots cannot be read from /nowhere/ca.pem: check the path given to `roots_pem_file`",
            ),
            (
                roots().client_pem_files("/nowhere/client.pem", "/nowhere/client.key"),
                "the client certificate cannot be read from /nowhere/client.pem: check the path given to `client_pem_files`",
            ),
        ] {
            let error = builder.build().unwrap_err();
            assert_eq!(error.to_string(), text);
            let secret = &key[40..80];
            for shown in [format!("{builder:?}"), format!("{error:?}"), format!("{:?}", error.source())] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
    }

    #[test]
    fn keys_of_each_form_are_read() {
        let ca = Ca::new();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["orders".to_owned()]).unwrap().signed_by(&key, &ca.issuer).unwrap();
        let build = |key: String| {
            let builder = with_provider(provider()).roots_pem(ca.issuer.pem());
            builder.client_pem(certificate.pem(), key).build()
        };
        let pem = |label: &str, der: &[u8]| {
            let text = STANDARD.encode(der);
            format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
        };
        // PKCS #8 of an elliptic curve is SEC 1 after a header, with two bytes of an octet string.
        let pkcs8 = key.serialize_der();
        let head =
            pkcs8.windows(4).position(|bytes| bytes[0] == 4 && bytes[2..] == [0x30, bytes[1] - 2]).unwrap();
        build(pem("PRIVATE KEY", &pkcs8)).unwrap();
        build(pem("EC PRIVATE KEY", &pkcs8[head + 2..])).unwrap();
        // Parsed as the RSA key it claims to be, which fails.
        let error = build(pem("RSA PRIVATE KEY", &pkcs8)).unwrap_err();
        assert!(matches!(error, TlsConfigError::Client { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn files_are_read_for_each_connection() {
        let directory = std::env::temp_dir().join(format!("kwal-tls-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("ca.pem");
        let builder = with_provider(provider()).roots_pem_file(&file);
        let to = HostPort::new("kafka", 9093);
        let error = builder.client_config(&to).await.unwrap_err();
        assert!(error.to_string().starts_with("the roots cannot be read from "), "{error}");
        fs::write(&file, Ca::new().issuer.pem()).unwrap();
        builder.client_config(&to).await.unwrap();
        fs::write(&file, "").unwrap();
        let error = builder.client_config(&to).await.unwrap_err();
        assert!(
            error.to_string().ends_with("contains no certificate: check what is given to `roots_pem_file`"),
            "{error}"
        );
        fs::remove_dir_all(&directory).unwrap();
    }
}
