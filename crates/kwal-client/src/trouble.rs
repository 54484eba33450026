//! What an operator sees of trouble that lasts: one line at `WARN` when it has lasted for a while, and one at
//! `INFO` when it is over.
//!
//! A line is about a subject, such as a broker or a partition, however many calls meet its trouble. For each
//! there is at most one line a minute, so that what comes and goes is not reported each time. The guide lists
//! all lines, `guide::logging`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kwal_protocol::{
    api::ApiKey, connection::ConnectionError, error_code::ErrorCode, error_code::Recovery, text::Printable,
};
use kwal_transport::{HostPort, TransportError};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::error::{CallContext, Class, Error, ErrorKind, Source};

/// Emits an event about a partition, or about a broker.
macro_rules! report {
    ($level:ident of $call:expr, [$($field:tt)*], $message:literal) => {{
        let CallContext { topic, partition, .. } = $call;
        $level!(
            messaging.system = "kafka",
            messaging.destination.name = topic,
            messaging.destination.partition.id = partition.map(display),
            $($field)*
            $message
        );
    }};
    ($level:ident at $broker:expr, [$($field:tt)*], $message:literal) => {{
        let HostPort { host, port } = $broker;
        $level!(messaging.system = "kafka", server.address = host, server.port = port, $($field)* $message);
    }};
}

/// The troubles of a client.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    all: Mutex<BTreeMap<Subject, Trouble>>,
    /// How many of those that are there end when a call succeeds, so that calls need no lock while there are
    /// none.
    of_calls: AtomicUsize,
}

/// What a trouble is about.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Subject {
    /// It cannot be reached.
    Broker(HostPort),
    /// It can be reached, and does not answer.
    NoAnswer(HostPort),
    /// It throttles this client.
    Quota(HostPort),
    /// It belongs to another cluster.
    OtherCluster(HostPort),
    /// Calls are retried: those of an API, or all of them.
    Calls(PartitionContext, Option<ApiKey>),
    /// The outcome of an append is unknown.
    InDoubt(PartitionContext),
    /// Nobody got the error of an append.
    Undelivered(PartitionContext),
    /// A batch cannot be read.
    Unreadable(PartitionContext),
}

/// A topic and a partition, as far as a call is about them.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct PartitionContext {
    topic: Option<String>,
    partition: Option<i32>,
}

impl PartitionContext {
    fn of(call: CallContext<'_>) -> Self {
        Self { topic: call.topic.map(str::to_owned), partition: call.partition }
    }

    fn is_of(&self, call: CallContext<'_>) -> bool {
        self.topic.as_deref() == call.topic && self.partition == call.partition
    }
}

/// A call, of an API or of any, whose success is the end of a trouble.
type EndsWith = (PartitionContext, Option<ApiKey>);

#[derive(Debug)]
struct Trouble {
    /// `None` when it is over: kept for a while, for the time of its last line.
    since: Option<Instant>,
    /// When it was met last, or ended. A throttle is met until the end of its pause.
    met_at: Instant,
    is_reported: bool,
    reported_at: Option<Instant>,
    /// The last call that has met it, if its success is the end.
    ends_with: Option<EndsWith>,
    /// How many have it, if they are counted.
    holders: usize,
}

impl Trouble {
    fn is_there(&self) -> bool {
        self.since.is_some()
    }

    /// Whether nothing has to be known of it any more.
    fn is_stale(&self, now: Instant) -> bool {
        let is_kept = match self.since {
            // What ends with a call costs each of them a lock. The others wait for the line of their end.
            Some(_) if self.ends_with.is_some() || !self.is_reported => {
                now < self.met_at + Troubles::FORGOTTEN
            }
            Some(_) => true,
            None => now < self.met_at + Troubles::PAUSE,
        };
        !is_kept && self.holders == 0
    }

    /// Whether it need not have lasted since it was met, when this call meets it. An attempt may hang for
    /// long, but what was met by another call may have ended without one.
    fn may_have_ended(&self, now: Instant, by: &Option<EndsWith>) -> bool {
        let is_same = self.ends_with == *by;
        let lasts = if self.is_reported && is_same { Troubles::FORGOTTEN } else { Troubles::PAUSE };
        self.holders == 0 && now >= self.met_at + lasts
    }

    /// Whether its last report, if there was one, is long ago.
    fn may_be_reported(&self, now: Instant) -> bool {
        self.reported_at.is_none_or(|at| now >= at + Troubles::PAUSE)
    }

