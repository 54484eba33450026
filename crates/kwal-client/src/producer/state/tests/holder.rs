//! Producers whose epochs the coordinator of a name owns.

use super::*;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const HOLDER: Settings =
    Settings { epochs: EpochOwner::Coordinator { renewal: Duration::from_millis(DAY) }, ..SETTINGS };

/// Has taken over in epoch 3: its barrier is at offset 0.
fn holder(settings: Settings) -> Caller {
    let mut caller = Caller::new(settings);
    let barrier = Acknowledged { stamp: stamp(3, 0), base_offset: Some(0), records: 1 };
    let identity = barrier.stamp.identity;
    let start = ProducerState { identity, next_sequence: 1, last_acknowledged: Some(barrier) };
    caller.producer.handle_identity(caller.now, start);
    caller
}

/// Has a connection, too, and appended a batch at offset 1.
fn proven_holder() -> Caller {
    let mut caller = holder(HOLDER);
    caller.submit(&["first"]);
    caller.connect();
    assert_eq!(caller.sent(), ["first 3.1"]);
    caller.acknowledge("first", 1);
    assert_eq!(caller.completed(), ["first: at 1"]);
    caller
}

/// Appends each hour, up to one hour before the renewal: the last batch is `3.24`, at offset 24.
fn busy_holder() -> Caller {
    let mut caller = proven_holder();
    for offset in 2..25 {
        caller.pass(HOUR);
        caller.submit(&["hourly"]);
        assert_eq!((caller.sent().len(), action(&mut caller)), (1, None));
        caller.acknowledge("hourly", offset);
    }
    assert_eq!(caller.completed().len(), 23);
    caller
}

fn request(epoch: i16) -> Option<Action> {
    Some(Action::AcquireIdentity { held: Some(Identity { id: ID, epoch }) })
}

fn action(caller: &mut Caller) -> Option<Action> {
    caller.producer.poll_action(caller.now)
}

#[test]
fn a_holder_goes_on_after_its_barrier() {
    let mut caller = holder(HOLDER);
    assert_eq!(caller.producer.identity(), Some(stamp(3, 0).identity));
    assert_eq!(action(&mut caller), None);
    caller.submit(&["a", "b"]);
    assert_eq!(action(&mut caller), Some(Action::Connect));
    caller.producer.handle_connected(true);
    let Some(Action::LookUp { last, rejected: false }) = action(&mut caller) else { panic!("no look-up") };
    assert_eq!((last.stamp, last.base_offset), (stamp(3, 0), Some(0)));
    caller.producer.handle_found(Found::Present);
    assert_eq!(caller.sent(), ["a 3.1"], "the partition may have forgotten the id");
    caller.acknowledge("a", 1);
    assert_eq!((caller.sent(), caller.completed()), (vec!["b 3.2".into()], vec!["a: at 1".into()]));
}

// Epochs

#[test]
fn the_coordinator_raises_the_epoch_after_a_batch_in_doubt() {
    let mut caller = proven_holder();
    caller.submit_for("a", 1_000);
    caller.sent();
    caller.pass(1_000);
    assert_eq!(caller.completed(), ["a: deadline, 3.2? after 1"]);
    assert_eq!(caller.producer.standing(stamp(3, 2)), Standing::Owned);
    caller.submit(&["b"]);
    assert_eq!((action(&mut caller), caller.sent().len()), (None, 0), "a is in flight");
    caller.refuse("a", IN_DOUBT);
    caller.pass(100);
    assert_eq!((action(&mut caller), caller.sent().len()), (request(3), 0));
    caller.start(ID, 5, 0);
    assert_eq!(caller.sent(), ["b 5.0"]);
    caller.acknowledge("b", 2);
    assert_eq!(caller.producer.standing(stamp(3, 2)), Standing::Settled);
}

#[test]
fn an_id_that_the_broker_refuses_is_kept_in_another_epoch() {
    let mut caller = proven_holder();
    caller.submit(&["a"]);
    caller.sent();
    caller.refuse("a", RefusalKind::UnknownProducer);
    assert_eq!(caller.producer.standing(stamp(3, 2)), Standing::Owned);
    caller.pass(100);
    caller.look_up(Found::Present);
    assert_eq!(action(&mut caller), request(3));
    caller.start(ID, 4, 0);
    assert_eq!(caller.sent(), ["a 4.0"]);
}

