//! Fetches of partition clients that share a connection, combined into one request.
//!
//! A broker works on one request of a connection at a time, so a reader would wait for the long polls of all
//! others. Instead, one request at a time asks for all partitions that somebody waits for. A fetch that comes
//! while it is under way is asked over the general connection, together with others, without a wait, until
//! the next request includes it. Not so one that comes back after an empty response: its place in the next
//! request is kept for it.
//!
//! All of this is done with whole responses: what a fetch gets is the response to its own request.

mod interim;
mod member;
mod merge;

use std::{
    pin::pin,
    sync::{Arc, Mutex, Weak, atomic::Ordering},
    time::Duration,
};

use kwal_protocol::{
    api::{ApiKey, Versions},
    connection::{ConnectionError, RawResponse},
    messages::{FetchRequest, FetchResponse},
};
use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, sleep},
};

pub(super) use self::interim::Interim;
pub(crate) use self::member::PartitionFetch;
use self::{
    member::{Failure, Member, Reply},
    merge::{Combined, Part, combine},
};
use super::{Channel, Closed, ConnectionPool, PooledConnection, Purpose, channel::Sent, lock};
use crate::{
    config::Config,
    connection::{CallOptions, Connection, FailureReason, RequestFailed},
    error::{CallContext, Error},
    memory::{Memory, Reservation},
};

/// So often those are asked again that are not part of a long poll.
const INTERVAL: Duration = Duration::from_millis(20);
/// The longest wait of a combined request. What comes meanwhile is asked in [`INTERVAL`]s.
const LONGEST_POLL: Duration = Duration::from_millis(500);
/// How often other tasks get their turn before the next request, as long as further fetches come.
const TURNS: usize = 8;

/// The fetches that share a connection.
#[derive(Debug, Default)]
pub(super) struct FetchQueue {
    state: Mutex<State>,
    /// Wakes the task.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they are asked, those included that a request is under way for.
    waiting: Vec<Arc<Member>>,
    /// Whether there is a task that asks.
    has_task: bool,
    /// Whether its request is under way.
    is_asking: bool,
    waits_for_memory: bool,
    /// How many fetches are under way that are not combined.
    alone: usize,
    /// The places of those that just got an empty response, for the next request. Most of them come back at
    /// once, and would have to wait for the one after it.
    kept: Vec<Arc<Member>>,
    /// Those in the request that is under way that nobody has come back for.
    free: Vec<Arc<Member>>,
}

impl State {
    /// Lets a fetch take a place that was kept for it.
    fn takes_kept_place(&mut self, member: &Arc<Member>) -> bool {
        let Some(place) = self.free.iter().position(|kept| kept.asks_the_same(member)) else { return false };
        self.free.remove(place).set_successor(member);
        member.is_asked.store(true, Ordering::Relaxed);
        true
    }
}

/// Counts as a fetch that is not combined until it is dropped.
#[derive(Debug)]
pub(crate) struct Alone(Arc<PooledConnection>);

impl Drop for Alone {
    fn drop(&mut self) {
        lock(&self.0.fetches.state).alone -= 1;
        self.0.fetches.changed.notify_one();
    }
}

/// Lets the tasks notice that a fetch has ended.
struct Leave<'a> {
    fetches: &'a FetchQueue,
    interim: Option<Arc<PooledConnection>>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.fetches.changed.notify_one();
        if let Some(interim) = &self.interim {
            interim.interim.changed.notify_one();
        }
    }
}

impl FetchQueue {
    /// Lets the task notice that the connection is no longer leased.
    pub(super) fn released(&self) {
        self.changed.notify_one();
    }
}

impl Channel {
    /// Whether fetches are combined, because other partition clients share the connection, or the broker
    /// works on a fetch of another reader.
    pub(crate) fn combines_fetches(&self) -> bool {
        let pooled = &self.pooled;
        let is_shared = || {
            let state = lock(&pooled.fetches.state);
            state.has_task || state.alone > 0
        };
        pooled.purpose == Purpose::Fetch && (pooled.leases.load(Ordering::Relaxed) > 1 || is_shared())
    }

