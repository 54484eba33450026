//! CreatePartitions (KIP-195).

use std::time::Duration;

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    },
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
    pub struct CreatePartitions<'a> -> Result<(), Error> {
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

    fn span(&self) -> Span {
        call_span!("create_partitions", &self.topic)
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
    /// A response was lost, and the next request was rejected because the topic has enough partitions. If one
    /// more could be added, it has exactly the requested number. Metadata may lag, and the controller's
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

    fn response(&self, route: &Route<'_>, response: CreatePartitionsResponse) -> Result<(), Rejection> {
        let result = only(response.results, |result| result.name == route.topic)?;
        Rejection::check_with(result.error_code, result.error_message)
    }

    fn time_limit(&self, deadlines: &Deadlines, _granted: Duration) -> Option<Duration> {
        self.timeout.time_limit(deadlines)
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::messages::CreatePartitionsTopicResult;

    use super::*;
    use crate::routing::rejected_code;

    const SECOND: Duration = Duration::from_secs(1);

    fn create<'a>(assignment: Option<&'a [Vec<i32>]>, timeout: Option<Duration>) -> Create<'a> {
        Create { total: 8, assignment, timeout: BrokerTimeout(timeout), validate_only: true }
    }

    #[test]
    fn the_total_and_the_assignment_of_the_new_partitions_are_requested() {
        let assigned = |broker_ids| CreatePartitionsAssignment { broker_ids };
        for (assignment, assignments) in [
            (None, None),
            (Some([vec![1, 2], vec![2, 1]]), Some(vec![assigned(vec![1, 2]), assigned(vec![2, 1])])),
        ] {
            let assignment = assignment.as_ref().map(<[_; 2]>::as_slice);
            let request = create(assignment, None).request(&Route::of_partition("wal", 0));
            let topics = vec![CreatePartitionsTopic { name: "wal".to_owned(), count: 8, assignments }];
            assert_eq!(request, CreatePartitionsRequest { topics, timeout_ms: 9000, validate_only: true });
        }
    }

    #[test]
    fn a_longer_timeout_of_the_broker_extends_that_of_the_request() {
        for (timeout, timeout_ms, limit) in [
            (None, 9000, None),
            (Some(SECOND), 1000, Some(10 * SECOND)),
            (Some(60 * SECOND), 60_000, Some(61 * SECOND)),
        ] {
            let create = create(None, timeout);
            assert_eq!(create.request(&Route::of_partition("wal", 0)).timeout_ms, timeout_ms);
            assert_eq!(create.time_limit(&Deadlines::default(), Duration::ZERO), limit, "{timeout:?}");
        }
    }

    #[test]
    fn a_response_has_the_broker_s_message() {
        let respond = |error_code, message: Option<&str>| {
            let error_message = message.map(str::to_owned);
            let result = CreatePartitionsTopicResult { name: "wal".to_owned(), error_code, error_message };
            let response = CreatePartitionsResponse { results: vec![result], ..Default::default() };
            create(None, None).response(&Route::of_partition("wal", 0), response)
        };
        respond(ErrorCode::NONE, None).unwrap();
        let code = ErrorCode::INVALID_PARTITIONS;
        assert_eq!(rejected_code(respond(code, Some("too few"))), (code, Some("too few".to_owned())));
        let response = CreatePartitionsResponse::default();
        let empty = create(None, None).response(&Route::of_partition("wal", 0), response);
        assert!(matches!(empty, Err(Rejection::Missing)));
    }
}
