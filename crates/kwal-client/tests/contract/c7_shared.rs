//! C7: many readers share connections and requests, and none waits for another.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use kwal_client::{Client, Limits, PartitionClient, error::ErrorKind};
use kwal_protocol::{
    api::{ApiKey, Versions},
    error_code::ErrorCode,
    messages::FetchRequest,
};
use kwal_testkit::{Dialect, EmbeddedCluster, Fault, FaultTarget, wire::Decision};
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use crate::support::{HOUR, Wire, builder, deadlines, polled, record, settle, timed};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// The time of a request and its response on the wire.
const ROUND_TRIP: Duration = Duration::from_millis(10);
/// The most that a fetch waits to become part of a long poll.
const INTERVAL: Duration = Duration::from_millis(20);

/// Partition clients that follow a topic, over a wire that takes time.
struct Followers {
    broker: EmbeddedCluster,
    wire: Wire,
    /// Of another client, whose wire takes no time.
    writers: Vec<PartitionClient>,
    /// The partition and offset of each record that was read, and when.
    read: mpsc::UnboundedReceiver<(i32, i64, Instant)>,
    tasks: Vec<AbortHandle>,
    client: Client,
}

impl Drop for Followers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn open_all(client: &Client, count: i32) -> Vec<PartitionClient> {
    let open = (0..count).map(|index| client.partition_client("wide", index).into_future());
    join_all(open).await.into_iter().map(Result::unwrap).collect()
}

