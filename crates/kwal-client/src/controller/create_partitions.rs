//! Giving a topic more partitions.

use std::{future::IntoFuture, time::Duration};

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic},
};
use kwal_transport::BoxFuture;
use tokio::time::Instant;

use super::{ControllerClient, Question, Refused, Whom, check_assignment};
use crate::{client::check_topic, cluster::Place, error::Error};

impl ControllerClient {
    /// Gives a topic more partitions, so that it has `total` of them (KIP-195). What lies in the others stays where it is;
    /// there is no way back.
    ///
    /// Await it, or set first where they are to be.
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
            timeout: None,
            validate_only: false,
        }
    }
}

/// Partitions to be: set where, then `.await` it.
///
/// `Ok` says that the topic has that many partitions now. If an answer was lost and the topic turns out to have them, that
/// is taken for this call's success.
///
/// # Errors
/// [`Error::InvalidInput`], before anything is sent, for a total that is not positive, and for an assignment that no
/// controller would take. [`Error::Broker`] for what the cluster refuses, with its words: among others
/// `INVALID_PARTITIONS` if the topic has as many or more, `UNKNOWN_TOPIC_OR_PARTITION`, `INVALID_REPLICA_ASSIGNMENT`.
/// [`Error::DeadlineExceeded`].
///
/// # Cancellation
/// Dropped, the partitions may be created or not.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct CreatePartitions<'a> {
    controller: &'a ControllerClient,
    topic: String,
    total: i32,
    assignment: Option<Vec<Vec<i32>>>,
    timeout: Option<Duration>,
    validate_only: bool,
}

impl CreatePartitions<'_> {
    /// Says which brokers hold each of the *new* partitions, the preferred leader first. Default: the controller decides.
    pub fn assignment(mut self, brokers_by_new_partition: Vec<Vec<i32>>) -> Self {
        self.assignment = Some(brokers_by_new_partition);
        self
    }

    /// How long the broker waits until the partitions are there. Default: nine tenths of
    /// [`Deadlines::request`](crate::Deadlines::request), which is given to the request on top of a longer one.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Only checks that the partitions could be created. Default: no.
    pub fn validate_only(mut self, validate_only: bool) -> Self {
        self.validate_only = validate_only;
        self
    }

    async fn run(self) -> Result<(), Error> {
        check_topic(&self.topic)?;
        if self.total < 1 {
            return Err(Error::InvalidInput(format!("a topic cannot have {} partitions", self.total)));
        }
        if let Some(assignment) = &self.assignment {
            check_assignment(assignment)?;
        }
        let deadline = self.controller.deadline();
        let asked = self.ask(self.total, self.assignment.as_deref(), self.validate_only, deadline).await;
        let result = match asked {
            Err(refused) if refused.open && refused.is(ErrorCode::INVALID_PARTITIONS) => {
                self.was_done(refused, deadline).await
            }
            result => result,
        };
        self.controller.cluster.forget(&self.topic);
        Ok(result?)
    }

    async fn ask(
        &self,
        total: i32,
        assignment: Option<&[Vec<i32>]>,
        validate_only: bool,
        deadline: Instant,
    ) -> Result<(), Refused> {
        let assigned = |brokers: &Vec<i32>| CreatePartitionsAssignment { broker_ids: brokers.clone() };
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: self.topic.clone(),
                count: total,
                assignments: assignment.map(|brokers| brokers.iter().map(assigned).collect()),
            }],
            timeout_ms: self.controller.broker_wait(self.timeout),
            validate_only,
        };
        let place = Place { topic: Some(&self.topic), partition: None };
        let question = Question { place, whom: Whom::Controller, deadline, wait: self.timeout };
        self.controller
            .ask(
                question,
                |_| request.clone(),
                |response| {
                    let result = response.results.pop()?;
                    Some((result.error_code, result.error_message, ()))
                },
            )
            .await
    }

    /// After a lost answer: the topic has no fewer partitions than asked for, says the controller. If it could have one more
    /// than that, it has exactly as many. Metadata might be behind, and the controller's words are only words.
    async fn was_done(&self, refused: Refused, deadline: Instant) -> Result<(), Refused> {
        match self.ask(self.total.saturating_add(1), None, true, deadline).await {
            Ok(()) => Ok(()),
            Err(_) => Err(refused),
        }
    }
}

impl<'a> IntoFuture for CreatePartitions<'a> {
    type Output = Result<(), Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
