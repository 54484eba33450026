//! The settings of topics and brokers: asking for them and altering them.

use std::{collections::BTreeMap, fmt, future::IntoFuture};

use kwal_protocol::messages::{
    AlterConfigsResource, AlterableConfig, DescribeConfigsRequest, DescribeConfigsResource, DescribedConfig,
    IncrementalAlterConfigsRequest,
};
use kwal_transport::BoxFuture;
use tokio::time::Instant;

use super::{ControllerClient, Question, Whom, check_configs};
use crate::{client::check_topic, cluster::Place, error::Error};

/// A setting as it holds, and where it comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConfigValue {
    /// The value; `None` where there is none, or it is kept secret.
    pub value: Option<String>,
    /// Who says so.
    pub source: ConfigSource,
    /// Whether it cannot be altered while the broker runs.
    pub is_read_only: bool,
    /// Whether it is kept secret.
    pub is_sensitive: bool,
    /// All values that it has somewhere, the one that holds first: what remains when that is deleted.
    pub synonyms: Vec<ConfigSynonym>,
    pub(crate) kind: ConfigKind,
}

/// A value that a setting has somewhere, whether it holds or another one precedes it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConfigSynonym {
    /// What the setting is called there: `log.retention.ms` of a broker is `retention.ms` of a topic.
    pub name: String,
    /// The value; `None` where it is kept secret.
    pub value: Option<String>,
    /// Where that is.
    pub source: ConfigSource,
}

/// Where the value of a setting comes from (KIP-226).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ConfigSource {
    /// Set for the topic itself.
    Topic,
    /// Set for this broker while it ran.
    DynamicBroker,
    /// Set for all brokers while they ran.
    DynamicDefaultBroker,
    /// Set in the broker's file, `server.properties`.
    StaticBroker,
    /// Kafka's default.
    Default,
    /// Something else, by its number in the protocol; −1 if the broker is too old to tell.
    Other(i8),
}

impl ConfigSource {
    fn from_told(source: i8) -> Self {
        match source {
            1 => Self::Topic,
            2 => Self::DynamicBroker,
            3 => Self::DynamicDefaultBroker,
            4 => Self::StaticBroker,
            5 => Self::Default,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic => f.write_str("set for the topic"),
            Self::DynamicBroker | Self::StaticBroker => f.write_str("set for the broker"),
            Self::DynamicDefaultBroker => f.write_str("set for all brokers"),
            Self::Default => f.write_str("the default"),
            Self::Other(-1) => f.write_str("of unknown origin"),
            Self::Other(source) => write!(f, "of source {source}"),
        }
    }
}

/// How values are compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ConfigKind {
    Bool,
    Number,
    List,
    /// Or not told.
    Text,
}

impl ConfigKind {
    /// Whether two values mean the same.
    pub(crate) fn same(self, one: &str, other: &str) -> bool {
        let (one, other) = (one.trim(), other.trim());
        let number = |text: &str| text.parse::<f64>().ok();
        let list = |text: &str| {
            let mut parts: Vec<_> =
                text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
            parts.sort_unstable();
            parts.dedup();
            parts
        };
        one == other
            || match self {
                Self::Bool => one.eq_ignore_ascii_case(other),
                Self::Number => match (one.parse::<i64>(), other.parse::<i64>()) {
                    (Ok(one), Ok(other)) => one == other,
                    _ => number(one).is_some() && number(one) == number(other),
                },
                Self::List => list(one) == list(other),
                Self::Text => false,
            }
    }
}

/// What settings belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resource<'a> {
    Topic(&'a str),
    Broker(i32),
}

