//! Reading while brokers are restarted and killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kwal_batching::reader::{RecordStream, follow, replay};
use kwal_client::record::Record;
use kwal_client::{Client, ClientBuilder, Deadlines, Limits, PartitionClient};
use kwal_tests::kafka::{ClusterConfig, Kafka, Node, Version};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{append, connect, take};
use crate::faults::on_node;
use crate::fidelity::world::topic_metadata;
use crate::raw::Broker;

kwal_tests::suite! {
    newer: [readers_survive],
}

/// A replay that spans a rolling restart, and streams that also see leaders killed: one for itself, and many
/// that share connections and requests.
async fn readers_survive(version: Version) {
    let properties = vec![("auto.leader.rebalance.enable".to_owned(), "false".to_owned())];
    let kafka = Kafka::start(version, &ClusterConfig { nodes: 3, properties, ..ClusterConfig::default() });
    let topic = kafka.topic("restarted", 2, &[]).await;
    let many = kafka.topic("many", MANY, &[]).await;
    let done = Arc::new(AtomicBool::new(false));
    let client = patient(&kafka, Limits::default()).await;
    let mut load = Load::start(&kafka, &client, &topic, 1, &done).await;
    let sharing = patient(&kafka, Limits::default().max_connections_per_broker(2)).await;
    let mut loads = Vec::new();
    for number in 0..MANY {
        loads.push(Load::start(&kafka, &sharing, &many, number, &done).await);
    }

    let replayed = client.partition_client(&topic, 0).await.unwrap();
    rolling_restart(&kafka, &replayed, &mut load.position).await;
    for _ in 0..if kwal_tests::long() { 6 } else { 1 } {
        let leader = leader(&kafka, &topic, 1).await;
        on_node(&kafka, leader, Node::kill).await;
        load.advances(100).await;
        on_node(&kafka, leader, Node::start).await;
        if kwal_tests::long() {
            sleep(Duration::from_secs(6)).await;
        }
        load.advances(100).await;
        for load in &mut loads {
            load.advances(3).await;
        }
    }
    done.store(true, Ordering::Relaxed);
    let Read { records, longest } = load.finish().await;
    let end = records.len();
    kwal_tests::report(format_args!(
        "{version}: {end} records over restarts, the longest pause {longest:.1?}"
    ));
    let java = kafka.java().consume(&topic, 1, 0, Some(end as i64)).await;
    let java = java.into_iter();
    let java = java.map(|record| (record.offset, String::from_utf8(record.value.unwrap()).unwrap()));
    assert_eq!(records, java.collect());
    let mut longest = Duration::ZERO;
    for load in loads {
        longest = longest.max(load.finish().await.longest);
    }
    kwal_tests::report(format_args!("{version}: {MANY} streams over 2 connections: at most {longest:.1?}"));
}

/// How many streams share connections.
const MANY: i32 = 12;

async fn patient(kafka: &Kafka, limits: Limits) -> Client {
    let deadlines = Deadlines::default().request(Duration::from_secs(2));
    ClientBuilder::new(kafka.bootstrap()).deadlines(deadlines).limits(limits).build().await.unwrap()
}

/// Appends to a partition, and a stream that reads them.
struct Load {
    position: watch::Receiver<i64>,
    writing: JoinHandle<i64>,
    reading: JoinHandle<(RecordStream, Read)>,
}

/// What a stream has read.
#[derive(Default)]
struct Read {
    records: BTreeMap<i64, String>,
    /// The longest time without a record.
    longest: Duration,
}

impl Load {
    async fn start(kafka: &Kafka, client: &Client, topic: &str, number: i32, done: &Arc<AtomicBool>) -> Self {
        let stream = client.partition_client(topic, number).await.unwrap();
        let stream = follow(&stream, 0).await.unwrap();
        let (progress, position) = watch::channel(0);
        // One of them is faster than those of which there are many.
        let pace = Duration::from_millis(if topic.starts_with("many") { 100 } else { 2 });
        let writer = connect(kafka).await.partition_client(topic, number).await.unwrap();
        Self {
            position,
            writing: tokio::spawn(write(writer, pace, Arc::clone(done))),
            reading: tokio::spawn(read(stream, progress, Arc::clone(done))),
        }
    }

