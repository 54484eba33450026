//! The broker that a test starts.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use kwal_protocol::{
    api::{ApiKey, Versions},
    messages::{CreatableConfig, CreatableTopic},
    record::{Batch, Batches, OwnedRecord},
    wire::Uuid,
};
use kwal_transport::{Connect, HostPort, Tcp, memory::MemoryNetwork};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{Duration, sleep},
};

use crate::{
    Dialect, Error, Fault,
    cluster::{Cluster, Partition, Settings},
    log::MAX_UNCOMPRESSED,
    serve::{Acceptor, Clock, Shared, serve},
};

/// A Kafka broker inside of the process, its logs in memory.
///
/// It runs as tasks of the tokio runtime it was started on, and ends when it is dropped. Its methods may be called from
/// anywhere and at any time; none of them waits, but for [`stop`](Self::stop) and [`restart`](Self::restart). They see and
/// change what lies in the logs directly, without a request, so no fault applies to them and nothing is counted.
#[derive(Debug)]
pub struct EmbeddedCluster {
    shared: Arc<Shared>,
    address: HostPort,
    network: Option<MemoryNetwork>,
    listening: Mutex<Option<Listening>>,
}

impl EmbeddedCluster {
    /// Begins a broker; see [`EmbeddedClusterBuilder`].
    pub fn builder() -> EmbeddedClusterBuilder {
        EmbeddedClusterBuilder::default()
    }

    /// Where clients begin: `host:port`.
    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    /// The same in its parts.
    pub fn address(&self) -> &HostPort {
        &self.address
    }

    /// What reaches the broker: TCP, or the network in memory that it was started in.
    pub fn connector(&self) -> Arc<dyn Connect> {
        match &self.network {
            Some(network) => Arc::new(network.clone()),
            None => Arc::new(Tcp::default()),
        }
    }

    /// The next request of an API meets a fault. Faults of the same API are met in the order they were added.
    pub fn on(&self, api: ApiKey, fault: Fault) {
        self.on_times(api, 1, fault);
    }

    /// The next `times` requests of an API meet a fault, behind those that were added before.
    pub fn on_times(&self, api: ApiKey, times: usize, fault: Fault) {
        self.shared.with(|cluster| cluster.faults.add(api, Some(times), fault));
    }

    /// All requests of an API meet a fault, behind those that were added before, until [`clear_faults`](Self::clear_faults).
    pub fn on_all(&self, api: ApiKey, fault: Fault) {
        self.shared.with(|cluster| cluster.faults.add(api, None, fault));
    }

    /// Forgets all faults that were not met yet.
    pub fn clear_faults(&self) {
        self.shared.with(|cluster| cluster.faults.clear());
    }

    /// How many requests are still to meet a fault: 0 says that a test has met all that it planned. A fault for all requests
    /// counts as one.
    pub fn faults_left(&self) -> usize {
        self.shared.with(|cluster| cluster.faults.left())
    }

