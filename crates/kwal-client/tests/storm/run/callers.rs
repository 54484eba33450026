//! Many callers of one batch producer after the other, over one partition client.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use futures::StreamExt;
use kwal_client::{Client, PartitionClient, error::ErrorKind};
use kwal_testkit::Hazard;
use tokio::time::{Instant, sleep};

use super::{
    Shared,
    gathering::{Gathering, Input, Patience, Poison, Producer, at_once},
    kind::{FENCED_IDS, Kind},
    ledger::{Ended, Ledger},
    root,
};
use crate::{
    producer::{Ack, Acks},
    support::polled,
};

/// Callers that append to one partition.
pub(super) struct Callers {
    client: Client,
    kind: Kind,
    partition: PartitionClient,
    /// That of the next batch producer.
    ledger: Ledger,
    values: Arc<Values>,
    rng: Rng,
    /// Producers whose inputs have not all ended.
    left: Vec<Arc<Gathering>>,
}

/// Makes unique values.
struct Values {
    prefix: char,
    next: AtomicU64,
}

/// One of the callers of a batch producer.
struct Caller {
    gathering: Arc<Gathering>,
    producer: Producer,
    values: Arc<Values>,
    rng: Rng,
}

impl Callers {
    pub(super) async fn open(
        shared: &Arc<Shared>,
        client: &Client,
        number: u64,
        partition: i32,
        mut rng: Rng,
    ) -> Self {
        let kind = Kind::on(partition, &shared.plan, &mut rng).batched();
        let (opened, ledger) = shared.open_writer(client, number, partition, kind).await.unwrap();
        let values = Values { prefix: char::from(b'a' + partition as u8), next: AtomicU64::new(0) };
        let (client, values) = (client.clone(), Arc::new(values));
        Self { client, kind, partition: opened, ledger, values, rng, left: Vec::new() }
    }

    /// Opens one batch producer after the other until a time, then waits for everything.
    pub(super) async fn work(mut self, until: Instant) -> Self {
        while Instant::now() < until {
            self.round(until).await;
        }
        self.settle().await;
        self
    }

    /// Lets callers share a batch producer for some time.
    async fn round(&mut self, until: Instant) {
        let until = until.min(Instant::now() + Duration::from_millis(self.rng.u64(300..5_000)));
        let (gathering, mut last) = self.gather();
        let mut callers = Vec::new();
        for _ in 0..self.rng.u8(2..=5) {
            callers.push(tokio::spawn(self.caller(&gathering, &last.producer).work(until)));
        }
        for caller in callers {
            caller.await.unwrap();
        }
        match self.rng.u8(..4) {
            0 => last.close().await,
            1 => last.flush().await,
            2 => last.burst().await,
            _ => {}
        }
        let stats = last.producer.stats();
        if stats.in_flight + stats.gathering > 0 {
            gathering.shared.count_event("batch producers dropped with inputs");
        }
        drop(last);
        self.left.push(Arc::clone(&gathering));
        if self.rng.bool() || gathering.is_fatal() {
            self.settle().await;
        }
    }

    fn gather(&mut self) -> (Arc<Gathering>, Caller) {
        let another = self.ledger.another();
        let ledger = std::mem::replace(&mut self.ledger, another);
        let (gathering, producer) = Gathering::open(ledger, &self.partition, &mut self.rng);
        let caller = self.caller(&gathering, &producer);
        (gathering, caller)
    }

    fn caller(&mut self, gathering: &Arc<Gathering>, producer: &Producer) -> Caller {
        Caller {
            gathering: Arc::clone(gathering),
            producer: producer.clone(),
            values: Arc::clone(&self.values),
            rng: Rng::with_seed(self.rng.u64(..)),
        }
    }

    /// Waits for everything that was handed over, and continues with a new partition client if need be.
    async fn settle(&mut self) {
        let mut is_fatal = false;
        for gathering in self.left.drain(..) {
            gathering.finish(&mut self.rng).await;
            is_fatal |= gathering.is_fatal();
        }
        if is_fatal {
            self.reopen().await;
        }
    }

    async fn reopen(&mut self) {
        let (Ledger { shared, client, partition, .. }, kind) = (&self.ledger, self.kind);
        if kind.exclusive.is_some() && !shared.is_over() {
            sleep(Duration::from_millis(self.rng.u64(..2_000))).await;
        }
        if let Some((opened, ledger)) = shared.open_writer(&self.client, *client, *partition, kind).await {
            (self.partition, self.ledger) = (opened, ledger);
        }
    }

