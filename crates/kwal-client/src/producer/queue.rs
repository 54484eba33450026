//! The submitted appends of one partition, in their order: what handles and task share.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kwal_protocol::{api::ApiKey, record::EncodedBatch};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep_until},
};
use tracing::warn;

use super::Produced;
use crate::{
    error::{Error, ErrorKind, Outcome, Progress, Source},
    memory::Reservation,
    producer_id::ProducerState,
    routing::{Deadline, Partition},
};

/// How many appends of one partition may be submitted and not completed. Further ones wait.
const CAPACITY: usize = 64;

/// An append whose place in the order is fixed.
#[derive(Debug)]
pub(super) struct PendingBatch {
    pub(super) batch: EncodedBatch,
    pub(super) deadline: Deadline,
    pub(super) response: oneshot::Sender<Result<Produced, Error>>,
    /// Its parts of the client's memory and of the queue, given back when it is completed.
    pub(super) _memory: Reservation,
    pub(super) _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Notify,
    /// Wakes the task for an append that expires before the one in flight.
    hurry: Notify,
    /// Locked by the caller that is next to submit. It is fair, so the first caller submits first, on
    /// whatever thread.
    pub(super) turn: tokio::sync::Mutex<()>,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<PendingBatch>,
    /// When the append in flight expires, or the last one did.
    expires_at: Option<Instant>,
    /// The producer id while there is nothing to append. Another client of the partition may take it from
    /// here.
    idle: Option<ProducerState>,
    /// No handle is left: the task ends when it is done.
    closing: bool,
    /// The task is gone.
    closed: bool,
}

