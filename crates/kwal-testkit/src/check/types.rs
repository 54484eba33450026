//! The writers, appends, readers and logs that the events of a history are about.

use std::{fmt, ops::Range, time::Duration};

use super::value::{Escaped, Value};

/// The id of a writer in a history.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WriterId(pub u64);

/// The id of an append in a history.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AppendId(pub u64);

/// The id of a reader in a history.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReaderId(pub u64);

/// The id of a call in a history.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CallId(pub u64);

macro_rules! display_id {
    ($($id:ident $letter:literal),*) => { $(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    )* };
}

display_id!(WriterId "w", AppendId "a", ReaderId "r", CallId "c");

/// A partition of a topic, written as in Kafka: `wal-0`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicPartition {
    /// The name of the topic.
    pub topic: String,
    /// The index of the partition.
    pub partition: i32,
}

impl From<(&str, i32)> for TopicPartition {
    fn from((topic, partition): (&str, i32)) -> Self {
        Self { topic: topic.to_owned(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", Escaped(self.topic.as_bytes()), self.partition)
    }
}

/// A producer id and an epoch, written as `1000/3`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Producer {
    /// The producer id.
    pub id: i64,
    /// The epoch.
    pub epoch: i16,
}

impl From<(i64, i16)> for Producer {
    fn from((id, epoch): (i64, i16)) -> Self {
        Self { id, epoch }
    }
}

impl fmt::Display for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.id, self.epoch)
    }
}

/// A partition client that appends, together with its clones.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Writer {
    /// The partition.
    pub partition: TopicPartition,
    /// The time limit of an append, from its submission; `None` without a limit.
    pub deadline: Option<Duration>,
    /// Its name, if it is exclusive.
    ///
    /// It is the only writer of that name once its [barrier](super::Event::Barrier) is on the log.
    pub exclusive: Option<Value>,
    /// Whether appends submitted after one that fails may succeed.
    pub on_failure_continue: bool,
    /// Whether its batches have no producer id and sequence number.
    ///
    /// A batch of unknown outcome may be appended later than those submitted after it, and the writer need
    /// not notice every loss.
    pub without_ids: bool,
    /// Whether the leader alone acknowledges its appends, which an election may lose.
    pub leader_acks: bool,
    /// Whether its appends are in transactions, which [end](super::Event::TransactionEnded) or stay open.
    pub transactional: bool,
    /// Whether it gathers the inputs of many callers into batches.
    ///
    /// Its appends are inputs then: record each when it is accepted, and its result when its caller gets it.
    pub batched: bool,
}

impl Writer {
    /// Creates a writer without a deadline, not exclusive, whose appends fail if an earlier one fails.
    pub fn new(partition: impl Into<TopicPartition>) -> Self {
        Self {
            partition: partition.into(),
            deadline: None,
            exclusive: None,
            on_failure_continue: false,
            without_ids: false,
            leader_acks: false,
            transactional: false,
            batched: false,
        }
    }

    /// Sets [`deadline`](Self::deadline).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets [`exclusive`](Self::exclusive).
    pub fn exclusive(mut self, name: impl Into<Value>) -> Self {
        self.exclusive = Some(name.into());
        self
    }

    /// Sets [`on_failure_continue`](Self::on_failure_continue).
    pub fn on_failure_continue(mut self) -> Self {
        self.on_failure_continue = true;
        self
    }

    /// Sets [`without_ids`](Self::without_ids).
    pub fn without_ids(mut self) -> Self {
        self.without_ids = true;
        self
    }

    /// Sets [`leader_acks`](Self::leader_acks).
    pub fn leader_acks(mut self) -> Self {
        self.leader_acks = true;
        self
    }

    /// Sets [`transactional`](Self::transactional).
    pub fn transactional(mut self) -> Self {
        self.transactional = true;
        self
    }

    /// Sets [`batched`](Self::batched).
    pub fn batched(mut self) -> Self {
        self.batched = true;
        self
    }
}

impl From<(&str, i32)> for Writer {
    fn from(partition: (&str, i32)) -> Self {
        Self::new(partition)
    }
}

/// What a history knows, at submission, of an append's place in the order of its writer's appends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SubmitOrder {
    /// After all appends recorded earlier. If one of those fails from now on, so does this one.
    Fixed,
    /// After all appends recorded earlier, but still waiting for memory.
    ///
    /// It need not fail when one of them fails.
    Queued,
    /// Fixed at some time before it ends, as when several threads submit.
    Unordered,
}

/// How an append ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AppendOutcome {
    /// It is on the log, once.
    Acked {
        /// The offset of its first record.
        base_offset: i64,
    },
    /// It is on the log, once, at an offset that was not reported.
    AckedAtUnknownOffset,
    /// It is not on the log, and never will be.
    NotAppended,
    /// It is on the log, in order and at most once, or it is not.
    Unknown,
    /// The caller dropped it: as [`Unknown`](Self::Unknown).
    Dropped,
    /// The caller dropped it before its place was fixed.
    ///
    /// It is not on the log, and no other append fails with it.
    Withdrawn,
}

