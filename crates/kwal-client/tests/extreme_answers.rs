//! Numbers in answers that are as extreme as possible: no call panics, each ends in time, appends keep their
//! promises, and nothing of it stays.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use kwal_client::{
    Client, ClientBuilder, Deadlines, OffsetAt, PartitionClient,
    error::{Error, ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::{
    api::{ApiKey, Request},
    messages::{
        ApiVersionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DescribeClusterRequest,
        DescribeConfigsRequest, DescribeProducersRequest, FetchRequest, FindCoordinatorRequest,
        InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
        ProduceRequest,
    },
};
use kwal_testkit::{EmbeddedCluster, Fault, wire::Wire};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

const DEADLINE: Duration = Duration::from_secs(5);
/// Longer than any throttle.
const LONG: Duration = Duration::from_secs(61);

/// A number in an answer.
enum Number<'a> {
    I8(&'a mut i8),
    I16(&'a mut i16),
    I32(&'a mut i32),
    I64(&'a mut i64),
}

macro_rules! numbers {
    ($($from:ty => $to:ident),*) => {$(
        impl<'a> From<&'a mut $from> for Number<'a> {
            fn from(number: &'a mut $from) -> Self {
                Self::$to(number)
            }
        }
    )*};
}
numbers!(i8 => I8, i16 => I16, i32 => I32, i64 => I64);

impl Number<'_> {
    fn set(self, rng: &mut Rng) {
        let kind = rng.usize(..4);
        match self {
            Self::I8(number) => *number = [0, -1, i8::MIN, i8::MAX][kind],
            Self::I16(number) => *number = [0, -1, i16::MIN, i16::MAX][kind],
            Self::I32(number) => *number = [0, -1, i32::MIN, i32::MAX][kind],
            Self::I64(number) => *number = [0, -1, i64::MIN, i64::MAX][kind],
        }
    }
}

/// Changes a number in one of three answers, while it is on.
#[derive(Clone)]
struct Liar {
    wire: Wire,
    rng: Arc<Mutex<Option<Rng>>>,
}

impl Liar {
    fn changes<R: Request>(&self, numbers: impl Fn(&mut R::Response) -> Vec<Number<'_>> + Send + 'static) {
        let rng = Arc::clone(&self.rng);
        self.wire.rewrite::<R>(move |response| {
            let mut rng = rng.lock().unwrap();
            let Some(rng) = rng.as_mut() else { return };
            if rng.u8(..3) > 0 {
                return;
            }
            let mut numbers = numbers(response);
            let index = rng.usize(..numbers.len());
            numbers.swap_remove(index).set(rng);
        });
    }

    fn new(cluster: &EmbeddedCluster, seed: u64) -> Self {
        let rng = Arc::new(Mutex::new(Some(Rng::with_seed(seed))));
        let liar = Self { wire: Wire::new(cluster.connector()), rng };
        liar.changes::<MetadataRequest>(|response| {
            let mut all: Vec<Number<'_>> =
                vec![(&mut response.throttle_time_ms).into(), (&mut response.controller_id).into()];
            for broker in &mut response.brokers {
                all.extend([(&mut broker.node_id).into(), (&mut broker.port).into()]);
            }
            for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                all.push((&mut partition.partition_index).into());
                all.push((&mut partition.leader_id).into());
                all.push((&mut partition.leader_epoch).into());
                all.extend(partition.isr_nodes.iter_mut().map(Number::from));
            }
            all
        });
        liar.changes::<ProduceRequest>(|response| {
            let mut all = vec![(&mut response.throttle_time_ms).into()];
            for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
                all.push((&mut partition.index).into());
                all.push((&mut partition.base_offset).into());
                all.push((&mut partition.log_append_time_ms).into());
                all.push((&mut partition.log_start_offset).into());
                all.push((&mut partition.current_leader.leader_id).into());
                all.push((&mut partition.current_leader.leader_epoch).into());
            }
            all
        });
        liar.changes::<FetchRequest>(|response| {
            let mut all = vec![(&mut response.throttle_time_ms).into(), (&mut response.session_id).into()];
            for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
                all.push((&mut partition.partition_index).into());
                all.push((&mut partition.high_watermark).into());
                all.push((&mut partition.last_stable_offset).into());
                all.push((&mut partition.log_start_offset).into());
                all.push((&mut partition.preferred_read_replica).into());
                all.push((&mut partition.diverging_epoch.epoch).into());
                all.push((&mut partition.diverging_epoch.end_offset).into());
                all.push((&mut partition.current_leader.leader_id).into());
                all.push((&mut partition.current_leader.leader_epoch).into());
            }
            all
        });
        liar.changes::<ListOffsetsRequest>(|response| {
            let mut all = vec![(&mut response.throttle_time_ms).into()];
            for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                all.push((&mut partition.partition_index).into());
                all.push((&mut partition.timestamp).into());
                all.push((&mut partition.offset).into());
                all.push((&mut partition.leader_epoch).into());
            }
            all
        });
        liar.changes::<OffsetForLeaderEpochRequest>(|response| {
            let mut all = vec![(&mut response.throttle_time_ms).into()];
            for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                all.push((&mut partition.partition).into());
                all.push((&mut partition.leader_epoch).into());
                all.push((&mut partition.end_offset).into());
            }
            all
        });
        liar.changes::<InitProducerIdRequest>(|response| {
            vec![
                (&mut response.throttle_time_ms).into(),
                (&mut response.producer_id).into(),
                (&mut response.producer_epoch).into(),
            ]
        });
        liar.changes::<FindCoordinatorRequest>(|response| {
            vec![
                (&mut response.throttle_time_ms).into(),
                (&mut response.node_id).into(),
                (&mut response.port).into(),
            ]
        });
        liar.changes::<DescribeProducersRequest>(|response| {
            let mut all = vec![(&mut response.throttle_time_ms).into()];
            for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                all.push((&mut partition.partition_index).into());
                for producer in &mut partition.active_producers {
                    all.push((&mut producer.producer_id).into());
                    all.push((&mut producer.producer_epoch).into());
                    all.push((&mut producer.last_sequence).into());
                    all.push((&mut producer.current_txn_start_offset).into());
                }
            }
            all
        });
        liar.changes::<DeleteRecordsRequest>(|response| {
            let mut all = vec![(&mut response.throttle_time_ms).into()];
            for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                all.push((&mut partition.partition_index).into());
                all.push((&mut partition.low_watermark).into());
            }
            all
        });
        liar.changes::<DescribeClusterRequest>(|response| {
            let mut all: Vec<Number<'_>> =
                vec![(&mut response.throttle_time_ms).into(), (&mut response.controller_id).into()];
            for broker in &mut response.brokers {
                all.extend([(&mut broker.broker_id).into(), (&mut broker.port).into()]);
            }
            all
        });
        liar.changes::<CreateTopicsRequest>(|response| {
            let mut all = vec![(&mut response.throttle_time_ms).into()];
            for topic in &mut response.topics {
                all.push((&mut topic.num_partitions).into());
                all.push((&mut topic.replication_factor).into());
            }
            all
        });
        liar.changes::<DescribeConfigsRequest>(|response| {
            let mut all = vec![(&mut response.throttle_time_ms).into()];
            for result in &mut response.results {
                all.push((&mut result.resource_type).into());
                for config in &mut result.configs {
                    all.push((&mut config.config_source).into());
                    all.push((&mut config.config_type).into());
                }
            }
            all
        });
        liar
    }

    /// The versions of a connection hold as long as it does.
    fn changes_versions(&self) {
        self.changes::<ApiVersionsRequest>(|response| {
            let mut all = vec![(&mut response.throttle_time_ms).into()];
            for api in &mut response.api_keys {
                all.push((&mut api.min_version).into());
                all.push((&mut api.max_version).into());
            }
            all
        });
    }

    fn stop(&self) {
        *self.rng.lock().unwrap() = None;
    }
}

