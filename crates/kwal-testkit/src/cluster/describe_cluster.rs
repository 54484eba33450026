use kwal_protocol::{
    error_code::ErrorCode,
    messages::{DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse},
};

use super::{
    handler::{Serve, Served},
    metadata,
    request::RequestContext,
    state::Cluster,
};
use crate::fault::Fault;

impl Serve for DescribeClusterRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> DescribeClusterResponse {
        DescribeClusterResponse { error_code: code, ..DescribeClusterResponse::default() }
    }

    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<DescribeClusterResponse> {
        let refused = |error_code, message: String| {
            let error_message = Some(message);
            Served::Reply(DescribeClusterResponse { error_code, error_message, ..Default::default() })
        };
        match self.endpoint_type {
            BROKERS => {}
            CONTROLLERS => {
                let message = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint \
                               of type CONTROLLER";
                return refused(ErrorCode::MISMATCHED_ENDPOINT_TYPE, message.to_owned());
            }
            other => {
                let message = format!("Unsupported endpoint type {other}");
                return refused(ErrorCode::UNSUPPORTED_ENDPOINT_TYPE, message);
            }
        }
        // The same as in Metadata.
        let metadata_response = match context.fault {
            Fault::NoBrokers => cluster.metadata_without_brokers(),
            _ => cluster.metadata(context.from.node),
        };
        let brokers = metadata_response.brokers.into_iter().map(|broker| DescribeClusterBroker {
            broker_id: broker.node_id,
            host: broker.host,
            port: broker.port,
            rack: broker.rack,
            is_fenced: false,
        });
        Served::Reply(DescribeClusterResponse {
            cluster_id: metadata_response.cluster_id.unwrap_or_default(),
            controller_id: metadata_response.controller_id,
            brokers: brokers.collect(),
            cluster_authorized_operations: match self.include_cluster_authorized_operations {
                true => metadata::CLUSTER_OPERATIONS,
                false => metadata::NOT_REQUESTED,
            },
            ..DescribeClusterResponse::default()
        })
    }
}

/// Endpoint types (KIP-919).
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;
