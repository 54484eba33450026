//! DescribeCluster: the brokers or, asked of them, the controllers of a cluster (KIP-700, KIP-919).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Asks for the nodes of the cluster (`DescribeClusterRequest.json`).
    pub struct DescribeClusterRequest {
        /// Whether to say what the client may do with the cluster.
        0+ include_cluster_authorized_operations: bool,
        /// What is asked for or told: 1 brokers, 2 controllers (KIP-919).
        1+ endpoint_type: i8 = 1,
        /// Whether brokers that are fenced count too (KIP-1073).
        2+ include_fenced_brokers: bool,
    }

    /// The nodes of the cluster (`DescribeClusterResponse.json`).
    pub struct DescribeClusterResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        0+ throttle_time_ms: i32,
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// What went wrong, in the broker's words.
        0+ error_message: Option<String> [nullable 0+] = None,
        /// What is asked for or told: 1 brokers, 2 controllers (KIP-919).
        1+ endpoint_type: i8 = 1,
        /// The id of the cluster.
        0+ cluster_id: String,
        /// The broker to send administrative requests to; −1 if not known.
        0+ controller_id: i32 = -1,
        /// The nodes.
        0+ brokers: Vec<DescribeClusterBroker>,
        /// What the client may do with the cluster, a bit an operation (KIP-430); `i32::MIN` if not asked
        /// for.
        0+ cluster_authorized_operations: i32 = i32::MIN,
    }

    /// A node and where it listens.
    pub struct DescribeClusterBroker {
        /// The id of the node.
        0+ broker_id: i32,
        /// Its host name.
        0+ host: String,
        /// Its port.
        0+ port: i32,
        /// Its rack, null if it has none.
        0+ rack: Option<String> [nullable 0+] = None,
        /// Whether the broker is fenced (KIP-1073).
        2+ is_fenced: bool,
    }
}
