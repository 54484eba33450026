//! The two halves of an append: a permit to submit a batch, and the result.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use kwal_protocol::record::EncodedBatch;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Sleep, sleep_until},
};

use super::{
    Produced, Producer,
    appends::Appends,
    results::{Answer, Reply},
};
use crate::{
    error::{Error, ErrorKind, Outcome, Progress},
    memory::Reservation,
    routing::Deadline,
};

/// A permission to append a batch: memory, and a place among the appends that are under way.
///
/// [`PartitionClient::reserve`](crate::PartitionClient::reserve) waits for one. Dropping it gives both back.
#[must_use = "it holds memory and a place until it is used or dropped"]
pub struct Permit {
    pub(super) producer: Producer,
    pub(super) memory: Reservation,
    /// `None` if it is a part of another permit, whose place counts for both.
    pub(super) place: Option<OwnedSemaphorePermit>,
    pub(super) size: usize,
    pub(super) deadline: Duration,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, deadline, .. } = self;
        f.debug_struct("Permit").field("size", size).field("deadline", deadline).finish_non_exhaustive()
    }
}

impl Permit {
    /// Returns for how many bytes it is.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Sets the time limit of the append, from when it is submitted. Default:
    /// [`Deadlines::operation`](crate::Deadlines::operation).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Submits a batch: its place on the log is fixed, behind all that were submitted before.
    ///
    /// It is sent from here if nothing has to be waited for. What the batch needs less than was reserved is
    /// given back at once, the rest when the append is completed. Producer id, epoch and sequence number are
    /// put on it, whatever it has. The batch belongs to the client from here on: dropping the future does not
    /// take it back.
    ///
    /// # Errors
    ///
    /// The future returns what [`PartitionClient::produce`](crate::PartitionClient::produce) does, and
    /// [`InvalidInput`](ErrorKind::InvalidInput) at once if the batch is empty or larger than what was
    /// reserved.
    pub fn submit(self, batch: EncodedBatch) -> Append {
        let deadline = Deadline::after(self.deadline);
        match self.check(&batch) {
            Ok(()) => {
                let Self { producer, memory, place, .. } = self;
                producer.submit(batch, memory, place, deadline, false)
            }
            Err(error) => Append::failed(&self.producer.appends, error, deadline),
        }
    }

    /// Submits a batch, and calls a function with the result: where the append is completed, which may be
    /// this call, and without a task in between. It must not block. `group` is that of the appends that end
    /// [together](crate::PartitionClient::end_appends).
    #[doc(hidden)]
    pub fn submit_then(
        self,
        batch: EncodedBatch,
        group: usize,
        function: impl FnOnce(Answer) + Send + 'static,
    ) {
        let deadline = Deadline::after(self.deadline);
        match self.check(&batch) {
            Ok(()) => {
                let Self { producer, memory, place, .. } = self;
                let reply = Reply::Function { function: Box::new(function), group };
                producer.submit_to(reply, batch, memory, place, deadline, false);
            }
            Err(error) => function(Answer::failed(error)),
        }
    }

