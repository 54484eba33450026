//! What the handles of a producer, its driver and the results of its batches share.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Waker,
    time::Duration,
};

use kwal_client::{
    Answer, OnFailure, PartitionClient, Permit,
    error::{Error, Outcome, Progress},
    metrics::BatchMetrics,
};
use kwal_protocol::record::{Compression, EncodedBatch};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, timeout_at},
};

use super::{
    Settings, Undelivered,
    accumulator::{Accumulator, Batch, Limits},
    ack::Ack,
    aggregator::Aggregator,
    completion::Completion,
    stats::{Counters, Stats},
};
use crate::size::BATCH;

pub(super) struct Shared<A> {
    pub(super) partition: PartitionClient,
    pub(super) aggregator: A,
    state: Mutex<State>,
    /// Locked by the caller that waits for a permit. It is fair, so the first caller is accepted first.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Wakes the driver.
    pub(super) wake: Notify,
    /// Never has a permit, and is closed when nothing more is accepted.
    open: Semaphore,
    /// Wakes those that wait until everything has ended.
    pub(super) drained: Notify,
    /// How many times the size of its records a batch may take: twice if it is compressed.
    pub(super) factor: usize,
    pub(super) stops_on_failure: bool,
    pub(super) deadline: Duration,
    pub(super) max_bytes: usize,
    pub(super) max_input_bytes: usize,
    pub(super) metrics: BatchMetrics,
}

pub(super) struct State {
    pub(super) accumulator: Accumulator<Pending>,
    /// What is being encoded.
    pub(super) taken: Option<Arc<Completion>>,
    /// What will not be sent, and has not ended.
    pub(super) failing: Vec<Arc<Completion>>,
    /// A failure that happened since: it is kept until that is submitted, and fails as well.
    pub(super) failed_meanwhile: Option<Arc<Answer>>,
    /// What was submitted and has not ended.
    pub(super) in_flight: Vec<InFlight>,
    /// How many callers wait for their turn.
    pub(super) waiting: usize,
    /// A failure that not all callers have got, of its batch and of what failed because of it: while it is
    /// there, nothing is accepted. Never there if later batches may succeed.
    pub(super) cause: Weak<Answer>,
    /// Nothing more is accepted.
    pub(super) is_closed: bool,
    /// No handle is left.
    pub(super) is_unused: bool,
    /// What failed since the producer was closed.
    pub(super) undelivered: Vec<Undelivered>,
    pub(super) counters: Counters,
}

/// What belongs to a batch that is gathered.
pub(super) struct Pending {
    pub(super) permit: Permit,
    /// How many bytes of records it has room for.
    pub(super) room: usize,
    pub(super) completion: Arc<Completion>,
    pub(super) wakers: Vec<Waker>,
}

/// The place of a batch, or of a part of one, among all: the number of the batch, and the index of its first
/// record.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Place(pub(super) u64, pub(super) u32);

/// A part of a batch that was submitted.
pub(super) struct InFlight {
    pub(super) place: Place,
    pub(super) batch: EncodedBatch,
    pub(super) completion: Arc<Completion>,
}

/// What became of an input that was handed over.
pub(super) enum Handed<A: Aggregator> {
    /// It was accepted, or will never be.
    Over(Ack<A::Tag>),
    /// It has to wait for a permit. Nobody who comes later is accepted before.
    Waits(Waits<A>),
}

