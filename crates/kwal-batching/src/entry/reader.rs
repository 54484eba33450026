//! Reading: entries from the records of a replay or a stream.

use std::{
    fmt,
    future::poll_fn,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use kwal_client::{Position, error::Error};

use super::{
    DEFAULT_MAX_ENTRY_BYTES,
    assembler::{Arrival, Assembler, Limits, Step},
    checkpoint::Checkpoint,
    header::{EntryId, Fragment},
    item::{Entry, Incomplete, Item},
};
use crate::reader::{RecordStream, Replay};

/// Reads entries of any size, from a [`Replay`] or a [`RecordStream`]: see the [module](super).
///
/// By [`next`](Self::next), or as a [`Stream`], which ends at the end of a replay and after an error that is
/// not retriable.
///
/// Entries come in the order of their last records, each once. So one that was begun later comes first if it
/// is finished first.
pub struct Reader<S> {
    source: S,
    assembler: Assembler,
    /// A record that was read, and that waits for entries to be given up before it is taken.
    pending: Option<Arrival>,
    /// Whether the stream has returned the error that ended it.
    is_reported: bool,
}

impl<S: Source> Reader<S> {
    /// Creates a reader that begins where the source is.
    pub fn new(source: S) -> Self {
        let limits = Limits {
            max_entry_bytes: DEFAULT_MAX_ENTRY_BYTES,
            memory: 2 * DEFAULT_MAX_ENTRY_BYTES,
            max_unfinished: 1_000,
            max_span: 10_000_000,
        };
        Self { source, assembler: Assembler::new(limits), pending: None, is_reported: false }
    }

    /// Goes on where another reader was, also of another process. The source has to be opened at
    /// [`Checkpoint::from`].
    ///
    /// If the log does not have that any more, and [`OutOfRange`](crate::reader::OutOfRange) lets the source
    /// go on elsewhere, entries that were unfinished are reported as [`CutOff`](super::Reason::CutOff).
    #[must_use]
    pub fn resume(mut self, checkpoint: &Checkpoint) -> Self {
        self.assembler.resume(checkpoint);
        self
    }

    /// Sets how large the value of an entry may be, in bytes. A larger one is reported as
    /// [`TooLarge`](super::Reason::TooLarge) when its first fragment is read. Default 128 MiB, and never more
    /// than [`memory`](Self::memory).
    #[must_use]
    pub fn max_entry_bytes(mut self, bytes: usize) -> Self {
        self.assembler.limits.max_entry_bytes = bytes;
        self
    }

    /// Sets how many bytes all unfinished entries may take together. If there are more, the oldest ones are
    /// given up, and reported as [`Evicted`](super::Reason::Evicted). Default 256 MiB.
    ///
    /// They are allocated as fragments arrive, and not before: an entry takes at most twice the bytes of it
    /// that have been read, and at most its length.
    #[must_use]
    pub fn memory(mut self, bytes: usize) -> Self {
        self.assembler.limits.memory = bytes;
        self
    }

    /// Sets how many entries may be unfinished at a time, at least one. If there are more, the oldest ones
    /// are given up, and reported as [`Evicted`](super::Reason::Evicted). Default 1,000.
    #[must_use]
    pub fn max_unfinished(mut self, entries: usize) -> Self {
        self.assembler.limits.max_unfinished = entries;
        self
    }

    /// Sets over how many offsets an entry may extend. One that is unfinished beyond that is given up, and
    /// reported as [`Evicted`](super::Reason::Evicted). Default 10,000,000.
    ///
    /// A writer that has died leaves an entry that nobody finishes. This is what a reader reads again at most
    /// because of it, when it resumes.
    #[must_use]
    pub fn max_span(mut self, offsets: u64) -> Self {
        self.assembler.limits.max_span = i64::try_from(offsets).unwrap_or(i64::MAX);
        self
    }

    /// Returns the next entry, or the report of one that is incomplete; `None` at the end of a replay.
    ///
    /// What is unfinished at the end of a replay is not reported by it: see
    /// [`unfinished`](Self::unfinished).
    ///
    /// # Errors
    /// As [`RecordStream::next_batch`] and [`Replay::next_batch`]. One that
    /// [is retriable](Error::is_retriable) is returned once, and the next call goes on. Any other is returned
    /// by every further call, until [`skip_unreadable`](Self::skip_unreadable).
    ///
    /// # Cancellation safety
    /// Cancel safe: an item is returned or kept for the next call.
    pub async fn next(&mut self) -> Result<Option<Item>, Error> {
        poll_fn(|cx| self.poll_item(cx)).await
    }

    /// Returns where reading has to begin again in order to lose nothing: at the first record of the oldest
    /// unfinished entry, or else where reading is. See [`checkpoint`](Self::checkpoint).
    pub fn position(&self) -> Position {
        self.checkpoint().from
    }

    /// Returns where another reader can [resume](Self::resume), to be kept with the state that was made of
    /// the items that were returned so far.
    pub fn checkpoint(&self) -> Checkpoint {
        let before = self.pending.as_ref().map(|pending| pending.before);
        self.assembler.checkpoint(before.unwrap_or_else(|| self.source.position()))
    }

    /// Returns the entries whose end has not been read, in the order of their first records.
    ///
    /// At the end of a replay to the end of the log, their writers have died, or are still appending them: a
    /// reader that goes on by [`follow`](Reader::follow) keeps them.
    pub fn unfinished(&self) -> impl Iterator<Item = Incomplete> {
        self.assembler.unfinished()
    }

    /// Gives up an entry that is unfinished, as if it had been reported, for callers that know that its
    /// writer is gone: its memory is free, and [`position`](Self::position) no longer waits for it. `None` if
    /// it is not unfinished.
    pub fn give_up(&mut self, entry: EntryId) -> Option<Incomplete> {
        self.assembler.give_up(entry)
    }

    /// Goes on after a batch that cannot be read, as [`RecordStream::skip_unreadable`]. Entries with
    /// fragments in it are reported as incomplete.
    pub fn skip_unreadable(&mut self) -> Option<Range<i64>> {
        let skipped = self.source.skip();
        self.is_reported &= skipped.is_none();
        skipped
    }

    /// Returns what it reads from: for its summary, progress or lag.
    pub fn source(&self) -> &S {
        &self.source
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Item>, Error>> {
        loop {
            let arrival = match self.pending.take() {
                Some(arrival) => arrival,
                None => match ready!(self.poll_arrival(cx)?) {
                    Some(arrival) => arrival,
                    None => return Poll::Ready(self.source.failure().map_or(Ok(None), Err)),
                },
            };
            let item = match self.assembler.offer(&arrival) {
                Step::Taken => continue,
                Step::Plain => Item::Entry(Entry::of_one(arrival.record, arrival.after)),
                Step::Entry(entry) => Item::Entry(entry),
                Step::Incomplete(incomplete) => Item::Incomplete(incomplete),
                Step::Before(incomplete) => {
                    self.pending = Some(arrival);
                    Item::Incomplete(incomplete)
                }
            };
            return Poll::Ready(Ok(Some(item)));
        }
    }

    /// Reads a record.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Arrival>, Error>> {
        let before = self.source.position();
        let Some(record) = ready!(Pin::new(&mut self.source).poll_next(cx)).transpose()? else {
            return Poll::Ready(Ok(None));
        };
        let after = self.source.position();
        let before = match self.assembler.is_rewound(record.offset) {
            false => before,
            // That one is of what is gone.
            true => Position { leader_epoch: None, offset: record.offset, ..after },
        };
        let fragment = Fragment::parse(&record);
        Poll::Ready(Ok(Some(Arrival { record, fragment, before, after, producer: self.source.producer() })))
    }
}

impl Reader<Replay> {
    /// Reads on without an end, from where the replay is, as [`Replay::follow`]. Unfinished entries are kept
    /// and go on.
    pub fn follow(self) -> Reader<RecordStream> {
        let Self { source, assembler, pending, is_reported } = self;
        Reader { source: source.follow(), assembler, pending, is_reported }
    }
}

impl<S: Source> Stream for Reader<S> {
    type Item = Result<Item, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let reader = self.get_mut();
        if reader.is_reported {
            return Poll::Ready(None);
        }
        let item = ready!(reader.poll_item(cx)).transpose();
        reader.is_reported = matches!(item, Some(Err(_))) && reader.source.failure().is_some();
        Poll::Ready(item)
    }
}

