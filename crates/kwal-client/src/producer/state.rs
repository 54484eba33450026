//! The appends of one partition as a state machine: no IO, no clock, no randomness.
//!
//! It decides what is sent when and under which stamp, and how each append ends. Connections, producer ids,
//! pauses and look-ups are the caller's.
//!
//! # How to drive it
//!
//! 1. Hand in what happens: a command ([`submit`], [`abort`], [`release`]) or a `handle_*`.
//! 2. Poll everything until it returns `None`: [`poll_completed`] for callers that wait, [`poll_transmit`]
//!    for the connection, [`poll_action`] for what has to be done first. [`poll_transmit`] can complete
//!    batches, too.
//! 3. Call [`handle_timeout`] when [`poll_timeout`] is due.
//!
//! Every transmitted batch is answered once, in the order of the requests, by [`handle_acknowledged`] or
//! [`handle_refused`]; those of a connection that ends are refused one by one. An action is answered by the
//! method that it names, by `handle_retry` or by `handle_failed`. Actions come only while nothing is in
//! flight.
//!
//! # A batch
//!
//! ```text
//!  submit ──► waiting ───────► in flight ───────────────────────────────► appended
//!                ▲    stamped   │  │  ▲         acknowledged                 ▲
//!                │              │  │  │                                      │ another attempt,
//!                └──────────────┘  │  │ the same stamp                       │ or its time is over
//!              certainly refused:  ▼  │                                      │
//!              the stamp is free   in doubt ────────────────────────────► settled
//!                                         a later batch is acknowledged
//! ```
//!
//! From each state but *settled* it can fail: its deadline ends, it is refused for good, or one before it has
//! failed. If it is in flight or in doubt then, its outcome is unknown, and it leaves a [`Doubt`].
//!
//! # The rules
//!
//! * **Stamp.** A batch has a stamp (id, epoch, sequence number) exactly while it may be on the log under it.
//!   A refusal that is certain takes it away, and the next attempt gets the number that follows then.
//! * **Window.** The first batch that is not in flight is sent next. One is in flight until a batch of the
//!   identity was acknowledged, and after silence: a partition that does not know an id accepts any sequence
//!   number, and would take a second batch without the first.
//! * **Recovery.** After a refusal nothing is sent until everything in flight is answered and the pause is
//!   over. Then batches are sent again from the first one on. What was in flight after the refused batch is
//!   out of order, which says nothing about the log.
//! * **No hole.** A failed batch fails every batch that was submitted before its error was returned. What is
//!   in flight is awaited first, so that its outcome is known; what is submitted in the meantime fails too.
//!   With `stop_on_failure: false` only those in doubt fail with it.
//! * **Doubt.** After a batch has left in doubt, the next new one begins the next epoch: once that is on the
//!   log, the one in doubt can no longer be appended. Earlier batches with stamps are settled first. After
//!   the last epoch a new id follows, which does not keep away what is in doubt.
//! * **Another log.** Brokers before Kafka 4.1 know a topic in appends by its name. If one denies that it
//!   leads the partition and acknowledges batches after that, the topic may have been created again in
//!   between, and the batches be on another log. So they are in doubt, until the leader that metadata names
//!   then has shown the last acknowledged batch, and they were sent again. If metadata names another topic,
//!   they fail.
//! * **Time.** A batch whose deadline ends before a pause does fails at once.
//! * **Loss.** The last acknowledged batch is looked up if its offset is known: on each new connection, and
//!   when the leader does not know the id; and whenever the batch after it is out of order. The producer ends
//!   if that batch is not there, or if another one is acknowledged at an offset that was acknowledged before.
//! * **Without sequence numbers** one batch is in flight, and a batch in doubt fails.
//!
//! What else holds if the epochs are a coordinator's is in [`identity`].
//!
//! [`submit`]: Producer::submit
//! [`abort`]: Producer::abort
//! [`release`]: Producer::release
//! [`handle_acknowledged`]: Producer::handle_acknowledged
//! [`handle_refused`]: Producer::handle_refused
//! [`handle_timeout`]: Producer::handle_timeout
//! [`poll_action`]: Producer::poll_action
//! [`poll_completed`]: Producer::poll_completed
//! [`poll_timeout`]: Producer::poll_timeout
//! [`poll_transmit`]: Producer::poll_transmit