    /// How many requests of an API have arrived, whatever became of them.
    pub fn requests(&self, api: ApiKey) -> u64 {
        self.shared.with(|cluster| cluster.requests(api))
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// How many connections there have been, the open ones included.
    pub fn connections_accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Closes all connections; new ones are taken.
    pub fn disconnect(&self) {
        self.shared.disconnect.send_replace(());
    }

    /// Closes all connections and takes no new ones, until [`restart`](Self::restart). Logs, topics and what is known of
    /// producers stay.
    ///
    /// If this is dropped early, the broker stops all the same, a moment later.
    pub async fn stop(&self) {
        let listening = self.listening().take();
        if let Some(listening) = listening {
            listening.stop().await;
        }
    }

    /// Goes on at the same address after [`stop`](Self::stop); a broker that runs is stopped first.
    ///
    /// # Errors
    /// If the address cannot be had again.
    pub async fn restart(&self) -> Result<(), Error> {
        self.stop().await;
        let acceptor = match &self.network {
            Some(network) => listen_in(network, self.address.clone())?,
            None => listen_at(self.address.clone()).await?,
        };
        *self.listening() = Some(Listening::start(Arc::clone(&self.shared), acceptor));
        Ok(())
    }

    fn listening(&self) -> std::sync::MutexGuard<'_, Option<Listening>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Topics and logs.
impl EmbeddedCluster {
    /// Makes a topic with default settings; answers its id.
    ///
    /// # Errors
    /// [`Error::Create`], for the reasons a CreateTopics request would be refused.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<Uuid, Error> {
        self.create_topic_with(name, partitions, &[])
    }

    /// Makes a topic with settings, by their names in Kafka; answers its id.
    ///
    /// # Errors
    /// As [`create_topic`](Self::create_topic).
    pub fn create_topic_with(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<Uuid, Error> {
        self.shared.with(|cluster| create(cluster, &creatable(name, partitions, settings)))
    }

    /// Deletes a topic; answers the id that it had, `None` if there is no such topic.
    pub fn delete_topic(&self, name: &str) -> Option<Uuid> {
        self.shared.with(|cluster| cluster.delete_topic(name))
    }

    /// The names of all topics, sorted.
    pub fn topics(&self) -> Vec<String> {
        self.shared.with(|cluster| cluster.topic_names().map(str::to_owned).collect())
    }

    /// The id of a topic.
    pub fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.shared.with(|cluster| cluster.topic(name).map(|topic| topic.id))
    }

    /// All batches of a partition as they lie in its log, control batches included.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn log(&self, topic: &str, partition: i32) -> Result<Vec<Batch>, Error> {
        let batches: Vec<_> = self.look(topic, partition, |found| found.log.batches().collect())?;
        batches.into_iter().flat_map(Batches::new).map(|batch| Ok(batch?)).collect()
    }

    /// All records of a partition, without those of control batches.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`]; [`Error::Batch`] if the codec of a batch is not built in, or it was
    /// [placed](Self::place) and is malformed.
    pub fn records(&self, topic: &str, partition: i32) -> Result<Vec<OwnedRecord>, Error> {
        let start = self.start_offset(topic, partition)?;
        let mut records = Vec::new();
        for batch in self.log(topic, partition)?.iter().filter(|batch| !batch.is_control()) {
            for record in batch.records(MAX_UNCOMPRESSED)? {
                records.push(record?);
            }
        }
        records.retain(|record| record.offset >= start);
        Ok(records)
    }

    /// The first offset of a partition.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn start_offset(&self, topic: &str, partition: i32) -> Result<i64, Error> {
        self.look(topic, partition, |found| found.log.start())
    }

    /// The offset that the next record of a partition gets.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn end_offset(&self, topic: &str, partition: i32) -> Result<i64, Error> {
        self.look(topic, partition, |found| found.log.end())
    }

    /// Puts batches behind the end of a log as they are: control batches, emptied ones, such with holes, which a broker does
    /// not take from clients. Answers the new end of the log.
    ///
    /// The base offset of each counts from the end of the log: 0 follows it, more leaves a hole. What is known of producers
    /// does not change.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`], [`Error::Batch`], [`Error::Misplaced`]; batches before the one that failed are placed.
    pub fn place(&self, topic: &str, partition: i32, batches: Bytes) -> Result<i64, Error> {
        self.change(topic, partition, |found| {
            for batch in Batches::new(batches) {
                let batch = batch?;
                let header = *batch.header();
                let (first, last) = (header.base_offset, header.last_offset());
                if !(0..=last).contains(&first)
                    || found.log.end().checked_add(last).is_none_or(|end| end == i64::MAX)
                {
                    return Err(Error::Misplaced { first, last });
                }
                found.place(batch.bytes().clone(), &header, first);
            }
            Ok(found.log.end())
        })?
    }

    /// Deletes the records before an offset, as DeleteRecords or retention do; nothing outside of the log changes.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<(), Error> {
        self.change(topic, partition, |found| found.log.delete_before(before))
    }

    /// Forgets a producer id, as a partition does when the producer was silent for `producer.id.expiration.ms`.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn forget_producer(&self, topic: &str, partition: i32, producer_id: i64) -> Result<(), Error> {
        self.change(topic, partition, |found| found.producers.forget(producer_id))
    }

    fn look<T>(&self, topic: &str, partition: i32, look: impl FnOnce(&Partition) -> T) -> Result<T, Error> {
        self.shared.with(|cluster| match cluster.partition(topic, partition) {
            Some(found) => Ok(look(found)),
            None => Err(unknown(topic, partition)),
        })
    }

    fn change<T>(
        &self,
        topic: &str,
        partition: i32,
        change: impl FnOnce(&mut Partition) -> T,
    ) -> Result<T, Error> {
        self.shared.with(|cluster| match cluster.partition_mut(topic, partition) {
            Some(found) => Ok(change(found)),
            None => Err(unknown(topic, partition)),
        })
    }
}