impl ControllerClient {
    /// Asks for the settings of a topic, by name, those of the brokers and the defaults included. Await it, or say first
    /// which ones.
    ///
    /// ```no_run
    /// # async fn look(controller: kwal_client::ControllerClient) -> Result<(), kwal_client::error::Error> {
    /// let configs = controller.describe_topic_configs("wal").only(["retention.ms"]).await?;
    /// let retention = &configs["retention.ms"];
    /// println!("{:?}, {}", retention.value, retention.source);
    /// # Ok(())
    /// # }
    /// ```
    pub fn describe_topic_configs(&self, topic: impl Into<String>) -> DescribeTopicConfigs<'_> {
        DescribeTopicConfigs { controller: self, topic: topic.into(), names: None }
    }

    /// Alters some settings of a topic and leaves the others as they are (KIP-339; Kafka 2.3). Say which, then await it.
    ///
    /// Either all are altered or none. Brokers hear of it a moment later, and then go by it.
    ///
    /// ```no_run
    /// # async fn alter(controller: kwal_client::ControllerClient) -> Result<(), kwal_client::error::Error> {
    /// controller.alter_topic_configs("wal").set("retention.ms", "-1").delete("retention.bytes").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn alter_topic_configs(&self, topic: impl Into<String>) -> AlterTopicConfigs<'_> {
        AlterTopicConfigs { controller: self, topic: topic.into(), changes: Vec::new(), validate_only: false }
    }

    /// The settings of a topic, or of a broker, which only that broker itself tells.
    pub(crate) async fn configs(
        &self,
        resource: Resource<'_>,
        names: Option<&[String]>,
        deadline: Instant,
    ) -> Result<BTreeMap<String, ConfigValue>, Error> {
        let (place, whom, resource_type, resource_name) = match resource {
            Resource::Topic(name) => {
                let place = Place { topic: Some(name), partition: None };
                (place, Whom::Any, TOPIC, name.to_owned())
            }
            Resource::Broker(id) => (Place::default(), Whom::Broker(id), BROKER, id.to_string()),
        };
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type,
                resource_name,
                configuration_keys: names.map(<[String]>::to_vec),
            }],
            include_synonyms: true,
            include_documentation: false,
        };
        let question = Question { place, whom, deadline, wait: None };
        let asked = self.ask(
            question,
            |_| request.clone(),
            |response| {
                let result = response.results.pop()?;
                let configs = result.configs.into_iter().map(told).collect();
                Some((result.error_code, result.error_message, configs))
            },
        );
        Ok(asked.await?)
    }
}

/// What a resource is.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn told(told: DescribedConfig) -> (String, ConfigValue) {
    let synonyms = told.synonyms.into_iter().map(|synonym| ConfigSynonym {
        name: synonym.name,
        value: synonym.value,
        source: ConfigSource::from_told(synonym.source),
    });
    let value = ConfigValue {
        value: told.value,
        source: ConfigSource::from_told(told.config_source),
        is_read_only: told.read_only,
        is_sensitive: told.is_sensitive,
        synonyms: synonyms.collect(),
        kind: match told.config_type {
            1 => ConfigKind::Bool,
            3..=6 => ConfigKind::Number,
            7 => ConfigKind::List,
            _ => ConfigKind::Text,
        },
    };
    (told.name, value)
}

/// A look at the settings of a topic: say which ones, then `.await` it.
///
/// # Errors
/// [`Error::UnknownTopic`] after [`Deadlines::unknown_topic`](crate::Deadlines::unknown_topic). [`Error::Broker`] with
/// `TOPIC_AUTHORIZATION_FAILED` if this client may not see them. [`Error::DeadlineExceeded`].
///
/// # Cancellation
/// Nothing is lost by dropping it.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct DescribeTopicConfigs<'a> {
    controller: &'a ControllerClient,
    topic: String,
    names: Option<Vec<String>>,
}

impl DescribeTopicConfigs<'_> {
    /// Only these; one that the broker does not know is not among the result. Default: all.
    pub fn only<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    async fn run(self) -> Result<BTreeMap<String, ConfigValue>, Error> {
        check_topic(&self.topic)?;
        let deadline = self.controller.deadline();
        // Brokers take an empty list for a wish to hear all.
        if self.names.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::InvalidInput("no setting is asked for".to_owned()));
        }
        self.controller.configs(Resource::Topic(&self.topic), self.names.as_deref(), deadline).await
    }
}

