//! C9 and C11: memory is bounded, and calls that need more wait.

use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use futures::future::join_all;
use kwal_client::{
    Limits, OffsetAt, PartitionClient,
    error::{ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::{
    api::ApiKey,
    connection::ConnectionError,
    error_code::ErrorCode,
    messages::{ApiVersionsRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, RecordError},
    record::Compression,
};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::runtime::Builder;

use crate::support::{
    HOUR, Wire, WireMode, broker, chain, deadlines, large, log, open, open_over, polled, record, settle,
    source, timed,
};

async fn limited(wire: &Wire, limits: Limits) -> PartitionClient {
    wire.builder().limits(limits).build().await.unwrap().partition_client("wal", 0).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_batch_over_the_limit_is_rejected_before_anything_is_sent() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let limits = Limits::default().batch(10_000);
    let client = wire.builder().limits(limits).build().await.unwrap();
    let mut codecs = vec![Compression::None];
    if Compression::Lz4.is_built_in() {
        // The uncompressed size counts too, because readers have to decompress it.
        codecs.push(Compression::Lz4);
    }
    for compression in codecs {
        let partition = client.partition_client("wal", 0).compression(compression).await.unwrap();
        let many = (0..1_000).flat_map(|i| record(i.to_string())).collect();
        for (records, count) in [(large(10_000), 1), (large(9_990), 1), (large(9_970), 1), (many, 1_000)] {
            let error = partition.produce(records).await.unwrap_err();
            let ErrorKind::BatchTooLarge { size, records, limit: Some(10_000), .. } = error.kind() else {
                panic!("{error:?}")
            };
            assert!(*size > 10_000 && *records == count, "{size}");
            assert_eq!((error.outcome(), error.is_retriable()), (Outcome::NotApplied, false));
        }
        assert_eq!(wire.count(ApiKey::PRODUCE), 0);
    }
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(large(9_900)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn appends_beyond_the_budget_wait_and_continue_later() {
    let broker = broker();
    let wire = Wire::to(&broker);
    // Three quarters of it are enough for three appends.
    let limits = Limits::default().memory((64 << 10) * 4 / 3);
    let client = wire.builder().limits(limits).build().await.unwrap();
    let one = client.partition_client("wal", 0).await.unwrap();
    let other = client.partition_client("wal", 1).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(5)));
    let mut in_flight: Vec<_> = (0..3).map(|_| one.produce(large(20 << 10)).into_future()).collect();
    for append in &mut in_flight {
        assert!(polled(append, 1).await.is_none());
    }
    // All partitions of a client share the budget, and an append that waits is not submitted.
    for _ in 0..3 {
        assert!(polled(one.produce(large(20 << 10)), 1).await.is_none());
        assert!(polled(other.produce(large(20 << 10)), 1).await.is_none());
    }
    let (appends, took) = timed(join_all(in_flight)).await;
    assert_eq!(
        (appends.iter().filter(|produced| produced.is_ok()).count(), took),
        (3, Duration::from_secs(5))
    );
    settle().await;
    assert_eq!((broker.end_offset("wal", 0).unwrap(), broker.end_offset("wal", 1).unwrap()), (3, 0));

    broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(5)));
    let appends = (0..40).map(|i| match i % 2 {
        0 => one.produce(large(20 << 10)).into_future(),
        _ => other.produce(large(20 << 10)).into_future(),
    });
    assert!(join_all(appends).await.iter().all(Result::is_ok));
    assert_eq!((broker.end_offset("wal", 0).unwrap(), broker.end_offset("wal", 1).unwrap()), (23, 20));
}

