//! The listeners of the brokers and what they require of clients.

use super::certificates::{Certificates, Server};

/// The user of all SASL mechanisms with passwords.
pub const USER: &str = "alice";
/// The password of [`USER`].
pub const PASSWORD: &str = "alice-secret";
/// The SASL mechanisms that the brokers offer.
pub const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];
/// The session lifetime of the listener `SHORT`, in milliseconds.
pub const SHORT_SESSION_MS: u32 = 5_000;

/// A listener of every node of a cluster.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub security_protocol: String,
    /// The host of `advertised.listeners`. Default `127.0.0.1`.
    pub advertised_host: String,
    /// The ports of `advertised.listeners`, one per node, for a proxy. Default: those of the listener.
    pub advertised_ports: Vec<u16>,
    /// Settings of this listener, without the prefix `listener.name.…`.
    pub settings: Vec<(String, String)>,
}

impl Listener {
    /// Creates a listener on a free port of 127.0.0.1.
    pub fn new(name: &str, security_protocol: &str) -> Self {
        Self {
            name: name.to_owned(),
            security_protocol: security_protocol.to_owned(),
            advertised_host: "127.0.0.1".to_owned(),
            advertised_ports: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Returns a listener for every kind of connection, valid and invalid. Brokers use the first among
    /// themselves.
    ///
    /// | name | requirement |
    /// | --- | --- |
    /// | `PLAINTEXT` | none |
    /// | `SSL` | TLS |
    /// | `MTLS` | TLS and a client certificate |
    /// | `SASL_PLAINTEXT`, `SASL_SSL` | SASL with any of [`MECHANISMS`], without and with TLS |
    /// | `SHORT` | like `SASL_SSL`, with reauthentication every five seconds |
    /// | `SCRAM` | like `SASL_PLAINTEXT`, with `SCRAM-SHA-512` only |
    /// | `WRONG_HOST`, `EXPIRED` | TLS with a certificate that clients must reject |
    ///
    /// # Panics
    ///
    /// If the certificates cannot be generated.
    pub fn of_every_kind() -> Vec<Self> {
        let short = ("connections.max.reauth.ms", SHORT_SESSION_MS.to_string());
        vec![
            Self::new("PLAINTEXT", "PLAINTEXT"),
            Self::new("SSL", "SSL").tls(Server::Valid),
            Self::new("MTLS", "SSL").tls(Server::Valid).with([("ssl.client.auth", "required".to_owned())]),
            Self::new("SASL_PLAINTEXT", "SASL_PLAINTEXT").sasl(&MECHANISMS),
            Self::new("SASL_SSL", "SASL_SSL").tls(Server::Valid).sasl(&MECHANISMS),
            Self::new("SHORT", "SASL_SSL").tls(Server::Valid).sasl(&MECHANISMS).with([short]),
            Self::new("SCRAM", "SASL_PLAINTEXT").sasl(&["SCRAM-SHA-512"]),
            Self::new("WRONG_HOST", "SSL").tls(Server::WrongHost),
            Self::new("EXPIRED", "SSL").tls(Server::Expired),
        ]
    }

    /// Uses TLS and advertises `localhost`, the name in a valid certificate.
    fn tls(mut self, server: Server) -> Self {
        let certificates = Certificates::shared();
        self.advertised_host = "localhost".to_owned();
        self.with([
            ("ssl.keystore.type", "PEM".to_owned()),
            ("ssl.keystore.location", certificates.broker(server).display().to_string()),
            ("ssl.truststore.type", "PEM".to_owned()),
            ("ssl.truststore.location", certificates.authority().display().to_string()),
        ])
    }

    /// Requires SASL with any of these mechanisms. The user is [`USER`].
    pub fn sasl(self, mechanisms: &[&str]) -> Self {
        const MODULES: &str = "org.apache.kafka.common.security";
        let jaas = |mechanism: &str| match mechanism {
            "PLAIN" => format!("plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\""),
            // Accepts any unsigned token. The claim is for a broker's own logins, which the configuration
            // requires.
            "OAUTHBEARER" => {
                "oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\""
                    .to_owned()
            }
            _ => "scram.ScramLoginModule required".to_owned(),
        };
        let offered = ("sasl.enabled.mechanisms".to_owned(), mechanisms.join(","));
        let modules = mechanisms.iter().map(|mechanism| {
            let setting = format!("{}.sasl.jaas.config", mechanism.to_ascii_lowercase());
            (setting, format!("{MODULES}.{};", jaas(mechanism)))
        });
        self.with(std::iter::once(offered).chain(modules))
    }

    fn with(mut self, settings: impl IntoIterator<Item = (impl Into<String>, String)>) -> Self {
        self.settings.extend(settings.into_iter().map(|(key, value)| (key.into(), value)));
        self
    }

    /// Returns its settings as lines of `server.properties`.
    pub(super) fn properties(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let prefix = format!("listener.name.{}", self.name.to_ascii_lowercase());
        self.settings.iter().map(move |(key, value)| (format!("{prefix}.{key}"), value.clone()))
    }
}
