//! Reauthentication (KIP-368): when a session is to be extended, and with which credentials.

use std::{sync::Mutex, time::Duration};

use fastrand::Rng;
use kwal_protocol::sasl::Mechanism;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::{duration::LONGEST, sasl::Sasl};

/// Brokers accept reauthentication at most once a second.
const SHORTEST: Duration = Duration::from_millis(1050);
/// The shortest wait that a request is granted: less would only cause more requests.
const LEAST_WAIT: Duration = Duration::from_millis(20);
/// The pause between two attempts to get credentials is a tenth of the time left, within these bounds.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// The lifetime of a session as the client sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SessionLifetime {
    /// From then on the client authenticates again as soon as it has credentials.
    pub(crate) renew_at: Instant,
    /// From then on nothing may be sent. A little before the broker ends the session, because requests need
    /// time to arrive.
    pub(crate) ends_at: Instant,
}

impl SessionLifetime {
    /// The lifetime of a session that begins now. A request of the `longest` duration fits between
    /// reauthentication and end, if the session is long enough. `jitter`, from 0 to 1, spreads connections
    /// that were opened together.
    fn new(now: Instant, lifetime: Duration, longest: Duration, jitter: f64) -> Self {
        let margin = (lifetime / 20).min(Duration::from_secs(1));
        let lead = (longest + margin).min(lifetime / 3).max(lifetime / 20);
        let spread = (lifetime / 10).mul_f64(jitter.clamp(0.0, 1.0));
        let renew_in = lifetime.saturating_sub(lead + spread).max(SHORTEST);
        let ends_at = now + lifetime.saturating_sub(margin);
        Self { renew_at: ends_at.min(now + renew_in), ends_at }
    }

    /// Returns how long a broker may wait before it answers a request that is sent now, without delaying
    /// reauthentication: until then, or, if that is overdue, half of the time left. `ahead` is how long it
    /// may wait for earlier requests.
    pub(crate) fn longest_wait(&self, now: Instant, ahead: Duration) -> Duration {
        let room = match self.renew_at.checked_duration_since(now) {
            Some(room) => room,
            None => self.ends_at.saturating_duration_since(now) / 2,
        };
        match ahead.is_zero() {
            true => room.max(LEAST_WAIT),
            // Half of it, so that later requests get a part as well.
            false => (room.saturating_sub(ahead) / 2).max(LEAST_WAIT),
        }
    }
}

/// Authenticates one connection again whenever its session nears the end.
#[derive(Debug)]
pub(crate) struct Reauthentication {
    pub(crate) sasl: Sasl,
    /// The longest time that a request may take.
    pub(crate) longest_request: Duration,
    /// Time limit for getting credentials, and for one authentication.
    pub(crate) limit: Duration,
    pub(crate) rng: Mutex<Rng>,
}

impl Reauthentication {
    /// Plans the reauthentication of a session that begins now.
    pub(crate) fn plan(&self, lifetime: Duration) -> SessionLifetime {
        let jitter = self.rng.lock().unwrap_or_else(std::sync::PoisonError::into_inner).f64();
        SessionLifetime::new(Instant::now(), lifetime.min(LONGEST), self.longest_request, jitter)
    }

    /// Waits until it is time, then returns a mechanism with credentials; `None` if the session ends before
    /// there are any.
    ///
    /// Credentials are fetched when they are needed and not earlier, because the validity of a token counts
    /// from then.
    pub(crate) async fn mechanism(&self, session: SessionLifetime) -> Option<Box<dyn Mechanism>> {
        sleep_until(session.renew_at).await;
        loop {
            let left =
                session.ends_at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            match self.sasl.begin(left.min(self.limit)).await {
                Ok(mechanism) => return Some(mechanism),
                Err(error) => debug!(%error, "no credentials to authenticate again with"),
            }
            let pause = (left / 10).clamp(PAUSES.0, PAUSES.1);
            sleep_until(session.ends_at.min(Instant::now() + pause)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Seconds until reauthentication with the whole jitter and without, and until the end.
    fn lifetime(lifetime: f64) -> (f64, f64, f64) {
        let now = Instant::now();
        let lifetime = Duration::from_secs_f64(lifetime);
        let [latest, earliest] =
            [0.0, 1.0].map(|jitter| SessionLifetime::new(now, lifetime, 10 * SECOND, jitter));
        let renewal = |session: SessionLifetime| (session.renew_at - now).as_secs_f64();
        (renewal(earliest), renewal(latest), (latest.ends_at - now).as_secs_f64())
    }

    #[tokio::test]
    async fn reauthentication_leaves_time_for_requests_in_flight() {
        let close = |(a, b, c): (f64, f64, f64), to: (f64, f64, f64)| {
            assert!((a - to.0).abs() + (b - to.1).abs() + (c - to.2).abs() < 0.01, "{a} {b} {c}");
        };
        close(lifetime(3600.0), (3060.0, 3420.0, 3599.0));
        close(lifetime(60.0), (43.0, 49.0, 59.0));
        close(lifetime(5.0), (2.833, 3.333, 4.75));
        close(lifetime(2.0), (1.133, 1.333, 1.9));
        // No broker accepts it earlier, so there is none.
        close(lifetime(1.0), (0.95, 0.95, 0.95));
    }

    #[tokio::test]
    async fn a_wait_ends_before_reauthentication() {
        let now = Instant::now();
        let session = SessionLifetime { renew_at: now + 3 * SECOND, ends_at: now + 5 * SECOND };
        let room = |after: Duration| session.longest_wait(now + after, Duration::ZERO);
        assert_eq!(room(Duration::ZERO), 3 * SECOND);
        assert_eq!(room(3 * SECOND), LEAST_WAIT);
        assert_eq!(room(4 * SECOND), SECOND / 2);
        assert_eq!(room(9 * SECOND), LEAST_WAIT);
        // However many wait one after the other.
        let mut ahead = Duration::ZERO;
        for _ in 0..10 {
            ahead += session.longest_wait(now, ahead);
        }
        assert!(ahead <= 3 * SECOND + 9 * LEAST_WAIT, "{ahead:?}");
        assert_eq!(session.longest_wait(now, SECOND), SECOND);
    }
}
