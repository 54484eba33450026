//! What the programs of all clients share: the task, its values, the meter.
//!
//! The other clients are built with this module and without anything of kwal: see `benches/peers`.

pub mod append;
pub mod callers;
mod histogram;
mod measured;
mod meter;
mod process;
mod task;
mod values;

use std::error::Error;

use tokio::runtime;

pub use self::{
    measured::Measured,
    meter::Meter,
    process::{count_allocations, descriptors, memory, processor_time},
    task::{Task, Work},
    values::{DIFFERENT, sum, values},
};

/// Why a run failed.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Runs a future as a task of a runtime with so many workers; none is a runtime on the calling thread.
///
/// It is a task because callers of a client are: from the thread that runs a runtime of several workers, each
/// wait is a switch between threads.
///
/// # Errors
/// Those of the future; it panics.
pub fn on_runtime<T: Send + 'static>(
    threads: usize,
    future: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let mut builder = match threads {
        0 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(threads.max(1)).enable_all().build()?;
    runtime.block_on(async { tokio::spawn(future).await? })
}
