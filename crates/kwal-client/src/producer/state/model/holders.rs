//! The coordinator of a name, and those that hold the name one after another.

use super::*;

/// Answers InitProducerId for the name (KIP-360).
#[derive(Debug)]
pub(super) struct Coordinator {
    /// `None` if the name is not known.
    current: Option<Identity>,
    /// The identity that the last request carried, which may be made again.
    previous: Option<Identity>,
    next_id: i64,
    first_epoch: i16,
}

/// The name of an exclusive producer, as the model knows it.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) coordinator: Coordinator,
    /// What the producer was given last.
    pub(super) granted: Option<Identity>,
    /// When something was sent last that succeeded.
    pub(super) confirmed_at: Instant,
    due_at: Instant,
    /// When the producer made its last request, and whether batches go on if it fails.
    requested_at: Instant,
    is_optional: bool,
    /// Requests that were given up and did not arrive yet.
    late: VecDeque<Identity>,
    /// Another process that has an identity and has not appended its barrier yet.
    rival: Option<Identity>,
    is_unused: bool,
}

impl Coordinator {
    /// Returns an identity, or `None` if another one holds the name.
    fn init(&mut self, held: Option<Identity>) -> Option<Identity> {
        match (held, self.current) {
            (Some(_), Some(current)) if held == self.previous => return Some(current),
            (Some(held), Some(current)) if held != current => return None,
            _ => {}
        }
        self.previous = held.filter(|_| self.current.is_some());
        self.current = match self.current {
            Some(Identity { id, epoch }) if epoch < i16::MAX - 1 => Some(Identity { id, epoch: epoch + 1 }),
            _ => {
                self.next_id += 1;
                Some(Identity { id: self.next_id, epoch: std::mem::take(&mut self.first_epoch) })
            }
        };
        self.current
    }

    pub(super) fn forget(&mut self) {
        (self.current, self.previous) = (None, None);
    }
}

impl Name {
    pub(super) fn new(now: Instant, disasters: bool) -> Self {
        // Near the last epoch, so that lists reach it, unless nothing is to end the producer.
        let first_epoch = if disasters { i16::MAX - 6 } else { 0 };
        Self {
            coordinator: Coordinator { current: None, previous: None, next_id: 0, first_epoch },
            granted: None,
            confirmed_at: now,
            due_at: now + RENEWAL,
            requested_at: now,
            is_optional: false,
            late: VecDeque::new(),
            rival: None,
            is_unused: false,
        }
    }
}

// Holders

impl World {
    /// The producer begins as the holder of the name.
    pub(super) fn take_over(&mut self) {
        let identity = self.name.coordinator.init(None).expect("the name is free");
        let stamp = Stamp { identity, sequence: 0 };
        self.append_barrier(OTHER, stamp);
        let last = Acknowledged { stamp, base_offset: Some(0), records: 1 };
        self.last_offset = Some(0);
        self.starts.push((identity, 1));
        self.name.granted = Some(identity);
        let start = ProducerState { identity, next_sequence: 1, last_acknowledged: Some(last) };
        self.producer.handle_identity(self.now, start);
    }

    fn append_barrier(&mut self, batch: usize, stamp: Stamp) {
        let (base_offset, appended_at) = (self.log.end(), self.now);
        self.log.entries.push(Entry { batch, stamp: Some(stamp), records: 1, base_offset, appended_at });
        self.log.committed = self.log.entries.len();
    }

    pub(super) fn has_rivals(&self) -> bool {
        self.conditions.exclusive && self.conditions.disasters
    }

    /// Another process requests the name, or appends its barrier.
    pub(super) fn lose_name(&mut self) {
        let Some(identity) = self.name.rival.take() else {
            self.fenced = true;
            self.name.rival = self.name.coordinator.init(None);
            return;
        };
        // The id of who had the log last: an election may have lost what others have appended since.
        let stamps = self.log.entries.iter().rev().filter_map(|entry| entry.stamp);
        let mut ids = stamps.filter(|stamp| stamp.identity.epoch < i16::MAX).map(|stamp| stamp.identity.id);
        if let Some(before) = ids.next().filter(|before| *before != identity.id) {
            let fence = Identity { id: before, epoch: i16::MAX };
            self.append_barrier(OTHER, Stamp { identity: fence, sequence: 0 });
        }
        self.append_barrier(BARRIER, Stamp { identity, sequence: 0 });
    }

    /// In two lists of three another process takes over before the end, and in one of them so long before
    /// that the partition has forgotten its barrier when the producer goes on.
    pub(super) fn end_hold(&mut self) {
        if !self.has_rivals() || self.clock.is_multiple_of(3) {
            return;
        }
        let is_silent = self.clock % 3 == 1;
        self.apply(Op::TakeOver);
        self.apply(Op::TakeOver);
        if is_silent {
            self.apply(Op::Tick(120));
        }
    }

    pub(super) fn arrive_late(&mut self) {
        if let Some(held) = self.name.late.pop_front() {
            self.name.coordinator.init(Some(held));
        }
    }

    pub(super) fn probe(&mut self) {
        let is_later = |entry: &Entry| match (self.name.granted, entry.stamp) {
            (Some(own), Some(Stamp { identity, .. })) => identity.id == own.id && identity.epoch > own.epoch,
            _ => false,
        };
        if self.conditions.exclusive && self.log.entries.iter().any(is_later) {
            self.end_fenced();
        }
    }

