//! The allocations of reading: none per record.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use allocation_counter::{AllocationInfo, measure};
use kwal_batching::reader::{Unreadable, replay};
use kwal_client::{ClientBuilder, PartitionClient, error::Error, record::Record};
use kwal_testkit::EmbeddedCluster;
use tokio::runtime::Runtime;

/// Reads a log of batches of so many records. Returns what was allocated, by the client and the embedded
/// cluster alike, after a first time has made what stays.
fn measure_log(batches: i64, records: i64, policy: Unreadable) -> AllocationInfo {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (_cluster, partition) = runtime.block_on(log(batches, records));
    let read = || assert_eq!(read(&runtime, &partition, policy), batches * records);
    read();
    measure(read)
}

async fn log(batches: i64, records: i64) -> (EmbeddedCluster, PartitionClient) {
    let cluster = EmbeddedCluster::builder().topic("wal", 1).start_in_memory().unwrap();
    let client = ClientBuilder::new(cluster.bootstrap()).connector(cluster.connector());
    let partition = client.build().await.unwrap().partition_client("wal", 0).await.unwrap();
    for _ in 0..batches {
        let batch: Vec<_> = (0..records).map(|_| Record::new("key", "value").header("a", "b")).collect();
        partition.produce(batch).await.unwrap();
    }
    (cluster, partition)
}

fn read(runtime: &Runtime, partition: &PartitionClient, policy: Unreadable) -> i64 {
    runtime.block_on(async {
        let mut count = 0;
        let mut replay = replay(partition, 0).unreadable(policy).await.unwrap();
        let done: Result<(), Error> = replay.for_each_batch(|batch| batch.for_each(|_| count += 1)).await;
        done.unwrap();
        assert_eq!(replay.summary().records, count as u64);
        count
    })
}

#[test]
fn borrowed_batches_allocate_nothing_per_record() {
    for policy in [Unreadable::Fail, Unreadable::Skip] {
        let few = measure_log(4, 10, policy).count_total;
        let many = measure_log(4, 2_000, policy).count_total;
        // The tasks may run in another order.
        assert!(many <= few + 20, "{few} for 40 records, {many} for 8,000");
    }
}

/// A batch costs a place in a list and its reference counts.
#[test]
fn a_batch_allocates_little() {
    let few = measure_log(4, 10, Unreadable::Fail).count_total;
    let many = measure_log(404, 10, Unreadable::Fail).count_total;
    assert!(many <= few + 400 * PER_BATCH, "{few} for 4 batches, {many} for 404");
}

/// By the client, and by the cluster that reads them out of its log.
const PER_BATCH: u64 = 4;
