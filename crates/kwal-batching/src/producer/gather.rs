//! Accepting inputs: into the open batch, or into another one.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    task::Waker,
};

use kwal_client::{
    Permit,
    error::{Error, Outcome},
};

use super::{
    accumulator::{Batch, Taker},
    ack::Ack,
    aggregator::{Added, Aggregator, Contents},
    completion::Completion,
    shared::{Handed, Pending, Shared, State, now},
};
use crate::size::BATCH;

/// For how many bytes a batch is opened at least.
const LEAST: usize = 1024;

/// What an input is handed over with.
struct Given {
    permit: Option<Permit>,
    waker: Option<Waker>,
    /// A batch that was opened for it, and that it is not in. Boxed, because it is large and rare.
    removed: Option<Box<Batch<Pending>>>,
}

impl<A: Aggregator> Shared<A> {
    /// Hands an input over, with a permit or what the open batch has room for. If it is accepted, `waker` is
    /// woken when its batch has ended.
    pub(super) fn hand_over(
        self: &Arc<Self>,
        input: &A::Input,
        permit: Option<Permit>,
        waker: Option<&Waker>,
    ) -> Handed<A> {
        // What is left of it is dropped without the lock: that may wake others, and run any code.
        let mut given = Given { permit, waker: waker.cloned(), removed: None };
        let mut state = self.state();
        let handed = match self.accept(&mut state, input, &mut given) {
            Some(ack) => Handed::Over(ack),
            None => Handed::Waits(self.wait_for_turn(&mut state)),
        };
        // Large, and not moved before it is known to be there.
        let taken = self.take(&mut state, Taker::Caller);
        // The driver waits for the end of its linger.
        if taken.is_none() && state.accumulator.has_begun_to_linger() {
            self.wake.notify_one();
        }
        drop(state);
        drop(given);
        if let Some(batch) = taken {
            self.submit(batch);
            self.check_driver();
        }
        handed
    }

    /// Adds an input to the open batch, or to another one. `None` if that takes a permit.
    fn accept(&self, state: &mut State, input: &A::Input, given: &mut Given) -> Option<Ack<A::Tag>> {
        let Given { permit, waker, removed } = given;
        if state.is_closed {
            return Some(Ack::failed(self.partition.append_closed(Outcome::NotApplied)));
        }
        // Its batch may be sent when all have got the error: it would be behind a hole.
        if let Some(cause) = state.cause.upgrade() {
            return Some(Ack::preceded(self.partition.preceding_failed(), cause));
        }
        // Callers that wait come first.
        if permit.is_none() && state.waiting > 0 {
            return None;
        }
        let hint = self.aggregator.size_hint(input);
        // It cannot fit, whatever the hint is off by: not even encoded for it.
        if hint / 2 > self.max_input_bytes {
            return Some(Ack::failed(self.input_too_large(hint, 1)));
        }
        // What it takes beyond its permit is a debt, also if the batch is opened by that.
        let has_permit = permit.is_some();
        loop {
            let limits = state.accumulator.fits();
            let Some(batch) = state.accumulator.open_batch() else {
                if !self.open(state, hint, permit.take()) {
                    return None;
                }
                continue;
            };
            if !has_permit && !self.make_room(batch, hint) {
                return None;
            }
            let is_first = batch.inputs == 0;
            let others = batch.contents.size_of_records();
            let (mut size, mut count) = (0, 0);
            let fits = |contents: &Contents| {
                (size, count) = (contents.size().saturating_sub(others), contents.len());
                // It goes alone if it must, and then its size is exact.
                size <= self.max_input_bytes && (is_first || limits.check(contents))
            };
            let contents = &mut batch.contents;
            // A panic is the caller's: what it left is undone.
            let added = catch_unwind(AssertUnwindSafe(|| {
                contents.add(&self.partition, |sink| self.aggregator.add(input, sink), fits)
            }));
            let error = match added {
                Ok(Ok(Added::Here { records, tag })) => {
                    batch.inputs += 1;
                    batch.payload.wakers.extend(waker.take());
                    self.settle(batch, permit.as_mut());
                    let completion = Arc::clone(&batch.payload.completion);
                    let count = records.end - records.start;
                    if limits.is_full(&batch.contents) {
                        // It need not wait until another one does not fit.
                        state.accumulator.close_open();
                    }
                    return Some(Ack::accepted(completion, records.start, count, tag));
                }
                Ok(Ok(Added::Full)) if !is_first => {
                    state.accumulator.close_open();
                    continue;
                }
                Ok(Ok(Added::Full)) => self.input_too_large(size, count),
                Ok(Err(error)) => match error.downcast::<Error>() {
                    Ok(error) => *error,
                    Err(error) => self.partition.invalid_append(error.to_string()),
                },
                Err(panic) => {
                    *removed = state.accumulator.remove_empty().map(Box::new);
                    resume_unwind(panic);
                }
            };
            *removed = state.accumulator.remove_empty().map(Box::new);
            return Some(Ack::failed(error));
        }
    }

    /// Returns the error of an input that would be too large a batch by itself.
    fn input_too_large(&self, size: usize, records: usize) -> Error {
        match self.max_input_bytes < self.partition.batch_limit() {
            true => self.partition.input_too_large(size, records, self.max_input_bytes),
            false => self.partition.batch_too_large(size, records),
        }
    }

    /// Opens a batch, by a permit if there is one. Returns whether there was memory and a place for it.
    fn open(&self, state: &mut State, hint: usize, permit: Option<Permit>) -> bool {
        let needed = BATCH.saturating_add(hint);
        let room = state.accumulator.typical().max(LEAST).max(needed);
        let permit = match permit {
            Some(mut permit) => {
                permit.try_grow(self.bytes(room));
                permit
            }
            None => {
                let permit = self.partition.try_reserve(self.bytes(room));
                let permit = permit.or_else(|| self.partition.try_reserve(self.bytes(needed)));
                let Some(permit) = permit else { return false };
                permit
            }
        };
        let room = permit.size() / self.factor;
        let contents = Contents::new(self.partition.batch_builder(room.saturating_sub(BATCH)));
        let wakers = Vec::with_capacity(state.accumulator.typical_inputs());
        let payload = Pending { permit, room, completion: Completion::new(), wakers };
        state.accumulator.open(now(), contents, payload);
        true
    }

    /// Returns whether the open batch has memory for so many more bytes. It at least doubles.
    fn make_room(&self, batch: &mut Batch<Pending>, hint: usize) -> bool {
        let Batch { contents, payload: Pending { permit, room, .. }, .. } = batch;
        let needed = contents.size().saturating_add(hint);
        if needed <= *room {
            return true;
        }
        let doubled = room.saturating_mul(2).min(self.max_bytes).max(needed);
        let found = [doubled, needed].into_iter().find(|bytes| permit.try_grow(self.bytes(*bytes)));
        if let Some(bytes) = found {
            *room = bytes;
            contents.reserve(bytes - contents.size());
        }
        found.is_some()
    }

    /// Settles the memory of a batch that an input was added to.
    fn settle(&self, batch: &mut Batch<Pending>, permit: Option<&mut Permit>) {
        let Batch { contents, payload: Pending { permit: own, room, .. }, .. } = batch;
        if contents.size() <= *room {
            return;
        }
        if let Some(permit) = permit {
            own.merge(permit);
        }
        *room = contents.size();
        own.grow(room.saturating_mul(self.factor));
    }
}
