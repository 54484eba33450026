//! Tests of your own code: a cluster inside the test, faults as plain calls, and no waiting.
//!
//! ```sh
//! cargo run -p kwal --example embed_in_your_tests
//! ```
//!
//! In your tests, `#[tokio::test(start_paused = true)]` takes the place of `main`: time is paused, and jumps
//! to the next moment when something is due. `crates/kwal/tests/own_wal.rs` is a larger one, with a checker.

use std::{error::Error, time::Duration};

use kwal::{ClientBuilder, Outcome, PartitionClient, Record, protocol::ApiKey};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::time::Instant;

/// The code to be tested: it takes an order, and says what the customer has to know.
async fn take_order(wal: &PartitionClient, order: &str) -> &'static str {
    match wal.produce(vec![Record::new(None::<&str>, order)]).deadline(Duration::from_secs(120)).await {
        Ok(_) => "we have your order",
        Err(error) if error.outcome() == Outcome::NotApplied => "please try again later",
        Err(_) => "we will tell you whether we have your order",
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = EmbeddedCluster::builder().brokers(3).topic("orders", 1).start_in_memory()?;
    let client = ClientBuilder::new(cluster.bootstrap()).connector(cluster.connector()).build().await?;
    let wal = client.partition_client("orders", 0).await?;
    assert_eq!(take_order(&wal, "a").await, "we have your order");

    // The response is lost: the append is sent again, and is on the log once.
    cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    assert_eq!(take_order(&wal, "b").await, "we have your order");
    assert_eq!((cluster.requests(ApiKey::PRODUCE), cluster.faults_left()), (3, 0));

    // The leader dies. Another one takes its place when the cluster has missed it for some seconds.
    let begun = Instant::now();
    let leader = cluster.leader("orders", 0)?.ok_or("a leader")?;
    cluster.kill(leader)?;
    assert_eq!(take_order(&wal, "c").await, "we have your order");
    assert!(begun.elapsed() > Duration::from_secs(5));
    println!("the leader was killed: the order took {:.1?} of virtual time", begun.elapsed());

    // No broker is left. Two minutes of virtual time pass at once.
    let begun = Instant::now();
    for broker in (1..=3).filter(|broker| *broker != leader) {
        cluster.kill(broker)?;
    }
    assert_eq!(take_order(&wal, "d").await, "please try again later");
    println!("all brokers were killed: that was said after {:.1?}", begun.elapsed());

    for broker in 1..=3 {
        cluster.restart(broker)?;
    }
    let orders = cluster.records("orders", 0)?.into_iter().map(|record| record.value.unwrap_or_default());
    assert_eq!(orders.collect::<Vec<_>>(), ["a", "b", "c"]);
    Ok(())
}
