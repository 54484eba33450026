//! Does the same as `kwal-bench-peers`, and counts the allocations of Rust, which costs time.

use std::{alloc::System, process::ExitCode};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    kwal_bench_peers::shared::count_allocations(|| ALLOCATOR.stats().allocations as u64);
    kwal_bench_peers::main()
}
