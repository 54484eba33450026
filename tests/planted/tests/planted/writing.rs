//! Appends, and what can go wrong with them.

use std::time::Duration;

use kwal_client::Limits;
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{Fault, FaultTarget};
use tokio::time::sleep;

use crate::{
    fixture::{Fixture, MINUTE},
    support::{HOUR, settle},
};

const SECOND: Duration = Duration::from_secs(1);

/// The leader is killed before the followers have its last batch.
pub(crate) async fn leader_killed() -> Fixture {
    let fixture = Fixture::brokers(3);
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

pub(crate) async fn batch_of_two_records() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a", "b"]).await;
    wal.append(&["c"]).await;
    fixture
}

pub(crate) async fn response_lost() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    wal.append(&["b"]).await;
    fixture
}

pub(crate) async fn response_lost_and_leader_moved() -> Fixture {
    let fixture = Fixture::brokers(3);
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    let leader = fixture.cluster.leader("wal", 0).unwrap().unwrap();
    fixture.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    let append = wal.submit(&["b"]).await;
    settle().await;
    fixture.cluster.move_leader("wal", 0, leader % 3 + 1).unwrap();
    // The client may know the new leader already. Its next attempt is rejected in any case.
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    append.await.unwrap();
    fixture
}

/// The first attempt is rejected.
pub(crate) async fn large_values() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    let large = |first: &str| format!("{first}{}", "x".repeat(20 << 10));
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let appended = wal.append(&["a", &large("b"), "c", &large("d")]).await;
    fixture.expect(appended.is_some(), "a batch with large values is not sent again as it was");
    wal.append(&["e"]).await;
    fixture
}

/// The broker does not know the producer id any more when the batch comes again.
pub(crate) async fn response_lost_and_id_refused() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::UNKNOWN_PRODUCER_ID));
    wal.append(&["b"]).await;
    wal.append(&["c"]).await;
    fixture
}

pub(crate) async fn response_lost_without_producer_id() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = fixture.client().await.partition_client("wal", 0).idempotent(false).await.unwrap();
    let wal = fixture.appender(partition, MINUTE);
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    wal.append(&["b"]).await;
    fixture
}

pub(crate) async fn append_after_unknown_outcome() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR));
    wal.append(&["b"]).await;
    wal.append(&["c"]).await;
    fixture
}

/// The last handle of a partition is dropped, and the partition opened twice.
pub(crate) async fn reopened_twice() -> Fixture {
    let fixture = Fixture::one_broker();
    let client = fixture.client().await;
    fixture.open_partition(&client, 0).await.append(&["a"]).await;
    let (one, other) = (fixture.open_partition(&client, 0).await, fixture.open_partition(&client, 0).await);
    one.append(&["b"]).await;
    other.append(&["c"]).await;
    fixture
}

/// The last handle of a partition is dropped while an append is in flight, and the partition opened again.
pub(crate) async fn reopened_while_in_flight() -> Fixture {
    let fixture = Fixture::one_broker();
    let client = fixture.client().await;
    let wal = fixture.open_partition(&client, 0).await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let append = wal.begin(&["b"]).await;
    settle().await;
    drop((append, wal));
    fixture.open_partition(&client, 0).await.append(&["c"]).await;
    fixture
}

pub(crate) async fn concurrent_batches() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    let appends = [wal.submit(&["a", "b", "c"]).await, wal.submit(&["d", "e"]).await];
    for append in appends {
        append.await.unwrap();
    }
    fixture
}

/// The first of two batches with a new producer id is rejected once.
pub(crate) async fn first_batch_rejected() -> Fixture {
    let fixture = Fixture::one_broker();
    // On a connection that is open already, batches are sent in the order of their attempts.
    let limits = Limits::default().max_connections_per_broker(1);
    let client = fixture.builder().limits(limits).build().await.unwrap();
    let before = fixture.open_partition(&client, 0).await;
    before.append(&["x"]).await.unwrap();
    let wal = fixture.open_partition(&client, 0).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let appends = [wal.submit(&["a"]).await, wal.submit(&["b"]).await];
    for append in appends {
        append.await.unwrap();
    }
    fixture
}

