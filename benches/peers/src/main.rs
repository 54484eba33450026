//! Reads a log once by another client, or appends to one, and prints what it cost.
//!
//! The benchmark `replay` runs it: `kwal-bench-peers SUBJECT TOPIC RECORDS STEP HOST:PORT,…`. Each client
//! verifies checksums, and begins at offset 0 without a group. So does the benchmark `writers`, with the word
//! `write` before the arguments of its `Task`.

#[path = "../../src/replay/meter.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod meter;
#[path = "../../src/process.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod process;
#[path = "../../src/replay/task.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod task;
mod writers;

use std::{env, error::Error, process::ExitCode, time::Duration};

use self::{meter::Measured, task::Task};

const WAIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kwal-bench-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1).peekable();
    if arguments.next_if(|word| word == "write").is_some() {
        return write(&mut arguments);
    }
    let task = Task::from_arguments(&mut arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = match &*task.subject {
        "rskafka" => runtime.block_on(rskafka(&task)),
        "rdkafka" => rdkafka(&task),
        "krafka" => runtime.block_on(krafka(&task)),
        other => Err(format!("there is no {other}").into()),
    }?;
    println!("{measured}");
    Ok(())
}

fn write(arguments: &mut impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let task = writers::Task::from_arguments(arguments)?;
    let measured = match &*task.subject {
        "rskafka" => writers::rskafka(&task),
        "rdkafka" => writers::rdkafka(&task),
        other => Err(format!("there is no {other}").into()),
    };
    println!("{}", measured.map_err(|failure| failure as Box<dyn Error>)?);
    Ok(())
}

async fn rskafka(task: &Task) -> Result<Measured, Box<dyn Error>> {
    use rskafka::client::{
        ClientBuilder,
        partition::{OffsetAt, UnknownTopicHandling},
    };
    let client = ClientBuilder::new(task.bootstrap.clone()).build().await?;
    let partition = client.partition_client(&task.topic, 0, UnknownTopicHandling::Retry).await?;
    let end = partition.get_offset(OffsetAt::Latest).await?;
    let mut reading = task.reading();
    let mut next = 0;
    while next < end {
        let (records, _) = partition.fetch_records(next, 1..task.step, 500).await?;
        for record in &records {
            reading.value(record.record.value.as_deref().unwrap_or_default());
        }
        next = records.last().map_or(next, |record| record.offset + 1);
        reading.step()?;
    }
    reading.finish()
}

fn rdkafka(task: &Task) -> Result<Measured, Box<dyn Error>> {
    use rdkafka::{
        ClientConfig, Message, Offset, TopicPartitionList,
        consumer::{BaseConsumer, Consumer},
    };
    let step = task.step.to_string();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", task.bootstrap.join(","))
        .set("group.id", "replay")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .set("fetch.max.bytes", &step)
        .set("max.partition.fetch.bytes", &step)
        .create()?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(&task.topic, 0, Offset::Offset(0))?;
    consumer.assign(&from)?;
    let mut reading = task.reading();
    while reading.records() < task.records {
        let message = consumer.poll(WAIT).ok_or("nothing arrived")??;
        reading.value(message.payload().unwrap_or_default());
        reading.step()?;
    }
    reading.finish()
}

async fn krafka(task: &Task) -> Result<Measured, Box<dyn Error>> {
    let client = krafka::Kafka::builder(task.bootstrap.join(",")).connect().await?;
    let consumer = client
        .consumer_without_group()
        .fetch_max_bytes(task.step)
        .max_partition_fetch_bytes(task.step)
        .max_poll_records(-1)
        .max_buffered_records(0)
        .initial_offsets([(krafka::consumer::TopicPartition::new(&*task.topic, 0), 0)])
        .build()
        .await?;
    consumer.assign(&task.topic, vec![0]).await?;
    let mut reading = task.reading();
    while reading.records() < task.records {
        let records = consumer.poll(WAIT).await?;
        if records.is_empty() {
            return Err("nothing arrived".into());
        }
        for record in &records {
            reading.value(record.value.as_deref().unwrap_or_default());
        }
        reading.step()?;
    }
    reading.finish()
}
