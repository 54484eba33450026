//! The text of each error: what happened, where, and what the caller can do.

use std::{fmt, ops::Range};

use kwal_protocol::api::{ApiKey, Versions};

use super::{Error, ErrorKind, Outcome};

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = self.context();
        if self.names_its_context() {
            write!(f, "{context}: ")?;
        }
        let topic = context.topic.as_deref().unwrap_or_default();
        match self.kind() {
            ErrorKind::InvalidInput { reason } => f.write_str(reason),
            ErrorKind::Encode => f.write_str("the records cannot be encoded as a batch"),
            ErrorKind::BatchTooLarge { size, records, limit } => {
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
            ErrorKind::UnknownTopic { waited } => write!(
                f,
                "topic {topic} does not exist (no broker knew it for {waited:.1?}); create it first, a lookup does not \
                 create topics"
            ),
            ErrorKind::UnknownPartition { partitions } => {
                let partition = context.partition.unwrap_or_default();
                let last = partitions.saturating_sub(1);
                write!(f, "topic {topic} has no partition {partition}; it has {partitions}: 0 to {last}")
            }
            ErrorKind::TopicRecreated { was, is } => write!(
                f,
                "topic {topic} was deleted and created again: its id was {was} and is {is} now; open a new partition client to \
                 use the new topic"
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
                write!(f, "{code} (message of the broker: {message})")
            }
            ErrorKind::Fenced => f.write_str(
                "fenced: another producer has taken over this producer id; this partition client cannot append any more",
            ),
            ErrorKind::DataLoss { producer_id, epoch, sequence } => write!(
                f,
                "the leader lost a batch that it had acknowledged: it lacks the one before sequence {sequence} of producer \
                 {producer_id}, epoch {epoch}; this partition client cannot append any more; compare the log with the local state"
            ),
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
            ErrorKind::Connect => f.write_str("no connection to the broker"),
            ErrorKind::Connection => f.write_str("the connection failed"),
            ErrorKind::NoBroker { attempts } => write!(f, "no broker can be reached: {}", Attempts(attempts)),
            ErrorKind::OtherCluster { was, is } => {
                let broker = context.broker.as_deref().unwrap_or("the broker");
                write!(
                    f,
                    "{broker} belongs to cluster {is}, but this client was built for cluster {was}, and no broker of that one \
                     can be reached; build a new client to use the other cluster"
                )
            }
            ErrorKind::MalformedResponse if self.cause().is_some() => {
                f.write_str("the response is malformed")
            }
            ErrorKind::MalformedResponse => f.write_str("the response lacks what was requested"),
            ErrorKind::Corrupt => f.write_str("the fetched records cannot be read"),
            ErrorKind::PrecedingAppendFailed => f.write_str("not sent because an earlier append failed"),
            ErrorKind::DeadlineExceeded { after } => {
                write!(f, "not completed within {after:?}")?;
                match self.cause() {
                    Some(_) => f.write_str("; the last attempt failed"),
                    None => Ok(()),
                }
            }
            ErrorKind::Closed => f.write_str("the runtime of the client has shut down"),
        }?;
        match (self.outcome(), context.api) {
            (Outcome::NotApplied, _) => Ok(()),
            (Outcome::Unknown, Some(ApiKey::PRODUCE)) => f.write_str(
                "; outcome unknown: the batch may be on the log or may still reach it, so appending it again may duplicate it",
            ),
            (Outcome::Unknown, _) => f.write_str("; outcome unknown: the call may have taken effect"),
        }
    }
}

impl Error {
    /// Whether the text begins with the context: not where the sentence names the topic itself, or no call
    /// was made.
    fn names_its_context(&self) -> bool {
        !matches!(
            self.kind(),
            ErrorKind::InvalidInput { .. }
                | ErrorKind::Encode
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
    let hint = match (theirs, api) {
        (Some(theirs), _) => {
            return write!(f, "the broker supports versions {theirs}, this client {ours}");
        }
        (None, Some(ApiKey::INIT_PRODUCER_ID)) => {
            "to append without producer ids, open the partition with `.idempotent(false)`"
        }
        (None, _) => "is this the port of a controller, or an older Kafka?",
    };
    write!(f, "the broker does not support this API; {hint}")
}

/// The offsets of a log, as far as known.
struct Log<'a>(&'a Option<Range<i64>>);

impl fmt::Display for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(log) if log.is_empty() => write!(f, "no records and ends at {}", log.end),
            Some(log) => write!(f, "offsets {} to {}", log.start, log.end - 1),
            None => f.write_str("other offsets"),
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

impl Error {
    /// Returns its causes in one line, for an error that is one of several.
    pub(crate) fn reason(&self) -> impl fmt::Display {
        Reason(self)
    }
}

/// The causes of an error in one line: none of several attempts is *the* source.
struct Reason<'a>(&'a Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause: &dyn std::error::Error = self.0;
        // The first level adds nothing in a list of brokers that cannot be reached.
        if let (ErrorKind::Connect | ErrorKind::Connection, Some(source)) =
            (self.0.kind(), std::error::Error::source(self.0))
        {
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
