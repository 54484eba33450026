//! Losses, the ends of a producer, and its ids.

use super::*;

// Loss of acknowledged batches

#[test]
fn the_last_acknowledged_batch_is_looked_up_on_each_connection() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a", "b"]);
    caller.sent();
    caller.refuse("a", LOST_RESPONSE);
    caller.refuse("b", NOT_SENT);
    caller.pass(100);
    assert_eq!(caller.producer.poll_action(caller.now), Some(Action::Connect));
    caller.producer.handle_connected(true);
    let last = Acknowledged { stamp: stamp(0, 0), base_offset: Some(0), records: 1 };
    let look_up = Action::LookUp { last, rejected: false };
    assert_eq!((caller.producer.poll_action(caller.now), caller.sent().len()), (Some(look_up), 0));
    // If that fails, it comes again on the next connection.
    caller.producer.handle_retry("disconnected", caller.now + Duration::from_millis(100));
    caller.pass(100);
    assert_eq!(caller.producer.poll_action(caller.now), Some(Action::Connect));
    caller.producer.handle_connected(true);
    assert_eq!(caller.producer.poll_action(caller.now), Some(look_up));
    caller.producer.handle_found(Found::Lost { from: Some(0) });
    assert_eq!(caller.completed(), ["a: loss, 0.1? after 0", "b: loss"]);
    caller.submit(&["c"]);
    let Some((
        "c",
        Completed::Failed { error: Failure::DataLoss { last: lost, from: Some(0) }, in_doubt: None, .. },
    )) = caller.producer.poll_completed()
    else {
        panic!("a loss is final");
    };
    assert_eq!(
        (lost, caller.producer.poll_action(caller.now), caller.producer.release()),
        (last, None, None)
    );
}

/// It is on the log, but what was there before is not.
#[test]
fn an_acknowledgement_at_an_offset_that_was_acknowledged_before_is_a_loss() {
    for settings in [SETTINGS, Settings { idempotent: false, ..SETTINGS }] {
        let mut caller = Caller::proven(settings);
        caller.submit(&["a", "b"]);
        caller.sent();
        caller.acknowledge("a", 0);
        if settings.idempotent {
            caller.acknowledge("b", 1);
            assert_eq!(caller.completed(), ["a: loss, 0.1? after 0", "b: loss, 0.2? after 0"]);
        } else {
            assert_eq!(caller.completed(), ["a: loss, unstamped? after 0", "b: loss"]);
        }
    }
    // Also if its caller does not wait for it any more.
    let mut caller = Caller::proven(SETTINGS);
    caller.submit_for("a", 1_000);
    caller.sent();
    caller.pass(1_000);
    caller.acknowledge("a", 0);
    caller.submit(&["b"]);
    assert_eq!(caller.completed(), ["a: deadline, 0.1? after 0", "b: loss"]);
}

#[test]
fn a_batch_out_of_order_after_an_acknowledged_one_asks_for_a_look_up() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a"]);
    caller.sent();
    caller.refuse("a", RefusalKind::OutOfOrder);
    caller.pass(100);
    let Some(Action::LookUp { rejected: true, .. }) = caller.producer.poll_action(caller.now) else {
        panic!("the leader may have lost the first batch");
    };
    caller.producer.handle_found(Found::Present);
    // It is there, so the leader does not accept this epoch any more for another reason.
    assert_eq!(caller.sent(), ["a 1.0"]);
    caller.refuse("a", RefusalKind::OutOfOrder);
    caller.pass(100);
    caller.producer.poll_action(caller.now).unwrap();
    caller.producer.handle_found(Found::Present);
    // Nothing precedes the first batch of an epoch: somebody else has the id.
    assert_eq!(caller.producer.poll_action(caller.now), Some(ACQUIRE));
    caller.start(8, 0, 0);
    assert_eq!(caller.sent(), ["a 8:0.0"]);
}

#[test]
fn a_batch_in_doubt_that_is_out_of_order_keeps_its_stamp() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a"]);
    caller.sent();
    caller.refuse("a", IN_DOUBT);
    for _ in 0..3 {
        assert_eq!(caller.sent_after_pause(), ["a 0.1?"]);
        caller.refuse("a", RefusalKind::OutOfOrder);
    }
    assert_eq!(caller.sent_after_pause(), ["a 0.1?"]);
    caller.acknowledge("a", 1);
    caller.submit(&["b"]);
    assert_eq!(caller.sent(), ["b 0.2"], "and those after it their epoch");
}

#[test]
fn a_loss_is_noticed_if_only_a_completed_batch_was_out_of_order() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit_for("a", 1_000);
    caller.sent();
    caller.pass(1_000);
    caller.refuse("a", RefusalKind::OutOfOrder);
    caller.submit(&["b"]);
    caller.pass(100);
    let Some(Action::LookUp { rejected: true, .. }) = caller.producer.poll_action(caller.now) else {
        panic!("in the next epoch, a loss would go unnoticed");
    };
}

