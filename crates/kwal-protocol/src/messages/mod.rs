//! The messages, one file per API.
//!
//! To add an API: its line in the table of keys (`api/key.rs`), a file here with two `message!` definitions,
//! its line in the `apis!` table below, its vectors.

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
mod isolation_level;
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
pub use isolation_level::*;
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
};

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
            /// Decodes a complete body.
            ///
            /// `None` if this crate has no messages for the API, or does not support the version.
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

            /// Returns the API of the message.
            pub const fn key(&self) -> ApiKey {
                match self {
                    $( Self::$name(_) => <$body>::KEY, )*
                }
            }

            /// Encodes the body alone.
            ///
            /// # Errors
            /// As [`Body::encode`]; [`EncodeError::UnknownVersion`].
            pub fn encode(&self, version: i16) -> Result<Bytes, EncodeError> {
                match self {
                    $( Self::$name(body) => body.encode(<$body>::version(version)?), )*
                }
            }

            /// Converts the fields of a version to JSON.
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

            /// Converts JSON to a message; see [`json`](crate::json).
            ///
            /// `None` if this crate has no messages for the API.
            ///
            /// # Errors
            /// A field that is not in the schema, or a value of the wrong type.
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
        $const:ident $name:ident $(, $plain:ident header)?: $request:ident => $response:ident
            $(, silent $silent:expr)?;
    )*) => {
        $(
            impl Body for $request {
                const KEY: ApiKey = ApiKey::$const;
                const VERSIONS: Versions = known(ApiKey::$const).0;
                const FLEXIBLE: i16 = known(ApiKey::$const).1;
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
                const VERSIONS: Versions = known(ApiKey::$const).0;
                const FLEXIBLE: i16 = known(ApiKey::$const).1;
                $( const PLAIN_HEADER: bool = stringify!($plain).len() > 0; )?
            }
        )*

        any! {
            /// A request of any API, for code that handles every frame.
            pub enum AnyRequest { $( $name($request), )* }
        }

        any! {
            /// A response of any API, for code that handles every frame.
            pub enum AnyResponse { $( $name($response), )* }
        }
    };
}

/// Returns the versions of an API and its first flexible version.
const fn known(key: ApiKey) -> (Versions, i16) {
    match (key.versions(), key.first_flexible()) {
        (Some(versions), Some(flexible)) => (versions, flexible),
        _ => panic!("the table of `ApiKey` lacks an API"),
    }
}

apis! {
    PRODUCE Produce: ProduceRequest => ProduceResponse,
        silent |request| request.acks == 0;
    FETCH Fetch: FetchRequest => FetchResponse;
    LIST_OFFSETS ListOffsets: ListOffsetsRequest => ListOffsetsResponse;
    METADATA Metadata: MetadataRequest => MetadataResponse;
    FIND_COORDINATOR FindCoordinator: FindCoordinatorRequest => FindCoordinatorResponse;
    SASL_HANDSHAKE SaslHandshake: SaslHandshakeRequest => SaslHandshakeResponse;
    API_VERSIONS ApiVersions, plain header: ApiVersionsRequest => ApiVersionsResponse;
    CREATE_TOPICS CreateTopics: CreateTopicsRequest => CreateTopicsResponse;
    DELETE_TOPICS DeleteTopics: DeleteTopicsRequest => DeleteTopicsResponse;
    DELETE_RECORDS DeleteRecords: DeleteRecordsRequest => DeleteRecordsResponse;
    INIT_PRODUCER_ID InitProducerId: InitProducerIdRequest => InitProducerIdResponse;
    OFFSET_FOR_LEADER_EPOCH OffsetForLeaderEpoch: OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse;
    DESCRIBE_CONFIGS DescribeConfigs: DescribeConfigsRequest => DescribeConfigsResponse;
    DESCRIBE_LOG_DIRS DescribeLogDirs: DescribeLogDirsRequest => DescribeLogDirsResponse;
    SASL_AUTHENTICATE SaslAuthenticate: SaslAuthenticateRequest => SaslAuthenticateResponse;
    CREATE_PARTITIONS CreatePartitions: CreatePartitionsRequest => CreatePartitionsResponse;
    INCREMENTAL_ALTER_CONFIGS IncrementalAlterConfigs: IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse;
    DESCRIBE_CLUSTER DescribeCluster: DescribeClusterRequest => DescribeClusterResponse;
    DESCRIBE_PRODUCERS DescribeProducers: DescribeProducersRequest => DescribeProducersResponse;
    GET_TELEMETRY_SUBSCRIPTIONS GetTelemetrySubscriptions: GetTelemetrySubscriptionsRequest => GetTelemetrySubscriptionsResponse;
    DESCRIBE_TOPIC_PARTITIONS DescribeTopicPartitions: DescribeTopicPartitionsRequest => DescribeTopicPartitionsResponse;
}
