//! One batch producer, and what its callers know of it.

use std::{
    error::Error as StdError,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use fastrand::Rng;
use futures::FutureExt;
use kwal_client::{
    PartitionClient,
    error::{Error, ErrorKind, Outcome},
    record::Record,
};
use kwal_testkit::check::{AppendId, CallId, Ticket};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    LONG, Returned, Shared,
    ledger::{Ended, Ledger},
    lock,
};
use crate::{
    producer::{Ack, Aggregator, Appended, BatchProducer, Records, Sink},
    support::{chain, polled},
};

pub(super) type Producer = BatchProducer<Observer>;

/// What a caller hands over.
pub(super) struct Input {
    pub(super) record: Record,
    pub(super) value: String,
    /// Its place among the inputs whose order is that of the first polls; `None` if a slot fixes it.
    pub(super) turn: Option<u64>,
    /// How the aggregator fails with it, if it does.
    pub(super) poison: Option<Poison>,
    /// The aggregator was called for it. What it did may be undone since.
    pub(super) is_added: AtomicBool,
    /// There since it was accepted.
    pub(super) ticket: Mutex<Option<Ticket>>,
}

/// How user code fails.
#[derive(Clone, Copy, Debug)]
pub(super) enum Poison {
    Error,
    Panic,
}

/// Notes which inputs are added to a batch.
pub(super) struct Observer;

/// What was accepted last.
#[derive(Default)]
struct Order {
    append: Option<AppendId>,
    turn: Option<u64>,
}

impl Aggregator for Observer {
    type Input = Input;
    type Tag = ();

    fn size_hint(&self, input: &Input) -> usize {
        Records.size_hint(&input.record)
    }

