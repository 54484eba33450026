//! The appends that were submitted, in their order.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kwal_protocol::record::EncodedBatch;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

use super::Produced;
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

    /// Hands a failure out. What was submitted behind it until this moment fails too, so that the log has no hole.
    pub(super) fn fail(
        &self,
        reply: oneshot::Sender<Result<Produced, Error>>,
        error: Error,
        at: impl Fn() -> Box<At>,
    ) {
        let mut state = self.state();
        if !state.jobs.is_empty() {
            let cause = Arc::new(error.clone());
            for job in state.jobs.drain(..) {
                drop(job.reply.send(Err(Error::Behind { at: at(), cause: Arc::clone(&cause) })));
            }
        }
        drop(reply.send(Err(error)));
    }
}

/// Held by the partition clients; dropped with the last of them.
#[derive(Debug)]
pub(super) struct Open(pub(super) Arc<Queue>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state().closing = true;
        self.0.wake.notify_one();
    }
}

/// Held by the writer; dropped with it, also when its runtime ends it.
#[derive(Debug)]
pub(super) struct Served(pub(super) Arc<Queue>);

impl Drop for Served {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        // Their callers see that nobody will answer.
        state.jobs.clear();
    }
}
