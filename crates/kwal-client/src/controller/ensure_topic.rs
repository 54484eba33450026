//! Creating a topic unless it is there, and comparing it if it is.

use std::{collections::BTreeMap, fmt, future::IntoFuture};

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{MetadataPartition, MetadataRequest, MetadataTopic},
    wire::Uuid,
};
use kwal_transport::BoxFuture;
use tokio::time::Instant;

use super::{
    ConfigSource, ConfigValue, ControllerClient, Question, Refused, Resource, Whom, check_configs,
    create_topic::check_numbers,
};
use crate::{client::check_topic, cluster::Place, error::Error};

impl ControllerClient {
    /// Creates a topic of so many partitions with so many replicas each, unless it is there; then it is compared and left as
    /// it is. −1 is the broker's default of either, and whatever an existing topic has. Await it, or set first what else it
    /// should be like.
    ///
    /// Any number of clients may do so at the same time: one creates it, and the others find it.
    ///
    /// ```no_run
    /// # async fn ensure(controller: kwal_client::ControllerClient) -> Result<(), kwal_client::error::Error> {
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
        }
    }
}

/// A topic that is to be there: set what it should be like, then `.await` it.
///
/// # Errors
/// [`Error::InvalidInput`], before anything is sent, for a name that cannot be one, for numbers that are neither positive
/// nor −1 and for settings that are given twice. [`Error::Broker`] for what the cluster refuses, with its words, when the
/// topic is to be created or described. [`Error::DeadlineExceeded`].
///
/// # Cancellation
/// Dropped, the topic may be created or not.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct EnsureTopic<'a> {
    controller: &'a ControllerClient,
    name: String,
    partitions: i32,
    replication_factor: i16,
    configs: Vec<(String, String)>,
}

/// A topic that is there.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EnsuredTopic {
    /// Its name.
    pub name: String,
    /// Its id (KIP-516); `None` if the broker is too old to tell.
    pub id: Option<Uuid>,
    /// Whether this call created it. If the answer was lost and it was found then, it does not count as created.
    pub created: bool,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many replicas each has; the least, if they differ.
    pub replication_factor: i16,
    /// In what it is not as asked for; empty if it was created.
    pub differences: Vec<TopicDifference>,
}

/// Something in which a topic is not as asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TopicDifference {
    /// The number of partitions. [`create_partitions`](ControllerClient::create_partitions) gives it more; nothing gives it
    /// fewer.
    Partitions {
        /// How many were asked for.
        asked: i32,
        /// How many there are.
        found: i32,
    },
    /// The number of replicas of some partitions.
    ReplicationFactor {
        /// How many were asked for.
        asked: i16,
        /// How many the partition with the fewest has, if that is it, or else the one with the most.
        found: i16,
    },
    /// A setting. [`alter_topic_configs`](ControllerClient::alter_topic_configs) changes it.
    Config {
        /// Its name.
        name: String,
        /// The value asked for.
        asked: String,
        /// The value that holds, and where it comes from; `None` if the broker does not know such a setting.
        found: Option<(Option<String>, ConfigSource)>,
    },
}

impl fmt::Display for TopicDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partitions { asked, found } => write!(f, "{found} partitions instead of {asked}"),
            Self::ReplicationFactor { asked, found } => write!(f, "{found} replicas instead of {asked}"),
            Self::Config { name, asked, found: Some((Some(value), source)) } => {
                write!(f, "{name} is {value} ({source}) instead of {asked}")
            }
            Self::Config { name, asked, found: Some((None, source)) } => {
                write!(f, "{name} has no value that is told ({source}) instead of {asked}")
            }
            Self::Config { name, asked, found: None } => {
                write!(f, "{name} is not known to the broker and should be {asked}")
            }
        }
    }
}

