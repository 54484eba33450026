//! The snapshot of every error text of the workspace: `texts.txt`, for a person to read.
//!
//! ```sh
//! UPDATE_SNAPSHOT=1 cargo test -p kwal-client --lib error
//! ```

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::{
    collections::BTreeSet,
    env, error,
    fmt::Write as _,
    fs, io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use kwal_protocol::{
    api::{ApiKey, Versions},
    compression::CompressionError,
    connection::{
        CallError, ConnectionError, CorrelationId, Misbehaviour, OtherProtocol, ResponseProgress, Stage,
    },
    error::{DecodeError, DecodeErrorKind, EncodeError},
    error_code::ErrorCode,
    record::{BatchError, BatchErrorKind, BuildError, Compression, NotForwardable},
    sasl::SaslError,
    wire::Uuid,
};
use kwal_transport::{
    Alert, Attempt, HostPort, Socks5Error, Socks5Reply, TlsError, TransportError, tls::TlsConfigError,
};

use super::{
    CallContext, Context, Error, ErrorKind, InDoubt, InvalidField, Outcome, Progress, RecordError, Source,
};
use crate::position::Position;

/// The names of an enum's variants, as they stand in a file of the workspace.
macro_rules! variants {
    ($path:literal, $name:literal) => {
        variants(include_str!(concat!("../../../", $path)), $name)
    };
}

macro_rules! samples {
    ($($name:literal: $error:expr),* $(,)?) => { vec![$( ($name, Box::new($error) as Box<dyn error::Error>) ),*] };
}

#[test]
fn every_text_is_in_the_snapshot() {
    let mut page = Page(HEAD.to_owned());
    page.section(
        "kwal::client::error::ErrorKind",
        client(),
        variants!("kwal-client/src/error/kind.rs", "ErrorKind"),
    );
    page.section(
        "kwal::transport::TransportError",
        transport(),
        variants!("kwal-transport/src/error/mod.rs", "TransportError"),
    );
    page.section(
        "kwal::transport::TlsError",
        tls(),
        variants!("kwal-transport/src/error/tls.rs", "TlsError"),
    );
    page.section(
        "kwal::transport::Socks5Error",
        socks5(),
        variants!("kwal-transport/src/error/socks5.rs", "Socks5Error"),
    );
    page.section("kwal::transport::InvalidAddress", addresses(), Vec::new());
    page.section(
        "kwal::protocol::connection::ConnectionError",
        connection(),
        variants!("kwal-protocol/src/connection/error.rs", "ConnectionError"),
    );
    page.section(
        "kwal::protocol::connection::Misbehaviour",
        misbehaviour(),
        variants!("kwal-protocol/src/connection/error.rs", "Misbehaviour"),
    );
    page.section(
        "kwal::protocol::connection::OtherProtocol",
        other_protocols(),
        variants!("kwal-protocol/src/connection/error.rs", "OtherProtocol"),
    );
    page.section(
        "kwal::protocol::connection::CallError",
        calls(),
        variants!("kwal-protocol/src/connection/request.rs", "CallError"),
    );
    page.section(
        "kwal::protocol::sasl::SaslError",
        sasl(),
        variants!("kwal-protocol/src/sasl/mechanism.rs", "SaslError"),
    );
    page.section(
        "kwal::protocol::record::BatchError",
        batches(),
        variants!("kwal-protocol/src/record/error.rs", "BatchErrorKind"),
    );
    page.section(
        "kwal::protocol::record::BuildError",
        builds(),
        variants!("kwal-protocol/src/record/error.rs", "BuildError"),
    );
    page.section(
        "kwal::protocol::record::NotForwardable",
        not_forwardable(),
        variants!("kwal-protocol/src/record/error.rs", "NotForwardable"),
    );
    page.section(
        "kwal::protocol::compression::CompressionError",
        compressions(),
        variants!("kwal-protocol/src/compression/codec.rs", "CompressionError"),
    );
    page.section(
        "kwal::protocol::error::DecodeError",
        decodes(),
        variants!("kwal-protocol/src/error.rs", "DecodeErrorKind"),
    );
    page.section(
        "kwal::protocol::error::EncodeError",
        encodes(),
        variants!("kwal-protocol/src/error.rs", "EncodeError"),
    );
    page.section("what is parsed from a text", parsed(), Vec::new());
    page.section("kwal::protocol::error_code::ErrorCode", codes(), Vec::new());
    page.compare();
}

const HEAD: &str = "Every error text of kwal, each followed by its sources, one line per level.\n";

fn variants(source: &'static str, name: &str) -> Vec<&'static str> {
    let (_, body) = source.split_once(&format!("pub enum {name} {{\n")).expect("the enum stands in its file");
    let body = body.split("\n}\n").next().unwrap_or_default();
    let name = |line: &'static str| {
        let line = line.strip_prefix("    ")?;
        line.split(|c: char| !c.is_alphanumeric()).next().filter(|name| name.starts_with(char::is_uppercase))
    };
    let variants: Vec<_> = body.lines().filter_map(name).collect();
    assert!(!variants.is_empty());
    variants
}

/// A text that contains its causes, and sources that would print them again.
#[test]
fn no_cause_is_printed_twice() {
    for (name, error) in client() {
        assert!(error.source().is_none(), "{name}");
        let Some(error) = error.downcast_ref::<Error>() else { panic!("{name}") };
        assert_eq!(format!("{error:#}"), error.to_string());
        assert_eq!(format!("{error:?}"), error.to_string());
        let text = error.to_string();
        let mut cause = error.cause();
        while let Some(error) = cause {
            let below = error.to_string();
            // That of a call repeats its context only where it is another one.
            let below = below.rsplit(": ").next().unwrap();
            assert_eq!(text.matches(below).count(), 1, "{name}: {text}");
            cause = error.source();
        }
    }
}

type Samples = Vec<(&'static str, Box<dyn error::Error>)>;

struct Page(String);

impl Page {
    /// Writes a section. Every one of `variants` must be the first word of a sample's name; there are none
    /// for structs.
    fn section(&mut self, heading: &str, samples: Samples, variants: Vec<&str>) {
        let shown: BTreeSet<_> = samples.iter().filter_map(|(name, _)| name.split(',').next()).collect();
        let exist: BTreeSet<_> = variants.into_iter().collect();
        assert!(exist.is_empty() || exist == shown, "{heading} has {exist:?}, and shown are {shown:?}");
        let _ = write!(self.0, "\n== {heading}\n");
        for (name, error) in samples {
            let mut last = error.to_string();
            let _ = write!(self.0, "\n{name}\n    {last}\n");
            let mut source = error.source();
            while let Some(error) = source {
                let text = error.to_string();
                let _ = writeln!(self.0, "    : {text}");
                assert!(!last.contains(&text), "{name}: {text:?} is printed twice");
                (last, source) = (text, error.source());
            }
        }
    }

    fn compare(&self) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/error/texts.txt");
        if env::var_os("UPDATE_SNAPSHOT").is_some() {
            fs::write(path, &self.0).expect("the snapshot can be written");
        }
        let stored = fs::read_to_string(path).expect("the snapshot can be read");
        let differs = self.0.lines().zip(stored.lines()).find(|(new, old)| new != old);
        assert!(
            self.0 == stored,
            "error texts changed, first here (new, old): {differs:?}; \
             UPDATE_SNAPSHOT=1 cargo test -p kwal-client --lib error, then read the difference"
        );
    }
}

/// The context of a call with everything known.
fn at(api: ApiKey) -> Context {
    CallContext::partition(api, "wal", 3).at_broker(&"broker 1 (kafka-1:9092)")
}

/// The context of the first request to a bootstrap broker.
fn connecting() -> Context {
    CallContext::cluster(ApiKey::METADATA).at_broker(&"kafka-1:9092")
}

fn refused() -> TransportError {
    let attempt = |address: &str, error: &str| Attempt {
        address: address.parse::<SocketAddr>().unwrap(),
        error: io::Error::new(io::ErrorKind::ConnectionRefused, error.to_owned()),
    };
    TransportError::Connect {
        to: HostPort::new("kafka-1", 9092),
        attempts: vec![
            attempt("[fd00::1]:9092", "network is unreachable"),
            attempt("10.0.0.1:9092", "connection refused"),
        ],
    }
}

fn not_leader(api: ApiKey) -> Error {
    Error::broker(ErrorCode::NOT_LEADER_OR_FOLLOWER).with_context(at(api))
}

const WRITER: &str = "writer/wal/3";

fn fenced(api: ApiKey) -> Error {
    let transactional_id = Some(WRITER.to_owned());
    Error::new(ErrorKind::Fenced).with_context(Context { transactional_id, ..at(api) })
}

fn other(why: &str) -> Source {
    Source::Other(Arc::from(Box::from(why)))
}

fn position() -> Position {
    "3WTQz4hjQ2mlVEDAmlYv2w:7:1200".parse().unwrap()
}

fn in_doubt() -> InDoubt {
    InDoubt {
        topic: "wal".to_owned(),
        topic_id: None,
        partition: 3,
        producer_id: 4_001,
        epoch: 2,
        sequence: 120,
        record_count: 3,
        after: Some(19),
        transactional_id: None,
        part: None,
    }
}

fn client() -> Samples {
    let kafka = |n| format!("kafka-{n}:9092");
    let produce = |kind: ErrorKind| Error::new(kind).with_context(at(ApiKey::PRODUCE));
    let fetch = |kind: ErrorKind| Error::new(kind).with_context(at(ApiKey::FETCH));
    let init = |kind: ErrorKind| {
        let call = CallContext::partition(ApiKey::INIT_PRODUCER_ID, "wal", 3);
        call.with_transactional_id("writer-1/wal/3").error(kind)
    };
    let denied = |code, api| Error::broker(code).with_context(at(api));
    let denied_id = |api| {
        let call = CallContext::partition(api, "wal", 3).with_transactional_id("writer-1/wal/3");
        let code = ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        Error::broker(code).with_context(call.at_broker(&"broker 1 (kafka-1:9092)"))
    };
    let deadline =
        |progress| produce(ErrorKind::DeadlineExceeded { after: Duration::from_secs(60), progress });
    let last = || Source::Call(Arc::new(not_leader(ApiKey::PRODUCE)));
    let connect = || Error::from(Arc::new(refused())).with_context(connecting());
    let timed_out = ConnectionError::HandshakeTimedOut {
        stage: Stage::Versions { version: 4 },
        after: Duration::from_secs(10),
    };
    let peer_closed =
        ConnectionError::PeerClosed { stage: Stage::Ready { awaited: Some((ApiKey::PRODUCE, 11)) } };
    samples! {
        "InvalidInput": Error::invalid_input("no records to append"),
        "InvalidInput, of a partition":
            CallContext::partition(ApiKey::PRODUCE, "wal", 3).invalid_input("no records to append"),
        "InvalidInput, TLS": Error::invalid_input("the TLS configuration cannot be used")
            .with_source(Source::Other(Arc::new(TlsConfigError::NoRoots))),
        "Encode": Error::from(BuildError::Empty),
        "BatchTooLarge, the client's limit": produce(ErrorKind::BatchTooLarge {
            size: 20_000_081,
            records: 2,
            limit: Some(16_777_216),
            is_input: false,
        }),
        "BatchTooLarge, an input of a batch producer": produce(ErrorKind::BatchTooLarge {
            size: 2_000_081,
            records: 1,
            limit: Some(1_000_000),
            is_input: true,
        }),
        "BatchTooLarge, the topic's limit": produce(ErrorKind::BatchTooLarge {
            size: 2_000_081,
            records: 1,
            limit: None,
            is_input: false,
        }),
        "UnknownTopic": fetch(ErrorKind::UnknownTopic { waited: Duration::from_secs(5) }),
        "UnknownPartition":
            fetch(ErrorKind::UnknownPartition { partitions: 3, waited: Duration::from_secs(5) }),
        "UnknownPartition, one": fetch(ErrorKind::UnknownPartition { partitions: 1, waited: Duration::ZERO }),
        "UnknownPartition, left out":
            fetch(ErrorKind::UnknownPartition { partitions: 4, waited: Duration::from_secs(5) }),
        "UnknownPartition, none":
            fetch(ErrorKind::UnknownPartition { partitions: 0, waited: Duration::from_secs(5) }),
        "TopicRecreated": fetch(ErrorKind::TopicRecreated {
            was: "3WTQz4hjQ2mlVEDAmlYv2w".parse().unwrap(),
            is: "Vi4YOUmUQ5-NBs2aJ-lkEw".parse().unwrap(),
        }),
        "Trimmed": fetch(ErrorKind::Trimmed { offset: 12, log_start: 100 }),
        "BeyondEnd": fetch(ErrorKind::BeyondEnd { offset: 2_001, end: 2_000 }),
        "LogTruncated": fetch(ErrorKind::LogTruncated { position: position(), diverged_at: 1_100 }),
        "EpochUnknown": fetch(ErrorKind::EpochUnknown { position: position(), leader_epoch: 3 }),
        "OffsetOutOfRange": fetch(ErrorKind::OffsetOutOfRange { offset: 12, log: Some(100..2_000) }),
        "OffsetOutOfRange, an empty log":
            fetch(ErrorKind::OffsetOutOfRange { offset: 12, log: Some(100..100) }),
        "OffsetOutOfRange, the offsets of the log are unknown":
            fetch(ErrorKind::OffsetOutOfRange { offset: 12, log: None }),
        "NotDeletable": Error::new(ErrorKind::NotDeletable).with_context(at(ApiKey::DELETE_RECORDS)),
        "OffsetNotFound": Error::new(ErrorKind::OffsetNotFound { timestamp_ms: 1_700_000_000_000 })
            .with_context(at(ApiKey::LIST_OFFSETS)),
        "OffsetNotFound, the largest timestamp":
            Error::new(ErrorKind::OffsetNotFound { timestamp_ms: -3 }).with_context(at(ApiKey::LIST_OFFSETS)),
        "Broker": not_leader(ApiKey::FETCH),
        "Broker, outcome unknown": not_leader(ApiKey::PRODUCE).with_outcome(Outcome::Unknown),
        "Broker, outcome unknown, not an append":
            not_leader(ApiKey::DELETE_RECORDS).with_outcome(Outcome::Unknown),
        "Broker, with a message": Error::new(ErrorKind::Broker {
            code: ErrorCode::INVALID_REPLICATION_FACTOR,
            message: Some("Unable to replicate the partition 3 time(s): only 1 broker is registered.".to_owned()),
        })
        .with_context(CallContext::topic(ApiKey::CREATE_TOPICS, "wal").at_broker(&"broker 1 (kafka-1:9092)")),
        "Broker, denied, PRODUCE": denied(ErrorCode::TOPIC_AUTHORIZATION_FAILED, ApiKey::PRODUCE),
        "Broker, denied, FETCH": denied(ErrorCode::TOPIC_AUTHORIZATION_FAILED, ApiKey::FETCH),
        "Broker, denied, DESCRIBE_PRODUCERS":
            denied(ErrorCode::TOPIC_AUTHORIZATION_FAILED, ApiKey::DESCRIBE_PRODUCERS),
        "Broker, denied, LIST_OFFSETS": denied(ErrorCode::TOPIC_AUTHORIZATION_FAILED, ApiKey::LIST_OFFSETS),
        "Broker, denied, CREATE_TOPICS": denied(ErrorCode::TOPIC_AUTHORIZATION_FAILED, ApiKey::CREATE_TOPICS),
        "Broker, denied, DELETE_TOPICS": denied(ErrorCode::TOPIC_AUTHORIZATION_FAILED, ApiKey::DELETE_TOPICS),
        "Broker, denied, DELETE_RECORDS": denied(ErrorCode::TOPIC_AUTHORIZATION_FAILED, ApiKey::DELETE_RECORDS),
        "Broker, denied, CREATE_PARTITIONS": denied(ErrorCode::TOPIC_AUTHORIZATION_FAILED, ApiKey::CREATE_PARTITIONS),
        "Broker, denied, DESCRIBE_CONFIGS": denied(ErrorCode::TOPIC_AUTHORIZATION_FAILED, ApiKey::DESCRIBE_CONFIGS),
        "Broker, denied, INCREMENTAL_ALTER_CONFIGS": denied(ErrorCode::TOPIC_AUTHORIZATION_FAILED, ApiKey::INCREMENTAL_ALTER_CONFIGS),
        "Broker, denied on the cluster, DESCRIBE_CONFIGS":
            denied(ErrorCode::CLUSTER_AUTHORIZATION_FAILED, ApiKey::DESCRIBE_CONFIGS),
        "Broker, a code of a later Kafka": produce(ErrorKind::Broker { code: ErrorCode(999), message: None }),
        "Broker, with records":
            produce(ErrorKind::Broker {
                code: ErrorCode::INVALID_TIMESTAMP,
                message: Some("One or more records have been rejected due to invalid timestamp".to_owned()),
            })
            .with_record_errors(vec![
                RecordError {
                    index: 3,
                    message: Some("Timestamp 1700007200000 of message is out of range.\n".to_owned()),
                },
                RecordError { index: 7, message: None },
                RecordError { index: 8, message: None },
                RecordError { index: 9, message: None },
            ]),
        "Broker, without the right to a producer id":
            Error::broker(ErrorCode::CLUSTER_AUTHORIZATION_FAILED).with_context(at(ApiKey::INIT_PRODUCER_ID)),
        "Broker, denied, the coordinator of a transactional id": denied_id(ApiKey::FIND_COORDINATOR),
        "Broker, denied, the producer id of a transactional id": denied_id(ApiKey::INIT_PRODUCER_ID),
        "Fenced": produce(ErrorKind::Fenced),
        "Fenced, exclusive": fenced(ApiKey::PRODUCE),
        "Fenced, exclusive, in doubt": fenced(ApiKey::PRODUCE)
            .with_in_doubt(InDoubt { transactional_id: Some(WRITER.to_owned()), ..in_doubt() }),
        "Fenced, exclusive, forgotten": fenced(ApiKey::INIT_PRODUCER_ID)
            .with_source(other("the coordinator forgot the producer id 4001, and gave out 5000")),
        "Fenced, exclusive, opened twice": fenced(ApiKey::INIT_PRODUCER_ID)
            .with_source(other("another process opened it by the same name at the same time")),
        "EpochTaken": init(ErrorKind::EpochTaken { producer_id: 4_001, epoch: 3, offset: Some(20) }),
        "EpochTaken, without an offset":
            init(ErrorKind::EpochTaken { producer_id: 4_001, epoch: 3, offset: None }),
        "NoTransactionLog": init(ErrorKind::NoTransactionLog { brokers: 1 }),
        "NoTransactionLog, two brokers": init(ErrorKind::NoTransactionLog { brokers: 2 }),
        "DataLoss": produce(ErrorKind::DataLoss {
            producer_id: 4_001,
            epoch: 2,
            sequence: 117,
            offsets: None,
        }),
        "DataLoss, with offsets": produce(ErrorKind::DataLoss {
            producer_id: 4_001,
            epoch: 2,
            sequence: 117,
            offsets: Some(17..20),
        })
        .with_in_doubt(in_doubt()),
        "DataLoss, without a producer id": produce(ErrorKind::DataLoss {
            producer_id: -1,
            epoch: -1,
            sequence: -1,
            offsets: Some(17..18),
        }),
        "Unsupported": fetch(ErrorKind::Unsupported {
            ours: Versions::new(4, 17),
            theirs: Some(Versions::new(0, 3)),
        }),
        "Unsupported, not at all":
            Error::new(ErrorKind::Unsupported { ours: Versions::new(0, 5), theirs: None })
                .with_context(at(ApiKey::INIT_PRODUCER_ID)),
        "Unsupported, exclusive": init(ErrorKind::Unsupported {
            ours: Versions::new(3, 5),
            theirs: Some(Versions::new(0, 2)),
        }),
        "Unsupported, exclusive, not at all":
            init(ErrorKind::Unsupported { ours: Versions::new(3, 5), theirs: None }),
        "CredentialsUnavailable": Error::new(ErrorKind::CredentialsUnavailable)
            .with_source(Source::Other(Arc::new(io::Error::other("the token endpoint is down"))))
            .with_context(connecting()),
        "Throttled": produce(ErrorKind::Throttled { remaining: Duration::from_millis(41_300) }),
        "ResponseIncomplete":
            fetch(ErrorKind::ResponseIncomplete { arrived: 4_800_000, len: 52_428_871 }),
        "RequestTooLarge":
            produce(ErrorKind::RequestTooLarge { size: 400_123 }).with_outcome(Outcome::Unknown),
        "EncryptionRequired":
            Error::new(ErrorKind::EncryptionRequired { mechanism: "PLAIN".to_owned() }).with_context(connecting()),
        "Connect": connect(),
        "Connection": Error::from(peer_closed.clone()).with_context(at(ApiKey::FETCH)),
        "Connection, outcome unknown":
            Error::from(peer_closed).with_context(at(ApiKey::PRODUCE)).with_outcome(Outcome::Unknown),
        "Connection, a wrong password": Error::from(ConnectionError::AuthenticationFailed {
            mechanism: "PLAIN".to_owned(),
            code: ErrorCode::SASL_AUTHENTICATION_FAILED,
            message: Some("Authentication failed: Invalid username or password".to_owned()),
        })
        .with_context(connecting()),
        "Connect, TLS": Error::from(Arc::new(TransportError::Tls {
            to: HostPort::new("kafka-1", 9092),
            source: TlsError::UnknownIssuer,
        }))
        .with_context(connecting()),
        "Connection, while connecting":
            Error::from(ConnectionError::NotKafka(OtherProtocol::Http)).with_context(connecting()),
        "NoBroker": Error::new(ErrorKind::NoBroker {
            attempts: vec![
                (kafka(1), connect()),
                (kafka(2), Error::from(timed_out.clone()).with_context(connecting())),
            ],
        }),
        "NoBroker, many": Error::new(ErrorKind::NoBroker {
            attempts: (1..=20).map(|n| (kafka(n), Error::from(timed_out.clone()))).collect(),
        }),
        "NoBroker, a bootstrap address of a broker": Error::new(ErrorKind::NoBroker {
            attempts: vec![("broker 1 (kafka-1:9092)".to_owned(), connect()), (kafka(1), connect())],
        }),
        "NoBroker, none is known": Error::new(ErrorKind::NoBroker { attempts: Vec::new() }),
        "NoBrokersListed": Error::new(ErrorKind::NoBrokersListed).with_context(at(ApiKey::METADATA)),
        "UnknownBroker": fetch(ErrorKind::UnknownBroker),
        "UnknownBroker, no controller":
            CallContext::topic(ApiKey::CREATE_TOPICS, "wal").error(ErrorKind::UnknownBroker),
        "OtherCluster": Error::new(ErrorKind::OtherCluster {
            was: "LGcx5qLfSPK5piaVynM7ag".to_owned(),
            is: "tw7oVUzlRDqxnJr4O2Nx5w".to_owned(),
        })
        .with_context(CallContext::cluster(ApiKey::METADATA).at_broker(&kafka(1))),
        "MalformedResponse":
            Error::from(decode(DecodeErrorKind::NegativeLength(-7))).with_context(at(ApiKey::METADATA)),
        "MalformedResponse, a value":
            Error::from(InvalidField { field: "base_offset", value: -2 })
                .with_context(at(ApiKey::PRODUCE))
                .with_outcome(Outcome::Unknown),
        "MalformedResponse, not about what was requested":
            Error::new(ErrorKind::MalformedResponse).with_context(at(ApiKey::LIST_OFFSETS)),
        "Corrupt": Error::from(batch(checksum())).with_context(at(ApiKey::FETCH)),
        "Corrupt, a record": Error::corrupt(batch(checksum()), Some(17..18)).with_context(at(ApiKey::FETCH)),
        "Corrupt, a batch": Error::corrupt(batch(checksum()), Some(17..1_017)).with_context(at(ApiKey::FETCH)),
        "PrecedingAppendFailed": produce(ErrorKind::PrecedingAppendFailed)
            .with_source(Source::Call(Arc::new(produce(ErrorKind::Fenced)))),
        "PrecedingAppendFailed, in doubt": produce(ErrorKind::PrecedingAppendFailed)
            .with_source(Source::Call(Arc::new(deadline(Progress::Response))))
            .with_in_doubt(InDoubt { record_count: 1, after: None, ..in_doubt() }),
        "DeadlineExceeded": deadline(Progress::Pause).with_source(last()),
        "DeadlineExceeded, in doubt": deadline(Progress::Response).with_in_doubt(in_doubt()),
        "DeadlineExceeded, outcome unknown":
            deadline(Progress::Response).with_outcome(Outcome::Unknown),
        "DeadlineExceeded, outcome unknown after another attempt":
            deadline(Progress::Response).with_source(last()).with_outcome(Outcome::Unknown),
        "DeadlineExceeded, after an error of another call": deadline(Progress::Pause).with_source(
            Source::Call(Arc::new(Error::new(ErrorKind::NoBroker { attempts: vec![(kafka(1), connect())] }))),
        ),
        "DeadlineExceeded, not started": deadline(Progress::NotStarted),
        "DeadlineExceeded, queue": deadline(Progress::Queue),
        "DeadlineExceeded, memory": deadline(Progress::Memory),
        "DeadlineExceeded, lookup": deadline(Progress::Lookup),
        "DeadlineExceeded, last acknowledged": deadline(Progress::LastAcknowledged),
        "DeadlineExceeded, connection": deadline(Progress::Connection),
        "DeadlineExceeded, producer id": deadline(Progress::ProducerId),
        "DeadlineExceeded, coordinator": init(ErrorKind::DeadlineExceeded {
            after: Duration::from_secs(60),
            progress: Progress::Coordinator,
        })
        .with_source(Source::Call(Arc::new(
            Error::broker(ErrorCode::COORDINATOR_NOT_AVAILABLE).with_context(at(ApiKey::FIND_COORDINATOR)),
        ))),
        "DeadlineExceeded, takeover": init(ErrorKind::DeadlineExceeded {
            after: Duration::from_secs(60),
            progress: Progress::Takeover,
        }),
        "DeadlineExceeded, runtime": deadline(Progress::Runtime).with_outcome(Outcome::Unknown),
        "Closed": produce(ErrorKind::Closed),
    }
}

fn transport() -> Samples {
    let to = || HostPort::new("kafka-1", 9092);
    samples! {
        "InvalidAddress": TransportError::InvalidAddress("kafka-1".parse::<HostPort>().unwrap_err()),
        "Resolve": TransportError::Resolve {
            host: "kafak-1".to_owned(),
            source: io::Error::other("failed to lookup address information: Name or service not known"),
        },
        "NoAddress": TransportError::NoAddress { host: "kafka-1".to_owned() },
        "Connect": refused(),
        "Refused": TransportError::Refused { to: to() },
        "InUse": TransportError::InUse { at: to() },
        "NoFreePort": TransportError::NoFreePort { host: "kafka-1".to_owned() },
        "Tls": TransportError::Tls { to: to(), source: TlsError::UnknownIssuer },
        "Socks5": TransportError::Socks5 {
            to: to(),
            proxy: HostPort::new("proxy", 1080),
            source: Socks5Error::Refused { reply: Socks5Reply::HOST_UNREACHABLE },
        },
        "Other": TransportError::other(to(), "the tunnel is shut"),
    }
}

fn tls() -> Samples {
    let at = |days: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(days * 24 * 60 * 60));
    let alert = |code, client_certificate| TlsError::Alert { alert: Alert(code), client_certificate };
    samples! {
        "InvalidHost": TlsError::InvalidHost { host: "müller.example".to_owned() },
        "Config": TlsError::Config { source: "the vault is sealed".into() },
        "UnknownIssuer": TlsError::UnknownIssuer,
        "BadSignature": TlsError::BadSignature,
        "Expired": TlsError::Expired { not_after: at(20_000), now: at(20_001) },
        "NotYetValid": TlsError::NotYetValid { not_before: at(20_000), now: at(19_999) },
        "WrongHost": TlsError::WrongHost {
            host: "kafka-1".to_owned(),
            names: vec!["*.kafka.example".to_owned(), "10.0.0.1".to_owned()],
        },
        "WrongHost, without names": TlsError::WrongHost { host: "kafka-1".to_owned(), names: Vec::new() },
        "Certificate": TlsError::Certificate { source: "it was revoked: renew it".into() },
        "NotTls": TlsError::NotTls,
        "ClosedInHandshake": TlsError::ClosedInHandshake,
        "ClosedAfterHandshake": TlsError::ClosedAfterHandshake { client_certificate: false },
        "ClosedAfterHandshake, with a certificate":
            TlsError::ClosedAfterHandshake { client_certificate: true },
        "Truncated": TlsError::Truncated,
        "Alert, no certificate": alert(116, false),
        "Alert, bad certificate": alert(48, true),
        "Alert, none that it takes": alert(116, true),
        "Alert, nothing in common": alert(40, false),
        "Alert, nothing in common or a bad certificate": alert(40, true),
        "Alert, version": alert(70, false),
        "Alert, not let in": alert(49, true),
        "Alert, name": alert(112, false),
        "Alert, not TLS": alert(50, false),
        "Alert, its own affair": alert(80, false),
        "Incompatible": TlsError::Incompatible { source: "peer is incompatible: Tls12NotOffered".into() },
        "Io": TlsError::Io { source: io::Error::other("no route to host") },
        "Other": TlsError::Other { source: "peer misbehaved: TooMuchEarlyDataReceived".into() },
    }
}

