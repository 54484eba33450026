//! What happened: the kinds of errors.

use std::time::Duration;

use kwal_protocol::{api::Versions, error_code::ErrorCode, wire::Uuid};

use super::{Error, Progress};
use crate::position::Position;

/// What happened.
///
/// The texts name what the caller can do. All of them stand in one snapshot file of the repository. The
/// [guide](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/) has a section for each kind: what it
/// means, why it happens, what to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input of the call is not valid. Nothing was sent. Of a TLS configuration, the
    /// [cause](Error::cause) is its error.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#invalidinput).
    #[non_exhaustive]
    InvalidInput {
        /// What is wrong with it.
        reason: String,
    },
    /// The records cannot be encoded as a batch. Nothing was sent. The [cause](Error::cause) is a
    /// [`BuildError`](kwal_protocol::record::BuildError).
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#encode).
    Encode,
    /// The batch exceeds the client's limit and was not sent, or exceeds the topic's limit and was rejected.
    /// Of an input of a batch producer, the batch is one of that input alone.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#batchtoolarge).
    #[non_exhaustive]
    BatchTooLarge {
        /// The size of the batch, in bytes: before compression or on the wire, whichever exceeds the limit.
        size: usize,
        /// How many records it holds.
        records: usize,
        /// The client's limit; `None` for the topic's `max.message.bytes`, which the broker does not report.
        limit: Option<usize>,
        /// Whether it is one input of a batch producer, and `limit` the producer's `max_input_bytes`.
        is_input: bool,
    },
    /// No broker knew the topic for [`Deadlines::unknown_topic`](crate::Deadlines::unknown_topic).
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#unknowntopic).
    #[non_exhaustive]
    UnknownTopic {
        /// For how long the client retried.
        waited: Duration,
    },
    /// The topic does not have the partition.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#unknownpartition).
    #[non_exhaustive]
    UnknownPartition {
        /// How many partitions metadata names.
        partitions: usize,
        /// For how long the client retried.
        waited: Duration,
    },
    /// The topic was deleted and created again: another topic of the same name. Open a new partition client
    /// to use it. A [position](crate::Position) of the former one has no meaning in it.
    ///
    /// For an append of [unknown outcome](crate::error::Outcome::Unknown), the batch may have been on the log
    /// of the former topic, and may be on that of the new one if the broker is older than Kafka 4.1: those
    /// know topics in appends by name, and the batch was in flight when the topic was created again.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#topicrecreated).
    #[non_exhaustive]
    TopicRecreated {
        /// The topic id when the partition client was opened, or that of the position.
        was: Uuid,
        /// The topic id now; for a position, that of the partition client.
        is: Uuid,
    },
    /// The offset lies before the start of the log: retention or `delete_records` removed what was there.
    /// Begin at the log start, if what was removed is not missed.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#trimmed).
    #[non_exhaustive]
    Trimmed {
        /// The requested offset.
        offset: i64,
        /// The first offset of the log.
        log_start: i64,
    },
    /// The offset lies beyond the end of the log: it was never there, or an unclean election lost it.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#beyondend).
    #[non_exhaustive]
    BeyondEnd {
        /// The requested offset.
        offset: i64,
        /// The offset after the last record that all in-sync replicas have.
        end: i64,
    },
    /// The broker says that the offset is not in the log, and it could not be found out on which side it is,
    /// or by then it was in the log.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#offsetoutofrange).
    #[non_exhaustive]
    OffsetOutOfRange {
        /// The requested offset.
        offset: i64,
        /// The first offset of the log and the one after its last record, if they could be looked up.
        log: Option<std::ops::Range<i64>>,
    },
    /// The leader's log differs from what was read before the [position](crate::Position): records were lost
    /// in an unclean election, and others may have their offsets now.
    ///
    /// Compare the log with your own state from there on, then go on at a position before it, or at a bare
    /// offset.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#logtruncated).
    #[non_exhaustive]
    LogTruncated {
        /// The position.
        position: Position,
        /// The first offset that is known to differ.
        ///
        /// If the leader has records of the position's leader epoch, it is exact. If it has not, records of
        /// earlier epochs may be lost as well: a position knows one epoch. A stream that has read the log
        /// itself knows where each of them began, and reports the first offset that was lost.
        diverged_at: i64,
    },
    /// No broker knows the leader epoch of the position, nor a later one, for
    /// [`Deadlines::unknown_topic`](crate::Deadlines::unknown_topic): the cluster's metadata was restored
    /// from a backup, or the position is of another cluster. What was read before it cannot be verified:
    /// compare, then go on at a bare offset.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#epochunknown).
    #[non_exhaustive]
    EpochUnknown {
        /// The position.
        position: Position,
        /// The leader's own epoch.
        leader_epoch: i32,
    },
    /// Records cannot be deleted because the topic's `cleanup.policy` is `compact` alone.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#notdeletable).
    NotDeletable,
    /// No record has this timestamp or a later one.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#offsetnotfound).
    #[non_exhaustive]
    OffsetNotFound {
        /// The requested time in milliseconds since the epoch; −3 for the largest timestamp of the log.
        timestamp_ms: i64,
    },
    /// A broker responded with an error code.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#broker).
    #[non_exhaustive]
    Broker {
        /// The code.
        code: ErrorCode,
        /// The broker's message, if it sent one.
        message: Option<String>,
    },
    /// A newer holder of the producer id has taken over, or another client has
    /// [resolved](crate::PartitionClient::resolve) a batch of it. This partition client cannot append any
    /// more: open a new one.
    ///
    /// An [exclusive](crate::OpenPartition::exclusive) writer gets it when another one of its name has taken
    /// over the log, or when it cannot be told any more whether one has: the coordinator forgot the name, or
    /// gave it another producer id. The process has to step down. By opening it again it would take the log
    /// from the holder that may be there now. [`PartitionClient::fenced`](crate::PartitionClient::fenced)
    /// waits for it.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#fenced).
    Fenced,
    /// The log cannot be taken over: it has a batch of the producer id and epoch that the coordinator had
    /// given to this new [exclusive](crate::OpenPartition::exclusive) writer. Nothing was appended.
    ///
    /// Epochs come from the coordinator, and it gives out each once. So somebody appends under the
    /// producer id of this name who does not ask it: another client that raises epochs itself, or a tool that
    /// copies batches with their headers. Find and stop it, since its appends are not fenced until the log is
    /// taken over. Opening the partition again takes the next epoch.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#epochtaken).
    #[non_exhaustive]
    EpochTaken {
        /// The producer id.
        producer_id: i64,
        /// The producer epoch.
        epoch: i16,
        /// The offset of the first batch of that epoch; `None` if it has more batches than brokers remember.
        offset: Option<i64>,
    },
    /// The brokers have no transaction log, `__transaction_state`, and cannot create it: no coordinator can
    /// be found, and no log be held [exclusively](crate::OpenPartition::exclusive).
    ///
    /// Brokers create that topic when a coordinator is looked for, if there are as many of them as
    /// `transaction.state.log.replication.factor` says, which is 3 by default. Lower it on all brokers, as
    /// to 1 for a single one, or start more. [`audit`](crate::ControllerClient::audit) checks it.
    ///
    /// Brokers that are still creating it give the same answer, so it is reported only after
    /// [`Deadlines::unknown_topic`](crate::Deadlines::unknown_topic), 5 s by default. If the deadline ends
    /// earlier, opening fails with `DeadlineExceeded`, after COORDINATOR_NOT_AVAILABLE.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#notransactionlog).
    #[non_exhaustive]
    NoTransactionLog {
        /// How many brokers the cluster has.
        brokers: usize,
    },
    /// The leader no longer has records that were acknowledged to this partition client, as after an unclean
    /// election.
    ///
    /// The last acknowledged batch is not on its log. It is looked up before the first append over a new
    /// connection, to a new leader or in a new leader epoch: twice, and another broker, if there is one,
    /// names that leader in between. Or the leader appended a batch at offsets that it had acknowledged
    /// before. What was deleted by retention, `delete_records` or compaction is no loss.
    ///
    /// This partition client cannot append any more: compare the log with your own state, repair what is
    /// missing, open a new one.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#dataloss).
    #[non_exhaustive]
    DataLoss {
        /// The producer id of the last acknowledged batch; −1 without
        /// [`idempotent`](crate::OpenPartition::idempotent).
        producer_id: i64,
        /// Its producer epoch; −1 without a producer id.
        epoch: i16,
        /// The sequence number of its first record; −1 without a producer id.
        sequence: i32,
        /// The offsets of the lost records, up to the last one that was acknowledged to this partition
        /// client, as far as they are known. Records that others appended since may have them now.
        offsets: Option<std::ops::Range<i64>>,
    },
    /// Client and broker have no version of the API in common.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#unsupported).
    #[non_exhaustive]
    Unsupported {
        /// The versions of the client.
        ours: Versions,
        /// The versions of the broker; `None` if it does not have the API at all.
        theirs: Option<Versions>,
    },
    /// The source of the credentials failed. The [cause](Error::cause) is what it returned.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#credentialsunavailable).
    CredentialsUnavailable,
    /// The connection is not encrypted and the SASL mechanism would expose its secret. Nothing was sent.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#encryptionrequired).
    #[non_exhaustive]
    EncryptionRequired {
        /// The mechanism.
        mechanism: String,
    },
    /// The broker throttles this client, because it exceeds a quota, for longer than the call has. The
    /// request was not sent.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#throttled).
    #[non_exhaustive]
    Throttled {
        /// How long the pause lasts from here on.
        remaining: Duration,
    },
    /// The call ended while the response was still arriving. Ask for less at once, or allow more time.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#responseincomplete).
    #[non_exhaustive]
    ResponseIncomplete {
        /// The bytes that had arrived.
        arrived: usize,
        /// All its bytes.
        len: usize,
    },
    /// The broker closed the connection right after this request, twice, and gave no answer. It does so with
    /// requests larger than its `socket.request.max.bytes`.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#requesttoolarge).
    #[non_exhaustive]
    RequestTooLarge {
        /// The size of the request, in bytes.
        size: usize,
    },
    /// No stream to the broker could be opened. The [cause](Error::cause) is a
    /// [`TransportError`](kwal_transport::TransportError).
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#connect).
    Connect,
    /// A connection was closed, or failed before it was ready. The [cause](Error::cause) is a
    /// [`ConnectionError`](kwal_protocol::connection::ConnectionError).
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#connection).
    Connection,
    /// No known broker could be reached.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#nobroker).
    #[non_exhaustive]
    NoBroker {
        /// Each broker, by id or address, and its error.
        attempts: Vec<(String, Error)>,
    },
    /// The metadata of a broker lists no brokers: it is starting, or cut off from the cluster.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#nobrokerslisted).
    NoBrokersListed,
    /// Metadata names a leader or a controller without its address, or none at all.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#unknownbroker).
    UnknownBroker,
    /// The brokers belong to another cluster than the one this client was built for. Build a new client to
    /// use that one.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#othercluster).
    #[non_exhaustive]
    OtherCluster {
        /// The cluster id when the client was built.
        was: String,
        /// The cluster id that the broker reports.
        is: String,
    },
    /// A response violates the protocol, has a value that cannot be true, or does not match the request: it
    /// lacks what was requested, has it twice, or has something else. The [cause](Error::cause) is a
    /// [`DecodeError`](kwal_protocol::error::DecodeError) in the first case and an
    /// [`InvalidField`](super::InvalidField) in the second.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#malformedresponse).
    MalformedResponse,
    /// A fetched batch is corrupt, or needs a codec that is not built in. The [cause](Error::cause) is a
    /// [`BatchError`](kwal_protocol::record::BatchError).
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#corrupt).
    #[non_exhaustive]
    Corrupt {
        /// The offsets of the batch, as far as its header can be believed.
        offsets: Option<std::ops::Range<i64>>,
    },
    /// An append that was submitted earlier failed, and this one with it, so that the log has no hole. The
    /// [cause](Error::cause) is the earlier error. This one may have been sent already: see its
    /// [outcome](Error::outcome).
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#precedingappendfailed).
    PrecedingAppendFailed,
    /// The call did not succeed within its deadline. The [cause](Error::cause) is the error of the last
    /// attempt that failed, if one did.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#deadlineexceeded).
    #[non_exhaustive]
    DeadlineExceeded {
        /// The time that it had.
        after: Duration,
        /// How far it got.
        progress: Progress,
    },
    /// The partition client or the client was closed by `close`, or the runtime of the client has shut down.
    ///
    /// [What to do](https://docs.rs/kwal/latest/kwal/guide/troubleshooting/#closed).
    Closed,
}

impl ErrorKind {
    /// Whether an offset is not in the log, whatever is known of the reason.
    pub(crate) fn is_out_of_range(&self) -> bool {
        matches!(self, Self::Trimmed { .. } | Self::BeyondEnd { .. } | Self::OffsetOutOfRange { .. })
    }
}
