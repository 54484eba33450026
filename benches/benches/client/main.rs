//! Measures what kwal costs: processor time, memory and latency of appends and reads, beside floors and other
//! clients, as ratios in one run.
//!
//! ```sh
//! cargo bench -p kwal-benches --bench client                                     # kwal and the floors
//! PEERS=1 cargo bench -p kwal-benches --features compression-zstd --bench client # and other clients, zstd too
//! WORKLOADS=append,64 cargo bench -p kwal-benches --bench client                 # names with all these words
//! ```

mod report;
mod results;
mod rows;
mod run;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use kwal_benches::{
    programs::{self, Brokers},
    shared::Failure,
};
use kwal_protocol::compression::Compression;

use self::{report::Standing, results::Results, rows::Row, run::Programs};

const TURNS: usize = 5;
const LONG_TURNS: usize = 11;

fn main() -> ExitCode {
    kwal_benches::exit_code("client", run())
}

fn run() -> Result<bool, Failure> {
    let is_long = env::var_os("KWAL_LONG").is_some();
    let default = if is_long { LONG_TURNS } else { TURNS };
    let turns = env::var("TURNS").map_or(Ok(default), |turns| turns.parse())?;
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let out = env::var_os("OUT").map_or_else(|| target.join("../client"), PathBuf::from);
    std::fs::create_dir_all(&out)?;
    let programs =
        Programs { peers: programs::peers(target)?, before: env::var_os("BEFORE").map(PathBuf::from) };
    let started = env::var("BROKERS").ok().map(|nodes| Brokers::start(&nodes)).transpose()?;
    let named = env::var("KAFKA_CONNECT").ok().filter(|brokers| !brokers.is_empty());
    let brokers = started.as_ref().map(|brokers| brokers.bootstrap.join(",")).or(named);
    let mut results = Results::default();
    let mut standing = Standing::new();
    for row in rows::all(is_long).into_iter().filter(is_selected) {
        measure(&row, &row.name, None, turns, &programs, &mut results, &mut standing)?;
    }
    if let Some(brokers) = &brokers {
        for row in rows::all(is_long).into_iter().filter(|row| row.is_end_to_end && is_selected(row)) {
            let name = format!("{}, Kafka", row.name);
            measure(&row, &name, Some(brokers), turns, &programs, &mut results, &mut standing)?;
        }
    }
    standing.print();
    results.write(&out.join("client.tsv"))?;
    println!("medians of {turns} turns; all runs are in {}", out.join("client.tsv").display());
    let is_strict = env::args().any(|argument| argument == "--strict");
    if is_strict {
        standing.misses.iter().for_each(|miss| eprintln!("client: {miss}"));
    }
    Ok(!is_strict || standing.misses.is_empty())
}

fn measure(
    row: &Row,
    name: &str,
    brokers: Option<&str>,
    turns: usize,
    programs: &Programs,
    results: &mut Results,
    standing: &mut Standing,
) -> Result<(), Failure> {
    run::measure(row, name, &programs.subjects(row), brokers, turns, results)?;
    println!("{}", report::details(row, name, results));
    standing.add(row, name, results);
    Ok(())
}

/// Whether the codec is built in, and the name has all words of one of the comma-separated choices.
fn is_selected(row: &Row) -> bool {
    let is_built_in = row.task.codec.parse().is_ok_and(Compression::is_built_in);
    let choices = env::var("WORKLOADS").unwrap_or_default();
    is_built_in
        && choices.split(',').any(|words| words.split_whitespace().all(|word| row.name.contains(word)))
}
