//! A Kafka cluster to embed in tests.
//!
//! [`EmbeddedCluster`] has one broker or several and starts in a millisecond: on free ports of 127.0.0.1 for
//! any Kafka client in any language, or in memory for clients that connect through [`kwal_transport`]. In
//! memory, everything also works under tokio's paused clock. Tests can inspect the logs and count the
//! requests afterwards.
//!
//! Faults are injected with one line each, see [`Fault`] and [`FaultTarget`], or many of them by seed, see
//! [`Storm`]. The same seed gives the same history, which the [`Journal`] keeps. A [`Wire`](wire::Wire) sees,
//! holds, cuts and rewrites single frames between any client and any broker.
//!
//! ```
//! use kwal_protocol::{
//!     api::{ApiKey, encode_request},
//!     messages::{ProducePartition, ProduceRequest, ProduceTopic},
//!     record::{BatchBuilder, Compression, Headers},
//! };
//! use kwal_testkit::{EmbeddedCluster, Fault};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = EmbeddedCluster::builder().topic("wal", 2).start().await?;
//! cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
//!
//! // Usually a client is given `cluster.bootstrap()`. Here a request is made by hand.
//! let mut builder = BatchBuilder::new(Compression::None);
//! builder.push(1_700_000_000_000, None, Some(b"hello kafka"), &Headers::new());
//! let batch = ProducePartition { index: 0, records: Some(builder.finish()?.to_bytes().into()) };
//! let topic = ProduceTopic { name: "wal".to_owned(), partition_data: vec![batch], ..Default::default() };
//! let request = ProduceRequest { acks: -1, topic_data: vec![topic], ..Default::default() };
//!
//! let mut stream = cluster.connector().connect(&cluster.address(1)?).await?;
//! stream.write_all_buf(&mut encode_request(&request, 12, 1, Some("me"))?).await?;
//! assert_eq!(stream.read(&mut [0]).await?, 0, "closed without a reply");
//!
//! let records = cluster.records("wal", 0)?;
//! assert_eq!(records[0].value.as_deref(), Some(&b"hello kafka"[..]));
//! assert_eq!(cluster.requests(ApiKey::PRODUCE), 1);
//! assert_eq!(cluster.faults_left(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! As a program it serves clients in any process: it prints `host:port` of its brokers, separated by commas,
//! as soon as they accept connections, and runs until it is stopped. `--help` lists its options.
//!
//! ```sh
//! cargo run -p kwal-testkit -- --brokers 3 --topic wal:4
//! ```
//!
//! [`check`] judges whether the results that a client reported agree with the final logs, for any client and
//! any broker.
//!
//! `crates/kwal/tests/own_wal.rs` of the repository is a small write-ahead log on kwal with tests of this
//! kind, as a starting point: lost replies, a moved leader, a leader killed during an append, no broker for
//! longer than an append may take.
//!
//! # How faithful it is
//!
//! The responses are compared with those of Kafka 3.9.2 and 4.3.1 to the same requests, recorded in the
//! project's `tests/fidelity`.
//!
//! | | as in Kafka | different or missing |
//! | --- | --- | --- |
//! | APIs | ApiVersions, Metadata, Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, DeleteRecords, CreateTopics, DeleteTopics, CreatePartitions, DescribeConfigs, IncrementalAlterConfigs, DescribeCluster, DescribeProducers, FindCoordinator, InitProducerId, at every version of Kafka 4.3, 3.9 and 2.8 ([`Dialect`]) | groups; transactions of clients; record formats before magic 2 |
//! | connections | requests are answered in order, one at a time, also while an append waits for replicas or a fetch for records; unknown versions close the connection, except of ApiVersions; bytes after the end of a request are ignored; a throttled request is carried out, then the connection is muted; [quotas](EmbeddedCluster::limit_produce) by client id (KIP-219); connections beyond `max.connections.per.ip` are closed | idle connections are not closed |
//! | authentication | PLAIN, SCRAM and OAUTHBEARER ([`Sasl`]), re-authentication (KIP-368), Kafka's error messages | the test validates tokens; a request during a re-authentication gets no random bytes before the connection is closed |
//! | producers | duplicates are detected, five batches back; gaps, old epochs and new epochs that do not begin at 0 are rejected; an unknown id may begin anywhere; producer state survives deleted records and expires by record timestamps (`producer.id.expiration.ms`); transactional ids have coordinators, which assign producer ids and epochs (KIP-360) and forget them | the transaction log is never lost; clients have no transactions, but [tests](EmbeddedCluster::append_in_transaction) do |
//! | batches | one per partition, with checksum, header and records validated; a wrong newest timestamp is corrected; `max.message.bytes`, `LogAppendTime`, keys for compacted topics, `compression.type` if its codec can be written | rejections have a message where Kafka mostly has only the code; offsets within a batch have to be consecutive; records in codecs that are not built in are not validated |
//! | reading | waits for `min_bytes`; the first batch is complete, the last is truncated at the limit; fetches from within a batch; leader epochs (KIP-320), divergence (KIP-595); up to the high watermark or the last stable offset; from followers (KIP-392); the log start offset moves leader epochs and the last stable offset; a log may end with offsets that no batch has, where fetches wait | no fetch sessions, so every fetch is a full one; nothing is deleted by age or size, and nothing compacted, except by [`delete_records`](EmbeddedCluster::delete_records) and [`compact_batches`](EmbeddedCluster::compact_batches); one fetch reads across what would be segments |
//! | cluster | brokers that start, stop, crash, hang and have stale metadata; replicas with their own logs, lag, ISR, `min.insync.replicas`; clean and unclean elections, leader epochs, truncation (KIP-101); the end of a log is unavailable after an election (KIP-207); errors name the leader (KIP-951); topic ids (KIP-516), settings with sources and validation, replica assignments | broker settings cannot be altered; leaders are not rebalanced; a broker that restarts has lost nothing |
//!
//! Everything stays in memory until the topic is deleted or the cluster is dropped.
//!
//! # Inside
//! Arrows point to what a module depends on. There is no circle, and no arrow back up:
//!
//! ```text
//! storm, doctest ──► embedded ──► listen ──► serve ──► sasl ──┐
//!                        │                     │              ├──► cluster ──► journal ──► fault
//!                        └─────────────────────┴──────────────┘       │           │
//! wire ───────────────────────────────────────────────────────────────┘           └──► check
//! ```
//!
//! `cluster` holds the brokers without IO: frames in, actions out, time as an argument. It stores its logs in
//! `log`, `producers` and `transactions`, and reads `topic_config` and `dialect`. `serve` connects it to
//! sockets and the clock.
//!
//! # Features
//! `compression-gzip`, `compression-lz4`, `compression-snappy`, `decompression-zstd` (all default) and
//! `compression-zstd` let brokers read batches of these codecs.

pub mod check;
mod cluster;
mod dialect;
mod doctest;
mod embedded;
mod error;
mod fault;
mod journal;
mod listen;
mod log;
mod producers;
mod sasl;
mod serve;
mod storm;
mod topic_config;
mod transactions;
pub mod wire;

pub use cluster::Connections;
pub use dialect::Dialect;
pub use doctest::doctest;
pub use embedded::{EmbeddedCluster, EmbeddedClusterBuilder};
pub use error::Error;
pub use fault::{Fault, FaultCounts, FaultTarget};
pub use journal::{Entry, Journal, JournalEvent};
pub use sasl::Sasl;
pub use storm::{Hazard, Storm, StormReport};

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
