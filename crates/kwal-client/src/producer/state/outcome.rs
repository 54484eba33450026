//! How batches leave: refusals, failures and their consequences for the batches after them.

use std::time::Instant;

use super::{
    Producer,
    pending::{Abandoned, Change, Flow, LookUp, Pending},
    types::{Completed, Doubt, Failure, RefusalKind, Token},
};
use crate::producer_id::{Acknowledged, Stamp};

impl<P, E: Clone> Producer<P, E> {
    /// Applies a refusal of a batch that is not completed.
    pub(super) fn refuse(&mut self, at: usize, kind: RefusalKind, error: E, resume_at: Instant) {
        let batch = &mut self.batches[at];
        match kind {
            RefusalKind::Retry { may_have_applied, .. } | RefusalKind::Denied { may_have_applied } => {
                batch.note_refusal(may_have_applied);
                // Without a stamp, the broker could not tell another attempt from a new batch.
                if batch.in_doubt && !self.settings.idempotent {
                    self.fail(at, Failure::Error(error));
                }
                self.retry(kind, resume_at);
            }
            RefusalKind::Fenced => {
                batch.note_refusal(false);
                self.end(Failure::Error(error));
            }
            // It is on the log whatever this attempt returned. If the broker does not recognise it any more,
            // its offset stays unknown.
            _ if batch.settled => {
                batch.note_refusal(false);
                self.fail(at, Failure::Error(error));
            }
            RefusalKind::OutOfOrder => {
                let stamp = batch.stamp;
                batch.note_refusal(false);
                let certain = stamp.filter(|_| !batch.in_doubt);
                self.note_gap(certain, resume_at);
            }
            RefusalKind::UnknownProducer => {
                batch.note_refusal(false);
                let in_doubt = batch.in_doubt;
                self.note_unknown();
                // Under another id, an earlier attempt would not be recognised.
                if in_doubt {
                    self.fail(at, Failure::Error(error));
                }
                self.recover(false, resume_at);
            }
            RefusalKind::Final { may_have_applied } => {
                batch.note_refusal(may_have_applied);
                self.fail(at, Failure::Error(error));
                self.flow = self.flow.max(Flow::Recovering);
            }
        }
    }

    /// Applies a refusal of a batch that is completed: only what it says about connection, id and log counts.
    pub(super) fn refuse_abandoned(
        &mut self,
        abandoned: Abandoned,
        kind: RefusalKind,
        error: E,
        resume_at: Instant,
    ) {
        match kind {
            RefusalKind::Retry { .. } | RefusalKind::Denied { .. } => self.retry(kind, resume_at),
            RefusalKind::Fenced => self.end(Failure::Error(error)),
            _ if abandoned.settled => {}
            RefusalKind::OutOfOrder => self.note_gap(None, resume_at),
            RefusalKind::UnknownProducer => {
                self.note_unknown();
                self.recover(false, resume_at);
            }
            RefusalKind::Final { .. } => self.flow = self.flow.max(Flow::Recovering),
        }
    }

    /// Notes that a batch was rejected as out of order; `certain` is its stamp if it is not on the log.
    fn note_gap(&mut self, certain: Option<Stamp>, resume_at: Instant) {
        // A batch before it was refused, so it cannot be in order.
        if self.flow >= Flow::Recovering {
            return;
        }
        // The first batch of an epoch has no predecessor: somebody else has the same id.
        let change = certain.map(|stamp| match stamp.sequence {
            0 => Change::NewId,
            _ => Change::NextEpoch,
        });
        match self.acknowledged {
            Some(_) => self.look_up = Some(LookUp::Rejected { change }),
            None => self.change = self.change.max(change),
        }
        self.recover(false, resume_at);
    }

    /// Notes that the partition does not know the id: it has expired, or everything of it was deleted, or
    /// lost. Batches of another id would hide that.
    fn note_unknown(&mut self) {
        self.change = Some(Change::NewId);
        self.require_look_up();
    }

    /// Tries again after a refusal that is not for good.
    fn retry(&mut self, kind: RefusalKind, resume_at: Instant) {
        let reconnect = match kind {
            RefusalKind::Retry { reconnect, .. } => reconnect,
            _ => {
                self.flow = Flow::Doubting;
                // Also on the same connection: the leader is to show that it has the log.
                self.require_look_up();
                true
            }
        };
        self.recover(reconnect, resume_at);
    }

