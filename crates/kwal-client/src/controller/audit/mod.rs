//! What endangers a log: topic and brokers compared with what a write-ahead log needs.

mod finding;
mod rules;

use kwal_protocol::error_code::ErrorCode;

pub use self::finding::{Finding, Severity};
use self::rules::{Broker, Rules};
use super::ControllerClient;
use crate::{
    error::{Error, ErrorKind},
    request::request,
    routing::Deadline,
    validate,
};

impl ControllerClient {
    /// Looks for what endangers a log in this topic: how it is replicated, what is deleted from it and when, what it refuses,
    /// and for how long its brokers remember writers. The gravest findings come first; a topic that is as a write-ahead log
    /// should be has none.
    ///
    /// | what | is found |
    /// | --- | --- |
    /// | replication factor | below 3; partitions without a leader, and such with replicas that are not in sync now |
    /// | `min.insync.replicas` | 1; as many as there are replicas, or more |
    /// | `unclean.leader.election.enable` | true |
    /// | `cleanup.policy` | with `compact` |
    /// | `retention.ms`, `retention.bytes` | anything but −1, where the policy deletes |
    /// | `max.message.bytes` | smaller than this client's [`Limits::batch`](crate::Limits::batch); larger than what it reads |
    /// | `message.timestamp.type` | `CreateTime`, where records are deleted by age |
    /// | `message.timestamp.before.max.ms`, `….after.max.ms` | bounds of less than an hour; any bound on the past |
    /// | `producer.id.expiration.ms` of each broker | less than a day |
    /// | `transactional.id.expiration.ms` of each broker | less than a week |
    ///
    /// What a broker does not have, or this client may not see, is a finding too: [`Severity::NotChecked`]. Brokers' settings
    /// take the right to describe the configs of the cluster.
    ///
    /// `replica.fetch.max.bytes` is not among them: replicas fetch a batch that is larger than it all the same (KIP-74).
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
    /// [`ErrorKind::DeadlineExceeded`] if topic and cluster cannot be described in time. A broker that does not answer within
    /// [`Deadlines::request`](crate::Deadlines::request) is a finding.
    ///
    /// # Cancellation safety
    /// Cancel safe.
    pub struct Audit<'a> -> Vec<Finding> {
        controller: &'a ControllerClient,
        topic: String,
    }
}

impl Audit<'_> {
    async fn run(self) -> Result<Vec<Finding>, Error> {
        let Self { controller, topic, deadline } = self;
        validate::topic_name(&topic)?;
        let deadline = controller.deadline(deadline);
        let layout = controller.layout(&topic, deadline).await?;
        let configs = match controller.topic_configs(&topic, None, deadline).await {
            Err(error) if is_denied(&error) => Err(error),
            configs => Ok(configs?),
        };
        let cluster = controller.cluster(deadline).await?;
        let names = rules::broker_configs();
        let config = &controller.cluster.config;
        let mut brokers = Vec::with_capacity(cluster.brokers.len());
        for broker in cluster.brokers {
            // One that is down does not keep the others from being described.
            let deadline = deadline.min(Deadline::after(config.deadlines.request));
            let configs = controller.broker_configs(broker.id, &names, deadline).await;
            brokers.push(Broker { id: broker.id, configs });
        }
        let mut rules = Rules::new(config.limits, config.deadlines);
        rules.replicas(&layout.partitions, configs.as_ref().ok());
        rules.topic(configs.as_ref());
        rules.brokers(&brokers);
        Ok(rules.into_findings())
    }
}

/// Whether an error says that one may not ask, or cannot.
fn is_denied(error: &Error) -> bool {
    let denied = [ErrorCode::TOPIC_AUTHORIZATION_FAILED, ErrorCode::CLUSTER_AUTHORIZATION_FAILED];
    matches!(error.kind(), ErrorKind::Unsupported { .. })
        || error.code().is_some_and(|code| denied.contains(&code))
}

/// Why a broker did not tell. Which one it was is told elsewhere, so that all that say the same are told together.
fn because(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Broker { code, message: Some(message) } => {
            format!("The broker answers {code} ({message}).")
        }
        ErrorKind::Broker { code, message: None } => format!("The broker answers {code}."),
        _ => {
            let mut text = format!("It could not be asked: {error}");
            let mut cause: &dyn std::error::Error = error;
            while let Some(source) = cause.source() {
                text.push_str(": ");
                text.push_str(&source.to_string());
                cause = source;
            }
            text.push('.');
            text
        }
    }
}
