//! DescribeConfigs and IncrementalAlterConfigs: the configs of topics and brokers.

use std::{collections::BTreeMap, fmt};

use kwal_protocol::messages::{
    AlterConfigsResource, AlterableConfig, DescribeConfigsRequest, DescribeConfigsResource,
    DescribeConfigsResponse, DescribedConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use tracing::Span;

use super::ControllerClient;
use crate::{
    error::Error,
    request::{call_span, request},
    routing::{Deadline, Operation, Rejection, Route, Target, only},
    validate,
};

/// The value of a config in force, and where it comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConfigValue {
    /// The value; `None` if there is none or it is sensitive.
    pub value: Option<String>,
    /// Where it is set.
    pub source: ConfigSource,
    /// Whether it cannot be changed while the broker runs.
    pub is_read_only: bool,
    /// Whether it is secret: brokers do not return its value.
    pub is_sensitive: bool,
    /// Every value that is set for it, in order of precedence: if the first is deleted, the next one applies.
    pub synonyms: Vec<ConfigSynonym>,
    pub(super) kind: ConfigKind,
}

/// A value that is set for a config somewhere, in force or overridden.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConfigSynonym {
    /// The name of the config there: `log.retention.ms` of a broker is `retention.ms` of a topic.
    pub name: String,
    /// The value; `None` if it is sensitive.
    pub value: Option<String>,
    /// Where it is set.
    pub source: ConfigSource,
}

/// Where the value of a config comes from (KIP-226).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ConfigSource {
    /// Set for the topic itself.
    Topic,
    /// Set dynamically for this broker.
    DynamicBroker,
    /// Set dynamically for all brokers.
    DynamicDefaultBroker,
    /// Set in the broker's `server.properties`.
    StaticBroker,
    /// Kafka's default.
    Default,
    /// Another source, by its number in the protocol; −1 if the broker is too old to report it.
    Other(i8),
}

impl ConfigSource {
    fn from_wire(source: i8) -> Self {
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
            Self::Other(-1) => f.write_str("unknown source"),
            Self::Other(source) => write!(f, "source {source}"),
        }
    }
}

/// The type of a value, which decides how values are compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ConfigKind {
    Bool,
    Number,
    List,
    /// Text, or a type that is not known.
    Text,
}

impl ConfigKind {
    /// Whether two values mean the same.
    pub(super) fn same(self, one: &str, other: &str) -> bool {
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

/// The resource types of `DescribeConfigsRequest.json`.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

impl ControllerClient {
    /// Describes the configs of a topic by name, including brokers' values and defaults.
    ///
    /// Await it, or select some configs first.
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
        DescribeTopicConfigs { controller: self, topic: topic.into(), names: None, deadline: None }
    }

    /// Changes some configs of a topic and leaves the others as they are (KIP-339; Kafka 2.3).
    ///
    /// Add changes, then await it. Either all are applied or none; brokers use the new values a moment later.
    ///
    /// ```no_run
    /// # async fn alter(controller: kwal_client::ControllerClient) -> Result<(), kwal_client::error::Error> {
    /// controller.alter_topic_configs("wal").set("retention.ms", "-1").delete("retention.bytes").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn alter_topic_configs(&self, topic: impl Into<String>) -> AlterTopicConfigs<'_> {
        AlterTopicConfigs {
            controller: self,
            topic: topic.into(),
            changes: Vec::new(),
            validate_only: false,
            deadline: None,
        }
    }

    /// Describes the configs of a topic.
    pub(super) async fn topic_configs(
        &self,
        topic: &str,
        names: Option<&[String]>,
        deadline: Deadline,
    ) -> Result<BTreeMap<String, ConfigValue>, Error> {
        let describe = Describe { resource_type: TOPIC, resource_name: topic.to_owned(), names };
        Ok(self.call_topic(Target::Any, topic, &describe, deadline).await?)
    }

    /// Describes the configs of a broker. Only that broker can do so.
    pub(super) async fn broker_configs(
        &self,
        broker: i32,
        names: &[String],
        deadline: Deadline,
    ) -> Result<BTreeMap<String, ConfigValue>, Error> {
        let describe =
            Describe { resource_type: BROKER, resource_name: broker.to_string(), names: Some(names) };
        Ok(self.call_cluster(Target::Broker(broker), &describe, deadline).await?)
    }
}

