//! DescribeCluster (KIP-700), or Metadata of older brokers.

use kwal_protocol::messages::{
    DescribeClusterRequest, DescribeClusterResponse, MetadataRequest, MetadataResponse,
};
use kwal_transport::HostPort;
use tracing::Span;

use super::ControllerClient;
use crate::{
    error::{Error, ErrorKind},
    metadata::{address, are_distinct, is_consistent},
    request::{call_span, request},
    routing::{Deadline, Operation, Rejection, Route, Target},
};

/// A cluster, as one of its brokers describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ClusterDescription {
    /// Its id.
    pub cluster_id: Option<String>,
    /// The broker that accepts administrative requests; `None` if there is none at the moment. In a KRaft
    /// cluster it is any broker.
    pub controller: Option<i32>,
    /// The brokers that are up, in id order.
    pub brokers: Vec<BrokerDescription>,
}

/// A broker, as it or another broker describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BrokerDescription {
    /// Its id.
    pub id: i32,
    /// Where clients reach it.
    pub address: HostPort,
    /// Its rack (`broker.rack`), if it has one.
    pub rack: Option<String>,
}

impl ControllerClient {
    /// Describes the cluster and its brokers, with DescribeCluster (Kafka 2.8) or Metadata.
    pub fn describe_cluster(&self) -> DescribeCluster<'_> {
        DescribeCluster { controller: self, deadline: None }
    }

    pub(super) async fn cluster(&self, deadline: Deadline) -> Result<ClusterDescription, Error> {
        let described = self.call_cluster(Target::Any, &Describe, deadline).await.map_err(Error::from);
        let mut description = match described {
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported { .. }) => {
                self.call_cluster(Target::Any, &DescribeByMetadata, deadline).await?
            }
            described => described?,
        };
        description.brokers.sort_unstable_by_key(|broker| broker.id);
        Ok(description)
    }
}

request! {
    /// A description of the cluster. Nothing happens until it is awaited.
    ///
    /// # Errors
    /// [`ErrorKind::DeadlineExceeded`] if no broker answers; [`ErrorKind::Broker`] for what the broker
    /// rejects.
    ///
    /// # Cancellation safety
    /// Cancel safe.
    pub struct DescribeCluster<'a> -> Result<ClusterDescription, Error> {
        controller: &'a ControllerClient,
    }
}

impl DescribeCluster<'_> {
    fn span(&self) -> Span {
        call_span!("describe_cluster")
    }

    async fn run(self) -> Result<ClusterDescription, Error> {
        self.controller.cluster(self.controller.deadline(self.deadline)).await
    }
}

#[derive(Debug)]
struct Describe;

impl Operation for Describe {
    type Request = DescribeClusterRequest;
    type Output = ClusterDescription;

    fn request(&self, _route: &Route<'_>) -> DescribeClusterRequest {
        DescribeClusterRequest::default()
    }

    fn response(
        &self,
        _route: &Route<'_>,
        response: DescribeClusterResponse,
    ) -> Result<ClusterDescription, Rejection> {
        Rejection::check_with(response.error_code, response.error_message)?;
        if !are_distinct(response.brokers.iter().map(|found| found.broker_id)) {
            return Err(Rejection::Missing);
        }
        let brokers = response.brokers.into_iter();
        Ok(ClusterDescription {
            cluster_id: Some(response.cluster_id),
            controller: (response.controller_id >= 0).then_some(response.controller_id),
            brokers: brokers
                .filter_map(|found| broker(found.broker_id, &found.host, found.port, found.rack))
                .collect(),
        })
    }
}

#[derive(Debug)]
struct DescribeByMetadata;

impl Operation for DescribeByMetadata {
    type Request = MetadataRequest;
    type Output = ClusterDescription;

    fn request(&self, _route: &Route<'_>) -> MetadataRequest {
        let topics = Some(Vec::new());
        MetadataRequest { topics, allow_auto_topic_creation: false, ..MetadataRequest::default() }
    }

