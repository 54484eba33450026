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
//! # How true it is
//!
//! The responses are compared with those of Kafka 3.9.2 and 4.3.1 to the same requests, recorded in the
//! project's `tests/fidelity`.
//!
//! | | as Kafka | not, or not yet |
//! | --- | --- | --- |
//! | APIs | ApiVersions, Metadata, Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, DeleteRecords, CreateTopics, DeleteTopics, CreatePartitions, DescribeConfigs, IncrementalAlterConfigs, DescribeCluster, DescribeProducers, FindCoordinator, InitProducerId, at every version that Kafka 4.3, 3.9 or 2.8 speak ([`Dialect`]) | groups, transactions of clients; record formats before magic 2 |
//! | connections | requests answered in order and one at a time; unknown versions close the connection, but for ApiVersions; also while an append waits for its replicas or a fetch for records; a throttled request is carried out, then the connection is muted; [quotas](EmbeddedCluster::limit_produce) by client id (KIP-219) | idle connections are not closed |
//! | authentication | PLAIN, SCRAM and OAUTHBEARER ([`Sasl`]), sessions that end and are renewed (KIP-368), refusals in Kafka's words | tokens are judged by the test; a request in the middle of a renewal gets no garbage before the connection is closed |
//! | producers | a batch sent again is told apart, five batches back; gaps, old epochs and new epochs that do not begin at 0 are refused; an unknown id may begin anywhere; each replica knows what lies in its log, also of records that were deleted; the silent are forgotten (`producer.id.expiration.ms`), by the times of their records; transactional ids have coordinators, which hand out ids and epochs (KIP-360) and forget them | a name's log is never lost; no transaction is under way |
//! | batches | one a partition, its checksum, header and records looked at; a wrong newest timestamp is put right; `max.message.bytes`, `LogAppendTime`, keys for compacted topics, `compression.type` where its codec can be written | refusals say why in words, where Kafka mostly has only the code; offsets within a batch have to rise by one; in codecs that are not built in, records are not looked at |
//! | reading | waits for `min_bytes`; the first batch comes whole, the last is cut off at the limit; a fetch may begin inside of a batch; leader epochs (KIP-320), divergence (KIP-595); up to the high watermark, or for READ_COMMITTED to the last stable offset; from followers (KIP-392) | no fetch sessions, so all fetches are full ones; nothing is ever deleted by age or size |
//! | cluster | brokers that come, go, die, fall silent and are behind with metadata; replicas with logs of their own, followers that lag and fall out of sync, `min.insync.replicas`; elections, clean and unclean, leader epochs, logs that are cut off where they parted (KIP-101); the end of a log is withheld while it is not known (KIP-207); who is asked in vain says who leads (KIP-951); topic ids (KIP-516), settings, where they come from and their checks, replica assignments | settings of brokers are told and not altered; leaders do not move back by themselves; a broker that comes back has lost nothing |
//!
//! Everything stays in memory until the topic is deleted or the cluster is dropped.
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
