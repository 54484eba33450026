//! What is known of the cluster: a snapshot that is looked things up in, and replaced whole.

use std::{collections::BTreeMap, sync::Arc};

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{MetadataPartition, MetadataResponse, MetadataTopicResponse},
    wire::Uuid,
};
use kwal_transport::HostPort;

/// The cluster as the brokers last told it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metadata {
    /// How often there was news.
    news: u64,
    pub(crate) cluster_id: Option<String>,
    pub(crate) brokers: BTreeMap<i32, HostPort>,
    pub(crate) controller: Option<i32>,
    pub(crate) topics: BTreeMap<String, Arc<TopicMetadata>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TopicMetadata {
    /// The number of the news that told it; 0 if a broker has said since then that it is not so.
    as_of: u64,
    /// Zero where the broker is too old to tell.
    pub(crate) id: Uuid,
    pub(crate) partitions: BTreeMap<i32, PartitionMetadata>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionMetadata {
    /// The number of the news that told it.
    as_of: u64,
    pub(crate) leader: Option<i32>,
    /// −1 where the broker is too old to tell.
    pub(crate) leader_epoch: i32,
    pub(crate) error: ErrorCode,
    /// Not only the leader itself says so, unless there is nobody else.
    pub(crate) confirmed: bool,
}

/// What a broker that does not lead a partition says of the one that does (KIP-951).
#[derive(Clone, Debug)]
pub(crate) struct LeaderHint {
    /// The id of the topic that it is about; zero if it was called by its name.
    pub(crate) topic_id: Uuid,
    pub(crate) leader: i32,
    pub(crate) leader_epoch: i32,
    /// Where the leader listens; `None` if the broker did not say.
    pub(crate) address: Option<HostPort>,
}

impl Metadata {
    /// Takes what a response tells, and `by` whom, if that is known: the brokers are replaced, topics that it does not speak of stay.
    ///
    /// Leader epochs never go backwards for the same topic id (KIP-320): a broker that is behind tells of an old leader. So
    /// what is known of a topic also stays when a broker does not know the topic, but does not count any more.
    pub(crate) fn learn(&mut self, response: &MetadataResponse, by: Option<i32>) {
        self.news += 1;
        let alone = response.brokers.len() <= 1;
        let confirms = |leader: i32| alone || by.is_some_and(|by| by != leader);
        for told in &response.topics {
            let Some(name) = &told.name else { continue };
            let known = self.topics.get(name);
            let next = match known {
                _ if !told.error_code.is_error() => {
                    TopicMetadata::from_told(told, known.map(|known| &**known), self.news, confirms)
                }
                Some(known) => known.outdated(),
                None => continue,
            };
            self.topics.insert(name.clone(), Arc::new(next));
        }
        let brokers = response.brokers.iter();
        self.brokers =
            brokers.filter_map(|told| Some((told.node_id, address(&told.host, told.port)?))).collect();
        self.cluster_id = response.cluster_id.clone().or_else(|| self.cluster_id.take());
        self.controller = (response.controller_id >= 0).then_some(response.controller_id);
    }

    /// Takes a hint, if its epoch is newer than what is known and the leader can be reached.
    pub(crate) fn take_hint(&mut self, topic: &str, partition: i32, hint: LeaderHint) {
        let LeaderHint { topic_id, leader, leader_epoch, address } = hint;
        let Some(known) = self.topics.get(topic).filter(|known| known.id == topic_id || topic_id.is_zero())
        else {
            return;
        };
        let is_news = known.partitions.get(&partition).is_some_and(|known| leader_epoch > known.leader_epoch);
        if leader < 0 || !is_news || address.is_none() && !self.brokers.contains_key(&leader) {
            return;
        }
        self.news += 1;
        self.brokers.extend(address.map(|address| (leader, address)));
        if let Some(known) = self.topics.get_mut(topic) {
            let told = PartitionMetadata {
                as_of: self.news,
                leader: Some(leader),
                leader_epoch,
                error: ErrorCode::NONE,
                confirmed: true,
            };
            Arc::make_mut(known).partitions.insert(partition, told);
        }
    }
}

/// A broker's address; `None` if it is none.
pub(crate) fn address(host: &str, port: i32) -> Option<HostPort> {
    Some(HostPort::new(host, u16::try_from(port).ok()?))
}

impl TopicMetadata {
    /// The number of the news that told of the partition; that which told of the topic, if it has no such partition.
    pub(crate) fn as_of(&self, partition: Option<i32>) -> u64 {
        let known = partition.and_then(|partition| self.partitions.get(&partition));
        known.map_or(self.as_of, |known| known.as_of)
    }

    fn outdated(&self) -> Self {
        let mut outdated = Self { as_of: 0, ..self.clone() };
        for partition in outdated.partitions.values_mut() {
            partition.as_of = 0;
        }
        outdated
    }

    fn from_told(
        told: &MetadataTopicResponse,
        known: Option<&Self>,
        as_of: u64,
        confirms: impl Fn(i32) -> bool,
    ) -> Self {
        let known = known.filter(|known| known.id == told.topic_id);
        let partition = |told: &MetadataPartition| {
            let index = told.partition_index;
            let partition = PartitionMetadata {
                as_of,
                leader: (told.leader_id >= 0).then_some(told.leader_id),
                leader_epoch: told.leader_epoch,
                error: told.error_code,
                confirmed: confirms(told.leader_id),
            };
            match known.and_then(|known| known.partitions.get(&index)) {
                // A broker that tells no epochs tells the leader all the same.
                Some(newer) if newer.leader_epoch > told.leader_epoch && told.leader_epoch >= 0 => {
                    (index, PartitionMetadata { as_of, ..*newer })
                }
                _ => (index, partition),
            }
        };
        Self { as_of, id: told.topic_id, partitions: told.partitions.iter().map(partition).collect() }
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::messages::MetadataBroker;

    use super::*;

    fn told(id: u8, leader: i32, epoch: i32) -> MetadataResponse {
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
            metadata.learn(response, None);
        }
        metadata
    }

    #[test]
    fn leader_epochs_do_not_go_backwards() {
        assert_eq!(leader(&after(&[told(1, 5, 7), told(1, 4, 6)])), Some(5));
        assert_eq!(leader(&after(&[told(1, 5, 7), told(1, 4, 8)])), Some(4));
        // Nor by way of a broker that does not know the topic at all, whose word counts all the same.
        let mut unknown = told(0, 0, 0);
        unknown.topics[0].error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        unknown.topics[0].partitions.clear();
        let mut metadata = after(&[told(1, 5, 7), unknown]);
        assert_eq!(metadata.topics["wal"].as_of(Some(0)), 0);
        metadata.learn(&told(1, 4, 6), None);
        assert_eq!((leader(&metadata), metadata.topics["wal"].as_of(Some(0))), (Some(5), 3));
        // One that tells none at all is taken at its word.
        assert_eq!(leader(&after(&[told(1, 5, 7), told(1, 4, -1)])), Some(4));
    }

    #[test]
    fn a_topic_made_again_begins_anew() {
        assert_eq!(leader(&after(&[told(1, 5, 7), told(2, 4, 0)])), Some(4));
    }

    #[test]
    fn topics_not_spoken_of_stay_and_brokers_do_not() {
        let next = after(&[told(1, 5, 7), MetadataResponse::default()]);
        assert!(leader(&next).is_some());
        assert!(next.brokers.is_empty());
    }

    #[test]
    fn hints_count_if_they_are_news_of_the_same_topic_and_the_leader_can_be_found() {
        let there = Some(HostPort::new("b", 9092));
        let hint = |id: u8, leader, epoch, address: &Option<HostPort>| LeaderHint {
            topic_id: Uuid([id; 16]),
            leader,
            leader_epoch: epoch,
            address: address.clone(),
        };
        for (hint, leads, as_of) in [
            (hint(1, 4, 8, &there), 4, 2),
            // Called by name.
            (hint(0, 4, 8, &there), 4, 2),
            // Its address is known already.
            (hint(1, 1, 8, &None), 1, 2),
            (hint(1, 4, 7, &there), 5, 1),
            (hint(1, 4, 6, &there), 5, 1),
            (hint(1, -1, 8, &there), 5, 1),
            (hint(2, 4, 8, &there), 5, 1),
            (hint(1, 4, 8, &None), 5, 1),
        ] {
            let mut metadata = after(&[told(1, 5, 7)]);
            let text = format!("{hint:?}");
            metadata.take_hint("wal", 0, hint);
            let topic = &metadata.topics["wal"];
            assert_eq!((leader(&metadata), topic.as_of(Some(0))), (Some(leads), as_of), "{text}");
            assert_eq!(topic.as_of(None), 1, "only this partition's leader is news: {text}");
            assert_eq!(metadata.brokers.contains_key(&4), leads == 4, "{text}");
        }
    }
}
