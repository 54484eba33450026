//! kwal.

use bytes::Bytes;
use kwal_client::record::Record;
use kwal_client::{Client, ClientBuilder, PartitionClient};
use kwal_protocol::record::{Compression, Header, Headers, OwnedRecord};
use kwal_tests::kafka::Kafka;
use kwal_tests::message::{Message, MessageHeader};
use time::OffsetDateTime;

use super::Peer;

pub(crate) struct Kwal;

impl Peer for Kwal {
    async fn produce(
        kafka: &Kafka,
        topic: &str,
        partition: i32,
        compression: &str,
        records: &[Message],
    ) -> Vec<i64> {
        let compression: Compression = compression.parse().unwrap();
        let client = client(kafka).await;
        let partition = client.partition_client(topic, partition).compression(compression).await.unwrap();
        let produced = partition.produce(records.iter().map(to_record).collect::<Vec<_>>()).await.unwrap();
        produced.offsets().unwrap().collect()
    }

    async fn consume(kafka: &Kafka, topic: &str, partition: i32, from: i64, count: usize) -> Vec<Message> {
        let partition = client(kafka).await.partition_client(topic, partition).await.unwrap();
        let mut read = read_all(&partition, from, from + i64::try_from(count).unwrap()).await;
        read.truncate(count);
        read
    }
}

/// Builds a client with default settings.
pub(crate) async fn client(kafka: &Kafka) -> Client {
    ClientBuilder::new(kafka.bootstrap()).build().await.unwrap()
}

/// Reads with `fetch_records` from offset `from` until `to` is reached.
pub(crate) async fn read_all(partition: &PartitionClient, from: i64, to: i64) -> Vec<Message> {
    let mut read: Vec<Message> = Vec::new();
    let mut next = from;
    while next < to {
        let (records, _) = partition.fetch_records(next, 1..1_000_000, 1_000).await.unwrap();
        read.extend(records.iter().map(from_record));
        next = read.last().map_or(next, |last| last.offset + 1);
    }
    read
}

pub(crate) fn to_record(message: &Message) -> Record {
    let nanos = i128::from(message.timestamp) * 1_000_000;
    let header = |header: &MessageHeader| Header::new(header.key.clone(), header.value.clone());
    Record {
        key: message.key.clone().map(Bytes::from),
        value: message.value.clone().map(Bytes::from),
        headers: message.headers.iter().map(header).collect::<Headers>(),
        timestamp: OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap(),
    }
}

pub(crate) fn from_record(record: &OwnedRecord) -> Message {
    let header = |header: &Header| MessageHeader {
        key: header.key().into_owned(),
        value: header.value.as_ref().map(|value| value.to_vec()),
    };
    Message {
        offset: record.offset,
        timestamp: record.timestamp_ms,
        key: record.key.as_ref().map(|key| key.to_vec()),
        value: record.value.as_ref().map(|value| value.to_vec()),
        headers: record.headers.iter().map(header).collect(),
    }
}
