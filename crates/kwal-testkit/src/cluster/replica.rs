//! One replica of a partition: its log, and the state derived from it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kwal_protocol::record::{BatchHeader, Batches, ControlRecord};

use crate::{log::Log, producers::Producers, transactions::Transactions};

/// A replica of a partition.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    pub(crate) log: Log,
    pub(crate) known: Known,
    /// The derived state at the log start offset.
    pub(super) state_at_start: Known,
    /// The offset up to which all replicas in sync have everything.
    pub(crate) high_watermark: i64,
    /// The epoch in which it leads, or led last, and the log end offset when it began.
    pub(super) led_epoch: i32,
    pub(super) led_from: i64,
    /// When that epoch began; `None` if it has led since the partition was created.
    pub(super) led_since: Option<Instant>,
    /// See [`Dialect::is_stable_by_batch`](crate::dialect::Dialect::is_stable_by_batch).
    pub(super) stable_by_batch: bool,
    /// The log end offset of this follower, as the leader knows it since it leads.
    pub(super) fetched: Option<i64>,
    /// The replication lag; [`Duration::MAX`] if it never fetches.
    pub(super) lag: Duration,
    /// When its next fetch reaches the leader.
    pub(super) due: Option<Instant>,
    /// Since when it lacks records of the leader.
    pub(super) lagging_since: Option<Instant>,
    /// From where on a leader that it has not followed yet may have other records.
    pub(super) diverged: Option<i64>,
}

/// State derived from the batches that are, or were, in a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) producers: Producers,
    pub(crate) transactions: Transactions,
}

impl Replica {
    /// Appends a batch whose header becomes `header`; `now` is in milliseconds since the epoch.
    pub(crate) fn append(&mut self, bytes: Bytes, header: &BatchHeader, now: i64) {
        let committed = end_of_transaction(header, &bytes);
        self.log.append(bytes, header);
        self.known.note(header, committed, now);
    }

    /// Returns the last stable offset.
    ///
    /// If a transaction hangs whose beginning was deleted, it is at the log start offset.
    pub(crate) fn last_stable(&self) -> i64 {
        let start = match self.stable_by_batch {
            true => self.log.first_base().unwrap_or(i64::MAX).min(self.log.start()),
            false => self.log.start(),
        };
        self.known.transactions.last_stable(self.high_watermark).max(start)
    }

    /// Deletes the records before an offset.
    pub(crate) fn delete_before(&mut self, offset: i64, now: i64) {
        // The markers of deleted transactions are deleted with them, so how they ended does not matter.
        for header in self.log.delete_before(offset) {
            self.state_at_start.note(&header, header.is_control().then_some(true), now);
        }
        let start = self.log.start();
        self.known.transactions.forget_before(start);
        self.state_at_start.transactions.forget_before(start);
        self.high_watermark = self.high_watermark.max(start);
    }

    /// Truncates what the leader does not have; returns the first truncated offset.
    pub(super) fn truncate_to(&mut self, leader: &Self, now: i64) -> Option<i64> {
        if leader.log.end() < self.log.start() {
            // All that is left here is after the leader's end, where it starts again.
            let end = leader.log.end();
            self.log = Log::starting_at(end);
            (self.known, self.state_at_start) = (Known::default(), Known::default());
            self.high_watermark = end;
            return Some(end);
        }
        let agreed = self.log.agreement(&leader.log);
        let cut = (agreed < self.log.end()).then_some(agreed);
        if cut.is_some() {
            self.log.truncate(agreed);
            self.high_watermark = self.high_watermark.min(agreed);
            self.derive_state(now);
        }
        cut
    }

    /// Truncates what the leader does not have and copies what is missing.
    ///
    /// Returns the first truncated offset.
    pub(super) fn follow(&mut self, leader: &Self, now: i64) -> Option<i64> {
        let end = self.log.end();
        let cut = self.truncate_to(leader, now);
        // Where the leader has deleted its records, nothing else shows that they were others.
        let diverged = self.diverged.take().filter(|from| *from < end.min(leader.log.start()));
        let cut = cut.into_iter().chain(diverged).min();
        if self.log.end() < leader.log.start() {
            (self.known, self.state_at_start) = (Known::default(), Known::default());
        }
        for (header, bytes) in self.log.copy(&leader.log) {
            self.known.note(&header, end_of_transaction(&header, &bytes), now);
        }
        if self.log.start() < leader.log.start() {
            self.delete_before(leader.log.start(), now);
        }
        self.high_watermark = self.high_watermark_by(leader);
        cut
    }

    pub(super) fn is_empty(&self) -> bool {
        self.log.start() == self.log.end()
    }

    pub(super) fn forget_producers(&mut self) {
        self.known.producers.forget_all();
        self.state_at_start.producers.forget_all();
    }

    /// Returns whether a fetch would change anything.
    pub(super) fn lacks(&self, leader: &Self) -> bool {
        self.log.end() < leader.log.end()
            || self.log.start() < leader.log.start()
            || self.high_watermark != self.high_watermark_by(leader)
            || self.log.agreement(&leader.log) < self.log.end()
    }

    /// Returns the high watermark after a fetch from the leader, whose own one can be before the log start.
    fn high_watermark_by(&self, leader: &Self) -> i64 {
        leader.high_watermark.min(self.log.end()).max(self.log.start())
    }

    /// Derives the state from the log again.
    fn derive_state(&mut self, now: i64) {
        let mut known = self.state_at_start.clone();
        for bytes in self.log.batches() {
            let Ok(header) = BatchHeader::parse(&bytes) else { continue };
            known.note(&header, end_of_transaction(&header, &bytes), now);
        }
        self.known = known;
    }
}

impl Known {
    fn note(&mut self, header: &BatchHeader, committed: Option<bool>, now: i64) {
        self.transactions.note(header, committed);
        self.producers.note(header, now);
    }
}

/// Returns how a transaction ended, if a batch is its marker.
fn end_of_transaction(header: &BatchHeader, bytes: &Bytes) -> Option<bool> {
    if !header.is_control() {
        return None;
    }
    let batch = Batches::new(bytes.clone()).next()?.ok()?;
    match batch.control().ok()?? {
        ControlRecord::EndTransaction(end) => Some(end.committed),
        _ => None,
    }
}
