//! How the results of appends reach their callers.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::trace;

use super::{
    Produced,
    appends::{Appends, PendingBatch, State},
    settings::OnFailure,
    state::{Completed, Doubt, Failure, Stage},
};
use crate::{
    error::{Error, ErrorKind, InDoubt, Outcome, Progress, Source},
    memory::Reservation,
    metrics::AppendTiming,
    producer_id::{Acknowledged, Identity, Stamp},
    routing::{Leader, Partition},
};

/// The result of an append on its way to its caller.
///
/// While it lives, an error counts as one that the caller has not got yet: see [`OnFailure::Stop`].
#[derive(Debug)]
pub struct Answer {
    pub(super) result: Result<Produced, Error>,
    _unseen: Option<Unseen>,
}

impl Answer {
    /// An error that keeps nothing else from being appended.
    #[doc(hidden)]
    pub fn failed(error: Error) -> Self {
        Self { result: Err(error), _unseen: None }
    }

    /// Returns the result.
    pub fn result(&self) -> &Result<Produced, Error> {
        &self.result
    }
}

/// Where the result of an append goes.
pub(super) enum Reply {
    /// To the future that the caller awaits.
    Future(oneshot::Sender<Answer>),
    /// To a function of the caller's, without a task in between.
    Function {
        function: Box<dyn FnOnce(Answer) + Send>,
        /// Of the appends that end together.
        group: usize,
    },
}

impl Reply {
    /// Whether the append is one of a group.
    pub(super) fn is_of(&self, of: usize) -> bool {
        matches!(self, Self::Function { group, .. } if *group == of)
    }

    /// Whether nobody needs the result.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Future(sender) => sender.is_closed(),
            Self::Function { .. } => false,
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Future(_) => "Future",
            Self::Function { .. } => "Function",
        })
    }
}

/// Counts as an error that its caller has not got yet, until it is dropped. What is submitted meanwhile fails
/// with it, so that the log has no hole.
#[derive(Debug)]
pub(super) struct Unseen(Arc<AtomicUsize>);

impl Unseen {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The result of an append that has ended, and what it held.
#[derive(Debug)]
pub(super) struct Delivery {
    reply: Reply,
    answer: Answer,
    timing: AppendTiming,
    /// The attempts of an append that failed by itself, not because an earlier one did.
    failed_after: Option<u32>,
    _memory: Reservation,
    _place: Option<OwnedSemaphorePermit>,
}

impl Delivery {
    fn deliver(self) {
        let Self { reply, answer, timing: _, failed_after: _, _memory, _place } = self;
        match reply {
            // A caller that is gone does not need the result. A waker that panics is that of one caller, and
            // keeps nothing from the others.
            Reply::Future(sender) => {
                drop(catch_unwind(AssertUnwindSafe(|| drop(sender.send(answer)))));
            }
            Reply::Function { function, .. } => {
                // What the append held is free for what the function submits.
                drop((_memory, _place));
                function(answer);
            }
        }
    }
}

/// Results in the order in which their appends have ended. Usually there is one.
#[derive(Debug, Default)]
pub(super) struct Ended {
    first: Option<Delivery>,
    more: Vec<Delivery>,
}

impl Ended {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn push(&mut self, delivery: Delivery) {
        match self.first {
            None => self.first = Some(delivery),
            Some(_) => self.more.push(delivery),
        }
    }

    /// Adds an append that was not accepted.
    pub(super) fn fail(&mut self, batch: PendingBatch, error: Error, unseen: Option<Unseen>) {
        let PendingBatch { reply, timing, _memory, _place, .. } = batch;
        let answer = Answer { result: Err(error), _unseen: unseen };
        self.push(Delivery { reply, answer, timing, failed_after: None, _memory, _place });
    }

    /// Reports them and hands them to their callers, while nothing is locked.
    pub(super) fn deliver(self, appends: &Appends) {
        for delivery in self.first.into_iter().chain(self.more) {
            appends.report(&delivery);
            delivery.deliver();
        }
    }
}

impl Appends {
    /// Returns the result of an append that failed before it was submitted. It counts as any other: what is
    /// submitted before its caller has got it fails as well.
    pub(super) fn failed(&self, error: Error) -> Answer {
        let stops = self.settings.on_failure == OnFailure::Stop;
        let unseen = stops.then(|| Unseen::new(&self.unseen));
        self.failed_with(error.clone());
        Answer { result: Err(error), _unseen: unseen }
    }

    /// Notes an append that failed since one before it did, if its batch has several callers: each has handed
    /// over on its own, and may do so again before it has got its error.
    pub(super) fn unseen_by_many(&self, reply: &Reply) -> Option<Unseen> {
        let stops = self.settings.on_failure == OnFailure::Stop;
        (stops && matches!(reply, Reply::Function { .. })).then(|| Unseen::new(&self.unseen))
    }

    /// Reports results to their callers. `progress` is what the callers waited for, if it is known already.
    #[inline]
    pub(super) fn complete(&self, state: &mut State, progress: Option<Progress>) {
        // Mostly there are none.
        if state.machine.has_completed() {
            self.complete_all(state, progress);
        }
    }

