//! What a program sees of the client in its state: snapshots for troubleshooting.

use std::time::Duration;

use kwal_client::{ConnectionState, PartitionClient, Purpose, error::ErrorKind};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::Fault;
use tokio::time::sleep;

use crate::support::{broker, builder, hold, large, open, record, settle, submit};

const SECOND: Duration = Duration::from_secs(1);

/// The lines that describe a partition client.
fn lines(partition: &PartitionClient) -> Vec<String> {
    partition.state().to_string().lines().map(|line| line.trim().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_partition_client_says_where_it_stands() {
    let broker = broker();
    let partition = open(&broker).await;
    let state = partition.state();
    let leader = state.leader.clone().unwrap();
    assert_eq!((state.topic.as_str(), state.partition, state.topic_id), ("wal", 0, partition.topic_id()));
    assert_eq!((leader.id, leader.epoch), (1, Some(0)));
    assert_eq!(leader.address, Some(broker.address(1).unwrap()));
    assert_eq!((state.producer_id, state.producer_epoch, state.exclusive), (None, None, None));
    assert!(state.last_acknowledged.is_none() && state.last_error.is_none() && state.ended.is_none());
    let address = broker.address(1).unwrap();
    assert_eq!(
        lines(&partition),
        [
            format!("partition 0 of wal: leader is broker 1 ({address}), leader epoch 0"),
            "no producer id".to_owned(),
            "appends: 0 in flight (0 B), 0 waiting, 0 in doubt; none acknowledged yet".to_owned(),
        ]
    );

    partition.produce(record("a")).await.unwrap();
    partition.produce([record("b"), record("c")].concat()).await.unwrap();
    let state = partition.state();
    let last = state.last_acknowledged.unwrap();
    assert_eq!((last.offsets, last.sequence, last.leader_epoch), (Some(1..3), Some(1), Some(0)));
    assert_eq!(state.producer_epoch, Some(0));
    let id = state.producer_id.unwrap();
    assert_eq!(
        lines(&partition)[1..],
        [
            format!("producer id {id}, epoch 0"),
            "appends: 0 in flight (0 B), 0 waiting, 0 in doubt; last acknowledged: offsets 1..3, sequence number 1, \
             leader epoch 0"
                .to_owned(),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn it_shows_what_is_in_flight_what_waits_and_what_is_in_doubt() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("first")).await.unwrap();
    broker.pause(1).unwrap();
    let appends = submit(&partition, &["0", "1", "2", "3", "4", "5", "6"]).await;
    settle().await;
    let state = partition.state();
    assert_eq!((state.in_flight, state.waiting, state.in_doubt), (5, 2, 0));
    assert!(state.in_flight_bytes > 5 * 61, "{state:?}");
    let memory = client.state().memory;
    assert_eq!((memory.limit, memory.appends, memory.reads, memory.waiting), (256 << 20, 7 << 10, 0, 0));
    let produce = |connection: &&ConnectionState| connection.purpose == Purpose::Produce;
    let brokers = client.state().brokers;
    let produce = brokers[0].connections.iter().find(produce).unwrap();
    assert_eq!((produce.in_flight, produce.partitions, produce.throttled_for), (5, 1, None));

    // The time of a request is over: the broker may have appended them.
    sleep(11 * SECOND).await;
    let state = partition.state();
    assert_eq!((state.in_flight, state.waiting, state.in_doubt), (0, 7, 5));
    let error = state.last_error.unwrap();
    assert!(lines(&partition).last().unwrap().starts_with("last error: "), "{error}");
    broker.resume(1).unwrap();
    for append in appends {
        append.await.unwrap();
    }
    let state = partition.state();
    assert_eq!((state.in_flight, state.waiting, state.in_doubt), (0, 0, 0));
    assert!(state.last_error.is_none());
    assert_eq!(client.state().memory.appends, 0);
}

#[tokio::test(start_paused = true)]
async fn it_shows_how_long_the_broker_throttles() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::Throttle(25 * SECOND));
    partition.produce(record("a")).await.unwrap();
    sleep(5 * SECOND).await;
    assert_eq!(partition.state().throttled_for, Some(20 * SECOND));
    assert_eq!(lines(&partition).last().unwrap(), "throttled for another 20.0s");
    let state = client.state().to_string();
    assert!(state.contains("produce 0 in flight, throttled for another 20.0s"), "{state}");
    sleep(20 * SECOND).await;
    assert_eq!(partition.state().throttled_for, None);
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_writer_says_so_until_its_end() {
    let broker = broker();
    let first = hold(&broker).await;
    assert_eq!(first.state().exclusive.as_deref(), Some("writer"));
    assert!(lines(&first)[1].ends_with("exclusive as writer"), "{:?}", lines(&first));
    let _second = hold(&broker).await;
    assert!(first.state().ended.is_none(), "nothing is requested for it");
    first.produce(record("too late")).await.unwrap_err();
    let ended = first.state().ended.unwrap();
    assert!(matches!(ended.kind(), ErrorKind::Fenced), "{ended}");
    assert_eq!(ended.to_string(), first.fenced().await.to_string());
    assert!(lines(&first).last().unwrap().starts_with("ended: "), "{:?}", lines(&first));
}

#[tokio::test(start_paused = true)]
async fn a_client_shows_brokers_connections_and_memory() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let address = broker.address(1).unwrap();
    let lines = || client.state().to_string().lines().map(str::to_owned).collect::<Vec<_>>();
    let cluster = client.cluster_id().unwrap();
    assert_eq!(lines()[0], format!("cluster {cluster}, controller is broker 1"));
    assert!(lines()[2].starts_with("    memory: 0 B of 256.0 MiB: appends 0 B, reads 0 B"), "{:?}", lines());

    partition.produce(large(100_000)).await.unwrap();
    partition.fetch(0).await.unwrap();
    let state = client.state();
    assert_eq!(state.brokers.len(), 1);
    assert_eq!((state.brokers[0].id, &state.brokers[0].address), (Some(1), &address));
    let purposes = state.brokers[0].connections.iter().map(|connection| connection.purpose);
    assert!(purposes.eq([Purpose::General, Purpose::Produce, Purpose::Fetch]), "{state}");
    let connections = "general 0 in flight; produce 0 in flight; fetch 0 in flight";
    assert_eq!(lines()[1], format!("    broker 1 ({address}): {connections}"));

    // A long poll is in flight, and holds memory for what may come.
    let fetch = tokio::spawn({
        let partition = partition.clone();
        async move { partition.fetch(1).max_wait(10 * SECOND).await }
    });
    settle().await;
    let state = client.state();
    assert_eq!((state.brokers[0].connections[2].in_flight, state.memory.reads), (1, 1 << 20));
    fetch.await.unwrap().unwrap();
    assert_eq!((client.state().brokers[0].connections[2].in_flight, client.state().memory.reads), (0, 0));

    broker.kill(1).unwrap();
    settle().await;
    partition.get_offset(kwal_client::OffsetAt::Latest).deadline(SECOND).await.unwrap_err();
    let state = client.state();
    assert!(state.brokers[0].connections.is_empty(), "{state}");
    assert!(state.brokers[0].last_error.is_some(), "{state}");
    assert!(lines()[1].starts_with(&format!(
        "    broker 1 ({address}): not connected; the last attempt to connect failed: "
    )));

    drop(partition);
    assert!(client.close().deadline(SECOND).await.is_empty());
    assert!(client.state().brokers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_created_again_has_no_leader_here() {
    let broker = broker();
    let partition = open(&broker).await;
    broker.recreate_topic("wal").unwrap();
    let error = partition.fetch(0).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TopicRecreated { .. }), "{error}");
    assert!(partition.state().leader.is_none(), "{}", partition.state());
    assert!(lines(&partition)[0].ends_with("leader unknown"));
}

#[tokio::test(start_paused = true)]
async fn the_last_error_is_that_of_the_attempt() {
    let broker = broker();
    let partition = open(&broker).await;
    partition.produce(record("a")).await.unwrap();
    broker.on_all(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let append = submit(&partition, &["b"]).await.remove(0);
    settle().await;
    assert_eq!(partition.state().last_error.unwrap().code(), Some(ErrorCode::NOT_ENOUGH_REPLICAS));
    broker.clear_faults();
    append.await.unwrap();
    assert!(partition.state().last_error.is_none());
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn states_are_serialized_as_plain_data() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::Throttle(SECOND / 2));
    partition.produce(record("a")).await.unwrap();
    let state: serde_json::Value = serde_json::to_value(partition.state()).unwrap();
    let id = partition.topic_id().unwrap().to_string();
    assert_eq!(state["leader"]["address"], broker.address(1).unwrap().to_string());
    assert_eq!(state["topic_id"], id);
    assert_eq!(state["last_acknowledged"]["offsets"], serde_json::json!({ "start": 0, "end": 1 }));
    assert_eq!(state["throttled_for"], 0.5);
    assert_eq!(state["last_error"], serde_json::Value::Null);
    let state: serde_json::Value = serde_json::to_value(client.state()).unwrap();
    assert_eq!(state["brokers"][0]["connections"][1]["purpose"], "produce");
    assert_eq!(state["memory"]["limit"], 256 << 20);
}