/// The result of a call, which has to end in time.
async fn in_time<T>(what: &str, call: impl IntoFuture<Output = Result<T, Error>>) -> Result<T, Error> {
    let begun = Instant::now();
    let result = call.await;
    let took = begun.elapsed();
    // The time that a caller grants the task of its appends.
    assert!(took <= DEADLINE + Duration::from_millis(100), "{what} took {took:?}: {:?}", result.err());
    result
}

/// The outcomes of appends by value: whether it must be on the log, or may be.
type Outcomes = BTreeMap<String, Result<(), Outcome>>;

async fn append(partition: &PartitionClient, outcomes: &mut Outcomes) -> Result<(), Error> {
    let value = outcomes.len().to_string();
    let result = in_time("produce", partition.produce(vec![Record::new(None::<&str>, value.clone())])).await;
    outcomes.insert(value, result.as_ref().map(drop).map_err(Error::outcome));
    result.map(drop)
}

/// Calls of all kinds, whatever they return. Meanwhile responses get lost and the leader moves.
async fn use_all(seed: u64, client: &Client, cluster: &EmbeddedCluster, outcomes: &mut Outcomes) {
    let mut rng = Rng::with_seed(!seed);
    let mut partition = None;
    for round in 0..6 {
        match rng.u8(..4) {
            0 => cluster.on(ApiKey::PRODUCE, Fault::LoseReply),
            1 => cluster.move_leader("wal", 0, rng.i32(1..=3)).unwrap(),
            2 => cluster.disconnect_all(),
            _ => {}
        }
        if partition.is_none() || round == 3 {
            partition = in_time("open", client.partition_client("wal", 0)).await.ok();
        }
        let Some(partition) = &partition else { continue };
        if let Err(error) = append(partition, outcomes).await
            && let Some(in_doubt) = error.in_doubt()
        {
            let fence = Record::new(None::<&str>, "fence");
            drop(in_time("resolve", partition.resolve(in_doubt, fence)).await);
        }
        let read = in_time("fetch", partition.fetch(0).max_wait(Duration::ZERO)).await;
        if let Ok(read) = read {
            drop(read.for_each(|_| {}));
        }
        for at in [OffsetAt::Latest, OffsetAt::Earliest, OffsetAt::Timestamp(OffsetDateTime::UNIX_EPOCH)] {
            drop(in_time("offset", partition.get_offset(at)).await);
        }
        drop(in_time("records", async { partition.fetch_records(0, 1..1000, 10).await }).await);
        drop(in_time("epoch", partition.offset_for_leader_epoch(0)).await);
        drop(in_time("delete", partition.delete_records(0)).await);
        drop(append(partition, outcomes).await);
        let (second, tenth) = (Duration::from_secs(1), Duration::from_millis(100));
        let exclusive = client.partition_client("wal", 1).exclusive("writer").renewal(second).probe(tenth);
        if let Ok(holder) = in_time("exclusive", exclusive).await {
            for value in ["a", "b"] {
                drop(in_time("produce", holder.produce(vec![Record::new(None::<&str>, value)])).await);
                sleep(second).await;
            }
        }
    }
    if let Ok(controller) = in_time("controller", async { client.controller_client().await }).await {
        drop(in_time("describe", controller.describe_cluster()).await);
        drop(in_time("create", controller.create_topic("other", 1, 1)).await);
        drop(in_time("ensure", controller.ensure_topic("wal", 2, 3)).await);
        drop(in_time("configs", controller.describe_topic_configs("wal")).await);
        drop(in_time("audit", controller.audit("wal")).await);
        drop(in_time("list", client.list_topics()).await);
    }
}

