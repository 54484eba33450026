//! Errors: what happened, where, and whether the call took effect.
//!
//! Three questions have three answers: [`Error::kind`] is what happened, [`Error::outcome`] is whether the
//! call may have taken effect, and [`Error::is_retriable`] is whether the same call may succeed later.
//! [`Error::context`] names API, topic, partition and broker.
//!
//! `{}`, `{:#}` and `{:?}` print the whole of it in one line: where it happened, what, every cause below it,
//! and whether the call may have taken effect. `{:#?}` prints the fields. So
//! [`source`](std::error::Error::source) is `None`, and what prints chains of errors, as `anyhow` does,
//! prints no cause twice. [`Error::cause`] is the error below with its type.
//!
//! An append with [`Outcome::Unknown`] may or may not be on the log, now or a little later.
//! [`Error::in_doubt`] is what identifies its batch: plain data that can be kept.
//! [`PartitionClient::resolve`](crate::PartitionClient::resolve) finds out for good whether it is there, at
//! once, later, or in another process. A partition client that goes on without that puts its next batch after
//! the one in doubt, or in its place, never before it.
//!
//! Strings of brokers are escaped and cut in texts; the fields have them as they were sent.
//!
//! ```
//! use kwal_client::error::{Error, ErrorKind, Outcome};
//!
//! fn next_step(error: &Error) -> &'static str {
//!     match (error.kind(), error.outcome()) {
//!         (ErrorKind::Fenced | ErrorKind::DataLoss { .. }, _) => "stop writing, compare with the log",
//!         (_, Outcome::Unknown) if error.in_doubt().is_some() => "resolve it, then append it again or not",
//!         (_, Outcome::Unknown) => "nothing identifies it: compare the log with your own ids",
//!         (_, Outcome::NotApplied) if error.is_retriable() => "append again",
//!         (_, Outcome::NotApplied) => "fix what the error names",
//!     }
//! }
//! ```

mod class;
mod context;
mod display;
mod in_doubt;
mod kind;
mod progress;
mod recovery;
#[cfg(all(test, feature = "transport-tls", feature = "transport-socks5"))]
mod texts;

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use kwal_protocol::{
    connection::ConnectionError,
    error::DecodeError,
    error_code::{ErrorCode, Recovery},
    record::{BatchError, BuildError},
};
use kwal_transport::TransportError;

pub(crate) use self::{class::Class, context::CallContext};
pub use self::{context::Context, in_doubt::InDoubt, kind::ErrorKind, progress::Progress};

/// The error of every call of this crate.
///
/// Opaque, so that facts can be added without breaking callers. Cloning copies the facts and shares the
/// source.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    context: Context,
    outcome: Outcome,
    source: Option<Source>,
    record_errors: Vec<RecordError>,
    in_doubt: Option<Box<InDoubt>>,
}

/// A field of a response whose value cannot be true.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the field {field} cannot be {value}")]
#[non_exhaustive]
pub struct InvalidField {
    /// The name of the field, as in the schema of the message.
    pub field: &'static str,
    /// Its value.
    pub value: i64,
}

impl InvalidField {
    /// Returns the value of a field that is never negative.
    pub(crate) fn not_negative(field: &'static str, value: i64) -> Result<i64, Self> {
        match value {
            0.. => Ok(value),
            _ => Err(Self { field, value }),
        }
    }

    /// Returns the value of a field that is −1 where the broker does not know it.
    pub(crate) fn known(field: &'static str, value: i64) -> Result<Option<i64>, Self> {
        match value {
            -1 => Ok(None),
            _ => Self::not_negative(field, value).map(Some),
        }
    }
}

/// A record for which a broker rejected its batch (KIP-467).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RecordError {
    /// Its index among the records of the append.
    pub index: usize,
    /// The broker's message about it, if it sent one; at most [`MAX_MESSAGE`](Self::MAX_MESSAGE) bytes of it.
    pub message: Option<String>,
}

