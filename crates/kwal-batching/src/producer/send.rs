//! Sending batches, and what becomes of them.

use std::{mem, sync::Arc, time::Duration};

use kwal_client::{
    Answer,
    error::{Error, Outcome},
};
use kwal_protocol::record::{Compression, EncodedBatch};
use tokio::time::Instant;

use super::{
    accumulator::{Batch, Taker},
    aggregator::{Aggregator, Contents},
    completion::{Completion, Ended, Part, Times},
    end::Undelivered,
    shared::{InFlight, Pending, Place, Shared, State, now},
    split::split,
};

impl<A: Aggregator> Shared<A> {
    pub(super) fn take(&self, state: &mut State, taker: Taker) -> Option<Batch<Pending>> {
        let mut batch = state.accumulator.take(now, taker)?;
        let Pending { completion, wakers, .. } = &mut batch.payload;
        completion.close(mem::take(wakers));
        state.taken = Some(Arc::clone(&batch.payload.completion));
        Some(batch)
    }

    /// Sends the next batch if it is due, for the driver. Returns whether it was.
    pub(super) fn send_next(self: &Arc<Self>) -> bool {
        let taken = self.take(&mut self.state(), Taker::Driver);
        taken.map(|batch| self.submit(batch)).is_some()
    }

    /// Encodes a batch that was taken, and submits it. No lock is held: it takes as long as the compression
    /// does.
    pub(super) fn submit(self: &Arc<Self>, batch: Batch<Pending>) {
        let Batch { number, contents, inputs, opened, payload } = batch;
        let Pending { mut permit, completion, .. } = payload;
        let uncompressed = contents.size();
        let encoded = self.encode(contents);
        let submitted = Instant::now();
        let times = Times {
            queued: submitted.saturating_duration_since(Instant::from_std(opened)),
            wire: Duration::ZERO,
        };
        let parts = match encoded {
            Ok(parts) => parts,
            Err(error) => return self.not_encoded(number, inputs, completion, times, error),
        };
        completion.split(parts.len());
        // A recorder is foreign code: nobody waits for it who waits for the lock.
        for batch in &parts {
            self.metrics.submitted(batch, times.queued);
        }
        let mut first = 0;
        let mut ends = Vec::with_capacity(parts.len());
        {
            let state = &mut *self.state();
            state.taken = None;
            state.accumulator.split(parts.len());
            for batch in parts {
                let records = u32::try_from(batch.record_count()).unwrap_or(u32::MAX);
                let (place, completion) = (Place(number, first), Arc::clone(&completion));
                state.counters.submitted(records, batch.size_in_bytes(), state.accumulator.in_flight());
                state.in_flight.push(InFlight {
                    place,
                    batch: batch.clone(),
                    completion: Arc::clone(&completion),
                });
                let (shared, completion, queued) = (Arc::clone(self), Some(completion), times.queued);
                let end = End { shared, place, inputs, completion, submitted, queued };
                ends.push((batch, end));
                first = first.saturating_add(records);
            }
            state.counters.taken(uncompressed, times.queued);
        }
        let left = self.deadline.saturating_sub(times.queued);
        let mut ends = ends.into_iter();
        let last = ends.next_back();
        for (batch, mut end) in ends {
            let size = batch.size_in_bytes();
            permit.grow(size);
            permit
                .split(size)
                .deadline(left)
                .submit_then(batch, self.group(), move |answer| end.call(answer));
        }
        if let Some((batch, mut end)) = last {
            permit.grow(batch.size_in_bytes());
            permit.deadline(left).submit_then(batch, self.group(), move |answer| end.call(answer));
        }
        let (failed_meanwhile, is_closed) = {
            let state = &mut *self.state();
            state.accumulator.submitted();
            (state.failed_meanwhile.take(), state.is_closed)
        };
        drop(failed_meanwhile);
        if is_closed {
            self.drained.notify_waiters();
        }
    }

    /// Encodes a batch: as several if it is larger than expected.
    fn encode(&self, contents: Contents) -> Result<Vec<EncodedBatch>, NotEncoded> {
        let uncompressed = contents.size();
        let failed = |error| NotEncoded { error, parts: Vec::new() };
        let batch = self.partition.finish(contents.into_builder()).map_err(failed)?;
        let wire = batch.size_in_bytes();
        if batch.compression() != Compression::None {
            self.state().accumulator.compressed(uncompressed, wire);
        }
        let limit = self.partition.batch_limit();
        let most = self.max_bytes.min(limit);
        let parts = match wire > most && batch.record_count() > 1 {
            true => split(&self.partition, batch, most).map_err(failed)?,
            false => vec![batch],
        };
        match parts.iter().find(|part| part.size_in_bytes() > limit) {
            None => Ok(parts),
            Some(part) => {
                let error = self.partition.batch_too_large(part.size_in_bytes(), part.record_count());
                Err(NotEncoded { error, parts })
            }
        }
    }

