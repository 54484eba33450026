//! The producer task: what the appends of one partition have to wait for.
//!
//! It gets the producer id, finds the leader and connects to it, looks up the last acknowledged batch there,
//! plans pauses after failures, and ends appends at their deadlines. It does not run while appends succeed.

use std::{pin::pin, sync::Arc};

use kwal_protocol::{
    connection::ProduceTemplate,
    error_code::{Effect, ErrorCode, Recovery},
    messages::ProduceRequest,
};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::{
    appends::{Appends, Step},
    exclusive::renew,
    init::init_producer_id,
    lookup::look_up,
    results::loss,
    state::{Action, Found, Refusal, RefusalKind, Token},
};
use crate::{
    error::{Error, ErrorKind, Progress},
    pool::Purpose,
    producer_id::{Acknowledged, ProducerState},
    routing::{Leader, Opened, Partition, Retry, Target, Trace, denies_leading},
};

/// Runs until no handle is left and everything submitted is completed.
pub(super) async fn run(appends: Arc<Appends>) {
    let task = ProducerTask {
        appends: &appends,
        retry: None,
        min_generation: 0,
        trace: Trace::default(),
        resume_at: None,
        suspect: None,
    };
    task.run().await;
}

struct ProducerTask<'a> {
    appends: &'a Appends,
    /// The attempts since the last acknowledgement, if one has failed.
    retry: Option<Retry<'a>>,
    /// The oldest metadata that may name the leader, as far as earlier attempts have shown.
    min_generation: u64,
    /// Of the action that runs.
    trace: Trace,
    /// When appends go on after the last failure.
    resume_at: Option<Instant>,
    /// The leader that lacked the last acknowledged batch.
    suspect: Option<Leader>,
}

/// The connection to the leader, and the metadata that named it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) opened: Opened,
    pub(super) generation: u64,
    /// The requests on it but for their batches, or why they cannot be encoded for the broker.
    pub(super) template: Result<ProduceTemplate, Error>,
}

impl Link {
    /// Whether both are the same connection to the same leader in the same epoch.
    pub(super) fn is(&self, other: &Self) -> bool {
        let is_leader = match (self.opened.leader, other.opened.leader) {
            (Some(one), Some(other)) => one.is(other),
            _ => false,
        };
        is_leader && self.opened.channel.is(&other.opened.channel)
    }

    /// Whether appends name the topic. Otherwise they have its id, and are on its log if they are on any.
    pub(super) fn names_topic(&self) -> bool {
        self.opened.names_topic::<ProduceRequest>()
    }
}

/// What an action has found.
enum Outcome {
    Started(ProducerState),
    Connected(Opened),
    Found(Leader, Acknowledged, Found),
}

impl<'a> ProducerTask<'a> {
    async fn run(mut self) {
        loop {
            self.check_progress();
            match self.appends.next_step() {
                Step::End => return,
                Step::Handle(token, Ok(produced)) => self.appends.acknowledged(token, produced),
                Step::Handle(token, Err(error)) => self.refused(token, error),
                Step::Act(action) => self.act(action).await,
                Step::AwaitRoom(opened) => tokio::select! {
                    biased;
                    room = opened.channel.room() => self.appends.give_room(&opened, room),
                    () = self.appends.wait() => {}
                },
                Step::Wait => self.appends.wait().await,
            }
        }
    }

    /// Ends the series of attempts if one has succeeded, or if none is needed any more.
    fn check_progress(&mut self) {
        if self.retry.is_none() {
            return;
        }
        if self.appends.retrying(true) || self.appends.is_idle() {
            let retry = self.retry.take();
            self.min_generation = self.min_generation.max(retry.map_or(0, |retry| retry.min_generation()));
            self.appends.retrying(false);
        }
    }

