//! Exclusive writers: takeovers, and what others do to their logs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kwal_client::{
    PartitionClient,
    error::{Error, InDoubt},
    record::{Barrier, Record},
};
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    record::{BatchBuilder, Compression},
};
use kwal_testkit::{Fault, wire::Decision};
use tokio::task::JoinHandle;

use crate::{
    fixture::{Appender, Fixture, MINUTE},
    support::{Wire, settle},
};

const SECOND: Duration = Duration::from_secs(1);
pub(crate) const ID: &str = "writer/wal/0";

/// A fence for `resolve`. The verdict does not count it: there may be several.
fn fence() -> Record {
    Record::new("fence", "")
}

/// Appends a batch under a stamp of the caller's choice. Returns its offset.
fn append_raw(fixture: &Fixture, stamp: (i64, i16, i32), record: &Record) -> i64 {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(0, record.key.as_deref(), record.value.as_deref(), &record.headers);
    let (id, epoch, sequence) = stamp;
    let batch = builder.finish().unwrap().stamp(id, epoch, sequence).to_bytes();
    fixture.cluster.append_raw("wal", 0, batch).unwrap() - 1
}

/// Somebody appends two batches under the next epoch of a holder, without the coordinator. The first one may
/// be a barrier.
fn append_under_next_epoch(fixture: &Fixture, holder: &Appender, stranger: &Appender, first: Option<Record>) {
    let id = holder.partition.holder().unwrap().producer_id;
    let batches = [("x", first), ("y", None)];
    for (sequence, (value, barrier)) in batches.into_iter().enumerate() {
        let stamp = (id, 1, sequence as i32);
        match barrier {
            Some(barrier) => drop(append_raw(fixture, stamp, &barrier)),
            None => {
                let ticket = stranger.record(&[value]);
                ticket.acked(append_raw(fixture, stamp, &Record::new(None::<&str>, value)));
            }
        }
    }
}

/// Makes the coordinator forget the name.
pub(crate) fn forget(fixture: &Fixture) {
    fixture.expect(fixture.cluster.forget_transactional_id(ID), "the name is not known");
}

/// Holds the `nth` append back, and whatever follows it on the connection.
fn hold_append(wire: &Wire, nth: usize) {
    let mut seen = 0;
    wire.on_request(move |frame| {
        seen += usize::from(frame.api == ApiKey::PRODUCE);
        match frame.api == ApiKey::PRODUCE && seen == nth {
            true => Decision::Hold,
            false => Decision::Pass,
        }
    });
}

/// Begins a takeover, and waits until it has sent an append.
async fn begin(wire: &Wire) -> JoinHandle<Result<PartitionClient, Error>> {
    let client = wire.client().await;
    let takeover = tokio::spawn(client.partition_client("wal", 0).exclusive("writer").into_future());
    while wire.count(ApiKey::PRODUCE) == 0 {
        settle().await;
    }
    takeover
}

/// Leaves a batch of a holder in doubt.
pub(crate) async fn append_in_doubt(fixture: &Fixture, holder: &Appender) -> InDoubt {
    fixture.cluster.on(ApiKey::PRODUCE, Fault::ErrorAfter(ErrorCode::UNKNOWN_SERVER_ERROR));
    let error = holder.try_append(&["in doubt"]).await.unwrap_err();
    error.in_doubt().unwrap().clone()
}

/// Somebody has appended under the epoch that the coordinator hands out next.
pub(crate) async fn epoch_used_by_another() -> Fixture {
    let fixture = Fixture::one_broker();
    let (first, stranger) = (fixture.hold().await, fixture.open().await);
    first.append(&["a"]).await;
    append_under_next_epoch(&fixture, &first, &stranger, None);
    let second = fixture.try_hold(&fixture.client().await).await;
    fixture.expect(second.is_err(), "a log is held under an epoch of somebody else");
    if let Ok(second) = second {
        second.append(&["b"]).await;
    }
    fixture
}

/// Somebody else takes over under the same epoch, at the same time.
pub(crate) async fn epoch_shared_by_two() -> Fixture {
    let fixture = Fixture::one_broker();
    let (first, stranger) = (fixture.hold().await, fixture.open().await);
    first.append(&["a"]).await;
    let wire = Wire::to(&fixture.cluster);
    hold_append(&wire, 1);
    let second = begin(&wire).await;
    let id = first.partition.holder().unwrap().producer_id;
    let barrier = Record::new(ID, "")
        .header("kwal.barrier", "writer")
        .header("kwal.producer-id", id.to_string())
        .header("kwal.epoch", "1")
        .header("kwal.mark", "0123456789abcdef0123456789abcdef");
    append_under_next_epoch(&fixture, &first, &stranger, Some(barrier));
    wire.release();
    let second = second.await.unwrap();
    fixture.expect(second.is_err(), "a barrier of somebody else is taken for the own one");
    if let Ok(second) = second {
        fixture.holder(second, MINUTE).append(&["b"]).await;
    }
    fixture
}

