//! C7 to C9: attempts to break what reading promises.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use kwal_client::{
    Client, Isolation, Limits, PartitionClient, Position,
    error::{ErrorKind, Outcome},
};
use kwal_protocol::{
    api::{ApiKey, Versions},
    error_code::ErrorCode,
    messages::FetchRequest,
};
use kwal_testkit::{EmbeddedCluster, Fault, FaultTarget};
use tokio::time::sleep;

use crate::support::{Wire, builder, large, record, timed};

const SECOND: Duration = Duration::from_secs(1);
const KIB: usize = 1 << 10;

fn wide(partitions: i32) -> EmbeddedCluster {
    EmbeddedCluster::builder().topic("wide", partitions).start_in_memory().unwrap()
}

async fn open_all(client: &Client, indices: impl IntoIterator<Item = i32>) -> Vec<PartitionClient> {
    let open = indices.into_iter().map(|index| client.partition_client("wide", index).into_future());
    join_all(open).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(start_paused = true)]
async fn appends_and_reads_ahead_together_leave_room_for_a_read() {
    const MEMORY: usize = 64 * KIB;
    for connections in [1, 16] {
        let broker = wide(40);
        for writer in open_all(&builder(&broker).build().await.unwrap(), 0..40).await {
            writer.produce(large(2 * KIB)).await.unwrap();
        }
        let limits = Limits::default().memory(MEMORY).max_connections_per_broker(connections);
        let client = builder(&broker).limits(limits).build().await.unwrap();
        let readers = open_all(&client, 0..40).await;
        for reader in &readers {
            reader.fetch(0).await.unwrap();
        }
        let mut ahead = Vec::new();
        for reader in &readers[1..] {
            if let Some(mut fetch) = reader.fetch(0).max_bytes(2 * KIB as i32).ahead() {
                assert!((&mut fetch).now_or_never().is_none());
                ahead.push(fetch);
            }
        }
        sleep(SECOND).await;
        // Appends that wait for something else: permits of the application.
        let mut permits = Vec::new();
        while let Some(Ok(permit)) = readers[0].reserve(KIB).into_future().now_or_never() {
            permits.push(permit);
        }
        let (fetched, took) = timed(readers[0].fetch(0).deadline(10 * SECOND)).await;
        assert!(fetched.is_ok(), "{connections}: {} permits, {took:?}: {fetched:?}", permits.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_ahead_has_its_result_after_its_deadline_too() {
    for connections in [1, 16] {
        let broker = wide(3);
        let limits = Limits::default().max_connections_per_broker(connections);
        let client = builder(&broker).limits(limits).build().await.unwrap();
        let readers = open_all(&client, 0..3).await;
        readers[0].produce(record("a")).await.unwrap();
        readers[0].fetch(0).await.unwrap();
        for offset in [0, 1] {
            let mut ahead = readers[0].fetch(offset).ahead().unwrap();
            assert!((&mut ahead).now_or_never().is_none());
            sleep(600 * SECOND).await;
            let fetched = ahead.now_or_never().unwrap();
            assert_eq!(fetched.unwrap().next_offset, 1, "{connections}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn appends_of_any_size_go_out_whatever_is_fetched_ahead() {
    const MEMORY: usize = 64 * KIB;
    let broker = wide(40);
    for writer in open_all(&builder(&broker).build().await.unwrap(), 0..40).await {
        writer.produce(large(2 * KIB)).await.unwrap();
    }
    let limits = Limits::default().memory(MEMORY).max_connections_per_broker(4);
    let client = builder(&broker).limits(limits).build().await.unwrap();
    let readers = open_all(&client, 0..40).await;
    let mut ahead = Vec::new();
    for reader in &readers[1..] {
        if let Some(mut fetch) = reader.fetch(0).max_bytes(2 * KIB as i32).ahead() {
            assert!((&mut fetch).now_or_never().is_none());
            ahead.push(fetch);
        }
    }
    sleep(SECOND).await;
    for bytes in [KIB, 20 * KIB, 40 * KIB, 200 * KIB] {
        let (produced, took) = timed(readers[0].produce(large(bytes)).deadline(10 * SECOND)).await;
        assert!(produced.is_ok() && took < SECOND, "{bytes}: {took:?}: {produced:?}");
    }
}

/// One reader at the end of the log, and one that reads all of it, on the same partition client.
#[tokio::test(start_paused = true)]
async fn a_reader_does_not_wait_for_the_long_poll_of_another_one_of_the_same_partition_client() {
    for connections in [1, 16] {
        let broker = wide(1);
        let limits = Limits::default().max_connections_per_broker(connections);
        let client = builder(&broker).limits(limits).build().await.unwrap();
        let partition = client.partition_client("wide", 0).await.unwrap();
        for _ in 0..20 {
            partition.produce(record("a")).await.unwrap();
        }
        let idle = partition.clone();
        let idle = tokio::spawn(async move {
            loop {
                idle.fetch(20).max_wait(5 * SECOND).await.unwrap();
            }
        });
        sleep(SECOND).await;
        let (read, took) = timed(async {
            let mut position = Position::from(0);
            while position.offset < 20 {
                position = partition.fetch(position).max_bytes(1).await.unwrap().position();
            }
        })
        .await;
        let () = read;
        assert!(took < SECOND, "{connections}: {took:?}");
        idle.abort();
    }
}

/// Readers of a broker that is silent do not take all the memory, however little there is.
#[tokio::test(start_paused = true)]
async fn a_silent_broker_delays_no_reader_of_another_one() {
    for connections in [1, 3] {
        let broker = EmbeddedCluster::builder().brokers(2);
        let replicas: Vec<&[i32]> = (0..20).map(|index| [&[1, 2][..], &[2, 1]][index % 2]).collect();
        let broker = broker.topic_assigned("wide", &replicas).start_in_memory().unwrap();
        for writer in open_all(&builder(&broker).build().await.unwrap(), 0..20).await {
            writer.produce(record("a")).await.unwrap();
        }
        let limits = Limits::default().memory(64 * KIB).max_connections_per_broker(connections);
        let client = builder(&broker).limits(limits).build().await.unwrap();
        let readers = open_all(&client, 0..20).await;
        for reader in &readers {
            reader.fetch(0).await.unwrap();
        }
        broker.pause(1).unwrap();
        let silent = readers.iter().step_by(2).cloned().map(|reader| {
            tokio::spawn(async move {
                loop {
                    drop(reader.fetch(1).await);
                }
            })
        });
        let silent: Vec<_> = silent.collect();
        let mut worst = Duration::ZERO;
        for _ in 0..60 {
            sleep(SECOND).await;
            let (fetched, took) = timed(readers[1].fetch(0)).await;
            assert_eq!(fetched.unwrap().next_offset, 1);
            worst = worst.max(took);
        }
        silent.iter().for_each(tokio::task::JoinHandle::abort);
        assert!(worst < SECOND, "{connections}: {worst:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn tiny_budgets_read_everything() {
    for memory in [1, 1024, 4096] {
        for connections in [1, 2, 16] {
            let broker = wide(30);
            for writer in open_all(&builder(&broker).build().await.unwrap(), 0..30).await {
                for _ in 0..3 {
                    writer.produce(large(5 * KIB)).await.unwrap();
                }
            }
            let limits = Limits::default().memory(memory).max_connections_per_broker(connections);
            let client = builder(&broker).limits(limits).build().await.unwrap();
            let readers = open_all(&client, 0..30).await;
            let reads = readers.iter().enumerate().map(|(number, reader)| async move {
                let mut position = Position::from(0);
                let mut ahead = None::<kwal_client::FetchAhead>;
                while position.offset < 6 {
                    if position.offset >= 3 {
                        reader.produce(large(9 * KIB)).await.unwrap();
                    }
                    let fetched = match ahead.take() {
                        Some(ahead) => ahead.await.unwrap(),
                        None => reader.fetch(position).max_bytes(i32::MAX).await.unwrap(),
                    };
                    assert_eq!(fetched.from, position.offset);
                    position = fetched.position();
                    ahead = reader.fetch(position).max_bytes(i32::MAX).ahead();
                    if let Some(ahead) = &mut ahead {
                        assert!(ahead.now_or_never().is_none());
                    }
                    if number % 5 == 0 {
                        sleep(3 * SECOND).await;
                    }
                }
            });
            let ((), took) = timed(async {
                join_all(reads).await;
            })
            .await;
            assert!(took < 60 * SECOND, "{memory} {connections}: {took:?}");
        }
    }
}

/// Readers of all kinds of faults: each record is read once, in order, with the value that its partition
/// and offset have.
async fn shared_storm(seed: u64, fetch: i16, connections: usize) {
    const PARTITIONS: i32 = 24;
    let mut rng = fastrand::Rng::with_seed(seed);
    let broker = EmbeddedCluster::builder()
        .seed(seed)
        .brokers(3)
        .topic("wide", PARTITIONS)
        .cap(ApiKey::FETCH, Versions::new(0, fetch))
        .start_in_memory()
        .unwrap();
    let wire = Wire::to(&broker);
    let memory = [8 * KIB, 16 * KIB, 64 * KIB, 1 << 26][rng.usize(..4)];
    let limits = Limits::default().max_connections_per_broker(connections).memory(memory);
    let client = wire.builder().limits(limits).build().await.unwrap();
    let readers = open_all(&client, 0..PARTITIONS).await;
    let writers = open_all(&builder(&broker).seed(seed).build().await.unwrap(), 0..PARTITIONS).await;
    let mangled = Arc::new(Mutex::new(Some(rng.fork())));
    wire.edit::<FetchRequest>({
        let mangled = Arc::clone(&mangled);
        move |response| {
            let mut rng = mangled.lock().unwrap();
            let Some(rng) = rng.as_mut() else { return };
            if rng.u8(..10) > 0 {
                return;
            }
            match rng.u8(..6) {
                0 => response.responses.clear(),
                1 => response.responses.iter_mut().for_each(|topic| rng.shuffle(&mut topic.partitions)),
                2 => response.responses.iter_mut().for_each(|topic| {
                    let index = rng.usize(..topic.partitions.len().max(1));
                    let again = topic.partitions.get(index).cloned();
                    topic.partitions.extend(again);
                }),
                3 => response.responses.iter_mut().for_each(|topic| {
                    let keep = rng.usize(..=topic.partitions.len());
                    topic.partitions.truncate(keep);
                }),
                4 => response.error_code = ErrorCode::FETCH_SESSION_ID_NOT_FOUND,
                _ => {
                    // As if each were a topic of its own.
                    let topics = std::mem::take(&mut response.responses);
                    for topic in topics {
                        for partition in topic.partitions.clone() {
                            response.responses.push(kwal_protocol::messages::FetchTopicResponse {
                                partitions: vec![partition],
                                ..topic.clone()
                            });
                        }
                    }
                }
            }
        }
    });
    let progress = Arc::new(Mutex::new(vec![0_i64; PARTITIONS as usize]));
    let mut tasks = Vec::new();
    for (index, reader) in readers.iter().cloned().enumerate() {
        let (progress, mut rng) = (Arc::clone(&progress), rng.fork());
        tasks.push(tokio::spawn(async move {
            let mut position = Position::from(0);
            loop {
                if index == 0 {
                    sleep(Duration::from_millis(700)).await;
                }
                let isolation =
                    [Isolation::ReadCommitted, Isolation::ReadUncommitted][usize::from(rng.u8(..5) > 0)];
                let min_bytes = if rng.u8(..20) == 0 { 100 } else { 1 };
                let fetch = reader
                    .fetch(position)
                    .isolation(isolation)
                    .min_bytes(min_bytes)
                    .max_bytes([1, 300, 1 << 20][rng.usize(..3)])
                    .max_wait(Duration::from_millis(rng.u64(..2_000)));
                let result = match rng.u8(..4) {
                    0 => match tokio::time::timeout(Duration::from_millis(rng.u64(..50)), fetch).await {
                        Ok(result) => result,
                        Err(_) => continue,
                    },
                    1 => match fetch.ahead() {
                        Some(mut ahead) => match (&mut ahead).now_or_never() {
                            Some(result) => result,
                            None => {
                                sleep(Duration::from_millis(rng.u64(..300))).await;
                                if rng.bool() {
                                    continue;
                                }
                                ahead.await
                            }
                        },
                        None => continue,
                    },
                    _ => fetch.await,
                };
                let fetched = match result {
                    Ok(fetched) => fetched,
                    Err(error)
                        if error.is_retriable() || matches!(error.kind(), ErrorKind::MalformedResponse) =>
                    {
                        continue;
                    }
                    Err(error) => panic!("seed {seed}, partition {index}: {error:?}"),
                };
                assert_eq!(fetched.from, position.offset);
                for record in fetched.records() {
                    let record = record.unwrap();
                    let mut progress = progress.lock().unwrap();
                    assert_eq!(record.offset, progress[index], "seed {seed}, partition {index}");
                    assert_eq!(record.value.unwrap(), format!("{index}/{}", record.offset), "seed {seed}");
                    progress[index] += 1;
                }
                position = fetched.position();
                assert_eq!(position.offset, progress.lock().unwrap()[index]);
            }
        }));
    }
    let mut ends = vec![0_i64; PARTITIONS as usize];
    for _ in 0..150 {
        let index = rng.usize(..ends.len());
        let value = format!("{index}/{}", ends[index]);
        // What verifies an append may meet a fault.
        while let Err(error) = writers[index].produce(record(value.clone())).await {
            assert_eq!(error.outcome(), Outcome::NotApplied, "seed {seed}: {error:?}");
        }
        ends[index] += 1;
        let id = rng.i32(1..=3);
        let target = || FaultTarget::api(ApiKey::FETCH).broker(id);
        match rng.u8(..30) {
            0 => broker.on(target(), Fault::LoseReply),
            1 => broker.on(target(), Fault::Drop),
            2 => broker.on(target(), Fault::BlackHole),
            3 => broker.on(target(), Fault::Throttle(2 * SECOND)),
            4 => broker.on(target(), Fault::DelayReply(2 * SECOND)),
            5 => broker.on(target(), Fault::Garbage),
            6 => broker.on(target(), Fault::WrongCorrelationId),
            7 => broker.on(target(), Fault::CutReply(30)),
            8 => broker.on(target(), Fault::Error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)),
            9..=11 => {
                let partition = rng.i32(..PARTITIONS);
                drop(broker.move_leader("wide", partition, id));
            }
            12 => drop(broker.disconnect(id)),
            13 => {
                drop(broker.kill(id));
                sleep(Duration::from_millis(rng.u64(..3_000))).await;
                drop(broker.restart(id));
            }
            _ => sleep(Duration::from_millis(rng.u64(..100))).await,
        }
    }
    broker.clear_faults();
    *mangled.lock().unwrap() = None;
    sleep(60 * SECOND).await;
    for (index, task) in tasks.iter_mut().enumerate() {
        if task.is_finished() {
            panic!("seed {seed}, partition {index}: {:?}", task.await);
        }
    }
    assert_eq!(*progress.lock().unwrap(), ends, "seed {seed}");
    let before = wire.count(ApiKey::FETCH);
    sleep(10 * SECOND).await;
    println!("seed {seed}: {} requests in 10 s", wire.count(ApiKey::FETCH) - before);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    sleep(60 * SECOND).await;
    // Nothing is held any more.
    let ahead: Vec<_> = std::iter::from_fn(|| readers[0].fetch(0).max_bytes(1).ahead()).collect();
    let units = memory / KIB;
    assert_eq!(ahead.len(), (units - units.div_ceil(4)).max(1) / 2, "seed {seed}");
    drop(ahead);
    let all = timed(readers[0].reserve(memory.min(64 * KIB))).await;
    assert_eq!((all.0.is_ok(), all.1), (true, Duration::ZERO), "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn shared_fetches_survive_every_fault() {
    let seeds = std::env::var("BREAK_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(6);
    for seed in 0..seeds {
        let fetch = [17, 12, 11, 4, 16][seed as usize % 5];
        shared_storm(seed, fetch, [1, 2, 3, 64][seed as usize % 4]).await;
    }
}

/// A broker that accepts a single connection is not asked for others all the time.
#[tokio::test(start_paused = true)]
async fn a_broker_that_accepts_no_further_connection_is_asked_for_few() {
    let broker = wide(4);
    let wire = Wire::to(&broker);
    let one = Limits::default().max_connections_per_broker(1);
    let client = wire.builder().limits(one).build().await.unwrap();
    let readers = open_all(&client, 0..4).await;
    let tasks: Vec<_> = readers
        .iter()
        .cloned()
        .map(|reader| {
            tokio::spawn(async move {
                let mut position = Position::from(0);
                loop {
                    if let Ok(fetched) = reader.fetch(position).await {
                        position = fetched.position();
                    }
                }
            })
        })
        .collect();
    sleep(SECOND).await;
    broker.limit_connections(1, Some(1)).unwrap();
    broker.disconnect(1).unwrap();
    sleep(5 * SECOND).await;
    let host = broker.address(1).unwrap().host;
    let (attempts, requests) = (wire.attempts_at(&host), wire.count(ApiKey::FETCH));
    for _ in 0..100 {
        broker.append_raw("wide", 1, kwal_batch()).unwrap();
        sleep(SECOND / 10).await;
    }
    let (attempts, requests) = (wire.attempts_at(&host) - attempts, wire.count(ApiKey::FETCH) - requests);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(attempts <= 100, "{attempts} attempts to connect, {requests} requests in 10 s");
}

/// A batch of one record.
fn kwal_batch() -> bytes::Bytes {
    let mut builder = kwal_protocol::record::BatchBuilder::new(kwal_protocol::record::Compression::None);
    builder.push(1_700_000_000_000, None, Some(b"a"), &kwal_protocol::record::Headers::new());
    builder.finish().unwrap().to_bytes()
}
