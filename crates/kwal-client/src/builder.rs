//! How a client is configured and built.

use std::sync::Arc;

use kwal_transport::Connect;
#[cfg(feature = "transport-socks5")]
use kwal_transport::Socks5;
#[cfg(feature = "transport-tls")]
use kwal_transport::{Tls, tls::TlsConfig};
use tokio::runtime::Handle;

use crate::{
    client::Client,
    cluster::Cluster,
    config::{Config, Deadlines, Limits, RetryPolicy},
    error::Error,
    sasl::Sasl,
};

/// Configures and builds a [`Client`].
///
/// ```no_run
/// # async fn connect() -> Result<(), kwal_client::error::Error> {
/// use kwal_client::ClientBuilder;
///
/// let client = ClientBuilder::new(["localhost:9092"]).client_id("orders-db").build().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is built"]
pub struct ClientBuilder {
    bootstrap: Vec<String>,
    config: Config,
    runtime: Option<Handle>,
    #[cfg(feature = "transport-socks5")]
    socks5: Option<Socks5>,
    #[cfg(feature = "transport-tls")]
    tls: Option<Tls>,
}

impl ClientBuilder {
    /// Starts from the addresses of some brokers, as `host:port`; IPv6 addresses in brackets. One that
    /// answers is enough, it names the others.
    ///
    /// They are used again, and their names resolved again, when none of the brokers that the client knows
    /// answers, and when a broker requires it (KIP-1102). So they have to stay valid.
    pub fn new<A: Into<String>>(bootstrap_brokers: impl IntoIterator<Item = A>) -> Self {
        Self {
            bootstrap: bootstrap_brokers.into_iter().map(Into::into).collect(),
            config: Config::default(),
            runtime: None,
            #[cfg(feature = "transport-socks5")]
            socks5: None,
            #[cfg(feature = "transport-tls")]
            tls: None,
        }
    }

