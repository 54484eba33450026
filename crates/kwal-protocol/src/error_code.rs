//! The broker's error codes, and how a client reacts to each.
//!
//! The meaning of a code depends on the API: on Produce, `NOT_LEADER_OR_FOLLOWER` may follow after the batch
//! was appended. So [`ErrorCode::meaning`] takes the API as well.

use crate::{
    api::ApiKey,
    error::DecodeError,
    reader::Reader,
    wire::{Version, Wire},
    writer::Writer,
};

/// An error code from the wire. Unknown codes are preserved.
///
/// ```
/// use kwal_protocol::error_code::ErrorCode;
///
/// assert_eq!(ErrorCode(6), ErrorCode::NOT_LEADER_OR_FOLLOWER);
/// let text = "NOT_LEADER_OR_FOLLOWER (6): the broker does not lead the partition";
/// assert_eq!(ErrorCode(6).to_string(), text);
/// assert_eq!(ErrorCode(9999).to_string(), "error code 9999");
/// ```
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ErrorCode(pub i16);

/// The meaning of a code for a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Meaning {
    /// How to recover.
    pub recovery: Recovery,
    /// Whether the request may have taken effect.
    pub effect: Effect,
}

/// How to recover from an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Recovery {
    /// A client cannot recover by itself.
    Fail,
    /// Repeat the request after a pause.
    Retry,
    /// Refresh the metadata (leader, controller or coordinator), then repeat the request.
    Refresh,
}

/// The effect of a request that was answered with an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// The request was rejected without an effect.
    None,
    /// The request may have taken effect, or may do so later.
    Unknown,
}

impl ErrorCode {
    /// Whether the code is an error, that is, other than [`NONE`](Self::NONE).
    pub fn is_error(self) -> bool {
        self != Self::NONE
    }

    /// Returns `Err` with the code unless it is [`NONE`](Self::NONE).
    ///
    /// # Errors
    /// The code itself.
    pub fn ok(self) -> Result<(), Self> {
        match self {
            Self::NONE => Ok(()),
            code => Err(code),
        }
    }

    /// Returns the meaning of the code in a response of `api`.
    ///
    /// The recoveries are those of Kafka's own client (its retriable and invalid-metadata exceptions), with
    /// the exceptions below. An unknown code has an unknown effect on any request that changes the cluster.
    pub const fn meaning(self, api: ApiKey) -> Meaning {
        let recovery = match (api, self) {
            // A new leader answers this until it has caught up with the metadata (KIP-320).
            (
                ApiKey::FETCH | ApiKey::LIST_OFFSETS | ApiKey::OFFSET_FOR_LEADER_EPOCH,
                Self::UNKNOWN_LEADER_EPOCH,
            ) => Recovery::Refresh,
            // Find the new controller or coordinator.
            (_, Self::NOT_CONTROLLER | Self::NOT_COORDINATOR) => Recovery::Refresh,
            // The batch was damaged on its way or before; a repetition would not repair it.
            (ApiKey::PRODUCE, Self::CORRUPT_MESSAGE) => Recovery::Fail,
            // A producer id that is refused can be replaced by a new one.
            (ApiKey::PRODUCE, Self::UNKNOWN_PRODUCER_ID | Self::INVALID_PRODUCER_ID_MAPPING) => {
                Recovery::Retry
            }
            // The controller knows every topic.
            (
                ApiKey::DELETE_TOPICS | ApiKey::CREATE_PARTITIONS,
                Self::UNKNOWN_TOPIC_OR_PARTITION | Self::UNKNOWN_TOPIC_ID,
            ) => Recovery::Fail,
            // The client forgets the brokers and looks them up again (KIP-1102).
            (_, Self::REBOOTSTRAP_REQUIRED) => Recovery::Refresh,
            // A broker that is shutting down answers some requests with this.
            (_, Self::BROKER_NOT_AVAILABLE) => Recovery::Refresh,
            (_, code) => code.usual_recovery(),
        };
        Meaning { recovery, effect: self.effect(api) }
    }

