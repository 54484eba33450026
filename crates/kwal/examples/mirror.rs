//! A mirror: the batches of a partition are appended to another one as they are, still compressed.
//!
//! ```sh
//! cargo run -p kwal --example mirror
//! ```
//!
//! It runs on an embedded broker, or on the brokers of `KAFKA_CONNECT=host:port[,host:port…]`. Both topics
//! are on the same cluster here; between two it is the same, with a client for each. The recipe `mirror` of
//! the guide says what to keep for it to be exactly once.

use std::error::Error;

use kwal::{
    Client, PartitionClient, Record,
    client::{Fetched, FetchedBatch, Position},
    consumer,
    record::{BatchHeader, Compression, EncodedBatch},
};

mod brokers;

/// Copies what lies between a position, or the log start, and the end of the source. Returns where to go on.
async fn copy(
    source: &PartitionClient,
    mirror: &PartitionClient,
    kept: Option<Position>,
) -> Result<Position, kwal::Error> {
    let mut replay = consumer::replay(source, kept).await?;
    while let Some(fetched) = replay.next_batch().await? {
        let batch = encode(&fetched, mirror)?;
        mirror.reserve(batch.size_in_bytes()).await?.submit(batch).await?;
    }
    Ok(replay.position())
}

/// Returns the batch as it is, or its records in a new one: after compaction, or if it begins before the
/// position.
fn encode(fetched: &FetchedBatch, mirror: &PartitionClient) -> Result<EncodedBatch, kwal::Error> {
    let batch = fetched.batch();
    let is_whole = fetched.offsets() == (batch.base_offset()..batch.next_offset());
    match EncodedBatch::from_fetched(batch) {
        Ok(encoded) if is_whole => Ok(encoded),
        _ => {
            let records: Result<Vec<Record>, kwal::Error> =
                fetched.records().map(|record| Ok(record?.into())).collect();
            mirror.encode(records?)
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (brokers, _embedded) = brokers::brokers().await?;
    let client = Client::connect(brokers).await?;
    let controller = client.controller_client().await?;
    let topics = ["mirror-source", "mirror-target"].map(brokers::new_topic);
    for topic in &topics {
        controller.create_topic(topic, 1, -1).await?;
    }
    let source = client.partition_client(&topics[0], 0).compression(Compression::Lz4).await?;
    let mirror = client.partition_client(&topics[1], 0).await?;

    let account = |change: &str| Record::new("account", change.repeat(100));
    source.produce(vec![account("+100 "), account("-30 ")]).await?;
    let kept = copy(&source, &mirror, None).await?;
    source.produce(vec![account("+5 ")]).await?;
    copy(&source, &mirror, Some(kept)).await?;

    let (original, copied) = (source.fetch(0).await?, mirror.fetch(0).await?);
    assert_eq!(bodies(&original), bodies(&copied));
    let producer = |fetched: &Fetched| fetched.batches()[0].producer_id();
    assert_ne!(producer(&original), producer(&copied));
    println!("{} batches are on the mirror, byte for byte", bodies(&copied).len());
    for topic in &topics {
        controller.delete_topic(topic).await?;
    }
    Ok(())
}

/// The compressed records of each batch, with its first offset. What precedes them, a mirror has of its own.
fn bodies(fetched: &Fetched) -> Vec<(i64, &[u8])> {
    fetched.batches().iter().map(|batch| (batch.base_offset(), &batch.bytes()[BatchHeader::LEN..])).collect()
}
