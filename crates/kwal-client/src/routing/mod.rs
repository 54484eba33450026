//! How a request reaches the right broker: the one loop that finds it, connects, sends, and retries.
//!
//! An operation is a value that implements [`Operation`]: a request, and the meaning of its response. It has
//! no IO, so it is tested without any. [`call`] does the rest.

mod coordinator;
mod fetching;
mod leader;
mod retry;
mod tracker;

use std::{ops::Range, sync::Arc, time::Duration};

use kwal_protocol::{
    api::{Request, Versions},
    error_code::{Effect, ErrorCode},
    record::BatchError,
    wire::Uuid,
};
use tokio::time::Instant;

use self::coordinator::find_coordinator;
pub(crate) use self::{
    fetching::Fetching,
    leader::{Leader, Partition, denies_leading, leader_has_moved},
    retry::{Deadline, Retry},
    tracker::Tracker,
};
use crate::{
    cluster::Cluster,
    config::Deadlines,
    connection::CallOptions,
    error::{CallContext, Error, ErrorKind, InvalidField, Outcome, Progress, RecordError},
    metadata::{LeaderUpdate, address},
    pool::{Broker, Channel, Purpose},
    versions::ClientRequest,
};

/// One operation of the protocol: a request, and the meaning of its response.
pub(crate) trait Operation {
    type Request: ClientRequest;
    type Output;

    /// Builds the request for the broker that it is sent to.
    fn request(&self, route: &Route<'_>) -> Self::Request;

    /// Interprets the response.
    fn response(
        &self,
        route: &Route<'_>,
        response: <Self::Request as Request>::Response,
    ) -> Result<Self::Output, Rejection>;

    /// Returns the oldest version that can express the request, if that depends on its fields.
    fn oldest_version(&self) -> i16 {
        0
    }

    /// Returns how long the broker may wait for records before it responds. It is granted only as far as the
    /// session of the connection lasts.
    fn long_poll(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns the time limit of the request if it is not [`Deadlines::request`]. `granted` is the part of
    /// the [long poll](Self::long_poll) that was granted.
    fn time_limit(&self, _deadlines: &Deadlines, _granted: Duration) -> Option<Duration> {
        None
    }

    /// Returns how the request is sent if it reads records on behalf of a caller.
    fn fetching(&self) -> Option<Fetching<'_, Self::Request>> {
        None
    }
}

/// The broker that a request goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// The leader of a partition.
    Leader(&'a Partition, Purpose),
    /// This leader of a partition and not its successor, over the general connection.
    ThisLeader(&'a Partition, Leader),
    /// The controller, as metadata names it. In a KRaft cluster it is any broker, which forwards the request.
    Controller,
    /// The controller if it is known, otherwise another broker: all of them can answer.
    Any,
    /// The coordinator of a transactional id.
    Coordinator(&'a str),
    /// One broker.
    Broker(i32),
}

/// What a request depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route<'a> {
    /// `None` without a connection, in tests.
    pub(crate) broker: Option<&'a Arc<Broker>>,
    pub(crate) topic: &'a str,
    /// Zero where it is not known.
    pub(crate) topic_id: Uuid,
    pub(crate) partition: i32,
    pub(crate) leader_epoch: i32,
    /// The version that the request is sent in.
    pub(crate) version: i16,
    /// How long the broker may wait for records.
    pub(crate) long_poll: Duration,
    /// How long the broker may wait until a change has taken effect: a little shorter than the time limit of
    /// a request.
    pub(crate) broker_timeout: Duration,
}

impl<'a> Route<'a> {
    /// A route for tests of operations.
    #[cfg(test)]
    pub(crate) fn of_partition(topic: &'a str, partition: i32) -> Self {
        Self {
            broker: None,
            topic,
            topic_id: Uuid::default(),
            partition,
            leader_epoch: 7,
            version: 0,
            long_poll: Duration::ZERO,
            broker_timeout: Duration::from_secs(9),
        }
    }

    /// Returns the broker's own time limit in milliseconds.
    pub(crate) fn timeout_ms(&self) -> i32 {
        millis(self.broker_timeout)
    }

    /// Returns what a rejection reports of the leader and its epoch, if the leader may have moved (KIP-951).
    /// `endpoints` are the ids, hosts and ports of the brokers that the response names.
    pub(crate) fn leader_update<'e>(
        &self,
        code: ErrorCode,
        (leader, leader_epoch): (i32, i32),
        mut endpoints: impl Iterator<Item = (i32, &'e str, i32)>,
    ) -> Option<LeaderUpdate> {
        leader_has_moved(code).then(|| LeaderUpdate {
            topic_id: self.topic_id,
            leader,
            leader_epoch,
            address: endpoints.find(|(id, ..)| *id == leader).and_then(|(_, host, port)| address(host, port)),
        })
    }

    /// Whether a request names the topic, and does not have its id.
    pub(crate) fn names_topic<R: ClientRequest>(&self) -> bool {
        R::BY_TOPIC_ID.is_none_or(|by_id| self.version < by_id)
    }

    /// Whether a response is about the topic. Versions that have ids do not have names, and some have both.
    pub(crate) fn is_topic(&self, name: &str, id: Uuid) -> bool {
        match (name.is_empty(), id.is_zero()) {
            (true, true) => false,
            (is_unnamed, has_no_id) => {
                (is_unnamed || name == self.topic) && (has_no_id || id == self.topic_id)
            }
        }
    }
}

/// Why a response is not a success.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// It lacks what was requested, has it twice, or is about something else.
    Missing,
    /// The client is over its quota and got nothing but a throttle time (KIP-219). The request is repeated
    /// after it.
    Throttled,
    /// An error code, and the current leader if the broker reports it (KIP-951).
    Code { code: ErrorCode, message: Option<String>, leader: Option<LeaderUpdate> },
    /// An error code, and the records of the batch that it is about (KIP-467).
    Records { code: ErrorCode, message: Option<String>, records: Vec<RecordError> },
    /// An error that has a kind of its own in this operation.
    Kind(ErrorKind),
    /// A field has a value that cannot be true.
    Field(InvalidField),
    /// A fetched batch is corrupt. Its offsets, as far as they can be believed.
    Corrupt(BatchError, Option<Range<i64>>),
}

impl Rejection {
    /// Rejects a response with an error code.
    pub(crate) fn check(code: ErrorCode) -> Result<(), Self> {
        Self::check_with(code, None)
    }

