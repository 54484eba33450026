//! Several appends in flight, batches in doubt, losses, and the end of clients.

use std::time::Duration;

use kwal_client::{Acks, OnFailure, Resolution, record::Record};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{Fault, check::Writer};
use tokio::time::{Instant, sleep};

use crate::{
    fixture::{Appender, Fixture, MINUTE},
    support::{self, Wire, settle},
};

const SECOND: Duration = Duration::from_secs(1);

/// A fence for `resolve`.
fn fence() -> Record {
    Record::new(None::<&str>, "fence")
}

pub(crate) async fn acks_of_one_with_idempotence() -> Fixture {
    let fixture = Fixture::one_broker();
    let opened = fixture.client().await.partition_client("wal", 0).acks(Acks::Leader).await;
    fixture.expect(opened.is_err(), "the leader alone acknowledges appends that are sent again");
    fixture
}

/// Followers lag, and the caller chose not to wait for them.
pub(crate) async fn acks_of_one() -> Fixture {
    let fixture = Fixture::brokers(3);
    let client = fixture.client().await;
    let partition = client.partition_client("wal", 0).idempotent(false).acks(Acks::Leader).await.unwrap();
    let wal = fixture.appender(partition, MINUTE);
    wal.append(&["a"]).await;
    let leader = fixture.cluster.leader("wal", 0).unwrap().unwrap();
    for broker in (1..=3).filter(|broker| *broker != leader) {
        fixture.cluster.set_lag("wal", 0, broker, 5 * SECOND).unwrap();
    }
    let begun = Instant::now();
    wal.append(&["b"]).await;
    fixture.expect(begun.elapsed() < SECOND, "an append waited for the followers");
    fixture
}

/// The last handle of a partition is dropped after an append in doubt, and the partition opened again.
pub(crate) async fn reopened_after_unknown_outcome() -> Fixture {
    let fixture = Fixture::one_broker();
    let client = fixture.client().await;
    let wal = fixture.open_partition(&client, 0).await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR));
    wal.append(&["b"]).await;
    drop(wal);
    fixture.open_partition(&client, 0).await.append(&["c"]).await;
    fixture
}

/// The first attempt appends the batch, and the second one is rejected for good.
pub(crate) async fn response_lost_then_rejected() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    for value in ["b", "c"] {
        wal.append(&[value]).await;
    }
    fixture
}

/// The broker has forgotten the producer id, and rejects the first of two batches once.
pub(crate) async fn rejected_after_silence() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    sleep(2 * MINUTE).await;
    fixture.cluster.forget_producers("wal", 0).unwrap();
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let appends = [wal.submit(&["b"]).await, wal.submit(&["c"]).await];
    for append in appends {
        append.await.unwrap();
    }
    fixture
}

pub(crate) async fn one_in_flight() -> Fixture {
    let fixture = Fixture::one_broker();
    let wire = Wire::to(&fixture.cluster);
    let partition = wire.client().await.partition_client("wal", 0).max_in_flight(1).await.unwrap();
    let wal = fixture.appender(partition, MINUTE);
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let appends = [wal.submit(&["b"]).await, wal.submit(&["c"]).await];
    settle().await;
    fixture.expect(wire.count(ApiKey::PRODUCE) == 2, "more than one batch is in flight");
    for append in appends {
        append.await.unwrap();
    }
    fixture
}

/// One of several batches in flight is rejected once.
pub(crate) async fn rejected_in_flight() -> Fixture {
    in_flight_with(Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS)).await
}

/// One of several batches in flight is rejected for good.
pub(crate) async fn rejected_with_others_in_flight() -> Fixture {
    in_flight_with(Fault::Error(ErrorCode::INVALID_RECORD)).await
}

/// Sends several batches at once, of which the second meets a fault.
async fn in_flight_with(fault: Fault) -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    // All are submitted before the first one is answered.
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    fixture.cluster.on(ApiKey::PRODUCE, fault);
    let mut appends = Vec::new();
    for value in ["b", "c", "d", "e"] {
        appends.push(wal.submit(&[value]).await);
    }
    for append in appends {
        append.await.unwrap();
    }
    fixture
}

/// An append is rejected for good, and those after it are to go on.
pub(crate) async fn rejected_and_continued() -> Fixture {
    let fixture = Fixture::one_broker();
    let client = fixture.client().await;
    let partition = client.partition_client("wal", 0).on_failure(OnFailure::Continue).await.unwrap();
    let wal = fixture.appender_with(partition, Writer::on_failure_continue);
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    let (rejected, next) = (wal.submit(&["b"]).await, wal.submit(&["c"]).await);
    rejected.await.unwrap();
    fixture.expect(next.await.unwrap().is_some(), "an append failed with the one before it");
    fixture
}

/// The second of two appends has less time than the first one.
pub(crate) async fn deadlines_of_two() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = fixture.client().await.partition_client("wal", 0).await.unwrap();
    let one = fixture.appender(partition.clone(), MINUTE);
    let other = fixture.appender(partition, 5 * SECOND);
    one.append(&["a"]).await;
    fixture.cluster.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    let appends = [one.submit(&["b"]).await, other.submit(&["c"]).await];
    for append in appends {
        append.await.unwrap();
    }
    fixture
}

/// A batch is in doubt, the one after it is acknowledged, and the next attempt of the first is rejected.
pub(crate) async fn acknowledged_after_doubt() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT));
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Pass);
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    let (earlier, later) = (wal.submit(&["b"]).await, wal.submit(&["c"]).await);
    later.await.unwrap();
    fixture.expect(
        earlier.await.unwrap().is_some(),
        "a later batch was acknowledged, and an append is in doubt",
    );
    fixture
}

