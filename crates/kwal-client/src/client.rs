//! The client of a cluster, and how it is made.

use std::{sync::Arc, time::Duration};

use kwal_protocol::{api::ApiKey, messages::MetadataRequest, wire::Uuid};
#[cfg(feature = "transport-socks5")]
use kwal_transport::Socks5;
use kwal_transport::{Connect, HostPort};
#[cfg(feature = "transport-tls")]
use kwal_transport::{Tls, tls::TlsConfig};
use tokio::runtime::Handle;

use crate::{
    cluster::{Cluster, Place},
    config::{Config, Deadlines, Limits},
    controller::ControllerClient,
    error::Error,
    partition::OpenPartition,
    retry::RetryPolicy,
    sasl::Sasl,
};

/// A cluster of brokers. Cloning is cheap; clones share connections, metadata and budgets.
///
/// What works on connections is tasks on the runtime on which [`ClientBuilder::build`] was called, or the one given to
/// [`ClientBuilder::runtime`]. When that is gone, calls end with [`Error::Closed`].
#[derive(Clone, Debug)]
pub struct Client {
    cluster: Arc<Cluster>,
}

impl Client {
    /// The topics of the cluster that this client may see, by name.
    ///
    /// # Errors
    /// [`Error::DeadlineExceeded`] if no broker answers within [`Deadlines::operation`]; what a broker refuses.
    ///
    /// # Cancellation
    /// Nothing is lost by dropping it.
    pub async fn list_topics(&self) -> Result<Vec<Topic>, Error> {
        // Every topic, so it is not for the snapshot that all share.
        let request =
            MetadataRequest { topics: None, allow_auto_topic_creation: false, ..Default::default() };
        let mut attempts = self.cluster.attempts(ApiKey::METADATA, Place::default());
        let response = loop {
            match attempts.within(self.cluster.call_for_metadata(&request)).await {
                Ok((_, response)) => break response,
                Err(error) => attempts.again(error, 0).await?,
            }
        };
        let mut topics: Vec<_> = response
            .topics
            .into_iter()
            .filter(|topic| !topic.error_code.is_error())
            .filter_map(|topic| {
                Some(Topic {
                    name: topic.name?,
                    id: (!topic.topic_id.is_zero()).then_some(topic.topic_id),
                    partitions: topic.partitions.len(),
                    is_internal: topic.is_internal,
                })
            })
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// The brokers that are up, by id, as last heard.
    pub fn brokers(&self) -> Vec<(i32, HostPort)> {
        self.cluster.metadata().brokers.iter().map(|(id, address)| (*id, address.clone())).collect()
    }

    /// The id of the cluster, as last heard.
    pub fn cluster_id(&self) -> Option<String> {
        self.cluster.metadata().cluster_id.clone()
    }

    /// For setting topics up and looking after them.
    ///
    /// # Errors
    /// None yet: it finds the controller with each call. It may do so here one day.
    pub async fn controller_client(&self) -> Result<ControllerClient, Error> {
        Ok(ControllerClient::new(Arc::clone(&self.cluster)))
    }

    /// For appending to a partition and reading from it. Await it, or set first what it should be like:
    /// [`OpenPartition::compression`], [`OpenPartition::idempotent`].
    ///
    /// Looking a topic up never creates it, also on brokers that would.
    pub fn partition_client(&self, topic: impl Into<String>, partition: i32) -> OpenPartition {
        OpenPartition::new(self.clone(), topic.into(), partition)
    }

    pub(crate) fn into_cluster(self) -> Arc<Cluster> {
        self.cluster
    }
}

/// A topic as [`Client::list_topics`] tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id (KIP-516); `None` if the broker is too old to tell.
    pub id: Option<Uuid>,
    /// How many partitions it has.
    pub partitions: usize,
    /// Whether it belongs to Kafka itself.
    pub is_internal: bool,
}

