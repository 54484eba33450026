//! The text of each error: what happened, where, and what the caller can do.

use std::{
    fmt::{self, Display},
    ops::Range,
};

use kwal_protocol::{
    api::{ApiKey, Versions},
    error_code::ErrorCode,
    text::Printable,
};

use super::{Context, Error, ErrorKind, Outcome, RecordError, Source};

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Below { error: self, context: None }.fmt(f)?;
        match (self.outcome(), self.in_doubt(), self.context().api) {
            (Outcome::NotApplied, ..) => Ok(()),
            (Outcome::Unknown, Some(in_doubt), _)
                if in_doubt.transactional_id.is_some() && matches!(self.kind(), ErrorKind::Fenced) =>
            {
                write!(
                    f,
                    "; outcome unknown: the batch may be on the log, and the next holder can resolve it; in doubt: {}",
                    in_doubt.batch()
                )
            }
            (Outcome::Unknown, Some(in_doubt), _)
                if matches!(self.kind(), ErrorKind::Trimmed { .. } | ErrorKind::BeyondEnd { .. }) =>
            {
                write!(
                    f,
                    "; outcome unknown: the log no longer has all that the batch may be among, so it cannot tell any more \
                     whether that was appended; in doubt: {}",
                    in_doubt.batch()
                )
            }
            (Outcome::Unknown, Some(in_doubt), _) => write!(
                f,
                "; outcome unknown: the batch may be on the log or may still reach it, so resolve it before appending it \
                 again; in doubt: {}",
                in_doubt.batch()
            ),
            (Outcome::Unknown, None, Some(ApiKey::PRODUCE)) => f.write_str(
                "; outcome unknown: the batch may be on the log or may still reach it, so appending it again may duplicate it",
            ),
            (Outcome::Unknown, None, _) => f.write_str("; outcome unknown: the call may have taken effect"),
        }
    }
}

/// An error without its outcome, and without its context where it is the one above it.
struct Below<'a> {
    error: &'a Error,
    context: Option<&'a Context>,
}

impl Display for Below<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { error, context } = self;
        if error.names_its_context() && Some(error.context()) != *context {
            write!(f, "{}: ", error.context())?;
        }
        error.kind_text(f)?;
        match error.below() {
            Some(source) if error.kind_says_nothing() => error.cause_text(source, f),
            Some(source) => {
                f.write_str(": ")?;
                error.cause_text(source, f)
            }
            None => Ok(()),
        }
    }
}