    /// Appends after the storm, which has to succeed, with a new partition client if this one cannot append
    /// any more.
    pub(super) async fn append_after_storm(&mut self) {
        let mut ended = self.append_now().await;
        // As for every writer.
        let may_fail = self.ledger.shared.plan.has(Hazard::RefusedProducerIds) || !self.kind.idempotent;
        if ended == Ended::Failed && may_fail {
            ended = self.append_now().await;
        }
        for _ in 0..FENCED_IDS {
            if ended != Ended::Fatal {
                break;
            }
            self.reopen().await;
            ended = self.append_now().await;
        }
        if ended != Ended::Normally {
            self.ledger.shared.problem("a batch producer cannot append after the storm".to_owned());
        }
    }

    async fn append_now(&mut self) -> Ended {
        let (gathering, mut caller) = self.gather();
        let input = Arc::new(Input { poison: None, ..caller.input(true) });
        let ended = gathering.produced(input, &caller.producer, None).await;
        let deadline = gathering.shared.plan.deadlines.operation;
        gathering.close(&caller.producer, deadline, Patience::Endless).await;
        gathering.finish(&mut self.rng).await;
        ended
    }
}

impl Values {
    fn next(&self, len: usize, rng: &mut Rng) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut value = format!("call{}{number}.", self.prefix);
        // Some time they can be compressed, and then they cannot: so batches come out larger than expected.
        let is_random = number / 40 % 2 == 1;
        while value.len() < len {
            value.push(if is_random { rng.alphanumeric() } else { '.' });
        }
        value
    }
}

impl Caller {
    async fn work(mut self, until: Instant) {
        while Instant::now() < until && !self.gathering.is_over() {
            match self.rng.u8(..40) {
                0..8 => self.produce().await,
                8..13 => self.produce_later().await,
                13 => self.never_poll(),
                14..22 => self.burst().await,
                22 => self.reserve_in_vain().await,
                23..26 => self.gathering.poll_held(&mut self.rng).await,
                26 | 27 => self.flush().await,
                28 if self.rng.u8(..6) == 0 => self.close().await,
                _ => sleep(Duration::from_millis(self.rng.u64(..400))).await,
            }
        }
    }

    fn input(&mut self, by_poll: bool) -> Input {
        let plan = &self.gathering.shared.plan;
        let len = match self.rng.u8(..8) {
            0 if plan.large => self.rng.u64(..4_000),
            0..3 => self.rng.u64(..300),
            _ => 0,
        };
        let value = self.values.next(len as usize, &mut self.rng);
        let poison = match self.rng.u8(..60) {
            0 => Some(Poison::Error),
            1 => Some(Poison::Panic),
            _ => None,
        };
        Input {
            record: self.gathering.shared.stamped(value.clone()),
            value,
            turn: by_poll.then(|| self.gathering.turn()),
            poison,
            is_added: AtomicBool::new(false),
            ticket: Mutex::default(),
        }
    }

    /// Returns a time limit that may be shorter than what a batch takes.
    fn deadline(&mut self) -> Option<Duration> {
        let operation = self.gathering.shared.plan.operation_ms();
        (self.rng.u8(..8) == 0).then(|| Duration::from_millis(self.rng.u64(..operation / 2)))
    }

    /// Appends one after the other.
    async fn produce(&mut self) {
        for _ in 0..self.rng.u8(1..4) {
            let (input, deadline) = (Arc::new(self.input(true)), self.deadline());
            self.gathering.produced(input, &self.producer, deadline).await;
            self.gathering.look(&self.producer);
        }
    }

    /// Appends several at a time, each in a task of its own, and drops some before their end.
    async fn produce_later(&mut self) {
        for _ in 0..self.rng.u8(1..5) {
            let patience = Patience::of_any(&mut self.rng);
            let (input, deadline) = (Arc::new(self.input(true)), self.deadline());
            let (gathering, producer) = (Arc::clone(&self.gathering), self.producer.clone());
            let mut call = Box::pin(async move { gathering.produced(input, &producer, deadline).await });
            // The first poll fixes its place in the order, whichever task polls it later.
            let is_over = polled(&mut call, 1).await.is_some();
            self.gathering.look(&self.producer);
            let shared = Arc::clone(&self.gathering.shared);
            match patience {
                _ if is_over => {}
                Patience::Polls(1) => shared.count_event("inputs dropped"),
                patience => self.gathering.spawn(async move {
                    if patience.of(call).await.is_none() {
                        shared.count_event("inputs dropped");
                    }
                }),
            }
        }
    }

    /// Makes a call that is never polled, and so appends nothing: the checker knows nothing of its value.
    fn never_poll(&mut self) {
        let input = self.input(false);
        drop(self.producer.produce(&input));
        self.gathering.shared.count_event("inputs dropped before the first poll");
    }