/// Another holder takes over under another producer id while a barrier is on its way.
pub(crate) async fn overtaken() -> Fixture {
    let fixture = Fixture::one_broker();
    let wire = Wire::to(&fixture.cluster);
    hold_append(&wire, 1);
    let first = begin(&wire).await;
    forget(&fixture);
    let second = fixture.hold().await;
    second.append(&["b"]).await;
    wire.release();
    if let Ok(first) = first.await.unwrap() {
        fixture.holder(first, MINUTE).append(&["a"]).await;
    }
    second.append(&["c"]).await;
    fixture
}

/// A holder was overtaken, and another one follows it under the same producer id.
pub(crate) async fn overtaken_then_taken_over() -> Fixture {
    let fixture = Fixture::one_broker();
    let wires = [Wire::to(&fixture.cluster), Wire::to(&fixture.cluster)];
    wires.iter().for_each(|wire| hold_append(wire, 1));
    let one = begin(&wires[0]).await;
    forget(&fixture);
    let other = begin(&wires[1]).await;
    // The coordinator knows the id of the other one, and the log is held by this one.
    wires[0].release();
    let one = fixture.holder(one.await.unwrap().unwrap(), MINUTE);
    wires[1].release();
    fixture.expect(other.await.unwrap().is_err(), "a barrier of another holder is overlooked");
    one.append(&["a"]).await;
    let third = fixture.hold().await;
    third.append(&["b"]).await;
    one.append(&["late"]).await;
    third.append(&["c"]).await;
    fixture
}

/// A holder leaves a batch in doubt and goes on, and another one takes over.
pub(crate) async fn taken_over_after_doubt() -> Fixture {
    let fixture = Fixture::one_broker();
    let first = fixture.hold().await;
    first.append(&["a"]).await;
    append_in_doubt(&fixture, &first).await;
    first.append(&["b"]).await;
    let second = fixture.try_hold(&fixture.client().await).await;
    fixture.expect(second.is_ok(), "the coordinator does not know an epoch that is in use");
    fixture
}

/// The coordinator forgets the name, and a new holder gets another producer id.
pub(crate) async fn name_forgotten() -> Fixture {
    forgotten_after(&["a"]).await
}

/// The same with a barrier far from the end of the log.
pub(crate) async fn name_forgotten_long_after_barrier() -> Fixture {
    let values: Vec<_> = (0..1_500).map(|value| value.to_string()).collect();
    forgotten_after(&values.iter().map(String::as_str).collect::<Vec<_>>()).await
}

async fn forgotten_after(values: &[&str]) -> Fixture {
    let fixture = Fixture::one_broker();
    let first = fixture.hold().await;
    first.append(values).await;
    forget(&fixture);
    let second = fixture.hold().await;
    second.append(&["b"]).await;
    first.append(&["late"]).await;
    second.append(&["c"]).await;
    fixture
}

/// Begins a takeover, and holds it back before it searches the log.
async fn begin_search(wire: &Wire) -> JoinHandle<Result<PartitionClient, Error>> {
    let mut is_held = false;
    wire.on_request(move |frame| {
        match frame.api == ApiKey::LIST_OFFSETS && !std::mem::replace(&mut is_held, true) {
            true => Decision::Hold,
            false => Decision::Pass,
        }
    });
    let client = wire.client().await;
    let takeover = tokio::spawn(client.partition_client("wal", 0).exclusive("writer").into_future());
    while wire.count(ApiKey::LIST_OFFSETS) == 0 {
        settle().await;
    }
    takeover
}

/// The coordinator forgets the name before a takeover searches the log, which another holder has then.
pub(crate) async fn forgotten_before_search() -> Fixture {
    let fixture = Fixture::one_broker();
    let wire = Wire::to(&fixture.cluster);
    let first = begin_search(&wire).await;
    forget(&fixture);
    let second = fixture.hold().await;
    second.append(&["a"]).await;
    wire.release();
    fixture.expect(first.await.unwrap().is_err(), "a log is taken over under an id that was forgotten");
    let third = fixture.try_hold(&fixture.client().await).await;
    fixture.expect(third.is_ok(), "a name cannot be taken over any more");
    fixture
}

