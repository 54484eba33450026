//! IncrementalAlterConfigs: changes some settings and leaves the others (KIP-339).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Changes settings (`IncrementalAlterConfigsRequest.json`).
    pub struct IncrementalAlterConfigsRequest {
        /// The topics and brokers.
        0+ resources: Vec<AlterConfigsResource>,
        /// Whether only to check that it could be done.
        0+ validate_only: bool,
    }

    /// A topic or broker whose settings are to change.
    pub struct AlterConfigsResource {
        /// What it is: 2 a topic, 4 a broker, 8 a broker's loggers, 16 a client's metrics, 32 a group.
        0+ resource_type: i8,
        /// Its name; a broker's id.
        0+ resource_name: String,
        /// The changes.
        0+ configs: Vec<AlterableConfig>,
    }

    /// A change of one setting.
    pub struct AlterableConfig {
        /// The name of the setting.
        0+ name: String,
        /// What to do: 0 set, 1 go back to the default, 2 append to a list, 3 take out of a list.
        0+ config_operation: i8,
        /// The value; null to go back to the default.
        0+ value: Option<String> [nullable 0+] = Some(String::new()),
    }

    /// What became of each resource (`IncrementalAlterConfigsResponse.json`).
    pub struct IncrementalAlterConfigsResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        0+ throttle_time_ms: i32,
        /// What became of the topics and brokers.
        0+ responses: Vec<AlterConfigsResult>,
    }

    /// What became of one topic or broker.
    pub struct AlterConfigsResult {
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// What went wrong, in the broker's words.
        0+ error_message: Option<String> [nullable 0+] = Some(String::new()),
        /// What it is: 2 a topic, 4 a broker, 8 a broker's loggers, 16 a client's metrics, 32 a group.
        0+ resource_type: i8,
        /// Its name; a broker's id.
        0+ resource_name: String,
    }
}