mod identity;
#[cfg(test)]
mod model;
mod outcome;
mod pending;
#[cfg(test)]
mod tests;
mod types;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

pub(crate) use self::types::{
    Action, Completed, Deadline, Doubt, Failure, Found, Refusal, RefusalKind, Settings, Stage, Standing,
    Token, Transmit,
};
use self::{
    identity::Renewal,
    pending::{Abandoned, Change, Flow, LookUp, Pending},
};
use crate::producer_id::{Acknowledged, EpochOwner, Identity, ProducerState, Stamp};

/// The appends of one partition, from their submission to their outcome.
#[derive(Debug)]
pub(super) struct Producer<P, E> {
    settings: Settings,
    /// In the order of submission.
    batches: VecDeque<Pending<P, E>>,
    /// Attempts in flight whose batches are completed.
    abandoned: Vec<Abandoned>,
    completed: VecDeque<(P, Completed<E>)>,
    identity: Option<Identity>,
    /// The sequence number after the last batch that was acknowledged.
    next_sequence: i32,
    /// What new batches need before they get a stamp.
    change: Option<Change>,
    /// When a batch of the identity was last acknowledged.
    proven_at: Option<Instant>,
    renewal: Renewal,
    acknowledged: Option<Acknowledged>,
    /// The last offset that was acknowledged.
    last_offset: Option<i64>,
    connected: bool,
    look_up: Option<LookUp>,
    running: Option<Action>,
    paused_until: Option<Instant>,
    flow: Flow,
    fatal: Option<Failure<E>>,
    /// The last error since the last acknowledgement.
    last_error: Option<E>,
    /// No later than any deadline.
    next_deadline: Option<Instant>,
    next_token: u64,
    submitted: u64,
    has_left_doubt: bool,
}

// Getters

