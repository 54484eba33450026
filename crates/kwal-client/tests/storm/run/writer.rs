//! The writer of one partition.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use kwal_client::{
    Client, PartitionClient, Permit, Produced,
    error::{Error, ErrorKind},
    record::Record,
};
use kwal_testkit::{
    Hazard,
    check::{Ticket, WriterId},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    Shared,
    doubts::{Doubt, resolve},
    kind::{FENCED_IDS, Kind},
    ledger::{Ended, Ledger},
    root,
};
use crate::support::{chain, polled};

/// Appends to one partition through one client, with several appends in flight.
pub(super) struct Appender {
    client: Client,
    kind: Kind,
    partition: PartitionClient,
    ledger: Ledger,
    /// The prefix of its values, which are unique.
    name: String,
    rng: Rng,
    in_flight: Vec<JoinHandle<Ended>>,
    appends: u64,
}

impl Appender {
    pub(super) async fn open(
        shared: &Arc<Shared>,
        client: &Client,
        number: u64,
        partition: i32,
        mut rng: Rng,
    ) -> Self {
        let kind = Kind::on(partition, &shared.plan, &mut rng);
        let (opened, ledger) = shared.open_writer(client, number, partition, kind).await.unwrap();
        Self {
            client: client.clone(),
            kind,
            partition: opened,
            ledger,
            name: format!("{number}{}", char::from(b'a' + partition as u8)),
            rng,
            in_flight: Vec::new(),
            appends: 0,
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn is_holder(&self) -> bool {
        self.kind.exclusive.is_some()
    }

    pub(super) fn partition(&self) -> &PartitionClient {
        &self.partition
    }

    /// Takes over the log once more, beside the own partition client, whose log it is no more.
    pub(super) async fn open_again(&self) -> Option<(PartitionClient, WriterId)> {
        let Ledger { shared, client, partition, .. } = &self.ledger;
        let (opened, ledger) = shared.open_writer(&self.client, *client, *partition, self.kind).await?;
        Some((opened, ledger.writer))
    }

    pub(super) fn writer(&self) -> WriterId {
        self.ledger.writer
    }

    /// Whether an append is of its client and partition, perhaps of an earlier partition client.
    pub(super) fn is_of(&self, doubt: &Doubt) -> bool {
        (self.ledger.client, self.ledger.partition) == (doubt.client, doubt.partition)
    }

    /// Appends until a time, then waits for the appends in flight.
    pub(super) async fn work(mut self, until: Instant) -> Self {
        while Instant::now() < until {
            match self.rng.u8(..24) {
                0..9 => {
                    for _ in 0..self.rng.u8(1..=if self.kind.by_permit { 8 } else { 4 }) {
                        self.append().await;
                    }
                }
                9 => self.settle().await,
                10 if self.rng.bool() => self.reopen().await,
                11 if self.rng.u8(..4) == 0 => self.close().await,
                12 if self.rng.bool() => self.resolve().await,
                13 if self.kind.exclusive.is_some() => self.delete().await,
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
        // in doubt. Without an id that attempt is the last one.
        let may_fail = self.ledger.shared.plan.has(Hazard::RefusedProducerIds) || !self.kind.idempotent;
        if ended == Ended::Failed && may_fail {
            self.append_now().await;
            ended = self.settled().await;
        }
        // Each idle producer id that was fenced is noticed by one partition client.
        for _ in 0..FENCED_IDS {
            if ended != Ended::Fatal {
                break;
            }
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
        let (Ledger { shared, client, partition, .. }, kind) = (&self.ledger, self.kind);
        if kind.exclusive.is_some() && !shared.is_over() {
            sleep(Duration::from_millis(self.rng.u64(..2_000))).await;
        }
        if let Some((opened, ledger)) = shared.open_writer(&self.client, *client, *partition, kind).await {
            (self.partition, self.ledger) = (opened, ledger);
        }
    }

    /// Closes the partition client, perhaps before everything in flight has ended, and continues with a new
    /// one.
    async fn close(&mut self) {
        let deadline = Duration::from_millis(self.rng.u64(..=self.ledger.shared.plan.operation_ms() / 2));
        self.close_within(deadline).await;
        self.settled().await;
        self.reopen().await;
    }

    /// Closes the partition client. Returns how many appends failed meanwhile.
    async fn close_within(&self, deadline: Duration) -> usize {
        let (shared, writer) = (&self.ledger.shared, self.ledger.writer);
        shared.count_event("partition clients closed");
        self.ledger.closing();
        shared.recorder.now().close(writer);
        let failed = shared.timed_within("close", deadline, self.partition.close().deadline(deadline)).await;
        shared.recorder.now().closed(writer, failed.len());
        failed.iter().for_each(|error| self.ledger.check(error));
        failed.len()
    }

    /// Closes the partition client at the end, when nothing is left to wait for.
    pub(super) async fn close_after_storm(self) {
        let failed = self.close_within(Duration::ZERO).await;
        if failed > 0 {
            self.ledger.shared.problem(format!("{} was idle and has {failed} failures", self.name));
        }
        match self.partition.reserve(1).await {
            Err(error) if matches!(error.kind(), ErrorKind::Closed) => {}
            other => self.ledger.shared.problem(format!("{} is closed, and has {other:?}", self.name)),
        }
    }

    /// Resolves one of its appends while the storm goes on.
    async fn resolve(&mut self) {
        let mut doubts = self.ledger.shared.doubts();
        doubts.retain(|doubt| self.is_of(doubt));
        if !doubts.is_empty() {
            let doubt = &doubts[self.rng.u64(..doubts.len() as u64) as usize];
            resolve(&self.ledger.shared, &self.partition, Some(self.ledger.writer), doubt).await;
        }
    }

    /// Deletes records. The last one has to stay: without records, a broker that restarts forgets who was
    /// fenced.
    async fn delete(&mut self) {
        let Ledger { shared, client, partition, .. } = &self.ledger;
        let acked = shared.acked_end(*client, *partition);
        if acked == 0 || !shared.plan.deletes || shared.plan.is_lossy() {
            return;
        }
        let before = self.rng.i64(..acked);
        match shared.timed("delete", self.partition.delete_records(before)).await {
            Ok(start) if start < before => {
                shared
                    .problem(format!("records before {before} were deleted, but the log begins at {start}"));
            }
            Ok(_) => shared.count_event("records deleted"),
            Err(_) => {}
        }
    }

    async fn append(&mut self) {
        // The queue has 64 places, and an append that has one is submitted.
        if self.in_flight.len() >= 60 || self.ledger.is_fenced() {
            self.settle().await;
        }
        if !self.kind.by_permit && self.rng.u8(..30) == 0 {
            let (records, values) = self.records();
            let ticket = self.ledger.ticket(values);
            drop(self.partition.produce(records));
            self.ledger.shared.count_event("appends dropped before submission");
            return ticket.withdrawn();
        }
        self.append_now().await;
    }

    async fn append_now(&mut self) {
        match self.kind.by_permit {
            true => self.append_by_permit().await,
            false => self.produce().await,
        }
    }

    async fn produce(&mut self) {
        let (records, values) = self.records();
        let ticket = self.ledger.ticket(values.clone());
        let append = Box::pin({
            let partition = self.partition.clone();
            async move { partition.produce(records).await }
        });
        self.await_later(ticket, values, append).await;
    }

    async fn append_by_permit(&mut self) {
        let (records, values) = self.records();
        let shared = Arc::clone(&self.ledger.shared);
        let batch = match self.partition.encode(&records) {
            Ok(batch) => batch,
            Err(error) => return shared.problem(format!("a batch cannot be encoded: {}", chain(&error))),
        };
        let size = batch.size_in_bytes() + 50 * self.rng.u64(..3) as usize;
        let Some(permit) = self.permit(size).await else { return };
        match self.rng.u8(..16) {
            0 if !shared.is_over() => {
                drop(permit);
                return shared.count_event("permits dropped");
            }
            1 => sleep(Duration::from_millis(self.rng.u64(..100))).await,
            _ => {}
        }
        let permit = match self.rng.u8(..12) {
            0 if !shared.is_over() => {
                permit.deadline(Duration::from_millis(self.rng.u64(..shared.plan.operation_ms())))
            }
            _ => permit,
        };
        shared.count_event("appends by permit");
        let ticket = shared.recorder.submit(self.ledger.writer, &values);
        self.await_later(ticket, values, permit.submit(batch)).await;
    }

    async fn permit(&self, size: usize) -> Option<Permit> {
        let shared = &self.ledger.shared;
        let error = match shared.timed("reserve", self.partition.reserve(size)).await {
            Ok(permit) => return Some(permit),
            Err(error) => error,
        };
        let is_late = matches!(root(&error), ErrorKind::DeadlineExceeded { .. });
        if shared.is_over() || !is_late {
            shared.problem(format!("there is no permit: {}", chain(&error)));
        }
        None
    }

    /// Awaits an append in a task of its own, and drops it before its end now and then.
    async fn await_later<A>(&mut self, ticket: Ticket, values: Vec<String>, mut append: A)
    where
        A: Future<Output = Result<Produced, Error>> + Send + Unpin + 'static,
    {
        let ledger = self.ledger.clone();
        let patience = match self.rng.u8(..24) {
            _ if ledger.shared.is_over() => None,
            0 => Some(Duration::ZERO),
            1 => Some(Duration::from_millis(self.rng.u64(..2_000))),
            _ => None,
        };
        // The first poll fixes its place in the order, whichever task polls it later.
        match polled(&mut append, 1).await {
            Some(done) => {
                let ended = ledger.ended(ticket, values, done);
                self.in_flight.push(tokio::spawn(async move { ended }));
            }
            None if patience == Some(Duration::ZERO) => ledger.shared.count_event("appends dropped"),
            None => self.in_flight.push(tokio::spawn(async move {
                let done = match patience {
                    Some(patience) => timeout(patience, append).await.ok(),
                    None => Some(append.await),
                };
                if let Some(done) = done {
                    return ledger.ended(ticket, values, done);
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
        let record = |value: &String| self.ledger.shared.stamped(value.clone());
        (values.iter().map(record).collect(), values)
    }
}