    /// Notes that a fetch is under way that is not combined, until the result is dropped.
    pub(crate) fn fetch_alone(&self) -> Alone {
        lock(&self.pooled.fetches.state).alone += 1;
        Alone(Arc::clone(&self.pooled))
    }

    /// Sends a fetch of one partition together with others, and returns the response as if it had been sent
    /// alone, and the memory that it holds. It is empty if there was nothing to read until the wait was over,
    /// or half of it if that of others was.
    ///
    /// `waits_for_memory` is called when the request begins or ends to wait for memory.
    pub(crate) async fn fetch(
        &self,
        pool: &Arc<ConnectionPool>,
        fetch: PartitionFetch,
        call: CallContext<'_>,
        closed: &Closed,
        waits_for_memory: impl Fn(bool),
    ) -> Result<(FetchResponse, Option<Arc<Reservation>>), Error> {
        let sent = Sent { size: 0, begun: Instant::now() };
        let (member, received) = Member::new(fetch);
        let interim = pool.general_place(&self.pooled);
        // Dropped after what it would receive.
        let _leave = Leave { fetches: &self.pooled.fetches, interim };
        let mut received = pin!(received);
        pool.enqueue(&self.pooled, &member);
        let shutdown = || RequestFailed { reason: FailureReason::Shutdown, sent: true, was_next: false };
        loop {
            let reply = tokio::select! {
                biased;
                reply = &mut received => reply,
                () = member.changed.notified() => {
                    waits_for_memory(member.waits_for_memory());
                    continue;
                }
            };
            return match reply.unwrap_or_else(|_| Err(Failure::Request(shutdown()))) {
                Ok(Reply { response, memory }) => {
                    closed.clear();
                    Ok((response, memory))
                }
                Err(Failure::Request(failed)) => Err(self.failed::<FetchRequest>(call, sent, closed, failed)),
                Err(Failure::Response(error)) => Err(error.with_context(call.at_broker(self.broker()))),
            };
        }
    }
}

impl ConnectionPool {
    /// Puts a fetch on the queue of its connection, and among those that are asked in the interim if that is
    /// busy.
    fn enqueue(self: &Arc<Self>, pooled: &Arc<PooledConnection>, member: &Arc<Member>) {
        let (is_first, is_busy) = {
            let state = &mut *lock(&pooled.fetches.state);
            state.waiting.push(Arc::clone(member));
            member.set_waits_for_memory(state.waits_for_memory);
            let is_busy = (state.is_asking || pooled.is_busy(state)) && !state.takes_kept_place(member);
            (!std::mem::replace(&mut state.has_task, true), is_busy)
        };
        match is_first {
            true => drop(self.runtime.spawn(Task::new(self, pooled).run())),
            false => pooled.fetches.changed.notify_one(),
        }
        if is_busy {
            self.ask_in_the_interim(pooled, std::slice::from_ref(member));
        }
    }

    /// Returns the place of the connection for short requests to the same broker.
    fn general_place(&self, pooled: &PooledConnection) -> Option<Arc<PooledConnection>> {
        let state = lock(&self.state);
        let connections = state.connections.get(&pooled.broker.reference)?;
        Arc::ptr_eq(&connections.broker, &pooled.broker).then(|| Arc::clone(&connections.general))
    }
}

impl PooledConnection {
    /// Whether the broker works on a fetch that is not combined. Without a connection it works on none, also
    /// if nobody has polled that one since the connection was lost.
    fn is_busy(&self, state: &State) -> bool {
        self.connection().is_some_and(|connection| state.alone > 0 || connection.has_abandoned())
    }
}

