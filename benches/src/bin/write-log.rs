//! Lets many callers append one record at a time each, and prints what it cost.
//!
//! The benchmark `writers` runs it, with the arguments of [`Task`].

use std::{env, error::Error, process::ExitCode};

use kwal_benches::writers::{self, Task};

fn main() -> ExitCode {
    kwal_benches::exit_code("write-log", run().map(|()| true))
}

fn run() -> Result<(), Box<dyn Error>> {
    let task = Task::from_arguments(&mut env::args().skip(1))?;
    let measured = match &*task.subject {
        "kwal" => writers::batched(&task),
        "kwal-direct" => writers::direct(&task),
        "floor" => writers::floor(&task),
        other => Err(format!("there is no {other}").into()),
    };
    let measured = measured.map_err(|failure| failure as Box<dyn Error>)?;
    println!("{measured}");
    Ok(())
}
