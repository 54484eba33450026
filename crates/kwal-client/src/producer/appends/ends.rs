//! How the appends of a partition end: closed, fenced, or without a handle.

use std::pin::pin;

use tokio::time::{Instant, timeout_at};

use super::{Appends, State};
use crate::{
    error::{Error, ErrorKind},
    routing::Deadline,
};

impl Appends {
    /// Takes no more appends, and waits until those that were submitted are completed, or ends them at the
    /// deadline. Returns the errors of those that failed since the first call.
    pub(in crate::producer) async fn close(&self, deadline: Deadline) -> Vec<Error> {
        {
            let state = &mut *self.lock();
            state.failed.get_or_insert_default();
            state.machine.stop_renewing();
        }
        self.refuse();
        let drained = async {
            loop {
                // Registered before the check, so that the wake-up is not missed.
                let drained = self.drained.notified();
                if self.lock().machine.is_idle() {
                    return;
                }
                drained.await;
            }
        };
        let is_late = timeout_at(deadline.at, drained).await.is_err();
        let state = &mut *self.lock();
        if is_late {
            state.machine.handle_timeout(Instant::now().into_std());
        }
        self.abort(state);
        // Others may close it at the same time, and each of them is to know all that failed.
        state.failed.clone().unwrap_or_default()
    }

    /// Ends everything that is left, and everything that is submitted from now on.
    fn abort(&self, state: &mut State) {
        // Before it ends: an ended producer keeps its id to itself. So does one that has left batches in
        // doubt: whoever resolves them fences the id.
        if !state.machine.has_left_doubt() {
            self.release_producer_id(state);
        }
        state.machine.abort(self.call().error(ErrorKind::Closed));
        self.complete(state, None);
        self.wake.notify_one();
    }

    /// Ends everything: another writer has taken over.
    pub(in crate::producer) fn fenced(&self, error: Error) {
        self.partition.metrics.fenced();
        self.drive(|machine| machine.handle_fenced(error));
    }

    /// Waits until nothing can be appended any more, and returns why.
    pub(in crate::producer) async fn ended(&self) -> Error {
        loop {
            // Registered before the check, so that the wake-up is not missed.
            let mut ended = pin!(self.ended.notified());
            ended.as_mut().enable();
            if let Some(error) = self.end_error() {
                return error;
            }
            ended.await;
        }
    }

    /// Returns why nothing can be appended any more, if that is so.
    pub(in crate::producer) fn end_error(&self) -> Option<Error> {
        let state = &*self.lock();
        let failure = state.machine.ended()?.clone();
        Some(self.failure(state, failure, None))
    }

    /// Ends the producer task's part: it is done, or its runtime aborts it.
    pub(in crate::producer) fn end(&self) {
        self.refuse();
        self.abort(&mut self.lock());
    }

    /// Notes that no handle is left.
    pub(in crate::producer) fn unused(&self) {
        let state = &mut *self.lock();
        state.is_unused = true;
        state.machine.stop_renewing();
        // At once, because the partition may be opened again before the task is polled.
        self.release_producer_id(state);
        self.wake.notify_one();
    }

    /// Releases the producer id, if nothing is in flight with it.
    fn release_producer_id(&self, state: &mut State) {
        if let Some(producer) = state.machine.release() {
            self.partition.cluster.producer_ids.release(self.partition.key(), producer);
        }
    }

    /// Gives out no more places.
    fn refuse(&self) {
        self.places.close();
        self.open.close();
    }
}
