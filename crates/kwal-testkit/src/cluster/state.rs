//! The state of a cluster.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kwal_protocol::{api::ApiKey, wire::Uuid};

use super::{
    coordinator::Coordinators,
    event::Event,
    node::{Connected, Connections, Node},
    partition::Topic,
    quota::{QuotaKind, Quotas},
    request::{ClientId, Pending},
};
use crate::{
    check::Recorder,
    dialect::Dialect,
    fault::{FaultCounts, FaultSchedule},
    journal::Journal,
    topic_config::BrokerConfig,
};

/// The state of a cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) faults: FaultSchedule,
    pub(super) nodes: BTreeMap<i32, Node>,
    /// The highest id that a broker ever had.
    pub(super) last_node: i32,
    /// The broker that handles the requests for the controller.
    pub(super) controller: i32,
    pub(super) cluster_id: Uuid,
    pub(super) topics: BTreeMap<String, Topic>,
    pub(super) names: BTreeMap<Uuid, String>,
    pub(super) coordinators: Coordinators,
    pub(super) quotas: Quotas,
    /// The client ids with quotas.
    pub(super) clients: Vec<String>,
    pub(super) next_connection: u64,
    pub(super) connections: Connections,
    pub(super) requests: BTreeMap<ApiKey, u64>,
    /// The unanswered request of each connection, by connection number.
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) fault_counts: FaultCounts,
    pub(super) journal: Journal,
    /// Records losses that no client can prevent.
    pub(super) recorder: Option<Recorder>,
    pub(super) random: fastrand::Rng,
    /// Planned events, by time and in the order of planning.
    pub(super) events: BTreeMap<(Instant, u64), Event>,
    pub(super) now: Now,
    pub(super) started: Instant,
    pub(super) started_unix_ms: i64,
    pub(super) next_event: u64,
    /// Something happened that a waiting request may have waited for.
    pub(super) changed: bool,
    /// Connections were closed whose tasks do not know yet.
    pub(super) closed: bool,
}

/// The configuration of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) dialect: Dialect,
    pub(crate) auto_create: bool,
    pub(crate) default_partitions: i32,
    pub(crate) seed: Option<u64>,
    pub(crate) broker: BrokerConfig,
    /// How many entries of the journal are kept.
    pub(crate) journal: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dialect: Dialect::default(),
            auto_create: false,
            default_partitions: 1,
            seed: None,
            broker: BrokerConfig::default(),
            journal: 0,
        }
    }
}

/// The time of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// For waits.
    pub(crate) monotonic: Instant,
    /// For timestamps: milliseconds since the epoch.
    pub(crate) unix_ms: i64,
}

impl Cluster {
    pub(crate) fn new(settings: Settings, now: Now) -> Self {
        let mut random = settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self {
            cluster_id: random_id(&mut random),
            faults: FaultSchedule::default(),
            nodes: BTreeMap::new(),
            last_node: 0,
            controller: -1,
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            coordinators: Coordinators::default(),
            quotas: Quotas::default(),
            clients: Vec::new(),
            next_connection: 1,
            connections: Connections::default(),
            requests: BTreeMap::new(),
            pending: BTreeMap::new(),
            fault_counts: FaultCounts::default(),
            journal: Journal::new(settings.journal),
            recorder: None,
            started: now.monotonic,
            random,
            events: BTreeMap::new(),
            now,
            started_unix_ms: now.unix_ms,
            next_event: 0,
            changed: false,
            closed: false,
            settings,
        }
    }

    /// Returns whether anything has changed since the last call that may end a wait.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Counts a request.
    pub(crate) fn count(&mut self, from: Connected, api: ApiKey) {
        *self.requests.entry(api).or_default() += 1;
        if let Some(node) = self.nodes.get_mut(&from.node) {
            *node.requests.entry(api).or_default() += 1;
        }
    }

    /// Returns how many requests of an API have arrived at all brokers.
    pub(crate) fn requests(&self, api: ApiKey) -> u64 {
        self.requests.get(&api).copied().unwrap_or_default()
    }

    /// Sets a quota in bytes per second.
    pub(crate) fn limit(&mut self, what: QuotaKind, client: Option<&str>, bytes_per_second: Option<u64>) {
        self.quotas.limit(what, client, bytes_per_second);
        if !self.quotas.any() {
            self.clients.clear();
        }
    }

    /// Returns when brokers last ran a periodic task whose interval is a setting; the distant past if never.
    pub(super) fn last_run(&self, setting: &str) -> i64 {
        let every = self.settings.broker.number(setting).max(1);
        match self.now.unix_ms.saturating_sub(self.started_unix_ms) / every {
            ..=0 => i64::MIN,
            times => self.started_unix_ms.saturating_add(times.saturating_mul(every)),
        }
    }

    pub(super) fn client(&mut self, id: String) -> ClientId {
        let known = self.clients.iter().position(|known| *known == id);
        ClientId(known.unwrap_or_else(|| {
            self.clients.push(id);
            self.clients.len() - 1
        }))
    }
}

/// Returns a random id that is not reserved by Kafka (version 4, RFC 9562).
pub(super) fn random_id(random: &mut fastrand::Rng) -> Uuid {
    let mut bytes = random.u128(..).to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Uuid(bytes)
}

impl Now {
    /// Returns another time of the same clock.
    pub(super) fn at(self, monotonic: Instant) -> Self {
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let unix_ms = match monotonic.checked_duration_since(self.monotonic) {
            Some(later) => self.unix_ms.saturating_add(millis(later)),
            None => self.unix_ms.saturating_sub(millis(self.monotonic - monotonic)),
        };
        Self { monotonic, unix_ms }
    }
}

/// Adds a pause to a time. One beyond the clock's range is capped at decades.
pub(super) fn later(now: Now, pause: Duration) -> Instant {
    now.monotonic.checked_add(pause).unwrap_or_else(|| now.monotonic + FOR_EVER)
}

const FOR_EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);
