//! Batches that fail, and those after them.

use super::*;

// Failures

#[test]
fn a_batch_that_is_refused_for_good_fails_those_after_it_and_leaves_its_sequence_number() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a", "b", "c", "d", "e", "f"]);
    assert_eq!(caller.sent().len(), 5);
    caller.refuse("a", TOO_LARGE);
    // What is in flight waits for its response, and so does what is submitted in the meantime.
    assert_eq!(caller.completed(), ["a: refused", "f: after refused"]);
    caller.submit(&["g"]);
    assert_eq!((caller.sent().len(), caller.completed().len()), (0, 0));
    for batch in ["b", "c", "d"] {
        caller.refuse(batch, RefusalKind::OutOfOrder);
    }
    let after_refused = ["b: after refused", "g: after refused", "c: after refused", "d: after refused"];
    assert_eq!(caller.completed(), after_refused);
    caller.refuse("e", RefusalKind::OutOfOrder);
    assert_eq!(caller.completed(), ["e: after refused"]);
    caller.submit(&["h"]);
    assert_eq!(caller.sent(), ["h 0.1"]);
}

#[test]
fn the_epoch_rises_if_one_after_a_refused_batch_is_in_doubt() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a", "b"]);
    caller.sent();
    caller.refuse("a", TOO_LARGE);
    caller.refuse("b", LOST_RESPONSE);
    assert_eq!(caller.completed(), ["a: refused", "b: after refused, 0.2? after 0"]);
    caller.submit(&["c"]);
    assert_eq!(caller.sent_after_pause(), ["c 1.0"]);
}

#[test]
fn failures_do_not_stop_what_comes_after_them_if_the_caller_wants_that() {
    let mut caller = Caller::proven(CONTINUE);
    caller.submit(&["a", "b", "c"]);
    caller.sent();
    caller.refuse("a", TOO_LARGE);
    caller.refuse("b", RefusalKind::OutOfOrder);
    caller.refuse("c", TOO_LARGE);
    assert_eq!(caller.completed(), ["a: refused", "c: refused"]);
    assert_eq!(caller.sent(), ["b 0.1"]);
}

/// It was sent behind a batch that is not there: another attempt under the same stamp could not succeed.
#[test]
fn one_in_doubt_after_a_failed_batch_fails_in_any_case() {
    let mut caller = Caller::proven(CONTINUE);
    caller.submit(&["a", "b", "c"]);
    caller.sent();
    caller.refuse("a", TOO_LARGE);
    caller.refuse("b", IN_DOUBT);
    caller.refuse("c", RefusalKind::OutOfOrder);
    assert_eq!(caller.completed(), ["a: refused", "b: after refused, 0.2? after 0"]);
    assert_eq!(caller.sent_after_pause(), ["c 1.0"]);
}

// Doubt

const DENIED: RefusalKind = RefusalKind::Denied { may_have_applied: true };

/// The topic may have been created again, and the others be on that log.
#[test]
fn what_is_acknowledged_after_a_denial_is_in_doubt_until_it_was_sent_again() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a", "b", "c"]);
    caller.sent();
    caller.refuse("a", DENIED);
    caller.acknowledge("b", 7);
    caller.acknowledge("c", 8);
    assert_eq!(caller.completed(), [""; 0]);
    caller.pass(100);
    assert_eq!(caller.producer.poll_action(caller.now), Some(Action::Connect));
    caller.producer.handle_connected(false);
    assert!(matches!(caller.producer.poll_action(caller.now), Some(Action::LookUp { rejected: false, .. })));
    assert_eq!(caller.sent(), [""; 0], "the leader has not shown the log yet");
    caller.producer.handle_found(Found::Present);
    assert_eq!(caller.sent(), ["a 0.1?", "b 0.2?", "c 0.3?"]);
    for (batch, base_offset) in [("a", 1), ("b", 2), ("c", 3)] {
        caller.acknowledge(batch, base_offset);
    }
    assert_eq!(caller.completed(), ["a: at 1", "b: at 2", "c: at 3"]);
}

