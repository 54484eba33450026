#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
//!
//! # The API on a page
//!
//! ```text
//!  Client ──────────── controller_client() ─► ControllerClient      sets up topics and describes them
//!    │ list_topics(), state(), close()          │
//!    │              create_topic(name, …) ──────┤   also ensure_topic, create_partitions, delete_topic
//!    │              audit(topic) ───────────────┤   what endangers the log, and why
//!    │              describe_topic(…) ──────────┤   leaders and replicas
//!    │              describe_topic_configs(…) ──┤   also alter_topic_configs
//!    │              describe_cluster() ─────────┘   the brokers
//!    │
//!    └──────────────── partition_client() ──► PartitionClient       appends to one partition and reads from it
//!                       .exclusive(name)        │   and ends earlier holders of this name
//!                   produce(records) ───────────┤   one batch: all or nothing, once; returns its offsets
//!                   encode(records) ────────────┤   and reserve(bytes), then submit(batch): the same in steps
//!                   close() ────────────────────┤   takes no more appends, waits for those that were submitted
//!                   holder(), fenced() ─────────┤   the holder of the log, and when that ends
//!                   state() ────────────────────┤   what it is doing now, for troubleshooting
//!                   resolve(in_doubt, fence) ───┤   whether a batch is on the log whose append ended unknown
//!                   get_offset(at) ─────────────┤   start and end of the log, and the offset at a given time
//!                   fetch(position) ────────────┤   encoded batches as they are on the log, records on demand
//!                   fetch_records(offset, …) ───┤   the same as a list of owned records
//!                   delete_records(before) ─────┘   cuts off what is no longer needed
//!
//!  producer::BatchProducer::new(partition) ► BatchProducer         many callers, one log: their records share batches
//!              produce(record) ──────────────────┤   returns the offset of this record
//!              reserve(), then slot.send(record) ┤   the same in steps: plain calls fix the order
//!              flush(), close() ─────────────────┤   waits for all accepted before it; the end, with the rest
//!              stats() ──────────────────────────┘   how large batches are, how long they gather and take
//!  producer::Router::open(&client, topic) ─► Router                a batch producer for each partition
//!              for_key(key), partition(index) ───┘   which one: by key as Java does, or by number
//!
//!  consumer::replay(&partition, from) ─────► Replay                from somewhere to the end of the log
//!              next_batch(), for_each_batch(f) ──┤   by batch; by record as a Stream
//!              position(), progress() ───────────┤   what to keep, and how far it is
//!              summary() ────────────────────────┤   what it covered, and what has no records
//!              follow() ─────────────────────────┘   goes on as a RecordStream
//!  consumer::follow(&partition, from) ─────► RecordStream          from somewhere on, without an end
//!              caught_up(), lag() ───────────────┘   and what a replay has, but progress
//!
//!  entry::Writer::new(partition) ──────────► Writer                appends entries larger than a batch
//!              append(record) ───────────────────┘   in fragments; what fits is a plain record
//!  entry::Reader::new(replay or stream) ───► Reader                puts them together again
//!              next() ───────────────────────────┤   whole entries, and reports of incomplete ones
//!              checkpoint(), resume(…) ──────────┘   where to go on, also in the middle of entries
//! ```
//! Almost every call that waits is a request: configure it, above all its `deadline`, then `.await` it.
//! `controller_client`, `fetch_records` and `fenced` are plain async functions.
//! tokio's `select!`, `join!` and `timeout` take a request as it is; `join_all` and `pin!` take its
//! `.into_future()`; `tokio::spawn` takes an `async move` block with a clone of the client. `produce` of a
//! batch producer is a future already. *Cancel safe* in these docs means that a call can be dropped at any
//! await and nothing is lost or left behind; where a dropped call may still have taken effect, its docs say
//! so.
//!
//! ```
//! # kwal_testkit::doctest(9096, async {
//! # use kwal::{Client, client::OffsetAt};
//! # let client = Client::connect(["localhost:9096"]).await?;
//! # client.controller_client().await?.create_topic("wal", 4, 1).await?;
//! use futures::future::try_join_all;
//!
//! let open = (0..4).map(|partition| client.partition_client("wal", partition).into_future());
//! let partitions = try_join_all(open).await?;
//! let ends = partitions.iter().map(|partition| partition.get_offset(OffsetAt::Latest).into_future());
//! assert_eq!(try_join_all(ends).await?, [0; 4]);
//! # Ok(()) });
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | [`guide`] | documentation: the contract, what happens when, recipes, troubleshooting, migration |
//! | [`client`] | clients of a cluster, its controller and a partition, with their settings and [errors](client::error) |
//! | [`producer`] | many small writers, one log: records that are gathered into batches; [when to use what](producer#which-one) |
//! | [`consumer`] | readers of a partition: a replay to its end, and a stream that follows it |
//! | [`entry`] | entries of any size: a writer that splits what is too large for a batch, and its reader |
//! | [`record`] | records to append, and records that were read |
//! | [`protocol`] | the protocol types of this crate's API; tools depend on `kwal-protocol` itself |
//! | [`transport`] | streams of bytes, and the trait for your own |
//!
//! The modules [`producer`], [`consumer`] and [`entry`] come from the crate `kwal-batching`, and their
//! examples name what they use as its own tests do. With `kwal` alone, write
//!
//! | in an example | with `kwal` |
//! | --- | --- |
//! | `kwal_batching::producer`, `kwal_batching::entry` | `kwal::producer`, `kwal::entry` |
//! | `kwal_batching::reader` | `kwal::consumer` |
//! | `kwal_client::error`, `kwal_client::…` | `kwal::client::error`, `kwal::client::…` |
//! | `kwal_client::record`, `kwal_protocol::record` | `kwal::record` |
//!
//! # The same with explicit settings
//!
//! ```
//! # kwal_testkit::doctest(9093, async {
//! use bytes::Bytes;
//! use kwal::{client::ClientBuilder, record::Record};
//! use time::OffsetDateTime;
//!
//! let client = ClientBuilder::new(vec!["localhost:9093".to_owned()]).build().await?;
//!
//! let controller = client.controller_client().await?;
//! controller.ensure_topic("events", 2 /* partitions */, 1 /* replication factor */).await?;
//!
//! let partition = client.partition_client("events", 0).await?;
//! let record = Record {
//!     key: None,
//!     value: Some(Bytes::from_static(b"hello kafka")),
//!     headers: [("foo", "bar")].into(),
//!     timestamp: OffsetDateTime::now_utc(),
//! };
//! let produced = partition.produce(vec![record]).await?;
//!
//! let (records, high_watermark) =
//!     partition.fetch_records(0, 1..1_000_000 /* min..max bytes */, 1_000 /* ms */).await?;
//! # assert_eq!((produced.offsets(), high_watermark), (Some(0..1), 1));
//! # assert_eq!(records[0].value.as_deref(), Some(&b"hello kafka"[..])); Ok(()) });
//! ```
//!
//! # Recovery
//!
//! A replay to the end of the log, from the position that was kept with the state, and then on:
//!
//! ```
//! # kwal_testkit::doctest(9097, async {
//! # use kwal::{Client, Record};
//! # let client = Client::connect(["localhost:9097"]).await?;
//! # client.controller_client().await?.create_topic("wal", 1, 1).await?;
//! # let partition = client.partition_client("wal", 0).await?;
//! # partition.produce(vec![Record::new("account", "+100"), Record::new("account", "-30")]).await?;
//! use kwal::{client::OffsetAt, consumer};
//!
//! let mut state: i64 = 0;
//! let mut apply = |value: Option<&[u8]>| {
//!     state += std::str::from_utf8(value.unwrap_or_default()).unwrap().parse::<i64>().unwrap();
//! };
//!
//! let mut replay = consumer::replay(&partition, OffsetAt::Earliest).await?;
//! replay.for_each_batch(|batch| batch.for_each(|record| apply(record.value))).await?;
//! let kept = replay.position().to_string();
//!
//! let mut stream = replay.follow();
//! assert!(stream.caught_up());
//! partition.produce(vec![Record::new("account", "+5")]).await?;
//! stream.next_batch().await?.for_each(|record| apply(record.value))?;
//! assert_eq!((state, stream.position().offset), (75, 3));
//!
//! // Later, in another process: it is an error if the log is not the one that was read.
//! let position: kwal::client::Position = kept.parse()?;
//! let replay = consumer::replay(&partition, position).await?;
//! assert_eq!((replay.progress().position, replay.progress().end), (2, 3));
//! # Ok(()) });
//! ```
//!
//! # A topic for a log
//!
//! ```
//! # kwal_testkit::doctest(9094, async {
//! # use kwal::{Client, client::{ConfigSource, Severity}};
//! # let client = Client::connect(["localhost:9094"]).await?;
//! # let controller = client.controller_client().await?;
//! let wal = controller
//!     .ensure_topic("wal", 4 /* partitions */, -1 /* replicas: the brokers' default */)
//!     .config("min.insync.replicas", "2")
//!     .config("retention.ms", "-1")
//!     .await?;
//! for difference in &wal.differences {
//!     eprintln!("topic wal: {difference}"); // none here: it was created
//! }
//! for finding in controller.audit("wal").await? {
//!     eprintln!("{finding}");
//! }
//! # let found = controller.audit("wal").await?;
//! # let grave = found.iter().filter(|one| one.severity == Severity::Error).map(|one| one.setting);
//! # assert!(grave.eq(["replication factor", "min.insync.replicas"]) && wal.created);
//! # assert_eq!((found.len(), found[1].source), (3, Some(ConfigSource::Topic)));
//! # assert_eq!(found[2].setting, "transaction.state.log.replication.factor"); Ok(()) });
//! ```
//!
//! # TLS, SASL and proxies
//!
//! With the features `tls-ring` and `transport-socks5`:
//!
#![cfg_attr(all(feature = "tls-ring", feature = "transport-socks5"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "tls-ring", feature = "transport-socks5")), doc = "```ignore")]
//! use kwal::{ClientBuilder, client::sasl::Sasl, transport::{Socks5, tls}};
//!
//! # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
//! let tls = tls::ring().roots_pem_file("ca.pem").client_pem_files("client.pem", "client.key");
//! let proxy = Socks5::new("proxy.example.org:1080".parse()?).login("orders", "a secret")?;
//! let client = ClientBuilder::new(["kafka-1.internal:9093"])
//!     .tls(tls)
//!     .socks5_proxy(proxy)
//!     .sasl(Sasl::scram_sha_512("alice", "a secret"))
//!     .build()
//!     .await?;
//! # let _ = client; Ok(()) }
//! ```
//! The files are read for each connection, so that certificates can be renewed. Any
//! `Arc<rustls::ClientConfig>`, or an async function that returns one, can be used as well.
//! [`client::sasl`] has the other mechanisms.
//!
//! # Access rights
//!
//! On brokers with an authorizer, each call takes a right of Kafka's ACLs. A denied call names the one that
//! it lacks.
//!
//! | call | operation | resource |
//! | --- | --- | --- |
//! | `build`, `brokers`, `describe_cluster` | none | |
//! | `partition_client`, `Router::open`, `get_offset`, `offset_for_leader_epoch` | `Describe` | topic |
//! | `describe_topic` | `Describe` | topic |
//! | `list_topics` | `Describe`, else a topic is left out | topic |
//! | `produce`, `submit`, `send` | `Write` | topic |
//! | the first append, with a producer id | `Write`, since Kafka 2.8; or `IdempotentWrite` | any topic; the cluster |
//! | `exclusive` | `Write` and `Read`; `Write` | topic; transactional id `{name}/{topic}/{partition}` |
//! | `resolve` | `Write` and `Read` | topic |
//! | `fetch`, `fetch_records`, `replay`, `follow` | `Read`; to pass the end of a log that compaction emptied, `DescribeConfigs` | topic |
//! | `delete_records` | `Delete`, which `Write` does not include | topic |
//! | `create_topic` | `Create`; to learn numbers that the broker chose, `DescribeConfigs` | topic, or for `Create` the cluster |
//! | `ensure_topic` | `Describe`; to create it, as above; to compare configs of an existing one, `DescribeConfigs` | topic |
//! | `create_partitions` | `Alter` | topic |
//! | `delete_topic` | `Delete` | topic |
//! | `describe_topic_configs` | `DescribeConfigs` | topic |
//! | `alter_topic_configs` | `AlterConfigs` | topic |
//! | `audit` | `Describe`; `DescribeConfigs`, else configs are unknown | topic, for `DescribeConfigs` also the cluster |
//!
//! `Read`, `Write`, `Delete` and `Alter` include `Describe`, and `AlterConfigs` includes `DescribeConfigs`.
//! `Create` includes neither.
//!
//! A call to a topic without the right to it is denied at once, whether the topic exists or not: only with
//! `Describe` can a client tell. A right that is taken away is missed by the next call, also of a partition
//! client that is open.
//!
//! # Logging
//!
//! The client emits events of the crate `tracing`, with targets that begin with `kwal_client`: at `WARN` one
//! line for trouble that lasts, at `INFO` one when it is over, at `DEBUG` connections and retries. Each call
//! has a span. [Logs and traces](guide::logging) lists all of them.
//!
//! # When an append fails
//!
//! The client retries what can be retried without duplicates until the
//! [deadline](client::Deadlines::operation). One question is left to the caller, and
//! [`outcome`](Error::outcome) answers it:
//!
//! ```
//! use kwal::{Client, Error, ErrorKind, Outcome, Record};
//! # use kwal_testkit::EmbeddedCluster;
//!
//! fn next_step(error: &Error) -> &'static str {
//!     match error.outcome() {
//!         Outcome::Unknown if error.in_doubt().is_some() => "resolve it, to know whether it is on the log",
//!         Outcome::Unknown => "it may be on the log, or may still reach it",
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

