//! Accounts whose changes are on a log: many tasks make them at the same time, and share batches.
//!
//! ```sh
//! cargo run -p kwal --example many_writers
//! ```
//!
//! It runs on an embedded broker, or on the brokers of `KAFKA_CONNECT=host:port[,host:port…]`.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use kwal::{Client, Record, client::OffsetAt, consumer, producer::Router};
use tokio::task::JoinSet;

mod brokers;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The balance of each account, and the log of all changes. Those of one account are on one partition.
struct Accounts {
    balances: Vec<Mutex<i64>>,
    wal: Router,
}

impl Accounts {
    /// Changes a balance. Returns the new one when it is on the log.
    async fn add(&self, account: usize, amount: i64) -> std::result::Result<i64, kwal::Error> {
        let key = format!("account-{account}");
        // It waits for room, and is in no order yet.
        let slot = self.wal.for_key(key.as_bytes()).reserve().await?;
        let (balance, ack) = {
            let mut balance = self.balances[account].lock().expect("nothing panics under it");
            *balance += amount;
            // A plain call: the order on the log is that of the lock.
            (*balance, slot.send(Record::new(key, format!("{amount:+} {balance}"))))
        };
        ack.await?;
        Ok(balance)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (brokers, _embedded) = brokers::brokers().await?;
    let client = Client::connect(brokers).await?;
    let topic = brokers::new_topic("many-writers");
    let controller = client.controller_client().await?;
    controller.create_topic(&topic, 4, -1).await?;

    let balances = (0..50).map(|_| Mutex::new(0)).collect();
    let accounts = Arc::new(Accounts { balances, wal: Router::open(&client, &topic).await? });
    let mut tasks = JoinSet::new();
    for task in 0..1_000 {
        let accounts = Arc::clone(&accounts);
        tasks.spawn(async move { accounts.add(task % 50, task as i64 - 400).await });
    }
    for balance in tasks.join_all().await {
        balance?;
    }
    if let Some(undelivered) = accounts.wal.close().await.into_iter().next() {
        return Err(undelivered.error.into());
    }
    let stats = accounts.wal.stats();
    println!("{} changes are on the log, in {} batches", stats.appended, stats.batches);
    println!(
        "gathered for {:.1?} on average, on the wire for {:.1?}",
        stats.queued.mean(),
        stats.wire.mean()
    );

    let mut recovered = BTreeMap::<_, i64>::new();
    for producer in accounts.wal.producers() {
        let mut replay = consumer::replay(producer.partition(), OffsetAt::Earliest).await?;
        while let Some(record) = replay.next().await {
            let record = record?.into_detached();
            let change = String::from_utf8(record.value.unwrap_or_default().to_vec())?;
            let (amount, balance) = change.split_once(' ').ok_or("a change and what came of it")?;
            let recovered = recovered.entry(record.key).or_default();
            *recovered += amount.parse::<i64>()?;
            assert_eq!(*recovered, balance.parse::<i64>()?, "offset {}", record.offset);
        }
    }
    let balances = accounts.balances.iter().map(|balance| *balance.lock().expect("nothing panics under it"));
    assert_eq!(recovered.values().sum::<i64>(), balances.sum::<i64>());
    println!("the log has every change of {} accounts, each in order", recovered.len());
    controller.delete_topic(&topic).await?;
    Ok(())
}
