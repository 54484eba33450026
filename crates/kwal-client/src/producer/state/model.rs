//! Operation lists against a model of broker, log and network.
//!
//! The model knows what each batch went through, so it predicts which stamp, window and outcome are allowed.
//! What is on the log at the end is compared with what was reported.

mod broker;
mod checks;
mod holders;
mod ops;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use proptest::{collection::vec, prelude::*};

use self::{
    broker::{Entry, Log, Request},
    holders::Name,
    ops::{Act, LONG, Mode, Op, ops},
};
use super::*;

/// How many lists each property runs.
const LISTS: u32 = 40_000;
const WINDOW: usize = 5;
const PAUSE: Duration = Duration::from_millis(2);
/// For how long the producer relies on what the broker knows.
const EXPIRATION: Duration = Duration::from_millis(60);
/// For how long the broker remembers a producer id, and for how long a request may be under way.
const MEMORY: Duration = Duration::from_millis(100);
const UNDER_WAY: Duration = Duration::from_millis(50);
/// The time between renewals of an exclusive producer.
const RENEWAL: Duration = Duration::from_millis(24);
/// The batch of another producer.
const OTHER: usize = usize::MAX;
/// The barrier of another holder.
const BARRIER: usize = usize::MAX - 1;

/// What is the same for a whole list.
#[derive(Clone, Copy, Debug)]
struct Conditions {
    stop_on_failure: bool,
    idempotent: bool,
    /// Whether batches get lost, the producer id is fenced and the name taken over.
    disasters: bool,
    /// Whether a coordinator owns the epochs.
    exclusive: bool,
    /// Whether the topic is deleted and created again, and brokers know it by name.
    recreation: bool,
}

/// What the model knows about a batch of the producer.
#[derive(Debug)]
struct Batch {
    records: usize,
    deadline: Instant,
    submitted_at: usize,
    attempts: u32,
    /// The stamp of the last attempt.
    stamp: Option<Stamp>,
    /// The last offset that was acknowledged before it could be on the log.
    after: Option<i64>,
    in_flight: bool,
    in_doubt: bool,
    acknowledged: bool,
    /// Its acknowledgement shows a loss, or followed one that did.
    after_loss: bool,
    result: Option<(usize, Completed<&'static str>)>,
    /// When it was committed and lost last, in operations.
    committed_at: Option<usize>,
    lost_at: Option<usize>,
}

impl Batch {
    fn holds_stamp(&self) -> bool {
        self.in_flight || self.in_doubt || self.acknowledged
    }
}

const CALM: Conditions = Conditions {
    stop_on_failure: true,
    idempotent: true,
    disasters: false,
    exclusive: false,
    recreation: false,
};

struct World {
    conditions: Conditions,
    now: Instant,
    /// Counts operations.
    clock: usize,
    producer: Producer<usize, &'static str>,
    log: Log,
    /// The log that the producer was opened for, if the topic was created again since.
    former: Option<Log>,
    name: Name,
    leader: u32,
    connected_to: Option<u32>,
    /// The last connection ended while nothing was in flight, so the producer does not know.
    ended_idle: bool,
    requests: VecDeque<Request>,
    responses: VecDeque<(Request, Result<Option<i64>, RefusalKind>)>,
    late: VecDeque<Request>,
    action: Option<Action>,
    batches: Vec<Batch>,
    next_id: i64,
    /// The producer id of the last request.
    last_id: i64,
    /// A producer id that another client has given back.
    pool: Option<ProducerState>,
    /// Identities of which a batch was acknowledged, and when the last time.
    proven: Vec<(Identity, Instant)>,
    last_offset: Option<i64>,
    /// Whether the batch that was acknowledged last was looked up since the connection was opened.
    needs_look_up: bool,
    /// The leader has rejected a batch without an apparent reason.
    was_rejected: bool,
    /// The broker has denied that it leads the partition: what it acknowledges until nothing is in flight any
    /// more may be on another log, and the leader has to show the batch that was acknowledged last.
    is_doubting: bool,
    was_denied: bool,
    /// Where each identity that the producer was given begins.
    starts: Vec<(Identity, i32)>,
    paused_until: Instant,
    /// An acknowledgement has shown a loss.
    loss_shown: bool,
    has_lost: bool,
    /// An append has failed with an error that ends the producer.
    ended: bool,
    fenced: bool,
    aborted: bool,
}

impl World {
    fn new(conditions: Conditions, start: Instant) -> Self {
        let mut world = Self {
            conditions,
            now: start,
            clock: 0,
            producer: Self::producer(conditions),
            log: Log::default(),
            former: None,
            name: Name::new(start, conditions.disasters),
            leader: 0,
            connected_to: None,
            ended_idle: false,
            requests: VecDeque::new(),
            responses: VecDeque::new(),
            late: VecDeque::new(),
            action: None,
            batches: Vec::new(),
            next_id: 0,
            last_id: 0,
            pool: None,
            proven: Vec::new(),
            last_offset: None,
            needs_look_up: false,
            was_rejected: false,
            is_doubting: false,
            was_denied: false,
            starts: Vec::new(),
            paused_until: start,
            loss_shown: false,
            has_lost: false,
            ended: false,
            fenced: false,
            aborted: false,
        };
        if conditions.exclusive {
            world.take_over();
        }
        world
    }

