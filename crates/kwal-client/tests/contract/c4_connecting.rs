//! C4: how connections are opened: names with several addresses, brokers that are dead, brokers that limit
//! connections.

use std::{
    collections::BTreeMap,
    future::pending,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::future::join_all;
use kwal_client::{
    ClientBuilder, OffsetAt, PartitionClient,
    error::{Error, ErrorKind},
    sasl::Sasl,
};
use kwal_protocol::{api::ApiKey, messages::MetadataRequest};
use kwal_testkit::{EmbeddedCluster, EmbeddedClusterBuilder, Fault};
use kwal_transport::{
    BoxFuture, Connect, HostPort, Stream, TransportError,
    memory::{self, MemoryNetwork},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::sleep,
};
use tracing::Level;

use crate::{
    c4_authentication::{plain, users},
    c4_brokers::Three,
    recording::Recording,
    support::{Wire, WireMode, broker, chain, deadlines, record, settle, timed},
};

const SECOND: Duration = Duration::from_secs(1);

/// A network in which the host `kafka` has several addresses. A broker listens at the last one.
#[derive(Clone, Debug)]
struct Addresses {
    network: MemoryNetwork,
    wire: Wire,
    all: Vec<SocketAddr>,
    broker: SocketAddr,
    /// How often each was connected to.
    tried: Arc<Mutex<BTreeMap<SocketAddr, usize>>>,
}

/// What a peer does with a connection that it has accepted.
#[derive(Clone, Copy, Debug)]
enum Peer {
    Closes,
    IsSilent,
    SpeaksHttp,
    AnswersHalf,
    /// Nothing listens.
    IsAbsent,
}

impl Addresses {
    /// Addresses of `peers`, and then that of the broker, which advertises the name.
    fn start(peers: &[Peer], builder: &EmbeddedClusterBuilder) -> (EmbeddedCluster, Self) {
        let network = MemoryNetwork::default();
        let all: Vec<_> =
            (0..=peers.len()).map(|i| SocketAddr::from(([10, 0, 0, 1 + i as u8], 9092))).collect();
        for (address, peer) in all.iter().zip(peers) {
            peer.listen(&network, *address);
        }
        let broker = *all.last().unwrap();
        let cluster = builder.clone().topic("wal", 2).start_in(&network, broker.into()).unwrap();
        let wire = Wire::through(cluster.connector(), vec!["kafka:9092".to_owned()]);
        wire.edit::<MetadataRequest>(|response| response.brokers[0].host = "kafka".to_owned());
        (cluster, Self { network, wire, all, broker, tried: Arc::default() })
    }

    fn builder(&self) -> ClientBuilder {
        ClientBuilder::new(["kafka:9092"]).connector(self.clone()).seed(7)
    }

    /// How often each address was connected to.
    fn tried(&self) -> Vec<usize> {
        let tried = self.tried.lock().unwrap();
        self.all.iter().map(|address| tried.get(address).copied().unwrap_or_default()).collect()
    }
}

impl Connect for Addresses {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        panic!("{to} has several addresses")
    }

    fn addresses<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Vec<SocketAddr>, TransportError>> {
        assert_eq!(to.to_string(), "kafka:9092");
        Box::pin(async { Ok(self.all.clone()) })
    }

    fn connect_at<'a>(
        &'a self,
        _: &'a HostPort,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(async move {
            *self.tried.lock().unwrap().entry(address).or_default() += 1;
            match address == self.broker {
                true => self.wire.connect(&address.into()).await,
                false => self.network.connect(&address.into()).await,
            }
        })
    }
}

