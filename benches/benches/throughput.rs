//! Measures the throughput of appends and reads, batch after batch, one in flight, of kwal and rskafka.
//!
//! ```sh
//! cargo bench -p kwal-benches --bench throughput
//! ```
//!
//! It runs on the embedded broker and, with `KAFKA_CONNECT=host:port[,host:port…]`, also on those brokers. It
//! measures wall-clock time with the broker on the same machine, so only the ratios are meaningful, and they
//! favour the slower client compared with CPU time. The clients alternate, round by round; every round
//! appends new records, and every byte read is used.

use std::{error::Error, process::ExitCode};

use kwal_benches::{Pair, Table, Target, kwal_records, median, replay::sum, rskafka_records, values};
use rskafka::client::partition::Compression;
use tokio::time::Instant;

/// Records per batch, bytes per record, batches per round.
const WORKLOADS: [(usize, usize, usize); 3] = [(1_000, 1_024, 32), (10_000, 100, 32), (100, 100_000, 4)];
const ROUNDS: usize = 7;
/// The maximum size of one fetch in bytes.
const FETCH: i32 = 8 << 20;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("throughput: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    for target in Target::all().await? {
        println!("{}: MB/s of values, medians of {ROUNDS} rounds", target.name);
        let mut table = Table::new(["records × bytes", "", "kwal", "rskafka", "ratio"]);
        for (records, size, batches) in WORKLOADS {
            let pair = Pair::new(&target, "throughput").await?;
            let mut rounds = Vec::new();
            for round in 0..ROUNDS {
                rounds.push(measure(&pair, (records, size, batches), round as u64).await?);
            }
            pair.delete().await?;
            let megabytes = (records * size * batches) as f64 / 1e6;
            for (phase, name) in ["append", "fetch"].into_iter().enumerate() {
                let [kwal, rskafka] = [0, 1]
                    .map(|client| megabytes / median(rounds.iter().map(|r| r[phase][client]).collect()));
                table.row([
                    format!("{records} × {size}"),
                    name.to_owned(),
                    format!("{kwal:.0}"),
                    format!("{rskafka:.0}"),
                    format!("{:.2}", kwal / rskafka),
                ]);
            }
        }
        println!("{table}");
    }
    Ok(())
}

/// Seconds of append and of fetch, for kwal and for rskafka.
async fn measure(
    pair: &Pair,
    (records, size, batches): (usize, usize, usize),
    seed: u64,
) -> Result<[[f64; 2]; 2], Box<dyn Error>> {
    let fresh: Vec<_> =
        (0..batches).map(|batch| values(records, size, seed << 32 | (batch as u64) << 16)).collect();

    let input: Vec<_> = fresh.iter().cloned().map(kwal_records).collect();
    let start = Instant::now();
    let mut from = None;
    for records in input {
        let produced = pair.kwal.produce(records).await?;
        from = from.or(produced.base_offset);
    }
    let kwal_append = start.elapsed().as_secs_f64();

    let input: Vec<_> = fresh.iter().cloned().map(rskafka_records).collect();
    let start = Instant::now();
    let mut rskafka_from = None;
    for records in input {
        let offsets = pair.rskafka.produce(records, Compression::NoCompression).await?;
        rskafka_from = rskafka_from.or_else(|| offsets.first().copied());
    }
    let rskafka_append = start.elapsed().as_secs_f64();

    let expected: u64 = fresh.iter().flatten().map(|value| sum(value)).fold(0, u64::wrapping_add);
    let count = records * batches;

    let start = Instant::now();
    let (mut next, mut seen, mut total) = (from.unwrap_or_default(), 0, 0_u64);
    while seen < count {
        let fetched = pair.kwal.fetch(next).max_bytes(FETCH).await?;
        fetched.for_each(|record| {
            total = total.wrapping_add(sum(record.value.unwrap_or_default()));
            seen += 1;
        })?;
        next = fetched.next_offset;
    }
    let kwal_fetch = start.elapsed().as_secs_f64();
    same("kwal", (seen, total), (count, expected))?;

    let start = Instant::now();
    let (mut next, mut seen, mut total) = (rskafka_from.unwrap_or_default(), 0, 0_u64);
    while seen < count {
        let (fetched, _) = pair.rskafka.fetch_records(next, 1..FETCH, 1_000).await?;
        for record in &fetched {
            total = total.wrapping_add(sum(record.record.value.as_deref().unwrap_or_default()));
        }
        seen += fetched.len();
        next = fetched.last().map_or(next, |record| record.offset + 1);
    }
    let rskafka_fetch = start.elapsed().as_secs_f64();
    same("rskafka", (seen, total), (count, expected))?;

    Ok([[kwal_append, rskafka_append], [kwal_fetch, rskafka_fetch]])
}

fn same(client: &str, read: (usize, u64), expected: (usize, u64)) -> Result<(), Box<dyn Error>> {
    if read == expected {
        return Ok(());
    }
    Err(format!(
        "{client} read {} records with the sum {}, not {} with {}",
        read.0, read.1, expected.0, expected.1
    )
    .into())
}
