//! What a program sees of retries in its logs.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use crate::error::{CallContext, Context, Error};

/// Reports a call that has been retrying for a while, once, and its end.
#[derive(Debug)]
pub(super) struct Report {
    begun: Instant,
    /// When it is due.
    pub(super) at: Instant,
    /// The call, after it was reported.
    reported: OnceLock<Context>,
    succeeded: AtomicBool,
}

impl Report {
    /// How long a call may retry without a word.
    const QUIET: Duration = Duration::from_secs(1);

    pub(super) fn new() -> Self {
        let begun = Instant::now();
        let (reported, succeeded) = (OnceLock::new(), AtomicBool::new(false));
        Self { begun, at: begun + Self::QUIET, reported, succeeded }
    }

    pub(super) fn retrying(&self, call: CallContext<'_>, attempt: u32, error: &Error) {
        if self.reported.set(call.context()).is_ok() {
            let CallContext { api, topic, partition, .. } = call;
            let after = self.begun.elapsed();
            warn!(%api, topic, partition, attempt, ?after, %error, "still retrying");
        }
    }

    pub(super) fn succeeded(&self) {
        self.succeeded.store(true, Ordering::Relaxed);
    }
}

/// A call that did not succeed has ended with an error, or its future was dropped.
impl Drop for Report {
    fn drop(&mut self) {
        let Some(Context { api, topic, partition, .. }) = self.reported.get() else { return };
        let (api, topic, after) = (api.map(tracing::field::display), topic.as_deref(), self.begun.elapsed());
        match self.succeeded.load(Ordering::Relaxed) {
            true => info!(api, topic, partition, ?after, "succeeded after retries"),
            false => warn!(api, topic, partition, ?after, "ended without success after retries"),
        }
    }
}
