//! The client that creates, changes and describes topics and the cluster. Each operation has its own file.

mod audit;
mod configs;
mod create_partitions;
mod create_topic;
mod delete_topic;
mod describe_cluster;
mod describe_topic;
mod ensure_topic;
mod layout;

use std::{sync::Arc, time::Duration};

use kwal_protocol::api::Body;

pub use self::{
    audit::{Audit, Finding, Severity},
    configs::{AlterTopicConfigs, ConfigSource, ConfigSynonym, ConfigValue, DescribeTopicConfigs},
    create_partitions::CreatePartitions,
    create_topic::{CreateTopic, CreatedTopic},
    delete_topic::DeleteTopic,
    describe_cluster::{BrokerDescription, ClusterDescription, DescribeCluster},
    describe_topic::{DescribeTopic, PartitionDescription, TopicDescription},
    ensure_topic::{EnsureTopic, EnsuredTopic, TopicDifference},
};
use crate::{
    cluster::Cluster,
    config::Deadlines,
    duration::LONGEST,
    error::CallContext,
    routing::{self, CallFailed, Deadline, Operation, Route, Target, millis},
};

/// Creates, changes and describes topics, and describes the cluster.
///
/// [`Client::controller_client`](crate::Client::controller_client) returns it. It is cheap to clone.
///
/// Every call retries within [`Deadlines::operation`](crate::Deadlines::operation), follows the controller
/// when it moves, and pauses as long as throttles and quotas of the brokers require.
///
/// A change reaches the controller first and the other brokers a moment later. Until then they may describe
/// the old state.
#[derive(Clone, Debug)]
pub struct ControllerClient {
    cluster: Arc<Cluster>,
}

impl ControllerClient {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    /// Returns the deadline of a call that begins now. Default: `Deadlines::operation` from now.
    fn deadline(&self, after: Option<Duration>) -> Deadline {
        Deadline::after(after.unwrap_or(self.cluster.config.deadlines.operation))
    }

    /// Runs an operation that is about a topic.
    async fn call_topic<O: Operation>(
        &self,
        target: Target<'_>,
        topic: &str,
        operation: &O,
        deadline: Deadline,
    ) -> Result<O::Output, CallFailed> {
        let call = CallContext::topic(O::Request::KEY, topic);
        routing::call(&self.cluster, target, call, operation, deadline).await
    }

    /// Runs an operation that is about the cluster.
    async fn call_cluster<O: Operation>(
        &self,
        target: Target<'_>,
        operation: &O,
        deadline: Deadline,
    ) -> Result<O::Output, CallFailed> {
        let call = CallContext::cluster(O::Request::KEY);
        routing::call(&self.cluster, target, call, operation, deadline).await
    }
}

/// How long a broker waits until a change has taken effect; `None` for the default.
#[derive(Clone, Copy, Debug, Default)]
struct BrokerTimeout(Option<Duration>);

impl BrokerTimeout {
    fn timeout_ms(self, route: &Route<'_>) -> i32 {
        self.0.map_or_else(|| route.timeout_ms(), millis)
    }

    /// Returns the time limit of the request: a little longer than the broker waits.
    fn time_limit(self, deadlines: &Deadlines) -> Option<Duration> {
        self.0.map(|timeout| deadlines.request.max(timeout.min(LONGEST) + deadlines.request / 10))
    }
}
