//! What options and files say together, as settings of a client.

use std::{path::PathBuf, time::Duration};

use kwal::{
    ClientBuilder,
    client::sasl::{Sasl, Token},
};

use super::{Mechanism, first_line};
use crate::exit::Failure;

/// How to connect to a cluster, and as whom.
#[derive(Debug, Default)]
pub(crate) struct Access {
    pub(super) brokers: Vec<String>,
    pub(super) client_id: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) tls: Option<TlsAccess>,
    pub(super) mechanism: Option<Mechanism>,
    pub(super) login: Option<Login>,
    pub(super) socks5: Option<String>,
}

/// Whom to trust, and who we are.
#[derive(Debug, Default)]
pub(crate) struct TlsAccess {
    pub(super) roots: Roots,
    pub(super) identity: Option<Identity>,
}

/// The CAs that are trusted.
#[derive(Debug, Default)]
#[cfg_attr(
    not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")),
    expect(dead_code, reason = "a build without TLS refuses them as a whole")
)]
pub(crate) enum Roots {
    /// Those of the system, as Java's tools have those of their installation.
    #[default]
    Platform,
    /// Mozilla's.
    WebPki,
    /// Those in a PEM file.
    File(PathBuf),
    /// Those in a PEM.
    Pem(String),
}

/// A certificate with its key, as PEM.
#[cfg_attr(
    not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")),
    expect(dead_code, reason = "a build without TLS refuses them as a whole")
)]
pub(crate) enum Identity {
    Files { cert: PathBuf, key: PathBuf },
    Pem { cert: String, key: String },
}

/// Credentials.
pub(crate) enum Login {
    Password {
        user: String,
        password: String,
    },
    Token(String),
    /// Is read for each connection, so that another program can renew it.
    TokenFile(PathBuf),
}

/// Prints no secret.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

/// Prints no secret.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

impl Access {
    /// Connects with TLS, and trusts these CAs.
    pub(super) fn trust(&mut self, roots: Roots) {
        self.tls.get_or_insert_default().roots = roots;
    }

    pub(super) fn builder(self, in_clear: bool) -> Result<ClientBuilder, Failure> {
        let Self { brokers, client_id, timeout: _, tls, mechanism, login, socks5 } = self;
        let mut builder =
            ClientBuilder::new(brokers).client_id(client_id.unwrap_or_else(|| "kwal-cli".to_owned()));
        if let Some(tls) = tls {
            builder = with_tls(builder, tls)?;
        }
        if let Some(proxy) = socks5 {
            builder = with_socks5(builder, &proxy)?;
        }
        if let Some((mechanism, login)) = mechanism.zip(login) {
            let sasl = sasl(mechanism, login);
            builder = builder.sasl(if in_clear { sasl.danger_send_unencrypted() } else { sasl });
        }
        Ok(builder)
    }
}

fn sasl(mechanism: Mechanism, login: Login) -> Sasl {
    match (login, mechanism) {
        (Login::Password { user, password }, Mechanism::ScramSha256) => Sasl::scram_sha_256(user, password),
        (Login::Password { user, password }, Mechanism::ScramSha512) => Sasl::scram_sha_512(user, password),
        (Login::Password { user, password }, _) => Sasl::plain(user, password),
        (Login::Token(token), _) => Sasl::oauth_bearer(move || {
            let token = Token::new(token.clone());
            async { Ok::<_, std::convert::Infallible>(token) }
        }),
        (Login::TokenFile(file), _) => Sasl::oauth_bearer(move || {
            let token = first_line(&file).map(Token::new);
            async { token.map_err(|failure| failure.line().unwrap_or_default()) }
        }),
    }
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
fn with_tls(builder: ClientBuilder, access: TlsAccess) -> Result<ClientBuilder, Failure> {
    use kwal::transport::tls;

    #[cfg(feature = "tls-ring")]
    let tls = tls::ring();
    #[cfg(not(feature = "tls-ring"))]
    let tls = tls::aws_lc_rs();
    let tls = match access.roots {
        Roots::Platform => tls.platform_roots(),
        Roots::WebPki => tls.webpki_roots(),
        Roots::File(file) => tls.roots_pem_file(file),
        Roots::Pem(pem) => tls.roots_pem(pem),
    };
    let tls = match access.identity {
        Some(Identity::Files { cert, key }) => tls.client_pem_files(cert, key),
        Some(Identity::Pem { cert, key }) => tls.client_pem(cert, key),
        None => tls,
    };
    // Reported before anything is connected.
    tls.build().map_err(|error| Failure::local("TLS", &error))?;
    Ok(builder.tls(tls))
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
fn with_tls(_: ClientBuilder, access: TlsAccess) -> Result<ClientBuilder, Failure> {
    drop(access);
    Err(Failure::usage("TLS is not in this build: it takes cryptography, by cargo's --features tls-ring"))
}

#[cfg(feature = "transport-socks5")]
fn with_socks5(builder: ClientBuilder, proxy: &str) -> Result<ClientBuilder, Failure> {
    use kwal::transport::{InvalidAddress, Socks5};

    use super::variable;

    let address = proxy.parse();
    let address = address.map_err(|error: InvalidAddress| Failure::usage(format!("--socks5: {error}")))?;
    let mut proxy = Socks5::new(address);
    if let Some(user) = variable("SOCKS5_USER") {
        let login = proxy.login(user, variable("SOCKS5_PASSWORD").unwrap_or_default());
        proxy = login.map_err(|error| Failure::usage(format!("SOCKS5_USER and SOCKS5_PASSWORD: {error}")))?;
    }
    Ok(builder.socks5_proxy(proxy))
}

#[cfg(not(feature = "transport-socks5"))]
fn with_socks5(_: ClientBuilder, _: &str) -> Result<ClientBuilder, Failure> {
    Err(Failure::usage("--socks5 is not in this build: it takes cargo's --features transport-socks5"))
}