impl EnsureTopic<'_> {
    /// Asks for one of the topic's settings, as Kafka's documentation names them.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.push((name.into(), value.into()));
        self
    }

    async fn run(self) -> Result<EnsuredTopic, Error> {
        check_topic(&self.name)?;
        check_numbers(self.partitions, self.replication_factor)?;
        check_configs(self.configs.iter().map(|(name, _)| name.as_str()))?;
        let controller = self.controller;
        let deadline = controller.deadline();
        // Usually it is there; and who may see it need not have the right to create it.
        if let Some(layout) = controller.layout_if_any(&self.name, deadline).await? {
            match self.compare(layout, deadline).await {
                // Deleted a moment ago, which not all brokers have heard.
                Err(Error::UnknownTopic { .. }) => {}
                compared => return compared,
            }
        }
        let mut create = controller.create_topic(&self.name, self.partitions, self.replication_factor);
        for (name, value) in &self.configs {
            create = create.config(name, value);
        }
        match create.by(deadline).await {
            Ok(created) => Ok(EnsuredTopic {
                name: created.name,
                id: created.id,
                created: true,
                partitions: created.partitions,
                replication_factor: created.replication_factor,
                differences: Vec::new(),
            }),
            // Somebody else was quicker, or this call itself was when the answer was lost.
            Err(refused) if refused.is(ErrorCode::TOPIC_ALREADY_EXISTS) => {
                let layout = controller.layout(&self.name, deadline).await?;
                self.compare(layout, deadline).await
            }
            Err(refused) => Err(refused.into()),
        }
    }

    async fn compare(&self, layout: TopicLayout, deadline: Instant) -> Result<EnsuredTopic, Error> {
        let mut differences = Vec::new();
        let partitions = layout.partitions.len() as i32;
        if self.partitions != -1 && self.partitions != partitions {
            differences.push(TopicDifference::Partitions { asked: self.partitions, found: partitions });
        }
        let (fewest, most) = layout.replication_factors();
        let asked = self.replication_factor;
        if let Some(found) = [fewest, most].into_iter().find(|found| asked != -1 && *found != asked) {
            differences.push(TopicDifference::ReplicationFactor { asked, found });
        }
        if !self.configs.is_empty() {
            let names: Vec<_> = self.configs.iter().map(|(name, _)| name.clone()).collect();
            let resource = Resource::Topic(&self.name);
            let found = self.controller.configs(resource, Some(&names), deadline).await?;
            differences.extend(self.configs.iter().filter_map(|(name, asked)| differs(name, asked, &found)));
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

fn differs(name: &str, asked: &str, found: &BTreeMap<String, ConfigValue>) -> Option<TopicDifference> {
    let found = found.get(name);
    if found.is_some_and(|found| found.value.as_deref().is_some_and(|value| found.kind.same(value, asked))) {
        return None;
    }
    Some(TopicDifference::Config {
        name: name.to_owned(),
        asked: asked.to_owned(),
        found: found.map(|found| (found.value.clone(), found.source)),
    })
}

impl<'a> IntoFuture for EnsureTopic<'a> {
    type Output = Result<EnsuredTopic, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// Where the replicas of a topic are, as a broker tells it.
#[derive(Debug)]
pub(crate) struct TopicLayout {
    pub(crate) id: Option<Uuid>,
    /// By rising index.
    pub(crate) partitions: Vec<MetadataPartition>,
}

impl TopicLayout {
    /// How many replicas the partition with the fewest has, and the one with the most.
    pub(crate) fn replication_factors(&self) -> (i16, i16) {
        let factors = self.partitions.iter().map(|partition| partition.replica_nodes.len() as i16);
        (factors.clone().min().unwrap_or_default(), factors.max().unwrap_or_default())
    }
}

impl ControllerClient {
    /// Where the replicas of a topic are. One that was just created is waited for.
    pub(crate) async fn layout(&self, topic: &str, deadline: Instant) -> Result<TopicLayout, Error> {
        let place = Place { topic: Some(topic), partition: None };
        let question = Question { place, whom: Whom::Any, deadline, wait: None };
        Ok(self.ask_layout(question, |code| code).await?.0)
    }

    /// The same; `None` if the broker that is asked does not know it.
    async fn layout_if_any(&self, topic: &str, deadline: Instant) -> Result<Option<TopicLayout>, Error> {
        let place = Place { topic: Some(topic), partition: None };
        let question = Question { place, whom: Whom::Any, deadline, wait: None };
        let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        let asked = self.ask_layout(question, |code| if code == unknown { ErrorCode::NONE } else { code });
        let (layout, code) = asked.await?;
        Ok((code != unknown).then_some(layout))
    }

    /// `excused` says what becomes of the topic's own error; it is told besides.
    async fn ask_layout(
        &self,
        question: Question<'_>,
        excused: impl Fn(ErrorCode) -> ErrorCode,
    ) -> Result<(TopicLayout, ErrorCode), Refused> {
        let name = question.place.topic.map(str::to_owned);
        let request = MetadataRequest {
            topics: Some(vec![MetadataTopic { name, ..MetadataTopic::default() }]),
            // Looking a topic up never creates it.
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        self.ask(
            question,
            |_| request.clone(),
            |response| {
                let told = response.topics.pop()?;
                let code = match response.error_code {
                    ErrorCode::NONE => excused(told.error_code),
                    code => code,
                };
                let mut partitions = told.partitions;
                partitions.sort_unstable_by_key(|partition| partition.partition_index);
                let id = (!told.topic_id.is_zero()).then_some(told.topic_id);
                Some((code, None, (TopicLayout { id, partitions }, told.error_code)))
            },
        )
        .await
    }
}