/// What a client that was lied to can do when the lies have ended.
async fn check_recovered(seed: u64, client: &Client, cluster: &EmbeddedCluster, outcomes: &mut Outcomes) {
    let open = async || in_time("open", client.partition_client("wal", 0)).await;
    let mut partition = open().await.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    if let Err(error) = append(&partition, outcomes).await {
        // An id of the pool may have been lied about.
        let is_final = matches!(error.kind(), ErrorKind::DataLoss { .. } | ErrorKind::Fenced);
        assert!(is_final, "seed {seed}: {error:?}");
        partition = open().await.unwrap();
        append(&partition, outcomes).await.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    }
    let holder = in_time("exclusive", client.partition_client("wal", 1).exclusive("writer")).await;
    let holder = holder.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    let produced = in_time("produce", holder.produce(vec![Record::new(None::<&str>, "c")])).await;
    assert_eq!(
        produced.ok().and_then(|produced| produced.base_offset),
        Some(holder.holder().unwrap().barrier + 1)
    );
    let end = cluster.end_offset("wal", 0).unwrap();
    let read = in_time("fetch", partition.fetch(0)).await;
    assert_eq!(read.map(|read| read.next_offset).ok(), Some(end), "seed {seed}");
    let latest = in_time("latest", partition.get_offset(OffsetAt::Latest)).await;
    assert_eq!(latest.ok(), Some(end), "seed {seed}");
    let controller = in_time("controller", async { client.controller_client().await }).await.unwrap();
    let description = in_time("describe", controller.describe_cluster()).await.unwrap();
    assert_eq!(description.brokers.len(), 3, "seed {seed}");
}