fn socks5() -> Samples {
    let (greeted, connect) = ("during the greeting", "during the connect request");
    let refused_with = |code| Socks5Error::Refused { reply: Socks5Reply(code) };
    samples! {
        "InvalidLogin": Socks5Error::InvalidLogin { field: "password", len: 300 },
        "HostTooLong": Socks5Error::HostTooLong { len: 256 },
        "Proxy": Socks5Error::Proxy { source: Box::new(refused()) },
        "NotSocks5, HTTP": Socks5Error::NotSocks5 { version: b'H' },
        "NotSocks5, TLS": Socks5Error::NotSocks5 { version: 0x15 },
        "NotSocks5, SOCKS4": Socks5Error::NotSocks5 { version: 0 },
        "NotSocks5, unknown": Socks5Error::NotSocks5 { version: 99 },
        "LoginRequired": Socks5Error::LoginRequired,
        "NoCommonMethod": Socks5Error::NoCommonMethod,
        "UnknownMethod": Socks5Error::UnknownMethod { method: 1 },
        "LoginRefused": Socks5Error::LoginRefused,
        "Refused, 1": refused_with(1),
        "Refused, 2": refused_with(2),
        "Refused, 3": refused_with(3),
        "Refused, 4": refused_with(4),
        "Refused, 5": refused_with(5),
        "Refused, 6": refused_with(6),
        "Refused, 7": refused_with(7),
        "Refused, 8": refused_with(8),
        "Refused, 9": refused_with(9),
        "Closed": Socks5Error::Closed { stage: greeted },
        "Io": Socks5Error::Io { stage: connect, source: io::Error::other("no route to host") },
        "Malformed": Socks5Error::Malformed { stage: connect },
    }
}

