//! What a process has taken, of all its threads. Linux only.
//!
//! The other clients are built with this file.

use std::{fs, io};

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
pub(crate) fn page_faults() -> io::Result<u64> {
    let statistics = fs::read_to_string("/proc/self/stat")?;
    number(statistics.rsplit(')').next().and_then(|after_name| after_name.split(' ').nth(8)))
}

/// Returns the most memory that the process has had, in bytes.
///
/// # Errors
/// Those of reading `/proc`.
pub(crate) fn peak_memory() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
    Ok(number(peak.map(str::trim))? << 10)
}

fn number(text: Option<&str>) -> io::Result<u64> {
    text.unwrap_or_default().parse().map_err(io::Error::other)
}
