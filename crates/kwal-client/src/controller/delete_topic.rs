//! Deleting topics.

use kwal_protocol::messages::{DeleteTopic, DeleteTopicsRequest};

use super::{ControllerClient, Question, Whom};
use crate::{client::check_topic, cluster::Place, error::Error};

impl ControllerClient {
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
        let place = Place { topic: Some(&name), partition: None };
        let result = self
            .ask(Question::new(self, place, Whom::Controller), request, |response| {
                let result = response.responses.pop()?;
                Some((result.error_code, result.error_message, ()))
            })
            .await;
        self.cluster.forget(&name);
        Ok(result?)
    }
}
