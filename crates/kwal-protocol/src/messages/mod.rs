//! The messages, a file an API; `apis!` is their table.
//!
//! To add one: a file with two `message!` definitions, its line in the table, its vectors.

mod api_versions;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
mod describe_producers;
mod describe_topic_partitions;
mod fetch;
mod find_coordinator;
mod get_telemetry_subscriptions;
mod incremental_alter_configs;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod offset_for_leader_epoch;
mod produce;
mod sasl_authenticate;
mod sasl_handshake;

pub use api_versions::*;
pub use create_partitions::*;
pub use create_topics::*;
pub use delete_records::*;
pub use delete_topics::*;
pub use describe_cluster::*;
pub use describe_configs::*;
pub use describe_log_dirs::*;
pub use describe_producers::*;
pub use describe_topic_partitions::*;
pub use fetch::*;
pub use find_coordinator::*;
pub use get_telemetry_subscriptions::*;
pub use incremental_alter_configs::*;
pub use init_producer_id::*;
pub use list_offsets::*;
pub use metadata::*;
pub use offset_for_leader_epoch::*;
pub use produce::*;
pub use sasl_authenticate::*;
pub use sasl_handshake::*;

use bytes::Bytes;

use crate::{
    api::{ApiKey, Body, Request, Versions},
    error::{DecodeError, EncodeError},
    macros::open_enum,
};

open_enum! {
    /// Whether the records of open and aborted transactions are seen (KIP-98).
    pub struct IsolationLevel(i8);
    /// All records up to the high watermark: the default of a log.
    READ_UNCOMMITTED = 0;
    /// Up to the last stable offset; the answer names the aborted transactions, for the reader to leave out.
    READ_COMMITTED = 1;
}

/// The first flexible version of what is never flexible.
const NEVER: i16 = i16::MAX;

macro_rules! any {
    ($(#[$meta:meta])* pub enum $any:ident { $($name:ident($body:ident),)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Eq, PartialEq)]
        #[cfg_attr(feature = "arbitrary", derive(::arbitrary::Arbitrary))]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "the bodies have their own")]
        pub enum $any {
            $( $name($body), )*
        }

        impl $any {
            /// Reads a whole body. `None` if this crate has no messages for the API, or does not know the version.
            ///
            /// # Errors
            /// As [`Body::decode`].
            pub fn decode(key: ApiKey, version: i16, body: &Bytes) -> Option<Result<Self, DecodeError>> {
                match key {
                    $( <$body>::KEY => {
                        let version = <$body>::version(version).ok()?;
                        Some(<$body>::decode(body, version).map(Self::$name))
                    } )*
                    _ => None,
                }
            }

            /// The API it belongs to.
            pub const fn key(&self) -> ApiKey {
                match self {
                    $( Self::$name(_) => <$body>::KEY, )*
                }
            }

            /// Writes the body alone.
            ///
            /// # Errors
            /// As [`Body::encode`]; [`EncodeError::UnknownVersion`].
            pub fn encode(&self, version: i16) -> Result<Bytes, EncodeError> {
                match self {
                    $( Self::$name(body) => body.encode(<$body>::version(version)?), )*
                }
            }

            /// The fields as JSON, as they are at a version.
            ///
            /// # Errors
            /// [`EncodeError::UnknownVersion`].
            #[cfg(feature = "serde")]
            pub fn to_json(&self, version: i16) -> Result<serde_json::Value, EncodeError> {
                match self {
                    $( Self::$name(value) => {
                        let version = <$body>::version(version)?;
                        let json = serde_json::to_value(crate::json::AtVersion { value, version });
                        Ok(json.unwrap_or_default())
                    } )*
                }
            }

            /// The message that JSON describes; see [`json`](crate::json). `None` if this crate has no messages for the
            /// API.
            ///
            /// # Errors
            /// A field that the schema has not, or a value that does not fit.
            #[cfg(feature = "serde")]
            pub fn from_json(key: ApiKey, json: serde_json::Value) -> Option<Result<Self, serde_json::Error>> {
                match key {
                    $( <$body>::KEY => Some(serde_json::from_value(json).map(Self::$name)), )*
                    _ => None,
                }
            }
        }
    };
}

macro_rules! apis {
    ($(
        $(#[$meta:meta])*
        $const:ident = $key:literal $name:ident, versions $oldest:literal - $newest:literal, flexible $flexible:tt
            $(, $plain:ident header)?: $request:ident => $response:ident
            $(, silent $silent:expr)?;
    )*) => {
        impl ApiKey {
            $( $(#[$meta])* pub const $const: Self = Self($key); )*

            /// The APIs that this crate has messages for, by rising key.
            pub const ALL: &'static [Self] = &[$(Self::$const),*];

            /// The name as in Kafka's schemas, if this crate has messages for the API.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $( Self::$const => Some(stringify!($name)), )*
                    _ => None,
                }
            }

            /// The API of that name, if this crate has messages for it.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $( stringify!($name) => Some(Self::$const), )*
                    _ => None,
                }
            }

            /// The versions that the codec knows, if this crate has messages for the API.
            pub const fn versions(self) -> Option<Versions> {
                match self {
                    $( Self::$const => Some(Versions::new($oldest, $newest)), )*
                    _ => None,
                }
            }
        }

        /// The first flexible version of the API, if it is known.
        pub(crate) const fn first_flexible(key: ApiKey) -> Option<i16> {
            match key {
                $( ApiKey::$const => Some($flexible), )*
                _ => None,
            }
        }

        $(
            impl Body for $request {
                const KEY: ApiKey = ApiKey::$const;
                const VERSIONS: Versions = Versions::new($oldest, $newest);
                const FLEXIBLE: i16 = $flexible;
            }

            impl Request for $request {
                type Response = $response;
                $( fn expects_reply(&self) -> bool {
                    let silent: fn(&Self) -> bool = $silent;
                    !silent(self)
                } )?
            }

            impl Body for $response {
                const KEY: ApiKey = ApiKey::$const;
                const VERSIONS: Versions = Versions::new($oldest, $newest);
                const FLEXIBLE: i16 = $flexible;
                $( const PLAIN_HEADER: bool = stringify!($plain).len() > 0; )?
            }
        )*

        any! {
            /// A request of any API: for what handles frames whatever they hold.
            pub enum AnyRequest { $( $name($request), )* }
        }

        any! {
            /// A response of any API: for what handles frames whatever they hold.
            pub enum AnyResponse { $( $name($response), )* }
        }
    };
}