#[derive(Debug)]
struct Describe<'a> {
    resource_type: i8,
    resource_name: String,
    names: Option<&'a [String]>,
}

impl Operation for Describe<'_> {
    type Request = DescribeConfigsRequest;
    type Output = BTreeMap<String, ConfigValue>;

    fn request(&self, _route: &Route<'_>) -> DescribeConfigsRequest {
        DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: self.resource_type,
                resource_name: self.resource_name.clone(),
                configuration_keys: self.names.map(<[String]>::to_vec),
            }],
            include_synonyms: true,
            include_documentation: false,
        }
    }

    fn response(
        &self,
        _route: &Route<'_>,
        response: DescribeConfigsResponse,
    ) -> Result<BTreeMap<String, ConfigValue>, Rejection> {
        let result = only(response.results, |result| {
            result.resource_type == self.resource_type && result.resource_name == self.resource_name
        })?;
        Rejection::check_with(result.error_code, result.error_message)?;
        let count = result.configs.len();
        let configs: BTreeMap<_, _> = result.configs.into_iter().map(config).collect();
        if configs.len() == count { Ok(configs) } else { Err(Rejection::Missing) }
    }
}

fn config(config: DescribedConfig) -> (String, ConfigValue) {
    let synonyms = config.synonyms.into_iter().map(|synonym| ConfigSynonym {
        name: synonym.name,
        value: synonym.value,
        source: ConfigSource::from_wire(synonym.source),
    });
    let value = ConfigValue {
        value: config.value,
        source: ConfigSource::from_wire(config.config_source),
        is_read_only: config.read_only,
        is_sensitive: config.is_sensitive,
        synonyms: synonyms.collect(),
        kind: match config.config_type {
            1 => ConfigKind::Bool,
            3..=6 => ConfigKind::Number,
            7 => ConfigKind::List,
            _ => ConfigKind::Text,
        },
    };
    (config.name, value)
}

request! {
    /// A description of a topic's configs: await it, or select some first.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`](crate::error::ErrorKind::UnknownTopic) after
    /// [`Deadlines::unknown_topic`](crate::Deadlines::unknown_topic).
    /// [`ErrorKind::Broker`](crate::error::ErrorKind::Broker) with `TOPIC_AUTHORIZATION_FAILED` if this
    /// client may not see them. [`ErrorKind::DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded).
    ///
    /// # Cancellation safety
    /// Cancel safe.
    pub struct DescribeTopicConfigs<'a> -> Result<BTreeMap<String, ConfigValue>, Error> {
        controller: &'a ControllerClient,
        topic: String,
        names: Option<Vec<String>>,
    }
}

impl DescribeTopicConfigs<'_> {
    /// Sets which configs to describe. The result lacks those that the broker does not know. Default: all.
    pub fn only<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    fn span(&self) -> Span {
        call_span!("describe_topic_configs", &self.topic)
    }

    async fn run(self) -> Result<BTreeMap<String, ConfigValue>, Error> {
        validate::topic_name(&self.topic)?;
        // Brokers take an empty list for all configs.
        if self.names.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::invalid_input("no config is requested"));
        }
        let deadline = self.controller.deadline(self.deadline);
        self.controller.topic_configs(&self.topic, self.names.as_deref(), deadline).await
    }
}

request! {
    /// A change of a topic's configs: add changes, then await it.
    ///
    /// Every change is idempotent, so it is sent again after a lost response.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput), before anything is sent, if there
    /// is no change, or for an empty or duplicate name.
    /// [`ErrorKind::UnknownTopic`](crate::error::ErrorKind::UnknownTopic) after
    /// [`Deadlines::unknown_topic`](crate::Deadlines::unknown_topic).
    /// [`ErrorKind::Broker`](crate::error::ErrorKind::Broker), with the broker's message, for what the
    /// cluster rejects: among others `INVALID_CONFIG`, `POLICY_VIOLATION`, `TOPIC_AUTHORIZATION_FAILED`; then
    /// nothing is changed. [`ErrorKind::DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded), with
    /// outcome `Unknown`.
    ///
    /// # Cancellation safety
    /// If it is dropped, either all changes may be applied or none.
    pub struct AlterTopicConfigs<'a> -> Result<(), Error> {
        controller: &'a ControllerClient,
        topic: String,
        changes: Vec<AlterableConfig>,
        validate_only: bool,
    }
}

