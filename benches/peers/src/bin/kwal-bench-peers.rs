//! Carries out one task by another client, and prints what it cost.

use std::process::ExitCode;

fn main() -> ExitCode {
    kwal_bench_peers::main()
}
