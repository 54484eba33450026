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

use crate::{fixture::Fixture, support::Wire};

/// The records that compaction has left, and the marker of a transaction.
pub(crate) async fn holes_and_markers() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    wal.append(&["a", "b", "gone"]).await;
    wal.append(&["all gone"]).await;
    wal.append(&["c"]).await;
    fixture.cluster.compact("wal", 0, |record| !record.value.as_ref().unwrap().ends_with(b"gone")).unwrap();
    fixture.cluster.end_transaction("wal", 0, (77, 0), true).unwrap();
    wal.append(&["d"]).await;
    fixture.read(fixture.reader(0), &wal.partition, 0, 6, 1).await;
    fixture
}

/// Fetches that end within a batch.
pub(crate) async fn in_pieces() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    for value in 0..10 {
        wal.append(&[&value.to_string()]).await;
    }
    let bytes = 3 * wal.append(&["10"]).await.map_or(0, |append| append.wire_bytes);
    fixture.read(fixture.reader(0), &wal.partition, 0, 11, bytes as i32).await;
    fixture
}

/// A batch that is damaged on its way.
pub(crate) async fn damaged() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    for value in ["a", "b", "c"] {
        wal.append(&[value]).await;
    }
    let wire = Wire::to(&fixture.cluster);
    let over = wire.client().await.partition_client("wal", 0).await.unwrap();
    wire.edit::<FetchRequest>(|response| {
        let records = response.responses[0].partitions[0].records.as_mut().unwrap();
        let mut damaged = BytesMut::from(&records[..]);
        damaged[20] ^= 1;
        *records = damaged.freeze();
    });
    let reader = fixture.reader(0);
    let next = fixture.read(reader, &over, 0, 3, 1).await;
    wire.clear_edits();
    fixture.read(reader, &over, next, 3, 1).await;
    fixture
}

pub(crate) async fn from_within_a_batch() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    wal.append(&["a", "b", "c"]).await;
    fixture.read(fixture.reader(1), &wal.partition, 1, 3, 1000).await;
    fixture
}

pub(crate) async fn deleted_meanwhile() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    for value in ["a", "b", "c", "d"] {
        wal.append(&[value]).await;
    }
    let reader = fixture.reader(0);
    let next = fixture.read(reader, &wal.partition, 0, 1, 1).await;
    fixture.cluster.delete_records("wal", 0, 3).unwrap();
    fixture.read(reader, &wal.partition, next, 4, 1).await;
    fixture
}

/// A leader that does not know yet up to where all have the log.
pub(crate) async fn end_after_an_election() -> Fixture {
    let fixture = Fixture::of(3);
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    // They have what comes at once, and learn only later that all have it.
    for broker in [2, 3] {
        fixture.cluster.set_lag("wal", 0, broker, Duration::from_millis(100)).unwrap();
    }
    wal.append(&["b"]).await;
    fixture.cluster.stop(1).unwrap();
    let end = wal.partition.get_offset(OffsetAt::Latest).await.unwrap();
    fixture.expect(end == 2, "the end is before what was acknowledged");
    fixture
}

pub(crate) async fn topic_unknown_for_a_moment() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::FETCH, Fault::Error(ErrorCode::UNKNOWN_TOPIC_ID));
    fixture.read(fixture.reader(0), &wal.partition, 0, 1, 1000).await;
    fixture
}

/// The topic is deleted and made again while a reader is at it, on brokers that are asked for topics by their names.
pub(crate) async fn topic_made_again() -> Fixture {
    let old = Versions::new(0, 12);
    let fixture =
        Fixture::start(EmbeddedCluster::builder().cap(ApiKey::FETCH, old).cap(ApiKey::PRODUCE, old));
    let wal = fixture.open().await;
    for value in ["a", "b"] {
        wal.append(&[value]).await;
    }
    let reader = fixture.reader(0);
    let next = fixture.read(reader, &wal.partition, 0, 2, 1000).await;
    fixture.cluster.recreate_topic("wal").unwrap();
    sleep(Duration::from_secs(1)).await;
    let again = fixture.open().await;
    for value in ["c", "d", "e"] {
        again.append(&[value]).await;
    }
    fixture.cluster.on(ApiKey::FETCH, Fault::Drop);
    // The first answer may have been under way when it happened.
    let next = fixture.read(reader, &wal.partition, next, 3, 1000).await;
    again.append(&["f"]).await;
    fixture.read(reader, &wal.partition, next, 4, 1000).await;
    fixture
}
