//! Appends under a quota: a throttled append was executed, so it is neither sent again nor is its connection
//! closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use kwal_client::record::Record;
use kwal_client::{ClientBuilder, PartitionClient};
use kwal_testkit::check::{Expect, Log, Recorder, Writer, WriterId};
use kwal_tests::kafka::{Kafka, Version};
use kwal_tests::message::pseudo_random;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::load::WINDOW;
use super::network::Network;

kwal_tests::suite! {
    older: [nothing_is_sent_twice],
}

const BYTES_PER_SECOND: u64 = 100_000;
/// The default deadline of an append.
const DEADLINE: Duration = Duration::from_secs(60);

/// What is appended: so many batches of one record, and its size.
#[derive(Clone, Copy, Debug)]
struct Workload {
    batches: u64,
    size: usize,
}

/// One batch exceeds the quota of half a second.
const MANY: Workload = Workload { batches: 120, size: 50_000 };
/// Sent at once, they are answered over 18 seconds, longer than the time limit of a request.
const LARGE: Workload = Workload { batches: 6, size: 400_000 };

/// Each workload runs on one version; with `KWAL_LONG=1`, on both.
async fn nothing_is_sent_twice(version: Version) {
    let workloads: &[Workload] = match version {
        _ if kwal_tests::long() => &[MANY, LARGE],
        Version::V3_9_2 => &[LARGE],
        Version::V4_3_1 => &[MANY],
    };
    let kafka = Kafka::shared(version);
    let by = [Some(1), Some(32), None];
    let runs = workloads.iter().flat_map(|workload| by.map(|callers| append(kafka, *workload, callers)));
    join_all(runs).await;
}

/// Lets so many callers append to a topic of their own under a quota of their own. `None` is one that submits
/// all at once.
async fn append(kafka: &Kafka, workload: Workload, callers: Option<u64>) {
    let topic = kafka.topic("throttled", 1, &[]).await;
    kafka.java().producer_quota(&topic, Some(BYTES_PER_SECOND)).await;
    let network = Network::new();
    let client = ClientBuilder::new(kafka.bootstrap()).client_id(&topic).connector(network.clone());
    let client = client.build().await.unwrap();
    let partition = client.partition_client(&topic, 0).await.unwrap();
    let recorder = Recorder::new();
    let writer = recorder.now().writer(Writer::new((&*topic, 0)).deadline(DEADLINE));
    let begun = Instant::now();
    match callers {
        Some(callers) => by_callers(&partition, &recorder, writer, workload, callers).await,
        None => at_once(&partition, &recorder, writer, workload).await,
    }
    let took = begun.elapsed();

    let what = format!("{workload:?} by {callers:?}");
    assert_eq!(network.connections(0), 1, "{what}: the connection was closed");
    assert_eq!(network.requests(0) as u64, workload.batches, "{what}: a batch was sent twice");
    kafka.java().producer_quota(&topic, None).await;
    let end = kafka.java().offset(&topic, 0, "latest").await;
    let records = kafka.java().consume(&topic, 0, 0, Some(end)).await.into_iter();
    let records = records.map(|record| (record.offset, record.value.unwrap()));
    recorder.now().log(Log::new((&*topic, 0), 0..end, records));
    let verdict = recorder.now().check(&Expect::default());
    assert!(verdict.holds(), "{what}: {verdict}");
    assert_eq!(verdict.tally().acked as u64, workload.batches, "{what}: {}", verdict.tally());
    // Otherwise the quota was not in force.
    assert!(took > Duration::from_secs(8), "{what}: only {took:.1?}");
    let most = network.most_in_flight(0);
    match callers {
        Some(1) => assert_eq!(most, 1, "{what}: in flight"),
        // A large batch takes so long to encode and to send that the one before may have been answered.
        _ if workload.size == LARGE.size => assert!((1..=WINDOW).contains(&most), "{what}: {most} in flight"),
        _ => assert_eq!(most, WINDOW, "{what}: in flight"),
    }
    let version = kafka.version().unwrap();
    kwal_tests::report(format_args!("{version}: {what} took {took:.1?}, {most} in flight"));
}

async fn by_callers(
    partition: &PartitionClient,
    recorder: &Recorder,
    writer: WriterId,
    workload: Workload,
    callers: u64,
) {
    let next = Arc::new(AtomicU64::new(0));
    let caller = async || {
        loop {
            let batch = next.fetch_add(1, Ordering::Relaxed);
            if batch >= workload.batches {
                break;
            }
            let value = pseudo_random(workload.size, batch);
            let ticket = recorder.queue(writer, [&value]);
            let produced = partition.produce(vec![Record::new(None::<&str>, value)]).await.unwrap();
            ticket.acked(produced.base_offset.unwrap());
        }
    };
    join_all((0..callers).map(|_| caller())).await;
}

async fn at_once(partition: &PartitionClient, recorder: &Recorder, writer: WriterId, workload: Workload) {
    let encode = |number| {
        let value = pseudo_random(workload.size, number);
        (partition.encode([Record::new(None::<&str>, value.clone())]).unwrap(), value)
    };
    let batches: Vec<_> = (0..workload.batches).map(encode).collect();
    let mut appends = JoinSet::new();
    for (batch, value) in batches {
        let permit = partition.reserve(batch.size_in_bytes()).await.unwrap();
        let ticket = recorder.submit(writer, [&value]);
        let append = permit.submit(batch);
        appends.spawn(async move { ticket.acked(append.await.unwrap().base_offset.unwrap()) });
    }
    appends.join_all().await;
}
