//! Brokers, their connections, and what each of them knows of the cluster.

use std::{collections::BTreeMap, time::Instant};

use kwal_protocol::{api::ApiKey, wire::Uuid};
use kwal_transport::HostPort;

use super::partition::State;

/// A broker.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its address in metadata.
    pub(super) advertised: HostPort,
    pub(super) condition: Condition,
    /// Whether the controller considers it alive: it is in metadata and may lead.
    pub(super) alive: bool,
    /// When its session times out.
    pub(super) session_ends_at: Option<Instant>,
    /// How often all its connections were closed. Connections of an earlier life are closed.
    pub(super) life: u64,
    pub(super) connections: Connections,
    /// Takes the place of `max.connections.per.ip`.
    pub(super) connection_limit: Option<usize>,
    pub(super) requests: BTreeMap<ApiKey, u64>,
    /// What it knows while it does not learn of changes.
    pub(super) outdated: Option<View>,
}

/// The state of a broker's process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Condition {
    Running,
    /// Suspended: connections stay open, and nothing is answered.
    Paused,
    Down,
}

/// The number of connections to one broker or to all.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Connections {
    /// Open now.
    pub open: usize,
    /// Accepted so far, including the open ones.
    pub accepted: usize,
    /// Open at the same time at most.
    pub most_open: usize,
    /// Accepted and closed at once, because of a
    /// [limit](crate::EmbeddedCluster::limit_connections). The others do not include them.
    pub refused: usize,
}

/// A connection to a broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connected {
    pub(crate) node: i32,
    pub(super) life: u64,
    /// All connections of the cluster are numbered.
    pub(crate) number: u64,
}

/// What a broker knew of the cluster at some time.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) nodes: BTreeMap<i32, HostPort>,
    pub(super) topics: BTreeMap<String, (Uuid, Vec<State>)>,
}

impl View {
    /// Returns the known state of a partition of the topic with this name and id.
    pub(super) fn state(&self, topic: &str, id: Uuid, index: usize) -> Option<&State> {
        let (known, states) = self.topics.get(topic)?;
        states.get(index).filter(|_| *known == id)
    }

    /// Updates the ISR of a partition, which its leader decides itself.
    pub(super) fn decide(&mut self, topic: &str, id: Uuid, index: usize, own: &State) {
        if let Some((known, states)) = self.topics.get_mut(topic)
            && let Some(state) = states.get_mut(index).filter(|_| *known == id)
            && state.leader_epoch == own.leader_epoch
        {
            state.isr.clone_from(&own.isr);
        }
    }
}

impl Node {
    pub(crate) fn connections(&self) -> Connections {
        self.connections
    }

    pub(crate) fn requests(&self, api: ApiKey) -> u64 {
        self.requests.get(&api).copied().unwrap_or_default()
    }

    /// Returns whether a connection is open.
    pub(super) fn has(&self, connection: Connected) -> bool {
        self.condition != Condition::Down && self.life == connection.life
    }
}

impl Connections {
    pub(crate) fn add(&mut self) {
        self.open += 1;
        self.accepted += 1;
        self.most_open = self.most_open.max(self.open);
    }
}
