//! One broker's copy of a partition: its log, and what follows from it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kwal_protocol::record::{BatchHeader, Batches, ControlRecord};

use crate::{log::Log, producers::Producers, transactions::Transactions};

/// A copy of a partition.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    pub(crate) log: Log,
    pub(crate) known: Known,
    /// What was known where the log starts now: what lies before is gone.
    pub(super) known_at_start: Known,
    /// The offset up to which all in sync are known to have everything.
    pub(crate) high_watermark: i64,
    /// The epoch in which it leads, or led last, and where that began.
    pub(super) led_epoch: i32,
    pub(super) led_from: i64,
    /// How far the leader knows that this follower is, since it leads.
    pub(super) fetched: Option<i64>,
    /// How long what the leader has takes to come here; [`Duration::MAX`] if it never comes.
    pub(super) lag: Duration,
    /// When the next fetch arrives.
    pub(super) due: Option<Instant>,
    /// Since when it lacks something that the leader has.
    pub(super) behind_since: Option<Instant>,
}

/// What follows from what lies, or lay, in a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) producers: Producers,
    pub(crate) transactions: Transactions,
}

impl Replica {
    /// Appends a batch whose header is to become `header`; `now` in milliseconds since the epoch.
    pub(crate) fn append(&mut self, bytes: Bytes, header: &BatchHeader, now: i64) {
        let committed = end_of_transaction(header, &bytes);
        self.log.append(bytes, header);
        self.known.note(header, committed, now);
    }

    /// The offset before which no transaction is open.
    pub(crate) fn last_stable(&self) -> i64 {
        self.known.transactions.last_stable(self.high_watermark)
    }

    /// Forgets what lies before `offset`.
    pub(crate) fn delete_before(&mut self, offset: i64, now: i64) {
        // Where all markers that are gone ended what is gone, nothing more is said summary how.
        for header in self.log.delete_before(offset) {
            self.known_at_start.note(&header, header.is_control().then_some(true), now);
        }
        let start = self.log.start();
        self.known.transactions.forget_before(start);
        self.known_at_start.transactions.forget_before(start);
        self.high_watermark = self.high_watermark.max(start);
    }

    /// Takes over from a leader: what it does not have is cut off, what is lacking is copied. Answers from where on records
    /// were cut off.
    pub(super) fn follow(&mut self, leader: &Self, now: i64) -> Option<i64> {
        let agreed = self.log.agreement(&leader.log);
        let cut = (agreed < self.log.end()).then_some(agreed);
        if cut.is_some() {
            self.log.truncate(agreed);
            self.high_watermark = self.high_watermark.min(agreed);
            self.learn(now);
        }
        if self.log.end() < leader.log.start() {
            (self.known, self.known_at_start) = (Known::default(), Known::default());
        }
        for (header, bytes) in self.log.copy(&leader.log) {
            self.known.note(&header, end_of_transaction(&header, &bytes), now);
        }
        if self.log.start() < leader.log.start() {
            self.delete_before(leader.log.start(), now);
        }
        self.high_watermark = leader.high_watermark.min(self.log.end()).max(self.log.start());
        cut
    }

    /// Whether a fetch would bring anything.
    pub(super) fn lacks(&self, leader: &Self) -> bool {
        self.log.end() < leader.log.end()
            || self.log.start() < leader.log.start()
            || self.high_watermark != leader.high_watermark
            || self.log.agreement(&leader.log) < self.log.end()
    }

    /// Finds out anew what is known, from what lies in the log.
    fn learn(&mut self, now: i64) {
        let mut known = self.known_at_start.clone();
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

/// How a transaction ends, if a batch is the marker of its end.
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