/// Makes a [`Client`].
///
/// ```no_run
/// # async fn connect() -> Result<(), kwal_client::error::Error> {
/// use kwal_client::ClientBuilder;
///
/// let client = ClientBuilder::new(vec!["localhost:9092".to_owned()]).client_id("orders-db").build().await?;
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
    /// Starts from the addresses of some brokers, as `host:port`; IPv6 addresses in brackets. One that answers is enough: it
    /// tells of the others.
    pub fn new(bootstrap_brokers: Vec<String>) -> Self {
        Self {
            bootstrap: bootstrap_brokers,
            config: Config::default(),
            runtime: None,
            #[cfg(feature = "transport-socks5")]
            socks5: None,
            #[cfg(feature = "transport-tls")]
            tls: None,
        }
    }

    /// What the client calls itself: shows in the brokers' logs, metrics and quotas. Default `kwal`.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.config.client_id = client_id.into();
        self
    }

    /// How long things may take.
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.config.deadlines = deadlines;
        self
    }

    /// How much memory things may take.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// How long to wait between attempts.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.config.retry = retry;
        self
    }

    /// How to reach brokers, or the proxy or TLS in front of them. Default: [`kwal_transport::Tcp`].
    pub fn connector(mut self, connector: impl Connect) -> Self {
        self.config.connect = Arc::new(connector);
        self
    }

    /// Connects by TLS: for listeners of the protocols `SSL` and `SASL_SSL`. With a [proxy](Self::socks5_proxy), TLS goes
    /// through it.
    ///
    /// `config` is an `Arc<rustls::ClientConfig>`, a [`TlsBuilder`](kwal_transport::tls::TlsBuilder) (which reads its files
    /// anew for each connection, so that certificates may be renewed), or an async function that gives the configuration
    /// for each connection. Each broker has to show a certificate for the name that it advertises.
    ///
    /// What is wrong with certificates or the configuration ends a call at once, as [`Error::Connect`] or
    /// [`Error::Connection`] over a [`TlsError`](kwal_transport::TlsError).
    ///
    #[cfg_attr(feature = "tls-ring", doc = "```no_run")]
    #[cfg_attr(not(feature = "tls-ring"), doc = "```ignore")]
    /// use kwal_client::ClientBuilder;
    /// use kwal_transport::tls;
    ///
    /// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
    /// let tls = tls::ring().roots_pem_file("ca.pem").client_pem_files("client.pem", "client.key");
    /// let client = ClientBuilder::new(vec!["kafka.example.org:9093".to_owned()]).tls(tls).build().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "transport-tls")]
    pub fn tls(mut self, config: impl TlsConfig) -> Self {
        self.tls = Some(Tls::new(config));
        self
    }

    /// Connects through a SOCKS5 proxy, which resolves the brokers' names. The proxy itself is reached by the
    /// [connector](Self::connector), whatever [`Socks5::over`] was told.
    ///
    /// ```no_run
    /// use kwal_client::ClientBuilder;
    /// use kwal_transport::Socks5;
    ///
    /// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
    /// let proxy = Socks5::new("proxy.example.org:1080".parse()?).login("orders", "a secret")?;
    /// let client = ClientBuilder::new(vec!["kafka.internal:9092".to_owned()]).socks5_proxy(proxy).build().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "transport-socks5")]
    pub fn socks5_proxy(mut self, proxy: Socks5) -> Self {
        self.socks5 = Some(proxy);
        self
    }

    /// Who the client is, for brokers that want to know: by PLAIN, SCRAM, OAUTHBEARER or a mechanism of your own. Default:
    /// nobody asks.
    ///
    /// ```
    /// use kwal_client::{ClientBuilder, sasl::Sasl};
    ///
    /// let builder = ClientBuilder::new(vec!["kafka-1:9093".to_owned()]).sasl(Sasl::scram_sha_512("alice", "secret"));
    /// assert!(!format!("{builder:?}").contains("secret"));
    /// ```
    /// See [`sasl`](crate::sasl) for an example of each.
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.config.sasl = Some(sasl);
        self
    }

    /// The runtime for the tasks that work on connections. Default: the one on which [`build`](Self::build) is called.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Makes all that is random (the pauses between attempts, which broker is asked first) follow from a number. For tests.
    /// What must not be guessed, the nonces of SCRAM, does not.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = Some(seed);
        self
    }

    /// Connects to the first broker that answers.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for an address that is none, and for limits and deadlines of zero; [`Error::NoBroker`] if none
    /// answers, with each address and its reason. It does not wait for brokers that are not there.
    ///
    /// # Cancellation
    /// Nothing is left behind by dropping it.
    ///
    /// # Panics
    /// Outside of a tokio runtime, unless one was [given](Self::runtime).
    pub async fn build(mut self) -> Result<Client, Error> {
        if self.bootstrap.is_empty() {
            return Err(Error::InvalidInput("no bootstrap broker given".to_owned()));
        }
        for text in &self.bootstrap {
            let address = text.parse().map_err(|error: kwal_transport::InvalidAddress| {
                Error::InvalidInput(format!("bootstrap broker: {error}"))
            })?;
            self.config.bootstrap.push(address);
        }
        check_config(&self.config)?;
        #[cfg(feature = "transport-socks5")]
        if let Some(socks5) = self.socks5 {
            self.config.way = format!(" through the SOCKS5 proxy {}", socks5.proxy());
            self.config.connect = Arc::new(socks5.over(self.config.connect));
        }
        #[cfg(feature = "transport-tls")]
        if let Some(tls) = self.tls {
            self.config.way.insert_str(0, " by TLS");
            self.config.connect = Arc::new(tls.over(self.config.connect));
        }
        let runtime = self.runtime.unwrap_or_else(Handle::current);
        Ok(Client { cluster: Cluster::connect(self.config, runtime).await? })
    }
}

