//! DescribeConfigs: describes the configs of topics and brokers, with their sources (KIP-226).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Requests configs (`DescribeConfigsRequest.json`).
    pub struct DescribeConfigsRequest {
        /// The topics and brokers.
        0+ resources: Vec<DescribeConfigsResource>,
        /// Whether to include the synonyms of each config.
        1+ include_synonyms: bool,
        /// Whether to include the documentation of each config.
        3+ include_documentation: bool,
    }

    /// A topic or broker whose configs are requested.
    pub struct DescribeConfigsResource {
        /// The type: 2 topic, 4 broker, 8 broker loggers, 16 client metrics, 32 group.
        0+ resource_type: i8,
        /// The name; the id of a broker.
        0+ resource_name: String,
        /// The names of the configs; null for all.
        0+ configuration_keys: Option<Vec<String>> [nullable 0+] = Some(Vec::new()),
    }

    /// The configs (`DescribeConfigsResponse.json`).
    pub struct DescribeConfigsResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        0+ throttle_time_ms: i32,
        /// The configs by topic or broker.
        0+ results: Vec<DescribeConfigsResult>,
    }

    /// The configs of one topic or broker.
    pub struct DescribeConfigsResult {
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The error message of the broker.
        0+ error_message: Option<String> [nullable 0+] = Some(String::new()),
        /// The type: 2 topic, 4 broker, 8 broker loggers, 16 client metrics, 32 group.
        0+ resource_type: i8,
        /// The name; the id of a broker.
        0+ resource_name: String,
        /// The configs.
        0+ configs: Vec<DescribedConfig>,
    }

    /// A config.
    pub struct DescribedConfig {
        /// The name of the config.
        0+ name: String,
        /// The value; null if it is sensitive or not set.
        0+ value: Option<String> [nullable 0+] = Some(String::new()),
        /// Whether the config is read-only.
        0+ read_only: bool,
        /// Whether the value is the default.
        0-0 is_default: bool,
        /// The source of the value: 1 topic, 2 and 4 broker, 3 cluster, 5 default; −1 if unknown.
        1+ config_source: i8 [ignorable] = -1,
        /// Whether the config is sensitive.
        0+ is_sensitive: bool,
        /// The values of the config in all sources, the effective one first.
        1+ synonyms: Vec<ConfigSynonym> [ignorable],
        /// The type: 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9 password.
        ///
        /// 0 if unknown.
        3+ config_type: i8 [ignorable],
        /// The documentation.
        3+ documentation: Option<String> [nullable 0+, ignorable] = Some(String::new()),
    }

    /// The value of a config in one source, effective or not.
    pub struct ConfigSynonym {
        /// The name of the config in that source.
        1+ name: String,
        /// The value; null if it is sensitive.
        1+ value: Option<String> [nullable 0+] = Some(String::new()),
        /// The source; see `config_source`.
        1+ source: i8,
    }
}