    /// Waits until the stream has so many more records.
    async fn advances(&mut self, by: i64) {
        advances(&mut self.position, by).await;
    }

    /// Reads to the end, and checks that every offset came once.
    async fn finish(self) -> Read {
        let end = self.writing.await.unwrap();
        let (mut stream, mut read) = self.reading.await.unwrap();
        while stream.position().offset < end {
            take(&stream.next_batch().await.unwrap(), &mut read.records);
        }
        let values = (0..end).map(|offset| (offset, format!("value {offset}")));
        assert_eq!(read.records, values.collect());
        assert_eq!((stream.summary().records, stream.summary().without_records.total()), (end as u64, 0));
        read
    }
}

/// Each broker is shut down and started while a replay is under way.
async fn rolling_restart(kafka: &Kafka, partition: &PartitionClient, position: &mut watch::Receiver<i64>) {
    const PART: i64 = 100;
    for first in (0..4 * PART).step_by(10) {
        let records = (first..first + 10).map(|offset| Record::new("key", offset.to_string()));
        partition.produce(records.collect::<Vec<_>>()).await.unwrap();
    }
    let mut replay = replay(partition, 0).max_bytes(1_000).await.unwrap();
    let mut read = BTreeMap::new();
    for node in 1..=3 {
        while replay.position().offset < i64::from(node) * PART {
            take(&replay.next_batch().await.unwrap().unwrap(), &mut read);
        }
        on_node(kafka, node, |node| {
            node.stop()?;
            node.start()
        })
        .await;
        // Appends go on.
        advances(position, 20).await;
    }
    // It is not part of the replay.
    append(partition, "later").await;
    while let Some(batch) = replay.next_batch().await.unwrap() {
        take(&batch, &mut read);
    }
    assert!(
        read.iter()
            .map(|(offset, value)| (*offset, value.clone()))
            .eq((0..4 * PART).map(|offset| (offset, offset.to_string())))
    );
    assert_eq!((replay.summary().offsets.clone(), replay.summary().records), (0..4 * PART, 4 * PART as u64));
}

/// Appends one record after the other. Returns the offset after the last one.
async fn write(partition: PartitionClient, pace: Duration, done: Arc<AtomicBool>) -> i64 {
    let mut end = 0;
    while !done.load(Ordering::Relaxed) {
        assert_eq!(append(&partition, format!("value {end}")).await, end);
        end += 1;
        sleep(pace).await;
    }
    end
}

/// Reads until `done`.
async fn read(
    mut stream: RecordStream,
    progress: watch::Sender<i64>,
    done: Arc<AtomicBool>,
) -> (RecordStream, Read) {
    let mut read = Read::default();
    let mut last = Instant::now();
    while !done.load(Ordering::Relaxed) {
        if let Ok(batch) = timeout(Duration::from_millis(100), stream.next_batch()).await {
            take(&batch.unwrap(), &mut read.records);
            progress.send_replace(stream.position().offset);
            read.longest = read.longest.max(last.elapsed());
            last = Instant::now();
        }
    }
    (stream, read)
}

/// Waits until the stream has so many more records.
async fn advances(position: &mut watch::Receiver<i64>, by: i64) {
    let target = *position.borrow_and_update() + by;
    let reached = position.wait_for(|position| *position >= target);
    _ = timeout(Duration::from_secs(60), reached).await.expect("the stream goes on within a minute").unwrap();
}

async fn leader(kafka: &Kafka, topic: &str, partition: i32) -> u16 {
    let mut connection = Broker::connect(&kafka.bootstrap()[0]).await;
    let found = topic_metadata(&mut connection, topic).await;
    let found = found.partitions.iter().find(|found| found.partition_index == partition).unwrap();
    u16::try_from(found.leader_id).unwrap()
}
