//! A topic and its partitions, from Metadata.

use kwal_protocol::{messages::MetadataPartition, wire::Uuid};
use tracing::Span;

use super::ControllerClient;
use crate::{
    error::Error,
    request::{call_span, request},
    validate,
};

/// A topic, as a broker describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id (KIP-516); `None` if the broker is too old for topic ids.
    pub id: Option<Uuid>,
    /// Its partitions, in index order.
    pub partitions: Vec<PartitionDescription>,
}

/// A partition and its replicas, as a broker describes them.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PartitionDescription {
    /// Its index.
    pub index: i32,
    /// The id of the broker that leads it; `None` if it has no leader.
    pub leader: Option<i32>,
    /// The leader epoch; `None` if the broker did not report it.
    pub leader_epoch: Option<i32>,
    /// The ids of the brokers that have a replica, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those that are in sync.
    pub in_sync: Vec<i32>,
    /// Those that are offline.
    pub offline: Vec<i32>,
}

impl ControllerClient {
    /// Describes a topic: the leader of each partition, its epoch and its replicas.
    ///
    /// Any broker answers, as it knows the cluster; after a change it may describe the old state for a
    /// moment.
    ///
    /// ```no_run
    /// # async fn look(controller: kwal_client::ControllerClient) -> Result<(), kwal_client::error::Error> {
    /// for partition in controller.describe_topic("wal").await?.partitions {
    ///     println!("{}: {:?} leads {:?}", partition.index, partition.leader, partition.replicas);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn describe_topic(&self, name: impl Into<String>) -> DescribeTopic<'_> {
        DescribeTopic { controller: self, name: name.into(), deadline: None }
    }
}

request! {
    /// A description of a topic. Nothing happens until it is awaited.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`](crate::error::ErrorKind::UnknownTopic) after
    /// [`Deadlines::unknown_topic`](crate::Deadlines::unknown_topic);
    /// [`ErrorKind::DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded) if no broker answers;
    /// [`ErrorKind::Broker`](crate::error::ErrorKind::Broker) for what the broker rejects.
    ///
    /// # Cancellation safety
    /// Cancel safe.
    pub struct DescribeTopic<'a> -> Result<TopicDescription, Error> {
        controller: &'a ControllerClient,
        name: String,
    }
}

impl DescribeTopic<'_> {
    fn span(&self) -> Span {
        call_span!("describe_topic", &self.name)
    }

    async fn run(self) -> Result<TopicDescription, Error> {
        let Self { controller, name, deadline } = self;
        validate::topic_name(&name)?;
        let layout = controller.layout(&name, controller.deadline(deadline)).await?;
        let partitions = layout.partitions.into_iter().map(PartitionDescription::from_wire).collect();
        Ok(TopicDescription { name, id: layout.id, partitions })
    }
}

impl PartitionDescription {
    fn from_wire(partition: MetadataPartition) -> Self {
        let known = |number: i32| (number >= 0).then_some(number);
        Self {
            index: partition.partition_index,
            leader: known(partition.leader_id),
            leader_epoch: known(partition.leader_epoch),
            replicas: partition.replica_nodes,
            in_sync: partition.isr_nodes,
            offline: partition.offline_replicas,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_numbers_are_unknown() {
        let partition = |leader_id, leader_epoch| {
            PartitionDescription::from_wire(MetadataPartition {
                partition_index: 3,
                leader_id,
                leader_epoch,
                replica_nodes: vec![2, 1, 3],
                isr_nodes: vec![1, 2],
                offline_replicas: vec![3],
                ..Default::default()
            })
        };
        let expected = PartitionDescription {
            index: 3,
            leader: Some(0),
            leader_epoch: Some(0),
            replicas: vec![2, 1, 3],
            in_sync: vec![1, 2],
            offline: vec![3],
        };
        assert_eq!(partition(0, 0), expected);
        assert_eq!(partition(-1, -1), PartitionDescription { leader: None, leader_epoch: None, ..expected });
    }
}