    /// Ends a batch that could not be encoded, as one that has failed on its way.
    fn not_encoded(
        &self,
        number: u64,
        inputs: u64,
        completion: Arc<Completion>,
        times: Times,
        NotEncoded { error, parts }: NotEncoded,
    ) {
        // Before another batch can be submitted: that fails as well.
        let answer = Arc::new(self.partition.failed_append(error.clone()));
        {
            let state = &mut *self.state();
            state.taken = None;
            state.failed_meanwhile = None;
            state.accumulator.submitted();
            if state.is_closed {
                let parts = (0..).zip(parts);
                let left =
                    parts.map(|(part, batch)| Undelivered::new(error.clone(), batch, Place(number, part)));
                state.undelivered.extend(left);
            }
        }
        self.ended(Part { first: 0, answer, cause: None, times }, None, inputs, completion);
    }

    /// Notes how a part of a batch has ended, where the append was completed. It has no place if it was not
    /// submitted.
    fn ended(&self, mut part: Part, place: Option<Place>, inputs: u64, completion: Arc<Completion>) {
        let mut behind = Vec::new();
        let (ended, cause) = {
            let state = &mut *self.state();
            let at = state.in_flight.iter().position(|sent| Some(sent.place) == place);
            let sent = at.map(|at| state.in_flight.remove(at));
            if place.is_some() {
                state.counters.ended(part.times.wire);
            }
            if let Err(error) = part.answer.result() {
                behind = self.failed(state, &part.answer, &mut part.cause);
                if let Some(InFlight { batch, place, .. }) = sent
                    && state.is_closed
                {
                    state.undelivered.push(Undelivered::new(error.clone(), batch, place));
                }
            }
            state.accumulator.ended(inputs, part.answer.result().is_ok());
            let cause = Arc::clone(part.cause.as_ref().unwrap_or(&part.answer));
            let ended = completion.end(part);
            if let Some(ended) = &ended {
                state.counters.inputs(inputs, ended.is_appended);
            }
            (ended, cause)
        };
        if !behind.is_empty() {
            self.fail(behind, &self.partition.preceding_failed(), Some(&cause));
        }
        // An error counts as returned once nothing keeps it: the caller may append again at once.
        drop((completion, cause));
        ended.into_iter().for_each(Ended::wake);
        self.check_driver();
    }

    /// Notes a failure, and returns what has to fail because of it: everything that was accepted before
    /// anybody could know of it. Nothing is accepted while somebody keeps `cause`, or `answer` without one.
    fn failed(
        &self,
        state: &mut State,
        answer: &Arc<Answer>,
        cause: &mut Option<Arc<Answer>>,
    ) -> Vec<Batch<Pending>> {
        if !self.stops_on_failure {
            return Vec::new();
        }
        *cause = state.cause.upgrade();
        let first = cause.as_ref().unwrap_or(answer);
        state.cause = Arc::downgrade(first);
        if state.accumulator.is_taken() {
            state.failed_meanwhile = Some(Arc::clone(first));
        }
        state.take_all()
    }

    /// Ends batches that were not submitted.
    pub(super) fn fail(&self, batches: Vec<Batch<Pending>>, error: &Error, cause: Option<&Arc<Answer>>) {
        for Batch { number, contents, inputs, opened, payload } in batches {
            let Pending { permit, completion, wakers, .. } = payload;
            completion.close(wakers);
            let mut undelivered = None;
            if self.state().is_closed {
                let batch = self.partition.finish(contents.into_builder());
                let place = Place(number, 0);
                undelivered = batch.ok().map(|batch| Undelivered::new(error.clone(), batch, place));
            }
            drop(permit);
            let queued = Instant::from_std(opened).elapsed();
            let times = Times { queued, wire: Duration::ZERO };
            let answer = Arc::new(Answer::failed(error.clone()));
            let ended = {
                let state = &mut *self.state();
                state.undelivered.extend(undelivered);
                state.failing.retain(|failing| !Arc::ptr_eq(failing, &completion));
                state.counters.inputs(inputs, false);
                completion.end(Part { first: 0, answer, cause: cause.cloned(), times })
            };
            drop(completion);
            ended.into_iter().for_each(Ended::wake);
        }
    }
}

/// A batch that could not be encoded, or whose parts are too large.
struct NotEncoded {
    error: Error,
    parts: Vec<EncodedBatch>,
}

/// Takes the result of a part of a batch.
struct End<A: Aggregator> {
    shared: Arc<Shared<A>>,
    place: Place,
    inputs: u64,
    /// `None` once it has ended.
    completion: Option<Arc<Completion>>,
    submitted: Instant,
    queued: Duration,
}

impl<A: Aggregator> End<A> {
    fn call(&mut self, answer: Answer) {
        let Some(completion) = self.completion.take() else { return };
        let times = Times { queued: self.queued, wire: self.submitted.elapsed() };
        let part = Part { first: self.place.1, answer: Arc::new(answer), cause: None, times };
        self.shared.ended(part, Some(self.place), self.inputs, completion);
    }
}

impl<A: Aggregator> Drop for End<A> {
    fn drop(&mut self) {
        // Every append that was submitted is completed, unless a panic has interrupted it.
        if self.completion.is_some() {
            self.call(Answer::failed(self.shared.partition.append_closed(Outcome::Unknown)));
        }
    }
}