#[test]
fn what_was_acknowledged_in_an_earlier_epoch_is_looked_up_on_a_new_connection() {
    let mut caller = proven_holder();
    caller.pass(DAY);
    assert_eq!(action(&mut caller), request(3));
    caller.start(ID, 4, 0);
    caller.producer.handle_disconnected();
    caller.submit(&["a"]);
    assert_eq!(action(&mut caller), Some(Action::Connect));
    caller.producer.handle_connected(true);
    let Some(Action::LookUp { last, .. }) = action(&mut caller) else { panic!("no look-up") };
    assert_eq!((last.stamp, last.base_offset), (stamp(3, 1), Some(1)));
}

#[test]
fn the_id_of_a_name_is_not_released() {
    assert_eq!(proven_holder().producer.release(), None);
}

// Renewals

#[test]
fn a_name_is_renewed_daily_also_without_appends() {
    let mut caller = holder(HOLDER);
    for epoch in 3..6 {
        let due = caller.now + Duration::from_millis(DAY);
        assert_eq!((action(&mut caller), caller.producer.poll_timeout()), (None, Some(due)));
        caller.pass(DAY - 1);
        assert_eq!(action(&mut caller), None);
        caller.pass(1);
        assert_eq!((action(&mut caller), caller.producer.poll_timeout()), (request(epoch), None));
        assert!(caller.producer.is_idle() && caller.producer.is_action_needed());
        caller.start(ID, epoch + 1, 0);
    }
}

#[test]
fn a_renewal_waits_for_what_is_in_flight_and_new_batches_wait_for_the_renewal() {
    let mut caller = busy_holder();
    caller.submit_for("a", 2 * HOUR);
    caller.submit_for("b", 2 * HOUR);
    assert_eq!(caller.sent(), ["a 3.25", "b 3.26"]);
    caller.pass(HOUR);
    caller.submit(&["c"]);
    caller.acknowledge("a", 25);
    assert_eq!((action(&mut caller), caller.sent().len()), (None, 0), "b is in flight");
    caller.refuse("b", IN_DOUBT);
    caller.pass(100);
    assert_eq!((action(&mut caller), caller.sent()), (None, vec!["b 3.26?".into()]), "under its own stamp");
    caller.acknowledge("b", 26);
    assert_eq!((caller.sent().len(), action(&mut caller)), (0, request(3)));
    caller.start(ID, 4, 0);
    assert_eq!(caller.sent(), ["c 4.0"]);
}

#[test]
fn appends_go_on_if_a_renewal_fails_and_it_comes_again_after_an_hour() {
    for is_final in [false, true] {
        let mut caller = busy_holder();
        caller.pass(HOUR);
        caller.submit_for("a", 1_000);
        assert_eq!((caller.sent().len(), action(&mut caller)), (0, request(3)));
        match is_final {
            true => caller.producer.handle_failed("not authorized"),
            false => caller.producer.handle_retry("no coordinator", caller.now + Duration::from_secs(60)),
        }
        assert_eq!((action(&mut caller), caller.sent()), (None, vec!["a 3.25".into()]), "without a pause");
        caller.acknowledge("a", 25);
        assert_eq!(caller.completed(), ["a: at 25"]);
        caller.pass(HOUR - 1);
        assert_eq!(action(&mut caller), None);
        caller.pass(1);
        assert_eq!(action(&mut caller), request(3));
    }
}

#[test]
fn a_renewal_that_fails_without_batches_is_put_off() {
    let mut caller = proven_holder();
    caller.pass(DAY);
    assert_eq!(action(&mut caller), request(3));
    caller.producer.handle_retry("no coordinator", caller.now + Duration::from_millis(100));
    let next = caller.now + Duration::from_millis(HOUR);
    assert_eq!((action(&mut caller), caller.producer.poll_timeout()), (None, Some(next)));
    // A batch does not wait for that.
    caller.submit(&["a"]);
    assert_eq!(action(&mut caller), request(3));
}

// Silence