#[test]
fn what_is_acknowledged_after_a_denial_fails_if_the_log_is_another_one() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a", "b"]);
    caller.sent();
    caller.refuse("a", DENIED);
    caller.acknowledge("b", 7);
    caller.pass(100);
    assert_eq!(caller.producer.poll_action(caller.now), Some(Action::Connect));
    caller.producer.handle_failed("recreated");
    assert_eq!(caller.completed(), ["a: recreated, 0.1? after 0", "b: after recreated, 0.2? after 0"]);
}

#[test]
fn after_a_batch_in_doubt_the_next_one_begins_an_epoch() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit_for("a", 1_000);
    caller.sent();
    caller.pass(1_000);
    assert_eq!(caller.completed(), ["a: deadline, 0.1? after 0"]);
    caller.submit(&["b"]);
    assert_eq!(caller.sent().len(), 0, "a is in flight");
    caller.refuse("a", LOST_RESPONSE);
    caller.pass(100);
    assert_eq!(caller.producer.poll_action(caller.now), Some(Action::Connect), "that was a lost connection");
    caller.producer.handle_connected(true);
    caller.connect();
    assert_eq!(caller.sent(), ["b 1.0"]);
}

#[test]
fn a_batch_in_doubt_that_is_acknowledged_too_late_begins_an_epoch_too() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit_for("a", 1_000);
    caller.sent();
    caller.pass(1_000);
    assert_eq!(caller.producer.standing(stamp(0, 1)), Standing::Owned);
    caller.acknowledge("a", 1);
    assert_eq!(caller.producer.standing(stamp(0, 1)), Standing::Settled);
    caller.submit(&["b"]);
    assert_eq!(caller.sent(), ["b 1.0"]);
    caller.acknowledge("b", 2);
    assert_eq!(caller.completed(), ["a: deadline, 0.1? after 0", "b: at 2"]);
}

#[test]
fn an_acknowledgement_of_a_later_batch_settles_an_earlier_one() {
    // Another attempt returns its offset, if the broker still recognises it.
    for (answer, outcome) in [(None, "a: at 1"), (Some(RefusalKind::OutOfOrder), "a: appended")] {
        let mut caller = Caller::proven(SETTINGS);
        caller.submit(&["a", "b"]);
        caller.sent();
        caller.refuse("a", IN_DOUBT);
        caller.acknowledge("b", 2);
        assert_eq!(caller.completed(), ["b: at 2"]);
        caller.submit(&["c"]);
        assert_eq!(caller.sent_after_pause(), ["a 0.1?", "c 0.3"]);
        match answer {
            Some(kind) => caller.refuse("a", kind),
            None => caller.acknowledge("a", 1),
        }
        caller.acknowledge("c", 3);
        assert_eq!(caller.completed(), [outcome, "c: at 3"]);
    }
}

#[test]
fn a_settled_batch_succeeds_whatever_another_attempt_returns() {
    for kind in [None, Some(RefusalKind::OutOfOrder), Some(RefusalKind::UnknownProducer), Some(TOO_LARGE)] {
        let mut caller = Caller::proven(SETTINGS);
        caller.submit_for("a", 1_000);
        caller.submit(&["b"]);
        caller.sent();
        caller.refuse("a", IN_DOUBT);
        caller.acknowledge("b", 2);
        assert_eq!(caller.sent_after_pause(), ["a 0.1?"]);
        caller.pass(1_000);
        assert_eq!(caller.completed(), ["b: at 2", "a: appended"]);
        caller.submit(&["c"]);
        assert_eq!(caller.sent(), ["c 0.3"]);
        match kind {
            Some(kind) => caller.refuse("a", kind),
            None => caller.acknowledge("a", 1),
        }
        caller.submit(&["d"]);
        assert_eq!(caller.sent(), ["d 0.4"]);
    }
}

