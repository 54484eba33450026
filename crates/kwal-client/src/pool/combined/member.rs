//! One fetch of a partition, as the tasks see it that combine it with others.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kwal_protocol::{
    api::Versions,
    messages::{FetchRequest, FetchResponse},
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::super::lock;
use crate::{
    connection::{FailureReason, RequestFailed},
    error::Error,
    memory::Reservation,
};

/// A fetch of one partition.
#[derive(Debug)]
pub(crate) struct PartitionFetch {
    /// The request, as it would be sent alone.
    pub(crate) request: FetchRequest,
    /// The versions that can express it.
    pub(crate) versions: Versions,
    /// How long the broker may wait for records.
    pub(crate) wait: Duration,
    /// When its call ends.
    pub(crate) deadline: Option<Instant>,
    /// Memory of its own for the response, which the caller holds. Otherwise it holds a part of that of the
    /// whole response.
    pub(crate) memory: Option<Weak<Reservation>>,
}

/// What a member gets.
#[derive(Debug)]
pub(super) struct Reply {
    /// The response, as if the request had been sent alone.
    pub(super) response: FetchResponse,
    /// The memory of the whole response, for one without memory of its own.
    pub(super) memory: Option<Arc<Reservation>>,
}

/// Why a member gets no response.
#[derive(Debug)]
pub(super) enum Failure {
    Request(RequestFailed),
    Response(Error),
}

/// A fetch that waits for its response.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) fetch: PartitionFetch,
    /// When its wait is over.
    pub(super) ends_at: Instant,
    /// When half of its wait is over.
    pub(super) half_at: Instant,
    /// The same fetch by a caller that has come back after an empty response, if this is kept for it.
    successor: Mutex<Option<Arc<Self>>>,
    /// Taken by the first response.
    reply: Mutex<Option<oneshot::Sender<Result<Reply, Failure>>>>,
    /// Whether it is part of the request of its connection that is under way.
    pub(super) is_asked: AtomicBool,
    /// Whether it is among those that are asked over the general connection.
    pub(super) is_interim: AtomicBool,
    /// When the last request over the general connection was sent that found nothing for it.
    interim_at: Mutex<Option<Instant>>,
    /// Whether the last response had no room for it.
    pub(super) is_skipped: AtomicBool,
    waits_for_memory: AtomicBool,
    /// Wakes the caller when that has changed.
    pub(super) changed: Notify,
}

impl Member {
    pub(super) fn new(fetch: PartitionFetch) -> (Arc<Self>, oneshot::Receiver<Result<Reply, Failure>>) {
        let (reply, received) = oneshot::channel();
        (Arc::new(Self::with_reply(fetch, Some(reply))), received)
    }

    /// Keeps the place of a fetch that got an empty response in the next request, for the caller that comes
    /// back with the same one.
    pub(super) fn kept_for(member: &Self) -> Arc<Self> {
        let PartitionFetch { request, versions, wait, .. } = &member.fetch;
        let (request, versions, wait) = (request.clone(), *versions, *wait);
        Arc::new(Self::with_reply(
            PartitionFetch { request, versions, wait, deadline: None, memory: None },
            None,
        ))
    }

    fn with_reply(fetch: PartitionFetch, reply: Option<oneshot::Sender<Result<Reply, Failure>>>) -> Self {
        let now = Instant::now();
        Self {
            ends_at: now + fetch.wait,
            half_at: now + fetch.wait / 2,
            fetch,
            successor: Mutex::default(),
            reply: Mutex::new(reply),
            is_asked: AtomicBool::new(false),
            is_interim: AtomicBool::new(false),
            interim_at: Mutex::new(None),
            is_skipped: AtomicBool::new(false),
            waits_for_memory: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// Whether both ask for the same.
    pub(super) fn asks_the_same(&self, other: &Self) -> bool {
        let (this, that) = (&self.fetch, &other.fetch);
        let (one, two) = (&this.request, &that.request);
        (one.isolation_level, one.max_bytes, &one.topics) == (two.isolation_level, two.max_bytes, &two.topics)
            && this.versions == that.versions
    }

    /// Lets a fetch that asks for the same take the place of this one in the request that is under way.
    pub(super) fn set_successor(&self, successor: &Arc<Self>) {
        *lock(&self.successor) = Some(Arc::clone(successor));
    }

    /// Returns the one that takes what the response has for this one.
    pub(super) fn recipient(self: &Arc<Self>) -> Arc<Self> {
        Arc::clone(lock(&self.successor).as_ref().unwrap_or(self))
    }

    /// Whether it has got its response, or nobody waits for that any more.
    pub(super) fn is_done(&self) -> bool {
        lock(&self.reply).as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// When it has to be asked over the general connection, and whether it should be if others are.
    pub(super) fn interim_due(&self, now: Instant, interval: Duration) -> (Instant, bool) {
        let Some(at) = *lock(&self.interim_at) else { return (now, true) };
        let due = match at < self.ends_at {
            true => self.ends_at.min(at + interval),
            false => at + interval,
        };
        (due, due <= now || at + interval / 2 <= now)
    }

    pub(super) fn set_interim_at(&self, at: Instant) {
        *lock(&self.interim_at) = Some(at);
    }

    /// Completes it with a response of `len` bytes, unless another one came first. `memory` is that of the
    /// whole response, if this one keeps a part of it.
    pub(super) fn respond(&self, response: FetchResponse, len: usize, memory: Option<&Arc<Reservation>>) {
        let Some(reply) = lock(&self.reply).take() else { return };
        let memory = match &self.fetch.memory {
            Some(own) => {
                if let Some(own) = own.upgrade() {
                    own.correct(memory.map_or(0, |_| len));
                }
                None
            }
            None => memory.cloned(),
        };
        drop(reply.send(Ok(Reply { response, memory })));
    }

    /// Completes it without a response.
    pub(super) fn fail(&self, failure: Failure) {
        if let Some(reply) = lock(&self.reply).take() {
            drop(reply.send(Err(failure)));
        }
    }

    /// Completes it with the reason why its request got no response.
    pub(super) fn fail_request(&self, reason: FailureReason, sent: bool) {
        // The broker may have closed the connection for any of those in the request.
        self.fail(Failure::Request(RequestFailed { reason, sent, was_next: false }));
    }

    pub(super) fn set_waits_for_memory(&self, waits: bool) {
        if self.waits_for_memory.swap(waits, Ordering::Relaxed) != waits {
            self.changed.notify_one();
        }
    }

    pub(super) fn waits_for_memory(&self) -> bool {
        self.waits_for_memory.load(Ordering::Relaxed)
    }
}