    fn complete_all(&self, state: &mut State, progress: Option<Progress>) {
        while let Some((pending, completed)) = state.machine.poll_completed() {
            let PendingBatch { batch, reply, reported, timing, is_fence: _, _memory, _place } = pending;
            let (mut unseen, mut failed_after) = (None, None);
            let result = match completed {
                Completed::Appended { base_offset, attempts } => {
                    // Without a response of its own it is known to be on the log, and not where.
                    let unreported = || Produced {
                        topic_id: self.partition.topic_id(),
                        base_offset,
                        record_count: batch.record_count(),
                        log_append_time_ms: None,
                        log_start_offset: None,
                        wire_bytes: batch.size_in_bytes(),
                        attempts,
                    };
                    Ok(reported.unwrap_or_else(unreported))
                }
                Completed::Failed { error, in_doubt, attempts } => {
                    if self.settings.on_failure == OnFailure::Stop {
                        unseen = Some(Unseen::new(&self.unseen));
                    }
                    let error = self.in_doubt(self.failure(state, error, progress), in_doubt);
                    state.cause = Some(Arc::new(error.clone()));
                    failed_after = Some(attempts);
                    Err(error)
                }
                Completed::Preceding { cause, in_doubt } => {
                    let cause = match &state.cause {
                        Some(cause) => Arc::clone(cause),
                        None => Arc::new(self.failure(state, cause, progress)),
                    };
                    unseen = self.unseen_by_many(&reply);
                    let error = self.call().error(ErrorKind::PrecedingAppendFailed);
                    Err(self.in_doubt(error.with_source(Source::Call(cause)), in_doubt))
                }
            };
            if let (Err(error), Some(failed)) = (&result, &mut state.failed) {
                failed.push(error.clone());
            }
            let answer = Answer { result, _unseen: unseen };
            state.ended.push(Delivery { reply, answer, timing, failed_after, _memory, _place });
        }
    }

    /// Reports an append that has ended to subscribers and the recorder of metrics. They are foreign code,
    /// which may ask for the state of the partition client: nothing is locked.
    fn report(&self, delivery: &Delivery) {
        let Partition { topic, index, cluster, metrics, .. } = &*self.partition;
        let error = match &delivery.answer.result {
            Ok(produced) => {
                cluster.troubles.succeeded(self.call());
                trace!(
                    messaging.system = "kafka",
                    messaging.destination.name = &**topic,
                    messaging.destination.partition.id = %index,
                    messaging.kafka.offset = produced.base_offset,
                    messaging.batch.message_count = produced.record_count,
                    produced.attempts,
                    "appended"
                );
                return metrics.appended(delivery.timing, produced.record_count, produced.wire_bytes);
            }
            Err(error) => error,
        };
        match (error.outcome(), delivery.failed_after) {
            (Outcome::Unknown, _) => cluster.troubles.in_doubt(self.call(), error),
            (Outcome::NotApplied, Some(attempts)) if delivery.reply.is_closed() => {
                cluster.troubles.undelivered(self.call(), attempts, error);
            }
            (Outcome::NotApplied, _) => {}
        }
        metrics.append_failed(error);
    }

    /// Makes the reason for which an append failed an error.
    pub(super) fn failure(
        &self,
        state: &State,
        failure: Failure<Error>,
        progress: Option<Progress>,
    ) -> Error {
        match failure {
            Failure::Error(error) => error,
            Failure::Deadline { after, stage, last } => {
                let cluster = &self.partition.cluster;
                let error = match (progress, stage) {
                    (Some(progress), _) => self.call().error(ErrorKind::DeadlineExceeded { after, progress }),
                    (None, Stage::Next) => self.tracker.deadline_exceeded(cluster, self.call(), after),
                    (None, Stage::Behind) => {
                        self.call().error(ErrorKind::DeadlineExceeded { after, progress: Progress::Queue })
                    }
                    (None, Stage::InFlight) => {
                        let kind = ErrorKind::DeadlineExceeded { after, progress: Progress::Response };
                        let leader = state.link.as_ref().and_then(|link| link.opened.leader);
                        let error = self.call().error(kind);
                        match leader {
                            Some(Leader { id, .. }) => {
                                error.with_context(self.call().at_broker(&cluster.pool.name(id)))
                            }
                            None => error,
                        }
                    }
                };
                match last {
                    Some(last) => error.with_source(Source::Call(Arc::new(last))),
                    None => error,
                }
            }
            Failure::DataLoss { last, from } => {
                // Those who used them before learn of the loss here, and not once more from each of them.
                self.partition.cluster.producer_ids.clear(&self.partition.key());
                self.call().error(loss(last, from))
            }
        }
    }

    /// Adds to an error whether the append may be on the log nevertheless.
    fn in_doubt(&self, error: Error, doubt: Option<Doubt>) -> Error {
        let Some(Doubt { stamp, records, after }) = doubt else {
            return error.with_outcome(Outcome::NotApplied);
        };
        let error = error.with_outcome(Outcome::Unknown);
        let Some(Stamp { identity, sequence }) = stamp else { return error };
        let Partition { topic, index, topic_id, .. } = &*self.partition;
        error.with_in_doubt(InDoubt {
            topic: topic.to_string(),
            topic_id: (!topic_id.is_zero()).then_some(*topic_id),
            partition: *index,
            producer_id: identity.id,
            epoch: identity.epoch,
            sequence,
            record_count: records,
            after,
            transactional_id: self.hold.as_ref().map(|hold| hold.transactional_id.to_string()),
            part: None,
        })
    }
}

pub(super) fn loss(last: Acknowledged, from: Option<i64>) -> ErrorKind {
    let Acknowledged { stamp: Stamp { identity: Identity { id, epoch }, sequence }, base_offset, records } =
        last;
    let offsets = base_offset.and_then(|base_offset| {
        let end = base_offset.saturating_add_unsigned(records as u64);
        from.map(|from| from..end)
    });
    ErrorKind::DataLoss { producer_id: id, epoch, sequence, offsets }
}
