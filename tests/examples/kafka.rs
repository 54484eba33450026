//! Starts Apache Kafka, prints its addresses and stops it at the end of standard input.
//!
//! ```text
//! cargo run -p kwal-tests --example kafka -- 4.3.1              # or 3.9.2; one node
//! cargo run -p kwal-tests --example kafka -- 4.3.1 3            # three nodes
//! cargo run -p kwal-tests --example kafka -- 4.3.1 3 secured    # with TLS and SASL
//! ```

use std::io;

use kwal_tests::kafka::{
    Certificates, ClusterConfig, Kafka, MECHANISMS, PASSWORD, USER, Version, unsecured_token,
};

fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let version = match arguments.next().as_deref() {
        Some("3.9.2") => Version::V3_9_2,
        Some("4.3.1") | None => Version::V4_3_1,
        Some(other) => return Err(format!("unknown version {other}: use 3.9.2 or 4.3.1")),
    };
    let nodes = arguments.next().as_deref().unwrap_or("1").parse();
    let nodes = nodes.map_err(|e| format!("the number of nodes: {e}"))?;
    match arguments.next().as_deref() {
        None => wait(&Kafka::start(version, &ClusterConfig { nodes, ..ClusterConfig::default() })),
        Some("secured") => {
            let kafka = Kafka::start(version, &ClusterConfig::secured(nodes));
            print_listeners(&kafka);
            wait(&kafka)
        }
        Some(other) => Err(format!("unknown argument {other}: only `secured` is possible")),
    }
}

fn print_listeners(kafka: &Kafka) {
    if let Some(cluster) = kafka.cluster() {
        for listener in cluster.listeners() {
            println!("{listener:<16}{}", cluster.addresses(listener).join(","));
        }
    }
    let certificates = Certificates::shared();
    let (client, key) = certificates.client();
    println!("authority       {}", certificates.authority().display());
    println!("client          {}\nits key         {}", client.display(), key.display());
    println!("mechanisms      {}\nuser, password  {USER}, {PASSWORD}", MECHANISMS.join(", "));
    println!("token           {}", unsecured_token(USER, 86_400));
}

fn wait(kafka: &Kafka) -> Result<(), String> {
    println!("KAFKA_CONNECT={}", kafka.bootstrap().join(","));
    io::copy(&mut io::stdin(), &mut io::sink()).map_err(|e| e.to_string())?;
    Ok(())
}
