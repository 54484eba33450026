//! Creating topics.

use std::{future::IntoFuture, time::Duration};

use kwal_protocol::{
    messages::{
        CreatableAssignment, CreatableConfig, CreatableTopic, CreateTopicsRequest, CreateTopicsResponse,
    },
    wire::Uuid,
};
use kwal_transport::BoxFuture;
use tokio::time::Instant;

use super::{ControllerClient, Question, Refused, Told, Whom, check_assignment, check_configs};
use crate::{client::check_topic, cluster::Place, error::Error};

impl ControllerClient {
    /// Creates a topic of so many partitions with so many replicas each; −1 is the broker's default of either. Await it, or
    /// set first what it should be like.
    ///
    /// A log wants at least `min.insync.replicas` of 2 with three replicas, and its retention told: brokers delete after seven
    /// days by default. [`audit`](Self::audit) says what else.
    ///
    /// ```no_run
    /// # async fn create(controller: kwal_client::ControllerClient) -> Result<(), kwal_client::error::Error> {
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
            timeout: None,
            validate_only: false,
        }
    }
}

/// A topic to be: set what it should be like, then `.await` it.
///
/// # Errors
/// [`Error::InvalidInput`], before anything is sent, for a name that cannot be one, for numbers that are neither positive
/// nor −1, for an assignment that is empty, names a broker twice for a partition, gives partitions different numbers of
/// replicas or contradicts the two numbers, and for settings that are given twice. [`Error::Broker`] for what the cluster
/// refuses, with its words: among others `TOPIC_ALREADY_EXISTS` (its [`Error::outcome`] is `Unknown` if an earlier attempt
/// of this call may have created it), `INVALID_REPLICATION_FACTOR`, `INVALID_CONFIG`, `POLICY_VIOLATION`.
/// [`Error::DeadlineExceeded`].
///
/// # Cancellation
/// Dropped, the topic may be created or not.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct CreateTopic<'a> {
    controller: &'a ControllerClient,
    name: String,
    partitions: i32,
    replication_factor: i16,
    assignment: Option<Vec<Vec<i32>>>,
    configs: Vec<(String, String)>,
    timeout: Option<Duration>,
    validate_only: bool,
}

/// A topic that was created.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CreatedTopic {
    /// Its name.
    pub name: String,
    /// Its id (KIP-516); `None` if the broker is too old to tell, and of a topic that was only checked.
    pub id: Option<Uuid>,
    /// How many partitions it has; −1 if it was left to the broker and that is too old to tell.
    pub partitions: i32,
    /// How many replicas each has; −1 likewise.
    pub replication_factor: i16,
}

impl CreateTopic<'_> {
    /// Sets one of the topic's settings, as Kafka's documentation names them.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.push((name.into(), value.into()));
        self
    }

    /// Says which brokers hold which partition, the preferred leader first. The two numbers follow from it: they are −1, or
    /// agree with it.
    pub fn assignment(mut self, brokers_by_partition: Vec<Vec<i32>>) -> Self {
        self.assignment = Some(brokers_by_partition);
        self
    }

    /// How long the broker waits until the topic is there. Default: nine tenths of
    /// [`Deadlines::request`](crate::Deadlines::request), which is given to the request on top of a longer one.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Only checks that the topic could be created. Default: no.
    pub fn validate_only(mut self, validate_only: bool) -> Self {
        self.validate_only = validate_only;
        self
    }

    fn check(&self) -> Result<(), Error> {
        check_topic(&self.name)?;
        check_numbers(self.partitions, self.replication_factor)?;
        check_configs(self.configs.iter().map(|(name, _)| name.as_str()))?;
        let Some(assignment) = &self.assignment else { return Ok(()) };
        let replicas = check_assignment(assignment)?;
        let agrees = |number: i64, assigned: usize| number == -1 || usize::try_from(number) == Ok(assigned);
        if agrees(self.partitions.into(), assignment.len())
            && agrees(self.replication_factor.into(), replicas)
        {
            return Ok(());
        }
        Err(Error::InvalidInput(format!(
            "{} partitions with {} replicas were asked for, and {} with {replicas} assigned",
            self.partitions,
            self.replication_factor,
            assignment.len()
        )))
    }

    /// Creates it, what it is to be like having been checked.
    pub(super) async fn by(self, deadline: Instant) -> Result<CreatedTopic, Refused> {
        let place = Place { topic: Some(&self.name), partition: None };
        let question = Question { place, whom: Whom::Controller, deadline, wait: self.timeout };
        let request = self.request();
        self.controller.ask(question, |_| request.clone(), |response| self.created(response)).await
    }

    fn request(&self) -> CreateTopicsRequest {
        let assigned = |(partition_index, brokers): (i32, &Vec<i32>)| CreatableAssignment {
            partition_index,
            broker_ids: brokers.clone(),
        };
        let config = |(name, value): &(String, String)| CreatableConfig {
            name: name.clone(),
            value: Some(value.clone()),
        };
        let assignment = self.assignment.as_deref().unwrap_or_default();
        // Brokers want either the numbers or the assignment.
        let (num_partitions, replication_factor) = match &self.assignment {
            Some(_) => (-1, -1),
            None => (self.partitions, self.replication_factor),
        };
        let topic = CreatableTopic {
            name: self.name.clone(),
            num_partitions,
            replication_factor,
            assignments: (0..).zip(assignment).map(assigned).collect(),
            configs: self.configs.iter().map(config).collect(),
        };
        CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: self.controller.broker_wait(self.timeout),
            validate_only: self.validate_only,
        }
    }

    fn created(&self, response: &mut CreateTopicsResponse) -> Option<Told<CreatedTopic>> {
        let told = response.topics.pop()?;
        let (partitions, replicas) = match &self.assignment {
            Some(brokers) => (brokers.len() as i32, brokers.first().map_or(-1, |first| first.len() as i16)),
            None => (self.partitions, self.replication_factor),
        };
        let created = CreatedTopic {
            name: told.name,
            id: (!told.topic_id.is_zero() && !self.validate_only).then_some(told.topic_id),
            partitions: if told.num_partitions >= 0 { told.num_partitions } else { partitions },
            replication_factor: if told.replication_factor >= 0 { told.replication_factor } else { replicas },
        };
        Some((told.error_code, told.error_message, created))
    }

    async fn run(self) -> Result<CreatedTopic, Error> {
        self.check()?;
        let deadline = self.controller.deadline();
        Ok(self.by(deadline).await?)
    }
}

/// Refuses numbers that no topic can have; −1 leaves either to the broker.
pub(super) fn check_numbers(partitions: i32, replication_factor: i16) -> Result<(), Error> {
    let what = match (partitions, replication_factor) {
        (..=-2 | 0, _) => format!("{partitions} partitions"),
        (_, ..=-2 | 0) => format!("{replication_factor} replicas"),
        _ => return Ok(()),
    };
    Err(Error::InvalidInput(format!("a topic cannot have {what}; -1 leaves it to the broker")))
}

impl<'a> IntoFuture for CreateTopic<'a> {
    type Output = Result<CreatedTopic, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