impl<P, E: Clone> Producer<P, E> {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            batches: VecDeque::new(),
            abandoned: Vec::new(),
            completed: VecDeque::new(),
            identity: None,
            next_sequence: 0,
            change: None,
            proven_at: None,
            renewal: Renewal::default(),
            acknowledged: None,
            last_offset: None,
            connected: false,
            look_up: None,
            running: None,
            paused_until: None,
            flow: Flow::Sending,
            fatal: None,
            last_error: None,
            next_deadline: None,
            next_token: 0,
            submitted: 0,
            has_left_doubt: false,
        }
    }

    /// Whether every batch is completed and polled.
    pub(super) fn is_idle(&self) -> bool {
        self.batches.is_empty() && self.completed.is_empty()
    }

    /// Whether a batch has left in doubt.
    pub(super) fn has_left_doubt(&self) -> bool {
        self.has_left_doubt
    }

    /// Whether nothing is in flight either.
    pub(super) fn is_finished(&self) -> bool {
        self.is_idle() && self.abandoned.is_empty()
    }

    /// Whether a pause was planned for what is in flight: the refusals that follow need no other one.
    pub(super) fn is_recovering(&self) -> bool {
        self.flow >= Flow::Recovering
    }

    /// Whether an acknowledgement is believed: not after the broker has denied that it leads the partition.
    pub(super) fn is_believed(&self) -> bool {
        self.flow != Flow::Doubting
    }

    /// Whether the action that runs is needed: a renewal also while there are no batches.
    pub(super) fn is_action_needed(&self) -> bool {
        self.fatal.is_none() && (self.is_renewing() || !self.is_idle() && !self.is_running_in_vain())
    }

    /// Returns the id and epoch that new batches get.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Returns why nothing can be appended any more.
    pub(super) fn ended(&self) -> Option<&Failure<E>> {
        self.fatal.as_ref()
    }

    /// Returns the last error since the last acknowledgement.
    pub(super) fn last_error(&self) -> Option<&E> {
        self.last_error.as_ref()
    }

    /// Returns the batch that was acknowledged last.
    pub(super) fn last_acknowledged(&self) -> Option<Acknowledged> {
        self.acknowledged
    }

    /// Returns how many batches are not completed and not in flight, and how many may be on the log because
    /// an earlier attempt had no clear response.
    pub(super) fn pending(&self) -> (usize, usize) {
        let count =
            |is_one: fn(&Pending<P, E>) -> bool| self.batches.iter().filter(|batch| is_one(batch)).count();
        (count(|batch| batch.in_flight.is_none()), count(|batch| batch.in_doubt && !batch.settled))
    }

    /// Whether a connection is needed, and there was one.
    pub(super) fn uses_connection(&self) -> bool {
        self.connected && self.batches.iter().any(|batch| batch.in_flight.is_none())
    }

    /// Whether the batch of an attempt waits for the response.
    pub(super) fn is_awaited(&self, token: Token) -> bool {
        self.position(token).is_some()
    }

    /// Returns the payload of an attempt in flight.
    pub(super) fn payload_mut(&mut self, token: Token) -> Option<&mut P> {
        let at = self.position(token)?;
        Some(&mut self.batches[at].payload)
    }

    /// Returns what this producer knows about a batch that has left in doubt, of itself or another producer.
    pub(super) fn standing(&self, stamp: Stamp) -> Standing {
        if self.acknowledged.is_some_and(|last| last.stamp.settles(stamp)) {
            return Standing::Settled;
        }
        let Some(own) = self.identity.filter(|own| self.fatal.is_none() && own.id == stamp.identity.id)
        else {
            return Standing::Foreign;
        };
        let is_raised = match (self.change, self.settings.epochs) {
            (None, _) => false,
            // By the coordinator, before the next append.
            (Some(_), EpochOwner::Coordinator { .. }) => true,
            (Some(Change::NextEpoch), owner) if owner.next(own).is_some() => true,
            _ => return Standing::Foreign,
        };
        match own.epoch > stamp.identity.epoch || is_raised && own.epoch == stamp.identity.epoch {
            true => Standing::Owned,
            false => Standing::Foreign,
        }
    }
}

// Commands

impl<P, E: Clone> Producer<P, E> {
    /// Fixes the place of a batch after all others.
    pub(super) fn submit(&mut self, payload: P, records: usize, deadline: Deadline) {
        if let Some(error) = self.fatal.clone() {
            let completed = Completed::Failed { error, in_doubt: None, attempts: 0 };
            return self.completed.push_back((payload, completed));
        }
        self.submitted += 1;
        let earlier = self.next_deadline.filter(|_| !self.batches.is_empty());
        self.next_deadline = Some(earlier.map_or(deadline.at, |earlier| earlier.min(deadline.at)));
        self.batches.push_back(Pending::new(self.submitted, payload, records, deadline));
        self.complete_stuck();
    }

    /// Completes everything that is left with an error, and everything that is submitted from now on.
    pub(super) fn abort(&mut self, error: E) {
        let error = self.fatal.get_or_insert(Failure::Error(error)).clone();
        self.complete_all(error);
    }

    /// Gives the producer id to another producer of the partition; `None` if that cannot go on with it, or if
    /// the id belongs to a name.
    pub(super) fn release(&mut self) -> Option<ProducerState> {
        if !self.batches.is_empty() || !self.abandoned.is_empty() || self.fatal.is_some() {
            return None;
        }
        if matches!(self.settings.epochs, EpochOwner::Coordinator { .. }) {
            return None;
        }
        if self.change == Some(Change::NextEpoch) {
            self.change_identity();
        }
        if self.change.is_some() {
            return None;
        }
        let (identity, next_sequence) = (self.identity.take()?, self.next_sequence);
        Some(ProducerState { identity, next_sequence, last_acknowledged: self.acknowledged })
    }
}

