//! Storms: many kinds of faults by seed while a client is working.

mod apis;
mod logs;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use fastrand::Rng;
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use tokio::time::{Instant, sleep_until};

use self::{
    apis::{FAULTY_APIS, FAULTY_COORDINATORS, FaultyApi},
    logs::OtherProducer,
};
use crate::{
    embedded::EmbeddedCluster,
    error::Error,
    fault::{Fault, FaultCounts, FaultTarget},
};

/// Injects faults while a client is working.
///
/// It runs next to the client and leaves the cluster healthy: brokers are up, followers are in sync, no
/// faults are left. The same seed does the same to the same cluster at the same times.
///
/// With a [`Recorder`](crate::check::Recorder) that records the client's results and the
/// [excused losses](EmbeddedCluster::record_losses), the checker judges whether the client kept its contract.
/// kwal's own client is tested in this way, in `crates/kwal-client/tests/storm` of the repository.
///
/// ```
/// use std::time::Duration;
///
/// use kwal_testkit::{EmbeddedCluster, Hazard, Storm};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), kwal_testkit::Error> {
/// let builder = EmbeddedCluster::builder().brokers(3).topic("wal", 1).seed(7).journal(10_000);
/// let cluster = builder.start_in_memory()?;
/// let storm = Storm::new(7).with(Hazard::UncleanElections).without(Hazard::Pauses);
/// // Usually beside a client: tokio::join!(storm.run(&cluster, …), …).
/// let report = storm.run(&cluster, Duration::from_secs(60)).await?;
/// println!("{report}");
/// assert!(report.count(Hazard::Kills) > 0 && report.count(Hazard::Pauses) == 0);
/// assert_eq!(cluster.in_sync("wal", 0)?.len(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Storm {
    seed: u64,
    every: Duration,
    hazards: Vec<Hazard>,
}

/// What a storm may do.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Hazard {
    /// Some of the next requests of an API meet a [`Fault`].
    Faults,
    /// All connections of a broker are closed.
    Disconnects,
    /// A broker is killed and restarted; never so many that a partition has no replica in sync left.
    Kills,
    /// A broker is shut down cleanly and restarted.
    Restarts,
    /// A broker is paused for a while, possibly for longer than its session timeout.
    Pauses,
    /// Another replica in sync becomes the leader.
    Elections,
    /// A follower falls out of sync and catches up.
    Shrinking,
    /// A follower lags.
    Lag,
    /// A broker does not learn of cluster changes for a while.
    StaleMetadata,
    /// Any replica becomes the leader, even if it lacks records. Only if [added](Storm::with).
    UncleanElections,
    /// A partition forgets its producers. Only if [added](Storm::with).
    ProducerExpiry,
    /// A topic is deleted and created again. Only if [added](Storm::with).
    Recreation,
    /// A leader epoch goes back, as after a restore of the cluster's metadata. Only if [added](Storm::with).
    EpochRewinds,
    /// Some of the next Metadata requests are answered without brokers. Only if [added](Storm::with).
    EmptyMetadata,
    /// A partition refuses all producer ids that were handed out so far. Only if [added](Storm::with).
    RefusedProducerIds,
    /// A broker closes its connections, and new ones at once, for a while. Only if [added](Storm::with).
    RefusedConnections,
    /// A broker closes its connections, and then has few of them at a time. Only if [added](Storm::with).
    ConnectionLimits,
    /// Some of the next requests to coordinators, and about producers and offsets, meet a [`Fault`]. Only if
    /// [added](Storm::with).
    CoordinatorFaults,
    /// Another replica in sync becomes the coordinator of a transactional id. Only if [added](Storm::with).
    CoordinatorMoves,
    /// A coordinator forgets a transactional id. Only if [added](Storm::with).
    NameExpiry,
    /// The first records of a partition are deleted, unless its topic is only compacted. Only if
    /// [added](Storm::with).
    Trim,
    /// Records of a partition are removed, in holes, batches or up to its last stable offset, if its topic is
    /// compacted (`cleanup.policy`). Only if [added](Storm::with).
    Compaction,
    /// Other producers append in transactions, which are committed, aborted or hang until the storm is over.
    /// Only if [added](Storm::with).
    ///
    /// A recorder of [losses](EmbeddedCluster::record_losses) gets their appends, of unknown outcome, and
    /// the ends of their transactions. Key and value of a record are `txn`, the producer id, a dot and a
    /// number.
    Transactions,
}