fn addresses() -> Samples {
    let invalid = |text: &str| text.parse::<HostPort>().unwrap_err();
    samples! {
        "no host": invalid(":9092"),
        "no port": invalid("kafka-1"),
        "a bad port": invalid("kafka-1:http"),
        "a scheme": invalid("PLAINTEXT://kafka-1:9092"),
        "a list": invalid("kafka-1:9092,kafka-2:9092"),
        "IPv6 without brackets": invalid("fd00::1:9092"),
        "bad IPv6": invalid("[kafka-1]:9092"),
        "a bad host": invalid("kafka 1:9092"),
    }
}

fn connection() -> Samples {
    let after = Duration::from_secs(10);
    let asked = Stage::Versions { version: 4 };
    let at_work = |api, version| Stage::Ready { awaited: Some((api, version)) };
    let reset = io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer");
    samples! {
        "NotReady": ConnectionError::NotReady,
        "TooManyInFlight": ConnectionError::TooManyInFlight { limit: 1_000 },
        "InvalidSoftware":
            ConnectionError::InvalidSoftware { field: "software_name", value: "my client".to_owned() },
        "Encode": ConnectionError::Encode { api: ApiKey::API_VERSIONS, source: EncodeError::TooLong(40_000) },
        "Closed": ConnectionError::Closed,
        "PeerClosed, in the handshake": ConnectionError::PeerClosed { stage: asked },
        "PeerClosed, in the handshake of a further connection": ConnectionError::PeerClosed {
            stage: Stage::FurtherConnection { version: 4 },
        },
        "PeerClosed, after the handshake": ConnectionError::PeerClosed {
            stage: Stage::FirstCall { api: ApiKey::METADATA, version: 13 },
        },
        "PeerClosed, at work": ConnectionError::PeerClosed { stage: at_work(ApiKey::PRODUCE, 11) },
        "PeerClosed, idle": ConnectionError::PeerClosed { stage: Stage::Ready { awaited: None } },
        "Io": ConnectionError::Io { stage: at_work(ApiKey::FETCH, 17), source: Arc::new(reset) },
        "Io, of TLS": ConnectionError::Io {
            stage: asked,
            source: Arc::new(io::Error::other(TransportError::Tls {
                to: HostPort::new("kafka-1", 9092),
                source: TlsError::Alert { alert: Alert(116), client_certificate: false },
            })),
        },
        "HandshakeTimedOut": ConnectionError::HandshakeTimedOut { stage: asked, after },
        "RequestTimedOut":
            ConnectionError::RequestTimedOut { api: ApiKey::PRODUCE, version: 11, after, progress: None },
        "RequestTimedOut, while the response arrives": ConnectionError::RequestTimedOut {
            api: ApiKey::FETCH,
            version: 17,
            after,
            progress: Some(ResponseProgress { arrived: 20_480, len: 1_048_650 }),
        },
        "FrameTooLarge": ConnectionError::FrameTooLarge {
            api: ApiKey::FETCH,
            version: 17,
            len: 300_000_000,
            max: 134_217_728,
        },
        "FrameTooLarge, of the handshake": ConnectionError::FrameTooLarge {
            api: ApiKey::API_VERSIONS,
            version: 4,
            len: 300_000_000,
            max: 65_536,
        },
        "FrameTooLarge, without records": ConnectionError::FrameTooLarge {
            api: ApiKey::METADATA,
            version: 13,
            len: 300_000_000,
            max: 16_777_216,
        },
        "NotKafka": ConnectionError::NotKafka(OtherProtocol::Tls),
        "PeerMisbehaved": ConnectionError::PeerMisbehaved(Misbehaviour::Unasked),
        "Malformed": ConnectionError::Malformed {
            api: ApiKey::API_VERSIONS,
            version: 4,
            source: decode(DecodeErrorKind::UnexpectedEnd),
        },
        "Refused": ConnectionError::Refused {
            api: ApiKey::API_VERSIONS,
            version: 4,
            code: ErrorCode::INVALID_REQUEST,
        },
        "MechanismRefused": ConnectionError::MechanismRefused {
            mechanism: "PLAIN".to_owned(),
            offered: vec!["GSSAPI".to_owned(), "SCRAM-SHA-512".to_owned()],
        },
        "AuthenticationFailed": ConnectionError::AuthenticationFailed {
            mechanism: "PLAIN".to_owned(),
            code: ErrorCode::SASL_AUTHENTICATION_FAILED,
            message: Some("Authentication failed: Invalid username or password".to_owned()),
        },
        "Sasl": ConnectionError::Sasl {
            mechanism: "PLAIN".to_owned(),
            source: SaslError::Challenge { mechanism: "PLAIN".into(), what: "the mechanism has no challenges".into() },
        },
        "EndlessExchange": ConnectionError::EndlessExchange { mechanism: "PLAIN".to_owned() },
        "NoAuthentication": ConnectionError::NoAuthentication { api: ApiKey::SASL_HANDSHAKE },
        "NoCommonVersion":
            ConnectionError::NoCommonVersion { ours: Versions::new(0, 4), theirs: Versions::new(5, 6) },
    }
}