// What has happened

impl<P, E: Clone> Producer<P, E> {
    /// A producer id is there: a new one, one that another producer has released, that of a takeover, or a
    /// later epoch of the own one.
    pub(super) fn handle_identity(&mut self, now: Instant, start: ProducerState) {
        let running = self.running.take();
        if self.fatal.is_some() {
            return;
        }
        self.note_renewed(now, running);
        self.identity = Some(start.identity);
        self.next_sequence = start.next_sequence;
        self.proven_at = None;
        self.change = None;
        if let Some(last) = start.last_acknowledged
            && (self.acknowledged.is_none() || self.last_offset < last.last_offset())
        {
            self.acknowledged = Some(last);
            self.last_offset = last.last_offset().or(self.last_offset);
            if self.connected {
                self.require_look_up();
            }
        }
    }

    /// Another holder has taken the name over: nothing can be appended any more.
    pub(super) fn handle_fenced(&mut self, error: E) {
        self.running = None;
        self.end(Failure::Error(error));
        self.complete_stuck();
    }

    /// The connection to the leader is open. `is_new` unless it is the one from before, to the same leader in
    /// the same epoch.
    pub(super) fn handle_connected(&mut self, is_new: bool) {
        debug_assert_eq!(self.in_flight(), 0, "connected while something is in flight");
        self.running = None;
        self.connected = true;
        if is_new {
            self.require_look_up();
        }
    }

    /// Nothing can be sent on the connection any more. What is in flight may still be answered.
    pub(super) fn handle_disconnected(&mut self) {
        self.connected = false;
    }

    /// The action that runs was given up, because nothing needs it any more.
    pub(super) fn handle_cancelled(&mut self) {
        self.running = None;
    }

    /// The batch that `poll_transmit` returned last could not be sent yet.
    pub(super) fn handle_unsent(&mut self, token: Token) {
        if let Some(at) = self.position(token) {
            self.batches[at].note_refusal(false);
            self.batches[at].attempts -= 1;
        }
    }

    /// An action has failed and may be tried again.
    pub(super) fn handle_retry(&mut self, error: E, resume_at: Instant) {
        let action = self.running.take();
        if let Some(Action::Connect | Action::LookUp { .. }) = action {
            self.connected = false;
        }
        if self.put_off_renewal(action) {
            return;
        }
        self.last_error = Some(error);
        self.pause(resume_at);
        self.complete_stuck();
    }

    /// An action has failed and cannot succeed. The next append tries it again.
    pub(super) fn handle_failed(&mut self, error: E) {
        let action = self.running.take();
        if self.put_off_renewal(action) {
            return;
        }
        self.fail(0, Failure::Error(error));
        self.complete_stuck();
    }

    /// The look-up of the batch that was acknowledged last is done.
    pub(super) fn handle_found(&mut self, found: Found) {
        let Some(Action::LookUp { last, .. }) = self.running.take() else { return };
        match (found, self.look_up.take()) {
            (Found::Lost { from }, _) => self.end(Failure::DataLoss { last, from }),
            (Found::Present, Some(LookUp::Rejected { change })) => {
                self.change = self.change.max(change);
                self.complete_stuck();
            }
            (Found::Present, _) => {}
        }
    }