    const fn effect(self, api: ApiKey) -> Effect {
        match (api, self) {
            // The leader appends first and then waits for the replicas; it may lose its leadership while it
            // waits.
            (
                ApiKey::PRODUCE,
                Self::NOT_ENOUGH_REPLICAS_AFTER_APPEND
                | Self::NOT_LEADER_OR_FOLLOWER
                | Self::UNKNOWN_TOPIC_OR_PARTITION
                | Self::UNKNOWN_TOPIC_ID
                | Self::KAFKA_STORAGE_ERROR
                // The batch is on the log, at an unknown offset.
                | Self::DUPLICATE_SEQUENCE_NUMBER,
            ) => Effect::Unknown,
            // Likewise the leader moves the log start offset first.
            (
                ApiKey::DELETE_RECORDS,
                Self::NOT_LEADER_OR_FOLLOWER | Self::UNKNOWN_TOPIC_OR_PARTITION | Self::KAFKA_STORAGE_ERROR,
            ) => Effect::Unknown,
            // The broker continues after it has stopped waiting.
            (_, Self::REQUEST_TIMED_OUT | Self::NETWORK_EXCEPTION | Self::UNKNOWN_SERVER_ERROR)
                if api.changes_something() =>
            {
                Effect::Unknown
            }
            (_, code) if code.name().is_none() && api.changes_something() => Effect::Unknown,
            _ => Effect::None,
        }
    }
}

impl std::fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "ErrorCode({})", self.0),
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.name(), self.text()) {
            (Some(name), Some(text)) => write!(f, "{name} ({}): {text}", self.0),
            _ => write!(f, "error code {}", self.0),
        }
    }
}

impl std::error::Error for ErrorCode {}

impl Wire for ErrorCode {
    fn write(&self, writer: &mut Writer, version: Version) {
        self.0.write(writer, version);
    }

    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        i16::read(reader, version).map(Self)
    }
}

#[cfg(feature = "arbitrary")]
impl crate::arbitrary::Arbitrate for ErrorCode {
    fn arbitrate(bytes: &mut ::arbitrary::Unstructured<'_>) -> ::arbitrary::Result<Self> {
        ::arbitrary::Arbitrary::arbitrary(bytes).map(Self)
    }
}

#[cfg(feature = "serde")]
impl crate::json::Json for ErrorCode {
    fn write_json<S: serde::Serializer>(&self, serializer: S, _: Version) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(&self.0, serializer)
    }

    fn read_json<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::Deserialize::deserialize(deserializer).map(Self)
    }
}

macro_rules! codes {
    ($($name:ident = $code:literal, $recovery:ident, $text:literal;)*) => {
        impl ErrorCode {
            $( #[doc = concat!("Code ", $code, ": ", $text, ".")] pub const $name: Self = Self($code); )*

            /// Returns Kafka's name of the code, if it is known here.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $( Self::$name => Some(stringify!($name)), )*
                    _ => None,
                }
            }

            /// Returns a description of the code, if it is known here.
            pub const fn text(self) -> Option<&'static str> {
                match self {
                    $( Self::$name => Some($text), )*
                    _ => None,
                }
            }

            /// The recovery for most APIs.
            const fn usual_recovery(self) -> Recovery {
                match self {
                    $( Self::$name => Recovery::$recovery, )*
                    _ => Recovery::Fail,
                }
            }
        }
    };
}