    fn add(&self, input: &Input, sink: &mut Sink<'_>) -> Result<(), Box<dyn StdError + Send + Sync>> {
        Records.add(&input.record, sink)?;
        match input.poison {
            // Without the message of a panic.
            Some(Poison::Panic) => resume_unwind(Box::new("user code panics")),
            Some(Poison::Error) => return Err("user code fails".into()),
            None => {}
        }
        input.is_added.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// One batch producer, and what its callers know of it.
pub(super) struct Gathering {
    pub(super) shared: Arc<Shared>,
    pub(super) ledger: Ledger,
    order: Mutex<Order>,
    /// Results that nobody waits for yet.
    held: Mutex<Vec<Held>>,
    /// How many inputs had failed, and the last one that was accepted then.
    failures: Mutex<(u64, Option<AppendId>)>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    turns: AtomicU64,
    /// Its callers stop.
    is_over: AtomicBool,
    /// The partition client cannot append any more.
    is_fatal: AtomicBool,
}

/// A result that nobody waits for.
struct Held {
    ack: Ack,
    input: Arc<Input>,
    since: Instant,
}

impl Gathering {
    /// Opens a batch producer, with settings by which batches fill up and are split.
    pub(super) fn open(ledger: Ledger, partition: &PartitionClient, rng: &mut Rng) -> (Arc<Self>, Producer) {
        let shared = Arc::clone(&ledger.shared);
        shared.count_event("batch producers opened");
        let builder = BatchProducer::builder(partition.clone()).window(rng.u64(1..=5) as usize);
        let linger = if rng.bool() { 0 } else { rng.u64(1..20) };
        let builder = builder.linger(Duration::from_millis(linger));
        let builder = match rng.u8(..4) {
            0 => builder,
            1 => builder.max_records(rng.u64(1..=3) as usize),
            _ => builder.max_records(rng.u64(4..30) as usize),
        };
        let builder = match rng.u8(..3) {
            0 => builder,
            1 => builder.max_bytes(rng.u64(100..400) as usize),
            _ => builder.max_bytes(rng.u64(400..4_000) as usize),
        };
        let producer = builder.aggregator(Observer).build();
        let gathering = Self {
            shared,
            ledger,
            order: Mutex::default(),
            held: Mutex::default(),
            failures: Mutex::default(),
            tasks: Mutex::default(),
            turns: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            is_fatal: AtomicBool::new(false),
        };
        (Arc::new(gathering), producer)
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(super) fn is_fatal(&self) -> bool {
        self.is_fatal.load(Ordering::Relaxed)
    }

    /// Lets its callers stop.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Returns the next place in the order of first polls.
    pub(super) fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.tasks).push(tokio::spawn(task));
    }

    /// Notes whether anything has failed since the last time.
    pub(super) fn look(&self, producer: &Producer) -> Option<AppendId> {
        let failed = producer.stats().failed;
        let mut failures = lock(&self.failures);
        if failures.0 != failed {
            *failures = (failed, lock(&self.order).append);
        }
        failures.1
    }

    /// Records that an input was accepted, in the call or the poll in which that happened.
    fn accept(&self, input: &Input) {
        let mut ticket = lock(&input.ticket);
        if ticket.is_some() {
            return;
        }
        let accepted = self.shared.recorder.submit(self.ledger.writer, [&input.value]);
        let mut order = lock(&self.order);
        order.append = Some(accepted.append());
        if input.turn.is_some() && input.turn < order.turn {
            self.shared.problem(format!("{} was accepted after one that came later", input.value));
        }
        order.turn = order.turn.max(input.turn);
        *ticket = Some(accepted);
    }

    /// Records the result of an input when its caller gets it. `is_late` if the caller has not waited for the
    /// end of the batch.
    pub(super) fn ended(&self, input: &Input, result: Result<Appended, Error>, is_late: bool) -> Ended {
        let shared = &self.shared;
        let ticket = lock(&input.ticket).take();
        let (ticket, error) = match (ticket, result) {
            (Some(ticket), Ok(appended)) => {
                self.appended(ticket, &appended);
                return Ended::Normally;
            }
            (Some(ticket), Err(error)) => (ticket, error),
            (None, Err(error)) => return self.never_accepted(input, &error),
            (None, Ok(appended)) => {
                shared.problem(format!("{} was not accepted, and is {appended:?}", input.value));
                return Ended::Normally;
            }
        };
        if is_late && error.outcome() == Outcome::Unknown && error.in_doubt().is_none() {
            shared.count_event("inputs given up");
            drop(ticket);
            return Ended::Failed;
        }
        self.ledger.check(&error);
        match (error.outcome(), error.kind()) {
            (Outcome::Unknown, _) => {
                shared.count_event("inputs with unknown outcome");
                ticket.unknown();
            }
            (Outcome::NotApplied, kind) => {
                shared.count_event(match kind {
                    ErrorKind::PrecedingAppendFailed => "inputs failed after an earlier one",
                    _ => "inputs not applied",
                });
                ticket.not_appended();
            }
        }
        self.consequence(&error)
    }

    fn appended(&self, ticket: Ticket, appended: &Appended) {
        let Self { shared, ledger, .. } = self;
        shared.count_event(match appended.batch.attempts {
            1 => "inputs appended",
            _ => "inputs appended after retries",
        });
        if appended.records != 1 {
            shared.problem(format!("{ticket:?} became {} records", appended.records));
        }
        match appended.offset {
            Some(offset) => ledger.is_acked(ticket, offset),
            None => ticket.acked_at_unknown_offset(),
        }
    }

    fn never_accepted(&self, input: &Input, error: &Error) -> Ended {
        if error.outcome() != Outcome::NotApplied {
            let problem = format!("{} was not accepted, and failed: {}", input.value, chain(error));
            self.shared.problem(problem);
        }
        match (input.poison, error.kind()) {
            (Some(Poison::Error), ErrorKind::InvalidInput { .. }) => {
                self.shared.count_event("inputs that an aggregator rejects");
                Ended::Normally
            }
            _ => {
                self.shared.count_event("inputs never accepted");
                self.consequence(error)
            }
        }
    }

    /// Records what an error means for what comes after it.
    pub(super) fn consequence(&self, error: &Error) -> Ended {
        let ended = self.ledger.consequence(error);
        if ended == Ended::Fatal {
            self.end();
            // The partition client is not closed with the producer.
            let is_closed = matches!(super::root(error), ErrorKind::Closed);
            self.is_fatal.fetch_or(!is_closed, Ordering::Relaxed);
        }
        ended
    }

    /// Awaits a call that hands an input over, and records its result.
    pub(super) async fn produced(
        &self,
        input: Arc<Input>,
        producer: &Producer,
        deadline: Option<Duration>,
    ) -> Ended {
        let within = deadline.unwrap_or(self.shared.plan.deadlines.operation);
        let call = producer.produce(Arc::clone(&input));
        let call = if let Some(deadline) = deadline { call.deadline(deadline) } else { call };
        let begun = Instant::now();
        let mut call = pin!(call);
        let accepted = std::future::poll_fn(|cx| {
            let waited = producer.stats().waited;
            let poll = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx)));
            let is_added = input.is_added.swap(false, Ordering::Relaxed);
            // If it has to wait, what was done is undone.
            if is_added && producer.stats().waited == waited {
                self.accept(&input);
            }
            match poll {
                Ok(poll) => poll.map(Some),
                Err(_) => Poll::Ready(None),
            }
        });
        match self.ends("produce", within, accepted).await {
            Some(Some(result)) => self.ended(&input, result, begun.elapsed() >= within),
            Some(None) => self.panicked(&input),
            None => Ended::Failed,
        }
    }

    /// Hands an input over by a place, by a plain call.
    pub(super) fn send(&self, slot: crate::producer::Slot<Observer>, input: &Arc<Input>) -> Option<Ack> {
        match catch_unwind(AssertUnwindSafe(|| slot.send(Arc::clone(input)))) {
            Ok(ack) => {
                // Its order is fixed, also if it fails at once.
                if input.poison.is_none() {
                    self.accept(input);
                }
                if !input.is_added.load(Ordering::Relaxed) {
                    lock(&self.failures).1 = lock(&self.order).append;
                }
                Some(ack)
            }
            Err(_) => {
                self.panicked(input);
                None
            }
        }
    }

    fn panicked(&self, input: &Input) -> Ended {
        match input.poison {
            Some(Poison::Panic) => self.shared.count_event("inputs that an aggregator rejects"),
            _ => self.shared.problem(format!("the call for {} panicked", input.value)),
        }
        Ended::Normally
    }

    /// Awaits a result, and records it.
    pub(super) async fn acked(&self, mut ack: Ack, input: &Input, since: Instant) -> Ended {
        let left = self.shared.plan.deadlines.operation.saturating_sub(since.elapsed());
        match self.ends("ack", left, result(&mut ack, input)).await {
            Some(result) => self.ended(input, result, false),
            None => Ended::Failed,
        }
    }

    /// Awaits a call that has to end within a time limit. `None` if it has not ended long after it.
    pub(super) async fn ends<T>(
        &self,
        what: &str,
        deadline: Duration,
        call: impl Future<Output = T>,
    ) -> Option<T> {
        let ended = self.shared.timed_within(what, deadline, timeout(LONG, call)).await.ok();
        if ended.is_none() {
            self.shared.problem(format!("a call does not end: {what}"));
        }
        ended
    }

    /// Keeps a result that nobody waits for yet.
    pub(super) fn hold(&self, ack: Ack, input: Arc<Input>) {
        self.shared.count_event("results held");
        lock(&self.held).push(Held { ack, input, since: Instant::now() });
    }

    /// Polls results that nobody waits for, in any order, and drops some.
    pub(super) async fn poll_held(&self, rng: &mut Rng) {
        let mut held = std::mem::take(&mut *lock(&self.held));
        rng.shuffle(&mut held);
        let left = held.split_off(held.len() / 2);
        lock(&self.held).extend(left);
        for mut one in held {
            match polled(result(&mut one.ack, &one.input), 1).await {
                Some(result) => drop(self.ended(&one.input, result, false)),
                None if rng.u8(..8) == 0 => self.shared.count_event("inputs dropped"),
                None => lock(&self.held).push(one),
            }
        }
    }

    /// Records the results that are there, before or after everything has to have ended.
    pub(super) async fn settle_held(&self) {
        let held = std::mem::take(&mut *lock(&self.held));
        for mut one in held {
            match polled(result(&mut one.ack, &one.input), 1).await {
                Some(result) => drop(self.ended(&one.input, result, false)),
                None => lock(&self.held).push(one),
            }
        }
    }

    /// Waits for everything that was handed over.
    pub(super) async fn finish(&self, rng: &mut Rng) {
        loop {
            let tasks = std::mem::take(&mut *lock(&self.tasks));
            if tasks.is_empty() {
                break;
            }
            for task in tasks {
                task.await.unwrap();
            }
        }
        let mut held = std::mem::take(&mut *lock(&self.held));
        rng.shuffle(&mut held);
        for Held { ack, input, since } in held {
            self.acked(ack, &input, since).await;
        }
    }

    /// Flushes. `patience` drops the call before its end.
    pub(super) async fn flush(&self, producer: &Producer, deadline: Duration, patience: Patience) {
        self.settle_held().await;
        let (shared, writer) = (&self.shared, self.ledger.writer);
        let (call, begun) = (shared.recorder.now().call("flush", deadline), Instant::now());
        let _returned = Returned { recorder: &shared.recorder, id: call };
        let after = self.look(producer);
        shared.recorder.now().flush(call, writer, after);
        let result = match patience.of(producer.flush().deadline(deadline)).await {
            None => return shared.count_event("flushes given up"),
            Some(Err(_)) if begun.elapsed() >= deadline => return shared.count_event("flushes given up"),
            Some(result) => result,
        };
        shared.recorder.now().flushed(call, result.is_err());
        self.settle_held().await;
        shared.count_event(if result.is_ok() { "flushes" } else { "flushes with an error" });
    }

    /// Closes the producer. `patience` drops the call before its end.
    pub(super) async fn close(&self, producer: &Producer, deadline: Duration, patience: Patience) {
        self.settle_held().await;
        let (shared, writer) = (&self.shared, self.ledger.writer);
        let is_closed = self.ledger.is_closing();
        self.ledger.closing();
        self.end();
        let call = shared.recorder.now().call("close", deadline);
        let _returned = Returned { recorder: &shared.recorder, id: call };
        let after = self.look(producer);
        shared.recorder.now().drain(call, writer, after);
        let Some(undelivered) = patience.of(producer.close().deadline(deadline)).await else {
            return shared.count_event("closes given up");
        };
        shared.count_event(if is_closed { "batch producers closed again" } else { "batch producers closed" });
        self.undelivered(call, &undelivered);
        self.settle_held().await;
        match polled(producer.reserve(), 1).await {
            Some(Err(error)) if matches!(error.kind(), ErrorKind::Closed) => {}
            other => shared.problem(format!("a producer is closed, and has {other:?}")),
        }
    }

    fn undelivered(&self, call: CallId, undelivered: &[crate::producer::Undelivered]) {
        let (mut absent, mut unknown) = (Vec::new(), Vec::new());
        for batch in undelivered {
            let records = batch.records().into_iter();
            let values = records.map(|record| record.value.unwrap_or_default());
            match batch.error.outcome() {
                Outcome::NotApplied => absent.extend(values),
                Outcome::Unknown => unknown.extend(values),
            }
        }
        if !undelivered.is_empty() {
            self.shared.count_event("batch producers closed with inputs left");
        }
        self.shared.recorder.now().drained(call, absent, unknown);
    }
}

