//! A broker at an address: its health, and the attempts to connect to it.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kwal_protocol::error_code::Recovery;
use kwal_transport::HostPort;
use tokio::{sync::Notify, time::Instant};

use super::{BrokerRef, lock};
use crate::error::Error;

/// A broker at an address. One that moves to another address is another `Broker`.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) reference: BrokerRef,
    pub(crate) address: HostPort,
    failures: Mutex<Failures>,
    is_healthy: AtomicBool,
    is_retired: AtomicBool,
    /// Wakes those that connect to it. In the order in which they came, which a `watch` does not keep.
    retired: Notify,
}

/// Attempts to connect that failed.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    /// The last one, unless a connection was opened since.
    last: Option<(Instant, Error)>,
}

impl Broker {
    pub(crate) fn new(reference: BrokerRef, address: HostPort) -> Self {
        Self {
            reference,
            address,
            failures: Mutex::default(),
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
        lock(&self.failures).count
    }

    /// Returns a connection failure newer than `before`, or less than `moment` old.
    ///
    /// Callers that queued during that attempt share its error instead of retrying one by one. A permanent
    /// failure counts only for those: its cause may have been fixed since.
    pub(super) fn failed_since(&self, before: u64, moment: Duration) -> Option<Error> {
        let failures = lock(&self.failures);
        let (at, error) = failures.last.as_ref()?;
        let is_fresh = || at.elapsed() < moment && error.recovery() != Recovery::Fail;
        (failures.count != before || is_fresh()).then(|| error.clone())
    }

    pub(super) fn connect_failed(&self, error: &Error) {
        let mut failures = lock(&self.failures);
        failures.count += 1;
        failures.last = Some((Instant::now(), error.clone()));
        self.mark_unhealthy();
    }

    pub(super) fn connected(&self) {
        lock(&self.failures).last = None;
        self.mark_healthy();
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

    pub(super) fn is_retired(&self) -> bool {
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
    use std::sync::Arc;

    use kwal_transport::TransportError;
    use tokio::time::advance;

    use super::*;
    use crate::error::ErrorKind;

    const MOMENT: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_by_those_who_waited_for_it_and_those_who_come_a_moment_later() {
        let address = HostPort::new("a", 9092);
        let broker = Broker::new(BrokerRef::Id(1), address.clone());
        assert!(broker.failed_since(0, MOMENT).is_none() && broker.is_healthy());
        let refused = TransportError::other(address, "refused");
        let temporary = Error::from(Arc::new(refused));
        let permanent = Error::from(ErrorKind::EncryptionRequired { mechanism: "PLAIN".to_owned() });
        for (error, is_shared_later) in [(temporary, true), (permanent, false)] {
            let before = broker.failures();
            broker.connect_failed(&error);
            let now = broker.failures();
            assert!(!broker.is_healthy());
            assert!(broker.failed_since(before, MOMENT).is_some());
            assert_eq!(broker.failed_since(now, MOMENT).is_some(), is_shared_later, "{error:?}");
            advance(MOMENT).await;
            assert!(broker.failed_since(before, MOMENT).is_some());
            assert!(broker.failed_since(now, MOMENT).is_none());
            broker.connected();
            assert!(broker.failed_since(before, MOMENT).is_none() && broker.is_healthy());
        }
    }
}
