//! Topics, and their partitions as the controller sees them.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use kwal_protocol::{error_code::ErrorCode, record::BatchHeader, wire::Uuid};

use super::replica::Replica;
use crate::topic_config::TopicConfig;

/// A topic and its partitions.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<Partition>,
}

/// A partition with all its replicas.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) state: State,
    pub(super) replicas: BTreeMap<i32, Replica>,
    /// The highest high watermark of any leader, as far as the records below it are still on the log.
    ///
    /// The high watermark of a new leader can be lower at first.
    pub(super) committed: i64,
    /// The producer ids below the first one are refused with this code.
    pub(super) refused_ids: Option<(i64, ErrorCode)>,
    /// The state that was recorded last.
    pub(super) recorded: State,
    /// Truncations that are not recorded yet: broker and first offset.
    pub(super) cuts: Vec<(i32, i64)>,
    /// The first offset of records lost by an election, if that is not recorded yet.
    pub(super) lost: Option<i64>,
    /// The loss that was recorded last, and when.
    pub(super) recorded_loss: Option<(i64, Instant)>,
}

impl Topic {
    pub(super) fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let topic = self.id;
        (0..self.partitions.len()).map(move |index| PartitionId { topic, index: index as i32 })
    }
}

/// What the controller has decided about a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct State {
    /// `None` if no replica can lead.
    pub(crate) leader: Option<i32>,
    /// Incremented by every election.
    pub(crate) leader_epoch: i32,
    /// The preferred leader first.
    pub(crate) replicas: Vec<i32>,
    /// The replicas in sync, in the order of all.
    pub(crate) isr: Vec<i32>,
}

/// A partition of one topic id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PartitionId {
    pub(super) topic: Uuid,
    pub(super) index: i32,
}

impl Partition {
    /// Returns the replica that counts: the leader's, or that of the replica that would lead.
    pub(crate) fn effective(&self) -> Option<&Replica> {
        let id = self.state.leader.or_else(|| self.state.isr.first().copied())?;
        self.replicas.get(&id)
    }

    pub(crate) fn effective_mut(&mut self) -> Option<&mut Replica> {
        let id = self.state.leader.or_else(|| self.state.isr.first().copied())?;
        self.replicas.get_mut(&id)
    }

    pub(crate) fn replica(&self, broker: i32) -> Option<&Replica> {
        self.replicas.get(&broker)
    }

    pub(crate) fn replicas_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.replicas.values_mut()
    }

    /// Appends a batch without any check, `gap` offsets after the end.
    pub(crate) fn append_raw(&mut self, batch: Bytes, header: &BatchHeader, gap: i64, now: i64) {
        let partition_leader_epoch = self.state.leader_epoch;
        let Some(replica) = self.effective_mut() else { return };
        let base_offset = replica.log.end() + gap;
        replica.append(batch, &BatchHeader { base_offset, partition_leader_epoch, ..*header }, now);
    }
}

/// The epoch of a partition's first leader.
pub(super) const FIRST_EPOCH: i32 = 0;
