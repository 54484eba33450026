//! A broker in memory, and a wire to it that shows what goes over it, and can be cut, held up and lied on.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use bytes::{Buf, Bytes};
use kwal_client::{
    Client, ClientBuilder, Deadlines, PartitionClient, RetryPolicy, error::Error, record::Record,
};
use kwal_protocol::{
    api::{ApiKey, Body, Request, decode_request_header, decode_response_header, encode_response},
    messages::ProduceRequest,
    record::BatchHeader,
};
use kwal_testkit::EmbeddedCluster;
use kwal_transport::{BoxFuture, Connect, HostPort, Stream, TransportError, memory};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink, split},
    sync::watch,
    time::{Instant, sleep},
};

/// Longer than any deadline.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A broker with the topic `wal` of two partitions.
pub(crate) fn broker() -> EmbeddedCluster {
    EmbeddedCluster::builder().topic("wal", 2).start_in_memory().unwrap()
}

/// A client straight to a broker.
pub(crate) fn builder(broker: &EmbeddedCluster) -> ClientBuilder {
    ClientBuilder::new(broker.bootstrap()).connector(broker.connector()).seed(7)
}

/// Partition 0 of `wal`, straight to a broker.
pub(crate) async fn open(broker: &EmbeddedCluster) -> PartitionClient {
    builder(broker).build().await.unwrap().partition_client("wal", 0).await.unwrap()
}

/// Partition 0 of `wal`, over a wire.
pub(crate) async fn open_over(wire: &Wire) -> PartitionClient {
    wire.client().await.partition_client("wal", 0).await.unwrap()
}

pub(crate) fn record(value: impl Into<String>) -> Vec<Record> {
    vec![Record::new(None::<&str>, value.into())]
}

/// A record of so many bytes.
pub(crate) fn large(bytes: usize) -> Vec<Record> {
    vec![Record::new(None::<&str>, vec![b'x'; bytes])]
}

/// The values in the log of partition 0 of `wal`, in order.
pub(crate) fn log(broker: &EmbeddedCluster) -> Vec<String> {
    let records = broker.records("wal", 0).unwrap();
    records.into_iter().map(|record| String::from_utf8_lossy(&record.value.unwrap()).into_owned()).collect()
}

/// Ends within the deadline, and not earlier than a pause between attempts before it.
#[track_caller]
pub(crate) fn assert_took(took: Duration, deadline: Duration) {
    let pause = RetryPolicy::default().max;
    assert!(took <= deadline && took + pause > deadline, "took {took:?} of {deadline:?}");
}

/// What a future comes to and how long it takes, in tokio's time.
pub(crate) async fn timed<T>(future: impl IntoFuture<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let result = future.await;
    (result, begun.elapsed())
}

/// Polls a future so many times at the most, then drops it; `None` if it was not done by then.
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

/// Lets everything that can go on go on, without any time passing that matters.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

pub(crate) fn deadlines() -> Deadlines {
    Deadlines::default()
}

/// The source of an error, which has this type.
#[track_caller]
pub(crate) fn source<E: std::error::Error + 'static>(error: &Error) -> &E {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    source.unwrap_or_else(|| panic!("{error:?}"))
}

/// The whole chain of an error in one line.
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
    /// When its last byte had left the client.
    pub(crate) at: Instant,
    pub(crate) connection: usize,
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    /// Of an append.
    pub(crate) batch: Option<BatchHeader>,
    pub(crate) acks: Option<i16>,
    pub(crate) timeout_ms: Option<i32>,
}

/// How a wire treats its connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WireMode {
    /// Passes everything on.
    Passing,
    /// Takes no bytes of the client any more, on any connection.
    Stalled,
    /// Takes every byte and new connections too, and passes nothing on.
    Deaf,
    /// New connections never come to be; old ones are deaf.
    Unreachable,
}

/// Stands between a client and a broker.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Inner>);

