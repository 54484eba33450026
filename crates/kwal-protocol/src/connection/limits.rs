//! How large a response may be, by the request that it answers.

use crate::api::ApiKey;

/// The response to a request of the handshake, before the peer has proven anything.
///
/// A broker's versions take one or two kilobytes, a message of SASL less.
const HANDSHAKE: usize = 64 << 10;
/// A response that describes a whole cluster, or each record of a batch that is rejected: 100,000 partitions
/// take up to 6.3 MB in Metadata, 100,000 records with a message each 11 MB in Produce.
const DETAILED: usize = 16 << 20;
/// Any other response without records.
const OTHER: usize = 4 << 20;

/// Returns the largest response to a request of the owner, in bytes.
pub(super) fn largest_response(api: ApiKey, max_frame_len: usize) -> usize {
    max_frame_len.min(of_api(api))
}

/// Returns the largest response to a request of the handshake, in bytes.
pub(super) fn largest_handshake(max_frame_len: usize) -> usize {
    max_frame_len.min(HANDSHAKE)
}

fn of_api(api: ApiKey) -> usize {
    match api {
        ApiKey::FETCH => usize::MAX,
        ApiKey::PRODUCE
        | ApiKey::METADATA
        | ApiKey::DESCRIBE_CONFIGS
        | ApiKey::DESCRIBE_LOG_DIRS
        | ApiKey::DESCRIBE_PRODUCERS
        | ApiKey::DESCRIBE_TOPIC_PARTITIONS => DETAILED,
        _ => OTHER,
    }
}

/// Returns what can be done about a response that exceeds `max` bytes.
pub(super) fn hint(api: ApiKey, max: usize) -> &'static str {
    match api {
        ApiKey::API_VERSIONS | ApiKey::SASL_HANDSHAKE | ApiKey::SASL_AUTHENTICATE => "",
        // Only a limit of the owner is lower than that of the API.
        _ if max < of_api(api) => ": request less, or raise the limit",
        _ => ": request less",
    }
}