impl Storm {
    /// Creates a storm of the hazards that a client meets in any cluster.
    ///
    /// Hazards that lose acknowledged records or forget producers are not part of it, and neither are rare
    /// ones, which have to be [added](Self::with).
    pub fn new(seed: u64) -> Self {
        let hazards = ALL.iter().copied().filter(|hazard| *hazard < Hazard::UncleanElections);
        Self { seed, every: Duration::from_millis(500), hazards: hazards.collect() }
    }

    /// Sets the average time between two faults. Default: 500 ms.
    #[must_use]
    pub fn every(mut self, mean: Duration) -> Self {
        self.every = mean;
        self
    }

    /// Adds a hazard.
    #[must_use]
    pub fn with(mut self, hazard: Hazard) -> Self {
        self.hazards.push(hazard);
        self.hazards.sort_unstable();
        self.hazards.dedup();
        self
    }

    /// Removes a hazard.
    #[must_use]
    pub fn without(mut self, hazard: Hazard) -> Self {
        self.hazards.retain(|one| *one != hazard);
        self
    }

    /// Runs for `time`, then repairs the cluster and returns what it did.
    ///
    /// # Cancellation safety
    ///
    /// If the future is dropped, the cluster is not repaired.
    ///
    /// # Errors
    /// If a broker's address is no longer available.
    pub async fn run(&self, cluster: &EmbeddedCluster, time: Duration) -> Result<StormReport, Error> {
        let mut run = Run {
            cluster,
            rng: Rng::with_seed(self.seed),
            repairs: BTreeMap::new(),
            planned: 0,
            busy: BTreeMap::new(),
            limited: BTreeSet::new(),
            producers: BTreeMap::new(),
            counts: BTreeMap::new(),
        };
        let before = cluster.fault_counts();
        let end = Instant::now() + time;
        let mut next = Instant::now() + run.around(self.every);
        loop {
            let repair = run.repairs.keys().next().map(|(at, _)| *at);
            let now = repair.map_or(next, |repair| repair.min(next)).min(end);
            sleep_until(now).await;
            while let Some(due) = run.repairs.first_entry().filter(|due| due.key().0 <= now) {
                let repair = due.remove();
                run.repair(repair)?;
            }
            if now >= end {
                break;
            }
            if now >= next {
                if let Some(hazard) = run.one_of(&self.hazards).copied() {
                    run.inject(hazard)?;
                }
                next = now + run.around(self.every);
            }
        }
        for repair in std::mem::take(&mut run.repairs).into_values() {
            run.repair(repair)?;
        }
        run.abort_all();
        cluster.clear_faults();
        Ok(StormReport { counts: run.counts, fault_counts: cluster.fault_counts() - before })
    }
}

/// What a storm did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StormReport {
    counts: BTreeMap<Hazard, u64>,
    /// How often faults affected clients.
    pub fault_counts: FaultCounts,
}

impl StormReport {
    /// Returns how often a hazard occurred.
    pub fn count(&self, hazard: Hazard) -> u64 {
        self.counts.get(&hazard).copied().unwrap_or_default()
    }

    /// Adds what another storm did.
    pub fn add(&mut self, other: &Self) {
        for (hazard, count) in &other.counts {
            *self.counts.entry(*hazard).or_default() += count;
        }
        self.fault_counts = self.fault_counts + other.fault_counts;
    }
}

/// One line.
impl fmt::Display for StormReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fault_counts)?;
        self.counts.iter().try_for_each(|(hazard, count)| write!(f, ", {count} {hazard:?}"))
    }
}

struct Run<'a> {
    cluster: &'a EmbeddedCluster,
    rng: Rng,
    repairs: BTreeMap<(Instant, u64), Repair>,
    planned: u64,
    /// Brokers that are broken already, and by what.
    busy: BTreeMap<i32, Hazard>,
    /// Brokers that refuse connections.
    limited: BTreeSet<i32>,
    /// The producers of transactions, by id.
    producers: BTreeMap<i64, OtherProducer>,
    counts: BTreeMap<Hazard, u64>,
}