    /// Notes that one less has it. Returns whether that was the last one.
    fn release(&mut self) -> bool {
        self.holders = self.holders.saturating_sub(1);
        self.holders == 0
    }

    /// Ends it. Returns how long it lasted, if it was reported.
    fn end(&mut self, now: Instant) -> Option<Duration> {
        let since = self.since.take()?;
        self.met_at = now;
        std::mem::take(&mut self.is_reported).then(|| now - since)
    }
}

impl Troubles {
    /// How long something may last before it is reported.
    pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
    /// The least time between two reports of one subject.
    const PAUSE: Duration = Duration::from_secs(60);
    /// A trouble not met for this long is dropped, or begins anew.
    const FORGOTTEN: Duration = Duration::from_secs(300);
    /// The most subjects. Beyond that, the one that was met least recently is forgotten, unless it was
    /// reported within the last [`PAUSE`](Self::PAUSE): it would be reported again. So there are at most so
    /// many reports in that time.
    const MAX: usize = 1_000;

    /// Notes that a call which has failed since then is to be tried again after an error.
    pub(crate) fn retrying(&self, call: CallContext<'_>, since: Instant, attempt: u32, error: &Error) {
        let (api, class, context) = (call.api, Class(error), PartitionContext::of(call));
        let meet = |subject, api| self.meet(subject, since, Self::PATIENCE, Some((context.clone(), api)));
        let of_partition = || Subject::Calls(context.clone(), None);
        let cause = Cause::of(error);
        match cause {
            // Each broker has a line of its own.
            Cause::NotConnected => {}
            Cause::NoAnswer(Some(HostPort { host, port })) => {
                if let Some(after) = meet(Subject::NoAnswer(HostPort { host: host.clone(), port }), None) {
                    report!(warn of call, [
                        messaging.operation.name = %api, server.address = host, server.port = port,
                        error.type = %class, ?after, attempt, %error,
                    ], "the broker does not answer");
                }
            }
            Cause::NoLeader => {
                if let Some(after) = meet(of_partition(), None) {
                    report!(warn of call, [
                        messaging.operation.name = %api, error.type = %class, ?after, attempt, %error,
                    ], "the partition has no leader");
                }
            }
            Cause::NoPartition => {
                if let Some(after) = meet(of_partition(), None) {
                    report!(warn of call, [
                        messaging.operation.name = %api, error.type = %class, ?after, attempt, %error,
                    ], "the topic or the partition is missing");
                }
            }
            Cause::NoBroker | Cause::NoAnswer(None) | Cause::Other => {
                let subject = match cause {
                    Cause::NoBroker => {
                        Subject::Calls(PartitionContext { topic: None, partition: None }, None)
                    }
                    _ => Subject::Calls(context.clone(), Some(api)),
                };
                if let Some(after) = meet(subject, Some(api)) {
                    report!(warn of call, [
                        messaging.operation.name = %api, error.type = %class, ?after, attempt, %error,
                    ], "still retrying");
                }
            }
        }
    }

    /// Notes that a call has succeeded.
    #[inline]
    pub(crate) fn succeeded(&self, call: CallContext<'_>) {
        if self.of_calls.load(Ordering::Relaxed) > 0 {
            self.end_with(call);
        }
    }

    #[cold]
    fn end_with(&self, call: CallContext<'_>) {
        let (api, now) = (call.api, Instant::now());
        let mut ended = None;
        {
            let mut all = self.all();
            for trouble in all.values_mut().filter(|trouble| trouble.is_there()) {
                if let Some((context, of)) = &trouble.ends_with
                    && context.is_of(call)
                    && of.is_none_or(|of| of == api)
                {
                    // One line for all of them, which says how long the longest was there.
                    ended = ended.max(trouble.end(now));
                }
            }
            self.count(&mut all, now);
        }
        if let Some(after) = ended {
            report!(info of call, [messaging.operation.name = %api, ?after,], "calls succeed again");
        }
    }

