//! How connections are opened: one attempt at a time to a broker that may be dead, with pauses in between,
//! and its result for all that wait; and an open one is shared while no other can be had.

use std::{
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::OwnedMutexGuard,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tracing::debug;

use super::{Attempt, BrokerConnections, ConnectionPool, PooledConnection, Purpose, lock};
use crate::{
    backoff::Backoff,
    connection::{Connection, Connector},
    error::{Error, ErrorKind},
    metrics::BrokerMetrics,
};

/// For how long a connection is shared before another attempt to open a separate one.
const SHARED_FOR: Duration = Duration::from_secs(30);

impl ConnectionPool {
    /// Opens a connection, or returns one that is open already: at once if the attempt fails, and after a
    /// while if it takes long. A broker may limit connections, and as long as one of them works, calls do.
    pub(super) async fn connect_or_borrow(
        &self,
        pooled: &Arc<PooledConnection>,
    ) -> Result<Connection, Error> {
        let mut connecting = pin!(self.connect(pooled));
        let patience = self.config.deadlines.connect / 10;
        let result = match timeout(patience, &mut connecting).await {
            Ok(result) => result,
            Err(_) => match self.borrow(pooled) {
                Some(connection) => return Ok(connection),
                None => connecting.await,
            },
        };
        result.or_else(|error| {
            let Some(connection) = self.borrow(pooled) else { return Err(error) };
            pooled.broker.report_sharing(&error);
            Ok(connection)
        })
    }

    /// Opens a connection, once for all that share it. The context of its errors is the caller's to set.
    ///
    /// The attempt is a task, so that its result is there for those that wait, also if this caller leaves.
    pub(super) async fn connect(&self, pooled: &Arc<PooledConnection>) -> Result<Connection, Error> {
        let broker = &pooled.broker;
        let before = broker.failures();
        let place = Arc::clone(&pooled.connecting).lock_owned().await;
        if let Some(connection) = pooled.connection() {
            return Ok(connection);
        }
        let turn = Arc::clone(&broker.endpoint.turn).lock_owned().await;
        if let Some(error) = broker.failed_since(before) {
            return Err(error);
        }
        self.attempt(pooled, place, turn).await.unwrap_or_else(|_| Err(ErrorKind::Closed.into()))
    }

    /// Starts an attempt to connect, which holds the place until it has ended, and its turn unless the broker
    /// is well: it answers on another connection, and the last attempt succeeded.
    fn attempt(
        &self,
        pooled: &Arc<PooledConnection>,
        place: OwnedMutexGuard<()>,
        turn: OwnedMutexGuard<()>,
    ) -> JoinHandle<Result<Connection, Error>> {
        let broker = Arc::clone(&pooled.broker);
        let connector = Connector {
            to: broker.address.clone(),
            history: Arc::clone(&broker.endpoint.history),
            config: Arc::clone(&self.config),
            random: self.random.clone(),
            runtime: self.runtime.clone(),
            troubles: Arc::clone(&self.troubles),
            metrics: BrokerMetrics::new(broker.id(), pooled.purpose),
        };
        // A new connection does not end the pause that the broker demanded on the one before.
        let paused_until = lock(&pooled.open).as_ref().and_then(|open| open.connection.throttled_until());
        let (purpose, pooled_weakly) = (pooled.purpose, Arc::downgrade(pooled));
        let is_alive = self.has_open(pooled);
        let turn = Some(turn).filter(|_| !(is_alive && broker.is_healthy() && !broker.has_failed()));
        let task = self.runtime.spawn(async move {
            let (_place, _turn) = (place, turn);
            let begun = Instant::now();
            let result = connector.connect(paused_until).await;
            match &result {
                Ok(connection) => {
                    debug!(%broker, ?purpose, "connected");
                    broker.connected();
                    connector.troubles.connected(&broker.address);
                    if let Some(pooled) = pooled_weakly.upgrade() {
                        pooled.store(connection, None);
                    }
                }
                Err(error) => {
                    debug!(%broker, ?purpose, %error, "not connected");
                    connector.metrics.not_connected(error);
                    let pauses = || Backoff::new(connector.config.retry, connector.random.fork());
                    broker.connect_failed(error, pauses);
                    match is_alive {
                        true => broker.report_sharing(error),
                        false => {
                            broker.mark_unhealthy();
                            let is_listed = broker.id().is_some();
                            connector.troubles.connect_failed(&broker.address, is_listed, begun, error);
                        }
                    }
                }
            }
            result
        });
        *lock(&pooled.attempt) = Some(Attempt(task.abort_handle()));
        task
    }

    /// Takes the open connection of another place to the same broker, unless one's own is open by now.
    fn borrow(&self, pooled: &Arc<PooledConnection>) -> Option<Connection> {
        if let Some(connection) = pooled.connection() {
            return Some(connection);
        }
        let connection = {
            let state = &mut *lock(&self.state);
            state.connections.get(&pooled.broker.reference)?.least_used(pooled)?
        };
        debug!(broker = %pooled.broker, purpose = ?pooled.purpose, "sharing an open connection");
        pooled.store(&connection, Some(Instant::now() + SHARED_FOR));
        Some(connection)
    }

    /// Tries to open a separate connection once more, in the background, if one has been borrowed for long.
    pub(super) fn replace_borrowed(&self, pooled: &Arc<PooledConnection>) {
        let is_due = |open: &super::Open| open.borrowed_until.is_some_and(|until| until <= Instant::now());
        if !lock(&pooled.open).as_ref().is_some_and(is_due) {
            return;
        }
        let broker = &pooled.broker;
        let (Ok(place), Ok(turn)) = (
            Arc::clone(&pooled.connecting).try_lock_owned(),
            Arc::clone(&broker.endpoint.turn).try_lock_owned(),
        ) else {
            return;
        };
        if let Some(open) = &mut *lock(&pooled.open) {
            open.borrowed_until = Some(Instant::now() + SHARED_FOR);
        }
        if broker.failed_since(broker.failures()).is_none() {
            drop(self.attempt(pooled, place, turn));
        }
    }

    /// Whether another connection to the broker is open.
    fn has_open(&self, pooled: &PooledConnection) -> bool {
        let state = lock(&self.state);
        let connections = state.connections.get(&pooled.broker.reference);
        connections
            .is_some_and(|connections| connections.places().any(|other| other.own_connection().is_some()))
    }
}

impl BrokerConnections {
    pub(super) fn places(&self) -> impl Iterator<Item = Arc<PooledConnection>> {
        let leased = self.produce.iter().chain(&self.fetch).filter_map(Weak::upgrade);
        std::iter::once(Arc::clone(&self.general)).chain(leased)
    }

    /// Returns the open connection that suits a place best: one for the same purpose, then the one that the
    /// fewest share.
    fn least_used(&self, pooled: &PooledConnection) -> Option<Connection> {
        let users = |connection: &Connection| {
            let shares =
                |place: &Arc<PooledConnection>| place.connection().is_some_and(|other| other.is(connection));
            self.places().filter(shares).count()
        };
        // A fetch that waits for records delays what comes after it: rather an append, and short requests,
        // which all need, at last.
        let rank = |purpose| match (pooled.purpose, purpose) {
            (wanted, offered) if wanted == offered => 0,
            (Purpose::Fetch, Purpose::General) | (_, Purpose::Fetch) => 2,
            _ => 1,
        };
        let open = self.places().filter_map(|place| Some((rank(place.purpose), place.own_connection()?)));
        open.min_by_key(|(rank, connection)| (*rank, users(connection))).map(|(_, connection)| connection)
    }
}