impl<A: Aggregator> Shared<A> {
    pub(super) fn new(partition: PartitionClient, aggregator: A, settings: Settings) -> Arc<Self> {
        let (deadline, limit) = (partition.operation_deadline(), partition.batch_limit());
        let Settings { linger, max_records, max_bytes, max_input_bytes, window } = settings;
        let limits = Limits {
            records: max_records.clamp(1, i32::MAX as usize),
            bytes: max_bytes,
            uncompressed: match partition.compression() {
                Compression::None => limit,
                // What does not compress becomes a little larger.
                _ => limit.saturating_sub(limit / 128 + 64),
            },
            // There has to be time left to append it.
            linger: linger.min(deadline / 2),
            window: window.clamp(1, partition.max_in_flight()),
            most_in_flight: partition.max_in_flight(),
        };
        let state = State {
            accumulator: Accumulator::new(limits),
            taken: None,
            failing: Vec::new(),
            failed_meanwhile: None,
            in_flight: Vec::new(),
            waiting: 0,
            cause: Weak::new(),
            is_closed: false,
            is_unused: false,
            undelivered: Vec::new(),
            counters: Counters::default(),
        };
        Arc::new(Self {
            aggregator,
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            open: Semaphore::new(0),
            drained: Notify::new(),
            factor: if partition.compression() == Compression::None { 1 } else { 2 },
            stops_on_failure: partition.on_failure() == OnFailure::Stop,
            deadline,
            max_bytes,
            max_input_bytes: max_input_bytes.min(limit),
            metrics: BatchMetrics::new(partition.topic(), partition.partition()),
            partition,
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // No code of others runs under it but that of the aggregator, which is caught.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many bytes a permit for so many bytes of records is for. More than a batch may have is
    /// taken as a debt if it comes to that.
    pub(super) fn bytes(&self, records: usize) -> usize {
        records.saturating_mul(self.factor).min(self.partition.batch_limit())
    }

    /// Returns for how many bytes an input needs a permit.
    pub(super) fn bytes_for(&self, input: &A::Input) -> usize {
        self.bytes_of(self.aggregator.size_hint(input))
    }

    /// Returns for how many bytes an input of this size needs a permit.
    pub(super) fn bytes_of(&self, input: usize) -> usize {
        self.bytes(BATCH.saturating_add(input))
    }

    /// Returns what tells the appends of this producer from others of the partition client.
    pub(super) fn group(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// Wakes whoever waits for what the state is now.
    pub(super) fn check_driver(&self) {
        let is_closed = {
            let state = &*self.state();
            // One that lingers may have got room, and the driver has no timer for it yet.
            let lingers = state.accumulator.poll_timeout().is_some();
            if state.accumulator.is_driver_needed() || lingers || state.is_unused {
                self.wake.notify_one();
            }
            state.is_closed
        };
        if is_closed {
            self.drained.notify_waiters();
        }
    }

    // For the driver

    /// Returns what the driver waits for.
    pub(super) fn next_step(&self) -> Step {
        let state = &*self.state();
        if state.is_unused && state.is_idle() {
            return Step::End;
        }
        match state.accumulator.is_driver_needed() {
            true if state.accumulator.are_returning() => Step::Yield,
            true => Step::Send,
            false => Step::Wait(state.accumulator.poll_timeout().map(Instant::from_std)),
        }
    }

    /// Notes that those that were answered have had a turn. Returns whether they are no longer waited for.
    pub(super) fn have_returned(&self) -> bool {
        self.state().accumulator.have_returned()
    }

    /// Ends what is left when the driver ends, also when its runtime aborts it.
    pub(super) fn end(&self) {
        let left = {
            let state = &mut *self.state();
            state.is_closed = true;
            state.take_all()
        };
        self.open.close();
        self.fail(left, &self.partition.append_closed(Outcome::NotApplied), None);
        self.check_driver();
    }

    // For handles

    /// Takes a permit for an input of so many bytes, if nothing has to be waited for, or begins to wait.
    ///
    /// # Errors
    /// No permit is for so many, or nothing is accepted any more.
    pub(super) fn try_permit(self: &Arc<Self>, bytes: usize) -> Result<Result<Permit, Waits<A>>, Error> {
        if bytes > self.partition.batch_limit() {
            return Err(self.partition.batch_too_large(bytes, 0));
        }
        let state = &mut *self.state();
        if state.is_closed {
            return Err(self.partition.append_closed(Outcome::NotApplied));
        }
        if state.waiting == 0
            && let Some(permit) = self.partition.try_reserve(self.bytes_of(bytes))
        {
            return Ok(Ok(permit));
        }
        Ok(Err(self.wait_for_turn(state)))
    }

    /// Begins to wait for memory or a place. What holds them does not linger meanwhile.
    pub(super) fn wait_for_turn(self: &Arc<Self>, state: &mut State) -> Waits<A> {
        state.waiting += 1;
        state.counters.waited();
        drop(state.accumulator.flush());
        self.wake.notify_one();
        Waits(Arc::clone(self))
    }

    /// Waits for a permit, and holds the turn until it is used.
    pub(super) async fn permit(&self, bytes: usize) -> Result<Permit, Error> {
        tokio::select! {
            biased;
            permit = self.partition.reserve(bytes).deadline(Duration::MAX).into_future() => permit,
            // It never has a permit, so this ends only when it is closed.
            _ = self.open.acquire() => Err(self.partition.append_closed(Outcome::NotApplied)),
        }
    }

    /// Returns all batches that were accepted and have not ended, and lets them go without lingering.
    pub(super) fn flush(&self) -> Vec<Arc<Completion>> {
        let state = &mut *self.state();
        let State { accumulator, in_flight, taken, failing, .. } = state;
        let sent = in_flight.iter().map(|sent| &sent.completion);
        let left = accumulator.flush().map(|batch| &batch.payload.completion);
        let all = sent.chain(taken.as_ref()).chain(failing.iter()).chain(left).map(Arc::clone).collect();
        self.wake.notify_one();
        all
    }

    /// Accepts nothing more, and waits until everything has ended, or until the deadline. Returns what is not
    /// on the log.
    pub(super) async fn close(self: &Arc<Self>, at: Instant, after: Duration) -> Vec<Undelivered> {
        self.state().is_closed = true;
        self.open.close();
        drop(self.flush());
        if timeout_at(at, self.wait_until(State::is_idle)).await.is_ok() {
            return Undelivered::sorted(self.state().undelivered.clone());
        }
        // One that is being encoded is submitted in a moment, and what is failing has failed.
        self.wait_until(|state| state.taken.is_none() && state.failing.is_empty()).await;
        let left = self.state().take_all();
        let late = self.partition.append_late(after, Progress::Queue, Outcome::NotApplied);
        self.fail(left, &late, None);
        self.partition.end_appends(self.group(), after);
        // Another call may wait for the same.
        self.check_driver();
        Undelivered::sorted(self.state().undelivered.clone())
    }

    async fn wait_until(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            // Registered before the check, so that the wake-up is not missed.
            let mut drained = std::pin::pin!(self.drained.notified());
            drained.as_mut().enable();
            if is_so(&self.state()) {
                return;
            }
            drained.await;
        }
    }

    /// Notes that no handle is left.
    pub(super) fn unused(&self) {
        {
            let state = &mut *self.state();
            state.is_unused = true;
            drop(state.accumulator.flush());
        }
        self.wake.notify_one();
    }

    pub(super) fn stats(&self) -> Stats {
        let State { accumulator, counters, waiting, .. } = &*self.state();
        counters.stats(accumulator.in_flight(), accumulator.waiting(), *waiting as u64)
    }
}

impl State {
    /// Whether everything that was accepted has ended.
    fn is_idle(&self) -> bool {
        let is_sent = self.accumulator.is_empty() && self.taken.is_none();
        is_sent && self.in_flight.is_empty() && self.failing.is_empty()
    }

    /// Removes everything that was accepted and is not taken. It counts until it has [ended](Shared::fail).
    pub(super) fn take_all(&mut self) -> Vec<Batch<Pending>> {
        let left = self.accumulator.take_all();
        self.failing.extend(left.iter().map(|batch| Arc::clone(&batch.payload.completion)));
        left
    }
}

/// What the driver does next.
pub(super) enum Step {
    Send,
    /// Let those come back that were just answered, so that they share a batch.
    Yield,
    Wait(Option<Instant>),
    End,
}

/// A caller that waits for its turn: until it is dropped, nobody who comes later is accepted.
pub(super) struct Waits<A: Aggregator>(pub(super) Arc<Shared<A>>);

impl<A: Aggregator> Drop for Waits<A> {
    fn drop(&mut self) {
        let state = &mut *self.0.state();
        state.waiting -= 1;
        // What it was accepted into does not linger either, while others wait for what that holds.
        if state.waiting > 0 {
            drop(state.accumulator.flush());
            self.0.wake.notify_one();
        }
    }
}

impl<A> fmt::Debug for Shared<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("partition", &self.partition).finish_non_exhaustive()
    }
}

/// The time of the accumulator.
pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}
