//! What a call waits for.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    cluster::Cluster,
    error::{CallContext, Context, Error, ErrorKind, Progress},
    pool::{Broker, Closed},
};

/// How far a call has got, for the error of its deadline.
#[derive(Debug)]
pub(crate) struct Tracker {
    tracked: Mutex<Tracked>,
    pub(super) closed: Closed,
}

#[derive(Clone, Copy, Debug)]
struct Tracked {
    progress: Progress,
    broker: Option<i32>,
}

impl Tracker {
    pub(crate) fn new() -> Self {
        let tracked = Mutex::new(Tracked { progress: Progress::NotStarted, broker: None });
        Self { tracked, closed: Closed::default() }
    }

    /// The call waits for something else from now on, of a broker if it is known.
    pub(crate) fn set(&self, progress: Progress, broker: Option<i32>) {
        *self.tracked() = Tracked { progress, broker };
    }

    /// The request is on its connection.
    pub(super) fn sent(&self, broker: &Broker) {
        self.set(Progress::Response, broker.id());
    }

    /// The last attempt has failed.
    pub(super) fn pause(&self) {
        self.tracked().progress = Progress::Pause;
    }

    pub(super) fn progress(&self) -> Progress {
        self.tracked().progress
    }

    fn tracked(&self) -> MutexGuard<'_, Tracked> {
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the error of a deadline that ends now.
    pub(crate) fn deadline_exceeded(
        &self,
        cluster: &Cluster,
        call: CallContext<'_>,
        after: Duration,
    ) -> Error {
        let Tracked { progress, broker } = *self.tracked();
        let broker = match (progress, broker) {
            (_, Some(id)) => Some(cluster.pool.name(id)),
            (Progress::Lookup | Progress::Coordinator | Progress::ProducerId, None) => cluster.pool.asked(),
            _ => None,
        };
        let context = Context { broker, ..call.context() };
        Error::new(ErrorKind::DeadlineExceeded { after, progress }).with_context(context)
    }
}
