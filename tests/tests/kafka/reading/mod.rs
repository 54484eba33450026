//! Reading the logs of real brokers: what they have besides records, and what becomes of readers when
//! records are deleted, lost or replaced.

mod compaction;
mod elections;
mod followers;
mod judge;
mod recreated;
mod restarts;
mod transactions;
mod trimming;
mod unreadable;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use kwal_batching::reader::{RecordStream, Replay};
use kwal_client::record::Record;
use kwal_client::{Client, ClientBuilder, FetchedBatch, Isolation, PartitionClient};
use kwal_protocol::record::OwnedRecord;
use kwal_tests::kafka::{ClusterConfig, Kafka, Version};
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::fidelity::log::Log;
use crate::fidelity::world::{Backend, World};
use crate::raw::Broker;

kwal_tests::suite! {
    own: [odd_logs],
}

/// One broker that cleans often, takes the word of producers that they have begun a transaction, and has
/// short windows of quotas.
async fn odd_logs(version: Version) {
    let properties = [
        ("log.cleaner.backoff.ms", "100"),
        ("log.initial.task.delay.ms", "100"),
        ("transaction.partition.verification.enable", "false"),
        ("quota.window.num", "2"),
    ];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let kafka = Kafka::start(version, &ClusterConfig { properties, ..ClusterConfig::default() });
    tokio::join!(
        compaction::holes(&kafka),
        compaction::an_emptied_tail(&kafka),
        transactions::hanging(&kafka),
        followers::throttled(&kafka),
    );
    // It restarts the broker.
    compaction::a_tail_that_is_gone(&kafka).await;
}

const ISOLATIONS: [Isolation; 2] = [Isolation::ReadUncommitted, Isolation::ReadCommitted];

async fn connect(kafka: &Kafka) -> Client {
    ClientBuilder::new(kafka.bootstrap()).build().await.unwrap()
}

/// Connects to the leader of partition 0 without a client.
async fn open(kafka: &Kafka, topic: &str) -> Log {
    let mut connection = Broker::leading(&kafka.bootstrap()[0], topic).await;
    let id = connection.topic_id(topic).await;
    Log { connection, topic: topic.to_owned(), id, partition: 0 }
}

/// Transactions on a broker, by single requests.
fn world(kafka: &'static Kafka) -> World {
    World::new(Backend::Real(kafka), OffsetDateTime::now_utc(), Rc::default())
}

/// Reads to the end of a replay.
async fn read_to_end(replay: &mut Replay) -> BTreeMap<i64, String> {
    let mut read = BTreeMap::new();
    while let Some(batch) = replay.next_batch().await.unwrap() {
        take(&batch, &mut read);
    }
    assert!(replay.next_batch().await.unwrap().is_none(), "after the end");
    read
}

/// Reads a stream up to an offset.
async fn read_up_to(stream: &mut RecordStream, end: i64) -> BTreeMap<i64, String> {
    let mut read = BTreeMap::new();
    while stream.position().offset < end {
        // It does not return for a marker at the end.
        if let Ok(batch) = timeout(Duration::from_millis(50), stream.next_batch()).await {
            take(&batch.unwrap(), &mut read);
        }
    }
    read
}

/// Adds the records of a batch, which have to come after all others.
fn take(batch: &FetchedBatch, read: &mut BTreeMap<i64, String>) {
    for record in batch.records() {
        let record = record.unwrap();
        let last = read.last_key_value().map(|(offset, _)| *offset);
        assert!(last < Some(record.offset), "{} after {last:?}", record.offset);
        read.insert(record.offset, value(&record));
    }
}

fn value(record: &OwnedRecord) -> String {
    String::from_utf8(record.value.as_deref().unwrap_or_default().to_vec()).unwrap()
}

/// Appends one record, and returns its offset.
async fn append(partition: &PartitionClient, value: impl Into<String>) -> i64 {
    let record = Record::new("key", value.into());
    partition.produce(vec![record]).await.unwrap().base_offset.unwrap()
}

/// Returns the current time. Batches with distant timestamps would be in different segments.
fn now_ms() -> i64 {
    (OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000) as i64
}
