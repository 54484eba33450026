//! Reads, and what lies on the log besides records.

use std::time::Duration;

use bytes::BytesMut;
use kwal_client::OffsetAt;
use kwal_protocol::{
    api::{ApiKey, Versions},
    error_code::ErrorCode,
    messages::FetchRequest,
};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::time::sleep;

use crate::{bench::Bench, support::Wire};

/// The records that compaction has left, and the marker of a transaction.
pub(crate) async fn holes_and_markers() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    wal.append(&["a", "b", "gone"]).await;
    wal.append(&["all gone"]).await;
    wal.append(&["c"]).await;
    bench.cluster.compact("wal", 0, |record| !record.value.as_ref().unwrap().ends_with(b"gone")).unwrap();
    bench.cluster.end_transaction("wal", 0, (77, 0), true).unwrap();
    wal.append(&["d"]).await;
    bench.read(bench.reader(0), &wal.partition, 0, 6, 1).await;
    bench
}

/// Fetches that end within a batch.
pub(crate) async fn in_pieces() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    for value in 0..10 {
        wal.append(&[&value.to_string()]).await;
    }
    let bytes = 3 * wal.append(&["10"]).await.map_or(0, |append| append.wire_bytes);
    bench.read(bench.reader(0), &wal.partition, 0, 11, bytes as i32).await;
    bench
}

/// A batch that is damaged on its way.
pub(crate) async fn damaged() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    for value in ["a", "b", "c"] {
        wal.append(&[value]).await;
    }
    let wire = Wire::to(&bench.cluster);
    let over = wire.client().await.partition_client("wal", 0).await.unwrap();
    wire.edit::<FetchRequest>(|response| {
        let records = response.responses[0].partitions[0].records.as_mut().unwrap();
        let mut damaged = BytesMut::from(&records[..]);
        damaged[20] ^= 1;
        *records = damaged.freeze();
    });
    let reader = bench.reader(0);
    let next = bench.read(reader, &over, 0, 3, 1).await;
    wire.clear_edits();
    bench.read(reader, &over, next, 3, 1).await;
    bench
}

pub(crate) async fn from_within_a_batch() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    wal.append(&["a", "b", "c"]).await;
    bench.read(bench.reader(1), &wal.partition, 1, 3, 1000).await;
    bench
}

pub(crate) async fn deleted_meanwhile() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    for value in ["a", "b", "c", "d"] {
        wal.append(&[value]).await;
    }
    let reader = bench.reader(0);
    let next = bench.read(reader, &wal.partition, 0, 1, 1).await;
    bench.cluster.delete_records("wal", 0, 3).unwrap();
    bench.read(reader, &wal.partition, next, 4, 1).await;
    bench
}

/// A leader that does not know yet up to where all have the log.
pub(crate) async fn end_after_an_election() -> Bench {
    let bench = Bench::of(3);
    let wal = bench.open().await;
    wal.append(&["a"]).await;
    // They have what comes at once, and learn only later that all have it.
    for broker in [2, 3] {
        bench.cluster.set_lag("wal", 0, broker, Duration::from_millis(100)).unwrap();
    }
    wal.append(&["b"]).await;
    bench.cluster.stop(1).unwrap();
    let end = wal.partition.get_offset(OffsetAt::Latest).await.unwrap();
    bench.expect(end == 2, "the end is before what was acknowledged");
    bench
}

pub(crate) async fn topic_unknown_for_a_moment() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    wal.append(&["a"]).await;
    bench.cluster.on(ApiKey::FETCH, Fault::Error(ErrorCode::UNKNOWN_TOPIC_ID));
    bench.read(bench.reader(0), &wal.partition, 0, 1, 1000).await;
    bench
}

/// The topic is deleted and made again while a reader is at it, on brokers that are asked for topics by their names.
pub(crate) async fn topic_made_again() -> Bench {
    let old = Versions::new(0, 12);
    let bench = Bench::start(EmbeddedCluster::builder().cap(ApiKey::FETCH, old).cap(ApiKey::PRODUCE, old));
    let wal = bench.open().await;
    for value in ["a", "b"] {
        wal.append(&[value]).await;
    }
    let reader = bench.reader(0);
    let next = bench.read(reader, &wal.partition, 0, 2, 1000).await;
    bench.cluster.recreate_topic("wal").unwrap();
    sleep(Duration::from_secs(1)).await;
    let again = bench.open().await;
    for value in ["c", "d", "e"] {
        again.append(&[value]).await;
    }
    bench.cluster.on(ApiKey::FETCH, Fault::Drop);
    // The first answer may have been under way when it happened.
    let next = bench.read(reader, &wal.partition, next, 3, 1000).await;
    again.append(&["f"]).await;
    bench.read(reader, &wal.partition, next, 4, 1000).await;
    bench
}