apis! {
    /// Appends record batches.
    PRODUCE = 0 Produce, versions 0-13, flexible 9: ProduceRequest => ProduceResponse,
        silent |request| request.acks == 0;
    /// Reads record batches.
    FETCH = 1 Fetch, versions 0-18, flexible 12: FetchRequest => FetchResponse;
    /// Lists offsets by timestamp.
    LIST_OFFSETS = 2 ListOffsets, versions 0-11, flexible 6: ListOffsetsRequest => ListOffsetsResponse;
    /// Describes brokers, topics and partition leaders.
    METADATA = 3 Metadata, versions 0-13, flexible 9: MetadataRequest => MetadataResponse;
    /// Finds the coordinator of a group or a transactional id.
    FIND_COORDINATOR = 10 FindCoordinator, versions 0-6, flexible 3: FindCoordinatorRequest => FindCoordinatorResponse;
    /// Selects a SASL mechanism.
    SASL_HANDSHAKE = 17 SaslHandshake, versions 0-1, flexible NEVER: SaslHandshakeRequest => SaslHandshakeResponse;
    /// Lists the API versions that the broker supports.
    API_VERSIONS = 18 ApiVersions, versions 0-4, flexible 3, plain header: ApiVersionsRequest => ApiVersionsResponse;
    /// Creates topics.
    CREATE_TOPICS = 19 CreateTopics, versions 0-7, flexible 5: CreateTopicsRequest => CreateTopicsResponse;
    /// Deletes topics.
    DELETE_TOPICS = 20 DeleteTopics, versions 0-6, flexible 4: DeleteTopicsRequest => DeleteTopicsResponse;
    /// Deletes the records before an offset.
    DELETE_RECORDS = 21 DeleteRecords, versions 0-2, flexible 2: DeleteRecordsRequest => DeleteRecordsResponse;
    /// Initializes a producer id.
    INIT_PRODUCER_ID = 22 InitProducerId, versions 0-6, flexible 2: InitProducerIdRequest => InitProducerIdResponse;
    /// Finds the end offsets of leader epochs.
    OFFSET_FOR_LEADER_EPOCH = 23 OffsetForLeaderEpoch, versions 0-4, flexible 4: OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse;
    /// Describes configs.
    DESCRIBE_CONFIGS = 32 DescribeConfigs, versions 0-4, flexible 4: DescribeConfigsRequest => DescribeConfigsResponse;
    /// Describes the log directories of a broker.
    DESCRIBE_LOG_DIRS = 35 DescribeLogDirs, versions 0-5, flexible 2: DescribeLogDirsRequest => DescribeLogDirsResponse;
    /// Authenticates by a SASL mechanism.
    SASL_AUTHENTICATE = 36 SaslAuthenticate, versions 0-2, flexible 2: SaslAuthenticateRequest => SaslAuthenticateResponse;
    /// Creates more partitions of topics.
    CREATE_PARTITIONS = 37 CreatePartitions, versions 0-3, flexible 2: CreatePartitionsRequest => CreatePartitionsResponse;
    /// Alters configs incrementally.
    INCREMENTAL_ALTER_CONFIGS = 44 IncrementalAlterConfigs, versions 0-1, flexible 1: IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse;
    /// Describes the nodes of the cluster.
    DESCRIBE_CLUSTER = 60 DescribeCluster, versions 0-2, flexible 0: DescribeClusterRequest => DescribeClusterResponse;
    /// Describes the active producers of partitions.
    DESCRIBE_PRODUCERS = 61 DescribeProducers, versions 0-0, flexible 0: DescribeProducersRequest => DescribeProducersResponse;
    /// Gets the telemetry subscriptions of a client.
    GET_TELEMETRY_SUBSCRIPTIONS = 71 GetTelemetrySubscriptions, versions 0-0, flexible 0: GetTelemetrySubscriptionsRequest => GetTelemetrySubscriptionsResponse;
    /// Describes topic partitions, paginated.
    DESCRIBE_TOPIC_PARTITIONS = 75 DescribeTopicPartitions, versions 0-0, flexible 0: DescribeTopicPartitionsRequest => DescribeTopicPartitionsResponse;
}
