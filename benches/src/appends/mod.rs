//! Whole appends, without network and broker: kwal and the floor with a [peer](Peer) in their stream.

mod floor;
mod peer;

use std::{error::Error, fmt};

use kwal::client::{ClientBuilder, PartitionClient};
use kwal::record::Record;
use time::OffsetDateTime;
use tokio::runtime::{self, Runtime};

use self::floor::Floor;
pub use self::peer::Peer;
use crate::{kwal_records, values};

/// The topic of the peer.
const TOPIC: &str = "appends";
/// Appends of each case that are measured.
pub const APPENDS: usize = 500;
/// Appends before: for the handshake, the producer id, and buffers that grow to their size.
const WARM_UP: usize = 100;
/// How many callers append at the same time, where there are several.
const CALLERS: usize = 5;

/// How appends are made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// One after the other.
    Alone,
    /// Five at a time.
    Five,
}

/// The measured clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// kwal, with producer ids, as it is by default.
    Kwal,
    /// One copy of the value, the checksum, one write, one read.
    Floor,
}

/// A measured case: appends of one record each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Case {
    /// How they are made.
    pub operation: Operation,
    /// The size of a value in bytes.
    pub size: usize,
    /// The measured client.
    pub subject: Subject,
}

impl Case {
    /// Returns all cases.
    pub fn all() -> impl Iterator<Item = Self> {
        let cases = [
            (Operation::Alone, 100),
            (Operation::Alone, 1024),
            (Operation::Five, 100),
            (Operation::Five, 1024),
        ];
        cases.into_iter().flat_map(|(operation, size)| {
            let subjects = match operation {
                Operation::Alone => &[Subject::Floor, Subject::Kwal][..],
                Operation::Five => &[Subject::Kwal],
            };
            subjects.iter().map(move |&subject| Self { operation, size, subject })
        })
    }

    /// Returns the floor of the same size.
    pub fn floor(self) -> Self {
        Self { operation: Operation::Alone, subject: Subject::Floor, ..self }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = match self.operation {
            Operation::Alone => "append",
            Operation::Five => "five-appends",
        };
        let subject = match self.subject {
            Subject::Kwal => "kwal",
            Subject::Floor => "floor",
        };
        write!(f, "{operation} {}B {subject}", self.size)
    }
}

/// A connected client and the records that it is to append.
///
/// Everything runs on one thread, and the peer is called by it.
#[derive(Debug)]
pub struct Appends {
    runtime: Runtime,
    client: Client,
    operation: Operation,
    records: Vec<Vec<Record>>,
}

#[derive(Debug)]
enum Client {
    Kwal(PartitionClient),
    Floor(Floor),
}

impl Appends {
    /// Connects and warms up.
    ///
    /// # Errors
    /// The client's own.
    pub fn new(case: Case) -> Result<Self, Box<dyn Error>> {
        let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
        let client = match case.subject {
            Subject::Kwal => runtime.block_on(async {
                let builder = ClientBuilder::new([Peer::ADDRESS.to_owned()]).connector(Peer).seed(1);
                let client = builder.build().await?;
                Ok::<_, kwal::Error>(Client::Kwal(client.partition_client(TOPIC, 0).await?))
            })?,
            Subject::Floor => Client::Floor(Floor::new(Peer::stream())),
        };
        let records = |count: usize| {
            let values = values(count, case.size, 4);
            let mut records = kwal_records(values);
            for record in &mut records {
                record.timestamp = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
            }
            records.into_iter().map(|record| vec![record]).collect()
        };
        let mut appends = Self { runtime, client, operation: case.operation, records: records(WARM_UP) };
        appends.run()?;
        appends.records = records(APPENDS);
        Ok(appends)
    }

    /// Appends all records that are left.
    ///
    /// # Errors
    /// The client's own.
    pub fn run(&mut self) -> Result<(), Box<dyn Error>> {
        let Self { runtime, client, operation, records } = self;
        runtime.block_on(async {
            let mut records = records.drain(..);
            match (client, operation) {
                (Client::Floor(floor), _) => {
                    for records in records {
                        let value = records[0].value.as_ref().ok_or("a record without a value")?;
                        floor.append(value).await?;
                    }
                }
                (Client::Kwal(partition), Operation::Alone) => {
                    for records in records {
                        partition.produce(records).await?;
                    }
                }
                (Client::Kwal(partition), Operation::Five) => {
                    while let Some([a, b, c, d, e]) = next(&mut records) {
                        tokio::try_join!(
                            partition.produce(a).into_future(),
                            partition.produce(b).into_future(),
                            partition.produce(c).into_future(),
                            partition.produce(d).into_future(),
                            partition.produce(e).into_future(),
                        )?;
                    }
                }
            }
            Ok(())
        })
    }
}

fn next(records: &mut impl Iterator<Item = Vec<Record>>) -> Option<[Vec<Record>; CALLERS]> {
    records.take(CALLERS).collect::<Vec<_>>().try_into().ok()
}
