//! The connection pool: the connections to each broker, and how they are shared.

mod any;
mod broker;
mod channel;
mod combined;
mod open;
mod state;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use kwal_transport::HostPort;
use tokio::{runtime::Handle, task::AbortHandle, time::Instant};

use self::{
    broker::Endpoint,
    combined::{FetchQueue, Interim},
};
pub(crate) use self::{
    broker::{Broker, Closed},
    channel::Channel,
};
pub(crate) use self::{
    channel::{Sent, SubmitError},
    combined::PartitionFetch,
};
pub(crate) use crate::state::Purpose;
use crate::{
    config::Config,
    connection::Connection,
    error::{CallContext, Error, ErrorKind},
    memory::Memory,
    random::Random,
    trouble::Troubles,
};

/// The connections of a client.
///
/// A broker works on the requests of one connection one at a time, so requests that may take long (an append
/// that waits for replicas, a fetch that waits for records) have connections of their own. A partition client
/// holds a [`Lease`] on a connection to its leader: on one of its own while there are fewer than the limit,
/// else on the least used one. The lease moves with the leader. A connection without leases and requests is
/// closed.
#[derive(Debug)]
pub(crate) struct ConnectionPool {
    config: Arc<Config>,
    random: Random,
    troubles: Arc<Troubles>,
    /// The budget for the responses to combined fetches.
    memory: Memory,
    runtime: Handle,
    state: Mutex<State>,
    /// The brokers that any-broker requests are under way to.
    asked: Mutex<BTreeMap<BrokerRef, usize>>,
    /// No connection is opened any more.
    is_closed: AtomicBool,
}

/// Counts as one any-broker request until it is dropped.
#[derive(Debug)]
struct Asked<'a>(&'a ConnectionPool, BrokerRef);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = lock(&self.0.asked).entry(self.1) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// The brokers of the cluster, as metadata names them.
    addresses: BTreeMap<i32, HostPort>,
    connections: BTreeMap<BrokerRef, BrokerConnections>,
    /// Of the addresses of the cluster, and of the bootstrap addresses, which often are the same.
    endpoints: BTreeMap<HostPort, Arc<Endpoint>>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum BrokerRef {
    Id(i32),
    /// A bootstrap address by its index: used until the brokers are known, and when those that were tried did
    /// not answer.
    Seed(usize),
}

impl BrokerRef {
    /// Returns the broker's id, unless it is known by its bootstrap address alone.
    pub(crate) fn id(self) -> Option<i32> {
        match self {
            Self::Id(id) => Some(id),
            Self::Seed(_) => None,
        }
    }
}

/// The connections to one broker.
#[derive(Debug)]
struct BrokerConnections {
    broker: Arc<Broker>,
    general: Arc<PooledConnection>,
    produce: Vec<Weak<PooledConnection>>,
    fetch: Vec<Weak<PooledConnection>>,
}

/// A place for one connection, open or not.
#[derive(Debug)]
struct PooledConnection {
    broker: Arc<Broker>,
    purpose: Purpose,
    leases: AtomicUsize,
    open: Mutex<Option<Open>>,
    /// Locked while a connection is opened, so that callers that share it open only one.
    connecting: Arc<tokio::sync::Mutex<()>>,
    /// The task that opens one. It ends with this.
    attempt: Mutex<Option<Attempt>>,
    /// The fetches that share it.
    fetches: FetchQueue,
    /// Those of other connections that are asked on this one, if it is the general one.
    interim: Interim,
}

/// The connection of a place.
#[derive(Debug)]
struct Open {
    connection: Connection,
    /// For that of another place: when to try again to open one's own.
    borrowed_until: Option<Instant>,
}

/// A task that opens a connection, aborted when this is dropped.
#[derive(Debug)]
struct Attempt(AbortHandle);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A partition client's share of a connection for appends or for fetches, to the broker that leads it.
#[derive(Debug)]
pub(crate) struct Lease {
    purpose: Purpose,
    held: Mutex<Option<Held>>,
}

