//! Several brokers: connections to each, and that a slow one does not delay the others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kwal_client::record::Record;
use kwal_client::{ClientBuilder, Limits, PartitionClient};
use kwal_protocol::api::ApiKey;
use kwal_testkit::wire::Wire;
use kwal_tests::kafka::{ClusterConfig, Kafka, Version};
use kwal_transport::Tcp;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::raw::Broker;

kwal_tests::suite! {
    own: [connections_are_shared, a_waiting_append_delays_no_other_partition, rejections_name_the_new_leader],
}

/// Runs a thousand partition clients that append and read at the same time.
async fn connections_are_shared(version: Version) {
    const CLIENTS: i32 = 1_000;
    const PARTITIONS: i32 = 30;
    let kafka = three_nodes(version, &[]);
    let topic = kafka.topic("shared", PARTITIONS, &[]).await;
    for pool_size in [Limits::default().max_connections_per_broker, 2] {
        let limits = Limits::default().max_connections_per_broker(pool_size);
        let client = ClientBuilder::new(kafka.bootstrap()).limits(limits).build().await.unwrap();
        let mut clients = JoinSet::new();
        for index in 0..CLIENTS {
            let (client, topic) = (client.clone(), topic.clone());
            clients.spawn(async move {
                let partition = client.partition_client(&topic, index % PARTITIONS).await.unwrap();
                let produced = partition.produce(vec![Record::new(None::<&str>, "x")]).await.unwrap();
                partition.fetch(produced.base_offset.unwrap()).await.unwrap();
                partition
            });
        }
        let clients = clients.join_all().await;
        assert_eq!(clients.len(), 1_000);
        // `pool_size` for appends, as many for fetches, and one for short requests.
        let limit = 2 * pool_size + 1;
        let mut counts = connections(&kafka);
        let settled = Instant::now() + Duration::from_secs(20);
        // On a slow machine there may be a further connection to a bootstrap address, until a broker has
        // responded.
        while counts.iter().any(|count| *count > limit) && Instant::now() < settled {
            tokio::time::sleep(Duration::from_millis(20)).await;
            counts = connections(&kafka);
        }
        kwal_tests::report(format_args!(
            "{version}: {CLIENTS} partition clients, at most {pool_size} connections: {counts:?} to the brokers"
        ));
        assert!(
            counts.iter().all(|count| (1..=limit).contains(count)),
            "{counts:?} with a limit of {pool_size}"
        );
        drop((clients, client));
        // Unused connections are closed.
        while connections(&kafka).iter().any(|count| *count > 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Suspends a follower, and thereby every append that waits for it. Other appends on the same leader are not
/// delayed.
async fn a_waiting_append_delays_no_other_partition(version: Version) {
    const OTHERS: i32 = 6;
    // The follower stays in sync for the duration of the test.
    let kafka = three_nodes(version, &[("broker.session.timeout.ms", "60000")]);
    let topic = kafka.topic_name("waiting");
    let client = ClientBuilder::new(kafka.bootstrap()).build().await.unwrap();
    let mut assignment = vec![vec![1, 3]];
    assignment.extend((0..OTHERS).map(|_| vec![1, 2]));
    let controller = client.controller_client().await.unwrap();
    controller.create_topic(&topic, -1, -1).assignment(assignment).await.unwrap();

    let waiting = client.partition_client(&topic, 0).await.unwrap();
    waiting.produce(vec![Record::new(None::<&str>, "before")]).await.unwrap();
    let mut others = Vec::new();
    for partition in 1..=OTHERS {
        others.push(client.partition_client(&topic, partition).await.unwrap());
    }
    let before = median_latency(&others).await;

    let follower = Arc::clone(kafka.cluster().unwrap().node(3));
    follower.pause().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let append = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let produced = waiting.produce(vec![Record::new(None::<&str>, "waits")]).await;
            done.store(true, Ordering::Relaxed);
            produced
        }
    });
    let meanwhile = median_latency(&others).await;
    assert!(!done.load(Ordering::Relaxed), "the append has not waited");
    follower.resume().unwrap();
    assert_eq!(append.await.unwrap().unwrap().base_offset, Some(1));
    kwal_tests::report(format_args!(
        "{version}: half of the appends take up to {before:.1?}, and {meanwhile:.1?} while another partition waits"
    ));
    // After the waiting append on the same connection, they would take two seconds.
    assert!(meanwhile < 2 * before + Duration::from_millis(100), "{meanwhile:?} instead of {before:?}");
}

