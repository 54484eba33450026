//! C5: every future of an append may be dropped at any await.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use kwal_client::{
    Append, Client, Limits, PartitionClient, Resolution,
    error::{Error, ErrorKind, InDoubt},
    record::Record,
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{EmbeddedCluster, Fault, FaultTarget};
use tokio::{task::yield_now, time::sleep};

use crate::support::{Wire, WireMode, broker, log, polled, record, settle, timed};

const SECOND: Duration = Duration::from_secs(1);
/// The whole memory of the client.
const MEMORY: usize = 8 << 10;

/// What goes wrong while a future waits.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Nothing,
    Produce(Fault),
    /// There is no connection.
    Disconnected,
    /// There is none yet, and the first attempts fail.
    Refused,
    /// Requests are written and not read.
    Deaf,
}

const TROUBLE: [Trouble; 11] = [
    Trouble::Nothing,
    Trouble::Produce(Fault::LoseReply),
    Trouble::Produce(Fault::Drop),
    Trouble::Produce(Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
    Trouble::Produce(Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS)),
    Trouble::Produce(Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT)),
    Trouble::Produce(Fault::DelayReply(SECOND)),
    Trouble::Produce(Fault::Throttle(SECOND)),
    Trouble::Disconnected,
    Trouble::Refused,
    Trouble::Deaf,
];

impl Trouble {
    fn begin(self, broker: &EmbeddedCluster, wire: &Wire) {
        match self {
            Self::Nothing => {}
            Self::Produce(fault) => broker.on(ApiKey::PRODUCE, fault),
            Self::Disconnected => broker.disconnect_all(),
            Self::Refused => {
                broker.disconnect_all();
                broker.on_times(FaultTarget::connections(), 2, Fault::Drop);
            }
            Self::Deaf => wire.set(WireMode::Deaf),
        }
    }

    fn end(wire: &Wire) {
        wire.set(WireMode::Passing);
    }
}

/// Returns a client with one connection for appends and little memory, so that every leak is noticed.
async fn scarce(wire: &Wire) -> Client {
    let limits = Limits::default().memory(MEMORY).max_connections_per_broker(1);
    wire.builder().limits(limits).build().await.unwrap()
}

/// Submits an append of one record.
async fn submit(partition: &PartitionClient, value: &str) -> Append {
    let batch = partition.encode(record(value)).unwrap();
    let permit = partition.reserve(batch.size_in_bytes()).await.unwrap();
    permit.submit(batch)
}

/// Polls a future so many times, also if nothing has woken it, with the turns of other tasks in between. Then
/// drops it. `None` if it was not completed by then. No time passes.
async fn polled_in_turns<T>(future: impl IntoFuture<Output = T>, times: usize) -> Option<T> {
    let mut future = pin!(future.into_future());
    for _ in 0..times {
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Some(done);
        }
        yield_now().await;
    }
    None
}

/// Lets other tasks run, without time passing.
async fn turns(count: usize) {
    for _ in 0..count {
        yield_now().await;
    }
}

