//! The cluster that a test starts.

use std::sync::Arc;

use kwal_protocol::api::ApiKey;
use kwal_transport::{Connect, HostPort, Tcp};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    check::Recorder,
    cluster::{CannotLead, Connections, QuotaKind},
    error::Error,
    fault::{Fault, FaultCounts, FaultTarget},
    journal::Journal,
    listen::{Bind, Listeners},
    serve::Shared,
};

/// A Kafka cluster in this process, with its logs in memory.
///
/// It runs as tasks of the tokio runtime that it was started on, and ends when it is dropped. Its methods may
/// be called from anywhere at any time, and none of them waits. They read and change the state directly,
/// without a request: no fault applies to them, and they are not counted.
///
/// Brokers have ids from 1.
///
/// ```
/// use kwal_testkit::EmbeddedCluster;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), kwal_testkit::Error> {
/// let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory()?;
/// assert_eq!(cluster.leader("wal", 0)?, Some(1));
///
/// cluster.move_leader("wal", 0, 2)?;
/// cluster.stop(2)?;
/// assert_eq!((cluster.leader("wal", 0)?, cluster.leader_epoch("wal", 0)?), (Some(1), 2));
/// assert_eq!(cluster.in_sync("wal", 0)?, [1, 3]);
///
/// cluster.restart(2)?;
/// assert_eq!(cluster.in_sync("wal", 0)?, [1, 2, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EmbeddedCluster {
    pub(super) shared: Arc<Shared>,
    pub(super) listeners: Listeners,
    pub(super) bind: Bind,
    pub(super) runtime: Handle,
    pub(super) timers: JoinHandle<()>,
}

impl EmbeddedCluster {
    /// Returns the bootstrap addresses: `host:port` of every broker, by ascending id.
    pub fn bootstrap(&self) -> Vec<String> {
        self.listeners.addresses().into_iter().map(|(_, address)| address.to_string()).collect()
    }