/// A reader of a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Reader {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset where it starts.
    pub offset: i64,
    /// Whether it fetches by offset alone.
    ///
    /// Otherwise it knows the leader epoch of its position and learns of truncations.
    pub without_epoch: bool,
    /// Whether it reads with READ_COMMITTED.
    ///
    /// It gets no record of a transaction that is open or aborted, and stays below the last stable offset.
    pub committed: bool,
    /// The reader, perhaps of another process, at whose position it starts.
    ///
    /// It has to learn of a loss of what that one had read.
    pub resumes: Option<ReaderId>,
}

impl Reader {
    /// Creates a reader that starts at an offset and knows the leader epoch of its position.
    pub fn new(partition: impl Into<TopicPartition>, offset: i64) -> Self {
        let partition = partition.into();
        Self { partition, offset, without_epoch: false, committed: false, resumes: None }
    }

    /// Sets [`without_epoch`](Self::without_epoch).
    pub fn without_epoch(mut self) -> Self {
        self.without_epoch = true;
        self
    }

    /// Sets [`committed`](Self::committed).
    pub fn committed(mut self) -> Self {
        self.committed = true;
        self
    }

    /// Sets [`resumes`](Self::resumes). The offset has to be the position of that reader.
    pub fn resumes(mut self, reader: ReaderId) -> Self {
        self.resumes = Some(reader);
        self
    }
}

impl From<(&str, i32, i64)> for Reader {
    fn from((topic, partition, offset): (&str, i32, i64)) -> Self {
        Self::new((topic, partition), offset)
    }
}

/// The error that a reader got in place of records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReadFailure {
    /// Its position is before the log start offset or after the log end offset.
    OutOfRange,
    /// The log has been truncated: from an offset on, the records are not those that the reader saw.
    ///
    /// It continues there.
    Truncated {
        /// The offset.
        diverged_at: i64,
    },
    /// Its position is before the log start offset, where it continues.
    Trimmed {
        /// The log start offset.
        log_start: i64,
    },
    /// Its position is after the end of the log.
    BeyondEnd {
        /// The end.
        end: i64,
    },
    /// The topic was created again.
    Recreated,
    /// The leader epoch of its position is newer than that of the leader; the position stays.
    EpochUnknown,
    /// Any other error; the position stays.
    Other,
}

/// What a replay covered, according to the reader.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Covered {
    /// From where it started to where it ended.
    pub offsets: Range<i64>,
    /// The number of records.
    pub records: u64,
    /// Some or all of the offsets without a record, in order.
    pub gaps: Vec<Range<i64>>,
}

impl Covered {
    /// Creates what a replay covered, without gaps.
    pub fn new(offsets: Range<i64>, records: u64) -> Self {
        Self { offsets, records, gaps: Vec::new() }
    }

    /// Adds offsets that had no record for the reader. Add them in order.
    pub fn gap(mut self, offsets: Range<i64>) -> Self {
        self.gaps.push(offsets);
        self
    }
}

/// The contents of the log of a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Log {
    /// The partition.
    pub partition: TopicPartition,
    /// From the log start offset to the log end offset.
    pub offsets: Range<i64>,
    /// Offsets that rightly hold no record, in order.
    pub empty: Vec<Range<i64>>,
    /// The producers of the batches that have one, in order.
    ///
    /// Without them, only the values of records show who appended after a barrier.
    pub producers: Vec<(Range<i64>, Producer)>,
    /// The offsets of the batches in aborted transactions, in order.
    pub aborted: Vec<Range<i64>>,
    /// The last stable offset, if known.
    pub last_stable: Option<i64>,
    /// The records, in order.
    pub records: Vec<(i64, Value)>,
}

impl Log {
    /// Creates a log from the log start offset and the log end offset, and the records with their offsets.
    pub fn new(
        partition: impl Into<TopicPartition>,
        offsets: Range<i64>,
        records: impl IntoIterator<Item = (i64, impl Into<Value>)>,
    ) -> Self {
        let records = records.into_iter().map(|(offset, value)| (offset, value.into())).collect();
        Self {
            partition: partition.into(),
            offsets,
            empty: Vec::new(),
            producers: Vec::new(),
            aborted: Vec::new(),
            last_stable: None,
            records,
        }
    }

    /// Adds offsets that rightly hold no record, because of control batches or compaction. Add them in order.
    pub fn empty(mut self, offsets: Range<i64>) -> Self {
        self.empty.push(offsets);
        self
    }

    /// Adds the producer of the batch at these offsets. Add them in order.
    pub fn producer(mut self, offsets: Range<i64>, producer: impl Into<Producer>) -> Self {
        self.producers.push((offsets, producer.into()));
        self
    }

    /// Adds the offsets of a batch, or several, in an aborted transaction. Add them in order.
    pub fn aborted(mut self, offsets: Range<i64>) -> Self {
        self.aborted.push(offsets);
        self
    }

    /// Sets [`last_stable`](Self::last_stable).
    pub fn last_stable(mut self, offset: i64) -> Self {
        self.last_stable = Some(offset);
        self
    }
}
