//! Creates a topic, appends to it, and replays it.

use kwal::{Client, Record, client::OffsetAt, consumer};

#[tokio::main]
async fn main() -> Result<(), kwal::Error> {
    let brokers = std::env::var("KAFKA_CONNECT").unwrap_or_else(|_| "localhost:9092".to_owned());
    let client = Client::connect(brokers.split(',')).await?;

    // Two partitions with one replica each, for a first try only. A topic that exists stays as it is.
    client.controller_client().await?.ensure_topic("wal", 2, 1).await?;

    // Append: when this returns, every in-sync replica has the batch, and the log has it once.
    let wal = client.partition_client("wal", 0).await?;
    let produced = wal.produce(vec![Record::new("account", "+100"), Record::new("account", "-30")]).await?;
    if let Some(offsets) = produced.offsets() {
        println!("appended at offsets {offsets:?}");
    }

    // Recover: replay it from a position (an application keeps its own) to its end.
    let mut replay = consumer::replay(&wal, OffsetAt::Earliest).await?;
    while let Some(batch) = replay.next_batch().await? {
        for record in batch.records() {
            let record = record?;
            println!("{}: {:?} {:?}", record.offset, record.key, record.value);
        }
    }
    Ok(())
}
