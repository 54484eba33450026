//! C9: one budget for appends and reads.

use std::{pin::pin, time::Duration};

use allocation_counter::measure;
use futures::{FutureExt, StreamExt, future::join_all, stream::FuturesUnordered};
use kwal_client::{
    Client, ClientBuilder, FetchAhead, Limits, PartitionClient,
    error::{ErrorKind, Progress},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, messages::FetchRequest};
use kwal_testkit::{EmbeddedCluster, Fault, wire::Decision};
use tokio::{
    runtime::Builder,
    time::{Instant, sleep},
};

use crate::support::{Wire, WireMode, builder, large, polled, record, settle, timed};

const SECOND: Duration = Duration::from_secs(1);
const KIB: usize = 1 << 10;

fn wide(partitions: i32) -> EmbeddedCluster {
    EmbeddedCluster::builder().topic("wide", partitions).start_in_memory().unwrap()
}

async fn open_all(client: &Client, count: i32) -> Vec<PartitionClient> {
    let open = (0..count).map(|index| client.partition_client("wide", index).into_future());
    join_all(open).await.into_iter().map(Result::unwrap).collect()
}

/// Opens partitions with a record of `bytes` bytes in each.
async fn filled(
    broker: &EmbeddedCluster,
    reader: ClientBuilder,
    count: i32,
    limits: Limits,
    bytes: usize,
) -> Vec<PartitionClient> {
    for writer in open_all(&builder(broker).build().await.unwrap(), count).await {
        writer.produce(large(bytes)).await.unwrap();
    }
    open_all(&reader.limits(limits).build().await.unwrap(), count).await
}

/// Opens the connections, so that the next fetch is sent when it is polled for the first time.
async fn connect(readers: &[PartitionClient]) {
    for reader in readers {
        reader.fetch(0).await.unwrap();
    }
}

/// Asserts that reads hold nothing: as many fetches ahead get memory as in a new client, and so do appends.
async fn assert_nothing_is_held(partition: &PartitionClient, memory: usize, what: &str) {
    let ahead: Vec<_> = std::iter::from_fn(|| partition.fetch(0).max_bytes(1).ahead()).collect();
    assert_eq!(ahead.len(), memory / KIB * 3 / 8, "{what}");
    drop(ahead);
    let all = timed(partition.reserve(memory)).await;
    assert_eq!((all.0.is_ok(), all.1), (true, Duration::ZERO), "{what}");
}

#[tokio::test(start_paused = true)]
async fn fetches_hold_at_most_three_quarters_and_the_next_ones_wait() {
    const N: usize = 7;
    const MEMORY: usize = 128 * KIB;
    let broker = wide(40);
    let wire = Wire::to(&broker);
    let limits = Limits::default().memory(MEMORY).max_connections_per_broker(N);
    let readers = filled(&broker, wire.builder(), 40, limits, KIB).await;
    // Each asks for an eighth of what reads may hold, whatever the caller wants.
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    wire.on_request({
        let asked = asked.clone();
        move |frame| {
            if let Some(request) = frame.request::<FetchRequest>() {
                asked.lock().unwrap().push(request.max_bytes);
            }
            Decision::Pass
        }
    });
    wire.on_response(|frame| match frame.api {
        ApiKey::FETCH => Decision::Delay(SECOND),
        _ => Decision::Pass,
    });
    let fetches = readers.iter().map(|reader| reader.fetch(0).max_bytes(1 << 20).into_future());
    assert!(join_all(fetches).await.iter().all(|fetched| fetched.as_ref().unwrap().next_offset == 1));
    let asked = asked.lock().unwrap().clone();
    assert!(asked.iter().all(|bytes| *bytes == (MEMORY * 3 / 4 / (N + 1)) as i32), "{asked:?}");
    assert_nothing_is_held(&readers[0], MEMORY, "read").await;
}

