//! The measured subjects that are built with kwal: kwal itself, the floors, and the codecs alone.
//!
//! Each is a function of a [`Task`] that returns what it cost. A new way to append or read by kwal is a
//! function in `kwal` and a line in `run`; one of another client is in `benches/peers`.

mod codec;
mod floor;
mod kwal;

use std::{env, process::ExitCode};

use crate::shared::{Failure, Measured, Task, Work, callers, on_runtime};

/// Carries out the task that the arguments of the program say, and prints what it cost.
pub fn main(name: &str) -> ExitCode {
    let run = || {
        if let Some(measured) = run(Task::from_arguments(env::args().skip(1))?)? {
            println!("{measured}");
        }
        Ok::<_, Failure>(true)
    };
    crate::exit_code(name, run())
}

/// Carries out a task. What only prepares others returns nothing.
///
/// # Errors
/// Those of the subject; there is no such subject.
fn run(task: Task) -> Result<Option<Measured>, Failure> {
    on_runtime(task.threads, async move {
        let task = &task;
        match (task.work, &*task.subject) {
            (Work::Append, "floor") => floor::append(task, false).await,
            (Work::Append, "floor-slices") => floor::append(task, true).await,
            (Work::Append, "codec") => codec::compress(task),
            (Work::Append, "kwal") => kwal::append(task).await,
            (Work::Read, "floor") => floor::read(task).await,
            (Work::Read, "codec") => codec::decompress(task),
            (Work::Read, "kwal-borrowed") => kwal::borrowed(task).await,
            (Work::Read, "kwal-owned") => kwal::owned(task).await,
            (Work::Read, "kwal-fetches") => kwal::fetches(task).await,
            (Work::Callers, "floor") => {
                let floor = floor::Group::connect(task).await?;
                callers::run(task, |key| floor.caller(key)).await
            }
            (Work::Callers, "kwal") => {
                let producer = kwal::producer(task).await?;
                callers::run(task, |key| kwal::Batched::new(&producer, key)).await
            }
            (Work::Callers, "kwal-direct") => {
                let partition = kwal::partition(task, 0).await?;
                callers::run(task, |key| kwal::Direct::new(&partition, key)).await
            }
            (Work::Idle, "kwal") => kwal::idle(task).await,
            (Work::Count, _) => kwal::count(task).await,
            (Work::Fill, _) => return kwal::fill(task).await.map(|()| None),
            (Work::Delete, _) => return kwal::delete(task).await.map(|()| None),
            (work, subject) => return Err(format!("{subject} does not {work}").into()),
        }
        .map(Some)
    })
}
