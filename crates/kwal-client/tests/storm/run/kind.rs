//! How a writer appends, by seed.

use fastrand::Rng;
use kwal_client::{Acks, OnFailure, OpenPartition};
use kwal_testkit::check::Writer;

/// How a writer appends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// It reserves and submits, and does not call `produce`.
    pub(super) by_permit: bool,
    window: usize,
    pub(super) on_failure: OnFailure,
    pub(super) idempotent: bool,
    pub(super) acks: Acks,
}

impl Kind {
    pub(super) fn of(rng: &mut Rng) -> Self {
        let by_permit = rng.bool();
        let window = if rng.bool() { 5 } else { rng.u64(1..=5) as usize };
        let on_failure = if rng.u8(..6) == 0 { OnFailure::Continue } else { OnFailure::Stop };
        let idempotent = rng.u8(..8) != 0;
        let acks = if !idempotent && rng.bool() { Acks::Leader } else { Acks::All };
        Self { by_permit, window, on_failure, idempotent, acks }
    }

    /// Configures a partition client.
    pub(super) fn configure(self, open: OpenPartition) -> OpenPartition {
        let Self { window, on_failure, idempotent, acks, .. } = self;
        open.max_in_flight(window).on_failure(on_failure).idempotent(idempotent).acks(acks)
    }

    /// Describes it to the checker.
    pub(super) fn describe(self, writer: Writer) -> Writer {
        let writer =
            if self.on_failure == OnFailure::Continue { writer.on_failure_continue() } else { writer };
        let writer = if self.idempotent { writer } else { writer.without_ids() };
        if self.acks == Acks::Leader { writer.leader_acks() } else { writer }
    }
}
