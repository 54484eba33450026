//! The identity of new batches: when it has to change, and when its coordinator has to confirm it.
//!
//! The id of an exclusive producer belongs to a name, and the coordinator of the name [owns](EpochOwner) its
//! epochs. Then these rules are added to those of the [state machine](super):
//!
//! * **One owner.** Where a doubt needs the next epoch, or a refusal another id, the coordinator is requested
//!   to raise the epoch of the own id. The request carries the own identity: without it, a producer that was
//!   taken over would take its name back.
//! * **Renewal.** The same request is made when the last one succeeded `renewal` ago, also while there are no
//!   batches. It raises the epoch, so while it is due no new batch gets a stamp, and those that have one are
//!   settled first.
//! * **Confirmed.** The name was certainly held when something was sent that succeeded: a batch, or a request
//!   for an epoch. When it succeeded proves nothing: the response may have waited for a process that was
//!   stopped. If it was sent less than half of `renewal` ago, no partition can have forgotten a newer fence.
//!   Then a renewal that fails is put off by a 24th of `renewal`, and appends go on under the old epoch.
//! * **Silence.** After half of `renewal` without a confirmation, nothing is sent before a renewal. If that
//!   fails, batches wait for another one until their deadlines.
//! * **Stale.** Batches in doubt are no exception: a partition that has forgotten the fence of another holder
//!   would append them behind it. They cannot wait for the renewal either, because they would not be
//!   recognised under its epoch. So they fail in doubt, with the error of their last attempt, and the renewal
//!   keeps them away.
//! * **The end.** When another holder has the name, nothing can be appended any more. A producer that has
//!   ended or is not used any more renews nothing.

use std::time::{Duration, Instant};

use super::{
    Producer,
    pending::Change,
    types::{Action, Settings},
};
use crate::producer_id::{EpochOwner, Stamp};

/// How long batches wait for a coordinator that does not answer, at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// When the name was certainly held last, and when it is to be renewed.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// The latest time at which the own epoch was certainly the last one of the id: when something was sent
    /// that succeeded. It may have waited here for long since it succeeded, if the process was stopped.
    confirmed_at: Option<Instant>,
    due: Due,
    /// When the request that runs was made, and whether batches can go on if it fails.
    requested_at: Option<Instant>,
    is_optional: bool,
    /// Only batches need an identity from now on.
    is_stopped: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Due {
    #[default]
    Never,
    At(Instant),
    Now,
    /// It has failed, and is put off from the next time on that is handed in.
    Failed,
}

impl Settings {
    /// Returns the time between renewals; `None` if the epochs are the client's.
    fn renewal(&self) -> Option<Duration> {
        match self.epochs {
            EpochOwner::Client => None,
            EpochOwner::Coordinator { renewal } => Some(renewal),
        }
    }
}

impl<P, E: Clone> Producer<P, E> {
    /// Notes what time it is.
    pub(super) fn observe(&mut self, now: Instant) {
        let Some(interval) = self.settings.renewal() else { return };
        self.renewal.due = match self.renewal.due {
            Due::At(at) if at <= now => Due::Now,
            Due::Failed => now.checked_add(interval / 24).map_or(Due::Never, Due::At),
            due => due,
        };
    }

    /// Whether the name is renewed while there are no batches, too.
    fn renews(&self) -> bool {
        self.settings.renewal().is_some()
            && self.identity.is_some()
            && self.fatal.is_none()
            && !self.renewal.is_stopped
    }

    pub(super) fn is_renewal_due(&self) -> bool {
        self.renews() && self.renewal.due == Due::Now
    }

    /// Returns when a renewal is due that is not due yet.
    pub(super) fn renewal_timeout(&self) -> Option<Instant> {
        match self.renewal.due {
            Due::At(at) if self.renews() => Some(at),
            _ => None,
        }
    }

    /// Whether a request for an identity runs that is not for batches alone.
    pub(super) fn is_renewing(&self) -> bool {
        self.renews() && matches!(self.running, Some(Action::AcquireIdentity { .. }))
    }

    /// Whether a renewal runs that neither the name nor a batch needs.
    pub(super) fn is_running_in_vain(&self) -> bool {
        matches!(self.running, Some(Action::AcquireIdentity { held: Some(_) })) && self.renewal.is_optional
    }

