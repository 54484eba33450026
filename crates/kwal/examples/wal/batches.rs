//! A task for each partition, which appends batch after batch.

use std::{fmt::Write as _, ops::Range};

use hdrhistogram::Histogram;
use indicatif::{HumanCount, ProgressBar};
use kwal::{
    client::{Client, OffsetAt, PartitionClient},
    consumer,
};
use tokio::time::Instant;

use crate::{
    Failure, all,
    content::{Content, unique},
    options::Options,
    report::{Phase, Report, histogram, nanos, progress},
};

/// Append, replay and verify; the report.
pub(crate) async fn job(client: &Client, options: &Options) -> Result<Report, Failure> {
    let content = Content { seed: unique(), size: options.size };
    let mut partitions = Vec::new();
    for index in 0..options.partitions {
        let client = client.partition_client(&options.topic, index).compression(options.compression).await?;
        partitions.push(Partition { index, client, count: options.share(index), content });
    }

    let bar = progress("append", options.records);
    let start = Instant::now();
    let per_batch = options.per_batch() as u64;
    let appended =
        all(partitions.iter().map(|partition| append(partition.clone(), per_batch, bar.clone()))).await?;
    let wire_bytes = appended.iter().map(|partition| partition.wire_bytes).sum();
    let append = Phase { time: start.elapsed(), wire_bytes };
    bar.finish_and_clear();

    let bar = progress("replay", options.records);
    let start = Instant::now();
    let replayed = all(partitions.iter().map(|partition| replay(partition.clone(), bar.clone()))).await?;
    let wire_bytes = replayed.iter().map(|partition| partition.wire_bytes).sum();
    let replay = Phase { time: start.elapsed(), wire_bytes };
    bar.finish_and_clear();

    for (partition, (appended, replayed)) in partitions.iter().zip(appended.iter().zip(&replayed)) {
        verify(partition, appended, replayed)?;
    }
    let mut latencies = histogram();
    for partition in &appended {
        latencies.add(&partition.latencies).expect("histograms that grow have room for all values");
    }
    Ok(Report {
        append,
        replay,
        latencies,
        each: format!("appends of up to {} records", HumanCount(per_batch)),
        producers: None,
        verified: "count, order and every byte",
        checksum: replayed.iter().fold(0, |sum, partition| sum ^ partition.checksum),
        ends: appended.iter().map(|partition| partition.offsets.end).collect(),
    })
}

/// One partition and what belongs on it.
#[derive(Clone)]
struct Partition {
    index: i32,
    client: PartitionClient,
    /// How many records.
    count: u64,
    content: Content,
}

/// What was acknowledged.
struct Appended {
    /// From the first record's offset to behind the last one's.
    offsets: Range<i64>,
    checksum: u32,
    wire_bytes: u64,
    /// Of each append, in nanoseconds.
    latencies: Histogram<u64>,
}

async fn append(partition: Partition, per_batch: u64, bar: ProgressBar) -> Result<Appended, Failure> {
    let mut done = Appended { offsets: 0..0, checksum: 0, wire_bytes: 0, latencies: histogram() };
    let mut next = 0;
    while next < partition.count {
        let batch = next..partition.count.min(next + per_batch);
        let (records, checksum) = partition.content.records(partition.index, batch.clone(), done.checksum);
        let start = Instant::now();
        let produced = partition.client.produce(records).await?;
        done.latencies.record(nanos(start.elapsed()))?;
        let offsets = produced.offsets().ok_or_else(|| "the broker does not report offsets".to_owned())?;
        if offsets.start != done.offsets.end || offsets.clone().count() as u64 != batch.end - batch.start {
            return Err(format!(
                "partition {}: records {} to {} were acknowledged as offsets {} to {}, after those before them as {:?}; \
                 does somebody else append to this topic?",
                partition.index,
                batch.start,
                batch.end - 1,
                offsets.start,
                offsets.end - 1,
                done.offsets
            )
            .into());
        }
        done.offsets.end = offsets.end;
        done.checksum = checksum;
        done.wire_bytes += produced.wire_bytes as u64;
        bar.inc(batch.end - batch.start);
        next = batch.end;
    }
    Ok(done)
}

/// What came back.
struct Replayed {
    end: i64,
    count: u64,
    checksum: u32,
    wire_bytes: u64,
}

/// Reads the partition from its first record to its end, and compares each record with what should be there.
async fn replay(partition: Partition, bar: ProgressBar) -> Result<Replayed, Failure> {
    let Partition { client, index, .. } = &partition;
    let mut replay = consumer::replay(client, OffsetAt::Earliest).await?;
    let mut done = Replayed { end: replay.progress().end, count: 0, checksum: 0, wire_bytes: 0 };
    let mut expected = vec![0; partition.content.size];
    let read = replay.for_each_batch(|batch| {
        let before = done.count;
        batch.try_for_each(|record| {
            let value = record.value.unwrap_or_default();
            partition.content.fill(*index, done.count, &mut expected);
            if value != expected {
                return Err(Failure::from(mismatch(*index, record.offset, done.count, value, &expected)));
            }
            done.checksum = crc32c::crc32c_append(done.checksum, value);
            done.count += 1;
            Ok(())
        })?;
        bar.inc(done.count - before);
        Ok::<_, Failure>(())
    });
    read.await?;
    done.wire_bytes = replay.summary().bytes;
    Ok(done)
}

fn mismatch(partition: i32, offset: i64, number: u64, value: &[u8], expected: &[u8]) -> String {
    let mut text = format!("partition {partition}, offset {offset}: ");
    let _ = match Content::identity(value) {
        _ if value.len() != expected.len() => {
            write!(text, "a value of {} bytes instead of {}", value.len(), expected.len())
        }
        Some((of, found)) if (of, found) != (partition, number) => {
            write!(text, "record {found} of partition {of} instead of record {number}")
        }
        _ => {
            let at = value.iter().zip(expected).take_while(|(a, b)| a == b).count();
            write!(text, "record {number} is not what was appended, from byte {at} on")
        }
    };
    text
}

fn verify(partition: &Partition, appended: &Appended, replayed: &Replayed) -> Result<(), Failure> {
    let index = partition.index;
    let problem = if replayed.end != appended.offsets.end {
        format!("ends at {}, and appends were acknowledged up to {}", replayed.end, appended.offsets.end)
    } else if replayed.count != partition.count {
        format!("{} records were appended and {} came back", partition.count, replayed.count)
    } else if replayed.checksum != appended.checksum {
        format!("the checksum is {:#010x} instead of {:#010x}", replayed.checksum, appended.checksum)
    } else {
        return Ok(());
    };
    Err(format!("partition {index}: {problem}").into())
}
