//! Appends: what they write to the log, and their errors.

use std::time::Duration;

use kwal_client::ClientBuilder;
use kwal_client::Limits;
use kwal_client::error::{ErrorKind, Outcome};
use kwal_client::record::Record;
use kwal_protocol::{error_code::ErrorCode, record::Compression};
use kwal_tests::kafka::{Kafka, Version};
use kwal_tests::message::{pseudo_random, samples};

use crate::peers::kwal::{client, to_record};
use crate::raw::{Ability, lacks};

kwal_tests::suite! {
    shared: [
        offsets_are_those_of_the_log,
        log_append_time,
        records_that_the_topic_does_not_take,
        batch_too_large_for_the_topic,
        batch_too_large_for_the_client,
        unknown_topic_is_not_created,
        unknown_partition,
        throttled,
    ],
    own: [segments_contain_the_batches],
}

async fn offsets_are_those_of_the_log(kafka: &'static Kafka) {
    let topic = kafka.topic("offsets", 3, &[]).await;
    let client = client(kafka).await;
    for (partition, batches) in [(0, 1), (1, 3)] {
        let writer = client.partition_client(&topic, partition).await.unwrap();
        for batch in 0..batches {
            let produced = writer.produce(sample_records()).await.unwrap();
            assert_eq!(produced.offsets(), Some(batch * 10..batch * 10 + 10));
            assert_eq!(produced.log_append_time_ms, None);
        }
    }
    assert_eq!(kafka.end_offsets(&topic).await, [10, 30, 0]);
}

/// DumpLogSegments verifies codec, producer id and checksum of the batches on the log.
async fn segments_contain_the_batches(version: Version) {
    let kafka = Kafka::shared(version);
    let topic = kafka.topic("segments", 1, &[]).await;
    let client = client(kafka).await;
    for compression in Compression::ALL {
        let name = compression.name();
        let writer = client.partition_client(&topic, 0).compression(compression).await.unwrap();
        let produced = writer.produce(sample_records()).await.unwrap();
        writer.produce(vec![Record::new("one", "more")]).await.unwrap();

        let dump = kafka.dump_log(1, &topic, 0).await;
        let batch_at = |offset: i64| {
            let start = format!("baseOffset: {offset} ");
            dump.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{offset}: {dump}"))
        };
        let base_offset = produced.base_offset.unwrap();
        for (offset, count) in [(base_offset, 10), (base_offset + 10, 1)] {
            let batch = batch_at(offset);
            let fact = |fact: String| assert!(batch.contains(&fact), "{fact} in {batch}");
            fact(format!("count: {count} "));
            fact(format!("compresscodec: {name} "));
            fact("isTransactional: false ".to_owned());
            fact("isvalid: true".to_owned());
            assert!(!batch.contains("producerId: -1 "), "{batch}");
        }
    }
}

async fn log_append_time(kafka: &'static Kafka) {
    let topic = kafka.topic("append-time", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let writer = client(kafka).await.partition_client(&topic, 0).await.unwrap();
    let produced = writer.produce(sample_records()).await.unwrap();
    let stamped = produced.log_append_time_ms.unwrap();
    let (records, _) = writer.fetch_records(0, 1..1_000_000, 1_000).await.unwrap();
    assert_eq!(records.len(), 10);
    assert!(records.iter().all(|record| record.timestamp_ms == stamped));
    let by_java = kafka.java().consume(&topic, 0, 0, None).await;
    assert!(by_java.iter().all(|record| record.timestamp == stamped));
}

/// Kafka names the records that it rejected a batch for (KIP-467).
async fn records_that_the_topic_does_not_take(kafka: &'static Kafka) {
    let hour = time::Duration::HOUR;
    let limit = hour.whole_milliseconds().to_string();
    let topic = kafka.topic("future", 1, &[("message.timestamp.after.max.ms", &limit)]).await;
    let writer = client(kafka).await.partition_client(&topic, 0).await.unwrap();
    // The first append waits until the broker knows the topic, and so below.
    writer.produce(vec![Record::new(None::<&str>, "first")]).await.unwrap();
    let mut records: Vec<_> = (0..5).map(|i| Record::new(None::<&str>, i.to_string())).collect();
    records[3].timestamp += 2 * hour;
    let error = writer.produce(&records).await.unwrap_err();
    assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::INVALID_TIMESTAMP), Outcome::NotApplied));
    let [rejected] = error.record_errors() else { panic!("{error:#?}") };
    assert_eq!(rejected.index, 3);
    let message = rejected.message.as_deref().unwrap_or_default();
    assert!(message.contains(&records[3].timestamp_ms().to_string()), "{message}");
    let ErrorKind::Broker { message: Some(message), .. } = error.kind() else { panic!("{error:#?}") };
    assert!(message.contains("One or more records have been rejected"), "{message}");
    assert!(error.to_string().contains("; record 3: "), "{error}");
    // None of them is on the log, so the others can be appended.
    records.remove(3);
    assert_eq!(writer.produce(&records).await.unwrap().offsets(), Some(1..5));
    // Another reason: a topic that is compacted needs keys.
    let topic = kafka.topic("compacted", 1, &[("cleanup.policy", "compact")]).await;
    let writer = client(kafka).await.partition_client(&topic, 0).await.unwrap();
    writer.produce(vec![Record::new("key", "first")]).await.unwrap();
    let mut records: Vec<_> = (0..5).map(|i| Record::new("key", i.to_string())).collect();
    (records[0].key, records[4].key) = (None, None);
    let error = writer.produce(&records).await.unwrap_err();
    assert_eq!((error.code(), error.outcome()), (Some(ErrorCode::INVALID_RECORD), Outcome::NotApplied));
    assert_eq!(error.record_errors().iter().map(|record| record.index).collect::<Vec<_>>(), [0, 4]);
}

