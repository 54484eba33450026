//! Attempts of one call: the pauses between them and the deadline over all of them.

use std::{convert::Infallible, future::pending, pin::pin, time::Duration};

use kwal_protocol::error_code::{Effect, ErrorCode, Recovery};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use super::tracker::Tracker;
use crate::{
    backoff::Backoff,
    cluster::Cluster,
    duration::LONGEST,
    error::{CallContext, Error, ErrorKind, Progress, Source},
    metrics,
    trouble::Troubles,
};

/// When a call has to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// The time that the call has in all: for its error.
    pub(crate) after: Duration,
}

impl Deadline {
    /// A deadline so long from now, at most [`LONGEST`].
    pub(crate) fn after(after: Duration) -> Self {
        let after = after.min(LONGEST);
        Self { at: Instant::now() + after, after }
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
    tracker: Shared<'a>,
    /// When the first attempt failed: before, the call may have waited for records.
    failing_since: Option<Instant>,
}

/// A tracker that is the call's own, or that of many calls.
#[derive(Debug)]
enum Shared<'a> {
    Own(Tracker),
    Borrowed(&'a Tracker),
}

impl<'a> Retry<'a> {
    pub(crate) fn new(cluster: &'a Cluster, call: CallContext<'a>, deadline: Deadline) -> Self {
        Self::tracked(cluster, call, deadline, Shared::Own(Tracker::new()))
    }

    /// The attempts of many calls that share them, each with a deadline of its own.
    pub(crate) fn of_many(cluster: &'a Cluster, call: CallContext<'a>, tracker: &'a Tracker) -> Self {
        Self::tracked(cluster, call, Deadline::after(LONGEST), Shared::Borrowed(tracker))
    }

    fn tracked(cluster: &'a Cluster, call: CallContext<'a>, deadline: Deadline, tracker: Shared<'a>) -> Self {
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
            tracker,
            failing_since: None,
        }
    }