    fn producer(conditions: Conditions) -> Producer<usize, &'static str> {
        let Conditions { stop_on_failure, idempotent, exclusive, .. } = conditions;
        Producer::new(Settings {
            window: WINDOW,
            idempotent,
            stop_on_failure,
            expiration: EXPIRATION,
            epochs: match exclusive {
                true => EpochOwner::Coordinator { renewal: RENEWAL },
                false => EpochOwner::Client,
            },
        })
    }

    fn apply(&mut self, op: Op) {
        self.clock += 1;
        match op {
            Op::Submit { records, deadline } => {
                // A batch in doubt that outlives what the partition remembers would be appended twice.
                let is_too_long = deadline == LONG && !self.conditions.exclusive;
                self.submit(records, Duration::from_millis(if is_too_long { 40 } else { deadline }));
            }
            Op::Process(mode) => {
                if let Some(request) = self.requests.pop_front() {
                    let answer = self.process(&request, mode);
                    self.responses.push_back((request, answer));
                }
            }
            Op::Deliver => {
                if let Some((request, answer)) = self.responses.pop_front() {
                    self.deliver(&request, answer);
                }
            }
            Op::Disconnect { written } => self.disconnect(written),
            Op::Late => {
                // What is in doubt when the epochs of an id end is not kept away by the next id.
                let is_former = |stamp: Stamp| stamp.identity.id != self.last_id;
                if let Some(request) = self.late.pop_front()
                    && !(request.stamp.is_some_and(is_former) && self.batches[request.batch].result.is_some())
                {
                    let _ = self.process(&request, Mode::Append);
                }
            }
            Op::MoveLeader { keep } => {
                self.leader += 1;
                if !keep {
                    self.log.entries.truncate(self.log.committed);
                }
            }
            Op::Lose(count) if self.conditions.disasters => {
                self.leader += 1;
                let kept = self.log.committed.saturating_sub(count);
                self.has_lost |= kept < self.log.committed;
                for entry in self.log.entries.drain(kept..) {
                    if let Some(batch) = self.batches.get_mut(entry.batch) {
                        batch.lost_at = batch.committed_at.take().map(|_| self.clock);
                    }
                }
                self.log.committed = kept;
            }
            Op::Fence if self.conditions.disasters => self.fence(),
            Op::Lose(_) | Op::Fence => {}
            Op::Recreate { appended } if self.conditions.recreation => self.recreate(appended),
            Op::Recreate { .. } => {}
            Op::Other => {
                let (base_offset, appended_at) = (self.log.end(), self.now);
                let entry = Entry { batch: OTHER, stamp: None, records: 1, base_offset, appended_at };
                self.log.entries.push(entry);
                self.log.committed = self.log.entries.len();
            }
            Op::Tick(ms) => {
                // A request that takes too long is given up with its connection.
                let is_old = |request: &Request| self.now >= request.sent_at + UNDER_WAY;
                if ms >= 50 || self.requests.iter().any(is_old) {
                    self.disconnect(self.requests.len());
                }
                self.now += Duration::from_millis(ms);
                self.late.retain(|request| self.now < request.sent_at + UNDER_WAY);
            }
            Op::Act(act) => self.act(act),
            Op::Reopen => self.reopen(),
            Op::TakeOver if self.has_rivals() => self.lose_name(),
            Op::ForgetName if self.has_rivals() => self.name.coordinator.forget(),
            Op::TakeOver | Op::ForgetName => {}
            Op::LateRequest => self.arrive_late(),
            Op::Probe => self.probe(),
            Op::Cancel => self.cancel(),
        }
        for entry in &self.log.entries[..self.log.committed] {
            if let Some(batch) = self.batches.get_mut(entry.batch) {
                batch.committed_at.get_or_insert(self.clock);
            }
        }
        self.poll();
    }

