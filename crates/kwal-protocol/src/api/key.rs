use std::fmt;

use super::versions::Versions;
use crate::{
    error::DecodeError,
    reader::Reader,
    wire::{Version, Wire},
    writer::Writer,
};

/// The number of an API (`apiKey` in the schemas). Those with messages in this crate have names.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ApiKey(pub i16);

impl ApiKey {
    /// Whether a request of this API changes the cluster beyond its connection.
    pub const fn changes_something(self) -> bool {
        matches!(
            self,
            Self::PRODUCE
                | Self::CREATE_TOPICS
                | Self::DELETE_TOPICS
                | Self::DELETE_RECORDS
                | Self::CREATE_PARTITIONS
                | Self::INCREMENTAL_ALTER_CONFIGS
        )
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "ApiKey({})", self.0),
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Wire for ApiKey {
    fn write(&self, writer: &mut Writer, version: Version) {
        self.0.write(writer, version);
    }

    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        i16::read(reader, version).map(Self)
    }
}

#[cfg(feature = "arbitrary")]
impl crate::arbitrary::Arbitrate for ApiKey {
    fn arbitrate(bytes: &mut ::arbitrary::Unstructured<'_>) -> ::arbitrary::Result<Self> {
        ::arbitrary::Arbitrary::arbitrary(bytes).map(Self)
    }
}

#[cfg(feature = "serde")]
impl crate::json::Json for ApiKey {
    fn write_json<S: serde::Serializer>(&self, serializer: S, _: Version) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(&self.0, serializer)
    }

    fn read_json<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::Deserialize::deserialize(deserializer).map(Self)
    }
}

macro_rules! apis {
    ($(
        $(#[$meta:meta])*
        $const:ident = $key:literal $name:ident, versions $oldest:literal - $newest:literal, flexible $flexible:tt;
    )*) => {
        impl ApiKey {
            $( $(#[$meta])* pub const $const: Self = Self($key); )*

            /// The APIs that this crate has messages for, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$const),*];

            /// Returns the name in Kafka's schemas, if this crate has messages for the API.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $( Self::$const => Some(stringify!($name)), )*
                    _ => None,
                }
            }

            /// Returns the API of that name, if this crate has messages for it.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $( stringify!($name) => Some(Self::$const), )*
                    _ => None,
                }
            }

            /// Returns the versions that the codec supports, if this crate has messages for the API.
            pub const fn versions(self) -> Option<Versions> {
                match self {
                    $( Self::$const => Some(Versions::new($oldest, $newest)), )*
                    _ => None,
                }
            }

            /// Returns the first flexible version of the API, if this crate has messages for it.
            pub(crate) const fn first_flexible(self) -> Option<i16> {
                match self {
                    $( Self::$const => Some($flexible), )*
                    _ => None,
                }
            }
        }
    };
}

/// The first flexible version of an API that is never flexible.
const NEVER: i16 = i16::MAX;

apis! {
    /// Appends record batches.
    PRODUCE = 0 Produce, versions 0-13, flexible 9;
    /// Reads record batches.
    FETCH = 1 Fetch, versions 0-18, flexible 12;
    /// Lists offsets by timestamp.
    LIST_OFFSETS = 2 ListOffsets, versions 0-11, flexible 6;
    /// Describes brokers, topics and partition leaders.
    METADATA = 3 Metadata, versions 0-13, flexible 9;
    /// Finds the coordinator of a group or a transactional id.
    FIND_COORDINATOR = 10 FindCoordinator, versions 0-6, flexible 3;
    /// Selects a SASL mechanism.
    SASL_HANDSHAKE = 17 SaslHandshake, versions 0-1, flexible NEVER;
    /// Lists the API versions that the broker supports.
    API_VERSIONS = 18 ApiVersions, versions 0-4, flexible 3;
    /// Creates topics.
    CREATE_TOPICS = 19 CreateTopics, versions 0-7, flexible 5;
    /// Deletes topics.
    DELETE_TOPICS = 20 DeleteTopics, versions 0-6, flexible 4;
    /// Deletes the records before an offset.
    DELETE_RECORDS = 21 DeleteRecords, versions 0-2, flexible 2;
    /// Initializes a producer id.
    INIT_PRODUCER_ID = 22 InitProducerId, versions 0-6, flexible 2;
    /// Finds the end offsets of leader epochs.
    OFFSET_FOR_LEADER_EPOCH = 23 OffsetForLeaderEpoch, versions 0-4, flexible 4;
    /// Describes configs.
    DESCRIBE_CONFIGS = 32 DescribeConfigs, versions 0-4, flexible 4;
    /// Describes the log directories of a broker.
    DESCRIBE_LOG_DIRS = 35 DescribeLogDirs, versions 0-5, flexible 2;
    /// Authenticates by a SASL mechanism.
    SASL_AUTHENTICATE = 36 SaslAuthenticate, versions 0-2, flexible 2;
    /// Creates more partitions of topics.
    CREATE_PARTITIONS = 37 CreatePartitions, versions 0-3, flexible 2;
    /// Alters configs incrementally.
    INCREMENTAL_ALTER_CONFIGS = 44 IncrementalAlterConfigs, versions 0-1, flexible 1;
    /// Describes the nodes of the cluster.
    DESCRIBE_CLUSTER = 60 DescribeCluster, versions 0-2, flexible 0;
    /// Describes the active producers of partitions.
    DESCRIBE_PRODUCERS = 61 DescribeProducers, versions 0-0, flexible 0;
    /// Gets the telemetry subscriptions of a client.
    GET_TELEMETRY_SUBSCRIPTIONS = 71 GetTelemetrySubscriptions, versions 0-0, flexible 0;
    /// Describes topic partitions, paginated.
    DESCRIBE_TOPIC_PARTITIONS = 75 DescribeTopicPartitions, versions 0-0, flexible 0;
}
