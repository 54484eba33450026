//! Metadata: the partitions of a topic and their replicas.

use std::time::Duration;

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{MetadataPartition, MetadataRequest, MetadataResponse, MetadataTopic, MetadataTopicResponse},
    wire::Uuid,
};

use super::ControllerClient;
use crate::{
    error::Error,
    metadata::is_consistent,
    routing::{Deadline, Operation, Rejection, Route, Target},
    validate,
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
    /// Returns how many partitions a topic has. Retries while brokers do not know it.
    #[doc(hidden)]
    pub async fn partition_count(&self, topic: &str, deadline: Duration) -> Result<usize, Error> {
        validate::topic_name(topic)?;
        Ok(self.layout(topic, Deadline::after(deadline)).await?.partitions.len())
    }

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
        route: &Route<'_>,
        mut response: MetadataResponse,
    ) -> Result<Option<TopicLayout>, Rejection> {
        Rejection::check(response.error_code)?;
        let is_requested = |topic: &MetadataTopicResponse| topic.name.as_deref() == Some(route.topic);
        let requested = response.topics.iter().position(is_requested);
        let Some(index) = requested.filter(|_| is_consistent(&response)) else {
            return Err(Rejection::Missing);
        };
        let topic = response.topics.swap_remove(index);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::rejected_code;

    const KNOWN: DescribeLayout = DescribeLayout { unknown_is_none: false };

    fn respond(
        operation: &DescribeLayout,
        topic: MetadataTopicResponse,
    ) -> Result<Option<TopicLayout>, Rejection> {
        let topic = MetadataTopicResponse { name: Some("wal".to_owned()), ..topic };
        let response = MetadataResponse { topics: vec![topic], ..Default::default() };
        operation.response(&Route::of_partition("wal", 0), response)
    }

    #[test]
    fn a_lookup_names_the_topic_and_does_not_create_it() {
        let request = KNOWN.request(&Route::of_partition("wal", 0));
        let topic = MetadataTopic { name: Some("wal".to_owned()), ..Default::default() };
        let expected = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn partitions_are_in_index_order_and_a_zero_id_is_none() {
        let partition = |partition_index, replicas: i32| MetadataPartition {
            partition_index,
            replica_nodes: (0..replicas).collect(),
            ..Default::default()
        };
        let partitions = || vec![partition(2, 3), partition(0, 1), partition(1, 2)];
        for (topic_id, id) in [(Uuid([0; 16]), None), (Uuid([5; 16]), Some(Uuid([5; 16])))] {
            let topic = MetadataTopicResponse { topic_id, partitions: partitions(), ..Default::default() };
            let layout = respond(&KNOWN, topic).unwrap().unwrap();
            assert_eq!(layout.id, id);
            assert_eq!(layout.partitions, [partition(0, 1), partition(1, 2), partition(2, 3)]);
            assert_eq!(layout.replication_factors(), (1, 3));
        }
        let twice = MetadataTopicResponse { partitions: vec![partition(1, 2); 2], ..Default::default() };
        assert!(matches!(respond(&KNOWN, twice), Err(Rejection::Missing)));
        let none = TopicLayout { id: None, partitions: Vec::new() };
        assert_eq!(none.replication_factors(), (0, 0));
    }

    #[test]
    fn an_unknown_topic_is_none_on_request() {
        let topic = |error_code| MetadataTopicResponse { error_code, ..Default::default() };
        let if_exists = DescribeLayout { unknown_is_none: true };
        let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        assert!(respond(&if_exists, topic(unknown)).unwrap().is_none());
        assert_eq!(rejected_code(respond(&KNOWN, topic(unknown))), (unknown, None));
        let denied = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
        assert_eq!(rejected_code(respond(&if_exists, topic(denied))), (denied, None));
    }

    #[test]
    fn a_response_without_the_topic_is_malformed_unless_it_is_an_error() {
        let respond = |error_code| {
            let response = MetadataResponse { error_code, ..Default::default() };
            KNOWN.response(&Route::of_partition("wal", 0), response)
        };
        assert!(matches!(respond(ErrorCode::NONE), Err(Rejection::Missing)));
        let code = ErrorCode::REBOOTSTRAP_REQUIRED;
        assert_eq!(rejected_code(respond(code)), (code, None));
    }
}