#[test]
fn after_silence_of_half_a_day_nothing_is_sent_before_a_renewal() {
    let mut caller = proven_holder();
    caller.pass(DAY / 2 - 1);
    caller.submit(&["a"]);
    assert_eq!((action(&mut caller), caller.sent()), (None, vec!["a 3.2".into()]));
    caller.acknowledge("a", 2);
    caller.completed();
    caller.pass(DAY / 2 - 1);
    assert_eq!(action(&mut caller), None);
    caller.pass(1);
    caller.submit_for("b", 1_000);
    // The caller may send before it looks for actions.
    assert_eq!((caller.sent().len(), action(&mut caller)), (0, request(3)));
    caller.producer.handle_retry("no coordinator", caller.now + Duration::from_millis(100));
    assert_eq!((action(&mut caller), caller.sent().len()), (None, 0), "in the pause");
    caller.pass(100);
    assert_eq!((caller.sent().len(), action(&mut caller)), (0, request(3)));
    caller.pass(900);
    let Some(("b", Completed::Failed { error: Failure::Deadline { last, .. }, in_doubt: None, .. })) =
        caller.producer.poll_completed()
    else {
        panic!("its time is over");
    };
    assert_eq!(last, Some("no coordinator"));
}

#[test]
fn a_renewal_after_silence_that_cannot_succeed_fails_batches() {
    let mut caller = proven_holder();
    caller.pass(DAY / 2);
    caller.submit(&["a", "b"]);
    assert_eq!(action(&mut caller), request(3));
    caller.producer.handle_failed("not authorized");
    assert_eq!(caller.completed(), ["a: not authorized", "b: after not authorized"]);
    assert_eq!(action(&mut caller), None);
}

/// A partition that has forgotten the fence of another holder would append it behind that.
#[test]
fn a_batch_in_doubt_is_not_sent_again_after_silence() {
    let mut caller = proven_holder();
    caller.submit_for("a", 2 * DAY);
    caller.submit_for("b", 2 * DAY);
    caller.sent();
    caller.refuse("a", IN_DOUBT);
    caller.refuse("b", NOT_SENT);
    caller.pass(DAY / 2);
    assert_eq!(action(&mut caller), Some(Action::Connect));
    caller.producer.handle_connected(false);
    assert_eq!(caller.sent().len(), 0);
    assert_eq!(caller.completed(), ["a: refused, 3.2? after 1", "b: after refused"]);
    assert_eq!(caller.producer.standing(stamp(3, 2)), Standing::Owned);
    caller.submit(&["c"]);
    assert_eq!(action(&mut caller), request(3));
    caller.start(ID, 4, 0);
    assert_eq!(caller.sent(), ["c 4.0"]);
}

/// What is in flight before it has an outcome of its own.
#[test]
fn a_batch_in_doubt_after_silence_awaits_those_before_it() {
    let mut caller = proven_holder();
    caller.submit_for("a", 2 * DAY);
    caller.submit_for("b", 2 * DAY);
    caller.sent();
    caller.refuse("a", IN_DOUBT);
    caller.refuse("b", IN_DOUBT);
    caller.pass(100);
    let Transmit { token, .. } = caller.producer.poll_transmit(caller.now).unwrap();
    caller.in_flight.insert("a", token);
    let Transmit { token, payload: &"b", .. } = caller.producer.poll_transmit(caller.now).unwrap() else {
        panic!("the connection has no room for b");
    };
    caller.producer.handle_unsent(token);
    caller.pass(DAY / 2);
    assert_eq!((caller.sent().len(), caller.completed().len(), action(&mut caller)), (0, 0, None));
    caller.acknowledge("a", 2);
    assert_eq!(caller.sent().len(), 0);
    assert_eq!(caller.completed(), ["a: at 2", "b: refused, 3.3? after 1"]);
    caller.submit(&["c"]);
    assert_eq!(action(&mut caller), request(3));
}

/// The response may have waited in a process that was stopped.
#[test]
fn what_succeeds_confirms_the_name_as_of_when_it_was_sent() {
    let mut caller = proven_holder();
    caller.submit_for("a", 2 * DAY);
    caller.sent();
    caller.pass(DAY / 2);
    caller.acknowledge("a", 2);
    caller.submit_for("b", 2 * DAY);
    assert_eq!((caller.sent().len(), action(&mut caller)), (0, request(3)));
    caller.pass(DAY / 2);
    caller.start(ID, 4, 0);
    assert_eq!((caller.sent().len(), action(&mut caller)), (0, request(4)));
    caller.start(ID, 5, 0);
    assert_eq!(caller.sent(), ["b 5.0"]);
}

