//! Exclusive writers: a log that only the latest holder of a name can append to (KIP-98, KIP-360).
//!
//! The name, the topic and the partition make a transactional id, for which a coordinator keeps a producer
//! id and an epoch. No transaction is ever begun: what is used of it is that partitions reject batches of
//! earlier epochs.
//!
//! ```text
//!  takeover   next epoch from the coordinator ─ last barrier of the name ─ fence, if that is of another id
//!             ─ barrier ─ read back: the log has one writer from here on
//!  renewal    next epoch from the coordinator, with the own id and epoch: before the coordinator forgets the
//!             name, after a batch was left in doubt, and before the first batch after a long silence
//!  probe      which epoch of the own id does the partition know?
//! ```
//!
//! # Why an earlier holder cannot append after the barrier
//!
//! * Under the same producer id, the partition rejects its epoch once it has a batch of a later one.
//! * Under another producer id, because the coordinator forgot the name or had used up the epochs: its
//!   barrier is on the log, and a fence is appended on its last epoch.
//! * Another holder may take over at the same time under yet another id, between the look at the log and the
//!   barrier. Its barrier is found when the own one is read back, and then the other one has the log. The own
//!   barrier stays where it is, so a barrier says nothing about what lies before it. An append does: only a
//!   holder has appended, so what lies before its barrier is fenced, and the [search](holders) ends.

mod holders;
mod probe;
mod takeover;

use std::{sync::Arc, time::Duration};

pub(super) use self::probe::watch;
pub(crate) use self::takeover::take_over;
use super::{appends::Appends, init::NextEpoch};
use crate::{
    error::{Error, ErrorKind, Source},
    producer_id::{Identity, ProducerState},
    record::transactional_id,
    routing::{self, Partition, Target, Trace, Tracker},
};
use kwal_protocol::api::ApiKey;
use tokio::time::Instant;

/// How a partition client holds its log exclusively.
#[derive(Clone, Debug)]
pub(crate) struct Exclusive {
    pub(crate) name: String,
    pub(crate) renewal: Duration,
    pub(crate) probe: Option<Duration>,
}

impl Exclusive {
    /// A seventh of the time after which coordinators forget a name that nobody uses
    /// (`transactional.id.expiration.ms`).
    pub(crate) const RENEWAL: Duration = Duration::from_secs(24 * 60 * 60);
    /// Each renewal takes an epoch, of which a producer id has 32767.
    pub(crate) const LEAST_RENEWAL: Duration = Duration::from_secs(1);
    /// Each probe is a request.
    pub(crate) const LEAST_PROBE: Duration = Duration::from_millis(100);
}

/// A log that was taken over.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(super) name: String,
    pub(super) transactional_id: Arc<str>,
    /// The offset of the barrier.
    pub(super) barrier: i64,
    /// The producer id and epoch of the barrier, and where they stand.
    pub(super) start: ProducerState,
    /// When they were certainly the last ones.
    pub(super) confirmed_at: Instant,
    pub(super) probe: Option<Duration>,
}

impl Hold {
    fn transactional_id(partition: &Partition, name: &str) -> Arc<str> {
        transactional_id(name, &partition.topic, partition.index).into()
    }
}

/// Who holds a log: the result of [`OpenPartition::exclusive`](crate::OpenPartition::exclusive).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Holder {
    /// The name that the partition client was opened with.
    pub name: String,
    /// The producer id.
    pub producer_id: i64,
    /// The epoch that the next batch has: that of the barrier, or a later one after a renewal.
    pub epoch: i16,
    /// The offset of the [barrier](crate::record::Barrier). Everything that earlier holders will ever have
    /// written lies before it.
    pub barrier: i64,
}

/// Requests the next epoch for a holder, in one attempt.
///
/// # Errors
/// [`ErrorKind::Fenced`] if the name has another holder, or another producer id: nobody knows then who had
/// the name in the meantime.
pub(super) async fn renew(
    partition: &Partition,
    transactional_id: &str,
    held: Identity,
    tracker: &Tracker,
) -> Result<ProducerState, Error> {
    let operation = NextEpoch { transactional_id, held: Some(held) };
    let identity = next_epoch(partition, &operation, tracker).await?;
    if identity.id != held.id {
        let what = match held.epoch {
            Identity::LAST_EPOCH => "has no epoch left of",
            _ => "forgot",
        };
        let why = format!("the coordinator {what} the producer id {}, and gave out {}", held.id, identity.id);
        let call = partition.call(ApiKey::INIT_PRODUCER_ID).with_transactional_id(transactional_id);
        let fenced = call.error(ErrorKind::Fenced);
        return Err(fenced.with_source(Source::Other(Arc::from(Box::from(why)))));
    }
    Ok(ProducerState { identity, next_sequence: 0, last_acknowledged: None })
}

/// Requests the next epoch from the coordinator, in one attempt.
async fn next_epoch(
    partition: &Partition,
    operation: &NextEpoch<'_>,
    tracker: &Tracker,
) -> Result<Identity, Error> {
    let target = Target::Coordinator(operation.transactional_id);
    let call = partition.call(ApiKey::INIT_PRODUCER_ID).with_transactional_id(operation.transactional_id);
    routing::attempt(&partition.cluster, target, call, operation, 0, &mut Trace::default(), tracker).await
}

impl Appends {
    /// Returns who holds the log; `None` unless it is held exclusively.
    pub(super) fn holder(&self) -> Option<Holder> {
        let Hold { name, barrier, start, .. } = self.hold.as_ref()?;
        let Identity { id, epoch } = self.identity().unwrap_or(start.identity);
        Some(Holder { name: name.clone(), producer_id: id, epoch, barrier: *barrier })
    }
}