fn misbehaviour() -> Samples {
    samples! {
        "FrameLength": Misbehaviour::FrameLength(-5),
        "Unasked": Misbehaviour::Unasked,
        "CorrelationId": Misbehaviour::CorrelationId {
            api: ApiKey::PRODUCE,
            expected: CorrelationId(7),
            got: CorrelationId(9),
        },
        "Versions": Misbehaviour::Versions { asked: 3, named: 4 },
    }
}

fn other_protocols() -> Samples {
    samples! {
        "Tls": OtherProtocol::Tls,
        "Http": OtherProtocol::Http,
        "Text": OtherProtocol::Text("SSH-2.0-OpenSSH_9.6".to_owned()),
    }
}

fn calls() -> Samples {
    let theirs = Some(Versions::new(0, 3));
    samples! {
        "Unsupported": CallError::Unsupported { api: ApiKey::FETCH, ours: Versions::new(4, 17), theirs },
        "Unsupported, not there at all":
            CallError::Unsupported { api: ApiKey::INIT_PRODUCER_ID, ours: Versions::new(0, 5), theirs: None },
        "Encode": CallError::Encode {
            api: ApiKey::PRODUCE,
            version: 11,
            source: EncodeError::NotInVersion { field: "topicId", version: 11 },
        },
    }
}

