//! CreateTopics and DeleteTopics.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        CreatableTopic, CreateTopicsRequest, CreateTopicsResponse, CreateTopicsResult, DeleteTopic,
        DeleteTopicResult, DeleteTopicsRequest, DeleteTopicsResponse,
    },
    wire::Uuid,
};

use super::{
    handler::{Serve, Served},
    partition::Topic,
    request::RequestContext,
    state::{Cluster, random_id},
};
use crate::{journal::JournalEvent, topic_config::TopicConfig};

impl Serve for CreateTopicsRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> CreateTopicsResponse {
        let topics = self.topics.iter().map(|topic| not_created(topic, code, None));
        CreateTopicsResponse { topics: topics.collect(), ..CreateTopicsResponse::default() }
    }

    fn serve(self, cluster: &mut Cluster, _: &RequestContext) -> Served<CreateTopicsResponse> {
        let mut named = BTreeMap::new();
        for topic in &self.topics {
            *named.entry(topic.name.as_str()).or_insert(0) += 1;
        }
        let mut topics = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            match named.insert(topic.name.as_str(), 0) {
                None | Some(0) => {}
                Some(1) => topics.push(cluster.create_requested(topic, self.validate_only)),
                // A repeated name has one result.
                Some(_) => {
                    let message = "Duplicate topic name.".to_owned();
                    topics.push(not_created(topic, ErrorCode::INVALID_REQUEST, Some(message)));
                }
            }
        }
        Served::Reply(CreateTopicsResponse { topics, ..CreateTopicsResponse::default() })
    }
}

impl Serve for DeleteTopicsRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> DeleteTopicsResponse {
        let responses = named(self).into_iter().map(|topic| DeleteTopicResult {
            name: topic.name,
            topic_id: topic.topic_id,
            error_code: code,
            error_message: None,
        });
        DeleteTopicsResponse { responses: responses.collect(), ..DeleteTopicsResponse::default() }
    }

    fn serve(self, cluster: &mut Cluster, _: &RequestContext) -> Served<DeleteTopicsResponse> {
        let mut topics = named(&self);
        let mut responses = cluster.take_named_both_ways(&mut topics);
        let mut times = BTreeMap::new();
        for topic in &topics {
            *times.entry((topic.name.clone(), topic.topic_id)).or_insert(0) += 1;
        }
        let delete = |topic: DeleteTopic| {
            match times.insert((topic.name.clone(), topic.topic_id), 0)? {
                0 => None,
                1 => Some(cluster.delete_named(topic)),
                // A repeated topic has one result.
                _ => Some(DeleteTopicResult {
                    name: topic.name,
                    topic_id: topic.topic_id,
                    error_code: ErrorCode::INVALID_REQUEST,
                    error_message: Some("Duplicate topic name or id.".to_owned()),
                }),
            }
        };
        responses.extend(topics.into_iter().filter_map(delete));
        Served::Reply(DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() })
    }
}

/// The configuration and replicas of a topic to create.
pub(super) struct Plan {
    config: TopicConfig,
    /// By partition, the leader first.
    replicas: Vec<Vec<i32>>,
}

/// Why an operation is rejected: the code and the message.
pub(super) type Refusal = (ErrorCode, String);

impl Cluster {
    fn create_requested(&mut self, topic: &CreatableTopic, validate_only: bool) -> CreateTopicsResult {
        let created = match validate_only {
            true => self.plan_topic(topic).map(|plan| (random_id(&mut self.random), plan)),
            false => self.create_topic(topic),
        };
        match created {
            Ok((topic_id, plan)) => CreateTopicsResult {
                name: topic.name.clone(),
                topic_id,
                error_message: None,
                num_partitions: plan.replicas.len() as i32,
                replication_factor: plan.replicas.first().map_or(-1, |replicas| replicas.len() as i16),
                configs: Some(plan.config.created(&self.settings.broker)),
                ..CreateTopicsResult::default()
            },
            Err((code, message)) => not_created(topic, code, Some(message)),
        }
    }

    /// Creates a topic; returns its id and its plan.
    pub(super) fn create_topic(&mut self, topic: &CreatableTopic) -> Result<(Uuid, Plan), Refusal> {
        let plan = self.plan_topic(topic)?;
        let id = random_id(&mut self.random);
        let partitions = plan.replicas.iter().map(|replicas| self.new_partition(replicas)).collect();
        self.names.insert(id, topic.name.clone());
        self.topics.insert(topic.name.clone(), Topic { id, config: plan.config.clone(), partitions });
        self.note(|| format!("topic {} is made", topic.name));
        self.changed = true;
        Ok((id, plan))
    }

    /// Deletes a topic; returns the id that it had.
    pub(crate) fn delete_topic(&mut self, name: &str) -> Option<Uuid> {
        let topic = self.topics.remove(name)?;
        self.names.remove(&topic.id);
        self.note(|| format!("topic {name} is deleted"));
        self.changed = true;
        Some(topic.id)
    }

