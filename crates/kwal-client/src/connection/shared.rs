//! What the handles of a connection share with its task: the queue of requests, and what wakes the task.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, TryAcquireError},
    time::Instant,
};

use super::{NotSubmitted, QUEUE, request::Submitted};
use crate::duration::whole_millis;

/// What all handles of a connection share with its task.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// The free places of the queue. Closed with it.
    places: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Submitted>,
    /// Whether the queue takes no more requests.
    is_closed: bool,
    signals: Signals,
    /// Whether the signals have changed since the task looked at them.
    is_changed: bool,
    waker: Option<Waker>,
    /// Whether the task waits. While it runs, nobody has to wake it: it looks once more before it waits.
    is_parked: bool,
    /// How many requests the task had when it last began to wait.
    in_flight: usize,
    /// How long the broker may wait before it answers all requests in flight.
    wait_budget: Duration,
    throttled_until: Option<Instant>,
}

/// What handles tell the task.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signals {
    /// The connection is to be closed.
    pub(super) close: bool,
    /// The last handle is gone.
    pub(super) unused: bool,
    /// How many requests the broker may wait for although their callers have left.
    pub(super) abandoned: usize,
}

impl Default for Shared {
    fn default() -> Self {
        Self { state: Mutex::default(), places: Semaphore::new(QUEUE) }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the task something.
    fn signal(&self, signal: impl FnOnce(&mut Signals)) {
        let mut state = self.state();
        signal(&mut state.signals);
        state.is_changed = true;
        wake(state);
    }

    /// Tells the task to close the connection.
    pub(super) fn close(&self) {
        self.signal(|signals| signals.close = true);
    }

    /// Puts a request on the queue, if there is a place. Otherwise its caller gets no response.
    pub(super) fn try_submit(
        self: &Arc<Self>,
        request: Submitted,
        room: Option<Room>,
    ) -> Result<(), NotSubmitted> {
        match room.filter(|room| Arc::ptr_eq(&room.shared, self)) {
            Some(mut room) => room.is_used = true,
            None => match self.places.try_acquire() {
                Ok(place) => place.forget(),
                Err(error) => {
                    request.caller.forget();
                    return Err(match error {
                        TryAcquireError::NoPermits => NotSubmitted::Full,
                        TryAcquireError::Closed => NotSubmitted::Closed,
                    });
                }
            },
        }
        self.push(request)
    }

    /// Puts a request on the queue as soon as there is a place, unless the queue is closed. Callers get their
    /// places in the order in which they came.
    pub(super) async fn submit(&self, request: Submitted) -> Result<(), NotSubmitted> {
        self.places.acquire().await.map_err(|_| NotSubmitted::Closed)?.forget();
        self.push(request)
    }

    fn push(&self, request: Submitted) -> Result<(), NotSubmitted> {
        let mut state = self.state();
        if state.is_closed {
            drop(state);
            request.caller.forget();
            return Err(NotSubmitted::Closed);
        }
        state.queue.push_back(request);
        wake(state);
        Ok(())
    }

    /// Waits in turn for a place in the queue; `None` if it is closed.
    pub(super) async fn room(self: &Arc<Self>) -> Option<Room> {
        self.places.acquire().await.ok()?.forget();
        Some(Room { shared: Arc::clone(self), is_used: false })
    }

    /// Takes the oldest request from the queue.
    pub(super) fn take(&self) -> Option<Submitted> {
        let request = self.state().queue.pop_front()?;
        self.places.add_permits(1);
        Some(request)
    }

    /// Whether the queue takes requests.
    pub(super) fn is_open(&self) -> bool {
        !self.places.is_closed()
    }

    /// Lets the queue take no more requests.
    pub(super) fn close_queue(&self) {
        self.state().is_closed = true;
        self.places.close();
    }

    /// Returns what the task has been told.
    pub(super) fn look(&self) -> Signals {
        let mut state = self.state();
        (state.is_changed, state.is_parked) = (false, false);
        state.signals
    }

    /// Lets the task be woken by what is to come. Returns false if something has come already: a signal, or a
    /// request, if it takes one. `in_flight` is how many requests the task has.
    pub(super) fn park(&self, waker: &Waker, takes: bool, in_flight: usize) -> bool {
        let mut state = self.state();
        state.in_flight = in_flight;
        if state.is_changed || takes && !state.queue.is_empty() {
            return false;
        }
        if !state.waker.as_ref().is_some_and(|before| before.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        state.is_parked = true;
        true
    }

    /// Whether the broker may wait for a request whose caller has left.
    pub(super) fn has_abandoned(&self) -> bool {
        self.state().signals.abandoned > 0
    }

    /// Returns how many requests there are: those that wait for the task, and those that it has.
    pub(super) fn in_flight(&self) -> usize {
        let state = self.state();
        state.queue.len() + state.in_flight
    }

    /// The end of the last throttle, which may be over.
    pub(super) fn throttled_until(&self) -> Option<Instant> {
        self.state().throttled_until
    }

    pub(super) fn throttle(&self, until: Option<Instant>) {
        self.state().throttled_until = until;
    }

    /// Takes a part of the time that the broker may wait. `longest` returns how much may be taken, given what
    /// has been.
    pub(super) fn wait(
        self: &Arc<Self>,
        wanted: Duration,
        longest: impl FnOnce(Duration) -> Duration,
    ) -> Arc<WaitPermit> {
        let mut state = self.state();
        let time = whole_millis(wanted.min(longest(state.wait_budget)));
        state.wait_budget = state.wait_budget.saturating_add(time);
        drop(state);
        Arc::new(WaitPermit { time, shared: Arc::clone(self) })
    }
}

/// Wakes the task if it waits, without the lock.
fn wake(mut state: MutexGuard<'_, State>) {
    if std::mem::take(&mut state.is_parked)
        && let Some(waker) = state.waker.clone()
    {
        drop(state);
        waker.wake();
    }
}

/// Room for one request in the queue of a connection.
#[derive(Debug)]
pub(crate) struct Room {
    shared: Arc<Shared>,
    is_used: bool,
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.is_used {
            self.shared.places.add_permits(1);
        }
    }
}

/// Tells the task when the last handle is dropped.
#[derive(Debug)]
pub(super) struct LastHandle(pub(super) Arc<Shared>);

impl Drop for LastHandle {
    fn drop(&mut self) {
        self.0.signal(|signals| signals.unused = true);
    }
}

/// A permission for the broker to wait before it answers. It counts until the broker has answered: the
/// requests of one connection wait one after the other.
#[derive(Debug)]
pub(crate) struct WaitPermit {
    pub(crate) time: Duration,
    shared: Arc<Shared>,
}

impl WaitPermit {
    /// Notes that the caller has left while the broker may wait on its behalf.
    pub(super) fn abandon(&self) {
        self.shared.signal(|signals| signals.abandoned += 1);
    }

    /// Notes that the task is through with an abandoned request.
    pub(super) fn end_abandoned(&self) {
        self.shared.signal(|signals| signals.abandoned -= 1);
    }
}

impl Drop for WaitPermit {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.wait_budget = state.wait_budget.saturating_sub(self.time);
    }
}
