//! A place for an input whose order is fixed by a plain call.

use std::{borrow::Borrow, fmt, time::Duration};

use kwal_client::{
    Permit,
    error::{Error, Outcome, Progress},
};
use tokio::time::timeout_at;

use super::{
    BatchProducer,
    ack::Ack,
    aggregator::{Aggregator, Records},
    shared::Handed,
};
use crate::{request::request, time::from_now};

/// A place to be waited for. Nothing happens until it is awaited.
///
/// # Errors
/// [`Closed`](kwal_client::error::ErrorKind::Closed);
/// [`DeadlineExceeded`](kwal_client::error::ErrorKind::DeadlineExceeded);
/// [`BatchTooLarge`](kwal_client::error::ErrorKind::BatchTooLarge) for more bytes than
/// [`Limits::batch`](kwal_client::Limits::batch).
///
/// # Cancellation safety
/// Cancel safe.
#[must_use = "nothing happens until it is awaited"]
#[derive(Debug)]
pub struct Reserve<'a, A: Aggregator = Records> {
    pub(super) producer: &'a BatchProducer<A>,
    pub(super) bytes: usize,
    pub(super) deadline: Option<Duration>,
}

impl<A: Aggregator> Reserve<'_, A> {
    /// For how many bytes a place is, unless the caller says so.
    pub(super) const BYTES: usize = 1024;

    /// Sets for how many bytes of records it is: keys, values, headers, and 36 for each record. Default:
    /// 1,024. What a larger input takes beyond them is a debt to the memory budget of the client, and is paid
    /// before anything else is granted.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    async fn run(self) -> Result<Slot<A>, Error> {
        let Self { producer, bytes, deadline } = self;
        let shared = &producer.shared;
        let permit = match shared.try_permit(bytes)? {
            Ok(permit) => permit,
            Err(waits) => {
                let after = deadline.unwrap_or_else(|| shared.partition.operation_deadline());
                let permit = async {
                    let _waits = waits;
                    let _turn = shared.turn.lock().await;
                    shared.permit(shared.bytes_of(bytes)).await
                };
                let late = |_| shared.partition.append_late(after, Progress::Memory, Outcome::NotApplied);
                timeout_at(from_now(after), permit).await.map_err(late)??
            }
        };
        Ok(Slot { producer: producer.clone(), permit })
    }
}

request!(Reserve<'a, A: Aggregator> -> Result<Slot<A>, Error>);

/// A place for one input: memory, and one of the 64 places of the partition client.
///
/// [`BatchProducer::reserve`] waits for one. Dropping it gives both back. It keeps the producer alive.
#[must_use = "it holds memory and a place until it is used or dropped"]
pub struct Slot<A: Aggregator = Records> {
    producer: BatchProducer<A>,
    permit: Permit,
}

impl<A: Aggregator> Slot<A> {
    /// Hands an input over: its order is fixed, behind all that were handed over before.
    ///
    /// It is sent from here if nothing has to be waited for. It belongs to the producer from here on:
    /// dropping the future does not take it back.
    ///
    /// # Errors
    /// The future returns what [`produce`](BatchProducer::produce) does.
    pub fn send(self, input: impl Borrow<A::Input>) -> Ack<A::Tag> {
        let Self { producer, permit } = self;
        match producer.shared.hand_over(input.borrow(), Some(permit), None) {
            Handed::Over(ack) => ack,
            Handed::Waits(_) => unreachable!("there is a permit"),
        }
    }
}

impl<A: Aggregator> fmt::Debug for Slot<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("permit", &self.permit).finish_non_exhaustive()
    }
}
