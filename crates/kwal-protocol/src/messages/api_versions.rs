//! ApiVersions: lists the versions of the APIs that a broker supports (KIP-35, KIP-511).
//!
//! It is the first request of a connection. A broker that does not support the requested version answers
//! `UNSUPPORTED_VERSION` in version 0. The header of the response is always version 0.

use crate::{api::ApiKey, error_code::ErrorCode, macros::message};

message! {
    /// Requests the versions that the broker supports (`ApiVersionsRequest.json`).
    pub struct ApiVersionsRequest {
        /// The name of the client library; letters, digits, `-` and `.`, not empty.
        3+ client_software_name: String [ignorable],
        /// The version of the client library; made of the same characters, not empty.
        3+ client_software_version: String [ignorable],
    }

    /// The versions that the broker supports (`ApiVersionsResponse.json`).
    pub struct ApiVersionsResponse {
        /// The error code, or `NONE`.
        0+ error_code: ErrorCode,
        /// The APIs that the broker supports.
        0+ api_keys: Vec<ApiVersion>,
        /// How long the connection is throttled because of a quota, in milliseconds.
        ///
        /// The request has taken effect all the same (KIP-219).
        1+ throttle_time_ms: i32 [ignorable],
        /// The features that the broker supports (KIP-584).
        3+ supported_features: Vec<SupportedFeature> [tag 0, ignorable],
        /// The epoch of the finalized features, which grows when they change; −1 if unknown.
        3+ finalized_features_epoch: i64 [tag 1, ignorable] = -1,
        /// The finalized features (KIP-584).
        3+ finalized_features: Vec<FinalizedFeature> [tag 2, ignorable],
        /// Whether the broker is ready to leave ZooKeeper (KIP-866).
        3+ zk_migration_ready: bool [tag 3, ignorable],
    }

    /// The versions of one API.
    pub struct ApiVersion {
        /// The API.
        0+ api_key: ApiKey,
        /// The oldest version.
        0+ min_version: i16,
        /// The newest version.
        0+ max_version: i16,
    }

    /// A feature that the broker supports, with its levels (KIP-584).
    pub struct SupportedFeature {
        /// The name of the feature.
        3+ name: String,
        /// The oldest version.
        3+ min_version: i16,
        /// The newest version.
        3+ max_version: i16,
    }

    /// A finalized feature of the cluster, with its levels (KIP-584).
    pub struct FinalizedFeature {
        /// The name of the feature.
        3+ name: String,
        /// The highest finalized level.
        3+ max_version_level: i16,
        /// The lowest finalized level.
        3+ min_version_level: i16,
    }
}
