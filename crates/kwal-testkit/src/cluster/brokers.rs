//! Adds brokers, opens and closes their connections, and tracks what each of them knows.

use std::collections::{BTreeMap, BTreeSet};

use kwal_protocol::wire::Uuid;
use kwal_transport::HostPort;

use super::{
    node::{Condition, Connected, Connections, Node, View},
    partition::State,
    state::Cluster,
};
use crate::{
    fault::{Fault, Incoming},
    journal::JournalEvent,
};

impl Cluster {
    /// Adds a broker, running and alive.
    pub(crate) fn register(&mut self, id: i32, advertised: HostPort) {
        let node = Node {
            advertised,
            condition: Condition::Running,
            alive: true,
            session_ends_at: None,
            life: 0,
            connections: Connections::default(),
            connection_limit: None,
            requests: BTreeMap::new(),
            outdated: None,
        };
        self.nodes.insert(id, node);
        self.last_node = self.last_node.max(id);
        self.choose_controller();
        self.changed = true;
    }

    /// Returns the ids of all brokers, including those that are down.
    pub(crate) fn node_ids(&self) -> impl Iterator<Item = i32> {
        self.nodes.keys().copied()
    }

    /// Returns an id that no broker ever had.
    pub(crate) fn fresh_node(&self) -> i32 {
        self.last_node + 1
    }

    pub(crate) fn node(&self, id: i32) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// Limits the open connections of a broker; `None` is the limit of all brokers.
    pub(crate) fn limit_connections(&mut self, node: i32, limit: Option<usize>) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.connection_limit = limit;
        }
    }

    /// Opens a connection to a broker; `None` if it is down or refuses the connection.
    pub(crate) fn open(&mut self, node: i32) -> Option<(Connected, Fault)> {
        let of_all =
            usize::try_from(self.settings.broker.number("max.connections.per.ip")).unwrap_or(usize::MAX);
        let found = self.nodes.get_mut(&node)?;
        if found.condition == Condition::Down {
            return None;
        }
        let limit = found.connection_limit.unwrap_or(of_all);
        if found.connections.open >= limit {
            found.connections.refused += 1;
            self.connections.refused += 1;
            self.fault_counts.connections += 1;
            self.note(|| format!("{node} accepts a connection and closes it: {limit} may be open"));
            return None;
        }
        found.connections.add();
        self.connections.add();
        let number = self.next_connection;
        self.next_connection += 1;
        let connected = Connected { node, life: found.life, number };
        let incoming = Incoming { api: None, broker: node, partitions: &[] };
        let fault = self.faults.next(incoming, &mut self.random);
        if fault != Fault::Pass {
            self.count_refused_connection();
        }
        self.record(JournalEvent::Opened { connection: number, broker: node, fault });
        Some((connected, fault))
    }

    /// Notes that a connection has ended.
    pub(crate) fn close(&mut self, connection: Connected) {
        self.connection_ended(connection.number);
        self.record(JournalEvent::Closed { connection: connection.number, broker: connection.node });
        if let Some(node) = self.nodes.get_mut(&connection.node).filter(|node| node.has(connection)) {
            node.connections.open -= 1;
            self.connections.open -= 1;
        }
    }

    /// Closes all connections of a broker.
    pub(crate) fn disconnect(&mut self, node: i32) {
        self.count_faults(node);
        let Some(node) = self.nodes.get_mut(&node) else { return };
        node.life += 1;
        self.connections.open -= std::mem::take(&mut node.connections.open);
        self.closed = true;
    }

    /// Returns whether the broker keeps a connection open.
    pub(crate) fn is_open(&self, connection: Connected) -> bool {
        self.nodes.get(&connection.node).is_some_and(|node| node.has(connection))
    }

    /// Returns whether connections were closed since the last call.
    pub(crate) fn take_closed(&mut self) -> bool {
        std::mem::take(&mut self.closed)
    }

    pub(crate) fn is_paused(&self, node: i32) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.condition == Condition::Paused)
    }

    /// Returns the number of connections to all brokers, including removed ones.
    pub(crate) fn connections(&self) -> Connections {
        self.connections
    }

    /// Returns whether a broker handles requests for the controller.
    ///
    /// It is the controller, or forwards them (KIP-500).
    pub(super) fn controls(&self, node: i32) -> bool {
        self.settings.dialect.forwards() || node == self.controller
    }

    pub(crate) fn controller(&self) -> i32 {
        self.controller
    }

    /// Makes a broker the controller; returns `false` if it is not alive.
    pub(crate) fn move_controller(&mut self, node: i32) -> bool {
        let alive = self.is_alive(node);
        if alive {
            self.controller = node;
        }
        alive
    }

    /// Replaces a dead controller by the live broker with the lowest id.
    pub(super) fn choose_controller(&mut self) {
        if !self.is_alive(self.controller) {
            let next = self.alive().next();
            self.controller = next.unwrap_or(-1);
        }
    }

    pub(super) fn is_alive(&self, node: i32) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.alive)
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = i32> + '_ {
        self.nodes.iter().filter(|(_, node)| node.alive).map(|(id, _)| *id)
    }
}

