//! C4: responses that take long to arrive, and requests that nobody waits for any more.

use std::{
    future::IntoFuture,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::join_all;
use kwal_client::{
    ClientBuilder, Limits, PartitionClient,
    error::{ErrorKind, Outcome},
};
use kwal_protocol::api::ApiKey;
use kwal_testkit::{EmbeddedCluster, Fault, wire::Decision};
use kwal_transport::{BoxFuture, Connect, HostPort, Stream, TransportError, memory};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy, split},
    time::{sleep, timeout},
};

use crate::support::{
    HOUR, Wire, broker, chain, deadlines, large, log, open, open_over, open_two_that_share, record, settle,
    source, timed,
};

const SECOND: Duration = Duration::from_secs(1);
const BRIEF: Duration = Duration::from_millis(20);
/// More than the first responses of a connection have, in bytes.
const HANDSHAKE: usize = 4_000;

/// A link that brings so many bytes at a time from the broker, with pauses; at most so many on a connection.
#[derive(Clone, Debug)]
struct Slow {
    base: Arc<dyn Connect>,
    /// How many bytes of a connection come at once.
    at_once: usize,
    bytes: usize,
    every: Duration,
    most: usize,
}

impl Connect for Slow {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(async move {
            let broker = self.base.connect(to).await?;
            let (client, here) = memory::pair(64 << 10);
            let Self { at_once, bytes, every, most, .. } = *self;
            tokio::spawn(async move {
                let (mut from_broker, mut to_broker) = split(broker);
                let (mut from_client, mut to_client) = split(here);
                let slowly = async {
                    let mut buffer = vec![0; at_once.max(bytes)];
                    let mut passed = 0;
                    while passed < most {
                        let is_slow = passed >= at_once;
                        let room = if is_slow { bytes.min(most - passed) } else { at_once - passed };
                        let read = from_broker.read(&mut buffer[..room]).await?;
                        if read == 0 {
                            return Ok(());
                        }
                        to_client.write_all(&buffer[..read]).await?;
                        passed += read;
                        if is_slow {
                            sleep(every).await;
                        }
                    }
                    std::future::pending::<io::Result<()>>().await
                };
                tokio::select! {
                    result = copy(&mut from_client, &mut to_broker) => result.map(drop),
                    result = slowly => result,
                }
            });
            Ok(client)
        })
    }
}

