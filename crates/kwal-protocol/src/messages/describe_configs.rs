//! DescribeConfigs: the settings of topics and brokers, and where they come from (KIP-226).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Asks for settings (`DescribeConfigsRequest.json`).
    pub struct DescribeConfigsRequest {
        /// The topics and brokers.
        0+ resources: Vec<DescribeConfigsResource>,
        /// Whether to tell the values that are not in force too.
        1+ include_synonyms: bool,
        /// Whether to tell what the settings mean.
        3+ include_documentation: bool,
    }

    /// A topic or broker whose settings are asked for.
    pub struct DescribeConfigsResource {
        /// What it is: 2 a topic, 4 a broker, 8 a broker's loggers, 16 a client's metrics, 32 a group.
        0+ resource_type: i8,
        /// Its name; a broker's id.
        0+ resource_name: String,
        /// The settings asked for; null for all.
        0+ configuration_keys: Option<Vec<String>> [nullable 0+] = Some(Vec::new()),
    }

    /// The settings (`DescribeConfigsResponse.json`).
    pub struct DescribeConfigsResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        0+ throttle_time_ms: i32,
        /// The settings, by topic or broker.
        0+ results: Vec<DescribeConfigsResult>,
    }

    /// The settings of one topic or broker.
    pub struct DescribeConfigsResult {
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// What went wrong, in the broker's words.
        0+ error_message: Option<String> [nullable 0+] = Some(String::new()),
        /// What it is: 2 a topic, 4 a broker, 8 a broker's loggers, 16 a client's metrics, 32 a group.
        0+ resource_type: i8,
        /// Its name; a broker's id.
        0+ resource_name: String,
        /// The settings.
        0+ configs: Vec<DescribedConfig>,
    }

    /// A setting.
    pub struct DescribedConfig {
        /// The name of the setting.
        0+ name: String,
        /// Its value; null where the broker keeps it secret or there is none.
        0+ value: Option<String> [nullable 0+] = Some(String::new()),
        /// Whether it cannot be changed.
        0+ read_only: bool,
        /// Whether the value is the default.
        0-0 is_default: bool,
        /// Where it comes from: 1 the topic, 2 and 4 a broker, 3 the cluster, 5 a default; −1 if not known.
        1+ config_source: i8 [ignorable] = -1,
        /// Whether it is kept secret.
        0+ is_sensitive: bool,
        /// The values that the setting has, the one in force first.
        1+ synonyms: Vec<ConfigSynonym> [ignorable],
        /// The type of the value: 1 boolean, 2 text, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9
        /// password; 0 if not known.
        3+ config_type: i8 [ignorable],
        /// What the setting means.
        3+ documentation: Option<String> [nullable 0+, ignorable] = Some(String::new()),
    }

    /// A value that the setting has somewhere, in force or not.
    pub struct ConfigSynonym {
        /// The name under which it is set there.
        1+ name: String,
        /// The value; null where the broker keeps it secret.
        1+ value: Option<String> [nullable 0+] = Some(String::new()),
        /// Where that is; see `config_source`.
        1+ source: i8,
    }
}
