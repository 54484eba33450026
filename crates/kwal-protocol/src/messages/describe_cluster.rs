//! DescribeCluster: describes the brokers or the controllers of a cluster (KIP-700, KIP-919).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Requests the nodes of the cluster (`DescribeClusterRequest.json`).
    pub struct DescribeClusterRequest {
        /// Whether to include the operations that the client is authorized for on the cluster.
        0+ include_cluster_authorized_operations: bool,
        /// The type of nodes: 1 brokers, 2 controllers (KIP-919).
        1+ endpoint_type: i8 = 1,
        /// Whether to include fenced brokers (KIP-1073).
        2+ include_fenced_brokers: bool,
    }

    /// The nodes of the cluster (`DescribeClusterResponse.json`).
    pub struct DescribeClusterResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        0+ throttle_time_ms: i32,
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The error message of the broker.
        0+ error_message: Option<String> [nullable 0+] = None,
        /// The type of nodes: 1 brokers, 2 controllers (KIP-919).
        1+ endpoint_type: i8 = 1,
        /// The id of the cluster.
        0+ cluster_id: String,
        /// The broker to send administrative requests to; −1 if unknown.
        0+ controller_id: i32 = -1,
        /// The nodes.
        0+ brokers: Vec<DescribeClusterBroker>,
        /// The authorized operations on the cluster, one bit each (KIP-430); `i32::MIN` if not requested.
        0+ cluster_authorized_operations: i32 = i32::MIN,
    }

    /// A node and its address.
    pub struct DescribeClusterBroker {
        /// The id of the node.
        0+ broker_id: i32,
        /// The host name.
        0+ host: String,
        /// The port.
        0+ port: i32,
        /// The rack; null if it is not set.
        0+ rack: Option<String> [nullable 0+] = None,
        /// Whether the broker is fenced (KIP-1073).
        2+ is_fenced: bool,
    }
}
