//! Kafka clients behind one trait.

pub(crate) mod kwal;
pub(crate) mod librdkafka;
mod rskafka;

use kwal_tests::kafka::Kafka;
use kwal_tests::message::{Message, samples};

pub(crate) use self::kwal::Kwal;
pub(crate) use self::librdkafka::Librdkafka;
pub(crate) use self::rskafka::Rskafka;

/// A client that appends to a partition and reads it.
pub(crate) trait Peer {
    /// The codecs that are tested.
    const COMPRESSIONS: &'static [&'static str] = &["none", "gzip", "snappy", "lz4", "zstd"];

    /// Returns the samples that the client can represent, with offsets from 0.
    fn samples() -> Vec<Message> {
        samples()
    }

    /// Appends in order and returns the offsets.
    async fn produce(
        kafka: &Kafka,
        topic: &str,
        partition: i32,
        compression: &str,
        records: &[Message],
    ) -> Vec<i64>;

    /// Reads `count` records from offset `from`.
    async fn consume(kafka: &Kafka, topic: &str, partition: i32, from: i64, count: usize) -> Vec<Message>;
}

/// Kafka's Java client.
pub(crate) struct Java;

impl Peer for Java {
    async fn produce(
        kafka: &Kafka,
        topic: &str,
        partition: i32,
        compression: &str,
        records: &[Message],
    ) -> Vec<i64> {
        kafka.java().produce(topic, partition, compression, records).await
    }

    async fn consume(kafka: &Kafka, topic: &str, partition: i32, from: i64, count: usize) -> Vec<Message> {
        let to = from + i64::try_from(count).unwrap();
        kafka.java().consume(topic, partition, from, Some(to)).await
    }
}
