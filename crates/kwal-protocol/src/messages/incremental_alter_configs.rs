//! IncrementalAlterConfigs: alters some configs and keeps the others (KIP-339).

use crate::{error_code::ErrorCode, macros::message};

message! {
    /// Alters configs (`IncrementalAlterConfigsRequest.json`).
    pub struct IncrementalAlterConfigsRequest {
        /// The topics and brokers.
        0+ resources: Vec<AlterConfigsResource>,
        /// Whether the request is only validated.
        0+ validate_only: bool,
    }

    /// A topic or broker whose configs are altered.
    pub struct AlterConfigsResource {
        /// The type: 2 topic, 4 broker, 8 broker loggers, 16 client metrics, 32 group.
        0+ resource_type: i8,
        /// The name; the id of a broker.
        0+ resource_name: String,
        /// The alterations.
        0+ configs: Vec<AlterableConfig>,
    }

    /// An alteration of one config.
    pub struct AlterableConfig {
        /// The name of the config.
        0+ name: String,
        /// The operation: 0 set, 1 delete (back to the default), 2 append to a list, 3 subtract from a list.
        0+ config_operation: i8,
        /// The value; null to delete it.
        0+ value: Option<String> [nullable 0+] = Some(String::new()),
    }

    /// The results (`IncrementalAlterConfigsResponse.json`).
    pub struct IncrementalAlterConfigsResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        0+ throttle_time_ms: i32,
        /// The results by topic or broker.
        0+ responses: Vec<AlterConfigsResult>,
    }

    /// The result of one topic or broker.
    pub struct AlterConfigsResult {
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The error message of the broker.
        0+ error_message: Option<String> [nullable 0+] = Some(String::new()),
        /// The type: 2 topic, 4 broker, 8 broker loggers, 16 client metrics, 32 group.
        0+ resource_type: i8,
        /// The name; the id of a broker.
        0+ resource_name: String,
    }
}
