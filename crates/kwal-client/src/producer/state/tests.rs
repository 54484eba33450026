//! The rules of the state machine, one by one.
//!
//! Batches have one record and are named. Stamps are written `epoch.sequence`, or `id:epoch.sequence` if the
//! id is not [`ID`].

mod ends;
mod failures;
mod holder;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::*;

const ID: i64 = 7;
const SETTINGS: Settings = Settings {
    window: 5,
    idempotent: true,
    stop_on_failure: true,
    expiration: Duration::from_secs(60),
    epochs: EpochOwner::Client,
};
const ACQUIRE: Action = Action::AcquireIdentity { held: None };
const CONTINUE: Settings = Settings { stop_on_failure: false, ..SETTINGS };

const IN_DOUBT: RefusalKind = RefusalKind::Retry { may_have_applied: true, reconnect: false };
const NOT_APPENDED: RefusalKind = RefusalKind::Retry { may_have_applied: false, reconnect: false };
const LOST_RESPONSE: RefusalKind = RefusalKind::Retry { may_have_applied: true, reconnect: true };
const NOT_SENT: RefusalKind = RefusalKind::Retry { may_have_applied: false, reconnect: true };
const TOO_LARGE: RefusalKind = RefusalKind::Final { may_have_applied: false };

/// A producer and its caller, whose pauses are 100 ms and deadlines 10 s.
struct Caller {
    now: Instant,
    producer: Producer<&'static str, &'static str>,
    in_flight: HashMap<&'static str, Token>,
}

impl Caller {
    fn new(settings: Settings) -> Self {
        let now = tokio::time::Instant::now().into_std();
        Self { now, producer: Producer::new(settings), in_flight: HashMap::new() }
    }

    /// Has an id and a connection, and one batch acknowledged at offset 0.
    fn proven(settings: Settings) -> Self {
        let mut caller = Self::new(settings);
        caller.submit(&["first"]);
        caller.connect();
        assert_eq!(caller.sent().len(), 1);
        caller.acknowledge("first", 0);
        assert_eq!(caller.completed(), ["first: at 0"]);
        caller
    }

    /// Runs actions until batches can be sent; a look-up finds its batch.
    fn connect(&mut self) {
        while let Some(action) = self.producer.poll_action(self.now) {
            match action {
                Action::AcquireIdentity { .. } => self.start(ID, 0, 0),
                Action::Connect => self.producer.handle_connected(true),
                Action::LookUp { .. } => self.producer.handle_found(Found::Present),
            }
        }
    }

    fn start(&mut self, id: i64, epoch: i16, next_sequence: i32) {
        let identity = Identity { id, epoch };
        self.producer
            .handle_identity(self.now, ProducerState { identity, next_sequence, last_acknowledged: None });
    }

