//! A broker at an address: its health, and the attempts to connect to it.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use kwal_protocol::{connection::ConnectionError, error_code::Recovery};
use kwal_transport::HostPort;
use tokio::{sync::Notify, time::Instant};
use tracing::warn;

use super::{BrokerRef, lock};
use crate::{
    backoff::Backoff,
    connection::History,
    error::{Error, Source},
};

/// A broker at an address. One that moves to another address is another `Broker`.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) reference: BrokerRef,
    pub(crate) address: HostPort,
    pub(super) endpoint: Arc<Endpoint>,
    is_healthy: AtomicBool,
    is_retired: AtomicBool,
    /// Wakes those that connect to it. In the order in which they came, which a `watch` does not keep.
    retired: Notify,
}

/// What is known of an address, whichever broker is there: often a bootstrap address is that of a broker.
#[derive(Debug, Default)]
pub(crate) struct Endpoint {
    /// What its connections have shown.
    pub(super) history: Arc<History>,
    /// Held by the one that connects to it, in turn.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    failures: Mutex<Failures>,
    /// Whether it has been reported that connections are shared.
    reports_sharing: AtomicBool,
}

/// Attempts to connect that failed.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    /// The last one, unless a connection was opened since.
    last: Option<Failure>,
    /// The pauses since the last success.
    backoff: Option<Backoff>,
}

#[derive(Debug)]
struct Failure {
    error: Error,
    /// When the next attempt may begin.
    next: Instant,
}

/// The broker that closed the connection right after the last attempt of a call, if one did.
///
/// It takes two in a row to blame the request: a broker that dies does the same once.
#[derive(Debug, Default)]
pub(crate) struct Closed(Mutex<Option<Arc<Broker>>>);

impl Closed {
    pub(crate) fn clear(&self) {
        drop(self.take());
    }

    pub(super) fn take(&self) -> Option<Arc<Broker>> {
        lock(&self.0).take()
    }

    /// Notes the broker. Returns whether it is the same as before.
    pub(super) fn again(&self, before: Option<Arc<Broker>>, broker: &Arc<Broker>) -> bool {
        *lock(&self.0) = Some(Arc::clone(broker));
        before.is_some_and(|before| Arc::ptr_eq(&before, broker))
    }
}

impl Endpoint {
    /// Returns why the last attempt to connect failed, unless a connection was opened since.
    pub(super) fn last_error(&self) -> Option<Error> {
        lock(&self.failures).last.as_ref().map(|failure| failure.error.clone())
    }
}

impl Broker {
    pub(crate) fn new(reference: BrokerRef, address: HostPort) -> Self {
        Self {
            reference,
            address,
            endpoint: Arc::default(),
            is_healthy: AtomicBool::new(true),
            is_retired: AtomicBool::new(false),
            retired: Notify::new(),
        }
    }

    /// Returns its id; `None` for a bootstrap address.
    pub(crate) fn id(&self) -> Option<i32> {
        match self.reference {
            BrokerRef::Id(id) => Some(id),
            BrokerRef::Seed(_) => None,
        }
    }

    /// Returns how many attempts to connect have failed.
    pub(super) fn failures(&self) -> u64 {
        lock(&self.endpoint.failures).count
    }

    /// Returns a connection failure newer than `before`, or the last one while no other attempt may begin.
    ///
    /// Callers share it instead of connecting one by one. A permanent failure counts only for those that
    /// waited for that attempt: its cause may have been fixed since.
    pub(super) fn failed_since(&self, before: u64) -> Option<Error> {
        let failures = lock(&self.endpoint.failures);
        let Failure { error, next } = failures.last.as_ref()?;
        let is_paused = || Instant::now() < *next && error.recovery() != Recovery::Fail;
        (failures.count != before || is_paused()).then(|| error.clone())
    }

    /// Whether the last attempt to connect failed.
    pub(super) fn has_failed(&self) -> bool {
        lock(&self.endpoint.failures).last.is_some()
    }

    /// Notes a failed attempt. `pauses` makes the pauses between attempts, if it is the first one.
    pub(super) fn connect_failed(&self, error: &Error, pauses: impl FnOnce() -> Backoff) {
        let mut failures = lock(&self.endpoint.failures);
        failures.count += 1;
        // Half of what a call pauses, so that one which has paused can retry.
        let pause = failures.backoff.get_or_insert_with(pauses).next().unwrap_or_default() / 2;
        failures.last = Some(Failure { error: error.clone(), next: Instant::now() + pause });
    }

