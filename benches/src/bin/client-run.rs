//! Carries out one task by kwal or a floor, and prints what it cost.
//!
//! The benchmark `client` runs it, with the arguments of a `Task`.

use std::{env, process::ExitCode};

use kwal_benches::{
    shared::{Failure, Task},
    subjects,
};

fn main() -> ExitCode {
    let run = || {
        if let Some(measured) = subjects::run(Task::from_arguments(env::args().skip(1))?)? {
            println!("{measured}");
        }
        Ok::<_, Failure>(true)
    };
    kwal_benches::exit_code("client-run", run())
}
