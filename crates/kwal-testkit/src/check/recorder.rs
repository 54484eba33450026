//! Records a history while it happens.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    history::{Event, History},
    types::{AppendId, AppendOutcome, SubmitOrder, WriterId},
    value::Value,
};

/// A [`History`] that many tasks record together, with the times of tokio's clock, paused or not.
///
/// It works with any client. Record the outcome of an append where it is awaited, as soon as it is known:
///
/// ```
/// use kwal_testkit::check::{Expect, Log, Recorder};
///
/// # async fn append(value: &str) -> Result<i64, bool> { if value == "b" { Err(true) } else { Ok(0) } }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let recorder = Recorder::new();
/// let writer = recorder.now().writer(("wal", 0));
///
/// for value in ["a", "b"] {
///     let ticket = recorder.submit(writer, [value]);
///     match append(value).await {
///         Ok(offset) => ticket.acked(offset),
///         Err(true) => ticket.unknown(),
///         Err(false) => ticket.not_appended(),
///     }
/// }
/// // Dropped: if a future that holds a ticket is dropped, that is recorded.
/// drop(recorder.submit(writer, ["c"]));
///
/// recorder.now().log(Log::new(("wal", 0), 0..2, [(0, "a"), (1, "b")]));
/// let verdict = recorder.now().check(&Expect::default());
/// verdict.assert();
/// assert_eq!((verdict.tally().acked, verdict.tally().unknown, verdict.tally().dropped), (1, 1, 1));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Recorder {
    start: Instant,
    history: Arc<Mutex<History>>,
}

impl Recorder {
    /// Creates an empty history whose times count from now.
    pub fn new() -> Self {
        Self { start: Instant::now(), history: Arc::default() }
    }

    /// Returns the history, with its time set to now, to record events or to check it.
    ///
    /// Do not hold the lock across an await.
    pub fn now(&self) -> MutexGuard<'_, History> {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.at(self.elapsed());
        history
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Records an append whose place is fixed, see [`History::submit`].
    pub fn submit(&self, writer: WriterId, records: impl IntoIterator<Item = impl Into<Value>>) -> Ticket {
        self.append(writer, SubmitOrder::Fixed, records)
    }

    /// Records an append that is queued, see [`History::queue`].
    pub fn queue(&self, writer: WriterId, records: impl IntoIterator<Item = impl Into<Value>>) -> Ticket {
        self.append(writer, SubmitOrder::Queued, records)
    }

    /// Records an append whose place is open, see [`History::start`].
    pub fn start(&self, writer: WriterId, records: impl IntoIterator<Item = impl Into<Value>>) -> Ticket {
        self.append(writer, SubmitOrder::Unordered, records)
    }

    fn append(
        &self,
        writer: WriterId,
        order: SubmitOrder,
        records: impl IntoIterator<Item = impl Into<Value>>,
    ) -> Ticket {
        // Not under the lock, which the iterator may need.
        let records: Vec<Value> = records.into_iter().map(Into::into).collect();
        let append = {
            let mut history = self.now();
            match order {
                SubmitOrder::Fixed => history.submit(writer, records),
                SubmitOrder::Queued => history.queue(writer, records),
                SubmitOrder::Unordered => history.start(writer, records),
            }
        };
        Ticket { recorder: self.clone(), append, outcome: AppendOutcome::Dropped }
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

/// An append in progress. Dropping it records that the caller dropped the append.
#[must_use = "a dropped ticket records that the caller dropped the append"]
pub struct Ticket {
    recorder: Recorder,
    append: AppendId,
    /// Recorded on drop.
    outcome: AppendOutcome,
}

impl Ticket {
    /// Returns the id of the append.
    pub fn append(&self) -> AppendId {
        self.append
    }

    /// Records success, with the offset of the first record.
    pub fn acked(self, base_offset: i64) {
        self.complete_with(AppendOutcome::Acked { base_offset });
    }

    /// Records success without an offset.
    pub fn acked_at_unknown_offset(self) {
        self.complete_with(AppendOutcome::AckedAtUnknownOffset);
    }

    /// Records a failure after which the append is not on the log.
    pub fn not_appended(self) {
        self.complete_with(AppendOutcome::NotAppended);
    }

    /// Records a failure after which the append may be on the log.
    pub fn unknown(self) {
        self.complete_with(AppendOutcome::Unknown);
    }

    /// Records that the caller dropped the append before its place was fixed.
    pub fn withdrawn(self) {
        self.complete_with(AppendOutcome::Withdrawn);
    }

    fn complete_with(mut self, outcome: AppendOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.recorder.now().push(Event::Completed { append: self.append, outcome: self.outcome });
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.append)
    }
}