pub mod guide;

/// Clients of a cluster, its controller and its partitions.
pub mod client {
    pub use kwal_client::{
        Acks, AlterTopicConfigs, Append, Audit, BatchRecords, BrokerDescription, BrokerState, Client,
        ClientBuilder, ClientState, Close, CloseClient, ClusterDescription, ConfigSource, ConfigSynonym,
        ConfigValue, ConnectionState, ControllerClient, CreatePartitions, CreateTopic, CreatedTopic,
        Deadlines, DeleteBefore, DeleteRecords, DeleteTopic, DescribeCluster, DescribeTopic,
        DescribeTopicConfigs, EnsureTopic, EnsuredTopic, EpochEndOffset, Fetch, FetchAhead, Fetched,
        FetchedBatch, FetchedRecords, Finding, Gap, GapReason, GetOffset, Holder, InvalidPosition, Isolation,
        LastAcknowledged, LeaderState, Limits, ListTopics, MemoryState, OffsetAt, OffsetForLeaderEpoch,
        OnFailure, OpenPartition, PartitionClient, PartitionDescription, PartitionState, Permit, Position,
        Produce, Produced, Purpose, Reserve, Resolution, Resolve, RetryPolicy, Severity, Topic,
        TopicDescription, TopicDifference,
    };

    /// Authentication: the identity of the client, and how it proves it to brokers.
    pub mod sasl {
        pub use kwal_client::sasl::{Authenticate, Sasl, Token};
    }

