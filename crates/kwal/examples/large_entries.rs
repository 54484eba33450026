//! Entries of any size on one log: those that are larger than a batch go in fragments, and come back whole.
//!
//! ```sh
//! cargo run -p kwal --example large_entries
//! ```
//!
//! It runs on an embedded broker, or on the brokers of `KAFKA_CONNECT=host:port[,host:port…]`.

use std::error::Error;

use kwal::{
    Client, Record,
    client::OffsetAt,
    consumer,
    entry::{Checkpoint, Item, Reader, Writer},
};

mod brokers;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (brokers, _embedded) = brokers::brokers().await?;
    let client = Client::connect(brokers).await?;
    let topic = brokers::new_topic("large-entries");
    let controller = client.controller_client().await?;
    controller.create_topic(&topic, 1, -1).await?;
    let wal = client.partition_client(&topic, 0).await?;

    let writer = Writer::new(wal.clone());
    let mut appended = Vec::new();
    for (key, size) in [("change", 100), ("state", 5_000_000), ("change", 200)] {
        let entry = writer.append(Record::new(key, vec![7; size])).await?;
        println!("{size} bytes in {} records, up to offset {:?}", entry.fragments, entry.last);
        appended.push((key, size, entry.fragments));
    }
    // What fits into a batch is a plain record. A topic takes batches of 1 MiB unless it is configured.
    let is_split = appended.iter().map(|(.., fragments)| *fragments > 1);
    assert_eq!(is_split.collect::<Vec<_>>(), [false, true, false]);

    let mut reader = Reader::new(consumer::replay(&wal, OffsetAt::Earliest).await?);
    let (mut read, mut kept) = (Vec::new(), String::new());
    while let Some(item) = reader.next().await? {
        match item {
            // Whole, once, and with the checksum that it was appended with.
            Item::Entry(entry) => read.push((entry.key, entry.value.map_or(0, |value| value.len()))),
            // Its writer died in the middle, or retention cut it.
            Item::Incomplete(incomplete) => eprintln!("{incomplete}"),
            _ => {}
        }
        if read.len() == 2 {
            kept = reader.checkpoint().to_string();
        }
    }
    let expected = appended.iter().map(|(key, size, _)| (Some((*key).into()), *size));
    assert_eq!(read, expected.collect::<Vec<_>>());

    // It is kept in place of a position: the entry of another writer may begin before it and end after it.
    let kept: Checkpoint = kept.parse()?;
    let mut resumed = Reader::new(consumer::replay(&wal, kept.from).await?).resume(&kept);
    let Some(Item::Entry(entry)) = resumed.next().await? else { return Err("no entry".into()) };
    assert_eq!(entry.value.map(|value| value.len()), Some(200));
    assert!(resumed.next().await?.is_none());
    println!("read {} entries, and the last one again from a checkpoint", read.len());
    controller.delete_topic(&topic).await?;
    Ok(())
}