    /// Takes memory for a batch of so many bytes, if there is room for it now. Returns whether it has it.
    #[doc(hidden)]
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let has_room = bytes <= self.size || self.memory.try_grow(bytes);
        if has_room {
            self.size = self.size.max(bytes);
        }
        has_room
    }

    /// Takes memory for a batch of so many bytes, as a debt if there is no room for it now.
    #[doc(hidden)]
    pub fn grow(&mut self, bytes: usize) {
        if bytes > self.size {
            self.memory.grow(bytes);
            self.size = bytes;
        }
    }

    /// Splits off a part of the memory, for a batch of its own. The place counts for both.
    #[doc(hidden)]
    pub fn split(&mut self, bytes: usize) -> Self {
        let size = bytes.min(self.size);
        self.size -= size;
        let Self { producer, memory, deadline, .. } = self;
        Self {
            producer: producer.clone(),
            memory: memory.split(size),
            place: None,
            size,
            deadline: *deadline,
        }
    }

    /// Takes over the memory of another permit of the same client, which keeps its place until it is dropped.
    #[doc(hidden)]
    pub fn merge(&mut self, other: &mut Self) {
        self.memory.merge(&other.memory);
        self.size = self.size.saturating_add(std::mem::take(&mut other.size));
    }

    /// Rejects a batch that is empty or does not fit, else gives back what it does not need.
    fn check(&self, batch: &EncodedBatch) -> Result<(), Error> {
        let (needed, size) = (batch.size_in_bytes(), self.size);
        let reason = match batch.record_count() {
            0 => "no records to append".to_owned(),
            _ if needed > size => format!(
                "the batch has {needed} bytes, more than the {size} that were reserved; reserve its `size_in_bytes()`"
            ),
            _ => {
                self.memory.shrink(needed);
                return Ok(());
            }
        };
        Err(self.producer.appends.call().invalid_input(reason))
    }
}

/// The result of an append that was submitted: a future that owns nothing of the append.
///
/// Dropping it does not take the batch back. If such an append fails, that is logged.
#[must_use = "the result of an append is an acknowledgement or an error"]
pub struct Append {
    answer: oneshot::Receiver<Answer>,
    appends: Arc<Appends>,
    deadline: Deadline,
    /// Begins when the future is polled and has no result yet, unless the client's runtime has one thread and
    /// is the one that polls.
    timer: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// How long a caller waits for the producer task beyond the deadline.
///
/// The producer task ends appends at their deadlines. This matters only while its runtime does not run it: a
/// task that blocks a thread keeps the tasks that it has woken from running.
const GRACE: Duration = Duration::from_millis(100);

impl Append {
    pub(super) fn new(appends: &Arc<Appends>, answer: oneshot::Receiver<Answer>, deadline: Deadline) -> Self {
        Self { answer, appends: Arc::clone(appends), deadline, timer: None }
    }

    fn failed(appends: &Arc<Appends>, error: Error, deadline: Deadline) -> Self {
        let (response, answer) = oneshot::channel();
        drop(response.send(Answer::failed(error)));
        Self::new(appends, answer, deadline)
    }

    /// Completes some time after the deadline.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match Handle::try_current() {
            // Its one thread runs this timer only when it also runs the producer task.
            Ok(runtime)
                if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread
                    && runtime.id() == self.appends.partition.cluster.runtime.id() =>
            {
                return Poll::Pending;
            }
            Ok(_) => {}
            // Elsewhere there are no timers, and the producer task has to be relied on.
            Err(_) => return Poll::Pending,
        }
        let at = self.deadline.at + GRACE;
        match &mut self.timer {
            // On the runtime of this poll: that of an earlier one may be gone.
            Some(timer) => timer.set(sleep_until(at)),
            None => self.timer = Some(Box::pin(sleep_until(at))),
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }

    fn poll_result(&mut self, cx: &mut Context<'_>) -> Poll<Result<Produced, Error>> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| match answer {
            Ok(Answer { result, .. }) => result,
            // Every append that was submitted is completed, unless a panic has interrupted it.
            Err(_) => Err(self.appends.call().error(ErrorKind::Closed).with_outcome(Outcome::Unknown)),
        })
    }
}

impl Future for Append {
    type Output = Result<Produced, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(result) = self.poll_result(cx) {
            return Poll::Ready(result);
        }
        if self.poll_timer(cx).is_pending() {
            return Poll::Pending;
        }
        self.appends.expire();
        match self.poll_result(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => {
                let after = self.deadline.after;
                let kind = ErrorKind::DeadlineExceeded { after, progress: Progress::Runtime };
                Poll::Ready(Err(self.appends.call().error(kind).with_outcome(Outcome::Unknown)))
            }
        }
    }
}
