//! Many tasks, each of which appends one record at a time.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hdrhistogram::Histogram;
use indicatif::{HumanCount, ProgressBar};
use kwal::{
    client::{Client, OffsetAt},
    consumer,
    producer::{BatchProducer, Router},
    record::{Headers, Record},
};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    Failure, all,
    content::{Content, unique},
    options::{Options, share},
    report::{Phase, Report, histogram, nanos, progress},
};

/// Append, replay and verify; the report.
pub(crate) async fn job(client: &Client, options: &Options, writers: i32) -> Result<Report, Failure> {
    let content = Content { seed: unique(), size: options.size };
    let router = open(client, options).await?;
    let latencies = Arc::new(Mutex::new(histogram()));

    let bar = progress("append", options.records);
    let start = Instant::now();
    let writing = (0..writers).map(|index| {
        let partition = index % options.partitions;
        let producer = &router.producers()[partition as usize];
        // Each partition has its share of the records, and each of its writers a share of that.
        let together = share(writers as u64, options.partitions as u64, partition as u64);
        let count = share(options.share(partition), together, (index / options.partitions) as u64);
        let writer = Writer { index, count, content, latencies: Arc::clone(&latencies) };
        writer.run(producer.clone(), bar.clone())
    });
    let written = all(writing).await?;
    let time = start.elapsed();
    bar.finish_and_clear();
    // All have their answers, so nothing is left.
    if let Some(undelivered) = router.close().await.first() {
        return Err(undelivered.error.clone().into());
    }

    let bar = progress("replay", options.records);
    let start = Instant::now();
    let mut partitions: Vec<Vec<Written>> = (0..options.partitions).map(|_| Vec::new()).collect();
    for (index, written) in written.into_iter().enumerate() {
        partitions[index % options.partitions as usize].push(written);
    }
    let reading = router.producers().iter().zip(partitions);
    let reading = reading.map(|(producer, written)| {
        let partition = producer.partition();
        replay(partition.clone(), Expected::new(partition.partition(), written, content), bar.clone())
    });
    let replayed = all(reading).await?;
    let replay =
        Phase { time: start.elapsed(), wire_bytes: replayed.iter().map(|read| read.wire_bytes).sum() };
    bar.finish_and_clear();

    let stats = router.stats();
    let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Report {
        append: Phase { time, wire_bytes: stats.wire_bytes },
        replay,
        latencies,
        each: match writers {
            1 => "appends of one record by one writer".to_owned(),
            _ => format!("appends of one record by {} writers", HumanCount(writers as u64)),
        },
        producers: Some(stats),
        verified: "each writer's count, order, acknowledged offsets and every byte",
        checksum: replayed.iter().fold(0, |sum, read| sum ^ read.checksum),
        ends: replayed.iter().map(|read| read.end).collect(),
    })
}

/// A producer for each partition.
async fn open(client: &Client, options: &Options) -> Result<Router, Failure> {
    let mut producers = Vec::new();
    for partition in 0..options.partitions {
        let partition = client.partition_client(&options.topic, partition);
        producers.push(BatchProducer::new(partition.compression(options.compression).await?));
    }
    Ok(Router::new(producers)?)
}

/// A task that appends one record at a time.
struct Writer {
    index: i32,
    /// How many records.
    count: u64,
    content: Content,
    /// Of each append, in nanoseconds. One for all writers: there may be very many of them.
    latencies: Arc<Mutex<Histogram<u64>>>,
}

/// What was acknowledged to a writer.
struct Written {
    index: i32,
    /// The offset of each record.
    offsets: Vec<i64>,
}

impl Writer {
    async fn run(self, producer: BatchProducer, bar: ProgressBar) -> Result<Written, Failure> {
        let Self { index, count, content, latencies } = self;
        let mut offsets = Vec::new();
        for number in 0..count {
            let mut value = vec![0; content.size];
            content.fill(index, number, &mut value);
            let value = Some(Bytes::from(value));
            let timestamp = OffsetDateTime::now_utc();
            let record = Record { key: None, value, headers: Headers::new(), timestamp };
            let start = Instant::now();
            let appended = producer.produce(record).await?;
            let latency = nanos(start.elapsed());
            latencies.lock().unwrap_or_else(PoisonError::into_inner).record(latency)?;
            offsets.push(appended.offset.ok_or_else(|| "the broker does not report offsets".to_owned())?);
            bar.inc(1);
        }
        Ok(Written { index, offsets })
    }
}

/// What has to be on a partition: the records of its writers, each where its writer was told.
struct Expected {
    partition: i32,
    /// By index.
    written: Vec<Written>,
    content: Content,
    /// How many records of each writer came back.
    found: Vec<u64>,
    /// For the value that is expected next.
    value: Vec<u8>,
}

impl Expected {
    fn new(partition: i32, written: Vec<Written>, content: Content) -> Self {
        let (found, value) = (vec![0; written.len()], vec![0; content.size]);
        Self { partition, written, content, found, value }
    }

    /// Compares the next record with what its writer appended next.
    fn check(&mut self, offset: i64, value: &[u8]) -> Result<(), Failure> {
        let Self { partition, written, content, found, value: expected } = self;
        let problem = |problem: String| {
            Err(Failure::from(format!("partition {partition}, offset {offset}: {problem}")))
        };
        let Some((writer, number)) = Content::identity(value) else {
            return problem(format!("a value of {} bytes instead of {}", value.len(), content.size));
        };
        let Ok(place) = written.binary_search_by_key(&writer, |written| written.index) else {
            return problem("a record of none of its writers".to_owned());
        };
        let next = found[place];
        if number != next {
            return problem(format!("record {number} of writer {writer} instead of its record {next}"));
        }
        let Some(acknowledged) = written[place].offsets.get(number as usize) else {
            return problem(format!("record {number} of writer {writer}, which did not append so many"));
        };
        if *acknowledged != offset {
            return problem(format!(
                "record {number} of writer {writer}, which was acknowledged at offset {acknowledged}"
            ));
        }
        content.fill(writer, number, expected);
        if value != expected {
            return problem(format!("record {number} of writer {writer} is not what was appended"));
        }
        found[place] += 1;
        Ok(())
    }

    /// Checks that everything came back.
    fn end(&self) -> Result<(), Failure> {
        for (Written { index, offsets }, found) in self.written.iter().zip(&self.found) {
            if *found != offsets.len() as u64 {
                return Err(Failure::from(format!(
                    "partition {}: writer {index} appended {} records, and {found} came back",
                    self.partition,
                    offsets.len()
                )));
            }
        }
        Ok(())
    }
}

/// What came back.
struct Replayed {
    end: i64,
    checksum: u32,
    wire_bytes: u64,
}

/// Reads the partition from its first record to its end, and checks each record.
async fn replay(
    partition: kwal::PartitionClient,
    mut expected: Expected,
    bar: ProgressBar,
) -> Result<Replayed, Failure> {
    let mut replay = consumer::replay(&partition, OffsetAt::Earliest).await?;
    let mut checksum = 0;
    let read = replay.for_each_batch(|batch| {
        let mut count = 0;
        batch.try_for_each(|record| {
            let value = record.value.unwrap_or_default();
            expected.check(record.offset, value)?;
            checksum = crc32c::crc32c_append(checksum, value);
            count += 1;
            Ok::<_, Failure>(())
        })?;
        bar.inc(count);
        Ok::<_, Failure>(())
    });
    read.await?;
    expected.end()?;
    Ok(Replayed { end: replay.progress().end, checksum, wire_bytes: replay.summary().bytes })
}
