//! Connections that fail as a test asks, and what was appended over them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use kwal_protocol::api::ApiKey;
use kwal_protocol::messages::ProduceRequest;
use kwal_testkit::wire::{Decision, Frame, Wire};
use kwal_tests::kafka::free_port;
use kwal_transport::{BoxFuture, Connect, HostPort, Stream, Tcp, TransportError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// TCP whose connections a test breaks, port by port, for appends to one topic. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Network {
    wire: Wire,
    routes: watch::Sender<BTreeMap<u16, Route>>,
    links: Arc<Mutex<Vec<Arc<Mutex<Link>>>>>,
    appends: Arc<Mutex<Appends>>,
    /// Everything that was written to connections.
    written: Arc<Mutex<Vec<u8>>>,
}

/// What becomes of new connections to a port. Without an entry, they are established.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Route {
    Refused,
    /// Nothing answers, nor does anything arrive over the connections that there are.
    BlackHole,
    /// Requests arrive, and responses do not.
    LostResponses,
}

/// How an established connection ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Break {
    /// The peer has closed it.
    Cut,
    /// The peer has reset it.
    Reset,
}

/// The append requests that have passed.
#[derive(Debug, Default)]
struct Appends {
    /// The correlation ids of requests without a response, by connection and partition.
    in_flight: BTreeMap<(u64, i32), Vec<i32>>,
    most_in_flight: BTreeMap<i32, usize>,
    requests: BTreeMap<i32, usize>,
}

impl Network {
    pub(super) fn new() -> Self {
        let network = Self {
            wire: Wire::new(Tcp::default()),
            routes: watch::Sender::default(),
            links: Arc::default(),
            appends: Arc::default(),
            written: Arc::default(),
        };
        // Connections over which something got lost. They stay dead when the route is open again.
        let dead = Arc::new(Mutex::new(BTreeSet::new()));
        let routes = network.routes.subscribe();
        let passage = move |frame: &Frame, is_response: bool| {
            let mut dead = dead.lock().unwrap();
            let loses = match routes.borrow().get(&frame.to.port) {
                Some(Route::BlackHole) => true,
                Some(Route::LostResponses) => is_response,
                Some(Route::Refused) | None => dead.contains(&frame.connection),
            };
            if loses {
                dead.insert(frame.connection);
                return Decision::Discard;
            }
            Decision::Pass
        };
        network.wire.on_request({
            let (appends, passage) = (Arc::clone(&network.appends), passage.clone());
            move |frame| {
                appends.lock().unwrap().request(frame);
                passage(frame, false)
            }
        });
        network.wire.on_response({
            let appends = Arc::clone(&network.appends);
            move |frame| {
                let passage = passage(frame, true);
                if passage == Decision::Pass {
                    appends.lock().unwrap().response(frame);
                }
                passage
            }
        });
        network
    }

    /// Cuts the connection in the middle of the response to an append, so many times, to every tenth append.
    pub(super) fn cut_responses(&self, times: u32) {
        let mut responses = 0;
        self.wire.on_response(move |frame| {
            if frame.api != ApiKey::PRODUCE {
                return Decision::Pass;
            }
            responses += 1;
            if responses % 10 == 0 && responses <= 10 * times {
                return Decision::Cut(frame.bytes.len() / 2);
            }
            Decision::Pass
        });
    }

    /// Breaks all connections to a port.
    pub(super) fn break_all(&self, port: u16, how: Break) {
        for link in &*self.links.lock().unwrap() {
            let mut link = link.lock().unwrap();
            if link.port == port {
                link.end(how);
            }
        }
    }

    /// Decides about new connections to a port.
    pub(super) fn route(&self, port: u16, route: Option<Route>) {
        self.routes.send_modify(|routes| match route {
            Some(route) => _ = routes.insert(port, route),
            None => _ = routes.remove(&port),
        });
    }

    /// Returns whether a record with this value, which must be short, was written to a connection.
    pub(super) fn has_sent(&self, value: &str) -> bool {
        // Its length, as a varint; then the number of headers.
        let length = u8::try_from(value.len() * 2).unwrap();
        let record = [&[length], value.as_bytes(), &[0]].concat();
        self.written.lock().unwrap().windows(record.len()).any(|bytes| bytes == record)
    }

    /// Returns how many append requests to a partition were sent.
    pub(super) fn requests(&self, partition: i32) -> usize {
        self.appends.lock().unwrap().requests.get(&partition).copied().unwrap_or(0)
    }