    /// Rejects a response with an error code and the broker's message.
    pub(crate) fn check_with(code: ErrorCode, message: Option<String>) -> Result<(), Self> {
        match code {
            ErrorCode::NONE => Ok(()),
            code => {
                let message = message.filter(|message| !message.is_empty());
                Err(Self::Code { code, message, leader: None })
            }
        }
    }
}

impl From<InvalidField> for Rejection {
    fn from(field: InvalidField) -> Self {
        Self::Field(field)
    }
}

/// Returns the code and the message of a response that was rejected for them, for tests of operations.
#[cfg(test)]
pub(crate) fn rejected_code<T: std::fmt::Debug>(result: Result<T, Rejection>) -> (ErrorCode, Option<String>) {
    match result {
        Err(Rejection::Code { code, message, leader: None }) => (code, message),
        other => panic!("{other:?}"),
    }
}

/// Returns the only element of a response, if it is the requested one.
pub(crate) fn only<T>(found: Vec<T>, is_requested: impl FnOnce(&T) -> bool) -> Result<T, Rejection> {
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(only), None) if is_requested(&only) => Ok(only),
        _ => Err(Rejection::Missing),
    }
}

/// Returns the only partition of the only topic of a response, if they are the requested ones.
pub(crate) fn only_partition<T, P>(
    topics: Vec<T>,
    is_topic: impl FnOnce(&T) -> bool,
    partitions: impl FnOnce(T) -> Vec<P>,
    is_partition: impl FnOnce(&P) -> bool,
) -> Result<P, Rejection> {
    only(partitions(only(topics, is_topic)?), is_partition)
}

/// A call that failed.
#[derive(Debug)]
pub(crate) struct CallFailed {
    /// The error of the last attempt.
    pub(crate) error: Error,
    /// Whether one of the attempts may have taken effect.
    pub(crate) may_have_applied: bool,
}

impl CallFailed {
    pub(crate) fn has_code(&self, code: ErrorCode) -> bool {
        matches!(self.error.kind(), ErrorKind::Broker { code: found, .. } if *found == code)
    }
}

impl From<CallFailed> for Error {
    fn from(CallFailed { error, may_have_applied }: CallFailed) -> Self {
        if may_have_applied { error.with_outcome(Outcome::Unknown) } else { error }
    }
}

/// What is known of an attempt, whatever became of it.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// When the call ends.
    pub(crate) deadline: Option<Instant>,
    /// The generation of the metadata that it used.
    pub(crate) generation: u64,
    /// The leader that it went to.
    pub(crate) leader: Option<Leader>,
    /// Whether it may have reached a broker.
    pub(crate) sent: bool,
}

