//! The submitted appends of one partition: what handles, the task of the connection and the producer task
//! share.
//!
//! All of them drive the same [state machine](super::state) under one lock. A submitted batch is sent from
//! where it is submitted, and the next ones from where a response arrives, which is the task of the
//! connection. What has to be waited for is left to the [producer task](super::task).

mod ends;

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kwal_protocol::{
    api::ApiKey,
    connection::{ProduceTemplate, RawResponse},
    messages::ProduceRequest,
    record::EncodedBatch,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use super::{
    Produced,
    append::{Attempt, request},
    exclusive::Hold,
    results::{Ended, Reply},
    settings::Settings,
    state::{self, Action, Standing, Token, Transmit},
    task::Link,
};
use crate::{
    connection::{Recipient, RequestFailed, Room},
    error::{CallContext, Error, ErrorKind, Outcome, Progress, Source},
    locked::{Locked, Owner},
    memory::Reservation,
    metrics::AppendTiming,
    pool::{Closed, Purpose, Sent, SubmitError},
    producer_id::{Identity, Stamp},
    routing::{Deadline, Opened, Partition, Target, Tracker, rejected},
};

/// How many appends of one partition may be submitted and not completed. Further ones wait.
const CAPACITY: usize = 64;

/// An append whose place in the order is fixed.
#[derive(Debug)]
pub(super) struct PendingBatch {
    pub(super) batch: EncodedBatch,
    pub(super) reply: Reply,
    /// What the broker reported of it.
    pub(super) reported: Option<Produced>,
    /// Whether it is appended to settle others, whose errors its caller knows.
    pub(super) is_fence: bool,
    pub(super) timing: AppendTiming,
    /// Its parts of the client's memory and of the queue, given back when it is completed.
    pub(super) _memory: Reservation,
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

pub(super) struct Appends {
    pub(super) partition: Arc<Partition>,
    pub(super) settings: Settings,
    /// How the log is held exclusively, if it is.
    pub(super) hold: Option<Hold>,
    state: Mutex<State>,
    /// Wakes the producer task.
    wake: Notify,
    /// Wakes those that wait until nothing is left.
    drained: Notify,
    /// Wakes those that wait until nothing can be appended any more.
    ended: Notify,
    /// Locked by the caller that is next to submit. It is fair, so the first caller submits first, on
    /// whatever thread.
    turn: tokio::sync::Mutex<()>,
    places: Arc<Semaphore>,
    /// Never has a permit, and is closed when there will be no more places.
    open: Semaphore,
    /// What the producer task waits for.
    pub(super) tracker: Tracker,
    /// What became of the last request.
    pub(super) closed: Closed,
    /// How many errors are on their way to their callers.
    pub(super) unseen: Arc<AtomicUsize>,
    this: Weak<Self>,
}

pub(super) struct State {
    pub(super) machine: state::Producer<PendingBatch, Error>,
    /// The connection to the leader.
    pub(super) link: Option<Link>,
    /// The leader epoch of the last acknowledgement; −1 if there is none.
    pub(super) acknowledged_in: i32,
    /// The requests on the connection.
    sent: Vec<InFlight>,
    /// Responses that the producer task has to handle, in order.
    unhandled: VecDeque<(Token, Result<Produced, Error>)>,
    /// What the producer task has to do next.
    action: Option<Action>,
    /// The connection took no more requests.
    is_blocked: bool,
    /// Room on it for one more.
    room: Option<Room>,
    /// When the producer task wakes up by itself.
    wakes_at: Option<Instant>,
    /// The producer task wants to know of the next acknowledgement.
    is_retrying: bool,
    /// An append was acknowledged since.
    has_progressed: bool,
    /// No handle is left: the task ends when it is done.
    is_unused: bool,
    /// What has ended and its caller has not got yet.
    pub(super) ended: Ended,
    /// The error of the last append that failed by itself.
    pub(super) cause: Option<Arc<Error>>,
    /// The errors of appends since the partition client was closed.
    pub(super) failed: Option<Vec<Error>>,
}

impl State {
    /// Returns how many requests are on the connection, and their size in bytes.
    pub(super) fn requests(&self) -> (usize, usize) {
        (self.sent.len(), self.sent.iter().map(|request| request.sent.size).sum())
    }
}

/// A request on the connection.
struct InFlight {
    token: Token,
    attempt: Attempt,
    sent: Sent,
}

/// What the producer task does next.
pub(super) enum Step {
    /// Nothing is left and nobody can submit anything.
    End,
    /// Handle a response that was not a success, or that came after one.
    Handle(Token, Result<Produced, Error>),
    Act(Action),
    /// Wait until the connection takes more requests.
    AwaitRoom(Opened),
    Wait,
}

/// Callers get what has ended when the state is unlocked: to wake one may run any code.
impl Owner for Appends {
    type State = State;

    fn unlock(&self, mut state: MutexGuard<'_, State>) {
        let ended = (!state.ended.is_empty()).then(|| std::mem::take(&mut state.ended));
        let is_drained = state.failed.is_some() && state.machine.is_idle();
        let has_ended = state.machine.ended().is_some();
        drop(state);
        if let Some(ended) = ended {
            ended.deliver(self);
        }
        if has_ended {
            self.ended.notify_waiters();
        }
        if is_drained {
            self.drained.notify_waiters();
        }
    }
}

impl fmt::Debug for Appends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appends").field("partition", &self.partition).finish_non_exhaustive()
    }
}

