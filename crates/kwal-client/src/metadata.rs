//! What is known of the cluster: a snapshot that is looked things up in, and replaced whole.

use std::{collections::BTreeMap, sync::Arc};

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{MetadataResponse, MetadataTopicResponse},
    wire::Uuid,
};
use kwal_transport::HostPort;

/// The cluster as the brokers last told it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metadata {
    pub(crate) cluster_id: Option<String>,
    pub(crate) brokers: BTreeMap<i32, HostPort>,
    pub(crate) controller: Option<i32>,
    pub(crate) topics: BTreeMap<String, Arc<TopicMetadata>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TopicMetadata {
    /// The number of the answer that told it.
    pub(crate) as_of: u64,
    /// Zero where the broker is too old to tell.
    pub(crate) id: Uuid,
    pub(crate) error: ErrorCode,
    pub(crate) partitions: BTreeMap<i32, PartitionMetadata>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionMetadata {
    pub(crate) leader: Option<i32>,
    /// −1 where the broker is too old to tell.
    pub(crate) leader_epoch: i32,
    pub(crate) error: ErrorCode,
}

impl Metadata {
    /// This snapshot with what a response tells: the brokers are replaced, topics that it does not speak of stay.
    ///
    /// Leader epochs never go backwards for the same topic id (KIP-320): a broker that is behind tells of an old leader.
    pub(crate) fn with(&self, response: &MetadataResponse, as_of: u64) -> Self {
        let mut topics = self.topics.clone();
        for told in &response.topics {
            if let Some(name) = &told.name {
                let known = topics.get(name).map(|known| &**known);
                topics.insert(name.clone(), Arc::new(TopicMetadata::from_told(told, known, as_of)));
            }
        }
        let address = |port| u16::try_from(port).ok();
        Self {
            cluster_id: response.cluster_id.clone(),
            brokers: response
                .brokers
                .iter()
                .filter_map(|told| {
                    Some((told.node_id, HostPort::new(told.host.clone(), address(told.port)?)))
                })
                .collect(),
            controller: (response.controller_id >= 0).then_some(response.controller_id),
            topics,
        }
    }
}

impl TopicMetadata {
    fn from_told(told: &MetadataTopicResponse, known: Option<&Self>, as_of: u64) -> Self {
        let mut partitions: BTreeMap<_, _> = told
            .partitions
            .iter()
            .map(|told| {
                let partition = PartitionMetadata {
                    leader: (told.leader_id >= 0).then_some(told.leader_id),
                    leader_epoch: told.leader_epoch,
                    error: told.error_code,
                };
                (told.partition_index, partition)
            })
            .collect();
        if let Some(known) = known.filter(|known| known.id == told.topic_id) {
            for (index, partition) in &mut partitions {
                match known.partitions.get(index) {
                    Some(newer) if newer.leader_epoch > partition.leader_epoch => *partition = *newer,
                    _ => {}
                }
            }
        }
        Self { as_of, id: told.topic_id, error: told.error_code, partitions }
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::messages::{MetadataBroker, MetadataPartition};

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

    #[test]
    fn leader_epochs_do_not_go_backwards() {
        let metadata = Metadata::default().with(&told(1, 5, 7), 1);
        let behind = metadata.with(&told(1, 4, 6), 2);
        assert_eq!(leader(&behind), Some(5));
        let ahead = metadata.with(&told(1, 4, 8), 3);
        assert_eq!(leader(&ahead), Some(4));
    }

    #[test]
    fn a_topic_made_again_begins_anew() {
        let metadata = Metadata::default().with(&told(1, 5, 7), 1);
        let again = metadata.with(&told(2, 4, 0), 2);
        assert_eq!(leader(&again), Some(4));
    }

    #[test]
    fn topics_not_spoken_of_stay_and_brokers_do_not() {
        let metadata = Metadata::default().with(&told(1, 5, 7), 1);
        let next = metadata.with(&MetadataResponse::default(), 2);
        assert!(leader(&next).is_some());
        assert!(next.brokers.is_empty());
    }
}
