//! The client of kwal: Kafka as a distributed write-ahead log.
//!
//! A [`Client`] knows one cluster. It opens a [`PartitionClient`] for each partition to append to and read
//! from, and a [`ControllerClient`] that creates and describes topics. There are no consumer groups, no
//! transactions, no partitioner and no background buffers. Applications depend on the facade `kwal`; this
//! page explains the inside.
//!
//! # Layers
//!
//! Each module uses only modules below it.
//!
//! ```text
//!  builder ─► client ─┬─► partition ─► producer ─┐   calls: requests that are configured and awaited
//!                     └─► controller ────────────┤
//!                                                ▼
//!                                             routing     the one loop: leader or controller, connection, retry, deadline
//!                                                │
//!                                             cluster     what all handles of a client share
//!                                                │
//!              memory, producer_id, random ◄─────┼──────► metadata    the cache: one snapshot, one refresh for many callers
//!                                                │           │
//!                                                └──────► pool        connections by broker and purpose; hedged requests
//!                                                            │
//!                                                         connection  a handle for callers, one task per socket
//!                                                            │
//!     backoff, config, sasl, versions, validate ◄────────────┴──────► error
//! ```
//!
//! Below are the crates `kwal-protocol` (messages and the state of a connection, without IO) and
//! `kwal-transport` (streams). They meet in `connection/driver.rs`, the only place where a socket meets the
//! protocol. State machines have no IO and no clock; tasks around them are thin. Time is tokio's clock, which
//! tests can pause, and randomness enters in `random.rs`: the same seed gives the same history.
//!
//! # The path of an append
//!
//! 1. [`PartitionClient::produce`] checks the records, waits in turn for memory and for a place in the queue
//!    of its partition, and encodes the batch. With that its place in the order is fixed, and the batch
//!    belongs to the producer task: dropping the future no longer withdraws it.
//! 2. The producer task (`producer/task.rs`) takes the batch, stamps producer id, epoch and sequence number
//!    on it, and runs attempts until one succeeds, cannot succeed, or the deadline ends. The first attempt
//!    gets the id: an idle one of the partition, or a new one from any broker (`producer/init.rs`).
//! 3. An attempt (`routing::attempt`) looks up the leader, gets the connection that the partition leases, and
//!    submits the request. The connection task writes it, a small head and the shared bytes of the batch in
//!    one vectored write.
//! 4. The response goes from the connection task to the producer task, which checks it against the batch and
//!    what was acknowledged before (`producer/append.rs`), and completes the caller's future. A throttle time
//!    in it is obeyed by the connection task, whether or not a caller is left.
//!
//! # To add …
//!
//! * **an operation**: a type that implements `routing::Operation` (the request, and the meaning of its
//!   response), a request struct by the `request!` macro, and a method on the client, all in one file of
//!   `partition/` or `controller/`; a line in `versions.rs` if the API is new. Leader, connection, retry,
//!   deadline, throttle and outcome come from `routing::call`. Test it without IO through
//!   `Operation::response`.
//! * **an error**: a variant of [`ErrorKind`](error::ErrorKind) with its text in `error/display.rs`, what to
//!   do about it in `error/recovery.rs`, and a sample in `error/texts.rs`. What an error code means for an
//!   API is in [`kwal_protocol::error_code`].
//! * **a setting**: a field with its default in `config.rs`, in the `setters!` list, and in
//!   `Config::validate` if zero is not allowed.
//!
//! # Tracing
//!
//! Events have the module path as target, `kwal_client::…`. Fields are named `topic`, `partition`, `broker`,
//! `error`.
//!
//! | level | what |
//! | --- | --- |
//! | `WARN` | a call has been retrying for a second, with the reason (once a call), and that it ended without success; an append failed and its caller is gone; a broker belongs to another cluster, requires to start again from the bootstrap addresses, has a name that cannot be resolved, refuses further connections, or throttles for longer than is allowed (once each) |
//! | `INFO` | a call that has been retrying for a second succeeded |
//! | `DEBUG` | connections opened and closed, retries with their reason and pause, metadata, leader updates, throttling, producer ids, authentication |
//!
//! The span `connection` (`DEBUG`, field `peer`) encloses the events of a connection task.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod builder;
mod client;
mod cluster;
mod config;
mod connection;
mod controller;
mod duration;
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

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
