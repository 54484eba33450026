//! A batch until it is completed, and what is left of it in flight afterwards.

use std::time::Instant;

use super::types::{Deadline, Failure, Stage, Token};
use crate::producer_id::Stamp;

/// A batch that is not completed.
#[derive(Debug)]
pub(super) struct Pending<P, E> {
    /// Its place in the order of submission.
    pub(super) number: u64,
    pub(super) payload: P,
    pub(super) records: usize,
    pub(super) deadline: Deadline,
    /// Exists exactly while the batch may be on the log under it.
    pub(super) stamp: Option<Stamp>,
    /// The last offset that was acknowledged when it was sent under the stamp first: it can only follow that.
    pub(super) after: Option<i64>,
    /// The attempt that is in flight.
    pub(super) in_flight: Option<Token>,
    /// When it was last sent.
    pub(super) sent_at: Option<Instant>,
    pub(super) attempts: u32,
    /// An attempt has ended without a clear response.
    pub(super) in_doubt: bool,
    /// The error of the last attempt that has failed.
    pub(super) refused_with: Option<E>,
    /// A later batch of the same epoch was acknowledged, so this one is on the log.
    pub(super) settled: bool,
    /// One submitted before it has failed.
    pub(super) doomed: Option<Failure<E>>,
}

impl<P, E> Pending<P, E> {
    pub(super) fn new(number: u64, payload: P, records: usize, deadline: Deadline) -> Self {
        Self {
            number,
            payload,
            records,
            deadline,
            stamp: None,
            after: None,
            in_flight: None,
            sent_at: None,
            attempts: 0,
            in_doubt: false,
            refused_with: None,
            settled: false,
            doomed: None,
        }
    }

    /// Notes that the attempt in flight has failed. If no attempt can have appended the batch, the stamp is
    /// free for the next one.
    pub(super) fn note_refusal(&mut self, may_have_applied: bool) {
        self.in_flight = None;
        self.in_doubt |= may_have_applied;
        if !self.in_doubt && !self.settled {
            self.stamp = None;
        }
    }

    /// Returns why it fails if its time is over. `at` is how many batches are before it.
    pub(super) fn deadline_exceeded(&self, at: usize, last: Option<E>) -> Failure<E> {
        let stage = match (self.in_flight, at) {
            (Some(_), _) => Stage::InFlight,
            (None, 0) => Stage::Next,
            (None, _) => Stage::Behind,
        };
        Failure::Deadline { after: self.deadline.after, stage, last }
    }

    /// Whether it may be on the log, now or later.
    pub(super) fn may_be_applied(&self) -> bool {
        self.in_doubt || self.in_flight.is_some()
    }
}

/// An attempt in flight whose batch is completed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abandoned {
    pub(super) token: Token,
    pub(super) number: u64,
    pub(super) stamp: Option<Stamp>,
    pub(super) sent_at: Option<Instant>,
    pub(super) records: usize,
    pub(super) settled: bool,
}

/// What new batches need before they get a stamp.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Change {
    /// A batch has left in doubt. Once one of the next epoch is on the log, it can no longer be appended.
    NextEpoch,
    /// The broker does not accept the id.
    NewId,
}

/// Why the batch that was acknowledged last has to be looked up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LookUp {
    NewConnection,
    /// The leader rejected the batch after it.
    Rejected {
        /// What the rejected batch needs if there is no loss; `None` if it is in doubt.
        change: Option<Change>,
    },
}

/// Whether batches may be sent.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Flow {
    Sending,
    /// A batch has left while it was in flight: everything in flight is awaited first.
    Draining,
    /// The same after a refusal: what is in flight after the refused batch will be out of order.
    Recovering,
    /// The same after the broker has denied that it leads the partition: what it acknowledges nevertheless
    /// may be on another log.
    Doubting,
}
