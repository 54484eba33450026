//! The test support itself: brokers that start, stop and restart, and the Java client that the others are
//! compared with.

use std::sync::Arc;

use kwal_tests::kafka::{
    Certificates, ClusterConfig, Kafka, MECHANISMS, Node, PASSWORD, USER, Version, unsecured_token,
};
use kwal_tests::message::{Message, samples};
use kwal_tests::socks5::Socks5;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw::{Ability, lacks};

kwal_tests::suite! {
    shared: [java_reads_what_java_wrote, tools_report_topics_and_offsets],
    secured: [java_uses_every_listener],
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

/// Kafka's tools report topics and offsets as created.
pub(crate) async fn tools_report_topics_and_offsets(kafka: &Kafka) {
    let topic = kafka.topic("tools.test", 3, &[("max.message.bytes", "2000000")]).await;
    assert!(kafka.java().topics().await.contains(&topic));
    kafka.java().produce(&topic, 2, "none", &samples()).await;
    assert_eq!(kafka.end_offsets(&topic).await, [0, 0, 10]);
    assert_eq!(kafka.java().offset(&topic, 2, "latest").await, 10);
    assert_eq!(kafka.java().offset(&topic, 2, "max-timestamp").await, 9);
    assert_eq!(kafka.java().offset(&topic, 2, &(samples()[9].timestamp + 1).to_string()).await, -1);
    if !lacks(kafka, Ability::DeleteRecords).await {
        kafka.java().delete_records(&topic, 2, 4).await;
        assert_eq!(kafka.java().offset(&topic, 2, "earliest").await, 4);
    }
    kafka.java().delete_topic(&topic).await;
}

/// Kafka's client can use every valid listener, with the settings that the listener requires.
async fn java_uses_every_listener(kafka: &'static Kafka) {
    let topic = kafka.topic("listeners", 1, &[]).await;
    let message = [Message::new(1_750_000_000_000, None, Some(b"in"))];
    let certificates = Certificates::shared();
    let (chain, key) = certificates.client();
    let read = |path| std::fs::read_to_string(path).unwrap();
    let trust = json!({
        "ssl.truststore.type": "PEM", "ssl.truststore.location": certificates.authority().to_str(),
    });
    let own = json!({
        "ssl.keystore.type": "PEM", "ssl.keystore.certificate.chain": read(chain), "ssl.keystore.key": read(key),
    });
    let mut listeners = vec![("SSL", "SSL", vec![trust.clone()]), ("MTLS", "SSL", vec![trust.clone(), own])];
    for mechanism in MECHANISMS {
        let modules = "org.apache.kafka.common.security";
        let login = match mechanism {
            "PLAIN" => {
                format!("{modules}.plain.PlainLoginModule required username={USER} password=\"{PASSWORD}\";")
            }
            "OAUTHBEARER" => format!(
                "{modules}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub={USER};"
            ),
            _ => {
                format!("{modules}.scram.ScramLoginModule required username={USER} password=\"{PASSWORD}\";")
            }
        };
        let login = json!({ "sasl.mechanism": mechanism, "sasl.jaas.config": login });
        listeners.push(("SASL_PLAINTEXT", "SASL_PLAINTEXT", vec![login.clone()]));
        listeners.push(("SASL_SSL", "SASL_SSL", vec![trust.clone(), login.clone()]));
        listeners.push(("SHORT", "SASL_SSL", vec![trust.clone(), login]));
    }
    for ((listener, protocol, settings), offset) in listeners.into_iter().zip(0..) {
        let brokers = kafka.cluster().unwrap().addresses(listener).join(",");
        let mut config = json!({ "bootstrap.servers": brokers, "security.protocol": protocol });
        let config_map = config.as_object_mut().unwrap();
        for setting in settings {
            let Value::Object(setting) = setting else { unreachable!() };
            config_map.extend(setting);
        }
        let offsets = kafka.java().produce_with(&topic, 0, "none", &message, config).await;
        assert_eq!(offsets, [offset], "{listener}");
    }
}

#[test]
#[cfg_attr(not(kwal_integration), ignore = "needs microsocks: TEST_INTEGRATION=1")]
fn microsocks_requires_a_login() {
    kwal_tests::run("microsocks_requires_a_login", async {
        for (login, method) in [(None, 0), (Some(("bob", "bob-secret")), 2)] {
            let proxy = Socks5::start(login);
            let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
            // Version 5, with no login or user and password (RFC 1928, section 3).
            stream.write_all(&[5, 2, 0, 2]).await.unwrap();
            let mut response = [0; 2];
            stream.read_exact(&mut response).await.unwrap();
            assert_eq!(response, [5, method]);
        }
    });
}

#[test]
fn unsecured_tokens() {
    let token = unsecured_token(USER, 60);
    assert!(token.starts_with("eyJhbGciOiJub25lIn0.") && token.ends_with('.'), "{token}");
    assert_eq!(token.split('.').count(), 3);
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
    assert!(
        std::net::TcpStream::connect(&kafka.bootstrap()[0]).is_err(),
        "the port should be closed after a stop"
    );
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
    let limit = std::time::Duration::from_millis(500);
    tokio::time::timeout(limit, &mut produced).await.expect_err("a paused broker should not respond");
    node.resume().unwrap();
    assert_eq!(produced.await.len(), samples.len());
}

async fn blocking(node: &Arc<Node>, action: fn(&Node) -> Result<(), String>) {
    let node = Arc::clone(node);
    tokio::task::spawn_blocking(move || action(&node)).await.unwrap().unwrap();
}