    /// Waits for everything in flight, then until `resume_at`.
    fn recover(&mut self, reconnect: bool, resume_at: Instant) {
        self.flow = self.flow.max(Flow::Recovering);
        if reconnect {
            self.connected = false;
        }
        self.pause(resume_at);
    }

    /// Holds everything back until the latest of the times that were given.
    pub(super) fn pause(&mut self, resume_at: Instant) {
        self.paused_until = Some(self.paused_until.map_or(resume_at, |until| until.max(resume_at)));
    }

    /// Completes batches that cannot go on: after one that failed, out of time before the next attempt could
    /// begin, or in doubt without a way to send them again.
    pub(super) fn complete_stuck(&mut self) {
        self.complete_doomed(0);
        if let Some(until) = self.paused_until.filter(|until| self.next_deadline <= Some(*until)) {
            self.expire(|batch| batch.in_flight.is_none() && batch.deadline.at <= until);
        }
        self.fail_stranded();
    }

    /// Completes batches whose time is over.
    pub(super) fn expire(&mut self, is_over: impl Fn(&Pending<P, E>) -> bool) {
        while let Some(at) = self.batches.iter().position(&is_over) {
            self.fail(
                at,
                self.batches[at].deadline_exceeded(at + self.abandoned.len(), self.last_error.clone()),
            );
        }
        self.next_deadline = self.batches.iter().map(|batch| batch.deadline.at).min();
    }

    /// Completes a batch with an error, and dooms those after it. One that is settled has succeeded.
    pub(super) fn fail(&mut self, at: usize, error: Failure<E>) {
        let Some(mut batch) = self.batches.remove(at) else { return };
        if batch.settled {
            return self.complete_failed(batch, error);
        }
        self.flow = self.flow.max(Flow::Draining);
        if !self.settings.stop_on_failure {
            batch.doomed = None;
        }
        let error = batch.doomed.clone().unwrap_or(error);
        let reach = self.reach();
        for behind in self.batches.iter_mut().take(reach).skip(at) {
            behind.doomed.get_or_insert_with(|| error.clone());
        }
        self.complete_failed(batch, error);
        self.complete_doomed(at);
    }

    /// How many batches a failure can concern: those that were not sent may go on without their predecessor
    /// if failures do not stop them.
    fn reach(&self) -> usize {
        match self.settings.stop_on_failure || self.fatal.is_some() {
            true => usize::MAX,
            false => self.settings.window,
        }
    }

    /// Completes doomed batches that are not in flight, from a place in the queue on.
    fn complete_doomed(&mut self, mut at: usize) {
        let stops = self.settings.stop_on_failure || self.fatal.is_some();
        // What was submitted after one that fails only now fails with it.
        let mut spreading = self.fatal.clone();
        // Unless records are lost, the end of the producer changes nothing about what is on the log.
        let mut succeeds = matches!(self.fatal, Some(Failure::Error(_)));
        while let Some(batch) = self.batches.get_mut(at) {
            succeeds &= batch.settled && batch.doomed.is_none();
            if succeeds {
                match batch.in_flight {
                    Some(_) => at += 1,
                    None => self.succeed(at),
                }
                continue;
            }
            if batch.doomed.is_none() {
                batch.doomed.clone_from(&spreading);
            }
            // Only what was sent can be doomed and still be here.
            let Some(cause) = batch.doomed.clone().filter(|_| batch.in_flight.is_none()) else {
                at += 1;
                match at < self.settings.window || spreading.is_some() {
                    true => continue,
                    false => return,
                }
            };
            if batch.settled || batch.in_doubt || stops {
                if !batch.settled && stops {
                    spreading.get_or_insert_with(|| cause.clone());
                }
                if let Some(batch) = self.batches.remove(at) {
                    self.complete_failed(batch, cause);
                }
            } else {
                batch.doomed = None;
                at += 1;
            }
        }
    }

    /// Completes a batch that is known to be on the log.
    fn succeed(&mut self, at: usize) {
        if let Some(Pending { payload, attempts, .. }) = self.batches.remove(at) {
            self.completed.push_back((payload, Completed::Appended { base_offset: None, attempts }));
        }
    }

