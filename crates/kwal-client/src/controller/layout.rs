//! Metadata: the partitions of a topic and their replicas.

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{MetadataPartition, MetadataRequest, MetadataResponse, MetadataTopic},
    wire::Uuid,
};

use super::ControllerClient;
use crate::{
    error::Error,
    routing::{Deadline, Operation, Rejection, Route, Target},
};

/// The partitions of a topic and their replicas.
#[derive(Debug)]
pub(super) struct TopicLayout {
    pub(super) id: Option<Uuid>,
    /// In index order.
    pub(super) partitions: Vec<MetadataPartition>,
}

impl TopicLayout {
    /// Returns the lowest and the highest replication factor of its partitions.
    pub(super) fn replication_factors(&self) -> (i16, i16) {
        let factors = self.partitions.iter().map(|partition| partition.replica_nodes.len() as i16);
        (factors.clone().min().unwrap_or_default(), factors.max().unwrap_or_default())
    }
}

impl ControllerClient {
    /// Describes a topic. Retries while brokers do not know it: it may have just been created.
    pub(super) async fn layout(&self, topic: &str, deadline: Deadline) -> Result<TopicLayout, Error> {
        let describe = DescribeLayout { unknown_is_none: false };
        let layout = self.call_topic(Target::Any, topic, &describe, deadline).await?;
        Ok(layout.unwrap_or(TopicLayout { id: None, partitions: Vec::new() }))
    }

    /// Describes a topic; `None` if the broker does not know it.
    pub(super) async fn layout_if_exists(
        &self,
        topic: &str,
        deadline: Deadline,
    ) -> Result<Option<TopicLayout>, Error> {
        let describe = DescribeLayout { unknown_is_none: true };
        Ok(self.call_topic(Target::Any, topic, &describe, deadline).await?)
    }
}

#[derive(Debug)]
struct DescribeLayout {
    /// Whether an unknown topic is `None` instead of an error.
    unknown_is_none: bool,
}

impl Operation for DescribeLayout {
    type Request = MetadataRequest;
    type Output = Option<TopicLayout>;

    fn request(&self, route: &Route<'_>) -> MetadataRequest {
        let name = Some(route.topic.to_owned());
        MetadataRequest {
            topics: Some(vec![MetadataTopic { name, ..MetadataTopic::default() }]),
            // A lookup never creates a topic.
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        }
    }

    fn response(
        &self,
        _route: &Route<'_>,
        mut response: MetadataResponse,
    ) -> Result<Option<TopicLayout>, Rejection> {
        Rejection::check(response.error_code)?;
        let topic = response.topics.pop().ok_or(Rejection::Missing)?;
        if self.unknown_is_none && topic.error_code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
            return Ok(None);
        }
        Rejection::check(topic.error_code)?;
        let mut partitions = topic.partitions;
        partitions.sort_unstable_by_key(|partition| partition.partition_index);
        let id = (!topic.topic_id.is_zero()).then_some(topic.topic_id);
        Ok(Some(TopicLayout { id, partitions }))
    }
}