impl<S: fmt::Debug> fmt::Debug for Reader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("source", &self.source)
            .field("unfinished", &self.assembler.unfinished().count())
            .finish_non_exhaustive()
    }
}

/// What a [`Reader`] reads from: a [`Replay`] or a [`RecordStream`], and nothing else.
pub trait Source: sealed::Sealed {}

impl Source for Replay {}
impl Source for RecordStream {}

mod sealed {
    use std::ops::Range;

    use futures_core::Stream;
    use kwal_client::{Position, error::Error};
    use kwal_protocol::record::OwnedRecord;

    use crate::reader::{RecordStream, Replay};

    #[allow(unnameable_types, reason = "so that nobody else implements it")]
    pub trait Sealed: Stream<Item = Result<OwnedRecord, Error>> + Unpin {
        /// Returns where reading goes on.
        fn position(&self) -> Position;
        /// Returns the producer id and the epoch of the batch of the last record.
        fn producer(&self) -> Option<(i64, i16)>;
        /// Returns the error that ended it.
        fn failure(&self) -> Option<Error>;
        /// Goes on after what cannot be read.
        fn skip(&mut self) -> Option<Range<i64>>;
    }

    macro_rules! sources {
        ($($source:ty),*) => { $(
            impl Sealed for $source {
                fn position(&self) -> Position {
                    self.0.position()
                }

                fn producer(&self) -> Option<(i64, i16)> {
                    self.0.producer()
                }

                fn failure(&self) -> Option<Error> {
                    self.0.failure().cloned()
                }

                fn skip(&mut self) -> Option<Range<i64>> {
                    self.0.skip_unreadable()
                }
            }
        )* };
    }
    sources!(Replay, RecordStream);
}