/// It is sent again for its offset alone. That nothing can be appended any more does not change that it was.
#[test]
fn a_settled_batch_succeeds_although_its_writer_is_fenced() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a", "b"]);
    caller.sent();
    caller.refuse("a", IN_DOUBT);
    caller.acknowledge("b", 2);
    assert_eq!(caller.sent_after_pause(), ["a 0.1?"]);
    caller.submit(&["c"]);
    caller.refuse("a", RefusalKind::Fenced);
    let completed = caller.completed();
    assert_eq!(completed[..2], ["b: at 2", "a: appended"], "{completed:?}");
    assert!(completed[2].starts_with("c: ") && !completed[2].contains("at"), "{completed:?}");
}

#[test]
fn another_epoch_waits_until_earlier_batches_are_settled() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a"]);
    caller.submit_for("b", 1_000);
    caller.sent();
    caller.refuse("a", IN_DOUBT);
    caller.refuse("b", IN_DOUBT);
    caller.pass(1_000);
    assert_eq!(caller.completed(), ["b: deadline, 0.2? after 0"]);
    caller.submit(&["c"]);
    assert_eq!(caller.sent(), ["a 0.1?"], "under the old epoch, and c waits");
    caller.acknowledge("a", 1);
    assert_eq!(caller.sent(), ["c 1.0"]);
}

#[test]
fn another_id_waits_until_earlier_batches_are_settled() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a", "b"]);
    caller.sent();
    caller.refuse("a", IN_DOUBT);
    caller.refuse("b", RefusalKind::UnknownProducer);
    assert_eq!(caller.sent_after_pause(), ["a 0.1?"], "under the old id, and b waits");
    caller.acknowledge("a", 1);
    assert_eq!(caller.producer.poll_action(caller.now), Some(ACQUIRE));
    caller.start(8, 0, 0);
    assert_eq!(caller.sent(), ["b 8:0.0"]);
}

/// It cannot be sent again before an earlier batch, and that one needs another epoch first.
#[test]
fn a_batch_in_doubt_fails_if_an_earlier_one_needs_another_id() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a", "b"]);
    caller.sent();
    caller.refuse("a", RefusalKind::UnknownProducer);
    caller.refuse("b", LOST_RESPONSE);
    assert_eq!(caller.completed(), ["b: refused, 0.2? after 0"]);
    caller.pass(100);
    assert_eq!(caller.producer.poll_action(caller.now), Some(Action::Connect));
    caller.producer.handle_connected(true);
    caller.look_up(Found::Present);
    assert_eq!(caller.producer.poll_action(caller.now), Some(ACQUIRE));
    caller.start(8, 0, 0);
    caller.connect();
    assert_eq!(caller.sent(), ["a 8:0.0"]);
}

#[test]
fn standing_says_who_can_settle_a_batch_in_doubt() {
    let mut caller = Caller::proven(SETTINGS);
    assert_eq!(caller.producer.standing(stamp(0, 0)), Standing::Settled);
    assert_eq!(caller.producer.standing(stamp(0, 1)), Standing::Foreign, "the next append has this stamp");
    let other = Stamp { identity: Identity { id: 8, epoch: 0 }, sequence: 0 };
    assert_eq!(caller.producer.standing(other), Standing::Foreign);
    caller.submit(&["a"]);
    caller.sent();
    caller.refuse("a", RefusalKind::Final { may_have_applied: true });
    assert_eq!(caller.completed(), ["a: refused, 0.1? after 0"]);
    assert_eq!(caller.producer.standing(stamp(0, 1)), Standing::Owned);
    caller.submit(&["b"]);
    caller.sent();
    assert_eq!(caller.producer.standing(stamp(0, 1)), Standing::Owned);
    caller.acknowledge("b", 1);
    assert_eq!(caller.producer.standing(stamp(0, 1)), Standing::Settled);
    assert_eq!(caller.producer.standing(stamp(1, 1)), Standing::Foreign);
    caller.producer.abort("closed");
    assert_eq!(caller.producer.standing(stamp(0, 1)), Standing::Settled);
    assert_eq!(caller.producer.standing(stamp(0, 9)), Standing::Settled, "of an earlier epoch");
    assert_eq!(caller.producer.standing(stamp(1, 1)), Standing::Foreign);
}