impl Peer {
    fn listen(self, network: &MemoryNetwork, at: SocketAddr) {
        if matches!(self, Self::IsAbsent) {
            return;
        }
        let mut listener = network.listen(at.into()).unwrap();
        tokio::spawn(async move {
            loop {
                let mut stream = listener.accept().await;
                tokio::spawn(async move {
                    let answer: &[u8] = match self {
                        Self::Closes | Self::IsAbsent => return,
                        Self::IsSilent => b"",
                        Self::SpeaksHttp => b"HTTP/1.1 400 Bad Request\r\n\r\n",
                        Self::AnswersHalf => b"\0\0\0\x20\0\0\0\0\0",
                    };
                    stream.write_all(answer).await.unwrap();
                    if matches!(self, Self::IsSilent) {
                        pending::<()>().await;
                    }
                });
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_accepts_and_then_fails_is_left_for_the_next() {
    for (peers, expected) in [
        (vec![Peer::Closes], Duration::ZERO),
        (vec![Peer::SpeaksHttp], Duration::ZERO),
        (vec![Peer::AnswersHalf], Duration::ZERO),
        (vec![Peer::IsAbsent], Duration::ZERO),
        // A quarter of the time limit, or an equal share of what is left.
        (vec![Peer::IsSilent], deadlines().connect / 4),
        (vec![Peer::IsSilent, Peer::Closes, Peer::IsSilent], deadlines().connect / 2),
    ] {
        let (_broker, addresses) = Addresses::start(&peers, &EmbeddedCluster::builder());
        // The bootstrap name.
        let (client, took) = timed(addresses.builder().build()).await;
        let client = client.unwrap();
        assert_eq!(took, expected, "{peers:?}");
        // The advertised name.
        let (partition, took) = timed(client.partition_client("wal", 0)).await;
        let partition = partition.unwrap();
        assert!(took <= expected, "{peers:?}: {took:?}");
        // From then on the address that works comes first.
        let tried = addresses.tried();
        let (result, took) = timed(async {
            partition.produce(record("a")).await?;
            partition.fetch(0).await?;
            partition.get_offset(OffsetAt::Latest).await
        })
        .await;
        assert_eq!((result.unwrap(), took), (1, Duration::ZERO), "{peers:?}");
        assert_eq!(addresses.tried()[..peers.len()], tried[..peers.len()], "{peers:?}");
    }
}

/// A connection that is lost before anything was answered says as much about its address as one that fails.
#[tokio::test(start_paused = true)]
async fn an_address_that_answers_nothing_but_the_handshake_is_left_for_the_next() {
    for fault in [Fault::Drop, Fault::BlackHole] {
        let (broker, addresses) = Addresses::start(&[Peer::IsAbsent], &EmbeddedCluster::builder());
        let client = addresses.builder().build().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        // While the broker is away, there is another one at the first address, which is of no use.
        broker.stop(1).unwrap();
        broker.disconnect(1).unwrap();
        let at = addresses.all[0].into();
        let useless = EmbeddedCluster::builder().topic("wal", 2).start_in(&addresses.network, at).unwrap();
        for api in [ApiKey::METADATA, ApiKey::PRODUCE, ApiKey::FETCH, ApiKey::INIT_PRODUCER_ID] {
            useless.on_all(api, fault);
        }
        let append = tokio::spawn({
            let partition = partition.clone();
            async move { partition.produce(record("b")).await }
        });
        sleep(2 * SECOND).await;
        assert!(useless.connections().accepted > 0);
        broker.restart(1).unwrap();
        assert_eq!(append.await.unwrap().unwrap().base_offset, Some(1), "{fault:?}");
        assert_eq!(partition.fetch(0).await.unwrap().next_offset, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn the_error_of_several_addresses_names_each() {
    let (broker, addresses) = Addresses::start(&[Peer::Closes, Peer::IsSilent], &EmbeddedCluster::builder());
    broker.stop(1).unwrap();
    let (error, took) = timed(addresses.builder().build()).await;
    let text = chain(&error.unwrap_err());
    for part in [
        "10.0.0.1:9092: the peer closed the connection",
        "10.0.0.2:9092: the handshake timed out after 2.5s",
        "10.0.0.3:9092: cannot connect",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(took <= deadlines().connect, "{took:?}");

    // None of them is a broker, which no retry changes.
    let (_broker, mut addresses) =
        Addresses::start(&[Peer::SpeaksHttp, Peer::SpeaksHttp], &EmbeddedCluster::builder());
    addresses.all.pop();
    let error = addresses.builder().build().await.unwrap_err();
    assert!(chain(&error).contains("speaks HTTP") && !error.is_retriable(), "{error:?}");
    assert_eq!(addresses.tried(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn sasl_that_an_address_does_not_speak_is_tried_at_the_next_and_wrong_credentials_are_not() {
    let secured = EmbeddedCluster::builder().sasl(users());
    let open = EmbeddedCluster::builder();
    for (first, sasl, tried) in [
        (&open, plain(), [1, 1]),
        (&secured, Sasl::plain("alice", "wrong").danger_send_unencrypted(), [1, 0]),
    ] {
        let (_broker, addresses) = Addresses::start(&[Peer::IsAbsent], &secured);
        let _first = first.clone().start_in(&addresses.network, addresses.all[0].into()).unwrap();
        let result = addresses.builder().sasl(sasl).build().await;
        match result {
            Ok(_) => assert_eq!(addresses.tried(), [1, 1]),
            // To ask again elsewhere would only lock the account.
            Err(error) => assert!(chain(&error).contains("rejected"), "{error:?}"),
        }
        assert_eq!(addresses.tried(), tried);
    }
}

async fn try_append_to_all(partitions: &[PartitionClient]) -> Vec<Result<(), Error>> {
    join_all(partitions.iter().map(async |one| one.produce(record("a")).await.map(drop))).await
}

#[tokio::test(start_paused = true)]
async fn a_dead_broker_is_connected_to_a_few_times_a_second_however_many_wait_for_it() {
    for partitions in [3, 30, 1500] {
        let three = Three::start(partitions);
        let client = three.client().await;
        let all = join_all((0..partitions).map(|i| client.partition_client("wal", i).into_future())).await;
        let led_by_two: Vec<_> =
            all.into_iter().map(Result::unwrap).filter(|one| one.partition() % 3 == 1).collect();
        three.brokers[1].stop(1).unwrap();
        three.brokers[1].disconnect(1).unwrap();
        settle().await;
        let before = three.wire.attempts_at("two");
        let appends = tokio::spawn(async move { try_append_to_all(&led_by_two).await });
        sleep(20 * SECOND).await;
        let attempts = three.wire.attempts_at("two") - before;
        assert!((20..=20 * 4 + 10).contains(&attempts), "{partitions}: {attempts}");
        three.brokers[1].restart(1).unwrap();
        let (appends, took) = timed(appends).await;
        assert!(appends.unwrap().iter().all(Result::is_ok));
        assert!(took < 2 * SECOND, "{took:?}");
    }
}

/// Also the bootstrap address, which is asked when no broker answers.
#[tokio::test(start_paused = true)]
async fn a_dead_cluster_is_connected_to_a_few_times_a_second_however_many_wait_for_it() {
    for is_closing in [false, true] {
        let broker = broker();
        broker.create_topic("wide", 1000).unwrap();
        let limited = Limited::to(&broker, 1000);
        let wire = Wire::through(Arc::new(limited.clone()), broker.bootstrap());
        let client = wire.client().await;
        let opening = (0..1000).map(|i| client.partition_client("wide", i).into_future());
        let partitions = join_all(opening).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        match is_closing {
            true => limited.limit.store(0, Ordering::SeqCst),
            false => broker.stop(1).unwrap(),
        }
        broker.disconnect(1).unwrap();
        settle().await;
        let before = wire.attempts_at("broker-1");
        let appends = tokio::spawn(async move { try_append_to_all(&partitions).await });
        sleep(20 * SECOND).await;
        let attempts = wire.attempts_at("broker-1") - before;
        assert!((20..=20 * 4 + 10).contains(&attempts), "closing {is_closing}: {attempts}");
        match is_closing {
            true => limited.limit.store(1000, Ordering::SeqCst),
            false => broker.restart(1).unwrap(),
        }
        let (appends, took) = timed(appends).await;
        assert!(appends.unwrap().iter().all(Result::is_ok));
        assert!(took < 3 * SECOND, "{took:?}");
    }
}

/// Callers that come and go do not make an attempt each.
#[tokio::test(start_paused = true)]
async fn an_attempt_outlives_the_caller_that_began_it() {
    let three = Three::start(30);
    let client = three.client().await;
    let all = join_all((0..30).map(|i| client.partition_client("wal", i).into_future())).await;
    let led_by_two: Vec<_> =
        all.into_iter().map(Result::unwrap).filter(|one| one.partition() % 3 == 1).collect();
    three.wire.set_at("two", WireMode::Unreachable);
    three.brokers[1].disconnect(1).unwrap();
    settle().await;
    let before = three.wire.attempts_at("two");
    for _ in 0..20 {
        for partition in &led_by_two {
            partition.fetch(0).deadline(Duration::from_millis(25)).await.unwrap_err();
        }
    }
    let attempts = three.wire.attempts_at("two") - before;
    assert!(attempts <= 2, "{attempts} in {:?}", 20 * 10 * Duration::from_millis(25));
    // Its result is there for those who come later.
    three.wire.set_at("two", WireMode::Passing);
    led_by_two[0].fetch(0).max_wait(Duration::ZERO).await.unwrap();
}

/// A connector to a broker that accepts so many connections and closes more at once, or leaves them waiting.
#[derive(Clone, Debug)]
struct Limited {
    base: Arc<dyn Connect>,
    limit: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    is_silent: Arc<AtomicBool>,
}

impl Limited {
    fn to(broker: &EmbeddedCluster, limit: usize) -> Self {
        let limit = Arc::new(limit.into());
        let (open, most, is_silent) = Default::default();
        Self { base: broker.connector(), limit, open, most, is_silent }
    }
}

impl Connect for Limited {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(async {
            let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
            let counted = Count(Arc::clone(&self.open));
            if open > self.limit.load(Ordering::SeqCst) {
                let (client, broker) = memory::pair(1024);
                if self.is_silent.load(Ordering::SeqCst) {
                    tokio::spawn(async move {
                        let _broker = broker;
                        pending::<()>().await;
                    });
                }
                return Ok(client);
            }
            self.most.fetch_max(open, Ordering::SeqCst);
            let stream = self.base.connect(to).await?;
            let peer = stream.peer().to_owned();
            Ok(Stream::new(Counted { stream, _open: counted }, peer))
        })
    }
}

/// Counts as an open connection until it is dropped.
struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Counted {
    stream: Stream,
    _open: Count,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_limits_connections_serves_all_calls_over_those_that_it_allows() {
    for is_silent in [false, true] {
        let recording = Recording::at(Level::WARN);
        let broker = broker();
        broker.create_topic("wide", 40).unwrap();
        for limit in [1, 2, 12] {
            let limited = Limited::to(&broker, limit);
            limited.is_silent.store(is_silent, Ordering::SeqCst);
            let builder = ClientBuilder::new(broker.bootstrap()).connector(limited.clone()).seed(7);
            let client = builder.build().await.unwrap();
            let opening = (0..40).map(|i| client.partition_client("wide", i).into_future());
            let partitions = join_all(opening).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
            let work = async |partition: &PartitionClient| {
                partition.produce(record("a")).await?;
                partition.fetch(0).max_wait(Duration::ZERO).await?;
                partition.get_offset(OffsetAt::Latest).await
            };
            let (results, took) = timed(join_all(partitions.iter().map(work))).await;
            assert!(results.iter().all(Result::is_ok), "{limit}, silent {is_silent}: {results:?}");
            assert!(took <= deadlines().connect / 2, "{limit}, silent {is_silent}: {took:?}");
            assert_eq!(limited.most.load(Ordering::SeqCst), limit);
            // An attempt without an answer takes its time limit, for which no call waits.
            sleep(deadlines().connect).await;
            // Once, and it names the limit.
            let lines = recording.take_with("max.connections.per.ip");
            assert_eq!(lines.len(), 1, "{limit}, silent {is_silent}");
            let (results, took) = timed(join_all(partitions.iter().map(work))).await;
            assert!(results.iter().all(Result::is_ok));
            assert_eq!(took, Duration::ZERO, "{limit}, silent {is_silent}");
            recording.take();
            if limit > 1 {
                // What all calls need is not behind long polls, and appends are behind few of them.
                let polls = join_all(partitions.iter().map(|one| one.fetch(2).into_future()));
                let other = async {
                    settle().await;
                    let (topics, took) = timed(client.list_topics()).await;
                    assert_eq!((topics.unwrap().len(), took), (2, Duration::ZERO), "{limit}");
                    timed(partitions[0].produce(record("b"))).await
                };
                let (polls, (produced, took)) = tokio::join!(polls, other);
                assert!(polls.iter().all(Result::is_ok));
                produced.unwrap();
                assert!(limit < 12 || took <= 4 * SECOND, "{took:?}");
            }

            // When it allows more, connections are separate again after a while.
            limited.limit.store(1000, Ordering::SeqCst);
            for _ in 0..10 {
                sleep(10 * SECOND).await;
                join_all(partitions.iter().map(work))
                    .await
                    .into_iter()
                    .collect::<Result<Vec<_>, _>>()
                    .unwrap();
            }
            assert_eq!(limited.open.load(Ordering::SeqCst), 2 * 16 + 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_without_an_open_connection_that_closes_new_ones_is_an_error() {
    let broker = broker();
    let limited = Limited::to(&broker, 0);
    let error = ClientBuilder::new(broker.bootstrap()).connector(limited).build().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoBroker { .. }), "{error:?}");
}

/// A network without the name `nowhere`.
#[derive(Clone, Debug)]
struct Unresolved(Wire);

impl Connect for Unresolved {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(async move {
            match to.host == "nowhere" {
                true => Err(TransportError::Resolve {
                    host: to.host.clone(),
                    source: io::Error::other("no such name"),
                }),
                false => self.0.connect(to).await,
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn an_advertised_name_that_cannot_be_resolved_is_reported_once_when_it_happens() {
    let recording = Recording::at(Level::WARN);
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.builder().connector(Unresolved(wire.clone())).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    assert_eq!(recording.take(), [""; 0]);
    wire.edit::<MetadataRequest>(|response| response.brokers[0].host = "nowhere".to_owned());
    client.list_topics().await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::Drop);
    let appends = tokio::spawn(async move {
        let first = partition.produce(record("a")).deadline(10 * SECOND).await;
        (first, partition.produce(record("b")).deadline(10 * SECOND).await)
    });
    sleep(SECOND).await;
    let lines = recording.take();
    assert!(lines.len() == 1 && lines[0].contains("advertised.listeners"), "{lines:?}");
    assert!(lines[0].contains(r#"server.address="nowhere" server.port=9092"#), "{lines:?}");
    let (first, second) = appends.await.unwrap();
    assert!(first.is_err() && second.is_err());
    assert_eq!(recording.take_with("advertised.listeners"), [""; 0]);
}

/// A listener that has answered does not want SASL.
#[tokio::test(start_paused = true)]
async fn a_missing_sasl_is_suspected_only_of_a_listener_that_never_answered() {
    let broker = broker();
    let wire = Wire::to(&broker);
    broker.on_all(ApiKey::METADATA, Fault::Drop);
    let error = wire.builder().build().await.unwrap_err();
    assert!(chain(&error).contains("SASL"), "{error:?}");
    broker.clear_faults();
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    // The first requests on connections of their own.
    for api in [ApiKey::FETCH, ApiKey::PRODUCE] {
        broker.on_all(api, Fault::Drop);
    }
    let fetch = partition.fetch(0).deadline(SECOND).await.unwrap_err();
    let append = partition.produce(record("a")).deadline(SECOND).await.unwrap_err();
    for error in [fetch, append] {
        let text = chain(&error);
        assert!(text.contains("closed the connection") && !text.contains("SASL"), "{text}");
    }

    // One that closes further connections at once, while the only one that works is busy, does not lack TLS.
    let limited = Limited::to(&broker, 1);
    let builder = ClientBuilder::new(broker.bootstrap()).connector(limited.clone()).seed(7);
    let client = builder.build().await.unwrap();
    let partition = client.partition_client("wal", 0).idempotent(false).await.unwrap();
    limited.limit.store(0, Ordering::SeqCst);
    broker.clear_faults();
    broker.disconnect_all();
    settle().await;
    let text = chain(&partition.fetch(0).deadline(SECOND).await.unwrap_err());
    assert!(text.contains("limit connections") && !text.contains("TLS"), "{text}");
}
