//! Records metrics in memory, and prints them with the states of the client and its partition client.
//!
//! A service installs the recorder of an exporter instead, such as that of `metrics-exporter-prometheus`.

mod brokers;

use kwal::{Client, Record, consumer};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before the client: metrics are registered as it opens what they are about.
    let recorder = DebuggingRecorder::new();
    let figures = recorder.snapshotter();
    recorder.install().map_err(|error| error.to_string())?;

    let (brokers, _embedded) = brokers::brokers().await?;
    let client = Client::connect(brokers).await?;
    let topic = brokers::new_topic("metrics");
    client.controller_client().await?.create_topic(&topic, 1, 1).await?;
    let wal = client.partition_client(&topic, 0).await?;

    let mut last = 0;
    for amount in 0..10 {
        let produced = wal.produce(vec![Record::new("account", amount.to_string()); 10]).await?;
        last = produced.offsets().map_or(last, |offsets| offsets.end);
    }
    let (mut replay, mut read) = (consumer::replay(&wal, last.saturating_sub(100)).await?, 0);
    replay.for_each_batch(|batch| batch.for_each(|_record| read += 1)).await?;
    println!("read {read} records");

    let mut appended = 0;
    for (key, unit, _description, value) in figures.snapshot().into_vec() {
        let unit = unit.map_or("", |unit| unit.as_canonical_label());
        match value {
            DebugValue::Counter(count) => {
                println!("{} {count} {unit}", key.key());
                if key.key().name() == "kwal_appended_records_total" {
                    appended += count;
                }
            }
            DebugValue::Gauge(value) => println!("{} {value} {unit}", key.key()),
            DebugValue::Histogram(values) if values.is_empty() => {}
            DebugValue::Histogram(values) => {
                let mean = values.iter().map(|value| **value).sum::<f64>() / values.len() as f64;
                println!("{} {} values, mean {mean:.6} {unit}", key.key(), values.len());
            }
        }
    }
    assert_eq!(appended, 100, "records that this process has appended");

    // For a log, a health check, or troubleshooting.
    println!("\n{}\n{}", client.state(), wal.state());
    assert_eq!(wal.state().in_flight, 0);
    client.controller_client().await?.delete_topic(&topic).await?;
    Ok(())
}
