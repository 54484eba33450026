//! Gathers inputs into batches, and decides when each is sent: no IO, no clock, no lock.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::aggregator::Contents;
use crate::time::YEARS;

/// When a batch is full, and how many may be under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The most records of a batch.
    pub(super) records: usize,
    /// The most bytes of a batch on the wire.
    pub(super) bytes: usize,
    /// The most bytes of a batch before it is compressed.
    pub(super) uncompressed: usize,
    /// How long a batch gathers at least.
    pub(super) linger: Duration,
    /// How many batches are in flight before inputs gather until a batch is full.
    pub(super) window: usize,
    /// How many are in flight at most.
    pub(super) most_in_flight: usize,
}

/// A batch, and what belongs to it: `P`.
#[derive(Debug)]
pub(super) struct Batch<P> {
    /// Its place among all batches.
    pub(super) number: u64,
    pub(super) contents: Contents,
    pub(super) inputs: u64,
    pub(super) opened: Instant,
    pub(super) payload: P,
}

/// Gathers inputs into one open batch. Batches are taken in the order in which they were opened, and by one
/// taker at a time, so that they are submitted in that order.
#[derive(Debug)]
pub(super) struct Accumulator<P> {
    limits: Limits,
    open: Option<Batch<P>>,
    /// Those that are full, the oldest first.
    full: VecDeque<Batch<P>>,
    /// The number of the next batch.
    next: u64,
    /// Batches before this one do not linger.
    flushed: u64,
    in_flight: usize,
    /// A batch was taken, and is not submitted yet.
    is_taken: bool,
    /// Callers that were just answered are about to come back, and are waited for.
    are_returning: bool,
    returning: Returning,
    /// Some of them got an error, and what is sent before all have got it fails as well.
    have_failed: bool,
    ratio: Ratio,
    /// The size of batches lately, and their inputs.
    typical: usize,
    typical_inputs: u64,
}

/// Who takes a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Taker {
    /// The caller whose input was added.
    Caller,
    /// The task that is woken when there is room in the window.
    Driver,
}

