use std::collections::BTreeSet;

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        CreatableTopic, MetadataBroker, MetadataPartition, MetadataRequest, MetadataResponse, MetadataTopic,
        MetadataTopicResponse,
    },
    wire::Uuid,
};
use kwal_transport::HostPort;

use super::{
    coordinator::is_internal,
    handler::{Serve, Served},
    node::Connected,
    partition::State,
    request::RequestContext,
    state::Cluster,
    topics::is_valid_name,
};
use crate::fault::Fault;

impl Serve for MetadataRequest {
    fn error_response(&self, cluster: &Cluster, code: ErrorCode) -> MetadataResponse {
        let refused = |name: Option<String>, topic_id| MetadataTopicResponse {
            error_code: code,
            name,
            topic_id,
            ..MetadataTopicResponse::default()
        };
        let topics = match &self.topics {
            Some(topics) => topics
                .iter()
                // Before version 12 the name must not be null.
                .map(|topic| refused(Some(topic.name.clone().unwrap_or_default()), topic.topic_id))
                .collect(),
            None => {
                cluster.topics.iter().map(|(name, topic)| refused(Some(name.clone()), topic.id)).collect()
            }
        };
        MetadataResponse { topics, error_code: code, ..cluster.metadata(ANY) }
    }

    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<MetadataResponse> {
        let RequestContext { version, from: Connected { node, .. }, .. } = *context;
        let topics = match self.topics {
            Some(topics) if version >= EMPTY_MEANS_NONE || !topics.is_empty() => Some(topics),
            _ => None,
        };
        if let Some(code) = topics.iter().flatten().find_map(|topic| naming_error(topic, version)) {
            let request = Self { topics, ..self };
            return Served::Reply(MetadataResponse {
                error_code: ErrorCode::NONE,
                ..request.error_response(cluster, code)
            });
        }
        if context.fault == Fault::NoBrokers {
            let topics = topics.unwrap_or_default().into_iter().map(|topic| MetadataTopicResponse {
                error_code: match topic.topic_id.is_zero() {
                    true => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    false => ErrorCode::UNKNOWN_TOPIC_ID,
                },
                name: topic.name,
                topic_id: topic.topic_id,
                ..MetadataTopicResponse::default()
            });
            return Served::Reply(MetadataResponse {
                topics: topics.collect(),
                ..cluster.metadata_without_brokers()
            });
        }
        let operations = match self.include_topic_authorized_operations {
            true => TOPIC_OPERATIONS,
            false => NOT_REQUESTED,
        };
        let topics: Vec<_> = match topics {
            Some(topics) => each_once(topics)
                .into_iter()
                .map(|topic| cluster.describe_requested(node, topic, self.allow_auto_topic_creation))
                .collect(),
            None => {
                let names = cluster.known_topics(node).into_iter();
                names.filter_map(|name| cluster.describe(node, name)).collect()
            }
        };
        let topics = topics.into_iter().map(|mut topic| {
            // Also of a topic that does not exist.
            topic.is_internal = topic.name.as_deref().is_some_and(is_internal);
            match topic.error_code {
                ErrorCode::NONE => MetadataTopicResponse { topic_authorized_operations: operations, ..topic },
                _ => topic,
            }
        });
        // Kafka lists the existing topics first.
        let (found, missing): (Vec<_>, Vec<_>) = topics.partition(|topic| !topic.error_code.is_error());
        Served::Reply(MetadataResponse {
            topics: [found, missing].concat(),
            cluster_authorized_operations: match self.include_cluster_authorized_operations {
                true => CLUSTER_OPERATIONS,
                false => NOT_REQUESTED,
            },
            ..cluster.metadata(node)
        })
    }
}

impl Cluster {
    /// Returns the response of `node` without topics.
    pub(super) fn metadata(&self, node: i32) -> MetadataResponse {
        let broker = |(node_id, address): (i32, HostPort)| MetadataBroker {
            node_id,
            host: address.host,
            port: address.port.into(),
            rack: None,
        };
        MetadataResponse {
            brokers: self.endpoints(node).into_iter().map(broker).collect(),
            cluster_id: Some(self.cluster_id.to_string()),
            controller_id: self.controller(),
            ..MetadataResponse::default()
        }
    }

