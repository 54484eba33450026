//! Faults, the requests that they apply to, and how often clients felt them.

use std::{ops::Add, ops::Sub, time::Duration};

use kwal_protocol::{api::ApiKey, error_code::ErrorCode};

/// What happens to a request in place of, or in addition to, its response.
///
/// "Closed" means that the connection ends without a reply. For [new connections](FaultTarget::connections),
/// `Drop` and `LoseReply` accept and close at once, `BlackHole` accepts and never replies, `DelayRequest` and
/// `DelayReply` delay the first request, and the others have no effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// No fault: the request is served. Lets some requests pass before a fault.
    Pass,
    /// Rejected with an error code in every place where the response has one; not carried out.
    ///
    /// Produce with acks = 0 is closed, as in Kafka.
    Error(ErrorCode),
    /// Carried out, then answered with an error code, as if it had failed afterwards.
    ErrorAfter(ErrorCode),
    /// Closed; not carried out.
    Drop,
    /// Carried out, then closed: the reply is lost.
    LoseReply,
    /// Metadata and DescribeCluster are answered as by a broker that has not learnt of the cluster yet:
    /// without brokers, controller and topics. Other requests are served.
    NoBrokers,
    /// Carried out; the reply ends after this many bytes, its length included, and the connection is closed.
    CutReply(usize),
    /// Carried out; the reply arrives in pieces with a pause between them.
    Trickle {
        /// The size of a piece, at least one byte.
        bytes: usize,
        /// The pause before each piece but the first.
        pause: Duration,
    },
    /// Carried out; the reply has random bytes after its length and its correlation id.
    Garbage,
    /// Carried out only after this time, as if the request had been slow on its way to the broker.
    DelayRequest(Duration),
    /// Carried out at once, answered only after this time. Later requests of the connection wait.
    DelayReply(Duration),
    /// Carried out and answered at once with this throttle time.
    ///
    /// The broker reads nothing more from the connection until it is over (KIP-219).
    Throttle(Duration),
    /// Carried out; the reply has another correlation id.
    WrongCorrelationId,
    /// Neither this request nor any later one of the connection is carried out or answered.
    ///
    /// The connection stays open.
    BlackHole,
}

/// The requests that a fault applies to.
///
/// ```
/// use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
/// use kwal_testkit::{FaultTarget, EmbeddedCluster, Fault};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), kwal_testkit::Error> {
/// let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 2).start_in_memory()?;
/// // The third append to wal-1 that comes to broker 2.
/// cluster.on(FaultTarget::api(ApiKey::PRODUCE).partition("wal", 1).broker(2).after(2), Fault::LoseReply);
/// // Every tenth fetch or so; what comes is decided by the cluster's seed.
/// cluster.on_all(FaultTarget::api(ApiKey::FETCH).chance(0.1), Fault::Drop);
/// // The next connection to broker 1.
/// cluster.on(FaultTarget::connections().broker(1), Fault::Drop);
/// assert_eq!(cluster.faults_left(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FaultTarget {
    scope: Scope,
    broker: Option<i32>,
    partition: Option<(String, i32)>,
    after: usize,
    chance: f64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scope {
    Api(ApiKey),
    Requests,
    Connections,
}

impl FaultTarget {
    /// Requests of an API.
    pub fn api(api: ApiKey) -> Self {
        Self::of(Scope::Api(api))
    }

    /// Requests of any API.
    pub fn requests() -> Self {
        Self::of(Scope::Requests)
    }

    /// Connections, before any request on them.
    pub fn connections() -> Self {
        Self::of(Scope::Connections)
    }

    /// Restricts the target to one broker.
    #[must_use]
    pub fn broker(mut self, broker: i32) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Restricts the target to requests that name a partition.
    ///
    /// These are Produce, Fetch, ListOffsets, OffsetForLeaderEpoch and DeleteRecords. The fault applies to
    /// the whole request, also if it names other partitions.
    #[must_use]
    pub fn partition(mut self, topic: &str, partition: i32) -> Self {
        self.partition = Some((topic.to_owned(), partition));
        self
    }

    /// Skips this many matching requests first.
    #[must_use]
    pub fn after(mut self, pass: usize) -> Self {
        self.after = pass;
        self
    }

