//! When a session is to be renewed (KIP-368), and with what.

use std::{sync::Mutex, time::Duration};

use fastrand::Rng;
use kwal_protocol::sasl::Mechanism;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::sasl::Sasl;

/// Brokers take a renewal at most once a second.
const SHORTEST: Duration = Duration::from_millis(1050);
/// The shortest wait that a request is given: less would only be more requests.
const LEAST_WAIT: Duration = Duration::from_millis(20);
/// Between two attempts to get what to authenticate with: a tenth of the time that is left, within these.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// The time of a session as the client sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Term {
    /// From then on it is renewed as soon as there is something to do it with.
    pub(crate) renew_at: Instant,
    /// From then on nothing may be sent. A little before the broker's own end: what is sent has to arrive.
    pub(crate) ends_at: Instant,
}

impl Term {
    /// Of a session that began now: a request as long as `longest` is to fit between renewal and end, if the session is
    /// long enough for that. `jitter`, from 0 to 1, spreads the renewals of connections that were opened together.
    fn new(now: Instant, lifetime: Duration, longest: Duration, jitter: f64) -> Self {
        let margin = (lifetime / 20).min(Duration::from_secs(1));
        let lead = (longest + margin).min(lifetime / 3).max(lifetime / 20);
        let spread = (lifetime / 10).mul_f64(jitter.clamp(0.0, 1.0));
        let renew_in = lifetime.saturating_sub(lead + spread).max(SHORTEST);
        let ends_at = now + lifetime.saturating_sub(margin);
        Self { renew_at: ends_at.min(now + renew_in), ends_at }
    }

    /// How long a broker may wait with the answer to a request that is sent now, so that it holds no renewal up: until the
    /// renewal, or, when that is late already, for half of what is left. `ahead` is how long it may wait with what was sent
    /// before.
    pub(crate) fn room(&self, now: Instant, ahead: Duration) -> Duration {
        let room = match self.renew_at.checked_duration_since(now) {
            Some(room) => room,
            None => self.ends_at.saturating_duration_since(now) / 2,
        };
        match ahead.is_zero() {
            true => room.max(LEAST_WAIT),
            // And half of it, so that others after this one get something too.
            false => (room.saturating_sub(ahead) / 2).max(LEAST_WAIT),
        }
    }
}

/// Renews the sessions of one connection.
#[derive(Debug)]
pub(crate) struct Renewals {
    pub(crate) sasl: Sasl,
    /// For how long a request may be under way.
    pub(crate) longest: Duration,
    /// For how long something to authenticate with may be waited for, and how long an authentication may take.
    pub(crate) limit: Duration,
    pub(crate) rng: Mutex<Rng>,
}

impl Renewals {
    /// Plans the renewal of a session that began now.
    pub(crate) fn plan(&self, lifetime: Duration) -> Term {
        let jitter = self.rng.lock().unwrap_or_else(std::sync::PoisonError::into_inner).f64();
        Term::new(Instant::now(), lifetime, self.longest, jitter)
    }

    /// What to renew a session with, as soon as it is time for it; `None` when the session is over before there is anything.
    ///
    /// It is fetched when it is time, and not earlier: what a token is good for counts from then.
    pub(crate) async fn mechanism(&self, term: Term) -> Option<Box<dyn Mechanism>> {
        sleep_until(term.renew_at).await;
        loop {
            let left = term.ends_at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            match self.sasl.begin(left.min(self.limit)).await {
                Ok(mechanism) => return Some(mechanism),
                Err(error) => debug!(%error, "there is nothing to renew the session with"),
            }
            let pause = (left / 10).clamp(PAUSES.0, PAUSES.1);
            sleep_until(term.ends_at.min(Instant::now() + pause)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Seconds until the renewal without and with the whole jitter, and until the end.
    fn term(lifetime: f64) -> (f64, f64, f64) {
        let now = Instant::now();
        let lifetime = Duration::from_secs_f64(lifetime);
        let [latest, earliest] = [0.0, 1.0].map(|jitter| Term::new(now, lifetime, 10 * SECOND, jitter));
        let renewal = |term: Term| (term.renew_at - now).as_secs_f64();
        (renewal(earliest), renewal(latest), (latest.ends_at - now).as_secs_f64())
    }

    #[tokio::test]
    async fn renewals_leave_room_for_what_is_under_way() {
        let close = |(a, b, c): (f64, f64, f64), to: (f64, f64, f64)| {
            assert!((a - to.0).abs() + (b - to.1).abs() + (c - to.2).abs() < 0.01, "{a} {b} {c}");
        };
        close(term(3600.0), (3060.0, 3420.0, 3599.0));
        close(term(60.0), (43.0, 49.0, 59.0));
        close(term(5.0), (2.833, 3.333, 4.75));
        close(term(2.0), (1.133, 1.333, 1.9));
        // No broker would take it earlier: there is none.
        close(term(1.0), (0.95, 0.95, 0.95));
    }

    #[tokio::test]
    async fn a_wait_ends_before_the_renewal() {
        let now = Instant::now();
        let term = Term { renew_at: now + 3 * SECOND, ends_at: now + 5 * SECOND };
        let room = |after: Duration| term.room(now + after, Duration::ZERO);
        assert_eq!(room(Duration::ZERO), 3 * SECOND);
        assert_eq!(room(3 * SECOND), LEAST_WAIT);
        assert_eq!(room(4 * SECOND), SECOND / 2);
        assert_eq!(room(9 * SECOND), LEAST_WAIT);
        // However many wait one after the other.
        let mut ahead = Duration::ZERO;
        for _ in 0..10 {
            ahead += term.room(now, ahead);
        }
        assert!(ahead <= 3 * SECOND + 9 * LEAST_WAIT, "{ahead:?}");
        assert_eq!(term.room(now, SECOND), SECOND);
    }
}