#[derive(Debug)]
enum Repair {
    Restart(i32),
    Resume(i32),
    Release(i32),
    Accept(i32),
    CatchUp { topic: String, partition: i32, broker: i32 },
    EndTransaction { producer_id: i64, committed: bool },
}

impl Run<'_> {
    fn inject(&mut self, hazard: Hazard) -> Result<(), Error> {
        let injected = match hazard {
            Hazard::Faults => self.fault(FAULTY_APIS),
            Hazard::CoordinatorFaults => self.fault(FAULTY_COORDINATORS),
            Hazard::CoordinatorMoves => self.move_coordinator(),
            Hazard::NameExpiry => {
                let names = self.cluster.transactional_ids();
                self.one_of(&names).is_some_and(|name| self.cluster.forget_transactional_id(name))
            }
            Hazard::Disconnects => {
                self.broker().is_some_and(|broker| self.cluster.disconnect(broker).is_ok())
            }
            Hazard::Kills | Hazard::Restarts | Hazard::Pauses => self.take_down(hazard)?,
            Hazard::StaleMetadata => self.hold_metadata(),
            Hazard::Elections | Hazard::UncleanElections => self.elect(hazard),
            Hazard::Shrinking | Hazard::Lag => self.hold_back(hazard),
            Hazard::ProducerExpiry => {
                self.partition().is_some_and(|(topic, at)| self.cluster.forget_producers(&topic, at).is_ok())
            }
            Hazard::Recreation => {
                self.partition().is_some_and(|(topic, _)| self.cluster.recreate_topic(&topic).is_ok())
            }
            Hazard::EpochRewinds => self.rewind(),
            Hazard::EmptyMetadata => self.empty_metadata(),
            Hazard::RefusedProducerIds => self.refuse_producers(),
            Hazard::RefusedConnections | Hazard::ConnectionLimits => self.limit_connections(hazard)?,
            Hazard::Trim => self.trim(),
            Hazard::Compaction => self.compact(),
            Hazard::Transactions => self.append_in_transaction(),
        };
        *self.counts.entry(hazard).or_default() += u64::from(injected);
        Ok(())
    }

    fn fault(&mut self, apis: &[FaultyApi]) -> bool {
        let Some(FaultyApi { api, codes }) = self.one_of(apis).copied() else { return false };
        let times = 1 + self.below(2);
        let fault = match self.rng.u8(..12) {
            0 => Fault::Drop,
            1 | 2 => Fault::LoseReply,
            3 => Fault::DelayRequest(self.up_to(4_000)),
            4 => Fault::DelayReply(self.up_to(4_000)),
            5 => Fault::Throttle(self.up_to(2_000)),
            6 => Fault::WrongCorrelationId,
            7 => Fault::BlackHole,
            8 => Fault::CutReply(self.below(40)),
            9 => Fault::Trickle { bytes: 1 + self.below(4), pause: self.up_to(20) },
            10 => Fault::Garbage,
            _ => match self.one_of(codes).copied() {
                Some((code, false)) => Fault::Error(code),
                Some((code, true)) => Fault::ErrorAfter(code),
                None => Fault::Drop,
            },
        };
        let mut target = FaultTarget::api(api).after(self.below(3));
        if self.rng.bool()
            && let Some(broker) = self.broker()
        {
            target = target.broker(broker);
        }
        if self.rng.u8(..10) == 0 {
            target = FaultTarget::connections();
        }
        self.cluster.on_times(target, times, fault);
        true
    }

    fn empty_metadata(&mut self) -> bool {
        let mut target = FaultTarget::api(ApiKey::METADATA).after(self.below(2));
        if self.rng.bool()
            && let Some(broker) = self.broker()
        {
            target = target.broker(broker);
        }
        let times = 1 + self.below(3);
        self.cluster.on_times(target, times, Fault::NoBrokers);
        true
    }

    fn rewind(&mut self) -> bool {
        let Some((topic, partition)) = self.partition() else { return false };
        let epoch = self.cluster.leader_epoch(&topic, partition).unwrap_or_default();
        let mut candidates = self.cluster.in_sync(&topic, partition).unwrap_or_default();
        candidates.retain(|broker| !self.busy.contains_key(broker));
        let (Some(to), true) = (self.one_of(&candidates).copied(), epoch > 0) else { return false };
        let epoch = self.rng.i32(0..epoch);
        self.cluster.rewind_leader_epoch(&topic, partition, to, epoch).is_ok()
    }

    fn refuse_producers(&mut self) -> bool {
        let codes = [ErrorCode::UNKNOWN_PRODUCER_ID, ErrorCode::INVALID_PRODUCER_ID_MAPPING];
        let (Some((topic, partition)), Some(code)) = (self.partition(), self.one_of(&codes).copied()) else {
            return false;
        };
        self.cluster.refuse_producers(&topic, partition, code).is_ok()
    }

    /// Limits the connections of a broker for a while, and closes those that are open.
    fn limit_connections(&mut self, hazard: Hazard) -> Result<bool, Error> {
        let Some(broker) = self.broker().filter(|broker| !self.limited.contains(broker)) else {
            return Ok(false);
        };
        let limit = match hazard {
            Hazard::ConnectionLimits => 1 + self.below(3),
            _ => 0,
        };
        self.cluster.limit_connections(broker, Some(limit))?;
        self.cluster.disconnect(broker)?;
        self.limited.insert(broker);
        let pause = self.up_to(5_000);
        self.repair_after(pause, Repair::Accept(broker));
        Ok(true)
    }

    /// Takes a broker down for a while, if enough are left.
    fn take_down(&mut self, hazard: Hazard) -> Result<bool, Error> {
        let Some(broker) = self.broker().filter(|broker| self.may_go_down(*broker)) else { return Ok(false) };
        let repair = match hazard {
            Hazard::Kills => {
                self.cluster.kill(broker)?;
                Repair::Restart(broker)
            }
            Hazard::Restarts => {
                self.cluster.stop(broker)?;
                Repair::Restart(broker)
            }
            _ => {
                self.cluster.pause(broker)?;
                Repair::Resume(broker)
            }
        };
        self.busy.insert(broker, hazard);
        // Often shorter than its session timeout, sometimes longer.
        let pause = self.up_to(15_000);
        self.repair_after(pause, repair);
        Ok(true)
    }

    /// Returns whether every partition keeps another live replica in sync.
    fn may_go_down(&self, broker: i32) -> bool {
        if self.busy.contains_key(&broker) {
            return false;
        }
        let cluster = self.cluster;
        let down =
            |broker: &i32| matches!(self.busy.get(broker), Some(hazard) if *hazard != Hazard::StaleMetadata);
        cluster.brokers().len() == 1
            || partitions(cluster).iter().all(|(topic, partition)| {
                let in_sync = cluster.in_sync(topic, *partition).unwrap_or_default();
                !in_sync.contains(&broker) || in_sync.iter().any(|other| *other != broker && !down(other))
            })
    }

    fn hold_metadata(&mut self) -> bool {
        let Some(broker) = self.broker().filter(|broker| !self.busy.contains_key(broker)) else {
            return false;
        };
        if self.cluster.hold_metadata(broker).is_err() {
            return false;
        }
        self.busy.insert(broker, Hazard::StaleMetadata);
        let pause = self.up_to(5_000);
        self.repair_after(pause, Repair::Release(broker));
        true
    }

    fn elect(&mut self, hazard: Hazard) -> bool {
        let Some((topic, partition)) = self.partition() else { return false };
        let candidates = match hazard {
            Hazard::Elections => self.cluster.in_sync(&topic, partition),
            _ => self.cluster.replicas(&topic, partition),
        };
        let mut candidates = candidates.unwrap_or_default();
        let leader = self.cluster.leader(&topic, partition).ok().flatten();
        candidates.retain(|broker| Some(*broker) != leader && !self.busy.contains_key(broker));
        let Some(to) = self.one_of(&candidates).copied() else { return false };
        let elected = match hazard {
            Hazard::Elections => self.cluster.move_leader(&topic, partition, to),
            _ => self.cluster.elect_unclean(&topic, partition, to),
        };
        elected.is_ok()
    }

    fn move_coordinator(&mut self) -> bool {
        let names = self.cluster.transactional_ids();
        let Some(name) = self.one_of(&names) else { return false };
        let before = self.cluster.coordinator(name);
        let mut others = self.cluster.brokers();
        others.retain(|broker| Some(*broker) != before && !self.busy.contains_key(broker));
        self.one_of(&others).is_some_and(|to| self.cluster.move_coordinator(name, *to).is_ok())
    }

    fn hold_back(&mut self, hazard: Hazard) -> bool {
        let Some((topic, partition)) = self.partition() else { return false };
        let leader = self.cluster.leader(&topic, partition).ok().flatten();
        let mut followers = self.cluster.replicas(&topic, partition).unwrap_or_default();
        followers.retain(|broker| Some(*broker) != leader);
        let Some(broker) = self.one_of(&followers).copied() else { return false };
        // Two stay in sync, so that a broker may go down at any time.
        let in_sync = self.cluster.in_sync(&topic, partition).unwrap_or_default().len();
        let held = match hazard {
            Hazard::Shrinking if in_sync > 2 => self.cluster.shrink_isr(&topic, partition, broker),
            Hazard::Shrinking => return false,
            _ => {
                let lag = self.up_to(3_000);
                self.cluster.set_lag(&topic, partition, broker, lag)
            }
        };
        let pause = self.up_to(10_000);
        self.repair_after(pause, Repair::CatchUp { topic, partition, broker });
        held.is_ok()
    }

    fn repair(&mut self, repair: Repair) -> Result<(), Error> {
        match repair {
            Repair::Restart(broker) => {
                self.busy.remove(&broker);
                self.cluster.restart(broker)
            }
            Repair::Resume(broker) => {
                self.busy.remove(&broker);
                self.cluster.resume(broker)
            }
            Repair::Release(broker) => {
                self.busy.remove(&broker);
                self.cluster.release_metadata(broker)
            }
            Repair::Accept(broker) => {
                self.limited.remove(&broker);
                self.cluster.limit_connections(broker, None)
            }
            Repair::CatchUp { topic, partition, broker } => {
                // The topic may be gone by now.
                let _ = self.cluster.set_lag(&topic, partition, broker, Duration::ZERO);
                Ok(())
            }
            Repair::EndTransaction { producer_id, committed } => {
                self.end_transaction(producer_id, committed);
                Ok(())
            }
        }
    }

    fn repair_after(&mut self, pause: Duration, repair: Repair) {
        self.repairs.insert((Instant::now() + pause, self.planned), repair);
        self.planned += 1;
    }

    fn broker(&mut self) -> Option<i32> {
        self.one_of(&self.cluster.brokers()).copied()
    }

    fn partition(&mut self) -> Option<(String, i32)> {
        self.one_of(&partitions(self.cluster)).cloned()
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        (!all.is_empty()).then(|| &all[self.below(all.len())])
    }

    /// Returns a number below `limit`, the same on machines of 32 and 64 bits.
    fn below(&mut self, limit: usize) -> usize {
        self.rng.u64(..limit as u64) as usize
    }

    /// Returns a duration below so many milliseconds.
    fn up_to(&mut self, millis: u64) -> Duration {
        Duration::from_millis(self.rng.u64(..millis))
    }

    /// Returns a random duration with this mean.
    fn around(&mut self, mean: Duration) -> Duration {
        let millis = u64::try_from(mean.as_millis()).unwrap_or(u64::MAX / 2);
        self.up_to(millis.saturating_mul(2).max(1)) + Duration::from_millis(1)
    }
}

fn partitions(cluster: &EmbeddedCluster) -> Vec<(String, i32)> {
    let count = |topic: &str| (0..).take_while(|at| cluster.leader(topic, *at).is_ok()).count() as i32;
    let of = |topic: String| (0..count(&topic)).map(move |at| (topic.clone(), at)).collect::<Vec<_>>();
    cluster.topics().into_iter().flat_map(of).collect()
}

const ALL: &[Hazard] = &[
    Hazard::Faults,
    Hazard::Disconnects,
    Hazard::Kills,
    Hazard::Restarts,
    Hazard::Pauses,
    Hazard::Elections,
    Hazard::Shrinking,
    Hazard::Lag,
    Hazard::StaleMetadata,
    Hazard::UncleanElections,
    Hazard::ProducerExpiry,
    Hazard::Recreation,
    Hazard::EpochRewinds,
    Hazard::EmptyMetadata,
    Hazard::RefusedProducerIds,
    Hazard::RefusedConnections,
    Hazard::ConnectionLimits,
    Hazard::CoordinatorFaults,
    Hazard::CoordinatorMoves,
    Hazard::NameExpiry,
    Hazard::Trim,
    Hazard::Compaction,
    Hazard::Transactions,
];
