//! C4: a denied call names the right that it takes.

use kwal_client::{
    OffsetAt,
    error::{Error, Outcome},
    record::Record,
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::Fault;

use crate::support::{broker, builder, in_doubt, record};

#[tokio::test(start_paused = true)]
async fn a_denied_call_names_the_right_that_it_takes() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("a")).await.unwrap();
    let controller = client.controller_client().await.unwrap();
    let deny = |api, code| broker.on(api, Fault::Error(code));
    let check = |error: Error, right: &str| {
        let text = error.to_string();
        assert!(text.contains(right), "{right} in {text}");
        assert!(!error.is_retriable() && error.outcome() == Outcome::NotApplied, "{error:?}");
    };
    let topic = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    deny(ApiKey::PRODUCE, topic);
    check(partition.produce(record("b")).await.unwrap_err(), "the right `Write` on the topic");
    deny(ApiKey::PRODUCE, topic);
    let fence = Record::new(None::<&str>, "fence");
    let error = partition.resolve(&in_doubt(), fence).await.unwrap_err();
    assert!(error.to_string().contains("the right `Write` on the topic"), "{error}");
    deny(ApiKey::FETCH, topic);
    check(partition.fetch(0).await.unwrap_err(), "the right `Read` on the topic");
    deny(ApiKey::LIST_OFFSETS, topic);
    check(partition.get_offset(OffsetAt::Latest).await.unwrap_err(), "the right `Describe` on the topic");
    deny(ApiKey::OFFSET_FOR_LEADER_EPOCH, topic);
    check(partition.offset_for_leader_epoch(0).await.unwrap_err(), "the right `Describe` on the topic");
    deny(ApiKey::DELETE_RECORDS, topic);
    let right = "the right `Delete` on the topic, which `Write` does not include";
    check(partition.delete_records(1).await.unwrap_err(), right);
    deny(ApiKey::CREATE_TOPICS, topic);
    check(controller.create_topic("new", 1, 1).await.unwrap_err(), "`Create` on the topic or on the cluster");
    deny(ApiKey::CREATE_PARTITIONS, topic);
    check(controller.create_partitions("wal", 3).await.unwrap_err(), "the right `Alter` on the topic");
    deny(ApiKey::DELETE_TOPICS, topic);
    check(controller.delete_topic("wal").await.unwrap_err(), "the right `Delete` on the topic");
    deny(ApiKey::DESCRIBE_CONFIGS, topic);
    let right = "the right `DescribeConfigs` on the topic";
    check(controller.describe_topic_configs("wal").await.unwrap_err(), right);
    deny(ApiKey::INCREMENTAL_ALTER_CONFIGS, topic);
    let alter = controller.alter_topic_configs("wal").set("retention.ms", "-1");
    check(alter.await.unwrap_err(), "the right `AlterConfigs` on the topic");
}
