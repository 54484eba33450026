//! How a writer appends, by seed.

use std::time::Duration;

use fastrand::Rng;
use kwal_client::{Acks, OnFailure, OpenPartition};
use kwal_testkit::check::Writer;

use super::plan::Plan;

/// How a writer appends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// It reserves and submits, and does not call `produce`.
    pub(super) by_permit: bool,
    window: usize,
    pub(super) on_failure: OnFailure,
    pub(super) idempotent: bool,
    pub(super) acks: Acks,
    /// How it holds its log exclusively, if it does.
    pub(super) exclusive: Option<Hold>,
    /// It appends the inputs of many callers.
    pub(super) batched: bool,
}

/// The intervals of an exclusive writer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    renewal: Duration,
    probe: Option<Duration>,
}

/// More producer ids than a client has for one partition.
pub(super) const FENCED_IDS: usize = 10;

/// The name of all exclusive writers.
const NAME: &str = "me";

impl Kind {
    /// A writer of a partition: one that holds the log, on the partition that is taken over.
    pub(super) fn on(partition: i32, plan: &Plan, rng: &mut Rng) -> Self {
        if partition < plan.partitions { Self::of(rng) } else { Self::holder(rng) }
    }

    fn of(rng: &mut Rng) -> Self {
        let by_permit = rng.bool();
        let window = if rng.bool() { 5 } else { rng.u64(1..=5) as usize };
        let on_failure = if rng.u8(..6) == 0 { OnFailure::Continue } else { OnFailure::Stop };
        let idempotent = rng.u8(..8) != 0;
        let acks = if !idempotent && rng.bool() { Acks::Leader } else { Acks::All };
        Self { by_permit, window, on_failure, idempotent, acks, exclusive: None, batched: false }
    }

    /// A writer that holds its log exclusively.
    fn holder(rng: &mut Rng) -> Self {
        let kind = Self::of(rng);
        let millis = Duration::from_millis;
        let mut one_in = |n: u8| rng.u8(..n) == 0;
        let (renews, probes) = (one_in(3), one_in(6));
        let renewal = if renews { millis(rng.u64(1_000..5_000)) } else { Duration::from_secs(60) };
        let probe = probes.then(|| millis(rng.u64(500..3_000)));
        Self { idempotent: true, acks: Acks::All, exclusive: Some(Hold { renewal, probe }), ..kind }
    }

    /// The same, for the inputs of many callers.
    pub(super) fn batched(self) -> Self {
        Self { batched: true, ..self }
    }

    /// The same, for one whose barrier is that of another writer.
    pub(super) fn without_barrier(self) -> Self {
        Self { exclusive: None, ..self }
    }

    /// Configures a partition client.
    pub(super) fn configure(self, open: OpenPartition) -> OpenPartition {
        let Self { window, on_failure, idempotent, acks, .. } = self;
        let open = open.max_in_flight(window).on_failure(on_failure).idempotent(idempotent).acks(acks);
        let Some(Hold { renewal, probe }) = self.exclusive else { return open };
        let open = open.exclusive(NAME).renewal(renewal);
        match probe {
            Some(interval) => open.probe(interval),
            None => open,
        }
    }

    /// Describes it to the checker.
    pub(super) fn describe(self, writer: Writer) -> Writer {
        let writer =
            if self.on_failure == OnFailure::Continue { writer.on_failure_continue() } else { writer };
        let writer = if self.idempotent { writer } else { writer.without_ids() };
        let writer = if self.exclusive.is_some() { writer.exclusive(NAME) } else { writer };
        let writer = if self.batched { writer.batched() } else { writer };
        if self.acks == Acks::Leader { writer.leader_acks() } else { writer }
    }
}
