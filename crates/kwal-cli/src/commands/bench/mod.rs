//! `kwal bench`: how fast a cluster appends and is read.

mod plot;
mod samples;

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use kwal::{
    Client, PartitionClient, Record,
    client::{OffsetAt, OnFailure},
    consumer,
    record::Compression,
};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::Instant;

use self::samples::{Phase, Samples};
use super::{Session, append};
use crate::{
    exit::{Exit, Failure},
    output::{Table, human_bytes, plural, warn},
};

/// Measures how fast a topic is appended to and read
///
/// It creates a topic of its own, with one partition, and deletes it at the end.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Latencies are those of whole appends: from when a batch is submitted until every in-sync replica has it.
Appends that fail are counted, and marked in the plot.

JSON: one object, {\"topic\", \"record_size\", \"batch_bytes\", \"in_flight\", \"compression\", \"append\", \"read\"},
where each phase is {\"seconds\", \"records\", \"bytes\", \"records_per_second\", \"bytes_per_second\", \"errors\",
\"latency_ms\": {\"p50\", \"p90\", \"p99\", \"p999\", \"max\"} or null, \"samples\": [{\"second\", \"records\",
\"bytes\", \"errors\", \"p50_ms\", \"p99_ms\"}]}. Bytes are those of keys and values.

Ctrl-C ends it early: it prints what it has measured, deletes its topic and exits with 130; `read` is null
if it has not read everything. Otherwise it exits with 1 if an append failed.

Examples:
  kwal bench --seconds 30 --replication-factor 3 --set min.insync.replicas=2
  kwal bench --record-size 1000 --batch-bytes 100000 --compression lz4 --svg bench.svg")]
pub(crate) struct Args {
    /// How long it appends, in seconds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// The size of each value, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=8 << 20))]
    record_size: u32,
    /// The values of each batch, in bytes; at least one record
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 10, value_parser = clap::value_parser!(u32).range(1..=8 << 20))]
    batch_bytes: u32,
    /// How many batches are in flight; brokers take five at a time, the others wait here
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=64))]
    in_flight: u8,
    /// The codec of batches
    #[arg(long, value_name = "CODEC", default_value = "none", value_parser = append::codec)]
    compression: Compression,
    /// How many replicas the topic has; -1 is the brokers' default
    #[arg(short, long, value_name = "N", default_value_t = -1, allow_hyphen_values = true)]
    replication_factor: i16,
    /// A config of the topic; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = super::topics::setting)]
    configs: Vec<(String, String)>,
    /// The name of the topic, which must not exist [default: kwal-bench- and a time]
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Does not delete the topic
    #[arg(long)]
    keep: bool,
    /// Writes a plot of throughput and latencies over time
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report<'a> {
    topic: &'a str,
    record_size: u32,
    batch_bytes: u32,
    in_flight: u8,
    compression: &'a str,
    append: &'a Phase,
    read: Option<&'a Phase>,
}

pub(crate) async fn run(session: &mut Session, args: Args) -> Result<Exit, Failure> {
    let client = session.client().await?;
    let name = args.topic.clone().unwrap_or_else(|| {
        format!("kwal-bench-{}", OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000)
    });
    let controller = session.interrupt.or(client.controller_client()).await?;
    let mut create = controller.create_topic(&name, 1, args.replication_factor);
    for (name, value) in &args.configs {
        create = create.config(name, value);
    }
    session.interrupt.or_say(&format!("topic {name} may have been created, or may still be"), create).await?;
    let measured = measure(session, &args, &client, &name).await;
    if args.keep {
        session.out.tell(format_args!("kept topic {name}"));
    } else {
        let deleted = tokio::select! {
            biased;
            deleted = controller.delete_topic(&name) => deleted.map_err(|error| error.to_string()),
            () = session.interrupt.abandon() => Err("interrupted".to_owned()),
        };
        if let Err(why) = deleted {
            warn(&format!(
                "topic {name} may still be there, and `kwal topics delete {name}` removes it: {why}"
            ));
        }
    }
    let (append, read) = measured?;
    if let Some(file) = &args.svg {
        plot::write(file, &title(&args), &append, read.as_ref())?;
    }
    print(session, &args, &name, &append, read.as_ref())?;
    if session.interrupt.is_set() {
        return Err(Failure::Interrupted("measured was what came before".to_owned()));
    }
    Ok(if append.errors == 0 { Exit::Success } else { Exit::Negative })
}

/// What is measured.
fn title(args: &Args) -> String {
    let Args { record_size, batch_bytes, in_flight, compression, .. } = args;
    let codec = if *compression == Compression::None { "no codec" } else { compression.name() };
    format!(
        "kwal bench: records of {record_size} bytes, batches of {batch_bytes}, {in_flight} in flight, {codec}"
    )
}

/// Appends and reads, as far as it gets before Ctrl-C.
async fn measure(
    session: &Session,
    args: &Args,
    client: &Client,
    topic: &str,
) -> Result<(Phase, Option<Phase>), Failure> {
    let open =
        client.partition_client(topic, 0).compression(args.compression).on_failure(OnFailure::Continue);
    let partition = session.interrupt.or(open).await?;
    let append = append_for(session, args, &partition).await?;
    match session.interrupt.or(read(session, &partition)).await {
        Ok(read) => Ok((append, Some(read))),
        Err(Failure::Interrupted(_)) => Ok((append, None)),
        Err(failure) => Err(failure),
    }
}

