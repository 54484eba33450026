//! The partitions of keys: a router and Kafka's Java client choose the same.

use kwal_batching::producer::Router;
use kwal_batching::reader;
use kwal_client::OffsetAt;
use kwal_client::record::Record;
use kwal_tests::kafka::Kafka;
use kwal_tests::message::Message;

use super::connect;

kwal_tests::suite! {
    shared: [java_chooses_the_same_partitions],
}

async fn java_chooses_the_same_partitions(kafka: &'static Kafka) {
    const PARTITIONS: i32 = 5;
    let topic = kafka.topic("keys", PARTITIONS, &[]).await;
    // All lengths up to 40, bytes above 0x7f included.
    let key = |seed: usize| (0..seed % 41).map(|at| (seed * 31 + at * 157 + at * at) as u8).collect();
    let keys: Vec<Vec<u8>> = (0..200).map(key).collect();
    let message = |key: &Vec<u8>| Message::new(1_750_000_000_000, Some(key), Some(b"by Java"));
    kafka.java().produce_by_key(&topic, &keys.iter().map(message).collect::<Vec<_>>()).await;

    let client = connect(kafka).await;
    let router = Router::open(&client, &topic).await.unwrap();
    let by_java = read(&router).await;
    assert_eq!(by_java.iter().map(Vec::len).sum::<usize>(), keys.len());
    assert!(by_java.iter().all(|keys| keys.len() > 20), "each partition has some of them");
    for (partition, keys) in (0..).zip(&by_java) {
        for key in keys {
            assert_eq!(router.for_key(key).partition().partition(), partition, "{key:02x?}");
        }
    }

    for key in &keys {
        router.for_key(key).produce(Record::new(key.clone(), "by kwal")).await.unwrap();
    }
    assert!(router.close().await.is_empty());
    for (java, both) in by_java.iter().zip(read(&router).await) {
        assert!(both.iter().eq(java.iter().chain(java)));
    }
}

/// Reads the keys of each partition. A single fetch would end where the timestamps begin another segment.
async fn read(router: &Router) -> Vec<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    for producer in router.producers() {
        let mut of_partition = Vec::new();
        let mut replay = reader::replay(producer.partition(), OffsetAt::Earliest).await.unwrap();
        let read = replay
            .for_each_batch(|batch| batch.for_each(|record| of_partition.push(record.key.unwrap().to_vec())));
        read.await.unwrap();
        keys.push(of_partition);
    }
    keys
}
