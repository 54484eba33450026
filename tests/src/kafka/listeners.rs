//! Where clients come in, and what they have to show there.

use super::certificates::{Certificates, Server};

/// The user that the brokers know, by each mechanism that has passwords.
pub const USER: &str = "alice";
/// Its password.
pub const PASSWORD: &str = "alice-secret";
/// The SASL mechanisms that the brokers offer.
pub const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];
/// How long a session lasts at the listener `SHORT`, in milliseconds.
pub const SHORT_SESSION_MS: u32 = 5_000;

/// A listener of every node of a cluster.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub security_protocol: String,
    /// The host that clients are sent to. `127.0.0.1`.
    pub advertised_host: String,
    /// The port that clients are sent to, node by node: a proxy's. Without it, the listener's own.
    pub advertised_ports: Vec<u16>,
    /// Settings of this listener alone, without `listener.name.…` in front.
    pub settings: Vec<(String, String)>,
}

impl Listener {
    /// A listener on a free port of 127.0.0.1.
    pub fn new(name: &str, security_protocol: &str) -> Self {
        Self {
            name: name.to_owned(),
            security_protocol: security_protocol.to_owned(),
            advertised_host: "127.0.0.1".to_owned(),
            advertised_ports: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Every way in, right and wrong; brokers talk over the first.
    ///
    /// | name | what it wants |
    /// | --- | --- |
    /// | `PLAINTEXT` | nothing |
    /// | `SSL` | TLS |
    /// | `MTLS` | TLS and a client's certificate |
    /// | `SASL_PLAINTEXT`, `SASL_SSL` | SASL by any of [`MECHANISMS`], without and with TLS |
    /// | `SHORT` | as `SASL_SSL`, anew every five seconds |
    /// | `SCRAM` | as `SASL_PLAINTEXT`, by `SCRAM-SHA-512` only |
    /// | `WRONG_HOST`, `EXPIRED` | TLS with a certificate that no client should accept |
    ///
    /// # Panics
    ///
    /// If the certificates cannot be made.
    pub fn every_way_in() -> Vec<Self> {
        let short = ("connections.max.reauth.ms", SHORT_SESSION_MS.to_string());
        vec![
            Self::new("PLAINTEXT", "PLAINTEXT"),
            Self::new("SSL", "SSL").tls(Server::Good),
            Self::new("MTLS", "SSL").tls(Server::Good).with([("ssl.client.auth", "required".to_owned())]),
            Self::new("SASL_PLAINTEXT", "SASL_PLAINTEXT").sasl(&MECHANISMS),
            Self::new("SASL_SSL", "SASL_SSL").tls(Server::Good).sasl(&MECHANISMS),
            Self::new("SHORT", "SASL_SSL").tls(Server::Good).sasl(&MECHANISMS).with([short]),
            Self::new("SCRAM", "SASL_PLAINTEXT").sasl(&["SCRAM-SHA-512"]),
            Self::new("WRONG_HOST", "SSL").tls(Server::WrongHost),
            Self::new("EXPIRED", "SSL").tls(Server::Expired),
        ]
    }

    /// Speaks TLS; clients are sent to `localhost`, a name that its certificate should be for.
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

    fn sasl(self, mechanisms: &[&str]) -> Self {
        const MODULES: &str = "org.apache.kafka.common.security";
        let jaas = |mechanism: &str| match mechanism {
            "PLAIN" => format!("plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\""),
            // Takes any token that is not signed; its own would be for other brokers.
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

    /// The lines of `server.properties` for its settings.
    pub(super) fn properties(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let prefix = format!("listener.name.{}", self.name.to_ascii_lowercase());
        self.settings.iter().map(move |(key, value)| (format!("{prefix}.{key}"), value.clone()))
    }
}