async fn append_for(session: &Session, args: &Args, partition: &PartitionClient) -> Result<Phase, Failure> {
    let values = values(args);
    let bytes = (values.len() * args.record_size as usize) as u64;
    let bar = session.out.progress("append", args.seconds.into(), "s");
    let time = Duration::from_secs(args.seconds.into());
    let mut samples = Samples::begin(time);
    let mut in_flight = FuturesUnordered::new();
    let mut last_error = None;
    let interrupt = &session.interrupt;
    while samples.elapsed() < time && !interrupt.is_set() {
        while in_flight.len() < usize::from(args.in_flight) {
            let records: Vec<_> =
                values.iter().map(|value| Record::new(None::<&str>, value.clone())).collect();
            let count = records.len() as u64;
            let append = async move {
                let begun = Instant::now();
                let appended = partition.produce(records).await;
                (count, begun.elapsed(), appended.map(drop))
            };
            in_flight.push(append);
        }
        let next = tokio::select! {
            biased;
            () = interrupt.stop() => break,
            next = in_flight.next() => next,
        };
        let Some((count, latency, appended)) = next else { break };
        match appended {
            Ok(()) => samples.add(count, bytes, Some(latency)),
            Err(error) => {
                samples.fail();
                let is_retriable = error.is_retriable();
                last_error = Some(error.clone());
                if !is_retriable {
                    return Err(error.into());
                }
            }
        }
        bar.set_with_rate(samples.elapsed().as_secs(), human_bytes(samples.rate()));
    }
    let mut is_told = false;
    loop {
        tokio::select! {
            biased;
            next = in_flight.next() => match next {
                Some((count, latency, Ok(()))) => samples.add(count, bytes, Some(latency)),
                Some((_, _, Err(_))) => samples.fail(),
                None => break,
            },
            () = interrupt.abandon() => break,
            () = interrupt.stop(), if !is_told => {
                let count = plural(in_flight.len() as u64, "batch");
                bar.hide_for(|| {
                    session.out.tell(format_args!("waiting for {count} in flight; Ctrl-C again does not wait"));
                });
                is_told = true;
            }
        }
    }
    if let Some(error) = last_error {
        warn(&format!("the last error: {error}"));
    }
    Ok(samples.end())
}

/// The values of a batch: half of their bytes are noise, and half of them are the same again.
fn values(args: &Args) -> Vec<Bytes> {
    let count = (args.batch_bytes / args.record_size).max(1);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = move || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    let value = |_| {
        let mut value = Vec::with_capacity(args.record_size as usize + 16);
        while value.len() < args.record_size as usize {
            let word = noise();
            value.extend_from_slice(&word);
            value.extend_from_slice(&word);
        }
        value.truncate(args.record_size as usize);
        Bytes::from(value)
    };
    (0..count).map(value).collect()
}

async fn read(session: &Session, partition: &PartitionClient) -> Result<Phase, Failure> {
    let mut replay = consumer::replay(partition, OffsetAt::Earliest).await?;
    let end = replay.progress().end;
    let bar = session.out.progress("read", end.max(0).unsigned_abs(), "offsets");
    let mut samples = Samples::begin(Duration::from_secs(10));
    while let Some(batch) = replay.next_batch().await? {
        let (mut records, mut bytes) = (0, 0);
        batch.for_each(|record| {
            records += 1;
            bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        })?;
        samples.add(records, bytes as u64, None);
        let done = batch.offsets().end.max(0).unsigned_abs();
        bar.set_with_rate(done, human_bytes(samples.rate()));
    }
    Ok(samples.end())
}

fn print(
    session: &mut Session,
    args: &Args,
    topic: &str,
    append: &Phase,
    read: Option<&Phase>,
) -> Result<(), Failure> {
    if session.out.is_json() {
        let Args { record_size, batch_bytes, in_flight, .. } = *args;
        let compression = args.compression.name();
        return session.out.json(&Report {
            topic,
            record_size,
            batch_bytes,
            in_flight,
            compression,
            append,
            read,
        });
    }
    let mut table = Table::new(&[
        "PHASE",
        ">SECONDS",
        ">RECORDS/S",
        ">BYTES/S",
        ">P50 MS",
        ">P90 MS",
        ">P99 MS",
        ">P99.9 MS",
        ">MAX MS",
        ">ERRORS",
    ]);
    for (name, phase) in [("append", append)].into_iter().chain(read.map(|read| ("read", read))) {
        let mut row = vec![
            name.to_owned(),
            format!("{:.2}", phase.seconds),
            format!("{:.0}", phase.records_per_second),
            human_bytes(phase.bytes_per_second as u64),
        ];
        row.extend(match &phase.latency_ms {
            Some(latency) => [latency.p50, latency.p90, latency.p99, latency.p999, latency.max]
                .map(|ms| format!("{ms:.2}")),
            None => [const { String::new() }; 5].map(|_| "-".to_owned()),
        });
        row.push(phase.errors.to_string());
        table.row(row);
    }
    session.out.table(table)
}
