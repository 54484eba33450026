//! Appends while brokers are killed and restarted: no duplicates, no losses, in order.
//!
//! What fails here on one version fails on the other one in [`leaders`](crate::faults::leaders).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kwal_client::record::Record;
use kwal_client::{Client, ClientBuilder, Deadlines};
use kwal_tests::kafka::{ClusterConfig, Kafka, Node, Version};
use tokio::time::Instant;

kwal_tests::suite! {
    older: [shut_down, paused, restarted_one_by_one],
    newer: [killed, leader_killed],
}

async fn killed(version: Version) {
    appends_continue(version, 1, &[1, 1], |node| {
        node.kill()?;
        node.start()
    })
    .await;
}

async fn shut_down(version: Version) {
    appends_continue(version, 1, &[1, 1], |node| {
        node.stop()?;
        node.start()
    })
    .await;
}

/// Pauses for longer than the request timeout, so that the client closes the connection while the broker has
/// the batch.
async fn paused(version: Version) {
    appends_continue(version, 1, &[1], |node| {
        node.pause()?;
        std::thread::sleep(Duration::from_secs(4));
        node.resume()
    })
    .await;
}

async fn leader_killed(version: Version) {
    appends_continue(version, 3, &[1], |node| {
        node.kill()?;
        // Another broker takes over when the session expires, after three seconds.
        std::thread::sleep(Duration::from_secs(5));
        node.start()
    })
    .await;
}

/// A rolling restart.
async fn restarted_one_by_one(version: Version) {
    let gap = appends_continue(version, 3, &[1, 2, 3], |node| {
        node.stop()?;
        node.start()
    })
    .await;
    kwal_tests::report(format_args!(
        "{version}: three brokers restarted one by one; no partition waited longer than {gap:.1?} for an append"
    ));
}

/// Appends consecutive numbers to each of three partitions while `fault` hits the `hit` nodes in turn, and
/// verifies the log with Kafka's client. Returns the longest time between two acknowledgements.
async fn appends_continue(
    version: Version,
    nodes: u16,
    hit: &[u16],
    fault: fn(&Node) -> Result<(), String>,
) -> Duration {
    const PARTITIONS: i32 = 3;
    let kafka = Kafka::start(version, &ClusterConfig { nodes, ..ClusterConfig::default() });
    let topic = kafka.topic("appends", PARTITIONS, &[]).await;
    let deadlines = Deadlines::default().request(Duration::from_secs(2));
    let client = ClientBuilder::new(kafka.bootstrap()).deadlines(deadlines).build().await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..PARTITIONS)
        .map(|partition| tokio::spawn(append(client.clone(), topic.clone(), partition, Arc::clone(&done))))
        .collect();

    for id in hit {
        wait_for_records(&client, &topic, 50).await;
        let node = Arc::clone(kafka.cluster().unwrap().node(*id));
        tokio::task::spawn_blocking(move || fault(&node)).await.unwrap().unwrap();
    }
    wait_for_records(&client, &topic, 50).await;
    done.store(true, Ordering::Relaxed);

    let mut longest = Duration::ZERO;
    for (partition, writer) in (0..).zip(writers) {
        let Appended { acknowledged, retried, longest_gap } = writer.await.unwrap();
        longest = longest.max(longest_gap);
        let log = kafka.java().consume(&topic, partition, 0, None).await;
        let numbers: Vec<u64> = log
            .iter()
            .map(|message| String::from_utf8(message.value.clone().unwrap()).unwrap().parse().unwrap())
            .collect();
        let expected: Vec<u64> = (0..acknowledged).collect();
        assert_eq!(numbers, expected, "partition {partition}");
        assert!(retried > 0 || nodes > 1, "no append to partition {partition} was retried");
    }
    longest
}

struct Appended {
    acknowledged: u64,
    /// The number of further attempts.
    retried: u32,
    longest_gap: Duration,
}

/// Appends 0, 1, 2, …, one after the other, until `done`.
async fn append(client: Client, topic: String, partition: i32, done: Arc<AtomicBool>) -> Appended {
    let writer = client.partition_client(&topic, partition).await.unwrap();
    let mut appended = Appended { acknowledged: 0, retried: 0, longest_gap: Duration::ZERO };
    let mut last = Instant::now();
    while !done.load(Ordering::Relaxed) {
        let next = appended.acknowledged;
        let produced = writer.produce(vec![Record::new(None::<&str>, next.to_string())]).await.unwrap();
        assert_eq!(produced.base_offset, Some(next as i64), "partition {partition}");
        appended.acknowledged += 1;
        appended.retried += produced.attempts - 1;
        appended.longest_gap = appended.longest_gap.max(last.elapsed());
        last = Instant::now();
    }
    appended
}

/// Waits until every partition has `by` more records.
async fn wait_for_records(client: &Client, topic: &str, by: i64) {
    for partition in 0..3 {
        let reader = client.partition_client(topic, partition).await.unwrap();
        let end = reader.get_offset(kwal_client::OffsetAt::Latest).await.unwrap();
        let mut next = end;
        while next < end + by {
            let fetched = reader.fetch(next).max_wait(Duration::from_millis(200)).await.unwrap();
            next = fetched.next_offset;
        }
    }
}