impl Error {
    /// Writes what happened, without where and why.
    fn kind_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = self.context();
        let topic = context.topic.as_deref().unwrap_or_default();
        match self.kind() {
            ErrorKind::InvalidInput { reason } => f.write_str(reason),
            ErrorKind::Encode => f.write_str("the records cannot be encoded as a batch"),
            ErrorKind::BatchTooLarge { size, limit: Some(limit), is_input: true, .. } => write!(
                f,
                "an input of {size} bytes exceeds the batch producer's limit of {limit} bytes; split it or raise \
                 `max_input_bytes`"
            ),
            ErrorKind::BatchTooLarge { size, records, limit, .. } => {
                let plural = if *records == 1 { "" } else { "s" };
                write!(f, "a batch of {size} bytes ({records} record{plural}) exceeds ")?;
                match limit {
                    Some(limit) => {
                        write!(f, "the client's limit of {limit} bytes; split it or raise `Limits::batch`")
                    }
                    None => f.write_str(
                        "the topic's limit; split it or raise `max.message.bytes` of the topic",
                    ),
                }
            }
            ErrorKind::UnknownTopic { waited } => {
                write!(f, "topic {topic} does not exist")?;
                if !waited.is_zero() {
                    write!(f, " (no broker knew it for {waited:.1?})")?;
                }
                f.write_str("; create it first, a lookup does not create topics")
            }
            ErrorKind::UnknownPartition { partitions, waited } => {
                let partition = context.partition.unwrap_or_default();
                match partitions {
                    0 => write!(f, "metadata names no partition of topic {topic}")?,
                    1 if partition > 0 => {
                        write!(f, "topic {topic} has no partition {partition}, only partition 0")?
                    }
                    _ if usize::try_from(partition).is_ok_and(|partition| partition >= *partitions) => {
                        let last = partitions - 1;
                        write!(f, "topic {topic} has no partition {partition}, only 0 to {last}")?
                    }
                    _ => write!(
                        f,
                        "metadata names {partitions} partitions of topic {topic}, but not partition {partition}"
                    )?,
                }
                match waited.is_zero() {
                    true => Ok(()),
                    false => write!(f, " (no broker knew it for {waited:.1?})"),
                }
            }
            ErrorKind::TopicRecreated { was, is } => write!(
                f,
                "topic {topic} was deleted and created again: its id was {was} and is {is} now; positions of the former one \
                 have no meaning in it, and a partition client of it has to be opened again"
            ),
            ErrorKind::Trimmed { offset, log_start } => write!(
                f,
                "offset {offset} is not in the log any more, which begins at {log_start}: what was there has been deleted; begin at the log start if it is not missed"
            ),
            ErrorKind::BeyondEnd { offset, end } => {
                write!(
                    f,
                    "offset {offset} is not in the log, which ends at {end}: it was never there, or an unclean election lost it"
                )
            }
            ErrorKind::LogTruncated { position, diverged_at } => write!(
                f,
                "the log differs from what was read before position {position}, at {diverged_at} or earlier: an unclean election \
                 lost records; go back to a state from before that, and read on from its position"
            ),
            ErrorKind::EpochUnknown { position, leader_epoch } => write!(
                f,
                "no broker knows the leader epoch of position {position}: the leader's own is {leader_epoch}; metadata was restored \
                 from a backup, or the position is of another cluster; compare with the local state, then read on from a bare offset"
            ),
            ErrorKind::OffsetOutOfRange { offset, log } => {
                write!(f, "offset {offset} is not in the log, which has {}", Log(log))
            }
            ErrorKind::NotDeletable => f.write_str(
                "records cannot be deleted because the topic's `cleanup.policy` is `compact`; add `delete` to it",
            ),
            ErrorKind::OffsetNotFound { timestamp_ms: -3 } => f.write_str("no record has a timestamp"),
            ErrorKind::OffsetNotFound { timestamp_ms } => {
                write!(f, "no record has a timestamp of {timestamp_ms} ms or later")
            }
            ErrorKind::Broker { code, message: None } => code.fmt(f),
            ErrorKind::Broker { code, message: Some(message) } => {
                write!(f, "{code} (message of the broker: {})", Printable(message))
            }
            ErrorKind::Fenced => match &context.transactional_id {
                // Why it may have one follows, if none was seen.
                Some(id) => write!(
                    f,
                    "fenced: the log of {} has another holder, or may have one; step down, since opening it again would take \
                     it from that one",
                    Printable(id)
                ),
                None => f.write_str(
                    "fenced: another producer has taken over this producer id; this partition client cannot append any more",
                ),
            },
            ErrorKind::EpochTaken { producer_id, epoch, offset } => {
                write!(f, "another writer has appended under producer id {producer_id}, epoch {epoch}")?;
                if let Some(offset) = offset {
                    write!(f, " (at offset {offset})")?;
                }
                f.write_str(
                    ", which the coordinator gave to this one; the log was not taken over; stop the writer that does not take \
                     its epochs from the coordinator, then open the partition again",
                )
            }
            ErrorKind::NoTransactionLog { brokers } => {
                let brokers = match brokers {
                    1 => "the only broker".to_owned(),
                    _ => format!("the {brokers} brokers"),
                };
                write!(
                    f,
                    "there is no coordinator: `__transaction_state` does not exist, and {brokers} cannot create it with as many \
                     replicas as `transaction.state.log.replication.factor` says (3 by default); lower that, or add brokers"
                )
            }
            ErrorKind::DataLoss { producer_id, epoch, sequence, offsets } => {
                f.write_str("the leader no longer has records that were acknowledged")?;
                match offsets {
                    Some(offsets) if offsets.end - offsets.start == 1 => {
                        write!(f, ": offset {}", offsets.start)?;
                    }
                    Some(offsets) => write!(f, ": offsets {} to {}", offsets.start, offsets.end - 1)?,
                    None => {}
                }
                if *producer_id >= 0 {
                    write!(
                        f,
                        "; the last acknowledged batch was producer id {producer_id}, epoch {epoch}, sequence {sequence}"
                    )?;
                }
                f.write_str(
                    "; this partition client cannot append any more; compare the log with the local state, then open a new one",
                )
            }
            ErrorKind::Unsupported { ours, theirs } => unsupported(f, *ours, *theirs, context.api),
            ErrorKind::CredentialsUnavailable => f.write_str("no credentials to authenticate with"),
            ErrorKind::EncryptionRequired { mechanism } => write!(
                f,
                "SASL {mechanism} would send its secret over an unencrypted connection; connect with TLS, or allow it with \
                 `Sasl::danger_send_unencrypted`"
            ),
            ErrorKind::Throttled { remaining } => write!(
                f,
                "not sent: the client exceeds a quota, and the broker throttles it for another {remaining:.1?}, longer than \
                 the call has"
            ),
            ErrorKind::ResponseIncomplete { arrived, len } => write!(
                f,
                "the response was still arriving, {arrived} of {len} bytes; ask for less at once, or allow more time"
            ),
            ErrorKind::RequestTooLarge { size } => write!(
                f,
                "the broker closed the connection twice right after this request of {size} bytes, without an answer: it is \
                 probably larger than the broker's `socket.request.max.bytes`; send smaller batches, or raise that setting"
            ),
            ErrorKind::Connect | ErrorKind::Connection => match self.below() {
                Some(_) => Ok(()),
                None => f.write_str("no connection to the broker"),
            },
            ErrorKind::NoBroker { attempts } if attempts.is_empty() => {
                f.write_str("there is no broker to ask")
            }
            ErrorKind::NoBroker { attempts } => write!(f, "no broker can be reached: {}", Attempts(attempts)),
            ErrorKind::NoBrokersListed => {
                f.write_str("the broker lists no brokers: it is starting, or cut off from the cluster")
            }
            ErrorKind::UnknownBroker if context.broker.is_some() => {
                f.write_str("metadata has no address of the broker")
            }
            ErrorKind::UnknownBroker => f.write_str("metadata names no controller"),
            ErrorKind::OtherCluster { was, is } => {
                let broker = context.broker.as_deref().unwrap_or("the broker");
                let is = Printable(is);
                let was = Printable(was);
                write!(
                    f,
                    "{broker} belongs to cluster {is}, but this client was built for cluster {was}, and no broker of that one \
                     can be reached; build a new client to use the other cluster"
                )
            }
            ErrorKind::MalformedResponse if self.below().is_some() => {
                f.write_str("the response is malformed")
            }
            ErrorKind::MalformedResponse => f.write_str("the response does not match the request"),
            ErrorKind::Corrupt { offsets: None } => f.write_str("the fetched records cannot be read"),
            ErrorKind::Corrupt { offsets: Some(offsets) } if offsets.end - offsets.start == 1 => {
                write!(f, "the fetched record at offset {} cannot be read", offsets.start)
            }
            ErrorKind::Corrupt { offsets: Some(offsets) } => {
                let (first, last) = (offsets.start, offsets.end - 1);
                write!(f, "the fetched records at offsets {first} to {last} cannot be read")
            }
            ErrorKind::PrecedingAppendFailed => {
                f.write_str(
                    "failed with an earlier append, so that the log has no hole (appends go on when the results of all that failed are read or dropped)",
                )
            }
            ErrorKind::DeadlineExceeded { after, progress } => {
                write!(f, "not completed within {after:?}: {progress}")?;
                match self.below() {
                    Some(_) => f.write_str("; the last attempt failed"),
                    None => Ok(()),
                }
            }
            ErrorKind::Closed => {
                f.write_str("the client or the partition client was closed, or the runtime of the client has shut down")
            }
        }?;
        if let ErrorKind::Broker { code, .. } = self.kind() {
            Rejected(self.record_errors()).fmt(f)?;
            if let Some(takes) = context.api.and_then(|api| takes(*code, api)) {
                write!(f, "; {takes}")?;
                if let (ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, Some(id)) =
                    (*code, &context.transactional_id)
                {
                    write!(f, " {}", Printable(id))?;
                }
            }
        }
        Ok(())
    }

    /// Returns its causes in one line, without where it happened, for an error that is one of several.
    pub(crate) fn reason(&self) -> impl Display {
        Below { error: self, context: Some(self.context()) }
    }

    /// Writes the error below, and all that it comes from.
    fn cause_text(&self, source: &Source, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Source::Call(error) = source {
            return Below { error, context: Some(self.context()) }.fmt(f);
        }
        let mut cause = self.cause();
        let mut separator = "";
        while let Some(error) = cause {
            write!(f, "{separator}{error}")?;
            (cause, separator) = (error.source(), ": ");
        }
        Ok(())
    }

    /// Whether the cause says everything.
    fn kind_says_nothing(&self) -> bool {
        matches!(self.kind(), ErrorKind::Connect | ErrorKind::Connection)
    }

    /// Whether the text begins with the context: not where the sentence names the topic itself, or no call
    /// was made.
    fn names_its_context(&self) -> bool {
        if let ErrorKind::InvalidInput { .. } = self.kind() {
            return self.context().topic.is_some();
        }
        !matches!(
            self.kind(),
            ErrorKind::Encode
                | ErrorKind::UnknownTopic { .. }
                | ErrorKind::UnknownPartition { .. }
                | ErrorKind::TopicRecreated { .. }
                | ErrorKind::NoBroker { .. }
                | ErrorKind::OtherCluster { .. }
        )
    }
}

