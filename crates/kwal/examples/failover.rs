//! A standby takes over a log while its primary is stopped in the middle of an append.
//!
//! ```sh
//! cargo run -p kwal --example failover
//! ```
//!
//! It runs on an embedded broker, or on the brokers of `KAFKA_CONNECT=host:port[,host:port…]`.

use std::{error::Error, sync::mpsc, thread};

use futures::StreamExt;
use kwal::{
    Client, ErrorKind, Outcome, PartitionClient, Record, client::OffsetAt, consumer, record::Barrier,
};
use tokio::{runtime, sync::oneshot, task::spawn_blocking, time::Instant};

mod brokers;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The name of the role. Both processes have it. The log belongs to the one that was opened last.
const NAME: &str = "primary-of-orders";

#[tokio::main]
async fn main() -> Result<()> {
    let (brokers, _embedded) = brokers::brokers().await?;
    let client = Client::connect(brokers.clone()).await?;
    let topic = brokers::new_topic("failover");
    let controller = client.controller_client().await?;
    controller.create_topic(&topic, 1, -1).await?;

    // The primary has a thread, a runtime and a client of its own, as if it were another process.
    let (stopped, is_stopped) = oneshot::channel();
    let (go_on, goes_on) = mpsc::channel();
    let primary = thread::spawn({
        let topic = topic.clone();
        move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(primary(brokers, &topic, stopped, &goes_on))
        }
    });
    let standby = match is_stopped.await {
        Ok(()) => Some(standby(&client, &topic).await?),
        // The error of the primary says why.
        Err(_) => None,
    };
    let _ = go_on.send(());
    let acknowledged = spawn_blocking(|| primary.join()).await?.map_err(|_| "the primary panicked")??;
    let wal = standby.ok_or("the primary was not stopped")?;
    append(&wal, "another order of the standby").await?;
    println!("standby: still holds the log");

    let entries = read(&wal, wal.get_offset(OffsetAt::Latest).await?).await?;
    let of_standby = ["an order of the standby", "another order of the standby"].map(str::to_owned);
    let expected: Vec<_> = acknowledged.into_iter().chain(of_standby).collect();
    assert_eq!(entries, expected);
    println!("the log has what was acknowledged, {} entries, and nothing that came too late", entries.len());
    controller.delete_topic(&topic).await?;
    Ok(())
}

/// Appends until it is stopped in the middle of an append. Returns the entries that were acknowledged.
async fn primary(
    brokers: Vec<String>,
    topic: &str,
    stopped: oneshot::Sender<()>,
    goes_on: &mpsc::Receiver<()>,
) -> Result<Vec<String>> {
    let client = Client::connect(brokers).await?;
    let wal = client.partition_client(topic, 0).exclusive(NAME).await?;
    let holder = wal.holder().ok_or("it was opened by a name")?;
    println!("primary: holds the log, epoch {}, barrier at offset {}", holder.epoch, holder.barrier);
    let mut acknowledged = Vec::new();
    for n in 0..100 {
        let entry = format!("order {n}");
        append(&wal, &entry).await?;
        acknowledged.push(entry);
    }
    println!("primary: {} entries are acknowledged", acknowledged.len());

    let batch = wal.encode([Record::new(None::<&str>, "an order that comes too late")])?;
    let append = wal.reserve(batch.size_in_bytes()).await?.submit(batch);
    println!("primary: is stopped in the middle of an append");
    let _ = stopped.send(());
    // It blocks the thread, and so all of this client, like a signal that stops a process.
    let _ = goes_on.recv();
    println!("primary: goes on with its append");

    let error = append.await.err().ok_or("an append of the earlier holder was acknowledged")?;
    println!("primary: {error}");
    assert!(matches!(error.kind(), ErrorKind::Fenced));
    assert_eq!(error.outcome(), Outcome::NotApplied);
    // A process that appends nothing at the moment waits for this.
    let why = wal.fenced().await;
    assert!(matches!(why.kind(), ErrorKind::Fenced), "{why}");
    println!("primary: steps down");
    Ok(acknowledged)
}

/// Becomes the holder, replays to the barrier, and goes on.
async fn standby(client: &Client, topic: &str) -> Result<PartitionClient> {
    println!("standby: the primary is silent, so it takes over");
    let begun = Instant::now();
    let wal = client.partition_client(topic, 0).exclusive(NAME).await?;
    let holder = wal.holder().ok_or("it was opened by a name")?;
    println!("standby: holds the log, epoch {}, barrier at offset {}", holder.epoch, holder.barrier);
    let entries = read(&wal, holder.barrier).await?;
    println!("standby: has replayed {} entries up to the barrier", entries.len());
    let offset = append(&wal, "an order of the standby").await?;
    println!("standby: its first append is at offset {offset}, {:.1?} after it began", begun.elapsed());
    Ok(wal)
}

async fn append(wal: &PartitionClient, entry: &str) -> Result<i64> {
    let produced = wal.produce(vec![Record::new(None::<&str>, entry)]).await?;
    Ok(produced.base_offset.ok_or("the broker does not report offsets")?)
}

/// Reads the entries before an offset. Barriers are not part of the data.
async fn read(wal: &PartitionClient, end: i64) -> Result<Vec<String>> {
    let mut replay = consumer::replay(wal, OffsetAt::Earliest).end(end).await?;
    let mut entries = Vec::new();
    while let Some(record) = replay.next().await {
        let record = record?;
        if Barrier::parse(&record).is_none() {
            entries.push(String::from_utf8(record.value.unwrap_or_default().to_vec())?);
        }
    }
    Ok(entries)
}