#[tokio::test(start_paused = true)]
async fn an_append_larger_than_the_budget_is_sent_alone() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = limited(&wire, Limits::default().memory(1)).await;
    let appends = join_all((0..10).map(|_| partition.produce(large(500_000)).into_future())).await;
    assert!(appends.iter().all(Result::is_ok));
    assert_eq!(wire.count(ApiKey::PRODUCE), 10);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_memory_ends_at_the_deadline() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.builder().limits(Limits::default().memory(1)).build().await.unwrap();
    let one = client.partition_client("wal", 0).await.unwrap();
    let other = client.partition_client("wal", 1).await.unwrap();
    broker.on_all(ApiKey::PRODUCE, Fault::DelayRequest(HOUR));
    let first = tokio::spawn(async move { timed(one.produce(record("a"))).await });
    settle().await;
    let (error, took) = timed(other.produce(record("b"))).await;
    // The first one ends a moment earlier and releases its memory.
    assert!(took <= deadlines().operation, "{took:?}");
    error.unwrap_err();
    let (error, took) = first.await.unwrap();
    assert_eq!(error.unwrap_err().outcome(), Outcome::Unknown);
    assert!(took <= deadlines().operation, "{took:?}");

    // An append that never got memory is not applied.
    broker.clear_faults();
    other.produce(record("c")).await.unwrap();
    broker.on_all(ApiKey::PRODUCE, Fault::DelayRequest(HOUR));
    let (in_flight, waiting) = tokio::join!(other.produce(record("d")), timed(other.produce(record("e"))));
    in_flight.unwrap_err();
    let (error, took) = waiting;
    assert_eq!((error.unwrap_err().outcome(), took), (Outcome::NotApplied, deadlines().operation));
}

/// Client and broker run on one thread, whose allocations are counted.
#[test]
fn a_thousand_appends_that_wait_for_memory_hold_nothing_but_the_records_of_their_callers() {
    const BATCH: usize = 1 << 20;
    const BUDGET: usize = 4 * BATCH;
    const CALLERS: usize = 1_000;
    // The future of a call, its timers and its places in queues.
    const PER_CALLER: usize = 1 << 10;
    let mut codecs = vec![Compression::None];
    codecs.extend(Some(Compression::Lz4).filter(|codec| codec.is_built_in()));
    for codec in codecs {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (_broker, wire, partitions) = runtime.block_on(async {
            let broker = broker();
            let wire = Wire::to(&broker);
            let limits = Limits::default().memory(BUDGET);
            let client = wire.builder().limits(limits).build().await.unwrap();
            let open =
                (0..2).map(|index| client.partition_client("wal", index).compression(codec).into_future());
            let partitions = join_all(open).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
            (broker, wire, partitions)
        });
        // Random bytes, which cannot be compressed. All callers share them.
        let mut value = vec![0; BATCH - (4 << 10)];
        fastrand::Rng::with_seed(1).fill(&mut value);
        // Larger ones would be shared with the callers also once they are encoded.
        let value = Bytes::from(value);
        let values =
            (0..value.len()).step_by(8 << 10).map(|at| value.slice(at..value.len().min(at + (8 << 10))));
        let records: Vec<_> = values.map(|value| Record::new(None::<&str>, value)).collect();
        wire.set(WireMode::Stalled);
        let allocated = measure(|| {
            runtime.block_on(async {
                let mut appends = Vec::with_capacity(CALLERS);
                for partition in partitions.iter().cycle().take(CALLERS) {
                    let mut append = partition.produce(&records).into_future();
                    assert!(polled(&mut append, 1).await.is_none());
                    appends.push(append);
                }
                settle().await;
            });
        });
        // The compressor keeps its buffers: one for the records, and one for the result.
        let buffers = if codec == Compression::None { 0 } else { 2 * BATCH };
        let most = BUDGET + buffers + CALLERS * PER_CALLER;
        let held = usize::try_from(allocated.bytes_max).unwrap();
        assert!(held >= 2 * BATCH, "{codec}: what is in the budget is encoded: {allocated:?}");
        assert!(held <= most, "{codec}: {allocated:?}, at most {most}");
        wire.set(WireMode::Passing);
        runtime.block_on(partitions[0].produce(&records).into_future()).unwrap();
    }
}