    /// Sets the client id, which appears in the brokers' logs, metrics and quotas. At most 32,767 bytes;
    /// default `kwal`.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.config.client_id = client_id.into();
        self
    }

    /// Sets how long calls may take.
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.config.deadlines = deadlines;
        self
    }

    /// Sets how much memory and how many connections the client may use.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// Sets the pauses between attempts.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.config.retry = retry;
        self
    }

    /// Sets how to reach brokers, or the proxy or TLS endpoint in front of them. Default:
    /// [`kwal_transport::Tcp`].
    pub fn connector(mut self, connector: impl Connect) -> Self {
        self.config.connect = Arc::new(connector);
        self
    }

    /// Connects with TLS: for listeners of the protocols `SSL` and `SASL_SSL`. With a SOCKS5 proxy, TLS goes
    /// through it.
    ///
    /// `config` is an `Arc<rustls::ClientConfig>`, a [`TlsBuilder`](kwal_transport::tls::TlsBuilder) (which
    /// reads its files for each connection, so that certificates can be renewed), or an async function that
    /// returns the configuration for each connection. Each broker has to present a certificate for the name
    /// that it advertises.
    ///
    /// A wrong certificate or configuration ends a call at once, with
    /// [`ErrorKind::Connect`](crate::error::ErrorKind::Connect) or
    /// [`ErrorKind::Connection`](crate::error::ErrorKind::Connection) and a
    /// [`TlsError`](kwal_transport::TlsError) as source.
    ///
    #[cfg_attr(feature = "tls-ring", doc = "```no_run")]
    #[cfg_attr(not(feature = "tls-ring"), doc = "```ignore")]
    /// use kwal_client::ClientBuilder;
    /// use kwal_transport::tls;
    ///
    /// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
    /// let tls = tls::ring().roots_pem_file("ca.pem").client_pem_files("client.pem", "client.key");
    /// let client = ClientBuilder::new(["kafka.example.org:9093"]).tls(tls).build().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "transport-tls")]
    pub fn tls(mut self, config: impl TlsConfig) -> Self {
        self.tls = Some(Tls::new(config));
        self
    }

    /// Connects through a SOCKS5 proxy, which resolves the brokers' names. The proxy itself is reached with
    /// the [connector](Self::connector), which replaces that of [`Socks5::over`].
    ///
    /// ```no_run
    /// use kwal_client::ClientBuilder;
    /// use kwal_transport::Socks5;
    ///
    /// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
    /// let proxy = Socks5::new("proxy.example.org:1080".parse()?).login("orders", "a secret")?;
    /// let client = ClientBuilder::new(["kafka.internal:9092"]).socks5_proxy(proxy).build().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "transport-socks5")]
    pub fn socks5_proxy(mut self, proxy: Socks5) -> Self {
        self.socks5 = Some(proxy);
        self
    }

    /// Sets how the client authenticates: PLAIN, SCRAM, OAUTHBEARER or a mechanism of your own. Default: not
    /// at all.
    ///
    /// ```
    /// use kwal_client::{ClientBuilder, sasl::Sasl};
    ///
    /// let builder = ClientBuilder::new(["kafka-1:9093"]).sasl(Sasl::scram_sha_512("alice", "secret"));
    /// assert!(!format!("{builder:?}").contains("secret"));
    /// ```
    /// See [`sasl`](crate::sasl) for an example of each.
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.config.sasl = Some(sasl);
        self
    }

    /// Sets the runtime of the client's tasks. Default: the one on which [`build`](Self::build) is called.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Seeds all randomness (the pauses between attempts, which broker is tried first), for tests. Nonces of
    /// SCRAM, which must be unpredictable, are not affected.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = Some(seed);
        self
    }

    /// Connects to the first broker that answers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput) for an address that cannot be
    /// parsed, for limits, deadlines and pauses of zero, and for TLS files that are missing or invalid, all
    /// before anything is sent;
    /// [`ErrorKind::NoBroker`](crate::error::ErrorKind::NoBroker) if none answers, with each address and its
    /// error. It does not wait for brokers to come up.
    ///
    /// A failure that another attempt cannot change is returned as it is:
    /// [`ErrorKind::Connect`](crate::error::ErrorKind::Connect) if TLS rejects the broker's certificate,
    /// [`ErrorKind::Connection`](crate::error::ErrorKind::Connection) for a wrong password or a listener that
    /// speaks another protocol,
    /// [`ErrorKind::EncryptionRequired`](crate::error::ErrorKind::EncryptionRequired) and
    /// [`ErrorKind::CredentialsUnavailable`](crate::error::ErrorKind::CredentialsUnavailable).
    ///
    /// # Cancellation safety
    /// Cancel safe.
    ///
    /// # Panics
    /// Outside of a tokio runtime, unless one was [given](Self::runtime).
    pub async fn build(mut self) -> Result<Client, Error> {
        if self.bootstrap.is_empty() {
            return Err(Error::invalid_input("no bootstrap broker given"));
        }
        for text in &self.bootstrap {
            let address = text.parse().map_err(|error: kwal_transport::InvalidAddress| {
                Error::invalid_input(format!("bootstrap broker: {error}"))
            })?;
            self.config.bootstrap.push(address);
        }
        self.config.validate()?;
        self.config.shorten();
        #[cfg(feature = "transport-socks5")]
        if let Some(socks5) = self.socks5 {
            self.config.route = format!(" through the SOCKS5 proxy {}", socks5.proxy());
            self.config.connect = Arc::new(socks5.over(self.config.connect));
        }
        #[cfg(feature = "transport-tls")]
        if let Some(tls) = self.tls {
            tls.check().await.map_err(|source| {
                let error = Error::invalid_input("the TLS configuration cannot be used");
                error.with_source(crate::error::Source::Other(source.into()))
            })?;
            self.config.route.insert_str(0, " with TLS");
            self.config.connect = Arc::new(tls.over(self.config.connect));
        }
        let runtime = self.runtime.unwrap_or_else(Handle::current);
        Client::open(Cluster::new(self.config, runtime)).await
    }
}

impl Client {
    /// Connects to a cluster with default settings. `bootstrap_brokers` are as for [`ClientBuilder::new`].
    ///
    /// ```no_run
    /// # async fn connect() -> Result<(), kwal_client::error::Error> {
    /// let client = kwal_client::Client::connect(["localhost:9092"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`ClientBuilder::build`].
    ///
    /// # Cancellation safety
    /// Cancel safe.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn connect<A: Into<String>>(
        bootstrap_brokers: impl IntoIterator<Item = A>,
    ) -> Result<Self, Error> {
        ClientBuilder::new(bootstrap_brokers).build().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test]
    async fn invalid_input_is_rejected_before_anything_is_sent() {
        let build = |addresses: &[&str]| ClientBuilder::new(addresses.iter().copied());
        for builder in [
            build(&[]),
            build(&["localhost"]),
            build(&["localhost:9092", "x:y"]),
            build(&["localhost:9092"]).limits(Limits::default().batch(0)),
            build(&["localhost:9092"]).deadlines(Deadlines::default().request(Duration::ZERO)),
            build(&["localhost:9092"]).retry(RetryPolicy::default().initial(Duration::ZERO)),
        ] {
            let error = builder.build().await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
        }
    }
}
