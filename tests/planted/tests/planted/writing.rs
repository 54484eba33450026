//! Appends, and what comes between them and the log.

use std::time::Duration;

use kwal_client::Limits;
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{Aim, EmbeddedCluster, Fault};
use tokio::time::sleep;

use crate::{
    bench::Bench,
    support::{HOUR, settle},
};

const SECOND: Duration = Duration::from_secs(1);

/// The leader dies before the others have what it acknowledged.
pub(crate) async fn leader_lost() -> Bench {
    let bench = Bench::of(3);
    let wal = bench.open().await;
    wal.append(&["a"]).await;
    let leader = bench.cluster.leader("wal", 0).unwrap().unwrap();
    for broker in (1..=3).filter(|broker| *broker != leader) {
        bench.cluster.set_lag("wal", 0, broker, 5 * SECOND).unwrap();
    }
    let append = wal.submit(&["b"]).await;
    sleep(SECOND).await;
    bench.cluster.kill(leader).unwrap();
    append.await.unwrap();
    wal.append(&["c"]).await;
    bench.cluster.restart(leader).unwrap();
    bench
}

pub(crate) async fn several_records() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    wal.append(&["a", "b"]).await;
    wal.append(&["c"]).await;
    bench
}

pub(crate) async fn answer_lost() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    wal.append(&["a"]).await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    wal.append(&["b"]).await;
    bench
}

pub(crate) async fn answer_lost_and_leader_moved() -> Bench {
    let bench = Bench::of(3);
    let wal = bench.open().await;
    wal.append(&["a"]).await;
    let leader = bench.cluster.leader("wal", 0).unwrap().unwrap();
    bench.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    let append = wal.submit(&["b"]).await;
    settle().await;
    bench.cluster.move_leader("wal", 0, leader % 3 + 1).unwrap();
    // It may know already where to go, or has to be told.
    bench.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    append.await.unwrap();
    bench
}

pub(crate) async fn answer_lost_without_id() -> Bench {
    let bench = Bench::one();
    let partition = bench.client().await.partition_client("wal", 0).idempotent(false).await.unwrap();
    let wal = bench.appends(partition, 60 * SECOND);
    wal.append(&["a"]).await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    wal.append(&["b"]).await;
    bench
}

pub(crate) async fn behind_an_open_one() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    wal.append(&["a"]).await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR));
    wal.append(&["b"]).await;
    wal.append(&["c"]).await;
    bench
}

/// A partition is left by one client, and opened twice then.
pub(crate) async fn opened_twice_again() -> Bench {
    let bench = Bench::one();
    let client = bench.client().await;
    bench.open_at(&client, 0).await.append(&["a"]).await;
    let (one, other) = (bench.open_at(&client, 0).await, bench.open_at(&client, 0).await);
    one.append(&["b"]).await;
    other.append(&["c"]).await;
    bench
}

/// A partition is left while an append is under way, and opened again.
pub(crate) async fn opened_while_under_way() -> Bench {
    let bench = Bench::one();
    let client = bench.client().await;
    let wal = bench.open_at(&client, 0).await;
    wal.append(&["a"]).await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let append = wal.begin(&["b"]).await;
    settle().await;
    drop((append, wal));
    bench.open_at(&client, 0).await.append(&["c"]).await;
    bench
}

pub(crate) async fn two_at_a_time() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    let appends = [wal.submit(&["a", "b", "c"]).await, wal.submit(&["d", "e"]).await];
    for append in appends {
        append.await.unwrap();
    }
    bench
}

/// A new id, and the first of two batches is refused for the moment.
pub(crate) async fn first_refused() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let appends = [wal.submit(&["a"]).await, wal.submit(&["b"]).await];
    for append in appends {
        append.await.unwrap();
    }
    bench
}

pub(crate) async fn refused_in_the_middle() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    bench.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let mut appends = vec![wal.submit(&["a"]).await, wal.submit(&["b"]).await];
    sleep(SECOND / 2).await;
    bench.cluster.clear_faults();
    bench.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    for value in ["c", "d", "e"] {
        appends.push(wal.submit(&[value]).await);
    }
    for append in appends {
        append.await.unwrap();
    }
    wal.append(&["f"]).await;
    bench
}

pub(crate) async fn polled_in_another_order() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    let (one, other) = (wal.begin(&["a"]).await, wal.begin(&["b"]).await);
    let (other, one) = (other.spawn(), one.spawn());
    other.await.unwrap();
    one.await.unwrap();
    bench
}

/// Appends and reads get no answer.
pub(crate) async fn no_answer() -> Bench {
    let bench = Bench::one();
    let wal = bench.open_for(15 * SECOND).await;
    bench.cluster.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    bench.cluster.on_all(ApiKey::FETCH, Fault::BlackHole);
    wal.append(&["a"]).await;
    let call = bench.recorder.now().call("fetch", 15 * SECOND);
    wal.partition.fetch(0).await.unwrap_err();
    bench.recorder.now().returned(call);
    bench
}

