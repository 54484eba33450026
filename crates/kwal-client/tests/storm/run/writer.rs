//! The writer of one partition.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use kwal_client::{
    Client, PartitionClient, Produced,
    error::{Error, ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::record::Headers;
use kwal_testkit::{
    Hazard,
    check::{Ticket, Writer, WriterId},
};
use time::OffsetDateTime;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{Shared, TOPIC, plan::STARTED_AT, root};
use crate::support::{chain, polled};

/// Appends to one partition through one client, with several appends in flight.
pub(super) struct Appender {
    client: Client,
    partition: PartitionClient,
    ledger: Ledger,
    /// The prefix of its values, which are unique.
    name: String,
    rng: Rng,
    in_flight: Vec<JoinHandle<Ended>>,
    appends: u64,
}

/// How an append ended, as far as the next one depends on it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Ended {
    /// It is on the log, or was dropped.
    Normally,
    Failed,
    /// The partition client cannot append any more.
    Fatal,
}

impl Appender {
    pub(super) async fn open(
        shared: &Arc<Shared>,
        client: &Client,
        number: u64,
        partition: i32,
        rng: Rng,
    ) -> Self {
        let opened = shared.open(client, partition).await.unwrap();
        Self {
            client: client.clone(),
            partition: opened,
            ledger: Ledger::open(shared, number, partition),
            name: format!("{number}{}", char::from(b'a' + partition as u8)),
            rng,
            in_flight: Vec::new(),
            appends: 0,
        }
    }

    /// Appends until a time, then waits for the appends in flight.
    pub(super) async fn work(mut self, until: Instant) -> Self {
        while Instant::now() < until {
            match self.rng.u8(..20) {
                0..8 => {
                    for _ in 0..self.rng.u8(1..=4) {
                        self.append().await;
                    }
                }
                8 => self.settle().await,
                9 if self.rng.bool() => self.reopen().await,
                _ => sleep(Duration::from_millis(self.rng.u64(..1_000))).await,
            }
        }
        self.settle().await;
        self
    }

    /// Appends after the storm, which has to succeed, with a new partition client if this one cannot append
    /// any more.
    pub(super) async fn append_after_storm(&mut self) {
        self.append_now().await;
        let mut ended = self.settled().await;
        // An idle producer id is refused only now, and an earlier attempt at a former leader leaves the batch
        // in doubt.
        if ended == Ended::Failed && self.ledger.shared.plan.has(Hazard::RefusedProducerIds) {
            self.append_now().await;
            ended = self.settled().await;
        }
        if ended == Ended::Fatal {
            self.reopen().await;
            self.append_now().await;
            ended = self.settled().await;
        }
        if ended != Ended::Normally {
            self.ledger.shared.problem(format!("{} cannot append after the storm", self.name));
        }
    }

    async fn settle(&mut self) {
        if self.settled().await == Ended::Fatal {
            self.reopen().await;
        }
    }

    /// Waits for the appends in flight. Returns the worst result.
    async fn settled(&mut self) -> Ended {
        let mut worst = Ended::Normally;
        for append in self.in_flight.drain(..) {
            worst = worst.max(append.await.unwrap());
        }
        worst
    }

    /// Continues with a new partition client.
    async fn reopen(&mut self) {
        let Ledger { shared, client, partition, .. } = &self.ledger;
        if let Some(opened) = shared.open(&self.client, *partition).await {
            self.partition = opened;
            self.ledger = Ledger::open(shared, *client, *partition);
        }
    }

    async fn append(&mut self) {
        // The queue has 64 places, and an append that has one is submitted.
        if self.in_flight.len() >= 60 {
            self.settle().await;
        }
        if self.rng.u8(..30) == 0 {
            let (records, values) = self.records();
            let ticket = self.ledger.ticket(values);
            drop(self.partition.produce(records));
            self.ledger.shared.count_event("appends dropped before submission");
            return ticket.withdrawn();
        }
        self.append_now().await;
    }