fn sasl() -> Samples {
    samples! {
        "Credentials": SaslError::Credentials("the password contains a NUL"),
        "Challenge": SaslError::Challenge { mechanism: "PLAIN".into(), what: "the mechanism has no challenges".into() },
        "Refused": SaslError::Refused { words: "{\"status\":\"invalid_token\"}".to_owned() },
        "NotTheBroker": SaslError::NotTheBroker,
    }
}

fn checksum() -> BatchErrorKind {
    BatchErrorKind::Checksum { stored: 0x1234_5678, computed: 0x9abc_def0 }
}

fn batch(kind: BatchErrorKind) -> BatchError {
    BatchError { kind, position: 1_131, base_offset: Some(42) }
}

fn batches() -> Samples {
    samples! {
        "Length": BatchError { kind: BatchErrorKind::Length(5), position: 0, base_offset: None },
        "TooShort": batch(BatchErrorKind::TooShort(40)),
        "Magic": batch(BatchErrorKind::Magic(3)),
        "Checksum": batch(checksum()),
        "Control": batch(BatchErrorKind::Control(decode(DecodeErrorKind::UnexpectedNull))),
        "NoMessages": batch(BatchErrorKind::NoMessages),
        "Nested": batch(BatchErrorKind::Nested { index: 4 }),
        "WrapperOffset": batch(BatchErrorKind::WrapperOffset { offset: 42, last: 43 }),
        "CodecOfLaterMagic":
            batch(BatchErrorKind::CodecOfLaterMagic { magic: 1, codec: Compression::Zstd }),
        "OffsetsApart": batch(BatchErrorKind::OffsetsApart { first: 42, other: 1 << 40 }),
        "Compression": batch(BatchErrorKind::Compression(CompressionError::NotBuiltIn { codec: Compression::Zstd })),
        "Count": batch(BatchErrorKind::Count(-1)),
        "RecordsMissing": batch(BatchErrorKind::RecordsMissing { count: 10, found: 7 }),
        "BytesLeft": batch(BatchErrorKind::BytesLeft(3)),
        "CutOff": batch(BatchErrorKind::CutOff(300)),
        "Offsets": batch(BatchErrorKind::Offsets { first: 42, last: 44, next: 43 }),
        "RecordOffset": batch(BatchErrorKind::RecordOffset { offset: 43, next: 44, last: 50 }),
        "Record": batch(BatchErrorKind::Record { index: 4, error: decode(DecodeErrorKind::VarintOverflow) }),
    }
}

