//! Strings that a peer chooses are escaped and cut wherever they are displayed.

use std::time::Duration;

use kwal_client::error::{Error, ErrorKind};
use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        CreateTopicsRequest, MetadataRequest, ProduceRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
    },
};

use super::support::{Wire, broker, chain, open_over, record};

/// A line end, a forged line, an escape sequence of terminals, and the other direction of writing.
const HOSTILE: &str = "no\r\n2026-01-01 ERROR kwal: all is lost\u{1b}[31m\u{202e}\u{85}\u{2028}";

/// Asserts that every text of an error is one line, is not long, and shows what it escaped.
#[track_caller]
fn assert_harmless(error: &Error, shown: &str) {
    for text in [error.to_string(), format!("{error:#}"), format!("{error:?}"), chain(error)] {
        assert!(text.contains(shown), "{text}");
        let is_harmful = |c: char| c.is_control() || matches!(c, '\u{202e}' | '\u{2028}');
        assert!(!text.contains(is_harmful), "{text:?}");
        assert!(text.len() < 2_000, "{} bytes", text.len());
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_brokers() {
    for (message, shown) in [
        (
            HOSTILE.to_owned(),
            "no\\r\\n2026-01-01 ERROR kwal: all is lost\\u{1b}[31m\\u{202e}\\u{85}\\u{2028}",
        ),
        ("x".repeat(30_000), "xxx… (30000 bytes)"),
        ("\n".repeat(30_000), "\\n\\n… (30000 bytes)"),
    ] {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = open_over(&wire).await;
        let sent = message.clone();
        wire.edit::<ProduceRequest>(move |response| {
            let partition = &mut response.responses[0].partition_responses[0];
            partition.error_code = ErrorCode::INVALID_RECORD;
            partition.error_message = Some(sent.clone());
        });
        let error = partition.produce(record("a")).await.unwrap_err();
        assert_harmless(&error, shown);
        // As it was sent, for programs.
        assert!(
            matches!(error.kind(), ErrorKind::Broker { message: Some(found), .. } if *found == message),
            "{error:#?}"
        );
        let sent = message.clone();
        wire.edit::<CreateTopicsRequest>(move |response| {
            response.topics[0].error_code = ErrorCode::POLICY_VIOLATION;
            response.topics[0].error_message = Some(sent.clone());
        });
        let controller = wire.client().await.controller_client().await.unwrap();
        assert_harmless(&controller.create_topic("other", 1, 1).await.unwrap_err(), shown);
    }
}

#[tokio::test(start_paused = true)]
async fn advertised_hosts_and_cluster_ids() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    wire.edit::<MetadataRequest>(|response| {
        for broker in &mut response.brokers {
            broker.host = format!("kafka{HOSTILE}{}", "x".repeat(30_000));
        }
    });
    let opened = client.partition_client("wal", 0).deadline(Duration::from_secs(2)).await;
    let error = match opened {
        Ok(partition) => partition.produce(record("a")).deadline(Duration::from_secs(2)).await.unwrap_err(),
        Err(error) => error,
    };
    assert_harmless(&error, "kafkano\\r\\n2026-01-01 ERROR");

    let client = {
        wire.clear_edits();
        wire.client().await
    };
    wire.edit::<MetadataRequest>(|response| response.cluster_id = Some(HOSTILE.repeat(100)));
    let error = client.partition_client("wal", 0).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::OtherCluster { .. }), "{error:?}");
    assert_harmless(&error, "cluster no\\r\\n2026-01-01 ERROR");
}

#[tokio::test(start_paused = true)]
async fn words_of_sasl() {
    let accept = kwal_testkit::Sasl::new().user("alice", "right");
    let broker = kwal_testkit::EmbeddedCluster::builder().sasl(accept).start_in_memory().unwrap();
    let wire = Wire::to(&broker);
    let sasl = || kwal_client::sasl::Sasl::plain("alice", "wrong").danger_send_unencrypted();
    wire.edit::<SaslAuthenticateRequest>(|response| response.error_message = Some(HOSTILE.repeat(100)));
    let error = wire.builder().sasl(sasl()).build().await.unwrap_err();
    assert_harmless(&error, "authentication: no\\r\\n2026-01-01 ERROR");
    wire.edit::<SaslHandshakeRequest>(|response| {
        response.error_code = ErrorCode::UNSUPPORTED_SASL_MECHANISM;
        response.mechanisms = vec![HOSTILE.to_owned(); 1_000];
    });
    let error = wire.builder().sasl(sasl()).build().await.unwrap_err();
    assert_harmless(&error, "it offers no\\r\\n2026-01-01 ERROR");
}
