//! What a storm is like.

use std::time::Duration;

use fastrand::Rng;
use kwal_client::{Deadlines, Limits};
use kwal_protocol::record::Compression;
use kwal_testkit::{
    Dialect, EmbeddedCluster, Hazard, Storm,
    check::{Expect, Rule},
};

use super::TOPIC;

/// All that is chosen for a storm before it begins.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Which one the brokers look like.
    pub(crate) kafka: &'static str,
    pub(crate) partitions: i32,
    /// Topic settings.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    /// Of separate clients: each appends to all partitions.
    pub(crate) clients: u64,
    pub(crate) deadlines: Deadlines,
    pub(crate) limits: Limits,
    pub(crate) compression: Compression,
    /// What goes wrong that usually does not.
    pub(crate) hazards: Vec<Hazard>,
    /// Brokers stay, and are bad at answering.
    pub(crate) rude: bool,
    /// Brokers that have not heard of an election go on as they were.
    pub(crate) stale: bool,
    /// How often something goes wrong, on average.
    pub(crate) every: Duration,
    /// How long it lasts.
    pub(crate) time: Duration,
    /// How often it comes back, after a lull that brokers do not remember producers over.
    pub(crate) phases: u64,
    /// Some append much.
    pub(crate) large: bool,
    /// Records are deleted.
    pub(crate) deletes: bool,
    /// How many entries of the cluster's journal are kept.
    pub(crate) journal: usize,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        // Not the same numbers as those of the storm itself.
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
        // By a topic's name alone nobody can tell that it is another one.
        if !old && one_in(6) {
            hazards.push(Hazard::Recreation);
        }
        let seconds = Duration::from_secs;
        let long = short_deadlines().operation(seconds(20)).request(seconds(4)).connect(seconds(2));
        let deadlines = if one_in(3) { long } else { short_deadlines() };
        let scarce = Limits::default().memory(2 << 10).max_connections_per_broker(1);
        let limits = if one_in(4) { scarce } else { Limits::default() };
        let phases = if one_in(8) { 2 } else { 1 };
        let (large, deletes, rude, stale) = (one_in(4), one_in(8), one_in(3), one_in(2));
        let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4];
        let codecs: Vec<_> = codecs.into_iter().filter(|codec| codec.is_built_in()).collect();
        let compression =
            if one_in(3) { codecs[rng.u64(..codecs.len() as u64) as usize] } else { Compression::None };
        Self {
            seed,
            kafka,
            partitions: rng.i32(1..=2),
            settings,
            clients: rng.u64(1..=2),
            deadlines,
            limits,
            compression,
            hazards,
            rude,
            stale,
            every: Duration::from_millis(rng.u64(80..300)),
            time: seconds(rng.u64(3..8)) / phases as u32,
            phases,
            large,
            deletes,
            journal: 0,
        }
    }

    /// A short one, to be read by a person. Nothing is compressed in it: another version of a codec may write other bytes.
    pub(crate) fn short(seed: u64) -> Self {
        Self {
            kafka: "4.3",
            partitions: 1,
            settings: vec![("min.insync.replicas", "2")],
            clients: 1,
            deadlines: short_deadlines(),
            limits: Limits::default(),
            compression: Compression::None,
            hazards: Vec::new(),
            rude: true,
            stale: true,
            every: Duration::from_millis(150),
            time: Duration::from_secs(4),
            phases: 1,
            large: true,
            deletes: false,
            ..Self::of(seed)
        }
    }

    /// Keeps so many entries of the cluster's journal.
    pub(crate) fn journal(mut self, entries: usize) -> Self {
        self.journal = entries;
        self
    }

    /// Whether appends may have to wait for room.
    pub(crate) fn is_scarce(&self) -> bool {
        self.limits.memory < Limits::default().memory
    }

    pub(crate) fn brings(&self, hazard: Hazard) -> bool {
        self.hazards.contains(&hazard)
    }

    /// Whether what is acknowledged may be lost.
    pub(crate) fn is_lossy(&self) -> bool {
        self.brings(Hazard::UncleanElections) || self.brings(Hazard::Recreation)
    }

    pub(super) fn cluster(&self) -> EmbeddedCluster {
        let dialect = match self.kafka {
            "2.8" => Dialect::kafka_2_8(),
            "3.9" => Dialect::kafka_3_9(),
            _ => Dialect::kafka_4_3(),
        };
        let builder = EmbeddedCluster::builder().brokers(3).seed(self.seed).dialect(dialect);
        let builder = builder.started_at(STARTED_AT as i64).journal(self.journal);
        builder.topic_with(TOPIC, self.partitions, &self.settings).start_in_memory().unwrap()
    }

    /// What is promised so far: a new leader that has never heard of a producer takes whatever comes of it, and the client does
    /// not look whether what it was acknowledged before is still there.
    pub(super) fn expect() -> Expect {
        Expect::default().waive(Rule::LossEnds)
    }

    pub(super) fn storm(&self, phase: u64) -> Storm {
        let storm = Storm::new(self.seed.wrapping_mul(2).wrapping_add(phase)).every(self.every);
        let storm = match self.rude {
            true => OF_BROKERS.iter().fold(storm, |storm, hazard| storm.without(*hazard)),
            false => storm,
        };
        let storm = if self.stale { storm } else { storm.without(Hazard::StaleMetadata) };
        self.hazards.iter().fold(storm, |storm, hazard| storm.with(*hazard))
    }
}

/// What goes wrong with brokers, not with what they answer.
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

/// When all storms begin, in milliseconds since the epoch.
pub(super) const STARTED_AT: u64 = 1_700_000_000_000;
