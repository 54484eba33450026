//! Many callers that append one record at a time each.
//!
//! Each run is a process of its own, and measures its own processor time, of all its threads. The sink of
//! [`replay`](crate::replay) takes the records, and counts and sums them.

mod closed_loop;
mod floor;
mod one_caller;
mod ours;
mod task;

pub use self::{
    closed_loop::{Caller, Failure, Key, Measured, for_each_value, run},
    one_caller::{Turn, one_caller},
    task::Task,
};

/// Appends with as little as possible.
///
/// # Errors
/// Those of the stream.
pub fn floor(task: &Task) -> Result<Measured, Failure> {
    run(task, floor::Floor::connect, floor::Floor::caller)
}

/// Appends by kwal's batch producer.
///
/// # Errors
/// The client's own.
pub fn batched(task: &Task) -> Result<Measured, Failure> {
    run(task, ours::producer, ours::Batched::new)
}

/// Appends by kwal's partition client, one batch for each record.
///
/// # Errors
/// The client's own.
pub fn direct(task: &Task) -> Result<Measured, Failure> {
    run(task, ours::partition, ours::Direct::new)
}
