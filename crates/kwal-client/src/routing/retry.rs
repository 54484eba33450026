//! Attempts of one call: the pauses between them and the deadline over all of them.

use std::time::Duration;

use fastrand::Rng;
use kwal_protocol::error_code::{Effect, ErrorCode, Recovery};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use crate::{
    cluster::Cluster,
    config::{FOREVER, RetryPolicy},
    error::{CallContext, Error, ErrorKind, Source},
};

/// When a call has to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// The time that the call has in all: for its error.
    pub(crate) after: Duration,
}

impl Deadline {
    /// A deadline so long from now, but at most 30 years.
    pub(crate) fn after(after: Duration) -> Self {
        Self { at: Instant::now() + FOREVER.min(after), after }
    }

    /// Returns the earlier of two deadlines.
    pub(crate) fn min(self, other: Self) -> Self {
        if other.at < self.at { other } else { self }
    }
}

/// The attempts of one call.
///
/// ```text
/// loop {
///     match retry.run(attempt).await {
///         Ok(value) => return Ok(value),
///         Err(error) => retry.pause(error, generation).await?,
///     }
/// }
/// ```
#[derive(Debug)]
pub(crate) struct Retry<'a> {
    cluster: &'a Cluster,
    call: CallContext<'a>,
    deadline: Deadline,
    /// Created at the first pause: most calls need none.
    backoff: Option<Backoff>,
    attempt: u32,
    /// Since when the topic or partition has been unknown without interruption.
    unknown_since: Option<Instant>,
    /// Metadata has to be newer than this, because that one was wrong.
    min_generation: u64,
    /// The attempt began without a pause.
    skipped_pause: bool,
    last: Option<Error>,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(cluster: &'a Cluster, call: CallContext<'a>, deadline: Deadline) -> Self {
        Self {
            cluster,
            call,
            deadline,
            backoff: None,
            attempt: 1,
            unknown_since: None,
            min_generation: 0,
            skipped_pause: false,
            last: None,
        }
    }

    /// Returns the number of the current attempt, from 1 on.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the generation that metadata has to exceed.
    pub(crate) fn min_generation(&self) -> u64 {
        self.min_generation
    }

    /// Runs a part of the call until the deadline. After the deadline it is not started.
    pub(crate) async fn run<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if Instant::now() >= self.deadline.at {
            return Err(self.deadline_exceeded(None));
        }
        match timeout_at(self.deadline.at, work).await {
            Ok(result) => result,
            Err(_) => Err(self.deadline_exceeded(None)),
        }
    }

    /// Pauses before the next attempt, or ends the call with the error.
    ///
    /// `generation` is that of the metadata that the attempt used.
    pub(crate) async fn pause(&mut self, error: Error, generation: u64) -> Result<(), Error> {
        let recovery = error.recovery();
        self.next(error, recovery, generation, false).await
    }

    /// Pauses after an error that would end the call if it certainly came from the leader.
    pub(crate) async fn pause_in_doubt(&mut self, error: Error, generation: u64) -> Result<(), Error> {
        self.next(error, Recovery::Refresh, generation, false).await
    }

    /// Pauses if the attempt before this one did not, either: the next broker to ask is known already.
    pub(crate) async fn pause_once(&mut self, error: Error, generation: u64) -> Result<(), Error> {
        let (recovery, skip) = (error.recovery(), !self.skipped_pause);
        self.next(error, recovery, generation, skip).await
    }

    async fn next(
        &mut self,
        error: Error,
        recovery: Recovery,
        generation: u64,
        skip_pause: bool,
    ) -> Result<(), Error> {
        if recovery == Recovery::Fail {
            // An exceeded deadline reports why the call did not succeed before.
            return Err(match (error.kind(), error.cause(), self.last.take()) {
                (ErrorKind::DeadlineExceeded { .. }, None, Some(last)) => {
                    error.with_source(Source::Call(last.into()))
                }
                _ => error,
            });
        }
        let now = Instant::now();
        let error = self.check_unknown(error, now)?;
        if recovery == Recovery::Refresh {
            self.min_generation = self.min_generation.max(generation);
        }
        self.skipped_pause = skip_pause;
        let mut pause = match skip_pause {
            true => Duration::ZERO,
            false => self.next_pause(),
        };
        if let Some(since) = self.unknown_since {
            // The last attempt falls on the end of the time for it.
            pause = pause.min((since + self.unknown_topic()).saturating_duration_since(now));
        }
        debug!(attempt = self.attempt, ?pause, %error, "retrying");
        if now + pause >= self.deadline.at {
            // The next attempt could not begin in time, so the caller need not wait either.
            return Err(self.deadline_exceeded(Some(error)));
        }
        self.last = Some(error);
        if !skip_pause {
            sleep_until(now + pause).await;
        }
        self.attempt += 1;
        Ok(())
    }

    fn unknown_topic(&self) -> Duration {
        self.cluster.config.deadlines.unknown_topic
    }

    fn next_pause(&mut self) -> Duration {
        let new = || Backoff::new(self.cluster.config.retry, self.cluster.random.fork());
        let backoff = self.backoff.get_or_insert_with(new);
        backoff.next().unwrap_or_default()
    }

    /// A topic that was just created is not known to all brokers at once, but soon.
    fn check_unknown(&mut self, error: Error, now: Instant) -> Result<Error, Error> {
        if !is_unknown(&error) {
            self.unknown_since = None;
            return Ok(error);
        }
        let waited = now - *self.unknown_since.get_or_insert(now);
        if waited < self.unknown_topic() {
            return Ok(error);
        }
        Err(match (error.kind(), self.call.topic) {
            (ErrorKind::UnknownPartition { .. }, _) | (_, None) => error,
            // On Produce the code may follow the append, so it must not be simplified here.
            (ErrorKind::Broker { .. }, _) if error.effect() == Effect::Unknown => error,
            (_, Some(_)) => self.call.error(ErrorKind::UnknownTopic { waited }),
        })
    }

    fn deadline_exceeded(&self, last: Option<Error>) -> Error {
        let error = self.call.error(ErrorKind::DeadlineExceeded { after: self.deadline.after });
        match last {
            Some(last) => error.with_source(Source::Call(last.into())),
            None => error,
        }
    }
}

fn is_unknown(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::UnknownPartition { .. } => true,
        ErrorKind::Broker { code, .. } => matches!(
            *code,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
                | ErrorCode::UNKNOWN_TOPIC_ID
                | ErrorCode::INCONSISTENT_TOPIC_ID
        ),
        _ => false,
    }
}

/// The pauses of one call, in order. It does not end.
#[derive(Debug)]
struct Backoff {
    next: Duration,
    max: Duration,
    rng: Rng,
}

impl Backoff {
    fn new(policy: RetryPolicy, rng: Rng) -> Self {
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
