//! Counts of durations.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counts of durations; each is kept to less than 1 %.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: Vec<AtomicU64>,
    count: AtomicU64,
    nanos: AtomicU64,
}

/// A power of two has so many counts.
const STEPS: u32 = 128;

impl Histogram {
    pub(super) fn new() -> Self {
        let counts = (0..STEPS * (u64::BITS - STEPS.ilog2() + 1)).map(|_| AtomicU64::new(0)).collect();
        Self { counts, count: AtomicU64::new(0), nanos: AtomicU64::new(0) }
    }

    pub(super) fn add(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[Self::index(nanos)].fetch_add(1, Relaxed);
        self.count.fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// The first steps are of one nanosecond each, those of the next power of two too, and then of two, four,
    /// …
    fn index(nanos: u64) -> usize {
        let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(STEPS.ilog2() + 1);
        (shift * STEPS) as usize + (nanos >> shift) as usize
    }

    /// The least duration of an index.
    fn nanos(index: usize) -> u64 {
        let shift = (index as u64 / u64::from(STEPS)).saturating_sub(1);
        (index as u64 - shift * u64::from(STEPS)) << shift
    }

    pub(super) fn quantile(&self, quantile: f64) -> u64 {
        let wanted = (self.count.load(Relaxed) as f64 * quantile) as u64;
        let mut below = 0;
        let found = self.counts.iter().position(|count| {
            below += count.load(Relaxed);
            below > wanted
        });
        found.map_or(0, Self::nanos)
    }

    pub(super) fn mean(&self) -> u64 {
        self.nanos.load(Relaxed) / self.count.load(Relaxed).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_keeps_durations_to_one_percent() {
        let mut indices = Vec::new();
        for nanos in [0, 1, 127, 128, 255, 256, 1_000, 123_456, 9_999_999, u64::from(u32::MAX), u64::MAX] {
            let index = Histogram::index(nanos);
            indices.push(index);
            let kept = Histogram::nanos(index);
            assert!(kept <= nanos && nanos - kept <= nanos / 100, "{nanos} {kept}");
        }
        assert!(indices.is_sorted());
        let histogram = Histogram::new();
        for micros in 1..=1_000 {
            histogram.add(Duration::from_micros(micros));
        }
        assert_eq!(histogram.mean(), 500_500);
        let close = |nanos: u64, to: u64| nanos.abs_diff(to) <= to / 100;
        assert!(close(histogram.quantile(0.5), 501_000) && close(histogram.quantile(0.99), 991_000));
    }
}