impl Appends {
    pub(super) fn new(partition: Arc<Partition>, settings: Settings, hold: Option<Hold>) -> Arc<Self> {
        let mut machine = state::Producer::new(settings.machine());
        if let Some(hold) = &hold {
            machine.handle_identity(hold.confirmed_at.into_std(), hold.start);
        }
        Arc::new_cyclic(|this| Self {
            state: Mutex::new(State {
                machine,
                link: None,
                acknowledged_in: -1,
                sent: Vec::new(),
                unhandled: VecDeque::new(),
                action: None,
                is_blocked: false,
                room: None,
                wakes_at: None,
                is_retrying: false,
                has_progressed: false,
                is_unused: false,
                ended: Ended::default(),
                cause: None,
                failed: None,
            }),
            partition,
            settings,
            hold,
            wake: Notify::new(),
            drained: Notify::new(),
            ended: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            places: Arc::new(Semaphore::new(CAPACITY)),
            open: Semaphore::new(0),
            tracker: Tracker::new(),
            closed: Closed::default(),
            unseen: Arc::default(),
            this: Weak::clone(this),
        })
    }

    /// The state, locked, for what changes nothing.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> Locked<'_, Self> {
        Locked::new(self, self.state())
    }

    pub(super) fn call(&self) -> CallContext<'_> {
        let call = self.partition.call(ApiKey::PRODUCE);
        match &self.hold {
            Some(hold) => call.with_transactional_id(&hold.transactional_id),
            None => call,
        }
    }

    fn target(&self) -> Target<'_> {
        Target::Leader(&self.partition, Purpose::Produce)
    }

    // For callers

    /// Waits for the turn to submit.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => self.turn.lock().await,
        }
    }

    /// Waits for a place. `None` if there will not be one.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Some(place) = self.try_place() {
            return Some(place);
        }
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Takes a place, if there is one now.
    pub(super) fn try_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Returns the error of an append that would leave a hole behind one that has failed.
    pub(super) fn preceding_failed(&self) -> Error {
        self.preceding_failed_of(&self.lock())
    }

    fn preceding_failed_of(&self, state: &State) -> Error {
        let error = self.call().error(ErrorKind::PrecedingAppendFailed);
        match &state.cause {
            Some(cause) => error.with_source(Source::Call(Arc::clone(cause))),
            None => error,
        }
    }

    /// Notes the error of an append that failed before it was submitted: the cause of those that follow.
    pub(super) fn failed_with(&self, error: Error) {
        self.lock().cause = Some(Arc::new(error));
    }

    /// Waits until there will be no more places.
    pub(super) async fn closed(&self) {
        // It has none, so this ends only when it is closed.
        drop(self.open.acquire().await);
    }

    /// Fixes the place of an append in the order, and sends it if nothing has to be waited for.
    ///
    /// Once the partition client is closed, nothing is accepted.
    pub(super) fn submit(&self, batch: PendingBatch, deadline: Deadline) {
        let state = &mut *self.lock();
        if state.failed.is_some() {
            return state.ended.fail(batch, self.call().error(ErrorKind::Closed), None);
        }
        // The caller does not know yet that this append would leave a hole.
        if !batch.is_fence && self.unseen.load(Ordering::Acquire) > 0 {
            let error = self.preceding_failed_of(state);
            let unseen = self.unseen_by_many(&batch.reply);
            return state.ended.fail(batch, error, unseen);
        }
        let records = batch.batch.record_count();
        let Deadline { at, after } = deadline;
        state.machine.submit(batch, records, state::Deadline { at: at.into_std(), after });
        let now = Instant::now();
        if at <= now {
            state.machine.handle_timeout(now.into_std());
            self.complete(state, Some(Progress::NotStarted));
        }
        self.go_on_at(state, now);
        // Only here: the producer task itself goes on whenever it wakes up.
        if state.machine.is_renewal_in_the_way() {
            self.wake.notify_one();
        }
    }

    /// Ends the appends of a group, whose time of `after` is over.
    pub(super) fn end_group(&self, group: usize, after: Duration) {
        let state = &mut *self.lock();
        state.machine.end_time(Instant::now().into_std(), after, |pending| pending.reply.is_of(group));
        self.go_on(state);
    }

    /// Ends appends whose time is over, for a caller that has waited in vain for the producer task to do it.
    pub(super) fn expire(&self) {
        let state = &mut *self.lock();
        state.machine.handle_timeout(Instant::now().into_std());
        self.complete(state, Some(Progress::Runtime));
        self.go_on(state);
    }

    /// Returns the producer id and epoch of the next batch, if they are known.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.lock().machine.identity()
    }

    /// Whether a batch in doubt needs a fence, and whose.
    pub(super) fn standing(&self, stamp: Stamp) -> Standing {
        self.lock().machine.standing(stamp)
    }

    // For both tasks

    /// Does everything that needs no wait, and wakes the producer task for the rest.
    fn go_on(&self, state: &mut State) {
        self.go_on_at(state, Instant::now());
    }

    fn go_on_at(&self, state: &mut State, now: Instant) {
        self.advance(state, now);
        let timeout = state.machine.poll_timeout().map(Instant::from_std);
        let is_earlier = timeout.is_some_and(|at| state.wakes_at.is_none_or(|wakes_at| at < wakes_at));
        let is_over = state.is_retrying && (state.has_progressed || state.machine.is_idle());
        let has_ended = state.is_unused && state.machine.is_finished();
        if state.action.is_some()
            || !state.unhandled.is_empty()
            || state.is_blocked
            || is_earlier
            || is_over
            || has_ended
        {
            self.wake.notify_one();
        }
    }

    /// Does everything that needs no wait.
    fn advance(&self, state: &mut State, now: Instant) {
        self.complete(state, None);
        self.transmit(state, now);
        // Others wait for it, too.
        state.room = None;
        self.complete(state, None);
        if state.action.is_none() {
            state.action = state.machine.poll_action(now.into_std());
        }
    }

    /// Sends what may be sent.
    fn transmit(&self, state: &mut State, now: Instant) {
        if let Some(link) = &mut state.link
            && state.machine.uses_connection()
            && !self.is_current(link)
        {
            state.machine.handle_disconnected();
        }
        let State { machine, link: Some(link), sent, unhandled, is_blocked, room, .. } = state else {
            return;
        };
        while let Some(transmit) = machine.poll_transmit(now.into_std()) {
            let token = transmit.token;
            match self.send(link, &transmit, room.take()) {
                Ok((attempt, size)) => {
                    sent.push(InFlight { token, attempt, sent: Sent { size, begun: now } });
                }
                // The connection is shared with other partitions.
                Err(SubmitError::Full) => {
                    machine.handle_unsent(token);
                    *is_blocked = true;
                    return;
                }
                Err(SubmitError::Failed(error)) => unhandled.push_back((token, Err(error))),
            }
        }
    }

    /// Puts a batch on the connection. Returns the size of the request as well.
    fn send(
        &self,
        Link { opened, template, .. }: &Link,
        transmit: &Transmit<'_, PendingBatch>,
        room: Option<Room>,
    ) -> Result<(Attempt, usize), SubmitError> {
        let Transmit { token, stamp, payload: PendingBatch { batch, .. }, attempt, in_doubt, deadline } =
            *transmit;
        let (channel, call) = (&opened.channel, self.call());
        let template = template.as_ref().map_err(|error| SubmitError::Failed(error.clone()))?;
        // Also without one of its own: the batch may have been stamped for something else.
        let Stamp { identity: Identity { id, epoch }, sequence } = stamp.unwrap_or(Stamp::NONE);
        let encoded = template.encode(batch, id, epoch, sequence);
        let request = encoded.map_err(|error| SubmitError::Failed(channel.not_encoded(call, error)))?;
        let size = request.size_in_bytes();
        let Some(this) = self.this.upgrade() else { return Err(SubmitError::Full) };
        let (deadline, recipient) =
            (Some(Instant::from_std(deadline)), (this as Arc<dyn Recipient>, token.0));
        channel.submit::<ProduceRequest>(request, call, deadline, recipient, room)?;
        Ok((Attempt::of(batch, attempt, in_doubt), size))
    }

    /// Encodes what all requests on a connection have in common.
    fn template(&self, opened: &Opened) -> Result<ProduceTemplate, Error> {
        let (call, versions) = (self.call(), opened.supported::<ProduceRequest>());
        let deadlines = &self.partition.cluster.config.deadlines;
        let route = opened.route_in::<ProduceRequest>(versions, call, deadlines);
        opened.channel.template(request(&route, self.settings.acks, None), call, versions)
    }

    /// Whether a batch that is sent now goes to this leader over this connection.
    fn is_current(&self, Link { opened, generation, .. }: &mut Link) -> bool {
        let Some(found) = opened.leader.and_then(|leader| self.partition.led_by(leader)) else {
            return false;
        };
        *generation = found;
        self.partition.cluster.pool.is_current(&opened.channel)
    }

    // For the producer task

    /// Returns what to do next.
    pub(super) fn next_step(&self) -> Step {
        let state = &mut *self.lock();
        let now = Instant::now();
        state.wakes_at = state.wakes_at.filter(|at| *at > now);
        if let Some((token, result)) = state.unhandled.pop_front() {
            return Step::Handle(token, result);
        }
        state.machine.handle_timeout(now.into_std());
        self.complete(state, None);
        if state.action.is_some() && !state.machine.is_action_needed() {
            state.action = None;
            state.machine.handle_cancelled();
        }
        state.is_blocked = false;
        self.advance(state, now);
        if let Some((token, result)) = state.unhandled.pop_front() {
            return Step::Handle(token, result);
        }
        match (state.action.take(), &state.link) {
            (Some(action), _) => Step::Act(action),
            (None, Some(link)) if state.is_blocked => Step::AwaitRoom(link.opened.clone()),
            (None, _) if state.is_unused && state.machine.is_finished() => Step::End,
            (None, _) => Step::Wait,
        }
    }

    /// Waits until there may be something to do.
    pub(super) async fn wait(&self) {
        let until = {
            let state = &mut *self.lock();
            let timeout = state.machine.poll_timeout().map(Instant::from_std);
            // It may have been earlier before. That it wakes up in vain then costs less than to be woken for
            // each append.
            state.wakes_at = state.wakes_at.into_iter().chain(timeout).min();
            state.wakes_at
        };
        match until {
            Some(until) => tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = sleep_until(until) => {}
            },
            None => self.wake.notified().await,
        }
    }

    /// Runs a step of the state machine for the producer task, and what follows from it.
    pub(super) fn drive<T>(&self, step: impl FnOnce(&mut state::Producer<PendingBatch, Error>) -> T) -> T {
        let state = &mut *self.lock();
        let result = step(&mut state.machine);
        self.go_on(state);
        result
    }

    /// Handles an acknowledgement.
    pub(super) fn acknowledged(&self, token: Token, produced: Produced) {
        let state = &mut *self.lock();
        let now = Instant::now();
        acknowledge(state, now, token, produced);
        self.go_on_at(state, now);
    }

    /// Takes the connection to the leader.
    pub(super) fn connected(&self, opened: Opened, generation: u64) {
        let template = self.template(&opened);
        let link = Link { opened, generation, template };
        let state = &mut *self.lock();
        let is_same = state.link.as_ref().is_some_and(|before| before.is(&link));
        state.link = Some(link);
        state.machine.handle_connected(!is_same);
        self.go_on(state);
    }

    /// Takes room on the connection for one request.
    pub(super) fn give_room(&self, opened: &Opened, room: Option<Room>) {
        let state = &mut *self.lock();
        let is_same = state.link.as_ref().is_some_and(|link| link.opened.channel.is(&opened.channel));
        state.room = room.filter(|_| is_same);
        self.go_on(state);
    }

    pub(super) fn link(&self) -> Option<Link> {
        self.lock().link.clone()
    }

    pub(super) fn acknowledged_in(&self) -> i32 {
        self.lock().acknowledged_in
    }

    pub(super) fn is_recovering(&self) -> bool {
        self.lock().machine.is_recovering()
    }

    /// Returns how long batches wait for a renewal that they do not need.
    pub(super) fn renewal_patience(&self) -> Duration {
        self.lock().machine.renewal_patience()
    }

    /// Ends appends at their deadlines while an action runs. Returns whether nothing needs it any more, or it
    /// is a renewal that can be made later, and has taken too long.
    pub(super) fn expire_during_action(&self, is_slow: bool) -> bool {
        let state = &mut *self.lock();
        let now = Instant::now();
        state.wakes_at = state.wakes_at.filter(|at| *at > now);
        state.machine.handle_timeout(now.into_std());
        // Those that end now need nothing any more.
        self.complete(state, None);
        let is_needed = state.machine.is_action_needed();
        if !is_needed {
            state.machine.handle_cancelled();
        }
        let is_put_off = is_slow && state.machine.is_renewal_in_the_way();
        if is_put_off {
            state.machine.handle_put_off();
        }
        // The producer task runs: to wake it would have it do this again and again.
        self.advance(state, now);
        !is_needed || is_put_off
    }

    /// Notes whether the producer task has to know of the next acknowledgement. Returns whether there was
    /// one.
    pub(super) fn retrying(&self, is_retrying: bool) -> bool {
        let state = &mut *self.lock();
        state.is_retrying = is_retrying;
        std::mem::take(&mut state.has_progressed)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().machine.is_idle()
    }
}