impl Trace {
    pub(crate) fn until(deadline: Deadline) -> Self {
        Self { deadline: Some(deadline.at), ..Self::default() }
    }
}

/// Runs an operation until it succeeds, cannot succeed, or the deadline ends.
pub(crate) async fn call<O: Operation>(
    cluster: &Cluster,
    target: Target<'_>,
    call: CallContext<'_>,
    operation: &O,
    deadline: Deadline,
) -> Result<O::Output, CallFailed> {
    let mut retry = Retry::new(cluster, call, deadline);
    let mut may_have_applied = false;
    loop {
        let mut trace = Trace::until(deadline);
        let (number, min_generation) = (retry.attempt(), retry.min_generation());
        let tracker = retry.tracker();
        let work = async {
            // The controller may have moved.
            if number > 1 && !matches!(target, Target::Leader(..) | Target::ThisLeader(..)) {
                cluster.metadata.refresh().await?;
            }
            attempt(cluster, target, call, operation, min_generation, &mut trace, tracker).await
        };
        let error = match retry.run(work).await {
            Ok(output) => return Ok(output),
            Err(error) => error,
        };
        // The deadline may have ended an attempt that was in flight.
        let cut_off = trace.sent && matches!(error.kind(), ErrorKind::DeadlineExceeded { .. });
        may_have_applied |= call.api.changes_something() && (cut_off || error.effect() == Effect::Unknown);
        let paused = match target {
            Target::Leader(partition, _) | Target::ThisLeader(partition, _) => {
                partition.pause(&mut retry, error, &trace).await
            }
            _ => retry.pause(error, 0).await,
        };
        if let Err(error) = paused {
            return Err(CallFailed { error, may_have_applied });
        }
    }
}

/// Runs one attempt of an operation.
pub(crate) async fn attempt<O: Operation>(
    cluster: &Cluster,
    target: Target<'_>,
    call: CallContext<'_>,
    operation: &O,
    min_generation: u64,
    trace: &mut Trace,
    tracker: &Tracker,
) -> Result<O::Output, Error> {
    let fetching = operation.fetching();
    let opened = match &fetching {
        Some(fetching) => fetching.open(cluster, target, call, min_generation, trace, tracker).await,
        None => Opened::open(cluster, target, call, min_generation, trace, tracker)
            .await
            .map(|opened| (opened, None)),
    };
    // A broker that cannot be reached has died, whatever it was sent before.
    let (opened, memory) = opened.inspect_err(|_| tracker.closed.clear())?;
    let channel = &opened.channel;
    // Nothing else holds its memory if it is combined with others.
    let combined = fetching.as_ref().filter(|fetching| memory.is_none() && fetching.is_combined(channel));
    let _alone = memory.is_some().then(|| channel.fetch_alone());
    let wait = operation.long_poll();
    let permit = (combined.is_none() && !wait.is_zero()).then(|| channel.wait(wait));
    let long_poll = match combined {
        // Its wait may be over several requests.
        Some(_) => wait,
        None => permit.as_ref().map_or(Duration::ZERO, |permit| permit.time),
    };
    let (route, versions) = opened.route(operation, call, &cluster.config.deadlines, long_poll);
    let request = operation.request(&route);
    let limit = operation.time_limit(&cluster.config.deadlines, long_poll);
    let options = CallOptions { limit, deadline: trace.deadline, permit, memory };
    trace.sent = true;
    tracker.sent(channel.broker());
    loop {
        let (response, _memory) = match combined {
            Some(fetching) => {
                let wait = (long_poll, route.version);
                fetching.send(cluster, channel, &request, wait, (call, trace), tracker).await?
            }
            None => {
                let options = options.clone();
                (channel.call(&request, call, versions, options, &tracker.closed).await?, None)
            }
        };
        match operation.response(&route, response) {
            Ok(output) => return Ok(output),
            // The connection keeps the pause.
            Err(Rejection::Throttled) => {}
            Err(rejection) => return Err(rejected(rejection, cluster, target, call, channel.broker())),
        }
    }
}

/// The connection to a target, and what a request on it depends on.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) channel: Channel,
    /// Zero where it does not matter.
    topic_id: Uuid,
    /// `None` unless the target is a leader.
    pub(crate) leader: Option<Leader>,
}

