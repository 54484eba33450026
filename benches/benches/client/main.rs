//! Measures what kwal costs: processor time, memory and latency of appends and reads, beside floors and other
//! clients, as ratios in one run.
//!
//! ```sh
//! cargo bench -p kwal-benches --bench client                                     # kwal and the floors
//! PEERS=1 cargo bench -p kwal-benches --features compression-zstd --bench client # and other clients, zstd too
//! WORKLOADS=append,64 cargo bench -p kwal-benches --bench client                 # names with all these words
//! ```

mod plot;
mod report;
mod results;
mod rows;
mod run;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use kwal_benches::{
    programs::{self, Brokers},
    shared::Failure,
};
use kwal_protocol::compression::Compression;

use self::{report::Report, results::Results, rows::Row, run::Programs};

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
    let out = env::var_os("OUT").map_or_else(|| target.join("client"), PathBuf::from);
    fs::create_dir_all(&out)?;
    let rows: Vec<_> = rows::all(is_long).into_iter().filter(is_selected).collect();
    let rows = match env::var_os("FROM") {
        Some(from) => Report::of(rows, Results::read(Path::new(&from))?),
        None => measure(rows, turns, target)?,
    };
    rows.print();
    rows.results.write(&out.join("client.tsv"))?;
    rows.draw(&out)?;
    println!("medians of {turns} turns; all runs and the plots are in {}", out.display());
    let is_strict = env::args().any(|argument| argument == "--strict");
    Ok(!is_strict || rows.is_met())
}

/// Measures all rows on the sink, and some on brokers.
fn measure(rows: Vec<Row>, turns: usize, target: &Path) -> Result<Report, Failure> {
    let peers = programs::peers(target)?;
    let programs = Programs { peers, before: env::var_os("BEFORE").map(PathBuf::from) };
    let started = env::var("BROKERS").ok().map(|nodes| Brokers::start(&nodes)).transpose()?;
    let named = env::var("KAFKA_CONNECT").ok().filter(|brokers| !brokers.is_empty());
    let brokers = started.as_ref().map(|brokers| brokers.bootstrap.join(",")).or(named);
    let mut report = Report::default();
    for row in rows {
        let on_brokers = brokers.as_deref().filter(|_| row.is_end_to_end);
        let places = [None].into_iter().chain(on_brokers.map(Some));
        for brokers in places {
            let row = if brokers.is_some() { row.clone().on_kafka() } else { row.clone() };
            run::measure(&row, &programs.subjects(&row), brokers, turns, &mut report.results)?;
            println!("{}", report::details(&row, &report.results));
            report.rows.push(row);
        }
    }
    Ok(report)
}

/// Whether the codec is built in, and the name has all words of one of the comma-separated choices.
fn is_selected(row: &Row) -> bool {
    let is_built_in = row.task.codec.parse().is_ok_and(Compression::is_built_in);
    let choices = env::var("WORKLOADS").unwrap_or_default();
    is_built_in
        && choices.split(',').any(|words| words.split_whitespace().all(|word| row.name.contains(word)))
}