impl Default for Queue {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(CAPACITY));
        let turn = tokio::sync::Mutex::default();
        Self { state: Mutex::default(), wake: Notify::new(), hurry: Notify::new(), turn, places }
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. `None` if there will not be one.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Fixes the place of an append in the order. Returns whether the task is there to send it.
    pub(super) fn submit(&self, batch: PendingBatch) -> bool {
        let mut state = self.state();
        if state.closed {
            return false;
        }
        let is_urgent = state.expires_at.is_some_and(|expires_at| batch.deadline.at < expires_at);
        state.pending.push_back(batch);
        state.idle = None;
        drop(state);
        self.wake.notify_one();
        if is_urgent {
            self.hurry.notify_one();
        }
        true
    }

    /// Waits for the next append; `None` when there will be no more. For the one task.
    pub(super) async fn next(&self) -> Option<PendingBatch> {
        loop {
            {
                let mut state = self.state();
                if let Some(batch) = state.pending.pop_front() {
                    state.expires_at = Some(batch.deadline.at);
                    return Some(batch);
                }
                if state.closing {
                    state.closed = true;
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }

    /// Fails appends that expire while they wait for the one in flight. For the one task.
    ///
    /// Usually there are none: later appends have later deadlines.
    pub(super) async fn expire(&self, partition: &Partition) -> Infallible {
        loop {
            let next = self.state().next_expiry();
            match next {
                None => self.hurry.notified().await,
                Some(at) => tokio::select! {
                    biased;
                    () = sleep_until(at) => self.fail_expired(partition),
                    () = self.hurry.notified() => {}
                },
            }
        }
    }

    /// Fails the first append that has expired, and those submitted after it, so that the log has no hole.
    fn fail_expired(&self, partition: &Partition) {
        let now = Instant::now();
        let mut state = self.state();
        let Some(first) = state.pending.iter().position(|batch| batch.deadline.at <= now) else { return };
        let mut failed = state.pending.split_off(first).into_iter();
        if let Some(PendingBatch { deadline, response, .. }) = failed.next() {
            let kind = ErrorKind::DeadlineExceeded { after: deadline.after, progress: Progress::Queue };
            let error = partition.call(ApiKey::PRODUCE).error(kind).with_outcome(Outcome::NotApplied);
            warn_if_dropped(&response, &error, partition);
            fail_following(failed, &error, partition);
            drop(response.send(Err(error)));
        }
    }

    /// Reports a success to its caller.
    pub(super) fn succeed(
        &self,
        response: oneshot::Sender<Result<Produced, Error>>,
        produced: Produced,
        producer: Option<ProducerState>,
    ) {
        let mut state = self.state();
        state.offer(producer);
        // A caller that is gone does not need the result.
        drop(response.send(Ok(produced)));
    }

    /// Reports a failure to its caller. Appends submitted after it until now fail as well, so that the log
    /// has no hole.
    pub(super) fn fail(
        &self,
        response: oneshot::Sender<Result<Produced, Error>>,
        error: Error,
        producer: Option<ProducerState>,
        partition: &Partition,
    ) {
        warn_if_dropped(&response, &error, partition);
        let mut state = self.state();
        if !state.pending.is_empty() {
            fail_following(state.pending.drain(..), &error, partition);
        }
        state.offer(producer);
        drop(response.send(Err(error)));
    }

    /// Releases the producer id, if nothing is in flight with it.
    pub(super) fn release_producer_id(&self, partition: &Partition) {
        let idle = self.state().idle.take();
        if let Some(producer) = idle {
            partition.cluster.producer_ids.release(partition.key(), producer);
        }
    }
}

fn warn_if_dropped(
    response: &oneshot::Sender<Result<Produced, Error>>,
    error: &Error,
    partition: &Partition,
) {
    if response.is_closed() {
        let Partition { topic, index, .. } = partition;
        warn!(topic = &**topic, partition = index, %error, "an append failed and its caller is gone");
    }
}

/// Fails the appends submitted after one that failed.
fn fail_following(batches: impl Iterator<Item = PendingBatch>, error: &Error, partition: &Partition) {
    let cause = Arc::new(error.clone());
    for batch in batches {
        let error = partition.call(ApiKey::PRODUCE).error(ErrorKind::PrecedingAppendFailed);
        drop(batch.response.send(Err(error.with_source(Source::Call(Arc::clone(&cause))))));
    }
}

impl State {
    /// Returns when the first of the pending appends expires, if it does so before the one in flight.
    fn next_expiry(&self) -> Option<Instant> {
        let expiries = self.pending.iter().map(|batch| batch.deadline.at);
        expiries.filter(|at| self.expires_at.is_some_and(|expires_at| *at < expires_at)).min()
    }

    /// Offers the producer id to other clients of the partition for as long as there is nothing to append.
    fn offer(&mut self, producer: Option<ProducerState>) {
        self.idle = producer.filter(|_| self.pending.is_empty());
    }
}

/// Lets the task end when the last handle is dropped.
#[derive(Debug)]
pub(super) struct HandleGuard {
    partition: Arc<Partition>,
    queue: Arc<Queue>,
}

impl HandleGuard {
    pub(super) fn new(partition: Arc<Partition>, queue: Arc<Queue>) -> Self {
        Self { partition, queue }
    }
}

impl Drop for HandleGuard {
    fn drop(&mut self) {
        self.queue.state().closing = true;
        // At once, because the partition may be opened again before the task is polled.
        self.queue.release_producer_id(&self.partition);
        self.queue.wake.notify_one();
    }
}

/// Fails what is left in the queue when the task ends, also when its runtime aborts it.
#[derive(Debug)]
pub(super) struct TaskGuard {
    partition: Arc<Partition>,
    queue: Arc<Queue>,
}

impl TaskGuard {
    pub(super) fn new(partition: Arc<Partition>, queue: Arc<Queue>) -> Self {
        Self { partition, queue }
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.closed = true;
        // The caller of an append in flight sees that its sender is gone. These were not sent.
        for batch in state.pending.drain(..) {
            let error = self.partition.call(ApiKey::PRODUCE).error(ErrorKind::Closed);
            drop(batch.response.send(Err(error)));
        }
    }
}
