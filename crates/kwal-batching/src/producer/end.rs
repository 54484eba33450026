//! Flush and close: waiting for what was accepted.

use std::time::Duration;

use kwal_client::error::{Error, Outcome, Progress};
use kwal_protocol::record::{EncodedBatch, OwnedRecord};
use tokio::time::timeout_at;

use super::{
    BatchProducer,
    aggregator::{Aggregator, Records},
    shared::Place,
    split::decode,
};
use crate::{request::request, time::from_now};

/// A barrier on what was accepted. Nothing happens until it is awaited.
///
/// # Errors
/// That of the first batch that fails, of those that were accepted before the first poll; all others have
/// ended then, too. [`DeadlineExceeded`](kwal_client::error::ErrorKind::DeadlineExceeded).
///
/// # Cancellation safety
/// Cancel safe.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct Flush<'a, A: Aggregator = Records> {
    pub(super) producer: &'a BatchProducer<A>,
    pub(super) deadline: Option<Duration>,
}

impl<A: Aggregator> Flush<'_, A> {
    async fn run(self) -> Result<(), Error> {
        let Self { producer, deadline } = self;
        let shared = &producer.shared;
        let after = deadline.unwrap_or_else(|| shared.partition.operation_deadline());
        let at = from_now(after);
        let ended = async {
            let mut result = Ok(());
            for completion in shared.flush() {
                result = result.and(completion.ended().await);
            }
            result
        };
        let late = |_| shared.partition.append_late(after, Progress::Response, Outcome::Unknown);
        timeout_at(at, ended).await.map_err(late)?
    }
}

request!(Flush<'a, A: Aggregator> -> Result<(), Error>);

/// The end of a producer. Nothing happens until it is awaited.
///
/// From the first poll on, nothing more is accepted, by any clone: callers that wait get
/// [`Closed`](kwal_client::error::ErrorKind::Closed). What was accepted is sent and acknowledged as ever,
/// until the deadline. Then what is left ends: what was not submitted is not applied, and what is in flight
/// has an unknown outcome, with its [handle](Error::in_doubt). Callers get the same. The partition client
/// stays open.
///
/// It returns all batches that are not known to be on the log, of those that were accepted and had not ended
/// at the first call, in the order in which they were accepted. Empty means that everything is on the log.
///
/// # Cancellation safety
/// If it is dropped, nothing more is accepted all the same, and what was accepted is sent. It can be called
/// again, and returns the same.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct CloseProducer<'a, A: Aggregator = Records> {
    pub(super) producer: &'a BatchProducer<A>,
    pub(super) deadline: Option<Duration>,
}

impl<A: Aggregator> CloseProducer<'_, A> {
    async fn run(self) -> Vec<Undelivered> {
        let Self { producer, deadline } = self;
        let after = deadline.unwrap_or_else(|| producer.shared.partition.operation_deadline());
        producer.shared.close(from_now(after), after).await
    }
}

request!(CloseProducer<'a, A: Aggregator> -> Vec<Undelivered>);

/// A batch that was accepted and is not known to be on the log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Undelivered {
    /// Why, with its [outcome](Error::outcome); and if it may be on the log, with its
    /// [handle](Error::in_doubt), unless batches have no producer ids.
    pub error: Error,
    /// The batch, to [submit](kwal_client::Permit::submit) it again or to look at it.
    pub batch: EncodedBatch,
    place: Place,
}

impl Undelivered {
    pub(super) fn new(error: Error, batch: EncodedBatch, place: Place) -> Self {
        Self { error, batch, place }
    }

    /// Returns them in the order in which they were accepted.
    pub(super) fn sorted(mut all: Vec<Self>) -> Vec<Self> {
        all.sort_by_key(|undelivered| undelivered.place);
        all
    }

    /// Returns the records, in the order in which they were accepted; their offsets are their indices in the
    /// batch.
    pub fn records(&self) -> Vec<OwnedRecord> {
        let records = decode(&self.batch).ok();
        records.into_iter().flatten().filter_map(Result::ok).collect()
    }
}
