//! Reading: offsets, fetches at the edges of batches and of the log, and records of other clients.

use std::time::Duration;

use kwal_client::error::ErrorKind;
use kwal_client::record::Record;
use kwal_client::{ClientBuilder, OffsetAt};
use kwal_protocol::api::ApiKey;
use kwal_testkit::wire::Wire;
use kwal_tests::kafka::Kafka;
use kwal_tests::message::{Message, samples};
use kwal_transport::Tcp;
use serde_json::json;
use time::OffsetDateTime;

use crate::peers::kwal::{client, from_record, read_all, to_record};
use crate::raw::{Ability, lacks};

kwal_tests::suite! {
    shared: [
        offsets,
        offsets_of_an_empty_log,
        from_the_middle_of_a_batch,
        at_the_end_of_the_log,
        outside_the_log,
        batches_larger_than_the_limit,
        record_views,
        transactions_of_other_clients,
        over_the_quota,
    ],
    own: [],
}

async fn offsets(kafka: &'static Kafka) {
    let topic = kafka.topic("offsets", 1, &[]).await;
    kafka.java().produce(&topic, 0, "none", &samples()).await;
    let mut start = 0;
    if !lacks(kafka, Ability::DeleteRecords).await {
        start = 2;
        kafka.java().delete_records(&topic, 0, start).await;
    }
    let reader = client(kafka).await.partition_client(&topic, 0).await.unwrap();
    assert_eq!(reader.get_offset(OffsetAt::Earliest).await.unwrap(), start);
    assert_eq!(reader.get_offset(OffsetAt::Latest).await.unwrap(), 10);
    assert_eq!(reader.get_offset(OffsetAt::MaxTimestamp).await.unwrap(), 9);
    // Finds the first record that is not older. The timestamps of the samples increase, except one.
    for wanted in [5, 6, 9] {
        let timestamp = samples()[wanted].timestamp;
        let found = reader.get_offset(at(timestamp)).await.unwrap();
        assert_eq!(found, i64::try_from(wanted).unwrap());
        assert_eq!(kafka.java().offset(&topic, 0, &timestamp.to_string()).await, found);
    }
    let later = samples()[9].timestamp + 1;
    let error = reader.get_offset(at(later)).await.unwrap_err();
    let ErrorKind::OffsetNotFound { timestamp_ms, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!(*timestamp_ms, later);
}

async fn offsets_of_an_empty_log(kafka: &'static Kafka) {
    let topic = kafka.topic("empty", 1, &[]).await;
    let reader = client(kafka).await.partition_client(&topic, 0).await.unwrap();
    assert_eq!(reader.get_offset(OffsetAt::Earliest).await.unwrap(), 0);
    assert_eq!(reader.get_offset(OffsetAt::Latest).await.unwrap(), 0);
    let (records, high_watermark) = reader.fetch_records(0, 1..1_000_000, 100).await.unwrap();
    assert_eq!((records.len(), high_watermark), (0, 0));
}

async fn from_the_middle_of_a_batch(kafka: &'static Kafka) {
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = kafka.topic("middle", 1, &[]).await;
        let one_batch = json!({ "linger.ms": 1_000, "batch.size": 1_000_000 });
        kafka.java().produce_with(&topic, 0, compression, &samples(), one_batch).await;
        let reader = client(kafka).await.partition_client(&topic, 0).await.unwrap();
        for from in [0_i64, 1, 4, 9] {
            let (records, high_watermark) = reader.fetch_records(from, 1..1_000_000, 1_000).await.unwrap();
            let read: Vec<Message> = records.iter().map(from_record).collect();
            assert_eq!(read, samples()[usize::try_from(from).unwrap()..], "{compression} from {from}");
            assert_eq!(high_watermark, 10);
        }
        let fetched = reader.fetch(4).await.unwrap();
        assert_eq!(fetched.batches().len(), 1, "the test needs a single batch");
        assert_eq!(fetched.batches()[0].header().base_offset, 0, "a broker should send whole batches");
        assert_eq!(fetched.next_offset, 10);
    }
}

async fn at_the_end_of_the_log(kafka: &'static Kafka) {
    let topic = kafka.topic("end", 1, &[]).await;
    kafka.java().produce(&topic, 0, "none", &samples()).await;
    let client = client(kafka).await;
    let partition = client.partition_client(&topic, 0).await.unwrap();

    let started = tokio::time::Instant::now();
    let (records, high_watermark) = partition.fetch_records(10, 1..1_000_000, 700).await.unwrap();
    assert_eq!((records.len(), high_watermark), (0, 10));
    let waited = started.elapsed();
    assert!((Duration::from_millis(650)..Duration::from_secs(5)).contains(&waited), "{waited:?}");

    // An append ends the wait, and the waiting fetch does not delay the append.
    let started = tokio::time::Instant::now();
    let (fetched, produced) = tokio::join!(partition.fetch_records(10, 1..1_000_000, 20_000), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        partition.produce(vec![to_record(&samples()[1])]).await
    });
    assert_eq!(produced.unwrap().base_offset, Some(10));
    let (records, _) = fetched.unwrap();
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [10]);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

