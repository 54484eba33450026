//! Cluster metadata: an immutable snapshot, replaced as a whole. Pure: no clock, no IO.

use std::{collections::BTreeMap, sync::Arc};

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{MetadataPartition, MetadataResponse, MetadataTopicResponse},
    wire::Uuid,
};
use kwal_transport::HostPort;

/// The cluster as brokers last described it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metadata {
    /// How often it was updated.
    generation: u64,
    pub(crate) cluster_id: Option<String>,
    pub(crate) brokers: BTreeMap<i32, HostPort>,
    pub(crate) controller: Option<i32>,
    pub(crate) topics: BTreeMap<String, Arc<TopicMetadata>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TopicMetadata {
    /// The update that it comes from; 0 if a broker contradicted it since.
    generation: u64,
    /// Zero where the broker is too old for topic ids.
    pub(crate) id: Uuid,
    pub(crate) partitions: BTreeMap<i32, PartitionMetadata>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionMetadata {
    /// The update that it comes from.
    generation: u64,
    pub(crate) leader: Option<i32>,
    /// −1 where the broker is too old for leader epochs.
    pub(crate) leader_epoch: i32,
    pub(crate) error: ErrorCode,
    /// Whether a broker other than the leader named it, unless there is no other.
    pub(crate) confirmed: bool,
}

/// What a broker that does not lead a partition reports of the one that does (KIP-951).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LeaderUpdate {
    /// The topic id; zero if the request named the topic.
    pub(crate) topic_id: Uuid,
    pub(crate) leader: i32,
    pub(crate) leader_epoch: i32,
    /// The address of the leader; `None` if the broker did not report it.
    pub(crate) address: Option<HostPort>,
}

impl Metadata {
    /// Applies a response: the brokers are replaced, topics that it does not mention stay. `by` is the broker
    /// that sent it, if its id is known.
    ///
    /// Leader epochs never go back for the same topic id (KIP-320): a broker that lags names an old leader.
    /// For the same reason a topic that a broker does not know stays, but is marked as outdated.
    pub(crate) fn update(&mut self, response: &MetadataResponse, by: Option<i32>) {
        self.generation += 1;
        let alone = response.brokers.len() <= 1;
        let confirms = |leader: i32| alone || by.is_some_and(|by| by != leader);
        for topic in &response.topics {
            let Some(name) = &topic.name else { continue };
            let known = self.topics.get(name);
            let next = match known {
                _ if !topic.error_code.is_error() => {
                    TopicMetadata::new(topic, known.map(|known| &**known), self.generation, confirms)
                }
                Some(known) => known.outdated(),
                None => continue,
            };
            self.topics.insert(name.clone(), Arc::new(next));
        }
        let brokers = response.brokers.iter();
        self.brokers = brokers
            .filter_map(|broker| Some((broker.node_id, address(&broker.host, broker.port)?)))
            .collect();
        self.cluster_id = response.cluster_id.clone().or_else(|| self.cluster_id.take());
        self.controller = (response.controller_id >= 0).then_some(response.controller_id);
    }

    /// Applies a leader update if its epoch is newer than the known one and the leader's address is known.
    pub(crate) fn apply_leader_update(&mut self, topic: &str, partition: i32, update: LeaderUpdate) {
        let LeaderUpdate { topic_id, leader, leader_epoch, address } = update;
        let Some(known) = self.topics.get(topic).filter(|known| known.id == topic_id || topic_id.is_zero())
        else {
            return;
        };
        let is_newer =
            known.partitions.get(&partition).is_some_and(|known| leader_epoch > known.leader_epoch);
        if leader < 0 || !is_newer || address.is_none() && !self.brokers.contains_key(&leader) {
            return;
        }
        self.generation += 1;
        self.brokers.extend(address.map(|address| (leader, address)));
        if let Some(known) = self.topics.get_mut(topic) {
            let updated = PartitionMetadata {
                generation: self.generation,
                leader: Some(leader),
                leader_epoch,
                error: ErrorCode::NONE,
                confirmed: true,
            };
            Arc::make_mut(known).partitions.insert(partition, updated);
        }
    }
}

/// Returns a broker's address; `None` if the port is not valid.
pub(crate) fn address(host: &str, port: i32) -> Option<HostPort> {
    Some(HostPort::new(host, u16::try_from(port).ok()?))
}

impl TopicMetadata {
    /// Returns the update that a partition comes from; that of the topic if it has no such partition.
    pub(crate) fn generation(&self, partition: Option<i32>) -> u64 {
        let known = partition.and_then(|partition| self.partitions.get(&partition));
        known.map_or(self.generation, |known| known.generation)
    }

    fn outdated(&self) -> Self {
        let mut outdated = Self { generation: 0, ..self.clone() };
        for partition in outdated.partitions.values_mut() {
            partition.generation = 0;
        }
        outdated
    }