pub(crate) async fn rejected_with_others_queued() -> Fixture {
    let fixture = Fixture::one_broker();
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

pub(crate) async fn second_polls_reversed() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    let (one, other) = (wal.begin(&["a"]).await, wal.begin(&["b"]).await);
    let (other, one) = (other.spawn(), one.spawn());
    other.await.unwrap();
    one.await.unwrap();
    fixture
}

/// The broker responds to neither appends nor fetches.
pub(crate) async fn no_response() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open_with_deadline(15 * SECOND).await;
    fixture.cluster.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    fixture.cluster.on_all(ApiKey::FETCH, Fault::BlackHole);
    wal.append(&["a"]).await;
    let call = fixture.recorder.now().call("fetch", 15 * SECOND);
    wal.partition.fetch(0).await.unwrap_err();
    fixture.recorder.now().returned(call);
    fixture
}

pub(crate) async fn every_attempt_rejected() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open_with_deadline(15 * SECOND).await;
    fixture.cluster.on_all(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    fixture.cluster.on_all(ApiKey::FETCH, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    wal.append(&["a"]).await;
    let call = fixture.recorder.now().call("fetch", 15 * SECOND);
    wal.partition.fetch(0).await.unwrap_err();
    fixture.recorder.now().returned(call);
    fixture
}

pub(crate) async fn timed_out_then_rejected() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT));
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    wal.append(&["a"]).await;
    fixture
}

pub(crate) async fn response_after_deadline() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open_with_deadline(5 * SECOND).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(HOUR));
    wal.append(&["a"]).await;
    fixture
}

pub(crate) async fn error_after_append() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR));
    wal.append(&["a"]).await;
    fixture
}

pub(crate) async fn response_lost_then_rejected() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::LoseReply);
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    wal.append(&["a"]).await;
    fixture
}

/// An append is dropped after its place was fixed, with another one after it.
pub(crate) async fn dropped_in_queue() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let before = wal.submit(&["a"]).await;
    let dropped = wal.begin(&["b"]).await;
    let after = wal.submit(&["c"]).await;
    sleep(SECOND / 2).await;
    drop(dropped);
    before.await.unwrap();
    after.await.unwrap();
    fixture
}

/// An append is dropped after the broker got it and before it has responded.
pub(crate) async fn dropped_in_flight() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let dropped = wal.begin(&["a"]).await;
    settle().await;
    drop(dropped);
    settle().await;
    wal.append(&["b"]).await;
    fixture
}

/// An append is dropped while another one holds all memory.
pub(crate) async fn withdrawn() -> Fixture {
    let fixture = Fixture::one_broker();
    let limits = Limits::default().memory(1);
    let client = fixture.builder().limits(limits).build().await.unwrap();
    let wal = fixture.open_partition(&client, 0).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(SECOND));
    let first = wal.submit(&["a"]).await;
    let waiting = wal.begin_queued(&["b"]).await;
    settle().await;
    waiting.withdraw();
    first.await.unwrap();
    wal.append(&["c"]).await;
    fixture
}

/// An unclean election loses an acknowledged batch.
pub(crate) async fn data_loss() -> Fixture {
    let fixture = Fixture::brokers(2);
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

/// A deposed leader that has not noticed yet is taken for the leader again. It lacks acknowledged batches.
pub(crate) async fn deposed_leader() -> Fixture {
    let fixture = Fixture::brokers(3);
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
    fixture.cluster.on(FaultTarget::connections().broker(1), Fault::Drop);
    for value in ["c", "d"] {
        wal.append(&[value]).await;
    }
    fixture
}

/// The broker knows a newer epoch of the producer id.
pub(crate) async fn fenced() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    wal.append(&["a"]).await;
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_PRODUCER_EPOCH));
    for value in ["b", "c"] {
        wal.append(&[value]).await;
    }
    fixture
}

pub(crate) async fn throttled() -> Fixture {
    let fixture = Fixture::one_broker();
    let wal = fixture.open().await;
    fixture.cluster.on_all(ApiKey::PRODUCE, Fault::Throttle(SECOND));
    for value in ["a", "b", "c"] {
        wal.append(&[value]).await;
    }
    fixture
}

pub(crate) async fn two_partitions() -> Fixture {
    let fixture = Fixture::one_broker();
    let client = fixture.client().await;
    for partition in 0..2 {
        fixture.open_partition(&client, partition).await.append(&[&partition.to_string()]).await;
    }
    fixture
}
