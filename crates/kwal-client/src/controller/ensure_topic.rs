//! Creating a topic unless it exists, and comparing it if it does.

use std::{collections::BTreeMap, fmt};

use kwal_protocol::{error_code::ErrorCode, text::Printable, wire::Uuid};
use tracing::Span;

use super::{ConfigSource, ConfigValue, ControllerClient, layout::TopicLayout};
use crate::{
    error::{Error, ErrorKind, Outcome},
    request::{call_span, request},
    routing::Deadline,
    validate,
};

impl ControllerClient {
    /// Creates a topic unless it exists. Await it, or configure it first.
    ///
    /// An existing topic is compared with the request and left as it is. A number of partitions or a
    /// replication factor of −1 is the broker's default, and matches any existing topic.
    ///
    /// Any number of clients may do so at the same time: one creates the topic, and the others find it.
    ///
    /// ```no_run
    /// # async fn run(controller: kwal_client::ControllerClient) -> Result<(), kwal_client::error::Error> {
    /// let topic = controller.ensure_topic("wal", 4, 3).config("retention.ms", "-1").await?;
    /// for difference in &topic.differences {
    ///     eprintln!("topic {}: {difference}", topic.name);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn ensure_topic(
        &self,
        name: impl Into<String>,
        partitions: i32,
        replication_factor: i16,
    ) -> EnsureTopic<'_> {
        EnsureTopic {
            controller: self,
            name: name.into(),
            partitions,
            replication_factor,
            configs: Vec::new(),
            deadline: None,
        }
    }
}

request! {
    /// A topic to be created unless it exists: configure it, then await it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], before anything is sent, for an invalid name, for counts that are neither
    /// positive nor −1 and for duplicate configs. [`ErrorKind::Broker`], with the broker's message, for what
    /// the cluster rejects when the topic is created or described. [`ErrorKind::DeadlineExceeded`].
    ///
    /// # Cancellation safety
    /// If it is dropped, the topic may be created or not.
    pub struct EnsureTopic<'a> -> Result<EnsuredTopic, Error> {
        controller: &'a ControllerClient,
        name: String,
        partitions: i32,
        replication_factor: i16,
        configs: Vec<(String, String)>,
    }
}

/// A topic that exists.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EnsuredTopic {
    /// Its name.
    pub name: String,
    /// Its id (KIP-516); `None` if the broker is too old for topic ids.
    pub id: Option<Uuid>,
    /// Whether this call created it. False also if it did but the response was lost.
    pub created: bool,
    /// How many partitions it has; −1 if it was created with as many as the broker chose, and the broker does
    /// not report it: it is too old, or this client lacks the right `DescribeConfigs` on the topic.
    pub partitions: i32,
    /// How many replicas each partition has; the fewest, if they differ; −1 in the same cases.
    pub replication_factor: i16,
    /// How it differs from what was requested; empty if it was created.
    pub differences: Vec<TopicDifference>,
}

/// A difference between a topic and what was requested.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TopicDifference {
    /// The number of partitions.
    ///
    /// [`create_partitions`](ControllerClient::create_partitions) adds partitions; they cannot be removed.
    Partitions {
        /// How many were requested.
        requested: i32,
        /// How many there are.
        found: i32,
    },
    /// The number of replicas of some partitions.
    ReplicationFactor {
        /// How many were requested.
        requested: i16,
        /// The fewest replicas of a partition, if that is not the requested number; otherwise the most.
        found: i16,
    },
    /// A config. [`alter_topic_configs`](ControllerClient::alter_topic_configs) changes it.
    Config {
        /// Its name.
        name: String,
        /// The requested value.
        requested: String,
        /// The value in force and its source; `None` if the broker does not know the config.
        found: Option<(Option<String>, ConfigSource)>,
    },
}

