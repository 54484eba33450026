//! Producer ids: where one stands, and the pool of those that are not in use.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kwal_protocol::wire::Uuid;

/// A producer id with its epoch and next sequence number. It belongs to one partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ProducerState {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    /// The sequence number of the next batch's first record.
    pub(crate) sequence: i32,
    /// The last offset that was acknowledged to its partition client.
    pub(crate) acknowledged: Option<i64>,
}

impl ProducerState {
    /// Returns the state after an append whose outcome is unknown; `None` after the last epoch.
    ///
    /// Once a batch of the next epoch is on the log, a batch of this one can no longer be appended.
    pub(crate) fn next_epoch(self) -> Option<Self> {
        let epoch = self.epoch.checked_add(1)?;
        Some(Self { epoch, sequence: 0, ..self })
    }

    /// Returns the state after a batch of so many records. Sequence numbers wrap from 2147483647 to 0.
    pub(crate) fn advance(self, records: usize) -> Self {
        let sequence = (i64::from(self.sequence) + records as i64) & i64::from(i32::MAX);
        Self { sequence: sequence as i32, ..self }
    }
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

    pub(crate) fn release(&self, partition: PartitionKey, producer: ProducerState) {
        self.partitions().entry(partition).or_default().idle.push(producer);
    }

    /// Drops the idle ids of a partition.
    pub(crate) fn clear(&self, partition: &PartitionKey) {
        if let Some(ids) = self.partitions().get_mut(partition) {
            ids.idle.clear();
        }
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

    #[test]
    fn sequences_wrap_to_zero() {
        let at = |sequence| ProducerState { id: 1, epoch: 0, sequence, acknowledged: Some(7) };
        assert_eq!(at(5).advance(3), at(8));
        assert_eq!(at(i32::MAX).advance(1), at(0));
        assert_eq!(at(i32::MAX - 1).advance(3), at(1));
    }

    #[test]
    fn epochs_end() {
        let producer = ProducerState { id: 1, epoch: i16::MAX - 1, sequence: 9, acknowledged: Some(7) };
        let next = producer.next_epoch().unwrap();
        assert_eq!(next, ProducerState { id: 1, epoch: i16::MAX, sequence: 0, acknowledged: Some(7) });
        assert_eq!(next.next_epoch(), None);
    }
}