    /// Returns where the attempts note what they wait for.
    pub(crate) fn tracker(&self) -> &Tracker {
        match &self.tracker {
            Shared::Own(tracker) => tracker,
            Shared::Borrowed(tracker) => tracker,
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
        // Every attempt begins with it, and notes when it goes on to something else.
        self.tracker().set(Progress::Lookup, None);
        // Dropped after the error was made, which names the brokers that it was asking.
        let mut work = pin!(async {
            tokio::select! {
                biased;
                result = work => result,
                never = self.report_if_it_hangs() => match never {},
            }
        });
        match timeout_at(self.deadline.at, work.as_mut()).await {
            Ok(result) => {
                if result.is_ok() {
                    self.cluster.troubles.succeeded(self.call);
                }
                result
            }
            Err(_) => Err(self.deadline_exceeded(None)),
        }
    }

    /// Reports an attempt that hangs after another one failed. Waiting for a response is no reason: a fetch
    /// waits for records.
    pub(crate) async fn report_if_it_hangs(&self) -> Infallible {
        if let (Some(last), Some(since)) = (&self.last, self.failing_since) {
            sleep_until(since + Troubles::PATIENCE).await;
            if self.tracker().progress() != Progress::Response {
                self.report(last, since);
            }
        }
        pending().await
    }

    /// Reports that the call has been retrying since then.
    fn report(&self, error: &Error, since: Instant) {
        self.cluster.troubles.retrying(self.call, since, self.attempt, error);
    }

    /// Pauses before the next attempt, or ends the call with the error.
    ///
    /// `generation` is that of the metadata that the attempt used.
    pub(crate) async fn pause(&mut self, error: Error, generation: u64) -> Result<(), Error> {
        pause_until(self.plan(error, generation)?).await;
        Ok(())
    }

    /// Returns when the next attempt may begin, or ends the call with the error.
    pub(crate) fn plan(&mut self, error: Error, generation: u64) -> Result<Instant, Error> {
        let recovery = error.recovery();
        self.plan_next(error, recovery, generation, false)
    }

    /// Plans the next attempt after an error that would end the call if it certainly came from the leader.
    pub(crate) fn plan_in_doubt(&mut self, error: Error, generation: u64) -> Result<Instant, Error> {
        self.plan_next(error, Recovery::Refresh, generation, false)
    }

    /// Plans the next attempt without a pause if the attempt before this one had one: the next broker to ask
    /// is known already.
    pub(crate) fn plan_once(&mut self, error: Error, generation: u64) -> Result<Instant, Error> {
        let (recovery, skip) = (error.recovery(), !self.skipped_pause);
        self.plan_next(error, recovery, generation, skip)
    }

    fn plan_next(
        &mut self,
        error: Error,
        recovery: Recovery,
        generation: u64,
        skip_pause: bool,
    ) -> Result<Instant, Error> {
        let planned = self.next(error, recovery, generation, skip_pause);
        match (&planned, &self.last, &self.tracker) {
            (Ok(_), Some(error), _) => metrics::retried(self.call.api, error),
            (Err(error), _, Shared::Own(_)) => metrics::call_failed(self.call.api, error),
            // Each of many calls ends on its own.
            _ => {}
        }
        planned
    }

    fn next(
        &mut self,
        error: Error,
        recovery: Recovery,
        generation: u64,
        skip_pause: bool,
    ) -> Result<Instant, Error> {
        if recovery == Recovery::Fail {
            return Err(self.end(error));
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
        self.tracker().pause();
        if now + pause >= self.deadline.at {
            // The next attempt could not begin in time, so the caller need not wait either.
            return Err(self.deadline_exceeded(Some(error)));
        }
        let since = *self.failing_since.get_or_insert(now);
        if now >= since + Troubles::PATIENCE {
            self.report(&error, since);
        }
        self.last = Some(error);
        self.attempt += 1;
        Ok(now + pause)
    }

    /// Ends the call with an error. An exceeded deadline reports why the call did not succeed before.
    pub(crate) fn end(&mut self, error: Error) -> Error {
        match (error.kind(), error.below(), self.last.take()) {
            (ErrorKind::DeadlineExceeded { .. }, None, Some(last)) => {
                error.with_source(Source::Call(last.into()))
            }
            _ => error,
        }
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
            (&ErrorKind::UnknownPartition { partitions, .. }, _) => {
                self.call.error(ErrorKind::UnknownPartition { partitions, waited })
            }
            (_, None) | (ErrorKind::EpochUnknown { .. }, _) => error,
            // On Produce the code may follow the append, so it must not be simplified here.
            (ErrorKind::Broker { .. }, _) if error.effect() == Effect::Unknown => error,
            (_, Some(_)) => self.call.error(ErrorKind::UnknownTopic { waited }),
        })
    }

    fn deadline_exceeded(&self, last: Option<Error>) -> Error {
        let error = self.tracker().deadline_exceeded(self.cluster, self.call, self.deadline.after);
        match last {
            Some(last) => error.with_source(Source::Call(last.into())),
            None => error,
        }
    }
}

/// Waits until then, if that is not now.
pub(super) async fn pause_until(at: Instant) {
    if at > Instant::now() {
        sleep_until(at).await;
    }
}