/// Follows one partition, from offset 0 on. It takes a pause before it fetches again.
async fn follow(
    partition: PartitionClient,
    pause: Duration,
    read: mpsc::UnboundedSender<(i32, i64, Instant)>,
) {
    let mut position = 0.into();
    loop {
        let fetched = partition.fetch(position).await.unwrap();
        for record in fetched.records() {
            read.send((partition.partition(), record.unwrap().offset, Instant::now())).ok();
        }
        position = fetched.position();
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
}

impl Followers {
    async fn start(dialect: Dialect, count: i32, connections: usize) -> Self {
        Self::with_pause(dialect, count, connections, Duration::ZERO).await
    }

    async fn with_pause(dialect: Dialect, count: i32, connections: usize, pause: Duration) -> Self {
        let broker = EmbeddedCluster::builder().dialect(dialect).topic("wide", count);
        let broker = broker.start_in_memory().unwrap();
        let wire = Wire::to(&broker);
        let limits = Limits::default().max_connections_per_broker(connections);
        let client = wire.builder().limits(limits).build().await.unwrap();
        let partitions = open_all(&client, count).await;
        wire.on_request(|_| Decision::Delay(ROUND_TRIP / 2));
        wire.on_response(|_| Decision::Delay(ROUND_TRIP / 2));
        let writer = builder(&broker).build().await.unwrap();
        let writers = open_all(&writer, count).await;
        let (send, read) = mpsc::unbounded_channel();
        let spawn = |partition| tokio::spawn(follow(partition, pause, send.clone())).abort_handle();
        let tasks = partitions.into_iter().map(spawn).collect();
        // Their waits fall into step.
        sleep(3 * SECOND).await;
        Self { broker, wire, writers, read, tasks, client }
    }

    /// Appends to a partition. Returns how long it takes until that is read.
    async fn latency(&mut self, partition: usize) -> Duration {
        let produced = self.writers[partition].produce(record("a")).await.unwrap();
        let begun = Instant::now();
        let expected = (partition as i32, produced.base_offset.unwrap());
        loop {
            let (partition, offset, at) = self.read.recv().await.unwrap();
            if (partition, offset) == expected {
                return at - begun;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_followers_share_connections_and_requests() {
    const N: usize = 16;
    let mut followers = Followers::start(Dialect::kafka_4_3(), 1_000, N).await;
    let (_, most) = followers.wire.open();
    assert!(most <= 2 * N + 1, "{most}");
    // What they cost while nobody appends.
    let before = followers.wire.count(ApiKey::FETCH);
    sleep(10 * SECOND).await;
    let requests = followers.wire.count(ApiKey::FETCH) - before;
    println!("{most} connections, {requests} requests in 10 s");
    assert!(requests <= N * 2 * 10, "{requests}");

    let (mut idle, mut again) = (Duration::ZERO, Duration::ZERO);
    for partition in (0..1_000).step_by(7) {
        idle = idle.max(followers.latency(partition).await);
        for pause in [0, 1, 7, 30] {
            sleep(pause * MS).await;
            again = again.max(followers.latency(partition).await);
        }
        sleep(Duration::from_millis(13)).await;
    }
    println!("idle {idle:?}, right after a read {again:?}");
    // The response before it may be on its way.
    assert!(idle <= ROUND_TRIP * 3 / 2, "{idle:?}");
    assert!(again <= ROUND_TRIP * 3 / 2, "{again:?}");
    let (_, most) = followers.wire.open();
    assert!(most <= 2 * N + 1, "{most}");
}

#[tokio::test(start_paused = true)]
async fn followers_that_take_their_time_keep_their_places() {
    const PAUSE: Duration = Duration::from_millis(15);
    const N: usize = 4;
    let mut followers = Followers::with_pause(Dialect::kafka_4_3(), 100, N, PAUSE).await;
    let before = followers.wire.count(ApiKey::FETCH);
    sleep(10 * SECOND).await;
    let requests = followers.wire.count(ApiKey::FETCH) - before;
    println!("{requests} requests in 10 s");
    assert!(requests <= N * 2 * 10, "{requests}");
    let (mut idle, mut again) = (Duration::ZERO, Duration::ZERO);
    for partition in 0..100 {
        idle = idle.max(followers.latency(partition).await);
        for pause in [0, 1, 20, 30] {
            sleep(pause * MS).await;
            again = again.max(followers.latency(partition).await);
        }
        sleep(Duration::from_millis(113)).await;
    }
    println!("idle {idle:?}, right after a read {again:?}");
    // Nobody waits for the record in the pause, and then it is asked for.
    assert!(idle <= ROUND_TRIP * 2 + PAUSE, "{idle:?}");
    assert!(again <= ROUND_TRIP + PAUSE + INTERVAL, "{again:?}");
}

/// Follows with some appends. Returns when each request was made, on which connection.
async fn history() -> Vec<(Duration, usize, ApiKey)> {
    let begun = Instant::now();
    let mut followers = Followers::with_pause(Dialect::kafka_4_3(), 50, 3, 2 * MS).await;
    for round in 0..50 {
        sleep(round as u32 % 7 * MS).await;
        followers.latency(round * 7 % 50).await;
    }
    followers.wire.all().into_iter().map(|seen| (seen.at - begun, seen.connection, seen.api)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_asks_in_the_same_order() {
    let (one, other) = (history().await, history().await);
    assert!(one.len() > 100, "{}", one.len());
    assert_eq!(one, other);
}

#[tokio::test(start_paused = true)]
async fn an_idle_partition_is_read_at_once_while_others_are_busy() {
    let mut followers = Followers::start(Dialect::kafka_4_3(), 200, 4).await;
    let busy: Vec<_> = followers.writers[100..].to_vec();
    let appends = tokio::spawn(async move {
        for round in 0.. {
            sleep(3 * MS).await;
            let partition = &busy[round * 37 % busy.len()];
            partition.produce(record("busy")).await.unwrap();
        }
    });
    let mut worst = Duration::ZERO;
    for partition in 0..100 {
        sleep(29 * MS).await;
        worst = worst.max(followers.latency(partition).await);
    }
    appends.abort();
    println!("{worst:?}");
    // The response before it may be on its way.
    assert!(worst <= ROUND_TRIP * 3 / 2, "{worst:?}");
}

#[tokio::test(start_paused = true)]
async fn no_reader_waits_for_the_long_poll_of_another() {
    for dialect in [Dialect::kafka_4_3(), Dialect::kafka_4_3().cap(ApiKey::FETCH, Versions::new(4, 4))] {
        for (alone, min_bytes) in [(false, 1), (true, 1_000)] {
            let broker = EmbeddedCluster::builder().dialect(dialect.clone()).topic("wide", 3);
            let broker = broker.start_in_memory().unwrap();
            let limits = Limits::default().max_connections_per_broker(1);
            let client = builder(&broker).limits(limits).build().await.unwrap();
            let first = client.partition_client("wide", 0).await.unwrap();
            first.produce(record("a")).await.unwrap();
            first.fetch(0).await.unwrap();
            // Sent alone, also because nobody shares the connection yet.
            let polls = async |partition: &PartitionClient| {
                let fetch = partition.fetch(1).min_bytes(min_bytes).max_wait(20 * SECOND);
                timed(fetch).await
            };
            let mut long = pin!(polls(&first));
            if alone {
                assert!((&mut long).now_or_never().is_none());
                settle().await;
            }
            let others = [1, 2].map(|index| client.partition_client("wide", index).into_future());
            let others: Vec<_> = join_all(others).await.into_iter().map(Result::unwrap).collect();
            if !alone {
                assert!((&mut long).now_or_never().is_none());
                settle().await;
            }
            for other in &others {
                other.produce(record("b")).await.unwrap();
                let (fetched, took) = timed(other.fetch(0)).await;
                assert_eq!((fetched.unwrap().next_offset, took), (1, Duration::ZERO));
                let (fetched, took) = timed(other.fetch(1).max_wait(Duration::ZERO)).await;
                assert_eq!((fetched.unwrap().next_offset, took), (1, Duration::ZERO));
                let (fetched, took) = timed(other.fetch(1).max_wait(SECOND)).await;
                assert_eq!(fetched.unwrap().next_offset, 1);
                assert!(took >= SECOND / 2 && took <= SECOND, "{took:?}");
                let wait = tokio::spawn({
                    let other = other.clone();
                    async move { timed(other.fetch(1).max_wait(20 * SECOND)).await }
                });
                sleep(5 * SECOND).await;
                other.produce(record("c")).await.unwrap();
                let (fetched, took) = wait.await.unwrap();
                assert_eq!(fetched.unwrap().next_offset, 2);
                assert!(took <= 5 * SECOND + INTERVAL, "{took:?}");
            }
            if min_bytes == 1 {
                first.produce(record("d")).await.unwrap();
                assert_eq!(long.await.0.unwrap().next_offset, 2);
            } else {
                let (fetched, took) = long.await;
                assert_eq!((fetched.unwrap().next_offset, took), (1, 20 * SECOND));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_record_is_read_once_and_in_order_by_brokers_of_any_age() {
    for dialect in [
        Dialect::kafka_4_3(),
        Dialect::kafka_2_8(),
        Dialect::kafka_4_3().cap(ApiKey::FETCH, Versions::new(0, 12)),
        Dialect::kafka_4_3().cap(ApiKey::FETCH, Versions::new(0, 4)),
    ] {
        let mut followers = Followers::start(dialect, 60, 3).await;
        let mut expected = vec![0_i64; 60];
        for round in 0..600_usize {
            let partition = round * 7 % 60;
            let produced = followers.writers[partition].produce(record("a")).await.unwrap();
            assert_eq!(produced.base_offset, Some(expected[partition]));
            expected[partition] += 1;
            sleep(round as u32 % 5 * MS).await;
        }
        sleep(SECOND).await;
        let mut read = vec![0_i64; 60];
        while let Ok((partition, offset, _)) = followers.read.try_recv() {
            assert_eq!(offset, read[partition as usize]);
            read[partition as usize] += 1;
        }
        assert_eq!(read, expected);
    }
}

/// Opens partitions of a client with one connection for fetches, a record in each.
async fn sharing(wire: &Wire, broker: &EmbeddedCluster, count: i32) -> Vec<PartitionClient> {
    let writers = open_all(&builder(broker).build().await.unwrap(), count).await;
    for writer in &writers {
        writer.produce(record("a")).await.unwrap();
    }
    let limits = Limits::default().max_connections_per_broker(1);
    open_all(&wire.builder().limits(limits).build().await.unwrap(), count).await
}

fn wide(count: i32) -> EmbeddedCluster {
    EmbeddedCluster::builder().topic("wide", count).start_in_memory().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_response_without_room_for_a_partition_is_not_empty() {
    let broker = wide(20);
    let wire = Wire::to(&broker);
    let readers = sharing(&wire, &broker, 20).await;
    let fetches = readers.iter().map(|reader| reader.fetch(0).max_bytes(1).max_wait(Duration::ZERO));
    let fetched = join_all(fetches.map(IntoFuture::into_future)).await;
    assert!(fetched.into_iter().all(|fetched| fetched.unwrap().next_offset == 1));
    assert!(wire.count(ApiKey::FETCH) >= 20, "one batch each");
    // With room for all, they are in one response.
    let before = wire.count(ApiKey::FETCH);
    let fetched = join_all(readers.iter().map(|reader| reader.fetch(0).into_future())).await;
    assert!(fetched.into_iter().all(|fetched| fetched.unwrap().next_offset == 1));
    assert!(wire.count(ApiKey::FETCH) - before <= 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_that_of_its_partition() {
    let broker = wide(4);
    let wire = Wire::to(&broker);
    let readers = sharing(&wire, &broker, 4).await;
    broker.delete_records("wide", 1, 1).unwrap();
    let results = join_all(
        [0, 0, 9, 0].into_iter().zip(&readers).map(|(offset, reader)| reader.fetch(offset).into_future()),
    );
    let results = results.await;
    let kind =
        |index: usize| results[index].as_ref().map(|fetched| fetched.next_offset).map_err(|e| e.kind());
    assert!(matches!(kind(0), Ok(1)), "{results:?}");
    assert!(matches!(kind(1), Err(ErrorKind::Trimmed { .. })), "{results:?}");
    assert!(matches!(kind(2), Err(ErrorKind::BeyondEnd { .. })), "{results:?}");
    assert!(matches!(kind(3), Ok(1)), "{results:?}");
}

#[tokio::test(start_paused = true)]
async fn a_malformed_part_of_a_response_is_that_of_its_partition() {
    type Edit = fn(&mut Vec<kwal_protocol::messages::FetchPartitionResponse>);
    let (missing, repeated, foreign): (Edit, Edit, Edit) = (
        |partitions| partitions.retain(|partition| partition.partition_index != 1),
        |partitions| {
            let again = partitions.iter().find(|partition| partition.partition_index == 1).cloned();
            partitions.extend(again);
        },
        |partitions| {
            for partition in partitions.iter_mut().filter(|partition| partition.partition_index == 1) {
                partition.partition_index = 77;
            }
        },
    );
    for edit in [missing, repeated, foreign] {
        let broker = wide(4);
        let wire = Wire::to(&broker);
        let readers = sharing(&wire, &broker, 4).await;
        wire.edit::<FetchRequest>(move |response| {
            response.responses.iter_mut().for_each(|topic| edit(&mut topic.partitions));
        });
        let fetches = readers.iter().map(|reader| reader.fetch(0).deadline(SECOND).into_future());
        let results = join_all(fetches).await;
        for (index, result) in results.iter().enumerate() {
            match index {
                1 => assert!(
                    matches!(result.as_ref().unwrap_err().kind(), ErrorKind::MalformedResponse),
                    "{result:?}"
                ),
                _ => assert_eq!(result.as_ref().unwrap().next_offset, 1),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_whole_response_is_that_of_all() {
    let broker = wide(4);
    let wire = Wire::to(&broker);
    let readers = sharing(&wire, &broker, 4).await;
    let codes = Arc::new(Mutex::new(vec![ErrorCode::FETCH_SESSION_ID_NOT_FOUND]));
    wire.edit::<FetchRequest>(move |response| {
        if let Some(code) = codes.lock().unwrap().pop() {
            (response.error_code, response.responses) = (code, Vec::new());
        }
    });
    // It is retried.
    let fetched = join_all(readers.iter().map(|reader| reader.fetch(0).into_future())).await;
    assert!(fetched.iter().all(|fetched| fetched.as_ref().unwrap().next_offset == 1), "{fetched:?}");
    // So is a lost response.
    wire.clear_edits();
    broker.on(ApiKey::FETCH, Fault::LoseReply);
    let fetched = join_all(readers.iter().map(|reader| reader.fetch(0).into_future())).await;
    assert!(fetched.iter().all(|fetched| fetched.as_ref().unwrap().next_offset == 1), "{fetched:?}");
}

#[tokio::test(start_paused = true)]
async fn one_partition_follows_its_leader_while_the_others_stay() {
    let broker = EmbeddedCluster::builder().brokers(3).topic("wide", 9).start_in_memory().unwrap();
    let wire = Wire::to(&broker);
    let readers = sharing(&wire, &broker, 9).await;
    let waits = readers.iter().map(|reader| {
        let reader = reader.clone();
        tokio::spawn(async move { timed(reader.fetch(1).max_wait(20 * SECOND)).await })
    });
    let waits: Vec<_> = waits.collect();
    sleep(SECOND).await;
    let to = broker.brokers().into_iter().find(|id| broker.leader("wide", 0).unwrap() != Some(*id)).unwrap();
    broker.move_leader("wide", 0, to).unwrap();
    sleep(SECOND).await;
    let writers = open_all(&builder(&broker).build().await.unwrap(), 9).await;
    for writer in &writers {
        writer.produce(record("b")).await.unwrap();
    }
    for wait in waits {
        let (fetched, took) = wait.await.unwrap();
        assert_eq!(fetched.unwrap().next_offset, 2);
        assert!(took < 3 * SECOND, "{took:?}");
    }
}

/// Nobody polls one fetch when the leader dies, so it does not end, and was not combined with the other one.
#[tokio::test(start_paused = true)]
async fn a_fetch_goes_on_at_the_next_leader_beside_one_that_is_not_polled() {
    let broker = EmbeddedCluster::builder().brokers(3).topic("wide", 1).start_in_memory().unwrap();
    let wire = Wire::to(&broker);
    let reader = sharing(&wire, &broker, 1).await.remove(0);
    let mut idle = pin!(reader.fetch(1).max_wait(20 * SECOND).into_future());
    assert!(timeout(SECOND, &mut idle).await.is_err());
    let wait = tokio::spawn({
        let reader = reader.clone();
        async move { reader.fetch(1).max_wait(20 * SECOND).await }
    });
    sleep(SECOND).await;
    broker.kill(broker.leader("wide", 0).unwrap().unwrap()).unwrap();
    sleep(SECOND).await;
    let writers = open_all(&builder(&broker).build().await.unwrap(), 1).await;
    writers[0].produce(record("b")).await.unwrap();
    let (fetched, took) = timed(wait).await;
    assert_eq!(fetched.unwrap().unwrap().next_offset, 2);
    assert!(took < SECOND, "{took:?}");
    assert_eq!(idle.await.unwrap().next_offset, 2);
}

#[tokio::test(start_paused = true)]
async fn the_same_partition_may_be_read_by_many_at_once() {
    let broker = wide(2);
    let wire = Wire::to(&broker);
    let limits = Limits::default().max_connections_per_broker(1);
    let client = wire.builder().limits(limits).build().await.unwrap();
    let open = (0..10).map(|index| client.partition_client("wide", index % 2).into_future());
    let readers: Vec<_> = join_all(open).await.into_iter().map(Result::unwrap).collect();
    let waits = readers.iter().map(|reader| timed(reader.fetch(0).max_wait(20 * SECOND)));
    let append = async {
        sleep(3 * SECOND).await;
        for reader in &readers[..2] {
            reader.produce(record("a")).await.unwrap();
        }
    };
    let (fetched, ()) = tokio::join!(join_all(waits), append);
    for (fetched, took) in fetched {
        assert_eq!(fetched.unwrap().next_offset, 1);
        assert!(took >= 3 * SECOND && took <= 3 * SECOND + INTERVAL, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttle_delays_the_next_request_and_nothing_is_asked_elsewhere() {
    let broker = wide(4);
    let wire = Wire::to(&broker);
    let readers = sharing(&wire, &broker, 4).await;
    broker.on(ApiKey::FETCH, Fault::Throttle(5 * SECOND));
    let fetched = join_all(readers.iter().map(|reader| timed(reader.fetch(0)))).await;
    assert!(fetched.iter().all(|(fetched, _)| fetched.as_ref().unwrap().next_offset == 1));
    let before = wire.count(ApiKey::FETCH);
    let first = tokio::spawn({
        let reader = readers[0].clone();
        async move { timed(reader.fetch(0)).await }
    });
    let (fetched, took) = timed(readers[1].fetch(0)).await;
    assert_eq!(fetched.unwrap().next_offset, 1);
    assert!(took >= 4 * SECOND && took <= 6 * SECOND, "{took:?}");
    first.await.unwrap().0.unwrap();
    assert!(wire.count(ApiKey::FETCH) - before <= 2);
    // What ends before the throttle does is not sent.
    broker.on(ApiKey::FETCH, Fault::Throttle(5 * SECOND));
    readers[0].fetch(0).await.unwrap();
    let (error, took) = timed(readers[1].fetch(0).deadline(SECOND)).await;
    let error = error.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Throttled { .. }), "{error:?}");
    assert!(took < SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_answer_ends_calls_at_their_deadlines() {
    let broker = wide(4);
    let wire = Wire::to(&broker);
    let readers = sharing(&wire, &broker, 4).await;
    broker.on_all(ApiKey::FETCH, Fault::DelayReply(HOUR));
    let results = join_all(readers.iter().map(|reader| timed(reader.fetch(0)))).await;
    for (error, took) in results {
        error.unwrap_err();
        assert!(took <= deadlines().operation, "{took:?}");
    }
    broker.clear_faults();
    let fetched = join_all(readers.iter().map(|reader| reader.fetch(0).into_future())).await;
    assert!(fetched.iter().all(|fetched| fetched.as_ref().unwrap().next_offset == 1), "{fetched:?}");
}

#[tokio::test(start_paused = true)]
async fn fetches_dropped_at_any_time_leave_the_others_alone() {
    for fault in [None, Some(Fault::LoseReply), Some(Fault::DelayReply(SECOND)), Some(Fault::Drop)] {
        for polls in 0..6 {
            let broker = wide(4);
            let wire = Wire::to(&broker);
            let readers = sharing(&wire, &broker, 4).await;
            if let Some(fault) = fault {
                broker.on(FaultTarget::api(ApiKey::FETCH), fault);
            }
            let waits = tokio::spawn({
                let reader = readers[3].clone();
                async move { timed(reader.fetch(1).max_wait(20 * SECOND)).await }
            });
            settle().await;
            for reader in &readers[..3] {
                for turns in 0..4 {
                    let dropped = tokio::spawn({
                        let reader = reader.clone();
                        async move { polled(reader.fetch(1), polls).await.is_some() }
                    });
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                    dropped.abort();
                }
            }
            let (fetched, took) = timed(readers[0].fetch(0)).await;
            assert_eq!(fetched.unwrap().next_offset, 1);
            assert!(took < 2 * SECOND, "{took:?}");
            readers[3].produce(record("b")).await.unwrap();
            assert_eq!(waits.await.unwrap().0.unwrap().next_offset, 2);
            drop(readers);
            settle().await;
            assert_eq!(wire.open().0, 0, "{fault:?}, {polls} polls");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_closed_with_the_last_follower() {
    let mut followers = Followers::start(Dialect::kafka_4_3(), 40, 2).await;
    assert_eq!(followers.wire.open().0, 3);
    for task in followers.tasks.drain(..) {
        task.abort();
    }
    // The wire takes its time.
    sleep(2 * ROUND_TRIP).await;
    assert_eq!(followers.wire.open().0, 1, "only the general one is left");
    followers.client.close().await;
    sleep(2 * ROUND_TRIP).await;
    assert_eq!(followers.wire.open().0, 0);
    assert!(followers.broker.requests(ApiKey::FETCH) > 0);
}
