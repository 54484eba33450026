//! Interoperability: each client reads exactly what another one wrote.

use kwal_tests::kafka::Kafka;
use kwal_tests::message::Message;

use crate::peers::{Java, Kwal, Librdkafka, Peer, Rskafka, librdkafka};
use crate::raw::{Ability, lacks};

kwal_tests::suite! {
    shared: [
        kwal_and_kwal,
        kwal_and_java,
        kwal_and_java_in_large_batches,
        kwal_and_librdkafka,
        kwal_and_rskafka,
        librdkafka_and_java,
        librdkafka_administrates,
        rskafka_and_java,
    ],
    own: [],
}

async fn kwal_and_kwal(kafka: &'static Kafka) {
    one_writes_other_reads::<Kwal, Kwal>(kafka, Kwal::samples).await;
}

async fn kwal_and_java(kafka: &'static Kafka) {
    one_writes_other_reads::<Kwal, Java>(kafka, Java::samples).await;
    one_writes_other_reads::<Java, Kwal>(kafka, Java::samples).await;
}

/// Batches of several compressed blocks.
async fn kwal_and_java_in_large_batches(kafka: &'static Kafka) {
    let samples = || {
        let sample = |offset: i64| {
            let value: Vec<u8> = (0..1024).map(|at| (offset * at / 7 % 251) as u8).collect();
            Message { offset, ..Message::new(1_750_000_000_000 + offset, Some(b"key"), Some(&value)) }
        };
        (0..400).map(sample).collect()
    };
    one_writes_other_reads::<Kwal, Java>(kafka, samples).await;
    one_writes_other_reads::<Java, Kwal>(kafka, samples).await;
}

async fn kwal_and_librdkafka(kafka: &'static Kafka) {
    one_writes_other_reads::<Kwal, Librdkafka>(kafka, Librdkafka::samples).await;
    one_writes_other_reads::<Librdkafka, Kwal>(kafka, Librdkafka::samples).await;
}

async fn kwal_and_rskafka(kafka: &'static Kafka) {
    one_writes_other_reads::<Kwal, Rskafka>(kafka, Rskafka::samples).await;
    one_writes_other_reads::<Rskafka, Kwal>(kafka, Rskafka::samples).await;
}

// The reference clients themselves against Kafka's client: a failure of these is not one of kwal.

async fn librdkafka_and_java(kafka: &'static Kafka) {
    one_writes_other_reads::<Librdkafka, Java>(kafka, Librdkafka::samples).await;
    one_writes_other_reads::<Java, Librdkafka>(kafka, Librdkafka::samples).await;
}

async fn librdkafka_administrates(kafka: &'static Kafka) {
    if !lacks(kafka, Ability::DeleteRecords).await {
        librdkafka::administrate(kafka).await;
    }
}

async fn rskafka_and_java(kafka: &'static Kafka) {
    one_writes_other_reads::<Rskafka, Java>(kafka, Rskafka::samples).await;
    one_writes_other_reads::<Java, Rskafka>(kafka, Rskafka::samples).await;
}

async fn one_writes_other_reads<Writer: Peer, Reader: Peer>(kafka: &Kafka, samples: fn() -> Vec<Message>) {
    for compression in common_codecs::<Writer, Reader>() {
        let topic = kafka.topic("interop", 2, &[]).await;
        write_then_read::<Writer, Reader>(kafka, &topic, 1, compression, &samples()).await;
    }
}

/// Returns the codecs that both clients support.
pub(crate) fn common_codecs<Writer: Peer, Reader: Peer>() -> impl Iterator<Item = &'static str> {
    Writer::COMPRESSIONS.iter().copied().filter(|codec| Reader::COMPRESSIONS.contains(codec))
}

/// Appends with one client to a new partition and reads with the other.
pub(crate) async fn write_then_read<Writer: Peer, Reader: Peer>(
    kafka: &Kafka,
    topic: &str,
    partition: i32,
    compression: &str,
    samples: &[Message],
) {
    let offsets = Writer::produce(kafka, topic, partition, compression, samples).await;
    assert!(offsets.iter().copied().eq(samples.iter().map(|sample| sample.offset)), "{offsets:?}");
    let read = Reader::consume(kafka, topic, partition, 0, samples.len()).await;
    assert_eq!(read, samples, "{compression}");
}
