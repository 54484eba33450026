//! What can go wrong, where, and what became of the call.
//!
//! Three questions, three answers: what happened is the variant; what became of an append is [`Error::outcome`]; whether the
//! same call may succeed later is [`Error::is_retriable`]. `Display` tells this level, [`source`](std::error::Error::source)
//! the next.

use std::{fmt, sync::Arc, time::Duration};

use kwal_protocol::wire::Uuid;
use kwal_protocol::{
    api::{ApiKey, Versions},
    connection::ConnectionError,
    error::DecodeError,
    error_code::{Effect, ErrorCode, Recovery as CodeRecovery},
    record::{BatchError, BuildError},
};
use kwal_transport::TransportError;

/// What a call of this crate fails with.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller asked for something that cannot be; nothing was sent.
    #[error("{0}")]
    InvalidInput(String),
    /// The records cannot be made a batch; nothing was sent.
    #[error("the records cannot be made a batch")]
    Encode(#[source] BuildError),
    /// The batch is larger than the client's limit, and was not sent, or than the topic's, and was refused.
    #[error("{at}: a batch of {size} bytes ({}) is larger than {}", Records(*.records), Limit(.limit))]
    BatchTooLarge {
        /// Its size on the wire, in bytes.
        size: usize,
        /// How many records it holds.
        records: usize,
        /// The client's limit, if it was that; `None` for the topic's `max.message.bytes`, which the broker does not tell.
        limit: Option<usize>,
        /// Where.
        at: Box<At>,
    },
    /// No broker knows the topic, for as long as [`Deadlines::unknown_topic`](crate::Deadlines::unknown_topic).
    #[error(
        "topic {topic} does not exist (asked for {waited:.1?}); create it first: looking it up does not create it"
    )]
    UnknownTopic {
        /// The name asked for.
        topic: String,
        /// How long.
        waited: Duration,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}, it has {partitions}: 0 to {}", .partitions.saturating_sub(1))]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: i32,
        /// How many it has.
        partitions: usize,
    },
    /// The topic was deleted and made again: another one, of the same name. Open a new partition client to go on with that.
    #[error(
        "topic {topic} was deleted and made again: it had the id {was} and now has {is}; to go on with the new one, open a new partition client"
    )]
    TopicRecreated {
        /// The topic.
        topic: String,
        /// The id when the partition client was made.
        was: Uuid,
        /// The id now.
        is: Uuid,
    },
    /// The offset is not in the log: it was deleted (retention, `delete_records`), or is beyond the end.
    #[error("{at}: offset {offset} is not in the log, which has {}", Range(.log))]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: i64,
        /// The first offset of the log and the one behind its last record, if they could be found out.
        log: Option<std::ops::Range<i64>>,
        /// Where.
        at: Box<At>,
    },
    /// Records cannot be deleted from a topic that is compacted and nothing else.
    #[error(
        "{at}: records cannot be deleted, since the topic is only compacted; its `cleanup.policy` would have to contain `delete`"
    )]
    NotDeletable {
        /// Where.
        at: Box<At>,
    },
    /// No record has such a timestamp or a later one.
    #[error("{at}: no record has {}", Time(.timestamp_ms))]
    OffsetNotFound {
        /// The time asked for, in milliseconds since the epoch; −3 if it was the largest of the log.
        timestamp_ms: i64,
        /// Where.
        at: Box<At>,
    },
    /// A broker answered with an error.
    #[error("{at}: {code}{}", Message(.message))]
    Broker {
        /// Its code.
        code: ErrorCode,
        /// Its words, if it had any.
        message: Option<String>,
        /// Where.
        at: Box<At>,
    },
    /// A newer holder of the producer id has taken over. This partition client is at its end: open a new one.
    #[error("{at}: another writer has taken over this producer id; this partition client can append no more")]
    Fenced {
        /// Where.
        at: Box<At>,
    },
    /// The leader no longer has batches that were acknowledged: it has refused this one twice for the gap before it, and another
    /// broker has named it as the leader in between, if there is another. This partition client is at its end: read the end of
    /// the log, mend what is missing, and open a new one.
    #[error(
        "{at}: the broker does not have the batch before this one, which it acknowledged (sequence {sequence} of producer \
         {producer_id}, epoch {epoch}); this partition client can append no more: compare the log with what you hold"
    )]
    Lost {
        /// The producer id.
        producer_id: i64,
        /// Its epoch.
        epoch: i16,
        /// The sequence number of the batch that was refused.
        sequence: i32,
        /// Where.
        at: Box<At>,
    },
    /// The client and the broker have no version of the API in common.
    #[error("{at}: {}", Theirs(ours, .theirs, .at))]
    Unsupported {
        /// What the client speaks.
        ours: Versions,
        /// What the broker speaks; `None` if it does not have the API at all.
        theirs: Option<Versions>,
        /// Where.
        at: Box<At>,
    },
    /// There is nothing to authenticate with: the token, or whatever is asked for it, could not be had.
    #[error("{at}: there is nothing to authenticate with")]
    Credentials {
        /// Where.
        at: Box<At>,
        /// What the source of it said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The connection is not encrypted, and the mechanism would tell its secret to all who read along. Nothing was sent.
    #[error(
        "{at}: SASL {mechanism} would send its secret over a connection that is not encrypted: connect with TLS, or allow it \
         with `Sasl::danger_send_unencrypted`"
    )]
    Unencrypted {
        /// The mechanism.
        mechanism: String,
        /// Where.
        at: Box<At>,
    },
    /// No stream to the broker could be made.
    #[error("{at}: there is no connection")]
    Connect {
        /// Where.
        at: Box<At>,
        /// Why.
        source: Arc<TransportError>,
    },
    /// A connection ended, or ended before it was ready.
    #[error("{at}: the connection failed")]
    Connection {
        /// Where.
        at: Box<At>,
        /// Why.
        source: ConnectionError,
    },
    /// Of all brokers known, none could be asked.
    #[error("no broker can be reached: {}", Attempts(.attempts))]
    NoBroker {
        /// Each broker, by id or address, and why it could not.
        attempts: Vec<(String, Self)>,
    },
    /// The brokers that answer are not those of the cluster that this client was built for: another cluster has its addresses
    /// now. Build a new client to go on with that one.
    #[error(
        "{broker} belongs to the cluster {is}, this client to {was}, of which no broker can be reached; to go on with the other cluster, build a new client"
    )]
    OtherCluster {
        /// The broker that answered, by id or address.
        broker: String,
        /// The id of the cluster when the client was built.
        was: String,
        /// The id that the broker tells.
        is: String,
    },
    /// A response is not what the protocol says.
    #[error("{at}: the response is malformed")]
    Decode {
        /// Where.
        at: Box<At>,
        /// The byte and the fault.
        source: DecodeError,
    },
    /// What was fetched is damaged, or needs a codec that is not built in.
    #[error("{at}: the log cannot be read")]
    Corrupt {
        /// Where.
        at: Box<At>,
        /// The batch and the fault.
        source: BatchError,
    },
    /// A response that does not speak of what was asked.
    #[error("{at}: the response says nothing of what was asked")]
    NoAnswer {
        /// Where.
        at: Box<At>,
    },
    /// An append failed, and those submitted behind it with it: the log has no hole. This one was not sent.
    #[error("{at}: not sent, because an append before it failed")]
    Behind {
        /// Where.
        at: Box<At>,
        /// What that one failed with.
        #[source]
        cause: Arc<Self>,
    },
    /// An attempt may have been carried out, and of an append have reached the log, and then this happened.
    #[error("{at}: {}", Open(.at))]
    Unsettled {
        /// Where.
        at: Box<At>,
        /// What happened then.
        #[source]
        cause: Arc<Self>,
    },
    /// The call did not succeed within its time.
    #[error("{at}: not done after {after:?}{}", Last(.last))]
    DeadlineExceeded {
        /// The time it had.
        after: Duration,
        /// Where it stood.
        at: Box<At>,
        /// What the last attempt had failed with.
        #[source]
        last: Option<Box<Self>>,
    },
    /// The tasks of the client are gone: the runtime that they lived on has shut down.
    #[error("{at}: the runtime that the client lives on has shut down")]
    Closed {
        /// Where.
        at: Box<At>,
    },
}

