//! A broker in memory, and a wire to it that records requests and rewrites responses.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use kwal_client::{
    Append, Client, ClientBuilder, Deadlines, Limits, PartitionClient, RetryPolicy,
    error::{Error, InDoubt},
    record::Record,
};
use kwal_protocol::{
    api::{ApiKey, Request},
    messages::ProduceRequest,
    record::BatchHeader,
};
pub(crate) use kwal_testkit::wire::WireMode;
use kwal_testkit::{
    EmbeddedCluster,
    wire::{self, Decision, Frame},
};
use kwal_transport::{BoxFuture, Connect, HostPort, Stream, TransportError};
use tokio::time::{Instant, sleep};

/// Longer than any deadline.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Starts a broker with the topic `wal` of two partitions.
pub(crate) fn broker() -> EmbeddedCluster {
    EmbeddedCluster::builder().topic("wal", 2).start_in_memory().unwrap()
}

/// Returns the builder of a client that connects to a broker without a wire.
pub(crate) fn builder(broker: &EmbeddedCluster) -> ClientBuilder {
    ClientBuilder::new(broker.bootstrap()).connector(broker.connector()).seed(7)
}

/// Opens partition 0 of `wal` without a wire.
pub(crate) async fn open(broker: &EmbeddedCluster) -> PartitionClient {
    builder(broker).build().await.unwrap().partition_client("wal", 0).await.unwrap()
}

/// Opens partition 0 of `wal` as the exclusive writer `writer`, without a wire.
pub(crate) async fn hold(broker: &EmbeddedCluster) -> PartitionClient {
    let client = builder(broker).build().await.unwrap();
    client.partition_client("wal", 0).exclusive("writer").await.unwrap()
}

/// Opens partition 0 of `wal` over a wire.
pub(crate) async fn open_over(wire: &Wire) -> PartitionClient {
    wire.client().await.partition_client("wal", 0).await.unwrap()
}

/// Opens partitions 0 and 1 with a client that has one connection to each broker for appends, and one for
/// fetches.
pub(crate) async fn open_two_that_share(wire: &Wire) -> (PartitionClient, PartitionClient) {
    let limits = Limits::default().max_connections_per_broker(1);
    let client = wire.builder().limits(limits).build().await.unwrap();
    let open = async |partition| client.partition_client("wal", partition).await.unwrap();
    (open(0).await, open(1).await)
}

/// Returns a record with a value.
pub(crate) fn record(value: impl Into<String>) -> Vec<Record> {
    vec![Record::new(None::<&str>, value.into())]
}

/// Returns a batch of a producer id that the brokers do not know, in doubt in partition 0 of `wal`.
pub(crate) fn in_doubt() -> InDoubt {
    InDoubt {
        topic: "wal".to_owned(),
        topic_id: None,
        partition: 0,
        producer_id: 99_999,
        epoch: 0,
        sequence: 7,
        record_count: 1,
        after: None,
        transactional_id: None,
        part: None,
    }
}

/// Returns a record with a value of `bytes` bytes.
pub(crate) fn large(bytes: usize) -> Vec<Record> {
    vec![Record::new(None::<&str>, vec![b'x'; bytes])]
}

/// Appends what another broker has and this one lacks, as if it had been replicated.
pub(crate) fn replicate(from: &EmbeddedCluster, to: &EmbeddedCluster, partition: i32) {
    let end = to.end_offset("wal", partition).unwrap();
    for batch in from.log("wal", partition).unwrap() {
        if batch.base_offset() >= end {
            let relative = [&[0; 8], &batch.bytes()[8..]].concat();
            to.append_raw("wal", partition, relative.into()).unwrap();
        }
    }
}

/// Returns the values in the log of partition 0 of `wal`, in order.
pub(crate) fn log(broker: &EmbeddedCluster) -> Vec<String> {
    let records = broker.records("wal", 0).unwrap();
    records.into_iter().map(|record| String::from_utf8_lossy(&record.value.unwrap()).into_owned()).collect()
}

/// Asserts that a call ended within its deadline, and at most the longest pause between attempts earlier.
#[track_caller]
pub(crate) fn assert_took(took: Duration, deadline: Duration) {
    let pause = RetryPolicy::default().max;
    assert!(took <= deadline && took + pause > deadline, "took {took:?} of {deadline:?}");
}

/// Awaits a future. Returns its output and how long it took, by tokio's clock.
pub(crate) async fn timed<T>(future: impl IntoFuture<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let result = future.await;
    (result, begun.elapsed())
}

/// Polls a future at most `times` times, then drops it. `None` if it was not completed by then.
pub(crate) async fn polled<T>(future: impl IntoFuture<Output = T>, times: usize) -> Option<T> {
    let mut future = pin!(future.into_future());
    let mut left = times;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Lets all tasks run until each of them waits. Under the paused clock, a millisecond passes.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// Returns the default deadlines.
pub(crate) fn deadlines() -> Deadlines {
    Deadlines::default()
}

/// Returns the cause of an error. Panics if it has another type.
#[track_caller]
pub(crate) fn source<E: std::error::Error + 'static>(error: &Error) -> &E {
    let source = error.cause().and_then(|source| source.downcast_ref());
    source.unwrap_or_else(|| panic!("{error:?}"))
}

