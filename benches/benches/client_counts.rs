//! Counts instructions and allocations of whole appends and fetches on the client's side: reproducible at
//! every run.
//!
//! ```sh
//! cargo bench -p kwal-benches --bench client_counts                # fails over the baseline
//! cargo bench -p kwal-benches --bench client_counts -- --write     # makes it the baseline
//! ```
//!
//! It requires valgrind. Instructions are counted by callgrind after a warm-up, and given per record: for 500
//! appends of one record each, one after the other (`append`, and by a batch producer, `batched-append`) and
//! five callers at a time (`five-appends`); for 1000 appends of a hundred callers of a batch producer, which
//! are tasks (`hundred-callers`); for 10 appends of whole batches (`append-batch`); and for 20 fetches of one
//! batch of 1000 records, with borrowed records (`fetch-borrowed`) or by a stream of owned ones
//! (`stream-owned`). Everything from the call to its result is counted: client, tasks, runtime, codec. There
//! is no network: the stream has a peer in it, which answers each request as it is written. What the peer
//! does is not counted.
//!
//! The floor does what no client can do without. To append, it copies the value and computes the checksum,
//! with one write and one read. To fetch, it reads into one buffer, computes the checksum, decompresses into
//! another one, and reads each varint.
//!
//! The bytes of all allocations are counted, too: a buffer of a batch or of a response that is made anew each
//! time shows in them, and costs a page fault for every 4 KiB, which are no instructions of the client.
//!
//! Counts are compared with the baseline, `client-baseline.txt`, as `codec_counts` compares those of the
//! codec.
//!
//! With the feature `metrics` they are compared with nothing: they show what metrics cost, without a recorder
//! and with one that keeps atomics, as those of exporters do.
//!
//! ```sh
//! cargo bench -p kwal-benches --features metrics --bench client_counts
//! RECORDER=atomic cargo bench -p kwal-benches --features metrics --bench client_counts
//! ```

use std::{collections::BTreeMap, env, fs, path::Path, process::ExitCode};

use allocation_counter::AllocationInfo;
use kwal_benches::{
    Table,
    calls::{Calls, Case, Subject, install_recorder},
    counts::{self, Baseline, Counts},
    shared::Failure,
};

fn main() -> ExitCode {
    match run() {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            faults.iter().for_each(|fault| eprintln!("client_counts: {fault}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("client_counts: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The regressions.
fn run() -> Result<Vec<String>, Failure> {
    let tools = counts::tools()?;
    install_recorder()?;
    let instructions = instructions()?;
    let mut table = Table::new(["", "instructions", "× floor", "allocations", "bytes"]);
    let mut ours = Vec::new();
    for case in Case::all() {
        let [counted, floor] = [case, case.floor()].map(|case| instructions[&case.to_string()]);
        let AllocationInfo { count_total: allocations, bytes_total: bytes, .. } = allocations(case)?;
        table.row([
            case.to_string(),
            format!("{:.0}", counted as f64 / case.operation.records() as f64),
            format!("{:.2}", counted as f64 / floor as f64),
            format!("{:.3}", allocations as f64 / case.operation.records() as f64),
            format!("{:.0}", bytes as f64 / case.operation.records() as f64),
        ]);
        if case.subject == Subject::Kwal {
            ours.push(Counts { case: case.to_string(), instructions: counted, floor, allocations, bytes });
        }
    }
    println!("{table}\nper record; {tools}");
    if cfg!(feature = "metrics") {
        return Ok(Vec::new());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("client-baseline.txt");
    if env::args().any(|argument| argument == "--write") {
        let about = "By `cargo bench -p kwal-benches --bench client_counts -- --write`: how, size, subject, and of all\n\
             records the instructions, those of the floor, the allocations and their bytes.";
        fs::write(path, Baseline::text(about, &tools, &ours))?;
        return Ok(Vec::new());
    }
    Ok(Baseline::parse(&fs::read_to_string(path)?)?.compare(&tools, &ours))
}

fn allocations(case: Case) -> Result<AllocationInfo, Failure> {
    let mut calls = Calls::new(case)?;
    let mut result = Ok(());
    let counted = allocation_counter::measure(|| result = calls.run());
    result.map(|()| counted)
}

fn instructions() -> Result<BTreeMap<String, u64>, Failure> {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = env!("CARGO_BIN_EXE_client-rounds");
    let peer = ["kwal_benches::calls::peer::accept", "kwal_benches::calls::peer::hand_over"];
    let counted = counts::instructions(program, "client_rounds::measured", &peer, scratch)?;
    for case in Case::all() {
        if counted
            .get(&case.to_string())
            .is_none_or(|&instructions| instructions < case.operation.records() as u64)
        {
            return Err(format!("callgrind did not count {case}").into());
        }
    }
    Ok(counted)
}
