//! C3: batches that are compressed, and come out larger than expected.

use std::time::Duration;

use futures::future::join_all;
use kwal_batching::producer::{Ack, BatchProducer};
use kwal_client::{
    Limits,
    error::{ErrorKind, Outcome},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, record::Compression};
use kwal_testkit::{Fault, FaultTarget, wire::Wire};

use crate::support::{Held, Rng, broker, builder, large, poll_once, record, send, settle, sizes, values};

const REJECTED: Fault = Fault::Error(ErrorCode::INVALID_RECORD);

async fn slot(producer: &BatchProducer, value: usize) -> Ack {
    send(producer, [value]).await.remove(0)
}

/// A batch that is larger than expected goes in parts, in order.
#[tokio::test(start_paused = true)]
async fn batches_that_compress_less_than_expected_keep_the_order() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).compression(Compression::Lz4).await.unwrap();
    let producer = BatchProducer::builder(partition.clone()).max_bytes(4_000).window(2).build();
    let mut rng = Rng(3);
    let mut sent = Vec::new();
    for round in 0..12 {
        broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(1)));
        let mut acks = Vec::new();
        for _ in 0..60 {
            // Every third round is noise, which becomes no smaller.
            let value: String = match round % 3 {
                2 => (0..300).map(|_| char::from(b' ' + rng.below(90) as u8)).collect(),
                _ => "x".repeat(300),
            };
            sent.push(value.clone());
            acks.push(producer.reserve().await.unwrap().send(record(value)));
        }
        for (index, ack) in acks.into_iter().enumerate() {
            let appended = ack.await.unwrap();
            assert_eq!(appended.offset, Some((round * 60 + index) as i64));
            assert!(appended.batch.offsets().unwrap().contains(&appended.offset.unwrap()));
            assert!(appended.batch.wire_bytes <= 4_000 || appended.batch.record_count == 1);
        }
    }
    assert_eq!(values(&broker), sent);
    // Some were split, and others have more than they could without compression.
    let stats = producer.stats();
    assert!(stats.batches > stats.queued.count, "{stats:?}");
    assert!(sizes(&broker).iter().any(|records| *records > 13));
    assert_eq!((stats.records, stats.appended), (720, 720));
    // All of the memory is free again.
    let all = Limits::default().memory / 4 * 3;
    assert!(partition.try_reserve(all.min(Limits::default().batch)).is_some());
}

/// A batch that cannot be encoded is as one that the broker rejects.
#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_encoded_leaves_no_hole() {
    let broker = broker();
    let limit = 2_000;
    let client = builder(&broker).limits(Limits::default().batch(limit)).build().await.unwrap();
    let partition = client.partition_client("wal", 0).compression(Compression::Lz4).await.unwrap();
    let producer = BatchProducer::builder(partition).build();
    producer.produce(record("first")).await.unwrap();
    let noise = |rng: &mut Rng, len: usize| -> Vec<u8> { (0..len).map(|_| rng.below(256) as u8).collect() };
    let mut rng = Rng(9);
    // As large as a batch may be before compression, and larger after it.
    let bad = producer.reserve().await.unwrap().send(record(noise(&mut rng, limit - 61 - 9)));
    let behind = slot(&producer, 10).await;
    settle().await;
    let also = slot(&producer, 11).await;
    let error = bad.await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BatchTooLarge { .. }), "{error:?}");
    for ack in [behind, also] {
        let error = ack.await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::PrecedingAppendFailed), "{error:?}");
        assert_eq!(error.outcome(), Outcome::NotApplied);
    }
    slot(&producer, 12).await.await.unwrap();
    assert_eq!(values(&broker), ["first", "12"]);
    let stats = producer.stats();
    assert_eq!((stats.appended, stats.failed, stats.batches), (2, 1, stats.wire.count));
    // Small records of which a batch would become too large are accepted in smaller ones.
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(1)));
    let first = slot(&producer, 13).await;
    let mut acks = Vec::new();
    for _ in 0..200 {
        let value: Vec<u8> = noise(&mut rng, 40).into_iter().map(|byte| byte % 128).collect();
        acks.push(producer.reserve().bytes(10).await.unwrap().send(record(value)));
    }
    for ack in acks {
        ack.await.unwrap();
    }
    first.await.unwrap();
}

/// What could not be encoded is not on the log, and close says so.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_encoded_is_not_delivered() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let limit = 2_000;
    let client = builder(&broker).connector(wire.clone()).limits(Limits::default().batch(limit));
    let client = client.build().await.unwrap();
    let partition =
        client.partition_client("wal", 0).compression(Compression::Lz4).max_in_flight(1).await.unwrap();
    let producer = BatchProducer::new(partition);
    producer.produce(record("warm")).await.unwrap();
    let mut rng = Rng(9);
    let noise: Vec<u8> = (0..limit - 61 - 9).map(|_| rng.below(256) as u8).collect();
    for is_sent in [true, false] {
        let producer = BatchProducer::new(producer.partition().clone());
        let held = Held::new(&wire);
        let first = send(&producer, 0..1).await.remove(0);
        let bad = producer.reserve().await.unwrap().send(record(noise.clone()));
        let mut close = producer.close().deadline(Duration::from_secs(1)).into_future();
        assert!(poll_once(&mut close).await.is_pending());
        if is_sent {
            held.release();
        }
        let left = close.await;
        held.release();
        let left: Vec<_> = left.iter().map(|left| left.records().remove(0).value.unwrap().len()).collect();
        assert_eq!(left, if is_sent { vec![noise.len()] } else { vec![1, noise.len()] });
        assert!(first.await.is_ok() == is_sent && bad.await.is_err());
    }
}

/// Of a batch that goes in parts, all inputs count as failed if one of its parts fails.
#[tokio::test(start_paused = true)]
async fn inputs_of_a_batch_in_parts_count_as_one() {
    let broker = broker();
    let client = builder(&broker).build().await.unwrap();
    let partition = client.partition_client("wal", 0).compression(Compression::Lz4).max_in_flight(1).await;
    let producer = BatchProducer::builder(partition.unwrap()).max_bytes(4_000).build();
    // What compresses well lets the next batch gather more than goes into one.
    for _ in 0..20 {
        producer.produce(large(3_500)).await.unwrap();
    }
    let mut rng = Rng(9);
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(1)));
    let mut acks = vec![producer.reserve().await.unwrap().send(large(3_500))];
    for _ in 0..20 {
        let noise: Vec<u8> = (0..1_000).map(|_| rng.below(256) as u8).collect();
        acks.push(producer.reserve().await.unwrap().send(record(noise)));
    }
    broker.on(FaultTarget::api(ApiKey::PRODUCE).after(1), REJECTED);
    let results = join_all(acks).await;
    let appended = results.iter().filter(|result| result.is_ok()).count() as u64;
    assert!(appended > 1 && appended < 21, "{appended}");
    let stats = producer.stats();
    assert_eq!((stats.appended, stats.failed), (21, 20));
}
