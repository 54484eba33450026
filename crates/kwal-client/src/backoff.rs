//! The pauses between attempts.

use std::time::Duration;

use fastrand::Rng;

use crate::config::RetryPolicy;

/// The pauses between attempts, in order. It does not end.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
    rng: Rng,
}

impl Backoff {
    pub(crate) fn new(policy: RetryPolicy, rng: Rng) -> Self {
        Self { next: policy.initial.min(policy.max), max: policy.max, rng }
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.max);
        Some(pause.mul_f64(1.0 - self.rng.f64() / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_are_shortened_by_less_than_half() {
        let policy = RetryPolicy { initial: Duration::from_millis(10), max: Duration::from_millis(35) };
        for seed in 0..100 {
            let pauses: Vec<_> = Backoff::new(policy, Rng::with_seed(seed)).take(5).collect();
            for (pause, full) in pauses.iter().zip([10, 20, 35, 35, 35].map(Duration::from_millis)) {
                assert!(*pause <= full && *pause >= full / 2, "{pause:?} of {full:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_pauses() {
        let pauses =
            |seed| Backoff::new(RetryPolicy::default(), Rng::with_seed(seed)).take(9).collect::<Vec<_>>();
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }
}