    fn retry(&mut self) -> &mut Retry<'a> {
        let appends = self.appends;
        self.retry.get_or_insert_with(|| {
            let cluster = &appends.partition.cluster;
            // What was acknowledged before does not count.
            appends.retrying(true);
            // Each append has its own deadline.
            Retry::of_many(cluster, appends.call(), &appends.tracker)
        })
    }

    /// Runs an action, and ends appends at their deadlines meanwhile. When none is left, nothing needs it.
    async fn act(&mut self, action: Action) {
        let appends = self.appends;
        let min_generation = self.retry.as_ref().map_or(0, Retry::min_generation).max(self.min_generation);
        self.trace = Trace::default();
        let slow_at = Instant::now() + appends.renewal_patience();
        let (trace, retry) = (&mut self.trace, &self.retry);
        let result = {
            let mut work = pin!(async {
                tokio::select! {
                    biased;
                    result = perform(appends, action, min_generation, trace) => result,
                    never = report(retry) => match never {},
                }
            });
            loop {
                tokio::select! {
                    biased;
                    result = &mut work => break result,
                    () = appends.wait() => {}
                    () = sleep_until(slow_at), if Instant::now() < slow_at => {}
                }
                if appends.expire_during_action(Instant::now() >= slow_at) {
                    return;
                }
            }
        };
        match result {
            Ok(Outcome::Started(start)) => {
                appends.drive(|machine| machine.handle_identity(Instant::now().into_std(), start));
            }
            Ok(Outcome::Connected(opened)) => {
                appends.connected(opened, self.trace.generation);
            }
            Ok(Outcome::Found(leader, last, found)) => self.found(leader, last, found),
            Err(error) => self.failed(error),
        }
    }

    /// An action failed.
    fn failed(&mut self, error: Error) {
        let trace = std::mem::take(&mut self.trace);
        if let ErrorKind::Fenced = error.kind() {
            return self.appends.fenced(error);
        }
        let partition = &self.appends.partition;
        let planned = match error.kind() {
            // Of a look-up, which has the time of one request.
            ErrorKind::DeadlineExceeded { .. } => self.retry().plan_in_doubt(error.clone(), trace.generation),
            _ => partition.plan(self.retry(), error.clone(), &trace),
        };
        self.resume(error, planned);
    }

    /// Goes on after an action failed with an error: when planned, or not at all.
    fn resume(&self, error: Error, planned: Result<Instant, Error>) {
        self.appends.drive(|machine| match planned {
            Ok(at) => machine.handle_retry(error, at.into_std()),
            Err(error) => machine.handle_failed(error),
        });
    }

    /// The last acknowledged batch was looked up.
    fn found(&mut self, leader: Leader, last: Acknowledged, found: Found) {
        let Found::Lost { from } = found else {
            self.suspect = None;
            return self.appends.drive(|machine| machine.handle_found(found));
        };
        // A deposed leader that has not noticed yet lacks it, too. So the same leader has to lack it twice,
        // and another broker, if there is one, has to name that leader in between.
        if self.suspect.is_some_and(|before| before.is(leader)) && leader.confirmed {
            return self.appends.drive(|machine| machine.handle_found(found));
        }
        debug!(?leader, ?last, "the leader lacks the last acknowledged batch");
        self.suspect = Some(leader);
        self.appends.partition.cluster.pool.mark_unhealthy(leader.id);
        let error = self.appends.call().error(loss(last, from));
        let generation = self.appends.link().map_or(0, |link| link.generation);
        let planned = self.retry().plan_in_doubt(error.clone(), generation);
        self.resume(error, planned);
    }

    /// A batch was not acknowledged.
    fn refused(&mut self, token: Token, error: Error) {
        let may_have_applied = error.effect() == Effect::Unknown;
        let now = Instant::now();
        let Some(link) = self.appends.link() else { return };
        let trace = Trace { generation: link.generation, leader: link.opened.leader, ..Trace::default() };
        let mut resume_at = now;
        let (kind, error) = match code(&error) {
            Some(ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::PRODUCER_FENCED) => {
                self.appends.partition.metrics.fenced();
                let fenced = Error::new(ErrorKind::Fenced).with_context(error.context().clone());
                (RefusalKind::Fenced, fenced)
            }
            Some(ErrorCode::UNKNOWN_PRODUCER_ID | ErrorCode::INVALID_PRODUCER_ID_MAPPING) => {
                resume_at = self.pause_in_doubt(&error, &trace);
                (RefusalKind::UnknownProducer, error)
            }
            Some(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER) => {
                resume_at = self.pause_in_doubt(&error, &trace);
                (RefusalKind::OutOfOrder, error)
            }
            _ => match self.pause(error.clone(), &trace) {
                Ok(at) => {
                    resume_at = at;
                    let is_denied = link.names_topic() && code(&error).is_some_and(denies_leading);
                    let kind = match is_denied {
                        true => RefusalKind::Denied { may_have_applied },
                        false => RefusalKind::Retry { may_have_applied, reconnect: true },
                    };
                    (kind, error)
                }
                Err(error) => (RefusalKind::Final { may_have_applied }, error),
            },
        };
        let refusal = Refusal { error, kind };
        self.appends.drive(|machine| {
            machine.handle_refused(token, refusal, resume_at.into_std());
            // There may be no pause.
            machine.handle_timeout(Instant::now().into_std());
        });
    }

    /// Returns when appends go on after a failure. What failed with the same connection, or behind the same
    /// batch, shares one pause.
    fn pause(&mut self, error: Error, trace: &Trace) -> Result<Instant, Error> {
        match self.resume_at.filter(|_| self.appends.is_recovering()) {
            Some(at) if error.recovery() != Recovery::Fail => Ok(at),
            _ => {
                let partition = &self.appends.partition;
                let at = partition.plan(self.retry(), error, trace)?;
                self.resume_at = Some(at);
                Ok(at)
            }
        }
    }

    /// The same after an error that would end the append if it certainly came from the leader.
    fn pause_in_doubt(&mut self, error: &Error, trace: &Trace) -> Instant {
        if let Some(at) = self.resume_at.filter(|_| self.appends.is_recovering()) {
            return at;
        }
        // There is no reason for which it is refused: the deadline is that of each append.
        let at =
            self.retry().plan_in_doubt(error.clone(), trace.generation).unwrap_or_else(|_| Instant::now());
        self.resume_at = Some(at);
        at
    }
}