/// What the tasks need to ask.
#[derive(Debug)]
struct Asking {
    pool: Weak<ConnectionPool>,
    config: Arc<Config>,
    memory: Memory,
}

impl Asking {
    fn new(pool: &Arc<ConnectionPool>) -> Self {
        Self { pool: Arc::downgrade(pool), config: Arc::clone(&pool.config), memory: pool.memory.clone() }
    }

    /// Removes the fetches that a request can have, from the first one on.
    fn combine(
        &self,
        waiting: Vec<Arc<Member>>,
        connection: &Connection,
    ) -> (Option<Combined>, Vec<Arc<Member>>) {
        let version = |versions: Versions| connection.versions().negotiate(ApiKey::FETCH, versions).ok();
        let is_supported = |member: &Arc<Member>| version(member.fetch.versions).is_some();
        let (waiting, unsupported): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_supported);
        for member in unsupported {
            // The versions of the broker have changed, so it has to be made anew.
            member.fail_request(FailureReason::Connection(ConnectionError::Closed), false);
        }
        combine(waiting, version, self.config.limits.frame)
    }

    /// Sends a request, with which the broker may wait for so long.
    async fn ask(
        &self,
        connection: &Connection,
        combined: &Combined,
        wait: Duration,
        memory: &Arc<Reservation>,
    ) -> Result<RawResponse, Failure> {
        let permit = (!wait.is_zero()).then(|| connection.wait(wait));
        let wait = permit.as_ref().map_or(Duration::ZERO, |permit| permit.time);
        let max_wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let request = FetchRequest { max_wait_ms, ..combined.request.clone() };
        let encoded = connection.versions().encode(&request, combined.versions);
        let encoded = encoded.map_err(|error| Failure::Response(Error::invalid_input(error.to_string())))?;
        let limit = self.config.deadlines.request.saturating_add(wait);
        let (deadline, memory) = (combined.deadline(), Some(Arc::clone(memory)));
        let options = CallOptions { limit: Some(limit), deadline, permit, memory };
        connection.call::<FetchRequest>(encoded, options).await.map_err(Failure::Request)
    }
}

/// Hands a response to those that it is for, and returns those that got an empty one, since there was nothing
/// to read. Those that it had no room for have to be asked again.
///
/// When a request ends without anything to read, since the wait of one of them is over, `is_shared_wait` ends
/// the waits of all others that are half over: so they end together from then on, and not each with a request
/// of its own.
fn deliver(
    combined: &Combined,
    response: RawResponse,
    memory: &Arc<Reservation>,
    is_shared_wait: bool,
) -> Vec<Arc<Member>> {
    let len = response.frame().len();
    let response = match response.decode::<FetchRequest>() {
        Ok(response) => response,
        Err(source) => {
            let error = Error::from(source);
            deliver_failure(combined, &Failure::Response(error));
            return Vec::new();
        }
    };
    let Some(parts) = combined.split(response) else { return Vec::new() };
    let now = Instant::now();
    let is_empty = parts.iter().all(|part| matches!(part, Part::Empty(_)));
    let members: Vec<_> = combined.members.iter().map(Member::recipient).collect();
    let is_over =
        is_shared_wait && is_empty && members.iter().any(|member| member.ends_at <= now && !member.is_done());
    let mut idle = Vec::new();
    for (member, part) in members.into_iter().zip(parts) {
        let ends_at = if is_over { member.half_at } else { member.ends_at };
        match part {
            Part::Answer(response) => member.respond(response, len, Some(memory)),
            Part::Empty(response) if ends_at <= now && !member.is_done() => {
                member.respond(response, len, None);
                idle.push(member);
            }
            Part::Empty(_) => {}
            Part::Skipped => member.is_skipped.store(true, Ordering::Relaxed),
        }
    }
    idle
}

