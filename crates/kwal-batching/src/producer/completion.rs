//! How a batch ends for all that wait for its records.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use kwal_client::{Answer, error::Error};

/// How one batch ends: shared by all that wait for it.
///
/// A waiting caller costs a place in a list of wakers, and nothing else: one that is polled when its input is
/// accepted adds its waker under the lock that it holds for that, to a list that is handed over when the
/// batch is [closed](Self::close).
#[derive(Debug)]
pub(super) struct Completion {
    waiting: Mutex<Waiting>,
    /// Set once, when all parts have ended.
    ended: OnceLock<Box<[Part]>>,
}

#[derive(Debug)]
struct Waiting {
    /// How many parts have not ended.
    missing: usize,
    parts: Vec<Part>,
    /// Of those that waited when their input was accepted.
    first: Vec<Waker>,
    /// Of those that began to wait later, or are polled by another task since.
    later: Vec<Waker>,
}

/// What went into one batch on the log. There are several if the batch became too large by compression.
#[derive(Debug)]
pub(super) struct Part {
    /// The index of its first record among all.
    pub(super) first: u32,
    pub(super) answer: Arc<Answer>,
    /// Keeps the failure that this one follows from as one that not all callers have got.
    pub(super) cause: Option<Arc<Answer>>,
    pub(super) times: Times,
}

/// How long a batch took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// From its first record until it was submitted.
    pub(super) queued: Duration,
    /// From then until it was acknowledged, or failed.
    pub(super) wire: Duration,
}

/// A batch that has ended, and those that wait for it.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) is_appended: bool,
    wakers: [Vec<Waker>; 2],
}

impl Ended {
    /// Wakes all of them. A waker that panics is that of one caller, and holds up no other.
    pub(super) fn wake(self) {
        for waker in self.wakers.into_iter().flatten() {
            drop(catch_unwind(AssertUnwindSafe(|| waker.wake())));
        }
    }
}

impl Completion {
    pub(super) fn new() -> Arc<Self> {
        let waiting = Waiting { missing: 1, parts: Vec::new(), first: Vec::new(), later: Vec::new() };
        Arc::new(Self { waiting: Mutex::new(waiting), ended: OnceLock::new() })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the wakers of those that waited from the start.
    pub(super) fn close(&self, wakers: Vec<Waker>) {
        let waiting = &mut *self.waiting();
        // Others have a place in the list already.
        waiting.first = wakers;
    }

    /// Notes that the batch goes to the log in so many parts.
    pub(super) fn split(&self, parts: usize) {
        self.waiting().missing = parts;
    }

    /// Notes how a part has ended. After the last one, returns whether all are on the log, and the wakers of
    /// those that wait, to be woken when nothing else keeps the completion.
    pub(super) fn end(&self, part: Part) -> Option<Ended> {
        let waiting = &mut *self.waiting();
        waiting.parts.push(part);
        waiting.missing = waiting.missing.saturating_sub(1);
        if waiting.missing > 0 {
            return None;
        }
        let mut parts = mem::take(&mut waiting.parts);
        parts.sort_by_key(|part| part.first);
        let is_appended = parts.iter().all(|part| part.answer.result().is_ok());
        // Set once: each part ends once.
        drop(self.ended.set(parts.into_boxed_slice()));
        let wakers = [mem::take(&mut waiting.first), mem::take(&mut waiting.later)];
        Some(Ended { is_appended, wakers })
    }

    /// Returns the parts once all have ended. `place` is that of the caller's waker, if it began to wait
    /// after its input was accepted.
    pub(super) fn poll(&self, cx: &Context<'_>, place: &mut Option<usize>) -> Poll<&[Part]> {
        if let Some(parts) = self.ended.get() {
            return Poll::Ready(parts);
        }
        // Wakers are those of others: they are neither cloned nor dropped under the lock.
        let (mut waker, before);
        waker = cx.waker().clone();
        {
            let waiting = &mut *self.waiting();
            if let Some(parts) = self.ended.get() {
                return Poll::Ready(parts);
            }
            before = match place.and_then(|place| waiting.later.get_mut(place)) {
                Some(earlier) => {
                    mem::swap(earlier, &mut waker);
                    Some(waker)
                }
                None => {
                    *place = Some(waiting.later.len());
                    waiting.later.push(waker);
                    None
                }
            };
        }
        drop(before);
        Poll::Pending
    }

    /// Returns the parts if all have ended, else none.
    pub(super) fn parts(&self) -> &[Part] {
        self.ended.get().map_or(&[], |parts| parts)
    }

    /// Waits until the batch has ended, and returns its first error.
    pub(super) async fn ended(&self) -> Result<(), Error> {
        let mut place = None;
        std::future::poll_fn(|cx| {
            self.poll(cx, &mut place).map(|parts| {
                let mut errors = parts.iter().filter_map(|part| part.answer.result().as_ref().err());
                errors.next().cloned().map_or(Ok(()), Err)
            })
        })
        .await
    }
}