    fn submit(&mut self, records: usize, deadline: Duration) {
        let batch = Batch {
            records,
            deadline: self.now + deadline,
            submitted_at: self.clock,
            attempts: 0,
            stamp: None,
            after: None,
            in_flight: false,
            in_doubt: false,
            acknowledged: false,
            after_loss: false,
            result: None,
            committed_at: None,
            lost_at: None,
        };
        let deadline = Deadline { at: batch.deadline, after: deadline };
        self.producer.submit(self.batches.len(), records, deadline);
        self.batches.push(batch);
    }

    // The caller of the producer

    fn act(&mut self, act: Act) {
        let Some(action) = self.action.take() else { return };
        match (act, action) {
            (Act::LoseResponse | Act::Retry | Act::Fail, _) => self.fail_action(act, action),
            (Act::Succeed, Action::AcquireIdentity { held }) if self.conditions.exclusive => self.renew(held),
            (Act::Succeed, Action::AcquireIdentity { .. }) => {
                let start = self.pool.take().unwrap_or_else(|| self.init_producer_id());
                self.starts.push((start.identity, start.next_sequence));
                self.producer.handle_identity(self.now, start);
            }
            // Metadata names another topic, and the leader does not know the former one.
            (Act::Succeed, Action::Connect) if self.former.is_some() => self.fail_action(Act::Fail, action),
            (Act::Succeed, Action::LookUp { .. }) if self.former.is_some() => {
                self.fail_action(Act::Retry, action);
            }
            (Act::Succeed, Action::Connect) => {
                assert!(self.requests.is_empty() && self.responses.is_empty(), "connected while in flight");
                let is_new = self.connected_to != Some(self.leader);
                self.connected_to = Some(self.leader);
                self.needs_look_up |= is_new && self.last_offset.is_some();
                self.producer.handle_connected(is_new);
            }
            (Act::Succeed, Action::LookUp { last, rejected }) => {
                assert_eq!(rejected, self.was_rejected);
                (self.was_rejected, self.was_denied) = (false, false);
                let is_there = self.log.entries.iter().any(|entry| {
                    entry.stamp == Some(last.stamp)
                        && last.base_offset.is_none_or(|at| at == entry.base_offset)
                });
                self.needs_look_up = false;
                let lost = Found::Lost { from: last.base_offset };
                self.producer.handle_found(if is_there { Found::Present } else { lost });
            }
        }
    }

    /// Ids begin near the last epoch and the last sequence number, so that lists reach both.
    fn init_producer_id(&mut self) -> ProducerState {
        self.next_id += 1;
        let epoch = i16::MAX - 1 - (self.next_id % 3) as i16;
        let next_sequence = if self.next_id % 2 == 0 { i32::MAX - 2 } else { 0 };
        ProducerState {
            identity: Identity { id: self.next_id, epoch },
            next_sequence,
            last_acknowledged: None,
        }
    }

