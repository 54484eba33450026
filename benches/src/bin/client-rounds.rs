//! Makes the measured calls of every case, each in a call of `measured`.
//!
//! The benchmark `client_counts` runs it under callgrind, which counts the instructions inside of these
//! calls.

use std::process::ExitCode;

use kwal_benches::{
    calls::{Calls, Case, install_recorder},
    shared::Failure,
};

fn main() -> ExitCode {
    if let Err(error) = install_recorder() {
        eprintln!("client-rounds: {error}");
        return ExitCode::FAILURE;
    }
    for case in Case::all() {
        match Calls::new(case).and_then(|mut calls| measured(&mut calls)) {
            Ok(()) => println!("{case}"),
            Err(error) => {
                eprintln!("client-rounds: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

#[inline(never)]
fn measured(calls: &mut Calls) -> Result<(), Failure> {
    calls.run()
}