fn is_unknown(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::UnknownPartition { .. } | ErrorKind::EpochUnknown { .. } => true,
        ErrorKind::Broker { code, .. } => matches!(
            *code,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
                | ErrorCode::UNKNOWN_TOPIC_ID
                | ErrorCode::INCONSISTENT_TOPIC_ID
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::api::ApiKey;

    use super::{super::tests::cluster, *};
    use crate::duration::LONGEST;

    const SECOND: Duration = Duration::from_secs(1);
    const UNKNOWN: ErrorCode = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;

    fn call(api: ApiKey) -> CallContext<'static> {
        CallContext::partition(api, "wal", 0)
    }

    fn error(api: ApiKey, code: ErrorCode) -> Error {
        call(api).error(ErrorKind::Broker { code, message: None })
    }

    /// Attempts that all fail with the same error, until the call ends.
    async fn pause_until_the_end(retry: &mut Retry<'_>, error: &Error) -> Error {
        for _ in 0..1000 {
            if let Err(ended) = retry.pause(error.clone(), 3).await {
                return ended;
            }
        }
        panic!("it goes on for ever: {error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_at_most_thirty_years_away() {
        let now = Instant::now();
        for (after, expected) in [
            (Duration::ZERO, Duration::ZERO),
            (SECOND, SECOND),
            (LONGEST, LONGEST),
            (LONGEST + SECOND, LONGEST),
            (Duration::MAX, LONGEST),
        ] {
            let deadline = Deadline::after(after);
            assert_eq!((deadline.at - now, deadline.after), (expected, expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_deadline_counts_with_its_own_time() {
        let early = Deadline::after(2 * SECOND);
        tokio::time::advance(SECOND).await;
        let (late, earliest) = (Deadline::after(3 * SECOND), Deadline::after(SECOND / 2));
        for (one, other, after) in [
            (early, late, early.after),
            (late, early, early.after),
            (early, earliest, earliest.after),
            (early, early, early.after),
            (late, Deadline::after(Duration::MAX), late.after),
        ] {
            let min = one.min(other);
            assert_eq!((min.at, min.after), (one.at.min(other.at), after));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_topic_is_waited_for_without_interruption() {
        let cluster = cluster();
        let limit = cluster.config.deadlines.unknown_topic;
        let mut retry = Retry::new(&cluster, call(ApiKey::METADATA), Deadline::after(60 * SECOND));
        let begun = Instant::now();
        let unknown = |retry: &mut Retry<'_>, after| {
            retry.check_unknown(error(ApiKey::METADATA, UNKNOWN), begun + after)
        };
        let nearly = limit - Duration::from_nanos(1);
        unknown(&mut retry, Duration::ZERO).unwrap();
        unknown(&mut retry, nearly).unwrap();
        // A broker that knows the topic, but not its leader.
        let no_leader = error(ApiKey::METADATA, ErrorCode::LEADER_NOT_AVAILABLE);
        retry.check_unknown(no_leader, begun + nearly).unwrap();
        unknown(&mut retry, limit).unwrap();
        unknown(&mut retry, limit + nearly).unwrap();
        let gone = unknown(&mut retry, 2 * limit).unwrap_err();
        assert!(matches!(gone.kind(), ErrorKind::UnknownTopic { waited } if *waited == limit), "{gone:?}");
        assert_eq!(*gone.context(), call(ApiKey::METADATA).context());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_topic_has_a_kind_of_its_own_unless_it_would_hide_something() {
        let cluster = cluster();
        let limit = cluster.config.deadlines.unknown_topic;
        let is_topic = |kind: &ErrorKind| matches!(kind, ErrorKind::UnknownTopic { .. });
        let is_partition = |kind: &ErrorKind| matches!(kind, ErrorKind::UnknownPartition { partitions: 4, waited } if *waited == limit);
        let is_code = |kind: &ErrorKind| matches!(kind, ErrorKind::Broker { code: UNKNOWN, .. });
        let unknown = ErrorKind::UnknownPartition { partitions: 4, waited: Duration::ZERO };
        let partition = call(ApiKey::METADATA).error(unknown);
        let of_cluster = CallContext::cluster(ApiKey::METADATA);
        for (about, error, expected) in [
            (call(ApiKey::FETCH), error(ApiKey::FETCH, UNKNOWN), &is_topic as &dyn Fn(&ErrorKind) -> bool),
            (call(ApiKey::FETCH), error(ApiKey::FETCH, ErrorCode::UNKNOWN_TOPIC_ID), &is_topic),
            (call(ApiKey::FETCH), error(ApiKey::FETCH, ErrorCode::INCONSISTENT_TOPIC_ID), &is_topic),
            (call(ApiKey::FETCH), partition, &is_partition),
            // The code may follow an append.
            (call(ApiKey::PRODUCE), error(ApiKey::PRODUCE, UNKNOWN), &is_code),
            (of_cluster, error(ApiKey::METADATA, UNKNOWN), &is_code),
        ] {
            let text = format!("{error:?}");
            let mut retry = Retry::new(&cluster, about, Deadline::after(60 * SECOND));
            let now = Instant::now();
            retry.check_unknown(error.clone(), now).unwrap();
            let error = retry.check_unknown(error, now + limit).unwrap_err();
            assert!(expected(error.kind()), "{text}: {error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_attempt_falls_on_the_end_of_the_time_for_an_unknown_topic() {
        let cluster = cluster();
        let limit = cluster.config.deadlines.unknown_topic;
        let mut retry = Retry::new(&cluster, call(ApiKey::METADATA), Deadline::after(60 * SECOND));
        let begun = Instant::now();
        let error = pause_until_the_end(&mut retry, &error(ApiKey::METADATA, UNKNOWN)).await;
        assert!(matches!(error.kind(), ErrorKind::UnknownTopic { waited } if *waited >= limit), "{error:?}");
        // Timers have whole milliseconds.
        let late = begun.elapsed() - limit;
        assert!(late < Duration::from_millis(2), "{late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_that_no_retry_helps_with_ends_the_call_at_once() {
        let cluster = cluster();
        let mut retry = Retry::new(&cluster, call(ApiKey::FETCH), Deadline::after(60 * SECOND));
        let begun = Instant::now();
        let denied = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
        let ended = retry.pause(error(ApiKey::FETCH, denied), 3).await.unwrap_err();
        assert_eq!(ended.code(), Some(denied));
        assert_eq!((begun.elapsed(), retry.attempt(), retry.min_generation()), (Duration::ZERO, 1, 0));
        // Unless it may come from another broker than the leader.
        let next = retry.plan_in_doubt(error(ApiKey::FETCH, denied), 3).unwrap();
        assert_eq!((retry.attempt(), retry.min_generation()), (2, 3));
        assert!(next > begun);
    }

    #[tokio::test(start_paused = true)]
    async fn metadata_has_to_be_newer_only_if_it_was_wrong() {
        let cluster = cluster();
        let mut retry = Retry::new(&cluster, call(ApiKey::FETCH), Deadline::after(60 * SECOND));
        for (code, generation, min_generation) in [
            (ErrorCode::OFFSET_NOT_AVAILABLE, 5, 0),
            (ErrorCode::FENCED_LEADER_EPOCH, 3, 3),
            (ErrorCode::FENCED_LEADER_EPOCH, 2, 3),
            (ErrorCode::OFFSET_NOT_AVAILABLE, 9, 3),
        ] {
            retry.pause(error(ApiKey::FETCH, code), generation).await.unwrap();
            assert_eq!(retry.min_generation(), min_generation);
        }
        assert_eq!(retry.attempt(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn every_second_attempt_may_begin_without_a_pause() {
        let cluster = cluster();
        let mut retry = Retry::new(&cluster, call(ApiKey::FETCH), Deadline::after(60 * SECOND));
        for pauses in [false, true, false, true] {
            let code = ErrorCode::FENCED_LEADER_EPOCH;
            let next = retry.plan_once(error(ApiKey::FETCH, code), 3).unwrap();
            assert_eq!(next > Instant::now(), pauses);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_beyond_the_deadline_ends_the_call_with_its_last_error() {
        let cluster = cluster();
        let code = ErrorCode::OFFSET_NOT_AVAILABLE;
        let mut retry = Retry::new(&cluster, call(ApiKey::FETCH), Deadline::after(SECOND));
        let begun = Instant::now();
        let ended = pause_until_the_end(&mut retry, &error(ApiKey::FETCH, code)).await;
        let expected =
            |kind: &ErrorKind| matches!(kind, ErrorKind::DeadlineExceeded { after, .. } if *after == SECOND);
        assert!(expected(ended.kind()), "{ended:?}");
        assert_eq!(ended.code(), Some(code));
        assert!(begun.elapsed() < SECOND, "no need to wait for the deadline");
        // An attempt that the deadline cuts off reports the attempt before it.
        let mut retry = Retry::new(&cluster, call(ApiKey::FETCH), Deadline::after(SECOND));
        retry.pause(error(ApiKey::FETCH, code), 3).await.unwrap();
        let cut_off = retry.run(pending::<Result<(), Error>>()).await.unwrap_err();
        assert!(expected(cut_off.kind()) && cut_off.code().is_none(), "{cut_off:?}");
        let ended = retry.pause(cut_off, 3).await.unwrap_err();
        assert!(expected(ended.kind()) && ended.code() == Some(code), "{ended:?}");
        // Nothing is started after it.
        let late = retry.run(async { panic!("started") }).await.map(|()| 0).unwrap_err();
        assert!(expected(late.kind()), "{late:?}");
    }
}
