//! Who appends.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use kwal_client::{
    Client, PartitionClient, Produced,
    error::{Error, ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::record::Headers;
use kwal_testkit::check::{Ticket, Writer, WriterId};
use time::OffsetDateTime;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{Scene, TOPIC, plan::STARTED_AT, root};
use crate::support::{chain, polled};

/// Appends to one partition through one client, with several appends in flight.
pub(super) struct Appender {
    client: Client,
    partition: PartitionClient,
    ledger: Ledger,
    /// Makes its records its own.
    name: String,
    rng: Rng,
    under_way: Vec<JoinHandle<How>>,
    appends: u64,
}

/// How an append ended, as far as it matters to who goes on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum How {
    /// It is on the log, or nobody cares.
    Well,
    Failed,
    /// The partition client appends no more.
    AtTheEnd,
}

impl Appender {
    pub(super) async fn take(
        scene: &Arc<Scene>,
        client: &Client,
        number: u64,
        partition: i32,
        rng: Rng,
    ) -> Self {
        let opened = scene.open(client, partition).await.unwrap();
        Self {
            client: client.clone(),
            partition: opened,
            ledger: Ledger::open(scene, number, partition),
            name: format!("{number}{}", char::from(b'a' + partition as u8)),
            rng,
            under_way: Vec::new(),
            appends: 0,
        }
    }

    /// Appends until then; when it is done, nothing is under way any more.
    pub(super) async fn work(mut self, until: Instant) -> Self {
        while Instant::now() < until {
            match self.rng.u8(..20) {
                0..8 => {
                    for _ in 0..self.rng.u8(1..=4) {
                        self.append().await;
                    }
                }
                8 => self.settle().await,
                9 if self.rng.bool() => self.open_anew().await,
                _ => sleep(Duration::from_millis(self.rng.u64(..1_000))).await,
            }
        }
        self.settle().await;
        self
    }

    /// Appends once more, which has to succeed; with another partition client, if this one is at its end.
    pub(super) async fn append_at_last(&mut self) {
        self.append_now().await;
        let mut how = self.settled().await;
        if how == How::AtTheEnd {
            self.open_anew().await;
            self.append_now().await;
            how = self.settled().await;
        }
        if how != How::Well {
            self.ledger.scene.problem(format!("{} cannot append when all is well again", self.name));
        }
    }

    async fn settle(&mut self) {
        if self.settled().await == How::AtTheEnd {
            self.open_anew().await;
        }
    }

    /// Waits for what is under way; answers the worst of it.
    async fn settled(&mut self) -> How {
        let mut worst = How::Well;
        for append in self.under_way.drain(..) {
            worst = worst.max(append.await.unwrap());
        }
        worst
    }

    /// Goes on with another partition client; what is under way with the old one ends as it may.
    async fn open_anew(&mut self) {
        let Ledger { scene, client, partition, .. } = &self.ledger;
        if let Some(opened) = scene.open(&self.client, *partition).await {
            self.partition = opened;
            self.ledger = Ledger::open(scene, *client, *partition);
        }
    }

    async fn append(&mut self) {
        // There is room for 64, and the place of who comes to it is fixed.
        if self.under_way.len() >= 60 {
            self.settle().await;
        }
        if self.rng.u8(..30) == 0 {
            let (records, values) = self.records();
            let ticket = self.ledger.ticket(values);
            drop(self.partition.produce(records));
            self.ledger.scene.meet("appends given up before their place was fixed");
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
            _ if ledger.scene.is_over() => None,
            0 => Some(Duration::ZERO),
            1 => Some(Duration::from_millis(self.rng.u64(..2_000))),
            _ => None,
        };
        // From here on it has its turn, whoever polls it next.
        match polled(&mut append, 1).await {
            Some(done) => {
                let how = ledger.ended(ticket, done);
                self.under_way.push(tokio::spawn(async move { how }));
            }
            None if patience == Some(Duration::ZERO) => ledger.scene.meet("appends given up"),
            None => self.under_way.push(tokio::spawn(async move {
                let done = match patience {
                    Some(patience) => timeout(patience, append).await.ok(),
                    None => Some(append.await),
                };
                if let Some(done) = done {
                    return ledger.ended(ticket, done);
                }
                ledger.scene.meet("appends given up");
                How::Well
            })),
        }
    }

    /// A batch, and what is in it.
    fn records(&mut self) -> (Vec<Record>, Vec<String>) {
        let number = self.appends;
        self.appends += 1;
        let large = self.ledger.scene.plan.large && self.rng.u8(..8) == 0;
        let len = if large { self.rng.u64(1_000..40_000) } else { 0 } as usize;
        if large {
            self.ledger.scene.meet("large appends");
        }
        let value = |index: u8| format!("{:.<len$}", format!("{}{number}.{index}", self.name));
        let values: Vec<_> = (0..self.rng.u8(1..=3)).map(value).collect();
        // By tokio's clock, as all that is recorded is to be the same the next time.
        let passed = self.ledger.scene.begun.elapsed();
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

/// Where is recorded what one partition client is told.
#[derive(Clone)]
struct Ledger {
    scene: Arc<Scene>,
    client: u64,
    partition: i32,
    writer: WriterId,
}

impl Ledger {
    fn open(scene: &Arc<Scene>, client: u64, partition: i32) -> Self {
        let writer = Writer::new((TOPIC, partition)).deadline(scene.plan.deadlines.operation);
        let writer = scene.recorder.now().writer(writer);
        Self { scene: Arc::clone(scene), client, partition, writer }
    }

    fn ticket(&self, values: Vec<String>) -> Ticket {
        match self.scene.plan.is_scarce() {
            true => self.scene.recorder.queue(self.writer, values),
            false => self.scene.recorder.submit(self.writer, values),
        }
    }

    fn ended(&self, ticket: Ticket, done: Result<Produced, Error>) -> How {
        match done {
            Ok(produced) => {
                self.acked(ticket, &produced);
                How::Well
            }
            Err(error) => self.failed(ticket, &error),
        }
    }

    fn acked(&self, ticket: Ticket, produced: &Produced) {
        self.scene.meet(match produced.attempts {
            1 => "appends ok at once",
            _ => "appends ok after retries",
        });
        self.scene.is_acked(self.client, self.partition, produced.offsets().end);
        ticket.acked(produced.base_offset);
    }

    fn failed(&self, ticket: Ticket, error: &Error) -> How {
        match (error.outcome(), error.kind()) {
            (Outcome::Unknown, _) => {
                self.scene.meet("appends unknown");
                ticket.unknown();
            }
            (Outcome::NotApplied, ErrorKind::PrecedingAppendFailed) => {
                self.scene.meet("appends failed behind others");
                ticket.not_appended();
            }
            (Outcome::NotApplied, _) => {
                self.scene.meet("appends not appended");
                ticket.not_appended();
            }
        }
        match root(error) {
            ErrorKind::DataLoss { .. } => {
                self.scene.meet("writers told of a loss");
                self.scene.recorder.now().lost(self.writer);
                How::AtTheEnd
            }
            ErrorKind::TopicRecreated { .. } => How::AtTheEnd,
            ErrorKind::Fenced | ErrorKind::Closed | ErrorKind::InvalidInput { .. } | ErrorKind::Encode => {
                self.scene.problem(format!("an append failed: {}", chain(error)));
                How::AtTheEnd
            }
            _ => How::Failed,
        }
    }
}
