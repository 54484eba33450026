//! The audit: compares a topic and its brokers with what a write-ahead log needs.

mod check;
mod finding;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use kwal_protocol::{error_code::ErrorCode, text::Printable};
use tracing::Span;

pub use self::finding::{Finding, Severity};
use self::rules::{Broker, Topic};
use super::{ClusterDescription, ControllerClient};
use crate::{
    error::{Error, ErrorKind},
    request::{call_span, request},
    routing::Deadline,
    validate,
};

impl ControllerClient {
    /// Audits a topic: returns what puts its records or its appends at risk, the greatest severity first.
    ///
    /// A topic that is configured as a write-ahead log needs has no findings.
    ///
    /// | checked | finding |
    /// | --- | --- |
    /// | leader | a partition has none |
    /// | replication factor | less than 3 |
    /// | in-sync replicas | fewer than the replicas of a partition; names brokers and partitions |
    /// | `min.insync.replicas` | 1, or any with one replica; the number of replicas, or more |
    /// | `unclean.leader.election.enable` | true |
    /// | `cleanup.policy` | includes `compact` |
    /// | `retention.ms`, `retention.bytes` | not −1, if the policy includes `delete` |
    /// | `max.message.bytes` | below [`Limits::batch`](crate::Limits::batch), or below Kafka's default if that is not set; above what this client can read |
    /// | `message.timestamp.type` | `CreateTime`, if records are deleted by age |
    /// | `message.timestamp.before.max.ms`, `….after.max.ms` | less than an hour; for `before`, any limit |
    /// | `producer.id.expiration.ms` of each broker | less than a day |
    /// | `transactional.id.expiration.ms` of each broker | less than a week |
    /// | `transaction.state.log.replication.factor` of each broker | 1; more than there are brokers |
    /// | `transaction.state.log.min.isr` of each broker | 1; the replication factor, or more |
    ///
    /// The last three are about [exclusive](crate::OpenPartition::exclusive) writers alone, whose names and
    /// epochs are kept in the topic `__transaction_state`. Brokers create it with the replication factor that
    /// is set then. `transaction.state.log.num.partitions` is not checked: one partition is enough, and the
    /// setting has no effect on a topic that exists.
    ///
    /// Brokers take the smaller of `min.insync.replicas` and the number of replicas: with one replica, every
    /// append is acknowledged with a single copy.
    ///
    /// A config that the broker does not return, or that this client may not describe, is a finding of
    /// [`Severity::Unknown`]. Describing configs takes the right `DescribeConfigs`: on the topic for its own,
    /// and on the cluster for those of brokers.
    ///
    /// `replica.fetch.max.bytes` is not checked: followers fetch larger batches as well (KIP-74).
    ///
    /// ```no_run
    /// # async fn look(controller: kwal_client::ControllerClient) -> Result<(), kwal_client::error::Error> {
    /// for finding in controller.audit("wal").await? {
    ///     eprintln!("{finding}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn audit(&self, topic: impl Into<String>) -> Audit<'_> {
        Audit { controller: self, topic: topic.into(), deadline: None }
    }
}

request! {
    /// An audit of a topic. Nothing happens until it is awaited.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`] after [`Deadlines::unknown_topic`](crate::Deadlines::unknown_topic);
    /// [`ErrorKind::DeadlineExceeded`] if the topic and the cluster cannot be described in time. A broker
    /// that does not respond within [`Deadlines::request`](crate::Deadlines::request) is a finding.
    ///
    /// # Cancellation safety
    /// Cancel safe.
    pub struct Audit<'a> -> Result<Vec<Finding>, Error> {
        controller: &'a ControllerClient,
        topic: String,
    }
}

impl Audit<'_> {
    fn span(&self) -> Span {
        call_span!("audit", &self.topic)
    }

    async fn run(self) -> Result<Vec<Finding>, Error> {
        let Self { controller, topic: name, deadline } = self;
        validate::topic_name(&name)?;
        let deadline = controller.deadline(deadline);
        let layout = controller.layout(&name, deadline).await?;
        let configs = match controller.topic_configs(&name, None, deadline).await {
            Err(error) if is_denied(&error) => Err(reason(&error)),
            configs => Ok(configs?),
        };
        let config = &controller.cluster.config;
        let topic = Topic { partitions: layout.partitions, configs, limits: config.limits };
        let cluster = controller.cluster(deadline).await?;
        let names = check::broker_configs();
        let count = count_brokers(&cluster, &topic);
        let mut brokers = Vec::with_capacity(cluster.brokers.len());
        for broker in cluster.brokers {
            // A broker that is down must not use up the time of the others.
            let deadline = deadline.min(Deadline::after(config.deadlines.request));
            let configs = controller.broker_configs(broker.id, &names, deadline).await;
            let configs = configs.map_err(|error| reason(&error));
            let operation = config.deadlines.operation;
            brokers.push(Broker { id: broker.id, configs, operation, brokers: count });
        }
        Ok(check::check(&topic, &brokers))
    }
}

/// Counts the brokers of the cluster. One that is down is known only if it has replicas of the topic.
fn count_brokers(cluster: &ClusterDescription, topic: &Topic) -> usize {
    let with_replicas = topic.partitions.iter().flat_map(|partition| &partition.replica_nodes).copied();
    let all: BTreeSet<i32> = cluster.brokers.iter().map(|broker| broker.id).chain(with_replicas).collect();
    all.len()
}

const UNAUTHORIZED: [ErrorCode; 2] =
    [ErrorCode::TOPIC_AUTHORIZATION_FAILED, ErrorCode::CLUSTER_AUTHORIZATION_FAILED];

/// Whether this client may not describe configs, or the broker is too old for it.
fn is_denied(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported { .. })
        || error.code().is_some_and(|code| UNAUTHORIZED.contains(&code))
}

/// Returns why configs are unknown.
///
/// It does not name the broker, so that brokers with the same reason share a finding.
fn reason(error: &Error) -> String {
    let ErrorKind::Broker { code, message } = error.kind() else {
        return format!("The request failed: {error}.");
    };
    let mut text = format!("The broker rejected the request: {code}");
    if let Some(message) = message {
        text.push_str(&format!(" ({})", Printable(message)));
    }
    text.push('.');
    match *code {
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => {
            text.push_str(" Allow this client `DescribeConfigs` on the topic.");
        }
        ErrorCode::CLUSTER_AUTHORIZATION_FAILED => {
            text.push_str(" Allow this client `DescribeConfigs` on the cluster.");
        }
        _ => {}
    }
    text
}
