//! The results of inputs.

use std::{
    collections::VecDeque,
    mem,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use kwal_client::{
    Answer, Produced,
    error::{Error, Outcome},
};

use super::completion::{Completion, Part};

/// An input that is on the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Appended<T = ()> {
    /// The offset of its record, or of the first one; `None` if the broker did not report it (see
    /// [`Produced::base_offset`]).
    pub offset: Option<i64>,
    /// How many records it is in; they follow without a gap. One, unless an
    /// [`Aggregator`](super::Aggregator) makes more or none of it.
    pub records: usize,
    /// What the [`Aggregator`](super::Aggregator) returned for it.
    pub tag: T,
    /// The batch that it is in.
    pub batch: Produced,
    /// How long that batch was gathered, from its first record until it was submitted.
    pub queued: Duration,
    /// How long the append of that batch took from then on.
    pub wire: Duration,
}

/// The result of an input that was accepted: a future that owns nothing of it.
///
/// Its batch belongs to the producer: dropping the future takes nothing back.
///
/// # Errors
/// As those of [`BatchProducer::produce`](super::BatchProducer::produce).
///
/// # Cancellation safety
/// Cancel safe.
#[derive(Debug)]
#[must_use = "the result of an input is an acknowledgement or an error"]
pub struct Ack<T = ()>(State<T>);

#[derive(Debug)]
enum State<T> {
    Accepted {
        completion: Arc<Completion>,
        /// Which records of the batch it is in.
        first: u32,
        records: u32,
        /// The place of its waker.
        place: Option<usize>,
        tag: T,
    },
    Failed(Error),
    /// It was handed over while a failure before it was not known to all whom it concerns.
    Preceded {
        error: Error,
        /// Keeps that failure until somebody waits for this error, too.
        cause: Option<Arc<Answer>>,
    },
    Done,
}

impl<T> Ack<T> {
    pub(super) fn accepted(completion: Arc<Completion>, first: u32, records: u32, tag: T) -> Self {
        Self(State::Accepted { completion, first, records, place: None, tag })
    }

    pub(super) fn failed(error: Error) -> Self {
        Self(State::Failed(error))
    }

    pub(super) fn preceded(error: Error, cause: Arc<Answer>) -> Self {
        Self(State::Preceded { error, cause: Some(cause) })
    }

    pub(super) fn is_accepted(&self) -> bool {
        matches!(self.0, State::Accepted { .. })
    }
}

// Nothing in it is pinned.
impl<T> Unpin for Ack<T> {}

impl<T> Future for Ack<T> {
    type Output = Result<Appended<T>, Error>;

    /// # Panics
    /// If it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Accepted { completion, place, .. } = &mut self.0
            && completion.poll(cx, place).is_pending()
        {
            return Poll::Pending;
        }
        // Others have a turn before it is returned, and it keeps nothing meanwhile. Otherwise callers that
        // try again at once would keep each other from ever being accepted.
        if let State::Preceded { cause, .. } = &mut self.0
            && cause.take().is_some()
        {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // The completion goes with it: an error counts as returned once nobody has it.
        Poll::Ready(match mem::replace(&mut self.0, State::Done) {
            State::Accepted { completion, first, records, tag, .. } => {
                result(completion.parts(), first, records, tag)
            }
            State::Failed(error) | State::Preceded { error, .. } => Err(error),
            State::Done => panic!("an `Ack` was polled after it was ready"),
        })
    }
}

/// Returns the result of an input.
fn result<T>(parts: &[Part], first: u32, records: u32, tag: T) -> Result<Appended<T>, Error> {
    let index = parts.partition_point(|part| part.first <= first).saturating_sub(1);
    let end = first.saturating_add(records);
    let part = &parts[index];
    // An input of several records can be in several parts, and is on the log if all of them are.
    let mut own = parts[index..].iter().take_while(|part| part.first < end);
    match part.answer.result() {
        Ok(produced) if own.all(|part| part.answer.result().is_ok()) => Ok(Appended {
            offset: produced.base_offset.map(|base| base.saturating_add((first - part.first).into())),
            records: records as usize,
            tag,
            batch: *produced,
            queued: part.times.queued,
            wire: part.times.wire,
        }),
        _ => Err(failure(&parts[index..], first..end)),
    }
}

/// Returns the error of an input that is in these records of a batch.
#[cold]
fn failure(parts: &[Part], records: Range<u32>) -> Error {
    let own = parts.iter().take_while(|part| part.first < records.end);
    let errors = own.clone().filter_map(|part| Some((part, part.answer.result().as_ref().err()?)));
    let (part, error) =
        errors.max_by_key(|(_, error)| error.outcome() == Outcome::Unknown).expect("one of them has failed");
    let [start, end] = [records.start, records.end].map(|index| index.saturating_sub(part.first) as usize);
    let error = error.clone().of_part(start..end);
    let is_absent = |part: &Part| {
        part.answer.result().as_ref().is_err_and(|error| error.outcome() == Outcome::NotApplied)
    };
    match own.clone().count() == 1 || own.into_iter().all(is_absent) {
        true => error,
        // Some of its records may be on the log and others not.
        false => error.partly_applied(),
    }
}

/// Results in the order in which their [`Ack`]s are added: a stream that keeps the order of the calls.
///
/// It ends when it has none left, and goes on when more are added.
///
/// ```
/// # kwal_testkit::doctest(9107, async {
/// # use kwal_client::Client;
/// # let client = Client::connect(["localhost:9107"]).await?;
/// # client.controller_client().await?.create_topic("wal", 1, 1).await?;
/// # let partition = client.partition_client("wal", 0).await?;
/// use futures::StreamExt;
/// use kwal_batching::producer::{Acks, BatchProducer};
/// use kwal_client::record::Record;
///
/// let producer = BatchProducer::new(partition);
/// let mut acks = Acks::new();
/// for value in ["one", "two", "three"] {
///     acks.push(producer.reserve().await?.send(Record::new(None::<&str>, value)));
/// }
/// let mut offsets = Vec::new();
/// while let Some(appended) = acks.next().await {
///     offsets.extend(appended?.offset);
/// }
/// assert_eq!(offsets, [0, 1, 2]);
/// # Ok(()) });
/// ```
#[derive(Debug)]
#[must_use = "the results of inputs are acknowledgements or errors"]
pub struct Acks<T = ()>(VecDeque<Ack<T>>);

impl<T> Acks<T> {
    /// Creates one without results.
    pub const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Adds the result of an input.
    pub fn push(&mut self, ack: Ack<T>) {
        self.0.push_back(ack);
    }

    /// Returns how many results it has still to return. It holds a few words for each.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has returned the results of all that were added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for Acks<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Stream for Acks<T> {
    type Item = Result<Appended<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(first) = self.0.front_mut() else { return Poll::Ready(None) };
        let Poll::Ready(result) = Pin::new(first).poll(cx) else { return Poll::Pending };
        self.0.pop_front();
        Poll::Ready(Some(result))
    }
}