#[test]
fn without_its_offset_a_batch_is_looked_up_only_after_a_rejection() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a"]);
    caller.sent();
    caller.acknowledge_silently("a");
    assert_eq!(caller.completed(), ["a: appended"]);
    caller.submit(&["b"]);
    caller.sent();
    caller.refuse("b", NOT_SENT);
    caller.pass(100);
    assert_eq!(caller.producer.poll_action(caller.now), Some(Action::Connect));
    caller.producer.handle_connected(true);
    assert_eq!((caller.producer.poll_action(caller.now), caller.sent()), (None, vec!["b 0.2".to_owned()]));
    caller.refuse("b", RefusalKind::OutOfOrder);
    caller.pass(100);
    let last = Acknowledged { stamp: stamp(0, 1), base_offset: None, records: 1 };
    assert_eq!(caller.producer.poll_action(caller.now), Some(Action::LookUp { last, rejected: true }));
    // An offset that was acknowledged earlier still counts.
    caller.producer.handle_found(Found::Present);
    caller.sent();
    caller.acknowledge("b", 0);
    assert_eq!(caller.completed(), ["b: loss, 1.0? after 0"]);
}

// Other ends

#[test]
fn a_fenced_producer_ends_when_everything_in_flight_is_answered() {
    for settings in [SETTINGS, CONTINUE] {
        let mut caller = Caller::proven(settings);
        caller.submit(&["a", "b", "c", "d", "e", "f"]);
        caller.sent();
        caller.refuse("a", RefusalKind::Fenced);
        assert_eq!(caller.completed(), ["a: refused", "f: refused"]);
        caller.refuse("b", RefusalKind::Fenced);
        caller.refuse("c", LOST_RESPONSE);
        assert_eq!(caller.completed(), ["b: refused", "c: refused, 0.3? after 0"]);
        caller.submit(&["g"]);
        caller.pass(10_000);
        assert_eq!(
            caller.completed(),
            ["g: refused", "d: refused, 0.4? after 0", "e: refused, 0.5? after 0"]
        );
        assert!(caller.producer.is_idle() && caller.producer.poll_action(caller.now).is_none());
    }
}

#[test]
fn an_unknown_id_is_replaced_unless_the_batch_is_in_doubt() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a"]);
    caller.sent();
    caller.refuse("a", RefusalKind::UnknownProducer);
    caller.pass(100);
    caller.look_up(Found::Present);
    assert_eq!(caller.producer.poll_action(caller.now), Some(ACQUIRE));
    caller.start(8, 0, 0);
    assert_eq!(caller.sent(), ["a 8:0.0"]);
    caller.refuse("a", IN_DOUBT);
    assert_eq!(caller.sent_after_pause(), ["a 8:0.0?"]);
    caller.refuse("a", RefusalKind::UnknownProducer);
    assert_eq!(caller.completed(), ["a: refused, 8:0.0? after 0"]);
    assert_eq!(caller.producer.standing(stamp(0, 1)), Standing::Foreign);
}

/// Also on the connection from before: nobody may have noticed that the leader was another one meanwhile.
#[test]
fn a_loss_is_noticed_when_the_id_is_unknown() {
    for settings in [SETTINGS, CONTINUE] {
        let mut caller = Caller::proven(settings);
        caller.submit(&["a", "b"]);
        caller.sent();
        caller.refuse("a", RefusalKind::UnknownProducer);
        caller.refuse("b", RefusalKind::UnknownProducer);
        caller.pass(100);
        caller.look_up(Found::Lost { from: Some(0) });
        assert_eq!(caller.completed(), ["a: loss", "b: loss"]);
    }
    // A later batch of the id shows it, too, after the one before has ended.
    let mut caller = Caller::proven(SETTINGS);
    caller.submit_for("a", 1_000);
    caller.sent();
    caller.pass(1_000);
    caller.completed();
    caller.refuse("a", RefusalKind::UnknownProducer);
    caller.submit(&["b"]);
    caller.pass(100);
    caller.look_up(Found::Lost { from: Some(0) });
    assert_eq!(caller.completed(), ["b: loss"]);
}

#[test]
fn aborting_ends_everything_with_its_outcome() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a", "b", "c", "d", "e", "f"]);
    caller.sent();
    caller.refuse("a", IN_DOUBT);
    caller.acknowledge("b", 2);
    caller.refuse("c", NOT_APPENDED);
    caller.completed();
    caller.producer.abort("closed");
    caller.submit(&["g"]);
    let expected = [
        "a: appended",
        "c: closed",
        "d: closed, 0.4? after 0",
        "e: closed, 0.5? after 0",
        "f: closed",
        "g: closed",
    ];
    assert_eq!(caller.completed(), expected);
    caller.acknowledge("d", 3);
    caller.refuse("e", LOST_RESPONSE);
    assert!(caller.producer.is_idle() && caller.producer.poll_action(caller.now).is_none());
}

