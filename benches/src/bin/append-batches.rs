//! Appends batches of 1000 records of 1 KiB, and prints the processor time that it took, in nanoseconds.
//!
//! The benchmark `append_cpu` runs it: `append-batches TOPIC CALLERS BATCHES HOST:PORT…`.

use std::{env, error::Error, process::ExitCode};

use kwal::ClientBuilder;
use kwal_benches::{kwal_records, processor_time, values};
use tokio::task::JoinSet;

const RECORDS: usize = 1_000;
const SIZE: usize = 1_024;
/// Batches that are not counted.
const WARM_UP: usize = 4;

/// One thread for everything, so that its processor time is all there is.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(nanos) => {
            println!("{nanos}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("append-batches: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<u64, Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut next = || arguments.next().ok_or("an argument is missing");
    let topic = next()?;
    let callers: usize = next()?.parse()?;
    let batches: usize = next()?.parse()?;
    let client = ClientBuilder::new(arguments).build().await?;
    let partition = client.partition_client(&topic, 0).await?;
    let mut input: Vec<_> = (0..WARM_UP + batches)
        .map(|batch| kwal_records(values(RECORDS, SIZE, (batch as u64) << 16)))
        .collect();
    let mut begin = 0;
    let mut appends = JoinSet::new();
    for at in (0..input.len()).rev() {
        if at + 1 == batches {
            while let Some(append) = appends.join_next().await {
                append??;
            }
            begin = processor_time();
        }
        if appends.len() == callers
            && let Some(append) = appends.join_next().await
        {
            append??;
        }
        let (partition, records) = (partition.clone(), input.pop().unwrap_or_default());
        appends.spawn(async move { partition.produce(records).await });
    }
    while let Some(append) = appends.join_next().await {
        append??;
    }
    Ok(processor_time() - begin)
}