/// A batch in doubt is resolved while it is still on its way to the broker.
pub(crate) async fn resolved_before_it_arrives() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = fixture.client().await.partition_client("wal", 0).await.unwrap();
    let wal = fixture.appender(partition, 5 * SECOND);
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayRequest(MINUTE));
    let error = wal.try_append(&["b"]).await.unwrap_err();
    wal.record(&["fence"]).unknown();
    let resolution = wal.partition.resolve(error.in_doubt().unwrap(), fence()).await.unwrap();
    sleep(2 * MINUTE).await;
    let is_appended = support::log(&fixture.cluster).iter().any(|value| value == "b");
    let is_right = is_appended == matches!(resolution, Resolution::Appended(_));
    fixture.expect(is_right, "a batch was appended after it was resolved");
    fixture
}

/// A partition client is closed with two appends left, of which one was dropped.
pub(crate) async fn closed_after_drop() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    fixture.cluster.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    drop(wal.begin(&["b"]).await);
    let append = wal.submit(&["c"]).await;
    let errors = wal.partition.close().deadline(5 * SECOND).await;
    fixture.expect(errors.len() == 2, "the error of an append that was dropped is not returned");
    append.await.unwrap();
    fixture
}

/// A permit is used after the end of its partition client began, while an append is left.
pub(crate) async fn submitted_after_close() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    let permit = wal.partition.reserve(1_000).await.unwrap();
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let append = wal.submit(&["b"]).await;
    let partition = wal.partition.clone();
    let close = tokio::spawn(async move { partition.close().await });
    settle().await;
    let late = wal.submit_with(permit, "c");
    fixture.expect(late.await.unwrap().is_none(), "an append after the partition client was closed");
    append.await.unwrap();
    close.await.unwrap();
    fixture
}

/// A client with two partition clients is closed while each has an append left.
pub(crate) async fn client_closed() -> Fixture {
    let fixture = Fixture::one_broker();
    let client = fixture.client().await;
    let open = [fixture.open_partition(&client, 0).await, fixture.open_partition(&client, 1).await];
    fixture.cluster.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    let appends = [open[0].submit(&["a"]).await, open[1].submit(&["b"]).await];
    let errors = client.close().deadline(5 * SECOND).await;
    fixture.expect(errors.len() == 2, "the error of an append of the client is not returned");
    for append in appends {
        append.await.unwrap();
    }
    fixture
}

/// Appends two records to the leader alone, then has the other broker lead, which has none of them. Returns
/// the former leader.
async fn lose_all(fixture: &Fixture, wal: &Appender) -> i32 {
    let leader = fixture.cluster.leader("wal", 0).unwrap().unwrap();
    let other = 3 - leader;
    fixture.cluster.shrink_isr("wal", 0, other).unwrap();
    for value in ["a", "b"] {
        wal.append(&[value]).await;
    }
    fixture.cluster.elect_unclean("wal", 0, other).unwrap();
    leader
}

/// All is lost, and the former leader leads again before the client has noticed anything.
pub(crate) async fn log_lost_unnoticed() -> Fixture {
    let fixture = Fixture::brokers(2);
    let wal = fixture.open().await;
    let leader = lose_all(&fixture, &wal).await;
    sleep(SECOND).await;
    fixture.cluster.move_leader("wal", 0, leader).unwrap();
    sleep(SECOND).await;
    for value in ["c", "d"] {
        wal.append(&[value]).await;
    }
    fixture
}

/// The same, but others fill up the log, and the leader does not know the producer id any more.
pub(crate) async fn loss_unnoticed_and_id_refused() -> Fixture {
    let fixture = Fixture::brokers(2);
    let (wal, others) = (fixture.open().await, fixture.open().await);
    let leader = lose_all(&fixture, &wal).await;
    sleep(SECOND).await;
    fixture.cluster.move_leader("wal", 0, leader).unwrap();
    for value in ["x", "y", "z"] {
        others.append(&[value]).await;
    }
    fixture.cluster.refuse_producers("wal", 0, ErrorCode::UNKNOWN_PRODUCER_ID).unwrap();
    for value in ["c", "d"] {
        wal.append(&[value]).await;
    }
    fixture
}

/// The response to a look-up hardly arrives, and the append that needs it ends before.
pub(crate) async fn look_up_hardly_arrives() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open_with_deadline(5 * SECOND).await;
    wal.append(&[&"x".repeat(20_000)]).await;
    let broker = fixture.cluster.brokers()[0];
    fixture.cluster.disconnect(broker).unwrap();
    fixture.cluster.on(ApiKey::FETCH, Fault::Trickle { bytes: 2, pause: SECOND / 100 });
    wal.append(&["a"]).await;
    sleep(20 * SECOND).await;
    fixture.expect(wal.append(&["b"]).await.is_some(), "appends wait for a response that nobody wants");
    fixture
}

/// All is lost, and others append until the log is longer than it was.
pub(crate) async fn loss_filled_up() -> Fixture {
    let fixture = Fixture::brokers(2);
    let (wal, others) = (fixture.open().await, fixture.open().await);
    lose_all(&fixture, &wal).await;
    for value in ["x", "y", "z"] {
        others.append(&[value]).await;
    }
    for value in ["c", "d"] {
        wal.append(&[value]).await;
    }
    fixture
}

/// The connection is lost after a batch of two records.
pub(crate) async fn reconnected() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a", "b"]).await;
    fixture.cluster.disconnect_all();
    wal.append(&["c"]).await;
    fixture
}

/// The log is deleted up to its end, and the connection is lost.
pub(crate) async fn deleted_and_reconnected() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a", "b"]).await;
    fixture.cluster.delete_records("wal", 0, 2).unwrap();
    fixture.cluster.disconnect_all();
    wal.append(&["c"]).await;
    fixture
}