    fn response(
        &self,
        _route: &Route<'_>,
        response: MetadataResponse,
    ) -> Result<ClusterDescription, Rejection> {
        Rejection::check(response.error_code)?;
        if !is_consistent(&response) {
            return Err(Rejection::Missing);
        }
        let brokers = response.brokers.into_iter();
        Ok(ClusterDescription {
            cluster_id: response.cluster_id,
            controller: (response.controller_id >= 0).then_some(response.controller_id),
            brokers: brokers
                .filter_map(|found| broker(found.node_id, &found.host, found.port, found.rack))
                .collect(),
        })
    }
}

/// Returns a broker; `None` if its port is invalid, since no client can reach it.
fn broker(id: i32, host: &str, port: i32, rack: Option<String>) -> Option<BrokerDescription> {
    Some(BrokerDescription { id, address: address(host, port)?, rack })
}

#[cfg(test)]
mod tests {
    use kwal_protocol::{
        error_code::ErrorCode,
        messages::{DescribeClusterBroker, MetadataBroker},
    };

    use super::*;
    use crate::routing::rejected_code;

    /// Brokers of either response: the second one has a port that does not exist.
    const BROKERS: [(i32, &str, i32, Option<&str>); 3] =
        [(1, "one", 9092, Some("a")), (2, "two", 70_000, None), (3, "three", 9093, None)];

    fn route() -> Route<'static> {
        Route::of_partition("", 0)
    }

    fn by_describe(controller_id: i32) -> ClusterDescription {
        let broker = |(broker_id, host, port, rack): (i32, &str, i32, Option<&str>)| DescribeClusterBroker {
            broker_id,
            host: host.to_owned(),
            port,
            rack: rack.map(str::to_owned),
            ..Default::default()
        };
        let response = DescribeClusterResponse {
            cluster_id: "cluster".to_owned(),
            controller_id,
            brokers: BROKERS.map(broker).to_vec(),
            ..Default::default()
        };
        Describe.response(&route(), response).unwrap()
    }

    fn by_metadata(controller_id: i32) -> ClusterDescription {
        let broker = |(node_id, host, port, rack): (i32, &str, i32, Option<&str>)| MetadataBroker {
            node_id,
            host: host.to_owned(),
            port,
            rack: rack.map(str::to_owned),
        };
        let response = MetadataResponse {
            cluster_id: Some("cluster".to_owned()),
            controller_id,
            brokers: BROKERS.map(broker).to_vec(),
            ..Default::default()
        };
        DescribeByMetadata.response(&route(), response).unwrap()
    }

    #[test]
    fn both_apis_describe_the_same() {
        let described = |id, host: &str, port, rack: Option<&str>| BrokerDescription {
            id,
            address: HostPort::new(host, port),
            rack: rack.map(str::to_owned),
        };
        for (controller_id, controller) in [(3, Some(3)), (0, Some(0)), (-1, None)] {
            let expected = ClusterDescription {
                cluster_id: Some("cluster".to_owned()),
                controller,
                brokers: vec![described(1, "one", 9092, Some("a")), described(3, "three", 9093, None)],
            };
            assert_eq!(by_describe(controller_id), expected);
            assert_eq!(by_metadata(controller_id), expected);
        }
    }

    #[test]
    fn brokers_alone_are_requested_and_no_topics() {
        assert_eq!(Describe.request(&route()), DescribeClusterRequest::default());
        let request = DescribeByMetadata.request(&route());
        assert_eq!((request.topics, request.allow_auto_topic_creation), (Some(Vec::new()), false));
    }

    #[test]
    fn a_broker_that_is_described_twice_is_malformed() {
        let response = DescribeClusterResponse { brokers: vec![Default::default(); 2], ..Default::default() };
        assert!(matches!(Describe.response(&route(), response), Err(Rejection::Missing)));
        let response = MetadataResponse { brokers: vec![Default::default(); 2], ..Default::default() };
        assert!(matches!(DescribeByMetadata.response(&route(), response), Err(Rejection::Missing)));
    }

    #[test]
    fn errors_are_rejected() {
        let code = ErrorCode::CLUSTER_AUTHORIZATION_FAILED;
        let error_message = Some("no".to_owned());
        let response = DescribeClusterResponse { error_code: code, error_message, ..Default::default() };
        assert_eq!(rejected_code(Describe.response(&route(), response)), (code, Some("no".to_owned())));
        let response = MetadataResponse { error_code: code, ..Default::default() };
        assert_eq!(rejected_code(DescribeByMetadata.response(&route(), response)), (code, None));
    }
}
