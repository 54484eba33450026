//! Where a reader is, what it has covered and what it does next: the state machine, without IO.
//!
//! A reader fetches from [`Cursor::at`], reports what came ([`Cursor::fetched`]), and hands over the batches
//! that came: it begins each one ([`Cursor::begin`], which says what part of it is due) and ends it
//! ([`Cursor::end_batch`]). A batch that is read record by record moves the position with each
//! ([`Cursor::record`]). When no batch is left, [`Cursor::exhausted`] moves the position to where the fetch
//! ended. [`Cursor::is_done`] says that a replay has reached its end.

use std::{collections::VecDeque, ops::Range};

use kwal_client::{Gap, GapReason};

use super::{
    epochs::Epochs,
    summary::{Summary, len},
};

/// A place between two offsets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct At {
    /// The next offset.
    pub(crate) offset: i64,
    /// The leader epoch of what is before it, as far as it is known.
    pub(crate) epoch: Option<i32>,
}

/// The state of a reader.
#[derive(Debug)]
pub(crate) struct Cursor {
    at: At,
    /// Where a replay ends.
    end: Option<i64>,
    /// Where the log ends, as far as it is known.
    log_end: i64,
    /// Whether the leader has confirmed that the log has this position.
    is_confirmed: bool,
    fetched: Option<Fetched>,
    batch: Option<Batch>,
    epochs: Epochs,
    pub(crate) summary: Summary,
}

/// The part of a fetch that the position has not passed yet.
#[derive(Debug)]
struct Fetched {
    /// Where it ends.
    to: At,
    gaps: VecDeque<Gap>,
}

/// The batch that is being read.
#[derive(Debug)]
struct Batch {
    /// What is due of it.
    due: Range<i64>,
    epoch: Option<i32>,
    /// Its size, until it counts.
    bytes: u64,
    /// How many of its records have been handed over one by one.
    records: u64,
}

/// What part of a batch is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Due {
    /// None: all of it has been passed.
    Nothing,
    /// Records at these offsets.
    Offsets(Range<i64>),
    /// None: the replay ends before it.
    AfterEnd,
}

impl Cursor {
    /// Creates the state of a reader that begins at a place. A place that did not come from the leader itself
    /// `is_confirmed` by the first fetch.
    pub(crate) fn new(at: At, end: Option<i64>, log_end: i64, is_confirmed: bool) -> Self {
        let epochs = Epochs::before(at.offset, at.epoch);
        let summary = Summary::new(at.offset);
        Self { at, end, log_end, is_confirmed, fetched: None, batch: None, epochs, summary }
    }

    pub(crate) fn at(&self) -> At {
        self.at
    }

    pub(crate) fn end(&self) -> Option<i64> {
        self.end
    }

    pub(crate) fn log_end(&self) -> i64 {
        self.log_end
    }

    /// Returns how many offsets there are up to the end of the log.
    pub(crate) fn lag(&self) -> i64 {
        self.log_end.saturating_sub(self.at.offset).max(0)
    }

    /// Whether a replay has reached its end.
    pub(crate) fn is_done(&self) -> bool {
        self.is_confirmed && self.end.is_some_and(|end| self.at.offset >= end)
    }

    /// Whether a place is before the end of a replay.
    pub(crate) fn is_before_end(&self, offset: i64) -> bool {
        self.end.is_none_or(|end| offset < end)
    }

    /// Makes a replay a stream without an end.
    pub(crate) fn unbound(&mut self) {
        self.log_end = self.log_end.max(self.end.take().unwrap_or_default());
    }

    /// Takes the result of a fetch from the current position: where it ends, its gaps in offset order, and
    /// the end of the log, which a new leader may report too low for a moment.
    pub(crate) fn fetched(&mut self, to: At, gaps: impl IntoIterator<Item = Gap>, log_end: i64) {
        self.is_confirmed = true;
        self.log_end = self.log_end.max(log_end);
        self.fetched = Some(Fetched { to, gaps: gaps.into_iter().collect() });
    }

    /// Takes the end of the log as the leader reports it when it is sure (KIP-207). Returns whether that is
    /// before the end of the replay: the log was truncated.
    pub(crate) fn confirm_log_end(&mut self, log_end: i64) -> bool {
        self.log_end = log_end.max(self.at.offset);
        self.end.is_some_and(|end| log_end < end)
    }

    /// Begins a batch, or the rest of it. Returns what part of it is due. Its size counts once a record of it
    /// was handed over.
    pub(crate) fn begin(&mut self, offsets: &Range<i64>, epoch: Option<i32>, bytes: u64) -> Due {
        let start = offsets.start.max(self.at.offset);
        let due = start..self.end.map_or(offsets.end, |end| end.min(offsets.end));
        if offsets.end <= self.at.offset {
            return Due::Nothing;
        }
        if due.is_empty() {
            // The gap before it may reach over the end.
            self.pass(At { offset: start, epoch }, false);
            return Due::AfterEnd;
        }
        self.batch = Some(Batch { due: due.clone(), epoch, bytes, records: 0 });
        Due::Offsets(due)
    }

    /// Moves the position after a record of the current batch, which was handed over.
    #[inline]
    pub(crate) fn record(&mut self, offset: i64) {
        let Some(batch) = &mut self.batch else { return };
        batch.records += 1;
        self.summary.records += 1;
        let epoch = if batch.records == 1 { self.enter() } else { batch.epoch };
        self.move_to(At { offset: offset.saturating_add(1), epoch });
    }