/// How an [`EmbeddedCluster`] is to be.
///
/// Without further words it speaks like Kafka 4.3, has no topics and makes none by itself.
#[derive(Clone, Debug)]
pub struct EmbeddedClusterBuilder {
    settings: Settings,
    topics: Vec<CreatableTopic>,
    max_frame_len: usize,
    broker_settings: Vec<(String, String)>,
    started_unix_ms: Option<i64>,
    port: u16,
    advertised: Option<HostPort>,
}

impl Default for EmbeddedClusterBuilder {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            topics: Vec::new(),
            max_frame_len: 100 << 20,
            broker_settings: Vec::new(),
            started_unix_ms: None,
            port: 0,
            advertised: None,
        }
    }
}

impl EmbeddedClusterBuilder {
    /// Has a topic from the start.
    #[must_use]
    pub fn topic(self, name: &str, partitions: i32) -> Self {
        self.topic_with(name, partitions, &[])
    }

    /// Has a topic with settings from the start, by their names in Kafka.
    ///
    /// Heeded are `max.message.bytes`, `message.timestamp.type`, `message.timestamp.before.max.ms`,
    /// `message.timestamp.after.max.ms` and `cleanup.policy` (records of a compacted topic need a key). The others that
    /// Kafka 4.3 knows are kept and told.
    #[must_use]
    pub fn topic_with(mut self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Self {
        self.topics.push(creatable(name, partitions, settings));
        self
    }

    /// Has a setting from the start, as in `server.properties`: one that holds for topics that do not have their own, such as
    /// `log.retention.ms` and `min.insync.replicas`, or one that DescribeConfigs tells, such as `producer.id.expiration.ms`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.broker_settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Makes a topic that a Metadata request asks for and allows to be made (`auto.create.topics.enable`). Default: no.
    #[must_use]
    pub fn auto_create_topics(mut self, yes: bool) -> Self {
        self.settings.auto_create = yes;
        self
    }

    /// How many partitions a topic gets if nobody says (`num.partitions`). Default: 1.
    #[must_use]
    pub fn default_partitions(mut self, partitions: i32) -> Self {
        self.settings.default_partitions = partitions;
        self
    }

    /// Which versions it speaks. Default: [`Dialect::kafka_4_3`].
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.settings.dialect = dialect;
        self
    }

    /// Speaks at most these versions of an API; see [`Dialect::cap`].
    #[must_use]
    pub fn cap(mut self, api: ApiKey, versions: Versions) -> Self {
        self.settings.dialect = self.settings.dialect.cap(api, versions);
        self
    }

    /// Where topic and cluster ids come from: the same seed gives the same ids. Default: random.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// The time when the broker starts, in milliseconds since the epoch; from there on it goes with tokio's clock. Default: the
    /// system's time.
    #[must_use]
    pub fn started_at(mut self, unix_ms: i64) -> Self {
        self.started_unix_ms = Some(unix_ms);
        self
    }

    /// The size of the largest request that is taken, in bytes (`socket.request.max.bytes`). Default: 100 MiB.
    #[must_use]
    pub fn max_frame_len(mut self, bytes: usize) -> Self {
        self.max_frame_len = bytes;
        self
    }

    /// The TCP port of 127.0.0.1 to [start](Self::start) on. Default: a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Where Metadata says that the broker is, if clients are to come through something else. Default: where it is.
    #[must_use]
    pub fn advertised(mut self, address: HostPort) -> Self {
        self.advertised = Some(address);
        self
    }

    /// Starts on a TCP port of 127.0.0.1: a free one, unless one was [chosen](Self::port).
    ///
    /// # Errors
    /// [`Error::Listen`]; [`Error::Create`] if a topic cannot be made.
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO and time enabled.
    pub async fn start(self) -> Result<EmbeddedCluster, Error> {
        let acceptor = listen_at(HostPort::new(Ipv4Addr::LOCALHOST.to_string(), self.port)).await?;
        self.start_with(acceptor, None)
    }