impl Opened {
    /// Opens the connection to a target, or takes the open one.
    pub(crate) async fn open(
        cluster: &Cluster,
        target: Target<'_>,
        call: CallContext<'_>,
        min_generation: u64,
        trace: &mut Trace,
        tracker: &Tracker,
    ) -> Result<Self, Error> {
        tracker.set(Progress::Lookup, None);
        let broker = match target {
            Target::Leader(partition, purpose) => {
                let leader = partition.leader(call, min_generation, &mut trace.generation).await?;
                trace.leader = Some(leader);
                tracker.set(Progress::Connection, Some(leader.id));
                let channel = match partition.lease(purpose) {
                    Some(lease) => cluster.pool.leased(lease, leader.id, call).await?,
                    None => cluster.pool.general(leader.id, call).await?,
                };
                return Ok(Self { channel, topic_id: partition.topic_id, leader: Some(leader) });
            }
            Target::ThisLeader(partition, leader) => {
                trace.leader = Some(leader);
                tracker.set(Progress::Connection, Some(leader.id));
                let channel = cluster.pool.general(leader.id, call).await?;
                return Ok(Self { channel, topic_id: partition.topic_id, leader: Some(leader) });
            }
            Target::Controller => cluster.metadata.snapshot().controller,
            Target::Any => {
                let metadata = cluster.metadata.snapshot();
                metadata.controller.or_else(|| metadata.brokers.keys().next().copied())
            }
            Target::Coordinator(transactional_id) => {
                tracker.set(Progress::Coordinator, None);
                Some(find_coordinator(cluster, call, transactional_id).await?)
            }
            Target::Broker(id) => Some(id),
        };
        let Some(broker) = broker else { return Err(call.error(ErrorKind::UnknownBroker)) };
        tracker.set(Progress::Connection, Some(broker));
        let channel = cluster.pool.general(broker, call).await?;
        Ok(Self { channel, topic_id: Uuid::default(), leader: None })
    }

    /// Whether requests of this kind name the topic, because the broker or its metadata are too old for ids.
    pub(crate) fn names_topic<R: ClientRequest>(&self) -> bool {
        let version = self.channel.version(R::KEY, self.supported::<R>());
        R::BY_TOPIC_ID.is_none_or(|by_id| version.is_none_or(|version| version < by_id))
    }

    /// Returns what the request of an operation depends on, and the versions that can express it.
    pub(crate) fn route<'a, O: Operation>(
        &'a self,
        operation: &O,
        call: CallContext<'a>,
        deadlines: &Deadlines,
        long_poll: Duration,
    ) -> (Route<'a>, Versions) {
        let supported = self.supported::<O::Request>();
        let supported = Versions::new(supported.oldest.max(operation.oldest_version()), supported.newest);
        (Route { long_poll, ..self.route_in::<O::Request>(supported, call, deadlines) }, supported)
    }

    /// Returns what a request depends on whose versions these are.
    pub(crate) fn route_in<'a, R: ClientRequest>(
        &'a self,
        supported: Versions,
        call: CallContext<'a>,
        deadlines: &Deadlines,
    ) -> Route<'a> {
        let version = self.channel.version(R::KEY, supported).unwrap_or(supported.newest);
        Route { broker_timeout: deadlines.request * 9 / 10, ..self.route_of(version, call) }
    }

    /// Returns what the response to a request of this version is about.
    pub(crate) fn route_of<'a>(&'a self, version: i16, call: CallContext<'a>) -> Route<'a> {
        let Self { channel, topic_id, leader } = self;
        Route {
            broker: Some(channel.broker()),
            topic: call.topic.unwrap_or_default(),
            topic_id: *topic_id,
            partition: call.partition.unwrap_or_default(),
            leader_epoch: leader.map_or(-1, |leader| leader.epoch),
            version,
            long_poll: Duration::ZERO,
            broker_timeout: Duration::ZERO,
        }
    }

    /// The versions in which a request can be sent, as far as they depend on the topic.
    pub(crate) fn supported<R: ClientRequest>(&self) -> Versions {
        R::supported(!self.topic_id.is_zero())
    }
}

