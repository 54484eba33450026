//! Metadata: describes brokers, topics and partition leaders.

use crate::{error_code::ErrorCode, macros::message, wire::Uuid};

message! {
    /// Requests the metadata of the cluster from any broker (`MetadataRequest.json`).
    pub struct MetadataRequest {
        /// The requested topics.
        ///
        /// From version 1 on, null means all and empty means no topic; in version 0 empty means all.
        0+ topics: Option<Vec<MetadataTopic>> [nullable 1+] = Some(Vec::new()),
        /// Whether the broker may create missing topics.
        4+ allow_auto_topic_creation: bool = true,
        /// Whether to include the operations that the client is authorized for on the cluster.
        8-10 include_cluster_authorized_operations: bool,
        /// Whether to include the operations that the client is authorized for on each topic.
        8+ include_topic_authorized_operations: bool,
    }

    /// A requested topic, by name or (from version 12 on) by id.
    pub struct MetadataTopic {
        /// The id of the topic; used from version 12 on.
        10+ topic_id: Uuid [ignorable],
        /// The name of the topic; null if the id is given.
        0+ name: Option<String> [nullable 10+] = Some(String::new()),
    }

    /// The metadata of the cluster (`MetadataResponse.json`).
    pub struct MetadataResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        3+ throttle_time_ms: i32 [ignorable],
        /// The brokers that are alive.
        0+ brokers: Vec<MetadataBroker>,
        /// The id of the cluster.
        2+ cluster_id: Option<String> [nullable 2+, ignorable] = None,
        /// The broker to send administrative requests to; −1 if unknown.
        1+ controller_id: i32 [ignorable] = -1,
        /// The requested topics.
        0+ topics: Vec<MetadataTopicResponse>,
        /// The authorized operations on the cluster, one bit each (KIP-430); `i32::MIN` if not requested.
        8-10 cluster_authorized_operations: i32 = i32::MIN,
        /// The error code, or `NONE`.
        13+ error_code: ErrorCode [ignorable],
    }

    /// A broker and its address.
    pub struct MetadataBroker {
        /// The id of the broker.
        0+ node_id: i32,
        /// The host name.
        0+ host: String,
        /// The port.
        0+ port: i32,
        /// The rack; null if it is not set.
        1+ rack: Option<String> [nullable 1+, ignorable] = None,
    }

    /// A topic.
    pub struct MetadataTopicResponse {
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The name of the topic; null for an unknown id.
        0+ name: Option<String> [nullable 12+] = Some(String::new()),
        /// The id of the topic (KIP-516).
        10+ topic_id: Uuid [ignorable],
        /// Whether the topic is internal.
        1+ is_internal: bool [ignorable],
        /// The partitions of the topic.
        0+ partitions: Vec<MetadataPartition>,
        /// The authorized operations on the topic, one bit each (KIP-430); `i32::MIN` if not requested.
        8+ topic_authorized_operations: i32 = i32::MIN,
    }

    /// A partition.
    pub struct MetadataPartition {
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The partition.
        0+ partition_index: i32,
        /// The leader; −1 if the partition has no leader, or it is unknown.
        0+ leader_id: i32,
        /// The leader epoch; −1 if unknown.
        7+ leader_epoch: i32 [ignorable] = -1,
        /// The replicas.
        0+ replica_nodes: Vec<i32>,
        /// The replicas that are in sync.
        0+ isr_nodes: Vec<i32>,
        /// The replicas that are offline.
        5+ offline_replicas: Vec<i32> [ignorable],
    }
}
