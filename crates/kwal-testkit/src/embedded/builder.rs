//! Configures a cluster.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use kwal_protocol::{
    api::{ApiKey, Versions},
    messages::CreatableTopic,
};
use kwal_transport::{HostPort, memory::MemoryNetwork};
use tokio::runtime::Handle;

use super::{
    cluster::EmbeddedCluster,
    topics::{assigned, creatable, create},
};
use crate::{
    cluster::{Cluster, Settings},
    dialect::Dialect,
    error::Error,
    listen::{Bind, Listeners},
    sasl::Sasl,
    serve::{Clock, Shared, run_timers},
};

/// Configures an [`EmbeddedCluster`].
///
/// The default is one broker that behaves as Kafka 4.3, has no topics and does not create any by itself.
#[derive(Clone, Debug)]
pub struct EmbeddedClusterBuilder {
    settings: Settings,
    brokers: i32,
    topics: Vec<CreatableTopic>,
    max_frame_len: usize,
    broker_settings: Vec<(String, String)>,
    started_unix_ms: Option<i64>,
    port: u16,
    advertised: BTreeMap<i32, HostPort>,
    sasl: Option<Sasl>,
}

impl EmbeddedCluster {
    /// Returns a builder with one broker and no topics.
    pub fn builder() -> EmbeddedClusterBuilder {
        EmbeddedClusterBuilder::default()
    }
}

impl Default for EmbeddedClusterBuilder {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            brokers: 1,
            topics: Vec::new(),
            max_frame_len: 100 << 20,
            broker_settings: Vec::new(),
            started_unix_ms: None,
            port: 0,
            advertised: BTreeMap::new(),
            sasl: None,
        }
    }
}

impl EmbeddedClusterBuilder {
    /// Sets the number of brokers, with ids from 1. Default: 1.
    #[must_use]
    pub fn brokers(mut self, brokers: i32) -> Self {
        self.brokers = brokers;
        self
    }

    /// Creates a topic at the start.
    #[must_use]
    pub fn topic(self, name: &str, partitions: i32) -> Self {
        self.topic_with(name, partitions, &[])
    }

    /// Creates a topic with settings, by their Kafka names, at the start.
    ///
    /// The broker applies `max.message.bytes`, `message.timestamp.type`, `message.timestamp.before.max.ms`,
    /// `message.timestamp.after.max.ms`, `compression.type`, `min.insync.replicas`,
    /// `unclean.leader.election.enable` and `cleanup.policy` (records of a compacted topic need a key).
    /// Others that exist in the [dialect](Self::dialect)'s Kafka are stored and returned.
    #[must_use]
    pub fn topic_with(mut self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Self {
        self.topics.push(creatable(name, partitions, settings));
        self
    }

    /// Creates a topic at the start, with these replicas of each partition, the preferred leader first.
    #[must_use]
    pub fn topic_assigned(mut self, name: &str, replicas: &[&[i32]]) -> Self {
        self.topics.push(assigned(name, replicas));
        self
    }

    /// Sets a broker setting, as in `server.properties`.
    ///
    /// It is a default for topics, such as `log.retention.ms` and `min.insync.replicas`, or a setting of the
    /// broker itself, such as `producer.id.expiration.ms`.
    ///
    /// Some defaults differ from Kafka: topics are not created automatically, `default.replication.factor`
    /// and `transaction.state.log.replication.factor` are 3, or the number of brokers if that is less, and
    /// `transaction.state.log.min.isr` is 1 with less than three brokers. With a
    /// `transaction.state.log.replication.factor` above the number of brokers there is never a coordinator.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.broker_settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets whether Metadata requests may create topics (`auto.create.topics.enable`). Default: no.
    #[must_use]
    pub fn auto_create_topics(mut self, yes: bool) -> Self {
        self.settings.auto_create = yes;
        self
    }

    /// Sets the default number of partitions of a topic (`num.partitions`). Default: 1.
    #[must_use]
    pub fn default_partitions(mut self, partitions: i32) -> Self {
        self.settings.default_partitions = partitions;
        self
    }

    /// Requires clients to authenticate. Default: not required.
    #[must_use]
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.sasl = Some(sasl);
        self
    }

