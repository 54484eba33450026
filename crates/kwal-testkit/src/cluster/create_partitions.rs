use std::collections::BTreeMap;

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
    },
};

use super::{
    handler::{Serve, Served},
    request::RequestContext,
    state::Cluster,
    topics::{MAX_PARTITIONS, Refusal},
};

impl Serve for CreatePartitionsRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> CreatePartitionsResponse {
        let results = self.topics.iter().map(|topic| answer(topic, code, None));
        CreatePartitionsResponse { results: results.collect(), ..CreatePartitionsResponse::default() }
    }

    fn serve(self, cluster: &mut Cluster, _: &RequestContext) -> Served<CreatePartitionsResponse> {
        let mut named = BTreeMap::new();
        for topic in &self.topics {
            *named.entry(topic.name.clone()).or_insert(0) += 1;
        }
        let create = |topic: &CreatePartitionsTopic| match named.insert(topic.name.clone(), 0)? {
            0 => None,
            1 => Some(match cluster.create_partitions(topic, self.validate_only) {
                Ok(()) => answer(topic, ErrorCode::NONE, None),
                Err((code, message)) => answer(topic, code, Some(message)),
            }),
            // A repeated name has one result.
            _ => {
                let message = "Duplicate topic name.".to_owned();
                Some(answer(topic, ErrorCode::INVALID_REQUEST, Some(message)))
            }
        };
        let results = self.topics.iter().filter_map(create).collect();
        Served::Reply(CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() })
    }
}

impl Cluster {
    fn create_partitions(
        &mut self,
        requested: &CreatePartitionsTopic,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        let (name, total) = (&requested.name, requested.count);
        let topic = self.topics.get(name);
        let topic = topic.ok_or((ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, String::new()))?;
        let now = topic.partitions.len();
        let invalid = |message| Err((ErrorCode::INVALID_PARTITIONS, message));
        let more = match usize::try_from(total) {
            Ok(total) if total == now => return invalid(format!("Topic already has {now} partition(s).")),
            Ok(total) if total > now => total - now,
            _ => {
                return invalid(format!(
                    "The topic {name} currently has {now} partition(s); {total} would not be an increase."
                ));
            }
        };
        if more > MAX_PARTITIONS {
            // Kafka fails here.
            return Err((ErrorCode::UNKNOWN_SERVER_ERROR, String::new()));
        }
        let factor = topic.partitions.first().map_or(1, |partition| partition.state.replicas.len());
        let replicas = match &requested.assignments {
            None => self.spread_over(now..now + more, factor),
            Some(given) if given.len() != more => {
                let message = format!(
                    "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
                    given.len()
                );
                return Err((ErrorCode::INVALID_REPLICA_ASSIGNMENT, message));
            }
            Some(given) => {
                let given: Vec<_> = given.iter().map(|assignment| assignment.broker_ids.clone()).collect();
                for brokers in &given {
                    self.check_replicas(brokers, Some(factor))?;
                }
                given
            }
        };
        let partitions: Vec<_> = replicas.iter().map(|replicas| self.new_partition(replicas)).collect();
        if !validate_only && let Some(topic) = self.topics.get_mut(name) {
            topic.partitions.extend(partitions);
            self.changed = true;
        }
        Ok(())
    }
}

fn answer(
    topic: &CreatePartitionsTopic,
    error_code: ErrorCode,
    message: Option<String>,
) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult {
        name: topic.name.clone(),
        error_code,
        error_message: message.filter(|message| !message.is_empty()),
    }
}
