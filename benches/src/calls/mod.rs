//! Whole appends and fetches, without network and broker: kwal and the floor with a [peer](Peer) in their
//! stream.

mod floor;
mod peer;

use std::fmt;

use bytes::Bytes;
use futures::StreamExt;
use kwal::client::{ClientBuilder, PartitionClient};
use kwal::consumer::{self, RecordStream};
use kwal::producer::BatchProducer;
use kwal::record::Record;
use kwal_protocol::{
    compression::Compression,
    record::{BatchBuilder, Headers},
};
use time::OffsetDateTime;
use tokio::runtime::{self, Runtime};

use self::floor::Floor;
pub use self::peer::Peer;
use crate::{kwal_records, shared::Failure, values};

/// The topic of the peer.
const TOPIC: &str = "calls";
/// Appends of each case that are measured, of one record each.
const APPENDS: usize = 500;
/// Appends before: for the handshake, the producer id, and buffers that grow to their size.
const WARM_UP: usize = 100;
/// How many callers append at the same time, where there are several.
const CALLERS: usize = 5;
/// How many callers of the batch producer append at the same time, and how often each.
const MANY: usize = 100;
const ROUNDS: usize = 10;
/// Appends of whole batches that are measured, and those before.
const BATCHES: usize = 10;
const WARM_UP_BATCHES: usize = 3;
/// Fetches of each case that are measured, of one batch each, and those before.
const FETCHES: usize = 20;
const WARM_UP_FETCHES: usize = 5;
/// The records of a batch.
const RECORDS: usize = 1_000;
const TIMESTAMP: i64 = 1_700_000_000_000;

/// Installs a recorder of metrics with the feature `metrics`, if `RECORDER` is `atomic`.
///
/// # Errors
/// Another one is installed, or `RECORDER` is something else.
pub fn install_recorder() -> Result<(), Failure> {
    match std::env::var("RECORDER").as_deref() {
        Err(_) => Ok(()),
        #[cfg(feature = "metrics")]
        Ok("atomic") => {
            metrics_util::debugging::DebuggingRecorder::new().install().map_err(|error| error.to_string())?;
            Ok(())
        }
        Ok(other) => Err(format!("there is no recorder {other}").into()),
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Appends, one after the other.
    Alone,
    /// Appends of whole batches of so many records, one after the other.
    Batch(usize),
    /// Appends, five at a time.
    Five,
    /// Appends by a batch producer, one after the other.
    Batched,
    /// Appends by a batch producer, of a hundred callers.
    Hundred,
    /// Fetches, one after the other, whose records are borrowed.
    Borrowed(Compression),
    /// A stream of owned records, with one fetch ahead.
    Owned(Compression),
}

impl Operation {
    /// Returns the records that are appended or read.
    pub const fn records(self) -> usize {
        match self {
            Self::Alone | Self::Five | Self::Batched => APPENDS,
            Self::Batch(records) => BATCHES * records,
            Self::Hundred => MANY * ROUNDS,
            Self::Borrowed(_) | Self::Owned(_) => FETCHES * RECORDS,
        }
    }
}

/// The measured clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// kwal, with producer ids, as it is by default.
    Kwal,
    /// Of an append: one copy of each value, the checksum, one write, one read; the records of a hundred
    /// callers are in one batch. Of a fetch: one write, a read
    /// into the same buffer, the checksum, and every varint of the records.
    Floor,
}

