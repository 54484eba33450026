//! Carries out one task by another client, and prints what it cost.
//!
//! The benchmark `client` runs it, with the arguments of a `Task`. The clients are published releases with
//! their defaults, except for what makes them do the same:
//! * all replicas acknowledge; rdkafka and krafka have producer ids, which rskafka does not know;
//! * a batch of a task is a batch on the wire: rskafka's by its call, those of the others because they wait
//!   until as many records are there;
//! * checksums are verified, and reads begin at offset 0 without a group.

mod append;
mod callers;
mod read;
#[path = "../../src/shared/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the benchmark uses the rest")]
pub mod shared;

use std::{env, process::ExitCode};

use self::shared::{Failure, Measured, Task, Work, on_runtime};

/// Carries out the task that the arguments of the program say, and prints what it cost.
pub fn main() -> ExitCode {
    match Task::from_arguments(env::args().skip(1)).and_then(run) {
        Ok(measured) => {
            println!("{measured}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("kwal-bench-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<Measured, Failure> {
    on_runtime(task.threads, async move {
        let task = &task;
        match (task.work, &*task.subject) {
            (Work::Append, "rskafka") => append::rskafka(task).await,
            (Work::Append, "rdkafka") => append::rdkafka(task).await,
            (Work::Append, "krafka") => append::krafka(task).await,
            (Work::Read, "rskafka") => read::rskafka(task).await,
            (Work::Read, "rdkafka") => read::rdkafka(task),
            (Work::Read, "krafka") => read::krafka(task).await,
            (Work::Callers, "rskafka") => callers::rskafka(task).await,
            (Work::Callers, "rdkafka") => callers::rdkafka(task).await,
            (work, subject) => Err(format!("{subject} does not {work}").into()),
        }
    })
}