    fn submit(&mut self, batches: &[&'static str]) {
        for batch in batches {
            self.submit_for(batch, 10_000);
        }
    }

    fn submit_for(&mut self, batch: &'static str, ms: u64) {
        let after = Duration::from_millis(ms);
        self.producer.submit(batch, 1, Deadline { at: self.now + after, after });
    }

    /// Sends what may be sent: name and stamp, with a question mark if it is in doubt.
    fn sent(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        while let Some(Transmit { token, stamp, payload, in_doubt, .. }) =
            self.producer.poll_transmit(self.now)
        {
            self.in_flight.insert(payload, token);
            sent.push(format!("{payload} {}{}", text(stamp), if in_doubt { "?" } else { "" }));
        }
        sent
    }

    fn acknowledge(&mut self, batch: &str, base_offset: i64) {
        let token = self.in_flight.remove(batch).unwrap();
        self.producer.handle_acknowledged(self.now, token, Some(base_offset));
    }

    fn acknowledge_silently(&mut self, batch: &str) {
        let token = self.in_flight.remove(batch).unwrap();
        self.producer.handle_acknowledged(self.now, token, None);
    }

    fn refuse(&mut self, batch: &'static str, kind: RefusalKind) {
        self.refuse_for(batch, kind, 100);
    }

    fn refuse_for(&mut self, batch: &'static str, kind: RefusalKind, ms: u64) {
        let token = self.in_flight.remove(batch).unwrap();
        let resume_at = self.now + Duration::from_millis(ms);
        self.producer.handle_refused(token, Refusal { error: "refused", kind }, resume_at);
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        if self.producer.poll_timeout().is_some_and(|at| at <= self.now) {
            self.producer.handle_timeout(self.now);
        }
    }

    /// The last acknowledged batch is looked up.
    fn look_up(&mut self, found: Found) {
        let action = self.producer.poll_action(self.now);
        assert!(matches!(action, Some(Action::LookUp { rejected: false, .. })), "{action:?}");
        self.producer.handle_found(found);
    }

    /// Waits for the pause, connects again if necessary, and sends.
    fn sent_after_pause(&mut self) -> Vec<String> {
        assert_eq!(
            (self.producer.poll_action(self.now), self.sent().len()),
            (None, 0),
            "a pause comes first"
        );
        self.pass(100);
        self.connect();
        self.sent()
    }

    /// Returns what has ended: name and outcome, with stamp and last offset before it if it is in doubt.
    fn completed(&mut self) -> Vec<String> {
        let completed = std::iter::from_fn(|| self.producer.poll_completed());
        let text_of = |(batch, completed): (_, Completed<_>)| match completed {
            Completed::Appended { base_offset: Some(offset), .. } => format!("{batch}: at {offset}"),
            Completed::Appended { base_offset: None, .. } => format!("{batch}: appended"),
            Completed::Failed { error, in_doubt, .. } => {
                format!("{batch}: {}{}", reason(&error), doubt_text(in_doubt))
            }
            Completed::Preceding { cause, in_doubt, .. } => {
                format!("{batch}: after {}{}", reason(&cause), doubt_text(in_doubt))
            }
        };
        completed.map(text_of).collect()
    }
}

fn text(stamp: Option<Stamp>) -> String {
    match stamp {
        Some(Stamp { identity: Identity { id: ID, epoch }, sequence }) => format!("{epoch}.{sequence}"),
        Some(Stamp { identity: Identity { id, epoch }, sequence }) => format!("{id}:{epoch}.{sequence}"),
        None => "unstamped".to_owned(),
    }
}

fn reason(failure: &Failure<&'static str>) -> &'static str {
    match failure {
        Failure::Error(error) => error,
        Failure::Deadline { .. } => "deadline",
        Failure::DataLoss { .. } => "loss",
    }
}

fn doubt_text(doubt: Option<Doubt>) -> String {
    match doubt {
        Some(Doubt { stamp, after: Some(after), .. }) => format!(", {}? after {after}", text(stamp)),
        Some(Doubt { stamp, after: None, .. }) => format!(", {}?", text(stamp)),
        None => String::new(),
    }
}

fn stamp(epoch: i16, sequence: i32) -> Stamp {
    Stamp { identity: Identity { id: ID, epoch }, sequence }
}

// Before the first batch

#[test]
fn a_producer_gets_an_id_and_a_connection_when_there_is_something_to_append() {
    let mut caller = Caller::new(SETTINGS);
    assert_eq!(caller.producer.poll_action(caller.now), None);
    caller.submit(&["a"]);
    assert_eq!(caller.producer.poll_action(caller.now), Some(ACQUIRE));
    assert_eq!((caller.producer.poll_action(caller.now), caller.sent().len()), (None, 0), "one at a time");
    caller.start(ID, 0, 0);
    assert_eq!(caller.producer.poll_action(caller.now), Some(Action::Connect));
    caller.producer.handle_connected(true);
    assert_eq!((caller.producer.poll_action(caller.now), caller.sent()), (None, vec!["a 0.0".to_owned()]));
}

#[test]
fn an_action_that_may_succeed_is_tried_again_after_a_pause_and_one_that_cannot_fails_a_batch() {
    for settings in [SETTINGS, CONTINUE] {
        let mut caller = Caller::new(settings);
        caller.submit(&["a", "b"]);
        caller.producer.poll_action(caller.now).unwrap();
        caller.producer.handle_retry("no broker", caller.now + Duration::from_millis(100));
        assert_eq!(caller.producer.poll_action(caller.now), None);
        caller.pass(100);
        assert_eq!(caller.producer.poll_action(caller.now), Some(ACQUIRE));
        caller.producer.handle_failed("not authorized");
        let expected: &[_] = if settings.stop_on_failure {
            &["a: not authorized", "b: after not authorized"]
        } else {
            &["a: not authorized"]
        };
        assert_eq!(caller.completed(), expected);
        caller.submit(&["c"]);
        assert_eq!(caller.producer.poll_action(caller.now), Some(ACQUIRE), "the next one tries again");
    }
}

// The window

#[test]
fn one_batch_is_in_flight_until_the_id_is_known_and_after_silence() {
    let mut caller = Caller::new(SETTINGS);
    caller.submit(&["a", "b", "c", "d", "e", "f", "g"]);
    caller.connect();
    assert_eq!(caller.sent(), ["a 0.0"]);
    caller.acknowledge("a", 0);
    assert_eq!(caller.sent(), ["b 0.1", "c 0.2", "d 0.3", "e 0.4", "f 0.5"]);
    caller.acknowledge("b", 1);
    assert_eq!(caller.sent(), ["g 0.6"]);
    for (batch, offset) in ["c", "d", "e", "f", "g"].into_iter().zip(2..) {
        caller.acknowledge(batch, offset);
    }
    caller.pass(59_999);
    caller.submit(&["h", "i"]);
    assert_eq!(caller.sent(), ["h 0.7", "i 0.8"]);
    caller.acknowledge("h", 7);
    caller.acknowledge("i", 8);
    caller.pass(60_000);
    caller.submit(&["j", "k"]);
    assert_eq!(caller.sent(), ["j 0.9"]);
}

#[test]
fn a_new_epoch_begins_with_one_batch_in_flight() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a"]);
    caller.sent();
    caller.refuse("a", RefusalKind::Final { may_have_applied: true });
    caller.submit(&["b", "c"]);
    assert_eq!(caller.sent(), ["b 1.0"]);
}

// Attempts

#[test]
fn batches_in_doubt_are_sent_again_in_order_with_their_stamps() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a", "b", "c"]);
    assert_eq!(caller.sent(), ["a 0.1", "b 0.2", "c 0.3"]);
    for batch in ["a", "b", "c"] {
        caller.refuse(batch, LOST_RESPONSE);
    }
    caller.submit(&["d"]);
    assert_eq!(caller.sent_after_pause(), ["a 0.1?", "b 0.2?", "c 0.3?", "d 0.4"]);
    for (batch, offset) in ["a", "b", "c", "d"].into_iter().zip(1..) {
        caller.acknowledge(batch, offset);
    }
    assert_eq!(caller.completed(), ["a: at 1", "b: at 2", "c: at 3", "d: at 4"]);
}