/// A measured case.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Case {
    /// What is measured.
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
            (Operation::Batch(10_000), 100),
            (Operation::Batch(1_000), 1024),
            (Operation::Batch(100), 100_000),
            (Operation::Five, 100),
            (Operation::Five, 1024),
            (Operation::Batched, 100),
            (Operation::Batched, 1024),
            (Operation::Hundred, 100),
            (Operation::Hundred, 1024),
            (Operation::Borrowed(Compression::None), 100),
            (Operation::Borrowed(Compression::None), 1024),
            (Operation::Borrowed(Compression::Lz4), 1024),
            (Operation::Owned(Compression::None), 100),
            (Operation::Owned(Compression::None), 1024),
            (Operation::Owned(Compression::Lz4), 1024),
        ];
        cases.into_iter().flat_map(|(operation, size)| {
            let subjects = match operation {
                Operation::Alone | Operation::Batch(_) | Operation::Hundred | Operation::Borrowed(_) => {
                    &[Subject::Floor, Subject::Kwal][..]
                }
                Operation::Five | Operation::Batched | Operation::Owned(_) => &[Subject::Kwal],
            };
            subjects.iter().map(move |&subject| Self { operation, size, subject })
        })
    }

    /// Returns the floor of the same size.
    pub const fn floor(self) -> Self {
        let operation = match self.operation {
            Operation::Alone | Operation::Five | Operation::Batched => Operation::Alone,
            Operation::Hundred | Operation::Batch(_) => self.operation,
            Operation::Borrowed(codec) | Operation::Owned(codec) => Operation::Borrowed(codec),
        };
        Self { operation, subject: Subject::Floor, ..self }
    }

    /// Returns what the peer answers fetches with.
    fn batch(self) -> Result<Bytes, Failure> {
        let (Operation::Borrowed(codec) | Operation::Owned(codec)) = self.operation else {
            return Ok(Bytes::new());
        };
        let mut builder = BatchBuilder::new(codec);
        for mut value in values(RECORDS, self.size, 4) {
            // Something to compress.
            let half = value.len() / 2;
            value[..half].fill(b'-');
            builder.push(TIMESTAMP, None, Some(&value), &Headers::new());
        }
        Ok(builder.finish()?.to_bytes())
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = match self.operation {
            Operation::Alone => "append",
            Operation::Batch(_) => "append-batch",
            Operation::Five => "five-appends",
            Operation::Batched => "batched-append",
            Operation::Hundred => "hundred-callers",
            Operation::Borrowed(_) => "fetch-borrowed",
            Operation::Owned(_) => "stream-owned",
        };
        let codec = match self.operation {
            Operation::Batch(records) => format!(" ×{records}"),
            Operation::Borrowed(codec) | Operation::Owned(codec) if codec != Compression::None => {
                format!(" {codec}")
            }
            _ => String::new(),
        };
        let subject = match self.subject {
            Subject::Kwal => "kwal",
            Subject::Floor => "floor",
        };
        write!(f, "{operation} {}B{codec} {subject}", self.size)
    }
}

/// A connected client and what it is to do.
///
/// Everything runs on one thread, and the peer is called by it.
#[derive(Debug)]
pub struct Calls {
    runtime: Runtime,
    client: Client,
    operation: Operation,
    /// To be appended.
    records: Vec<Vec<Record>>,
    /// To be made, from an offset on.
    fetches: usize,
    from: i64,
}

#[derive(Debug)]
enum Client {
    Kwal(PartitionClient),
    Batched(BatchProducer),
    Stream(Box<RecordStream>),
    Floor(Box<Floor>),
}

impl Calls {
    /// Connects and warms up.
    ///
    /// # Errors
    /// The client's own.
    pub fn new(case: Case) -> Result<Self, Failure> {
        let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
        let batch = case.batch()?;
        let peer = Peer::new(batch.clone());
        let client = match case.subject {
            Subject::Kwal => runtime.block_on(async {
                let builder = ClientBuilder::new([Peer::ADDRESS.to_owned()]).connector(peer).seed(1);
                let partition = builder.build().await?.partition_client(TOPIC, 0).await?;
                Ok::<_, kwal::Error>(match case.operation {
                    Operation::Owned(_) => Client::Stream(consumer::follow(&partition, 0).await?.into()),
                    Operation::Batched | Operation::Hundred => Client::Batched(BatchProducer::new(partition)),
                    _ => Client::Kwal(partition),
                })
            })?,
            Subject::Floor => Client::Floor(Floor::new(peer.stream(), &batch).into()),
        };
        let at_once = match case.operation {
            Operation::Hundred => MANY,
            Operation::Batch(records) => records,
            _ => 1,
        };
        let records = |count: usize| {
            let values = values(count, case.size, 4);
            let mut records = kwal_records(values);
            for record in &mut records {
                record.timestamp = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
            }
            records.chunks(at_once).map(<[_]>::to_vec).collect()
        };
        let mut calls = Self {
            runtime,
            client,
            operation: case.operation,
            records: records(match case.operation {
                Operation::Batch(records) => WARM_UP_BATCHES * records,
                _ => WARM_UP.max(ROUNDS * at_once),
            }),
            fetches: WARM_UP_FETCHES,
            from: 0,
        };
        calls.run()?;
        calls.records = records(case.operation.records());
        calls.fetches = FETCHES;
        Ok(calls)
    }

