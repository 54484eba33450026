//! C8 for bare offsets: a recreated topic is another topic.

use kwal_client::{
    OffsetAt,
    error::{ErrorKind, Outcome},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::Fault;

use crate::support::{Wire, broker, log, open_over, record, timed};

#[tokio::test(start_paused = true)]
async fn a_recreated_topic_is_an_error_for_reads_and_appends() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("before")).await.unwrap();
    let before = broker.delete_topic("wal").unwrap();
    let now = broker.create_topic("wal", 2).unwrap();

    let (error, took) = timed(partition.fetch(0)).await;
    let error = error.unwrap_err();
    let ErrorKind::TopicRecreated { was, is, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!((error.context().topic.as_deref(), *was, *is), (Some("wal"), before, now));
    assert!(!error.is_retriable());
    assert!(took.as_millis() < 100, "{took:?}");
    let error = partition.produce(record("after")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TopicRecreated { .. }), "{error:?}");
    let error = partition.get_offset(OffsetAt::Latest).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TopicRecreated { .. }), "{error:?}");
    assert_eq!(log(&broker), [""; 0], "nothing is appended to the new topic");

    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("after")).await.unwrap();
    assert_eq!(log(&broker), ["after"]);
}

#[tokio::test(start_paused = true)]
async fn an_append_notices_a_recreated_topic_too() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    broker.delete_topic("wal");
    broker.create_topic("wal", 2).unwrap();
    let error = partition.produce(record("a")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TopicRecreated { .. }), "{error:?}");
    assert_eq!(log(&broker), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn error_codes_alone_do_not_prove_a_recreation() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    for code in [ErrorCode::UNKNOWN_TOPIC_ID, ErrorCode::INCONSISTENT_TOPIC_ID] {
        broker.on(ApiKey::FETCH, Fault::Error(code));
        partition.fetch(0).await.unwrap();
        broker.on(ApiKey::PRODUCE, Fault::Error(code));
        assert_eq!(partition.produce(record("a")).await.unwrap().attempts, 2, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_topic_ids_a_recreation_is_a_data_loss() {
    let broker = kwal_testkit::EmbeddedCluster::builder()
        .topic("wal", 1)
        .cap(ApiKey::METADATA, kwal_protocol::api::Versions::new(0, 9))
        .start_in_memory()
        .unwrap();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    partition.produce(record("a")).await.unwrap();
    broker.delete_topic("wal");
    broker.create_topic("wal", 1).unwrap();
    let error = partition.produce(record("b")).await.unwrap_err();
    let ErrorKind::DataLoss { offsets, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!((offsets, error.outcome()), (&Some(0..1), Outcome::Unknown));
    assert_eq!(log(&broker), ["b"]);
}