    /// Ends the current batch, of which this many records were handed over in addition to those that were
    /// handed over one by one. The position moves to its end, by its header.
    pub(crate) fn end_batch(&mut self, records: u64) {
        let epoch = self.enter();
        let Some(batch) = self.batch.take() else { return };
        self.summary.records += records;
        self.summary.pass_within(len(&batch.due).saturating_sub(batch.records + records));
        self.move_to(At { offset: batch.due.end, epoch });
    }

    /// Ends the current batch where it is, in order to begin with the rest of it later. Returns whether a
    /// part of it was handed over.
    pub(crate) fn suspend_batch(&mut self) -> bool {
        let Some(batch) = self.batch.take().filter(|batch| batch.records > 0) else { return false };
        let read = batch.due.start..self.at.offset;
        self.summary.pass_within(len(&read).saturating_sub(batch.records));
        true
    }

    /// Leaves out offsets that cannot be read, from the current position on. Returns those.
    pub(crate) fn skip_unreadable(&mut self, offsets: &Range<i64>) -> Range<i64> {
        self.suspend_batch();
        let end = self.end.unwrap_or(i64::MAX);
        self.absorb(offsets.start.min(end));
        let from = self.at.offset;
        let to = offsets.end.min(end).max(from);
        self.summary.pass(from..to, GapReason::Unreadable);
        // The epoch in a header that may be wrong is not used.
        self.move_to(At { offset: to, epoch: None });
        from..to
    }

    /// Goes on elsewhere, because the position is out of range. What exists begins at `log_start`.
    pub(crate) fn reset(&mut self, target: i64, log_start: Option<i64>) {
        self.discard();
        // The place comes from the leader.
        self.is_confirmed = true;
        let from = self.at.offset;
        if target < from {
            // The log ends before the position: it is another one than was read, and so is the summary.
            self.epochs.clear();
            let beyond = self.summary.beyond.take();
            self.summary = Summary { beyond, ..Summary::new(target) };
            self.at = At { offset: target, epoch: None };
            return;
        }
        let to = self.end.map_or(target, |end| end.min(target)).max(from);
        let trimmed = log_start.unwrap_or(target).clamp(from, to);
        self.summary.pass(from..trimmed, GapReason::Trimmed);
        self.summary.pass(trimmed..to, GapReason::Passed);
        self.move_to(At { offset: to, epoch: None });
    }

    /// Begins elsewhere, because the log begins later by now. Nothing was covered yet.
    pub(crate) fn restart(&mut self, offset: i64) {
        self.at = At { offset, epoch: None };
        self.summary.offsets = offset..offset;
    }

    /// Moves the position to where the fetch ended, if no batch of it is left. A replay that ends before
    /// keeps the rest.
    pub(crate) fn exhausted(&mut self) {
        let Some(to) = self.fetched.as_ref().map(|fetched| fetched.to) else { return };
        self.pass(to, true);
        if self.at.offset >= to.offset {
            self.fetched = None;
        }
    }

    /// Forgets what was fetched and is not passed.
    pub(crate) fn discard(&mut self) {
        self.suspend_batch();
        self.fetched = None;
    }

    /// Returns the epoch to ask the leader about next: see [`Epochs::below`].
    pub(crate) fn epoch_below(&self, epoch: i32) -> Option<i32> {
        self.epochs.below(epoch)
    }

    /// Returns where the log differs from what was read: see [`Epochs::diverged_at`].
    pub(crate) fn diverged_at(&self, leader: Option<(i32, i64)>) -> Option<i64> {
        self.epochs.diverged_at(leader).filter(|offset| *offset < self.at.offset)
    }

    /// Passes offsets without records, up to a place or to the end of the replay. The epoch of the place is
    /// `exact`, or that of what is after it.
    fn pass(&mut self, to: At, exact: bool) {
        let offset = self.end.map_or(to.offset, |end| end.min(to.offset));
        let before = self.at.epoch;
        if offset > self.at.offset {
            self.absorb(offset);
            // Between two batches of the same epoch is no other one.
            let is_known = before == to.epoch || exact && offset == to.offset;
            self.at.epoch = to.epoch.filter(|_| is_known);
        }
    }

    /// Passes what is before the current batch, and notes its epoch.
    fn enter(&mut self) -> Option<i32> {
        let batch = self.batch.as_mut()?;
        let (start, epoch, bytes) = (batch.due.start, batch.epoch, std::mem::take(&mut batch.bytes));
        self.summary.bytes += bytes;
        self.absorb(start);
        if let Some(epoch) = epoch {
            self.epochs.read(start, epoch);
        }
        epoch
    }

    /// Moves the position to an offset, and notes why there are no records up to there.
    fn absorb(&mut self, to: i64) {
        let mut from = self.at.offset;
        if to <= from {
            return;
        }
        let mut none = VecDeque::new();
        let gaps = self.fetched.as_mut().map_or(&mut none, |fetched| &mut fetched.gaps);
        while let Some(gap) = gaps.front().filter(|gap| gap.offsets.start < to) {
            let known = gap.offsets.start.max(from)..gap.offsets.end.min(to);
            if !known.is_empty() {
                self.summary.pass(from..known.start, GapReason::Empty);
                self.summary.pass(known.clone(), gap.reason);
                from = known.end;
            }
            if gap.offsets.end > to {
                break;
            }
            gaps.pop_front();
        }
        self.summary.pass(from..to, GapReason::Empty);
        self.move_to(At { offset: to, epoch: None });
    }

    fn move_to(&mut self, at: At) {
        self.at = at;
        self.summary.offsets.end = at.offset;
    }
}

#[cfg(test)]
mod tests;
