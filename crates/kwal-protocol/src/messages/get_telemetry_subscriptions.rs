//! GetTelemetrySubscriptions: gets the metrics that a broker subscribes to (KIP-714).
//!
//! The response also lists the codecs that the broker accepts.

use crate::{error_code::ErrorCode, macros::message, wire::Uuid};

message! {
    /// Requests the subscription (`GetTelemetrySubscriptionsRequest.json`).
    pub struct GetTelemetrySubscriptionsRequest {
        /// The id of the client; zero to have the broker assign one.
        0+ client_instance_id: Uuid,
    }

    /// The subscription (`GetTelemetrySubscriptionsResponse.json`).
    pub struct GetTelemetrySubscriptionsResponse {
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        0+ throttle_time_ms: i32,
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The id of the client; zero to have the broker assign one.
        0+ client_instance_id: Uuid,
        /// The id of the subscription.
        0+ subscription_id: i32,
        /// The codecs that the broker accepts for metrics, as in the attributes of a batch.
        0+ accepted_compression_types: Vec<i8>,
        /// The interval between two pushes, in milliseconds.
        0+ push_interval_ms: i32,
        /// The maximum size of the metrics in bytes.
        0+ telemetry_max_bytes: i32,
        /// Whether counters are reported as deltas.
        0+ delta_temporality: bool,
        /// The prefixes of the requested metrics; a single empty string for all.
        0+ requested_metrics: Vec<String>,
    }
}