impl<P> Accumulator<P> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: None,
            full: VecDeque::new(),
            next: 0,
            flushed: 0,
            in_flight: 0,
            is_taken: false,
            are_returning: false,
            returning: Returning::default(),
            have_failed: false,
            ratio: Ratio::ONE,
            typical: 0,
            typical_inputs: 0,
        }
    }

    /// Returns the open batch. Its first input may be any that the limits of the client allow; further ones
    /// have to [fit](Self::fits).
    pub(super) fn open_batch(&mut self) -> Option<&mut Batch<P>> {
        self.open.as_mut()
    }

    /// Opens a batch. There must be none.
    pub(super) fn open(&mut self, now: Instant, contents: Contents, payload: P) -> &mut Batch<P> {
        debug_assert!(self.open.is_none());
        let number = self.next;
        self.next += 1;
        self.open.insert(Batch { number, contents, inputs: 0, opened: now, payload })
    }

    /// Returns what is needed to tell whether a batch is within the limits.
    pub(super) fn fits(&self) -> Fits {
        let Limits { records, bytes, uncompressed, .. } = self.limits;
        Fits { records, bytes, uncompressed, ratio: self.ratio }
    }

    /// Closes the open batch because nothing fits into it any more, or the next input does not.
    pub(super) fn close_open(&mut self) {
        self.full.extend(self.open.take());
    }

    /// Removes the open batch if it has no inputs.
    pub(super) fn remove_empty(&mut self) -> Option<Batch<P>> {
        self.open.take_if(|open| open.inputs == 0)
    }

    /// Lets everything that was accepted go without lingering. Returns all batches that are not taken.
    pub(super) fn flush(&mut self) -> impl Iterator<Item = &Batch<P>> {
        self.flushed = self.next;
        self.batches()
    }

    fn batches(&self) -> impl Iterator<Item = &Batch<P>> {
        self.full.iter().chain(self.open.iter().filter(|open| open.inputs > 0))
    }

    /// Takes the next batch, if it is due. It counts as in flight from here on, and no other is taken until
    /// it was [submitted](Self::submitted).
    pub(super) fn take(&mut self, now: impl FnOnce() -> Instant, taker: Taker) -> Option<Batch<P>> {
        if self.is_taken {
            return None;
        }
        let batch = if self.full.is_empty() {
            let is_returning = taker == Taker::Caller && self.are_returning;
            if self.in_flight >= self.limits.window || is_returning {
                return None;
            }
            let open = self.open.as_ref().filter(|open| open.inputs > 0)?;
            if self.lingers_until(open).is_some_and(|until| now() < until) {
                return None;
            }
            self.open.take()?
        } else {
            let is_early = taker == Taker::Caller && self.have_failed;
            if self.in_flight >= self.limits.most_in_flight || is_early {
                return None;
            }
            self.full.pop_front()?
        };
        self.is_taken = true;
        self.in_flight += 1;
        self.typical = batch.contents.size().max(self.typical - self.typical / 4);
        self.typical_inputs = batch.inputs.max(self.typical_inputs - self.typical_inputs / 4);
        Some(batch)
    }

    /// Returns until when a batch waits for more, if it does.
    fn lingers_until(&self, open: &Batch<P>) -> Option<Instant> {
        let lingers = !self.limits.linger.is_zero() && open.number >= self.flushed;
        // A time that no clock shows is years away: until the batch is full, or flushed.
        lingers.then(|| open.opened + self.limits.linger.min(YEARS))
    }

    /// Notes that the batch that was taken goes to the log in so many parts.
    pub(super) fn split(&mut self, parts: usize) {
        self.in_flight = (self.in_flight + parts).saturating_sub(1);
    }

    /// Notes that the batch that was taken is submitted.
    pub(super) fn submitted(&mut self) {
        self.is_taken = false;
    }

    /// Notes that a part of a batch has ended, and how many inputs of it are waited for.
    pub(super) fn ended(&mut self, inputs: u64, is_appended: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        // A single caller sends by itself what it comes back with.
        self.are_returning |= inputs > 1 || !is_appended;
        if inputs > 1 {
            self.returning.answered += inputs;
        }
        self.have_failed |= !is_appended;
    }

    /// Whether the driver has something to do now: there is room for a batch that does not linger, or callers
    /// come back that are to share one. What lingers is left to [`poll_timeout`](Self::poll_timeout).
    pub(super) fn is_driver_needed(&self) -> bool {
        let is_full_due = !self.full.is_empty() && self.in_flight < self.limits.most_in_flight;
        let is_open_due = self.in_flight < self.limits.window
            && self.open.as_ref().is_some_and(|open| open.inputs > 0 && self.lingers_until(open).is_none());
        !self.is_taken && (is_full_due || is_open_due || self.are_returning)
    }

    /// Whether callers are about to come back.
    pub(super) fn are_returning(&self) -> bool {
        self.are_returning
    }

    /// Notes that those that were to come back have had a turn of the runtime. Returns whether they are no
    /// longer waited for: as many inputs are here as were answered, or no more come.
    pub(super) fn have_returned(&mut self) -> bool {
        let here = self.waiting();
        if self.returning.are_awaited(here) {
            return false;
        }
        (self.are_returning, self.have_failed) = (false, false);
        self.returning = Returning::default();
        true
    }

    /// Whether the open batch has just got its first input, and waits for more.
    pub(super) fn has_begun_to_linger(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.inputs == 1) && self.poll_timeout().is_some()
    }

    /// Whether a batch was taken and is not submitted yet.
    pub(super) fn is_taken(&self) -> bool {
        self.is_taken
    }

    /// Returns when the open batch becomes due by itself.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.is_taken || !self.full.is_empty() || self.in_flight >= self.limits.window {
            return None;
        }
        self.lingers_until(self.open.as_ref().filter(|open| open.inputs > 0)?)
    }

    /// Removes everything that was accepted and is not taken.
    pub(super) fn take_all(&mut self) -> Vec<Batch<P>> {
        let open = self.open.take_if(|open| open.inputs > 0);
        self.full.drain(..).chain(open).collect()
    }

    /// Whether nothing is left to be taken.
    pub(super) fn is_empty(&self) -> bool {
        self.batches().next().is_none()
    }

    /// Returns how many batches are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns how many inputs wait to be sent.
    pub(super) fn waiting(&self) -> u64 {
        self.batches().map(|batch| batch.inputs).sum()
    }

    /// Returns for how many bytes a new batch is opened.
    pub(super) fn typical(&self) -> usize {
        self.typical.min(self.limits.uncompressed)
    }

    /// Returns how many inputs a new batch is opened for.
    pub(super) fn typical_inputs(&self) -> usize {
        usize::try_from(self.typical_inputs).unwrap_or(usize::MAX).min(self.limits.records)
    }

    /// Notes what the compression of a batch achieved.
    pub(super) fn compressed(&mut self, uncompressed: usize, wire: usize) {
        // Small batches compress worse, and are not what the limit is for.
        if uncompressed >= self.limits.bytes / 8 {
            self.ratio.learn(uncompressed, wire);
        }
    }
}

