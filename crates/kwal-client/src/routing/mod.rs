//! How a request reaches the right broker: the one loop that finds it, connects, sends, and retries.
//!
//! An operation is a value that implements [`Operation`]: a request, and the meaning of its response. It has no IO, so it is
//! tested without any. [`call`] does the rest.

mod leader;
mod retry;

use std::{sync::Arc, time::Duration};

use kwal_protocol::{
    api::{Request, Versions},
    error_code::{Effect, ErrorCode},
    record::BatchError,
    wire::Uuid,
};

pub(crate) use self::{
    leader::{Leader, Partition, leader_has_moved},
    retry::{Deadline, Retry},
};
use crate::{
    cluster::Cluster,
    config::Deadlines,
    error::{CallContext, Error, ErrorKind, Outcome},
    metadata::LeaderUpdate,
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

    /// Returns how long the broker may wait for records before it responds. It is granted only as far as the session of the
    /// connection lasts.
    fn long_poll(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns the time limit of the request if it is not [`Deadlines::request`]. `granted` is the part of the
    /// [long poll](Self::long_poll) that was granted.
    fn time_limit(&self, _deadlines: &Deadlines, _granted: Duration) -> Option<Duration> {
        None
    }
}

/// The broker that a request goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// The leader of a partition.
    Leader(&'a Partition, Purpose),
    /// The controller, as metadata names it. In a KRaft cluster it is any broker, which forwards the request.
    Controller,
    /// The controller if it is known, otherwise another broker: all of them can answer.
    Any,
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
    /// How long the broker may wait until a change has taken effect: a little shorter than the time limit of a request.
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
}

/// Why a response is not a success.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// It lacks what was requested.
    Missing,
    /// The client is over its quota and got nothing but a throttle time (KIP-219). The request is repeated after it.
    Throttled,
    /// An error code, and the current leader if the broker reports it (KIP-951).
    Code { code: ErrorCode, message: Option<String>, leader: Option<LeaderUpdate> },
    /// An error that has a kind of its own in this operation.
    Kind(ErrorKind),
    /// A fetched batch is corrupt.
    Corrupt(BatchError),
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

/// Returns the one partition that a response is about.
pub(crate) fn only_partition<T, P>(
    mut topics: Vec<T>,
    partitions: impl FnOnce(T) -> Vec<P>,
    is_requested: impl FnOnce(&P) -> bool,
) -> Result<P, Rejection> {
    let partition = topics.pop().and_then(|topic| partitions(topic).pop());
    partition.filter(is_requested).ok_or(Rejection::Missing)
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
    /// The generation of the metadata that it used.
    pub(crate) generation: u64,
    /// The leader that it went to.
    pub(crate) leader: Option<Leader>,
    /// Whether it may have reached a broker.
    pub(crate) sent: bool,
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
        let mut trace = Trace::default();
        let (number, min_generation) = (retry.attempt(), retry.min_generation());
        let work = async {
            // The controller may have moved.
            if number > 1 && !matches!(target, Target::Leader(..)) {
                cluster.metadata.refresh().await?;
            }
            attempt(cluster, target, call, operation, min_generation, &mut trace).await
        };
        let error = match retry.run(work).await {
            Ok(output) => return Ok(output),
            Err(error) => error,
        };
        // The deadline may have ended an attempt that was in flight.
        let cut_off = trace.sent && matches!(error.kind(), ErrorKind::DeadlineExceeded { .. });
        may_have_applied |= call.api.changes_something() && (cut_off || error.effect() == Effect::Unknown);
        let paused = match target {
            Target::Leader(partition, _) => partition.pause(&mut retry, error, trace.generation).await,
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
) -> Result<O::Output, Error> {
    let (channel, topic_id) = open(cluster, target, call, min_generation, trace).await?;
    let wait = operation.long_poll();
    let permit = (!wait.is_zero()).then(|| channel.wait(wait));
    let long_poll = permit.as_ref().map_or(Duration::ZERO, |permit| permit.time);
    let supported = O::Request::supported(!topic_id.is_zero());
    let supported = Versions::new(supported.oldest.max(operation.oldest_version()), supported.newest);
    let deadlines = &cluster.config.deadlines;
    let route = Route {
        broker: Some(channel.broker()),
        topic: call.topic.unwrap_or_default(),
        topic_id,
        partition: call.partition.unwrap_or_default(),
        leader_epoch: trace.leader.map_or(-1, |leader| leader.epoch),
        version: channel.version::<O::Request>(supported).unwrap_or(supported.newest),
        long_poll,
        broker_timeout: deadlines.request * 9 / 10,
    };
    let request = operation.request(&route);
    let limit = operation.time_limit(deadlines, long_poll);
    trace.sent = true;
    loop {
        let response = channel.call(&request, call, supported, limit).await?;
        match operation.response(&route, response) {
            Ok(output) => return Ok(output),
            // The connection keeps the pause.
            Err(Rejection::Throttled) => {}
            Err(rejection) => return Err(rejected(rejection, target, call, &channel)),
        }
    }
}

/// Opens the connection to a target. Returns the topic id as well, zero where it does not matter.
async fn open(
    cluster: &Cluster,
    target: Target<'_>,
    call: CallContext<'_>,
    min_generation: u64,
    trace: &mut Trace,
) -> Result<(Channel, Uuid), Error> {
    let broker = match target {
        Target::Leader(partition, purpose) => {
            let leader = partition.leader(call, min_generation, &mut trace.generation).await?;
            trace.leader = Some(leader);
            let channel = match partition.lease(purpose) {
                Some(lease) => cluster.pool.leased(lease, leader.id, call).await?,
                None => cluster.pool.general(leader.id, call).await?,
            };
            return Ok((channel, partition.topic_id));
        }
        Target::Controller => cluster.metadata.snapshot().controller,
        Target::Any => {
            let metadata = cluster.metadata.snapshot();
            metadata.controller.or_else(|| metadata.brokers.keys().next().copied())
        }
        Target::Broker(id) => Some(id),
    };
    let Some(broker) = broker else {
        return Err(call.error(ErrorKind::Broker { code: ErrorCode::NOT_CONTROLLER, message: None }));
    };
    Ok((cluster.pool.general(broker, call).await?, Uuid::default()))
}

/// Makes a rejection an error, after the new leader was taken from it.
fn rejected(rejection: Rejection, target: Target<'_>, call: CallContext<'_>, channel: &Channel) -> Error {
    let kind = match rejection {
        Rejection::Corrupt(source) => {
            return Error::from(source).with_context(call.at_broker(channel.broker()));
        }
        Rejection::Missing | Rejection::Throttled => ErrorKind::MalformedResponse,
        Rejection::Kind(kind) => kind,
        Rejection::Code { code, message, leader } => {
            if let (Target::Leader(partition, _), Some(update)) = (target, leader) {
                partition.apply_leader_update(update);
            }
            ErrorKind::Broker { code, message }
        }
    };
    let is_malformed = matches!(kind, ErrorKind::MalformedResponse);
    let error = Error::new(kind).with_context(call.at_broker(channel.broker()));
    // A response that cannot be understood does not say that nothing was done.
    match is_malformed && call.api.changes_something() {
        true => error.with_outcome(Outcome::Unknown),
        false => error,
    }
}

/// A duration as the protocol has it; at most 24 days.
pub(crate) fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}
