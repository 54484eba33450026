//! Exclusive writers on real brokers: processes that are stopped while others take over, and what is on the
//! log then.

mod brokers;
mod errors;
mod expiry;
mod in_doubt;
mod judge;
mod processes;
mod takeovers;

use kwal_client::{Client, ClientBuilder};
use kwal_tests::kafka::Kafka;

/// The name of all holders.
const NAME: &str = "writer";

async fn connect(kafka: &Kafka) -> Client {
    ClientBuilder::new(kafka.bootstrap()).build().await.unwrap()
}

/// Returns the version of the brokers, or where they are, to report times.
fn version(kafka: &Kafka) -> String {
    kafka.version().map_or_else(|| kafka.bootstrap().join(","), |version| version.to_string())
}

/// Returns the transactional id of the holders of partition 0, as it is documented.
fn transactional_id(topic: &str) -> String {
    format!("{NAME}/{topic}/0")
}