    fn reopen(&mut self) {
        let is_busy = self.batches.iter().any(|batch| batch.in_flight || batch.result.is_none());
        if let Some(start) = self.producer.release() {
            assert!(!is_busy && !self.aborted && !self.loss_shown, "released while in use");
            assert!(!self.conditions.exclusive, "the id of a name is released");
            self.producer = Self::producer(self.conditions);
            self.last_offset = start.last_acknowledged.and_then(|last| last.last_offset());
            self.pool = Some(start);
            self.action = None;
            self.connected_to = None;
            (self.was_rejected, self.was_denied) = (false, false);
            self.paused_until = self.now;
        }
    }

    fn poll(&mut self) {
        if self.producer.poll_timeout().is_some_and(|at| at <= self.now) {
            self.producer.handle_timeout(self.now);
            assert!(self.producer.poll_timeout().is_none_or(|at| at > self.now), "a timeout is over");
        }
        loop {
            while let Some((batch, completed)) = self.producer.poll_completed() {
                self.check_completed(batch, &completed);
                self.ended |= matches!(
                    completed,
                    Completed::Failed { error: Failure::Error("fenced") | Failure::DataLoss { .. }, .. }
                );
                let before = self.batches[batch].result.replace((self.clock, completed));
                assert!(before.is_none(), "batch {batch} completed twice");
            }
            if let Some(action) = self.producer.poll_action(self.now) {
                assert_eq!(self.action, None, "two actions at once");
                assert!(self.now >= self.paused_until, "an action within a pause");
                self.action = Some(action);
                if let Action::AcquireIdentity { held } = action {
                    self.check_request(held);
                }
            }
            let Some(Transmit { token, stamp, payload, attempt, in_doubt, .. }) =
                self.producer.poll_transmit(self.now)
            else {
                // What is not sent any more has failed.
                match self.producer.completed.is_empty() {
                    true => break,
                    false => continue,
                }
            };
            let batch = *payload;
            self.check_transmit(batch, stamp, attempt, in_doubt);
            let (records, sent_at) = (self.batches[batch].records, self.now);
            let known = &mut self.batches[batch];
            if !known.in_doubt {
                known.after = self.last_offset;
            }
            known.in_flight = true;
            known.attempts += 1;
            known.stamp = stamp;
            self.last_id = stamp.map_or(0, |stamp| stamp.identity.id);
            let leader = self.connected_to.unwrap_or(u32::MAX);
            let request = Request { token, batch, stamp, records, leader, sent_at };
            if self.connected_to.is_none() {
                assert!(self.ended_idle, "the producer knows that the connection has ended");
                let kind = RefusalKind::Retry { may_have_applied: false, reconnect: true };
                self.deliver(&request, Err(kind));
                continue;
            }
            self.requests.push_back(request);
        }
        for (number, batch) in self.batches.iter().enumerate().filter(|(_, batch)| batch.result.is_none()) {
            assert!(batch.deadline > self.now, "batch {number} is beyond its deadline");
            assert!(batch.in_flight || batch.deadline > self.paused_until, "batch {number} waits in vain");
            let is_doomed = self.conditions.stop_on_failure && self.is_preceded_by_failure(number);
            assert!(batch.in_flight || !is_doomed, "batch {number} waits after one that failed");
        }
        self.check_renewal();
    }

    /// Lets everything go well until nothing is left.
    fn settle(&mut self) {
        for _ in 0..1000 {
            if self.producer.is_idle() {
                return;
            }
            self.apply(Op::Act(Act::Succeed));
            self.apply(Op::Process(Mode::Append));
            self.apply(Op::Deliver);
            if self.action.is_none() && self.requests.is_empty() && self.responses.is_empty() {
                self.apply(Op::Tick(1));
            }
        }
        panic!("stuck: {:?}", self.producer);
    }

