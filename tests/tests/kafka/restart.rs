//! Appends while the broker is killed and comes back: nothing twice, nothing lost, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kwal_client::record::Record;
use kwal_client::{Client, ClientBuilder, Deadlines};
use kwal_tests::kafka::{ClusterConfig, Kafka, Node, Version};

kwal_tests::suite! {
    shared: [],
    own: [killed, shut_down, paused, leader_killed],
}

async fn killed(version: Version) {
    appends_go_on(version, 1, 2, |node| {
        node.kill()?;
        node.start()
    })
    .await;
}

async fn shut_down(version: Version) {
    appends_go_on(version, 1, 2, |node| {
        node.stop()?;
        node.start()
    })
    .await;
}

/// Longer than a request may take, so that the client gives its connection up while the broker still holds the batch.
async fn paused(version: Version) {
    appends_go_on(version, 1, 1, |node| {
        node.pause()?;
        std::thread::sleep(Duration::from_secs(4));
        node.resume()
    })
    .await;
}

async fn leader_killed(version: Version) {
    appends_go_on(version, 3, 1, |node| {
        node.kill()?;
        // The others take over when its session is over, after three seconds.
        std::thread::sleep(Duration::from_secs(5));
        node.start()
    })
    .await;
}

/// One writer for each of three partitions appends numbers, one after the other, while `fault` is done to a node
/// `times` times; then Kafka's own client reads what is there.
async fn appends_go_on(version: Version, nodes: u16, times: u32, fault: fn(&Node) -> Result<(), String>) {
    const PARTITIONS: i32 = 3;
    let kafka = Kafka::start(version, &ClusterConfig { nodes, ..ClusterConfig::default() });
    let topic = kafka.topic("appends", PARTITIONS, &[]).await;
    let deadlines = Deadlines { request: Duration::from_secs(2), ..Deadlines::default() };
    let client = ClientBuilder::new(kafka.bootstrap()).deadlines(deadlines).build().await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..PARTITIONS)
        .map(|partition| tokio::spawn(append(client.clone(), topic.clone(), partition, Arc::clone(&done))))
        .collect();

    let node = Arc::clone(kafka.cluster().unwrap().node(1));
    for _ in 0..times {
        grown(&client, &topic, 50).await;
        let node = Arc::clone(&node);
        tokio::task::spawn_blocking(move || fault(&node)).await.unwrap().unwrap();
    }
    grown(&client, &topic, 50).await;
    done.store(true, Ordering::Relaxed);

    for (partition, writer) in (0..).zip(writers) {
        let (acknowledged, retried) = writer.await.unwrap();
        let log = kafka.java().consume(&topic, partition, 0, None).await;
        let numbers: Vec<u64> = log
            .iter()
            .map(|message| String::from_utf8(message.value.clone().unwrap()).unwrap().parse().unwrap())
            .collect();
        let wanted: Vec<u64> = (0..acknowledged).collect();
        assert_eq!(numbers, wanted, "partition {partition}");
        assert!(retried > 0 || nodes > 1, "partition {partition} has not noticed anything");
    }
}

/// Appends 0, 1, 2, …, each acknowledged before the next, until it is `done`; how many, and in how many further attempts.
async fn append(client: Client, topic: String, partition: i32, done: Arc<AtomicBool>) -> (u64, u32) {
    let writer = client.partition_client(&topic, partition).await.unwrap();
    let mut next = 0_u64;
    let mut retried = 0;
    while !done.load(Ordering::Relaxed) {
        let produced = writer.produce(vec![Record::new(None::<&str>, next.to_string())]).await.unwrap();
        assert_eq!(u64::try_from(produced.base_offset).unwrap(), next, "partition {partition}");
        retried += produced.attempts - 1;
        next += 1;
    }
    (next, retried)
}

/// Waits until every partition has this many records more.
async fn grown(client: &Client, topic: &str, by: i64) {
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
