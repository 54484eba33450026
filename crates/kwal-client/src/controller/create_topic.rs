//! CreateTopics.

use std::time::Duration;

use kwal_protocol::{
    messages::{
        CreatableAssignment, CreatableConfig, CreatableTopic, CreateTopicsRequest, CreateTopicsResponse,
    },
    wire::Uuid,
};
use tracing::Span;

use super::{BrokerTimeout, ControllerClient};
use crate::{
    config::Deadlines,
    error::Error,
    request::{call_span, request},
    routing::{CallFailed, Deadline, Operation, Rejection, Route, Target, only},
    validate,
};

impl ControllerClient {
    /// Creates a topic. Await it, or configure it first.
    ///
    /// A number of partitions or a replication factor of −1 is the broker's default.
    ///
    /// A log needs three replicas, `min.insync.replicas` of 2 and an explicit retention: by default, brokers
    /// delete records after seven days. [`audit`](Self::audit) checks these and other configs.
    ///
    /// ```no_run
    /// # async fn run(controller: kwal_client::ControllerClient) -> Result<(), kwal_client::error::Error> {
    /// let created = controller
    ///     .create_topic("wal", 4, 3)
    ///     .config("retention.ms", "-1")
    ///     .config("min.insync.replicas", "2")
    ///     .await?;
    /// assert_eq!(created.partitions, 4);
    /// # Ok(())
    /// # }
    /// ```
    pub fn create_topic(
        &self,
        name: impl Into<String>,
        partitions: i32,
        replication_factor: i16,
    ) -> CreateTopic<'_> {
        CreateTopic {
            controller: self,
            name: name.into(),
            partitions,
            replication_factor,
            assignment: None,
            configs: Vec::new(),
            timeout: BrokerTimeout::default(),
            validate_only: false,
            deadline: None,
        }
    }
}

request! {
    /// A topic to be created: configure it, then await it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput), before anything is sent, for an
    /// invalid name, for counts that are neither positive nor −1, for an assignment that is empty, names a
    /// broker twice for a partition, gives partitions different numbers of replicas or contradicts the two
    /// counts, and for duplicate configs. [`ErrorKind::Broker`](crate::error::ErrorKind::Broker), with the
    /// broker's message, for what the cluster rejects: among others `TOPIC_ALREADY_EXISTS` (its
    /// [outcome](Error::outcome) is `Unknown` if an earlier attempt of this call may have created it),
    /// `INVALID_REPLICATION_FACTOR`, `INVALID_CONFIG`, `POLICY_VIOLATION`.
    /// [`ErrorKind::DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded).
    ///
    /// # Cancellation safety
    /// If it is dropped, the topic may be created or not.
    pub struct CreateTopic<'a> -> Result<CreatedTopic, Error> {
        controller: &'a ControllerClient,
        name: String,
        partitions: i32,
        replication_factor: i16,
        assignment: Option<Vec<Vec<i32>>>,
        configs: Vec<(String, String)>,
        timeout: BrokerTimeout,
        validate_only: bool,
    }
}

/// A topic that was created.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CreatedTopic {
    /// Its name.
    pub name: String,
    /// Its id (KIP-516); `None` if the broker is too old for it or the topic was only validated.
    pub id: Option<Uuid>,
    /// How many partitions it has; −1 if the broker chose and does not report it: it is too old, or this
    /// client lacks the right `DescribeConfigs` on the topic.
    pub partitions: i32,
    /// How many replicas each partition has; −1 in the same cases.
    pub replication_factor: i16,
}