#[test]
fn without_sequence_numbers_a_batch_in_doubt_fails_at_once() {
    let mut caller = Caller::new(Settings { idempotent: false, ..CONTINUE });
    caller.submit(&["a", "b"]);
    assert_eq!(caller.producer.poll_action(caller.now), Some(Action::Connect), "it needs no id");
    caller.producer.handle_connected(true);
    assert_eq!(caller.sent(), ["a unstamped"], "one at a time");
    caller.refuse("a", NOT_APPENDED);
    assert_eq!(caller.sent_after_pause(), ["a unstamped"]);
    caller.refuse("a", LOST_RESPONSE);
    assert_eq!(caller.completed(), ["a: refused, unstamped?"]);
    caller.pass(100);
    assert_eq!(caller.producer.poll_action(caller.now), Some(Action::Connect), "that was a lost connection");
    caller.producer.handle_connected(true);
    assert_eq!(caller.sent(), ["b unstamped"]);
    caller.acknowledge("b", 1);
    caller.submit(&["c"]);
    assert_eq!(caller.sent(), ["c unstamped"], "one at a time, also later");
}

// Producer ids

#[test]
fn another_producer_goes_on_where_one_has_released_its_id() {
    let mut caller = Caller::proven(SETTINGS);
    let start = caller.producer.release().unwrap();
    let last = Acknowledged { stamp: stamp(0, 0), base_offset: Some(0), records: 1 };
    assert_eq!((start.identity, start.next_sequence), (stamp(0, 0).identity, 1));
    assert_eq!((start.last_acknowledged, caller.producer.release()), (Some(last), None));
    let mut next = Caller::new(SETTINGS);
    next.submit(&["a", "b"]);
    next.producer.poll_action(next.now).unwrap();
    next.producer.handle_identity(next.now, start);
    assert_eq!(next.producer.poll_action(next.now), Some(Action::Connect));
    next.producer.handle_connected(true);
    assert_eq!(next.producer.poll_action(next.now), Some(Action::LookUp { last, rejected: false }));
    next.producer.handle_found(Found::Present);
    assert_eq!(next.sent(), ["a 0.1"], "the partition may have forgotten the id");
    // The first one needs an id again.
    caller.submit(&["c"]);
    assert_eq!(caller.producer.poll_action(caller.now), Some(ACQUIRE));
}

/// The last batch of the id is looked up on a connection that is open already, too.
#[test]
fn an_id_from_another_producer_brings_its_last_batch_along() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit(&["a"]);
    caller.sent();
    caller.refuse("a", RefusalKind::UnknownProducer);
    caller.pass(100);
    caller.look_up(Found::Present);
    assert_eq!(caller.producer.poll_action(caller.now), Some(ACQUIRE));
    let identity = Identity { id: 8, epoch: 3 };
    let last = Acknowledged { stamp: Stamp { identity, sequence: 4 }, base_offset: Some(9), records: 2 };
    caller.producer.handle_identity(
        caller.now,
        ProducerState { identity, next_sequence: 6, last_acknowledged: Some(last) },
    );
    assert_eq!(caller.producer.poll_action(caller.now), Some(Action::LookUp { last, rejected: false }));
    caller.producer.handle_found(Found::Present);
    assert_eq!(caller.sent(), ["a 8:3.6"]);
    caller.acknowledge("a", 10);
    assert_eq!(caller.completed(), ["a: loss, 8:3.6? after 10"]);
}

#[test]
fn an_id_in_use_is_not_released() {
    let mut caller = Caller::proven(SETTINGS);
    caller.submit_for("a", 1_000);
    assert_eq!(caller.producer.release(), None);
    caller.sent();
    assert_eq!(caller.producer.release(), None);
    caller.pass(1_000);
    caller.completed();
    assert_eq!(caller.producer.release(), None, "its attempt is in flight");
    caller.refuse("a", LOST_RESPONSE);
    let start = caller.producer.release().unwrap();
    assert_eq!((start.identity, start.next_sequence), (stamp(1, 0).identity, 0), "a is in doubt");
}

/// The last epoch is for others that fence the id.
#[test]
fn an_id_is_given_up_before_its_last_epoch() {
    let open = |epoch| {
        let mut caller = Caller::new(SETTINGS);
        caller.submit(&["a"]);
        caller.producer.poll_action(caller.now).unwrap();
        caller.start(ID, epoch, 0);
        caller.connect();
        caller.sent();
        caller.refuse("a", RefusalKind::Final { may_have_applied: true });
        caller
    };
    let mut caller = open(i16::MAX - 2);
    assert_eq!(caller.producer.standing(stamp(i16::MAX - 2, 0)), Standing::Owned);
    caller.submit(&["b"]);
    assert_eq!(caller.sent(), ["b 32766.0"]);
    let mut caller = open(i16::MAX - 1);
    assert_eq!(caller.producer.standing(stamp(i16::MAX - 1, 0)), Standing::Foreign);
    assert_eq!(caller.producer.release(), None);
    caller.submit(&["b"]);
    assert_eq!(caller.producer.poll_action(caller.now), Some(ACQUIRE));
}
