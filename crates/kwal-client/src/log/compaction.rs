//! DescribeConfigs: whether the log is compacted, so that offsets may have no batch.

use kwal_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse};

use crate::routing::{Operation, Rejection, Route, only};

/// The `ConfigResource.Type` of a topic.
const TOPIC: i8 = 2;
const CLEANUP_POLICY: &str = "cleanup.policy";

/// A look at whether the log is compacted.
#[derive(Debug)]
pub(crate) struct IsCompacted;

impl Operation for IsCompacted {
    type Request = DescribeConfigsRequest;
    type Output = bool;

    fn request(&self, route: &Route<'_>) -> DescribeConfigsRequest {
        DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: TOPIC,
                resource_name: route.topic.to_owned(),
                configuration_keys: Some(vec![CLEANUP_POLICY.to_owned()]),
            }],
            ..DescribeConfigsRequest::default()
        }
    }

    fn response(&self, route: &Route<'_>, response: DescribeConfigsResponse) -> Result<bool, Rejection> {
        let result = only(response.results, |result| {
            result.resource_type == TOPIC && result.resource_name == route.topic
        })?;
        Rejection::check_with(result.error_code, result.error_message)?;
        let policy = only(result.configs, |config| config.name == CLEANUP_POLICY)?.value;
        Ok(policy.is_some_and(|policy| policy.split(',').any(|policy| policy.trim() == "compact")))
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::{
        error_code::ErrorCode,
        messages::{DescribeConfigsResult, DescribedConfig},
    };

    use super::*;
    use crate::routing::rejected_code;

    fn respond(name: &str, policies: &[&str], error_code: ErrorCode) -> Result<bool, Rejection> {
        let config = |policy: &&str| DescribedConfig {
            name: CLEANUP_POLICY.to_owned(),
            value: Some((*policy).to_owned()),
            ..DescribedConfig::default()
        };
        let result = DescribeConfigsResult {
            error_code,
            resource_type: TOPIC,
            resource_name: name.to_owned(),
            configs: policies.iter().map(config).collect(),
            ..DescribeConfigsResult::default()
        };
        let response = DescribeConfigsResponse { results: vec![result], ..Default::default() };
        IsCompacted.response(&Route::of_partition("wal", 3), response)
    }

    #[test]
    fn a_log_is_compacted_if_one_of_its_policies_says_so() {
        for (policy, is_compacted) in [
            ("compact", true),
            ("delete", false),
            ("compact,delete", true),
            ("delete, compact", true),
            ("compacted", false),
            ("", false),
        ] {
            assert_eq!(respond("wal", &[policy], ErrorCode::NONE).unwrap(), is_compacted, "{policy}");
        }
    }

    #[test]
    fn another_answer_is_malformed_or_an_error() {
        assert!(matches!(respond("other", &["compact"], ErrorCode::NONE), Err(Rejection::Missing)));
        assert!(matches!(respond("wal", &[], ErrorCode::NONE), Err(Rejection::Missing)));
        assert!(matches!(respond("wal", &["compact"; 2], ErrorCode::NONE), Err(Rejection::Missing)));
        let denied = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
        assert_eq!(rejected_code(respond("wal", &["compact"], denied)), (denied, None));
    }
}
