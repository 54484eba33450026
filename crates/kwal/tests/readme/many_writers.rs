use kwal::{Error, PartitionClient, Record, producer::BatchProducer};
use tokio::task::JoinSet;

/// Appends from a thousand tasks. Returns what each did, with its offset.
async fn serve(wal: PartitionClient) -> Result<Vec<(u32, Option<i64>)>, Error> {
    let wal = BatchProducer::new(wal);
    let mut tasks = JoinSet::new();
    for task in 0..1_000 {
        let wal = wal.clone();
        tasks.spawn(async move {
            let appended = wal.produce(Record::new("task", task.to_string())).await?;
            Ok((task, appended.offset))
        });
    }
    let appended = tasks.join_all().await.into_iter().collect();
    println!("{} batches of {:.0} records", wal.stats().batches, wal.stats().mean_records());
    appended
}