    /// Errors: what happened, where, and whether the call took effect.
    pub mod error {
        pub use kwal_client::error::{
            Context, Error, ErrorKind, InDoubt, InvalidField, Outcome, Progress, RecordError,
        };
    }
}

#[doc(inline)]
pub use kwal_batching::{entry, producer, reader as consumer};

/// The types of the Kafka protocol that this crate's API uses.
///
/// Tools that speak the protocol themselves depend on `kwal-protocol`.
pub mod protocol {
    pub use kwal_protocol::{
        api::{ApiKey, Versions},
        compression::{CompressionError, Decompressor, UnknownCompression},
        connection::{ConnectionError, CorrelationId, Misbehaviour, OtherProtocol, ResponseProgress, Stage},
        error::{DecodeError, DecodeErrorKind, EncodeError},
        error_code::ErrorCode,
        record::BuildError,
        sasl::{Mechanism, OAuthBearer, Plain, SaslError, Scram, Step},
        wire::Uuid,
    };
}

/// Records to append, and records that were read.
pub mod record {
    pub use kwal_client::record::{AnyRecord, Barrier, IntoPayload, Record};
    pub use kwal_protocol::record::{
        Batch, BatchBuilder, BatchError, BatchErrorKind, BatchHeader, Compression, EncodedBatch, Header,
        HeaderView, Headers, HeadersIter, IntoHeaderBytes, IntoHeaderValue, OwnedRecord, RecordIter,
        RecordView, Records, TimestampType,
    };
}