    pub(super) fn connected(&self) {
        let mut failures = lock(&self.endpoint.failures);
        (failures.last, failures.backoff) = (None, None);
        self.mark_healthy();
    }

    /// Reports that connections are shared because no other one can be opened, if it looks like a limit: the
    /// broker closes further ones once it has accepted them, or leaves them waiting.
    pub(super) fn report_sharing(&self, error: &Error) {
        let is_limit = matches!(
            error.below(),
            Some(Source::Connection(
                ConnectionError::PeerClosed { .. }
                    | ConnectionError::Io { .. }
                    | ConnectionError::HandshakeTimedOut { .. }
            ))
        );
        if is_limit && !self.endpoint.reports_sharing.swap(true, Ordering::Relaxed) {
            warn!(
                messaging.system = "kafka",
                server.address = self.address.host,
                server.port = self.address.port,
                error = %error.reason(),
                "no further connection to the broker can be opened, so those that are open are shared; if it limits \
                 connections (`max.connections.per.ip`, `max.connections`), lower Limits::max_connections_per_broker"
            );
        }
    }

    /// Whether requests that any broker can answer should go here: nothing failed since the last success.
    pub(super) fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }

    pub(super) fn mark_healthy(&self) {
        self.is_healthy.store(true, Ordering::Relaxed);
    }

    pub(super) fn mark_unhealthy(&self) {
        self.is_healthy.store(false, Ordering::Relaxed);
    }

    /// Marks a broker that the cluster no longer has, or has at another address.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
        self.retired.notify_waiters();
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// Completes when the broker is retired.
    pub(super) async fn retired(&self) {
        // Registered before the check, so that the wake-up is not missed.
        let retired = self.retired.notified();
        if !self.is_retired() {
            retired.await;
        }
    }
}

/// Its name in errors and logs.
impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reference {
            BrokerRef::Id(id) => write!(f, "broker {id} ({})", self.address),
            BrokerRef::Seed(_) => self.address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fastrand::Rng;
    use kwal_transport::TransportError;
    use tokio::time::advance;

    use super::*;
    use crate::{config::RetryPolicy, error::ErrorKind};

    fn pauses() -> Backoff {
        Backoff::new(RetryPolicy::default(), Rng::with_seed(1))
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_by_those_who_waited_for_it_and_those_who_come_before_the_next_attempt() {
        let address = HostPort::new("a", 9092);
        let broker = Broker::new(BrokerRef::Id(1), address.clone());
        assert!(broker.failed_since(0).is_none() && broker.is_healthy());
        let refused = TransportError::other(address, "refused");
        let temporary = Error::from(Arc::new(refused));
        let permanent = Error::from(ErrorKind::EncryptionRequired { mechanism: "PLAIN".to_owned() });
        for (error, is_shared_later) in [(temporary, true), (permanent, false)] {
            let before = broker.failures();
            broker.connect_failed(&error, pauses);
            let now = broker.failures();
            assert!(broker.failed_since(before).is_some());
            assert_eq!(broker.failed_since(now).is_some(), is_shared_later, "{error:?}");
            advance(RetryPolicy::default().initial / 2).await;
            assert!(broker.failed_since(before).is_some());
            assert!(broker.failed_since(now).is_none());
            broker.connected();
            assert!(broker.failed_since(before).is_none() && broker.is_healthy());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_pauses_between_attempts_grow_until_one_succeeds() {
        let broker = Broker::new(BrokerRef::Id(1), HostPort::new("a", 9092));
        let error = Error::from(Arc::new(TransportError::other(broker.address.clone(), "refused")));
        let pause = async || {
            broker.connect_failed(&error, pauses);
            let (begun, failures) = (Instant::now(), broker.failures());
            while broker.failed_since(failures).is_some() {
                advance(Duration::from_millis(1)).await;
            }
            begun.elapsed()
        };
        let max = RetryPolicy::default().max;
        let (first, mut last) = (pause().await, Duration::ZERO);
        assert!(first <= RetryPolicy::default().initial, "{first:?}");
        for _ in 0..10 {
            last = pause().await;
            assert!(last <= max / 2 + Duration::from_millis(1), "{last:?}");
        }
        assert!(last >= max / 4, "{last:?}");
        broker.connected();
        assert!(pause().await <= RetryPolicy::default().initial);
    }
}