fn unsupported(
    f: &mut fmt::Formatter<'_>,
    ours: Versions,
    theirs: Option<Versions>,
    api: Option<ApiKey>,
) -> fmt::Result {
    // Those before do not have the id and the epoch of a holder.
    let is_exclusive = api == Some(ApiKey::INIT_PRODUCER_ID) && ours.oldest >= 3;
    let hint = match (theirs, api) {
        (Some(theirs), _) => {
            write!(f, "the broker supports versions {theirs}, this client {ours}")?;
            return match is_exclusive {
                true => f.write_str("; `exclusive` takes Kafka 2.5 or later"),
                false => Ok(()),
            };
        }
        (None, _) if is_exclusive => "`exclusive` takes Kafka 2.5 or later, and 3.0 if it has no ZooKeeper",
        (None, Some(ApiKey::INIT_PRODUCER_ID)) => {
            "to append without producer ids, open the partition with `.idempotent(false)`"
        }
        (None, _) => "is this the port of a controller, or an older Kafka?",
    };
    write!(f, "the broker does not support this API; {hint}")
}

/// What a call that was rejected takes: the right that was denied, in the words of Kafka's ACLs (operation
/// and resource), or a setting of the brokers.
///
/// The facade has a table of all calls.
fn takes(code: ErrorCode, api: ApiKey) -> Option<&'static str> {
    Some(match (code, api) {
        (ErrorCode::TOPIC_AUTHORIZATION_FAILED, api) => match api {
            ApiKey::PRODUCE => "it takes the right `Write` on the topic",
            ApiKey::FETCH | ApiKey::DESCRIBE_PRODUCERS => "it takes the right `Read` on the topic",
            ApiKey::METADATA | ApiKey::LIST_OFFSETS | ApiKey::OFFSET_FOR_LEADER_EPOCH => {
                "it takes the right `Describe` on the topic, which `Read` and `Write` include"
            }
            ApiKey::CREATE_TOPICS => "it takes the right `Create` on the topic or on the cluster",
            ApiKey::DELETE_TOPICS => "it takes the right `Delete` on the topic",
            ApiKey::DELETE_RECORDS => {
                "it takes the right `Delete` on the topic, which `Write` does not include"
            }
            ApiKey::CREATE_PARTITIONS => "it takes the right `Alter` on the topic",
            ApiKey::DESCRIBE_CONFIGS => "it takes the right `DescribeConfigs` on the topic",
            ApiKey::INCREMENTAL_ALTER_CONFIGS => "it takes the right `AlterConfigs` on the topic",
            _ => return None,
        },
        (ErrorCode::COORDINATOR_NOT_AVAILABLE, ApiKey::FIND_COORDINATOR) => {
            "if it stays so, the brokers may not be able to create `__transaction_state`: is \
             `transaction.state.log.replication.factor` larger than their number?"
        }
        // The transactional id follows.
        (ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, api) => match api {
            ApiKey::FIND_COORDINATOR => {
                "it takes the right `Describe`, which `Write` includes, on the transactional id"
            }
            ApiKey::INIT_PRODUCER_ID => "it takes the right `Write` on the transactional id",
            _ => return None,
        },
        (ErrorCode::CLUSTER_AUTHORIZATION_FAILED, api) => match api {
            ApiKey::INIT_PRODUCER_ID | ApiKey::PRODUCE => {
                "a producer id takes the right `IdempotentWrite` on the cluster or, since Kafka 2.8, `Write` on any topic; to \
                 append without one, open the partition with `.idempotent(false)`"
            }
            ApiKey::CREATE_TOPICS => "it takes the right `Create` on the topic or on the cluster",
            ApiKey::DESCRIBE_CONFIGS => "it takes the right `DescribeConfigs` on the cluster",
            _ => return None,
        },
        _ => return None,
    })
}

