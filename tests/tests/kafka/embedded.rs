//! Other clients against the embedded cluster over TCP: each reads exactly what another one wrote.

use kwal_protocol::api::ApiKey;
use kwal_testkit::{Dialect, EmbeddedCluster};
use kwal_tests::kafka::{Kafka, Version};
use kwal_tests::message::Message;

use crate::interop::{common_codecs, write_then_read};
use crate::peers::{Java, Kwal, Librdkafka, Peer, Rskafka, librdkafka};
use crate::support::tools_report_topics_and_offsets;

kwal_tests::suite! {
    own: [java_and_all_others, kafka_tools],
}

#[test]
fn kwal_and_kwal() {
    run("kwal_and_kwal", async || one_writes_other_reads::<Kwal, Kwal>(Kwal::samples).await);
}

#[test]
fn kwal_and_librdkafka() {
    run("kwal_and_librdkafka", async || {
        one_writes_other_reads::<Kwal, Librdkafka>(Librdkafka::samples).await;
        one_writes_other_reads::<Librdkafka, Kwal>(Librdkafka::samples).await;
    });
}

#[test]
fn kwal_and_rskafka() {
    run("kwal_and_rskafka", async || {
        one_writes_other_reads::<Kwal, Rskafka>(Rskafka::samples).await;
        one_writes_other_reads::<Rskafka, Kwal>(Rskafka::samples).await;
    });
}

#[test]
fn librdkafka_and_rskafka() {
    run("librdkafka_and_rskafka", async || {
        one_writes_other_reads::<Librdkafka, Rskafka>(Rskafka::samples).await;
        one_writes_other_reads::<Rskafka, Librdkafka>(Rskafka::samples).await;
    });
}

/// Its requests can have bytes after their end, which brokers ignore.
#[test]
fn librdkafka_administrates() {
    run("librdkafka_administrates", async || {
        for dialect in [Dialect::kafka_4_3(), Dialect::kafka_3_9(), Dialect::kafka_2_8()] {
            let cluster = cluster(dialect).await;
            librdkafka::administrate(&Kafka::at(cluster.bootstrap(), Version::V4_3_1)).await;
            assert!(cluster.topics().is_empty(), "the topics should be deleted");
        }
    });
}

async fn java_and_all_others(version: Version) {
    let cluster = cluster(Dialect::default()).await;
    let kafka = Kafka::at(cluster.bootstrap(), version);
    on::<Java, Java>(&cluster, &kafka, Java::samples).await;
    on::<Java, Kwal>(&cluster, &kafka, Java::samples).await;
    on::<Kwal, Java>(&cluster, &kafka, Java::samples).await;
    on::<Java, Librdkafka>(&cluster, &kafka, Librdkafka::samples).await;
    on::<Librdkafka, Java>(&cluster, &kafka, Librdkafka::samples).await;
    on::<Java, Rskafka>(&cluster, &kafka, Rskafka::samples).await;
    on::<Rskafka, Java>(&cluster, &kafka, Rskafka::samples).await;
}

async fn kafka_tools(version: Version) {
    let cluster = cluster(Dialect::default()).await;
    tools_report_topics_and_offsets(&Kafka::at(cluster.bootstrap(), version)).await;
    assert!(cluster.topics().is_empty(), "the topics should be deleted");
}

/// Runs a pair of clients on a cluster of each dialect.
async fn one_writes_other_reads<Writer: Peer, Reader: Peer>(samples: fn() -> Vec<Message>) {
    for dialect in [Dialect::kafka_4_3(), Dialect::kafka_3_9(), Dialect::kafka_2_8()] {
        let cluster = cluster(dialect).await;
        // The test does not use the tools of this version.
        let kafka = Kafka::at(cluster.bootstrap(), Version::V4_3_1);
        on::<Writer, Reader>(&cluster, &kafka, samples).await;
        let used_all = cluster.brokers().into_iter().all(|broker| {
            cluster.requests_to(broker, ApiKey::PRODUCE).unwrap() > 0
                && cluster.requests_to(broker, ApiKey::FETCH).unwrap() > 0
        });
        assert!(used_all, "each broker should lead a partition");
    }
}

/// Runs a pair of clients with a topic for each codec, on partitions of the brokers in turn.
async fn on<Writer: Peer, Reader: Peer>(
    cluster: &EmbeddedCluster,
    kafka: &Kafka,
    samples: fn() -> Vec<Message>,
) {
    for (compression, partition) in common_codecs::<Writer, Reader>().zip((0..3).cycle()) {
        let topic = kafka.topic_name("interop");
        cluster.create_topic(&topic, 3).unwrap();
        write_then_read::<Writer, Reader>(kafka, &topic, partition, compression, &samples()).await;
    }
}

async fn cluster(dialect: Dialect) -> EmbeddedCluster {
    EmbeddedCluster::builder().brokers(3).dialect(dialect).start().await.unwrap()
}

fn run(name: &str, test: impl AsyncFnOnce()) {
    kwal_tests::run(&format!("embedded::{name}"), test());
}
