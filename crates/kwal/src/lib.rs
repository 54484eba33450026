#![doc = include_str!("../README.md")]
//!
//! # The whole on a page
//!
//! ```text
//!  Client ──────────── controller_client() ─► ControllerClient      for setting topics up and looking after them
//!    │                 list_topics()            │
//!    │              create_topic(name, …) ──────┤   also ensure_topic, create_partitions, delete_topic
//!    │              audit(topic) ───────────────┤   what endangers the log, and why
//!    │              describe_topic_configs(…) ──┤   settings and where they come from; alter_topic_configs
//!    │              describe_cluster() ─────────┘   the brokers
//!    │
//!    └──────────────── partition_client() ──► PartitionClient       leader, connections and producer id brought along
//!                                               │
//!                   produce(records) ───────────┤   one batch: all or nothing, once, and its offsets
//!                   get_offset(at) ─────────────┤   where the log begins, ends, or was at some time
//!                   fetch(offset) ──────────────┤   whole batches as they lie on the log, records on demand
//!                   fetch_records(offset, …) ───┤   the same as a list of owned records
//!                   delete_records(before) ─────┘   cuts off what is no longer needed
//! ```
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`client`] | clients for a cluster, its controller and a partition, their settings and their [errors](client::error) |
//! | [`record`] | what is appended and what comes back |
//! | [`protocol`] | the wire: messages, batches, the state of a connection; for tools |
//! | [`transport`] | streams of bytes, and the trait for your own |
//!
//! # Replay
//!
//! Recovery reads a partition from an offset, which the application keeps with its own state, to its end. The end is asked for
//! first; what is appended meanwhile is left for those who follow the log. The next fetch goes on at
//! [`next_offset`](client::Fetched::next_offset), which moves also over what has no records in it.
//!
//! ```
//! use kwal::{
//!     client::{ClientBuilder, OffsetAt},
//!     record::Record,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let broker = kwal_testkit::EmbeddedCluster::builder().start().await?;
//! # let client = ClientBuilder::new(broker.bootstrap()).build().await?;
//! # client.controller_client().await?.create_topic("wal", 1, 1).await?;
//! let partition = client.partition_client("wal", 0).await?;
//! partition.produce(vec![Record::new("a", "1"), Record::new("b", "2")]).await?;
//! partition.produce(vec![Record::new("a", "3")]).await?;
//!
//! let mut state = std::collections::BTreeMap::new();
//! let mut position = partition.get_offset(OffsetAt::Earliest).await?;
//! let end = partition.get_offset(OffsetAt::Latest).await?;
//! while position < end {
//!     let fetched = partition.fetch(position).await?;
//!     for records in fetched.records() {
//!         for record in &records? {
//!             let record = fetched.check(record)?;
//!             // Batches come whole: the first can begin before the offset that was asked for.
//!             if record.offset >= position {
//!                 state.insert(record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
//!             }
//!         }
//!     }
//!     position = fetched.next_offset;
//! }
//! assert_eq!(position, 3);
//! assert_eq!(state[&Some(b"a".to_vec())].as_deref(), Some(&b"3"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! # When an append fails
//!
//! The client retries by itself whatever can be retried without doing it twice, until the
//! [deadline](client::Deadlines::operation). What is left to the caller is one question, and
//! [`outcome`](client::error::Error::outcome) answers it:
//!
//! ```
//! use kwal::client::error::{Error, Outcome};
//!
//! fn what_next(error: &Error) -> &'static str {
//!     match error.outcome() {
//!         Outcome::NotApplied if error.is_retriable() => "append it again, now or later",
//!         Outcome::NotApplied => "mend what the error says first",
//!         Outcome::Unknown => "it may be on the log: read its end before appending it again",
//!     }
//! }
//!
//! let error = Error::UnknownTopic { topic: "wal".to_owned(), waited: std::time::Duration::from_secs(5) };
//! assert_eq!(what_next(&error), "mend what the error says first");
//! ```

pub use kwal_protocol as protocol;
pub use kwal_transport as transport;

/// Clients for a cluster, its controller and its partitions.
pub mod client {
    pub use kwal_client::{
        AlterTopicConfigs, BrokerDescription, Client, ClientBuilder, ClusterDescription, ConfigSource,
        ConfigSynonym, ConfigValue, ControllerClient, CreatePartitions, CreateTopic, CreatedTopic, Deadlines,
        DeleteBefore, DescribeTopicConfigs, EnsureTopic, EnsuredTopic, EpochEnd, Fetch, Fetched, Finding,
        Limits, OffsetAt, OpenPartition, PartitionClient, Produced, RetryPolicy, Severity, Topic,
        TopicDifference,
    };

    /// Who a client is, and how it proves that to brokers.
    pub mod sasl {
        pub use kwal_client::sasl::{Authenticate, Sasl, Token};
    }

    /// What can go wrong, where, and what became of the call.
    pub mod error {
        pub use kwal_client::error::{At, Error, Outcome};
    }
}

/// Records, on their way into a log and out of it.
pub mod record {
    pub use kwal_client::record::{IntoPayload, Record};
    pub use kwal_protocol::record::{
        Batch, BatchError, Compression, Header, HeaderView, Headers, IntoHeaderBytes, IntoHeaderValue,
        OwnedRecord, RecordView, Records,
    };
}
