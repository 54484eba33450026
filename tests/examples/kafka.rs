//! Starts an Apache Kafka, says where it is, and ends it with its standard input.
//!
//! ```text
//! cargo run -p kwal-tests --example kafka -- 3.9.2 [nodes]
//! ```

use std::io;

use kwal_tests::kafka::{ClusterConfig, Kafka, Version};

fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let version = match arguments.next().as_deref() {
        Some("3.9.2") => Version::V3_9_2,
        Some("4.3.1") | None => Version::V4_3_1,
        Some(other) => return Err(format!("no such version here: {other}; there are 3.9.2 and 4.3.1")),
    };
    let nodes = arguments.next().as_deref().unwrap_or("1").parse();
    let nodes = nodes.map_err(|e| format!("the number of nodes: {e}"))?;
    let kafka = Kafka::start(version, &ClusterConfig { nodes, ..ClusterConfig::default() });
    println!("KAFKA_CONNECT={}", kafka.bootstrap().join(","));
    io::copy(&mut io::stdin(), &mut io::sink()).map_err(|e| e.to_string())?;
    Ok(())
}
