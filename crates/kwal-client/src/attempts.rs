//! The one loop that retries: attempts, pauses, and the deadline over all of them.

use std::time::Duration;

use fastrand::Rng;
use kwal_protocol::{
    api::ApiKey,
    error_code::{Effect, ErrorCode},
};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use crate::{
    cluster::Place,
    config::{Config, Deadlines},
    error::{Error, Recovery},
    retry::Backoff,
};

/// The attempts of one operation.
///
/// ```text
/// loop {
///     match attempts.within(attempt).await {
///         Ok(value) => return Ok(value),
///         Err(error) => attempts.again(error).await?,
///     }
/// }
/// ```
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    api: ApiKey,
    place: Place<'a>,
    deadlines: Deadlines,
    deadline: Instant,
    backoff: Backoff,
    count: u32,
    /// Since when the topic or partition has been unknown, without a break.
    unknown_since: Option<Instant>,
    /// Metadata up to this news has proved wrong.
    stale: u64,
    /// The attempt began without a pause.
    at_once: bool,
    last: Option<Box<Error>>,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(config: &Config, rng: Rng, deadline: Instant, api: ApiKey, place: Place<'a>) -> Self {
        Self {
            api,
            place,
            deadlines: config.deadlines,
            deadline,
            backoff: Backoff::new(config.retry, rng),
            count: 1,
            unknown_since: None,
            stale: 0,
            at_once: false,
            last: None,
        }
    }

    /// How many attempts there have been, this one included.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Metadata has to be newer than this news.
    pub(crate) fn stale(&self) -> u64 {
        self.stale
    }

    /// Waits for a piece of the work, until the deadline; does not begin it after that.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if Instant::now() >= self.deadline {
            return Err(self.too_late(None));
        }
        match timeout_at(self.deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(self.too_late(None)),
        }
    }

    /// Pauses before the next attempt, or ends the operation with the error.
    ///
    /// `used` is the news of metadata that the attempt relied on.
    pub(crate) async fn again(&mut self, error: Error, used: u64) -> Result<(), Error> {
        let recovery = error.recovery();
        self.next(error, recovery, used, false).await
    }

    /// The same after an error that would end the operation, if it was certain that it comes from the right broker.
    pub(crate) async fn again_in_doubt(&mut self, error: Error, used: u64) -> Result<(), Error> {
        self.next(error, Recovery::Refresh, used, false).await
    }

    /// The same, when it is known already who is to be asked next: the first time there is no pause then.
    pub(crate) async fn again_elsewhere(&mut self, error: Error, used: u64) -> Result<(), Error> {
        let (recovery, at_once) = (error.recovery(), !self.at_once);
        self.next(error, recovery, used, at_once).await
    }

    async fn next(
        &mut self,
        error: Error,
        recovery: Recovery,
        used: u64,
        at_once: bool,
    ) -> Result<(), Error> {
        if recovery == Recovery::Fail {
            // A deadline tells why it was not met sooner.
            return Err(match (error, self.last.take()) {
                (Error::DeadlineExceeded { after, at, last: None }, last) => {
                    Error::DeadlineExceeded { after, at, last }
                }
                (error, _) => error,
            });
        }
        let now = Instant::now();
        let error = self.give_unknown_up(error, now)?;
        if recovery == Recovery::Refresh {
            self.stale = self.stale.max(used);
        }
        self.at_once = at_once;
        let mut pause = match at_once {
            true => Duration::ZERO,
            false => self.backoff.next().unwrap_or_default(),
        };
        if let Some(since) = self.unknown_since {
            // The last question falls on the end of the time for it.
            pause = pause.min(since + self.deadlines.unknown_topic - now);
        }
        debug!(attempt = self.count, ?pause, %error, "trying again");
        if now + pause >= self.deadline {
            // The next attempt could not begin in time, so the answer need not wait either.
            return Err(self.too_late(Some(Box::new(error))));
        }
        self.last = Some(Box::new(error));
        if !at_once {
            sleep_until(now + pause).await;
        }
        self.count += 1;
        Ok(())
    }

    /// A topic that was just made is not known everywhere at once, but soon.
    fn give_unknown_up(&mut self, error: Error, now: Instant) -> Result<Error, Error> {
        if !is_unknown(&error) {
            self.unknown_since = None;
            return Ok(error);
        }
        let waited = now - *self.unknown_since.get_or_insert(now);
        if waited < self.deadlines.unknown_topic {
            return Ok(error);
        }
        Err(match (error, self.place.topic) {
            (error @ Error::UnknownPartition { .. }, _) | (error, None) => error,
            // On Produce the code may follow the append, so it is not for here to simplify.
            (error @ Error::Broker { .. }, _) if error.effect() == Effect::Unknown => error,
            (_, Some(topic)) => Error::UnknownTopic { topic: topic.to_owned(), waited },
        })
    }

    fn too_late(&self, last: Option<Box<Error>>) -> Error {
        Error::DeadlineExceeded { after: self.deadlines.operation, at: self.place.at(self.api, None), last }
    }
}

fn is_unknown(error: &Error) -> bool {
    match error {
        Error::UnknownPartition { .. } => true,
        Error::Broker { code, .. } => matches!(
            *code,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
                | ErrorCode::UNKNOWN_TOPIC_ID
                | ErrorCode::INCONSISTENT_TOPIC_ID
        ),
        _ => false,
    }
}
