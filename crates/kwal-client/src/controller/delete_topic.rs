//! DeleteTopics.

use kwal_protocol::messages::{self, DeleteTopicsRequest, DeleteTopicsResponse};
use tracing::Span;

use super::ControllerClient;
use crate::{
    error::Error,
    request::{call_span, request},
    routing::{Operation, Rejection, Route, Target, only},
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
    pub struct DeleteTopic<'a> -> Result<(), Error> {
        controller: &'a ControllerClient,
        name: String,
    }
}

impl DeleteTopic<'_> {
    fn span(&self) -> Span {
        call_span!("delete_topic", &self.name)
    }

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

    fn response(&self, route: &Route<'_>, response: DeleteTopicsResponse) -> Result<(), Rejection> {
        let result = only(response.responses, |result| result.name.as_deref() == Some(route.topic))?;
        Rejection::check_with(result.error_code, result.error_message)
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::{error_code::ErrorCode, messages::DeleteTopicResult};

    use super::*;
    use crate::routing::rejected_code;

    #[test]
    fn a_topic_is_named_in_the_list_of_the_version() {
        let topic = messages::DeleteTopic { name: Some("wal".to_owned()), ..Default::default() };
        for (version, topic_names, topics) in [
            (1, vec!["wal".to_owned()], vec![]),
            (5, vec!["wal".to_owned()], vec![]),
            (6, vec![], vec![topic]),
        ] {
            let request = Delete.request(&Route { version, ..Route::of_partition("wal", 0) });
            assert_eq!(request, DeleteTopicsRequest { topics, topic_names, timeout_ms: 9000 }, "{version}");
        }
    }

    #[test]
    fn a_response_has_the_broker_s_message() {
        let respond = |error_code, message: Option<&str>| {
            let error_message = message.map(str::to_owned);
            let name = Some("wal".to_owned());
            let result = DeleteTopicResult { name, error_code, error_message, ..Default::default() };
            let response = DeleteTopicsResponse { responses: vec![result], ..Default::default() };
            Delete.response(&Route::of_partition("wal", 0), response)
        };
        respond(ErrorCode::NONE, None).unwrap();
        let code = ErrorCode::TOPIC_DELETION_DISABLED;
        assert_eq!(rejected_code(respond(code, Some("disabled"))), (code, Some("disabled".to_owned())));
        assert_eq!(rejected_code(respond(code, Some(""))), (code, None));
        let empty = Delete.response(&Route::of_partition("wal", 0), DeleteTopicsResponse::default());
        assert!(matches!(empty, Err(Rejection::Missing)));
    }
}
