//! Producer ids: where one stands, and the pool of those that are not in use.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kwal_protocol::wire::Uuid;

/// A producer id and its epoch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Identity {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

impl Identity {
    /// The header fields of a batch without a producer id.
    pub(crate) const NONE: Self = Self { id: -1, epoch: -1 };
    /// The last epoch that an owner of an id uses itself. The one after it is for others that fence the id.
    pub(crate) const LAST_EPOCH: i16 = i16::MAX - 1;
    /// The last epoch there is, on which others fence the id for good.
    pub(crate) const FENCE_EPOCH: i16 = i16::MAX;

    /// Returns the next epoch of the id; `None` after the last one.
    fn next(self) -> Option<Self> {
        (self.epoch < Self::LAST_EPOCH).then(|| Self { id: self.id, epoch: self.epoch + 1 })
    }
}

/// What raises the epoch of a producer id. An epoch that two raise is used by two producers, and brokers
/// take the batches of one for those of the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum EpochOwner {
    /// The client itself: the id has no transactional id.
    Client,
    /// The coordinator of the transactional id, by InitProducerId with the own id and epoch (KIP-360).
    Coordinator {
        /// How long after the last InitProducerId the next one is due. It has to be well above the time that
        /// one takes.
        renewal: Duration,
    },
}

impl EpochOwner {
    /// Returns the next epoch of an id if the client may raise it; `None` also after the last one.
    pub(crate) fn next(self, identity: Identity) -> Option<Identity> {
        match self {
            Self::Client => identity.next(),
            Self::Coordinator { .. } => None,
        }
    }
}

/// What makes a broker recognise a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    pub(crate) identity: Identity,
    /// The sequence number of the first record.
    pub(crate) sequence: i32,
}

impl Stamp {
    /// The header fields of a batch without a producer id.
    pub(crate) const NONE: Self = Self { identity: Identity::NONE, sequence: -1 };

    /// Returns the sequence number after a batch of so many records. 2147483647 is followed by 0.
    pub(crate) fn end(self, records: usize) -> i32 {
        ((i64::from(self.sequence) + records as i64) & i64::from(i32::MAX)) as i32
    }

    /// Whether an acknowledgement of a batch with this stamp settles one with the other stamp: that one is on
    /// the log, or a later epoch keeps it away.
    pub(crate) fn settles(self, other: Self) -> bool {
        let (own_epoch, other_epoch) = (self.identity.epoch, other.identity.epoch);
        // Sequence numbers wrap.
        let distance = (i64::from(self.sequence) - i64::from(other.sequence)) & i64::from(i32::MAX);
        self.identity.id == other.identity.id
            && (own_epoch > other_epoch || own_epoch == other_epoch && distance < 1 << 30)
    }
}

/// A batch that was acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Acknowledged {
    /// [`Stamp::NONE`] if the producer is not idempotent.
    pub(crate) stamp: Stamp,
    /// `None` if the broker did not report it.
    pub(crate) base_offset: Option<i64>,
    pub(crate) records: usize,
}

impl Acknowledged {
    /// Returns the offset of its last record.
    pub(crate) fn last_offset(&self) -> Option<i64> {
        Some(self.base_offset?.saturating_add_unsigned(self.records.saturating_sub(1) as u64))
    }
}

/// Where a producer id stands: what another producer of the partition needs to go on with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ProducerState {
    pub(crate) identity: Identity,
    pub(crate) next_sequence: i32,
    /// The batch that was acknowledged last, under whatever id.
    pub(crate) last_acknowledged: Option<Acknowledged>,
}

/// The producer ids of a client, by partition, and which of them are idle.
///
/// A partition that is opened again continues with an idle one, so that there are never more ids than there
/// were partition clients at the same time: brokers keep each for a day.
#[derive(Debug, Default)]
pub(crate) struct ProducerIdPool {
    partitions: Mutex<HashMap<PartitionKey, PartitionIds>>,
}