fn not_forwardable() -> Samples {
    let base_offset = 42;
    samples! {
        "Magic": NotForwardable::Magic { base_offset, magic: 1 },
        "Control": NotForwardable::Control { base_offset },
        "Transactional": NotForwardable::Transactional { base_offset },
        "Holes": NotForwardable::Holes { base_offset, count: 7, offsets: 10 },
        "LogAppendTime": NotForwardable::LogAppendTime { base_offset },
        "Codec": NotForwardable::Codec { base_offset, source: CompressionError::UnknownCodec(6) },
    }
}

fn builds() -> Samples {
    samples! {
        "Empty": BuildError::Empty,
        "TooLarge": BuildError::TooLarge,
        "TooManyRecords": BuildError::TooManyRecords,
        "Timestamp": BuildError::Timestamp { index: 3, timestamp_ms: -2_000 },
        "NoMessage": BuildError::NoMessage { magic: 1 },
        "Compression": BuildError::Compression(CompressionError::NotBuiltIn { codec: Compression::Zstd }),
    }
}

fn compressions() -> Samples {
    let codec = Compression::Lz4;
    samples! {
        "UnknownCodec": CompressionError::UnknownCodec(5),
        "NotBuiltIn": CompressionError::NotBuiltIn { codec: Compression::Gzip },
        "Level": CompressionError::Level { codec: Compression::Gzip, level: 10 },
        "TooLarge": CompressionError::TooLarge { codec, limit: 134_217_728 },
        "Corrupt": CompressionError::Corrupt { codec, reason: "the frame ends inside of a block".into() },
    }
}