/// What became of an append that failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Outcome {
    /// It is not on the log and never will be.
    #[default]
    NotAppended,
    /// It may be on the log, now or a little later, once at the most.
    Unknown,
}

/// Where an error happened.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct At {
    /// The API that was called, if it came to that.
    pub api: Option<ApiKey>,
    /// The topic, if the call was about one.
    pub topic: Option<String>,
    /// The partition, if the call was about one.
    pub partition: Option<i32>,
    /// The broker: its id and address, as far as known.
    pub broker: Option<String>,
    /// What became of the append, if the call was one.
    pub outcome: Outcome,
}

impl Error {
    /// What became of the append, or of whatever else was to be changed: topics, settings, records to be deleted. Calls that change nothing are always
    /// [`Outcome::NotAppended`].
    pub fn outcome(&self) -> Outcome {
        self.at().map_or(Outcome::NotAppended, |at| at.outcome)
    }

    /// Whether the same call may succeed later without anything being changed. The client has tried for as long as the
    /// deadline allowed; whether an append may be called again is the question of its [`outcome`](Self::outcome).
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::DeadlineExceeded { .. } => true,
            Self::Behind { cause, .. } | Self::Unsettled { cause, .. } => cause.is_retriable(),
            // Waited for already.
            Self::UnknownPartition { .. } => false,
            error => error.recovery() != Recovery::Fail,
        }
    }

    /// The broker's code, if a broker answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            Self::DeadlineExceeded { last: Some(last), .. } => last.code(),
            Self::Behind { cause, .. } | Self::Unsettled { cause, .. } => cause.code(),
            _ => None,
        }
    }

    /// Where it happened, if it came as far as having a place.
    pub fn at(&self) -> Option<&At> {
        match self {
            Self::BatchTooLarge { at, .. }
            | Self::OffsetOutOfRange { at, .. }
            | Self::NotDeletable { at }
            | Self::OffsetNotFound { at, .. }
            | Self::Broker { at, .. }
            | Self::Fenced { at }
            | Self::Lost { at, .. }
            | Self::Unsupported { at, .. }
            | Self::Credentials { at, .. }
            | Self::Unencrypted { at, .. }
            | Self::Connect { at, .. }
            | Self::Connection { at, .. }
            | Self::Decode { at, .. }
            | Self::Corrupt { at, .. }
            | Self::NoAnswer { at }
            | Self::Behind { at, .. }
            | Self::Unsettled { at, .. }
            | Self::DeadlineExceeded { at, .. }
            | Self::Closed { at } => Some(at),
            Self::InvalidInput(_)
            | Self::Encode(_)
            | Self::UnknownTopic { .. }
            | Self::UnknownPartition { .. }
            | Self::TopicRecreated { .. }
            | Self::NoBroker { .. }
            | Self::OtherCluster { .. } => None,
        }
    }

    /// Whether trying again would not mend it, but another broker may be better: this one belongs to another cluster, or
    /// what is wrong is its certificate, or it is no broker.
    pub(crate) fn is_of_this_broker(&self) -> bool {
        match self {
            Self::OtherCluster { .. } => true,
            Self::Connect { source, .. } => source.is_permanent(),
            Self::Connection {
                source: ConnectionError::NotKafka(_) | ConnectionError::Io { .. }, ..
            } => self.recovery() == Recovery::Fail,
            _ => false,
        }
    }

    /// The failure of a connection that was made for one call, as another call meets it.
    pub(crate) fn placed(mut self, place: Box<At>) -> Self {
        if let Self::Credentials { at, .. }
        | Self::Unencrypted { at, .. }
        | Self::Connect { at, .. }
        | Self::Connection { at, .. }
        | Self::Closed { at } = &mut self
        {
            *at = place;
        }
        self
    }

    /// What may help: the one place where it is decided.
    pub(crate) fn recovery(&self) -> Recovery {
        match self {
            Self::Broker { code, at, .. } => {
                match at.api.map_or(CodeRecovery::Fail, |api| code.meaning(api).recovery) {
                    CodeRecovery::Fail => Recovery::Fail,
                    CodeRecovery::Retry => Recovery::Retry,
                    CodeRecovery::Refresh => Recovery::Refresh,
                }
            }
            // Certificates, TLS or the proxy have to be seen to, or it is no broker that answers.
            Self::Connect { source, .. } if source.is_permanent() => Recovery::Fail,
            Self::Connection { source, .. } => after_connection(source),
            // Who gives it out may be back in a moment.
            Self::Credentials { .. } => Recovery::Retry,
            // The broker may be gone for good, and somebody else lead its partitions.
            Self::Connect { .. } => Recovery::Refresh,
            Self::NoBroker { .. } => Recovery::Retry,
            // Partitions that were just added are not known everywhere at once.
            Self::UnknownPartition { .. } => Recovery::Refresh,
            _ => Recovery::Fail,
        }
    }

    /// Whether this attempt may have been carried out, now or later.
    pub(crate) fn effect(&self) -> Effect {
        match self {
            Self::Broker { code, at, .. } => at.api.map_or(Effect::None, |api| code.meaning(api).effect),
            error => match error.outcome() {
                Outcome::NotAppended => Effect::None,
                Outcome::Unknown => Effect::Unknown,
            },
        }
    }

    /// The same error, of an append that may have reached the log.
    pub(crate) fn unsettled(mut self, place: impl FnOnce() -> Box<At>) -> Self {
        match &mut self {
            Self::Broker { at, .. }
            | Self::Connection { at, .. }
            | Self::Decode { at, .. }
            | Self::NoAnswer { at }
            | Self::Fenced { at }
            | Self::Lost { at, .. }
            | Self::DeadlineExceeded { at, .. }
            | Self::Closed { at } => {
                at.outcome = Outcome::Unknown;
                self
            }
            _ => {
                let mut at = place();
                at.outcome = Outcome::Unknown;
                Self::Unsettled { at, cause: Arc::new(self) }
            }
        }
    }
}