    /// Whether partitions certainly know that earlier epochs are fenced, and later ones would have been
    /// noticed.
    pub(super) fn is_confirmed(&self, now: Instant) -> bool {
        let Some(interval) = self.settings.renewal() else { return true };
        self.renewal.confirmed_at.is_some_and(|at| now.saturating_duration_since(at) < interval / 2)
    }

    /// Whether new batches wait for a renewal.
    pub(super) fn needs_renewal(&self, now: Instant) -> bool {
        self.identity.is_some() && (self.is_renewal_due() || !self.is_confirmed(now))
    }

    /// Returns the request for an identity.
    pub(super) fn request_identity(&mut self, now: Instant) -> Action {
        self.renewal.requested_at = Some(now);
        self.renewal.is_optional = self.identity.is_some() && self.change.is_none() && self.is_confirmed(now);
        Action::AcquireIdentity { held: self.identity.filter(|_| self.settings.renewal().is_some()) }
    }

    /// Notes that the coordinator has confirmed the name.
    pub(super) fn note_renewed(&mut self, now: Instant, running: Option<Action>) {
        let Some(interval) = self.settings.renewal() else { return };
        let requested = running.and_then(|_| self.renewal.requested_at.take());
        self.renewal.confirmed_at = self.renewal.confirmed_at.max(Some(requested.unwrap_or(now)));
        self.renewal.due = now.checked_add(interval).map_or(Due::Never, Due::At);
    }

    /// Notes that a batch of the identity was acknowledged.
    pub(super) fn note_confirmed(&mut self, sent_at: Option<Instant>) {
        self.renewal.confirmed_at = self.renewal.confirmed_at.max(sent_at);
    }

    /// Returns how long batches wait for a renewal that they do not need.
    pub(in crate::producer) fn renewal_patience(&self) -> Duration {
        self.settings.renewal().map_or(PATIENCE, |interval| PATIENCE.min(interval / 24))
    }

    /// Whether batches wait for the renewal that runs, and can go on without it.
    pub(in crate::producer) fn is_renewal_in_the_way(&self) -> bool {
        matches!(self.running, Some(Action::AcquireIdentity { held: Some(_) }))
            && self.renewal.is_optional
            && !self.batches.is_empty()
    }

    /// The renewal that runs was given up, to try it again later.
    pub(in crate::producer) fn handle_put_off(&mut self) {
        let action = self.running.take();
        self.put_off_renewal(action);
    }

    /// Notes that an action has failed. Returns whether that concerns no batch.
    pub(super) fn put_off_renewal(&mut self, failed: Option<Action>) -> bool {
        if !matches!(failed, Some(Action::AcquireIdentity { held: Some(_) })) {
            return false;
        }
        if self.renewal.due == Due::Now {
            self.renewal.due = Due::Failed;
        }
        self.batches.is_empty() || self.renewal.is_optional
    }

    /// Ends renewals that no batch needs: nothing is submitted any more.
    pub(in crate::producer) fn stop_renewing(&mut self) {
        self.renewal.is_stopped = true;
    }

    /// Fails batches that were sent under an identity which may have been taken over and forgotten since.
    pub(super) fn fail_stale(&mut self) {
        let stale = |producer: &Self| producer.sent().position(|batch| batch.stamp.is_some());
        while let Some(at) = stale(self) {
            self.strand(at);
        }
    }

    pub(super) fn needs_identity(&self, now: Instant) -> bool {
        self.settings.idempotent
            && !self.has_stamps()
            && match (self.identity, self.change) {
                (None, _) | (_, Some(Change::NewId)) => true,
                (Some(own), Some(Change::NextEpoch)) => self.settings.epochs.next(own).is_none(),
                (Some(_), None) => self.needs_renewal(now),
            }
    }

    /// Goes on with the next epoch, if there is one.
    pub(super) fn change_identity(&mut self) {
        if let Some(next) = self.identity.and_then(|own| self.settings.epochs.next(own)) {
            self.identity = Some(next);
            self.next_sequence = 0;
            self.proven_at = None;
            self.change = None;
        }
    }

    /// Returns the stamp of a batch that has none.
    pub(super) fn next_stamp(&self, at: usize) -> Option<Stamp> {
        let identity = self.identity?;
        let unsettled = self.batches.iter().take(at).rev().filter(|batch| !batch.settled);
        let last = unsettled.into_iter().find_map(|batch| Some((batch.stamp?, batch.records)));
        let sequence = last.map_or(self.next_sequence, |(stamp, records)| stamp.end(records));
        Some(Stamp { identity, sequence })
    }
}