/// A broker with two megabytes of records, and a partition client over a slow link.
async fn slow(slow: impl FnOnce(Arc<dyn Connect>) -> Slow) -> (EmbeddedCluster, Wire, PartitionClient) {
    let broker = broker();
    let writer = open(&broker).await;
    for _ in 0..20 {
        writer.produce(large(100_000)).await.unwrap();
    }
    let wire = Wire::to(&broker);
    let link = slow(Arc::new(wire.clone()));
    let client = ClientBuilder::new(broker.bootstrap()).connector(link).seed(7).build().await.unwrap();
    let partition = client.partition_client("wal", 0).idempotent(false).await.unwrap();
    (broker, wire, partition)
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_is_no_silence() {
    // 80 kB a second.
    let link = |base| Slow { base, at_once: HANDSHAKE, bytes: 8_000, every: SECOND / 10, most: usize::MAX };
    let (_broker, wire, partition) = slow(link).await;
    let (fetched, took) = timed(partition.fetch(0)).await;
    assert_eq!(fetched.unwrap().next_offset, 10);
    assert!(took > deadlines().request && took < 2 * deadlines().request, "{took:?}");
    assert_eq!(wire.count(ApiKey::FETCH), 1, "nothing was asked for twice");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_during_a_response_says_how_much_of_it_had_arrived() {
    let link = |base| Slow { base, at_once: HANDSHAKE, bytes: 8_000, every: SECOND / 10, most: usize::MAX };
    let (_broker, wire, partition) = slow(link).await;
    let (error, took) = timed(partition.fetch(0).deadline(6 * SECOND)).await;
    let error = error.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
    let cause: &kwal_client::error::Error = source(&error);
    let ErrorKind::ResponseIncomplete { arrived, len, .. } = *cause.kind() else { panic!("{error:?}") };
    assert!((470_000..490_000).contains(&arrived) && (1_000_000..1_100_000).contains(&len), "{error:?}");
    assert!(took <= 6 * SECOND, "{took:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    // What nobody waits for any more is not waited for longer than any response.
    sleep(20 * SECOND).await;
    assert!(wire.count(ApiKey::FETCH) == 1);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_stalls_is_given_up_and_says_how_much_of_it_had_arrived() {
    let link = |base| Slow { base, at_once: HANDSHAKE, bytes: 8_000, every: SECOND / 10, most: 100_000 };
    let (_broker, wire, partition) = slow(link).await;
    let (error, took) = timed(partition.fetch(0).deadline(15 * SECOND)).await;
    // The second attempt, which the deadline ends.
    let text = chain(&error.unwrap_err());
    assert!(text.contains("still arriving, 9") && text.contains(" of 1048"), "{text}");
    assert!(took <= 15 * SECOND);
    assert_eq!(wire.count(ApiKey::FETCH), 2);
}

#[tokio::test(start_paused = true)]
async fn single_bytes_do_not_keep_a_connection_alive() {
    let link = |base| Slow { base, at_once: HANDSHAKE, bytes: 1, every: 9 * SECOND, most: usize::MAX };
    let (broker, _, partition) = slow(link).await;
    let fetch = tokio::spawn(async move { partition.fetch(0).deadline(HOUR).await });
    sleep(9 * SECOND).await;
    let before = broker.connections().open;
    sleep(9 * SECOND).await;
    assert_eq!(before, broker.connections().open, "another one takes its place");
    assert!(broker.requests(ApiKey::FETCH) > 1, "the first one was given up");
    fetch.abort();
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_any_more_is_not_sent_and_at_most_one_poll_is_waited_for() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    let wait = 2 * SECOND;
    let connections = wire.connections();
    for _ in 0..31 {
        timeout(BRIEF, partition.fetch(1).max_wait(wait).into_future()).await.unwrap_err();
    }
    let (fetched, took) = timed(partition.fetch(0)).await;
    assert_eq!(fetched.unwrap().next_offset, 1);
    assert!(took <= wait, "{took:?}");
    assert!(wire.count(ApiKey::FETCH) <= 3, "{}", wire.count(ApiKey::FETCH));
    assert!(wire.connections() <= connections + 2);
}

#[tokio::test(start_paused = true)]
async fn polls_that_were_all_sent_and_abandoned_are_left_for_a_fresh_connection() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let (one, other) = open_two_that_share(&wire).await;
    one.produce(record("a")).await.unwrap();
    for round in 0..20 {
        let polls = join_all((0..30).map(|_| one.fetch(1).max_wait(20 * SECOND).into_future()));
        timeout(BRIEF, polls).await.unwrap_err();
        let (fetched, took) = timed(one.fetch(0)).await;
        assert_eq!(fetched.unwrap().next_offset, 1);
        assert!(took < SECOND, "{round}: {took:?}");
        let (fetched, took) = timed(other.fetch(0).max_wait(BRIEF)).await;
        assert_eq!(fetched.unwrap().next_offset, 0);
        assert!(took < SECOND, "{round}: {took:?}");
        assert!(wire.open().0 <= 3, "{round}: {:?}", wire.open());
    }
}

/// A connection on which somebody still waits stays for that one alone. Fetches that want more than the first
/// record are not combined.
#[tokio::test(start_paused = true)]
async fn a_poll_that_somebody_waits_for_is_answered_although_others_were_abandoned() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let (one, other) = open_two_that_share(&wire).await;
    let abandoned = tokio::spawn({
        let one = one.clone();
        async move { join_all((0..5).map(|_| one.fetch(0).min_bytes(2).max_wait(2 * SECOND).into_future())).await }
    });
    settle().await;
    let waiting = tokio::spawn({
        let other = other.clone();
        async move { timed(other.fetch(0).min_bytes(2).max_wait(5 * SECOND)).await }
    });
    settle().await;
    abandoned.abort();
    settle().await;
    one.produce(record("a")).await.unwrap();
    let (fetched, took) = timed(one.fetch(0)).await;
    assert_eq!(fetched.unwrap().next_offset, 1);
    assert!(took < SECOND, "{took:?}");
    let open = wire.open().0;
    let (fetched, took) = waiting.await.unwrap();
    assert_eq!(fetched.unwrap().next_offset, 0);
    assert!(took <= 15 * SECOND, "{took:?}");
    settle().await;
    assert_eq!(wire.open().0, open - 1, "then it is closed");
    assert_eq!(wire.count(ApiKey::FETCH), 7, "none was repeated");
}

/// The last acknowledged batch is looked up on a new connection, and hardly arrives. When the append has
/// ended that needs it, the connection is closed, and the next append has another one.
#[tokio::test(start_paused = true)]
async fn a_look_up_that_hardly_arrives_does_not_hold_up_later_appends() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(large(38_000)).await.unwrap();
    broker.disconnect(broker.brokers()[0]).unwrap();
    broker.on(ApiKey::FETCH, Fault::Trickle { bytes: 2, pause: Duration::from_millis(15) });
    let (result, took) = timed(partition.produce(record("a")).deadline(5 * SECOND)).await;
    let error = result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
    assert_eq!((error.outcome(), took), (Outcome::NotApplied, 5 * SECOND));
    sleep(20 * SECOND).await;
    let (result, took) = timed(partition.produce(record("b"))).await;
    result.unwrap();
    assert!(took < SECOND, "{took:?}");
    assert_eq!(log(&broker).last().map(String::as_str), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_while_a_throttle_holds_it_back_is_not_sent() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    broker.on(ApiKey::FETCH, Fault::Throttle(5 * SECOND));
    partition.fetch(0).max_wait(Duration::ZERO).await.unwrap();
    for _ in 0..20 {
        timeout(BRIEF, partition.fetch(0).into_future()).await.unwrap_err();
    }
    sleep(6 * SECOND).await;
    assert_eq!(wire.count(ApiKey::FETCH), 1);
    partition.fetch(0).await.unwrap();
    assert_eq!(wire.count(ApiKey::FETCH), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_fits_the_limit_of_a_response() {
    let broker = EmbeddedCluster::builder().topic(&"w".repeat(249), 1).topic("wal", 1);
    let broker = broker.start_in_memory().unwrap();
    for frame in [1 << 20, 300_000, 12_000] {
        let limits = Limits::default().frame(frame);
        let client = crate::support::builder(&broker).limits(limits).build().await.unwrap();
        for topic in ["wal", &"w".repeat(249)] {
            let partition = client.partition_client(topic, 0).await.unwrap();
            for _ in 0..300 {
                partition.produce(large(9_000)).await.unwrap();
            }
            let mut next = 0;
            while next < 300 {
                let fetched = partition.fetch(next).await.unwrap();
                assert!(fetched.next_offset > next && fetched.wire_bytes < frame);
                next = fetched.next_offset;
            }
            let whole = partition.fetch(0).max_bytes(i32::MAX).await.unwrap();
            assert!(whole.wire_bytes + 20_000 > frame.min(300 * 9_000), "{frame}: {}", whole.wire_bytes);
        }
    }
}

/// A broker closes the connection when a request is larger than it accepts.
#[tokio::test(start_paused = true)]
async fn a_request_that_the_broker_closes_the_connection_for_is_named_after_the_second_time() {
    for idempotent in [true, false] {
        let broker = broker();
        let wire = Wire::to(&broker);
        let refused = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        wire.on_request({
            let refused = Arc::clone(&refused);
            move |frame| match frame.bytes.len() {
                ..300_000 => Decision::Pass,
                _ => {
                    refused.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    Decision::Cut(0)
                }
            }
        });
        let client = wire.client().await;
        let partition = client.partition_client("wal", 0).idempotent(idempotent).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        let (error, took) = timed(partition.produce(large(400_000))).await;
        let error = error.unwrap_err();
        // Nobody knows what the broker did with it.
        assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
        assert!(took < SECOND, "{took:?}");
        let text = chain(&error);
        assert!(!text.contains("SASL"), "{text}");
        if idempotent {
            let ErrorKind::RequestTooLarge { size, .. } = *error.kind() else { panic!("{error:?}") };
            assert!(
                (400_000..401_000).contains(&size) && text.contains("socket.request.max.bytes"),
                "{text}"
            );
            assert!(!error.is_retriable());
        }
        let expected = if idempotent { 2 } else { 1 };
        assert_eq!(refused.load(std::sync::atomic::Ordering::SeqCst), expected);
        // The partition client is usable.
        partition.produce(record("b")).await.unwrap();
        assert_eq!(log(&broker), ["a", "b"]);
    }
}

/// Other reasons explain why a connection is closed.
#[tokio::test(start_paused = true)]
async fn a_connection_lost_twice_is_not_taken_for_a_limit_unless_nothing_else_explains_it() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    // A small request.
    broker.on_times(ApiKey::PRODUCE, 5, Fault::LoseReply);
    assert_eq!(partition.produce(record("a")).await.unwrap().attempts, 6);
    // One that was lost once, and answered then.
    for _ in 0..3 {
        broker.on(ApiKey::PRODUCE, Fault::LoseReply);
        assert_eq!(partition.produce(large(100_000)).await.unwrap().attempts, 2);
    }
}

/// Cuts the connections of so many appends.
fn cut_appends(wire: &Wire, times: usize) {
    let mut left = times;
    wire.on_request(move |frame| match frame.api {
        ApiKey::PRODUCE if left > 0 => {
            left -= 1;
            Decision::Cut(0)
        }
        _ => Decision::Pass,
    });
}

/// A broker that dies closes all connections once, often with requests of one size.
#[tokio::test(start_paused = true)]
async fn equal_appends_that_lose_their_connections_together_are_not_too_large() {
    for same_partition in [true, false] {
        let broker = broker();
        let wire = Wire::to(&broker);
        let client = wire.client().await;
        let open = async |index| client.partition_client("wal", index).await.unwrap();
        let clients = [open(0).await, open(i32::from(!same_partition)).await, open(1).await];
        for partition in &clients {
            partition.produce(record("a")).await.unwrap();
        }
        cut_appends(&wire, clients.len());
        let appends = clients.iter().map(|partition| partition.produce(large(100_000)).into_future());
        for produced in join_all(appends).await {
            assert_eq!(produced.unwrap().attempts, 2, "same partition {same_partition}");
        }
    }
}

/// A broker gets to a request only when it has answered those before it.
#[tokio::test(start_paused = true)]
async fn an_append_behind_one_that_is_too_large_is_not_blamed() {
    let mut attempts = 0;
    // In some of them, the retries are in the same order again.
    for seed in 0..8 {
        let broker = broker();
        let wire = Wire::to(&broker);
        let limits = Limits::default().max_connections_per_broker(1);
        let client = wire.builder().seed(seed).limits(limits).build().await.unwrap();
        let open = async |index| client.partition_client("wal", index).await.unwrap();
        let [first, second] = [open(0).await, open(1).await];
        for partition in [&first, &second] {
            partition.produce(record("a")).await.unwrap();
        }
        // The connection is closed when both have been sent, if they are on the same one.
        let (mut refused, mut too_large_on) = (0, 0);
        wire.on_request(move |frame| match frame.bytes.len() {
            400_000.. if refused == 2 => Decision::Cut(0),
            400_000.. => {
                (refused, too_large_on) = (refused + 1, frame.connection);
                Decision::Discard
            }
            100_000.. if frame.connection == too_large_on => Decision::Cut(0),
            _ => Decision::Pass,
        });
        let [refused, produced] = join_all([
            first.produce(large(400_000)).into_future(),
            second.produce(large(100_000)).into_future(),
        ])
        .await
        .try_into()
        .unwrap();
        let error = refused.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::RequestTooLarge { .. }), "{error:?}");
        attempts = attempts.max(produced.unwrap().attempts);
    }
    assert_eq!(attempts, 3, "it was behind the other one twice");
}

/// A broker closes the connection when it has read the length of a request that is too large, so what is
/// behind that is not sent.
#[derive(Clone, Debug)]
struct ClosesEarly(Arc<dyn Connect>);

struct ClosingEarly {
    stream: Stream,
    /// What is missing of the frame that is being written; its length comes first.
    missing: usize,
    is_length: bool,
    length: Vec<u8>,
    is_closed: bool,
}

impl Connect for ClosesEarly {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(async move {
            let stream = self.0.connect(to).await?;
            let io =
                ClosingEarly { stream, missing: 4, is_length: true, length: Vec::new(), is_closed: false };
            Ok(Stream::new(io, to.to_string()))
        })
    }
}

