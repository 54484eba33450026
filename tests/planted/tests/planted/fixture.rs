//! A cluster, what clients did to it, and what came of that.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use kwal_client::{
    Client, ClientBuilder, Deadlines, PartitionClient, Produced,
    error::{Error, Outcome},
    record::Record,
};
use kwal_testkit::{
    EmbeddedCluster, EmbeddedClusterBuilder,
    check::{Expect, History, Log, ReadFailure, ReaderId, Recorder, Ticket, Verdict, Writer, WriterId},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::support::{self, HOUR, polled};

pub(crate) struct Fixture {
    pub(crate) cluster: EmbeddedCluster,
    pub(crate) recorder: Recorder,
    seen: RefCell<Vec<&'static str>>,
}

/// What is found in the end.
pub(crate) struct Found {
    pub(crate) verdict: Verdict,
    /// What was seen besides that should not be.
    pub(crate) seen: Vec<&'static str>,
}

/// A partition client, and its appends as a writer of the history.
pub(crate) struct Appender {
    pub(crate) partition: PartitionClient,
    recorder: Recorder,
    writer: WriterId,
}

/// An append that was polled once. Dropping it gives it up.
pub(crate) struct Begun {
    future: Pin<Box<dyn Future<Output = Option<Produced>> + Send>>,
    done: Option<Option<Produced>>,
    ticket: Arc<Mutex<Option<Ticket>>>,
}

impl Fixture {
    /// One broker.
    pub(crate) fn one() -> Self {
        Self::start(EmbeddedCluster::builder())
    }

    /// So many brokers.
    pub(crate) fn of(brokers: i32) -> Self {
        Self::start(EmbeddedCluster::builder().brokers(brokers))
    }

    /// With the topic `wal` of two partitions.
    pub(crate) fn start(builder: EmbeddedClusterBuilder) -> Self {
        let cluster = builder.seed(5).topic("wal", 2).start_in_memory().unwrap();
        let recorder = Recorder::new();
        cluster.record_losses(&recorder);
        Self { cluster, recorder, seen: RefCell::default() }
    }

    /// Says what should not be, if it is.
    pub(crate) fn expect(&self, holds: bool, or: &'static str) {
        if !holds {
            self.seen.borrow_mut().push(or);
        }
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        support::builder(&self.cluster)
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().build().await.unwrap()
    }

    /// Partition 0, by a client of its own.
    pub(crate) async fn open(&self) -> Appender {
        self.open_at(&self.client().await, 0).await
    }

    pub(crate) async fn open_at(&self, client: &Client, partition: i32) -> Appender {
        self.appends(client.partition_client("wal", partition).await.unwrap(), Deadlines::default().operation)
    }

    /// Partition 0, by a client of its own whose calls take so long at the most.
    pub(crate) async fn open_for(&self, operation: Duration) -> Appender {
        let deadlines = Deadlines::default().operation(operation);
        let client = self.builder().deadlines(deadlines).build().await.unwrap();
        self.appends(client.partition_client("wal", 0).await.unwrap(), operation)
    }

    pub(crate) fn appends(&self, partition: PartitionClient, deadline: Duration) -> Appender {
        let writer = Writer::new((partition.topic(), partition.partition())).deadline(deadline);
        let writer = self.recorder.now().writer(writer);
        Appender { partition, recorder: self.recorder.clone(), writer }
    }

    pub(crate) fn reader(&self, from: i64) -> ReaderId {
        self.recorder.now().reader(("wal", 0, from))
    }

    /// Reads to an offset, so many bytes at a time; answers where the reader is when it is there, or is told that it cannot
    /// go on. A call that has a minute for it.
    pub(crate) async fn read(
        &self,
        reader: ReaderId,
        partition: &PartitionClient,
        from: i64,
        to: i64,
        max_bytes: i32,
    ) -> i64 {
        let mut next = from;
        let minute = Duration::from_secs(60);
        let call = self.recorder.now().call("read", minute);
        let all = async {
            while next < to {
                let fetched = match partition.fetch(next).max_bytes(max_bytes).await {
                    Ok(fetched) => fetched,
                    Err(error) => {
                        self.recorder.now().read_failed(reader, read_failure(&error));
                        break;
                    }
                };
                let records = fetched.records().collect::<Result<Vec<_>, _>>().unwrap().into_iter();
                let records = records.map(|record| (record.offset, record.value.unwrap_or_default()));
                self.recorder.now().read(reader, records, fetched.next_offset);
                if fetched.next_offset == next {
                    sleep(Duration::from_millis(100)).await;
                }
                next = fetched.next_offset;
            }
        };
        if timeout(minute, all).await.is_ok() {
            self.recorder.now().returned(call);
        }
        next
    }

    /// When all that is late has come.
    pub(crate) async fn judge(self) -> Found {
        self.cluster.clear_faults();
        sleep(2 * HOUR).await;
        let mut history = self.recorder.now();
        for partition in 0..2 {
            history.log(log(&self.cluster, partition));
        }
        let verdict = History::check(&history, &Expect::default());
        drop(history);
        Found { verdict, seen: self.seen.into_inner() }
    }
}

impl Appender {
    /// Appends; what comes of it is in the history.
    pub(crate) async fn append(&self, values: &[&str]) -> Option<Produced> {
        self.begin(values).await.done().await
    }

    /// Appends on a task of its own; the place is fixed.
    pub(crate) async fn submit(&self, values: &[&str]) -> JoinHandle<Option<Produced>> {
        self.begin(values).await.spawn()
    }

    /// Fixes the place of an append.
    pub(crate) async fn begin(&self, values: &[&str]) -> Begun {
        self.begun(self.recorder.submit(self.writer, values.iter().copied()), values).await
    }

    /// Begins an append that has to wait for room.
    pub(crate) async fn wait(&self, values: &[&str]) -> Begun {
        self.begun(self.recorder.queue(self.writer, values.iter().copied()), values).await
    }

    async fn begun(&self, ticket: Ticket, values: &[&str]) -> Begun {
        let record = |value: &&str| Record::new(None::<&str>, (*value).to_owned());
        let records = values.iter().map(record).collect();
        let ticket = Arc::new(Mutex::new(Some(ticket)));
        let mut future = Box::pin({
            let (partition, recorder, writer) = (self.partition.clone(), self.recorder.clone(), self.writer);
            let ticket = Arc::clone(&ticket);
            async move {
                let result = partition.produce(records).await;
                let ticket = ticket.lock().unwrap().take();
                if let Some(ticket) = ticket {
                    end(&result, ticket, &recorder, writer);
                }
                result.ok()
            }
        });
        let done = polled(&mut future, 1).await;
        Begun { future, done, ticket }
    }
}

impl Begun {
    async fn done(self) -> Option<Produced> {
        match self.done {
            Some(done) => done,
            None => self.future.await,
        }
    }

    pub(crate) fn spawn(self) -> JoinHandle<Option<Produced>> {
        tokio::spawn(self.done())
    }

    /// Gives it up before its place is fixed.
    pub(crate) fn withdraw(self) {
        let ticket = self.ticket.lock().unwrap().take();
        drop(self.future);
        if let Some(ticket) = ticket {
            ticket.withdrawn();
        }
    }
}

fn end(result: &Result<Produced, Error>, ticket: Ticket, recorder: &Recorder, writer: WriterId) {
    match result {
        Ok(produced) => ticket.acked(produced.base_offset),
        Err(error) => {
            match error.outcome() {
                Outcome::NotApplied => ticket.not_appended(),
                Outcome::Unknown => ticket.unknown(),
            }
            match error {
                Error::Fenced { .. } => recorder.now().fenced(writer),
                Error::Lost { .. } => recorder.now().lost(writer),
                _ => {}
            }
        }
    }
}

fn read_failure(error: &Error) -> ReadFailure {
    match error {
        Error::OffsetOutOfRange { .. } => ReadFailure::OutOfRange,
        Error::TopicRecreated { .. } => ReadFailure::Recreated,
        _ => ReadFailure::Other,
    }
}

/// What lies on the log of a partition. The scene knows of its holes.
fn log(cluster: &EmbeddedCluster, partition: i32) -> Log {
    let offsets =
        cluster.start_offset("wal", partition).unwrap()..cluster.end_offset("wal", partition).unwrap();
    let records = cluster.records("wal", partition).unwrap();
    let (mut next, mut empty) = (offsets.start, Vec::new());
    for offset in records.iter().map(|record| record.offset).chain([offsets.end]) {
        if next < offset {
            empty.push(next..offset);
        }
        next = offset + 1;
    }
    let records = records.into_iter().map(|record| (record.offset, record.value.unwrap_or_default()));
    let log = Log::new(("wal", partition), offsets, records);
    empty.into_iter().fold(log, Log::empty)
}