    /// Applies only with this probability, from 0 to 1, each time.
    #[must_use]
    pub fn chance(mut self, chance: f64) -> Self {
        self.chance = chance;
        self
    }

    fn of(scope: Scope) -> Self {
        Self { scope, broker: None, partition: None, after: 0, chance: 1.0 }
    }
}

impl From<ApiKey> for FaultTarget {
    fn from(api: ApiKey) -> Self {
        Self::api(api)
    }
}

/// How often faults affected clients where it matters most. How to recover is up to the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FaultCounts {
    /// Appends that took effect while the client got no response, or a wrong one.
    pub produces: u64,
    /// Fetches without a response, or with a wrong one.
    pub fetches: u64,
    /// The first requests of a connection (ApiVersions, SASL) without a response, or with a wrong one.
    pub handshakes: u64,
    /// Responses [without brokers](Fault::NoBrokers).
    pub without_brokers: u64,
    /// Appends that were [refused](crate::EmbeddedCluster::refuse_producers) because of their producer id.
    pub producer_ids: u64,
    /// Connections that were closed because of a [limit](crate::EmbeddedCluster::limit_connections).
    pub connections: u64,
}

impl Add for FaultCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            produces: self.produces + other.produces,
            fetches: self.fetches + other.fetches,
            handshakes: self.handshakes + other.handshakes,
            without_brokers: self.without_brokers + other.without_brokers,
            producer_ids: self.producer_ids + other.producer_ids,
            connections: self.connections + other.connections,
        }
    }
}

impl Sub for FaultCounts {
    type Output = Self;

    /// Returns what was added since `before`.
    fn sub(self, before: Self) -> Self {
        Self {
            produces: self.produces.saturating_sub(before.produces),
            fetches: self.fetches.saturating_sub(before.fetches),
            handshakes: self.handshakes.saturating_sub(before.handshakes),
            without_brokers: self.without_brokers.saturating_sub(before.without_brokers),
            producer_ids: self.producer_ids.saturating_sub(before.producer_ids),
            connections: self.connections.saturating_sub(before.connections),
        }
    }
}

impl std::fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { produces, fetches, handshakes, without_brokers, producer_ids, connections } = self;
        write!(
            f,
            "hit {produces} produces between append and answer, {fetches} fetches, {handshakes} handshakes; \
             {without_brokers} answers without brokers, {producer_ids} refused producer ids, \
             {connections} refused connections"
        )
    }
}

/// The faults still to come.
#[derive(Debug, Default)]
pub(crate) struct FaultSchedule {
    scheduled: Vec<Scheduled>,
}

#[derive(Debug)]
struct Scheduled {
    target: FaultTarget,
    fault: Fault,
    /// `None`: without a limit.
    times: Option<usize>,
}

/// A request or connection that has arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming<'a> {
    /// `None` for a connection.
    pub(crate) api: Option<ApiKey>,
    pub(crate) broker: i32,
    /// The partitions that it names; empty unless a target [needs](FaultSchedule::needs_partitions) them.
    pub(crate) partitions: &'a [(String, i32)],
}

impl FaultSchedule {
    /// Appends a fault to the schedule.
    pub(crate) fn add(&mut self, target: FaultTarget, times: Option<usize>, fault: Fault) {
        if times != Some(0) {
            self.scheduled.push(Scheduled { target, fault, times });
        }
    }

    /// Returns whether any target depends on which partitions a request of this API names.
    pub(crate) fn needs_partitions(&self, api: ApiKey) -> bool {
        let needs = |entry: &Scheduled| {
            entry.target.partition.is_some() && matches!(entry.target.scope, Scope::Api(at) if at == api)
        };
        self.scheduled.iter().any(|entry| {
            needs(entry) || entry.target.partition.is_some() && entry.target.scope == Scope::Requests
        })
    }

    /// Returns the first fault that applies to what has just arrived.
    pub(crate) fn next(&mut self, incoming: Incoming<'_>, random: &mut fastrand::Rng) -> Fault {
        for index in 0..self.scheduled.len() {
            let entry = &mut self.scheduled[index];
            if !entry.target.matches(incoming) {
                continue;
            }
            if entry.target.after > 0 {
                entry.target.after -= 1;
                continue;
            }
            if entry.target.chance < 1.0 && random.f64() >= entry.target.chance {
                continue;
            }
            let fault = entry.fault;
            if let Some(times) = &mut entry.times {
                *times -= 1;
                if *times == 0 {
                    self.scheduled.remove(index);
                }
            }
            return fault;
        }
        Fault::Pass
    }