    /// Makes all calls that are left.
    ///
    /// # Errors
    /// The client's own; what was read is not what the peer has.
    pub fn run(&mut self) -> Result<(), Failure> {
        match self.operation {
            Operation::Alone | Operation::Batch(_) | Operation::Five | Operation::Batched => self.append(),
            Operation::Hundred => self.append_many(),
            Operation::Borrowed(_) | Operation::Owned(_) => self.fetch(),
        }
    }

    fn append(&mut self) -> Result<(), Failure> {
        let Self { runtime, client, operation, records, .. } = self;
        runtime.block_on(async {
            let mut records = records.drain(..);
            match (client, operation) {
                (Client::Floor(floor), _) => {
                    for records in records {
                        floor.append(&records).await?;
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
                (Client::Batched(producer), _) => {
                    for record in records.flatten() {
                        producer.produce(record).await?;
                    }
                }
                (Client::Stream(_), _) => return Err("a stream does not append".into()),
                (Client::Kwal(partition), _) => {
                    for records in records {
                        partition.produce(records).await?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Makes appends of many callers, which are tasks: each has one record of every batch of the floor.
    fn append_many(&mut self) -> Result<(), Failure> {
        let Self { runtime, client, records, .. } = self;
        let Client::Batched(producer) = client else { return self.append() };
        let mut callers: Vec<_> = (0..MANY).map(|_| Vec::with_capacity(ROUNDS)).collect();
        for (caller, record) in records.drain(..).flat_map(|batch| batch.into_iter().enumerate()) {
            callers[caller].push(record);
        }
        runtime.block_on(async {
            let call = |records: Vec<Record>| {
                let producer = producer.clone();
                async move {
                    for record in records {
                        producer.produce(record).await?;
                    }
                    Ok::<_, kwal::Error>(())
                }
            };
            let callers: Vec<_> = callers.into_iter().map(|records| tokio::spawn(call(records))).collect();
            for caller in callers {
                caller.await??;
            }
            Ok(())
        })
    }

    fn fetch(&mut self) -> Result<(), Failure> {
        let Self { runtime, client, fetches, from, .. } = self;
        let begin = *from;
        let mut records = 0;
        runtime.block_on(async {
            for _ in 0..*fetches {
                match client {
                    Client::Floor(floor) => *from += floor.fetch(|_| records += 1).await?,
                    Client::Batched(_) => return Err("a producer does not fetch".into()),
                    Client::Kwal(partition) => {
                        let fetched = partition.fetch(*from).await?;
                        fetched.for_each(|record| records += i64::from(record.value.is_some()))?;
                        *from = fetched.next_offset;
                    }
                    Client::Stream(stream) => {
                        for _ in 0..RECORDS {
                            let record = stream.next().await.ok_or("the stream ended")??;
                            records += i64::from(record.value.is_some());
                        }
                        *from = stream.position().offset;
                    }
                }
            }
            Ok::<_, Failure>(())
        })?;
        let expected = (*fetches * RECORDS) as i64;
        match (records, *from - begin) == (expected, expected) {
            true => Ok(()),
            false => Err(format!("{records} records up to {from}, not {expected} from {begin} on").into()),
        }
    }
}

fn next(records: &mut impl Iterator<Item = Vec<Record>>) -> Option<[Vec<Record>; CALLERS]> {
    records.take(CALLERS).collect::<Vec<_>>().try_into().ok()
}