    /// A batch was acknowledged.
    pub(super) fn handle_acknowledged(&mut self, now: Instant, token: Token, base_offset: Option<i64>) {
        let abandoned = self.take_abandoned(token);
        let at = self.position(token);
        if !self.is_believed() {
            // It is sent again, and recognised by the log that has it.
            if let Some(at) = at {
                self.batches[at].note_refusal(true);
            }
            return self.complete_stuck();
        }
        let (number, stamp, sent_at, records, is_late) = match (abandoned, at) {
            (Some(Abandoned { number, stamp, sent_at, records, settled, .. }), _) => {
                (number, stamp, sent_at, records, settled)
            }
            (None, Some(at)) => {
                let Pending { number, stamp, sent_at, records, settled, .. } = self.batches[at];
                (number, stamp, sent_at, records, settled)
            }
            (None, None) => return,
        };
        if let (false, Some(loss)) = (is_late, self.loss_at(base_offset)) {
            self.fatal.get_or_insert(loss);
        }
        if self.fatal.is_none() && !is_late {
            self.acknowledge(now, number, stamp, sent_at, base_offset, records);
        }
        let is_doomed = |batch: &Pending<P, E>| self.settings.stop_on_failure && batch.doomed.is_some();
        match at {
            // What has failed before it fails it, and its outcome is that of all that were sent.
            Some(at) if is_doomed(&self.batches[at]) => self.batches[at].note_refusal(true),
            Some(at) if is_late || self.fatal.is_none() => {
                if let Some(Pending { payload, attempts, .. }) = self.batches.remove(at) {
                    let completed = Completed::Appended { base_offset, attempts };
                    self.completed.push_back((payload, completed));
                }
            }
            // It ends with the error that ends everything: a success could hide the loss.
            Some(at) => self.batches[at].note_refusal(true),
            None => {}
        }
        self.complete_stuck();
    }

    /// A batch was refused, or its connection ended before a response. Then everything in flight on the
    /// connection is refused one by one, in order.
    pub(super) fn handle_refused(&mut self, token: Token, refusal: Refusal<E>, resume_at: Instant) {
        let Refusal { error, kind } = refusal;
        let abandoned = self.take_abandoned(token);
        let at = self.position(token);
        // A final refusal is reported, and is no reason for which later batches are late.
        if !matches!(kind, RefusalKind::Final { .. }) {
            self.last_error = Some(error.clone());
        }
        match (abandoned, at) {
            (Some(abandoned), _) => self.refuse_abandoned(abandoned, kind, error, resume_at),
            (None, Some(at)) => {
                self.batches[at].refused_with = Some(error.clone());
                self.refuse(at, kind, error, resume_at);
            }
            (None, None) => {}
        }
        self.complete_stuck();
    }

    /// The time that `poll_timeout` returned has come.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.observe(now);
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if self.next_deadline.is_some_and(|next| next <= now) {
            self.expire(|batch| batch.deadline.at <= now);
            self.complete_stuck();
        }
    }

    /// Ends the time of some batches now, which was `after` long.
    pub(super) fn end_time(&mut self, now: Instant, after: Duration, is_over: impl Fn(&P) -> bool) {
        let of_these = self.batches.iter_mut().filter(|batch| is_over(&batch.payload));
        for batch in of_these.filter(|batch| batch.deadline.at > now) {
            batch.deadline = Deadline { at: now, after };
        }
        self.next_deadline = Some(self.next_deadline.map_or(now, |next| next.min(now)));
        self.handle_timeout(now);
    }
}

// What is to be done

impl<P, E: Clone> Producer<P, E> {
    /// Returns what has to be done before batches can be sent, or to keep the name.
    pub(super) fn poll_action(&mut self, now: Instant) -> Option<Action> {
        self.observe(now);
        let is_wanted = !self.batches.is_empty() || self.is_renewal_due();
        if self.is_held() || !is_wanted || self.in_flight() > 0 {
            return None;
        }
        let action = if self.needs_identity(now) && !self.is_looked_up_first() {
            self.request_identity(now)
        } else if !self.connected {
            Action::Connect
        } else if let (Some(look_up), Some(last)) = (self.look_up, self.acknowledged) {
            Action::LookUp { last, rejected: look_up != LookUp::NewConnection }
        } else {
            return None;
        };
        self.running = Some(action);
        Some(action)
    }

