//! A follower: it replays a log, then applies what is appended, until it is told to stop.
//!
//! ```sh
//! cargo run -p kwal --example follow
//! ```
//!
//! It runs on an embedded broker, or on the brokers of `KAFKA_CONNECT=host:port[,host:port…]`.

use std::error::Error;

use kwal::{
    Client, PartitionClient, Record,
    client::{FetchedBatch, Position},
    consumer,
};
use tokio::{
    select, spawn,
    sync::{oneshot, watch},
};

mod brokers;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Applies a log from a position on, from the log start without one. Returns where to go on when it is told
/// to stop, and what it has applied.
///
/// `applied` shows the offset up to which it has: a query waits for that of the change that it has to see.
async fn follow(
    wal: PartitionClient,
    kept: Option<Position>,
    applied: watch::Sender<i64>,
    mut stop: oneshot::Receiver<()>,
) -> Result<(Position, Vec<Vec<u8>>)> {
    let mut state = Vec::new();
    let mut apply = |batch: &FetchedBatch| {
        batch.for_each(|record| state.push(record.value.unwrap_or_default().to_vec()))?;
        applied.send_replace(batch.position().offset);
        Ok::<_, kwal::Error>(())
    };
    // To the end that the log has now. After it, the state is as good as that of any other reader.
    let mut replay = consumer::replay(&wal, kept).await?;
    replay.for_each_batch(&mut apply).await?;
    println!("recovered: {}", replay.summary());

    let mut stream = replay.follow();
    loop {
        select! {
            // A batch is handed over or kept for the next call: nothing is lost when it is not this branch.
            batch = stream.next_batch() => apply(&batch?)?,
            _ = &mut stop => break,
        }
    }
    println!("stopped: {}", stream.summary());
    Ok((stream.position(), state))
}

#[tokio::main]
async fn main() -> Result<()> {
    let (brokers, _embedded) = brokers::brokers().await?;
    let client = Client::connect(brokers).await?;
    let topic = brokers::new_topic("follow");
    let controller = client.controller_client().await?;
    controller.create_topic(&topic, 1, -1).await?;
    let wal = client.partition_client(&topic, 0).await?;

    let mut kept = None;
    for [there, later] in [["a", "b"], ["c", "d"]] {
        wal.produce(vec![Record::new(None::<&str>, there)]).await?;
        let (applied, mut is_applied) = watch::channel(0);
        let (stop, stopped) = oneshot::channel();
        let follower = spawn(follow(wal.clone(), kept, applied, stopped));

        let produced = wal.produce(vec![Record::new(None::<&str>, later)]).await?;
        let end = produced.offsets().ok_or("the broker does not report offsets")?.end;
        is_applied.wait_for(|applied| *applied >= end).await?;
        let _ = stop.send(());
        let (position, state) = follower.await??;
        // The second one goes on where the first one stopped.
        assert_eq!(state, [there.as_bytes(), later.as_bytes()]);
        kept = Some(position);
    }
    controller.delete_topic(&topic).await?;
    assert!(client.close().await.is_empty());
    Ok(())
}