struct Inner {
    to: Arc<dyn Connect>,
    bootstrap: Vec<String>,
    modes: watch::Sender<WireModes>,
    state: Mutex<State>,
}

/// That of some hosts, and that of the others.
#[derive(Clone, Debug)]
struct WireModes(BTreeMap<String, WireMode>, WireMode);

impl WireModes {
    fn of(&self, to: &HostPort) -> WireMode {
        *self.0.get(&to.host).unwrap_or(&self.1)
    }
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    connections: usize,
    attempts: BTreeMap<String, usize>,
    /// How many are open to each host, and how many were at the most.
    open: BTreeMap<String, (usize, usize)>,
    edits: BTreeMap<ApiKey, Edit>,
}

type Edit = Box<dyn FnMut(Bytes, i16) -> Bytes + Send>;

impl Wire {
    pub(crate) fn to(broker: &EmbeddedCluster) -> Self {
        Self::through(broker.connector(), broker.bootstrap())
    }

    pub(crate) fn through(to: Arc<dyn Connect>, bootstrap: Vec<String>) -> Self {
        let modes = watch::Sender::new(WireModes(BTreeMap::new(), WireMode::Passing));
        Self(Arc::new(Inner { to, bootstrap, modes, state: Mutex::default() }))
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        ClientBuilder::new(self.0.bootstrap.clone()).connector(self.clone()).seed(7)
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().build().await.unwrap()
    }

    pub(crate) fn set(&self, mode: WireMode) {
        self.0.modes.send_replace(WireModes(BTreeMap::new(), mode));
    }

    /// Of the connections to one host.
    pub(crate) fn set_at(&self, host: &str, mode: WireMode) {
        self.0.modes.send_modify(|modes| _ = modes.0.insert(host.to_owned(), mode));
    }

    /// Changes all responses of an API.
    pub(crate) fn edit<R: Request>(&self, mut edit: impl FnMut(&mut R::Response) + Send + 'static) {
        let edit = move |frame: Bytes, version: i16| {
            let format = R::Response::version(version).unwrap();
            let (id, mut reader) = decode_response_header::<R::Response>(&frame, format).unwrap();
            let mut response = kwal_protocol::wire::Wire::read(&mut reader, format).unwrap();
            edit(&mut response);
            let mut frame = encode_response(&response, version, id).unwrap();
            frame.advance(4);
            frame.copy_to_bytes(frame.remaining())
        };
        self.0.state.lock().unwrap().edits.insert(R::KEY, Box::new(edit));
    }

    /// Changes nothing any more.
    pub(crate) fn clear_edits(&self) {
        self.0.state.lock().unwrap().edits.clear();
    }

    /// The requests of an API so far.
    pub(crate) fn seen(&self, api: ApiKey) -> Vec<Seen> {
        let state = self.0.state.lock().unwrap();
        state.seen.iter().filter(|seen| seen.api == api).copied().collect()
    }

    /// All requests so far.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.0.state.lock().unwrap().seen.clone()
    }

    pub(crate) fn count(&self, api: ApiKey) -> usize {
        self.seen(api).len()
    }

    /// Producer id, epoch and sequence of the appends so far.
    pub(crate) fn stamps(&self) -> Vec<(i64, i16, i32)> {
        let batches = self.seen(ApiKey::PRODUCE).into_iter().filter_map(|seen| seen.batch);
        batches.map(|batch| (batch.producer_id, batch.producer_epoch, batch.base_sequence)).collect()
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.0.state.lock().unwrap().connections
    }

    /// How often somebody tried to connect to a host.
    pub(crate) fn attempts_at(&self, host: &str) -> usize {
        self.0.state.lock().unwrap().attempts.get(host).copied().unwrap_or_default()
    }

    /// How many connections are open, and how many were at the most to one host at the same time.
    pub(crate) fn open(&self) -> (usize, usize) {
        let state = self.0.state.lock().unwrap();
        let open = state.open.values();
        (open.clone().map(|(open, _)| open).sum(), open.map(|(_, most)| *most).max().unwrap_or_default())
    }

    /// The same of one host.
    pub(crate) fn open_at(&self, host: &str) -> (usize, usize) {
        self.0.state.lock().unwrap().open.get(host).copied().unwrap_or_default()
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("modes", &*self.0.modes.borrow()).finish_non_exhaustive()
    }
}

