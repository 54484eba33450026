//! Shared parts of the benchmarks: brokers, kwal and rskafka side by side, and tables.
//!
//! Results of different runs are not comparable, because machines fluctuate. The ratios within one run are,
//! in which the clients take turns.

pub mod codec;

use std::{collections::BTreeMap, env, error::Error, fmt, sync::Arc};

use bytes::Bytes;
use kwal_testkit::EmbeddedCluster;
use time::OffsetDateTime;

/// Brokers that a benchmark runs on.
#[derive(Debug)]
pub struct Target {
    /// The name in headings.
    pub name: String,
    /// `host:port` of each.
    pub bootstrap: Vec<String>,
    _embedded: Option<EmbeddedCluster>,
}

impl Target {
    /// Returns the embedded broker, and the brokers of `KAFKA_CONNECT=host:port[,host:port…]` if that is set.
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

/// Both clients, each on its own topic.
#[derive(Debug)]
pub struct Pair {
    /// kwal with its defaults: idempotent, acks = all.
    pub kwal: kwal::client::PartitionClient,
    /// rskafka with its defaults: acks = all.
    pub rskafka: Arc<rskafka::client::partition::PartitionClient>,
    controller: kwal::client::ControllerClient,
    topics: [String; 2],
}

impl Pair {
    /// Creates the topics, whose names start with `name`, and connects.
    ///
    /// # Errors
    /// Those of the clients.
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
    /// Those of the client.
    pub async fn delete(self) -> Result<(), Box<dyn Error>> {
        for topic in &self.topics {
            self.controller.delete_topic(topic).await?;
        }
        Ok(())
    }
}

/// Returns `count` incompressible values of `size` bytes.
pub fn values(count: usize, size: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed;
    let mut word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)).to_le_bytes()
    };
    (0..count)
        .map(|_| {
            let mut value: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| word()).collect();
            value.truncate(size);
            value
        })
        .collect()
}

/// Returns records of kwal with these values.
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

/// Returns records of rskafka with these values.
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

/// Returns the median; of an even number of values the lower one.
///
/// # Panics
/// If there are no values.
pub fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("figures compare"));
    values[(values.len() - 1) / 2]
}

/// A table of text: the first column is left-aligned, all others are right-aligned.
#[derive(Debug, Default)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// Creates a table with these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self(vec![headings.map(str::to_owned).to_vec()])
    }

    /// Appends a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.push(cells.to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |at| self.0.iter().filter_map(|row| row.get(at)).map(|c: &String| c.chars().count()).max();
        let widths: Vec<_> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
        for row in &self.0 {
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match at {
                    0 => write!(f, "{cell:<width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![3, 1, 2]), 2);
        assert_eq!(median(vec![4, 1, 3, 2]), 2);
        assert!((median(vec![0.5]) - 0.5_f64).abs() < f64::EPSILON);
    }

    #[test]
    fn tables_line_up() {
        let mut table = Table::new(["size", "ms"]);
        table.row(["1 KiB".to_owned(), "0.1".to_owned()]);
        table.row(["100".to_owned(), "12.25".to_owned()]);
        assert_eq!(table.to_string(), "size      ms\n1 KiB    0.1\n100    12.25\n");
    }

    #[test]
    fn values_have_their_size_and_differ() {
        let values = values(3, 13, 7);
        assert!(values.iter().all(|value| value.len() == 13));
        assert!(values[0] != values[1] && values[1] != values[2]);
    }
}
