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
//!  builder ─► client ─┬─► partition ─► producer ─► log ─┐   calls: requests that are configured and awaited
//!                     └─► controller ───────────────────┤   log: what appends and reads both ask of a leader
//!                                                ┌──────┘
//!                                                ▼
//!                                             routing     the one loop: leader or controller, connection, retry, deadline
//!                                                │
//!                                             cluster     what all handles of a client share
//!                                                │
//!                      producer_id, random ◄─────┼──────► metadata    the cache: one snapshot, one refresh for many callers
//!                                                │           │
//!                                                └──────► pool        connections by broker and purpose; hedged requests, combined fetches
//!                                                            │
//!                                                         connection  a handle for callers, one task per socket
//!                                                            │
//!  backoff, config, sasl, versions, validate, memory, buffers, locked ◄─┴──────► trouble, metrics, state ──► error
//! ```
//!
//! Below are the crates `kwal-protocol` (messages and the state of a connection, without IO) and
//! `kwal-transport` (streams). They meet in `connection/driver.rs`, the only place where a socket meets the
//! protocol. State machines have no IO and no clock; tasks around them are thin. Time is tokio's clock, which
//! tests can pause, and randomness enters in `random.rs`: the same seed gives the same history.
//!
//! # The path of an append
//!
//! ```text
//!  caller            reserve ─ encode ─ submit: place fixed, stamped, put on the connection ─┐
//!  connection task                      all frames that are ready, in one vectored write ◄───┘
//!  connection task   response ─► state machine ─► the caller's future, and the next batch ─► write
//!  producer task     only when something has to be waited for
//! ```
//!
//! 1. [`PartitionClient::reserve`] waits for memory and for a place; [`Permit::submit`] fixes the place of
//!    the batch in the order. [`PartitionClient::produce`] is both, in turn, with the encoding between them.
//!    From then on the batch belongs to the client: dropping the future no longer withdraws it. Its records
//!    are in a buffer that is used again (`buffers.rs`). Large values stay those of the caller, and are not
//!    copied.
//! 2. Submission drives the state machine of the partition's appends (`producer/state.rs`, without IO) under
//!    one lock (`producer/appends.rs`). If it has a leader, a connection and a producer id, and fewer
//!    batches are in flight than allowed, the batch gets its stamp (id, epoch, sequence number) and is put
//!    on the connection from where it was submitted.
//! 3. The task of the connection writes it: small heads and the shared bytes of batches in one vectored
//!    write. It hands the response to the state machine, which completes the caller's future and sends what
//!    the window has room for now. That is two task switches for an append. A throttle time in the response
//!    is obeyed by the connection, whether or not a caller is left.
//! 4. The producer task (`producer/task.rs`) runs only when something has to be waited for: a producer id
//!    (an idle one of the partition, or a new one from any broker), the leader and the connection that the
//!    partition leases, the look-up of the last acknowledged batch on a new one (`producer/lookup.rs`), the
//!    pause after a failure, a deadline.
//! 5. What is in doubt at its deadline ends as unknown with a handle, by which `producer/resolve.rs` finds
//!    out what became of it.
//!
//! A producer id has one owner of its epochs: this client, or the coordinator of an exclusive writer, whose
//! takeover, renewal and probe are in `producer/exclusive/`.
//!
//! # The path of a fetch
//!
//! 1. [`PartitionClient::fetch`] takes a [`Position`]. Its topic id is compared with that of the partition
//!    client; its leader epoch goes with the request to brokers that verify it (`log/fetch.rs`), and is
//!    asked about by OffsetForLeaderEpoch at others, in the same leader epoch (`partition/fetch.rs`).
//! 2. Memory for what is asked for is reserved (`memory.rs`), and corrected by the task of the connection
//!    when the response arrives. It is free again when the result is handed over.
//! 3. A partition client with a connection of its own sends its fetches alone. Those that share one are
//!    combined into one request, of whose response each gets its part (`pool/combined/`).
//! 4. The bytes are split into batches, each with its checksum verified and in order. Those of aborted
//!    transactions are left out, and offsets without records are [gaps](Fetched::gaps) (`log/gap.rs`).
//!    Records are decoded by the caller, when it asks for them.
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
//! * **a line for operators**: a method of `Troubles` in `trouble.rs`, and its row in the guide.
//! * **a metric**: a line in `metrics/table.rs`, a method in `metrics/on.rs` and its empty twin in
//!   `metrics/off.rs`, and a row in the guide of the facade `kwal`, which a test compares with the table.
//! * **a setting**: a field with its default in `config.rs`, in the `setters!` list, and in
//!   `Config::validate` if zero is not allowed.
//!
//! # Tracing
//!
//! Events have the module path as target, `kwal_client::…`. What an operator has to see is in `trouble.rs`:
//! one line at `WARN` when something lasts, one at `INFO` when it is over, for each subject and at most once
//! a minute. A new line is added there, and to the page `logging.md` of the guide, which a test compares with
//! the sources. A single retry has no line above `DEBUG`.
//!
//! Each call has a span at `DEBUG` (`request.rs`), and the span `connection` encloses the events of a
//! connection task. Fields of lines and spans have OpenTelemetry's names, and the guide lists them.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod buffers;
mod builder;
mod client;
mod cluster;
mod config;
mod connection;
mod controller;
mod decompressors;
mod duration;
pub mod error;
mod locked;
mod log;
mod memory;
mod metadata;
#[doc(hidden)]
pub mod metrics;
mod partition;
mod pool;
mod position;
mod producer;
mod producer_id;
mod random;
pub mod record;
mod request;
mod routing;
pub mod sasl;
mod state;
mod trouble;
mod validate;
mod versions;

#[doc(hidden)]
pub use self::producer::Answer;
pub use self::{
    builder::ClientBuilder,
    client::{Client, CloseClient, ListTopics, Topic},
    config::{Deadlines, Limits, RetryPolicy},
    controller::{
        AlterTopicConfigs, Audit, BrokerDescription, ClusterDescription, ConfigSource, ConfigSynonym,
        ConfigValue, ControllerClient, CreatePartitions, CreateTopic, CreatedTopic, DeleteTopic,
        DescribeCluster, DescribeTopic, DescribeTopicConfigs, EnsureTopic, EnsuredTopic, Finding,
        PartitionDescription, Severity, TopicDescription, TopicDifference,
    },
    log::{EpochEndOffset, Gap, GapReason, Isolation, OffsetAt},
    partition::{
        BatchRecords, Close, DeleteBefore, DeleteRecords, Fetch, FetchAhead, Fetched, FetchedBatch,
        FetchedRecords, GetOffset, OffsetForLeaderEpoch, OpenPartition, PartitionClient, Produce, Reserve,
    },
    position::{InvalidPosition, Position},
    producer::{Acks, Append, Holder, OnFailure, Permit, Produced, Resolution, Resolve},
    state::{
        BrokerState, ClientState, ConnectionState, LastAcknowledged, LeaderState, MemoryState,
        PartitionState, Purpose,
    },
};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