fn check_log(seed: u64, cluster: &EmbeddedCluster, outcomes: &Outcomes) {
    let mut log: BTreeMap<String, usize> = BTreeMap::new();
    for record in cluster.records("wal", 0).unwrap() {
        *log.entry(String::from_utf8(record.value.unwrap().to_vec()).unwrap()).or_default() += 1;
    }
    for (value, outcome) in outcomes {
        let times = log.get(value).copied().unwrap_or_default();
        let is_kept = match outcome {
            Ok(()) => times == 1,
            Err(Outcome::NotApplied) => times == 0,
            Err(_) => times <= 1,
        };
        assert!(is_kept, "seed {seed}: append {value}: {outcome:?}, {times} times on the log");
    }
}

async fn run(seed: u64, with_versions: bool) {
    let cluster = EmbeddedCluster::builder()
        .brokers(3)
        .topic_assigned("wal", &[&[1, 2, 3], &[2, 3, 1]])
        .seed(seed)
        .start_in_memory()
        .unwrap();
    let liar = Liar::new(&cluster, seed);
    if with_versions {
        liar.changes_versions();
    }
    let deadlines = Deadlines::default()
        .operation(DEADLINE)
        .connect(Duration::from_secs(2))
        .request(Duration::from_secs(2));
    let builder = || {
        ClientBuilder::new(cluster.bootstrap()).connector(liar.wire.clone()).seed(seed).deadlines(deadlines)
    };
    let mut outcomes = Outcomes::new();
    let client = in_time("build", async { builder().build().await }).await;
    if let Ok(client) = &client {
        use_all(seed, client, &cluster, &mut outcomes).await;
    }
    check_log(seed, &cluster, &outcomes);
    liar.stop();
    cluster.clear_faults();
    if with_versions {
        cluster.disconnect_all();
    }
    sleep(LONG).await;
    if let Ok(client) = &client {
        check_recovered(seed, client, &cluster, &mut outcomes).await;
        check_log(seed, &cluster, &outcomes);
    }
}

/// Counts panics of all tasks and threads.
fn panics() -> &'static AtomicUsize {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            before(info);
        }));
    });
    &PANICS
}

/// As many as take about a second.
const SEEDS: std::ops::Range<u64> = 0..20;

#[tokio::test(start_paused = true)]
async fn extreme_numbers_neither_panic_nor_stay() {
    let panics = panics();
    for seed in SEEDS {
        run(seed, false).await;
    }
    assert_eq!(panics.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn extreme_versions_neither_panic_nor_stay() {
    let panics = panics();
    for seed in SEEDS {
        run(seed, true).await;
    }
    assert_eq!(panics.load(Ordering::Relaxed), 0);
}
