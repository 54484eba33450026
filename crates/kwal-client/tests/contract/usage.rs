//! The calls as a program makes them, in the shapes that have been public from the beginning.

use kwal_client::{self as client, record::Record};
use kwal_testkit::EmbeddedCluster;

/// Over TCP and by the real clock, with nothing configured.
#[tokio::test]
async fn the_shapes_of_the_first_version_compile_and_work() {
    let cluster = EmbeddedCluster::builder().start().await.unwrap();
    let connection: String = cluster.bootstrap().remove(0);

    let client = client::ClientBuilder::new(vec![connection]).build().await.unwrap();
    let topic = "my_topic";
    let controller_client = client.controller_client().await.unwrap();
    controller_client.create_topic(topic, 2, 1).await.unwrap();

    let partition_client = client.partition_client(topic.to_owned(), 0).await.unwrap();
    let record = Record::new("key", "hello kafka").header("foo", "bar");
    let produced = partition_client.produce(vec![record.clone()]).await.unwrap();
    assert_eq!(produced.offsets(), Some(0..1));

    let (records, high_watermark) = partition_client.fetch_records(0, 1..1_000_000, 1_000).await.unwrap();
    assert_eq!((records.len(), high_watermark), (1, 1));
    let read = &records[0];
    assert_eq!((&read.key, &read.value, &read.headers), (&record.key, &record.value, &record.headers));
    assert_eq!((read.offset, read.timestamp_ms), (0, record.timestamp_ms()));
}

#[tokio::test]
async fn bootstrap_addresses_may_be_strings_of_any_kind() {
    let cluster = EmbeddedCluster::builder().topic("wal", 1).start().await.unwrap();
    let addresses = cluster.bootstrap();
    let [address] = &addresses[..] else { panic!("{addresses:?}") };
    let clients = [
        client::Client::connect([address]).await,
        client::Client::connect([address.as_str()]).await,
        client::Client::connect(addresses.clone()).await,
        client::Client::connect(addresses.iter().map(String::as_str)).await,
    ];
    for client in clients {
        assert_eq!(client.unwrap().list_topics().await.unwrap().len(), 1);
    }
}