/// Makes a rejection an error, after what it reports of the cluster was taken from it.
pub(crate) fn rejected(
    rejection: Rejection,
    cluster: &Cluster,
    target: Target<'_>,
    call: CallContext<'_>,
    broker: &Broker,
) -> Error {
    if let Rejection::Code { code: ErrorCode::REBOOTSTRAP_REQUIRED, .. } = rejection {
        cluster.metadata.rebootstrap(broker);
    }
    let error = match rejection {
        Rejection::Corrupt(source, offsets) => Error::corrupt(source, offsets),
        Rejection::Field(source) => Error::from(source),
        Rejection::Missing | Rejection::Throttled => Error::new(ErrorKind::MalformedResponse),
        Rejection::Kind(kind) => Error::new(kind),
        Rejection::Code { code, message, leader } => {
            if let (Target::Leader(partition, _) | Target::ThisLeader(partition, _), Some(update)) =
                (target, leader)
            {
                partition.apply_leader_update(update);
            }
            Error::new(ErrorKind::Broker { code, message })
        }
        Rejection::Records { code, message, records } => {
            Error::new(ErrorKind::Broker { code, message }).with_record_errors(records)
        }
    };
    let error = error.with_context(call.at_broker(broker));
    // A response that cannot be understood does not say that nothing was done. A loss is noticed after it.
    let is_open = matches!(error.kind(), ErrorKind::MalformedResponse | ErrorKind::DataLoss { .. });
    match is_open && call.api.changes_something() {
        true => error.with_outcome(Outcome::Unknown),
        false => error,
    }
}

