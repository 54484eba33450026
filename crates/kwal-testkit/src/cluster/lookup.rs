//! Finds topics, partitions, replicas and leaders.

use kwal_protocol::{error_code::ErrorCode, wire::Uuid};

use super::{
    coordinator::is_internal,
    partition::{FIRST_EPOCH, Partition, PartitionId, State, Topic},
    replica::Replica,
    state::Cluster,
};
use crate::{log::Log, topic_config::TopicConfig};

/// A replica at a broker, as a request finds it.
pub(super) struct Found<'a> {
    pub(super) id: PartitionId,
    pub(super) config: &'a TopicConfig,
    /// As the broker knows it.
    pub(super) state: &'a State,
    pub(super) refused_ids: Option<(i64, ErrorCode)>,
    pub(super) replica: &'a mut Replica,
}

/// The name or id by which a request refers to a topic.
#[derive(Clone, Copy, Debug)]
pub(super) enum TopicKey<'a> {
    Name(&'a str),
    Id(Uuid),
}

impl Cluster {
    pub(crate) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// Returns the names of all topics but internal ones.
    pub(crate) fn topic_names(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str).filter(|name| !is_internal(name))
    }

    pub(crate) fn partition(&self, topic: &str, index: i32) -> Option<&Partition> {
        self.topics.get(topic)?.partitions.get(usize::try_from(index).ok()?)
    }

    /// Changes a partition directly, as a test does.
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

    /// Makes a partition refuse the producer ids that were handed out so far, and forget their state.
    pub(crate) fn refuse_producers(&mut self, topic: &str, index: i32, code: ErrorCode) -> Option<()> {
        let below = self.coordinators.next_producer_id;
        self.note(|| format!("{topic}-{index} refuses producer ids below {below}: {code:?}"));
        self.change(topic, index, |partition| {
            partition.refused_ids = Some((below, code));
            partition.replicas_mut().for_each(|replica| replica.known.producers.forget_all());
        })
    }

    pub(super) fn partition_by_id(&mut self, id: PartitionId) -> Option<&mut Partition> {
        let name = self.names.get(&id.topic)?;
        self.topics.get_mut(name)?.partitions.get_mut(usize::try_from(id.index).ok()?)
    }

    pub(crate) fn partition_id(&self, topic: &str, index: i32) -> Option<PartitionId> {
        self.partition(topic, index)?;
        Some(PartitionId { topic: self.topics.get(topic)?.id, index })
    }

    /// Creates a partition, led by the first of its replicas that is alive.
    pub(super) fn new_partition(&self, replicas: &[i32]) -> Partition {
        let isr: Vec<_> = replicas.iter().copied().filter(|replica| self.is_alive(*replica)).collect();
        let state = State {
            leader: isr.first().copied(),
            leader_epoch: FIRST_EPOCH,
            replicas: replicas.to_vec(),
            isr: if isr.is_empty() { replicas.to_vec() } else { isr },
        };
        let stable_by_batch = self.settings.dialect.is_stable_by_batch();
        let replica = || Replica { log: Log::new(FIRST_EPOCH), stable_by_batch, ..Replica::default() };
        let empty = |id: &i32| (*id, replica());
        Partition {
            replicas: replicas.iter().map(empty).collect(),
            recorded: state.clone(),
            state,
            committed: 0,
            refused_ids: None,
            cuts: Vec::new(),
            lost: None,
            recorded_loss: None,
        }
    }

    /// Returns the replica of a partition at `node`.
    ///
    /// `epoch` is the leader epoch that the client knows, −1 for none.
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
        // A broker without a replica has no epoch to compare with.
        let replica = partition.replicas.get_mut(&node).ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)?;
        match epoch {
            -1 => {}
            older if older < state.leader_epoch => return Err(ErrorCode::FENCED_LEADER_EPOCH),
            newer if newer > state.leader_epoch => return Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
            _ => {}
        }
        let refused_ids = partition.refused_ids;
        let id = PartitionId { topic: topic.id, index };
        Ok(Found { id, config: &topic.config, state, refused_ids, replica })
    }

    /// Returns the replica of the leader, or of the broker that believes to be it.
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

    pub(super) fn topic_name<'a>(&'a self, topic: TopicKey<'a>) -> Option<&'a str> {
        match topic {
            TopicKey::Name(name) => Some(name),
            TopicKey::Id(id) => self.names.get(&id).map(String::as_str),
        }
    }

    /// Returns the leader (−1: none) and leader epoch of a partition, as far as `node` knows (KIP-951).
    pub(super) fn known_leader(&self, node: i32, topic: TopicKey<'_>, index: i32) -> Option<(i32, i32)> {
        let state =
            self.states(node, self.topic_name(topic)?)?.1.into_iter().nth(usize::try_from(index).ok()?)?;
        Some((state.leader.unwrap_or(-1), state.leader_epoch))
    }
}