/// Asserts that all memory and all places are free, after appends that may still be under way.
async fn assert_nothing_is_held(partition: &PartitionClient, what: &str) {
    let all = partition.reserve(MEMORY).await;
    drop(all.unwrap_or_else(|error| panic!("{what}: {error}")));
    let mut permits = Vec::new();
    // No more than appends may hold units of the memory.
    for _ in 0..(MEMORY >> 10) * 3 / 4 {
        permits.push(partition.reserve(1).await.unwrap());
    }
    drop(permits);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_result_of_an_append_does_not_take_the_batch_back() {
    for trouble in TROUBLE {
        for is_first in [true, false] {
            for count in [0, 1, 5] {
                for polls in 0.. {
                    let what = format!("{trouble:?}, first {is_first}, {polls} polls, {count} turns");
                    let broker = broker();
                    let wire = Wire::to(&broker);
                    let partition = scarce(&wire).await.partition_client("wal", 0).await.unwrap();
                    let mut expected = Vec::new();
                    if !is_first {
                        partition.produce(record("before")).await.unwrap();
                        expected.push("before");
                    }
                    trouble.begin(&broker, &wire);
                    let dropped = submit(&partition, "dropped").await;
                    let next = submit(&partition, "next").await;
                    expected.extend(["dropped", "next", "last"]);
                    let done = polled_in_turns(dropped, polls).await;
                    turns(count).await;
                    Trouble::end(&wire);
                    next.await.unwrap_or_else(|error| panic!("{what}: {error}"));
                    partition.produce(record("last")).await.unwrap();
                    assert_eq!(log(&broker), expected, "{what}");
                    let (_, took) = timed(assert_nothing_is_held(&partition, &what)).await;
                    assert_eq!(took, Duration::ZERO, "{what}");
                    if done.is_some() || polls == 8 {
                        break;
                    }
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_dropped_while_it_waits_for_memory_or_a_place_is_not_on_the_log() {
    for is_place in [true, false] {
        for count in [0, 1, 2, 5] {
            for polls in 1..4 {
                let broker = broker();
                let wire = Wire::to(&broker);
                let limits = if is_place { Limits::default() } else { Limits::default().memory(MEMORY) };
                let client = wire.builder().limits(limits).build().await.unwrap();
                let partition = client.partition_client("wal", 0).await.unwrap();
                let mut permits = Vec::new();
                for _ in 0..if is_place { 64 } else { 1 } {
                    permits.push(partition.reserve(MEMORY).await.unwrap());
                }
                for _ in 0..100 {
                    assert!(polled_in_turns(partition.produce(record("dropped")), polls).await.is_none());
                    turns(count).await;
                    assert!(polled_in_turns(partition.reserve(MEMORY), polls).await.is_none());
                    turns(count).await;
                }
                // One that waits is next, whoever was before it.
                let mut waiting = Box::pin(partition.produce(record("waited")).into_future());
                assert!(polled(&mut waiting, 1).await.is_none());
                drop(permits.pop());
                let (produced, took) = timed(waiting).await;
                produced.unwrap();
                assert_eq!(took, Duration::ZERO);
                drop(permits);
                assert_eq!(log(&broker), ["waited"]);
                let (all, took) = timed(partition.reserve(MEMORY)).await;
                assert_eq!((all.is_ok(), took), (true, Duration::ZERO));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reservation_may_be_dropped_at_any_poll() {
    for trouble in TROUBLE {
        for polls in 1..4 {
            let what = format!("{trouble:?}, {polls} polls");
            let broker = broker();
            let wire = Wire::to(&broker);
            let partition = scarce(&wire).await.partition_client("wal", 0).await.unwrap();
            partition.produce(record("before")).await.unwrap();
            trouble.begin(&broker, &wire);
            let batch = partition.encode(record("held")).unwrap();
            let held = partition.reserve(MEMORY).await.unwrap();
            assert!(polled_in_turns(partition.reserve(MEMORY), polls).await.is_none(), "{what}");
            let append = held.submit(batch);
            // Dropped with the memory of the batch missing.
            for count in 0..4 {
                drop(polled_in_turns(partition.reserve(MEMORY), polls).await);
                turns(count).await;
            }
            Trouble::end(&wire);
            append.await.unwrap_or_else(|error| panic!("{what}: {error}"));
            let (_, took) = timed(assert_nothing_is_held(&partition, &what)).await;
            assert_eq!(took, Duration::ZERO, "{what}");
            partition.produce(record("after")).await.unwrap();
            assert_eq!(log(&broker), ["before", "held", "after"], "{what}");
        }
    }
}

type Call = Pin<Box<dyn Future<Output = Option<Resolution>>>>;

/// Resolves a batch in doubt.
fn resolve(partition: &PartitionClient, in_doubt: &InDoubt) -> Call {
    let (partition, in_doubt) = (partition.clone(), in_doubt.clone());
    Box::pin(async move {
        let fence = Record::new(None::<&str>, "fence");
        partition.resolve(&in_doubt, fence).await.ok()
    })
}

/// Appends a batch that ends in doubt. It is on the log, or will not be.
async fn append_in_doubt(
    broker: &EmbeddedCluster,
    partition: &PartitionClient,
    is_appended: bool,
) -> InDoubt {
    broker.on(ApiKey::PRODUCE, if is_appended { Fault::LoseReply } else { Fault::Drop });
    broker.on_all(ApiKey::PRODUCE, Fault::Drop);
    let error = partition.produce(record("in doubt")).deadline(SECOND).await.unwrap_err();
    broker.clear_faults();
    error.in_doubt().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_resolution_may_be_dropped_at_any_poll_and_made_again() {
    for trouble in [TROUBLE[0], TROUBLE[1], TROUBLE[2], TROUBLE[5], TROUBLE[6], TROUBLE[8]] {
        for is_appended in [true, false] {
            for is_foreign in [true, false] {
                let mut polls = 0;
                loop {
                    polls += 1;
                    let what =
                        format!("{trouble:?}, appended {is_appended}, foreign {is_foreign}, {polls} polls");
                    let broker = broker();
                    let wire = Wire::to(&broker);
                    let client = scarce(&wire).await;
                    let owner = client.partition_client("wal", 0).await.unwrap();
                    owner.produce(record("before")).await.unwrap();
                    let in_doubt = append_in_doubt(&broker, &owner, is_appended).await;
                    let resolver = match is_foreign {
                        true => scarce(&wire).await.partition_client("wal", 0).await.unwrap(),
                        false => owner.clone(),
                    };
                    trouble.begin(&broker, &wire);
                    let mut call = resolve(&resolver, &in_doubt);
                    let done = polled(&mut call, polls).await;
                    turns(polls % 3).await;
                    drop(call);
                    let again = resolve(&resolver, &in_doubt).await;
                    let expected = match is_appended {
                        true => Resolution::Appended(1..2),
                        false => Resolution::NotApplied,
                    };
                    assert_eq!(again, Some(expected), "{what}");
                    resolver.produce(record("after")).await.unwrap();
                    let values = log(&broker);
                    let others: Vec<_> = values.iter().filter(|value| *value != "fence").collect();
                    let appended =
                        if is_appended { &["before", "in doubt", "after"][..] } else { &["before", "after"] };
                    assert_eq!(others, appended, "{what}");
                    sleep(SECOND).await;
                    assert_nothing_is_held(&resolver, &what).await;
                    if let Some(first) = done {
                        assert_eq!(first, again, "{what}");
                        break;
                    }
                    assert!(polls < 60, "{what}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_partition_client_may_be_dropped_at_any_poll_and_awaited_again() {
    for trouble in TROUBLE {
        for count in [0, 1, 5] {
            for polls in 1.. {
                let what = format!("{trouble:?}, {polls} polls, {count} turns");
                let broker = broker();
                let wire = Wire::to(&broker);
                let client = scarce(&wire).await;
                let partition = client.partition_client("wal", 0).await.unwrap();
                partition.produce(record("before")).await.unwrap();
                trouble.begin(&broker, &wire);
                let appends = [submit(&partition, "0").await, submit(&partition, "1").await];
                let done = polled_in_turns(partition.close(), polls).await;
                turns(count).await;
                let late: Result<_, Error> = partition.produce(record("late")).await;
                assert!(matches!(late.unwrap_err().kind(), ErrorKind::Closed), "{what}");
                Trouble::end(&wire);
                // What was submitted is completed although nobody waits for the end.
                for append in appends {
                    append.await.unwrap_or_else(|error| panic!("{what}: {error}"));
                }
                let (errors, took) = timed(partition.close()).await;
                assert!(errors.is_empty() && took.is_zero(), "{what}: {errors:?}");
                assert_eq!(log(&broker), ["before", "0", "1"], "{what}");
                // Its memory is free for others.
                let other = client.partition_client("wal", 1).await.unwrap();
                assert_nothing_is_held(&other, &what).await;
                if done.is_some() || polls == 8 {
                    break;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_client_may_be_dropped_at_any_poll_and_awaited_again() {
    for trouble in TROUBLE {
        for count in [0, 1, 5] {
            for polls in 1.. {
                let what = format!("{trouble:?}, {polls} polls, {count} turns");
                let broker = broker();
                let wire = Wire::to(&broker);
                let client = scarce(&wire).await;
                let partition = client.partition_client("wal", 0).await.unwrap();
                partition.produce(record("before")).await.unwrap();
                trouble.begin(&broker, &wire);
                let appends = [submit(&partition, "0").await, submit(&partition, "1").await];
                let done = polled_in_turns(client.close(), polls).await;
                turns(count).await;
                Trouble::end(&wire);
                for append in appends {
                    append.await.unwrap_or_else(|error| panic!("{what}: {error}"));
                }
                let (errors, took) = timed(client.close()).await;
                assert!(errors.is_empty() && took.is_zero(), "{what}: {errors:?}");
                assert_eq!(log(&broker), ["before", "0", "1"], "{what}");
                settle().await;
                assert_eq!(wire.open().0, 0, "{what}");
                if done.is_some() || polls == 8 {
                    break;
                }
            }
        }
    }
}
