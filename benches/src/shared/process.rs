//! What a process has taken, of all its threads. Linux only.

use std::{fs, io, sync::OnceLock};

use rustix::time::{ClockId, clock_gettime};

/// Returns the processor time of all threads, also of those that have ended, user and system, in nanoseconds.
pub fn processor_time() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // A clock of the process is not negative, and takes centuries to overflow.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Returns how often memory was touched that the process did not have yet.
///
/// # Errors
/// Those of reading `/proc`.
pub(super) fn page_faults() -> io::Result<u64> {
    let statistics = fs::read_to_string("/proc/self/stat")?;
    number(statistics.rsplit(')').next().and_then(|after_name| after_name.split(' ').nth(8)))
}

/// Returns the most memory that the process has had, in bytes.
///
/// # Errors
/// Those of reading `/proc`.
pub(super) fn peak_memory() -> io::Result<u64> {
    status("VmHWM:")
}

/// Returns the memory that the process has, in bytes.
///
/// # Errors
/// Those of reading `/proc`.
pub fn memory() -> io::Result<u64> {
    status("VmRSS:")
}

fn status(name: &str) -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
    Ok(number(found.map(str::trim))? << 10)
}

/// Returns the number of open file descriptors.
///
/// # Errors
/// Those of reading `/proc`.
pub fn descriptors() -> io::Result<u64> {
    // Without the one that reads it.
    Ok(fs::read_dir("/proc/self/fd")?.count() as u64 - 1)
}

static ALLOCATIONS: OnceLock<fn() -> u64> = OnceLock::new();

/// Counts allocations from now on by this function of the program's allocator.
pub fn count_allocations(by: fn() -> u64) {
    let _ = ALLOCATIONS.set(by);
}

/// Returns how often memory was allocated; 0 if nothing counts it.
pub(super) fn allocations() -> u64 {
    ALLOCATIONS.get().map_or(0, |by| by())
}

fn number(text: Option<&str>) -> io::Result<u64> {
    text.unwrap_or_default().parse().map_err(io::Error::other)
}
