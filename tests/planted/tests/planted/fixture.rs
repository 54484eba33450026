//! A cluster, the history of its clients, and the verdict on it.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use kwal_client::{
    Client, ClientBuilder, Deadlines, Holder, PartitionClient, Permit, Produced,
    error::{Error, ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::record::OwnedRecord;
use kwal_testkit::{
    EmbeddedCluster, EmbeddedClusterBuilder,
    check::{
        Expect, History, Log, ReadFailure, Reader, ReaderId, Recorder, Ticket, Value, Verdict, Writer,
        WriterId,
    },
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::support::{self, HOUR, polled};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A cluster and the history of its clients.
pub(crate) struct Fixture {
    pub(crate) cluster: EmbeddedCluster,
    pub(crate) recorder: Recorder,
    findings: RefCell<Vec<&'static str>>,
}

/// What is wrong at the end of a scene.
pub(crate) struct Found {
    pub(crate) verdict: Verdict,
    /// The expectations of the scene that failed.
    pub(crate) findings: Vec<&'static str>,
}

/// A partition client whose appends are recorded as those of one writer.
pub(crate) struct Appender {
    pub(crate) partition: PartitionClient,
    recorder: Recorder,
    writer: WriterId,
    deadline: Duration,
}

/// An append that was polled once. Dropping it cancels it.
pub(crate) struct PendingAppend {
    future: Pin<Box<dyn Future<Output = Result<Produced, Error>> + Send>>,
    done: Option<Result<Produced, Error>>,
    ticket: Arc<Mutex<Option<Ticket>>>,
}

impl Fixture {
    /// Starts one broker.
    pub(crate) fn one_broker() -> Self {
        Self::start(EmbeddedCluster::builder())
    }

    /// Starts several brokers.
    pub(crate) fn brokers(count: i32) -> Self {
        Self::start(EmbeddedCluster::builder().brokers(count))
    }

    /// Starts a cluster with the topic `wal` of two partitions.
    pub(crate) fn start(builder: EmbeddedClusterBuilder) -> Self {
        let cluster = builder.seed(5).topic("wal", 2).start_in_memory().unwrap();
        let recorder = Recorder::new();
        cluster.record_losses(&recorder);
        Self { cluster, recorder, findings: RefCell::default() }
    }

    /// Reports a finding unless something holds.
    pub(crate) fn expect(&self, holds: bool, finding: &'static str) {
        if !holds {
            self.findings.borrow_mut().push(finding);
        }
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        support::builder(&self.cluster)
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().build().await.unwrap()
    }

    /// Opens partition 0 with a client of its own.
    pub(crate) async fn open(&self) -> Appender {
        self.open_partition(&self.client().await, 0).await
    }

    pub(crate) async fn open_partition(&self, client: &Client, partition: i32) -> Appender {
        let partition = client.partition_client("wal", partition).await.unwrap();
        self.appender(partition, Deadlines::default().operation)
    }

    /// Opens partition 0 with a client of its own whose calls have this deadline.
    pub(crate) async fn open_with_deadline(&self, operation: Duration) -> Appender {
        let deadlines = Deadlines::default().operation(operation);
        let client = self.builder().deadlines(deadlines).build().await.unwrap();
        self.appender(client.partition_client("wal", 0).await.unwrap(), operation)
    }

    /// Opens partition 0 as the writer `writer`, with a client of its own.
    pub(crate) async fn hold(&self) -> Appender {
        self.try_hold(&self.client().await).await.unwrap()
    }

    pub(crate) async fn try_hold(&self, client: &Client) -> Result<Appender, Error> {
        let partition = client.partition_client("wal", 0).exclusive("writer").await?;
        Ok(self.holder(partition, Deadlines::default().operation))
    }

    /// Records the barrier of an exclusive writer, and its appends.
    pub(crate) fn holder(&self, partition: PartitionClient, deadline: Duration) -> Appender {
        let Holder { name, barrier, .. } = partition.holder().unwrap();
        let appender = self.appender_with(partition, |writer| writer.deadline(deadline).exclusive(name));
        self.recorder.now().barrier(appender.writer, barrier);
        appender
    }

    /// Records the appends of a partition client as those of one writer, with this deadline.
    pub(crate) fn appender(&self, partition: PartitionClient, deadline: Duration) -> Appender {
        self.appender_with(partition, |writer| writer.deadline(deadline))
    }

    /// The same, with what is expected of the writer. Default deadline: a minute.
    pub(crate) fn appender_with(
        &self,
        partition: PartitionClient,
        with: impl FnOnce(Writer) -> Writer,
    ) -> Appender {
        let writer = with(Writer::new((partition.topic(), partition.partition())).deadline(MINUTE));
        let deadline = writer.deadline.unwrap_or(MINUTE);
        let writer = self.recorder.now().writer(writer);
        Appender { partition, recorder: self.recorder.clone(), writer, deadline }
    }

    pub(crate) fn reader(&self, from: i64) -> ReaderId {
        self.recorder.now().reader(("wal", 0, from))
    }

    pub(crate) fn committed_reader(&self) -> ReaderId {
        self.recorder.now().reader(Reader::new(("wal", 0), 0).committed())
    }

    /// Reads up to an offset, or until the reader gets an error. Returns the offset to continue at.
    ///
    /// It is recorded as one call with a deadline of a minute.
    pub(crate) async fn read(
        &self,
        reader: ReaderId,
        partition: &PartitionClient,
        from: i64,
        to: i64,
        max_bytes: i32,
    ) -> i64 {
        let mut next = from;
        let call = self.recorder.now().call("read", MINUTE);
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
        if timeout(MINUTE, all).await.is_ok() {
            self.recorder.now().returned(call);
        }
        next
    }

    /// Checks the history after everything that was delayed has happened.
    pub(crate) async fn judge(self) -> Found {
        self.cluster.clear_faults();
        sleep(2 * HOUR).await;
        let mut history = self.recorder.now();
        for partition in 0..2 {
            history.log(log(&self.cluster, partition));
        }
        let verdict = History::check(&history, &Expect::default());
        drop(history);
        Found { verdict, findings: self.findings.into_inner() }
    }
}

impl Appender {
    /// Appends, and records the result.
    pub(crate) async fn append(&self, values: &[&str]) -> Option<Produced> {
        self.try_append(values).await.ok()
    }

    /// Appends, records the result, and returns it.
    pub(crate) async fn try_append(&self, values: &[&str]) -> Result<Produced, Error> {
        self.begin(values).await.done().await
    }

    /// Appends a record with a permit.
    pub(crate) fn submit_with(&self, permit: Permit, value: &str) -> JoinHandle<Option<Produced>> {
        let ticket = self.recorder.submit(self.writer, [value]);
        let batch = self.partition.encode([Record::new(None::<&str>, value.to_owned())]).unwrap();
        let append = permit.submit(batch);
        let (recorder, writer) = (self.recorder.clone(), self.writer);
        tokio::spawn(async move {
            let result = append.await;
            record_result(&result, ticket, &recorder, writer);
            result.ok()
        })
    }

    /// Records an append that is not one of the client's own calls.
    pub(crate) fn record(&self, values: &[&str]) -> Ticket {
        self.recorder.submit(self.writer, values.iter().copied())
    }

    /// Fixes the place of an append, which then runs on a task of its own.
    pub(crate) async fn submit(&self, values: &[&str]) -> JoinHandle<Option<Produced>> {
        self.begin(values).await.spawn()
    }

    /// Begins an append, which fixes its place.
    pub(crate) async fn begin(&self, values: &[&str]) -> PendingAppend {
        self.poll_once(self.recorder.submit(self.writer, values.iter().copied()), values).await
    }

    /// Begins an append that has to wait before its place is fixed.
    pub(crate) async fn begin_queued(&self, values: &[&str]) -> PendingAppend {
        self.poll_once(self.recorder.queue(self.writer, values.iter().copied()), values).await
    }

    async fn poll_once(&self, ticket: Ticket, values: &[&str]) -> PendingAppend {
        let record = |value: &&str| Record::new(None::<&str>, (*value).to_owned());
        let records: Vec<_> = values.iter().map(record).collect();
        let ticket = Arc::new(Mutex::new(Some(ticket)));
        let mut future = Box::pin({
            let (partition, recorder, writer) = (self.partition.clone(), self.recorder.clone(), self.writer);
            let deadline = self.deadline;
            let ticket = Arc::clone(&ticket);
            async move {
                let result = partition.produce(records).deadline(deadline).await;
                let ticket = ticket.lock().unwrap().take();
                if let Some(ticket) = ticket {
                    record_result(&result, ticket, &recorder, writer);
                }
                result
            }
        });
        let done = polled(&mut future, 1).await;
        PendingAppend { future, done, ticket }
    }
}

impl PendingAppend {
    async fn done(self) -> Result<Produced, Error> {
        match self.done {
            Some(done) => done,
            None => self.future.await,
        }
    }

    pub(crate) fn spawn(self) -> JoinHandle<Option<Produced>> {
        tokio::spawn(async { self.done().await.ok() })
    }

    /// Drops it, and records that its place was not fixed.
    pub(crate) fn withdraw(self) {
        let ticket = self.ticket.lock().unwrap().take();
        drop(self.future);
        if let Some(ticket) = ticket {
            ticket.withdrawn();
        }
    }
}

fn record_result(result: &Result<Produced, Error>, ticket: Ticket, recorder: &Recorder, writer: WriterId) {
    match result {
        Ok(Produced { base_offset: Some(base_offset), .. }) => ticket.acked(*base_offset),
        Ok(_) => ticket.acked_at_unknown_offset(),
        Err(error) => {
            match error.outcome() {
                Outcome::NotApplied => ticket.not_appended(),
                Outcome::Unknown => ticket.unknown(),
            }
            match error.kind() {
                ErrorKind::Fenced => recorder.now().fenced(writer),
                ErrorKind::DataLoss { .. } => recorder.now().lost(writer),
                _ => {}
            }
        }
    }
}

pub(crate) fn read_failure(error: &Error) -> ReadFailure {
    match error.kind() {
        ErrorKind::Trimmed { .. } | ErrorKind::BeyondEnd { .. } | ErrorKind::OffsetOutOfRange { .. } => {
            ReadFailure::OutOfRange
        }
        ErrorKind::TopicRecreated { .. } => ReadFailure::Recreated,
        ErrorKind::LogTruncated { diverged_at, .. } => ReadFailure::Truncated { diverged_at: *diverged_at },
        _ => ReadFailure::Other,
    }
}

/// Whether a record is appended by kwal itself, as a barrier or a fence, or is the fence of a scene.
fn is_barrier(record: &OwnedRecord) -> bool {
    let mut headers = record.headers.iter();
    headers.len() == 4 && headers.any(|header| header.key() == "kwal.barrier")
        || record.key.as_deref() == Some(b"fence")
}

/// Returns the log of a partition, with the offsets that hold no record of a writer.
fn log(cluster: &EmbeddedCluster, partition: i32) -> Log {
    let offsets =
        cluster.start_offset("wal", partition).unwrap()..cluster.end_offset("wal", partition).unwrap();
    let mut records = cluster.records("wal", partition).unwrap();
    records.retain(|record| !is_barrier(record));
    let (mut next, mut empty) = (offsets.start, Vec::new());
    for offset in records.iter().map(|record| record.offset).chain([offsets.end]) {
        if next < offset {
            empty.push(next..offset);
        }
        next = offset + 1;
    }
    let records = records.into_iter().map(|record| (record.offset, record.value.unwrap_or_default()));
    let log = Log::new(("wal", partition), offsets, records);
    let log = empty.into_iter().fold(log, Log::empty);
    let checked = cluster.checked_log("wal", partition, |_| Value::from("")).unwrap();
    checked.aborted.into_iter().fold(log, Log::aborted)
}
