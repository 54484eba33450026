//! What a call waits for.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    cluster::Cluster,
    connection::Throttle,
    error::{CallContext, Context, Error, ErrorKind, Progress},
    pool::Broker,
};

/// How far a call has got, for the error of its deadline.
#[derive(Debug)]
pub(crate) struct Tracker(Mutex<Tracked>);

#[derive(Clone, Debug)]
struct Tracked {
    progress: Progress,
    broker: Option<i32>,
    throttle: Option<Throttle>,
}

impl Tracker {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Tracked { progress: Progress::NotStarted, broker: None, throttle: None }))
    }

    /// The call waits for something else from now on, of a broker if it is known.
    pub(crate) fn set(&self, progress: Progress, broker: Option<i32>) {
        *self.tracked() = Tracked { progress, broker, throttle: None };
    }

    /// The request is on its connection.
    pub(super) fn sent(&self, broker: &Broker, throttle: Throttle) {
        let throttle = Some(throttle);
        *self.tracked() = Tracked { progress: Progress::Response, broker: broker.id(), throttle };
    }

    /// The last attempt has failed.
    pub(super) fn pause(&self) {
        let mut tracked = self.tracked();
        (tracked.progress, tracked.throttle) = (Progress::Pause, None);
    }

    pub(super) fn progress(&self) -> Progress {
        self.tracked().progress
    }

    fn tracked(&self) -> MutexGuard<'_, Tracked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the error of a deadline that ends now.
    pub(super) fn deadline_exceeded(
        &self,
        cluster: &Cluster,
        call: CallContext<'_>,
        after: Duration,
    ) -> Error {
        let Tracked { progress, broker, throttle } = self.tracked().clone();
        let left = throttle.map_or(Duration::ZERO, |throttle| throttle.left());
        let progress = if left.is_zero() { progress } else { Progress::Throttled { left } };
        let broker = match (progress, broker) {
            (_, Some(id)) => Some(cluster.pool.name(id)),
            (Progress::Lookup | Progress::ProducerId, None) => cluster.pool.asked(),
            _ => None,
        };
        let context = Context { broker, ..call.context() };
        Error::new(ErrorKind::DeadlineExceeded { after, progress }).with_context(context)
    }
}