/// The first of the records that a broker rejected.
struct Rejected<'a>(&'a [RecordError]);

impl Display for Rejected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        for RecordError { index, message } in self.0.iter().take(SHOWN) {
            match message {
                Some(message) => write!(f, "; record {index}: {}", Printable(message))?,
                None => write!(f, "; record {index}")?,
            }
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// The offsets of a log, as far as known.
struct Log<'a>(&'a Option<Range<i64>>);

impl Display for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(log) if log.is_empty() => write!(f, "no records and ends at {}", log.end),
            Some(log) => write!(f, "offsets {} to {}", log.start, log.end - 1),
            None => f.write_str("other offsets"),
        }
    }
}

/// Returns the address in the name of a broker.
fn address(broker: &str) -> &str {
    broker.split_once(" (").map_or(broker, |(_, address)| address.trim_end_matches(')'))
}

/// The brokers that were tried, each with its reason. All of them are in the fields.
struct Attempts<'a>(&'a [(String, Error)]);

impl Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let mut shown: Vec<(&str, String)> = Vec::new();
        let mut more = 0;
        for (broker, error) in self.0 {
            let reason = error.reason().to_string();
            // A bootstrap address that is also the address of a broker fails for the same reason.
            if shown.iter().any(|(other, same)| *same == reason && address(other) == address(broker)) {
                continue;
            }
            if shown.len() == SHOWN {
                more += 1;
                continue;
            }
            let separator = if shown.is_empty() { "" } else { "; " };
            match reason.contains(broker) {
                true => write!(f, "{separator}{reason}")?,
                false => write!(f, "{separator}{broker}: {reason}")?,
            }
            shown.push((broker, reason));
        }
        match more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