/// Awaits the result of an input.
async fn result(ack: &mut Ack, input: &Input) -> Result<Appended, Error> {
    std::future::poll_fn(|cx| at_once(input, || ack.poll_unpin(cx))).await
}

/// Polls a result. That of an input that was rejected counts as returned from the first poll on, and comes
/// with the second one, so that others have a turn: whoever polls it hands nothing over in between.
pub(super) fn at_once<T>(input: &Input, mut poll: impl FnMut() -> Poll<T>) -> Poll<T> {
    match poll() {
        Poll::Pending if !input.is_added.load(Ordering::Relaxed) => poll(),
        poll => poll,
    }
}

/// How long a caller waits for a call before it drops it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    Endless,
    Polls(usize),
    Time(Duration),
}

impl Patience {
    pub(super) fn of_any(rng: &mut Rng) -> Self {
        match rng.u8(..8) {
            0 => Self::Polls(rng.u64(1..6) as usize),
            1 => Self::Time(Duration::from_millis(rng.u64(..1_500))),
            _ => Self::Endless,
        }
    }

    pub(super) async fn of<T>(self, call: impl IntoFuture<Output = T>) -> Option<T> {
        match self {
            // Nothing takes so long.
            Self::Endless => timeout(LONG, call.into_future()).await.ok(),
            Self::Polls(times) => polled(call, times).await,
            Self::Time(time) => timeout(time, call.into_future()).await.ok(),
        }
    }
}