    /// Returns the address of a broker.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn address(&self, broker: i32) -> Result<HostPort, Error> {
        let found = self.listeners.addresses().into_iter().find(|(id, _)| *id == broker);
        found.map(|(_, address)| address).ok_or(Error::UnknownBroker { broker })
    }

    /// Returns a connector that reaches the brokers: TCP, or the memory network that they were started in.
    pub fn connector(&self) -> Arc<dyn Connect> {
        match self.bind.network() {
            Some(network) => Arc::new(network.clone()),
            None => Arc::new(Tcp::default()),
        }
    }

    /// Applies a fault to the next request of an API, or whatever a [`FaultTarget`] matches.
    ///
    /// Several faults for the same target apply in the order in which they were added.
    pub fn on(&self, target: impl Into<FaultTarget>, fault: Fault) {
        self.on_times(target, 1, fault);
    }

    /// Applies a fault to the next `times` requests, after the faults that were added earlier.
    pub fn on_times(&self, target: impl Into<FaultTarget>, times: usize, fault: Fault) {
        self.shared.with(|cluster| cluster.faults.add(target.into(), Some(times), fault));
    }

    /// Applies a fault to all requests until [`clear_faults`](Self::clear_faults).
    ///
    /// Faults that were added earlier apply first.
    pub fn on_all(&self, target: impl Into<FaultTarget>, fault: Fault) {
        self.shared.with(|cluster| cluster.faults.add(target.into(), None, fault));
    }

    /// Removes all faults that did not apply yet.
    pub fn clear_faults(&self) {
        self.shared.with(|cluster| cluster.faults.clear());
    }

    /// Returns how often faults are still to apply.
    ///
    /// 0 means that a test met every fault that it planned. A fault for all requests counts once.
    pub fn faults_left(&self) -> usize {
        self.shared.with(|cluster| cluster.faults.left())
    }

    /// Sets the produce quota of a client id on each broker, in bytes per second (`producer_byte_rate`).
    ///
    /// `None` as the client id is the default for clients without a quota; `None` bytes remove the quota. As
    /// in Kafka, a request over the quota is carried out, its response has a throttle time, and the broker
    /// reads nothing more from the connection until it is over (KIP-219).
    pub fn limit_produce(&self, client_id: Option<&str>, bytes_per_second: Option<u64>) {
        self.shared.with(|cluster| cluster.limit(QuotaKind::Produce, client_id, bytes_per_second));
    }

    /// Sets the fetch quota (`consumer_byte_rate`), see [`limit_produce`](Self::limit_produce).
    ///
    /// A fetch over the quota is answered without records.
    pub fn limit_fetch(&self, client_id: Option<&str>, bytes_per_second: Option<u64>) {
        self.shared.with(|cluster| cluster.limit(QuotaKind::Fetch, client_id, bytes_per_second));
    }

    /// Forgets the producer id and epoch of a transactional id.
    ///
    /// The coordinator does so after `transactional.id.expiration.ms`.
    ///
    /// Returns `false` if the id was unknown.
    pub fn forget_transactional_id(&self, name: &str) -> bool {
        self.shared.with(|cluster| cluster.forget_name(name))
    }

    /// Returns all transactional ids that coordinators know, sorted.
    pub fn transactional_ids(&self) -> Vec<String> {
        self.shared.with(|cluster| cluster.transactional_ids())
    }

    /// Sets the epoch of a transactional id, as that many calls of InitProducerId do.
    ///
    /// The coordinator returns epochs up to 32766; then it changes the producer id.
    ///
    /// Returns `false` if the id is unknown.
    pub fn set_producer_epoch(&self, name: &str, epoch: i16) -> bool {
        self.shared.with(|cluster| cluster.set_producer_epoch(name, epoch))
    }

    /// Returns the broker that coordinates a transactional id.
    ///
    /// It leads a partition of the internal topic `__transaction_state`, which is created if it does not
    /// exist. `None` if no replica of that partition is available, or if the topic cannot be created.
    pub fn coordinator(&self, name: &str) -> Option<i32> {
        self.shared.with(|cluster| cluster.coordinator(name))
    }

    /// Makes another broker the coordinator of a transactional id, by an election.
    ///
    /// Other transactional ids in the same partition of `__transaction_state` move with it. The new
    /// coordinator answers COORDINATOR_LOAD_IN_PROGRESS at first.
    ///
    /// # Errors
    /// [`Error::CannotLead`] if the broker is not alive and in sync.
    pub fn move_coordinator(&self, name: &str, to: i32) -> Result<(), Error> {
        let moved = self.shared.with(|cluster| cluster.move_coordinator(name, to));
        moved.map_err(|CannotLead| Error::CannotLead { broker: to })
    }

    /// Returns how often faults affected clients.
    pub fn fault_counts(&self) -> FaultCounts {
        self.shared.with(|cluster| cluster.fault_counts())
    }

    /// Returns a copy of the [journal](crate::EmbeddedClusterBuilder::journal).
    pub fn journal(&self) -> Journal {
        self.shared.with(|cluster| cluster.journal().clone())
    }

    /// Writes a note into the journal.
    pub fn note(&self, text: impl Into<String>) {
        self.shared.with(|cluster| cluster.note(|| text.into()));
    }

    /// Records losses that no client can prevent, from now on.
    ///
    /// These are records lost by elections, deletions, and topics that were created again; also leader epochs
    /// that went back, and ends of logs that deposed leaders returned. Do not hold the recorder's lock while
    /// calling the cluster.
    pub fn record_losses(&self, recorder: &Recorder) {
        self.shared.with(|cluster| cluster.record_losses(recorder.clone()));
    }

    /// Returns what records the losses.
    pub(crate) fn recorder(&self) -> Option<Recorder> {
        self.shared.with(|cluster| cluster.recorder().cloned())
    }

    /// Returns the time of the brokers, in milliseconds since the epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        self.shared.now().unix_ms
    }

    /// Returns whether old records of a topic are deleted, and whether it is compacted.
    pub(crate) fn cleanup_policy(&self, topic: &str) -> Option<(bool, bool)> {
        self.shared
            .with(|cluster| cluster.topic(topic).map(|topic| (topic.config.deletes, topic.config.compacted)))
    }

    /// Returns how many requests of an API have arrived at all brokers, whatever their results.
    pub fn requests(&self, api: ApiKey) -> u64 {
        self.shared.with(|cluster| cluster.requests(api))
    }

    /// Returns how many requests of an API have arrived at one broker.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn requests_to(&self, broker: i32, api: ApiKey) -> Result<u64, Error> {
        let requests = self.shared.with(|cluster| Some(cluster.node(broker)?.requests(api)));
        requests.ok_or(Error::UnknownBroker { broker })
    }

    /// Returns the number of connections to all brokers, including removed ones.
    pub fn connections(&self) -> Connections {
        self.shared.with(|cluster| cluster.connections())
    }

    /// Returns the number of connections to one broker.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn connections_to(&self, broker: i32) -> Result<Connections, Error> {
        let connections = self.shared.with(|cluster| Some(cluster.node(broker)?.connections()));
        connections.ok_or(Error::UnknownBroker { broker })
    }
}

impl Drop for EmbeddedCluster {
    fn drop(&mut self) {
        self.timers.abort();
        self.listeners.close_all();
        self.shared.with(|cluster| {
            let all: Vec<_> = cluster.node_ids().collect();
            all.into_iter().for_each(|node| cluster.remove(node));
        });
    }
}