/// What a broker knows of the cluster.
impl Cluster {
    /// Keeps a broker from learning of changes.
    pub(crate) fn hold_metadata(&mut self, node: i32) {
        self.note(|| format!("broker {node} hears of no more changes"));
        let view = View {
            nodes: self.living(),
            topics: self
                .topics
                .iter()
                .map(|(name, topic)| {
                    let states = topic.partitions.iter().map(|partition| partition.state.clone());
                    (name.clone(), (topic.id, states.collect()))
                })
                .collect(),
        };
        if let Some(node) = self.nodes.get_mut(&node) {
            node.outdated.get_or_insert(view);
        }
    }

    /// Lets a broker learn of all changes again.
    pub(crate) fn release_metadata(&mut self, node: i32) {
        self.note(|| format!("broker {node} hears of everything again"));
        if let Some(node) = self.nodes.get_mut(&node) {
            node.outdated = None;
        }
        self.replicate_all();
        self.changed = true;
    }

    /// Returns the addresses of the brokers, as far as `node` knows.
    pub(super) fn endpoints(&self, node: i32) -> BTreeMap<i32, HostPort> {
        match self.outdated(node) {
            Some(view) => view.nodes.clone(),
            None => self.living(),
        }
    }

    /// Returns the addresses of the leaders that a response names (KIP-951).
    pub(super) fn endpoints_of(&self, node: i32, leaders: impl Iterator<Item = i32>) -> Vec<(i32, HostPort)> {
        let named: BTreeSet<_> = leaders.filter(|id| *id >= 0).collect();
        if named.is_empty() {
            return Vec::new();
        }
        self.endpoints(node).into_iter().filter(|(id, _)| named.contains(id)).collect()
    }

    /// Returns the names of the topics that `node` knows.
    pub(super) fn known_topics(&self, node: i32) -> Vec<String> {
        match self.outdated(node) {
            Some(view) => view.topics.keys().cloned().collect(),
            None => self.topics.keys().cloned().collect(),
        }
    }

    /// Returns the id of a topic and the states of its partitions, as far as `node` knows.
    pub(super) fn states(&self, node: i32, topic: &str) -> Option<(Uuid, Vec<&State>)> {
        match self.outdated(node) {
            Some(view) => view.topics.get(topic).map(|(id, states)| (*id, states.iter().collect())),
            None => self
                .topics
                .get(topic)
                .map(|topic| (topic.id, topic.partitions.iter().map(|partition| &partition.state).collect())),
        }
    }

    fn outdated(&self, node: i32) -> Option<&View> {
        self.nodes.get(&node)?.outdated.as_ref()
    }

    fn living(&self) -> BTreeMap<i32, HostPort> {
        let living = self.nodes.iter().filter(|(_, node)| node.alive);
        living.map(|(id, node)| (*id, node.advertised.clone())).collect()
    }
}
