//! Deadlines of calls.

use std::time::Duration;

use tokio::time::Instant;

/// Longer than anything waits.
pub(crate) const YEARS: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Returns the time so long from now. A time that no clock shows is years away.
pub(crate) fn from_now(duration: Duration) -> Instant {
    Instant::now() + duration.min(YEARS)
}