/// The coordinator forgets the id of a takeover and of the holder before it, which has not appended yet.
pub(crate) async fn forgotten_while_searching() -> Fixture {
    let fixture = Fixture::one_broker();
    fixture.hold().await.append(&["a"]).await;
    forget(&fixture);
    let earlier = fixture.hold().await;
    let wire = Wire::to(&fixture.cluster);
    let takeover = begin_search(&wire).await;
    forget(&fixture);
    wire.release();
    let holder = fixture.holder(takeover.await.unwrap().unwrap(), MINUTE);
    holder.append(&["b"]).await;
    earlier.append(&["late"]).await;
    fixture
}

/// The fence of another producer id is rejected for good.
pub(crate) async fn fence_rejected() -> Fixture {
    let fixture = Fixture::one_broker();
    let first = fixture.hold().await;
    first.append(&["a"]).await;
    forget(&fixture);
    fixture.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    let second = fixture.try_hold(&fixture.client().await).await;
    fixture.expect(second.is_err(), "a log is held without a fence");
    if let Ok(second) = second {
        second.append(&["b"]).await;
    }
    first.append(&["c"]).await;
    fixture
}

/// Followers lag, and the leader dies between fence and barrier.
pub(crate) async fn leader_killed_after_fence() -> Fixture {
    let fixture = Fixture::brokers(3);
    let first = fixture.hold().await;
    first.append(&["a"]).await;
    forget(&fixture);
    let leader = fixture.cluster.leader("wal", 0).unwrap().unwrap();
    for broker in (1..=3).filter(|broker| *broker != leader) {
        fixture.cluster.set_lag("wal", 0, broker, 5 * SECOND).unwrap();
    }
    let wire = Wire::to(&fixture.cluster);
    hold_append(&wire, 2);
    let second = begin(&wire).await;
    while wire.count(ApiKey::PRODUCE) < 2 {
        settle().await;
    }
    fixture.cluster.kill(leader).unwrap();
    wire.release();
    let second = fixture.holder(second.await.unwrap().unwrap(), MINUTE);
    second.append(&["b"]).await;
    first.append(&["late"]).await;
    second.append(&["c"]).await;
    fixture.cluster.restart(leader).unwrap();
    fixture
}

/// Followers lag while a log is taken over.
pub(crate) async fn followers_lag() -> Fixture {
    let fixture = Fixture::brokers(3);
    let leader = fixture.cluster.leader("wal", 0).unwrap().unwrap();
    for broker in (1..=3).filter(|broker| *broker != leader) {
        fixture.cluster.set_lag("wal", 0, broker, 5 * SECOND).unwrap();
    }
    let holder = fixture.hold().await;
    let epoch = holder.partition.holder().unwrap().epoch;
    fixture.expect(epoch == 0, "a barrier is looked for before all replicas have it");
    fixture
}

/// A log is taken over, and appended to.
pub(crate) async fn taken_over() -> Fixture {
    let fixture = Fixture::one_broker();
    let holder = fixture.hold().await;
    for value in ["a", "b"] {
        fixture.expect(holder.append(&[value]).await.is_some(), "a holder cannot append");
    }
    fixture
}

/// Two names hold the same log.
pub(crate) async fn other_name() -> Fixture {
    let fixture = Fixture::one_broker();
    let client = fixture.client().await;
    let other = client.partition_client("wal", 0).exclusive("other").await.unwrap();
    let other = fixture.holder(other, MINUTE);
    other.append(&["a"]).await;
    fixture.hold().await.append(&["b"]).await;
    fixture.expect(other.append(&["c"]).await.is_some(), "a holder of another name is fenced");
    fixture
}

/// Somebody without the name has copied a barrier, and the coordinator forgets the name.
pub(crate) async fn barrier_copied() -> Fixture {
    let fixture = Fixture::one_broker();
    let (first, copier) = (fixture.hold().await, fixture.open().await);
    let barrier = fixture.cluster.records("wal", 0).unwrap().remove(0);
    let mut copy = Record::new(barrier.key.unwrap(), barrier.value.unwrap());
    copy.headers = barrier.headers;
    copier.partition.produce(vec![copy]).await.unwrap();
    drop(first);
    forget(&fixture);
    fixture.hold().await.append(&["b"]).await;
    fixture.expect(copier.append(&["c"]).await.is_some(), "a writer without the name is fenced");
    fixture
}

