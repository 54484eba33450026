//! Several brokers: how many connections there are to each, and that one's trouble stays its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kwal_client::record::Record;
use kwal_client::{ClientBuilder, Limits, PartitionClient};
use kwal_protocol::api::ApiKey;
use kwal_tests::kafka::{ClusterConfig, Kafka, Version};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::raw::Broker;
use crate::sniffer::Sniffer;

kwal_tests::suite! {
    own: [connections_are_shared, a_waiting_append_delays_no_other_partition, leaders_are_taken_from_refusals],
}

/// A thousand partition clients, all of which append and read at once.
async fn connections_are_shared(version: Version) {
    const CLIENTS: i32 = 1_000;
    const PARTITIONS: i32 = 30;
    let kafka = three_nodes(version, &[]);
    let topic = kafka.topic("shared", PARTITIONS, &[]).await;
    for lanes in [Limits::default().lanes, 2] {
        let limits = Limits { lanes, ..Limits::default() };
        let client = ClientBuilder::new(kafka.bootstrap()).limits(limits).build().await.unwrap();
        let mut clients = JoinSet::new();
        for index in 0..CLIENTS {
            let (client, topic) = (client.clone(), topic.clone());
            clients.spawn(async move {
                let partition = client.partition_client(&topic, index % PARTITIONS).await.unwrap();
                let produced = partition.produce(vec![Record::new(None::<&str>, "x")]).await.unwrap();
                partition.fetch(produced.base_offset).await.unwrap();
                partition
            });
        }
        let clients = clients.join_all().await;
        assert_eq!(clients.len(), 1_000);
        // As many for appends, as many for reads, and the one for what is short.
        let limit = 2 * lanes + 1;
        let mut counts = connections(&kafka);
        let settled = Instant::now() + Duration::from_secs(20);
        // On a slow machine a bootstrap address may be asked as well, until it or another has answered.
        while counts.iter().any(|count| *count > limit) && Instant::now() < settled {
            tokio::time::sleep(Duration::from_millis(20)).await;
            counts = connections(&kafka);
        }
        kwal_tests::report(format_args!(
            "{version}: {CLIENTS} partition clients of {lanes} lanes have {counts:?} connections to the brokers"
        ));
        assert!(counts.iter().all(|count| (1..=limit).contains(count)), "{counts:?} with {lanes} lanes");
        drop((clients, client));
        // What is not needed any more is closed.
        while connections(&kafka).iter().any(|count| *count > 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A follower stands still, and so does every append that waits for it. Those on the same broker that wait for somebody
/// else, or for nobody, go on as before.
async fn a_waiting_append_delays_no_other_partition(version: Version) {
    const OTHERS: i32 = 6;
    // It stays in sync for as long as the test lasts.
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
    assert_eq!(append.await.unwrap().unwrap().base_offset, 1);
    kwal_tests::report(format_args!(
        "{version}: half of the appends take up to {before:.1?}, and {meanwhile:.1?} while another partition waits"
    ));
    // Behind the one that waits they would have taken the two seconds.
    assert!(meanwhile < 2 * before + Duration::from_millis(100), "{meanwhile:?} instead of {before:?}");
}

/// A leader moves; its refusal says where to (KIP-951), so that nobody else is asked.
async fn leaders_are_taken_from_refusals(version: Version) {
    let kafka = three_nodes(version, &[("auto.leader.rebalance.enable", "false")]);
    let topic = kafka.topic_name("moving");
    let sniffer = Sniffer::default();
    let client = ClientBuilder::new(kafka.bootstrap()).connector(sniffer.clone()).build().await.unwrap();
    let controller = client.controller_client().await.unwrap();
    controller.create_topic(&topic, -1, -1).assignment(vec![vec![1, 2, 3]]).await.unwrap();
    let partition = client.partition_client(&topic, 0).await.unwrap();
    let append = async || partition.produce(vec![Record::new(None::<&str>, "x")]).await.unwrap();
    append().await;

    move_leader(&kafka, &topic, &[2, 1, 3]).await;
    let asked = sniffer.sent(ApiKey::METADATA);
    let produced = append().await;
    assert_eq!((produced.base_offset, produced.attempts), (1, 2));
    assert_eq!(sniffer.sent(ApiKey::METADATA), asked, "the refusal of the append was not enough");

    move_leader(&kafka, &topic, &[3, 1, 2]).await;
    let fetched = partition.fetch(0).await.unwrap();
    assert_eq!(fetched.next_offset, 2, "{fetched:?}");
    assert_eq!(sniffer.sent(ApiKey::METADATA), asked, "the refusal of the fetch was not enough");
}

/// Makes the first of the replicas the leader of partition 0, and waits until each of them acts on it: one that leads does
/// not know so yet when others already name it, and sends back whoever comes.
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

/// The median of the time that an append takes, with all of the partitions busy for two seconds.
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

/// How many connections this process has to each broker, as the system tells.
fn connections(kafka: &Kafka) -> Vec<usize> {
    const ESTABLISHED: &str = "01";
    // Everybody's, but who else would connect to these ports from here is Java, whose process has none of these inodes.
    let inodes: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    // Number, local address, remote address, state, …, and the inode as the tenth.
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