/// What may help after a connection has ended.
fn after_connection(error: &ConnectionError) -> Recovery {
    let recovery = match error {
        // It would be as large again.
        ConnectionError::FrameTooLarge { .. } => return Recovery::Fail,
        // It is no broker that answers, or TLS has to be seen to.
        ConnectionError::NotKafka(_) => return Recovery::Fail,
        ConnectionError::Io { source, .. }
            if TransportError::within(source).is_some_and(TransportError::is_permanent) =>
        {
            return Recovery::Fail;
        }
        // Trying again would only lock the account.
        ConnectionError::MechanismRefused { .. }
        | ConnectionError::Sasl { .. }
        | ConnectionError::EndlessExchange { .. }
        | ConnectionError::NoAuthentication { .. } => return Recovery::Fail,
        ConnectionError::AuthenticationFailed { code, .. } => {
            code.meaning(ApiKey::SASL_AUTHENTICATE).recovery
        }
        ConnectionError::Refused { api: api @ ApiKey::SASL_HANDSHAKE, code, .. } => {
            code.meaning(*api).recovery
        }
        // The broker may be gone for good, and somebody else lead its partitions.
        _ => CodeRecovery::Refresh,
    };
    match recovery {
        CodeRecovery::Fail => Recovery::Fail,
        CodeRecovery::Retry => Recovery::Retry,
        CodeRecovery::Refresh => Recovery::Refresh,
    }
}