/// Formats an error and all its sources in one line.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source;
    }
    text
}

/// A request that went over a wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// When the client had written its last byte.
    pub(crate) at: Instant,
    pub(crate) connection: usize,
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    /// The header of the batch, if it is an append.
    pub(crate) batch: Option<BatchHeader>,
    pub(crate) acks: Option<i16>,
    pub(crate) timeout_ms: Option<i32>,
}

/// A wire to a broker that records the requests.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    wire: wire::Wire,
    bootstrap: Vec<String>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Wire {
    pub(crate) fn to(broker: &EmbeddedCluster) -> Self {
        Self::through(broker.connector(), broker.bootstrap())
    }

    pub(crate) fn through(to: Arc<dyn Connect>, bootstrap: Vec<String>) -> Self {
        let (wire, seen) = (wire::Wire::new(to), Arc::new(Mutex::new(Vec::new())));
        wire.on_request({
            let seen = Arc::clone(&seen);
            move |frame| {
                seen.lock().unwrap().push(Seen::new(frame));
                Decision::Pass
            }
        });
        Self { wire, bootstrap, seen }
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        ClientBuilder::new(self.bootstrap.clone()).connector(self.clone()).seed(7)
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().build().await.unwrap()
    }

    pub(crate) fn set(&self, mode: WireMode) {
        self.wire.set(mode);
    }

    /// Sets the mode of the connections to one host.
    pub(crate) fn set_at(&self, host: &str, mode: WireMode) {
        self.wire.set_at(host, mode);
    }

    /// Changes every response of an API.
    pub(crate) fn edit<R: Request>(&self, edit: impl FnMut(&mut R::Response) + Send + 'static) {
        self.wire.rewrite::<R>(edit);
    }

    /// Decides what becomes of every request.
    pub(crate) fn on_request(&self, hook: impl FnMut(&Frame) -> Decision + Send + 'static) {
        self.wire.on_request(hook);
    }

    /// Decides what becomes of every response.
    pub(crate) fn on_response(&self, hook: impl FnMut(&Frame) -> Decision + Send + 'static) {
        self.wire.on_response(hook);
    }

    /// Lets the frames pass that are held now.
    pub(crate) fn release(&self) {
        self.wire.release();
    }

    /// Passes all responses unchanged again.
    pub(crate) fn clear_edits(&self) {
        self.wire.clear_rewrites();
    }

    /// Returns the requests of an API so far.
    pub(crate) fn seen(&self, api: ApiKey) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.api == api).copied().collect()
    }

    /// Returns all requests so far.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns the number of requests of an API so far.
    pub(crate) fn count(&self, api: ApiKey) -> usize {
        self.seen(api).len()
    }

    /// Returns producer id, epoch and sequence of the appends so far.
    pub(crate) fn stamps(&self) -> Vec<(i64, i16, i32)> {
        let batches = self.seen(ApiKey::PRODUCE).into_iter().filter_map(|seen| seen.batch);
        batches.map(|batch| (batch.producer_id, batch.producer_epoch, batch.base_sequence)).collect()
    }

    /// Returns how many connections have been opened.
    pub(crate) fn connections(&self) -> usize {
        self.wire.connections().accepted
    }

    /// Returns how often the client tried to connect to a host.
    pub(crate) fn attempts_at(&self, host: &str) -> usize {
        self.wire.attempts_to(host)
    }

    /// Returns how many connections are open, and the most that were open to one host at the same time.
    pub(crate) fn open(&self) -> (usize, usize) {
        let hosts: BTreeSet<_> =
            self.bootstrap.iter().map(|address| address.rsplit_once(':').unwrap().0).collect();
        let most = hosts.into_iter().map(|host| self.wire.connections_to(host).most_open);
        (self.wire.connections().open, most.max().unwrap_or_default())
    }

    /// Returns the same for one host.
    pub(crate) fn open_at(&self, host: &str) -> (usize, usize) {
        let connections = self.wire.connections_to(host);
        (connections.open, connections.most_open)
    }
}

impl Connect for Wire {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        self.wire.connect(to)
    }
}

impl Seen {
    fn new(frame: &Frame) -> Self {
        let Frame { connection, api, version, .. } = *frame;
        let (at, connection) = (Instant::now(), connection as usize);
        let mut seen = Self { at, connection, api, version, batch: None, acks: None, timeout_ms: None };
        if api == ApiKey::PRODUCE {
            let request = frame.request::<ProduceRequest>().unwrap();
            let records = request.topic_data[0].partition_data[0].records.clone().unwrap().into_bytes();
            seen.batch = Some(BatchHeader::parse(&records).unwrap());
            (seen.acks, seen.timeout_ms) = (Some(request.acks), Some(request.timeout_ms));
        }
        seen
    }
}

/// Submits appends of one record each.
pub(crate) async fn submit(partition: &PartitionClient, values: &[&str]) -> Vec<Append> {
    let mut appends = Vec::new();
    for value in values {
        let batch = partition.encode(record(*value)).unwrap();
        let permit = partition.reserve(batch.size_in_bytes()).await.unwrap();
        appends.push(permit.submit(batch));
    }
    appends
}
