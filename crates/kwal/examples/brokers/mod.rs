//! What the examples run on.

use std::env;

use kwal_testkit::{EmbeddedCluster, Error};
use time::OffsetDateTime;

/// Returns the brokers of `KAFKA_CONNECT=host:port[,host:port…]`, or one in this process, which lives as long
/// as its handle.
pub(crate) async fn brokers() -> Result<(Vec<String>, Option<EmbeddedCluster>), Error> {
    match env::var("KAFKA_CONNECT") {
        Ok(named) if !named.is_empty() => Ok((named.split(',').map(str::to_owned).collect(), None)),
        _ => {
            let broker = EmbeddedCluster::builder().start().await?;
            Ok((broker.bootstrap(), Some(broker)))
        }
    }
}

/// Returns the name of a topic that no other run uses.
pub(crate) fn new_topic(example: &str) -> String {
    format!("{example}-{}", OffsetDateTime::now_utc().unix_timestamp_nanos())
}