    /// Starts in memory, in a network of its own: [`connector`](EmbeddedCluster::connector) reaches it.
    ///
    /// # Errors
    /// [`Error::Create`] if a topic cannot be made.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time enabled.
    pub fn start_in_memory(self) -> Result<EmbeddedCluster, Error> {
        self.start_in(&MemoryNetwork::default(), HostPort::new("broker-1", 9092))
    }

    /// Starts at an address of a network in memory.
    ///
    /// # Errors
    /// [`Error::ListenInMemory`]; [`Error::Create`] if a topic cannot be made.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time enabled.
    pub fn start_in(self, network: &MemoryNetwork, address: HostPort) -> Result<EmbeddedCluster, Error> {
        let acceptor = listen_in(network, address)?;
        self.start_with(acceptor, Some(network.clone()))
    }

    fn start_with(
        self,
        acceptor: Acceptor,
        network: Option<MemoryNetwork>,
    ) -> Result<EmbeddedCluster, Error> {
        let address = acceptor.address()?;
        let mut settings = self.settings;
        for (name, value) in &self.broker_settings {
            settings.broker.set(name, value).map_err(|message| Error::Setting { message })?;
        }
        let mut cluster = Cluster::new(settings);
        cluster.nodes.insert(NODE, self.advertised.unwrap_or_else(|| address.clone()));
        for topic in &self.topics {
            create(&mut cluster, topic)?;
        }
        let clock = Clock::new(self.started_unix_ms.unwrap_or_else(system_time_ms));
        let shared = Arc::new(Shared::new(cluster, clock, self.max_frame_len));
        let listening = Listening::start(Arc::clone(&shared), acceptor);
        Ok(EmbeddedCluster { shared, address, network, listening: Mutex::new(Some(listening)) })
    }
}

/// The task that takes connections and owns those that serve them.
#[derive(Debug)]
struct Listening {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Listening {
    fn start(shared: Arc<Shared>, acceptor: Acceptor) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop: Some(stop), task: tokio::spawn(accept_all(shared, acceptor, stopped)) }
    }

    async fn stop(mut self) {
        // The receiver is gone only if the task is, which is as good.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = (&mut self.task).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept_all(shared: Arc<Shared>, mut acceptor: Acceptor, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = acceptor.accept() => match accepted {
                Ok(stream) => {
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move { serve(&shared, NODE, stream).await });
                }
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "cannot take a connection");
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            },
        }
    }
    drop(acceptor);
    connections.shutdown().await;
}

/// The id of the only broker.
const NODE: i32 = 1;
/// When a connection cannot be taken, it is usually for want of file descriptors.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

async fn listen_at(at: HostPort) -> Result<Acceptor, Error> {
    match TcpListener::bind((at.host.as_str(), at.port)).await {
        Ok(listener) => Ok(Acceptor::Tcp(listener)),
        Err(source) => Err(Error::Listen { at, source }),
    }
}

fn listen_in(network: &MemoryNetwork, address: HostPort) -> Result<Acceptor, Error> {
    network.listen(address).map(Acceptor::Memory).map_err(Error::ListenInMemory)
}

impl Acceptor {
    fn address(&self) -> Result<HostPort, Error> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(HostPort::from).map_err(|source| {
                Error::Listen { at: HostPort::new(Ipv4Addr::LOCALHOST.to_string(), 0), source }
            }),
            Self::Memory(listener) => Ok(listener.address().clone()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a broker has a clock; `started_at` replaces it")]
fn system_time_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn creatable(name: &str, partitions: i32, settings: &[(&str, &str)]) -> CreatableTopic {
    let setting = |(name, value): &(&str, &str)| CreatableConfig {
        name: (*name).to_owned(),
        value: Some((*value).to_owned()),
    };
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: -1,
        configs: settings.iter().map(setting).collect(),
        ..CreatableTopic::default()
    }
}

fn create(cluster: &mut Cluster, topic: &CreatableTopic) -> Result<Uuid, Error> {
    cluster.create_simply(topic).map_err(|(code, message)| Error::Create {
        topic: topic.name.clone(),
        code,
        message,
    })
}

fn unknown(topic: &str, partition: i32) -> Error {
    Error::UnknownPartition { topic: topic.to_owned(), partition }
}
