//! C5: every future may be dropped at any await.

use std::{future::Future, pin::Pin, time::Duration};

use kwal_client::{Client, ControllerClient, Limits, OffsetAt, PartitionClient};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

use crate::support::{HOUR, Wire, WireMode, broker, log, open, polled, record, settle, timed};

/// The faults that an append may meet.
const FAULTS: [Option<Fault>; 7] = [
    None,
    Some(Fault::LoseReply),
    Some(Fault::Drop),
    Some(Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
    Some(Fault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT)),
    Some(Fault::DelayReply(Duration::from_secs(1))),
    Some(Fault::Throttle(Duration::from_secs(1))),
];

/// Returns a client with the smallest limits, so that every leak is noticed.
async fn scarce(wire: &Wire) -> Client {
    wire.builder().limits(Limits::default().memory(1).max_connections_per_broker(1)).build().await.unwrap()
}

/// Polls an append, lets other tasks run, and drops it. Returns whether it was completed.
async fn dropped(partition: &PartitionClient, value: &str, polls: usize, turns: usize) -> bool {
    let mut append = partition.produce(record(value)).into_future();
    let done = polled(&mut append, polls).await;
    if done.is_none() {
        for _ in 0..turns {
            yield_now().await;
        }
    }
    done.is_some()
}

#[tokio::test(start_paused = true)]
async fn an_append_dropped_after_submission_is_completed_and_later_ones_follow_it() {
    for fault in FAULTS {
        let broker = broker();
        let wire = Wire::to(&broker);
        let partition = scarce(&wire).await.partition_client("wal", 0).await.unwrap();
        let mut expected = Vec::new();
        for turns in 0..12 {
            for polls in 1.. {
                let value = format!("{turns} turns after {polls} polls");
                if let Some(fault) = fault {
                    broker.on(ApiKey::PRODUCE, fault);
                }
                let done = dropped(&partition, &value, polls, turns).await;
                expected.push(value);
                let next = format!("next {}", expected.len());
                let (produced, _) = timed(partition.produce(record(&next))).await;
                produced.unwrap();
                expected.push(next);
                assert_eq!(log(&broker), expected, "{fault:?}");
                if done {
                    break;
                }
            }
        }
        let mut stamps = wire.stamps();
        stamps.dedup();
        let sequences: Vec<_> = (0..expected.len() as i32).collect();
        assert_eq!(stamps.iter().map(|stamp| stamp.2).collect::<Vec<_>>(), sequences, "no gap");
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_dropped_while_it_waits_for_memory_is_not_on_the_log() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = scarce(&wire).await.partition_client("wal", 0).await.unwrap();
    for turns in 0..8 {
        broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(1)));
        let mut first = partition.produce(record("first")).into_future();
        assert!(polled(&mut first, 1).await.is_none());
        for _ in 0..100 {
            assert!(!dropped(&partition, "waits", 1, turns).await);
        }
        first.await.unwrap();
        let (produced, took) = timed(partition.produce(record("next"))).await;
        produced.unwrap();
        assert!(took < Duration::from_secs(1), "the memory is free again: {took:?}");
    }
    assert_eq!(log(&broker), ["first", "next"].repeat(8));
}

#[tokio::test(start_paused = true)]
async fn dropped_appends_release_their_places() {
    let broker = broker();
    let partition = open(&broker).await;
    for _ in 0..10 {
        broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(1)));
        // More than the queue has places for.
        for _ in 0..100 {
            assert!(polled(partition.produce(record("dropped")), 1).await.is_none());
        }
        let (produced, took) = timed(partition.produce(record("kept"))).await;
        produced.unwrap();
        assert!(took <= Duration::from_secs(1), "{took:?}");
    }
    let values = log(&broker);
    assert_eq!(values.iter().filter(|value| *value == "kept").count(), 10);
    assert_eq!(values.len(), 10 * (64 + 1), "only those with a place");
}

type Call = Pin<Box<dyn Future<Output = bool>>>;
type Make = fn(&Client, &ControllerClient, &PartitionClient) -> Call;