/// A value of 16 KiB and more is on the wire, and in the log, without a copy of the client.
#[test]
fn large_values_are_appended_without_a_copy() {
    const SIZE: usize = 900 << 10;
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (broker, wire, partition) = runtime.block_on(async {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = limited(&wire, Limits::default()).await;
        partition.produce(record("first")).await.unwrap();
        (broker, wire, partition)
    });
    let mut value = vec![0; SIZE];
    fastrand::Rng::with_seed(1).fill(&mut value);
    let value = Bytes::from(value);
    let sizes = [SIZE, 100, 16 << 10, (16 << 10) - 1];
    let records = sizes.map(|size| Record::new("key", value.slice(..size)).header("a", "b"));
    wire.set(WireMode::Stalled);
    let mut append = partition.produce(&records).into_future();
    let allocated = measure(|| {
        runtime.block_on(async {
            assert!(polled(&mut append, 1).await.is_none());
            settle().await;
        });
    });
    assert!(allocated.bytes_max < 100_000, "{allocated:?}");
    wire.set(WireMode::Passing);
    runtime.block_on(append).unwrap();
    let log = broker.records("wal", 0).unwrap();
    let appended: Vec<_> = log.iter().skip(1).map(|record| record.value.clone()).collect();
    assert_eq!(appended, records.map(|record| record.value));
}

/// All fetches share one connection, and their responses arrive one right after the other.
#[test]
fn what_was_fetched_keeps_its_own_bytes_in_memory_and_no_others() {
    const FETCHES: usize = 64;
    // Response, batch and the lists of them.
    const PER_FETCH: usize = 2 << 10;
    for size in [300, 10_000, 100_000, 600_000] {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (_broker, partition) = runtime.block_on(async {
            let broker = broker();
            let wire = Wire::to(&broker);
            let limits = Limits::default().max_connections_per_broker(1);
            let partition = limited(&wire, limits).await;
            partition.produce(large(size)).await.unwrap();
            // The buffers of both sides have their sizes from here on.
            let warm = join_all((0..FETCHES).map(|_| partition.fetch(0).into_future())).await;
            assert!(warm.iter().all(Result::is_ok));
            (broker, partition)
        });
        let mut held = Vec::with_capacity(FETCHES);
        let allocated = measure(|| {
            runtime.block_on(async {
                let fetches = join_all((0..FETCHES).map(|_| partition.fetch(0).into_future())).await;
                held.extend(fetches.into_iter().map(Result::unwrap));
                settle().await;
            });
        });
        let bytes: usize = held.iter().map(|fetched| fetched.wire_bytes + PER_FETCH).sum();
        let kept = usize::try_from(allocated.bytes_current).unwrap();
        assert!(kept <= bytes + (64 << 10), "{size}: {kept} bytes for {bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_without_records_has_a_limit_of_its_own() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    wire.edit::<ListOffsetsRequest>(|response| {
        response.topics[0].partitions = vec![response.topics[0].partitions[0].clone(); 200_000];
    });
    let (error, took) = timed(partition.get_offset(OffsetAt::Latest)).await;
    let error = error.unwrap_err();
    let ConnectionError::FrameTooLarge { len, max, .. } = source(&error) else { panic!("{error:?}") };
    assert!(*len > *max && *max == 4 << 20, "{len} {max}");
    assert_eq!((took, error.is_retriable()), (Duration::ZERO, false));
    wire.clear_edits();
    assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), 0);

    // Before anything is known about the peer.
    wire.edit::<ApiVersionsRequest>(|response| {
        response.api_keys = vec![response.api_keys[0].clone(); 10_000];
    });
    let error = wire.builder().build().await.unwrap_err();
    assert!(chain(&error).contains("the limit is 65536"), "{}", chain(&error));

    // Another broker is asked.
    let three = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap();
    let wire = Wire::to(&three);
    let mut is_first = true;
    wire.edit::<ApiVersionsRequest>(move |response| {
        if std::mem::take(&mut is_first) {
            response.api_keys = vec![response.api_keys[0].clone(); 10_000];
        }
    });
    let (client, took) = timed(wire.builder().build()).await;
    client.unwrap();
    assert_eq!((took, wire.connections()), (Duration::ZERO, 2));

    let mut is_first = true;
    wire.edit::<MetadataRequest>(move |response| {
        if std::mem::take(&mut is_first) {
            response.brokers[0].host = "host".repeat(1_000);
            response.brokers = vec![response.brokers[0].clone(); 5_000];
        }
    });
    let (client, took) = timed(wire.builder().build()).await;
    client.unwrap();
    assert_eq!((took, wire.connections()), (Duration::ZERO, 4));
}

