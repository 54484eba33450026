//! The APIs that faults are injected into, and the errors of each.

use kwal_protocol::{api::ApiKey, error_code::ErrorCode};

/// An API to inject faults into.
#[derive(Clone, Copy)]
pub(super) struct FaultyApi {
    pub(super) api: ApiKey,
    /// The codes that brokers answer it with at bad times.
    ///
    /// `true` marks those that are sent after the work was done.
    pub(super) codes: &'static [(ErrorCode, bool)],
}

/// Repeated by weight.
pub(super) const FAULTY_APIS: &[FaultyApi] =
    &[PRODUCE, PRODUCE, PRODUCE, PRODUCE, FETCH, FETCH, METADATA, HANDSHAKE];

/// The same for the APIs of exclusive writers.
pub(super) const FAULTY_COORDINATORS: &[FaultyApi] =
    &[INIT_PRODUCER_ID, INIT_PRODUCER_ID, FIND_COORDINATOR, LIST_OFFSETS, DESCRIBE_PRODUCERS];

const PRODUCE: FaultyApi = FaultyApi {
    api: ApiKey::PRODUCE,
    codes: &[
        (ErrorCode::NOT_LEADER_OR_FOLLOWER, false),
        (ErrorCode::NOT_LEADER_OR_FOLLOWER, true),
        (ErrorCode::NOT_ENOUGH_REPLICAS, false),
        (ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND, true),
        (ErrorCode::REQUEST_TIMED_OUT, true),
        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, false),
        (ErrorCode::KAFKA_STORAGE_ERROR, true),
    ],
};
const FETCH: FaultyApi = FaultyApi {
    api: ApiKey::FETCH,
    codes: &[
        (ErrorCode::NOT_LEADER_OR_FOLLOWER, false),
        (ErrorCode::FENCED_LEADER_EPOCH, false),
        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, false),
        (ErrorCode::KAFKA_STORAGE_ERROR, false),
    ],
};
const METADATA: FaultyApi =
    FaultyApi { api: ApiKey::METADATA, codes: &[(ErrorCode::LEADER_NOT_AVAILABLE, false)] };
const HANDSHAKE: FaultyApi = FaultyApi { api: ApiKey::API_VERSIONS, codes: &[] };
const INIT_PRODUCER_ID: FaultyApi = FaultyApi {
    api: ApiKey::INIT_PRODUCER_ID,
    codes: &[
        (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, false),
        (ErrorCode::COORDINATOR_NOT_AVAILABLE, false),
        (ErrorCode::COORDINATOR_NOT_AVAILABLE, true),
        (ErrorCode::NOT_COORDINATOR, false),
        (ErrorCode::CONCURRENT_TRANSACTIONS, false),
        (ErrorCode::REQUEST_TIMED_OUT, true),
    ],
};
const FIND_COORDINATOR: FaultyApi = FaultyApi {
    api: ApiKey::FIND_COORDINATOR,
    codes: &[(ErrorCode::COORDINATOR_NOT_AVAILABLE, false), (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, false)],
};
const LIST_OFFSETS: FaultyApi = FaultyApi {
    api: ApiKey::LIST_OFFSETS,
    codes: &[(ErrorCode::OFFSET_NOT_AVAILABLE, false), (ErrorCode::NOT_LEADER_OR_FOLLOWER, false)],
};
const DESCRIBE_PRODUCERS: FaultyApi =
    FaultyApi { api: ApiKey::DESCRIBE_PRODUCERS, codes: &[(ErrorCode::NOT_LEADER_OR_FOLLOWER, false)] };
