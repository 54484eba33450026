//! Connecting to brokers: options, the environment and properties files, for a [`ClientBuilder`].

mod access;
mod jaas;
mod properties;

use std::{env, fs, path::PathBuf, time::Duration};

use clap::ValueEnum;
use kwal::{Client, ClientBuilder, PartitionClient, client::Deadlines};

use self::access::{Access, Identity, Login, Roots};
use crate::{exit::Failure, interrupt::Interrupt, output::warn};

/// How to connect. Secrets are not among the options: every user of the machine can read a command line.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// Addresses of some brokers [default: of --config, else KAFKA_CONNECT, else localhost:9092]
    #[arg(
        short,
        long,
        visible_alias = "bootstrap-server",
        global = true,
        value_name = "HOST:PORT,…",
        value_delimiter = ','
    )]
    brokers: Vec<String>,

    /// A properties file of Kafka's tools; options win over it
    ///
    /// It may have bootstrap.servers, client.id, security.protocol, sasl.mechanism, sasl.jaas.config (PLAIN
    /// and SCRAM), default.api.timeout.ms and, with the type PEM, ssl.truststore.location and .certificates,
    /// ssl.keystore.location, .certificate.chain and .key. Another key of security is an error, any other key
    /// a warning.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Time limit of each call to the cluster, in seconds [default: of --config, else 30]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    timeout: Option<u32>,

    /// The client id, for logs and quotas of brokers [default: of --config, else kwal-cli]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    client_id: Option<String>,

    /// Connects with TLS and trusts these CAs: a PEM file, or webpki (Mozilla's), or platform (the system's)
    #[arg(long, global = true, value_name = "FILE")]
    tls_ca: Option<String>,

    /// Presents this certificate to brokers, a PEM file
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    tls_cert: Option<PathBuf>,

    /// The key of --tls-cert, a PEM file [default: in the file of --tls-cert]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true, requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Authenticates by this mechanism
    ///
    /// With --user or KAFKA_USER, and --password-file or KAFKA_PASSWORD; OAUTHBEARER with --token-file or
    /// KAFKA_TOKEN.
    #[arg(long, global = true, value_name = "MECHANISM")]
    sasl: Option<Mechanism>,

    /// The user of --sasl [default: of --config, else KAFKA_USER]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    user: Option<String>,

    /// A file with the password of --sasl on its first line [default: of --config, else KAFKA_PASSWORD]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    password_file: Option<PathBuf>,

    /// A file with the token of OAUTHBEARER, which is read for each connection [default: KAFKA_TOKEN]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    token_file: Option<PathBuf>,

    /// Lets PLAIN and OAUTHBEARER send their secret without TLS, where everybody on the path can read it
    #[arg(long, global = true, hide_short_help = true)]
    sasl_in_clear: bool,

    /// Connects through this SOCKS5 proxy, with SOCKS5_USER and SOCKS5_PASSWORD if they are set
    #[arg(long, global = true, value_name = "HOST:PORT", hide_short_help = true)]
    socks5: Option<String>,
}

/// A mechanism of SASL.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Mechanism {
    #[value(name = "PLAIN")]
    Plain,
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    #[value(name = "SCRAM-SHA-512")]
    ScramSha512,
    #[value(name = "OAUTHBEARER")]
    OauthBearer,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }
}

impl ConnectArgs {
    /// Connects to the cluster.
    pub(crate) async fn client(&self, interrupt: &Interrupt) -> Result<Client, Failure> {
        interrupt.or(Box::pin(self.builder()?.build())).await
    }

    fn builder(&self) -> Result<ClientBuilder, Failure> {
        let mut access = match &self.config {
            Some(file) => self.read(file)?,
            None => Access::default(),
        };
        self.override_in(&mut access)?;
        let timeout = access.timeout.unwrap_or(DEFAULT_TIMEOUT);
        let deadlines = Deadlines::default();
        let deadlines = deadlines.unknown_topic(deadlines.unknown_topic.min(timeout / 2));
        let deadlines =
            deadlines.request(deadlines.request.min(timeout)).connect(deadlines.connect.min(timeout));
        Ok(access.builder(self.sasl_in_clear)?.deadlines(deadlines.operation(timeout)))
    }

    fn read(&self, file: &PathBuf) -> Result<Access, Failure> {
        let name = file.display();
        let text = fs::read_to_string(file)
            .map_err(|error| Failure::local(format!("config {name} cannot be read"), &error))?;
        let (access, unused) = properties::access(&text)
            .map_err(|problem| Failure::usage(format!("config {name}: {problem}")))?;
        if !unused.is_empty() {
            warn(&format!("config {name}: not used: {}", unused.join(", ")));
        }
        Ok(access)
    }

