#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
//!
//! # The API on a page
//!
//! ```text
//!  Client ──────────── controller_client() ─► ControllerClient      sets up topics and describes them
//!    │ list_topics()                            │
//!    │              create_topic(name, …) ──────┤   also ensure_topic, create_partitions, delete_topic
//!    │              audit(topic) ───────────────┤   what endangers the log, and why
//!    │              describe_topic_configs(…) ──┤   also alter_topic_configs
//!    │              describe_cluster() ─────────┘   the brokers
//!    │
//!    └──────────────── partition_client() ──► PartitionClient       connected, with a producer id
//!                                               │
//!                   produce(records) ───────────┤   one batch: all or nothing, once; returns its offsets
//!                   get_offset(at) ─────────────┤   where the log begins, ends, or was at some time
//!                   fetch(offset) ──────────────┤   encoded batches as they are on the log, records on demand
//!                   fetch_records(offset, …) ───┤   the same as a list of owned records
//!                   delete_records(before) ─────┘   cuts off what is no longer needed
//! ```
//! Every call is a request: configure it, above all its `deadline`, then `.await` it.
//!
//! | module | contents |
//! | --- | --- |
//! | [`client`] | clients of a cluster, its controller and a partition, with their settings and [errors](client::error) |
//! | [`record`] | records to append, and records that were read |
//! | [`protocol`] | the types of the protocol that stand in signatures; tools depend on `kwal-protocol` itself |
//! | [`transport`] | streams of bytes, and the trait for your own |
//!
//! # When an append fails
//!
//! The client retries what can be retried without duplicates until the [deadline](client::Deadlines::operation). One question
//! is left to the caller, and [`outcome`](Error::outcome) answers it:
//!
//! ```
//! use kwal::{Client, Error, ErrorKind, Outcome, Record};
//! # use kwal_testkit::EmbeddedCluster;
//!
//! fn next_step(error: &Error) -> &'static str {
//!     match error.outcome() {
//!         Outcome::Unknown => "it may be on the log: read the end of the log before appending it again",
//!         Outcome::NotApplied if error.is_retriable() => "append it again, now or later",
//!         Outcome::NotApplied => "fix what the error names first",
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cluster = EmbeddedCluster::builder().topic("wal", 1).start().await?;
//! # let client = Client::connect(cluster.bootstrap()).await?;
//! let partition = client.partition_client("wal", 0).await?;
//! let error = partition.produce(vec![Record::new("key", vec![0; 20 << 20])]).await.unwrap_err();
//! assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { limit: Some(_), .. }));
//! assert_eq!(next_step(&error), "fix what the error names first");
//! # Ok(())
//! # }
//! ```

pub use kwal_client::{
    Client, ClientBuilder, ControllerClient, PartitionClient,
    error::{Error, ErrorKind, Outcome},
    record::Record,
};
pub use kwal_transport as transport;

/// Clients of a cluster, its controller and its partitions.
pub mod client {
    pub use kwal_client::{
        AlterTopicConfigs, Audit, BrokerDescription, Client, ClientBuilder, ClusterDescription, ConfigSource,
        ConfigSynonym, ConfigValue, ControllerClient, CreatePartitions, CreateTopic, CreatedTopic, Deadlines,
        DeleteBefore, DeleteRecords, DeleteTopic, DescribeCluster, DescribeTopicConfigs, EnsureTopic,
        EnsuredTopic, EpochEndOffset, Fetch, Fetched, FetchedRecords, Finding, GetOffset, Limits, ListTopics,
        OffsetAt, OffsetForLeaderEpoch, OpenPartition, PartitionClient, Produce, Produced, RetryPolicy,
        Severity, Topic, TopicDifference,
    };

    /// Authentication: who the client is, and how it proves that to brokers.
    pub mod sasl {
        pub use kwal_client::sasl::{Authenticate, Sasl, Token};
    }

    /// Errors: what happened, where, and whether the call took effect.
    pub mod error {
        pub use kwal_client::error::{Context, Error, ErrorKind, Outcome};
    }
}

/// The types of the Kafka protocol that stand in signatures of this crate.
///
/// Tools that speak the protocol themselves depend on `kwal-protocol`.
pub mod protocol {
    pub use kwal_protocol::{
        api::{ApiKey, Versions},
        connection::ConnectionError,
        error::DecodeError,
        error_code::ErrorCode,
        record::BuildError,
        sasl::{Mechanism, OAuthBearer, Plain, SaslError, Scram, Step},
        wire::Uuid,
    };
}

/// Records to append, and records that were read.
pub mod record {
    pub use kwal_client::record::{IntoPayload, Record};
    pub use kwal_protocol::record::{
        Batch, BatchError, Compression, Header, HeaderView, Headers, IntoHeaderBytes, IntoHeaderValue,
        OwnedRecord, RecordView, Records,
    };
}
