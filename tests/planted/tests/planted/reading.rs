//! Reads, and logs that hold more than records.

use std::time::Duration;

use bytes::BytesMut;
use kwal_client::{OffsetAt, PartitionClient};
use kwal_protocol::{
    api::{ApiKey, Versions},
    error_code::ErrorCode,
    messages::FetchRequest,
};
use kwal_testkit::{EmbeddedCluster, Fault, wire::Wire};
use tokio::time::sleep;

use crate::fixture::Fixture;

/// Compaction has left holes, and a transaction its marker.
pub(crate) async fn compacted_log_with_marker() -> Fixture {
    let fixture = Fixture::one_broker();
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

/// Responses end with a part of a batch.
pub(crate) async fn partial_batches() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    for value in 0..10 {
        wal.append(&[&value.to_string()]).await;
    }
    let bytes = 3 * wal.append(&["10"]).await.map_or(0, |append| append.wire_bytes);
    fixture.read(fixture.reader(0), &wal.partition, 0, 11, bytes as i32).await;
    fixture
}

/// Opens partition 0 over a wire that can change responses.
pub(crate) async fn open_over_wire(fixture: &Fixture) -> (Wire, PartitionClient) {
    let wire = Wire::new(fixture.cluster.connector());
    let client = fixture.builder().connector(wire.clone()).build().await.unwrap();
    (wire, client.partition_client("wal", 0).await.unwrap())
}

/// A batch is damaged on its way to the reader.
pub(crate) async fn corrupt_batch() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    for value in ["a", "b", "c"] {
        wal.append(&[value]).await;
    }
    let (wire, partition) = open_over_wire(&fixture).await;
    wire.rewrite::<FetchRequest>(|response| {
        let records = response.responses[0].partitions[0].records.as_mut().unwrap();
        let mut damaged = BytesMut::from(&records[..]);
        damaged[20] ^= 1;
        *records = damaged.freeze();
    });
    let reader = fixture.reader(0);
    let next = fixture.read(reader, &partition, 0, 3, 1).await;
    wire.clear_rewrites();
    fixture.read(reader, &partition, next, 3, 1).await;
    fixture
}

/// Each batch of a response is in it twice.
pub(crate) async fn batches_twice() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    let (wire, partition) = open_over_wire(&fixture).await;
    wire.rewrite::<FetchRequest>(|response| {
        let records = response.responses[0].partitions[0].records.as_mut().unwrap();
        *records = [&records[..], records].concat().into();
    });
    let reader = fixture.reader(0);
    let next = fixture.read(reader, &partition, 0, 1, 1000).await;
    wire.clear_rewrites();
    fixture.read(reader, &partition, next, 1, 1000).await;
    fixture
}

/// No response has the whole of the first batch.
pub(crate) async fn batch_always_cut_off() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    let (wire, partition) = open_over_wire(&fixture).await;
    wire.rewrite::<FetchRequest>(|response| {
        response.responses[0].partitions[0].records.as_mut().unwrap().truncate(50);
    });
    fixture.expect(partition.fetch(0).await.is_err(), "a reader that never gets on has no error");
    wire.clear_rewrites();
    fixture.read(fixture.reader(0), &partition, 0, 1, 1000).await;
    fixture
}

/// A response has the records of another partition.
pub(crate) async fn answer_about_another_partition() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    let (wire, partition) = open_over_wire(&fixture).await;
    wire.rewrite::<FetchRequest>(|response| response.responses[0].partitions[0].partition_index = 1);
    fixture.expect(partition.fetch(0).await.is_err(), "records of another partition were read");
    wire.clear_rewrites();
    fixture.read(fixture.reader(0), &partition, 0, 1, 1000).await;
    fixture
}

pub(crate) async fn offset_within_batch() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a", "b", "c"]).await;
    fixture.read(fixture.reader(1), &wal.partition, 1, 3, 1000).await;
    fixture
}

/// Records are deleted before the reader gets to them.
pub(crate) async fn records_deleted() -> Fixture {
    let fixture = Fixture::one_broker();
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

/// The new leader does not know the high watermark yet.
pub(crate) async fn end_offset_after_election() -> Fixture {
    let fixture = Fixture::brokers(3);
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    // Followers get records at once, and learn the high watermark only later.
    for broker in [2, 3] {
        fixture.cluster.set_lag("wal", 0, broker, Duration::from_millis(100)).unwrap();
    }
    wal.append(&["b"]).await;
    fixture.cluster.stop(1).unwrap();
    let end = wal.partition.get_offset(OffsetAt::Latest).await.unwrap();
    fixture.expect(end == 2, "the end offset is before acknowledged records");
    fixture
}

/// The broker rejects one fetch because it does not know the topic id.
pub(crate) async fn topic_id_briefly_unknown() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::FETCH, Fault::Error(ErrorCode::UNKNOWN_TOPIC_ID));
    fixture.read(fixture.reader(0), &wal.partition, 0, 1, 1000).await;
    fixture
}

/// The topic is deleted and created again while a reader is on it, and requests name topics, not their ids.
pub(crate) async fn topic_recreated() -> Fixture {
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
    let recreated = fixture.open().await;
    for value in ["c", "d", "e"] {
        recreated.append(&[value]).await;
    }
    fixture.cluster.on(ApiKey::FETCH, Fault::Drop);
    // The first response may have been in flight when the topic was deleted.
    let next = fixture.read(reader, &wal.partition, next, 3, 1000).await;
    recreated.append(&["f"]).await;
    fixture.read(reader, &wal.partition, next, 4, 1000).await;
    fixture
}
