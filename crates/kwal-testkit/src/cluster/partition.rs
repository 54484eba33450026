//! Topics, and their partitions as the controller sees them.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use kwal_protocol::{record::BatchHeader, wire::Uuid};

use super::replica::Replica;
use crate::topic_config::TopicConfig;

/// A topic and its partitions.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<Partition>,
}

/// A partition, with all copies of it.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) state: State,
    pub(super) replicas: BTreeMap<i32, Replica>,
    /// The state that was told of last.
    pub(super) recorded: State,
    /// What replicas have cut off, and nobody was told of: broker and first offset.
    pub(super) cuts: Vec<(i32, i64)>,
    /// From where on what all in sync had is lost by an election, and nobody was told of.
    pub(super) lost: Option<i64>,
    /// What was told of that last, and when.
    pub(super) recorded_loss: Option<(i64, Instant)>,
}

impl Topic {
    pub(super) fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let topic = self.id;
        (0..self.partitions.len()).map(move |index| PartitionId { topic, index: index as i32 })
    }
}

/// What the controller has decided summary a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct State {
    /// `None` if no replica can lead.
    pub(crate) leader: Option<i32>,
    /// Rises with every election.
    pub(crate) leader_epoch: i32,
    /// The preferred leader first.
    pub(crate) replicas: Vec<i32>,
    /// The replicas in sync, in the order of all.
    pub(crate) isr: Vec<i32>,
}

/// Which partition, of which life of its topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PartitionId {
    pub(super) topic: Uuid,
    pub(super) index: i32,
}

impl Partition {
    /// The copy that counts: the leader's, or where there is none that of the replica that would lead.
    pub(crate) fn authority(&self) -> Option<&Replica> {
        let id = self.state.leader.or_else(|| self.state.isr.first().copied())?;
        self.replicas.get(&id)
    }

    pub(crate) fn authority_mut(&mut self) -> Option<&mut Replica> {
        let id = self.state.leader.or_else(|| self.state.isr.first().copied())?;
        self.replicas.get_mut(&id)
    }

    pub(crate) fn replica(&self, broker: i32) -> Option<&Replica> {
        self.replicas.get(&broker)
    }

    pub(crate) fn replicas_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.replicas.values_mut()
    }

    /// Appends a batch as it is, `gap` offsets behind the end, without any check.
    pub(crate) fn append_raw(&mut self, batch: Bytes, header: &BatchHeader, gap: i64, now: i64) {
        let partition_leader_epoch = self.state.leader_epoch;
        let Some(replica) = self.authority_mut() else { return };
        let base_offset = replica.log.end() + gap;
        replica.append(batch, &BatchHeader { base_offset, partition_leader_epoch, ..*header }, now);
    }
}

/// The epoch of the first leader of a partition.
pub(super) const FIRST_EPOCH: i32 = 0;
