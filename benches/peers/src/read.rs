//! Reads of a log.

use std::time::Duration;

use futures::future::try_join_all;

use crate::shared::{Failure, Measured, Meter, Task};

const WAIT: Duration = Duration::from_secs(10);
/// The most that one fetch has, where the task does not say: what the clients have by default, or as much as
/// kwal.
const STEP: i32 = 1 << 20;

const fn step(task: &Task) -> i32 {
    if task.step == 0 { STEP } else { task.step }
}

/// rskafka's `PartitionClient`, by one fetch after the other in each partition.
///
/// # Errors
/// The client's own.
pub async fn rskafka(task: &Task) -> Result<Measured, Failure> {
    use rskafka::client::{
        ClientBuilder,
        partition::{OffsetAt, UnknownTopicHandling},
    };
    let client = &ClientBuilder::new(task.brokers()).build().await?;
    let read = async |partition, mut meter: Meter| {
        let partition = client.partition_client(&*task.topic, partition, UnknownTopicHandling::Retry).await?;
        let end = partition.get_offset(OffsetAt::Latest).await?;
        let mut next = 0;
        while next < end {
            let (records, _) = partition.fetch_records(next, 1..step(task), 500).await?;
            for record in &records {
                meter.value(record.record.value.as_deref().unwrap_or_default());
            }
            next = records.last().map_or(next, |record| record.offset + 1);
            meter.step()?;
        }
        Ok::<_, Failure>(meter)
    };
    if task.partitions == 1 {
        return read(0, task.reading()).await?.finish();
    }
    let mut all = Meter::new();
    all.resume()?;
    let partitions = 0..task.partitions as i32;
    for meter in try_join_all(partitions.map(|partition| read(partition, Meter::new()))).await? {
        all.merge(&meter);
    }
    all.finish()
}

fn all(task: &Task) -> u64 {
    task.records as u64 * task.batches as u64 * task.partitions as u64
}

/// Of several partitions, everything is measured.
fn meter(task: &Task) -> Result<Meter, Failure> {
    if task.partitions == 1 {
        return Ok(task.reading());
    }
    let mut meter = Meter::new();
    meter.resume()?;
    Ok(meter)
}

/// rdkafka's `BaseConsumer`, which has threads of its own.
///
/// # Errors
/// The client's own.
pub fn rdkafka(task: &Task) -> Result<Measured, Failure> {
    use rdkafka::{
        ClientConfig, Message, Offset, TopicPartitionList,
        consumer::{BaseConsumer, Consumer},
    };
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &task.bootstrap)
        .set("group.id", "client")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true");
    if task.step > 0 {
        let step = task.step.to_string();
        config.set("fetch.max.bytes", &step).set("max.partition.fetch.bytes", &step);
    }
    let consumer: BaseConsumer = config.create()?;
    let mut from = TopicPartitionList::new();
    for partition in 0..task.partitions as i32 {
        from.add_partition_offset(&task.topic, partition, Offset::Offset(0))?;
    }
    let mut meter = meter(task)?;
    consumer.assign(&from)?;
    while meter.so_far() < all(task) {
        let message = consumer.poll(WAIT).ok_or("nothing arrived")??;
        meter.value(message.payload().unwrap_or_default());
        meter.step()?;
    }
    meter.finish()
}

/// krafka's consumer without a group.
///
/// # Errors
/// The client's own.
pub async fn krafka(task: &Task) -> Result<Measured, Failure> {
    let client = krafka::Kafka::builder(&*task.bootstrap).connect().await?;
    let partitions: Vec<_> = (0..task.partitions as i32).collect();
    let offset = |&partition: &i32| (krafka::consumer::TopicPartition::new(&*task.topic, partition), 0);
    let mut consumer = client.consumer_without_group();
    if task.step > 0 {
        consumer = consumer.fetch_max_bytes(task.step).max_partition_fetch_bytes(task.step);
    }
    let consumer = consumer
        .max_poll_records(-1)
        .max_buffered_records(0)
        .initial_offsets(partitions.iter().map(offset))
        .build()
        .await?;
    let mut meter = meter(task)?;
    consumer.assign(&task.topic, partitions).await?;
    while meter.so_far() < all(task) {
        let records = consumer.poll(WAIT).await?;
        if records.is_empty() {
            return Err("nothing arrived".into());
        }
        for record in &records {
            meter.value(record.value.as_deref().unwrap_or_default());
        }
        meter.step()?;
    }
    meter.finish()
}