#[tokio::test(start_paused = true)]
async fn readers_that_come_late_for_what_they_fetched_ahead_hold_up_nobody() {
    const MEMORY: usize = 64 * KIB;
    for connections in [1, 4, 64] {
        let broker = wide(60);
        let wire = Wire::to(&broker);
        let limits = Limits::default().memory(MEMORY).max_connections_per_broker(connections);
        let readers = filled(&broker, wire.builder(), 60, limits, KIB).await;
        // All of them are on the connections.
        connect(&readers).await;
        let mut ahead: Vec<(usize, FetchAhead)> = Vec::new();
        for (index, reader) in readers.iter().enumerate() {
            if let Some(mut fetch) = reader.fetch(0).max_bytes(2 * KIB as i32).ahead() {
                assert!((&mut fetch).now_or_never().is_none());
                ahead.push((index, fetch));
            }
        }
        assert!(ahead.len() < 60 && ahead.len() >= 12, "{connections}: {}", ahead.len());
        sleep(SECOND).await;
        for _ in 0..3 {
            let (fetched, took) =
                timed(join_all(readers.iter().map(|reader| reader.fetch(0).into_future()))).await;
            assert!(fetched.iter().all(|fetched| fetched.as_ref().unwrap().next_offset >= 1));
            assert!(took < SECOND, "{connections}: {took:?}");
            readers[0].produce(large(8 * KIB)).await.unwrap();
        }
        // Their results are there, and need no more time.
        for (_, fetch) in ahead {
            assert_eq!(fetch.now_or_never().unwrap().unwrap().from, 0);
        }
        assert_nothing_is_held(&readers[0], MEMORY, "read ahead").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_gets_no_memory_ends_at_its_deadline_and_says_so() {
    const MEMORY: usize = 16 * KIB;
    for connections in [1, 16] {
        let broker = wide(40);
        let wire = Wire::to(&broker);
        let limits = Limits::default().memory(MEMORY).max_connections_per_broker(connections);
        let readers = filled(&broker, wire.builder(), 40, limits, 20 * KIB).await;
        connect(&readers).await;
        // Larger than asked for: a debt, which is paid when it is handed over.
        let mut held = Vec::new();
        for reader in &readers[..8] {
            let mut fetch = reader.fetch(0).min_bytes(2).into_future();
            assert!(polled(&mut fetch, 1).await.is_none());
            held.push(fetch);
        }
        sleep(SECOND).await;
        let (error, took) = timed(readers[9].fetch(0).deadline(SECOND)).await;
        let error = error.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::DeadlineExceeded { progress: Progress::Memory, .. }),
            "{connections}: {error:?}"
        );
        assert_eq!(took, SECOND);
        // It is a debt of reads alone.
        readers[9].produce(record("a")).await.unwrap();
        let waiting = tokio::spawn({
            let reader = readers[9].clone();
            async move { reader.fetch(0).await }
        });
        for fetch in held {
            assert_eq!(fetch.await.unwrap().next_offset, 1);
        }
        assert_eq!(waiting.await.unwrap().unwrap().from, 0);
        assert_nothing_is_held(&readers[0], MEMORY, "paid").await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_length_of_a_response_counts_as_soon_as_it_is_announced() {
    const MEMORY: usize = 64 * KIB;
    let broker = wide(3);
    let limits = Limits::default().memory(MEMORY).max_connections_per_broker(2);
    // A wire would pass whole responses.
    let readers = filled(&broker, builder(&broker), 3, limits, 100 * KIB).await;
    connect(&readers[..2]).await;
    broker.on(ApiKey::FETCH, Fault::Trickle { bytes: KIB, pause: SECOND / 10 });
    let mut first = readers[0].fetch(0).into_future();
    assert!(polled(&mut first, 1).await.is_none());
    // The caller is not polled.
    sleep(SECOND).await;
    assert!(readers[1].fetch(0).ahead().is_none());
    let (fetched, took) = timed(readers[1].fetch(0).deadline(SECOND)).await;
    assert!(fetched.is_err(), "{took:?}");
    assert_eq!(first.await.unwrap().next_offset, 1);
    readers[1].fetch(0).await.unwrap();
    // One whose caller is gone counts until it has arrived.
    broker.on(ApiKey::FETCH, Fault::Trickle { bytes: KIB, pause: SECOND / 10 });
    let mut gone = readers[0].fetch(0).into_future();
    assert!(polled(&mut gone, 1).await.is_none());
    sleep(SECOND).await;
    drop(gone);
    assert!(readers[1].fetch(0).ahead().is_none());
    sleep(15 * SECOND).await;
    assert_nothing_is_held(&readers[0], MEMORY, "arrived").await;
}

/// How a fetch may end.
const FAULTS: [Option<Fault>; 7] = [
    None,
    Some(Fault::LoseReply),
    Some(Fault::Drop),
    Some(Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
    Some(Fault::Error(ErrorCode::UNKNOWN_SERVER_ERROR)),
    Some(Fault::DelayReply(SECOND)),
    Some(Fault::Throttle(SECOND)),
];

#[tokio::test(start_paused = true)]
async fn memory_is_given_back_after_every_kind_of_end() {
    const MEMORY: usize = 16 * KIB;
    for fault in FAULTS {
        for (connections, is_ahead) in [(1, false), (1, true), (16, false), (16, true)] {
            for polls in 0..8 {
                let what = format!("{fault:?}, {connections} connections, ahead {is_ahead}, {polls} polls");
                let broker = wide(4);
                let wire = Wire::to(&broker);
                let limits = Limits::default().memory(MEMORY).max_connections_per_broker(connections);
                let readers = filled(&broker, wire.builder(), 4, limits, KIB).await;
                if let Some(fault) = fault {
                    broker.on(ApiKey::FETCH, fault);
                }
                // At the end of the log they wait, and before it they do not.
                for (reader, offset) in readers.iter().zip([0, 1, 0, 1]) {
                    for turns in 0..4 {
                        let fetch = reader.fetch(offset);
                        let mut fetch: std::pin::Pin<Box<dyn Future<Output = _>>> = match is_ahead {
                            true => match fetch.ahead() {
                                Some(ahead) => Box::pin(ahead),
                                None => continue,
                            },
                            false => fetch.into_future(),
                        };
                        for _ in 0..polls {
                            if (&mut fetch).now_or_never().is_some() {
                                break;
                            }
                            tokio::task::yield_now().await;
                        }
                        for _ in 0..turns {
                            tokio::task::yield_now().await;
                        }
                    }
                }
                // The broker has answered what it got.
                sleep(5 * SECOND).await;
                assert_nothing_is_held(&readers[0], MEMORY, &what).await;
                broker.clear_faults();
                let (fetched, took) = timed(readers[2].fetch(0)).await;
                fetched.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(took < 2 * SECOND, "{what}: {took:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn memory_is_given_back_when_the_client_is_closed_and_when_the_deadline_ends() {
    const MEMORY: usize = 64 * KIB;
    for connections in [1, 16] {
        let broker = wide(8);
        let wire = Wire::to(&broker);
        let limits = Limits::default().memory(MEMORY).max_connections_per_broker(connections);
        for writer in open_all(&builder(&broker).build().await.unwrap(), 8).await {
            writer.produce(record("a")).await.unwrap();
        }
        let client = wire.builder().limits(limits).build().await.unwrap();
        let readers = open_all(&client, 8).await;
        wire.set(WireMode::Deaf);
        let fetches = readers.iter().map(|reader| reader.fetch(0).deadline(SECOND).into_future());
        assert!(join_all(fetches).await.iter().all(Result::is_err));
        wire.set(WireMode::Passing);
        sleep(30 * SECOND).await;
        assert_nothing_is_held(&readers[0], MEMORY, "deadline").await;
        let waits: Vec<_> = readers
            .iter()
            .map(|reader| {
                let reader = reader.clone();
                tokio::spawn(async move { timed(reader.fetch(1).max_wait(20 * SECOND)).await })
            })
            .collect();
        settle().await;
        client.close().await;
        for wait in waits {
            let (error, took) = wait.await.unwrap();
            error.unwrap_err();
            assert!(took < SECOND, "{took:?}");
        }
        settle().await;
        let ahead: Vec<_> = std::iter::from_fn(|| readers[0].fetch(0).max_bytes(1).ahead()).collect();
        assert_eq!(ahead.len(), MEMORY / KIB * 3 / 8);
    }
}

/// Hundreds of partitions are replayed at once by readers with a fetch ahead each, some of them slow.
#[tokio::test(start_paused = true)]
async fn the_replay_of_hundreds_of_partitions_goes_on_within_little_memory() {
    const MEMORY: usize = 256 * KIB;
    const PARTITIONS: i32 = 200;
    const RECORDS: i64 = 20;
    let broker = wide(PARTITIONS);
    let wire = Wire::to(&broker);
    for writer in open_all(&builder(&broker).build().await.unwrap(), PARTITIONS).await {
        for _ in 0..RECORDS {
            writer.produce(large(2 * KIB)).await.unwrap();
        }
    }
    let limits = Limits::default().memory(MEMORY).max_connections_per_broker(4);
    let client = wire.builder().limits(limits).build().await.unwrap();
    let readers = open_all(&client, PARTITIONS).await;
    let replay = async |index: usize, reader: &PartitionClient| {
        let (mut next, mut ahead) = (0, None::<FetchAhead>);
        while next < RECORDS {
            let fetched = match ahead.take() {
                Some(ahead) => ahead.await.unwrap(),
                None => reader.fetch(next).max_bytes(8 << 10).await.unwrap(),
            };
            assert_eq!(fetched.from, next);
            next = fetched.next_offset;
            ahead = reader.fetch(next).max_bytes(8 << 10).ahead();
            if let Some(ahead) = &mut ahead {
                // Nobody polls it again until what was fetched has been worked on.
                assert!(ahead.now_or_never().is_none());
            }
            if index.is_multiple_of(3) {
                sleep(SECOND).await;
            }
        }
        Instant::now()
    };
    let begun = Instant::now();
    let replays: FuturesUnordered<_> = readers
        .iter()
        .enumerate()
        .map(|(index, reader)| async move { (index, replay(index, reader).await) })
        .collect();
    let mut replays = pin!(replays);
    let mut fast = Duration::ZERO;
    while let Some((index, at)) = replays.next().await {
        if !index.is_multiple_of(3) {
            fast = fast.max(at - begun);
        }
    }
    println!("the fast ones took {fast:?}, all of them {:?}", begun.elapsed());
    assert!(fast < SECOND, "{fast:?}");
    assert_nothing_is_held(&readers[0], MEMORY, "replayed").await;
}

/// Client and broker run on one thread, whose allocations are counted.
#[test]
fn slow_readers_of_hundreds_of_partitions_hold_no_more_than_the_budget() {
    const BATCH: usize = 100 * KIB;
    const MEMORY: usize = 8 << 20;
    const PARTITIONS: i32 = 200;
    const CONNECTIONS: usize = 4;
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (_broker, readers) = runtime.block_on(async {
        let broker = wide(PARTITIONS);
        let limits = Limits::default().memory(MEMORY).max_connections_per_broker(CONNECTIONS);
        let readers = filled(&broker, builder(&broker), PARTITIONS, limits, BATCH).await;
        connect(&readers).await;
        (broker, readers)
    });
    let mut count = 0;
    let allocated = measure(|| {
        runtime.block_on(async {
            let ahead: Vec<_> = readers
                .iter()
                .filter_map(|reader| {
                    let mut ahead = reader.fetch(0).max_bytes(BATCH as i32).ahead()?;
                    assert!((&mut ahead).now_or_never().is_none());
                    Some(ahead)
                })
                .collect();
            count = ahead.len();
            sleep(SECOND).await;
            // Others go on meanwhile, and keep nothing.
            for _ in 0..2 {
                let fetch = async |reader: &PartitionClient| {
                    let fetched = reader.fetch(0).max_bytes(BATCH as i32).await;
                    assert_eq!(fetched.unwrap().next_offset, 1);
                };
                join_all(readers.iter().map(fetch)).await;
            }
        });
    });
    let held = usize::try_from(allocated.bytes_max).unwrap();
    println!("{count} fetches ahead, {held} bytes");
    // What the broker sends is allocated by it, too, and pipes and calls take some.
    let most = MEMORY + (CONNECTIONS + 1) * 2 * BATCH + (2 << 20);
    assert!(count >= 20 && held >= count * BATCH, "{count} {held}");
    assert!(held <= most, "{held} of {most}");
}