// The recoveries of `org.apache.kafka.common.protocol.Errors` of Kafka 4.3: `RetriableException` is retried,
// and `InvalidMetadataException` also refreshes the metadata.
codes! {
    UNKNOWN_SERVER_ERROR = -1, Fail, "the broker had an unexpected error";
    NONE = 0, Fail, "no error";
    OFFSET_OUT_OF_RANGE = 1, Fail, "the offset is outside of the log";
    CORRUPT_MESSAGE = 2, Retry, "the record batch arrived damaged";
    UNKNOWN_TOPIC_OR_PARTITION = 3, Refresh, "the broker does not know the topic or partition";
    INVALID_FETCH_SIZE = 4, Fail, "the fetch size is not valid";
    LEADER_NOT_AVAILABLE = 5, Refresh, "the partition has no leader at the moment";
    NOT_LEADER_OR_FOLLOWER = 6, Refresh, "the broker does not lead the partition";
    REQUEST_TIMED_OUT = 7, Retry, "the request timed out on the broker";
    BROKER_NOT_AVAILABLE = 8, Fail, "the broker is not available";
    REPLICA_NOT_AVAILABLE = 9, Refresh, "the replica is not available";
    MESSAGE_TOO_LARGE = 10, Fail, "the record batch is larger than the topic allows";
    STALE_CONTROLLER_EPOCH = 11, Fail, "the controller has moved";
    OFFSET_METADATA_TOO_LARGE = 12, Fail, "the metadata of an offset commit is too large";
    NETWORK_EXCEPTION = 13, Refresh, "the broker lost a connection";
    COORDINATOR_LOAD_IN_PROGRESS = 14, Retry, "the coordinator is still loading";
    COORDINATOR_NOT_AVAILABLE = 15, Retry, "the coordinator is not available";
    NOT_COORDINATOR = 16, Retry, "the broker is not the coordinator";
    INVALID_TOPIC_EXCEPTION = 17, Fail, "the topic name is not valid";
    RECORD_LIST_TOO_LARGE = 18, Fail, "the record batch is larger than a log segment";
    NOT_ENOUGH_REPLICAS = 19, Retry, "fewer replicas are in sync than the topic requires, nothing was appended";
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20, Retry, "fewer replicas are in sync than the topic requires, after the append";
    INVALID_REQUIRED_ACKS = 21, Fail, "the number of acks is not valid";
    ILLEGAL_GENERATION = 22, Fail, "the generation of the group is outdated";
    INCONSISTENT_GROUP_PROTOCOL = 23, Fail, "the members of the group have no protocol in common";
    INVALID_GROUP_ID = 24, Fail, "the id of the group is not valid";
    UNKNOWN_MEMBER_ID = 25, Fail, "the member is not known";
    INVALID_SESSION_TIMEOUT = 26, Fail, "the session timeout is not allowed";
    REBALANCE_IN_PROGRESS = 27, Fail, "the group is rebalancing";
    INVALID_COMMIT_OFFSET_SIZE = 28, Fail, "the offset commit is too large";
    TOPIC_AUTHORIZATION_FAILED = 29, Fail, "access to the topic is denied";
    GROUP_AUTHORIZATION_FAILED = 30, Fail, "access to the group is denied";
    CLUSTER_AUTHORIZATION_FAILED = 31, Fail, "access to the cluster is denied";
    INVALID_TIMESTAMP = 32, Fail, "a timestamp is further from the broker's clock than the topic allows";
    UNSUPPORTED_SASL_MECHANISM = 33, Fail, "the broker does not offer this SASL mechanism";
    ILLEGAL_SASL_STATE = 34, Fail, "the request is not valid in the current state of authentication";
    UNSUPPORTED_VERSION = 35, Fail, "the broker does not support this version";
    TOPIC_ALREADY_EXISTS = 36, Fail, "the topic already exists";
    INVALID_PARTITIONS = 37, Fail, "the number of partitions is not valid";
    INVALID_REPLICATION_FACTOR = 38, Fail, "the replication factor is not valid or there are too few brokers";
    INVALID_REPLICA_ASSIGNMENT = 39, Fail, "the replica assignment is not valid";
    INVALID_CONFIG = 40, Fail, "a config is not valid";
    NOT_CONTROLLER = 41, Retry, "the broker is not the controller";
    INVALID_REQUEST = 42, Fail, "the request is malformed or not valid";
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43, Fail, "the message format on the broker cannot do this";
    POLICY_VIOLATION = 44, Fail, "a policy of the cluster forbids it";
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45, Fail, "the sequence number does not follow the last one that the broker knows";
    DUPLICATE_SEQUENCE_NUMBER = 46, Fail, "the sequence number is a duplicate";
    INVALID_PRODUCER_EPOCH = 47, Fail, "the producer epoch is older than the one that the broker knows";
    INVALID_TXN_STATE = 48, Fail, "the transaction is not in a state for this";
    INVALID_PRODUCER_ID_MAPPING = 49, Fail, "the producer id does not belong to the transactional id";
    INVALID_TRANSACTION_TIMEOUT = 50, Fail, "the transaction timeout is longer than the broker allows";
    CONCURRENT_TRANSACTIONS = 51, Retry, "another transaction of the same id is in progress";
    TRANSACTION_COORDINATOR_FENCED = 52, Fail, "the transaction coordinator has been replaced";
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53, Fail, "access to the transactional id is denied";
    SECURITY_DISABLED = 54, Fail, "security is disabled in the cluster";
    OPERATION_NOT_ATTEMPTED = 55, Fail, "the operation was not attempted, because another part of the request failed";
    KAFKA_STORAGE_ERROR = 56, Refresh, "the broker has a disk error";
    LOG_DIR_NOT_FOUND = 57, Fail, "the log directory does not exist";
    SASL_AUTHENTICATION_FAILED = 58, Fail, "authentication failed";
    UNKNOWN_PRODUCER_ID = 59, Fail, "the broker no longer knows the producer id";
    REASSIGNMENT_IN_PROGRESS = 60, Fail, "the partition is being reassigned";
    DELEGATION_TOKEN_AUTH_DISABLED = 61, Fail, "delegation tokens are disabled";
    DELEGATION_TOKEN_NOT_FOUND = 62, Fail, "the delegation token does not exist";
    DELEGATION_TOKEN_OWNER_MISMATCH = 63, Fail, "the delegation token has another owner";
    DELEGATION_TOKEN_REQUEST_NOT_ALLOWED = 64, Fail, "this connection may not ask for delegation tokens";
    DELEGATION_TOKEN_AUTHORIZATION_FAILED = 65, Fail, "access to the delegation token is denied";
    DELEGATION_TOKEN_EXPIRED = 66, Fail, "the delegation token has expired";
    INVALID_PRINCIPAL_TYPE = 67, Fail, "the type of the principal is not supported";
    NON_EMPTY_GROUP = 68, Fail, "the group is not empty";
    GROUP_ID_NOT_FOUND = 69, Fail, "the group does not exist";
    FETCH_SESSION_ID_NOT_FOUND = 70, Retry, "the fetch session does not exist";
    INVALID_FETCH_SESSION_EPOCH = 71, Retry, "the epoch of the fetch session is not the expected one";
    LISTENER_NOT_FOUND = 72, Refresh, "the leader has no listener of this name";
    TOPIC_DELETION_DISABLED = 73, Fail, "topic deletion is disabled";
    FENCED_LEADER_EPOCH = 74, Refresh, "the leader epoch of the request is outdated";
    UNKNOWN_LEADER_EPOCH = 75, Retry, "the leader epoch of the request is not known yet";
    UNSUPPORTED_COMPRESSION_TYPE = 76, Fail, "the broker does not support this compression for this version";
    STALE_BROKER_EPOCH = 77, Fail, "the broker epoch is outdated";
    OFFSET_NOT_AVAILABLE = 78, Retry, "the leader does not know the end of the log yet";
    MEMBER_ID_REQUIRED = 79, Fail, "the group requires a member id";
    PREFERRED_LEADER_NOT_AVAILABLE = 80, Refresh, "the preferred leader is not available";
    GROUP_MAX_SIZE_REACHED = 81, Fail, "the group has reached its maximum size";
    FENCED_INSTANCE_ID = 82, Fail, "another member has the instance id";
    ELIGIBLE_LEADERS_NOT_AVAILABLE = 83, Refresh, "no eligible leader is available";
    ELECTION_NOT_NEEDED = 84, Refresh, "the partition has the leader it should have";
    NO_REASSIGNMENT_IN_PROGRESS = 85, Fail, "no reassignment is in progress";
    GROUP_SUBSCRIBED_TO_TOPIC = 86, Fail, "the group is subscribed to the topic";
    INVALID_RECORD = 87, Fail, "the broker does not accept a record";
    UNSTABLE_OFFSET_COMMIT = 88, Retry, "offsets depend on an open transaction";
    THROTTLING_QUOTA_EXCEEDED = 89, Retry, "a quota is exhausted";
    PRODUCER_FENCED = 90, Fail, "a newer producer of the same transactional id has taken over";
    RESOURCE_NOT_FOUND = 91, Fail, "the resource does not exist";
    DUPLICATE_RESOURCE = 92, Fail, "the resource exists twice";
    UNACCEPTABLE_CREDENTIAL = 93, Fail, "the credential is not acceptable";
    INCONSISTENT_VOTER_SET = 94, Fail, "the sets of voters differ";
    INVALID_UPDATE_VERSION = 95, Fail, "the update is not valid";
    FEATURE_UPDATE_FAILED = 96, Fail, "features could not be updated";
    PRINCIPAL_DESERIALIZATION_FAILURE = 97, Fail, "the principal could not be read";
    SNAPSHOT_NOT_FOUND = 98, Fail, "the snapshot does not exist";
    POSITION_OUT_OF_RANGE = 99, Fail, "the position is outside of the snapshot";
    UNKNOWN_TOPIC_ID = 100, Refresh, "the broker does not know the topic id";
    DUPLICATE_BROKER_REGISTRATION = 101, Fail, "a broker with this id is already registered";
    BROKER_ID_NOT_REGISTERED = 102, Fail, "no broker with this id is registered";
    INCONSISTENT_TOPIC_ID = 103, Refresh, "the topic id does not match the one in the log";
    INCONSISTENT_CLUSTER_ID = 104, Fail, "the cluster id does not match";
    TRANSACTIONAL_ID_NOT_FOUND = 105, Fail, "the transactional id does not exist";
    FETCH_SESSION_TOPIC_ID_ERROR = 106, Retry, "the fetch session has the topic with another id";
    INELIGIBLE_REPLICA = 107, Fail, "the replica is not eligible to be in sync";
    NEW_LEADER_ELECTED = 108, Fail, "a new leader was elected meanwhile";
    OFFSET_MOVED_TO_TIERED_STORAGE = 109, Fail, "the offset is in remote storage";
    FENCED_MEMBER_EPOCH = 110, Fail, "the epoch of the member is outdated";
    UNRELEASED_INSTANCE_ID = 111, Fail, "the instance id is still in use";
    UNSUPPORTED_ASSIGNOR = 112, Fail, "the assignor is not supported";
    STALE_MEMBER_EPOCH = 113, Fail, "the epoch of the member is stale";
    MISMATCHED_ENDPOINT_TYPE = 114, Fail, "the request went to the wrong kind of listener";
    UNSUPPORTED_ENDPOINT_TYPE = 115, Fail, "the kind of listener is not supported";
    UNKNOWN_CONTROLLER_ID = 116, Fail, "the controller id is not known";
    UNKNOWN_SUBSCRIPTION_ID = 117, Fail, "the telemetry subscription is not known";
    TELEMETRY_TOO_LARGE = 118, Fail, "the telemetry data is too large";
    INVALID_REGISTRATION = 119, Fail, "the registration is not valid";
    TRANSACTION_ABORTABLE = 120, Fail, "the transaction has to be aborted";
    INVALID_RECORD_STATE = 121, Fail, "the record is not in a state for this";
    SHARE_SESSION_NOT_FOUND = 122, Retry, "the share session does not exist";
    INVALID_SHARE_SESSION_EPOCH = 123, Retry, "the epoch of the share session is not the expected one";
    FENCED_STATE_EPOCH = 124, Fail, "the epoch of the state is outdated";
    INVALID_VOTER_KEY = 125, Fail, "the key of the voter is not valid";
    DUPLICATE_VOTER = 126, Fail, "the voter already exists";
    VOTER_NOT_FOUND = 127, Fail, "the voter does not exist";
    INVALID_REGULAR_EXPRESSION = 128, Fail, "the regular expression is not valid";
    REBOOTSTRAP_REQUIRED = 129, Fail, "the client has to start again from its bootstrap servers";
    STREAMS_INVALID_TOPOLOGY = 130, Fail, "the topology is not valid";
    STREAMS_INVALID_TOPOLOGY_EPOCH = 131, Fail, "the epoch of the topology is not valid";
    STREAMS_TOPOLOGY_FENCED = 132, Fail, "the topology has been replaced";
    SHARE_SESSION_LIMIT_REACHED = 133, Retry, "the broker has reached its limit of share sessions";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(api: ApiKey, code: ErrorCode) -> Effect {
        code.meaning(api).effect
    }

    /// On Produce with acks = all the leader appends first and then waits, so an error may follow an append.
    #[test]
    fn errors_that_may_follow_an_append() {
        for open in [
            ErrorCode::REQUEST_TIMED_OUT,
            ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
            ErrorCode::NOT_LEADER_OR_FOLLOWER,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            ErrorCode::UNKNOWN_TOPIC_ID,
            ErrorCode::KAFKA_STORAGE_ERROR,
            ErrorCode::NETWORK_EXCEPTION,
            ErrorCode::UNKNOWN_SERVER_ERROR,
            ErrorCode(9999),
        ] {
            assert_eq!(effect(ApiKey::PRODUCE, open), Effect::Unknown, "{open}");
            assert_eq!(effect(ApiKey::FETCH, open), Effect::None, "{open}");
        }
        for refused in [
            ErrorCode::NOT_ENOUGH_REPLICAS,
            ErrorCode::MESSAGE_TOO_LARGE,
            ErrorCode::INVALID_RECORD,
            ErrorCode::INVALID_TIMESTAMP,
            ErrorCode::CORRUPT_MESSAGE,
            ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
            ErrorCode::TOPIC_AUTHORIZATION_FAILED,
            ErrorCode::INVALID_PRODUCER_EPOCH,
        ] {
            assert_eq!(effect(ApiKey::PRODUCE, refused), Effect::None, "{refused}");
        }
    }

    #[test]
    fn errors_that_may_follow_another_change() {
        let apis = [
            ApiKey::CREATE_TOPICS,
            ApiKey::DELETE_TOPICS,
            ApiKey::CREATE_PARTITIONS,
            ApiKey::INCREMENTAL_ALTER_CONFIGS,
            ApiKey::DELETE_RECORDS,
        ];
        for api in apis {
            for open in [ErrorCode::REQUEST_TIMED_OUT, ErrorCode::UNKNOWN_SERVER_ERROR, ErrorCode(9999)] {
                assert_eq!(effect(api, open), Effect::Unknown, "{api} {open}");
            }
            for refused in [ErrorCode::NOT_CONTROLLER, ErrorCode::THROTTLING_QUOTA_EXCEEDED] {
                assert_eq!(effect(api, refused), Effect::None, "{api} {refused}");
            }
        }
        assert_eq!(effect(ApiKey::DELETE_RECORDS, ErrorCode::NOT_LEADER_OR_FOLLOWER), Effect::Unknown);
        assert_eq!(effect(ApiKey::DELETE_RECORDS, ErrorCode::OFFSET_OUT_OF_RANGE), Effect::None);
    }

    #[test]
    fn the_recovery_depends_on_the_api() {
        let recovery = |api, code: ErrorCode| code.meaning(api).recovery;
        for refused in [ErrorCode::UNKNOWN_PRODUCER_ID, ErrorCode::INVALID_PRODUCER_ID_MAPPING] {
            assert_eq!(recovery(ApiKey::PRODUCE, refused), Recovery::Retry);
            assert_eq!(recovery(ApiKey::INIT_PRODUCER_ID, refused), Recovery::Fail);
            assert_eq!(effect(ApiKey::PRODUCE, refused), Effect::None);
        }
        assert_eq!(recovery(ApiKey::METADATA, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), Recovery::Refresh);
        assert_eq!(recovery(ApiKey::DELETE_TOPICS, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), Recovery::Fail);
        assert_eq!(
            recovery(ApiKey::CREATE_PARTITIONS, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            Recovery::Fail
        );
        assert_eq!(
            recovery(ApiKey::DESCRIBE_CONFIGS, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            Recovery::Refresh
        );
        for api in [ApiKey::FETCH, ApiKey::LIST_OFFSETS, ApiKey::OFFSET_FOR_LEADER_EPOCH] {
            assert_eq!(recovery(api, ErrorCode::UNKNOWN_LEADER_EPOCH), Recovery::Refresh, "{api}");
        }
        for api in [ApiKey::CREATE_TOPICS, ApiKey::CREATE_PARTITIONS, ApiKey::INCREMENTAL_ALTER_CONFIGS] {
            assert_eq!(recovery(api, ErrorCode::NOT_CONTROLLER), Recovery::Refresh, "{api}");
            assert_eq!(recovery(api, ErrorCode::THROTTLING_QUOTA_EXCEEDED), Recovery::Retry, "{api}");
        }
        for api in [ApiKey::METADATA, ApiKey::FETCH, ApiKey::DESCRIBE_CLUSTER] {
            assert_eq!(recovery(api, ErrorCode::REBOOTSTRAP_REQUIRED), Recovery::Refresh, "{api}");
        }
        assert_eq!(recovery(ApiKey::FETCH, ErrorCode::CORRUPT_MESSAGE), Recovery::Retry);
        assert_eq!(recovery(ApiKey::PRODUCE, ErrorCode::CORRUPT_MESSAGE), Recovery::Fail);
        assert_eq!(recovery(ApiKey::PRODUCE, ErrorCode::NOT_ENOUGH_REPLICAS), Recovery::Retry);
    }
}
