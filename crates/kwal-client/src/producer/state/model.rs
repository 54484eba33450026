//! Operation lists against a model of broker, log and network.
//!
//! The model knows what each batch went through, so it predicts which stamp, window and outcome are allowed.
//! What is on the log at the end is compared with what was reported.

mod broker;
mod checks;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use proptest::{collection::vec, prelude::*};

use self::broker::{Entry, Log, Request};
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
/// The batch of another producer.
const OTHER: usize = usize::MAX;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Op {
    Submit {
        records: usize,
        deadline: u64,
    },
    /// The broker handles a request.
    Process(Mode),
    /// The client receives a response.
    Deliver,
    /// The connection ends when so many of the requests that are not answered were written.
    Disconnect {
        written: usize,
    },
    /// The broker handles a request whose connection has ended.
    Late,
    /// Another broker leads, with or without what was not committed.
    MoveLeader {
        keep: bool,
    },
    /// An unclean election loses so many batches.
    Lose(usize),
    /// Another process fences the producer id.
    Fence,
    /// Another producer appends.
    Other,
    Tick(u64),
    Act(Act),
    /// Another client goes on with the producer id, if it is free.
    Reopen,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Append,
    /// Without reporting the offset.
    AppendSilently,
    Refuse,
    /// The batch is appended and not committed.
    TimeOut,
    RefuseForGood,
    FailUnclear {
        appended: bool,
    },
    ForgetProducer,
    /// As a leader does that was deposed and has not noticed.
    Reject,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Act {
    Succeed,
    Retry,
    Fail,
}

impl Op {
    /// Decoding numbers is several times as fast as a strategy for each operation.
    fn from_code(code: u16) -> Self {
        let (kind, number) = (code % 64, code / 64);
        let is_odd = number % 2 == 1;
        match kind {
            0..=11 => {
                Self::Submit { records: 1 + usize::from(number % 3), deadline: 1 + u64::from(number % 40) }
            }
            12..=23 => Self::Process(Mode::Append),
            24 | 25 => Self::Process(Mode::AppendSilently),
            26 => Self::Process(Mode::Refuse),
            27 => Self::Process(Mode::TimeOut),
            28 => Self::Process(Mode::RefuseForGood),
            29 => Self::Process(Mode::FailUnclear { appended: is_odd }),
            30 => Self::Process(Mode::ForgetProducer),
            31 => Self::Process(Mode::Reject),
            32..=43 => Self::Deliver,
            44 | 45 => Self::Disconnect { written: usize::from(number % 6) },
            46 => Self::Late,
            47 => Self::MoveLeader { keep: is_odd },
            48 => Self::Other,
            49..=51 => Self::Tick(1 + u64::from(number % 7)),
            52 => Self::Tick(if is_odd { 120 } else { 70 }),
            53..=60 => Self::Act(Act::Succeed),
            61 => Self::Lose(1 + usize::from(number % 3)),
            62 => Self::Act(if is_odd { Act::Fail } else { Act::Retry }),
            _ if is_odd => Self::Reopen,
            _ => Self::Fence,
        }
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(any::<u16>(), 1..60).prop_map(|codes| codes.into_iter().map(Op::from_code).collect())
}

/// What is the same for a whole list.
#[derive(Clone, Copy, Debug)]
struct Conditions {
    stop_on_failure: bool,
    idempotent: bool,
    /// Whether batches get lost and the producer id fenced.
    disasters: bool,
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

struct World {
    conditions: Conditions,
    now: Instant,
    /// Counts operations.
    clock: usize,
    producer: Producer<usize, &'static str>,
    log: Log,
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
        Self {
            conditions,
            now: start,
            clock: 0,
            producer: Self::producer(conditions),
            log: Log::default(),
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
            starts: Vec::new(),
            paused_until: start,
            loss_shown: false,
            has_lost: false,
            ended: false,
            fenced: false,
            aborted: false,
        }
    }

    fn producer(Conditions { stop_on_failure, idempotent, .. }: Conditions) -> Producer<usize, &'static str> {
        Producer::new(Settings { window: WINDOW, idempotent, stop_on_failure, expiration: EXPIRATION })
    }

    fn apply(&mut self, op: Op) {
        self.clock += 1;
        match op {
            Op::Submit { records, deadline } => self.submit(records, Duration::from_millis(deadline)),
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
            (Act::Retry, _) => {
                self.paused_until = self.now + PAUSE;
                self.producer.handle_retry("try again", self.paused_until);
            }
            (Act::Fail, _) => self.producer.handle_failed("cannot succeed"),
            (Act::Succeed, Action::AcquireIdentity) => {
                let start = self.pool.take().unwrap_or_else(|| self.init_producer_id());
                self.starts.push((start.identity, start.next_sequence));
                self.producer.handle_identity(start);
            }
            (Act::Succeed, Action::Connect) => {
                assert!(self.requests.is_empty() && self.responses.is_empty(), "connected while in flight");
                self.connected_to = Some(self.leader);
                self.needs_look_up = self.last_offset.is_some();
                self.producer.handle_connected(true);
            }
            (Act::Succeed, Action::LookUp { last, rejected }) => {
                assert_eq!(rejected, self.was_rejected);
                self.was_rejected = false;
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
            self.producer = Self::producer(self.conditions);
            self.last_offset = start.last_acknowledged.and_then(|last| last.last_offset());
            self.pool = Some(start);
            self.action = None;
            self.connected_to = None;
            self.was_rejected = false;
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
            if let Some(action) = self.producer.poll_action() {
                assert_eq!(self.action, None, "two actions at once");
                assert!(self.now >= self.paused_until, "an action within a pause");
                self.action = Some(action);
            }
            let Some(Transmit { token, stamp, payload, attempt, in_doubt, .. }) =
                self.producer.poll_transmit(self.now)
            else {
                break;
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
        self.settle();
        let owned: Vec<_> = self.doubts();
        let last = self.batches.len();
        self.apply(Op::Submit { records: 1, deadline: 100_000 });
        self.settle();
        let appended = match &self.batches[last].result {
            Some((_, Completed::Appended { base_offset: Some(_), .. })) => self.batches[last].stamp,
            other => {
                assert!(self.has_lost || self.fenced, "the producer does not go on: {other:?}");
                None
            }
        };
        for (number, stamp, standing) in owned {
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
        run(&ops, Conditions { stop_on_failure, idempotent: true, disasters: false }, closes);
    }

    #[test]
    fn every_loss_and_fence_is_noticed(ops in ops(), stop_on_failure: bool, closes: bool) {
        run(&ops, Conditions { stop_on_failure, idempotent: true, disasters: true }, closes);
    }

    #[test]
    fn without_sequence_numbers_nothing_in_doubt_is_sent_again(ops in ops(), stop_on_failure: bool, disasters: bool) {
        run(&ops, Conditions { stop_on_failure, idempotent: false, disasters }, false);
    }
}