/// A duration as the protocol has it; at most 24 days.
pub(crate) fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kwal_protocol::{
        api::ApiKey,
        messages::{MetadataBroker, MetadataPartition, MetadataResponse, MetadataTopicResponse},
        record::BatchErrorKind,
    };
    use kwal_transport::HostPort;
    use tokio::runtime::Handle;

    use super::*;
    use crate::config::Config;

    pub(super) const ID: Uuid = Uuid([5; 16]);

    /// A cluster without connections, whose brokers 1 and 2 have the topic `wal`; broker 1 leads it in epoch
    /// 7.
    pub(super) fn cluster() -> Arc<Cluster> {
        let broker = |node_id| MetadataBroker { node_id, host: "a".to_owned(), port: 9092, rack: None };
        let partition = MetadataPartition { leader_id: 1, leader_epoch: 7, ..Default::default() };
        let topic = MetadataTopicResponse {
            name: Some("wal".to_owned()),
            topic_id: ID,
            partitions: vec![partition],
            ..Default::default()
        };
        let response = MetadataResponse {
            brokers: vec![broker(1), broker(2)],
            topics: vec![topic],
            ..Default::default()
        };
        let cluster = Cluster::new(Config::default(), Handle::current());
        cluster.metadata.update(&response);
        Arc::new(cluster)
    }

    /// Broker 2 leads the partition in the next epoch.
    pub(super) fn moved() -> LeaderUpdate {
        LeaderUpdate { topic_id: ID, leader: 2, leader_epoch: 8, address: None }
    }

    fn code(leader: Option<LeaderUpdate>) -> Rejection {
        let message = Some("no".to_owned());
        Rejection::Code { code: ErrorCode::NOT_LEADER_OR_FOLLOWER, message, leader }
    }

    fn corrupt() -> Rejection {
        let kind = BatchErrorKind::Length(3);
        Rejection::Corrupt(BatchError { kind, position: 0, base_offset: Some(17) }, None)
    }

    #[tokio::test]
    async fn a_rejection_is_an_error_of_the_broker() {
        let cluster = cluster();
        let broker = Broker::new(crate::pool::BrokerRef::Id(1), HostPort::new("a", 9092));
        let malformed = |kind: &ErrorKind| matches!(kind, ErrorKind::MalformedResponse);
        let is_code = |kind: &ErrorKind| match kind {
            ErrorKind::Broker { code, message } => {
                *code == ErrorCode::NOT_LEADER_OR_FOLLOWER && message.as_deref() == Some("no")
            }
            _ => false,
        };
        let not_deletable = |kind: &ErrorKind| matches!(kind, ErrorKind::NotDeletable);
        let is_corrupt = |kind: &ErrorKind| matches!(kind, ErrorKind::Corrupt { offsets: None });
        let (changed, read) = (ApiKey::PRODUCE, ApiKey::FETCH);
        // A response that cannot be understood does not say that nothing was done.
        for (rejection, api, expected, outcome) in [
            (Rejection::Missing, changed, &malformed as &dyn Fn(&ErrorKind) -> bool, Outcome::Unknown),
            (Rejection::Missing, read, &malformed, Outcome::NotApplied),
            (Rejection::Throttled, read, &malformed, Outcome::NotApplied),
            (code(None), changed, &is_code, Outcome::NotApplied),
            (code(Some(moved())), read, &is_code, Outcome::NotApplied),
            (Rejection::Kind(ErrorKind::NotDeletable), changed, &not_deletable, Outcome::NotApplied),
            (corrupt(), read, &is_corrupt, Outcome::NotApplied),
        ] {
            let text = format!("{rejection:?} of {api}");
            let call = CallContext::partition(api, "wal", 3);
            let error = rejected(rejection, &cluster, Target::Any, call, &broker);
            assert!(expected(error.kind()), "{text}: {error:?}");
            assert_eq!(error.outcome(), outcome, "{text}");
            assert_eq!(*error.context(), call.at_broker(&broker), "{text}");
            assert_eq!(error.cause().is_some(), matches!(error.kind(), ErrorKind::Corrupt { .. }), "{text}");
        }
    }

    #[tokio::test]
    async fn the_leader_of_a_rejection_is_known_from_then_on() {
        let cluster = cluster();
        let partition = Partition::new(Arc::clone(&cluster), "wal".to_owned(), 0, ID);
        let call = partition.call(ApiKey::FETCH);
        let broker = Broker::new(crate::pool::BrokerRef::Id(1), HostPort::new("a", 9092));
        let leader = async || {
            let leader = partition.leader(call, 0, &mut 0).await.unwrap();
            (leader.id, leader.epoch)
        };
        let target = Target::Leader(&partition, Purpose::Fetch);
        for (rejection, target, expected) in [
            (code(None), target, (1, 7)),
            (code(Some(moved())), Target::Any, (1, 7)),
            (code(Some(moved())), target, (2, 8)),
        ] {
            drop(rejected(rejection, &cluster, target, call, &broker));
            assert_eq!(leader().await, expected);
        }
    }

    #[test]
    fn a_failed_call_is_in_doubt_if_an_attempt_may_have_been_applied() {
        for (may_have_applied, outcome) in [(false, Outcome::NotApplied), (true, Outcome::Unknown)] {
            let error = Error::broker(ErrorCode::TOPIC_ALREADY_EXISTS);
            let failed = CallFailed { error, may_have_applied };
            assert!(failed.has_code(ErrorCode::TOPIC_ALREADY_EXISTS));
            assert!(!failed.has_code(ErrorCode::INVALID_PARTITIONS));
            assert_eq!(Error::from(failed).outcome(), outcome);
        }
        // What is unknown already stays so.
        let error = Error::new(ErrorKind::MalformedResponse).with_outcome(Outcome::Unknown);
        let failed = CallFailed { error, may_have_applied: false };
        assert_eq!(Error::from(failed).outcome(), Outcome::Unknown);
    }

    #[test]
    fn milliseconds_are_cut_to_what_the_protocol_has() {
        for (time, expected) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1_999_999), 1),
            (Duration::from_millis(i32::MAX as u64), i32::MAX),
            (Duration::MAX, i32::MAX),
        ] {
            assert_eq!(millis(time), expected);
        }
    }

    #[test]
    fn a_response_is_about_the_requested_partition_and_nothing_else() {
        let find = |topics: Vec<(&str, Vec<i32>)>| {
            only_partition(topics, |topic| topic.0 == "wal", |topic| topic.1, |partition| *partition == 3)
        };
        assert_eq!(find(vec![("wal", vec![3])]).unwrap(), 3);
        for topics in [
            vec![],
            vec![("wal", vec![])],
            vec![("wal", vec![2])],
            vec![("other", vec![3])],
            vec![("wal", vec![3, 3])],
            vec![("wal", vec![3, 2])],
            vec![("wal", vec![2, 3])],
            vec![("wal", vec![3]), ("wal", vec![3])],
            vec![("wal", vec![3]), ("other", vec![3])],
            vec![("other", vec![]), ("wal", vec![3])],
        ] {
            assert!(matches!(find(topics.clone()), Err(Rejection::Missing)), "{topics:?}");
        }
    }

    #[test]
    fn a_topic_is_known_by_its_name_and_its_id() {
        let (none, other) = (Uuid::default(), Uuid([6; 16]));
        for (name, id, known, unknown) in [
            ("wal", none, true, true),
            ("wal", ID, true, false),
            ("", ID, true, false),
            ("", other, false, false),
            ("wal", other, false, false),
            ("other", ID, false, false),
            ("other", none, false, false),
            ("", none, false, false),
        ] {
            let route = Route { topic_id: ID, ..Route::of_partition("wal", 3) };
            assert_eq!(route.is_topic(name, id), known, "{name} {id}");
            assert_eq!(Route::of_partition("wal", 3).is_topic(name, id), unknown, "{name} {id}");
        }
    }
}
