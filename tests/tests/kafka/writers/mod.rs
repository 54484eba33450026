//! Many writers of one log: their order, exactly once, and the offset of every acknowledgement.

mod keys;
mod load;

use std::time::Duration;

use kwal_batching::producer::BatchProducer;
use kwal_client::error::ErrorKind;
use kwal_client::{Client, ClientBuilder, Deadlines};
use kwal_protocol::record::Compression;
use kwal_tests::kafka::{ClusterConfig, Kafka, Node, Version};
use tokio::time::Instant;

use self::load::{Load, Writer, find};
use crate::faults::on_node;

kwal_tests::suite! {
    shared: [no_inversion, of_the_holder],
    own: [killed_leaders],
}

/// Sequences of plain calls, of first polls, and one of plain calls that several tasks make under a lock.
const WRITERS: [Writer; 12] = {
    use Writer::{Locked, Polls, Slots};
    [Slots, Polls, Locked, Slots, Polls, Locked, Slots, Polls, Locked, Slots, Polls, Locked]
};

/// A million pairs of consecutive records of one sequence, none of which is inverted; in the short form a
/// hundred thousand.
async fn no_inversion(kafka: &'static Kafka) {
    let pairs = if kwal_tests::long() { 1_000_000 } else { 100_000 };
    for (compression, pairs) in
        [(Compression::None, pairs), (Compression::Lz4, pairs / 10), (Compression::Zstd, pairs / 10)]
    {
        let topic = kafka.topic("pairs", 1, &[]).await;
        let client = connect(kafka).await;
        let partition = client.partition_client(&topic, 0).compression(compression).await.unwrap();
        let producer = BatchProducer::new(partition);
        let begun = Instant::now();
        let mut load = Load::start(&producer, &WRITERS, None);
        // Each sequence has one pair fewer than records.
        load.progress(pairs + WRITERS.len() as u64).await;
        let sequences = load.end().await;
        let took = begun.elapsed();
        assert!(sequences.values().all(|sequence| sequence.errors.is_empty()), "{sequences:?}");
        producer.flush().await.unwrap();

        let found = find(producer.partition()).await;
        let records = found.check(&sequences);
        let stats = producer.stats();
        assert_eq!((stats.appended, stats.failed, stats.records), (records, 0, records));
        assert_eq!(found.offsets().collect::<Vec<_>>(), (0..records as i64).collect::<Vec<_>>());
        kwal_tests::report(format_args!(
            "{}, {compression}: {records} records of {} writers without an inversion, {:.0} a second, {:.1} a batch",
            version(kafka),
            WRITERS.len(),
            records as f64 / took.as_secs_f64(),
            stats.mean_records(),
        ));
    }
}

/// A holder of the log that is fenced amid its appends: what was acknowledged lies before the barrier of the
/// next one, each sequence without a hole, and nothing lies after it.
async fn of_the_holder(kafka: &'static Kafka) {
    let topic = kafka.topic("held", 1, &[]).await;
    let (client, other) = (connect(kafka).await, connect(kafka).await);
    let first = client.partition_client(&topic, 0).exclusive("writers").await.unwrap();
    let producer = BatchProducer::new(first);
    let mut load = Load::start(&producer, &WRITERS, None);
    load.progress(5_000).await;
    let second = other.partition_client(&topic, 0).exclusive("writers").await.unwrap();
    let barrier = second.holder().unwrap().barrier;
    let sequences = load.failed().await;
    for error in sequences.values().flat_map(|sequence| &sequence.errors) {
        assert!(error.to_string().contains(": fenced: "), "{error}");
    }
    assert!(sequences.values().any(|sequence| !sequence.errors.is_empty()));
    let error = producer.produce(load::record(0, 0)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
    // The next holder goes on behind its barrier.
    let next = BatchProducer::new(second);
    assert_eq!(next.produce(load::record(0, u32::MAX)).await.unwrap().offset, Some(barrier + 1));
    assert!(next.close().await.is_empty());

    let mut found = find(next.partition()).await;
    assert_eq!(found.remove(barrier + 1), Some((0, u32::MAX)));
    let records = found.check(&sequences);
    assert!(found.offsets().all(|offset| (1..barrier).contains(&offset)));
    assert!(records >= producer.stats().appended && producer.stats().appended >= 5_000);
}

/// Every broker is killed once while it may lead, and every record is on the log once all the same. With
/// `KWAL_LONG=1`, since it takes minutes.
async fn killed_leaders(version: Version) {
    for _ in 0..u8::from(kwal_tests::long()) {
        let properties = vec![("auto.leader.rebalance.enable".to_owned(), "false".to_owned())];
        let config = ClusterConfig { nodes: 3, properties, ..ClusterConfig::default() };
        let kafka = Kafka::start(version, &config);
        for compression in [Compression::Lz4, Compression::Zstd] {
            survives(&kafka, compression).await;
        }
    }
}

async fn survives(kafka: &Kafka, compression: Compression) {
    let topic = kafka.topic("killed", 1, &[]).await;
    let deadlines = Deadlines::default().request(Duration::from_secs(2));
    let client = ClientBuilder::new(kafka.bootstrap()).deadlines(deadlines).build().await.unwrap();
    let partition = client.partition_client(&topic, 0).compression(compression).await.unwrap();
    let producer = BatchProducer::new(partition);
    let mut load = Load::start(&producer, &WRITERS, Some(Duration::from_millis(1)));
    for node in 1..=3 {
        load.advance(2_000).await;
        on_node(kafka, node, Node::kill).await;
        load.advance(2_000).await;
        on_node(kafka, node, Node::start).await;
    }
    load.advance(2_000).await;
    on_node(kafka, 1, |node| {
        node.stop()?;
        node.start()
    })
    .await;
    load.advance(2_000).await;
    let sequences = load.end().await;
    assert!(sequences.values().all(|sequence| sequence.errors.is_empty()), "{sequences:?}");
    assert!(producer.close().await.is_empty());
    let found = find(producer.partition()).await;
    let records = found.check(&sequences);
    let stats = producer.stats();
    assert_eq!((stats.appended, stats.failed), (records, 0));
    kwal_tests::report(format_args!(
        "{}, {compression}: {records} records over three kills and a restart, the longest append {:.1?}",
        version(kafka),
        stats.wire.longest
    ));
}

async fn connect(kafka: &Kafka) -> Client {
    ClientBuilder::new(kafka.bootstrap()).build().await.unwrap()
}

fn version(kafka: &Kafka) -> String {
    kafka.version().map_or_else(|| kafka.bootstrap().join(","), |version| version.to_string())
}