#[test]
fn everything_in_flight_is_answered_before_a_batch_is_sent_again() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a", "b"]);
    caller.sent();
    caller.refuse("a", NOT_APPENDED);
    caller.pass(100);
    assert_eq!(caller.sent().len(), 0);
    caller.refuse("b", RefusalKind::OutOfOrder);
    // What is out of order after a refused batch needs neither another pause nor a look-up.
    assert_eq!(caller.producer.poll_action(caller.now), None);
    assert_eq!(caller.sent(), ["a 0.1", "b 0.2"]);
}

/// The stamp of a batch that is certainly not on the log is free, also for another one.
#[test]
fn a_certain_refusal_frees_the_stamp() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit_for("a", 1_000);
    caller.submit(&["b"]);
    caller.sent();
    caller.refuse("a", NOT_APPENDED);
    caller.refuse("b", NOT_APPENDED);
    assert_eq!(caller.sent_after_pause(), ["a 0.1", "b 0.2"]);
    caller.refuse("a", IN_DOUBT);
    caller.refuse("b", RefusalKind::OutOfOrder);
    assert_eq!(caller.sent_after_pause(), ["a 0.1?", "b 0.2"]);
}

#[test]
fn a_connection_ends_with_one_pause_and_the_next_one_follows_when_all_is_answered() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a", "b"]);
    caller.sent();
    assert!(!caller.producer.is_recovering());
    caller.refuse("a", LOST_RESPONSE);
    assert!(caller.producer.is_recovering(), "the next refusal needs no pause of its own");
    caller.pass(100);
    assert_eq!(caller.producer.poll_action(caller.now), None, "b is in flight");
    caller.refuse_for("b", NOT_SENT, 0);
    caller.pass(0);
    assert_eq!(caller.producer.poll_action(caller.now), Some(Action::Connect));
    caller.producer.handle_connected(true);
    caller.connect();
    assert_eq!(caller.sent(), ["a 0.1?", "b 0.2"]);
    assert!(!caller.producer.is_recovering());
}

#[test]
fn a_second_answer_to_an_attempt_changes_nothing() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a", "b"]);
    caller.sent();
    let token = caller.in_flight["a"];
    caller.acknowledge("a", 1);
    for kind in [LOST_RESPONSE, TOO_LARGE, RefusalKind::Fenced, RefusalKind::UnknownProducer] {
        caller.in_flight.insert("a", token);
        caller.refuse("a", kind);
    }
    caller.in_flight.insert("a", token);
    caller.acknowledge("a", 0);
    caller.acknowledge("b", 2);
    caller.submit(&["c"]);
    assert_eq!(
        (caller.completed(), caller.sent()),
        (vec!["a: at 1".into(), "b: at 2".into()], vec!["c 0.3".into()])
    );
}

#[test]
fn sequence_numbers_wrap_to_zero() {
    let mut caller = Caller::new(SETTINGS);
    caller.submit(&["a", "b", "c"]);
    caller.producer.poll_action(caller.now).unwrap();
    caller.start(ID, 0, i32::MAX - 1);
    caller.connect();
    assert_eq!(caller.sent(), ["a 0.2147483646"]);
    caller.acknowledge("a", 0);
    assert_eq!(caller.sent(), ["b 0.2147483647", "c 0.0"]);
    assert!(stamp(0, 0).settles(stamp(0, i32::MAX)) && !stamp(0, i32::MAX).settles(stamp(0, 0)));
}