/// What to do after an attempt has failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Recovery {
    /// Tell the caller.
    Fail,
    /// The same again after a pause.
    Retry,
    /// The same after a pause, and after asking for the leader anew.
    Refresh,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.api {
            Some(api) => write!(f, "{api}")?,
            None => f.write_str("connecting")?,
        }
        match (&self.topic, self.partition) {
            (Some(topic), Some(partition)) => write!(f, " of {topic}/{partition}")?,
            (Some(topic), None) => write!(f, " of {topic}")?,
            _ => {}
        }
        match (&self.broker, self.api) {
            (Some(broker), Some(_)) => write!(f, " at {broker}"),
            (Some(broker), None) => write!(f, " to {broker}"),
            (None, _) => Ok(()),
        }
    }
}

struct Open<'a>(&'a At);

impl fmt::Display for Open<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.api {
            None | Some(ApiKey::PRODUCE) => {
                "an attempt may have been appended, which could not be found out; read the end of the log before it is \
                 appended again"
            }
            Some(_) => "an attempt may have been carried out, which could not be found out",
        })
    }
}

struct Records(usize);

impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} record{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

struct Limit<'a>(&'a Option<usize>);

impl fmt::Display for Limit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(limit) => {
                write!(f, "the client's limit of {limit} bytes; split it, or raise `Limits::batch`")
            }
            None => f.write_str("the topic allows; split it, or raise the topic's `max.message.bytes`"),
        }
    }
}