    /// Sets the supported API versions. Default: [`Dialect::kafka_4_3`].
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.settings.dialect = dialect;
        self
    }

    /// Restricts the versions of an API, see [`Dialect::cap`].
    #[must_use]
    pub fn cap(mut self, api: ApiKey, versions: Versions) -> Self {
        self.settings.dialect = self.settings.dialect.cap(api, versions);
        self
    }

    /// Keeps up to this many entries of the [`Journal`](crate::Journal). Default: none.
    #[must_use]
    pub fn journal(mut self, entries: usize) -> Self {
        self.settings.journal = entries;
        self
    }

    /// Seeds ids and the probabilities of faults: the same seed gives the same history. Default: random.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Sets the time at the start, in milliseconds since the epoch; it advances with tokio's clock.
    ///
    /// Default: the system's time.
    #[must_use]
    pub fn started_at(mut self, unix_ms: i64) -> Self {
        self.started_unix_ms = Some(unix_ms);
        self
    }

    /// Sets the size of the largest request that is accepted, in bytes (`socket.request.max.bytes`).
    ///
    /// Default: 100 MiB.
    #[must_use]
    pub fn max_frame_len(mut self, bytes: usize) -> Self {
        self.max_frame_len = bytes;
        self
    }

    /// Sets the TCP port of the first broker for [`start`](Self::start); the others follow it.
    ///
    /// Default: free ones.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the address of a broker in metadata, for clients that reach it through something else.
    ///
    /// Default: the real one.
    #[must_use]
    pub fn advertised(mut self, broker: i32, address: HostPort) -> Self {
        self.advertised.insert(broker, address);
        self
    }

    /// Starts on TCP ports of 127.0.0.1: free ones, unless [set](Self::port).
    ///
    /// # Errors
    /// [`Error::Listen`]; [`Error::InvalidSetting`]; [`Error::CreateTopic`].
    ///
    /// # Panics
    /// Outside a tokio runtime with IO and time enabled.
    pub async fn start(self) -> Result<EmbeddedCluster, Error> {
        let bind = Bind::Tcp(self.port);
        self.start_on(bind)
    }

    /// Starts in a new memory network, which [`connector`](EmbeddedCluster::connector) reaches.
    ///
    /// The brokers are `broker-1:9092`, `broker-2:9092` and so on.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`]; [`Error::CreateTopic`].
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub fn start_in_memory(self) -> Result<EmbeddedCluster, Error> {
        self.start_on(Bind::Memory(MemoryNetwork::default()))
    }

    /// Starts in a memory network: the first broker at `address`, the others at the ports that follow.
    ///
    /// # Errors
    /// [`Error::ListenInMemory`]; [`Error::InvalidSetting`]; [`Error::CreateTopic`].
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub fn start_in(self, network: &MemoryNetwork, address: HostPort) -> Result<EmbeddedCluster, Error> {
        self.start_on(Bind::MemoryAt(network.clone(), address))
    }

    fn start_on(self, bind: Bind) -> Result<EmbeddedCluster, Error> {
        let runtime = Handle::current();
        let mut settings = self.settings;
        settings.broker.is_old = settings.dialect.has_old_settings();
        let replicas = self.brokers.clamp(1, USUAL_REPLICATION).to_string();
        let in_sync = if self.brokers < USUAL_REPLICATION { "1" } else { "2" };
        let of_coordinators = [
            ("transaction.state.log.replication.factor", replicas.as_str()),
            ("transaction.state.log.min.isr", in_sync),
        ];
        let of_topics = (self.brokers > 1).then_some(("default.replication.factor", replicas.as_str()));
        let given = self.broker_settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in of_coordinators.into_iter().chain(of_topics).chain(given) {
            settings.broker.set(name, value).map_err(|message| Error::InvalidSetting { message })?;
        }
        let clock = Clock::new(self.started_unix_ms.unwrap_or_else(system_time_ms));
        let mut cluster = Cluster::new(settings, clock.now());
        let mut listening = Vec::new();
        for broker in 1..=self.brokers {
            let acceptor = bind.listen(broker, &runtime)?;
            let address = acceptor.address()?;
            let advertised = self.advertised.get(&broker).unwrap_or(&address);
            cluster.register(broker, advertised.clone());
            listening.push((broker, address, acceptor));
        }
        for topic in &self.topics {
            create(&mut cluster, topic)?;
        }
        let shared = Arc::new(Shared::new(cluster, clock, self.max_frame_len, self.sasl));
        let listeners = Listeners::default();
        for (broker, address, acceptor) in listening {
            listeners.open(broker, address, acceptor, &shared, &runtime);
        }
        let timers = runtime.spawn(run_timers(Arc::clone(&shared)));
        Ok(EmbeddedCluster { shared, listeners, bind, runtime, timers })
    }
}

/// The usual replication factor of logs that matter.
const USUAL_REPLICATION: i32 = 3;

#[expect(clippy::disallowed_methods, reason = "a broker has a clock; `started_at` replaces it")]
fn system_time_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