/// The operations of `IncrementalAlterConfigsRequest.json`.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

impl AlterTopicConfigs<'_> {
    /// Sets a config.
    pub fn set(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(name.into(), SET, Some(value.into()))
    }

    /// Deletes the topic's own value of a config, so that the brokers' value or the default applies.
    pub fn delete(self, name: impl Into<String>) -> Self {
        self.change(name.into(), DELETE, None)
    }

    /// Appends elements, separated by commas, to a config that is a list, such as `cleanup.policy`.
    pub fn append(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(name.into(), APPEND, Some(value.into()))
    }

    /// Removes elements, separated by commas, from a config that is a list.
    pub fn subtract(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(name.into(), SUBTRACT, Some(value.into()))
    }

    /// Sets whether to only check that the configs could be changed. Default: no.
    pub fn validate_only(mut self, validate_only: bool) -> Self {
        self.validate_only = validate_only;
        self
    }

    fn change(mut self, name: String, config_operation: i8, value: Option<String>) -> Self {
        self.changes.push(AlterableConfig { name, config_operation, value });
        self
    }

    fn span(&self) -> Span {
        call_span!("alter_topic_configs", &self.topic)
    }

    async fn run(self) -> Result<(), Error> {
        let Self { controller, topic, changes, validate_only, deadline } = self;
        validate::topic_name(&topic)?;
        validate::config_names(changes.iter().map(|change| change.name.as_str()))?;
        if changes.is_empty() {
            return Err(Error::invalid_input("no config is to be changed"));
        }
        let deadline = controller.deadline(deadline);
        let alter = Alter { changes, validate_only };
        Ok(controller.call_topic(Target::Controller, &topic, &alter, deadline).await?)
    }
}

#[derive(Debug)]
struct Alter {
    changes: Vec<AlterableConfig>,
    validate_only: bool,
}

impl Operation for Alter {
    type Request = IncrementalAlterConfigsRequest;
    type Output = ();