/// Hands the failure of a request to those that it was for.
fn deliver_failure(combined: &Combined, failure: &Failure) {
    for member in combined.members.iter().map(Member::recipient) {
        match failure {
            Failure::Request(failed) => member.fail_request(failed.reason.clone(), failed.sent),
            Failure::Response(error) => member.fail(Failure::Response(error.clone())),
        }
    }
}

/// Runs a future as long as `is_wanted`, which is called when `changed` wakes.
async fn while_wanted<T>(
    changed: &Notify,
    is_wanted: impl Fn() -> bool,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            biased;
            done = &mut future => return Some(done),
            () = changed.notified() => if !is_wanted() {
                return None;
            },
        }
    }
}

/// Asks for what is on the queue of a connection, as long as there is something.
#[derive(Debug)]
struct Task {
    asking: Asking,
    pooled: Arc<PooledConnection>,
    /// Whether the queue was empty at its end.
    has_ended: bool,
}

impl Drop for Task {
    /// Reports the end to those that are left when the runtime shuts down.
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let waiting = {
            let state = &mut *lock(&self.pooled.fetches.state);
            (state.has_task, state.is_asking, state.waits_for_memory) = (false, false, false);
            (state.kept, state.free) = (Vec::new(), Vec::new());
            std::mem::take(&mut state.waiting)
        };
        waiting.iter().for_each(|member| member.fail_request(FailureReason::Shutdown, true));
    }
}

impl Task {
    fn new(pool: &Arc<ConnectionPool>, pooled: &Arc<PooledConnection>) -> Self {
        Self { asking: Asking::new(pool), pooled: Arc::clone(pooled), has_ended: false }
    }

    async fn run(mut self) {
        while let Some(bytes) = self.next().await {
            let Some(memory) = self.reserve(bytes).await else { continue };
            let Some(connection) = self.pooled.connection() else {
                self.fail_all();
                continue;
            };
            if let Some(combined) = self.combine(&connection) {
                let idle = self.ask(&connection, &combined, Arc::new(memory)).await;
                self.finish(&combined, &idle);
                drop((combined, idle));
                // Those that have got something come back, as a rule.
                self.yield_now().await;
            }
        }
    }

    /// Waits until a request can be sent. Returns how many bytes to ask for; `None` if nobody waits.
    async fn next(&mut self) -> Option<usize> {
        loop {
            let waiting = {
                let state = &mut *lock(&self.pooled.fetches.state);
                state.waiting.retain(|member| !member.is_done());
                if state.waiting.is_empty() {
                    (state.has_task, self.has_ended) = (false, true);
                    return None;
                }
                if !self.pooled.is_busy(state) {
                    let bytes = state.waiting.iter().map(|member| member.fetch.request.max_bytes).max();
                    return bytes.map(|bytes| usize::try_from(bytes).unwrap_or_default());
                }
                state.waiting.clone()
            };
            self.ask_in_the_interim(&waiting);
            tokio::select! {
                biased;
                () = self.pooled.fetches.changed.notified() => {}
                // Nothing reports when the broker has answered what nobody waits for any more.
                () = sleep(INTERVAL) => {}
            }
        }
    }

    fn ask_in_the_interim(&self, members: &[Arc<Member>]) {
        if let Some(pool) = self.asking.pool.upgrade() {
            pool.ask_in_the_interim(&self.pooled, members);
        }
    }

    /// Whether somebody waits, or may come back soon.
    fn is_wanted(&self) -> bool {
        self.pooled.leases.load(Ordering::Relaxed) > 0
            || lock(&self.pooled.fetches.state).waiting.iter().any(|member| !member.is_done())
    }

    /// Waits for memory; `None` if nobody is left.
    async fn reserve(&self, bytes: usize) -> Option<Reservation> {
        if let Some(memory) = self.asking.memory.try_reserve_read(bytes) {
            return Some(memory);
        }
        let set = |waits: bool| {
            let state = &mut *lock(&self.pooled.fetches.state);
            state.waits_for_memory = waits;
            state.waiting.iter().for_each(|member| member.set_waits_for_memory(waits));
        };
        set(true);
        let is_wanted = || lock(&self.pooled.fetches.state).waiting.iter().any(|member| !member.is_done());
        let memory = self.asking.memory.reserve_read(bytes);
        let memory = while_wanted(&self.pooled.fetches.changed, is_wanted, memory).await;
        set(false);
        memory
    }

