//! C1, C2 and C3 while leaders move and brokers stop and start, on a cluster of three.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use futures::future::join_all;
use kwal_client::{Client, Limits, OffsetAt, PartitionClient, RetryPolicy};
use kwal_protocol::api::ApiKey;
use kwal_testkit::{EmbeddedCluster, Fault};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::support::{Wire, builder, deadlines, record, settle, timed};

const BROKERS: [i32; 3] = [1, 2, 3];
/// The session timeout of brokers: how long the controller waits for a broker that was killed.
const SESSION: Duration = Duration::from_secs(9);

fn cluster(partitions: i32) -> Arc<EmbeddedCluster> {
    let cluster = EmbeddedCluster::builder().seed(5).brokers(3).topic("wal", partitions);
    Arc::new(cluster.start_in_memory().unwrap())
}

async fn open_all(client: &Client, partitions: i32) -> Vec<PartitionClient> {
    join_all((0..partitions).map(async |i| client.partition_client("wal", i).await.unwrap())).await
}

/// Returns an in-sync replica that is not the leader.
fn follower(cluster: &EmbeddedCluster, partition: i32) -> i32 {
    let leader = cluster.leader("wal", partition).unwrap();
    *cluster.in_sync("wal", partition).unwrap().iter().find(|id| Some(**id) != leader).unwrap()
}

/// The values appended to one partition, and the duration of the longest append.
struct Appended {
    values: Vec<String>,
    longest: Duration,
}

/// Appends to a partition until a time, a few values at once. Panics if one fails.
fn keep_appending(partition: &PartitionClient, until: Instant) -> JoinHandle<Appended> {
    let partition = partition.clone();
    tokio::spawn(async move {
        let mut appended = Appended { values: Vec::new(), longest: Duration::ZERO };
        while Instant::now() < until {
            let values: Vec<_> = (0..3).map(|i| format!("{}", appended.values.len() + i)).collect();
            let appends = values.iter().map(|value| timed(partition.produce(record(value.clone()))));
            for (produced, took) in join_all(appends).await {
                produced.unwrap();
                appended.longest = appended.longest.max(took);
            }
            appended.values.extend(values);
            sleep(Duration::from_millis(100)).await;
        }
        appended
    })
}

/// Waits for the appends, and asserts that each is on the log once and in order. Returns the duration of the
/// longest one.
async fn assert_all_appended(cluster: &EmbeddedCluster, appending: Vec<JoinHandle<Appended>>) -> Duration {
    let mut longest = Duration::ZERO;
    for (partition, appending) in (0..).zip(appending) {
        let appended = appending.await.unwrap();
        let records = cluster.records("wal", partition).unwrap().into_iter();
        let values: Vec<_> =
            records.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()).collect();
        assert_eq!(values, appended.values, "partition {partition}");
        assert!(values.len() > 100, "{}", values.len());
        longest = longest.max(appended.longest);
    }
    longest
}

