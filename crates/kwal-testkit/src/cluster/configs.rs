//! DescribeConfigs and IncrementalAlterConfigs.

use std::collections::BTreeMap;

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        AlterConfigsResource, AlterConfigsResult, DescribeConfigsRequest, DescribeConfigsResource,
        DescribeConfigsResponse, DescribeConfigsResult, DescribedConfig, IncrementalAlterConfigsRequest,
        IncrementalAlterConfigsResponse,
    },
};

use super::{
    handler::{Serve, Served},
    request::RequestContext,
    state::Cluster,
    topics::is_valid_name,
};
use crate::topic_config::ConfigRefusal;

impl Serve for DescribeConfigsRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> DescribeConfigsResponse {
        let results = self.resources.iter().map(|resource| not_described(resource, code, String::new()));
        DescribeConfigsResponse { results: results.collect(), ..DescribeConfigsResponse::default() }
    }

    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<DescribeConfigsResponse> {
        let version = context.version;
        let describe = |resource: &DescribeConfigsResource| {
            let mut configs = match cluster.configs(resource, context) {
                Ok(configs) => configs,
                Err((code, message)) => return not_described(resource, code, message),
            };
            // An empty list selects all, as a missing one does.
            if let Some(names) = resource.configuration_keys.as_ref().filter(|names| !names.is_empty()) {
                configs.retain(|config| names.contains(&config.name));
            }
            for config in &mut configs {
                if !self.include_synonyms {
                    config.synonyms.clear();
                }
                if version > 0 {
                    config.is_default = false;
                }
            }
            DescribeConfigsResult { configs, ..not_described(resource, ErrorCode::NONE, String::new()) }
        };
        let results = self.resources.iter().map(describe).collect();
        Served::Reply(DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() })
    }
}

impl Serve for IncrementalAlterConfigsRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> IncrementalAlterConfigsResponse {
        let responses = self.resources.iter().map(|resource| altered(resource, Err((code, String::new()))));
        IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }
    }

    fn serve(self, cluster: &mut Cluster, _: &RequestContext) -> Served<IncrementalAlterConfigsResponse> {
        let mut named = BTreeMap::new();
        for resource in &self.resources {
            *named.entry((resource.resource_type, resource.resource_name.as_str())).or_insert(0) += 1;
        }
        let alter = |resource: &AlterConfigsResource| {
            let result = match named[&(resource.resource_type, resource.resource_name.as_str())] {
                1 => cluster.alter(resource, self.validate_only),
                _ => {
                    let message = "Each resource must appear at most once.".to_owned();
                    Err((ErrorCode::INVALID_REQUEST, message))
                }
            };
            altered(resource, result)
        };
        let responses = self.resources.iter().map(alter).collect();
        Served::Reply(IncrementalAlterConfigsResponse { responses, ..Default::default() })
    }
}

impl Cluster {
    fn configs(
        &self,
        resource: &DescribeConfigsResource,
        context: &RequestContext,
    ) -> Result<Vec<DescribedConfig>, ConfigRefusal> {
        let name = resource.resource_name.as_str();
        match resource.resource_type {
            TOPIC => {
                check_name(name)?;
                let topic = self.topics.get(name);
                let topic = topic.ok_or((ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, String::new()))?;
                Ok(topic.config.describe(&self.settings.broker))
            }
            // Dynamic defaults of all brokers. The embedded broker has none.
            BROKER if name.is_empty() => Ok(Vec::new()),
            BROKER => {
                let node = context.from.node;
                match name.parse() {
                    Ok(id) if node == id => Ok(self.broker_configs(node)),
                    Ok(id) => Err(other_broker(&format!("{node} or empty string"), id)),
                    Err(_) => {
                        let message = format!("Broker id must be an integer, but it is: {name}");
                        Err((ErrorCode::INVALID_REQUEST, message))
                    }
                }
            }
            kind => Err(unknown_type(kind)),
        }
    }

    fn broker_configs(&self, node: i32) -> Vec<DescribedConfig> {
        let computed = [
            ("auto.create.topics.enable", self.settings.auto_create.to_string()),
            ("broker.id", node.to_string()),
            ("node.id", node.to_string()),
            ("num.partitions", self.settings.default_partitions.to_string()),
        ];
        self.settings.broker.describe(&computed)
    }

    fn alter(&mut self, resource: &AlterConfigsResource, validate_only: bool) -> Result<(), ConfigRefusal> {
        let name = resource.resource_name.as_str();
        match resource.resource_type {
            TOPIC if name.is_empty() => {
                let message = "Default topic resources are not allowed.".to_owned();
                Err((ErrorCode::INVALID_REQUEST, message))
            }
            TOPIC => {
                check_name(name)?;
                let topic = self.topics.get_mut(name).ok_or_else(|| {
                    let message = format!("The topic '{name}' does not exist.");
                    (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message)
                })?;
                let config = topic.config.altered(&resource.configs, &self.settings.broker)?;
                if !validate_only {
                    topic.config = config;
                }
                Ok(())
            }
            BROKER => {
                let message = "the embedded broker alters no settings of brokers".to_owned();
                Err((ErrorCode::INVALID_REQUEST, message))
            }
            kind => Err(unknown_type(kind)),
        }
    }
}

/// Resource types.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn check_name(name: &str) -> Result<(), ConfigRefusal> {
    match is_valid_name(name) {
        true => Ok(()),
        false => Err((ErrorCode::INVALID_TOPIC_EXCEPTION, format!("Topic name is invalid: '{name}'"))),
    }
}

fn other_broker(expected: &str, received: i32) -> ConfigRefusal {
    let message = format!("Unexpected broker id, expected {expected}, but received {received}");
    (ErrorCode::INVALID_REQUEST, message)
}

fn unknown_type(kind: i8) -> ConfigRefusal {
    (ErrorCode::INVALID_REQUEST, format!("Unknown resource type {kind}"))
}

fn not_described(
    resource: &DescribeConfigsResource,
    error_code: ErrorCode,
    message: String,
) -> DescribeConfigsResult {
    DescribeConfigsResult {
        error_code,
        error_message: Some(message),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
        configs: Vec::new(),
    }
}

fn altered(resource: &AlterConfigsResource, result: Result<(), ConfigRefusal>) -> AlterConfigsResult {
    let (error_code, message) = match result {
        Ok(()) => (ErrorCode::NONE, None),
        Err((code, message)) => (code, Some(message)),
    };
    AlterConfigsResult {
        error_code,
        error_message: message,
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
    }
}