/// Counts as one lease of its connection until it is dropped.
#[derive(Debug)]
struct Held(Arc<PooledConnection>);

impl ConnectionPool {
    pub(crate) fn new(config: Arc<Config>, random: Random, memory: Memory, runtime: Handle) -> Self {
        Self {
            config,
            random,
            troubles: Arc::default(),
            memory,
            runtime,
            state: Mutex::default(),
            asked: Mutex::default(),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Returns the troubles of the client, which begin with its connections.
    pub(crate) fn troubles(&self) -> &Arc<Troubles> {
        &self.troubles
    }

    /// Takes the brokers of the cluster from new metadata. Connections to brokers that are gone or have moved
    /// are closed.
    pub(crate) fn update_brokers(&self, brokers: &BTreeMap<i32, HostPort>) {
        let state = &mut *lock(&self.state);
        if state.addresses != *brokers {
            state.addresses.clone_from(brokers);
            let is_known = |address: &HostPort| {
                brokers.values().chain(&self.config.bootstrap).any(|known| known == address)
            };
            state.endpoints.retain(|address, _| is_known(address));
        }
        let addresses = &state.addresses;
        state.connections.retain(|reference, connections| match reference {
            BrokerRef::Id(id) if addresses.get(id) == Some(&connections.broker.address) => true,
            BrokerRef::Id(_) => {
                connections.retire();
                false
            }
            // Requests that a bootstrap address already works on may be answered.
            BrokerRef::Seed(_) => addresses.is_empty(),
        });
    }

    /// Closes all connections and forgets the brokers: what remains are the bootstrap addresses.
    pub(crate) fn reset(&self) {
        let state = std::mem::take(&mut *lock(&self.state));
        state.connections.values().for_each(BrokerConnections::retire);
    }

    /// Closes all connections for good.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.reset();
    }

    /// Opens the connection to a broker for short requests, or returns the open one.
    pub(crate) async fn general(&self, broker: i32, call: CallContext<'_>) -> Result<Channel, Error> {
        self.general_to(BrokerRef::Id(broker), call).await
    }

    async fn general_to(&self, reference: BrokerRef, call: CallContext<'_>) -> Result<Channel, Error> {
        let pooled = {
            let state = &mut *lock(&self.state);
            self.connections(state, reference).map(|connections| Arc::clone(&connections.general))
        };
        self.channel(pooled, reference, call).await
    }

    /// Opens the connection of a lease to a broker, or returns the open one.
    pub(crate) async fn leased(
        &self,
        lease: &Lease,
        broker: i32,
        call: CallContext<'_>,
    ) -> Result<Channel, Error> {
        let reference = BrokerRef::Id(broker);
        self.channel(self.lease_to(lease, reference), reference, call).await
    }

    /// Whether requests to the broker still go over this connection. If it is that of another place, an
    /// attempt to open one's own begins when it is due.
    pub(crate) fn is_current(&self, channel: &Channel) -> bool {
        let Channel { pooled, connection } = channel;
        self.replace_borrowed(pooled);
        !pooled.broker.is_retired() && pooled.connection().is_some_and(|open| open.is(connection))
    }

    /// Moves a lease to a broker. `None` if the cluster has no such broker.
    fn lease_to(&self, lease: &Lease, reference: BrokerRef) -> Option<Arc<PooledConnection>> {
        let mut held = lock(&lease.held);
        if let Some(Held(pooled)) = &*held
            && pooled.broker.reference == reference
            && !pooled.broker.is_retired()
        {
            return Some(Arc::clone(pooled));
        }
        // Returned first: the new connection may be the same.
        *held = None;
        let state = &mut *lock(&self.state);
        let limit = self.config.limits.max_connections_per_broker;
        let leased = self.connections(state, reference)?.lease(lease.purpose, limit);
        Some(Arc::clone(&held.insert(leased).0))
    }

    /// Makes the next requests for any broker prefer others, until this one has answered.
    pub(crate) fn mark_unhealthy(&self, broker: i32) {
        self.set_healthy(BrokerRef::Id(broker), false);
    }

    /// Returns the connections to a broker. `None` if the cluster has no such broker.
    fn connections<'a>(
        &self,
        state: &'a mut State,
        reference: BrokerRef,
    ) -> Option<&'a mut BrokerConnections> {
        match state.connections.entry(reference) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(vacant) => {
                let address = match reference {
                    BrokerRef::Id(id) => state.addresses.get(&id),
                    BrokerRef::Seed(index) => self.config.bootstrap.get(index),
                };
                let address = address?.clone();
                let endpoint = Arc::clone(state.endpoints.entry(address.clone()).or_default());
                let mut broker = Broker::new(reference, address);
                broker.endpoint = endpoint;
                Some(vacant.insert(BrokerConnections::new(broker)))
            }
        }
    }

    async fn channel(
        &self,
        pooled: Option<Arc<PooledConnection>>,
        reference: BrokerRef,
        call: CallContext<'_>,
    ) -> Result<Channel, Error> {
        let gone = |name: &dyn ToString| {
            Error::new(ErrorKind::UnknownBroker).with_context(call.at_broker(&name.to_string()))
        };
        if self.is_closed.load(Ordering::Acquire) {
            return Err(call.error(ErrorKind::Closed));
        }
        // Metadata names a leader without its address, or no longer; the next response may be complete.
        let Some(pooled) = pooled else { return Err(gone(&self.name_of(reference))) };
        if let Some(connection) = pooled.connection() {
            self.replace_borrowed(&pooled);
            return Ok(Channel { pooled, connection });
        }
        let connected = tokio::select! {
            biased;
            () = pooled.broker.retired() => return Err(gone(&pooled.broker)),
            connected = self.connect_or_borrow(&pooled) => connected,
        };
        match connected {
            Ok(connection) => Ok(Channel { pooled, connection }),
            Err(error) => Err(error.with_context(call.at_broker(&pooled.broker))),
        }
    }

    /// Counts a request that any broker can answer.
    fn ask(&self, reference: BrokerRef) -> Asked<'_> {
        *lock(&self.asked).entry(reference).or_default() += 1;
        Asked(self, reference)
    }

    /// Returns the names of the brokers that requests are under way to which any broker can answer.
    pub(crate) fn asked(&self) -> Option<String> {
        let asked: Vec<_> = lock(&self.asked).keys().copied().collect();
        let names: Vec<_> = asked.into_iter().map(|reference| self.name_of(reference)).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// Returns the name of a broker by its id.
    pub(crate) fn name(&self, broker: i32) -> String {
        self.name_of(BrokerRef::Id(broker))
    }

    /// Returns the name of a broker in errors and logs.
    fn name_of(&self, reference: BrokerRef) -> String {
        match reference {
            BrokerRef::Id(id) => match lock(&self.state).addresses.get(&id) {
                Some(address) => format!("broker {id} ({address})"),
                None => format!("broker {id}"),
            },
            BrokerRef::Seed(index) => match self.config.bootstrap.get(index) {
                Some(address) => address.to_string(),
                None => format!("bootstrap broker {index}"),
            },
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BrokerConnections {
    fn new(broker: Broker) -> Self {
        let broker = Arc::new(broker);
        let general = PooledConnection::new(&broker, Purpose::General);
        Self { broker, general, produce: Vec::new(), fetch: Vec::new() }
    }

    fn lease(&mut self, purpose: Purpose, limit: usize) -> Held {
        let pool = match purpose {
            Purpose::General => return Held::new(Arc::clone(&self.general)),
            Purpose::Produce => &mut self.produce,
            Purpose::Fetch => &mut self.fetch,
        };
        pool.retain(|pooled| pooled.strong_count() > 0);
        if pool.len() >= limit {
            let open = pool.iter().filter_map(Weak::upgrade);
            if let Some(pooled) = open.min_by_key(|pooled| pooled.leases.load(Ordering::Relaxed)) {
                return Held::new(pooled);
            }
        }
        let pooled = PooledConnection::new(&self.broker, purpose);
        pool.push(Arc::downgrade(&pooled));
        Held::new(pooled)
    }

    /// Closes all connections.
    fn retire(&self) {
        self.broker.retire();
        let leased = self.produce.iter().chain(&self.fetch).filter_map(Weak::upgrade);
        for pooled in leased.chain([Arc::clone(&self.general)]) {
            pooled.close();
        }
    }
}

impl PooledConnection {
    fn new(broker: &Arc<Broker>, purpose: Purpose) -> Arc<Self> {
        Arc::new(Self {
            broker: Arc::clone(broker),
            purpose,
            leases: AtomicUsize::new(0),
            open: Mutex::default(),
            connecting: Arc::default(),
            attempt: Mutex::default(),
            fetches: FetchQueue::default(),
            interim: Interim::default(),
        })
    }

    /// Returns the connection, if it is open.
    fn connection(&self) -> Option<Connection> {
        let open = lock(&self.open);
        open.as_ref().filter(|open| open.connection.is_open()).map(|open| open.connection.clone())
    }

    /// Returns the connection, if it is open and not that of another place.
    fn own_connection(&self) -> Option<Connection> {
        let open = lock(&self.open);
        let own = open.as_ref().filter(|open| open.borrowed_until.is_none() && open.connection.is_open());
        own.map(|open| open.connection.clone())
    }

    /// Stores a connection for the callers that share it.
    fn store(&self, connection: &Connection, borrowed_until: Option<Instant>) {
        let mut open = lock(&self.open);
        // Checked under the lock, because `close` closes under it.
        match self.broker.is_retired() {
            true => connection.close(),
            false => *open = Some(Open { connection: connection.clone(), borrowed_until }),
        }
    }

    fn close(&self) {
        drop(lock(&self.attempt).take());
        if let Some(open) = lock(&self.open).take() {
            open.connection.close();
        }
    }
}

impl Held {
    fn new(pooled: Arc<PooledConnection>) -> Self {
        pooled.leases.fetch_add(1, Ordering::Relaxed);
        Self(pooled)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.0.leases.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.fetches.released();
        }
    }
}

impl Lease {
    pub(crate) fn new(purpose: Purpose) -> Self {
        Self { purpose, held: Mutex::default() }
    }

    /// Returns how much longer its connection is throttled, if it is.
    pub(crate) fn throttled_for(&self) -> Option<Duration> {
        let held = lock(&self.held);
        held.as_ref()?.0.connection()?.throttled_for()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(limit: usize) -> ConnectionPool {
        let mut config = Config::default();
        config.limits.max_connections_per_broker = limit;
        let pool =
            ConnectionPool::new(Arc::new(config), Random::new(Some(1)), Memory::new(1), Handle::current());
        pool.update_brokers(&brokers(1));
        pool
    }

    /// Brokers 1 and 2 at a port.
    fn brokers(port: u16) -> BTreeMap<i32, HostPort> {
        (1..=2).map(|id| (id, HostPort::new("a", port))).collect()
    }

    /// How many leases each connection of one broker has, and how many connections there are.
    fn spread(pool: &ConnectionPool, leases: &[Lease], broker: BrokerRef) -> (Vec<usize>, usize) {
        let leased: Vec<_> = leases.iter().map(|lease| pool.lease_to(lease, broker).unwrap()).collect();
        let mut different: Vec<_> = leased.iter().map(Arc::as_ptr).collect();
        different.sort();
        different.dedup();
        let count = |pooled: &*const PooledConnection| {
            leased.iter().filter(|leased| Arc::as_ptr(leased) == *pooled).count()
        };
        (different.iter().map(count).collect(), different.len())
    }

    fn leases(count: usize) -> Vec<Lease> {
        (0..count).map(|_| Lease::new(Purpose::Produce)).collect()
    }

    #[tokio::test]
    async fn the_load_of_each_broker_is_spread_also_when_leaders_move() {
        let pool = pool(4);
        let (one, two) = (BrokerRef::Id(1), BrokerRef::Id(2));
        // Leaders alternate, as those of a topic's partitions do: the load of each broker counts.
        let (odd, even) = (leases(10), leases(10));
        for (a, b) in odd.iter().zip(&even) {
            pool.lease_to(a, one).unwrap();
            pool.lease_to(b, two).unwrap();
        }
        for (leases, broker) in [(&odd, one), (&even, two)] {
            let (counts, connections) = spread(&pool, leases, broker);
            assert_eq!((counts.iter().max(), counts.iter().min(), connections), (Some(&3), Some(&2), 4));
        }
        // All move to one broker, and those that were there keep their connection.
        let before = pool.lease_to(&odd[0], one).unwrap();
        let all: Vec<_> = odd.into_iter().chain(even).collect();
        let (counts, count) = spread(&pool, &all, one);
        assert_eq!((counts, count), (vec![5; 4], 4));
        assert!(Arc::ptr_eq(&before, &pool.lease_to(&all[0], one).unwrap()));
    }

    #[tokio::test]
    async fn a_connection_goes_with_its_last_lease() {
        let pool = pool(4);
        let broker = BrokerRef::Id(1);
        let (one, two) = (Lease::new(Purpose::Fetch), Lease::new(Purpose::Fetch));
        let first = Arc::downgrade(&pool.lease_to(&one, broker).unwrap());
        pool.lease_to(&two, broker).unwrap();
        assert_eq!(first.strong_count(), 1);
        drop(one);
        assert_eq!(first.strong_count(), 0);
        // Appends and fetches do not share connections.
        let produce = Lease::new(Purpose::Produce);
        assert_ne!(
            pool.lease_to(&produce, broker).unwrap().purpose,
            pool.lease_to(&two, broker).unwrap().purpose
        );
    }

    /// In any other order, the same seed would not give the same history.
    #[tokio::test]
    async fn waiters_for_a_retired_broker_wake_in_the_order_in_which_they_came() {
        let pool = pool(1);
        let pooled = pool.lease_to(&Lease::new(Purpose::Fetch), BrokerRef::Id(1)).unwrap();
        let woken = Arc::new(Mutex::new(Vec::new()));
        let waits: Vec<_> = (0..40)
            .map(|number| {
                let (pooled, woken) = (Arc::clone(&pooled), Arc::clone(&woken));
                tokio::spawn(async move {
                    pooled.broker.retired().await;
                    lock(&woken).push(number);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        pool.update_brokers(&BTreeMap::new());
        for wait in waits {
            wait.await.unwrap();
        }
        assert!(lock(&woken).iter().copied().eq(0..40), "{woken:?}");
        pooled.broker.retired().await;
    }

    #[tokio::test]
    async fn a_broker_that_moved_is_another_one() {
        let pool = pool(4);
        let broker = BrokerRef::Id(1);
        let lease = Lease::new(Purpose::Produce);
        let old = pool.lease_to(&lease, broker).unwrap();
        pool.update_brokers(&brokers(1));
        assert!(Arc::ptr_eq(&old, &pool.lease_to(&lease, broker).unwrap()), "it did not move");
        pool.update_brokers(&brokers(2));
        let new = pool.lease_to(&lease, broker).unwrap();
        assert_eq!(
            (old.broker.is_retired(), new.broker.is_retired(), new.broker.address.port),
            (true, false, 2)
        );
        pool.update_brokers(&BTreeMap::new());
        assert!(pool.lease_to(&lease, broker).is_none());
    }
}