    /// Applies options, and the environment where neither they nor the file say anything.
    fn override_in(&self, access: &mut Access) -> Result<(), Failure> {
        if !self.brokers.is_empty() {
            access.brokers.clone_from(&self.brokers);
        }
        if access.brokers.is_empty() {
            let brokers = variable("KAFKA_CONNECT").unwrap_or_else(|| "localhost:9092".to_owned());
            access.brokers = brokers.split(',').map(|broker| broker.trim().to_owned()).collect();
        }
        if let Some(seconds) = self.timeout {
            access.timeout = Some(Duration::from_secs(seconds.into()));
        }
        if let Some(name) = &self.client_id {
            access.client_id = Some(name.clone());
        }
        match self.tls_ca.as_deref() {
            Some("webpki") => access.trust(Roots::WebPki),
            Some("platform") => access.trust(Roots::Platform),
            Some(file) => access.trust(Roots::File(file.into())),
            None => {}
        }
        if let Some(cert) = &self.tls_cert {
            let Some(tls) = &mut access.tls else {
                return Err(Failure::usage("--tls-cert takes --tls-ca as well"));
            };
            let key = self.tls_key.as_ref().unwrap_or(cert);
            tls.identity = Some(Identity::Files { cert: cert.clone(), key: key.clone() });
        }
        if let Some(proxy) = &self.socks5 {
            access.socks5 = Some(proxy.clone());
        }
        self.log_in(access)
    }

    fn log_in(&self, access: &mut Access) -> Result<(), Failure> {
        if let Some(mechanism) = self.sasl {
            access.mechanism = Some(mechanism);
        }
        let given = [self.user.is_some(), self.password_file.is_some(), self.token_file.is_some()];
        let Some(mechanism) = access.mechanism else {
            return match given.contains(&true) {
                true => Err(Failure::usage("--user, --password-file and --token-file take --sasl as well")),
                false => Ok(()),
            };
        };
        let wanted = |what: &str, option: &str, name: &str| {
            let mechanism = mechanism.name();
            Failure::usage(format!(
                "SASL {mechanism} takes {what}: by {option}, or {name} in the environment"
            ))
        };
        access.login = Some(if mechanism == Mechanism::OauthBearer {
            match (&self.token_file, variable("KAFKA_TOKEN")) {
                (Some(file), _) => Login::TokenFile(file.clone()),
                (None, Some(token)) => Login::Token(token),
                (None, None) => return Err(wanted("a token", "--token-file", "KAFKA_TOKEN")),
            }
        } else {
            let (mut user, mut password) = match access.login.take() {
                Some(Login::Password { user, password }) => (Some(user), Some(password)),
                _ => (None, None),
            };
            user = self.user.clone().or(user).or_else(|| variable("KAFKA_USER"));
            if let Some(file) = &self.password_file {
                password = Some(first_line(file)?);
            }
            password = password.or_else(|| variable("KAFKA_PASSWORD"));
            Login::Password {
                user: user.ok_or_else(|| wanted("a user", "--user", "KAFKA_USER"))?,
                password: password
                    .ok_or_else(|| wanted("a password", "--password-file", "KAFKA_PASSWORD"))?,
            }
        });
        Ok(())
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Names a partition of a topic.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PartitionArgs {
    /// The topic
    pub(crate) topic: String,
    /// The partition; a topic of one partition needs none
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) partition: Option<i32>,
}

impl PartitionArgs {
    /// Returns the partition that is meant.
    pub(crate) async fn index(&self, client: &Client, interrupt: &Interrupt) -> Result<i32, Failure> {
        if let Some(index) = self.partition {
            return Ok(index);
        }
        let controller = interrupt.or(client.controller_client()).await?;
        match interrupt.or(controller.describe_topic(&self.topic)).await?.partitions.len() {
            1 => Ok(0),
            count => Err(Failure::usage(format!(
                "topic {} has {count} partitions: name one by --partition, 0 to {}",
                self.topic,
                count.saturating_sub(1)
            ))),
        }
    }

    /// Opens it to read from it.
    pub(crate) async fn open(
        &self,
        client: &Client,
        interrupt: &Interrupt,
    ) -> Result<PartitionClient, Failure> {
        let index = self.index(client, interrupt).await?;
        interrupt.or(client.partition_client(&self.topic, index)).await
    }
}

/// What the environment has under this name; nothing is nothing.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The first line of a file, for a secret.
fn first_line(file: &PathBuf) -> Result<String, Failure> {
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::local(format!("{} cannot be read", file.display()), &error))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(Failure::Local(format!("{} has no first line", file.display()))),
    }
}
