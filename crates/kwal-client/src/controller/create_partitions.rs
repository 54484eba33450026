//! CreatePartitions (KIP-195).

use std::time::Duration;

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    },
};

use super::{BrokerTimeout, ControllerClient};
use crate::{
    config::Deadlines,
    error::Error,
    request::request,
    routing::{CallFailed, Deadline, Operation, Rejection, Route, Target},
    validate,
};

impl ControllerClient {
    /// Adds partitions to a topic, so that it has `total` of them.
    ///
    /// Existing records stay in their partitions. Partitions cannot be removed again.
    ///
    /// ```no_run
    /// # async fn grow(controller: kwal_client::ControllerClient) -> Result<(), kwal_client::error::Error> {
    /// controller.create_partitions("wal", 8).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn create_partitions(&self, topic: impl Into<String>, total: i32) -> CreatePartitions<'_> {
        CreatePartitions {
            controller: self,
            topic: topic.into(),
            total,
            assignment: None,
            timeout: BrokerTimeout::default(),
            validate_only: false,
            deadline: None,
        }
    }
}

request! {
    /// An addition of partitions: configure it, then await it.
    ///
    /// `Ok` means that the topic has exactly that many partitions, also if a response was lost and a later
    /// attempt found them created.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::error::ErrorKind::InvalidInput), before anything is sent, for a
    /// total that is not positive and for an invalid assignment.
    /// [`ErrorKind::Broker`](crate::error::ErrorKind::Broker), with the broker's message, for what the
    /// cluster rejects: among others `INVALID_PARTITIONS` if the topic has as many or more,
    /// `UNKNOWN_TOPIC_OR_PARTITION`, `INVALID_REPLICA_ASSIGNMENT`.
    /// [`ErrorKind::DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded).
    ///
    /// # Cancellation safety
    /// If it is dropped, the partitions may be created or not.
    pub struct CreatePartitions<'a> -> () {
        controller: &'a ControllerClient,
        topic: String,
        total: i32,
        assignment: Option<Vec<Vec<i32>>>,
        timeout: BrokerTimeout,
        validate_only: bool,
    }
}

impl CreatePartitions<'_> {
    /// Sets which brokers hold each of the *new* partitions, the preferred leader first.
    ///
    /// Default: the controller decides.
    pub fn assignment(mut self, brokers_by_new_partition: Vec<Vec<i32>>) -> Self {
        self.assignment = Some(brokers_by_new_partition);
        self
    }

    /// Sets how long the broker waits until the partitions exist. Default: nine tenths of
    /// [`Deadlines::request`](crate::Deadlines::request). A longer one extends the time limit of the request.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = BrokerTimeout(Some(timeout));
        self
    }

    /// Sets whether to only check that the partitions could be created. Default: no.
    pub fn validate_only(mut self, validate_only: bool) -> Self {
        self.validate_only = validate_only;
        self
    }

    async fn run(self) -> Result<(), Error> {
        validate::topic_name(&self.topic)?;
        if self.total < 1 {
            return Err(Error::invalid_input(format!("a topic cannot have {} partitions", self.total)));
        }
        if let Some(assignment) = &self.assignment {
            validate::assignment(assignment)?;
        }
        let deadline = self.controller.deadline(self.deadline);
        let create = Create {
            total: self.total,
            assignment: self.assignment.as_deref(),
            timeout: self.timeout,
            validate_only: self.validate_only,
        };
        let result = match self.create(&create, deadline).await {
            Err(failed) if failed.may_have_applied && failed.has_code(ErrorCode::INVALID_PARTITIONS) => {
                self.check_applied(failed, deadline).await
            }
            result => result,
        };
        self.controller.cluster.metadata.forget(&self.topic);
        Ok(result?)
    }

    async fn create(&self, create: &Create<'_>, deadline: Deadline) -> Result<(), CallFailed> {
        self.controller.call_topic(Target::Controller, &self.topic, create, deadline).await
    }

    /// Checks whether this call created the partitions, although its last attempt failed.
    ///
    /// A response was lost, and the next request was rejected because the topic has enough partitions.
    /// If one more could be added, it has exactly the requested number. Metadata may lag, and the controller's
    /// message is only text.
    async fn check_applied(&self, failed: CallFailed, deadline: Deadline) -> Result<(), CallFailed> {
        let one_more = Create {
            total: self.total.saturating_add(1),
            assignment: None,
            timeout: self.timeout,
            validate_only: true,
        };
        match self.create(&one_more, deadline).await {
            Ok(()) => Ok(()),
            Err(_) => Err(failed),
        }
    }
}

#[derive(Debug)]
struct Create<'a> {
    total: i32,
    assignment: Option<&'a [Vec<i32>]>,
    timeout: BrokerTimeout,
    validate_only: bool,
}

impl Operation for Create<'_> {
    type Request = CreatePartitionsRequest;
    type Output = ();

    fn request(&self, route: &Route<'_>) -> CreatePartitionsRequest {
        let assigned = |brokers: &Vec<i32>| CreatePartitionsAssignment { broker_ids: brokers.clone() };
        CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: route.topic.to_owned(),
                count: self.total,
                assignments: self.assignment.map(|brokers| brokers.iter().map(assigned).collect()),
            }],
            timeout_ms: self.timeout.timeout_ms(route),
            validate_only: self.validate_only,
        }
    }

    fn response(&self, _route: &Route<'_>, mut response: CreatePartitionsResponse) -> Result<(), Rejection> {
        let result = response.results.pop().ok_or(Rejection::Missing)?;
        Rejection::check_with(result.error_code, result.error_message)
    }

    fn time_limit(&self, deadlines: &Deadlines, _granted: Duration) -> Option<Duration> {
        self.timeout.time_limit(deadlines)
    }
}
