//! C1, C2: every caller gets the offset of its own record, which is on the log once.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use kwal_batching::producer::{Appended, BatchProducer};
use kwal_client::{error::Error, record::Record};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, record::Compression};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::{
    task::{JoinHandle, yield_now},
    time::sleep,
};

use crate::support::{Rng, broker, builder, open, record, settle, values};

/// What callers got, with the values of their records.
type Results = Arc<Mutex<Vec<(String, Appended)>>>;

/// Spawns a caller that appends so many records one after another, in every way that there is.
fn caller(producer: &BatchProducer, caller: u64, records: usize, results: &Results) -> JoinHandle<()> {
    let (producer, results, mut rng) = (producer.clone(), Arc::clone(results), Rng(caller));
    tokio::spawn(async move {
        for i in 0..records {
            let value = format!("{caller}-{i}-{}", "x".repeat(rng.below(60) as usize));
            let record = record(value.clone());
            let appended = match rng.below(4) {
                0 => producer.produce(record).await,
                1 => producer.produce(&record).await,
                2 => producer.produce(record).deadline(Duration::from_secs(60)).await,
                _ => producer.reserve().bytes(100).await.unwrap().send(record).await,
            };
            results.lock().unwrap().push((value, appended.unwrap()));
            if rng.below(10) == 0 {
                yield_now().await;
            }
        }
    })
}

/// Asserts that each result is that of its own record, and that nothing else is on the log.
#[track_caller]
fn check(broker: &EmbeddedCluster, results: &Results, producer: &BatchProducer) {
    let (values, results) = (values(broker), results.lock().unwrap());
    for (value, appended) in &*results {
        let offset = appended.offset.unwrap();
        assert_eq!(values[offset as usize], *value);
        assert!(appended.batch.offsets().unwrap().contains(&offset));
        assert_eq!(appended.records, 1);
    }
    assert_eq!(values.len(), results.len());
    let stats = producer.stats();
    assert_eq!((stats.appended, stats.failed), (results.len() as u64, 0));
    assert_eq!((stats.in_flight, stats.gathering, stats.waiting), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn every_caller_gets_the_offset_of_its_own_record() {
    for (window, max_records) in [(1, 100_000), (3, 7)] {
        let broker = broker();
        let producer = BatchProducer::builder(open(&broker).await).window(window);
        let producer = producer.max_records(max_records).build();
        let results = Results::default();
        let callers: Vec<_> = (0..100).map(|id| caller(&producer, id, 100, &results)).collect();
        for caller in callers {
            caller.await.unwrap();
        }
        check(&broker, &results, &producer);
    }
}

/// On several threads, with batches that compress and are split, while connections end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_caller_gets_the_offset_of_its_own_record_on_many_threads() {
    let compression = if cfg!(feature = "compression-lz4") { Compression::Lz4 } else { Compression::None };
    for compression in [Compression::None, compression] {
        let broker = broker();
        let client = builder(&broker).build().await.unwrap();
        let partition = client.partition_client("wal", 0).compression(compression).await.unwrap();
        let producer = BatchProducer::builder(partition).window(2).max_bytes(2_000).build();
        let results = Results::default();
        let callers = (0..100).map(|id| caller(&producer, id, 50, &results));
        let callers = join_all(callers.collect::<Vec<_>>());
        let breaks = async {
            loop {
                sleep(Duration::from_millis(5)).await;
                broker.disconnect_all();
            }
        };
        tokio::select! {
            ended = callers => ended.into_iter().for_each(|ended| ended.unwrap()),
            () = breaks => {}
        }
        check(&broker, &results, &producer);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_repeated_whatever_the_faults() {
    let faults = [
        Fault::LoseReply,
        Fault::Drop,
        Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT),
        Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        Fault::Throttle(Duration::from_millis(300)),
        Fault::DelayRequest(Duration::from_secs(15)),
        Fault::DelayReply(Duration::from_secs(15)),
        Fault::WrongCorrelationId,
    ];
    for window in [1, 5] {
        let broker = broker();
        let producer = BatchProducer::builder(open(&broker).await).window(window).max_records(40).build();
        let results = Results::default();
        for round in 0..8 {
            for fault in &faults[round % 4..] {
                broker.on(ApiKey::PRODUCE, *fault);
            }
            let callers: Vec<_> =
                (0..50).map(|id| caller(&producer, 1_000 * round as u64 + id, 10, &results)).collect();
            for caller in callers {
                caller.await.unwrap();
            }
        }
        assert_eq!(broker.faults_left(), 0);
        check(&broker, &results, &producer);
    }
}

/// Records go as they are.
#[tokio::test(start_paused = true)]
async fn records_are_on_the_log_as_they_were_handed_over() {
    let broker = broker();
    let producer = BatchProducer::new(open(&broker).await);
    let all = [
        record("value"),
        Record { value: None, ..record("") },
        Record::new("key", "value").header("a", "1").header("a", None::<&str>).header("", vec![0; 200]),
        Record::new("", vec![7; 100_000]),
        Record::new(None::<&str>, ""),
    ];
    // As one batch.
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(1)));
    let first = producer.reserve().await.unwrap().send(record("first"));
    settle().await;
    for appended in join_all(all.iter().map(|record| producer.produce(record))).await {
        assert_eq!(appended.unwrap().batch.record_count, all.len());
    }
    first.await.unwrap();
    for (found, record) in broker.records("wal", 0).unwrap()[1..].iter().zip(&all) {
        assert_eq!((&found.key, &found.value, &found.headers), (&record.key, &record.value, &record.headers));
        assert_eq!(found.timestamp_ms, record.timestamp_ms());
    }
}

/// A result without an offset is one all the same.
#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_report_offsets_acknowledges() {
    use kwal_protocol::messages::ProduceRequest;
    use kwal_testkit::wire::Wire;
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = crate::support::open_over(&broker, &wire).await;
    wire.rewrite::<ProduceRequest>(|response| {
        response.responses[0].partition_responses[0].base_offset = -1;
    });
    let producer = BatchProducer::new(partition);
    let results = join_all((0..10).map(|value| producer.produce(record(value.to_string())))).await;
    let offsets: Result<Vec<_>, Error> =
        results.into_iter().map(|result| result.map(|appended| appended.offset)).collect();
    assert_eq!(offsets.unwrap(), vec![None; 10]);
    assert_eq!(values(&broker).len(), 10);
}