impl AsyncWrite for ClosingEarly {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_closed {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let len = bytes.len().min(self.missing);
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[..len]))?;
        if self.is_length {
            self.length.extend(&bytes[..written]);
        }
        self.missing -= written;
        if self.missing == 0 {
            self.is_length = !self.is_length;
            self.missing = 4;
            if !self.is_length {
                let length = std::mem::take(&mut self.length).try_into().unwrap();
                self.missing = u32::from_be_bytes(length) as usize;
                self.is_closed = self.missing > 300_000;
            }
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for ClosingEarly {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_closed {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_large_is_named_whatever_waits_behind_it() {
    let broker = broker();
    let client = ClientBuilder::new(broker.bootstrap())
        .connector(ClosesEarly(broker.connector()))
        .seed(7)
        .build()
        .await
        .unwrap();
    for behind in 0..4 {
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        let mut appends = vec![partition.produce(large(400_000)).into_future()];
        appends.extend((0..behind).map(|_| partition.produce(record("b")).into_future()));
        let (results, took) = timed(join_all(appends)).await;
        let errors: Vec<_> = results.into_iter().map(Result::unwrap_err).collect();
        let kind = errors[0].kind();
        assert!(matches!(kind, ErrorKind::RequestTooLarge { .. }), "{behind} behind it: {kind:?}");
        assert!(took < SECOND, "{took:?}");
        for error in &errors[1..] {
            assert!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), "{error:?}");
            assert_eq!(error.outcome(), Outcome::NotApplied);
        }
    }
    assert_eq!(log(&broker), ["a"; 4]);
}