/// A record has one header more than a barrier.
pub(crate) async fn barrier_with_a_fifth_header() -> Fixture {
    let fixture = Fixture::one_broker();
    let holder = fixture.hold().await;
    let mut record = fixture.cluster.records("wal", 0).unwrap().remove(0);
    fixture.expect(Barrier::parse(&record).is_some(), "a barrier is not recognised");
    record.headers.push("trace", "1");
    fixture.expect(Barrier::parse(&record).is_none(), "a record of an application is taken for a barrier");
    holder.append(&["a"]).await;
    fixture
}

/// A log is searched, and loses its end before the barrier is appended.
pub(crate) async fn unclean_election_while_taking_over() -> Fixture {
    let fixture = Fixture::brokers(2);
    let unnamed = fixture.open().await;
    unnamed.append(&["a"]).await;
    let leader = fixture.cluster.leader("wal", 0).unwrap().unwrap();
    fixture.cluster.shrink_isr("wal", 0, 3 - leader).unwrap();
    for value in ["b", "c"] {
        unnamed.append(&[value]).await;
    }
    let wire = Wire::to(&fixture.cluster);
    hold_append(&wire, 1);
    let holder = begin(&wire).await;
    fixture.cluster.elect_unclean("wal", 0, 3 - leader).unwrap();
    wire.release();
    let holder = holder.await.unwrap();
    fixture.expect(holder.is_ok(), "a loss is taken for another writer");
    if let Ok(holder) = holder {
        fixture.holder(holder, MINUTE).append(&["d"]).await;
    }
    fixture
}

/// A partition is opened again without the name, by the client that had it.
pub(crate) async fn reopened_without_name() -> Fixture {
    let fixture = Fixture::one_broker();
    let client = fixture.client().await;
    let holder = fixture.try_hold(&client).await.unwrap();
    holder.append(&["a"]).await;
    drop(holder);
    let unnamed = fixture.open_partition(&client, 0).await;
    unnamed.append(&["b"]).await;
    fixture.hold().await.append(&["c"]).await;
    fixture.expect(unnamed.append(&["d"]).await.is_some(), "a writer without the name is fenced");
    fixture
}

/// A partition client without the name resolves a batch of its holder.
pub(crate) async fn resolved_without_name() -> Fixture {
    let fixture = Fixture::one_broker();
    let (holder, other) = (fixture.hold().await, fixture.open().await);
    holder.append(&["a"]).await;
    let in_doubt = append_in_doubt(&fixture, &holder).await;
    let resolved = other.partition.resolve(&in_doubt, fence()).await;
    fixture.expect(resolved.is_err(), "a batch of a name is resolved without it");
    fixture.expect(holder.append(&["b"]).await.is_some(), "a holder is fenced by one without the name");
    fixture
}

/// A holder that has lost its log resolves a batch of the next one.
pub(crate) async fn resolved_by_an_earlier_holder() -> Fixture {
    let fixture = Fixture::one_broker();
    let first = fixture.hold().await;
    forget(&fixture);
    let second = fixture.hold().await;
    second.append(&["a"]).await;
    let in_doubt = append_in_doubt(&fixture, &second).await;
    let resolved = first.partition.resolve(&in_doubt, fence()).await;
    fixture.expect(resolved.is_err(), "a batch of a name is resolved by one that has lost it");
    fixture.expect(second.append(&["b"]).await.is_some(), "a holder is fenced by an earlier one");
    fixture
}

/// Somebody waits for the end of a holder.
pub(crate) async fn waited_for() -> Fixture {
    let fixture = Fixture::one_broker();
    let first = fixture.hold().await;
    let fenced = Arc::new(AtomicUsize::new(0));
    let waiting = tokio::spawn({
        let (partition, fenced) = (first.partition.clone(), Arc::clone(&fenced));
        async move {
            partition.fenced().await;
            fenced.store(1, Ordering::Relaxed);
        }
    });
    settle().await;
    fixture.hold().await;
    first.append(&["late"]).await;
    settle().await;
    fixture.expect(fenced.load(Ordering::Relaxed) == 1, "the end of a partition client is not noticed");
    waiting.abort();
    fixture
}

/// The earlier holder appends once more between the search and the barrier of the next one.
pub(crate) async fn appended_before_barrier() -> Fixture {
    let fixture = Fixture::one_broker();
    let first = fixture.hold().await;
    let wire = Wire::to(&fixture.cluster);
    hold_append(&wire, 1);
    let second = begin(&wire).await;
    first.append(&["a"]).await;
    wire.release();
    let second = fixture.holder(second.await.unwrap().unwrap(), MINUTE);
    second.append(&["b"]).await;
    first.append(&["late"]).await;
    fixture
}
