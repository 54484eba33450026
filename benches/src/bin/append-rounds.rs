//! Makes the measured appends of every case, each in a call of `measured`.
//!
//! The benchmark `append_counts` runs it under callgrind, which counts the instructions inside of these
//! calls.

use std::process::ExitCode;

use kwal_benches::appends::{Appends, Case};

fn main() -> ExitCode {
    for case in Case::all() {
        match Appends::new(case).and_then(|mut appends| measured(&mut appends)) {
            Ok(()) => println!("{case}"),
            Err(error) => {
                eprintln!("append-rounds: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

#[inline(never)]
fn measured(appends: &mut Appends) -> Result<(), Box<dyn std::error::Error>> {
    appends.run()
}