/// Kafka names each record of a batch, with a message.
#[tokio::test(start_paused = true)]
async fn a_batch_of_which_all_records_are_at_fault_is_rejected() {
    const RECORDS: usize = 100_000;
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = open_over(&wire).await;
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_TIMESTAMP));
    wire.edit::<ProduceRequest>(|response| {
        let message = "Timestamp 1700000000000 of message with offset 99999 is out of range. The timestamp \
                       should be within [1600000000000, 1600000003600]";
        let error =
            |batch_index| RecordError { batch_index, batch_index_error_message: Some(message.to_owned()) };
        response.responses[0].partition_responses[0].record_errors = (0..RECORDS as i32).map(error).collect();
    });
    let error = partition.produce(vec![record("a").remove(0); RECORDS]).await.unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (Some(ErrorCode::INVALID_TIMESTAMP), Outcome::NotApplied),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_response_larger_than_the_limit_is_an_error_at_once() {
    let broker = broker();
    open(&broker).await.produce(large(100_000)).await.unwrap();
    let wire = Wire::to(&broker);
    let partition = limited(&wire, Limits::default().frame(50_000)).await;
    let (error, took) = timed(partition.fetch(0)).await;
    let error = error.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Connection), "{error:?}");
    let ConnectionError::FrameTooLarge { len, max: 50_000, .. } = source(&error) else { panic!("{error:?}") };
    assert!(*len > 100_000);
    assert_eq!((took, error.is_retriable()), (Duration::ZERO, false));
    assert_eq!(error.outcome(), Outcome::NotApplied, "a read has no effect");
    assert_eq!(wire.count(ApiKey::FETCH), 1);
    partition.produce(record("a")).await.unwrap();
    assert_eq!(partition.fetch(1).await.unwrap().next_offset, 2);
}

#[cfg(feature = "compression-lz4")]
#[tokio::test(start_paused = true)]
async fn a_batch_that_decompresses_to_more_than_the_limit_is_an_error_with_its_offset() {
    let broker = broker();
    let client = crate::support::builder(&broker).build().await.unwrap();
    let writer = client.partition_client("wal", 0).compression(Compression::Lz4).await.unwrap();
    writer.produce(record("a")).await.unwrap();
    let produced = writer.produce(large(1 << 20)).await.unwrap();
    assert!(produced.wire_bytes < 10_000);
    let wire = Wire::to(&broker);
    let reader = limited(&wire, Limits::default().decompressed(1_000_000)).await;
    let fetched = reader.fetch(0).await.unwrap();
    let mut records = fetched.records();
    assert_eq!(records.next().unwrap().unwrap().offset, 0);
    let error = records.next().unwrap().unwrap_err();
    assert!(records.next().is_none());
    assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error:?}");
    let source: &kwal_protocol::record::BatchError = source(&error);
    assert_eq!(source.base_offset, Some(1));
    assert_eq!(writer.fetch(0).await.unwrap().records().collect::<Result<Vec<_>, _>>().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_batch_written_with_the_defaults_is_read_with_the_defaults() {
    let broker = EmbeddedCluster::builder()
        .topic_with("wal", 1, &[("max.message.bytes", "104857600")])
        .start_in_memory()
        .unwrap();
    let partition = open(&broker).await;
    let limit = Limits::default().batch;
    partition.produce(large(limit - 200)).await.unwrap();
    assert_eq!(partition.fetch(0).await.unwrap().records().collect::<Result<Vec<_>, _>>().unwrap().len(), 1);
    partition.produce(large(limit)).await.unwrap_err();
    assert_eq!(log(&broker).len(), 1);
}
