//! The bound and the resolution of durations.

use std::time::Duration;

/// The longest duration that the client works with; longer ones count as this one. A sum of some of them does
/// not overflow, and neither does a point in time that is so far away.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Cuts a duration to whole milliseconds, as the protocol has them.
pub(crate) fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_cut_to_whole_milliseconds() {
        for (wait, whole) in [(0, 0), (999_999, 0), (1_000_000, 1), (1_999_999, 1)] {
            assert_eq!(whole_millis(Duration::from_nanos(wait)), Duration::from_millis(whole));
        }
        assert_eq!(whole_millis(Duration::MAX), Duration::from_millis(u64::MAX));
    }
}