struct Range<'a>(&'a Option<std::ops::Range<i64>>);

impl fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(log) if log.is_empty() => write!(f, "no records and ends at {}", log.end),
            Some(log) => write!(f, "offsets {} to {}", log.start, log.end - 1),
            None => f.write_str("other offsets"),
        }
    }
}

struct Message<'a>(&'a Option<String>);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(message) => write!(f, " (the broker says: {message})"),
            None => Ok(()),
        }
    }
}

struct Theirs<'a>(&'a Versions, &'a Option<Versions>, &'a At);

impl fmt::Display for Theirs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(ours, theirs, At { api, .. }) = self;
        let missing = match (theirs, *api) {
            (Some(theirs), _) => {
                return write!(f, "the broker speaks versions {theirs}, and this client {ours}");
            }
            (None, Some(ApiKey::INIT_PRODUCER_ID)) => {
                "to append without producer ids, open the partition with `.idempotent(false)`"
            }
            (None, _) => "is it a controller's port, or an older Kafka?",
        };
        write!(f, "the broker does not offer it; {missing}")
    }
}

struct Time<'a>(&'a i64);

impl fmt::Display for Time<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            -3 => f.write_str("a timestamp"),
            time => write!(f, "a timestamp of {time} ms or later"),
        }
    }
}

struct Last<'a>(&'a Option<Box<Error>>);

impl fmt::Display for Last<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(_) => f.write_str("; the last attempt failed"),
            None => Ok(()),
        }
    }
}

struct Attempts<'a>(&'a [(String, Error)]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none is known");
        }
        for (i, (broker, error)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "; " };
            let reason = Reason(error).to_string();
            match reason.contains(broker) {
                true => write!(f, "{comma}{reason}")?,
                false => write!(f, "{comma}{broker}: {reason}")?,
            }
        }
        Ok(())
    }
}

/// The innermost cause: of a list of attempts each is told in one line, and none of them is *the* source.
struct Reason<'a>(&'a Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause: &dyn std::error::Error = self.0;
        if let Error::Connect { source, .. } = self.0 {
            cause = source;
        } else if let Error::Connection { source, .. } = self.0 {
            cause = source;
        }
        write!(f, "{cause}")?;
        while let Some(source) = cause.source() {
            write!(f, ": {source}")?;
            cause = source;
        }
        Ok(())
    }
}
