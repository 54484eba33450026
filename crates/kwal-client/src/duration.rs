//! The bound of all durations.

use std::time::Duration;

/// The longest duration that the client works with; longer ones count as this one. A sum of some of them does
/// not overflow, and neither does a point in time that is so far away.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
