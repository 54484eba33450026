//! Reading up to an end.

use std::{
    future::poll_fn,
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use kwal_client::{FetchedBatch, Isolation, OffsetAt, PartitionClient, Position, error::Error};
use kwal_protocol::record::OwnedRecord;

use super::{
    cursor::Cursor,
    driver::Reader,
    open::Opened,
    settings::{Settings, Start, setters},
    stream::RecordStream,
    summary::{Progress, Summary},
};

/// Reads a log from somewhere to its end, and ends there.
///
/// The end is where the log ends when the replay is opened: the leader reports it when it is sure of it
/// (KIP-207), and what is appended later is not read. [`OpenReplay::end`] sets another one, such as that of a
/// barrier. See the [module](super) for what it promises.
///
/// A broker that was deposed, and does not know it yet, names the end of its own log, and a client that knows
/// of no later leader cannot tell. Where a replay must reach all that was acknowledged, set its end to an
/// offset that is known to be there: after the last append, or that of the barrier of an
/// [exclusive](kwal_client::OpenPartition::exclusive) writer.
pub fn replay(partition: &PartitionClient, from: impl Into<Start>) -> OpenReplay {
    OpenReplay { partition: partition.clone(), from: from.into(), settings: Settings::default(), end: None }
}

/// A replay to open. Nothing happens until it is awaited.
///
/// # Errors
/// [`InvalidInput`](kwal_client::error::ErrorKind::InvalidInput) for a negative offset, and for an end before
/// the offset that it begins at; [`BeyondEnd`](kwal_client::error::ErrorKind::BeyondEnd) for an end that the
/// log does not have, since an unclean election lost it or it never had it; those of every read. Whether the
/// log has the position is known with the first batch.
///
/// # Cancellation safety
/// Cancel safe.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct OpenReplay {
    partition: PartitionClient,
    from: Start,
    settings: Settings,
    end: Option<i64>,
}

impl OpenReplay {
    setters!();

    /// Sets the offset at which it ends: no record at it or after it is handed over, also if a batch has
    /// records on both sides. Default: the end of the log.
    ///
    /// With [`Isolation::ReadCommitted`], it ends at the last stable offset if that is lower, and
    /// [`Summary::beyond`] is what is left.
    pub fn end(mut self, offset: i64) -> Self {
        self.end = Some(offset);
        self
    }

    async fn open(self) -> Result<Replay, Error> {
        let Self { partition, from, settings, end: given } = self;
        if let Some(end @ ..0) = given {
            return Err(partition.invalid_read(format!("end offset {end} is negative")));
        }
        let opened = Opened::find(&partition, from, &settings).await?;
        let start = opened.at.offset;
        if let (Start::Position(_), Some(end)) = (from, given)
            && end < start
        {
            let reason = format!("a replay from offset {start} cannot end at offset {end}");
            return Err(partition.invalid_read(reason));
        }
        let readable = opened.log_end;
        let log_end = match settings.isolation {
            Isolation::ReadUncommitted => readable,
            _ => {
                let at = OffsetAt::Latest;
                settings.get_offset_of(&partition, at, Isolation::ReadUncommitted).await?.max(readable)
            }
        };
        let wanted = given.unwrap_or(log_end);
        if wanted > log_end {
            return Err(partition.beyond_end(wanted, log_end));
        }
        let Opened { at, is_confirmed, is_earliest, topic_id, .. } = opened;
        // A start that the leader named may be after a given end, or after the last stable offset.
        let end = wanted.min(readable);
        let mut cursor = Cursor::new(at, Some(end), readable, is_confirmed);
        cursor.summary.beyond = (end < wanted).then_some(end..wanted);
        Ok(Replay(Reader::new(partition, settings, cursor, topic_id, is_earliest)))
    }
}

