//! Limits that real brokers have: of connections by address, and of the size of a request.

use std::time::Duration;

use futures::future::join_all;
use kwal_client::error::{ErrorKind, Outcome};
use kwal_client::record::Record;
use kwal_client::{Client, OffsetAt, PartitionClient};
use kwal_tests::kafka::{ClusterConfig, Kafka, Version};
use tokio::time::Instant;

kwal_tests::suite! {
    own: [
        connections_are_shared_where_the_broker_limits_them,
        a_request_larger_than_the_broker_accepts_is_named,
    ],
}

/// Starts a broker with a setting, and creates the topic `wal`.
async fn start(version: Version, property: &str, value: usize, partitions: i32) -> (Kafka, Client) {
    let properties = vec![(property.to_owned(), value.to_string())];
    let kafka = Kafka::start(version, &ClusterConfig { properties, ..ClusterConfig::default() });
    let client = Client::connect(kafka.bootstrap()).await.unwrap();
    let controller = client.controller_client().await.unwrap();
    controller.create_topic("wal", partitions, 1).await.unwrap();
    (kafka, client)
}

/// The broker closes each further connection as soon as it has accepted it.
async fn connections_are_shared_where_the_broker_limits_them(version: Version) {
    const PARTITIONS: i32 = 40;
    let (_kafka, client) = start(version, "max.connections.per.ip", 12, PARTITIONS).await;
    let opening = (0..PARTITIONS).map(|i| client.partition_client("wal", i).into_future());
    let partitions = join_all(opening).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    let work = async |partition: &PartitionClient| {
        for round in 0..20 {
            let produced = partition.produce(vec![Record::new("key", "value")]).await.unwrap();
            assert_eq!(produced.base_offset, Some(round));
            assert_eq!(partition.fetch(round).await.unwrap().next_offset, round + 1);
            assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), round + 1);
        }
    };
    let begun = Instant::now();
    join_all(partitions.iter().map(work)).await;
    kwal_tests::report(format_args!(
        "Kafka {version}: 40 partitions over 12 connections took {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
}

/// The broker closes the connection without a word.
async fn a_request_larger_than_the_broker_accepts_is_named(version: Version) {
    let (_kafka, client) = start(version, "socket.request.max.bytes", 300_000, 1).await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    let append = async |bytes: usize| partition.produce(vec![Record::new("key", vec![b'x'; bytes])]).await;
    append(200_000).await.unwrap();
    let begun = Instant::now();
    let error = append(400_000).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let ErrorKind::RequestTooLarge { size, .. } = *error.kind() else { panic!("{error:?}") };
    assert!((400_000..401_000).contains(&size), "{size}");
    assert_eq!((error.outcome(), error.is_retriable()), (Outcome::Unknown, false));
    let text = format!("{error:?}");
    assert!(text.contains("socket.request.max.bytes") && !text.contains("SASL"), "{text}");
    // The partition client is usable, and the batch is not on the log.
    assert_eq!(append(200_000).await.unwrap().base_offset, Some(1));
}
