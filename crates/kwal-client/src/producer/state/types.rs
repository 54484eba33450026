//! What goes into the state machine and what comes out of it.

use std::time::{Duration, Instant};

use crate::producer_id::{Acknowledged, EpochOwner, Identity, Stamp};

/// Settings of a producer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// How many batches may be in flight.
    pub(crate) window: usize,
    pub(crate) idempotent: bool,
    /// Whether a failed batch fails those submitted after it.
    pub(crate) stop_on_failure: bool,
    /// For how long after an acknowledgement the partition certainly knows the producer id.
    pub(crate) expiration: Duration,
    pub(crate) epochs: EpochOwner,
}

/// One attempt to send a batch.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Token(pub(crate) u64);

/// A batch to send.
#[derive(Debug)]
pub(crate) struct Transmit<'a, P> {
    pub(crate) token: Token,
    /// `None` if the producer is not idempotent.
    pub(crate) stamp: Option<Stamp>,
    pub(crate) payload: &'a P,
    /// Counts from 1.
    pub(crate) attempt: u32,
    /// Whether an earlier attempt may have appended it.
    pub(crate) in_doubt: bool,
    pub(crate) deadline: Instant,
}

/// What has to be done before batches can be sent, or to keep the name of an exclusive producer.
///
/// One runs at a time, and only while nothing is in flight. Its result goes to the method named here, or to
/// `handle_retry` or `handle_failed`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    /// Get a producer id: `handle_identity`, or `handle_fenced`.
    AcquireIdentity {
        /// The own identity if its coordinator owns the epochs: the request carries it, and the answer is a
        /// later epoch of the same id. A request without it would take the name away from another holder.
        held: Option<Identity>,
    },
    /// Find the leader and connect to it: `handle_connected`.
    Connect,
    /// Look up a batch at the leader: `handle_found`.
    LookUp {
        last: Acknowledged,
        /// Whether the leader rejected the batch after it as out of order.
        rejected: bool,
    },
}

/// What the look-up of an acknowledged batch has found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// The batch, or a log that starts after it.
    Present,
    /// Something else or nothing at its offset.
    Lost {
        /// The first lost offset, if it is known.
        from: Option<i64>,
    },
}

/// The response to a batch that was not appended as expected, or the lack of one.
#[derive(Clone, Debug)]
pub(crate) struct Refusal<E> {
    pub(crate) error: E,
    pub(crate) kind: RefusalKind,
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RefusalKind {
    /// Another attempt may succeed.
    Retry {
        may_have_applied: bool,
        /// Whether the connection has ended or leads to a broker that is not the leader.
        reconnect: bool,
    },
    /// The broker denies that it leads the partition, which it knows by the name of the topic: what it
    /// acknowledges next may be on the log of another topic of that name. The connection leads to the wrong
    /// broker, or the topic was deleted.
    Denied { may_have_applied: bool },
    /// The sequence number does not follow the last one (`OUT_OF_ORDER_SEQUENCE_NUMBER`).
    OutOfOrder,
    /// The partition does not know the producer, and did not append (`UNKNOWN_PRODUCER_ID`).
    UnknownProducer,
    /// Another producer has taken over (`INVALID_PRODUCER_EPOCH`).
    Fenced,
    /// No attempt can succeed.
    Final { may_have_applied: bool },
}

/// How an append ended.
#[derive(Clone, Debug)]
pub(crate) enum Completed<E> {
    /// It is on the log; the offset is not always known.
    Appended { base_offset: Option<i64>, attempts: u32 },
    /// It failed by itself.
    Failed { error: Failure<E>, in_doubt: Option<Doubt>, attempts: u32 },
    /// One submitted before it failed.
    Preceding { cause: Failure<E>, in_doubt: Option<Doubt> },
}

/// What is needed to find out whether a batch is on the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Doubt {
    /// `None` if the producer is not idempotent: then nothing identifies it.
    pub(crate) stamp: Option<Stamp>,
    pub(crate) records: usize,
    /// The last offset that was acknowledged before: the batch can only follow it.
    pub(crate) after: Option<i64>,
}

/// Why an append failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure<E> {
    /// The error of an attempt or of an action, or the one given to `abort`.
    Error(E),
    /// The deadline has ended, or ends before the next attempt could begin.
    Deadline {
        /// The time that the append had.
        after: Duration,
        stage: Stage,
        /// The last error.
        last: Option<E>,
    },
    /// An acknowledged batch is no longer on the log. This ends the producer.
    DataLoss {
        /// The batch that was acknowledged last.
        last: Acknowledged,
        /// The first lost offset, if it is known.
        from: Option<i64>,
    },
}

/// What a batch was waiting for when its deadline ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// The batches before it.
    Behind,
    /// What has to be done before it can be sent.
    Next,
    /// The response.
    InFlight,
}

/// When an append has to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// The time that the append has in all.
    pub(crate) after: Duration,
}

/// What a producer knows about a batch that has left in doubt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    /// The batch or a later one of its id was acknowledged: it is on the log already or never will be.
    Settled,
    /// The next append goes out on a later epoch of the id, and settles it.
    Owned,
    /// The producer cannot settle it.
    Foreign,
}
