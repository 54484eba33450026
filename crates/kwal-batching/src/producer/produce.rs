//! The future of one input, without an allocation unless it has to wait for memory.

use std::{
    borrow::Borrow,
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use kwal_client::error::{Error, Outcome, Progress};
use tokio::{
    runtime::{EnterGuard, Handle},
    task::unconstrained,
    time::{Instant, Sleep, sleep_until, timeout_at},
};

use super::{
    BatchProducer,
    ack::{Ack, Appended},
    aggregator::{Aggregator, Records},
    shared::{Handed, Shared, Waits},
};
use crate::time::from_now;

/// One input to append: a future. Nothing happens until it is polled.
///
/// See [`BatchProducer::produce`].
#[must_use = "nothing happens until it is awaited"]
pub struct Produce<'a, I, A: Aggregator = Records> {
    producer: &'a BatchProducer<A>,
    deadline: Option<Duration>,
    stage: Stage<'a, I, A>,
    /// Ends it before its batch, if it has a deadline of its own.
    timer: Option<Pin<Box<Sleep>>>,
}

enum Stage<'a, I, A: Aggregator> {
    New(I),
    /// It waits for a permit, and is handed over with it.
    Waiting(Pin<Box<dyn Future<Output = Ack<A::Tag>> + Send + 'a>>),
    Accepted(Ack<A::Tag>),
    Done,
}

impl<'a, I, A> Produce<'a, I, A>
where
    I: Borrow<A::Input> + Send + 'a,
    A: Aggregator,
{
    pub(super) fn new(producer: &'a BatchProducer<A>, input: I) -> Self {
        Self { producer, deadline: None, stage: Stage::New(input), timer: None }
    }

    /// Sets the time limit of this call. Default:
    /// [`Deadlines::operation`](kwal_client::Deadlines::operation).
    ///
    /// The batch that the input is in has the default, from its first record on: an input whose call ends
    /// earlier may still be appended. The outcome is unknown then, and the error has no
    /// [handle](kwal_client::error::Error::in_doubt), since the batch goes on. To wait for less time and get
    /// the result later, use [`BatchProducer::reserve`] and [`Slot::send`](super::Slot::send), and give up
    /// waiting for the [`Ack`], but keep it.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Hands the input over at once, or begins to wait. Returns whether the waker will be woken.
    fn begin(&mut self, waker: &Waker) -> bool {
        let shared = &self.producer.shared;
        let handed = match &self.stage {
            Stage::New(input) => shared.hand_over(input.borrow(), None, Some(waker)),
            _ => return false,
        };
        match (handed, mem::replace(&mut self.stage, Stage::Done)) {
            (Handed::Over(ack), _) => {
                let is_accepted = ack.is_accepted();
                self.stage = Stage::Accepted(ack);
                match self.deadline {
                    None => is_accepted,
                    Some(deadline) => {
                        let _entered = enter(self.producer);
                        self.timer = Some(Box::pin(sleep_until(from_now(deadline))));
                        false
                    }
                }
            }
            (Handed::Waits(waits), Stage::New(input)) => {
                let deadline = self.after();
                let _entered = enter(self.producer);
                let at = from_now(deadline);
                self.timer = Some(Box::pin(sleep_until(at)));
                self.stage = Stage::Waiting(Box::pin(wait::<I, A>(shared, waits, input, at, deadline)));
                false
            }
            (Handed::Waits(_), _) => unreachable!("it was new"),
        }
    }

    fn after(&self) -> Duration {
        self.deadline.unwrap_or_else(|| self.producer.shared.partition.operation_deadline())
    }
}

/// Lets timers be made: on the runtime of the client, where there is none.
fn enter<A: Aggregator>(producer: &BatchProducer<A>) -> Option<EnterGuard<'_>> {
    let is_outside = Handle::try_current().is_err();
    is_outside.then(|| producer.shared.partition.runtime().enter())
}

/// Waits for a permit, and hands the input over with it.
async fn wait<I, A>(
    shared: &Arc<Shared<A>>,
    waits: Waits<A>,
    input: I,
    at: Instant,
    after: Duration,
) -> Ack<A::Tag>
where
    I: Borrow<A::Input>,
    A: Aggregator,
{
    let _waits = waits;
    let handed_over = async move {
        // It is moved, and not borrowed, so that it need not be `Sync`.
        let input = input;
        // Must not yield to tokio's cooperative budget: a later call could overtake this one.
        let _turn = unconstrained(shared.turn.lock()).await;
        let bytes = shared.bytes_for(input.borrow());
        let permit = shared.permit(bytes).await?;
        match shared.hand_over(input.borrow(), Some(permit), None) {
            Handed::Over(ack) => Ok::<_, Error>(ack),
            Handed::Waits(_) => unreachable!("there is a permit"),
        }
    };
    match timeout_at(at, handed_over).await {
        Ok(Ok(ack)) => ack,
        Ok(Err(error)) => Ack::failed(error),
        Err(_) => Ack::failed(shared.partition.append_late(after, Progress::Memory, Outcome::NotApplied)),
    }
}

// Nothing in it is pinned.
impl<I, A: Aggregator> Unpin for Produce<'_, I, A> {}

impl<'a, I, A> Future for Produce<'a, I, A>
where
    I: Borrow<A::Input> + Send + 'a,
    A: Aggregator,
{
    type Output = Result<Appended<A::Tag>, Error>;

    /// # Panics
    /// If it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.begin(cx.waker()) {
            return Poll::Pending;
        }
        if let Stage::Waiting(waiting) = &mut this.stage {
            let _entered = enter(this.producer);
            match waiting.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(ack) => this.stage = Stage::Accepted(ack),
            }
        }
        let Stage::Accepted(ack) = &mut this.stage else {
            panic!("a `Produce` was polled after it was ready")
        };
        if let Poll::Ready(result) = Pin::new(&mut *ack).poll(cx) {
            this.stage = Stage::Done;
            return Poll::Ready(result);
        }
        // The error of one that was not accepted comes with the next poll.
        let is_late =
            ack.is_accepted() && this.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
        if !is_late {
            return Poll::Pending;
        }
        this.stage = Stage::Done;
        let (after, partition) = (this.after(), &this.producer.shared.partition);
        Poll::Ready(Err(partition.append_late(after, Progress::Response, Outcome::Unknown)))
    }
}

impl<I, A: Aggregator> fmt::Debug for Produce<'_, I, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Produce")
            .field("partition", &self.producer.shared.partition)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