    fn end_fenced(&mut self) {
        self.ended = true;
        self.fenced = true;
        self.producer.handle_fenced("fenced");
    }

    // The caller of the producer

    pub(super) fn renew(&mut self, held: Option<Identity>) {
        let answer = self.name.coordinator.init(held);
        match answer.filter(|identity| held.is_some_and(|held| held.id == identity.id)) {
            Some(identity) => {
                if self.producer.ended().is_none() {
                    self.name.granted = Some(identity);
                }
                self.name.confirmed_at = self.name.confirmed_at.max(self.name.requested_at);
                self.name.due_at = self.now + RENEWAL;
                self.starts.push((identity, 0));
                let start = ProducerState { identity, next_sequence: 0, last_acknowledged: None };
                self.producer.handle_identity(self.now, start);
            }
            None => self.end_fenced(),
        }
    }

    pub(super) fn fail_action(&mut self, act: Act, action: Action) {
        let mut is_optional = false;
        if let Action::AcquireIdentity { held: Some(held) } = action {
            match act {
                Act::LoseResponse => _ = self.name.coordinator.init(Some(held)),
                _ => self.name.late.push_back(held),
            }
            let waits = self.batches.iter().any(|batch| batch.result.is_none());
            is_optional = self.producer.ended().is_none() && (self.name.is_optional || !waits);
            if self.now >= self.name.due_at {
                self.name.due_at = self.now + RENEWAL / 24;
            }
        }
        match act {
            Act::Fail => self.producer.handle_failed("cannot succeed"),
            _ => {
                let resume_at = self.now + PAUSE;
                if !is_optional {
                    self.paused_until = resume_at;
                }
                self.producer.handle_retry("try again", resume_at);
            }
        }
        if is_optional {
            assert!(self.producer.poll_completed().is_none(), "a renewal that may fail has failed appends");
            assert_eq!(self.producer.paused_until, None, "a renewal that may fail has paused appends");
        }
    }

    /// Gives the action up that runs, as callers do if nothing needs it.
    pub(super) fn cancel(&mut self) {
        if let Some(action) = self.action.take_if(|_| !self.producer.is_action_needed()) {
            if let Action::AcquireIdentity { held: Some(held) } = action {
                self.name.late.push_back(held);
            }
            self.producer.handle_cancelled();
        }
    }

    /// Nothing is submitted any more: the name is not renewed.
    pub(super) fn stop(&mut self) {
        self.name.is_unused = true;
        self.producer.stop_renewing();
        self.cancel();
        self.apply(Op::Tick(200));
        assert!(!self.conditions.exclusive || self.action.is_none(), "renewed without a handle");
    }

    // What has to hold

    pub(super) fn is_confirmed(&self) -> bool {
        self.now < self.name.confirmed_at + RENEWAL / 2
    }

    pub(super) fn check_request(&mut self, held: Option<Identity>) {
        if !self.conditions.exclusive {
            return assert_eq!(held, None);
        }
        assert_eq!(held, self.name.granted, "a request without the own identity");
        assert!(self.batches.iter().all(|batch| !batch.in_flight), "renewed while something is in flight");
        let mut left = self.batches.iter().filter(|batch| batch.result.is_none());
        let (waits, unsettled) = (left.clone().next().is_some(), left.any(|batch| batch.in_doubt));
        assert!(!unsettled, "renewed before everything with a stamp is settled");
        assert!(!self.ended && !self.aborted, "renewed after the end");
        let is_due = self.now >= self.name.due_at && !self.name.is_unused;
        let (is_needed, is_confirmed) = (self.producer.change.is_some(), self.is_confirmed());
        assert!(is_due || waits && (is_needed || !is_confirmed), "a request without a reason");
        self.name.requested_at = self.now;
        self.name.is_optional = is_confirmed && !is_needed;
    }

    pub(super) fn check_held(&self, number: usize, identity: Identity, in_doubt: bool) {
        if self.conditions.exclusive {
            assert_eq!(Some(identity), self.name.granted, "{number} has an identity that nobody gave out");
            assert!(self.is_confirmed(), "{number} is sent after silence");
            assert!(in_doubt || self.now < self.name.due_at, "{number} is sent before a renewal that is due");
        }
    }

    /// A renewal that is due waits for nothing but what has to be settled before.
    pub(super) fn check_renewal(&self) {
        if !self.conditions.exclusive {
            return;
        }
        assert_eq!(self.producer.identity(), self.name.granted);
        if self.producer.ended().is_some() || self.name.is_unused {
            return;
        }
        let due_at = self.name.due_at;
        if self.now < due_at {
            let timeout = self.producer.poll_timeout();
            return assert!(timeout.is_some_and(|at| at <= due_at), "nobody wakes up for a renewal");
        }
        let is_unsettled = |batch: &Batch| batch.in_flight || batch.in_doubt && batch.result.is_none();
        let waits = self.batches.iter().any(is_unsettled) || self.now < self.paused_until;
        assert!(waits || self.action.is_some(), "a renewal that is due is not made");
    }

    /// After the barrier of another holder nothing of this one is on the log.
    pub(super) fn check_barrier(&self) {
        let mut after = self.log.entries.iter().skip_while(|entry| entry.batch != BARRIER);
        let own = after.find(|entry| entry.batch < self.batches.len());
        assert!(own.is_none(), "after the barrier of another holder: {own:?}");
    }
}