    /// Completes a batch that has left the queue, unless it is known to be on the log, with an error.
    fn complete_failed(&mut self, batch: Pending<P, E>, error: Failure<E>) {
        self.abandon(&batch);
        let attempts = batch.attempts;
        // Behind one that has failed, it fails: its caller is not to go on as if nothing had happened.
        if batch.settled && !(self.settings.stop_on_failure && batch.doomed.is_some()) {
            let completed = Completed::Appended { base_offset: None, attempts };
            return self.completed.push_back((batch.payload, completed));
        }
        let in_doubt = self.doubt(&batch);
        let completed = match (self.fatal.clone(), batch.doomed) {
            (Some(error), _) => Completed::Failed { error, in_doubt, attempts },
            (None, Some(cause)) => Completed::Preceding { cause, in_doubt },
            (None, None) => Completed::Failed { error, in_doubt, attempts },
        };
        self.completed.push_back((batch.payload, completed));
    }

    /// Returns what is needed to resolve a batch that leaves, if it may be on the log.
    fn doubt(&mut self, batch: &Pending<P, E>) -> Option<Doubt> {
        if !batch.may_be_applied() {
            return None;
        }
        if batch.stamp.is_some() {
            self.change = self.change.max(Some(Change::NextEpoch));
            self.has_left_doubt = true;
        }
        Some(Doubt { stamp: batch.stamp, records: batch.records, after: batch.after })
    }

    fn abandon(&mut self, batch: &Pending<P, E>) {
        let Pending { number, stamp, sent_at, records, settled, .. } = *batch;
        if let Some(token) = batch.in_flight {
            self.abandoned.push(Abandoned { token, number, stamp, sent_at, records, settled });
        }
    }

    pub(super) fn take_abandoned(&mut self, token: Token) -> Option<Abandoned> {
        let at = self.abandoned.iter().position(|abandoned| abandoned.token == token)?;
        Some(self.abandoned.remove(at))
    }

    fn fail_stranded(&mut self) {
        while let Some(at) = self.stranded() {
            self.strand(at);
        }
    }

    /// Fails a batch that cannot be sent again, with the error of its last attempt.
    pub(super) fn strand(&mut self, at: usize) {
        let exceeded = || self.batches[at].deadline_exceeded(at + self.abandoned.len(), None);
        let last = self.last_error.as_ref().or(self.batches[at].refused_with.as_ref()).cloned();
        let error = last.map_or_else(exceeded, Failure::Error);
        self.fail(at, error);
    }

    /// Finds a batch in doubt after one that needs another epoch or id: it cannot be sent again before that
    /// one, and that one cannot be sent while it may be appended.
    fn stranded(&self) -> Option<usize> {
        if self.change.is_none() || self.in_flight() > 0 {
            return None;
        }
        let first = self.sent().position(|batch| batch.stamp.is_none())?;
        let at = self.sent().skip(first).position(|batch| batch.stamp.is_some())?;
        Some(first + at)
    }

    /// Notes the latest acknowledgement. What was submitted before it under the same identity is on the log.
    pub(super) fn acknowledge(
        &mut self,
        now: Instant,
        number: u64,
        stamp: Option<Stamp>,
        sent_at: Option<Instant>,
        base_offset: Option<i64>,
        records: usize,
    ) {
        let identity = stamp.map(|stamp| stamp.identity);
        for earlier in self.batches.iter_mut().take_while(|batch| batch.number < number) {
            earlier.settled |= identity.is_some() && earlier.stamp.map(|stamp| stamp.identity) == identity;
        }
        if let Some(stamp) = stamp.filter(|_| self.identity == identity) {
            self.next_sequence = stamp.end(records);
            self.proven_at = Some(now);
            self.note_confirmed(sent_at);
        }
        let acknowledged = Acknowledged { stamp: stamp.unwrap_or(Stamp::NONE), base_offset, records };
        self.acknowledged = Some(acknowledged);
        self.last_offset = acknowledged.last_offset().or(self.last_offset);
        self.last_error = None;
    }

    /// Ends the producer: nothing can be appended any more. What is in flight keeps its place until it is
    /// answered, so that its outcome is known.
    pub(super) fn end(&mut self, fatal: Failure<E>) {
        self.fatal.get_or_insert(fatal);
        self.complete_doomed(0);
    }

    /// Completes everything that is left, whatever is in flight.
    pub(super) fn complete_all(&mut self, error: Failure<E>) {
        for batch in std::mem::take(&mut self.batches) {
            self.complete_failed(batch, error.clone());
        }
    }
}
