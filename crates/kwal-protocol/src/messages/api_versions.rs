//! ApiVersions: which versions of which APIs a broker speaks (KIP-35, KIP-511). It is the first request of a
//! connection. A broker that does not know the version asked for answers `UNSUPPORTED_VERSION` in version 0, and
//! the header of the response is always version 0.

use crate::{api::ApiKey, error_code::ErrorCode, macros::message};

message! {
    /// Asks for the versions that the broker speaks (`ApiVersionsRequest.json`).
    pub struct ApiVersionsRequest {
        /// The name of the client library; letters, digits, `-` and `.`, not empty.
        3+ client_software_name: String [ignorable],
        /// Its version; of the same characters, not empty.
        3+ client_software_version: String [ignorable],
    }

    /// The versions that the broker speaks (`ApiVersionsResponse.json`).
    pub struct ApiVersionsResponse {
        /// What went wrong, or `NONE`.
        0+ error_code: ErrorCode,
        /// The APIs that the broker speaks.
        0+ api_keys: Vec<ApiVersion>,
        /// For how long the broker holds this connection back because of a quota, in milliseconds; the
        /// request has been carried out (KIP-219).
        1+ throttle_time_ms: i32 [ignorable],
        /// The features that the broker supports (KIP-584).
        3+ supported_features: Vec<SupportedFeature> [tag 0, ignorable],
        /// Rises when the features in force change; −1 if not known.
        3+ finalized_features_epoch: i64 [tag 1, ignorable] = -1,
        /// The features in force (KIP-584).
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

    /// A feature that is in force in the cluster, with its levels (KIP-584).
    pub struct FinalizedFeature {
        /// The name of the feature.
        3+ name: String,
        /// The highest level in force.
        3+ max_version_level: i16,
        /// The lowest level in force.
        3+ min_version_level: i16,
    }
}
