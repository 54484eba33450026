//! What the pool has open now.

use std::sync::atomic::Ordering;

use super::{BrokerRef, ConnectionPool, PooledConnection, lock};
use crate::state::{BrokerState, ConnectionState};

impl ConnectionPool {
    /// Returns the brokers and the connections to them: those of the cluster by id, then bootstrap addresses
    /// that are in use.
    pub(crate) fn brokers(&self) -> Vec<BrokerState> {
        let state = lock(&self.state);
        let known = state.addresses.iter().map(|(id, address)| (BrokerRef::Id(*id), address));
        let seeds = state.connections.iter().filter(|(reference, _)| reference.id().is_none());
        let seeds = seeds.map(|(reference, connections)| (*reference, &connections.broker.address));
        known
            .chain(seeds)
            .map(|(reference, address)| {
                let connections = state.connections.get(&reference).into_iter();
                BrokerState {
                    id: reference.id(),
                    address: address.clone(),
                    connections: connections
                        .flat_map(|connections| connections.places())
                        .filter_map(|place| place.state())
                        .collect(),
                    last_error: state.endpoints.get(address).and_then(|endpoint| endpoint.last_error()),
                }
            })
            .collect()
    }
}

impl PooledConnection {
    /// `None` unless it has an open connection of its own.
    fn state(&self) -> Option<ConnectionState> {
        let connection = self.own_connection()?;
        Some(ConnectionState {
            purpose: self.purpose,
            in_flight: connection.in_flight(),
            partitions: self.leases.load(Ordering::Relaxed),
            throttled_for: connection.throttled_for(),
        })
    }
}