/// Callers that were just answered, and are to share a batch.
///
/// If they run on several threads, one turn of the runtime is not enough for all of them, and whoever is left
/// out waits for another round trip.
#[derive(Debug, Default)]
struct Returning {
    /// How many inputs were answered.
    answered: u64,
    /// How many inputs were here at the last count.
    counted: u64,
    /// How many counts in a row have not found more.
    in_vain: u32,
}

impl Returning {
    /// After so many counts that have not found more, the others do something else.
    const PATIENCE: u32 = 2;

    /// Counts the inputs that are here. Returns whether more are waited for.
    fn are_awaited(&mut self, here: u64) -> bool {
        self.in_vain = if here > self.counted { 0 } else { self.in_vain + 1 };
        self.counted = here;
        here < self.answered && self.in_vain < Self::PATIENCE
    }
}

/// Tells whether a batch is within the limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fits {
    records: usize,
    bytes: usize,
    uncompressed: usize,
    ratio: Ratio,
}

impl Fits {
    pub(super) fn check(&self, contents: &Contents) -> bool {
        let size = contents.size();
        contents.len() <= self.records && size <= self.uncompressed && self.ratio.of(size) <= self.bytes
    }

    /// Whether nothing more can be within the limits.
    pub(super) fn is_full(&self, contents: &Contents) -> bool {
        let size = contents.size();
        let is_full =
            contents.len() >= self.records || size >= self.uncompressed || self.ratio.of(size) >= self.bytes;
        // The record that is being packed has room.
        is_full && !contents.is_packing()
    }
}

/// How much smaller batches become by compression, in 1/1024.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Ratio(u32);

impl Ratio {
    const ONE: Self = Self(1024);

    /// Returns the size to be expected.
    fn of(self, uncompressed: usize) -> usize {
        (uncompressed as u64).saturating_mul(self.0.into()).div_ceil(1024).try_into().unwrap_or(usize::MAX)
    }

    /// Follows at once to the worse, and slowly to the better: a batch that comes out too large costs more
    /// than one that could have been larger.
    fn learn(&mut self, uncompressed: usize, wire: usize) {
        let seen = (wire as u64).saturating_mul(1024).div_ceil((uncompressed as u64).max(1));
        // A twentieth more, since batches differ. Compression that enlarges a batch does it by little.
        let seen = u32::try_from(seen + seen / 20).unwrap_or(u32::MAX).clamp(1, 1024 + 1024 / 8);
        self.0 = if seen >= self.0 { seen } else { self.0 - (self.0 - seen).div_ceil(8) };
    }
}

#[cfg(test)]
mod tests;