    async fn append_now(&mut self) {
        let (records, values) = self.records();
        let ledger = self.ledger.clone();
        let ticket = ledger.ticket(values);
        let mut append = Box::pin({
            let partition = self.partition.clone();
            async move { partition.produce(records).await }
        });
        let patience = match self.rng.u8(..24) {
            _ if ledger.shared.is_over() => None,
            0 => Some(Duration::ZERO),
            1 => Some(Duration::from_millis(self.rng.u64(..2_000))),
            _ => None,
        };
        // The first poll fixes its place in the order, whichever task polls it later.
        match polled(&mut append, 1).await {
            Some(done) => {
                let ended = ledger.ended(ticket, done);
                self.in_flight.push(tokio::spawn(async move { ended }));
            }
            None if patience == Some(Duration::ZERO) => ledger.shared.count_event("appends dropped"),
            None => self.in_flight.push(tokio::spawn(async move {
                let done = match patience {
                    Some(patience) => timeout(patience, append).await.ok(),
                    None => Some(append.await),
                };
                if let Some(done) = done {
                    return ledger.ended(ticket, done);
                }
                ledger.shared.count_event("appends dropped");
                Ended::Normally
            })),
        }
    }

    /// Returns a batch and its values.
    fn records(&mut self) -> (Vec<Record>, Vec<String>) {
        let number = self.appends;
        self.appends += 1;
        let large = self.ledger.shared.plan.large && self.rng.u8(..8) == 0;
        let len = if large { self.rng.u64(1_000..40_000) } else { 0 } as usize;
        if large {
            self.ledger.shared.count_event("large appends");
        }
        let value = |index: u8| format!("{:.<len$}", format!("{}{number}.{index}", self.name));
        let values: Vec<_> = (0..self.rng.u8(1..=3)).map(value).collect();
        // By tokio's clock, so that the recorded history is the same every time.
        let passed = self.ledger.shared.begun.elapsed();
        let timestamp = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(STARTED_AT) + passed;
        let record = |value: &String| Record {
            key: None,
            value: Some(value.clone().into()),
            headers: Headers::default(),
            timestamp,
        };
        (values.iter().map(record).collect(), values)
    }
}

/// Records the results that one partition client gets.
#[derive(Clone)]
struct Ledger {
    shared: Arc<Shared>,
    client: u64,
    partition: i32,
    writer: WriterId,
}

impl Ledger {
    fn open(shared: &Arc<Shared>, client: u64, partition: i32) -> Self {
        let writer = Writer::new((TOPIC, partition)).deadline(shared.plan.deadlines.operation);
        let writer = shared.recorder.now().writer(writer);
        Self { shared: Arc::clone(shared), client, partition, writer }
    }

    fn ticket(&self, values: Vec<String>) -> Ticket {
        match self.shared.plan.is_scarce() {
            true => self.shared.recorder.queue(self.writer, values),
            false => self.shared.recorder.submit(self.writer, values),
        }
    }

    fn ended(&self, ticket: Ticket, done: Result<Produced, Error>) -> Ended {
        match done {
            Ok(produced) => {
                self.acked(ticket, &produced);
                Ended::Normally
            }
            Err(error) => self.failed(ticket, &error),
        }
    }

    fn acked(&self, ticket: Ticket, produced: &Produced) {
        self.shared.count_event(match produced.attempts {
            1 => "appends ok at the first attempt",
            _ => "appends ok after retries",
        });
        let offsets = produced.offsets().unwrap();
        self.shared.is_acked(self.client, self.partition, offsets.end);
        ticket.acked(offsets.start);
    }

    fn failed(&self, ticket: Ticket, error: &Error) -> Ended {
        match (error.outcome(), error.kind()) {
            (Outcome::Unknown, _) => {
                self.shared.count_event("appends with unknown outcome");
                ticket.unknown();
            }
            (Outcome::NotApplied, ErrorKind::PrecedingAppendFailed) => {
                self.shared.count_event("appends failed after an earlier one");
                ticket.not_appended();
            }
            (Outcome::NotApplied, _) => {
                self.shared.count_event("appends not applied");
                ticket.not_appended();
            }
        }
        match root(error) {
            ErrorKind::DataLoss { .. } => {
                self.shared.count_event("losses reported to writers");
                self.shared.recorder.now().lost(self.writer);
                Ended::Fatal
            }
            ErrorKind::TopicRecreated { .. } => Ended::Fatal,
            ErrorKind::Fenced | ErrorKind::Closed | ErrorKind::InvalidInput { .. } | ErrorKind::Encode => {
                self.shared.problem(format!("an append failed: {}", chain(error)));
                Ended::Fatal
            }
            _ => Ended::Failed,
        }
    }
}
