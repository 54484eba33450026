//! Compares the latency of an append of one record with rskafka's: the median ratio must be at most 1.
//!
//! ```sh
//! cargo bench -p kwal-benches --bench append_ratio
//! ```
//!
//! It runs on the embedded broker and, with `KAFKA_CONNECT=host:port[,host:port…]`, also on those brokers.
//! The clients take turns on the same brokers, and each turn of one is compared with that of the other right
//! before or after it, so that what else the machine does concerns both. Both ask for the acknowledgement of
//! all replicas; kwal's appends have producer ids, rskafka's have none.
//!
//! Judged is kwal as it is by default, called from a task of the runtime. Two more rows explain it: without
//! producer ids, a broker has as little to check as of rskafka's appends; and from the thread that runs the
//! runtime, every switch between the caller and a task of the client is one between threads, and kwal has one
//! more, because its callers do not write to the socket.

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use hdrhistogram::Histogram;
use kwal::PartitionClient;
use kwal_benches::{Pair, Table, Target, kwal_records, median, rskafka_records, values};
use rskafka::client::partition::Compression;
use tokio::time::Instant;

/// The size of a value in bytes.
const SIZE: usize = 1_024;
/// Pairs of turns, and appends per turn after one warm-up.
const TURNS: usize = 100;
const PER_TURN: usize = 20;
/// Pairs of turns that are not counted.
const WARM_UP: usize = 5;
/// The most that the median of the ratios may be.
const MOST: f64 = 1.0;

#[tokio::main]
async fn main() -> ExitCode {
    kwal_benches::exit_code("append_ratio", run().await)
}

/// Returns false if kwal is slower.
async fn run() -> Result<bool, Box<dyn Error>> {
    println!("one record of {SIZE} bytes at a time, milliseconds");
    let mut table = Table::new(["", "kwal p50", "p99", "rskafka p50", "p99", "median ratio", "quartiles"]);
    let mut is_fast = true;
    for target in Target::all().await? {
        let pair = Arc::new(Pair::new(&target, "append-ratio").await?);
        let judged = from_task(&pair, |pair| &pair.kwal).await?;
        is_fast &= median(judged.ratios.clone()) <= MOST;
        table.row(row(&target.name, "a task", judged));
        let measured = from_task(&pair, |pair| &pair.kwal_without_ids).await?;
        table.row(row("", "a task, no producer ids", measured));
        table.row(row(
            "",
            "the thread",
            measure(&pair, &pair.kwal).await.map_err(|error| error as Box<dyn Error>)?,
        ));
        if let Some(pair) = Arc::into_inner(pair) {
            pair.delete().await?;
        }
    }
    println!("{table}");
    if !is_fast {
        eprintln!("append_ratio: the median ratio must be at most {MOST}");
    }
    Ok(is_fast)
}

fn row(target: &str, from: &str, Measured { kwal, rskafka, mut ratios }: Measured) -> [String; 8] {
    ratios.sort_by(f64::total_cmp);
    let quartile = |quarters| ratios[(ratios.len() - 1) * quarters / 4];
    let [[kwal_50, kwal_99], [rskafka_50, rskafka_99]] = [&kwal, &rskafka]
        .map(|histogram| [0.5, 0.99].map(|quantile| ms(histogram.value_at_quantile(quantile))));
    let ratio = format!("{:.3}", median(ratios.clone()));
    let quartiles = format!("{:.3}–{:.3}", quartile(1), quartile(3));
    [target.to_owned(), from.to_owned(), kwal_50, kwal_99, rskafka_50, rskafka_99, ratio, quartiles]
}

struct Measured {
    /// The durations in nanoseconds.
    kwal: Histogram<u64>,
    rskafka: Histogram<u64>,
    /// Of the medians of each pair of turns.
    ratios: Vec<f64>,
}

async fn from_task(pair: &Arc<Pair>, of: fn(&Pair) -> &PartitionClient) -> Result<Measured, Box<dyn Error>> {
    let pair = Arc::clone(pair);
    let measured = tokio::spawn(async move { measure(&pair, of(&pair)).await }).await?;
    measured.map_err(|error| error as Box<dyn Error>)
}

async fn measure(pair: &Pair, ours: &PartitionClient) -> Result<Measured, Box<dyn Error + Send + Sync>> {
    let mut measured = Measured { kwal: Histogram::new(3)?, rskafka: Histogram::new(3)?, ratios: Vec::new() };
    for turn in 0..WARM_UP + TURNS {
        let seed = (turn * (PER_TURN + 1)) as u64;
        // Neither of them always follows the other.
        let (ours, theirs) = match turn % 2 {
            0 => {
                let ours = kwal(ours, seed).await?;
                (ours, rskafka(pair, seed).await?)
            }
            _ => {
                let theirs = rskafka(pair, seed).await?;
                (kwal(ours, seed).await?, theirs)
            }
        };
        if turn < WARM_UP {
            continue;
        }
        for (histogram, durations) in [(&mut measured.kwal, &ours), (&mut measured.rskafka, &theirs)] {
            for duration in durations {
                histogram.record(duration.as_nanos().try_into()?)?;
            }
        }
        measured.ratios.push(median(ours).as_secs_f64() / median(theirs).as_secs_f64());
    }
    Ok(measured)
}

/// The durations of a turn of kwal.
async fn kwal(partition: &PartitionClient, seed: u64) -> Result<Vec<Duration>, Box<dyn Error + Send + Sync>> {
    let mut durations = Vec::new();
    for value in values(PER_TURN + 1, SIZE, seed) {
        let records = kwal_records(vec![value]);
        let begin = Instant::now();
        partition.produce(records).await?;
        durations.push(begin.elapsed());
    }
    durations.remove(0);
    Ok(durations)
}

/// The durations of a turn of rskafka.
async fn rskafka(pair: &Pair, seed: u64) -> Result<Vec<Duration>, Box<dyn Error + Send + Sync>> {
    let mut durations = Vec::new();
    for value in values(PER_TURN + 1, SIZE, seed) {
        let records = rskafka_records(vec![value]);
        let begin = Instant::now();
        pair.rskafka.produce(records, Compression::NoCompression).await?;
        durations.push(begin.elapsed());
    }
    durations.remove(0);
    Ok(durations)
}

fn ms(nanos: u64) -> String {
    format!("{:.3}", nanos as f64 / 1e6)
}
