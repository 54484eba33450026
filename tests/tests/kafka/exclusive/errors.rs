//! Clusters on which nobody can hold a log, and the rights that it takes.

use std::time::Duration;

use kwal_client::error::{Error, ErrorKind, Outcome};
use kwal_client::record::Record;
use kwal_client::sasl::Sasl;
use kwal_client::{Client, ClientBuilder, PartitionClient};
use kwal_protocol::error_code::ErrorCode;
use kwal_tests::kafka::{ClusterConfig, Kafka, Listener, PASSWORD, USER, Version};
use serde_json::json;
use tokio::time::Instant;

use super::{NAME, connect, transactional_id};
use crate::fidelity::world::until;

kwal_tests::suite! {
    own: [each_right_is_needed, no_transaction_log],
}

/// A topic, and what the user may do.
struct Case {
    topic: &'static str,
    on_topic: &'static [&'static str],
    /// The right to the transactional id, and whether it is LITERAL or for all PREFIXED by the name.
    on_name: Option<(&'static str, &'static str)>,
    /// The right that is missing, and where, as the error names them, and its code.
    missing: Option<(&'static str, &'static str, ErrorCode)>,
}

const LITERAL: &str = "LITERAL";
const PREFIXED: &str = "PREFIXED";
const WRITE_NAME: (&str, &str, ErrorCode) =
    ("Write", "on the transactional id", ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
const READ_TOPIC: (&str, &str, ErrorCode) = ("Read", "on the topic", ErrorCode::TOPIC_AUTHORIZATION_FAILED);
const WRITE_TOPIC: (&str, &str, ErrorCode) = ("Write", "on the topic", ErrorCode::TOPIC_AUTHORIZATION_FAILED);

const CASES: [Case; 6] = [
    Case { topic: "all", on_topic: &["Read", "Write"], on_name: Some(("Write", LITERAL)), missing: None },
    Case {
        topic: "by-prefix",
        on_topic: &["Read", "Write"],
        on_name: Some(("Write", PREFIXED)),
        missing: None,
    },
    Case { topic: "not-the-name", on_topic: &["Read", "Write"], on_name: None, missing: Some(WRITE_NAME) },
    Case {
        topic: "describe-the-name",
        on_topic: &["Read", "Write"],
        on_name: Some(("Describe", LITERAL)),
        missing: Some(WRITE_NAME),
    },
    Case {
        topic: "no-read",
        on_topic: &["Write"],
        on_name: Some(("Write", LITERAL)),
        missing: Some(READ_TOPIC),
    },
    Case {
        topic: "no-write",
        on_topic: &["Read"],
        on_name: Some(("Write", LITERAL)),
        missing: Some(WRITE_TOPIC),
    },
];

async fn each_right_is_needed(version: Version) {
    let properties = [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        // The brokers themselves and Java, on listeners without authentication.
        ("super.users", "User:ANONYMOUS"),
    ];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let listeners = vec![
        Listener::new("PLAINTEXT", "PLAINTEXT"),
        Listener::new("SASL_PLAINTEXT", "SASL_PLAINTEXT").sasl(&["PLAIN"]),
    ];
    let config = ClusterConfig { listeners, properties, ..ClusterConfig::default() };
    let kafka = Kafka::start(version, &config);
    let client = ClientBuilder::new(kafka.cluster().unwrap().addresses("SASL_PLAINTEXT"))
        .sasl(Sasl::plain(USER, PASSWORD).danger_send_unencrypted())
        .build()
        .await
        .unwrap();

    let mut rights = Vec::new();
    for Case { topic, on_topic, on_name, .. } in CASES {
        kafka.java().create_topic(topic, 1, &[]).await;
        rights.extend(on_topic.iter().map(|right| json!([right, "Topic", topic, LITERAL])));
        let id = match on_name {
            Some((_, PREFIXED)) => format!("{NAME}/{topic}/"),
            _ => transactional_id(topic),
        };
        rights.extend(on_name.map(|(right, pattern)| json!([right, "TransactionalId", id, pattern])));
    }
    kafka.java().create_topic("last", 1, &[]).await;
    rights.push(json!(["Read", "Topic", "last", LITERAL]));
    kafka.java().call("grant", json!({ "user": USER, "rights": rights })).await.unwrap();
    // Brokers apply all of them at once, a moment later.
    until("they are applied", async || client.partition_client("last", 0).await.ok()).await;

    for Case { topic, missing, .. } in CASES {
        let begun = Instant::now();
        match (open(&client, topic).await, missing) {
            (Ok(partition), None) => {
                partition.produce([Record::new(None::<&str>, "value")]).await.unwrap();
                // They are enough for a probe as well.
                let probes =
                    client.partition_client(topic, 0).exclusive(NAME).probe(Duration::from_millis(100));
                let probes = probes.await.unwrap();
                open(&client, topic).await.unwrap();
                let error = probes.fenced().await;
                assert!(matches!(error.kind(), ErrorKind::Fenced), "{topic}: {error:?}");
            }
            (Err(error), Some((right, on, code))) => {
                kwal_tests::report(format_args!("{version}, {topic}: {error}"));
                let text = error.to_string();
                assert_eq!(error.code(), Some(code), "{topic}: {error:?}");
                assert!(text.contains(&format!("`{right}`")) && text.contains(on), "{topic}: {text}");
                assert!(!error.is_retriable(), "{topic}: {error:?}");
                assert_eq!(error.outcome(), Outcome::NotApplied, "{topic}: {error:?}");
                assert!(begun.elapsed() < Duration::from_secs(30), "{topic}: {:?}", begun.elapsed());
            }
            (result, missing) => panic!("{topic}: {result:?} without {missing:?}"),
        }
    }
}

/// One broker cannot have three replicas of the transaction log.
async fn no_transaction_log(version: Version) {
    let properties = vec![("transaction.state.log.replication.factor".to_owned(), "3".to_owned())];
    let kafka = Kafka::start(version, &ClusterConfig { properties, ..ClusterConfig::default() });
    let topic = kafka.topic("alone", 1, &[]).await;
    let client = connect(&kafka).await;
    let begun = Instant::now();
    let error = open(&client, &topic).await.unwrap_err();
    let took = begun.elapsed();
    kwal_tests::report(format_args!("{version}: without a transaction log, after {took:.1?}: {error}"));
    assert!(matches!(error.kind(), ErrorKind::NoTransactionLog { brokers: 1, .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error:?}");
    // A few seconds, on a busy machine: less than half of the deadline.
    assert!(took < Duration::from_secs(30), "{took:?}");
    // Others go on.
    let partition = client.partition_client(&topic, 0).await.unwrap();
    partition.produce([Record::new(None::<&str>, "value")]).await.unwrap();
}

async fn open(client: &Client, topic: &str) -> Result<PartitionClient, Error> {
    client.partition_client(topic, 0).exclusive(NAME).await
}
