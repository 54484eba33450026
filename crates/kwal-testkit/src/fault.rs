//! What may go wrong with a request, which requests it is for, and whom it hit.

use std::{ops::Add, ops::Sub, time::Duration};

use kwal_protocol::{api::ApiKey, error_code::ErrorCode};

/// What happens to a request instead of, or besides, being answered.
///
/// "Closed" means that the connection ends without a reply. Of [new connections](Aim::connections), `Drop` and `LoseReply` are
/// taken and closed at once, `BlackHole` is taken and nothing on it ever answered, `DelayRequest` and `DelayReply` make the
/// first request wait; the others change nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing: the request is served. To let some pass before a fault.
    Pass,
    /// Refused with an error code, which stands wherever the response has one; nothing is carried out. Produce with acks = 0 is
    /// closed, as Kafka does.
    Error(ErrorCode),
    /// Carried out, and then answered with an error code, as if it had failed afterwards.
    ErrorAfter(ErrorCode),
    /// Closed; nothing is carried out.
    Drop,
    /// Carried out, then closed: the reply is lost.
    LoseReply,
    /// Carried out; the reply ends after so many bytes, its length included, and the connection is closed.
    CutReply(usize),
    /// Carried out; the reply comes so many bytes at a time, with a pause before each but the first.
    Trickle {
        /// How many bytes at once, at least one.
        bytes: usize,
        /// Before the next.
        pause: Duration,
    },
    /// Carried out; in the reply is anything behind its length and its correlation id.
    Garbage,
    /// Carried out only after this time, as if it had been late on its way to the broker.
    DelayRequest(Duration),
    /// Carried out at once, answered only after this time. Later requests of the connection wait behind it.
    DelayReply(Duration),
    /// Carried out and answered at once with this throttle time; nothing more is read from the connection until it is over
    /// (KIP-219).
    Throttle(Duration),
    /// Carried out; the answer has another correlation id.
    WrongCorrelationId,
    /// Never carried out nor answered, nor is anything after it; the connection stays open.
    BlackHole,
}

/// Which requests meet a fault: those of an API, or narrower.
///
/// ```
/// use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
/// use kwal_testkit::{Aim, EmbeddedCluster, Fault};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), kwal_testkit::Error> {
/// let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 2).start_in_memory()?;
/// // The third append to wal-1 that comes to broker 2.
/// cluster.on(Aim::api(ApiKey::PRODUCE).partition("wal", 1).broker(2).after(2), Fault::LoseReply);
/// // Every tenth fetch or so; what comes is decided by the cluster's seed.
/// cluster.on_all(Aim::api(ApiKey::FETCH).chance(0.1), Fault::Drop);
/// // The next connection to broker 1.
/// cluster.on(Aim::connections().broker(1), Fault::Drop);
/// assert_eq!(cluster.faults_left(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Aim {
    at: At,
    broker: Option<i32>,
    partition: Option<(String, i32)>,
    after: usize,
    chance: f64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    Api(ApiKey),
    Requests,
    Connections,
}

impl Aim {
    /// Requests of an API.
    pub fn api(api: ApiKey) -> Self {
        Self::at(At::Api(api))
    }

    /// Requests of any API.
    pub fn requests() -> Self {
        Self::at(At::Requests)
    }

    /// Connections, before any request on them.
    pub fn connections() -> Self {
        Self::at(At::Connections)
    }

    /// Only those to a broker.
    #[must_use]
    pub fn broker(mut self, broker: i32) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Only requests that name a partition: of Produce, Fetch, ListOffsets, OffsetForLeaderEpoch and DeleteRecords. A request
    /// that names others besides meets the fault as a whole.
    #[must_use]
    pub fn partition(mut self, topic: &str, partition: i32) -> Self {
        self.partition = Some((topic.to_owned(), partition));
        self
    }

    /// Only what comes after so many that it is also aimed at.
    #[must_use]
    pub fn after(mut self, pass: usize) -> Self {
        self.after = pass;
        self
    }

    /// Only with this probability, from 0 to 1, each time.
    #[must_use]
    pub fn chance(mut self, chance: f64) -> Self {
        self.chance = chance;
        self
    }

    fn at(at: At) -> Self {
        Self { at, broker: None, partition: None, after: 0, chance: 1.0 }
    }
}

impl From<ApiKey> for Aim {
    fn from(api: ApiKey) -> Self {
        Self::api(api)
    }
}

/// How often what went wrong hit a client at its worst. What came of it, the client has to find out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Hits {
    /// An append was done, and the client was not told, or told something else.
    pub produces: u64,
    /// A fetch was not answered, or wrongly.
    pub fetches: u64,
    /// What comes before all else on a connection (ApiVersions, SASL) was not answered, or wrongly.
    pub handshakes: u64,
}

impl Add for Hits {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            produces: self.produces + other.produces,
            fetches: self.fetches + other.fetches,
            handshakes: self.handshakes + other.handshakes,
        }
    }
}

impl Sub for Hits {
    type Output = Self;

    /// What was added since.
    fn sub(self, before: Self) -> Self {
        Self {
            produces: self.produces.saturating_sub(before.produces),
            fetches: self.fetches.saturating_sub(before.fetches),
            handshakes: self.handshakes.saturating_sub(before.handshakes),
        }
    }
}

impl std::fmt::Display for Hits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { produces, fetches, handshakes } = self;
        write!(
            f,
            "hit {produces} produces between append and answer, {fetches} fetches, {handshakes} handshakes"
        )
    }
}