fn code(error: &Error) -> Option<ErrorCode> {
    match error.kind() {
        ErrorKind::Broker { code, .. } => Some(*code),
        _ => None,
    }
}

/// Reports an action that hangs after an attempt failed.
async fn report(retry: &Option<Retry<'_>>) -> std::convert::Infallible {
    match retry {
        Some(retry) => retry.report_if_it_hangs().await,
        None => std::future::pending().await,
    }
}

async fn perform(
    appends: &Appends,
    action: Action,
    min_generation: u64,
    trace: &mut Trace,
) -> Result<Outcome, Error> {
    let Appends { partition, tracker, .. } = appends;
    match action {
        Action::AcquireIdentity { held } => {
            tracker.set(Progress::ProducerId, None);
            let start = match (&appends.hold, held) {
                (Some(hold), Some(held)) => renew(partition, &hold.transactional_id, held, tracker).await,
                _ => acquire(partition).await,
            };
            Ok(Outcome::Started(start?))
        }
        Action::Connect => {
            let (cluster, call) = (&partition.cluster, appends.call());
            let target = Target::Leader(partition, Purpose::Produce);
            let opened = Opened::open(cluster, target, call, min_generation, trace, tracker).await;
            // A broker that cannot be reached has died, whatever it was sent before.
            Ok(Outcome::Connected(opened.inspect_err(|_| appends.closed.clear())?))
        }
        Action::LookUp { last, rejected } => {
            let Some(Link { opened: Opened { leader: Some(leader), .. }, generation, .. }) = appends.link()
            else {
                return Err(appends.call().error(ErrorKind::UnknownBroker));
            };
            (trace.generation, trace.leader) = (generation, Some(leader));
            tracker.set(Progress::LastAcknowledged, Some(leader.id));
            let found = match last.base_offset {
                // Without an offset, that it rejects what follows is all there is to know.
                None if rejected => Found::Lost { from: None },
                None => Found::Present,
                Some(_) => {
                    let (acknowledged_in, tracker) = (appends.acknowledged_in(), &appends.tracker);
                    look_up(partition, leader, &last, acknowledged_in, tracker).await?
                }
            };
            Ok(Outcome::Found(leader, last, found))
        }
    }
}

/// Returns an idle producer id of the partition, otherwise a new one.
async fn acquire(partition: &Partition) -> Result<ProducerState, Error> {
    if let Some(producer) = partition.cluster.producer_ids.acquire(&partition.key()) {
        return Ok(producer);
    }
    let producer = init_producer_id(partition).await?;
    debug!(?producer, topic = &*partition.topic, partition = partition.index, "got a producer id");
    Ok(producer)
}