    pub(crate) fn clear(&mut self) {
        self.scheduled.clear();
    }

    /// Returns how often faults are still to apply. A fault without a limit counts once.
    pub(crate) fn left(&self) -> usize {
        self.scheduled.iter().map(|entry| entry.times.unwrap_or(1)).sum()
    }
}

impl FaultTarget {
    fn matches(&self, incoming: Incoming<'_>) -> bool {
        let kind = match (self.scope, incoming.api) {
            (Scope::Api(at), Some(api)) => at == api,
            (Scope::Requests, Some(_)) | (Scope::Connections, None) => true,
            _ => false,
        };
        kind && self.broker.is_none_or(|broker| broker == incoming.broker)
            && self.partition.as_ref().is_none_or(|partition| incoming.partitions.contains(partition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_apply_in_the_order_they_were_added() {
        let mut schedule = FaultSchedule::default();
        schedule.add(ApiKey::FETCH.into(), Some(2), Fault::Pass);
        schedule.add(ApiKey::FETCH.into(), Some(0), Fault::LoseReply);
        schedule.add(ApiKey::FETCH.into(), Some(1), Fault::Drop);
        schedule.add(ApiKey::PRODUCE.into(), None, Fault::BlackHole);
        assert_eq!(schedule.left(), 4);
        let fetches: Vec<_> = (0..4).map(|_| schedule.drawn(ApiKey::FETCH, 1, &[])).collect();
        assert_eq!(fetches, [Fault::Pass, Fault::Pass, Fault::Drop, Fault::Pass]);
        let produces: Vec<_> = (0..3).map(|_| schedule.drawn(ApiKey::PRODUCE, 1, &[])).collect();
        assert_eq!(produces, [Fault::BlackHole; 3]);
        assert_eq!(schedule.left(), 1);
        schedule.clear();
        assert_eq!(schedule.drawn(ApiKey::PRODUCE, 1, &[]), Fault::Pass);
    }

    #[test]
    fn a_target_matches_its_requests() {
        let mut schedule = FaultSchedule::default();
        let wal = |partition| [("wal".to_owned(), partition)];
        schedule.add(
            FaultTarget::api(ApiKey::PRODUCE).partition("wal", 1).broker(2).after(1),
            Some(1),
            Fault::Drop,
        );
        assert!(schedule.needs_partitions(ApiKey::PRODUCE) && !schedule.needs_partitions(ApiKey::FETCH));
        for (broker, partition) in [(2, 0), (1, 1), (2, 1)] {
            assert_eq!(schedule.drawn(ApiKey::PRODUCE, broker, &wal(partition)), Fault::Pass);
        }
        assert_eq!(schedule.drawn(ApiKey::FETCH, 2, &wal(1)), Fault::Pass);
        assert_eq!(
            schedule.drawn(ApiKey::PRODUCE, 2, &wal(1)),
            Fault::Drop,
            "the second that it is aimed at"
        );

        schedule.add(FaultTarget::requests(), Some(1), Fault::LoseReply);
        schedule.add(FaultTarget::connections(), Some(1), Fault::BlackHole);
        let connection = Incoming { api: None, broker: 1, partitions: &[] };
        assert_eq!(schedule.next(connection, &mut fastrand::Rng::new()), Fault::BlackHole);
        assert_eq!(schedule.drawn(ApiKey::METADATA, 3, &[]), Fault::LoseReply);

        schedule.add(FaultTarget::requests().chance(0.25), None, Fault::Drop);
        let mut random = fastrand::Rng::with_seed(1);
        let incoming = Incoming { api: Some(ApiKey::FETCH), broker: 1, partitions: &[] };
        let met = (0..1000).filter(|_| schedule.next(incoming, &mut random) == Fault::Drop).count();
        assert!((200..300).contains(&met), "{met}");
    }

    impl FaultSchedule {
        fn drawn(&mut self, api: ApiKey, broker: i32, partitions: &[(String, i32)]) -> Fault {
            self.next(Incoming { api: Some(api), broker, partitions }, &mut fastrand::Rng::new())
        }
    }
}
