//! Asking who makes up the cluster.

use kwal_protocol::messages::{DescribeClusterRequest, MetadataRequest};
use kwal_transport::HostPort;
use tokio::time::Instant;

use super::{ControllerClient, Question, Whom};
use crate::{cluster::Place, error::Error};

/// A cluster as one of its brokers tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ClusterDescription {
    /// Its id.
    pub cluster_id: Option<String>,
    /// The broker to send administrative requests to; `None` if there is none at the moment. In a KRaft cluster it is any
    /// broker.
    pub controller: Option<i32>,
    /// The brokers that are up, by rising id.
    pub brokers: Vec<BrokerDescription>,
}

/// A broker as another one or itself tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BrokerDescription {
    /// Its id.
    pub id: i32,
    /// Where clients reach it.
    pub address: HostPort,
    /// Where it stands, if it was told (`broker.rack`).
    pub rack: Option<String>,
}

impl ControllerClient {
    /// Asks for the brokers of the cluster: by DescribeCluster (KIP-700; Kafka 2.8), or of an older broker by Metadata.
    ///
    /// # Errors
    /// [`Error::DeadlineExceeded`] if no answer comes within [`Deadlines::operation`](crate::Deadlines::operation);
    /// [`Error::Broker`] for what the broker refuses.
    ///
    /// # Cancellation
    /// Nothing is lost by dropping it.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, Error> {
        self.describe_cluster_until(self.deadline()).await
    }

    pub(crate) async fn describe_cluster_until(
        &self,
        deadline: Instant,
    ) -> Result<ClusterDescription, Error> {
        let question = Question { place: Place::default(), whom: Whom::Any, deadline, wait: None };
        let asked = self
            .ask(
                question,
                |_| DescribeClusterRequest::default(),
                |response| {
                    let brokers = response.brokers.drain(..);
                    let description = ClusterDescription {
                        cluster_id: Some(std::mem::take(&mut response.cluster_id)),
                        controller: (response.controller_id >= 0).then_some(response.controller_id),
                        brokers: brokers
                            .filter_map(|told| broker(told.broker_id, told.host, told.port, told.rack))
                            .collect(),
                    };
                    Some((response.error_code, response.error_message.take(), description))
                },
            )
            .await
            .map_err(Error::from);
        let mut description = match asked {
            Err(Error::Unsupported { .. }) => self.describe_by_metadata(question).await?,
            asked => asked?,
        };
        description.brokers.sort_unstable_by_key(|broker| broker.id);
        Ok(description)
    }

    async fn describe_by_metadata(&self, question: Question<'_>) -> Result<ClusterDescription, Error> {
        let request = MetadataRequest {
            topics: Some(Vec::new()),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let asked = self.ask(
            question,
            |_| request.clone(),
            |response| {
                let brokers = response.brokers.drain(..);
                let description = ClusterDescription {
                    cluster_id: response.cluster_id.take(),
                    controller: (response.controller_id >= 0).then_some(response.controller_id),
                    brokers: brokers
                        .filter_map(|told| broker(told.node_id, told.host, told.port, told.rack))
                        .collect(),
                };
                Some((response.error_code, None, description))
            },
        );
        Ok(asked.await?)
    }
}

/// A port that is none makes a broker that nobody reaches.
fn broker(id: i32, host: String, port: i32, rack: Option<String>) -> Option<BrokerDescription> {
    Some(BrokerDescription { id, address: HostPort::new(host, u16::try_from(port).ok()?), rack })
}
