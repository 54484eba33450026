//! rskafka, as published.

use std::collections::BTreeMap;

use kwal_tests::kafka::Kafka;
use kwal_tests::message::{Message, MessageHeader, samples};
use rskafka::chrono::{TimeZone, Utc};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::record::{Record, RecordAndOffset};

use super::Peer;

pub(crate) struct Rskafka;

impl Peer for Rskafka {
    /// Its headers are a map: sorted by key, unique, not null.
    fn samples() -> Vec<Message> {
        let representable = |message: &Message| {
            message.headers.windows(2).all(|pair| pair[0].key < pair[1].key)
                && message.headers.iter().all(|header| header.value.is_some())
        };
        let mut kept: Vec<Message> = samples().into_iter().filter(representable).collect();
        kept.push(
            Message::new(1_750_000_000_100, Some(b"headers"), None)
                .header("a", Some(b""))
                .header("b", Some(&[0, 0xff]))
                .header("größe", Some(b"1")),
        );
        kept.into_iter().zip(0..).map(|(message, offset)| Message { offset, ..message }).collect()
    }

    async fn produce(
        kafka: &Kafka,
        topic: &str,
        partition: i32,
        compression: &str,
        records: &[Message],
    ) -> Vec<i64> {
        let compression = match compression {
            "none" => Compression::NoCompression,
            "gzip" => Compression::Gzip,
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            "zstd" => Compression::Zstd,
            other => panic!("unknown codec {other}"),
        };
        let records = records.iter().map(to_record).collect();
        client(kafka, topic, partition).await.produce(records, compression).await.unwrap()
    }

    async fn consume(kafka: &Kafka, topic: &str, partition: i32, from: i64, count: usize) -> Vec<Message> {
        let client = client(kafka, topic, partition).await;
        let mut read: Vec<Message> = Vec::new();
        while read.len() < count {
            let next = read.last().map_or(from, |message| message.offset + 1);
            let (records, _) = client.fetch_records(next, 1..10_000_000, 1_000).await.unwrap();
            read.extend(records.into_iter().map(from_record));
        }
        read.truncate(count);
        read
    }
}

async fn client(kafka: &Kafka, topic: &str, partition: i32) -> PartitionClient {
    let client = ClientBuilder::new(kafka.bootstrap()).build().await.unwrap();
    client.partition_client(topic, partition, UnknownTopicHandling::Retry).await.unwrap()
}

fn to_record(message: &Message) -> Record {
    let header = |header: &MessageHeader| (header.key.clone(), header.value.clone().unwrap());
    Record {
        key: message.key.clone(),
        value: message.value.clone(),
        headers: message.headers.iter().map(header).collect::<BTreeMap<_, _>>(),
        timestamp: Utc.timestamp_millis_opt(message.timestamp).unwrap(),
    }
}

fn from_record(RecordAndOffset { record, offset }: RecordAndOffset) -> Message {
    let header = |(key, value)| MessageHeader { key, value: Some(value) };
    Message {
        offset,
        timestamp: record.timestamp.timestamp_millis(),
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().map(header).collect(),
    }
}