impl fmt::Display for TopicDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partitions { requested, found } => {
                let plural = if *found == 1 { "" } else { "s" };
                write!(f, "{found} partition{plural} instead of {requested}")
            }
            Self::ReplicationFactor { requested, found } => {
                let plural = if *found == 1 { "" } else { "s" };
                write!(f, "{found} replica{plural} instead of {requested}")
            }
            Self::Config { name, requested, found: Some((Some(value), source)) } => {
                write!(f, "{name} is {} ({source}) instead of {requested}", Printable(value))
            }
            Self::Config { name, requested, found: Some((None, source)) } => {
                write!(f, "{name} has no visible value ({source}) instead of {requested}")
            }
            Self::Config { name, requested, found: None } => {
                write!(f, "{name} is unknown to the broker and should be {requested}")
            }
        }
    }
}

impl EnsureTopic<'_> {
    /// Requests a config of the topic, by its name in Kafka's documentation.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.push((name.into(), value.into()));
        self
    }

    fn span(&self) -> Span {
        call_span!("ensure_topic", &self.name)
    }

    async fn run(self) -> Result<EnsuredTopic, Error> {
        validate::topic_name(&self.name)?;
        validate::topic_size(self.partitions, self.replication_factor)?;
        validate::config_names(self.configs.iter().map(|(name, _)| name.as_str()))?;
        let controller = self.controller;
        let deadline = controller.deadline(self.deadline);
        // Usually it exists, and this client may have the right to describe topics but not to create them.
        if let Some(layout) = controller.layout_if_exists(&self.name, deadline).await? {
            match self.compare(layout, deadline).await {
                // It was deleted a moment ago, and the broker that described it did not know yet.
                Err(error) if matches!(error.kind(), ErrorKind::UnknownTopic { .. }) => {}
                compared => return compared,
            }
        }
        let mut create = controller.create_topic(&self.name, self.partitions, self.replication_factor);
        for (name, value) in &self.configs {
            create = create.config(name, value);
        }
        match create.create(deadline).await {
            Ok(created) => Ok(EnsuredTopic {
                name: created.name,
                id: created.id,
                created: true,
                partitions: created.partitions,
                replication_factor: created.replication_factor,
                differences: Vec::new(),
            }),
            // Another client created it, or this call did and the response was lost.
            Err(failed) if failed.has_code(ErrorCode::TOPIC_ALREADY_EXISTS) => {
                let compared = async {
                    let layout = controller.layout(&self.name, deadline).await?;
                    self.compare(layout, deadline).await
                };
                match failed.may_have_applied {
                    true => compared.await.map_err(|error| error.with_outcome(Outcome::Unknown)),
                    false => compared.await,
                }
            }
            Err(failed) => Err(failed.into()),
        }
    }

    async fn compare(&self, layout: TopicLayout, deadline: Deadline) -> Result<EnsuredTopic, Error> {
        let mut differences = Vec::new();
        let partitions = layout.partitions.len() as i32;
        if self.partitions != -1 && self.partitions != partitions {
            let requested = self.partitions;
            differences.push(TopicDifference::Partitions { requested, found: partitions });
        }
        let (fewest, most) = layout.replication_factors();
        let requested = self.replication_factor;
        if let Some(found) = [fewest, most].into_iter().find(|found| requested != -1 && *found != requested) {
            differences.push(TopicDifference::ReplicationFactor { requested, found });
        }
        if !self.configs.is_empty() {
            let names: Vec<_> = self.configs.iter().map(|(name, _)| name.clone()).collect();
            let found = self.controller.topic_configs(&self.name, Some(&names), deadline).await?;
            let differing = self.configs.iter().filter_map(|(name, value)| difference(name, value, &found));
            differences.extend(differing);
        }
        Ok(EnsuredTopic {
            name: self.name.clone(),
            id: layout.id,
            created: false,
            partitions,
            replication_factor: fewest,
            differences,
        })
    }
}

fn difference(name: &str, requested: &str, found: &BTreeMap<String, ConfigValue>) -> Option<TopicDifference> {
    let found = found.get(name);
    let value = found.and_then(|found| Some((found.kind, found.value.as_deref()?)));
    if value.is_some_and(|(kind, value)| kind.same(value, requested)) {
        return None;
    }
    Some(TopicDifference::Config {
        name: name.to_owned(),
        requested: requested.to_owned(),
        found: found.map(|found| (found.value.clone(), found.source)),
    })
}