fn decode(kind: DecodeErrorKind) -> DecodeError {
    DecodeError { kind, at: 17, field: "topics" }
}

fn decodes() -> Samples {
    samples! {
        "UnexpectedEnd": decode(DecodeErrorKind::UnexpectedEnd),
        "UnexpectedEnd, not in a field": DecodeErrorKind::UnexpectedEnd.at(0),
        "TrailingBytes": decode(DecodeErrorKind::TrailingBytes(2)),
        "VarintOverflow": decode(DecodeErrorKind::VarintOverflow),
        "NegativeLength": decode(DecodeErrorKind::NegativeLength(-2)),
        "UnexpectedNull": decode(DecodeErrorKind::UnexpectedNull),
        "InvalidUtf8": decode(DecodeErrorKind::InvalidUtf8),
        "TooMuchMemory": decode(DecodeErrorKind::TooMuchMemory(5_000_000)),
        "InvalidTag": decode(DecodeErrorKind::InvalidTag(3)),
        "InvalidValue": decode(DecodeErrorKind::InvalidValue(9)),
        "OtherApi": DecodeErrorKind::OtherApi { expected: 1, is: 0 }.at(0),
    }
}

fn encodes() -> Samples {
    samples! {
        "UnknownVersion": EncodeError::UnknownVersion { version: 19, oldest: 4, newest: 18 },
        "NotInVersion": EncodeError::NotInVersion { field: "topicId", version: 11 },
        "Null": EncodeError::Null { field: "topics", version: 0 },
        "TooLong": EncodeError::TooLong(70_000),
    }
}

fn parsed() -> Samples {
    samples! {
        "a Compression": "LZ4".parse::<Compression>().unwrap_err(),
        "a Uuid": "wal".parse::<Uuid>().unwrap_err(),
    }
}

fn codes() -> Samples {
    (-1..1_000).map(ErrorCode).filter_map(|code| Some((code.name()?, Box::new(code) as _))).collect()
}
