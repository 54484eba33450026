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

mod builder;
mod client;
mod cluster;
mod config;
mod connection;
mod controller;
pub mod error;
mod memory;
mod metadata;
mod partition;
mod pool;
mod producer;
mod producer_id;
mod random;
pub mod record;
mod request;
mod routing;
pub mod sasl;
mod validate;
mod versions;

pub use self::{
    builder::ClientBuilder,
    client::{Client, ListTopics, Topic},
    config::{Deadlines, Limits, RetryPolicy},
    controller::{
        AlterTopicConfigs, Audit, BrokerDescription, ClusterDescription, ConfigSource, ConfigSynonym,
        ConfigValue, ControllerClient, CreatePartitions, CreateTopic, CreatedTopic, DeleteTopic,
        DescribeCluster, DescribeTopicConfigs, EnsureTopic, EnsuredTopic, Finding, Severity, TopicDifference,
    },
    partition::{
        DeleteBefore, DeleteRecords, EpochEndOffset, Fetch, Fetched, FetchedRecords, GetOffset, OffsetAt,
        OffsetForLeaderEpoch, OpenPartition, PartitionClient, Produce,
    },
    producer::Produced,
};
