//! Reading without an end.

use std::{
    convert::Infallible,
    future::poll_fn,
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use kwal_client::{FetchedBatch, PartitionClient, Position, error::Error};
use kwal_protocol::record::OwnedRecord;

use super::{
    cursor::Cursor,
    driver::{Begun, Reader},
    open::Opened,
    settings::{Settings, Start, setters},
    summary::Summary,
};

/// Reads a log from somewhere on, and waits for more at its end. See the [module](super) for what it
/// promises.
pub fn follow(partition: &PartitionClient, from: impl Into<Start>) -> OpenStream {
    OpenStream { partition: partition.clone(), from: from.into(), settings: Settings::default() }
}

/// A stream to open. Nothing happens until it is awaited.
///
/// # Errors
/// [`InvalidInput`](kwal_client::error::ErrorKind::InvalidInput) for a negative offset; those of every read.
/// Whether the log has the position is known with the first batch.
///
/// # Cancellation safety
/// Cancel safe.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct OpenStream {
    partition: PartitionClient,
    from: Start,
    settings: Settings,
}

impl OpenStream {
    setters!();

    async fn open(self) -> Result<RecordStream, Error> {
        let Self { partition, from, settings } = self;
        let Opened { at, is_confirmed, is_earliest, topic_id, log_end } =
            Opened::find(&partition, from, &settings).await?;
        let cursor = Cursor::new(at, None, log_end, is_confirmed);
        Ok(RecordStream(Reader::new(partition, settings, cursor, topic_id, is_earliest)))
    }
}

impl IntoFuture for OpenStream {
    type Output = Result<RecordStream, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

/// A log, from where it was opened on. Made by [`follow`] and by [`Replay::follow`](super::Replay::follow).
///
/// By batch with [`next_batch`](Self::next_batch) or [`for_each_batch`](Self::for_each_batch); by record as a
/// [`Stream`], which ends after an error that is not retriable, and goes on after another one. Both can be
/// mixed: a batch that was begun by record is continued by batch.
///
/// ```
/// # kwal_testkit::doctest(9102, async {
/// # use kwal_client::{Client, OffsetAt, record::Record};
/// # let client = Client::connect(["localhost:9102"]).await?;
/// # client.controller_client().await?.create_topic("wal", 1, 1).await?;
/// # let partition = client.partition_client("wal", 0).await?;
/// # for value in ["a", "b", "c"] {
/// #     partition.produce(vec![Record::new(None::<&str>, value)]).await?;
/// # }
/// use futures::StreamExt;
/// use kwal_batching::reader;
///
/// let mut stream = reader::follow(&partition, OffsetAt::Earliest).await?;
/// let mut values = Vec::new();
/// while !stream.caught_up() {
///     let record = stream.next().await.expect("it has no end")?;
///     values.push(record.value.unwrap());
/// }
/// assert_eq!(values, ["a", "b", "c"]);
///
/// // Kept with the state, and verified when it is used again.
/// let kept = stream.position().to_string();
/// let resumed = reader::follow(&partition, kept.parse::<kwal_client::Position>()?).await?;
/// assert_eq!((resumed.position(), resumed.lag()), (stream.position(), 0));
/// # Ok(()) });
/// ```
#[derive(Debug)]
pub struct RecordStream(pub(crate) Reader);

impl RecordStream {
    /// Returns the next batch that has records. At the end of the log it waits for one, without a limit.
    ///
    /// Its records are decoded by the caller, and so are the errors of one that cannot be decoded: it counts
    /// as handed over, and the next call returns the batch after it. With
    /// [`Unreadable::Skip`](super::Unreadable::Skip) it is left out before.
    ///
    /// # Errors
    /// As [`PartitionClient::fetch`]. One that [is retriable](Error::is_retriable) is returned once, after
    /// the deadline of a request, and the next call goes on where reading is. Any other is returned by every
    /// further call: to go on after it, open another reader where the caller decides, or, after
    /// [`Corrupt`](kwal_client::error::ErrorKind::Corrupt), call [`skip_unreadable`](Self::skip_unreadable).
    ///
    /// # Cancellation safety
    /// Cancel safe: a batch is handed over or kept for the next call.
    pub async fn next_batch(&mut self) -> Result<FetchedBatch, Error> {
        let begun = self.begun().await?;
        Ok(self.0.hand_over(begun))
    }

    /// Calls a function with each batch that has records, until an error. Nothing is allocated per record.
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
    ) -> Result<Infallible, E> {
        loop {
            let begun = self.begun().await?;
            match consume(&begun.batch) {
                Ok(()) => drop(self.0.hand_over(begun)),
                Err(error) => {
                    self.0.take_back(begun);
                    return Err(error);
                }
            }
        }
    }

    /// Returns where reading goes on, to be kept with the state that was made of what was read so far.
    pub fn position(&self) -> Position {
        self.0.position()
    }

    /// Whether everything was read that is known to be on the log, as of the last fetch. The leader epoch of
    /// the position that the stream was opened with is verified by the first one.
    pub fn caught_up(&self) -> bool {
        self.lag() == 0
    }

    /// Returns how many offsets lie between the position and the end of the log, as of the last fetch.
    ///
    /// The end is the high watermark, and the last stable offset with
    /// [`Isolation::ReadCommitted`](kwal_client::Isolation::ReadCommitted). Before the first fetch, it is
    /// that of when the reader was opened.
    pub fn lag(&self) -> i64 {
        self.0.cursor.lag()
    }

    /// Returns what it has covered so far.
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

    async fn begun(&mut self) -> Result<Begun, Error> {
        loop {
            // Without an end, there is always a next one.
            if let Some(begun) = poll_fn(|cx| self.0.poll_batch(cx)).await? {
                return Ok(begun);
            }
        }
    }
}

impl Stream for RecordStream {
    type Item = Result<OwnedRecord, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().0.poll_record(cx)
    }
}