impl RecordError {
    /// The most records of a batch that are reported.
    pub const MAX: usize = 1_000;
    /// The most bytes of a message that are kept.
    pub const MAX_MESSAGE: usize = 1_000;
}

/// Whether a failed call took effect.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Outcome {
    /// It did not and never will: an append is not on the log.
    #[default]
    NotApplied,
    /// It may have taken effect, or may do so a little later: an append may be on the log, at most once.
    ///
    /// Reading the end of the log can show that a batch is there, but not that it never will be.
    /// [`PartitionClient::resolve`](crate::PartitionClient::resolve), given [`Error::in_doubt`], decides it
    /// for good: append the records again if it was not applied. Without that, the next append of the same
    /// partition client comes after the batch if that is on the log, and prevents it otherwise.
    ///
    /// An append without [producer id](crate::OpenPartition::idempotent) cannot be resolved. Give its records
    /// an id of their own, and skip duplicates when the log is replayed.
    Unknown,
}

/// The error below this one.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Build(BuildError),
    Transport(Arc<TransportError>),
    Connection(ConnectionError),
    Decode(DecodeError),
    Field(InvalidField),
    Batch(BatchError),
    Other(Arc<dyn std::error::Error + Send + Sync>),
    Call(Arc<Error>),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            context: Context::default(),
            outcome: Outcome::default(),
            source: None,
            record_errors: Vec::new(),
            in_doubt: None,
        }))
    }

    /// Returns the error of a call whose input is not valid.
    #[doc(hidden)]
    pub fn invalid_input(reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput { reason: reason.into() })
    }

    /// A batch that cannot be read, and its offsets, as far as they can be believed.
    pub(crate) fn corrupt(source: BatchError, offsets: Option<Range<i64>>) -> Self {
        Self::new(ErrorKind::Corrupt { offsets }).with_source(Source::Batch(source))
    }

    pub(crate) fn broker(code: ErrorCode) -> Self {
        Self::new(ErrorKind::Broker { code, message: None })
    }

    #[must_use]
    pub(crate) fn with_context(mut self, context: Context) -> Self {
        self.0.context = context;
        self
    }

    #[must_use]
    pub(crate) fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.0.outcome = outcome;
        self
    }

    #[must_use]
    pub(crate) fn with_source(mut self, source: Source) -> Self {
        self.0.source = Some(source);
        self
    }

    #[must_use]
    pub(crate) fn with_record_errors(mut self, record_errors: Vec<RecordError>) -> Self {
        self.0.record_errors = record_errors;
        self
    }

    /// Notes the batch that may be on the log.
    #[must_use]
    pub(crate) fn with_in_doubt(mut self, mut in_doubt: InDoubt) -> Self {
        // Where records were lost, the batch may have taken their place.
        if let Some(lost) = self.lost() {
            let before = lost.clone().and_then(|lost| lost.start.checked_sub(1));
            in_doubt.after = in_doubt.after.min(before).filter(|after| *after >= 0);
        }
        self.0.outcome = Outcome::Unknown;
        self.0.in_doubt = Some(Box::new(in_doubt));
        self
    }

    /// Returns the offsets of a loss, as far as they are known; `None` if this is no loss.
    fn lost(&self) -> Option<&Option<Range<i64>>> {
        match (&self.0.kind, &self.0.source) {
            (ErrorKind::DataLoss { offsets, .. }, _) => Some(offsets),
            (_, Some(Source::Call(cause))) => cause.lost(),
            _ => None,
        }
    }

    /// Returns what happened.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Returns where it happened, as far as the call got.
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    /// Returns whether the call may have taken effect: the append, the change of a topic, the deletion of
    /// records.
    ///
    /// Calls that change nothing are always [`Outcome::NotApplied`].
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// Returns what identifies the batch of this append, if it may be on the log: the outcome is
    /// [`Outcome::Unknown`], and batches have [producer ids](crate::OpenPartition::idempotent). It is for
    /// [`PartitionClient::resolve`](crate::PartitionClient::resolve).
    pub fn in_doubt(&self) -> Option<&InDoubt> {
        self.0.in_doubt.as_deref()
    }

    /// Returns whether the same call may succeed later without anything being changed.
    ///
    /// The client has retried for as long as the deadline allowed. Whether an append may be submitted again
    /// is the question of its [`outcome`](Self::outcome).
    pub fn is_retriable(&self) -> bool {
        match (&self.0.kind, &self.0.source) {
            (ErrorKind::DeadlineExceeded { .. } | ErrorKind::Throttled { .. }, _) => true,
            // It was not at fault, unless nothing can be appended any more.
            (ErrorKind::PrecedingAppendFailed, Some(Source::Call(cause))) => !matches!(
                cause.kind(),
                ErrorKind::Fenced
                    | ErrorKind::DataLoss { .. }
                    | ErrorKind::TopicRecreated { .. }
                    | ErrorKind::OtherCluster { .. }
                    | ErrorKind::Closed
            ),
            // The client has waited for it already.
            (ErrorKind::UnknownPartition { .. } | ErrorKind::EpochUnknown { .. }, _) => false,
            _ => self.recovery() != Recovery::Fail,
        }
    }

    /// Returns the broker's error code, if a broker responded with one: to this call, to the last attempt
    /// before the deadline, or to the earlier append that made this one fail.
    pub fn code(&self) -> Option<ErrorCode> {
        match (&self.0.kind, &self.0.source) {
            (ErrorKind::Broker { code, .. }, _) => Some(*code),
            (_, Some(Source::Call(cause))) => cause.code(),
            _ => None,
        }
    }

    /// Returns the records for which a broker rejected the batch of this append, in ascending order, at most
    /// [`RecordError::MAX`]; empty if it names none. Since Kafka 2.4.
    ///
    /// ```
    /// use kwal_client::{error::Error, record::Record};
    ///
    /// /// Removes the records that the broker does not take. None of the batch is on the log.
    /// fn remove_rejected(records: &mut Vec<Record>, error: &Error) {
    ///     for rejected in error.record_errors().iter().rev() {
    ///         eprintln!("{:?}: {:?}", records.remove(rejected.index), rejected.message);
    ///     }
    /// }
    /// ```
    pub fn record_errors(&self) -> &[RecordError] {
        &self.0.record_errors
    }

    /// Returns the error below this one, with its type: the [kind](Self::kind) says which one it is.
    ///
    /// Its text is part of the text of this error.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(match self.0.source.as_ref()? {
            Source::Build(source) => source,
            Source::Transport(source) => &**source,
            Source::Connection(source) => source,
            Source::Decode(source) => source,
            Source::Field(source) => source,
            Source::Batch(source) => source,
            Source::Other(source) => &**source,
            Source::Call(source) => &**source,
        })
    }

    /// Returns this error, of one batch, as that of an append of several batches that had a time limit. The
    /// batch `in_doubt` decides whether it took effect.
    #[doc(hidden)]
    #[must_use]
    pub fn of_several(mut self, limit: Duration, outcome: Outcome, in_doubt: Option<InDoubt>) -> Self {
        if let ErrorKind::DeadlineExceeded { after, .. } = &mut self.0.kind {
            *after = limit;
        }
        self.0.outcome = outcome;
        self.0.in_doubt = in_doubt.map(Box::new);
        self
    }

    /// Returns the error for a part of the records of an append: what is reported of single records is by
    /// their indices in that part, and so are the offsets that resolving the batch returns.
    #[doc(hidden)]
    #[must_use]
    pub fn of_part(mut self, part: Range<usize>) -> Self {
        let Inner { record_errors, in_doubt, .. } = &mut *self.0;
        record_errors.retain_mut(|rejected| {
            let is_within = part.contains(&rejected.index);
            rejected.index = rejected.index.saturating_sub(part.start);
            is_within
        });
        if let Some(in_doubt) = in_doubt {
            in_doubt.part = Some(part.start..part.end.min(in_doubt.record_count));
        }
        self
    }

    /// Returns the error for records of which some may be on the log and some not, so that no single batch
    /// decides.
    #[doc(hidden)]
    #[must_use]
    pub fn partly_applied(mut self) -> Self {
        (self.0.outcome, self.0.in_doubt) = (Outcome::Unknown, None);
        self
    }

    pub(crate) fn below(&self) -> Option<&Source> {
        self.0.source.as_ref()
    }

    pub(crate) fn kind_mut(&mut self) -> &mut ErrorKind {
        &mut self.0.kind
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<BuildError> for Error {
    fn from(source: BuildError) -> Self {
        Self::new(ErrorKind::Encode).with_source(Source::Build(source))
    }
}

impl From<Arc<TransportError>> for Error {
    fn from(source: Arc<TransportError>) -> Self {
        Self::new(ErrorKind::Connect).with_source(Source::Transport(source))
    }
}

impl From<ConnectionError> for Error {
    fn from(source: ConnectionError) -> Self {
        Self::new(ErrorKind::Connection).with_source(Source::Connection(source))
    }
}

impl From<DecodeError> for Error {
    fn from(source: DecodeError) -> Self {
        Self::new(ErrorKind::MalformedResponse).with_source(Source::Decode(source))
    }
}

impl From<InvalidField> for Error {
    fn from(source: InvalidField) -> Self {
        Self::new(ErrorKind::MalformedResponse).with_source(Source::Field(source))
    }
}

impl From<BatchError> for Error {
    fn from(source: BatchError) -> Self {
        Self::corrupt(source, None)
    }
}

/// `{:?}` prints the text, as `main` does with the error that it returns; `{:#?}` prints the fields.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        let Inner { kind, context, outcome, source, record_errors, in_doubt } = &*self.0;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("context", context)
            .field("outcome", outcome)
            .field("source", source)
            .field("record_errors", record_errors)
            .field("in_doubt", in_doubt)
            .finish()
    }
}

