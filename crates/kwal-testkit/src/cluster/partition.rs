//! Topics, and their partitions as the controller sees them.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use kwal_protocol::{error_code::ErrorCode, record::BatchHeader, wire::Uuid};

use super::{Cluster, replica::Replica};
use crate::{log::Log, topic_config::TopicConfig};

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
    pub(super) told: State,
    /// What replicas have cut off, and nobody was told of: broker and first offset.
    pub(super) cuts: Vec<(i32, i64)>,
    /// From where on what all in sync had is lost by an election, and nobody was told of.
    pub(super) lost: Option<i64>,
    /// What was told of that last, and when.
    pub(super) told_lost: Option<(i64, Instant)>,
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

/// A replica at a broker, as a request finds it.
pub(super) struct Found<'a> {
    pub(super) id: PartitionId,
    pub(super) config: &'a TopicConfig,
    /// As the broker knows it.
    pub(super) state: &'a State,
    pub(super) replica: &'a mut Replica,
}

/// How a request names a topic: by name, or by id in later versions.
#[derive(Clone, Copy, Debug)]
pub(super) enum TopicKey<'a> {
    Name(&'a str),
    Id(Uuid),
}

impl Cluster {
    pub(crate) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub(crate) fn topic_names(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }

    pub(crate) fn partition(&self, topic: &str, index: i32) -> Option<&Partition> {
        self.topics.get(topic)?.partitions.get(usize::try_from(index).ok()?)
    }

    /// Changes a partition from outside.
    pub(crate) fn change<T>(
        &mut self,
        topic: &str,
        index: i32,
        change: impl FnOnce(&mut Partition) -> T,
    ) -> Option<T> {
        let id = self.partition_id(topic, index)?;
        let changed = change(self.partition_by_id(id)?);
        self.replicate(id);
        self.changed = true;
        Some(changed)
    }

    pub(super) fn partition_by_id(&mut self, id: PartitionId) -> Option<&mut Partition> {
        let name = self.names.get(&id.topic)?;
        self.topics.get_mut(name)?.partitions.get_mut(usize::try_from(id.index).ok()?)
    }

    pub(crate) fn partition_id(&self, topic: &str, index: i32) -> Option<PartitionId> {
        self.partition(topic, index)?;
        Some(PartitionId { topic: self.topics.get(topic)?.id, index })
    }

    /// A partition that begins, led by the first of its replicas that is alive.
    pub(super) fn new_partition(&self, replicas: &[i32]) -> Partition {
        let isr: Vec<_> = replicas.iter().copied().filter(|replica| self.is_alive(*replica)).collect();
        let state = State {
            leader: isr.first().copied(),
            leader_epoch: FIRST_EPOCH,
            replicas: replicas.to_vec(),
            isr: if isr.is_empty() { replicas.to_vec() } else { isr },
        };
        let empty = |id: &i32| (*id, Replica { log: Log::new(FIRST_EPOCH), ..Replica::default() });
        Partition {
            replicas: replicas.iter().map(empty).collect(),
            told: state.clone(),
            state,
            cuts: Vec::new(),
            lost: None,
            told_lost: None,
        }
    }

    /// The replica of a partition at `node`, for a client that knows the leader epoch `epoch` (−1 for none).
    pub(super) fn found(
        &mut self,
        node: i32,
        topic: TopicKey<'_>,
        index: i32,
        epoch: i32,
    ) -> Result<Found<'_>, ErrorCode> {
        let (name, unknown) = match topic {
            TopicKey::Name(name) => (Some(name), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            TopicKey::Id(id) => (self.names.get(&id).map(String::as_str), ErrorCode::UNKNOWN_TOPIC_ID),
        };
        let name = name.ok_or(unknown)?;
        let outdated = self.nodes.get(&node).and_then(|node| node.outdated.as_ref());
        let topic = self.topics.get_mut(name).ok_or(unknown)?;
        let at = usize::try_from(index).map_err(|_| ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let partition = topic.partitions.get_mut(at).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let state = match outdated {
            Some(view) => view.state(name, topic.id, at).ok_or(unknown)?,
            None => &partition.state,
        };
        // Whoever has no replica looks no further: it knows no epoch to compare with.
        let replica = partition.replicas.get_mut(&node).ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)?;
        match epoch {
            -1 => {}
            older if older < state.leader_epoch => return Err(ErrorCode::FENCED_LEADER_EPOCH),
            newer if newer > state.leader_epoch => return Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
            _ => {}
        }
        Ok(Found { id: PartitionId { topic: topic.id, index }, config: &topic.config, state, replica })
    }

    /// The same at the leader, or what `node` takes for it.
    pub(super) fn led(
        &mut self,
        node: i32,
        topic: TopicKey<'_>,
        index: i32,
        epoch: i32,
    ) -> Result<Found<'_>, ErrorCode> {
        match self.found(node, topic, index, epoch) {
            Ok(found) if found.state.leader != Some(node) => Err(ErrorCode::NOT_LEADER_OR_FOLLOWER),
            found => found,
        }
    }

    /// Who leads a partition as far as `node` knows, −1 for nobody, and the leader epoch; for those that asked the wrong one (KIP-951).
    pub(super) fn known_leader(&self, node: i32, topic: TopicKey<'_>, index: i32) -> Option<(i32, i32)> {
        let name = match topic {
            TopicKey::Name(name) => name,
            TopicKey::Id(id) => self.names.get(&id)?,
        };
        let state = self.states(node, name)?.1.into_iter().nth(usize::try_from(index).ok()?)?;
        Some((state.leader.unwrap_or(-1), state.leader_epoch))
    }
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
    pub(crate) fn place(&mut self, batch: Bytes, header: &BatchHeader, gap: i64, now: i64) {
        let partition_leader_epoch = self.state.leader_epoch;
        let Some(replica) = self.authority_mut() else { return };
        let base_offset = replica.log.end() + gap;
        replica.append(batch, &BatchHeader { base_offset, partition_leader_epoch, ..*header }, now);
    }
}

/// The epoch of the first leader of a partition.
const FIRST_EPOCH: i32 = 0;