impl Recipient for Appends {
    fn respond(&self, token: u64, result: Result<RawResponse, RequestFailed>) {
        let mut locked = self.lock();
        let state = &mut *locked;
        let Some(at) = state.sent.iter().position(|sent| sent.token.0 == token) else { return };
        let InFlight { token, attempt, sent } = state.sent.remove(at);
        let Some(Link { opened, .. }) = &state.link else { return };
        let call = self.call();
        // What fails behind another request says nothing about it.
        let is_behind = !state.unhandled.is_empty() || state.machine.is_recovering();
        let closed = if is_behind { &Closed::default() } else { &self.closed };
        let response = opened.channel.received::<ProduceRequest>(call, sent, closed, result);
        let result = response.and_then(|response| {
            let route = opened.route_of(response.version().number, call);
            let produced = match response.appended() {
                Some(appended) => attempt.appended(&route, &appended),
                None => attempt.response(&route, opened.channel.decode::<ProduceRequest>(call, &response)?),
            };
            if produced.is_err() {
                return Ok(produced);
            }
            match route.names_topic::<ProduceRequest>().then(|| self.partition.recreated_as()).flatten() {
                None => Ok(produced),
                // It may be on the log of either.
                Some(is) => {
                    let kind = ErrorKind::TopicRecreated { was: self.partition.topic_id, is };
                    Err(call.error(kind).with_outcome(Outcome::Unknown))
                }
            }
        });
        let result = match result {
            Ok(Ok(produced)) => Ok(produced),
            // What the broker reports is noted, and traced, while nothing is locked.
            Ok(Err(rejection)) => {
                let channel = opened.channel.clone();
                drop(locked);
                let error =
                    rejected(rejection, &self.partition.cluster, self.target(), call, channel.broker());
                locked = self.lock();
                Err(error)
            }
            Err(error) => Err(error),
        };
        let (state, now) = (&mut *locked, Instant::now());
        match result {
            Ok(produced) if state.unhandled.is_empty() => acknowledge(state, now, token, produced),
            result => state.unhandled.push_back((token, result)),
        }
        self.go_on_at(state, now);
    }

    fn is_gone(&self, token: u64) -> bool {
        // Nothing is changed, so that nothing has to be delivered.
        !self.state().machine.is_awaited(Token(token))
    }
}

fn acknowledge(state: &mut State, now: Instant, token: Token, produced: Produced) {
    if !state.machine.is_believed() {
        return state.machine.handle_acknowledged(now.into_std(), token, produced.base_offset);
    }
    state.has_progressed = true;
    if let Some(Link { opened: Opened { leader: Some(leader), .. }, .. }) = &state.link {
        state.acknowledged_in = leader.epoch;
    }
    if let Some(pending) = state.machine.payload_mut(token) {
        pending.reported = Some(produced);
    }
    state.machine.handle_acknowledged(now.into_std(), token, produced.base_offset);
}