// Ends

#[test]
fn a_holder_that_is_fenced_ends() {
    let mut caller = proven_holder();
    assert!(caller.producer.ended().is_none());
    caller.pass(DAY / 2);
    caller.submit(&["a"]);
    assert_eq!(action(&mut caller), request(3));
    caller.producer.handle_fenced("fenced");
    assert_eq!(caller.completed(), ["a: fenced"]);
    assert!(matches!(caller.producer.ended(), Some(Failure::Error("fenced"))));
    assert!(!caller.producer.is_action_needed());
    assert_eq!((action(&mut caller), caller.producer.poll_timeout()), (None, None));
    // The response to a request that the caller has not given up.
    caller.start(ID, 9, 0);
    assert_eq!(caller.producer.identity(), Some(stamp(3, 0).identity));
    caller.submit(&["b"]);
    assert_eq!(caller.completed(), ["b: fenced"]);
}

#[test]
fn what_is_in_flight_when_a_holder_is_fenced_awaits_its_outcome() {
    let mut caller = proven_holder();
    caller.submit(&["a", "b"]);
    caller.sent();
    caller.submit(&["c"]);
    caller.producer.handle_fenced("fenced");
    assert_eq!(caller.completed(), ["c: fenced"]);
    caller.refuse("a", RefusalKind::Fenced);
    caller.refuse("b", LOST_RESPONSE);
    assert_eq!(caller.completed(), ["a: fenced", "b: fenced, 3.3? after 1"]);
    assert_eq!(caller.producer.standing(stamp(3, 3)), Standing::Foreign);
}

#[test]
fn a_producer_that_is_not_used_any_more_renews_nothing() {
    let mut caller = proven_holder();
    caller.pass(DAY);
    assert_eq!(action(&mut caller), request(3));
    assert!(caller.producer.is_action_needed());
    caller.producer.stop_renewing();
    assert!(caller.producer.is_finished() && !caller.producer.is_action_needed());
    caller.producer.handle_cancelled();
    assert_eq!((action(&mut caller), caller.producer.poll_timeout()), (None, None));
    // What was submitted before is appended all the same.
    caller.submit(&["a"]);
    assert_eq!(action(&mut caller), request(3));
    assert!(caller.producer.is_action_needed());
    caller.start(ID, 4, 0);
    assert_eq!(caller.sent(), ["a 4.0"]);
    let mut caller = proven_holder();
    caller.producer.abort("closed");
    caller.pass(DAY);
    assert_eq!((action(&mut caller), caller.producer.poll_timeout()), (None, None));
}

#[test]
fn what_is_left_does_not_wait_for_a_renewal_that_it_does_not_need() {
    let mut caller = busy_holder();
    caller.pass(HOUR);
    caller.submit(&["a"]);
    assert_eq!(action(&mut caller), request(3));
    assert!(caller.producer.is_action_needed());
    caller.producer.stop_renewing();
    assert!(!caller.producer.is_action_needed());
    caller.producer.handle_cancelled();
    assert_eq!((action(&mut caller), caller.sent()), (None, vec!["a 3.25".into()]));
}

#[test]
fn no_time_between_renewals_is_too_long() {
    let epochs = EpochOwner::Coordinator { renewal: Duration::MAX };
    let mut caller = holder(Settings { epochs, ..HOLDER });
    assert_eq!(caller.producer.poll_timeout(), None);
    caller.pass(10_000 * DAY);
    caller.submit(&["a"]);
    caller.connect();
    assert_eq!(caller.sent(), ["a 3.1"]);
}

/// It could not append anything, but it does not panic.
#[test]
fn no_time_between_renewals_is_too_short() {
    for renewal in [Duration::ZERO, Duration::from_nanos(1)] {
        let mut caller = holder(Settings { epochs: EpochOwner::Coordinator { renewal }, ..HOLDER });
        caller.pass(1);
        caller.submit(&["a"]);
        assert_eq!((caller.sent().len(), action(&mut caller)), (0, request(3)));
        caller.producer.handle_retry("no coordinator", caller.now);
        caller.pass(0);
        assert_eq!(action(&mut caller), request(3));
    }
}