    fn new(
        topic: &MetadataTopicResponse,
        known: Option<&Self>,
        generation: u64,
        confirms: impl Fn(i32) -> bool,
    ) -> Self {
        let known = known.filter(|known| known.id == topic.topic_id);
        let partition = |partition: &MetadataPartition| {
            let index = partition.partition_index;
            let described = PartitionMetadata {
                generation,
                leader: (partition.leader_id >= 0).then_some(partition.leader_id),
                leader_epoch: partition.leader_epoch,
                error: partition.error_code,
                confirmed: confirms(partition.leader_id),
            };
            match known.and_then(|known| known.partitions.get(&index)) {
                // A broker without leader epochs is believed.
                Some(newer) if newer.leader_epoch > partition.leader_epoch && partition.leader_epoch >= 0 => {
                    (index, PartitionMetadata { generation, ..*newer })
                }
                _ => (index, described),
            }
        };
        Self { generation, id: topic.topic_id, partitions: topic.partitions.iter().map(partition).collect() }
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::messages::MetadataBroker;

    use super::*;

    fn response(id: u8, leader: i32, epoch: i32) -> MetadataResponse {
        MetadataResponse {
            brokers: vec![MetadataBroker { node_id: 1, host: "a".to_owned(), port: 9092, rack: None }],
            topics: vec![MetadataTopicResponse {
                name: Some("wal".to_owned()),
                topic_id: Uuid([id; 16]),
                partitions: vec![MetadataPartition {
                    leader_id: leader,
                    leader_epoch: epoch,
                    ..MetadataPartition::default()
                }],
                ..MetadataTopicResponse::default()
            }],
            ..MetadataResponse::default()
        }
    }

    fn leader(metadata: &Metadata) -> Option<i32> {
        metadata.topics["wal"].partitions[&0].leader
    }

    fn after(responses: &[MetadataResponse]) -> Metadata {
        let mut metadata = Metadata::default();
        for response in responses {
            metadata.update(response, None);
        }
        metadata
    }

    #[test]
    fn leader_epochs_do_not_go_backwards() {
        assert_eq!(leader(&after(&[response(1, 5, 7), response(1, 4, 6)])), Some(5));
        assert_eq!(leader(&after(&[response(1, 5, 7), response(1, 4, 8)])), Some(4));
        // Nor after a broker that does not know the topic at all, which still marks it as outdated.
        let mut unknown = response(0, 0, 0);
        unknown.topics[0].error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        unknown.topics[0].partitions.clear();
        let mut metadata = after(&[response(1, 5, 7), unknown]);
        assert_eq!(metadata.topics["wal"].generation(Some(0)), 0);
        metadata.update(&response(1, 4, 6), None);
        assert_eq!((leader(&metadata), metadata.topics["wal"].generation(Some(0))), (Some(5), 3));
        // A broker without leader epochs is believed.
        assert_eq!(leader(&after(&[response(1, 5, 7), response(1, 4, -1)])), Some(4));
    }

    #[test]
    fn a_leader_is_confirmed_by_another_broker_unless_there_is_none() {
        let broker = |node_id| MetadataBroker { node_id, host: "a".to_owned(), port: 9092, rack: None };
        for (brokers, by, is_confirmed) in [
            (vec![1, 5], Some(1), true),
            (vec![1, 5], Some(5), false),
            // A bootstrap address may be the leader.
            (vec![1, 5], None, false),
            (vec![5], Some(5), true),
            (vec![5], None, true),
        ] {
            let mut response = response(1, 5, 7);
            response.brokers = brokers.iter().copied().map(broker).collect();
            let mut metadata = Metadata::default();
            metadata.update(&response, by);
            let partition = metadata.topics["wal"].partitions[&0];
            assert_eq!(partition.confirmed, is_confirmed, "{brokers:?} by {by:?}");
        }
    }

    #[test]
    fn what_a_broker_does_not_report_is_not_known() {
        let mut unknown = response(1, -1, -1);
        unknown.brokers[0].port = 70_000;
        unknown.topics.push(MetadataTopicResponse { name: None, ..Default::default() });
        let mut metadata = after(&[unknown]);
        assert_eq!((leader(&metadata), metadata.controller), (None, None));
        assert!(metadata.brokers.is_empty() && metadata.topics.len() == 1);
        // The cluster id stays, the controller may be gone.
        let named = MetadataResponse {
            cluster_id: Some("cluster".to_owned()),
            controller_id: 0,
            ..Default::default()
        };
        metadata.update(&named, None);
        assert_eq!((metadata.cluster_id.as_deref(), metadata.controller), (Some("cluster"), Some(0)));
        metadata.update(&MetadataResponse::default(), None);
        assert_eq!((metadata.cluster_id.as_deref(), metadata.controller), (Some("cluster"), None));
    }

    #[test]
    fn a_recreated_topic_starts_from_scratch() {
        assert_eq!(leader(&after(&[response(1, 5, 7), response(2, 4, 0)])), Some(4));
    }

    #[test]
    fn topics_not_mentioned_stay_and_brokers_do_not() {
        let next = after(&[response(1, 5, 7), MetadataResponse::default()]);
        assert!(leader(&next).is_some());
        assert!(next.brokers.is_empty());
    }

    #[test]
    fn leader_updates_apply_if_newer_for_the_same_topic_and_the_address_is_known() {
        let there = Some(HostPort::new("b", 9092));
        let update = |id: u8, leader, epoch, address: &Option<HostPort>| LeaderUpdate {
            topic_id: Uuid([id; 16]),
            leader,
            leader_epoch: epoch,
            address: address.clone(),
        };
        for (update, leads, generation) in [
            (update(1, 4, 8, &there), 4, 2),
            // The request named the topic.
            (update(0, 4, 8, &there), 4, 2),
            // Its address is known already.
            (update(1, 1, 8, &None), 1, 2),
            (update(1, 4, 7, &there), 5, 1),
            (update(1, 4, 6, &there), 5, 1),
            (update(1, -1, 8, &there), 5, 1),
            (update(2, 4, 8, &there), 5, 1),
            (update(1, 4, 8, &None), 5, 1),
        ] {
            let mut metadata = after(&[response(1, 5, 7)]);
            let text = format!("{update:?}");
            metadata.apply_leader_update("wal", 0, update);
            let topic = &metadata.topics["wal"];
            assert_eq!((leader(&metadata), topic.generation(Some(0))), (Some(leads), generation), "{text}");
            assert_eq!(topic.generation(None), 1, "only this partition is updated: {text}");
            assert_eq!(metadata.brokers.contains_key(&4), leads == 4, "{text}");
        }
    }
}