#[derive(Debug, Default)]
struct PartitionIds {
    idle: Vec<ProducerState>,
    /// All ids that brokers gave out. One that is given out again would make two producers one.
    known: HashSet<i64>,
    /// Those that were fenced. They may be in use, and are given up then.
    fenced: HashSet<i64>,
}

/// A partition of a topic. One that is created again under the same name has another id, and another log.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct PartitionKey {
    pub(crate) topic: Arc<str>,
    pub(crate) topic_id: Uuid,
    pub(crate) partition: i32,
}

impl ProducerIdPool {
    pub(crate) fn acquire(&self, partition: &PartitionKey) -> Option<ProducerState> {
        self.partitions().get_mut(partition)?.idle.pop()
    }

    /// Takes an id that is not in use any more, unless it was fenced.
    pub(crate) fn release(&self, partition: PartitionKey, producer: ProducerState) {
        let mut partitions = self.partitions();
        let ids = partitions.entry(partition).or_default();
        if !ids.fenced.contains(&producer.identity.id) {
            ids.idle.push(producer);
        }
    }

    /// Drops the idle ids of a partition.
    pub(crate) fn clear(&self, partition: &PartitionKey) {
        if let Some(ids) = self.partitions().get_mut(partition) {
            ids.idle.clear();
        }
    }

    /// Drops an id that is about to be fenced: nobody goes on with it, and it is not accepted as a new one.
    pub(crate) fn remove(&self, partition: PartitionKey, id: i64) {
        let mut partitions = self.partitions();
        let ids = partitions.entry(partition).or_default();
        ids.idle.retain(|producer| producer.identity.id != id);
        ids.known.insert(id);
        ids.fenced.insert(id);
    }

    /// Notes that a broker gave out an id.
    pub(crate) fn note(&self, partition: PartitionKey, id: i64) {
        self.partitions().entry(partition).or_default().known.insert(id);
    }

    /// Whether an id was given out before.
    pub(crate) fn is_known(&self, partition: &PartitionKey, id: i64) -> bool {
        self.partitions().get(partition).is_some_and(|ids| ids.known.contains(&id))
    }

    fn partitions(&self) -> MutexGuard<'_, HashMap<PartitionKey, PartitionIds>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(id: i64) -> ProducerState {
        ProducerState { identity: Identity { id, epoch: 0 }, next_sequence: 7, last_acknowledged: None }
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let end = |sequence, records| Stamp { identity: Identity { id: 1, epoch: 0 }, sequence }.end(records);
        assert_eq!((end(5, 3), end(i32::MAX, 1), end(i32::MAX - 1, 3)), (8, 0, 1));
    }

    #[test]
    fn the_last_epoch_is_left_to_fences() {
        let next = |epoch| EpochOwner::Client.next(Identity { id: 1, epoch }).map(|next| next.epoch);
        assert_eq!((next(0), next(i16::MAX - 2), next(i16::MAX - 1)), (Some(1), Some(i16::MAX - 1), None));
    }

    #[test]
    fn the_client_never_raises_an_epoch_of_the_coordinator() {
        let owner = EpochOwner::Coordinator { renewal: Duration::MAX };
        for epoch in [0, 1, i16::MAX - 1] {
            assert_eq!(owner.next(Identity { id: 1, epoch }), None);
        }
    }

    #[test]
    fn an_id_that_is_removed_does_not_come_back() {
        let pool = ProducerIdPool::default();
        let partition = |partition| PartitionKey { topic: "wal".into(), topic_id: Uuid::ZERO, partition };
        for id in [1, 2, 3] {
            pool.release(partition(0), producer(id));
        }
        pool.release(partition(1), producer(2));
        pool.remove(partition(0), 2);
        // One that is not there.
        pool.remove(partition(0), 4);
        assert!(pool.is_known(&partition(0), 2) && pool.is_known(&partition(0), 4));
        assert!(!pool.is_known(&partition(1), 2));
        let mut idle = Vec::new();
        while let Some(producer) = pool.acquire(&partition(0)) {
            idle.push(producer.identity.id);
        }
        assert_eq!(idle, [3, 1]);
        assert_eq!(pool.acquire(&partition(1)), Some(producer(2)));
    }
}