pub(crate) async fn refused_again_and_again() -> Bench {
    let bench = Bench::one();
    let wal = bench.open_for(15 * SECOND).await;
    bench.cluster.on_all(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    bench.cluster.on_all(ApiKey::FETCH, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    wal.append(&["a"]).await;
    let call = bench.recorder.now().call("fetch", 15 * SECOND);
    wal.partition.fetch(0).await.unwrap_err();
    bench.recorder.now().returned(call);
    bench
}

pub(crate) async fn timed_out_then_refused() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT));
    bench.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    wal.append(&["a"]).await;
    bench
}

pub(crate) async fn answer_beyond_the_deadline() -> Bench {
    let bench = Bench::one();
    let wal = bench.open_for(5 * SECOND).await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(HOUR));
    wal.append(&["a"]).await;
    bench
}

pub(crate) async fn failed_after_the_append() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR));
    wal.append(&["a"]).await;
    bench
}

pub(crate) async fn answer_lost_then_refused() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    bench.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    wal.append(&["a"]).await;
    bench
}

/// Given up when its place is fixed and others are behind it.
pub(crate) async fn dropped_in_the_queue() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let before = wal.submit(&["a"]).await;
    let dropped = wal.begin(&["b"]).await;
    let behind = wal.submit(&["c"]).await;
    sleep(SECOND / 2).await;
    drop(dropped);
    before.await.unwrap();
    behind.await.unwrap();
    bench
}

/// Given up when the broker has it, and not answered yet.
pub(crate) async fn dropped_under_way() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let dropped = wal.begin(&["a"]).await;
    settle().await;
    drop(dropped);
    settle().await;
    wal.append(&["b"]).await;
    bench
}

/// Given up while it waits for the room that another one holds.
pub(crate) async fn withdrawn() -> Bench {
    let bench = Bench::one();
    let limits = Limits { appends: 1, ..Limits::default() };
    let client = bench.builder().limits(limits).build().await.unwrap();
    let wal = bench.open_at(&client, 0).await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let first = wal.submit(&["a"]).await;
    let waiting = wal.wait(&["b"]).await;
    settle().await;
    waiting.withdraw();
    first.await.unwrap();
    wal.append(&["c"]).await;
    bench
}

/// What was acknowledged is lost, since a broker leads that does not have it.
pub(crate) async fn loss() -> Bench {
    let bench = Bench::start(EmbeddedCluster::builder().brokers(2));
    let wal = bench.open().await;
    wal.append(&["a"]).await;
    let leader = bench.cluster.leader("wal", 0).unwrap().unwrap();
    let other = 3 - leader;
    bench.cluster.shrink_isr("wal", 0, other).unwrap();
    wal.append(&["b"]).await;
    bench.cluster.elect_unclean("wal", 0, other).unwrap();
    for value in ["c", "d"] {
        wal.append(&[value]).await;
    }
    bench
}

/// A broker that has led, and has not heard that it does so no more, is taken for the leader once more. It does not have what
/// was acknowledged since.
pub(crate) async fn leader_of_yesterday() -> Bench {
    let bench = Bench::of(3);
    let wal = bench.open().await;
    wal.append(&["a"]).await;
    bench.cluster.move_leader("wal", 0, 2).unwrap();
    bench.cluster.hold_metadata(2).unwrap();
    bench.cluster.move_leader("wal", 0, 1).unwrap();
    bench.cluster.shrink_isr("wal", 0, 2).unwrap();
    wal.append(&["b"]).await;
    for broker in [1, 3] {
        bench.cluster.on(Aim::api(ApiKey::METADATA).broker(broker), Fault::DelayReply(5 * SECOND));
    }
    bench.cluster.on(ApiKey::PRODUCE, Fault::Drop);
    for value in ["c", "d"] {
        wal.append(&[value]).await;
    }
    bench
}

/// The broker knows of a newer epoch of the producer id.
pub(crate) async fn taken_over() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    wal.append(&["a"]).await;
    bench.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_PRODUCER_EPOCH));
    for value in ["b", "c"] {
        wal.append(&[value]).await;
    }
    bench
}

pub(crate) async fn throttled() -> Bench {
    let bench = Bench::one();
    let wal = bench.open().await;
    bench.cluster.on_all(ApiKey::PRODUCE, Fault::Throttle(SECOND));
    for value in ["a", "b", "c"] {
        wal.append(&[value]).await;
    }
    bench
}

pub(crate) async fn to_each_partition() -> Bench {
    let bench = Bench::one();
    let client = bench.client().await;
    for partition in 0..2 {
        bench.open_at(&client, partition).await.append(&[&partition.to_string()]).await;
    }
    bench
}