impl CreateTopic<'_> {
    /// Sets a config of the topic, by its name in Kafka's documentation.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.push((name.into(), value.into()));
        self
    }

    /// Sets which brokers hold each partition, the preferred leader first.
    ///
    /// Number of partitions and replication factor must be −1 or agree with it.
    pub fn assignment(mut self, brokers_by_partition: Vec<Vec<i32>>) -> Self {
        self.assignment = Some(brokers_by_partition);
        self
    }

    /// Sets how long the broker waits until the topic exists. Default: nine tenths of
    /// [`Deadlines::request`](crate::Deadlines::request). A longer one extends the time limit of the request.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = BrokerTimeout(Some(timeout));
        self
    }

    /// Sets whether to only check that the topic could be created. Default: no.
    pub fn validate_only(mut self, validate_only: bool) -> Self {
        self.validate_only = validate_only;
        self
    }

    fn validate(&self) -> Result<(), Error> {
        validate::topic_name(&self.name)?;
        validate::topic_size(self.partitions, self.replication_factor)?;
        validate::config_names(self.configs.iter().map(|(name, _)| name.as_str()))?;
        let Some(assignment) = &self.assignment else { return Ok(()) };
        let replicas = validate::assignment(assignment)?;
        let agrees = |count: i64, assigned: usize| count == -1 || usize::try_from(count) == Ok(assigned);
        if agrees(self.partitions.into(), assignment.len())
            && agrees(self.replication_factor.into(), replicas)
        {
            return Ok(());
        }
        Err(Error::invalid_input(format!(
            "{} partitions with {} replicas were requested, but {} with {replicas} assigned",
            self.partitions,
            self.replication_factor,
            assignment.len()
        )))
    }

    /// Creates the topic without validation.
    pub(super) async fn create(&self, deadline: Deadline) -> Result<CreatedTopic, CallFailed> {
        self.controller.call_topic(Target::Controller, &self.name, &Create(self), deadline).await
    }

    fn span(&self) -> Span {
        call_span!("create_topic", &self.name)
    }

    async fn run(self) -> Result<CreatedTopic, Error> {
        self.validate()?;
        let deadline = self.controller.deadline(self.deadline);
        Ok(self.create(deadline).await?)
    }
}

#[derive(Debug)]
struct Create<'a>(&'a CreateTopic<'a>);

