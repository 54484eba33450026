//! Measures the latency of appends, one record at a time, from 1 KiB to 200 kB: it must grow without a step.
//!
//! ```sh
//! cargo bench -p kwal-benches --bench append_latency
//! ```
//!
//! It runs on the embedded broker and, with `KAFKA_CONNECT=host:port[,host:port…]`, also on those brokers.
//! kwal and rskafka take turns. A step of some 40 ms is the effect of TCP's delayed acknowledgement on a
//! request that is written in pieces.

use std::{error::Error, process::ExitCode, time::Duration};

use hdrhistogram::Histogram;
use kwal_benches::{Pair, Table, Target, kwal_records, rskafka_records, values};
use rskafka::client::partition::Compression;
use tokio::time::Instant;

/// In bytes.
const SIZES: [usize; 18] = [
    1_024, 2_048, 4_096, 8_192, 9_000, 10_000, 12_000, 16_384, 20_000, 24_000, 32_768, 40_000, 50_000,
    65_536, 80_000, 100_000, 150_000, 200_000,
];
/// Appends of each size by each client: the number of turns, and of appends per turn after one warm-up.
///
/// A machine that has just waited is slow, so a client should not follow the other one's waits append by
/// append.
const TURNS: usize = 10;
const PER_TURN: usize = 20;
/// The time after which a size is ended early.
const PATIENCE: Duration = Duration::from_secs(3);
/// The increase of the median over the previous size that counts as a step.
const STEP: Duration = Duration::from_millis(5);

#[tokio::main]
async fn main() -> ExitCode {
    kwal_benches::exit_code("append_latency", run().await)
}

/// Returns false if kwal has a step.
async fn run() -> Result<bool, Box<dyn Error>> {
    let mut smooth = true;
    for target in Target::all().await? {
        let pair = Pair::new(&target, "append-latency").await?;
        println!("{}: one record at a time, milliseconds", target.name);
        let mut table = Table::new([
            "bytes",
            "kwal p50",
            "p90",
            "p99",
            "max",
            "rskafka p50",
            "p90",
            "p99",
            "max",
            "p50 ratio",
        ]);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for size in SIZES {
            let (kwal, rskafka) = measure(&pair, size).await?;
            let [a, b] = [&kwal, &rskafka].map(|histogram| {
                [0.5, 0.9, 0.99, 1.0].map(|quantile| ms(histogram.value_at_quantile(quantile)))
            });
            let ratio = kwal.value_at_quantile(0.5) as f64 / rskafka.value_at_quantile(0.5).max(1) as f64;
            let [[a0, a1, a2, a3], [b0, b1, b2, b3]] = [a, b];
            table.row([size.to_string(), a0, a1, a2, a3, b0, b1, b2, b3, format!("{ratio:.2}")]);
            ours.push(kwal.value_at_quantile(0.5));
            theirs.push(rskafka.value_at_quantile(0.5));
        }
        pair.delete().await?;
        println!("{table}");
        for (name, medians) in [("kwal", &ours), ("rskafka", &theirs)] {
            let (at, step) = largest_step(medians);
            let verdict = if step > STEP { "a step" } else { "no step" };
            let (from, to) = (ms(medians[at]), ms(medians[at + 1]));
            println!(
                "{name}: {verdict}; the most is {from} to {to} ms, from {} to {} bytes",
                SIZES[at],
                SIZES[at + 1]
            );
        }
        println!();
        smooth &= largest_step(&ours).1 <= STEP;
    }
    Ok(smooth)
}

/// The durations of kwal's and of rskafka's appends in nanoseconds.
async fn measure(pair: &Pair, size: usize) -> Result<(Histogram<u64>, Histogram<u64>), Box<dyn Error>> {
    let (mut ours, mut theirs) = (Histogram::new(3)?, Histogram::new(3)?);
    let begin = Instant::now();
    let mut turn = 0;
    while turn < TURNS && begin.elapsed() < PATIENCE {
        for warm in 0..=PER_TURN {
            let records = kwal_records(values(1, size, (turn * PER_TURN + warm) as u64));
            let start = Instant::now();
            pair.kwal.produce(records).await?;
            let took = start.elapsed();
            if warm > 0 {
                ours.record(took.as_nanos().try_into()?)?;
            }
        }
        for warm in 0..=PER_TURN {
            let records = rskafka_records(values(1, size, (turn * PER_TURN + warm) as u64));
            let start = Instant::now();
            pair.rskafka.produce(records, Compression::NoCompression).await?;
            let took = start.elapsed();
            if warm > 0 {
                theirs.record(took.as_nanos().try_into()?)?;
            }
        }
        turn += 1;
    }
    Ok((ours, theirs))
}

/// The size after which the median grows most, and the growth.
fn largest_step(medians: &[u64]) -> (usize, Duration) {
    let steps = medians.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
    let (at, step) = steps.enumerate().max_by_key(|(_, step)| *step).unwrap_or_default();
    (at, Duration::from_nanos(step))
}

fn ms(nanos: u64) -> String {
    format!("{:.3}", nanos as f64 / 1e6)
}
