//! Many partitions of one broker that are followed by one client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::join_all;
use kwal_batching::reader::follow;
use kwal_client::{ClientBuilder, Limits, OffsetAt};
use kwal_protocol::api::ApiKey;
use kwal_protocol::messages::FetchRequest;
use kwal_testkit::wire::{Decision, Wire};
use kwal_tests::kafka::{Kafka, Version};
use kwal_transport::Tcp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{append, connect, read_up_to, value};

kwal_tests::suite! {
    own: [two_hundred],
}

const PARTITIONS: i32 = 200;

/// They share connections and requests: a record arrives at once, although most of the others wait.
async fn two_hundred(version: Version) {
    let kafka = Kafka::shared(version);
    let topic = kafka.topic("followed", PARTITIONS, &[]).await;
    let wire = Wire::new(Tcp::default());
    let client = ClientBuilder::new(kafka.bootstrap()).connector(wire.clone()).build().await.unwrap();
    let (sender, mut received) = mpsc::unbounded_channel();
    let mut followers = JoinSet::new();
    for number in 0..PARTITIONS {
        let partition = client.partition_client(&topic, number).await.unwrap();
        let mut stream = follow(&partition, OffsetAt::Latest).await.unwrap();
        let sender = sender.clone();
        followers.spawn(async move {
            loop {
                let batch = stream.next_batch().await.unwrap();
                let now = Instant::now();
                for record in batch.records() {
                    let record = record.unwrap();
                    sender.send((number, record.offset, value(&record), now)).unwrap();
                }
            }
        });
    }

    let writer = connect(kafka).await;
    let writers =
        join_all((0..PARTITIONS).map(async |number| writer.partition_client(&topic, number).await.unwrap()))
            .await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut order: Vec<i32> = (0..PARTITIONS).collect();
    let mut latencies = Vec::new();
    for round in 0..if kwal_tests::long() { 20 } else { 2 } {
        // In the order of their requests, each would be the next on its connection.
        random.shuffle(&mut order);
        for &number in &order {
            let writer = &writers[number as usize];
            let offset = append(writer, format!("{number} {round}")).await;
            let acked = Instant::now();
            let (at, read, value, arrived) = arrives(&mut received).await;
            assert_eq!((at, read, value), (number, offset, format!("{number} {round}")));
            latencies.push(arrived.saturating_duration_since(acked));
        }
    }
    // All at once.
    let begun = Instant::now();
    join_all(writers.iter().map(|writer| append(writer, "all"))).await;
    let mut all = Vec::new();
    for _ in 0..PARTITIONS {
        all.push(arrives(&mut received).await.0);
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(0..PARTITIONS));
    let all_after = begun.elapsed();

    latencies.sort_unstable();
    let (median, most) = (latencies[latencies.len() / 2], latencies[latencies.len() * 9 / 10]);
    let connections = wire.connections();
    followers.shutdown().await;
    kwal_tests::report(format_args!(
        "{version}: {PARTITIONS} followers, seed {seed}: read {median:.1?} after the acknowledgement, 9 of 10 \
         within {most:.1?}, {} connections, {} fetches; all at once within {all_after:.1?}",
        connections.open,
        wire.requests(ApiKey::FETCH)
    ));
    let limit = 2 * Limits::default().max_connections_per_broker + 1;
    assert!(connections.open <= limit, "{connections:?}");
    // Behind the long polls of others, half of them would take a second.
    assert!(median < Duration::from_millis(100), "{median:?}");
    assert!(most < Duration::from_millis(250), "{most:?}");
}

/// A broker answers a fetch beyond the quota without any partition. Those that share the request ask again.
///
/// The broker allows for a burst of a second.
pub(super) async fn throttled(kafka: &Kafka) {
    const BYTES_PER_SECOND: u64 = 300_000;
    let partitions = 10;
    let topic = kafka.topic("throttled", partitions, &[]).await;
    kafka.java().consumer_quota(&topic, Some(BYTES_PER_SECOND)).await;
    let records = 4 * BYTES_PER_SECOND as usize / (RECORD * partitions as usize);
    let writer = connect(kafka).await;
    join_all((0..partitions).map(async |number| {
        let partition = writer.partition_client(&topic, number).await.unwrap();
        for _ in 0..records {
            append(&partition, "x".repeat(RECORD)).await;
        }
    }))
    .await;
    let limits = Limits::default().max_connections_per_broker(1);
    let wire = Wire::new(Tcp::default());
    let throttles = Arc::new(AtomicU32::new(0));
    wire.on_response({
        let throttles = Arc::clone(&throttles);
        move |frame| {
            if frame.response::<FetchRequest>().is_some_and(|response| response.throttle_time_ms > 0) {
                throttles.fetch_add(1, Ordering::Relaxed);
            }
            Decision::Pass
        }
    });
    let client = ClientBuilder::new(kafka.bootstrap()).client_id(&topic).limits(limits);
    let client = client.connector(wire.clone()).build().await.unwrap();
    let mut followers = JoinSet::new();
    for number in 0..partitions {
        let partition = client.partition_client(&topic, number).await.unwrap();
        let mut stream = follow(&partition, 0).max_bytes(2 * RECORD as i32).await.unwrap();
        followers.spawn(async move { read_up_to(&mut stream, records as i64).await });
    }
    while let Some(read) = timeout(Duration::from_secs(60), followers.join_next()).await.expect("they go on")
    {
        assert!(read.unwrap().into_keys().eq(0..records as i64));
    }
    let throttles = throttles.load(Ordering::Relaxed);
    let (version, fetches) = (kafka.version().unwrap(), wire.requests(ApiKey::FETCH));
    kwal_tests::report(format_args!("{version}: {throttles} of {fetches} fetches throttled"));
    assert!(throttles > 0);
    kafka.java().consumer_quota(&topic, None).await;
}

/// The size of the records under a quota.
const RECORD: usize = 5_000;

async fn arrives<T>(received: &mut mpsc::UnboundedReceiver<T>) -> T {
    let arrived = timeout(Duration::from_secs(60), received.recv()).await;
    arrived.expect("a record arrives within a minute").unwrap()
}
