//! The allocations of readers and producers: none per record.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use allocation_counter::{AllocationInfo, measure};
use futures::StreamExt;
use kwal_batching::{
    entry::{Item, Reader},
    producer::BatchProducer,
    reader::{Unreadable, replay},
};
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

/// Entries of one record cost what records cost: the list of their headers.
#[test]
fn small_entries_allocate_what_their_records_do() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (_cluster, partition) = runtime.block_on(log(4, 2_000));
    let records = || {
        runtime.block_on(async {
            let records = replay(&partition, 0).await.unwrap();
            assert_eq!(
                records.fold(0, async |count, record| count + record.map(|_| 1).unwrap()).await,
                8_000
            );
        });
    };
    let entries = || {
        runtime.block_on(async {
            let mut reader = Reader::new(replay(&partition, 0).await.unwrap());
            for _ in 0..8_000 {
                assert!(matches!(reader.next().await.unwrap(), Some(Item::Entry(_))));
            }
        });
    };
    records();
    let (records, entries) = (measure(records).count_total, measure(entries).count_total);
    assert!(entries <= records + 20, "{records} as records, {entries} as entries");
}

/// Has so many callers append so many records each, one after another, through one producer. Returns what was
/// allocated, by the client and the embedded cluster alike, and how many batches were appended.
fn measure_appends(callers: usize, records: usize) -> (u64, u64) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (_cluster, partition) = runtime.block_on(log(0, 0));
    let producer = BatchProducer::new(partition);
    let run = |records: usize| {
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let producer = producer.clone();
                runtime.spawn(async move {
                    let record = Record::new("key", "value").header("a", "b");
                    for _ in 0..records {
                        producer.produce(&record).await.unwrap();
                    }
                })
            })
            .collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
    };
    // What stays: connections, and buffers of the size that batches have.
    run(3);
    let before = producer.stats();
    let allocated = measure(|| run(records)).count_total;
    let stats = producer.stats();
    assert_eq!(stats.appended - before.appended, (callers * records) as u64);
    (allocated, stats.batches - before.batches)
}

/// Only batches cost something, however many records they have, and however many callers wait for them.
#[test]
fn appends_of_many_callers_allocate_per_batch() {
    for callers in [1, 10, 1_000] {
        // To spawn the callers costs the same.
        let (few, batches) = measure_appends(callers, 10);
        let (many, more_batches) = measure_appends(callers, 110);
        let (allocated, batches) = (many - few, more_batches - batches);
        // Now and then a caller misses the batch of the others.
        assert!(batches <= 110, "{batches} batches");
        assert!(allocated <= batches * PER_APPEND, "{allocated} for {batches} batches of {callers}");
    }
}

/// By the client for a batch that it appends, and by the cluster that appends it to its log.
const PER_APPEND: u64 = 35;