    /// Deletes a topic and creates it again, empty and with a new id, which it returns.
    pub(crate) fn recreate_topic(&mut self, name: &str) -> Option<Uuid> {
        let Topic { id: old, config, partitions } = self.topics.remove(name)?;
        self.names.remove(&old);
        let id = random_id(&mut self.random);
        let again = partitions.iter().map(|partition| self.new_partition(&partition.state.replicas));
        let partitions: Vec<_> = again.collect();
        self.names.insert(id, name.to_owned());
        let count = partitions.len() as i32;
        self.topics.insert(name.to_owned(), Topic { id, config, partitions });
        self.record(JournalEvent::Recreated { topic: name.to_owned(), partitions: count });
        self.changed = true;
        Some(id)
    }

    /// Creates a topic for a test.
    pub(crate) fn create_simply(&mut self, topic: &CreatableTopic) -> Result<Uuid, Refusal> {
        self.create_topic(topic).map(|(id, _)| id)
    }

    fn plan_topic(&self, topic: &CreatableTopic) -> Result<Plan, Refusal> {
        let name = &topic.name;
        if !is_valid_name(name) {
            let message = format!("{name:?} is not a topic name: 1 to 249 letters, digits, '.', '_' and '-'");
            return Err((ErrorCode::INVALID_TOPIC_EXCEPTION, message));
        }
        if self.topics.contains_key(name) {
            return Err((ErrorCode::TOPIC_ALREADY_EXISTS, format!("Topic '{name}' already exists.")));
        }
        // Kafka's metrics write both characters as '_'.
        let metric = |name: &str| name.replace('.', "_");
        if let Some(other) = self.topics.keys().find(|other| metric(other) == metric(name)) {
            let message = format!("Topic '{name}' collides with existing topic: {other}");
            return Err((ErrorCode::INVALID_TOPIC_EXCEPTION, message));
        }
        let replicas = match topic.assignments.is_empty() {
            true => self.spread(topic)?,
            false => self.assigned(topic)?,
        };
        let given = topic.configs.iter().map(|config| (config.name.as_str(), config.value.as_deref()));
        let config = TopicConfig::new(given, &self.settings.broker)
            .map_err(|message| (ErrorCode::INVALID_CONFIG, message))?;
        Ok(Plan { config, replicas })
    }

    /// Assigns partitions to all live brokers in turn.
    fn spread(&self, topic: &CreatableTopic) -> Result<Vec<Vec<i32>>, Refusal> {
        let partitions = match topic.num_partitions {
            -1 => self.settings.default_partitions,
            number => number,
        };
        let partitions = usize::try_from(partitions).ok().filter(|number| *number > 0).ok_or_else(|| {
            (ErrorCode::INVALID_PARTITIONS, "Number of partitions must be larger than 0.".to_owned())
        })?;
        if partitions > MAX_PARTITIONS {
            let message =
                format!("at most {MAX_PARTITIONS} partitions can be created at once, not {partitions}");
            return Err((ErrorCode::POLICY_VIOLATION, message));
        }
        let factor = match topic.replication_factor {
            -1 => self.settings.broker.number("default.replication.factor"),
            number => number.into(),
        };
        let factor = usize::try_from(factor).ok().filter(|number| *number > 0).ok_or_else(|| {
            (ErrorCode::INVALID_REPLICATION_FACTOR, "Replication factor must be larger than 0.".to_owned())
        })?;
        let alive = self.alive().count();
        if factor > alive {
            let message = format!("{factor} replicas need as many brokers, and there are {alive}");
            return Err((ErrorCode::INVALID_REPLICATION_FACTOR, message));
        }
        Ok(self.spread_over(0..partitions, factor))
    }

    /// Assigns some partitions to all live brokers in turn.
    pub(super) fn spread_over(&self, partitions: Range<usize>, factor: usize) -> Vec<Vec<i32>> {
        let nodes: Vec<_> = self.alive().collect();
        let replicas = |partition: usize| {
            (0..factor).filter_map(|i| nodes.get((partition + i) % nodes.len().max(1)).copied()).collect()
        };
        partitions.map(replicas).collect()
    }