async fn outside_the_log(kafka: &'static Kafka) {
    let topic = kafka.topic("outside", 1, &[]).await;
    kafka.java().produce(&topic, 0, "none", &samples()).await;
    let mut deleted = 0;
    if !lacks(kafka, Ability::DeleteRecords).await {
        deleted = 3;
        kafka.java().delete_records(&topic, 0, deleted).await;
    }
    let reader = client(kafka).await.partition_client(&topic, 0).await.unwrap();
    for outside in (0..deleted).chain([11, 1_000_000]) {
        let error = reader.fetch_records(outside, 1..1_000_000, 1_000).await.unwrap_err();
        let offset = match error.kind() {
            ErrorKind::Trimmed { offset, log_start, .. } if offset < log_start => {
                assert_eq!(*log_start, deleted);
                offset
            }
            ErrorKind::BeyondEnd { offset, end: 10, .. } => offset,
            other => panic!("{outside}: {other:?}"),
        };
        assert_eq!(*offset, outside);
    }
    let left = usize::try_from(deleted).unwrap();
    assert_eq!(read_all(&reader, deleted, 10).await, samples()[left..]);
}

/// Kafka sends at least one batch, even if it exceeds the limit (KIP-74).
async fn batches_larger_than_the_limit(kafka: &'static Kafka) {
    let topic = kafka.topic("larger", 1, &[]).await;
    let writer = client(kafka).await.partition_client(&topic, 0).await.unwrap();
    for sample in samples() {
        writer.produce(vec![to_record(&sample)]).await.unwrap();
    }
    let mut read = Vec::new();
    while read.len() < samples().len() {
        let next = i64::try_from(read.len()).unwrap();
        let (records, _) = writer.fetch_records(next, 1..1_000, 1_000).await.unwrap();
        assert!(!records.is_empty(), "nothing at {next}");
        read.extend(records.iter().map(from_record));
    }
    assert_eq!(read, samples());
}

async fn record_views(kafka: &'static Kafka) {
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = kafka.topic("lazy", 1, &[]).await;
        kafka.java().produce(&topic, 0, compression, &samples()).await;
        let reader = client(kafka).await.partition_client(&topic, 0).await.unwrap();
        let mut next = 0;
        let mut seen = 0;
        while next < 10 {
            let fetched = reader.fetch(next).await.unwrap();
            assert_eq!((fetched.high_watermark, fetched.log_start_offset), (10, Some(0)));
            let each = fetched.for_each(|record| {
                let sample = &samples()[seen];
                assert_eq!(record.offset, sample.offset);
                assert_eq!(record.timestamp_ms, sample.timestamp);
                assert_eq!((record.key, record.value), (sample.key.as_deref(), sample.value.as_deref()));
                assert_eq!(record.headers().len(), sample.headers.len());
                seen += 1;
            });
            each.unwrap();
            next = fetched.next_offset;
        }
        assert_eq!(seen, 10);
    }
}

/// The reader skips the markers at the end of transactions and returns aborted records.
async fn transactions_of_other_clients(kafka: &'static Kafka) {
    let topic = kafka.topic("transactions", 1, &[]).await;
    let [plain, first, second] = [0, 1, 2].map(|at| samples()[at..=at].to_vec());
    kafka.java().produce(&topic, 0, "none", &plain).await;
    let (mut records, mut markers) = (vec![0], Vec::new());
    if !lacks(kafka, Ability::Transactions).await {
        kafka.java().produce_in_transaction(&topic, 0, &first, true).await;
        kafka.java().produce_in_transaction(&topic, 0, &second, false).await;
        records.extend([1, 3]);
        markers.extend([2, 4]);
    }
    let reader = client(kafka).await.partition_client(&topic, 0).await.unwrap();
    let end = i64::try_from(records.len() + markers.len()).unwrap();
    assert_eq!(reader.get_offset(OffsetAt::Latest).await.unwrap(), end);
    let read = read_all(&reader, 0, records[records.len() - 1] + 1).await;
    assert_eq!(read.iter().map(|each| each.offset).collect::<Vec<i64>>(), records);
    // A fetch from a marker returns no record and continues after it.
    for marker in markers {
        let fetched = reader.fetch(marker).max_bytes(1).await.unwrap();
        assert!(fetched.next_offset > marker, "{fetched:?}");
    }
}

/// A broker sends empty responses to a reader over its quota and delays the next ones. The call continues
/// afterwards.
async fn over_the_quota(kafka: &'static Kafka) {
    const BATCHES: i64 = 16;
    let topic = kafka.topic("over", 1, &[]).await;
    let writer = client(kafka).await.partition_client(&topic, 0).await.unwrap();
    for batch in 0..BATCHES {
        writer.produce(vec![Record::new(batch.to_string(), vec![b'x'; 50_000])]).await.unwrap();
    }
    let has_quotas = !lacks(kafka, Ability::Quotas).await;
    if has_quotas {
        kafka.java().consumer_quota(&topic, Some(100_000)).await;
    }
    let wire = Wire::new(Tcp::default());
    let builder = ClientBuilder::new(kafka.bootstrap()).client_id(&topic).connector(wire.clone());
    let reader = builder.build().await.unwrap().partition_client(&topic, 0).await.unwrap();
    let (mut keys, mut next, mut calls) = (Vec::new(), 0, 0);
    while next < BATCHES {
        let fetched = reader.fetch(next).max_bytes(100_000).await.unwrap();
        fetched.for_each(|record| keys.push(record.key.unwrap().to_vec())).unwrap();
        assert!(fetched.next_offset > next, "{fetched:?}");
        (next, calls) = (fetched.next_offset, calls + 1);
    }
    assert_eq!(keys, (0..BATCHES).map(|batch| batch.to_string().into_bytes()).collect::<Vec<_>>());
    if has_quotas {
        assert!(wire.requests(ApiKey::FETCH) > calls, "{calls} calls never exceeded the quota");
        kafka.java().consumer_quota(&topic, None).await;
    }
}

fn at(timestamp_ms: i64) -> OffsetAt {
    OffsetAt::Timestamp(
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(timestamp_ms) * 1_000_000).unwrap(),
    )
}
