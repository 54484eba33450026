//! Appends, and what comes between them and the log.

use std::time::Duration;

use kwal_client::Limits;
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{EmbeddedCluster, Fault, FaultTarget};
use tokio::time::sleep;

use crate::{
    fixture::Fixture,
    support::{HOUR, settle},
};

const SECOND: Duration = Duration::from_secs(1);

/// The leader dies before the others have what it acknowledged.
pub(crate) async fn leader_lost() -> Fixture {
    let fixture = Fixture::of(3);
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    let leader = fixture.cluster.leader("wal", 0).unwrap().unwrap();
    for broker in (1..=3).filter(|broker| *broker != leader) {
        fixture.cluster.set_lag("wal", 0, broker, 5 * SECOND).unwrap();
    }
    let append = wal.submit(&["b"]).await;
    sleep(SECOND).await;
    fixture.cluster.kill(leader).unwrap();
    append.await.unwrap();
    wal.append(&["c"]).await;
    fixture.cluster.restart(leader).unwrap();
    fixture
}

pub(crate) async fn several_records() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    wal.append(&["a", "b"]).await;
    wal.append(&["c"]).await;
    fixture
}

pub(crate) async fn answer_lost() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    wal.append(&["b"]).await;
    fixture
}

pub(crate) async fn answer_lost_and_leader_moved() -> Fixture {
    let fixture = Fixture::of(3);
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    let leader = fixture.cluster.leader("wal", 0).unwrap().unwrap();
    fixture.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    let append = wal.submit(&["b"]).await;
    settle().await;
    fixture.cluster.move_leader("wal", 0, leader % 3 + 1).unwrap();
    // It may know already where to go, or has to be told.
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    append.await.unwrap();
    fixture
}

pub(crate) async fn answer_lost_without_id() -> Fixture {
    let fixture = Fixture::one();
    let partition = fixture.client().await.partition_client("wal", 0).idempotent(false).await.unwrap();
    let wal = fixture.appends(partition, 60 * SECOND);
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    wal.append(&["b"]).await;
    fixture
}

pub(crate) async fn behind_an_open_one() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR));
    wal.append(&["b"]).await;
    wal.append(&["c"]).await;
    fixture
}

/// A partition is left by one client, and opened twice then.
pub(crate) async fn opened_twice_again() -> Fixture {
    let fixture = Fixture::one();
    let client = fixture.client().await;
    fixture.open_at(&client, 0).await.append(&["a"]).await;
    let (one, other) = (fixture.open_at(&client, 0).await, fixture.open_at(&client, 0).await);
    one.append(&["b"]).await;
    other.append(&["c"]).await;
    fixture
}

/// A partition is left while an append is under way, and opened again.
pub(crate) async fn opened_while_under_way() -> Fixture {
    let fixture = Fixture::one();
    let client = fixture.client().await;
    let wal = fixture.open_at(&client, 0).await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let append = wal.begin(&["b"]).await;
    settle().await;
    drop((append, wal));
    fixture.open_at(&client, 0).await.append(&["c"]).await;
    fixture
}

pub(crate) async fn two_at_a_time() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    let appends = [wal.submit(&["a", "b", "c"]).await, wal.submit(&["d", "e"]).await];
    for append in appends {
        append.await.unwrap();
    }
    fixture
}

/// A new id, and the first of two batches is refused for the moment.
pub(crate) async fn first_refused() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let appends = [wal.submit(&["a"]).await, wal.submit(&["b"]).await];
    for append in appends {
        append.await.unwrap();
    }
    fixture
}

pub(crate) async fn refused_in_the_middle() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let mut appends = vec![wal.submit(&["a"]).await, wal.submit(&["b"]).await];
    sleep(SECOND / 2).await;
    fixture.cluster.clear_faults();
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    for value in ["c", "d", "e"] {
        appends.push(wal.submit(&[value]).await);
    }
    for append in appends {
        append.await.unwrap();
    }
    wal.append(&["f"]).await;
    fixture
}

pub(crate) async fn polled_in_another_order() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    let (one, other) = (wal.begin(&["a"]).await, wal.begin(&["b"]).await);
    let (other, one) = (other.spawn(), one.spawn());
    other.await.unwrap();
    one.await.unwrap();
    fixture
}

/// Appends and reads get no answer.
pub(crate) async fn no_answer() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open_for(15 * SECOND).await;
    fixture.cluster.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    fixture.cluster.on_all(ApiKey::FETCH, Fault::BlackHole);
    wal.append(&["a"]).await;
    let call = fixture.recorder.now().call("fetch", 15 * SECOND);
    wal.partition.fetch(0).await.unwrap_err();
    fixture.recorder.now().returned(call);
    fixture
}