    /// Reserves several places, and hands over as many inputs in a known order.
    async fn burst(&mut self) {
        let shared = Arc::clone(&self.gathering.shared);
        let inputs: Vec<_> = (0..self.rng.u8(1..6)).map(|_| Arc::new(self.input(false))).collect();
        let mut slots = Vec::new();
        for input in &inputs {
            // Others may wait for what this one has.
            let deadline = match slots.is_empty() {
                true => shared.plan.deadlines.operation,
                false => Duration::from_millis(self.rng.u64(..300)),
            };
            let bytes = if self.rng.bool() { 50 } else { 50 + input.value.len() };
            let reserve = self.producer.reserve().bytes(bytes).deadline(deadline);
            match shared.timed_within("reserve", deadline, reserve).await {
                Ok(slot) => slots.push(slot),
                Err(error) => {
                    if !matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }) {
                        self.gathering.consequence(&error);
                    }
                    break;
                }
            }
        }
        if self.rng.u8(..6) == 0 {
            sleep(Duration::from_millis(self.rng.u64(..100))).await;
        }
        if self.rng.u8(..12) == 0 {
            slots.pop();
            shared.count_event("places dropped");
        }
        if slots.len() > 1 {
            shared.count_event("inputs handed over in bursts");
        }
        let mut sent = Vec::new();
        for (slot, input) in slots.into_iter().zip(inputs) {
            let ack = self.gathering.send(slot, &input);
            self.gathering.look(&self.producer);
            sent.extend(ack.map(|ack| (ack, input)));
        }
        match self.rng.u8(..4) {
            0 if self.gathering.ledger.stops_on_failure() => self.read_as_stream(sent),
            1 => sent.into_iter().for_each(|(ack, input)| self.gathering.hold(ack, input)),
            _ => {
                self.rng.shuffle(&mut sent);
                sent.into_iter().for_each(|(ack, input)| self.await_later(ack, input));
            }
        }
    }

    fn await_later(&mut self, ack: Ack, input: Arc<Input>) {
        let (gathering, since) = (Arc::clone(&self.gathering), Instant::now());
        match self.rng.u8(..5) {
            0 => gathering.shared.count_event("inputs dropped"),
            1 => gathering.hold(ack, input),
            _ => {
                let patience = Patience::of_any(&mut self.rng);
                let awaited = Arc::clone(&self.gathering);
                self.gathering.spawn(async move {
                    if patience.of(awaited.acked(ack, &input, since)).await.is_none() {
                        awaited.shared.count_event("inputs dropped");
                    }
                });
            }
        }
    }

    fn read_as_stream(&self, sent: Vec<(Ack, Arc<Input>)>) {
        let gathering = Arc::clone(&self.gathering);
        let (mut acks, mut inputs) = (Acks::new(), Vec::new());
        for (ack, input) in sent {
            acks.push(ack);
            inputs.push(input);
        }
        self.gathering.spawn(async move {
            let shared = &gathering.shared;
            let deadline = shared.plan.deadlines.operation;
            let read = async {
                for input in inputs {
                    match poll_fn(|cx| at_once(&input, || acks.poll_next_unpin(cx))).await {
                        Some(result) => drop(gathering.ended(&input, result, false)),
                        None => shared.problem("a stream of results ends too early".to_owned()),
                    }
                }
                if !acks.is_empty() {
                    shared.problem("a stream of results has more than were added".to_owned());
                }
            };
            if gathering.ends("acks", deadline, read).await.is_some() {
                shared.count_event("results read as a stream");
            }
        });
    }

    /// Drops a call that waits for a place, or the place.
    async fn reserve_in_vain(&mut self) {
        let times = self.rng.u64(1..4) as usize;
        match polled(self.producer.reserve(), times).await {
            Some(Err(error)) if !matches!(root(&error), ErrorKind::DeadlineExceeded { .. }) => {
                self.gathering.consequence(&error);
            }
            _ => self.gathering.shared.count_event("places dropped"),
        }
    }

    async fn flush(&mut self) {
        let deadline = self.deadline().unwrap_or(self.gathering.shared.plan.deadlines.operation);
        let patience = Patience::of_any(&mut self.rng);
        self.gathering.flush(&self.producer, deadline, patience).await;
    }

    /// Closes the producer, perhaps twice, while the others use it.
    async fn close(&mut self) {
        if self.rng.bool() {
            self.burst().await;
        }
        for _ in 0..if self.rng.u8(..3) == 0 { 2 } else { 1 } {
            let deadline = match self.rng.bool() {
                true => Duration::from_millis(self.rng.u64(..1_000)),
                false => self.gathering.shared.plan.deadlines.operation,
            };
            let patience = Patience::of_any(&mut self.rng);
            self.gathering.close(&self.producer, deadline, patience).await;
        }
    }
}