    /// Checks that these brokers can hold a partition, with the replication factor `factor` if that is fixed.
    pub(super) fn check_replicas(&self, brokers: &[i32], factor: Option<usize>) -> Result<(), Refusal> {
        let invalid = |what: String| {
            let message = format!("The manual partition assignment includes {what}");
            Err((ErrorCode::INVALID_REPLICA_ASSIGNMENT, message))
        };
        if brokers.is_empty() {
            return invalid("an empty replica list.".to_owned());
        }
        if let Some(broker) = brokers.iter().find(|broker| !self.nodes.contains_key(broker)) {
            return invalid(format!("broker {broker}, but no such broker is registered."));
        }
        let mut different = BTreeSet::new();
        if let Some(broker) = brokers.iter().find(|broker| !different.insert(**broker)) {
            return invalid(format!("the broker {broker} more than once."));
        }
        match factor.filter(|factor| *factor != brokers.len()) {
            None => Ok(()),
            Some(factor) => invalid(format!(
                "a partition with {} replica(s), but this is not consistent with previous partitions, which have \
                 {factor} replica(s).",
                brokers.len()
            )),
        }
    }

    /// Returns the replica assignment of the request.
    fn assigned(&self, topic: &CreatableTopic) -> Result<Vec<Vec<i32>>, Refusal> {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            let message =
                "with an assignment, the numbers of partitions and replicas have to be -1".to_owned();
            return Err((ErrorCode::INVALID_REQUEST, message));
        }
        let invalid = |message: String| (ErrorCode::INVALID_REPLICA_ASSIGNMENT, message);
        let mut replicas = BTreeMap::new();
        let mut factor = None;
        for assignment in &topic.assignments {
            let (index, brokers) = (assignment.partition_index, &assignment.broker_ids);
            self.check_replicas(brokers, factor)?;
            factor = Some(brokers.len());
            if replicas.insert(index, brokers.clone()).is_some() {
                return Err(invalid(format!("partition {index} is assigned twice")));
            }
        }
        if !replicas.keys().copied().eq(0..replicas.len() as i32) {
            return Err(invalid("partitions have to be numbered from 0 on, without a gap".to_owned()));
        }
        Ok(replicas.into_values().collect())
    }

    /// Removes topics that are named by name and by id; returns their results.
    fn take_named_both_ways(&self, topics: &mut Vec<DeleteTopic>) -> Vec<DeleteTopicResult> {
        let by_id: BTreeSet<_> =
            topics.iter().map(|topic| topic.topic_id).filter(|id| !id.is_zero()).collect();
        let both = |topic: &DeleteTopic| {
            let name = topic.name.as_ref().filter(|_| topic.topic_id.is_zero())?;
            Some((name.clone(), self.topics.get(name)?.id)).filter(|(_, id)| by_id.contains(id))
        };
        let twice: BTreeMap<_, _> = topics.iter().filter_map(both).collect();
        topics.retain(|topic| {
            let named = topic.name.as_ref().is_some_and(|name| twice.contains_key(name));
            !named && !twice.values().any(|id| *id == topic.topic_id)
        });
        let refused = |(name, topic_id)| DeleteTopicResult {
            name: Some(name),
            topic_id,
            error_code: ErrorCode::INVALID_REQUEST,
            error_message: Some(
                "The provided topic name maps to an ID that was already supplied.".to_owned(),
            ),
        };
        twice.into_iter().map(refused).collect()
    }

    fn delete_named(&mut self, topic: DeleteTopic) -> DeleteTopicResult {
        let DeleteTopic { name, topic_id } = topic;
        let code = match (&name, topic_id.is_zero()) {
            (Some(_), true) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            (None, false) => ErrorCode::UNKNOWN_TOPIC_ID,
            // It has to be exactly one of them.
            _ => {
                return DeleteTopicResult {
                    name,
                    topic_id,
                    error_code: ErrorCode::INVALID_REQUEST,
                    error_message: Some("a topic goes by name or by id, not by both or none".to_owned()),
                };
            }
        };
        let found = name.clone().or_else(|| self.names.get(&topic_id).cloned());
        let deleted = found.and_then(|name| Some((self.delete_topic(&name)?, name)));
        match deleted {
            Some((topic_id, name)) => DeleteTopicResult {
                name: Some(name),
                topic_id,
                error_code: ErrorCode::NONE,
                error_message: None,
            },
            None => DeleteTopicResult {
                name,
                topic_id,
                error_code: code,
                error_message: code.text().map(str::to_owned),
            },
        }
    }
}

/// How many partitions a topic can be created with, as in Kafka.
pub(super) const MAX_PARTITIONS: usize = 10_000;

/// Returns whether Kafka accepts the name of a topic.
pub(super) fn is_valid_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(allowed)
}

/// Returns the topics to delete, from whichever field the version has.
fn named(request: &DeleteTopicsRequest) -> Vec<DeleteTopic> {
    let by_name =
        request.topic_names.iter().map(|name| DeleteTopic { name: Some(name.clone()), topic_id: Uuid::ZERO });
    request.topics.iter().cloned().chain(by_name).collect()
}

fn not_created(topic: &CreatableTopic, code: ErrorCode, message: Option<String>) -> CreateTopicsResult {
    CreateTopicsResult {
        name: topic.name.clone(),
        error_code: code,
        error_message: message,
        ..CreateTopicsResult::default()
    }
}
