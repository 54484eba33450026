//! Topics, and their partitions as the controller sees them.

use bytes::Bytes;
use kwal_protocol::{error_code::ErrorCode, record::BatchHeader, wire::Uuid};

use super::Cluster;
use crate::{log::Log, producers::Producers, topic_config::TopicConfig};

/// A topic and its partitions.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<Partition>,
}

/// A partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) state: State,
    pub(crate) log: Log,
    pub(crate) producers: Producers,
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

    /// To be changed from outside: waiting requests will look again.
    pub(crate) fn partition_mut(&mut self, topic: &str, index: i32) -> Option<&mut Partition> {
        self.changed = true;
        self.topics.get_mut(topic)?.partitions.get_mut(usize::try_from(index).ok()?)
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
        Partition { state, log: Log::new(FIRST_EPOCH), producers: Producers::default() }
    }

    /// A partition that `node` leads, for a client that knows the leader epoch `epoch` (−1 for none).
    pub(super) fn led(
        &mut self,
        node: i32,
        topic: TopicKey<'_>,
        index: i32,
        epoch: i32,
    ) -> Result<(&TopicConfig, &mut Partition), ErrorCode> {
        let (name, unknown) = match topic {
            TopicKey::Name(name) => (Some(name), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            TopicKey::Id(id) => (self.names.get(&id).map(String::as_str), ErrorCode::UNKNOWN_TOPIC_ID),
        };
        let topic = name.and_then(|name| self.topics.get_mut(name)).ok_or(unknown)?;
        let partition = usize::try_from(index).ok().and_then(|index| topic.partitions.get_mut(index));
        let partition = partition.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        // Whoever has no replica looks no further (Kafka: only a replica knows epochs to compare with).
        let state = &partition.state;
        if !state.replicas.contains(&node) {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        match epoch {
            -1 => {}
            older if older < state.leader_epoch => return Err(ErrorCode::FENCED_LEADER_EPOCH),
            newer if newer > state.leader_epoch => return Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
            _ => {}
        }
        if state.leader != Some(node) {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        Ok((&topic.config, partition))
    }

    /// Who leads a partition as far as `node` knows, and the leader epoch; for those that asked the wrong one (KIP-951).
    pub(super) fn known_leader(&self, node: i32, topic: TopicKey<'_>, index: i32) -> Option<(i32, i32)> {
        let name = match topic {
            TopicKey::Name(name) => name,
            TopicKey::Id(id) => self.names.get(&id)?,
        };
        let state = self.states(node, name)?.1.into_iter().nth(usize::try_from(index).ok()?)?;
        Some((state.leader?, state.leader_epoch))
    }
}

impl Partition {
    /// Appends a batch as it is, `gap` offsets behind the end, without any check.
    pub(crate) fn place(&mut self, batch: Bytes, header: &BatchHeader, gap: i64) {
        let base_offset = self.log.end() + gap;
        let partition_leader_epoch = self.state.leader_epoch;
        self.log.append(batch, &BatchHeader { base_offset, partition_leader_epoch, ..*header });
    }
}

/// The epoch of the first leader of a partition.
const FIRST_EPOCH: i32 = 0;