impl Operation for Create<'_> {
    type Request = CreateTopicsRequest;
    type Output = CreatedTopic;

    fn request(&self, route: &Route<'_>) -> CreateTopicsRequest {
        let topic = self.0;
        let assigned = |(partition_index, brokers): (i32, &Vec<i32>)| CreatableAssignment {
            partition_index,
            broker_ids: brokers.clone(),
        };
        let config = |(name, value): &(String, String)| CreatableConfig {
            name: name.clone(),
            value: Some(value.clone()),
        };
        let assignment = topic.assignment.as_deref().unwrap_or_default();
        // Brokers accept either the counts or the assignment.
        let (num_partitions, replication_factor) = match &topic.assignment {
            Some(_) => (-1, -1),
            None => (topic.partitions, topic.replication_factor),
        };
        CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.name.clone(),
                num_partitions,
                replication_factor,
                assignments: (0..).zip(assignment).map(assigned).collect(),
                configs: topic.configs.iter().map(config).collect(),
            }],
            timeout_ms: topic.timeout.timeout_ms(route),
            validate_only: topic.validate_only,
        }
    }

    fn response(
        &self,
        _route: &Route<'_>,
        response: CreateTopicsResponse,
    ) -> Result<CreatedTopic, Rejection> {
        let topic = self.0;
        let created = only(response.topics, |created| created.name == topic.name)?;
        Rejection::check_with(created.error_code, created.error_message)?;
        let (partitions, replicas) = match &topic.assignment {
            Some(brokers) => (brokers.len() as i32, brokers.first().map_or(-1, |first| first.len() as i16)),
            None => (topic.partitions, topic.replication_factor),
        };
        Ok(CreatedTopic {
            name: created.name,
            id: (!created.topic_id.is_zero() && !topic.validate_only).then_some(created.topic_id),
            partitions: if created.num_partitions >= 0 { created.num_partitions } else { partitions },
            replication_factor: match created.replication_factor {
                0.. => created.replication_factor,
                _ => replicas,
            },
        })
    }

    fn time_limit(&self, deadlines: &Deadlines, _granted: Duration) -> Option<Duration> {
        self.0.timeout.time_limit(deadlines)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kwal_protocol::{error_code::ErrorCode, messages::CreateTopicsResult};
    use tokio::runtime::Handle;

    use super::*;
    use crate::{cluster::Cluster, config::Config, routing::rejected_code};

    const ID: Uuid = Uuid([5; 16]);

    fn controller() -> ControllerClient {
        ControllerClient::new(Arc::new(Cluster::new(Config::default(), Handle::current())))
    }

    fn respond(topic: &CreateTopic<'_>, created: CreateTopicsResult) -> Result<CreatedTopic, Rejection> {
        let response = CreateTopicsResponse { topics: vec![created], ..Default::default() };
        Create(topic).response(&Route::of_partition("wal", 0), response)
    }

    #[tokio::test]
    async fn either_the_counts_or_the_assignment_are_requested() {
        let controller = controller();
        let topic = || controller.create_topic("wal", 2, 3).config("a", "1").config("b", "2");
        let config = |name: &str, value: &str| CreatableConfig {
            name: name.to_owned(),
            value: Some(value.to_owned()),
        };
        let assigned = |partition_index, broker_ids| CreatableAssignment { partition_index, broker_ids };
        for (topic, num_partitions, replication_factor, assignments, timeout_ms, validate_only) in [
            (topic(), 2, 3, vec![], 9000, false),
            (topic().timeout(Duration::from_secs(60)).validate_only(true), 2, 3, vec![], 60_000, true),
            (
                topic().assignment(vec![vec![1, 2, 3], vec![3, 2, 1]]),
                -1,
                -1,
                vec![assigned(0, vec![1, 2, 3]), assigned(1, vec![3, 2, 1])],
                9000,
                false,
            ),
        ] {
            let expected = CreatableTopic {
                name: "wal".to_owned(),
                num_partitions,
                replication_factor,
                assignments,
                configs: vec![config("a", "1"), config("b", "2")],
            };
            let request = Create(&topic).request(&Route::of_partition("wal", 0));
            assert_eq!(request, CreateTopicsRequest { topics: vec![expected], timeout_ms, validate_only });
        }
    }

    #[tokio::test]
    async fn a_longer_timeout_of_the_broker_extends_that_of_the_request() {
        let controller = controller();
        let limit = |topic: CreateTopic<'_>| Create(&topic).time_limit(&Deadlines::default(), Duration::ZERO);
        let topic = || controller.create_topic("wal", 2, 3);
        for (timeout, expected) in [(0, 10), (9, 10), (10, 11), (60, 61)] {
            let timeout = Duration::from_secs(timeout);
            assert_eq!(limit(topic().timeout(timeout)), Some(Duration::from_secs(expected)), "{timeout:?}");
        }
        assert_eq!(limit(topic()), None);
    }

    #[tokio::test]
    async fn what_an_old_broker_does_not_report_is_what_was_requested() {
        let controller = controller();
        let counts = |partitions, factor| controller.create_topic("wal", partitions, factor);
        let assignment = || counts(-1, -1).assignment(vec![vec![1, 2, 3]; 4]);
        for (topic, topic_id, reported, id, created) in [
            (counts(2, 3), ID, (2, 3), Some(ID), (2, 3)),
            (counts(-1, -1), ID, (6, 1), Some(ID), (6, 1)),
            (counts(2, 3), Uuid::default(), (-1, -1), None, (2, 3)),
            (counts(-1, -1), Uuid::default(), (-1, -1), None, (-1, -1)),
            (assignment(), Uuid::default(), (-1, -1), None, (4, 3)),
            (assignment(), ID, (4, 3), Some(ID), (4, 3)),
            // The id of a topic that does not exist.
            (counts(2, 3).validate_only(true), ID, (2, 3), None, (2, 3)),
        ] {
            let response = CreateTopicsResult {
                name: "wal".to_owned(),
                topic_id,
                num_partitions: reported.0,
                replication_factor: reported.1,
                ..Default::default()
            };
            let (partitions, replication_factor) = created;
            let expected = CreatedTopic { name: "wal".to_owned(), id, partitions, replication_factor };
            assert_eq!(respond(&topic, response).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_rejection_has_the_broker_s_message() {
        let controller = controller();
        let topic = controller.create_topic("wal", 2, 3);
        let code = ErrorCode::INVALID_REPLICATION_FACTOR;
        for (message, expected) in [(None, None), (Some(""), None), (Some("too many"), Some("too many"))] {
            let error_message = message.map(str::to_owned);
            let name = "wal".to_owned();
            let created = CreateTopicsResult { name, error_code: code, error_message, ..Default::default() };
            let expected = expected.map(str::to_owned);
            assert_eq!(rejected_code(respond(&topic, created)), (code, expected));
        }
        let response = CreateTopicsResponse::default();
        let empty = Create(&topic).response(&Route::of_partition("wal", 0), response);
        assert!(matches!(empty, Err(Rejection::Missing)));
    }
}
