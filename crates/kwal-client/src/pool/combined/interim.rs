//! Fetches whose connection is busy with a long poll: asked over the general connection, without a wait.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use super::{
    super::{ConnectionPool, PooledConnection, lock},
    Asking, INTERVAL, deliver, deliver_failure,
    member::{Failure, Member},
    while_wanted,
};
use crate::{connection::Connection, memory::Reservation};

/// The fetches that are asked over the general connection.
#[derive(Debug, Default)]
pub(in super::super) struct Interim {
    state: Mutex<State>,
    /// Wakes the task.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Arc<Member>>,
    /// Whether there is a task that asks.
    has_task: bool,
}

impl ConnectionPool {
    /// Asks for some partitions over the general connection, until they are part of the request of their own
    /// connection, or have got a response.
    pub(super) fn ask_in_the_interim(self: &Arc<Self>, pooled: &PooledConnection, members: &[Arc<Member>]) {
        let Some(general) = self.general_place(pooled).filter(|general| pooled.may_be_bypassed_by(general))
        else {
            return;
        };
        let is_first = {
            let state = &mut *lock(&general.interim.state);
            for member in members {
                if !member.is_done() && !member.is_interim.swap(true, Ordering::Relaxed) {
                    state.members.push(Arc::clone(member));
                }
            }
            !state.members.is_empty() && !std::mem::replace(&mut state.has_task, true)
        };
        match is_first {
            true => {
                let asking = Asking::new(self);
                drop(self.runtime.spawn(InterimTask { asking, general, has_ended: false }.run()));
            }
            false => general.interim.changed.notify_one(),
        }
    }
}

impl PooledConnection {
    /// Whether another connection may be asked for what this one is busy for: not if the broker throttles
    /// this one, nor if they are the same.
    fn may_be_bypassed_by(&self, general: &Self) -> bool {
        self.connection().is_none_or(|connection| {
            let is_throttled = connection.throttled_until().is_some_and(|until| until > Instant::now());
            !is_throttled && general.connection().is_none_or(|general| !general.is(&connection))
        })
    }
}

/// There was no connection, or no response.
#[derive(Debug, PartialEq)]
struct Unanswered;

/// Asks for what is in the interim list, as long as there is something.
#[derive(Debug)]
struct InterimTask {
    asking: Asking,
    general: Arc<PooledConnection>,
    has_ended: bool,
}

impl Drop for InterimTask {
    /// Leaves those that are left to the requests of their own connections.
    fn drop(&mut self) {
        if !self.has_ended {
            let state = &mut *lock(&self.general.interim.state);
            (state.has_task, state.members) = (false, Vec::new());
        }
    }
}

impl InterimTask {
    async fn run(mut self) {
        while let Some(members) = self.next() {
            let now = Instant::now();
            let due = members.iter().map(|member| member.interim_due(now, INTERVAL).0).min().unwrap_or(now);
            if due > now {
                tokio::select! {
                    biased;
                    () = self.general.interim.changed.notified() => {}
                    () = sleep_until(due) => {}
                }
                continue;
            }
            let is_wanted = || members.iter().any(|member| !member.is_done());
            let should = |member: &&Arc<Member>| member.interim_due(now, INTERVAL).1;
            let asked = self.ask(members.iter().filter(should).cloned().collect());
            if while_wanted(&self.general.interim.changed, is_wanted, asked).await == Some(Err(Unanswered)) {
                sleep(INTERVAL).await;
            }
        }
    }

    /// Returns those that wait for a response; `None` if there are none.
    fn next(&mut self) -> Option<Vec<Arc<Member>>> {
        let state = &mut *lock(&self.general.interim.state);
        state.members.retain(|member| {
            let stays = !member.is_done() && !member.is_asked.load(Ordering::Relaxed);
            if !stays {
                member.is_interim.store(false, Ordering::Relaxed);
            }
            stays
        });
        if state.members.is_empty() {
            (state.has_task, self.has_ended) = (false, true);
            return None;
        }
        Some(state.members.clone())
    }

    /// Asks for as many of them as one request can have. The others are still due, and come first then.
    async fn ask(&self, members: Vec<Arc<Member>>) -> Result<(), Unanswered> {
        let connection = self.connection().await.ok_or(Unanswered)?;
        let memory = Arc::new(self.reserve(&members).await);
        let waiting = members.into_iter().filter(|member| !member.is_done()).collect();
        let (Some(combined), _) = self.asking.combine(waiting, &connection) else { return Ok(()) };
        memory.correct(combined.bytes());
        let sent_at = Instant::now();
        let response = self.asking.ask(&connection, &combined, Duration::ZERO, &memory).await;
        let response = match response {
            Ok(response) => response,
            // They still wait for the request of their own connection.
            Err(Failure::Request(_)) => return Err(Unanswered),
            Err(failure) => {
                deliver_failure(&combined, &failure);
                return Ok(());
            }
        };
        drop(deliver(&combined, response, &memory, false));
        for member in &combined.members {
            if !member.is_skipped.swap(false, Ordering::Relaxed) {
                member.set_interim_at(sent_at);
            }
        }
        Ok(())
    }

    async fn reserve(&self, members: &[Arc<Member>]) -> Reservation {
        let bytes = members.iter().map(|member| member.fetch.request.max_bytes).max().unwrap_or_default();
        let bytes = usize::try_from(bytes).unwrap_or_default();
        if let Some(memory) = self.asking.memory.try_reserve_read(bytes) {
            return memory;
        }
        members.iter().for_each(|member| member.set_waits_for_memory(true));
        let memory = self.asking.memory.reserve_read(bytes).await;
        members.iter().for_each(|member| member.set_waits_for_memory(false));
        memory
    }

    /// Returns the general connection, if there is one that is not that of somebody's long poll.
    async fn connection(&self) -> Option<Connection> {
        if self.general.connection().is_none() {
            let pool = self.asking.pool.upgrade()?;
            pool.connect_or_borrow(&self.general).await.ok()?;
        }
        self.general.own_connection()
    }
}
