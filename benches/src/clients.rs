//! The clients side by side, on the embedded broker or real ones.

use std::{collections::BTreeMap, env, error::Error, sync::Arc};

use bytes::Bytes;
use kwal_testkit::EmbeddedCluster;
use time::OffsetDateTime;

/// Brokers that a benchmark runs on.
#[derive(Debug)]
pub struct Target {
    /// How to call them in a heading.
    pub name: String,
    /// `host:port` of each.
    pub bootstrap: Vec<String>,
    _embedded: Option<EmbeddedCluster>,
}

impl Target {
    /// The embedded broker, and the brokers of `KAFKA_CONNECT=host:port[,host:port…]` if that is set.
    ///
    /// # Errors
    /// Those of starting the embedded broker.
    pub async fn all() -> Result<Vec<Self>, Box<dyn Error>> {
        let broker = EmbeddedCluster::builder().start().await?;
        let bootstrap = broker.bootstrap();
        let mut targets =
            vec![Self { name: "embedded broker".to_owned(), bootstrap, _embedded: Some(broker) }];
        if let Ok(named) = env::var("KAFKA_CONNECT")
            && !named.is_empty()
        {
            let bootstrap = named.split(',').map(str::to_owned).collect();
            targets.push(Self { name: named, bootstrap, _embedded: None });
        }
        Ok(targets)
    }
}

/// Both clients on a topic of their own each.
#[derive(Debug)]
pub struct Pair {
    /// kwal as it is by default: idempotent, acks = all.
    pub kwal: kwal::client::PartitionClient,
    /// rskafka as it is by default: acks = all.
    pub rskafka: Arc<rskafka::client::partition::PartitionClient>,
    controller: kwal::client::ControllerClient,
    topics: [String; 2],
}

impl Pair {
    /// Creates the topics, whose names begin with `name`, and connects.
    ///
    /// # Errors
    /// The clients' own.
    pub async fn new(target: &Target, name: &str) -> Result<Self, Box<dyn Error>> {
        let client = kwal::client::ClientBuilder::new(target.bootstrap.clone()).build().await?;
        let controller = client.controller_client().await?;
        let unique = OffsetDateTime::now_utc().unix_timestamp_nanos();
        let topics = ["kwal", "rskafka"].map(|whose| format!("{name}-{whose}-{unique}"));
        for topic in &topics {
            controller.create_topic(topic, 1, 1).config("max.message.bytes", "16777216").await?;
        }
        let theirs = rskafka::client::ClientBuilder::new(target.bootstrap.clone()).build().await?;
        let unknown = rskafka::client::partition::UnknownTopicHandling::Retry;
        Ok(Self {
            kwal: client.partition_client(&topics[0], 0).await?,
            rskafka: theirs.partition_client(topics[1].clone(), 0, unknown).await?.into(),
            controller,
            topics,
        })
    }

    /// Deletes the topics.
    ///
    /// # Errors
    /// The client's own.
    pub async fn delete(self) -> Result<(), Box<dyn Error>> {
        for topic in &self.topics {
            self.controller.delete_topic(topic).await?;
        }
        Ok(())
    }
}

/// Records of kwal with these values.
pub fn kwal_records(values: Vec<Vec<u8>>) -> Vec<kwal::record::Record> {
    let timestamp = OffsetDateTime::now_utc();
    let record = |value| kwal::record::Record {
        key: None,
        value: Some(Bytes::from(value)),
        headers: kwal::record::Headers::new(),
        timestamp,
    };
    values.into_iter().map(record).collect()
}

/// Records of rskafka with these values.
pub fn rskafka_records(values: Vec<Vec<u8>>) -> Vec<rskafka::record::Record> {
    let timestamp = chrono::DateTime::from_timestamp_nanos(
        OffsetDateTime::now_utc().unix_timestamp_nanos().try_into().unwrap_or(i64::MAX),
    );
    let record = |value| rskafka::record::Record {
        key: None,
        value: Some(value),
        headers: BTreeMap::new(),
        timestamp,
    };
    values.into_iter().map(record).collect()
}