fn check_config(Config { deadlines, limits, .. }: &Config) -> Result<(), Error> {
    let zero = |what: &str| Err(Error::InvalidInput(format!("{what} is zero")));
    match (deadlines, limits) {
        (Deadlines { operation: Duration::ZERO, .. }, _) => zero("Deadlines::operation"),
        (Deadlines { request: Duration::ZERO, .. }, _) => zero("Deadlines::request"),
        (Deadlines { connect: Duration::ZERO, .. }, _) => zero("Deadlines::connect"),
        (_, Limits { batch: 0, .. }) => zero("Limits::batch"),
        (_, Limits { frame: 0, .. }) => zero("Limits::frame"),
        (_, Limits { decompressed: 0, .. }) => zero("Limits::decompressed"),
        (_, Limits { appends: 0, .. }) => zero("Limits::appends"),
        (_, Limits { lanes: 0, .. }) => zero("Limits::lanes"),
        _ => Ok(()),
    }
}

/// Refuses what no broker would take as the name of a topic.
pub(crate) fn check_topic(topic: &str) -> Result<(), Error> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let wrong = match topic {
        "" => "is empty",
        "." | ".." => "is not a name",
        _ if topic.len() > 249 => "is longer than 249 characters",
        _ if !topic.bytes().all(legal) => "has characters other than ASCII letters, digits, '.', '_' and '-'",
        _ => return Ok(()),
    };
    Err(Error::InvalidInput(format!("topic {topic:?} {wrong}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_topics() {
        for name in ["a", "wal-1_x.y", &"x".repeat(249)] {
            check_topic(name).unwrap();
        }
        for name in ["", ".", "..", "a b", "ä", "a/b", &"x".repeat(250)] {
            check_topic(name).unwrap_err();
        }
    }

    #[tokio::test]
    async fn wrong_input_is_refused_before_anything_is_sent() {
        let build = |addresses: &[&str]| {
            ClientBuilder::new(addresses.iter().map(|&address| address.to_owned()).collect())
        };
        for builder in [
            build(&[]),
            build(&["localhost"]),
            build(&["localhost:9092", "x:y"]),
            build(&["localhost:9092"]).limits(Limits { batch: 0, ..Limits::default() }),
            build(&["localhost:9092"])
                .deadlines(Deadlines { request: Duration::ZERO, ..Deadlines::default() }),
        ] {
            let error = builder.build().await.unwrap_err();
            assert!(matches!(error, Error::InvalidInput(_)), "{error:?}");
        }
    }
}