    fn fail_all(&self) {
        let waiting = std::mem::take(&mut lock(&self.pooled.fetches.state).waiting);
        for member in waiting {
            member.fail_request(FailureReason::Connection(ConnectionError::Closed), false);
        }
    }

    /// Makes the next request of those that wait.
    fn combine(&self, connection: &Connection) -> Option<Combined> {
        let (ended, combined, left, until) = {
            let state = &mut *lock(&self.pooled.fetches.state);
            let mut waiting = std::mem::take(&mut state.waiting);
            waiting.retain(|member| !member.is_done());
            let (kept, now) = (std::mem::take(&mut state.kept), Instant::now());
            if !waiting.is_empty() {
                // Not for those that would have come back by now.
                waiting.extend(kept.into_iter().filter(|member| now < member.half_at));
            }
            let (mut combined, mut left) = self.asking.combine(waiting, connection);
            left.retain(|member| !member.is_done());
            let until = connection.throttled_until().filter(|until| *until > Instant::now());
            let ended = match (&mut combined, until) {
                (Some(combined), Some(until)) => combined.split_off_ended(until),
                _ => Vec::new(),
            };
            let combined = combined.filter(|combined| !combined.members.is_empty());
            // What is left is the first of the next request.
            state.waiting.extend(left.iter().cloned());
            if let Some(combined) = &combined {
                combined.set_asked(true);
                state.is_asking = true;
                let (free, waiting): (Vec<_>, Vec<_>) =
                    combined.members.iter().cloned().partition(|member| member.is_done());
                state.waiting.extend(waiting);
                state.free = free;
            }
            (ended, combined, left, until)
        };
        // They would end before the broker accepts the next request.
        for member in ended {
            let rest = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
            member.fail_request(FailureReason::Throttled(rest), false);
        }
        if combined.is_some() {
            self.ask_in_the_interim(&left);
        }
        combined
    }

    /// Sends a request, and hands out the response. Returns those that got an empty one.
    async fn ask(
        &self,
        connection: &Connection,
        combined: &Combined,
        memory: Arc<Reservation>,
    ) -> Vec<Arc<Member>> {
        memory.correct(combined.bytes());
        let wait = combined.wait(Instant::now()).min(LONGEST_POLL);
        let response = self.asking.ask(connection, combined, wait, &memory);
        let is_wanted = || self.is_wanted();
        match while_wanted(&self.pooled.fetches.changed, is_wanted, response).await {
            Some(Ok(response)) => return deliver(combined, response, &memory, true),
            Some(Err(failure)) => deliver_failure(combined, &failure),
            None => {}
        }
        Vec::new()
    }

    /// Notes that a request is over. Those that it had no room for come first in the next one.
    fn finish(&self, combined: &Combined, idle: &[Arc<Member>]) {
        let state = &mut *lock(&self.pooled.fetches.state);
        combined.set_asked(false);
        state.is_asking = false;
        state.free = Vec::new();
        state.kept = idle.iter().map(|member| Member::kept_for(member)).collect();
        state.waiting.retain(|member| !member.is_done());
        state.waiting.sort_by_key(|member| !member.is_skipped.load(Ordering::Relaxed));
        state.waiting.iter().for_each(|member| member.is_skipped.store(false, Ordering::Relaxed));
    }

    async fn yield_now(&self) {
        let count = || lock(&self.pooled.fetches.state).waiting.len();
        for _ in 0..TURNS {
            let before = count();
            yield_now().await;
            if count() == before {
                break;
            }
        }
    }
}