    /// Appends one more batch, after which every doubt of the own id is settled; then what is under way ends.
    fn finish(&mut self) {
        self.end_hold();
        self.settle();
        let owned: Vec<_> = self.doubts();
        let last = self.batches.len();
        self.apply(Op::Submit { records: 1, deadline: 100_000 });
        self.settle();
        let appended = match &self.batches[last].result {
            Some((_, Completed::Appended { base_offset: Some(_), .. })) => self.batches[last].stamp,
            other => {
                let has_ended = self.has_lost || self.fenced || self.former.is_some();
                assert!(has_ended, "the producer does not go on: {other:?}");
                None
            }
        };
        for (number, stamp, standing) in owned {
            if self.conditions.exclusive && !self.has_lost && !self.fenced {
                assert_ne!(standing, Standing::Foreign, "batch {number} is of the only holder");
            }
            let is_same_id = appended.is_some_and(|last| last.identity.id == stamp.identity.id);
            if standing == Standing::Owned && is_same_id {
                assert_eq!(self.producer.standing(stamp), Standing::Settled, "batch {number}");
            }
        }
        self.end();
    }

    /// What is under way arrives: it changes nothing about what is settled.
    fn end(&mut self) {
        let mut settled = self.doubts();
        settled.retain(|(.., standing)| *standing == Standing::Settled);
        let before: Vec<_> = settled.iter().map(|(number, ..)| self.offset_on_log(*number)).collect();
        let requests = std::mem::take(&mut self.requests);
        self.late.extend(requests);
        while !self.late.is_empty() {
            self.apply(Op::Late);
        }
        for ((number, ..), before) in settled.into_iter().zip(before) {
            assert_eq!(self.offset_on_log(number), before, "batch {number} was settled");
        }
        self.stop();
        self.check();
    }
}

/// Runs a list. Then everything goes well, or the producer is closed.
fn run(ops: &[Op], conditions: Conditions, closes: bool) {
    thread_local! {
        static START: Instant = tokio::time::Instant::now().into_std();
    }
    let mut world = World::new(conditions, START.with(|start| *start));
    for op in ops {
        world.apply(*op);
    }
    if closes {
        world.aborted = true;
        world.producer.abort("closed");
        world.poll();
        assert!(world.batches.iter().all(|batch| batch.result.is_some()), "closed without an outcome");
        world.end();
    } else {
        world.finish();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: LISTS,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_outcome_is_true(ops in ops(), stop_on_failure: bool, closes: bool) {
        run(&ops, Conditions { stop_on_failure, ..CALM }, closes);
    }

    #[test]
    fn every_loss_and_fence_is_noticed(ops in ops(), stop_on_failure: bool, closes: bool) {
        run(&ops, Conditions { stop_on_failure, disasters: true, ..CALM }, closes);
    }

    #[test]
    fn without_sequence_numbers_nothing_in_doubt_is_sent_again(ops in ops(), stop_on_failure: bool, disasters: bool) {
        run(&ops, Conditions { stop_on_failure, idempotent: false, disasters, ..CALM }, false);
    }

    #[test]
    fn a_holder_renews_its_name_and_every_outcome_is_true(ops in ops(), stop_on_failure: bool, closes: bool) {
        run(&ops, Conditions { stop_on_failure, exclusive: true, ..CALM }, closes);
    }

    #[test]
    fn nothing_follows_the_barrier_of_another_holder(ops in ops(), stop_on_failure: bool, closes: bool) {
        run(&ops, Conditions { stop_on_failure, disasters: true, exclusive: true, ..CALM }, closes);
    }

    #[test]
    fn nothing_is_appended_to_a_topic_that_was_created_again(
        ops in ops(), stop_on_failure: bool, idempotent: bool, exclusive: bool, closes: bool,
    ) {
        let exclusive = exclusive && idempotent;
        run(&ops, Conditions { stop_on_failure, idempotent, exclusive, recreation: true, ..CALM }, closes);
    }
}
