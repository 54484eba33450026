//! TLS and SASL: a client that trusts one CA, and proves who it is by SCRAM.
//!
//! ```sh
//! cargo run -p kwal --example tls_sasl --features tls-ring
//! KAFKA_CONNECT=localhost:9094 KAFKA_CA=ca.pem KAFKA_USER=alice KAFKA_PASSWORD=alice-secret \
//!     cargo run -p kwal --example tls_sasl --features tls-ring
//! ```
//!
//! The first runs on an embedded broker with TLS in front of it.

use std::{env, error::Error};

use kwal::{
    Client, ClientBuilder, Record,
    client::{OffsetAt, sasl::Sasl},
    consumer,
    transport::tls,
};

#[allow(dead_code, reason = "of the brokers, this example has its own")]
mod brokers;
#[path = "tls_sasl/secured.rs"]
mod secured;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What a client has to know of a listener with `security.protocol=SASL_SSL`.
struct Listener {
    brokers: Vec<String>,
    /// The CA of the brokers' certificates, as PEM.
    ca: Vec<u8>,
    user: String,
    password: String,
}

impl Listener {
    fn of_the_environment() -> Result<Option<Self>> {
        let Some(brokers) = env::var("KAFKA_CONNECT").ok().filter(|named| !named.is_empty()) else {
            return Ok(None);
        };
        let variable = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
        Ok(Some(Self {
            brokers: brokers.split(',').map(str::to_owned).collect(),
            ca: std::fs::read(variable("KAFKA_CA")?)?,
            user: variable("KAFKA_USER")?,
            password: variable("KAFKA_PASSWORD")?,
        }))
    }

    async fn connect(&self, password: &str) -> std::result::Result<Client, kwal::Error> {
        ClientBuilder::new(self.brokers.clone())
            // The names in the certificates have to be those that the brokers advertise.
            .tls(tls::ring().roots_pem(self.ca.clone()))
            .sasl(Sasl::scram_sha_512(&self.user, password))
            .build()
            .await
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (listener, _embedded) = match Listener::of_the_environment()? {
        Some(listener) => (listener, None),
        None => {
            let (listener, broker) = secured::start("alice", "alice-secret").await?;
            (listener, Some(broker))
        }
    };
    let client = listener.connect(&listener.password).await?;
    let topic = brokers::new_topic("tls-sasl");
    let controller = client.controller_client().await?;
    controller.create_topic(&topic, 1, -1).await?;
    let wal = client.partition_client(&topic, 0).await?;
    wal.produce(vec![Record::new("key", "not to be read on the way")]).await?;
    let mut replay = consumer::replay(&wal, OffsetAt::Earliest).await?;
    let batch = replay.next_batch().await?.ok_or("the log is empty")?;
    assert_eq!(batch.offsets(), 0..1);
    println!("appended and read as {}", listener.user);
    controller.delete_topic(&topic).await?;

    // An error at once, with the broker's words: it is not tried again, which could lock the account.
    let error = listener.connect("a guess").await.err().ok_or("any password is accepted")?;
    println!("{error}");
    assert!(error.to_string().contains("rejected the SASL SCRAM-SHA-512 authentication"), "{error}");
    assert!(!error.is_retriable());
    Ok(())
}