    /// Notes an attempt to connect that began then and failed. `is_listed` is whether the cluster advertises
    /// the address.
    pub(crate) fn connect_failed(&self, to: &HostPort, is_listed: bool, begun: Instant, error: &Error) {
        let (class, reason, subject) = (Class(error), error.reason(), Subject::Broker(to.clone()));
        // Nothing helps but a change, and calls fail at once. A name that the cluster advertises and this
        // machine cannot resolve is a mistake of the setup as well.
        let is_permanent = error.recovery() == Recovery::Fail;
        let is_unresolved = is_listed && is_unresolved(error);
        let patience = if is_permanent || is_unresolved { Duration::ZERO } else { Self::PATIENCE };
        let Some(after) = self.meet(subject, begun, patience, None) else { return };
        if is_unresolved {
            report!(warn at to, [error.type = %class, ?after, error = %reason,],
                "the advertised name of the broker cannot be resolved; check `advertised.listeners` and the \
                 name service");
        } else if is_permanent && is_of_authentication(error) {
            report!(warn at to, [error.type = %class, ?after, error = %reason,],
                "the broker refuses the authentication");
        } else {
            report!(warn at to, [error.type = %class, ?after, error = %reason,],
                "the broker cannot be reached");
        }
    }

    /// Notes that a connection was opened.
    pub(crate) fn connected(&self, to: &HostPort) {
        // That a broker accepts connections does not show that it answers.
        if let Some(after) = self.end(&Subject::Broker(to.clone())) {
            report!(info at to, [?after,], "connected to the broker again");
        }
    }

    /// Notes an append whose outcome is unknown. Each has a line, since each has a handle of its own.
    pub(crate) fn in_doubt(&self, call: CallContext<'_>, error: &Error) {
        let subject = Subject::InDoubt(PartitionContext::of(call));
        let now = Instant::now();
        {
            let all = &mut *self.all();
            if let Some(trouble) = Self::entry(all, subject, now) {
                trouble.since.get_or_insert(now);
                (trouble.met_at, trouble.is_reported) = (now, true);
                trouble.holders += 1;
            }
            self.count(all, now);
        }
        report!(warn of call, [error.type = %Class(error), %error,],
            "an append is in doubt: it may be on the log");
    }

    /// Notes that it is known for good whether an append in doubt is on the log.
    pub(crate) fn resolved(&self, call: CallContext<'_>, offset: Option<i64>) {
        let subject = Subject::InDoubt(PartitionContext::of(call));
        let ended = self.all().get_mut(&subject).and_then(|trouble| {
            // Others may be in doubt still.
            if trouble.release() { trouble.end(Instant::now()) } else { None }
        });
        if let Some(after) = ended {
            report!(info of call, [messaging.kafka.offset = offset, ?after,],
                "the append in doubt is resolved");
        }
    }

    /// Notes an append that failed after its caller had dropped it.
    pub(crate) fn undelivered(&self, call: CallContext<'_>, attempts: u32, error: &Error) {
        if self.happens(Subject::Undelivered(PartitionContext::of(call))) {
            report!(warn of call, [error.type = %Class(error), attempts, %error,],
                "an append failed and its caller is gone");
        }
    }

    /// Notes a batch at which a reader stops.
    pub(crate) fn unreadable(&self, call: CallContext<'_>, error: &Error) {
        let subject = Subject::Unreadable(PartitionContext::of(call));
        if self.meet(subject, Instant::now(), Duration::ZERO, None).is_some() {
            report!(warn of call, [
                messaging.kafka.offset = first_offset(error), error.type = %Class(error), %error,
            ], "a reader stops at a batch that cannot be read");
        }
    }

    /// Notes that a reader leaves out the batch at which it had stopped, or that it would have stopped at.
    pub(crate) fn skipped(&self, call: CallContext<'_>, error: &Error) {
        let subject = Subject::Unreadable(PartitionContext::of(call));
        if let Some(after) = self.end(&subject) {
            report!(info of call, [messaging.kafka.offset = first_offset(error), ?after,],
                "the reader goes on after the batch that cannot be read");
        } else if self.happens(subject) {
            report!(warn of call, [
                messaging.kafka.offset = first_offset(error), error.type = %Class(error), %error,
            ], "a reader leaves out a batch that cannot be read");
        }
    }

    /// Notes a broker that belongs to another cluster.
    pub(crate) fn other_cluster(&self, broker: &HostPort, was: &str, is: &str) {
        if self.happens(Subject::OtherCluster(broker.clone())) {
            report!(warn at broker, [was = %Printable(was), is = %Printable(is),],
                "the broker belongs to another cluster");
        }
    }