/// A leader moves, and its rejection contains the new leader (KIP-951), so that metadata is not refreshed.
async fn rejections_name_the_new_leader(version: Version) {
    let kafka = three_nodes(version, &[("auto.leader.rebalance.enable", "false")]);
    let topic = kafka.topic_name("moving");
    let wire = Wire::new(Tcp::default());
    let client = ClientBuilder::new(kafka.bootstrap()).connector(wire.clone()).build().await.unwrap();
    let controller = client.controller_client().await.unwrap();
    controller.create_topic(&topic, -1, -1).assignment(vec![vec![1, 2, 3]]).await.unwrap();
    let partition = client.partition_client(&topic, 0).await.unwrap();
    let append = async || partition.produce(vec![Record::new(None::<&str>, "x")]).await.unwrap();
    append().await;

    move_leader(&kafka, &topic, &[2, 1, 3]).await;
    let refreshes = wire.requests(ApiKey::METADATA);
    let produced = append().await;
    assert_eq!((produced.base_offset, produced.attempts), (Some(1), 2));
    assert_eq!(wire.requests(ApiKey::METADATA), refreshes, "the rejection of the append was not enough");

    move_leader(&kafka, &topic, &[3, 1, 2]).await;
    let fetched = partition.fetch(0).await.unwrap();
    assert_eq!(fetched.next_offset, 2, "{fetched:?}");
    assert_eq!(wire.requests(ApiKey::METADATA), refreshes, "the rejection of the fetch was not enough");
}

/// Makes the first of the replicas the leader of partition 0 and waits until every replica acts on it: other
/// brokers may name the new leader before it accepts requests.
async fn move_leader(kafka: &Kafka, topic: &str, replicas: &[u16]) {
    kafka.java().move_leader(topic, 0, replicas).await;
    let addresses = kafka.bootstrap();
    for &replica in replicas {
        let mut broker = Broker::connect(&addresses[usize::from(replica) - 1]).await;
        while broker.leads(topic).await != (replica == replicas[0]) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn three_nodes(version: Version, properties: &[(&str, &str)]) -> Kafka {
    let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let config = ClusterConfig { nodes: 3, properties: properties.collect(), ..ClusterConfig::default() };
    Kafka::start(version, &config)
}

/// Returns the median latency of appends to all of the partitions during two seconds.
async fn median_latency(partitions: &[PartitionClient]) -> Duration {
    let mut writers = JoinSet::new();
    for partition in partitions {
        let writer = partition.clone();
        writers.spawn(async move {
            let begun = Instant::now();
            let mut latencies = Vec::new();
            while begun.elapsed() < Duration::from_secs(2) {
                let start = Instant::now();
                writer.produce(vec![Record::new(None::<&str>, "x")]).await.unwrap();
                latencies.push(start.elapsed());
            }
            latencies
        });
    }
    let mut latencies = writers.join_all().await.concat();
    latencies.sort_unstable();
    latencies[latencies.len() / 2]
}

/// Counts the connections of this process to each broker in `/proc`.
fn connections(kafka: &Kafka) -> Vec<usize> {
    const ESTABLISHED: &str = "01";
    // The table is that of all processes. Java also connects to these ports; its inodes are not in this
    // process.
    let inodes: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    // Columns: number, local address, remote address, state, …; the tenth is the inode.
    let remote_ports: Vec<u16> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[3] == ESTABLISHED && inodes.iter().any(|inode| inode == fields[9]))
        .map(|fields| u16::from_str_radix(fields[2].split(':').nth(1).unwrap(), 16).unwrap())
        .collect();
    let ports = kafka.bootstrap().into_iter().map(|address| address.parse::<SocketAddr>().unwrap().port());
    ports.map(|port| remote_ports.iter().filter(|remote| **remote == port).count()).collect()
}
