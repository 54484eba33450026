//! The cluster that a test starts.

use std::sync::Arc;

use kwal_protocol::api::ApiKey;
use kwal_transport::{Connect, HostPort, Tcp};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    check::Recorder,
    cluster::{Connections, QuotaKind},
    error::Error,
    fault::{Fault, FaultCounts, FaultTarget},
    journal::Journal,
    listen::{Bind, Listeners},
    serve::Shared,
};

/// A Kafka cluster inside of the process, its logs in memory.
///
/// It runs as tasks of the tokio runtime it was started on, and ends when it is dropped. Its methods may be called from
/// anywhere and at any time; none of them waits. They see and change what there is directly, without a request, so no fault
/// applies to them and nothing is counted.
///
/// Brokers are numbered from 1.
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
    /// Where clients begin: `host:port` of every broker, by rising number.
    pub fn bootstrap(&self) -> Vec<String> {
        self.listeners.addresses().into_iter().map(|(_, address)| address.to_string()).collect()
    }

    /// Where a broker listens.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn address(&self, broker: i32) -> Result<HostPort, Error> {
        let found = self.listeners.addresses().into_iter().find(|(id, _)| *id == broker);
        found.map(|(_, address)| address).ok_or(Error::UnknownBroker { broker })
    }

    /// What reaches the brokers: TCP, or the network in memory that they were started in.
    pub fn connector(&self) -> Arc<dyn Connect> {
        match self.bind.network() {
            Some(network) => Arc::new(network.clone()),
            None => Arc::new(Tcp::default()),
        }
    }

    /// The next request of an API, or whatever an [`FaultTarget`] meets, meets a fault. Of several faults for the same, each is met in
    /// the order they were added.
    pub fn on(&self, target: impl Into<FaultTarget>, fault: Fault) {
        self.on_times(target, 1, fault);
    }

    /// The next `times` that an target meets meet a fault, behind those that were added before.
    pub fn on_times(&self, target: impl Into<FaultTarget>, times: usize, fault: Fault) {
        self.shared.with(|cluster| cluster.faults.add(target.into(), Some(times), fault));
    }

    /// All that an target meets meet a fault, behind those that were added before, until [`clear_faults`](Self::clear_faults).
    pub fn on_all(&self, target: impl Into<FaultTarget>, fault: Fault) {
        self.shared.with(|cluster| cluster.faults.add(target.into(), None, fault));
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

    /// Limits how many bytes a second each broker takes from a client (`producer_byte_rate`), by its client id, or with `None`
    /// from each that has no limit of its own; `None` bytes lift a limit. As in Kafka, what is too much is carried out, its
    /// answer names a pause, and nothing more is read from the connection until that is over (KIP-219).
    pub fn limit_produce(&self, client_id: Option<&str>, bytes_per_second: Option<u64>) {
        self.shared.with(|cluster| cluster.limit(QuotaKind::Produce, client_id, bytes_per_second));
    }

    /// The same for what a client fetches (`consumer_byte_rate`); a fetch that is too much is answered without records.
    pub fn limit_fetch(&self, client_id: Option<&str>, bytes_per_second: Option<u64>) {
        self.shared.with(|cluster| cluster.limit(QuotaKind::Fetch, client_id, bytes_per_second));
    }

    /// Forgets the producer id and epoch of a transactional id, as the coordinator does after `transactional.id.expiration.ms`;
    /// `false` if it knew none.
    pub fn forget_transactional_id(&self, name: &str) -> bool {
        self.shared.with(|cluster| cluster.forget_name(name))
    }

    /// The broker that coordinates a transactional id, if one lives that could.
    pub fn coordinator(&self, name: &str) -> Option<i32> {
        self.shared.with(|cluster| cluster.coordinator(name))
    }

    /// How often what went wrong hit clients at their worst.
    pub fn fault_counts(&self) -> FaultCounts {
        self.shared.with(|cluster| cluster.fault_counts())
    }

    /// What has happened, as far as it is [kept](EmbeddedClusterBuilder::journal).
    pub fn journal(&self) -> Journal {
        self.shared.with(|cluster| cluster.journal().clone())
    }

    /// Writes something into the journal, in words.
    pub fn note(&self, text: impl Into<String>) {
        self.shared.with(|cluster| cluster.note(|| text.into()));
    }

    /// Records from now on what excuses that records are gone, as it happens: elections that lost what all in sync had,
    /// deletions, topics that were made again. The recorder's lock is not to be held while anything is asked of the cluster.
    pub fn record_losses(&self, recorder: &Recorder) {
        self.shared.with(|cluster| cluster.record_losses(recorder.clone()));
    }

    /// How many requests of an API have arrived at any broker, whatever became of them.
    pub fn requests(&self, api: ApiKey) -> u64 {
        self.shared.with(|cluster| cluster.requests(api))
    }

    /// How many requests of an API have arrived at one broker.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`].
    pub fn requests_to(&self, broker: i32, api: ApiKey) -> Result<u64, Error> {
        let requests = self.shared.with(|cluster| Some(cluster.node(broker)?.requests(api)));
        requests.ok_or(Error::UnknownBroker { broker })
    }

    /// The connections to all brokers together, also to those that were removed.
    pub fn connections(&self) -> Connections {
        self.shared.with(|cluster| cluster.connections())
    }

    /// The connections to one broker.
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