    /// Returns a batch to send on the connection.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Transmit<'_, P>> {
        self.observe(now);
        let in_flight = self.in_flight();
        if self.is_held() || self.flow != Flow::Sending && in_flight > 0 {
            return None;
        }
        self.flow = Flow::Sending;
        if !self.connected || self.look_up.is_some() || self.needs_identity(now) {
            return None;
        }
        let at = self.batches.iter().position(|batch| batch.in_flight.is_none())?;
        let needs_stamp = self.settings.idempotent && self.batches[at].stamp.is_none();
        if self.batches[at].stamp.is_some() && !self.is_confirmed(now) {
            if in_flight == 0 {
                self.fail_stale();
            }
            return None;
        }
        if needs_stamp && (self.change.is_some() || self.needs_renewal(now)) {
            // What may be on the log has to be settled under its own identity first.
            if self.has_stamps() {
                return None;
            }
            self.change_identity();
        }
        if in_flight >= self.window(now) {
            return None;
        }
        if needs_stamp {
            self.batches[at].stamp = Some(self.next_stamp(at)?);
        }
        if needs_stamp || !self.settings.idempotent {
            self.batches[at].after = self.last_offset;
        }
        let token = Token(self.next_token);
        self.next_token += 1;
        let batch = &mut self.batches[at];
        batch.in_flight = Some(token);
        batch.sent_at = Some(now);
        batch.attempts += 1;
        let Pending { stamp, payload, attempts, in_doubt, deadline, .. } = batch;
        let (stamp, attempt, in_doubt, deadline) = (*stamp, *attempts, *in_doubt, deadline.at);
        Some(Transmit { token, stamp, payload, attempt, in_doubt, deadline })
    }

    /// Whether there is an append that has ended.
    pub(super) fn has_completed(&self) -> bool {
        !self.completed.is_empty()
    }

    /// Returns an append that has ended.
    pub(super) fn poll_completed(&mut self) -> Option<(P, Completed<E>)> {
        self.completed.pop_front()
    }

    /// Returns when `handle_timeout` is to be called. It may turn out then that nothing is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.next_deadline.filter(|_| !self.batches.is_empty());
        deadline.into_iter().chain(self.paused_until).chain(self.renewal_timeout()).min()
    }
}

impl<P, E: Clone> Producer<P, E> {
    /// Whether an action or a pause comes first.
    fn is_held(&self) -> bool {
        self.running.is_some() || self.paused_until.is_some()
    }

    /// Batches that were sent and are not completed: they are within the window from the first one on.
    fn sent(&self) -> impl Iterator<Item = &Pending<P, E>> {
        self.batches.iter().take(self.settings.window)
    }

    fn in_flight(&self) -> usize {
        self.abandoned.len() + self.sent().filter(|batch| batch.in_flight.is_some()).count()
    }

    fn position(&self, token: Token) -> Option<usize> {
        self.sent().position(|batch| batch.in_flight == Some(token))
    }

    fn has_stamps(&self) -> bool {
        self.sent().any(|batch| batch.stamp.is_some())
    }

    /// A partition that does not know the id accepts any sequence number, so two batches in flight could end
    /// up in the wrong order.
    fn window(&self, now: Instant) -> usize {
        let is_known = |at: Instant| now.saturating_duration_since(at) < self.settings.expiration;
        match self.settings.idempotent && self.proven_at.is_some_and(is_known) {
            true => self.settings.window,
            false => 1,
        }
    }

    /// Whether the look-up comes before another id: that may bring along a batch of a time after a loss.
    fn is_looked_up_first(&self) -> bool {
        let is_wanted = self.look_up.is_some() && self.acknowledged.is_some();
        is_wanted && self.change == Some(Change::NewId) && !self.batches.is_empty()
    }

    fn require_look_up(&mut self) {
        let is_known = self.acknowledged.is_some_and(|last| last.base_offset.is_some());
        if self.settings.idempotent && is_known {
            self.look_up.get_or_insert(LookUp::NewConnection);
        }
    }

    /// Returns the loss that an acknowledgement at this offset shows, if any.
    fn loss_at(&self, base_offset: Option<i64>) -> Option<Failure<E>> {
        let (last, from) = (self.acknowledged?, base_offset?);
        (from <= self.last_offset?).then_some(Failure::DataLoss { last, from: Some(from) })
    }
}
