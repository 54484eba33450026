//! The plan of a storm, by seed.

use std::time::Duration;

use fastrand::Rng;
use kwal_client::{Deadlines, Limits};
use kwal_protocol::{
    api::{ApiKey, Versions},
    record::Compression,
};
use kwal_testkit::{Dialect, EmbeddedCluster, Hazard, Storm};

use super::TOPIC;

/// The choices for a storm before it begins.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// The version whose dialect the brokers have.
    pub(crate) kafka: &'static str,
    /// How many partitions have any number of writers.
    pub(crate) partitions: i32,
    /// How many clients take over one more partition from each other.
    pub(crate) contenders: u64,
    /// The configs of the topic.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    /// How many clients there are. Each appends to all partitions.
    pub(crate) clients: u64,
    pub(crate) deadlines: Deadlines,
    pub(crate) limits: Limits,
    pub(crate) compression: Compression,
    /// The partition to which the callers of batch producers append, if any do.
    pub(crate) callers: Option<i32>,
    /// Hazards that other storms do not have.
    pub(crate) hazards: Vec<Hazard>,
    /// Brokers stay up, and requests and responses fail.
    pub(crate) only_response_faults: bool,
    /// Brokers keep stale metadata after elections.
    pub(crate) stale: bool,
    /// The average time between two faults.
    pub(crate) every: Duration,
    /// The duration of all phases.
    pub(crate) time: Duration,
    /// How many phases there are. Producer ids expire between them.
    pub(crate) phases: u64,
    /// The name of each broker has two addresses, and the first one closes all connections.
    pub(crate) two_addresses: bool,
    /// Some batches are large.
    pub(crate) large: bool,
    /// Clients delete records.
    pub(crate) deletes: bool,
    /// The highest version of Fetch that brokers offer, if it is not that of their dialect.
    pub(crate) fetch: Option<i16>,
    /// How many entries of the cluster's journal are kept.
    pub(crate) journal: usize,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        // Other random numbers than those of the storm itself.
        let mut rng = Rng::with_seed(seed ^ 0x5eed_5eed_5eed_5eed);
        let mut one_in = |n: u8| rng.u8(..n) == 0;
        let (old, middle) = (one_in(8), one_in(3));
        let kafka = match (old, middle) {
            (true, _) => "2.8",
            (_, true) => "3.9",
            _ => "4.3",
        };
        let mut settings = Vec::new();
        if one_in(2) {
            settings.push(("min.insync.replicas", "2"));
        }
        if one_in(4) {
            settings.push(("message.timestamp.type", "LogAppendTime"));
        }
        let mut hazards = Vec::new();
        if one_in(4) {
            hazards.push(Hazard::UncleanElections);
        }
        // Without topic ids, a recreated topic cannot be noticed.
        if !old && one_in(6) {
            hazards.push(Hazard::Recreation);
        }
        let seconds = Duration::from_secs;
        let long = short_deadlines().operation(seconds(20)).request(seconds(4)).connect(seconds(2));
        let deadlines = if one_in(3) { long } else { short_deadlines() };
        let scarce = Limits::default().memory(2 << 10).max_connections_per_broker(1);
        let limits = if one_in(4) { scarce } else { Limits::default() };
        let phases = if one_in(8) { 2 } else { 1 };
        let (large, deletes, only_response_faults, stale) = (one_in(4), one_in(8), one_in(3), one_in(2));
        let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4];
        let codecs: Vec<_> = codecs.into_iter().filter(|codec| codec.is_built_in()).collect();
        let compression =
            if one_in(3) { codecs[rng.u64(..codecs.len() as u64) as usize] } else { Compression::None };
        let (partitions, clients) = (rng.i32(1..=2), rng.u64(1..=2));
        let every = Duration::from_millis(rng.u64(80..300));
        let time = seconds(rng.u64(3..8)) / phases as u32;
        hazards.extend(RARE.iter().filter(|_| rng.u8(..6) == 0));
        let two_addresses = rng.u8(..6) == 0;
        // Most faults last longer than this.
        let millis = Duration::from_millis;
        let hasty = short_deadlines().operation(millis(1_500)).request(millis(500)).connect(millis(500));
        let deadlines = if rng.u8(..8) == 0 { hasty } else { deadlines };
        // Again others, so that the storms without them stay as they are.
        let mut rng = Rng::with_seed(seed ^ 0x1d1d_1d1d_1d1d_1d1d);
        // A refused id cannot be replaced: the name keeps it.
        let may_contend = !hazards.contains(&Hazard::RefusedProducerIds);
        let contenders = if may_contend && rng.u8(..10) < 3 { 2 + u64::from(rng.u8(..3) == 0) } else { 0 };
        if contenders > 0 {
            // Barriers have the time of the system, and all else that of tokio's clock.
            settings.push(("message.timestamp.after.max.ms", "9223372036854775807"));
            hazards.extend(OF_COORDINATORS.iter().filter(|_| rng.bool()));
        }
        Self {
            seed,
            kafka,
            partitions,
            contenders,
            settings,
            clients,
            deadlines,
            limits,
            compression,
            callers: None,
            hazards,
            only_response_faults,
            stale,
            every,
            time,
            phases,
            two_addresses,
            large,
            deletes,
            fetch: None,
            journal: 0,
        }
        .with_changes_of_logs(old)
        .with_callers()
    }

    /// Adds callers of batch producers: to the log that is held exclusively in every second storm that has
    /// one.
    fn with_callers(mut self) -> Self {
        // Where appends name the topic, an idle writer sees by its next offset that the topic is another one,
        // unless others have filled it.
        if self.has(Hazard::Recreation) && self.kafka != "4.3" {
            return self;
        }
        let mut rng = Rng::with_seed(self.seed ^ 0xca11_ca11_ca11_ca11);
        let partition = match self.contenders > 0 && rng.bool() {
            true => self.partitions,
            false => rng.i32(0..self.partitions),
        };
        self.callers = Some(partition);
        self
    }

    /// Adds what happens to logs, which nobody holds exclusively then: fences would be deleted.
    fn with_changes_of_logs(mut self, is_old: bool) -> Self {
        // Other random numbers again.
        let mut rng = Rng::with_seed(self.seed ^ 0x1095_1095_1095_1095);
        let mut one_in = |n: u8| rng.u8(..n) == 0;
        let (trims, compacts, has_transactions) = (one_in(4), one_in(4), one_in(3));
        // Without epochs in fetches, there is another request for them.
        self.fetch = (is_old && one_in(2)).then_some(11);
        if self.contenders == 0 {
            self.hazards.extend(trims.then_some(Hazard::Trim));
            self.hazards.extend(has_transactions.then_some(Hazard::Transactions));
            // Compaction keeps the last batch of each producer that brokers know.
            if compacts && self.phases == 1 {
                self.hazards.push(Hazard::Compaction);
                self.settings.push(("cleanup.policy", "compact,delete"));
            }
        }
        self
    }

    /// A short storm whose history people can read. Batches are not compressed, because another version of a
    /// codec may write other bytes.
    pub(crate) fn short(seed: u64) -> Self {
        Self {
            kafka: "4.3",
            partitions: 1,
            contenders: 0,
            settings: vec![("min.insync.replicas", "2")],
            clients: 1,
            deadlines: short_deadlines(),
            limits: Limits::default(),
            compression: Compression::None,
            callers: None,
            hazards: Vec::new(),
            only_response_faults: true,
            stale: true,
            every: Duration::from_millis(150),
            time: Duration::from_secs(4),
            phases: 1,
            two_addresses: false,
            large: true,
            deletes: false,
            fetch: None,
            ..Self::of(seed)
        }
    }

    /// Sets how many entries of the cluster's journal are kept.
    pub(crate) fn journal(mut self, entries: usize) -> Self {
        self.journal = entries;
        self
    }

    /// Whether appends may have to wait for memory.
    pub(crate) fn is_scarce(&self) -> bool {
        self.limits.memory < Limits::default().memory
    }

    /// Returns the time that an operation has, in milliseconds.
    pub(crate) fn operation_ms(&self) -> u64 {
        self.deadlines.operation.as_millis() as u64
    }

    pub(crate) fn has(&self, hazard: Hazard) -> bool {
        self.hazards.contains(&hazard)
    }

    /// Returns all partitions: those with any number of writers first, then one that is held exclusively.
    pub(crate) fn all_partitions(&self) -> std::ops::Range<i32> {
        0..self.partitions + i32::from(self.contenders > 0)
    }

    /// Whether a coordinator may forget a name, or that it gave out an epoch.
    pub(crate) fn may_lose_names(&self) -> bool {
        !self.only_response_faults || OF_COORDINATORS.iter().any(|hazard| self.has(*hazard))
    }

    /// Whether the first records of a log may be deleted.
    pub(crate) fn is_trimmed(&self) -> bool {
        self.deletes || self.has(Hazard::Trim)
    }

    /// Whether acknowledged records may be lost.
    pub(crate) fn is_lossy(&self) -> bool {
        self.has(Hazard::UncleanElections) || self.has(Hazard::Recreation)
    }

    pub(super) fn cluster(&self) -> EmbeddedCluster {
        let dialect = match self.kafka {
            "2.8" => Dialect::kafka_2_8(),
            "3.9" => Dialect::kafka_3_9(),
            _ => Dialect::kafka_4_3(),
        };
        let builder = EmbeddedCluster::builder().brokers(3).seed(self.seed).dialect(dialect);
        let builder = builder.started_at(STARTED_AT as i64).journal(self.journal);
        let builder = builder.setting("transaction.state.log.num.partitions", "3");
        let builder = match self.fetch {
            Some(version) => builder.cap(ApiKey::FETCH, Versions::new(0, version)),
            None => builder,
        };
        builder.topic_with(TOPIC, self.all_partitions().end, &self.settings).start_in_memory().unwrap()
    }

    pub(super) fn storm(&self, phase: u64) -> Storm {
        let storm = Storm::new(self.seed.wrapping_mul(2).wrapping_add(phase)).every(self.every);
        let storm = match self.only_response_faults {
            true => OF_BROKERS.iter().fold(storm, |storm, hazard| storm.without(*hazard)),
            false => storm,
        };
        let storm = if self.stale { storm } else { storm.without(Hazard::StaleMetadata) };
        self.hazards.iter().fold(storm, |storm, hazard| storm.with(*hazard))
    }
}

/// Hazards that a storm has one time in six each.
const RARE: &[Hazard] = &[
    Hazard::EpochRewinds,
    Hazard::EmptyMetadata,
    Hazard::RefusedProducerIds,
    Hazard::RefusedConnections,
    Hazard::ConnectionLimits,
];

/// Hazards of exclusive writers, each in every second storm that has some.
const OF_COORDINATORS: &[Hazard] = &[Hazard::CoordinatorFaults, Hazard::CoordinatorMoves, Hazard::NameExpiry];

/// Faults of brokers, not of requests and responses.
const OF_BROKERS: &[Hazard] =
    &[Hazard::Kills, Hazard::Restarts, Hazard::Pauses, Hazard::Shrinking, Hazard::Lag];

fn short_deadlines() -> Deadlines {
    let seconds = Duration::from_secs;
    Deadlines::default()
        .operation(seconds(6))
        .request(seconds(2))
        .connect(seconds(1))
        .unknown_topic(seconds(3))
}

/// The time at which all storms begin, in milliseconds since the epoch.
pub(super) const STARTED_AT: u64 = 1_700_000_000_000;
