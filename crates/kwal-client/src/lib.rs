//! The Kafka client of kwal: for people who use Kafka as a distributed write-ahead log.
//!
//! A [`Client`] knows the cluster. It makes a [`PartitionClient`] for each partition to append to and read from, and a
//! [`ControllerClient`] to set topics up and look after them. There are no consumer groups, no transactions, no partitioner and no
//! buffers in the background.
//!
//! ```text
//!   PartitionClient ──submit──► queue ──► writer task ─┐
//!        │  fetch, get_offset                          │ one lane for appends, one for reads, one for the rest
//!        └─────────────────────────────────────────────┤
//!   ControllerClient ──────────────────────────────────┤
//!                                                      ▼
//!              cluster: who leads what ── lanes ── driver task ── socket
//! ```
//! Requests are encoded and replies decoded on the caller's task; a driver task moves bytes only. One loop retries, one table
//! says what an error code means for an API ([`kwal_protocol::error_code`]), one deadline ends it.

mod attempts;
mod audit;
mod client;
mod cluster;
mod config;
mod controller;
mod driver;
pub mod error;
mod lanes;
mod metadata;
mod partition;
pub mod record;
mod renewal;
mod retry;
pub mod sasl;
mod speak;

pub use audit::{Finding, Severity};
pub use client::{Client, ClientBuilder, Topic};
pub use config::{Deadlines, Limits};
pub use controller::{
    AlterTopicConfigs, BrokerDescription, ClusterDescription, ConfigSource, ConfigSynonym, ConfigValue,
    ControllerClient, CreatePartitions, CreateTopic, CreatedTopic, DescribeTopicConfigs, EnsureTopic,
    EnsuredTopic, TopicDifference,
};
pub use partition::{
    DeleteBefore, EpochEnd, Fetch, Fetched, OffsetAt, OpenPartition, PartitionClient, Produced,
};
pub use retry::RetryPolicy;
