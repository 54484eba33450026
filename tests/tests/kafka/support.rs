//! The support itself: brokers that start, end and come back, and the Java client that judges the others.

use std::sync::Arc;

use kwal_tests::kafka::{ClusterConfig, Kafka, Node, Version};
use kwal_tests::message::{Message, samples};

kwal_tests::suite! {
    shared: [java_reads_what_java_wrote, tools_agree],
    own: [segments_can_be_read, survives_kill_and_restart, three_nodes, paused_and_resumed],
}

async fn java_reads_what_java_wrote(kafka: &'static Kafka) {
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = kafka.topic("java", 2, &[]).await;
        let offsets = kafka.java().produce(&topic, 1, compression, &samples()).await;
        assert_eq!(offsets, (0..10).collect::<Vec<i64>>());
        assert_eq!(kafka.java().consume(&topic, 1, 0, None).await, samples());
        assert_eq!(kafka.java().consume(&topic, 1, 3, Some(5)).await, samples()[3..5]);
    }
}

async fn tools_agree(kafka: &'static Kafka) {
    let topic = kafka.topic("tools.test", 3, &[("max.message.bytes", "2000000")]).await;
    assert!(kafka.java().topics().await.contains(&topic));
    kafka.java().produce(&topic, 2, "none", &samples()).await;
    assert_eq!(kafka.end_offsets(&topic).await, [0, 0, 10]);
    assert_eq!(kafka.java().offset(&topic, 2, "latest").await, 10);
    assert_eq!(kafka.java().offset(&topic, 2, "max-timestamp").await, 9);
    assert_eq!(kafka.java().offset(&topic, 2, &(samples()[9].timestamp + 1).to_string()).await, -1);
    kafka.java().delete_records(&topic, 2, 4).await;
    assert_eq!(kafka.java().offset(&topic, 2, "earliest").await, 4);
    kafka.java().delete_topic(&topic).await;
}

async fn segments_can_be_read(version: Version) {
    let kafka = Kafka::shared(version);
    let topic = kafka.topic("segments", 1, &[]).await;
    kafka.java().produce(&topic, 0, "lz4", &samples()).await;
    let dump = kafka.dump_log(1, &topic, 0).await;
    assert!(dump.contains("lastOffset: 9 count: "), "{dump}");
}

async fn survives_kill_and_restart(version: Version) {
    let kafka = Kafka::start(version, &ClusterConfig::default());
    let node = Arc::clone(kafka.cluster().unwrap().node(1));
    let topic = kafka.topic("kept", 1, &[]).await;
    let message = [Message::new(1_750_000_000_000, None, Some(b"kept"))];
    kafka.java().produce(&topic, 0, "none", &message).await;
    blocking(&node, Node::restart).await;
    kafka.java().produce(&topic, 0, "none", &message).await;
    blocking(&node, Node::stop).await;
    assert!(std::net::TcpStream::connect(&kafka.bootstrap()[0]).is_err(), "nobody listens after a stop");
    blocking(&node, Node::start).await;
    let offsets: Vec<i64> =
        kafka.java().consume(&topic, 0, 0, None).await.iter().map(|each| each.offset).collect();
    assert_eq!(offsets, [0, 1]);
}

async fn three_nodes(version: Version) {
    let kafka = Kafka::start(version, &ClusterConfig { nodes: 3, ..ClusterConfig::default() });
    assert_eq!(kafka.bootstrap().len(), 3);
    let topic = kafka.topic("replicated", 3, &[]).await;
    for partition in 0..3 {
        let offsets = kafka.java().produce(&topic, partition, "none", &samples()).await;
        assert_eq!(offsets.len(), samples().len());
    }
    assert_eq!(kafka.end_offsets(&topic).await, [10, 10, 10]);
}

async fn paused_and_resumed(version: Version) {
    let kafka = Kafka::start(version, &ClusterConfig::default());
    let node = kafka.cluster().unwrap().node(1);
    let topic = kafka.topic("paused", 1, &[]).await;
    node.pause().unwrap();
    let samples = samples();
    let produced = kafka.java().produce(&topic, 0, "none", &samples);
    tokio::pin!(produced);
    let patience = std::time::Duration::from_millis(500);
    tokio::time::timeout(patience, &mut produced).await.expect_err("nobody answers while it is paused");
    node.resume().unwrap();
    assert_eq!(produced.await.len(), samples.len());
}

async fn blocking(node: &Arc<Node>, action: fn(&Node) -> Result<(), String>) {
    let node = Arc::clone(node);
    tokio::task::spawn_blocking(move || action(&node)).await.unwrap().unwrap();
}