pub(crate) async fn refused_again_and_again() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open_for(15 * SECOND).await;
    fixture.cluster.on_all(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    fixture.cluster.on_all(ApiKey::FETCH, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    wal.append(&["a"]).await;
    let call = fixture.recorder.now().call("fetch", 15 * SECOND);
    wal.partition.fetch(0).await.unwrap_err();
    fixture.recorder.now().returned(call);
    fixture
}

pub(crate) async fn timed_out_then_refused() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT));
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    wal.append(&["a"]).await;
    fixture
}

pub(crate) async fn answer_beyond_the_deadline() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open_for(5 * SECOND).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(HOUR));
    wal.append(&["a"]).await;
    fixture
}

pub(crate) async fn failed_after_the_append() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR));
    wal.append(&["a"]).await;
    fixture
}

pub(crate) async fn answer_lost_then_refused() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    wal.append(&["a"]).await;
    fixture
}

/// Given up when its place is fixed and others are behind it.
pub(crate) async fn dropped_in_the_queue() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let before = wal.submit(&["a"]).await;
    let dropped = wal.begin(&["b"]).await;
    let behind = wal.submit(&["c"]).await;
    sleep(SECOND / 2).await;
    drop(dropped);
    before.await.unwrap();
    behind.await.unwrap();
    fixture
}

/// Given up when the broker has it, and not answered yet.
pub(crate) async fn dropped_under_way() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let dropped = wal.begin(&["a"]).await;
    settle().await;
    drop(dropped);
    settle().await;
    wal.append(&["b"]).await;
    fixture
}

/// Given up while it waits for the room that another one holds.
pub(crate) async fn withdrawn() -> Fixture {
    let fixture = Fixture::one();
    let limits = Limits::default().memory(1);
    let client = fixture.builder().limits(limits).build().await.unwrap();
    let wal = fixture.open_at(&client, 0).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let first = wal.submit(&["a"]).await;
    let waiting = wal.wait(&["b"]).await;
    settle().await;
    waiting.withdraw();
    first.await.unwrap();
    wal.append(&["c"]).await;
    fixture
}

/// What was acknowledged is lost, since a broker leads that does not have it.
pub(crate) async fn loss() -> Fixture {
    let fixture = Fixture::start(EmbeddedCluster::builder().brokers(2));
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    let leader = fixture.cluster.leader("wal", 0).unwrap().unwrap();
    let other = 3 - leader;
    fixture.cluster.shrink_isr("wal", 0, other).unwrap();
    wal.append(&["b"]).await;
    fixture.cluster.elect_unclean("wal", 0, other).unwrap();
    for value in ["c", "d"] {
        wal.append(&[value]).await;
    }
    fixture
}

/// A broker that has led, and has not heard that it does so no more, is taken for the leader once more. It does not have what
/// was acknowledged since.
pub(crate) async fn leader_of_yesterday() -> Fixture {
    let fixture = Fixture::of(3);
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    fixture.cluster.move_leader("wal", 0, 2).unwrap();
    fixture.cluster.hold_metadata(2).unwrap();
    fixture.cluster.move_leader("wal", 0, 1).unwrap();
    fixture.cluster.shrink_isr("wal", 0, 2).unwrap();
    wal.append(&["b"]).await;
    for broker in [1, 3] {
        fixture.cluster.on(FaultTarget::api(ApiKey::METADATA).broker(broker), Fault::DelayReply(5 * SECOND));
    }
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Drop);
    for value in ["c", "d"] {
        wal.append(&[value]).await;
    }
    fixture
}

/// The broker knows of a newer epoch of the producer id.
pub(crate) async fn taken_over() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_PRODUCER_EPOCH));
    for value in ["b", "c"] {
        wal.append(&[value]).await;
    }
    fixture
}

pub(crate) async fn throttled() -> Fixture {
    let fixture = Fixture::one();
    let wal = fixture.open().await;
    fixture.cluster.on_all(ApiKey::PRODUCE, Fault::Throttle(SECOND));
    for value in ["a", "b", "c"] {
        wal.append(&[value]).await;
    }
    fixture
}

pub(crate) async fn to_each_partition() -> Fixture {
    let fixture = Fixture::one();
    let client = fixture.client().await;
    for partition in 0..2 {
        fixture.open_at(&client, partition).await.append(&[&partition.to_string()]).await;
    }
    fixture
}