// Deadlines

#[test]
fn each_batch_has_its_own_deadline() {
    for settings in [SETTINGS, CONTINUE] {
        let mut caller = Caller::proven(settings);
        caller.submit_for("a", 2_000);
        caller.submit_for("b", 1_000);
        caller.submit_for("c", 3_000);
        caller.sent();
        caller.pass(1_000);
        assert_eq!(caller.completed(), ["b: deadline, 0.2? after 0"]);
        caller.acknowledge("a", 1);
        assert_eq!(caller.completed(), ["a: at 1"]);
        caller.refuse("b", TOO_LARGE);
        caller.refuse("c", RefusalKind::OutOfOrder);
        let (completed, sent) = (caller.completed(), caller.sent());
        match settings.stop_on_failure {
            true => assert_eq!((completed, sent), (vec!["c: after deadline".to_owned()], vec![])),
            false => assert_eq!((completed, sent), (vec![], vec!["c 1.0".to_owned()])),
        }
    }
}

#[test]
fn a_throttle_longer_than_the_deadline_ends_an_unsent_batch_at_once() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit_for("a", 5_000);
    caller.sent();
    caller.refuse_for("a", NOT_APPENDED, 20_000);
    assert_eq!(caller.completed(), ["a: deadline"]);
    caller.submit_for("b", 20_000);
    assert_eq!(caller.completed(), ["b: deadline"], "it could not be sent either");
    caller.submit_for("c", 20_001);
    caller.pass(20_000);
    assert_eq!(caller.sent(), ["c 0.1"]);
}

#[test]
fn a_pause_beyond_a_deadline_fails_those_after_it_too() {
    for settings in [SETTINGS, CONTINUE] {
        let mut caller = Caller::proven(settings);
        caller.submit_for("a", 1_000);
        caller.submit_for("b", 9_000);
        caller.submit_for("c", 1_000);
        caller.sent();
        caller.refuse_for("a", LOST_RESPONSE, 2_000);
        assert_eq!(caller.completed(), ["a: deadline, 0.1? after 0"]);
        caller.refuse_for("b", NOT_SENT, 0);
        caller.refuse_for("c", NOT_SENT, 0);
        match settings.stop_on_failure {
            true => assert_eq!(caller.completed(), ["b: after deadline", "c: after deadline"]),
            false => assert_eq!(caller.completed(), ["c: deadline"]),
        }
    }
}

#[test]
fn a_failed_action_can_end_batches_early_too() {
    let mut caller = Caller::new(SETTINGS);
    caller.submit_for("a", 1_000);
    caller.producer.poll_action(caller.now).unwrap();
    caller.producer.handle_retry("no broker", caller.now + Duration::from_secs(1));
    let Some((
        "a",
        Completed::Failed {
            error: Failure::Deadline { last: Some("no broker"), .. },
            in_doubt: None,
            attempts: 0,
        },
    )) = caller.producer.poll_completed()
    else {
        panic!("it could not be sent in time");
    };
}

#[test]
fn an_error_before_the_last_acknowledgement_is_not_the_reason_of_a_deadline() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a"]);
    caller.submit_for("b", 1_000);
    caller.sent();
    caller.refuse("a", NOT_APPENDED);
    caller.refuse("b", NOT_APPENDED);
    caller.sent_after_pause();
    caller.acknowledge("a", 1);
    caller.completed();
    caller.pass(1_000);
    let (_, completed) = caller.producer.poll_completed().unwrap();
    assert!(matches!(
        completed,
        Completed::Failed { error: Failure::Deadline { last: None, .. }, attempts: 2, .. }
    ));
}

#[test]
fn a_batch_far_behind_in_the_queue_fails_those_after_it_at_once() {
    let mut caller = Caller::new(SETTINGS);
    caller.submit(&["a", "b", "c", "d", "e", "f"]);
    caller.submit_for("g", 1_000);
    caller.submit(&["h"]);
    caller.pass(1_000);
    assert_eq!(caller.completed(), ["g: deadline", "h: after deadline"]);
}
