//! Measures the processor time of a client that appends batches of 1000 records of 1 KiB, in seconds per GB.
//!
//! ```sh
//! cargo bench -p kwal-benches --bench append_cpu
//! BEFORE=…/append-batches cargo bench -p kwal-benches --bench append_cpu
//! ```
//!
//! The client is a process of its own with one thread, the program `append-batches`, and the embedded broker
//! is in this one. With one caller, batches follow one after the other; with five, as many are in flight as
//! the client lets. `BEFORE` names the same program of another state of the source: both take turns, and the
//! ratios are of runs right after each other. Linux only.

use std::{
    env,
    error::Error,
    process::{Command, ExitCode},
};

use kwal_benches::{Table, median};
use kwal_testkit::EmbeddedCluster;

const CALLERS: [usize; 2] = [1, 5];
const BATCHES: usize = 200;
const TURNS: usize = 9;
/// Bytes of the values of a run.
const BYTES: usize = BATCHES * 1_000 * 1_024;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("append_cpu: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let before = env::var("BEFORE").ok();
    println!("processor time of the client, seconds per GB of values, medians of {TURNS} turns");
    let mut table = Table::new(["callers", "before", "now", "median ratio", "least", "most"]);
    for callers in CALLERS {
        let (mut earlier, mut now) = (Vec::new(), Vec::new());
        for turn in 0..TURNS {
            if turn % 2 == 0 {
                now.push(measure(env!("CARGO_BIN_EXE_append-batches"), callers).await?);
            }
            if let Some(before) = &before {
                earlier.push(measure(before, callers).await?);
            }
            if turn % 2 == 1 {
                now.push(measure(env!("CARGO_BIN_EXE_append-batches"), callers).await?);
            }
        }
        let mut ratios: Vec<f64> = earlier.iter().zip(&now).map(|(before, now)| now / before).collect();
        ratios.sort_by(f64::total_cmp);
        let shown = |figure: Option<f64>| figure.map(|figure| format!("{figure:.3}")).unwrap_or_default();
        table.row([
            callers.to_string(),
            shown((!earlier.is_empty()).then(|| median(earlier))),
            shown(Some(median(now))),
            shown((!ratios.is_empty()).then(|| median(ratios.clone()))),
            shown(ratios.first().copied()),
            shown(ratios.last().copied()),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// Seconds per GB of one run, on a topic of its own.
async fn measure(program: &str, callers: usize) -> Result<f64, Box<dyn Error>> {
    let broker = EmbeddedCluster::builder().topic_with("append-cpu", 1, &[("max.message.bytes", "16777216")]);
    let broker = broker.start().await?;
    let bootstrap = broker.bootstrap();
    let mut command = Command::new(program);
    command.args(["append-cpu", &callers.to_string(), &BATCHES.to_string()]).args(bootstrap);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let nanos: u64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(nanos as f64 / BYTES as f64)
}