async fn batch_too_large_for_the_topic(kafka: &'static Kafka) {
    let topic = kafka.topic("small", 1, &[("max.message.bytes", "100000")]).await;
    let writer = client(kafka).await.partition_client(&topic, 0).await.unwrap();
    let large = || Record::new(None::<&str>, pseudo_random(60_000, 1));
    // The first append waits until the broker knows the topic: a rejection after an attempt in doubt would
    // leave the outcome unknown.
    assert_eq!(writer.produce(vec![large()]).await.unwrap().base_offset, Some(0));
    let error = writer.produce(vec![large(), large()]).await.unwrap_err();
    let ErrorKind::BatchTooLarge { size, records, limit, .. } = error.kind() else { panic!("{error:?}") };
    assert!((120_000..121_000).contains(size), "{size}");
    assert_eq!((*records, *limit, error.outcome()), (2, None, Outcome::NotApplied));
    // One of the records fits, and the rejected batch is not on the log.
    assert_eq!(writer.produce(vec![large()]).await.unwrap().base_offset, Some(1));
    assert_eq!(kafka.end_offsets(&topic).await, [2]);
}

async fn batch_too_large_for_the_client(kafka: &'static Kafka) {
    let topic = kafka.topic("limited", 1, &[]).await;
    let limits = Limits::default().batch(10_000);
    let client = ClientBuilder::new(kafka.bootstrap()).limits(limits).build().await.unwrap();
    let writer = client.partition_client(&topic, 0).await.unwrap();
    let error = writer.produce(vec![Record::new("k", vec![0; 20_000])]).await.unwrap_err();
    let ErrorKind::BatchTooLarge { size, records: 1, limit: Some(10_000), .. } = error.kind() else {
        panic!("{error:?}")
    };
    assert!(*size > 20_000, "{size}");
    writer.produce(vec![Record::new("k", vec![0; 5_000])]).await.unwrap();
    assert_eq!(kafka.end_offsets(&topic).await, [1]);
}

/// The brokers create topics automatically; the client must not request that.
async fn unknown_topic_is_not_created(kafka: &'static Kafka) {
    let topic = kafka.topic_name("unknown");
    let error = client(kafka).await.partition_client(&topic, 0).await.unwrap_err();
    let ErrorKind::UnknownTopic { waited, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!(error.context().topic.as_deref(), Some(&*topic));
    assert!((Duration::from_secs(1)..Duration::from_secs(30)).contains(waited), "{waited:?}");
    assert!(!kafka.java().topics().await.contains(&topic));
}

async fn unknown_partition(kafka: &'static Kafka) {
    let topic = kafka.topic("two", 2, &[]).await;
    let error = client(kafka).await.partition_client(&topic, 2).await.unwrap_err();
    let ErrorKind::UnknownPartition { partitions, .. } = error.kind() else { panic!("{error:?}") };
    let context = error.context();
    assert_eq!((context.topic.as_deref(), context.partition, *partitions), (Some(&*topic), Some(2), 2));
}

/// The broker throttles the client by half a second per batch. Each batch is appended once. With
/// `KWAL_LONG=1`, it takes a minute.
async fn throttled(kafka: &'static Kafka) {
    let (batches, at_least) = if kwal_tests::long() { (120, 30) } else { (60, 10) };
    let topic = kafka.topic("throttled", 1, &[]).await;
    let has_quotas = !lacks(kafka, Ability::Quotas).await;
    if has_quotas {
        kafka.java().producer_quota(&topic, Some(100_000)).await;
    }
    let client = ClientBuilder::new(kafka.bootstrap()).client_id(&topic).build().await.unwrap();
    let writer = client.partition_client(&topic, 0).await.unwrap();
    let started = tokio::time::Instant::now();
    for batch in 0..batches {
        let produced =
            writer.produce(vec![Record::new(None::<&str>, pseudo_random(50_000, batch))]).await.unwrap();
        assert_eq!(produced.base_offset, i64::try_from(batch).ok());
        // A broker that has just started may reject the first one for a moment.
        assert!(produced.attempts == 1 || batch == 0, "batch {batch}: {} attempts", produced.attempts);
    }
    // At 100 kB/s. The quota has a burst of ten seconds.
    if has_quotas {
        assert!(started.elapsed() > Duration::from_secs(at_least), "not throttled: {:?}", started.elapsed());
        kafka.java().producer_quota(&topic, None).await;
    }
    assert_eq!(kafka.end_offsets(&topic).await, [i64::try_from(batches).unwrap()]);
    let read = kafka.java().consume(&topic, 0, 0, None).await;
    for (message, batch) in read.iter().zip(0..batches) {
        assert_eq!(message.value.as_deref(), Some(&*pseudo_random(50_000, batch)), "{batch}");
    }
    assert_eq!(read.len() as u64, batches);
}

fn sample_records() -> Vec<Record> {
    samples().iter().map(to_record).collect()
}
