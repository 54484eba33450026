//! Carries out one task by kwal or a floor, and prints what it cost.
//!
//! The benchmark `client` runs it, with the arguments of a `Task`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kwal_benches::subjects::main("client-run")
}