impl<'a> IntoFuture for DescribeTopicConfigs<'a> {
    type Output = Result<BTreeMap<String, ConfigValue>, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// Changes of settings: say which, then `.await` them.
///
/// All of them can be done twice without harm, so a lost answer is no trouble: they are asked for again.
///
/// # Errors
/// [`Error::InvalidInput`], before anything is sent, for no change, a setting without a name and one that is given twice.
/// [`Error::UnknownTopic`] after [`Deadlines::unknown_topic`](crate::Deadlines::unknown_topic). [`Error::Broker`] for what
/// the cluster refuses, with its words: among others `INVALID_CONFIG`, `POLICY_VIOLATION`, `TOPIC_AUTHORIZATION_FAILED`;
/// then nothing is altered. [`Error::DeadlineExceeded`], with an [`Error::outcome`] of `Unknown`.
///
/// # Cancellation
/// Dropped, the settings may be altered or not, all of them.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct AlterTopicConfigs<'a> {
    controller: &'a ControllerClient,
    topic: String,
    changes: Vec<AlterableConfig>,
    validate_only: bool,
}

/// What is done to a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

impl AlterTopicConfigs<'_> {
    /// Gives a setting a value.
    pub fn set(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(name.into(), SET, Some(value.into()))
    }

    /// Takes the topic's own value from a setting: what the brokers have for it holds again, or the default.
    pub fn delete(self, name: impl Into<String>) -> Self {
        self.change(name.into(), DELETE, None)
    }

    /// Adds to a setting that is a list, such as `cleanup.policy`: one element, or several between commas.
    pub fn append(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(name.into(), APPEND, Some(value.into()))
    }

    /// Takes from a setting that is a list: one element, or several between commas.
    pub fn subtract(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(name.into(), SUBTRACT, Some(value.into()))
    }

    /// Only checks that the settings could be altered. Default: no.
    pub fn validate_only(mut self, validate_only: bool) -> Self {
        self.validate_only = validate_only;
        self
    }

    fn change(mut self, name: String, config_operation: i8, value: Option<String>) -> Self {
        self.changes.push(AlterableConfig { name, config_operation, value });
        self
    }

    async fn run(self) -> Result<(), Error> {
        check_topic(&self.topic)?;
        check_configs(self.changes.iter().map(|change| change.name.as_str()))?;
        if self.changes.is_empty() {
            return Err(Error::InvalidInput("no setting is to be altered".to_owned()));
        }
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: TOPIC,
                resource_name: self.topic.clone(),
                configs: self.changes,
            }],
            validate_only: self.validate_only,
        };
        let place = Place { topic: Some(&self.topic), partition: None };
        let question = Question::new(self.controller, place, Whom::Controller);
        let asked = self.controller.ask(
            question,
            |_| request.clone(),
            |response| {
                let result = response.responses.pop()?;
                Some((result.error_code, result.error_message, ()))
            },
        );
        Ok(asked.await?)
    }
}

impl<'a> IntoFuture for AlterTopicConfigs<'a> {
    type Output = Result<(), Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_mean_the_same() {
        for (kind, one, other, same) in [
            (ConfigKind::Number, "1000", " 1000", true),
            (ConfigKind::Number, "1000", "01000", true),
            (ConfigKind::Number, "9223372036854775807", "9223372036854775806", false),
            (ConfigKind::Number, "0.5", "0.50", true),
            (ConfigKind::Number, "-1", "1", false),
            (ConfigKind::Number, "soon", "later", false),
            (ConfigKind::Bool, "True", "true", true),
            (ConfigKind::List, "compact, delete", "delete,compact", true),
            (ConfigKind::List, "delete", "delete,compact", false),
            (ConfigKind::List, "delete,delete", "delete", true),
            (ConfigKind::Text, "CreateTime", "createtime", false),
            (ConfigKind::Text, "CreateTime ", "CreateTime", true),
        ] {
            assert_eq!(kind.same(one, other), same, "{kind:?} {one} {other}");
        }
    }
}
