//! DeleteTopics.

use kwal_protocol::messages::{self, DeleteTopicsRequest, DeleteTopicsResponse};

use super::ControllerClient;
use crate::{
    error::Error,
    request::request,
    routing::{Operation, Rejection, Route, Target},
    validate,
};

impl ControllerClient {
    /// Deletes a topic with all its records.
    pub fn delete_topic(&self, name: impl Into<String>) -> DeleteTopic<'_> {
        DeleteTopic { controller: self, name: name.into(), deadline: None }
    }
}

request! {
    /// The deletion of a topic. Nothing happens until it is awaited.
    ///
    /// # Errors
    /// [`ErrorKind::Broker`](crate::error::ErrorKind::Broker) with `UNKNOWN_TOPIC_OR_PARTITION` if there is
    /// no such topic; then the [outcome](Error::outcome) is `Unknown` if an attempt of this call may have
    /// deleted it. Otherwise as [`CreateTopic`](super::CreateTopic).
    ///
    /// # Cancellation safety
    /// If it is dropped, the topic may be deleted or not.
    pub struct DeleteTopic<'a> -> () {
        controller: &'a ControllerClient,
        name: String,
    }
}

impl DeleteTopic<'_> {
    async fn run(self) -> Result<(), Error> {
        let Self { controller, name, deadline } = self;
        validate::topic_name(&name)?;
        let deadline = controller.deadline(deadline);
        let deleted = controller.call_topic(Target::Controller, &name, &Delete, deadline).await;
        controller.cluster.metadata.forget(&name);
        Ok(deleted?)
    }
}

#[derive(Debug)]
struct Delete;

impl Operation for Delete {
    type Request = DeleteTopicsRequest;
    type Output = ();

    fn request(&self, route: &Route<'_>) -> DeleteTopicsRequest {
        let name = route.topic.to_owned();
        // Versions below 6 have only the list of names, later ones only the list of topics.
        let (topic_names, topics) = match route.version {
            ..6 => (vec![name], Vec::new()),
            _ => (Vec::new(), vec![messages::DeleteTopic { name: Some(name), ..Default::default() }]),
        };
        DeleteTopicsRequest { topic_names, topics, timeout_ms: route.timeout_ms() }
    }

    fn response(&self, _route: &Route<'_>, mut response: DeleteTopicsResponse) -> Result<(), Rejection> {
        let result = response.responses.pop().ok_or(Rejection::Missing)?;
        Rejection::check_with(result.error_code, result.error_message)
    }
}
