//! Quotas in bytes per second (KIP-13): a request over the quota is carried out and throttled (KIP-219).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// The quotas of clients, and their usage.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    /// In bytes per second, of one client id or the default.
    limits: BTreeMap<(QuotaKind, Option<String>), f64>,
    used: BTreeMap<(QuotaKind, i32, String), Rate>,
}

/// What is limited.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum QuotaKind {
    Produce,
    Fetch,
}

impl Quotas {
    /// Sets the quota of a client id, or with `None` the default. `None` bytes remove it.
    pub(super) fn limit(&mut self, kind: QuotaKind, client: Option<&str>, bytes_per_second: Option<u64>) {
        let key = (kind, client.map(str::to_owned));
        match bytes_per_second {
            Some(limit) => self.limits.insert(key, limit as f64),
            None => self.limits.remove(&key),
        };
        if self.limits.is_empty() {
            self.used.clear();
        }
    }

    /// Returns whether there is any quota.
    pub(super) fn any(&self) -> bool {
        !self.limits.is_empty()
    }

    /// Counts bytes of a client at a broker; returns the throttle time. `now` is in milliseconds.
    pub(super) fn count(
        &mut self,
        kind: QuotaKind,
        node: i32,
        client: &str,
        bytes: usize,
        now: i64,
    ) -> Duration {
        let limit =
            self.limits.get(&(kind, Some(client.to_owned()))).or_else(|| self.limits.get(&(kind, None)));
        let Some(limit) = limit.copied() else { return Duration::ZERO };
        let rate = self.used.entry((kind, node, client.to_owned())).or_default();
        rate.count(bytes, now);
        let pause = rate.pause(limit, now);
        if kind == QuotaKind::Fetch && !pause.is_zero() {
            // Fetched records over the quota are not returned.
            rate.uncount(bytes);
        }
        pause
    }
}

/// Bytes by second, of the last eleven (`quota.window.num` and `quota.window.size.seconds`).
#[derive(Debug, Default)]
struct Rate {
    seconds: VecDeque<(i64, f64)>,
}

impl Rate {
    fn count(&mut self, bytes: usize, now: i64) {
        while self.seconds.front().is_some_and(|(start, _)| now - start >= WINDOWS * WINDOW_MS) {
            self.seconds.pop_front();
        }
        match self.seconds.back_mut().filter(|(start, _)| now - *start < WINDOW_MS) {
            Some((_, sum)) => *sum += bytes as f64,
            None => self.seconds.push_back((now, bytes as f64)),
        }
    }

    fn uncount(&mut self, bytes: usize) {
        if let Some((_, sum)) = self.seconds.back_mut() {
            *sum -= bytes as f64;
        }
    }

    /// Returns the pause until the average over ten seconds is within the limit.
    fn pause(&self, limit: f64, now: i64) -> Duration {
        let Some((oldest, _)) = self.seconds.front() else { return Duration::ZERO };
        let passed = now - oldest;
        let lacking = (WINDOWS - 1 - passed / WINDOW_MS).max(0);
        let span_ms = (passed + lacking * WINDOW_MS) as f64;
        let sum: f64 = self.seconds.iter().map(|(_, sum)| sum).sum();
        let rate = sum / (span_ms / 1000.0);
        match rate > limit {
            true => Duration::from_millis(((rate - limit) / limit * span_ms).round() as u64),
            false => Duration::ZERO,
        }
    }
}

const WINDOWS: i64 = 11;
const WINDOW_MS: i64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    /// As seen on a real broker.
    ///
    /// Six batches of 400 kB at once, at 100 kB/s, are answered after 0, 0, 0, 2, 8 and 18 s.
    #[test]
    fn a_burst_over_the_quota_is_answered_later_and_later() {
        let mut quotas = Quotas::default();
        quotas.limit(QuotaKind::Produce, None, Some(100_000));
        let mut now = 0;
        let mut answered = Vec::new();
        for _ in 0..6 {
            answered.push(now);
            now += quotas.count(QuotaKind::Produce, 1, "me", 400_000, now).as_millis() as i64;
        }
        assert_eq!(answered, [0, 0, 0, 2_000, 8_000, 18_000]);
        assert!(quotas.count(QuotaKind::Fetch, 1, "me", 1 << 30, now).is_zero(), "another kind");
        assert!(quotas.count(QuotaKind::Produce, 2, "me", 400_000, now).is_zero(), "another broker");
        quotas.limit(QuotaKind::Produce, Some("me"), Some(1 << 40));
        assert!(quotas.count(QuotaKind::Produce, 1, "me", 1 << 30, now).is_zero(), "an own limit");
        quotas.limit(QuotaKind::Produce, None, None);
        quotas.limit(QuotaKind::Produce, Some("me"), None);
        assert!(!quotas.any());
    }
}