impl IntoFuture for OpenReplay {
    type Output = Result<Replay, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

/// A log, from where it was opened to its end. Made by [`replay()`].
///
/// By batch with [`next_batch`](Self::next_batch) or [`for_each_batch`](Self::for_each_batch); by record as a
/// [`Stream`], which ends at the end and after an error that is not retriable. Both can be mixed: a batch
/// that was begun by record is continued by batch.
///
/// ```
/// # kwal_testkit::doctest(9101, async {
/// # use kwal_client::{Client, OffsetAt, record::Record};
/// # let client = Client::connect(["localhost:9101"]).await?;
/// # client.controller_client().await?.create_topic("wal", 1, 1).await?;
/// # let partition = client.partition_client("wal", 0).await?;
/// # for value in ["a", "b", "c"] {
/// #     partition.produce(vec![Record::new(None::<&str>, value)]).await?;
/// # }
/// use kwal_batching::reader;
///
/// let mut state = Vec::new();
/// let mut replay = reader::replay(&partition, OffsetAt::Earliest).await?;
/// replay
///     .for_each_batch(|batch| batch.for_each(|record| state.extend_from_slice(record.value.unwrap())))
///     .await?;
/// assert_eq!(state, b"abc");
/// assert_eq!((replay.summary().offsets.clone(), replay.summary().records), (0..3, 3));
///
/// // Goes on where the replay ended.
/// let mut stream = replay.follow();
/// # partition.produce(vec![Record::new(None::<&str>, "d")]).await?;
/// let batch = stream.next_batch().await?;
/// assert_eq!(batch.offsets(), 3..4);
/// # Ok(()) });
/// ```
#[derive(Debug)]
pub struct Replay(pub(crate) Reader);

impl Replay {
    /// Returns the next batch that has records; `None` at the end.
    ///
    /// Its records are decoded by the caller, and so are the errors of one that cannot be decoded: it counts
    /// as handed over, and the next call returns the batch after it. With
    /// [`Unreadable::Skip`](super::Unreadable::Skip) it is left out before.
    ///
    /// # Errors
    /// As [`RecordStream::next_batch`], and [`LogTruncated`](kwal_client::error::ErrorKind::LogTruncated) if
    /// the log ends before the replay does.
    ///
    /// # Cancellation safety
    /// Cancel safe: a batch is handed over or kept for the next call.
    pub async fn next_batch(&mut self) -> Result<Option<FetchedBatch>, Error> {
        let begun = poll_fn(|cx| self.0.poll_batch(cx)).await?;
        Ok(begun.map(|begun| self.0.hand_over(begun)))
    }

    /// Calls a function with each batch that has records, up to the end. Nothing is allocated per record.
    ///
    /// # Errors
    /// That of the function: the batch counts as not handed over, and is passed to the function again in the
    /// next call. If it cannot be read, that is the error of the next call, until
    /// [`skip_unreadable`](Self::skip_unreadable). Otherwise as [`next_batch`](Self::next_batch).
    ///
    /// # Cancellation safety
    /// Cancel safe: the batches that the function returned from count as handed over, and no other one.
    pub async fn for_each_batch<E: From<Error>>(
        &mut self,
        mut consume: impl FnMut(&FetchedBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(begun) = poll_fn(|cx| self.0.poll_batch(cx)).await? {
            match consume(&begun.batch) {
                Ok(()) => drop(self.0.hand_over(begun)),
                Err(error) => {
                    self.0.take_back(begun);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Returns where reading goes on, to be kept with the state that was made of what was read so far.
    pub fn position(&self) -> Position {
        self.0.position()
    }

    /// Returns how far it is.
    pub fn progress(&self) -> Progress {
        let cursor = &self.0.cursor;
        let position = cursor.at().offset;
        Progress { position, end: cursor.end().unwrap_or(position), bytes: cursor.summary.bytes }
    }

    /// Returns what it has covered so far: all of it, once it has ended.
    pub fn summary(&self) -> &Summary {
        &self.0.cursor.summary
    }

    /// Goes on after the batch that [`Corrupt`](kwal_client::error::ErrorKind::Corrupt) was returned for.
    /// Returns the offsets that are left out; `None` if that was not the last error, or if the header of the
    /// batch does not say where it ends. Records before the damage may have been handed out, by record or by
    /// a function that decoded them: [`Unreadable::Skip`](super::Unreadable::Skip) hands out none of them.
    pub fn skip_unreadable(&mut self) -> Option<Range<i64>> {
        self.0.skip_unreadable()
    }

    /// Reads on without an end, from where the replay is: without a gap and without a repeat.
    ///
    /// What has been fetched already is used, and the summary continues.
    pub fn follow(self) -> RecordStream {
        let mut reader = self.0;
        reader.cursor.unbound();
        RecordStream(reader)
    }
}

impl Stream for Replay {
    type Item = Result<OwnedRecord, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().0.poll_record(cx)
    }
}
