//! Creating and deleting topics.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use kwal_protocol::{
    error_code::{Effect, ErrorCode},
    messages::{
        CreatableAssignment, CreatableConfig, CreatableTopic, CreateTopicsRequest, DeleteTopic,
        DeleteTopicsRequest,
    },
    wire::Uuid,
};
use kwal_transport::BoxFuture;

use crate::{
    client::check_topic,
    cluster::{Cluster, Place},
    error::Error,
    speak::Speak,
};

/// Creates and deletes topics. Made by [`Client::controller_client`](crate::Client::controller_client); cheap to clone.
#[derive(Clone, Debug)]
pub struct ControllerClient {
    cluster: Arc<Cluster>,
}

impl ControllerClient {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    /// Creates a topic of so many partitions with so many replicas each; −1 is the broker's default of either. Await it, or
    /// set first what it should be like.
    ///
    /// A log wants at least `min.insync.replicas` of 2 with three replicas, and its retention told: brokers delete after seven
    /// days by default.
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
            assignment: Vec::new(),
            configs: Vec::new(),
            timeout: None,
            validate_only: false,
        }
    }

    /// Deletes a topic, with all its records.
    ///
    /// # Errors
    /// [`Error::Broker`] with `UNKNOWN_TOPIC_OR_PARTITION` if there is none of this name; then
    /// [`Error::outcome`] is `Unknown` if an attempt of this call may have deleted it. Else as
    /// [`create_topic`](Self::create_topic).
    ///
    /// # Cancellation
    /// Dropped, the topic may be deleted or not.
    pub async fn delete_topic(&self, name: impl Into<String>) -> Result<(), Error> {
        let name = name.into();
        check_topic(&name)?;
        let request = |version| DeleteTopicsRequest {
            timeout_ms: self.broker_wait(None),
            ..match version {
                // The newer list has no place in the older versions, nor the older one in the newer.
                ..6 => DeleteTopicsRequest { topic_names: vec![name.clone()], ..Default::default() },
                _ => {
                    let topic = DeleteTopic { name: Some(name.clone()), ..DeleteTopic::default() };
                    DeleteTopicsRequest { topics: vec![topic], ..Default::default() }
                }
            }
        };
        let result = self
            .administer(&name, request, |response| {
                let result = response.responses.pop()?;
                Some((result.error_code, result.error_message, ()))
            })
            .await;
        self.cluster.forget(&name);
        result
    }

    /// How long the broker waits: a little shorter than we wait for the broker.
    fn broker_wait(&self, timeout: Option<Duration>) -> i32 {
        let wait = timeout.unwrap_or(self.cluster.config.deadlines.request * 9 / 10);
        i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)
    }

    /// Asks the controller, wherever it is, until it has an answer. The request depends on the
    /// version that is spoken.
    async fn administer<R: Speak, T>(
        &self,
        topic: &str,
        request: impl Fn(i16) -> R,
        mut answer: impl FnMut(&mut R::Response) -> Option<(ErrorCode, Option<String>, T)>,
    ) -> Result<T, Error> {
        let place = Place { topic: Some(topic), partition: None };
        let mut attempts = self.cluster.attempts(R::KEY, place);
        let mut open = false;
        let mut first = true;
        loop {
            let attempt = async {
                if !first {
                    self.cluster.refresh().await?;
                }
                let Some(controller) = self.cluster.metadata().controller else {
                    let at = place.at(R::KEY, None);
                    return Err(Error::Broker { code: ErrorCode::NOT_CONTROLLER, message: None, at });
                };
                let lane = self.cluster.lane(controller, R::KEY, place).await?;
                let request = request(lane.version::<R>().unwrap_or(R::OURS.newest));
                let mut response = lane.call(&request, place, R::OURS, None).await?;
                let at = || place.at(R::KEY, Some(format!("broker {controller}")));
                match answer(&mut response) {
                    Some((ErrorCode::NONE, _, result)) => Ok(result),
                    Some((code, message, _)) => Err(Error::Broker { code, message, at: at() }),
                    None => Err(Error::NoAnswer { at: at() }),
                }
            };
            let error = match attempts.within(attempt).await {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            // A deadline may have cut an attempt off that was under way.
            open |= error.effect() == Effect::Unknown || matches!(error, Error::DeadlineExceeded { .. });
            first = false;
            if let Err(error) = attempts.again(error, 0).await {
                return Err(if open { error.unsettled(|| place.at(R::KEY, None)) } else { error });
            }
        }
    }
}

/// A topic to be: set what it should be like, then `.await` it.
///
/// # Errors
/// [`Error::InvalidInput`] for a name that cannot be one. [`Error::Broker`] for what the cluster refuses, with its words: among
/// others `TOPIC_ALREADY_EXISTS` (its [`Error::outcome`] is `Unknown` if an earlier attempt of this call may have
/// created it), `INVALID_REPLICATION_FACTOR`, `INVALID_CONFIG`, `POLICY_VIOLATION`.
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
    assignment: Vec<Vec<i32>>,
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
    /// Its id (KIP-516); `None` if the broker is too old to tell.
    pub id: Option<Uuid>,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many replicas each has.
    pub replication_factor: i16,
}

impl CreateTopic<'_> {
    /// Sets one of the topic's settings, as Kafka's documentation names them.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.push((name.into(), value.into()));
        self
    }

    /// Says which brokers hold which partition, the preferred leader first, in place of the two numbers.
    pub fn assignment(mut self, brokers_by_partition: Vec<Vec<i32>>) -> Self {
        self.assignment = brokers_by_partition;
        self
    }

    /// How long the broker waits until the topic is there. Default: nine tenths of
    /// [`Deadlines::request`](crate::Deadlines::request), which is the most that makes sense.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Only checks that the topic could be created.
    pub fn validate_only(mut self, validate_only: bool) -> Self {
        self.validate_only = validate_only;
        self
    }

    async fn run(self) -> Result<CreatedTopic, Error> {
        check_topic(&self.name)?;
        let assigned = !self.assignment.is_empty();
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: self.name.clone(),
                num_partitions: if assigned { -1 } else { self.partitions },
                replication_factor: if assigned { -1 } else { self.replication_factor },
                assignments: (0..)
                    .zip(self.assignment)
                    .map(|(partition_index, broker_ids)| CreatableAssignment { partition_index, broker_ids })
                    .collect(),
                configs: self
                    .configs
                    .into_iter()
                    .map(|(name, value)| CreatableConfig { name, value: Some(value) })
                    .collect(),
            }],
            timeout_ms: self.controller.broker_wait(self.timeout),
            validate_only: self.validate_only,
        };
        let told = |told: i16, asked: i16| if told >= 0 { told } else { asked };
        let (partitions, replication_factor) = (self.partitions, self.replication_factor);
        self.controller
            .administer(
                &self.name,
                |_| request.clone(),
                |response| {
                    let result = response.topics.pop()?;
                    let created = CreatedTopic {
                        name: result.name,
                        id: (!result.topic_id.is_zero()).then_some(result.topic_id),
                        partitions: if result.num_partitions >= 0 {
                            result.num_partitions
                        } else {
                            partitions
                        },
                        replication_factor: told(result.replication_factor, replication_factor),
                    };
                    Some((result.error_code, result.error_message, created))
                },
            )
            .await
    }
}

impl<'a> IntoFuture for CreateTopic<'a> {
    type Output = Result<CreatedTopic, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