    /// Notes that a subject has trouble, and since when if it is not known. Returns how long it lasts if that
    /// is to be reported now: once, after so much patience. What does not end by itself is reported again.
    fn meet(
        &self,
        subject: Subject,
        since: Instant,
        patience: Duration,
        ends_with: Option<EndsWith>,
    ) -> Option<Duration> {
        let now = Instant::now();
        let repeats = matches!(subject, Subject::Unreadable(_));
        let all = &mut *self.all();
        let trouble = Self::entry(all, subject, now)?;
        if trouble.since.is_none() || trouble.may_have_ended(now, &ends_with) {
            (trouble.since, trouble.is_reported) = (Some(since), false);
        }
        // Those that have met it before may be gone.
        trouble.ends_with = ends_with;
        trouble.met_at = trouble.met_at.max(now);
        let lasted = now - trouble.since.unwrap_or(now);
        let is_due = lasted >= patience && trouble.may_be_reported(now);
        let is_reported = is_due && (repeats || !trouble.is_reported);
        if is_reported {
            (trouble.is_reported, trouble.reported_at) = (true, Some(now));
        }
        self.count(all, now);
        is_reported.then_some(lasted)
    }

    /// Returns what is known of a subject; `None` if there is no room for one more.
    fn entry(all: &mut BTreeMap<Subject, Trouble>, subject: Subject, now: Instant) -> Option<&mut Trouble> {
        if all.len() >= Self::MAX && !all.contains_key(&subject) {
            let forgettable = all.iter().filter(|(_, trouble)| trouble.may_be_reported(now));
            let oldest = forgettable.min_by_key(|(_, trouble)| trouble.met_at);
            let oldest = oldest.map(|(subject, _)| subject.clone())?;
            all.remove(&oldest);
        }
        Some(all.entry(subject).or_insert_with(|| Trouble {
            since: None,
            met_at: now,
            is_reported: false,
            reported_at: None,
            ends_with: None,
            holders: 0,
        }))
    }

    /// Ends a trouble. Returns how long it lasted, if it was reported.
    fn end(&self, subject: &Subject) -> Option<Duration> {
        self.all().get_mut(subject)?.end(Instant::now())
    }

    /// Notes one more that has a trouble.
    fn hold(&self, subject: Subject) {
        if let Some(trouble) = Self::entry(&mut self.all(), subject, Instant::now()) {
            trouble.holders += 1;
        }
    }

    /// Notes something that does not last. Returns whether it is to be reported.
    fn happens(&self, subject: Subject) -> bool {
        let is_reported = self.meet(subject.clone(), Instant::now(), Duration::ZERO, None).is_some();
        self.end(&subject);
        is_reported
    }