    /// Returns the response of a broker that has not learnt of the cluster yet, without topics.
    pub(super) fn metadata_without_brokers(&mut self) -> MetadataResponse {
        self.fault_counts.without_brokers += 1;
        MetadataResponse { brokers: Vec::new(), controller_id: -1, ..self.metadata(ANY) }
    }

    fn describe_requested(
        &mut self,
        node: i32,
        requested: MetadataTopic,
        may_create: bool,
    ) -> MetadataTopicResponse {
        let unknown = |error_code, name, topic_id| MetadataTopicResponse {
            error_code,
            name,
            topic_id,
            ..MetadataTopicResponse::default()
        };
        let Some(name) = requested.name.filter(|_| requested.topic_id.is_zero()) else {
            let name = self.names.get(&requested.topic_id).cloned();
            let found = name.and_then(|name| self.describe(node, name));
            return found.unwrap_or_else(|| unknown(ErrorCode::UNKNOWN_TOPIC_ID, None, requested.topic_id));
        };
        if let Some(found) = self.describe(node, name.clone()) {
            return found;
        }
        if !is_valid_name(&name) {
            return unknown(ErrorCode::INVALID_TOPIC_EXCEPTION, Some(name), Uuid::ZERO);
        }
        let mut code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        if may_create && self.settings.auto_create && is_internal(&name) {
            self.create_transaction_log();
        } else if may_create && self.settings.auto_create {
            // As in Kafka, the topic exists only for later requests.
            let topic = CreatableTopic {
                name: name.clone(),
                num_partitions: -1,
                replication_factor: -1,
                ..CreatableTopic::default()
            };
            if let Err((refusal, _)) = self.create_topic(&topic) {
                code = refusal;
            }
        }
        unknown(code, Some(name), Uuid::ZERO)
    }

    fn describe(&self, node: i32, name: String) -> Option<MetadataTopicResponse> {
        let (topic_id, states) = self.states(node, &name)?;
        let partition = |(index, state): (usize, &State)| MetadataPartition {
            error_code: match state.leader {
                Some(_) => ErrorCode::NONE,
                None => ErrorCode::LEADER_NOT_AVAILABLE,
            },
            partition_index: index as i32,
            leader_id: state.leader.unwrap_or(-1),
            leader_epoch: state.leader_epoch,
            replica_nodes: state.replicas.clone(),
            // Kafka reports the last replica in sync separately (KIP-966).
            isr_nodes: match state.leader.is_none() && self.settings.dialect.keeps_eligible() {
                true => Vec::new(),
                false => state.isr.clone(),
            },
            offline_replicas: state.replicas.iter().copied().filter(|id| !self.is_alive(*id)).collect(),
        };
        Some(MetadataTopicResponse {
            name: Some(name),
            topic_id,
            partitions: states.into_iter().enumerate().map(partition).collect(),
            ..MetadataTopicResponse::default()
        })
    }
}

/// The first version in which an empty list selects no topic, in place of all.
const EMPTY_MEANS_NONE: i16 = 1;
/// The first version that supports requests by topic id.
const BY_ID: i16 = 12;

/// No particular broker: one that knows everything.
const ANY: i32 = -1;
/// The value of permissions that were not requested.
pub(super) const NOT_REQUESTED: i32 = i32::MIN;
/// All operations on a topic (KIP-430): bits 3 to 8, 10 and 11.
const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// All operations on a cluster (KIP-430): bits 5 and 7 to 12.
pub(super) const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// Removes repeated topics.
fn each_once(topics: Vec<MetadataTopic>) -> Vec<MetadataTopic> {
    let mut known = BTreeSet::new();
    topics.into_iter().filter(|topic| known.insert((topic.name.clone(), topic.topic_id))).collect()
}

/// Returns the error of a topic that is named in a way that the version does not allow.
fn naming_error(topic: &MetadataTopic, version: i16) -> Option<ErrorCode> {
    match (&topic.name, topic.topic_id.is_zero()) {
        (None, _) | (_, false) if version < BY_ID => Some(ErrorCode::INVALID_REQUEST),
        // Kafka fails here.
        (None, true) => Some(ErrorCode::UNKNOWN_SERVER_ERROR),
        _ => None,
    }
}