/// Has no [`source`](std::error::Error::source), because `Display` prints the causes: see [`Error::cause`].
impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_in_doubt_may_be_where_records_were_lost() {
        let after = |kind: ErrorKind, after| {
            let in_doubt = InDoubt {
                topic: "wal".to_owned(),
                topic_id: None,
                partition: 3,
                producer_id: 17,
                epoch: 2,
                sequence: 40,
                record_count: 1,
                after,
                transactional_id: None,
                part: None,
            };
            let loss = Error::new(kind);
            let preceding = Error::new(ErrorKind::PrecedingAppendFailed);
            let preceding = preceding.with_source(Source::Call(Arc::new(loss.clone())));
            let [loss, preceding] = [loss, preceding].map(|error| {
                let error = error.with_in_doubt(in_doubt.clone());
                assert_eq!(error.outcome(), Outcome::Unknown);
                error.in_doubt().unwrap().after
            });
            assert_eq!(loss, preceding);
            loss
        };
        let loss = |offsets| ErrorKind::DataLoss { producer_id: 17, epoch: 2, sequence: 39, offsets };
        for (kind, before, expected) in [
            (ErrorKind::Fenced, Some(19), Some(19)),
            (ErrorKind::Fenced, None, None),
            (loss(Some(17..20)), Some(19), Some(16)),
            (loss(Some(17..20)), Some(3), Some(3)),
            (loss(Some(17..20)), None, None),
            (loss(Some(1..20)), Some(19), Some(0)),
            (loss(Some(0..20)), Some(19), None),
            (loss(None), Some(19), None),
        ] {
            assert_eq!(after(kind.clone(), before), expected, "{kind:?} {before:?}");
        }
    }
}
