//! The appends that were submitted, in their order.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kwal_protocol::{api::ApiKey, record::EncodedBatch};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

use super::{Core, Produced, ProducerState};
use crate::error::{At, Error};

/// How many appends of one partition may be submitted and not done; further ones wait for their place.
const CAPACITY: usize = 64;

/// An append whose place is fixed.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) batch: EncodedBatch,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Produced, Error>>,
    /// Its part of the queue and of the client's memory, given back when it is done.
    pub(super) _room: [OwnedSemaphorePermit; 2],
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Notify,
    /// Held by the one that is next to get room. It is fair, so who came first is let in first, on whatever thread.
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(super) room: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// The producer id, for as long as there is nothing to append: who takes it from here may go on with it.
    resting: Option<ProducerState>,
    /// Nobody is left to submit: the writer ends when it is done.
    closing: bool,
    /// The writer is gone.
    closed: bool,
}

impl Default for Queue {
    fn default() -> Self {
        let turn = tokio::sync::Mutex::default();
        Self { state: Mutex::default(), wake: Notify::new(), turn, room: Arc::new(Semaphore::new(CAPACITY)) }
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fixes the place of an append. `false` if the writer is gone.
    pub(super) fn submit(&self, job: Job) -> bool {
        let mut state = self.state();
        if state.closed {
            return false;
        }
        state.jobs.push_back(job);
        state.resting = None;
        drop(state);
        self.wake.notify_one();
        true
    }

    /// The next append; `None` when there will be no more. For the one writer.
    pub(super) async fn next(&self) -> Option<Job> {
        loop {
            {
                let mut state = self.state();
                if let Some(job) = state.jobs.pop_front() {
                    return Some(job);
                }
                if state.closing {
                    state.closed = true;
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }

    /// Says with which producer id the next append is to go on.
    pub(super) fn rest(&self, producer: Option<ProducerState>) {
        self.state().rest(producer);
    }

    /// Hands a success out.
    pub(super) fn succeed(
        &self,
        reply: oneshot::Sender<Result<Produced, Error>>,
        produced: Produced,
        producer: Option<ProducerState>,
    ) {
        let mut state = self.state();
        state.rest(producer);
        // Who does not wait any more does not need the answer either.
        drop(reply.send(Ok(produced)));
    }

    /// Hands a failure out. What was submitted behind it until this moment fails too, so that the log has no hole.
    pub(super) fn fail(
        &self,
        reply: oneshot::Sender<Result<Produced, Error>>,
        error: Error,
        producer: Option<ProducerState>,
        at: impl Fn() -> Box<At>,
    ) {
        let mut state = self.state();
        if !state.jobs.is_empty() {
            let cause = Arc::new(error.clone());
            for job in state.jobs.drain(..) {
                drop(job.reply.send(Err(Error::Behind { at: at(), cause: Arc::clone(&cause) })));
            }
        }
        state.rest(producer);
        drop(reply.send(Err(error)));
    }

    /// Gives the producer id, if nothing is under way with it, to whoever opens the partition next.
    pub(super) fn give_producer(&self, core: &Core) {
        let resting = self.state().resting.take();
        if let Some(producer) = resting {
            core.cluster.give_producer(&core.topic, core.partition, producer);
        }
    }
}

impl State {
    fn rest(&mut self, producer: Option<ProducerState>) {
        self.resting = producer.filter(|_| self.jobs.is_empty());
    }
}

/// Held by the partition clients; dropped with the last of them.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) core: Arc<Core>,
    pub(super) queue: Arc<Queue>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.queue.state().closing = true;
        // At once, since the partition may be opened again before the writer has its turn.
        self.queue.give_producer(&self.core);
        self.queue.wake.notify_one();
    }
}

/// Held by the writer; dropped with it, also when its runtime ends it.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) core: Arc<Core>,
    pub(super) queue: Arc<Queue>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.closed = true;
        // Whose append was under way sees that nobody will answer; these were not looked at yet.
        for job in state.jobs.drain(..) {
            let at = self.core.place().at(ApiKey::PRODUCE, None);
            drop(job.reply.send(Err(Error::Closed { at })));
        }
    }
}
