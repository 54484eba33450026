//! Metadata: brokers, topics, and who leads what.

use crate::{error_code::ErrorCode, macros::message, wire::Uuid};

message! {
    /// Asks any broker for the cluster as it knows it (`MetadataRequest.json`).
    pub struct MetadataRequest {
        /// The topics asked for. From version 1 on null means all and empty none; in version 0 empty means
        /// all.
        0+ topics: Option<Vec<MetadataTopic>> [nullable 1+] = Some(Vec::new()),
        /// Whether the broker may make a topic that is not there.
        4+ allow_auto_topic_creation: bool = true,
        /// Whether to say what the client may do with the cluster.
        8-10 include_cluster_authorized_operations: bool,
        /// Whether to say what the client may do with each topic.
        8+ include_topic_authorized_operations: bool,
    }

    /// A topic asked for, by name or (from version 12 on) by id.
    pub struct MetadataTopic {
        /// The id of the topic; used from version 12 on.
        10+ topic_id: Uuid [ignorable],
        /// The name of the topic; null where the id counts.
        0+ name: Option<String> [nullable 10+] = Some(String::new()),
    }

    /// The cluster as the broker knows it (`MetadataResponse.json`).
    pub struct MetadataResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        3+ throttle_time_ms: i32 [ignorable],
        /// The brokers that are up.
        0+ brokers: Vec<MetadataBroker>,
        /// The id of the cluster.
        2+ cluster_id: Option<String> [nullable 2+, ignorable] = None,
        /// The broker to send administrative requests to; −1 if not known.
        1+ controller_id: i32 [ignorable] = -1,
        /// The topics asked for.
        0+ topics: Vec<MetadataTopicResponse>,
        /// What the client may do with the cluster, a bit an operation (KIP-430); `i32::MIN` if not asked
        /// for.
        8-10 cluster_authorized_operations: i32 = i32::MIN,
        /// What went wrong, or `NONE`.
        13+ error_code: ErrorCode [ignorable],
    }

    /// A broker and where it listens.
    pub struct MetadataBroker {
        /// The id of the broker.
        0+ node_id: i32,
        /// Its host name.
        0+ host: String,
        /// Its port.
        0+ port: i32,
        /// Its rack, null if it has none.
        1+ rack: Option<String> [nullable 1+, ignorable] = None,
    }

    /// A topic as the broker knows it.
    pub struct MetadataTopicResponse {
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// The name of the topic; null where an unknown id was asked for.
        0+ name: Option<String> [nullable 12+] = Some(String::new()),
        /// The id of the topic (KIP-516).
        10+ topic_id: Uuid [ignorable],
        /// Whether the topic belongs to Kafka itself.
        1+ is_internal: bool [ignorable],
        /// The partitions of the topic.
        0+ partitions: Vec<MetadataPartition>,
        /// What the client may do with the topic, a bit an operation (KIP-430); `i32::MIN` if not asked
        /// for.
        8+ topic_authorized_operations: i32 = i32::MIN,
    }

    /// A partition as the broker knows it.
    pub struct MetadataPartition {
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// The partition.
        0+ partition_index: i32,
        /// The leader; −1 if there is none or it is not known.
        0+ leader_id: i32,
        /// The epoch of the leader; −1 if not known.
        7+ leader_epoch: i32 [ignorable] = -1,
        /// The brokers that hold the partition.
        0+ replica_nodes: Vec<i32>,
        /// Those of them that are in sync.
        0+ isr_nodes: Vec<i32>,
        /// Those of them that are offline.
        5+ offline_replicas: Vec<i32> [ignorable],
    }
}