/// Which faults are still to come.
#[derive(Debug, Default)]
pub(crate) struct Script {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    aim: Aim,
    fault: Fault,
    /// `None` for ever.
    times: Option<usize>,
}

/// What comes to a broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coming<'a> {
    /// `None` for a connection.
    pub(crate) api: Option<ApiKey>,
    pub(crate) broker: i32,
    /// The partitions that it names; not looked at unless an aim [needs](Script::minds_partitions) them.
    pub(crate) partitions: &'a [(String, i32)],
}

impl Script {
    /// Adds a fault behind those that there are.
    pub(crate) fn add(&mut self, aim: Aim, times: Option<usize>, fault: Fault) {
        if times != Some(0) {
            self.lines.push(Line { aim, fault, times });
        }
    }

    /// Whether it matters which partitions a request of an API names.
    pub(crate) fn minds_partitions(&self, api: ApiKey) -> bool {
        let minds =
            |line: &Line| line.aim.partition.is_some() && matches!(line.aim.at, At::Api(at) if at == api);
        self.lines
            .iter()
            .any(|line| minds(line) || line.aim.partition.is_some() && line.aim.at == At::Requests)
    }

    /// What happens to what has just come: the first that is aimed at it.
    pub(crate) fn take(&mut self, coming: Coming<'_>, random: &mut fastrand::Rng) -> Fault {
        for at in 0..self.lines.len() {
            let line = &mut self.lines[at];
            if !line.aim.meets(coming) {
                continue;
            }
            if line.aim.after > 0 {
                line.aim.after -= 1;
                continue;
            }
            if line.aim.chance < 1.0 && random.f64() >= line.aim.chance {
                continue;
            }
            let fault = line.fault;
            if let Some(times) = &mut line.times {
                *times -= 1;
                if *times == 0 {
                    self.lines.remove(at);
                }
            }
            return fault;
        }
        Fault::Pass
    }

    pub(crate) fn clear(&mut self) {
        self.lines.clear();
    }

    /// How much is still to be met by a fault; one that lasts for ever counts once.
    pub(crate) fn left(&self) -> usize {
        self.lines.iter().map(|line| line.times.unwrap_or(1)).sum()
    }
}

impl Aim {
    fn meets(&self, coming: Coming<'_>) -> bool {
        let kind = match (self.at, coming.api) {
            (At::Api(at), Some(api)) => at == api,
            (At::Requests, Some(_)) | (At::Connections, None) => true,
            _ => false,
        };
        kind && self.broker.is_none_or(|broker| broker == coming.broker)
            && self.partition.as_ref().is_none_or(|partition| coming.partitions.contains(partition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_in_the_order_they_were_added() {
        let mut script = Script::default();
        script.add(ApiKey::FETCH.into(), Some(2), Fault::Pass);
        script.add(ApiKey::FETCH.into(), Some(0), Fault::LoseReply);
        script.add(ApiKey::FETCH.into(), Some(1), Fault::Drop);
        script.add(ApiKey::PRODUCE.into(), None, Fault::BlackHole);
        assert_eq!(script.left(), 4);
        let fetches: Vec<_> = (0..4).map(|_| script.met(ApiKey::FETCH, 1, &[])).collect();
        assert_eq!(fetches, [Fault::Pass, Fault::Pass, Fault::Drop, Fault::Pass]);
        let produces: Vec<_> = (0..3).map(|_| script.met(ApiKey::PRODUCE, 1, &[])).collect();
        assert_eq!(produces, [Fault::BlackHole; 3]);
        assert_eq!(script.left(), 1);
        script.clear();
        assert_eq!(script.met(ApiKey::PRODUCE, 1, &[]), Fault::Pass);
    }

    #[test]
    fn an_aim_meets_what_it_is_for() {
        let mut script = Script::default();
        let wal = |partition| [("wal".to_owned(), partition)];
        script.add(Aim::api(ApiKey::PRODUCE).partition("wal", 1).broker(2).after(1), Some(1), Fault::Drop);
        assert!(script.minds_partitions(ApiKey::PRODUCE) && !script.minds_partitions(ApiKey::FETCH));
        for (broker, partition) in [(2, 0), (1, 1), (2, 1)] {
            assert_eq!(script.met(ApiKey::PRODUCE, broker, &wal(partition)), Fault::Pass);
        }
        assert_eq!(script.met(ApiKey::FETCH, 2, &wal(1)), Fault::Pass);
        assert_eq!(script.met(ApiKey::PRODUCE, 2, &wal(1)), Fault::Drop, "the second that it is aimed at");

        script.add(Aim::requests(), Some(1), Fault::LoseReply);
        script.add(Aim::connections(), Some(1), Fault::BlackHole);
        let connection = Coming { api: None, broker: 1, partitions: &[] };
        assert_eq!(script.take(connection, &mut fastrand::Rng::new()), Fault::BlackHole);
        assert_eq!(script.met(ApiKey::METADATA, 3, &[]), Fault::LoseReply);

        script.add(Aim::requests().chance(0.25), None, Fault::Drop);
        let mut random = fastrand::Rng::with_seed(1);
        let coming = Coming { api: Some(ApiKey::FETCH), broker: 1, partitions: &[] };
        let met = (0..1000).filter(|_| script.take(coming, &mut random) == Fault::Drop).count();
        assert!((200..300).contains(&met), "{met}");
    }

    impl Script {
        fn met(&mut self, api: ApiKey, broker: i32, partitions: &[(String, i32)]) -> Fault {
            self.take(Coming { api: Some(api), broker, partitions }, &mut fastrand::Rng::new())
        }
    }
}