impl Connect for Wire {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(async {
            *self.0.state.lock().unwrap().attempts.entry(to.host.clone()).or_default() += 1;
            if self.0.modes.borrow().of(to) == WireMode::Unreachable {
                return std::future::pending().await;
            }
            let broker = self.0.to.connect(to).await?;
            let (client, here) = memory::pair(64 << 10);
            let connection = {
                let mut state = self.0.state.lock().unwrap();
                let (open, most) = state.open.entry(to.host.clone()).or_default();
                *open += 1;
                *most = *most.max(open);
                state.connections += 1;
                state.connections
            };
            let (inner, to) = (Arc::clone(&self.0), to.clone());
            tokio::spawn(async move {
                let _ = carry(&inner, connection, &to, here, broker).await;
                inner.state.lock().unwrap().open.get_mut(&to.host).unwrap().0 -= 1;
            });
            Ok(client)
        })
    }
}

/// Passes frames on in both directions until one side ends.
async fn carry(
    inner: &Inner,
    connection: usize,
    to: &HostPort,
    client: Stream,
    broker: Stream,
) -> io::Result<()> {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_broker, mut to_broker) = split(broker);
    let asked = Mutex::new(VecDeque::new());
    let up = async {
        let mut modes = inner.modes.subscribe();
        loop {
            let now = modes.borrow_and_update().of(to);
            match now {
                WireMode::Passing => {}
                WireMode::Stalled => {
                    let _ = modes.changed().await;
                    continue;
                }
                WireMode::Deaf | WireMode::Unreachable => {
                    copy(&mut from_client, &mut sink()).await?;
                    return Ok(());
                }
            }
            let frame = tokio::select! {
                biased;
                _ = modes.changed() => continue,
                frame = read_frame(&mut from_client) => frame?,
            };
            asked.lock().unwrap().push_back(note(inner, connection, &frame));
            write_frame(&mut to_broker, frame).await?;
        }
    };
    let down = async {
        loop {
            let mut frame = read_frame(&mut from_broker).await?;
            let (api, version) = asked.lock().unwrap().pop_front().unwrap();
            if let Some(edit) = inner.state.lock().unwrap().edits.get_mut(&api) {
                frame = edit(frame, version);
            }
            write_frame(&mut to_client, frame).await?;
        }
    };
    tokio::select! {
        end = up => end,
        end = down => end,
    }
}

fn note(inner: &Inner, connection: usize, frame: &Bytes) -> (ApiKey, i16) {
    let (header, reader) = decode_request_header(frame).unwrap();
    let (api, version) = (header.request_api_key, header.request_api_version);
    let mut seen =
        Seen { at: Instant::now(), connection, api, version, batch: None, acks: None, timeout_ms: None };
    if api == ApiKey::PRODUCE {
        let body = frame.slice(reader.position()..);
        let request = ProduceRequest::decode(&body, ProduceRequest::version(version).unwrap()).unwrap();
        let records = request.topic_data[0].partition_data[0].records.clone().unwrap().into_bytes();
        seen.batch = Some(BatchHeader::parse(&records).unwrap());
        (seen.acks, seen.timeout_ms) = (Some(request.acks), Some(request.timeout_ms));
    }
    inner.state.lock().unwrap().seen.push(seen);
    (api, version)
}

async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let len = from.read_u32().await?;
    let mut frame = vec![0; len as usize];
    from.read_exact(&mut frame).await?;
    Ok(frame.into())
}

async fn write_frame(to: &mut (impl AsyncWrite + Unpin), frame: Bytes) -> io::Result<()> {
    to.write_u32(frame.len() as u32).await?;
    to.write_all(&frame).await?;
    to.flush().await
}