    fn request(&self, route: &Route<'_>) -> IncrementalAlterConfigsRequest {
        IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: TOPIC,
                resource_name: route.topic.to_owned(),
                configs: self.changes.clone(),
            }],
            validate_only: self.validate_only,
        }
    }

    fn response(
        &self,
        route: &Route<'_>,
        response: IncrementalAlterConfigsResponse,
    ) -> Result<(), Rejection> {
        let result = only(response.responses, |result| {
            result.resource_type == TOPIC && result.resource_name == route.topic
        })?;
        Rejection::check_with(result.error_code, result.error_message)
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::{
        error_code::ErrorCode,
        messages::{self, AlterConfigsResult, DescribeConfigsResult},
    };

    use super::*;
    use crate::routing::rejected_code;

    fn route() -> Route<'static> {
        Route::of_partition("wal", 0)
    }

    #[test]
    fn some_configs_are_requested_or_all() {
        let names = ["retention.ms".to_owned()];
        for (resource_type, name, names) in [(TOPIC, "wal", Some(&names[..])), (BROKER, "4", None)] {
            let describe = Describe { resource_type, resource_name: name.to_owned(), names };
            let resource = DescribeConfigsResource {
                resource_type,
                resource_name: name.to_owned(),
                configuration_keys: names.map(<[String]>::to_vec),
            };
            let expected = DescribeConfigsRequest {
                resources: vec![resource],
                include_synonyms: true,
                include_documentation: false,
            };
            assert_eq!(describe.request(&route()), expected);
        }
    }

    fn described(result: Option<DescribeConfigsResult>) -> Result<BTreeMap<String, ConfigValue>, Rejection> {
        let describe = Describe { resource_type: TOPIC, resource_name: "wal".to_owned(), names: None };
        let of_wal = |result| DescribeConfigsResult {
            resource_type: TOPIC,
            resource_name: "wal".to_owned(),
            ..result
        };
        let results = result.into_iter().map(of_wal).collect();
        describe.response(&route(), DescribeConfigsResponse { results, ..Default::default() })
    }

    #[test]
    fn configs_have_their_kind_and_the_source_of_each_value() {
        for (config_type, kind) in [
            (0, ConfigKind::Text),
            (1, ConfigKind::Bool),
            (2, ConfigKind::Text),
            (3, ConfigKind::Number),
            (4, ConfigKind::Number),
            (5, ConfigKind::Number),
            (6, ConfigKind::Number),
            (7, ConfigKind::List),
            (8, ConfigKind::Text),
            (9, ConfigKind::Text),
        ] {
            let synonym = |name: &str, value: Option<&str>, source| messages::ConfigSynonym {
                name: name.to_owned(),
                value: value.map(str::to_owned),
                source,
            };
            let config = DescribedConfig {
                name: "retention.ms".to_owned(),
                value: None,
                read_only: true,
                config_source: 1,
                is_sensitive: true,
                synonyms: vec![synonym("retention.ms", None, 1), synonym("log.retention.ms", Some("5"), 4)],
                config_type,
                ..Default::default()
            };
            let configs =
                described(Some(DescribeConfigsResult { configs: vec![config], ..Default::default() }));
            let synonym = |name: &str, value: Option<&str>, source| ConfigSynonym {
                name: name.to_owned(),
                value: value.map(str::to_owned),
                source,
            };
            let expected = ConfigValue {
                value: None,
                source: ConfigSource::Topic,
                is_read_only: true,
                is_sensitive: true,
                synonyms: vec![
                    synonym("retention.ms", None, ConfigSource::Topic),
                    synonym("log.retention.ms", Some("5"), ConfigSource::StaticBroker),
                ],
                kind,
            };
            assert_eq!(configs.unwrap(), BTreeMap::from([("retention.ms".to_owned(), expected)]));
        }
    }

    #[test]
    fn sources_are_named_by_their_numbers() {
        for (source, expected, text) in [
            (-1, ConfigSource::Other(-1), "unknown source"),
            (1, ConfigSource::Topic, "set for the topic"),
            (2, ConfigSource::DynamicBroker, "set for the broker"),
            (3, ConfigSource::DynamicDefaultBroker, "set for all brokers"),
            (4, ConfigSource::StaticBroker, "set for the broker"),
            (5, ConfigSource::Default, "the default"),
            (6, ConfigSource::Other(6), "source 6"),
        ] {
            let source = ConfigSource::from_wire(source);
            assert_eq!((source, source.to_string().as_str()), (expected, text));
        }
    }

    #[test]
    fn a_description_that_is_rejected_has_the_broker_s_message() {
        let code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
        let message = Some("no".to_owned());
        let result =
            DescribeConfigsResult { error_code: code, error_message: message.clone(), ..Default::default() };
        assert_eq!(rejected_code(described(Some(result))), (code, message));
        assert!(matches!(described(None), Err(Rejection::Missing)));
        let config = DescribedConfig { name: "retention.ms".to_owned(), ..Default::default() };
        let result =
            |count| DescribeConfigsResult { configs: vec![config.clone(); count], ..Default::default() };
        assert_eq!(described(Some(result(1))).unwrap().len(), 1);
        assert!(matches!(described(Some(result(2))), Err(Rejection::Missing)));
    }

    #[test]
    fn changes_are_requested_in_order() {
        let change = |name: &str, config_operation, value: Option<&str>| AlterableConfig {
            name: name.to_owned(),
            config_operation,
            value: value.map(str::to_owned),
        };
        let changes = vec![
            change("a", 0, Some("1")),
            change("b", 1, None),
            change("c", 2, Some("x")),
            change("c", 3, Some("y")),
        ];
        let alter = Alter { changes: changes.clone(), validate_only: true };
        let resource =
            AlterConfigsResource { resource_type: TOPIC, resource_name: "wal".to_owned(), configs: changes };
        let expected = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: true };
        assert_eq!(alter.request(&route()), expected);
    }

    #[test]
    fn a_change_that_is_rejected_has_the_broker_s_message() {
        let respond = |responses| {
            let alter = Alter { changes: Vec::new(), validate_only: false };
            alter.response(&route(), IncrementalAlterConfigsResponse { responses, ..Default::default() })
        };
        let result = |error_code, message: &str| {
            let error_message = Some(message.to_owned());
            let resource_name = "wal".to_owned();
            vec![AlterConfigsResult { error_code, error_message, resource_type: TOPIC, resource_name }]
        };
        respond(result(ErrorCode::NONE, "")).unwrap();
        let code = ErrorCode::INVALID_CONFIG;
        assert_eq!(rejected_code(respond(result(code, "no"))), (code, Some("no".to_owned())));
        assert!(matches!(respond(Vec::new()), Err(Rejection::Missing)));
    }

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