#[tokio::test(start_paused = true)]
async fn a_leader_move_takes_no_time_and_no_metadata_request() {
    let cluster = cluster(2);
    let client = builder(&cluster).build().await.unwrap();
    let (one, other) =
        (client.partition_client("wal", 0).await.unwrap(), client.partition_client("wal", 1).await.unwrap());
    one.produce(record("a")).await.unwrap();
    other.produce(record("a")).await.unwrap();
    one.fetch(0).await.unwrap();
    let requests = cluster.requests(ApiKey::METADATA);
    for step in 0..10 {
        let to = follower(&cluster, 0);
        cluster.move_leader("wal", 0, to).unwrap();
        // The first call that reaches the former leader learns the new one for both.
        let work = async {
            match step % 2 {
                0 => assert_eq!(one.produce(record("b")).await.unwrap().attempts, 2),
                _ => drop(one.fetch(0).await.unwrap()),
            }
            assert_eq!(one.produce(record("b")).await.unwrap().attempts, 1);
            one.fetch(0).await.unwrap();
        };
        assert_eq!(timed(work).await.1, Duration::ZERO, "{step}");
        assert_eq!(other.produce(record("b")).await.unwrap().attempts, 1);
    }
    assert_eq!(cluster.requests(ApiKey::METADATA), requests);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_at_a_former_leader_continues_at_the_new_one() {
    let cluster = cluster(1);
    let client = builder(&cluster).build().await.unwrap();
    let (reader, writer) =
        (client.partition_client("wal", 0).await.unwrap(), client.partition_client("wal", 0).await.unwrap());
    let fetch = tokio::spawn(async move { timed(reader.fetch(0).max_wait(Duration::from_secs(30))).await });
    sleep(Duration::from_secs(1)).await;
    cluster.move_leader("wal", 0, follower(&cluster, 0)).unwrap();
    sleep(Duration::from_secs(1)).await;
    writer.produce(record("a")).await.unwrap();
    let (fetched, took) = fetch.await.unwrap();
    assert_eq!((fetched.unwrap().next_offset, took), (1, Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn stale_metadata_of_one_broker_misleads_no_call() {
    // Broker 2 is not a replica: with stale metadata it would not know which leader to follow, and delay
    // appends.
    let cluster = EmbeddedCluster::builder().seed(5).brokers(3);
    let cluster = cluster.topic_assigned("wal", &[&[1, 3]]).start_in_memory().unwrap();
    let client = builder(&cluster).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("a")).await.unwrap();
    cluster.hold_metadata(2).unwrap();
    for _ in 0..20 {
        let to = if cluster.leader("wal", 0).unwrap() == Some(3) { 1 } else { 3 };
        cluster.move_leader("wal", 0, to).unwrap();
        let (produced, took) = timed(partition.produce(record("b"))).await;
        assert_eq!((produced.unwrap().attempts, took), (2, Duration::ZERO));
        // These may reach the broker with stale metadata.
        client.list_topics().await.unwrap();
        client.controller_client().await.unwrap();
        let opened = client.partition_client("wal", 0).await.unwrap();
        assert_eq!(opened.produce(record("c")).await.unwrap().attempts, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn leaders_move_during_appends_with_lost_responses() {
    for seed in 0..5 {
        let cluster = cluster(4);
        let client = builder(&cluster).seed(seed).build().await.unwrap();
        let partitions = open_all(&client, 4).await;
        let until = Instant::now() + Duration::from_secs(20);
        let appending = partitions.iter().map(|partition| keep_appending(partition, until)).collect();
        let mut rng = Rng::with_seed(seed);
        while Instant::now() < until {
            sleep(Duration::from_millis(rng.u64(1..200))).await;
            let partition = rng.i32(0..4);
            cluster.move_leader("wal", partition, follower(&cluster, partition)).unwrap();
            match rng.u8(..6) {
                0 => cluster.on(ApiKey::PRODUCE, Fault::LoseReply),
                1 => cluster.on(ApiKey::PRODUCE, Fault::Drop),
                2 => cluster.on(ApiKey::METADATA, Fault::LoseReply),
                3 => cluster.disconnect(rng.i32(1..4)).unwrap(),
                _ => {}
            }
        }
        cluster.clear_faults();
        let longest = assert_all_appended(&cluster, appending).await;
        assert!(longest < Duration::from_secs(1), "seed {seed}: {longest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn brokers_are_restarted_one_by_one_during_appends() {
    enum End {
        Ordered,
        Killed,
        Paused,
    }
    for (end, limit) in [
        (End::Ordered, Duration::from_millis(200)),
        // One pause before the metadata is refreshed, and one more if it was refreshed in the meantime.
        (End::Killed, SESSION + 2 * RetryPolicy::default().max),
        // A request without a response takes its time limit, unless the broker is retired earlier.
        (End::Paused, deadlines().request + Duration::from_millis(500)),
    ] {
        let cluster = cluster(3);
        let client = builder(&cluster).build().await.unwrap();
        let partitions = open_all(&client, 3).await;
        let until = Instant::now() + Duration::from_secs(80);
        let appending = partitions.iter().map(|partition| keep_appending(partition, until)).collect();
        for broker in BROKERS {
            sleep(Duration::from_secs(5)).await;
            match end {
                End::Ordered => cluster.stop(broker).unwrap(),
                End::Killed => cluster.kill(broker).unwrap(),
                End::Paused => cluster.pause(broker).unwrap(),
            }
            sleep(Duration::from_secs(20)).await;
            match end {
                End::Paused => cluster.resume(broker).unwrap(),
                _ => cluster.restart(broker).unwrap(),
            }
        }
        let longest = assert_all_appended(&cluster, appending).await;
        println!("the longest append took {longest:?}");
        assert!(longest <= limit, "{longest:?} of {limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_or_paused_broker_delays_only_its_own_partitions() {
    for pause in [false, true] {
        // Broker 2 follows no other partition: those would wait for it until it leaves the in-sync replicas.
        let cluster = EmbeddedCluster::builder().seed(5).brokers(3);
        let cluster = cluster.topic_assigned("wal", &[&[1, 3], &[2, 3], &[3, 1]]).start_in_memory().unwrap();
        let client = builder(&cluster).build().await.unwrap();
        let partitions = open_all(&client, 3).await;
        for partition in &partitions {
            partition.produce(record("a")).await.unwrap();
        }
        let down = cluster.leader("wal", 1).unwrap().unwrap();
        match pause {
            true => cluster.pause(down).unwrap(),
            false => cluster.kill(down).unwrap(),
        }
        let (took, ()) = tokio::join!(async { timed(partitions[1].produce(record("a"))).await }, async {
            for _ in 0..50 {
                for partition in [&partitions[0], &partitions[2]] {
                    let (_, took) = timed(async {
                        partition.produce(record("a")).await.unwrap();
                        partition.fetch(0).await.unwrap();
                        partition.get_offset(OffsetAt::Latest).await.unwrap();
                    })
                    .await;
                    assert_eq!(took, Duration::ZERO);
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
        took.0.unwrap();
        assert!(took.1 <= deadlines().request + Duration::from_millis(200), "{:?}", took.1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_partitions_share_a_few_connections_to_each_broker_while_leaders_move() {
    let cluster = cluster(1000);
    let wire = Wire::to(&cluster);
    let limit = Limits::default().max_connections_per_broker;
    let client = wire.client().await;
    let partitions = open_all(&client, 1000).await;
    let work = async || {
        let work = partitions.iter().map(async |partition| {
            partition.produce(record("a")).await.unwrap();
            partition.fetch(0).await.unwrap();
        });
        join_all(work).await;
    };
    work().await;
    let counted = |text: &str| {
        for broker in BROKERS {
            let counted = cluster.connections_to(broker).unwrap();
            assert!(counted.most_open <= 2 * limit + 1, "{text}: broker {broker}: {counted:?}");
        }
        BROKERS.map(|broker| cluster.connections_to(broker).unwrap().open)
    };
    assert!(counted("at first").iter().all(|open| *open >= 2 * limit));
    for to in [1, 3] {
        for partition in 0..1000 {
            cluster.move_leader("wal", partition, to).unwrap();
        }
        work().await;
        settle().await;
        let open = counted("moved");
        assert!(open[to as usize - 1] >= 2 * limit, "{open:?}");
        assert!(open.iter().sum::<usize>() <= 2 * limit + 3, "{open:?}");
    }
    drop(partitions);
    settle().await;
    assert!(counted("dropped").iter().all(|open| *open <= 1));
}