    /// Returns the largest number of append requests to a partition that one connection had without a
    /// response.
    pub(super) fn most_in_flight(&self, partition: i32) -> usize {
        self.appends.lock().unwrap().most_in_flight.get(&partition).copied().unwrap_or(0)
    }

    /// Returns how many connections were used for appends to a partition.
    pub(super) fn connections(&self, partition: i32) -> usize {
        self.appends.lock().unwrap().in_flight.keys().filter(|(_, number)| *number == partition).count()
    }

    async fn open(&self, to: &HostPort) -> Result<Stream, TransportError> {
        let mut routes = self.routes.subscribe();
        let route = {
            let is_reachable =
                |routes: &BTreeMap<u16, Route>| routes.get(&to.port) != Some(&Route::BlackHole);
            let routes = routes.wait_for(is_reachable).await.unwrap();
            routes.get(&to.port).copied()
        };
        if route == Some(Route::Refused) {
            return Tcp::default().connect(&HostPort { host: to.host.clone(), port: free_port() }).await;
        }
        let stream = self.wire.connect(to).await?;
        let peer = stream.peer().to_owned();
        let link = Link { port: to.port, stream: Some(stream), end: None, wakers: [None, None] };
        let link = Arc::new(Mutex::new(link));
        self.links.lock().unwrap().push(Arc::clone(&link));
        Ok(Stream::new(LinkStream { link, written: Arc::clone(&self.written) }, peer))
    }
}

impl Connect for Network {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(self.open(to))
    }
}

impl Appends {
    fn request(&mut self, frame: &Frame) {
        for partition in partitions(frame) {
            *self.requests.entry(partition).or_default() += 1;
            let in_flight = self.in_flight.entry((frame.connection, partition)).or_default();
            in_flight.push(frame.correlation_id);
            let most = self.most_in_flight.entry(partition).or_default();
            *most = (*most).max(in_flight.len());
        }
    }

    fn response(&mut self, frame: &Frame) {
        let partitions = (frame.connection, 0)..=(frame.connection, i32::MAX);
        for (_, in_flight) in self.in_flight.range_mut(partitions) {
            in_flight.retain(|correlation_id| *correlation_id != frame.correlation_id);
        }
    }
}

/// Returns the partitions of an append request.
fn partitions(frame: &Frame) -> Vec<i32> {
    let topics = frame.request::<ProduceRequest>().into_iter().flat_map(|request| request.topic_data);
    topics.flat_map(|topic| topic.partition_data).map(|data| data.index).collect()
}

/// A connection until it is broken.
#[derive(Debug)]
struct Link {
    port: u16,
    stream: Option<Stream>,
    end: Option<Break>,
    /// Of the reader and of the writer.
    wakers: [Option<Waker>; 2],
}

impl Link {
    fn end(&mut self, how: Break) {
        if self.end.is_none() {
            self.end = Some(how);
            self.stream = None;
            self.wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
        }
    }

    /// Returns the stream, or how the connection was broken.
    fn poll(&mut self, side: usize, cx: &Context<'_>) -> Result<Pin<&mut Stream>, Break> {
        self.wakers[side] = Some(cx.waker().clone());
        match (self.end, &mut self.stream) {
            (Some(end), _) => Err(end),
            (None, Some(stream)) => Ok(Pin::new(stream)),
            (None, None) => Err(Break::Cut),
        }
    }
}

struct LinkStream {
    link: Arc<Mutex<Link>>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Drop for LinkStream {
    fn drop(&mut self) {
        self.link.lock().unwrap().stream = None;
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut link = self.link.lock().unwrap();
        match link.poll(0, cx) {
            Ok(stream) => stream.poll_read(cx, buf),
            Err(Break::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Err(Break::Cut) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut link = self.link.lock().unwrap();
        match link.poll(1, cx) {
            Ok(stream) => {
                let result = stream.poll_write(cx, buf);
                if let Poll::Ready(Ok(len)) = result {
                    self.written.lock().unwrap().extend_from_slice(&buf[..len]);
                }
                result
            }
            Err(Break::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Err(Break::Cut) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Writes all of it at once or a part, as TCP does.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        self.poll_write(cx, &bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut link = self.link.lock().unwrap();
        link.poll(1, cx).map_or(Poll::Ready(Ok(())), |stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut link = self.link.lock().unwrap();
        link.poll(1, cx).map_or(Poll::Ready(Ok(())), |stream| stream.poll_shutdown(cx))
    }
}