/// Every call except the append.
fn calls() -> Vec<(&'static str, Make)> {
    vec![
        ("partition_client", |client, _, _| {
            let open = client.partition_client("wal", 1);
            Box::pin(async move { open.await.is_ok() })
        }),
        ("list_topics", |client, _, _| {
            let client = client.clone();
            Box::pin(async move { client.list_topics().await.is_ok() })
        }),
        ("create_topic", |_, controller, _| {
            let controller = controller.clone();
            Box::pin(async move { controller.create_topic("new", 1, 1).await.is_ok() })
        }),
        ("delete_topic", |_, controller, _| {
            let controller = controller.clone();
            Box::pin(async move { controller.delete_topic("gone").await.is_ok() })
        }),
        ("fetch", |_, _, partition| {
            let partition = partition.clone();
            Box::pin(async move { partition.fetch(0).await.is_ok() })
        }),
        ("fetch_records", |_, _, partition| {
            let partition = partition.clone();
            Box::pin(async move { partition.fetch_records(0, 1..1_000, 100).await.is_ok() })
        }),
        ("fetch beyond the end", |_, _, partition| {
            let partition = partition.clone();
            Box::pin(async move { partition.fetch(1_000).await.is_err() })
        }),
        ("get_offset", |_, _, partition| {
            let partition = partition.clone();
            Box::pin(async move { partition.get_offset(OffsetAt::Latest).await.is_ok() })
        }),
    ]
}

async fn still_works(broker: &EmbeddedCluster, client: &Client, partition: &PartitionClient, what: &str) {
    let before = broker.end_offset("wal", 0).unwrap();
    assert_eq!(partition.produce(record("a")).await.unwrap().base_offset, Some(before), "{what}");
    assert!(partition.fetch(before).await.unwrap().next_offset > before, "{what}");
    assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), before + 1, "{what}");
    assert!(client.list_topics().await.unwrap().iter().any(|topic| topic.name == "wal"), "{what}");
    client.partition_client("wal", 1).await.unwrap().produce(record("b")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_other_call_may_be_dropped_at_any_poll() {
    for (name, make) in calls() {
        for cut in [false, true] {
            for turns in [0, 1, 2, 5] {
                let mut polls = 0;
                loop {
                    polls += 1;
                    let broker = broker();
                    broker.create_topic("gone", 1).unwrap();
                    let wire = Wire::to(&broker);
                    let client = scarce(&wire).await;
                    let controller = client.controller_client().await.unwrap();
                    let partition = client.partition_client("wal", 0).await.unwrap();
                    partition.produce(record("first")).await.unwrap();
                    if cut {
                        // All connections have to be opened again.
                        broker.disconnect_all();
                        settle().await;
                    }
                    let mut call = make(&client, &controller, &partition);
                    let done = polled(&mut call, polls).await;
                    for _ in 0..turns {
                        yield_now().await;
                    }
                    drop(call);
                    let what = format!("{name} dropped after {polls} polls and {turns} turns, cut {cut}");
                    let ((), took) = timed(still_works(&broker, &client, &partition, &what)).await;
                    assert!(took < Duration::from_secs(1), "{what}: {took:?}");
                    if let Some(right) = done {
                        assert!(right, "{what}");
                        break;
                    }
                    assert!(polls < 100, "{what}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_long_poll_releases_its_connection_when_the_broker_responds() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = scarce(&wire).await.partition_client("wal", 0).await.unwrap();
    let wait = Duration::from_secs(7);
    let first = timeout(wait / 7, partition.fetch(0).max_wait(wait)).await;
    assert!(first.is_err());
    let connections = wire.connections();
    let (fetched, took) = timed(partition.fetch(0).max_wait(Duration::ZERO)).await;
    fetched.unwrap();
    assert_eq!((took, wire.connections()), (wait - wait / 7, connections));
}

#[tokio::test(start_paused = true)]
async fn dropping_a_build_leaves_no_connection() {
    for mode in [WireMode::Passing, WireMode::Deaf, WireMode::Stalled, WireMode::Unreachable] {
        for turns in 0..10 {
            for polls in 1..10 {
                let broker = broker();
                let wire = Wire::to(&broker);
                wire.set(mode);
                let mut build = Box::pin(wire.builder().build());
                let built = polled(&mut build, polls).await;
                for _ in 0..turns {
                    yield_now().await;
                }
                drop((build, built));
                // A stalled wire does not notice that the client has closed the connection.
                wire.set(WireMode::Passing);
                settle().await;
                assert_eq!(wire.open().0, 0, "{mode:?} after {polls} polls and {turns} turns");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_everything_completes_submitted_appends_and_closes_connections() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    broker.on(ApiKey::PRODUCE, Fault::LoseReply);
    for i in 0..20 {
        assert!(polled(partition.produce(record(i.to_string())), 1).await.is_none());
    }
    drop((partition, client));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(log(&broker), (0..20).map(|i| i.to_string()).collect::<Vec<_>>());
    assert_eq!(wire.open().0, 0);

    // The same if that takes until the deadline.
    let client = wire.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    broker.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    assert!(polled(partition.produce(record("never")), 1).await.is_none());
    drop((partition, client));
    sleep(HOUR).await;
    assert_eq!((log(&broker).len(), wire.open().0), (20, 0));
}
