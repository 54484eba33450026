//! Does the same as `client-run`, and counts allocations, which costs time.

use std::{alloc::System, process::ExitCode};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    kwal_benches::shared::count_allocations(|| ALLOCATOR.stats().allocations as u64);
    kwal_benches::subjects::main("client-run-counted")
}