    /// Forgets what is stale, and counts what ends with a call.
    fn count(&self, all: &mut BTreeMap<Subject, Trouble>, now: Instant) {
        all.retain(|_, trouble| !trouble.is_stale(now));
        let of_calls = all.values().filter(|trouble| trouble.is_there() && trouble.ends_with.is_some());
        self.of_calls.store(of_calls.count(), Ordering::Relaxed);
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Subject, Trouble>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is throttled, until it is dropped.
#[derive(Debug)]
pub(crate) struct Throttled {
    troubles: Arc<Troubles>,
    broker: HostPort,
}

impl Throttled {
    pub(crate) fn new(troubles: &Arc<Troubles>, broker: &HostPort) -> Self {
        let this = Self { troubles: Arc::clone(troubles), broker: broker.clone() };
        troubles.hold(this.subject());
        this
    }

    /// Notes a response with a throttle time.
    pub(crate) fn pause(&self, api: ApiKey, pause: Duration) {
        let now = Instant::now();
        // Without calls since the last pause, nothing has shown yet that it is over.
        self.end(|trouble| now > trouble.met_at + Troubles::PATIENCE);
        // A long pause is known to last.
        let patience = Troubles::PATIENCE.saturating_sub(pause);
        let report = self.troubles.meet(self.subject(), now, patience, None);
        if let Some(trouble) = self.troubles.all().get_mut(&self.subject()) {
            trouble.met_at = trouble.met_at.max(now + pause);
        }
        if let Some(after) = report {
            report!(warn at &self.broker, [messaging.operation.name = %api, ?after, ?pause,],
                "throttled by the broker");
        }
    }

    /// Ends the trouble of the broker at the end of its last pause, on a condition.
    fn end(&self, is_over: impl FnOnce(&mut Trouble) -> bool) {
        let ended = self.troubles.all().get_mut(&self.subject()).and_then(|trouble| {
            let at = trouble.met_at.min(Instant::now());
            if is_over(trouble) { trouble.end(at) } else { None }
        });
        if let Some(after) = ended {
            report!(info at &self.broker, [?after,], "no longer throttled by the broker");
        }
    }

    fn subject(&self) -> Subject {
        Subject::Quota(self.broker.clone())
    }
}

impl Drop for Throttled {
    fn drop(&mut self) {
        self.end(Trouble::release);
    }
}

/// Why a call is retried.
enum Cause {
    /// No connection could be opened, to one broker or to all of them.
    NotConnected,
    /// A connection was lost, or no response came.
    NoAnswer(Option<HostPort>),
    /// No broker could be asked, and not only since none could be connected to.
    NoBroker,
    NoLeader,
    NoPartition,
    Other,
}

impl Cause {
    fn of(error: &Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Connect => return Self::NotConnected,
            ErrorKind::Connection => {
                return Self::NoAnswer(error.context().broker.as_deref().and_then(address));
            }
            ErrorKind::NoBroker { attempts } => {
                let is_of_connecting = |(_, error): &(_, Error)| matches!(error.kind(), ErrorKind::Connect);
                return match !attempts.is_empty() && attempts.iter().all(is_of_connecting) {
                    true => Self::NotConnected,
                    false => Self::NoBroker,
                };
            }
            ErrorKind::UnknownPartition { .. } => return Self::NoPartition,
            ErrorKind::Broker { code, .. } => *code,
            _ => return Self::Other,
        };
        match code {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            | ErrorCode::UNKNOWN_TOPIC_ID
            | ErrorCode::INCONSISTENT_TOPIC_ID => Self::NoPartition,
            ErrorCode::LEADER_NOT_AVAILABLE
            | ErrorCode::NOT_LEADER_OR_FOLLOWER
            | ErrorCode::FENCED_LEADER_EPOCH
            | ErrorCode::UNKNOWN_LEADER_EPOCH
            | ErrorCode::REPLICA_NOT_AVAILABLE => Self::NoLeader,
            _ => Self::Other,
        }
    }
}

/// Returns the address in the name of a broker in errors: `broker 1 (host:port)`, or `host:port`.
fn address(broker: &str) -> Option<HostPort> {
    let address = broker.rsplit_once('(').map_or(broker, |(_, rest)| rest.trim_end_matches(')'));
    address.parse().ok()
}

fn is_unresolved(error: &Error) -> bool {
    let Some(Source::Transport(source)) = error.below() else { return false };
    matches!(
        &**source,
        TransportError::Resolve { .. } | TransportError::NoAddress { .. } | TransportError::InvalidAddress(_)
    )
}

fn is_of_authentication(error: &Error) -> bool {
    use ConnectionError::{
        AuthenticationFailed, EndlessExchange, MechanismRefused, NoAuthentication, Refused, Sasl,
    };
    matches!(
        error.below(),
        Some(Source::Connection(
            AuthenticationFailed { .. }
                | EndlessExchange { .. }
                | MechanismRefused { .. }
                | NoAuthentication { .. }
                | Refused { api: ApiKey::SASL_HANDSHAKE, .. }
                | Sasl { .. }
        ))
    )
}

/// The first offset of a batch that cannot be read, if its header says so.
fn first_offset(error: &Error) -> Option<i64> {
    match error.kind() {
        ErrorKind::Corrupt { offsets } => offsets.as_ref().map(|offsets| offsets.start),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn call(topic: &str) -> CallContext<'_> {
        CallContext::partition(ApiKey::FETCH, topic, 0)
    }

    fn no_leader() -> Error {
        Error::broker(ErrorCode::LEADER_NOT_AVAILABLE)
    }

    #[test]
    fn the_name_of_a_broker_has_its_address() {
        for (name, expected) in [
            ("broker 1 (kafka-1:9092)", Some(HostPort::new("kafka-1", 9092))),
            ("broker 2 ([::1]:9092)", Some(HostPort::new("::1", 9092))),
            ("kafka-1:9092", Some(HostPort::new("kafka-1", 9092))),
            ("broker 3", None),
        ] {
            assert_eq!(address(name), expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_troubles_that_are_remembered_are_limited() {
        let troubles = Troubles::default();
        for topic in 0..3 * Troubles::MAX {
            advance(Duration::from_millis(1)).await;
            troubles.retrying(call(&topic.to_string()), Instant::now(), 1, &no_leader());
        }
        assert_eq!(troubles.all().len(), Troubles::MAX);
        assert_eq!(troubles.of_calls.load(Ordering::Relaxed), Troubles::MAX);
        // The last ones.
        troubles.succeeded(call("0"));
        assert_eq!(troubles.of_calls.load(Ordering::Relaxed), Troubles::MAX);
        troubles.succeeded(call(&(3 * Troubles::MAX - 1).to_string()));
        assert_eq!(troubles.of_calls.load(Ordering::Relaxed), Troubles::MAX - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_were_given_up_cost_the_others_nothing_after_a_while() {
        let troubles = Troubles::default();
        troubles.retrying(call("a"), Instant::now(), 1, &no_leader());
        advance(Troubles::FORGOTTEN).await;
        troubles.succeeded(call("b"));
        assert_eq!(troubles.of_calls.load(Ordering::Relaxed), 0);
        assert!(troubles.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_subject_is_reported_after_a_second_and_once_a_minute() {
        let troubles = Troubles::default();
        let context = PartitionContext { topic: None, partition: None };
        let subject = Subject::Calls(context.clone(), None);
        let meet =
            |since| troubles.meet(subject.clone(), since, Troubles::PATIENCE, Some((context.clone(), None)));
        let end = || troubles.all().get_mut(&subject).and_then(|trouble| trouble.end(Instant::now()));
        let begun = Instant::now();
        assert_eq!(meet(begun), None);
        advance(SECOND).await;
        assert_eq!(meet(begun), Some(SECOND));
        assert_eq!(meet(begun), None);
        advance(SECOND).await;
        assert_eq!(end(), Some(2 * SECOND));
        assert_eq!(end(), None);
        // It comes back, and lasts until a minute has passed since the line.
        let again = Instant::now();
        advance(58 * SECOND).await;
        assert_eq!(meet(again), None);
        assert_eq!(end(), None);
        let third = Instant::now();
        advance(SECOND).await;
        assert_eq!(meet(third), Some(SECOND));
    }

    /// More subjects have trouble than are remembered: what is not remembered is not reported anew.
    #[tokio::test(start_paused = true)]
    async fn no_subject_is_reported_twice_a_minute_however_many_have_trouble() {
        let troubles = Troubles::default();
        let begun = Instant::now();
        advance(SECOND).await;
        let mut reports = 0;
        for _ in 0..10 {
            for topic in 0..=Troubles::MAX {
                let context = PartitionContext { topic: Some(topic.to_string()), partition: Some(0) };
                let subject = Subject::Calls(context.clone(), None);
                let ends_with = Some((context, None));
                reports +=
                    usize::from(troubles.meet(subject, begun, Troubles::PATIENCE, ends_with).is_some());
            }
            advance(SECOND).await;
        }
        assert_eq!(reports, Troubles::MAX);
    }

    /// The call that met it first is gone, and nobody learns that it succeeds.
    #[tokio::test(start_paused = true)]
    async fn another_call_can_end_a_trouble_that_it_has_met_as_well() {
        let troubles = Troubles::default();
        let silent = || {
            let kind = ErrorKind::Connection;
            call("a").error(kind).with_context(call("a").at_broker(&"broker 1 (kafka-1:9092)"))
        };
        let is_there = || troubles.all().values().any(Trouble::is_there);
        let begun = Instant::now();
        advance(SECOND).await;
        troubles.retrying(call("a"), begun, 1, &silent());
        troubles.retrying(call("b"), begun, 1, &silent());
        assert!(is_there());
        troubles.succeeded(call("b"));
        assert!(!is_there());
    }

    /// A second outage, after one that was met by a call which was given up.
    #[tokio::test(start_paused = true)]
    async fn what_a_call_left_behind_does_not_hide_what_another_one_meets_later() {
        let troubles = Troubles::default();
        let subject = Subject::NoAnswer(HostPort::new("a", 9092));
        let context = |topic: &str| PartitionContext { topic: Some(topic.to_owned()), partition: Some(0) };
        let meet = |topic: &str, since| {
            troubles.meet(subject.clone(), since, Troubles::PATIENCE, Some((context(topic), None)))
        };
        let begun = Instant::now();
        advance(SECOND).await;
        assert_eq!(meet("a", begun), Some(SECOND));
        advance(2 * Troubles::PAUSE).await;
        let again = Instant::now();
        assert_eq!(meet("b", again), None);
        advance(SECOND).await;
        assert_eq!(meet("b", again), Some(SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_lasts_as_long_as_one_connection_is_throttled() {
        let troubles = Arc::new(Troubles::default());
        let broker = HostPort::new("a", 9092);
        let is_there = || troubles.all().values().any(Trouble::is_there);
        let first = Throttled::new(&troubles, &broker);
        let second = Throttled::new(&troubles, &broker);
        first.pause(ApiKey::FETCH, SECOND);
        drop(first);
        assert!(is_there());
        drop(second);
        assert!(!is_there());
    }
}
