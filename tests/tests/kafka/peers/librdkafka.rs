//! librdkafka, through the rdkafka crate.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kwal_tests::kafka::Kafka;
use kwal_tests::message::{Message, MessageHeader};
use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientContext, util::Timeout};

use super::Peer;

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Librdkafka;

impl Peer for Librdkafka {
    /// The codecs without external libraries.
    const COMPRESSIONS: &'static [&'static str] = &["none", "snappy", "lz4"];

    async fn produce(
        kafka: &Kafka,
        topic: &str,
        partition: i32,
        compression: &str,
        records: &[Message],
    ) -> Vec<i64> {
        let mut config = config(kafka);
        config.set("compression.type", compression).set("acks", "all");
        let (topic, records) = (topic.to_owned(), records.to_vec());
        tokio::task::spawn_blocking(move || produce(&config, &topic, partition, &records)).await.unwrap()
    }

    async fn consume(kafka: &Kafka, topic: &str, partition: i32, from: i64, count: usize) -> Vec<Message> {
        let mut config = config(kafka);
        config.set("group.id", "unused").set("enable.auto.commit", "false").set("check.crcs", "true");
        let topic = topic.to_owned();
        tokio::task::spawn_blocking(move || consume(&config, &topic, partition, from, count)).await.unwrap()
    }
}

/// Creates, lists, describes, grows, trims and deletes a topic, as the tools on librdkafka do.
pub(crate) async fn administrate(kafka: &Kafka) {
    let config = config(kafka);
    let admin: AdminClient<_> = config.create().unwrap();
    let options = AdminOptions::new().request_timeout(Some(LIMIT)).operation_timeout(Some(LIMIT));
    let name = kafka.topic_name("librdkafka");
    let new = NewTopic::new(&name, 2, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    assert_eq!(admin.create_topics([&new], &options).await.unwrap(), [Ok(name.clone())]);
    let offsets = Librdkafka::produce(kafka, &name, 1, "none", &Librdkafka::samples()).await;
    let end = offsets.len() as i64;

    let (listed, topic) = (config.clone(), name.clone());
    let partitions = tokio::task::spawn_blocking(move || list(&listed, &topic, end)).await.unwrap();
    assert_eq!(partitions, 2);

    let described = admin.describe_configs([&ResourceSpecifier::Topic(&name)], &options).await.unwrap();
    let retention = described[0].as_ref().unwrap().get("retention.ms").unwrap();
    assert_eq!(retention.value.as_deref(), Some("-1"));
    let described = admin.describe_configs([&ResourceSpecifier::Broker(1)], &options).await.unwrap();
    assert!(described[0].as_ref().unwrap().get("num.partitions").is_some());
    let more = [&NewPartitions::new(&name, 4)];
    assert_eq!(admin.create_partitions(more, &options).await.unwrap(), [Ok(name.clone())]);
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&name, 1, Offset::Offset(1)).unwrap();
    let deleted = admin.delete_records(&before, &options).await.unwrap();
    assert_eq!(deleted.elements()[0].offset(), Offset::Offset(1));
    assert_eq!(admin.delete_topics(&[&name], &options).await.unwrap(), [Ok(name.clone())]);
}

/// Lists the topics, and looks up the offsets of a partition; returns the number of partitions.
fn list(config: &ClientConfig, topic: &str, end: i64) -> usize {
    let consumer: BaseConsumer = config.create().unwrap();
    for asked in [None, Some(topic)] {
        let metadata = consumer.fetch_metadata(asked, LIMIT).unwrap();
        assert!(!metadata.brokers().is_empty(), "{asked:?}");
        let listed = metadata.topics().iter().find(|listed| listed.name() == topic).unwrap();
        assert!(listed.error().is_none(), "{asked:?}: {:?}", listed.error());
        if asked.is_some() {
            assert_eq!(metadata.topics().len(), 1);
        }
    }
    assert!(consumer.client().fetch_cluster_id(LIMIT).is_some_and(|id| !id.is_empty()));
    assert_eq!(consumer.fetch_watermarks(topic, 1, LIMIT).unwrap(), (0, end));
    let mut times = TopicPartitionList::new();
    times.add_partition_offset(topic, 1, Offset::Offset(0)).unwrap();
    let found = consumer.offsets_for_times(times, LIMIT).unwrap();
    assert_eq!(found.elements()[0].offset(), Offset::Offset(0));
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).unwrap();
    metadata.topics()[0].partitions().len()
}

fn config(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap().join(","));
    config
}

fn produce(config: &ClientConfig, topic: &str, partition: i32, records: &[Message]) -> Vec<i64> {
    let delivered = Delivered::default();
    let producer: BaseProducer<Delivered> = config.create_with_context(delivered.clone()).unwrap();
    for (index, record) in records.iter().enumerate() {
        let mut headers = OwnedHeaders::new();
        for header in &record.headers {
            headers = headers.insert(Header { key: &header.key, value: header.value.as_ref() });
        }
        let mut base: BaseRecord<'_, [u8], [u8], Box<usize>> =
            BaseRecord::with_opaque_to(topic, Box::new(index))
                .partition(partition)
                .timestamp(record.timestamp);
        base.key = record.key.as_deref();
        base.payload = record.value.as_deref();
        base.headers = (!record.headers.is_empty()).then_some(headers);
        producer.send(base).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Timeout::After(LIMIT)).unwrap();
    let mut delivered = std::mem::take(&mut *delivered.0.lock().unwrap());
    delivered.sort_unstable();
    delivered.into_iter().map(|(_, offset)| offset).collect()
}

fn consume(config: &ClientConfig, topic: &str, partition: i32, from: i64, count: usize) -> Vec<Message> {
    let consumer: BaseConsumer = config.create().unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Offset(from)).unwrap();
    consumer.assign(&assignment).unwrap();
    let read = || convert(&consumer.poll(Timeout::After(LIMIT)).expect("a record within a minute").unwrap());
    std::iter::repeat_with(read).take(count).collect()
}

fn convert(message: &BorrowedMessage<'_>) -> Message {
    let header = |header: Header<'_, &[u8]>| MessageHeader {
        key: header.key.to_owned(),
        value: header.value.map(<[u8]>::to_vec),
    };
    Message {
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: message.headers().into_iter().flat_map(|headers| headers.iter().map(header)).collect(),
    }
}

/// Index and offset of each acknowledged record.
#[derive(Clone, Default)]
struct Delivered(Arc<Mutex<Vec<(usize, i64)>>>);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        // A failed record is missing in the result, which fails the caller's comparison.
        if let Ok(message) = result {
            self.0.lock().unwrap().push((*index, message.offset()));
        }
    }
}
