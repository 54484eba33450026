//! GetTelemetrySubscriptions: which metrics a broker wants to be sent (KIP-714). Its answer also tells which codecs
//! the broker takes.

use crate::{error_code::ErrorCode, macros::message, wire::Uuid};

message! {
    /// Asks which metrics are wanted (`GetTelemetrySubscriptionsRequest.json`).
    pub struct GetTelemetrySubscriptionsRequest {
        /// The id of the client; zero to be given one.
        0+ client_instance_id: Uuid,
    }

    /// Which metrics are wanted (`GetTelemetrySubscriptionsResponse.json`).
    pub struct GetTelemetrySubscriptionsResponse {
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        0+ throttle_time_ms: i32,
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// The id of the client; zero to be given one.
        0+ client_instance_id: Uuid,
        /// The number of the subscription.
        0+ subscription_id: i32,
        /// The codecs that the broker takes for metrics, as in the attributes of a batch.
        0+ accepted_compression_types: Vec<i8>,
        /// How often metrics are wanted, in milliseconds.
        0+ push_interval_ms: i32,
        /// How many bytes the broker takes at the most.
        0+ telemetry_max_bytes: i32,
        /// Whether counters are wanted as differences.
        0+ delta_temporality: bool,
        /// The prefixes of the metrics that are wanted; one empty text for all.
        0+ requested_metrics: Vec<String>,
    }
}
