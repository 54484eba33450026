//! Measures what kwal costs: processor time, latency and memory of appends and reads, beside floors and other
//! clients, as ratios in one run.
//!
//! ```sh
//! cargo bench -p kwal-benches --features compression-zstd --bench client           # kwal and the floors
//! PEERS=1 cargo bench -p kwal-benches --features compression-zstd --bench client   # and the other clients
//! PEERS=1 BROKERS=1 cargo bench … --bench client                                   # and on Apache Kafka
//! WORKLOADS='append lz4,64' cargo bench … --bench client                           # some rows
//! cargo bench … --bench client -- --strict                                         # fails over a budget
//! ```
//!
//! # How it is measured
//!
//! A *sink* answers requests from memory, so that no broker hides what a client costs. Each run is a process
//! of its own, and so is the sink; what counts is the processor time of the run's process, user and system,
//! of all its threads. The subjects of a row take turns. Ratios are of runs in the same turn, and medians:
//! figures of different runs of the benchmark do not compare, because machines fluctuate.
//!
//! All subjects append or read the same values. What a reader has read has to have the count and the sum of
//! what is there, and the sink counts and sums what is appended. The values that are appended are new memory
//! in each round, made before the clock runs; that they are released is part of what is measured, of floors
//! as of clients. Reads are measured after an eighth of the log.
//!
//! A *floor* is no client, but the simplest code that does the bytes: see `subjects/floor`. Where a codec has
//! the most of it, a row is compared with the same compressor alone, at the same level, over the same bytes.
//! The other clients are published releases, and `benches/peers` says how they are set up.
//!
//! # Output
//!
//! For each row, a table of what was measured; at the end, the rows that have a budget. It exits with an
//! error over a budget only with `--strict`, since times are noise on a machine that does something else. In
//! `target/tmp/client`, or the directory that `OUT` names: all runs as `client.tsv`, and plots.
//!
//! # Settings
//!
//! | variable | |
//! | --- | --- |
//! | `PEERS=1` | builds the other clients, which takes minutes and a C compiler; or the path of their program |
//! | `BROKERS=1`, `3` | starts so many nodes of Apache Kafka, for the rows that are measured end to end |
//! | `KAFKA_CONNECT` | uses these brokers: `host:port[,host:port…]` |
//! | `WORKLOADS` | selects rows: the name has all words of one of the comma-separated choices; `scaling` is a choice of its own, and `,scaling` is everything |
//! | `TURNS` | how often each subject runs (5) |
//! | `KWAL_LONG=1` | all rows, three times as much in each, 11 turns |
//! | `BEFORE` | the path of the program `client-run` of another state of the source, as one more subject |
//! | `FROM` | the path of a `client.tsv`: prints and draws it without measuring |
//! | `OUT` | the directory of the output; it and `FROM` are relative to `benches` |
//!
//! Linux only. To add a workload, see `rows.rs`; to add a client, see `run.rs` and `benches/peers`.

mod plot;
mod report;
mod results;
mod rows;
mod run;
mod scaling;

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
    let from = env::var_os("FROM");
    let mut rows = rows::all(is_long || from.is_some());
    if is_long || from.is_some() || choices().contains(scaling::WORD) {
        rows.extend(scaling::all());
    }
    let rows: Vec<_> = rows.into_iter().filter(is_selected).collect();
    let report = match from {
        Some(from) => Report::of(rows, Results::read(Path::new(&from))?),
        None => measure(rows, turns, target)?,
    };
    report.print();
    report.results.write(&out.join("client.tsv"))?;
    report.draw(&out)?;
    let turns = report.results.turns();
    println!("medians of {turns} turns; all runs and the plots are in {}", out.display());
    let is_strict = env::args().any(|argument| argument == "--strict");
    Ok(!is_strict || report.is_met())
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
        let on_kafka = brokers.as_deref().and_then(|brokers| Some((Some(brokers), row.on_kafka()?)));
        for (brokers, row) in [(None, row)].into_iter().chain(on_kafka) {
            run::measure(&row, &programs.subjects(&row), brokers, turns, &mut report.results)?;
            println!("{}", report::details(&row, &report.results));
            report.rows.push(row);
        }
    }
    Ok(report)
}

fn choices() -> String {
    env::var("WORKLOADS").unwrap_or_default()
}

/// Whether the codec is built in, and the name has all words of one of the comma-separated choices.
fn is_selected(row: &Row) -> bool {
    let is_built_in = row.task.codec.parse().is_ok_and(Compression::is_built_in);
    let choices = choices();
    is_built_in
        && choices.split(',').any(|words| words.split_whitespace().all(|word| row.name.contains(word)))
}
