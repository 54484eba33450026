//! Brokers, their connections, and what each of them knows of the cluster.

use std::{collections::BTreeMap, time::Instant};

use kwal_protocol::{api::ApiKey, wire::Uuid};
use kwal_transport::HostPort;

use super::partition::State;

/// A broker.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where Metadata says that it is.
    pub(super) advertised: HostPort,
    pub(super) condition: Condition,
    /// The controller counts it among the living: it is told to clients and may lead.
    pub(super) alive: bool,
    /// When the controller gives it up if it does not come back.
    pub(super) given_up_at: Option<Instant>,
    /// How often all its connections were closed: those of an earlier life are over.
    pub(super) life: u64,
    pub(super) connections: Connections,
    pub(super) requests: BTreeMap<ApiKey, u64>,
    /// What it knows instead of what is, if it is kept from hearing of changes.
    pub(super) outdated: Option<View>,
}

/// How a broker's process does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Condition {
    Running,
    /// Stopped by a signal: connections stay open, and nobody answers.
    Paused,
    Down,
}

/// How many connections there are to a broker or to all.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Connections {
    /// Open now.
    pub open: usize,
    /// Taken so far, the open ones included.
    pub accepted: usize,
    /// Open at the same time at the most.
    pub most_open: usize,
}

/// A connection to a broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connected {
    pub(crate) node: i32,
    pub(super) life: u64,
    /// Counts all connections of the cluster.
    pub(crate) number: u64,
}

/// What a broker has heard of the cluster at some time.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) nodes: BTreeMap<i32, HostPort>,
    pub(super) topics: BTreeMap<String, (Uuid, Vec<State>)>,
}

impl View {
    /// What is known of a partition of a topic of this name and id.
    pub(super) fn state(&self, topic: &str, id: Uuid, index: usize) -> Option<&State> {
        let (known, states) = self.topics.get(topic)?;
        states.get(index).filter(|_| *known == id)
    }

    /// Who is in sync is decided by the leader, so what there is of it is known to it.
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

    /// Whether a connection is of this life.
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
